/* In a child that was forked, calls with its parent's handles are refused with VMT_E_FORKED and freeing them does nothing: the
 * parent's appliance and its mount go on. What is no session's works there. A session of the child's own is refused too, unless the
 * parent had none. */
#include <signal.h>
#include <sys/wait.h>

#include "test.h"

#define REFUSED(call) FAILS_AS(VMT_E_FORKED, EPERM, "", call)

static int frees;

static void count_free(void *user) {
    (void)user;
    frees++;
}

static void never(void *user, vmt_status status, uint64_t value, const vmt_error *error) {
    (void)user, (void)status, (void)value, (void)error;
    CHECK(!"called in the child");
}

static void never_event(void *user, const vmt_event *event) {
    (void)user, (void)event;
    CHECK(!"called in the child");
}

static vmt_report *report;

static void in_child(stage *s, vmt_events *events, vmt_cancel *cancel) {
    char buffer[16] = {0};
    size_t size = 0;
    uint64_t number = 0;
    vmt_extent extent;
    vmt_stats stats = {.struct_size = sizeof stats};
    vmt_image *image = NULL;
    vmt_profile *profile = NULL;
    vmt_appliance *a = s->appliance, *appliance = NULL;
    vmt_events *queue = NULL;
    vmt_event *event = NULL;
    vmt_seed *seed = NULL;
    vmt_session *session = NULL;
    vmt_completion completion = {never, NULL, count_free};
    REFUSED(vmt_pread(a, 0, buffer, 1, 0, &size, ERR));
    REFUSED(vmt_try_pread(a, 0, buffer, 1, 0, &size, ERR));
    REFUSED(vmt_pwrite(a, 0, buffer, 1, 0, ERR));
    REFUSED(vmt_flush(a, 0, ERR));
    REFUSED(vmt_discard(a, 0, 0, 1, ERR));
    REFUSED(vmt_write_zeroes(a, 0, 0, 1, ERR));
    REFUSED(vmt_set_length(a, 0, 1, ERR));
    REFUSED(vmt_prefetch(a, 0, 0, 1, &number, ERR));
    REFUSED(vmt_extents(a, 0, 0, 1, &extent, 1, &size, ERR));
    REFUSED(vmt_aio_pread(a, 0, buffer, 1, 0, completion, ERR));
    REFUSED(vmt_aio_pwrite(a, 0, buffer, 1, 0, completion, ERR));
    REFUSED(vmt_aio_flush(a, 0, completion, ERR));
    REFUSED(vmt_aio_discard(a, 0, 0, 1, completion, ERR));
    REFUSED(vmt_aio_write_zeroes(a, 0, 0, 1, completion, ERR));
    REFUSED(vmt_appliance_on_event(a, (vmt_event_callback){never_event, NULL, count_free}, ERR));
    SAME(frees, 6);
    REFUSED(vmt_appliance_image(a, &image, ERR));
    REFUSED(vmt_appliance_session(a, &session, ERR));
    REFUSED(vmt_appliance_find_file(a, "disk.img", &size, ERR));
    REFUSED(vmt_appliance_file_length(a, 0, &number, ERR));
    REFUSED(vmt_appliance_stats(a, &stats, ERR));
    REFUSED(vmt_appliance_profile(a, &profile, ERR));
    REFUSED(vmt_report_mark(report, VMT_PHASE_VMM, ERR));
    REFUSED(vmt_report_follow(report, a, ERR));
    REFUSED(vmt_report_write(report, a, 0, at("report.html"), ERR));
    REFUSED(vmt_appliance_shutdown(a, VMT_FOREVER, NULL, ERR));
    REFUSED(vmt_events_open(a, &queue, ERR));
    REFUSED(vmt_events_next(events, &event, ERR));
    REFUSED(vmt_session_launch(s->session, s->image, NULL, NULL, &appliance, ERR));
    REFUSED(vmt_session_load(s->session, "x.torrent", NULL, NULL, &image, ERR));
    REFUSED(vmt_session_seed(s->session, s->image, "data", &seed, ERR));
    REFUSED(vmt_session_serve_tracker(s->session, "127.0.0.1:0", ERR));
    REFUSED(vmt_session_serve_metrics(s->session, "127.0.0.1:0", ERR));
    REFUSED(vmt_session_shutdown(s->session, VMT_FOREVER, ERR));
    REFUSED(vmt_seed_stats(s->seed, &stats, ERR));
    REFUSED(vmt_seed_shutdown(s->seed, VMT_FOREVER, ERR));
    CHECK(vmt_appliance_file_path(a, 0) == NULL);
    CHECK(vmt_session_listen_address(s->session) == NULL);
    SAME(vmt_events_fd(events), -1);
    vmt_options *options = test_session_options(at("cache-of-child"));
    REFUSED(vmt_session_start(options, &session, ERR));
    REFUSED(vmt_launch("x.torrent", options, NULL, &appliance, ERR));
    vmt_options_free(options);
    CHECK(session == NULL && appliance == NULL && image == NULL && profile == NULL && queue == NULL && event == NULL);
    CHECK(seed == NULL);
    vmt_report_free(report);
    vmt_events_free(events);
    vmt_appliance_free(a);
    vmt_seed_free(s->seed);
    vmt_session_free(s->session);
    vmt_session_free(s->source);

    /* What belongs to no session. */
    SAME_TEXT(vmt_image_name(s->image), "disk.img");
    CHECK(!vmt_cancel_is_triggered(cancel));
    vmt_cancel_free(cancel);
    vmt_image_free(s->image);
    SAME(vmt_abi_version(), VMT_ABI_VERSION);
}

/* Runs in a child; fails when that did. */
static void fork_and(void (*run)(stage *, vmt_events *, vmt_cancel *), stage *s, vmt_events *events, vmt_cancel *cancel) {
    int results[2];
    SAME(pipe(results), 0);
    fflush(NULL);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        alarm(PATIENCE * 2);
        run(s, events, cancel);
        test_reset();
        SAME(write(results[1], "x", 1), 1);
        /* No leaks are looked for here: those of the parent's threads are none. */
        kill(getpid(), SIGKILL);
    }
    close(results[1]);
    char result = 0;
    ssize_t got = read(results[0], &result, 1);
    close(results[0]);
    SAME(waitpid(child, NULL, 0), child);
    SAME(got, 1);
}

static void own_session(stage *s, vmt_events *events, vmt_cancel *cancel) {
    (void)s, (void)events, (void)cancel;
    vmt_session *session = test_session(at("cache-of-child"));
    vmt_image *image = test_publish(at("data/disk.img"), NULL);
    vmt_options *options = test_options("ephemeral", "true", NULL);
    vmt_appliance *appliance = NULL;
    OK(vmt_session_launch(session, image, options, NULL, &appliance, ERR));
    vmt_options_free(options);
    /* A whole block: nobody is there to ask for the rest of it. */
    char block[4096] = "child";
    OK(vmt_pwrite(appliance, 0, block, sizeof block, 0, ERR));
    READS(appliance, "child", 5, 0);
    OK(vmt_session_shutdown(session, VMT_FOREVER, ERR));
    vmt_appliance_free(appliance);
    vmt_session_free(session);
    vmt_image_free(image);
}

/* By another process, as a VMM would. */
static void use_mount(void) {
    int disk = open(at("mount/disk.img"), O_RDWR | O_CLOEXEC);
    CHECK(disk >= 0);
    char buffer[100];
    size_t length;
    uint8_t *content = test_read_file(at("data/disk.img"), &length);
    SAME(pread(disk, buffer, 100, 9 * PIECE), 100);
    CHECK(memcmp(buffer, content + 9 * PIECE, 100) == 0);
    SAME(pwrite(disk, "x", 1, 0), 1);
    close(disk);
}

int main(void) {
    helper reader;
    bool fuse = access("/dev/fuse", R_OK | W_OK) == 0;
    if (fuse)
        helper_start(&reader, use_mount);
    else
        reader.process = -1;
    stage s;
    stage_open_seed(&s, 0);
    vmt_options *options = stage_options(&s);
    if (fuse) {
        SAME(mkdir(at("mount"), 0700), 0);
        OK(vmt_options_set(options, "mount", at("mount"), ERR));
    }
    OK(vmt_session_launch(s.session, s.image, options, NULL, &s.appliance, ERR));
    vmt_options_free(options);
    stage_check(&s, 0, PIECE);
    vmt_events *events = NULL;
    OK(vmt_events_open(s.appliance, &events, ERR));
    vmt_cancel *cancel = NULL;
    OK(vmt_cancel_new(&cancel, ERR));
    OK(vmt_report_begin(&report, ERR));
    /* Nobody shall hold the lock of the heap meanwhile. */
    test_sleep(100);
    fork_and(in_child, &s, events, cancel);

    /* The parent goes on. */
    stage_check(&s, 4 * PIECE, 3 * PIECE);
    if (fuse) {
        helper_run(&reader);
        READS(s.appliance, "x", 1, 0);
    }
    vmt_event *event = NULL;
    FAILS(VMT_E_AGAIN, vmt_events_next(events, &event, ERR));
    vmt_events_free(events);
    vmt_cancel_free(cancel);
    vmt_report_free(report);
    OK(vmt_appliance_shutdown(s.appliance, VMT_FOREVER, NULL, ERR));

    stage_close(&s);

    /* Nothing of a session is left. */
    test_threads_settled();
    fork_and(own_session, NULL, NULL, NULL);
    return test_end();
}
