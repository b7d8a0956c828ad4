//! `vmtorrent._vmtorrent`: what the Python package in `python/vmtorrent` stands on.
//!
//! Invariant: modules here translate; what Python users see, with its types and documentation, is in that package. Every
//! wait is detached from the interpreter.

mod appliance;
mod appliance_core;
mod events;
mod export;
mod failure;
mod files;
mod image;
mod options;
mod process;
mod profile;
mod promise;
mod publish;
mod seed;
mod session;
mod stats;
mod vmm;
mod wait;

use pyo3::prelude::*;

/// Private: use the package `vmtorrent`.
#[pymodule(gil_used = false)]
mod _vmtorrent {
    #[pymodule_export]
    use crate::appliance::{Appliance, launch, launch_async};
    #[pymodule_export]
    use crate::events::Events;
    #[pymodule_export]
    use crate::export::{export, export_async};
    #[pymodule_export]
    use crate::image::Image;
    #[pymodule_export]
    use crate::process::end_all;
    #[pymodule_export]
    use crate::profile::Profile;
    #[pymodule_export]
    use crate::publish::{publish, publish_async};
    #[pymodule_export]
    use crate::seed::{Seed, seed, seed_async};
    #[pymodule_export]
    use crate::vmm::{Console, Process, vmms};

    use pyo3::prelude::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
