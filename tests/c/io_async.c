/* The asynchronous calls do what the others do, and tell of it once; data to be written is copied before they return. */
#include "test.h"

int main(void) {
    stage s;
    stage_open(&s, 0, NULL);
    told told = TOLD;
    uint8_t *buffer = malloc(s.length), *data = test_content(6000, 9);
    OK(vmt_aio_pread(s.appliance, 0, buffer, s.length, 0, told_completion(&told), ERR));
    SAME(told_wait(&told), VMT_OK);
    SAME(told.value, s.length);
    CHECK(memcmp(buffer, s.content, s.length) == 0);

    /* The memory is gone when the write is done, perhaps. */
    uint8_t *gone = malloc(6000);
    memcpy(gone, data, 6000);
    told_again(&told);
    OK(vmt_aio_pwrite(s.appliance, 0, gone, 6000, 100, told_completion(&told), ERR));
    memset(gone, 0xFF, 6000);
    free(gone);
    SAME(told_wait(&told), VMT_OK);
    SAME(told.value, 0);
    READS(s.appliance, data, 6000, 100);

    told_again(&told);
    OK(vmt_aio_write_zeroes(s.appliance, 0, 8192, 4096, told_completion(&told), ERR));
    SAME(told_wait(&told), VMT_OK);
    READS_ZEROS(s.appliance, 4096, 8192);
    told_again(&told);
    OK(vmt_aio_discard(s.appliance, 0, 16384, 4096, told_completion(&told), ERR));
    SAME(told_wait(&told), VMT_OK);
    READS_ZEROS(s.appliance, 4096, 16384);
    told_again(&told);
    OK(vmt_aio_flush(s.appliance, 0, told_completion(&told), ERR));
    SAME(told_wait(&told), VMT_OK);
    SAME(told.value, 0);
    /* Nothing at all is done too. */
    told_again(&told);
    OK(vmt_aio_pread(s.appliance, 0, NULL, 0, 0, told_completion(&told), ERR));
    SAME(told_wait(&told), VMT_OK);
    SAME(told.value, 0);
    told_again(&told);
    OK(vmt_aio_pwrite(s.appliance, 0, NULL, 0, 0, told_completion(&told), ERR));
    SAME(told_wait(&told), VMT_OK);

    /* Many at once, each into its own part. */
    enum { MANY = 64 };
    static uint8_t parts[MANY][1000];
    struct told *tolds = calloc(MANY, sizeof *tolds);
    for (int i = 0; i < MANY; i++) {
        pthread_mutex_init(&tolds[i].mutex, NULL);
        pthread_cond_init(&tolds[i].changed, NULL);
        OK(vmt_aio_pread(s.appliance, 0, parts[i], 1000, 2 * PIECE + (uint64_t)i * 1500, told_completion(&tolds[i]), ERR));
    }
    for (int i = 0; i < MANY; i++) {
        SAME(told_wait(&tolds[i]), VMT_OK);
        SAME(tolds[i].value, 1000);
        CHECK(memcmp(parts[i], s.content + 2 * PIECE + i * 1500, 1000) == 0);
    }
    free(tolds);
    free(buffer);
    free(data);
    stage_close(&s);
    return test_end();
}
