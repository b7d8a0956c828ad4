/* A range that is prefetched comes without being read; what is missing of it is told in whole pieces. */
#include "test.h"

int main(void) {
    stage s;
    stage_open(&s, 0, NULL);
    uint64_t missing = 99;
    OK(vmt_prefetch(s.appliance, 0, 3 * PIECE, PIECE, &missing, ERR));
    SAME(missing, 0);
    OK(vmt_prefetch(s.appliance, 0, 0, 0, &missing, ERR));
    SAME(missing, 0);
    OK(vmt_prefetch(s.appliance, 0, PIECE + 10, 2 * PIECE - 20, &missing, ERR));
    CHECK(missing <= 2 * PIECE);
    SOON((OK(vmt_prefetch(s.appliance, 0, PIECE + 10, 2 * PIECE - 20, &missing, ERR)), missing == 0));
    vmt_stats stats = {.struct_size = sizeof stats};
    OK(vmt_appliance_stats(s.appliance, &stats, ERR));
    SAME(stats.readahead_bytes, 2 * PIECE);
    SAME(stats.fetched_bytes, 2 * PIECE);
    SAME(stats.stalls, 0);
    /* A read may bring what lies behind it: so it comes after. */
    uint8_t buffer[100];
    size_t read = 0;
    SOON(vmt_try_pread(s.appliance, 0, buffer, 100, 2 * PIECE, &read, NULL) == VMT_OK);
    CHECK(memcmp(buffer, s.content + 2 * PIECE, 100) == 0);
    /* Behind the end, and all of it. */
    OK(vmt_prefetch(s.appliance, 0, UINT64_MAX, UINT64_MAX, &missing, ERR));
    SAME(missing, 0);
    OK(vmt_prefetch(s.appliance, 0, 0, UINT64_MAX, NULL, ERR));
    SOON((OK(vmt_prefetch(s.appliance, 0, 0, UINT64_MAX, &missing, ERR)), missing == 0));
    OK(vmt_appliance_stats(s.appliance, &stats, ERR));
    SAME(stats.present_bytes, s.length);
    stage_close(&s);
    return test_end();
}
