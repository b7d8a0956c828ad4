//! Invariant: the descriptor is readable exactly while the signal is raised.

use std::ffi::c_int;
use std::io;

/// A descriptor that others can wait for.
#[cfg(unix)]
pub(crate) struct Signal {
    reader: std::os::unix::net::UnixStream,
    writer: std::os::unix::net::UnixStream,
    raised: std::sync::Mutex<bool>,
}

#[cfg(unix)]
impl Signal {
    pub(crate) fn new() -> io::Result<Self> {
        let (reader, writer) = std::os::unix::net::UnixStream::pair()?;
        reader.set_nonblocking(true)?;
        writer.set_nonblocking(true)?;
        Ok(Self {
            reader,
            writer,
            raised: std::sync::Mutex::new(false),
        })
    }

    fn raised(&self) -> std::sync::MutexGuard<'_, bool> {
        self.raised
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub(crate) fn raise(&self) {
        let mut raised = self.raised();
        // One byte: there is always room for it.
        if !*raised && io::Write::write(&mut &self.writer, &[1]).is_ok() {
            *raised = true;
        }
    }

    pub(crate) fn lower(&self) {
        let mut raised = self.raised();
        if *raised && io::Read::read(&mut &self.reader, &mut [0]).is_ok() {
            *raised = false;
        }
    }

    pub(crate) fn descriptor(&self) -> c_int {
        std::os::fd::AsRawFd::as_raw_fd(&self.reader)
    }
}

/// There is none here.
#[cfg(not(unix))]
pub(crate) struct Signal;

#[cfg(not(unix))]
impl Signal {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self)
    }

    pub(crate) fn raise(&self) {}

    pub(crate) fn lower(&self) {}

    pub(crate) fn descriptor(&self) -> c_int {
        -1
    }
}
