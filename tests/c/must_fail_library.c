/* A buffer that is shorter than the caller says has to be caught, though it is the library that writes behind it:
 * rust: heap-buffer-overflow
 * valgrind: Invalid write
 */
#include "test.h"

int main(void) {
    stage s;
    stage_open(&s, 0, NULL);
    char *buffer = malloc(100);
    size_t read = 0;
    OK(vmt_pread(s.appliance, 0, buffer, 101, 0, &read, ERR));
    free(buffer);
    stage_close(&s);
    return test_end();
}
