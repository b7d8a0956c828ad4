/* standalone: it is not linked with the library.
 *
 * leaks: what the library's statics hold is not given back when it is unloaded (a few kilobytes).
 *
 * The library can be loaded, used and unloaded, again and again: neither threads nor descriptors are left, and the code is gone. */
#include <dirent.h>
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "vmtorrent.h"

#define CHECK(condition)                                                             \
    do {                                                                             \
        if (!(condition)) {                                                          \
            fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #condition); \
            _exit(1);                                                                \
        }                                                                            \
    } while (0)

/* A function of the library, by its declaration. */
#define FUNCTION(name)         \
    __typeof__(name) *name##_; \
    find(library, #name, &name##_)

/* POSIX has functions' addresses in a void *; plain C knows no way from there to a pointer to a function. */
static void find(void *library, const char *name, void *function) {
    void *found = dlsym(library, name);
    CHECK(found != NULL);
    memcpy(function, &found, sizeof found);
}

static int entries(const char *path) {
    DIR *listing = opendir(path);
    CHECK(listing != NULL);
    int count = 0;
    while (readdir(listing) != NULL)
        count++;
    closedir(listing);
    return count;
}

static bool mapped(void) {
    FILE *maps = fopen("/proc/self/maps", "r");
    CHECK(maps != NULL);
    char line[4096];
    bool found = false;
    while (fgets(line, sizeof line, maps) != NULL)
        found = found || strstr(line, "libvmtorrent") != NULL;
    fclose(maps);
    return found;
}

static int logged;

static void log_call(void *user, int32_t level, const char *target, const char *message) {
    (void)user, (void)level, (void)target, (void)message;
    __atomic_add_fetch(&logged, 1, __ATOMIC_SEQ_CST);
}

static void *load(void) {
    void *library = dlopen(getenv("VMT_TEST_LIBRARY"), RTLD_NOW | RTLD_LOCAL);
    if (library == NULL)
        fprintf(stderr, "%s\n", dlerror());
    CHECK(library != NULL);
    return library;
}

static char directory[512];

static void *use(void *library) {
    char path[1024];
    FUNCTION(vmt_abi_version);
    FUNCTION(vmt_log_set);
    FUNCTION(vmt_options_new);
    FUNCTION(vmt_options_set);
    FUNCTION(vmt_options_free);
    FUNCTION(vmt_publish);
    FUNCTION(vmt_session_start);
    FUNCTION(vmt_session_launch);
    FUNCTION(vmt_session_shutdown);
    FUNCTION(vmt_session_free);
    FUNCTION(vmt_appliance_free);
    FUNCTION(vmt_image_free);
    FUNCTION(vmt_pwrite);
    FUNCTION(vmt_pread);
    CHECK(vmt_abi_version_() == VMT_ABI_VERSION);
    CHECK(vmt_log_set_(VMT_LOG_TRACE, (vmt_log_handler){log_call, NULL, NULL}, NULL) == VMT_OK);
    vmt_options *options = NULL;
    CHECK(vmt_options_new_(&options, NULL) == VMT_OK);
    snprintf(path, sizeof path, "%s/cache", directory);
    CHECK(vmt_options_set_(options, "cache", path, NULL) == VMT_OK);
    CHECK(vmt_options_set_(options, "listen", "127.0.0.1:0", NULL) == VMT_OK);
    CHECK(vmt_options_set_(options, "discovery", "false", NULL) == VMT_OK);
    CHECK(vmt_options_set_(options, "ephemeral", "true", NULL) == VMT_OK);
    vmt_session *session = NULL;
    CHECK(vmt_session_start_(options, &session, NULL) == VMT_OK);
    snprintf(path, sizeof path, "%s/disk.img", directory);
    vmt_image *image = NULL;
    CHECK(vmt_publish_(path, NULL, (vmt_progress){NULL, NULL, NULL}, NULL, &image, NULL) == VMT_OK);
    vmt_appliance *appliance = NULL;
    CHECK(vmt_session_launch_(session, image, options, NULL, &appliance, NULL) == VMT_OK);
    char buffer[4096] = "something";
    size_t read = 0;
    CHECK(vmt_pwrite_(appliance, 0, buffer, sizeof buffer, 0, NULL) == VMT_OK);
    CHECK(vmt_pread_(appliance, 0, buffer, 10, 0, &read, NULL) == VMT_OK);
    CHECK(read == 10 && strcmp(buffer, "something") == 0);
    CHECK(vmt_session_shutdown_(session, VMT_FOREVER, NULL) == VMT_OK);
    vmt_appliance_free_(appliance);
    vmt_session_free_(session);
    vmt_image_free_(image);
    vmt_options_free_(options);
    CHECK(vmt_log_set_(VMT_LOG_OFF, (vmt_log_handler){NULL, NULL, NULL}, NULL) == VMT_OK);
    return NULL;
}

int main(void) {
    char path[1024];
    const char *base = getenv("TMPDIR");
    snprintf(directory, sizeof directory, "%s/vmt-dlopen-XXXXXX", base != NULL ? base : "/tmp");
    CHECK(mkdtemp(directory) != NULL);
    snprintf(path, sizeof path, "%s/disk.img", directory);
    FILE *disk = fopen(path, "wb");
    CHECK(disk != NULL);
    for (int i = 0; i < 100000; i++)
        fputc(i % 251, disk);
    fclose(disk);
    CHECK(!mapped());
    int threads = entries("/proc/self/task"), descriptors = entries("/proc/self/fd");
    int rounds = getenv("VMT_TEST_SLOW") != NULL ? 2 : 5;
    for (int round = 0; round < rounds; round++) {
        /* In a thread of its own: what the library keeps for a thread ends with that. Until then the system keeps the code. */
        void *library = load();
        pthread_t thread;
        CHECK(pthread_create(&thread, NULL, use, library) == 0);
        CHECK(pthread_join(thread, NULL) == 0);
        CHECK(dlclose(library) == 0);
        CHECK(entries("/proc/self/fd") == descriptors);
        /* A thread that was joined is listed for a moment more. */
        for (int i = 0; i < 1000 && entries("/proc/self/task") != threads; i++)
            nanosleep(&(struct timespec){0, 5000000}, NULL);
        CHECK(entries("/proc/self/task") == threads);
        CHECK(logged > 0);
        logged = 0;
    }
    CHECK(!mapped());
    /* And by the first thread, which goes on: what the library keeps for it may keep the code too. */
    void *library = load();
    use(library);
    CHECK(dlclose(library) == 0);
    CHECK(entries("/proc/self/fd") == descriptors);
    for (int i = 0; i < 1000 && entries("/proc/self/task") != threads; i++)
        nanosleep(&(struct timespec){0, 5000000}, NULL);
    CHECK(entries("/proc/self/task") == threads);
    return 0;
}
