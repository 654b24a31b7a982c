// SPDX-License-Identifier: GPL-2.0

//! What a packet may have to search for. Each search ends after a number of steps that is written
//! here, however many slots, servers or services there are.
//!
//! A packet is handled in a softirq. A search whose length grows with the configuration would let
//! clients stall the CPU with few packets, in an outage of all places.

use super::{
    hash::{
        self,
        Key, //
    },
    maglev::NONE,
    slots::{
        self,
        Word, //
    },
    sync::{
        AtomicU32,
        Ordering::Relaxed, //
    },
};

/// How many other slots [`fall_back`] looks at, at most. If half of the slots have a server that takes
/// new flows, one flow in 4 x 10^9 finds none of them; if one in ten has, one flow in 30.
pub const SLOTS: u64 = 32;

/// How many servers [`fall_back`] looks at after those slots, at most.
pub const SERVERS: usize = 32;

/// How many keys [`find`] compares to get to the first of those it looks for, at most: a binary search
/// among [`MAX_SERVERS`](super::maglev::MAX_SERVERS), which are less than 2^15.
pub const COMPARISONS: usize = 16;

/// How many elements with the same key [`find`] looks at, at most.
///
/// A server (dest) is there once for each kind of forwarding method that it had within a session
/// timeout. There are three kinds: without entries, masquerading, and what else IPVS has. One more is
/// for a change of the method while the server is joined.
pub const SAME: usize = 4;

/// Another server for a new flow whose own one takes none.
///
/// `own` is the word of the flow's slot, and `client` a hash of the client. `usable` answers for the
/// index of a server, of which there are `servers`; nothing if that takes no new flow.
///
/// If the slot has no new server there is no usable server at all, and no search. Otherwise the client
/// is hashed on and on, as `ip_vs_mh_get_fallback()` does, so that flows spread over the servers that
/// are left, by weight. Where so few are left that [`SLOTS`] slots have none of them, servers are looked
/// at one by one, from `next` on. A search goes on where the last one ended, and begins where the last
/// one found a server. So if one of N servers takes new flows, less than N/[`SERVERS`] flows are refused
/// until it is found, and none after that.
pub fn fall_back<T>(
    key: &Key,
    words: &[AtomicU32],
    own: Word,
    client: u64,
    servers: usize,
    next: &AtomicU32,
    usable: impl Fn(u16) -> Option<T>,
) -> Option<T> {
    if own.new() == NONE {
        return None;
    }
    let size = words.len() as u32;
    let by_hash = (1..=SLOTS).find_map(|step| {
        let hash = hash::siphash24(key, &(client ^ step).to_le_bytes());
        usable(slots::load(words, hash::slot(hash, size))?.new())
    });
    by_hash.or_else(|| in_turn(servers, next, usable))
}

/// The first usable server from `next` on.
fn in_turn<T>(servers: usize, next: &AtomicU32, usable: impl Fn(u16) -> Option<T>) -> Option<T> {
    let first = next.load(Relaxed);
    let at = |step: usize| (first as usize).wrapping_add(step).checked_rem(servers);
    let steps = servers.min(SERVERS);
    let found = (0..steps).find_map(|step| {
        let index = u16::try_from(at(step)?).ok()?;
        Some((index, usable(index)?))
    });
    let end = match &found {
        Some((index, _)) => u32::from(*index),
        None => at(steps).unwrap_or(0) as u32,
    };
    // Other CPUs search, too: nothing is written for nothing.
    if end != first {
        next.store(end, Relaxed);
    }
    found.map(|(_, usable)| usable)
}

/// The elements for `key` of a list that is sorted by key, [`SAME`] at most.
pub fn find<K: PartialOrd + Copy, V: Copy>(
    sorted: &[(K, V)],
    key: K,
) -> impl Iterator<Item = V> + '_ {
    let first = sorted.partition_point(|(other, _)| *other < key);
    let same = sorted.get(first..).unwrap_or_default().iter().take(SAME);
    same.map_while(move |(other, value)| (*other == key).then_some(*value))
}
