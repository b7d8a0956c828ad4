//! Invariant: every coloured cell lies in exactly one rectangle, of its own colour.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::ops::Range;

/// Cells in colours, which become one path for each colour: thousands of marks cost no more than the area they cover.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Raster {
    columns: usize,
    rows: usize,
    /// 0: no colour.
    cells: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Rect {
    colour: u8,
    column: usize,
    row: usize,
    width: usize,
    height: usize,
}

impl Raster {
    /// Without colour.
    pub(crate) fn new(columns: usize, rows: usize) -> Self {
        let (columns, rows) = (columns.max(1), rows.max(1));
        Self {
            columns,
            rows,
            cells: vec![0; columns * rows],
        }
    }

    /// Cells in a row.
    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    /// Rows.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Colours cells, but none that has a higher colour. What lies outside is left out.
    pub(crate) fn raise(&mut self, columns: Range<usize>, rows: Range<usize>, colour: u8) {
        let columns = columns.start..columns.end.min(self.columns);
        if columns.is_empty() {
            return;
        }
        for row in rows.start..rows.end.min(self.rows) {
            let at = row * self.columns;
            for cell in &mut self.cells[at + columns.start..at + columns.end] {
                *cell = colour.max(*cell);
            }
        }
    }

    /// Colours cells by their number, counted row by row.
    pub(crate) fn raise_run(&mut self, cells: Range<usize>, colour: u8) {
        let end = cells.end.min(self.cells.len());
        for cell in &mut self.cells[cells.start.min(end)..end] {
            *cell = colour.max(*cell);
        }
    }

    /// A path for each colour, in units of cells. The raster is made coarser until its paths hold at most `most`
    /// rectangles; its size tells how coarse.
    pub(crate) fn paths(&mut self, most: usize) -> BTreeMap<u8, String> {
        let mut rects = self.rects();
        while rects.len() > most.max(1) {
            *self = self.halved();
            rects = self.rects();
        }
        let mut paths: BTreeMap<u8, (String, usize, usize)> = BTreeMap::new();
        for rect in rects {
            let (path, x, y) = paths.entry(rect.colour).or_default();
            let Rect {
                column,
                row,
                width,
                height,
                ..
            } = rect;
            // Relative to the last rectangle of the same colour, which is shorter.
            let (dx, dy) = (column as i64 - *x as i64, row as i64 - *y as i64);
            let _ = write!(path, "m{dx} {dy}h{width}v{height}h-{width}z");
            (*x, *y) = (column, row);
        }
        paths.into_iter().map(|(c, (path, ..))| (c, path)).collect()
    }

    /// Runs of one colour in a row, each continued downwards as far as the rows below have the same run.
    fn rects(&self) -> Vec<Rect> {
        let mut done: Vec<Rect> = Vec::new();
        let mut open: Vec<Rect> = Vec::new();
        for row in 0..self.rows {
            let mut above = std::mem::take(&mut open).into_iter().peekable();
            for mut run in self.runs(row) {
                while above.peek().is_some_and(|rect| rect.column < run.column) {
                    done.extend(above.next());
                }
                if let Some(rect) = above.next_if(|rect| {
                    (rect.column, rect.width, rect.colour) == (run.column, run.width, run.colour)
                }) {
                    run.row = rect.row;
                    run.height += rect.height;
                }
                open.push(run);
            }
            done.extend(above);
        }
        done.extend(open);
        done.sort_by_key(|rect| (rect.row, rect.column));
        done
    }

    fn runs(&self, row: usize) -> impl Iterator<Item = Rect> + '_ {
        let cells = &self.cells[row * self.columns..(row + 1) * self.columns];
        let mut column = 0;
        cells
            .chunk_by(|a, b| a == b)
            .map(move |run| {
                let rect = Rect {
                    colour: run[0],
                    column,
                    row,
                    width: run.len(),
                    height: 1,
                };
                column += run.len();
                rect
            })
            .filter(|rect| rect.colour != 0)
    }

    fn halved(&self) -> Self {
        let mut half = Self::new(self.columns.div_ceil(2), self.rows.div_ceil(2));
        for (at, &colour) in self.cells.iter().enumerate() {
            let (column, row) = (at % self.columns / 2, at / self.columns / 2);
            half.raise(column..column + 1, row..row + 1, colour);
        }
        half
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn raster(columns: usize, cells: &[u8]) -> Raster {
        let mut raster = Raster::new(columns, cells.len() / columns);
        for (at, colour) in cells.iter().enumerate() {
            raster.raise_run(at..at + 1, *colour);
        }
        raster
    }

    proptest! {
        #[test]
        fn each_coloured_cell_lies_in_one_rectangle_of_its_colour(
            columns in 1usize..9,
            cells in proptest::collection::vec(0u8..3, 9..80),
        ) {
            let cells = &cells[..cells.len() / columns * columns];
            let raster = raster(columns, cells);
            let mut covered = vec![0; cells.len()];
            for rect in raster.rects() {
                for row in rect.row..rect.row + rect.height {
                    for column in rect.column..rect.column + rect.width {
                        let cell = &mut covered[row * columns + column];
                        prop_assert_eq!(*cell, 0);
                        *cell = rect.colour;
                    }
                }
            }
            prop_assert_eq!(covered.as_slice(), cells);
        }
    }

    #[test]
    fn neighbours_become_one_rectangle() {
        let mut square = raster(4, &[0, 1, 1, 0, 0, 1, 1, 2, 0, 1, 1, 2]);
        let paths = square.paths(100);
        assert_eq!(paths[&1], "m1 0h2v3h-2z");
        assert_eq!(paths[&2], "m3 1h1v2h-1z");
        assert_eq!(paths.len(), 2);
        let mut two = raster(3, &[1, 0, 1]);
        assert_eq!(two.paths(100)[&1], "m0 0h1v1h-1zm2 0h1v1h-1z");
    }

    #[test]
    fn a_chessboard_is_made_coarser_until_it_is_small() {
        let cells: Vec<u8> = (0..64 * 64).map(|n| ((n + n / 64) % 2) as u8).collect();
        let mut board = raster(64, &cells);
        let paths = board.paths(500);
        assert_eq!((board.columns(), board.rows()), (32, 32));
        assert_eq!(paths[&1], "m0 0h32v32h-32z");
        assert_eq!(Raster::new(0, 0).paths(0).len(), 0);
    }

    #[test]
    fn the_higher_colour_stays_and_what_lies_outside_is_left_out() {
        let mut raster = Raster::new(4, 2);
        raster.raise(0..2, 0..9, 2);
        raster.raise(1..9, 0..1, 1);
        raster.raise(9..12, 0..1, 3);
        raster.raise_run(7..90, 3);
        raster.raise_run(90..91, 3);
        assert_eq!(raster.cells, [2, 2, 1, 1, 2, 2, 0, 3]);
    }
}
