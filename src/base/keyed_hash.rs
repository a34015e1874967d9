//! The step of a hash with a secret key, for tables whose keys an attacker may choose.

/// Returns both halves of a product, combined: each bit of the result depends on many bits of
/// `word`, in a way that `factor`, which is secret and odd, decides.
#[inline]
pub fn fold(word: u64, factor: u64) -> u64 {
    let product = u128::from(word) * u128::from(factor);
    let halves = product.to_le_bytes();
    let (halves, _) = halves.as_chunks();
    halves
        .iter()
        .fold(0, |folded, half| folded ^ u64::from_le_bytes(*half))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_of_the_product_are_combined() {
        assert_eq!(fold(3, 5), 15);
        assert_eq!(fold(1 << 63, 6), 3);
        assert_eq!(fold(1 << 63, 7), 3 | 1 << 63);
        assert_eq!(fold(0, 7), 0);
    }
}
