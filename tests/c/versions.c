/* The loaded library tells its versions, and they are those of the header. */
#include "test.h"

int main(void) {
    SAME(vmt_abi_version(), VMT_ABI_VERSION);
    unsigned major, minor, patch;
    char end;
    SAME(sscanf(vmt_version(), "%u.%u.%u%c", &major, &minor, &patch, &end), 3);
    CHECK(vmt_version() == vmt_version());
    return test_end();
}
