// SPDX-License-Identifier: GPL-2.0

//! Flows and changes of a fleet over time, and what four balancers make of them.
//!
//! `flows` says what happens, `mhs`, `stateful`, `limited` and `plain` are the balancers, `engine`
//! lets time pass, `plot` draws, `clients` has addresses for those who do it again with packets. Times
//! are in milliseconds.

pub mod clients;
pub mod engine;
pub mod flows;
pub mod limited;
pub mod mhs;
#[cfg(test)]
mod naive;
pub mod plain;
pub mod plot;
pub mod stateful;

use crate::{forecast::Fleet, module::Config, server::Server};
use std::net::Ipv4Addr;

/// A server by its number in the fleet.
pub type Index = u16;

/// What happens to the fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// Weight 0.
    Drain(Index),
    Delete(Index),
    /// It is deleted, for it is dead, and took its flows along: no balancer can save them, so for
    /// none they are broken.
    Fail(Index),
    /// Weight as before, or added again.
    Return(Index),
}

impl Change {
    /// The server whose flows a stateful balancer ends, and how many of each are broken by that.
    fn ends(self) -> Option<(Index, u64)> {
        match self {
            Self::Delete(index) => Some((index, 1)),
            Self::Fail(index) => Some((index, 0)),
            Self::Drain(_) | Self::Return(_) => None,
        }
    }
}

/// A flow as it is planned. It sends a packet every `gap` from its start on, and one at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    pub start: u64,
    pub end: u64,
    /// Between two packets.
    pub gap: u64,
    /// Of the client.
    pub hash: u64,
}

/// What is the same for all flows and balancers.
#[derive(Clone, Debug)]
pub struct World {
    pub config: Config,
    /// Of each server.
    pub weights: Vec<u32>,
    /// The session timeout, and how long an entry lives without a packet.
    pub timeout: u64,
    /// How long an entry lives after its flow's end.
    pub linger: u64,
    /// Whether `net.ipv4.vs.expire_nodest_conn` is set: the entries of a server that fails go with
    /// it, and its slots are merged at once.
    pub expire_nodest_conn: bool,
    /// How many entries the table of `limited` holds, if there is one.
    pub limit: Option<usize>,
}

impl Flow {
    /// Its last packet until `now`.
    pub fn last_packet(&self, now: u64) -> u64 {
        match now >= self.end {
            true => self.end,
            false => now - (now - self.start) % self.gap,
        }
    }

    /// Its first packet after `now`.
    pub fn next_packet(&self, now: u64) -> u64 {
        (self.last_packet(now) + self.gap).min(self.end)
    }
}

impl World {
    /// The name of a server.
    pub fn server(index: Index) -> Server {
        Server {
            address: Ipv4Addr::from(0x0a00_0001 + u32::from(index)).into(),
            port: 80,
        }
    }
}

/// Which servers are there, with which weight.
#[derive(Clone, Debug)]
pub struct Servers {
    /// `None` if deleted.
    weights: Vec<Option<u32>>,
}

impl Servers {
    pub fn new(world: &World) -> Self {
        Self {
            weights: world.weights.iter().map(|&weight| Some(weight)).collect(),
        }
    }

    pub fn apply(&mut self, world: &World, change: Change) {
        let (index, weight) = match change {
            Change::Drain(index) => (index, Some(0)),
            Change::Delete(index) | Change::Fail(index) => (index, None),
            Change::Return(index) => (index, world.weights.get(usize::from(index)).copied()),
        };
        if let Some(place) = self.weights.get_mut(usize::from(index)) {
            *place = weight;
        }
    }

    #[cfg(test)]
    pub fn is_there(&self, index: Index) -> bool {
        self.weights
            .get(usize::from(index))
            .is_some_and(Option::is_some)
    }

    pub fn fleet(&self) -> Fleet {
        let servers = (0..).zip(&self.weights);
        let servers =
            servers.filter_map(|(index, weight)| Some((World::server(index), (*weight)?)));
        servers.collect()
    }

    /// What the busiest of them has, as a multiple of its share: `homes` says where flows live.
    pub fn oversubscription(&self, homes: impl Iterator<Item = Option<Index>>) -> f64 {
        let mut loads = vec![0u64; self.weights.len()];
        for home in homes.flatten() {
            if let Some(load) = loads.get_mut(usize::from(home)) {
                *load += 1;
            }
        }
        let usable = self.weights.iter().zip(loads);
        let usable = usable.filter_map(|(weight, load)| Some((f64::from((*weight)?), load as f64)));
        let usable: Vec<(f64, f64)> = usable.filter(|(weight, _)| *weight > 0.0).collect();
        let weights: f64 = usable.iter().map(|(weight, _)| weight).sum();
        let share = usable.iter().map(|(_, load)| load).sum::<f64>() / weights;
        let most = usable.iter().map(|(weight, load)| load / weight);
        match share > 0.0 {
            true => most.fold(0.0, f64::max) / share,
            false => 0.0,
        }
    }

    /// The servers that new flows can go to, each as often as its weight says.
    pub fn turns(&self) -> Vec<Index> {
        let servers = (0..).zip(&self.weights);
        let turns = servers
            .flat_map(|(index, weight)| std::iter::repeat_n(index, weight.unwrap_or(0) as usize));
        turns.collect()
    }
}

/// A flow that lives, and what became of it at each balancer.
#[derive(Clone, Debug)]
pub struct Live {
    pub flow: Flow,
    /// How many flows began before.
    pub serial: usize,
    pub slot: u32,
    pub mhs: mhs::Fate,
    pub stateful: stateful::Fate,
    pub limited: limited::Fate,
    pub plain: plain::Fate,
}

/// The flows that live, by a number that is used again when one ended.
pub type Flows = Vec<Option<Live>>;

/// How things are at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub struct Sample {
    pub minute: f64,
    pub live_flows: u64,
    pub unstable_slots: u64,
    pub mhs_entries: u64,
    pub stateful_entries: u64,
    pub limited_entries: u64,
    pub mhs_broken: u64,
    pub stateful_broken: u64,
    pub limited_broken: u64,
    pub plain_broken: u64,
    /// What the busiest server has, as a multiple of its share.
    pub mhs_load: f64,
    pub stateful_load: f64,
    pub limited_load: f64,
    pub plain_load: f64,
}
