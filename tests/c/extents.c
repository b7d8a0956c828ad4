/* Extents tell what is zeros, here, or written by the guest; they cover the range without gaps, however small the caller's array. */
#include "test.h"

static stage s;

/* The flags at a place. */
static uint32_t flags_at(uint64_t offset) {
    vmt_extent extent;
    size_t count = 0;
    OK(vmt_extents(s.appliance, 0, offset, 1, &extent, 1, &count, ERR));
    SAME(count, 1);
    SAME(extent.offset, offset);
    SAME(extent.length, 1);
    SAME(extent.reserved, 0);
    return extent.flags;
}

/* The same whatever the capacity. */
static void check_cover(uint64_t end) {
    for (size_t capacity = 1; capacity <= 7; capacity += 2) {
        vmt_extent extents[8];
        uint64_t at = 0;
        while (at < end) {
            size_t count = 0;
            memset(extents, 0xEE, sizeof extents);
            OK(vmt_extents(s.appliance, 0, at, UINT64_MAX, extents, capacity, &count, ERR));
            CHECK(count > 0 && count <= capacity);
            for (size_t i = 0; i < count; i++) {
                SAME(extents[i].offset, at);
                CHECK(extents[i].length > 0);
                SAME(extents[i].flags & ~(uint32_t)(VMT_EXTENT_ZERO | VMT_EXTENT_PRESENT | VMT_EXTENT_WRITTEN), 0);
                at += extents[i].length;
            }
            SAME(extents[capacity].offset, 0xEEEEEEEEEEEEEEEEu);
        }
        SAME(at, end);
    }
}

int main(void) {
    stage_open(&s, 0, NULL);
    SAME(flags_at(0), 0);
    SAME(flags_at(3 * PIECE + 5), VMT_EXTENT_ZERO | VMT_EXTENT_PRESENT);
    check_cover(s.length);
    stage_check(&s, 0, PIECE);
    SAME(flags_at(0), VMT_EXTENT_PRESENT);
    OK(vmt_pwrite(s.appliance, 0, s.content, 4096, 4 * PIECE, ERR));
    SAME(flags_at(4 * PIECE), VMT_EXTENT_PRESENT | VMT_EXTENT_WRITTEN);
    OK(vmt_discard(s.appliance, 0, 5 * PIECE, PIECE, ERR));
    SAME(flags_at(5 * PIECE), VMT_EXTENT_ZERO | VMT_EXTENT_PRESENT | VMT_EXTENT_WRITTEN);
    OK(vmt_set_length(s.appliance, 0, s.length + 100000, ERR));
    CHECK((flags_at(s.length + 50000) & (VMT_EXTENT_ZERO | VMT_EXTENT_PRESENT)) == (VMT_EXTENT_ZERO | VMT_EXTENT_PRESENT));
    check_cover(s.length + 100000);
    vmt_extent extent;
    size_t count = 99;
    OK(vmt_extents(s.appliance, 0, s.length + 100000, 10, &extent, 1, &count, ERR));
    SAME(count, 0);
    count = 99;
    OK(vmt_extents(s.appliance, 0, UINT64_MAX, UINT64_MAX, &extent, 1, &count, ERR));
    SAME(count, 0);
    count = 99;
    OK(vmt_extents(s.appliance, 0, 0, 0, &extent, 1, &count, ERR));
    SAME(count, 0);
    stage_close(&s);
    return test_end();
}
