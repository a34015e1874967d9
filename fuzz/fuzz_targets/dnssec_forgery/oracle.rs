//! The truth about the names of the tree, with which responses are compared.

use std::fmt::Write as _;
use std::sync::LazyLock;

use dotproxy::config::TrustAnchor;
use dotproxy::dnssec::anchors::Anchors;
use dotproxy::wire::canonical::{write_data, write_name};
use dotproxy::wire::name::{Name, suffixes};
use dotproxy::wire::{Message, Rcode};

use crate::forger;
use crate::tree::{self, Chain, Fact, Tree};

static TREES: LazyLock<[Tree; 2]> = LazyLock::new(|| [Tree::new(false), Tree::new(true)]);

/// The freedom of the upstream to say what it likes of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freedom {
    /// The name is in a zone of other people that is signed.
    None,
    /// An opt-out span holds the name: its records may be insecure.
    OptOut,
    /// No trust anchor leads to the name.
    Insecure,
    /// The upstream has the keys of the zone.
    Full,
}

/// The tree, and the trust anchors of a validator.
pub struct Oracle {
    pub tree: &'static Tree,
    pub anchors: Anchors,
    #[allow(dead_code, reason = "one of the targets uses it")]
    pub trusted: Vec<TrustAnchor>,
    #[allow(dead_code, reason = "one of the targets uses it")]
    pub negative: Vec<Name>,
}

impl Oracle {
    /// Returns the oracle for a choice of trust anchors.
    pub fn new(choice: u8) -> Self {
        let tree = &TREES[usize::from(choice % 5 == 4)];
        let (zones, negative): (&[&str], &[&str]) = match choice % 5 {
            0 => (&[""], &[]),
            1 => (&["", "h.t"], &[]),
            2 => (&["", "h.t"], &["t"]),
            3 => (&["h.t"], &[]),
            _ => (&["", "priv.t"], &[]),
        };
        let mut text = String::new();
        for zone in zones {
            let ds = tree
                .zone(&tree::wire(zone))
                .expect("a zone of the tree")
                .ds();
            let tag = u16::from_be_bytes([ds[0], ds[1]]);
            let digest: String = ds[4..].iter().map(|byte| format!("{byte:02x}")).collect();
            writeln!(text, "{zone}. IN DS {tag} 15 2 {digest}").expect("room for text");
        }
        let trusted = TrustAnchor::parse_all(&text).expect("right anchors");
        let negative = negative.iter().map(|name| name.parse().expect("a name"));
        let negative: Vec<Name> = negative.collect();
        Self {
            tree,
            anchors: Anchors::new(&trusted, &negative),
            trusted,
            negative,
        }
    }

    /// Returns what the upstream may say of a name, and what the zone of the name says.
    pub fn freedom(&self, name: &[u8], rr_type: u16) -> (Freedom, Fact) {
        let statement = self.tree.state(name, rr_type);
        let upper = suffixes(name).nth(usize::from(rr_type == tree::DS));
        // A negative trust anchor also holds for the DS records of its name.
        let is_covered = self.anchors.covers(name) && self.anchors.covers(upper.unwrap_or(&[0]));
        let freedom = if !is_covered {
            Freedom::Insecure
        } else if statement.zone.is_hostile {
            match statement.zone.chain {
                Chain::None => Freedom::Insecure,
                _ => Freedom::Full,
            }
        } else if statement.is_opt_out {
            Freedom::OptOut
        } else {
            Freedom::None
        };
        (freedom, statement.fact)
    }

    /// Checks a response: each name of the chain of aliases has its genuine records, up to one of
    /// which the upstream may say what it likes.
    pub fn check(&self, name: &[u8], rr_type: u16, is_secure: bool, response: &[u8]) {
        let message = Message::parse(response).expect("a response is well formed");
        if forger::SPECIAL.contains(&rr_type) {
            return self.check_special(name, is_secure, &message);
        }
        let mut name = name.to_vec();
        for _ in 0..20 {
            let (freedom, fact) = self.freedom(&name, rr_type);
            let what = (&message, &name, rr_type, is_secure, &fact);
            match freedom {
                Freedom::Full => return,
                Freedom::Insecure => {
                    assert!(!is_secure, "secure without keys: {what:?}");
                    return;
                }
                Freedom::OptOut if !is_secure => return,
                Freedom::OptOut | Freedom::None => {}
            }
            let found = records(&message, &name, rr_type);
            let aliases = records(&message, &name, tree::CNAME);
            let rcode = message.rcode();
            match &fact {
                Fact::Alias(target) => {
                    assert!(
                        found.is_empty() && aliases == [&target[..]],
                        "alias: {what:?}"
                    );
                    name.clone_from(target);
                    continue;
                }
                Fact::Records(expected) => {
                    let mut expected = expected.clone();
                    expected.sort();
                    assert_eq!(found, expected, "records: {what:?}");
                    assert_eq!(rcode, Rcode::NOERROR, "{what:?}");
                }
                Fact::NoData | Fact::NoName => {
                    assert!(found.is_empty() && aliases.is_empty(), "records: {what:?}");
                    let is_denied = fact == Fact::NoName;
                    assert_eq!(rcode == Rcode::NXDOMAIN, is_denied, "rcode: {what:?}");
                }
            }
            assert!(is_secure, "insecure without a reason: {what:?}");
            return;
        }
    }

    /// Checks the response to a question whose answer may have records of several types, or a part
    /// of them.
    fn check_special(&self, name: &[u8], is_secure: bool, message: &Message<'_>) {
        let (freedom, any) = self.freedom(name, tree::TXT);
        match freedom {
            Freedom::Full | Freedom::Insecure => return,
            Freedom::OptOut if !is_secure => return,
            Freedom::OptOut | Freedom::None => {}
        }
        for rr_type in forger::TYPES {
            let found = records(message, name, *rr_type);
            // The DS records of a name are those of the zone above.
            let (freedom, fact) = self.freedom(name, *rr_type);
            let is_right = match &fact {
                _ if freedom == Freedom::Full => true,
                _ if freedom != Freedom::None && !is_secure => true,
                _ if freedom == Freedom::Insecure => found.is_empty(),
                Fact::Records(all) => found.iter().all(|data| all.contains(data)),
                _ => found.is_empty(),
            };
            assert!(
                is_right,
                "{rr_type}, secure {is_secure}: {message:?}, {fact:?}"
            );
        }
        let is_denied = message.rcode() == Rcode::NXDOMAIN;
        let may_be_denied = matches!(any, Fact::NoName | Fact::Alias(_));
        assert!(!is_denied || may_be_denied, "{message:?}");
    }
}

/// Returns the data of the records of this owner and type in the answer section.
fn records(message: &Message<'_>, name: &[u8], rr_type: u16) -> Vec<Vec<u8>> {
    let bytes = message.bytes();
    let mut all = Vec::new();
    for record in message
        .answers()
        .filter(|record| record.rr_type.0 == rr_type)
    {
        let (mut owner, mut data) = (Vec::new(), Vec::new());
        write_name(&mut owner, bytes, record.start).expect("a name");
        if owner == name && record.class(bytes) == Ok(1) {
            write_data(&mut data, bytes, &record).expect("right data");
            all.push(data);
        }
    }
    all.sort();
    all.dedup();
    all
}
