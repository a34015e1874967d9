//! Local zones: names that are answered here, since no upstream should get queries for them. They
//! are the names of this host, names that are guaranteed not to exist, names that other protocols
//! resolve, and names of private networks (RFC 6761, 6303, 6762, 7686, 7793, 8375, 9462, 9476,
//! 9665). A local zone is local in every class. An upstream that is configured for such a name is
//! asked nevertheless.

use std::net::IpAddr;

use crate::wire::header::{Flags, HEADER_LEN, Header, Rcode};
use crate::wire::name;
use crate::wire::question::{CLASS_ANY, CLASS_IN, CLASS_NONE, Question, Type};

/// The TTL of an answer in seconds, as in RFC 6303, section 3.
const TTL: u32 = 10_800;

/// The TTL of the names of resolver discovery in seconds: `--designated` may give them records.
const RESOLVER_TTL: u32 = 300;

/// The data of the SOA record of every local zone, which limits the time to cache a negative answer
/// (RFC 2308), as in RFC 6303, section 3.
const SOA_DATA: &[u8] = b"\x09localhost\0\x06nobody\x07invalid\0\
    \0\0\0\x01\0\0\x0e\x10\0\0\x04\xb0\0\x09\x3a\x80\0\0\x2a\x30";

/// Returns whether a top-level domain is a local zone or, as `arpa`, has local zones. `alt` is for
/// other name systems (RFC 9476), `internal` for private use (ICANN, 2024), `local` for multicast
/// DNS, for which a resolver answers NXDOMAIN at once (RFC 6762, section 22.1).
fn has_local_zones(top: &[u8]) -> bool {
    let domains: &[&[u8]] = match top.len() {
        3 => &[b"alt"],
        4 => &[b"arpa", b"test"],
        5 => &[b"local", b"onion"],
        7 => &[b"invalid"],
        8 => &[b"internal"],
        9 => &[b"localhost"],
        _ => &[],
    };
    domains
        .iter()
        .any(|domain| top.eq_ignore_ascii_case(domain))
}

/// The content of a special-use name for a type.
pub(super) enum LocalAnswer {
    /// The name does not exist.
    NoName,
    /// The name exists, without a record of the type.
    NoRecord,
    /// The name has records of class IN with this type and these data.
    Records(Type, Vec<Vec<u8>>),
}

/// Returns the reply to a question for a special-use name, with id 0 for the caller to replace.
pub(in crate::proxy) fn reply(question: Question<'_>) -> Option<Vec<u8>> {
    if !has_local_zones(name::top_label(question.name())) {
        return None;
    }
    let suffixes: Vec<&[u8]> = name::suffixes(question.name()).collect();
    let label = |suffix: &&[u8]| suffix[1..][..usize::from(suffix[0])].to_ascii_lowercase();
    let labels: Vec<Vec<u8>> = suffixes.iter().rev().skip(1).map(label).collect();
    let labels: Vec<&[u8]> = labels.iter().map(Vec::as_slice).collect();
    let (depth, content) = content(&labels, question.rr_type(), question.class())?;
    let zone = suffixes[labels.len() - depth];
    let ttl = match labels.as_slice() {
        [b"arpa", b"resolver", ..] => RESOLVER_TTL,
        _ => TTL,
    };
    Some(write(question, zone.len(), &content, ttl))
}

/// Returns the content at these labels, which are in order from the top down, and the depth of the
/// zone that it is in; `None` if the name is not special.
fn content(labels: &[&[u8]], rr_type: Type, class: u16) -> Option<(usize, LocalAnswer)> {
    // Records of other classes have other data, and none are known here.
    let has_records = matches!(class, CLASS_IN | CLASS_ANY);
    let depth = match labels {
        [b"localhost", ..] if has_records => return Some((1, localhost(rr_type))),
        [b"localhost", ..] => return Some((1, LocalAnswer::NoRecord)),
        [top, ..] if *top != b"arpa" => return Some((1, LocalAnswer::NoName)),
        [b"arpa", b"resolver", ..] => return Some((2, LocalAnswer::NoRecord)),
        [b"arpa", b"home" | b"service", ..] => 2,
        [b"arpa", b"in-addr", bytes @ ..] => 2 + private_ipv4(bytes)?,
        [b"arpa", b"ip6", nibbles @ ..] => 2 + private_ipv6(nibbles)?,
        _ => return None,
    };
    let is_apex = labels.len() == depth;
    if is_apex && rr_type == Type::DS && class == CLASS_IN {
        // A validator learns from the parent zone that this one is not signed.
        return None;
    }
    let is_pointer = matches!(rr_type, Type::PTR | Type::ANY);
    let content = if has_records && is_pointer && is_loopback(labels) {
        LocalAnswer::Records(Type::PTR, vec![b"\x09localhost\0".to_vec()])
    } else if is_apex || is_loopback(labels) {
        LocalAnswer::NoRecord
    } else {
        LocalAnswer::NoName
    };
    Some((depth, content))
}

fn localhost(rr_type: Type) -> LocalAnswer {
    match rr_type {
        // One of the records is enough for a question for any type (RFC 8482, section 4.1).
        Type::A | Type::ANY => LocalAnswer::Records(Type::A, vec![vec![127, 0, 0, 1]]),
        Type::AAAA => {
            let mut address = vec![0; 16];
            address[15] = 1;
            LocalAnswer::Records(Type::AAAA, vec![address])
        }
        _ => LocalAnswer::NoRecord,
    }
}

/// Returns the number of these labels, in order from the top down, that form the zone of a private
/// IPv4 network.
fn private_ipv4(bytes: &[&[u8]]) -> Option<usize> {
    let number = |label: &[u8]| str::from_utf8(label).ok()?.parse::<u8>().ok();
    match bytes {
        [b"0" | b"10" | b"127", ..] => Some(1),
        [b"100", second, ..] => (64..128).contains(&number(second)?).then_some(2),
        [b"172", second, ..] => (16..32).contains(&number(second)?).then_some(2),
        [b"169", b"254", ..] | [b"192", b"168", ..] => Some(2),
        [b"192", b"0", b"2", ..] | [b"198", b"51", b"100", ..] | [b"203", b"0", b"113", ..] => {
            Some(3)
        }
        [b"255", b"255", b"255", b"255", ..] => Some(4),
        _ => None,
    }
}

/// Returns the number of these labels that form the zone of a private IPv6 network.
fn private_ipv6(nibbles: &[&[u8]]) -> Option<usize> {
    match nibbles {
        [b"f", b"d", ..] => Some(2),
        [b"f", b"e", b"8" | b"9" | b"a" | b"b", ..] => Some(3),
        [b"2", b"0", b"0", b"1", b"0", b"d", b"b", b"8", ..] => Some(8),
        _ => {
            let (address, _) = nibbles.split_at_checked(32)?;
            let (last, zeros) = address.split_last()?;
            let is_low = zeros.iter().all(|nibble| nibble == b"0");
            (is_low && (last == b"0" || last == b"1")).then_some(32)
        }
    }
}

/// Returns whether the labels are those of the address 127.0.0.1 or `::1`.
fn is_loopback(labels: &[&[u8]]) -> bool {
    match labels {
        [b"arpa", b"in-addr", b"127", b"0", b"0", b"1"] => true,
        [b"arpa", b"ip6", nibbles @ .., b"1"] => {
            nibbles.len() == 31 && nibbles.iter().all(|nibble| nibble == b"0")
        }
        _ => false,
    }
}

/// Writes the reply with this content. The zone's name is the last `zone_len` bytes of the name in
/// the question, and `ttl` is in seconds.
pub(super) fn write(
    question: Question<'_>,
    zone_len: usize,
    content: &LocalAnswer,
    ttl: u32,
) -> Vec<u8> {
    let rcode = match content {
        LocalAnswer::NoName => Rcode::NXDOMAIN,
        LocalAnswer::NoRecord | LocalAnswer::Records(..) => Rcode::NOERROR,
    };
    let (owner_at, rr_type, data) = match content {
        LocalAnswer::Records(rr_type, data) => (HEADER_LEN, *rr_type, data.as_slice()),
        LocalAnswer::NoName | LocalAnswer::NoRecord => {
            let zone_at = HEADER_LEN + question.name().len() - zone_len;
            (zone_at, Type::SOA, &[SOA_DATA.to_vec()][..])
        }
    };
    let count = u16::try_from(data.len()).expect("there are few records");
    let is_answer = matches!(content, LocalAnswer::Records(..));
    let header = Header {
        id: 0,
        flags: (Flags::QR | Flags::AA | Flags::RA).with_rcode(rcode),
        questions: 1,
        answers: if is_answer { count } else { 0 },
        authorities: if is_answer { 0 } else { count },
        additionals: 0,
    };
    let mut out = header.to_bytes().to_vec();
    out.extend_from_slice(question.as_bytes());
    let pointer = 0xc000 | u16::try_from(owner_at).expect("a question is short");
    let class = match question.class() {
        // No record has these classes.
        CLASS_NONE | CLASS_ANY => CLASS_IN,
        class => class,
    };
    for data in data {
        write_record(
            &mut out,
            &pointer.to_be_bytes(),
            (rr_type, class),
            ttl,
            data,
        );
    }
    out
}

/// Returns the data of the records for those addresses that are of this type, A or AAAA.
pub(super) fn address_data(addresses: &[IpAddr], rr_type: Type) -> Vec<Vec<u8>> {
    let data = |address: &IpAddr| match (address, rr_type) {
        (IpAddr::V4(address), Type::A) => Some(address.octets().to_vec()),
        (IpAddr::V6(address), Type::AAAA) => Some(address.octets().to_vec()),
        _ => None,
    };
    addresses.iter().filter_map(data).collect()
}

/// Appends a record of this type and class, with its owner as it is encoded.
pub(super) fn write_record(
    out: &mut Vec<u8>,
    owner: &[u8],
    (rr_type, class): (Type, u16),
    ttl: u32,
    data: &[u8],
) {
    out.extend_from_slice(owner);
    out.extend_from_slice(&rr_type.0.to_be_bytes());
    out.extend_from_slice(&class.to_be_bytes());
    out.extend_from_slice(&ttl.to_be_bytes());
    let data_len = u16::try_from(data.len()).expect("these records are short");
    out.extend_from_slice(&data_len.to_be_bytes());
    out.extend_from_slice(data);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Message;

    /// Returns the local reply to a question as text: the response code, and the record or else the
    /// zone; `None` if the name is not special.
    fn local_reply(text: &str, rr_type: Type) -> Option<String> {
        local_reply_in(text, rr_type, CLASS_IN)
    }

    fn local_reply_in(text: &str, rr_type: Type, class: u16) -> Option<String> {
        let mut bytes = Vec::new();
        for label in text.split('.') {
            bytes.push(u8::try_from(label.len()).unwrap());
            bytes.extend(label.bytes());
        }
        bytes.push(0);
        bytes.extend(rr_type.0.to_be_bytes());
        bytes.extend(class.to_be_bytes());
        let question = Question::parse(&bytes, 0).unwrap();
        let reply = reply(question)?;
        let message = Message::parse(&reply).unwrap();
        assert_eq!(message.question(), Some(question));
        let header = message.header();
        assert!(header.flags.contains(Flags::QR | Flags::AA | Flags::RA));
        assert_eq!(header.answers + header.authorities, 1);
        let rcode = header.flags.rcode().to_u16();
        let Some(record) = message.answers().next() else {
            let start = HEADER_LEN + bytes.len();
            let owner = usize::from(u16::from_be_bytes([reply[start], reply[start + 1]]) & 0x3fff);
            let zone_end = name::skip_uncompressed(&reply, owner).unwrap();
            let zone = Question::parse(&[&reply[owner..zone_end], b"\0\x06\0\x01"].concat(), 0)
                .map(|zone| zone.to_string());
            return Some(format!("{rcode} in {}", zone.unwrap()));
        };
        assert!(record.rr_type == rr_type || rr_type == Type::ANY);
        assert_eq!(record.ttl(&reply), TTL);
        Some(match record.address(&reply) {
            Some(address) => format!("{rcode} {address}"),
            None => format!("{rcode} {:?}", String::from_utf8_lossy(record.data(&reply))),
        })
    }

    fn is(text: &str, rr_type: Type, expected: &str) {
        assert_eq!(
            local_reply(text, rr_type).as_deref(),
            Some(expected),
            "{text}"
        );
    }

    #[test]
    fn localhost_is_answered_locally() {
        is("localhost", Type::A, "0 127.0.0.1");
        is("www.LocalHost", Type::AAAA, "0 ::1");
        is("localhost", Type(15), "0 in localhost. SOA");
        is("1.0.0.127.in-addr.arpa", Type::PTR, "0 \"\\tlocalhost\\0\"");
        let zeros = "0.".repeat(31);
        is(
            &format!("1.{zeros}ip6.arpa"),
            Type::PTR,
            "0 \"\\tlocalhost\\0\"",
        );
        is(
            "1.0.0.127.in-addr.arpa",
            Type::A,
            "0 in 127.in-addr.arpa. SOA",
        );
        is(
            "2.0.0.127.in-addr.arpa",
            Type::PTR,
            "3 in 127.in-addr.arpa. SOA",
        );
    }

    #[test]
    fn special_use_domains_do_not_exist() {
        is("example.test", Type::A, "3 in test. SOA");
        is("a.b.invalid", Type::A, "3 in invalid. SOA");
        is(
            "duckduckgogg42xjoc72x3sjasowoarfbgcmvfimaftt6twagswzczad.onion",
            Type::A,
            "3 in onion. SOA",
        );
        is("_dns.resolver.arpa", Type(64), "0 in resolver.arpa. SOA");
        is("router.home.arpa", Type::A, "3 in home.arpa. SOA");
        is("home.arpa", Type::SOA, "0 in home.arpa. SOA");
    }

    #[test]
    fn names_of_other_name_systems_do_not_exist_in_dns() {
        // Multicast DNS (RFC 6762, section 22.1), other name systems (RFC 9476), private use
        // (ICANN, 2024), service registration (RFC 9665).
        is("printer.Local", Type::A, "3 in Local. SOA");
        is("local", Type::SOA, "3 in local. SOA");
        is("_ipp._tcp.local", Type::PTR, "3 in local. SOA");
        is("name.gns.alt", Type::AAAA, "3 in alt. SOA");
        is("db.internal", Type::A, "3 in internal. SOA");
        is("a.default.service.arpa", Type::A, "3 in service.arpa. SOA");
        is("service.arpa", Type::NS, "0 in service.arpa. SOA");
        is(
            "254.169.in-addr.arpa",
            Type::PTR,
            "0 in 254.169.in-addr.arpa. SOA",
        );
        assert_eq!(local_reply("service.arpa", Type::DS), None);
        for name in [
            "local.example",
            "xlocal",
            "internal.example",
            "alt.example",
            "xservice.arpa",
        ] {
            assert_eq!(local_reply(name, Type::A), None, "{name}");
        }
    }

    #[test]
    fn private_networks_are_answered_locally() {
        is(
            "4.3.2.10.in-addr.arpa",
            Type::PTR,
            "3 in 10.in-addr.arpa. SOA",
        );
        is(
            "10.IN-ADDR.arpa",
            Type::PTR,
            "0 in 10.in-addr.arpa. SOA"
                .replace("in-addr", "IN-ADDR")
                .as_str(),
        );
        is(
            "1.1.168.192.in-addr.arpa",
            Type::PTR,
            "3 in 168.192.in-addr.arpa. SOA",
        );
        is(
            "1.31.172.in-addr.arpa",
            Type::PTR,
            "3 in 31.172.in-addr.arpa. SOA",
        );
        is(
            "64.100.in-addr.arpa",
            Type::PTR,
            "0 in 64.100.in-addr.arpa. SOA",
        );
        is(
            "9.2.0.192.in-addr.arpa",
            Type::PTR,
            "3 in 2.0.192.in-addr.arpa. SOA",
        );
        is(
            "255.255.255.255.in-addr.arpa",
            Type::PTR,
            "0 in 255.255.255.255.in-addr.arpa. SOA",
        );
        is("1.0.d.f.ip6.arpa", Type::PTR, "3 in d.f.ip6.arpa. SOA");
        is("0.b.e.f.ip6.arpa", Type::PTR, "3 in b.e.f.ip6.arpa. SOA");
        is(
            "1.8.b.d.0.1.0.0.2.ip6.arpa",
            Type::PTR,
            "3 in 8.b.d.0.1.0.0.2.ip6.arpa. SOA",
        );
    }

    #[test]
    fn special_names_are_answered_locally_in_every_class() {
        let is = |text: &str, rr_type, class, expected: &str| {
            let reply = local_reply_in(text, rr_type, class);
            assert_eq!(reply.as_deref(), Some(expected), "{text} in class {class}");
        };
        for class in [0, 3, 4, CLASS_NONE, CLASS_ANY, 65_280] {
            is("printer.local", Type(16), class, "3 in local. SOA");
            is("a.alt", Type(16), class, "3 in alt. SOA");
            is("db.internal", Type::A, class, "3 in internal. SOA");
            let reversed = "1.1.168.192.in-addr.arpa";
            is(reversed, Type::PTR, class, "3 in 168.192.in-addr.arpa. SOA");
            is("localhost", Type(16), class, "0 in localhost. SOA");
        }
        is("service.arpa", Type(16), 3, "0 in service.arpa. SOA");
        // Only the parent zone of class IN is signed.
        is("home.arpa", Type::DS, 3, "0 in home.arpa. SOA");
        // The data of an address is that of class IN.
        is("localhost", Type::A, 3, "0 in localhost. SOA");
        is("localhost", Type::A, CLASS_ANY, "0 127.0.0.1");
        assert_eq!(local_reply_in("version.bind", Type(16), 3), None);
    }

    #[test]
    fn negative_answer_has_the_class_of_the_question() {
        for (class, expected) in [(CLASS_IN, 1), (3, 3), (CLASS_ANY, 1), (CLASS_NONE, 1)] {
            let question = [&b"\x05local\0\0\x10"[..], &class.to_be_bytes()].concat();
            let reply = reply(Question::parse(&question, 0).unwrap()).unwrap();
            // Owner and type are two bytes each.
            let at = HEADER_LEN + question.len() + 4;
            assert_eq!(reply[at..at + 2], u16::to_be_bytes(expected), "{class}");
        }
    }

    #[test]
    fn question_for_any_type_gets_a_record_of_the_name() {
        // RFC 8482, section 4.1.
        is("localhost", Type::ANY, "0 127.0.0.1");
        is("1.0.0.127.in-addr.arpa", Type::ANY, "0 \"\\tlocalhost\\0\"");
        is("printer.local", Type::ANY, "3 in local. SOA");
    }

    #[test]
    fn other_names_are_not_special() {
        for name in [
            "example",
            "www.example.com",
            "localhost.example",
            "test.example",
            "xtest",
            "arpa",
            "in-addr.arpa",
            "1.in-addr.arpa",
            "11.in-addr.arpa",
            "15.172.in-addr.arpa",
            "32.172.in-addr.arpa",
            "63.100.in-addr.arpa",
            "128.100.in-addr.arpa",
            "172.in-addr.arpa",
            "1.192.in-addr.arpa",
            "254.255.255.255.in-addr.arpa",
            "x.172.in-addr.arpa",
            "ip6.arpa",
            "c.f.ip6.arpa",
            "c.e.f.ip6.arpa",
            "0.0.ip6.arpa",
            "ipv4only.arpa",
        ] {
            assert_eq!(local_reply(name, Type::A), None, "{name}");
        }
        let high = format!("2.{}ip6.arpa", "0.".repeat(31));
        assert_eq!(local_reply(&high, Type::PTR), None);
        // The parent zone shows that a zone is not signed.
        assert_eq!(local_reply("home.arpa", Type::DS), None);
        assert_eq!(local_reply("10.in-addr.arpa", Type::DS), None);
        is("a.home.arpa", Type::DS, "3 in home.arpa. SOA");
        let root = Question::parse(b"\0\0\x02\0\x01", 0).unwrap();
        assert!(reply(root).is_none());
    }
}
