//! What the Python layer passes as dictionaries; that layer holds the defaults, and here is what is checked.
//!
//! Invariant: a value is taken exactly as it was meant, or refused with the option's name and a remedy.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use pyo3::prelude::*;
use vmtorrent::image::PublishOptions;
use vmtorrent::{ApplianceOptions, Fill, SessionOptions, State};

use crate::failure::Failure;
use crate::profile::Profile;

/// All that a launch needs.
pub(crate) struct Settings {
    pub(crate) session: SessionOptions,
    pub(crate) appliance: ApplianceOptions,
}

/// Of a session.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct SessionSettings {
    listen: Option<String>,
    cache: Option<PathBuf>,
    download_limit: Option<u64>,
    upload_limit: Option<u64>,
    upload_slots: Option<u64>,
    discovery: bool,
    local_discovery: bool,
    dht: bool,
    dht_bootstrap: Option<Vec<String>>,
    utp: bool,
    peer_exchange: bool,
    profile_exchange: bool,
    compression: bool,
    max_connections: u64,
    metadata_timeout: Option<f64>,
    max_disk: Option<u64>,
}

impl TryFrom<SessionSettings> for SessionOptions {
    type Error = Failure;

    fn try_from(given: SessionSettings) -> Result<Self, Failure> {
        let connections = u16::try_from(given.max_connections).ok().filter(|n| *n > 0);
        Ok(Self {
            listen: match given.listen {
                Some(listen) => address("listen", &listen)?,
                None => Self::default().listen,
            },
            cache: given.cache,
            download_limit: limit("download_limit", given.download_limit)?,
            upload_limit: limit("upload_limit", given.upload_limit)?,
            upload_slots: slots(given.upload_slots)?,
            discovery: given.discovery,
            local_discovery: given.local_discovery,
            dht: given.dht,
            dht_bootstrap: given.dht_bootstrap,
            utp: given.utp,
            peer_exchange: given.peer_exchange,
            profile_exchange: given.profile_exchange,
            compression: given.compression,
            max_connections: connections
                .ok_or_else(|| {
                    Failure::invalid("`max_connections` must be from 1 to 65535, 200 for instance")
                })?
                .into(),
            metadata_timeout: seconds("metadata_timeout", given.metadata_timeout)?,
            max_disk: limit("max_disk", given.max_disk)?,
            ..Self::default()
        })
    }
}

/// Of an appliance.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct ApplianceSettings<'py> {
    state: Option<PathBuf>,
    ephemeral: bool,
    mount: Option<PathBuf>,
    allow_other: bool,
    peers: Vec<String>,
    web_seeds: Vec<String>,
    fill: String,
    profile: Option<PyRef<'py, Profile>>,
    auto_profile: bool,
    record: Option<PathBuf>,
    read_timeout: Option<f64>,
    trace: Option<PathBuf>,
}

impl TryFrom<ApplianceSettings<'_>> for ApplianceOptions {
    type Error = Failure;

    fn try_from(given: ApplianceSettings<'_>) -> Result<Self, Failure> {
        Ok(Self {
            state: match (given.state, given.ephemeral) {
                (Some(_), true) => {
                    return Err(Failure::invalid(
                        "`state` and `ephemeral` exclude each other: leave one out",
                    ));
                }
                (Some(directory), false) => State::Directory(directory),
                (None, true) => State::Ephemeral,
                (None, false) => State::Default,
            },
            mount: given.mount,
            allow_other: given.allow_other,
            peers: given
                .peers
                .iter()
                .map(|peer| address("peers", peer))
                .collect::<Result<_, _>>()?,
            web_seeds: given
                .web_seeds
                .iter()
                .map(|url| {
                    url.parse().map_err(|e| {
                        Failure::invalid(format!(
                            "`web_seeds` can't have {url:?}: {e}: write a URL, http://host/debian.img for instance"
                        ))
                    })
                })
                .collect::<Result<_, _>>()?,
            fill: match given.fill.as_str() {
                "none" => Fill::None,
                "idle" => Fill::Idle,
                "full" => Fill::Full,
                other => {
                    return Err(Failure::invalid(format!(
                        "`fill` can't be {other:?}: write \"none\", \"idle\" or \"full\""
                    )));
                }
            },
            profile: given.profile.map(|profile| profile.copy()),
            auto_profile: given.auto_profile,
            record: given.record,
            read_timeout: seconds("read_timeout", given.read_timeout)?,
            trace: given.trace,
        })
    }
}

/// Of a .torrent file that is made.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct PublishSettings {
    name: Option<String>,
    piece_size: Option<u32>,
    trackers: Vec<String>,
    web_seeds: Vec<String>,
    private: bool,
}

impl From<PublishSettings> for PublishOptions {
    fn from(given: PublishSettings) -> Self {
        Self {
            name: given.name,
            piece_size: given.piece_size,
            trackers: given.trackers,
            web_seeds: given.web_seeds,
            private: given.private,
        }
    }
}

/// An IP address and a port.
pub(crate) fn address(option: &str, text: &str) -> Result<SocketAddr, Failure> {
    text.parse().map_err(|_| {
        Failure::invalid(format!(
            "`{option}` can't be {text:?}: write an IP address and a port such as 192.0.2.7:6881 or [2001:db8::7]:6881"
        ))
    })
}

fn limit(option: &str, bytes: Option<u64>) -> Result<Option<u64>, Failure> {
    match bytes {
        Some(0) => Err(Failure::invalid(format!(
            "`{option}` can't be 0: write a number of bytes, or None for no limit"
        ))),
        bytes => Ok(bytes),
    }
}

/// A number of peers; `None` stands for no limit.
fn slots(slots: Option<u64>) -> Result<Option<usize>, Failure> {
    let slots = slots.map(|n| u16::try_from(n).ok().filter(|n| *n > 0).ok_or(()));
    match slots.transpose() {
        Ok(slots) => Ok(slots.map(usize::from)),
        Err(()) => Err(Failure::invalid(
            "`upload_slots` must be from 1 to 65535, or None for no limit",
        )),
    }
}

/// A time; `None` stands for ever.
pub(crate) fn seconds(option: &str, seconds: Option<f64>) -> Result<Option<Duration>, Failure> {
    let time = seconds.map(Duration::try_from_secs_f64).transpose();
    time.map_err(|_| {
        Failure::invalid(format!(
            "`{option}` must be seconds such as 60 or 0.5, or None for ever"
        ))
    })
}
