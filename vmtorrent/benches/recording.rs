//! What recording a guest's reads costs: a line for each part, in nanoseconds.
//!
//! `cargo bench -p vmtorrent --bench recording`; what that is of a boot tells the row `record` of `make bench`.

#![expect(clippy::print_stdout, reason = "a benchmark reports on stdout")]

use std::fs;
use std::io::Write;

use vmtorrent::profile::recording_cost;

/// As many blocks of 16 KiB as a boot reads, about.
const BLOCKS: u64 = 4096;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let scratch = tempfile::tempdir()?;
    let directory = scratch.path().join("data");
    fs::create_dir(&directory)?;
    let data = directory.join("disk.img");
    let mut file = fs::File::create(&data)?;
    for block in 0..BLOCKS {
        // No two are equal, and none is zeros.
        file.write_all(&(block + 1).to_le_bytes().repeat(2048))?;
    }
    drop(file);
    let cost = recording_cost(&data, scratch.path())?;
    println!("blocks {}", cost.blocks);
    for (name, time) in [
        ("again", cost.again),
        ("first", cost.first),
        ("look", cost.look),
        ("write", cost.write),
    ] {
        println!("{name} {} ns", time.as_nanos());
    }
    Ok(())
}
