//! Web servers that mean harm: a read costs one more request at most, memory and time are bounded.

use std::io::{self, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use vmtorrent_tests::scripted_server::{Asked, ScriptedServer, bare, part};
use vmtorrent_tests::{fuse, memory};

use crate::{Web, number};

/// The answer's head for a range.
fn head(stream: &mut TcpStream, asked: &Asked, file: &[u8], length: &str) -> io::Result<()> {
    let range = asked.range.clone().unwrap();
    write!(
        stream,
        "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {}-{}/{}\r\n{length}\r\n\r\n",
        range.start,
        range.end - 1,
        file.len()
    )
}

/// Reads an image from a peer beside a web server that answers the first look rightly and follows `script` then.
fn read_beside(
    number_of: u64,
    script: impl Fn(&Asked, &mut TcpStream, &[u8]) -> io::Result<()> + Send + Sync + 'static,
    told: Option<&str>,
) {
    if !fuse() {
        return;
    }
    let web = Web::new(8 << 20, number_of);
    let file = Arc::new(web.image.bytes().to_vec());
    let server = ScriptedServer::start(move |asked, stream| {
        if asked.number == 0 {
            return part(stream, &file, asked.range.clone().unwrap());
        }
        script(asked, stream, &file)
    });
    // Slow enough that there is always something to ask the web server for.
    let peer = web.peer(&["--upload-limit", "4M"]);
    let launch = web
        .host
        .launch(&web.torrent())
        .option("--web-seed", server.url("/disk.img"))
        .peer(&peer.listen())
        .fill("full")
        .start();
    let before = memory::resident(launch.pid());
    memory::reset_peak(launch.pid());
    let start = Instant::now();
    web.assert_read("beside a hostile web server");
    let took = start.elapsed();
    // Each of 128 pieces may once have waited for it; normally none does for long.
    assert!(took < Duration::from_secs(60), "{took:?}");
    let grown = memory::peak(launch.pid()).saturating_sub(before);
    assert!(grown < 64 << 20, "{grown} bytes more");
    if let Some(told) = told {
        launch.wait_stderr(told);
    }
    assert!(server.asked().len() > 1, "it was never asked");
    let done = launch.stop();
    assert!(number(&done, "wasted_bytes") < 1 << 20, "{done}");
    peer.stop();
}

#[test]
fn an_answer_that_is_longer_than_its_range_is_refused() {
    read_beside(
        71,
        |asked, stream, file| {
            head(stream, asked, file, "Content-Length: 99999999")?;
            stream.write_all(file)
        },
        Some("longer than what was asked for"),
    );
}

#[test]
fn an_answer_without_end_is_not_read_further_than_its_range() {
    read_beside(
        72,
        |asked, stream, file| {
            head(stream, asked, file, "Transfer-Encoding: chunked")?;
            let range = asked.range.clone().unwrap();
            write!(stream, "{:x}\r\n", range.end - range.start)?;
            stream.write_all(&file[range.start as usize..range.end as usize])?;
            loop {
                stream.write_all(b"\r\n10000\r\n")?;
                stream.write_all(&file[..0x10000])?;
            }
        },
        Some("longer than what was asked for"),
    );
}

#[test]
fn a_server_that_drips_holds_nothing_up() {
    read_beside(
        73,
        |asked, stream, file| {
            let range = asked.range.clone().unwrap();
            let length = format!("Content-Length: {}", range.end - range.start);
            head(stream, asked, file, &length)?;
            loop {
                stream.write_all(b"x")?;
                std::thread::sleep(Duration::from_millis(500));
            }
        },
        None,
    );
}

#[test]
fn a_server_that_never_answers_holds_nothing_up() {
    read_beside(
        74,
        |_, stream, _| {
            // Until the client goes.
            io::copy(&mut stream.try_clone()?, &mut io::sink())?;
            Err(io::ErrorKind::ConnectionAborted.into())
        },
        None,
    );
}

#[test]
fn a_redirect_without_end_is_not_followed_for_ever() {
    read_beside(
        75,
        |asked, stream, _| {
            let next = format!("Location: /{}/{}\r\n", asked.number, asked.target.len());
            bare(stream, "302 Found", &next)
        },
        Some("it redirects too often"),
    );
}

#[test]
fn a_head_without_end_is_bounded() {
    read_beside(
        76,
        |_, stream, _| {
            stream.write_all(b"HTTP/1.1 206 Partial Content\r\n")?;
            loop {
                stream.write_all(
                    &[
                        b"X-Filler: "[..].to_vec(),
                        vec![b'a'; 60_000],
                        b"\r\n".to_vec(),
                    ]
                    .concat(),
                )?;
            }
        },
        None,
    );
}
