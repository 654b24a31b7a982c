// SPDX-License-Identifier: GPL-2.0

//! The slot rules against a model that is as plain as DESIGN's words.

use core::sync::atomic::{AtomicU32, AtomicU8, Ordering::Relaxed};
use mhs_core::maglev::NONE;
use mhs_core::slots::*;
use proptest::prelude::*;

const T: u64 = 1000;
const LIFE: u64 = 1500;

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
    merge_at: Option<u64>,
    used_at: Option<u64>,
    /// Foreign pins may exist until then.
    fear_until: u64,
}

#[derive(Clone, Debug)]
enum Op {
    Remap(Vec<u16>),
    Touch(usize),
    Foreign(usize),
    Settle,
    Merge,
    Wait(u64),
}

fn op(n: usize) -> impl Strategy<Value = Op> {
    let server = prop_oneof![1 => Just(NONE), 9 => 0u16..4];
    prop_oneof![
        3 => proptest::collection::vec(server, n).prop_map(Op::Remap),
        4 => (0..n).prop_map(Op::Touch),
        1 => (0..n).prop_map(Op::Foreign),
        2 => Just(Op::Settle),
        4 => Just(Op::Merge),
        4 => (1u64..T * 3 / 2).prop_map(Op::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn as_the_model_says(ops in proptest::collection::vec(op(8), 1..60)) {
        let clock = Coarse::for_timeout(T);
        let mut bench = Bench::new(8);
        let blank = Model { old: NONE, new: NONE, merge_at: None, used_at: None, fear_until: 0 };
        let mut model = vec![blank; 8];
        let mut now = 100_000;
        for op in ops {
            match op {
                Op::Wait(ticks) => now += ticks,
                Op::Touch(slot) => {
                    touch(&bench.marks, slot as u32, clock.mark(now));
                    model[slot].used_at = Some(now);
                }
                Op::Foreign(slot) => {
                    fear(&bench.words, slot as u32);
                    model[slot].fear_until = now + LIFE;
                }
                Op::Remap(new) => {
                    bench.slots().remap(&new, at(now));
                    for (m, new) in model.iter_mut().zip(new) {
                        let (stable, same) = (m.old == m.new, m.new == new);
                        m.new = new;
                        if m.old == NONE {
                            if !stable && !same { m.fear_until = now + LIFE; }
                            m.old = new;
                            m.merge_at = None;
                        } else if m.old == new {
                            if !stable { m.fear_until = now + LIFE; }
                            m.merge_at = None;
                        } else if stable {
                            m.merge_at = Some(now + T);
                        }
                    }
                }
                Op::Settle => {
                    bench.slots().settle(clock, at(now));
                    for (slot, m) in model.iter_mut().enumerate() {
                        if m.old == m.new { continue; }
                        let used = m.used_at.is_some_and(|t| now - t <= T);
                        let merged = bench.word(slot).stable();
                        // A mark is coarse: it may protect a slot longer, never shorter.
                        prop_assert!(!(used && merged), "slot {} was in use", slot);
                        let long = m.used_at.is_none_or(|t| now - t > T * 3 / 2 && now - t < T * 16);
                        prop_assert!(merged || !long, "slot {} was not in use", slot);
                        if merged {
                            m.old = m.new;
                            m.merge_at = None;
                        }
                    }
                }
                Op::Merge => {
                    bench.slots().merge(at(now));
                    for m in &mut model {
                        if m.merge_at.is_some_and(|t| t <= now) {
                            m.old = m.new;
                            m.merge_at = None;
                            m.fear_until = now + LIFE;
                        }
                    }
                }
            }
            for (slot, m) in model.iter().enumerate() {
                let word = bench.word(slot);
                prop_assert_eq!((word.old(), word.new()), (m.old, m.new), "slot {}", slot);
                if m.fear_until > now && m.old == m.new {
                    prop_assert!(word.feared(), "slot {} has foreign pins", slot);
                }
            }
            let next = model.iter().filter_map(|m| m.merge_at).min();
            if let Some(next) = next {
                prop_assert!(bench.slots().deadlines.next().is_some_and(|t| t <= next));
            }
        }
        // Left alone, everything becomes stable, and fearless.
        for _ in 0..4 {
            now += 2 * LIFE;
            bench.slots().merge(at(now));
        }
        for slot in 0..8 {
            prop_assert!(bench.word(slot).stable() && !bench.word(slot).feared());
        }
        prop_assert_eq!(bench.slots().deadlines.next(), None);
    }
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
fn many_deadlines_are_late_at_most_and_never_early() {
    let n = 400;
    let mut bench = Bench::new(n);
    bench.slots().remap(&vec![0; n], at(0));
    let mut table = vec![0; n];
    let mut due = vec![0; n];
    for slot in 0..n {
        table[slot] = 1;
        due[slot] = slot as u64 * 2 + T;
        bench.slots().remap(&table, at(slot as u64 * 2));
    }
    for now in 0..n as u64 * 2 + 2 * T {
        bench.slots().merge(at(now));
        for (slot, &due) in due.iter().enumerate() {
            let stable = bench.word(slot).stable();
            assert!(
                !stable || now >= due,
                "slot {slot} early at {now}, due {due}"
            );
            let late = if slot < 100 { 0 } else { T / 64 + 1 };
            assert!(
                stable || now < due + late.max(1),
                "slot {slot} late at {now}, due {due}"
            );
        }
    }
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
        fear(&bench.words, 0);
        now += LIFE;
        bench.slots().merge(at(now));
    }
    assert!(bench.word(0).feared());
    bench.slots().merge(at(now + LIFE));
    assert!(!bench.word(0).feared());
}

#[test]
fn a_bit_set_by_a_packet_is_not_lost() {
    let mut bench = Bench::new(1);
    bench.slots().remap(&[0], at(0));
    let words = &bench.words;
    let (marks, mut epochs, mut deadlines) = (&bench.marks, vec![0], Deadlines::new());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..20_000 {
                fear(words, 0);
                assert!(load(words, 0).unwrap().feared());
            }
        });
        let mut slots = Slots {
            words,
            marks,
            epochs: &mut epochs,
            deadlines: &mut deadlines,
        };
        for now in 0..20_000 {
            // The table changes under the packets, but never past the end of fear.
            slots.remap(&[(now % 3) as u16], at(1));
        }
    });
    assert!(load(words, 0).unwrap().feared());
    assert_eq!(bench.marks[0].load(Relaxed), 0);
}
