/* A shutdown that can't end in time gives VMT_E_TIMED_OUT and ETIMEDOUT, in time; everything is closed then. Others that ask for the
 * end meanwhile wait for the first and get VMT_OK. */
#include "test.h"

static stage s;
static volatile bool release, entered;

static void block(void *user, vmt_status status, uint64_t value, const vmt_error *error) {
    (void)user, (void)value, (void)error;
    SAME(status, VMT_OK);
    entered = true;
    SOON(release);
}

static void begin_blocking(void) {
    release = entered = false;
    OK(vmt_aio_flush(s.appliance, 0, (vmt_completion){block, NULL, NULL}, ERR));
    SOON(entered);
}

static void *shut_appliance(void *user) {
    *(vmt_status *)user = vmt_appliance_shutdown(s.appliance, VMT_FOREVER, NULL, NULL);
    return NULL;
}

static void *shut_session(void *user) {
    *(vmt_status *)user = vmt_session_shutdown(s.session, VMT_FOREVER, NULL);
    return NULL;
}

static void relaunch(void) {
    stage_launch(&s, NULL);
}

int main(void) {
    stage_open(&s, 0, NULL);
    OK(vmt_pwrite(s.appliance, 0, "flushed", 7, 0, ERR));
    OK(vmt_flush(s.appliance, 0, ERR));

    /* The callback holds the appliance until it returns. */
    begin_blocking();
    double begin = test_now();
    FAILS_AS(VMT_E_TIMED_OUT, ETIMEDOUT, "", vmt_appliance_shutdown(s.appliance, 200, NULL, ERR));
    double took = test_now() - begin;
    CHECK(took > 0.15 && took < 10);
    FAILS(VMT_E_CLOSED, vmt_flush(s.appliance, 0, ERR));
    release = true;
    OK(vmt_appliance_shutdown(s.appliance, VMT_FOREVER, NULL, ERR));
    vmt_appliance_free(s.appliance);
    s.appliance = NULL;

    /* Two at once: one ends it, the other waits. */
    vmt_status status = VMT_E_AGAIN;
    SOON((status = vmt_session_shutdown(s.source, VMT_FOREVER, NULL)) == VMT_OK);
    vmt_session_free(s.session);
    s.session = test_session(s.cache);
    relaunch();
    READS(s.appliance, "flushed", 7, 0);
    begin_blocking();
    pthread_t threads[4];
    vmt_status statuses[4];
    for (int i = 0; i < 4; i++)
        SAME(pthread_create(&threads[i], NULL, i < 2 ? shut_appliance : shut_session, &statuses[i]), 0);
    test_sleep(100);
    FAILS(VMT_E_TIMED_OUT, vmt_session_shutdown(s.session, 0, ERR));
    release = true;
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
        SAME(statuses[i], VMT_OK);
    }
    vmt_appliance_free(s.appliance);
    vmt_session_free(s.session);

    /* A session by itself. */
    s.session = test_session(s.cache);
    relaunch();
    begin_blocking();
    FAILS_AS(VMT_E_TIMED_OUT, ETIMEDOUT, "", vmt_session_shutdown(s.session, 100, ERR));
    FAILS(VMT_E_CLOSED, vmt_flush(s.appliance, 0, ERR));
    release = true;
    stage_close(&s);
    return test_end();
}
