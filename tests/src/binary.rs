//! Invariant: the binary under test is the one that was asked for; none is built here.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::PIECE;

/// A command line that starts with `vmtorrent`.
///
/// # Panics
/// If the binary was not built.
pub fn command() -> Command {
    let named = std::env::var_os("VMTORRENT_BIN").map(PathBuf::from);
    let path = named.unwrap_or_else(|| beside_the_tests("vmtorrent"));
    assert!(
        path.is_file(),
        "{} is missing: run `cargo build -p vmtorrent-cli`, or name a binary with VMTORRENT_BIN",
        path.display()
    );
    Command::new(path)
}

/// A command line that starts the peer on the stock `librqbit` engine.
///
/// # Panics
/// If the binary was not built.
pub fn librqbit_peer() -> Command {
    let path = beside_the_tests("librqbit_peer");
    assert!(
        path.is_file(),
        "{} is missing: run `cargo build -p vmtorrent-librqbit-peer`",
        path.display()
    );
    Command::new(path)
}

/// Test binaries lie in `target/PROFILE/deps`, the command one floor above.
pub(crate) fn beside_the_tests(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let profile = test.ancestors().nth(2).unwrap();
    profile.join(format!("{name}{}", std::env::consts::EXE_SUFFIX))
}

/// The same command line, allowed to have so many files and sockets open at once; as text, `SOFT:HARD`.
pub fn with_descriptors(command: &Command, limit: impl std::fmt::Display) -> Command {
    let mut limited = Command::new("prlimit");
    limited
        .arg(format!("--nofile={limit}"))
        .arg(command.get_program())
        .args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => limited.env(name, value),
            None => limited.env_remove(name),
        };
    }
    limited
}

/// Publishes an image in pieces of [`PIECE`] bytes, unless the options say otherwise: pieces of several blocks show more.
///
/// # Panics
/// If `vmtorrent publish` fails.
pub fn publish(image: &Path, torrent: &Path, options: &[&str]) {
    let mut command = command();
    command.arg("publish").arg(image).arg("-o").arg(torrent);
    if !options.contains(&"--piece-size") {
        command.args(["--piece-size", &PIECE.to_string()]);
    }
    let output = command.args(options).output().unwrap();
    assert!(
        output.status.success(),
        "publish: {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
}
