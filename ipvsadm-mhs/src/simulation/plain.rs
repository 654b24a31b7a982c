// SPDX-License-Identifier: GPL-2.0

//! A plain hash: the client's hash modulo the servers, and no entry at all.

use super::{Change, Flow, Flows, Index, Servers};

/// What became of a flow: its server, `None` if it is broken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fate(pub Option<Index>);

#[derive(Debug)]
pub struct Plain {
    turns: Vec<Index>,
    pub broken: u64,
}

impl Plain {
    pub fn new(servers: &Servers) -> Self {
        Self {
            turns: servers.turns(),
            broken: 0,
        }
    }

    fn server(&self, flow: &Flow) -> Option<Index> {
        let turn = flow.hash.checked_rem(self.turns.len() as u64)?;
        self.turns.get(turn as usize).copied()
    }

    pub fn start(&self, flow: &Flow) -> Fate {
        Fate(self.server(flow))
    }

    /// Every flow that now belongs elsewhere breaks with its next packet.
    pub fn change(&mut self, servers: &Servers, change: Change, flows: &mut Flows) {
        self.turns = servers.turns();
        for live in flows.iter_mut().flatten() {
            if matches!(change, Change::Fail(index) if live.plain.0 == Some(index)) {
                live.plain.0 = None;
            }
            if live.plain.0.is_some() && live.plain.0 != self.server(&live.flow) {
                live.plain.0 = None;
                self.broken += 1;
            }
        }
    }
}
