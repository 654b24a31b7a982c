// SPDX-License-Identifier: GPL-2.0

//! Time passes.

use super::{
    limited::{self, Limited},
    mhs::{Later, Mhs, Queue},
    plain::Plain,
    stateful::Stateful,
    Change, Flow, Flows, Index, Live, Sample, Servers, World,
};
use mhs_core::hash;
use std::{cmp::Reverse, collections::BinaryHeap};

/// What happens next. At the same time, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// Slots are due.
    Merge,
    Later(Later),
    /// A change of the fleet, by its number.
    Change(usize),
    /// An entry of the stateful balancer expires.
    StatefulExpiry,
    /// The flow of this number sends a packet, for `limited`.
    Packet(usize, u64),
    Start(usize),
    End(usize),
    Sample(u64),
}

/// What `mhs` made of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// Its server, the first and only one unless it is broken.
    pub server: Option<Index>,
    /// Whether it ever had an entry.
    pub tracked: bool,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub samples: Vec<Sample>,
    /// In the order of their starts.
    pub flows: Vec<Told>,
    pub changes: u64,
    /// Flows that `mhs` ever had an entry for.
    pub tracked: u64,
}

/// Lets the flows and the changes happen until `end`, with so many samples on the way.
pub fn run(
    world: &World,
    mut flows: impl Iterator<Item = Flow>,
    changes: &[(u64, Change)],
    end: u64,
    samples: u64,
) -> Result<Outcome, String> {
    let mut servers = Servers::new(world);
    let mut mhs = Mhs::new(world, &servers)?;
    let mut stateful = Stateful::default();
    let mut limited = world.limit.map(Limited::new);
    let mut plain = Plain::new(&servers);

    let mut live: Flows = Vec::new();
    let mut free: Vec<usize> = Vec::new();
    let mut told: Vec<Told> = Vec::new();
    let mut living = 0;
    let mut outcome = Vec::new();
    let mut queue: BinaryHeap<Reverse<(u64, Event)>> = BinaryHeap::new();
    let mut later: Queue = Vec::new();
    let mut next_flow = flows.next();

    for (number, (at, _)) in changes.iter().enumerate() {
        queue.push(Reverse((*at, Event::Change(number))));
    }
    for sample in 0..=samples {
        queue.push(Reverse((
            end * sample / samples.max(1),
            Event::Sample(sample),
        )));
    }
    if let Some(flow) = &next_flow {
        queue.push(Reverse((flow.start, Event::Start(0))));
    }
    let mut armed = None;
    while let Some(Reverse((now, event))) = queue.pop() {
        if now > end {
            break;
        }
        match event {
            Event::Merge => {
                armed = None;
                mhs.merge(world, now, &mut live, &mut later);
            }
            Event::Later(Later::Packet(number, hash)) => {
                let flow = live.get_mut(number).and_then(Option::as_mut);
                // The number may be another flow's by now.
                if let Some(flow) = flow.filter(|flow| flow.flow.hash == hash) {
                    mhs.packet(world, flow, now, &mut later);
                }
            }
            Event::Later(Later::Expiry(entry)) => mhs.expiry(entry, now),
            Event::Later(Later::GraceEnds(index)) => {
                mhs.grace_ends(world, index, now, &mut live, &mut later);
            }
            Event::Change(number) => {
                if let Some((_, change)) = changes.get(number) {
                    servers.apply(world, *change);
                    mhs.change(world, &servers, *change, now, &mut live, &mut later)?;
                    for at in stateful.change(world, *change, now, &mut live) {
                        queue.push(Reverse((at, Event::StatefulExpiry)));
                    }
                    if let Some(limited) = &mut limited {
                        limited.change(*change, &mut live);
                    }
                    plain.change(&servers, *change, &mut live);
                }
            }
            Event::StatefulExpiry => stateful.entries -= 1,
            Event::Packet(number, hash) => {
                let flow = live.get_mut(number).and_then(Option::as_mut);
                let flow = flow.filter(|flow| flow.flow.hash == hash);
                if let (Some(live), Some(limited)) = (flow, &mut limited) {
                    limited.packet(number, &mut live.limited, mhs.newcomer(live.slot));
                    let next = live.flow.next_packet(now);
                    if live.limited.server.is_some() && next < live.flow.end {
                        queue.push(Reverse((next, Event::Packet(number, hash))));
                    }
                }
            }
            Event::Start(_) => {
                if let Some(flow) = next_flow.take() {
                    living += 1;
                    let slot = hash::slot(flow.hash, world.config.size);
                    let number = free.pop().unwrap_or_else(|| {
                        live.push(None);
                        live.len() - 1
                    });
                    let server = mhs.newcomer(slot);
                    let newcomer = Live {
                        flow,
                        serial: told.len(),
                        slot,
                        mhs: mhs.start(number, slot),
                        stateful: stateful.start(server),
                        limited: match &mut limited {
                            Some(limited) => limited.start(number, server),
                            None => limited::Fate::default(),
                        },
                        plain: plain.start(&flow),
                    };
                    told.push(Told {
                        server,
                        tracked: false,
                    });
                    if let Some(place) = live.get_mut(number) {
                        *place = Some(newcomer);
                    }
                    queue.push(Reverse((flow.end, Event::End(number))));
                    let next = flow.next_packet(flow.start);
                    if limited.is_some() && next < flow.end {
                        queue.push(Reverse((next, Event::Packet(number, flow.hash))));
                    }
                    next_flow = flows.next();
                    if let Some(flow) = &next_flow {
                        queue.push(Reverse((flow.start, Event::Start(0))));
                    }
                }
            }
            Event::End(number) => {
                if let Some(mut ended) = live.get_mut(number).and_then(Option::take) {
                    living -= 1;
                    free.push(number);
                    mhs.end(world, number, &mut ended, &mut later);
                    note(&mut told, &ended);
                    if let Some(limited) = &mut limited {
                        limited.packet(number, &mut ended.limited, mhs.newcomer(ended.slot));
                        limited.end(ended.limited);
                    }
                    if stateful.end(ended.stateful) {
                        queue.push(Reverse((now + world.linger, Event::StatefulExpiry)));
                    }
                }
            }
            Event::Sample(_) => outcome.push(Sample {
                minute: now as f64 / 60_000.0,
                live_flows: living,
                unstable_slots: mhs.unstable(),
                mhs_entries: mhs.entries,
                stateful_entries: stateful.entries,
                limited_entries: limited.as_ref().map_or(0, Limited::entries),
                mhs_broken: mhs.broken,
                stateful_broken: stateful.broken,
                limited_broken: limited.as_ref().map_or(0, |limited| limited.broken),
                plain_broken: plain.broken,
                mhs_load: load(&servers, &live, |live| live.mhs.server),
                stateful_load: load(&servers, &live, |live| live.stateful.0),
                limited_load: load(&servers, &live, |live| live.limited.server),
                plain_load: load(&servers, &live, |live| live.plain.0),
            }),
        }
        for (at, later) in later.drain(..) {
            queue.push(Reverse((at, Event::Later(later))));
        }
        // A merge for the earliest deadline, as the service's timer.
        if let Some(at) = mhs.deadline() {
            if armed.is_none_or(|armed| at < armed) {
                armed = Some(at);
                queue.push(Reverse((at.max(now), Event::Merge)));
            }
        }
    }
    for living in live.iter().flatten() {
        note(&mut told, living);
    }
    let changes = changes.iter().filter(|(at, _)| *at <= end).count() as u64;
    Ok(Outcome {
        samples: outcome,
        flows: told,
        changes,
        tracked: mhs.tracked,
    })
}

fn note(told: &mut [Told], live: &Live) {
    if let Some(told) = told.get_mut(live.serial) {
        told.tracked = live.mhs.tracked;
    }
}

fn load(servers: &Servers, flows: &Flows, home: impl Fn(&Live) -> Option<Index>) -> f64 {
    servers.oversubscription(flows.iter().flatten().map(home))
}
