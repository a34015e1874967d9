//! Recognition of frequent mistakes: names close to those of options, and lists as values.

use std::path::Path;

use super::table::{COMMANDS, rows};

/// Names that other programs have for the options file.
const FILE_OPTIONS: [&str; 4] = ["config", "conf", "config-file", "configuration"];

/// Options that take one address or network and can be repeated.
const REPEATABLE: [&str; 7] = [
    "listen",
    "tls-listen",
    "https-listen",
    "http-listen",
    "bootstrap",
    "allow",
    "deny",
];

/// Settings of an upstream, which are not options.
pub(super) const UPSTREAM_SETTINGS: [&str; 8] = [
    "client-cert",
    "client-key",
    "domain",
    "domains-file",
    "fallback",
    "pin-only",
    "pin-report",
    "pin-sha256",
];

/// Names that other programs have for options.
const FOREIGN: [(&str, &str); 7] = [
    ("cache", "cache-size"),
    ("forward-addr", "upstream"),
    ("forwarder", "upstream"),
    ("interface", "listen"),
    ("listen-address", "listen"),
    ("nameserver", "upstream"),
    ("server", "upstream"),
];

/// Returns the option that has this name in other programs, or else the option whose name differs
/// from `name` by one or two characters, or by an underscore in place of a dash.
pub(super) fn similar_option(name: &str) -> Option<&'static str> {
    // A name of three letters is close to many words.
    let most = if name.len() < 5 { 1 } else { 2 };
    let name = name.split(':').next()?;
    let name = name.to_ascii_lowercase().replace('_', "-");
    if let Some((_, long)) = FOREIGN.iter().find(|(foreign, _)| *foreign == name) {
        return Some(long);
    }
    let commands = COMMANDS.iter().map(|(_, long, ..)| *long);
    let names = rows().map(|row| row.long).chain(commands);
    let rated = names.map(|long| (distance(&name, long), long));
    let (distance, long) = rated.min_by_key(|(distance, _)| *distance)?;
    (distance <= most).then_some(long)
}

/// Returns whether an option or argument was meant as the options file.
pub(super) fn means_options_file(text: &str) -> bool {
    let extension = Path::new(text).extension();
    FILE_OPTIONS.contains(&text) || extension.is_some_and(|extension| extension == "conf")
}

/// Returns whether the value is a list, and the option takes one address, network or upstream. An
/// upstream has settings after commas, and their paths may contain spaces.
pub(super) fn is_list(option: &str, value: &str) -> bool {
    let has = |separators: &[char]| value.trim().contains(separators);
    match option {
        "upstream" => has(&[';', ' ', '\t']) && !has(&[',']),
        _ => REPEATABLE.contains(&option) && has(&[',', ';', ' ', '\t']),
    }
}

/// Returns the number of characters to insert, remove or replace to make `a` from `b` (Levenshtein
/// distance). Names of more than 32 bytes are not compared.
fn distance(a: &str, b: &str) -> usize {
    if a.len() > 32 {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (at, left) in a.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], at + 1);
        for (other, right) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(left != right);
            diagonal = row[other + 1];
            row[other + 1] = replaced.min(diagonal + 1).min(row[other] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::distance;

    #[test]
    fn long_name_is_not_compared() {
        let name = "a".repeat(32);
        assert_eq!(distance(&name, &name), 0);
        let long = name + "a";
        assert_eq!(distance(&long, &long), usize::MAX);
    }
}
