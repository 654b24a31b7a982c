// SPDX-License-Identifier: GPL-2.0

//! The rules of the design, packet by packet and with nothing clever: what `mhs` is checked against.
//!
//! A slot has an old and a new server and perhaps a deadline. A SYN goes to the new one, anything
//! else to the old one, and in an unstable slot makes an entry; an entry is followed, unless the
//! slot is stable and says the same. Deleted servers have a session timeout of grace.

use super::{Change, Flow, Index, Servers, World};
use crate::forecast;
use mhs_core::hash;
use std::collections::HashMap;

#[derive(Clone, Copy, Default)]
struct Slot {
    old: Option<Index>,
    new: Option<Index>,
    deadline: Option<u64>,
    used: Option<u64>,
}

struct Entry {
    server: Index,
    until: u64,
}

/// What happens.
enum What {
    Change(usize),
    Packet(usize),
    Look,
}

/// Entries and broken flows until then, at each of `looks`.
pub fn run(
    world: &World,
    flows: &[Flow],
    changes: &[(u64, Change)],
    looks: &[u64],
) -> Vec<(u64, u64)> {
    let servers_of = |servers: &Servers| -> Vec<Option<Index>> {
        let names: HashMap<_, _> = (0..world.weights.len() as Index)
            .map(|index| (World::server(index), index))
            .collect();
        let table = forecast::table(&world.config, &servers.fleet()).unwrap();
        table
            .into_iter()
            .map(|server| Some(names[&server?]))
            .collect()
    };
    let mut servers = Servers::new(world);
    let mut slots: Vec<Slot> = servers_of(&servers)
        .into_iter()
        .map(|server| Slot {
            old: server,
            new: server,
            ..Slot::default()
        })
        .collect();
    let mut grace: HashMap<Index, u64> = HashMap::new();

    // Every change and every packet, in the order of time.
    let mut happens: Vec<(u64, What)> = Vec::new();
    happens.extend(looks.iter().map(|at| (*at, What::Look)));
    happens.extend(
        changes
            .iter()
            .enumerate()
            .map(|(n, (at, _))| (*at, What::Change(n))),
    );
    for (n, flow) in flows.iter().enumerate() {
        let mut at = flow.start;
        while at < flow.end {
            happens.push((at, What::Packet(n)));
            at += flow.gap;
        }
        happens.push((flow.end, What::Packet(n)));
    }
    happens.sort_by_key(|(at, _)| *at);

    let mut entries: HashMap<usize, Entry> = HashMap::new();
    let mut lingering: Vec<u64> = Vec::new();
    let mut home: HashMap<usize, Option<Index>> = HashMap::new();
    let mut broken = 0;
    let mut seen = Vec::new();
    let merge = |slots: &mut Vec<Slot>, now: u64| {
        for slot in slots.iter_mut() {
            if slot.deadline.is_some_and(|deadline| deadline <= now) {
                slot.old = slot.new;
                slot.deadline = None;
            }
        }
    };
    for (now, what) in happens {
        merge(&mut slots, now);
        let n = match what {
            What::Change(change) => {
                let change = changes[change].1;
                servers.apply(world, change);
                match change {
                    Change::Delete(index) => drop(grace.insert(index, now + world.timeout)),
                    Change::Return(index) | Change::Drain(index) | Change::Fail(index) => {
                        grace.remove(&index);
                    }
                }
                if let Change::Fail(index) = change {
                    for (n, home) in &mut home {
                        if flows[*n].end < now || *home != Some(index) {
                            continue;
                        }
                        *home = None;
                        let left = entries.remove(n).filter(|_| !world.expire_nodest_conn);
                        lingering.extend(left.map(|entry| entry.until));
                    }
                }
                for (slot, new) in slots.iter_mut().zip(servers_of(&servers)) {
                    slot.new = new;
                    // Its clock is coarse: 8 to 16 marks in a session timeout.
                    let unit = 1 << (world.timeout / 8).ilog2();
                    let marks = |used: u64| now / unit - used / unit;
                    let quiet = slot
                        .used
                        .is_none_or(|used| marks(used) > world.timeout / unit + 1);
                    if slot.old == new {
                        slot.deadline = None;
                    } else if slot.old.is_none() || quiet {
                        slot.old = new;
                        slot.deadline = None;
                    } else if slot.deadline.is_none() {
                        slot.deadline = Some(now + world.timeout);
                    }
                    // Nobody lives there any more.
                    let gone = matches!(change, Change::Fail(index) if slot.old == Some(index));
                    if gone && world.expire_nodest_conn {
                        slot.old = new;
                        slot.deadline = None;
                    }
                }
                continue;
            }
            What::Packet(n) => n,
            What::Look => {
                let live = entries.values().map(|entry: &Entry| entry.until);
                let left = live.chain(lingering.iter().copied());
                seen.push((left.filter(|&until| until > now).count() as u64, broken));
                continue;
            }
        };
        let flow = &flows[n];
        let slot = &mut slots[hash::slot(flow.hash, world.config.size) as usize];
        slot.used = Some(now);
        let stable = slot.deadline.is_none();
        let is_there = |index: Index| {
            servers.is_there(index) || grace.get(&index).is_some_and(|&until| now < until)
        };
        if now == flow.start {
            home.insert(n, slot.new);
            if let (false, Some(server)) = (stable, slot.new) {
                let until = now + world.timeout;
                entries.insert(n, Entry { server, until });
            }
        } else {
            let Some(Some(own)) = home.get(&n).copied() else {
                continue;
            };
            if entries.get(&n).is_some_and(|entry| entry.until <= now) {
                entries.remove(&n);
            }
            let in_grace = |index: Index| grace.contains_key(&index);
            let to = match entries.get_mut(&n) {
                Some(entry) => {
                    let same = stable && slot.old == Some(entry.server);
                    if !same && !in_grace(entry.server) {
                        entry.until = now + world.timeout;
                    }
                    Some(entry.server)
                }
                None => {
                    if let (false, Some(server)) = (stable, slot.old) {
                        if server == own && !in_grace(server) {
                            let until = now + world.timeout;
                            entries.insert(n, Entry { server, until });
                        }
                    }
                    slot.old
                }
            };
            if to != Some(own) || !is_there(own) {
                broken += 1;
                home.insert(n, None);
                // IPVS sees the RST if it has the entry in use.
                if let Some(entry) = entries.remove(&n) {
                    if !in_grace(entry.server) {
                        lingering.push(match entry.until == now + world.timeout {
                            true => now + world.linger,
                            false => entry.until,
                        });
                    }
                }
                continue;
            }
        }
        if now == flow.end {
            if let Some(entry) = entries.remove(&n) {
                // The FIN is seen if it touched the entry.
                lingering.push(match entry.until == now + world.timeout {
                    true => now + world.linger,
                    false => entry.until,
                });
            }
        }
    }
    seen
}

mod tests {
    use super::*;
    use crate::{module::Config, simulation::engine};
    use proptest::prelude::*;

    fn world(expire_nodest_conn: bool) -> World {
        World {
            config: Config {
                size: 251,
                ..Config::default()
            },
            weights: vec![1, 1, 2, 1, 3],
            timeout: 20_000,
            linger: 5_000,
            expire_nodest_conn,
            limit: None,
        }
    }

    /// Few slots are used, so that each has several flows. Flows start and change at other milliseconds than anything else: so nothing depends on what
    /// comes first of two things at the same time.
    fn flow() -> impl Strategy<Value = Flow> {
        (0u64..200, 1u64..100, 0u64..1 << 60, 1u64..400).prop_map(|(start, length, hash, odd)| {
            Flow {
                start: start * 1000 + odd,
                end: start * 1000 + length * 1000 + odd,
                gap: 2_000,
                hash,
            }
        })
    }

    fn change() -> impl Strategy<Value = (u64, Change)> {
        (1u64..250, 0u16..5, 0..4, 500u64..900).prop_map(|(at, index, what, odd)| {
            let change = match what {
                0 => Change::Drain(index),
                1 => Change::Delete(index),
                2 => Change::Fail(index),
                _ => Change::Return(index),
            };
            (at * 1000 + odd, change)
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn the_engine_does_what_the_rules_say(
            mut flows in prop::collection::vec(flow(), 1..400),
            mut changes in prop::collection::vec(change(), 0..12),
            expire_nodest_conn: bool,
        ) {
            let world = world(expire_nodest_conn);
            flows.sort_by_key(|flow| flow.start);
            changes.sort_by_key(|(at, _)| *at);
            changes.dedup_by_key(|(at, _)| *at);
            let (end, samples) = (300_000, 60);
            let outcome = engine::run(&world, flows.iter().copied(), &changes, end, samples).unwrap();
            let looks: Vec<u64> = (0..=samples).map(|sample| end * sample / samples).collect();
            let told = outcome.samples.iter().map(|sample| (sample.mhs_entries, sample.mhs_broken));
            let told: Vec<(u64, u64)> = told.collect();
            prop_assert_eq!(told, run(&world, &flows, &changes, &looks));
        }
    }
}
