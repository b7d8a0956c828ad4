//! What the presets that come with the library, and others, make of awkward values.

use std::path::{Path, PathBuf};

use super::*;
use crate::ErrorKind;

/// A path that each syntax has to escape something of.
const DISK: &str = "/mnt/it's a disk, 2/root, 1.img";

fn values(disk: &str) -> Values {
    let mut values = Values::new(disk, 8 << 30, "/run/w");
    values.keep = "/state/vmm".into();
    values.name = "it's web, 2".to_owned();
    values.memory = 2 << 30;
    values.cpus = 3;
    values
}

fn plan(vmm: &str, disk: &str) -> Plan {
    let mut values = values(disk);
    if vmm == "cloud-hypervisor" {
        let firmware = ("firmware".to_owned(), "/fw/CLOUDHV.fd".to_owned());
        values.set.extend([firmware]);
    }
    Presets::builtin().get(vmm).unwrap().plan(&values).unwrap()
}

fn words(argv: &Argv) -> Vec<&str> {
    argv.words().map(|word| word.to_str().unwrap()).collect()
}

#[test]
fn the_presets_are_there_and_all_tell_where_they_are_documented() {
    let presets = Presets::builtin();
    let names: Vec<&str> = presets.iter().map(Preset::name).collect();
    assert_eq!(
        names,
        ["cloud-hypervisor", "hyperv", "qemu", "virtualbox", "vmware"]
    );
    for preset in presets.iter() {
        assert!(
            preset.manual().unwrap().starts_with("https://"),
            "{}",
            preset.name()
        );
        assert!(!preset.summary().is_empty() && preset.origin().is_none());
    }
    let error = presets.get("xen").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("qemu"), "{error}");
}

#[test]
fn every_preset_has_a_plan_for_every_format_that_it_takes() {
    for preset in Presets::builtin().iter() {
        for format in preset.formats() {
            let mut values = values(DISK);
            values.format = format.to_owned();
            let unset = preset.variables().filter(|(_, default)| default.is_none());
            values.set = unset
                .map(|(name, _)| (name.to_owned(), "x".to_owned()))
                .collect();
            let plan = preset.plan(&values).unwrap();
            let steps = plan.setup.iter().flat_map(|one| words(&one.step.argv));
            let told: String = steps.chain(words(&plan.run)).collect();
            let told = plan.files.iter().fold(told, |told, file| told + &file.text);
            assert!(
                told.contains("root, 1.img") || told.contains("root,, 1.img"),
                "{}: {told}",
                preset.name()
            );
        }
    }
}

#[test]
fn qemu_gets_its_commas_doubled_and_more_words_at_the_end() {
    let mut with_more = values(DISK);
    with_more.extra = vec!["-snapshot".into(), "{disk}".into()];
    with_more.set.insert("accel".to_owned(), "tcg".to_owned());
    let plan = Presets::builtin()
        .get("qemu")
        .unwrap()
        .plan(&with_more)
        .unwrap();
    let drive = "file=/mnt/it's a disk,, 2/root,, 1.img,format=raw,if=virtio,cache=none,aio=native,discard=unmap,\
                 rerror=stop,werror=stop";
    #[rustfmt::skip]
    let expected = [
        "qemu-system-x86_64",
        "-name", "guest=it's web,, 2",
        "-machine", "q35,accel=tcg",
        "-cpu", "max",
        "-smp", "3",
        "-m", "2048M",
        "-drive", drive,
        "-nic", "user,model=virtio-net-pci",
        "-display", "none",
        "-serial", "mon:stdio",
        "-snapshot", "{disk}",
    ];
    assert_eq!(words(&plan.run), expected);
    assert_eq!(plan.console, ConsoleSource::Stdio);
    assert_eq!(plan.grace, Plan::GRACE);
    assert!(plan.stop.is_none() && plan.cleanup().next().is_none() && plan.files.is_empty());

    let qcow2 = super::preset_tests::plan("qemu", "/m/a.qcow2");
    assert!(
        words(&qcow2.run)
            .iter()
            .any(|word| word.starts_with("file=/m/a.qcow2,format=qcow2,"))
    );
}

#[test]
fn cloud_hypervisor_names_the_type_of_the_disk_and_quotes_commas() {
    let plan = plan("cloud-hypervisor", DISK);
    #[rustfmt::skip]
    let expected = [
        "cloud-hypervisor",
        "--api-socket", "path=/run/w/api.sock",
        "--firmware", "/fw/CLOUDHV.fd",
        "--cpus", "boot=3",
        "--memory", "size=2147483648",
        "--disk", "path=\"/mnt/it's a disk, 2/root, 1.img\",image_type=raw,direct=on",
        "--serial", "tty",
        "--console", "off",
    ];
    assert_eq!(words(&plan.run), expected);
    let stop = plan.stop.unwrap();
    assert_eq!(
        words(&stop.argv),
        [
            "ch-remote",
            "--api-socket",
            "/run/w/api.sock",
            "power-button"
        ]
    );

    let error = Presets::builtin()
        .get("cloud-hypervisor")
        .unwrap()
        .plan(&values(DISK))
        .unwrap_err();
    assert!(error.to_string().contains("--vmm-set firmware="), "{error}");
}

#[test]
fn virtualbox_gets_a_descriptor_and_never_an_order_to_delete() {
    let raw = plan("virtualbox", DISK);
    let descriptor = &raw.files[0];
    assert_eq!(descriptor.path, Path::new("/run/w/disk.vmdk"));
    // 8 GiB of sectors, and the most cylinders that there are.
    assert!(
        descriptor
            .text
            .contains("\nRW 16777216 FLAT \"/mnt/it's a disk, 2/root, 1.img\" 0\n")
    );
    assert!(
        descriptor
            .text
            .contains("\nddb.geometry.cylinders = \"16383\"\n")
    );
    assert!(descriptor.text.starts_with("# Disk DescriptorFile\n"));
    let attach = words(&raw.setup[3].step.argv);
    assert_eq!(attach[attach.len() - 2..], ["--medium", "/run/w/disk.vmdk"]);
    assert_eq!(
        raw.console,
        ConsoleSource::File("/run/w/console.log".into())
    );
    let all = raw.setup.iter().map(|one| &one.step).chain(raw.cleanup());
    for step in all {
        assert!(
            !words(&step.argv)
                .iter()
                .any(|word| word.starts_with("--delete")),
            "{}",
            step.argv
        );
    }
    let cleanup: Vec<Vec<&str>> = raw.cleanup().map(|step| words(&step.argv)).collect();
    assert_eq!(
        cleanup,
        [
            vec!["VBoxManage", "controlvm", "it's web, 2", "poweroff"],
            vec!["VBoxManage", "unregistervm", "it's web, 2"]
        ]
    );

    let vdi = plan("virtualbox", "/m/a.vdi");
    assert!(vdi.files.is_empty());
    assert_eq!(words(&vdi.setup[3].step.argv).last(), Some(&"/m/a.vdi"));
}

#[test]
fn vmware_gets_a_configuration_in_its_own_quoting() {
    let mut with_marks = values("/m/a#b|c.img");
    with_marks.name = "web #1".to_owned();
    let plan = Presets::builtin()
        .get("vmware")
        .unwrap()
        .plan(&with_marks)
        .unwrap();
    let [descriptor, machine] = &plan.files[..] else {
        panic!("{:?}", plan.files);
    };
    assert!(descriptor.text.contains(" FLAT \"/m/a#b|c.img\" 0\n"));
    for line in [
        "displayName = \"web |231\"",
        "memsize = \"2048\"",
        "numvcpus = \"3\"",
        "scsi0:0.fileName = \"/run/w/disk.vmdk\"",
        "serial0.fileName = \"/run/w/console.log\"",
    ] {
        assert!(
            machine.text.lines().any(|known| known == line),
            "{line} in {}",
            machine.text
        );
    }
    assert_eq!(words(&plan.run), ["vmplayer", "/run/w/machine.vmx"]);

    let vmdk = super::preset_tests::plan("vmware", "/m/a#b.vmdk");
    assert_eq!(vmdk.files.len(), 1);
    // Quoted by the rule of the .vmx file, not by that of command lines.
    assert!(
        vmdk.files[0]
            .text
            .contains("scsi0:0.fileName = \"/m/a|23b.vmdk\"\n"),
        "{}",
        vmdk.files[0].text
    );
}

#[test]
fn hyperv_gets_single_quotes_doubled_and_writes_beside_the_image() {
    let plan = plan("hyperv", "/mnt/it's/a.vhdx");
    assert_eq!(plan.directories, [PathBuf::from("/state/vmm")]);
    let script = |argv: &Argv| (*words(argv).last().unwrap()).to_owned();
    let disk = script(&plan.setup[0].step.argv);
    assert!(
        disk.ends_with(
            "if (-not (Test-Path -LiteralPath '/state/vmm/disk.vhdx')) { New-VHD -Path '/state/vmm/disk.vhdx' \
             -ParentPath '/mnt/it''s/a.vhdx' -Differencing }"
        ),
        "{disk}"
    );
    let run = script(&plan.run);
    assert!(
        run.contains("Start-VM -Name 'it''s web, 2'; while ((Get-VM"),
        "{run}"
    );
    let made = script(&plan.setup[1].step.argv);
    assert!(made.contains("-MemoryStartupBytes '2147483648'"), "{made}");
    assert_eq!(plan.setup[0].undo, []);
    assert!(script(&plan.setup[1].undo[0].argv).ends_with("Remove-VM -Name 'it''s web, 2' -Force"));
    let teardown = script(&plan.teardown[0].argv);
    assert!(
        teardown.contains("{ Stop-VM -Name 'it''s web, 2' -TurnOff -Force }"),
        "{teardown}"
    );

    let error = Presets::builtin()
        .get("hyperv")
        .unwrap()
        .plan(&values("/m/a.img"))
        .unwrap_err();
    assert!(error.to_string().contains("only vhd, vhdx"), "{error}");
}

#[test]
fn what_a_vmm_cant_be_told_is_refused_before_anything_runs() {
    let refused = |vmm: &str, change: &dyn Fn(&mut Values)| {
        let mut values = values(DISK);
        change(&mut values);
        let error = Presets::builtin()
            .get(vmm)
            .unwrap()
            .plan(&values)
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        error.to_string()
    };
    let text = refused("virtualbox", &|v| v.disk = "/m/a\"b.img".into());
    assert!(
        text.contains("double quote") && text.contains("virtualbox"),
        "{text}"
    );
    let text = refused("virtualbox", &|v| v.disk_bytes = 1000);
    assert!(text.contains("1000 bytes"), "{text}");
    let text = refused("qemu", &|v| {
        v.set.extend([("colour".to_owned(), "red".to_owned())])
    });
    assert!(text.contains("colour") && text.contains("accel"), "{text}");
    let text = refused("vmware", &|v| v.format = "qcow2".to_owned());
    assert!(text.contains("raw, vmdk"), "{text}");
    refused("qemu", &|v| v.name = "*".to_owned());
}

#[test]
fn a_preset_of_a_file_that_would_write_elsewhere_is_refused() {
    for path in ["/etc/x", "../x", "a/../../x", "", "{disk}"] {
        let text =
            format!("[vmm.x]\nrun = [\"x\"]\n[[vmm.x.file]]\npath = \"{path}\"\ntext = \"\"\n");
        let presets = Presets::parse(&text).unwrap();
        let error = presets.get("x").unwrap().plan(&values(DISK)).unwrap_err();
        assert!(
            error.to_string().contains("outside the work directory"),
            "{path}: {error}"
        );
    }
}
