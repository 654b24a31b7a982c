// SPDX-License-Identifier: GPL-2.0

//! What packets search for: that it is found, and how many steps it takes. Steps are counted.

use core::cell::Cell;
use core::cmp::Ordering;
use core::sync::atomic::{AtomicU32, AtomicU8, Ordering::SeqCst};
use mhs_core::hash::*;
use mhs_core::maglev::{self, MAX_SERVERS, NONE, SIZES};
use mhs_core::search::*;
use mhs_core::slots::*;
use proptest::prelude::*;

/// The table of `servers` servers of equal weight, as packets see it.
fn table(size: u32, servers: usize) -> Vec<AtomicU32> {
    let of = |i: usize| maglev::Server {
        addr: Addr::V4((i as u32).to_be_bytes()),
        port: 80,
        weight: 1,
    };
    let all: Vec<_> = (0..servers).map(of).collect();
    let mut rows = vec![maglev::Row::default(); servers];
    let mut new = vec![NONE; size as usize];
    maglev::populate(&DEFAULT_KEY, &all, 5, &mut rows, &mut new).unwrap();
    let words: Vec<_> = new
        .iter()
        .map(|_| AtomicU32::new(Word::EMPTY.bits()))
        .collect();
    let marks: Vec<_> = new.iter().map(|_| AtomicU8::new(0)).collect();
    let times = Times {
        now: 1,
        session: 10,
        entry: 10,
    };
    let (mut epochs, mut deadlines) = (vec![0; new.len()], Deadlines::new());
    Slots {
        words: &words,
        marks: &marks,
        epochs: &mut epochs,
        deadlines: &mut deadlines,
    }
    .remap(&new, times);
    words
}

/// A service whose servers `usable` says take new flows.
struct Service<'a> {
    words: &'a [AtomicU32],
    servers: usize,
    next: AtomicU32,
    looks: Cell<usize>,
}

impl<'a> Service<'a> {
    fn new(words: &'a [AtomicU32], servers: usize) -> Self {
        let (next, looks) = (AtomicU32::new(0), Cell::new(0));
        Self {
            words,
            servers,
            next,
            looks,
        }
    }

    /// What a client falls back to, and how many servers were looked at for that.
    fn fall_back(&self, client: u64, usable: impl Fn(u16) -> bool) -> (Option<u16>, usize) {
        self.looks.set(0);
        let look = |index| {
            self.looks.set(self.looks.get() + 1);
            usable(index).then_some(index)
        };
        let own = load(self.words, slot(client, self.words.len() as u32)).unwrap();
        let found = fall_back(
            &DEFAULT_KEY,
            self.words,
            own,
            client,
            self.servers,
            &self.next,
            look,
        );
        (found, self.looks.get())
    }
}

/// A client: any number that is spread over all slots.
fn client(n: u64) -> u64 {
    siphash24(&DEFAULT_KEY, &n.to_le_bytes())
}

/// Whether all servers or none are drained or overloaded, in the largest table as in the smallest.
#[test]
fn falling_back_takes_so_many_steps_at_most() {
    for size in SIZES {
        for servers in [1, 4, 100, 1000] {
            let words = table(size, servers);
            let service = Service::new(&words, servers);
            for n in 0..100 {
                let (found, looks) = service.fall_back(client(n), |_| false);
                assert_eq!(found, None);
                assert_eq!(looks, SLOTS as usize + servers.min(SERVERS));
                let (found, looks) = service.fall_back(client(n), |_| true);
                assert!(found.is_some() && looks == 1);
            }
        }
    }
}

/// All servers are drained, or there is none.
#[test]
fn without_a_usable_server_nothing_is_searched() {
    for size in SIZES {
        let words = table(size, 0);
        for servers in [0, 4, 1000] {
            let service = Service::new(&words, servers);
            assert_eq!(service.fall_back(client(1), |_| true), (None, 0));
        }
    }
}

/// As long as it is not refused it goes where `ip_vs_mh_get_fallback()` would look, in that order.
#[test]
fn by_hash_first() {
    let words = table(4093, 10);
    let service = Service::new(&words, 10);
    let mut seen = [0; 10];
    for n in 0..10_000 {
        let server = |step: u64| {
            let hash = siphash24(&DEFAULT_KEY, &(client(n) ^ step).to_le_bytes());
            load(&words, slot(hash, 4093)).unwrap().new()
        };
        let usable = |index| index >= 5;
        let wanted = (1..=SLOTS)
            .map(server)
            .find(|&index| usable(index))
            .unwrap();
        assert_eq!(service.fall_back(client(n), usable).0, Some(wanted));
        seen[usize::from(wanted)] += 1;
    }
    // They share it.
    assert!(
        seen[5..].iter().all(|count| (1500..2500).contains(count)),
        "{seen:?}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Up to 32 servers: the last one that takes new flows is found by the first who looks.
    #[test]
    fn few_servers_are_all_looked_at(
        (servers, last) in (1..=SERVERS).prop_flat_map(|n| (Just(n), 0..n)),
        next in 0u32..100, n: u64,
    ) {
        let words = table(251, servers);
        let service = Service::new(&words, servers);
        service.next.store(next, SeqCst);
        let usable = |index| usize::from(index) == last;
        prop_assert_eq!(service.fall_back(client(n), usable).0, Some(last as u16));
    }

    /// More: so many flows are refused at most until it is found, and no more after that.
    #[test]
    fn the_last_of_many_is_found_soon(
        (servers, last) in (1..2000usize).prop_flat_map(|n| (Just(n), 0..n)),
        next in 0u32..3000, n: u64,
    ) {
        let words = table(509, servers);
        let service = Service::new(&words, servers);
        service.next.store(next, SeqCst);
        let usable = |index| usize::from(index) == last;
        let clients = (0..500).map(|i| client(n.wrapping_add(i)));
        let found: Vec<_> = clients.map(|client| service.fall_back(client, usable).0).collect();
        let refused = found.iter().filter(|found| found.is_none()).count();
        prop_assert!(refused < servers.div_ceil(SERVERS), "{}", refused);
        prop_assert!(found[400..].iter().all(|found| *found == Some(last as u16)));
    }

    /// What a plain search of the whole list finds.
    #[test]
    fn find_finds_all_that_are_the_same(
        mut list in proptest::collection::vec((0u32..40, any::<u16>()), 0..60), key in 0u32..40,
    ) {
        list.sort();
        let plain = list.iter().filter(|(other, _)| *other == key);
        let plain: Vec<_> = plain.map(|&(_, value)| value).take(SAME).collect();
        prop_assert_eq!(find(&list, key).collect::<Vec<_>>(), plain);
    }
}

thread_local! {
    static COMPARED: Cell<usize> = const { Cell::new(0) };
}

/// A key that counts how often it is compared.
#[derive(Clone, Copy)]
struct Counted(usize);

impl PartialEq for Counted {
    fn eq(&self, other: &Self) -> bool {
        COMPARED.set(COMPARED.get() + 1);
        self.0 == other.0
    }
}

impl PartialOrd for Counted {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        COMPARED.set(COMPARED.get() + 1);
        self.0.partial_cmp(&other.0)
    }
}

/// Wherever a server is among however many, and if it is not.
#[test]
fn finding_takes_so_many_steps_at_most() {
    let all: Vec<_> = (0..MAX_SERVERS)
        .map(|i| (Counted(2 * i), i as u16))
        .collect();
    for servers in [0, 1, 2, 3, 1000, 4000, MAX_SERVERS] {
        for i in (0..=2 * servers).step_by(7).chain([0, 2 * servers]) {
            COMPARED.set(0);
            let found = find(&all[..servers], Counted(i)).next();
            let wanted = (i % 2 == 0 && i / 2 < servers).then_some((i / 2) as u16);
            assert_eq!(found, wanted);
            assert!(COMPARED.get() <= COMPARISONS + 1, "{i}: {}", COMPARED.get());
        }
    }
    // As many of the same as would fit.
    let same = [(Counted(1), 0u16); MAX_SERVERS];
    COMPARED.set(0);
    assert_eq!(find(&same, Counted(1)).count(), SAME);
    assert!(COMPARED.get() <= COMPARISONS + SAME);
}
