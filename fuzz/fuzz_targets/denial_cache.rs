//! The denial cache with any records. Its memory is bounded, and the records of each response prove
//! to a validator what the response denies.
//!
//! Input: records and questions in turn. See [`Input`].

#![no_main]

use dotproxy::base::time::Instant;
use dotproxy::dnssec::denial::{Denials, Proof};
use dotproxy::dnssec::denial_cache::{DenialCache, ProvenRecord};
use dotproxy::wire::canonical::write_name;
use dotproxy::wire::header::Flags;
use dotproxy::wire::name::suffixes;
use dotproxy::wire::question::Type;
use dotproxy::wire::response::{Asked, STREAM_LEN_MAX};
use dotproxy::wire::{Message, Question, Rcode};
use libfuzzer_sys::fuzz_target;

const LEN_MAX: usize = 8 << 10;

/// The bytes that determine records and questions.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*byte)
    }

    fn bytes<const LEN: usize>(&mut self) -> Option<[u8; LEN]> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*bytes)
    }

    /// A number of labels of one byte, and their bytes in lower case, of which few differ.
    fn name(&mut self) -> Option<Vec<u8>> {
        let mut name = Vec::new();
        for _ in 0..self.byte()? % 5 {
            let byte = self.byte()?;
            name.extend([
                1,
                if byte < 128 {
                    b"ab*\0\x01"[usize::from(byte % 5)]
                } else {
                    byte
                },
            ]);
        }
        name.push(0);
        Some(name.to_ascii_lowercase())
    }

    /// Types of low numbers.
    fn bitmap(&mut self) -> Option<Vec<u8>> {
        let [first, .., fourth, fifth] = self.bytes::<5>()?;
        // NS, CNAME, SOA, A, TXT and DNAME are among them.
        Some(vec![
            0,
            5,
            first & 0x66,
            0,
            first & 0x80,
            0,
            fourth & fifth & 1,
        ])
    }

    /// A record of the zone that an ancestor of a name is.
    fn record(&mut self, is_hashed: bool) -> Option<ProvenRecord> {
        let mut owner = self.name()?;
        let labels = owner.len() / 2;
        let nth = usize::from(self.byte()?) % (labels + 1);
        let zone: Box<[u8]> = suffixes(&owner).nth(nth)?.into();
        let mut data = Vec::new();
        if is_hashed {
            let [iterations, salt] = self.bytes()?;
            data.extend([1, 0, 0, iterations % 4, 1, salt % 2, 20]);
            let hash: [u8; 20] = self.bytes()?;
            data.extend(self.bytes::<20>()?);
            owner = [&[32], &base32(&hash)[..], &zone].concat();
        } else {
            data = self.name()?;
        }
        data.extend(self.bitmap()?);
        let rr_type = if is_hashed { Type::NSEC3 } else { Type::NSEC };
        Some(proven(&zone, &owner, rr_type, &data))
    }
}

/// Returns the text of a hash: base32 with the extended hex alphabet (RFC 4648, section 7).
fn base32(hash: &[u8; 20]) -> Vec<u8> {
    let digits = b"0123456789abcdefghijklmnopqrstuv";
    let bit = |at: usize| usize::from(hash[at / 8] >> (7 - at % 8) & 1);
    let digit = |at: usize| (0..5).fold(0, |value, next| value << 1 | bit(5 * at + next));
    (0..32).map(|at| digits[digit(at)]).collect()
}

fn proven(zone: &[u8], owner: &[u8], rr_type: Type, data: &[u8]) -> ProvenRecord {
    let mut records = rr_type.0.to_be_bytes().to_vec();
    records.extend([0, 1, 0, 0, 0, 60]);
    records.extend(u16::try_from(data.len()).expect("short data").to_be_bytes());
    records.extend_from_slice(data);
    ProvenRecord {
        zone: zone.into(),
        owner: owner.into(),
        rr_type,
        ttl: 60,
        records: records.into(),
    }
}

/// Returns what the records of a response prove to a validator.
fn proof_of(response: &[u8], question: Question<'_>) -> Proof {
    let message = Message::parse(response).expect("a well-formed response");
    let records = message.authorities().map(|record| {
        let mut owner = Vec::new();
        write_name(&mut owner, response, record.start).expect("a name");
        (record.rr_type, owner, record.data(response))
    });
    let records: Vec<_> = records.collect();
    let zone = records.iter().find(|(rr_type, ..)| *rr_type == Type::SOA);
    let (_, zone, _) = zone.expect("a denial has an SOA record");
    let mut denials = Denials::of(zone);
    for (rr_type, owner, data) in &records {
        denials.add(*rr_type, owner, data);
    }
    match message.header().flags.rcode() {
        Rcode::NXDOMAIN => denials.denies_name(question.name()),
        _ => denials.denies_type(question.name(), question.rr_type()),
    }
}

fn ask(cache: &DenialCache, name: &[u8]) {
    for rr_type in [Type::A, Type::NS, Type(16)] {
        let bytes = [name, &rr_type.0.to_be_bytes(), &[0, 1]].concat();
        let question = Question::parse(&bytes, 0).expect("a question");
        let Some(denial) = cache.deny(question, 0, 60, Instant::default()) else {
            continue;
        };
        let asked = Asked {
            id: 0,
            flags: Flags::AD,
            question: Some(question),
            opt: None,
            len_max: STREAM_LEN_MAX,
        };
        let mut response = Vec::new();
        denial.write(&mut response, &asked, true);
        assert_eq!(proof_of(&response, question), Proof::Secure);
    }
}

fn run(input: &mut Input<'_>) -> Option<()> {
    let mut cache = DenialCache::new(LEN_MAX);
    loop {
        match input.byte()? % 3 {
            0 => ask(&cache, &input.name()?),
            kind => {
                let record = input.record(kind == 2)?;
                let soa = proven(&record.zone, &record.zone, Type::SOA, &[0; 22]);
                cache.insert(&[soa, record], 0, Instant::default());
                assert!(cache.bytes() <= LEN_MAX);
            }
        }
    }
}

fuzz_target!(|input: &[u8]| {
    let _ = run(&mut Input(input));
});
