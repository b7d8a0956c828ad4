/* Each pointer of each function may be NULL: what needs it is refused with VMT_E_NULL and the parameter's name, callbacks are
 * freed then, and nothing else happens. */
#include "test.h"

static int frees;

static void count_free(void *user) {
    CHECK(user == &frees);
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

#define NEEDS(parameter, call) FAILS_AS(VMT_E_NULL, EINVAL, "`" parameter "`", call)
/* As NEEDS, with a callback that is freed before the call returns. */
#define NEEDS_AND_FREES(parameter, call)    \
    do {                                    \
        frees = 0;                          \
        NEEDS(parameter, call);             \
        SAME(frees, 1);                     \
    } while (0)
/* Also with nobody to tell the error. */
#define QUIET(call) SAME(call, VMT_E_NULL)

int main(void) {
    stage s;
    stage_open(&s, 0, NULL);
    vmt_appliance *a = s.appliance;
    char buffer[16];
    size_t size = 0;
    uint64_t number = 0;
    vmt_extent extent;
    vmt_stats stats = {.struct_size = sizeof stats};
    vmt_options *options = test_options("fill", "none", NULL);
    vmt_completion good = {never, &frees, count_free}, bad = {NULL, &frees, count_free};
    vmt_event_callback event_good = {never_event, &frees, count_free}, event_bad = {NULL, &frees, count_free};
    vmt_profile *profile = NULL;
    OK(vmt_appliance_profile(a, &profile, ERR));
    vmt_image *image = NULL;
    vmt_session *session = NULL;
    vmt_events *events = NULL;
    vmt_event *event = NULL;
    vmt_seed *seed = NULL;
    vmt_cancel *cancel = NULL;
    vmt_appliance *appliance = NULL;

    /* Asynchronous calls. */
    NEEDS_AND_FREES("appliance", vmt_aio_pread(NULL, 0, buffer, 1, 0, good, ERR));
    NEEDS_AND_FREES("buffer", vmt_aio_pread(a, 0, NULL, 1, 0, good, ERR));
    NEEDS_AND_FREES("completion.call", vmt_aio_pread(a, 0, buffer, 1, 0, bad, ERR));
    NEEDS_AND_FREES("appliance", vmt_aio_pwrite(NULL, 0, buffer, 1, 0, good, ERR));
    NEEDS_AND_FREES("data", vmt_aio_pwrite(a, 0, NULL, 1, 0, good, ERR));
    NEEDS_AND_FREES("completion.call", vmt_aio_pwrite(a, 0, buffer, 1, 0, bad, ERR));
    NEEDS_AND_FREES("appliance", vmt_aio_flush(NULL, 0, good, ERR));
    NEEDS_AND_FREES("completion.call", vmt_aio_flush(a, 0, bad, ERR));
    NEEDS_AND_FREES("appliance", vmt_aio_discard(NULL, 0, 0, 1, good, ERR));
    NEEDS_AND_FREES("completion.call", vmt_aio_discard(a, 0, 0, 1, bad, ERR));
    NEEDS_AND_FREES("appliance", vmt_aio_write_zeroes(NULL, 0, 0, 1, good, ERR));
    NEEDS_AND_FREES("completion.call", vmt_aio_write_zeroes(a, 0, 0, 1, bad, ERR));
    NEEDS_AND_FREES("appliance", vmt_appliance_on_event(NULL, event_good, ERR));
    NEEDS_AND_FREES("callback.call", vmt_appliance_on_event(a, event_bad, ERR));
    /* A callback needs no `free`. */
    good.free = bad.free = NULL;
    NEEDS("appliance", vmt_aio_flush(NULL, 0, good, ERR));
    NEEDS("completion.call", vmt_aio_flush(a, 0, bad, ERR));
    QUIET(vmt_aio_pread(NULL, 0, NULL, 0, 0, bad, NULL));
    QUIET(vmt_aio_pwrite(NULL, 0, NULL, 0, 0, bad, NULL));
    QUIET(vmt_aio_flush(NULL, 0, bad, NULL));
    QUIET(vmt_aio_discard(NULL, 0, 0, 0, bad, NULL));
    QUIET(vmt_aio_write_zeroes(NULL, 0, 0, 0, bad, NULL));
    event_bad.free = NULL;
    QUIET(vmt_appliance_on_event(NULL, event_bad, NULL));

    /* Input and output. */
    NEEDS("appliance", vmt_pread(NULL, 0, buffer, 1, 0, &size, ERR));
    NEEDS("buffer", vmt_pread(a, 0, NULL, 1, 0, &size, ERR));
    NEEDS("read", vmt_pread(a, 0, buffer, 1, 0, NULL, ERR));
    NEEDS("appliance", vmt_try_pread(NULL, 0, buffer, 1, 0, &size, ERR));
    NEEDS("buffer", vmt_try_pread(a, 0, NULL, 1, 0, &size, ERR));
    NEEDS("read", vmt_try_pread(a, 0, buffer, 1, 0, NULL, ERR));
    NEEDS("appliance", vmt_pwrite(NULL, 0, buffer, 1, 0, ERR));
    NEEDS("data", vmt_pwrite(a, 0, NULL, 1, 0, ERR));
    NEEDS("appliance", vmt_flush(NULL, 0, ERR));
    NEEDS("appliance", vmt_discard(NULL, 0, 0, 1, ERR));
    NEEDS("appliance", vmt_write_zeroes(NULL, 0, 0, 1, ERR));
    NEEDS("appliance", vmt_set_length(NULL, 0, 1, ERR));
    NEEDS("appliance", vmt_prefetch(NULL, 0, 0, 1, &number, ERR));
    NEEDS("appliance", vmt_extents(NULL, 0, 0, 1, &extent, 1, &size, ERR));
    NEEDS("extents", vmt_extents(a, 0, 0, 1, NULL, 1, &size, ERR));
    NEEDS("count", vmt_extents(a, 0, 0, 1, &extent, 1, NULL, ERR));
    QUIET(vmt_pread(NULL, 0, NULL, 0, 0, NULL, NULL));
    QUIET(vmt_try_pread(NULL, 0, NULL, 0, 0, NULL, NULL));
    QUIET(vmt_pwrite(NULL, 0, NULL, 0, 0, NULL));
    QUIET(vmt_flush(NULL, 0, NULL));
    QUIET(vmt_discard(NULL, 0, 0, 0, NULL));
    QUIET(vmt_write_zeroes(NULL, 0, 0, 0, NULL));
    QUIET(vmt_set_length(NULL, 0, 0, NULL));
    QUIET(vmt_prefetch(NULL, 0, 0, 0, NULL, NULL));
    QUIET(vmt_extents(NULL, 0, 0, 0, NULL, 0, NULL, NULL));
    /* No bytes need no buffer; `missing` may be NULL. */
    OK(vmt_pread(a, 0, NULL, 0, 0, &size, ERR));
    SAME(size, 0);
    OK(vmt_try_pread(a, 0, NULL, 0, 0, &size, ERR));
    OK(vmt_pwrite(a, 0, NULL, 0, 0, ERR));
    OK(vmt_prefetch(a, 0, 0, 1, NULL, ERR));

    /* Appliances. */
    NEEDS("session", vmt_session_launch(NULL, s.image, options, NULL, &appliance, ERR));
    NEEDS("image", vmt_session_launch(s.session, NULL, options, NULL, &appliance, ERR));
    NEEDS("appliance", vmt_session_launch(s.session, s.image, options, NULL, NULL, ERR));
    NEEDS("source", vmt_launch(NULL, options, NULL, &appliance, ERR));
    NEEDS("appliance", vmt_launch("x.torrent", options, NULL, NULL, ERR));
    NEEDS("appliance", vmt_appliance_image(NULL, &image, ERR));
    NEEDS("image", vmt_appliance_image(a, NULL, ERR));
    NEEDS("appliance", vmt_appliance_session(NULL, &session, ERR));
    NEEDS("session", vmt_appliance_session(a, NULL, ERR));
    NEEDS("appliance", vmt_appliance_find_file(NULL, "disk.img", &size, ERR));
    NEEDS("path", vmt_appliance_find_file(a, NULL, &size, ERR));
    NEEDS("file", vmt_appliance_find_file(a, "disk.img", NULL, ERR));
    NEEDS("appliance", vmt_appliance_file_length(NULL, 0, &number, ERR));
    NEEDS("length", vmt_appliance_file_length(a, 0, NULL, ERR));
    NEEDS("appliance", vmt_appliance_stats(NULL, &stats, ERR));
    FAILS_AS(VMT_E_NULL, EINVAL, "stats", vmt_appliance_stats(a, NULL, ERR));
    NEEDS("appliance", vmt_appliance_profile(NULL, &profile, ERR));
    NEEDS("profile", vmt_appliance_profile(a, NULL, ERR));
    NEEDS("appliance", vmt_appliance_shutdown(NULL, 0, &stats, ERR));
    QUIET(vmt_session_launch(NULL, NULL, NULL, NULL, NULL, NULL));
    QUIET(vmt_launch(NULL, NULL, NULL, NULL, NULL));
    QUIET(vmt_appliance_image(NULL, NULL, NULL));
    QUIET(vmt_appliance_session(NULL, NULL, NULL));
    QUIET(vmt_appliance_find_file(NULL, NULL, NULL, NULL));
    QUIET(vmt_appliance_file_length(NULL, 0, NULL, NULL));
    QUIET(vmt_appliance_stats(NULL, NULL, NULL));
    QUIET(vmt_appliance_profile(NULL, NULL, NULL));
    QUIET(vmt_appliance_shutdown(NULL, 0, NULL, NULL));
    CHECK(vmt_appliance_directory(NULL) == NULL);
    CHECK(vmt_appliance_disk_path(NULL) == NULL);
    CHECK(vmt_appliance_state_directory(NULL) == NULL);
    SAME(vmt_appliance_file_count(NULL), 0);
    CHECK(vmt_appliance_file_path(NULL, 0) == NULL);
    SAME(vmt_appliance_boot_file(NULL), 0);

    /* Cancelling, errors and events. */
    NEEDS("cancel", vmt_cancel_new(NULL, ERR));
    QUIET(vmt_cancel_new(NULL, NULL));
    vmt_cancel_trigger(NULL);
    CHECK(!vmt_cancel_is_triggered(NULL));
    SAME(vmt_error_status(NULL), VMT_OK);
    SAME(vmt_error_errno(NULL), 0);
    SAME_TEXT(vmt_error_message(NULL), "");
    CHECK(vmt_error_copy(NULL) == NULL);
    SAME(vmt_event_kind(NULL), 0);
    SAME(vmt_event_file(NULL), 0);
    SAME(vmt_event_offset(NULL), 0);
    SAME(vmt_event_peers(NULL), 0);
    SAME(vmt_event_lost(NULL), 0);
    CHECK(vmt_event_message(NULL) == NULL);
    OK(vmt_events_open(a, &events, ERR));
    NEEDS("appliance", vmt_events_open(NULL, &events, ERR));
    NEEDS("events", vmt_events_open(a, NULL, ERR));
    NEEDS("events", vmt_events_next(NULL, &event, ERR));
    NEEDS("event", vmt_events_next(events, NULL, ERR));
    QUIET(vmt_events_open(NULL, NULL, NULL));
    QUIET(vmt_events_next(NULL, NULL, NULL));
    CHECK(vmt_events_fd(NULL) == -1);

    /* Exporting, publishing, images. */
    NEEDS("state", vmt_export(NULL, at("out"), NULL, NULL, &number, ERR));
    NEEDS("output", vmt_export(at("state"), NULL, NULL, NULL, &number, ERR));
    QUIET(vmt_export(NULL, NULL, NULL, NULL, NULL, NULL));
    NEEDS("path", vmt_publish(NULL, NULL, test_no_progress, NULL, &image, ERR));
    NEEDS("image", vmt_publish(at("data/disk.img"), NULL, test_no_progress, NULL, NULL, ERR));
    QUIET(vmt_publish(NULL, NULL, test_no_progress, NULL, NULL, NULL));
    NEEDS_AND_FREES("path", vmt_publish(NULL, NULL, (vmt_progress){NULL, &frees, count_free}, NULL, &image, ERR));
    NEEDS("data", vmt_image_from_bytes(NULL, 1, &image, ERR));
    NEEDS("image", vmt_image_from_bytes((const uint8_t *)"x", 1, NULL, ERR));
    NEEDS("image", vmt_image_save(NULL, at("x"), ERR));
    NEEDS("path", vmt_image_save(s.image, NULL, ERR));
    NEEDS("image", vmt_image_profile(NULL, &profile, ERR));
    NEEDS("profile", vmt_image_profile(s.image, NULL, ERR));
    QUIET(vmt_image_from_bytes(NULL, 0, NULL, NULL));
    QUIET(vmt_image_save(NULL, NULL, NULL));
    QUIET(vmt_image_profile(NULL, NULL, NULL));
    CHECK(vmt_image_name(NULL) == NULL);
    CHECK(vmt_image_info_hash(NULL) == NULL);
    CHECK(vmt_image_magnet(NULL) == NULL);
    SAME(vmt_image_length(NULL), 0);
    SAME(vmt_image_piece_length(NULL), 0);
    SAME(vmt_image_piece_count(NULL), 0);
    CHECK(!vmt_image_is_private(NULL));
    SAME(vmt_image_file_count(NULL), 0);
    CHECK(vmt_image_file_path(NULL, 0) == NULL);
    SAME(vmt_image_file_length(NULL, 0), 0);
    size = 77;
    CHECK(vmt_image_torrent(NULL, &size) == NULL);
    SAME(size, 77);
    CHECK(vmt_image_torrent(s.image, NULL) == NULL);

    /* Options and profiles. */
    NEEDS("options", vmt_options_new(NULL, ERR));
    NEEDS("options", vmt_options_set(NULL, "fill", "none", ERR));
    NEEDS("key", vmt_options_set(options, NULL, "none", ERR));
    NEEDS("value", vmt_options_set(options, "fill", NULL, ERR));
    NEEDS("options", vmt_options_set_profile(NULL, profile, ERR));
    OK(vmt_options_set_profile(options, NULL, ERR));
    QUIET(vmt_options_new(NULL, NULL));
    QUIET(vmt_options_set(NULL, NULL, NULL, NULL));
    QUIET(vmt_options_set_profile(NULL, NULL, NULL));
    vmt_profile *other = NULL;
    NEEDS("path", vmt_profile_load(NULL, &other, ERR));
    NEEDS("profile", vmt_profile_load(at("x"), NULL, ERR));
    NEEDS("data", vmt_profile_from_bytes(NULL, 1, &other, ERR));
    NEEDS("profile", vmt_profile_from_bytes((const uint8_t *)"x", 1, NULL, ERR));
    NEEDS("profile", vmt_profile_merge(NULL, profile, false, NULL, ERR));
    NEEDS("other", vmt_profile_merge(profile, NULL, false, NULL, ERR));
    NEEDS("profile", vmt_profile_save(NULL, at("x"), ERR));
    NEEDS("path", vmt_profile_save(profile, NULL, ERR));
    QUIET(vmt_profile_load(NULL, NULL, NULL));
    QUIET(vmt_profile_from_bytes(NULL, 0, NULL, NULL));
    QUIET(vmt_profile_merge(NULL, NULL, false, NULL, NULL));
    QUIET(vmt_profile_save(NULL, NULL, NULL));
    vmt_text *text = NULL;
    NEEDS("profile", vmt_profile_summary(NULL, false, &text, ERR));
    NEEDS("summary", vmt_profile_summary(profile, true, NULL, ERR));
    NEEDS("profile", vmt_profile_plot(NULL, at("x"), ERR));
    NEEDS("path", vmt_profile_plot(profile, NULL, ERR));
    QUIET(vmt_profile_summary(NULL, false, NULL, NULL));
    QUIET(vmt_profile_plot(NULL, NULL, NULL));
    CHECK(vmt_text_string(NULL) == NULL);
    SAME(vmt_text_length(NULL), 0);
    SAME(vmt_profile_runs(NULL), 0);
    SAME(vmt_profile_blocks(NULL), 0);
    CHECK(vmt_profile_name(NULL) == NULL);
    CHECK(vmt_profile_info_hash(NULL) == NULL);

    /* Seeds and sessions. */
    NEEDS("session", vmt_session_seed(NULL, s.image, at("data"), &seed, ERR));
    NEEDS("image", vmt_session_seed(s.source, NULL, at("data"), &seed, ERR));
    NEEDS("data", vmt_session_seed(s.source, s.image, NULL, &seed, ERR));
    NEEDS("seed", vmt_session_seed(s.source, s.image, at("data"), NULL, ERR));
    NEEDS("seed", vmt_seed_stats(NULL, &stats, ERR));
    FAILS_AS(VMT_E_NULL, EINVAL, "stats", vmt_seed_stats(s.seed, NULL, ERR));
    NEEDS("seed", vmt_seed_shutdown(NULL, 0, ERR));
    NEEDS("session", vmt_session_start(NULL, NULL, ERR));
    NEEDS("session", vmt_session_load(NULL, "x", NULL, NULL, &image, ERR));
    NEEDS("source", vmt_session_load(s.session, NULL, NULL, NULL, &image, ERR));
    NEEDS("image", vmt_session_load(s.session, "x", NULL, NULL, NULL, ERR));
    NEEDS("session", vmt_session_serve_tracker(NULL, "127.0.0.1:0", ERR));
    NEEDS("address", vmt_session_serve_tracker(s.session, NULL, ERR));
    NEEDS("session", vmt_session_serve_metrics(NULL, "127.0.0.1:0", ERR));
    NEEDS("address", vmt_session_serve_metrics(s.session, NULL, ERR));
    NEEDS("session", vmt_session_shutdown(NULL, 0, ERR));
    QUIET(vmt_session_seed(NULL, NULL, NULL, NULL, NULL));
    QUIET(vmt_seed_stats(NULL, NULL, NULL));
    QUIET(vmt_seed_shutdown(NULL, 0, NULL));
    QUIET(vmt_session_start(NULL, NULL, NULL));
    QUIET(vmt_session_load(NULL, NULL, NULL, NULL, NULL, NULL));
    QUIET(vmt_session_serve_tracker(NULL, NULL, NULL));
    QUIET(vmt_session_serve_metrics(NULL, NULL, NULL));
    QUIET(vmt_session_shutdown(NULL, 0, NULL));
    CHECK(vmt_seed_magnet(NULL) == NULL);
    CHECK(vmt_session_listen_address(NULL) == NULL);
    CHECK(vmt_session_tracker_url(NULL) == NULL);
    CHECK(vmt_session_metrics_url(NULL) == NULL);

    /* Reports and replays. */
    vmt_report *report = NULL;
    vmt_replayed replayed = {.struct_size = sizeof replayed};
    NEEDS("report", vmt_report_begin(NULL, ERR));
    NEEDS("report", vmt_report_mark(NULL, VMT_PHASE_VMM, ERR));
    NEEDS("report", vmt_report_follow(NULL, a, ERR));
    NEEDS("report", vmt_report_write(NULL, a, 0, at("x"), ERR));
    OK(vmt_report_begin(&report, ERR));
    NEEDS("appliance", vmt_report_follow(report, NULL, ERR));
    OK(vmt_report_follow(report, a, ERR));
    NEEDS("appliance", vmt_report_write(report, NULL, 0, at("x"), ERR));
    NEEDS("path", vmt_report_write(report, a, 0, NULL, ERR));
    vmt_report_free(report);
    NEEDS("trace", vmt_replay(NULL, "x", 1, NULL, &replayed, ERR));
    NEEDS("disk", vmt_replay("x", NULL, 1, NULL, &replayed, ERR));
    NEEDS("replayed", vmt_replay("x", "x", 1, NULL, NULL, ERR));
    QUIET(vmt_report_begin(NULL, NULL));
    QUIET(vmt_report_mark(NULL, 0, NULL));
    QUIET(vmt_report_follow(NULL, NULL, NULL));
    QUIET(vmt_report_write(NULL, NULL, 0, NULL, NULL));
    QUIET(vmt_replay(NULL, NULL, 0, NULL, NULL, NULL));

    /* Nothing was made, and all still works. */
    CHECK(image == NULL && session == NULL && event == NULL && seed == NULL && cancel == NULL && appliance == NULL);
    CHECK(other == NULL && text == NULL);
    CHECK(access(at("x"), F_OK) != 0 && access(at("out"), F_OK) != 0);
    stage_check(&s, 0, s.length);
    vmt_profile_free(profile);
    vmt_options_free(options);
    vmt_events_free(events);
    stage_close(&s);
    return test_end();
}
