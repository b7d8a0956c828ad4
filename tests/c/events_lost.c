/* Events that nobody takes are lost from the oldest on, and their number is told. */
#include "test.h"

int main(void) {
    enum { READS_COUNT = 400 };
    stage s;
    stage_open_seed(&s, 0);
    vmt_session_free(s.source);
    vmt_seed_free(s.seed);
    s.source = NULL, s.seed = NULL;
    stage_launch(&s, "read-timeout", "0.2", NULL);
    vmt_events *events = NULL;
    OK(vmt_events_open(s.appliance, &events, ERR));
    static char buffers[READS_COUNT][8];
    static struct told tolds[READS_COUNT];
    for (int i = 0; i < READS_COUNT; i++) {
        pthread_mutex_init(&tolds[i].mutex, NULL);
        pthread_cond_init(&tolds[i].changed, NULL);
        OK(vmt_aio_pread(s.appliance, 0, buffers[i], 8, (uint64_t)i, told_completion(&tolds[i]), ERR));
    }
    for (int i = 0; i < READS_COUNT; i++)
        CHECK(told_wait(&tolds[i]) != VMT_OK);
    /* Until all have come to the queue; nobody tells. */
    test_sleep(test_is_slow() ? 3000 : 2000);
    uint64_t lost = 0, taken = 0;
    while (lost + taken < READS_COUNT) {
        vmt_event *event = NULL;
        vmt_status status = vmt_events_next(events, &event, NULL);
        if (status == VMT_E_AGAIN) {
            test_sleep(5);
            continue;
        }
        SAME(status, VMT_OK);
        if (vmt_event_kind(event) == VMT_EVENT_LOST) {
            CHECK(vmt_event_lost(event) > 0);
            CHECK(vmt_event_message(event)[0] != 0);
            lost += vmt_event_lost(event);
        } else {
            SAME(vmt_event_kind(event), VMT_EVENT_READ_TIMED_OUT);
            SAME(vmt_event_lost(event), 0);
            taken++;
        }
        vmt_event_free(event);
    }
    SAME(lost + taken, READS_COUNT);
    CHECK(lost > 0 && taken <= 256);
    vmt_events_free(events);
    stage_close(&s);
    return test_end();
}
