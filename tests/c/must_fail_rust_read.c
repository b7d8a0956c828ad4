/* A mistake of the library itself has to be caught, when it is built with the sanitizer:
 * rust: heap-use-after-free
 */
#include "test.h"

int main(void) {
    CHECK(vmt_test_bad_read(false) != 2);
    return test_end();
}
