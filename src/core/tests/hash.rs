// SPDX-License-Identifier: GPL-2.0

use mhs_core::hash::*;
use proptest::prelude::*;

/// The vectors published with the paper's reference implementation (`vectors.h`, there as bytes):
/// key 00..0f, message 00..n.
const VECTORS: [u64; 64] = [
    0x726f_db47_dd0e_0e31,
    0x74f8_39c5_93dc_67fd,
    0x0d6c_8009_d9a9_4f5a,
    0x8567_6696_d7fb_7e2d,
    0xcf27_94e0_2771_87b7,
    0x1876_5564_cd99_a68d,
    0xcbc9_466e_58fe_e3ce,
    0xab02_00f5_8b01_d137,
    0x93f5_f579_9a93_2462,
    0x9e00_82df_0ba9_e4b0,
    0x7a5d_bbc5_94dd_b9f3,
    0xf4b3_2f46_226b_ada7,
    0x751e_8fbc_860e_e5fb,
    0x14ea_5627_c084_3d90,
    0xf723_ca90_8e7a_f2ee,
    0xa129_ca61_49be_45e5,
    0x3f2a_cc7f_57c2_9bdb,
    0x699a_e9f5_2cbe_4794,
    0x4bc1_b3f0_968d_d39c,
    0xbb6d_c91d_a779_61bd,
    0xbed6_5cf2_1aa2_ee98,
    0xd0f2_cbb0_2e3b_67c7,
    0x9353_6795_e3a3_3e88,
    0xa80c_038c_cd5c_cec8,
    0xb8ad_50c6_f649_af94,
    0xbce1_92de_8a85_b8ea,
    0x17d8_35b8_5bbb_15f3,
    0x2f2e_6163_076b_cfad,
    0xde4d_aaac_a71d_c9a5,
    0xa6a2_5066_8795_6571,
    0xad87_a353_5c49_ef28,
    0x32d8_92fa_d841_c342,
    0x7127_512f_72f2_7cce,
    0xa7f3_2346_f959_78e3,
    0x12e0_b01a_bb05_1238,
    0x15e0_34d4_0fa1_97ae,
    0x314d_ffbe_0815_a3b4,
    0x0279_90f0_2962_3981,
    0xcadc_d4e5_9ef4_0c4d,
    0x9abf_d876_6a33_735c,
    0x0e3e_a96b_5304_a7d0,
    0xad0c_42d6_fc58_5992,
    0x1873_06c8_9bc2_15a9,
    0xd4a6_0abc_f379_2b95,
    0xf935_451d_e4f2_1df2,
    0xa953_8f04_1975_5787,
    0xdb9a_cddf_f56c_a510,
    0xd06c_98cd_5c09_75eb,
    0xe612_a3cb_9ecb_a951,
    0xc766_e62c_fcad_af96,
    0xee64_435a_9752_fe72,
    0xa192_d576_b245_165a,
    0x0a87_87bf_8ecb_74b2,
    0x81b3_e73d_20b4_9b6f,
    0x7fa8_220b_a3b2_ecea,
    0x2457_31c1_3ca4_2499,
    0xb78d_bfaf_3a8d_83bd,
    0xea1a_d565_322a_1a0b,
    0x60e6_1c23_a379_5013,
    0x6606_d7e4_4628_2b93,
    0x6ca4_ecb1_5c5f_91e1,
    0x9f62_6da1_5c96_25f3,
    0xe51b_3860_8ef2_5f57,
    0x958a_324c_eb06_4572,
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
    // The one worked out in appendix A of the paper.
    assert_eq!(siphash24(&KEY, &message[..15]), 0xa129_ca61_49be_45e5);
}

proptest! {
    #[test]
    fn client_is_siphash_of_the_bytes(k0: u64, k1: u64, v4: [u8; 4], v6: [u8; 16], port: u16) {
        let key = Key { k0, k1 };
        let of = |parts: [&[u8]; 2]| siphash24(&key, &parts.concat());
        let port_bytes = port.to_be_bytes();
        prop_assert_eq!(client(State::new(&key), &Addr::V4(v4), None), of([&v4, &[]]));
        prop_assert_eq!(client(State::new(&key), &Addr::V4(v4), Some(port)), of([&v4, &port_bytes]));
        prop_assert_eq!(client(State::new(&key), &Addr::V6(v6), None), of([&v6, &[]]));
        prop_assert_eq!(client(State::new(&key), &Addr::V6(v6), Some(port)), of([&v6, &port_bytes]));
    }

    #[test]
    fn server_is_siphash_of_the_bytes_and_a_tag(v4: [u8; 4], v6: [u8; 16], port: u16) {
        for (tag, purpose) in [Purpose::Offset, Purpose::Skip, Purpose::Order].into_iter().enumerate() {
            let [hi, lo] = port.to_be_bytes();
            let tail = [hi, lo, tag as u8];
            let of = |addr: &[u8]| siphash24(&KEY, &[addr, &tail[..]].concat());
            prop_assert_eq!(server(&KEY, &Addr::V4(v4), port, purpose), of(&v4));
            prop_assert_eq!(server(&KEY, &Addr::V6(v6), port, purpose), of(&v6));
        }
    }
}

#[test]
fn addresses_have_an_order() {
    let sorted = [
        Addr::V4([9, 0, 0, 0]),
        Addr::V4([9, 0, 0, 1]),
        Addr::V4([200, 0, 0, 0]),
        Addr::V6([0; 16]),
        Addr::V6([1; 16]),
    ];
    assert!(sorted.windows(2).all(|pair| pair[0] < pair[1]));
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

#[test]
fn keys_in_hex() {
    // The default, as the module shows it in its parameter.
    let digits = b"d308a385886a3f24447370032e8a1913";
    assert_eq!(Key::from_hex(digits), Some(DEFAULT_KEY));
    assert_eq!(
        Key::from_hex(&digits.to_ascii_uppercase()),
        Some(DEFAULT_KEY)
    );
    for n in 0..32 {
        assert_eq!(Key::from_hex(&digits[..n]), None);
        let mut wrong = *digits;
        for c in *b"gG -+\0\xe4" {
            wrong[n] = c;
            assert_eq!(Key::from_hex(&wrong), None);
        }
    }
    assert_eq!(Key::from_hex(&[&digits[..], b"0"].concat()), None);
}

/// A key's bytes are those of its digits.
#[test]
fn keys_have_their_bytes() {
    let key = Key::from_hex(b"000102030405060708090a0b0c0d0e0f").unwrap();
    assert_eq!(key.to_bytes(), core::array::from_fn(|i| i as u8));
}
