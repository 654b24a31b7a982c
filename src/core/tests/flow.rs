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
    p[24] = 0xfe;
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
    assert_eq!(
        parse(false, &v4(17, 0, &udp)[..]).unwrap().proto,
        Proto::Udp
    );
    for (chunk, kind) in [(1, Kind::New), (6, Kind::Abort), (0, Kind::Other)] {
        let mut sctp = [0; 13];
        sctp[12] = chunk;
        assert_eq!(parse(false, &v4(132, 0, &sctp)[..]).unwrap().kind, kind);
    }
    assert!(parse(false, &v4(1, 0, &[0; 64])[..]).is_none());
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
    let endless = [60u8, 0, 0, 0, 0, 0, 0, 0].repeat(100);
    assert!(parse(true, &v6(60, &endless)[..]).is_none());
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
    assert!(parse(true, &v6(44, &[6, 0, 0, 0, 0, 0, 0, 0])[..]).is_none());
    assert!(parse(true, &v4(6, 0, &tcp(2))[..]).is_none());
}

#[test]
fn cut_short_anywhere() {
    for p in [
        v4(6, 0, &tcp(2)),
        v4(6, 8, &tcp(2)),
        v4(17, 0, &[0; 8]),
        v4(132, 0, &[0; 13]),
    ] {
        for n in 0..p.len() {
            assert!(parse(false, &p[..n]).is_none(), "{n} of {} bytes", p.len());
        }
        assert!(parse(false, &p[..]).is_some());
    }
}

proptest! {
    #[test]
    fn any_bytes(v6: bool, bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Some(flow) = parse(v6, &bytes[..]) {
            prop_assert!(flow.l4 + 8 <= bytes.len());
        }
    }
}
