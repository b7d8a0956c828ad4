/* A callback may call in, and wait for the swarm there; only the calls that would wait for itself are refused. All callbacks of a
 * session run in one thread, one after the other, in no caller's thread. */
#include "test.h"

static stage s;
static volatile int inside, reads, chained, events;
static volatile bool over;
static pthread_t thread;
static bool has_thread;

static void enter(void) {
    CHECK(__atomic_add_fetch(&inside, 1, __ATOMIC_SEQ_CST) == 1);
    if (!has_thread)
        thread = pthread_self(), has_thread = true;
    CHECK(pthread_equal(thread, pthread_self()));
}

static void leave(void) { __atomic_sub_fetch(&inside, 1, __ATOMIC_SEQ_CST); }

static void wait_in_it(void *user, vmt_status status, uint64_t value, const vmt_error *error) {
    (void)user, (void)value, (void)error;
    enter();
    SAME(status, VMT_OK);
    /* Of a piece that is not there yet. */
    stage_check(&s, 8 * PIECE, PIECE);
    OK(vmt_pwrite(s.appliance, 0, "callback", 8, 9 * PIECE + 1, ERR));
    OK(vmt_flush(s.appliance, 0, ERR));
    READS(s.appliance, "callback", 8, 9 * PIECE + 1);
    FAILS_AS(VMT_E_REENTERED, EDEADLK, "another thread", vmt_session_shutdown(s.session, 1000, ERR));
    FAILS_AS(VMT_E_REENTERED, EDEADLK, "another thread", vmt_appliance_shutdown(s.appliance, 1000, NULL, ERR));
    /* The seed is another session's. */
    vmt_seed *seed = NULL;
    FAILS(VMT_E_IN_USE, vmt_session_seed(s.session, s.image, at("data"), &seed, ERR));
    vmt_events *queue = NULL;
    OK(vmt_events_open(s.appliance, &queue, ERR));
    vmt_events_free(queue);
    /* A whole life of another appliance and session. */
    vmt_session *session = test_session(at("cache9"));
    vmt_options *options = test_options("ephemeral", "true", "peer", vmt_session_listen_address(s.source), NULL);
    vmt_appliance *appliance = NULL;
    OK(vmt_session_launch(session, s.image, options, NULL, &appliance, ERR));
    vmt_options_free(options);
    READS(appliance, s.content, PIECE, 0);
    OK(vmt_session_shutdown(session, VMT_FOREVER, ERR));
    vmt_appliance_free(appliance);
    vmt_session_free(session);
    reads++;
    leave();
}

static void freed(void *user) {
    (void)user;
    enter();
    /* Here too. */
    stage_check(&s, 10 * PIECE, 100);
    SAME(vmt_session_shutdown(s.session, 1000, NULL), VMT_E_REENTERED);
    test_reset();
    over = true;
    leave();
}

static uint8_t chain_buffer[100];

/* Each read begins the next one. */
static void chain(void *user, vmt_status status, uint64_t value, const vmt_error *error) {
    (void)user, (void)error;
    enter();
    SAME(status, VMT_OK);
    SAME(value, sizeof chain_buffer);
    if (++chained < 100)
        OK(vmt_aio_pread(s.appliance, 0, chain_buffer, sizeof chain_buffer, (uint64_t)chained * 1000, (vmt_completion){chain, NULL, NULL}, ERR));
    leave();
}

static void on_event(void *user, const vmt_event *event) {
    (void)user;
    enter();
    CHECK(vmt_event_kind(event) > 0);
    stage_check(&s, 0, 10);
    SAME(vmt_session_shutdown(s.session, 1000, NULL), VMT_E_REENTERED);
    events++;
    leave();
}

static void on_events_over(void *user) {
    enter();
    /* The appliance has ended. */
    SAME(vmt_flush(s.appliance, 0, NULL), VMT_E_CLOSED);
    *(bool *)user = true;
    leave();
}

static volatile bool returned;

/* The last handles may be freed in a callback, once the call that it is of has returned. */
static void free_all(void *user, vmt_status status, uint64_t value, const vmt_error *error) {
    (void)status, (void)value, (void)error;
    stage *other = user;
    SOON(returned);
    vmt_appliance_free(other->appliance);
    vmt_session_free(other->session);
}

static void set(void *user) {
    stage *other = user;
    other->appliance = NULL;
    __atomic_store_n(&other->session, NULL, __ATOMIC_SEQ_CST);
}

int main(void) {
    stage_open(&s, 0, NULL);
    bool events_over = false;
    OK(vmt_appliance_on_event(s.appliance, (vmt_event_callback){on_event, &events_over, on_events_over}, ERR));
    OK(vmt_aio_flush(s.appliance, 0, (vmt_completion){wait_in_it, NULL, freed}, ERR));
    SOON(over);
    SAME(reads, 1);
    OK(vmt_aio_pread(s.appliance, 0, chain_buffer, sizeof chain_buffer, 0, (vmt_completion){chain, NULL, NULL}, ERR));
    SOON(chained == 100);
    uint8_t *buffer = malloc(s.length);
    size_t read = 0;
    OK(vmt_pread(s.appliance, 0, buffer, s.length, 0, &read, ERR));
    free(buffer);
    SOON(events > 0);
    CHECK(!pthread_equal(thread, pthread_self()));
    OK(vmt_appliance_shutdown(s.appliance, VMT_FOREVER, NULL, ERR));
    SOON(events_over);
    SAME(inside, 0);

    stage other = {0};
    other.session = test_session(at("cache10"));
    vmt_options *options = test_options("ephemeral", "true", NULL);
    OK(vmt_session_launch(other.session, s.image, options, NULL, &other.appliance, ERR));
    vmt_options_free(options);
    OK(vmt_aio_flush(other.appliance, 0, (vmt_completion){free_all, &other, set}, ERR));
    returned = true;
    SOON(__atomic_load_n(&other.session, __ATOMIC_SEQ_CST) == NULL);
    stage_close(&s);
    return test_end();
}
