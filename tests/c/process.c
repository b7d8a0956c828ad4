/* The process stays its embedder's: no signal handler, nothing printed, no working directory or mask changed, no descriptor that an
 * exec'ed child would inherit. */
#include <dirent.h>
#include <signal.h>

#include "test.h"

static struct sigaction before[65];

static void check_signals(bool compare) {
    for (int number = 1; number < 65; number++) {
        struct sigaction now;
        if (sigaction(number, NULL, &now) != 0)
            continue;
        if (compare) {
            CHECK(now.sa_handler == before[number].sa_handler);
            SAME(now.sa_flags, before[number].sa_flags);
        }
        before[number] = now;
    }
}

/* The library's threads leave signals to the others: a program that waits for some in a thread gets them there. A thread that
 * begins is listed before it does. */
static bool threads_leave_signals(void) {
    DIR *listing = opendir("/proc/self/task");
    int count = 0;
    bool all = true;
    for (const struct dirent *entry; (entry = readdir(listing)) != NULL;) {
        if (entry->d_name[0] == '.' || atoi(entry->d_name) == getpid())
            continue;
        char path[300], line[256];
        snprintf(path, sizeof path, "/proc/self/task/%s/status", entry->d_name);
        FILE *status = fopen(path, "r");
        unsigned long long blocked = 0;
        bool told = false;
        while (status != NULL && !told && fgets(line, sizeof line, status) != NULL)
            told = sscanf(line, "SigBlk: %llx", &blocked) == 1;
        if (status != NULL)
            fclose(status);
        /* It has ended meanwhile. */
        if (!told)
            continue;
        static const int numbers[] = {SIGINT, SIGTERM, SIGHUP, SIGCHLD, SIGALRM, SIGUSR1, SIGUSR2, SIGPIPE};
        for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
            all = all && (blocked >> (numbers[i] - 1) & 1) != 0;
        count++;
    }
    closedir(listing);
    return all && count > 1;
}

static bool inherited[4096];

/* Those that the process began with are not the library's. */
static void note_descriptors(void) {
    for (int descriptor = 0; descriptor < 4096; descriptor++)
        inherited[descriptor] = fcntl(descriptor, F_GETFD) != -1;
}

static void check_descriptors(void) {
    DIR *listing = opendir("/proc/self/fd");
    for (const struct dirent *entry; (entry = readdir(listing)) != NULL;) {
        int descriptor = atoi(entry->d_name);
        if (entry->d_name[0] == '.' || descriptor >= 4096 || inherited[descriptor])
            continue;
        int flags = fcntl(descriptor, F_GETFD);
        char path[64], target[256] = "";
        snprintf(path, sizeof path, "/proc/self/fd/%d", descriptor);
        if (readlink(path, target, sizeof target - 1) < 0)
            continue;
        if ((flags & FD_CLOEXEC) == 0)
            fprintf(stderr, "a child would inherit %d: %s\n", descriptor, target);
        CHECK((flags & FD_CLOEXEC) != 0);
    }
    closedir(listing);
}

int main(void) {
    fflush(NULL);
    note_descriptors();
    const char *output = at("output");
    char *cwd = getcwd(NULL, 0);
    mode_t mask = umask(027);
    sigset_t blocked, now;
    sigemptyset(&blocked);
    sigemptyset(&now);
    pthread_sigmask(SIG_SETMASK, NULL, &blocked);
    check_signals(false);
    int kept[2] = {dup(1), dup(2)}, file = open(output, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    fcntl(kept[0], F_SETFD, FD_CLOEXEC);
    fcntl(kept[1], F_SETFD, FD_CLOEXEC);
    CHECK(dup2(file, 1) == 1);

    stage s;
    stage_open(&s, 0, "read-timeout", test_is_slow() ? "4" : "1", NULL);
    OK(vmt_session_serve_tracker(s.source, "127.0.0.1:0", ERR));
    OK(vmt_session_serve_metrics(s.session, "127.0.0.1:0", ERR));
    vmt_events *events = NULL;
    OK(vmt_events_open(s.appliance, &events, ERR));
    check_signals(true);
    SOON(threads_leave_signals());
    check_descriptors();
    char buffer[8];
    size_t read;
    /* Not from the beginning: what follows would be read ahead. The time is short for what has to connect first. */
    SOON(vmt_pread(s.appliance, 0, buffer, 8, 12 * PIECE + 100, &read, NULL) == VMT_OK);
    stage_check(&s, 12 * PIECE + 100, 10);
    OK(vmt_session_shutdown(s.source, VMT_FOREVER, ERR));
    CHECK(vmt_pread(s.appliance, 0, buffer, 8, 4 * PIECE, &read, NULL) != VMT_OK);
    vmt_image *image = NULL;
    CHECK(vmt_session_load(s.session, at("none"), NULL, NULL, &image, NULL) == VMT_E_NOT_FOUND);
    check_descriptors();
    vmt_events_free(events);
    stage_close(&s);

    CHECK(dup2(kept[0], 1) == 1);
    close(kept[0]);
    close(kept[1]);
    close(file);
    check_signals(true);
    pthread_sigmask(SIG_SETMASK, NULL, &now);
    for (int number = 1; number < 65; number++)
        SAME(sigismember(&blocked, number), sigismember(&now, number));
    SAME(umask(mask), 027);
    char *after = getcwd(NULL, 0);
    SAME_TEXT(cwd, after);
    free(cwd);
    free(after);
    size_t length;
    char *said = (char *)test_read_file(output, &length);
    SAME_TEXT(said, "");
    free(said);
    return test_end();
}
