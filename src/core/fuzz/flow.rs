// SPDX-License-Identifier: GPL-2.0

//! Packets: no panic, and what is found is in the packet.

use mhs_core::flow::*;
use mhs_core::hash::Addr;

/// A packet whose headers are in one piece up to some byte, and can be copied from beyond.
struct Pieces<'a>(&'a [u8], usize);

impl Bytes for Pieces<'_> {
    fn view<const N: usize>(&self, offset: usize) -> Option<&[u8; N]> {
        self.0[..self.1].view(offset)
    }

    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.0.read(offset)
    }
}

/// Both addresses of the IP header at `l3`.
fn addrs(v6: bool, bytes: &[u8], l3: usize) -> (Addr, Addr) {
    match v6 {
        false => {
            let at = |at| Addr::V4(bytes[l3 + at..][..4].try_into().unwrap());
            (at(12), at(16))
        }
        true => {
            let at = |at| Addr::V6(bytes[l3 + at..][..16].try_into().unwrap());
            (at(8), at(24))
        }
    }
}

/// What a flow says of the packet it was read from. `whole`: its header is not one that is quoted.
fn flow_is_there(v6: bool, bytes: &[u8], flow: &Flow, whole: bool) {
    let (l3, l4) = (flow.l3, flow.l4);
    let (src, dst) = addrs(v6, bytes, l3);
    let port = |at| u16::from_be_bytes([bytes[l4 + at], bytes[l4 + at + 1]]);
    let (sport, dport) = (port(0), port(2));
    match flow.kind {
        Kind::Error => {
            assert_eq!((flow.src, flow.dst), (dst, src));
            assert_eq!((flow.sport, flow.dport), (dport, sport));
        }
        _ => {
            assert_eq!((flow.src, flow.dst), (src, dst));
            assert_eq!((flow.sport, flow.dport), (sport, dport));
        }
    }
    if v6 {
        assert_eq!(bytes[l3] >> 4, 6);
        let (mut next, mut at) = (bytes[l3 + 6], l3 + 40);
        while at != l4 {
            // RFC 8200, section 4, and RFC 4302, section 2.2.
            let len = match next {
                0 | 43 | 60 => (usize::from(bytes[at + 1]) + 1) * 8,
                51 => (usize::from(bytes[at + 1]) + 2) * 4,
                // The first fragment passes for the packet.
                44 => {
                    let offset = u16::from_be_bytes([bytes[at + 2], bytes[at + 3]]);
                    assert_eq!(offset & 0xfff8, 0);
                    8
                }
                _ => panic!("header {next} at {at} was skipped"),
            };
            (next, at) = (bytes[at], at + len);
            assert!(at <= l4);
        }
        assert_eq!(next, flow.proto as u8);
    } else {
        assert_eq!((bytes[l3] >> 4, bytes[l3 + 9]), (4, flow.proto as u8));
        assert_eq!(l4 - l3, usize::from(bytes[l3] & 15) * 4);
        let fragment = u16::from_be_bytes([bytes[l3 + 6], bytes[l3 + 7]]);
        assert_eq!(fragment & if whole { 0x3fff } else { 0x1fff }, 0);
    }
}

/// How many bytes of a packet are needed, no more and no less, to read this flow.
fn needs(flow: &Flow) -> usize {
    let transport = match flow.proto {
        _ if flow.kind == Kind::Error => 4,
        Proto::Tcp => 20,
        Proto::Udp => 8,
        Proto::Sctp => 13,
    };
    flow.l4 + transport
}

/// Reads a packet in every way there is.
pub fn check(v6: bool, bytes: &[u8]) {
    let flow = parse(v6, bytes);
    // The same, however it lies in memory.
    for piece in [0, 20, 39, 40, 59, 60] {
        let pieces = Pieces(bytes, piece.min(bytes.len()));
        assert_eq!(parse(v6, &pieces), flow);
    }
    let plain = plain(v6, bytes);
    assert!(plain.is_none() || plain == flow);

    if let Some(flow) = flow {
        flow_is_there(v6, bytes, &flow, flow.kind != Kind::Error);
        let end = needs(&flow);
        assert_eq!(parse(v6, &bytes[..end]), Some(flow));
        assert_eq!(parse(v6, &bytes[..end - 1]), None);
        assert_eq!(flow.kind == Kind::Error, flow.l3 != 0);
        let kind = match (flow.proto, flow.kind) {
            (_, Kind::Error) => Kind::Error,
            (Proto::Udp, _) => Kind::Other,
            (Proto::Tcp, _) => match bytes[flow.l4 + 13] {
                flags if flags & 4 != 0 => Kind::Abort,
                flags if flags & 18 == 2 => Kind::New,
                _ => Kind::Other,
            },
            (Proto::Sctp, _) => match bytes[flow.l4 + 12] {
                1 => Kind::New,
                6 => Kind::Abort,
                _ => Kind::Other,
            },
        };
        assert_eq!(flow.kind, kind);
    } else if let (false, [0x45, _, _, _, _, _, 0 | 0x40, 0, _, number, ..]) = (v6, bytes) {
        // Nothing that is as plain as this may be passed over.
        let least = match number {
            6 => 40,
            17 => 28,
            132 => 33,
            _ => usize::MAX,
        };
        assert!(bytes.len() < least, "a plain packet was not read");
    }

    if let Some(said) = too_large(bytes) {
        let (outer, flow) = (said.outer, said.flow);
        flow_is_there(false, bytes, &flow, false);
        assert_eq!(said.server, addrs(false, bytes, outer).1);
        assert!(outer >= 28 && outer < flow.l3);
        let icmp = outer - 8;
        assert_eq!((bytes[9], &bytes[icmp..][..2]), (1, &[3, 4][..]));
        assert_eq!(&bytes[icmp + 6..][..2], said.mtu.to_be_bytes());
        let tunnel = outer + usize::from(bytes[outer] & 15) * 4;
        let header = match (bytes[outer + 9], bytes[tunnel]) {
            (4, _) => 0,
            (47, flags) => 4 + usize::from(flags >> 7) * 4,
            (17, _) => 8 + 4 + usize::from(bytes[tunnel + 8] & 31) * 4,
            (other, _) => panic!("a tunnel by protocol {other}"),
        };
        assert_eq!(flow.l3, tunnel + header);
        assert_eq!(too_large(&bytes[..flow.l4 + 4]), Some(said));
        assert_eq!(too_large(&bytes[..flow.l4 + 3]), None);
    }
}
