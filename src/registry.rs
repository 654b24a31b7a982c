// SPDX-License-Identifier: GPL-2.0

//! Which service a packet is for: a table for each network namespace, read under RCU.
//!
//! IPVS has such a table but does not export it. This one holds services of ours only. Readers walk
//! namespace -> table -> bucket -> service; a bucket is never changed, only replaced.

use crate::{
    ipvs::{
        hook::Hooks,
        netns::Netns,
        rcu::{
            RcuArc,
            RcuCell,
            Reader, //
        },
        service::Svc, //
    },
    pure::hash::Addr,
    service::Service, //
};
use kernel::{
    new_mutex,
    prelude::*,
    sync::Mutex, //
};

/// What a packet must match: destination address and port.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Key {
    /// The virtual address.
    pub(crate) addr: Addr,
    /// The virtual port, host order.
    pub(crate) port: u16,
}

impl Key {
    /// The key of a service that has one.
    pub(crate) fn of(svc: &Svc) -> Self {
        Self {
            addr: svc.addr(),
            port: svc.port(),
        }
    }

    /// Not secret: only addresses of this host get here, and those its owner chose.
    #[inline]
    fn hash(&self) -> usize {
        let addr = match self.addr {
            Addr::V4(a) => u64::from(u32::from_le_bytes(a)),
            Addr::V6(a) => {
                let a = u128::from_le_bytes(a);
                a as u64 ^ (a >> 64) as u64
            }
        };
        let mixed = (addr ^ u64::from(self.port) << 40).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> 32) as usize
    }
}

struct Bucket(KVec<(Key, RcuArc<Service>)>);

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

    #[inline]
    fn bucket(&self, key: &Key) -> Option<&RcuCell<Bucket>> {
        // The number of buckets is a power of two.
        self.buckets
            .get(key.hash() & self.buckets.len().wrapping_sub(1))
    }
}

/// The services of a namespace.
pub(crate) struct Services {
    table: RcuCell<Table>,
}

impl Services {
    /// The service that a packet is for.
    #[inline]
    pub(crate) fn find<'a>(&self, key: &Key, rcu: Reader<'a>) -> Option<&'a Service> {
        let bucket = self.table.read(rcu)?.bucket(key)?.read(rcu)?;
        bucket
            .0
            .iter()
            .find(|(of, _)| of == key)
            .map(|(_, service)| &**service)
    }
}

/// A namespace as its writer sees it.
struct Entry {
    /// To tell namespaces apart; never dereferenced.
    netns: usize,
    services: RcuArc<Services>,
    table: RcuArc<Table>,
    all: KVVec<(Key, RcuArc<Service>)>,
    _hooks: Hooks<Services>,
}

impl Entry {
    fn new(netns: &Netns) -> Result<Self> {
        let table = RcuArc::new(Table::new(16)?, GFP_KERNEL)?;
        let services = RcuArc::new(
            Services {
                table: RcuCell::empty(),
            },
            GFP_KERNEL,
        )?;
        services.table.replace(Some(table.clone()));
        Ok(Self {
            netns: id(netns),
            all: KVVec::new(),
            _hooks: Hooks::register(netns, services.clone())?,
            services,
            table,
        })
    }

    /// The bucket of `key` in `table` as it should be.
    fn bucket(&self, table: &Table, key: &Key) -> Result<Option<RcuArc<Bucket>>> {
        let place = table.bucket(key).map(core::ptr::from_ref);
        let mut bucket = KVec::new();
        for (other, service) in self.all.iter() {
            if table.bucket(other).map(core::ptr::from_ref) == place {
                bucket.push((*other, service.clone()), GFP_KERNEL)?;
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
        if let Some(cell) = self.table.bucket(key) {
            cell.replace(bucket);
        }
        Ok(())
    }

    /// Publishes all in a table that is large enough.
    fn grow(&mut self) -> Result {
        let size = (self.all.len() * 2).next_power_of_two();
        let table = RcuArc::new(Table::new(size)?, GFP_KERNEL)?;
        for (key, _) in self.all.iter() {
            if let Some(cell) = table.bucket(key) {
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
        if published.is_err() {
            self.all.pop();
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
        }
    }
}

fn id(netns: &Netns) -> usize {
    core::ptr::from_ref(netns).addr()
}

/// All namespaces that have a service of ours. The doors of a namespace stand open that long.
#[pin_data]
pub(crate) struct Registry {
    #[pin]
    entries: Mutex<KVec<Entry>>,
}

impl Registry {
    /// An empty registry.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            entries <- new_mutex!(KVec::new()),
        })
    }

    /// Shows a service to packets.
    pub(crate) fn add(&self, netns: &Netns, key: Key, service: RcuArc<Service>) -> Result {
        let mut entries = self.entries.lock();
        if let Some(entry) = entries.iter_mut().find(|entry| entry.netns == id(netns)) {
            return entry.add(key, service);
        }
        let mut entry = Entry::new(netns)?;
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
}
