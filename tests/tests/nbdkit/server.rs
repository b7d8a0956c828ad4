//! How the server begins, waits, fails and ends.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use vmtorrent_tests::PIECE;
use vmtorrent_tests::appliance::run;

use super::PATIENCE;
use super::stage::Stage;

#[test]
fn in_the_background_relative_names_mean_where_it_was_started() {
    let Some(stage) = Stage::new() else { return };
    let source = stage.seed();
    let mut command = stage.nbdkit(&["-P", "pid"]);
    command.args(stage.alone(Path::new("disk.torrent")));
    command.arg(format!("peer={}", source.listen()));
    // It goes on in a child, whose ends of our pipes would keep us waiting.
    let status = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    assert!(status.unwrap().success());
    // The child writes its number when it listens.
    let begin = Instant::now();
    let pid = loop {
        let text = fs::read_to_string(stage.path("pid")).unwrap_or_default();
        if let Some(pid) = text.trim().parse().ok().and_then(Pid::from_raw) {
            break pid;
        }
        assert!(begin.elapsed() < PATIENCE, "nbdkit does not listen");
        std::thread::sleep(Duration::from_millis(10));
    };
    let there = stage.io(&["write -P 7 0 4096", "read -P 7 0 4096", "read 65536 4096"]);
    kill_process(pid, Signal::TERM).unwrap();
    there.unwrap();
    let begin = Instant::now();
    while test_kill_process(pid).is_ok() {
        assert!(begin.elapsed() < PATIENCE, "nbdkit does not end");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(stage.path("state/state.json").is_file());
    assert!(stage.path("cache").is_dir());
}

#[test]
fn a_read_that_waits_holds_up_neither_the_end_nor_other_reads() {
    let Some(stage) = Stage::new() else { return };
    // Nobody has the image.
    let mut parameters = stage.alone(&stage.torrent);
    parameters.push("read-timeout=0".to_owned());
    let mut server = stage.serve(&parameters);
    let read = || {
        Command::new("qemu-io")
            .args(["-f", "raw", "-c", "read 0 4096"])
            .arg(stage.uri())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    };
    let mut waiting = read();
    // Zeros are there without anybody.
    stage
        .io(&[&format!("read -P 0 {} 65536", 5 * PIECE)])
        .unwrap();
    // A client that goes is noticed, if it got as far as its read: nothing tells when that is.
    let begin = Instant::now();
    let noticed = || server.stderr().contains("aborting sleep");
    while !noticed() {
        let told = server.stderr();
        assert!(begin.elapsed() < PATIENCE, "it is not noticed: {told}");
        let mut gone = read();
        std::thread::sleep(Duration::from_millis(300));
        gone.kill().unwrap();
        gone.wait().unwrap();
        let killed = Instant::now();
        while !noticed() && killed.elapsed() < Duration::from_secs(1) {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    assert!(
        waiting.try_wait().unwrap().is_none(),
        "the other read does not wait"
    );

    let begin = Instant::now();
    server.signal(Signal::TERM);
    let status = server.wait_exit(PATIENCE);
    assert!(status.success(), "{status}: {}", server.stderr());
    assert!(
        begin.elapsed() < Duration::from_secs(10),
        "{:?}",
        begin.elapsed()
    );
    waiting.wait().unwrap();
}

#[test]
fn a_read_that_failed_gives_the_client_an_error_and_nbdkit_the_reason() {
    let Some(stage) = Stage::new() else { return };
    let mut parameters = stage.alone(&stage.torrent);
    parameters.push("read-timeout=0.2".to_owned());
    let server = stage.serve(&parameters);
    let error = stage.io(&["read 0 4096"]).unwrap_err().to_string();
    assert!(error.contains("Input/output error"), "{error}");
    server.wait_stderr("a read at 0 got no data in time");
    // It goes on.
    stage
        .io(&["write -P 7 0 4096", "read -P 7 0 4096"])
        .unwrap();
    server.end();
}

#[test]
fn wrong_parameters_are_told_with_their_remedy() {
    let Some(stage) = Stage::new() else { return };
    let torrent = stage.torrent.display().to_string();
    for (parameters, told) in [
        (vec![], "source is missing"),
        (vec!["none.torrent"], "none.torrent"),
        (vec![&*torrent, "fill=some"], "write none, idle or full"),
        (vec![&*torrent, "spin=fast"], "spin"),
        (vec![&*torrent, "peer=here"], "192.0.2.7:6881"),
        (vec![&*torrent, &*torrent], "one source only"),
        (
            vec![
                &*torrent,
                "file=other.img",
                "ephemeral=true",
                "cache=c",
                "listen=127.0.0.1:0",
                "discovery=false",
            ],
            "other.img",
        ),
    ] {
        let output = stage
            .nbdkit(&["-f"])
            .args(&parameters)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{parameters:?}");
        assert!(stderr.contains(told), "{parameters:?}: {stderr}");
        let _ = fs::remove_file(stage.socket());
    }

    let about = run(Command::new("nbdkit")
        .arg("--dump-plugin")
        .arg(&stage.plugin))
    .unwrap();
    for line in [
        "name=vmtorrent",
        "thread_model=parallel",
        "vmtorrent_abi=1",
        "vmtorrent_option_read-timeout=Sec",
    ] {
        assert!(
            about.lines().any(|l| l.starts_with(line)),
            "{line}: {about}"
        );
    }
    let version = concat!("vmtorrent_version=", env!("CARGO_PKG_VERSION"));
    assert!(about.lines().any(|l| l == version), "{about}");
    let help = run(Command::new("nbdkit").arg("--help").arg(&stage.plugin)).unwrap();
    assert!(help.contains("KEY=VALUE"), "{help}");
}
