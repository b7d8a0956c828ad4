/* An appliance whose handles are freed without a shutdown ends as after a power failure: what was flushed is there again. Its
 * session's threads are gone when the last handle is. */
#include "test.h"

int main(void) {
    /* Before any session, and with no other one beside it: the pool of one that seeds grows and shrinks as it likes. */
    int threads = test_threads_settled();
    stage s;
    stage_open(&s, 0, NULL);
    stage_check(&s, 0, s.length);
    OK(vmt_session_shutdown(s.session, VMT_FOREVER, ERR));
    vmt_appliance_free(s.appliance);
    vmt_session_free(s.session);
    stage_lose_seed(&s);
    for (int round = 0; round < 3; round++) {
        s.session = test_session(s.cache);
        CHECK(test_threads() > threads);
        stage_launch(&s, NULL);
        if (round > 0) {
            READS(s.appliance, "flushed", 7, 1000 * (uint64_t)round);
            READS(s.appliance, s.content, 1000, 0);
        }
        OK(vmt_pwrite(s.appliance, 0, "flushed", 7, 1000 * (uint64_t)(round + 1), ERR));
        OK(vmt_flush(s.appliance, 0, ERR));
        OK(vmt_pwrite(s.appliance, 0, "not flushed", 11, 5 * PIECE, ERR));
        if (round % 2 == 0) {
            vmt_appliance_free(s.appliance);
            vmt_session_free(s.session);
        } else {
            vmt_session_free(s.session);
            vmt_appliance_free(s.appliance);
        }
        /* A thread that has ended is listed for a moment more. */
        SOON(test_threads() == threads);
    }
    s.session = NULL;
    s.appliance = NULL;
    stage_close(&s);
    return test_end();
}
