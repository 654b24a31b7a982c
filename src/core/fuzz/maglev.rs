// SPDX-License-Identifier: GPL-2.0

//! Tables: the rule in its own words, and what must hold of each.

use arbitrary::{Arbitrary, Result, Unstructured};
use mhs_core::hash::{self, Addr, Key, Purpose};
use mhs_core::maglev::*;

/// The table of these servers.
pub fn table(key: &Key, servers: &[Server], balance: u32, size: u32) -> Vec<u16> {
    let mut rows = vec![Row::default(); servers.len()];
    let mut table = vec![0; size as usize];
    populate(key, servers, balance, &mut rows, &mut table).unwrap();
    table
}

/// Of a server.
pub type Name = (Addr, u16);

/// The owner of each slot by name, so that tables of differently ordered sets compare.
pub fn owners(servers: &[Server], table: &[u16]) -> Vec<Option<Name>> {
    let name = |&i: &u16| servers.get(i as usize).map(|s| (s.addr, s.port));
    table.iter().map(name).collect()
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 {
        a
    } else {
        gcd(b, a % b)
    }
}

/// Turns of each server in a round.
pub fn turns(servers: &[Server]) -> Vec<u32> {
    let unit = servers.iter().fold(0, |g, s| gcd(s.weight, g)).max(1);
    let most = servers.iter().map(|s| s.weight / unit).max().unwrap_or(0);
    let mut shift = 0;
    while most >> shift > 63 {
        shift += 1;
    }
    let turns = |s: &Server| ((s.weight / unit) >> shift).max((s.weight > 0) as u32);
    servers.iter().map(turns).collect()
}

/// The most slots each server may have.
pub fn caps(servers: &[Server], balance: u32, size: u32) -> Vec<u64> {
    let turns = turns(servers);
    let total: u64 = turns.iter().map(|&t| t as u64).sum();
    let slots = |&t| size as u64 * t as u64 * (100 + balance as u64);
    let cap = |t| slots(t).div_ceil(100 * total.max(1));
    turns.iter().map(cap).collect()
}

/// Offset and skip.
pub fn permutation(key: &Key, server: &Server, size: u32) -> (u64, u64) {
    let hash = |purpose| hash::server(key, &server.addr, server.port, purpose);
    let size = size as u64;
    (
        hash(Purpose::Offset) % size,
        hash(Purpose::Skip) % (size - 1) + 1,
    )
}

/// The order of turns in a round.
pub fn order(key: &Key, servers: &[Server]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..servers.len()).collect();
    order.retain(|&i| servers[i].weight > 0);
    order.sort_by_key(|&i| {
        let Server { addr, port, .. } = servers[i];
        (hash::server(key, &addr, port, Purpose::Order), addr, port)
    });
    order
}

/// The rule in its own words, with no shortcut: play until no slot is free.
pub fn naive(key: &Key, servers: &[Server], balance: u32, size: u32) -> Vec<u16> {
    let (turns, caps) = (turns(servers), caps(servers, balance, size));
    let order = order(key, servers);
    let mut table = vec![NONE; size as usize];
    let mut looks = vec![0u64; servers.len()];
    let mut have = vec![0u64; servers.len()];
    let mut free = if order.is_empty() { 0 } else { size };
    while free > 0 {
        for &i in &order {
            let (offset, skip) = permutation(key, &servers[i], size);
            for _ in 0..turns[i] {
                let at = ((offset + looks[i] * skip) % size as u64) as usize;
                looks[i] += 1;
                if have[i] < caps[i] && table[at] == NONE {
                    table[at] = i as u16;
                    have[i] += 1;
                    free -= 1;
                }
            }
        }
    }
    table
}

/// The same table in any order of the servers.
pub fn order_does_not_matter(key: &Key, set: &[Server], balance: u32, size: u32) {
    let mut sorted = set.to_vec();
    sorted.sort_by_key(|s| (s.addr, s.port));
    let of = |set: &[Server]| owners(set, &table(key, set, balance, size));
    let by_name = of(&sorted);
    assert_eq!(of(set), by_name);
    sorted.reverse();
    assert_eq!(of(&sorted), by_name);
}

/// Every slot has a server of the set, and no server more slots than its cap.
pub fn full_and_within_caps(set: &[Server], balance: u32, table: &[u16]) {
    for (i, cap) in caps(set, balance, table.len() as u32)
        .into_iter()
        .enumerate()
    {
        let have = table.iter().filter(|&&o| o as usize == i).count() as u64;
        assert!(have <= cap, "server {i} has {have} of at most {cap}");
    }
    let nobody = set.iter().all(|s| s.weight == 0);
    let named = table
        .iter()
        .filter(|&&o| usize::from(o) < set.len())
        .count();
    assert_eq!(named, if nobody { 0 } else { table.len() });
    assert!(!nobody || table.iter().all(|&o| o == NONE));
}

/// [`choose`] finds the first look at a slot, by rank / weight.
pub fn choose_is_the_first_look(key: &Key, set: &[Server], slot: u32, size: u32) {
    let look = |&i: &usize| {
        let (offset, skip) = permutation(key, &set[i], size);
        let at = |rank| (offset + rank * skip) % u64::from(size);
        (0..u64::from(size))
            .find(|&rank| at(rank) == u64::from(slot))
            .unwrap()
    };
    // By a common denominator; the order decides between equals.
    let scale: u128 = set
        .iter()
        .map(|s| s.weight.max(1) as u128)
        .max()
        .unwrap_or(1)
        << 64;
    let first = order(key, set)
        .into_iter()
        .min_by_key(|i| look(i) as u128 * scale / set[*i].weight as u128);
    let numbered = set.iter().zip(100u16..).map(|(s, i)| (i, *s));
    assert_eq!(
        choose(key, size, slot, numbered),
        first.map(|i| i as u16 + 100)
    );
}

/// A set of servers and what else makes a table.
#[derive(Debug, Arbitrary)]
pub struct Input {
    k0: u64,
    k1: u64,
    balance: u8,
    #[arbitrary(with = |u: &mut Unstructured<'_>| u.choose(&SIZES[..4]).copied())]
    size: u32,
    slot: u32,
    #[arbitrary(with = servers)]
    servers: Vec<Server>,
}

/// Up to 400, each once. Alike addresses are more likely than they would be by chance.
fn servers(u: &mut Unstructured<'_>) -> Result<Vec<Server>> {
    let mut set = Vec::<Server>::new();
    while set.len() < 400 && !u.is_empty() {
        let addr = match u8::arbitrary(u)? {
            0..=99 => Addr::V4([192, 0, 2, u8::arbitrary(u)?]),
            100..=199 => Addr::V4(<[u8; 4]>::arbitrary(u)?),
            _ => Addr::V6(<[u8; 16]>::arbitrary(u)?),
        };
        let port = u8::arbitrary(u)?.into();
        let weight = match u8::arbitrary(u)? {
            255 => u32::arbitrary(u)?,
            254 => u32::MAX,
            small => (small & 15).into(),
        };
        if !set.iter().any(|s| (s.addr, s.port) == (addr, port)) {
            set.push(Server { addr, port, weight });
        }
    }
    Ok(set)
}

/// Makes the table and asks all of the above.
pub fn check(input: &Input) {
    let Input { k0, k1, size, .. } = *input;
    let (key, set, balance) = (Key { k0, k1 }, &input.servers[..], input.balance.into());
    let table = table(&key, set, balance, size);
    let counted = balance.min(100);
    assert_eq!(table, naive(&key, set, counted, size));
    full_and_within_caps(set, counted, &table);
    order_does_not_matter(&key, set, balance, size);
    choose_is_the_first_look(&key, set, input.slot % size, size);
}
