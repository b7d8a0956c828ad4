//! Reading of a disk what a trace says, at the guest's pace: a guest that costs next to nothing.
//!
//! A trace is a text with a line `think_us offset length` for each read: for think_us microseconds the guest does something
//! else, then it reads length bytes at offset. Lines that begin with # are comments.
//! [`ApplianceOptions::trace`](crate::ApplianceOptions::trace) writes one.
//!
//! Invariant: nothing is read before the whole trace was found good, and latencies are those of reads alone.

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek, SeekFrom};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::chart::Bytes;
use crate::error::{Error, ErrorKind, Result};

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

/// What a replay took.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Replayed {
    /// Number of reads.
    pub reads: u64,
    /// Bytes that were read.
    pub bytes: u64,
    /// Time from the begin to the end.
    pub wall: Duration,
    /// The sum of all thinking, at the speed that was asked for.
    pub thought: Duration,
    /// The sum of the times that reads took.
    pub reading: Duration,
    /// Median time of a read.
    pub p50: Duration,
    /// 99th percentile of these times.
    pub p99: Duration,
    /// The longest of them.
    pub max: Duration,
}

/// The longest that nobody is asked whether to go on, but for a read.
const PAUSE: Duration = Duration::from_millis(50);

/// Reads of `disk`, a file or a block device, what the file `trace` says: one read at a time, past the page cache where
/// the file system can do that. `speed` divides the time in which the guest thinks. `go_on` is asked again and again;
/// when it says no, the rest is left out and `None` is given. Waits for all of it: call it in a thread of its own.
///
/// # Errors
/// [`ErrorKind::InvalidInput`] when the trace is none, or is of a longer disk (the message names the line), or when the
/// speed is not from 0.001 to 1,000,000; else what the system reports of both files.
pub fn replay(
    trace: &Path,
    disk: &Path,
    speed: f64,
    mut go_on: impl FnMut() -> bool,
) -> Result<Option<Replayed>> {
    if !(1e-3..=1e6).contains(&speed) {
        let text = format!("{speed} is no speed: give a number from 0.001 to 1000000");
        return Err(Error::new(ErrorKind::InvalidInput, text));
    }
    let mut opened = Disk::open(disk)?;
    let steps = load(trace, opened.length)?;
    play(&steps, &mut opened, speed, disk, &mut go_on)
}

/// Reads a trace of a disk of `disk_length` bytes.
fn load(path: &Path, disk_length: u64) -> Result<Vec<Step>> {
    let shown = path.display();
    let file = File::open(path).map_err(|e| Error::io(format!("the trace {shown}"), e))?;
    parse(BufReader::new(file), disk_length)
        .map_err(|why| Error::new(ErrorKind::InvalidInput, format!("the trace {shown}: {why}")))
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
fn play(
    steps: &[Step],
    disk: &mut Disk,
    speed: f64,
    path: &Path,
    go_on: &mut dyn FnMut() -> bool,
) -> Result<Option<Replayed>> {
    let began = Instant::now();
    let (mut thought, mut reading) = (Duration::ZERO, Duration::ZERO);
    let (mut latencies, mut bytes) = (Vec::with_capacity(steps.len()), 0);
    for step in steps {
        thought += step.think.div_f64(speed);
        loop {
            if !go_on() {
                return Ok(None);
            }
            // Sleep is coarse: what one took too long is taken from the next. What reads took is not made up for.
            let left = (thought + reading).saturating_sub(began.elapsed());
            if left.is_zero() {
                break;
            }
            thread::sleep(left.min(PAUSE));
        }
        let asked = Instant::now();
        disk.read(step.offset, step.length).map_err(|e| {
            let (length, offset) = (step.length, step.offset);
            let shown = path.display();
            Error::io(format!("reading {length} bytes at {offset} of {shown}"), e)
        })?;
        let latency = asked.elapsed();
        reading += latency;
        latencies.push(latency);
        bytes += step.length as u64;
    }
    let wall = began.elapsed();
    latencies.sort_unstable();
    Ok(Some(Replayed {
        reads: steps.len() as u64,
        bytes,
        wall,
        thought,
        reading,
        p50: percentile(&latencies, 50),
        p99: percentile(&latencies, 99),
        max: latencies.last().copied().unwrap_or_default(),
    }))
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
    fn open(path: &Path) -> Result<Self> {
        let failed = |e| Error::io(format!("the disk {}", path.display()), e);
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

impl fmt::Display for Replayed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let milliseconds = |d: Duration| d.as_secs_f64() * 1000.0;
        write!(
            f,
            "reads  {}, {}\n\
             time   {:.3} s: the guest thought {:.3} s, reads took {:.3} s\n\
             a read p50 {:.3} ms, p99 {:.3} ms, most {:.3} ms",
            self.reads,
            Bytes(self.bytes),
            self.wall.as_secs_f64(),
            self.thought.as_secs_f64(),
            self.reading.as_secs_f64(),
            milliseconds(self.p50),
            milliseconds(self.p99),
            milliseconds(self.max)
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
            let played = play(&steps, &mut disk, speed, &path, &mut || true);
            let played = played.unwrap().unwrap();
            let guest = Duration::from_secs_f64(guest);
            assert!(played.thought.abs_diff(guest).as_micros() < 2, "{played:?}");
            assert!(played.wall >= played.thought, "{played:?}");
            assert!(played.reading <= played.wall - played.thought + Duration::from_millis(1));
            assert_eq!((played.reads, played.bytes), (4, 8196));
            assert!(played.max >= played.p99 && played.p99 >= played.p50);
        }
    }

    #[test]
    fn it_is_given_up_within_a_long_thought_and_no_speed_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let (trace, disk) = (
            directory.path().join("trace"),
            directory.path().join("disk"),
        );
        std::fs::write(&disk, [7; 100]).unwrap();
        std::fs::write(&trace, "0 0 10\n60000000 0 10\n").unwrap();
        let mut asked = 0;
        let go_on = || {
            asked += 1;
            asked < 4
        };
        assert_eq!(replay(&trace, &disk, 1.0, go_on).unwrap(), None);
        for speed in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let error = replay(&trace, &disk, speed, || true).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
        }
    }
}
