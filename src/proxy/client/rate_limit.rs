//! How often a client may ask.
//!
//! A client has a stock of queries that fills up at a constant rate; the moment when it is full
//! says how much there is, so that is all that is kept of a client. There is room for a fixed
//! number of them. Where it is short, the client with the fullest stock is forgotten, which gives
//! it little: those that flood stay, however many addresses they forge.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::time::Duration;

use crate::base::origin::Subscriber;
use crate::base::random::SEED_LEN;
use crate::base::time::Instant;
use crate::config::RateLimit;

/// Sets of clients: each client belongs to one, by its hash.
const SETS: usize = 512;

/// Clients of a set that are known at the same time.
const SET_LEN: usize = 8;

/// What to do with a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum Verdict {
    /// Its client is within the limit.
    Within,
    /// Tell the client to come in a way that shows that its address is its own.
    Slip,
    /// Nothing.
    Drop,
}

/// A client. Those who have shown that the address is their own are apart, so that nobody who
/// forges it uses up what they may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Client {
    subscriber: Subscriber,
    is_proven: bool,
}

/// What is known of a client.
#[derive(Clone, Copy, Debug)]
struct Known {
    client: Client,
    /// When its stock is full.
    full_at: Instant,
    /// Whether it had no answer to the last query beyond the limit.
    is_slip_next: bool,
}

/// Clients and how much they have asked of late.
#[derive(Debug)]
pub(in crate::proxy) struct RateLimiter {
    /// From one query to the next, at the rate.
    interval: Duration,
    /// What a full stock takes to fill.
    stock: Duration,
    hasher: DefaultHasher,
    known: Box<[[Option<Known>; SET_LEN]]>,
}

impl RateLimiter {
    /// Nobody has asked. The seed keeps others from choosing addresses with equal hashes.
    pub(in crate::proxy) fn new(limit: RateLimit, seed: &[u8; SEED_LEN]) -> Self {
        let mut hasher = DefaultHasher::new();
        hasher.write(seed);
        let interval = Duration::from_secs(1) / limit.per_second;
        Self {
            interval,
            stock: interval * limit.burst,
            hasher,
            known: vec![[None; SET_LEN]; SETS].into_boxed_slice(),
        }
    }

    /// Judges a query that has just come from this address, which is proven to be its sender's or
    /// is not.
    pub(in crate::proxy) fn judge(&mut self, ip: IpAddr, is_proven: bool, now: Instant) -> Verdict {
        let (interval, stock) = (self.interval, self.stock);
        let subscriber = Subscriber::of(ip);
        let client = Client {
            subscriber,
            is_proven,
        };
        let known = self.known_of(client, now);
        let full_at = known.full_at.max(now) + interval;
        if full_at - now <= stock {
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

    /// Returns when a client that has proven its address is within the limit again, if it has
    /// exceeded it.
    pub(in crate::proxy) fn exceeded_until(
        &self,
        subscriber: Subscriber,
        now: Instant,
    ) -> Option<Instant> {
        let is_proven = true;
        let client = Client {
            subscriber,
            is_proven,
        };
        let mut known = self.known[self.set_of(client)].iter().flatten();
        let known = known.find(|known| known.client == client)?;
        let with_another = known.full_at + self.interval - now;
        let beyond = with_another.checked_sub(self.stock)?;
        (!beyond.is_zero()).then(|| now + beyond)
    }

    fn set_of(&self, client: Client) -> usize {
        let mut hasher = self.hasher.clone();
        client.hash(&mut hasher);
        let remainder = hasher.finish() % SETS as u64;
        usize::try_from(remainder).expect("it is small")
    }

    fn known_of(&mut self, client: Client, now: Instant) -> &mut Known {
        let set = self.set_of(client);
        let set = &mut self.known[set];
        let is_its_own = |slot: &Option<Known>| slot.is_some_and(|known| known.client == client);
        let place = set.iter().position(is_its_own).unwrap_or_else(|| {
            let fullest = |place: &usize| set[*place].map(|known| known.full_at);
            let place = (0..SET_LEN).min_by_key(fullest).expect("there are some");
            set[place] = None;
            place
        });
        set[place].get_or_insert(Known {
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

    /// Queries within the limit, of so many at once.
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
        // Whoever floods has the rate all the same.
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
    fn client_that_is_told_when_it_may_ask_may_ask_then() {
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
        // The queries of another client, or of one that forges its address, are none of its own.
        let other = Subscriber::of(ip("192.0.2.2"));
        assert_eq!(limiter.exceeded_until(other, now), None);
        assert_eq!(within(&mut limiter, 9, "192.0.2.3", now), 5);
        let forged = Subscriber::of(ip("192.0.2.3"));
        assert_eq!(limiter.exceeded_until(forged, now), None);
    }

    #[test]
    fn clients_are_addresses_of_ipv4_and_networks_of_ipv6() {
        let mut limiter = limiter(1, 1);
        assert_eq!(within(&mut limiter, 1, "192.0.2.1", at(0)), 1);
        assert_eq!(within(&mut limiter, 1, "::ffff:192.0.2.1", at(0)), 0);
        assert_eq!(within(&mut limiter, 1, "192.0.2.2", at(0)), 1);
        assert_eq!(within(&mut limiter, 1, "2001:db8:1:1ff::1", at(0)), 1);
        assert_eq!(within(&mut limiter, 1, "2001:db8:1:101::2", at(0)), 0);
        assert_eq!(within(&mut limiter, 1, "2001:db8:1:200::1", at(0)), 1);
    }

    #[test]
    fn whoever_forges_an_address_takes_nothing_from_its_owner() {
        let mut limiter = limiter(1, 1);
        assert_eq!(within(&mut limiter, 9, "192.0.2.1", at(0)), 1);
        let mut own = || limiter.judge(ip("192.0.2.1"), true, at(0));
        assert_eq!(own(), Verdict::Within);
        assert_eq!(own(), Verdict::Drop);
    }

    #[test]
    fn forged_addresses_do_not_help_whoever_floods() {
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
