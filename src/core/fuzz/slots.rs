// SPDX-License-Identifier: GPL-2.0

//! The slot rules: a model that is as plain as the words of the design, flows that must not be
//! broken, and deadlines that run out.

use core::sync::atomic::{AtomicU32, AtomicU8};

use arbitrary::{Arbitrary, Result, Unstructured};
use mhs_core::maglev::NONE;
use mhs_core::slots::*;

/// Session timeout and life of an entry, in ticks.
pub const T: u64 = 1000;
pub const LIFE: u64 = 1500;

/// Slots of the models.
pub const N: usize = 6;

/// A service as far as the rules see it.
pub struct Bench {
    pub words: Vec<AtomicU32>,
    pub marks: Vec<AtomicU8>,
    pub epochs: Vec<u8>,
    pub deadlines: Deadlines,
}

impl Bench {
    pub fn new(n: usize) -> Self {
        Self {
            words: (0..n).map(|_| AtomicU32::new(Word::EMPTY.bits())).collect(),
            marks: (0..n).map(|_| AtomicU8::new(0)).collect(),
            epochs: vec![0; n],
            deadlines: Deadlines::new(),
        }
    }

    pub fn slots(&mut self) -> Slots<'_> {
        Slots {
            words: &self.words,
            marks: &self.marks,
            epochs: &mut self.epochs,
            deadlines: &mut self.deadlines,
        }
    }

    pub fn word(&self, slot: usize) -> Word {
        load(&self.words, slot as u32).unwrap()
    }

    pub fn fear(&self, slot: usize) -> bool {
        fear(&self.words, slot as u32)
    }

    pub fn touch(&self, slot: usize, now: u64) {
        touch(&self.marks, slot as u32, Coarse::for_timeout(T).mark(now));
    }

    pub fn settle(&mut self, now: u64) -> Outcome {
        self.slots().settle(Coarse::for_timeout(T), at(now))
    }

    /// All that is known of a slot but its marks.
    pub fn state(&self, slot: usize) -> (u16, u16, bool, bool) {
        let word = self.word(slot);
        (word.old(), word.new(), word.feared(), word.seen())
    }
}

/// The times of a call at `now`.
pub fn at(now: u64) -> Times {
    Times {
        now,
        session: T,
        entry: LIFE,
    }
}

/// One slot of the model.
#[derive(Clone, Debug)]
struct Model {
    old: u16,
    new: u16,
    feared: bool,
    seen: bool,
    due: Option<u64>,
    used_at: Option<u64>,
}

impl Model {
    const NEW: Self = Self {
        old: NONE,
        new: NONE,
        feared: false,
        seen: false,
        due: None,
        used_at: None,
    };

    fn stable(&self) -> bool {
        self.old == self.new
    }

    fn fear_until(&mut self, due: u64) {
        (self.feared, self.seen, self.due) = (true, false, Some(due));
    }

    fn change(&mut self, new: u16, now: u64) {
        let (was_stable, was) = (self.stable(), self.new);
        if was == new {
            return;
        }
        self.new = new;
        if self.old == NONE {
            self.old = new;
        } else if self.old == new {
            self.fear_until(now + LIFE);
        } else if was_stable {
            self.due = Some(now + T);
        }
    }

    fn merge(&mut self, now: u64) {
        let due = self.due.is_some_and(|due| due <= now);
        if !self.stable() && due {
            self.old = self.new;
            self.fear_until(now + LIFE);
        } else if self.stable() && due && !self.seen {
            (self.feared, self.due) = (false, None);
        } else if self.stable() && self.feared && (due || self.due.is_none()) {
            self.fear_until(now + LIFE);
        }
    }
}

/// What may happen to the slots.
#[derive(Clone, Debug, Arbitrary)]
pub enum Op {
    Remap(#[arbitrary(with = |u: &mut _| table(u, &[0, 1, 2, 3, NONE]))] Vec<u16>),
    Replace(
        #[arbitrary(with = server)] u16,
        #[arbitrary(with = server)] u16,
    ),
    Touch(#[arbitrary(with = slot)] usize),
    Foreign(#[arbitrary(with = slot)] usize),
    FearAll(#[arbitrary(with = some_server)] Option<u16>),
    Evict(#[arbitrary(with = server)] u16),
    Settle,
    Merge,
    Wait(#[arbitrary(with = |u: &mut Unstructured<'_>| u.int_in_range(1..=T * 3 / 2))] u64),
}

fn server(u: &mut Unstructured<'_>) -> Result<u16> {
    u.int_in_range(0..=3)
}

fn some_server(u: &mut Unstructured<'_>) -> Result<Option<u16>> {
    Ok(match bool::arbitrary(u)? {
        true => Some(server(u)?),
        false => None,
    })
}

fn slot(u: &mut Unstructured<'_>) -> Result<usize> {
    u.choose_index(N)
}

fn table(u: &mut Unstructured<'_>, servers: &[u16]) -> Result<Vec<u16>> {
    (0..N).map(|_| u.choose(servers).copied()).collect()
}

/// Every bit and every deadline, after every step.
pub fn as_the_model_says(ops: Vec<Op>) {
    let mut bench = Bench::new(N);
    let mut model = vec![Model::NEW; N];
    let mut now = 100_000;
    for op in ops {
        let unstable = bench.slots().unstable() as u32;
        let mut outcome = None;
        match op {
            Op::Wait(ticks) => now += ticks,
            Op::Touch(slot) => {
                bench.touch(slot, now);
                model[slot].used_at = Some(now);
            }
            Op::Foreign(slot) => {
                let news = bench.fear(slot);
                assert_eq!(news, !model[slot].feared);
                (model[slot].feared, model[slot].seen) = (true, true);
            }
            Op::FearAll(of) => {
                bench.slots().fear(of, at(now));
                let named = |m: &&mut Model| of.is_none_or(|of| m.old == of || m.new == of);
                for m in model.iter_mut().filter(named) {
                    if m.stable() {
                        m.fear_until(now + LIFE);
                    } else {
                        m.feared = true;
                    }
                }
            }
            Op::Remap(new) => {
                outcome = Some(bench.slots().remap(&new, at(now)));
                model
                    .iter_mut()
                    .zip(new)
                    .for_each(|(m, new)| m.change(new, now));
            }
            Op::Replace(gone, to) => {
                let pick = |slot| to + (slot % 2) as u16;
                outcome = Some(bench.slots().replace(gone, pick, at(now)));
                for (m, slot) in model.iter_mut().zip(0..).filter(|(m, _)| m.new == gone) {
                    m.change(pick(slot), now);
                }
            }
            Op::Evict(gone) => {
                outcome = Some(bench.slots().evict(gone, |new| new % 3 != 0, at(now)));
                let merges = |m: &&mut Model| !m.stable() && m.old == gone && m.new % 3 != 0;
                for m in model.iter_mut().filter(merges) {
                    m.old = m.new;
                    m.fear_until(now + LIFE);
                }
            }
            Op::Settle => {
                outcome = Some(bench.settle(now));
                for (slot, m) in model.iter_mut().enumerate().filter(|(_, m)| !m.stable()) {
                    let merged = bench.word(slot).stable();
                    // A mark is coarse: it may protect a slot for longer than T, never shorter.
                    let age = m.used_at.map_or(u64::MAX, |used| now - used);
                    assert!(!merged || age > T, "slot {} was in use", slot);
                    // Marks come round again, however often.
                    let round = 255 << Coarse::for_timeout(T).shift();
                    let recent = |used: u64| {
                        let age = (now - used) % round;
                        age <= T * 5 / 4 || age >= round - T * 3 / 4
                    };
                    let recent = m.used_at.is_some_and(recent);
                    assert!(merged || recent, "slot {} is idle", slot);
                    if merged {
                        m.old = m.new;
                        m.due = None;
                        if m.feared {
                            m.fear_until(now + LIFE);
                        }
                    }
                }
            }
            Op::Merge => {
                outcome = Some(bench.slots().merge(at(now)));
                model.iter_mut().for_each(|m| m.merge(now));
            }
        }
        for (slot, m) in model.iter().enumerate() {
            let state = (m.old, m.new, m.feared, m.seen);
            assert_eq!(bench.state(slot), state, "slot {}", slot);
            assert!(!m.seen || m.feared);
            assert_eq!(bench.epochs[slot] != 0, m.due.is_some(), "slot {}", slot);
        }
        let next = model.iter().filter_map(|m| m.due).min();
        assert_eq!(bench.deadlines.next(), next);
        let left = model.iter().filter(|m| !m.stable()).count();
        assert_eq!(bench.slots().unstable(), left);
        if let Some(outcome) = outcome {
            assert_eq!(unstable + outcome.unsettled - outcome.settled, left as u32);
        }
    }
    // Left alone, everything becomes stable, and fearless.
    for _ in 0..4 {
        now += 2 * LIFE;
        bench.slots().merge(at(now));
    }
    for slot in 0..N {
        assert!(bench.word(slot).stable() && !bench.word(slot).feared());
    }
    assert_eq!(bench.deadlines.next(), None);
}

/// A flow, its server, and its entry.
#[derive(Clone, Debug)]
struct Flow {
    slot: usize,
    server: u16,
    last: u64,
    entry: Option<(u16, u64)>,
}

/// What may happen to flows.
#[derive(Clone, Debug, Arbitrary)]
pub enum Event {
    Syn(#[arbitrary(with = slot)] usize),
    Segment(#[arbitrary(with = |u: &mut Unstructured<'_>| Ok(u8::arbitrary(u)?.into()))] usize),
    Remap(#[arbitrary(with = |u: &mut _| table(u, &[0, 1, 2, 3]))] Vec<u16>),
    Replace(
        #[arbitrary(with = server)] u16,
        #[arbitrary(with = server)] u16,
    ),
    Settle,
    Wait(#[arbitrary(with = |u: &mut Unstructured<'_>| u.int_in_range(1..=T * 2))] u64),
}

impl Flow {
    /// A packet that does not begin the flow, as the doors treat it. Returns where it went.
    fn segment(&mut self, bench: &Bench, now: u64) -> u16 {
        bench.touch(self.slot, now);
        let word = bench.word(self.slot);
        let entry = self.entry.filter(|(_, used)| now - used < LIFE);
        let server = match entry {
            Some((server, _)) if !word.stable() => server,
            Some((server, _)) if word.feared() && server != word.old() => {
                bench.fear(self.slot);
                server
            }
            _ if word.stable() => return word.old(),
            _ => word.old(),
        };
        self.entry = Some((server, now));
        server
    }
}

/// What all the rules are for: a flow that is never silent for T stays where it is. Merges come
/// `late`.
pub fn no_flow_is_broken(events: Vec<Event>, late: u64) {
    let mut bench = Bench::new(N);
    bench.slots().remap(&[0; N], at(99_999));
    let mut flows: Vec<Flow> = Vec::new();
    let mut now = 100_000;
    for event in events {
        match event {
            Event::Wait(ticks) => {
                let until = now + ticks;
                while let Some(due) = bench.deadlines.next().filter(|due| due + late <= until) {
                    now = now.max(due + late);
                    bench.slots().merge(at(now));
                    assert!(bench.deadlines.next().is_none_or(|next| next > now));
                }
                now = until;
            }
            Event::Remap(new) => {
                bench.slots().remap(&new, at(now));
            }
            Event::Replace(gone, to) => {
                bench.slots().replace(gone, |_| to, at(now));
            }
            Event::Settle => {
                bench.settle(now);
            }
            Event::Syn(slot) => {
                bench.touch(slot, now);
                let word = bench.word(slot);
                let entry = (!word.stable()).then_some((word.new(), now));
                flows.push(Flow {
                    slot,
                    server: word.new(),
                    last: now,
                    entry,
                });
            }
            Event::Segment(any) => {
                flows.retain(|flow| now - flow.last < T);
                let n = flows.len().max(1);
                if let Some(flow) = flows.get_mut(any % n) {
                    let to = flow.segment(&bench, now);
                    assert_eq!(to, flow.server, "at {}: {:?}", now, flow);
                    flow.last = now;
                }
            }
        }
    }
}

/// Slots for more deadlines than there are epochs.
const MANY: usize = 400;

/// Some slots change one after the other, a while after the last, each under a timeout of its own.
#[derive(Clone, Debug, Arbitrary)]
pub struct Change {
    first: u16,
    slots: u8,
    wait: u16,
    #[arbitrary(with = ticks)]
    session: u64,
    /// By how much the next timeout is longer.
    more: u16,
    #[arbitrary(with = ticks)]
    entry: u64,
    back: bool,
}

/// Any number, small ones as likely as large ones.
fn ticks(u: &mut Unstructured<'_>) -> Result<u64> {
    let shift = u.int_in_range(0..=63)?;
    Ok(u64::arbitrary(u)? >> shift)
}

/// Each change takes some slots elsewhere, or back. Merges come when a deadline says so. No slot
/// merges before its time, whatever else there is, and each does in the end.
pub fn no_deadline_is_early(changes: Vec<Change>) {
    let mut bench = Bench::new(MANY);
    let mut new = vec![0; MANY];
    let mut due = vec![None; MANY];
    let mut now = 0u64;
    bench.slots().remap(&new, at(now));
    let merge = |bench: &mut Bench, due: &mut [Option<u64>], times: Times| {
        bench.slots().merge(times);
        for (slot, due) in due.iter_mut().enumerate() {
            let stable = bench.word(slot).stable();
            let early = due.is_some_and(|due| times.now < due);
            assert!(!stable || !early, "slot {slot} at {}: {due:?}", times.now);
            if stable {
                *due = None;
            }
            assert_eq!(
                bench.epochs[slot] == 0,
                !bench.word(slot).feared() && stable
            );
        }
        let ends = bench.epochs.iter().filter_map(|&e| bench.deadlines.end(e));
        assert_eq!(ends.min(), bench.deadlines.next());
        assert!(bench.deadlines.next().is_none_or(|next| next >= times.now));
    };
    for change in changes {
        let times = |now, i: u64| Times {
            now,
            session: change.session.saturating_add(i * u64::from(change.more)),
            entry: change.entry,
        };
        let until = now.saturating_add(change.wait.into());
        let next = |bench: &Bench| bench.deadlines.next().filter(|&next| next <= until);
        while let Some(next) = next(&bench).filter(|&next| next != u64::MAX) {
            now = now.max(next);
            merge(&mut bench, &mut due, times(now, 0));
        }
        now = until;
        let first = usize::from(change.first) % MANY;
        for (i, slot) in (0..).zip((first..MANY).take(change.slots.into())) {
            let (word, times) = (bench.word(slot), times(now, i));
            new[slot] = match change.back {
                true => word.old(),
                false => word.new() ^ 1,
            };
            if word.stable() && new[slot] != word.old() {
                due[slot] = Some(now.saturating_add(times.session));
            } else if new[slot] == word.old() {
                due[slot] = None;
            }
            bench.slots().remap(&new, times);
        }
        assert_eq!(bench.slots().unstable(), due.iter().flatten().count());
    }
    // Fear of a slot that merges now is over at the next deadline.
    while let Some(next) = bench.deadlines.next() {
        now = now.max(next);
        let (session, entry) = (0, 0);
        merge(
            &mut bench,
            &mut due,
            Times {
                now,
                session,
                entry,
            },
        );
        if now == u64::MAX {
            break;
        }
    }
    assert!(now == u64::MAX || bench.slots().unstable() == 0);
}
