/* Calls the units, and tells what they found. */
#include <inttypes.h>
#include <stdio.h>

#define UNITS(X) X(1) X(2) X(3) X(4) X(5) X(6)
#define DECLARE(n) uint64_t unit##n(uint64_t seed);
#define CALL(n) sum = unit##n(sum);

UNITS(DECLARE)

int main(void)
{
    uint64_t sum = 1;
    UNITS(CALL)
    printf("%016" PRIx64 "\n", sum);
    return 0;
}
