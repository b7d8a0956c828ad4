//! Invariant: a [`TreeVolume`]'s image files and folders keep their names and numbers for as long as it
//! lives; everything else in it is a plain file or folder of the host folder, under the same relative path.

mod attributes;
mod data;
mod handles;
mod host;
mod name;
mod names;
mod nodes;
mod volume;

pub use volume::TreeVolume;
