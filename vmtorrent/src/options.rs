//! Invariant: the defaults suit a person at home; every limit says its unit.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// What is fetched that no read asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fill {
    /// Nothing.
    None,
    /// What the line has left over: pauses while a read waits or was waiting a moment ago.
    #[default]
    Idle,
    /// Everything, as fast as it comes; reads still go first.
    Full,
}

/// Where an appliance keeps what its guest writes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// Below the XDG state directory, by the image's name.
    #[default]
    Default,
    /// In this directory, which is made when it is absent.
    Directory(PathBuf),
    /// In a temporary directory that is removed at the end.
    Ephemeral,
}

/// Options of a [`Session`](crate::Session).
#[derive(Clone, Debug)]
pub struct SessionOptions {
    /// Address on which peers may connect; port 0 takes any free one. Default `0.0.0.0:0`.
    pub listen: SocketAddr,
    /// Directory of the pristine copies; default: below the XDG cache directory.
    pub cache: Option<PathBuf>,
    /// Bytes per second from all peers together; `None`: no limit.
    pub download_limit: Option<u64>,
    /// Bytes per second to all peers together; `None`: no limit.
    pub upload_limit: Option<u64>,
    /// Whether trackers are asked for peers.
    pub discovery: bool,
    /// Bytes of storage that the pristine copies of this session's images may take together; `None`: no bound.
    ///
    /// When it is reached, nothing is fetched in the background any more, and what reads need replaces what was not
    /// read for long. What guests write is not counted, nor are copies that this session does not use.
    pub max_disk: Option<u64>,
}

impl Default for SessionOptions {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([0, 0, 0, 0], 0)),
            cache: None,
            download_limit: None,
            upload_limit: None,
            discovery: true,
            max_disk: None,
        }
    }
}

/// Options of one [`Appliance`](crate::Appliance).
#[derive(Clone, Debug)]
pub struct ApplianceOptions {
    /// Where the overlay lives.
    pub state: State,
    /// Where the volume is mounted (an existing, empty directory); `None`: nowhere, use the calls.
    pub mount: Option<PathBuf>,
    /// Peers to connect to, beside those that trackers name.
    pub peers: Vec<SocketAddr>,
    /// What is fetched that no read asked for.
    pub fill: Fill,
    /// How long a read waits for missing data before it fails with `EIO`; `None`: for ever. Default 60 s.
    pub read_timeout: Option<Duration>,
}

impl Default for ApplianceOptions {
    fn default() -> Self {
        Self {
            state: State::Default,
            mount: None,
            peers: Vec::new(),
            fill: Fill::Idle,
            read_timeout: Some(Duration::from_secs(60)),
        }
    }
}

/// Options of [`launch`](crate::launch): a session of its own for one appliance.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The session's.
    pub session: SessionOptions,
    /// The appliance's.
    pub appliance: ApplianceOptions,
}
