/* A call that fails leaves its out-parameters as they were; one that succeeds leaves the error as it was. */
#include "test.h"

#define POISON ((void *)(uintptr_t)0x5A5A5A5A5A5A5A5Au)
/* The call fails, and the handle that it would have stored is as it was. */
#define KEEPS(type, call)                                    \
    do {                                                     \
        type *made = POISON;                                 \
        vmt_error *error = NULL;                             \
        CHECK((call) != VMT_OK);                             \
        CHECK(made == POISON);                               \
        CHECK(error != NULL);                                \
        vmt_error_free(error);                               \
    } while (0)

int main(void) {
    stage s;
    stage_open(&s, 0, NULL);
    vmt_options *options = stage_options(&s);
    KEEPS(vmt_image, vmt_session_load(s.session, at("none"), NULL, NULL, &made, &error));
    KEEPS(vmt_image, vmt_image_from_bytes((const uint8_t *)"x", 1, &made, &error));
    KEEPS(vmt_image, vmt_publish(at("none"), NULL, test_no_progress, NULL, &made, &error));
    KEEPS(vmt_appliance, vmt_session_launch(s.session, s.image, options, NULL, &made, &error));
    KEEPS(vmt_appliance, vmt_launch(at("none"), NULL, NULL, &made, &error));
    KEEPS(vmt_profile, vmt_profile_load(at("none"), &made, &error));
    KEEPS(vmt_profile, vmt_profile_from_bytes((const uint8_t *)"x", 1, &made, &error));
    KEEPS(vmt_profile, vmt_image_profile(s.image, &made, &error));
    KEEPS(vmt_seed, vmt_session_seed(s.source, s.image, at("none"), &made, &error));
    vmt_events *events = NULL;
    OK(vmt_events_open(s.appliance, &events, ERR));
    KEEPS(vmt_event, vmt_events_next(events, &made, &error));
    vmt_options_free(options);
    options = test_options("listen", vmt_session_listen_address(s.source), "cache", at("cache2"), NULL);
    KEEPS(vmt_session, vmt_session_start(options, &made, &error));
    vmt_options_free(options);

    size_t size = 0x5A5A;
    uint64_t number = 0x5A5A5A;
    char buffer[8];
    vmt_extent extent;
    FAILS(VMT_E_NOT_FOUND, vmt_appliance_find_file(s.appliance, "none", &size, ERR));
    FAILS(VMT_E_INVALID, vmt_pread(s.appliance, 1, buffer, 1, 0, &size, ERR));
    FAILS(VMT_E_AGAIN, vmt_try_pread(s.appliance, 0, buffer, 1, 0, &size, ERR));
    FAILS(VMT_E_INVALID, vmt_extents(s.appliance, 1, 0, 1, &extent, 1, &size, ERR));
    SAME(size, 0x5A5A);
    FAILS(VMT_E_INVALID, vmt_appliance_file_length(s.appliance, 1, &number, ERR));
    FAILS(VMT_E_INVALID, vmt_prefetch(s.appliance, 1, 0, 1, &number, ERR));
    FAILS(VMT_E_NOT_FOUND, vmt_export(at("none"), at("out"), NULL, NULL, &number, ERR));
    SAME(number, 0x5A5A5A);

    OK(vmt_appliance_shutdown(s.appliance, VMT_FOREVER, NULL, ERR));
    vmt_stats stats;
    memset(&stats, 0x5A, sizeof stats);
    stats.struct_size = sizeof stats;
    FAILS(VMT_E_CLOSED, vmt_appliance_stats(s.appliance, &stats, ERR));
    SAME(stats.struct_size, sizeof stats);
    SAME(stats.image_bytes, 0x5A5A5A5A5A5A5A5Au);
    KEEPS(vmt_image, vmt_appliance_image(s.appliance, &made, &error));
    KEEPS(vmt_profile, vmt_appliance_profile(s.appliance, &made, &error));
    KEEPS(vmt_events, vmt_events_open(s.appliance, &made, &error));

    /* A success leaves the error. */
    vmt_error *error = POISON;
    vmt_cancel *cancel = NULL;
    SAME(vmt_cancel_new(&cancel, &error), VMT_OK);
    CHECK(error == POISON);
    vmt_cancel_free(cancel);
    vmt_events_free(events);
    stage_close(&s);
    return test_end();
}
