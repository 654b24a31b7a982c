// SPDX-License-Identifier: GPL-2.0

//! The slot rules: against a model that is as plain as the words of the design, against flows that
//! must not be broken, and under packets of another thread.

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicU8, Ordering::SeqCst};
use mhs_core::maglev::NONE;
use mhs_core::slots::*;
use proptest::prelude::*;

/// Session timeout and life of an entry, in ticks.
const T: u64 = 1000;
const LIFE: u64 = 1500;

/// Slots of the models.
const N: usize = 6;

struct Bench {
    words: Vec<AtomicU32>,
    marks: Vec<AtomicU8>,
    epochs: Vec<u8>,
    deadlines: Deadlines,
}

impl Bench {
    fn new(n: usize) -> Self {
        Self {
            words: (0..n).map(|_| AtomicU32::new(Word::EMPTY.bits())).collect(),
            marks: (0..n).map(|_| AtomicU8::new(0)).collect(),
            epochs: vec![0; n],
            deadlines: Deadlines::new(),
        }
    }

    fn slots(&mut self) -> Slots<'_> {
        Slots {
            words: &self.words,
            marks: &self.marks,
            epochs: &mut self.epochs,
            deadlines: &mut self.deadlines,
        }
    }

    fn word(&self, slot: usize) -> Word {
        load(&self.words, slot as u32).unwrap()
    }

    fn fear(&self, slot: usize) -> bool {
        fear(&self.words, slot as u32)
    }

    fn touch(&self, slot: usize, now: u64) {
        touch(&self.marks, slot as u32, Coarse::for_timeout(T).mark(now));
    }

    fn settle(&mut self, now: u64) -> Outcome {
        self.slots().settle(Coarse::for_timeout(T), at(now))
    }

    /// All that is known of a slot but its marks.
    fn state(&self, slot: usize) -> (u16, u16, bool, bool) {
        let word = self.word(slot);
        (word.old(), word.new(), word.feared(), word.seen())
    }
}

fn at(now: u64) -> Times {
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

#[derive(Clone, Debug)]
enum Op {
    Remap(Vec<u16>),
    Replace(u16, u16),
    Touch(usize),
    Foreign(usize),
    FearAll(Option<u16>),
    Evict(u16),
    Settle,
    Merge,
    Wait(u64),
}

fn table() -> impl Strategy<Value = Vec<u16>> {
    let server = prop_oneof![1 => Just(NONE), 9 => 0u16..4];
    proptest::collection::vec(server, N)
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => table().prop_map(Op::Remap),
        1 => (0u16..4, 0u16..4).prop_map(|(gone, to)| Op::Replace(gone, to)),
        8 => (0..N).prop_map(Op::Touch),
        3 => (0..N).prop_map(Op::Foreign),
        1 => proptest::option::of(0u16..4).prop_map(Op::FearAll),
        1 => (0u16..4).prop_map(Op::Evict),
        4 => Just(Op::Settle),
        8 => Just(Op::Merge),
        8 => (1u64..T * 3 / 2).prop_map(Op::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    /// Every bit and every deadline, after every step.
    #[test]
    fn as_the_model_says(ops in proptest::collection::vec(op(), 1..60)) {
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
                    prop_assert_eq!(news, !model[slot].feared);
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
                    model.iter_mut().zip(new).for_each(|(m, new)| m.change(new, now));
                }
                Op::Replace(gone, to) => {
                    let pick = |slot| to + (slot % 2) as u16;
                    outcome = Some(bench.slots().replace(gone, pick, at(now)));
                    for (m, slot) in model.iter_mut().zip(0..).filter(|(m, _)| m.new == gone) {
                        m.change(pick(slot), now);
                    }
                }
                Op::Evict(gone) => {
                    outcome = Some(bench.slots().evict(gone, at(now)));
                    for m in model.iter_mut().filter(|m| !m.stable() && m.old == gone) {
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
                        prop_assert!(!merged || age > T, "slot {} was in use", slot);
                        let again = (T * 12..T * 40).contains(&age);
                        prop_assert!(merged || age <= T * 5 / 4 || again, "slot {} is idle", slot);
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
                prop_assert_eq!(bench.state(slot), state, "slot {}", slot);
                prop_assert!(!m.seen || m.feared);
                prop_assert_eq!(bench.epochs[slot] != 0, m.due.is_some(), "slot {}", slot);
            }
            let next = model.iter().filter_map(|m| m.due).min();
            prop_assert_eq!(bench.deadlines.next(), next);
            let left = model.iter().filter(|m| !m.stable()).count();
            prop_assert_eq!(bench.slots().unstable(), left);
            if let Some(outcome) = outcome {
                prop_assert_eq!(unstable + outcome.unsettled - outcome.settled, left as u32);
            }
        }
        // Left alone, everything becomes stable, and fearless.
        for _ in 0..4 {
            now += 2 * LIFE;
            bench.slots().merge(at(now));
        }
        for slot in 0..N {
            prop_assert!(bench.word(slot).stable() && !bench.word(slot).feared());
        }
        prop_assert_eq!(bench.deadlines.next(), None);
    }
}

/// A flow, its server, and its entry.
#[derive(Clone, Debug)]
struct Flow {
    slot: usize,
    server: u16,
    last: u64,
    entry: Option<(u16, u64)>,
}

#[derive(Clone, Debug)]
enum Event {
    Syn(usize),
    Segment(usize),
    Remap(Vec<u16>),
    Replace(u16, u16),
    Settle,
    Wait(u64),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (0..N).prop_map(Event::Syn),
        20 => any::<usize>().prop_map(Event::Segment),
        4 => proptest::collection::vec(0u16..4, N).prop_map(Event::Remap),
        1 => (0u16..4, 0u16..4).prop_map(|(gone, to)| Event::Replace(gone, to)),
        4 => Just(Event::Settle),
        12 => (1u64..T / 3).prop_map(Event::Wait),
        1 => (1u64..T * 2).prop_map(Event::Wait),
    ]
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    /// What all the rules are for: a flow that is never silent for T stays where it is.
    #[test]
    fn no_flow_is_broken(
        events in proptest::collection::vec(event(), 1..150),
        late in prop_oneof![Just(0), 0u64..T / 2],
    ) {
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
                        prop_assert!(bench.deadlines.next().is_none_or(|next| next > now));
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
                    flows.push(Flow { slot, server: word.new(), last: now, entry });
                }
                Event::Segment(any) => {
                    flows.retain(|flow| now - flow.last < T);
                    let n = flows.len().max(1);
                    if let Some(flow) = flows.get_mut(any % n) {
                        let to = flow.segment(&bench, now);
                        prop_assert_eq!(to, flow.server, "at {}: {:?}", now, flow);
                        flow.last = now;
                    }
                }
            }
        }
    }

    /// Never shorter than asked, seldom longer; and packets may be ahead of the writer.
    #[test]
    fn marks_never_forget(t in 1u64..1 << 40, start in 0u64..1 << 50, after in 0u64..1 << 42, by in 0u64..4) {
        let clock = Coarse::for_timeout(t);
        let mark = clock.mark(start);
        prop_assert_ne!(mark, 0);
        let tick = 1 << clock.shift();
        prop_assert!(tick <= (t / 8).max(1) && tick * 2 > t / 8);
        let now = start + after;
        let used = clock.used_within(mark, now, t);
        if after <= t {
            prop_assert!(used, "used {} ago", after);
        } else if after > t + 2 * tick && after < 245 * tick {
            prop_assert!(!used, "idle for {} of {}", after, t);
        }
        let ahead = clock.mark(start + by * tick);
        prop_assert!(clock.used_within(ahead, start, t));
        prop_assert!(!clock.used_within(0, now, t));
    }
}

#[test]
fn a_new_service_leaves_nothing_unstable() {
    let mut bench = Bench::new(N);
    let out = bench.slots().remap(&[1; N], at(0));
    assert_eq!(out, Outcome::default());
    assert_eq!(
        (bench.state(0), bench.slots().unstable()),
        ((1, 1, false, false), 0)
    );
    // A second server, and no traffic yet.
    let out = bench.slots().remap(&[1, 2, 1, 2, 1, 2], at(5));
    assert_eq!((out.unsettled, bench.slots().unstable()), (3, 3));
    assert_eq!(bench.settle(6).settled, 3);
    assert_eq!(bench.state(1), (2, 2, false, false));
    assert_eq!(bench.deadlines.next(), None);
}

#[test]
fn settling_keeps_fear_and_slots_in_use() {
    let mut bench = Bench::new(2);
    bench.slots().remap(&[1, 1], at(0));
    bench.fear(0);
    bench.touch(1, 9);
    bench.slots().remap(&[2, 2], at(10));
    assert_eq!(bench.settle(11).settled, 1);
    assert_eq!(bench.state(0), (2, 2, true, false));
    assert_eq!(bench.state(1), (1, 2, false, false));
    // Much later the mark is old, and the slot merges before its time.
    assert_eq!(bench.settle(9 + T * 5 / 4).settled, 1);
    assert_eq!(bench.state(1), (2, 2, false, false));
}

#[test]
fn flapping_does_not_put_off_a_merge() {
    let mut bench = Bench::new(1);
    bench.slots().remap(&[1], at(0));
    bench.slots().remap(&[2], at(10));
    for now in (11..T + 10).step_by(7) {
        bench.slots().remap(&[2 + (now % 2) as u16], at(now));
        bench.slots().merge(at(now));
        assert!(!bench.word(0).stable(), "merged at {now}");
    }
    bench.slots().merge(at(T + 10));
    assert!(bench.word(0).stable());
}

#[test]
fn a_flap_that_came_back_is_stable_at_once() {
    let mut bench = Bench::new(1);
    bench.slots().remap(&[1], at(0));
    bench.slots().remap(&[2], at(10));
    let out = bench.slots().remap(&[1], at(20));
    assert_eq!((out.unsettled, out.settled), (0, 1));
    assert_eq!(bench.state(0), (1, 1, true, false));
    assert_eq!(bench.deadlines.next(), Some(20 + LIFE));
    bench.slots().merge(at(19 + LIFE));
    assert!(bench.word(0).feared());
    bench.slots().merge(at(20 + LIFE));
    assert_eq!(bench.state(0), (1, 1, false, false));
}

/// Changes nobody could tell apart share an epoch; 300 that can be told apart are more than there
/// are epochs.
#[test]
fn many_deadlines_are_late_at_most_and_never_early() {
    for step in [1, 2, 3, 7] {
        let n = 300;
        let mut bench = Bench::new(n);
        bench.slots().remap(&vec![0; n], at(0));
        let mut new = vec![0; n];
        let mut due = vec![0; n];
        let mut merged = vec![0; n];
        for now in 0..n as u64 * step + 2 * T {
            let slot = (now / step) as usize;
            if now % step == 0 && slot < n {
                new[slot] = 1;
                due[slot] = now + T;
                bench.slots().remap(&new, at(now));
            }
            bench.slots().merge(at(now));
            for (slot, merged) in merged.iter_mut().enumerate() {
                if *merged == 0 && due[slot] != 0 && bench.word(slot).stable() {
                    *merged = now;
                }
            }
        }
        for (slot, (&due, &merged)) in due.iter().zip(&merged).enumerate() {
            let late = if slot < 128 { 0 } else { T / 64 };
            assert!(
                merged >= due,
                "step {step}, slot {slot}: {merged} before {due}"
            );
            assert!(
                merged <= due + late,
                "step {step}, slot {slot}: {merged} after {due}"
            );
        }
    }
}

/// Timeouts that change all the time, each with more deadlines than epochs: late is all they get.
fn deadlines_that_run_out(session: impl Fn(u64) -> u64) {
    let n = 1000;
    let mut bench = Bench::new(n);
    bench.slots().remap(&vec![0; n], at(0));
    let mut new = vec![0; n];
    let mut due = vec![0; n];
    for (slot, due) in due.iter_mut().enumerate() {
        let times = Times {
            now: 1 + slot as u64 / 4,
            session: session(slot as u64),
            entry: 1,
        };
        new[slot] = 1;
        *due = times.now + times.session;
        bench.slots().remap(&new, times);
    }
    assert!(bench.epochs.iter().all(|&epoch| epoch != 0));
    let mut last = 0;
    while let Some(now) = bench.deadlines.next() {
        assert!(now > last, "nothing was done at {last}");
        last = now;
        let (session, entry) = (1, 1);
        bench.slots().merge(Times {
            now,
            session,
            entry,
        });
        for (slot, &due) in due.iter().enumerate() {
            let stable = bench.word(slot).stable();
            assert!(!stable || now >= due, "slot {slot} at {now}, due {due}");
        }
    }
    assert_eq!(bench.slots().unstable(), 0);
}

#[test]
fn deadlines_that_run_out_are_never_early() {
    deadlines_that_run_out(|i| 10_000_000 + (i * 7_777_777) % 90_000_000);
    deadlines_that_run_out(|i| (1e6 * 1.02f64.powi(i as i32)) as u64);
    deadlines_that_run_out(|i| 10_000_000_000 - 9_000_000 * i);
}

#[test]
fn time_may_end() {
    let mut bench = Bench::new(1);
    let end = Times {
        now: u64::MAX - 1,
        session: u64::MAX,
        entry: u64::MAX,
    };
    bench.slots().remap(&[1], end);
    bench.slots().remap(&[2], end);
    assert!(!bench.word(0).stable());
    assert_eq!(bench.deadlines.next(), Some(u64::MAX));
    Coarse::for_timeout(u64::MAX).mark(u64::MAX);
    assert!(Coarse::from_shift(0).used_within(9, 0, u64::MAX));
    assert_eq!(Coarse::for_timeout(0).shift(), 0);
}

#[test]
fn evict_replace_and_inherited_fear() {
    let mut bench = Bench::new(3);
    bench.slots().remap(&[1, 1, 2], at(0));
    let out = bench.slots().replace(1, |slot| 5 + slot as u16, at(1));
    assert_eq!(out.unsettled, 2);
    assert_eq!((bench.word(0).old(), bench.word(0).new()), (1, 5));
    assert!(bench.slots().names(1) && bench.slots().names(6) && !bench.slots().names(9));
    bench.slots().evict(1, at(2));
    assert!(bench.word(1).stable() && bench.word(1).feared() && !bench.slots().names(1));
    assert!(!bench.word(2).feared());
    bench.slots().fear(Some(2), at(3));
    assert!(bench.word(2).feared());
    assert_eq!(bench.slots().unstable(), 0);
}

#[test]
fn fear_lasts_while_pins_are_seen() {
    let mut bench = Bench::new(1);
    bench.slots().remap(&[1], at(0));
    bench.slots().remap(&[2], at(1));
    bench.slots().merge(at(1 + T));
    let mut now = 1 + T;
    for _ in 0..5 {
        assert!(bench.word(0).feared());
        assert!(!bench.fear(0));
        now += LIFE;
        bench.slots().merge(at(now));
    }
    assert!(bench.word(0).feared());
    bench.slots().merge(at(now + LIFE));
    assert!(!bench.word(0).feared());
}

#[test]
fn marks_survive_a_change_of_the_clock() {
    let mut bench = Bench::new(2);
    bench.touch(0, 50_000);
    let clock = Coarse::for_timeout(8 * T);
    bench.slots().remark(clock.mark(50_100));
    bench.slots().remap(&[1, 1], at(50_100));
    bench.slots().remap(&[2, 2], at(50_100));
    let times = Times {
        now: 50_100 + 8 * T,
        session: 8 * T,
        entry: LIFE,
    };
    bench.slots().settle(clock, times);
    assert!(!bench.word(0).stable() && bench.word(1).stable());
}

#[test]
fn a_table_that_is_too_short_or_wrong_harms_nobody() {
    let mut bench = Bench::new(2);
    bench.slots().remap(&[1, 1], at(0));
    bench.slots().remap(&[2], at(1));
    assert_eq!((bench.word(0).new(), bench.word(1).new()), (2, 1));
    bench.slots().remap(&[0xffff, 0xffff], at(2));
    assert_eq!(bench.state(0), (1, NONE, false, false));
    assert!(load(&bench.words, 2).is_none() && !fear(&bench.words, 2));
    touch(&bench.marks, 2, 1);
}

/// A packet sets its bits while the writer is between reading a word and writing it.
#[test]
fn bits_set_meanwhile_stay() {
    let mut bench = Bench::new(1);
    bench.slots().remap(&[1], at(0));
    let words = &bench.words;
    let mut slots = Slots {
        words,
        marks: &bench.marks,
        epochs: &mut bench.epochs,
        deadlines: &mut bench.deadlines,
    };
    let out = slots.replace(
        1,
        |slot| {
            fear(words, slot);
            2
        },
        at(1),
    );
    assert_eq!(out.unsettled, 1);
    assert_eq!(bench.state(0), (1, 2, true, true));
}

/// A packet that sees a pin is never forgotten before the life of an entry is over, whatever the
/// writer does meanwhile: here one changes, merges and ends fear without a pause.
#[test]
fn what_packets_report_is_not_lost() {
    const LIFE: u64 = 3;
    let words = [AtomicU32::new(Word::EMPTY.bits())];
    let marks = [AtomicU8::new(0)];
    let clock = AtomicU64::new(0);
    let done = AtomicBool::new(false);
    let (mut epochs, mut deadlines) = (vec![0], Deadlines::new());
    let (mut tight, mut feared) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(SeqCst) {
                let before = clock.load(SeqCst);
                fear(&words, 0);
                let word = load(&words, 0).unwrap();
                // The writer may be at work for the next tick already.
                if clock.load(SeqCst) + 1 < before + LIFE {
                    tight += 1;
                    assert!(word.feared(), "fear of {before} is lost");
                }
                (0..before % 64).for_each(|_| core::hint::spin_loop());
            }
        });
        let mut slots = Slots {
            words: &words,
            marks: &marks,
            epochs: &mut epochs,
            deadlines: &mut deadlines,
        };
        for now in 1..400_000u64 {
            clock.store(now, SeqCst);
            let times = Times {
                now,
                session: 2,
                entry: LIFE,
            };
            slots.merge(times);
            if now % 32 == 0 {
                slots.remap(&[(now / 32 % 3) as u16], times);
            }
            feared += u32::from(load(&words, 0).unwrap().feared());
        }
        done.store(true, SeqCst);
    });
    assert!(tight > 100 && feared > 100, "{tight} {feared}");
}

#[test]
fn slots_say_when_they_are_merged() {
    let mut bench = Bench::new(2);
    let now = 100_000;
    bench.slots().remap(&[1, 1], at(now));
    bench.slots().remap(&[1, 2], at(now));
    let [none, merge] = bench.epochs[..] else {
        panic!()
    };
    assert_eq!(bench.deadlines.end(none), None);
    assert_eq!(bench.deadlines.end(merge), Some(now + T));
    // A flap keeps the first deadline.
    bench.slots().remap(&[1, 3], at(now + 5));
    assert_eq!(bench.deadlines.end(bench.epochs[1]), Some(now + T));
}
