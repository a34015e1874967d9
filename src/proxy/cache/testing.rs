//! Answers for the tests of the cache.

use crate::wire::edns::{ExtendedError, ExtendedErrorCode, OptWriter, OptionCode};
use crate::wire::{Flags, Header, Rcode};

const CNAME: u16 = 5;

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
        for (place, (rr_type, ttl)) in self.records.iter().enumerate() {
            let letter = b'a' + place.to_le_bytes()[0] % 16;
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
            let byte = place.to_le_bytes()[0];
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
