use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::appliance::ApplianceParts;
use crate::image::{PublishOptions, publish};
use crate::options::{Fill, State};

/// Far less than a silent stranger may take, far more than anything here needs.
const SOON: Duration = Duration::from_secs(8);

async fn session(cache: &Path) -> Session {
    let options = SessionOptions {
        listen: ([127, 0, 0, 1], 0).into(),
        cache: Some(cache.to_owned()),
        local_discovery: false,
        ..SessionOptions::default()
    };
    Session::start(options).await.unwrap()
}

fn published(path: &Path, seed: u8) -> Image {
    let mut data: Vec<u8> = (0..200_000_u32).map(|n| (n % 251) as u8).collect();
    data[0] = seed;
    std::fs::write(path, data).unwrap();
    publish(path, &PublishOptions::default()).unwrap().image
}

fn options(state: &Path, session: &Session) -> ApplianceOptions {
    ApplianceOptions {
        state: State::Directory(state.to_owned()),
        peers: vec![session.listen_address()],
        fill: Fill::None,
        read_timeout: Some(Duration::from_secs(30)),
        ..ApplianceOptions::default()
    }
}

#[tokio::test]
async fn a_machine_that_is_being_launched_keeps_the_swarm_when_the_last_other_one_goes() {
    let scratch = tempfile::tempdir().unwrap();
    let image = published(&scratch.path().join("disk.img"), 7);
    let origin = session(&scratch.path().join("unused")).await;
    let seed = origin.seed(image.clone(), scratch.path()).await.unwrap();
    let host = session(&scratch.path().join("cache")).await;
    let first = host
        .launch(image.clone(), options(&scratch.path().join("a"), &origin))
        .await
        .unwrap();

    // What a launch does, with the other machine's end where it hurts most.
    let options = options(&scratch.path().join("b"), &origin);
    let image = Arc::new(image);
    let state = host.shared.open_state(&image, &options).await.unwrap();
    let joined = host.shared.join_cached(image, Fill::None).await.unwrap();
    first.shutdown().await.unwrap();
    let parts = ApplianceParts {
        session: host.shared.clone(),
        member: joined,
        state,
        options,
    };
    let second = Appliance::start(parts).await.unwrap();
    assert_eq!(second.read_at(0, 0, 2).await.unwrap()[..], [7, 1]);
    second.shutdown().await.unwrap();
    seed.shutdown().await.unwrap();
    host.shutdown().await.unwrap();
    origin.shutdown().await.unwrap();
}
