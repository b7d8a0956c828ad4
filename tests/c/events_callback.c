/* Events by callback: a read that timed out tells its file, place and peers; the user is freed once, after the last call. */
#include "test.h"

typedef struct {
    int calls, frees, kind;
    size_t file;
    uint64_t offset, lost;
    uint32_t peers;
    bool has_message;
} seen;

static void call(void *user, const vmt_event *event) {
    seen *seen = user;
    SAME(seen->frees, 0);
    seen->kind = vmt_event_kind(event);
    seen->file = vmt_event_file(event);
    seen->offset = vmt_event_offset(event);
    seen->peers = vmt_event_peers(event);
    seen->lost = vmt_event_lost(event);
    seen->has_message = vmt_event_message(event)[0] != 0;
    __atomic_add_fetch(&seen->calls, 1, __ATOMIC_SEQ_CST);
}

static void freed(void *user) { __atomic_add_fetch(&((seen *)user)->frees, 1, __ATOMIC_SEQ_CST); }

static int count(int *number) { return __atomic_load_n(number, __ATOMIC_SEQ_CST); }

int main(void) {
    stage s;
    stage_open_seed(&s, 0);
    vmt_session_free(s.source);
    vmt_seed_free(s.seed);
    s.source = NULL, s.seed = NULL;
    vmt_options *options = stage_options(&s);
    OK(vmt_options_set(options, "read-timeout", "0.2", ERR));
    OK(vmt_session_launch(s.session, s.image, options, NULL, &s.appliance, ERR));
    seen first = {0}, second = {0}, third = {0};
    OK(vmt_appliance_on_event(s.appliance, (vmt_event_callback){call, &first, freed}, ERR));
    OK(vmt_appliance_on_event(s.appliance, (vmt_event_callback){call, &second, freed}, ERR));
    OK(vmt_appliance_on_event(s.appliance, (vmt_event_callback){call, &third, NULL}, ERR));
    char buffer[10];
    size_t read;
    CHECK(vmt_pread(s.appliance, 0, buffer, sizeof buffer, 2 * PIECE + 5, &read, NULL) != VMT_OK);
    SOON(count(&first.calls) == 1 && count(&second.calls) == 1 && count(&third.calls) == 1);
    SAME(first.kind, VMT_EVENT_READ_TIMED_OUT);
    SAME(first.file, 0);
    SAME(first.offset / PIECE, 2);
    SAME(first.peers, 0);
    SAME(first.lost, 0);
    CHECK(first.has_message);
    SAME(first.frees + second.frees, 0);
    OK(vmt_appliance_shutdown(s.appliance, VMT_FOREVER, NULL, ERR));
    SOON(count(&first.frees) == 1 && count(&second.frees) == 1);
    SAME(first.calls, 1);
    vmt_appliance_free(s.appliance);

    /* Without a shutdown too. */
    seen last = {0};
    OK(vmt_session_launch(s.session, s.image, options, NULL, &s.appliance, ERR));
    vmt_options_free(options);
    OK(vmt_appliance_on_event(s.appliance, (vmt_event_callback){call, &last, freed}, ERR));
    vmt_appliance_free(s.appliance);
    s.appliance = NULL;
    vmt_session_free(s.session);
    s.session = NULL;
    /* By the thread for callbacks, which may be the last that holds the session. */
    SOON(count(&last.frees) == 1);
    SAME(last.calls, 0);
    stage_close(&s);
    return test_end();
}
