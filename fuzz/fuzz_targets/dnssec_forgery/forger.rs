//! A resolver that forges answers.

use std::sync::LazyLock;

use crate::tree::{self, Chain, Fact, Set, Tree, Zone, wire};

/// The types in questions.
pub const TYPES: &[u16] = &[
    tree::A,
    tree::TXT,
    tree::CNAME,
    tree::DS,
    tree::NS,
    tree::SOA,
    tree::DNAME,
    tree::DNSKEY,
];

/// Types whose answers have records of any type.
pub const SPECIAL: &[u16] = &[tree::RRSIG, tree::NSEC, tree::ANY];

const LABELS: &[&str] = &[
    "",
    "www",
    "ns",
    "alias",
    "out",
    "in",
    "x.w",
    "y.x.w",
    "*.w",
    "w",
    "real.w",
    "b.real.w",
    "x.v",
    "a.ent",
    "ent",
    "b.ent",
    "ren",
    "www.ren",
    "www.rex",
    "alias.ren",
    "nothing",
    "a.nothing",
    "a.www",
];

const ZONES: &[&str] = &[
    "",
    "t",
    "h.t",
    "o.t",
    "s.o.t",
    "evil.t",
    "cut.t",
    "cut.o.t",
    "cut.h.t",
    "deep.down.h.t",
    "down.h.t",
    "priv.t",
    "cut.w.t",
    "s.w.h.t",
    "u.t",
    "w.h.t",
];

static NAMES: LazyLock<Vec<Vec<Vec<u8>>>> = LazyLock::new(|| {
    let name = |zone: &str, label: &&str| wire(&format!("{label}.{zone}"));
    let names = |zone: &&str| LABELS.iter().map(|label| name(zone, label)).collect();
    ZONES.iter().map(names).collect()
});

/// Returns the names that are asked for.
pub fn names() -> impl Iterator<Item = Vec<u8>> {
    NAMES.iter().flatten().cloned()
}

/// A resolver that forges answers as its input says. Without input, its answers are genuine.
pub struct Forger<'a> {
    tree: &'a Tree,
    input: &'a [u8],
    /// Some answer was not genuine.
    pub has_lied: bool,
}

/// An answer.
#[derive(Default)]
struct Draft {
    is_nxdomain: bool,
    /// The sets of the answer and the authority section.
    sections: [Vec<Set>; 2],
}

impl<'a> Forger<'a> {
    pub fn new(tree: &'a Tree, input: &'a [u8]) -> Self {
        Self {
            tree,
            input,
            has_lied: false,
        }
    }

    pub fn byte(&mut self) -> u8 {
        let Some((byte, rest)) = self.input.split_first() else {
            return 0;
        };
        self.input = rest;
        *byte
    }

    fn place(&mut self, len: usize) -> usize {
        usize::from(self.byte()) % len.max(1)
    }

    fn name(&mut self) -> Vec<u8> {
        let zone = &NAMES[self.place(ZONES.len())];
        zone[self.place(LABELS.len())].clone()
    }

    fn rr_type(&mut self) -> u16 {
        let all = [TYPES, &[tree::NSEC, tree::NSEC3, tree::RRSIG]].concat();
        all[self.place(all.len())]
    }

    fn zone(&mut self) -> &'a Zone {
        let place = self.place(self.tree.zones.len());
        &self.tree.zones[place]
    }

    /// Returns the next question of a client, if there is input for one.
    pub fn question(&mut self) -> Option<(Vec<u8>, u16)> {
        let all = [TYPES, SPECIAL].concat();
        (!self.input.is_empty()).then(|| (self.name(), all[self.place(all.len())]))
    }

    /// Returns an answer to a question. Aliases are followed for a client.
    pub fn answer(&mut self, name: &[u8], rr_type: u16, is_for_client: bool) -> Vec<u8> {
        let kind = self.byte() % 8;
        let mut draft = match kind {
            6 => Draft::default(),
            7 => {
                let (name, rr_type) = (self.name(), self.rr_type());
                self.genuine(&name, rr_type, is_for_client)
            }
            _ => self.genuine(name, rr_type, is_for_client),
        };
        let changes = self.byte() % 8;
        for _ in 0..changes {
            self.change(&mut draft, name);
        }
        self.has_lied |= kind > 5 || changes > 0 || SPECIAL.contains(&rr_type);
        draft.write(name, rr_type)
    }

    fn genuine(&self, name: &[u8], rr_type: u16, is_for_client: bool) -> Draft {
        let mut draft = Draft::default();
        let mut name = name.to_vec();
        for _ in 0..if is_for_client { 10 } else { 1 } {
            let statement = self.tree.state(&name, rr_type);
            draft.is_nxdomain = statement.fact == Fact::NoName;
            draft.sections[0].extend(statement.answers);
            draft.sections[1].extend(statement.authorities);
            match statement.fact {
                Fact::Alias(target) => name = target,
                _ => break,
            }
        }
        draft
    }

    /// Changes an answer.
    fn change(&mut self, draft: &mut Draft, asked: &[u8]) {
        let op = self.byte() % 12;
        if op == 0 {
            draft.is_nxdomain ^= true;
            return;
        }
        let section = self.place(2);
        if op < 6 {
            let set = self.new_set(op, asked);
            let place = self.place(draft.sections[section].len() + 1);
            draft.sections[section].insert(place, set);
            return;
        }
        if draft.sections[section].is_empty() {
            return;
        }
        let place = self.place(draft.sections[section].len());
        let set = draft.sections[section].remove(place);
        let (to_section, set) = match op {
            6 => return,
            7 => (1 - section, set),
            _ => (section, self.changed(op, set, asked)),
        };
        let place = self.place(draft.sections[to_section].len() + 1);
        draft.sections[to_section].insert(place, set);
    }

    /// Returns a set that is genuine, or forged, perhaps with a signature by a hostile zone.
    fn new_set(&mut self, op: u8, asked: &[u8]) -> Set {
        let zone = self.zone();
        if op < 3 {
            let all = zone.sets.len() + zone.denials.len();
            let place = self.place(all);
            let set = zone.sets.values().chain(&zone.denials).nth(place);
            return set.expect("the place is in the zone").clone();
        }
        let owner = if self.byte().is_multiple_of(2) {
            asked.to_vec()
        } else {
            self.name()
        };
        let mut set = Set {
            owner,
            rr_type: self.rr_type(),
            class: 1,
            data: Vec::new(),
            signatures: Vec::new(),
        };
        self.set_data(&mut set, zone);
        if op > 3 {
            self.add_signature(&mut set);
        }
        set
    }

    /// Replaces the data of a set. NSEC3 gets an owner of the zone.
    fn set_data(&mut self, set: &mut Set, zone: &Zone) {
        let types: Vec<u16> = (0..self.byte() % 4).map(|_| self.rr_type()).collect();
        let data = match set.rr_type {
            tree::A => vec![6; 4],
            tree::TXT => b"\x04evil".to_vec(),
            tree::CNAME | tree::NS | tree::DNAME => self.name(),
            tree::DS => self.zone().ds(),
            tree::SOA => [&self.name()[..], &[0], &[0; 20]].concat(),
            tree::NSEC => [self.name(), tree::bitmap(&types)].concat(),
            tree::NSEC3 => {
                let mut hash = tree::hash(&set.owner, zone.chain);
                let mut next = hash;
                if self.byte().is_multiple_of(2) {
                    hash[19] = hash[19].wrapping_sub(1);
                }
                next[19] = next[19].wrapping_add(1);
                set.owner = [&[32], &tree::base32(&hash)[..], &zone.apex].concat();
                let is_opt_out = self.byte().is_multiple_of(2);
                let chain = if zone.chain == Chain::OptOut {
                    Chain::OptOut
                } else {
                    Chain::Nsec3
                };
                tree::nsec3_data(chain, is_opt_out, &next, &types)
            }
            tree::DNSKEY => {
                let sets = &self.zone().sets;
                let mut keys = sets.values().filter(|set| set.rr_type == tree::DNSKEY);
                keys.next()
                    .map_or(vec![1, 1, 3, 15], |keys| keys.data[0].clone())
            }
            _ => vec![0; 4],
        };
        set.data = vec![data];
    }

    /// Adds a signature by the key of a hostile zone in the name of any zone.
    fn add_signature(&mut self, set: &mut Set) {
        let hostile = self.tree.zones.iter().find(|zone| zone.is_hostile);
        let hostile = hostile.expect("a hostile zone");
        let signer = match self.byte() % 3 {
            0 => hostile.apex.clone(),
            1 => self.zone().apex.clone(),
            _ => self.name(),
        };
        let mut owner = set.owner.clone();
        if self.byte().is_multiple_of(4) {
            owner = self.name();
        }
        let head = hostile.signature_head(&owner, set.rr_type);
        let signature = hostile.sign(&owner, set, &head, &signer);
        set.signatures.insert(0, signature);
    }

    /// Returns a set with another property.
    fn changed(&mut self, op: u8, mut set: Set, asked: &[u8]) -> Set {
        match op {
            8 => {
                set.owner = if self.byte().is_multiple_of(2) {
                    asked.to_vec()
                } else {
                    self.name()
                }
            }
            9 => match self.byte() % 3 {
                0 => set.signatures.clear(),
                1 => self.add_signature(&mut set),
                _ => {
                    if let Some(signature) = set.signatures.first_mut() {
                        let at = self.place(18);
                        signature[at] = signature[at].wrapping_add(self.byte());
                    }
                }
            },
            10 => {
                let zone = self.zone();
                let genuine = set.data.clone();
                let is_added = self.byte().is_multiple_of(2);
                self.set_data(&mut set, zone);
                if is_added {
                    set.data.extend(genuine);
                }
            }
            _ => match self.byte() % 4 {
                0 => set.class = 3,
                1 => set.owner.make_ascii_uppercase(),
                2 => set.data.extend_from_within(..),
                _ => set.rr_type = self.rr_type(),
            },
        }
        set
    }
}

impl Draft {
    /// Returns the message.
    fn write(&self, name: &[u8], rr_type: u16) -> Vec<u8> {
        let rcode = if self.is_nxdomain { 3 } else { 0 };
        let mut out = vec![0, 0, 0x81, 0x80 | rcode, 0, 1, 0, 0, 0, 0, 0, 0];
        out.extend_from_slice(name);
        out.extend(rr_type.to_be_bytes());
        out.extend([0, 1]);
        for (section, count_at) in self.sections.iter().zip([6, 8]) {
            let mut count = 0_u16;
            for set in section {
                for (types, data) in [(set.rr_type, &set.data), (tree::RRSIG, &set.signatures)] {
                    for data in data {
                        count += 1;
                        write_record(&mut out, set, types, data);
                    }
                }
            }
            out[count_at..count_at + 2].copy_from_slice(&count.to_be_bytes());
        }
        out
    }
}

fn write_record(out: &mut Vec<u8>, set: &Set, rr_type: u16, data: &[u8]) {
    out.extend_from_slice(&set.owner);
    out.extend(rr_type.to_be_bytes());
    out.extend(set.class.to_be_bytes());
    out.extend(tree::TTL.to_be_bytes());
    out.extend(u16::try_from(data.len()).expect("short data").to_be_bytes());
    out.extend_from_slice(data);
}
