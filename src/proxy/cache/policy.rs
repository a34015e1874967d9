//! The cache policy: cacheable answers, their extent and their lifetime (RFC 2308, 8020, 8767).

use super::seconds;
use crate::config::CacheSettings;
use crate::wire::header::HEADER_LEN;
use crate::wire::question::{CLASS_IN, Type};
use crate::wire::record::Record;
use crate::wire::{Flags, Message, Question, Rcode, name};

/// The cache policy for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CachePolicy {
    /// The lifetime in seconds. The lifetime of an error depends on the errors before it.
    pub(super) lifetime: u32,
    /// The extent of the answer.
    pub(super) extent: Extent,
    /// The answer is NXDOMAIN or NODATA.
    pub(super) is_denial: bool,
    /// The answer is an error.
    pub(super) is_error: bool,
    /// The minimum TTL of records, in seconds.
    pub(super) ttl_min: u32,
    /// The maximum TTL of records, in seconds.
    pub(super) ttl_max: u32,
}

impl CachePolicy {
    /// Clamps the TTL of a record to the configured bounds. The maximum also holds if it is below
    /// the minimum.
    pub(super) fn clamp_ttl(&self, ttl: u32) -> u32 {
        ttl.max(self.ttl_min).min(self.ttl_max)
    }

    /// Clamps the TTL of a negative answer, which has a maximum of its own.
    fn clamp_negative_ttl(&self, ttl: u32, negative_ttl_max: u32) -> u32 {
        self.clamp_ttl(ttl).min(negative_ttl_max)
    }
}

/// The extent of an answer: the questions that it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// The question alone.
    Question,
    /// Every type at the name.
    Name,
    /// Every type at the name and at all names below it.
    Subtree,
}

/// Returns the cache policy for an answer to this question, or `None` if it cannot be cached. A
/// denial with DNSSEC records (`wants_proof`) is not used for names below: a proof is for one name.
pub(super) fn policy_for(
    answer: &Message<'_>,
    question: Question<'_>,
    wants_proof: bool,
    settings: &CacheSettings,
) -> Option<CachePolicy> {
    let flags = answer.header().flags;
    let rcode = answer.rcode();
    if flags.contains(Flags::TC) || rcode.extension() != 0 {
        return None;
    }
    let policy = CachePolicy {
        lifetime: 0,
        extent: Extent::Question,
        is_denial: false,
        is_error: rcode != Rcode::NOERROR && rcode != Rcode::NXDOMAIN,
        ttl_min: seconds(settings.ttl_min),
        ttl_max: seconds(settings.ttl_max),
    };
    if policy.is_error {
        return Some(policy);
    }
    let (content, ttl) = content(answer, question.rr_type());
    let is_answered = match content {
        AnswerSection::Records => true,
        AnswerSection::None => false,
        AnswerSection::Unrelated => return None,
    };
    let policy = if rcode == Rcode::NOERROR && is_answered {
        let lifetime = policy.clamp_ttl(ttl?);
        CachePolicy { lifetime, ..policy }
    } else {
        // Without SOA the time to cache a negative answer is unknown (RFC 2308, section 5), and an
        // alias that leads nowhere is a part of an answer.
        let soa_ttl = answer.negative_ttl()?;
        let ttl = ttl.unwrap_or(soa_ttl).min(soa_ttl);
        let lifetime = policy.clamp_negative_ttl(ttl, seconds(settings.negative_ttl_max));
        // A denial of DS is by the zone above, and says nothing of the zone that may start at the
        // name (RFC 4035, section 3.1.4.1).
        let is_of_name = rcode == Rcode::NXDOMAIN
            && answer.header().answers == 0
            && question.rr_type() != Type::DS;
        CachePolicy {
            lifetime,
            extent: match is_of_name {
                // Some servers deny names that have other names below them, but not in validated
                // zones.
                true if flags.contains(Flags::AD) && !wants_proof => Extent::Subtree,
                true => Extent::Name,
                false => Extent::Question,
            },
            is_denial: true,
            ..policy
        }
    };
    (policy.lifetime > 0).then_some(policy)
}

/// The relation of the answer section to the type in the question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AnswerSection {
    /// Records of the type belong to the name in the question, or to the target of its aliases.
    Records,
    /// No record has the type, and the name or its last alias may be denied.
    None,
    /// All records belong to other names, or the answer section has only records of other types.
    Unrelated,
}

/// Classifies the answer section. Also returns its lowest TTL.
fn content(answer: &Message<'_>, rr_type: Type) -> (AnswerSection, Option<u32>) {
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
            has_alias |= record.rr_type == Type::CNAME;
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
        AnswerSection::Records
    } else if has_type {
        AnswerSection::Unrelated
    } else if owner != HEADER_LEN || ttl.is_none() {
        AnswerSection::None
    } else {
        AnswerSection::Unrelated
    };
    (content, ttl)
}

/// Returns the position of the target of the last alias, starting from the name in the question.
/// Resolvers write aliases in order; further passes find a few that are out of order.
fn last_alias(answer: &Message<'_>, steps_left: &mut usize) -> usize {
    let bytes = answer.bytes();
    let mut owner = HEADER_LEN;
    for _ in 0..ALIAS_PASSES_MAX {
        let before = owner;
        for record in answer.answers() {
            if record.rr_type == Type::CNAME && belongs_to(owner, &record, bytes, steps_left) {
                owner = record.fixed + Record::FIXED_LEN;
            }
        }
        if owner == before {
            break;
        }
    }
    owner
}

/// The maximum number of passes over an answer to follow its aliases.
const ALIAS_PASSES_MAX: usize = 4;

/// The maximum number of steps to compare the names of one answer. Beyond them, names count as
/// different.
const COMPARISON_STEPS_MAX: usize = 1 << 14;

/// Returns whether the owner of a record is the name at this position.
fn belongs_to(owner: usize, record: &Record, bytes: &[u8], steps_left: &mut usize) -> bool {
    let is_pointer = || {
        let start: Option<[u8; 2]> = bytes.get(record.start..record.fixed)?.try_into().ok();
        Some(usize::from(u16::from_be_bytes(start?)) == (POINTER | owner))
    };
    let mut is_equal = || name::equal(bytes, record.start, owner, steps_left) && *steps_left > 0;
    let is_same = is_pointer() == Some(true) || is_equal();
    is_same && record.class(bytes) == Ok(CLASS_IN)
}

/// The bits that make a position a compression pointer (RFC 1035, section 4.1.4).
const POINTER: usize = 0xc000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::cache::testing::{Answer, question};

    fn kept_as(answer: &Answer, settings: &CacheSettings) -> Option<(u32, Extent)> {
        let bytes = answer.to_bytes();
        let message = Message::parse(&bytes).unwrap();
        let question = message.question().unwrap();
        let policy = policy_for(&message, question, answer.wants_proof, settings)?;
        assert_eq!(policy.is_denial, answer.soa.is_some());
        (!policy.is_error).then_some((policy.lifetime, policy.extent))
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
    fn denial_is_kept_as_long_as_its_soa_allows() {
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

    /// Returns whether the policy keeps an answer for `www.example A` with these records, each
    /// given by owner, type and target (empty for an address). If `is_denial`, a SOA record
    /// follows.
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
        policy_for(&message, question, false, &CacheSettings::default()).is_some()
    }

    #[test]
    fn answer_is_kept_if_its_aliases_lead_to_the_owner_of_its_records() {
        let alias = |owner, target| (owner, CNAME, target);
        let address = |owner| (owner, A, "");
        for records in [
            vec![address("www.example")],
            vec![address("WWW.Example"), address("www.example")],
            // Records of other names are cached for the question alone.
            vec![address("www.example"), address("web.example")],
            vec![alias("www.example", "a"), address("a"), address("b")],
            vec![alias("www.example", "a.test"), address("A.test")],
            vec![alias("www.example", "a"), alias("a", "b"), address("b")],
            vec![alias("a", "b"), alias("www.example", "a"), address("b")],
            vec![address("a"), alias("www.example", "a")],
            // A signature, and a DNAME from which an alias follows.
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
    fn denial_covers_names_below_only_if_it_is_validated() {
        let nothing = Answer::new("a.example", A)
            .says(Rcode::NXDOMAIN)
            .with_soa(60, 60);
        let extent = |answer: Answer| kept(&answer).map(|(_, extent)| extent);
        assert_eq!(extent(nothing.clone()), Some(Extent::Name));
        let validated = nothing.clone().flagged(Flags::AD);
        assert_eq!(extent(validated.clone()), Some(Extent::Subtree));
        assert_eq!(extent(validated.wanting_proof()), Some(Extent::Name));
        // The target of the alias is denied, not the name.
        let alias = nothing.with(&[(CNAME, 60)]).flagged(Flags::AD);
        assert_eq!(extent(alias), Some(Extent::Question));
        // The zone above denies DS, not the zone that may start at the name.
        let ds = Answer::new("a.example", 43)
            .says(Rcode::NXDOMAIN)
            .with_soa(60, 60);
        assert_eq!(extent(ds.clone()), Some(Extent::Question));
        assert_eq!(extent(ds.flagged(Flags::AD)), Some(Extent::Question));
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
    fn extended_response_code_is_not_kept() {
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
            let policy = policy_for(&message, question, false, &settings);
            assert_eq!(policy.is_some(), is_kept);
        }
    }

    #[test]
    fn other_codes_are_errors() {
        let settings = CacheSettings::default();
        for rcode in [Rcode::SERVFAIL, Rcode::REFUSED, Rcode::from(9)] {
            let bytes = Answer::new("a.example", A).says(rcode).to_bytes();
            let message = Message::parse(&bytes).unwrap();
            let question = message.question().unwrap();
            let policy = policy_for(&message, question, false, &settings).unwrap();
            assert!(policy.is_error && policy.extent == Extent::Question);
        }
    }
}
