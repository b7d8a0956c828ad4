/* One of several units that are compiled; NUMBER is its own. It asks for headers as programs do. */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)

struct heap {
    size_t length;
    uint64_t keys[512];
};

static void heap_push(struct heap *h, uint64_t key)
{
    size_t at = h->length++;
    while (at > 0 && h->keys[(at - 1) / 2] > key) {
        h->keys[at] = h->keys[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    h->keys[at] = key;
}

static uint64_t heap_pop(struct heap *h)
{
    uint64_t least = h->keys[0], key = h->keys[--h->length];
    size_t at = 0;
    for (;;) {
        size_t child = 2 * at + 1;
        if (child >= h->length)
            break;
        if (child + 1 < h->length && h->keys[child + 1] < h->keys[child])
            child++;
        if (h->keys[child] >= key)
            break;
        h->keys[at] = h->keys[child];
        at = child;
    }
    h->keys[at] = key;
    return least;
}

static uint64_t mix(uint64_t x)
{
    x ^= x >> 31;
    x *= UINT64_C(0x7fb5d329728ea185) + NUMBER;
    x ^= x >> 27;
    return x;
}

static int words(const char *text, char out[16][32])
{
    int count = 0;
    size_t length = 0;
    for (;; text++) {
        if (isalnum((unsigned char)*text) && length < 31) {
            out[count][length++] = (char)tolower((unsigned char)*text);
            continue;
        }
        if (length > 0) {
            out[count++][length] = 0;
            length = 0;
        }
        if (*text == 0 || count == 16)
            return count;
    }
}

uint64_t JOIN(unit, NUMBER)(uint64_t seed)
{
    struct heap h = {0};
    char found[16][32];
    char line[64];
    uint64_t sum = 0, key = seed;
    for (int i = 0; i < 500; i++)
        heap_push(&h, key = mix(key + (uint64_t)i));
    while (h.length > 0)
        sum = sum * 31 + heap_pop(&h);
    snprintf(line, sizeof line, "Unit %d: %" PRIx64 ", the end.", NUMBER, sum);
    for (int i = words(line, found); i-- > 0;)
        for (const char *c = found[i]; *c; c++)
            sum = mix(sum + (unsigned char)*c);
    return sum;
}
