/* What is never freed has to be caught, also when it is a handle of the library:
 * asan: LeakSanitizer: detected memory leaks
 * rust: LeakSanitizer: detected memory leaks
 * valgrind: definitely lost
 */
#include "test.h"

int main(void) {
    vmt_options *options = test_options("fill", "none", NULL);
    CHECK(options != NULL);
    options = NULL;
    return test_end();
}
