#include <dirent.h>
#include <ftw.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "test.h"

_Thread_local vmt_error *test_error;
const vmt_progress test_no_progress;

static char directory[256];
static pid_t directory_owner;
static char *paths[512];
static size_t path_count;
static pthread_mutex_t path_mutex = PTHREAD_MUTEX_INITIALIZER;

static int remove_one(const char *path, const struct stat *status, int kind, struct FTW *walk) {
    (void)status, (void)kind, (void)walk;
    return remove(path);
}

static void remove_directory(void) {
    if (directory[0] != 0 && getpid() == directory_owner)
        nftw(directory, remove_one, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
}

/* No orderly exit: threads of the library still run. */
static _Noreturn void give_up(void) {
    fflush(NULL);
    remove_directory();
    _exit(1);
}

static void failed(const char *file, int line) { fprintf(stderr, "%s:%d: ", file, line); }

void test_reset(void) {
    vmt_error_free(test_error);
    test_error = NULL;
}

const char *test_message(void) { return vmt_error_message(test_error); }

void test_check(const char *file, int line, const char *text, int holds) {
    if (holds)
        return;
    failed(file, line);
    fprintf(stderr, "does not hold: %s\n", text);
    give_up();
}

void test_same(const char *file, int line, const char *text, unsigned long long left, unsigned long long right) {
    if (left == right)
        return;
    failed(file, line);
    fprintf(stderr, "%s: %llu (%lld) and %llu (%lld)\n", text, left, (long long)left, right, (long long)right);
    give_up();
}

void test_same_text(const char *file, int line, const char *text, const char *left, const char *right) {
    if (left != NULL && right != NULL && strcmp(left, right) == 0)
        return;
    failed(file, line);
    fprintf(stderr, "%s: \"%s\" and \"%s\"\n", text, left ? left : "(NULL)", right ? right : "(NULL)");
    give_up();
}

void test_has(const char *file, int line, const char *name, const char *text, const char *part) {
    if (text != NULL && strstr(text, part) != NULL)
        return;
    failed(file, line);
    fprintf(stderr, "%s: \"%s\" has no \"%s\" in it\n", name, text ? text : "(NULL)", part);
    give_up();
}

void test_ok(const char *file, int line, const char *text, vmt_status status) {
    if (status != VMT_OK) {
        failed(file, line);
        fprintf(stderr, "%s gave %s: %s\n", text, vmt_status_name(status), test_message());
        give_up();
    }
    if (test_error != NULL) {
        failed(file, line);
        fprintf(stderr, "%s succeeded, and stored an error: %s\n", text, test_message());
        give_up();
    }
}

void test_fails(const char *file, int line, const char *text, vmt_status status, vmt_status expected) {
    if (status != expected) {
        failed(file, line);
        fprintf(stderr, "%s gave %s, not %s: %s\n", text, vmt_status_name(status), vmt_status_name(expected),
                test_message());
        give_up();
    }
    const char *message = test_message();
    if (vmt_error_status(test_error) != expected || message[0] == 0 || strchr(message, '\n') != NULL
        || vmt_error_errno(test_error) <= 0) {
        failed(file, line);
        fprintf(stderr, "%s: the error says %s (errno %d): \"%s\"\n", text,
                vmt_status_name(vmt_error_status(test_error)), vmt_error_errno(test_error), message);
        give_up();
    }
}

int test_end(void) {
    test_reset();
    remove_directory();
    for (size_t i = 0; i < path_count; i++)
        free(paths[i]);
    return 0;
}

_Noreturn void test_skip(const char *reason) {
    const char *required = getenv("VMTORRENT_REQUIRE");
    printf("skipped: %s\n", reason);
    fflush(NULL);
    remove_directory();
    _exit(required != NULL && strcmp(required, "1") == 0 ? 1 : 77);
}

bool test_is_slow(void) { return getenv("VMT_TEST_SLOW") != NULL; }

double test_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

void test_sleep(int milliseconds) {
    struct timespec time = {milliseconds / 1000, milliseconds % 1000 * 1000000L};
    while (nanosleep(&time, &time) != 0)
        ;
}

static int entries(const char *path) {
    DIR *listing = opendir(path);
    CHECK(listing != NULL);
    int count = 0;
    for (const struct dirent *entry; (entry = readdir(listing)) != NULL;)
        count += entry->d_name[0] != '.';
    closedir(listing);
    return count;
}

int test_threads(void) { return entries("/proc/self/task"); }

int test_threads_settled(void) {
    int count = test_threads();
    for (int same = 0; same < 20;) {
        test_sleep(5);
        int now = test_threads();
        same = now == count ? same + 1 : 0;
        count = now;
    }
    return count;
}

int test_descriptors(void) {
    /* Less the one that lists them. */
    return entries("/proc/self/fd") - 1;
}

const char *at(const char *name) {
    pthread_mutex_lock(&path_mutex);
    if (directory[0] == 0) {
        const char *base = getenv("TMPDIR");
        snprintf(directory, sizeof directory, "%s/vmt-test-XXXXXX", base != NULL ? base : "/tmp");
        CHECK(mkdtemp(directory) != NULL);
        directory_owner = getpid();
    }
    CHECK(path_count < sizeof paths / sizeof *paths);
    size_t room = strlen(directory) + strlen(name) + 2;
    char *path = malloc(room);
    CHECK(path != NULL);
    snprintf(path, room, "%s/%s", directory, name);
    paths[path_count++] = path;
    pthread_mutex_unlock(&path_mutex);
    return path;
}

void test_write_file(const char *path, const void *data, size_t length) {
    FILE *file = fopen(path, "wb");
    CHECK(file != NULL);
    SAME(fwrite(data, 1, length, file), length);
    SAME(fclose(file), 0);
}

uint8_t *test_read_file(const char *path, size_t *length) {
    FILE *file = fopen(path, "rb");
    CHECK(file != NULL);
    SAME(fseek(file, 0, SEEK_END), 0);
    *length = (size_t)ftell(file);
    rewind(file);
    uint8_t *data = malloc(*length + 1);
    CHECK(data != NULL);
    SAME(fread(data, 1, *length, file), *length);
    data[*length] = 0;
    fclose(file);
    return data;
}

uint8_t *test_content(size_t length, unsigned seed) {
    uint8_t *data = calloc(1, length + 1);
    CHECK(data != NULL);
    uint64_t state = 0x9E3779B97F4A7C15u + seed;
    for (size_t i = 0; i < length; i++) {
        state ^= state << 13, state ^= state >> 7, state ^= state << 17;
        if (i / PIECE % 4 != 3)
            data[i] = (uint8_t)state;
    }
    return data;
}

static void set_options(vmt_options *options, const char *key, va_list more) {
    while (key != NULL) {
        const char *value = va_arg(more, const char *);
        OK(vmt_options_set(options, key, value, ERR));
        key = va_arg(more, const char *);
    }
}

vmt_options *test_options(const char *key, ...) {
    vmt_options *options = NULL;
    OK(vmt_options_new(&options, ERR));
    va_list more;
    va_start(more, key);
    set_options(options, key, more);
    va_end(more);
    return options;
}

vmt_options *test_session_options(const char *cache) {
    return test_options("listen", "127.0.0.1:0", "cache", cache, "discovery", "false", NULL);
}

vmt_session *test_session(const char *cache) {
    vmt_options *options = test_session_options(cache);
    vmt_session *session = NULL;
    OK(vmt_session_start(options, &session, ERR));
    vmt_options_free(options);
    return session;
}

vmt_image *test_publish(const char *path, const vmt_options *options) {
    vmt_image *image = NULL;
    OK(vmt_publish(path, options, test_no_progress, NULL, &image, ERR));
    return image;
}

void stage_open_seed(stage *stage, size_t length) {
    memset(stage, 0, sizeof *stage);
    stage->length = length != 0 ? length : 20 * PIECE + 1000;
    stage->content = test_content(stage->length, 0);
    mkdir(at("data"), 0700);
    const char *disk = at("data/disk.img");
    test_write_file(disk, stage->content, stage->length);
    stage->image = test_publish(disk, NULL);
    stage->source = test_session(at("source"));
    OK(vmt_session_seed(stage->source, stage->image, at("data"), &stage->seed, ERR));
    stage->cache = at("cache");
    stage->state = at("state");
    stage->session = test_session(stage->cache);
}

vmt_options *stage_options(const stage *stage) {
    vmt_options *options = test_options("state", stage->state, "fill", "none", "auto-profile", "false", NULL);
    if (stage->source != NULL)
        OK(vmt_options_set(options, "peer", vmt_session_listen_address(stage->source), ERR));
    return options;
}

static vmt_status try_launch(stage *stage, const vmt_options *options) {
    test_reset();
    return vmt_session_launch(stage->session, stage->image, options, NULL, &stage->appliance, ERR);
}

static void launch(stage *stage, const char *key, va_list more) {
    vmt_options *options = stage_options(stage);

    set_options(options, key, more);
    OK(try_launch(stage, options));
    vmt_options_free(options);
}

void stage_launch(stage *stage, ...) {
    va_list more;

    va_start(more, stage);
    launch(stage, va_arg(more, const char *), more);
    va_end(more);
}

void stage_launch_when_free(stage *stage, const char *key, const char *value) {
    vmt_options *options = stage_options(stage);
    vmt_status status;

    OK(vmt_options_set(options, key, value, ERR));
    SOON((status = try_launch(stage, options)) != VMT_E_IN_USE);
    test_ok(__FILE__, __LINE__, "vmt_session_launch", status);
    vmt_options_free(options);
}

void stage_open(stage *stage, size_t length, ...) {
    va_list more;

    stage_open_seed(stage, length);
    va_start(more, length);
    launch(stage, va_arg(more, const char *), more);
    va_end(more);
}

void stage_lose_seed(stage *stage) {
    OK(vmt_session_shutdown(stage->source, VMT_FOREVER, ERR));
    vmt_seed_free(stage->seed);
    stage->seed = NULL;
}

void stage_close(stage *stage) {
    if (stage->appliance != NULL)
        OK(vmt_appliance_shutdown(stage->appliance, VMT_FOREVER, NULL, ERR));
    if (stage->session != NULL)
        OK(vmt_session_shutdown(stage->session, VMT_FOREVER, ERR));
    if (stage->source != NULL)
        OK(vmt_session_shutdown(stage->source, VMT_FOREVER, ERR));
    vmt_appliance_free(stage->appliance);
    vmt_seed_free(stage->seed);
    vmt_session_free(stage->session);
    vmt_session_free(stage->source);
    vmt_image_free(stage->image);
    free(stage->content);
    memset(stage, 0, sizeof *stage);
}

void test_reads(const char *file, int line, const vmt_appliance *appliance, const void *data, size_t length, uint64_t offset) {
    uint8_t *buffer = malloc(length + 1);
    size_t read = SIZE_MAX;
    test_reset();
    test_ok(file, line, "vmt_pread", vmt_pread(appliance, 0, buffer, length, offset, &read, ERR));
    test_same(file, line, "bytes read", read, length);
    test_check(file, line, "the bytes read are those expected", memcmp(buffer, data, length) == 0);
    free(buffer);
}

void test_reads_zeros(const char *file, int line, const vmt_appliance *appliance, size_t length, uint64_t offset) {
    uint8_t *zeros = calloc(1, length + 1);
    test_reads(file, line, appliance, zeros, length, offset);
    free(zeros);
}

void stage_check(const stage *stage, uint64_t offset, size_t length) {
    READS(stage->appliance, stage->content + offset, length, offset);
}

static void told_call(void *user, vmt_status status, uint64_t value, const vmt_error *error) {
    told *told = user;
    pthread_mutex_lock(&told->mutex);
    told->calls++;
    told->status = status;
    told->value = value;
    told->number = vmt_error_errno(error);
    snprintf(told->message, sizeof told->message, "%s", vmt_error_message(error));
    CHECK((status == VMT_OK) == (error == NULL));
    SAME(vmt_error_status(error), status);
    pthread_cond_broadcast(&told->changed);
    pthread_mutex_unlock(&told->mutex);
}

static void told_free(void *user) {
    told *told = user;
    pthread_mutex_lock(&told->mutex);
    told->frees++;
    pthread_cond_broadcast(&told->changed);
    pthread_mutex_unlock(&told->mutex);
}

vmt_completion told_completion(told *told) {
    return (vmt_completion){.call = told_call, .user = told, .free = told_free};
}

vmt_status test_told_wait(const char *file, int line, told *told) {
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += PATIENCE;
    pthread_mutex_lock(&told->mutex);
    int late = 0;
    while (told->frees == 0 && late == 0)
        late = pthread_cond_timedwait(&told->changed, &told->mutex, &until);
    test_check(file, line, "the completion was called in time", late == 0);
    test_same(file, line, "calls of the completion", (unsigned)told->calls, 1);
    test_same(file, line, "frees of its user", (unsigned)told->frees, 1);
    vmt_status status = told->status;
    pthread_mutex_unlock(&told->mutex);
    return status;
}

void told_again(told *told) { told->calls = told->frees = 0; }

void helper_start(helper *helper, void (*run)(void)) {
    int go[2], result[2];
    SAME(pipe2(go, O_CLOEXEC), 0);
    SAME(pipe2(result, O_CLOEXEC), 0);
    /* It is there before the child asks for it. */
    at(".");
    fflush(NULL);
    helper->process = fork();
    CHECK(helper->process >= 0);
    helper->go = go[1];
    helper->result = result[0];
    if (helper->process != 0) {
        close(go[0]);
        close(result[1]);
        return;
    }
    close(go[1]);
    char byte;
    if (read(go[0], &byte, 1) == 1) {
        run();
        SAME(write(result[1], "x", 1), 1);
    }
    /* What the parent has is not to be looked for here. */
    kill(getpid(), SIGKILL);
}

void helper_run(helper *helper) {
    char byte;
    SAME(write(helper->go, "x", 1), 1);
    SAME(read(helper->result, &byte, 1), 1);
    close(helper->go);
    close(helper->result);
    SAME(waitpid(helper->process, NULL, 0), helper->process);
}

int test_silent_peer(char *address) {
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in name = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t length = sizeof name;
    SAME(bind(listener, (struct sockaddr *)&name, length), 0);
    SAME(listen(listener, 64), 0);
    SAME(getsockname(listener, (struct sockaddr *)&name, &length), 0);
    snprintf(address, 32, "127.0.0.1:%d", ntohs(name.sin_port));
    return listener;
}
