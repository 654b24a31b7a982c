// SPDX-License-Identifier: GPL-2.0

//! A stateful Maglev whose table of entries is too small: the entry goes that was not used for the
//! longest time. A flow without one goes where new ones do, and gets another.

use super::{Change, Flows, Index};
use std::collections::BTreeMap;

/// What became of a flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fate {
    /// `None` if it is broken.
    pub server: Option<Index>,
    /// When its entry was used last, by the count of all uses.
    used: u64,
}

#[derive(Debug)]
pub struct Limited {
    limit: usize,
    /// The flows with an entry, by their last use.
    entries: BTreeMap<u64, usize>,
    uses: u64,
    pub broken: u64,
}

impl Limited {
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            entries: BTreeMap::new(),
            uses: 0,
            broken: 0,
        }
    }

    pub fn entries(&self) -> u64 {
        self.entries.len() as u64
    }

    fn enter(&mut self, number: usize) -> u64 {
        self.uses += 1;
        self.entries.insert(self.uses, number);
        if self.entries.len() > self.limit {
            self.entries.pop_first();
        }
        self.uses
    }

    /// The first packet of a flow.
    pub fn start(&mut self, number: usize, server: Option<Index>) -> Fate {
        let used = server.map_or(0, |_| self.enter(number));
        Fate { server, used }
    }

    /// Another one, of a slot whose new flows go to `newcomer`.
    pub fn packet(&mut self, number: usize, fate: &mut Fate, newcomer: Option<Index>) {
        if fate.server.is_none() {
            return;
        }
        if self.entries.remove(&fate.used).is_none() && newcomer != fate.server {
            self.broken += 1;
            fate.server = None;
            return;
        }
        fate.used = self.enter(number);
    }

    /// The end of a flow.
    pub fn end(&mut self, fate: Fate) {
        self.entries.remove(&fate.used);
    }

    /// As `stateful` does.
    pub fn change(&mut self, change: Change, flows: &mut Flows) {
        let Some((deleted, broken)) = change.ends() else {
            return;
        };
        for live in flows.iter_mut().flatten() {
            if live.limited.server == Some(deleted) {
                self.broken += broken;
                live.limited.server = None;
                self.entries.remove(&live.limited.used);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_entry_not_used_for_longest_goes() {
        let mut limited = Limited::new(2);
        let mut fates: Vec<Fate> = (0..2).map(|n| limited.start(n, Some(1))).collect();
        limited.packet(0, &mut fates[0], Some(2));
        fates.push(limited.start(2, Some(2)));
        // Flow 1 has none any more, which does not matter until its server would be another one.
        limited.packet(1, &mut fates[1], Some(1));
        assert_eq!((limited.entries(), limited.broken), (2, 0));
        // Now flow 0 has none.
        limited.packet(0, &mut fates[0], Some(2));
        limited.packet(2, &mut fates[2], Some(1));
        assert_eq!((limited.entries(), limited.broken), (2, 1));
        assert_eq!(fates[0].server, None);
    }
}
