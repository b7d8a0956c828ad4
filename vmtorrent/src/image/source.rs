//! Invariant: whatever the source, at most 64 MiB are read and the image is validated.

use std::fmt;
use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use url::Url;

use super::metainfo::MAX_TORRENT_BYTES;
use super::{Image, Magnet};
use crate::http::HttpClient;
use crate::{Error, ErrorKind, Result};

/// How long a web server may take to deliver a .torrent file.
const DOWNLOAD_TIMEOUT: Duration = Duration::from_secs(30);

/// Where an image's description is: a .torrent file, or the peers that a magnet link leads to.
///
/// ```
/// use vmtorrent::image::Source;
///
/// let source: Source = "https://example.org/appliance.torrent".parse()?;
/// assert!(matches!(source, Source::Url(_)));
/// # Ok::<(), vmtorrent::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Source {
    /// In a local file.
    File(PathBuf),
    /// On a web server, by an `http` or `https` URL.
    Url(Url),
    /// Here, as its bytes.
    Bytes(Bytes),
    /// At peers: only [`Session::load`](crate::Session::load) can ask them.
    Magnet(Magnet),
}

impl Source {
    /// Reads and validates the image's description.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] and the other kinds of file errors, [`ErrorKind::Network`] and
    /// [`ErrorKind::TimedOut`] (after 30 s) for a web server, [`ErrorKind::InvalidTorrent`] for what
    /// came from there. [`ErrorKind::InvalidInput`] for a magnet link, which needs a session.
    pub async fn load(&self) -> Result<Image> {
        let bytes = match self {
            Self::Bytes(bytes) => bytes.clone(),
            Self::Url(url) => download(url).await?,
            Self::File(path) => {
                let path = path.clone();
                blocking(move || read(&path)).await?
            }
            Self::Magnet(_) => {
                return Err(Error::new(
                    ErrorKind::InvalidInput,
                    format!(
                        "{self} leads to peers, and asking them takes a session: call Session::load instead"
                    ),
                ));
            }
        };
        let name = self.to_string();
        blocking(move || {
            Image::from_bytes(bytes)
                .map_err(|e| Error::new(e.kind(), format!("{name}: {}", e.context())))
        })
        .await
    }
}

impl Source {
    /// Adds peers that may be asked for the description, beside those that a magnet link names. Nothing
    /// changes for other sources.
    #[must_use]
    pub fn with_peers(mut self, peers: &[SocketAddr]) -> Self {
        if let Self::Magnet(magnet) = &mut self {
            peers.iter().for_each(|peer| magnet.add_peer(*peer));
        }
        self
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(e) if e.is_panic() => std::panic::resume_unwind(e.into_panic()),
        Err(e) => Err(Error::with_source(
            ErrorKind::Closed,
            "the runtime was shut down while a .torrent file was loaded",
            e,
        )),
    }
}

fn read(path: &Path) -> Result<Bytes> {
    let shown = path.display();
    let failed = |e| {
        Error::io(
            format!("cannot read {shown}; check the name and its permissions"),
            e,
        )
    };
    let file = std::fs::File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if metadata.is_dir() {
        return Err(Error::new(
            ErrorKind::InvalidInput,
            format!("{shown} is a directory; name a .torrent file"),
        ));
    }
    if metadata.len() > MAX_TORRENT_BYTES as u64 {
        return Err(Error::new(
            ErrorKind::InvalidTorrent,
            format!(
                "{shown} is larger than 64 MiB and so no .torrent file; make one of an image with `vmtorrent publish`"
            ),
        ));
    }
    let mut bytes = Vec::new();
    file.take(MAX_TORRENT_BYTES as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    Ok(bytes.into())
}

async fn download(url: &Url) -> Result<Bytes> {
    let answer = HttpClient::new()?
        .get(url.clone(), MAX_TORRENT_BYTES, DOWNLOAD_TIMEOUT)
        .await
        .map_err(|e| Error::new(e.kind(), format!("cannot download {}: {e}", shown(url))))?;
    let url = shown(url);
    match answer.status.as_u16() {
        200 => Ok(answer.body),
        404 | 410 => Err(Error::new(
            ErrorKind::NotFound,
            format!("{url} does not exist; check the URL"),
        )),
        401 | 403 => Err(Error::new(
            ErrorKind::PermissionDenied,
            format!("{url} may not be downloaded; check the URL and its user name and password"),
        )),
        _ => Err(Error::new(
            ErrorKind::Network,
            format!("{url} was answered with {}; try again later", answer.status),
        )),
    }
}

/// A URL without what may be a secret, for messages: password, query and fragment.
fn shown(url: &Url) -> Url {
    let mut url = url.clone();
    // Only URLs that can't have a password refuse.
    let _ = url.set_password(None);
    if url.query().is_some() {
        url.set_query(Some("..."));
    }
    url.set_fragment(None);
    url
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Url(url) => shown(url).fmt(f),
            Self::Bytes(_) => f.write_str("torrent in memory"),
            // Its trackers may hold the user's keys.
            Self::Magnet(magnet) => write!(f, "magnet link {}", magnet.info_hash()),
        }
    }
}

/// Takes a magnet link, an `http` or `https` URL, a `file` URL, or else a path.
impl FromStr for Source {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let invalid = |why: &str| Error::new(ErrorKind::InvalidInput, format!("{text:?} {why}"));
        let scheme = text.split_once(':').map(|(s, _)| s.to_ascii_lowercase());
        match scheme.as_deref() {
            Some("magnet") => text.parse().map(Self::Magnet),
            Some("http" | "https" | "file") => Url::parse(text)
                .map_err(|e| {
                    Error::with_source(
                        ErrorKind::InvalidInput,
                        format!("{text:?} is no valid URL; correct it"),
                        e,
                    )
                })?
                .try_into(),
            Some(_) if text.contains("://") => Err(invalid(
                "has an unknown scheme; pass a .torrent file, its http(s) URL or a magnet link",
            )),
            _ if text.is_empty() => Err(invalid("names nothing; pass a .torrent file or its URL")),
            _ => Ok(Self::File(text.into())),
        }
    }
}

impl From<Magnet> for Source {
    fn from(magnet: Magnet) -> Self {
        Self::Magnet(magnet)
    }
}

impl TryFrom<&str> for Source {
    type Error = Error;

    fn try_from(text: &str) -> Result<Self> {
        text.parse()
    }
}

impl TryFrom<String> for Source {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl TryFrom<Url> for Source {
    type Error = Error;

    fn try_from(url: Url) -> Result<Self> {
        if matches!(url.scheme(), "http" | "https") {
            return Ok(Self::Url(url));
        }
        if url.scheme() == "magnet" {
            return url.as_str().parse().map(Self::Magnet);
        }
        if url.scheme() == "file"
            && let Ok(path) = url.to_file_path()
        {
            return Ok(Self::File(path));
        }
        Err(Error::new(
            ErrorKind::InvalidInput,
            format!(
                "{} cannot be loaded; pass a .torrent file or its http(s) URL",
                shown(&url)
            ),
        ))
    }
}

impl From<PathBuf> for Source {
    fn from(path: PathBuf) -> Self {
        Self::File(path)
    }
}

impl From<&Path> for Source {
    fn from(path: &Path) -> Self {
        Self::File(path.into())
    }
}

impl From<Bytes> for Source {
    fn from(bytes: Bytes) -> Self {
        Self::Bytes(bytes)
    }
}

#[cfg(test)]
#[path = "source_tests.rs"]
mod tests;
