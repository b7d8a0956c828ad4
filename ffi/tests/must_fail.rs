//! Mistakes with memory that AddressSanitizer has to catch: `ffi/sanitize.sh` runs each alone, and expects its report.
//! Without the sanitizer they mean nothing, so nobody else runs them.
#![expect(unsafe_code, reason = "the mistakes are the subject")]

use vmtorrent_ffi::vmt_test_bad_read;

#[test]
#[ignore = "a mistake on purpose: ffi/sanitize.sh runs it"]
fn reads_what_was_freed() {
    // SAFETY: none.
    unsafe { vmt_test_bad_read(false) };
}

#[test]
#[ignore = "a mistake on purpose: ffi/sanitize.sh runs it"]
fn reads_behind_the_end() {
    // SAFETY: none.
    unsafe { vmt_test_bad_read(true) };
}

#[test]
#[ignore = "a mistake on purpose: ffi/sanitize.sh runs it"]
fn forgets_memory() {
    std::mem::forget(std::hint::black_box(vec![1_u8; 1000]));
}
