/* A caller of an older header gets the fields that it knows and not a byte more, one of a newer header what there is; a size that
 * makes no sense is refused. */
#include "test.h"

static stage s;

/* Which call gives figures. */
enum { APPLIANCE, SEED };

static vmt_status ask(int what, vmt_stats *stats) {
    return what == APPLIANCE ? vmt_appliance_stats(s.appliance, stats, ERR) : vmt_seed_stats(s.seed, stats, ERR);
}

static void check_sizes(int what) {
    /* Room for more than the library knows. */
    uint64_t words[sizeof(vmt_stats) / 8 + 8];
    enum { WORDS = sizeof words / 8 };
    for (size_t size = 0; size <= sizeof words; size += 8) {
        memset(words, 0xEE, sizeof words);
        words[0] = size;
        if (size < 16) {
            FAILS_AS(VMT_E_INVALID, EINVAL, "struct_size", ask(what, (vmt_stats *)words));
            SAME(words[0], size);
            SAME(words[1], 0xEEEEEEEEEEEEEEEEu);
            continue;
        }
        OK(ask(what, (vmt_stats *)words));
        size_t filled = size < sizeof(vmt_stats) ? size : sizeof(vmt_stats);
        SAME(words[0], filled);
        SAME(words[1], s.length);
        for (size_t word = filled / 8; word < WORDS; word++)
            SAME(words[word], 0xEEEEEEEEEEEEEEEEu);
    }
    /* Memory that ends where the caller's structure does: the checker sees what goes behind it. */
    uint64_t *old = malloc(32);
    old[0] = 32;
    OK(ask(what, (vmt_stats *)old));
    SAME(old[0], 32);
    free(old);
}

int main(void) {
    SAME(sizeof(vmt_stats) % 8, 0);
    stage_open(&s, 0, NULL);
    stage_check(&s, 0, s.length);
    check_sizes(APPLIANCE);
    check_sizes(SEED);

    /* Bad sizes are found before anything is ended. */
    vmt_stats final = {.struct_size = 8};
    FAILS(VMT_E_INVALID, vmt_appliance_shutdown(s.appliance, VMT_FOREVER, &final, ERR));
    stage_check(&s, 0, 100);
    final.struct_size = sizeof final;
    OK(vmt_appliance_shutdown(s.appliance, VMT_FOREVER, &final, ERR));
    SAME(final.struct_size, sizeof final);
    SAME(final.image_bytes, s.length);
    SAME(final.guest_read_bytes, s.length + 100);
    SAME(final.present_bytes, s.length);
    CHECK(final.demand_bytes > 0);
    SAME(final.fetched_bytes, final.demand_bytes + final.readahead_bytes + final.profile_bytes + final.background_bytes);
    SAME(final.wasted_bytes, 0);
    CHECK(final.stalls > 0);
    CHECK(final.stall_seconds > 0);
    CHECK(final.demand_p50_ms > 0 && final.demand_p50_ms <= final.demand_p99_ms);

    /* Whoever ends it a second time gets nothing. */
    memset(&final, 0xEE, sizeof final);
    final.struct_size = sizeof final;
    OK(vmt_appliance_shutdown(s.appliance, VMT_FOREVER, &final, ERR));
    SAME(final.image_bytes, 0xEEEEEEEEEEEEEEEEu);
    FAILS(VMT_E_CLOSED, vmt_appliance_stats(s.appliance, &final, ERR));

    vmt_stats seed = {.struct_size = sizeof seed};
    OK(vmt_seed_stats(s.seed, &seed, ERR));
    CHECK(seed.uploaded_bytes > 0);
    stage_close(&s);
    return test_end();
}
