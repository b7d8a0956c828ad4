//! Invariant: the picture stays below a megabyte, however many blocks there are.

use std::fmt::Write;
use std::ops::Range;
use std::path::Path;

use super::{BLOCK, Profile, ProfileFile, bytes_of, path_text};
use crate::chart::{
    Anchor, Axis, Bytes, COLOURS, Escaped, FRAME_STYLE, Frame, Raster, Runs, grouped, shortened,
};
use crate::error::Result;
use crate::whole_file;

/// Width of the picture.
const WIDTH: f64 = 1200.0;
/// Height of the plot area.
const HEIGHT: f64 = 642.0;
const TOP: f64 = 110.0;
const RIGHT: f64 = 30.0;
const BOTTOM: f64 = 60.0;
/// Width and height of a cell: a block of a large image is thinner than a hair, so it's drawn as one cell.
const CELL: f64 = 3.0;
/// Rows of cells.
const ROWS: usize = (HEIGHT / CELL) as usize;
/// Files that get a place of their own; the others share one.
const MOST_FILES: usize = 16;
/// Height that a file gets at least, so that its name fits.
const LEAST_HEIGHT: f64 = 18.0;
/// Rectangles of at most 30 bytes each.
const MOST_RECTS: usize = 24_000;

impl Profile {
    /// When which place of the image was read first, as a picture: SVG in UTF-8 of less than a megabyte, that asks for
    /// nothing elsewhere.
    pub fn plot(&self) -> String {
        picture(self)
    }

    /// Writes [`plot`](Self::plot) to a file in one step.
    ///
    /// # Errors
    /// Those of the file system, naming the path.
    pub fn save_plot(&self, path: &Path) -> Result<()> {
        whole_file::write(path, self.plot().as_bytes())
    }
}

/// The place of some files on the axis of offsets.
struct Strip<'a> {
    files: Vec<&'a ProfileFile>,
    name: String,
    /// Pixels from the top.
    place: Range<f64>,
    /// Bytes that it stands for.
    shown: f64,
}

impl Strip<'_> {
    fn length(&self) -> u64 {
        let lengths = self.files.iter().map(|f| f.length());
        lengths.fold(0, u64::saturating_add)
    }
}

fn picture(profile: &Profile) -> String {
    let strips = strips(profile);
    let blocks = || profile.files().iter().flat_map(|f| f.blocks().values());
    let last = blocks().map(|a| a.mean()).fold(0.0, f64::max);
    let axis = Axis::time(last, 10);
    let runs = Runs::of(profile.runs());
    let left = if strips.len() > 1 { 230.0 } else { 84.0 };
    let width = WIDTH - left - RIGHT;

    let mut frame = Frame::new(HEIGHT);
    frame.x_axis(&axis, "guest time of the first read, mean over the runs");
    label(&mut frame, &strips);
    let mut raster = raster(&strips, &axis, runs, (width / CELL) as usize);
    let mut shapes = String::new();
    for (class, path) in raster.paths(MOST_RECTS) {
        let colour = runs.colour(class);
        let _ = write!(shapes, "<path fill=\"var({colour})\" d=\"{path}\"/>");
    }
    frame.stretched(raster.columns(), raster.rows(), &shapes);
    if profile.block_count() == 0 {
        frame.text(
            0.5,
            HEIGHT / 2.0,
            Anchor::Middle,
            "strong",
            "no block was read",
        );
    }

    let bytes: u64 = profile.files().iter().map(bytes_of).sum();
    let total = TOP + HEIGHT + BOTTOM;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{total}\" viewBox=\"0 0 {WIDTH} {total}\" \
         role=\"img\"><title>{name}</title><style>{COLOURS}{FRAME_STYLE}\
         svg{{max-width:100%}}text{{font:12px system-ui,'Segoe UI',Roboto,'DejaVu Sans',sans-serif;fill:var(--soft)}}\
         .title{{font-size:17px;font-weight:600;fill:var(--text)}}</style>\
         <rect width=\"{WIDTH}\" height=\"{total}\" fill=\"var(--page)\"/>\
         <text class=\"title\" x=\"{left}\" y=\"30\">{short}</text>\
         <text x=\"{left}\" y=\"50\">{runs_text} · {blocks} blocks of {block}, {bytes} · info-hash {hash}</text>",
        name = Escaped(profile.name()),
        short = Escaped(&shortened(profile.name(), 90)),
        runs_text = match profile.runs() {
            1 => "1 run".to_owned(),
            n => format!("{} runs", grouped(n.into())),
        },
        blocks = grouped(profile.block_count() as u64),
        block = "16 KiB",
        bytes = Bytes(bytes),
        hash = profile.info_hash(),
    );
    legend(&mut svg, left, runs);
    svg.push_str(&frame.finish(&format!("x=\"{left}\" y=\"{TOP}\" width=\"{width}\"")));
    svg.push_str("</svg>\n");
    svg
}

/// Where each file lies: the first at the bottom. Files that nobody read are left out, unless there is only one.
fn strips(profile: &Profile) -> Vec<Strip<'_>> {
    let mut shown: Vec<&ProfileFile> = profile.files().iter().collect();
    if shown.len() > 1 {
        shown.retain(|f| !f.blocks().is_empty());
    }
    let mut others = Vec::new();
    if shown.len() > MOST_FILES {
        let mut counts: Vec<usize> = shown.iter().map(|f| f.blocks().len()).collect();
        counts.sort_unstable_by(|a, b| b.cmp(a));
        let least = counts[MOST_FILES - 1];
        let mut room = MOST_FILES - 1;
        shown.retain(|file| {
            let kept = room > 0 && file.blocks().len() >= least;
            room -= usize::from(kept);
            if !kept {
                others.push(*file);
            }
            kept
        });
    }
    let strip = |files: Vec<_>, name| Strip {
        files,
        name,
        place: 0.0..0.0,
        shown: 0.0,
    };
    let mut strips: Vec<_> = shown
        .into_iter()
        .map(|f| strip(vec![f], path_text(f)))
        .collect();
    if !others.is_empty() {
        let name = format!("{} other files", grouped(others.len() as u64));
        strips.push(strip(others, name));
    }
    let total: f64 = strips.iter().map(|s| s.length() as f64).sum();
    let free = HEIGHT - LEAST_HEIGHT * strips.len() as f64;
    let mut end = HEIGHT;
    for strip in &mut strips {
        let share = if total > 0.0 {
            strip.length() as f64 / total
        } else {
            0.0
        };
        let start = (end - LEAST_HEIGHT - free * share).max(0.0);
        // A cell belongs to one strip.
        let start = (start / CELL).round() * CELL;
        strip.place = start..end;
        strip.shown = (strip.length() as f64).max(1.0);
        end = start;
    }
    if let [only] = strips.as_mut_slice() {
        only.place = 0.0..HEIGHT;
        only.shown = offsets(only).0.end;
    }
    strips
}

/// The axis of an only file.
fn offsets(only: &Strip<'_>) -> (Axis, String) {
    let used = only.files.iter().filter_map(|f| f.blocks().keys().last());
    let used = used.map(|block| (u64::from(*block) + 1) * BLOCK).max();
    Axis::offsets(only.length(), used.unwrap_or(0), 8)
}

/// Offsets of one file, or the names of several.
fn label(frame: &mut Frame, strips: &[Strip<'_>]) {
    if let [only] = strips {
        let (axis, title) = offsets(only);
        frame.y_axis(&axis, &title);
        return;
    }
    frame.edge(0.0, 0.0, 0.0, HEIGHT);
    for strip in strips {
        let Range { start, end } = strip.place;
        frame.edge(0.0, start, 1.0, start);
        let (length, name) = (Bytes(strip.length()), shortened(&strip.name, 28));
        let middle = (start + end) / 2.0;
        if end - start > 40.0 {
            frame.left_text(middle - 8.0, name);
            frame.left_text(middle + 8.0, length);
        } else {
            frame.left_text(middle, shortened(&format!("{name}, {length}"), 36));
        }
    }
}

fn raster(strips: &[Strip<'_>], axis: &Axis, runs: Runs, columns: usize) -> Raster {
    let mut raster = Raster::new(columns, ROWS);
    let last_column = raster.columns() - 1;
    for strip in strips {
        let Range { start, end } = strip.place;
        let scale = (end - start) / strip.shown;
        let mut base = 0_u64;
        for file in &strip.files {
            for (block, access) in file.blocks() {
                let from = base.saturating_add(u64::from(*block) * BLOCK);
                let to = from.saturating_add(super::block_bytes(file, *block));
                // Offsets grow upwards, rows downwards.
                let top = ((end - to as f64 * scale) / CELL + 1e-6).max(0.0) as usize;
                let bottom = ((end - from as f64 * scale) / CELL - 1e-6).ceil() as usize;
                let column = (axis.share(access.mean()) * columns as f64) as usize;
                let column = column.min(last_column);
                let rows = top..bottom.max(top + 1);
                raster.raise(column..column + 1, rows, runs.class(access.runs()));
            }
            base = base.saturating_add(file.length());
        }
    }
    raster
}

fn legend(svg: &mut String, left: f64, runs: Runs) {
    let mut x = left;
    if runs.classes() > 1 {
        let _ = write!(svg, "<text x=\"{x}\" y=\"72\">read in</text>");
        x += 52.0;
    }
    for class in 1..=runs.classes() {
        let name = runs.name(class);
        let _ = write!(
            svg,
            "<rect x=\"{x}\" y=\"62\" width=\"12\" height=\"12\" rx=\"2\" fill=\"var({})\"/>\
             <text x=\"{}\" y=\"72\">{name}</text>",
            runs.colour(class),
            x + 18.0,
        );
        x += 40.0 + 7.0 * name.chars().count() as f64;
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{Row, boot, profile};
    use super::*;

    /// Keeps a picture for somebody to look at, if a directory is named.
    fn keep(name: &str, svg: &str) {
        if let Some(directory) = std::env::var_os("VMTORRENT_LOOK_DIR") {
            let path = std::path::Path::new(&directory).join(name);
            whole_file::write(&path, svg.as_bytes()).unwrap();
        }
    }

    fn paths(svg: &str) -> usize {
        svg.matches("<path").count()
    }

    #[test]
    fn a_boot_is_drawn_in_a_colour_for_each_number_of_runs() {
        for runs in [1, 3, 10] {
            let svg = picture(&boot(runs));
            keep(&format!("plot-{runs}.svg"), &svg);
            assert_eq!(paths(&svg), usize::from(Runs::of(runs).classes()));
            assert!(svg.len() < 400_000, "{} bytes", svg.len());
            assert!(svg.contains("guest time") && svg.contains("256 MiB"));
        }
    }

    #[test]
    fn an_empty_profile_and_one_of_one_block_are_drawn() {
        let svg = picture(&profile(0, &[("a.img", 0, &[])]));
        assert_eq!(paths(&svg), 0);
        assert!(svg.contains("no block was read"));
        let svg = picture(&profile(0, &[]));
        assert!(svg.contains("no block was read"));
        let svg = picture(&profile(1, &[("a.img", 5, &[(0, 1, 0.0, 0.0)])]));
        keep("plot-one.svg", &svg);
        // At time 0, over the whole height.
        assert!(svg.contains("d=\"m0 0h1v214h-1z\""), "{svg}");
    }

    #[test]
    fn several_files_are_stacked_under_their_names_which_are_no_markup() {
        let rows: Vec<Row> = (0..40)
            .map(|n| (n, 1 + n % 2, f64::from(n) * 3e4, 0.0))
            .collect();
        let svg = picture(&profile(
            2,
            &[
                ("boot/<script>&\"'.img", 64 << 20, &rows),
                ("root.img", 800 << 20, &rows[20..]),
                ("nobody.img", 5 << 30, &[]),
                ("tiny.cfg", 700, &[(0, 2, 9e5, 0.0)]),
            ],
        ));
        keep("plot-files.svg", &svg);
        assert!(svg.contains("boot/&lt;script&gt;&amp;&quot;&#39;.img"));
        assert!(!svg.contains("<script") && !svg.contains("nobody"));
        assert!(svg.contains("root.img") && svg.contains("tiny.cfg, 700 B"));
    }

    #[test]
    fn many_files_share_a_strip_and_the_picture_stays_small() {
        // Each block of a large image at a time of its own: nothing can be merged.
        let rows: Vec<Row> = (0..5_000_u32)
            .map(|n| {
                (
                    n,
                    1 + n * 7 % 6,
                    f64::from(n.wrapping_mul(2_654_435_761) >> 8),
                    0.0,
                )
            })
            .collect();
        let names: Vec<String> = (0..50).map(|n| format!("images/disk-{n}.img")).collect();
        let files: Vec<(&str, u64, &[Row])> = names
            .iter()
            .map(|name| (name.as_str(), 1 << 30, &rows[..]))
            .collect();
        let svg = picture(&profile(6, &files));
        keep("plot-many.svg", &svg);
        assert!(svg.len() < 1_000_000, "{} bytes", svg.len());
        assert!(svg.contains("35 other files"));
    }
}
