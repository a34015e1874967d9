//! DNS cookies, which prove that a client has received a response at its address (RFC 7873).
//!
//! The server cookie is made and verified as in RFC 9018, except for the clock: only this process
//! reads it, so it counts from an arbitrary start. The secret rolls over (RFC 9018, section 5):
//! cookies of the old secret stay valid until they expire.

use std::hash::Hasher;
use std::net::IpAddr;
use std::time::Duration;

use siphasher::sip::SipHasher24;

use crate::base::random::Random;
use crate::base::time::Instant;
use crate::wire::edns::Cookie;
use crate::wire::response::COOKIE_LEN;

/// Time after which a cookie expires (RFC 9018, section 4.3).
const LIFETIME: Duration = Duration::from_secs(3600);

/// Time for which cookies are made with one secret, which is to be used for no more than 26 hours
/// (RFC 7873, section 7.1): the secret rolls over daily. Cookies of the old secret stay valid until
/// they expire after an hour.
const SECRET_PERIOD: Duration = Duration::from_secs(24 * 3600);

/// The version and the reserved bytes (RFC 9018, section 4.1 and 4.2).
const VERSION: [u8; 4] = [1, 0, 0, 0];

/// The length of a server cookie in bytes.
const SERVER_LEN: usize = 16;

/// The state of DNS cookies.
#[derive(Debug)]
pub(in crate::proxy) struct Cookies {
    /// The hash with the current secret.
    hasher: SipHasher24,
    /// The hash with the previous secret, which verifies older cookies.
    retired: Option<SipHasher24>,
    /// The time since which the current secret is in use.
    rolled_at: Instant,
    /// A random offset of the clock, which hides the uptime of the host.
    epoch: u32,
}

impl Cookies {
    /// Creates the state with a secret that is in use since the clock's start.
    pub(in crate::proxy) fn new(random: &mut Random) -> Self {
        let hasher = secret(random);
        // Two numbers are drawn, as for a secret: recorded seeds keep their meaning.
        let [epoch, _] = [random.next_u32(), random.next_u32()];
        Self {
            hasher,
            retired: None,
            rolled_at: Instant::default(),
            epoch,
        }
    }

    /// Replaces the secret if it has been in use for its period.
    pub(in crate::proxy) fn roll_over(&mut self, random: &mut Random, now: Instant) {
        if now - self.rolled_at >= SECRET_PERIOD {
            self.retired = Some(std::mem::replace(&mut self.hasher, secret(random)));
            self.rolled_at = now;
        }
    }

    /// Returns a cookie for the client at this address.
    pub(in crate::proxy) fn issue(
        &self,
        cookie: Cookie<'_>,
        ip: IpAddr,
        now: Instant,
    ) -> [u8; COOKIE_LEN] {
        let made = self.seconds(now);
        let server = server_part(self.hasher, cookie.client, ip, made);
        let mut whole = [0; COOKIE_LEN];
        let (client_part, server_part) = whole.split_at_mut(cookie.client.len());
        client_part.copy_from_slice(&cookie.client);
        server_part.copy_from_slice(&server);
        whole
    }

    /// Returns whether the cookie was issued to this address and has not expired.
    pub(in crate::proxy) fn is_ours(&self, cookie: Cookie<'_>, ip: IpAddr, now: Instant) -> bool {
        let Some(Ok(server)) = cookie.server.map(<[u8; SERVER_LEN]>::try_from) else {
            return false;
        };
        // The time is behind the version.
        let mut made = [0; size_of::<u32>()];
        made.copy_from_slice(&server[VERSION.len()..8]);
        let made = u32::from_be_bytes(made);
        let age = u64::from(self.seconds(now).wrapping_sub(made));
        // The cookies are compared as numbers, so that the time does not depend on their
        // difference.
        let is_made_with = |hasher| {
            let ours = server_part(hasher, cookie.client, ip, made);
            u128::from_be_bytes(server) == u128::from_be_bytes(ours)
        };
        // Both times count in whole seconds from the same start.
        let since_rolled = u64::from(self.seconds(now).wrapping_sub(self.seconds(self.rolled_at)));
        let is_retired = |hasher| age >= since_rolled && is_made_with(hasher);
        age <= LIFETIME.as_secs()
            && (is_made_with(self.hasher) || self.retired.is_some_and(is_retired))
    }

    fn seconds(&self, now: Instant) -> u32 {
        let since_start = now - Instant::default();
        let seconds = u32::try_from(since_start.as_secs()).unwrap_or(u32::MAX);
        self.epoch.wrapping_add(seconds)
    }
}

fn secret(random: &mut Random) -> SipHasher24 {
    SipHasher24::new_with_keys(random.next_u64(), random.next_u64())
}

/// Returns the server cookie that is made at this time: version, time, and a hash of both, of the
/// client cookie and of the client's address.
fn server_part(
    mut hasher: SipHasher24,
    client: [u8; 8],
    ip: IpAddr,
    made: u32,
) -> [u8; SERVER_LEN] {
    let mut part = [0; SERVER_LEN];
    let (start, hash) = part.split_at_mut(8);
    start[..4].copy_from_slice(&VERSION);
    start[4..].copy_from_slice(&made.to_be_bytes());
    hasher.write(&client);
    hasher.write(start);
    match ip.to_canonical() {
        IpAddr::V4(ip) => hasher.write(&ip.octets()),
        IpAddr::V6(ip) => hasher.write(&ip.octets()),
    }
    hash.copy_from_slice(&hasher.finish().to_le_bytes());
    part
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes_of<const LEN: usize>(hex: &str) -> [u8; LEN] {
        assert_eq!(hex.len(), 2 * LEN);
        std::array::from_fn(|at| u8::from_str_radix(&hex[2 * at..][..2], 16).unwrap())
    }

    fn cookies(key: &str, epoch: u32) -> Cookies {
        Cookies {
            hasher: SipHasher24::new_with_key(&bytes_of(key)),
            retired: None,
            rolled_at: at(0),
            epoch,
        }
    }

    fn cookie(whole: &[u8]) -> Cookie<'_> {
        let (client, server) = whole.split_first_chunk().unwrap();
        Cookie {
            client: *client,
            server: (!server.is_empty()).then_some(server),
        }
    }

    fn at(seconds: u64) -> Instant {
        Instant::default() + Duration::from_secs(seconds)
    }

    #[test]
    fn cookies_match_the_examples_of_rfc_9018() {
        // RFC 9018, appendix A.1 and A.2.
        let v4 = cookies("e5e973e5a6b2a43f48e7dc849e37bfcf", 1_559_731_985);
        let ip = "198.51.100.100".parse().unwrap();
        let first = bytes_of("2464c4abcf10c957010000005cf79f111f8130c3eee29480");
        assert_eq!(v4.issue(cookie(&first[..8]), ip, at(0)), first);
        assert!(v4.is_ours(cookie(&first), ip, at(2_400)));
        let renewed = bytes_of("2464c4abcf10c957010000005cf7a871d4a564a1442aca77");
        assert_eq!(v4.issue(cookie(&first), ip, at(2_400)), renewed);
        // A.4.
        let ip = "2001:db8:220:1:59de:d0f4:8769:82b8".parse().unwrap();
        let before = cookies("dd3bdf9344b678b185a6f5cb60fca715", 1_559_741_817);
        let first = bytes_of("22681ab97d52c298010000005cf7c57926556bd0934c72f8");
        assert_eq!(before.issue(cookie(&first[..8]), ip, at(0)), first);
        let after = cookies("445536bcd2513298075a5d379663c962", 1_559_741_961);
        let renewed = bytes_of("22681ab97d52c298010000005cf7c609a6bb79d16625507a");
        assert_eq!(after.issue(cookie(&first), ip, at(0)), renewed);
    }

    #[test]
    fn cookie_is_valid_for_an_hour_at_its_address_and_unchanged() {
        let cookies = cookies("e5e973e5a6b2a43f48e7dc849e37bfcf", u32::MAX - 5);
        let ip = "192.0.2.1".parse().unwrap();
        let good = cookies.issue(cookie(b"client's"), ip, at(10));
        assert!(cookies.is_ours(cookie(&good), ip, at(10)));
        assert!(cookies.is_ours(cookie(&good), "::ffff:192.0.2.1".parse().unwrap(), at(10)));
        assert!(cookies.is_ours(cookie(&good), ip, at(3_610)));
        assert!(!cookies.is_ours(cookie(&good), ip, at(3_611)));
        assert!(
            !cookies.is_ours(cookie(&good), ip, at(9)),
            "a cookie from the future is invalid"
        );
        assert!(!cookies.is_ours(cookie(&good), "192.0.2.2".parse().unwrap(), at(10)));
        for index in 0..good.len() {
            let mut other = good;
            other[index] ^= 1;
            assert!(!cookies.is_ours(cookie(&other), ip, at(10)), "{index}");
        }
        assert!(!cookies.is_ours(cookie(&good[..8]), ip, at(10)));
        assert!(!cookies.is_ours(cookie(&good[..23]), ip, at(10)));
        let long = [&good[..], &[0; 16]].concat();
        assert!(!cookies.is_ours(cookie(&long), ip, at(10)));
    }

    #[test]
    fn cookies_of_a_retired_secret_are_valid_until_they_expire() {
        let mut random = Random::new(&[5; 32]);
        let mut cookies = Cookies::new(&mut random);
        let ip = "192.0.2.1".parse().unwrap();
        let day = SECRET_PERIOD.as_secs();
        let before = cookies.issue(cookie(b"client's"), ip, at(day - 1));
        cookies.roll_over(&mut random, at(day - 1));
        let same = cookies.issue(cookie(b"client's"), ip, at(day - 1));
        assert_eq!(before, same, "not yet");

        let rolled_at = day + 100;
        cookies.roll_over(&mut random, at(rolled_at));
        assert!(cookies.is_ours(cookie(&before), ip, at(rolled_at)));
        assert!(cookies.is_ours(cookie(&before), ip, at(day - 1 + 3_600)));
        assert!(!cookies.is_ours(cookie(&before), ip, at(day + 3_600)));
        let after = cookies.issue(cookie(&before), ip, at(rolled_at));
        assert!(cookies.is_ours(cookie(&after), ip, at(rolled_at + 3_600)));

        // A retired secret makes no new cookies.
        let retired = Cookies {
            hasher: cookies.retired.expect("the secret was rolled over"),
            retired: None,
            ..cookies
        };
        let forged = retired.issue(cookie(b"client's"), ip, at(rolled_at + 1));
        assert!(!cookies.is_ours(cookie(&forged), ip, at(rolled_at + 1)));
    }
}
