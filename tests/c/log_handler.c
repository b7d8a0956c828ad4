/* What is logged goes to a handler, up to its level; one that was replaced or taken back runs nowhere any more and was freed; calls
 * from inside are refused. */
#include "test.h"

typedef struct {
    int calls, frees, worst, refused;
    bool no_text;
} seen;

static void call(void *user, int32_t level, const char *target, const char *message) {
    seen *seen = user;
    __atomic_add_fetch(&seen->calls, 1, __ATOMIC_SEQ_CST);
    if (seen->frees != 0 || target[0] == 0 || message[0] == 0)
        seen->no_text = true;
    if (level > seen->worst)
        seen->worst = level;
    /* Others than those of errors are refused. */
    vmt_options *options = NULL;
    vmt_error *error = NULL;
    if (vmt_options_new(&options, &error) == VMT_E_REENTERED && vmt_error_errno(error) == EDEADLK && options == NULL)
        __atomic_add_fetch(&seen->refused, 1, __ATOMIC_SEQ_CST);
    vmt_error_free(error);
}

static void freed(void *user) { ((seen *)user)->frees++; }

static int calls(seen *seen) { return __atomic_load_n(&seen->calls, __ATOMIC_SEQ_CST); }

static void run(void) {
    stage s;
    stage_open(&s, 0, "read-timeout", test_is_slow() ? "4" : "1", NULL);
    char buffer[8];
    size_t read;
    /* Not from the beginning: what follows would be read ahead. The time is short for what has to connect first. */
    SOON(vmt_pread(s.appliance, 0, buffer, 8, 12 * PIECE + 100, &read, NULL) == VMT_OK);
    stage_check(&s, 12 * PIECE + 100, 10);
    OK(vmt_session_shutdown(s.source, VMT_FOREVER, ERR));
    /* Something to warn of. */
    CHECK(vmt_pread(s.appliance, 0, buffer, 8, 4 * PIECE, &read, NULL) != VMT_OK);
    stage_close(&s);
    SAME(unlink(at("data/disk.img")), 0);
}

int main(void) {
    seen off = {0}, trace = {0}, info = {0}, error = {0};
    /* What is refused is freed. */
    FAILS(VMT_E_INVALID, vmt_log_set(99, (vmt_log_handler){call, &off, freed}, ERR));
    SAME(off.frees, 1);
    off.frees = 0;
    OK(vmt_log_set(VMT_LOG_OFF, (vmt_log_handler){call, &off, freed}, ERR));
    SAME(off.frees, 1);
    OK(vmt_log_set(VMT_LOG_TRACE, (vmt_log_handler){call, &trace, freed}, ERR));
    run();
    CHECK(calls(&trace) > 0);
    SAME(trace.refused, trace.calls);
    CHECK(!trace.no_text);
    CHECK(trace.worst >= VMT_LOG_INFO);
    SAME(trace.frees, 0);

    OK(vmt_log_set(VMT_LOG_WARN, (vmt_log_handler){call, &info, freed}, ERR));
    SAME(trace.frees, 1);
    int before = calls(&trace);
    run();
    SAME(calls(&trace), before);
    CHECK(calls(&info) > 0);
    CHECK(info.worst <= VMT_LOG_WARN);

    OK(vmt_log_set(VMT_LOG_ERROR, (vmt_log_handler){call, &error, NULL}, ERR));
    SAME(info.frees, 1);
    run();
    CHECK(calls(&error) == 0 || error.worst == VMT_LOG_ERROR);
    /* Taken back, while a session runs. */
    stage s;
    stage_open(&s, 0, NULL);
    OK(vmt_log_set(VMT_LOG_TRACE, (vmt_log_handler){call, &trace, freed}, ERR));
    stage_check(&s, 0, s.length);
    OK(vmt_log_set(VMT_LOG_TRACE, (vmt_log_handler){NULL, &off, freed}, ERR));
    SAME(trace.frees, 2);
    SAME(off.frees, 2);
    before = calls(&trace);
    stage_close(&s);
    SAME(calls(&trace), before);
    SAME(off.calls, 0);
    return test_end();
}
