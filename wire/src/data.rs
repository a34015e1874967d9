//! The data of records of known types: lengths, character strings and names.
//!
//! A client parses the data of the types that it knows, so a record with malformed data makes the
//! whole message useless to the client. Names in the data of the types listed in RFC 3597, section
//! 4, may be compressed; names in the data of newer types may not. Data of other types is opaque.

use super::name;
use super::names::Names;
use super::question::{CLASS_IN, Type};
use super::record::Record;
use super::{Malformed, read_u16, steps};

/// A part of a record's data.
#[derive(Clone, Copy, Debug)]
enum Part {
    /// A fixed number of bytes.
    Bytes(usize),
    /// A name that may be compressed.
    Name,
    /// A name that must not be compressed.
    WholeName,
    /// A character string: a length byte and as many bytes (RFC 1035, section 3.3).
    Text,
    /// Character strings up to the end, possibly none.
    Texts,
    /// Blocks of a type bitmap up to the end (RFC 4034, section 4.1.2).
    Bitmap,
    /// Parameters up to the end, each a key, the length of its value, and the value (RFC 9460,
    /// section 2.2).
    Parameters,
    /// Opaque bytes up to the end.
    Rest,
}

use Part::{Bitmap, Bytes, Name, Parameters, Rest, Text, Texts, WholeName};

/// Classes in which a record may have no data at all (RFC 2136, section 1.1).
const CLASSES_OF_UPDATES: [u16; 2] = [254, 255];

/// Parses the record at `start` and checks its names and data.
#[inline]
pub(crate) fn parse_record(names: &mut Names<'_>, start: usize) -> Result<Record, Malformed> {
    let message = names.message();
    let fixed = names.check(start)?;
    let (record, class) = Record::behind_owner(message, start, fixed)?;
    if record.end > message.len() {
        return Err(Malformed);
    }
    check(names, &record, class)?;
    Ok(record)
}

/// Checks the data of `record`.
#[inline]
fn check(names: &mut Names<'_>, record: &Record, class: u16) -> Result<(), Malformed> {
    let data_len = record.end - record.data_start();
    let is_right = match record.rr_type {
        Type::A if class == CLASS_IN => data_len == 4,
        Type::AAAA if class == CLASS_IN => data_len == 16,
        Type::OPT => true,
        rr_type => return check_parts(names, record, parts(rr_type, class)),
    };
    is_right.then_some(()).ok_or(Malformed)
}

/// Returns the parts of the data of this type.
fn parts(rr_type: Type, class: u16) -> &'static [Part] {
    if CLASSES_OF_UPDATES.contains(&class) {
        return &[Rest];
    }
    match rr_type.0 {
        // NS, MD, MF, CNAME, MB, MG, MR, PTR, NSAP-PTR.
        2..=5 | 7..=9 | 12 | 23 => &[Name],
        // SOA.
        6 => &[Name, Name, Bytes(20)],
        // HINFO.
        13 => &[Text, Text],
        // MINFO, RP.
        14 | 17 => &[Name, Name],
        // MX, AFSDB, RT.
        15 | 18 | 21 => &[Bytes(2), Name],
        // TXT, ISDN, SPF.
        16 | 20 | 99 => &[Text, Texts],
        // X25.
        19 => &[Text],
        // SIG.
        24 => &[Bytes(18), Name, Rest],
        // PX.
        26 => &[Bytes(2), Name, Name],
        // GPOS.
        27 => &[Text, Text, Text],
        // NXT.
        30 => &[Name, Rest],
        // SRV.
        33 => &[Bytes(6), Name],
        // NAPTR.
        35 => &[Bytes(4), Text, Text, Text, Name],
        // KX, LP.
        36 | 107 => &[Bytes(2), WholeName],
        // DNAME.
        39 => &[WholeName],
        // KEY, DS, DNSKEY, CDS, CDNSKEY, URI.
        25 | 43 | 48 | 59 | 60 | 256 => &[Bytes(4), Rest],
        // SSHFP, CAA.
        44 => &[Bytes(2), Rest],
        257 => &[Bytes(1), Text, Rest],
        // RRSIG.
        46 => &[Bytes(18), WholeName, Rest],
        // NSEC, NSEC3, NSEC3PARAM, CSYNC.
        47 => &[WholeName, Bitmap],
        50 => &[Bytes(4), Text, Text, Bitmap],
        51 => &[Bytes(4), Text],
        62 => &[Bytes(6), Bitmap],
        // TLSA, SMIMEA.
        52 | 53 => &[Bytes(3), Rest],
        // TALINK.
        58 => &[WholeName, WholeName],
        // SVCB, HTTPS.
        64 | 65 => &[Bytes(2), WholeName, Parameters],
        // NID, L32, L64, EUI48, EUI64.
        104 | 106 => &[Bytes(10)],
        105 | 108 => &[Bytes(6)],
        109 => &[Bytes(8)],
        _ => &[Rest],
    }
}

#[inline(never)]
fn check_parts(names: &mut Names<'_>, record: &Record, parts: &[Part]) -> Result<(), Malformed> {
    let bytes = names.message().get(..record.end).ok_or(Malformed)?;
    let mut at = record.data_start();
    for part in parts {
        at = match part {
            Bytes(len) => at + len,
            Name => names.check(at)?,
            WholeName => name::skip_uncompressed(bytes, at)?,
            Text => skip_text(bytes, at)?,
            Texts => skip_all(bytes, at, skip_text)?,
            Bitmap => skip_all(bytes, at, skip_bitmap_block)?,
            Parameters => skip_all(bytes, at, skip_parameter)?,
            Rest => return (at <= record.end).then_some(()).ok_or(Malformed),
        };
    }
    (at == record.end).then_some(()).ok_or(Malformed)
}

/// Returns whether the canonical form of data of this type has its names in lower case (RFC 4034,
/// section 6.2; RFC 6840, section 5.1).
fn has_lowercase_names(rr_type: Type) -> bool {
    matches!(
        rr_type.0,
        2..=9 | 12 | 14 | 15 | 17 | 18 | 21 | 24 | 26 | 30 | 33 | 35 | 36 | 39
    )
}

/// Appends the data of a record of this class in canonical form.
pub(crate) fn write_canonical(
    out: &mut Vec<u8>,
    message: &[u8],
    record: &Record,
    class: u16,
) -> Result<(), Malformed> {
    let is_lowercase = has_lowercase_names(record.rr_type);
    write_parts(out, message, record, (class, is_lowercase))
}

/// Appends the data of a record of this class without compression.
pub(crate) fn write_uncompressed(
    out: &mut Vec<u8>,
    message: &[u8],
    record: &Record,
    class: u16,
) -> Result<(), Malformed> {
    write_parts(out, message, record, (class, false))
}

fn write_parts(
    out: &mut Vec<u8>,
    message: &[u8],
    record: &Record,
    (class, is_lowercase): (u16, bool),
) -> Result<(), Malformed> {
    let bytes = message.get(..record.end).ok_or(Malformed)?;
    let mut at = record.data_start();
    for part in parts(record.rr_type, class) {
        let start = at;
        at = match part {
            Bytes(len) => at + len,
            Name => name::skip(bytes, at)?,
            WholeName => name::skip_uncompressed(bytes, at)?,
            Text => skip_text(bytes, at)?,
            Texts | Bitmap | Parameters | Rest => record.end,
        };
        let from = out.len();
        if matches!(part, Name) {
            name::write_uncompressed(out, message, start)?;
        } else {
            out.extend_from_slice(bytes.get(start..at).ok_or(Malformed)?);
        }
        if matches!(part, Name | WholeName) && is_lowercase {
            name::make_lowercase(&mut out[from..]);
        }
    }
    (at == record.end).then_some(()).ok_or(Malformed)
}

/// Skips parts of one kind up to the end.
fn skip_all(
    bytes: &[u8],
    mut at: usize,
    skip: impl Fn(&[u8], usize) -> Result<usize, Malformed>,
) -> Result<usize, Malformed> {
    while at < bytes.len() {
        steps::count();
        at = skip(bytes, at)?;
    }
    Ok(at)
}

fn skip_text(bytes: &[u8], at: usize) -> Result<usize, Malformed> {
    let len = bytes.get(at).ok_or(Malformed)?;
    Ok(at + 1 + usize::from(*len))
}

fn skip_bitmap_block(bytes: &[u8], at: usize) -> Result<usize, Malformed> {
    match *bytes.get(at + 1).ok_or(Malformed)? {
        len @ 1..=32 => Ok(at + 2 + usize::from(len)),
        _ => Err(Malformed),
    }
}

fn skip_parameter(bytes: &[u8], at: usize) -> Result<usize, Malformed> {
    Ok(at + 4 + usize::from(read_u16(bytes, at + 2)?))
}

#[cfg(test)]
mod tests {
    use super::super::Message;
    use super::*;

    /// Returns whether a message with a record of this type, class and data is well formed. The
    /// name at position 12 is `www.example`.
    fn is_right(rr_type: u16, class: u16, data: &[u8]) -> bool {
        let mut bytes =
            b"\0\x01\x81\x80\0\x01\0\x01\0\0\0\0\x03www\x07example\0\0\x01\0\x01".to_vec();
        bytes.extend(b"\xc0\x0c");
        bytes.extend(rr_type.to_be_bytes());
        bytes.extend(class.to_be_bytes());
        bytes.extend(b"\0\0\x01\x2c");
        bytes.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
        bytes.extend(data);
        // Bytes after the record: its data must not continue in them.
        bytes.extend(b"\x01a\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
        Message::parse(&bytes).is_ok()
    }

    fn is_right_in(rr_type: u16, data: &[u8]) -> bool {
        is_right(rr_type, CLASS_IN, data)
    }

    /// A type, the bytes before its names, the number of names, the bytes after them, and whether
    /// the names may be compressed.
    type Named = (u16, &'static [u8], usize, &'static [u8], bool);

    const NAMED: &[Named] = &[
        (2, b"", 1, b"", true),
        (5, b"", 1, b"", true),
        (6, b"", 2, &[0; 20], true),
        (7, b"", 1, b"", true),
        (8, b"", 1, b"", true),
        (9, b"", 1, b"", true),
        (12, b"", 1, b"", true),
        (14, b"", 2, b"", true),
        (15, b"\0\x0a", 1, b"", true),
        (17, b"", 2, b"", true),
        (18, b"\0\x01", 1, b"", true),
        (21, b"\0\x01", 1, b"", true),
        (24, &[0; 18], 1, b"signature", true),
        (26, b"\0\x01", 2, b"", true),
        (30, b"", 1, b"\x01", true),
        (33, &[0; 6], 1, b"", true),
        (35, b"\0\x01\0\x02\x01u\x03sip\0", 1, b"", true),
        (36, b"\0\x01", 1, b"", false),
        (39, b"", 1, b"", false),
        (46, &[0; 18], 1, b"signature", false),
        (47, b"", 1, b"\0\x01\x40", false),
        (58, b"", 2, b"", false),
        (64, b"\0\x01", 1, b"\0\x01\0\x03\x02h2", false),
        (65, b"\0\x01", 1, b"", false),
        (107, b"\0\x01", 1, b"", false),
    ];

    #[test]
    fn names_in_data_are_checked_and_end_within_the_data() {
        for (rr_type, before, names, behind, may_be_compressed) in NAMED {
            let data = |name: &[u8]| [before, &*name.repeat(*names), behind].concat();
            let whole = data(b"\x03WWW\x07example\0");
            assert!(is_right_in(*rr_type, &whole), "type {rr_type}");
            assert!(is_right_in(*rr_type, &data(b"\0")), "type {rr_type}");
            for compressed in [&b"\xc0\x0c"[..], b"\x02ns\xc0\x10"] {
                let is_accepted = is_right_in(*rr_type, &data(compressed));
                assert_eq!(is_accepted, *may_be_compressed, "type {rr_type}");
            }
            // Pointers into the header, ahead, to an invalid name; a reserved label type.
            for wrong in [&b"\xc0\x00"[..], b"\xc0\x0b", b"\xc1\x00", b"\x40a\0"] {
                assert!(
                    !is_right_in(*rr_type, &data(wrong)),
                    "type {rr_type}: {wrong:?}"
                );
            }
            // Every byte of the names is required, and an additional byte is too many.
            let names_end = whole.len() - behind.len();
            for len in 0..names_end {
                assert!(
                    !is_right_in(*rr_type, &whole[..len]),
                    "type {rr_type}: {len}"
                );
            }
            if behind.is_empty() && ![64, 65].contains(rr_type) {
                let longer = [&*whole, b"\0"].concat();
                assert!(!is_right_in(*rr_type, &longer), "type {rr_type}");
            }
        }
    }

    #[test]
    fn addresses_have_fixed_lengths() {
        for len in 0..40 {
            assert_eq!(is_right_in(1, &vec![7; len]), len == 4, "A of {len}");
            assert_eq!(is_right_in(28, &vec![7; len]), len == 16, "AAAA of {len}");
            // The data of another class is opaque.
            assert!(is_right(1, 3, &vec![7; len]));
        }
    }

    #[test]
    fn soa_has_20_bytes_after_its_names() {
        for len in 0..30 {
            let data = [&b"\xc0\x0c\xc0\x0c"[..], &vec![0; len]].concat();
            assert_eq!(is_right_in(6, &data), len == 20, "{len}");
        }
    }

    #[test]
    fn character_strings_end_within_the_data() {
        for (rr_type, data, expected) in [
            (16, &b"\x03abc"[..], true),
            (16, b"\x03abc\0\x01d", true),
            (16, b"\0", true),
            (16, b"\x04abc", false),
            (16, b"\x03abc\x02d", false),
            (16, b"", false),
            (99, b"\x04abc", false),
            (13, b"\x01a\x01b", true),
            (13, b"\x01a", false),
            (13, b"\x01a\x01b\0", false),
            (257, b"\0\x05issueca.example", true),
            (257, b"\0\x05issu", false),
        ] {
            assert_eq!(
                is_right_in(rr_type, data),
                expected,
                "type {rr_type}: {data:?}"
            );
        }
    }

    #[test]
    fn bitmaps_and_parameters_end_within_the_data() {
        for (rr_type, data, expected) in [
            (47, &b"\0\0\x01\x40\x01\x01\x80"[..], true),
            (47, b"\0\0\x02\x40", false),
            (47, b"\0\0\0", false),
            (47, b"\0\0", false),
            (50, b"\x01\0\0\0\0\x04hash\0\x01\x40", true),
            (50, b"\x01\0\0\0\x02s", false),
            (51, b"\x01\0\0\0\x01s", true),
            (51, b"\x01\0\0\0\x01", false),
            (
                65,
                b"\0\x01\0\0\x01\0\x03\x02h2\0\x04\0\x04\x01\x02\x03\x04",
                true,
            ),
            (65, b"\0\x01\0\0\x01\0\x03\x02h", false),
            (65, b"\0\x01\0\0\x01\0", false),
        ] {
            assert_eq!(
                is_right_in(rr_type, data),
                expected,
                "type {rr_type}: {data:?}"
            );
        }
    }

    #[test]
    fn data_of_unknown_types_is_opaque() {
        for data in [&b""[..], b"\xc0\x00", b"\xff"] {
            assert!(is_right_in(65_280, data) && is_right_in(10, data));
            // A record of a dynamic update may have no data.
            assert!(is_right(2, 255, data));
        }
    }
}
