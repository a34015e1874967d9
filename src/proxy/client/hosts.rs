//! Answers for the names and addresses of hosts files (`--hosts`).

use std::net::IpAddr;

use super::local_zones::{LocalAnswer, address_data, write};
use crate::config::hosts::{Hosts, address_of_pointer};
use crate::wire::question::{CLASS_ANY, CLASS_IN, Question, Type};

/// The TTL of an answer in seconds: a changed file takes effect soon.
pub(super) const TTL: u32 = 60;

/// Returns the reply to a question for a name or an address of a hosts file, with id 0 for the
/// caller to replace. A name has only its addresses: other types do not exist.
pub(in crate::proxy) fn reply(hosts: &Hosts, question: Question<'_>) -> Option<Vec<u8>> {
    if !matches!(question.class(), CLASS_IN | CLASS_ANY) {
        return None;
    }
    let (name, rr_type) = (question.name(), question.rr_type());
    let content = match hosts.addresses(name) {
        Some(addresses) => return Some(reply_with(&addresses, question)),
        None if matches!(rr_type, Type::PTR | Type::ANY) => {
            let target = hosts.name_of(address_of_pointer(name)?)?;
            LocalAnswer::Records(Type::PTR, vec![target.as_bytes().to_vec()])
        }
        None => return None,
    };
    Some(write(question, name.len(), &content, TTL))
}

/// Returns the reply to a question for a name with these addresses and nothing else, with id 0 for
/// the caller to replace.
pub(in crate::proxy) fn reply_with(addresses: &[IpAddr], question: Question<'_>) -> Vec<u8> {
    let content = content(addresses, question.rr_type());
    write(question, question.name().len(), &content, TTL)
}

/// Returns the content of a name with these addresses for a type. One type of addresses is enough
/// for a question for any type (RFC 8482, section 4.1).
fn content(addresses: &[IpAddr], rr_type: Type) -> LocalAnswer {
    let shown = match rr_type {
        Type::ANY if addresses.iter().any(IpAddr::is_ipv4) => Type::A,
        Type::ANY => Type::AAAA,
        other => other,
    };
    match address_data(addresses, shown) {
        data if data.is_empty() => LocalAnswer::NoRecord,
        data => LocalAnswer::Records(shown, data),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::name::Name;
    use crate::wire::{Message, Rcode};

    /// Returns the answer to a question as text: its records, or `NODATA`.
    fn answer(name: &str, rr_type: Type) -> Option<String> {
        answer_of_class(name, rr_type, CLASS_IN)
    }

    fn answer_of_class(name: &str, rr_type: Type, class: u16) -> Option<String> {
        let mut hosts = Hosts::default();
        let text = "192.168.1.1 router.lan router\nfd00::1 router.lan\n10.0.0.1 router.lan\n\
                    ::1 six.lan\n127.0.0.1 localhost";
        hosts.add(text).unwrap();
        let name: Name = name.parse().unwrap();
        let header = [0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        let query = [
            &header,
            name.as_bytes(),
            &rr_type.0.to_be_bytes(),
            &class.to_be_bytes(),
        ];
        let query = query.concat();
        let query = Message::parse(&query).unwrap();
        let reply = reply(&hosts, query.question().unwrap())?;
        let message = Message::parse(&reply).unwrap();
        assert_eq!(
            (message.rcode(), message.end()),
            (Rcode::NOERROR, reply.len())
        );
        let data = message.answers().map(|record| match record.data(&reply) {
            [a, b, c, d] => format!("{a}.{b}.{c}.{d}"),
            data if data.len() == 16 => format!("...{}", data[15]),
            data => String::from_utf8_lossy(data).into_owned(),
        });
        let data: Vec<String> = data.collect();
        Some(if data.is_empty() {
            "NODATA".to_owned()
        } else {
            data.join(" ")
        })
    }

    #[test]
    fn name_has_its_addresses_and_no_other_types() {
        for (name, rr_type, expected) in [
            ("router.lan", Type::A, "192.168.1.1 10.0.0.1"),
            ("Router.LAN", Type::AAAA, "...1"),
            ("router.lan", Type::ANY, "192.168.1.1 10.0.0.1"),
            ("router.lan", Type(15), "NODATA"),
            ("router.lan", Type(65), "NODATA"),
            ("router", Type::AAAA, "NODATA"),
            ("six.lan", Type::ANY, "...1"),
            ("localhost", Type::AAAA, "NODATA"),
        ] {
            assert_eq!(
                answer(name, rr_type).as_deref(),
                Some(expected),
                "{name} {rr_type:?}"
            );
        }
    }

    #[test]
    fn address_has_a_pointer_to_its_first_name() {
        let pointer = answer("1.1.168.192.in-addr.arpa", Type::PTR);
        assert_eq!(pointer.as_deref(), Some("\x06router\x03lan\0"));
        assert_eq!(answer("1.1.168.192.in-addr.arpa", Type::A), None);
        assert_eq!(answer("2.1.168.192.in-addr.arpa", Type::PTR), None);
    }

    #[test]
    fn other_names_and_classes_have_no_answer() {
        assert_eq!(answer("lan", Type::A), None);
        assert_eq!(answer("a.router.lan", Type::A), None);
        assert_eq!(answer_of_class("router.lan", Type::A, 3), None);
    }
}
