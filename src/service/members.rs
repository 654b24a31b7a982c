// SPDX-License-Identifier: GPL-2.0

//! The servers of a service: how they become members, are reached, and leave.
//!
//! A server is published before a word names it, and released after the last word that named it
//! changed and it was unpublished.

use super::{
    Service,
    Writer, //
};
use crate::{
    catalog,
    ipvs::{
        express::Express,
        rcu::{
            GracePeriod,
            RcuArc,
            Reader, //
        },
        service::{
            Dest,
            DestId,
            Method,
            Svc, //
        },
    },
    pure::{
        hash::Addr,
        maglev,
        search, //
        slots::{
            Outcome,
            Times, //
        },
    },
    stats::Traffic,
};
use core::sync::atomic::{
    AtomicBool,
    Ordering, //
};
use kernel::{
    prelude::*,
    sync::{
        rcu,
        Arc, //
    },
};

/// A server as packets see it.
pub(crate) struct Server {
    /// The way there.
    pub(crate) express: Express,
    /// What went that way.
    pub(crate) traffic: Arc<Traffic>,
    gone: AtomicBool,
    abandoned: AtomicBool,
    /// What the writer knows of it. Here is room for that: beside the way there it takes no memory.
    pub(super) identity: Identity,
}

/// What tells a server from others, and what the hashes make of it. Never changes.
#[derive(Clone, Copy)]
pub(super) struct Identity {
    addr: Addr,
    port: u16,
    pub(super) permutation: maglev::Permutation,
}

impl Server {
    /// Whether it was deleted. It still gets the packets of its flows, for a session timeout.
    #[inline]
    pub(crate) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Relaxed)
    }

    /// It was deleted, and the table of entries is full: so that new flows can begin without an entry
    /// in its slots, what lives there is the new server's from now on.
    pub(crate) fn abandon(&self) {
        if !self.is_abandoned() {
            self.abandoned.store(true, Ordering::Relaxed);
        }
    }

    /// Whether its flows without an entry were given up: [`Server::abandon`].
    pub(crate) fn is_abandoned(&self) -> bool {
        self.abandoned.load(Ordering::Relaxed)
    }

    /// It is none of the service's any more.
    pub(super) fn leave(&self) {
        // From an earlier time, by a packet that was on its way when it came back.
        self.keep();
        self.gone.store(true, Ordering::Relaxed);
    }

    /// It is not given up, or there is nothing of that left.
    fn keep(&self) {
        self.abandoned.store(false, Ordering::Relaxed);
    }

    /// It is one of the service's, again.
    fn revive(&self) {
        self.gone.store(false, Ordering::Relaxed);
        self.keep();
    }

    /// Its address and port, 0 for the service's.
    pub(super) fn endpoint(&self) -> (Addr, u16) {
        (self.identity.addr, self.identity.port)
    }
}

/// The servers of a service. Packets look no server up in a way that takes longer for more of them.
pub(crate) struct Servers {
    /// By the index that slots have of them.
    by_index: KVVec<Option<RcuArc<Server>>>,
    /// Which server each of those is, with its index, in order.
    by_dest: KVVec<(DestId, u16)>,
}

impl Servers {
    /// The server of a slot.
    #[inline]
    pub(crate) fn get(&self, index: u16) -> Option<&Server> {
        self.by_index.get(usize::from(index))?.as_deref()
    }

    /// How many indices there are.
    pub(crate) fn len(&self) -> usize {
        self.by_index.len()
    }

    /// All that are one server, reached in one way or another: [`search::SAME`] at most.
    fn same(&self, dest: DestId) -> impl Iterator<Item = &Server> {
        search::find(&self.by_dest, dest).filter_map(|index| self.get(index))
    }

    /// The server that is `dest`, reached as it is now.
    pub(crate) fn at(&self, dest: &Dest) -> Option<&Server> {
        self.same(dest.id()).find(|server| !server.is_gone())
    }

    /// The server that `before` is, reached in another way now.
    pub(crate) fn instead_of(&self, before: &Server) -> Option<&Server> {
        self.same(before.express.dest_id())
            .find(|server| server.express.is_open())
    }

    /// The server that is `dest`, deleted but still served, for the packets of an entry that is to be
    /// reached by `method`: another server if flows of that method need an entry and others do not.
    pub(crate) fn gone(&self, dest: &Dest, method: Method) -> Option<&Server> {
        self.same(dest.id()).find(|server| {
            server.is_gone() && server.express.method().is_stateless() == method.is_stateless()
        })
    }
}

/// A server as the writer sees it.
pub(super) struct Member {
    pub(super) server: RcuArc<Server>,
    pub(super) weight: u32,
    /// Until when a deleted server gets the packets of its flows, in ticks.
    pub(super) gone_until: Option<u64>,
    /// It is about to be released.
    pub(super) leaves: bool,
}

impl Member {
    pub(super) fn as_server(&self) -> maglev::Server {
        let (addr, port) = self.server.endpoint();
        maglev::Server {
            addr,
            port,
            weight: self.weight,
        }
    }
}

/// A server that is about to become a member.
struct Newcomer {
    express: Express,
    addr: Addr,
    port: u16,
    weight: u32,
}

impl Newcomer {
    fn new(svc: &Svc, dest: &Dest) -> Self {
        Self {
            express: Express::new(svc, dest),
            addr: dest.addr(),
            port: dest.port(),
            weight: dest.weight(),
        }
    }
}

/// What an index stands for.
pub(super) enum Place {
    /// Nothing any more; packets may not know yet until the grace period is over.
    Leaving(GracePeriod),
    Taken(Member),
}

impl Place {
    pub(super) fn member(&self) -> Option<&Member> {
        match self {
            Self::Taken(member) => Some(member),
            _ => None,
        }
    }

    pub(super) fn member_mut(&mut self) -> Option<&mut Member> {
        match self {
            Self::Taken(member) => Some(member),
            _ => None,
        }
    }
}

impl Service {
    /// Makes `dest` a member, or takes note of what changed about it.
    pub(super) fn join(&self, writer: &mut Writer, svc: &Svc, dest: &Dest) -> Result {
        let times = writer.times(svc.netns().timeouts(self.protocol));
        let known = Self::recognise(writer, dest, times);
        if let Some((member, _)) = &known {
            let express = &member.server.express;
            if express.method() == dest.method() && !express.should_open() {
                return Ok(());
            }
        }
        let known = known.map(|(_, index)| index);
        self.take(writer, known, Newcomer::new(svc, dest), times)
    }

    /// The member that is `dest`, and its index, after taking note of its weight.
    fn recognise<'a>(
        writer: &'a mut Writer,
        dest: &Dest,
        times: Times,
    ) -> Option<(&'a mut Member, u16)> {
        let (member, _) = writer.find(dest)?;
        let (before, now) = (member.server.express.method(), dest.method());
        if before != now {
            member.server.express.share();
        }
        if !before.is_followed_by(now) {
            if member.gone_until.is_none() {
                member.server.leave();
                member.gone_until = Some(times.now + times.session);
            }
        }
        // Who is reached as not long ago is the same one again: its flows of then are to be pinned
        // when their slots move.
        let (member, index) = writer.find_like(dest)?;
        member.weight = dest.weight();
        member.gone_until = None;
        member.server.revive();
        Some((member, index))
    }

    /// There was no memory for a server, or no room.
    pub(super) fn not_joined(&self, writer: &mut Writer, error: Error) {
        if error == ENOSPC {
            pr_warn!("no room for a server: it gets no connections until it is edited\n");
        } else {
            writer.missing = true;
            writer.try_again();
        }
        self.failed(writer);
    }

    /// Makes members of those servers that there was no memory for.
    pub(super) fn rejoin(&self, writer: &mut Writer, times: Times) {
        while writer.missing {
            let found = {
                let guard = rcu::read_lock();
                let rcu = Reader::new(&guard);
                let Some(svc) = self.link.get(rcu) else {
                    return;
                };
                let found = svc.dests_now(rcu).find_map(|dest| {
                    let known = Self::recognise(writer, dest, times);
                    match known {
                        Some((member, _)) if member.server.express.method() == dest.method() => {
                            None
                        }
                        known => Some((
                            known.map(|(_, index)| index),
                            Newcomer::new(svc, dest), //
                        )),
                    }
                });
                found
            };
            let Some((known, newcomer)) = found else {
                writer.missing = false;
                return;
            };
            if let Err(error) = self.take(writer, known, newcomer, times) {
                // Should there be no room, it is not looked for again.
                writer.missing = error != ENOSPC;
                if writer.missing {
                    writer.try_again();
                }
                return;
            }
        }
    }

    /// Takes in a server: in the place of what is known of it, or anew.
    fn take(
        &self,
        writer: &mut Writer,
        known: Option<u16>,
        newcomer: Newcomer,
        times: Times,
    ) -> Result {
        match known {
            Some(index) => self.exchange(writer, index, newcomer.express, times),
            None => self.admit(writer, newcomer),
        }
    }

    /// A member is reached in another way from now on.
    fn exchange(&self, writer: &mut Writer, index: u16, express: Express, times: Times) -> Result {
        let place = writer.places.get_mut(usize::from(index));
        let Some(member) = place.and_then(Place::member_mut) else {
            return Err(EINVAL);
        };
        let server = Self::server(
            express,
            member.server.traffic.clone(),
            member.server.identity,
        )?;
        let before = core::mem::replace(&mut member.server, server);
        let published = self.publish(writer);
        if published.is_err() {
            let place = writer.places.get_mut(usize::from(index));
            if let Some(member) = place.and_then(Place::member_mut) {
                let server = core::mem::replace(&mut member.server, before);
                server.express.release();
            }
            return published;
        }
        before.express.release();
        // Its flows may have entries that say how to reach it as it was before.
        writer.slots(self).fear(Some(index), times);
        Ok(())
    }

    /// A new member.
    fn admit(&self, writer: &mut Writer, newcomer: Newcomer) -> Result {
        writer.seats.reserve(1, GFP_KERNEL)?;
        writer.by_dest.reserve(1, GFP_KERNEL)?;
        let (addr, port) = (newcomer.addr, newcomer.port);
        let traffic = Arc::new(Traffic::new()?, GFP_KERNEL)?;
        let identity = Identity {
            addr,
            port,
            permutation: maglev::Permutation::new(&self.key, &addr, port, self.size),
        };
        let member = Member {
            server: Self::server(newcomer.express, traffic, identity)?,
            weight: newcomer.weight,
            gone_until: None,
            leaves: false,
        };
        let server = member.server.clone();
        let free = writer.places.iter().position(|place| match place {
            Place::Leaving(since) => since.is_over(),
            Place::Taken(_) => false,
        });
        let joined = match free {
            Some(index) => {
                if let Some(place) = writer.places.get_mut(index) {
                    *place = Place::Taken(member);
                }
                Ok(())
            }
            None if writer.places.len() < maglev::MAX_SERVERS => writer
                .places
                .push(Place::Taken(member), GFP_KERNEL)
                .map_err(Error::from),
            None => Err(ENOSPC),
        };
        let place = free.unwrap_or(writer.places.len().saturating_sub(1));
        let joined = joined.and_then(|()| {
            writer.seat(place);
            self.publish(writer)
        });
        if joined.is_err() {
            for place in writer.places.iter_mut() {
                if place
                    .member()
                    .is_some_and(|member| member.server.ptr_eq(&server))
                {
                    *place = Place::Leaving(GracePeriod::start());
                }
            }
            writer.unseat();
            server.express.release();
        }
        joined
    }

    fn server(
        express: Express,
        traffic: Arc<Traffic>,
        identity: Identity,
    ) -> Result<RcuArc<Server>> {
        RcuArc::new(
            Server {
                express,
                traffic,
                gone: AtomicBool::new(false),
                abandoned: AtomicBool::new(false),
                identity,
            },
            GFP_KERNEL,
        )
    }

    /// Shows packets the servers as they are now.
    fn publish(&self, writer: &Writer) -> Result {
        let mut by_index = KVVec::with_capacity(writer.places.len(), GFP_KERNEL)?;
        for place in writer.places.iter() {
            let member = place.member().filter(|member| !member.leaves);
            by_index.push(member.map(|member| member.server.clone()), GFP_KERNEL)?;
        }
        let mut by_dest = KVVec::with_capacity(writer.by_dest.len(), GFP_KERNEL)?;
        for &place in writer.by_dest.iter() {
            if let Some(dest) = writer.dest_id(place) {
                by_dest.push((dest, place), GFP_KERNEL)?;
            }
        }
        let servers = Servers { by_index, by_dest };
        self.servers
            .replace(Some(RcuArc::new(servers, GFP_KERNEL)?));
        Ok(())
    }

    /// A deleted server gets nothing more, in whatever way it was reached: there is no grace.
    pub(super) fn evict(&self, writer: &mut Writer, dest: &Dest, times: Times) {
        let mut outcome = Outcome::default();
        for index in 0..writer.places.len() {
            let place = writer.places.get_mut(index).and_then(Place::member_mut);
            if let Some(member) = place.filter(|member| member.server.express.leads_to(dest)) {
                member.gone_until = Some(times.now);
                outcome += writer.slots(self).evict(index as u16, |_| true, times);
            }
        }
        self.merged(writer, outcome);
        self.leave(writer, times);
    }

    /// What lives in the slots of a server that was given up is the new server's ([`Server::abandon`]).
    /// Before anything changes the slots are to say so, since by the next change only what lives on
    /// their old server stays where it is.
    pub(super) fn hand_down(&self, writer: &mut Writer, times: Times) {
        let mut outcome = Outcome::default();
        for index in 0..writer.places.len() {
            let (mut slots, places) = writer.slots_and_places(self);
            let server = |index: usize| Some(&*places.get(index)?.member()?.server);
            let given_up = |server: &&Server| server.is_gone() && server.is_abandoned();
            let Some(old) = server(index).filter(given_up) else {
                continue;
            };
            let follows = |new: u16| {
                let new = server(usize::from(new));
                new.is_some_and(|new| new.express.method().is_stateless())
            };
            outcome += slots.evict(index as u16, follows, times);
            old.keep();
        }
        self.merged(writer, outcome);
    }

    /// A packet that was on its way when a server became a member may have found a route for it since,
    /// by an older way. Once such packets have arrived there are no more of them.
    pub(super) fn check_routes(&self, writer: &Writer) {
        let guard = rcu::read_lock();
        for member in writer.places.iter().filter_map(Place::member) {
            member.server.express.check_route(Reader::new(&guard));
        }
    }

    /// Lets go of deleted servers whose time is over and which no slot names.
    pub(super) fn leave(&self, writer: &mut Writer, times: Times) {
        let mut any = false;
        for index in 0..writer.places.len() {
            let place = writer.places.get(index).and_then(Place::member);
            if place.is_some_and(|member| member.gone_until.is_some_and(|at| at <= times.now))
                && !writer.slots(self).names(index as u16)
            {
                let place = writer.places.get_mut(index);
                if let Some(member) = place.and_then(Place::member_mut) {
                    member.leaves = true;
                    any = true;
                }
            }
        }
        if !any {
            return;
        }
        if self.publish(writer).is_err() {
            // They stay until then: what is published next is to have them still.
            for member in writer.places.iter_mut().filter_map(Place::member_mut) {
                member.leaves = false;
            }
            writer.try_again();
            return;
        }
        writer.generation = catalog::generation();
        let generation = writer.generation;
        for place in writer.places.iter_mut() {
            if let Place::Taken(member) = place {
                if member.leaves {
                    self.left(member, generation);
                    member.server.express.release();
                    *place = Place::Leaving(GracePeriod::start());
                }
            }
        }
        writer.unseat();
    }

    /// Opens the ways that could not be found when their servers were added.
    pub(super) fn reopen(&self, writer: &mut Writer) {
        for index in 0..writer.places.len() {
            let place = writer.places.get(index).and_then(Place::member);
            let Some(closed) = place.filter(|m| m.server.express.should_open()) else {
                continue;
            };
            let express = {
                let guard = rcu::read_lock();
                let rcu = Reader::new(&guard);
                match (self.link.get(rcu), closed.server.express.dest(rcu)) {
                    (Some(svc), Some(dest)) => Express::new(svc, dest),
                    _ => continue,
                }
            };
            let server = Server {
                express,
                traffic: closed.server.traffic.clone(),
                gone: AtomicBool::new(closed.server.is_gone()),
                abandoned: AtomicBool::new(closed.server.is_abandoned()),
                identity: closed.server.identity,
            };
            let Ok(server) = RcuArc::new(server, GFP_KERNEL) else {
                continue;
            };
            let place = writer.places.get_mut(index);
            let Some(member) = place.and_then(Place::member_mut) else {
                continue;
            };
            let before = core::mem::replace(&mut member.server, server);
            if self.publish(writer).is_ok() {
                before.express.release();
            } else if let Some(member) = writer.places.get_mut(index).and_then(Place::member_mut) {
                core::mem::replace(&mut member.server, before)
                    .express
                    .release();
            }
        }
    }
}
