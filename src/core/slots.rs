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
//! # Concurrency
//!
//! Packets load a word, set bits in it ([`fear`]) and write marks ([`touch`]), at any time and on
//! any CPU. Changes are made by one writer at a time, under the caller's lock; epochs and deadlines
//! are the writer's own. Every change of a word is one compare-and-exchange of all its 32 bits, and
//! is decided anew if it fails. The races, one by one:
//!
//! - *A packet reads while a slot changes.* It sees the slot before or after, never one server of
//!   each. Loads acquire what the writer released, so whatever the caller published before a word
//!   named a server is there for those who load the word first.
//! - *A packet sets SEEN while the writer ends fear.* If the bit comes first the exchange fails, and
//!   fear is prolonged instead. If it comes second it also brings FEARED back, with no deadline, and
//!   [`fear`] tells the packet to call for the writer, who gives it one.
//! - *A packet sets SEEN while the writer prolongs fear, or merges.* If the bit comes first it is
//!   cleared, rightly: the pin was seen before now, so its entry dies before the new deadline unless
//!   it is seen again. If it comes second it stays.
//! - *A packet read an unstable word, and the slot merges before its pin is made.* The pin may then
//!   outlive the fear by as long as the packet was under way. That matters only to a flow that is
//!   silent in all the time between, which is longer than a session timeout: such a flow is dead.
//! - *A packet touches a slot while the writer settles it.* The flow was silent for a session
//!   timeout before, so it is a dead one, or a new one on the new server. What would matter is a
//!   packet that was let through by the word before the change and had not yet written its mark;
//!   the grace period is waited for because of those.

use super::{
    maglev::NONE,
    sync::{
        AtomicU32,
        AtomicU8,
        Ordering::{
            AcqRel,
            Acquire,
            Relaxed, //
        }, //
    }, //
};

/// Bits of a server's index; the old one is in the lowest.
const FIELD: u32 = 0x7fff;

/// Where the new one is.
const NEW_SHIFT: u32 = 15;

/// There may be pins to another server than the slot's own.
const FEARED: u32 = 1 << 30;

/// Such a pin was seen since the writer looked. Only beside [`FEARED`].
const SEEN: u32 = 1 << 31;

/// Both servers of a slot and what is known of its pins, in 32 bits: old index, new index (15 bits
/// each, [`NONE`] for no server), feared, seen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Word(u32);

impl Word {
    /// The word of an untouched slot: no server.
    pub const EMPTY: Word = Word(NONE as u32 | ((NONE as u32) << NEW_SHIFT));

    /// The bits, to put them into an atomic.
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Where flows live that are not new.
    pub fn old(self) -> u16 {
        (self.0 & FIELD) as u16
    }

    /// Where new flows go.
    #[expect(clippy::new_ret_no_self)] // The other of two tables, not a constructor.
    #[allow(clippy::wrong_self_convention)] // The counterpart of `old()`, not a constructor.
    pub fn new(self) -> u16 {
        ((self.0 >> NEW_SHIFT) & FIELD) as u16
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
        Self((self.0 & !FIELD) | (u32::from(old) & FIELD))
    }

    fn set_new(self, new: u16) -> Self {
        let new = u32::from(new) & FIELD;
        Self((self.0 & !(FIELD << NEW_SHIFT)) | (new << NEW_SHIFT))
    }

    fn set(self, bits: u32) -> Self {
        Self(self.0 | bits)
    }

    fn clear(self, bits: u32) -> Self {
        Self(self.0 & !bits)
    }
}

/// A coarse clock for the "last used" mark of a slot: 8 to 16 marks in a session timeout.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Coarse {
    /// Of the clock in ticks, to the right; less than 64.
    shift: u32,
}

impl Coarse {
    /// How many marks packets may be ahead of the writer.
    const AHEAD: u64 = 8;

    /// The clock for a session timeout of `t` ticks.
    pub fn for_timeout(t: u64) -> Self {
        Self {
            shift: (t / 8).checked_ilog2().unwrap_or(0),
        }
    }

    /// A clock from what [`Coarse::shift`] returned.
    pub fn from_shift(shift: u32) -> Self {
        Self { shift }
    }

    /// The binary logarithm of the ticks between two marks.
    pub fn shift(self) -> u32 {
        self.shift
    }

    /// The mark of a slot that is used now: 1 to 255, over and over. 0 means never.
    #[inline]
    pub fn mark(self, now: u64) -> u8 {
        ((now >> (self.shift & 63)) % 255 + 1) as u8
    }

    /// Whether a slot so marked was used within `t` ticks before `now`, or since.
    ///
    /// When in doubt it was: marks come round again, so that a slot may seem used for 2 of 16 to
    /// 32 session timeouts after it was last used.
    pub fn used_within(self, mark: u8, now: u64, t: u64) -> bool {
        if mark == 0 {
            return false;
        }
        let age = (u64::from(self.mark(now)) + 255 - u64::from(mark)) % 255;
        // While the writer works with the `now` it began with, packets go on.
        let ahead = 255 - age <= Self::AHEAD;
        ahead || age <= (t >> (self.shift & 63)).saturating_add(1)
    }
}

/// Loads the word of a slot.
#[inline]
pub fn load(words: &[AtomicU32], slot: u32) -> Option<Word> {
    words
        .get(slot as usize)
        .map(|word| Word(word.load(Acquire)))
}

/// Whether new flows go anywhere: a table has a server in every slot or in none.
pub fn is_populated(words: &[AtomicU32]) -> bool {
    load(words, 0).is_some_and(|word| word.new() != NONE)
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

/// Notes that a pin to another server than the slot's own was seen or is about to be made.
///
/// Returns whether the slot was not feared before: such fear has no end until the next
/// [`Slots::merge`], which should come soon. Writes once between two looks of the writer, however
/// many packets call this.
pub fn fear(words: &[AtomicU32], slot: u32) -> bool {
    let Some(word) = words.get(slot as usize) else {
        return false;
    };
    let bits = FEARED | SEEN;
    word.load(Relaxed) & bits != bits && word.fetch_or(bits, AcqRel) & FEARED == 0
}

/// How many deadlines a service may have at a time, and one more: epoch 0 is none.
const EPOCHS: usize = 256;

/// Below so many live deadlines each is exact; above, new ones share.
const EXACT: usize = 128;

/// A merge is late by at most this part of the session timeout.
const MERGE_GRID: u64 = 64;

/// An end of fear is late by at most this part of the life of an entry. That costs flow lookups
/// and breaks nothing, so it may be coarser: 128 exact deadlines, 66 of merges and 34 of fear are
/// all that can live at a time while the timeouts stay the same.
const FEAR_GRID: u64 = 32;

/// The deadlines of a service, 3 KiB. A slot names one of them by an 8-bit *epoch*; 0 is none.
///
/// Slots that became unstable by the same change share one, so there are about as many as changes
/// in a session timeout.
#[derive(Debug)]
pub struct Deadlines {
    /// When each ends, in ticks.
    at: [u64; EPOCHS],
    /// How many slots name each; free if none.
    slots: [u32; EPOCHS],
    /// How many are not free.
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

    /// The live epochs with their ends.
    fn live(&self) -> impl Iterator<Item = (u8, u64)> + '_ {
        let all = (1..=u8::MAX).zip(self.at.iter().zip(&self.slots).skip(1));
        all.filter(|(_, (_, &slots))| slots > 0)
            .map(|(epoch, (&at, _))| (epoch, at))
    }

    fn free(&self) -> Option<u8> {
        let all = (1..=u8::MAX).zip(self.slots.iter().skip(1));
        all.filter(|(_, &slots)| slots == 0)
            .map(|(epoch, _)| epoch)
            .next()
    }

    /// An epoch that ends at `at` or later, never earlier: at `at` while few are live, else later
    /// by `slack` ticks at most.
    ///
    /// Timeouts that keep changing can have all epochs taken nonetheless. Then the next later one
    /// must do, or, if there is none, the latest is put off to `at` for all its slots.
    fn find(&mut self, at: u64, slack: u64) -> u8 {
        let later = self.live().filter(|&(_, end)| end >= at);
        let later = later.min_by_key(|&(_, end)| end);
        let shared = self.live >= EXACT;
        let (epoch, end) = match (later, self.free()) {
            (Some((epoch, end)), _) if end == at || (shared && end - at <= slack) => return epoch,
            // Look ahead, so that the next ones share this one.
            (_, Some(free)) if shared => (free, at.saturating_add(slack)),
            (_, Some(free)) => (free, at),
            (Some((epoch, _)), None) => return epoch,
            (None, None) => match self.live().max_by_key(|&(_, end)| end) {
                Some((latest, _)) => (latest, at),
                None => return 0,
            },
        };
        if let Some(to) = self.at.get_mut(usize::from(epoch)) {
            *to = end;
        }
        epoch
    }

    /// Counts that a slot goes from one epoch to another.
    fn count(&mut self, from: u8, to: u8) {
        if from == to {
            return;
        }
        if let Some(slots) = self.slots.get_mut(usize::from(from)).filter(|_| from != 0) {
            *slots = slots.saturating_sub(1);
            self.live = self.live.saturating_sub(usize::from(*slots == 0));
        }
        if let Some(slots) = self.slots.get_mut(usize::from(to)).filter(|_| to != 0) {
            *slots += 1;
            self.live += usize::from(*slots == 1);
        }
    }

    /// When an epoch that a slot names ends, in ticks.
    pub fn end(&self, epoch: u8) -> Option<u64> {
        let at = self.at.get(usize::from(epoch)).copied();
        at.filter(|_| epoch != 0)
    }

    /// The earliest deadline, in ticks.
    pub fn next(&self) -> Option<u64> {
        self.live().map(|(_, end)| end).min()
    }
}

/// The times that a change or a merge is made with, in ticks.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// Now, read just before the call: what packets do until the call is over counts as done now.
    pub now: u64,
    /// The session timeout: how long a live flow may be silent.
    pub session: u64,
    /// The longest time that an entry can live without a packet, under the timeouts of now and of
    /// any time that entries were made at.
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

impl core::ops::AddAssign for Outcome {
    fn add_assign(&mut self, other: Self) {
        self.unsettled += other.unsettled;
        self.settled += other.settled;
    }
}

/// The double table as its writer sees it, with the lock held.
///
/// All four have one element for each slot, and belong together from the first change on.
pub struct Slots<'a> {
    /// A [`Word`] for each slot.
    pub words: &'a [AtomicU32],
    /// A mark of a [`Coarse`] clock for each slot.
    pub marks: &'a [AtomicU8],
    /// For each slot the epoch of its next deadline, 0 for none: the merge of an unstable slot, the
    /// end of fear of a stable one. All zero at first.
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

#[derive(Clone, Copy, PartialEq, Eq)]
enum Deadline {
    Keep,
    Never,
    /// A session timeout from now.
    Merge,
    /// A life of an entry from now.
    Fear,
}

/// What a rule makes of a slot.
#[derive(Clone, Copy)]
struct Step {
    word: Word,
    deadline: Deadline,
}

impl Step {
    /// The slot gets this word and keeps its deadline.
    fn keep(word: Word) -> Self {
        Self {
            word,
            deadline: Deadline::Keep,
        }
    }

    /// The slot gets this word and needs no deadline.
    fn rest(word: Word) -> Self {
        Self {
            word,
            deadline: Deadline::Never,
        }
    }

    /// The slot gets this word and is merged in a session timeout.
    fn start(word: Word) -> Self {
        Self {
            word,
            deadline: Deadline::Merge,
        }
    }

    /// The slot gets this word, which is stable, and is feared for the life of an entry: there may
    /// be pins to another server, all of them older than now.
    fn fear(word: Word) -> Self {
        Self {
            word: word.set(FEARED).clear(SEEN),
            deadline: Deadline::Fear,
        }
    }

    /// The new server becomes the old one, and there may be pins to the one it replaces.
    fn merge(word: Word) -> Self {
        Self::fear(word.set_old(word.new()))
    }
}

impl Slots<'_> {
    /// Applies a rule to each slot. The rule is asked again about a slot if a packet set a bit of
    /// its word meanwhile.
    fn apply(&mut self, times: Times, rule: impl Fn(View) -> Option<Step>) -> Outcome {
        let mut outcome = Outcome::default();
        // Found once for all slots. They stay live: a slot that took one is not visited again.
        let (mut merge, mut fear) = (None, None);
        let cells = self.words.iter().zip(self.marks);
        for (slot, ((cell, mark), epoch)) in (0..).zip(cells.zip(self.epochs.iter_mut())) {
            let mut bits = cell.load(Acquire);
            let deadline = loop {
                let before = Word(bits);
                let Some(step) = rule(View {
                    slot,
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
            let (found, span, grid) = match deadline {
                Deadline::Keep => continue,
                Deadline::Never => {
                    self.deadlines.count(*epoch, 0);
                    *epoch = 0;
                    continue;
                }
                Deadline::Merge => (&mut merge, times.session, MERGE_GRID),
                Deadline::Fear => (&mut fear, times.entry, FEAR_GRID),
            };
            let to = *found.get_or_insert_with(|| {
                let at = times.now.saturating_add(span);
                let slack = span.checked_div(grid).unwrap_or(0);
                self.deadlines.find(at, slack.max(1))
            });
            self.deadlines.count(*epoch, to);
            *epoch = to;
        }
        outcome
    }

    /// The rules for one slot whose new server is to be `new`; `None` if it is already.
    fn change(word: Word, new: u16) -> Option<Step> {
        if word.new() == new {
            None
        } else if word.old() == NONE {
            // Nobody lives there: nothing to protect. Fear from before lasts.
            Some(Step::keep(word.set_old(new).set_new(new)))
        } else if word.old() == new {
            // Back where it was. Flows that came meanwhile are pinned elsewhere.
            Some(Step::fear(word.set_new(new)))
        } else if word.stable() {
            // Fear from before is not forgotten: the bit stays, and the merge sets a new end.
            Some(Step::start(word.set_new(new)))
        } else {
            // Every flow since the first deadline was set is pinned, so that one still holds.
            Some(Step::keep(word.set_new(new)))
        }
    }

    /// The server set changed: `new` has the server of each slot from now on.
    ///
    /// Slots become unstable where that differs from the old server; those that were keep their
    /// deadline. Slots beyond the end of `new` stay as they are.
    pub fn remap(&mut self, new: &[u16], times: Times) -> Outcome {
        self.apply(times, |at| {
            Self::change(at.word, *new.get(at.slot as usize)?)
        })
    }

    /// The server `gone` must get no new flow, and there is no memory for a table: `pick` says
    /// where each of its slots goes. The rules are those of [`Slots::remap`].
    pub fn replace(&mut self, gone: u16, pick: impl Fn(u32) -> u16, times: Times) -> Outcome {
        self.apply(times, |at| match at.word.new() == gone {
            true => Self::change(at.word, pick(at.slot)),
            false => None,
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
                None
            } else if at.word.feared() {
                // Fear from before the change is not over just because nobody came.
                Some(Step::merge(at.word))
            } else {
                Some(Step::rest(at.word.set_old(at.word.new())))
            }
        })
    }

    /// Does what is due: merges slots, ends fear or prolongs it where pins were seen. Gives an end
    /// to fear that packets reported.
    pub fn merge(&mut self, times: Times) -> Outcome {
        // As of now: an epoch that becomes free on the way may get a new end.
        let mut due = [false; EPOCHS];
        for (due, at) in due.iter_mut().zip(&self.deadlines.at) {
            *due = *at <= times.now;
        }
        self.apply(times, |at| {
            let due = at.epoch != 0 && due.get(usize::from(at.epoch)).is_some_and(|&due| due);
            let word = at.word;
            match (word.stable(), due) {
                (false, true) => Some(Step::merge(word)),
                (true, true) if word.seen() => Some(Step::fear(word)),
                (true, true) => Some(Step::rest(word.clear(FEARED))),
                (true, false) if word.feared() && at.epoch == 0 => Some(Step::fear(word)),
                _ => None,
            }
        })
    }

    /// Flows on the server `gone` are to end now: the slots where they live are merged, whatever
    /// their deadline, if their new server `follows` (`net.ipv4.vs.expire_nodest_conn`, or what was
    /// begun on the new one without an entry).
    pub fn evict(&mut self, gone: u16, follows: impl Fn(u16) -> bool, times: Times) -> Outcome {
        self.apply(times, |at| {
            let word = at.word;
            let merges = word.old() == gone && !word.stable() && follows(word.new());
            merges.then(|| Step::merge(word))
        })
    }

    /// Entries that no slot knows of may exist for flows of server `of`, or of all servers: when a
    /// service had another scheduler before, or a server another forwarding method.
    ///
    /// An unstable slot remembers that until its merge.
    pub fn fear(&mut self, of: Option<u16>, times: Times) {
        self.apply(times, |at| {
            let word = at.word;
            match of.is_none_or(|of| word.old() == of || word.new() == of) {
                true if word.stable() => Some(Step::fear(word)),
                true => Some(Step::keep(word.set(FEARED))),
                false => None,
            }
        });
    }

    /// Makes every slot that was ever used one that was used at `mark`: for a change of the clock.
    ///
    /// Only to be called when a grace period has passed since packets got the new clock, or a mark
    /// of the old one may come after.
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
        let unstable = |word: &&AtomicU32| !Word(word.load(Relaxed)).stable();
        self.words.iter().filter(unstable).count()
    }
}
