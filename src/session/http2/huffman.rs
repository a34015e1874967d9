//! The Huffman code of HPACK (RFC 7541, section 5.2 and appendix B), for decoding.
//!
//! The code is canonical: the codes of one length are consecutive numbers in the order of their
//! symbols, and they continue the codes of the lengths before. The number of codes of each length
//! and the order of the symbols are therefore the whole table.

/// An error: the bytes are not a valid Huffman-coded string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct InvalidHuffman;

/// The lengths of codes in bits, and the number of codes of each.
const CODES: [(u32, u32); 21] = [
    (5, 10),
    (6, 26),
    (7, 32),
    (8, 6),
    (10, 5),
    (11, 3),
    (12, 2),
    (13, 6),
    (14, 2),
    (15, 3),
    (19, 3),
    (20, 8),
    (21, 13),
    (22, 26),
    (23, 29),
    (24, 12),
    (25, 4),
    (26, 15),
    (27, 19),
    (28, 29),
    (30, 4),
];

/// The symbols in the order of their codes. The symbol behind the last one is EOS.
const SYMBOLS: &[u8; 256] = b"\
    012aceiost %-./3456789=A_bdfghlmnpru:BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz&*,;XZ!\"()?'+|#>\0$@[]~\
    ^}<`{\\\xc3\xd0\x80\x82\x83\xa2\xb8\xc2\xe0\xe2\x99\xa1\xa7\xac\xb0\xb1\xb3\xd1\xd8\xd9\xe3\
    \xe5\xe6\x81\x84\x85\x86\x88\x92\x9a\x9c\xa0\xa3\xa4\xa9\xaa\xad\xb2\xb5\xb9\xba\xbb\xbd\xbe\
    \xc4\xc6\xe4\xe8\xe9\x01\x87\x89\x8a\x8b\x8c\x8d\x8f\x93\x95\x96\x97\x98\x9b\x9d\x9e\xa5\xa6\
    \xa8\xae\xaf\xb4\xb6\xb7\xbc\xbf\xc5\xe7\xef\x09\x8e\x90\x91\x94\x9f\xab\xce\xd7\xe1\xec\xed\
    \xc7\xcf\xea\xeb\xc0\xc1\xc8\xc9\xca\xcd\xd2\xd5\xda\xdb\xee\xf0\xf2\xf3\xff\xcb\xcc\xd3\xd4\
    \xd6\xdd\xde\xdf\xf1\xf4\xf5\xf6\xf7\xf8\xfa\xfb\xfc\xfd\xfe\x02\x03\x04\x05\x06\x07\x08\x0b\
    \x0c\x0e\x0f\x10\x11\x12\x13\x14\x15\x17\x18\x19\x1a\x1b\x1c\x1d\x1e\x1f\x7f\xdc\xf9\x0a\x0d\
    \x16";

/// Appends the decoded string.
pub(super) fn decode(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), InvalidHuffman> {
    // The shortest codes have five bits.
    out.reserve(bytes.len() * 8 / 5);
    let mut bytes = bytes.iter();
    // The unread bits, at the high end, and their number.
    let (mut bits, mut len) = (0_u64, 0_u32);
    loop {
        while len <= 56
            && let Some(byte) = bytes.next()
        {
            bits |= u64::from(*byte) << (56 - len);
            len += 8;
        }
        let Some((symbol, code_len)) = next_symbol(bits, len) else {
            // The end is padded with less than a byte of ones.
            let is_padding = len < 8 && bits.leading_ones() >= len;
            return if is_padding {
                Ok(())
            } else {
                Err(InvalidHuffman)
            };
        };
        out.push(*SYMBOLS.get(symbol).ok_or(InvalidHuffman)?);
        bits <<= code_len;
        len -= code_len;
    }
}

/// Returns the position of the next symbol in [`SYMBOLS`] and the length of its code. Returns
/// `None` if the bits end before the code.
fn next_symbol(bits: u64, len: u32) -> Option<(usize, u32)> {
    let (mut first, mut position, mut last_len) = (0, 0, 0);
    for (code_len, count) in CODES {
        if code_len > len {
            return None;
        }
        first <<= code_len - last_len;
        let offset = (bits >> (64 - code_len)) - first;
        if offset < u64::from(count) {
            return Some((position + usize::try_from(offset).ok()?, code_len));
        }
        first += u64::from(count);
        position += usize::try_from(count).ok()?;
        last_len = code_len;
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Returns the Huffman-coded string.
    fn encoded(text: &[u8]) -> Vec<u8> {
        let mut codes = [(0_u64, 0_u32); 256];
        let (mut code, mut last_len, mut position) = (0, 0, 0);
        for (len, count) in CODES {
            code <<= len - last_len;
            last_len = len;
            for _ in 0..count {
                if let Some(symbol) = SYMBOLS.get(position) {
                    codes[usize::from(*symbol)] = (code, len);
                }
                (code, position) = (code + 1, position + 1);
            }
        }
        let (mut bytes, mut bits, mut bits_len) = (Vec::new(), 0_u64, 0);
        for symbol in text {
            let (code, len) = codes[usize::from(*symbol)];
            (bits, bits_len) = (bits << len | code, bits_len + len);
            while bits_len >= 8 {
                bits_len -= 8;
                bytes.push(u8::try_from(bits >> bits_len & 0xff).unwrap());
            }
        }
        if bits_len > 0 {
            let padding_len = 8 - bits_len;
            let last = bits << padding_len | ((1 << padding_len) - 1);
            bytes.push(u8::try_from(last & 0xff).unwrap());
        }
        bytes
    }

    proptest! {
        #[test]
        fn texts_are_decoded_as_encoded(text in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert_eq!(decoded(&encoded(&text)), Ok(text));
        }
    }

    #[test]
    fn all_symbols_are_decoded_as_encoded() {
        let text: Vec<u8> = (0..=255).chain((0..=255).rev()).collect();
        assert_eq!(decoded(&encoded(&text)), Ok(text));
        // RFC 7541, appendix C.4.1.
        let expected = [
            0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff,
        ];
        assert_eq!(encoded(b"www.example.com"), expected);
    }

    fn decoded(bytes: &[u8]) -> Result<Vec<u8>, InvalidHuffman> {
        let mut out = Vec::new();
        decode(bytes, &mut out).map(|()| out)
    }

    #[test]
    fn first_codes_of_all_lengths_are_those_of_the_rfc() {
        let (mut first, mut last_len, mut firsts) = (0_u32, 0, Vec::new());
        for (len, count) in CODES {
            first <<= len - last_len;
            firsts.push(first);
            (first, last_len) = (first + count, len);
        }
        let expected = [
            0,
            0x14,
            0x5c,
            0xf8,
            0x3f8,
            0x7fa,
            0xffa,
            0x1ff8,
            0x3ffc,
            0x7ffc,
            0x7_fff0,
            0xf_ffe6,
            0x1f_ffdc,
            0x3f_ffd2,
            0x7f_ffd8,
            0xff_ffea,
            0x1ff_ffec,
            0x3ff_ffe0,
            0x7ff_ffde,
            0xfff_ffe2,
            0x3fff_fffc,
        ];
        assert_eq!(firsts, expected);
        assert_eq!(first, 1 << 30, "the code is complete");
        let mut symbols = *SYMBOLS;
        symbols.sort_unstable();
        assert!(
            symbols
                .iter()
                .zip(0..=255)
                .all(|(own, symbol)| *own == symbol)
        );
    }

    #[test]
    fn every_symbol_is_decoded() {
        let (mut code, mut last_len, mut position) = (0_u64, 0, 0);
        for (len, count) in CODES {
            code <<= len - last_len;
            last_len = len;
            for _ in 0..count {
                let padding = 40 - len;
                let bits = (code << padding | ((1 << padding) - 1)).to_be_bytes();
                let bytes = &bits[3..3 + usize::try_from(len.div_ceil(8)).unwrap()];
                let symbol = SYMBOLS.get(position).map(|symbol| vec![*symbol]);
                assert_eq!(decoded(bytes).ok(), symbol, "{code:x}");
                (code, position) = (code + 1, position + 1);
            }
        }
    }

    #[test]
    fn padding_is_less_than_a_byte_of_ones() {
        assert_eq!(decoded(b""), Ok(vec![]));
        // The code of "0" is five zeros.
        assert_eq!(decoded(&[0b0000_0111]), Ok(b"0".to_vec()));
        for bytes in [
            &[0b0000_0110][..],
            &[0b0000_0000],
            &[0xff],
            &[0b0000_0111, 0xff],
        ] {
            assert_eq!(decoded(bytes), Err(InvalidHuffman), "{bytes:?}");
        }
        // EOS, also with symbols behind it.
        assert_eq!(decoded(&[0xff; 4]), Err(InvalidHuffman));
        assert_eq!(decoded(&[0xff; 8]), Err(InvalidHuffman));
    }
}
