//! Files that are wrong, hostile, or both.

use super::*;
use crate::ErrorKind;

/// A file with this text is refused; the message.
fn refused(text: &[u8]) -> String {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("mine.toml");
    std::fs::write(&path, text).unwrap();
    let error = Presets::load(&path).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    let message = error.to_string();
    assert!(
        message.starts_with(&path.display().to_string()),
        "{message}"
    );
    message
}

#[test]
fn a_good_file_gives_its_vmms_and_says_where_they_are_from() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("mine.toml");
    let text = "[vmm.mine]\nsummary = \"Mine\"\nrun = [\"my-vmm\", \"--disk={disk}\", \"{{}}\"]\n\
                variables = { colour = \"red\", key = \"\" }\n";
    std::fs::write(&path, text).unwrap();
    let presets = Presets::load(&path).unwrap();
    let mine = presets.get("mine").unwrap();
    assert_eq!(
        (mine.summary(), mine.origin()),
        ("Mine", Some(path.as_path()))
    );
    let variables: Vec<_> = mine.variables().collect();
    assert_eq!(variables, [("colour", Some("red")), ("key", None)]);
    let plan = mine.plan(&Values::new("/m/a.img", 512, "/w")).unwrap();
    assert_eq!(plan.run.to_string(), "my-vmm --disk=/m/a.img '{}'");

    let mut all = Presets::builtin();
    let own_qemu = Presets::parse("[vmm.qemu]\nrun = [\"my-qemu\"]\n").unwrap();
    all.extend(own_qemu);
    all.extend(presets);
    assert_eq!(all.iter().count(), 6);
    let plan = all
        .get("qemu")
        .unwrap()
        .plan(&Values::new("/m/a.img", 512, "/w"))
        .unwrap();
    assert_eq!(plan.run.to_string(), "my-qemu");
}

#[test]
fn a_mistake_is_named_with_its_line_its_key_and_what_to_write() {
    for (text, parts) in [
        ("", &["line 1, vmm", "[vmm.NAME]"][..]),
        ("[vmm]\n", &["[vmm.NAME]"]),
        ("vmm = 3\n", &["line 1, vmm:", "integer", "a table"]),
        ("[vmm.a\n", &["line 1", "correct the TOML"]),
        (
            "[vmm.a]\nrun = [\"x\"]\nrun = [\"y\"]\n",
            &["line 3", "correct the TOML"],
        ),
        (
            "\n[vmm.a]\nsummary = \"s\"\n",
            &["line 2, vmm.a:", "add run ="],
        ),
        (
            "[vmm.a]\nrun = \"x -y\"\n",
            &["line 2, vmm.a.run:", "string", "a list"],
        ),
        (
            "[vmm.a]\nrun = []\n",
            &["line 2, vmm.a.run:", "begins with a program"],
        ),
        (
            "[vmm.a]\nrun = [\"\"]\n",
            &["line 2, vmm.a.run:", "begins with a program"],
        ),
        (
            "[vmm.a]\nrun = [\n  \"x\",\n  7,\n]\n",
            &["line 4, vmm.a.run[1]:", "integer", "a string"],
        ),
        (
            "[vmm.a]\nrun = [\"x\", \"{dsk}\"]\n",
            &["line 2, vmm.a.run[1]:", "{dsk}", "disk"],
        ),
        (
            "[vmm.a]\nrun = [\"x\", \"{disk\"]\n",
            &["vmm.a.run[1]:", "write {{"],
        ),
        (
            "[vmm.a]\nrun = [\"x\", \"{disk:sh}\"]\n",
            &["vmm.a.run[1]:", "powershell"],
        ),
        (
            "[vmm.a]\nrun = [\"x\", \"a\\u0000\"]\n",
            &["vmm.a.run[1]:", "NUL"],
        ),
        (
            "[vmm.a]\nrun = [\"x\"]\nescape = \"sh\"\n",
            &["line 3, vmm.a.escape:", "plain, comma"],
        ),
        (
            "[vmm.a]\nrun = [\"x\"]\nconsole = \"tty\"\n",
            &["line 3, vmm.a.console:", "stdio"],
        ),
        (
            "[vmm.a]\nrun = [\"x\"]\ngrace = -1\n",
            &["line 3, vmm.a.grace:", "from 0 to 86400"],
        ),
        (
            "[vmm.a]\nrun = [\"x\"]\ngrace = 1e3\n",
            &["line 3, vmm.a.grace:", "float"],
        ),
        (
            "[vmm.a]\nrun = [\"x\"]\nshell = true\n",
            &["line 3, vmm.a.shell:", "the keys here are"],
        ),
        (
            "colour = 1\n[vmm.a]\nrun = [\"x\"]\n",
            &["line 1, colour:", "the keys here are vmm"],
        ),
        (
            "[vmm.a]\nrun = [\"x\"]\n[vmm.a.formats]\niso = \"\"\n",
            &["line 4, vmm.a.formats.iso:", "qcow2"],
        ),
        (
            "[vmm.a]\nrun = [\"x\"]\n[vmm.a.formats]\nraw = \"{image}\"\n",
            &["line 4, vmm.a.formats.raw:", "{disk}"],
        ),
        (
            "[vmm.a]\nrun = [\"x\"]\nformats = {}\n",
            &["line 3, vmm.a.formats:", "raw = "],
        ),
        (
            "[vmm.a]\nrun = [\"x\"]\n[vmm.a.variables]\ndisk = \"\"\n",
            &["line 4, vmm.a.variables.disk:", "another name"],
        ),
        (
            "[vmm.a]\nrun = [\"x\"]\n[vmm.a.variables]\nA = \"\"\n",
            &["line 4, vmm.a.variables.A:", "lower-case"],
        ),
        (
            "[vmm.a]\nrun = [\"x\"]\n[[vmm.a.setup]]\nundo = []\n",
            &["line 3, vmm.a.setup[0]:", "add argv ="],
        ),
        (
            "[vmm.a]\nrun = [\"x\"]\n[[vmm.a.setup]]\nargv = [\"y\"]\nundo = [\"z\"]\n",
            &["line 5, vmm.a.setup[0].undo[0]:", "a list"],
        ),
        (
            "[vmm.a]\nrun = [\"x\"]\n[[vmm.a.teardown]]\nargv = [\"y\"]\nmay-fail = 1\n",
            &["line 5, vmm.a.teardown[0].may-fail:", "true or false"],
        ),
        (
            "[vmm.a]\nrun = [\"x\"]\n[[vmm.a.teardown]]\nargv = [\"y\"]\ntries = 0\n",
            &["line 5, vmm.a.teardown[0].tries:", "from 1 to 100"],
        ),
        (
            "[vmm.a]\nrun = [\"x\"]\n[[vmm.a.file]]\npath = \"p\"\n",
            &["line 3, vmm.a.file[0]:", "text"],
        ),
        (
            "[vmm.\"a b\"]\nrun = [\"x\"]\n",
            &["line 1, vmm.\"a b\":", "letters"],
        ),
        ("[vmm.-a]\nrun = [\"x\"]\n", &["line 1", "letters"]),
    ] {
        let message = refused(text.as_bytes());
        for part in parts {
            assert!(
                message.contains(part),
                "{text:?}: {part:?} is not in {message:?}"
            );
        }
    }
}

#[test]
fn what_is_no_text_or_too_much_of_it_is_refused_quickly() {
    let message = refused(b"[vmm.a]\nrun = [\"x\"]\n\nsummary = \"\xff\"\n");
    assert!(message.contains("line 4: not UTF-8"), "{message}");
    let message = refused(&vec![b'#'; (1 << 20) + 1]);
    assert!(message.contains("check the name"), "{message}");

    let begun = std::time::Instant::now();
    let nested = format!(
        "[vmm.a]\nrun = {}{}\n",
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    refused(nested.as_bytes());
    let dotted = format!("{}x = 1\n", "a.".repeat(100_000));
    refused(dotted.as_bytes());
    let many = format!("[vmm.a]\nrun = [{}]\n", "\"x\",".repeat(1001));
    let message = refused(many.as_bytes());
    assert!(message.contains("vmm.a.run: more than 1000"), "{message}");
    let vmms: String = (0..1001)
        .map(|n| format!("[vmm.v{n}]\nrun = [\"x\"]\n"))
        .collect();
    let message = refused(vmms.as_bytes());
    assert!(message.contains("more than 1000 VMMs"), "{message}");
    assert!(begun.elapsed().as_secs() < 20, "{:?}", begun.elapsed());
}

#[test]
fn a_file_that_cant_be_read_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let error = Presets::load(dir.path().join("none.toml")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("none.toml"), "{error}");
    let error = Presets::load(dir.path()).unwrap_err();
    assert!(
        error
            .to_string()
            .contains(&dir.path().display().to_string()),
        "{error}"
    );
}
