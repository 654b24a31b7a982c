// SPDX-License-Identifier: GPL-2.0

//! The double table: for each slot an old and a new server, and when the one becomes the other.
//!
//! A slot whose two servers agree is *stable*: its packets are forwarded by hash alone. Where they
//! differ it is *unstable*: new flows go to the new server, others to the old one, each pinned by
//! an entry. A session timeout later every live flow is pinned and the slot is merged: old := new.
//!
//! After a merge there may be pins to another server than the slot's own, and those must go on
//! being used. Such a slot is *feared*: its packets need a flow lookup until no such pin was seen
//! for longer than an entry can live.
//!
//! Concurrency: readers (packets) load one word and set bits in it, writers are serialised by the
//! caller. Every change by a writer is one atomic read-modify-write of one word, so that a reader
//! sees a slot before a change or after it, and a bit set by a reader is never lost.

use core::sync::atomic::{
    AtomicU32, AtomicU8,
    Ordering::{
        AcqRel,
        Acquire,
        Relaxed, //
    },
};

use super::maglev::NONE;

const FIELD: u32 = 0x7fff;
const NEW_SHIFT: u32 = 15;
const FEARED: u32 = 1 << 30;
const SEEN: u32 = 1 << 31;

/// Both servers of a slot and what is known of its pins, in 32 bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Word(u32);

impl Word {
    /// The word of an untouched slot: no server.
    pub const EMPTY: Word = Word(NONE as u32 | (NONE as u32) << NEW_SHIFT);

    /// The bits, to put them into an atomic.
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Where flows live that are not new.
    pub fn old(self) -> u16 {
        (self.0 & FIELD) as u16
    }

    /// Where new flows go.
    pub fn new(self) -> u16 {
        (self.0 >> NEW_SHIFT & FIELD) as u16
    }

    /// Whether every packet goes to the same server.
    pub fn stable(self) -> bool {
        self.old() == self.new()
    }

    /// Whether there may be pins to another server than the slot's own.
    pub fn feared(self) -> bool {
        self.0 & FEARED != 0
    }

    /// Whether such a pin was seen since the last look.
    pub fn seen(self) -> bool {
        self.0 & SEEN != 0
    }

    fn set_old(self, old: u16) -> Self {
        Self(self.0 & !FIELD | u32::from(old))
    }

    fn set_new(self, new: u16) -> Self {
        Self(self.0 & !(FIELD << NEW_SHIFT) | u32::from(new) << NEW_SHIFT)
    }

    fn set(self, bits: u32) -> Self {
        Self(self.0 | bits)
    }

    fn clear(self, bits: u32) -> Self {
        Self(self.0 & !bits)
    }
}

/// A coarse clock for the "last used" mark of a slot: at least 8 marks in a session timeout.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Coarse {
    shift: u32,
}

impl Coarse {
    /// The clock for a session timeout of `t` ticks.
    pub fn for_timeout(t: u64) -> Self {
        Self {
            shift: (t / 8).max(1).ilog2(),
        }
    }

    /// A clock from what [`Coarse::shift`] returned.
    pub fn from_shift(shift: u32) -> Self {
        Self {
            shift: shift.min(63),
        }
    }

    /// The binary logarithm of the ticks between two marks.
    pub fn shift(self) -> u32 {
        self.shift
    }

    /// The mark of a slot that is used now: 1 to 255, over and over. 0 means never.
    #[inline]
    pub fn mark(self, now: u64) -> u8 {
        ((now >> self.shift) % 255 + 1) as u8
    }

    /// Whether a slot so marked was used within `t` ticks. When in doubt it was: the mark comes
    /// round again after at least 16 timeouts.
    pub fn used_within(self, mark: u8, now: u64, t: u64) -> bool {
        if mark == 0 {
            return false;
        }
        let age = (u64::from(self.mark(now)) + 255 - u64::from(mark)) % 255;
        age <= (t >> self.shift) + 1
    }
}

/// Loads the word of a slot.
#[inline]
pub fn load(words: &[AtomicU32], slot: u32) -> Option<Word> {
    words
        .get(slot as usize)
        .map(|word| Word(word.load(Acquire)))
}

/// Marks a slot as used. Writes only if the mark changes: a few times in a session timeout.
#[inline]
pub fn touch(marks: &[AtomicU8], slot: u32, mark: u8) {
    if let Some(last) = marks.get(slot as usize) {
        if last.load(Relaxed) != mark {
            last.store(mark, Relaxed);
        }
    }
}

/// Notes that a pin to another server than the slot's own was seen or made. Returns whether that
/// is news that wants a deadline. Writes once between two looks of the writer.
pub fn fear(words: &[AtomicU32], slot: u32) -> bool {
    let Some(word) = words.get(slot as usize) else {
        return false;
    };
    let bits = FEARED | SEEN;
    word.load(Relaxed) & bits != bits && word.fetch_or(bits, AcqRel) & FEARED == 0
}

/// How many distinct deadlines a service may have.
const EPOCHS: usize = 256;

/// Below so many live deadlines each is exact; above, new ones share.
const EXACT: usize = 128;

/// The deadlines of a service. A slot names one of them by an 8-bit *epoch*; 0 is none.
pub struct Deadlines {
    at: [u64; EPOCHS],
    slots: [u32; EPOCHS],
    live: usize,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self::new()
    }
}

impl Deadlines {
    /// No deadline at all.
    pub const fn new() -> Self {
        Self {
            at: [0; EPOCHS],
            slots: [0; EPOCHS],
            live: 0,
        }
    }

    /// An epoch that ends at `at` ticks: exactly while few are live, else later by `slack` at
    /// most, or, should all be taken, at the next one that is live; never earlier.
    fn find(&mut self, at: u64, slack: u64) -> u8 {
        let live = || (1..EPOCHS).zip(self.at.iter().zip(&self.slots).skip(1));
        let same = live().find(|(_, (&a, &n))| n > 0 && a == at);
        if let Some((epoch, _)) = same {
            return epoch as u8;
        }
        if self.live >= EXACT {
            let later = live()
                .filter(|(_, (&a, &n))| n > 0 && a >= at)
                .min_by_key(|(_, (&a, _))| a);
            if let Some((epoch, (&a, _))) = later {
                if a - at <= slack {
                    return epoch as u8;
                }
            }
        }
        let free = live().find(|(_, (_, &n))| n == 0).map(|(epoch, _)| epoch);
        let (epoch, at) = match free {
            // With many live, look ahead, so that the next changes share this one.
            Some(epoch) if self.live >= EXACT => (epoch, at + slack),
            Some(epoch) => (epoch, at),
            None => {
                // All 255 are taken: the next later one, or else the last one is put off.
                let later = live()
                    .filter(|(_, (&a, _))| a >= at)
                    .min_by_key(|(_, (&a, _))| a);
                match later {
                    Some((epoch, _)) => return epoch as u8,
                    None => {
                        let last = live().max_by_key(|(_, (&a, _))| a);
                        (last.map_or(1, |(epoch, _)| epoch), at)
                    }
                }
            }
        };
        if let Some(to) = self.at.get_mut(epoch) {
            *to = at;
        }
        epoch as u8
    }

    /// Moves a slot from one epoch to another.
    fn count(&mut self, from: u8, to: u8) {
        if from != 0 {
            if let Some(n) = self.slots.get_mut(usize::from(from)) {
                *n -= 1;
                self.live -= usize::from(*n == 0);
            }
        }
        if to != 0 {
            if let Some(n) = self.slots.get_mut(usize::from(to)) {
                *n += 1;
                self.live += usize::from(*n == 1);
            }
        }
    }

    /// The earliest deadline, in ticks.
    pub fn next(&self) -> Option<u64> {
        self.at
            .iter()
            .zip(&self.slots)
            .skip(1)
            .filter(|(_, &n)| n > 0)
            .map(|(&at, _)| at)
            .min()
    }
}

/// The times that a change or a merge is made with, in ticks.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// Now.
    pub now: u64,
    /// The session timeout: how long a live flow may be silent.
    pub session: u64,
    /// How long an entry may live without a packet.
    pub entry: u64,
}

/// What a change or a merge did, in slots.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// Became unstable.
    pub unsettled: u32,
    /// Became stable.
    pub settled: u32,
}

/// The double table as its writer sees it.
pub struct Slots<'a> {
    /// A [`Word`] for each slot.
    pub words: &'a [AtomicU32],
    /// A mark of a [`Coarse`] clock for each slot.
    pub marks: &'a [AtomicU8],
    /// For each slot the epoch of its next deadline: the merge of an unstable slot, the end of
    /// fear of a stable one.
    pub epochs: &'a mut [u8],
    /// What the epochs mean.
    pub deadlines: &'a mut Deadlines,
}

/// A slot as a rule sees it.
#[derive(Clone, Copy)]
struct View {
    slot: u32,
    word: Word,
    mark: u8,
    epoch: u8,
}

enum Deadline {
    Keep,
    Never,
    At(u64),
}

/// What a rule makes of a slot.
struct Step {
    word: Word,
    deadline: Deadline,
}

impl Step {
    /// The slot gets this word and keeps its deadline.
    fn to(word: Word) -> Self {
        Self {
            word,
            deadline: Deadline::Keep,
        }
    }

    fn until(self, at: u64) -> Self {
        Self {
            deadline: Deadline::At(at),
            ..self
        }
    }

    fn never(self) -> Self {
        Self {
            deadline: Deadline::Never,
            ..self
        }
    }

    /// The slot is stable, and there may be pins to another server.
    fn fear(self, times: Times) -> Self {
        Self {
            word: self.word.set(FEARED).clear(SEEN),
            deadline: Deadline::At(times.now + times.entry),
        }
    }
}

impl Slots<'_> {
    /// Applies a rule to each slot. The rule may be asked twice about a slot if a packet set a bit
    /// of its word meanwhile.
    fn apply(&mut self, times: Times, mut rule: impl FnMut(View) -> Option<Step>) -> Outcome {
        let mut outcome = Outcome::default();
        let slack = (times.session / 64).max(1);
        let cells = self.words.iter().zip(self.marks);
        for (slot, ((cell, mark), epoch)) in cells.zip(self.epochs.iter_mut()).enumerate() {
            let mut bits = cell.load(Acquire);
            let deadline = loop {
                let before = Word(bits);
                let Some(step) = rule(View {
                    slot: slot as u32,
                    word: before,
                    mark: mark.load(Relaxed),
                    epoch: *epoch,
                }) else {
                    break Deadline::Keep;
                };
                match cell.compare_exchange(bits, step.word.0, AcqRel, Acquire) {
                    Ok(_) => {
                        outcome.unsettled += u32::from(before.stable() && !step.word.stable());
                        outcome.settled += u32::from(!before.stable() && step.word.stable());
                        break step.deadline;
                    }
                    Err(now) => bits = now,
                }
            };
            let to = match deadline {
                Deadline::Keep => continue,
                Deadline::Never => 0,
                Deadline::At(at) => self.deadlines.find(at, slack),
            };
            self.deadlines.count(*epoch, to);
            *epoch = to;
        }
        outcome
    }

    /// The rules for one slot whose new server is to be `new`.
    fn change(word: Word, new: u16, times: Times) -> Option<Step> {
        if word.new() == new {
            return None;
        }
        let step = Step::to(word.set_new(new));
        Some(if word.old() == NONE {
            // Nobody lives there: nothing to protect.
            let step = Step::to(word.set_old(new).set_new(new));
            if word.stable() {
                step
            } else {
                step.fear(times)
            }
        } else if word.old() == new {
            // Back where it was. Flows that came meanwhile are pinned elsewhere.
            step.fear(times)
        } else if word.stable() {
            step.until(times.now + times.session)
        } else {
            // Every flow since the first deadline was set is pinned, so that one still holds.
            step
        })
    }

    /// The server set changed: `new` has the server of each slot from now on.
    pub fn remap(&mut self, new: &[u16], times: Times) -> Outcome {
        self.apply(times, |at| {
            Self::change(at.word, *new.get(at.slot as usize)?, times)
        })
    }

    /// The server `gone` must get no new flow, and there is no memory for a table: `pick` says
    /// where each of its slots goes.
    pub fn replace(&mut self, gone: u16, pick: impl Fn(u32) -> u16, times: Times) -> Outcome {
        self.apply(times, |at| {
            (at.word.new() == gone).then(|| Self::change(at.word, pick(at.slot), times))?
        })
    }

    /// Merges the unstable slots that nobody used within the session timeout: there is no flow to
    /// protect.
    ///
    /// Only to be called when a grace period has passed since the change: a packet in flight on
    /// another CPU during the change may have been forwarded by the old word and not yet have left
    /// its mark.
    pub fn settle(&mut self, coarse: Coarse, times: Times) -> Outcome {
        self.apply(times, |at| {
            if at.word.stable() || coarse.used_within(at.mark, times.now, times.session) {
                return None;
            }
            let step = Step::to(at.word.set_old(at.word.new()));
            // Fear from before the change is not over just because nobody came.
            Some(if at.word.feared() {
                step.fear(times)
            } else {
                step.never()
            })
        })
    }

    /// Does what is due: merges slots, ends fear. Gives a deadline to fear that packets reported.
    pub fn merge(&mut self, times: Times) -> Outcome {
        let mut due = [false; EPOCHS];
        for (due, at) in due.iter_mut().zip(&self.deadlines.at) {
            *due = *at <= times.now;
        }
        self.apply(times, |at| {
            let due = at.epoch != 0 && due.get(usize::from(at.epoch)).is_some_and(|&due| due);
            let (word, stable, feared) = (at.word, at.word.stable(), at.word.feared());
            if stable && feared && (at.epoch == 0 || due && word.seen()) {
                Some(Step::to(word).fear(times))
            } else if !due {
                None
            } else if stable {
                Some(Step::to(word.clear(FEARED | SEEN)).never())
            } else {
                Some(Step::to(word.set_old(word.new())).fear(times))
            }
        })
    }

    /// Flows on the server `gone` are to end now: its slots are merged whatever their deadline.
    pub fn evict(&mut self, gone: u16, times: Times) -> Outcome {
        self.apply(times, |at| {
            (at.word.old() == gone && !at.word.stable())
                .then(|| Step::to(at.word.set_old(at.word.new())).fear(times))
        })
    }

    /// Entries may exist for any flow of the stable slots of server `of`, or of all: when a
    /// service had another scheduler before, or a server another forwarding method.
    pub fn fear(&mut self, of: Option<u16>, times: Times) {
        self.apply(times, |at| {
            (at.word.stable() && of.is_none_or(|of| at.word.old() == of))
                .then(|| Step::to(at.word).fear(times))
        });
    }

    /// Makes every slot that was ever used one that was used at `mark`: for a change of the clock.
    pub fn remark(&mut self, mark: u8) {
        for last in self.marks.iter().filter(|last| last.load(Relaxed) != 0) {
            last.store(mark, Relaxed);
        }
    }

    /// Whether any slot names this server.
    pub fn names(&self, index: u16) -> bool {
        self.words.iter().any(|word| {
            let word = Word(word.load(Relaxed));
            word.old() == index || word.new() == index
        })
    }

    /// How many slots are unstable.
    pub fn unstable(&self) -> usize {
        let stable = |word: &&AtomicU32| Word(word.load(Relaxed)).stable();
        self.words.len() - self.words.iter().filter(stable).count()
    }
}
