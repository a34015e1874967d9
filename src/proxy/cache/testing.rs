//! A cache and answers for the tests of the cache.

use super::*;
use crate::wire::edns::{OptWriter, OptionCode};
use crate::wire::response::AskedOpt;
use crate::wire::{Flags, Header};

pub(super) const A: u16 = 1;
pub(super) const AAAA: u16 = 28;
pub(super) const CNAME: u16 = 5;
/// A type with data of any length.
pub(super) const OPAQUE: u16 = 65_280;

pub(super) const PLAIN: Variant = Variant::of_bits(false, false);

/// A cache and its time.
pub(super) struct Scene {
    pub(super) cache: Cache,
    pub(super) now: Instant,
}

/// The answer that a client gets.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Got {
    pub(super) is_fresh: bool,
    pub(super) rcode: u16,
    pub(super) ttls: Vec<u32>,
    /// Codes of the extended errors.
    pub(super) errors: Vec<u16>,
}

impl Scene {
    pub(super) fn new() -> Self {
        Self::with(&CacheSettings::default())
    }

    pub(super) fn with(settings: &CacheSettings) -> Self {
        let timeouts = Timeouts::for_query(Timeouts::QUERY);
        Self {
            cache: Cache::new(settings, &timeouts, &[5; SEED_LEN]),
            now: Instant::default() + Duration::from_secs(100),
        }
    }

    pub(super) fn forget(&mut self) {
        let (settings, timeouts) = (self.cache.settings, self.cache.timeouts);
        self.cache.reconfigure(&settings, &timeouts);
    }

    pub(super) fn wait(&mut self, seconds: f64) {
        self.now += Duration::from_secs_f64(seconds);
    }

    pub(super) fn lookup(&self, question: Question<'_>, variant: Variant) -> CacheLookup {
        CacheLookup::new(question.name(), variant, &self.cache.hasher)
    }

    pub(super) fn keep_as(&mut self, answer: &Answer, variant: Variant) -> Kept {
        let bytes = answer.to_bytes();
        let message = Message::parse(&bytes).unwrap();
        let question = message.question().unwrap();
        let lookup = self.lookup(question, variant);
        self.cache.keep(question, lookup, &message, self.now)
    }

    pub(super) fn keep(&mut self, answer: &Answer) -> bool {
        matches!(self.keep_as(answer, PLAIN), Kept::Yes(_))
    }

    pub(super) fn recall(&mut self, name: &str, rr_type: u16, variant: Variant) -> Recall {
        let bytes = question(name, rr_type);
        let question = Question::parse(&bytes, 0).unwrap();
        let lookup = self.lookup(question, variant);
        self.cache.recall(question, lookup, self.now)
    }

    pub(super) fn entry(&mut self, name: &str, rr_type: u16) -> Option<(Entry, bool)> {
        match self.recall(name, rr_type, PLAIN) {
            Recall::Fresh { entry, .. } | Recall::Failed(entry) => Some((entry, true)),
            Recall::Stale(entry) | Recall::StaleInUse { entry, .. } => Some((entry, false)),
            Recall::Nothing => None,
        }
    }

    pub(super) fn has(&mut self, name: &str, rr_type: u16) -> bool {
        self.entry(name, rr_type).is_some_and(|(_, fresh)| fresh)
    }

    pub(super) fn response(
        &self,
        entry: Entry,
        name: &str,
        rr_type: u16,
        len_max: usize,
    ) -> Vec<u8> {
        let bytes = question(name, rr_type);
        let asked = Asked {
            id: 0x4711,
            flags: Flags::RD,
            question: Question::parse(&bytes, 0).ok(),
            opt: Some(AskedOpt {
                flags: 0,
                keepalive: None,
                cookie: None,
                is_padded: false,
            }),
            len_max,
        };
        let mut out = b"before".to_vec();
        self.cache.write(entry, &asked, &mut out);
        out.split_off(6)
    }

    pub(super) fn get(&mut self, name: &str, rr_type: u16) -> Option<Got> {
        let (entry, is_fresh) = self.entry(name, rr_type)?;
        let bytes = self.response(entry, name, rr_type, 1232);
        let message = Message::parse(&bytes).unwrap();
        let asked = question(name, rr_type);
        assert_eq!(message.header().id, 0x4711);
        assert_eq!(message.question().unwrap().as_bytes(), asked);
        let options = message.opt().unwrap().options();
        let errors = options.map(|option| {
            assert_eq!(
                option.code,
                OptionCode::EXTENDED_ERROR,
                "options of another hop are not cached"
            );
            u16::from_be_bytes([option.data[0], option.data[1]])
        });
        let records = message.answers().chain(message.authorities());
        Some(Got {
            is_fresh,
            rcode: message.header().flags.rcode().to_u16(),
            ttls: records.map(|record| record.ttl(&bytes)).collect(),
            errors: errors.collect(),
        })
    }
}

pub(super) fn fresh(ttls: &[u32]) -> Got {
    Got {
        is_fresh: true,
        rcode: 0,
        ttls: ttls.to_vec(),
        errors: Vec::new(),
    }
}

pub(super) fn denial(name: &str) -> Answer {
    Answer::new(name, A).says(Rcode::NXDOMAIN).with_soa(60, 60)
}

/// An answer to a question of class IN.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    name: String,
    rr_type: u16,
    rcode: Rcode,
    flags: Flags,
    /// Types and TTLs of the records in the answer section.
    records: Vec<(u16, u32)>,
    /// The length in bytes of the data of records of types without a fixed length.
    data_len: u16,
    /// The TTL and the last field of the SOA record.
    pub(super) soa: Option<(u32, u32)>,
    pub(super) wants_proof: bool,
    error: Option<ExtendedError>,
    /// The upper eight bits of the response code.
    extension: u8,
    /// The owner of the records behind the aliases is not the target of the last alias.
    is_unrelated: bool,
}

impl Answer {
    pub(super) fn new(name: &str, rr_type: u16) -> Self {
        Self {
            name: name.to_owned(),
            rr_type,
            rcode: Rcode::NOERROR,
            flags: Flags::RA,
            records: Vec::new(),
            data_len: 4,
            soa: None,
            wants_proof: false,
            error: None,
            extension: 0,
            is_unrelated: false,
        }
    }

    pub(super) fn with(mut self, records: &[(u16, u32)]) -> Self {
        self.records.extend(records);
        self
    }

    pub(super) fn with_data_of(mut self, len: u16) -> Self {
        self.data_len = len;
        self
    }

    pub(super) fn with_soa(mut self, ttl: u32, minimum: u32) -> Self {
        self.soa = Some((ttl, minimum));
        self
    }

    pub(super) fn says(mut self, rcode: Rcode) -> Self {
        self.rcode = rcode;
        self
    }

    pub(super) fn flagged(mut self, flags: Flags) -> Self {
        self.flags = self.flags | flags;
        self
    }

    pub(super) fn wanting_proof(mut self) -> Self {
        self.wants_proof = true;
        self
    }

    pub(super) fn because(mut self, code: ExtendedErrorCode) -> Self {
        self.error = Some(ExtendedError { code, text: "why" });
        self
    }

    pub(super) fn extended(mut self, extension: u8) -> Self {
        self.extension = extension;
        self
    }

    pub(super) fn unrelated(mut self) -> Self {
        self.is_unrelated = true;
        self
    }

    /// Returns the answer as upstream sends it. Owners are compressed, and so are the names of SOA.
    /// The target of an alias is the owner of the next record.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let header = Header {
            id: 0x5555,
            flags: (Flags::QR | self.flags).with_rcode(self.rcode),
            questions: 1,
            answers: u16::try_from(self.records.len()).unwrap(),
            authorities: u16::from(self.soa.is_some()),
            additionals: 1,
        };
        let mut bytes = header.to_bytes().to_vec();
        bytes.extend(question(&self.name, self.rr_type));
        let mut owner = 12_u16;
        let record = |bytes: &mut Vec<u8>, owner: u16, rr_type: u16, ttl: u32, data: &[u8]| {
            bytes.extend((0xc000 | owner).to_be_bytes());
            bytes.extend(rr_type.to_be_bytes());
            bytes.extend(b"\0\x01");
            bytes.extend(ttl.to_be_bytes());
            bytes.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
            bytes.extend(data);
        };
        for (index, (rr_type, ttl)) in self.records.iter().enumerate() {
            let letter = b'a' + index.to_le_bytes()[0] % 16;
            if *rr_type == CNAME {
                let target = [1, letter, 0xc0, 12];
                record(&mut bytes, owner, *rr_type, *ttl, &target);
                owner = u16::try_from(bytes.len() - target.len()).unwrap();
                continue;
            }
            let parent = 13 + self.name.split('.').next().unwrap().len();
            let owner = if self.is_unrelated {
                u16::try_from(parent).unwrap()
            } else {
                owner
            };
            let byte = index.to_le_bytes()[0];
            let data = match rr_type {
                2 | 12 => vec![1, byte, 0],
                6 => vec![0; 22],
                15 => vec![0, 10, 1, byte, 0],
                16 => vec![2, byte, byte],
                28 => vec![byte; 16],
                33 => vec![0; 7],
                35 => vec![0; 8],
                64 | 65 => vec![0, 1, 0],
                257 => vec![0, 1, b'a'],
                _ => vec![byte; self.data_len.into()],
            };
            record(&mut bytes, owner, *rr_type, *ttl, &data);
        }
        if let Some((ttl, minimum)) = self.soa {
            let mut data = b"\x02ns\xc0\x0c\x02me\xc0\x0c".to_vec();
            data.extend([1; 16]);
            data.extend(minimum.to_be_bytes());
            record(&mut bytes, 12, 6, ttl, &data);
        }
        let mut writer = OptWriter::start(&mut bytes, 1232, self.extension, 0);
        writer.option(OptionCode::COOKIE, &[7; 16]);
        writer.option(OptionCode(3), b"nsid");
        if let Some(error) = self.error {
            writer.extended_error(error);
        }
        writer.finish();
        bytes
    }
}

/// Returns a question of class IN as the bytes of a message.
pub(super) fn question(name: &str, rr_type: u16) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        bytes.push(u8::try_from(label.len()).unwrap());
        bytes.extend(label.bytes());
    }
    bytes.push(0);
    bytes.extend(rr_type.to_be_bytes());
    bytes.extend(b"\0\x01");
    bytes
}
