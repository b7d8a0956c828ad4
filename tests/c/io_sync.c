/* Reading, writing, discarding, zeroing and setting the length, each at any alignment, are as those of a local file. */
#include "test.h"

static uint64_t random_state = 88172645463325252u;

static uint64_t below(uint64_t limit) {
    random_state ^= random_state << 13, random_state ^= random_state >> 7, random_state ^= random_state << 17;
    return random_state % limit;
}

int main(void) {
    enum { LENGTH = 24 * PIECE + 123, ROOM = 2 * LENGTH };
    stage s;
    stage_open(&s, LENGTH, NULL);
    uint8_t *model = calloc(1, ROOM), *data = test_content(LENGTH, 7);
    memcpy(model, s.content, LENGTH);
    size_t length = LENGTH;
    uint64_t told = 0;
    OK(vmt_appliance_file_length(s.appliance, 0, &told, ERR));
    SAME(told, LENGTH);

    int steps = test_is_slow() ? 60 : 600;
    for (int step = 0; step < steps; step++) {
        uint64_t offset = below(length + 1);
        size_t size = (size_t)below(step % 10 == 0 ? 5 * PIECE : 6000);
        switch (below(7)) {
        case 0:
        case 1:
            /* Behind the end too: it grows. */
            offset = below(length + 3000);
            size = offset + size > ROOM ? 0 : size;
            OK(vmt_pwrite(s.appliance, 0, data + step % 100, size, offset, ERR));
            memcpy(model + offset, data + step % 100, size);
            if (size > 0 && offset + size > length)
                length = offset + size;
            break;
        case 2:
            OK(vmt_discard(s.appliance, 0, offset, size, ERR));
            if (offset < length)
                memset(model + offset, 0, offset + size > length ? length - offset : size);
            break;
        case 3:
            size = offset + size > ROOM ? 0 : size;
            OK(vmt_write_zeroes(s.appliance, 0, offset, size, ERR));
            memset(model + offset, 0, size);
            if (size > 0 && offset + size > length)
                length = offset + size;
            break;
        case 4:
            if (step % 5 == 0) {
                size_t new = (size_t)(length / 2 + below(length));
                new = new > ROOM ? ROOM : new;
                OK(vmt_set_length(s.appliance, 0, new, ERR));
                if (new < length)
                    memset(model + new, 0, length - new);
                length = new;
            } else {
                OK(vmt_flush(s.appliance, 0, ERR));
            }
            break;
        default:
            size = offset + size > length ? length - (size_t)offset : size;
            READS(s.appliance, model + offset, size, offset);
        }
        OK(vmt_appliance_file_length(s.appliance, 0, &told, ERR));
        SAME(told, length);
    }
    READS(s.appliance, model, length, 0);
    OK(vmt_flush(s.appliance, 0, ERR));
    OK(vmt_set_length(s.appliance, 0, 0, ERR));
    READS(s.appliance, "", 0, 0);
    OK(vmt_set_length(s.appliance, 0, 10, ERR));
    READS_ZEROS(s.appliance, 10, 0);
    vmt_stats stats = {.struct_size = sizeof stats};
    OK(vmt_appliance_stats(s.appliance, &stats, ERR));
    CHECK(stats.guest_written_bytes > 0);
    free(model);
    free(data);
    stage_close(&s);
    return test_end();
}
