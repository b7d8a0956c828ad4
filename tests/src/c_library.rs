//! Invariant: C programs of a test are built without a warning against the library that was asked for; none is built here.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{binary, require};

/// `libvmtorrent` as C programs find it before it is installed.
///
/// It must have been built (`cargo build -p vmtorrent-ffi`) or be named by `VMTORRENT_LIB`.
#[derive(Clone, Debug)]
pub struct CLibrary {
    path: PathBuf,
}

impl CLibrary {
    /// The library, where C programs can be built.
    ///
    /// # Panics
    /// If the library was not built; if there is no compiler and `VMTORRENT_REQUIRE` is set.
    pub fn find() -> Option<Self> {
        let compiler = Command::new("cc").arg("--version").output().is_ok();
        if !require(compiler, "a C compiler (cc)") {
            return None;
        }
        let named = std::env::var_os("VMTORRENT_LIB").map(PathBuf::from);
        let path = named.unwrap_or_else(|| binary::beside_the_tests("libvmtorrent_ffi.so"));
        assert!(
            path.is_file(),
            "{} is missing: run `cargo build -p vmtorrent-ffi`, or name a library with VMTORRENT_LIB",
            path.display()
        );
        Some(Self { path })
    }

    /// The shared library.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A copy in another directory, for who may not see this one.
    ///
    /// # Panics
    /// If it can't be written.
    #[must_use]
    pub fn copy_to(&self, directory: &Path) -> Self {
        let path = directory.join("libvmtorrent.so");
        std::fs::copy(&self.path, &path).unwrap();
        Self { path }
    }

    /// Builds a program, or with `-shared` among the options a module, that loads this library from where it is.
    ///
    /// # Panics
    /// If the compiler has anything to say.
    pub fn compile(&self, source: &Path, output: &Path, options: &[&str]) {
        let mut command = compiler(source, output);
        // By its path: it has no soname.
        command.args(options).arg("-I").arg(repository("include"));
        command.arg(&self.path);
        built(&mut command);
    }
}

/// A compiler's command line, with every warning an error.
#[must_use]
pub fn compiler(source: &Path, output: &Path) -> Command {
    let mut command = Command::new("cc");
    command.args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-pedantic"]);
    command
        .args(["-g", "-pthread", "-o"])
        .arg(output)
        .arg(source);
    command
}

/// Runs a compiler.
///
/// # Panics
/// If it fails.
pub fn built(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A file of this repository.
#[must_use]
pub fn repository(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name)
}
