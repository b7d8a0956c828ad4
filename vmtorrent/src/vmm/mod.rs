//! VMMs as data: how a machine is run on a disk by QEMU, cloud-hypervisor, VirtualBox, VMware, Hyper-V, or by what a TOML
//! file says; docs/vmm.md describes the form.
//!
//! Invariant: words and values are passed as they are: no shell sees them, and each value is escaped for the syntax that
//! it stands in.
//!
//! A [`Preset`] (of [`Presets`]) and [`Values`] give a [`Plan`], and [`Process`] carries that out:
//!
//! ```no_run
//! # async fn run(appliance: vmtorrent::Appliance) -> vmtorrent::Result<()> {
//! use vmtorrent::vmm::{Presets, Process, ProcessOptions, Values};
//!
//! let mut values = Values::for_appliance(&appliance, "/run/web")?;
//! values.memory = 2 << 30; // bytes
//! let plan = Presets::for_user(None)?.get("qemu")?.plan(&values)?;
//! let process = Process::spawn(plan, ProcessOptions::default())?;
//! process.started().await?;
//! let ended = process.wait().await?; // after the tear-down
//! println!("{:?}", ended.status);
//! # Ok(())
//! # }
//! ```

mod console;
mod document;
#[cfg(test)]
mod document_tests;
mod escape;
mod plan;
mod preset;
#[cfg(test)]
mod preset_tests;
mod presets;
mod process;
#[cfg(all(test, target_os = "linux"))]
mod process_tests;
mod supervisor;
mod template;
mod values;

pub use console::Console;
pub use escape::Escape;
pub use plan::{Argv, ConsoleSource, Plan, PlannedFile, SetupStep, Step};
pub use preset::Preset;
pub use presets::Presets;
pub use process::{Ended, Output, Process, ProcessOptions};
pub use values::Values;
