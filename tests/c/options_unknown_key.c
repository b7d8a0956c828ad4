/* A key that does not exist is refused by its name, with what to do about it. */
#include "test.h"

int main(void) {
    vmt_options *options = test_options("fill", "none", NULL);
    static const char *const bad[] = {"filll", "Fill", "fill ", "", "read_timeout", "no-such-key"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        FAILS_AS(VMT_E_INVALID, EINVAL, bad[i], vmt_options_set(options, bad[i], "1", ERR));
        HAS(test_message(), "read-timeout");
        SAME(vmt_options_set(options, bad[i], "1", NULL), VMT_E_INVALID);
    }
    vmt_options_free(options);
    return test_end();
}
