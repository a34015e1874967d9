//! A digest of everything that a peer is judged by and of the certificate that it is shown.
//!
//! A connection that was made with another fingerprint than the current one was judged by other
//! rules.

use ring::digest::{Context, Digest, SHA256, digest};
use rustls::RootCertStore;
use rustls::pki_types::TrustAnchor;

use super::files::Credentials;
use crate::config::{PinRule, Pins};

/// What the peers of a connection trusted when it was made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fingerprint(Digest);

impl PartialEq for Fingerprint {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_ref() == other.0.as_ref()
    }
}

impl Fingerprint {
    /// The fingerprint of an upstream with these pins that is shown `credentials`.
    pub(super) fn of_upstream(
        roots: &RootCertStore,
        pins: &Pins,
        credentials: Option<&Credentials>,
    ) -> Self {
        let mut context = Context::new(&SHA256);
        // An upstream that is known by its pin alone needs no authority.
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

    /// The fingerprint of clients that need a certificate of one of these authorities.
    pub(super) fn of_clients(roots: &RootCertStore) -> Self {
        let mut context = Context::new(&SHA256);
        add_roots(&mut context, roots);
        Self(context.finish())
    }
}

/// Adds authorities, in whatever order and however often a file names them.
fn add_roots(context: &mut Context, roots: &RootCertStore) {
    let mut digests: Vec<Digest> = roots.roots.iter().map(digest_of).collect();
    digests.sort_unstable_by(|one, other| one.as_ref().cmp(other.as_ref()));
    digests.dedup_by(|one, other| one.as_ref() == other.as_ref());
    for digest in &digests {
        context.update(digest.as_ref());
    }
    // Digests of authorities are not to be taken for what follows.
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
