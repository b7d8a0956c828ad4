//! Who is dialled when, what of addresses is kept, and what is forgotten first.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::AddressBook;
use crate::clock::Time;

fn address(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

#[test]
fn what_only_peers_know_of_is_tried_twice_and_what_others_know_of_too_for_longer() {
    let at = |seconds| Time::from_start(Duration::from_secs(seconds));
    let mut book = AddressBook::new(7, false);
    let teller = [192, 0, 2, 1].into();
    let tries = |book: &mut AddressBook, from: u64| {
        (from..from + 4_000)
            .filter(|second| {
                let next = book.next(at(*second), false);
                next.inspect(|a| book.lost(at(*second), *a)).is_some()
            })
            .count()
    };
    assert!(book.hear(at(0), address(1), teller));
    assert!(!book.hear(at(0), address(1), teller));
    assert_eq!(tries(&mut book, 0), 2);
    assert!(book.hear(at(4_000), address(1), teller));
    assert!(!book.add(at(4_000), address(1), false));
    assert_eq!(tries(&mut book, 4_000), 9);
    // A peer was there: it is worth as much as any other.
    assert!(book.hear(at(8_000), address(1), teller));
    assert_eq!(book.next(at(8_000), false), Some(address(1)));
    book.connected(at(8_000), address(1));
    book.lost(at(8_100), address(1));
    assert_eq!(tries(&mut book, 8_100), 9);
    assert!(!AddressBook::new(7, true).hear(at(0), address(1), teller));
    assert!(!book.hear(at(0), ([224, 0, 0, 1], 1).into(), teller));
}

#[test]
fn failures_back_off_and_end_unless_the_address_was_named() {
    let mut book = AddressBook::new(1, false);
    let mut now = Time::default();
    assert!(book.add(now, address(1), true));
    assert!(book.add(now, address(2), false));
    assert!(!book.add(now, address(2), false));
    assert!(!book.add(now, address(0), false));
    let mut dials = HashMap::new();
    for _ in 0..60 {
        while let Some(a) = book.next(now, false) {
            *dials.entry(a.port()).or_insert(0) += 1;
            assert_eq!(book.dialling(), 1);
            book.lost(now, a);
        }
        now = now + Duration::from_secs(60);
    }
    assert_eq!(dials[&2], AddressBook::GIVE_UP + 1);
    assert!(dials[&1] > 50);
}

#[test]
fn an_address_that_rests_is_due_when_peers_are_needed_again() {
    let mut book = AddressBook::new(1, false);
    let now = Time::default();
    book.add(now, address(1), false);
    assert_eq!(book.next(now, false), Some(address(1)));
    book.connected(now, address(1));
    book.rest(now, address(1), Duration::from_secs(600));
    assert_eq!(book.next(now, false), None);
    book.end_rests(now);
    assert_eq!(book.next(now, false), Some(address(1)));
}

#[test]
fn connected_and_banned_addresses_are_not_dialled() {
    let mut book = AddressBook::new(1, false);
    let now = Time::default();
    book.add(now, address(1), true);
    assert_eq!(book.next(now, false), Some(address(1)));
    book.connected(now, address(1));
    assert_eq!(book.next_due(false), None);
    book.ban(now, address(1));
    book.lost(now, address(1));
    assert_eq!(book.next(now + Duration::from_secs(9999), false), None);
}

#[test]
fn pauses_grow_with_failures_vary_by_chance_and_shrink_after_a_steady_connection() {
    let pauses = |seed| {
        let mut book = AddressBook::new(seed, false);
        let mut now = Time::default();
        book.add(now, address(1), false);
        let mut pauses = Vec::new();
        for _ in 0..7 {
            book.next(now, false).unwrap();
            book.lost(now, address(1));
            let due = book.next_due(false).unwrap();
            pauses.push(due.since(now));
            now = due;
        }
        book.next(now, false).unwrap();
        book.connected(now, address(1));
        now = now + AddressBook::STEADY;
        book.lost(now, address(1));
        pauses.push(book.next_due(false).unwrap().since(now));
        pauses
    };
    let (one, two) = (pauses(1), pauses(2));
    assert_eq!(one, pauses(1));
    assert_ne!(one, two);
    for (n, pause) in one[..7].iter().enumerate() {
        let plain = AddressBook::FIRST_RETRY * 2u32.pow(n as u32 + 1);
        let bounds = plain.mul_f64(0.75)..plain.mul_f64(1.25);
        assert!(bounds.contains(pause), "{n}: {pause:?}");
    }
    assert!(one[7] < AddressBook::FIRST_RETRY.mul_f64(1.25));
}

#[test]
fn a_peer_that_came_to_us_is_dialled_when_it_is_lost_and_never_before() {
    let mut book = AddressBook::new(1, false);
    let now = Time::default();
    assert!(book.arrived(now, address(1)));
    // Another peer that says the same is not believed.
    assert!(!book.arrived(now, address(1)));
    assert_eq!(book.next(now, false), None);
    let end = now + Duration::from_secs(60);
    book.lost(end, address(1));
    assert_eq!(book.next(end, false), None);
    let later = end + AddressBook::FIRST_RETRY * 2;
    assert_eq!(book.next(later, false), Some(address(1)));
    assert!(!book.arrived(later, address(1)), "it is being dialled");
    book.ban(now, address(1));
    assert!(!book.arrived(later, address(1)));
    assert!(!book.arrived(later, address(0)));
}

#[test]
fn a_peer_that_flaps_is_dialled_ever_more_seldom() {
    let mut book = AddressBook::new(1, false);
    let mut now = Time::default();
    let end = now + Duration::from_secs(600);
    book.add(now, address(1), true);
    let mut dials = 0;
    while now < end {
        if let Some(a) = book.next(now, false) {
            dials += 1;
            book.connected(now, a);
            book.lost(now, a);
        }
        now = now + Duration::from_millis(100);
    }
    // A named one: each 5 s in the end.
    assert!((100..180).contains(&dials), "{dials}");
}

#[test]
fn other_addresses_of_a_connected_peer_rest_until_it_is_gone() {
    let mut book = AddressBook::new(1, false);
    let now = Time::default();
    book.add(now, address(1), false);
    book.next(now, false).unwrap();
    book.twin(now, address(1), [7; 20]);
    let later = now + Duration::from_secs(60);
    book.gone(later, [8; 20]);
    assert_eq!(book.next(later + Duration::from_secs(1), false), None);
    book.gone(later, [7; 20]);
    assert_eq!(book.next(later, false), None);
    assert_eq!(
        book.next(later + Duration::from_secs(1), false),
        Some(address(1))
    );
}

#[test]
fn only_named_addresses_are_dialled_when_there_is_room_for_no_others() {
    let mut book = AddressBook::new(1, false);
    let now = Time::default();
    book.add(now, address(1), false);
    assert_eq!(book.next(now, true), None);
    assert_eq!(book.next_due(true), None);
    book.add(now, address(2), true);
    assert_eq!(book.next(now, true), Some(address(2)));
    assert!(book.is_named(address(2)) && !book.is_named(address(1)));
}

#[test]
fn an_address_that_failed_is_due_at_once_when_the_user_names_it() {
    let mut book = AddressBook::new(1, false);
    let now = Time::default();
    book.add(now, address(1), false);
    book.next(now, false).unwrap();
    book.lost(now, address(1));
    assert_eq!(book.next(now, false), None);
    assert!(book.add(now, address(1), true));
    assert_eq!(book.next(now, false), Some(address(1)));
}

#[test]
fn what_is_remembered_begins_with_those_who_are_there() {
    let mut book = AddressBook::new(1, false);
    let at = |s| Time::from_start(Duration::from_secs(s));
    for port in 1..=6 {
        book.add(at(0), address(port), port == 6);
        book.next(at(0), false).unwrap();
    }
    // 1 was there early, 2 later, 3 is there, 4 only failed, 5 lied, 6 was named.
    for (port, end) in [(1, 50), (2, 80)] {
        book.connected(at(1), address(port));
        book.lost(at(end), address(port));
    }
    book.connected(at(90), address(3));
    book.lost(at(90), address(4));
    book.connected(at(1), address(5));
    book.lied(at(60), address(5));
    book.connected(at(1), address(6));
    assert!(book.remember(at(90), address(7)));
    assert_eq!(book.worth_remembering(9), [3, 2, 1, 7].map(address));
    assert_eq!(book.worth_remembering(2), [3, 2].map(address));
}

fn elsewhere(host: u16, port: u16) -> SocketAddr {
    let [a, b] = host.to_be_bytes();
    SocketAddr::from(([10, 7, a, b], port))
}

#[test]
fn one_host_takes_a_bounded_part_of_the_book_and_junk_makes_room_for_others() {
    let mut book = AddressBook::new(1, false);
    let now = Time::default();
    for port in 1..=5_000 {
        let taken = book.add(now, elsewhere(0, port), false);
        assert_eq!(taken, usize::from(port) <= AddressBook::MAX_OF_ONE);
    }
    // Whom the user names is taken, and counts for nothing here.
    assert!(book.add(now, elsewhere(0, 6_000), true));
    // What failed makes room for another of the same host.
    let failing = book.next(now, false).unwrap();
    assert!(book.is_named(failing));
    let failing = book.next(now, false).unwrap();
    book.lost(now, failing);
    assert!(book.add(now, elsewhere(0, 7_000), false));
    assert!(!book.entries.contains_key(&failing));
    assert!(!book.add(now, elsewhere(0, 7_001), false));

    let mut host = 1;
    while book.entries.len() < AddressBook::CAPACITY {
        assert!(book.add(now, elsewhere(host, 1), false));
        host += 1;
    }
    assert!(!book.add(now, elsewhere(host, 1), false), "all may be good");
    let mut failed = Vec::new();
    for failures in [2, 3, 1] {
        let address = book.next(now, false).unwrap();
        for _ in 0..failures {
            book.lost(now, address);
        }
        failed.push(address);
    }
    assert!(book.add(now, elsewhere(host, 1), false));
    let there = failed.iter().map(|a| book.entries.contains_key(a));
    assert_eq!(there.collect::<Vec<_>>(), [true, false, true]);
    assert_eq!(book.entries.len(), AddressBook::CAPACITY);
}

#[test]
fn a_ban_ends_and_the_address_may_be_learnt_again() {
    let mut book = AddressBook::new(1, false);
    let now = Time::default();
    book.add(now, address(1), false);
    book.ban(now, address(1));
    let later = now + AddressBook::BAN;
    assert!(!book.add(now + AddressBook::BAN / 2, address(1), false));
    assert_eq!(book.next(later, false), None);
    assert!(book.add(later, address(1), false));
    assert_eq!(book.next(later, false), Some(address(1)));
}

#[test]
fn a_book_for_named_addresses_takes_no_others() {
    let mut book = AddressBook::new(1, true);
    let now = Time::default();
    assert!(!book.add(now, address(1), false));
    assert!(!book.arrived(now, address(1)));
    assert!(!book.remember(now, address(1)));
    assert!(book.add(now, address(2), true));
    assert_eq!(book.next(now, false), Some(address(2)));
    book.lost(now, address(2));
    assert!(book.arrived(now, address(2)), "the user named it");
    assert_eq!(book.entries.len(), 1);
}
