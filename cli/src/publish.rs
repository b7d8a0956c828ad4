//! Invariant: the .torrent file is written whole or not at all.

use std::process::ExitCode;

use vmtorrent::image::{self, PublishOptions};
use vmtorrent::profile::Profile;

use crate::args::PublishArgs;
use crate::failure::Failure;
use crate::output::{LiveLine, Output};
use vmtorrent::text::Bytes;

/// Makes a .torrent file.
pub fn run(args: PublishArgs, line: LiveLine) -> Result<ExitCode, Failure> {
    let output = Output::new(false, false, line);
    let options = PublishOptions {
        name: args.name,
        piece_size: args.piece_size,
        trackers: args.trackers,
        web_seeds: args.web_seeds,
        private: args.private,
    };
    let profile = args.profile.as_deref().map(Profile::load).transpose()?;
    let mut published = image::publish_with_progress(&args.path, &options, |done, total| {
        output.work(format_args!("hashed {} of {}", Bytes(done), Bytes(total)));
    })?;
    if let Some(profile) = profile {
        published = published.with_profile(&profile)?;
    }
    published.write_to(&args.output)?;
    let geometry = published.image.geometry();
    output.say(format_args!(
        "{}: {} in {} pieces of {}, info-hash {}",
        args.output.display(),
        Bytes(geometry.total_length()),
        geometry.piece_count(),
        Bytes(u64::from(geometry.nominal_piece_length())),
        published.image.info_hash()
    ));
    output.say(published.image.magnet());
    Ok(ExitCode::SUCCESS)
}
