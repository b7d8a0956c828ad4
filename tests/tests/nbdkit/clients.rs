//! What clients see of a disk, and what is there after they wrote.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use vmtorrent_tests::appliance::run;
use vmtorrent_tests::{PIECE, Reference, assert_same, publish};

use super::LENGTH;
use super::stage::Stage;

fn json(command: &mut Command) -> Value {
    serde_json::from_str(&run(command).unwrap()).unwrap()
}

/// Where holes are, as (offset, length) in order, neighbours put together.
fn holes(extents: &Value, is_hole: impl Fn(&Value) -> bool, start: &str) -> Vec<(u64, u64)> {
    let mut found: Vec<(u64, u64)> = Vec::new();
    for extent in extents.as_array().unwrap().iter().filter(|e| is_hole(e)) {
        let (at, length) = (
            extent[start].as_u64().unwrap(),
            extent["length"].as_u64().unwrap(),
        );
        match found.last_mut() {
            Some(last) if last.0 + last.1 == at => last.1 += length,
            _ => found.push((at, length)),
        }
    }
    found
}

/// What nbdinfo and qemu-img say of holes; they must agree.
fn holes_of(uri: &str) -> Vec<(u64, u64)> {
    let map = json(Command::new("nbdinfo").args(["--map", "--json", uri]));
    let by_nbdinfo = holes(&map, |e| e["type"] == 3, "offset");
    let map = json(Command::new("qemu-img").args(["map", "-f", "raw", "--output=json", uri]));
    let by_qemu = holes(&map, |e| e["zero"] == true && e["data"] == false, "start");
    assert_eq!(
        by_nbdinfo, by_qemu,
        "nbdinfo and qemu-img tell of other holes"
    );
    by_nbdinfo
}

#[test]
fn clients_see_the_size_the_holes_and_the_bytes() {
    let Some(stage) = Stage::new() else { return };
    let source = stage.seed();
    let server = stage.serve_from(&source, &["fill=none"]);
    let uri = stage.uri();

    let info = json(Command::new("nbdinfo").args(["--json", &uri]));
    let export = &info["exports"][0];
    assert_eq!(export["export-size"], LENGTH, "{info}");
    assert_eq!(export["is_read_only"], false, "{info}");
    for able in [
        "multi_conn",
        "flush",
        "trim",
        "zero",
        "fast_zero",
        "fua",
        "cache",
        "df",
    ] {
        assert_eq!(export[format!("can_{able}")], true, "can_{able}: {info}");
    }
    assert_eq!(export["block_size_minimum"], 1, "{info}");
    assert_eq!(export["block_size_preferred"], 4096, "{info}");
    let contexts = export["contexts"].as_array().unwrap();
    assert!(contexts.contains(&"base:allocation".into()), "{info}");

    // Known from the hashes: nothing has been downloaded yet.
    let piece = PIECE as u64;
    let zeros = [(5 * piece, 2 * piece), (21 * piece, 2 * piece)];
    assert_eq!(holes_of(&uri), zeros);

    let copy = stage.path("copy.img");
    run(Command::new("nbdcopy").arg(&uri).arg(&copy)).unwrap();
    assert_same(&copy, stage.image.bytes(), "copied by nbdcopy");
    assert_eq!(holes_of(&uri), zeros, "after all was downloaded");

    let original = stage.path("data/disk.img");
    let compare = |a: &Path, format: &str| {
        let formats = ["compare", "-f", format, "-F", "raw"];
        run(Command::new("qemu-img").args(formats).arg(a).arg(&uri)).unwrap();
    };
    compare(&original, "raw");
    let converted = stage.path("copy.qcow2");
    let convert = ["convert", "-f", "raw", "-O", "qcow2", &uri];
    run(Command::new("qemu-img").args(convert).arg(&converted)).unwrap();
    compare(&converted, "qcow2");
    stage.end(server);
}

#[test]
fn what_clients_write_zero_and_trim_is_there_and_outlives_the_server() {
    let Some(stage) = Stage::new() else { return };
    let source = stage.seed();
    let mut server = stage.serve_from(&source, &["fill=none"]);
    let piece = PIECE as u64;
    let mut expected = stage.image.bytes().to_vec();
    let written = [
        // Whole blocks, with FUA.
        "write -f -P 0x5a 8192 8192".to_owned(),
        // Parts of blocks, of which the rest has to be fetched.
        "write -P 0x11 70000 512".to_owned(),
        format!("write -P 0x22 {} 512", 32 * piece),
        // Zeros: a hole, whether they may be trimmed or not; and across the edges of blocks.
        format!("write -z {} {piece}", 2 * piece),
        format!("write -z -u {} {piece}", 8 * piece),
        format!("write -z {} 10000", 10 * piece + 100),
        format!("discard {} {piece}", 13 * piece),
        "flush".to_owned(),
    ];
    expected[8192..16384].fill(0x5a);
    expected[70_000..70_512].fill(0x11);
    expected[32 * PIECE..].fill(0x22);
    for at in [2, 8, 13] {
        expected[at * PIECE..(at + 1) * PIECE].fill(0);
    }
    expected[10 * PIECE + 100..10 * PIECE + 10_100].fill(0);
    let written = written.each_ref().map(String::as_str);
    stage.io(&written).unwrap();

    let is_there = |when: &str| {
        let copy = stage.path("copy.img");
        let _ = fs::remove_file(&copy);
        run(Command::new("nbdcopy").arg(stage.uri()).arg(&copy)).unwrap();
        assert_same(&copy, &expected, when);
        let holes = holes_of(&stage.uri());
        for at in [2, 8, 13] {
            let whole = |&(start, length): &(u64, u64)| {
                start <= at * piece && start + length >= (at + 1) * piece
            };
            assert!(
                holes.iter().any(whole),
                "{when}: piece {at} is no hole: {holes:?}"
            );
        }
    };
    is_there("at once");

    // What was flushed is there after a kill, too.
    server.kill();
    drop(server);
    fs::remove_file(stage.socket()).unwrap();
    let server = stage.serve_from(&source, &["fill=none"]);
    is_there("after kill -9");
    stage.end(server);
    let server = stage.serve_from(&source, &[]);
    is_there("after an orderly end");
    stage.end(server);
}

#[test]
fn each_file_of_an_image_is_an_export() {
    let Some(mut stage) = Stage::new() else {
        return;
    };
    let files = stage.path("data/set");
    fs::create_dir_all(files.join("disks")).unwrap();
    let small = Reference::new(3 * PIECE, 5);
    stage.image.write_to(&files.join("disks/root.img"));
    small.write_to(&files.join("disks/swap.img"));
    stage.torrent = stage.path("set.torrent");
    publish(&files, &stage.torrent, &[]);
    let source = stage.seed();
    let copy = stage.path("copy.img");
    let copied = |uri: String| {
        let _ = fs::remove_file(&copy);
        run(Command::new("nbdcopy").arg(uri).arg(&copy)).map(|_| ())
    };

    let server = stage.serve_from(&source, &[]);
    let list = json(Command::new("nbdinfo").args(["--list", "--json", &stage.uri()]));
    let exports = list["exports"].as_array().unwrap();
    let sizes = exports.iter().map(|e| {
        (
            e["export-name"].as_str().unwrap(),
            e["export-size"].as_u64(),
        )
    });
    let sizes: Vec<_> = sizes.collect();
    assert_eq!(
        sizes,
        [
            ("disks/root.img", Some(LENGTH as u64)),
            ("disks/swap.img", Some(3 * PIECE as u64))
        ]
    );
    copied(stage.uri_of("disks/swap.img")).unwrap();
    assert_same(&copy, small.bytes(), "by its name");
    copied(stage.uri()).unwrap();
    assert_same(&copy, stage.image.bytes(), "the largest file");
    assert!(copied(stage.uri_of("disks/none.img")).is_err());
    server.wait_stderr("disks/none.img");
    server.end();
    let _ = fs::remove_file(stage.socket());

    // One that was named is the only one.
    let server = stage.serve_from(&source, &["file=disks/swap.img"]);
    copied(stage.uri()).unwrap();
    assert_same(&copy, small.bytes(), "the file that was named");
    stage.end(server);
}
