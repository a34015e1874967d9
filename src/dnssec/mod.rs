//! DNSSEC signatures, keys and digests (RFC 4033 to 4035, 6840): functions over the records of a
//! message, and the validation of a message from the trust anchors down. No part performs I/O.
//! Every byte that they read may come from an attacker until its signature is verified.
//!
//! - [`rrset`]: the RRsets of a message, with their signatures
//! - [`signature`]: RRSIG, and the bytes that it signs
//! - [`key`]: DNSKEY and DS
//! - [`verify`]: the cryptography, by `ring`
//! - [`denial`]: the proofs of NSEC and NSEC3 records
//! - [`denial_cache`]: the aggressive use of NSEC and NSEC3 records (RFC 8198)
//! - [`anchors`]: the trust anchors, and the domains that are not validated
//! - [`clock`]: the time by which signatures are judged
//! - [`zones`]: the known zones, with their keys
//! - [`validation`]: the validation of a message, in steps
//! - [`limits`]: the limits of the validation of a message
//! - [`work`]: the work for an answer to a client, with all questions of its validation

pub mod anchors;
pub mod clock;
pub mod denial;
pub mod denial_cache;
pub mod key;
pub mod limits;
mod nsec3;
pub mod rrset;
pub mod signature;
pub mod type_bitmap;
pub mod validation;
pub mod verify;
pub mod work;
pub mod zones;

pub use key::{Dnskey, Ds};
pub use rrset::RrSet;
pub use signature::Rrsig;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
