// SPDX-License-Identifier: GPL-2.0

use mhs_core::hash::*;

/// The first eight of the vectors in the SipHash paper's reference: key 00..0f, message 00..n.
const VECTORS: [u64; 8] = [
    0x726f_db47_dd0e_0e31,
    0x74f8_39c5_93dc_67fd,
    0x0d6c_8009_d9a9_4f5a,
    0x8567_6696_d7fb_7e2d,
    0xcf27_94e0_2771_87b7,
    0x1876_5564_cd99_a68d,
    0xcbc9_466e_58fe_e3ce,
    0xab02_00f5_8b01_d137,
];

const KEY: Key = Key {
    k0: 0x0706_0504_0302_0100,
    k1: 0x0f0e_0d0c_0b0a_0908,
};

#[test]
fn published_vectors() {
    let message: Vec<u8> = (0..64).collect();
    for (n, vector) in VECTORS.iter().enumerate() {
        assert_eq!(siphash24(&KEY, &message[..n]), *vector, "{n} bytes");
    }
    // The one worked out in appendix A of the paper, 15 bytes.
    assert_eq!(siphash24(&KEY, &message[..15]), 0xa129_ca61_49be_45e5);
}

#[test]
fn client_is_siphash_of_the_bytes() {
    let v4 = [192, 0, 2, 33];
    let v6: [u8; 16] = core::array::from_fn(|i| (i * 17) as u8);
    for port in [0, 1, 80, 0x1234, 65535u16] {
        let with = |addr: &[u8]| [addr, &port.to_be_bytes()].concat();
        assert_eq!(
            client(&KEY, &Addr::V4(v4), Some(port)),
            siphash24(&KEY, &with(&v4))
        );
        assert_eq!(
            client(&KEY, &Addr::V6(v6), Some(port)),
            siphash24(&KEY, &with(&v6))
        );
    }
    assert_eq!(client(&KEY, &Addr::V4(v4), None), siphash24(&KEY, &v4));
    assert_eq!(client(&KEY, &Addr::V6(v6), None), siphash24(&KEY, &v6));
}

#[test]
fn slots_are_in_range_and_even() {
    let mut counts = [0u32; 251];
    for i in 0..251_000u64 {
        counts[slot(siphash24(&KEY, &i.to_le_bytes()), 251) as usize] += 1;
    }
    assert!(
        counts.iter().all(|&n| (850..1150).contains(&n)),
        "{counts:?}"
    );
    assert_eq!(slot(u64::MAX, 251), 250);
    assert_eq!(slot(0, 251), 0);
}
