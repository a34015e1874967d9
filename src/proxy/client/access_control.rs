//! Access control of a client: the access control list (ACL), its cookie and the rate limit.

use std::net::IpAddr;

use super::admission::{Admission, ClientTransport, DENIED, Decision, admit};
use super::rate_limit::Verdict;
use super::response::{Client, Completion};
use crate::base::origin::Origin;
use crate::base::time::Instant;
use crate::proxy::Proxy;
use crate::proxy::actions::{Cx, Outbox};
use crate::proxy::outcome::Outcome;
use crate::wire::Message;

impl Proxy {
    /// Handles a message from a client. Returns whether a response follows: every query gets one
    /// unless the rate limit drops it.
    pub fn handle_query(
        &mut self,
        origin: Origin,
        transport: ClientTransport,
        message: &[u8],
        now: Instant,
        outbox: &mut Outbox,
    ) -> bool {
        let cx = &mut Cx { now, outbox };
        let parsed = Message::parse(message);
        let Some(mut admission) = admit(message, parsed.as_ref().ok(), transport) else {
            self.counters.ignored += 1;
            return false;
        };
        let client = Client {
            origin,
            protocol: transport.protocol(),
            received_at: transport.received_at(cx.now),
            is_traced: self.draws_trace(),
        };
        self.counters.count_query(client.protocol);
        let ip = origin.peer.ip();
        let has_our_cookie = self.verify_and_issue_cookie(&mut admission, ip, cx.now);
        let asked = &mut admission.asked;
        let is_allowed = self.config.access.allows(ip);
        if !is_allowed && transport == ClientTransport::Udp {
            // The address may be forged: the response must not be larger than the query.
            asked.len_max = asked.len_max.min(message.len());
        }
        match self.verdict(ip, has_our_cookie, transport, cx.now) {
            Verdict::Within => {}
            // A denied client gets REFUSED instead, which is no larger.
            Verdict::Slip if !is_allowed => {}
            Verdict::Slip => {
                self.log_throttle.on_limited(ip, cx.now);
                self.slip(client, asked, has_our_cookie, cx);
                // No exchange or link has changed, so there is nothing to settle.
                return true;
            }
            Verdict::Drop => {
                self.log_throttle.on_limited(ip, cx.now);
                let completion = Completion {
                    client,
                    question: asked.question,
                    outcome: Outcome::RateLimited,
                    upstream: None,
                    security: None,
                    trace: None,
                };
                completion.end_without_response(&mut self.counters, cx);
                return false;
            }
        }
        match admission.decision {
            _ if !is_allowed => {
                self.log_throttle.on_denied(ip, cx.now);
                self.refuse(client, asked, &DENIED, cx);
            }
            Decision::Forward(message) => self.forward(client, message, asked, cx),
            Decision::AnswerAny => self.respond_to_any(client, asked, cx),
            Decision::AnswerCookie { is_first } => {
                self.respond_cookie_only(client, asked, is_first || has_our_cookie, cx);
            }
            Decision::Reject(refusal) => self.refuse(client, asked, &refusal, cx),
        }
        self.settle(cx);
        true
    }

    /// Verifies the server cookie of a query. Returns whether it was issued to this address and is
    /// valid. If the query has a client cookie, also issues a server cookie for the response, and
    /// replaces the secret of all cookies if that is due.
    fn verify_and_issue_cookie(
        &mut self,
        admission: &mut Admission<'_, '_>,
        ip: IpAddr,
        now: Instant,
    ) -> bool {
        let (Some(cookie), Some(opt)) = (admission.cookie, &mut admission.asked.opt) else {
            return false;
        };
        self.cookies.roll_over(&mut self.random, now);
        opt.cookie = Some(self.cookies.issue(cookie, ip, now));
        self.cookies.is_ours(cookie, ip, now)
    }

    /// Judges a query by the rate limit. Queries on a connection are counted and never limited
    /// here: their session is not read while the client exceeds the limit.
    fn verdict(
        &mut self,
        ip: IpAddr,
        is_proven: bool,
        transport: ClientTransport,
        now: Instant,
    ) -> Verdict {
        match &mut self.rate_limiter {
            None => Verdict::Within,
            Some(limiter) if transport == ClientTransport::Udp => limiter.judge(ip, is_proven, now),
            Some(limiter) => {
                limiter.judge(ip, true, now);
                Verdict::Within
            }
        }
    }

    /// Admits a connection from this address, or counts and logs its refusal. Returns whether the
    /// connection is admitted.
    pub fn admit_connection(&mut self, ip: IpAddr, now: Instant) -> bool {
        let is_allowed = self.config.access.allows(ip);
        if !is_allowed {
            self.counters.denied_connections += 1;
            self.log_throttle.on_denied(ip, now);
        }
        is_allowed
    }
}
