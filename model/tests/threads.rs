// SPDX-License-Identifier: GPL-2.0

//! Real threads on the double table: packets on some, the writer on another, as fast as they go.
//!
//! What a packet finds at a server is plain memory that was written before a word named the server.
//! ThreadSanitizer sees it if nothing but luck puts the one before the other.

use mhs_core::slots::*;
use std::{
    cell::UnsafeCell,
    sync::{
        atomic::{
            AtomicBool,
            AtomicU32,
            AtomicU64,
            AtomicU8,
            Ordering::{
                Acquire,
                Relaxed,
                Release, //
            }, //
        },
        Arc, //
    },
    thread, //
};

const SLOTS: usize = 64;
const SERVERS: u16 = 3000;
const PACKETS: u64 = 3;
const T: u64 = 40;
const LIFE: u64 = 60;

/// What is known of a server: plain memory, written once, before any slot names it.
struct Server(UnsafeCell<[u64; 2]>);

// SAFETY: `Server::publish` is called once for each, before a word of the table names it, and
// `Server::look` by those who loaded such a word; that is what is tested.
unsafe impl Sync for Server {}

impl Server {
    fn publish(&self, index: u16) {
        // SAFETY: No word names it yet, so nobody looks.
        unsafe { *self.0.get() = [index.into(), u64::from(index) ^ 0xabcd] };
    }

    fn look(&self, index: u16) {
        // SAFETY: It is written no more.
        let seen = unsafe { *self.0.get() };
        assert_eq!(seen, [index.into(), u64::from(index) ^ 0xabcd]);
    }
}

struct Shared {
    words: Vec<AtomicU32>,
    marks: Vec<AtomicU8>,
    servers: Vec<Server>,
    now: AtomicU64,
    called: AtomicBool,
    done: AtomicBool,
}

/// Packets of one CPU, until the writer is done. Returns how many.
fn packets(shared: &Shared, mut random: u64) -> u64 {
    let clock = Coarse::for_timeout(T);
    let (mut count, mut last) = (0, [0; SLOTS]);
    while !shared.done.load(Relaxed) {
        random = random
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        let slot = (random >> 40) as usize % SLOTS;
        touch(
            &shared.marks,
            slot as u32,
            clock.mark(shared.now.load(Relaxed)),
        );
        let word = load(&shared.words, slot as u32).unwrap();
        // Servers have ever higher numbers, so a slot's never go back.
        assert!(word.old() <= word.new() && last[slot] <= word.new());
        last[slot] = word.new();
        shared.servers[usize::from(word.old())].look(word.old());
        shared.servers[usize::from(word.new())].look(word.new());
        if random >> 60 == 0 && fear(&shared.words, slot as u32) {
            shared.called.store(true, Release);
        }
        count += 1;
    }
    count
}

fn main() {
    let shared = Arc::new(Shared {
        words: (0..SLOTS)
            .map(|_| AtomicU32::new(Word::EMPTY.bits()))
            .collect(),
        marks: (0..SLOTS).map(|_| AtomicU8::new(0)).collect(),
        servers: (0..SERVERS)
            .map(|_| Server(UnsafeCell::new([0; 2])))
            .collect(),
        now: AtomicU64::new(1000),
        called: AtomicBool::new(false),
        done: AtomicBool::new(false),
    });
    let (mut epochs, mut deadlines) = (vec![0; SLOTS], Deadlines::new());
    let mut slots = Slots {
        words: &shared.words,
        marks: &shared.marks,
        epochs: &mut epochs,
        deadlines: &mut deadlines,
    };
    let mut threads = Vec::new();
    let (mut settled, mut new) = (Outcome::default(), vec![0; SLOTS]);
    for server in 0..SERVERS {
        shared.servers[usize::from(server)].publish(server);
        let now = shared.now.fetch_add(7, Relaxed) + 7;
        let times = Times {
            now,
            session: T,
            entry: LIFE,
        };
        let changes = new.iter_mut().enumerate();
        for (_, to) in
            changes.filter(|(slot, _)| server == 0 || slot % 5 == usize::from(server) % 5)
        {
            *to = server;
        }
        settled += slots.remap(&new, times);
        if server == 0 {
            for random in 0..PACKETS {
                let shared = shared.clone();
                threads.push(thread::spawn(move || packets(&shared, random)));
            }
        }
        if server % 8 == 0 {
            settled += slots.settle(Coarse::for_timeout(T), times);
        }
        if deadlines_due(slots.deadlines, now) || shared.called.swap(false, Acquire) {
            settled += slots.merge(times);
        }
        if server % 50 == 0 {
            thread::yield_now();
        }
    }
    shared.done.store(true, Relaxed);
    let counts: Vec<u64> = threads
        .into_iter()
        .map(|thread| thread.join().unwrap())
        .collect();
    println!("| packets | {} |", counts.iter().sum::<u64>());
    println!("| slots that became unstable | {} |", settled.unsettled);
    assert!(counts.iter().all(|&count| count > 1000), "{counts:?}");
    assert!(settled.unsettled > 1000 && settled.settled > 1000);

    // Left alone, everything becomes stable, and fearless.
    let mut now = shared.now.load(Relaxed);
    for _ in 0..4 {
        now += LIFE + T;
        let (session, entry) = (T, LIFE);
        slots.merge(Times {
            now,
            session,
            entry,
        });
    }
    for (slot, &server) in new.iter().enumerate() {
        let word = load(&shared.words, slot as u32).unwrap();
        assert_eq!(
            (word.old(), word.new(), word.feared()),
            (server, server, false)
        );
    }
    println!("test packets_and_the_writer ... ok");
}

fn deadlines_due(deadlines: &Deadlines, now: u64) -> bool {
    deadlines.next().is_some_and(|next| next <= now)
}
