//! Long runs of random operations.

use super::super::fsx::{Subject, run_random};
use super::super::nonzero;
use super::super::surface::Surface;
use super::{disk, make};

const LONGEST: u64 = 600_000;

pub fn random_operations_on_the_disk_equal_those_on_an_array(surface: &dyn Surface) {
    let model = disk()[..500_000].to_vec();
    surface.set_length("disk", model.len() as u64).unwrap();
    run_random(subject(surface, "disk"), model, 1, 2500);
}

pub fn random_operations_on_an_own_file_equal_those_on_an_array(surface: &dyn Surface) {
    let model = nonzero(3, 300_001);
    make(surface, "own", &model);
    run_random(subject(surface, "own"), model, 2, 2500);
}

fn subject<'a>(surface: &'a dyn Surface, path: &'a str) -> Subject<'a> {
    Subject {
        surface,
        path,
        longest: LONGEST,
    }
}
