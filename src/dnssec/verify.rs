//! The cryptography of DNSSEC: signatures and digests, by `ring`.

pub use crate::config::trust_anchor::{is_algorithm_supported, is_digest_supported};

use ring::digest::{Algorithm, Digest, SHA1_FOR_LEGACY_USE_ONLY, SHA256, SHA384};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519,
    RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY, RSA_PKCS1_1024_8192_SHA512_FOR_LEGACY_USE_ONLY,
    RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm,
};

use crate::config::trust_anchor::{has_supported_rsa_len, rsa_parts};

/// Algorithms (RFC 5702, 6605, 8080).
const RSA_SHA256: u8 = 8;
const RSA_SHA512: u8 = 10;
const ECDSA_P256: u8 = 13;
const ECDSA_P384: u8 = 14;
const ED_25519: u8 = 15;

/// Digests of DS records (RFC 4509, 6605).
const DIGEST_SHA256: u8 = 2;
const DIGEST_SHA384: u8 = 4;

/// The reason why a signature is not good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignatureError {
    /// The algorithm, or the length of the key, is not supported.
    Unsupported,
    /// The signature does not fit the key and the bytes.
    Wrong,
}

/// Returns whether signatures of a key can be verified. Short RSA keys are treated like an unknown
/// algorithm.
pub fn is_key_supported(algorithm: u8, public_key: &[u8]) -> bool {
    match algorithm {
        RSA_SHA256 | RSA_SHA512 => rsa_parts(public_key).is_some_and(has_supported_rsa_len),
        _ => is_algorithm_supported(algorithm),
    }
}

/// Returns the digest of `bytes`, or `None` if the type is not supported.
pub fn digest(digest_type: u8, bytes: &[u8]) -> Option<Digest> {
    Some(ring::digest::digest(digest_algorithm(digest_type)?, bytes))
}

/// Returns the number of bytes of a digest, or `None` if the type is not supported.
pub fn digest_len(digest_type: u8) -> Option<usize> {
    Some(digest_algorithm(digest_type)?.output_len())
}

fn digest_algorithm(digest_type: u8) -> Option<&'static Algorithm> {
    match digest_type {
        DIGEST_SHA256 => Some(&SHA256),
        DIGEST_SHA384 => Some(&SHA384),
        _ => None,
    }
}

/// Length of a SHA-1 digest in bytes.
pub const SHA1_LEN: usize = 20;

/// Returns the SHA-1 digest of `bytes`, which hashes the names of NSEC3 records (RFC 5155).
pub fn sha1(bytes: &[u8]) -> [u8; SHA1_LEN] {
    let mut hash = [0; SHA1_LEN];
    hash.copy_from_slice(ring::digest::digest(&SHA1_FOR_LEGACY_USE_ONLY, bytes).as_ref());
    hash
}

/// Returns the cost of one verification, in units of an RSA-2048 verification with the usual
/// exponent 65,537 (20 µs on x86-64).
pub fn cost(algorithm: u8, public_key: &[u8]) -> u32 {
    match algorithm {
        ECDSA_P256 => 3,
        ECDSA_P384 => 40,
        ED_25519 => 2,
        _ => rsa_parts(public_key).map_or(1, |(exponent, modulus)| {
            let of_modulus = if modulus.len() > 256 { 4 } else { 1 };
            let of_exponent = if exponent.len() > 3 { 4 } else { 1 };
            of_modulus * of_exponent
        }),
    }
}

/// Verifies a signature over `signed` by a key of this algorithm, in the form of a DNSKEY record.
///
/// # Errors
///
/// Returns the reason if the signature is wrong or cannot be verified.
pub fn verify(
    algorithm: u8,
    public_key: &[u8],
    signed: &[u8],
    signature: &[u8],
) -> Result<(), SignatureError> {
    match algorithm {
        RSA_SHA256 => verify_rsa(
            &RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY,
            public_key,
            signed,
            signature,
        ),
        RSA_SHA512 => verify_rsa(
            &RSA_PKCS1_1024_8192_SHA512_FOR_LEGACY_USE_ONLY,
            public_key,
            signed,
            signature,
        ),
        ECDSA_P256 => verify_point(&ECDSA_P256_SHA256_FIXED, public_key, signed, signature),
        ECDSA_P384 => verify_point(&ECDSA_P384_SHA384_FIXED, public_key, signed, signature),
        ED_25519 => verify_with(&ED25519, public_key, signed, signature),
        _ => Err(SignatureError::Unsupported),
    }
}

/// Verifies an ECDSA signature. The key is a point without the byte that says so (RFC 6605,
/// section 4).
fn verify_point(
    algorithm: &'static dyn VerificationAlgorithm,
    public_key: &[u8],
    signed: &[u8],
    signature: &[u8],
) -> Result<(), SignatureError> {
    let point = [&[4], public_key].concat();
    verify_with(algorithm, &point, signed, signature)
}

fn verify_with(
    algorithm: &'static dyn VerificationAlgorithm,
    public_key: &[u8],
    signed: &[u8],
    signature: &[u8],
) -> Result<(), SignatureError> {
    let key = UnparsedPublicKey::new(algorithm, public_key);
    key.verify(signed, signature)
        .map_err(|_| SignatureError::Wrong)
}

fn verify_rsa(
    parameters: &'static RsaParameters,
    public_key: &[u8],
    signed: &[u8],
    signature: &[u8],
) -> Result<(), SignatureError> {
    let parts = rsa_parts(public_key).ok_or(SignatureError::Wrong)?;
    if !has_supported_rsa_len(parts) {
        return Err(SignatureError::Unsupported);
    }
    let (exponent, modulus) = parts;
    let components = RsaPublicKeyComponents {
        n: modulus,
        e: exponent,
    };
    let verified = components.verify(parameters, signed, signature);
    verified.map_err(|_| SignatureError::Wrong)
}
