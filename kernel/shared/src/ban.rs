//! Where an address lies in the bitmaps that stand in front of the ban tables, and in the one in front of flows and validators.
//!
//! A clear bit proves that no ban touches the /24 (v4) or the /48 (v6), so a flood of spoofed sources costs two array
//! look-ups and never reaches a hash or a trie. A set bit proves nothing: the tables behind it decide.

use crate::abi::{BITS4_WORDS, BITS6_WORDS, HOST_WORDS};

/// A place in a bitmap of 64-bit words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bit {
    /// Index of the word.
    pub word: u32,
    /// The bit within the word, as a mask.
    pub mask: u64,
}

/// The bit of a v4 address's /24.
#[inline(always)]
pub const fn bit4(address: u32) -> Bit {
    let index = u32::from_be(address) >> 8;
    Bit { word: index >> 6 & (BITS4_WORDS - 1), mask: 1 << (index & 63) }
}

/// The bit of a v6 address's /48: its Fibonacci hash, 22 bits.
#[inline(always)]
pub const fn bit6(address: [u64; 2]) -> Bit {
    let prefix = u64::from_be(address[0]) >> 16;
    let index = (prefix.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 42) as u32;
    Bit { word: index >> 6 & (BITS6_WORDS - 1), mask: 1 << (index & 63) }
}

/// The bit of a v4 address in the bitmap of hosts that have flows or a validator's budget: its Fibonacci hash, 16 bits.
#[inline(always)]
pub const fn host4(address: u32) -> Bit {
    host(address as u64)
}

/// The bit of a v6 address in the same bitmap.
#[inline(always)]
pub const fn host6(address: [u64; 2]) -> Bit {
    host(address[0] ^ address[1].rotate_left(17))
}

#[inline(always)]
const fn host(address: u64) -> Bit {
    let index = (address.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 48) as u32;
    Bit { word: index >> 6 & (HOST_WORDS - 1), mask: 1 << (index & 63) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_last_slash_24_has_the_last_bit() {
        let last = bit4(u32::from_ne_bytes([255, 255, 255, 0]));
        assert_eq!(last, Bit { word: BITS4_WORDS - 1, mask: 1 << 63 });
        assert_eq!(bit4(u32::from_ne_bytes([0, 0, 0, 255])), Bit { word: 0, mask: 1 });
    }

    proptest! {
        #[test]
        fn an_address_shares_the_bit_of_its_prefix(octets: [u8; 4], host: u8) {
            let mut other = octets;
            other[3] = host;
            prop_assert_eq!(bit4(u32::from_ne_bytes(octets)), bit4(u32::from_ne_bytes(other)));
        }

        #[test]
        fn an_address_shares_the_bit_of_its_slash_48(octets: [u8; 16], host: [u8; 10]) {
            let halves = |o: [u8; 16]| [u64::from_ne_bytes(o[..8].try_into().unwrap()), u64::from_ne_bytes(o[8..].try_into().unwrap())];
            let mut other = octets;
            other[6..].copy_from_slice(&host);
            prop_assert_eq!(bit6(halves(octets)), bit6(halves(other)));
            prop_assert!(bit6(halves(octets)).word < BITS6_WORDS);
        }
    }
}
