//! DNSSEC signatures, keys and digests (RFC 4033 to 4035, 6840): functions over the records of a
//! message. They ask no question, know no clock and keep no state. Every byte that they read may
//! come from an attacker until its signature is verified. No query is validated with them yet.
//!
//! - [`rrset`]: the RRsets of a message, with their signatures
//! - [`signature`]: RRSIG, and the bytes that it signs
//! - [`key`]: DNSKEY and DS
//! - [`verify`]: the cryptography, by `ring`
//! - [`denial`]: the proofs of NSEC and NSEC3 records

pub mod denial;
pub mod key;
mod nsec3;
pub mod rrset;
pub mod signature;
pub mod type_bitmap;
pub mod verify;

pub use key::{Dnskey, Ds};
pub use rrset::RrSet;
pub use signature::Rrsig;

#[cfg(test)]
mod tests;
