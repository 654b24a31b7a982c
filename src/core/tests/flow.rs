// SPDX-License-Identifier: GPL-2.0

use mhs_core::flow::*;
use mhs_core::hash::Addr;
use proptest::prelude::*;

fn v4(proto: u8, options: usize, l4: &[u8]) -> Vec<u8> {
    let mut p = vec![0; 20 + options];
    p[0] = 0x45 + (options / 4) as u8;
    p[9] = proto;
    p[12..16].copy_from_slice(&[192, 0, 2, 1]);
    p[16..20].copy_from_slice(&[198, 51, 100, 2]);
    p.extend(l4);
    p
}

fn v6(next: u8, rest: &[u8]) -> Vec<u8> {
    let mut p = vec![0; 40];
    p[0] = 0x60;
    p[6] = next;
    p[8] = 0xfd;
    p[23] = 1;
    p[24] = 0xfe;
    p[39] = 2;
    p.extend(rest);
    p
}

fn tcp(flags: u8) -> Vec<u8> {
    let mut t = vec![0; 20];
    t[..4].copy_from_slice(&[0x12, 0x34, 0, 80]);
    t[13] = flags;
    t
}

#[test]
fn tcp_kinds() {
    for (flags, kind) in [
        (0x02, Kind::New),
        (0x12, Kind::Other),
        (0x10, Kind::Other),
        (0x11, Kind::Other),
        (0x04, Kind::Abort),
        (0x14, Kind::Abort),
        (0x06, Kind::Abort),
        (0x00, Kind::Other),
        (0xc2, Kind::New),
    ] {
        let flow = parse(false, &v4(6, 0, &tcp(flags))[..]).unwrap();
        assert_eq!(flow.kind, kind, "flags {flags:#x}");
        assert_eq!((flow.sport, flow.dport, flow.l4), (0x1234, 80, 20));
        assert_eq!(flow.src, Addr::V4([192, 0, 2, 1]));
        assert_eq!(flow.dst, Addr::V4([198, 51, 100, 2]));
        assert_eq!(parse(true, &v6(6, &tcp(flags))[..]).unwrap().kind, kind);
    }
}

#[test]
fn other_protocols() {
    let udp = [0, 53, 1, 0, 0, 8, 0, 0];
    let flow = parse(false, &v4(17, 0, &udp)[..]).unwrap();
    assert_eq!((flow.proto, flow.kind), (Proto::Udp, Kind::Other));
    assert_eq!((flow.sport, flow.dport), (53, 256));
    for (chunk, kind) in [
        (0, Kind::Other),
        (1, Kind::New),
        (2, Kind::Other),
        (6, Kind::Abort),
        (14, Kind::Other),
    ] {
        let mut sctp = [0; 13];
        sctp[..4].copy_from_slice(&[1, 2, 3, 4]);
        sctp[12] = chunk;
        for flow in [
            parse(false, &v4(132, 0, &sctp)[..]).unwrap(),
            parse(true, &v6(132, &sctp)[..]).unwrap(),
        ] {
            assert_eq!((flow.proto, flow.kind), (Proto::Sctp, kind));
            assert_eq!((flow.sport, flow.dport), (0x0102, 0x0304));
        }
    }
    for proto in (0..=255).filter(|p| ![6, 17, 132].contains(p)) {
        assert!(parse(false, &v4(proto, 0, &[0; 64])[..]).is_none());
    }
    // ESP, ICMPv6, nothing, mobility, host identity, shim: not followed.
    for next in [50, 58, 59, 135, 139, 140] {
        assert!(parse(true, &v6(next, &[0; 64])[..]).is_none());
    }
}

/// What a router says about a packet that a server sent to a client.
fn icmp_error(v6: bool, kind: u8, quoted: &[u8]) -> Vec<u8> {
    let icmp = [&[kind, 0, 0, 0, 0, 0, 5, 220][..], quoted].concat();
    match v6 {
        true => self::v6(58, &icmp),
        false => self::v4(1, 4, &icmp),
    }
}

#[test]
fn icmp_errors() {
    // Eight bytes of the transport header are quoted, and no more need be.
    let ports = [0, 80, 0x12, 0x34, 0, 0, 0, 0];
    let cases = [(6, Proto::Tcp), (17, Proto::Udp), (132, Proto::Sctp)];
    for (number, proto) in cases {
        for (v6, quoted, kinds, l3) in [
            (false, v4(number, 8, &ports), &[3, 4, 11][..], 24 + 8),
            (true, self::v6(number, &ports), &[1, 2, 3, 4, 127], 40 + 8),
        ] {
            for kind in 0..=255 {
                let flow = parse(v6, &icmp_error(v6, kind, &quoted)[..]);
                let Some(flow) = flow else {
                    assert!(!kinds.contains(&kind), "type {kind}");
                    continue;
                };
                assert!(kinds.contains(&kind) || (v6 && kind < 128), "type {kind}");
                assert_eq!((flow.proto, flow.kind), (proto, Kind::Error));
                // The client is whom the quoted packet was for.
                assert_eq!((flow.sport, flow.dport), (0x1234, 80));
                let straight = parse(v6, &icmp_error(v6, 3, &quoted)[l3..]);
                assert!(straight.is_none() || number != 6);
                assert_eq!((flow.l3, flow.l4), (l3, l3 + if v6 { 40 } else { 28 }));
                match (flow.src, flow.dst) {
                    (Addr::V4(src), Addr::V4(dst)) => {
                        assert_eq!((src, dst), ([198, 51, 100, 2], [192, 0, 2, 1]));
                    }
                    (Addr::V6(src), Addr::V6(dst)) => {
                        assert_eq!((src[0], dst[0]), (0xfe, 0xfd));
                    }
                    _ => unreachable!(),
                }
            }
        }
    }
    // About the first fragment of a packet: it has ports. About a later one: it has none.
    let mut first = v4(17, 0, &ports);
    first[6] = 0x20;
    assert!(parse(false, &icmp_error(false, 3, &first)[..]).is_some());
    first[7] = 1;
    assert!(parse(false, &icmp_error(false, 3, &first)[..]).is_none());
    let mut first = self::v6(44, &[&[17, 0, 0, 1, 0, 0, 0, 0][..], &ports].concat());
    assert!(parse(true, &icmp_error(true, 2, &first)[..]).is_some());
    first[40 + 3] = 8;
    assert!(parse(true, &icmp_error(true, 2, &first)[..]).is_none());
    // An error about an error, one of the other family, and one that is a fragment itself.
    let quoted = v4(6, 0, &ports);
    let twice = icmp_error(false, 3, &icmp_error(false, 3, &quoted));
    assert!(parse(false, &twice[..]).is_none());
    assert!(parse(true, &icmp_error(true, 1, &quoted)[..]).is_none());
    assert!(parse(false, &v4(58, 0, &[&[1; 8][..], &quoted].concat())[..]).is_none());
    let mut fragment = icmp_error(false, 3, &quoted);
    fragment[6] = 0x20;
    assert!(parse(false, &fragment[..]).is_none());
}

#[test]
fn addresses_of_v6() {
    let flow = parse(true, &v6(6, &tcp(2))[..]).unwrap();
    let (mut src, mut dst) = ([0; 16], [0; 16]);
    (src[0], src[15], dst[0], dst[15]) = (0xfd, 1, 0xfe, 2);
    assert_eq!((flow.src, flow.dst), (Addr::V6(src), Addr::V6(dst)));
    assert_eq!((flow.sport, flow.dport, flow.l4), (0x1234, 80, 40));
}

#[test]
fn options_and_extensions() {
    assert_eq!(parse(false, &v4(6, 40, &tcp(2))[..]).unwrap().l4, 60);
    // hop-by-hop (8), routing (16), AH (12), then TCP.
    let chain = [
        &[43u8, 0, 0, 0, 0, 0, 0, 0][..],
        &[51, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        &[6, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        &tcp(2),
    ]
    .concat();
    assert_eq!(
        parse(true, &v6(0, &chain)[..]).unwrap().l4,
        40 + 8 + 16 + 12
    );
    // As many as there are.
    for n in [1, 8, 9, 100, 8000] {
        let mut many = [60u8, 0, 0, 0, 0, 0, 0, 0].repeat(n);
        many[8 * (n - 1)] = 6;
        many.extend(tcp(2));
        let flow = parse(true, &v6(60, &many)[..]);
        assert_eq!(flow.map(|flow| flow.l4), Some(40 + 8 * n));
        // Cut short in one of them.
        assert!(parse(true, &v6(60, &many[..8 * n - 7])[..]).is_none());
    }
}

#[test]
fn fragments_and_nonsense() {
    for (at, bits) in [(6, 0x20), (6, 0x01), (7, 0x01), (0, 0x04), (0, 0x10)] {
        let mut p = v4(6, 0, &tcp(2));
        if at == 0 {
            p[0] = if bits == 4 { 0x44 } else { 0x65 }
        } else {
            p[at] = bits
        }
        assert!(parse(false, &p[..]).is_none(), "byte {at} {bits:#x}");
    }
    let mut dont_fragment = v4(6, 0, &tcp(2));
    dont_fragment[6] = 0x40;
    assert!(parse(false, &dont_fragment[..]).is_some());
    let mut wrong = v6(6, &tcp(2));
    assert!(parse(true, &wrong[..]).is_some());
    wrong[0] = 0x40;
    assert!(parse(true, &wrong[..]).is_none());
    // The first fragment of a packet, as IPVS sees it; a later one.
    for (bits, first) in [(0, true), (1, true), (8, false), (0x10, false)] {
        let fragment = [&[6, 0, 0, bits, 0, 0, 0, 0][..], &tcp(2)].concat();
        let flow = parse(true, &v6(44, &fragment)[..]);
        assert_eq!(flow.map(|flow| flow.l4), first.then_some(48), "{bits}");
        let inside = [&[44, 0, 0, 0, 0, 0, 0, 0][..], &fragment].concat();
        let flow = parse(true, &v6(0, &inside)[..]);
        assert_eq!(flow.map(|flow| flow.l4), first.then_some(56), "{bits}");
    }
    assert!(parse(false, &v6(6, &tcp(2))[..]).is_none());
    assert!(parse(true, &v4(6, 0, &tcp(2))[..]).is_none());
}

#[test]
fn cut_short_anywhere() {
    let chain = [&[51u8, 0, 0, 0, 0, 0, 0, 0][..], &[17, 0, 0, 0, 0, 0, 0, 0]].concat();
    for (v6, p) in [
        (false, v4(6, 0, &tcp(2))),
        (false, v4(6, 8, &tcp(2))),
        (false, v4(17, 0, &[0; 8])),
        (false, v4(132, 0, &[0; 13])),
        (true, v6(6, &tcp(2))),
        (true, v6(132, &[0; 13])),
        (true, v6(43, &[chain, vec![0; 8]].concat())),
        (false, icmp_error(false, 3, &v4(6, 0, &[0; 4]))),
        (true, icmp_error(true, 2, &v6(6, &[0; 4]))),
    ] {
        for n in 0..p.len() {
            let flow = parse(v6, &p[..n]);
            assert!(flow.is_none(), "{n} of {} bytes: {flow:?}", p.len());
        }
        assert!(parse(v6, &p[..]).is_some());
    }
}

/// What a router says of a packet that was too large, with the header of each kind of tunnel.
#[test]
fn too_large_for_a_tunnel() {
    let inside = v4(6, 4, &[0x12, 0x34, 0, 80, 0, 0, 0, 0]);
    let udp = [0, 1, 0, 2, 0, 0, 0, 0];
    let tunnels: [(u8, Vec<u8>); 5] = [
        (4, vec![]),
        (47, vec![0, 0, 8, 0]),
        (47, vec![0x80, 0, 8, 0, 1, 2, 3, 4]),
        (17, [&udp[..], &[0, 4, 0, 0]].concat()),
        (
            17,
            [&udp[..], &[2, 4, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]].concat(),
        ),
    ];
    for (number, header) in tunnels {
        let quoted = v4(number, 0, &[&header[..], &inside].concat());
        let mut packet = icmp_error(false, 3, &quoted);
        assert_eq!(
            too_large(&packet[..]),
            None,
            "unreachable, but not for its size"
        );
        packet[25] = 4;
        let said = too_large(&packet[..]).unwrap();
        assert_eq!(said.server, Addr::V4([198, 51, 100, 2]));
        assert_eq!((said.mtu, said.outer), (1500, 32));
        assert_eq!(said.flow.src, Addr::V4([192, 0, 2, 1]));
        assert_eq!((said.flow.sport, said.flow.dport), (0x1234, 80));
        assert_eq!(said.flow.l3, 52 + header.len());
        // All of it is needed, up to the ports.
        for n in 0..said.flow.l4 + 4 {
            assert_eq!(too_large(&packet[..n]), None);
        }
        packet[24] = 11;
        assert_eq!(too_large(&packet[..]), None);
    }
    for (number, header) in [
        (6, vec![]),
        (47, vec![0x20, 0, 8, 0]),
        (47, vec![0, 0, 0x86, 0xdd]),
        (17, [&udp[..], &[0x20, 4, 0, 0]].concat()),
        (17, [&udp[..], &[0, 41, 0, 0]].concat()),
    ] {
        let quoted = v4(number, 0, &[&header[..], &inside].concat());
        let mut packet = icmp_error(false, 3, &quoted);
        packet[25] = 4;
        assert_eq!(too_large(&packet[..]), None, "{number} {header:?}");
    }
}

/// Counts copies: a plain packet in one piece is read where it is.
struct Counted(Vec<u8>, core::cell::Cell<u32>);

impl Bytes for Counted {
    fn view<const N: usize>(&self, offset: usize) -> Option<&[u8; N]> {
        self.0[..].view(offset)
    }

    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.1.set(self.1.get() + 1);
        self.0[..].read(offset)
    }
}

#[test]
fn no_copies() {
    for (v6, p) in [(false, v4(6, 0, &tcp(2))), (true, v6(6, &tcp(2)))] {
        let counted = Counted(p, 0.into());
        assert!(parse(v6, &counted).is_some());
        assert_eq!(counted.1.get(), 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    /// Whatever comes: no panic, and what is found is in the packet.
    #[test]
    fn any_bytes(
        v6: bool,
        sane: bool,
        next in proptest::sample::select(vec![0u8, 1, 6, 17, 43, 51, 58, 60, 132]),
        mut bytes in proptest::collection::vec(prop_oneof![Just(0), Just(60), any::<u8>()], 0..200),
    ) {
        if let (true, [first, ..]) = (sane, &mut bytes[..]) {
            *first = if v6 { 0x60 } else { 0x40 | *first & 15 };
            let at = if v6 { 6 } else { 9 };
            bytes.get_mut(at).into_iter().for_each(|b| *b = next);
            bytes.get_mut(7).filter(|_| !v6).into_iter().for_each(|b| *b = 0);
            bytes.get_mut(6).filter(|_| !v6).into_iter().for_each(|b| *b = 0);
        }
        mhs_fuzz::flow::check(v6, &bytes);
    }
}
