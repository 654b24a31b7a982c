// SPDX-License-Identifier: GPL-2.0

//! The way of a packet.
//!
//! Door one stands before IPVS. A packet whose slot is stable is forwarded there by hash alone:
//! no entry, no allocation, no lock, no write that another CPU would notice but for the slot's
//! mark, a few times in a session timeout. Everything else goes on to IPVS, which forwards what has
//! an entry and asks the scheduler about what begins a flow. Door two stands after IPVS and pins
//! what is left: segments of flows that lived in a slot before it became unstable.

use crate::{
    ipvs::{
        conn::{
            self,
            Found, //
        },
        hook::{
            Doors,
            Verdict, //
        },
        rcu::Reader,
        service::{
            Method,
            Svc, //
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

/// A packet for a service of ours, and what its slot says.
struct Arrival<'a> {
    flow: Flow,
    svc: &'a Svc,
    services: &'a Services,
    service: &'a Service,
    servers: &'a Servers,
    slot: u32,
    word: Word,
    rcu: Reader<'a>,
}

impl<'a> Arrival<'a> {
    /// `None` if the packet is none of our business.
    #[inline]
    fn new(services: &'a Services, skb: &Skb<'_>, v6: bool, rcu: Reader<'a>) -> Option<Self> {
        if !skb.is_candidate() {
            return None;
        }
        Self::of(services, skb, flow::parse(v6, skb)?, rcu)
    }

    /// The same for a packet whose flow is known.
    #[inline]
    fn of(services: &'a Services, skb: &Skb<'_>, flow: Flow, rcu: Reader<'a>) -> Option<Self> {
        // IPVS never balances what comes from here, see `ip_vs_schedule()`.
        if flow.sport == FTP_DATA {
            return None;
        }
        let mark = skb.mark();
        let hit = services.find(&flow, mark, rcu)?;
        let service = hit.service;
        let svc = service.link.get(rcu)?;
        let netns = svc.netns();
        if svc.is_persistent()
            || netns.settings().stateful()
            || services.is_outranked(hit, netns, &flow, mark, rcu)
        {
            return None;
        }
        let slot = service.slot(svc, &flow.src, flow.sport);
        // The word comes first: whom it names was published before it was written.
        let word = slots::load(&service.words, slot)?;
        Some(Self {
            flow,
            svc,
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

    /// `-o`: never an entry, always the new table.
    fn is_one_packet(&self) -> bool {
        self.flow.proto == Proto::Udp && self.svc.is_one_packet()
    }

    fn find(&self, skb: &Skb<'_>) -> Option<Found<'a>> {
        Found::of(self.svc, skb, &self.flow, self.rcu)
    }

    /// Forwards without an entry.
    #[inline]
    fn send(&self, skb: Skb<'_>, server: &Server) -> Verdict {
        if !server.express.is_open() {
            return Verdict::ACCEPT;
        }
        let Some(dest) = server.express.dest(self.rcu) else {
            return Verdict::ACCEPT;
        };
        let new = self.is_new() || self.is_one_packet();
        let stats = &self.service.stats;
        stats.forwarded(self.svc, dest, &server.traffic, skb.bytes(), new);
        if self.flow.kind == Kind::Error {
            stats.count(Count::IcmpErrors);
        }
        let header = IpHeader::new(&skb, &self.flow);
        server
            .express
            .send(skb, header, self.rcu)
            .unwrap_or(Verdict::ACCEPT)
    }

    /// The server of a packet that has no entry.
    fn home(&self) -> Option<&'a Server> {
        let new = self.servers.get(self.word.new());
        if self.is_new() || self.is_one_packet() {
            return new;
        }
        let old = self.servers.get(self.word.old());
        let live = |old: &&Server| {
            let dest = old.express.dest(self.rcu);
            self.flow.proto != Proto::Udp || dest.is_some_and(|dest| dest.is_live())
        };
        let home = old.filter(live);
        if home.is_none() && old.is_some() && !self.word.stable() {
            self.service.stats.count(Count::UdpMoved);
        }
        home.or(new)
    }

    /// Forwards by the table without an entry, in whatever state the slot is.
    fn send_by_slot(&self, skb: Skb<'_>) -> Verdict {
        match self.home() {
            Some(server) => self.send(skb, server),
            None => Verdict::ACCEPT,
        }
    }

    /// A packet whose entry leads to a deleted server. IPVS would drop it.
    fn after_deleted(&self, skb: Skb<'_>, found: Found<'_>) -> Verdict {
        if self.is_new() {
            // The client uses the port again: make room for a new entry. Should IPVS see the old
            // one still and drop the packet, the client sends another.
            found.expire();
            return Verdict::ACCEPT;
        }
        let gone = found.dest().and_then(|dest| self.servers.gone(dest));
        drop(found);
        match gone {
            // UDP has nobody to tell that the server is gone, so it is not asked to wait.
            Some(server) if self.flow.proto != Proto::Udp => self.send(skb, server),
            _ => self.send_by_slot(skb),
        }
    }

    /// Door one, where both tables agree.
    #[inline]
    fn stable(&self, skb: Skb<'_>) -> Verdict {
        let Some(server) = self.servers.get(self.word.old()) else {
            return Verdict::ACCEPT;
        };
        let netns = self.svc.netns();
        if (self.word.feared() || self.services.may_have_received(netns)) && netns.has_entries() {
            if let Some(found) = self.find(&skb) {
                let Some(dest) = found.dest() else {
                    return Verdict::ACCEPT;
                };
                let own =
                    server.express.leads_to(dest) && found.method() == server.express.method();
                if !own {
                    self.service.fear(self.slot);
                    if !dest.is_available() {
                        return self.after_deleted(skb, found);
                    }
                    return Verdict::ACCEPT;
                }
                // A pin to the slot's own server says what the slot says: let it expire.
            }
        }
        if self.is_new() || self.is_one_packet() {
            let dest = server.express.dest(self.rcu);
            if dest.is_none_or(|dest| dest.is_overloaded()) {
                return Verdict::ACCEPT;
            }
        }
        if self.is_handed_over() {
            return Verdict::ACCEPT;
        }
        self.send(skb, server)
    }

    /// `-b flag-3`: IPVS or door two is to make an entry of this flow. Where there is no room for
    /// one, the packet is sent without, and counts as such.
    fn is_handed_over(&self) -> bool {
        if !self.svc.hands_over() || self.needs_none() || self.is_one_packet() {
            return false;
        }
        let full = self.svc.netns().is_full();
        if full {
            self.service.stats.count(Count::Full);
        }
        !full
    }

    /// The flow ends here, or this is an error about it: nothing to make an entry for.
    fn needs_none(&self) -> bool {
        matches!(self.flow.kind, Kind::Abort | Kind::Error)
    }

    /// Door one, where they differ.
    fn unstable(&self, skb: Skb<'_>) -> Verdict {
        if self.is_one_packet() {
            return self.send_by_slot(skb);
        }
        let netns = self.svc.netns();
        let full = netns.is_full();
        // IPVS would leave an error without an entry to the host itself.
        let error = self.flow.kind == Kind::Error;
        if !full && !error && !self.service.is_wary() {
            return Verdict::ACCEPT;
        }
        match self.find(&skb) {
            Some(found) => match found.dest() {
                Some(dest) if !dest.is_available() => self.after_deleted(skb, found),
                _ => Verdict::ACCEPT,
            },
            // No entry, and no room for another, or no need.
            None if full || error => {
                if full && !self.needs_none() {
                    self.service.stats.count(Count::Full);
                }
                self.send_by_slot(skb)
            }
            None => Verdict::ACCEPT,
        }
    }

    /// Door two: IPVS has no entry and does not want one.
    fn left_over(&self, skb: Skb<'_>) -> Verdict {
        // What begins a flow, and all of UDP, IPVS has scheduled, or refused.
        let udp = self.flow.proto == Proto::Udp && self.flow.kind != Kind::Error;
        if self.is_new() || udp {
            return Verdict::ACCEPT;
        }
        let Some(old) = self.servers.get(self.word.old()) else {
            self.service.stats.count(Count::NoServer);
            return Verdict::ACCEPT;
        };
        if !old.express.method().is_stateless() {
            return Verdict::ACCEPT;
        }
        let Some(dest) = old.express.dest(self.rcu) else {
            return Verdict::ACCEPT;
        };
        let settled = self.word.stable() && !self.is_handed_over();
        if settled || self.needs_none() || old.is_gone() {
            // Merged just now; or the flow ends here and needs no entry; or IPVS would drop the
            // packets of an entry for a deleted server.
            return self.send(skb, old);
        }
        match conn::pin(self.svc, dest, skb, &self.flow) {
            Ok(verdict) => {
                self.service.stats.count(Count::PinsOld);
                verdict
            }
            Err(skb) => {
                self.service.stats.count(Count::Full);
                self.send(skb, old)
            }
        }
    }
}

/// Takes a router's word that packets in a tunnel are too large. IPVS does so where it finds an
/// entry; without one the way to the server would stay a hole for what a client sends. The next
/// packet that is too large is answered by the transmitter, so that the client learns it, too.
fn learn_mtu(services: &Services, skb: &Skb<'_>, rcu: Reader<'_>) {
    let Some(said) = flow::too_large(skb).filter(|_| skb.is_candidate()) else {
        return;
    };
    let Some(arrival) = Arrival::of(services, skb, said.flow, rcu) else {
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

impl Doors for Services {
    #[inline]
    fn before(&self, skb: Skb<'_>, v6: bool, rcu: Reader<'_>) -> Verdict {
        match Arrival::new(self, &skb, v6, rcu) {
            Some(arrival) if arrival.word.stable() => arrival.stable(skb),
            Some(arrival) => arrival.unstable(skb),
            None => {
                if !v6 {
                    learn_mtu(self, &skb, rcu);
                }
                Verdict::ACCEPT
            }
        }
    }

    fn after(&self, skb: Skb<'_>, v6: bool, rcu: Reader<'_>) -> Verdict {
        match Arrival::new(self, &skb, v6, rcu) {
            Some(arrival) => arrival.left_over(skb),
            None => Verdict::ACCEPT,
        }
    }
}
