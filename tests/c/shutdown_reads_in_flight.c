/* Reads that wait for a swarm that is gone are all completed by a shutdown, each exactly once, with VMT_E_CLOSED; the blocking
 * ones too. When the handles are only freed it is the same. The memory they would have read into is not touched afterwards. */
#include "test.h"

enum { READS_COUNT = 200, BLOCKED = 4, LENGTH = 100 };

static stage s;
static struct told tolds[READS_COUNT];

static void *blocked(void *user) {
    uint8_t buffer[LENGTH];
    size_t read = 77;
    FAILS_AS(VMT_E_CLOSED, ESHUTDOWN, "", vmt_pread(s.appliance, 0, buffer, LENGTH, (uint64_t)(size_t)user * PIECE, &read, ERR));
    SAME(read, 77);
    test_reset();
    return NULL;
}

/* How it is ended. */
enum way { APPLIANCE, SESSION, FREED, WAYS };

static void check(enum way way) {
    if (s.session == NULL)
        s.session = test_session(s.cache);
    stage_launch(&s, "read-timeout", "0", NULL);
    memset(tolds, 0, sizeof tolds);
    uint8_t *buffers = malloc(READS_COUNT * LENGTH);
    for (int i = 0; i < READS_COUNT; i++) {
        pthread_mutex_init(&tolds[i].mutex, NULL);
        pthread_cond_init(&tolds[i].changed, NULL);
        /* None of the pieces of zeros. */
        uint64_t offset = (uint64_t)(i % 3) * PIECE + (uint64_t)i;
        OK(vmt_aio_pread(s.appliance, 0, buffers + i * LENGTH, LENGTH, offset, told_completion(&tolds[i]), ERR));
    }
    pthread_t threads[BLOCKED];
    if (way != FREED) {
        for (size_t i = 0; i < BLOCKED; i++)
            SAME(pthread_create(&threads[i], NULL, blocked, (void *)(i % 3)), 0);
        test_sleep(50);
    }
    for (int i = 0; i < READS_COUNT; i++)
        SAME(tolds[i].calls, 0);
    double begin = test_now();
    switch (way) {
    case APPLIANCE:
        OK(vmt_appliance_shutdown(s.appliance, VMT_FOREVER, NULL, ERR));
        break;
    case SESSION:
        OK(vmt_session_shutdown(s.session, VMT_FOREVER, ERR));
        break;
    default:
        /* No call with the handles is under way: the reads are the library's. */
        vmt_session_free(s.session);
        s.session = NULL;
        vmt_appliance_free(s.appliance);
        s.appliance = NULL;
    }
    CHECK(test_now() - begin < 20);
    for (int i = 0; i < READS_COUNT; i++) {
        SAME(told_wait(&tolds[i]), VMT_E_CLOSED);
        SAME(tolds[i].value, 0);
        SAME(tolds[i].number, ESHUTDOWN);
    }
    /* The checker sees who still writes there. */
    free(buffers);
    if (way != FREED)
        for (size_t i = 0; i < BLOCKED; i++)
            SAME(pthread_join(threads[i], NULL), 0);
    vmt_appliance_free(s.appliance);
    s.appliance = NULL;
    if (way == SESSION) {
        vmt_session_free(s.session);
        s.session = NULL;
    }
}

int main(void) {
    stage_open_seed(&s, 0);
    stage_lose_seed(&s);
    for (enum way way = APPLIANCE; way < WAYS; way++)
        check(way);
    stage_close(&s);
    return test_end();
}
