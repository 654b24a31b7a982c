// SPDX-License-Identifier: GPL-2.0

//! Virtual services and their servers.
//!
//! C header: [`include/net/ip_vs.h`](srctree/include/net/ip_vs.h)

use super::{
    bindings,
    counters::{
        Counters,
        Cpu, //
    },
    netns::Netns,
    rcu::Reader,
    skb::{
        self,
        Skb, //
    }, //
};
use crate::pure::hash::Addr;
use core::sync::atomic::{
    AtomicBool,
    Ordering, //
};
use kernel::{
    container_of,
    prelude::*,
    types::Opaque, //
};

/// A `struct ip_vs_service`.
#[repr(transparent)]
pub(crate) struct Svc(Opaque<bindings::ip_vs_service>);

// SAFETY: What is read here never changes, or is read in one access.
unsafe impl Sync for Svc {}

impl Svc {
    /// # Safety
    ///
    /// `ptr` must be valid for all of `'a`.
    #[inline]
    pub(super) unsafe fn from_raw<'a>(ptr: *mut bindings::ip_vs_service) -> &'a Self {
        // SAFETY: The type is transparent, and the pointer valid by the safety requirements.
        unsafe { &*ptr.cast() }
    }

    #[inline]
    pub(super) fn as_ptr(&self) -> *mut bindings::ip_vs_service {
        self.0.get()
    }

    /// Whether clients speak IPv6.
    pub(crate) fn is_v6(&self) -> bool {
        // SAFETY: `self` is valid; the family never changes.
        u32::from(unsafe { (*self.as_ptr()).af }) == bindings::AF_INET6
    }

    /// The transport protocol's number, 0 for a service by firewall mark: those are for any, and IPVS
    /// notes TCP.
    pub(crate) fn protocol(&self) -> u16 {
        match self.fwmark() {
            // SAFETY: `self` is valid; the protocol never changes.
            0 => unsafe { (*self.as_ptr()).protocol },
            _ => 0,
        }
    }

    /// The virtual address.
    pub(crate) fn addr(&self) -> Addr {
        // SAFETY: `self` is valid; the address never changes.
        skb::from_raw(self.is_v6(), unsafe { &(*self.as_ptr()).addr })
    }

    /// The virtual port, host order; 0 for any.
    pub(crate) fn port(&self) -> u16 {
        // SAFETY: `self` is valid; the port never changes.
        u16::from_be(unsafe { (*self.as_ptr()).port })
    }

    /// Whether it is for all ports of an address. IPVS finds such a service, and schedules nothing for
    /// it but with persistence.
    pub(crate) fn is_any_port(&self) -> bool {
        self.port() == 0 && self.fwmark() == 0
    }

    /// The firewall mark, 0 for a service by address.
    pub(crate) fn fwmark(&self) -> u32 {
        // SAFETY: `self` is valid; the mark never changes.
        unsafe { (*self.as_ptr()).fwmark }
    }

    /// The flags as they are now: an edit of the service replaces them, so they are never kept.
    #[inline]
    pub(crate) fn flags(&self) -> SvcFlags {
        // SAFETY: `self` is valid; the flags are one word.
        SvcFlags(unsafe { (&raw const (*self.as_ptr()).flags).read_volatile() })
    }

    /// New flows that IPVS has counted on a CPU, those without an entry included.
    pub(crate) fn conns(&self, cpu: Cpu) -> u64 {
        // SAFETY: `self` is valid, and so is the number of a possible CPU.
        unsafe { bindings::mhs_svc_conns(self.as_ptr(), cpu.number()) }
    }

    /// IPVS in the namespace of the service.
    pub(crate) fn netns(&self) -> &Netns {
        // SAFETY: A service does not outlive its namespace.
        unsafe { Netns::from_raw((*self.as_ptr()).ipvs) }
    }

    /// The servers as they are now: one that comes or goes meanwhile may be among them or not.
    pub(crate) fn dests_now<'a>(&'a self, _rcu: Reader<'a>) -> impl Iterator<Item = &'a Dest> {
        // SAFETY: We are in a critical section.
        unsafe { self.walk() }
    }

    /// # Safety
    ///
    /// The list of servers must stand still for all of `'a`, or all of that be one critical section:
    /// servers are put on the list and taken off it as RCU asks for.
    unsafe fn walk<'a>(&'a self) -> impl Iterator<Item = &'a Dest> {
        // SAFETY: The service is valid and its list of servers initialised.
        let head = unsafe { &raw mut (*self.as_ptr()).destinations };
        // SAFETY: As above; a pointer is read in one access.
        let mut at = unsafe { (&raw const (*head).next).read_volatile() };
        core::iter::from_fn(move || {
            if at == head {
                return None;
            }
            // SAFETY: What is on the list is embedded in a server, and valid as the caller says.
            let dest = unsafe { container_of!(at, bindings::ip_vs_dest, n_list) };
            // SAFETY: As above.
            at = unsafe { (&raw const (*at).next).read_volatile() };
            // SAFETY: As above.
            Some(unsafe { Dest::from_raw(dest) })
        })
    }

    /// Logs, at a limited rate, why a new flow was refused.
    pub(crate) fn log_refusal(&self, why: &CStr) {
        // SAFETY: `self` is valid and `why` is a string.
        unsafe { bindings::ip_vs_scheduler_err(self.as_ptr(), why.as_char_ptr()) };
    }
}

/// The flags of a service at some time.
#[derive(Clone, Copy)]
pub(crate) struct SvcFlags(u32);

impl SvcFlags {
    #[inline]
    fn has(self, flag: u32) -> bool {
        self.0 & flag != 0
    }

    /// `-p`: a client stays with its server.
    #[inline]
    pub(crate) fn is_persistent(self) -> bool {
        self.has(bindings::IP_VS_SVC_F_PERSISTENT)
    }

    /// `-o`: a UDP packet is a flow of its own.
    #[inline]
    pub(crate) fn is_one_packet(self) -> bool {
        self.has(bindings::IP_VS_SVC_F_ONEPACKET)
    }

    /// `-b flag-1` (mh-fallback): an overloaded server's new flows go elsewhere.
    pub(crate) fn falls_back(self) -> bool {
        self.has(bindings::IP_VS_SVC_F_SCHED1)
    }

    /// `-b flag-2` (mh-port): the client's port is hashed too.
    #[inline]
    pub(crate) fn hashes_port(self) -> bool {
        self.has(bindings::IP_VS_SVC_F_SCHED2)
    }

    /// `-b flag-3`: every flow gets an entry, so that another scheduler can take over.
    #[inline]
    pub(crate) fn hands_over(self) -> bool {
        self.has(bindings::IP_VS_SVC_F_SCHED3)
    }
}

/// A service while IPVS changes it: evidence that its service mutex is held, so that the list of
/// servers stands still and the caller may sleep.
#[derive(Clone, Copy)]
pub(crate) struct Locked<'a>(&'a Svc);

impl<'a> Locked<'a> {
    /// # Safety
    ///
    /// The service mutex of the namespace must be held for all of `'a`.
    pub(super) unsafe fn assume(svc: &'a Svc) -> Self {
        Self(svc)
    }

    /// The servers, those of weight 0 too.
    pub(crate) fn dests(self) -> impl Iterator<Item = &'a Dest> {
        // SAFETY: The list stands still.
        unsafe { self.0.walk() }
    }
}

impl core::ops::Deref for Locked<'_> {
    type Target = Svc;

    fn deref(&self) -> &Svc {
        self.0
    }
}

/// A service that may go away: what a packet may hold of one.
///
/// A service is freed a grace period after its scheduler was told that it is done. Who sees `alive`
/// inside a critical section may therefore use the service until the end of that section.
///
/// # Invariants
///
/// `svc` is valid while `alive`, and for a grace period after.
pub(crate) struct SvcLink {
    svc: *mut bindings::ip_vs_service,
    alive: AtomicBool,
}

// SAFETY: Any thread may look at a service.
unsafe impl Send for SvcLink {}
// SAFETY: As above.
unsafe impl Sync for SvcLink {}

impl SvcLink {
    /// Remembers a service; [`SvcLink::cut`] must be called when it is done, see
    /// [`super::scheduler::Scheduler`].
    pub(super) fn new(svc: Locked<'_>) -> Self {
        // INVARIANT: A service is alive until its scheduler is told that it is done.
        Self {
            svc: svc.as_ptr(),
            alive: AtomicBool::new(true),
        }
    }

    pub(super) fn cut(&self) {
        self.alive.store(false, Ordering::Release);
    }

    /// The service, if it is still there.
    #[inline]
    pub(crate) fn get<'a>(&self, _rcu: Reader<'a>) -> Option<&'a Svc> {
        // SAFETY: By the type invariants: it was alive in this critical section, so it is valid to
        // the end of it.
        (self.alive.load(Ordering::Acquire)).then(|| unsafe { Svc::from_raw(self.svc) })
    }
}

/// How packets get to a server.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    /// Direct routing (`-g`).
    Direct,
    /// In a tunnel (`-i`).
    Tunnel,
    /// With another address (`-m`).
    Masquerade,
    /// Anything else.
    Other,
}

impl Method {
    /// Whether packets can be sent without an entry.
    pub(crate) fn is_stateless(self) -> bool {
        matches!(self, Self::Direct | Self::Tunnel)
    }

    /// Whether a server goes on as the same one when `next` takes the place of this method. If not,
    /// its flows go on in the way they came, as if it had been deleted: those without an entry can
    /// get none that says so.
    pub(crate) fn is_followed_by(self, next: Self) -> bool {
        self == next || self.is_stateless() && next.is_stateless()
    }

    /// That of an entry.
    ///
    /// # Safety
    ///
    /// `conn` must be valid.
    #[inline]
    pub(super) unsafe fn of(conn: *const bindings::ip_vs_conn) -> Self {
        // SAFETY: The entry is valid; its flags are one word.
        Self::from_flags(unsafe { (&raw const (*conn).flags).read_volatile() })
    }

    /// The flag of entries for it, if packets can be sent without one.
    pub(super) fn flag(self) -> Option<u32> {
        match self {
            Self::Direct => Some(bindings::IP_VS_CONN_F_DROUTE),
            Self::Tunnel => Some(bindings::IP_VS_CONN_F_TUNNEL),
            Self::Masquerade | Self::Other => None,
        }
    }

    fn from_flags(flags: u32) -> Self {
        match flags & bindings::IP_VS_CONN_F_FWD_MASK {
            bindings::IP_VS_CONN_F_DROUTE => Self::Direct,
            bindings::IP_VS_CONN_F_TUNNEL => Self::Tunnel,
            bindings::IP_VS_CONN_F_MASQ => Self::Masquerade,
            _ => Self::Other,
        }
    }
}

/// Which server: a number to compare and to sort by, not to look at.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct DestId(usize);

impl DestId {
    pub(super) fn of(dest: *mut bindings::ip_vs_dest) -> Self {
        Self(dest.addr())
    }
}

/// A server: a `struct ip_vs_dest`.
#[repr(transparent)]
pub(crate) struct Dest(Opaque<bindings::ip_vs_dest>);

// SAFETY: What is read here never changes, or is read in one access.
unsafe impl Sync for Dest {}

impl Dest {
    /// # Safety
    ///
    /// `ptr` must be valid for all of `'a`.
    #[inline]
    pub(super) unsafe fn from_raw<'a>(ptr: *mut bindings::ip_vs_dest) -> &'a Self {
        // SAFETY: The type is transparent, and the pointer valid by the safety requirements.
        unsafe { &*ptr.cast() }
    }

    #[inline]
    pub(super) fn as_ptr(&self) -> *mut bindings::ip_vs_dest {
        self.0.get()
    }

    /// What tells it from all others, for as long as it is there.
    pub(crate) fn id(&self) -> DestId {
        DestId::of(self.as_ptr())
    }

    /// Its address.
    pub(crate) fn addr(&self) -> Addr {
        let dest = self.as_ptr();
        // SAFETY: `self` is valid; address and family never change.
        unsafe { skb::from_raw(u32::from((*dest).af) == bindings::AF_INET6, &(*dest).addr) }
    }

    /// Its port, host order; 0 for that of the service.
    pub(crate) fn port(&self) -> u16 {
        // SAFETY: `self` is valid; the port never changes.
        u16::from_be(unsafe { (*self.as_ptr()).port })
    }

    /// Its weight now.
    pub(crate) fn weight(&self) -> u32 {
        // SAFETY: `self` is valid.
        u32::try_from(unsafe { bindings::mhs_dest_weight(self.as_ptr()) }).unwrap_or(0)
    }

    /// How packets get to it now.
    pub(crate) fn method(&self) -> Method {
        // SAFETY: `self` is valid.
        Method::from_flags(unsafe { bindings::mhs_dest_conn_flags(self.as_ptr()) } as u32)
    }

    /// Whether it has more connections than its upper threshold allows.
    #[inline]
    pub(crate) fn is_overloaded(&self) -> bool {
        // SAFETY: `self` is valid; the flags are one word.
        let flags = unsafe { (&raw const (*self.as_ptr()).flags).read_volatile() };
        flags & bindings::IP_VS_DEST_F_OVERLOAD != 0
    }

    /// Whether it is a server of its service, not one that was deleted.
    #[inline]
    pub(crate) fn is_available(&self) -> bool {
        // SAFETY: `self` is valid; the flags are one word.
        let flags = unsafe { (&raw const (*self.as_ptr()).cflags).read_volatile() };
        flags & bindings::IP_VS_DEST_CF_AVAILABLE as usize != 0
    }

    /// Whether the flows of a protocol without connections may stay with it.
    pub(crate) fn is_live(&self) -> bool {
        self.is_available() && self.weight() > 0
    }

    /// Whether a new flow may go to it.
    pub(crate) fn takes_new(&self) -> bool {
        self.is_live() && !self.is_overloaded()
    }

    /// Whether there is nothing yet by which packets go there, no entry, no [`Express`] and no route:
    /// nothing that may be of a time when its method was another.
    ///
    /// [`Express`]: super::express::Express
    pub(super) fn is_untouched(&self) -> bool {
        // SAFETY: `self` is valid.
        unsafe { bindings::mhs_dest_is_untouched(self.as_ptr()) }
    }

    /// Before a packet goes there by direct routing: forgets a route that was found for other
    /// methods, and by which it would not arrive.
    #[inline]
    pub(crate) fn check_route(&self) {
        // SAFETY: `self` is valid.
        unsafe { bindings::mhs_dest_check_route(self.as_ptr()) };
    }

    /// Sends a packet that comes straight from a device to this server's next hop, by the route that
    /// IPVS has found for it before. If there is none, or routes are not `routes` any more
    /// ([`Netns::routes`]), or the packet needs more or is of another family, it comes back as it was.
    #[inline]
    pub(crate) fn forward<'a>(
        &self,
        netns: &Netns,
        routes: u32,
        skb: Skb<'a>,
        v6: bool,
        _rcu: Reader<'_>,
    ) -> Result<(), Skb<'a>> {
        // SAFETY: The packet is ours to give away, and comes back if the function says so; the
        // server and the namespace are valid, and we are in a critical section.
        let sent =
            unsafe { bindings::mhs_forward(skb.as_ptr(), self.as_ptr(), netns.net(), routes, v6) };
        match sent {
            true => Ok(()),
            false => Err(skb),
        }
    }

    /// Counts a packet that was forwarded without an entry, in the statistics of the server, of
    /// `svc` and of the namespace.
    #[inline]
    pub(crate) fn count(&self, svc: &Svc, bytes: u32, is_new: bool) {
        // SAFETY: Both are valid.
        unsafe { bindings::mhs_stats_packet(self.as_ptr(), svc.as_ptr(), bytes, is_new) };
    }

    /// [`Dest::count`] for a packet without an entry, which the module's own counters count too:
    /// packets and bytes, first and second in those of the service and of the server.
    #[inline]
    pub(crate) fn count_stateless<const S: usize, const D: usize>(
        &self,
        svc: &Svc,
        bytes: u32,
        is_new: bool,
        of_service: &Counters<S>,
        of_server: &Counters<D>,
    ) {
        const {
            assert!(S >= 2 && D >= 2);
        }
        // SAFETY: All are valid, and there are two counters in each.
        unsafe {
            bindings::mhs_stats_stateless(
                self.as_ptr(),
                svc.as_ptr(),
                bytes,
                is_new,
                of_service.as_ptr(),
                of_server.as_ptr(),
            );
        }
    }
}

impl PartialEq for Dest {
    /// Whether both are the same server, not just two alike.
    fn eq(&self, other: &Self) -> bool {
        core::ptr::eq(self, other)
    }
}
