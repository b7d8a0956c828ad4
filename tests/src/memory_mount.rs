//! Invariant: neither the server nor its mount outlives its [`MemoryMount`].

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Mutex;

use tempfile::TempDir;

/// A volume in the memory of a process of its own (`src/bin/memory_volume.rs`), mounted.
#[derive(Debug)]
pub struct MemoryMount {
    child: Child,
    pipes: Mutex<Option<(ChildStdin, BufReader<ChildStdout>)>>,
    folder: TempDir,
}

impl MemoryMount {
    /// Mounts an image, given as paths and contents; `server` is the program. The VMM's own files lie in `own`, or in
    /// a temporary folder.
    ///
    /// # Panics
    /// If it can't be mounted.
    pub fn start(server: &str, image: &[(&str, Vec<u8>)], own: Option<&Path>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let files = folder.path().join("image");
        for (path, content) in image {
            let path = files.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        std::fs::create_dir(folder.path().join("mnt")).unwrap();
        let default_own = folder.path().join("own");
        let mut child = Command::new(server)
            .arg(folder.path().join("mnt"))
            .arg(own.unwrap_or(&default_own))
            .arg(&files)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let ready = next_line(&mut stdout);
        let mount = Self {
            child,
            pipes: Mutex::new(Some((stdin, stdout))),
            folder,
        };
        assert_eq!(ready, "ready");
        mount
    }

    /// Where it is mounted.
    pub fn directory(&self) -> PathBuf {
        self.folder.path().join("mnt")
    }

    /// Gives a command to the server and its answer.
    ///
    /// # Panics
    /// If the server does not understand it or has ended.
    pub fn ask(&self, command: &str) -> u64 {
        let mut pipes = self.pipes.lock().unwrap();
        let (stdin, stdout) = pipes.as_mut().unwrap();
        writeln!(stdin, "{command}").unwrap();
        next_line(stdout).parse().unwrap()
    }

    /// Ends the server as it ends by itself: it unmounts.
    pub fn end(&mut self) {
        if let Ok(pipes) = self.pipes.get_mut() {
            pipes.take();
        }
        // It gives up on a mount in use in 15 seconds.
        let _ = self.child.wait();
    }
}

impl Drop for MemoryMount {
    fn drop(&mut self) {
        self.end();
        crate::unmount(&self.directory());
    }
}

fn next_line(stdout: &mut BufReader<ChildStdout>) -> String {
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}
