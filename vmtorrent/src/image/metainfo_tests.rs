use proptest::prelude::*;

use super::*;
use crate::image::{PieceClass, PieceIndex};

fn int(n: i64) -> Vec<u8> {
    format!("i{n}e").into_bytes()
}

fn text(s: impl AsRef<[u8]>) -> Vec<u8> {
    let s = s.as_ref();
    [format!("{}:", s.len()).as_bytes(), s].concat()
}

fn list(items: &[Vec<u8>]) -> Vec<u8> {
    [b"l", items.concat().as_slice(), b"e"].concat()
}

fn dict(entries: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let body: Vec<u8> = entries
        .iter()
        .flat_map(|(key, value)| [text(key), value.clone()].concat())
        .collect();
    [b"d", body.as_slice(), b"e"].concat()
}

type Entries = Vec<(&'static str, Vec<u8>)>;

fn replace(entries: &mut Entries, key: &'static str, value: Vec<u8>) {
    entries.retain(|(k, _)| *k != key);
    entries.push((key, value));
}

/// The info dictionary of a valid image of one file of 40,000 bytes.
fn one_file() -> Entries {
    vec![
        ("length", int(40_000)),
        ("name", text("disk.raw")),
        ("piece length", int(16_384)),
        (
            "pieces",
            text(
                [1; 20]
                    .iter()
                    .chain(&[2; 20])
                    .chain(&[3; 20])
                    .copied()
                    .collect::<Vec<u8>>(),
            ),
        ),
    ]
}

fn file(length: i64, path: &[&str]) -> Vec<u8> {
    let path: Vec<_> = path.iter().map(text).collect();
    dict(&[("length", int(length)), ("path", list(&path))])
}

/// The info dictionary of an image of these files, which have 40,000 bytes in all.
fn several(files: &[Vec<u8>]) -> Entries {
    let mut info = one_file();
    info.retain(|(k, _)| *k != "length");
    info.push(("files", list(files)));
    info
}

fn torrent(info: &[(&str, Vec<u8>)]) -> Vec<u8> {
    dict(&[("info", dict(info))])
}

fn parse(info: &[(&str, Vec<u8>)]) -> Result<Image> {
    Image::from_bytes(torrent(info))
}

/// The bytes are refused as an invalid torrent, and the message holds `what` and a remedy.
#[track_caller]
fn assert_refused(bytes: impl Into<Bytes>, what: &str) {
    let e = Image::from_bytes(bytes).expect_err(what);
    assert_eq!(e.kind(), ErrorKind::InvalidTorrent);
    let message = e.to_string();
    assert!(message.contains(what), "{message:?} does not say {what:?}");
    assert!(message.contains("; "), "{message:?} has no remedy");
}

#[test]
fn an_image_of_one_file_is_read() {
    let image = parse(&one_file()).unwrap();
    assert!(image.is_single_file());
    assert_eq!(image.name(), "disk.raw");
    assert_eq!(image.files()[0].path, ["disk.raw"]);
    assert_eq!(image.geometry().total_length(), 40_000);
    assert_eq!(image.piece_hash(PieceIndex(1)), &[2; 20]);
    assert!(!image.is_private());
    assert_eq!(image.torrent_bytes(), &torrent(&one_file()));
    assert_eq!(image.info_bytes(), &dict(&one_file()));
}

#[test]
fn the_info_hash_is_that_of_an_independent_implementation() {
    let data: Vec<u8> = (0..40_000_u32)
        .map(|i| (i % 251) as u8)
        .chain(*b"hello\n")
        .collect();
    let pieces: Vec<u8> = data.chunks(16_384).flat_map(Sha1::digest).collect();
    let image = parse(&[
        (
            "files",
            list(&[
                file(40_000, &["a", "disk.raw"]),
                file(6, &["b.txt"]),
                file(0, &["empty"]),
            ]),
        ),
        ("name", text("appliance")),
        ("piece length", int(16_384)),
        ("pieces", text(pieces)),
    ])
    .unwrap();
    // Python's hashlib over the same dictionary.
    assert_eq!(
        image.info_hash().to_string(),
        "f2a443e49053b2a7ec36c2a5f229a70a3e8d03c8"
    );
    assert_eq!(image.files()[1].offset, 40_000);
    assert_eq!(image.files()[2].length, 0);
}

#[test]
fn names_that_could_do_harm_are_refused() {
    let long = "x".repeat(256);
    let names: [(&[u8], &str); 9] = [
        (b"", "is empty"),
        (b".", "is `.` or `..`"),
        (b"..", "is `.` or `..`"),
        (b"/etc", "holds a path separator"),
        (b"a/../b", "holds a path separator"),
        (b"..\\b", "holds a path separator"),
        (b"a\0b", "holds a NUL"),
        (b"\xff\xfe", "is not UTF-8"),
        (long.as_bytes(), "is longer than 255"),
    ];
    for (name, why) in names {
        let mut info = one_file();
        replace(&mut info, "name", text(name));
        assert_refused(torrent(&info), &format!("info.name {why}"));

        let bad = dict(&[
            ("length", int(39_999)),
            ("path", list(&[text("d"), text(name)])),
        ]);
        let e = parse(&several(&[file(1, &["ok"]), bad]))
            .unwrap_err()
            .to_string();
        assert!(
            e.contains("info.files[1].path[1]") && e.contains(why),
            "{e}"
        );
    }
}

#[test]
fn the_utf8_variant_of_a_name_goes_before_the_plain_one() {
    let mut info = one_file();
    replace(&mut info, "name", text(b"\xff"));
    info.push(("name.utf-8", text("größer")));
    assert_eq!(parse(&info).unwrap().name(), "größer");
    replace(&mut info, "name.utf-8", text(".."));
    assert_refused(torrent(&info), "info.name.utf-8 is `.` or `..`");

    let both = dict(&[
        ("length", int(40_000)),
        ("path", list(&[text(b"\xff")])),
        ("path.utf-8", list(&[text("ä")])),
    ]);
    assert_eq!(parse(&several(&[both])).unwrap().files()[0].path, ["ä"]);
}

#[test]
fn wrong_fields_of_info_are_refused_by_name() {
    let cases: Vec<(&'static str, Vec<u8>, &str)> = vec![
        ("length", int(-1), "info.length is negative"),
        ("length", int(0), "info.length is zero"),
        ("length", int(i64::MAX), "info.length is absurd"),
        (
            "length",
            int(1 << 59),
            "info.piece length gives more than 4 million pieces",
        ),
        ("length", text("x"), "info.length is no integer"),
        (
            "length",
            int(16_384 * 3 + 1),
            "info.pieces has 60 bytes, but 4 pieces need 80",
        ),
        (
            "length",
            int(16_384 * 2),
            "info.pieces has 60 bytes, but 2 pieces need 40",
        ),
        ("name", int(1), "info.name is no string"),
        ("piece length", int(0), "info.piece length is no multiple"),
        (
            "piece length",
            int(-16_384),
            "info.piece length is negative",
        ),
        (
            "piece length",
            int(16_383),
            "info.piece length is no multiple",
        ),
        (
            "piece length",
            int(24_576),
            "info.piece length is no multiple",
        ),
        (
            "piece length",
            int(256 << 20),
            "info.piece length is no multiple",
        ),
        (
            "piece length",
            int(1 << 40),
            "info.piece length is no multiple",
        ),
        ("pieces", text([0; 59]), "info.pieces has 59 bytes"),
        ("pieces", text(""), "info.pieces has 0 bytes"),
        ("pieces", list(&[]), "info.pieces is no string"),
        ("files", list(&[]), "info.length and info.files exclude"),
        ("attr", text("l"), "info.attr makes the only file"),
        ("attr", text("p"), "info.attr makes the only file"),
        ("attr", int(1), "info.attr is no string"),
    ];
    for (key, value, what) in cases {
        let mut info = one_file();
        replace(&mut info, key, value);
        assert_refused(torrent(&info), what);
    }
    for key in ["name", "piece length", "pieces"] {
        let mut info = one_file();
        info.retain(|(k, _)| *k != key);
        assert_refused(torrent(&info), &format!("info.{key} is missing"));
    }
    let mut info = one_file();
    info.push(("length", int(40_000)));
    assert_refused(torrent(&info), "info.length stands there twice");
}

#[test]
fn wrong_lists_of_files_are_refused_by_name() {
    let link = dict(&[
        ("attr", text("l")),
        ("length", int(0)),
        ("path", list(&[text("link")])),
        ("symlink path", list(&[text("etc"), text("shadow")])),
    ]);
    let padding = dict(&[("attr", text("p")), ("length", int(40_000))]);
    let deep: Vec<&str> = vec!["d"; 33];
    let cases: Vec<(Vec<Vec<u8>>, &str)> = vec![
        (vec![], "info.files has no byte"),
        (vec![file(0, &["a"])], "info.files has no byte"),
        (
            vec![file(1, &["a"]), file(-1, &["b"])],
            "info.files[1].length is negative",
        ),
        (
            vec![
                file(i64::MAX, &["a"]),
                file(i64::MAX, &["b"]),
                file(3, &["c"]),
            ],
            "info.files[0].length makes the image absurd",
        ),
        (
            vec![
                file(1 << 59, &["a"]),
                file(1 << 59, &["b"]),
                file(1, &["c"]),
            ],
            "info.files[2].length makes the image absurd",
        ),
        (vec![file(40_000, &[])], "info.files[0].path is empty"),
        (
            vec![file(40_000, &deep)],
            "info.files[0].path has more than 32 names",
        ),
        (vec![int(1)], "info.files[0] is no dictionary"),
        (
            vec![dict(&[("length", int(1))])],
            "info.files[0].path is missing",
        ),
        (
            vec![dict(&[("length", int(1)), ("path", text("a"))])],
            "info.files[0].path is no list",
        ),
        (
            vec![dict(&[("path", list(&[text("a")]))])],
            "info.files[0].length is missing",
        ),
        (
            vec![file(1, &["a"]), link],
            "info.files[1].attr makes the file a symbolic link",
        ),
        (
            vec![file(1, &["a"]), file(2, &["b"]), file(39_997, &["a"])],
            "info.files[2].path is the same as that of info.files[0]",
        ),
        (
            vec![file(1, &["a", "b"]), file(2, &["a-"]), file(39_997, &["a"])],
            "info.files[2].path is also a directory of info.files[0]",
        ),
        (vec![padding], "info.files has nothing but padding"),
    ];
    for (files, what) in cases {
        assert_refused(torrent(&several(&files)), what);
    }
    let mut info = several(&[]);
    replace(&mut info, "files", int(1));
    assert_refused(torrent(&info), "info.files is no list");
}

#[test]
fn names_that_differ_in_case_only_are_two_names() {
    let image = parse(&several(&[file(1, &["a"]), file(39_999, &["A"])])).unwrap();
    assert_eq!(image.files().len(), 2);
}

#[test]
fn what_is_no_v1_torrent_is_refused() {
    assert_refused(&b""[..], "not a .torrent file");
    assert_refused(&b"QFI\xfb"[..], "not a .torrent file");
    assert_refused(&b"le"[..], "it is no dictionary");
    assert_refused(&b"de"[..], "torrent field info is missing");
    assert_refused(&b"d4:infoi1ee"[..], "torrent field info is no dictionary");
    assert_refused(vec![b'l'; 1 << 20], "nested too deep");
    assert_refused(
        [torrent(&one_file()), b"x".to_vec()].concat(),
        "bytes follow",
    );
    assert_refused(vec![0; MAX_TORRENT_BYTES + 1], "larger than 64 MiB");
    assert_refused(
        torrent(&[
            ("file tree", dict(&[])),
            ("meta version", int(2)),
            ("name", text("x")),
            ("piece length", int(16_384)),
        ]),
        "info.file tree makes this a v2-only torrent",
    );
}

#[test]
fn padding_is_part_of_the_pieces_but_not_shown() {
    let padding = |length| {
        dict(&[
            ("attr", text("xp")),
            ("length", int(length)),
            ("path", list(&[text(".pad"), text("1")])),
        ])
    };
    let image = parse(&several(&[
        file(10_000, &["a"]),
        padding(6_384),
        file(23_615, &["b"]),
        padding(1),
    ]))
    .unwrap();
    assert_eq!(image.geometry().total_length(), 40_000);
    assert_eq!(image.files()[2].offset, 16_384);
    assert!(image.files()[1].padding && image.files()[1].path.is_empty());
    let shown: Vec<_> = image.visible_files().map(|f| f.path[0].as_str()).collect();
    assert_eq!(shown, ["a", "b"]);
}

#[test]
fn trackers_and_web_seeds_are_taken_as_far_as_they_make_sense() {
    let read = |extra: &[(&str, Vec<u8>)]| {
        let mut root = extra.to_vec();
        root.push(("info", dict(&one_file())));
        let image = Image::from_bytes(dict(&root)).unwrap();
        let tiers: Vec<Vec<String>> = image
            .trackers()
            .iter()
            .map(|tier| tier.iter().map(Url::to_string).collect())
            .collect();
        let seeds: Vec<String> = image.web_seeds().iter().map(Url::to_string).collect();
        (tiers, seeds)
    };
    let announce = ("announce", text("http://one.example/announce"));
    assert_eq!(read(&[]), (vec![], vec![]));
    assert_eq!(
        read(std::slice::from_ref(&announce)).0,
        [["http://one.example/announce"]]
    );
    let tiers = list(&[
        list(&[
            text("udp://a.example:1/"),
            text("wss://b.example/"),
            text("https://c.example/"),
        ]),
        list(&[text("nonsense"), int(3)]),
        list(&[text("http://d.example/")]),
    ]);
    assert_eq!(
        read(&[announce.clone(), ("announce-list", tiers)]).0,
        [
            vec!["udp://a.example:1/", "https://c.example/"],
            vec!["http://d.example/"]
        ]
    );
    assert_eq!(
        read(&[announce, ("announce-list", list(&[list(&[])]))]).0,
        [["http://one.example/announce"]]
    );
    assert_eq!(
        read(&[("url-list", text("http://w.example/"))]).1,
        ["http://w.example/"]
    );
    let seeds = list(&[
        text("ftp://x.example/"),
        text(""),
        text("https://w.example/a"),
    ]);
    assert_eq!(read(&[("url-list", seeds)]).1, ["https://w.example/a"]);
}

#[test]
fn private_is_read() {
    let mut info = one_file();
    info.push(("private", int(1)));
    assert!(parse(&info).unwrap().is_private());
}

fn assert_invariant(image: &Image) {
    let mut end = 0;
    for file in image.files() {
        assert_eq!(file.offset, end);
        end += file.length;
        assert_eq!(file.path.is_empty(), file.padding);
        for name in &file.path {
            assert!(!name.is_empty() && name != "." && name != "..");
            assert!(!name.contains(['/', '\\', '\0']) && name.len() <= 255);
        }
    }
    let g = image.geometry();
    assert_eq!(end, g.total_length());
    assert!(end > 0 && image.visible_files().count() > 0);
    assert_eq!(image.hashes.len(), g.piece_count() as usize);
    assert_eq!(image.classes.len(), image.hashes.len());
    for piece in g.pieces() {
        if let PieceClass::DuplicateOf(first) = image.piece_class(piece) {
            assert!(first < piece && image.piece_hash(first) == image.piece_hash(piece));
            assert_eq!(g.piece_length(first), g.piece_length(piece));
            assert_eq!(image.piece_class(first), PieceClass::Unique);
        }
    }
    assert_eq!(
        image.info_hash().0,
        <[u8; 20]>::from(Sha1::digest(image.info_bytes()))
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn mutated_torrents_never_panic_and_what_is_read_is_sound(
        edits in prop::collection::vec((any::<prop::sample::Index>(), "[-0-9delipa./:\u{0}]{0,3}", 0..3_usize), 0..4),
    ) {
        let mut info = several(&[file(39_000, &["a", "b"]), file(0, &["c"]), file(1_000, &["d"])]);
        info.push(("private", int(1)));
        let mut bytes = torrent(&info);
        for (at, insert, remove) in edits {
            let at = at.index(bytes.len());
            let end = (at + remove).min(bytes.len());
            bytes.splice(at..end, insert.bytes());
            if bytes.is_empty() {
                break;
            }
        }
        if let Ok(image) = Image::from_bytes(bytes) {
            assert_invariant(&image);
        }
    }

    #[test]
    fn any_list_of_files_is_refused_or_sound(
        files in prop::collection::vec((0..3_i64, prop::collection::vec("[ab.]{1,2}", 1..3), any::<bool>()), 1..6),
    ) {
        let entries: Vec<_> = files
            .iter()
            .map(|(length, path, padding)| {
                let path: Vec<_> = path.iter().map(text).collect();
                let attr = if *padding { "p" } else { "x" };
                dict(&[("attr", text(attr)), ("length", int(*length)), ("path", list(&path))])
            })
            .collect();
        let mut info = several(&entries);
        replace(&mut info, "pieces", text([9; 20]));
        if let Ok(image) = parse(&info) {
            assert_invariant(&image);
            let mut paths: Vec<_> = image.visible_files().map(|f| f.path.join("/")).collect();
            let count = paths.len();
            paths.sort();
            paths.dedup();
            prop_assert_eq!(paths.len(), count);
            for a in &paths {
                let below = format!("{a}/");
                prop_assert!(!paths.iter().any(|b| b.starts_with(&below)));
            }
        }
    }
}
