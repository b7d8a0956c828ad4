//! Mounts a volume whose image files lie in memory, and lets them play data that is still to arrive or a full disk.
//!
//! `memory_volume MOUNT OWN-FILES IMAGE`: the files below the folder IMAGE are the image. It prints `ready`, then answers
//! each line of its input, all of which are about the file `disk`, with one line; when the input ends it unmounts.
//!
//! Who looks at the mount must be another process: one that maps files of a mount that it serves itself can wait for
//! itself, with a lock of its address space held, and then not even SIGKILL ends it.
//!
//! Invariant: it ends with its input.
#![expect(
    clippy::unwrap_used,
    reason = "a server that can't go on fails the test"
)]
#![expect(clippy::print_stdout, reason = "it answers there")]

use std::fs;
use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::runtime::Runtime;
use vmtorrent_platform::fuse::{MountOptions, mount};
use vmtorrent_platform::{BlockFile, Errno, MemoryBlockFile, TreeVolume};

type Files = Vec<(Vec<String>, Arc<MemoryBlockFile>)>;

fn load(folder: &Path, below: &[String], files: &mut Files) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let mut names = below.to_vec();
        names.push(path.file_name().unwrap().to_str().unwrap().to_owned());
        if path.is_dir() {
            load(&path, &names, files);
        } else {
            files.push((names, MemoryBlockFile::new(fs::read(path).unwrap())));
        }
    }
}

fn answer(disk: &MemoryBlockFile, runtime: &Runtime, line: &str) -> u64 {
    let mut words = line.split(' ');
    let command = words.next().unwrap();
    let numbers: Vec<u64> = words.map(|word| word.parse().unwrap()).collect();
    match (command, numbers.as_slice()) {
        ("hold", [start, end]) => disk.hold(*start..*end),
        ("release", []) => disk.release(),
        ("fail", []) => disk.fail(Some(Errno::EIO)),
        ("recover", []) => disk.fail(None),
        ("limit", [capacity]) => disk.limit(Some(*capacity)),
        ("unlimited", []) => disk.limit(None),
        ("wait", [count]) => runtime.block_on(disk.wait_until_waiting(*count as usize)),
        ("waiting", []) => return disk.waiting() as u64,
        ("flushes", []) => return disk.flushes(),
        ("allocated", []) => return disk.allocated(),
        _ => panic!("not understood: {line}"),
    }
    0
}

fn main() {
    let paths: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [directory, own, image] = paths.as_slice() else {
        panic!("usage: memory_volume MOUNT OWN-FILES IMAGE");
    };
    let mut files = Vec::new();
    load(image, &[], &mut files);
    let disk = files.iter().find(|(path, _)| *path == ["disk"]).unwrap();
    let disk = Arc::clone(&disk.1);
    let files = files
        .into_iter()
        .map(|(path, file)| (path, file as Arc<dyn BlockFile>))
        .collect();
    let volume = Arc::new(TreeVolume::new(files, own).unwrap());
    let runtime = Runtime::new().unwrap();
    let options = MountOptions::new(runtime.handle().clone(), "memory");
    let mount = mount(volume, directory, options).unwrap();
    println!("ready");
    for line in std::io::stdin().lock().lines() {
        println!("{}", answer(&disk, &runtime, &line.unwrap()));
    }
    mount.unmount().unwrap();
}
