//! `vmtorrent vmm`: what is known, and what would run.

use std::process::Output;

use serde_json::Value;
use vmtorrent_tests::command;

fn vmm(arguments: &[&str]) -> Output {
    let nowhere = std::env::temp_dir().join("vmtorrent-no-config");
    command()
        .arg("vmm")
        .args(arguments)
        .env("XDG_CONFIG_HOME", nowhere)
        .output()
        .unwrap()
}

fn json(arguments: &[&str]) -> Value {
    let output = vmm(arguments);
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn vmm_list_and_show_tell_what_would_run() {
    let all = json(&["list", "--json"]);
    let names: Vec<&str> = all["vmms"]
        .as_array()
        .unwrap()
        .iter()
        .map(|v| v["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        ["cloud-hypervisor", "hyperv", "qemu", "virtualbox", "vmware"]
    );
    let list = String::from_utf8(vmm(&["list"]).stdout).unwrap();
    assert!(
        list.contains("VBoxHeadless") && list.lines().count() == 5,
        "{list}"
    );

    let arguments = [
        "show",
        "qemu",
        "--disk",
        "/m/a b,c.img",
        "--memory",
        "2G",
        "--json",
        "--",
        "-snapshot",
    ];
    let shown = json(&arguments);
    let run: Vec<&str> = shown["run"]
        .as_array()
        .unwrap()
        .iter()
        .map(|word| word.as_str().unwrap())
        .collect();
    assert_eq!(run[0], "qemu-system-x86_64");
    assert!(
        run.iter()
            .any(|word| word.starts_with("file=/m/a b,,c.img,format=raw,if=virtio,")),
        "{run:?}"
    );
    assert_eq!(run.last(), Some(&"-snapshot"));
    assert_eq!(shown["console"], "stdio");

    let text =
        String::from_utf8(vmm(&["show", "virtualbox", "--disk", "/m/it's.img"]).stdout).unwrap();
    assert!(text.contains("\nVBoxManage createvm --name "), "{text}");
    assert!(text.contains("FLAT \"/m/it's.img\" 0"), "{text}");

    let output = vmm(&["show", "xen"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("cloud-hypervisor, hyperv, qemu"),
        "{output:?}"
    );
}
