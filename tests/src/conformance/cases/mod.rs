//! The cases. Each gets a fresh volume with the files of the image.

pub mod attributes;
pub mod data;
pub mod fsx;
pub mod kernel;
pub mod names;
pub mod space;

use super::surface::{NEW, OpenFile, READ, Surface};
use super::{HOLE, disk};

/// Makes a file with this content and leaves it open.
pub fn make(surface: &dyn Surface, path: &str, content: &[u8]) -> Box<dyn OpenFile> {
    let file = surface.open(path, NEW).unwrap();
    file.write_at(0, content).unwrap();
    file
}

/// All bytes of a file.
pub fn content(surface: &dyn Surface, path: &str) -> Vec<u8> {
    let file = surface.open(path, READ).unwrap();
    let size = file.stat().unwrap().size;
    assert_eq!(size, surface.stat(path).unwrap().size);
    let content = file.read_at(0, size as usize + 10).unwrap();
    assert_eq!(content.len() as u64, size);
    content
}

/// Makes `own` with the content of `disk`, hole included, and names both: what holds for files of the image holds for
/// the VMM's own.
pub fn both(surface: &dyn Surface) -> [&'static str; 2] {
    let content = disk();
    let file = surface.open("own", NEW).unwrap();
    file.write_at(0, &content[..HOLE.start as usize]).unwrap();
    file.write_at(HOLE.end, &content[HOLE.end as usize..])
        .unwrap();
    ["disk", "own"]
}

/// Asserts that two contents are equal, and names the first difference instead of showing megabytes.
pub fn assert_same(found: &[u8], expected: &[u8], what: &str) {
    let differs = found.iter().zip(expected).position(|(a, b)| a != b);
    if let Some(at) = differs {
        let (found, right) = (found[at], expected[at]);
        panic!("{what}: byte {at} is {found}, not {right}");
    }
    assert_eq!(found.len(), expected.len(), "{what}: length");
}
