// SPDX-License-Identifier: GPL-2.0

//! SipHash-2-4, and what is hashed with it.
//!
//! Source: J.-P. Aumasson, D. J. Bernstein, "SipHash: a fast short-input PRF" (2012).

/// An address: the whole of it, never folded, so that a client cannot steer by a weaker sum.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Addr {
    /// IPv4, in network order.
    V4([u8; 4]),
    /// IPv6, in network order.
    V6([u8; 16]),
}

impl Addr {
    /// Whether it is IPv6, and its bytes as a little-endian number.
    #[inline(always)]
    pub fn to_bits(self) -> (bool, u128) {
        match self {
            Self::V4(a) => (false, u128::from(u32::from_le_bytes(a))),
            Self::V6(a) => (true, u128::from_le_bytes(a)),
        }
    }

    /// The address of what [`Addr::to_bits`] returned.
    pub fn from_bits(v6: bool, bits: u128) -> Self {
        match v6 {
            false => Self::V4((bits as u32).to_le_bytes()),
            true => Self::V6(bits.to_le_bytes()),
        }
    }
}

/// A SipHash key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Key {
    /// Bytes 0 to 7, little endian.
    pub k0: u64,
    /// Bytes 8 to 15, little endian.
    pub k1: u64,
}

/// The key every balancer uses unless told otherwise: the binary digits of pi after the point, so
/// that balancers that were never introduced to each other agree.
pub const DEFAULT_KEY: Key = Key {
    k0: 0x243f_6a88_85a3_08d3,
    k1: 0x1319_8a2e_0370_7344,
};

impl Key {
    /// A key from the hexadecimal digits of its 16 bytes; `None` for anything else.
    pub fn from_hex(digits: &[u8]) -> Option<Self> {
        let word = |digits: &[u8]| {
            digits.chunks_exact(2).rev().try_fold(0, |word, pair| {
                let [high, low] = *pair.first_chunk()?;
                let digit = |c: u8| char::from(c).to_digit(16).map(u64::from);
                Some(word << 8 | digit(high)? << 4 | digit(low)?)
            })
        };
        let (k0, k1) = digits.split_at_checked(16)?;
        (k1.len() == 16).then_some(())?;
        Some(Self {
            k0: word(k0)?,
            k1: word(k1)?,
        })
    }

    /// Its 16 bytes, those of [`Key::from_hex`].
    pub fn to_bytes(self) -> [u8; 16] {
        (u128::from(self.k1) << 64 | u128::from(self.k0)).to_le_bytes()
    }
}

/// The four words that a message is mixed into; before that, what the key makes of them.
#[derive(Clone, Copy)]
pub struct State([u64; 4]);

impl State {
    /// The words before any message.
    pub fn new(key: &Key) -> Self {
        Self([
            key.k0 ^ 0x736f_6d65_7073_6575,
            key.k1 ^ 0x646f_7261_6e64_6f6d,
            key.k0 ^ 0x6c79_6765_6e65_7261,
            key.k1 ^ 0x7465_6462_7974_6573,
        ])
    }

    #[inline(always)]
    fn round(&mut self) {
        let [mut a, mut b, mut c, mut d] = self.0;
        a = a.wrapping_add(b);
        b = b.rotate_left(13) ^ a;
        a = a.rotate_left(32);
        c = c.wrapping_add(d);
        d = d.rotate_left(16) ^ c;
        a = a.wrapping_add(d);
        d = d.rotate_left(21) ^ a;
        c = c.wrapping_add(b);
        b = b.rotate_left(17) ^ c;
        c = c.rotate_left(32);
        self.0 = [a, b, c, d];
    }

    #[inline(always)]
    fn word(&mut self, m: u64) {
        self.0[3] ^= m;
        self.round();
        self.round();
        self.0[0] ^= m;
    }

    #[inline(always)]
    fn finish(mut self) -> u64 {
        self.0[2] ^= 0xff;
        self.round();
        self.round();
        self.round();
        self.round();
        self.0[0] ^ self.0[1] ^ self.0[2] ^ self.0[3]
    }
}

/// SipHash-2-4 of any bytes.
pub fn siphash24(key: &Key, data: &[u8]) -> u64 {
    let mut state = State::new(key);
    let mut chunks = data.chunks_exact(8);
    for chunk in &mut chunks {
        state.word(chunk.iter().rev().fold(0, |m, &b| (m << 8) | u64::from(b)));
    }
    let tail = chunks
        .remainder()
        .iter()
        .rev()
        .fold(0, |m, &b| (m << 8) | u64::from(b));
    state.word(((data.len() as u64) << 56) | tail);
    state.finish()
}

/// Hash of a client: its address, followed by its port in network order if there is one.
///
/// The same value as [`siphash24`] over those bytes, for the packet path: the key is mixed in
/// already, no loop, one block for IPv4 and three for IPv6.
#[inline(always)]
pub fn client(mut state: State, addr: &Addr, port: Option<u16>) -> u64 {
    let (tail, len) = match addr {
        Addr::V4(a) => (u64::from(u32::from_le_bytes(*a)), 4),
        Addr::V6(a) => {
            let a = u128::from_le_bytes(*a);
            state.word(a as u64);
            state.word((a >> 64) as u64);
            (0, 16)
        }
    };
    let port_shift = if len == 4 { 32 } else { 0 };
    let (tail, len) = match port {
        Some(port) => (tail | (u64::from(port.swap_bytes()) << port_shift), len + 2),
        None => (tail, len),
    };
    state.word((len << 56) | tail);
    state.finish()
}

/// What a hash of a server is for: the byte that makes its hashes independent of each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// Where its permutation starts.
    Offset = 0,
    /// How far its permutation leaps.
    Skip = 1,
    /// When its turn comes.
    Order = 2,
}

/// Hash of a server: address, port in network order, and one byte of purpose.
pub fn server(key: &Key, addr: &Addr, port: u16, purpose: Purpose) -> u64 {
    let [hi, lo] = port.to_be_bytes();
    let p = purpose as u8;
    match *addr {
        Addr::V4([a, b, c, d]) => siphash24(key, &[a, b, c, d, hi, lo, p]),
        Addr::V6(a) => {
            let mut bytes = [0; 19];
            for (to, from) in bytes.iter_mut().zip(a.iter().chain(&[hi, lo, p])) {
                *to = *from;
            }
            siphash24(key, &bytes)
        }
    }
}

/// The slot of a hash in a table of `size` slots, evenly and without a division.
#[inline]
pub fn slot(hash: u64, size: u32) -> u32 {
    ((u128::from(hash) * u128::from(size)) >> 64) as u32
}
