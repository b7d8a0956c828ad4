//! Invariant: nothing is skipped silently, and nothing at all where `VMTORRENT_REQUIRE` is set.

use std::fs::File;

/// Whether a test can run; says so when it can't.
///
/// # Panics
/// If `available` is false and `VMTORRENT_REQUIRE` is set (as CI does).
pub fn require(available: bool, what: &str) -> bool {
    if !available {
        assert!(
            std::env::var_os("VMTORRENT_REQUIRE").is_none_or(|v| v.is_empty()),
            "VMTORRENT_REQUIRE is set, but this is missing: {what}"
        );
        eprintln!("skipped: {what} is missing");
    }
    available
}

/// Whether FUSE file systems can be mounted here.
pub fn fuse() -> bool {
    let device = File::options().read(true).write(true).open("/dev/fuse");
    require(device.is_ok(), "FUSE (/dev/fuse)")
}
