//! Numbers of things in log lines.

/// Returns a number with its noun: "1 query", "2 queries".
pub fn counted(number: impl TryInto<u64>, one: &str, many: &str) -> String {
    let number = number.try_into().unwrap_or(u64::MAX);
    let noun = if number == 1 { one } else { many };
    format!("{number} {noun}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_singular() {
        assert_eq!(counted(1_usize, "query", "queries"), "1 query");
        assert_eq!(counted(0_u64, "query", "queries"), "0 queries");
    }
}
