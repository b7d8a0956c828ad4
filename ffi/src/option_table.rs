//! The keys of [`vmt_options`](crate::options::vmt_options).
//!
//! Invariant: a value is taken exactly as it was meant, or refused with an example of a good one; each key says what it
//! does, its unit and its default.

#![expect(
    clippy::unit_arg,
    reason = "a key that only stores its value is one expression"
)]

use std::ffi::CStr;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use vmtorrent::image::PublishOptions;
use vmtorrent::profile::Profile;
use vmtorrent::{ApplianceOptions, ExportOptions, Fill, SessionOptions, State};

/// All that options can say.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    pub(crate) session: SessionOptions,
    pub(crate) appliance: ApplianceOptions,
    pub(crate) publish: PublishOptions,
    pub(crate) export: ExportOptions,
    /// Where the profile is that is to be used, if it was named rather than given.
    pub(crate) profile_file: Option<PathBuf>,
}

impl Settings {
    /// The profile in use, read from its file if need be.
    pub(crate) fn profile(&self) -> Result<Option<Profile>, vmtorrent::Error> {
        match (&self.appliance.profile, &self.profile_file) {
            (None, Some(file)) => Profile::load(file).map(Some),
            (given, _) => Ok(given.clone()),
        }
    }
}

/// One key.
pub(crate) struct Key {
    pub(crate) name: &'static CStr,
    pub(crate) help: &'static CStr,
    /// Takes a value, or tells what would be a good one.
    pub(crate) set: fn(&mut Settings, &str) -> Result<(), &'static str>,
}

const SWITCH: &str = "write true or false";
const ADDRESS: &str = "write an IP address and a port such as 192.0.2.7:6881 or [2001:db8::7]:6881";
const RATE: &str = "write a whole number of bytes per second such as 12500000, or 0 for no limit";
const SLOTS: &str = "write a whole number up to 65535 such as 50, or 0 for no limit";
const SIZE: &str = "write a whole number of bytes such as 10737418240, or 0 for no limit";
const SECONDS: &str = "write seconds such as 60 or 0.5, or 0 for ever";
const WEB_SEED: &str = "write a URL such as https://images.example.org/debian/";
const TEXT: &str = "write at least one character";

macro_rules! key {
    ($name:literal, $help:literal, $set:expr) => {
        Key {
            name: $name,
            help: $help,
            set: $set,
        }
    };
}

/// Every key, in the order in which they are told.
pub(crate) static KEYS: &[Key] = &[
    // Of a session.
    key!(
        c"listen",
        c"IP:PORT on which peers connect; port 0 takes a free one. Default 0.0.0.0:0.",
        |s, v| Ok(s.session.listen = parsed(v, ADDRESS)?)
    ),
    key!(
        c"cache",
        c"Directory of the downloaded copies. Default: below the XDG cache directory; for an export the one of the last launch.",
        |s, v| {
            s.session.cache = Some(path(v)?);
            s.export.cache = s.session.cache.clone();
            Ok(())
        }
    ),
    key!(
        c"download-limit",
        c"Bytes per second from all peers together; 0: no limit. Default 0.",
        |s, v| Ok(s.session.download_limit = bounded(v, RATE)?)
    ),
    key!(
        c"upload-limit",
        c"Bytes per second to all peers together; 0: no limit. Default 0.",
        |s, v| Ok(s.session.upload_limit = bounded(v, RATE)?)
    ),
    key!(
        c"upload-slots",
        c"Peers of each image that may ask for blocks at once, up to 65535; those of the local network have slots of their own; 0: no limit. Default 0.",
        |s, v| {
            let slots: u16 = parsed(v, SLOTS)?;
            s.session.upload_slots = (slots > 0).then_some(slots.into());
            Ok(())
        }
    ),
    key!(
        c"discovery",
        c"Whether peers are looked for, beside those that `peer` names: true or false. Default true.",
        |s, v| Ok(s.session.discovery = switch(v)?)
    ),
    key!(
        c"local-discovery",
        c"Whether peers are looked for on the local network too: true or false. Default true.",
        |s, v| Ok(s.session.local_discovery = switch(v)?)
    ),
    key!(
        c"dht",
        c"Whether peers are looked for in the distributed hash table too: true or false. Default true.",
        |s, v| Ok(s.session.dht = switch(v)?)
    ),
    key!(
        c"dht-bootstrap",
        c"HOST:PORT of a node of the DHT that is asked first, in place of the public ones. May be set several times. Default: those of the variable VMTORRENT_DHT_BOOTSTRAP, else the public ones.",
        |s, v| {
            if !vmtorrent::text::is_node(v) {
                return Err("write a host and a port such as dht.example.org:6881");
            }
            let nodes = s.session.dht_bootstrap.get_or_insert_default();
            nodes.push(v.to_owned());
            Ok(())
        }
    ),
    key!(
        c"utp",
        c"Whether peers are reached over uTP (UDP) where TCP does not reach them, and let in so: true or false. Default true.",
        |s, v| Ok(s.session.utp = switch(v)?)
    ),
    key!(
        c"peer-exchange",
        c"Whether peers are asked for other peers and told of them: true or false. Default true.",
        |s, v| Ok(s.session.peer_exchange = switch(v)?)
    ),
    key!(
        c"profile-exchange",
        c"Whether peers are asked for profiles and given them: true or false. Default true.",
        |s, v| Ok(s.session.profile_exchange = switch(v)?)
    ),
    key!(
        c"compression",
        c"Whether blocks come and go compressed where the peer can do so and the line is slow: true or false. Default true.",
        |s, v| Ok(s.session.compression = switch(v)?)
    ),
    key!(
        c"compression-cache",
        c"Bytes of memory for compressed blocks that were sent; 0: none. Default 67108864.",
        |s, v| Ok(s.session.compression_cache = bounded(v, SIZE)?.unwrap_or(0))
    ),
    key!(
        c"max-connections",
        c"Connections to peers at once, 1 to 65535. Default 200.",
        |s, v| {
            const WHOLE: &str = "write a whole number from 1 to 65535 such as 200";
            let count: u16 = parsed(v, WHOLE)?;
            if count == 0 {
                return Err(WHOLE);
            }
            s.session.max_connections = count.into();
            Ok(())
        }
    ),
    key!(
        c"metadata-timeout",
        c"Seconds that peers are asked for the description of a magnet link's image; 0: for ever. Default 60.",
        |s, v| Ok(s.session.metadata_timeout = seconds(v)?)
    ),
    key!(
        c"max-disk",
        c"Bytes that the downloaded copies may take on the disk together; 0: no limit. Default 0.",
        |s, v| Ok(s.session.max_disk = bounded(v, SIZE)?)
    ),
    // Of an appliance.
    key!(
        c"state",
        c"Directory of what the guest writes, one for each machine. Default: below the XDG state directory, by the image's name.",
        |s, v| Ok(s.appliance.state = State::Directory(path(v)?))
    ),
    key!(
        c"ephemeral",
        c"Whether what the guest writes is forgotten at the end: true or false. Of this and `state` the later counts. Default false.",
        |s, v| {
            match (switch(v)?, &s.appliance.state) {
                (true, _) => s.appliance.state = State::Ephemeral,
                (false, State::Ephemeral) => s.appliance.state = State::Default,
                (false, _) => {}
            }
            Ok(())
        }
    ),
    key!(
        c"mount",
        c"An existing, empty directory where the image appears through FUSE. Default: nowhere.",
        |s, v| Ok(s.appliance.mount = Some(path(v)?))
    ),
    key!(
        c"allow-other",
        c"Whether other users may open the mount too: true or false. Default false.",
        |s, v| Ok(s.appliance.allow_other = switch(v)?)
    ),
    key!(
        c"peer",
        c"IP:PORT of a peer to connect to, beside those that are found. May be set several times. Default: none.",
        |s, v| {
            let peer: SocketAddr = parsed(v, ADDRESS)?;
            s.appliance.peers.push(peer);
            Ok(())
        }
    ),
    key!(
        c"fill",
        c"What is fetched in the background: none, idle (what the line has left over) or full. Default idle.",
        |s, v| {
            s.appliance.fill = match v {
                "none" => Fill::None,
                "idle" => Fill::Idle,
                "full" => Fill::Full,
                _ => return Err("write none, idle or full"),
            };
            Ok(())
        }
    ),
    key!(
        c"profile",
        c"File with what earlier runs read: it is fetched ahead of the guest, or put into the .torrent file. It is read by the call that uses it. Of this and vmt_options_set_profile the later counts. Default: the one in the .torrent file, and the runs that this host kept.",
        |s, v| {
            s.profile_file = Some(path(v)?);
            s.appliance.profile = None;
            Ok(())
        }
    ),
    key!(
        c"auto-profile",
        c"Whether the run is kept in the cache as a profile for later ones, and earlier ones are used: true or false. Default true.",
        |s, v| Ok(s.appliance.auto_profile = switch(v)?)
    ),
    key!(
        c"record",
        c"File that the run is written to as a profile, every few seconds and at the end. Default: none.",
        |s, v| Ok(s.appliance.record = Some(path(v)?))
    ),
    key!(
        c"read-timeout",
        c"Seconds that a read waits for missing data before it fails; 0: for ever. Also of an export. Default 60.",
        |s, v| {
            s.appliance.read_timeout = seconds(v)?;
            s.export.read_timeout = s.appliance.read_timeout;
            Ok(())
        }
    ),
    key!(
        c"trace",
        c"File that gets the guest's reads of the boot disk, a line `think_us offset length` for each. Default: none.",
        |s, v| Ok(s.appliance.trace = Some(path(v)?))
    ),
    // Of a .torrent file that is made.
    key!(
        c"name",
        c"Name of the image in the .torrent file. Default: the last part of its path.",
        |s, v| Ok(s.publish.name = Some(some(v)?.to_owned()))
    ),
    key!(
        c"piece-size",
        c"Bytes of a piece, a multiple of 16384 up to 134217728. Default: 16384 up to 2 GiB of image, then doubling.",
        |s, v| {
            const PIECE: &str = "write a multiple of 16384 such as 65536";
            Ok(s.publish.piece_size = Some(parsed(v, PIECE)?))
        }
    ),
    key!(
        c"tracker",
        c"URL of a tracker at which peers find each other, for the .torrent file. May be set several times. Default: none.",
        |s, v| Ok(s.publish.trackers.push(some(v)?.to_owned()))
    ),
    key!(
        c"web-seed",
        c"URL (http or https) of a web server that holds the image too: for the .torrent file, or for a launch beside those that the .torrent file names. May be set several times. Default: none.",
        |s, v| {
            s.appliance.web_seeds.push(parsed(some(v)?, WEB_SEED)?);
            Ok(s.publish.web_seeds.push(v.to_owned()))
        }
    ),
    key!(
        c"private",
        c"Whether the .torrent file asks to have peers from its trackers only: true or false. Default false.",
        |s, v| Ok(s.publish.private = switch(v)?)
    ),
];

fn parsed<T: FromStr>(value: &str, good: &'static str) -> Result<T, &'static str> {
    value.parse().map_err(|_| good)
}

fn switch(value: &str) -> Result<bool, &'static str> {
    parsed(value, SWITCH)
}

/// A number of bytes, of which 0 means that there is no bound.
fn bounded(value: &str, good: &'static str) -> Result<Option<u64>, &'static str> {
    // The parser would take a plus sign.
    if value.starts_with('+') {
        return Err(good);
    }
    let bytes: u64 = parsed(value, good)?;
    Ok((bytes > 0).then_some(bytes))
}

/// A time, of which 0 means for ever.
fn seconds(value: &str) -> Result<Option<Duration>, &'static str> {
    if !value.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(SECONDS);
    }
    let seconds: f64 = parsed(value, SECONDS)?;
    let time = Duration::try_from_secs_f64(seconds).map_err(|_| SECONDS)?;
    Ok((!time.is_zero()).then_some(time))
}

fn some(value: &str) -> Result<&str, &'static str> {
    if value.is_empty() {
        Err(TEXT)
    } else {
        Ok(value)
    }
}

fn path(value: &str) -> Result<PathBuf, &'static str> {
    some(value).map(PathBuf::from)
}
