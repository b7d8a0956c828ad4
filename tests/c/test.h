/* What the tests of the C ABI share: checks that tell where they failed, a directory that goes away with the test, and a
 * swarm of two sessions on this host. A test is a program: it ends with 0 when it held, 77 when it was skipped. */
#ifndef TEST_H
#define TEST_H

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "vmtorrent.h"

/* Of builds with the feature `test-hooks` only. */
vmt_status vmt_test_panic(const vmt_session *session, vmt_error **error);
vmt_status vmt_test_panic_in_task(const vmt_appliance *appliance, vmt_completion completion, vmt_error **error);
uint8_t vmt_test_bad_read(bool behind);

/* Seconds after which what is waited for does not come any more. */
enum { PATIENCE = 60 };
/* Bytes of a piece of the images here; every fourth one is of zeros. */
enum { PIECE = 16384 };

/* The error of this thread's last call through OK or FAILS: pass ERR as a call's last argument. */
extern _Thread_local vmt_error *test_error;
#define ERR (&test_error)

/* Frees it: at the end of each thread that used ERR. */
void test_reset(void);
const char *test_message(void);

/* The condition holds. */
#define CHECK(condition) test_check(__FILE__, __LINE__, #condition, (condition))
/* Two numbers are equal. */
#define SAME(left, right) \
    test_same(__FILE__, __LINE__, #left " == " #right, (unsigned long long)(left), (unsigned long long)(right))
/* Two texts are equal. */
#define SAME_TEXT(left, right) test_same_text(__FILE__, __LINE__, #left " == " #right, (left), (right))
/* A text has another one in it. */
#define HAS(text, part) test_has(__FILE__, __LINE__, #text, (text), (part))
/* A call of the library succeeds, and stores no error. */
#define OK(call) (test_reset(), test_ok(__FILE__, __LINE__, #call, (call)))
/* A call of the library fails with this status, and with an error that says the same and has a message in one line. */
#define FAILS(status, call) (test_reset(), test_fails(__FILE__, __LINE__, #call, (call), (status)))
/* As FAILS, with this errno and with this text in the message. */
#define FAILS_AS(status, number, part, call)                                             \
    (FAILS(status, call), test_same(__FILE__, __LINE__, "errno of " #call,               \
                                    (unsigned long long)vmt_error_errno(test_error),     \
                                    (unsigned long long)(number)),                       \
     test_has(__FILE__, __LINE__, "message of " #call, vmt_error_message(test_error), (part)))
/* A condition comes to hold soon. */
#define SOON(condition)                                                  \
    do {                                                                 \
        double until_ = test_now() + PATIENCE;                           \
        while (!(condition)) {                                           \
            if (test_now() > until_)                                     \
                test_check(__FILE__, __LINE__, "soon: " #condition, 0);  \
            test_sleep(5);                                               \
        }                                                                \
    } while (0)

void test_check(const char *file, int line, const char *text, int holds);
void test_same(const char *file, int line, const char *text, unsigned long long left, unsigned long long right);
void test_same_text(const char *file, int line, const char *text, const char *left, const char *right);
void test_has(const char *file, int line, const char *name, const char *text, const char *part);
void test_ok(const char *file, int line, const char *text, vmt_status status);
void test_fails(const char *file, int line, const char *text, vmt_status status, vmt_status expected);

/* The last thing in main: gives its exit status. */
int test_end(void);
/* The machine can't do what the test needs. With VMTORRENT_REQUIRE=1 that is a failure. */
_Noreturn void test_skip(const char *reason);
/* Whether everything is slow here (valgrind): take smaller numbers. */
bool test_is_slow(void);

double test_now(void);
void test_sleep(int milliseconds);
/* Threads and descriptors of this process. */
int test_threads(void);
/* Threads, once those that have ended are not listed any more: a thread that was waited for may be for a moment. */
int test_threads_settled(void);
int test_descriptors(void);

/* A path in the directory of this test; it lives until test_end. The first call makes the directory. */
const char *at(const char *name);
void test_write_file(const char *path, const void *data, size_t length);
/* The whole of a file; the caller frees it. */
uint8_t *test_read_file(const char *path, size_t *length);
/* Bytes of an image; the caller frees them. Each seed gives others. */
uint8_t *test_content(size_t length, unsigned seed);

/* Options of keys and values, up to a NULL. */
vmt_options *test_options(const char *key, ...) __attribute__((sentinel));
/* Options of a session on this host alone, with its cache in the directory `cache`. */
vmt_options *test_session_options(const char *cache);
vmt_session *test_session(const char *cache);
/* Makes an image's description. */
vmt_image *test_publish(const char *path, const vmt_options *options);
extern const vmt_progress test_no_progress;

/* A seed in one session, and an appliance of its image in another. */
typedef struct {
    size_t length;
    uint8_t *content;
    /* The session's directories, and the state. */
    const char *cache, *state;
    vmt_image *image;
    vmt_session *source;
    vmt_seed *seed;
    vmt_session *session;
    vmt_appliance *appliance;
} stage;

/* Sets it up; more options of the appliance may follow, up to a NULL. A `length` of 0 takes a small one. */
void stage_open(stage *stage, size_t length, ...) __attribute__((sentinel));
/* All but the appliance. */
void stage_open_seed(stage *stage, size_t length);
/* The options of its appliance. */
vmt_options *stage_options(const stage *stage);
/* Launches the appliance, with more options up to a NULL. */
void stage_launch(stage *stage, ...) __attribute__((sentinel));
/* The same with one more option, after an appliance that was only freed: its state is free when its last call has ended. */
void stage_launch_when_free(stage *stage, const char *key, const char *value);
/* Ends the session that seeds: from then on the swarm is dead. */
void stage_lose_seed(stage *stage);
/* Shuts everything down in order, and frees it. What is NULL was freed already. */
void stage_close(stage *stage);
/* Reads with vmt_pread, and compares with the image. */
void stage_check(const stage *stage, uint64_t offset, size_t length);
/* Reads `length` bytes of file 0 and compares them. */
#define READS(appliance, data, length, offset) \
    test_reads(__FILE__, __LINE__, (appliance), (data), (length), (offset))
void test_reads(const char *file, int line, const vmt_appliance *appliance, const void *data, size_t length, uint64_t offset);
/* The same where all is zeros. */
#define READS_ZEROS(appliance, length, offset) test_reads_zeros(__FILE__, __LINE__, (appliance), (length), (offset))
void test_reads_zeros(const char *file, int line, const vmt_appliance *appliance, size_t length, uint64_t offset);

/* What a completion was told. */
typedef struct told {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    int calls, frees;
    vmt_status status;
    uint64_t value;
    int number;
    char message[256];
} told;
#define TOLD {.mutex = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER}

vmt_completion told_completion(told *told);
/* Waits until it was called and freed; checks that it was called once. */
#define told_wait(told) test_told_wait(__FILE__, __LINE__, (told))
vmt_status test_told_wait(const char *file, int line, told *told);
/* Makes it ready for another call. */
void told_again(told *told);

/* Another process that does something when it is told to. It is for what waits for a mount of this process: valgrind lets nothing of
 * a process run while a system call of it waits that usually does not, such as close. */
typedef struct {
    int go, result;
    int process;
} helper;

/* Before the first thread is started. */
void helper_start(helper *helper, void (*run)(void));
/* Tells it, and waits; fails when it did. */
void helper_run(helper *helper);

/* A socket on 127.0.0.1 that takes connections and says nothing. Its address has room for 32 bytes. */
int test_silent_peer(char *address);

#endif
