//! Plans carried out with real programs: `sh` stands for every VMM.
#![expect(
    clippy::unwrap_used,
    reason = "a helper that can't go on fails the test"
)]

use std::path::Path;
use std::time::{Duration, Instant};

use super::*;
use crate::ErrorKind;

/// A VMM whose steps write what they do to a file.
struct Stage {
    dir: tempfile::TempDir,
}

impl Stage {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    /// What was done so far, in order.
    fn done(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.path("log")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// The plan of a preset in which `log("x")` is a command line that notes `x`, and `sh("...")` runs a script.
    fn plan(&self, rest: &str) -> Plan {
        let mut text = String::from("[vmm.sh]\n");
        for line in rest.lines() {
            text.push_str(line);
            text.push('\n');
        }
        let text = replace_calls(&text, "log", |word| {
            format!("echo {word} >> \\\"{{work}}/log\\\"")
        });
        let text = replace_calls(&text, "sh", |script| {
            script.replace("LOG", "\\\"{work}/log\\\"")
        });
        let presets = Presets::parse(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
        let values = Values::new("/disk", 512, self.dir.path());
        presets.get("sh").unwrap().plan(&values).unwrap()
    }

    fn spawn(&self, rest: &str) -> Process {
        Process::spawn(self.plan(rest), ProcessOptions::default()).unwrap()
    }

    /// Waits until that was done.
    async fn until(&self, word: &str) {
        let end = Instant::now() + Duration::from_secs(20);
        while !self.done().iter().any(|done| done == word) {
            assert!(Instant::now() < end, "no {word}: {:?}", self.done());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// `NAME(text)` becomes the words of a command line that has `sh` do what `script` makes of the text.
fn replace_calls(text: &str, name: &str, script: impl Fn(&str) -> String) -> String {
    let (mut out, mut rest) = (String::new(), text);
    let start = format!(" {name}(\"");
    while let Some(at) = rest.find(&start) {
        let (before, call) = rest.split_at(at);
        let call = &call[start.len()..];
        let end = call.find("\")").unwrap();
        out.push_str(before);
        out.push_str(&format!(" [\"sh\", \"-c\", \"{}\"]", script(&call[..end])));
        rest = &call[end + 2..];
    }
    out + rest
}

fn gone(id: u32) -> bool {
    !Path::new("/proc").join(id.to_string()).exists()
}

const FULL: &str = r#"
run = sh("echo run >> LOG; exit 3")
[[vmm.sh.setup]]
argv = log("one")
undo = [ log("not-one"), log("not-one-2") ]
[[vmm.sh.setup]]
argv = log("two")
[[vmm.sh.setup]]
argv = log("three")
undo = [ log("not-three") ]
[[vmm.sh.teardown]]
argv = log("teardown")
[[vmm.sh.file]]
path = "machine.conf"
text = "{name}"
"#;

#[tokio::test]
async fn set_up_goes_before_the_machine_and_is_taken_back_in_reverse() {
    let stage = Stage::new();
    let process = stage.spawn(FULL);
    let ended = process.wait().await.unwrap();
    assert_eq!(ended.status.unwrap().code(), Some(3));
    assert_eq!(ended.left, [] as [String; 0]);
    let order = [
        "one",
        "two",
        "three",
        "run",
        "teardown",
        "not-three",
        "not-one",
        "not-one-2",
    ];
    assert_eq!(stage.done(), order);
    assert!(!stage.path("machine.conf").exists(), "a written file stays");
    process.started().await.unwrap();
    assert_eq!(
        process.stop().await.unwrap().status.unwrap().code(),
        Some(3),
        "after the end"
    );
}

#[tokio::test]
async fn a_step_that_fails_ends_it_and_only_what_was_done_is_taken_back() {
    let stage = Stage::new();
    let text = FULL.replace(
        "argv = log(\"three\")",
        "argv = sh(\"echo refused >&2; exit 9\")",
    );
    let process = stage.spawn(&text);
    let error = process.started().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    for part in ["exit status: 9", "it printed: refused"] {
        assert!(error.to_string().contains(part), "{error}");
    }
    assert_eq!(stage.done(), ["one", "two", "not-one", "not-one-2"]);
    assert_eq!(process.wait().await.unwrap_err().kind(), ErrorKind::Io);
}

#[tokio::test]
async fn a_program_that_is_missing_is_named_and_the_set_up_taken_back() {
    let stage = Stage::new();
    let text = FULL.replace(
        "run = sh(\"echo run >> LOG; exit 3\")",
        "run = [\"vmm-that-is-not-there\"]",
    );
    let error = stage.spawn(&text).started().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(
        error.to_string().contains("vmm-that-is-not-there"),
        "{error}"
    );
    assert_eq!(
        stage.done()[3..],
        ["not-three", "not-one", "not-one-2"],
        "no teardown: it never ran"
    );
}

#[tokio::test]
async fn what_cant_be_taken_back_is_told_and_does_not_stop_the_rest() {
    let stage = Stage::new();
    let text = FULL
        .replace("log(\"not-three\")", "sh(\"echo stuck; exit 1\")")
        .replace(
            "argv = log(\"teardown\")",
            "argv = sh(\"exit 1\")\nmay-fail = true",
        );
    let ended = stage.spawn(&text).wait().await.unwrap();
    assert_eq!(ended.left.len(), 1, "{:?}", ended.left);
    assert!(
        ended.left[0].contains("it printed: stuck; run it by hand: sh -c"),
        "{:?}",
        ended.left
    );
    assert_eq!(stage.done()[4..], ["not-one", "not-one-2"]);
}

#[tokio::test]
async fn a_step_is_tried_again_as_often_as_it_may() {
    let stage = Stage::new();
    let text = "run = sh(\"exit 0\")\n[[vmm.sh.teardown]]\n\
                argv = sh(\"echo try >> LOG; test $(grep -c try LOG) -ge 3\")\ntries = 3\n";
    let ended = stage.spawn(text).wait().await.unwrap();
    assert_eq!(ended.left, [] as [String; 0]);
    assert_eq!(stage.done(), ["try", "try", "try"]);
}

#[tokio::test]
async fn a_machine_is_asked_to_end_by_sigterm_and_killed_when_its_time_is_up() {
    let stage = Stage::new();
    let polite = "run = sh(\"trap 'echo term >> LOG; exit 5' TERM; echo up >> LOG; while :; do sleep 0.02; done\")\n";
    let process = stage.spawn(polite);
    stage.until("up").await;
    let id = process.id().unwrap();
    assert_eq!(
        process.stop().await.unwrap().status.unwrap().code(),
        Some(5)
    );
    assert!(gone(id) && process.id().is_none());
    assert_eq!(stage.done(), ["up", "term"]);

    let stage = Stage::new();
    let deaf = "grace = 1\nrun = sh(\"trap '' TERM; echo up >> LOG; while :; do sleep 0.02; done\")\n\
                [[vmm.sh.teardown]]\nargv = log(\"teardown\")\n";
    let process = stage.spawn(deaf);
    stage.until("up").await;
    let status = process.stop().await.unwrap().status.unwrap();
    assert_eq!(
        std::os::unix::process::ExitStatusExt::signal(&status),
        Some(9)
    );
    assert_eq!(stage.done(), ["up", "teardown"]);
}

#[tokio::test]
async fn a_machine_with_a_stop_command_is_ended_by_that() {
    let stage = Stage::new();
    let text = "grace = 20\nrun = sh(\"trap 'echo term >> LOG' TERM; echo up >> LOG; \
                until grep -q button LOG; do sleep 0.02; done\")\nstop = log(\"button\")\n";
    let process = stage.spawn(text);
    stage.until("up").await;
    assert_eq!(
        process.stop().await.unwrap().status.unwrap().code(),
        Some(0)
    );
    assert_eq!(stage.done(), ["up", "button"]);

    // One that fails is no reason to wait for the end of the grace.
    let stage = Stage::new();
    let text = "grace = 600\nrun = sh(\"trap 'exit 6' TERM; echo up >> LOG; while :; do sleep 0.02; done\")\n\
                stop = sh(\"exit 1\")\n";
    let process = stage.spawn(text);
    stage.until("up").await;
    assert_eq!(
        process.stop().await.unwrap().status.unwrap().code(),
        Some(6)
    );
}

#[tokio::test]
async fn a_kill_hurries_past_the_grace_and_the_stop_command() {
    let stage = Stage::new();
    let text = "grace = 600\nrun = sh(\"trap '' TERM; echo up >> LOG; while :; do sleep 0.02; done\")\n\
                stop = sh(\"echo asked >> LOG; sleep 100\")\n[[vmm.sh.teardown]]\nargv = log(\"teardown\")\n";
    let process = stage.spawn(text);
    stage.until("up").await;
    let begun = Instant::now();
    tokio::select! {
        _ = process.stop() => panic!("it ended by itself"),
        () = stage.until("asked") => {}
    }
    let status = process.kill().await.unwrap().status.unwrap();
    assert_eq!(
        std::os::unix::process::ExitStatusExt::signal(&status),
        Some(9)
    );
    assert_eq!(stage.done(), ["up", "asked", "teardown"]);
    assert!(
        begun.elapsed() < Duration::from_secs(20),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test]
async fn a_stop_during_the_set_up_lets_the_step_end_and_takes_it_back() {
    let stage = Stage::new();
    let text = "run = log(\"run\")\n[[vmm.sh.setup]]\nargv = sh(\"echo begun >> LOG; sleep 0.5; echo made >> LOG\")\n\
                undo = [ log(\"unmade\") ]\n[[vmm.sh.setup]]\nargv = log(\"more\")\n";
    let process = stage.spawn(text);
    stage.until("begun").await;
    assert_eq!(process.stop().await.unwrap().status, None);
    assert_eq!(stage.done(), ["begun", "made", "unmade"]);
    assert_eq!(
        process.started().await.unwrap_err().kind(),
        ErrorKind::Closed
    );
}

#[tokio::test]
async fn dropping_it_leaves_no_process_and_nothing_set_up() {
    let stage = Stage::new();
    let text = FULL.replace("echo run >> LOG; exit 3", "echo run >> LOG; sleep 1000");
    let process = stage.spawn(&text);
    process.started().await.unwrap();
    let id = process.id().unwrap();
    stage.until("run").await;
    drop(process);
    assert!(gone(id));
    assert_eq!(
        stage.done()[4..],
        ["teardown", "not-three", "not-one", "not-one-2"]
    );
}

#[tokio::test]
async fn a_console_on_stdout_is_read_to_its_end() {
    let stage = Stage::new();
    let process = stage.spawn("console = \"stdio\"\nrun = sh(\"echo booting; echo oops >&2; sleep 0.1; printf login:\")\n");
    let mut console = process.console().unwrap();
    let mut printed = Vec::new();
    while let Some(bytes) = console.read().await {
        printed.extend(bytes);
    }
    assert_eq!(String::from_utf8(printed).unwrap(), "booting\noops\nlogin:");
    process.wait().await.unwrap();
    assert_eq!(
        process.console().unwrap().try_read(),
        b"booting\noops\nlogin:",
        "also for a late reader"
    );
}

#[tokio::test]
async fn a_console_in_a_file_is_followed() {
    let stage = Stage::new();
    let text = "console = \"file\"\n\
                run = sh(\"echo noise; echo one >> {console}; sleep 0.2; printf two >> {console}\")\n";
    let process = stage.spawn(text);
    let mut console = process.console().unwrap();
    let mut printed = Vec::new();
    while let Some(bytes) = console.read().await {
        printed.extend(bytes);
    }
    assert_eq!(String::from_utf8(printed).unwrap(), "one\ntwo");
    assert_eq!(process.wait().await.unwrap().said, "noise\n");
}

#[tokio::test]
async fn a_machine_takes_signals_also_when_a_thread_that_leaves_them_to_others_starts_it() {
    let stage = Stage::new();
    let text = "run = sh(\"grep SigBlk /proc/self/status >> LOG\")\n";
    let plan = stage.plan(text);
    let start = move || {
        crate::leave_signals_to_others();
        Process::spawn(plan, ProcessOptions::default()).unwrap()
    };
    let process = std::thread::spawn(start).join().unwrap();
    process.wait().await.unwrap();
    assert_eq!(stage.done(), ["SigBlk:\t0000000000000000"]);
}

#[tokio::test]
async fn a_service_that_a_step_starts_does_not_hold_it_up() {
    let stage = Stage::new();
    let text =
        "run = sh(\"exit 0\")\n[[vmm.sh.setup]]\nargv = sh(\"sleep 5 & echo started >> LOG\")\n";
    let begun = Instant::now();
    stage.spawn(text).wait().await.unwrap();
    assert!(
        begun.elapsed() < Duration::from_secs(4),
        "{:?}",
        begun.elapsed()
    );
}
