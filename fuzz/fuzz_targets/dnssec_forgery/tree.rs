//! A tree of small zones, signed with keys that are made of fixed seeds, and its genuine answers.

use std::collections::BTreeMap;

use dotproxy::dnssec::Dnskey;
use dotproxy::dnssec::verify::{digest, sha1};
use dotproxy::wire::canonical::{compare_names, is_at_or_below, label_count};
use dotproxy::wire::name::suffixes;
use ring::signature::{Ed25519KeyPair, KeyPair};

pub const A: u16 = 1;
pub const NS: u16 = 2;
pub const CNAME: u16 = 5;
pub const SOA: u16 = 6;
pub const TXT: u16 = 16;
pub const DNAME: u16 = 39;
pub const DS: u16 = 43;
pub const RRSIG: u16 = 46;
pub const NSEC: u16 = 47;
pub const DNSKEY: u16 = 48;
pub const NSEC3: u16 = 50;
pub const ANY: u16 = 255;

/// The time of the signatures.
pub const TIME: u32 = 1_800_000_000;
pub const TTL: u32 = 3_600;

/// An RRset and its signatures.
#[derive(Clone, Debug)]
pub struct Set {
    pub owner: Vec<u8>,
    pub rr_type: u16,
    pub class: u16,
    pub data: Vec<Vec<u8>>,
    pub signatures: Vec<Vec<u8>>,
}

/// The chain that denies names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chain {
    Nsec,
    Nsec3,
    OptOut,
    /// The zone is not signed.
    None,
}

/// A zone.
pub struct Zone {
    pub apex: Vec<u8>,
    pub chain: Chain,
    /// An attacker has the keys, or owns the unsigned zone.
    pub is_hostile: bool,
    key: Ed25519KeyPair,
    pub sets: BTreeMap<(Vec<u8>, u16), Set>,
    /// The NSEC or NSEC3 records.
    pub denials: Vec<Set>,
}

/// What a zone says of a name and a type.
#[derive(Debug, PartialEq, Eq)]
pub enum Fact {
    Records(Vec<Vec<u8>>),
    Alias(Vec<u8>),
    NoData,
    NoName,
}

/// A fact, the zone that states it, and the sets of a genuine answer.
pub struct Statement<'a> {
    pub zone: &'a Zone,
    pub fact: Fact,
    /// An opt-out span holds the name, so that a resolver may say of it what it likes.
    pub is_opt_out: bool,
    pub answers: Vec<Set>,
    pub authorities: Vec<Set>,
}

/// Returns a name in wire form.
pub fn wire(text: &str) -> Vec<u8> {
    let mut name = Vec::new();
    for label in text.split('.').filter(|label| !label.is_empty()) {
        name.push(u8::try_from(label.len()).expect("a short label"));
        name.extend(label.bytes());
    }
    name.push(0);
    name
}

pub fn base32(hash: &[u8; 20]) -> Vec<u8> {
    let digits = b"0123456789abcdefghijklmnopqrstuv";
    let bit = |at: usize| usize::from(hash[at / 8] >> (7 - at % 8) & 1);
    let digit = |at: usize| (0..5).fold(0, |value, next| value << 1 | bit(5 * at + next));
    (0..32).map(|at| digits[digit(at)]).collect()
}

/// Returns the hash of a name: no salt in an opt-out zone, and otherwise one of two bytes.
pub fn hash(name: &[u8], chain: Chain) -> [u8; 20] {
    let salt = salt(chain);
    let first = sha1(&[name, salt].concat());
    sha1(&[&first[..], salt].concat())
}

fn salt(chain: Chain) -> &'static [u8] {
    if chain == Chain::OptOut {
        b""
    } else {
        b"\xab\xcd"
    }
}

/// Returns the data of NSEC3 with one iteration.
pub fn nsec3_data(chain: Chain, is_opt_out: bool, next: &[u8; 20], types: &[u16]) -> Vec<u8> {
    let salt = salt(chain);
    let salt_len = u8::try_from(salt.len()).expect("a short salt");
    let head = [1, u8::from(is_opt_out), 0, 1, salt_len];
    [&head[..], salt, &[20], next, &bitmap(types)].concat()
}

/// Returns the bitmap of types below 256.
pub fn bitmap(types: &[u16]) -> Vec<u8> {
    let mut bits = [0_u8; 32];
    for rr_type in types {
        bits[usize::from(rr_type / 8)] |= 0x80 >> (rr_type % 8);
    }
    match bits.iter().rposition(|byte| *byte != 0) {
        Some(last) => [&[0, u8::try_from(last + 1).unwrap_or(32)], &bits[..=last]].concat(),
        None => Vec::new(),
    }
}

impl Zone {
    fn new(apex: &str, chain: Chain, is_hostile: bool) -> Self {
        let mut seed = [u8::try_from(apex.len()).unwrap_or(0); 32];
        for (byte, letter) in seed.iter_mut().zip(apex.bytes()) {
            *byte ^= letter;
        }
        let key = Ed25519KeyPair::from_seed_unchecked(&seed).expect("a seed of 32 bytes");
        let mut zone = Self {
            apex: wire(apex),
            chain,
            is_hostile,
            key,
            sets: BTreeMap::new(),
            denials: Vec::new(),
        };
        let under = |label: &str| [&wire(label)[..label.len() + 1], &wire(apex)].concat();
        let names = [under("ns"), under("host")].concat();
        zone.add("", SOA, &[&names[..], &[0, 0, 0, 9].repeat(5)].concat());
        zone.add("", NS, &under("ns"));
        if chain != Chain::None {
            let key = zone.dnskey();
            zone.add("", DNSKEY, &key);
        }
        zone.add("ns", A, &[192, 0, 2, 53]);
        zone.add("www", A, &[192, 0, 2, 1]);
        zone.add("alias", CNAME, &under("www"));
        zone.add("out", CNAME, &wire("www.h.t"));
        zone.add("in", CNAME, &wire("www.cut.t"));
        zone.add("*.w", A, &[192, 0, 2, 2]);
        zone.add("real.w", TXT, b"\x01a");
        zone.add("*.v", CNAME, &wire("www.t"));
        zone.add("a.ent", A, &[192, 0, 2, 3]);
        zone.add("ren", DNAME, &wire("h.t"));
        zone.add("rex", DNAME, &wire("cut.t"));
        if apex == "s.o.t" {
            zone.add("*", A, &[192, 0, 2, 4]);
        }
        zone
    }

    fn dnskey(&self) -> Vec<u8> {
        let public = self.key.public_key().as_ref();
        [&[1, 1, 3, 15][..], public].concat()
    }

    /// Returns the data of the DS record.
    pub fn ds(&self) -> Vec<u8> {
        let key = self.dnskey();
        let tag = Dnskey::parse(&key).expect("a whole key").tag;
        let digest = digest(2, &[&self.apex[..], &key].concat()).expect("SHA-256");
        [&tag.to_be_bytes()[..], &[15, 2], digest.as_ref()].concat()
    }

    fn under(&self, labels: &str) -> Vec<u8> {
        let mut name = wire(labels);
        name.pop();
        name.extend(&self.apex);
        name
    }

    fn add(&mut self, labels: &str, rr_type: u16, data: &[u8]) {
        let owner = self.under(labels);
        let set = self.sets.entry((owner.clone(), rr_type)).or_insert(Set {
            owner,
            rr_type,
            class: 1,
            data: Vec::new(),
            signatures: Vec::new(),
        });
        set.data.push(data.into());
    }

    /// Returns the fields of a signature before the signer, with the number of labels of `owner`.
    pub fn signature_head(&self, owner: &[u8], rr_type: u16) -> Vec<u8> {
        let labels = label_count(owner) - usize::from(owner.starts_with(b"\x01*"));
        let mut head = rr_type.to_be_bytes().to_vec();
        head.extend([15, u8::try_from(labels).unwrap_or(0)]);
        head.extend(TTL.to_be_bytes());
        head.extend((TIME + 86_400).to_be_bytes());
        head.extend((TIME - 86_400).to_be_bytes());
        let key = self.dnskey();
        head.extend(Dnskey::parse(&key).expect("a whole key").tag.to_be_bytes());
        head
    }

    /// Returns the data of a signature by the key of this zone with these fields.
    pub fn sign(&self, owner: &[u8], set: &Set, head: &[u8], signer: &[u8]) -> Vec<u8> {
        let mut signed = [head, signer].concat();
        let mut all = set.data.clone();
        all.sort();
        all.dedup();
        for data in &all {
            signed.extend_from_slice(owner);
            signed.extend(set.rr_type.to_be_bytes());
            signed.extend(set.class.to_be_bytes());
            signed.extend(TTL.to_be_bytes());
            let len = u16::try_from(data.len()).expect("short data");
            signed.extend(len.to_be_bytes());
            signed.extend(data);
        }
        let signature = self.key.sign(&signed);
        [head, signer, signature.as_ref()].concat()
    }

    fn signed(&self, set: &Set) -> Vec<u8> {
        let head = self.signature_head(&set.owner, set.rr_type);
        self.sign(&set.owner, set, &head, &self.apex)
    }

    fn is_cut(&self, name: &[u8]) -> bool {
        *name != self.apex && self.sets.contains_key(&(name.to_vec(), NS))
    }

    /// Returns the names in the chain, in canonical order, with their types.
    fn chained(&self) -> Vec<(Vec<u8>, Vec<u16>)> {
        let mut names: BTreeMap<Vec<u8>, Vec<u16>> = BTreeMap::new();
        let is_opt_out = self.chain == Chain::OptOut;
        for (owner, rr_type) in self.sets.keys() {
            let is_signed = self.sets.contains_key(&(owner.clone(), DS));
            if is_opt_out && self.is_cut(owner) && !is_signed {
                continue;
            }
            names.entry(owner.clone()).or_default().push(*rr_type);
            if self.chain != Chain::Nsec {
                let above = suffixes(owner).skip(1);
                let above = above.take_while(|name| name.len() >= self.apex.len());
                for name in above.map(<[u8]>::to_vec).collect::<Vec<_>>() {
                    names.entry(name).or_default();
                }
            }
        }
        for (name, types) in &mut names {
            let is_unsigned = self.is_cut(name) && !types.contains(&DS);
            if !types.is_empty() && !is_unsigned {
                types.push(RRSIG);
            }
            if self.chain == Chain::Nsec {
                types.extend([NSEC, RRSIG]);
            }
        }
        let mut names: Vec<_> = names.into_iter().collect();
        names.sort_by(|(one, _), (other, _)| compare_names(one, other));
        names
    }

    fn finish(&mut self) {
        if self.chain == Chain::None {
            return;
        }
        let names = self.chained();
        let next = |place: usize, len: usize| (place + 1) % len;
        if self.chain == Chain::Nsec {
            for (place, (owner, types)) in names.iter().enumerate() {
                let following = &names[next(place, names.len())].0;
                let data = [&following[..], &bitmap(types)].concat();
                self.add_denial(owner.clone(), NSEC, data);
            }
        } else {
            let hashed = names
                .iter()
                .map(|(name, types)| (hash(name, self.chain), types));
            let mut hashed: Vec<_> = hashed.collect();
            hashed.sort();
            for (place, (own, types)) in hashed.iter().enumerate() {
                let following = hashed[next(place, hashed.len())].0;
                let is_opt_out = self.chain == Chain::OptOut;
                let data = nsec3_data(self.chain, is_opt_out, &following, types);
                let owner = [&[32], &base32(own)[..], &self.apex].concat();
                self.add_denial(owner, NSEC3, data);
            }
        }
        let keys: Vec<_> = self.sets.keys().cloned().collect();
        for key in keys {
            let is_of_child = self.is_cut(&key.0) && key.1 != DS;
            if !is_of_child {
                let signature = self.signed(&self.sets[&key]);
                let set = self.sets.get_mut(&key).expect("the key is in the map");
                set.signatures.push(signature);
            }
        }
    }

    fn add_denial(&mut self, owner: Vec<u8>, rr_type: u16, data: Vec<u8>) {
        let mut set = Set {
            owner,
            rr_type,
            class: 1,
            data: vec![data],
            signatures: Vec::new(),
        };
        set.signatures.push(self.signed(&set));
        self.denials.push(set);
    }

    /// Returns the record of the chain at or before a name.
    fn at_or_before(&self, name: &[u8]) -> Option<&Set> {
        let last = self.denials.last()?;
        if self.chain == Chain::Nsec {
            let is_later = |set: &&Set| compare_names(&set.owner, name).is_gt();
            return Some(
                self.denials
                    .iter()
                    .rfind(|set| !is_later(set))
                    .unwrap_or(last),
            );
        }
        let hash = [&[32], &base32(&hash(name, self.chain))[..]].concat();
        let found = self.denials.iter().rfind(|set| set.owner[..33] <= hash[..]);
        Some(found.unwrap_or(last))
    }

    /// Returns whether a name exists, perhaps without records.
    fn exists(&self, name: &[u8]) -> bool {
        self.sets
            .keys()
            .any(|(owner, _)| is_at_or_below(owner, name))
    }

    /// Returns the name below the nearest ancestor that exists.
    fn next_closer<'n>(&self, name: &'n [u8]) -> Option<&'n [u8]> {
        suffixes(name)
            .take_while(|suffix| !self.exists(suffix))
            .last()
    }

    /// Returns SOA and the records of the chain for a name and its ancestors and their wildcards.
    fn denial(&self, name: &[u8]) -> Vec<Set> {
        let mut sets = vec![self.sets[&(self.apex.clone(), SOA)].clone()];
        let is_in = |suffix: &&[u8]| suffix.len() >= self.apex.len();
        let encloser = suffixes(name).find(|suffix| self.exists(suffix));
        let wildcard = [b"\x01*", encloser.unwrap_or(&self.apex)].concat();
        let above = suffixes(name).take_while(is_in);
        let above = above.take(if self.chain == Chain::Nsec { 1 } else { 8 });
        for set in above
            .chain([&wildcard[..]])
            .filter_map(|name| self.at_or_before(name))
        {
            if sets
                .iter()
                .all(|other| other.owner != set.owner || other.rr_type != set.rr_type)
            {
                sets.push(set.clone());
            }
        }
        sets
    }
}

/// The zones, from the root down.
pub struct Tree {
    pub zones: Vec<Zone>,
}

impl Tree {
    /// `priv.t` does not exist in its parent zone: only a trust anchor leads to it.
    pub fn new(has_private: bool) -> Self {
        let mut zones = vec![
            Zone::new("", Chain::Nsec, false),
            Zone::new("t", Chain::Nsec, false),
            Zone::new("h.t", Chain::Nsec3, false),
            Zone::new("o.t", Chain::OptOut, false),
            Zone::new("s.o.t", Chain::Nsec, false),
            Zone::new("evil.t", Chain::Nsec, true),
            Zone::new("cut.t", Chain::None, true),
            Zone::new("cut.o.t", Chain::None, true),
            Zone::new("cut.h.t", Chain::None, true),
            Zone::new("deep.down.h.t", Chain::Nsec3, false),
            Zone::new("cut.w.t", Chain::None, true),
            Zone::new("s.w.h.t", Chain::Nsec, false),
            Zone::new("u.t", Chain::None, true),
        ];
        for child in 1..zones.len() {
            let apex = zones[child].apex.clone();
            let is_parent =
                |zone: &Zone| is_at_or_below(&apex[1..][usize::from(apex[0])..], &zone.apex);
            let parent = (0..zones.len()).filter(|place| is_parent(&zones[*place]));
            let parent = parent
                .max_by_key(|place| zones[*place].apex.len())
                .expect("the root");
            let (ds, is_signed) = (zones[child].ds(), zones[child].chain != Chain::None);
            let labels_len = apex.len() - zones[parent].apex.len();
            let labels = text(&apex[..labels_len]);
            let server = zones[child].under("ns");
            zones[parent].add(&labels, NS, &server);
            if is_signed {
                zones[parent].add(&labels, DS, &ds);
                zones[parent].add(&labels, DS, &[0, 9, 15, 99, 1]);
            } else if labels == "u." {
                zones[parent].add(&labels, DS, &[&[0, 9, 16, 2][..], &[9; 32]].concat());
            }
        }
        if has_private {
            zones.push(Zone::new("priv.t", Chain::Nsec, false));
        }
        zones.iter_mut().for_each(Zone::finish);
        Self { zones }
    }

    pub fn zone(&self, apex: &[u8]) -> Option<&Zone> {
        self.zones.iter().find(|zone| zone.apex == apex)
    }

    /// Returns the nearest zone at or above a name, or above it for DS.
    pub fn zone_of(&self, name: &[u8], rr_type: u16) -> &Zone {
        let upper = suffixes(name)
            .nth(usize::from(rr_type == DS))
            .unwrap_or(&[0]);
        let above = self
            .zones
            .iter()
            .filter(|zone| is_at_or_below(upper, &zone.apex));
        above
            .max_by_key(|zone| zone.apex.len())
            .expect("the root is above every name")
    }

    /// Returns what the zone of a name says of it, and a genuine answer.
    pub fn state(&self, name: &[u8], rr_type: u16) -> Statement<'_> {
        let zone = self.zone_of(name, rr_type);
        let mut statement = Statement {
            zone,
            fact: Fact::NoName,
            is_opt_out: false,
            answers: Vec::new(),
            authorities: Vec::new(),
        };
        let get = |owner: &[u8], rr_type: u16| zone.sets.get(&(owner.to_vec(), rr_type));
        let mut above = suffixes(name).skip(1);
        if let Some(source) = above.find_map(|suffix| get(suffix, DNAME)) {
            let prefix = &name[..name.len() - source.owner.len()];
            let target = [prefix, &source.data[0]].concat();
            let alias = Set {
                owner: name.into(),
                rr_type: CNAME,
                class: 1,
                data: vec![target.clone()],
                signatures: Vec::new(),
            };
            statement.answers = vec![source.clone(), alias];
            statement.fact = alias_or_records(target, rr_type);
            return statement;
        }
        let mut owner = name.to_vec();
        if let Some(next_closer) = zone.next_closer(name) {
            statement.is_opt_out = zone.chain == Chain::OptOut;
            let encloser = suffixes(next_closer).nth(1).unwrap_or(&[0]);
            owner = [b"\x01*", encloser].concat();
            if !zone.exists(&owner) {
                statement.authorities = zone.denial(name);
                return statement;
            }
        } else {
            let is_unsigned = zone.is_cut(name) && get(name, DS).is_none();
            statement.is_opt_out = zone.chain == Chain::OptOut && is_unsigned;
        }
        let is_expanded = owner != name;
        let found = get(&owner, rr_type).or(get(&owner, CNAME));
        if let Some(set) = found {
            statement.fact = match set.rr_type {
                CNAME => alias_or_records(set.data[0].clone(), rr_type),
                _ => Fact::Records(set.data.clone()),
            };
            let expanded = Set {
                owner: name.into(),
                ..set.clone()
            };
            statement.answers.push(expanded);
        } else {
            statement.fact = Fact::NoData;
        }
        if (is_expanded || found.is_none()) && zone.chain != Chain::None {
            statement.authorities = zone.denial(name);
        }
        statement
    }
}

fn alias_or_records(target: Vec<u8>, rr_type: u16) -> Fact {
    match rr_type {
        CNAME => Fact::Records(vec![target]),
        _ => Fact::Alias(target),
    }
}

/// Returns the text of labels.
fn text(labels: &[u8]) -> String {
    let mut out = String::new();
    let mut at = 0;
    while let Some(len) = labels.get(at) {
        let end = at + 1 + usize::from(*len);
        out.push_str(&String::from_utf8_lossy(&labels[at + 1..end]));
        out.push('.');
        at = end;
    }
    out
}
