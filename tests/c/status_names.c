/* Each status has a name of its own, and any number has one. */
#include "test.h"

int main(void) {
    static const vmt_status all[] = {
        VMT_OK,          VMT_E_INVALID,   VMT_E_TORRENT,   VMT_E_NOT_FOUND, VMT_E_PERMISSION, VMT_E_IN_USE,
        VMT_E_UNAVAILABLE, VMT_E_NETWORK, VMT_E_TIMED_OUT, VMT_E_NO_SPACE,  VMT_E_IO,         VMT_E_CORRUPT,
        VMT_E_CLOSED,    VMT_E_NULL,      VMT_E_UTF8,      VMT_E_CANCELLED, VMT_E_FORKED,     VMT_E_PANIC,
        VMT_E_POISONED,  VMT_E_REENTERED, VMT_E_AGAIN,
    };
    enum { COUNT = sizeof all / sizeof *all };
    for (int i = 0; i < COUNT; i++) {
        CHECK(strlen(vmt_status_name(all[i])) > 1);
        CHECK(vmt_status_name(all[i]) == vmt_status_name(all[i]));
        for (int j = 0; j < i; j++) {
            CHECK(all[i] != all[j]);
            CHECK(strcmp(vmt_status_name(all[i]), vmt_status_name(all[j])) != 0);
        }
    }
    static const vmt_status unknown[] = {1, -19, -1000, INT32_MAX, INT32_MIN};
    for (size_t i = 0; i < sizeof unknown / sizeof *unknown; i++)
        CHECK(strlen(vmt_status_name(unknown[i])) > 1);
    return test_end();
}
