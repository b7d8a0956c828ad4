/* An appliance whose handle is freed while calls are under way that would wait for ever (the swarm is gone, `read-timeout` is 0):
 * reads are completed with VMT_E_CLOSED at once, a write that needs the image around it within seconds, what needs nothing of
 * the swarm as ever. No thread stays, and the state is free for the next launch. */
#include "test.h"

static stage s;

/* Bytes in the middle of a block, in a piece that is not here. */
enum { EDGE = 2 * PIECE + 100 };

static void read_ends_at_once(void) {
    told told = TOLD;
    uint8_t *buffer = malloc(PIECE);

    stage_launch_when_free(&s, "read-timeout", "0");
    OK(vmt_aio_pread(s.appliance, 0, buffer, PIECE, 0, told_completion(&told), ERR));
    test_sleep(50);
    SAME(told.calls, 0);
    double begin = test_now();
    vmt_appliance_free(s.appliance);
    SAME(told_wait(&told), VMT_E_CLOSED);
    SAME(told.number, ESHUTDOWN);
    /* Sooner than what is no read. */
    CHECK(test_is_slow() || test_now() - begin < 4);
    free(buffer);
}

static void write_ends_soon(void) {
    told stuck = TOLD, whole = TOLD, flushed = TOLD;
    uint8_t *block = malloc(PIECE);

    stage_launch_when_free(&s, "read-timeout", "0");
    memset(block, 7, PIECE);
    OK(vmt_aio_pwrite(s.appliance, 0, "stuck", 5, EDGE, told_completion(&stuck), ERR));
    /* Whole blocks need nothing of the image. */
    OK(vmt_aio_pwrite(s.appliance, 0, block, PIECE, 4 * PIECE, told_completion(&whole), ERR));
    SAME(told_wait(&whole), VMT_OK);
    OK(vmt_aio_flush(s.appliance, 0, told_completion(&flushed), ERR));
    SAME(stuck.calls, 0);
    double begin = test_now();
    vmt_appliance_free(s.appliance);
    /* It was under way, and nothing holds it up. */
    SAME(told_wait(&flushed), VMT_OK);
    SAME(told_wait(&stuck), VMT_E_CLOSED);
    CHECK(test_now() - begin < 20);

    stage_launch_when_free(&s, "read-timeout", "0");
    READS(s.appliance, block, PIECE, 4 * PIECE);
    vmt_appliance_free(s.appliance);
    free(block);
}

int main(void) {
    stage_open_seed(&s, 0);
    stage_lose_seed(&s);
    vmt_session_free(s.session);
    int threads = test_threads_settled();
    s.session = test_session(s.cache);
    read_ends_at_once();
    write_ends_soon();
    s.appliance = NULL;
    vmt_session_free(s.session);
    s.session = NULL;
    SOON(test_threads() == threads);
    stage_close(&s);
    return test_end();
}
