//! Invariant: figures come from the kernel (`/proc`), not from the process that is looked at.

use std::path::PathBuf;

/// Resident bytes of a process now.
///
/// # Panics
/// If it has ended.
pub fn resident(pid: u32) -> u64 {
    status(pid, "VmRSS:")
}

/// The most that it had resident since [`reset_peak`] (or its start), bytes.
///
/// # Panics
/// If it has ended.
pub fn peak(pid: u32) -> u64 {
    status(pid, "VmHWM:")
}

/// Begins the count of [`peak`] anew.
///
/// # Panics
/// If the process is not ours.
pub fn reset_peak(pid: u32) {
    // proc(5): 5 resets the peak resident set size to the current one.
    std::fs::write(file(pid, "clear_refs"), "5").unwrap();
}

fn status(pid: u32, field: &str) -> u64 {
    let text = std::fs::read_to_string(file(pid, "status")).unwrap();
    let line = text.lines().find_map(|l| l.strip_prefix(field));
    let kib = line.and_then(|l| l.split_whitespace().next()).unwrap();
    kib.parse::<u64>().unwrap() * 1024
}

fn file(pid: u32, name: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_touched_is_in_the_peak() {
        let pid = std::process::id();
        reset_peak(pid);
        let before = resident(pid);
        let touched = std::hint::black_box(vec![1_u8; 32 << 20]);
        assert!(peak(pid) >= before + (24 << 20));
        drop(touched);
    }
}
