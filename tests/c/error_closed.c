/* After a shutdown every call gives VMT_E_CLOSED and ESHUTDOWN, callbacks are freed, and what was looked up stays. */
#include "test.h"

#define CLOSED(call) FAILS_AS(VMT_E_CLOSED, ESHUTDOWN, "", call)

static int frees;

static void count_free(void *user) {
    (void)user;
    frees++;
}

static void never(void *user, vmt_status status, uint64_t value, const vmt_error *error) {
    (void)user, (void)status, (void)value, (void)error;
    CHECK(!"called though it was refused");
}

static void never_event(void *user, const vmt_event *event) {
    (void)user, (void)event;
    CHECK(!"called though it was refused");
}

static void check_appliance(const stage *s) {
    char buffer[16] = {0};
    size_t read = 0;
    uint64_t number = 0;
    vmt_extent extent;
    vmt_stats stats = {.struct_size = sizeof stats};
    vmt_image *image = NULL;
    vmt_profile *profile = NULL;
    vmt_events *events = NULL;
    const vmt_appliance *a = s->appliance;
    vmt_completion completion = {never, NULL, count_free};
    frees = 0;
    CLOSED(vmt_pread(a, 0, buffer, 1, 0, &read, ERR));
    CLOSED(vmt_try_pread(a, 0, buffer, 1, 0, &read, ERR));
    CLOSED(vmt_pwrite(a, 0, buffer, 1, 0, ERR));
    CLOSED(vmt_flush(a, 0, ERR));
    CLOSED(vmt_discard(a, 0, 0, 1, ERR));
    CLOSED(vmt_write_zeroes(a, 0, 0, 1, ERR));
    CLOSED(vmt_set_length(a, 0, 1, ERR));
    CLOSED(vmt_prefetch(a, 0, 0, 1, &number, ERR));
    CLOSED(vmt_extents(a, 0, 0, 1, &extent, 1, &read, ERR));
    CLOSED(vmt_aio_pread(a, 0, buffer, 1, 0, completion, ERR));
    CLOSED(vmt_aio_pwrite(a, 0, buffer, 1, 0, completion, ERR));
    CLOSED(vmt_aio_flush(a, 0, completion, ERR));
    CLOSED(vmt_aio_discard(a, 0, 0, 1, completion, ERR));
    CLOSED(vmt_aio_write_zeroes(a, 0, 0, 1, completion, ERR));
    CLOSED(vmt_appliance_on_event(a, (vmt_event_callback){never_event, NULL, count_free}, ERR));
    SAME(frees, 6);
    CLOSED(vmt_appliance_file_length(a, 0, &number, ERR));
    CLOSED(vmt_appliance_stats(a, &stats, ERR));
    CLOSED(vmt_appliance_profile(a, &profile, ERR));
    CLOSED(vmt_appliance_image(a, &image, ERR));
    CLOSED(vmt_events_open(a, &events, ERR));
    CHECK(image == NULL && profile == NULL && events == NULL);
    /* What is known without it. */
    SAME(vmt_appliance_file_count(a), 1);
    SAME_TEXT(vmt_appliance_file_path(a, 0), "disk.img");
    SAME_TEXT(vmt_appliance_state_directory(a), s->state);
    SAME(vmt_appliance_boot_file(a), 0);
    size_t file = 9;
    OK(vmt_appliance_find_file(a, "disk.img", &file, ERR));
    SAME(file, 0);
    vmt_session *session = NULL;
    OK(vmt_appliance_session(a, &session, ERR));
    vmt_session_free(session);
    OK(vmt_appliance_shutdown(a, 0, NULL, ERR));
}

int main(void) {
    stage s;
    stage_open(&s, 0, NULL);
    OK(vmt_appliance_shutdown(s.appliance, VMT_FOREVER, NULL, ERR));
    check_appliance(&s);
    vmt_appliance_free(s.appliance);

    /* The session of an appliance takes it along. */
    vmt_options *options = stage_options(&s);
    OK(vmt_session_launch(s.session, s.image, options, NULL, &s.appliance, ERR));
    OK(vmt_session_shutdown(s.session, VMT_FOREVER, ERR));
    check_appliance(&s);
    vmt_appliance *appliance = NULL;
    vmt_image *image = NULL;
    vmt_seed *seed = NULL;
    CLOSED(vmt_session_launch(s.session, s.image, options, NULL, &appliance, ERR));
    OK(vmt_image_save(s.image, at("x.torrent"), ERR));
    CLOSED(vmt_session_load(s.session, at("x.torrent"), NULL, NULL, &image, ERR));
    CLOSED(vmt_session_seed(s.session, s.image, at("data"), &seed, ERR));
    CLOSED(vmt_session_serve_tracker(s.session, "127.0.0.1:0", ERR));
    CLOSED(vmt_session_serve_metrics(s.session, "127.0.0.1:0", ERR));
    CHECK(vmt_session_listen_address(s.session) != NULL);
    OK(vmt_session_shutdown(s.session, 0, ERR));
    CHECK(appliance == NULL && image == NULL && seed == NULL);
    vmt_options_free(options);

    vmt_stats stats = {.struct_size = sizeof stats};
    OK(vmt_seed_shutdown(s.seed, VMT_FOREVER, ERR));
    CLOSED(vmt_seed_stats(s.seed, &stats, ERR));
    OK(vmt_seed_shutdown(s.seed, VMT_FOREVER, ERR));
    HAS(vmt_seed_magnet(s.seed), vmt_image_info_hash(s.image));
    stage_close(&s);
    return test_end();
}
