// SPDX-License-Identifier: GPL-2.0

//! What is counted of a service and of a server, for each CPU.
//!
//! A packet without an entry costs two counters of the service and two of the server, packets and
//! bytes, written by its own CPU beside the statistics of IPVS. Everything else is counted where a
//! flow gets an entry, or where something goes wrong. How many flows are new is not counted here:
//! IPVS knows, see [`Svc::conns`].

use crate::ipvs::{
    counters::{
        self,
        Counters,
        Cpu, //
    },
    service::{
        Dest,
        Svc, //
    },
};
use kernel::prelude::*;

/// What of a service is counted. The specification of the netlink family says what each means.
#[derive(Clone, Copy)]
pub(crate) enum Count {
    // The first two are counted by `Dest::count_stateless()`, which knows their places.
    Packets,
    Bytes,
    PinsNew,
    PinsOld,
    IcmpErrors,
    Full,
    NoServer,
    UdpMoved,
    Remaps,
    Merges,
    SlotsMerged,
    RebuildFailures,
}

impl Count {
    /// How many there are.
    const COUNT: usize = Self::RebuildFailures as usize + 1;
}

/// The counters of a service at a time.
#[derive(Clone, Copy)]
pub(crate) struct Counts {
    own: [u64; Count::COUNT],
    /// New flows, as IPVS counts them.
    pub(crate) conns: u64,
}

impl Counts {
    /// One of them.
    pub(crate) fn get(&self, what: Count) -> u64 {
        self.own.get(what as usize).copied().unwrap_or(0)
    }

    /// Whether nothing was counted at all.
    pub(crate) fn is_zero(&self) -> bool {
        self.conns == 0 && self.own.iter().all(|&count| count == 0)
    }
}

/// The counters of a service.
pub(crate) struct Stats(Counters<{ Count::COUNT }>);

impl Stats {
    /// All zero.
    pub(crate) fn new() -> Result<Self> {
        Counters::new().map(Self)
    }

    /// Counts something that happened once.
    pub(crate) fn count(&self, what: Count) {
        self.add(what, 1);
    }

    /// Counts something that happened `by` times.
    pub(crate) fn add(&self, what: Count, by: u32) {
        self.0.add(what as usize, u64::from(by));
    }

    /// Counts a packet for `dest` without an entry, in the statistics of IPVS too.
    #[inline]
    pub(crate) fn forwarded(
        &self,
        svc: &Svc,
        dest: &Dest,
        traffic: &Traffic,
        bytes: u32,
        is_new: bool,
    ) {
        dest.count_stateless(svc, bytes, is_new, &self.0, &traffic.0);
    }

    /// What was counted on a CPU; new flows only if there is a service to ask.
    pub(crate) fn on(&self, cpu: Cpu, svc: Option<&Svc>) -> Counts {
        Counts {
            own: self.0.on(cpu),
            conns: svc.map_or(0, |svc| svc.conns(cpu)),
        }
    }

    /// What was counted on all CPUs.
    pub(crate) fn sum(&self, svc: Option<&Svc>) -> Counts {
        let conns = counters::cpus(0).map(|cpu| svc.map_or(0, |svc| svc.conns(cpu)));
        Counts {
            own: self.0.sum(),
            conns: conns.fold(0, u64::wrapping_add),
        }
    }
}

/// What a server got without an entry: packets and bytes. It keeps its counters however often its
/// way changes.
pub(crate) struct Traffic(Counters<2>);

impl Traffic {
    /// All zero.
    pub(crate) fn new() -> Result<Self> {
        Counters::new().map(Self)
    }

    /// Packets and bytes on all CPUs.
    pub(crate) fn sum(&self) -> (u64, u64) {
        let [packets, bytes] = self.0.sum();
        (packets, bytes)
    }
}
