//! Invariant: C programs of a test are built without a warning against the library that was asked for; none is built here.

use std::ffi::OsString;
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
        // What is linked with an installed one asks for it by its soname.
        let name = self.soname().unwrap_or("libvmtorrent.so".to_owned());
        let path = directory.join(name);
        std::fs::copy(&self.path, &path).unwrap();
        Self { path }
    }

    /// Builds a program, or with `-shared` among the options a module, that loads this library from where it is.
    ///
    /// # Panics
    /// If the compiler has anything to say.
    pub fn compile(&self, source: &Path, output: &Path, options: &[&str]) {
        let mut command = compiler(source, output);
        command.args(options).arg("-I").arg(repository("include"));
        // By its path as long as it has no soname, which an installed one has.
        command.arg(&self.path);
        let mut rpath = OsString::from("-Wl,-rpath,");
        rpath.push(self.path.parent().unwrap());
        command.arg(rpath);
        built(&mut command);
    }

    /// By which name programs ask for it, if it has one.
    fn soname(&self) -> Option<String> {
        let told = Command::new("objdump").arg("-p").arg(&self.path).output();
        let told = told.unwrap().stdout;
        let told = String::from_utf8_lossy(&told);
        let mut names = told
            .lines()
            .filter_map(|line| line.trim().strip_prefix("SONAME"));
        Some(names.next()?.trim().to_owned())
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
