// SPDX-License-Identifier: GPL-2.0

//! The balancer mhs: the double table of `src/core`, and what `src/doors.rs` does with it.

use super::{Change, Flows, Index, Live, Servers, World};
use crate::{forecast, server::Server};
use mhs_core::{
    maglev::NONE,
    slots::{self, Coarse, Deadlines, Slots, Times, Word},
};
use std::{
    collections::{HashMap, HashSet},
    sync::atomic::{AtomicU32, AtomicU8, Ordering::Relaxed},
};

/// What became of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fate {
    /// `None` if it is broken, or there was none.
    pub server: Option<Index>,
    /// Its entry.
    entry: Option<Entry>,
    /// Whether it ever had one.
    pub tracked: bool,
}

/// An entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    number: u64,
    /// When it expires, if packets of its flow do not touch it: the slot says the same.
    idle_until: Option<u64>,
}

impl Entry {
    fn is_over(&self, now: u64) -> bool {
        self.idle_until.is_some_and(|until| until <= now)
    }
}

/// What is to be done later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Later {
    /// The flow of this number sends a packet.
    Packet(usize, u64),
    /// An entry expires.
    Expiry(u64),
    /// The grace of a deleted server is over.
    GraceEnds(Index),
}

/// Things to be done later, with their times.
pub type Queue = Vec<(u64, Later)>;

pub struct Mhs {
    words: Vec<AtomicU32>,
    marks: Vec<AtomicU8>,
    epochs: Vec<u8>,
    deadlines: Deadlines,
    clock: Coarse,
    indices: HashMap<Server, Index>,
    /// The flows of each slot.
    of_slot: Vec<Vec<usize>>,
    /// When the last flow of each slot that ended did so, +1; 0 if none did.
    last_end: Vec<u64>,
    /// Deleted, and until when they get the packets of their flows.
    gone: HashMap<Index, u64>,
    /// Deleted, and that is over.
    dead: HashSet<Index>,
    /// The expiry of each entry that is to expire.
    expiries: HashMap<u64, u64>,
    serial: u64,
    pub entries: u64,
    /// Flows that ever had an entry.
    pub tracked: u64,
    pub broken: u64,
}

impl Mhs {
    pub fn new(world: &World, servers: &Servers) -> Result<Self, String> {
        let size = world.config.size as usize;
        let indices = (0..).zip(&world.weights);
        let mut mhs = Self {
            words: (0..size)
                .map(|_| AtomicU32::new(Word::EMPTY.bits()))
                .collect(),
            marks: (0..size).map(|_| AtomicU8::new(0)).collect(),
            epochs: vec![0; size],
            deadlines: Deadlines::new(),
            clock: Coarse::for_timeout(world.timeout),
            indices: indices
                .map(|(index, _)| (World::server(index), index))
                .collect(),
            of_slot: vec![Vec::new(); size],
            last_end: vec![0; size],
            gone: HashMap::new(),
            dead: HashSet::new(),
            expiries: HashMap::new(),
            serial: 0,
            entries: 0,
            tracked: 0,
            broken: 0,
        };
        let table = mhs.table(world, servers)?;
        mhs.with_slots(|slots| slots.remap(&table, times(world, 0)));
        Ok(mhs)
    }

    fn table(&self, world: &World, servers: &Servers) -> Result<Vec<u16>, String> {
        let table = forecast::table(&world.config, &servers.fleet())?;
        let index = |server: Option<Server>| {
            server
                .and_then(|server| self.indices.get(&server))
                .copied()
                .unwrap_or(NONE)
        };
        Ok(table.into_iter().map(index).collect())
    }

    fn with_slots<T>(&mut self, act: impl FnOnce(&mut Slots<'_>) -> T) -> T {
        act(&mut Slots {
            words: &self.words,
            marks: &self.marks,
            epochs: &mut self.epochs,
            deadlines: &mut self.deadlines,
        })
    }

    fn word(&self, slot: u32) -> Word {
        slots::load(&self.words, slot).unwrap_or(Word::EMPTY)
    }

    pub fn unstable(&self) -> u64 {
        let unstable = (0..self.words.len() as u32).filter(|&slot| !self.word(slot).stable());
        unstable.count() as u64
    }

    /// When slots are to be merged.
    pub fn deadline(&self) -> Option<u64> {
        self.deadlines.next()
    }

    /// Where a new flow of a slot goes.
    pub fn newcomer(&self, slot: u32) -> Option<Index> {
        Some(self.word(slot).new()).filter(|&index| index != NONE)
    }

    /// A SYN: in an unstable slot it makes an entry.
    pub fn start(&mut self, number: usize, slot: u32) -> Fate {
        if let Some(of_slot) = self.of_slot.get_mut(slot as usize) {
            of_slot.push(number);
        }
        let server = self.newcomer(slot);
        let mut fate = Fate {
            server,
            entry: None,
            tracked: false,
        };
        if server.is_some() && !self.word(slot).stable() {
            self.pin(&mut fate);
        }
        fate
    }

    fn pin(&mut self, fate: &mut Fate) {
        self.serial += 1;
        self.entries += 1;
        self.tracked += u64::from(!fate.tracked);
        fate.tracked = true;
        fate.entry = Some(Entry {
            number: self.serial,
            idle_until: None,
        });
    }

    fn expire(&mut self, entry: u64, at: u64, later: &mut Queue) {
        self.expiries.insert(entry, at);
        later.push((at, Later::Expiry(entry)));
    }

    /// The end of a flow: its last packet, and what is left of its entry.
    pub fn end(&mut self, world: &World, number: usize, live: &mut Live, later: &mut Queue) {
        let (slot, now) = (live.slot as usize, live.flow.end);
        if let Some(of_slot) = self.of_slot.get_mut(slot) {
            of_slot.retain(|&other| other != number);
        }
        if let Some(last) = self.last_end.get_mut(slot) {
            *last = now + 1;
        }
        self.packet(world, live, now, later);
        if let Some(entry) = live.mhs.entry.filter(|entry| entry.idle_until.is_none()) {
            self.expire(entry.number, now + world.linger, later);
        }
    }

    /// A packet that is no SYN.
    pub fn packet(&mut self, world: &World, live: &mut Live, now: u64, later: &mut Queue) {
        let Some(server) = live.mhs.server else {
            return;
        };
        let word = self.word(live.slot);
        let by_hash = word.old() == server;
        let in_grace = self.gone.contains_key(&server);
        if self.dead.contains(&server) {
            return self.break_flow(world, live, now, later);
        }
        match live.mhs.entry.filter(|entry| !entry.is_over(now)) {
            // Its way is kept, but not its entry.
            Some(_) if in_grace => (),
            Some(_) if by_hash && word.stable() => (),
            // IPVS forwards, which touches the entry.
            Some(entry) => {
                self.expiries.remove(&entry.number);
                live.mhs.entry = Some(Entry {
                    idle_until: None,
                    ..entry
                });
            }
            None if !by_hash => self.break_flow(world, live, now, later),
            None if word.stable() || in_grace => live.mhs.entry = None,
            None => self.pin(&mut live.mhs),
        }
    }

    fn break_flow(&mut self, world: &World, live: &mut Live, now: u64, later: &mut Queue) {
        self.broken += 1;
        live.mhs.server = None;
        if let Some(entry) = live.mhs.entry.take() {
            if entry.idle_until.is_none() {
                self.expire(entry.number, now + world.linger, later);
            }
        }
    }

    /// An entry expires, if that was not put off.
    pub fn expiry(&mut self, entry: u64, now: u64) {
        if self.expiries.get(&entry) == Some(&now) {
            self.expiries.remove(&entry);
            self.entries -= 1;
        }
    }

    /// A change of the fleet.
    pub fn change(
        &mut self,
        world: &World,
        servers: &Servers,
        change: Change,
        now: u64,
        flows: &mut Flows,
        later: &mut Queue,
    ) -> Result<(), String> {
        let index = match change {
            Change::Delete(index) => {
                self.gone.insert(index, now + world.timeout);
                later.push((now + world.timeout, Later::GraceEnds(index)));
                index
            }
            Change::Drain(index) | Change::Return(index) | Change::Fail(index) => {
                self.gone.remove(&index);
                self.dead.remove(&index);
                index
            }
        };
        if let Change::Fail(index) = change {
            for live in flows.iter_mut().flatten() {
                if live.mhs.server == Some(index) {
                    live.mhs.server = None;
                    // Nobody touches it any more.
                    match live.mhs.entry.take().filter(|entry| !entry.is_over(now)) {
                        Some(entry) if world.expire_nodest_conn => {
                            self.expiries.remove(&entry.number);
                            self.entries -= 1;
                        }
                        Some(entry) if entry.idle_until.is_none() => {
                            let until = live.flow.last_packet(now) + world.timeout;
                            self.expire(entry.number, until, later);
                        }
                        _ => (),
                    }
                }
            }
        }
        let table = self.table(world, servers)?;
        let before = self.snapshot();
        self.with_slots(|slots| slots.remap(&table, times(world, now)));
        if let (Change::Fail(index), true) = (change, world.expire_nodest_conn) {
            self.with_slots(|slots| slots.evict(index, |_| true, times(world, now)));
        }
        // Whether anybody used them is asked of these slots only.
        for slot in 0..before.len() {
            if self.word(slot as u32).stable() {
                continue;
            }
            let ended = self.last_end.get(slot).and_then(|last| last.checked_sub(1));
            let living = self.of_slot.get(slot).into_iter().flatten();
            let living = living.filter_map(|&number| flows.get(number)?.as_ref());
            let last = living.map(|live| live.flow.last_packet(now)).max();
            if let (Some(last), Some(mark)) = (last.max(ended), self.marks.get(slot)) {
                mark.store(self.clock.mark(last), Relaxed);
            }
        }
        let clock = self.clock;
        self.with_slots(|slots| slots.settle(clock, times(world, now)));
        self.react(world, &before, Some(index), now, flows, later);
        Ok(())
    }

    /// The time for a merge has come.
    pub fn merge(&mut self, world: &World, now: u64, flows: &mut Flows, later: &mut Queue) {
        let before = self.snapshot();
        self.with_slots(|slots| slots.merge(times(world, now)));
        self.react(world, &before, None, now, flows, later);
    }

    /// The grace of a server is over, if it was not added again.
    pub fn grace_ends(
        &mut self,
        world: &World,
        index: Index,
        now: u64,
        flows: &mut Flows,
        later: &mut Queue,
    ) {
        if self.gone.get(&index) == Some(&now) {
            self.gone.remove(&index);
            self.dead.insert(index);
            let before = self.snapshot();
            self.react(world, &before, Some(index), now, flows, later);
        }
    }

    fn snapshot(&self) -> Vec<Word> {
        let slots = 0..self.words.len() as u32;
        slots.map(|slot| self.word(slot)).collect()
    }

    /// What a change means for the flows of the slots that changed since `before`, and for those on
    /// the server `changed`.
    fn react(
        &mut self,
        world: &World,
        before: &[Word],
        changed: Option<Index>,
        now: u64,
        flows: &mut Flows,
        later: &mut Queue,
    ) {
        for (number, live) in flows.iter_mut().enumerate() {
            let Some(live) = live else {
                continue;
            };
            let word = self.word(live.slot);
            let same = before
                .get(live.slot as usize)
                .is_some_and(|before| (before.old(), before.new()) == (word.old(), word.new()));
            if same && (changed.is_none() || live.mhs.server != changed) {
                continue;
            }
            let Some(server) = live.mhs.server else {
                continue;
            };
            let by_hash = word.stable() && word.old() == server;
            let in_grace = self.gone.contains_key(&server);
            let entry = live.mhs.entry.filter(|entry| !entry.is_over(now));
            match entry {
                // No packet touches it any more.
                Some(entry) if (by_hash || in_grace) && entry.idle_until.is_none() => {
                    let until = live.flow.last_packet(now) + world.timeout;
                    live.mhs.entry = Some(Entry {
                        idle_until: Some(until),
                        ..entry
                    });
                    self.expire(entry.number, until, later);
                    // Without it the way is another, if the slot says so.
                    let then = live.flow.next_packet(until - 1);
                    if then < live.flow.end {
                        later.push((then, Later::Packet(number, live.flow.hash)));
                    }
                }
                _ => live.mhs.entry = entry,
            }
            // The next packet may make an entry, use one again, or get lost.
            let next = live.flow.next_packet(now);
            if next < live.flow.end {
                later.push((next, Later::Packet(number, live.flow.hash)));
            }
        }
    }
}

fn times(world: &World, now: u64) -> Times {
    Times {
        now,
        session: world.timeout,
        entry: world.timeout,
    }
}
