/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * An nbdkit plugin: serves a disk whose image is still being downloaded from a BitTorrent swarm to any NBD client, QEMU
 * for one. It needs neither FUSE nor root.
 *
 *   cc -std=c11 -shared -fPIC -o nbdkit-vmtorrent-plugin.so nbdkit-vmtorrent-plugin.c \
 *       $(pkg-config --cflags --libs vmtorrent)
 *   nbdkit -U disk.sock ./nbdkit-vmtorrent-plugin.so debian.torrent state=/var/lib/machines/web
 *   qemu-system-x86_64 ... -drive file=nbd:unix:disk.sock,format=raw,if=virtio,discard=unmap
 *
 * What it shows of the library: calls from many threads at once, reads that are given up while they wait, extents, and
 * errors that reach the guest with their number. A session can't be used across fork, and nbdkit forks into the
 * background; so everything starts in after_fork.
  */

#define _POSIX_C_SOURCE 200809L
#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <vmtorrent.h>

#define THREAD_MODEL NBDKIT_THREAD_MODEL_PARALLEL

/* Writes of whole blocks need nothing of the image, so they never wait for the swarm. */
#define BLOCK 4096
/* How often a call that waits looks whether its client or nbdkit has gone, milliseconds. */
#define LOOK_MS 100
/* How long the end may take, milliseconds. */
#define END_MS 60000

/* What is logged with -v: `-D vmtorrent.log=4`, one of the VMT_LOG_ numbers. */
NBDKIT_DLL_PUBLIC int vmtorrent_debug_log = VMT_LOG_INFO;

static const char *source;
static const char *file_name;
static vmt_options *options;
static vmt_appliance *appliance;

/* Tells nbdkit and its client of a failure, and frees it. Always -1. */
static int failed(vmt_error *error) {
    nbdkit_error("%s", vmt_error_message(error));
    nbdkit_set_error(vmt_error_errno(error));
    vmt_error_free(error);
    return -1;
}

/* ---- A call that may wait for the swarm. It is asynchronous, so that it can be left behind: its client may go, and
 * nbdkit may be told to end, long before the data comes. */

struct waiting {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int users; /* who waits, and the library: the last one frees it */
    int done;
    vmt_error *error;
    uint64_t value;
    char buffer[]; /* of a read that is left behind, so it can't be nbdkit's */
};

static struct waiting *waiting_new(size_t length) {
    struct waiting *w = calloc(1, sizeof *w + length);
    pthread_condattr_t attributes;

    if (w == NULL) {
        nbdkit_error("no memory for a request of %zu bytes", length);
        nbdkit_set_error(ENOMEM);
        return NULL;
    }
    pthread_mutex_init(&w->lock, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&w->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    w->users = 2;
    return w;
}

static void waiting_leave(void *user) {
    struct waiting *w = user;
    int left;

    pthread_mutex_lock(&w->lock);
    left = --w->users;
    pthread_mutex_unlock(&w->lock);
    if (left > 0)
        return;
    pthread_cond_destroy(&w->changed);
    pthread_mutex_destroy(&w->lock);
    vmt_error_free(w->error);
    free(w);
}

static void waiting_done(void *user, vmt_status status, uint64_t value, const vmt_error *error) {
    struct waiting *w = user;

    (void)status;
    pthread_mutex_lock(&w->lock);
    w->done = 1;
    w->value = value;
    w->error = vmt_error_copy(error);
    pthread_cond_signal(&w->changed);
    pthread_mutex_unlock(&w->lock);
}

/* The completion that is passed on with the call. Whether that accepts it or not, it leaves `w` once. */
static vmt_completion waiting_completion(struct waiting *w) {
    return (vmt_completion) { waiting_done, w, waiting_leave };
}

/* Waits for the end of a call that gave `status` and `error`. The caller still leaves `w`. */
static int waiting_wait(struct waiting *w, vmt_status status, vmt_error *error) {
    int done = 0;

    if (status != VMT_OK)
        return failed(error);
    while (!done) {
        struct timespec until;

        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_nsec += LOOK_MS * 1000000L;
        until.tv_sec += until.tv_nsec / 1000000000L;
        until.tv_nsec %= 1000000000L;
        pthread_mutex_lock(&w->lock);
        while (!w->done && pthread_cond_timedwait(&w->changed, &w->lock, &until) == 0)
            ;
        done = w->done;
        pthread_mutex_unlock(&w->lock);
        /* This is how a plugin learns that nobody wants the answer any more; it tells why. */
        if (!done && nbdkit_nanosleep(0, 1) == -1) {
            nbdkit_set_error(ESHUTDOWN);
            return -1;
        }
    }
    if (w->error != NULL) {
        error = w->error;
        w->error = NULL;
        return failed(error);
    }
    return 0;
}

/* ---- Parameters. */

/* Whether the value of an option names something on this host. nbdkit goes to / when it goes into the background. */
static int is_path(const char *key) {
    static const char *const paths[] = { "cache", "state", "mount", "profile", "record", "trace" };

    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++)
        if (strcmp(key, paths[i]) == 0)
            return 1;
    return 0;
}

static int vmtorrent_config(const char *key, const char *value) {
    char *path = NULL;
    vmt_error *error = NULL;
    vmt_status status;

    if (strcmp(key, "source") == 0) {
        if (source != NULL) {
            nbdkit_error("there can be one source only, not also %s", value);
            return -1;
        }
        if (strstr(value, "://") != NULL || strncmp(value, "magnet:", 7) == 0)
            source = nbdkit_strdup_intern(value);
        else if ((path = nbdkit_realpath(value)) != NULL)
            source = nbdkit_strdup_intern(path);
        free(path);
        return source == NULL ? -1 : 0;
    }
    if (strcmp(key, "file") == 0) {
        file_name = nbdkit_strdup_intern(value);
        return file_name == NULL ? -1 : 0;
    }
    /* All else is the library's; it says what is wrong with a key or value. */
    if (is_path(key) && (path = nbdkit_absolute_path(value)) == NULL)
        return -1;
    if (options == NULL && vmt_options_new(&options, &error) != VMT_OK) {
        free(path);
        return failed(error);
    }
    status = vmt_options_set(options, key, path == NULL ? value : path, &error);
    free(path);
    return status == VMT_OK ? 0 : failed(error);
}

static int vmtorrent_config_complete(void) {
    if (source == NULL) {
        nbdkit_error("source is missing: name a .torrent file, its URL, or a magnet link");
        return -1;
    }
    return 0;
}

#define vmtorrent_config_help \
    "source=SOURCE   (required) A .torrent file, its URL, or a magnet link.\n" \
    "file=PATH       The only file of the image that is served. Default: clients\n" \
    "                choose by the export's name; no name is the largest file.\n" \
    "KEY=VALUE       Any option of libvmtorrent, such as state=DIR, cache=DIR,\n" \
    "                peer=IP:PORT, fill=none, profile=FILE; --dump-plugin tells all."

static void vmtorrent_dump_plugin(void) {
    const char *key;

    printf("vmtorrent_version=%s\n", vmt_version());
    printf("vmtorrent_abi=%u\n", (unsigned)vmt_abi_version());
    for (size_t i = 0; (key = vmt_option_key(i)) != NULL; i++)
        printf("vmtorrent_option_%s=%s\n", key, vmt_option_help(i));
}

/* ---- Beginning and end. */

static void vmtorrent_log(void *user, int32_t level, const char *target, const char *message) {
    (void)user;
    (void)level;
    nbdkit_debug("%s: %s", target, message);
}

static void vmtorrent_event(void *user, const vmt_event *event) {
    int32_t kind = vmt_event_kind(event);

    (void)user;
    if (kind == VMT_EVENT_READ_TIMED_OUT || kind == VMT_EVENT_STORAGE_FAILED)
        nbdkit_error("%s", vmt_event_message(event));
    else
        nbdkit_debug("%s", vmt_event_message(event));
}

static void vmtorrent_load(void) {
    if (vmt_abi_version() != VMT_ABI_VERSION) {
        nbdkit_error("libvmtorrent has ABI %u, this plugin was built for %d", (unsigned)vmt_abi_version(),
                     VMT_ABI_VERSION);
        exit(EXIT_FAILURE);
    }
}

static int vmtorrent_after_fork(void) {
    vmt_error *error = NULL;
    size_t file;

    /* A library that was built without a log serves as well. */
    if (vmt_log_set(vmtorrent_debug_log, (vmt_log_handler) { vmtorrent_log, NULL, NULL }, &error) != VMT_OK) {
        nbdkit_debug("%s", vmt_error_message(error));
        vmt_error_free(error);
        error = NULL;
    }
    if (vmt_launch(source, options, NULL, &appliance, &error) != VMT_OK)
        return failed(error);
    if (vmt_appliance_on_event(appliance, (vmt_event_callback) { vmtorrent_event, NULL, NULL }, &error) != VMT_OK)
        return failed(error);
    if (file_name != NULL && vmt_appliance_find_file(appliance, file_name, &file, &error) != VMT_OK)
        return failed(error);
    return 0;
}

static void vmtorrent_unload(void) {
    vmt_error *error = NULL;

    if (appliance != NULL && vmt_appliance_shutdown(appliance, END_MS, NULL, &error) != VMT_OK)
        failed(error);
    vmt_appliance_free(appliance);
    vmt_options_free(options);
    vmt_log_set(VMT_LOG_OFF, (vmt_log_handler) { NULL, NULL, NULL }, NULL);
}

/* ---- Exports: the files of the image. */

struct disk {
    size_t file;
};

static int vmtorrent_list_exports(int readonly, int is_tls, struct nbdkit_exports *exports) {
    size_t count = vmt_appliance_file_count(appliance);

    (void)readonly;
    (void)is_tls;
    if (file_name != NULL)
        return nbdkit_use_default_export(exports);
    for (size_t i = 0; i < count; i++)
        if (nbdkit_add_export(exports, vmt_appliance_file_path(appliance, i), NULL) == -1)
            return -1;
    return 0;
}

static const char *vmtorrent_default_export(int readonly, int is_tls) {
    (void)readonly;
    (void)is_tls;
    if (file_name != NULL)
        return file_name;
    return vmt_appliance_file_path(appliance, vmt_appliance_boot_file(appliance));
}

static void *vmtorrent_open(int readonly) {
    struct disk *disk = malloc(sizeof *disk);
    const char *name = file_name != NULL ? file_name : nbdkit_export_name();
    vmt_error *error = NULL;

    (void)readonly;
    if (disk == NULL || name == NULL) {
        nbdkit_error("no memory for a connection");
        free(disk);
        return NULL;
    }
    if (*name == '\0')
        disk->file = vmt_appliance_boot_file(appliance);
    else if (vmt_appliance_find_file(appliance, name, &disk->file, &error) != VMT_OK) {
        failed(error);
        free(disk);
        return NULL;
    }
    return disk;
}

static int64_t vmtorrent_get_size(void *handle) {
    struct disk *disk = handle;
    vmt_error *error = NULL;
    uint64_t length;

    if (vmt_appliance_file_length(appliance, disk->file, &length, &error) != VMT_OK)
        return failed(error);
    return (int64_t)length;
}

static int vmtorrent_block_size(void *handle, uint32_t *minimum, uint32_t *preferred, uint32_t *maximum) {
    (void)handle;
    *minimum = 1;
    *preferred = BLOCK;
    *maximum = UINT32_MAX;
    return 0;
}

static int yes(void *handle) {
    (void)handle;
    return 1;
}

/* A write with FUA is followed by a flush, by nbdkit. */
static int vmtorrent_can_fua(void *handle) {
    (void)handle;
    return NBDKIT_FUA_EMULATE;
}

static int vmtorrent_can_cache(void *handle) {
    (void)handle;
    return NBDKIT_CACHE_NATIVE;
}

/* ---- Data. */

static int vmtorrent_pread(void *handle, void *buffer, uint32_t count, uint64_t offset, uint32_t flags) {
    struct disk *disk = handle;
    vmt_error *error = NULL;
    size_t got = 0;
    vmt_status status;

    (void)flags;
    /* What is here is copied in this thread; all else waits outside of it. */
    status = vmt_try_pread(appliance, disk->file, buffer, count, offset, &got, &error);
    if (status == VMT_E_AGAIN) {
        struct waiting *w;
        int result;

        vmt_error_free(error);
        error = NULL;
        if ((w = waiting_new(count)) == NULL)
            return -1;
        status = vmt_aio_pread(appliance, disk->file, w->buffer, count, offset, waiting_completion(w), &error);
        result = waiting_wait(w, status, error);
        if (result == 0) {
            got = (size_t)w->value;
            memcpy(buffer, w->buffer, got);
        }
        waiting_leave(w);
        if (result == -1)
            return -1;
    } else if (status != VMT_OK)
        return failed(error);
    if (got < count) {
        nbdkit_error("the disk ends at %llu, since the client was told its size", (unsigned long long)offset + got);
        nbdkit_set_error(EIO);
        return -1;
    }
    return 0;
}

static int vmtorrent_pwrite(void *handle, const void *buffer, uint32_t count, uint64_t offset, uint32_t flags) {
    struct disk *disk = handle;
    struct waiting *w;
    vmt_error *error = NULL;
    vmt_status status;
    int result;

    (void)flags;
    if (count % BLOCK == 0 && offset % BLOCK == 0) {
        status = vmt_pwrite(appliance, disk->file, buffer, count, offset, &error);
        return status == VMT_OK ? 0 : failed(error);
    }
    if ((w = waiting_new(0)) == NULL)
        return -1;
    status = vmt_aio_pwrite(appliance, disk->file, buffer, count, offset, waiting_completion(w), &error);
    result = waiting_wait(w, status, error);
    waiting_leave(w);
    return result;
}

static int vmtorrent_flush(void *handle, uint32_t flags) {
    struct disk *disk = handle;
    vmt_error *error = NULL;

    (void)flags;
    return vmt_flush(appliance, disk->file, &error) == VMT_OK ? 0 : failed(error);
}

static int vmtorrent_trim(void *handle, uint32_t count, uint64_t offset, uint32_t flags) {
    struct disk *disk = handle;
    struct waiting *w = waiting_new(0);
    vmt_error *error = NULL;
    vmt_status status;
    int result;

    (void)flags;
    if (w == NULL)
        return -1;
    status = vmt_aio_discard(appliance, disk->file, offset, count, waiting_completion(w), &error);
    result = waiting_wait(w, status, error);
    waiting_leave(w);
    return result;
}

static int vmtorrent_zero(void *handle, uint32_t count, uint64_t offset, uint32_t flags) {
    struct disk *disk = handle;
    struct waiting *w = waiting_new(0);
    vmt_error *error = NULL;
    vmt_status status;
    int result;

    /* It is as fast as any write, and takes no storage, so the flags ask for nothing that it does not do. */
    (void)flags;
    if (w == NULL)
        return -1;
    status = vmt_aio_write_zeroes(appliance, disk->file, offset, count, waiting_completion(w), &error);
    result = waiting_wait(w, status, error);
    waiting_leave(w);
    return result;
}

static int vmtorrent_extents(void *handle, uint32_t count, uint64_t offset, uint32_t flags,
                             struct nbdkit_extents *extents) {
    struct disk *disk = handle;
    uint64_t end = offset + count;

    while (offset < end) {
        vmt_extent found[64];
        vmt_error *error = NULL;
        size_t room = sizeof found / sizeof found[0];
        size_t number = 0;

        if (vmt_extents(appliance, disk->file, offset, end - offset, found, room, &number, &error) != VMT_OK)
            return failed(error);
        if (number == 0)
            break;
        for (size_t i = 0; i < number; i++) {
            uint32_t type = found[i].flags & VMT_EXTENT_ZERO ? NBDKIT_EXTENT_HOLE | NBDKIT_EXTENT_ZERO : 0;

            if (nbdkit_add_extent(extents, found[i].offset, found[i].length, type) == -1)
                return -1;
            offset = found[i].offset + found[i].length;
            if (flags & NBDKIT_FLAG_REQ_ONE)
                return 0;
        }
    }
    return 0;
}

static int vmtorrent_cache(void *handle, uint32_t count, uint64_t offset, uint32_t flags) {
    struct disk *disk = handle;
    vmt_error *error = NULL;

    (void)flags;
    return vmt_prefetch(appliance, disk->file, offset, count, NULL, &error) == VMT_OK ? 0 : failed(error);
}

static struct nbdkit_plugin plugin = {
    .name = "vmtorrent",
    .longname = "VM images from a BitTorrent swarm",
    .version = "0.1.0",
    .description = "Serves a disk whose image is still being downloaded",
    .load = vmtorrent_load,
    .unload = vmtorrent_unload,
    .config = vmtorrent_config,
    .config_complete = vmtorrent_config_complete,
    .config_help = vmtorrent_config_help,
    .magic_config_key = "source",
    .dump_plugin = vmtorrent_dump_plugin,
    .after_fork = vmtorrent_after_fork,
    .list_exports = vmtorrent_list_exports,
    .default_export = vmtorrent_default_export,
    .open = vmtorrent_open,
    .close = free,
    .get_size = vmtorrent_get_size,
    .block_size = vmtorrent_block_size,
    .can_write = yes,
    .can_flush = yes,
    .can_trim = yes,
    .can_zero = yes,
    .can_fast_zero = yes,
    .can_extents = yes,
    .can_multi_conn = yes,
    .can_fua = vmtorrent_can_fua,
    .can_cache = vmtorrent_can_cache,
    .pread = vmtorrent_pread,
    .pwrite = vmtorrent_pwrite,
    .flush = vmtorrent_flush,
    .trim = vmtorrent_trim,
    .zero = vmtorrent_zero,
    .extents = vmtorrent_extents,
    .cache = vmtorrent_cache,
};

NBDKIT_REGISTER_PLUGIN(plugin)
