//! The rate limit of clients.
//!
//! A client has a token bucket that fills at a constant rate; a query takes one token. The time at
//! which the bucket is full determines the number of its tokens, so only this time is stored per
//! client. There is room for a fixed number of clients. If there is no room, the client with the
//! fullest bucket is forgotten, which gains it little: clients that flood stay known, however many
//! addresses they forge.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::time::Duration;

use crate::base::origin::Subscriber;
use crate::base::random::SEED_LEN;
use crate::base::time::Instant;
use crate::config::RateLimit;

/// The number of sets of clients. A client belongs to one set, by its hash.
const SETS: usize = 512;

/// The number of clients per set that are known at the same time.
const SET_LEN: usize = 8;

/// The verdict on a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum Verdict {
    /// The client is within the limit.
    Within,
    /// The client should prove its address.
    Slip,
    /// The query is dropped.
    Drop,
}

/// The key of a client. Clients that have proven their address are kept apart, so that an attacker
/// that forges the address does not use up their limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct ClientKey {
    subscriber: Subscriber,
    is_proven: bool,
}

/// The state of a client.
#[derive(Clone, Copy, Debug)]
struct Known {
    client: ClientKey,
    /// The time at which the bucket is full.
    full_at: Instant,
    /// The last query beyond the limit was dropped.
    is_slip_next: bool,
}

/// The rate limiter: clients and their token buckets.
#[derive(Debug)]
pub(in crate::proxy) struct RateLimiter {
    /// The time in which a bucket gains a token.
    interval: Duration,
    /// The time in which an empty bucket fills.
    fill_time: Duration,
    hasher: DefaultHasher,
    known: Box<[[Option<Known>; SET_LEN]]>,
}

impl RateLimiter {
    /// Creates a rate limiter without clients. The seed prevents clients from choosing addresses
    /// with equal hashes.
    pub(in crate::proxy) fn new(limit: RateLimit, seed: &[u8; SEED_LEN]) -> Self {
        let mut hasher = DefaultHasher::new();
        hasher.write(seed);
        let interval = Duration::from_secs(1) / limit.per_second;
        Self {
            interval,
            fill_time: interval * limit.burst,
            hasher,
            known: vec![[None; SET_LEN]; SETS].into_boxed_slice(),
        }
    }

    /// Judges a query from this address. `is_proven`: the sender has proven its address.
    pub(in crate::proxy) fn judge(&mut self, ip: IpAddr, is_proven: bool, now: Instant) -> Verdict {
        let (interval, fill_time) = (self.interval, self.fill_time);
        let subscriber = Subscriber::of(ip);
        let client = ClientKey {
            subscriber,
            is_proven,
        };
        let known = self.known_of(client, now);
        let full_at = known.full_at.max(now) + interval;
        if full_at - now <= fill_time {
            known.full_at = full_at;
            return Verdict::Within;
        }
        known.is_slip_next = !known.is_slip_next;
        if known.is_slip_next {
            Verdict::Drop
        } else {
            Verdict::Slip
        }
    }

    /// Returns the time at which a client that has proven its address is within the limit again, if
    /// the client exceeds it.
    pub(in crate::proxy) fn exceeded_until(
        &self,
        subscriber: Subscriber,
        now: Instant,
    ) -> Option<Instant> {
        let is_proven = true;
        let client = ClientKey {
            subscriber,
            is_proven,
        };
        let mut known = self.known[self.set_of(client)].iter().flatten();
        let known = known.find(|known| known.client == client)?;
        let with_another = known.full_at + self.interval - now;
        let beyond = with_another.checked_sub(self.fill_time)?;
        (!beyond.is_zero()).then(|| now + beyond)
    }

    fn set_of(&self, client: ClientKey) -> usize {
        let mut hasher = self.hasher.clone();
        client.hash(&mut hasher);
        let remainder = hasher.finish() % SETS as u64;
        usize::try_from(remainder).expect("a remainder is below the number of sets")
    }

    fn known_of(&mut self, client: ClientKey, now: Instant) -> &mut Known {
        let set = self.set_of(client);
        let set = &mut self.known[set];
        let is_same = |slot: &Option<Known>| slot.is_some_and(|known| known.client == client);
        let index = set.iter().position(is_same).unwrap_or_else(|| {
            let fullest = |index: &usize| set[*index].map(|known| known.full_at);
            let index = (0..SET_LEN)
                .min_by_key(fullest)
                .expect("a set is not empty");
            set[index] = None;
            index
        });
        set[index].get_or_insert(Known {
            client,
            full_at: now,
            is_slip_next: false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limiter(per_second: u32, burst: u32) -> RateLimiter {
        RateLimiter::new(RateLimit { per_second, burst }, &[7; SEED_LEN])
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn at(milliseconds: u64) -> Instant {
        Instant::default() + Duration::from_millis(milliseconds)
    }

    /// Returns the number of queries within the limit, of `queries` at once.
    fn within(limiter: &mut RateLimiter, queries: usize, client: &str, now: Instant) -> usize {
        let verdicts = (0..queries).map(|_| limiter.judge(ip(client), false, now));
        verdicts
            .filter(|verdict| *verdict == Verdict::Within)
            .count()
    }

    #[test]
    fn client_has_its_burst_and_then_its_rate() {
        let mut limiter = limiter(100, 50);
        assert_eq!(within(&mut limiter, 200, "192.0.2.1", at(1_000)), 50);
        assert_eq!(within(&mut limiter, 200, "192.0.2.1", at(1_009)), 0);
        assert_eq!(within(&mut limiter, 200, "192.0.2.1", at(1_010)), 1);
        assert_eq!(within(&mut limiter, 200, "192.0.2.1", at(1_110)), 10);
        assert_eq!(within(&mut limiter, 200, "192.0.2.1", at(60_000)), 50);
        // A client that floods still has the rate.
        let flooded: usize = (0..10_000)
            .map(|ms| within(&mut limiter, 20, "192.0.2.1", at(100_000 + ms)))
            .sum();
        assert_eq!(flooded, 50 + 999);
    }

    #[test]
    fn every_second_query_beyond_the_limit_slips() {
        let mut limiter = limiter(1, 1);
        let verdicts: Vec<_> = (0..5)
            .map(|_| limiter.judge(ip("192.0.2.1"), false, at(0)))
            .collect();
        let [first, rest @ ..] = &verdicts[..] else {
            panic!("none");
        };
        assert_eq!(*first, Verdict::Within);
        let (drop, slip) = (Verdict::Drop, Verdict::Slip);
        assert_eq!(rest, [drop, slip, drop, slip]);
    }

    #[test]
    fn client_may_ask_at_the_time_that_exceeded_until_returns() {
        let mut limiter = limiter(10, 5);
        let client = Subscriber::of(ip("192.0.2.1"));
        let mut now = at(1_000);
        for nth in 0..50 {
            if let Some(until) = limiter.exceeded_until(client, now) {
                assert!(nth >= 5 && until - now == Duration::from_millis(100));
                now = until;
            }
            assert_eq!(limiter.exceeded_until(client, now), None);
            assert_eq!(limiter.judge(ip("192.0.2.1"), true, now), Verdict::Within);
        }
        assert_eq!(now, at(1_000 + 45 * 100));
        // Queries of another client, or with a forged address, do not count.
        let other = Subscriber::of(ip("192.0.2.2"));
        assert_eq!(limiter.exceeded_until(other, now), None);
        assert_eq!(within(&mut limiter, 9, "192.0.2.3", now), 5);
        let forged = Subscriber::of(ip("192.0.2.3"));
        assert_eq!(limiter.exceeded_until(forged, now), None);
    }

    #[test]
    fn client_is_an_ipv4_address_or_an_ipv6_network() {
        let mut limiter = limiter(1, 1);
        assert_eq!(within(&mut limiter, 1, "192.0.2.1", at(0)), 1);
        assert_eq!(within(&mut limiter, 1, "::ffff:192.0.2.1", at(0)), 0);
        assert_eq!(within(&mut limiter, 1, "192.0.2.2", at(0)), 1);
        assert_eq!(within(&mut limiter, 1, "2001:db8:1:1ff::1", at(0)), 1);
        assert_eq!(within(&mut limiter, 1, "2001:db8:1:101::2", at(0)), 0);
        assert_eq!(within(&mut limiter, 1, "2001:db8:1:200::1", at(0)), 1);
    }

    #[test]
    fn forged_address_does_not_use_up_the_limit_of_its_owner() {
        let mut limiter = limiter(1, 1);
        assert_eq!(within(&mut limiter, 9, "192.0.2.1", at(0)), 1);
        let mut own = || limiter.judge(ip("192.0.2.1"), true, at(0));
        assert_eq!(own(), Verdict::Within);
        assert_eq!(own(), Verdict::Drop);
    }

    #[test]
    fn forged_addresses_do_not_help_a_client_that_floods() {
        let mut limiter = limiter(100, 100);
        let mut flooded = within(&mut limiter, 200, "192.0.2.1", at(0));
        for forged in 0..200_000_u32 {
            let other = IpAddr::V4((0x0a00_0000 + forged).into());
            let now = at(u64::from(forged) / 200);
            assert_eq!(limiter.judge(other, false, now), Verdict::Within);
            flooded += within(&mut limiter, 1, "192.0.2.1", now);
        }
        assert_eq!(flooded, 100 + 99);
        assert!(size_of_val(&*limiter.known) <= 128 * 1024);
    }
}
