//! Queries with a recognisable name, and answers that are derived from their question.

use std::net::IpAddr;

use dotproxy::wire::edns::{DO, OptWriter, OptionCode};
use dotproxy::wire::header::Header;
use dotproxy::wire::question::Type;
use dotproxy::wire::{Flags, Message, Question, Rcode};

/// Returns a query for `name` (labels with dots) with this id.
pub fn query(id: u16, name: &str, rr_type: u16, opt_size: Option<u16>) -> Vec<u8> {
    let mut bytes = vec![
        0,
        0,
        1,
        0,
        0,
        1,
        0,
        0,
        0,
        0,
        0,
        u8::from(opt_size.is_some()),
    ];
    bytes[..2].copy_from_slice(&id.to_be_bytes());
    for label in name.split('.').filter(|label| !label.is_empty()) {
        bytes.push(u8::try_from(label.len()).expect("a label"));
        bytes.extend(label.bytes());
    }
    bytes.push(0);
    bytes.extend(rr_type.to_be_bytes());
    bytes.extend([0, 1]);
    if let Some(size) = opt_size {
        let mut writer = OptWriter::start(&mut bytes, size, 0, DO);
        writer.option(OptionCode::COOKIE, b"12345678");
        writer.finish();
    }
    bytes
}

/// The four bytes that every valid answer to a question contains.
pub fn digest(question: Question<'_>) -> [u8; 4] {
    let mut hash = 0x811c_9dc5_u32;
    for byte in question.as_bytes() {
        hash = (hash ^ u32::from(byte.to_ascii_lowercase())).wrapping_mul(0x0100_0193);
    }
    hash.to_be_bytes()
}

/// Returns the data of a record that answers a question: the digest in the form of the type.
fn data(question: Question<'_>) -> Vec<u8> {
    let digest = digest(question);
    match question.rr_type().0 {
        2 | 5 | 12 => [&[4], &digest[..], &[0]].concat(),
        16 => [&[4], &digest[..]].concat(),
        28 => digest.repeat(4),
        64 | 65 => [&b"\0\x01\0\xff\x01\0\x04"[..], &digest].concat(),
        _ => digest.to_vec(),
    }
}

/// Returns the valid reply to a query, with this number of records.
pub fn reply(query: &[u8], records: u16) -> Vec<u8> {
    reply_for(query, records, 300)
}

/// Returns the valid reply to a query, with this number of records and this TTL.
pub fn reply_for(query: &[u8], records: u16, ttl: u32) -> Vec<u8> {
    let message = Message::parse(query).expect("what is sent is well formed");
    let question = message.question().expect("what is sent has a question");
    let data = data(question);
    // The records fit a message.
    let room = usize::from(u16::MAX) - 12 - question.as_bytes().len() - 55;
    let records = records.min(u16::try_from(room / (12 + data.len())).expect("a small number"));
    let header = Header {
        id: message.header().id,
        flags: Flags::QR | Flags::RA | message.header().flags.echoed(),
        questions: 1,
        answers: records,
        authorities: 0,
        additionals: 1,
    };
    let mut bytes = header.to_bytes().to_vec();
    bytes.extend(question.as_bytes().to_ascii_lowercase());
    let rr_type_at = bytes.len() - 4;
    let rr_type = [bytes[rr_type_at], bytes[rr_type_at + 1]];
    bytes[rr_type_at..].copy_from_slice(&question.as_bytes()[question.as_bytes().len() - 4..]);
    for _ in 0..records {
        bytes.extend(b"\xc0\x0c");
        bytes.extend(rr_type);
        bytes.extend(b"\x00\x01");
        bytes.extend(ttl.to_be_bytes());
        bytes.extend(
            u16::try_from(data.len())
                .expect("a length below 65,536")
                .to_be_bytes(),
        );
        bytes.extend(&data);
    }
    let mut writer = OptWriter::start(&mut bytes, 1232, 0, DO);
    writer.option(OptionCode::PADDING, &[0; 40]);
    writer.finish();
    bytes
}

/// Returns a reply with this code and an optional extended error.
pub fn error_reply(query: &[u8], rcode: Rcode, reason: Option<u16>) -> Vec<u8> {
    let message = Message::parse(query).expect("what is sent is well formed");
    let question = message.question().expect("what is sent has a question");
    let flags = Flags::QR | Flags::RA | message.header().flags.echoed();
    let header = Header {
        id: message.header().id,
        flags: flags.with_rcode(rcode),
        questions: 1,
        answers: 0,
        authorities: 0,
        additionals: 1,
    };
    let mut bytes = header.to_bytes().to_vec();
    bytes.extend(question.as_bytes());
    let mut writer = OptWriter::start(&mut bytes, 1232, 0, DO);
    if let Some(reason) = reason {
        writer.option(OptionCode::EXTENDED_ERROR, &reason.to_be_bytes());
    }
    writer.finish();
    bytes
}

/// Returns a negative reply with this TTL, these flags and this code.
pub fn denial(query: &[u8], flags: Flags, ttl: u32) -> Vec<u8> {
    let message = Message::parse(query).expect("what is sent is well formed");
    let question = message.question().expect("what is sent has a question");
    let header = Header {
        id: message.header().id,
        flags: Flags::QR | Flags::RA | flags | message.header().flags.echoed(),
        questions: 1,
        answers: 0,
        authorities: 1,
        additionals: 0,
    };
    let mut bytes = header.to_bytes().to_vec();
    bytes.extend(question.as_bytes());
    bytes.extend(b"\xc0\x0c\x00\x06\x00\x01");
    bytes.extend(ttl.to_be_bytes());
    bytes.extend(b"\x00\x1e\x02ns\xc0\x0c\x02me\xc0\x0c");
    bytes.extend([0; 16]);
    bytes.extend(ttl.to_be_bytes());
    bytes
}

/// Returns a reply with those of these addresses that have the type of the query.
pub fn address_reply(query: &[u8], addresses: &[IpAddr], ttl: u32) -> Vec<u8> {
    let message = Message::parse(query).expect("what is sent is well formed");
    let question = message.question().expect("what is sent has a question");
    let is_asked =
        |ip: &&IpAddr| question.rr_type() == if ip.is_ipv4() { Type::A } else { Type::AAAA };
    let addresses: Vec<_> = addresses.iter().filter(is_asked).collect();
    let header = Header {
        id: message.header().id,
        flags: Flags::QR | Flags::RA | message.header().flags.echoed(),
        questions: 1,
        answers: u16::try_from(addresses.len()).expect("a small number"),
        authorities: 0,
        additionals: 0,
    };
    let mut bytes = header.to_bytes().to_vec();
    bytes.extend(question.as_bytes());
    for ip in addresses {
        let data = match ip {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        bytes.extend(b"\xc0\x0c");
        bytes.extend(question.rr_type().0.to_be_bytes());
        bytes.extend(b"\x00\x01");
        bytes.extend(ttl.to_be_bytes());
        bytes.extend(
            u16::try_from(data.len())
                .expect("a length below 65,536")
                .to_be_bytes(),
        );
        bytes.extend(data);
    }
    bytes
}

/// Checks that `response` is one to `query`: id, question with its letter case, flags, OPT, cookie.
/// Returns whether the response is an answer rather than an error.
pub fn check_response(query: &[u8], response: &[u8]) -> bool {
    let asked = Message::parse(query).expect("a query of the test");
    let given = Message::parse(response).expect("a well-formed response");
    let flags = given.header().flags;
    assert_eq!(given.header().id, asked.header().id, "another id");
    assert!(flags.contains(Flags::QR), "no response");
    assert!(flags.contains(Flags::RD), "RD is copied from the query");
    let question = asked.question().expect("a query of the test");
    let echoed = given.question().expect("a response has its question");
    assert_eq!(
        echoed.as_bytes(),
        question.as_bytes(),
        "another question, or letter case"
    );
    assert_eq!(
        given.opt().is_some(),
        asked.opt().is_some(),
        "OPT if and only if the query has OPT"
    );
    if let Some(opt) = given.opt() {
        let sent = asked
            .opt()
            .and_then(|opt| opt.cookie().expect("the test sent the query"));
        let got = opt.cookie().expect("a valid message");
        assert_eq!(
            got.map(|cookie| cookie.client),
            sent.map(|cookie| cookie.client)
        );
        assert!(
            got.is_none_or(|cookie| cookie.server.is_some()),
            "a server cookie"
        );
        assert!(!opt.has_option(OptionCode::PADDING));
    }
    let is_answer = flags.rcode().to_u16() == 0;
    if is_answer && given.header().answers > 0 {
        let data_at = dotproxy::wire::header::HEADER_LEN + question.as_bytes().len() + 12;
        let data = data(question);
        assert_eq!(
            response[data_at..data_at + data.len()],
            data,
            "the answer to another question"
        );
    }
    is_answer
}
