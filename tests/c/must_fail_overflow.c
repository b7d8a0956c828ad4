/* A write behind the end of memory has to be caught:
 * asan: heap-buffer-overflow
 * rust: heap-buffer-overflow
 * valgrind: Invalid write of size
 */
#include "test.h"

int main(void) {
    char *room = malloc(16);
    volatile size_t length = 17;
    memset(room, 1, length);
    CHECK(room[15] == 1);
    free(room);
    return test_end();
}
