//! Invariant: a cell has the colour of the worst that happened to any block in it.

use std::fmt::Write;

use super::data::{Data, Fate};
use crate::chart::Bytes;
use crate::chart::{Escaped, Frame, Raster, grouped, percent, shortened, size};

/// What became of a part of the image. The order is that of colours in a cell: the last one wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    /// Zeros, or a copy of another piece.
    Nothing = 1,
    /// Neither read nor fetched in this run.
    Unread,
    /// Fetched in this run, and not read.
    Spare,
    /// Read, and here before the run.
    Before,
    /// Read, and fetched before the guest asked.
    Hit,
    /// Read, and the guest waited.
    Waited,
}

impl State {
    const ALL: [Self; 6] = [
        Self::Waited,
        Self::Hit,
        Self::Before,
        Self::Spare,
        Self::Unread,
        Self::Nothing,
    ];

    fn colour(self) -> &'static str {
        match self {
            Self::Nothing => "--zero",
            Self::Unread => "--unread",
            Self::Spare => "--spare",
            Self::Before => "--before",
            Self::Hit => "--hit",
            Self::Waited => "--wait",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Nothing => "zeros and copies, never fetched",
            Self::Unread => "not read",
            Self::Spare => "fetched, never read",
            Self::Before => "read, here before the launch",
            Self::Hit => "read after it was fetched ahead",
            Self::Waited => "read after waiting",
        }
    }
}

/// Most cells.
const CELLS: u64 = 16_384;
/// Bytes of a cell, at least.
const LEAST_CELL: u64 = 16 << 10;
const MOST_RECTS: usize = 12_000;
/// Files that are listed.
const MOST_FILES: usize = 20;

/// The map with its legend.
pub(crate) fn map(data: &Data) -> String {
    let blocks = states(data);
    let length = data.image.length.max(1);
    let cell = length.div_ceil(CELLS).max(LEAST_CELL).next_power_of_two();
    let cells = length.div_ceil(cell) as usize;
    // A row holds a power of two; four times as many stand in it as below each other.
    let columns = ((4 * cells) as f64)
        .sqrt()
        .log2()
        .round()
        .exp2()
        .clamp(8.0, 256.0) as usize;
    let rows = cells.div_ceil(columns);
    let row_height = (300.0 / rows as f64).clamp(5.0, 18.0);

    let mut raster = Raster::new(columns, rows);
    let mut bytes = [0_u64; 7];
    for (at, state) in &blocks {
        bytes[*state as usize] += at.end - at.start;
        let last = at.end.saturating_sub(1).max(at.start) / cell;
        raster.raise_run((at.start / cell) as usize..last as usize + 1, *state as u8);
    }
    let mut frame = Frame::new(rows as f64 * row_height);
    let mut shapes = String::new();
    for (class, path) in raster.paths(MOST_RECTS) {
        let state = State::ALL.into_iter().find(|s| *s as u8 == class);
        let colour = state.map_or("--zero", State::colour);
        let _ = write!(shapes, "<path fill=\"var({colour})\" d=\"{path}\"/>");
    }
    frame.stretched(raster.columns(), raster.rows(), &shapes);
    // A number each so many rows, at round offsets.
    let every = rows.div_ceil(8).next_power_of_two();
    for row in (0..rows).step_by(every) {
        let at = (row as f64 + 0.5) * row_height;
        let offset = row as u64 * columns as u64 * cell;
        frame.left_text(at, size(offset as f64));
    }
    let picture = frame.finish("width=\"100%\" role=\"img\" aria-label=\"map of the image\"");

    let mut html = String::from("<p class=\"keys\">");
    for state in State::ALL {
        let bytes = bytes[state as usize];
        if bytes > 0 {
            let _ = write!(
                html,
                "<span><i style=\"background:var({})\"></i>{}: {}</span>",
                state.colour(),
                state.name(),
                Bytes(bytes)
            );
        }
    }
    let _ = write!(
        html,
        "</p><div class=\"plot map\">{picture}</div>\
         <p class=\"soft\">A cell is {}, a row {}; the image begins at the top left.</p>",
        size(cell as f64),
        size((cell * columns as u64) as f64)
    );
    html.push_str(&files(data));
    html
}

/// Ranges of the image with their states: those of pieces first, then those of blocks that were read.
fn states(data: &Data) -> Vec<(std::ops::Range<u64>, State)> {
    let piece_length = u64::from(data.image.piece_length.max(1));
    let piece_range = |n: usize| {
        let start = n as u64 * piece_length;
        start..(start + piece_length).min(data.image.length)
    };
    // Of each piece: the bytes that were read, by state; the rest is as the piece is.
    let mut read: std::collections::BTreeMap<usize, Vec<(std::ops::Range<u64>, State)>> =
        Default::default();
    // A piece that a first read had to fetch was not here before, whatever was seen a moment after the start.
    let mut fetched = std::collections::BTreeSet::new();
    for first in &data.log.first_reads {
        let Some(place) = data.image.place(first.file, first.block) else {
            continue;
        };
        let pieces =
            (place.start / piece_length) as usize..=((place.end - 1) / piece_length) as usize;
        for piece in pieces {
            if first.needed > 0 {
                fetched.insert(piece);
            }
            let fate = data
                .image
                .pieces
                .get(piece)
                .copied()
                .unwrap_or(Fate::Missing);
            let state = match fate {
                Fate::Nothing => continue,
                _ if first.missed => State::Waited,
                Fate::Before if !fetched.contains(&piece) => State::Before,
                _ => State::Hit,
            };
            let range = piece_range(piece);
            let within = place.start.max(range.start)..place.end.min(range.end);
            read.entry(piece).or_default().push((within, state));
        }
    }
    let mut states = Vec::new();
    for (n, fate) in data.image.pieces.iter().enumerate() {
        let state = match fate {
            Fate::Nothing => State::Nothing,
            Fate::Fetched => State::Spare,
            Fate::Missing | Fate::Before => State::Unread,
        };
        let mut rest = piece_range(n);
        let mut reads = read.remove(&n).unwrap_or_default();
        reads.sort_by_key(|(range, _)| range.start);
        for (range, read) in reads {
            if range.start > rest.start {
                states.push((rest.start..range.start, state));
            }
            // Blocks of two files that share a piece don't overlap.
            rest.start = range.end.max(rest.start);
            states.push((range, read));
        }
        if rest.start < rest.end {
            states.push((rest, state));
        }
    }
    states
}

/// The files, where there are several.
fn files(data: &Data) -> String {
    let shown = || {
        data.image
            .files
            .iter()
            .enumerate()
            .filter(|(_, f)| !f.padding)
    };
    if shown().count() < 2 {
        return String::new();
    }
    let mut counts = vec![(0_u64, 0_u64); data.image.files.len()];
    for read in &data.log.first_reads {
        if let Some((blocks, waited)) = counts.get_mut(read.file as usize) {
            *blocks += 1;
            *waited += u64::from(read.missed);
        }
    }
    let mut files: Vec<_> = shown().map(|(n, file)| (file, counts[n])).collect();
    files.sort_by_key(|(_, (blocks, _))| std::cmp::Reverse(*blocks));
    let mut html = String::from(
        "<table><tr><th>file</th><th>begins at</th><th>length</th><th>blocks read</th><th>of them after waiting</th></tr>",
    );
    for (file, (blocks, waited)) in files.iter().take(MOST_FILES) {
        let _ = write!(
            html,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{} ({})</td></tr>",
            Escaped(&shortened(&file.path, 60)),
            Bytes(file.offset),
            Bytes(file.length),
            grouped(*blocks),
            grouped(*waited),
            percent(*waited, *blocks)
        );
    }
    html.push_str("</table>");
    if files.len() > MOST_FILES {
        let more = grouped((files.len() - MOST_FILES) as u64);
        let _ = write!(
            html,
            "<p class=\"soft\">{more} more files were read less.</p>"
        );
    }
    html
}

#[cfg(test)]
mod tests {
    use super::super::samples::{boot, empty, small};
    use super::*;

    #[test]
    fn each_byte_of_the_image_has_one_state() {
        for data in [boot(), empty(), small()] {
            let mut at = 0;
            for (range, _) in states(&data) {
                assert_eq!(range.start, at);
                assert!(range.end > at);
                at = range.end;
            }
            assert_eq!(at, data.image.length);
        }
    }

    #[test]
    fn a_small_image_shows_what_happened_to_each_block() {
        let found: Vec<_> = states(&small())
            .into_iter()
            .map(|(range, state)| (range.start >> 14, state))
            .collect();
        // See the sample: pieces of two blocks.
        let expected = [
            (0, State::Waited),
            (1, State::Hit),
            (2, State::Nothing),
            (4, State::Before),
            (5, State::Unread),
            (6, State::Spare),
            (8, State::Unread),
        ];
        assert_eq!(found, expected);
        let html = map(&small());
        assert!(html.contains("fetched, never read: 32.0 KiB"), "{html}");
    }

    #[test]
    fn a_boot_fits_into_a_small_map() {
        let html = map(&boot());
        assert!(html.len() < 150_000, "{} bytes", html.len());
        for part in [
            "read after waiting",
            "never fetched",
            "A cell is 64 KiB, a row 16 MiB",
        ] {
            assert!(html.contains(part), "no {part}");
        }
    }
}
