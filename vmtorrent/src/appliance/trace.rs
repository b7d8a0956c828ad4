//! Invariant: noting a read never waits for anything, what waits to be written is bounded, and a disk that fails ends
//! the trace and nothing else.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, Span};

use super::counters::Counters;
use crate::clock::{SystemClock, Time};
use crate::error::{Error, Result};
use crate::image::{Image, ImageFile};

/// Reads that may wait to be written: 2 MiB of memory at most.
const WAITING: usize = 1 << 16;
/// Bytes of text that are written at once.
const CHUNK: usize = 64 << 10;
/// The longest that a read stays in memory alone.
const PERIOD: Duration = Duration::from_secs(2);

/// A guest's reads of a disk, written to a text file as they come: for each read a line
/// `think_us offset length`, where think_us is the guest time since the read before.
///
/// Lines that begin with `#` tell a person what the file is.
pub(crate) struct Trace {
    reads: Sender<Read>,
    /// Reads that came while too many waited, and that no line tells of yet.
    lost: Arc<AtomicU64>,
    counters: Arc<Counters>,
    clock: SystemClock,
    began: Time,
    end: CancellationToken,
    writer: Mutex<Option<JoinHandle<()>>>,
}

struct Read {
    /// Guest time of its arrival, microseconds.
    at: u64,
    offset: u64,
    length: u64,
}

impl Trace {
    /// Begins a trace of one file of an image, in place of what `path` held; the clock runs from now on. Waits for the
    /// disk. `span` names the appliance in the log.
    pub(crate) fn start(
        path: &Path,
        image: &Image,
        traced: &ImageFile,
        counters: Arc<Counters>,
        clock: SystemClock,
        runtime: &Handle,
        span: &Span,
    ) -> Result<Self> {
        let failed = |e| Error::io(format!("writing the trace {}", path.display()), e);
        let mut file = File::create(path).map_err(failed)?;
        file.write_all(heading(image, traced).as_bytes())
            .map_err(failed)?;
        let (reads, receiver) = channel(WAITING);
        let (lost, end) = (Arc::default(), CancellationToken::new());
        let writer = Writer {
            path: path.to_owned(),
            file: Arc::new(file),
            reads: receiver,
            lost: Arc::clone(&lost),
            text: String::new(),
            last: 0,
        };
        let writing = runtime.spawn(writer.run(end.clone()).instrument(span.clone()));
        Ok(Self {
            reads,
            lost,
            counters,
            began: clock.now(),
            clock,
            end,
            writer: Mutex::new(Some(writing)),
        })
    }

    /// Guest time so far, microseconds: what [`note`](Self::note) takes.
    pub(crate) fn now(&self) -> u64 {
        self.counters.guest_micros(self.began, self.clock.now())
    }

    /// A read arrived, at this guest time.
    pub(crate) fn note(&self, at: u64, offset: u64, length: u64) {
        let read = Read { at, offset, length };
        if let Err(TrySendError::Full(_)) = self.reads.try_send(read) {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Ends the trace: when this returns, all that was noted is in the file, unless its disk failed.
    pub(crate) async fn finish(&self) {
        self.end.cancel();
        let writer = self.writer.lock().take();
        if let Some(writer) = writer {
            // It was aborted only if the runtime ends, and then there is nobody to tell.
            let _ = writer.await;
        }
    }
}

/// What stands above the reads; a name can't break a line.
fn heading(image: &Image, file: &ImageFile) -> String {
    format!(
        "# vmtorrent trace 1: think_us offset length\n# image {:?}, info-hash {}, file {:?}\n",
        image.name(),
        image.info_hash(),
        file.path.join("/")
    )
}

struct Writer {
    path: PathBuf,
    file: Arc<File>,
    reads: Receiver<Read>,
    lost: Arc<AtomicU64>,
    text: String,
    /// Guest time of the last read that was written.
    last: u64,
}

impl Writer {
    async fn run(mut self, end: CancellationToken) {
        if let Err(error) = self.write_all(end).await {
            tracing::error!(%error, path = %self.path.display(), "the trace ends here: its file can't be written");
        }
    }

    async fn write_all(&mut self, end: CancellationToken) -> std::io::Result<()> {
        let mut lost = 0;
        let mut batch = Vec::new();
        let mut ticks = tokio::time::interval(PERIOD);
        let mut ending = false;
        loop {
            let due = tokio::select! {
                received = self.reads.recv_many(&mut batch, 1024) => {
                    if received == 0 {
                        break;
                    }
                    false
                }
                _ = ticks.tick() => true,
                () = end.cancelled(), if !ending => {
                    // What is in the channel still comes.
                    self.reads.close();
                    ending = true;
                    false
                }
            };
            lost += self.add(&mut batch);
            if due || self.text.len() >= CHUNK {
                self.write_out().await?;
            }
        }
        lost += self.add(&mut batch);
        self.write_out().await?;
        if lost > 0 {
            tracing::warn!(lost, path = %self.path.display(), "the trace lacks reads: its disk was too slow");
        }
        Ok(())
    }

    /// Makes lines of reads, and gives the number of those that were lost since it was last called.
    fn add(&mut self, batch: &mut Vec<Read>) -> u64 {
        for read in batch.drain(..) {
            // Reads of two threads may come in the other order.
            let think = read.at.saturating_sub(self.last);
            self.last = self.last.max(read.at);
            // Writing to a string does not fail.
            let _ = writeln!(self.text, "{think} {} {}", read.offset, read.length);
        }
        let lost = self.lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let _ = writeln!(self.text, "# {lost} reads are missing here");
        }
        lost
    }

    async fn write_out(&mut self) -> std::io::Result<()> {
        if self.text.is_empty() {
            return Ok(());
        }
        let (file, text) = (Arc::clone(&self.file), std::mem::take(&mut self.text));
        let write = move || (&*file).write_all(text.as_bytes());
        tokio::task::spawn_blocking(write)
            .await
            .map_err(std::io::Error::other)?
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_image::image_of;

    fn start(path: &Path) -> Result<Trace> {
        let image = image_of(&[3; 200_000], 16 << 10);
        let counters = Arc::new(Counters::new(200_000));
        let runtime = Handle::current();
        Trace::start(
            path,
            &image,
            &image.files()[0],
            counters,
            SystemClock::start(),
            &runtime,
            &Span::none(),
        )
    }

    fn lines(path: &Path) -> Vec<String> {
        let text = std::fs::read_to_string(path).unwrap();
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines.map(str::to_owned).collect()
    }

    #[tokio::test]
    async fn each_read_is_a_line_with_the_guest_time_since_the_one_before() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("trace");
        std::fs::write(&path, "what was there before").unwrap();
        let trace = start(&path).unwrap();
        // The third comes late.
        for (at, offset) in [(100, 0), (350, 8192), (340, 512), (1_000, 4096)] {
            trace.note(at, offset, 4096);
        }
        trace.finish().await;
        // Nobody listens any more.
        trace.note(2_000, 0, 1);
        trace.finish().await;
        let expected = ["100 0 4096", "250 8192 4096", "0 512 4096", "650 4096 4096"];
        assert_eq!(lines(&path), expected);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(
            text.starts_with("# vmtorrent trace 1: think_us offset length\n"),
            "{text}"
        );
    }

    /// The writer has no thread to run on before the test waits for it.
    #[tokio::test]
    async fn what_waits_is_bounded_and_the_file_tells_what_it_lacks() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("trace");
        let trace = start(&path).unwrap();
        for n in 0..WAITING as u64 + 7 {
            trace.note(n, n, 1);
        }
        trace.finish().await;
        assert_eq!(lines(&path).len(), WAITING);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains("# 7 reads are missing here\n"));
    }

    #[tokio::test]
    async fn a_disk_that_fails_ends_the_trace_alone() {
        let trace = start(Path::new("/dev/full"));
        // Its heading could not be written: a launch that can't trace says so at once.
        let error = trace.err().unwrap().to_string();
        assert!(error.contains("/dev/full"), "{error}");

        let directory = tempfile::tempdir().unwrap();
        let (reads, receiver) = channel(8);
        let end = CancellationToken::new();
        let writer = Writer {
            path: directory.path().join("trace"),
            file: Arc::new(File::options().write(true).open("/dev/full").unwrap()),
            reads: receiver,
            lost: Arc::default(),
            text: String::new(),
            last: 0,
        };
        let writing = tokio::spawn(writer.run(end.clone()));
        let read = || Read {
            at: 1,
            offset: 2,
            length: 3,
        };
        reads.send(read()).await.unwrap();
        reads.closed().await;
        writing.await.unwrap();
        assert!(matches!(
            reads.try_send(read()),
            Err(TrySendError::Closed(_))
        ));
    }
}
