// SPDX-License-Identifier: GPL-2.0

//! A stateful Maglev: a table for new flows, an entry for each. What `ip_vs_mh` does, but with the
//! table of `src/core`.

use super::{Change, Flows, Index, World};

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

    /// IPVS drops the packets of an entry whose server is deleted, so it expires. Returns when each
    /// does.
    pub fn change(
        &mut self,
        world: &World,
        change: Change,
        now: u64,
        flows: &mut Flows,
    ) -> Vec<u64> {
        let Some((deleted, broken)) = change.ends() else {
            return Vec::new();
        };
        let mut expiries = Vec::new();
        for live in flows.iter_mut().flatten() {
            if live.stateful.0 == Some(deleted) {
                self.broken += broken;
                live.stateful.0 = None;
                expiries.push(match (change, world.expire_nodest_conn) {
                    (Change::Fail(_), true) => now,
                    _ => live.flow.last_packet(now) + world.timeout,
                });
            }
        }
        expiries
    }

    /// Whether the flow leaves an entry behind.
    pub fn end(&self, fate: Fate) -> bool {
        fate.0.is_some()
    }
}
