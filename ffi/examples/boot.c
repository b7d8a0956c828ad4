/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * The smallest complete embedder: mounts an image that is still being downloaded, runs a VMM on it, and tells what that
 * cost.
 *
 *   cc -std=c11 -o boot boot.c $(pkg-config --cflags --libs vmtorrent)
 *   ./boot debian.torrent state=/var/lib/machines/web -- qemu-system-x86_64 -m 1G -nographic \
 *       -drive file={disk},format=raw,if=virtio,cache=none,aio=native,rerror=stop,werror=stop
 *
 * Before `--` stand the source and options of the library; in the VMM's command line {disk} becomes the path of the disk
 * and {dir} the directory of all files of the image. The exit status is that of the VMM.
 */

#define _POSIX_C_SOURCE 200809L

#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <vmtorrent.h>

#define END_MS 60000

extern char **environ;

/* What the thread for signals and the others share. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static sigset_t signals;
static vmt_cancel *cancel;
static bool ended;
static pid_t vmm;

static int failed(const char *what, vmt_error *error) {
    fprintf(stderr, "boot: %s: %s\n", what, vmt_error_message(error));
    vmt_error_free(error);
    return 1;
}

/* A signal ends the VMM, and the rest follows; before there is one it ends what is being waited for. */
static void *wait_for_signals(void *unused) {
    int number;

    (void)unused;
    while (sigwait(&signals, &number) == 0) {
        pthread_mutex_lock(&lock);
        ended = true;
        vmt_cancel_trigger(cancel);
        if (vmm > 0)
            kill(vmm, SIGTERM);
        pthread_mutex_unlock(&lock);
    }
    return NULL;
}

/* A word of the VMM's command line, with {disk} and {dir} replaced. */
static char *expanded(const char *word, const char *disk, const char *directory) {
    size_t room = strlen(word) * (strlen(disk) + 1) + 1;
    char *result = malloc(room);
    char *end = result;

    if (result == NULL)
        abort();
    while (*word != '\0') {
        if (strncmp(word, "{disk}", 6) == 0) {
            end = stpcpy(end, disk);
            word += 6;
        } else if (strncmp(word, "{dir}", 5) == 0) {
            end = stpcpy(end, directory);
            word += 5;
        } else {
            *end++ = *word++;
        }
    }
    *end = '\0';
    return result;
}

/* Runs the VMM to its end and gives its exit status as a shell would. */
static int run(char **command) {
    posix_spawnattr_t attributes;
    sigset_t none;
    siginfo_t info;
    int status = 0, error = 0;
    pid_t pid = 0;

    sigemptyset(&none);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
    posix_spawnattr_setsigmask(&attributes, &none);
    pthread_mutex_lock(&lock);
    if (!ended && (error = posix_spawnp(&pid, command[0], NULL, &attributes, command, environ)) == 0)
        vmm = pid;
    pthread_mutex_unlock(&lock);
    posix_spawnattr_destroy(&attributes);
    if (error != 0)
        fprintf(stderr, "boot: %s: %s\n", command[0], strerror(error));
    if (pid == 0)
        return error != 0 ? 127 : 128 + SIGTERM;
    /* It stays a zombie until its number is forgotten here, so no other process can be meant by it. */
    while (waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT) != 0)
        ;
    pthread_mutex_lock(&lock);
    vmm = 0;
    pthread_mutex_unlock(&lock);
    waitpid(pid, &status, 0);
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

static int boot(const char *source, vmt_options *options, char **command) {
    vmt_stats stats = {.struct_size = sizeof stats};
    vmt_appliance *appliance = NULL;
    vmt_error *error = NULL;
    int status;

    if (vmt_launch(source, options, cancel, &appliance, &error) != VMT_OK)
        return failed(source, error);
    for (char **word = command; *word != NULL; word++)
        *word = expanded(*word, vmt_appliance_disk_path(appliance), vmt_appliance_directory(appliance));
    status = run(command);
    if (vmt_appliance_shutdown(appliance, END_MS, &stats, &error) != VMT_OK) {
        status = failed("the end", error);
    } else {
        fprintf(stderr, "boot: the guest read %.1f MiB and wrote %.1f MiB; %.1f of %.1f MiB were fetched",
                (double)stats.guest_read_bytes / 1048576, (double)stats.guest_written_bytes / 1048576,
                (double)stats.fetched_bytes / 1048576, (double)stats.image_bytes / 1048576);
        fprintf(stderr, "; %llu reads waited for %.2f s (p50 %.1f ms, p99 %.1f ms)\n",
                (unsigned long long)stats.stalls, stats.stall_seconds, stats.demand_p50_ms, stats.demand_p99_ms);
    }
    vmt_appliance_free(appliance);
    return status;
}

int main(int argc, char **argv) {
    char mount[] = "/tmp/vmtorrent.XXXXXX";
    vmt_options *options = NULL;
    vmt_error *error = NULL;
    pthread_t thread;
    int status, i;

    for (i = 2; i < argc && strcmp(argv[i], "--") != 0; i++)
        ;
    if (argc < 2 || i + 1 >= argc) {
        fprintf(stderr, "use: %s SOURCE [KEY=VALUE...] -- VMM [ARGUMENT...]\n", argv[0]);
        return 2;
    }
    char **command = &argv[i + 1];

    /* Before any thread is made, so that none of them is interrupted. */
    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &signals, NULL);
    if (vmt_cancel_new(&cancel, &error) != VMT_OK || vmt_options_new(&options, &error) != VMT_OK)
        return failed("options", error);
    if (mkdtemp(mount) == NULL) {
        perror("boot: /tmp");
        return 1;
    }
    if (pthread_create(&thread, NULL, wait_for_signals, NULL) != 0)
        abort();

    status = vmt_options_set(options, "mount", mount, &error) == VMT_OK ? 0 : failed("mount", error);
    for (i = 2; status == 0 && &argv[i + 1] != command; i++) {
        char *value = strchr(argv[i], '=');

        if (value != NULL)
            *value++ = '\0';
        error = NULL;
        if (vmt_options_set(options, argv[i], value != NULL ? value : "", &error) != VMT_OK)
            status = failed("option", error);
    }
    if (status == 0)
        status = boot(argv[1], options, command);
    rmdir(mount);
    vmt_options_free(options);
    /* The thread ends with the process, and what it uses is not freed before. */
    return status;
}
