// SPDX-License-Identifier: GPL-2.0

//! Packets.
//!
//! C header: [`include/linux/skbuff.h`](srctree/include/linux/skbuff.h)

use super::{
    bindings,
    netns::{
        Netns,
        Settings, //
    }, //
};
use crate::pure::flow::{
    Bytes,
    Flow,
    Kind, //
};
use crate::pure::hash::Addr;
use core::marker::PhantomData;

/// A packet in a hook. Whoever has it decides what becomes of it, once.
///
/// # Invariants
///
/// `skb` is valid for `'a`, or until it is handed on by [`Skb::into_raw`]. Its data begin with the IP
/// header, as wherever the IP layer calls netfilter.
pub(crate) struct Skb<'a> {
    skb: *mut bindings::sk_buff,
    /// See `enum mhs_look_bits`.
    look: u64,
    lifetime: PhantomData<&'a bindings::sk_buff>,
}

impl Skb<'_> {
    /// # Safety
    ///
    /// `skb` must be valid for the lifetime of the result, or until it is handed on, and come from a
    /// hook of the IP layer.
    pub(super) unsafe fn from_raw(skb: *mut bindings::sk_buff) -> Self {
        // INVARIANT: By the safety requirements.
        Self {
            skb,
            look: 0,
            lifetime: PhantomData,
        }
    }

    /// A packet that is for this host.
    ///
    /// # Safety
    ///
    /// As for [`Skb::from_raw`]; `net` must be the valid namespace that it is in.
    #[inline]
    pub(super) unsafe fn from_hook(skb: *mut bindings::sk_buff, net: *const bindings::net) -> Self {
        // INVARIANT: By the safety requirements.
        Self {
            skb,
            // SAFETY: Both are valid by the safety requirements.
            look: unsafe { bindings::mhs_skb_look(skb, net) },
            lifetime: PhantomData,
        }
    }

    /// A packet that comes straight from a device.
    ///
    /// # Safety
    ///
    /// As for [`Skb::from_hook`].
    #[inline]
    pub(super) unsafe fn from_device(
        skb: *mut bindings::sk_buff,
        net: *const bindings::net,
    ) -> Self {
        // INVARIANT: By the safety requirements.
        Self {
            skb,
            // SAFETY: Both are valid by the safety requirements.
            look: unsafe { bindings::mhs_skb_look_early(skb, net) },
            lifetime: PhantomData,
        }
    }

    #[inline]
    pub(super) fn as_ptr(&self) -> *mut bindings::sk_buff {
        self.skb
    }

    #[inline]
    pub(super) fn into_raw(self) -> *mut bindings::sk_buff {
        self.skb
    }

    /// Whether IPVS would look at it: for this host, routed, and not seen by IPVS before. One that
    /// comes straight from a device: whether it can be sent on, as it is, without being routed.
    #[inline]
    pub(crate) fn is_candidate(&self) -> bool {
        self.look >> bindings::mhs_look_bits_MHS_LOOK_CANDIDATE != 0
    }

    /// Bytes from the IP header to the end.
    #[inline]
    pub(crate) fn bytes(&self) -> u32 {
        // SAFETY: By the type invariants `skb` is valid.
        unsafe { (*self.skb).len }
    }

    /// The settings of its namespace when it came.
    #[inline]
    pub(crate) fn settings(&self) -> Settings {
        Settings((self.look >> bindings::mhs_look_bits_MHS_LOOK_SETTINGS) as u8 & 0x7f)
    }

    /// The firewall mark.
    #[inline]
    pub(crate) fn mark(&self) -> u32 {
        self.look as u32
    }

    /// The routes of the IPv4 packet whose header an ICMP message quotes at `offset` take at most
    /// `mtu` bytes from now on. Nothing happens if the message is damaged.
    pub(crate) fn learn_mtu(&mut self, netns: &Netns, offset: usize, mtu: u16) {
        let offset = offset as u32;
        // SAFETY: By the type invariants `skb` is valid, and nobody has a view of its data, since `self` is borrowed for good;
        // the function checks its length, and leaves it as it was.
        unsafe { bindings::mhs_skb_learn_mtu(self.skb, netns.as_ptr(), offset, u32::from(mtu)) };
    }
}

impl Bytes for Skb<'_> {
    #[inline(always)]
    fn view<const N: usize>(&self, offset: usize) -> Option<&[u8; N]> {
        // SAFETY: By the type invariants `skb` is valid.
        let skb = unsafe { &*self.skb };
        let linear = skb.len.wrapping_sub(skb.data_len) as usize;
        if offset.checked_add(N)? > linear {
            return None;
        }
        // SAFETY: The linear part has `linear` bytes from `data` on, so all of the `N` are in. They
        // stay where they are while `self` is borrowed: what moves them takes it for good. It is
        // nowhere near null, which the compiler cannot know.
        Some(unsafe {
            let bytes = skb.data.add(offset).cast::<[u8; N]>();
            core::hint::assert_unchecked(!bytes.is_null());
            &*bytes
        })
    }

    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        let offset = i32::try_from(offset).ok()?;
        // SAFETY: `bytes` has room for `N`; the function checks the packet's own length.
        let error = unsafe {
            bindings::skb_copy_bits(self.skb, offset, bytes.as_mut_ptr().cast(), N as i32)
        };
        (error == 0).then_some(bytes)
    }
}

/// An address as IPVS stores it, unused bytes zero.
#[inline(always)]
pub(super) fn to_raw(addr: &Addr) -> bindings::nf_inet_addr {
    let mut bytes = [0; 16];
    match addr {
        Addr::V4(a) => bytes[..4].copy_from_slice(a),
        Addr::V6(a) => bytes = *a,
    }
    // SAFETY: Any 16 bytes are an address, of either family.
    unsafe { core::mem::transmute::<[u8; 16], bindings::nf_inet_addr>(bytes) }
}

/// An address out of what IPVS stores.
pub(super) fn from_raw(v6: bool, raw: &bindings::nf_inet_addr) -> Addr {
    // SAFETY: The union is 16 bytes, and all of them are initialised wherever IPVS has one.
    let bytes = unsafe { core::mem::transmute::<bindings::nf_inet_addr, [u8; 16]>(*raw) };
    if v6 {
        Addr::V6(bytes)
    } else {
        let [a, b, c, d, ..] = bytes;
        Addr::V4([a, b, c, d])
    }
}

/// The headers of a packet in the form that IPVS passes around (`struct ip_vs_iphdr`).
pub(crate) struct IpHeader(pub(super) bindings::ip_vs_iphdr);

impl IpHeader {
    /// Of a packet of `flow`.
    pub(super) fn new(flow: &Flow) -> Self {
        let mut header = Self::without_addrs(flow);
        let (from, to) = match flow.kind {
            // Of the packet that the error quotes, which went the other way.
            Kind::Error => (&flow.dst, &flow.src),
            _ => (&flow.src, &flow.dst),
        };
        header.0.saddr = to_raw(from);
        header.0.daddr = to_raw(to);
        header
    }

    /// For transmitters, which send to the server's address and do not look at those of the packet.
    #[inline(always)]
    pub(crate) fn without_addrs(flow: &Flow) -> Self {
        let flags = match flow.kind {
            Kind::Error => bindings::IP_VS_HDR_ICMP | bindings::IP_VS_HDR_INVERSE,
            _ => 0,
        };
        const NONE: Addr = Addr::V6([0; 16]);
        Self(bindings::ip_vs_iphdr {
            hdr_flags: flags as i32,
            off: flow.l3 as u32,
            len: flow.l4 as u32,
            fragoffs: 0,
            protocol: flow.proto as i16,
            flags: 0,
            saddr: to_raw(&NONE),
            daddr: to_raw(&NONE),
        })
    }
}

/// The headers of a packet that IPVS wants scheduled.
pub(crate) struct Scheduled<'a>(pub(super) &'a bindings::ip_vs_iphdr);

impl Scheduled<'_> {
    fn has(&self, flag: u32) -> bool {
        self.0.hdr_flags as u32 & flag != 0
    }

    /// The headers were found inside an ICMP error.
    pub(crate) fn in_icmp(&self) -> bool {
        self.has(bindings::IP_VS_HDR_ICMP)
    }

    /// The transport protocol's number.
    pub(crate) fn protocol(&self) -> i16 {
        self.0.protocol
    }

    /// The client's address and port, the latter 0 if the packet is too short.
    pub(crate) fn client(&self, v6: bool, skb: &Skb<'_>) -> (Addr, u16) {
        let inverse = self.has(bindings::IP_VS_HDR_INVERSE);
        let addr = if inverse {
            &self.0.daddr
        } else {
            &self.0.saddr
        };
        let ports: Option<[u8; 4]> = self.transport(skb);
        let port = ports.map_or(0, |[a, b, c, d]| {
            u16::from_be_bytes(if inverse { [c, d] } else { [a, b] })
        });
        (from_raw(v6, addr), port)
    }

    /// The first bytes of the transport header.
    pub(crate) fn transport<const N: usize>(&self, skb: &Skb<'_>) -> Option<[u8; N]> {
        skb.read(self.0.len as usize)
    }
}
