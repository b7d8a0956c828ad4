use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt};

use sha1::{Digest, Sha1};

use super::*;
use crate::image::{PieceClass, PieceIndex};

/// Bytes without a period that a piece could have.
fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    (0..length)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 56) as u8
        })
        .collect()
}

/// The hashes of an image of these bytes, found the plain way.
fn plain_hashes(data: &[u8], piece_size: usize) -> Vec<[u8; 20]> {
    data.chunks(piece_size)
        .map(|piece| Sha1::digest(piece).into())
        .collect()
}

fn with_piece_size(size: u32) -> PublishOptions {
    PublishOptions {
        piece_size: Some(size),
        ..Default::default()
    }
}

#[track_caller]
fn assert_refused(result: Result<Published>, kind: ErrorKind, what: &str) {
    let e = result.expect_err(what);
    assert_eq!(e.kind(), kind, "{e}");
    assert!(e.to_string().contains(what), "{e}");
    assert!(
        e.to_string().contains("; ") || e.to_string().contains(": "),
        "{e}"
    );
}

#[test]
fn piece_sizes_grow_so_that_there_are_at_most_131072() {
    let (gib, kib) = (1_u64 << 30, 1024);
    assert_eq!(default_piece_size(1), 16 * kib);
    assert_eq!(default_piece_size(2 * gib), 16 * kib);
    assert_eq!(default_piece_size(2 * gib + 1), 32 * kib);
    assert_eq!(default_piece_size(8 * gib), 64 * kib);
    assert_eq!(default_piece_size(8 * gib + 1), 128 * kib);
    assert_eq!(default_piece_size(u64::MAX), 128 * kib * kib);
}

#[test]
fn a_file_with_an_exact_or_a_short_last_piece_is_published() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk.raw");
    for length in [1, 65_535, 65_536, 65_537, 131_072, 5_000_000] {
        let data = noise(length, length as u64);
        fs::write(&path, &data).unwrap();
        let published = publish(&path, &PublishOptions::default()).unwrap();
        let image = &published.image;
        assert!(image.is_single_file());
        assert_eq!(image.name(), "disk.raw");
        assert_eq!(image.hashes, plain_hashes(&data, 16_384));
        assert_eq!(image.geometry().total_length(), length as u64);
        assert_eq!(image.torrent_bytes(), &published.torrent);
    }
}

#[test]
fn holes_and_written_zeros_hash_like_zeros() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sparse");
    let length = 9 * 1024 * 1024 + 5;
    for piece_size in [16_384, 65_536, 4 * 1024 * 1024] {
        let file = File::create(&path).unwrap();
        file.set_len(length).unwrap();
        file.write_all_at(&noise(100_000, 1), 3_000_000).unwrap();
        file.write_all_at(&[0; 200_000], 6_000_000).unwrap();
        file.write_all_at(b"end", length - 3).unwrap();
        let data = fs::read(&path).unwrap();
        let image = publish(&path, &with_piece_size(piece_size)).unwrap().image;
        assert_eq!(image.hashes, plain_hashes(&data, piece_size as usize));
        for (i, piece) in data.chunks(piece_size as usize).enumerate() {
            let zero = image.piece_class(PieceIndex(i as u32)) == PieceClass::Zero;
            assert_eq!(zero, piece.iter().all(|b| *b == 0), "piece {i}");
        }
    }
    let file = File::create(&path).unwrap();
    file.set_len(length).unwrap();
    let image = publish(&path, &PublishOptions::default()).unwrap().image;
    assert_eq!(
        image.hashes,
        plain_hashes(&vec![0; length as usize], 16_384)
    );
    assert!(
        image
            .geometry()
            .pieces()
            .all(|p| image.piece_class(p) == PieceClass::Zero)
    );
}

#[test]
fn a_directory_is_published_sorted_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("appliance");
    fs::create_dir_all(root.join("b/deep")).unwrap();
    fs::create_dir(root.join("hollow")).unwrap();
    let parts = [
        ("a", noise(70_000, 1)),
        ("b/deep/disk", noise(150_000, 2)),
        ("b/empty", vec![]),
        ("b-", noise(10, 3)),
        ("c", noise(1, 4)),
        ("z-empty", vec![]),
    ];
    for (name, data) in &parts {
        fs::write(root.join(name), data).unwrap();
    }
    let options = PublishOptions {
        name: Some("my image".into()),
        trackers: vec![
            "http://t.example/announce".into(),
            "udp://u.example:1".into(),
        ],
        web_seeds: vec!["https://w.example/x".into()],
        private: true,
        ..with_piece_size(16_384)
    };
    let published = publish(&root, &options).unwrap();
    let image = &published.image;
    assert!(!image.is_single_file());
    assert!(image.is_private());
    assert_eq!(image.name(), "my image");
    let names: Vec<_> = image.files().iter().map(|f| f.path.join("/")).collect();
    assert_eq!(names, parts.clone().map(|(name, _)| name));
    let all: Vec<u8> = parts.into_iter().flat_map(|(_, data)| data).collect();
    assert_eq!(image.hashes, plain_hashes(&all, 16_384));
    assert_eq!(image.trackers().len(), 2);
    assert_eq!(image.trackers()[1][0].as_str(), "udp://u.example:1");
    assert_eq!(image.web_seeds()[0].as_str(), "https://w.example/x");
    assert_eq!(publish(&root, &options).unwrap().torrent, published.torrent);
}

#[test]
fn progress_reaches_the_end_and_never_goes_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    fs::write(&path, noise(1_000_000, 1)).unwrap();
    let mut seen = Vec::new();
    publish_with_progress(&path, &PublishOptions::default(), |done, total| {
        seen.push((done, total));
    })
    .unwrap();
    assert!(seen.is_sorted());
    assert_eq!(seen.last(), Some(&(1_000_000, 1_000_000)));
    assert_eq!(seen.len(), 1_000_000_usize.div_ceil(16_384));
}

#[test]
fn what_an_image_cannot_hold_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    fs::create_dir(&root).unwrap();
    let options = PublishOptions::default();
    let invalid = ErrorKind::InvalidInput;
    assert_refused(publish(&root, &options), invalid, "holds no bytes");
    fs::write(root.join("empty"), b"").unwrap();
    assert_refused(publish(&root, &options), invalid, "holds no bytes");
    assert_refused(
        publish(&root.join("none"), &options),
        ErrorKind::NotFound,
        "none",
    );
    assert_refused(
        publish(Path::new("/dev/null"), &options),
        invalid,
        "/dev/null is a symbolic link, a device",
    );

    fs::write(root.join("data"), b"data").unwrap();
    std::os::unix::fs::symlink("data", root.join("link")).unwrap();
    assert_refused(
        publish(&root, &options),
        invalid,
        "root/link is a symbolic link",
    );
    fs::remove_file(root.join("link")).unwrap();

    let socket = std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
    assert_refused(
        publish(&root, &options),
        invalid,
        "root/socket is a symbolic link, a device",
    );
    drop(socket);
    fs::remove_file(root.join("socket")).unwrap();

    for bad in [&b"not-\xff-utf8"[..], b"back\\slash"] {
        let name = <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(bad);
        fs::write(root.join(name), b"x").unwrap();
        assert_refused(
            publish(&root, &options),
            invalid,
            "is not UTF-8 or holds a backslash",
        );
        fs::remove_file(root.join(name)).unwrap();
    }
    publish(&root, &options).unwrap();
}

#[test]
fn options_that_make_no_sense_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    fs::write(&path, b"data").unwrap();
    let refused = |options: PublishOptions, what| {
        assert_refused(publish(&path, &options), ErrorKind::InvalidInput, what);
    };
    for size in [0, 1, 16_383, 24_576, 128 * 1024 * 1024 + 16_384] {
        refused(with_piece_size(size), "is no multiple of 16 KiB");
    }
    for name in ["", "..", "a/b", "a\\b", "\0"] {
        let name = Some(name.to_owned());
        refused(
            PublishOptions {
                name,
                ..Default::default()
            },
            "can't be that of a file",
        );
    }
    for url in ["", "localhost:80", "ftp://x/", "http://"] {
        let urls = vec![url.to_owned()];
        refused(
            PublishOptions {
                trackers: urls.clone(),
                ..Default::default()
            },
            "the tracker",
        );
        refused(
            PublishOptions {
                web_seeds: urls,
                ..Default::default()
            },
            "the web seed",
        );
    }
}

#[test]
fn a_file_that_changes_meanwhile_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    for change in ["cut", "grown", "written"] {
        fs::write(&path, noise(3_000_000, 1)).unwrap();
        // So that the time of a later write differs, however coarse the clock is.
        let past = std::time::SystemTime::UNIX_EPOCH;
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_modified(past)
            .unwrap();
        let mut first = true;
        let result = publish_with_progress(&path, &PublishOptions::default(), |_, _| {
            if std::mem::take(&mut first) {
                let file = File::options().write(true).open(&path).unwrap();
                match change {
                    "cut" => file.set_len(100).unwrap(),
                    "grown" => file.set_len(4_000_000).unwrap(),
                    _ => file.write_all_at(b"x", 5).unwrap(),
                }
            }
        });
        assert_refused(result, ErrorKind::InUse, "changed while it was published");
    }
}

#[test]
fn the_torrent_is_written_in_one_step() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    fs::write(&path, b"data").unwrap();
    let published = publish(&path, &PublishOptions::default()).unwrap();
    let out = dir.path().join("out.torrent");
    fs::write(&out, b"old").unwrap();
    published.write_to(&out).unwrap();
    assert_eq!(fs::read(&out).unwrap(), published.torrent);
    let mode = fs::metadata(&out).unwrap().permissions().mode();
    assert_eq!(mode & 0o600, 0o600);
    assert_eq!(mode & 0o111, 0);
    // Nothing is left beside the two files.
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    let e = published
        .write_to(&dir.path().join("none/out"))
        .unwrap_err();
    assert_eq!(e.kind(), ErrorKind::NotFound);
    assert!(e.to_string().contains("none/out"), "{e}");
}

#[test]
fn a_directory_is_named_even_when_its_path_ends_in_a_dot() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("named")).unwrap();
    fs::write(dir.path().join("named/f"), b"data").unwrap();
    let image = publish(&dir.path().join("named/x/.."), &PublishOptions::default());
    assert!(image.is_err());
    fs::create_dir(dir.path().join("named/x")).unwrap();
    let path = dir.path().join("named/x/..");
    assert_eq!(
        publish(&path, &PublishOptions::default())
            .unwrap()
            .image
            .name(),
        "named"
    );
}
