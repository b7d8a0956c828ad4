//! Invariant: what stood in a console when its process ended is read, unless something else still writes to it.

use std::fs;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::console::ConsoleLog;
use super::process::Output;
use crate::error::{Error, Result};

/// How long the console may take to end behind its process: something else may hold the pipe.
const CONSOLE_REST: Duration = Duration::from_secs(1);

/// How often a console's file is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// The thread that reads a console.
pub(super) struct ConsoleReader {
    ended: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl ConsoleReader {
    /// Of a pipe.
    pub(super) fn pipe(mut pipe: io::PipeReader, logs: Vec<Arc<ConsoleLog>>) -> Result<Self> {
        Self::start(move |_| {
            let mut buffer = [0; 8192];
            loop {
                match pipe.read(&mut buffer) {
                    Ok(0) => return,
                    Ok(n) => {
                        for log in &logs {
                            log.push(&buffer[..n]);
                        }
                    }
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    Err(e) => {
                        tracing::warn!("reading the VMM's output: {e}");
                        return;
                    }
                }
            }
        })
    }

    /// Of a file that the VMM writes; a person sees it too.
    pub(super) fn file(path: PathBuf, log: Arc<ConsoleLog>, output: Output) -> Result<Self> {
        Self::start(move |ended| {
            let mut at = 0;
            loop {
                // Asked before, so that what was written until then is read.
                let last = ended.load(Ordering::Acquire);
                match read_on(&path, &mut at) {
                    Ok(bytes) if !bytes.is_empty() => {
                        log.push(&bytes);
                        // Whoever closed our output does not want it.
                        let _ = match output {
                            Output::Inherit => io::stdout()
                                .write_all(&bytes)
                                .and_then(|()| io::stdout().flush()),
                            Output::Stderr => io::stderr().write_all(&bytes),
                            Output::Piped => Ok(()),
                        };
                    }
                    Ok(_) => {}
                    Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                    Err(e) => {
                        tracing::warn!("reading the console in {}: {e}", path.display());
                        return;
                    }
                }
                if last {
                    return;
                }
                std::thread::sleep(LOOK);
            }
        })
    }

    fn start(read: impl FnOnce(&AtomicBool) + Send + 'static) -> Result<Self> {
        let ended = Arc::new(AtomicBool::new(false));
        let told = ended.clone();
        let thread = std::thread::Builder::new().name("vmtorrent-console".to_owned());
        let thread = thread.spawn(move || read(&told));
        Ok(Self {
            ended,
            thread: thread.map_err(|e| Error::io("start a thread for the console", e))?,
        })
    }

    /// Lets it read what is left. One that something else still writes to is left alone.
    pub(super) fn finish(self) {
        self.ended.store(true, Ordering::Release);
        let until = Instant::now() + CONSOLE_REST;
        while !self.thread.is_finished() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// What stands in a file behind a place, at most a MiB.
fn read_on(path: &Path, at: &mut u64) -> io::Result<Vec<u8>> {
    let mut file = fs::File::open(path)?;
    file.seek(SeekFrom::Start(*at))?;
    let mut bytes = Vec::new();
    file.take(1 << 20).read_to_end(&mut bytes)?;
    *at += bytes.len() as u64;
    Ok(bytes)
}
