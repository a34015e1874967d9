//! Which answers are kept, for what, and for how long (RFC 2308, 8020, 8767).

use super::seconds;
use crate::config::CacheSettings;
use crate::wire::header::HEADER_LEN;
use crate::wire::question::{CLASS_IN, Type};
use crate::wire::record::Record;
use crate::wire::{Flags, Message, Question, Rcode, name};

/// How an answer is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Keeping {
    /// For how many seconds. That of an error depends on the errors before it.
    pub(super) lifetime: u32,
    /// For what.
    pub(super) extent: Extent,
    /// It says that something does not exist.
    pub(super) is_denial: bool,
    /// It says that there was no answer.
    pub(super) is_error: bool,
    /// What TTLs may be, in seconds.
    pub(super) ttls: (u32, u32),
}

/// What an answer is one for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// The question.
    Question,
    /// Every type at the name.
    Name,
    /// Every type at the name and all that are below it.
    Subtree,
}

/// How an answer to this question is kept; `None` if it is not. Whether DNSSEC records are part of
/// it decides whether a denial may be used for names below: proofs are for one name.
pub(super) fn keeping(
    answer: &Message<'_>,
    question: Question<'_>,
    wants_proof: bool,
    settings: &CacheSettings,
) -> Option<Keeping> {
    let flags = answer.header().flags;
    let has_extension = answer.opt().is_some_and(|opt| opt.rcode_extension != 0);
    if flags.contains(Flags::TC) || has_extension {
        return None;
    }
    let rcode = flags.rcode();
    let ttls = (seconds(settings.ttl_min), seconds(settings.ttl_max));
    let keeping = Keeping {
        lifetime: 0,
        extent: Extent::Question,
        is_denial: false,
        is_error: rcode != Rcode::NOERROR && rcode != Rcode::NXDOMAIN,
        ttls,
    };
    if keeping.is_error {
        return Some(keeping);
    }
    let bytes = answer.bytes();
    let (content, ttl) = content(answer, question.rr_type());
    let is_answered = match content {
        Content::Records => true,
        Content::None => false,
        Content::Unrelated => return None,
    };
    let keeping = if rcode == Rcode::NOERROR && is_answered {
        let lifetime = ttl?.max(ttls.0).min(ttls.1);
        Keeping {
            lifetime,
            ..keeping
        }
    } else {
        // Without SOA nobody says how long there is nothing (RFC 2308, section 5), and an alias
        // that leads nowhere is a part of an answer.
        let soa = soa(answer)?;
        let soa_ttl = soa.ttl(bytes).min(minimum(soa.data(bytes))?);
        let most = ttls.1.min(seconds(settings.negative_ttl_max));
        let lifetime = ttl.unwrap_or(soa_ttl).min(soa_ttl).max(ttls.0).min(most);
        let is_of_name = rcode == Rcode::NXDOMAIN && answer.header().answers == 0;
        Keeping {
            lifetime,
            extent: match is_of_name {
                // Some servers deny names that have others below; not where that is validated.
                true if flags.contains(Flags::AD) && !wants_proof => Extent::Subtree,
                true => Extent::Name,
                false => Extent::Question,
            },
            is_denial: true,
            ..keeping
        }
    };
    (keeping.lifetime > 0).then_some(keeping)
}

/// The records of the type asked for in the answer section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    /// Some belong to the name in the question, or to the one that its aliases lead to.
    Records,
    /// There are none, and the name or its last alias may be denied.
    None,
    /// All belong to other names, or the answer section has records of other types alone.
    Unrelated,
}

/// Returns also the least TTL in the answer section.
fn content(answer: &Message<'_>, rr_type: Type) -> (Content, Option<u32>) {
    let bytes = answer.bytes();
    let (mut ttl, mut has_type, mut is_owned, mut has_alias) = (None, false, false, false);
    let mut steps_left = COMPARISON_STEPS_MAX;
    for record in answer.answers() {
        let other = record.ttl(bytes);
        ttl = Some(ttl.map_or(other, |ttl: u32| ttl.min(other)));
        if record.rr_type == rr_type {
            has_type = true;
            is_owned = is_owned || belongs_to(HEADER_LEN, &record, bytes, &mut steps_left);
        } else {
            has_alias |= record.rr_type == CNAME;
        }
    }
    let owner = if has_alias {
        last_alias(answer, &mut steps_left)
    } else {
        HEADER_LEN
    };
    if owner != HEADER_LEN {
        let mut records = answer.answers().filter(|record| record.rr_type == rr_type);
        is_owned = records.any(|record| belongs_to(owner, &record, bytes, &mut steps_left));
    }
    let content = if is_owned {
        Content::Records
    } else if has_type {
        Content::Unrelated
    } else if owner != HEADER_LEN || ttl.is_none() {
        Content::None
    } else {
        Content::Unrelated
    };
    (content, ttl)
}

/// The position of the name that the aliases of an answer lead to from the name in the question.
/// Resolvers write aliases in their order; a few that are not are found by further passes.
fn last_alias(answer: &Message<'_>, steps_left: &mut usize) -> usize {
    let bytes = answer.bytes();
    let mut owner = HEADER_LEN;
    for _ in 0..ALIAS_PASSES_MAX {
        let before = owner;
        for record in answer.answers() {
            if record.rr_type == CNAME && belongs_to(owner, &record, bytes, steps_left) {
                owner = record.fixed + Record::FIXED_LEN;
            }
        }
        if owner == before {
            break;
        }
    }
    owner
}

/// Passes over an answer that are made to follow its aliases, so that the time is bounded.
const ALIAS_PASSES_MAX: usize = 4;

/// Steps that comparing the names of one answer may cost; names that would cost more are different.
const COMPARISON_STEPS_MAX: usize = 1 << 14;

/// Whether the owner of a record is the name at this position.
fn belongs_to(owner: usize, record: &Record, bytes: &[u8], steps_left: &mut usize) -> bool {
    let is_pointer = || {
        let start: Option<[u8; 2]> = bytes.get(record.start..record.fixed)?.try_into().ok();
        Some(usize::from(u16::from_be_bytes(start?)) == (POINTER | owner))
    };
    let mut is_equal = || name::equal(bytes, record.start, owner, steps_left) && *steps_left > 0;
    let is_same = is_pointer() == Some(true) || is_equal();
    is_same && record.class(bytes) == Ok(CLASS_IN)
}

/// An alias of its owner (RFC 1035, section 3.3.1).
const CNAME: Type = Type(5);

/// The bits that make a compression pointer of a position (RFC 1035, section 4.1.4).
const POINTER: usize = 0xc000;

/// The record in the authority section that says for how long a denial holds.
pub(super) fn soa(answer: &Message<'_>) -> Option<Record> {
    let is_soa = |record: &Record| {
        record.rr_type == Type::SOA && record.class(answer.bytes()) == Ok(CLASS_IN)
    };
    answer.authorities().find(is_soa)
}

/// The last field of a SOA record's data (RFC 1035, section 3.3.13).
fn minimum(data: &[u8]) -> Option<u32> {
    data.last_chunk().copied().map(u32::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::cache::testing::{Answer, question};

    fn kept_as(answer: &Answer, settings: &CacheSettings) -> Option<(u32, Extent)> {
        let bytes = answer.to_bytes();
        let message = Message::parse(&bytes).unwrap();
        let question = message.question().unwrap();
        let keeping = keeping(&message, question, answer.wants_proof, settings)?;
        assert_eq!(keeping.is_denial, answer.soa.is_some());
        (!keeping.is_error).then_some((keeping.lifetime, keeping.extent))
    }

    fn kept(answer: &Answer) -> Option<(u32, Extent)> {
        kept_as(answer, &CacheSettings::default())
    }

    const A: u16 = 1;
    const CNAME: u16 = 5;

    #[test]
    fn answer_is_kept_as_long_as_its_shortest_record() {
        let ttls = |ttls: &[(u16, u32)]| kept(&Answer::new("a.example", A).with(ttls));
        assert_eq!(ttls(&[(A, 300)]), Some((300, Extent::Question)));
        assert_eq!(ttls(&[(CNAME, 60), (A, 300)]), Some((60, Extent::Question)));
        assert_eq!(ttls(&[(A, 300), (A, 0)]), None);
        assert_eq!(ttls(&[(A, u32::MAX)]), Some((86_400, Extent::Question)));
    }

    #[test]
    fn denial_is_kept_as_long_as_soa_says() {
        let soa = |ttl, minimum| Answer::new("a.example", A).with_soa(ttl, minimum);
        assert_eq!(kept(&soa(900, 300)), Some((300, Extent::Question)));
        assert_eq!(kept(&soa(60, 300)), Some((60, Extent::Question)));
        assert_eq!(kept(&soa(86_400, 86_400)), Some((3_600, Extent::Question)));
        assert_eq!(kept(&soa(300, 0)), None);
        let alias = soa(900, 300).with(&[(CNAME, 20)]);
        assert_eq!(kept(&alias), Some((20, Extent::Question)));
    }

    #[test]
    fn part_of_an_answer_is_not_kept() {
        assert_eq!(kept(&Answer::new("a.example", A)), None);
        assert_eq!(
            kept(&Answer::new("a.example", A).with(&[(CNAME, 60)])),
            None
        );
        assert_eq!(
            kept(&Answer::new("a.example", A).says(Rcode::NXDOMAIN)),
            None
        );
        let whole = Answer::new("a.example", A).with(&[(A, 60)]);
        assert_eq!(kept(&whole.clone().flagged(Flags::TC)), None);
        let alias = Answer::new("a.example", CNAME).with(&[(CNAME, 60)]);
        assert_eq!(kept(&alias), Some((60, Extent::Question)));
    }

    /// Whether an answer for `www.example A` with these records is kept: owner, type, and target or
    /// nothing for an address. A SOA record comes last if `is_denial`.
    fn keeps(records: &[(&str, u16, &str)], is_denial: bool) -> bool {
        let mut bytes = vec![0, 0, 0x81, 0x80, 0, 1, 0, 0, 0, u8::from(is_denial), 0, 0];
        bytes[7] = u8::try_from(records.len()).unwrap();
        bytes.extend(question("www.example", A));
        let name = |text: &str| {
            let mut name = question(text, A);
            name.truncate(name.len() - 4);
            name
        };
        let record = |owner: &str, rr_type: u16, data: &[u8]| {
            let data_len = u16::try_from(data.len()).unwrap().to_be_bytes();
            let fixed = [&rr_type.to_be_bytes()[..], b"\0\x01\0\0\0\x3c", &data_len].concat();
            [name(owner), fixed, data.to_vec()].concat()
        };
        for (owner, rr_type, target) in records {
            let data = match (*rr_type, *target) {
                (46, _) => [vec![0; 18], name("example"), vec![1; 8]].concat(),
                (_, "") => vec![192, 0, 2, 1],
                (_, target) => name(target),
            };
            bytes.extend(record(owner, *rr_type, &data));
        }
        if is_denial {
            let data = [b"\0\0".to_vec(), vec![1; 20]].concat();
            bytes.extend(record("example", 6, &data));
        }
        let message = Message::parse(&bytes).unwrap();
        let question = message.question().unwrap();
        keeping(&message, question, false, &CacheSettings::default()).is_some()
    }

    #[test]
    fn answer_is_kept_if_its_aliases_lead_to_the_owner_of_its_records() {
        let alias = |owner, target| (owner, CNAME, target);
        let address = |owner| (owner, A, "");
        for records in [
            vec![address("www.example")],
            vec![address("WWW.Example"), address("www.example")],
            // Records of other names are known for the question alone.
            vec![address("www.example"), address("web.example")],
            vec![alias("www.example", "a"), address("a"), address("b")],
            vec![alias("www.example", "a.test"), address("A.test")],
            vec![alias("www.example", "a"), alias("a", "b"), address("b")],
            vec![alias("a", "b"), alias("www.example", "a"), address("b")],
            vec![address("a"), alias("www.example", "a")],
            // A signature, and the alias of a whole domain that an alias follows from.
            vec![address("www.example"), ("www.example", 46, "")],
            vec![
                ("example", 39, "b"),
                alias("www.example", "www.b"),
                address("www.b"),
            ],
        ] {
            assert!(keeps(&records, false), "{records:?}");
        }
        for records in [
            vec![address("web.example")],
            vec![alias("www.example", "a"), address("b")],
            vec![alias("www.example", "a"), address("www.example")],
            vec![alias("web.example", "a"), address("a")],
            vec![alias("www.example", "a"), alias("b", "c"), address("c")],
            vec![
                alias("www.example", "a"),
                alias("a", "www.example"),
                address("a.example"),
            ],
            vec![("example", 39, "b"), address("www.b")],
        ] {
            assert!(!keeps(&records, false), "{records:?}");
            assert!(!keeps(&records, true), "{records:?}");
        }
        assert!(keeps(&[], true));
        assert!(keeps(&[alias("www.example", "a")], true));
        assert!(!keeps(&[alias("web.example", "a")], true));
    }

    #[test]
    fn name_is_denied_as_far_as_that_is_safe() {
        let nothing = Answer::new("a.example", A)
            .says(Rcode::NXDOMAIN)
            .with_soa(60, 60);
        let extent = |answer: Answer| kept(&answer).map(|(_, extent)| extent);
        assert_eq!(extent(nothing.clone()), Some(Extent::Name));
        let validated = nothing.clone().flagged(Flags::AD);
        assert_eq!(extent(validated.clone()), Some(Extent::Subtree));
        assert_eq!(extent(validated.wanting_proof()), Some(Extent::Name));
        // What an alias leads to is denied, and the name is not.
        let alias = nothing.with(&[(CNAME, 60)]).flagged(Flags::AD);
        assert_eq!(extent(alias), Some(Extent::Question));
    }

    #[test]
    fn bounds_of_ttls_hold() {
        let seconds = std::time::Duration::from_secs;
        let settings = CacheSettings {
            ttl_min: seconds(30),
            ttl_max: seconds(1_000),
            negative_ttl_max: seconds(20),
            ..CacheSettings::default()
        };
        let lifetime = |answer: &Answer| kept_as(answer, &settings).map(|(seconds, _)| seconds);
        for (ttl, lived) in [(0, 30), (100, 100), (5_000, 1_000)] {
            assert_eq!(
                lifetime(&Answer::new("a", A).with(&[(A, ttl)])),
                Some(lived)
            );
        }
        for (ttl, lived) in [(0, 20), (100, 20)] {
            let denial = Answer::new("a", A).with_soa(ttl, ttl);
            assert_eq!(lifetime(&denial), Some(lived));
        }
    }

    #[test]
    fn code_that_takes_more_than_the_header_is_not_kept() {
        let mut bytes = Answer::new("a", A).with(&[(A, 60)]).to_bytes();
        let question_end = 12 + 7;
        let opt_at = question_end + 16;
        let extension = opt_at + 5;
        for (code, is_kept) in [(0, true), (1, false)] {
            bytes[extension] = code;
            let message = Message::parse(&bytes).unwrap();
            assert_eq!(message.opt().unwrap().rcode_extension, code);
            let question = message.question().unwrap();
            let settings = CacheSettings::default();
            let keeping = keeping(&message, question, false, &settings);
            assert_eq!(keeping.is_some(), is_kept);
        }
    }

    #[test]
    fn other_codes_are_errors() {
        let settings = CacheSettings::default();
        for rcode in [Rcode::SERVFAIL, Rcode::REFUSED, Rcode::from(9)] {
            let bytes = Answer::new("a.example", A).says(rcode).to_bytes();
            let message = Message::parse(&bytes).unwrap();
            let question = message.question().unwrap();
            let keeping = keeping(&message, question, false, &settings).unwrap();
            assert!(keeping.is_error && keeping.extent == Extent::Question);
        }
    }
}
