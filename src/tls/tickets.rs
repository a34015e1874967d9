//! Session tickets of clients with certificates.
//!
//! A resumed session is not verified again: rustls restores the client's certificate from the
//! ticket. A ticket is therefore refused once a certificate in it has expired, and the client must
//! present a valid certificate in a full handshake.

use std::sync::Arc;
use std::time::Duration;

use rustls::server::ProducesTickets;
use rustls::time_provider::TimeProvider;

use super::certificate::expires_at;

/// A ticketer that refuses tickets after the client's certificate has expired.
#[derive(Debug)]
pub(super) struct ExpiringTickets {
    pub(super) tickets: Arc<dyn ProducesTickets>,
    pub(super) clock: Arc<dyn TimeProvider>,
}

impl ProducesTickets for ExpiringTickets {
    fn enabled(&self) -> bool {
        self.tickets.enabled()
    }

    fn lifetime(&self) -> u32 {
        self.tickets.lifetime()
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.tickets.encrypt(plain)
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        let plain = self.tickets.decrypt(cipher)?;
        let now = Duration::from_secs(self.clock.current_time()?.as_secs());
        let ends_at = certificates(&plain)?.try_fold(Duration::MAX, |end, certificate| {
            Some(end.min(expires_at(certificate?)?))
        })?;
        (now < ends_at).then_some(plain)
    }
}

/// Returns the client certificates in a session as rustls writes it into a ticket, at least one.
/// Returns `None` if there is none or the session cannot be parsed; the tests of resumption fail if
/// an update of rustls changes the format.
fn certificates(session: &[u8]) -> Option<impl Iterator<Item = Option<&[u8]>>> {
    let mut rest = session;
    if take(&mut rest, 1)? == [1] {
        // The server name.
        take_with_length(&mut rest, 1)?;
    }
    // The version and the cipher suite; the secret; the flag of an extended master secret.
    take(&mut rest, 4)?;
    take_with_length(&mut rest, 1)?;
    take(&mut rest, 1)?;
    if take(&mut rest, 1)? != [1] {
        return None;
    }
    let mut list = take_with_length(&mut rest, 3)?;
    if list.is_empty() {
        return None;
    }
    Some(std::iter::from_fn(move || {
        (!list.is_empty()).then(|| {
            let certificate = take_with_length(&mut list, 3);
            if certificate.is_none() {
                list = &[];
            }
            certificate
        })
    }))
}

fn take<'a>(rest: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(len)?;
    *rest = left;
    Some(taken)
}

/// Removes a field with a length prefix of `len_len` bytes.
fn take_with_length<'a>(rest: &mut &'a [u8], len_len: usize) -> Option<&'a [u8]> {
    let len = take(rest, len_len)?.iter();
    let len = len.fold(0, |len, byte| len << 8 | usize::from(*byte));
    take(rest, len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};
    use rustls::pki_types::UnixTime;

    /// Tickets that are not encrypted.
    #[derive(Debug)]
    struct PlainTickets;

    impl ProducesTickets for PlainTickets {
        fn enabled(&self) -> bool {
            true
        }

        fn lifetime(&self) -> u32 {
            60
        }

        fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
            Some(plain.to_vec())
        }

        fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
            Some(cipher.to_vec())
        }
    }

    /// A clock with a fixed time.
    #[derive(Debug)]
    struct At(Duration);

    impl TimeProvider for At {
        fn current_time(&self) -> Option<UnixTime> {
            Some(UnixTime::since_unix_epoch(self.0))
        }
    }

    /// Returns a certificate that expires at the start of a year.
    fn certificate(year: i32) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.not_after = date_time_ymd(year, 1, 1);
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    fn session(name: Option<&[u8]>, chain: &[&[u8]]) -> Vec<u8> {
        let mut session = match name {
            Some(name) => [&[1, u8::try_from(name.len()).unwrap()], name].concat(),
            None => vec![0],
        };
        session.extend(b"\x03\x04\x13\x01\x04abcd\x01");
        let mut list = Vec::new();
        for certificate in chain {
            list.extend(&u32::try_from(certificate.len()).unwrap().to_be_bytes()[1..]);
            list.extend_from_slice(certificate);
        }
        if chain.is_empty() {
            session.push(0);
        } else {
            session.push(1);
            session.extend(&u32::try_from(list.len()).unwrap().to_be_bytes()[1..]);
            session.extend(list);
        }
        session.extend([0; 15]);
        session
    }

    fn read(session: &[u8]) -> Option<Vec<&[u8]>> {
        certificates(session)?.collect()
    }

    #[test]
    fn certificates_of_a_session_are_found() {
        let chain: [&[u8]; 2] = [b"own", &[7; 1_000]];
        for name in [None, Some(&b"dot.example"[..])] {
            assert_eq!(read(&session(name, &chain)), Some(chain.to_vec()));
            assert_eq!(read(&session(name, &[])), None);
        }
        let whole = session(None, &chain);
        assert_eq!(read(&whole[..1_000]), None);
    }

    #[test]
    fn ticket_is_refused_once_a_certificate_in_it_has_expired() {
        let [early, late] = [2030, 2040].map(certificate);
        let ends_at = expires_at(&early).unwrap();
        let is_accepted = |chain: &[&[u8]], now| {
            let tickets = ExpiringTickets {
                tickets: Arc::new(PlainTickets),
                clock: Arc::new(At(now)),
            };
            let ticket = tickets.encrypt(&session(None, chain)).unwrap();
            tickets.decrypt(&ticket).is_some()
        };
        let before = ends_at.saturating_sub(Duration::from_secs(1));
        for chain in [
            &[&early[..]] as &[&[u8]],
            &[&early, &late],
            &[&late, &early],
        ] {
            assert!(is_accepted(chain, before) && !is_accepted(chain, ends_at));
        }
        assert!(is_accepted(&[&late], ends_at));
        assert!(!is_accepted(&[], before), "the client has no certificate");
        assert!(!is_accepted(&[b"no certificate"], before));
    }

    proptest! {
        #[test]
        fn any_session_is_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = read(&bytes);
        }
    }
}
