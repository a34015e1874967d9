//! The messages of a tree of zones, for tests.

use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};

use super::Dnskey;
use super::anchors::Anchors;
use crate::config::TrustAnchor;
use crate::wire::canonical::label_count;
use crate::wire::question::Type;

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

/// A zone whose owner signs whatever costs much.
pub(crate) struct Costly {
    key: EcdsaKeyPair,
    random: SystemRandom,
}

pub(crate) const COSTLY: &[u8] = b"\x06costly\0";

impl Costly {
    pub(crate) fn new() -> Self {
        let random = SystemRandom::new();
        let algorithm = &ECDSA_P384_SHA384_FIXED_SIGNING;
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random)
            .expect("the data of the test is valid");
        let key = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &random)
            .expect("the data of the test is valid");
        Self { key, random }
    }

    pub(crate) fn dnskey(&self) -> Vec<u8> {
        let point = self.key.public_key().as_ref();
        [&[1, 1, 3, 14][..], &point[1..]].concat()
    }

    pub(crate) fn anchor(&self) -> TrustAnchor {
        TrustAnchor {
            zone: "costly".parse().expect("the data of the test is valid"),
            rr_type: Type::DNSKEY,
            data: self.dnskey().into(),
        }
    }

    pub(crate) fn anchors(&self) -> Anchors {
        Anchors::new(&[self.anchor()], &[])
    }

    /// Returns the answer to the question for the keys.
    pub(crate) fn keys(&self, time: u64) -> Vec<u8> {
        let keys = self.signed(COSTLY, Type::DNSKEY, &self.dnskey(), time);
        message_with(COSTLY, Type::DNSKEY, [2, 0], &keys)
    }

    /// Returns an NSEC record that proves that the ancestors of a name exist, with its signature.
    pub(crate) fn proof(&self, deepest: &[u8], time: u64) -> Vec<u8> {
        let last = [&b"\x01z"[..], deepest, COSTLY].concat();
        let data = [&last[..], &[0, 1, 0x40]].concat();
        self.signed(COSTLY, Type::NSEC, &data, time)
    }

    /// Returns 15 NSEC records that prove nothing, with their signatures.
    pub(crate) fn useless_proofs(&self, time: u64) -> Vec<u8> {
        let mut proofs = Vec::new();
        for byte in b'0'..b'0' + 15 {
            let owner = [&[1, byte], COSTLY].concat();
            let data = [&owner[..], &[0, 1, 0x40]].concat();
            proofs.extend(self.signed(&owner, Type::NSEC, &data, time));
        }
        proofs
    }

    /// Returns a record and its signature.
    pub(crate) fn signed(&self, owner: &[u8], rr_type: Type, data: &[u8], time: u64) -> Vec<u8> {
        let time = u32::try_from(time).expect("the data of the test is valid");
        let labels = label_count(owner);
        let key = self.dnskey();
        let tag = Dnskey::parse(&key)
            .expect("the data of the test is valid")
            .tag;
        let mut fields = rr_type.0.to_be_bytes().to_vec();
        fields.extend([
            14,
            u8::try_from(labels).expect("the data of the test is valid"),
        ]);
        fields.extend(60_u32.to_be_bytes());
        fields.extend((time + 86_400).to_be_bytes());
        fields.extend((time - 86_400).to_be_bytes());
        fields.extend(tag.to_be_bytes());
        fields.extend_from_slice(COSTLY);
        let mut signed = record(owner, rr_type, data);
        let to_sign = [&fields[..], &signed].concat();
        let signature = self
            .key
            .sign(&self.random, &to_sign)
            .expect("the data of the test is valid");
        fields.extend_from_slice(signature.as_ref());
        signed.extend(record(owner, Type::RRSIG, &fields));
        signed
    }
}

/// Returns a message with these records in a section.
pub(crate) fn message_with(name: &[u8], rr_type: Type, count: [u8; 2], records: &[u8]) -> Vec<u8> {
    let mut out = vec![0, 0, 0x81, 0x80, 0, 1, 0, count[0], 0, count[1], 0, 0];
    out.extend_from_slice(name);
    out.extend(rr_type.0.to_be_bytes());
    out.extend([0, 1]);
    out.extend_from_slice(records);
    out
}

/// Returns a record of class IN with a TTL of 60 s.
pub(crate) fn record(owner: &[u8], rr_type: Type, data: &[u8]) -> Vec<u8> {
    let mut out = owner.to_vec();
    out.extend(rr_type.0.to_be_bytes());
    out.extend(b"\0\x01\0\0\0\x3c");
    let len = u16::try_from(data.len()).expect("the data of the test is valid");
    out.extend(len.to_be_bytes());
    out.extend_from_slice(data);
    out
}

/// Returns a signature that is wrong, with this number of labels and this signer.
pub(crate) fn wrong_signature(owner: &[u8], covered: Type, labels: u8, signer: &[u8]) -> Vec<u8> {
    let mut data = covered.0.to_be_bytes().to_vec();
    data.extend([13, labels]);
    data.extend(b"\0\0\0\x3c\xff\0\0\0\0\0\0\0\0\x01");
    data.extend_from_slice(signer);
    data.extend([7; 64]);
    record(owner, Type::RRSIG, &data)
}

/// Returns the NSEC record of an unsigned delegation at a name, and before it records whose zones
/// would be children of the name.
pub(crate) fn branching(costly: &Costly, name: &[u8], children: &[u8], time: u64) -> Vec<u8> {
    let mut records = Vec::new();
    for label in children {
        let owner = [&[1, *label], name].concat();
        let labels = label_count(&owner);
        let labels = u8::try_from(labels).expect("the data of the test is valid");
        let data = [&owner[..], &[0, 1, 0x40]].concat();
        records.extend(record(&owner, Type::NSEC, &data));
        records.extend(wrong_signature(&owner, Type::NSEC, 0, COSTLY));
        records.extend(wrong_signature(&owner, Type::NSEC, labels, &owner));
    }
    let data = [name, &[0, 1, 0x20]].concat();
    records.extend(costly.signed(name, Type::NSEC, &data, time));
    let count = u8::try_from(3 * children.len() + 2).expect("the data of the test is valid");
    message_with(name, Type::DS, [0, count], &records)
}

/// Returns the answers to the questions for DS of `n.costly` and of names below it, by name.
pub(crate) fn branching_answers(costly: &Costly, time: u64) -> Vec<(String, Vec<u8>)> {
    let mut names = vec!["n.costly".to_owned()];
    let mut answers = Vec::new();
    while let Some(name) = names.get(answers.len()).cloned() {
        let labels = name.split('.').flat_map(|label| {
            let len = u8::try_from(label.len()).expect("the data of the test is valid");
            [&[len], label.as_bytes()].concat()
        });
        let wire: Vec<u8> = labels.chain([0]).collect();
        let is_deepest = name.split('.').count() == 7;
        let children: &[u8] = if is_deepest { &[] } else { b"abc" };
        let message = branching(costly, &wire, children, time);
        let label = |label: &u8| format!("{}.{name}", char::from(*label));
        names.extend(children.iter().map(label));
        answers.push((name, message));
    }
    answers
}
