//! Space: allocating, discarding, zeroing, and finding data and holes.

use super::super::surface::{OpenFile, Space, Surface, WRITE};
use super::super::{HOLE, disk};
use super::{assert_same, both, content, make};
use vmtorrent_platform::{Errno, SeekTarget};

const ZERO: Space = Space::Zero { keep_size: false };
const ZERO_INSIDE: Space = Space::Zero { keep_size: true };

pub fn allocation_grows_and_changes_no_byte(surface: &dyn Surface) {
    for path in both(surface) {
        let mut model = disk();
        let size = model.len() as u64;
        let file = surface.open(path, WRITE).unwrap();
        let grow =
            |offset, length| file.space(Space::Allocate { keep_size: false }, offset, length);
        grow(0, 1000).unwrap();
        grow(HOLE.start, 100_000).unwrap();
        file.space(Space::Allocate { keep_size: true }, size - 5, 50_000)
            .unwrap();
        assert_same(&content(surface, path), &model, path);
        grow(size - 10, 5000).unwrap();
        model.resize(model.len() + 4990, 0);
        assert_same(&content(surface, path), &model, path);
        grow(size + 100_000, 1).unwrap();
        model.resize(size as usize + 100_001, 0);
        assert_same(&content(surface, path), &model, path);
        assert_eq!(grow(i64::MAX as u64 - 1, 2), Err(Errno::EFBIG));
    }
}

/// Ranges of all sorts: inside a block, over blocks and pieces, over the end, behind it.
fn ranges(size: u64) -> [(u64, u64); 10] {
    [
        (10, 1),
        (4096, 4096),
        (5000, 100),
        (8191, 8194),
        (65_000, 140_000),
        (HOLE.start - 100, 200),
        (HOLE.start, HOLE.end - HOLE.start),
        (size - 5000, 2000),
        (size - 100, 50_000),
        (size + 70_000, 10_000),
    ]
}

fn zero(model: &mut Vec<u8>, offset: u64, length: u64, grows: bool) {
    let end = (offset + length) as usize;
    if grows && end > model.len() {
        model.resize(end, 0);
    }
    let end = end.min(model.len());
    model[(offset as usize).min(end)..end].fill(0);
}

fn zeroes(surface: &dyn Surface, how: Space, grows: bool) {
    for path in both(surface) {
        let mut model = disk();
        let file = surface.open(path, WRITE).unwrap();
        for (offset, length) in ranges(model.len() as u64) {
            file.space(how, offset, length).unwrap();
            zero(&mut model, offset, length, grows);
            assert_eq!(file.stat().unwrap().size, model.len() as u64);
            let what = format!("{path}: {length} at {offset}");
            assert_same(&content(surface, path), &model, &what);
        }
        // What was zeroed is written again.
        file.write_at(66_000, b"again").unwrap();
        model[66_000..66_005].copy_from_slice(b"again");
        assert_same(&content(surface, path), &model, path);
        file.space(how, 0, model.len() as u64).unwrap();
        assert_same(&content(surface, path), &vec![0; model.len()], path);
    }
}

pub fn discarded_ranges_are_zeros_and_the_length_stays(surface: &dyn Surface) {
    zeroes(surface, Space::Punch, false);
}

pub fn zeroed_ranges_are_zeros_and_grow_the_file_if_they_may(surface: &dyn Surface) {
    zeroes(surface, ZERO_INSIDE, false);
    surface.unlink("own").unwrap();
    let disk_again = surface.open("disk", WRITE).unwrap();
    disk_again.set_length(0).unwrap();
    disk_again.write_at(0, &disk()).unwrap();
    zeroes(surface, ZERO, true);
}

/// The ranges that seeking calls data.
fn data_ranges(file: &dyn OpenFile, what: &str) -> Vec<(u64, u64)> {
    let size = file.stat().unwrap().size;
    let mut found = Vec::new();
    let mut at = 0;
    loop {
        let start = match file.seek(at, SeekTarget::Data) {
            Ok(start) => start,
            Err(Errno::ENXIO) => break,
            Err(errno) => panic!("{what}: seeking data from {at}: {errno}"),
        };
        let end = file.seek(start, SeekTarget::Hole).unwrap();
        assert!(
            start >= at && end > start && end <= size,
            "{what}: {start}..{end} from {at}"
        );
        // From inside the range both are found where one stands, and at its end.
        let inside = start + (end - start) / 2;
        assert_eq!(file.seek(inside, SeekTarget::Data), Ok(inside), "{what}");
        assert_eq!(file.seek(inside, SeekTarget::Hole), Ok(end), "{what}");
        found.push((start, end));
        at = end;
        if at == size {
            break;
        }
        assert_eq!(file.seek(at, SeekTarget::Hole), Ok(at), "{what}");
    }
    found
}

/// Asserts that all outside of data is zeros.
pub fn check_holes(file: &dyn OpenFile, model: &[u8], what: &str) {
    let mut at = 0;
    let end = (model.len() as u64, model.len() as u64);
    for (start, end) in data_ranges(file, what).into_iter().chain([end]) {
        let hole = &model[at as usize..start as usize];
        let data = hole.iter().position(|byte| *byte != 0);
        assert_eq!(data, None, "{what}: data in the hole {at}..{start}");
        at = end;
    }
}

pub fn a_hole_is_never_said_to_be_where_data_is(surface: &dyn Surface) {
    for path in both(surface) {
        let mut model = disk();
        let file = surface.open(path, WRITE).unwrap();
        check_holes(file.as_ref(), &model, path);
        for (offset, length) in ranges(model.len() as u64) {
            file.space(ZERO, offset, length).unwrap();
            zero(&mut model, offset, length, true);
            check_holes(file.as_ref(), &model, path);
            // A byte in the middle of a hole.
            let at = (offset + length / 2) as usize;
            file.write_at(at as u64, &[1]).unwrap();
            model[at] = 1;
            check_holes(file.as_ref(), &model, path);
        }
        for length in [500_000, 900_000, 40_000, 40_001, 300_000] {
            file.set_length(length as u64).unwrap();
            model.resize(length, 0);
            check_holes(file.as_ref(), &model, path);
        }
    }
}

pub fn zeroed_and_fresh_ranges_are_holes(surface: &dyn Surface) {
    const PIECE: u64 = 65_536;
    for path in both(surface) {
        let size = disk().len() as u64;
        let file = surface.open(path, WRITE).unwrap();
        let expect = |ranges: &[(u64, u64)]| {
            assert_eq!(data_ranges(file.as_ref(), path), ranges, "{path}");
        };
        expect(&[(0, HOLE.start), (HOLE.end, size)]);
        file.space(Space::Punch, PIECE, PIECE).unwrap();
        expect(&[(0, PIECE), (2 * PIECE, HOLE.start), (HOLE.end, size)]);
        file.write_at(HOLE.start + PIECE, &[1; PIECE as usize])
            .unwrap();
        file.space(Space::Punch, HOLE.end, size).unwrap();
        expect(&[
            (0, PIECE),
            (2 * PIECE, HOLE.start),
            (HOLE.start + PIECE, HOLE.end),
        ]);
        // What is grown is a hole.
        file.set_length(2 * size).unwrap();
        file.write_at(0, &[1; 10]).unwrap();
        expect(&[
            (0, PIECE),
            (2 * PIECE, HOLE.start),
            (HOLE.start + PIECE, HOLE.end),
        ]);
    }
}

pub fn seeking_ends_at_the_end(surface: &dyn Surface) {
    for path in both(surface) {
        let size = disk().len() as u64;
        let file = surface.open(path, WRITE).unwrap();
        for offset in [size, size + 1, 1 << 40] {
            for target in [SeekTarget::Data, SeekTarget::Hole] {
                assert_eq!(file.seek(offset, target), Err(Errno::ENXIO), "{path}");
            }
        }
        assert_eq!(file.seek(size - 1, SeekTarget::Hole), Ok(size));
        file.set_length(2 * size).unwrap();
        let behind = size.next_multiple_of(65_536);
        assert_eq!(file.seek(behind, SeekTarget::Data), Err(Errno::ENXIO));
    }
    let empty = make(surface, "empty", b"");
    for target in [SeekTarget::Data, SeekTarget::Hole] {
        assert_eq!(empty.seek(0, target), Err(Errno::ENXIO));
    }
}
