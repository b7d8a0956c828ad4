//! What the pictures share: axes with round numbers, colours for light and dark, rasters that stay small as a text.
//!
//! Invariant: nothing that comes from outside gets into a picture unescaped, and no picture asks for anything elsewhere.

mod axis;
mod escape;
mod frame;
mod number;
mod palette;
mod raster;

pub use axis::Axis;
pub use escape::{Escaped, Plain, shortened};
pub use frame::{Anchor, FRAME_STYLE, Frame};
pub use number::{grouped, micros, percent, seconds};
pub use palette::{COLOURS, Runs};
pub use raster::Raster;
