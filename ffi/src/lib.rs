//! The C ABI of libvmtorrent: `include/vmtorrent.h` is generated from these modules, one for each C type.
//!
//! Invariant: modules here translate, and hold no logic that another language would need too. Each function goes
//! through `guard`; the rules for callers stand at the top of the header (`cbindgen.toml`), and are what `SAFETY`
//! comments appeal to.
#![expect(unsafe_code, reason = "pointers from C are what this crate is about")]
#![expect(non_camel_case_types, reason = "the names are those of C")]
#![expect(
    clippy::missing_safety_doc,
    reason = "what callers owe stands at the top of the header, for all functions"
)]
#![allow(
    clippy::too_many_arguments,
    reason = "as in C, results and errors are parameters"
)]

mod aio;
mod appliance;
mod block_on;
mod callbacks;
mod cancel;
mod completion;
mod ending;
mod error;
mod event;
mod events;
mod export;
mod extents;
mod file_list;
mod gate;
mod guard;
mod image;
mod io;
#[cfg_attr(
    not(feature = "log"),
    expect(dead_code, reason = "the handler is kept, and never called")
)]
mod log;
#[cfg(feature = "log")]
mod log_layer;
mod option_table;
mod options;
mod owned_text;
mod process;
mod profile;
mod publish;
mod queue;
mod replay;
mod report;
mod seed;
mod session;
mod signal;
mod sized;
mod stats;
mod status;
mod sync;
#[cfg(feature = "test-hooks")]
mod test_hooks;
mod text;
mod version;

pub use aio::*;
pub use appliance::*;
pub use block_on::VMT_FOREVER;
pub use cancel::*;
pub use completion::vmt_completion;
pub use error::*;
pub use event::*;
pub use events::*;
pub use export::*;
pub use extents::*;
pub use image::*;
pub use io::*;
pub use log::*;
pub use options::*;
pub use owned_text::*;
pub use profile::*;
pub use publish::*;
pub use replay::*;
pub use report::*;
pub use seed::*;
pub use session::*;
pub use stats::*;
pub use status::*;
#[cfg(feature = "test-hooks")]
pub use test_hooks::*;
pub use version::*;
