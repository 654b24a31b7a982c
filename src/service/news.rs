// SPDX-License-Identifier: GPL-2.0

//! What changes of a service are counted, and told to those who wait for events.
//!
//! Everything here is called by the writer. Nothing of it can fail, and an event that nobody waits
//! for is never made.

use super::{
    view::{
        Look,
        State, //
    },
    Member,
    Service,
    Writer, //
};
use crate::{
    catalog,
    ipvs::{
        bindings as uapi,
        genl::Message,
        rcu::Reader,
        service::Dest,
        time, //
    },
    netlink,
    pure::slots::Outcome,
    stats::Count, //
};
use kernel::{
    prelude::*,
    sync::rcu, //
};

/// Why a table is made.
#[derive(Clone, Copy)]
pub(crate) enum Cause {
    /// The scheduler took over a service that had servers.
    Adopt = uapi::ipvs_mhs_cause_IPVS_MHS_CAUSE_ADOPT as isize,
    /// A server was added.
    Add = uapi::ipvs_mhs_cause_IPVS_MHS_CAUSE_ADD as isize,
    /// A server changed.
    Update = uapi::ipvs_mhs_cause_IPVS_MHS_CAUSE_UPDATE as isize,
    /// A server was deleted.
    Delete = uapi::ipvs_mhs_cause_IPVS_MHS_CAUSE_DELETE as isize,
    /// An earlier change had failed.
    Retry = uapi::ipvs_mhs_cause_IPVS_MHS_CAUSE_RETRY as isize,
}

impl Writer {
    /// Takes note of what a change did to the table.
    pub(super) fn note(&mut self, outcome: Outcome) {
        self.generation = catalog::generation();
        self.unstable = (self.unstable + outcome.unsettled).saturating_sub(outcome.settled);
    }
}

impl Service {
    /// Sends an event. Cheap where nobody waits for any.
    fn tell(&self, command: u32, fill: impl FnOnce(&mut Message<'_>) -> Result) {
        let guard = rcu::read_lock();
        let Some(svc) = self.link.get(Reader::new(&guard)) else {
            return;
        };
        self.events.send(svc.netns(), command as u8, |message| {
            // The same in events about servers.
            netlink::put_key(message, uapi::IPVS_MHS_EVENT_A_SERVICE, &self.identity)?;
            fill(message)
        });
    }

    /// What all events about tables say.
    fn put_table(&self, writer: &Writer, message: &mut Message<'_>) -> Result {
        message.u32(uapi::IPVS_MHS_EVENT_A_GENERATION, writer.generation)?;
        message.u32(uapi::IPVS_MHS_EVENT_A_UNSTABLE, writer.unstable)?;
        if let Some(left) = self.next_merge(writer, time::jiffies()) {
            message.uint(uapi::IPVS_MHS_EVENT_A_NEXT_MERGE, time::milliseconds(left))?;
        }
        Ok(())
    }

    /// There is a new table.
    pub(super) fn remapped(&self, writer: &mut Writer, outcome: Outcome) {
        writer.note(outcome);
        self.stats.count(Count::Remaps);
        self.tell(uapi::IPVS_MHS_CMD_REMAP_NTF, |message| {
            message.u32(uapi::IPVS_MHS_EVENT_A_CAUSE, writer.cause as u32)?;
            message.u32(uapi::IPVS_MHS_EVENT_A_BECAME_UNSTABLE, outcome.unsettled)?;
            message.u32(uapi::IPVS_MHS_EVENT_A_BECAME_STABLE, outcome.settled)?;
            self.put_table(writer, message)
        });
    }

    /// Slots may have been merged.
    pub(super) fn merged(&self, writer: &mut Writer, outcome: Outcome) {
        if outcome.settled == 0 {
            return;
        }
        writer.note(outcome);
        self.stats.count(Count::Merges);
        self.stats.add(Count::SlotsMerged, outcome.settled);
        self.tell(uapi::IPVS_MHS_CMD_MERGE_NTF, |message| {
            message.u32(uapi::IPVS_MHS_EVENT_A_MERGED, outcome.settled)?;
            self.put_table(writer, message)
        });
    }

    /// A change could not be made.
    pub(super) fn failed(&self, writer: &Writer) {
        self.stats.count(Count::RebuildFailures);
        self.tell(uapi::IPVS_MHS_CMD_FAILURE_NTF, |message| {
            message.u32(uapi::IPVS_MHS_EVENT_A_CAUSE, writer.cause as u32)?;
            self.put_table(writer, message)
        });
    }

    /// A server may not be what it was `before`, if it was there at all.
    pub(super) fn changed(&self, writer: &mut Writer, dest: &Dest, before: Option<Look>) {
        writer.generation = catalog::generation();
        let generation = writer.generation;
        let now = time::jiffies();
        let Some((member, index)) = writer.find(dest) else {
            return;
        };
        let look = Look::of(member);
        if before != Some(look) {
            let left = member.gone_until.map(|at| at.saturating_sub(now));
            self.tell_server(generation, Some(index), member, look, left);
        }
    }

    /// A server is no server of the service any more, for nobody.
    pub(super) fn left(&self, member: &Member, generation: u32) {
        let look = Look {
            state: State::Gone,
            ..Look::of(member)
        };
        self.tell_server(generation, None, member, look, None);
    }

    fn tell_server(
        &self,
        generation: u32,
        index: Option<u16>,
        member: &Member,
        look: Look,
        left: Option<u64>,
    ) {
        self.tell(uapi::IPVS_MHS_CMD_DEST_NTF, |message| {
            message.u32(uapi::IPVS_MHS_DEST_A_GENERATION, generation)?;
            if let Some(index) = index {
                message.u16(uapi::IPVS_MHS_DEST_A_INDEX, index)?;
            }
            let (addr, port) = member.server.endpoint();
            netlink::put_server(message, &addr, port, look, left)
        });
    }
}
