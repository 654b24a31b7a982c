// SPDX-License-Identifier: GPL-2.0

//! What a packet is: whose flow, and whether it begins or ends it.

use super::hash::Addr;

/// The bytes of a packet from its IP header on.
pub trait Bytes {
    /// `N` bytes from `offset`, or `None` if the packet ends before.
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;
}

impl Bytes for [u8] {
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.get(offset..)?.first_chunk().copied()
    }
}

/// The transport protocols that are balanced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Proto {
    /// TCP (RFC 9293).
    Tcp = 6,
    /// UDP (RFC 768).
    Udp = 17,
    /// SCTP (RFC 9260).
    Sctp = 132,
}

/// What a packet means for its flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// It begins one: TCP SYN without ACK, SCTP INIT.
    New,
    /// It ends one at once: TCP RST, SCTP ABORT.
    Abort,
    /// Anything else.
    Other,
}

/// A packet of a flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Flow {
    /// Who sent it.
    pub src: Addr,
    /// Whom it is for.
    pub dst: Addr,
    /// Source port, host order.
    pub sport: u16,
    /// Destination port, host order.
    pub dport: u16,
    /// Transport protocol.
    pub proto: Proto,
    /// What it means for its flow.
    pub kind: Kind,
    /// Offset of the transport header from the IP header, in bytes.
    pub l4: usize,
}

/// IPv6 extension headers that are skipped, at most (RFC 8200 sets no limit; IPVS neither).
const MAX_EXTENSIONS: usize = 8;

/// Reads the headers of an unfragmented packet; `None` for any other packet and for one that is
/// cut short.
#[inline]
pub fn parse<B: Bytes + ?Sized>(v6: bool, packet: &B) -> Option<Flow> {
    if v6 {
        let head: [u8; 40] = packet.read(0)?;
        if head[0] >> 4 != 6 {
            return None;
        }
        let (proto, l4) = skip_extensions(packet, head[6])?;
        let (_, src) = head.split_at(8);
        let (src, dst) = src.split_at(16);
        let src = Addr::V6(*src.first_chunk()?);
        let dst = Addr::V6(*dst.first_chunk()?);
        transport(packet, src, dst, proto, l4)
    } else {
        let head: [u8; 20] = packet.read(0)?;
        let l4 = usize::from(head[0] & 15) * 4;
        // More fragments, or not the first.
        let fragment = u16::from_be_bytes([head[6], head[7]]) & 0x3fff != 0;
        if head[0] >> 4 != 4 || l4 < 20 || fragment {
            return None;
        }
        let src = Addr::V4([head[12], head[13], head[14], head[15]]);
        let dst = Addr::V4([head[16], head[17], head[18], head[19]]);
        transport(packet, src, dst, head[9], l4)
    }
}

/// The transport protocol behind the extension headers, and where it starts.
fn skip_extensions<B: Bytes + ?Sized>(packet: &B, first: u8) -> Option<(u8, usize)> {
    let (mut next, mut offset) = (first, 40);
    for _ in 0..=MAX_EXTENSIONS {
        let unit = match next {
            // Hop-by-hop, routing, destination options: in units of 8 bytes.
            0 | 43 | 60 => 8,
            // Authentication header: in units of 4 bytes, less 1 unit of 8.
            51 => 4,
            _ => return Some((next, offset)),
        };
        let [then, len]: [u8; 2] = packet.read(offset)?;
        offset += usize::from(len) * unit + 8;
        next = then;
    }
    None
}

#[inline]
fn transport<B: Bytes + ?Sized>(
    packet: &B,
    src: Addr,
    dst: Addr,
    proto: u8,
    l4: usize,
) -> Option<Flow> {
    let (proto, ports, kind) = match proto {
        6 => {
            let head: [u8; 20] = packet.read(l4)?;
            let (syn, rst, ack) = (head[13] & 2 != 0, head[13] & 4 != 0, head[13] & 16 != 0);
            let kind = if rst {
                Kind::Abort
            } else if syn && !ack {
                Kind::New
            } else {
                Kind::Other
            };
            (Proto::Tcp, [head[0], head[1], head[2], head[3]], kind)
        }
        17 => {
            let head: [u8; 8] = packet.read(l4)?;
            let ports = [head[0], head[1], head[2], head[3]];
            (Proto::Udp, ports, Kind::Other)
        }
        132 => {
            // The common header and the type of the first chunk.
            let head: [u8; 13] = packet.read(l4)?;
            let kind = match head[12] {
                1 => Kind::New,
                6 => Kind::Abort,
                _ => Kind::Other,
            };
            (Proto::Sctp, [head[0], head[1], head[2], head[3]], kind)
        }
        _ => return None,
    };
    Some(Flow {
        src,
        dst,
        sport: u16::from_be_bytes([ports[0], ports[1]]),
        dport: u16::from_be_bytes([ports[2], ports[3]]),
        proto,
        kind,
        l4,
    })
}
