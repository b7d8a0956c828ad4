//! Invariant: all figures of one image, or of one appliance, are taken in one go, and every name stands here once.

use std::sync::{Arc, Weak};

use super::counter::Counter;
use super::exposition::{Exposition, Labels};
use crate::appliance::{Counters, GuestFigures, OPERATIONS, WaitFigures};
use crate::picker::Band;
use crate::session::Shared;
use crate::swarm::PeerCounts;

/// What a session counts beside its images.
#[derive(Debug, Default)]
pub(crate) struct SessionCounters {
    /// Peers that were turned away because too many shook hands.
    pub(crate) refused_busy: Counter,
    /// Peers that did not shake hands as BEP 3 has it, or too slowly.
    pub(crate) refused_handshake: Counter,
    /// Peers that asked for an image that is not here.
    pub(crate) refused_unknown: Counter,
}

/// What is told of one image.
#[derive(Debug)]
pub(crate) struct ImageFigures {
    pub(crate) labels: Labels,
    pub(crate) total_bytes: u64,
    pub(crate) present_bytes: u64,
    /// By band.
    pub(crate) fetched_bytes: [u64; 4],
    pub(crate) fetched_wire_bytes: u64,
    pub(crate) web_seed_bytes: u64,
    pub(crate) web_seeds: u64,
    pub(crate) wasted_bytes: u64,
    pub(crate) uploaded_bytes: u64,
    pub(crate) uploaded_wire_bytes: u64,
    pub(crate) peers: PeerCounts,
    pub(crate) storage_failing: bool,
    pub(crate) announces_answered: u64,
    pub(crate) announces_failed: u64,
    pub(crate) pieces_verified: u64,
    pub(crate) pieces_failed: u64,
    pub(crate) pieces_damaged: u64,
    pub(crate) storage_errors: u64,
    pub(crate) dials: u64,
    pub(crate) dial_failures: u64,
    pub(crate) refused: u64,
}

/// An appliance that runs.
pub(crate) struct ApplianceEntry {
    pub(crate) labels: Labels,
    pub(crate) counters: Weak<Counters>,
}

/// What is told of one appliance.
struct ApplianceFigures {
    labels: Labels,
    guest: GuestFigures,
    waits: WaitFigures,
    stalls: u64,
    stall_seconds: f64,
    touched_bytes: u64,
}

impl ApplianceEntry {
    fn figures(&self, session: &Shared) -> Option<ApplianceFigures> {
        let counters: Arc<Counters> = self.counters.upgrade()?;
        let stalls = counters.stalls(session.clock().now());
        Some(ApplianceFigures {
            labels: self.labels.clone(),
            guest: counters.guest(),
            waits: counters.waits(),
            stalls: stalls.count,
            stall_seconds: stalls.total.as_secs_f64(),
            touched_bytes: counters.touched_bytes(),
        })
    }
}

/// The names of the bands, in the order of [`Band::ALL`].
const BANDS: [&str; Band::ALL.len()] = ["demand", "readahead", "profile", "background"];

/// Adds all figures of a session.
pub(super) fn write(page: &mut Exposition, session: &Shared) {
    let images: Vec<ImageFigures> = session.torrents().iter().map(|t| t.figures()).collect();
    let appliances: Vec<ApplianceFigures> = {
        let mut entries = session.appliances.lock();
        entries.retain(|entry| entry.counters.strong_count() > 0);
        entries.iter().filter_map(|e| e.figures(session)).collect()
    };
    let none = Labels::none();
    page.gauge("vmtorrent_build_info", "1; the label tells the version.")
        .sample(&none.with("version", env!("CARGO_PKG_VERSION")), 1);
    page.gauge("vmtorrent_images", "Images that are launched or seeded.")
        .sample(&none, images.len() as u64);
    page.gauge("vmtorrent_appliances", "Appliances that run.")
        .sample(&none, appliances.len() as u64);
    let mut refused = page.counter(
        "vmtorrent_connections_refused_total",
        "Connections of peers that were turned away before it was known for which image they may stay.",
    );
    let counters = &session.counters;
    for (reason, count) in [
        ("busy", &counters.refused_busy),
        ("handshake", &counters.refused_handshake),
        ("unknown_image", &counters.refused_unknown),
    ] {
        refused.sample(&none.with("reason", reason), count.get());
    }
    write_images(page, &images);
    write_swarms(page, &images);
    write_appliances(page, &appliances);
}

/// How far each image is, and what that has cost.
fn write_images(page: &mut Exposition, images: &[ImageFigures]) {
    each(
        images,
        page.gauge("vmtorrent_image_bytes", "Length of the image."),
        |i| (&i.labels, i.total_bytes),
    );
    each(
        images,
        page.gauge(
            "vmtorrent_image_present_bytes",
            "Bytes of the image that are here; zeros and duplicates count.",
        ),
        |i| (&i.labels, i.present_bytes),
    );
    let mut fetched = page.counter(
        "vmtorrent_image_fetched_bytes_total",
        "Bytes received from peers and web seeds and kept, by what they were for.",
    );
    for image in images {
        for (band, bytes) in BANDS.into_iter().zip(image.fetched_bytes) {
            fetched.sample(&image.labels.with("band", band), bytes);
        }
    }
    each(
        images,
        page.counter(
            "vmtorrent_image_fetched_wire_bytes_total",
            "What the bytes fetched took on the wire: less where they came compressed.",
        ),
        |i| (&i.labels, i.fetched_wire_bytes),
    );
    each(
        images,
        page.counter(
            "vmtorrent_image_web_seed_bytes_total",
            "Of the bytes fetched, those that web servers sent.",
        ),
        |i| (&i.labels, i.web_seed_bytes),
    );
    each(
        images,
        page.counter(
            "vmtorrent_image_wasted_bytes_total",
            "Bytes received in vain: second copies, and pieces that were wrong or could not be stored.",
        ),
        |i| (&i.labels, i.wasted_bytes),
    );
    each(
        images,
        page.counter(
            "vmtorrent_image_uploaded_bytes_total",
            "Bytes sent to peers.",
        ),
        |i| (&i.labels, i.uploaded_bytes),
    );
    each(
        images,
        page.counter(
            "vmtorrent_image_uploaded_wire_bytes_total",
            "What the bytes sent took on the wire: less where they went compressed.",
        ),
        |i| (&i.labels, i.uploaded_wire_bytes),
    );
    each(
        images,
        page.counter(
            "vmtorrent_image_pieces_verified_total",
            "Pieces that came with the right hash and were stored.",
        ),
        |i| (&i.labels, i.pieces_verified),
    );
    each(
        images,
        page.counter(
            "vmtorrent_image_pieces_failed_total",
            "Pieces that came with a wrong hash.",
        ),
        |i| (&i.labels, i.pieces_failed),
    );
    each(
        images,
        page.counter(
            "vmtorrent_image_pieces_damaged_total",
            "Pieces on the disk that turned out damaged.",
        ),
        |i| (&i.labels, i.pieces_damaged),
    );
    each(
        images,
        page.counter(
            "vmtorrent_image_storage_errors_total",
            "Pieces that came and could not be stored.",
        ),
        |i| (&i.labels, i.storage_errors),
    );
    each(
        images,
        page.gauge(
            "vmtorrent_image_storage_failing",
            "1 while pieces can't be stored (a full disk, for example), else 0.",
        ),
        |i| (&i.labels, u64::from(i.storage_failing)),
    );
}

/// Who each image is exchanged with.
fn write_swarms(page: &mut Exposition, images: &[ImageFigures]) {
    let mut peers = page.gauge(
        "vmtorrent_image_peers",
        "Connected peers, by who opened the connection.",
    );
    for image in images {
        let PeerCounts {
            incoming, outgoing, ..
        } = image.peers;
        peers.sample(&image.labels.with("direction", "incoming"), incoming);
        peers.sample(&image.labels.with("direction", "outgoing"), outgoing);
    }
    each(
        images,
        page.gauge(
            "vmtorrent_image_utp_peers",
            "Of the connected peers, those over uTP.",
        ),
        |i| (&i.labels, i.peers.utp),
    );
    each(
        images,
        page.gauge(
            "vmtorrent_image_web_seeds",
            "Web servers that hold the image and can be asked.",
        ),
        |i| (&i.labels, i.web_seeds),
    );
    each(
        images,
        page.counter(
            "vmtorrent_image_dials_total",
            "Connections to peers that were tried.",
        ),
        |i| (&i.labels, i.dials),
    );
    each(
        images,
        page.counter(
            "vmtorrent_image_dial_failures_total",
            "Connections to peers that were tried and failed.",
        ),
        |i| (&i.labels, i.dial_failures),
    );
    each(
        images,
        page.counter(
            "vmtorrent_image_connections_refused_total",
            "Peers of the image that were turned away because it has enough of them.",
        ),
        |i| (&i.labels, i.refused),
    );
    let mut announces = page.counter(
        "vmtorrent_image_tracker_announces_total",
        "Announces to trackers, by how they ended.",
    );
    for image in images {
        let ok = image.labels.with("result", "ok");
        announces.sample(&ok, image.announces_answered);
        let failed = image.labels.with("result", "failed");
        announces.sample(&failed, image.announces_failed);
    }
}

/// What each guest asks for, and how long it waits.
fn write_appliances(page: &mut Exposition, appliances: &[ApplianceFigures]) {
    type Figure = fn(&ApplianceFigures) -> u64;
    let counters: [(&str, &str, Figure); 10] = [
        (
            "vmtorrent_appliance_reads_total",
            "Reads of the guest that were answered.",
            |a| a.guest.reads,
        ),
        (
            "vmtorrent_appliance_read_bytes_total",
            "Bytes that the guest read.",
            |a| a.guest.read_bytes,
        ),
        (
            "vmtorrent_appliance_writes_total",
            "Writes of the guest that were carried out.",
            |a| a.guest.writes,
        ),
        (
            "vmtorrent_appliance_written_bytes_total",
            "Bytes that the guest wrote.",
            |a| a.guest.written_bytes,
        ),
        (
            "vmtorrent_appliance_discards_total",
            "Ranges that the guest discarded or filled with zeros.",
            |a| a.guest.discards,
        ),
        (
            "vmtorrent_appliance_discarded_bytes_total",
            "Bytes that the guest discarded or filled with zeros.",
            |a| a.guest.discarded_bytes,
        ),
        (
            "vmtorrent_appliance_flushes_total",
            "Flushes of the guest that were acknowledged.",
            |a| a.guest.flushes,
        ),
        (
            "vmtorrent_appliance_read_timeouts_total",
            "Reads and writes that failed because missing data did not come in time.",
            |a| a.guest.read_timeouts,
        ),
        (
            "vmtorrent_appliance_distinct_read_bytes_total",
            "Distinct 64 KiB blocks of the image that reads reached, in bytes.",
            |a| a.touched_bytes,
        ),
        (
            "vmtorrent_appliance_stalls_total",
            "Reads that had to wait for the swarm.",
            |a| a.stalls,
        ),
    ];
    for (name, help, figure) in counters {
        each(appliances, page.counter(name, help), |a| {
            (&a.labels, figure(a))
        });
    }
    let mut errors = page.counter(
        "vmtorrent_appliance_errors_total",
        "Requests of the guest that ended with an error.",
    );
    for appliance in appliances {
        for (operation, count) in OPERATIONS.into_iter().zip(appliance.guest.errors) {
            let operation = operation.replace(' ', "_");
            errors.sample(&appliance.labels.with("operation", &operation), count);
        }
    }
    let mut stalled = page.counter(
        "vmtorrent_appliance_stall_seconds_total",
        "Time during which at least one read waited for the swarm.",
    );
    for appliance in appliances {
        stalled.sample(&appliance.labels, appliance.stall_seconds);
    }
    each(
        appliances,
        page.gauge(
            "vmtorrent_appliance_waiting_reads",
            "Reads that wait for the swarm now.",
        ),
        |a| (&a.labels, u64::from(a.waits.waiting)),
    );
    let mut waits = page.histogram(
        "vmtorrent_appliance_demand_wait_seconds",
        "How long reads that had to wait for the swarm waited.",
    );
    for appliance in appliances {
        let WaitFigures {
            buckets,
            count,
            sum,
            ..
        } = &appliance.waits;
        waits.distribution(&appliance.labels, buckets, *count, sum.as_secs_f64());
    }
}

/// Gives a metric one sample for each thing.
fn each<T>(
    things: &[T],
    mut family: super::exposition::Family<'_>,
    figure: impl Fn(&T) -> (&Labels, u64),
) {
    for thing in things {
        let (labels, value) = figure(thing);
        family.sample(labels, value);
    }
}
