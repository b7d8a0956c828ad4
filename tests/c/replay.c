/* What the option `trace` writes is what was read, and vmt_replay reads it again of another disk, at the guest's pace or faster;
 * a trace that is none is refused before anything is read, and a long one can be given up. */
#include "test.h"

static vmt_replayed replayed = {.struct_size = sizeof replayed};

static void *trigger_soon(void *cancel) {
    test_sleep(100);
    vmt_cancel_trigger(cancel);
    return NULL;
}

static void write_trace(const char *text) { test_write_file(at("made.trace"), text, strlen(text)); }

static vmt_status play(const char *trace, const char *disk, double speed, vmt_cancel *cancel) {
    return vmt_replay(trace, disk, speed, cancel, &replayed, ERR);
}

static void traced_reads_are_replayed(void) {
    stage s;
    stage_open(&s, 0, "trace", at("run.trace"), NULL);
    stage_check(&s, 0, 1000);
    test_sleep(30);
    stage_check(&s, 2 * PIECE, 5000);
    /* One that waits is one read too, whichever call waits for it. */
    told told = TOLD;
    char buffer[100];
    OK(vmt_aio_pread(s.appliance, 0, buffer, sizeof buffer, 12 * PIECE, told_completion(&told), ERR));
    SAME(told_wait(&told), VMT_OK);
    OK(vmt_appliance_shutdown(s.appliance, VMT_FOREVER, NULL, ERR));
    size_t length;
    char *text = (char *)test_read_file(at("run.trace"), &length);
    HAS(text, "# vmtorrent trace 1: think_us offset length\n");
    HAS(text, " 0 1000\n");
    HAS(text, " 32768 5000\n");
    HAS(text, " 196608 100\n");
    free(text);

    OK(play(at("run.trace"), at("data/disk.img"), 1, NULL));
    SAME(replayed.struct_size, sizeof replayed);
    SAME(replayed.reads, 3);
    SAME(replayed.bytes, 6100);
    /* The guest slept between both. */
    CHECK(replayed.guest_seconds > 0.025 && replayed.wall_seconds >= replayed.guest_seconds);
    CHECK(replayed.read_seconds > 0 && replayed.max_ms >= replayed.p99_ms && replayed.p99_ms >= replayed.p50_ms);
    double thought = replayed.guest_seconds;
    OK(play(at("run.trace"), at("data/disk.img"), 10, NULL));
    CHECK(replayed.guest_seconds < thought / 5);
    stage_close(&s);
}

static void what_is_no_trace_is_refused(void) {
    const char *disk = at("disk");
    test_write_file(disk, "0123456789", 10);
    vmt_replayed before = replayed;

    static const char *const bad[][2] = {
        /* An hour of thinking would show that it had begun. */
        {"3600000000 0 5\n1 two 3\n", "line 2"},
        {"0 5 6\n", "10 bytes"},
        {"", "no read"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        write_trace(bad[i][0]);
        FAILS_AS(VMT_E_INVALID, EINVAL, bad[i][1], play(at("made.trace"), disk, 1, NULL));
        HAS(test_message(), "made.trace");
    }
    write_trace("0 0 5\n");
    FAILS_AS(VMT_E_NOT_FOUND, ENOENT, "absent", play(at("absent"), disk, 1, NULL));
    FAILS_AS(VMT_E_NOT_FOUND, ENOENT, "absent", play(at("made.trace"), at("absent"), 1, NULL));
    FAILS_AS(VMT_E_INVALID, EINVAL, "speed", play(at("made.trace"), disk, 0, NULL));
    FAILS_AS(VMT_E_INVALID, EINVAL, "speed", play(at("made.trace"), disk, -1e300 * 1e300, NULL));
    SAME(memcmp(&before, &replayed, sizeof before), 0);
}

static void it_is_given_up(void) {
    vmt_cancel *cancel = NULL;
    pthread_t thread;

    write_trace("0 0 5\n3600000000 0 5\n");
    OK(vmt_cancel_new(&cancel, ERR));
    SAME(pthread_create(&thread, NULL, trigger_soon, cancel), 0);
    double begin = test_now();
    FAILS_AS(VMT_E_CANCELLED, ECANCELED, "", play(at("made.trace"), at("disk"), 1, cancel));
    CHECK(test_now() - begin < PATIENCE);
    SAME(pthread_join(thread, NULL), 0);
    vmt_cancel_free(cancel);
}

static void older_callers_get_what_they_know(void) {
    uint64_t words[4] = {24, 7, 7, 7};

    write_trace("0 1 5\n0 0 1\n");
    OK(vmt_replay(at("made.trace"), at("disk"), 1, NULL, (vmt_replayed *)words, ERR));
    SAME(words[0], 24);
    SAME(words[1], 2);
    SAME(words[2], 6);
    SAME(words[3], 7);
    words[0] = 8;
    FAILS_AS(VMT_E_INVALID, EINVAL, "sizeof(vmt_replayed)",
             vmt_replay(at("made.trace"), at("disk"), 1, NULL, (vmt_replayed *)words, ERR));
}

int main(void) {
    traced_reads_are_replayed();
    what_is_no_trace_is_refused();
    it_is_given_up();
    older_callers_get_what_they_know();
    return test_end();
}
