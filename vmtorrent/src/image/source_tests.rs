use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::thread::JoinHandle;

use super::*;
use crate::image::{PublishOptions, publish};

fn torrent() -> (tempfile::TempDir, Bytes) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("disk"), [7; 100_000]).unwrap();
    let published = publish(&dir.path().join("disk"), &PublishOptions::default()).unwrap();
    (dir, published.torrent)
}

fn load(source: Source) -> Result<Image> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(source.load())
}

/// A server that gives one answer, to one request.
fn serve(head: String, body: Bytes) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            request.push(byte[0]);
        }
        // The client hangs up in the middle of what is too long.
        let _ = stream.write_all(head.as_bytes());
        let _ = stream.write_all(&body);
    });
    (address, thread)
}

fn download_from(head: String, body: Bytes) -> Result<Image> {
    let (address, thread) = serve(head, body);
    let url = format!("http://user:secret@{address}/image.torrent");
    let result = load(url.parse().unwrap());
    thread.join().unwrap();
    if let Err(e) = &result {
        let message = e.to_string();
        assert!(message.contains("/image.torrent"), "{message}");
        assert!(!message.contains("secret"), "{message}");
    }
    result
}

#[test]
fn strings_become_files_and_urls() {
    let file = |s: &str| Source::File(s.into());
    assert_eq!("a.torrent".parse::<Source>().unwrap(), file("a.torrent"));
    assert_eq!("./http:x".parse::<Source>().unwrap(), file("./http:x"));
    assert_eq!(
        "C:\\a.torrent".parse::<Source>().unwrap(),
        file("C:\\a.torrent")
    );
    assert_eq!("file:///a/b%20c".parse::<Source>().unwrap(), file("/a/b c"));
    assert!(matches!(
        "HTTPS://x.example/a".parse().unwrap(),
        Source::Url(_)
    ));
}

#[test]
fn what_is_neither_is_refused_with_the_remedy() {
    for (text, why) in [
        ("magnet:?xt=urn:btih:00", "field xt"),
        ("ftp://x.example/a.torrent", "unknown scheme"),
        ("http://", "no valid URL"),
        ("file://host/a", "cannot be loaded"),
        ("", "names nothing"),
    ] {
        let e = text.parse::<Source>().unwrap_err();
        assert_eq!(e.kind(), ErrorKind::InvalidInput);
        assert!(e.to_string().contains(why), "{e}");
    }
}

#[test]
fn a_magnet_link_is_read_but_needs_a_session() {
    let link = format!(
        "magnet:?xt=urn:btih:{}&tr=http://t.example/secret",
        "07".repeat(20)
    );
    let source: Source = link.parse().unwrap();
    let Source::Magnet(magnet) = &source else {
        panic!("{source:?}");
    };
    assert_eq!(magnet.info_hash().0, [7; 20]);
    let by_url = Source::try_from(Url::parse(&link).unwrap()).unwrap();
    assert_eq!(by_url, source);
    let e = load(source).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::InvalidInput);
    assert!(e.to_string().contains("Session::load"), "{e}");
    assert!(!e.to_string().contains("secret"), "{e}");
}

#[test]
fn files_and_bytes_are_loaded() {
    let (dir, torrent) = torrent();
    let path = dir.path().join("image.torrent");
    std::fs::write(&path, &torrent).unwrap();
    let from_file = load(Source::from(path)).unwrap();
    let from_bytes = load(Source::from(torrent)).unwrap();
    assert_eq!(from_file.info_hash(), from_bytes.info_hash());
}

#[test]
fn files_that_are_no_torrent_are_refused_by_name() {
    let (dir, _) = torrent();
    let case = |name: &str, kind, why: &str| {
        let e = load(Source::from(dir.path().join(name))).unwrap_err();
        assert_eq!(e.kind(), kind, "{e}");
        assert!(e.to_string().contains(why), "{e}");
        assert!(e.to_string().contains(dir.path().to_str().unwrap()), "{e}");
    };
    case("none", ErrorKind::NotFound, "check the name");
    case("", ErrorKind::InvalidInput, "is a directory");
    case("disk", ErrorKind::InvalidTorrent, "not a .torrent file");
    let large = std::fs::File::create(dir.path().join("large")).unwrap();
    large.set_len(65 << 20).unwrap();
    case("large", ErrorKind::InvalidTorrent, "larger than 64 MiB");
}

#[test]
fn a_torrent_is_downloaded() {
    let (_dir, torrent) = torrent();
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n",
        torrent.len()
    );
    assert_eq!(download_from(head, torrent).unwrap().name(), "disk");
}

#[test]
fn downloads_that_fail_say_why() {
    let case = |head: &str, body: Bytes, kind, why: &str| {
        let e = download_from(format!("HTTP/1.1 {head}\r\n\r\n"), body).unwrap_err();
        assert_eq!(e.kind(), kind, "{e}");
        assert!(e.to_string().contains(why), "{e}");
    };
    case(
        "404 Not Found",
        Bytes::new(),
        ErrorKind::NotFound,
        "does not exist",
    );
    case(
        "403 Forbidden",
        Bytes::new(),
        ErrorKind::PermissionDenied,
        "may not be downloaded",
    );
    case("500 Oops", Bytes::new(), ErrorKind::Network, "500");
    case(
        "200 OK\r\ncontent-length: 100",
        b"de".as_slice().into(),
        ErrorKind::Network,
        "broke off",
    );
    case(
        "200 OK",
        b"<html>".as_slice().into(),
        ErrorKind::InvalidTorrent,
        "not a .torrent file",
    );
    case(
        "200 OK\r\ncontent-length: 99999999",
        Bytes::new(),
        ErrorKind::Network,
        "larger than",
    );
    // Without a length only the stream itself tells.
    case(
        "200 OK",
        vec![b'l'; 65 << 20].into(),
        ErrorKind::Network,
        "larger than",
    );
}

#[test]
fn a_server_that_is_not_there_is_an_error_with_the_url() {
    let address = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let url = format!("http://{address}/a.torrent");
    let e = load(url.parse().unwrap()).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Network);
    assert!(e.to_string().contains(&url), "{e}");
}

#[test]
fn what_may_be_a_secret_in_a_url_is_not_shown() {
    let address = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let url = format!("http://user:secret1@{address}/a.torrent?passkey=secret2#secret3");
    let source: Source = url.parse().unwrap();
    assert_eq!(
        source.to_string(),
        format!("http://user@{address}/a.torrent?...")
    );
    let e = load(source).unwrap_err();
    assert!(!e.to_string().contains("secret"), "{e}");
    let e = Source::try_from(Url::parse("ftp://u:secret1@h/a?secret2").unwrap()).unwrap_err();
    assert!(!e.to_string().contains("secret"), "{e}");
}
