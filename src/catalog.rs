// SPDX-License-Identifier: GPL-2.0

//! All services that have the scheduler, for those who ask: by namespace, in the order they came.
//!
//! Packets have a table of their own, [`crate::registry`], of services that can be stateless and
//! have a server. Here are the others too. Nobody holds the lock for longer than it takes to find a
//! service, and packets never do.

use crate::{
    ipvs::{
        netns::Netns,
        rcu::RcuArc, //
    },
    registry::Key,
    service::Service, //
};
use core::sync::atomic::{
    AtomicU32,
    Ordering, //
};
use kernel::{
    new_mutex,
    prelude::*,
    sync::Mutex, //
};

/// A number that no state of any service or namespace had before (of the last 2^32), and that says
/// of two states with the same number that they are one: not 0, and not [`EMPTY`].
pub(crate) fn generation() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(EMPTY + 1);
    loop {
        let generation = NEXT.fetch_add(1, Ordering::Relaxed);
        if generation > EMPTY {
            return generation;
        }
    }
}

/// The generation of a namespace without services.
const EMPTY: u32 = 1;

/// What a service is called here, for as long as it is here. Never used again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Id(u64);

impl Id {
    /// Comes before all others.
    pub(crate) const NONE: Self = Self(0);
}

/// The services of a namespace.
struct Namespace {
    /// To tell namespaces apart; never dereferenced.
    netns: usize,
    generation: u32,
    /// In ascending order of their names.
    services: KVVec<(Id, RcuArc<Service>)>,
}

struct All {
    last: Id,
    namespaces: KVVec<Namespace>,
}

impl All {
    fn find(&mut self, netns: &Netns) -> Option<(usize, &mut Namespace)> {
        let id = id(netns);
        let mut namespaces = self.namespaces.iter_mut().enumerate();
        namespaces.find(|(_, namespace)| namespace.netns == id)
    }
}

fn id(netns: &Netns) -> usize {
    core::ptr::from_ref(netns).addr()
}

/// All services.
#[pin_data]
pub(crate) struct Catalog {
    #[pin]
    all: Mutex<All>,
}

impl Catalog {
    /// An empty catalog.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            all <- new_mutex!(All {
                last: Id::NONE,
                namespaces: KVVec::new(),
            }),
        })
    }

    /// Adds a service.
    pub(crate) fn add(&self, netns: &Netns, service: RcuArc<Service>) -> Result {
        let mut all = self.all.lock();
        let next = Id(all.last.0 + 1);
        if let Some((_, namespace)) = all.find(netns) {
            namespace.services.push((next, service), GFP_KERNEL)?;
            namespace.generation = generation();
        } else {
            let mut services = KVVec::new();
            services.push((next, service), GFP_KERNEL)?;
            all.namespaces.push(
                Namespace {
                    netns: id(netns),
                    generation: generation(),
                    services,
                },
                GFP_KERNEL,
            )?;
        }
        all.last = next;
        Ok(())
    }

    /// Removes a service, if it is there.
    pub(crate) fn remove(&self, netns: &Netns, service: &RcuArc<Service>) {
        let mut all = self.all.lock();
        let Some((place, namespace)) = all.find(netns) else {
            return;
        };
        let mut services = namespace.services.iter();
        if let Some(at) = services.position(|(_, other)| other.ptr_eq(service)) {
            let _ = namespace.services.remove(at);
            namespace.generation = generation();
        }
        if namespace.services.is_empty() {
            let _ = all.namespaces.remove(place);
        }
    }

    /// The service that has a key.
    pub(crate) fn find(&self, netns: &Netns, key: &Key) -> Option<(Id, RcuArc<Service>)> {
        let mut all = self.all.lock();
        let (_, namespace) = all.find(netns)?;
        let mut services = namespace.services.iter();
        let (id, service) = services.find(|(_, service)| service.identity() == key)?;
        Some((*id, service.clone()))
    }

    /// The service of a name, unless it has gone.
    pub(crate) fn get(&self, netns: &Netns, id: Id) -> Option<RcuArc<Service>> {
        let mut all = self.all.lock();
        let (_, namespace) = all.find(netns)?;
        let at = namespace.services.binary_search_by_key(&id, |(id, _)| *id);
        let (_, service) = namespace.services.get(at.ok()?)?;
        Some(service.clone())
    }

    /// The generation of a namespace, and its first service after another.
    pub(crate) fn next(&self, netns: &Netns, after: Id) -> (u32, Option<(Id, RcuArc<Service>)>) {
        let mut all = self.all.lock();
        let Some((_, namespace)) = all.find(netns) else {
            return (EMPTY, None);
        };
        let at = namespace.services.partition_point(|(id, _)| *id <= after);
        let next = namespace.services.get(at);
        let next = next.map(|(id, service)| (*id, service.clone()));
        (namespace.generation, next)
    }
}
