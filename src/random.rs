//! Numbers that nobody outside can foresee, from a seed.

use ring::hmac;

/// Octets of a seed.
pub const SEED_LEN: usize = 32;

const BLOCK_LEN: usize = 32;

/// A generator of unpredictable numbers: HMAC-SHA-256 over a counter, keyed by the seed. The same
/// seed gives the same numbers, so that what depends on them can be replayed.
#[derive(Debug)]
pub struct Random {
    key: hmac::Key,
    counter: u64,
    block: [u8; BLOCK_LEN],
    used: usize,
}

impl Random {
    /// The generator of this seed.
    pub fn new(seed: &[u8; SEED_LEN]) -> Self {
        Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, seed),
            counter: 0,
            block: [0; BLOCK_LEN],
            used: BLOCK_LEN,
        }
    }

    /// Any of the 65,536 numbers, each as likely as the others.
    pub fn next_u16(&mut self) -> u16 {
        if self.used == BLOCK_LEN {
            let tag = hmac::sign(&self.key, &self.counter.to_be_bytes());
            self.block.copy_from_slice(tag.as_ref());
            self.counter += 1;
            self.used = 0;
        }
        let pair = [self.block[self.used], self.block[self.used + 1]];
        self.used += 2;
        u16::from_be_bytes(pair)
    }

    /// Any number of 32 bits, each as likely as the others.
    pub fn next_u32(&mut self) -> u32 {
        u32::from(self.next_u16()) << 16 | u32::from(self.next_u16())
    }

    /// The seed of another generator.
    pub fn next_seed(&mut self) -> [u8; SEED_LEN] {
        let mut seed = [0; SEED_LEN];
        for pair in seed.chunks_exact_mut(2) {
            pair.copy_from_slice(&self.next_u16().to_be_bytes());
        }
        seed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(seed: u8) -> Vec<u16> {
        let mut random = Random::new(&[seed; SEED_LEN]);
        (0..1000).map(|_| random.next_u16()).collect()
    }

    #[test]
    fn seed_decides_the_numbers() {
        assert_eq!(numbers(1), numbers(1));
        assert_ne!(numbers(1), numbers(2));
    }

    #[test]
    fn numbers_do_not_repeat_soon() {
        let mut seen = numbers(3);
        seen.sort_unstable();
        seen.dedup();
        // Of 1,000 draws from 65,536 about eight repeat.
        assert!(seen.len() > 970, "{}", seen.len());
    }
}
