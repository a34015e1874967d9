//! The limits of the validation of one message: whatever a server chooses, the validation verifies,
//! hashes, compares and asks for a bounded number of things. A message that exceeds a limit is
//! indeterminate, unless the limit says otherwise.
//!
//! The limits of all validations together are in [`Limits`](crate::config::Limits).

/// Maximum number of RRsets of a message. An ordinary answer has fewer than ten.
pub const RRSETS: usize = 24;

/// Maximum number of steps to compare the owner names of a message.
pub(super) const OWNER_COMPARISON_STEPS: usize = 1 << 14;

/// Maximum number of signatures of an RRset that are kept. Others are ignored.
pub const SIGNATURES_OF_RRSET: usize = 32;

/// Maximum number of signatures of an answer to a client that are verified (`KeyTrap`,
/// CVE-2023-50387).
pub const SIGNATURES: u8 = 16;

/// Maximum number of signatures of an answer with DS or DNSKEY records that are verified: one of
/// the records, or three of a denial, and a few wrong ones.
pub const SIGNATURES_OF_QUESTION: u8 = 8;

/// Maximum cost of an answer to a client with all questions of its validation, in units of an
/// RSA-2048 verification (20 µs on x86-64): 25 signatures of P-384, or 333 of P-256. A chain of 40
/// zones takes 80 signatures.
pub const COST_OF_ANSWER: u32 = 1_000;

/// After this number of wrong signatures, no further signature is verified.
pub const WRONG_SIGNATURES: u8 = 2;

/// Maximum number of DNSKEY and DS questions that a message needs: those for every label of a
/// reverse name of IPv6, and a few more.
pub const QUESTIONS: u8 = 40;

/// Maximum number of DNSKEY and DS questions that are asked for an answer to a client: those that
/// the answer needs, and those that their answers need in turn, such as the keys of eight zones.
pub const QUESTIONS_OF_ANSWER: u8 = 64;

/// Maximum number of these questions that are asked at once.
pub(super) const QUESTIONS_AT_ONCE: usize = 4;

/// Maximum number of DS records of a zone that are considered. Others are ignored.
pub(super) const DS_OF_ZONE: usize = 16;

/// Maximum number of DNSKEY records of a zone.
pub(super) const KEYS_OF_ZONE: usize = 32;

/// Maximum number of bytes of a DNSKEY record. A longer one has no supported key, and would cost
/// many digests; it is ignored.
pub(super) const KEY_LEN: usize = 2_100;

/// Maximum number of records of an RRset that is verified: each is copied with its whole owner and
/// sorted.
pub(super) const RECORDS_OF_SET: usize = 1_024;

/// Number of signed bytes for which a verification costs one unit more: records are copied with
/// whole names, and hashed.
pub(super) const BYTES_OF_COST: usize = 4_096;

/// Maximum number of bytes of the DNSKEY records of a zone: eleven RSA keys of 4,096 bits. The
/// smallest table of known zones has room for them.
pub(super) const KEYS_OF_ZONE_LEN: usize = 6_144;

/// Maximum number of digests of keys that are compared with the DS records of a zone.
pub(super) const DIGESTS_OF_ZONE: usize = 32;

/// Maximum number of aliases from the name in the question.
pub(super) const ALIASES: usize = 16;

/// Maximum number of additional iterations of NSEC3. Zones with more are insecure (RFC 9276,
/// section 3.2).
pub(super) const NSEC3_ITERATIONS: u16 = 50;

/// Maximum number of hash computations for the NSEC3 proofs of a message, over all names and
/// iterations (CVE-2023-50868): 8 names with the most iterations, or all ancestors of a name with
/// few.
pub const NSEC3_HASH_ROUNDS: usize = 8 * (NSEC3_ITERATIONS as usize + 1);

/// The number of blocks of SHA-1 that take as long as an RSA-2048 verification.
pub(super) const HASHED_BLOCKS_OF_COST: usize = 100;

/// Maximum number of names that are hashed for a denial from the denial cache: the closest encloser
/// of a name is seldom farther above it.
pub(super) const DENIAL_CACHE_HASHES: usize = 8;
