//! The hash of the algorithms that hash. It is part of what several balancers in front of the same upstreams agree on, and the
//! next version of this program with this one: it never changes.

/// The FNV-1a hash of 64 bits, its bits mixed as in the end of MurmurHash3: FNV alone leaves the upper bits of short keys alike.
pub fn hash(bytes: &[u8]) -> u64 {
    let fnv = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    mix(bytes.iter().fold(0xcbf2_9ce4_8422_2325, fnv))
}

/// Another number for each number, unlike it in every bit.
pub(super) fn mix(mut bits: u64) -> u64 {
    bits ^= bits >> 33;
    bits = bits.wrapping_mul(0xff51_afd7_ed55_8ccd);
    bits ^= bits >> 33;
    bits = bits.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    bits ^ bits >> 33
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_never_changes() {
        // Of an empty text, of one byte, and of an address, as in every version.
        for (text, want) in [("", HASH_EMPTY), ("a", HASH_A), ("10.0.0.1:80", HASH_ADDRESS)] {
            assert_eq!(hash(text.as_bytes()), want, "{text:?}: {:#x}", hash(text.as_bytes()));
        }
    }

    const HASH_EMPTY: u64 = 0xefd0_1f60_ba99_2926;
    const HASH_A: u64 = 0x82a2_a958_a9be_ce5b;
    const HASH_ADDRESS: u64 = 0x5ed8_f827_5e47_a14a;

    #[test]
    fn each_bit_of_the_hash_is_set_for_half_of_all_keys() {
        let mut set = [0u32; 64];
        for key in 0..10_000u32 {
            let hash = hash(key.to_string().as_bytes());
            (0..64).filter(|bit| hash >> bit & 1 == 1).for_each(|bit| set[bit] += 1);
        }
        assert!(set.iter().all(|count| (4_700..5_300).contains(count)), "{set:?}");
    }
}
