// SPDX-License-Identifier: GPL-2.0

//! Which service a packet is for: a table for each network namespace, read under RCU.
//!
//! IPVS has such a table but does not export it. This one holds services of ours only. Readers walk
//! namespace -> table -> bucket -> service; a bucket is never changed, only replaced.

use crate::{
    catalog::Catalog,
    config::Config,
    ipvs::{
        hook::{
            Door,
            Hooks, //
        },
        netns::{
            Netns,
            Notes, //
        },
        rcu::{
            RcuArc,
            RcuCell,
            Reader, //
        },
        service::Svc,
        time,
        work::{
            DelayedWork,
            Worker, //
        }, //
    },
    pure::{
        flow::Flow,
        hash::Addr, //
    },
    service::Service, //
};
use core::sync::atomic::{
    AtomicU32,
    AtomicU64,
    Ordering, //
};
use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        rcu,
        Mutex, //
    },
};

/// What a packet must match.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Key {
    /// Destination address, transport protocol and port (host order; 0 matches any).
    Addr { addr: Addr, proto: u16, port: u16 },
    /// Firewall mark and family.
    Mark { mark: u32, v6: bool },
}

impl Key {
    /// The key of a service.
    pub(crate) fn of(svc: &Svc) -> Self {
        match svc.fwmark() {
            0 => Self::Addr {
                addr: svc.addr(),
                proto: svc.protocol(),
                port: svc.port(),
            },
            mark => Self::Mark {
                mark,
                v6: svc.is_v6(),
            },
        }
    }

    fn is_v6(&self) -> bool {
        match *self {
            Self::Addr { addr, .. } => matches!(addr, Addr::V6(_)),
            Self::Mark { v6, .. } => v6,
        }
    }

    fn is_mark(&self) -> bool {
        matches!(self, Self::Mark { .. })
    }

    fn is_any_port(&self) -> bool {
        matches!(self, Self::Addr { port: 0, .. })
    }
}

/// A [`Key`] in the form that is compared fastest; another one for each key.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Packed {
    bits: u128,
    /// From the lowest bit on: port (16), protocol (16), what kind of key it is.
    rest: u64,
}

impl Packed {
    #[inline(always)]
    fn new(key: &Key) -> Self {
        match key {
            Key::Addr { addr, proto, port } => Self::addr(addr, *proto, *port),
            Key::Mark { mark, v6 } => Self::mark(*mark, *v6),
        }
    }

    #[inline(always)]
    fn addr(addr: &Addr, proto: u16, port: u16) -> Self {
        let (v6, bits) = addr.to_bits();
        let rest = u64::from(port) | u64::from(proto) << 16 | u64::from(v6) << 32;
        Self { bits, rest }
    }

    #[inline(always)]
    fn mark(mark: u32, v6: bool) -> Self {
        Self {
            bits: u128::from(mark),
            rest: 2 << 32 | u64::from(v6) << 32,
        }
    }

    /// Not secret: only addresses of this host get here, and those its owner chose.
    #[inline(always)]
    fn hash(&self) -> usize {
        let word = self.bits as u64 ^ (self.bits >> 64) as u64 ^ self.rest << 40;
        (word.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize
    }
}

struct Bucket(KVec<(Packed, RcuArc<Service>)>);

struct Table {
    buckets: KVVec<RcuCell<Bucket>>,
}

impl Table {
    fn new(size: usize) -> Result<Self> {
        let mut buckets = KVVec::with_capacity(size, GFP_KERNEL)?;
        for _ in 0..size {
            buckets.push(RcuCell::empty(), GFP_KERNEL)?;
        }
        Ok(Self { buckets })
    }

    #[inline(always)]
    fn bucket(&self, key: Packed) -> Option<&RcuCell<Bucket>> {
        // The number of buckets is a power of two.
        self.buckets
            .get(key.hash() & self.buckets.len().wrapping_sub(1))
    }
}

/// The services of a namespace.
#[pin_data]
pub(crate) struct Services {
    table: RcuCell<Table>,
    /// How many there are by address and by mark, for IPv4 and then for IPv6.
    by_addr: [AtomicU32; 2],
    by_mark: [AtomicU32; 2],
    /// How many take any port.
    any_port: AtomicU32,
    /// When it was last seen that entries arrive from another balancer, in ticks; 0 for never.
    synced: AtomicU64,
    #[pin]
    work: DelayedWork<Services>,
}

/// Ticks between two looks whether entries arrive from another balancer.
const WATCH: u64 = time::HZ;

impl Services {
    fn new() -> impl PinInit<Self, Error> {
        let none = || [AtomicU32::new(0), AtomicU32::new(0)];
        try_pin_init!(Self {
            table: RcuCell::empty(),
            by_addr: none(),
            by_mark: none(),
            any_port: AtomicU32::new(0),
            synced: AtomicU64::new(0),
            work <- DelayedWork::new(),
        })
    }

    #[inline(always)]
    fn look<'a>(&self, key: Packed, rcu: Reader<'a>) -> Option<&'a Service> {
        let bucket = self.table.read(rcu)?.bucket(key)?.read(rcu)?;
        // Most have one service.
        let (first, others) = bucket.0.split_first()?;
        let (_, service) = match first.0 == key {
            true => first,
            false => others.iter().find(|(of, _)| *of == key)?,
        };
        Some(service)
    }

    /// The service of ours that a packet is for, unless IPVS prefers one that is not here because
    /// it has another scheduler.
    #[inline(always)]
    pub(crate) fn find<'a>(
        &'a self,
        flow: &Flow,
        mark: u32,
        rcu: Reader<'a>,
    ) -> Option<(&'a Service, &'a Svc)> {
        let to = Packed::addr(&flow.dst, flow.proto as u16, flow.dport);
        if mark == 0 {
            if let Some(service) = self.look(to, rcu) {
                return Some((service, service.link.get(rcu)?));
            }
            if self.any_port.load(Ordering::Relaxed) == 0 {
                return None;
            }
        }
        self.find_slowly(to.bits as u64, (to.bits >> 64) as u64, to.rest, mark, rcu)
    }

    /// The same where there is a mark or no service for the port, by the parts of a [`Packed`]: in
    /// registers, and out of the way of other packets.
    #[inline(never)]
    fn find_slowly<'a>(
        &self,
        low: u64,
        high: u64,
        rest: u64,
        mark: u32,
        rcu: Reader<'a>,
    ) -> Option<(&'a Service, &'a Svc)> {
        let bits = u128::from(high) << 64 | u128::from(low);
        let (to, v6) = (Packed { bits, rest }, rest >> 32 & 1 != 0);
        if mark != 0 && Self::count(&self.by_mark, v6) != 0 {
            if let Some(service) = self.look(Packed::mark(mark, v6), rcu) {
                return Some((service, service.link.get(rcu)?));
            }
        }
        if let Some(service) = self.look(to, rcu) {
            let svc = service.link.get(rcu)?;
            if mark != 0 && self.has_others(svc.netns(), v6, true) {
                let other = Self::outranks(svc.netns(), to, mark, false, rcu);
                return (!other).then_some((service, svc));
            }
            return Some((service, svc));
        }
        if self.any_port.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let any_port = Packed {
            rest: rest & !0xffff,
            ..to
        };
        let service = self.look(any_port, rcu)?;
        let svc = service.link.get(rcu)?;
        let others = mark != 0 && self.has_others(svc.netns(), v6, true)
            || self.has_others(svc.netns(), v6, false);
        let other = others && Self::outranks(svc.netns(), to, mark, true, rcu);
        (!other).then_some((service, svc))
    }

    /// Whether there are services that are not here.
    fn has_others(&self, netns: &Netns, v6: bool, by_mark: bool) -> bool {
        let ours = if by_mark {
            &self.by_mark
        } else {
            &self.by_addr
        };
        netns.services(v6, by_mark) > Self::count(ours, v6)
    }

    /// Whether a service by `mark`, or to one that takes any port a closer one, is in IPVS's own
    /// table.
    #[cold]
    #[inline(never)]
    fn outranks(netns: &Netns, to: Packed, mark: u32, any_port: bool, rcu: Reader<'_>) -> bool {
        let addr = Addr::from_bits(to.rest >> 32 & 1 != 0, to.bits);
        let (port, proto) = (to.rest as u16, (to.rest >> 16) as u16);
        netns.prefers(&addr, proto, port, mark, any_port, rcu)
    }

    #[inline]
    fn count(counts: &[AtomicU32; 2], v6: bool) -> u32 {
        let [v4_count, v6_count] = counts;
        if v6 { v6_count } else { v4_count }.load(Ordering::Relaxed)
    }

    /// Whether any entry may have arrived from another balancer, rather than been made here.
    #[inline]
    pub(crate) fn may_have_received(&self) -> bool {
        self.synced.load(Ordering::Relaxed) != 0
    }

    fn note(&self, key: &Key, add: bool) {
        let counts = if key.is_mark() {
            &self.by_mark
        } else {
            &self.by_addr
        };
        let [v4_count, v6_count] = counts;
        let family = if key.is_v6() { v6_count } else { v4_count };
        for (count, concerned) in [(family, true), (&self.any_port, key.is_any_port())] {
            if concerned && add {
                count.fetch_add(1, Ordering::Relaxed);
            } else if concerned {
                count.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }
}

impl Worker for Services {
    /// Watches the sync daemon: it may stop receiving just before this balancer takes over, and then
    /// what it received still matters for as long as entries live.
    fn run(&self) {
        let guard = rcu::read_lock();
        let rcu = Reader::new(&guard);
        let services = self.table.read(rcu).into_iter().flat_map(|table| {
            let buckets = table.buckets.iter().filter_map(|cell| cell.read(rcu));
            buckets.flat_map(|bucket| bucket.0.iter())
        });
        let svc = services
            .filter_map(|(_, service)| service.link.get(rcu))
            .next();
        if let Some(netns) = svc.map(Svc::netns) {
            let (now, last) = (time::jiffies(), self.synced.load(Ordering::Relaxed));
            if netns.settings().receives_entries() {
                self.synced.store(now.max(1), Ordering::Relaxed);
            } else if last != 0 && now > last.saturating_add(netns.timeouts(0).entry) {
                self.synced.store(0, Ordering::Relaxed);
            }
        }
        self.work.arm(WATCH);
    }
}

/// A namespace as its writer sees it.
struct Entry {
    /// To tell namespaces apart; never dereferenced.
    netns: usize,
    services: RcuArc<Services>,
    table: RcuArc<Table>,
    all: KVVec<(Key, RcuArc<Service>)>,
    _arrive: Hooks<Services>,
    hasten: Option<Hooks<Services>>,
}

impl Entry {
    fn new(netns: &Netns, express: bool) -> Result<Self> {
        let table = RcuArc::new(Table::new(16)?, GFP_KERNEL)?;
        let services = RcuArc::pin_init(Services::new(), GFP_KERNEL)?;
        services.table.replace(Some(table.clone()));
        let arrive = Hooks::register(netns, Door::Arrive, services.clone())?;
        services.work.start(services.clone());
        services.work.arm(WATCH);
        let mut entry = Self {
            netns: id(netns),
            all: KVVec::new(),
            _arrive: arrive,
            hasten: None,
            services,
            table,
        };
        entry.set_express(netns, express)?;
        Ok(entry)
    }

    /// Opens or closes the door of express mode. On failure all stays as it was.
    fn set_express(&mut self, netns: &Netns, express: bool) -> Result {
        if !express {
            self.hasten = None;
        } else if self.hasten.is_none() {
            let hooks = Hooks::register(netns, Door::Hasten, self.services.clone())?;
            self.hasten = Some(hooks);
        }
        Ok(())
    }

    /// The bucket of `key` in `table` as it should be.
    fn bucket(&self, table: &Table, key: &Key) -> Result<Option<RcuArc<Bucket>>> {
        let place = table.bucket(Packed::new(key)).map(core::ptr::from_ref);
        let mut bucket = KVec::new();
        for (other, service) in self.all.iter() {
            let other = Packed::new(other);
            if table.bucket(other).map(core::ptr::from_ref) == place {
                bucket.push((other, service.clone()), GFP_KERNEL)?;
            }
        }
        if bucket.is_empty() {
            return Ok(None);
        }
        Ok(Some(RcuArc::new(Bucket(bucket), GFP_KERNEL)?))
    }

    /// Publishes what `all` says of the bucket of `key`.
    fn publish(&self, key: &Key) -> Result {
        let bucket = self.bucket(&self.table, key)?;
        if let Some(cell) = self.table.bucket(Packed::new(key)) {
            cell.replace(bucket);
        }
        Ok(())
    }

    /// Publishes all in a table that is large enough.
    fn grow(&mut self) -> Result {
        let size = (self.all.len() * 2).next_power_of_two();
        let table = RcuArc::new(Table::new(size)?, GFP_KERNEL)?;
        for (key, _) in self.all.iter() {
            if let Some(cell) = table.bucket(Packed::new(key)) {
                cell.replace(self.bucket(&table, key)?);
            }
        }
        self.services.table.replace(Some(table.clone()));
        self.table = table;
        Ok(())
    }

    fn add(&mut self, key: Key, service: RcuArc<Service>) -> Result {
        self.all.push((key, service), GFP_KERNEL)?;
        let published = if self.all.len() > self.table.buckets.len() {
            self.grow()
        } else {
            self.publish(&key)
        };
        match published {
            Ok(()) => self.services.note(&key, true),
            Err(_) => drop(self.all.pop()),
        }
        published
    }

    fn remove(&mut self, service: &RcuArc<Service>) {
        let place = self.all.iter().position(|(_, s)| s.ptr_eq(service));
        let removed = place.and_then(|place| self.all.remove(place).ok());
        if let Some((key, _)) = removed {
            // For want of memory the bucket may stay as it is until its next change: packets find
            // the service and then that its link is cut.
            let _ = self.publish(&key);
            self.services.note(&key, false);
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.services.work.disable();
    }
}

fn id(netns: &Netns) -> usize {
    core::ptr::from_ref(netns).addr()
}

/// All namespaces that have a service of ours. The doors of a namespace stand open that long.
#[pin_data]
pub(crate) struct Registry {
    /// What new services are made with.
    pub(crate) config: Config,
    /// The name that the scheduler has.
    pub(crate) scheduler: &'static CStr,
    /// Where all services can be seen.
    #[pin]
    pub(crate) catalog: Catalog,
    /// What was said of namespaces.
    notes: Notes,
    #[pin]
    entries: Mutex<KVec<Entry>>,
}

impl Registry {
    /// An empty registry. There can be one at a time.
    pub(crate) fn new(config: Config, scheduler: &'static CStr) -> Result<impl PinInit<Self>> {
        let notes = Notes::new()?;
        Ok(pin_init!(Self {
            config,
            scheduler,
            catalog <- Catalog::new(),
            notes,
            entries <- new_mutex!(KVec::new()),
        }))
    }

    /// Shows a service to packets.
    pub(crate) fn add(&self, netns: &Netns, key: Key, service: RcuArc<Service>) -> Result {
        let mut entries = self.entries.lock();
        if let Some(entry) = entries.iter_mut().find(|entry| entry.netns == id(netns)) {
            return entry.add(key, service);
        }
        let mut entry = Entry::new(netns, self.is_express(netns))?;
        entry.add(key, service)?;
        entries.push(entry, GFP_KERNEL)?;
        Ok(())
    }

    /// Hides a service from packets; those in flight may still have it for a grace period.
    pub(crate) fn remove(&self, netns: &Netns, service: &RcuArc<Service>) {
        let mut entries = self.entries.lock();
        if let Some(place) = entries.iter().position(|entry| entry.netns == id(netns)) {
            if let Some(entry) = entries.get_mut(place) {
                entry.remove(service);
                if entry.all.is_empty() {
                    let _ = entries.remove(place);
                }
            }
        }
    }

    /// Whether packets of a namespace may be forwarded before they are routed: what was said of it,
    /// or else what the load option says.
    pub(crate) fn is_express(&self, netns: &Netns) -> bool {
        self.notes.express(netns).unwrap_or(self.config.express)
    }

    /// Says it of a namespace, for as long as both it and the module exist. On failure all stays as
    /// it was.
    pub(crate) fn set_express(&self, netns: &Netns, on: bool) -> Result {
        let mut entries = self.entries.lock();
        if let Some(entry) = entries.iter_mut().find(|entry| entry.netns == id(netns)) {
            entry.set_express(netns, on)?;
        }
        self.notes.set_express(netns, on);
        Ok(())
    }
}
