// SPDX-License-Identifier: GPL-2.0

//! The scheduler `mhs` as IPVS sees it.

use crate::{
    ipvs::{
        rcu::{
            RcuArc,
            Reader, //
        },
        scheduler::{
            Change,
            Scheduler, //
        },
        service::{
            Dest,
            Locked,
            Svc,
            SvcLink, //
        },
        skb::{
            Scheduled,
            Skb, //
        },
    },
    netlink::Family,
    pure::{
        flow::Proto,
        slots, //
    },
    registry::{
        Key,
        Registry, //
    },
    service::Service,
    stats::Count,
};
use kernel::{
    prelude::*,
    sync::ArcBorrow, //
};

/// The control port of FTP. Its data connections belong to entries of the control connection, so
/// all of it goes through IPVS.
const FTP: u16 = 21;

pub(crate) struct Mhs;

impl Mhs {
    /// Whether a service has packets that are balanced. There is no other way to name one but by its
    /// protocol or by a firewall mark, and IPVS takes any number for the protocol.
    fn is_balanced(svc: &Svc) -> bool {
        const TRANSPORTS: [u16; 3] = [Proto::Tcp as u16, Proto::Udp as u16, Proto::Sctp as u16];
        svc.fwmark() != 0 || TRANSPORTS.contains(&svc.protocol())
    }

    /// Whether packets of a service may be forwarded without an entry at all. The rest is up to the
    /// flags of the service, the settings of the namespace and the server.
    fn is_stateless(svc: &Svc) -> bool {
        svc.protocol() != Proto::Tcp as u16 || svc.port() != FTP
    }

    /// Shows a service to packets once it has a server. Before that there is nothing to forward,
    /// and IPVS may still decide not to have the service, and free it at once.
    fn show(registry: &Registry, svc: &Svc, service: &RcuArc<Service>) -> Result {
        if Self::is_stateless(svc) && !service.is_shown() {
            registry.add(svc.netns(), Key::of(svc), service.clone())?;
            service.set_shown();
            if svc.netns().has_entries() {
                // Of flows that were scheduled before, if there was no memory for this earlier.
                service.note_entries();
            }
        }
        Ok(())
    }
}

impl Scheduler for Mhs {
    type Context = Family;
    type Service = Service;

    fn init(
        family: ArcBorrow<'_, Family>,
        svc: Locked<'_>,
        link: SvcLink,
    ) -> Result<RcuArc<Service>> {
        if !Self::is_balanced(&svc) {
            pr_warn!(
                "protocol {}: must be TCP, UDP or SCTP, or the service by a firewall mark\n",
                svc.protocol()
            );
            return Err(EPROTONOSUPPORT);
        }
        let registry = family.context();
        let service = Service::new(svc, link, registry.config, family.into())?;
        let mut result = registry.catalog.add(svc.netns(), service.clone());
        if result.is_ok() && svc.dests().next().is_some() {
            service.adopt(svc);
            result = Self::show(registry, &svc, &service);
        }
        if let Err(error) = result {
            registry.catalog.remove(svc.netns(), &service);
            service.close();
            return Err(error);
        }
        Ok(service)
    }

    fn link(service: &Service) -> &SvcLink {
        &service.link
    }

    fn done(family: ArcBorrow<'_, Family>, svc: Locked<'_>, service: &RcuArc<Service>) {
        let registry = family.context();
        registry.catalog.remove(svc.netns(), service);
        if service.is_shown() {
            registry.remove(svc.netns(), service);
        }
        service.close();
    }

    fn changed(
        family: ArcBorrow<'_, Family>,
        svc: Locked<'_>,
        service: &RcuArc<Service>,
        dest: &Dest,
        change: Change,
    ) {
        match change {
            Change::Added | Change::Updated => service.set(svc, dest),
            Change::Deleted => service.delete(svc, dest),
        }
        if Self::show(family.context(), &svc, service).is_err() {
            pr_warn!("no memory: a service stays stateful until its next change\n");
        }
    }

    fn schedule<'a>(
        service: &'a Service,
        svc: &'a Svc,
        skb: &Skb<'_>,
        header: Scheduled<'_>,
        rcu: Reader<'a>,
    ) -> Option<&'a Dest> {
        let flags = svc.flags();
        let (client, port) = header.client(svc.is_v6(), skb);
        let slot = service.slot(flags.hashes_port(), &client, port);
        let word = slots::load(&service.words, slot)?;
        let Some(servers) = service.servers(rcu) else {
            service.stats.count(Count::NoServer);
            return None;
        };

        // What is left of flows that lived without an entry belongs to the old server: UDP, which
        // has no beginning; TCP and SCTP with `sloppy_tcp` or `sloppy_sctp`; what an ICMP error is
        // about with `schedule_icmp`. Where every flow has an entry this one is new.
        let stateless = !flags.is_persistent() && !svc.netns().settings().stateful();
        if stateless && !begins(svc, &header, skb) {
            let old = servers
                .get(word.old())
                .filter(|server| server.express.method().is_stateless() && !server.is_gone())
                .and_then(|server| server.express.dest(rcu));
            let udp = header.protocol() == Proto::Udp as i16;
            if old.is_some_and(|old| match udp {
                true => old.is_live(),
                false => old.is_available(),
            }) {
                service.stats.count(Count::PinsOld);
                return old;
            }
            if udp && !word.stable() {
                service.stats.count(Count::UdpMoved);
            }
        }

        let own = servers
            .get(word.new())
            .and_then(|server| server.express.dest(rcu));
        if let Some(own) = own.filter(|own| own.takes_new()) {
            service.stats.count(Count::PinsNew);
            return Some(own);
        }
        if flags.falls_back() {
            let usable = |index| {
                let dest = servers.get(index)?.express.dest(rcu)?;
                dest.takes_new().then_some(dest)
            };
            let other = service.fall_back(word, &client, port, servers, usable);
            if other.is_some() {
                // The entry that is about to be made leads away from the slot's own server.
                service.fear(slot);
                service.stats.count(Count::PinsNew);
                return other;
            }
        }
        service.stats.count(Count::NoServer);
        svc.log_refusal(c"no destination available");
        None
    }
}

/// Whether a packet begins a flow.
fn begins(svc: &Svc, header: &Scheduled<'_>, skb: &Skb<'_>) -> bool {
    const TCP: i16 = Proto::Tcp as i16;
    const UDP: i16 = Proto::Udp as i16;
    const SCTP: i16 = Proto::Sctp as i16;
    if header.in_icmp() {
        return false;
    }
    match header.protocol() {
        TCP => header
            .transport(skb)
            .is_some_and(|head: [u8; 14]| head[13] & 2 != 0),
        SCTP => header
            .transport(skb)
            .is_some_and(|head: [u8; 13]| head[12] == 1),
        UDP => svc.flags().is_one_packet(),
        _ => true,
    }
}
