//! A read of what is present costs no allocation in the thread that reads.
#![expect(
    unsafe_code,
    reason = "an allocator and the C functions are called here"
)]
#![expect(
    clippy::unwrap_used,
    reason = "a helper that can't go on fails the test"
)]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ptr::null_mut;
use std::time::Instant;

use common::{PIECE, Stage, content};
use vmtorrent_ffi::*;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: everything is left to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

#[test]
fn reads_of_what_is_present_allocate_nothing() {
    let length = 64 * PIECE;
    let stage = Stage::new(length, &[]);
    let expected = content(length);
    assert!(stage.read(0, length) == expected);
    // And some of it written by the guest, across the edges of blocks.
    let data = [0x5A; 5000];
    let mut error = null_mut();
    // SAFETY: all pointers are good.
    let status = unsafe {
        vmt_pwrite(
            stage.appliance,
            0,
            data.as_ptr().cast(),
            data.len(),
            3000,
            &mut error,
        )
    };
    common::check(status, error);
    assert_eq!(stage.read(3000, 5000), data);

    let mut buffer = [0_u8; 4096];
    let mut read = 0;
    let before = ALLOCATIONS.get();
    let began = Instant::now();
    let rounds = 20;
    for _ in 0..rounds {
        for offset in (0..length as u64).step_by(4096) {
            // SAFETY: all pointers are good.
            let status = unsafe {
                let start = buffer.as_mut_ptr().cast();
                vmt_pread(
                    stage.appliance,
                    0,
                    start,
                    4096,
                    offset,
                    &mut read,
                    &mut error,
                )
            };
            assert_eq!((status, read), (VMT_OK, 4096));
        }
    }
    let reads = rounds * length as u32 / 4096;
    let (took, allocated) = (began.elapsed(), ALLOCATIONS.get() - before);
    println!("{:?} for each read", took / reads);
    assert_eq!(allocated, 0);
}
