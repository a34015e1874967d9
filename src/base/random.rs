//! Unpredictable numbers from a seed.

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

/// Length of a seed in bytes.
pub const SEED_LEN: usize = 32;

/// The number of bytes that are generated at a time.
const DRAWN_LEN: usize = 256;

/// A generator of unpredictable numbers: the key stream of `ChaCha20` (RFC 8439) with the seed as
/// the key. The same seed gives the same numbers, so that a simulation can be replayed.
#[derive(Debug)]
pub struct Random {
    key: LessSafeKey,
    counter: u64,
    drawn: [u8; DRAWN_LEN],
    used: usize,
}

impl Random {
    /// Creates the generator of this seed.
    pub fn new(seed: &[u8; SEED_LEN]) -> Self {
        let key = UnboundKey::new(&CHACHA20_POLY1305, seed).expect("a key is as long as a seed");
        Self {
            key: LessSafeKey::new(key),
            counter: 0,
            drawn: [0; DRAWN_LEN],
            used: DRAWN_LEN,
        }
    }

    /// Returns a uniformly distributed number of 16 bits.
    pub fn next_u16(&mut self) -> u16 {
        if self.used == DRAWN_LEN {
            self.draw();
        }
        let pair = [self.drawn[self.used], self.drawn[self.used + 1]];
        self.used += 2;
        u16::from_be_bytes(pair)
    }

    /// Generates more numbers: the key stream is the encryption of zeros.
    fn draw(&mut self) {
        let mut nonce = [0; NONCE_LEN];
        nonce[..size_of::<u64>()].copy_from_slice(&self.counter.to_be_bytes());
        let nonce = Nonce::assume_unique_for_key(nonce);
        self.counter += 1;
        self.drawn = [0; DRAWN_LEN];
        let tag = self
            .key
            .seal_in_place_separate_tag(nonce, Aad::empty(), &mut self.drawn);
        let _unused = tag.expect("the buffer is far below the length limit");
        self.used = 0;
    }

    /// Returns a uniformly distributed number of 32 bits.
    pub fn next_u32(&mut self) -> u32 {
        u32::from(self.next_u16()) << 16 | u32::from(self.next_u16())
    }

    /// Returns a uniformly distributed number of 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        u64::from(self.next_u32()) << 32 | u64::from(self.next_u32())
    }

    /// Returns the seed of another generator.
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

    /// The block with counter one, for a key and a nonce of zeros, is test vector 2 of RFC 8439,
    /// appendix A.1. The block with counter zero is for the tag.
    #[test]
    fn numbers_are_the_key_stream_of_chacha20() {
        let mut random = Random::new(&[0; SEED_LEN]);
        let start = [0; 4].map(|_: u16| random.next_u16());
        assert_eq!(start, [0x9f07, 0xe7be, 0x5551, 0x387a]);
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
