//! Reading and writing, for files of the image and the VMM's own alike.

use super::super::surface::{Create, Open, READ, Surface, WRITE};
use super::{assert_same, both, content, disk, make};
use crate::Random;
use vmtorrent_platform::Errno;

pub fn reads_are_short_only_at_the_end(surface: &dyn Surface) {
    let right = disk();
    let size = right.len() as u64;
    for path in both(surface) {
        let file = surface.open(path, READ).unwrap();
        let edges = [0, 1, 511, 4095, 4096, 65_535, 65_537, size - 5000, size - 1];
        for offset in edges
            .into_iter()
            .chain([size, size + 1, size + 70_000, 1 << 40])
        {
            for length in [0, 1, 512, 4096, 4097, 65_536, 200_000, 1 << 21] {
                let found = file.read_at(offset, length).unwrap();
                let start = right.len().min(offset as usize);
                let end = right.len().min(start + length);
                let what = format!("{path}: {length} at {offset}");
                assert_same(&found, &right[start..end], &what);
            }
        }
    }
}

pub fn writes_at_any_offset_and_length_change_these_bytes_and_no_other(surface: &dyn Surface) {
    for path in both(surface) {
        let mut model = disk();
        let mut random = Random::new(5);
        let file = surface.open(path, WRITE).unwrap();
        let size = model.len();
        for at in [0, 4096, 65_536, 200_000, 262_144, size - 70_000, size - 100] {
            for before in [0, 1, 511, 4095] {
                for length in [0, 1, 100, 4096, 5000, 12_288, 66_000] {
                    let offset = at + before;
                    let data = random.bytes(length);
                    file.write_at(offset as u64, &data).unwrap();
                    let end = offset + length;
                    if length > 0 {
                        model.resize(model.len().max(end), 0);
                        model[offset..end].copy_from_slice(&data);
                    }
                    let around = offset.saturating_sub(5000)..(end + 5000).min(model.len());
                    let found = file.read_at(around.start as u64, around.len()).unwrap();
                    let what = format!("{path}: around {length} at {offset}");
                    assert_same(&found, &model[around], &what);
                }
            }
        }
        assert_same(&content(surface, path), &model, path);
    }
}

pub fn a_write_behind_the_end_leaves_zeros_between(surface: &dyn Surface) {
    for path in both(surface) {
        let mut model = disk();
        let file = surface.open(path, WRITE).unwrap();
        for gap in [1, 4095, 4096, 100_000] {
            let offset = model.len() + gap;
            file.write_at(offset as u64, b"end").unwrap();
            model.resize(offset, 0);
            model.extend(b"end");
            assert_eq!(file.stat().unwrap().size, model.len() as u64);
        }
        // A write of nothing changes nothing, wherever it is.
        file.write_at(1 << 30, b"").unwrap();
        assert_same(&content(surface, path), &model, path);
    }
}

pub fn a_length_is_set_and_what_was_cut_off_is_gone(surface: &dyn Surface) {
    for path in both(surface) {
        let mut model = disk();
        let size = model.len();
        let file = surface.open(path, WRITE).unwrap();
        for length in [
            size + 10_000,
            size,
            size - 1,
            400_001,
            400_000,
            600_000,
            4097,
            100,
            9000,
        ] {
            file.set_length(length as u64).unwrap();
            model.resize(length, 0);
            assert_eq!(file.stat().unwrap().size, length as u64);
            assert_same(&content(surface, path), &model, path);
        }
        file.write_at(5000, b"new").unwrap();
        model[5000..5003].copy_from_slice(b"new");
        surface.set_length(path, 5002).unwrap();
        surface.set_length(path, 20_000).unwrap();
        model.truncate(5002);
        model.resize(20_000, 0);
        assert_same(&content(surface, path), &model, path);
        file.set_length(0).unwrap();
        file.set_length(size as u64).unwrap();
        assert_same(&content(surface, path), &vec![0; size], path);
    }
}

pub fn appending_writes_at_the_end(surface: &dyn Surface) {
    for path in both(surface) {
        let mut model = disk();
        let append = true;
        let file = surface.open(path, Open { append, ..READ }).unwrap();
        let other = surface.open(path, WRITE).unwrap();
        for round in 0..3_u8 {
            file.append(&[round + 1; 1000]).unwrap();
            model.resize(model.len() + 1000, round + 1);
            // It follows what others write behind the end, and cut off.
            other.write_at(model.len() as u64, b"more").unwrap();
            model.extend(b"more");
            other.set_length(model.len() as u64 - 2).unwrap();
            model.truncate(model.len() - 2);
        }
        assert_same(&content(surface, path), &model, path);
    }
}

pub fn truncation_on_opening_empties_also_what_is_opened_for_reading(surface: &dyn Surface) {
    let truncate = true;
    for path in both(surface) {
        let file = surface.open(path, Open { truncate, ..WRITE }).unwrap();
        assert_eq!(file.stat().unwrap().size, 0);
        file.write_at(10, b"again").unwrap();
        let reader = surface.open(path, Open { truncate, ..READ }).unwrap();
        assert_eq!(reader.stat().unwrap().size, 0, "{path}");
        assert_eq!(reader.read_at(0, 100).unwrap(), b"");
        file.write_at(5, b"x").unwrap();
        assert_eq!(reader.read_at(0, 100).unwrap(), b"\0\0\0\0\0x");
        let create = Create::IfMissing(0o600);
        let how = Open {
            truncate,
            create,
            ..WRITE
        };
        let made = surface.open(path, how).unwrap();
        assert_eq!(made.stat().unwrap().size, 0);
    }
}

pub fn a_handle_does_only_what_it_was_opened_for(surface: &dyn Surface) {
    let write_only = Open {
        read: false,
        ..WRITE
    };
    for path in both(surface) {
        let reader = surface.open(path, READ).unwrap();
        let writer = surface.open(path, write_only).unwrap();
        assert_eq!(reader.write_at(0, b"x"), Err(Errno::EBADF));
        assert_eq!(writer.read_at(0, 10), Err(Errno::EBADF));
        writer.write_at(0, b"x").unwrap();
        assert_eq!(reader.read_at(0, 1).unwrap(), b"x");
    }
}

pub fn what_one_handle_writes_another_reads(surface: &dyn Surface) {
    for path in both(surface) {
        let handles: Vec<_> = (0..4).map(|_| surface.open(path, WRITE).unwrap()).collect();
        for round in 0..20_u8 {
            let writer = &handles[usize::from(round) % handles.len()];
            let offset = u64::from(round) * 40_000;
            writer.write_at(offset, &[round; 9000]).unwrap();
            for handle in &handles {
                assert_eq!(handle.read_at(offset, 9000).unwrap(), [round; 9000]);
            }
        }
    }
}

pub fn offsets_beyond_four_gigabytes_work(surface: &dyn Surface) {
    for path in both(surface) {
        let file = surface.open(path, WRITE).unwrap();
        for offset in [(4 << 30) - 3, 5 << 30, 9 << 30] {
            file.write_at(offset, b"far away").unwrap();
            assert_eq!(file.stat().unwrap().size, offset + 8);
            assert_eq!(file.read_at(offset - 2, 20).unwrap(), b"\0\0far away");
        }
        assert_eq!(file.read_at((4 << 30) - 3, 8).unwrap(), b"far away");
        assert_eq!(file.read_at(3, 5).unwrap(), disk()[3..8]);
        surface.set_length(path, (8 << 30) + 1).unwrap();
        assert_eq!(file.read_at(8 << 30, 20).unwrap(), b"\0");
        file.set_length(1 << 42).unwrap();
        assert_eq!(file.stat().unwrap().size, 1 << 42);
        file.set_length(100).unwrap();
        assert_eq!(file.read_at(0, 200).unwrap(), disk()[..100]);
    }
}

pub fn a_length_that_cannot_be_is_refused(surface: &dyn Surface) {
    for path in both(surface) {
        let file = surface.open(path, WRITE).unwrap();
        let largest = i64::MAX as u64;
        assert_eq!(file.set_length(largest), Err(Errno::EFBIG), "{path}");
        let written = file.write_at(largest - 10_000, b"x");
        assert_eq!(written, Err(Errno::EFBIG), "{path}");
        assert_same(&content(surface, path), &disk(), path);
        // Where nothing can be, nothing is to be read.
        assert_eq!(file.read_at(largest - 10_000, 100).unwrap(), b"");
    }
}

pub fn a_flush_works_on_everything_that_is_open(surface: &dyn Surface) {
    for path in both(surface) {
        let file = surface.open(path, WRITE).unwrap();
        file.sync().unwrap();
        file.write_at(3, b"x").unwrap();
        file.sync().unwrap();
        surface.open(path, READ).unwrap().sync().unwrap();
    }
    let file = make(surface, "temporary", b"x");
    surface.make_directory("vm/folder", 0o700).unwrap();
    surface.unlink("temporary").unwrap();
    file.sync().unwrap();
    for directory in ["", "vm", "vm/folder"] {
        surface.sync_directory(directory).unwrap();
    }
}
