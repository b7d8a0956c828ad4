//! C programs on the library: the one of the documentation, the smallest embedder, and what cargo-c installs.
#![expect(
    clippy::unwrap_used,
    reason = "a helper that can't go on fails the test"
)]

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tempfile::TempDir;
use vmtorrent_tests::appliance::run;
use vmtorrent_tests::c_library::{built, compiler, repository};
use vmtorrent_tests::{CLibrary, Daemon, PIECE, Reference, fuse, publish, require, seed};

const PATIENCE: Duration = Duration::from_secs(60);
const FIRST_MIB: usize = 1 << 20;

struct Stage {
    dir: TempDir,
    image: Reference,
    torrent: PathBuf,
    source: Daemon,
}

impl Stage {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let original = dir.path().join("disk.img");
        let image = Reference::new(40 * PIECE, 13);
        image.write_to(&original);
        let torrent = dir.path().join("disk.torrent");
        publish(&original, &torrent, &[]);
        let source = seed(&torrent, dir.path(), &[]);
        Self {
            dir,
            image,
            torrent,
            source,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A program with the source and the options of a host of its own.
    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.arg(&self.torrent);
        command.arg(format!("cache={}", self.path("cache").display()));
        command.arg(format!("state={}", self.path("state").display()));
        command.arg(format!("peer={}", self.source.listen()));
        command.args(["listen=127.0.0.1:0", "discovery=false", "fill=none"]);
        command
    }

    /// Writes the program of docs/c-api.md to a file.
    fn documented(&self) -> PathBuf {
        let text = fs::read_to_string(repository("docs/c-api.md")).unwrap();
        let mut blocks = text.split("\n```c\n").skip(1);
        let program = blocks.next().unwrap().split("\n```\n").next().unwrap();
        assert!(blocks.next().is_none(), "there is more than one program");
        let source = self.path("first-mib.c");
        fs::write(&source, format!("{program}\n")).unwrap();
        source
    }

    /// Runs the documentation's program and looks at what it gives.
    fn first_mib(&self, program: &Path) {
        let output = self.command(program).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{stderr}");
        assert!(
            output.stdout == self.image.bytes()[..FIRST_MIB],
            "it gives other bytes"
        );
        assert!(
            stderr.contains(&format!(" of {} bytes were fetched", 40 * PIECE)),
            "{stderr}"
        );
    }
}

#[test]
fn the_program_of_the_documentation_runs_as_it_stands() {
    let Some(library) = CLibrary::find() else {
        return;
    };
    let mut stage = Stage::new();
    let program = stage.path("first-mib");
    library.compile(&stage.documented(), &program, &[]);
    stage.first_mib(&program);

    // Its ways out.
    let told = |output: Output, text: &str| {
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(output.stdout.is_empty());
        assert!(stderr.contains(text), "{stderr}");
    };
    told(
        stage.command(&program).arg("fill=some").output().unwrap(),
        "none, idle or full",
    );
    told(
        Command::new(&program).arg("none.torrent").output().unwrap(),
        "none.torrent",
    );
    stage.source.kill();
    let mut command = stage.command(&program);
    // The event is there once TCP is refused: a try over uTP would take about as long as the reads wait.
    command
        .args(["cache=none", "read-timeout=4", "utp=false"])
        .current_dir(stage.dir.path());
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    told(output, "read at 0: ");
    assert!(stderr.contains("event: "), "{stderr}");
}

#[test]
fn the_smallest_embedder_runs_a_vmm_on_a_disk_and_tells_the_cost() {
    let Some(library) = CLibrary::find() else {
        return;
    };
    if !fuse() {
        return;
    }
    let stage = Stage::new();
    let program = stage.path("boot");
    library.compile(&repository("ffi/examples/boot.c"), &program, &[]);
    let boot = |script: &str| {
        let mut command = stage.command(&program);
        command.args(["--", "sh", "-c", script, "sh", "{disk}", "at={dir}"]);
        command
    };
    let original = stage.path("disk.img");
    let script = format!(
        "cmp \"$1\" {} && echo \"$1 $2\" && printf new | dd of=\"$1\" conv=notrunc status=none; exit 7",
        original.display()
    );
    let output = boot(&script).output().unwrap();
    let (stdout, stderr) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert_eq!(output.status.code(), Some(7), "{stderr}");
    let (disk, directory) = stdout.trim().split_once(" at=").unwrap();
    assert_eq!(disk, format!("{directory}/disk.img"));
    assert!(!Path::new(directory).exists(), "its mount is left");
    assert!(
        stderr.contains("boot: the guest read 2.5 MiB and wrote 0.0 MiB"),
        "{stderr}"
    );
    // What it wrote is there the next time.
    let output = boot("test \"$(head -c 3 \"$1\")\" = new").output().unwrap();
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );

    assert_eq!(
        boot("kill -KILL $$").output().unwrap().status.code(),
        Some(128 + 9)
    );
    let output = stage
        .command(&program)
        .args(["--", "/no/such/vmm"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(127));
    let output = stage
        .command(&program)
        .args(["fill", "--", "true"])
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("fill"));
    assert_eq!(output.status.code(), Some(1));

    // A signal ends the VMM first, and what it wrote last is kept.
    let script = "trap 'printf end | dd of=\"$1\" conv=notrunc status=none; exit 0' TERM; echo up >&2; while :; do sleep 0.05; done";
    let mut running = Daemon::spawn(boot(script), &[]);
    running.wait_stderr("up");
    running.signal(Signal::TERM);
    assert_eq!(
        running.wait_exit(PATIENCE).code(),
        Some(0),
        "{}",
        running.stderr()
    );
    let output = boot("test \"$(head -c 3 \"$1\")\" = end").output().unwrap();
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );

    // Before there is a VMM it ends what is waited for: nobody describes this image. Once it dials it heeds signals.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    silent.set_nonblocking(true).unwrap();
    let mut command = Command::new(&program);
    command.arg("magnet:?xt=urn:btih:0123456789abcdef0123456789abcdef01234567");
    command.arg(format!("peer={}", silent.local_addr().unwrap()));
    command.args([
        "listen=127.0.0.1:0",
        "discovery=false",
        "metadata-timeout=0",
    ]);
    command.arg(format!("cache={}", stage.path("none").display()));
    command.args(["--", "true"]);
    let mut running = Daemon::spawn(command, &[]);
    let begin = Instant::now();
    let _dialled = loop {
        if let Ok(dialled) = silent.accept() {
            break dialled;
        }
        running.assert_running();
        assert!(begin.elapsed() < PATIENCE, "it does not dial");
        std::thread::sleep(Duration::from_millis(10));
    };
    running.signal(Signal::INT);
    assert_eq!(
        running.wait_exit(PATIENCE).code(),
        Some(1),
        "{}",
        running.stderr()
    );
}

/// What `cargo cinstall` made, where `VMTORRENT_PREFIX` names it; `make test` installs it first.
fn installed() -> Option<PathBuf> {
    let prefix = std::env::var_os("VMTORRENT_PREFIX").map(PathBuf::from);
    let pkg_config = Command::new("pkg-config").arg("--version").output().is_ok();
    require(pkg_config, "pkg-config").then_some(())?;
    require(
        prefix.is_some(),
        "an installation by cargo-c (VMTORRENT_PREFIX)",
    )
    .then_some(())?;
    prefix
}

fn pkg_config(prefix: &Path, options: &[&str]) -> Vec<String> {
    let mut command = Command::new("pkg-config");
    command.env("PKG_CONFIG_PATH", prefix.join("lib/pkgconfig"));
    let words = run(command.args(options).arg("vmtorrent")).unwrap();
    words.split_whitespace().map(str::to_owned).collect()
}

/// Values of a tag in the dynamic section.
fn dynamic(file: &Path, tag: &str) -> Vec<String> {
    let table = run(Command::new("objdump").arg("-p").arg(file)).unwrap();
    let values = table
        .lines()
        .filter_map(|line| line.trim().strip_prefix(tag));
    values.map(|v| v.trim().to_owned()).collect()
}

#[test]
fn what_cargo_c_installs_serves_programs_shared_and_static() {
    let Some(prefix) = installed() else { return };
    let (major, minor) = (
        env!("CARGO_PKG_VERSION_MAJOR"),
        env!("CARGO_PKG_VERSION_MINOR"),
    );
    let soname = format!("libvmtorrent.so.{major}.{minor}");
    let library = prefix.join("lib/libvmtorrent.so");
    assert_eq!(dynamic(&library, "SONAME"), [&*soname]);
    run(Command::new(repository("ffi/symbols.sh")).arg(&library)).unwrap();
    let header = fs::read(prefix.join("include/vmtorrent.h")).unwrap();
    assert!(header == fs::read(repository("include/vmtorrent.h")).unwrap());
    assert_eq!(
        pkg_config(&prefix, &["--modversion"]),
        [env!("CARGO_PKG_VERSION")]
    );

    let stage = Stage::new();
    let source = stage.documented();
    let shared = stage.path("shared");
    let mut command = compiler(&source, &shared);
    command.args(pkg_config(&prefix, &["--cflags", "--libs"]));
    built(command.arg(format!("-Wl,-rpath,{}/lib", prefix.display())));
    assert!(dynamic(&shared, "NEEDED").contains(&soname));
    stage.first_mib(&shared);

    // A static library is taken by its name; what it needs itself stands in the .pc file.
    let fixed = stage.path("static");
    let mut command = compiler(&source, &fixed);
    command.args(pkg_config(&prefix, &["--cflags"]));
    let libraries = pkg_config(&prefix, &["--static", "--libs"]);
    let named = |word: String| {
        if word == "-lvmtorrent" {
            "-l:libvmtorrent.a".to_owned()
        } else {
            word
        }
    };
    built(command.args(libraries.into_iter().map(named)));
    let needed = dynamic(&fixed, "NEEDED");
    assert!(
        !needed.iter().any(|n| n.contains("vmtorrent")),
        "{needed:?}"
    );
    stage.first_mib(&fixed);

    // The plugin and the embedder build as their first lines say.
    let flags = pkg_config(&prefix, &["--cflags", "--libs"]);
    built(compiler(&repository("ffi/examples/boot.c"), &stage.path("boot")).args(&flags));
    if Path::new("/usr/include/nbdkit-plugin.h").is_file() {
        let plugin = repository("ffi/examples/nbdkit-vmtorrent-plugin.c");
        let mut command = compiler(&plugin, &stage.path("plugin.so"));
        built(command.args(["-shared", "-fPIC"]).args(&flags));
    }
}
