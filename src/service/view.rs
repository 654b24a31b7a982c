// SPDX-License-Identifier: GPL-2.0

//! What can be seen of a service from outside, piece by piece: the writer, and with it changes of
//! the service, waits for one piece at most, and packets never wait.

use super::{
    Member,
    Place,
    Service,
    Writer, //
};
use crate::{
    ipvs::{
        bindings as uapi,
        netns::Netns,
        rcu::Reader,
        service::{
            Dest,
            Method,
            Svc, //
        },
        time, //
    },
    pure::{
        hash::Addr,
        slots::{
            self,
            Word, //
        },
    },
    registry::Key,
    stats::Traffic, //
};
use kernel::{
    prelude::*,
    sync::{
        rcu,
        Arc, //
    },
};

/// What becomes of a server's flows.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// It gets new ones.
    Live = uapi::ipvs_mhs_state_IPVS_MHS_STATE_LIVE as isize,
    /// Those it has go on as long as they send.
    Draining = uapi::ipvs_mhs_state_IPVS_MHS_STATE_DRAINING as isize,
    /// Those it has end in a while.
    Grace = uapi::ipvs_mhs_state_IPVS_MHS_STATE_GRACE as isize,
    /// It has none.
    Gone = uapi::ipvs_mhs_state_IPVS_MHS_STATE_GONE as isize,
}

/// What an administrator would call the server.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Look {
    pub(crate) state: State,
    pub(crate) weight: u32,
    pub(crate) method: Method,
}

impl Look {
    pub(super) fn of(member: &Member) -> Self {
        Self {
            state: match (member.gone_until, member.weight) {
                (Some(_), _) => State::Grace,
                (None, 0) => State::Draining,
                (None, _) => State::Live,
            },
            weight: member.weight,
            method: member.server.express.method(),
        }
    }
}

/// The service as a whole. Times are in ticks.
pub(crate) struct Summary {
    pub(crate) generation: u32,
    pub(crate) size: u32,
    /// Servers that are not deleted.
    pub(crate) servers: u32,
    /// Slots.
    pub(crate) unstable: u32,
    pub(crate) next_merge: Option<u64>,
    /// The session timeout that a change would use now.
    pub(crate) session: u64,
    pub(crate) stateless: bool,
}

/// A server.
pub(crate) struct Row {
    pub(crate) index: u16,
    pub(crate) addr: Addr,
    pub(crate) port: u16,
    pub(crate) look: Look,
    /// Ticks until its flows end, or until the last slot that it leaves is merged.
    pub(crate) left: Option<u64>,
    pub(crate) old_slots: u32,
    pub(crate) new_slots: u32,
    pub(crate) traffic: Arc<Traffic>,
}

/// Servers that are shown in one piece.
pub(crate) const ROWS: usize = 32;

/// Slots, an element for each in every list.
pub(crate) struct Chunk {
    pub(crate) slot: KVec<u32>,
    pub(crate) old: KVec<u16>,
    pub(crate) new: KVec<u16>,
    /// Milliseconds until each is merged.
    pub(crate) left: KVec<u32>,
}

impl Chunk {
    /// So many slots there are at most.
    const SIZE: usize = 256;

    /// So many are looked at for it at most.
    const LOOKS: usize = 16 * 1024;

    /// None, with room for all.
    pub(crate) fn new() -> Result<Self> {
        Ok(Self {
            slot: KVec::with_capacity(Self::SIZE, GFP_KERNEL)?,
            old: KVec::with_capacity(Self::SIZE, GFP_KERNEL)?,
            new: KVec::with_capacity(Self::SIZE, GFP_KERNEL)?,
            left: KVec::with_capacity(Self::SIZE, GFP_KERNEL)?,
        })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.slot.is_empty()
    }

    pub(crate) fn clear(&mut self) {
        self.slot.clear();
        self.old.clear();
        self.new.clear();
        self.left.clear();
    }

    fn push(&mut self, slot: u32, word: Word, left: u64) -> Result {
        let left = u32::try_from(time::milliseconds(left)).unwrap_or(u32::MAX);
        self.slot.push(slot, GFP_KERNEL)?;
        self.old.push(word.old(), GFP_KERNEL)?;
        self.new.push(word.new(), GFP_KERNEL)?;
        self.left.push(left, GFP_KERNEL)?;
        Ok(())
    }
}

impl Writer {
    /// What a server looks like that is there and not deleted.
    pub(super) fn look(&mut self, dest: &Dest) -> Option<Look> {
        let (member, _) = self.find(dest)?;
        member.gone_until.is_none().then(|| Look::of(member))
    }

    /// Ticks from `now` until an unstable slot with this epoch is merged.
    fn left(&self, epoch: u8, now: u64) -> u64 {
        self.deadlines.end(epoch).unwrap_or(now).saturating_sub(now)
    }
}

impl Service {
    /// What the service is called.
    pub(crate) fn identity(&self) -> &Key {
        &self.identity
    }

    /// By how many percent a server may exceed its share.
    pub(crate) fn balance(&self) -> u32 {
        self.balance
    }

    /// What IPVS has of the service, if it can be looked at. Before the first server is added it
    /// cannot: IPVS may then free a service without waiting for a grace period.
    fn with_svc<R>(&self, writer: &Writer, look: impl FnOnce(Option<&Svc>) -> R) -> R {
        let guard = rcu::read_lock();
        let rcu = Reader::new(&guard);
        let svc = self.link.get(rcu).filter(|_| !writer.places.is_empty());
        look(svc)
    }

    /// Ticks until the next slots are merged.
    pub(super) fn next_merge(&self, writer: &Writer, now: u64) -> Option<u64> {
        if writer.unstable == 0 {
            return None;
        }
        let slots = (0..).zip(writer.epochs.iter());
        let unstable = slots
            .filter(|(slot, _)| slots::load(&self.words, *slot).is_some_and(|word| !word.stable()));
        unstable.map(|(_, &epoch)| writer.left(epoch, now)).min()
    }

    /// Looks at the service as a whole. `count` gets what IPVS has of it, if anything.
    pub(crate) fn summary<R>(
        &self,
        netns: &Netns,
        count: impl FnOnce(Option<&Svc>) -> R,
    ) -> (Summary, R) {
        let writer = self.writer.lock();
        let members = writer.places.iter().filter_map(Place::member);
        let servers = members.filter(|member| member.gone_until.is_none());
        let summary = Summary {
            generation: writer.generation,
            size: self.size,
            servers: servers.count() as u32,
            unstable: writer.unstable,
            next_merge: self.next_merge(&writer, time::jiffies()),
            session: netns.timeouts(self.protocol).session,
            stateless: self.is_shown()
                && !netns.settings().stateful()
                && self.with_svc(&writer, |svc| {
                    svc.is_some_and(|svc| !svc.flags().is_persistent())
                }),
        };
        let counted = self.with_svc(&writer, count);
        (summary, counted)
    }

    /// Looks at what IPVS has of the service, if anything.
    pub(crate) fn count<R>(&self, count: impl FnOnce(Option<&Svc>) -> R) -> R {
        let writer = self.writer.lock();
        self.with_svc(&writer, count)
    }

    /// Looks at [`ROWS`] servers at most, those of index `from` and on. Returns the generation, and
    /// the index to go on from, or `None` after the last.
    pub(crate) fn rows(&self, from: usize, rows: &mut KVec<Row>) -> Result<(u32, Option<usize>)> {
        rows.clear();
        let writer = self.writer.lock();
        let now = time::jiffies();
        for (at, place) in writer.places.iter().enumerate().skip(from).take(ROWS) {
            let Some(member) = place.member().filter(|member| !member.leaves) else {
                continue;
            };
            let (addr, port) = member.server.endpoint();
            rows.push(
                Row {
                    index: at as u16,
                    addr,
                    port,
                    look: Look::of(member),
                    left: member.gone_until.map(|at| at.saturating_sub(now)),
                    old_slots: 0,
                    new_slots: 0,
                    traffic: member.server.traffic.clone(),
                },
                GFP_KERNEL,
            )?;
        }
        // Where the rows are, by index.
        let mut places = [None; ROWS];
        for (at, row) in rows.iter().enumerate() {
            let place = usize::from(row.index).checked_sub(from);
            if let Some(place) = place.and_then(|place| places.get_mut(place)) {
                *place = Some(at);
            }
        }
        let find = |index: u16| {
            let place = usize::from(index).checked_sub(from)?;
            *places.get(place)?
        };
        for (slot, &epoch) in (0..).zip(writer.epochs.iter()) {
            let Some(word) = slots::load(&self.words, slot) else {
                break;
            };
            if let Some(row) = find(word.old()).and_then(|at| rows.get_mut(at)) {
                row.old_slots += 1;
                if !word.stable() {
                    row.left = row.left.max(Some(writer.left(epoch, now)));
                }
            }
            if let Some(row) = find(word.new()).and_then(|at| rows.get_mut(at)) {
                row.new_slots += 1;
            }
        }
        let next = from + ROWS;
        let more = next < writer.places.len();
        Ok((writer.generation, more.then_some(next)))
    }

    /// Looks at slots from number `from` on, only at unstable ones if that is wanted. Returns the
    /// generation, and the slot to go on from, or `None` after the last.
    pub(crate) fn chunk(
        &self,
        from: u32,
        unstable: bool,
        chunk: &mut Chunk,
    ) -> Result<(u32, Option<u32>)> {
        chunk.clear();
        let writer = self.writer.lock();
        let now = time::jiffies();
        let slots = (0..).zip(writer.epochs.iter());
        for (slot, &epoch) in slots.skip(from as usize).take(Chunk::LOOKS) {
            if chunk.slot.len() >= Chunk::SIZE {
                return Ok((writer.generation, Some(slot)));
            }
            let Some(word) = slots::load(&self.words, slot) else {
                break;
            };
            if !word.stable() {
                chunk.push(slot, word, writer.left(epoch, now))?;
            } else if !unstable {
                chunk.push(slot, word, 0)?;
            }
        }
        let next = from.saturating_add(Chunk::LOOKS as u32);
        let more = (next as usize) < self.words.len();
        Ok((writer.generation, more.then_some(next)))
    }
}
