//! The short form: one call from a source to a running appliance.

use crate::appliance::Appliance;
use crate::error::Result;
use crate::image::Source;
use crate::options::Options;
use crate::session::Session;

/// Loads an image's description from a .torrent file, its URL or the peers that a magnet link leads to, and starts an
/// appliance of it, in a session of its own.
///
/// ```no_run
/// # async fn run() -> vmtorrent::Result<()> {
/// let appliance = vmtorrent::launch("debian.torrent".parse()?, vmtorrent::Options::default()).await?;
/// println!("{} files", appliance.image().files().len());
/// appliance.shutdown().await?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// Those of [`Session::start`], [`Session::load`] and [`Session::launch`].
pub async fn launch(source: Source, options: Options) -> Result<Appliance> {
    let session = Session::start(options.session).await?;
    let source = source.with_peers(&options.appliance.peers);
    let image = session.load(&source).await?;
    let appliance = session.launch(image, options.appliance).await?;
    appliance.keep_session(session);
    Ok(appliance)
}
