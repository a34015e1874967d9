//! The messages of a tree of zones, for tests.

use crate::config::TrustAnchor;

/// The trust anchor, the time of the signatures, and the messages, as `scripts/dnssec_tree.py`
/// writes them: name, type, verdict of unbound (`-` if the message is only needed for others),
/// bytes.
const MESSAGES: &str = include_str!("../../tests/data/dnssec_messages.txt");

/// An answer of the tree.
pub(crate) struct TreeAnswer {
    /// The name without its final dot, in lower case.
    pub(crate) name: String,
    pub(crate) rr_type: String,
    pub(crate) verdict: String,
    pub(crate) message: Vec<u8>,
}

/// A tree of signed, unsigned and broken zones.
pub(crate) struct Tree {
    pub(crate) anchors: Vec<TrustAnchor>,
    /// The time of the signatures, in seconds since 1970.
    pub(crate) time: u64,
    pub(crate) answers: Vec<TreeAnswer>,
}

impl Tree {
    pub(crate) fn read() -> Self {
        let mut tree = Self {
            anchors: Vec::new(),
            time: 0,
            answers: Vec::new(),
        };
        for line in MESSAGES.lines() {
            let (word, rest) = line.split_once(' ').unwrap();
            match word {
                "anchor" => tree.anchors = TrustAnchor::parse_all(rest).unwrap(),
                "time" => tree.time = rest.parse().unwrap(),
                name => {
                    let fields: Vec<&str> = rest.split(' ').collect();
                    tree.answers.push(TreeAnswer {
                        name: name.trim_end_matches('.').to_lowercase(),
                        rr_type: fields[0].to_owned(),
                        verdict: fields[1].to_owned(),
                        message: bytes(fields[2]),
                    });
                }
            }
        }
        tree
    }
}

/// Returns the bytes of a text in hexadecimal.
pub(crate) fn bytes(hex: &str) -> Vec<u8> {
    let pairs = hex.as_bytes().chunks(2);
    pairs
        .map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}
