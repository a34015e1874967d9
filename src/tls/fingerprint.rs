//! A digest of the rules for a peer's certificate and of the certificate that we present to the
//! peer.
//!
//! A connection with another fingerprint than the current one was authenticated by other rules.

use ring::digest::{Context, Digest, SHA256, digest};
use rustls::RootCertStore;
use rustls::pki_types::TrustAnchor;

use super::files::Credentials;
use crate::config::{PinRule, Pins};

/// The digest for a connection, as of its handshake.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fingerprint(Digest);

impl PartialEq for Fingerprint {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_ref() == other.0.as_ref()
    }
}

impl Fingerprint {
    /// Returns the fingerprint for an upstream with these pins to which we present `credentials`.
    pub(super) fn of_upstream(
        roots: &RootCertStore,
        pins: &Pins,
        credentials: Option<&Credentials>,
    ) -> Self {
        let mut context = Context::new(&SHA256);
        // An upstream with pins instead of a chain needs no authority.
        if pins.rule != PinRule::Instead {
            add_roots(&mut context, roots);
        }
        context.update(&[pins.rule as u8]);
        for pin in &pins.pins {
            add(&mut context, &pin.0);
        }
        if let Some(Credentials { chain, key }) = credentials {
            for certificate in chain {
                add(&mut context, certificate);
            }
            add(&mut context, key.secret_der());
        }
        Self(context.finish())
    }

    /// Returns the fingerprint for clients that need a certificate from one of these authorities.
    pub(super) fn of_clients(roots: &RootCertStore) -> Self {
        let mut context = Context::new(&SHA256);
        add_roots(&mut context, roots);
        Self(context.finish())
    }
}

/// Adds authorities, independently of their order and repetitions in a file.
fn add_roots(context: &mut Context, roots: &RootCertStore) {
    let mut digests: Vec<Digest> = roots.roots.iter().map(digest_of).collect();
    digests.sort_unstable_by(|one, other| one.as_ref().cmp(other.as_ref()));
    digests.dedup_by(|one, other| one.as_ref() == other.as_ref());
    for digest in &digests {
        context.update(digest.as_ref());
    }
    // The number separates the digests of authorities from the next fields.
    add(context, &digests.len().to_be_bytes());
}

fn digest_of(root: &TrustAnchor<'_>) -> Digest {
    let mut fields = Vec::new();
    for field in [&root.subject, &root.subject_public_key_info] {
        fields.extend_from_slice(&field.len().to_be_bytes());
        fields.extend_from_slice(field);
    }
    if let Some(constraints) = &root.name_constraints {
        fields.extend_from_slice(constraints);
    }
    digest(&SHA256, &fields)
}

fn add(context: &mut Context, field: &[u8]) {
    context.update(&field.len().to_be_bytes());
    context.update(field);
}
