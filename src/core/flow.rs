// SPDX-License-Identifier: GPL-2.0

//! What a packet is: whose flow, and whether it begins or ends it.

use super::hash::Addr;

/// The bytes of a packet from its IP header on.
pub trait Bytes {
    /// `N` bytes from `offset` where they are, or `None` if they are not in one piece.
    fn view<const N: usize>(&self, offset: usize) -> Option<&[u8; N]>;

    /// `N` bytes from `offset`, or `None` if the packet ends before.
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;
}

impl Bytes for [u8] {
    fn view<const N: usize>(&self, offset: usize) -> Option<&[u8; N]> {
        self.get(offset..)?.first_chunk()
    }

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
    /// It is an ICMP error about a packet that went from the server to the client, and is for that
    /// server.
    Error,
    /// Anything else.
    Other,
}

/// A packet of a flow, or an error about one: addresses and ports are those of the packets that the
/// client sends, also where an error quotes one of the other direction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Flow {
    /// The client.
    pub src: Addr,
    /// The virtual address.
    pub dst: Addr,
    /// The client's port, host order.
    pub sport: u16,
    /// The virtual port, host order.
    pub dport: u16,
    /// Transport protocol.
    pub proto: Proto,
    /// What it means for its flow.
    pub kind: Kind,
    /// Offset in bytes of the IP header that `src` and `dst` are from: 0, or where an error quotes
    /// it.
    pub l3: usize,
    /// Offset in bytes of the transport header that the ports are from.
    pub l4: usize,
}

/// A router's word that a packet which this host put into a tunnel was too large for the way to the
/// server (RFC 1191).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TooLarge {
    /// Where the tunnel ends.
    pub server: Addr,
    /// How many bytes the next hop takes.
    pub mtu: u16,
    /// Offset in bytes of the IP header that the router quotes, which this host had put in front.
    pub outer: usize,
    /// The flow of what is in the tunnel.
    pub flow: Flow,
}

/// An IP header, and where it ends.
struct Network {
    src: Addr,
    dst: Addr,
    proto: u8,
    /// IPv4: not whole, the first fragment of a packet.
    fragment: bool,
    l4: usize,
}

const TCP: u8 = Proto::Tcp as u8;
const UDP: u8 = Proto::Udp as u8;
const SCTP: u8 = Proto::Sctp as u8;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
const IPIP: u8 = 4;
const GRE: u8 = 47;

/// Reads the headers of an unfragmented packet, or of the packet that an ICMP error is about
/// (RFC 792, RFC 4443); `None` for any other packet and for one that is cut short.
///
/// IPv6: also of the first fragment. Where this is asked packets are whole again, but for fragments
/// that reassembly refuses and lets pass, which IPVS takes for packets.
#[inline]
pub fn parse<B: Bytes + ?Sized>(v6: bool, packet: &B) -> Option<Flow> {
    match plain(v6, packet) {
        Some(flow) => Some(flow),
        None => parse_slowly(v6, packet),
    }
}

/// [`parse`] for TCP and UDP without IP options, extension headers and fragments, both headers in
/// one piece, which is what almost every packet is; `None` for others. Laid out for speed: nothing
/// is copied.
#[inline(always)]
pub fn plain<B: Bytes + ?Sized>(v6: bool, packet: &B) -> Option<Flow> {
    let (src, dst, number, l4) = if v6 {
        let head: &[u8; 40] = packet.view(0)?;
        if head[0] >> 4 != 6 {
            return None;
        }
        let (src, dst) = head.split_at(8).1.split_at(16);
        let (src, dst) = (Addr::V6(*src.first_chunk()?), Addr::V6(*dst.first_chunk()?));
        (src, dst, head[6], 40)
    } else {
        let head: &[u8; 20] = packet.view(0)?;
        // Fragment bits are compared in network order: nothing to swap for each packet.
        if head[0] != 0x45 || u16::from_ne_bytes([head[6], head[7]]) & 0x3fffu16.to_be() != 0 {
            return None;
        }
        let src = Addr::V4([head[12], head[13], head[14], head[15]]);
        let dst = Addr::V4([head[16], head[17], head[18], head[19]]);
        (src, dst, head[9], 20)
    };
    let (ports, proto, kind) = match number {
        TCP => {
            let head: &[u8; 20] = packet.view(l4)?;
            (*head.first_chunk()?, Proto::Tcp, tcp_kind(head[13]))
        }
        UDP => {
            let head: &[u8; 8] = packet.view(l4)?;
            (*head.first_chunk()?, Proto::Udp, Kind::Other)
        }
        _ => return None,
    };
    let [sport, dport] = split(ports);
    Some(Flow {
        src,
        dst,
        sport,
        dport,
        proto,
        kind,
        l3: 0,
        l4,
    })
}

#[inline]
fn tcp_kind(flags: u8) -> Kind {
    const SYN: u8 = 2;
    const RST: u8 = 4;
    const ACK: u8 = 16;
    match flags & (SYN | RST | ACK) {
        SYN => Kind::New,
        flags if flags & RST != 0 => Kind::Abort,
        _ => Kind::Other,
    }
}

#[cold]
#[inline(never)]
fn parse_slowly<B: Bytes + ?Sized>(v6: bool, packet: &B) -> Option<Flow> {
    let net = network(v6, packet, 0).filter(|net| !net.fragment)?;
    let (ports, kind) = match net.proto {
        TCP => {
            let head: [u8; 20] = packet.read(net.l4)?;
            ([head[0], head[1], head[2], head[3]], tcp_kind(head[13]))
        }
        UDP => {
            let head: [u8; 8] = packet.read(net.l4)?;
            ([head[0], head[1], head[2], head[3]], Kind::Other)
        }
        SCTP => {
            // The common header and the type of the first chunk.
            let head: [u8; 13] = packet.read(net.l4)?;
            let kind = match head[12] {
                1 => Kind::New,
                6 => Kind::Abort,
                _ => Kind::Other,
            };
            ([head[0], head[1], head[2], head[3]], kind)
        }
        ICMP if !v6 => return error(v6, packet, net.l4),
        ICMPV6 if v6 => return error(v6, packet, net.l4),
        _ => return None,
    };
    let [sport, dport] = split(ports);
    Some(Flow {
        src: net.src,
        dst: net.dst,
        sport,
        dport,
        proto: proto(net.proto)?,
        kind,
        l3: 0,
        l4: net.l4,
    })
}

fn proto(number: u8) -> Option<Proto> {
    match number {
        TCP => Some(Proto::Tcp),
        UDP => Some(Proto::Udp),
        SCTP => Some(Proto::Sctp),
        _ => None,
    }
}

#[inline]
fn split([a, b, c, d]: [u8; 4]) -> [u16; 2] {
    [u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])]
}

/// The flow that an ICMP error at `icmp` is about. What it quotes went the other way.
fn error<B: Bytes + ?Sized>(v6: bool, packet: &B, icmp: usize) -> Option<Flow> {
    let [kind]: [u8; 1] = packet.read(icmp)?;
    let is_error = match v6 {
        true => kind < 128,
        // Unreachable (fragmentation needed is one), source quench, time exceeded: as IPVS.
        false => matches!(kind, 3 | 4 | 11),
    };
    if !is_error {
        return None;
    }
    let l3 = icmp.wrapping_add(8);
    let net = network(v6, packet, l3)?;
    let [dport, sport] = split(packet.read(net.l4)?);
    Some(Flow {
        src: net.dst,
        dst: net.src,
        sport,
        dport,
        proto: proto(net.proto)?,
        kind: Kind::Error,
        l3,
        l4: net.l4,
    })
}

/// Reads what an ICMP message says about a packet in an IPIP (RFC 2003), GRE (RFC 2784) or GUE
/// tunnel over IPv4, with IPv4 in it; `None` for any other packet. The same headers as IPVS
/// understands; IPv6 tunnels are left to the host, as there.
pub fn too_large<B: Bytes + ?Sized>(packet: &B) -> Option<TooLarge> {
    let [ICMP] = packet.read(9)? else {
        return None;
    };
    let icmp = network(false, packet, 0).filter(|net| !net.fragment)?.l4;
    let [3, 4, _, _, _, _, high, low]: [u8; 8] = packet.read(icmp)? else {
        return None;
    };
    let outer = icmp.wrapping_add(8);
    let tunnel = network(false, packet, outer)?;
    let inner = match tunnel.proto {
        IPIP => tunnel.l4,
        GRE => match packet.read(tunnel.l4)? {
            [0, 0, 8, 0] => tunnel.l4.wrapping_add(4),
            // With a checksum.
            [0x80, 0, 8, 0] => tunnel.l4.wrapping_add(8),
            _ => return None,
        },
        UDP => {
            // Version 0, data: the low bits say how many words of options follow.
            let [options @ 0..=31, IPIP, _, _] = packet.read(tunnel.l4.wrapping_add(8))? else {
                return None;
            };
            tunnel
                .l4
                .wrapping_add(12)
                .wrapping_add(usize::from(options) * 4)
        }
        _ => return None,
    };
    let net = network(false, packet, inner)?;
    let [sport, dport] = split(packet.read(net.l4)?);
    Some(TooLarge {
        server: tunnel.dst,
        mtu: u16::from_be_bytes([high, low]),
        outer,
        flow: Flow {
            src: net.src,
            dst: net.dst,
            sport,
            dport,
            proto: proto(net.proto)?,
            kind: Kind::Other,
            l3: inner,
            l4: net.l4,
        },
    })
}

/// The IP header at `at`; `None` for a fragment that is not the first. Offsets stay small: they grow
/// by what 8 bits can say at a time, and not beyond the end of the packet.
#[inline]
fn network<B: Bytes + ?Sized>(v6: bool, packet: &B, at: usize) -> Option<Network> {
    if v6 {
        let head: [u8; 40] = packet.read(at)?;
        if head[0] >> 4 != 6 {
            return None;
        }
        let (proto, l4) = skip_extensions(packet, head[6], at.wrapping_add(40))?;
        let (_, src) = head.split_at(8);
        let (src, dst) = src.split_at(16);
        Some(Network {
            src: Addr::V6(*src.first_chunk()?),
            dst: Addr::V6(*dst.first_chunk()?),
            proto,
            fragment: false,
            l4,
        })
    } else {
        let head: [u8; 20] = packet.read(at)?;
        let len = usize::from(head[0] & 15) * 4;
        let fragment = u16::from_be_bytes([head[6], head[7]]);
        if head[0] >> 4 != 4 || len < 20 || fragment & 0x1fff != 0 {
            return None;
        }
        Some(Network {
            src: Addr::V4([head[12], head[13], head[14], head[15]]),
            dst: Addr::V4([head[16], head[17], head[18], head[19]]),
            proto: head[9],
            // More fragments.
            fragment: fragment & 0x2000 != 0,
            l4: at.wrapping_add(len),
        })
    }
}

/// The transport protocol behind the extension headers, and where it starts.
fn skip_extensions<B: Bytes + ?Sized>(packet: &B, first: u8, start: usize) -> Option<(u8, usize)> {
    let (mut next, mut offset) = (first, start);
    // As many as there are (RFC 8200 sets no limit): where this gave up IPVS would go on, and make an
    // entry. The packet ends sometime, and every header takes some of it.
    loop {
        let unit = match next {
            // Hop-by-hop, routing, destination options: in units of 8 bytes.
            0 | 43 | 60 => 8,
            // Authentication header: in units of 4 bytes, less 1 unit of 8.
            51 => 4,
            // Fragment header: 8 bytes.
            44 => {
                let head: [u8; 4] = packet.read(offset)?;
                if u16::from_be_bytes([head[2], head[3]]) & 0xfff8 != 0 {
                    return None;
                }
                0
            }
            _ => return Some((next, offset)),
        };
        let [then, len]: [u8; 2] = packet.read(offset)?;
        offset = offset.wrapping_add(usize::from(len) * unit).wrapping_add(8);
        next = then;
    }
}
