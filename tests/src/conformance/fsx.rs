//! Random operations on a file beside the same on an array, after the manner of fsx.
//!
//! Invariant: after each step the file is what the array is, whatever way the bytes went; a failure tells the seed and
//! what came last.

use std::collections::VecDeque;
use std::fmt;

use vmtorrent_platform::SeekTarget;

use super::cases::{assert_same, space::check_holes};
use super::mapping;
use super::nonzero;
use super::surface::{Open, OpenFile, READ, Space, Surface, WRITE};
use crate::Random;

/// So many operations are told when one fails.
const TOLD: usize = 40;

/// Numbers of which [`run`] makes an operation that fits the file as it is then.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// Chooses the operation.
    pub what: u8,
    /// Chooses the handle.
    pub handle: u8,
    /// Chooses the offset.
    pub offset: u32,
    /// Chooses the length.
    pub length: u32,
}

impl Step {
    /// Any step.
    pub fn random(random: &mut Random) -> Self {
        let bits = random.bits();
        Self {
            what: bits as u8,
            handle: (bits >> 8) as u8,
            offset: (bits >> 16) as u32,
            length: (bits >> 40) as u32 ^ random.bits() as u32,
        }
    }
}

/// How bytes go.
#[derive(Clone, Copy, Debug)]
enum Way {
    Handle(Open),
    /// A shared mapping: made anew for each access, or one that stays.
    Mapping {
        stays: bool,
    },
}

/// An operation, as it is told.
#[derive(Clone, Debug)]
enum Op {
    Read(u64, usize),
    Write(u64, usize),
    Append(usize),
    SetLength(u64),
    Space(Space, u64, u64),
    Seek(u64),
    Sync,
    Stat,
    Reopen,
}

/// The file that is worked on.
#[derive(Clone, Copy)]
pub struct Subject<'a> {
    /// Where it is.
    pub surface: &'a dyn Surface,
    /// Its name there.
    pub path: &'a str,
    /// The file never becomes longer, bytes.
    pub longest: u64,
}

struct Runner<'a> {
    subject: Subject<'a>,
    ways: Vec<Way>,
    handles: Vec<Box<dyn OpenFile>>,
    model: Vec<u8>,
    /// Varies what is written.
    written: u64,
    log: Log,
}

/// Tells what came last if the test fails.
struct Log {
    title: Option<String>,
    done: usize,
    last: VecDeque<String>,
}

impl Log {
    fn add(&mut self, line: impl fmt::Display) {
        if self.title.is_some() {
            self.done += 1;
            self.last.push_back(format!("{:6} {line}", self.done));
            if self.last.len() > TOLD {
                self.last.pop_front();
            }
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        if let Some(title) = &self.title
            && std::thread::panicking()
        {
            let last: Vec<_> = self.last.iter().map(String::as_str).collect();
            eprintln!("{title}: the last operations were\n{}", last.join("\n"));
        }
    }
}

/// Runs `count` random operations on a file whose content is `model`.
pub fn run_random(subject: Subject<'_>, model: Vec<u8>, seed: u64, count: usize) {
    let title = Some(format!("{}, seed {seed}", subject.path));
    let mut random = Random::new(seed);
    let steps = (0..count).map(|_| Step::random(&mut random));
    run(subject, model, steps, title);
}

/// Runs steps; with a title it tells the last ones if one fails.
pub fn run(
    subject: Subject<'_>,
    model: Vec<u8>,
    steps: impl IntoIterator<Item = Step>,
    title: Option<String>,
) {
    let mut ways = vec![Way::Handle(WRITE), Way::Handle(WRITE)];
    if subject.surface.directory().is_some() {
        ways[1] = Way::Handle(Open {
            direct: true,
            ..WRITE
        });
        ways.push(Way::Mapping { stays: false });
        ways.push(Way::Mapping { stays: true });
    }
    let handles = ways.iter().map(|way| open(subject, *way)).collect();
    let log = Log {
        title,
        done: 0,
        last: VecDeque::new(),
    };
    let mut runner = Runner {
        subject,
        ways,
        handles,
        model,
        written: 0,
        log,
    };
    for step in steps {
        runner.step(step);
    }
    runner.finish();
}

fn open(subject: Subject<'_>, way: Way) -> Box<dyn OpenFile> {
    match way {
        Way::Handle(how) => subject.surface.open(subject.path, how).unwrap(),
        Way::Mapping { stays } => {
            let path = subject.surface.directory().unwrap().join(subject.path);
            let length = stays.then_some(subject.longest as usize);
            Box::new(mapping::MappedFile::open(&path, length))
        }
    }
}

impl Runner<'_> {
    fn size(&self) -> u64 {
        self.model.len() as u64
    }

    /// Chooses an operation.
    fn operation(&self, step: Step) -> Op {
        let longest = self.subject.longest;
        // Most ranges are small, some start where others ended: at multiples of a block.
        let mut offset = u64::from(step.offset) % longest;
        if step.offset.is_multiple_of(4) {
            offset -= offset % 4096;
        }
        let largest = match step.length % 16 {
            0 => 200_000,
            1..4 => 20_000,
            _ => 5_000,
        };
        let mut length = u64::from(step.length / 16) % largest;
        if step.length.is_multiple_of(5) {
            length = length.next_multiple_of(4096);
        }
        let length = length.min(longest - offset);
        match step.what % 32 {
            0..9 => Op::Read(offset, length as usize),
            9..19 => Op::Write(offset, length as usize),
            19 => Op::Append((length.min(5_000)).min(longest - self.size()) as usize),
            20 | 21 => Op::SetLength(offset),
            22..28 if length == 0 => Op::Stat,
            22 | 23 => Op::Space(Space::Punch, offset, length),
            24 => Op::Space(Space::Zero { keep_size: true }, offset, length),
            25 => Op::Space(Space::Zero { keep_size: false }, offset, length),
            26 => Op::Space(Space::Allocate { keep_size: false }, offset, length),
            27 => Op::Space(Space::Allocate { keep_size: true }, offset, length),
            28 => Op::Seek(offset),
            29 => Op::Sync,
            30 => Op::Reopen,
            _ => Op::Stat,
        }
    }

    fn step(&mut self, step: Step) {
        let index = usize::from(step.handle) % self.handles.len();
        let mut op = self.operation(step);
        if let (Way::Mapping { .. }, Op::Write(offset, length)) = (self.ways[index], &mut op) {
            // A mapping ends with the file.
            *length = (*length).min(self.size().saturating_sub(*offset) as usize);
        }
        self.log.add(format_args!(
            "{op:?} by {:?}, of {} bytes",
            self.ways[index],
            self.model.len()
        ));
        self.carry_out(index, op);
    }

    fn carry_out(&mut self, index: usize, op: Op) {
        let size = self.size();
        let handle = &self.handles[index];
        match op {
            Op::Read(offset, length) => {
                let found = handle.read_at(offset, length).unwrap();
                let end = (offset + length as u64).min(size);
                let start = offset.min(end);
                assert_same(&found, &self.model[start as usize..end as usize], "read");
            }
            Op::Write(offset, length) => {
                let data = self.fresh(length);
                self.handles[index].write_at(offset, &data).unwrap();
                self.put(offset, &data);
            }
            Op::Append(length) => {
                let data = self.fresh(length);
                let append = true;
                let Subject { surface, path, .. } = self.subject;
                let file = surface.open(path, Open { append, ..READ });
                file.unwrap().append(&data).unwrap();
                self.put(size, &data);
            }
            Op::SetLength(length) => {
                handle.set_length(length).unwrap();
                self.model.resize(length as usize, 0);
            }
            Op::Space(how, offset, length) => {
                handle.space(how, offset, length).unwrap();
                let end = offset + length;
                if let Space::Zero { keep_size: false } | Space::Allocate { keep_size: false } = how
                    && end > size
                {
                    self.model.resize(end as usize, 0);
                }
                if !matches!(how, Space::Allocate { .. }) {
                    let end = end.min(self.size());
                    self.model[offset.min(end) as usize..end as usize].fill(0);
                }
            }
            Op::Seek(offset) => self.seek(index, offset),
            Op::Sync => handle.sync().unwrap(),
            Op::Reopen => self.handles[index] = open(self.subject, self.ways[index]),
            Op::Stat => assert_eq!(handle.stat().unwrap().size, size),
        }
        if self.size() != size {
            let shown = self.subject.surface.stat(self.subject.path).unwrap().size;
            assert_eq!(shown, self.size(), "length");
        }
    }

    /// What is between an offset and the next data is zeros.
    fn seek(&self, index: usize, offset: u64) {
        if self.subject.surface.directory().is_some() {
            // Of what a mapping changed the kernel tells nobody before it is synced.
            self.handles[index].sync().unwrap();
        }
        let size = self.size();
        let Ok(start) = self.handles[index].seek(offset, SeekTarget::Data) else {
            let rest = &self.model[offset.min(size) as usize..];
            let data = rest.iter().position(|byte| *byte != 0);
            assert_eq!(
                data, None,
                "data behind {offset}, where there is said to be none"
            );
            return;
        };
        assert!(start >= offset && start < size, "data at {start}");
        let hole = &self.model[offset as usize..start as usize];
        assert!(hole.iter().all(|byte| *byte == 0), "data before {start}");
        let end = self.handles[index].seek(start, SeekTarget::Hole).unwrap();
        assert!(end > start && end <= size, "hole at {end}");
    }

    fn fresh(&mut self, length: usize) -> Vec<u8> {
        self.written += 1;
        nonzero(self.written, length)
    }

    fn put(&mut self, offset: u64, data: &[u8]) {
        if data.is_empty() {
            return;
        }
        let end = offset as usize + data.len();
        self.model.resize(self.model.len().max(end), 0);
        self.model[offset as usize..end].copy_from_slice(data);
    }

    /// Compares everything, through every handle.
    fn finish(&mut self) {
        self.log.add("the end: every handle reads all");
        self.handles[0].sync().unwrap();
        for handle in &self.handles {
            let found = handle.read_at(0, self.model.len() + 10).unwrap();
            assert_same(&found, &self.model, "in the end");
        }
        check_holes(self.handles[0].as_ref(), &self.model, "in the end");
    }
}
