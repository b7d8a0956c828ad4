//! Invariant: the setuid helper `fusermount3` is asked only for what this process may not do itself.

use std::io::{self, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};

use super::error::{MountError, MountErrorKind};

const HELPERS: [&str; 2] = ["fusermount3", "fusermount"];

/// Mounts through the helper, which opens the device, mounts it and hands it over.
pub(super) fn mount(
    directory: &Path,
    source: &str,
    allow_other: bool,
) -> Result<OwnedFd, MountError> {
    let shown = directory.display();
    let other = |error: io::Error| {
        let context = format!("fusermount3 could not be run to mount on {shown}");
        MountError::new(MountErrorKind::Other, context).because(error)
    };
    let (ours, theirs) = UnixStream::pair().map_err(other)?;
    let mut options = format!(
        "rw,nosuid,nodev,noatime,default_permissions,subtype=vmtorrent,fsname={}",
        escape(source)
    );
    if allow_other {
        options.push_str(",allow_other");
    }
    // The helper writes to the socket whose number the variable tells; as standard input it needs no
    // descriptor to be left open across the exec.
    let mut child = start(|command| {
        command
            .args(["-o", &options, "--"])
            .arg(directory)
            .env("_FUSE_COMMFD", "0")
            .stdin(OwnedFd::from(theirs.try_clone()?));
        Ok(())
    })
    .map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => MountError::new(
            MountErrorKind::NoPermission,
            "this user may not mount, and fusermount3 is not installed: install the package fuse3, or \
             run as root",
        ),
        _ => other(error),
    })?;
    drop(theirs);
    let device = receive(&ours);
    drop(ours);
    let complaint = finish(&mut child).map_err(other)?;
    match device.map_err(other)? {
        Some(device) => Ok(device),
        None => Err(explain(directory, &complaint)),
    }
}

/// Unmounts through the helper, with `lazy` also what is in use.
pub(super) fn unmount(directory: &Path, lazy: bool) -> io::Result<()> {
    let mut child = start(|command| {
        command.arg("-u").arg("-q");
        if lazy {
            command.arg("-z");
        }
        command.arg("--").arg(directory).stdin(Stdio::null());
        Ok(())
    })?;
    let complaint = finish(&mut child)?;
    if child.wait()?.success() {
        Ok(())
    } else {
        Err(io::Error::other(complaint))
    }
}

/// Starts the first helper that is there.
fn start(prepare: impl Fn(&mut Command) -> io::Result<()>) -> io::Result<Child> {
    let mut missing = io::Error::from(io::ErrorKind::NotFound);
    for helper in HELPERS {
        let mut command = Command::new(helper);
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        prepare(&mut command)?;
        match command.spawn() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => missing = error,
            started => return started,
        }
    }
    Err(missing)
}

/// Waits for the helper's end and gives what it complained of.
fn finish(child: &mut Child) -> io::Result<String> {
    let mut complaint = String::new();
    if let Some(stderr) = &mut child.stderr {
        stderr.read_to_string(&mut complaint)?;
    }
    child.wait()?;
    Ok(complaint.trim().to_owned())
}

/// Takes the device that the helper sends; `None` when it ends without.
fn receive(socket: &UnixStream) -> io::Result<Option<OwnedFd>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    loop {
        let target = &mut [IoSliceMut::new(&mut byte)];
        match rustix::net::recvmsg(socket, target, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Ok(_) => break,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let mut devices = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut sent) => sent.next(),
        _ => None,
    });
    Ok(devices.next())
}

fn explain(directory: &Path, complaint: &str) -> MountError {
    let shown = directory.display();
    let (kind, remedy) = if complaint.contains("user_allow_other") {
        (
            MountErrorKind::NoPermission,
            "set user_allow_other in /etc/fuse.conf, or don't ask for other users' access",
        )
    } else if complaint.contains("device not found") || complaint.contains("modprobe") {
        (
            MountErrorKind::NoFuse,
            "load the module (modprobe fuse), or give the container /dev/fuse",
        )
    } else if complaint.contains("ermission") || complaint.contains("not permitted") {
        (
            MountErrorKind::NoPermission,
            "name a directory of your own, allow the device, or run as root",
        )
    } else {
        (MountErrorKind::Other, "see what it says")
    };
    let context = format!("fusermount3 did not mount on {shown}: {remedy}");
    MountError::new(kind, context).because(io::Error::other(complaint.to_owned()))
}

/// Commas separate options.
fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace(',', "\\,")
}

/// Whether the tests can use the helper.
#[cfg(test)]
pub(super) fn is_installed() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| HELPERS.iter().any(|h| folder.join(h).exists()))
}
