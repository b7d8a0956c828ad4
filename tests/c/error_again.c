/* What never waits gives VMT_E_AGAIN and EAGAIN when it would have to, and names the call that waits. */
#include "test.h"

int main(void) {
    stage s;
    stage_open(&s, 0, NULL);
    uint8_t buffer[PIECE];
    size_t read = 77;
    FAILS_AS(VMT_E_AGAIN, EAGAIN, "vmt_pread", vmt_try_pread(s.appliance, 0, buffer, sizeof buffer, 0, &read, ERR));
    SAME(read, 77);
    /* Zeros are at hand; so is what was read, after a while. */
    OK(vmt_try_pread(s.appliance, 0, buffer, sizeof buffer, 3 * PIECE, &read, ERR));
    SAME(read, PIECE);
    stage_check(&s, 0, sizeof buffer);
    SOON(vmt_try_pread(s.appliance, 0, buffer, sizeof buffer, 0, &read, NULL) == VMT_OK);
    SAME(read, PIECE);
    CHECK(memcmp(buffer, s.content, PIECE) == 0);

    vmt_events *events = NULL;
    vmt_event *event = NULL;
    OK(vmt_events_open(s.appliance, &events, ERR));
    FAILS_AS(VMT_E_AGAIN, EAGAIN, "vmt_events_fd", vmt_events_next(events, &event, ERR));
    CHECK(event == NULL);
    vmt_events_free(events);
    stage_close(&s);
    return test_end();
}
