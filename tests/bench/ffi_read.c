/* What reading present data through libvmtorrent costs in this process, beside pread(2) on a local copy of the same image.
 *
 *   ffi_read LOCAL SECONDS ROUNDS SOURCE [KEY=VALUE...]
 *
 * Prints one JSON object. All is read once before, so that nothing waits for the swarm, and both are in the page cache.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <vmtorrent.h>

enum { MIB = 1 << 20, SMALL = 4096, SAMPLES = 200000, THREADS = 2 };

/* ---- Every allocation of the thread that reads is counted: the program's malloc goes before that of the C library. */

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);

static __thread uint64_t allocations;

void *malloc(size_t size) {
    allocations++;
    return __libc_malloc(size);
}

void *calloc(size_t count, size_t size) {
    allocations++;
    return __libc_calloc(count, size);
}

void *realloc(void *old, size_t size) {
    allocations++;
    return __libc_realloc(old, size);
}

void *aligned_alloc(size_t alignment, size_t size) {
    allocations++;
    return __libc_memalign(alignment, size);
}

int posix_memalign(void **result, size_t alignment, size_t size) {
    allocations++;
    *result = __libc_memalign(alignment, size);
    return *result == NULL ? 12 : 0;
}

/* ---- Both ways of reading. */

static vmt_appliance *appliance;
static size_t file;
static uint64_t length;
static int local;

static void fail(const char *what, vmt_error *error) {
    fprintf(stderr, "ffi_read: %s: %s\n", what, error != NULL ? vmt_error_message(error) : "failed");
    exit(1);
}

static void read_ours(char *buffer, size_t size, uint64_t offset) {
    vmt_error *error = NULL;
    size_t got;

    if (vmt_pread(appliance, file, buffer, size, offset, &got, &error) != VMT_OK || got != size)
        fail("vmt_pread", error);
}

static void read_local(char *buffer, size_t size, uint64_t offset) {
    if (pread(local, buffer, size, (off_t)offset) != (ssize_t)size)
        fail("pread", NULL);
}

typedef void (*reader)(char *, size_t, uint64_t);

static uint64_t now(void) {
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000U + (uint64_t)t.tv_nsec;
}

/* The same places for both: xorshift64. */
static uint64_t next(uint64_t *state) {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static int by_value(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return (x > y) - (x < y);
}

static void small(const char *name, reader read) {
    static uint32_t taken[SAMPLES];
    static char buffer[SMALL];
    uint64_t state = 88172645463325252U, before, sum = 0;

    for (int i = 0; i < 1000; i++)
        read(buffer, SMALL, next(&state) % (length / SMALL) * SMALL);
    before = allocations;
    for (int i = 0; i < SAMPLES; i++) {
        uint64_t offset = next(&state) % (length / SMALL) * SMALL;
        uint64_t begin = now();

        read(buffer, SMALL, offset);
        taken[i] = (uint32_t)(now() - begin);
        sum += taken[i];
    }
    before = allocations - before;
    qsort(taken, SAMPLES, sizeof taken[0], by_value);
    printf("\"%s\": {\"p50\": %.3f, \"p99\": %.3f, \"mean\": %.3f, \"allocations\": %llu}, ", name,
           taken[SAMPLES / 2] / 1e3, taken[SAMPLES / 100 * 99] / 1e3, (double)sum / SAMPLES / 1e3,
           (unsigned long long)before);
}

struct work {
    pthread_t thread;
    reader read;
    size_t size;
    uint64_t state, until, bytes;
};

static void *work(void *argument) {
    struct work *w = argument;
    char *buffer = aligned_alloc(4096, w->size);

    if (buffer == NULL)
        fail("memory", NULL);
    while (now() < w->until) {
        w->read(buffer, w->size, next(&w->state) % (length / w->size) * w->size);
        w->bytes += w->size;
    }
    free(buffer);
    return NULL;
}

/* Bytes per second of all threads together. */
static double rate(reader read, size_t size, double seconds) {
    struct work all[THREADS];
    uint64_t begin = now(), bytes = 0;

    for (int i = 0; i < THREADS; i++) {
        all[i] = (struct work){.read = read, .size = size, .state = 88172645463325252U + (uint64_t)i,
                               .until = begin + (uint64_t)(seconds * 1e9)};
        if (pthread_create(&all[i].thread, NULL, work, &all[i]) != 0)
            fail("a thread", NULL);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(all[i].thread, NULL);
        bytes += all[i].bytes;
    }
    return (double)bytes / ((double)(now() - begin) / 1e9);
}

int main(int argc, char **argv) {
    static const size_t sizes[] = {SMALL, 65536, MIB};
    vmt_options *options = NULL;
    vmt_error *error = NULL;
    uint64_t before = allocations;
    char *buffer[2] = {malloc(MIB), malloc(MIB)};
    double seconds;
    int rounds;

    if (argc < 5 || buffer[0] == NULL || buffer[1] == NULL)
        return 2;
    seconds = atof(argv[2]);
    rounds = atoi(argv[3]);
    if ((local = open(argv[1], O_RDONLY | O_CLOEXEC)) < 0)
        fail(argv[1], NULL);
    /* The counter sees what the library allocates. */
    before = allocations;
    if (vmt_options_new(&options, &error) != VMT_OK)
        fail("options", error);
    if (allocations == before)
        fail("allocations are not counted", NULL);
    for (int i = 5; i < argc; i++) {
        char *value = strchr(argv[i], '=');

        if (value != NULL)
            *value++ = '\0';
        if (vmt_options_set(options, argv[i], value, &error) != VMT_OK)
            fail(argv[i], error);
    }
    if (vmt_launch(argv[4], options, NULL, &appliance, &error) != VMT_OK)
        fail(argv[4], error);
    file = vmt_appliance_boot_file(appliance);
    if (vmt_appliance_file_length(appliance, file, &length, &error) != VMT_OK)
        fail("length", error);
    for (uint64_t offset = 0; offset + MIB <= length; offset += MIB) {
        read_ours(buffer[0], MIB, offset);
        read_local(buffer[1], MIB, offset);
        if (memcmp(buffer[0], buffer[1], MIB) != 0)
            fail("the bytes differ", NULL);
    }

    printf("{");
    small("local", read_local);
    small("ours", read_ours);
    printf("\"threads\": {");
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
        printf("%s\"%zu\": [", s > 0 ? ", " : "", sizes[s]);
        for (int i = 0; i < rounds; i++) {
            double theirs = rate(read_local, sizes[s], seconds);

            printf("%s[%.0f, %.0f]", i > 0 ? ", " : "", theirs, rate(read_ours, sizes[s], seconds));
        }
        printf("]");
    }
    printf("}}\n");
    if (vmt_appliance_shutdown(appliance, 10000, NULL, &error) != VMT_OK)
        fail("shutdown", error);
    vmt_appliance_free(appliance);
    vmt_options_free(options);
    return 0;
}
