//! Designated resolvers (RFC 9462): clients that use plain DNS learn about the listeners for DNS
//! over TLS and DNS over HTTPS with a query for `_dns.resolver.arpa` of type SVCB, or for `_dns`
//! below the name of `--designated` (RFC 9461).
//!
//! The address hints are the addresses of the listeners. For a wildcard address, the hint is the
//! address at which the query arrived. If that is unknown or a loopback address, the hints are the
//! non-loopback addresses of the listeners for plain DNS in the same address family. A loopback
//! address of an encrypted listener is sent to clients of this host only.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use super::local_zones::{LocalAnswer, address_data, write, write_record};
use crate::base::origin::Origin;
use crate::config::Config;
use crate::config::upstream::DOH_PATH;
use crate::wire::question::{CLASS_ANY, CLASS_IN, Question, Type};

/// The TTL of the records in seconds. It is short, because a reload may change the name, and a
/// restart the listeners.
const TTL: u32 = 300;

/// Maximum number of addresses of a family, in the hints and in a response.
const ADDRESSES_MAX: usize = 8;

/// The name of discovery by the address of the resolver (RFC 9462, section 4).
const BY_ADDRESS: &[u8] = b"\x04_dns\x08resolver\x04arpa\0";

/// The label before a name, for discovery by the name of the resolver (RFC 9461, section 3).
const DNS_LABEL: &[u8] = b"\x04_dns";

/// Keys of parameters of SVCB records (RFC 9460, section 14.3.2; RFC 9461, section 5).
const ALPN: u16 = 1;
const PORT: u16 = 3;
const IPV4_HINT: u16 = 4;
const IPV6_HINT: u16 = 6;
const PATH_TEMPLATE: u16 = 7;

/// The place of the number of additional records in a message (RFC 1035, section 4.1.1).
const ADDITIONALS_AT: Range<usize> = 10..12;

/// The listeners with one protocol and port.
struct EncryptedService<'a> {
    is_https: bool,
    port: u16,
    addresses: Vec<&'a SocketAddr>,
}

/// Returns the reply to a question about our listeners or their name, with id 0 for the caller to
/// replace. Below the name, only `_dns` is answered.
pub(in crate::proxy) fn reply(
    config: &Config,
    question: Question<'_>,
    origin: Origin,
) -> Option<Vec<u8>> {
    let target = config.designated.as_ref()?.as_bytes();
    if !matches!(question.class(), CLASS_IN | CLASS_ANY) {
        return None;
    }
    let (name, rr_type) = (question.name(), question.rr_type());
    let (zone_len, (rr_type, records)) = if name.eq_ignore_ascii_case(target) {
        (name.len(), addresses_of_name(config, rr_type, origin)?)
    } else if is_discovery(name, target) {
        let records = match rr_type {
            Type::SVCB | Type::ANY => service_records(config, target, origin),
            _ => Vec::new(),
        };
        (name.len() - DNS_LABEL.len(), (Type::SVCB, records))
    } else {
        return None;
    };
    let content = if records.is_empty() {
        LocalAnswer::NoRecord
    } else {
        LocalAnswer::Records(rr_type, records)
    };
    let has_services = rr_type == Type::SVCB && !matches!(content, LocalAnswer::NoRecord);
    let mut reply = write(question, zone_len, &content, TTL);
    if has_services {
        add_addresses(&mut reply, config, target, origin);
    }
    Some(reply)
}

/// Adds the addresses of the designated name to the additional section (RFC 9462, section 4).
fn add_addresses(reply: &mut Vec<u8>, config: &Config, target: &[u8], origin: Origin) {
    let mut count: u16 = 0;
    for rr_type in [Type::A, Type::AAAA] {
        let addresses = addresses_of_name(config, rr_type, origin);
        for address in addresses.map_or(Vec::new(), |(_, data)| data) {
            write_record(reply, target, (rr_type, CLASS_IN), TTL, &address);
            count += 1;
        }
    }
    if let Some(place) = reply.get_mut(ADDITIONALS_AT) {
        place.copy_from_slice(&count.to_be_bytes());
    }
}

/// Returns whether a name is one of those of service discovery.
fn is_discovery(name: &[u8], target: &[u8]) -> bool {
    let is_below_target = name
        .split_at_checked(DNS_LABEL.len())
        .is_some_and(|(label, rest)| {
            label.eq_ignore_ascii_case(DNS_LABEL) && rest.eq_ignore_ascii_case(target)
        });
    is_below_target || name.eq_ignore_ascii_case(BY_ADDRESS)
}

/// Returns the type and the data of the records of the designated name for a type. Returns `None`,
/// so that the query goes to an upstream, if no address is known.
fn addresses_of_name(
    config: &Config,
    rr_type: Type,
    origin: Origin,
) -> Option<(Type, Vec<Vec<u8>>)> {
    let services = services(config);
    let addresses = services
        .iter()
        .flat_map(|service| service.addresses_for(config, origin));
    let addresses = unique(addresses);
    let first = addresses.first()?;
    let shown = match rr_type {
        Type::ANY if first.is_ipv4() => Type::A,
        Type::ANY => Type::AAAA,
        other => other,
    };
    Some((shown, address_data(&addresses, shown)))
}

/// Returns the data of the SVCB records for this client.
fn service_records(config: &Config, target: &[u8], origin: Origin) -> Vec<Vec<u8>> {
    let services = services(config);
    let data = |(priority, service)| record(priority, target, service, config, origin);
    (1..).zip(&services).filter_map(data).collect()
}

/// Returns the listeners for encrypted DNS, by protocol and port.
fn services(config: &Config) -> Vec<EncryptedService<'_>> {
    let mut services: Vec<EncryptedService<'_>> = Vec::new();
    let tls = config.tls.iter().flat_map(|tls| &tls.addresses);
    let https = config.tls.iter().flat_map(|tls| &tls.https_addresses);
    let tls = tls.map(|address| (false, address));
    for (is_https, address) in tls.chain(https.map(|address| (true, address))) {
        let port = address.port();
        let mut known = services.iter_mut();
        match known.find(|one| (one.is_https, one.port) == (is_https, port)) {
            Some(service) => service.addresses.push(address),
            None => services.push(EncryptedService {
                is_https,
                port,
                addresses: vec![address],
            }),
        }
    }
    services
}

impl EncryptedService<'_> {
    /// Returns the addresses at which this client reaches the service.
    fn addresses_for(&self, config: &Config, origin: Origin) -> Vec<IpAddr> {
        let own = self.addresses.iter().map(|address| address.ip());
        let mut addresses: Vec<IpAddr> = own.clone().collect();
        for wildcard in own.filter(IpAddr::is_unspecified) {
            let is_alike = |ip: &IpAddr| ip.is_ipv4() == wildcard.is_ipv4();
            let local = origin.local.map(|local| local.ip.to_canonical());
            // A forwarder on this host sends queries over loopback for other hosts.
            let local = local.filter(|local| is_alike(local) && !local.is_loopback());
            if let Some(local) = local {
                addresses.push(local);
            } else {
                let plain = config.listen.addresses().into_iter();
                let plain = plain.map(|address| address.ip()).filter(is_alike);
                addresses.extend(plain.filter(|ip| !ip.is_loopback()));
            }
        }
        let is_local_client = origin.peer.ip().to_canonical().is_loopback();
        let is_reachable = |ip: &IpAddr| match ip {
            _ if ip.is_unspecified() => false,
            _ if ip.is_loopback() => is_local_client,
            IpAddr::V4(_) => true,
            // The client does not know the interface.
            IpAddr::V6(ip) => !ip.is_unicast_link_local(),
        };
        unique(addresses.into_iter().filter(is_reachable))
    }
}

/// Returns the data of the SVCB record of a service (RFC 9460, section 2.2), unless this client
/// cannot reach it.
fn record(
    priority: u16,
    target: &[u8],
    service: &EncryptedService<'_>,
    config: &Config,
    origin: Origin,
) -> Option<Vec<u8>> {
    let addresses = service.addresses_for(config, origin);
    let is_wildcard = |address: &&SocketAddr| address.ip().is_unspecified();
    if addresses.is_empty() && !service.addresses.iter().any(is_wildcard) {
        return None;
    }
    let mut data = priority.to_be_bytes().to_vec();
    data.extend_from_slice(target);
    let alpn: &[u8] = if service.is_https {
        b"\x02h2"
    } else {
        b"\x03dot"
    };
    write_parameter(&mut data, ALPN, alpn);
    write_parameter(&mut data, PORT, &service.port.to_be_bytes());
    let (ipv4, ipv6): (Vec<_>, Vec<_>) = addresses.iter().partition(|ip| ip.is_ipv4());
    for (key, hints) in [(IPV4_HINT, ipv4), (IPV6_HINT, ipv6)] {
        if !hints.is_empty() {
            let hints: Vec<u8> = hints.iter().flat_map(octets).collect();
            write_parameter(&mut data, key, &hints);
        }
    }
    if service.is_https {
        let template = format!("{DOH_PATH}{{?dns}}");
        write_parameter(&mut data, PATH_TEMPLATE, template.as_bytes());
    }
    Some(data)
}

fn write_parameter(data: &mut Vec<u8>, key: u16, value: &[u8]) {
    data.extend_from_slice(&key.to_be_bytes());
    let len = u16::try_from(value.len()).expect("a parameter is short");
    data.extend_from_slice(&len.to_be_bytes());
    data.extend_from_slice(value);
}

/// Returns the first addresses of each family, each once.
fn unique(addresses: impl Iterator<Item = IpAddr>) -> Vec<IpAddr> {
    let mut unique: Vec<IpAddr> = Vec::new();
    for address in addresses {
        let alike = unique
            .iter()
            .filter(|one| one.is_ipv4() == address.is_ipv4());
        if alike.count() < ADDRESSES_MAX && !unique.contains(&address) {
            unique.push(address);
        }
    }
    unique
}

fn octets(ip: &IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::testing::config;
    use crate::wire::Message;
    use crate::wire::name::Name;

    const LISTENERS: &str = "--tls-cert=c --tls-key=k --designated=Dns.Example.";

    /// Returns the records of the response to a client as text; `None` if the query goes to an
    /// upstream. `local` is the address that received the query.
    fn ask(
        listeners: &str,
        (name, rr_type): (&str, Type),
        (client, local): (&str, Option<&str>),
    ) -> Option<Vec<String>> {
        let arguments: Vec<&str> = listeners.split(' ').chain(LISTENERS.split(' ')).collect();
        let arguments = [&["-u192.0.2.1"], &arguments[..]].concat();
        let config = config(&arguments);
        let name: Name = name.parse().unwrap();
        let mut bytes = name.as_bytes().to_vec();
        bytes.extend(rr_type.0.to_be_bytes());
        bytes.extend(CLASS_IN.to_be_bytes());
        let parse = |ip: &str| ip.parse::<IpAddr>().unwrap();
        let origin = Origin {
            session: crate::base::arena::Key::from_usize(1),
            peer: (parse(client), 4711).into(),
            local: local.map(|local| parse(local).into()),
        };
        let reply = reply(&config, Question::parse(&bytes, 0).unwrap(), origin)?;
        let message = Message::parse(&reply).unwrap();
        let answers = message.answers().map(|record| {
            assert_eq!(record.ttl(&reply), TTL);
            assert!(record.rr_type == rr_type || rr_type == Type::ANY);
            match record.address(&reply) {
                Some(address) => address.to_string(),
                None => text_of(record.data(&reply)),
            }
        });
        let answers: Vec<_> = answers.collect();
        assert_eq!(
            message.authorities().count(),
            usize::from(answers.is_empty())
        );
        let start = message.answer_and_authority_ends()[1];
        let additional = message.records(start, message.records_end());
        let additional = additional.filter_map(|record| record.address(&reply));
        let is_service = !answers.is_empty() && answers[0].contains("alpn");
        assert_eq!(
            additional.count(),
            if is_service {
                addresses(&config, origin)
            } else {
                0
            }
        );
        Some(answers)
    }

    /// Returns the number of addresses of the designated name.
    fn addresses(config: &Config, origin: Origin) -> usize {
        let of = |rr_type| addresses_of_name(config, rr_type, origin).map_or(0, |it| it.1.len());
        of(Type::A) + of(Type::AAAA)
    }

    /// Returns the data of an SVCB record as text.
    fn text_of(data: &[u8]) -> String {
        let (priority, rest) = data.split_at(2);
        let (target, mut rest) = rest.split_at(13);
        assert_eq!(target, b"\x03dns\x07example\0");
        let mut parts = vec![priority[1].to_string()];
        let mut last_key = 0;
        while !rest.is_empty() {
            let (key, len) = (rest[1], usize::from(rest[3]));
            assert!(key > last_key, "the keys are in order");
            last_key = key;
            let (value, tail) = rest[4..].split_at(len);
            rest = tail;
            parts.push(match key {
                1 => format!("alpn={}", String::from_utf8_lossy(&value[1..])),
                3 => format!("port={}", u16::from_be_bytes(value.try_into().unwrap())),
                4 => format!("ipv4hint={value:?}"),
                6 => format!("ipv6hint={}", value.len() / 16),
                _ => format!("dohpath={}", String::from_utf8_lossy(value)),
            });
        }
        parts.join(" ")
    }

    const BOTH: &str = "--tls-listen=192.168.1.1 --https-listen=192.168.1.1:8443 \
                        --https-listen=[fd00::1]:8443";
    const SVCB: (&str, Type) = ("_dns.resolver.arpa", Type::SVCB);
    const REMOTE: (&str, Option<&str>) = ("192.168.1.7", None);

    #[test]
    fn listeners_are_designated_with_their_addresses() {
        let expected = [
            "1 alpn=dot port=853 ipv4hint=[192, 168, 1, 1]",
            "2 alpn=h2 port=8443 ipv4hint=[192, 168, 1, 1] ipv6hint=1 dohpath=/dns-query{?dns}",
        ];
        for name in [
            "_dns.resolver.arpa",
            "_DNS.Resolver.arpa",
            "_dns.dns.EXAMPLE",
        ] {
            let answers = ask(BOTH, (name, Type::SVCB), REMOTE).unwrap();
            assert_eq!(answers, expected);
        }
    }

    #[test]
    fn name_has_the_addresses_of_the_listeners() {
        let ask = |name, rr_type| ask(BOTH, (name, rr_type), REMOTE);
        assert_eq!(ask("dns.example", Type::A).unwrap(), ["192.168.1.1"]);
        assert_eq!(ask("DNS.example", Type::AAAA).unwrap(), ["fd00::1"]);
        // The names exist: an NXDOMAIN for another type would deny their records.
        for (name, rr_type) in [
            ("dns.example", Type::PTR),
            ("dns.example", Type::SVCB),
            ("dns.example", Type::DS),
            ("_dns.dns.example", Type::A),
            ("_dns.resolver.arpa", Type::A),
        ] {
            assert_eq!(ask(name, rr_type), Some(Vec::new()), "{name}");
        }
        for (name, rr_type) in [
            ("a.dns.example", Type::A),
            ("example", Type::A),
            ("_dns.resolver.example", Type::SVCB),
            ("_dn.dns.example", Type::SVCB),
        ] {
            assert_eq!(ask(name, rr_type), None, "{name}");
        }
    }

    #[test]
    fn any_shows_the_records_of_one_type() {
        let any = |listeners, name| ask(listeners, (name, Type::ANY), REMOTE).unwrap();
        assert_eq!(any(BOTH, "dns.example"), ["192.168.1.1"]);
        assert_eq!(any("--tls-listen=fd00::1", "dns.example"), ["fd00::1"]);
        assert_eq!(any(BOTH, "_dns.dns.example").len(), 2);
    }

    #[test]
    fn name_without_an_address_of_a_family_has_no_record_of_its_type() {
        let only_ipv4 = "--tls-listen=192.168.1.1";
        let answers = ask(only_ipv4, ("dns.example", Type::AAAA), REMOTE);
        assert_eq!(answers, Some(Vec::new()));
    }

    #[test]
    fn hint_of_a_wildcard_is_the_address_that_received_the_query() {
        let of = |client, local| ask("--tls-listen=:853", SVCB, (client, local)).unwrap();
        let ipv4 = of("10.0.0.9", Some("10.0.0.1"));
        assert_eq!(ipv4, ["1 alpn=dot port=853 ipv4hint=[10, 0, 0, 1]"]);
        let mapped = of("10.0.0.9", Some("::ffff:10.0.0.1"));
        assert_eq!(mapped, ["1 alpn=dot port=853 ipv4hint=[10, 0, 0, 1]"]);
        assert_eq!(
            of("fd00::9", Some("fd00::1")),
            ["1 alpn=dot port=853 ipv6hint=1"]
        );
        assert_eq!(of("fe80::9", Some("fe80::1")), ["1 alpn=dot port=853"]);
        assert_eq!(of("10.0.0.9", None), ["1 alpn=dot port=853"]);
        let name = ("dns.example", Type::A);
        assert_eq!(ask("--tls-listen=:853", name, REMOTE), None);
        // A forwarder on this host asks for other hosts.
        assert_eq!(of("127.0.0.1", Some("127.0.0.1")), ["1 alpn=dot port=853"]);
        let plain = "--tls-listen=:853 --listen=10.0.0.1 --listen=127.0.0.1";
        for client in [REMOTE, ("127.0.0.1", Some("127.0.0.1"))] {
            assert_eq!(ask(plain, name, client).unwrap(), ["10.0.0.1"]);
        }
    }

    #[test]
    fn loopback_address_is_sent_to_clients_of_this_host_only() {
        let both = "--tls-listen=127.0.0.1 --tls-listen=192.168.1.1";
        let local = ask(both, ("dns.example", Type::A), ("127.0.0.1", None)).unwrap();
        assert_eq!(local, ["127.0.0.1", "192.168.1.1"]);
        let remote = ask(both, ("dns.example", Type::A), REMOTE).unwrap();
        assert_eq!(remote, ["192.168.1.1"]);
        // No listener can be reached.
        let none = ask("--tls-listen=127.0.0.1", SVCB, REMOTE).unwrap();
        assert!(none.is_empty());
    }
}
