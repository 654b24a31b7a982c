// SPDX-License-Identifier: GPL-2.0

//! A virtual service: its servers, its double table, and how changes get into it.
//!
//! Packets read `words`, `marks` and `servers`. Changes are made under the `writer` lock by the
//! scheduler's callbacks and by the work that the service has done when a deadline has come.

use crate::{
    catalog,
    config::Config,
    ipvs::{
        netns::Timeouts,
        rcu::{
            GracePeriod,
            RcuArc,
            RcuCell,
            Reader, //
        },
        service::{
            Dest,
            DestId,
            Locked,
            Method,
            Svc,
            SvcLink, //
        },
        time,
        work::{
            DelayedWork,
            Worker, //
        },
    },
    netlink::Family,
    pure::{
        hash::{
            self,
            Addr,
            Key, //
        },
        maglev,
        search, //
        slots::{
            self,
            Coarse,
            Deadlines,
            Outcome,
            Slots,
            Times,
            Word, //
        },
    },
    registry,
    stats::Stats,
};
use core::sync::atomic::{
    AtomicBool,
    AtomicU32,
    AtomicU64,
    AtomicU8,
    Ordering, //
};
use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        rcu,
        Arc,
        Mutex, //
    },
};

mod members;
pub(crate) mod news;
pub(crate) mod view;

use members::{
    Member,
    Place, //
};
pub(crate) use members::{
    Server,
    Servers, //
};

/// What only the writer needs.
struct Writer {
    places: KVVec<Place>,
    /// Indices of the places that are taken, in the order of the servers' turns.
    seats: KVVec<u16>,
    /// The same indices, in the order of [`DestId`], by which packets look servers up.
    by_dest: KVVec<u16>,
    epochs: KVVec<u8>,
    deadlines: KBox<Deadlines>,
    /// The longest an entry can have to live, considering all timeouts there were.
    entry: u64,
    /// A change whose grace period is not over yet.
    unsettled: Option<GracePeriod>,
    /// The longest session timeout that held when a slot that is unstable, or may have become so,
    /// became it, in ticks; 0 if none is.
    promised: u64,
    /// The unit of the marks changed with that change.
    new_clock: bool,
    /// When what could not be done for want of memory is tried again, in ticks.
    retry: Option<u64>,
    /// So a server may be missing, or be reached as it was before.
    missing: bool,
    /// The table does not know of a change yet.
    pending: bool,
    /// Before then no new table is made for a change that can wait, in ticks.
    pause: u64,
    /// Why the next table is made.
    cause: news::Cause,
    /// Differs whenever servers or tables do.
    generation: u32,
    /// How many slots are unstable.
    unstable: u32,
}

impl Writer {
    /// The member that is `dest`, and its index. A server that once was reached in another way
    /// may be there for the flows of that time too.
    fn find(&mut self, dest: &Dest) -> Option<(&mut Member, u16)> {
        self.find_if(dest, |_| true)
    }

    /// The member that is `dest` as it is reached now, be it deleted, and its index.
    fn find_like(&mut self, dest: &Dest) -> Option<(&mut Member, u16)> {
        self.find_if(dest, |method| method.is_followed_by(dest.method()))
    }

    fn find_if(
        &mut self,
        dest: &Dest,
        reached: impl Fn(Method) -> bool,
    ) -> Option<(&mut Member, u16)> {
        self.places
            .iter_mut()
            .zip(0u16..)
            .filter_map(|(place, index)| Some((place.member_mut()?, index)))
            .filter(|(member, _)| member.server.express.leads_to(dest))
            .filter(|(member, _)| reached(member.server.express.method()))
            .max_by_key(|(member, _)| {
                let same = member.server.express.method() == dest.method();
                (member.gone_until.is_none(), same)
            })
    }

    /// Notes that a place was taken, for which there must be room.
    fn seat(&mut self, place: usize) {
        let order = |place: u16| {
            let place = self.places.get(usize::from(place));
            place
                .and_then(Place::member)
                .map(|m| m.server.identity.permutation.order())
        };
        let place = place as u16;
        let at = self
            .seats
            .partition_point(|&other| order(other) < order(place));
        let _ = self.seats.insert_within_capacity(at, place);
        let dest = self.dest_id(place);
        let at = self
            .by_dest
            .partition_point(|&other| self.dest_id(other) <= dest);
        let _ = self.by_dest.insert_within_capacity(at, place);
    }

    /// Which server a place is of. A server that takes the place of another there is the same dest.
    fn dest_id(&self, place: u16) -> Option<DestId> {
        let member = self.places.get(usize::from(place))?.member()?;
        Some(member.server.express.dest_id())
    }

    /// Notes that places were left.
    fn unseat(&mut self) {
        let places = &self.places;
        let is_taken = |&mut place: &mut u16| {
            let place = places.get(usize::from(place));
            place.and_then(Place::member).is_some()
        };
        self.seats.retain(is_taken);
        self.by_dest.retain(is_taken);
    }

    /// The members that may get new flows, with their indices, in the order of their turns.
    fn usable<'a>(
        places: &'a [Place],
        seats: &'a [u16],
    ) -> impl Iterator<Item = (u16, &'a Member)> {
        seats
            .iter()
            .filter_map(|&index| Some((index, places.get(usize::from(index))?.member()?)))
            .filter(|(_, member)| member.gone_until.is_none() && member.weight > 0)
    }

    /// Has what failed tried again, in a while.
    fn try_again(&mut self) {
        self.retry.get_or_insert(time::jiffies() + RETRY);
    }

    fn slots<'a>(&'a mut self, service: &'a Service) -> Slots<'a> {
        self.slots_and_places(service).0
    }

    /// Both at once: slots name servers by their places.
    fn slots_and_places<'a>(&'a mut self, service: &'a Service) -> (Slots<'a>, &'a [Place]) {
        let slots = Slots {
            words: &service.words,
            marks: &service.marks,
            epochs: &mut self.epochs,
            deadlines: &mut self.deadlines,
        };
        (slots, &self.places)
    }

    fn times(&mut self, timeouts: Timeouts) -> Times {
        self.entry = self.entry.max(timeouts.entry);
        Times {
            now: time::jiffies(),
            session: timeouts.session + MARGIN,
            entry: self.entry + MARGIN,
        }
    }
}

/// A virtual service.
#[pin_data]
#[repr(C)]
pub(crate) struct Service {
    // What every packet reads comes first and together.
    pub(crate) link: SvcLink,
    start: hash::State,
    pub(crate) words: KVVec<AtomicU32>,
    pub(crate) marks: KVVec<AtomicU8>,
    pub(crate) stats: Stats,
    servers: RcuCell<Servers>,
    clock: AtomicU32,
    /// When a packet last went to IPVS because all of them have to, in ticks, or a little before; 0
    /// for never, or so long ago that no entry of that time is left.
    entries: AtomicU64,
    /// Express mode: of when is the answer whether the virtual address is of this host
    /// ([`crate::ipvs::netns::Netns::routes`]), and the answer.
    local: AtomicU64,
    size: u32,
    // What only changes touch.
    pub(crate) key: Key,
    balance: u32,
    protocol: u16,
    shown: AtomicBool,
    identity: registry::Key,
    events: Arc<Family>,
    /// Where the search for a server that takes new flows goes on, see [`search::fall_back`]: far
    /// from what every packet reads, since it is written while many servers are overloaded.
    next: AtomicU32,
    #[pin]
    writer: Mutex<Writer>,
    #[pin]
    work: DelayedWork<Service>,
}

/// Of [`Service::local`]: the virtual address is of this host.
const LOCAL: u64 = 1 << 32;

/// Ticks that a writer may take: what packets do meanwhile is later than its `now`.
const MARGIN: u64 = time::HZ / 10;

/// Ticks until a look whether a grace period is over: most last a few ticks.
const SETTLE: u64 = time::HZ / 100 + 1;

/// Ticks until something that failed for want of memory is tried again.
const RETRY: u64 = time::HZ / 4;

impl Service {
    /// A service with no server.
    pub(crate) fn new(
        svc: Locked<'_>,
        link: SvcLink,
        config: Config,
        events: Arc<Family>,
    ) -> Result<RcuArc<Self>> {
        let size = config.size;
        let mut words = KVVec::with_capacity(size as usize, GFP_KERNEL)?;
        let mut marks = KVVec::with_capacity(size as usize, GFP_KERNEL)?;
        for _ in 0..size {
            words.push(AtomicU32::new(Word::EMPTY.bits()), GFP_KERNEL)?;
            marks.push(AtomicU8::new(0), GFP_KERNEL)?;
        }
        if svc.netns().has_entries() {
            // Perhaps of this very service, as it was before.
            for slot in 0..size {
                slots::fear(&words, slot);
            }
        }
        let timeouts = svc.netns().timeouts(svc.protocol());
        let writer = Writer {
            places: KVVec::new(),
            seats: KVVec::new(),
            by_dest: KVVec::new(),
            epochs: KVVec::from_elem(0, size as usize, GFP_KERNEL)?,
            deadlines: KBox::new(Deadlines::new(), GFP_KERNEL)?,
            entry: timeouts.entry,
            unsettled: None,
            promised: 0,
            new_clock: false,
            retry: None,
            missing: false,
            pending: false,
            pause: 0,
            cause: news::Cause::Adopt,
            generation: catalog::generation(),
            unstable: 0,
        };
        let service = RcuArc::pin_init(
            try_pin_init!(Self {
                link,
                start: hash::State::new(&config.key),
                key: config.key,
                words,
                marks,
                stats: Stats::new()?,
                servers: RcuCell::empty(),
                clock: AtomicU32::new(Coarse::for_timeout(timeouts.session).shift()),
                entries: AtomicU64::new(0),
                local: AtomicU64::new(!LOCAL),
                size,
                balance: config.balance,
                protocol: svc.protocol(),
                shown: AtomicBool::new(false),
                identity: registry::Key::of(&svc),
                events,
                next: AtomicU32::new(0),
                writer <- new_mutex!(writer),
                work <- DelayedWork::new(),
            }? Error),
            GFP_KERNEL,
        )?;
        service.work.start(service.clone());
        Ok(service)
    }

    /// The servers.
    #[inline]
    pub(crate) fn servers<'a>(&self, rcu: Reader<'a>) -> Option<&'a Servers> {
        self.servers.read(rcu)
    }

    /// Not inlined, or the way of packets whose port does not count would be longer, too; and by
    /// the bits of the address, or their addresses would have to be in memory.
    #[inline(never)]
    fn hash_with_port(&self, (v6, bits): (bool, u128), port: u16) -> u64 {
        hash::client(self.start, &Addr::from_bits(v6, bits), Some(port))
    }

    /// The slot of a client, which counts as used from now.
    #[inline(always)]
    pub(crate) fn slot(&self, with_port: bool, client: &Addr, port: u16) -> u32 {
        let hash = match with_port {
            false => hash::client(self.start, client, None),
            true => self.hash_with_port(client.to_bits(), port),
        };
        let slot = hash::slot(hash, self.size);
        let clock = Coarse::from_shift(self.clock.load(Ordering::Relaxed));
        slots::touch(&self.marks, slot, clock.mark(time::jiffies()));
        slot
    }

    /// Another server for a new flow whose own one takes none: [`search::fall_back`].
    pub(crate) fn fall_back<T>(
        &self,
        own: Word,
        client: &Addr,
        port: u16,
        servers: &Servers,
        usable: impl Fn(u16) -> Option<T>,
    ) -> Option<T> {
        let client = hash::client(self.start, client, Some(port));
        let (words, count) = (&self.words, servers.len());
        search::fall_back(&self.key, words, own, client, count, &self.next, usable)
    }

    /// If packets to the virtual address are for this host: of which routes this is true
    /// ([`crate::ipvs::netns::Netns::routes`]). They may have changed; then [`Service::look_whether_here`].
    #[inline(always)]
    pub(crate) fn here(&self) -> Option<u32> {
        let local = self.local.load(Ordering::Relaxed);
        (local & LOCAL != 0).then_some(local as u32)
    }

    /// Looks whether packets to the virtual address are for this host, if routes have changed.
    #[cold]
    #[inline(never)]
    pub(crate) fn look_whether_here(&self, svc: &Svc, v6: bool) {
        // Read before the look-up: a change in between makes the answer one of before.
        let routes = svc.netns().routes(v6);
        if self.local.load(Ordering::Relaxed) & !LOCAL != u64::from(routes) {
            let local = match svc.netns().is_local(&svc.addr()) {
                true => LOCAL,
                false => 0,
            };
            self.local
                .store(u64::from(routes) | local, Ordering::Relaxed);
        }
    }

    /// Whether packets can find the service. Changes under the service mutex only.
    pub(crate) fn is_shown(&self) -> bool {
        self.shown.load(Ordering::Relaxed)
    }

    /// Packets can find the service from now on.
    pub(crate) fn set_shown(&self) {
        self.shown.store(true, Ordering::Relaxed);
    }

    /// Whether there may be entries that no slot knows of, from a time when each flow had one.
    #[inline]
    pub(crate) fn had_entries(&self) -> bool {
        self.entries.load(Ordering::Relaxed) != 0
    }

    /// Entries are made without regard to slots now (persistence, `conntrack`, handover). Writes
    /// once in a second.
    pub(crate) fn note_entries(&self) {
        let (now, last) = (time::jiffies().max(1), self.entries.load(Ordering::Relaxed));
        if last == 0 || now.saturating_sub(last) > time::HZ {
            self.entries.store(now, Ordering::Relaxed);
            if last == 0 {
                self.work.kick();
            }
        }
    }

    /// A packet showed, or is about to make, an entry for another server than the slot's own.
    pub(crate) fn fear(&self, slot: u32) {
        if slots::fear(&self.words, slot) {
            self.work.kick();
        }
    }

    /// Servers were there before the service had this scheduler.
    pub(crate) fn adopt(&self, svc: Locked<'_>) {
        let mut writer = self.writer.lock();
        for dest in svc.dests() {
            if let Err(error) = self.join(&mut writer, &svc, dest) {
                self.not_joined(&mut writer, error);
            }
        }
        self.remap(&mut writer, svc.netns().timeouts(self.protocol));
    }

    /// A server was added, or changed.
    pub(crate) fn set(&self, svc: Locked<'_>, dest: &Dest) {
        let mut writer = self.writer.lock();
        let before = writer.look(dest);
        let times = writer.times(svc.netns().timeouts(self.protocol));
        self.hand_down(&mut writer, times);
        writer.cause = match before {
            Some(_) => news::Cause::Update,
            None => news::Cause::Add,
        };
        if let Err(error) = self.join(&mut writer, &svc, dest) {
            self.not_joined(&mut writer, error);
        }
        self.changed(&mut writer, dest, before);
        let now = time::jiffies();
        let retires = before.is_some_and(|before| !before.method.is_followed_by(dest.method()));
        let can_wait = dest.weight() > 0 && !retires && slots::is_populated(&self.words);
        // Of a thousand servers that are added one by one not each is worth a table of its own.
        // Who must not get new flows any more, or is the first to get any, is.
        if now < writer.pause && can_wait {
            writer.pending = true;
            self.arm(&writer, now);
        } else {
            self.remap(&mut writer, svc.netns().timeouts(self.protocol));
        }
    }

    /// A server was deleted.
    pub(crate) fn delete(&self, svc: Locked<'_>, dest: &Dest) {
        let mut writer = self.writer.lock();
        let timeouts = svc.netns().timeouts(self.protocol);
        let at_once = svc.netns().expires_nodest();
        let now = time::jiffies();
        let Some((member, _)) = writer.find(dest) else {
            return;
        };
        member.server.leave();
        member.gone_until = Some(if at_once { now } else { now + timeouts.session });
        writer.cause = news::Cause::Delete;
        self.changed(&mut writer, dest, None);
        self.remap(&mut writer, timeouts);
        if at_once {
            let times = writer.times(timeouts);
            self.evict(&mut writer, dest, times);
        }
    }

    /// The service is done: nothing is published any more and every server released.
    pub(crate) fn close(&self) {
        self.work.disable();
        let mut writer = self.writer.lock();
        self.servers.replace(None);
        writer.generation = catalog::generation();
        for member in writer.places.iter().filter_map(Place::member) {
            member.server.express.release();
        }
        writer.places.clear();
        writer.seats.clear();
        writer.by_dest.clear();
    }

    /// Makes the new table that the servers call for.
    fn remap(&self, writer: &mut Writer, timeouts: Timeouts) {
        let start = time::nanoseconds();
        let times = writer.times(timeouts);
        self.hand_down(writer, times);
        let clock = Coarse::for_timeout(times.session).shift();
        if self.clock.swap(clock, Ordering::Relaxed) != clock {
            writer.new_clock = true;
        }
        let members = writer.places.iter().filter_map(Place::member);
        if members
            .filter(|member| member.server.express.should_open())
            .count()
            > 0
        {
            writer.try_again();
        }
        match self.table(writer) {
            Ok(table) => {
                let outcome = writer.slots(self).remap(&table, times);
                self.remapped(writer, outcome);
            }
            Err(_) => {
                let outcome = self.remap_in_place(writer, times);
                writer.note(outcome);
                writer.try_again();
                self.failed(writer);
            }
        }
        writer.unsettled = Some(GracePeriod::start());
        writer.promised = writer.promised.max(times.session);
        writer.pending = false;
        // A fifth of the time at most is spent on tables.
        let spent = time::nanoseconds().saturating_sub(start);
        writer.pause = time::jiffies() + time::ticks(spent.saturating_mul(4));
        self.arm(writer, times.now);
    }

    /// A table of indices, or an error for want of memory.
    fn table(&self, writer: &Writer) -> Result<KVVec<u16>> {
        let mut indices = KVVec::with_capacity(writer.seats.len(), GFP_KERNEL)?;
        let mut servers = KVVec::with_capacity(writer.seats.len(), GFP_KERNEL)?;
        let mut permutations = KVVec::with_capacity(writer.seats.len(), GFP_KERNEL)?;
        for (index, member) in Writer::usable(&writer.places, &writer.seats) {
            indices.push(index, GFP_KERNEL)?;
            servers.push(member.as_server(), GFP_KERNEL)?;
            permutations.push(member.server.identity.permutation, GFP_KERNEL)?;
        }
        let permutation = |index, _: &maglev::Server| {
            let kept = permutations.get(index).copied();
            kept.unwrap_or_default()
        };
        let mut rows = KVVec::from_elem(maglev::Row::default(), servers.len(), GFP_KERNEL)?;
        let mut table = KVVec::from_elem(maglev::NONE, self.size as usize, GFP_KERNEL)?;
        maglev::populate_with(&servers, permutation, self.balance, &mut rows, &mut table)
            .map_err(|_| EINVAL)?;
        for owner in table.iter_mut() {
            *owner = indices
                .get(usize::from(*owner))
                .copied()
                .unwrap_or(maglev::NONE);
        }
        Ok(table)
    }

    /// There is no memory for a table: at least who must not get new flows gets none.
    fn remap_in_place(&self, writer: &mut Writer, times: Times) -> Outcome {
        let Writer {
            places,
            seats,
            epochs,
            deadlines,
            ..
        } = writer;
        let mut slots = Slots {
            words: &self.words,
            marks: &self.marks,
            epochs,
            deadlines,
        };
        let usable = || {
            let usable = Writer::usable(places, seats);
            usable.map(|(index, member)| (index, member.as_server()))
        };
        let mut outcome = Outcome::default();
        for (place, index) in places.iter().zip(0u16..) {
            if place
                .member()
                .is_some_and(|m| m.gone_until.is_some() || m.weight == 0)
            {
                let pick = |slot| {
                    maglev::choose(&self.key, self.size, slot, usable()).unwrap_or(maglev::NONE)
                };
                outcome += slots.replace(index, pick, times);
            }
        }
        outcome
    }

    /// When the last entry that [`Service::note_entries`] was about has died, in ticks.
    fn entries_end(&self, life: u64) -> Option<u64> {
        let last = self.entries.load(Ordering::Relaxed);
        (last != 0).then(|| last.saturating_add(life).saturating_add(2 * time::HZ))
    }

    fn forget_entries(&self, times: Times) {
        let last = self.entries.load(Ordering::Relaxed);
        if self
            .entries_end(times.entry)
            .is_some_and(|end| end <= times.now)
        {
            // Unless a packet has just noted another time.
            let _ = self
                .entries
                .compare_exchange(last, 0, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// Has the work done when the next thing is due.
    fn arm(&self, writer: &Writer, now: u64) {
        if let Some(delay) = self.due(writer, now) {
            self.work.arm(delay);
        }
    }

    /// In how many ticks the next thing is due.
    fn due(&self, writer: &Writer, now: u64) -> Option<u64> {
        // Whose time is over, but not that of its slots, leaves when those are merged.
        let gone = writer
            .places
            .iter()
            .filter_map(Place::member)
            .filter_map(|member| member.gone_until)
            .filter(|&at| at > now);
        let soon = writer.unsettled.map(|_| now + SETTLE);
        let entries = self.entries_end(writer.entry + MARGIN);
        let table = writer.pending.then_some(writer.pause);
        let next = [
            gone.min(),
            writer.deadlines.next(),
            soon,
            writer.retry,
            entries,
            table,
        ];
        let next = next.into_iter().flatten().min();
        // A deadline that passed while we looked is met at the next tick.
        next.map(|next| next.saturating_sub(now).max(1))
    }
}

impl Worker for Service {
    /// Does what is due: settles a change, merges slots, lets deleted servers go, tries again what
    /// failed.
    fn run(&self) {
        let timeouts = {
            let guard = rcu::read_lock();
            let Some(svc) = self.link.get(Reader::new(&guard)) else {
                return;
            };
            svc.netns().timeouts(self.protocol)
        };
        let mut writer = self.writer.lock();
        let writer = &mut *writer;
        let times = writer.times(timeouts);
        if writer.retry.is_some_and(|at| at <= times.now) {
            writer.retry = None;
            writer.cause = news::Cause::Retry;
            self.reopen(writer);
            self.rejoin(writer, times);
            self.remap(writer, timeouts);
        } else if writer.pending && writer.pause <= times.now {
            self.remap(writer, timeouts);
        }
        let mut outcome = Outcome::default();
        if writer.unsettled.is_some_and(GracePeriod::is_over) {
            writer.unsettled = None;
            // Timeouts may have become shorter since. A change long before, too, may have left slots
            // that are unstable still.
            let times = Times {
                session: times.session.max(writer.promised),
                ..times
            };
            let clock = Coarse::from_shift(self.clock.load(Ordering::Relaxed));
            let new_clock = core::mem::take(&mut writer.new_clock);
            let mut slots = writer.slots(self);
            if new_clock {
                // Marks are in the old unit, but now no packet writes such any more.
                slots.remark(clock.mark(times.now));
            }
            outcome += slots.settle(clock, times);
            self.check_routes(writer);
        }
        outcome += writer.slots(self).merge(times);
        self.merged(writer, outcome);
        if writer.unsettled.is_none() && writer.unstable == 0 {
            writer.promised = 0;
        }
        self.leave(writer, times);
        self.forget_entries(times);
        if let Some(delay) = self.due(writer, times.now) {
            // A packet may have asked for another run meanwhile, which is to come soon.
            self.work.arm_if_idle(delay);
        }
    }
}
