/* Undefined behaviour has to be caught:
 * asan: signed integer overflow
 * rust: signed integer overflow
 */
#include "test.h"

int main(int count, char **arguments) {
    (void)arguments;
    int large = 0x7FFFFFFF;
    large += count;
    CHECK(large != 5);
    return test_end();
}
