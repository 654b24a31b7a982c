// SPDX-License-Identifier: GPL-2.0

//! Connection entries.

use super::{
    bindings,
    express::Way,
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
use crate::pure::flow::{
    Bytes,
    Flow,
    Kind,
    Proto, //
};
use core::{
    marker::PhantomData,
    ptr::{
        self,
        NonNull, //
    },
};

/// An entry that was found, and left as it was.
///
/// # Invariants
///
/// `conn` is valid and one reference to it is ours.
pub(crate) struct Found<'a> {
    conn: NonNull<bindings::ip_vs_conn>,
    rcu: PhantomData<Reader<'a>>,
}

impl<'a> Found<'a> {
    /// Looks for the entry of a packet.
    pub(crate) fn of(svc: &Svc, skb: &Skb<'_>, flow: &Flow, _rcu: Reader<'a>) -> Option<Self> {
        let header = IpHeader::new(flow);
        // SAFETY: All arguments are valid, and we are in a critical section.
        let conn = unsafe {
            bindings::ip_vs_conn_in_get_proto(
                svc.netns().as_ptr(),
                i32::from((*svc.as_ptr()).af),
                skb.as_ptr(),
                &header.0,
            )
        };
        // INVARIANT: The function returns a referenced entry, or null.
        NonNull::new(conn).map(|conn| Self {
            conn,
            rcu: PhantomData,
        })
    }

    /// Its server, if it has one.
    pub(crate) fn dest(&self) -> Option<&'a Dest> {
        // SAFETY: The entry is valid; it holds its server, which is freed a grace period after the
        // last reference and thus not before the end of the critical section.
        unsafe {
            let dest = self.conn.as_ref().dest;
            (!dest.is_null()).then(|| Dest::from_raw(dest))
        }
    }

    /// How its packets get to the server.
    pub(crate) fn method(&self) -> Method {
        // SAFETY: The entry is valid.
        unsafe { Method::of(self.conn.as_ptr()) }
    }

    /// Sends a packet by the entry, as IPVS would if no backup listens, or another way. It comes
    /// back if IPVS has more to do with it: where addresses are changed.
    pub(crate) fn forward<'b>(
        self,
        svc: &Svc,
        dest: &Dest,
        skb: Skb<'b>,
        flow: &Flow,
        way: Option<Way<'_>>,
    ) -> Result<Verdict, Skb<'b>> {
        if !self.method().is_stateless() {
            return Err(skb);
        }
        let conn = core::mem::ManuallyDrop::new(self).conn;
        // SAFETY: By the type invariants the entry is valid and the reference ours to give away.
        unsafe { transmit(conn, svc, dest, skb, flow, way) }
    }

    /// Whether the flow is over for IPVS, so that a packet which begins one begins another: see
    /// `is_new_conn_expected()`.
    pub(crate) fn is_over(&self) -> bool {
        // SAFETY: The entry is valid.
        unsafe { bindings::mhs_conn_is_over(self.conn.as_ptr()) }
    }

    /// Has it end now instead of when its time has come.
    pub(crate) fn expire(self) {
        // SAFETY: The entry is valid.
        unsafe { bindings::mhs_conn_expire_now(self.conn.as_ptr()) };
    }
}

impl Drop for Found<'_> {
    fn drop(&mut self) {
        // SAFETY: By the type invariants the reference is ours. The timer is left alone.
        unsafe { bindings::mhs_conn_put_untouched(self.conn.as_ptr()) };
    }
}

/// Makes an entry that keeps the flow of `skb` on `dest`, and sends the packet.
///
/// If there is no memory, or no room in the table of entries, the packet comes back. So does one of a
/// flow that lives on `dest` by another method than that has now: an entry could not say so.
pub(crate) fn pin<'a>(
    svc: &Svc,
    dest: &Dest,
    method: Method,
    skb: Skb<'a>,
    flow: &Flow,
) -> Result<Verdict, Skb<'a>> {
    let (client, virt) = (skb::to_raw(&flow.src), skb::to_raw(&flow.dst));
    let param = bindings::ip_vs_conn_param {
        ipvs: svc.netns().as_ptr(),
        caddr: &client,
        vaddr: &virt,
        cport: flow.sport.to_be(),
        vport: flow.dport.to_be(),
        protocol: flow.proto as u16,
        // SAFETY: The service is valid.
        af: unsafe { (*svc.as_ptr()).af },
        pe: ptr::null(),
        pe_data: ptr::null_mut(),
        pe_data_len: 0,
    };
    let raw = dest.as_ptr();
    // SAFETY: All arguments are valid; the server's family, address and port never change.
    let conn = unsafe {
        let port = if (*raw).port == 0 {
            param.vport
        } else {
            (*raw).port
        };
        bindings::ip_vs_conn_new(
            &param,
            i32::from((*raw).af),
            &(*raw).addr,
            port,
            0,
            raw,
            skb.mark(),
        )
    };
    let Some(conn) = NonNull::new(conn) else {
        return Err(skb);
    };
    // SAFETY: The function returns an entry.
    let made = unsafe { Method::of(conn.as_ptr()) };
    if flow.kind != Kind::New && !method.is_followed_by(made) {
        // SAFETY: It comes with a reference that is ours.
        unsafe { bindings::mhs_conn_drop(conn.as_ptr()) };
        return Err(skb);
    }
    if half_closes(&skb, flow) {
        // SAFETY: As above.
        unsafe { bindings::mhs_conn_establish(conn.as_ptr()) };
    }
    // SAFETY: The function returns an entry with a reference that is ours.
    unsafe { transmit(conn, svc, dest, skb, flow, None) }
}

/// Whether the client has no more to send, and may have a lot to receive: TCP FIN.
fn half_closes(skb: &Skb<'_>, flow: &Flow) -> bool {
    const FLAGS: usize = 13;
    const FIN: u8 = 1;
    flow.proto == Proto::Tcp
        && flow.kind == Kind::Other
        && skb
            .read(flow.l4 + FLAGS)
            .is_some_and(|[flags]: [u8; 1]| flags & FIN != 0)
}

/// Takes a packet through its entry: what `ip_vs_in_hook()` does, in the same order.
///
/// # Safety
///
/// `conn` must be a valid entry for a server of `svc`, and one reference to it the caller's, who
/// gives it away.
unsafe fn transmit<'a>(
    conn: NonNull<bindings::ip_vs_conn>,
    svc: &Svc,
    dest: &Dest,
    skb: Skb<'a>,
    flow: &Flow,
    way: Option<Way<'_>>,
) -> Result<Verdict, Skb<'a>> {
    let conn = conn.as_ptr();
    // SAFETY: The namespace is valid. Protocol data lives as long.
    let pd = unsafe {
        let pd = bindings::ip_vs_proto_data_get(svc.netns().as_ptr(), flow.proto as u16);
        pd.as_ref().map(|data| (pd, data.pp))
    };
    // SAFETY: The entry is valid. Another CPU that finds its server gone binds it to a new one, and
    // so its transmitter anew: read once, a word, as IPVS itself does.
    let xmit = unsafe { (&raw const (*conn).packet_xmit).read_volatile() };
    let (Some((pd, pp)), Some(xmit)) = (pd, xmit) else {
        // SAFETY: The reference is ours.
        unsafe { bindings::ip_vs_conn_put(conn) };
        return Err(skb);
    };
    dest.count(svc, skb.bytes(), flow.kind == Kind::New);
    let mut header = IpHeader::without_addrs(flow);
    // SAFETY: `pp` belongs to `pd`; the packet is ours to give away, and so is the reference.
    unsafe {
        if let Some(transition) = (*pp).state_transition {
            let input = bindings::IP_VS_DIR_INPUT as i32;
            transition(conn, input, skb.as_ptr(), pd, header.0.len);
        }
        let verdict = match way {
            Some(way) => way.send(skb, header),
            None => {
                if Method::of(conn) == Method::Direct {
                    dest.check_route();
                }
                Verdict::from_raw(xmit(skb.into_raw(), conn, pp, &mut header.0) as u32)
            }
        };
        bindings::mhs_conn_count_packet(conn);
        bindings::ip_vs_conn_put(conn);
        Ok(verdict)
    }
}
