/* 32 threads use one appliance at once, each with every kind of call, and each finds what it wrote and what was published. */
#include "test.h"

enum { THREADS = 32, SHARE = 2 * PIECE };

static stage s;

static void *work(void *user) {
    int number = *(int *)user;
    uint64_t from = (uint64_t)number * SHARE;
    uint8_t *mine = malloc(SHARE), *buffer = malloc(SHARE);
    memcpy(mine, s.content + from, SHARE);
    unsigned state = (unsigned)number + 1;
    int rounds = test_is_slow() ? 5 : 150;
    for (int round = 0; round < rounds; round++) {
        state = state * 1103515245 + 12345;
        size_t at = state >> 8 & 0x3FFF, length = 1 + (state >> 4) % 5000, read = 0;
        switch ((unsigned)round % 8) {
        case 0:
            READS(s.appliance, mine, SHARE, from);
            break;
        case 1:
            memset(mine + at, number, length);
            OK(vmt_pwrite(s.appliance, 0, mine + at, length, from + at, ERR));
            break;
        case 2: {
            told told = TOLD;
            OK(vmt_aio_pread(s.appliance, 0, buffer, length, from + at, told_completion(&told), ERR));
            SAME(told_wait(&told), VMT_OK);
            SAME(told.value, length);
            CHECK(memcmp(buffer, mine + at, length) == 0);
            break;
        }
        case 3: {
            memset(mine + at, 0, length);
            OK(vmt_discard(s.appliance, 0, from + at, length, ERR));
            break;
        }
        case 4: {
            told told = TOLD;
            memset(mine + at, round, length);
            OK(vmt_aio_pwrite(s.appliance, 0, mine + at, length, from + at, told_completion(&told), ERR));
            SAME(told_wait(&told), VMT_OK);
            break;
        }
        case 5: {
            vmt_status status = vmt_try_pread(s.appliance, 0, buffer, length, from + at, &read, NULL);
            CHECK(status == VMT_OK || status == VMT_E_AGAIN);
            CHECK(status != VMT_OK || memcmp(buffer, mine + at, length) == 0);
            vmt_extent extents[8];
            OK(vmt_extents(s.appliance, 0, from, SHARE, extents, 8, &read, ERR));
            CHECK(read > 0);
            break;
        }
        case 6: {
            vmt_stats stats = {.struct_size = sizeof stats};
            OK(vmt_appliance_stats(s.appliance, &stats, ERR));
            SAME(stats.image_bytes, s.length);
            OK(vmt_prefetch(s.appliance, 0, from, SHARE, NULL, ERR));
            /* Errors are each thread's own. */
            FAILS(VMT_E_NOT_FOUND, vmt_appliance_find_file(s.appliance, "none", &read, ERR));
            break;
        }
        default:
            if (round % 24 == 7)
                OK(vmt_flush(s.appliance, 0, ERR));
        }
    }
    READS(s.appliance, mine, SHARE, from);
    free(mine);
    free(buffer);
    test_reset();
    return NULL;
}

int main(void) {
    stage_open(&s, THREADS * SHARE, NULL);
    pthread_t threads[THREADS];
    int numbers[THREADS];
    int count = test_is_slow() ? 8 : THREADS;
    for (int i = 0; i < count; i++) {
        numbers[i] = i;
        SAME(pthread_create(&threads[i], NULL, work, &numbers[i]), 0);
    }
    for (int i = 0; i < count; i++)
        SAME(pthread_join(threads[i], NULL), 0);
    stage_close(&s);
    return test_end();
}
