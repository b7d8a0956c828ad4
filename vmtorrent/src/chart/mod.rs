//! What the pictures share: axes with round numbers, colours for light and dark, rasters that stay small as a text.
//!
//! Invariant: nothing that comes from outside gets into a picture unescaped, and no picture asks for anything elsewhere.

mod axis;
mod escape;
mod frame;
mod number;
mod palette;
mod raster;

pub(crate) use axis::{Axis, size};
pub use escape::Plain;
pub(crate) use escape::{Escaped, shortened};
pub(crate) use frame::{Anchor, FRAME_STYLE, Frame};
pub use number::{Bytes, grouped};
pub(crate) use number::{micros, percent, seconds};
pub(crate) use palette::{COLOURS, Runs};
pub(crate) use raster::Raster;
