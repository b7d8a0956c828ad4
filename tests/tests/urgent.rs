//! What a read waits for overtakes a crowd: the real program, sockets of this host, a hundred leechers that keep 16
//! requests outstanding each. Prints how long blocks take.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test helper may panic"
)]

use std::collections::HashMap;
use std::io::{self, Write};
use std::net::Shutdown;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use vmtorrent_tests::scripted_peer::{
    BLOCK, Block, Connection, Message, parse_address, parse_info_hash,
};
use vmtorrent_tests::{PIECE, Reference, publish, seed};

const PIECES: u32 = 512;
const LEECHERS: u32 = 100;
const OUTSTANDING: u32 = 16;
/// Extension messages (BEP 10).
const EXTENDED: u8 = 20;

fn block(n: u32) -> Block {
    let blocks = PIECE as u32 / BLOCK;
    Block::nth(n / blocks % PIECES, n % blocks)
}

/// Asks for one more block with each that comes, until the connection ends.
fn leech(mut connection: Connection, number: u32, waits: &Mutex<Vec<Duration>>) -> io::Result<()> {
    let mut next = number * 977;
    let mut asked = HashMap::new();
    connection.send(&Message::Interested)?;
    for _ in 0..OUTSTANDING {
        asked.insert(block(next), Instant::now());
        connection.send(&Message::Request(block(next)))?;
        next += 1;
    }
    loop {
        let Message::Piece(piece, begin, _) = connection.receive()? else {
            continue;
        };
        let block_that_came = Block {
            piece,
            begin,
            length: BLOCK,
        };
        if let Some(at) = asked.remove(&block_that_came) {
            waits.lock().unwrap().push(at.elapsed());
        }
        asked.insert(block(next), Instant::now());
        connection.send(&Message::Request(block(next)))?;
        next += 1;
    }
}

/// The number under which the other side takes vmt_urgent, from its extended handshake.
fn urgent_number(connection: &mut Connection) -> u8 {
    let hello = connection
        .receive_until(|m| matches!(m, Message::Other(EXTENDED, p) if p.first() == Some(&0)))
        .unwrap();
    let Message::Other(_, payload) = hello else {
        panic!("no handshake");
    };
    let text = String::from_utf8_lossy(&payload).into_owned();
    let number = text
        .split("10:vmt_urgenti")
        .nth(1)
        .expect("it is announced");
    number.split('e').next().unwrap().parse().unwrap()
}

/// How long single blocks take, one after the other. With `urgent`, each is marked in the same segment.
fn reads(connection: &mut Connection, first: u32, count: u32, urgent: Option<u8>) -> Waits {
    let mut waits = Vec::new();
    for n in 0..count {
        let wanted = block(first + n * 7);
        let mut bytes = Message::Request(wanted).encode();
        if let Some(number) = urgent {
            let payload = [wanted.piece, wanted.begin, wanted.length].map(u32::to_be_bytes);
            let payload = [&[number], &payload.concat()[..]].concat();
            bytes.extend_from_slice(&Message::Other(EXTENDED, payload).encode());
        }
        let start = Instant::now();
        connection.raw(&bytes).unwrap();
        let right = |m: &Message| {
            matches!(m, Message::Piece(piece, begin, data)
            if (*piece, *begin, data.len()) == (wanted.piece, wanted.begin, BLOCK as usize))
        };
        connection.receive_until(right).unwrap();
        waits.push(start.elapsed());
        // Five a second, not in step with anything: less than its share, so that nothing is owed.
        std::thread::sleep(Duration::from_millis(190 + u64::from(n % 17)));
    }
    Waits::of(waits)
}

/// Milliseconds.
#[derive(Clone, Copy, Debug)]
struct Waits {
    median: f64,
    p99: f64,
}

impl Waits {
    fn of(mut waits: Vec<Duration>) -> Self {
        waits.sort_unstable();
        let at = |share: usize| waits[waits.len() * share / 100].as_secs_f64() * 1000.0;
        Self {
            median: at(50),
            p99: at(99),
        }
    }
}

#[test]
fn an_urgent_block_overtakes_a_hundred_leechers() {
    let dir = tempfile::tempdir().unwrap();
    let image = Reference::new(PIECES as usize * PIECE, 9);
    let disk = dir.path().join("disk.img");
    image.write_to(&disk);
    let torrent = dir.path().join("disk.torrent");
    publish(&disk, &torrent, &[]);
    let daemon = seed(&torrent, dir.path(), &["--upload-limit", "12.5M"]);
    let listen = parse_address(&daemon.listen());
    let ready = daemon.wait_event("ready");
    let info_hash = parse_info_hash(ready["info_hash"].as_str().unwrap());

    let waits = Arc::new(Mutex::new(Vec::new()));
    let mut ends = Vec::new();
    let mut threads = Vec::new();
    for number in 0..LEECHERS {
        let connection = Connection::greet(listen, info_hash, number).unwrap();
        ends.push(connection.another().unwrap());
        let waits = Arc::clone(&waits);
        // An error is how it ends.
        threads.push(std::thread::spawn(move || {
            let _ = leech(connection, number, &waits);
        }));
    }
    let mut guest = Connection::greet(listen, info_hash, 5000).unwrap();
    let number = urgent_number(&mut guest);
    guest.send(&Message::Interested).unwrap();
    // Until the queues are full, and each piece was hashed.
    std::thread::sleep(Duration::from_secs(6));
    let urgent = reads(&mut guest, 3, 150, Some(number));
    waits.lock().unwrap().clear();
    let plain = reads(&mut guest, 4, 40, None);
    let bulk = Waits::of(waits.lock().unwrap().clone());
    for end in &ends {
        end.shutdown(Shutdown::Both);
    }
    for thread in threads {
        thread.join().unwrap();
    }
    let line = format!(
        "one block: urgent p50 {:.1} ms, p99 {:.1} ms; not marked p50 {:.1} ms, p99 {:.1} ms; of 16 of a leecher p50 \
         {:.0} ms, p99 {:.0} ms\n",
        urgent.median, urgent.p99, plain.median, plain.p99, bulk.median, bulk.p99
    );
    io::stderr().write_all(line.as_bytes()).unwrap();
    // What the figures must show on a machine that does other things too; alone, p99 is far below 50 ms, and a leecher's
    // blocks take the two seconds in which all that the hundred have outstanding is sent.
    assert!(urgent.median < bulk.median / 40.0, "{urgent:?} {bulk:?}");
    assert!(urgent.p99 < bulk.median / 4.0, "{urgent:?} {bulk:?}");
    assert!(urgent.median < plain.median, "{urgent:?} {plain:?}");
    daemon.stop();
}
