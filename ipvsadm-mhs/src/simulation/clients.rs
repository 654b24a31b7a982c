// SPDX-License-Identifier: GPL-2.0

//! Clients for the flows: an address of its own for each, of the slot that its flow is in.

use crate::module::Config;
use mhs_core::hash::{self, Addr, State};
use std::net::Ipv4Addr;

/// The first address, and the one after the last: half of 10.0.0.0/8, away from the servers.
const ADDRESSES: std::ops::Range<u32> = 0x0a80_0000..0x0b00_0000;

/// Addresses that nobody has yet.
pub struct Clients {
    config: Config,
    start: State,
    addresses: std::ops::Range<u32>,
    /// Those that were looked at and are of other slots than the one that was wanted.
    of_slot: Vec<Vec<Ipv4Addr>>,
}

impl Clients {
    pub fn new(config: &Config) -> Self {
        Self {
            config: *config,
            start: State::new(&config.key),
            addresses: ADDRESSES,
            of_slot: vec![Vec::new(); config.size as usize],
        }
    }

    /// The next client of a slot; none if there are no more addresses.
    pub fn of_slot(&mut self, slot: u32) -> Option<Ipv4Addr> {
        if let Some(address) = self.of_slot.get_mut(slot as usize)?.pop() {
            return Some(address);
        }
        loop {
            let address = Ipv4Addr::from(self.addresses.next()?);
            let hash = hash::client(self.start, &Addr::V4(address.octets()), None);
            let other = hash::slot(hash, self.config.size);
            if other == slot {
                return Some(address);
            }
            self.of_slot.get_mut(other as usize)?.push(address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn each_is_of_its_slot_and_there_once() {
        let config = Config {
            size: 251,
            ..Config::default()
        };
        let mut clients = Clients::new(&config);
        let mut seen = HashSet::new();
        for slot in (0..251).chain(0..251).chain([7; 100]) {
            let address = clients.of_slot(slot).unwrap();
            let client = Addr::V4(address.octets());
            let hash = hash::client(State::new(&hash::DEFAULT_KEY), &client, None);
            assert_eq!(hash::slot(hash, 251), slot);
            assert!(seen.insert(address));
        }
    }

    #[test]
    fn there_is_an_end() {
        let mut clients = Clients::new(&Config {
            size: 251,
            ..Config::default()
        });
        clients.addresses = 0..1000;
        assert!((1..1000).contains(&std::iter::from_fn(|| clients.of_slot(5)).count()));
        assert_eq!(clients.of_slot(251), None);
    }
}
