// SPDX-License-Identifier: GPL-2.0

//! The slot rules: against a model that is as plain as the words of the design, against flows that
//! must not be broken, and under packets of another thread.

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicU8, Ordering::SeqCst};
use mhs_core::maglev::NONE;
use mhs_core::slots::*;
use mhs_fuzz::slots::*;
use proptest::prelude::*;

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
        mhs_fuzz::slots::as_the_model_says(ops);
    }
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    /// What all the rules are for: a flow that is never silent for T stays where it is.
    #[test]
    fn no_flow_is_broken(
        events in proptest::collection::vec(event(), 1..150),
        late in prop_oneof![Just(0), 0u64..T / 2],
    ) {
        mhs_fuzz::slots::no_flow_is_broken(events, late);
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
    let out = bench.slots().evict(1, |new| new == 6, at(2));
    assert_eq!(out.settled, 1);
    assert!(bench.word(1).stable() && bench.word(1).feared() && !bench.word(0).stable());
    bench.slots().evict(1, |_| true, at(2));
    assert!(bench.word(0).stable() && !bench.slots().names(1));
    // What has come to live on the new server stays there, should the old one come back.
    let out = bench.slots().remap(&[1, 1, 2], at(2));
    assert_eq!(out.unsettled, 2);
    assert_eq!((bench.word(0).old(), bench.word(0).new()), (5, 1));
    bench.slots().remap(&[5, 6, 2], at(2));
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
