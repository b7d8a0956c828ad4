//! Invariant: what the system does not tell is left out, never guessed.

use super::exposition::Exposition;
#[cfg(target_os = "linux")]
use super::exposition::Labels;

/// Adds the figures of this process, under the names that all Prometheus clients use for them. Linux only.
#[cfg(not(target_os = "linux"))]
pub(super) fn write(_page: &mut Exposition) {}

/// Adds the figures of this process, under the names that all Prometheus clients use for them.
#[cfg(target_os = "linux")]
pub(super) fn write(page: &mut Exposition) {
    use rustix::process::{Resource, getrlimit};
    let none = Labels::none();
    let ticks = rustix::param::clock_ticks_per_second() as f64;
    let page_size = rustix::param::page_size() as u64;
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    if let Some(stat) = Stat::parse(&stat) {
        page.counter(
            "process_cpu_seconds_total",
            "Processor time of this process, user and system.",
        )
        .sample(&none, stat.cpu_ticks as f64 / ticks);
        page.gauge(
            "process_resident_memory_bytes",
            "Memory of this process that is in RAM.",
        )
        .sample(&none, stat.resident_pages * page_size);
        page.gauge(
            "process_virtual_memory_bytes",
            "Address space of this process.",
        )
        .sample(&none, stat.virtual_bytes);
        if let Some(boot) = boot_time() {
            let start = boot as f64 + stat.start_ticks as f64 / ticks;
            page.gauge(
                "process_start_time_seconds",
                "When this process was started, seconds since 1970-01-01 UTC.",
            )
            .sample(&none, start);
        }
    }
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        // One of them is the directory's own.
        let open = (open.count() as u64).saturating_sub(1);
        page.gauge("process_open_fds", "Open file descriptors.")
            .sample(&none, open);
    }
    if let Some(most) = getrlimit(Resource::Nofile).current {
        page.gauge("process_max_fds", "File descriptors that may be open.")
            .sample(&none, most);
    }
}

/// When the system was started, seconds since 1970.
#[cfg(target_os = "linux")]
fn boot_time() -> Option<u64> {
    let stat = std::fs::read_to_string("/proc/stat").ok()?;
    let line = stat.lines().find_map(|l| l.strip_prefix("btime "))?;
    line.trim().parse().ok()
}

/// What `/proc/self/stat` tells (proc_pid_stat(5)).
#[cfg(target_os = "linux")]
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    cpu_ticks: u64,
    start_ticks: u64,
    virtual_bytes: u64,
    resident_pages: u64,
}

#[cfg(target_os = "linux")]
impl Stat {
    fn parse(text: &str) -> Option<Self> {
        // The program's name may hold anything; the last parenthesis ends it. What follows is field 3 and on.
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        Some(Self {
            cpu_ticks: number(14)? + number(15)?,
            start_ticks: number(22)?,
            virtual_bytes: number(23)?,
            resident_pages: number(24)?,
        })
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_program_of_any_name_is_read() {
        let text = "7 (a ) b) S 1 2 3 4 5 6 7 8 9 10 110 22 13 14 15 16 17 18 5000 4096000 250 1 2";
        let expected = Stat {
            cpu_ticks: 132,
            start_ticks: 5000,
            virtual_bytes: 4_096_000,
            resident_pages: 250,
        };
        assert_eq!(Stat::parse(text), Some(expected));
        assert_eq!(Stat::parse("7 (cut) S 1"), None);
        assert_eq!(Stat::parse(""), None);
    }

    #[test]
    fn this_process_has_all_figures() {
        let mut page = Exposition::default();
        write(&mut page);
        let page = page.into_text();
        for name in [
            "cpu_seconds_total",
            "resident_memory_bytes",
            "open_fds",
            "max_fds",
        ] {
            let line = page
                .lines()
                .find_map(|l| l.strip_prefix(&format!("process_{name} ")));
            assert!(line.unwrap().parse::<f64>().unwrap() >= 0.0, "{page}");
        }
    }
}
