//! Tests of the addresses at which the program listens.

use super::tests::{config, parse_line};
use super::*;
use crate::config::{InheritedSocket, Listen};

fn addresses<const N: usize>(texts: [&str; N]) -> [std::net::SocketAddr; N] {
    texts.map(|text| text.parse().expect("an address and a port"))
}

fn error_of_line(line: &str) -> String {
    parse_line(line).expect_err("the line is refused")
}

#[test]
fn listen_address_without_a_port_uses_the_default_port() {
    let config = config("-p 5353 -l 127.0.0.1 -l [::1]:54 --listen=::1 -u 1.1.1.1");
    let expected = addresses(["127.0.0.1:5353", "[::1]:54", "[::1]:5353"]);
    assert_eq!(config.listen, Listen::Addresses(expected.to_vec()));
}

#[test]
fn port_alone_is_every_address() {
    let files = "--tls-cert a.pem --tls-key b.key";
    let tls = config(&format!("-u 1.1.1.1 --tls-listen :8853 {files}")).tls;
    let expected = addresses(["0.0.0.0:8853", "[::]:8853"]);
    assert_eq!(tls.expect("DoT is configured").addresses, expected);
    let listen = config("-u 1.1.1.1 -l :8853 -p 5300").listen.addresses();
    assert_eq!(listen, expected);
    for (line, error) in [
        ("-l :0", "--listen: \":0\": expected an IP address like"),
        ("-l :", "--listen: \":\": expected an IP address like"),
        (
            "--tls-listen :65536",
            "--tls-listen: \":65536\": expected an IP address like 127.0.0.1, 127.0.0.1:5353 or \
             [::1]:53, or :5353 for every address",
        ),
        (
            "-l :53 -l 127.0.0.1",
            "--listen: \"127.0.0.1:53\": given twice, or part of a wildcard",
        ),
        (
            "-l 127.0.0.1:853 --tls-listen :853",
            "--tls-listen: \"127.0.0.1:853\": another listener has this address and port \
             (--listen)",
        ),
        // An address to connect to is that of one host.
        (
            "-u :853",
            "--upstream: \":853\": expected an address or a host name, like 1.1.1.1",
        ),
        (
            "-b :53",
            "--bootstrap: \":53\": expected an IP address like 192.168.1.1",
        ),
        (
            "--dnstap tcp::6000",
            "--dnstap: \"tcp::6000\": expected a socket like unix:/run/dnstap.sock or tcp:",
        ),
        (
            "--otlp http://:4318",
            "--otlp: \"http://:4318\": expected http://, an IP address and a port",
        ),
    ] {
        let problem = error_of_line(&format!("-u 1.1.1.1 {line} {files}"));
        assert!(problem.starts_with(error), "{line}: {problem}");
    }
}

#[test]
fn http_wildcard_replaces_the_addresses_that_it_covers() {
    for (options, expected) in [
        (":9153", &["0.0.0.0:9153", "[::]:9153"][..]),
        (
            "127.0.0.1:9153 --http-listen :9153",
            &["0.0.0.0:9153", "[::]:9153"],
        ),
        (
            ":9153 --http-listen [::1]:9153",
            &["0.0.0.0:9153", "[::]:9153"],
        ),
        (":9153 --http-listen :9153", &["0.0.0.0:9153", "[::]:9153"]),
        (
            "127.0.0.1:9153 --http-listen 0.0.0.0:9153",
            &["0.0.0.0:9153"],
        ),
        (
            "127.0.0.1:9153 --http-listen [::]:9153",
            &["127.0.0.1:9153", "[::]:9153"],
        ),
        (
            "127.0.0.1:80 --http-listen :9153",
            &["127.0.0.1:80", "0.0.0.0:9153", "[::]:9153"],
        ),
    ] {
        let addresses = config(&format!("-u 1.1.1.1 --http-listen {options}")).http_listen;
        let expected: Vec<std::net::SocketAddr> = expected
            .iter()
            .map(|one| one.parse().expect("an address and a port"))
            .collect();
        assert_eq!(addresses, expected, "{options}");
    }
}

#[test]
fn http_listen_addresses_are_parsed() {
    assert!(config("-u 1.1.1.1").http_listen.is_empty());
    let two = config("-u 1.1.1.1 --http-listen 127.0.0.1:9153 --http-listen [::1]:9153");
    let expected = addresses(["127.0.0.1:9153", "[::1]:9153"]);
    assert_eq!(two.http_listen, expected);
    for (value, start) in [
        (
            "127.0.0.1",
            "--http-listen: \"127.0.0.1\": expected an address and a port",
        ),
        (":", "--http-listen: \":\": expected an address and a port"),
        (
            ":0",
            "--http-listen: \":0\": expected an address and a port",
        ),
        (
            ":65536",
            "--http-listen: \":65536\": expected an address and a port",
        ),
        (":53", "--http-listen: \"0.0.0.0:53\": another listener"),
        (
            "127.0.0.1:53",
            "--http-listen: \"127.0.0.1:53\": another listener",
        ),
    ] {
        let problem = error_of_line(&format!("-u 1.1.1.1 --http-listen {value}"));
        assert!(problem.starts_with(start), "{problem}");
    }
}

#[test]
fn inherited_sockets_replace_listen_addresses() {
    let mut config = config("-u 1.1.1.1 -l 127.0.0.1 --http-listen 127.0.0.1:9153");
    let socket = |address: &str, has_udp, has_tcp| InheritedSocket {
        address: address.parse().expect("an address and a port"),
        has_udp,
        has_tcp,
    };
    let http = socket("127.0.0.1:9153", false, true);
    config.inherit(&[http]);
    let own = Listen::Addresses(vec!["127.0.0.1:53".parse().expect("an address and a port")]);
    assert_eq!(config.listen, own);
    let udp = socket("192.0.2.1:53", true, false);
    let both = socket("[::1]:5353", true, true);
    config.inherit(&[udp, http, both]);
    assert_eq!(config.listen, Listen::Inherited(vec![udp, both]));
    assert_eq!(config.listen.sockets(), [udp, both]);
}

#[test]
fn listen_option_without_an_inherited_socket_causes_one_warning() {
    let socket = |address: &str| InheritedSocket {
        address: address.parse().expect("an address and a port"),
        has_udp: true,
        has_tcp: true,
    };
    for (line, sockets, is_warned) in [
        ("", &["127.0.0.1:5353"][..], false),
        ("-p 53", &["127.0.0.1:53"], false),
        ("-p 5300", &["127.0.0.1:53"], true),
        ("-l 127.0.0.1 -l ::1", &["127.0.0.1:53", "[::1]:53"], false),
        ("-l 127.0.0.1 -l ::1", &["127.0.0.1:53"], true),
        ("-l 192.0.2.1", &["[::]:53"], false),
        ("-l 192.0.2.1:54 -l 192.0.2.2:54", &["[::]:53"], true),
        ("-l :53", &["[::]:53"], false),
        // The sockets are those of another option.
        ("-l 192.0.2.1 --http-listen 127.0.0.1:80", &[], false),
    ] {
        let mut config = config(&format!("-u 1.1.1.1 {line}"));
        let sockets: Vec<_> = sockets.iter().map(|address| socket(address)).collect();
        config.inherit(&sockets);
        let warning = config.warnings.join("\n");
        let start =
            "--listen, --port: no effect, since clients are served on the inherited sockets";
        assert_eq!(warning.starts_with(start), is_warned, "{line}: {warning}");
        assert_eq!(config.warnings.len(), usize::from(is_warned), "{line}");
    }
}

#[test]
fn multicast_listen_address_is_refused() {
    let of_many = "224.0.0.251 [ff02::fb]:53 255.255.255.255 ::ffff:239.1.2.3 ff02::1%1";
    for address in of_many.split_whitespace() {
        for option in ["--listen", "--tls-listen"] {
            let line = format!("-u 1.1.1.1 --tls-cert c --tls-key k {option} {address}");
            let problem = error_of_line(&line);
            let start = format!("{option}: {address:?}: expected a unicast address of this host");
            assert!(problem.starts_with(&start), "{problem}");
        }
        let problem = error_of_line(&format!("-u a.b -b {address}"));
        assert!(problem.ends_with("expected a unicast address"), "{problem}");
        assert!(parse_line(&format!("-u {address}")).is_err(), "{address}");
    }
    assert!(parse_line("-u 1.1.1.1 --http-listen 224.0.0.1:80").is_err());
    assert!(parse_line("-u a.b -b 0.0.0.0").is_err());
}

#[test]
fn clients_are_served_under_tls() {
    let files = "--tls-cert a.pem --tls-key b.key";
    let tls = config(&format!("-u 1.1.1.1 --tls-listen 127.0.0.1 {files}")).tls;
    let tls = tls.expect("DoT is configured");
    assert_eq!(
        tls.addresses,
        ["127.0.0.1:853".parse().expect("an address and a port")]
    );
    assert_eq!(tls.identity.certificate, PathBuf::from("a.pem"));
    assert_eq!(tls.identity.key, PathBuf::from("b.key"));
    assert_eq!(tls.client_ca, None);
    let more = "--tls-listen=[::1]:8853 --tls-listen=127.0.0.1 --tls-client-ca=c.pem";
    let tls = config(&format!("-u 1.1.1.1 {more} {files}"))
        .tls
        .expect("DoT is configured");
    assert_eq!(tls.addresses.len(), 2);
    assert_eq!(tls.client_ca, Some(PathBuf::from("c.pem")));
    let both = "--https-listen=127.0.0.1 --https-listen=:8443 --tls-listen=127.0.0.1";
    let tls = config(&format!("-u 1.1.1.1 {both} {files}"))
        .tls
        .expect("DoT and DoH are configured");
    assert_eq!(tls.addresses.len(), 1);
    let https: Vec<_> = tls
        .https_addresses
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(https, ["127.0.0.1:443", "0.0.0.0:8443", "[::]:8443"]);
    assert_eq!(config("-u 1.1.1.1").tls, None);
    for (line, start) in [
        (files, "--tls-cert, --tls-key: expected --tls-listen"),
        (
            "--tls-client-ca=c.pem",
            "--tls-client-ca: expected --tls-listen or --https-listen, an address for clients \
             over TLS",
        ),
        (
            "--tls-listen=127.0.0.1",
            "--tls-listen: this option needs --tls-cert",
        ),
        (
            "--tls-listen=127.0.0.1 --tls-cert=a.pem",
            "--tls-listen: this option needs --tls-cert",
        ),
        (
            "--tls-cert=a --tls-key=b --tls-listen=0.0.0.0:53",
            "--tls-listen: \"0.0.0.0:53\": another listener",
        ),
        (
            "--https-listen=127.0.0.1 --tls-key=b.pem",
            "--https-listen: this option needs --tls-cert",
        ),
        (
            "--tls-cert=a --tls-key=b --https-listen=0.0.0.0:53",
            "--https-listen: \"0.0.0.0:53\": another listener",
        ),
    ] {
        let problem = error_of_line(&format!("-u 1.1.1.1 {line}"));
        assert!(problem.starts_with(start), "{line}: {problem}");
    }
}

#[test]
fn listener_that_has_the_address_already_is_named() {
    let files = "--tls-cert a.pem --tls-key b.key";
    for (line, name) in [
        ("-p 9153 --http-listen :9153", "(--port)"),
        ("-l ::1 -p 9153 --http-listen :9153", "(--listen, --port)"),
        ("--http-listen :53", "(--listen, --port)"),
        (
            "-l 127.0.0.1 --tls-listen :9153 --http-listen :9153",
            "(--tls-listen)",
        ),
        (
            "-l 127.0.0.1 --tls-listen :853 --tls-listen ::1",
            "(--tls-listen)",
        ),
        (
            "-l 127.0.0.1 --tls-listen :8443 --https-listen [::1]:8443",
            "(--tls-listen)",
        ),
        (
            "-l 127.0.0.1 --tls-listen :853 --https-listen :9153 --http-listen :9153",
            "(--https-listen)",
        ),
    ] {
        let files = if line.contains("tls") { files } else { "" };
        let problem = error_of_line(&format!("-u 1.1.1.1 {line} {files}"));
        assert!(problem.ends_with(name), "{problem}");
    }
}

#[test]
fn plain_dns_on_the_port_of_dns_over_tls_is_a_warning() {
    let warning = |address: &str| {
        format!(
            "\"{address}\" serves plain DNS on the port of DNS over TLS: set --tls-listen to this \
             address, or use another port"
        )
    };
    let given = config("-u 1.1.1.1 -l 127.0.0.1:853").warnings;
    assert_eq!(given, [warning("127.0.0.1:853")]);
    let given = config("-u 1.1.1.1 -p 853").warnings;
    assert_eq!(given, [warning("0.0.0.0:853")]);
    let [address] = addresses(["0.0.0.0:853"]);
    let socket = InheritedSocket {
        address,
        has_udp: false,
        has_tcp: true,
    };
    let mut plain = config("-u 1.1.1.1");
    plain.inherit(&[socket]);
    assert_eq!(plain.warnings, [warning("0.0.0.0:853")]);
    let mut tls = config("-u 1.1.1.1 --tls-listen 0.0.0.0 --tls-cert a --tls-key b");
    tls.inherit(&[socket]);
    assert_eq!(tls.warnings, [""; 0]);
}
