//! The C functions over a real swarm, as far as Rust can tell: tests in C come beside these.
#![expect(unsafe_code, reason = "the C functions are called here")]
#![expect(
    clippy::unwrap_used,
    reason = "a helper that can't go on fails the test"
)]

mod common;

use std::ffi::c_void;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use common::{PIECE, Stage, check, content};
use vmtorrent_ffi::*;

const LENGTH: usize = 40 * PIECE;
const PATIENCE: Duration = Duration::from_secs(60);

/// What a completion tells: its status, and its value.
type Told = (vmt_status, u64);

static FREED: AtomicU32 = AtomicU32::new(0);

unsafe extern "C" fn tell(
    user: *mut c_void,
    status: vmt_status,
    value: u64,
    error: *const vmt_error,
) {
    assert_eq!(error.is_null(), status == VMT_OK);
    // SAFETY: it is the sender of `completion`, and lives until it is freed.
    let sender = unsafe { &*user.cast::<Sender<Told>>() };
    sender.send((status, value)).unwrap();
}

unsafe extern "C" fn free_sender(user: *mut c_void) {
    FREED.fetch_add(1, Ordering::SeqCst);
    // SAFETY: made by `completion`, and freed once.
    drop(unsafe { Box::from_raw(user.cast::<Sender<Told>>()) });
}

fn completion() -> (vmt_completion, Receiver<Told>) {
    let (sender, receiver) = channel();
    let raw = vmt_completion {
        call: Some(tell),
        user: Box::into_raw(Box::new(sender)).cast(),
        free: Some(free_sender),
    };
    (raw, receiver)
}

fn shutdown(stage: &Stage) {
    let mut error = null_mut();
    // SAFETY: all pointers are good.
    unsafe {
        for session in [stage.session, stage.source] {
            check(vmt_session_shutdown(session, 60_000, &mut error), error);
        }
    }
}

/// Threads of this process that the library named.
fn threads() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let names = tasks.map(|t| std::fs::read_to_string(t.unwrap().path().join("comm")));
    names
        .filter(|n| n.as_ref().is_ok_and(|n| n.starts_with("vmtorrent")))
        .count()
}

#[test]
fn a_guest_reads_writes_and_finds_it_again() {
    let stage = Stage::new(LENGTH, &[]);
    let expected = content(LENGTH);
    assert!(stage.read(0, LENGTH + 10) == expected);
    assert!(stage.read(LENGTH as u64, 10).is_empty());
    let mut error = null_mut();
    let extents = |offset: u64| {
        let mut found = [vmt_extent::default(); 64];
        let (mut count, mut error) = (0, null_mut());
        // SAFETY: all pointers are good.
        unsafe {
            let room = found.len();
            let start = found.as_mut_ptr();
            let status = vmt_extents(
                stage.appliance,
                0,
                offset,
                u64::MAX,
                start,
                room,
                &mut count,
                &mut error,
            );
            check(status, error);
        }
        found[..count].to_vec()
    };
    let data = vec![7; 10_000];
    // SAFETY: all pointers are good.
    unsafe {
        let start = data.as_ptr().cast();
        check(
            vmt_pwrite(stage.appliance, 0, start, data.len(), 5000, &mut error),
            error,
        );
        check(
            vmt_discard(stage.appliance, 0, 65536, 65536, &mut error),
            error,
        );
        check(
            vmt_set_length(stage.appliance, 0, LENGTH as u64 + 5, &mut error),
            error,
        );
        check(vmt_flush(stage.appliance, 0, &mut error), error);
        let mut length = 0;
        let status = vmt_appliance_file_length(stage.appliance, 0, &mut length, &mut error);
        check(status, error);
        assert_eq!(length, LENGTH as u64 + 5);
    }
    assert_eq!(stage.read(5000, 10_000), data);
    assert_eq!(stage.read(65536, 65536), vec![0; 65536]);
    let all = extents(0);
    let mut at = 0;
    for extent in &all {
        assert_eq!(extent.offset, at);
        at += extent.length;
        assert_ne!(extent.flags & VMT_EXTENT_PRESENT, 0);
    }
    assert_eq!(at, LENGTH as u64 + 5);
    let kinds = |offset: u64| all.iter().rfind(|e| e.offset <= offset).unwrap().flags;
    assert_eq!(kinds(0), VMT_EXTENT_PRESENT);
    assert_eq!(kinds(6000), VMT_EXTENT_PRESENT | VMT_EXTENT_WRITTEN);
    let zeroed = VMT_EXTENT_ZERO | VMT_EXTENT_PRESENT | VMT_EXTENT_WRITTEN;
    assert_eq!(kinds(70_000), zeroed);
    assert_eq!(
        kinds(11 * PIECE as u64),
        VMT_EXTENT_ZERO | VMT_EXTENT_PRESENT
    );
    shutdown(&stage);
}

#[test]
fn what_is_missing_is_told_and_can_be_fetched_ahead() {
    let stage = Stage::new(LENGTH, &[("read-timeout", "30")]);
    let (mut read, mut error, mut missing) = (0, null_mut(), 0);
    let mut buffer = [0; 100];
    // SAFETY: all pointers are good.
    unsafe {
        let start: *mut c_void = buffer.as_mut_ptr().cast();
        let nobody = null_mut();
        let at = 20 * PIECE as u64;
        let tried = vmt_try_pread(stage.appliance, 0, start, 100, at, &mut read, nobody);
        assert_eq!(tried, VMT_E_AGAIN);
        let status = vmt_prefetch(
            stage.appliance,
            0,
            at,
            PIECE as u64,
            &mut missing,
            &mut error,
        );
        check(status, error);
        assert_eq!(missing, PIECE as u64);
        // Until it is there.
        let deadline = std::time::Instant::now() + PATIENCE;
        while vmt_prefetch(stage.appliance, 0, at, PIECE as u64, &mut missing, nobody) == VMT_OK
            && missing > 0
        {
            assert!(std::time::Instant::now() < deadline, "it is not fetched");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    assert!(stage.read(20 * PIECE as u64, 100) == content(LENGTH)[20 * PIECE..][..100]);
    shutdown(&stage);
}

#[test]
fn calls_that_wait_at_shutdown_are_completed_once_and_no_thread_is_left() {
    let before = threads();
    let freed = FREED.load(Ordering::SeqCst);
    let stage = Stage::new(LENGTH, &[("read-timeout", "0")]);
    let mut error = null_mut();
    // Nobody gives the data any more.
    // SAFETY: all pointers are good.
    unsafe {
        check(
            vmt_session_shutdown(stage.source, 60_000, &mut error),
            error,
        )
    };
    let mut buffer = vec![0_u8; 1000];
    let waiting: Vec<_> = (0..20)
        .map(|number| {
            let (completion, told) = completion();
            // SAFETY: the buffer is there until all are completed, and its parts are apart.
            unsafe {
                let start = buffer.as_mut_ptr().add(number * 50).cast();
                let at = (number * 2 * PIECE + 1) as u64;
                let status =
                    vmt_aio_pread(stage.appliance, 0, start, 50, at, completion, &mut error);
                check(status, error);
            }
            told
        })
        .collect();
    // SAFETY: all pointers are good.
    unsafe {
        let mut stats: vmt_stats = std::mem::zeroed();
        stats.struct_size = size_of::<vmt_stats>() as u64;
        let status = vmt_appliance_shutdown(stage.appliance, 60_000, &mut stats, &mut error);
        check(status, error);
        assert_eq!(stats.image_bytes, LENGTH as u64);
        // Again, and refused from now on.
        let status = vmt_appliance_shutdown(stage.appliance, 0, null_mut(), null_mut());
        assert_eq!(status, VMT_OK);
        let mut read = 0;
        let start = buffer.as_mut_ptr().cast();
        let nobody = null_mut();
        let status = vmt_pread(stage.appliance, 0, start, 1, 0, &mut read, nobody);
        assert_eq!(status, VMT_E_CLOSED);
        let (refused, never) = completion();
        let status = vmt_aio_flush(stage.appliance, 0, refused, null_mut());
        assert_eq!(status, VMT_E_CLOSED);
        assert!(never.recv().is_err(), "freed, and not called");
    }
    for told in waiting {
        // Pieces of zeros need nobody.
        let (status, value) = told.recv_timeout(PATIENCE).unwrap();
        assert!((status, value) == (VMT_E_CLOSED, 0) || (status, value) == (VMT_OK, 50));
        assert!(told.recv().is_err(), "once");
    }
    shutdown(&stage);
    drop(stage);
    // Other tests of this process have their own.
    if std::env::var_os("NEXTEST").is_some() {
        // A thread that was joined is listed for a moment more.
        let deadline = std::time::Instant::now() + PATIENCE;
        while threads() != before && std::time::Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(threads(), before);
        assert_eq!(FREED.load(Ordering::SeqCst) - freed, 21);
    }
}

#[test]
fn asynchronous_calls_do_what_the_others_do() {
    let stage = Stage::new(LENGTH, &[]);
    let mut error = null_mut();
    let mut buffer = vec![0_u8; LENGTH];
    let data = vec![9_u8; 5000];
    let wait = |submit: &mut dyn FnMut(vmt_completion) -> vmt_status| {
        let (completion, told) = completion();
        assert_eq!(submit(completion), VMT_OK);
        told.recv_timeout(PATIENCE).unwrap()
    };
    let appliance = stage.appliance;
    // SAFETY: all pointers are good, and each call is waited for.
    unsafe {
        let start: *mut c_void = buffer.as_mut_ptr().cast();
        let told = wait(&mut |c| vmt_aio_pread(appliance, 0, start, LENGTH, 0, c, &mut error));
        assert_eq!(told, (VMT_OK, LENGTH as u64));
        assert!(buffer == content(LENGTH));
        let from = data.as_ptr().cast();
        let told = wait(&mut |c| vmt_aio_pwrite(appliance, 0, from, 5000, 100, c, &mut error));
        assert_eq!(told, (VMT_OK, 0));
        let told = wait(&mut |c| vmt_aio_write_zeroes(appliance, 0, 8192, 4096, c, &mut error));
        assert_eq!(told, (VMT_OK, 0));
        let told = wait(&mut |c| vmt_aio_discard(appliance, 0, 16384, 4096, c, &mut error));
        assert_eq!(told, (VMT_OK, 0));
        let told = wait(&mut |c| vmt_aio_flush(appliance, 0, c, &mut error));
        assert_eq!(told, (VMT_OK, 0));
    }
    assert_eq!(stage.read(100, 5000), data);
    assert_eq!(stage.read(8192, 4096), vec![0; 4096]);
    assert_eq!(stage.read(16384, 4096), vec![0; 4096]);
    shutdown(&stage);
}

/// Called back, it calls in: reads, and tries what would wait for itself.
unsafe extern "C" fn call_in(user: *mut c_void, status: vmt_status, _: u64, _: *const vmt_error) {
    assert_eq!(status, VMT_OK);
    // SAFETY: see the test below.
    unsafe {
        let (stage, sender) = &*user.cast::<(&Stage, Sender<Told>)>();
        let shutdown = vmt_session_shutdown(stage.session, 1000, null_mut());
        assert_eq!(shutdown, VMT_E_REENTERED);
        let shutdown = vmt_appliance_shutdown(stage.appliance, 1000, null_mut(), null_mut());
        assert_eq!(shutdown, VMT_E_REENTERED);
        let read = stage.read(9 * PIECE as u64, 100);
        sender.send((VMT_OK, read.len() as u64)).unwrap();
    }
}

#[test]
fn callbacks_may_wait_for_the_swarm_but_not_for_themselves() {
    let stage = Stage::new(LENGTH, &[]);
    let (sender, told) = channel();
    let user: (&Stage, Sender<Told>) = (&stage, sender);
    let completion = vmt_completion {
        call: Some(call_in),
        user: std::ptr::from_ref(&user).cast_mut().cast(),
        free: None,
    };
    // SAFETY: all pointers are good, and the call is waited for.
    unsafe {
        assert_eq!(
            vmt_aio_flush(stage.appliance, 0, completion, null_mut()),
            VMT_OK
        );
    }
    assert_eq!(told.recv_timeout(PATIENCE), Ok((VMT_OK, 100)));
    shutdown(&stage);
}

/// Threads of the library that leave signals to others, or what one does not.
fn deaf_threads() -> Result<usize, String> {
    let mut deaf = 0;
    for task in std::fs::read_dir("/proc/self/task").unwrap() {
        // Others may end meanwhile.
        let Ok(status) = std::fs::read_to_string(task.unwrap().path().join("status")) else {
            continue;
        };
        let field = |name: &str| {
            let line = status.lines().find_map(|l| l.strip_prefix(name));
            line.unwrap_or_default().trim().to_owned()
        };
        if !field("Name:").starts_with("vmtorrent") {
            continue;
        }
        let blocked = u64::from_str_radix(&field("SigBlk:"), 16).map_err(|e| e.to_string())?;
        let is_blocked = |signal: u32| blocked & 1 << (signal - 1) != 0;
        // SIGINT, SIGPIPE, SIGTERM, SIGCHLD; SIGSEGV comes all the same.
        if ![2, 13, 15, 17].into_iter().all(is_blocked) || is_blocked(11) {
            return Err(status);
        }
        deaf += 1;
    }
    Ok(deaf)
}

#[test]
fn no_thread_of_the_library_takes_signals_of_the_program() {
    let stage = Stage::new(LENGTH, &[]);
    stage.read(0, LENGTH);
    // One that has just started may not be that far.
    let mut looks = 0;
    let deaf = loop {
        match deaf_threads() {
            Ok(deaf) => break deaf,
            Err(status) => assert!(looks < 100, "{status}"),
        }
        looks += 1;
        std::thread::sleep(Duration::from_millis(5));
    };
    assert!(deaf >= 6, "{deaf}");
    shutdown(&stage);
}

#[test]
fn handles_are_freed_in_any_order_also_with_calls_under_way() {
    let mut stage = Stage::new(LENGTH, &[]);
    let mut buffer = [0_u8; 100];
    let (completion, told) = completion();
    // SAFETY: all pointers are good, and the buffer is there until the call is completed.
    unsafe {
        let start = buffer.as_mut_ptr().cast();
        let status = vmt_aio_pread(stage.appliance, 0, start, 100, 0, completion, null_mut());
        assert_eq!(status, VMT_OK);
        vmt_session_free(stage.session);
        vmt_appliance_free(stage.appliance);
    }
    (stage.session, stage.appliance) = (null_mut(), null_mut());
    // It waits, and ends with the appliance; unless the data was faster.
    match told.recv_timeout(PATIENCE) {
        Ok((VMT_OK, 100)) => assert_eq!(buffer, content(LENGTH)[..100]),
        other => assert_eq!(other, Ok((VMT_E_CLOSED, 0))),
    }
}

#[test]
fn events_end_with_the_appliance() {
    let stage = Stage::new(LENGTH, &[]);
    let (mut events, mut event, mut error) = (null_mut(), null_mut(), null_mut());
    // SAFETY: all pointers are good.
    unsafe {
        check(
            vmt_events_open(stage.appliance, &mut events, &mut error),
            error,
        );
        assert!(vmt_events_fd(events) >= 0);
        assert_eq!(vmt_events_next(events, &mut event, null_mut()), VMT_E_AGAIN);
        stage.read(0, LENGTH);
        let deadline = std::time::Instant::now() + PATIENCE;
        while vmt_events_next(events, &mut event, null_mut()) == VMT_E_AGAIN {
            assert!(std::time::Instant::now() < deadline, "no event");
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(vmt_event_kind(event), VMT_EVENT_COMPLETE);
        vmt_event_free(event);
        shutdown(&stage);
        assert_eq!(
            vmt_events_next(events, &mut event, null_mut()),
            VMT_E_CLOSED
        );
        vmt_events_free(events);
    }
}

#[cfg(feature = "test-hooks")]
#[test]
fn a_panic_poisons_its_session_alone() {
    let stage = Stage::new(LENGTH, &[]);
    let other = Stage::new(LENGTH, &[]);
    let (completion, told) = completion();
    // SAFETY: all pointers are good.
    unsafe {
        let status = vmt_test_panic_in_task(stage.appliance, completion, null_mut());
        assert_eq!(status, VMT_OK);
        assert_eq!(told.recv_timeout(PATIENCE), Ok((VMT_E_PANIC, 0)));
        let flush = vmt_flush(stage.appliance, 0, null_mut());
        assert_eq!(flush, VMT_E_POISONED);
        assert_eq!(
            vmt_session_shutdown(stage.session, 0, null_mut()),
            VMT_E_POISONED
        );
        assert_eq!(vmt_flush(other.appliance, 0, null_mut()), VMT_OK);
        assert_eq!(vmt_test_panic(other.session, null_mut()), VMT_E_PANIC);
        assert_eq!(vmt_flush(other.appliance, 0, null_mut()), VMT_E_POISONED);
    }
}
