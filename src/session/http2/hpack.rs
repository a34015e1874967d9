//! HPACK decoding (RFC 7541): header blocks in, fields out.
//!
//! The dynamic table may always have 4,096 bytes, the initial value of
//! `SETTINGS_HEADER_TABLE_SIZE`, even if less is announced: clients send their first requests
//! before they have read the settings, and some servers acknowledge a smaller value without
//! applying it. The table allocates memory with its first entry.

use std::ops::Range;

use super::huffman;
use super::static_table::STATIC_TABLE;

/// Maximum size of the dynamic table, in bytes as RFC 7541 counts them.
pub(super) const TABLE_LEN_MAX: usize = 4096;

/// The size of a field in addition to its name and value (RFC 7541, section 4.1).
pub(super) const FIELD_OVERHEAD: usize = 32;

/// The shifts of the bytes that continue an integer. A longer integer exceeds every limit.
const SHIFTS: [u32; 4] = [0, 7, 14, 21];

/// An error in a header block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HpackError {
    /// The block is malformed.
    Invalid,
    /// The header list exceeds its maximum length.
    TooLong,
}

/// The decoder of a connection.
#[derive(Debug, Default)]
pub(super) struct HpackDecoder {
    table: DynamicTable,
}

impl HpackDecoder {
    /// Decodes a whole header block and passes the name and the value of each field to `on_field`.
    /// `list_len_max` limits the length of the header list, with 32 more bytes for each field.
    pub(super) fn decode(
        &mut self,
        block: &[u8],
        list_len_max: usize,
        on_field: &mut dyn FnMut(&[u8], &[u8]),
    ) -> Result<(), HpackError> {
        let mut reader = BlockReader { bytes: block };
        let mut scratch = Vec::new();
        let mut len_left = list_len_max;
        let mut emit = |name: &[u8], value: &[u8]| {
            let len = name.len() + value.len() + FIELD_OVERHEAD;
            len_left = len_left.checked_sub(len).ok_or(HpackError::TooLong)?;
            on_field(name, value);
            Ok(())
        };
        let mut may_resize = true;
        while let Some(first) = reader.bytes.first().copied() {
            if first & 0xe0 == 0x20 {
                let len_max = reader.integer(5)?;
                if !may_resize || len_max > TABLE_LEN_MAX {
                    return Err(HpackError::Invalid);
                }
                self.table.resize(len_max);
                continue;
            }
            may_resize = false;
            if first & 0x80 != 0 {
                let index = reader.integer(7)?;
                let (name, value) = self.table.field(index).ok_or(HpackError::Invalid)?;
                emit(name, value)?;
                continue;
            }
            // A literal with or without indexing.
            let is_indexed = first & 0x40 != 0;
            let name_index = reader.integer(if is_indexed { 6 } else { 4 })?;
            scratch.clear();
            let name = self.literal_name(name_index, &mut reader, &mut scratch)?;
            let value = reader.string(&mut scratch)?;
            let (name, value) = (name.get(&scratch), value.get(&scratch));
            emit(name, value)?;
            if is_indexed {
                self.table.insert(name, value);
            }
        }
        Ok(())
    }

    /// Returns the name of a literal field: the one with an index, or a string if the index is 0.
    fn literal_name<'a>(
        &self,
        index: usize,
        reader: &mut BlockReader<'a>,
        scratch: &mut Vec<u8>,
    ) -> Result<BlockText<'a>, HpackError> {
        if index == 0 {
            return reader.string(scratch);
        }
        if let Some((name, _)) = static_field(index) {
            return Ok(BlockText::Bytes(name));
        }
        // The new entry may remove the entry with its name from the table.
        let (name, _) = self.table.field(index).ok_or(HpackError::Invalid)?;
        scratch.extend_from_slice(name);
        Ok(BlockText::Scratch(0..scratch.len()))
    }

    /// Returns the number of allocated bytes.
    pub(super) fn allocated_len(&self) -> usize {
        self.table.bytes.capacity() + self.table.lens.capacity() * size_of::<(u16, u16)>()
    }
}

/// The unread part of a header block.
struct BlockReader<'a> {
    bytes: &'a [u8],
}

impl<'a> BlockReader<'a> {
    fn byte(&mut self) -> Result<u8, HpackError> {
        let (byte, rest) = self.bytes.split_first().ok_or(HpackError::Invalid)?;
        self.bytes = rest;
        Ok(*byte)
    }

    /// Reads an integer with a prefix of `prefix_len` bits (RFC 7541, section 5.1).
    fn integer(&mut self, prefix_len: u32) -> Result<usize, HpackError> {
        let mask = (1 << prefix_len) - 1;
        let mut value = usize::from(self.byte()?) & mask;
        if value < mask {
            return Ok(value);
        }
        for shift in SHIFTS {
            let byte = self.byte()?;
            value += usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(HpackError::Invalid)
    }

    /// Reads a string (RFC 7541, section 5.2). Appends it to `scratch` if it is Huffman-coded.
    fn string(&mut self, scratch: &mut Vec<u8>) -> Result<BlockText<'a>, HpackError> {
        let first = self.bytes.first().ok_or(HpackError::Invalid)?;
        let is_huffman = first & 0x80 != 0;
        let len = self.integer(7)?;
        let bytes = self.bytes.get(..len).ok_or(HpackError::Invalid)?;
        self.bytes = self.bytes.get(len..).unwrap_or_default();
        if !is_huffman {
            return Ok(BlockText::Bytes(bytes));
        }
        let start = scratch.len();
        huffman::decode(bytes, scratch).map_err(|_| HpackError::Invalid)?;
        Ok(BlockText::Scratch(start..scratch.len()))
    }
}

/// A name or a value of a literal field.
enum BlockText<'a> {
    /// Bytes of the block or of the static table.
    Bytes(&'a [u8]),
    /// Decoded or copied bytes.
    Scratch(Range<usize>),
}

impl BlockText<'_> {
    fn get<'a>(&'a self, scratch: &'a [u8]) -> &'a [u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Scratch(range) => scratch.get(range.clone()).unwrap_or_default(),
        }
    }
}

fn static_field(index: usize) -> Option<(&'static [u8], &'static [u8])> {
    let (name, value) = STATIC_TABLE.get(index.checked_sub(1)?)?;
    Some((name.as_bytes(), value.as_bytes()))
}

/// The dynamic table (RFC 7541, section 2.3.2).
#[derive(Debug)]
struct DynamicTable {
    /// The names and values of the entries, the oldest first.
    bytes: Vec<u8>,
    /// The lengths of the name and the value of each entry, the oldest first.
    lens: Vec<(u16, u16)>,
    /// Maximum size, as RFC 7541 counts it.
    len_max: usize,
}

impl Default for DynamicTable {
    fn default() -> Self {
        Self {
            bytes: Vec::new(),
            lens: Vec::new(),
            len_max: TABLE_LEN_MAX,
        }
    }
}

impl DynamicTable {
    /// Returns the field with an index in the static or the dynamic table.
    fn field(&self, index: usize) -> Option<(&[u8], &[u8])> {
        if let Some(field) = static_field(index) {
            return Some(field);
        }
        let age = index.checked_sub(STATIC_TABLE.len() + 1)?;
        let newer = self.lens.len().checked_sub(age)?;
        let (name_len, value_len) = self.lens.get(newer.checked_sub(1)?)?;
        let newer_len: usize = self.lens.get(newer..)?.iter().copied().map(entry_len).sum();
        let end = self.bytes.len().checked_sub(newer_len)?;
        let value_at = end.checked_sub(usize::from(*value_len))?;
        let name_at = value_at.checked_sub(usize::from(*name_len))?;
        Some((
            self.bytes.get(name_at..value_at)?,
            self.bytes.get(value_at..end)?,
        ))
    }

    /// Adds an entry, or clears the table if the entry is larger than the table may be.
    fn insert(&mut self, name: &[u8], value: &[u8]) {
        let len = name.len() + value.len() + FIELD_OVERHEAD;
        self.evict(self.len_max.saturating_sub(len));
        let lens = (u16::try_from(name.len()), u16::try_from(value.len()));
        if len <= self.len_max
            && let (Ok(name_len), Ok(value_len)) = lens
        {
            self.reserve(name.len() + value.len());
            self.bytes.extend_from_slice(name);
            self.bytes.extend_from_slice(value);
            self.lens.push((name_len, value_len));
        }
    }

    /// Makes space for `additional` bytes. The capacity doubles, but stays within the maximum.
    fn reserve(&mut self, additional: usize) {
        let (len, capacity) = (self.bytes.len(), self.bytes.capacity());
        if capacity < len + additional {
            let wanted = (2 * capacity).clamp(len + additional, TABLE_LEN_MAX);
            self.bytes.reserve_exact(wanted - len);
        }
    }

    fn resize(&mut self, len_max: usize) {
        self.len_max = len_max;
        self.evict(len_max);
        if self.lens.is_empty() {
            (self.bytes, self.lens) = (Vec::new(), Vec::new());
        }
    }

    /// Removes the oldest entries until the others have at most `len_max` bytes.
    fn evict(&mut self, len_max: usize) {
        let mut len = self.bytes.len() + self.lens.len() * FIELD_OVERHEAD;
        let (mut entries, mut bytes) = (0, 0);
        for lens in self.lens.iter().copied() {
            if len <= len_max {
                break;
            }
            entries += 1;
            bytes += entry_len(lens);
            len = len.saturating_sub(entry_len(lens) + FIELD_OVERHEAD);
        }
        self.lens.drain(..entries);
        self.bytes.drain(..bytes);
    }
}

/// Returns the length of the name and the value of an entry.
fn entry_len((name_len, value_len): (u16, u16)) -> usize {
    usize::from(name_len) + usize::from(value_len)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn table_is_that_of_a_simple_model(
            steps in prop::collection::vec((0..120_usize, 0..600_usize, 0..40_u8), 0..200)
        ) {
            let (mut table, mut model, mut len_max) = (DynamicTable::default(), vec![], 4096);
            for (name_len, value_len, kind) in steps {
                if kind == 0 {
                    len_max = 7 * value_len;
                    table.resize(len_max);
                } else {
                    let field = (vec![kind; name_len], vec![kind + 40; value_len]);
                    table.insert(&field.0, &field.1);
                    model.insert(0, field);
                }
                let mut len = 0;
                model.retain(|(name, value)| {
                    len += name.len() + value.len() + FIELD_OVERHEAD;
                    len <= len_max
                });
                for (index, (name, value)) in (62..).zip(&model) {
                    prop_assert_eq!(table.field(index), Some((&name[..], &value[..])));
                }
                prop_assert_eq!(table.field(62 + model.len()), None);
                prop_assert!(table.bytes.capacity() <= TABLE_LEN_MAX);
            }
        }
    }

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
        let pairs = digits
            .chunks(2)
            .map(|pair| std::str::from_utf8(pair).unwrap());
        pairs
            .map(|pair| u8::from_str_radix(pair, 16).unwrap())
            .collect()
    }

    fn list(decoder: &mut HpackDecoder, block: &[u8]) -> Result<String, HpackError> {
        let mut list = String::new();
        decoder.decode(block, 8192, &mut |name, value| {
            list.push_str(std::str::from_utf8(name).unwrap());
            list.push_str(": ");
            list.push_str(std::str::from_utf8(value).unwrap());
            list.push('\n');
        })?;
        Ok(list)
    }

    fn table(decoder: &HpackDecoder) -> (usize, usize) {
        let table = &decoder.table;
        let len = table.bytes.len() + table.lens.len() * FIELD_OVERHEAD;
        (table.lens.len(), len)
    }

    const REQUESTS: [&str; 3] = [
        ":method: GET\n:scheme: http\n:path: /\n:authority: www.example.com\n",
        ":method: GET\n:scheme: http\n:path: /\n:authority: www.example.com\n\
         cache-control: no-cache\n",
        ":method: GET\n:scheme: https\n:path: /index.html\n:authority: www.example.com\n\
         custom-key: custom-value\n",
    ];

    const RESPONSES: [&str; 3] = [
        ":status: 302\ncache-control: private\ndate: Mon, 21 Oct 2013 20:13:21 GMT\n\
         location: https://www.example.com\n",
        ":status: 307\ncache-control: private\ndate: Mon, 21 Oct 2013 20:13:21 GMT\n\
         location: https://www.example.com\n",
        ":status: 200\ncache-control: private\ndate: Mon, 21 Oct 2013 20:13:22 GMT\n\
         location: https://www.example.com\ncontent-encoding: gzip\n\
         set-cookie: foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1\n",
    ];

    #[test]
    fn literals_and_indexes_are_those_of_rfc_7541_appendix_c_2() {
        for (block, expected, entries) in [
            (
                "400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572",
                "custom-key: custom-header\n",
                (1, 55),
            ),
            (
                "040c 2f73 616d 706c 652f 7061 7468",
                ":path: /sample/path\n",
                (0, 0),
            ),
            (
                "1008 7061 7373 776f 7264 0673 6563 7265 74",
                "password: secret\n",
                (0, 0),
            ),
            ("82", ":method: GET\n", (0, 0)),
        ] {
            let mut decoder = HpackDecoder::default();
            assert_eq!(list(&mut decoder, &bytes(block)).as_deref(), Ok(expected));
            assert_eq!(table(&decoder), entries);
        }
    }

    #[test]
    fn requests_are_those_of_rfc_7541_appendix_c_3_and_c_4() {
        let plain = [
            "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
            "8286 84be 5808 6e6f 2d63 6163 6865",
            "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
        ];
        let huffman = [
            "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
            "8286 84be 5886 a8eb 1064 9cbf",
            "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
        ];
        for blocks in [plain, huffman] {
            let mut decoder = HpackDecoder::default();
            let lists = blocks.map(|block| list(&mut decoder, &bytes(block)).unwrap());
            assert_eq!(lists, REQUESTS);
            assert_eq!(table(&decoder), (3, 164));
        }
    }

    #[test]
    fn responses_are_those_of_rfc_7541_appendix_c_5_and_c_6() {
        let plain = [
            "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 \
             2032 303a 3133 3a32 3120 474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70 \
             6c65 2e63 6f6d",
            "4803 3330 37c1 c0bf",
            "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d \
             54c0 5a04 677a 6970 7738 666f 6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049 \
             5541 5851 5745 4f49 553b 206d 6178 2d61 6765 3d33 3630 303b 2076 6572 7369 6f6e \
             3d31",
        ];
        let huffman = [
            "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 \
             2d1b ff6e 919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
            "4883 640e ffc1 c0bf",
            "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab \
             77ad 94e7 821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f \
             9587 3160 65c0 03ed 4ee5 b106 3d50 07",
        ];
        for blocks in [plain, huffman] {
            // The examples have a table of 256 bytes, so that entries are evicted.
            let mut decoder = HpackDecoder::default();
            assert_eq!(list(&mut decoder, &bytes("3f e101")).as_deref(), Ok(""));
            let lists = blocks.map(|block| list(&mut decoder, &bytes(block)).unwrap());
            assert_eq!(lists, RESPONSES);
            assert_eq!(table(&decoder), (3, 215));
        }
    }

    #[test]
    fn invalid_blocks_are_errors() {
        for block in [
            "80",                // index 0
            "be",                // an entry that is not there
            "ff 80 80 80 80 00", // an integer that is too long
            "ff ff ff ff 7f",    // an index of 28 bits
            "7f",                // an integer without its end
            "40",                // no name
            "40 01",             // a name that is too short
            "40 01 61 02 61",    // a value that is too short
            "7e 01 61",          // the name of an entry that is not there
            "40 81 06 00",       // a Huffman code with wrong padding
            "82 20",             // a size update behind a field
            "3f e2 1f",          // a size update to 4,097
        ] {
            let result = list(&mut HpackDecoder::default(), &bytes(block));
            assert_eq!(result, Err(HpackError::Invalid), "{block}");
        }
    }

    #[test]
    fn size_updates_clear_and_limit_the_table() {
        let mut decoder = HpackDecoder::default();
        let field = bytes("40 01 61 01 62");
        list(&mut decoder, &field).unwrap();
        assert_eq!(list(&mut decoder, &bytes("be")).as_deref(), Ok("a: b\n"));
        list(&mut decoder, &bytes("20 3f e1 1f")).unwrap();
        assert_eq!((table(&decoder), decoder.allocated_len()), ((0, 0), 0));
        assert_eq!(list(&mut decoder, &bytes("be")), Err(HpackError::Invalid));
        // Tables of 68, 67, 34 and 33 bytes.
        for (update, entries) in [("3f 25", 2), ("3f 24", 1), ("3f 03", 1), ("3f 02", 0)] {
            list(&mut decoder, &bytes(update)).unwrap();
            for _ in 0..3 {
                list(&mut decoder, &field).unwrap();
            }
            assert_eq!(table(&decoder).0, entries);
        }
    }

    #[test]
    fn entry_with_the_name_of_an_evicted_entry_is_added() {
        let mut decoder = HpackDecoder::default();
        let block = "3f 12 40 03 61 62 63 01 64 7e 02 65 66 be";
        let expected = "abc: d\nabc: ef\nabc: ef\n";
        assert_eq!(list(&mut decoder, &bytes(block)).as_deref(), Ok(expected));
        assert_eq!(table(&decoder), (1, 37));
    }

    #[test]
    fn memory_of_the_table_is_bounded() {
        let mut decoder = HpackDecoder::default();
        for len in (0..4070).chain([1; 200]).chain([5000]) {
            decoder.table.insert(b"a", &vec![b'b'; len]);
            assert!(table(&decoder).1 <= TABLE_LEN_MAX);
            assert!(decoder.allocated_len() <= TABLE_LEN_MAX + 512, "{len}");
        }
        assert_eq!(table(&decoder), (0, 0));
    }

    #[test]
    fn header_list_is_bounded() {
        for (len_max, is_ok) in [(85, true), (84, false)] {
            let mut fields = 0;
            let mut decoder = HpackDecoder::default();
            let result = decoder.decode(&bytes("82 86"), len_max, &mut |_, _| fields += 1);
            assert_eq!(result.is_ok(), is_ok);
            assert_eq!(
                (fields == 2, result == Err(HpackError::TooLong)),
                (is_ok, !is_ok)
            );
        }
    }
}
