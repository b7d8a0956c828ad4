//! Web servers that have something else, or nothing, or no time: what is right is used, what is wrong given up.

use std::sync::Arc;
use std::time::Duration;

use vmtorrent_tests::scripted_server::{ScriptedServer, bare, part};
use vmtorrent_tests::{Host, Nginx, Reference, command, fuse};

use crate::{Web, assert_all_from_the_web, number, wait_complete};

#[test]
fn a_file_that_is_not_there_is_given_up_and_peers_are_asked() {
    if !fuse() {
        return;
    }
    let web = Web::new(8 << 20, 51);
    let Some(nginx) = Nginx::start(web.dir.path(), &web.root(), "") else {
        return;
    };
    // Slow: once all is here nobody looks any more.
    let peer = web.peer(&["--upload-limit", "500K"]);
    let launch = web
        .host
        .launch(&web.torrent())
        .option("--web-seed", nginx.url("/nowhere.img"))
        .peer(&peer.listen())
        .fill("none")
        .start();
    // Not all of it: nobody is asked any more for an image that is here.
    assert_eq!(web.read_first(1 << 20), web.image.bytes()[..1 << 20]);
    launch.wait_stderr("not counted on any more: it answers with status 404");
    let asked = nginx.served_at_least(5);
    assert_eq!(asked.len(), 5, "{asked:?}");
    web.assert_read("from the peer");
    assert!(asked.iter().all(|s| s.status == 404));
    assert_eq!(number(&launch.stop(), "web_seed_bytes"), 0);
    peer.stop();
}

#[test]
fn a_file_of_another_length_is_given_up_at_once() {
    if !fuse() {
        return;
    }
    let web = Web::new(8 << 20, 52);
    let Some(nginx) = Nginx::start(web.dir.path(), &web.root(), "") else {
        return;
    };
    let peer = web.peer(&[]);
    std::fs::write(
        web.root().join("short.img"),
        &web.image.bytes()[..5_000_000],
    )
    .unwrap();
    let launch = web
        .host
        .launch(&web.torrent())
        .option("--web-seed", nginx.url("/short.img"))
        .peer(&peer.listen())
        .fill("none")
        .start();
    launch.wait_stderr("the file there has 5000000 bytes, and that of the image 8388608");
    web.assert_read("from the peer");
    assert_eq!(nginx.served_at_least(1).len(), 1);
    assert_eq!(number(&launch.stop(), "web_seed_bytes"), 0);
    peer.stop();
}

#[test]
fn a_server_that_ignores_ranges_is_given_up_before_it_has_sent_much() {
    if !fuse() {
        return;
    }
    let web = Web::new(64 << 20, 53);
    let Some(nginx) = Nginx::start(web.dir.path(), &web.root(), "max_ranges 0;") else {
        return;
    };
    let peer = web.peer(&[]);
    let launch = web
        .host
        .launch(&web.torrent())
        .option("--web-seed", nginx.url("/"))
        .peer(&peer.listen())
        .fill("full")
        .start();
    wait_complete(&launch);
    launch.wait_stderr("it sends whole files only (it ignores Range)");
    web.assert_read("from the peer");
    let done = launch.stop();
    // What it holds at the beginning of the file is taken.
    assert!(number(&done, "web_seed_bytes") <= 256 << 10, "{done}");
    assert!(nginx.served().iter().all(|s| s.status == 200));
    peer.stop();
}

#[test]
fn a_small_file_of_a_server_that_ignores_ranges_is_taken() {
    if !fuse() {
        return;
    }
    let web = Web::new(200_000, 54);
    let Some(nginx) = Nginx::start(web.dir.path(), &web.root(), "max_ranges 0;") else {
        return;
    };
    let launch = web
        .host
        .launch(&web.torrent())
        .option("--web-seed", nginx.url("/"))
        .fill("none")
        .start();
    web.assert_read("from whole files");
    assert_all_from_the_web(&launch.stop(), &web.image);
}

#[test]
fn wrong_bytes_are_never_shown_and_their_server_is_given_up() {
    if !fuse() {
        return;
    }
    let web = Web::new(16 << 20, 55);
    let Some(nginx) = Nginx::start(web.dir.path(), &web.root(), "") else {
        return;
    };
    // Slow, so that there is something to ask the server for again and again.
    let peer = web.peer(&["--upload-limit", "1M"]);
    Reference::new(16 << 20, 56).write_to(&web.file());
    let launch = web
        .host
        .launch(&web.torrent())
        .option("--web-seed", nginx.url("/"))
        .peer(&peer.listen())
        .fill("full")
        .start();
    launch.wait_stderr("not counted on any more: it sent wrong bytes again and again");
    let asked = nginx.served_in_all().len();
    wait_complete(&launch);
    web.assert_read("from the peer");
    assert_eq!(nginx.served().len(), asked, "it is never asked again");
    assert_eq!(number(&launch.stop(), "web_seed_bytes"), 0);
    peer.stop();
}

#[test]
fn a_file_that_is_replaced_meanwhile_is_found_out_and_left() {
    if !fuse() {
        return;
    }
    let web = Web::new(16 << 20, 57);
    let Some(nginx) = Nginx::start(web.dir.path(), &web.root(), "") else {
        return;
    };
    let peer = web.peer(&[]);
    let launch = web
        .host
        .launch(&web.torrent())
        .option("--web-seed", nginx.url("/"))
        .fill("none")
        .start();
    let half = web.read_first(8 << 20);
    assert!(half == web.image.bytes()[..8 << 20]);
    // As a deployment does it: another file of that name, of the same length.
    let new = web.root().join("new");
    Reference::new(16 << 20, 58).write_to(&new);
    // nginx tells versions apart by length and time, in seconds.
    let file = std::fs::File::options().write(true).open(&new).unwrap();
    let later = std::time::SystemTime::now() + Duration::from_secs(100);
    file.set_modified(later).unwrap();
    std::fs::rename(&new, web.file()).unwrap();
    let other = std::thread::scope(|scope| {
        let read = scope.spawn(|| web.assert_read("half of it from elsewhere"));
        launch.wait_stderr("not counted on any more: the file there was replaced");
        // Only then somebody connects who has it.
        let other = Host::new(web.dir.path(), "other");
        let other = other
            .launch(&web.torrent())
            .peer(&peer.listen())
            .peer(&launch.listen())
            .fill("full")
            .start();
        read.join().unwrap();
        other
    });
    other.stop();
    let done = launch.stop();
    assert!(number(&done, "web_seed_bytes") >= 6 << 20, "{done}");
    assert!(number(&done, "wasted_bytes") <= 4 << 20, "{done}");
    peer.stop();
}

#[test]
fn a_file_that_is_only_touched_goes_on_being_used() {
    if !fuse() {
        return;
    }
    let web = Web::new(8 << 20, 59);
    let Some(nginx) = Nginx::start(web.dir.path(), &web.root(), "") else {
        return;
    };
    let mut command = command();
    command.env("RUST_LOG", "vmtorrent=warn");
    let launch = web
        .host
        .launch_with(command, &web.torrent(), "127.0.0.1:0")
        .option("--web-seed", nginx.url("/"))
        .fill("none")
        .start();
    web.read_first(1 << 20);
    let file = std::fs::File::options()
        .write(true)
        .open(web.file())
        .unwrap();
    let then = std::time::SystemTime::now() - Duration::from_secs(100_000);
    file.set_modified(then).unwrap();
    web.assert_read("before and after");
    launch.wait_stderr("its ETag changed");
    assert_all_from_the_web(&launch.stop(), &web.image);
}

#[test]
fn a_server_that_has_no_time_is_left_alone_for_as_long_as_it_says() {
    if !fuse() {
        return;
    }
    const BUSY: usize = 3;
    let web = Web::new(8 << 20, 60);
    let file = Arc::new(web.image.bytes().to_vec());
    let server = ScriptedServer::start(move |asked, stream| {
        if asked.number < BUSY {
            return bare(stream, "503 Service Unavailable", "Retry-After: 3\r\n");
        }
        part(stream, &file, asked.range.clone().unwrap())
    });
    let launch = web
        .host
        .launch(&web.torrent())
        .option("--web-seed", server.url("/disk.img"))
        .fill("none")
        .start();
    web.assert_read("once it had time");
    assert_all_from_the_web(&launch.stop(), &web.image);
    let asked = server.asked();
    for pair in asked[..=BUSY].windows(2) {
        let pause = pair[1].at - pair[0].at;
        assert!(pause >= Duration::from_secs(3), "{pause:?}");
    }
}

#[test]
fn connections_that_break_off_now_and_then_cost_a_request_each() {
    if !fuse() {
        return;
    }
    let web = Web::new(16 << 20, 61);
    let file = Arc::new(web.image.bytes().to_vec());
    let server = ScriptedServer::start(move |asked, stream| {
        use std::io::Write;
        let range = asked.range.clone().unwrap();
        if asked.number % 7 != 5 {
            return part(stream, &file, range);
        }
        let half = (range.end - range.start) / 2;
        write!(
            stream,
            "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {}-{}/{}\r\nContent-Length: {}\r\n\r\n",
            range.start,
            range.end - 1,
            file.len(),
            range.end - range.start
        )?;
        stream.write_all(&file[range.start as usize..][..half as usize])?;
        Err(std::io::ErrorKind::ConnectionAborted.into())
    });
    let launch = web
        .host
        .launch(&web.torrent())
        .option("--web-seed", server.url("/disk.img"))
        .fill("full")
        .start();
    wait_complete(&launch);
    web.assert_read("over connections that break");
    assert_all_from_the_web(&launch.stop(), &web.image);
}
