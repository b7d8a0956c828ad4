//! Invariant: the defaults suit a person at home; every limit says its unit.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use crate::profile::Profile;

/// What is fetched in the background, beside what reads ask for and what is fetched around and behind them: the rest of
/// the 64 KiB (or of the piece) that a read touches, up to two more of these behind it while such guesses come true, and
/// the windows of sequential reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fill {
    /// Nothing in the background.
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
    /// Peers of each image that may ask for blocks at once (are unchoked); `None`: no limit but that of connections, the
    /// line is shared by all. At least one. Peers of the local network (private and link-local addresses) do not count:
    /// they have 200 slots of their own, or as many if that is more. Default: no limit.
    pub upload_slots: Option<usize>,
    /// Whether peers are looked for at all: through trackers, in the DHT, on the local network, of peers, and where an
    /// earlier run found
    /// them. Without it only those are dialled that [`ApplianceOptions::peers`] names, and only the web servers of
    /// [`ApplianceOptions::web_seeds`] are asked. Default: yes.
    pub discovery: bool,
    /// Whether peers on the local network are looked for (BEP 14, multicast to UDP port 6771), unless the image is
    /// private. Needs `discovery`. Default: yes.
    pub local_discovery: bool,
    /// Whether peers are looked for in the distributed hash table (BEP 5, for IPv6 BEP 32), unless the image is private. The
    /// session is a node of it then, on the UDP port of `listen`'s number if that is free. Needs `discovery`. Default: yes.
    pub dht: bool,
    /// Nodes that are asked first, as `HOST:PORT`; `None`: those that the environment variable `VMTORRENT_DHT_BOOTSTRAP`
    /// names, with spaces or commas between them, or else the public ones, unless `listen` is on this host alone. Where
    /// none is named and no earlier session left any in the cache, there is no node. The first node of a network of one's
    /// own names itself. Default: `None`.
    pub dht_bootstrap: Option<Vec<String>>,
    /// Whether peers are reached over uTP (BEP 29) where TCP does not reach them, and may connect so: on the UDP port of
    /// `listen`'s number if that is free, which the session's node of the DHT shares. Without the crate's feature `utp` it
    /// has no effect. Default: yes.
    pub utp: bool,
    /// Whether peers are asked for other peers and told of them (BEP 11), unless the image is private. Needs `discovery`.
    /// Default: yes.
    pub peer_exchange: bool,
    /// Whether profiles are exchanged with peers: a launch that has none asks for one, and peers are given the one that a
    /// seed or a launch uses, or else what the guest of a launch read so far. Default: yes.
    pub profile_exchange: bool,
    /// Whether blocks come from peers, and go to them, compressed (zstd) where the peer can do so and the line is slow
    /// enough that it helps: below 400 Mbit/s. Default: yes.
    pub compression: bool,
    /// Bytes of memory for compressed blocks that were sent to peers, so that the next who asks costs no processor time,
    /// of all images together. Default 64 MiB.
    pub compression_cache: u64,
    /// Connections to peers at once, of all images together; at least one. Default 200. One address gets at most half
    /// of them by connecting to us (programs of this host are not counted so).
    pub max_connections: usize,
    /// How long peers are asked for the description of an image that a magnet link names; `None`: for ever.
    /// Default 60 s.
    pub metadata_timeout: Option<Duration>,
    /// Bytes of storage that the pristine copies of this session's images may take together; `None`: no bound.
    ///
    /// When it is reached, nothing is fetched in the background any more, and what reads need replaces what was not
    /// read for long, in the copy that takes most: images that are used at the same time come to equal parts. What guests write is not counted, nor are copies that this session does not use.
    pub max_disk: Option<u64>,
}

impl Default for SessionOptions {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([0, 0, 0, 0], 0)),
            cache: None,
            download_limit: None,
            upload_limit: None,
            upload_slots: None,
            discovery: true,
            local_discovery: true,
            dht: true,
            dht_bootstrap: None,
            utp: true,
            peer_exchange: true,
            profile_exchange: true,
            compression: true,
            compression_cache: 64 << 20,
            max_connections: 200,
            metadata_timeout: Some(Duration::from_secs(60)),
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
    /// Lets other users into the mount, within the limits of the permission bits: for a VMM that runs as
    /// a user of its own. Who is not root needs `user_allow_other` in `/etc/fuse.conf` for that. Default: no.
    pub allow_other: bool,
    /// Peers to connect to, beside those that trackers name.
    pub peers: Vec<SocketAddr>,
    /// Web servers (http or https) that hold the image's files, beside those that its .torrent file or magnet link names.
    pub web_seeds: Vec<Url>,
    /// What is fetched that no read asked for.
    pub fill: Fill,
    /// What earlier runs read, and when: it is fetched before the guest asks for it. `None`: what came with the image,
    /// and if `auto_profile` is set what this host kept of its own launches; when there is neither, a peer is asked for
    /// one, see [`SessionOptions::profile_exchange`].
    pub profile: Option<Profile>,
    /// Whether the run is kept in the cache, for later launches of the image, and earlier ones are used. Default: yes.
    pub auto_profile: bool,
    /// A file that the run is written to as a profile, every few seconds and at the end.
    pub record: Option<PathBuf>,
    /// How long a read waits for missing data before it fails with `EIO`; `None`: for ever. Default 60 s.
    pub read_timeout: Option<Duration>,
    /// A file that gets the guest's reads of the boot disk ([`Appliance::disk_path`](crate::Appliance::disk_path)), as far
    /// as they reach the image: for each read a line `think_us offset length`, where `think_us` is the time since the
    /// read before, without the time during which a read waited for the swarm, in microseconds. What it held is
    /// replaced. Default: none.
    pub trace: Option<PathBuf>,
}

impl Default for ApplianceOptions {
    fn default() -> Self {
        Self {
            state: State::Default,
            mount: None,
            allow_other: false,
            peers: Vec::new(),
            web_seeds: Vec::new(),
            fill: Fill::Idle,
            profile: None,
            auto_profile: true,
            record: None,
            read_timeout: Some(Duration::from_secs(60)),
            trace: None,
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
