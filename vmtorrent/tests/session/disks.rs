//! What a guest reads is what was published or what it wrote, whatever happened between.

use std::time::Duration;

use bytes::Bytes;
use vmtorrent::image::PublishOptions;
use vmtorrent::{ApplianceOptions, ErrorKind, Event};

use super::common::published;
use super::{MIB, content, options, read_all, session};

#[tokio::test]
async fn ten_appliances_of_one_image_cost_one_download_and_keep_ten_overlays() {
    let scratch = tempfile::tempdir().unwrap();
    let data = content(8 * MIB + 12_345);
    let image = published(scratch.path(), &data, &PublishOptions::default());
    let origin = session(&scratch.path().join("unused")).await;
    let seed = origin.seed(image.clone(), scratch.path()).await.unwrap();

    let host = session(&scratch.path().join("cache")).await;
    let mut appliances = Vec::new();
    for n in 0..10 {
        let state = scratch.path().join(format!("state-{n}"));
        let peer = Some(origin.listen_address());
        appliances.push(
            host.launch(image.clone(), options(&state, peer))
                .await
                .unwrap(),
        );
    }
    for (n, appliance) in appliances.iter().enumerate() {
        // Not aligned to anything, so that the overlay needs the pristine bytes around it.
        let mark = Bytes::from(format!("machine {n}"));
        appliance.write_at(0, 5_000_000 + 7, mark).await.unwrap();
        appliance.flush(0).await.unwrap();
    }
    for (n, appliance) in appliances.iter().enumerate() {
        let mut expected = data.clone();
        let mark = format!("machine {n}");
        expected[5_000_007..5_000_007 + mark.len()].copy_from_slice(mark.as_bytes());
        assert!(
            read_all(appliance, data.len()).await == expected,
            "machine {n} reads something else"
        );
    }
    let stats = appliances[0].stats();
    let unique = (data.len() - MIB - MIB / 2) as u64;
    assert!(
        stats.fetched_bytes >= unique - (64 << 10) && stats.fetched_bytes <= unique + (64 << 10),
        "fetched {} of {unique} bytes",
        stats.fetched_bytes
    );
    assert_eq!(stats.present_bytes, data.len() as u64);
    let bands =
        stats.demand_bytes + stats.readahead_bytes + stats.profile_bytes + stats.background_bytes;
    assert_eq!(bands, stats.fetched_bytes);
    assert_eq!(stats.background_bytes, 0, "nobody asked for a fill");
    assert!(
        seed.stats().uploaded_bytes <= unique + (128 << 10),
        "one download, not ten"
    );

    for appliance in appliances {
        appliance.shutdown().await.unwrap();
    }
    host.shutdown().await.unwrap();
    seed.shutdown().await.unwrap();
    origin.shutdown().await.unwrap();
    // The published file was only read.
    assert!(std::fs::read(scratch.path().join("disk.img")).unwrap() == data);
}

#[tokio::test]
async fn writes_survive_a_relaunch_and_whole_blocks_fetch_nothing() {
    let scratch = tempfile::tempdir().unwrap();
    let data = content(4 * MIB);
    let image = published(scratch.path(), &data, &PublishOptions::default());
    let state = scratch.path().join("state");
    // No seed at all: what must be fetched would time out.
    let host = session(&scratch.path().join("cache")).await;
    let appliance = host
        .launch(image.clone(), options(&state, None))
        .await
        .unwrap();
    let block = Bytes::from(vec![7; 8192]);
    appliance.write_at(0, 4096, block.clone()).await.unwrap();
    appliance.write_zeroes(0, 16_384, 4096).await.unwrap();
    appliance.discard(0, 32_768, 65_536).await.unwrap();
    appliance.set_len(0, 5 * MIB as u64).unwrap();
    appliance
        .write_at(0, 4 * MIB as u64 + 100, Bytes::from_static(b"behind"))
        .await
        .unwrap();
    let stats = appliance.shutdown().await.unwrap();
    assert_eq!((stats.fetched_bytes, stats.stalls), (0, 0));

    let appliance = host.launch(image, options(&state, None)).await.unwrap();
    assert_eq!(appliance.len(0).unwrap(), 5 * MIB as u64);
    assert_eq!(appliance.read_at(0, 4096, 8192).await.unwrap(), block);
    assert_eq!(
        appliance.read_at(0, 16_384, 4096).await.unwrap(),
        vec![0; 4096]
    );
    assert_eq!(
        appliance.read_at(0, 32_768, 65_536).await.unwrap(),
        vec![0; 65_536]
    );
    assert_eq!(
        &appliance.read_at(0, 4 * MIB as u64 + 100, 6).await.unwrap()[..],
        b"behind"
    );
    // The end of the file: fewer bytes, then none.
    assert_eq!(
        appliance
            .read_at(0, 5 * MIB as u64 - 10, 100)
            .await
            .unwrap()
            .len(),
        10
    );
    assert!(
        appliance
            .read_at(0, u64::MAX - 5, 100)
            .await
            .unwrap()
            .is_empty()
    );
    appliance.shutdown().await.unwrap();
    host.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_read_past_its_deadline_fails_tells_so_and_later_reads_go_on() {
    let scratch = tempfile::tempdir().unwrap();
    let data = content(4 * MIB);
    let image = published(scratch.path(), &data, &PublishOptions::default());
    let host = session(&scratch.path().join("cache")).await;
    let launch = ApplianceOptions {
        read_timeout: Some(Duration::from_millis(200)),
        ..options(&scratch.path().join("state"), None)
    };
    let appliance = host.launch(image.clone(), launch).await.unwrap();
    let mut events = appliance.events();
    let error = appliance.read_at(0, 0, 4096).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
    let event = events.recv().await.unwrap();
    assert_eq!(
        event,
        Event::ReadTimedOut {
            file: 0,
            offset: 0,
            peers: 0
        }
    );

    // Somebody begins to seed.
    let origin = session(&scratch.path().join("cache-of-the-origin")).await;
    let seed = origin.seed(image.clone(), scratch.path()).await.unwrap();
    let late = ApplianceOptions {
        read_timeout: Some(Duration::from_secs(30)),
        ..options(
            &scratch.path().join("state-3"),
            Some(origin.listen_address()),
        )
    };
    let second = host.launch(image, late).await.unwrap();
    assert!(read_all(&second, data.len()).await == data);
    assert!(
        read_all(&appliance, data.len()).await == data,
        "the first appliance shares the copy"
    );
    second.shutdown().await.unwrap();
    appliance.shutdown().await.unwrap();
    seed.shutdown().await.unwrap();
    origin.shutdown().await.unwrap();
    host.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_damaged_pristine_byte_is_found_after_a_restart_and_fetched_again() {
    let scratch = tempfile::tempdir().unwrap();
    let data = content(4 * MIB);
    let image = published(scratch.path(), &data, &PublishOptions::default());
    let cache = scratch.path().join("cache");
    let origin = session(&scratch.path().join("unused")).await;
    let seed = origin.seed(image.clone(), scratch.path()).await.unwrap();
    let peer = Some(origin.listen_address());
    let state = scratch.path().join("state");

    let host = session(&cache).await;
    let appliance = host
        .launch(image.clone(), options(&state, peer))
        .await
        .unwrap();
    assert!(read_all(&appliance, data.len()).await == data);
    appliance.shutdown().await.unwrap();
    host.shutdown().await.unwrap();

    let stored = cache
        .join(image.info_hash().to_string())
        .join("data")
        .join("disk.img");
    let mut bytes = std::fs::read(&stored).unwrap();
    bytes[100_000] ^= 1;
    std::fs::write(&stored, bytes).unwrap();

    let host = session(&cache).await;
    let appliance = host.launch(image, options(&state, peer)).await.unwrap();
    assert!(read_all(&appliance, data.len()).await == data);
    let page = host.metrics();
    let damaged = page
        .lines()
        .find(|l| l.starts_with("vmtorrent_image_pieces_damaged_total"));
    assert!(damaged.unwrap().ends_with(" 1"), "{page}");
    let stats = appliance.shutdown().await.unwrap();
    let piece = u64::from(vmtorrent::image::default_piece_size(data.len() as u64));
    assert_eq!(stats.fetched_bytes, piece, "only the damaged piece");
    host.shutdown().await.unwrap();
    seed.shutdown().await.unwrap();
    origin.shutdown().await.unwrap();
}

#[tokio::test]
async fn what_is_on_this_host_is_read_in_the_callers_thread_and_nothing_else_is() {
    let scratch = tempfile::tempdir().unwrap();
    let data = content(4 * MIB);
    let image = published(scratch.path(), &data, &PublishOptions::default());
    let cache = scratch.path().join("cache");
    let origin = session(&scratch.path().join("unused")).await;
    let seed = origin.seed(image.clone(), scratch.path()).await.unwrap();
    let state = scratch.path().join("state");
    let piece = vmtorrent::image::default_piece_size(data.len() as u64) as usize;

    // Behind the last piece there is nothing to read ahead.
    let last = data.len() - piece;

    let host = session(&cache).await;
    let first = options(&state, Some(origin.listen_address()));
    let appliance = host.launch(image.clone(), first).await.unwrap();
    let read = appliance.read_at(0, last as u64, piece).await.unwrap();
    assert_eq!(read.len(), piece);
    let ours = Bytes::from_static(&[7; 4096]);
    appliance
        .write_at(0, (last + 4096) as u64, ours.clone())
        .await
        .unwrap();
    appliance.shutdown().await.unwrap();
    host.shutdown().await.unwrap();
    seed.shutdown().await.unwrap();
    origin.shutdown().await.unwrap();

    // Nobody is there to fetch anything of.
    let host = session(&cache).await;
    let appliance = host.launch(image, options(&state, None)).await.unwrap();
    let mut buffer = vec![1; piece];
    let read = appliance
        .read_local_at(0, last as u64, &mut buffer)
        .unwrap();
    assert_eq!(read, Some(piece));
    assert!(buffer[..4096] == data[last..][..4096] && buffer[8192..] == data[last + 8192..]);
    assert!(buffer[4096..8192] == ours);
    let before = (last - piece) as u64;
    assert_eq!(
        appliance.read_local_at(0, before, &mut buffer).unwrap(),
        None
    );
    let mut across = vec![0; piece + 1];
    let before = (last - 1) as u64;
    assert_eq!(
        appliance.read_local_at(0, before, &mut across).unwrap(),
        None
    );
    let end = data.len() as u64;
    assert_eq!(
        appliance.read_local_at(0, end, &mut buffer).unwrap(),
        Some(0)
    );
    let stats = appliance.shutdown().await.unwrap();
    assert_eq!(stats.fetched_bytes, 0);
    host.shutdown().await.unwrap();
}

#[tokio::test]
async fn an_export_fetches_what_is_missing_and_holds_what_the_guest_wrote() {
    let scratch = tempfile::tempdir().unwrap();
    let data = content(4 * MIB + 1);
    let image = published(scratch.path(), &data, &PublishOptions::default());
    let origin = session(&scratch.path().join("unused")).await;
    let seed = origin.seed(image.clone(), scratch.path()).await.unwrap();
    let state = scratch.path().join("state");
    let host = session(&scratch.path().join("cache")).await;
    let launched = options(&state, Some(origin.listen_address()));
    let appliance = host.launch(image, launched).await.unwrap();
    appliance
        .write_at(0, 3_000_001, Bytes::from_static(b"written"))
        .await
        .unwrap();
    appliance.shutdown().await.unwrap();
    host.shutdown().await.unwrap();

    let output = scratch.path().join("out.img");
    vmtorrent::export(&state, &output, vmtorrent::ExportOptions::default())
        .await
        .unwrap();
    let mut expected = data;
    expected[3_000_001..3_000_008].copy_from_slice(b"written");
    assert!(std::fs::read(&output).unwrap() == expected);
    let again = vmtorrent::export(&state, &output, vmtorrent::ExportOptions::default()).await;
    assert_eq!(again.unwrap_err().kind(), ErrorKind::InUse);
    seed.shutdown().await.unwrap();
    origin.shutdown().await.unwrap();
}
