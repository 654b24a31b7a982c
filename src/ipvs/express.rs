// SPDX-License-Identifier: GPL-2.0

//! Transmission to a server without a connection entry.
//!
//! IPVS's transmitters are not exported, but an entry knows the one for its server. So an entry of
//! each kind is made once, never hashed, to learn its transmitter. That gets an image of an entry, one
//! for all packets of a server, with what it reads of it. Transmitters for direct routing and tunnels
//! only read it.

use super::{
    bindings,
    hook::Verdict,
    rcu::Reader,
    service::{
        Dest,
        DestId,
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
        AtomicPtr,
        Ordering, //
    },
};
use kernel::types::Opaque;

/// The transmitters that are known: by the families of client and server, and the method. What is
/// not known yet is null. They are of IPVS, which stays for as long as this module does.
static TRANSMITTERS: [AtomicPtr<()>; 8] = [const { AtomicPtr::new(ptr::null_mut()) }; 8];

/// What a transmitter is for: families as IPVS has them, and the flag of the method.
#[derive(Clone, Copy)]
struct Kind {
    af: u16,
    daf: u16,
    method: u32,
}

impl Kind {
    fn all() -> impl Iterator<Item = (Self, &'static AtomicPtr<()>)> {
        let families = [bindings::AF_INET as u16, bindings::AF_INET6 as u16];
        let methods = [bindings::IP_VS_CONN_F_DROUTE, bindings::IP_VS_CONN_F_TUNNEL];
        let kinds = families.into_iter().flat_map(move |af| {
            families.into_iter().flat_map(move |daf| {
                methods
                    .into_iter()
                    .map(move |method| Self { af, daf, method })
            })
        });
        kinds.zip(TRANSMITTERS.iter())
    }

    /// Its transmitter. All that are not known yet are asked for, so that none is when the table of
    /// entries is full.
    fn transmitter(self, svc: &Svc) -> Option<Transmitter> {
        let mut mine = ptr::null_mut();
        for (kind, known) in Self::all() {
            let mut transmitter = known.load(Ordering::Relaxed);
            if transmitter.is_null() {
                transmitter = kind.ask(svc).map_or(ptr::null_mut(), |it| it as *mut ());
                if !transmitter.is_null() {
                    known.store(transmitter, Ordering::Relaxed);
                }
            }
            if (kind.af, kind.daf, kind.method) == (self.af, self.daf, self.method) {
                mine = transmitter;
            }
        }
        // SAFETY: Not null, it was a transmitter before.
        (!mine.is_null()).then(|| unsafe { core::mem::transmute::<*mut (), Transmitter>(mine) })
    }

    /// Makes an entry without a server for it, and looks.
    fn ask(self, svc: &Svc) -> Option<Transmitter> {
        let nobody = skb::to_raw(&crate::pure::hash::Addr::V6([0; 16]));
        let param = bindings::ip_vs_conn_param {
            ipvs: svc.netns().as_ptr(),
            caddr: &nobody,
            vaddr: &nobody,
            cport: 0,
            vport: 0,
            protocol: bindings::IPPROTO_TCP as u16,
            af: self.af,
            pe: ptr::null(),
            pe_data: ptr::null_mut(),
            pe_data_len: 0,
        };
        // SAFETY: Entries belong to softirqs: with those off and `param` valid, an entry is made, read
        // while it is ours alone, and given back. One for one packet is never hashed, so nobody else
        // sees it.
        unsafe {
            bindings::mhs_local_bh_disable();
            let probe = bindings::ip_vs_conn_new(
                &param,
                i32::from(self.daf),
                &nobody,
                0,
                bindings::IP_VS_CONN_F_ONE_PACKET | self.method,
                ptr::null_mut(),
                0,
            );
            let transmitter = probe.as_ref().and_then(|probe| probe.packet_xmit);
            if !probe.is_null() {
                bindings::ip_vs_conn_put(probe);
            }
            bindings::mhs_local_bh_enable();
            transmitter
        }
    }
}

/// A family in the type that entries have for it, which is another one in other kernels.
fn family<T: TryFrom<u16>>(af: u16) -> Option<T> {
    T::try_from(af).ok()
}

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
/// - `xmit` is that, or [`check_and_send`] where it is not null.
pub(crate) struct Express {
    dest: *mut bindings::ip_vs_dest,
    held: AtomicBool,
    method: Method,
    xmit: AtomicPtr<()>,
    conn: Opaque<bindings::ip_vs_conn>,
}

// SAFETY: A server may be used and released by any thread; `conn` is never changed.
unsafe impl Send for Express {}
// SAFETY: As above.
unsafe impl Sync for Express {}

impl Express {
    /// Takes a reference to `dest` and, if packets may get there without an entry, finds the way.
    ///
    /// If its transmitter is not known yet, and there is no memory for an entry or no room in the
    /// table of entries, the way stays closed and [`Express::should_open`] says so.
    pub(crate) fn new(svc: &Svc, dest: &Dest) -> Self {
        let (method, alone) = (dest.method(), dest.is_untouched());
        let conn = Self::image(svc, dest, method).unwrap_or_else(Self::blank);
        let xmit = conn.packet_xmit.map_or(ptr::null_mut(), |it| it as *mut ());
        // SAFETY: `dest` is valid, so it has a reference to be added to.
        unsafe { bindings::mhs_dest_hold(dest.as_ptr()) };
        // INVARIANT: The reference was just taken; `conn` and `xmit` as made above.
        let express = Self {
            dest: dest.as_ptr(),
            held: AtomicBool::new(true),
            method,
            xmit: AtomicPtr::new(xmit),
            conn: Opaque::new(conn),
        };
        if !alone {
            express.share();
        }
        express
    }

    /// Packets may go there in other ways, too. All packets to a server share the route that IPVS has
    /// found for one, and direct routing cannot use every one. A server that nothing led to when it
    /// became a member has no other ways until its method changes.
    pub(crate) fn share(&self) {
        if self.method == Method::Direct && self.is_open() {
            // INVARIANT: `xmit` was not null.
            self.xmit
                .store(check_and_send as Transmitter as *mut (), Ordering::Relaxed);
        }
    }

    /// Forgets a route to the server by which direct routing would not arrive.
    pub(crate) fn check_route(&self, rcu: Reader<'_>) {
        if self.method == Method::Direct {
            if let Some(dest) = self.dest(rcu) {
                dest.check_route();
            }
        }
    }

    fn blank() -> bindings::ip_vs_conn {
        // SAFETY: The structure consists of numbers, pointers that may be null and an optional
        // function, for all of which zero is a value.
        unsafe { MaybeUninit::zeroed().assume_init() }
    }

    /// What a transmitter reads of an entry. Not that its packets are to be tracked
    /// (`IP_VS_CONN_F_NFCT`): whoever wants that has entries.
    fn image(svc: &Svc, dest: &Dest, method: Method) -> Option<bindings::ip_vs_conn> {
        let (svc_raw, raw) = (svc.as_ptr(), dest.as_ptr());
        let flags = method.flag()?;
        // SAFETY: Both are valid; families, addresses and ports never change.
        let (af, daf, vaddr, daddr, vport, dport) = unsafe {
            (
                (*svc_raw).af,
                (*raw).af,
                (*svc_raw).addr,
                (*raw).addr,
                (*svc_raw).port,
                (*raw).port,
            )
        };
        let kind = Kind {
            af,
            daf,
            method: flags,
        };
        Some(bindings::ip_vs_conn {
            af: family(af)?,
            daf: family(daf)?,
            dport: if dport == 0 { vport } else { dport },
            dest: raw,
            flags,
            vaddr,
            daddr,
            vport,
            // A service by mark has none, and transmitters ask for none.
            protocol: match svc.protocol() {
                0 => bindings::IPPROTO_TCP as u16,
                protocol => protocol,
            },
            ipvs: svc.netns().as_ptr(),
            packet_xmit: Some(kind.transmitter(svc)?),
            ..Self::blank()
        })
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

    /// Which server it leads to.
    pub(crate) fn dest_id(&self) -> DestId {
        DestId::of(self.dest)
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
        let xmit = self.xmit.load(Ordering::Relaxed);
        // SAFETY: By the type invariants this is null or a transmitter.
        let xmit = unsafe { core::mem::transmute::<*mut (), Option<Transmitter>>(xmit) }?;
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
/// `conn` is an image of an entry for a server that is valid for `'a`; `xmit` is its transmitter, or
/// [`check_and_send`].
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

/// Direct routing to a server where packets go in other ways, too.
///
/// # Safety
///
/// As for the transmitter of `conn`, an image of an entry for a server that is valid.
unsafe extern "C" fn check_and_send(
    skb: *mut bindings::sk_buff,
    conn: *mut bindings::ip_vs_conn,
    pp: *mut bindings::ip_vs_protocol,
    header: *mut bindings::ip_vs_iphdr,
) -> core::ffi::c_int {
    // SAFETY: By the safety requirements.
    unsafe {
        Dest::from_raw((*conn).dest).check_route();
        match (*conn).packet_xmit {
            Some(xmit) => xmit(skb, conn, pp, header),
            None => bindings::NF_DROP as core::ffi::c_int,
        }
    }
}

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
