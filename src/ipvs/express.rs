// SPDX-License-Identifier: GPL-2.0

//! Transmission to a server without a connection entry.
//!
//! IPVS's transmitters are not exported, but an entry knows the one for its server. So an entry is
//! made once, never hashed, and what a transmitter reads of it is copied into an object that serves
//! every packet. Transmitters for direct routing and tunnels only read it.

use super::{
    bindings,
    hook::Verdict,
    rcu::Reader,
    service::{
        Dest,
        Method,
        Svc, //
    },
    skb::{
        self,
        IpHeader,
        Skb, //
    },
};
use core::{
    mem::MaybeUninit,
    ptr,
    sync::atomic::{
        AtomicBool,
        Ordering, //
    },
};
use kernel::types::Opaque;

/// The way to a server, and a reference to it.
///
/// The reference is given back by [`Express::release`], at once, since IPVS counts on it when a
/// namespace goes away. IPVS frees a server a grace period after its last reference, so who sees
/// the reference held inside a critical section may use the server to the end of that section.
///
/// # Invariants
///
/// - While `held`, a reference to `dest` is ours.
/// - `conn` is an image of an entry for `dest`, or `packet_xmit` of it is `None`. It is never
///   changed.
pub(crate) struct Express {
    dest: *mut bindings::ip_vs_dest,
    held: AtomicBool,
    method: Method,
    conn: Opaque<bindings::ip_vs_conn>,
}

// SAFETY: A server may be used and released by any thread; `conn` is never changed.
unsafe impl Send for Express {}
// SAFETY: As above.
unsafe impl Sync for Express {}

impl Express {
    /// Takes a reference to `dest` and, if packets may get there without an entry, finds the way.
    ///
    /// If there is no memory for an entry, or no room in the table of entries, the way stays closed
    /// and [`Express::should_open`] says so.
    pub(crate) fn new(svc: &Svc, dest: &Dest) -> Self {
        let method = dest.method();
        let conn = method.is_stateless().then(|| Self::image(svc, dest));
        let conn = conn.flatten().unwrap_or_else(Self::blank);
        // SAFETY: `dest` is valid, so it has a reference to be added to.
        unsafe { bindings::mhs_dest_hold(dest.as_ptr()) };
        // INVARIANT: The reference was just taken; `conn` as made above.
        Self {
            dest: dest.as_ptr(),
            held: AtomicBool::new(true),
            method,
            conn: Opaque::new(conn),
        }
    }

    fn blank() -> bindings::ip_vs_conn {
        // SAFETY: The structure consists of numbers, pointers that may be null and an optional
        // function, for all of which zero is a value.
        unsafe { MaybeUninit::zeroed().assume_init() }
    }

    fn image(svc: &Svc, dest: &Dest) -> Option<bindings::ip_vs_conn> {
        let client = skb::to_raw(&crate::pure::hash::Addr::V6([0; 16]));
        let param = bindings::ip_vs_conn_param {
            ipvs: svc.netns().as_ptr(),
            caddr: &client,
            // SAFETY: The service is valid.
            vaddr: unsafe { &raw const (*svc.as_ptr()).addr },
            cport: 0,
            // SAFETY: As above.
            vport: unsafe { (*svc.as_ptr()).port },
            // A service by mark has none, and transmitters ask for none.
            protocol: match svc.protocol() {
                0 => bindings::IPPROTO_TCP as u16,
                protocol => protocol,
            },
            // SAFETY: As above.
            af: unsafe { (*svc.as_ptr()).af },
            pe: ptr::null(),
            pe_data: ptr::null_mut(),
            pe_data_len: 0,
        };
        // SAFETY: Entries belong to softirqs: with those off, `param` and `dest` valid, an entry
        // is made, read while it is ours alone, and given back. One for one packet is never
        // hashed, so nobody else sees it.
        unsafe {
            let raw = dest.as_ptr();
            let port = if (*raw).port == 0 {
                param.vport
            } else {
                (*raw).port
            };
            bindings::mhs_local_bh_disable();
            let probe = bindings::ip_vs_conn_new(
                &param,
                i32::from((*raw).af),
                &(*raw).addr,
                port,
                bindings::IP_VS_CONN_F_ONE_PACKET,
                raw,
                0,
            );
            let image = probe.as_ref().map(|probe| bindings::ip_vs_conn {
                af: probe.af,
                daf: probe.daf,
                dport: probe.dport,
                dest: probe.dest,
                flags: probe.flags,
                vaddr: probe.vaddr,
                daddr: probe.daddr,
                vport: probe.vport,
                protocol: probe.protocol,
                ipvs: probe.ipvs,
                packet_xmit: probe.packet_xmit,
                ..Self::blank()
            });
            if !probe.is_null() {
                bindings::ip_vs_conn_put(probe);
            }
            bindings::mhs_local_bh_enable();
            image
        }
    }

    /// Gives the reference back. Afterwards packets cannot be sent this way any more.
    pub(crate) fn release(&self) {
        if self.held.swap(false, Ordering::AcqRel) {
            // SAFETY: By the type invariants the reference was ours, and `held` says so no longer.
            unsafe { bindings::mhs_dest_put(self.dest) };
        }
    }

    /// How packets get there.
    pub(crate) fn method(&self) -> Method {
        self.method
    }

    /// The server.
    #[inline]
    pub(crate) fn dest<'a>(&self, _rcu: Reader<'a>) -> Option<&'a Dest> {
        // SAFETY: By the type invariants: the reference was held in this critical section, so the
        // server is valid to the end of it.
        (self.held.load(Ordering::Acquire)).then(|| unsafe { Dest::from_raw(self.dest) })
    }

    /// Whether there should be a way, and was not when this was made.
    pub(crate) fn should_open(&self) -> bool {
        self.method.is_stateless() && !self.is_open()
    }

    /// Whether this is the way to `dest`.
    pub(crate) fn leads_to(&self, dest: &Dest) -> bool {
        ptr::eq(self.dest, dest.as_ptr())
    }

    /// Whether packets may be sent without an entry.
    #[inline]
    pub(crate) fn is_open(&self) -> bool {
        // SAFETY: By the type invariants `conn` is initialised and never changed.
        unsafe { (*self.conn.get()).packet_xmit.is_some() }
    }

    /// The way for a packet and the server where it ends, unless the way is closed.
    #[inline]
    pub(crate) fn way<'a>(&'a self, rcu: Reader<'a>) -> Option<(Way<'a>, &'a Dest)> {
        // SAFETY: By the type invariants `conn` is initialised and never changed.
        let xmit = unsafe { (*self.conn.get()).packet_xmit }?;
        let dest = self.dest(rcu)?;
        let conn = &self.conn;
        // INVARIANT: They belong together; the server is valid, as was just seen.
        Some((Way { xmit, conn }, dest))
    }

    /// The server, if packets may be sent to its next hop at once.
    #[inline(always)]
    pub(crate) fn next_hop<'a>(&'a self, rcu: Reader<'a>) -> Option<&'a Dest> {
        match self.method {
            Method::Direct => self.dest(rcu),
            _ => None,
        }
    }
}

/// A transmitter, and what it needs.
///
/// # Invariants
///
/// `conn` is an image of an entry with this transmitter, for a server that is valid for `'a`.
pub(crate) struct Way<'a> {
    xmit: Transmitter,
    conn: &'a Opaque<bindings::ip_vs_conn>,
}

/// `packet_xmit` of an entry.
type Transmitter = unsafe extern "C" fn(
    *mut bindings::sk_buff,
    *mut bindings::ip_vs_conn,
    *mut bindings::ip_vs_protocol,
    *mut bindings::ip_vs_iphdr,
) -> core::ffi::c_int;

impl Way<'_> {
    /// Sends a packet.
    #[inline]
    pub(crate) fn send(self, skb: Skb<'_>, mut header: IpHeader) -> Verdict {
        // SAFETY: The packet is ours to give away; by the type invariants `conn` is an image of an
        // entry, which this kind of transmitter only reads, and its server is valid; the protocol
        // is not looked at.
        let verdict = unsafe {
            (self.xmit)(
                skb.into_raw(),
                self.conn.get(),
                ptr::null_mut(),
                &mut header.0,
            )
        };
        Verdict::from_raw(verdict as u32)
    }
}

impl Drop for Express {
    fn drop(&mut self) {
        self.release();
    }
}
