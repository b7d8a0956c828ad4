//! A session's metrics: of each appliance while it runs, at an address while the session lasts.

use bytes::Bytes;
use vmtorrent::ErrorKind;
use vmtorrent::image::PublishOptions;

use super::common::{loopback, published};
use super::{MIB, content, options, session};

#[tokio::test]
async fn metrics_tell_appliances_of_one_image_apart_and_forget_those_that_ended() {
    let scratch = tempfile::tempdir().unwrap();
    let data = content(4 * MIB);
    let image = published(scratch.path(), &data, &PublishOptions::default());
    let host = session(&scratch.path().join("cache")).await;
    // Of the same name, in different directories.
    let state = |place: &str| scratch.path().join(place).join("web");
    for place in ["a", "b"] {
        std::fs::create_dir(scratch.path().join(place)).unwrap();
    }
    let launch = |place| host.launch(image.clone(), options(&state(place), None));
    let (a, b) = (launch("a").await.unwrap(), launch("b").await.unwrap());
    a.write_at(0, 0, Bytes::from(vec![1; 4096])).await.unwrap();
    a.discard(0, 8192, 12_288).await.unwrap();
    let lines = |name: &str| -> Vec<String> {
        let name = format!("vmtorrent_{name}");
        let page = host.metrics();
        page.lines()
            .filter(|l| l.starts_with(&name))
            .map(str::to_owned)
            .collect()
    };
    let labels = |place: &str| {
        format!(
            "{{image=\"disk.img\",info_hash=\"{}\",appliance=\"web\",state=\"{}\"}}",
            image.info_hash(),
            state(place).display()
        )
    };
    let written = "appliance_written_bytes_total";
    let expected = |place, bytes| format!("vmtorrent_{written}{} {bytes}", labels(place));
    assert_eq!(lines(written), [expected("a", 4096), expected("b", 0)]);
    let discarded = &lines("appliance_discarded_bytes_total")[0];
    assert!(discarded.ends_with(" 12288"), "{discarded}");
    assert_eq!(lines("images"), ["vmtorrent_images 1"]);
    assert!(
        !host.metrics().contains("process_"),
        "these are for the server"
    );
    a.shutdown().await.unwrap();
    assert_eq!(lines(written), [expected("b", 0)]);
    b.shutdown().await.unwrap();
    assert_eq!(lines("images"), ["vmtorrent_images 0"]);

    let address = host.serve_metrics(loopback()).await.unwrap();
    let error = host.serve_metrics(loopback()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InUse);
    assert!(error.to_string().contains(&address.to_string()), "{error}");
    host.shutdown().await.unwrap();
    assert!(
        std::net::TcpStream::connect(address).is_err(),
        "it ends with the session"
    );
}
