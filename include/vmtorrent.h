/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * libvmtorrent: start a virtual machine from a disk image that is still being downloaded from a BitTorrent swarm.
 *
 * Generated from ffi/src by cbindgen (ffi/header.sh): do not edit.
 *
 * Rules that hold for every function here, unless it says otherwise:
 *
 * Status. A function that can fail returns a vmt_status: VMT_OK (0), or a negative VMT_E_ number. There are no
 *   partial successes. Its last parameter `error` may be NULL; else a failure stores a new vmt_error there, which the
 *   caller frees with vmt_error_free. A success leaves `*error` as it is: let it be NULL at first. Results are
 *   written to out-parameters only on success. No error is told through errno, and none is kept per thread.
 * NULL. A required pointer that is NULL is VMT_E_NULL, naming the parameter. Functions that return something else
 *   than a status give NULL or 0 then. vmt_..._free(NULL) does nothing. Beyond NULL a handle is not checked.
 * Ownership. What a function stores in a `vmt_x **` parameter, or returns as `vmt_x *`, belongs to the caller, who
 *   frees it with vmt_x_free. Each handle keeps alive what it needs: the order in which handles are freed does not
 *   matter. A string or array that is returned belongs to its handle and lives as long as that.
 * Text is UTF-8 and ends with a zero byte; parameters are copied. Other bytes are VMT_E_UTF8. That holds for paths
 *   too.
 * Threads. Every function may be called from any thread, at the same time as every other, with the same handles. Only
 *   vmt_..._free must come after all other calls with that handle have returned. (The vmt_error that is stored is a
 *   variable of the caller: each call needs its own.)
 * Callbacks are structures {call, user, free}. `free` (which may be NULL) is called with `user` exactly once, after
 *   the last `call`; also when the function that took the callback fails: then before that function returns. No
 *   callback is called while the library holds a lock, and none may throw, longjmp or end its thread. They run in one
 *   thread of the session, one after the other, and may call every function, but for those that wait for that thread:
 *   vmt_session_shutdown, vmt_appliance_shutdown and vmt_seed_shutdown of the same session (VMT_E_REENTERED). Where
 *   another thread is used, it is said.
 * Fork. A session belongs to the process that started it. In a child made by fork, functions with its handles are
 *   refused with VMT_E_FORKED; freeing them there does nothing (their memory is not given back). No session can be
 *   started in a child that was forked while there were sessions.
 * Panic. A mistake in the library does not end the process: the call gives VMT_E_PANIC, and from then on calls with
 *   that session and its appliances give VMT_E_POISONED. Freeing is all that is left to do: what was flushed is safe.
 * Process. The library installs no signal handler, never exits, prints nothing, and has no thread but those of
 *   sessions, which leave signals to the threads of others. After vmt_session_shutdown (or vmt_appliance_shutdown, if
 *   it came from vmt_launch) has given VMT_OK, no thread of that session is left. When this holds for all sessions,
 *   their handles are freed and the log handler is taken back, the library may be unloaded with dlclose. The system may
 *   keep it in memory until the threads that called it end.
 * Versions. Names are only ever added within one VMT_ABI_VERSION. "Since" tells the library's version in which a
 *   function appeared.
 */


#ifndef VMTORRENT_H
#define VMTORRENT_H

#include <stddef.h>
#include <stdint.h>
#include <stdbool.h>

// What stands for no deadline at all.
#define VMT_FOREVER UINT64_MAX

// The whole image is here: the appliance needs the swarm no more.
#define VMT_EVENT_COMPLETE 1

// A read waited for longer than the option `read-timeout` and failed: vmt_event_file, vmt_event_offset and
// vmt_event_peers tell more.
#define VMT_EVENT_READ_TIMED_OUT 2

// What comes from the swarm can't be stored: the disk fails. It goes on by itself when the disk does.
#define VMT_EVENT_STORAGE_FAILED 3

// The disk of the cache is full, or the option `max-disk` is reached: nothing is fetched in the background any more.
#define VMT_EVENT_CACHE_FULL 4

// Nobody took the events: the oldest were lost, and vmt_event_lost tells how many.
#define VMT_EVENT_LOST 5

// A web server that is said to hold the image is not counted on any more; the message tells which, and why.
#define VMT_EVENT_WEB_SEED_GIVEN_UP 6

// It is known to read as zeros, and takes no storage: a hole.
#define VMT_EXTENT_ZERO 1

// It can be read without the swarm: it is zeros, or was written by the guest, or was downloaded.
#define VMT_EXTENT_PRESENT 2

// The guest wrote it (or zeroed it), so it is not the image's any more.
#define VMT_EXTENT_WRITTEN 4

// Nothing is logged.
#define VMT_LOG_OFF 0

// What went wrong and needs somebody.
#define VMT_LOG_ERROR 1

// What went wrong and was dealt with.
#define VMT_LOG_WARN 2

// What happened.
#define VMT_LOG_INFO 3

// What developers want to know.
#define VMT_LOG_DEBUG 4

// Everything.
#define VMT_LOG_TRACE 5

// A phase of a launch, the first of those before its guest runs: the listener, the cache, and looking for peers.
#define VMT_PHASE_SESSION 1

// The second: the image's description is read, downloaded, or asked of peers.
#define VMT_PHASE_IMAGE 2

// The third: the state, the copy on the disk, and the mount.
#define VMT_PHASE_APPLIANCE 3

// The fourth: the VMM's process is started.
#define VMT_PHASE_VMM 4

// The version of the ABI that this header is of. It changes when programs have to be built anew.
#define VMT_ABI_VERSION 1

// A running appliance: complete, writable disks over an image that is still on its way. Its files are those of the
// image, numbered from 0; offsets and lengths are bytes, at any alignment.
typedef struct vmt_appliance vmt_appliance;

// Gives up calls that wait: loading, launching, publishing, exporting, replaying. It is passed to the call, and triggered by
// another thread. One may serve any number of calls, and may be freed while they run.
typedef struct vmt_cancel vmt_cancel;

// Why a call failed. Free it with vmt_error_free.
typedef struct vmt_error vmt_error;

// Something that happened. Other kinds may be added: pass over what you don't know.
typedef struct vmt_event vmt_event;

// The events of an appliance from some moment on, for a main loop: wait until vmt_events_fd is readable, then take
// them with vmt_events_next.
typedef struct vmt_events vmt_events;

// An image's description: what a .torrent file says.
typedef struct vmt_image vmt_image;

// Options for sessions, appliances, exports and publishing: keys with values, as vmt_option_key and vmt_option_help
// tell them. A call takes of them what concerns it, and copies it. Where options are a parameter, NULL means all
// defaults.
//
// Keys of a session: listen, cache, download-limit, upload-limit, upload-slots, discovery, local-discovery, dht,
// dht-bootstrap, utp, peer-exchange, profile-exchange, compression, compression-cache, max-connections, metadata-timeout,
// max-disk. Of an appliance: state, ephemeral, mount, allow-other, peer, web-seed, fill, profile, auto-profile, record,
// read-timeout, trace. Of vmt_publish: name, piece-size, tracker, web-seed, private, profile. Of vmt_export: cache,
// read-timeout.
typedef struct vmt_options vmt_options;

// What runs of a machine read first, and when: a launch has it fetched ahead of its guest.
typedef struct vmt_profile vmt_profile;

// Follows a launch from its begin on, for a page that tells how it went: where its time went, what was fetched for what,
// and how near that came to the least that the line allows.
typedef struct vmt_report vmt_report;

// A published file or directory that is served to the swarm.
typedef struct vmt_seed vmt_seed;

// Carries any number of appliances and seeds: their threads, one port for peers, one cache, shared limits.
// Appliances of one image share what is downloaded.
typedef struct vmt_session vmt_session;

// A text that was made for the caller.
typedef struct vmt_text vmt_text;

// How a call ended: VMT_OK, or one of the negative numbers below. Others may be added: treat them as VMT_E_IO.
typedef int32_t vmt_status;

// How an asynchronous call tells of its end.
//
// When the function that takes it returns VMT_OK, `call` is called exactly once, perhaps before that; else never.
// `free` is called exactly once in any case: after `call`, or before the function returns what it failed with. Both
// are called in the session's thread for callbacks, but for a `free` after a refusal.
typedef struct vmt_completion {
    // `status` is VMT_OK or why it failed; `value` what the function says, else 0; `error` is NULL, or tells more of a
    // failure and is lent until `call` returns (vmt_error_copy makes a copy). Must not be NULL.
    void (*call)(void *user, vmt_status status, uint64_t value, const struct vmt_error *error);
    // For whatever the caller likes.
    void *user;
    // Frees `user`. May be NULL.
    void (*free)(void *user);
} vmt_completion;

// What an appliance or a seed has cost and served so far.
//
// The caller sets `struct_size` to sizeof(vmt_stats) before: later versions add fields at the end, and fill only
// those that the caller knows. It is then the size of what was filled. Bytes are plain payload bytes; those on the
// network are of the image, which all appliances of one session share.
typedef struct vmt_stats {
    // Bytes of this structure.
    uint64_t struct_size;
    // Length of the image.
    uint64_t image_bytes;
    // Bytes of the image that are present locally (zeros and duplicates count).
    uint64_t present_bytes;
    // Bytes received from peers and web seeds, and kept: the sum of the next four.
    uint64_t fetched_bytes;
    // For reads that waited.
    uint64_t demand_bytes;
    // Ahead of sequential reads, and by vmt_prefetch.
    uint64_t readahead_bytes;
    // Because a profile expects them.
    uint64_t profile_bytes;
    // In the background.
    uint64_t background_bytes;
    // Bytes sent to peers.
    uint64_t uploaded_bytes;
    // Bytes received in vain: second copies, and pieces whose hash was wrong.
    uint64_t wasted_bytes;
    // Reads that had to wait for the swarm.
    uint64_t stalls;
    // Seconds during which at least one read waited.
    double stall_seconds;
    // Median wait of those reads, milliseconds.
    double demand_p50_ms;
    // 99th percentile of those waits, milliseconds.
    double demand_p99_ms;
    // Bytes that the guest read.
    uint64_t guest_read_bytes;
    // Bytes that the guest wrote.
    uint64_t guest_written_bytes;
    // Distinct 64 KiB blocks of the image that the guest read, in bytes.
    uint64_t distinct_read_bytes;
    // Blocks of 16 KiB that the guest read for the first time, without those of zeros.
    uint64_t first_reads;
    // Of these, how many the profile expected.
    uint64_t expected_reads;
    // Connected peers.
    uint64_t peers;
    // Of the bytes fetched, those that web servers sent.
    uint64_t web_seed_bytes;
    // Web servers that hold the image and can be asked.
    uint64_t web_seeds;
    // What the bytes fetched took on the wire: less where they came compressed.
    uint64_t fetched_wire_bytes;
    // What the bytes sent took on the wire: less where they went compressed.
    uint64_t uploaded_wire_bytes;
} vmt_stats;

// Told of each event.
typedef struct vmt_event_callback {
    // `event` is lent until it returns. Must not be NULL.
    void (*call)(void *user, const struct vmt_event *event);
    // For whatever the caller likes.
    void *user;
    // Frees `user`, when the appliance has ended. May be NULL.
    void (*free)(void *user);
} vmt_event_callback;

// What a part of a file is made of.
typedef struct vmt_extent {
    // Where it begins in the file, bytes.
    uint64_t offset;
    // Bytes.
    uint64_t length;
    // VMT_EXTENT_ flags.
    uint32_t flags;
    // 0.
    uint32_t reserved;
} vmt_extent;

// Told what is logged.
//
// It is called in any thread of the library or of its callers, at times while the library holds locks: it must
// return soon, and calls no function of this library but those of vmt_error; others that can fail give it
// VMT_E_REENTERED.
typedef struct vmt_log_handler {
    // `level` is a VMT_LOG_ number, `target` the part of the library, `message` a line of text. Both are lent until
    // it returns.
    void (*call)(void *user, int32_t level, const char *target, const char *message);
    // For whatever the caller likes.
    void *user;
    // Frees `user`, when the handler is replaced or taken back. May be NULL.
    void (*free)(void *user);
} vmt_log_handler;

// How much of a profile of another image fits: numbers of blocks of 16 KiB.
typedef struct vmt_mismatch {
    // Both know them, with the same bytes: merged.
    uint64_t same;
    // Both know them, with other bytes or with bytes that one does not know: left out.
    uint64_t different;
    // Only the other one knows them: taken over.
    uint64_t unknown;
    // They are of files that this image does not have: left out.
    uint64_t elsewhere;
} vmt_mismatch;

// Told how far something is, in the thread of the call.
typedef struct vmt_progress {
    // `done` of `total` bytes. May be NULL.
    void (*call)(void *user, uint64_t done, uint64_t total);
    // For whatever the caller likes.
    void *user;
    // Frees `user`, at the end of the call. May be NULL.
    void (*free)(void *user);
} vmt_progress;

// What a replay took.
//
// The caller sets `struct_size` to sizeof(vmt_replayed) before: later versions add fields at the end, and fill only
// those that the caller knows. It is then the size of what was filled.
typedef struct vmt_replayed {
    // Bytes of this structure.
    uint64_t struct_size;
    // Number of reads.
    uint64_t reads;
    // Bytes that were read.
    uint64_t bytes;
    // Seconds from the begin to the end.
    double wall_seconds;
    // The sum of all thinking, at the speed that was asked for, seconds.
    double guest_seconds;
    // The sum of the times that reads took, seconds.
    double read_seconds;
    // Median time of a read, milliseconds.
    double p50_ms;
    // 99th percentile of these times, milliseconds.
    double p99_ms;
    // The longest of them, milliseconds.
    double max_ms;
} vmt_replayed;

// It is done.
#define VMT_OK 0

// An argument or option is wrong: change the call. errno EINVAL.
#define VMT_E_INVALID -1

// The .torrent file is broken or hostile: get it again from its publisher. errno EINVAL.
#define VMT_E_TORRENT -2

// A file, directory or URL does not exist: check the name. errno ENOENT.
#define VMT_E_NOT_FOUND -3

// The system refuses: run as another user, or change permissions. errno EACCES.
#define VMT_E_PERMISSION -4

// A state directory, port or mount point is in use: end the holder, or choose another. errno EBUSY.
#define VMT_E_IN_USE -5

// This system lacks what is needed (FUSE, for example): install it, or use another way. errno EOPNOTSUPP.
#define VMT_E_UNAVAILABLE -6

// A tracker, peer or web server could not be reached, or answered nonsense: try again later. errno EIO.
#define VMT_E_NETWORK -7

// It did not come or end in time: the swarm is dead or too slow. errno EIO, or ETIMEDOUT where a timeout was an
// argument.
#define VMT_E_TIMED_OUT -8

// The disk is full: free some space; what was acknowledged is safe. errno ENOSPC.
#define VMT_E_NO_SPACE -9

// The operating system reported an I/O error. errno as it said.
#define VMT_E_IO -10

// Local data is damaged beyond what can be fetched again. errno EIO.
#define VMT_E_CORRUPT -11

// The session or appliance was shut down. errno ESHUTDOWN.
#define VMT_E_CLOSED -12

// A required pointer is NULL. errno EINVAL.
#define VMT_E_NULL -20

// A text is not UTF-8. errno EILSEQ.
#define VMT_E_UTF8 -21

// The call was given up because its vmt_cancel was triggered. errno ECANCELED.
#define VMT_E_CANCELLED -22

// The session was started by another process, of which this one is a fork. errno EPERM.
#define VMT_E_FORKED -23

// A mistake in the library: please report it. The session can't be used any more. errno EIO.
#define VMT_E_PANIC -24

// An earlier call met VMT_E_PANIC: free the session's handles. errno EIO.
#define VMT_E_POISONED -25

// The call would wait for the callback that it is made from, or it is made from a log handler: make it elsewhere.
// errno EDEADLK.
#define VMT_E_REENTERED -26

// Nothing is there without waiting: try again when there may be. errno EAGAIN.
#define VMT_E_AGAIN -27

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// As vmt_pread, but returns at once. `buffer` must stay, and nobody may use it, until the completion is called;
// `value` is the number of bytes read.
//
// Errors: VMT_E_NULL, VMT_E_INVALID when there is no such file, VMT_E_CLOSED; those of vmt_pread through the
// completion. Since 0.1.0.
vmt_status vmt_aio_pread(const struct vmt_appliance *appliance,
                         size_t file,
                         void *buffer,
                         size_t length,
                         uint64_t offset,
                         struct vmt_completion completion,
                         struct vmt_error **error);

// As vmt_pwrite, but returns at once: `data` is copied before. `value` is 0.
//
// Errors: VMT_E_NULL, VMT_E_INVALID when there is no such file, VMT_E_CLOSED; those of vmt_pwrite through the
// completion. Since 0.1.0.
vmt_status vmt_aio_pwrite(const struct vmt_appliance *appliance,
                          size_t file,
                          const void *data,
                          size_t length,
                          uint64_t offset,
                          struct vmt_completion completion,
                          struct vmt_error **error);

// As vmt_flush, but returns at once. What is durable afterwards are the writes that had been completed when this was
// called. `value` is 0.
//
// Errors: VMT_E_NULL, VMT_E_INVALID when there is no such file, VMT_E_CLOSED; those of vmt_flush through the
// completion. Since 0.1.0.
vmt_status vmt_aio_flush(const struct vmt_appliance *appliance,
                         size_t file,
                         struct vmt_completion completion,
                         struct vmt_error **error);

// As vmt_discard, but returns at once. `value` is 0.
//
// Errors: VMT_E_NULL, VMT_E_INVALID when there is no such file, VMT_E_CLOSED; those of vmt_pwrite through the
// completion. Since 0.1.0.
vmt_status vmt_aio_discard(const struct vmt_appliance *appliance,
                           size_t file,
                           uint64_t offset,
                           uint64_t length,
                           struct vmt_completion completion,
                           struct vmt_error **error);

// As vmt_write_zeroes, but returns at once. `value` is 0.
//
// Errors: VMT_E_NULL, VMT_E_INVALID when there is no such file, VMT_E_CLOSED; those of vmt_pwrite through the
// completion. Since 0.1.0.
vmt_status vmt_aio_write_zeroes(const struct vmt_appliance *appliance,
                                size_t file,
                                uint64_t offset,
                                uint64_t length,
                                struct vmt_completion completion,
                                struct vmt_error **error);

// Starts an appliance in a session: opens or makes its state, joins the swarm, and mounts it if the option `mount`
// says so. Waits until the disk can be read and written; nothing has to be downloaded for that. The caller frees the
// appliance, after vmt_appliance_shutdown if it is to end in order. `options` and `cancel` may be NULL.
//
// Errors: VMT_E_NULL; VMT_E_IN_USE when the state directory is another appliance's or the mount point is taken;
// VMT_E_UNAVAILABLE when there is no FUSE; VMT_E_INVALID for a profile of another image; VMT_E_NOT_FOUND,
// VMT_E_PERMISSION, VMT_E_NO_SPACE, VMT_E_IO, VMT_E_CORRUPT of its files; VMT_E_CANCELLED, VMT_E_CLOSED. Since
// 0.1.0.
vmt_status vmt_session_launch(const struct vmt_session *session,
                              const struct vmt_image *image,
                              const struct vmt_options *options,
                              const struct vmt_cancel *cancel,
                              struct vmt_appliance **appliance,
                              struct vmt_error **error);

// The short form: starts a session, loads an image's description from `source` and starts an appliance of it, with
// what `options` say of both. The session is the appliance's own and ends with it. `options` and `cancel` may be
// NULL.
//
// Errors: those of vmt_session_start, vmt_session_load and vmt_session_launch. Since 0.1.0.
vmt_status vmt_launch(const char *source,
                      const struct vmt_options *options,
                      const struct vmt_cancel *cancel,
                      struct vmt_appliance **appliance,
                      struct vmt_error **error);

// The image. The caller frees it.
//
// Errors: VMT_E_NULL, VMT_E_CLOSED. Since 0.1.0.
vmt_status vmt_appliance_image(const struct vmt_appliance *appliance,
                               struct vmt_image **image,
                               struct vmt_error **error);

// Another handle of the appliance's session, such as the one that vmt_launch started. The caller frees it.
//
// Errors: VMT_E_NULL. Since 0.1.0.
vmt_status vmt_appliance_session(const struct vmt_appliance *appliance,
                                 struct vmt_session **session,
                                 struct vmt_error **error);

// The directory where the image is mounted; NULL when it is not. It belongs to the appliance.
//
// Since 0.1.0.
const char *vmt_appliance_directory(const struct vmt_appliance *appliance);

// Path of the disk to boot from, the image's largest file, in the mounted directory; NULL when it is not mounted. It
// belongs to the appliance.
//
// Since 0.1.0.
const char *vmt_appliance_disk_path(const struct vmt_appliance *appliance);

// The directory that holds what the guest writes. It belongs to the appliance.
//
// Since 0.1.0.
const char *vmt_appliance_state_directory(const struct vmt_appliance *appliance);

// Number of files; they are numbered from 0, as in the image.
//
// Since 0.1.0.
size_t vmt_appliance_file_count(const struct vmt_appliance *appliance);

// Path of a file below the image's directory, with slashes; NULL when there is no such file. It belongs to the
// appliance.
//
// Since 0.1.0.
const char *vmt_appliance_file_path(const struct vmt_appliance *appliance,
                                    size_t file);

// The number of the file with this path below the image's directory.
//
// Errors: VMT_E_NULL, VMT_E_UTF8, VMT_E_NOT_FOUND. Since 0.1.0.
vmt_status vmt_appliance_find_file(const struct vmt_appliance *appliance,
                                   const char *path,
                                   size_t *file,
                                   struct vmt_error **error);

// The number of the largest file: the disk to boot from.
//
// Since 0.1.0.
size_t vmt_appliance_boot_file(const struct vmt_appliance *appliance);

// The present length of a file, bytes: its guest may have grown or cut it.
//
// Errors: VMT_E_NULL, VMT_E_INVALID when there is no such file, VMT_E_CLOSED. Since 0.1.0.
vmt_status vmt_appliance_file_length(const struct vmt_appliance *appliance,
                                     size_t file,
                                     uint64_t *length,
                                     struct vmt_error **error);

// What the appliance has cost so far. `stats->struct_size` must be set before; see vmt_stats.
//
// Errors: VMT_E_NULL, VMT_E_INVALID for a size that makes no sense, VMT_E_CLOSED. Since 0.1.0.
vmt_status vmt_appliance_stats(const struct vmt_appliance *appliance,
                               struct vmt_stats *stats,
                               struct vmt_error **error);

// What the guest read first so far, as a profile of one run. The caller frees it.
//
// Errors: VMT_E_NULL, VMT_E_CLOSED. Since 0.1.0.
vmt_status vmt_appliance_profile(const struct vmt_appliance *appliance,
                                 struct vmt_profile **profile,
                                 struct vmt_error **error);

// Ends the appliance in order: reads that wait for the swarm end with VMT_E_CLOSED, other calls that are under way
// are waited for, completions that are due are called; then it is unmounted, every file is flushed, and the swarm is
// left. A session of vmt_launch ends with it, as vmt_session_shutdown does it. Whatever the function gives, the
// appliance has ended then, and calls with it give VMT_E_CLOSED; the handle is still to be freed. Called again, or
// by two at once, it waits for the first and gives VMT_OK.
//
// `timeout_ms` are milliseconds; VMT_FOREVER waits as long as it takes. What is not done by then is broken off: as
// after a power failure, the guest then finds all that was flushed. `stats` may be NULL; else its struct_size must
// be set, and it gets the final figures, or stays as it is if another call ended the appliance.
//
// Errors: VMT_E_NULL, VMT_E_INVALID for a size of `stats` that makes no sense; VMT_E_TIMED_OUT; VMT_E_REENTERED in a
// callback of the session; VMT_E_NO_SPACE, VMT_E_IO and others when what the guest wrote can't be flushed, or the
// file of the option `record` can't be written. Since 0.1.0.
vmt_status vmt_appliance_shutdown(const struct vmt_appliance *appliance,
                                  uint64_t timeout_ms,
                                  struct vmt_stats *stats,
                                  struct vmt_error **error);

// Frees the handle. An appliance that was not shut down ends then as after a power failure: its guest finds all that was
// flushed. Asynchronous reads that wait for the swarm are completed with VMT_E_CLOSED at once, whatever the option
// `read-timeout` says; other asynchronous calls have 5 seconds, after which they are too. Does not wait for them: the
// appliance is there until the last completion was called. (Blocking calls have returned before, as for every handle.)
// NULL does nothing.
//
// Since 0.1.0.
void vmt_appliance_free(struct vmt_appliance *appliance);

// Makes one that is not triggered. The caller frees it.
//
// Errors: VMT_E_NULL. Since 0.1.0.
vmt_status vmt_cancel_new(struct vmt_cancel **cancel, struct vmt_error **error);

// Triggers it: calls that it was passed to end with VMT_E_CANCELLED soon, and later ones at once. What they had begun
// is undone; a state directory or port may take a moment to be free again. Again, or with NULL, it does nothing.
// It does not wait, and takes locks, so it is not for a signal handler.
//
// Since 0.1.0.
void vmt_cancel_trigger(const struct vmt_cancel *cancel);

// Whether it was triggered; false for NULL.
//
// Since 0.1.0.
bool vmt_cancel_is_triggered(const struct vmt_cancel *cancel);

// Frees it; calls that it was passed to go on. NULL does nothing.
//
// Since 0.1.0.
void vmt_cancel_free(struct vmt_cancel *cancel);

// The status that the failed call returned; VMT_OK for NULL.
//
// Since 0.1.0.
vmt_status vmt_error_status(const struct vmt_error *error);

// The error number of this system that comes nearest, such as EIO; what the system itself reported where it did. For
// who has to answer a guest with one. 0 for NULL.
//
// Since 0.1.0.
int vmt_error_errno(const struct vmt_error *error);

// What was being done, to what, and what can be done about it, in one line for people. It belongs to the error. "" for
// NULL.
//
// Since 0.1.0.
const char *vmt_error_message(const struct vmt_error *error);

// A copy, for who wants to keep an error that a completion was lent. The caller frees it. NULL for NULL.
//
// Since 0.1.0.
struct vmt_error *vmt_error_copy(const struct vmt_error *error);

// Frees an error. NULL does nothing.
//
// Since 0.1.0.
void vmt_error_free(struct vmt_error *error);

// What happened: a VMT_EVENT_ number. 0 for NULL.
//
// Since 0.1.0.
int32_t vmt_event_kind(const struct vmt_event *event);

// The file that it concerns, else 0.
//
// Since 0.1.0.
size_t vmt_event_file(const struct vmt_event *event);

// The place in that file, bytes, else 0.
//
// Since 0.1.0.
uint64_t vmt_event_offset(const struct vmt_event *event);

// Peers that were connected when a read timed out, else 0.
//
// Since 0.1.0.
uint32_t vmt_event_peers(const struct vmt_event *event);

// Number of events that were lost before this one, of VMT_EVENT_LOST, else 0.
//
// Since 0.1.0.
uint64_t vmt_event_lost(const struct vmt_event *event);

// What happened, in a sentence for people. It belongs to the event.
//
// Since 0.1.0.
const char *vmt_event_message(const struct vmt_event *event);

// Frees an event of vmt_events_next. NULL does nothing.
//
// Since 0.1.0.
void vmt_event_free(struct vmt_event *event);

// Opens a queue of the events that happen from now on. At most 256 wait in it; then the oldest are lost. The caller
// frees it.
//
// Errors: VMT_E_NULL; VMT_E_CLOSED; VMT_E_IO when no descriptor is to be had. Since 0.1.0.
vmt_status vmt_events_open(const struct vmt_appliance *appliance,
                           struct vmt_events **events,
                           struct vmt_error **error);

// A descriptor for poll, epoll or select that is readable while vmt_events_next has something to give, and once
// nothing will come any more. It belongs to the queue: don't read or close it. -1 for NULL, and where there are no
// such descriptors (Windows).
//
// Since 0.1.0.
int vmt_events_fd(const struct vmt_events *events);

// Takes the oldest event. Does not wait. The caller frees it.
//
// Errors: VMT_E_NULL; VMT_E_AGAIN when there is none yet; VMT_E_CLOSED when there is none and the appliance has
// ended. Since 0.1.0.
vmt_status vmt_events_next(const struct vmt_events *events,
                           struct vmt_event **event,
                           struct vmt_error **error);

// Closes a queue and its descriptor. NULL does nothing.
//
// Since 0.1.0.
void vmt_events_free(struct vmt_events *events);

// Has a function called for each event that happens from now on, in the session's thread for callbacks, until the
// appliance ends.
//
// Errors: VMT_E_NULL, VMT_E_CLOSED. Since 0.1.0.
vmt_status vmt_appliance_on_event(const struct vmt_appliance *appliance,
                                  struct vmt_event_callback callback,
                                  struct vmt_error **error);

// Writes the image of the state directory `state`, with everything that the guest wrote and flushed, to `output`: a
// file, or a directory for an image of several files. Its appliance must have ended. What neither the state nor the
// cache holds is fetched with the peers and trackers that the last launch knew. Waits for all that. `options` may be
// NULL; `cache` and `read-timeout` of them count. `cancel` may be NULL. `written`, which may be NULL, gets the bytes
// of data written; holes stay holes. `output` appears only when it is complete.
//
// Errors: VMT_E_NULL, VMT_E_UTF8; VMT_E_NOT_FOUND when `state` is no state directory; VMT_E_IN_USE when its
// appliance runs, or `output` exists; VMT_E_TIMED_OUT when missing data does not come; VMT_E_NO_SPACE,
// VMT_E_PERMISSION, VMT_E_IO, VMT_E_CORRUPT; VMT_E_CANCELLED. Since 0.1.0.
vmt_status vmt_export(const char *state,
                      const char *output,
                      const struct vmt_options *options,
                      const struct vmt_cancel *cancel,
                      uint64_t *written,
                      struct vmt_error **error);

// Tells of what the bytes of a file from `offset` on are made, as far as `length` and the end of the file go: up to
// `capacity` extents are stored in `extents`, and in `*count` how many. They lie one behind the other from `offset`
// on. When they end before the range does, ask again from there. Neither waits nor fetches; what is downloaded
// meanwhile may be told or not.
//
// Errors: VMT_E_NULL, VMT_E_INVALID when there is no such file or `capacity` is 0; VMT_E_CLOSED. Since 0.1.0.
vmt_status vmt_extents(const struct vmt_appliance *appliance,
                       size_t file,
                       uint64_t offset,
                       uint64_t length,
                       struct vmt_extent *extents,
                       size_t capacity,
                       size_t *count,
                       struct vmt_error **error);

// Takes an image's description from the `length` bytes of a .torrent file. The caller frees it.
//
// Errors: VMT_E_NULL; VMT_E_TORRENT when it is none. Since 0.1.0.
vmt_status vmt_image_from_bytes(const uint8_t *data,
                                size_t length,
                                struct vmt_image **image,
                                struct vmt_error **error);

// The name of the file or directory. It belongs to the image.
//
// Since 0.1.0.
const char *vmt_image_name(const struct vmt_image *image);

// The image's identity: its info-hash as 40 hexadecimal digits. It belongs to the image.
//
// Since 0.1.0.
const char *vmt_image_info_hash(const struct vmt_image *image);

// A magnet link to the image, with its trackers and web seeds. It belongs to the image.
//
// Since 0.1.0.
const char *vmt_image_magnet(const struct vmt_image *image);

// Length of the image, all files together, bytes.
//
// Since 0.1.0.
uint64_t vmt_image_length(const struct vmt_image *image);

// Length of a piece, bytes; the last one may be shorter.
//
// Since 0.1.0.
uint32_t vmt_image_piece_length(const struct vmt_image *image);

// Number of pieces.
//
// Since 0.1.0.
uint32_t vmt_image_piece_count(const struct vmt_image *image);

// Whether peers may come from the image's trackers only.
//
// Since 0.1.0.
bool vmt_image_is_private(const struct vmt_image *image);

// Number of files; they are numbered from 0.
//
// Since 0.1.0.
size_t vmt_image_file_count(const struct vmt_image *image);

// Path of a file below the image's directory, with slashes; of an image that is one file its name. NULL when there
// is no such file. It belongs to the image.
//
// Since 0.1.0.
const char *vmt_image_file_path(const struct vmt_image *image,
                                size_t file);

// Length of a file, bytes; 0 when there is no such file.
//
// Since 0.1.0.
uint64_t vmt_image_file_length(const struct vmt_image *image, size_t file);

// The .torrent file's bytes, and in `*length` their number. They belong to the image. NULL when a parameter is.
//
// Since 0.1.0.
const uint8_t *vmt_image_torrent(const struct vmt_image *image,
                                 size_t *length);

// Writes the .torrent file in one step: at no time is there half a file at `path`.
//
// Errors: VMT_E_NULL, VMT_E_UTF8, VMT_E_NOT_FOUND, VMT_E_PERMISSION, VMT_E_NO_SPACE, VMT_E_IO. Since 0.1.0.
vmt_status vmt_image_save(const struct vmt_image *image, const char *path, struct vmt_error **error);

// A copy of the profile that its publisher put beside it. The caller frees it.
//
// Errors: VMT_E_NULL; VMT_E_NOT_FOUND when there is none; VMT_E_INVALID when it makes no sense. Since 0.1.0.
vmt_status vmt_image_profile(const struct vmt_image *image,
                             struct vmt_profile **profile,
                             struct vmt_error **error);

// Frees an image. NULL does nothing.
//
// Since 0.1.0.
void vmt_image_free(struct vmt_image *image);

// Reads `length` bytes of a file from `offset` into `buffer`, waiting for what is missing, and stores in `*read` how
// many they are: fewer only at the end of the file, 0 behind it. What is present costs no allocation and no change
// of threads. After a failure the content of `buffer` is undefined.
//
// Errors: VMT_E_NULL, VMT_E_INVALID when there is no such file; VMT_E_IO, VMT_E_TIMED_OUT (the option `read-timeout`),
// with errno EIO, when the data can't be had; VMT_E_CLOSED, also when it was waiting. Since 0.1.0.
vmt_status vmt_pread(const struct vmt_appliance *appliance,
                     size_t file,
                     void *buffer,
                     size_t length,
                     uint64_t offset,
                     size_t *read,
                     struct vmt_error **error);

// As vmt_pread, but never waits, neither for the swarm nor for the disk.
//
// Errors: VMT_E_AGAIN when it would have to wait: use vmt_pread or vmt_aio_pread; and those of vmt_pread. Since 0.1.0.
vmt_status vmt_try_pread(const struct vmt_appliance *appliance,
                         size_t file,
                         void *buffer,
                         size_t length,
                         uint64_t offset,
                         size_t *read,
                         struct vmt_error **error);

// Writes `length` bytes to a file at `offset`; it grows when they end behind its end. What the write needs of the
// image around its edges (blocks have 4096 bytes) is waited for. It is durable after the next vmt_flush.
//
// Errors: VMT_E_NULL, VMT_E_INVALID when there is no such file; VMT_E_NO_SPACE, VMT_E_IO, VMT_E_TIMED_OUT;
// VMT_E_CLOSED. After one, any part may have been written. Since 0.1.0.
vmt_status vmt_pwrite(const struct vmt_appliance *appliance,
                      size_t file,
                      const void *data,
                      size_t length,
                      uint64_t offset,
                      struct vmt_error **error);

// Makes all writes to a file that had returned before durable: they survive a crash of the process, the system or
// the power.
//
// Errors: VMT_E_NULL, VMT_E_INVALID when there is no such file; VMT_E_NO_SPACE, VMT_E_IO: nothing is given up, a later
// flush tries again; VMT_E_CLOSED. Since 0.1.0.
vmt_status vmt_flush(const struct vmt_appliance *appliance,
                     size_t file,
                     struct vmt_error **error);

// Makes `length` bytes from `offset` read as zeros and gives their storage back. The file keeps its length.
//
// Errors: those of vmt_pwrite. Since 0.1.0.
vmt_status vmt_discard(const struct vmt_appliance *appliance,
                       size_t file,
                       uint64_t offset,
                       uint64_t length,
                       struct vmt_error **error);

// Makes `length` bytes from `offset` read as zeros, storing none; the file grows when they end behind its end.
//
// Errors: those of vmt_pwrite. Since 0.1.0.
vmt_status vmt_write_zeroes(const struct vmt_appliance *appliance,
                            size_t file,
                            uint64_t offset,
                            uint64_t length,
                            struct vmt_error **error);

// Sets the length of a file: grows it with zeros, or cuts it off. May wait for the local disk.
//
// Errors: VMT_E_NULL, VMT_E_INVALID when there is no such file; VMT_E_NO_SPACE, VMT_E_IO, VMT_E_CLOSED. Since 0.1.0.
vmt_status vmt_set_length(const struct vmt_appliance *appliance,
                          size_t file,
                          uint64_t length,
                          struct vmt_error **error);

// Has a range fetched soon that a read may want: behind what reads wait for, before what is fetched in the background.
// Does not wait. `missing` may be NULL; else it gets the bytes of the range's pieces that are not here yet.
//
// Errors: VMT_E_NULL, VMT_E_INVALID when there is no such file; VMT_E_CLOSED. Since 0.1.0.
vmt_status vmt_prefetch(const struct vmt_appliance *appliance,
                        size_t file,
                        uint64_t offset,
                        uint64_t length,
                        uint64_t *missing,
                        struct vmt_error **error);

// Has what the library logs told to a function, up to a level: VMT_LOG_ERROR to VMT_LOG_TRACE; of the libraries that
// it is made of no more than warnings. The handler is that of the process: it replaces an earlier one. With a `call`
// that is NULL, or VMT_LOG_OFF, nothing is logged any more, as at first. When this returns, the earlier handler runs
// nowhere, and was freed.
//
// Errors: VMT_E_INVALID for a level that does not exist; VMT_E_IN_USE when a Rust program that the library is part
// of has a log of its own; VMT_E_UNAVAILABLE when the library was built without the feature `log`. Since 0.1.0.
vmt_status vmt_log_set(int32_t level,
                       struct vmt_log_handler handler,
                       struct vmt_error **error);

// Makes options with all defaults. The caller frees them.
//
// Errors: VMT_E_NULL. Since 0.1.0.
vmt_status vmt_options_new(struct vmt_options **options, struct vmt_error **error);

// Sets an option. The keys peer, tracker and web-seed add a value, the others replace it.
//
// Errors: VMT_E_NULL, VMT_E_UTF8; VMT_E_INVALID for a key that does not exist and a value that makes no sense; the
// message names the key and what would be good. Since 0.1.0.
vmt_status vmt_options_set(struct vmt_options *options,
                           const char *key,
                           const char *value,
                           struct vmt_error **error);

// Sets the profile of earlier runs that a launch uses, or that vmt_publish puts into the .torrent file: a copy of
// what it holds now. NULL takes it back.
//
// Errors: VMT_E_NULL. Since 0.1.0.
vmt_status vmt_options_set_profile(struct vmt_options *options,
                                   const struct vmt_profile *profile,
                                   struct vmt_error **error);

// Frees options. NULL does nothing.
//
// Since 0.1.0.
void vmt_options_free(struct vmt_options *options);

// The key of an option: those from 0 on exist until NULL comes. The string is static.
//
// Since 0.1.0.
const char *vmt_option_key(size_t index);

// What an option does, its unit and its default, in a few sentences for people. NULL when there is none of that
// index. The string is static.
//
// Since 0.1.0.
const char *vmt_option_help(size_t index);

// The text. It belongs to the handle.
//
// Since 0.1.0.
const char *vmt_text_string(const struct vmt_text *text);

// Its length in bytes, without the zero at its end.
//
// Since 0.1.0.
size_t vmt_text_length(const struct vmt_text *text);

// Frees a text. NULL does nothing.
//
// Since 0.1.0.
void vmt_text_free(struct vmt_text *text);

// Reads a profile from a file. The caller frees it.
//
// Errors: VMT_E_NULL, VMT_E_UTF8, VMT_E_NOT_FOUND, VMT_E_PERMISSION, VMT_E_IO; VMT_E_INVALID when the file is no
// profile. Since 0.1.0.
vmt_status vmt_profile_load(const char *path,
                            struct vmt_profile **profile,
                            struct vmt_error **error);

// Takes a profile from the `length` bytes of its text (JSON). The caller frees it.
//
// Errors: VMT_E_NULL; VMT_E_INVALID when it is none. Since 0.1.0.
vmt_status vmt_profile_from_bytes(const uint8_t *data,
                                  size_t length,
                                  struct vmt_profile **profile,
                                  struct vmt_error **error);

// Adds the runs of `other` to `profile`. Those of another image are refused, unless `force` is set: then what fits
// is merged, and `mismatch`, which may be NULL, gets how much that is (all 0 for the same image). `other` does not
// change; both may be the same handle.
//
// Errors: VMT_E_NULL; VMT_E_INVALID for another image, without `force`. Since 0.1.0.
vmt_status vmt_profile_merge(struct vmt_profile *profile,
                             const struct vmt_profile *other,
                             bool force,
                             struct vmt_mismatch *mismatch,
                             struct vmt_error **error);

// Writes a profile to a file in one step: at no time is there half a profile at `path`.
//
// Errors: VMT_E_NULL, VMT_E_UTF8, VMT_E_NOT_FOUND, VMT_E_PERMISSION, VMT_E_NO_SPACE, VMT_E_IO. Since 0.1.0.
vmt_status vmt_profile_save(const struct vmt_profile *profile, const char *path, struct vmt_error **error);

// Draws when which place of the image was read first, and writes that to the file `path`, in one step: an SVG picture of
// less than a megabyte that asks for nothing elsewhere.
//
// Errors: VMT_E_NULL, VMT_E_UTF8, VMT_E_NOT_FOUND, VMT_E_PERMISSION, VMT_E_NO_SPACE, VMT_E_IO. Since 0.1.0.
vmt_status vmt_profile_plot(const struct vmt_profile *profile,
                            const char *path,
                            struct vmt_error **error);

// Tells what a profile holds: with `json` as one JSON object in one line, whose keys name their units, else in some lines
// for people, each with a line feed at its end. The caller frees the text.
//
// Errors: VMT_E_NULL. Since 0.1.0.
vmt_status vmt_profile_summary(const struct vmt_profile *profile,
                               bool json,
                               struct vmt_text **summary,
                               struct vmt_error **error);

// Number of runs that it is made of.
//
// Since 0.1.0.
uint32_t vmt_profile_runs(const struct vmt_profile *profile);

// Number of distinct blocks of 16 KiB that were read.
//
// Since 0.1.0.
uint64_t vmt_profile_blocks(const struct vmt_profile *profile);

// Name of the image that was run. It belongs to the profile.
//
// Since 0.1.0.
const char *vmt_profile_name(const struct vmt_profile *profile);

// Identity of the image that was run: its info-hash as 40 hexadecimal digits. It belongs to the profile.
//
// Since 0.1.0.
const char *vmt_profile_info_hash(const struct vmt_profile *profile);

// Frees a profile. NULL does nothing.
//
// Since 0.1.0.
void vmt_profile_free(struct vmt_profile *profile);

// Makes an image's description of the file or directory at `path`, with what the options `name`, `piece-size`,
// `tracker`, `web-seed`, `private` and `profile` say. Waits, and uses all cores. The same files and options always
// give the same. The caller frees the image; vmt_image_save writes the .torrent file. `options` and `cancel` may be
// NULL. `progress` is called in this thread.
//
// Errors: VMT_E_NULL, VMT_E_UTF8; VMT_E_INVALID for options that make no sense and for what an image can't hold
// (nothing at all, links, devices, names that are not UTF-8); VMT_E_IN_USE when a file changed meanwhile;
// VMT_E_NOT_FOUND, VMT_E_PERMISSION, VMT_E_IO; VMT_E_CANCELLED. Since 0.1.0.
vmt_status vmt_publish(const char *path,
                       const struct vmt_options *options,
                       struct vmt_progress progress,
                       const struct vmt_cancel *cancel,
                       struct vmt_image **image,
                       struct vmt_error **error);

// Reads of `disk`, the path of a file or a block device, what the file `trace` says, at its guest's pace: one read at a
// time, past the page cache where the file system can do that. The option `trace` of a launch writes such a file: a
// line `think_us offset length` for each read (microseconds, bytes, bytes). `speed` divides the time in which the guest
// thinks: 1 is as it was, from 0.001 to 1000000 are possible. Waits for all of it. `cancel` may be NULL; it is looked at
// between reads, and each 50 ms while the guest thinks. `replayed->struct_size` must be set before.
//
// The disk may be one that an appliance of this process has mounted, unless a callback of its session does this.
//
// Errors: VMT_E_NULL, VMT_E_UTF8; VMT_E_INVALID when the trace is none or of a longer disk (nothing is read then), for a
// speed that is out of range, and for a size that makes no sense; VMT_E_NOT_FOUND, VMT_E_PERMISSION, VMT_E_IO of both
// files; VMT_E_CANCELLED. Since 0.1.0.
vmt_status vmt_replay(const char *trace,
                      const char *disk,
                      double speed,
                      const struct vmt_cancel *cancel,
                      struct vmt_replayed *replayed,
                      struct vmt_error **error);

// Begins a report: time is counted from here. Call it before what is to be told: before vmt_launch, or before
// vmt_session_start. The caller frees it.
//
// Errors: VMT_E_NULL. Since 0.1.0.
vmt_status vmt_report_begin(struct vmt_report **report, struct vmt_error **error);

// Notes that a phase of the start has ended, a VMT_PHASE_ number. Phases that nobody marks are part of the one after
// them: who calls vmt_launch marks VMT_PHASE_APPLIANCE alone.
//
// Errors: VMT_E_NULL; VMT_E_INVALID when there is no such phase. Since 0.1.0.
vmt_status vmt_report_mark(const struct vmt_report *report,
                           int32_t phase,
                           struct vmt_error **error);

// Has the figures of an appliance looked at from now on, 10 times a second and at first 50 times, until the report is
// freed or the appliance ends. Call it as soon as the appliance is there: what is here then counts as what was here
// before the launch.
//
// Errors: VMT_E_NULL; VMT_E_INVALID when the report follows an appliance already; VMT_E_CLOSED. Since 0.1.0.
vmt_status vmt_report_follow(const struct vmt_report *report,
                             const struct vmt_appliance *appliance,
                             struct vmt_error **error);

// Writes the page of what happened so far to the file `path`, in one step: HTML of less than a megabyte that asks for
// nothing elsewhere and runs no script. Call it before the appliance is shut down; called again, it is another page.
// `rate` is what the line gives, bytes per second, for the least time that the report compares with; 0: the most that
// came within one second.
//
// Errors: VMT_E_NULL, VMT_E_UTF8; VMT_E_INVALID when the report does not follow this appliance; VMT_E_NOT_FOUND,
// VMT_E_PERMISSION, VMT_E_NO_SPACE, VMT_E_IO of the file; VMT_E_CLOSED. Since 0.1.0.
vmt_status vmt_report_write(const struct vmt_report *report,
                            const struct vmt_appliance *appliance,
                            uint64_t rate,
                            const char *path,
                            struct vmt_error **error);

// Frees the handle. NULL does nothing.
//
// Since 0.1.0.
void vmt_report_free(struct vmt_report *report);

// Serves a published image: the directory `data` holds its file or directory under its name. Lengths are checked
// now, each piece on its first use. The caller frees the seed, after vmt_seed_shutdown if it is to end in order.
//
// Errors: VMT_E_NULL, VMT_E_UTF8; VMT_E_NOT_FOUND or VMT_E_INVALID naming the file that is missing or has another
// length; VMT_E_PERMISSION, VMT_E_IO; VMT_E_IN_USE when the session runs the image already; VMT_E_CLOSED. Since
// 0.1.0.
vmt_status vmt_session_seed(const struct vmt_session *session,
                            const struct vmt_image *image,
                            const char *data,
                            struct vmt_seed **seed,
                            struct vmt_error **error);

// A magnet link to what is seeded: that of the image, with the session's own tracker and its port for peers where
// their addresses mean one host (0.0.0.0 would lead nowhere). It belongs to the seed.
//
// Since 0.1.0.
const char *vmt_seed_magnet(const struct vmt_seed *seed);

// What was served so far. `stats->struct_size` must be set before; see vmt_stats.
//
// Errors: VMT_E_NULL, VMT_E_INVALID for a size that makes no sense, VMT_E_CLOSED. Since 0.1.0.
vmt_status vmt_seed_stats(const struct vmt_seed *seed, struct vmt_stats *stats, struct vmt_error **error);

// Ends the seed in order: peers and trackers are told. `timeout_ms` are milliseconds, or VMT_FOREVER. Whatever the
// function gives, the seed has ended then; the handle is still to be freed. Called again, or by two at once, it
// waits for the first and gives VMT_OK.
//
// Errors: VMT_E_NULL, VMT_E_TIMED_OUT; VMT_E_REENTERED in a callback of the session. Since 0.1.0.
vmt_status vmt_seed_shutdown(const struct vmt_seed *seed,
                             uint64_t timeout_ms,
                             struct vmt_error **error);

// Frees the handle. A seed that was not shut down ends at once. NULL does nothing.
//
// Since 0.1.0.
void vmt_seed_free(struct vmt_seed *seed);

// Starts a session: its threads, and its port for peers. The caller frees it, after vmt_session_shutdown if it is to
// end in order. `options` may be NULL.
//
// Errors: VMT_E_NULL; VMT_E_IN_USE when the port is taken; VMT_E_NOT_FOUND when no cache is named and there is no home
// directory; VMT_E_FORKED in a process that was forked from one with sessions; VMT_E_IO. Since 0.1.0.
vmt_status vmt_session_start(const struct vmt_options *options,
                             struct vmt_session **session,
                             struct vmt_error **error);

// The address on which peers connect, such as "0.0.0.0:41234", with the port that was taken. It belongs to the
// session.
//
// Since 0.1.0.
const char *vmt_session_listen_address(const struct vmt_session *session);

// Loads an image's description: `source` is the path of a .torrent file, its http, https or file URL, or a magnet
// link, whose image is described by peers (those of the option `peer` among them) or was kept in the cache. Waits
// for that. The caller frees the image. `options` and `cancel` may be NULL.
//
// Errors: VMT_E_NULL, VMT_E_UTF8, VMT_E_INVALID for a source of an unknown kind or a magnet link with nobody to ask;
// VMT_E_NOT_FOUND, VMT_E_PERMISSION, VMT_E_NETWORK; VMT_E_TIMED_OUT after 30 s with a web server, or the option
// `metadata-timeout` with peers; VMT_E_TORRENT; VMT_E_CANCELLED, VMT_E_CLOSED. Since 0.1.0.
vmt_status vmt_session_load(const struct vmt_session *session,
                            const char *source,
                            const struct vmt_options *options,
                            const struct vmt_cancel *cancel,
                            struct vmt_image **image,
                            struct vmt_error **error);

// Runs a small tracker for what this session seeds and launches, then and later. `address` is IP:PORT; port 0 takes
// a free one. It ends with the session.
//
// Errors: VMT_E_NULL, VMT_E_UTF8, VMT_E_INVALID for what is no address; VMT_E_IN_USE when the port is taken, or the
// session has a tracker already; VMT_E_CLOSED. Since 0.1.0.
vmt_status vmt_session_serve_tracker(const struct vmt_session *session,
                                     const char *address,
                                     struct vmt_error **error);

// The announce URL of the tracker that this session runs; NULL when it runs none. It belongs to the session.
//
// Since 0.1.0.
const char *vmt_session_tracker_url(const struct vmt_session *session);

// Serves figures for Prometheus at http://ADDRESS/metrics until the session ends. `address` is IP:PORT; port 0 takes
// a free one. There is no access control.
//
// Errors: VMT_E_NULL, VMT_E_UTF8, VMT_E_INVALID for what is no address; VMT_E_IN_USE when the port is taken, or they
// are served already; VMT_E_CLOSED. Since 0.1.0.
vmt_status vmt_session_serve_metrics(const struct vmt_session *session,
                                     const char *address,
                                     struct vmt_error **error);

// The URL of the figures that this session serves; NULL when it serves none. It belongs to the session.
//
// Since 0.1.0.
const char *vmt_session_metrics_url(const struct vmt_session *session);

// Ends the session in order: its appliances are shut down as vmt_appliance_shutdown does it and its seeds likewise,
// peers and trackers are told, callbacks that are due are called, and its threads end. Whatever it gives, the
// session has ended then, and calls with it or its appliances give VMT_E_CLOSED; the handles are still to be freed.
// After VMT_OK no thread of it is left. Called again, or by two at once, it waits for the first and gives VMT_OK.
//
// `timeout_ms` are milliseconds; VMT_FOREVER waits as long as it takes. What is not done by then is broken off: as
// after a power failure, the guest then finds all that was flushed.
//
// Errors: VMT_E_NULL; VMT_E_TIMED_OUT; VMT_E_REENTERED in a callback of the session; what the appliances report, as
// vmt_appliance_shutdown does. Since 0.1.0.
vmt_status vmt_session_shutdown(const struct vmt_session *session,
                                uint64_t timeout_ms,
                                struct vmt_error **error);

// Frees the handle. When it is the last one of a session that was not shut down (those of its appliances, seeds and
// queues of events count), the session ends at once, which waits up to 5 seconds for its threads. NULL does nothing.
//
// Since 0.1.0.
void vmt_session_free(struct vmt_session *session);

// A short name of a status, such as "no space left", for messages. Never NULL; the string is static.
//
// Since 0.1.0.
const char *vmt_status_name(vmt_status status);

// The version of the ABI of the library that is loaded: to be compared with VMT_ABI_VERSION.
//
// Since 0.1.0.
uint32_t vmt_abi_version(void);

// The version of the library that is loaded, such as "0.1.0". The string is static.
//
// Since 0.1.0.
const char *vmt_version(void);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* VMTORRENT_H */
