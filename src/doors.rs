// SPDX-License-Identifier: GPL-2.0

//! The way of a packet.
//!
//! The door stands before IPVS. A packet whose slot is stable is forwarded here by hash alone: no
//! entry, no allocation, no lock, no write that another CPU would notice but for the slot's mark, a
//! few times in a session timeout. Where the two tables differ the flow is looked up, once: it has
//! an entry and goes by that, or it gets one here. What needs more than that (masquerading,
//! persistence, overload) goes on to IPVS, which asks the scheduler.

use crate::{
    ipvs::{
        conn::{
            self,
            Found, //
        },
        express::Way,
        hook::{
            Doors,
            Verdict, //
        },
        netns::Settings,
        rcu::Reader,
        service::{
            Dest,
            Method,
            Svc,
            SvcFlags, //
        },
        skb::{
            IpHeader,
            Skb, //
        },
    },
    pure::{
        flow::{
            self,
            Flow,
            Kind,
            Proto, //
        },
        hash::Addr,
        slots::{
            self,
            Word, //
        },
    },
    registry::Services,
    service::{
        Server,
        Servers,
        Service, //
    },
    stats::Count,
};

/// The port that FTP servers open data connections from.
const FTP_DATA: u16 = 20;

/// Who may have a flow that has no entry, in a slot that is moving.
struct Moving<'a> {
    /// Who had it.
    old: Option<&'a Server>,
    /// The same, unless it was deleted.
    lives: Option<&'a Server>,
    /// Who has what began there without an entry: the old server, or the new one if that was given up
    /// ([`Server::abandon`]). Not where the new one masquerades: without an entry nothing begins there.
    heir: Option<&'a Server>,
    /// Who gets it.
    new: Option<&'a Server>,
}

/// A packet for a service of ours, and what its slot says.
///
/// The way of a settled packet is inlined from end to end and keeps this in registers; what is not
/// inlined gets a copy.
#[derive(Clone, Copy)]
struct Arrival<'a> {
    flow: Flow,
    svc: &'a Svc,
    flags: SvcFlags,
    settings: Settings,
    services: &'a Services,
    service: &'a Service,
    servers: &'a Servers,
    slot: u32,
    word: Word,
    rcu: Reader<'a>,
}

impl<'a> Arrival<'a> {
    /// `None` if the packet is none of our business.
    #[inline(always)]
    fn new(
        services: &'a Services,
        skb: &Skb<'_>,
        flow: Flow,
        rcu: Reader<'a>, //
    ) -> Option<Self> {
        // IPVS never balances what comes from here, see `ip_vs_schedule()`.
        if flow.sport == FTP_DATA {
            return None;
        }
        let (service, svc) = services.find(&flow, skb.mark(), rcu)?;
        let (flags, settings) = (svc.flags(), skb.settings());
        if flags.is_persistent() || settings.stateful() {
            service.note_entries();
            return None;
        }
        let slot = service.slot(flags.hashes_port(), &flow.src, flow.sport);
        // The word comes first: whom it names was published before it was written.
        let word = slots::load(&service.words, slot)?;
        Some(Self {
            flow,
            svc,
            flags,
            settings,
            services,
            service,
            servers: service.servers(rcu)?,
            slot,
            word,
            rcu,
        })
    }

    fn is_new(&self) -> bool {
        self.flow.kind == Kind::New
    }

    fn is_udp(&self) -> bool {
        self.flow.proto == Proto::Udp && self.flow.kind != Kind::Error
    }

    /// `-o`: never an entry, always the new table.
    fn is_one_packet(&self) -> bool {
        self.flow.proto == Proto::Udp && self.flags.is_one_packet()
    }

    /// Whether IPVS drops some of what is new, for want of memory (`drop_entry`, `drop_packet`). For
    /// any port it would refuse all of it.
    fn drops(&self) -> bool {
        self.settings.drops() && !self.svc.is_any_port()
    }

    /// Whether there may be an entry that says other than the slot.
    #[inline]
    fn may_be_elsewhere(&self) -> bool {
        (self.word.feared()
            || self.service.had_entries()
            || self.services.may_have_received()
            || self.settings.receives_entries())
            && self.svc.netns().has_entries()
    }

    /// `-b flag-3`: the flow is to have an entry, whatever its slot.
    fn is_handed_over(&self) -> bool {
        self.flags.hands_over() && !self.needs_none()
    }

    /// The flow ends here, or this is an error about it, or each packet is one: nothing to make an
    /// entry for.
    fn needs_none(&self) -> bool {
        matches!(self.flow.kind, Kind::Abort | Kind::Error) || self.is_one_packet()
    }

    /// Whether the table alone says where the packet goes.
    #[inline]
    fn is_settled(&self) -> bool {
        self.word.stable() && !self.may_be_elsewhere() && !self.is_handed_over()
    }

    /// Sends a packet without an entry.
    fn send(&self, skb: Skb<'_>, server: &Server) -> Verdict {
        self.send_unless(skb, server, |_| false)
    }

    /// The same, unless it begins a flow and the server is refused.
    #[inline(always)]
    fn send_unless(
        &self,
        skb: Skb<'_>,
        server: &Server,
        refused: impl Fn(&Dest) -> bool,
    ) -> Verdict {
        let begins = self.is_new() || self.is_one_packet();
        let (server, way, dest) = match server.express.way(self.rcu) {
            Some((way, dest)) => (server, way, dest),
            None => match no_way(self.service, server, begins, self.rcu) {
                Ok(found) => found,
                Err(verdict) => return verdict,
            },
        };
        if begins && refused(dest) {
            return Verdict::ACCEPT;
        }
        let stats = &self.service.stats;
        stats.forwarded(self.svc, dest, &server.traffic, skb.bytes(), begins);
        if self.flow.kind == Kind::Error {
            stats.count(Count::IcmpErrors);
        }
        let header = IpHeader::without_addrs(&self.flow);
        way.send(skb, header)
    }

    /// By the new table, in which case IPVS decides about a server that is overloaded.
    #[inline(always)]
    fn send_new(&self, skb: Skb<'_>) -> Verdict {
        match self.servers.get(self.word.new()) {
            Some(server) => self.send_unless(skb, server, Dest::is_overloaded),
            None => Verdict::ACCEPT,
        }
    }

    /// Express mode: what the table alone answers goes straight to the server's next hop. All that
    /// may need more than that takes the long way.
    #[inline(always)]
    fn hasten(&self, skb: Skb<'_>) -> Verdict {
        if !self.is_settled() || !may_send(&self.flow.src) {
            return Verdict::ACCEPT;
        }
        let server = self.servers.get(self.word.new());
        let way = server.and_then(|server| Some((server, server.express.next_hop(self.rcu)?)));
        let Some((server, dest)) = way else {
            return Verdict::ACCEPT;
        };
        let begins = self.is_new() || self.is_one_packet();
        if begins && dest.is_overloaded() {
            return Verdict::ACCEPT;
        }
        let v6 = matches!(self.flow.dst, Addr::V6(_));
        let (netns, bytes) = (self.svc.netns(), skb.bytes());
        let sent = self
            .service
            .here()
            .is_some_and(|routes| dest.forward(netns, routes, skb, v6, self.rcu).is_ok());
        if !sent {
            // Perhaps since routes have changed, or it was never looked at.
            self.service.look_whether_here(self.svc, v6);
            return Verdict::ACCEPT;
        }
        let stats = &self.service.stats;
        stats.forwarded(self.svc, dest, &server.traffic, bytes, begins);
        Verdict::STOLEN
    }

    /// What the table alone does not answer.
    #[cold]
    #[inline(never)]
    fn look_up(self, skb: Skb<'_>) -> Verdict {
        if self.is_one_packet() {
            return self.send_new(skb);
        }
        if self.is_handed_over() {
            // Entries remain when this is over.
            self.service.note_entries();
        }
        let by_entry = match Found::of(self.svc, &skb, &self.flow, self.rcu) {
            Some(found) => self.by_entry(skb, found),
            None => Err(skb),
        };
        by_entry.unwrap_or_else(|skb| self.without_entry(skb))
    }

    /// The flow has an entry. The packet comes back if it is not to go by that.
    fn by_entry<'s>(&self, skb: Skb<'s>, found: Found<'_>) -> Result<Verdict, Skb<'s>> {
        let Some(dest) = found.dest() else {
            return Ok(Verdict::ACCEPT);
        };
        if self.word.stable() {
            let server = self.servers.get(self.word.old());
            let own = server.is_some_and(|server| {
                server.express.leads_to(dest) && found.method() == server.express.method()
            });
            if own && !self.is_handed_over() {
                // It says what the slot says: let it expire. Its state is that of a flow which may be
                // over by now; it is not to stand for another, when the slot moves again.
                if self.is_new() {
                    found.expire();
                }
                return Ok(self.send_new(skb));
            }
            if !own {
                self.service.fear(self.slot);
            }
        }
        if !dest.is_available() {
            return self.after_deleted(skb, dest, found);
        }
        // Whether a SYN begins a new flow, where an error goes, and what a backup is told, is for
        // IPVS to say.
        if self.is_new() || self.flow.kind == Kind::Error || self.settings.sends_entries() {
            if self.is_new() && self.svc.is_any_port() && self.is_let_go(dest, &found) {
                found.expire();
                return Ok(self.begin_anew());
            }
            if found.method() == Method::Direct {
                dest.check_route();
            }
            return Ok(Verdict::ACCEPT);
        }
        // The entries of a server share a route, which is made for its method of now: another
        // transmitter would have it ask for the virtual address instead of the server's.
        let now = dest.method();
        let changed = found.method() != now && now.is_stateless();
        let server = changed.then(|| self.servers.at(dest)).flatten();
        let way = server.and_then(|server| server.express.way(self.rcu));
        let sent = found.forward(self.svc, dest, skb, &self.flow, way.map(|(way, _)| way));
        Ok(sent.unwrap_or(Verdict::ACCEPT))
    }

    /// Whether IPVS would end the entry, and schedule what begins here as a new flow.
    fn is_let_go(&self, dest: &Dest, found: &Found<'_>) -> bool {
        found.is_over() || dest.weight() == 0 && self.svc.netns().expires_nodest()
    }

    /// A new flow, whose entry was that of another. For any port IPVS would not schedule it, but
    /// refuse it; the client sends another SYN.
    fn begin_anew(&self) -> Verdict {
        match self.svc.is_any_port() {
            true => Verdict::DROP,
            false => Verdict::ACCEPT,
        }
    }

    /// The entry leads to a deleted server. IPVS would drop the packet.
    fn after_deleted<'s>(
        &self,
        skb: Skb<'s>,
        dest: &Dest,
        found: Found<'_>,
    ) -> Result<Verdict, Skb<'s>> {
        if self.is_new() {
            // The client uses the port again: make room for a new entry. Should IPVS see the old
            // one still and drop the packet, the client sends another.
            found.expire();
            return Ok(self.begin_anew());
        }
        if self.is_udp() {
            // It has nobody to tell that the server is gone, so it is not asked to wait. Nor is it to
            // go back when the server is added again: not by this entry, and not for want of another
            // in a slot that moves. For a moment both are there, as IPVS has it with
            // `expire_nodest_conn`; the newer one is found first.
            found.expire();
            return Err(skb);
        }
        let method = found.method();
        drop(found);
        let server = self.servers.gone(dest, method);
        Ok(match server.or(self.servers.get(self.word.old())) {
            Some(server) => self.send(skb, server),
            None => Verdict::ACCEPT,
        })
    }

    /// The flow has no entry. It gets one if its slot is moving, or if it is to have one.
    fn without_entry(&self, skb: Skb<'_>) -> Verdict {
        if self.word.stable() && !self.is_handed_over() {
            return self.send_new(skb);
        }
        let moving = self.moving();
        let stats = &self.service.stats;
        if moving.heir.is_none() && !self.is_new() {
            stats.count(Count::NoServer);
        }
        let full = self.svc.netns().is_full();
        let Some(server) = self.choose(&moving, full) else {
            // Where the new server was drained or deleted just now the slot is about to get another.
            // IPVS would refuse the packet. The client sends it again.
            let begins = self.is_new() || self.is_udp();
            return match moving.new.is_some_and(|new| begins && !self.is_live(new)) {
                true => Verdict::DROP,
                false => Verdict::ACCEPT,
            };
        };
        if !server.express.method().is_stateless() {
            return Verdict::ACCEPT;
        }
        if full && !self.needs_none() {
            stats.count(Count::Full);
        }
        if full || self.needs_none() || server.is_gone() {
            // IPVS would drop the packets of an entry for a deleted server.
            return self.send(skb, server);
        }
        self.pin(skb, server, &moving)
    }

    /// Who may have a flow of this slot.
    fn moving(&self) -> Moving<'a> {
        let old = self.servers.get(self.word.old());
        let new = self.servers.get(self.word.new());
        let follows = new.filter(|new| new.express.method().is_stateless());
        let given_up = old.is_some_and(|old| old.is_gone() && old.is_abandoned());
        Moving {
            old,
            lives: old.filter(|old| !old.is_gone()),
            heir: follows.filter(|_| given_up).or(old),
            new,
        }
    }

    fn takes_new(&self, server: &Server) -> bool {
        server.express.dest(self.rcu).is_some_and(Dest::takes_new)
    }

    fn is_live(&self, server: &Server) -> bool {
        server.express.dest(self.rcu).is_some_and(Dest::is_live)
    }

    /// The server of a flow that has no entry. None, or one that masquerades: IPVS knows what to do.
    fn choose(&self, moving: &Moving<'a>, full: bool) -> Option<&'a Server> {
        if self.needs_none() {
            return moving.heir;
        }
        if self.is_udp() {
            let lives = moving.heir.filter(|heir| self.is_live(heir));
            if lives.is_none() {
                self.service.stats.count(Count::UdpMoved);
            }
            return lives.or(moving.new.filter(|new| self.takes_new(new)));
        }
        if full {
            return self.choose_in_full_table(moving);
        }
        if !self.is_new() {
            return moving.heir;
        }
        // IPVS drops some of these, if it is asked to. One that is reached in another way now is
        // about to be the slot's no more.
        let takes = |new: &&Server| self.takes_new(new) && !new.is_gone() && !self.drops();
        moving.new.filter(takes)
    }

    /// Without an entry the first packet of a flow must go where the next ones will. That is the old
    /// server, unless it was deleted: it gets nothing new, and so nothing else either, now and later.
    /// Where all that is new needs an entry it keeps what it has.
    fn choose_in_full_table(&self, moving: &Moving<'a>) -> Option<&'a Server> {
        if moving.lives.is_some() {
            return moving.lives;
        }
        let follows = |new: &&Server| self.takes_new(new) && new.express.method().is_stateless();
        let Some(new) = moving.new.filter(follows) else {
            return moving.heir.filter(|_| !self.is_new());
        };
        if let Some(old) = moving.old {
            old.abandon();
        }
        Some(new)
    }

    /// Makes the flow's entry.
    fn pin(&self, skb: Skb<'_>, server: &Server, moving: &Moving<'_>) -> Verdict {
        let stats = &self.service.stats;
        let method = server.express.method();
        let Some(dest) = server.express.dest(self.rcu) else {
            return Verdict::ACCEPT;
        };
        match conn::pin(self.svc, dest, method, skb, &self.flow) {
            Ok(verdict) => {
                let is_old = moving.old.is_some_and(|old| old.express.leads_to(dest));
                stats.count(match is_old && !self.is_new() {
                    true => Count::PinsOld,
                    false => Count::PinsNew,
                });
                verdict
            }
            Err(skb) => {
                stats.count(Count::Full);
                if self.is_udp() {
                    return self.send(skb, server);
                }
                let lives = moving.lives;
                match lives.filter(|server| server.express.method().is_stateless()) {
                    Some(server) => self.send(skb, server),
                    // No reason to give up all that lives on a deleted server: the client sends
                    // another SYN.
                    None => Verdict::DROP,
                }
            }
        }
    }
}

/// There is no way to a server: not without an entry; or not any more, since it is reached in another
/// way now, which is returned; or not yet, for want of memory. IPVS answers what has no entry with a
/// reset. What the client does not see answered it sends again.
#[cold]
#[inline(never)]
fn no_way<'a>(
    service: &'a Service,
    server: &Server,
    begins: bool,
    rcu: Reader<'a>,
) -> Result<(&'a Server, Way<'a>, &'a Dest), Verdict> {
    if begins || !server.express.method().is_stateless() {
        return Err(Verdict::ACCEPT);
    }
    let servers = service.servers(rcu);
    let now = servers.and_then(|servers| servers.instead_of(server));
    let way = now.and_then(|now| Some((now, now.express.way(rcu)?)));
    way.map(|(now, (way, dest))| (now, way, dest))
        .ok_or(Verdict::DROP)
}

/// Takes a router's word that packets in a tunnel are too large. IPVS does so where it finds an
/// entry; without one the way to the server would stay a hole for what a client sends. The next
/// packet that is too large is answered by the transmitter, so that the client learns it, too.
#[cold]
fn learn_mtu(services: &Services, skb: &mut Skb<'_>, rcu: Reader<'_>) {
    let Some(said) = flow::too_large(&*skb) else {
        return;
    };
    let Some(arrival) = Arrival::new(services, skb, said.flow, rcu) else {
        return;
    };
    // Only a way that packets of this flow may have taken.
    let taken = [arrival.word.old(), arrival.word.new()]
        .into_iter()
        .filter_map(|index| arrival.servers.get(index))
        .filter(|server| server.express.method() == Method::Tunnel)
        .filter_map(|server| server.express.dest(rcu))
        .any(|dest| dest.addr() == said.server);
    if taken {
        skb.learn_mtu(arrival.svc.netns(), said.outer, said.mtu);
    }
}

/// Whether a packet may come from an address at all; what is sure not to, routing knows to drop.
#[inline(always)]
fn may_send(addr: &Addr) -> bool {
    match addr {
        Addr::V4([first, ..]) => !matches!(first, 0 | 127 | 224..),
        // Where it is received such packets are dropped already.
        Addr::V6(_) => true,
    }
}

/// Where a packet of a known flow goes.
#[inline(always)]
fn go<'s>(
    services: &Services,
    skb: Skb<'s>,
    flow: Flow,
    rcu: Reader<'_>,
) -> Result<Verdict, Skb<'s>> {
    match Arrival::new(services, &skb, flow, rcu) {
        Some(arrival) if arrival.is_settled() => Ok(arrival.send_new(skb)),
        Some(arrival) => Ok(arrival.look_up(skb)),
        None => Err(skb),
    }
}

/// A packet that is not plain: the same, step by step.
#[cold]
#[inline(never)]
fn go_slowly(services: &Services, skb: Skb<'_>, v6: bool, rcu: Reader<'_>) -> Verdict {
    let rest = match flow::parse(v6, &skb) {
        Some(flow) => go(services, skb, flow, rcu),
        None => Err(skb),
    };
    rest.unwrap_or_else(|mut skb| {
        if !v6 {
            learn_mtu(services, &mut skb, rcu);
        }
        Verdict::ACCEPT
    })
}

impl Doors for Services {
    #[inline(always)]
    fn hasten(&self, skb: Skb<'_>, v6: bool, rcu: Reader<'_>) -> Verdict {
        if !skb.is_candidate() {
            return Verdict::ACCEPT;
        }
        let flow = flow::plain(v6, &skb);
        match flow.and_then(|flow| Arrival::new(self, &skb, flow, rcu)) {
            Some(arrival) => arrival.hasten(skb),
            None => Verdict::ACCEPT,
        }
    }

    #[inline(always)]
    fn arrive(&self, skb: Skb<'_>, v6: bool, rcu: Reader<'_>) -> Verdict {
        if !skb.is_candidate() {
            return Verdict::ACCEPT;
        }
        match flow::plain(v6, &skb) {
            Some(flow) => go(self, skb, flow, rcu).unwrap_or(Verdict::ACCEPT),
            None => go_slowly(self, skb, v6, rcu),
        }
    }
}
