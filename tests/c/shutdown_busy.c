/* A shutdown while many threads call in: each call succeeds or gives VMT_E_CLOSED, each accepted one is completed once, and
 * what is written before a flush that succeeded is there afterwards. */
#include "test.h"

enum { THREADS = 6 };

static stage s;
static uint64_t flushed[THREADS];

static void count(void *user, vmt_status status, uint64_t value, const vmt_error *error) {
    (void)value, (void)error;
    CHECK(status == VMT_OK || status == VMT_E_CLOSED);
    __atomic_add_fetch((int *)user, 1, __ATOMIC_SEQ_CST);
}

static void *work(void *user) {
    size_t number = (size_t)user;
    int accepted = 0, completed = 0;
    static uint8_t buffers[THREADS][64];
    bool closed = false;
    for (uint64_t round = 1; !closed; round++) {
        size_t read;
        vmt_completion completion = {count, &completed, NULL};
        vmt_status status = vmt_aio_pread(s.appliance, 0, buffers[number], 64, round * 4099 % s.length, completion, NULL);
        CHECK(status == VMT_OK || status == VMT_E_CLOSED);
        accepted += status == VMT_OK;
        uint64_t value = round << 8 | number;
        vmt_status wrote = vmt_pwrite(s.appliance, 0, &value, 8, number * 4096, NULL);
        CHECK(wrote == VMT_OK || wrote == VMT_E_CLOSED);
        if (wrote == VMT_OK && round % 4 == 0) {
            status = vmt_flush(s.appliance, 0, NULL);
            CHECK(status == VMT_OK || status == VMT_E_CLOSED);
            if (status == VMT_OK)
                flushed[number] = value;
        }
        status = vmt_pread(s.appliance, 0, &value, 8, number * 4096, &read, NULL);
        CHECK(status == VMT_OK || status == VMT_E_CLOSED);
        closed = status == VMT_E_CLOSED;
        /* No more under way than a guest would have. */
        while (accepted - __atomic_load_n(&completed, __ATOMIC_SEQ_CST) > 32)
            test_sleep(1);
    }
    SOON(__atomic_load_n(&completed, __ATOMIC_SEQ_CST) == accepted);
    return NULL;
}

int main(void) {
    stage_open(&s, 40 * PIECE, NULL);
    pthread_t threads[THREADS];
    for (size_t i = 0; i < THREADS; i++)
        SAME(pthread_create(&threads[i], NULL, work, (void *)i), 0);
    test_sleep(test_is_slow() ? 1000 : 300);
    OK(vmt_session_shutdown(s.session, VMT_FOREVER, ERR));
    for (int i = 0; i < THREADS; i++)
        SAME(pthread_join(threads[i], NULL), 0);
    vmt_appliance_free(s.appliance);
    vmt_session_free(s.session);
    s.session = test_session(s.cache);
    stage_launch(&s, NULL);
    for (int i = 0; i < THREADS; i++) {
        uint64_t value = 0;
        size_t read = 0;
        OK(vmt_pread(s.appliance, 0, &value, 8, (uint64_t)i * 4096, &read, ERR));
        CHECK(flushed[i] == 0 || value >> 8 >= flushed[i] >> 8);
    }
    stage_close(&s);
    return test_end();
}
