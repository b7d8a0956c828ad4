/* What belongs to a handle is gone with it, and who still reads it has to be caught: the library's memory is of the same heap:
 * asan: heap-use-after-free
 * rust: heap-use-after-free
 * valgrind: Invalid read
 */
#include "test.h"

int main(void) {
    vmt_error *error = NULL;
    vmt_options_new(NULL, &error);
    const volatile char *message = vmt_error_message(error);
    vmt_error_free(error);
    CHECK(message[0] != 1);
    return test_end();
}
