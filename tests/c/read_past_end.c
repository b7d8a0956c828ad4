/* A read that passes the end of a file gives what there is; one behind it gives nothing. Neither is a failure. */
#include "test.h"

int main(void) {
    stage s;
    stage_open(&s, 3 * PIECE + 77, NULL);
    static const struct {
        int64_t from_end;
        size_t length, read;
    } cases[] = {{-77, 100, 77}, {-1, 1, 1}, {-1, 2, 1}, {0, 0, 0}, {0, 10, 0}, {1, 10, 0}, {1000000, 10, 0}, {-77, 77, 77}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        /* Of just that size: the checker sees what is written behind. */
        uint8_t *buffer = malloc(cases[i].length + 1);
        memset(buffer, 0xEE, cases[i].length + 1);
        uint64_t offset = (uint64_t)((int64_t)s.length + cases[i].from_end);
        size_t read = 99;
        OK(vmt_pread(s.appliance, 0, buffer, cases[i].length, offset, &read, ERR));
        SAME(read, cases[i].read);
        CHECK(memcmp(buffer, s.content + offset * (read > 0), read) == 0);
        SAME(buffer[cases[i].length], 0xEE);
        told told = TOLD;
        OK(vmt_aio_pread(s.appliance, 0, buffer, cases[i].length, offset, told_completion(&told), ERR));
        SAME(told_wait(&told), VMT_OK);
        SAME(told.value, cases[i].read);
        read = 99;
        OK(vmt_try_pread(s.appliance, 0, buffer, cases[i].length, offset, &read, ERR));
        SAME(read, cases[i].read);
        free(buffer);
    }
    char buffer[8];
    size_t read = 99;
    OK(vmt_pread(s.appliance, 0, buffer, 8, UINT64_MAX - 4, &read, ERR));
    SAME(read, 0);
    OK(vmt_pread(s.appliance, 0, buffer, 8, UINT64_MAX, &read, ERR));
    SAME(read, 0);
    OK(vmt_try_pread(s.appliance, 0, buffer, 8, UINT64_MAX, &read, ERR));
    /* A write can't end behind the largest offset. */
    vmt_status status = vmt_pwrite(s.appliance, 0, buffer, 8, UINT64_MAX - 4, NULL);
    CHECK(status == VMT_E_INVALID || status == VMT_E_IO || status == VMT_E_NO_SPACE);
    status = vmt_write_zeroes(s.appliance, 0, UINT64_MAX - 4, 8, NULL);
    CHECK(status == VMT_E_INVALID || status == VMT_E_IO || status == VMT_E_NO_SPACE);
    /* Nothing is left of them. */
    uint64_t length = 0;
    OK(vmt_appliance_file_length(s.appliance, 0, &length, ERR));
    SAME(length, s.length);
    OK(vmt_discard(s.appliance, 0, s.length + 5, 100, ERR));
    OK(vmt_discard(s.appliance, 0, 0, 0, ERR));
    OK(vmt_appliance_file_length(s.appliance, 0, &length, ERR));
    SAME(length, s.length);
    stage_check(&s, 0, s.length);
    stage_close(&s);
    return test_end();
}
