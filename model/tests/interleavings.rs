// SPDX-License-Identifier: GPL-2.0

//! What `src/core/slots.rs` says under "Concurrency", in every order of a writer and some packets.
//!
//! Time stands still while threads run. What happened before a grace period is what a thread did
//! that was joined; what comes after it is done by one that was made later.

use loom::{
    sync::{
        atomic::{
            AtomicU32,
            AtomicU8,
            Ordering::Relaxed, //
        },
        Arc, //
    },
    thread, //
};
use mhs_model::{
    maglev::NONE,
    slots::*, //
};
use std::sync::atomic::{
    AtomicUsize,
    Ordering::SeqCst, //
};

/// Session timeout and life of an entry, in ticks, and when all begins.
const T: u64 = 1000;
const LIFE: u64 = 1500;
const NOW: u64 = 100_000;

fn at(now: u64) -> Times {
    Times {
        now,
        session: T,
        entry: LIFE,
    }
}

/// Runs a test in all its orders, says how many, and fails if there was but one.
fn model(name: &str, test: impl Fn() + Sync + Send + 'static) {
    let orders = std::sync::Arc::new(AtomicUsize::new(0));
    let count = orders.clone();
    loom::model(move || {
        count.fetch_add(1, SeqCst);
        test();
    });
    let orders = orders.load(SeqCst);
    println!("| {name} | {orders} |");
}

/// What packets and the writer share.
struct Shared {
    words: Vec<AtomicU32>,
    marks: Vec<AtomicU8>,
}

impl Shared {
    fn word(&self, slot: usize) -> Word {
        load(&self.words, slot as u32).unwrap()
    }

    fn fear(&self, slot: usize) -> bool {
        fear(&self.words, slot as u32)
    }

    fn touch(&self, slot: usize, clock: Coarse, now: u64) {
        touch(&self.marks, slot as u32, clock.mark(now));
    }
}

/// The writer and what is its own.
struct Writer {
    shared: Arc<Shared>,
    epochs: Vec<u8>,
    deadlines: Box<Deadlines>,
}

impl Writer {
    fn new(n: usize) -> Self {
        let words = (0..n).map(|_| AtomicU32::new(Word::EMPTY.bits()));
        let marks = (0..n).map(|_| AtomicU8::new(0));
        Self {
            shared: Arc::new(Shared {
                words: words.collect(),
                marks: marks.collect(),
            }),
            epochs: vec![0; n],
            deadlines: Box::new(Deadlines::new()),
        }
    }

    /// A table whose slots are all at this server.
    fn stable(n: usize, server: u16) -> Self {
        let mut writer = Self::new(n);
        writer.remap(server, NOW);
        writer
    }

    fn slots(&mut self) -> Slots<'_> {
        Slots {
            words: &self.shared.words,
            marks: &self.shared.marks,
            epochs: &mut self.epochs,
            deadlines: &mut self.deadlines,
        }
    }

    fn remap(&mut self, server: u16, now: u64) {
        let new = vec![server; self.epochs.len()];
        self.slots().remap(&new, at(now));
    }

    fn merge(&mut self, now: u64) {
        self.slots().merge(at(now));
    }

    fn settle(&mut self, now: u64) {
        self.slots().settle(Coarse::for_timeout(T), at(now));
    }

    /// Does what is due, at its time, up to `until`; asks `ok` after each step.
    fn pass(&mut self, until: u64, ok: impl Fn(&Self, u64)) {
        while let Some(next) = self.deadlines.next().filter(|&next| next <= until) {
            self.merge(next);
            ok(self, next);
        }
    }
}

/// A slot goes on from state to state. A packet sees one of them, whole, then that or a later one;
/// and what was published before a word named a server is there for who loaded the word.
#[test]
fn a_packet_sees_before_or_after() {
    const STATES: [(u16, u16); 5] = [(NONE, NONE), (1, 1), (1, 2), (2, 2), (2, 3)];
    fn look(shared: &Shared, published: &[AtomicU8], from: usize) -> usize {
        let word = shared.word(0);
        let seen = (word.old(), word.new());
        let state = STATES.iter().skip(from).position(|&state| state == seen);
        let state = state.unwrap_or_else(|| panic!("{seen:?} after {:?}", STATES[from]));
        for server in [seen.0, seen.1]
            .into_iter()
            .filter(|&server| server != NONE)
        {
            let there = published[usize::from(server)].load(Relaxed);
            assert_eq!(there, 1, "server {server} is named, and not there");
        }
        from + state
    }
    for fears in [false, true] {
        model(
            &format!("a packet loads a slot that changes; another fears it: {fears}"),
            move || {
                let mut writer = Writer::new(1);
                let published: Arc<[AtomicU8; 4]> =
                    Arc::new(std::array::from_fn(|_| AtomicU8::new(0)));
                let packet = {
                    let (shared, published) = (writer.shared.clone(), published.clone());
                    thread::spawn(move || {
                        let state = look(&shared, &published[..], 0);
                        look(&shared, &published[..], state);
                    })
                };
                // Its own write of the word must hide nothing that the writer's released.
                let other = fears.then(|| {
                    let shared = writer.shared.clone();
                    thread::spawn(move || shared.fear(0))
                });
                for server in 1..=3 {
                    published[usize::from(server)].store(1, Relaxed);
                    writer.remap(server, NOW);
                    if server == 2 {
                        writer.merge(NOW + T);
                    }
                }
                packet.join().unwrap();
                other.map(|other| other.join().unwrap());
                let word = writer.shared.word(0);
                assert_eq!((word.old(), word.new()), STATES[4]);
            },
        );
    }
}

/// What the writer does while packets report pins.
#[derive(Clone, Copy, Debug)]
enum Act {
    Nothing,
    Merge,
    Settle,
    Change,
    Back,
    ChangeAndBack,
    ChangeAndSettle,
    Evict,
    Replace,
    FearAll,
    MergeTwice,
}

impl Act {
    const ALL: [Self; 11] = [
        Self::Nothing,
        Self::Merge,
        Self::Settle,
        Self::Change,
        Self::Back,
        Self::ChangeAndBack,
        Self::ChangeAndSettle,
        Self::Evict,
        Self::Replace,
        Self::FearAll,
        Self::MergeTwice,
    ];

    fn run(self, writer: &mut Writer, now: u64) {
        match self {
            Self::Nothing => {}
            Self::Merge => writer.merge(now),
            Self::Settle => writer.settle(now),
            Self::Change => writer.remap(3, now),
            Self::Back => writer.remap(1, now),
            Self::ChangeAndBack => {
                writer.remap(3, now);
                writer.remap(1, now);
            }
            Self::ChangeAndSettle => {
                writer.remap(3, now);
                writer.settle(now);
            }
            Self::Evict => drop(writer.slots().evict(1, |_| true, at(now))),
            Self::Replace => drop(writer.slots().replace(2, |_| 4, at(now))),
            Self::FearAll => writer.slots().fear(None, at(now)),
            Self::MergeTwice => {
                writer.merge(now);
                writer.merge(now);
            }
        }
    }
}

/// How a slot stands when packets come.
#[derive(Clone, Copy, Debug)]
enum Start {
    Stable,
    /// The end of fear is due.
    Feared,
    /// The same, and pins were seen.
    Seen,
    Unstable,
    /// Its merge is due.
    Due,
    /// The same, and it is feared from before.
    DueAndFeared,
}

impl Start {
    const ALL: [Self; 6] = [
        Self::Stable,
        Self::Feared,
        Self::Seen,
        Self::Unstable,
        Self::Due,
        Self::DueAndFeared,
    ];

    /// The slots, and the time.
    fn make(self, n: usize) -> (Writer, u64) {
        let mut writer = Writer::stable(n, 1);
        let feared = matches!(self, Self::Feared | Self::Seen | Self::DueAndFeared);
        if feared {
            writer.slots().fear(None, at(NOW));
        }
        if matches!(self, Self::Seen) {
            (0..n).for_each(|slot| assert!(!writer.shared.fear(slot)));
        }
        match self {
            Self::Stable => (writer, NOW),
            Self::Feared | Self::Seen => (writer, NOW + LIFE),
            Self::Unstable => {
                writer.remap(2, NOW + 1);
                (writer, NOW + 2)
            }
            Self::Due | Self::DueAndFeared => {
                writer.remap(2, NOW + 1);
                (writer, NOW + 1 + T)
            }
        }
    }
}

/// What a pin needs: from when it was seen, its slot is feared for the life of an entry.
fn pins_are_honoured(n: usize, packets: &'static [usize], start: Start, act: Act) {
    let (mut alone, now) = start.make(n);
    act.run(&mut alone, now);

    let (mut writer, now) = start.make(n);
    let feared: Vec<_> = (0..n)
        .map(|slot| writer.shared.word(slot).feared())
        .collect();
    let packets: Vec<_> = packets
        .iter()
        .map(|&slot| {
            let shared = writer.shared.clone();
            (slot, thread::spawn(move || shared.fear(slot)))
        })
        .collect();
    act.run(&mut writer, now);
    let reports: Vec<_> = packets
        .into_iter()
        .map(|(slot, packet)| (slot, packet.join().unwrap()))
        .collect();

    for slot in 0..n {
        // Packets never change who is named.
        let names = |writer: &Writer| {
            let word = writer.shared.word(slot);
            (word.old(), word.new())
        };
        assert_eq!(names(&writer), names(&alone));
        // One packet calls for the writer, however many there are.
        let calls = reports
            .iter()
            .filter(|&&(at, news)| at == slot && news)
            .count();
        assert!(calls <= 1 && (calls == 0 || !feared[slot] || writer.shared.word(slot).feared()));
    }
    if reports.iter().any(|&(_, news)| news) {
        writer.merge(now);
    }
    let honoured = |writer: &Writer, now| {
        for &(slot, _) in &reports {
            let word = writer.shared.word(slot);
            assert!(word.feared(), "slot {slot} is not feared at {now}");
            // Fear without an end would last until some other packet calls.
            assert!(
                !word.stable() || writer.epochs[slot] != 0,
                "no end at {now}"
            );
        }
    };
    honoured(&writer, now);
    writer.pass(now + LIFE - 1, honoured);
    // Left alone, everything becomes stable, and fearless.
    writer.pass(now + 4 * LIFE, |_, _| {});
    for slot in 0..n {
        let word = writer.shared.word(slot);
        assert!(word.stable() && !word.feared(), "slot {slot} never rests");
    }
    assert_eq!(writer.deadlines.next(), None);
}

#[test]
fn what_a_packet_reports_is_not_lost() {
    for start in Start::ALL {
        for act in Act::ALL {
            if !matches!(act, Act::Nothing) {
                let name = format!("a pin is seen: {start:?}, {act:?}");
                model(&name, move || pins_are_honoured(1, &[0], start, act));
            }
        }
    }
}

#[test]
fn what_two_packets_report_is_not_lost() {
    for start in Start::ALL {
        for act in [Act::Nothing, Act::Merge, Act::Change, Act::FearAll] {
            let name = format!("two pins are seen: {start:?}, {act:?}");
            model(&name, move || pins_are_honoured(1, &[0, 0], start, act));
        }
    }
}

/// Slots that share a deadline.
#[test]
fn what_packets_report_of_two_slots_is_not_lost() {
    for start in Start::ALL {
        for act in [Act::Merge, Act::Change] {
            let name = format!("pins of two slots are seen: {start:?}, {act:?}");
            model(&name, move || pins_are_honoured(2, &[0, 1], start, act));
        }
    }
}

/// A flow that lives on server 1. Its packets come one after the other.
#[derive(Clone, Copy)]
struct Flow {
    /// When it was last used, if it is pinned.
    entry: Option<u64>,
    /// A packet of it called for the writer.
    called: bool,
}

impl Flow {
    /// As `src/doors.rs` treats a packet that does not begin the flow.
    fn segment(&mut self, shared: &Shared, now: u64) {
        shared.touch(0, Coarse::for_timeout(T), now);
        let word = shared.word(0);
        let pinned = self.entry.is_some_and(|used| now - used < LIFE);
        let server = match pinned {
            true if !word.stable() => 1,
            true if word.feared() && word.old() != 1 => {
                self.called |= shared.fear(0);
                1
            }
            _ if word.stable() => {
                assert_eq!(word.old(), 1, "broken at {now} by a stable slot: {self:?}");
                return;
            }
            _ => word.old(),
        };
        assert_eq!(server, 1, "broken at {now} by an unstable slot: {self:?}");
        self.entry = Some(now);
    }
}

impl core::fmt::Debug for Flow {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "entry {:?}", self.entry)
    }
}

/// Packets of the flow at `now`, while the writer does something; then both are over.
fn meanwhile(writer: &mut Writer, flow: Flow, now: u64, act: impl FnOnce(&mut Writer)) -> Flow {
    let shared = writer.shared.clone();
    let packets = thread::spawn(move || {
        let mut flow = flow;
        flow.segment(&shared, now);
        flow.segment(&shared, now);
        flow
    });
    act(writer);
    let mut flow = packets.join().unwrap();
    if core::mem::take(&mut flow.called) {
        writer.merge(now);
    }
    flow
}

const FREE: Flow = Flow {
    entry: None,
    called: false,
};

/// The server of a flow goes; the slot is settled a grace period later; the flow stays.
#[test]
fn a_flow_outlives_a_change() {
    model("a flow through a change, and through settling", || {
        let mut writer = Writer::stable(1, 1);
        let flow = meanwhile(&mut writer, FREE, NOW, |writer| writer.remap(2, NOW));
        let flow = meanwhile(&mut writer, flow, NOW + 1, |writer| writer.settle(NOW + 1));
        assert!(!writer.shared.word(0).stable() && flow.entry.is_some());
    });
}

/// The slot of a pinned flow is merged, and so it is feared; then that is to end.
#[test]
fn a_flow_outlives_merge_and_end_of_fear() {
    model("a flow through a merge", || {
        let mut writer = Writer::stable(1, 1);
        writer.remap(2, NOW);
        let mut flow = FREE;
        flow.segment(&writer.shared, NOW + 1);
        let flow = meanwhile(&mut writer, flow, NOW + T, |writer| writer.merge(NOW + T));
        // Silent for as long as a live one may be.
        let now = NOW + 2 * T - 1;
        let flow = meanwhile(&mut writer, flow, now, |_| {});
        // The end of fear that was set at the merge.
        let now = NOW + T + LIFE;
        meanwhile(&mut writer, flow, now, |writer| writer.merge(now));
    });
}

/// A pin is used when the end of fear is due, and the writer finds that it was used before.
#[test]
fn a_flow_outlives_the_end_of_fear() {
    model("a flow through an end of fear", || {
        let mut writer = Writer::stable(1, 1);
        writer.remap(2, NOW);
        let mut flow = FREE;
        // Never silent for a session timeout.
        flow.segment(&writer.shared, NOW + 1);
        flow.segment(&writer.shared, NOW + T - 1);
        writer.merge(NOW + T);
        let due = NOW + T + LIFE;
        flow.segment(&writer.shared, due - T);
        let mut flow = meanwhile(&mut writer, flow, due - 1, |_| {});
        flow = meanwhile(&mut writer, flow, due, |writer| writer.merge(due));
        flow.segment(&writer.shared, due + T - 1);
        let now = due + LIFE;
        meanwhile(&mut writer, flow, now, |writer| writer.merge(now));
    });
}

/// The clock of marks changes. A packet may still write a mark of the old one, and after the grace
/// period another writes one of the new; the slot counts as used all the same.
#[test]
fn marks_survive_a_change_of_the_clock() {
    model("marks while their clock changes", || {
        let (old, new) = (Coarse::for_timeout(T), Coarse::for_timeout(64 * T));
        // When marks of the two differ by much.
        const NOW: u64 = 105_000;
        let times = Times {
            now: NOW,
            session: 64 * T,
            entry: LIFE,
        };
        // Or it proves nothing that the mark was made anew.
        assert!(!new.used_within(old.mark(NOW), NOW, 64 * T));
        let mut writer = Writer::stable(1, 1);
        writer.slots().remap(&[2], times);
        let clock = Arc::new(AtomicU32::new(old.shift()));
        let packet = |shared: &Arc<Shared>, clock: &Arc<AtomicU32>| {
            let (shared, clock) = (shared.clone(), clock.clone());
            thread::spawn(move || {
                let clock = Coarse::from_shift(clock.load(Relaxed));
                shared.touch(0, clock, NOW);
            })
        };
        let before = packet(&writer.shared, &clock);
        clock.store(new.shift(), Relaxed);
        before.join().unwrap();
        let after = packet(&writer.shared, &clock);
        let mut slots = writer.slots();
        slots.remark(new.mark(NOW));
        slots.settle(new, times);
        after.join().unwrap();
        assert!(!writer.shared.word(0).stable(), "a slot in use was settled");
    });
}
