// SPDX-License-Identifier: GPL-2.0

//! A stateful Maglev: a table for new flows, an entry for each. What `ip_vs_mh` does, but with the
//! table of `src/core`.

use super::{Change, Flows, Index};

/// What became of a flow: its server, `None` if it is broken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fate(pub Option<Index>);

#[derive(Debug, Default)]
pub struct Stateful {
    pub entries: u64,
    pub broken: u64,
}

impl Stateful {
    pub fn start(&mut self, server: Option<Index>) -> Fate {
        self.entries += u64::from(server.is_some());
        Fate(server)
    }

    /// IPVS drops the packets of an entry whose server is deleted.
    pub fn change(&mut self, change: Change, flows: &mut Flows) {
        let Some((deleted, broken)) = change.ends() else {
            return;
        };
        for live in flows.iter_mut().flatten() {
            if live.stateful.0 == Some(deleted) {
                self.broken += broken;
                live.stateful.0 = None;
                // With `expire_nodest_conn`; else the entry would be there longer.
                self.entries -= 1;
            }
        }
    }

    /// Whether the flow leaves an entry behind.
    pub fn end(&self, fate: Fate) -> bool {
        fate.0.is_some()
    }
}
