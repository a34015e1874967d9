//! The upstream query for a client's query.

use super::edns::{DO, OPT_LEN, Opt, OptWriter};
use super::header::{Flags, HEADER_LEN, Header};
use super::name::Name;
use super::question::{CLASS_IN, Question, Type};
use super::{MESSAGE_LEN_MAX, Message, byte_ops, read_u16};

/// Maximum size in bytes of a UDP message that the proxy sends and accepts: it passes every network
/// without fragmentation (the value agreed for DNS Flag Day 2020).
pub const UDP_SIZE: u16 = 1232;

/// Block length of a padded query (RFC 8467, section 4.1).
pub const PADDING_BLOCK: usize = 128;

/// The level of EDNS in a query. Upstreams that refuse a query because of EDNS are queried with a
/// lower level (RFC 6891, section 6.2.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum EdnsLevel {
    /// An OPT record with the client's options and, over TLS, padding.
    #[default]
    Full,
    /// An OPT record without options.
    NoOptions,
    /// No OPT record.
    Off,
}

/// A query in its upstream form: question, flags, and an OPT of our own with the client's options
/// that are forwarded. Its header has the client's id, which [`Query::write`] replaces.
#[derive(Debug)]
pub struct Query {
    bytes: Vec<u8>,
    opt_start: usize,
}

impl Query {
    /// Creates the upstream query for a client's query in `buffer`. Returns `None` without a
    /// question.
    pub fn forward(client: &Message<'_>, buffer: Vec<u8>) -> Option<Self> {
        let question = client.question()?;
        let flags = client.header().flags & (Flags::RD | Flags::Z | Flags::AD | Flags::CD);
        let mut bytes = buffer;
        bytes.clear();
        let question_end = HEADER_LEN + question.as_bytes().len();
        byte_ops::append(&mut bytes, &client.bytes()[..question_end]);
        bytes[2..4].copy_from_slice(&flags.to_u16().to_be_bytes());
        bytes[4..HEADER_LEN].copy_from_slice(&COUNTS);
        Some(Self::end(bytes, client.opt()))
    }

    /// Creates a query of our own.
    pub fn new(name: &Name, rr_type: Type) -> Self {
        Self::of_name(name.as_bytes(), rr_type)
    }

    /// Creates a query of our own for DNSSEC records of a name, which is uncompressed.
    pub fn for_zone(name: &[u8], rr_type: Type) -> Self {
        let mut query = Self::of_name(name, rr_type);
        query.set_dnssec(true);
        query
    }

    /// Creates a query of our own for an uncompressed name.
    pub fn of_name(name: &[u8], rr_type: Type) -> Self {
        let mut bytes = vec![0, 0];
        bytes.extend(Flags::RD.to_u16().to_be_bytes());
        bytes.extend(COUNTS);
        bytes.extend_from_slice(name);
        bytes.extend(rr_type.0.to_be_bytes());
        bytes.extend(CLASS_IN.to_be_bytes());
        Self::end(bytes, None)
    }

    /// Sets or clears DO: whether the answer is to have its DNSSEC records (RFC 3225).
    pub fn set_dnssec(&mut self, is_requested: bool) {
        let flags_at = self.opt_start + OPT_LEN - 4;
        let [bit, _] = DO.to_be_bytes();
        if is_requested {
            self.bytes[flags_at] |= bit;
        } else {
            self.bytes[flags_at] &= !bit;
        }
    }

    /// Adds OPT to header and question.
    fn end(mut bytes: Vec<u8>, opt: Option<Opt<'_>>) -> Self {
        let opt_start = bytes.len();
        let flags = opt.map_or(0, |opt| opt.flags);
        let mut writer = OptWriter::start(&mut bytes, UDP_SIZE, 0, flags);
        if let Some(opt) = opt {
            writer.options(opt.passing_options());
        }
        writer.finish();
        Self { bytes, opt_start }
    }

    /// Returns the client's id.
    pub fn id(&self) -> u16 {
        u16::from_be_bytes([self.bytes[0], self.bytes[1]])
    }

    /// Returns the client's flags that are forwarded.
    pub fn flags(&self) -> Flags {
        let header = Header::parse(&self.bytes).expect("a query starts with a header");
        header.flags
    }

    /// Returns the question.
    pub fn question(&self) -> Question<'_> {
        Question::of_bytes(&self.bytes[HEADER_LEN..self.opt_start])
    }

    /// Returns the length of the query in bytes, without padding.
    pub fn unpadded_len(&self) -> usize {
        self.bytes.len()
    }

    /// Returns whether the client requests DNSSEC records (DO, RFC 3225), which requires EDNS.
    pub fn wants_dnssec(&self) -> bool {
        let flags_at = self.opt_start + OPT_LEN - 4;
        read_u16(&self.bytes, flags_at).is_ok_and(|flags| flags & DO != 0)
    }

    /// Returns whether the client sent options that are forwarded.
    pub fn has_options(&self) -> bool {
        self.bytes.len() > self.opt_start + OPT_LEN
    }

    /// Appends the query with another id and a lower level of EDNS than [`Query::write`] and
    /// [`Query::write_padded`] use.
    pub fn write_reduced(&self, out: &mut Vec<u8>, id: u16, level: EdnsLevel) {
        let start = out.len();
        self.write(out, id);
        match level {
            EdnsLevel::Full => {}
            EdnsLevel::NoOptions => {
                out.truncate(start + self.opt_start);
                let flags = if self.wants_dnssec() { DO } else { 0 };
                OptWriter::start(out, UDP_SIZE, 0, flags).finish();
            }
            EdnsLevel::Off => {
                out.truncate(start + self.opt_start);
                out[start + HEADER_LEN - 2..start + HEADER_LEN].fill(0);
                // A server without EDNS may take AD for a bit that must be zero (RFC 1035).
                let flags = self.flags().to_u16().to_be_bytes();
                out[start + 2..start + 4].copy_from_slice(&flags);
            }
        }
    }

    /// Appends the query with another id and with AD set, so that the answer serves every client,
    /// with or without interest in its validation (RFC 6840, section 5.7).
    pub fn write(&self, out: &mut Vec<u8>, id: u16) {
        let flags = self.flags() | Flags::AD;
        let start = out.len();
        byte_ops::append(out, &self.bytes);
        out[start..start + 2].copy_from_slice(&id.to_be_bytes());
        out[start + 2..start + 4].copy_from_slice(&flags.to_u16().to_be_bytes());
    }

    /// Appends the query like [`Query::write`], with padding, which hides the length of the name
    /// under encryption.
    pub fn write_padded(&self, out: &mut Vec<u8>, id: u16) {
        let start = out.len();
        self.write(out, id);
        OptWriter::resume(out, start + self.opt_start).pad(start, PADDING_BLOCK, MESSAGE_LEN_MAX);
    }

    /// Takes the buffer for reuse. The query must not be used afterwards.
    pub fn take_buffer(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }
}

/// The counts of a header for one question and OPT.
const COUNTS: [u8; 8] = [0, 1, 0, 0, 0, 0, 0, 1];

/// Maximum length in bytes of a query without forwarded options.
pub const PLAIN_QUERY_LEN_MAX: usize = HEADER_LEN + super::name::NAME_LEN_MAX + 4 + OPT_LEN;

#[cfg(test)]
mod tests {
    use super::super::edns::OptionCode;
    use super::*;

    fn client_query(opt: Option<&dyn Fn(&mut OptWriter<'_>)>) -> Vec<u8> {
        let mut bytes =
            b"\xab\xcd\x01\x30\x00\x01\x00\x00\x00\x00\x00\x00\x03wWw\x00\x00\x1c\x00\x01".to_vec();
        if let Some(write) = opt {
            bytes[11] = 1;
            let mut writer = OptWriter::start(&mut bytes, 4096, 0, DO);
            write(&mut writer);
            writer.finish();
        }
        bytes
    }

    fn forwarded(client: &[u8]) -> Vec<u8> {
        let query = Query::forward(&Message::parse(client).unwrap(), Vec::new()).unwrap();
        let mut out = Vec::new();
        query.write_padded(&mut out, 0x7777);
        out
    }

    #[test]
    fn upstream_query_has_the_question_a_new_id_and_padding() {
        let client = client_query(None);
        let out = forwarded(&client);
        assert_eq!(out.len(), PADDING_BLOCK);
        let message = Message::parse(&out).unwrap();
        assert_eq!(message.header().id, 0x7777);
        assert!(
            message
                .header()
                .flags
                .contains(Flags::RD | Flags::AD | Flags::CD)
        );
        assert_eq!(message.question().unwrap().as_bytes(), &client[12..]);
        assert_eq!(message.opt().unwrap().udp_size, UDP_SIZE);
        assert_eq!(message.opt().unwrap().flags, 0);
        assert!(message.opt().unwrap().has_option(OptionCode::PADDING));
    }

    #[test]
    fn ad_is_set_in_every_upstream_query() {
        let mut client = client_query(None);
        client[3] = 0;
        let query = Query::forward(&Message::parse(&client).unwrap(), Vec::new()).unwrap();
        assert!(
            !query.flags().contains(Flags::AD),
            "the stored flags are those of the client"
        );
        let flags = Header::parse(&forwarded(&client)).unwrap().flags;
        assert_eq!(flags, Flags::RD | Flags::AD);
    }

    #[test]
    fn do_and_unknown_options_are_forwarded_and_hop_options_are_not() {
        let client = client_query(Some(&|writer| {
            writer.option(OptionCode::CLIENT_SUBNET, &[0, 1, 24, 0, 192, 0, 2]);
            writer.option(OptionCode::COOKIE, &[1; 8]);
            writer.option(OptionCode::TCP_KEEPALIVE, &[]);
            writer.option(OptionCode::PADDING, &[0; 40]);
            writer.option(OptionCode(65_001), b"passes");
        }));
        let out = forwarded(&client);
        let message = Message::parse(&out).unwrap();
        let opt = message.opt().unwrap();
        assert_eq!(opt.flags, DO);
        let codes: Vec<_> = opt.options().map(|option| option.code.0).collect();
        assert_eq!(codes, [65_001, 12]);
    }

    #[test]
    fn query_can_use_a_reduced_level_of_edns() {
        let client = client_query(Some(&|writer| writer.option(OptionCode(65_001), b"passes")));
        let query = Query::forward(&Message::parse(&client).unwrap(), Vec::new()).unwrap();
        assert!(query.wants_dnssec() && query.has_options());
        let written = |level| {
            let mut out = b"before".to_vec();
            query.write_reduced(&mut out, 0x7777, level);
            out.split_off(6)
        };
        let out = written(EdnsLevel::NoOptions);
        let message = Message::parse(&out).unwrap();
        let opt = message.opt().unwrap();
        assert_eq!((opt.flags, opt.options().count()), (DO, 0));
        assert!(message.header().flags.contains(Flags::RD | Flags::AD));

        let out = written(EdnsLevel::Off);
        let message = Message::parse(&out).unwrap();
        assert_eq!((message.opt(), message.header().additionals), (None, 0));
        assert_eq!(message.header().id, 0x7777);
        assert_eq!(message.bytes().len(), message.records_start());

        let plain = client_query(None);
        let query = Query::forward(&Message::parse(&plain).unwrap(), Vec::new()).unwrap();
        assert!(!query.wants_dnssec() && !query.has_options());
    }

    #[test]
    fn stored_query_keeps_the_clients_id_and_flags() {
        let client = client_query(None);
        let query = Query::forward(&Message::parse(&client).unwrap(), Vec::new()).unwrap();
        assert_eq!(query.id(), 0xabcd);
        assert_eq!(query.question().as_bytes(), &client[12..]);
        assert!(query.flags().contains(Flags::RD));
        assert!(query.unpadded_len() <= PLAIN_QUERY_LEN_MAX);
    }

    #[test]
    fn query_of_our_own_has_its_name_and_type() {
        let query = Query::new(&"dns.Example".parse().unwrap(), Type::AAAA);
        let mut out = Vec::new();
        query.write(&mut out, 0x7777);
        let message = Message::parse(&out).unwrap();
        assert_eq!(message.header().id, 0x7777);
        assert!(message.header().flags.contains(Flags::RD));
        let question = message.question().unwrap();
        assert_eq!(question.to_string(), "dns.example. AAAA");
        assert_eq!(question.class(), CLASS_IN);
        assert_eq!(message.opt().unwrap().options().count(), 0);
    }

    #[test]
    fn query_of_any_length_is_padded_to_the_block() {
        for extra in 0..400 {
            let data = vec![0; extra];
            let client = client_query(Some(&|writer| writer.option(OptionCode(65_001), &data)));
            let out = forwarded(&client);
            assert_eq!(out.len() % PADDING_BLOCK, 0);
            Message::parse(&out).unwrap();
        }
    }
}
