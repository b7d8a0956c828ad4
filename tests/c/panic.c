/* A mistake in the library becomes VMT_E_PANIC, and every later call of that session VMT_E_POISONED: nothing aborts, nothing is
 * printed, callbacks are freed, other sessions go on, and what was flushed is safe. */
#include "test.h"

#define POISONED(call) FAILS_AS(VMT_E_POISONED, EIO, "free", call)

static int frees;

static void count_free(void *user) {
    (void)user;
    frees++;
}

static void never(void *user, vmt_status status, uint64_t value, const vmt_error *error) {
    (void)user, (void)status, (void)value, (void)error;
    CHECK(!"called though it was refused");
}

static void check_poisoned(stage *s, vmt_events *events) {
    vmt_appliance *a = s->appliance, *appliance = NULL;
    char buffer[16] = {0};
    size_t size = 0;
    uint64_t number = 0;
    vmt_extent extent;
    vmt_stats stats = {.struct_size = sizeof stats};
    vmt_image *image = NULL;
    vmt_seed *seed = NULL;
    vmt_event *event = NULL;
    vmt_completion completion = {never, NULL, count_free};
    frees = 0;
    POISONED(vmt_pread(a, 0, buffer, 1, 0, &size, ERR));
    POISONED(vmt_try_pread(a, 0, buffer, 1, 0, &size, ERR));
    POISONED(vmt_pwrite(a, 0, buffer, 1, 0, ERR));
    POISONED(vmt_flush(a, 0, ERR));
    POISONED(vmt_discard(a, 0, 0, 1, ERR));
    POISONED(vmt_write_zeroes(a, 0, 0, 1, ERR));
    POISONED(vmt_set_length(a, 0, 1, ERR));
    POISONED(vmt_prefetch(a, 0, 0, 1, &number, ERR));
    POISONED(vmt_extents(a, 0, 0, 1, &extent, 1, &size, ERR));
    POISONED(vmt_aio_pread(a, 0, buffer, 1, 0, completion, ERR));
    POISONED(vmt_aio_flush(a, 0, completion, ERR));
    SAME(frees, 2);
    POISONED(vmt_appliance_stats(a, &stats, ERR));
    POISONED(vmt_appliance_shutdown(a, VMT_FOREVER, NULL, ERR));
    POISONED(vmt_events_next(events, &event, ERR));
    POISONED(vmt_session_launch(s->session, s->image, NULL, NULL, &appliance, ERR));
    POISONED(vmt_session_load(s->session, "x", NULL, NULL, &image, ERR));
    POISONED(vmt_session_seed(s->session, s->image, "x", &seed, ERR));
    POISONED(vmt_session_shutdown(s->session, VMT_FOREVER, ERR));
    CHECK(vmt_appliance_file_path(a, 0) == NULL);
}

static void run(bool in_task) {
    stage s;
    stage_open(&s, 0, NULL);
    vmt_events *events = NULL;
    OK(vmt_events_open(s.appliance, &events, ERR));
    OK(vmt_pwrite(s.appliance, 0, "flushed", 7, 0, ERR));
    OK(vmt_flush(s.appliance, 0, ERR));
    if (in_task) {
        told told = TOLD;
        OK(vmt_test_panic_in_task(s.appliance, told_completion(&told), ERR));
        SAME(told_wait(&told), VMT_E_PANIC);
        SAME(told.number, EIO);
        SAME(told.value, 0);
        HAS(told.message, "injected by a test");
    } else {
        FAILS_AS(VMT_E_PANIC, EIO, "injected by a test", vmt_test_panic(s.session, ERR));
        SAME(vmt_test_panic(s.session, NULL), VMT_E_POISONED);
    }
    check_poisoned(&s, events);
    /* The other session has nothing to do with it. */
    vmt_stats stats = {.struct_size = sizeof stats};
    OK(vmt_seed_stats(s.seed, &stats, ERR));

    vmt_events_free(events);
    vmt_appliance_free(s.appliance);
    vmt_session_free(s.session);
    s.session = test_session(s.cache);
    stage_launch_when_free(&s, "fill", "none");
    READS(s.appliance, "flushed", 7, 0);
    READS(s.appliance, s.content + PIECE, PIECE, PIECE);
    OK(vmt_session_shutdown(s.session, VMT_FOREVER, ERR));
    vmt_appliance_free(s.appliance);
    vmt_session_free(s.session);
    s.session = NULL, s.appliance = NULL;
    stage_close(&s);
    SAME(unlink(at("data/disk.img")), 0);
}

int main(void) {
    fflush(NULL);
    const char *output = at("output");
    int kept = dup(2), file = open(output, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    CHECK(kept > 2 && file >= 0);
    vmt_session_free(test_session(at("warm")));
    int threads = test_threads_settled();
    /* What a check says is seen by who looks into the file; here it matters that there is nothing. */
    if (!test_is_slow())
        CHECK(dup2(file, 2) == 2);
    for (int in_task = 0; in_task < 2; in_task++) {
        run(in_task);
        SOON(test_threads() == threads);
    }
    CHECK(dup2(kept, 2) == 2);
    close(kept);
    close(file);
    size_t length;
    char *said = (char *)test_read_file(output, &length);
    SAME_TEXT(said, "");
    free(said);
    return test_end();
}
