// SPDX-License-Identifier: GPL-2.0

//! The netlink family `IPVS_MHS`: what can be asked, and what is answered.
//!
//! `Documentation/netlink/specs/ip_vs_mhs.yaml` is the family. What names here begin with
//! `IPVS_MHS_`, the policies that requests are checked against, and the table of operations are made
//! from it.

use crate::{
    catalog::Id,
    ipvs::{
        bindings as uapi,
        counters,
        genl::{
            self,
            Attr,
            Batch,
            Do,
            Dump,
            Message,
            Request, //
        },
        netns::Netns,
        rcu::RcuArc,
        service::Method,
        time, //
    },
    pure::hash::Addr,
    registry::{
        Key,
        Registry, //
    },
    service::{
        view::{
            Chunk,
            Look,
            Row,
            ROWS, //
        },
        Service, //
    },
    stats::{
        Count,
        Counts, //
    },
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

/// The family, with the services that it tells of.
pub(crate) type Family = genl::Family<Registry>;

/// While it is there, user space can ask.
pub(crate) type Registration = genl::Registration<Registry>;

/// The family that tells of a registry. Nobody can ask yet, nor are events sent.
pub(crate) fn family(
    module: &'static ThisModule,
    registry: impl PinInit<Registry>,
) -> Result<Arc<Family>> {
    Family::new(
        module,
        c"IPVS_MHS",
        uapi::IPVS_MHS_FAMILY_VERSION,
        c"events",
        registry,
    )
}

genl::operations! {
    Registry:
    do ipvs_mhs_nl_get_service_doit => OneService;
    do ipvs_mhs_nl_get_netns_doit => GetNetns;
    do ipvs_mhs_nl_set_netns_doit => SetNetns;
    dump ipvs_mhs_nl_get_service_start
        ipvs_mhs_nl_get_service_dumpit
        ipvs_mhs_nl_get_service_done => AllServices;
    dump ipvs_mhs_nl_get_dest_start
        ipvs_mhs_nl_get_dest_dumpit
        ipvs_mhs_nl_get_dest_done => Dests;
    dump ipvs_mhs_nl_get_slots_start
        ipvs_mhs_nl_get_slots_dumpit
        ipvs_mhs_nl_get_slots_done => Slots;
    dump ipvs_mhs_nl_get_counters_start
        ipvs_mhs_nl_get_counters_dumpit
        ipvs_mhs_nl_get_counters_done => CountersByCpu;
}

fn family_number(v6: bool) -> u16 {
    if v6 {
        uapi::ipvs_mhs_family_IPVS_MHS_FAMILY_INET6 as u16
    } else {
        uapi::ipvs_mhs_family_IPVS_MHS_FAMILY_INET as u16
    }
}

fn put_addr(message: &mut Message<'_>, attr: u32, addr: &Addr) -> Result {
    match addr {
        Addr::V4(bytes) => message.bytes(attr, bytes),
        Addr::V6(bytes) => message.bytes(attr, bytes),
    }
}

/// Puts in what a service is called.
pub(crate) fn put_key(message: &mut Message<'_>, attr: u32, key: &Key) -> Result {
    message.nest(attr, |message| match key {
        Key::Addr { addr, proto, port } => {
            let v6 = matches!(addr, Addr::V6(_));
            message.u16(uapi::IPVS_MHS_KEY_A_FAMILY, family_number(v6))?;
            message.u16(uapi::IPVS_MHS_KEY_A_PROTOCOL, *proto)?;
            put_addr(message, uapi::IPVS_MHS_KEY_A_ADDRESS, addr)?;
            message.be16(uapi::IPVS_MHS_KEY_A_PORT, *port)
        }
        Key::Mark { mark, v6 } => {
            message.u16(uapi::IPVS_MHS_KEY_A_FAMILY, family_number(*v6))?;
            message.u32(uapi::IPVS_MHS_KEY_A_FWMARK, *mark)
        }
    })
}

/// Puts in what a server is, and the ticks that are left.
pub(crate) fn put_server(
    message: &mut Message<'_>,
    addr: &Addr,
    port: u16,
    look: Look,
    left: Option<u64>,
) -> Result {
    let v6 = matches!(addr, Addr::V6(_));
    message.u16(uapi::IPVS_MHS_DEST_A_FAMILY, family_number(v6))?;
    put_addr(message, uapi::IPVS_MHS_DEST_A_ADDRESS, addr)?;
    message.be16(uapi::IPVS_MHS_DEST_A_PORT, port)?;
    message.u32(uapi::IPVS_MHS_DEST_A_WEIGHT, look.weight)?;
    let method = match look.method {
        Method::Direct => Some(uapi::ipvs_mhs_method_IPVS_MHS_METHOD_DIRECT),
        Method::Tunnel => Some(uapi::ipvs_mhs_method_IPVS_MHS_METHOD_TUNNEL),
        Method::Masquerade => Some(uapi::ipvs_mhs_method_IPVS_MHS_METHOD_MASQ),
        Method::Other => None,
    };
    if let Some(method) = method {
        message.u32(uapi::IPVS_MHS_DEST_A_METHOD, method)?;
    }
    message.u32(uapi::IPVS_MHS_DEST_A_STATE, look.state as u32)?;
    if let Some(left) = left {
        message.uint(uapi::IPVS_MHS_DEST_A_TIME_LEFT, time::milliseconds(left))?;
    }
    Ok(())
}

fn put_counts(message: &mut Message<'_>, attr: u32, counts: &Counts) -> Result {
    message.nest(attr, |message| {
        message.uint(uapi::IPVS_MHS_COUNTER_A_CONNS, counts.conns)?;
        for (attr, what) in [
            (uapi::IPVS_MHS_COUNTER_A_PACKETS, Count::Packets),
            (uapi::IPVS_MHS_COUNTER_A_BYTES, Count::Bytes),
            (uapi::IPVS_MHS_COUNTER_A_PINS_NEW, Count::PinsNew),
            (uapi::IPVS_MHS_COUNTER_A_PINS_OLD, Count::PinsOld),
            (uapi::IPVS_MHS_COUNTER_A_ICMP_ERRORS, Count::IcmpErrors),
            (uapi::IPVS_MHS_COUNTER_A_FULL, Count::Full),
            (uapi::IPVS_MHS_COUNTER_A_NO_SERVER, Count::NoServer),
            (uapi::IPVS_MHS_COUNTER_A_UDP_MOVED, Count::UdpMoved),
            (uapi::IPVS_MHS_COUNTER_A_REMAPS, Count::Remaps),
            (uapi::IPVS_MHS_COUNTER_A_MERGES, Count::Merges),
            (uapi::IPVS_MHS_COUNTER_A_SLOTS_MERGED, Count::SlotsMerged),
            (
                uapi::IPVS_MHS_COUNTER_A_REBUILD_FAILURES,
                Count::RebuildFailures,
            ),
        ] {
            message.uint(attr, counts.get(what))?;
        }
        Ok(())
    })
}

/// The hash key is the machine's, so `root` alone is told.
fn put_service(
    message: &mut Message<'_>,
    registry: &Registry,
    netns: &Netns,
    service: &Service,
    root: bool,
) -> Result {
    let (summary, counts) = service.summary(netns, |svc| service.stats.sum(svc));
    put_key(
        message,
        uapi::IPVS_MHS_SERVICE_A_SERVICE,
        service.identity(),
    )?;
    message.string(uapi::IPVS_MHS_SERVICE_A_SCHEDULER, registry.scheduler)?;
    message.flag(uapi::IPVS_MHS_SERVICE_A_STATELESS, summary.stateless)?;
    message.u32(uapi::IPVS_MHS_SERVICE_A_GENERATION, summary.generation)?;
    message.u32(uapi::IPVS_MHS_SERVICE_A_TABLE_SIZE, summary.size)?;
    message.u32(uapi::IPVS_MHS_SERVICE_A_BALANCE, service.balance())?;
    if root {
        message.bytes(uapi::IPVS_MHS_SERVICE_A_HASH_KEY, &service.key.to_bytes())?;
    }
    message.u32(uapi::IPVS_MHS_SERVICE_A_SERVERS, summary.servers)?;
    message.u32(
        uapi::IPVS_MHS_SERVICE_A_STABLE,
        summary.size.saturating_sub(summary.unstable),
    )?;
    message.u32(uapi::IPVS_MHS_SERVICE_A_UNSTABLE, summary.unstable)?;
    if let Some(next) = summary.next_merge {
        message.uint(
            uapi::IPVS_MHS_SERVICE_A_NEXT_MERGE,
            time::milliseconds(next),
        )?;
    }
    message.uint(
        uapi::IPVS_MHS_SERVICE_A_SESSION_TIMEOUT,
        time::milliseconds(summary.session),
    )?;
    put_counts(message, uapi::IPVS_MHS_SERVICE_A_COUNTERS, &counts)
}

/// Which service a request names in `nest`.
fn key(request: &Request<'_>, nest: Attr<'_>) -> Result<Key> {
    let need = |attr| {
        let found = nest.find(attr);
        found.ok_or_else(|| request.missing(Some(nest), attr))
    };
    // Whoever sends a number of another size was found out by the policy.
    let bad = |attr| request.fail(EINVAL, Some(attr), c"not a number");

    let family = need(uapi::IPVS_MHS_KEY_A_FAMILY)?;
    let v6 = family.u16().ok_or_else(|| bad(family))? == family_number(true);
    let others = [
        uapi::IPVS_MHS_KEY_A_ADDRESS,
        uapi::IPVS_MHS_KEY_A_PROTOCOL,
        uapi::IPVS_MHS_KEY_A_PORT,
    ];
    if let Some(mark) = nest.find(uapi::IPVS_MHS_KEY_A_FWMARK) {
        if let Some(other) = others.into_iter().find_map(|attr| nest.find(attr)) {
            let why = c"a service by fwmark has no address, protocol or port";
            return Err(request.fail(EINVAL, Some(other), why));
        }
        return Ok(Key::Mark {
            mark: mark.u32().ok_or_else(|| bad(mark))?,
            v6,
        });
    }
    let [address, protocol, port] = others.map(need);
    let (address, protocol, port) = (address?, protocol?, port?);
    let addr = match address.bytes() {
        &[a, b, c, d] if !v6 => Addr::V4([a, b, c, d]),
        bytes if v6 => <[u8; 16]>::try_from(bytes).map(Addr::V6).map_err(|_| {
            request.fail(
                EINVAL,
                Some(address),
                c"an address of family inet6 has 16 bytes",
            )
        })?,
        _ => {
            let why = c"an address of family inet has 4 bytes";
            return Err(request.fail(EINVAL, Some(address), why));
        }
    };
    Ok(Key::Addr {
        addr,
        proto: protocol.u16().ok_or_else(|| bad(protocol))?,
        port: port.be16().ok_or_else(|| bad(port))?,
    })
}

/// The service that a request must name in `attr`.
fn find(family: &Family, request: &Request<'_>, attr: u32) -> Result<(Id, RcuArc<Service>)> {
    let nest = request.attr(attr);
    let nest = nest.ok_or_else(|| request.missing(None, attr))?;
    let key = key(request, nest)?;
    let found = family.context().catalog.find(request.netns()?, &key);
    found.ok_or_else(|| {
        let why = c"no service of this name has the scheduler";
        request.fail(ENOENT, Some(nest), why)
    })
}

/// The service that a dump is about, as long as it is there.
fn again(family: &Family, request: &Request<'_>, id: Id) -> Result<RcuArc<Service>> {
    let found = family.context().catalog.get(request.netns()?, id);
    found.ok_or_else(|| request.fail(ENOENT, None, c"the service went away"))
}

/// One service.
struct OneService;

impl Do for OneService {
    type Context = Registry;

    fn answer(family: &Family, request: Request<'_>, message: &mut Message<'_>) -> Result {
        let (_, service) = find(family, &request, uapi::IPVS_MHS_SERVICE_A_SERVICE)?;
        let (registry, netns) = (family.context(), request.netns()?);
        put_service(message, registry, netns, &service, request.is_root())
    }
}

/// Puts in what holds for a namespace.
fn put_netns(message: &mut Message<'_>, registry: &Registry, netns: &Netns) -> Result {
    let express = u8::from(registry.is_express(netns));
    message.bytes(uapi::IPVS_MHS_NETNS_A_EXPRESS, &[express])
}

/// What holds for a namespace.
struct GetNetns;

impl Do for GetNetns {
    type Context = Registry;

    fn answer(family: &Family, request: Request<'_>, message: &mut Message<'_>) -> Result {
        put_netns(message, family.context(), request.netns()?)
    }
}

/// Changes what holds for a namespace, and says what does then.
struct SetNetns;

impl Do for SetNetns {
    type Context = Registry;

    fn answer(family: &Family, request: Request<'_>, message: &mut Message<'_>) -> Result {
        let (registry, netns) = (family.context(), request.netns()?);
        if let Some(express) = request.attr(uapi::IPVS_MHS_NETNS_A_EXPRESS) {
            // Whoever sends another number was found out by the policy.
            let on = express.bytes().first().is_some_and(|&on| on != 0);
            registry.set_express(netns, on)?;
        }
        put_netns(message, registry, netns)
    }
}

/// All services.
struct AllServices {
    after: Id,
    /// Whether who began to ask was root; who reads on may be another.
    root: bool,
}

impl Dump for AllServices {
    type Context = Registry;

    fn start(_family: &Family, request: Request<'_>) -> Result<Self> {
        Ok(Self {
            after: Id::NONE,
            root: request.is_root(),
        })
    }

    fn go_on(&mut self, family: &Family, batch: &mut Batch<'_>) -> Result {
        let (netns, registry) = (batch.request.netns()?, family.context());
        loop {
            let (generation, next) = registry.catalog.next(netns, self.after);
            batch.at(generation);
            let Some((id, service)) = next else {
                return Ok(());
            };
            batch.message(generation, |message| {
                put_service(message, registry, netns, &service, self.root)
            })?;
            self.after = id;
        }
    }
}

/// The servers of a service.
struct Dests {
    id: Id,
    /// Where to look next.
    from: Option<usize>,
    /// What was found there, and of which generation it is.
    rows: KVec<Row>,
    generation: u32,
    /// How many of those are sent.
    sent: usize,
}

impl Dump for Dests {
    type Context = Registry;

    fn start(family: &Family, request: Request<'_>) -> Result<Self> {
        let (id, _) = find(family, &request, uapi::IPVS_MHS_DEST_A_SERVICE)?;
        Ok(Self {
            id,
            from: Some(0),
            rows: KVec::with_capacity(ROWS, GFP_KERNEL)?,
            generation: 0,
            sent: 0,
        })
    }

    fn go_on(&mut self, family: &Family, batch: &mut Batch<'_>) -> Result {
        loop {
            while let Some(row) = self.rows.get(self.sent) {
                batch.message(self.generation, |message| {
                    message.u32(uapi::IPVS_MHS_DEST_A_GENERATION, self.generation)?;
                    message.u16(uapi::IPVS_MHS_DEST_A_INDEX, row.index)?;
                    put_server(message, &row.addr, row.port, row.look, row.left)?;
                    message.u32(uapi::IPVS_MHS_DEST_A_OLD_SLOTS, row.old_slots)?;
                    message.u32(uapi::IPVS_MHS_DEST_A_NEW_SLOTS, row.new_slots)?;
                    let (packets, bytes) = row.traffic.sum();
                    message.uint(uapi::IPVS_MHS_DEST_A_PACKETS, packets)?;
                    message.uint(uapi::IPVS_MHS_DEST_A_BYTES, bytes)
                })?;
                self.sent += 1;
            }
            let Some(from) = self.from else {
                return Ok(());
            };
            let service = again(family, &batch.request, self.id)?;
            (self.generation, self.from) = service.rows(from, &mut self.rows)?;
            self.sent = 0;
            batch.at(self.generation);
        }
    }
}

/// The slots of a service.
struct Slots {
    id: Id,
    unstable_only: bool,
    /// Where to look next.
    from: Option<u32>,
    /// What was found there and is not sent, and of which generation it is.
    chunk: Chunk,
    generation: u32,
}

impl Dump for Slots {
    type Context = Registry;

    fn start(family: &Family, request: Request<'_>) -> Result<Self> {
        let (id, _) = find(family, &request, uapi::IPVS_MHS_SLOTS_A_SERVICE)?;
        let unstable_only = request.attr(uapi::IPVS_MHS_SLOTS_A_UNSTABLE_ONLY);
        Ok(Self {
            id,
            unstable_only: unstable_only.is_some(),
            from: Some(0),
            chunk: Chunk::new()?,
            generation: 0,
        })
    }

    fn go_on(&mut self, family: &Family, batch: &mut Batch<'_>) -> Result {
        loop {
            if !self.chunk.is_empty() {
                batch.message(self.generation, |message| {
                    let chunk = &self.chunk;
                    message.u32(uapi::IPVS_MHS_SLOTS_A_GENERATION, self.generation)?;
                    message.array(uapi::IPVS_MHS_SLOTS_A_SLOT, &chunk.slot)?;
                    message.array(uapi::IPVS_MHS_SLOTS_A_OLD, &chunk.old)?;
                    message.array(uapi::IPVS_MHS_SLOTS_A_NEW, &chunk.new)?;
                    message.array(uapi::IPVS_MHS_SLOTS_A_TIME_LEFT, &chunk.left)
                })?;
                self.chunk.clear();
            }
            let Some(from) = self.from else {
                return Ok(());
            };
            let service = again(family, &batch.request, self.id)?;
            let found = service.chunk(from, self.unstable_only, &mut self.chunk)?;
            (self.generation, self.from) = found;
            batch.at(self.generation);
        }
    }
}

/// The counters by CPU, of one service or of all.
struct CountersByCpu {
    only: Option<Id>,
    after: Id,
    /// A service that not all was sent of, and the first CPU that was not.
    begun: Id,
    cpu: u32,
}

impl CountersByCpu {
    fn send(cpu: &mut u32, batch: &mut Batch<'_>, generation: u32, service: &Service) -> Result {
        for of in counters::cpus(*cpu) {
            let counts = service.count(|svc| service.stats.on(of, svc));
            if !counts.is_zero() {
                batch.message(generation, |message| {
                    put_key(message, uapi::IPVS_MHS_CPU_A_SERVICE, service.identity())?;
                    message.u32(uapi::IPVS_MHS_CPU_A_CPU, of.number())?;
                    put_counts(message, uapi::IPVS_MHS_CPU_A_COUNTERS, &counts)
                })?;
            }
            *cpu = of.number() + 1;
        }
        Ok(())
    }
}

impl Dump for CountersByCpu {
    type Context = Registry;

    fn start(family: &Family, request: Request<'_>) -> Result<Self> {
        let only = request
            .attr(uapi::IPVS_MHS_CPU_A_SERVICE)
            .map(|_| find(family, &request, uapi::IPVS_MHS_CPU_A_SERVICE));
        Ok(Self {
            only: only.transpose()?.map(|(id, _)| id),
            after: Id::NONE,
            begun: Id::NONE,
            cpu: 0,
        })
    }

    fn go_on(&mut self, family: &Family, batch: &mut Batch<'_>) -> Result {
        if let Some(id) = self.only {
            // Counters that go on counting are what they are.
            let service = again(family, &batch.request, id)?;
            return Self::send(&mut self.cpu, batch, 1, &service);
        }
        let netns = batch.request.netns()?;
        loop {
            let (generation, next) = family.context().catalog.next(netns, self.after);
            batch.at(generation);
            let Some((id, service)) = next else {
                return Ok(());
            };
            if self.begun != id {
                (self.begun, self.cpu) = (id, 0);
            }
            Self::send(&mut self.cpu, batch, generation, &service)?;
            self.after = id;
        }
    }
}
