//! The report of the check: two tables for people, or JSON.

use std::fmt::Write as _;
use std::time::Duration;

use super::findings::{AddressFindings, UpstreamFindings};
use crate::telemetry::json::{List, Object};
use crate::telemetry::one_line::OneLine;

/// Maximum length of a cell in characters.
const CELL_LEN_MAX: usize = 80;

/// Returns the findings as text: a table of the connections, a table of what the upstreams support,
/// and problems. The current time is `now`, since 1970.
pub fn to_text(findings: &[UpstreamFindings], now: Duration) -> String {
    let mut connections = vec![to_row(&[
        "UPSTREAM",
        "ADDRESS",
        "CONNECTED",
        "TLS",
        "KEY EXCHANGE",
        "HANDSHAKE",
        "RESUMED",
        "QUERY",
    ])];
    let mut support = vec![to_row(&[
        "UPSTREAM",
        "ADDRESS",
        "CERTIFICATE",
        "DAYS",
        "PIPELINED",
        "VALIDATES",
        "RRSIG",
        "EDNS",
        "ECS",
    ])];
    let mut problems = String::new();
    for upstream in findings {
        let label = &upstream.label;
        if let Some(problem) = &upstream.problem {
            connections.push(to_row(&[label, "-", "no", "-", "-", "-", "-", "-"]));
            add_line(&mut problems, &format!("{label}: {problem}"));
        }
        for found in &upstream.addresses {
            connections.push(connection_row(label, found));
            if found.is_connected() {
                support.push(support_row(label, found, now));
            }
            let of_address = format!("{label} at {}", found.address);
            if let Some(problem) = &found.problem {
                add_line(&mut problems, &format!("{of_address}: {problem}"));
            }
            for warning in &found.warnings {
                add_line(&mut problems, &format!("{of_address}: warning: {warning}"));
            }
        }
    }
    let mut parts = vec![table(&connections)];
    if support.len() > 1 {
        parts.push(table(&support));
    }
    if !problems.is_empty() {
        parts.push(problems);
    }
    parts.join("\n")
}

fn add_line(text: &mut String, line: &str) {
    writeln!(text, "{}", OneLine(line)).expect("writing to a string cannot fail");
}

fn connection_row(label: &str, found: &AddressFindings) -> Vec<String> {
    let tls = found.tls.as_ref();
    let version = tls.map(|tls| tls.version.trim_start_matches("TLS ").to_owned());
    let key_exchange = tls.and_then(|tls| tls.key_exchange).map(str::to_owned);
    let second = found.second.as_ref();
    let resumed = second.and_then(|second| {
        let is_resumed = second.is_resumed?;
        Some(if is_resumed {
            milliseconds(second.handshake)
        } else {
            "no".to_owned()
        })
    });
    let cells = [
        Some(label.to_owned()),
        Some(found.address.to_string()),
        Some(yes_or_no(found.is_connected())),
        version,
        key_exchange,
        found.handshake.map(milliseconds),
        resumed,
        found.query.map(milliseconds),
    ];
    cells.into_iter().map(or_dash).collect()
}

fn support_row(label: &str, found: &AddressFindings, now: Duration) -> Vec<String> {
    let certificate = found.certificate.as_ref();
    let reply = found.answer();
    let edns = reply.map(|reply| {
        let size = reply.edns_size.map(|size| size.to_string());
        size.unwrap_or_else(|| "no".to_owned())
    });
    let days = certificate.and_then(|certificate| {
        if certificate.has_expired(now) {
            return Some("expired".to_owned());
        }
        certificate.days_left(now).map(|days| days.to_string())
    });
    let cells = [
        Some(label.to_owned()),
        Some(found.address.to_string()),
        certificate.map(|certificate| certificate.name().to_owned()),
        days,
        found.second.map(|second| second.answered.to_string()),
        reply.and_then(|reply| reply.validates).map(yes_or_no),
        reply.and_then(|reply| reply.has_signatures).map(yes_or_no),
        edns,
        found.has_client_subnet.map(yes_or_no),
    ];
    cells.into_iter().map(or_dash).collect()
}

fn to_row(cells: &[&str]) -> Vec<String> {
    cells.iter().map(|cell| (*cell).to_owned()).collect()
}

fn or_dash(cell: Option<String>) -> String {
    let text = cell.filter(|text| !text.is_empty());
    text.unwrap_or_else(|| "-".to_owned())
}

fn yes_or_no(is_yes: bool) -> String {
    if is_yes { "yes" } else { "no" }.to_owned()
}

fn milliseconds(time: Duration) -> String {
    let milliseconds = time.as_secs_f64() * 1000.0;
    let decimals = match time.as_millis() {
        0 => 2,
        1..10 => 1,
        _ => 0,
    };
    format!("{milliseconds:.decimals$} ms")
}

/// Returns rows with their columns aligned.
fn table(rows: &[Vec<String>]) -> String {
    let short = |cell: &String| -> String {
        let cell = OneLine(cell).to_string();
        if cell.chars().count() <= CELL_LEN_MAX {
            return cell;
        }
        let start = cell.chars().take(CELL_LEN_MAX - 3);
        start.chain("...".chars()).collect()
    };
    let rows: Vec<Vec<String>> = rows
        .iter()
        .map(|row| row.iter().map(short).collect())
        .collect();
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            write!(line, "{cell:<width$}  ").expect("writing to a string cannot fail");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Returns the findings as a JSON object in one line. The current time is `now`, since 1970.
pub fn to_json(findings: &[UpstreamFindings], now: Duration) -> Vec<u8> {
    let mut out = Vec::new();
    let failed = findings.iter().filter(|upstream| !upstream.works()).count();
    Object::start(&mut out)
        .plain("works", failed == 0)
        .plain("failed", failed)
        .nested("upstreams", |out| {
            let mut list = List::start(out);
            for upstream in findings {
                write_upstream(upstream, now, list.item());
            }
            list.end();
        })
        .end_line();
    out
}

fn write_upstream(upstream: &UpstreamFindings, now: Duration, out: &mut Vec<u8>) {
    let mut object = Object::start(out);
    object
        .text("upstream", &upstream.label)
        .plain("works", upstream.works())
        .plain("fallback", upstream.is_fallback);
    if let Some(problem) = &upstream.problem {
        object.text("error", problem);
    }
    object.nested("addresses", |out| {
        let mut list = List::start(out);
        for found in &upstream.addresses {
            write_address(found, now, list.item());
        }
        list.end();
    });
    object.end();
}

fn write_address(found: &AddressFindings, now: Duration, out: &mut Vec<u8>) {
    let mut object = Object::start(out);
    object
        .text("address", found.address)
        .plain("works", found.problem.is_none())
        .plain("connected", found.is_connected());
    if let Some(problem) = &found.problem {
        object.text("error", problem);
    }
    if let Some(tls) = &found.tls {
        object.word("tls_version", tls.version);
        if let Some(group) = tls.key_exchange {
            object.word("key_exchange", group);
        }
    }
    if let Some(certificate) = &found.certificate {
        object
            .text("certificate_name", certificate.name())
            .text("certificate_subject", &certificate.subject);
        if let Some(validity) = certificate.validity {
            object.plain("certificate_expires_at", validity.expires_at.as_secs());
        }
        if let Some(days) = certificate.days_left(now) {
            object.plain("certificate_days", days);
        }
    }
    let mut seconds = |name: &str, time: Option<Duration>| {
        if let Some(time) = time {
            object.plain(name, time.as_secs_f64());
        }
    };
    seconds("handshake_seconds", found.handshake);
    seconds("query_seconds", found.query);
    if let Some(second) = &found.second {
        seconds("second_handshake_seconds", Some(second.handshake));
        if let Some(is_resumed) = second.is_resumed {
            object.plain("resumed", is_resumed);
        }
        object.plain("pipelined", second.answered);
    }
    if let Some(reply) = &found.reply {
        object.text("rcode", reply.rcode);
    }
    if let Some(reply) = found.answer() {
        if let Some(validates) = reply.validates {
            object.plain("dnssec_validates", validates);
        }
        if let Some(has_signatures) = reply.has_signatures {
            object.plain("dnssec_signatures", has_signatures);
        }
        if let Some(size) = reply.edns_size {
            object.plain("edns_size", size);
        }
    }
    if let Some(has_client_subnet) = found.has_client_subnet {
        object.plain("client_subnet", has_client_subnet);
    }
    object.nested("warnings", |out| {
        let mut list = List::start(out);
        for warning in &found.warnings {
            list.text(warning);
        }
        list.end();
    });
    object.end();
}

#[cfg(test)]
mod tests {
    use super::super::findings::{
        AddressFindings, CertificateFindings, ReplyFindings, SecondConnection,
    };
    use super::*;
    use crate::base::time::Validity;
    use crate::session::transport::TlsSession;
    use crate::wire::Rcode;

    const DAY: Duration = Duration::from_secs(86_400);

    fn of_tls() -> UpstreamFindings {
        let validity = Validity {
            begins_at: Duration::ZERO,
            expires_at: 100 * DAY,
        };
        let mut found = AddressFindings::new("9.9.9.9:853".parse().unwrap());
        found.handshake = Some(Duration::from_micros(23_400));
        found.tls = Some(TlsSession {
            version: "TLS 1.3",
            key_exchange: Some("X25519MLKEM768"),
            validity: Some(validity),
        });
        found.certificate = Some(CertificateFindings {
            subject: "CN=*.quad9.net,O=Quad9".to_owned(),
            validity: Some(validity),
        });
        found.query = Some(Duration::from_micros(8_260));
        found.reply = Some(ReplyFindings {
            rcode: Rcode::NOERROR,
            is_truncated: false,
            validates: Some(true),
            has_signatures: Some(false),
            edns_size: Some(1232),
        });
        found.has_client_subnet = Some(false);
        found.second = Some(SecondConnection {
            handshake: Duration::from_micros(870),
            is_resumed: Some(true),
            answered: 64,
        });
        UpstreamFindings {
            label: "9.9.9.9:853#dns.quad9.net".to_owned(),
            addresses: vec![found],
            ..UpstreamFindings::default()
        }
    }

    fn of_failures() -> UpstreamFindings {
        let mut refused = AddressFindings::new("192.0.2.1:853".parse().unwrap());
        refused.problem = Some("connection failed: \u{1b}[2J".to_owned());
        refused.warnings.push("a \"warning\"".to_owned());
        UpstreamFindings {
            label: "dns.example:853".to_owned(),
            is_fallback: true,
            addresses: vec![refused],
            ..UpstreamFindings::default()
        }
    }

    fn of_unknown() -> UpstreamFindings {
        UpstreamFindings {
            label: "unknown.example:853".to_owned(),
            problem: Some("no address".to_owned()),
            ..UpstreamFindings::default()
        }
    }

    #[test]
    fn text_is_two_tables_and_problems() {
        let text = to_text(&[of_tls(), of_failures(), of_unknown()], 39 * DAY);
        let expected = r#"
UPSTREAM                   ADDRESS        CONNECTED  TLS  KEY EXCHANGE    HANDSHAKE  RESUMED  QUERY
9.9.9.9:853#dns.quad9.net  9.9.9.9:853    yes        1.3  X25519MLKEM768  23 ms      0.87 ms  8.3 ms
dns.example:853            192.0.2.1:853  no         -    -               -          -        -
unknown.example:853        -              no         -    -               -          -        -

UPSTREAM                   ADDRESS      CERTIFICATE  DAYS  PIPELINED  VALIDATES  RRSIG  EDNS  ECS
9.9.9.9:853#dns.quad9.net  9.9.9.9:853  *.quad9.net  61    64         yes        no     1232  no

dns.example:853 at 192.0.2.1:853: connection failed: \u{1b}[2J
dns.example:853 at 192.0.2.1:853: warning: a "warning"
unknown.example:853: no address
"#;
        assert_eq!(text, expected.trim_start());
    }

    #[test]
    fn json_is_one_line() {
        let json = to_json(&[of_tls(), of_failures(), of_unknown()], 39 * DAY);
        let expected = [
            r#"{"works":false,"failed":2,"upstreams":["#,
            r#"{"upstream":"9.9.9.9:853#dns.quad9.net","works":true,"fallback":false,"addresses":["#,
            r#"{"address":"9.9.9.9:853","works":true,"connected":true,"tls_version":"TLS 1.3","#,
            r#""key_exchange":"X25519MLKEM768","certificate_name":"*.quad9.net","#,
            r#""certificate_subject":"CN=*.quad9.net,O=Quad9","certificate_expires_at":8640000,"#,
            r#""certificate_days":61,"handshake_seconds":0.0234,"query_seconds":0.00826,"#,
            r#""second_handshake_seconds":0.00087,"resumed":true,"pipelined":64,"#,
            r#""rcode":"NOERROR","dnssec_validates":true,"dnssec_signatures":false,"#,
            r#""edns_size":1232,"client_subnet":false,"warnings":[]}]},"#,
            r#"{"upstream":"dns.example:853","works":false,"fallback":true,"addresses":["#,
            r#"{"address":"192.0.2.1:853","works":false,"connected":false,"#,
            r#""error":"connection failed: \u001b[2J","warnings":["a \"warning\""]}]},"#,
            r#"{"upstream":"unknown.example:853","works":false,"fallback":false,"#,
            r#""error":"no address","addresses":[]}]}"#,
        ];
        let expected = expected.concat() + "\n";
        assert_eq!(String::from_utf8(json).unwrap(), expected);
    }
}
