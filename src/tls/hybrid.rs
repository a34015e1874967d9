//! X25519MLKEM768 (draft-ietf-tls-ecdhe-mlkem): a key exchange that stays secret if either X25519
//! or ML-KEM-768 (FIPS 203) is broken, so that a recording of today's connections cannot be
//! decrypted with a quantum computer later.
//!
//! ```text
//!   share of the client: ML-KEM encapsulation key (1184) | X25519 public key (32)
//!   share of the server: ML-KEM ciphertext (1088)        | X25519 public key (32)
//!   secret:              ML-KEM secret (32)              | X25519 secret (32)
//! ```
//!
//! The client also offers the X25519 key as a share of its own: a server without the hybrid group
//! uses it in the same round trip.

use std::sync::OnceLock;

use ml_kem::kem::{Ciphertext, Decapsulate, Key, KeyExport};
use ml_kem::{B32, DecapsulationKey, EncapsulationKey, MlKem768, Seed};
use rustls::crypto::ring::kx_group::X25519;
use rustls::crypto::{
    ActiveKeyExchange, CompletedKeyExchange, SecureRandom, SharedSecret, SupportedKxGroup, ring,
};
use rustls::ffdhe_groups::FfdheGroup;
use rustls::{Error, NamedGroup, PeerMisbehaved, ProtocolVersion};
use zeroize::Zeroizing;

/// The length of an X25519 public key, which ends each share.
const X25519_LEN: usize = 32;

const INVALID_SHARE: Error = Error::PeerMisbehaved(PeerMisbehaved::InvalidKeyShare);

/// Returns the group X25519MLKEM768.
pub(super) fn group() -> &'static dyn SupportedKxGroup {
    static HYBRID: OnceLock<Hybrid> = OnceLock::new();
    HYBRID.get_or_init(|| Hybrid {
        random: ring::default_provider().secure_random,
    })
}

/// The group X25519MLKEM768, with the source of its random numbers.
#[derive(Debug)]
struct Hybrid {
    random: &'static dyn SecureRandom,
}

impl SupportedKxGroup for Hybrid {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        let mut seed = Zeroizing::new(Seed::default());
        self.random.fill(&mut seed)?;
        let key = Box::new(DecapsulationKey::<MlKem768>::from_seed(*seed));
        let classical = X25519.start()?;
        let share = [&key.encapsulation_key().to_bytes()[..], classical.pub_key()].concat();
        Ok(Box::new(ActiveHybrid {
            key,
            classical,
            share,
        }))
    }

    fn start_and_complete(&self, client_share: &[u8]) -> Result<CompletedKeyExchange, Error> {
        let (key, classical_share) = split::<Key<EncapsulationKey<MlKem768>>>(client_share)?;
        let key = EncapsulationKey::<MlKem768>::new(&key).map_err(|_| INVALID_SHARE)?;
        let classical = X25519.start_and_complete(classical_share)?;
        let mut message = Zeroizing::new(B32::default());
        self.random.fill(&mut message)?;
        let (ciphertext, secret) = key.encapsulate_deterministic(&message);
        let secret = Zeroizing::new(secret);
        Ok(CompletedKeyExchange {
            group: NamedGroup::X25519MLKEM768,
            pub_key: [&ciphertext[..], &classical.pub_key].concat(),
            secret: joined(&secret, &classical.secret),
        })
    }

    fn ffdhe_group(&self) -> Option<FfdheGroup<'static>> {
        None
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::X25519MLKEM768
    }

    fn usable_for_version(&self, version: ProtocolVersion) -> bool {
        version == ProtocolVersion::TLSv1_3
    }
}

/// A key exchange that the client has begun. The secret keys are zeroised when it is dropped.
struct ActiveHybrid {
    key: Box<DecapsulationKey<MlKem768>>,
    classical: Box<dyn ActiveKeyExchange>,
    share: Vec<u8>,
}

impl ActiveKeyExchange for ActiveHybrid {
    fn complete(self: Box<Self>, server_share: &[u8]) -> Result<SharedSecret, Error> {
        let (ciphertext, classical_share) = split::<Ciphertext<MlKem768>>(server_share)?;
        let classical = self.classical.complete(classical_share)?;
        let secret = Zeroizing::new(self.key.decapsulate(&ciphertext));
        Ok(joined(&secret, &classical))
    }

    fn hybrid_component(&self) -> Option<(NamedGroup, &[u8])> {
        Some((self.classical.group(), self.classical.pub_key()))
    }

    fn complete_hybrid_component(
        self: Box<Self>,
        server_share: &[u8],
    ) -> Result<SharedSecret, Error> {
        self.classical.complete(server_share)
    }

    fn pub_key(&self) -> &[u8] {
        &self.share
    }

    fn ffdhe_group(&self) -> Option<FfdheGroup<'static>> {
        None
    }

    fn group(&self) -> NamedGroup {
        NamedGroup::X25519MLKEM768
    }
}

/// Splits a share into the part of ML-KEM, which has the length of `T`, and the X25519 public key.
fn split<'a, T: TryFrom<&'a [u8]>>(share: &'a [u8]) -> Result<(T, &'a [u8]), Error> {
    let post_quantum_len = share.len().checked_sub(X25519_LEN).ok_or(INVALID_SHARE)?;
    let (post_quantum, classical) = share.split_at(post_quantum_len);
    let post_quantum = T::try_from(post_quantum).map_err(|_| INVALID_SHARE)?;
    Ok((post_quantum, classical))
}

/// Returns the secret of both parts.
fn joined(post_quantum: &[u8], classical: &SharedSecret) -> SharedSecret {
    // `SharedSecret` zeroises this allocation, which does not grow.
    SharedSecret::from([post_quantum, classical.secret_bytes()].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT_SHARE_LEN: usize = 1_184 + X25519_LEN;
    const SERVER_SHARE_LEN: usize = 1_088 + X25519_LEN;

    #[test]
    fn both_sides_compute_the_same_secret() {
        let client = group().start().expect("the system has random numbers");
        assert_eq!(client.pub_key().len(), CLIENT_SHARE_LEN);
        let server = group().start_and_complete(client.pub_key());
        let server = server.expect("the share is valid");
        assert_eq!(server.group, NamedGroup::X25519MLKEM768);
        assert_eq!(server.pub_key.len(), SERVER_SHARE_LEN);
        let secret = client.complete(&server.pub_key);
        let secret = secret.expect("the share is valid");
        assert_eq!(secret.secret_bytes().len(), 64);
        assert_eq!(secret.secret_bytes(), server.secret.secret_bytes());
        let other = group().start().expect("the system has random numbers");
        let other = group().start_and_complete(other.pub_key());
        let other = other.expect("the share is valid");
        assert_ne!(secret.secret_bytes(), other.secret.secret_bytes());
    }

    #[test]
    fn each_part_decides_the_secret() {
        for changed in [0, SERVER_SHARE_LEN - X25519_LEN] {
            let client = group().start().expect("the system has random numbers");
            let server = group().start_and_complete(client.pub_key());
            let mut server = server.expect("the share is valid");
            server.pub_key[changed] ^= 1;
            let secret = client.complete(&server.pub_key);
            let secret = secret.expect("the share has the right form");
            assert_ne!(secret.secret_bytes(), server.secret.secret_bytes());
        }
    }

    #[test]
    fn server_without_the_group_uses_the_x25519_share() {
        let client = group().start().expect("the system has random numbers");
        let (name, share) = client.hybrid_component().expect("there is a classic share");
        assert_eq!(name, NamedGroup::X25519);
        assert_eq!(share, &client.pub_key()[CLIENT_SHARE_LEN - X25519_LEN..]);
        let server = X25519.start_and_complete(share);
        let server = server.expect("the share is valid");
        let secret = client.complete_hybrid_component(&server.pub_key);
        let secret = secret.expect("the share is valid");
        assert_eq!(secret.secret_bytes(), server.secret.secret_bytes());
    }

    #[test]
    fn share_of_a_wrong_form_is_refused() {
        let share = || {
            let client = group().start().expect("the system has random numbers");
            client.pub_key().to_vec()
        };
        let is_refused_by_server =
            |share: &[u8]| group().start_and_complete(share).err() == Some(INVALID_SHARE);
        for len in [0, 1, 31, 32, 33, 1_184, CLIENT_SHARE_LEN - 1] {
            assert!(is_refused_by_server(&share()[..len]), "{len}");
        }
        assert!(is_refused_by_server(&[&share()[..], &[0]].concat()));
        // A coefficient of the encapsulation key is 3,329 or more (FIPS 203, section 7.2), and the
        // X25519 key is a point of low order.
        for (part, byte) in [
            (0..3, 0xff),
            (1_149..1_152, 0xff),
            (1_184..CLIENT_SHARE_LEN, 0),
        ] {
            let mut share = share();
            share[part].fill(byte);
            assert!(group().start_and_complete(&share).is_err(), "{byte}");
        }
        for len in [
            0,
            31,
            32,
            33,
            1_088,
            SERVER_SHARE_LEN - 1,
            SERVER_SHARE_LEN + 1,
        ] {
            let client = group().start().expect("the system has random numbers");
            let secret = client.complete(&vec![9; len]);
            assert_eq!(secret.err(), Some(INVALID_SHARE), "{len}");
        }
    }

    #[test]
    fn group_is_for_tls_1_3_only() {
        let group = group();
        assert!(group.usable_for_version(ProtocolVersion::TLSv1_3));
        assert!(!group.usable_for_version(ProtocolVersion::TLSv1_2));
    }
}
