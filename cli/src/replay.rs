//! Invariant: nothing is read before the whole trace was found good, and latencies are those of reads alone.

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::Path;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::args::ReplayArgs;
use crate::failure::Failure;
use crate::units::Bytes;

/// What a line of a trace has to be.
const FORM: &str =
    "three numbers are expected, `think_us offset length`, for example `250 1048576 4096`";
/// Bytes of a line at most: a comment may name a file with a long path.
const MAX_LINE: u64 = 64 << 10;
/// Microseconds between two reads at most, so that no sum of them overflows: thirty years.
const MAX_THINK: u64 = 1_000_000_000_000_000;
/// Bytes of one read at most.
const MAX_LENGTH: u64 = 16 << 20;
/// Reads of a trace at most: 400 MB of memory.
const MAX_READS: usize = 1 << 23;
/// What O_DIRECT may want memory to be aligned to.
const PAGE: usize = 4096;

/// A line of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Step {
    /// What the guest does between the read before and this one.
    think: Duration,
    offset: u64,
    length: usize,
}

/// What a replay took. Times are seconds, or milliseconds where the name says so.
#[derive(Debug, Serialize)]
struct Report {
    event: &'static str,
    reads: usize,
    bytes: u64,
    wall_seconds: f64,
    /// The sum of all thinking, at the speed that was asked for.
    guest_seconds: f64,
    read_seconds: f64,
    p50_ms: f64,
    p99_ms: f64,
    max_ms: f64,
}

/// Reads what a trace says, and tells how long that took.
pub fn run(args: ReplayArgs) -> Result<ExitCode, Failure> {
    let mut disk = Disk::open(&args.disk)?;
    let steps = load(&args.trace, disk.length)?;
    let report = replay(&steps, &mut disk, args.speed, &args.disk)?;
    let told = if args.json {
        let line = serde_json::to_string(&report);
        line.map_err(|e| Failure::new(format!("the report can't be written as JSON: {e}")))?
    } else {
        report.to_string()
    };
    let written = writeln!(io::stdout().lock(), "{told}");
    written.map_err(|e| Failure::new(format!("writing the report to stdout: {e}")))?;
    Ok(ExitCode::SUCCESS)
}

/// Reads a trace of a disk of `disk_length` bytes.
fn load(path: &Path, disk_length: u64) -> Result<Vec<Step>, Failure> {
    let shown = path.display();
    let file = File::open(path)
        .map_err(|e| Failure::new(format!("the trace {shown}: {e} (check the name)")))?;
    parse(BufReader::new(file), disk_length)
        .map_err(|why| Failure::new(format!("the trace {shown}: {why}")))
}

fn parse(mut trace: impl BufRead, disk_length: u64) -> Result<Vec<Step>, String> {
    let mut steps = Vec::new();
    let mut line = Vec::new();
    for number in 1_u64.. {
        line.clear();
        let read = io::Read::take(&mut trace, MAX_LINE).read_until(b'\n', &mut line);
        read.map_err(|e| format!("line {number}: {e}"))?;
        if line.is_empty() {
            break;
        }
        let text = String::from_utf8_lossy(&line);
        let text = text.trim();
        if text.starts_with('#') && line.ends_with(b"\n") || text.is_empty() {
            continue;
        }
        if steps.len() == MAX_READS {
            return Err(format!(
                "line {number}: more than {MAX_READS} reads; replay it in parts"
            ));
        }
        steps.push(step(text, disk_length).map_err(|why| format!("line {number}: {why}"))?);
    }
    if steps.is_empty() {
        return Err(format!("it holds no read: on each line {FORM}"));
    }
    Ok(steps)
}

fn step(text: &str, disk_length: u64) -> Result<Step, String> {
    let words: Vec<&str> = text.split_whitespace().take(4).collect();
    let [think, offset, length] = words[..] else {
        return Err(format!("{} is no read: {FORM}", quoted(text)));
    };
    let number = |word: &str| -> Result<u64, String> {
        // `parse` takes a sign too.
        let digits = word.bytes().all(|b| b.is_ascii_digit());
        let value = word.parse().ok().filter(|_| digits);
        value.ok_or_else(|| format!("{} is no whole number: {FORM}", quoted(word)))
    };
    let (think, offset, length) = (number(think)?, number(offset)?, number(length)?);
    if think > MAX_THINK {
        return Err(format!(
            "{think} microseconds of thinking: at most {MAX_THINK} are expected"
        ));
    }
    if length == 0 || length > MAX_LENGTH {
        return Err(format!(
            "a read of {length} bytes: 1 to {MAX_LENGTH} are expected"
        ));
    }
    if offset
        .checked_add(length)
        .is_none_or(|end| end > disk_length)
    {
        return Err(format!(
            "{length} bytes at {offset} end behind the disk, which has {disk_length} bytes: \
             the trace of this disk's own image is expected"
        ));
    }
    Ok(Step {
        think: Duration::from_micros(think),
        offset,
        length: length as usize,
    })
}

/// A text from a file, as a message may show it.
fn quoted(text: &str) -> String {
    let short: String = text.chars().take(40).collect();
    let dots = if short.len() < text.len() { "..." } else { "" };
    format!("{short:?}{dots}")
}

/// Thinks and reads, one after the other, as a guest with a single request under way.
fn replay(steps: &[Step], disk: &mut Disk, speed: f64, path: &Path) -> Result<Report, Failure> {
    let began = Instant::now();
    let (mut guest, mut reading) = (Duration::ZERO, Duration::ZERO);
    let (mut latencies, mut bytes) = (Vec::with_capacity(steps.len()), 0);
    for step in steps {
        guest += step.think.div_f64(speed);
        // Sleep is coarse: what one took too long is taken from the next. What reads took is not made up for.
        let left = (guest + reading).saturating_sub(began.elapsed());
        if !left.is_zero() {
            thread::sleep(left);
        }
        let asked = Instant::now();
        disk.read(step.offset, step.length).map_err(|e| {
            let (length, offset) = (step.length, step.offset);
            let shown = path.display();
            Failure::new(format!(
                "reading {length} bytes at {offset} of {shown}: {e}"
            ))
        })?;
        let latency = asked.elapsed();
        reading += latency;
        latencies.push(latency);
        bytes += step.length as u64;
    }
    let wall = began.elapsed();
    latencies.sort_unstable();
    let milliseconds = |d: Duration| d.as_secs_f64() * 1000.0;
    Ok(Report {
        event: "done",
        reads: steps.len(),
        bytes,
        wall_seconds: wall.as_secs_f64(),
        guest_seconds: guest.as_secs_f64(),
        read_seconds: reading.as_secs_f64(),
        p50_ms: milliseconds(percentile(&latencies, 50)),
        p99_ms: milliseconds(percentile(&latencies, 99)),
        max_ms: milliseconds(latencies.last().copied().unwrap_or_default()),
    })
}

/// By nearest rank: the smallest value that at least so many per cent of all do not exceed.
fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

/// The disk that is read: past the page cache where its file system can do that.
struct Disk {
    direct: Option<File>,
    buffered: File,
    length: u64,
    buffer: Vec<u8>,
}

impl Disk {
    fn open(path: &Path) -> Result<Self, Failure> {
        let failed = |e| Failure::new(format!("the disk {}: {e} (check the name)", path.display()));
        let mut buffered = File::open(path).map_err(failed)?;
        // Of a block device too.
        let length = buffered.seek(SeekFrom::End(0)).map_err(failed)?;
        Ok(Self {
            direct: open_direct(path),
            buffered,
            length,
            buffer: Vec::new(),
        })
    }

    fn read(&mut self, offset: u64, length: usize) -> io::Result<()> {
        if self.buffer.len() < length + PAGE {
            self.buffer.resize(length + PAGE, 0);
        }
        let skip = self.buffer.as_ptr().align_offset(PAGE);
        let buffer = &mut self.buffer[skip..skip + length];
        if let Some(direct) = &self.direct {
            match read_exact_at(direct, buffer, offset) {
                // What O_DIRECT can't read there: the last bytes of a file, for one.
                Err(e) if e.kind() == io::ErrorKind::InvalidInput => {}
                done => return done,
            }
        }
        read_exact_at(&self.buffered, buffer, offset)
    }
}

#[cfg(target_os = "linux")]
fn open_direct(path: &Path) -> Option<File> {
    use std::os::unix::fs::OpenOptionsExt;
    let direct = rustix::fs::OFlags::DIRECT.bits().cast_signed();
    let mut options = File::options();
    options.read(true).custom_flags(direct).open(path).ok()
}

#[cfg(not(target_os = "linux"))]
fn open_direct(_path: &Path) -> Option<File> {
    None
}

#[cfg(unix)]
fn read_exact_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, buffer, offset)
}

#[cfg(not(unix))]
fn read_exact_at(mut file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    file.seek(SeekFrom::Start(offset))?;
    io::Read::read_exact(&mut file, buffer)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "reads  {}, {}\n\
             time   {:.3} s: the guest thought {:.3} s, reads took {:.3} s\n\
             a read p50 {:.3} ms, p99 {:.3} ms, most {:.3} ms",
            self.reads,
            Bytes(self.bytes),
            self.wall_seconds,
            self.guest_seconds,
            self.read_seconds,
            self.p50_ms,
            self.p99_ms,
            self.max_ms
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_reads_and_comments_are_not() {
        let trace = "# vmtorrent trace\n250 4096 512\n\n  0\t0 1  \n# x\n7 99 1";
        let steps = parse(trace.as_bytes(), 10_000).unwrap();
        let plain: Vec<_> = steps
            .iter()
            .map(|s| (s.think.as_micros(), s.offset, s.length))
            .collect();
        assert_eq!(plain, [(250, 4096, 512), (0, 0, 1), (7, 99, 1)]);
    }

    #[test]
    fn what_is_no_read_is_named_with_its_line_and_what_is_expected() {
        for (line, expected) in [
            ("1 2", "think_us offset length"),
            ("1 2 3 4", "think_us offset length"),
            ("-1 2 3", "\"-1\" is no whole number"),
            ("1 +2 3", "\"+2\" is no whole number"),
            ("1 2 x", "\"x\" is no whole number"),
            ("1 2 99999999999999999999999", "is no whole number"),
            ("1000000000000001 2 3", "at most 1000000000000000"),
            ("1 2 0", "0 bytes"),
            ("1 0 16777217", "1 to 16777216"),
            ("1 4096 1", "behind the disk, which has 4096 bytes"),
            ("1 4000 97", "behind the disk"),
            ("1 18446744073709551615 5", "behind the disk"),
            ("\u{1f}\u{fffd}", "\\u{1f}"),
        ] {
            let error = parse(format!("# a\n1 0 1\n{line}\n").as_bytes(), 4096).unwrap_err();
            assert!(error.starts_with("line 3: "), "{line}: {error}");
            assert!(error.contains(expected), "{line}: {error}");
        }
    }

    #[test]
    fn a_comment_may_be_as_long_as_the_path_of_a_file() {
        let trace = format!("# file \"{}\"\n1 0 1\n", "directory/".repeat(400));
        assert_eq!(parse(trace.as_bytes(), 1).unwrap().len(), 1);
    }

    #[test]
    fn a_line_without_end_costs_no_memory() {
        for byte in [0, b'#', b'7'] {
            let error = parse(BufReader::new(io::repeat(byte)), 1).unwrap_err();
            assert!(error.starts_with("line 1: "), "{error}");
            assert!(error.len() < 500, "{error}");
        }
        assert!(parse(&b"# nothing\n"[..], 1).is_err());
    }

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let sorted: Vec<_> = (1..=200).map(Duration::from_millis).collect();
        assert_eq!(percentile(&sorted, 50).as_millis(), 100);
        assert_eq!(percentile(&sorted, 99).as_millis(), 198);
        assert_eq!(percentile(&sorted[..1], 99).as_millis(), 1);
        assert_eq!(percentile(&[], 50), Duration::ZERO);
    }

    #[test]
    fn thinking_takes_its_time_and_speed_divides_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("disk");
        std::fs::write(&path, [7; 10_000]).unwrap();
        let mut disk = Disk::open(&path).unwrap();
        assert_eq!(disk.length, 10_000);
        let trace = "30000 0 4096\n30000 4096 4096\n0 9999 1\n30000 1 3";
        let steps = parse(trace.as_bytes(), disk.length).unwrap();
        for (speed, guest) in [(1.0, 0.09), (9.0, 0.01)] {
            let report = replay(&steps, &mut disk, speed, &path).unwrap();
            assert!((report.guest_seconds - guest).abs() < 1e-6, "{report:?}");
            assert!(report.wall_seconds >= guest, "{report:?}");
            assert!(report.read_seconds <= report.wall_seconds - guest + 0.001);
            assert_eq!((report.reads, report.bytes), (4, 8196));
            assert!(report.max_ms >= report.p99_ms && report.p99_ms >= report.p50_ms);
        }
    }
}
