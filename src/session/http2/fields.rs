//! The fields of requests and responses: validation (RFC 9113, section 8.2 and 8.3), and the few
//! fields that DNS over HTTPS needs. Other fields are not kept.

use std::ops::Range;

/// The media type of DNS messages (RFC 8484, section 6).
pub const DNS_MESSAGE: &str = "application/dns-message";

/// The method of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Http2Method {
    /// GET
    Get,
    /// POST
    Post,
    /// HEAD: the response has no content.
    Head,
    /// CONNECT: the path is empty.
    Connect,
    /// Another method.
    Other,
}

/// The header fields of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestFields {
    /// The method.
    pub method: Http2Method,
    /// The content is `application/dns-message`.
    pub is_dns_message: bool,
    /// The content exceeds the maximum length and is not handed over: the response should have the
    /// status 413.
    pub is_too_long: bool,
    /// The length of the content in bytes, if the client has sent it.
    pub content_len: Option<u64>,
    /// The path and the authority.
    text: String,
    path: Range<usize>,
    authority: Range<usize>,
}

impl RequestFields {
    /// Returns the path with the query behind a question mark. The path starts with a slash, unless
    /// it is `*` or empty.
    pub fn path(&self) -> &str {
        self.text.get(self.path.clone()).unwrap_or_default()
    }

    /// Returns the host and the port of the request, or an empty text.
    pub fn authority(&self) -> &str {
        self.text.get(self.authority.clone()).unwrap_or_default()
    }

    /// Returns the number of allocated bytes.
    pub(super) fn allocated_len(&self) -> usize {
        self.text.capacity()
    }
}

/// The header fields of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ResponseFields {
    /// The status code, at least 100.
    pub(super) status: u16,
    pub(super) is_dns_message: bool,
    pub(super) content_len: Option<u64>,
}

/// An error: a message is malformed (RFC 9113, section 8.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// The progress of a list of fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum FieldSection {
    /// Pseudo-fields may follow.
    #[default]
    Pseudo,
    /// Only regular fields may follow.
    Regular,
    /// The message is malformed.
    Malformed,
}

/// The type of content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum ContentType {
    #[default]
    Unknown,
    DnsMessage,
    /// Another type, or several types, which have no meaning.
    Other,
}

/// The fields of a header block, while it is decoded.
#[derive(Debug, Default)]
pub(super) struct FieldCollector {
    method: Option<Http2Method>,
    has_scheme: bool,
    status: Option<u16>,
    text: String,
    path: Option<Range<usize>>,
    authority: Option<Range<usize>>,
    has_host: bool,
    section: FieldSection,
    content_type: ContentType,
    content_len: Option<u64>,
}

impl FieldCollector {
    /// Adds a field.
    pub(super) fn add(&mut self, name: &[u8], value: &[u8]) {
        if self.section != FieldSection::Malformed && self.try_add(name, value).is_none() {
            self.section = FieldSection::Malformed;
        }
    }

    /// Adds a field. Returns `None` if the message is malformed.
    fn try_add(&mut self, name: &[u8], value: &[u8]) -> Option<()> {
        // The fields of nearly every response need no check of each byte.
        let is_expected = match name {
            b":status" | b"content-length" => value.iter().all(u8::is_ascii_digit),
            b"content-type" => value == DNS_MESSAGE.as_bytes(),
            _ => false,
        };
        if !is_expected && !is_valid_value(value) {
            return None;
        }
        if name.first() == Some(&b':') {
            return match self.section {
                FieldSection::Pseudo => self.add_pseudo(name, value),
                FieldSection::Regular | FieldSection::Malformed => None,
            };
        }
        let is_known = is_expected || name == b"cache-control";
        if !is_known && (name.is_empty() || !name.iter().all(|byte| is_name_byte(*byte))) {
            return None;
        }
        self.section = FieldSection::Regular;
        match name {
            b"content-type" => {
                let is_first = self.content_type == ContentType::Unknown;
                self.content_type = if is_first && is_dns_message(value) {
                    ContentType::DnsMessage
                } else {
                    ContentType::Other
                };
            }
            b"content-length" => {
                let is_number = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
                let len = std::str::from_utf8(value).ok()?.parse().ok()?;
                if !is_number || self.content_len.replace(len).is_some() {
                    return None;
                }
            }
            b"host" => {
                if std::mem::replace(&mut self.has_host, true) {
                    return None;
                }
                let authority = self.authority.clone();
                match authority.and_then(|range| self.text.get(range)) {
                    Some(text) if text.as_bytes().eq_ignore_ascii_case(value) => {}
                    Some(_) => return None,
                    None => self.authority = Some(self.keep(value)?),
                }
            }
            b"te" if value != b"trailers" => return None,
            b"connection" | b"proxy-connection" | b"keep-alive" | b"transfer-encoding"
            | b"upgrade" => return None,
            _ => {}
        }
        Some(())
    }

    fn add_pseudo(&mut self, name: &[u8], value: &[u8]) -> Option<()> {
        let is_first = match name {
            b":method" => {
                let method = match value {
                    b"GET" => Http2Method::Get,
                    b"POST" => Http2Method::Post,
                    b"HEAD" => Http2Method::Head,
                    b"CONNECT" => Http2Method::Connect,
                    b"" => return None,
                    _ => Http2Method::Other,
                };
                self.method.replace(method).is_none()
            }
            b":scheme" => !value.is_empty() && !std::mem::replace(&mut self.has_scheme, true),
            b":path" => {
                let is_path = value.first() == Some(&b'/') || value == b"*";
                let path = self.keep(value)?;
                self.path.replace(path).is_none() && is_path
            }
            b":authority" => {
                let authority = self.keep(value)?;
                self.authority.replace(authority).is_none() && !value.contains(&b'@')
            }
            b":status" => self.status.replace(status(value)?).is_none(),
            _ => return None,
        };
        is_first.then_some(())
    }

    /// Keeps a text of visible ASCII characters.
    fn keep(&mut self, value: &[u8]) -> Option<Range<usize>> {
        if !value.iter().all(u8::is_ascii_graphic) {
            return None;
        }
        let start = self.text.len();
        self.text.push_str(std::str::from_utf8(value).ok()?);
        Some(start..self.text.len())
    }

    /// Returns the fields of a request.
    pub(super) fn into_request(self) -> Result<RequestFields, Malformed> {
        let method = self.method.ok_or(Malformed)?;
        let is_complete = if method == Http2Method::Connect {
            self.path.is_none() && !self.has_scheme && self.authority.is_some()
        } else {
            self.path.is_some() && self.has_scheme
        };
        let is_malformed = self.section == FieldSection::Malformed;
        if is_malformed || self.status.is_some() || !is_complete {
            return Err(Malformed);
        }
        Ok(RequestFields {
            method,
            is_dns_message: self.content_type == ContentType::DnsMessage,
            is_too_long: false,
            content_len: self.content_len,
            text: self.text,
            path: self.path.unwrap_or_default(),
            authority: self.authority.unwrap_or_default(),
        })
    }

    /// Returns the fields of a response.
    pub(super) fn into_response(self) -> Result<ResponseFields, Malformed> {
        let status = self.status.ok_or(Malformed)?;
        // HTTP/2 has no status 101 (RFC 9113, section 8.6).
        let is_malformed = self.section == FieldSection::Malformed || status == 101;
        if is_malformed || self.has_request_pseudo() {
            return Err(Malformed);
        }
        Ok(ResponseFields {
            status,
            is_dns_message: self.content_type == ContentType::DnsMessage,
            content_len: self.content_len,
        })
    }

    /// Checks the fields of trailers.
    pub(super) fn check_trailers(&self) -> Result<(), Malformed> {
        let is_malformed = self.section == FieldSection::Malformed;
        if is_malformed || self.status.is_some() || self.has_request_pseudo() {
            return Err(Malformed);
        }
        Ok(())
    }

    fn has_request_pseudo(&self) -> bool {
        let has_authority = self.authority.is_some() && !self.has_host;
        self.method.is_some() || self.has_scheme || self.path.is_some() || has_authority
    }
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_graphic() && !byte.is_ascii_uppercase() && byte != b':'
}

/// Returns whether a value has no forbidden byte and no space around it.
fn is_valid_value(value: &[u8]) -> bool {
    let is_space = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    !is_space(value.first())
        && !is_space(value.last())
        && !value
            .iter()
            .any(|byte| matches!(byte, b'\0' | b'\r' | b'\n'))
}

fn is_dns_message(value: &[u8]) -> bool {
    // Nearly every value is this one, without parameters.
    if value == DNS_MESSAGE.as_bytes() {
        return true;
    }
    let essence = value.split(|byte| *byte == b';').next().unwrap_or_default();
    essence
        .trim_ascii()
        .eq_ignore_ascii_case(DNS_MESSAGE.as_bytes())
}

/// Returns the number of a status code, which has three digits.
fn status(value: &[u8]) -> Option<u16> {
    let [
        first @ b'1'..=b'9',
        second @ b'0'..=b'9',
        third @ b'0'..=b'9',
    ] = value
    else {
        return None;
    };
    let digit = |byte: &u8| u16::from(byte - b'0');
    Some(100 * digit(first) + 10 * digit(second) + digit(third))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collected(text: &str) -> FieldCollector {
        let mut collector = FieldCollector::default();
        for line in text.split('|') {
            let colon = if line.starts_with(':') { ":" } else { "" };
            let (name, value) = line[colon.len()..].split_once(':').unwrap();
            collector.add(format!("{colon}{name}").as_bytes(), value.as_bytes());
        }
        collector
    }

    const GET: &str = ":method:GET|:scheme:https|:path:/a?b|:authority:c";

    #[test]
    fn request_has_its_fields() {
        let text = ":method:POST|:scheme:https|:authority:a:8443|:path:/dns-query|te:trailers|\
                    content-type:Application/DNS-Message; a=b|content-length:12|cookie:a";
        let request = collected(text).into_request().unwrap();
        assert_eq!(
            (request.path(), request.authority()),
            ("/dns-query", "a:8443")
        );
        assert_eq!(
            (request.method, request.content_len),
            (Http2Method::Post, Some(12))
        );
        assert!(request.is_dns_message && !request.is_too_long);
        let request = collected(GET).into_request().unwrap();
        assert_eq!((request.path(), request.authority()), ("/a?b", "c"));
        assert_eq!(
            (request.method, request.content_len),
            (Http2Method::Get, None)
        );
        assert!(!request.is_dns_message);
    }

    #[test]
    fn host_is_the_authority() {
        let authority = |text: &str| {
            let request = collected(text).into_request();
            request.map(|request| request.authority().to_owned())
        };
        let get = ":method:GET|:scheme:https|:path:/";
        assert_eq!(authority(&format!("{get}|host:a")).as_deref(), Ok("a"));
        assert_eq!(authority(get).as_deref(), Ok(""));
        assert_eq!(authority(&format!("{GET}|host:C")).as_deref(), Ok("c"));
        assert!(authority(&format!("{GET}|host:d")).is_err());
        assert!(authority(&format!("{get}|host:d|host:d")).is_err());
    }

    #[test]
    fn malformed_requests_are_errors() {
        for text in [
            ":method:GET|:scheme:https",
            ":method:GET|:path:/",
            ":scheme:https|:path:/",
            ":method:GET|:scheme:https|:path:a",
            ":method:GET|:scheme:https|a:b|:path:/",
            ":method:|:scheme:https|:path:/",
            ":method:GET|:scheme:|:path:/",
            ":method:CONNECT|:scheme:https|:path:/|:authority:a",
            ":method:CONNECT",
            ":method:GET|:scheme:https|:path:/|:authority:a@b",
            ":method:GET|:scheme:https|:path:/ b",
        ] {
            assert_eq!(collected(text).into_request(), Err(Malformed), "{text}");
        }
        for field in [
            ":method:GET",
            ":scheme:https",
            ":path:/",
            ":authority:c",
            ":status:200",
            ":protocol:a",
            "Abc:d",
            "a c:d",
            "a:b\n",
            "a:\0b",
            "a: b",
            "a:b\t",
            "\u{7f}:b",
            "é:b",
            "connection:close",
            "proxy-connection:close",
            "keep-alive:5",
            "transfer-encoding:chunked",
            "upgrade:h2c",
            "te:gzip",
            "content-length:",
            "content-length:+1",
            "content-length:1a",
            "content-length:99999999999999999999",
            "content-length:1|content-length:1",
        ] {
            let text = format!("{GET}|{field}");
            assert_eq!(collected(&text).into_request(), Err(Malformed), "{text}");
        }
        let mut collector = collected(GET);
        collector.add(b"", b"a");
        assert_eq!(collector.into_request(), Err(Malformed));
        assert!(
            collected(":method:CONNECT|:authority:a")
                .into_request()
                .is_ok()
        );
        assert!(
            collected(":method:OPTIONS|:scheme:https|:path:*")
                .into_request()
                .is_ok()
        );
    }

    #[test]
    fn response_has_a_status_of_three_digits() {
        let status = |text| collected(text).into_response().map(|fields| fields.status);
        assert_eq!(status(":status:200|content-type:a"), Ok(200));
        assert_eq!(status(":status:103"), Ok(103));
        for text in [
            "a:b",
            ":status:099",
            ":status:20",
            ":status:2000",
            ":status:2x0",
            ":status:101",
            ":status:200|:status:200",
            ":status:200|:path:/",
            "a:b|:status:200",
        ] {
            assert_eq!(status(text), Err(Malformed), "{text}");
        }
    }

    #[test]
    fn second_content_type_has_no_meaning() {
        let both = ":status:200|content-type:application/dns-message|\
                    content-type:application/dns-message";
        assert!(!collected(both).into_response().unwrap().is_dns_message);
        let one = ":status:200|content-type:application/dns-message";
        assert!(collected(one).into_response().unwrap().is_dns_message);
    }

    #[test]
    fn trailers_have_no_pseudo_fields() {
        assert_eq!(collected("a:b|host:c").check_trailers(), Ok(()));
        for text in [
            ":status:200",
            ":path:/",
            ":authority:a",
            "A:b",
            "a:b|:status:200",
        ] {
            assert_eq!(collected(text).check_trailers(), Err(Malformed), "{text}");
        }
    }
}
