/* A main loop waits for events with poll: the descriptor is readable exactly while there is something to take, or nothing will come
 * any more. */
#include <poll.h>

#include "test.h"

static int readable(const vmt_events *events, int milliseconds) {
    struct pollfd wait = {vmt_events_fd(events), POLLIN, 0};
    int ready = poll(&wait, 1, milliseconds);
    CHECK(ready >= 0 && (wait.revents & ~POLLIN) == 0);
    return ready;
}

int main(void) {
    stage s;
    stage_open(&s, 0, NULL);
    vmt_events *events = NULL, *second = NULL;
    vmt_event *event = NULL;
    OK(vmt_events_open(s.appliance, &events, ERR));
    OK(vmt_events_open(s.appliance, &second, ERR));
    CHECK(vmt_events_fd(events) >= 0 && vmt_events_fd(events) == vmt_events_fd(events));
    CHECK(vmt_events_fd(events) != vmt_events_fd(second));
    CHECK((fcntl(vmt_events_fd(events), F_GETFD) & FD_CLOEXEC) != 0);
    SAME(readable(events, 100), 0);
    FAILS(VMT_E_AGAIN, vmt_events_next(events, &event, ERR));
    SAME(readable(events, 0), 0);

    /* The whole image comes. */
    uint8_t *buffer = malloc(s.length);
    size_t read = 0;
    OK(vmt_pread(s.appliance, 0, buffer, s.length, 0, &read, ERR));
    free(buffer);
    SAME(readable(events, PATIENCE * 1000), 1);
    OK(vmt_events_next(events, &event, ERR));
    SAME(vmt_event_kind(event), VMT_EVENT_COMPLETE);
    SAME(vmt_event_file(event), 0);
    SAME(vmt_event_offset(event), 0);
    SAME(vmt_event_peers(event), 0);
    SAME(vmt_event_lost(event), 0);
    CHECK(vmt_event_message(event)[0] != 0);
    vmt_event_free(event);
    event = NULL;
    SAME(readable(events, 0), 0);
    FAILS(VMT_E_AGAIN, vmt_events_next(events, &event, ERR));

    /* Each queue has them all, and an event outlives its queue. */
    SAME(readable(second, PATIENCE * 1000), 1);
    OK(vmt_events_next(second, &event, ERR));
    vmt_events_free(second);
    SAME(vmt_event_kind(event), VMT_EVENT_COMPLETE);
    vmt_event_free(event);
    event = NULL;

    /* The end is told too, and stays told. */
    OK(vmt_appliance_shutdown(s.appliance, VMT_FOREVER, NULL, ERR));
    SAME(readable(events, PATIENCE * 1000), 1);
    FAILS(VMT_E_CLOSED, vmt_events_next(events, &event, ERR));
    SAME(readable(events, 0), 1);
    FAILS(VMT_E_CLOSED, vmt_events_next(events, &event, ERR));
    int descriptor = vmt_events_fd(events);
    vmt_events_free(events);
    SAME(fcntl(descriptor, F_GETFD), -1);
    CHECK(event == NULL);
    stage_close(&s);
    return test_end();
}
