//! The denial cache beside a model of zones with random content: it denies what the zone lacks, and
//! the records in each response prove that to a validator.

use std::collections::BTreeMap;

use super::tests::{at, nsec, record, soa, wire};
use super::*;
use crate::base::random::Random;
use crate::dnssec::denial::{Denials, Proof};
use crate::dnssec::nsec3::Parameters;
use crate::wire::canonical::{compare_names, write_name};
use crate::wire::header::Rcode;
use crate::wire::{Message, Question};

const APEX: &str = "example";
const CNAME: Type = Type(5);
const TXT: Type = Type(16);
const DNAME: Type = Type(39);

/// The content of a zone: the types at each name.
struct Model(BTreeMap<String, Vec<Type>>);

fn below(random: &mut Random, limit: usize) -> usize {
    usize::try_from(random.next_u32()).unwrap() % limit
}

/// Returns a name in the zone with up to three more labels than the apex.
fn random_name(random: &mut Random) -> String {
    let labels = ["a", "b", "*", "ab", "zz"];
    let mut name = APEX.to_owned();
    for _ in 0..=below(random, 3) {
        name = format!("{}.{name}", labels[below(random, labels.len())]);
    }
    name
}

/// Returns the ancestors of a name in the zone, from the nearest to the apex.
fn ancestors(name: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(name), |name| Some(name.split_once('.')?.1)).skip(1)
}

impl Model {
    fn random(random: &mut Random) -> Self {
        let kinds = [Type::A, TXT, CNAME, Type::NS, DNAME];
        let mut model = Self(BTreeMap::new());
        for _ in 0..below(random, 12) {
            let name = random_name(random);
            let is_wildcard = name.starts_with('*');
            // Delegations and renamed subtrees at a wildcard are not defined.
            let kinds = if is_wildcard { &kinds[..3] } else { &kinds };
            model
                .0
                .insert(name, vec![kinds[below(random, kinds.len())]]);
        }
        model.0.insert(APEX.to_owned(), vec![Type::NS, Type::SOA]);
        // What is below a delegation or a DNAME is not in the zone.
        let hidden = model.0.keys().filter(|name| model.is_hidden(name));
        for name in hidden.cloned().collect::<Vec<_>>() {
            model.0.remove(&name);
        }
        model
    }

    fn has(&self, name: &str, rr_type: Type) -> bool {
        let types = self.0.get(name);
        types.is_some_and(|types| types.contains(&rr_type))
    }

    /// Returns whether a name is below a delegation or a DNAME.
    fn is_hidden(&self, name: &str) -> bool {
        let mut ancestors = ancestors(name).filter(|ancestor| *ancestor != APEX);
        ancestors.any(|ancestor| self.has(ancestor, Type::NS) || self.has(ancestor, DNAME))
    }

    /// Returns whether a name has records, or one below it has.
    fn exists(&self, name: &str) -> bool {
        let end = format!(".{name}");
        let mut names = self.0.keys();
        names.any(|other| other == name || other.ends_with(&end))
    }

    /// Returns all names that exist.
    fn names(&self) -> Vec<String> {
        let names = self.0.keys().flat_map(|name| {
            let ancestors = ancestors(name).filter(|name| name.ends_with(APEX));
            std::iter::once(&**name).chain(ancestors)
        });
        let names: std::collections::BTreeSet<String> = names.map(str::to_owned).collect();
        names.into_iter().collect()
    }

    /// Returns the response code of an authoritative answer without records.
    fn denial(&self, name: &str, rr_type: Type) -> Option<Rcode> {
        if self.is_hidden(name) {
            return None;
        }
        let of_types = |name: &str| {
            let is_delegation = self.has(name, Type::NS) && name != APEX;
            let has_records = self.has(name, rr_type) || self.has(name, CNAME) || is_delegation;
            (!has_records).then_some(Rcode::NOERROR)
        };
        if self.exists(name) {
            return of_types(name);
        }
        let encloser = ancestors(name).find(|ancestor| self.exists(ancestor))?;
        let wildcard = format!("*.{encloser}");
        if self.exists(&wildcard) {
            of_types(&wildcard)
        } else {
            Some(Rcode::NXDOMAIN)
        }
    }

    /// Returns whether the wildcard that matches a name has no records, only names below it. NSEC
    /// records prove that, but validators do not accept it.
    fn is_expanded_from_nothing(&self, name: &str) -> bool {
        let encloser = ancestors(name).find(|ancestor| self.exists(ancestor));
        encloser.is_some_and(|encloser| {
            let wildcard = format!("*.{encloser}");
            self.exists(&wildcard) && !self.0.contains_key(&wildcard)
        })
    }

    fn types(&self, name: &str) -> Vec<u16> {
        self.0.get(name).map_or(Vec::new(), |types| {
            types.iter().map(|rr_type| rr_type.0).collect()
        })
    }

    /// Returns the NSEC records of the zone.
    fn nsec_chain(&self) -> Vec<ProvenRecord> {
        let mut names: Vec<&String> = self.0.keys().collect();
        names.sort_by(|one, other| compare_names(&wire(one), &wire(other)));
        let next = names.iter().cycle().skip(1);
        let pairs = names.iter().zip(next);
        pairs
            .map(|(owner, next)| nsec(APEX, owner, next, &self.types(owner)))
            .collect()
    }

    /// Returns the NSEC3 records of the zone.
    fn nsec3_chain(&self, parameters: Parameters<'_>) -> Vec<ProvenRecord> {
        let hashed = self.names().into_iter();
        let hashed = hashed.map(|name| (parameters.hash(&wire(&name)), self.types(&name)));
        let hashed: BTreeMap<_, _> = hashed.collect();
        let next = hashed.keys().cycle().skip(1);
        let chain = hashed.iter().zip(next).map(|((hash, types), next)| {
            let mut data = vec![1, 0];
            data.extend(parameters.iterations.to_be_bytes());
            data.push(u8::try_from(parameters.salt.len()).unwrap());
            data.extend_from_slice(parameters.salt);
            data.push(20);
            data.extend_from_slice(next);
            let mut bitmap = [0; 8];
            for rr_type in types {
                bitmap[usize::from(rr_type / 8)] |= 0x80 >> (rr_type % 8);
            }
            data.extend([0, 8]);
            data.extend(bitmap);
            record(
                APEX,
                &format!("{}.{APEX}", base32(hash)),
                Type::NSEC3,
                &data,
            )
        });
        chain.collect()
    }
}

/// Returns the text of a hash: base32 with the extended hex alphabet (RFC 4648, section 7).
fn base32(hash: &[u8; 20]) -> String {
    let digits = b"0123456789abcdefghijklmnopqrstuv";
    let bit = |at: usize| usize::from(hash[at / 8] >> (7 - at % 8) & 1);
    let digit = |at: usize| (0..5).fold(0, |value, next| value << 1 | bit(5 * at + next));
    (0..32).map(|at| char::from(digits[digit(at)])).collect()
}

/// Returns what the records of a response prove to a validator.
fn proof_of(response: &[u8], question: Question<'_>) -> Proof {
    let message = Message::parse(response).unwrap();
    let records = message.authorities().map(|record| {
        let mut owner = Vec::new();
        write_name(&mut owner, response, record.start).unwrap();
        (record.rr_type, owner, record.data(response))
    });
    let (records, zone): (Vec<_>, _) = (records.collect(), wire(APEX));
    let mut denials = Denials::of(&zone);
    for (rr_type, owner, data) in &records {
        denials.add(*rr_type, owner, data);
    }
    match message.header().flags.rcode() {
        Rcode::NXDOMAIN => denials.denies_name(question.name()),
        _ => denials.denies_type(question.name(), question.rr_type()),
    }
}

/// Asks for random names, and compares each response with the model. Returns the number of denials.
fn compare(model: &Model, cache: &DenialCache, random: &mut Random, is_whole: bool) -> usize {
    let mut count = 0;
    for _ in 0..40 {
        let name = random_name(random);
        let rr_type = [Type::A, TXT, Type::NS][below(random, 3)];
        let bytes = [&wire(&name)[..], &rr_type.0.to_be_bytes(), &[0, 1]].concat();
        let question = Question::parse(&bytes, 0).unwrap();
        let expected = model.denial(&name, rr_type);
        let Some(denial) = cache.deny(question, 0, 60, at(0)) else {
            let may_miss = !is_whole || model.is_expanded_from_nothing(&name);
            assert!(
                expected.is_none() || may_miss,
                "{name} {rr_type} {:?}",
                model.0
            );
            continue;
        };
        count += 1;
        assert_eq!(
            Some(denial.rcode()),
            expected,
            "{name} {rr_type} {:?}",
            model.0
        );
        let response = denial.to_message(question, true);
        assert_eq!(
            proof_of(&response, question),
            Proof::Secure,
            "{name} {rr_type}"
        );
    }
    count
}

/// Compares caches of random zones with their models.
fn compare_zones(seed: u8, chain: impl Fn(&Model, &mut Random) -> Vec<ProvenRecord>) {
    let mut random = Random::new(&[seed; 32]);
    let mut count = 0;
    for _ in 0..300 {
        let model = Model::random(&mut random);
        let chain = chain(&model, &mut random);
        let mut cache = DenialCache::new(1 << 20);
        for record in &chain {
            if below(&mut random, 4) > 0 {
                cache.insert(&[soa(APEX), record.clone()], 0, at(0));
            }
        }
        count += compare(&model, &cache, &mut random, false);
        for record in chain {
            cache.insert(&[soa(APEX), record], 0, at(0));
        }
        count += compare(&model, &cache, &mut random, true);
    }
    assert!(count > 8_000, "{count}");
}

#[test]
fn nsec_records_deny_what_the_zone_lacks() {
    compare_zones(1, |model, _| model.nsec_chain());
}

#[test]
fn nsec3_records_deny_what_the_zone_lacks() {
    compare_zones(2, |model, random| {
        let iterations = u16::try_from(below(random, 3)).unwrap();
        let salt = &[1, 2, 3][..below(random, 4)];
        model.nsec3_chain(Parameters { iterations, salt })
    });
}
