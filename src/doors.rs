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
    registry::{
        Key,
        Services, //
    },
    service::{
        Server,
        Servers,
        Service, //
    },
};

/// A packet for a service of ours, and what its slot says.
struct Arrival<'a> {
    flow: Flow,
    svc: &'a Svc,
    service: &'a Service,
    servers: &'a Servers,
    slot: u32,
    word: Word,
    rcu: Reader<'a>,
}

impl<'a> Arrival<'a> {
    /// `None` if the packet is none of our business.
    #[inline]
    fn new(services: &Services, skb: &Skb<'_>, v6: bool, rcu: Reader<'a>) -> Option<Self> {
        if !skb.is_candidate() {
            return None;
        }
        let flow = flow::parse(v6, skb).filter(|flow| flow.proto == Proto::Tcp)?;
        let key = Key {
            addr: flow.dst,
            port: flow.dport,
        };
        let service = services.find(&key, rcu)?;
        let svc = service.link.get(rcu)?;
        if svc.is_persistent() || svc.netns().settings().stateful() {
            return None;
        }
        let slot = service.slot(svc, &flow.src, flow.sport);
        // The word comes first: whom it names was published before it was written.
        let word = slots::load(&service.words, slot)?;
        Some(Self {
            flow,
            svc,
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

    /// Forwards without an entry.
    #[inline]
    fn send(&self, skb: Skb<'_>, server: &Server) -> Verdict {
        if !server.express.is_open() {
            return Verdict::ACCEPT;
        }
        let Some(dest) = server.express.dest(self.rcu) else {
            return Verdict::ACCEPT;
        };
        dest.count(self.svc, skb.bytes(), self.is_new());
        let header = IpHeader::new(&skb, &self.flow);
        server
            .express
            .send(skb, header, self.rcu)
            .unwrap_or(Verdict::ACCEPT)
    }

    /// Forwards by the table without an entry, in whatever state the slot is.
    fn send_by_slot(&self, skb: Skb<'_>) -> Verdict {
        let new = self.servers.get(self.word.new());
        let old = self.servers.get(self.word.old());
        match if self.is_new() { new } else { old.or(new) } {
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
            Some(server) => self.send(skb, server),
            None => self.send_by_slot(skb),
        }
    }

    /// Door one, where both tables agree.
    #[inline]
    fn stable(&self, skb: Skb<'_>) -> Verdict {
        let Some(server) = self.servers.get(self.word.old()) else {
            return Verdict::ACCEPT;
        };
        let netns = self.svc.netns();
        if (self.word.feared() || netns.settings().receives_entries()) && netns.has_entries() {
            if let Some(found) = Found::of(self.svc, &skb, &self.flow, self.rcu) {
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
        if self.is_new() {
            let dest = server.express.dest(self.rcu);
            if dest.is_none_or(|dest| dest.is_overloaded()) {
                return Verdict::ACCEPT;
            }
        }
        self.send(skb, server)
    }

    /// Door one, where they differ.
    fn unstable(&self, skb: Skb<'_>) -> Verdict {
        let full = self.svc.netns().is_full();
        if !full && !self.service.is_wary() {
            return Verdict::ACCEPT;
        }
        match Found::of(self.svc, &skb, &self.flow, self.rcu) {
            Some(found) => match found.dest() {
                Some(dest) if !dest.is_available() => self.after_deleted(skb, found),
                _ => Verdict::ACCEPT,
            },
            // No room for another entry: the best that can be done.
            None if full => self.send_by_slot(skb),
            None => Verdict::ACCEPT,
        }
    }

    /// Door two: IPVS has no entry and does not want one.
    fn left_over(&self, skb: Skb<'_>) -> Verdict {
        let Some(old) = self.servers.get(self.word.old()) else {
            return Verdict::ACCEPT;
        };
        if self.is_new() || old.express.method() != Method::Direct {
            return Verdict::ACCEPT;
        }
        let Some(dest) = old.express.dest(self.rcu) else {
            return Verdict::ACCEPT;
        };
        if self.word.stable() || self.flow.kind == Kind::Abort || old.is_gone() {
            // Merged just now; or the flow ends here and needs no entry; or IPVS would drop the
            // packets of an entry for a deleted server.
            return self.send(skb, old);
        }
        match conn::pin(self.svc, dest, skb, &self.flow) {
            Ok(verdict) => verdict,
            Err(skb) => self.send(skb, old),
        }
    }
}

impl Doors for Services {
    #[inline]
    fn before(&self, skb: Skb<'_>, v6: bool, rcu: Reader<'_>) -> Verdict {
        match Arrival::new(self, &skb, v6, rcu) {
            Some(arrival) if arrival.word.stable() => arrival.stable(skb),
            Some(arrival) => arrival.unstable(skb),
            None => Verdict::ACCEPT,
        }
    }

    fn after(&self, skb: Skb<'_>, v6: bool, rcu: Reader<'_>) -> Verdict {
        match Arrival::new(self, &skb, v6, rcu) {
            Some(arrival) => arrival.left_over(skb),
            None => Verdict::ACCEPT,
        }
    }
}
