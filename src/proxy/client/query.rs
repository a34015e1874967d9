//! Handling of an admitted query: it is answered from the cache or locally, refused, or becomes an
//! exchange.

use std::iter;

use super::admission::{
    LOOPED, NO_UPSTREAM, Reception, Refusal, TOO_LATE, TOO_LONG, failed_before,
};
use super::response::{Client, Completion};
use super::{blocked, designated, hosts, local_zones};
use crate::base::origin::{Origin, Subscriber};
use crate::base::time::Instant;
use crate::config::Config;
use crate::dnssec::validation::SecurityKind;
use crate::proxy::Proxy;
use crate::proxy::actions::Cx;
use crate::proxy::cache::{CacheLookup, Entry, Recall};
use crate::proxy::dns64;
use crate::proxy::exchange::trace::Tracer;
use crate::proxy::exchange::{Exchange, Purpose};
use crate::proxy::keys::{ExchangeKey, PoolIndex};
use crate::proxy::outcome::Outcome;
use crate::wire::question::Type;
use crate::wire::response::{Asked, end_answer, start_answer, write_answer};
use crate::wire::{Flags, Message, Query, Question, Rcode};

/// A query of a client that is to be answered.
struct Request<'a> {
    client: Client,
    message: &'a Message<'a>,
    question: Question<'a>,
    asked: &'a Asked<'a>,
    /// The cache lookup, if the answer may be cached or shared.
    lookup: Option<CacheLookup>,
}

impl Request<'_> {
    /// Returns the client that the query counts against.
    fn holder(&self) -> Subscriber {
        Subscriber::of(self.client.origin.peer.ip())
    }
}

impl Proxy {
    /// Asks a client to prove its address: to repeat the query with the cookie in the response, or
    /// over TCP.
    pub(in crate::proxy) fn slip(
        &mut self,
        client: Client,
        asked: &Asked<'_>,
        has_our_cookie: bool,
        cx: &mut Cx<'_>,
    ) {
        let completion = at_once(client, asked, Outcome::Slipped);
        let gets_cookie = asked.opt.is_some_and(|opt| opt.cookie.is_some());
        if gets_cookie && !has_our_cookie {
            let error = (Rcode::BADCOOKIE, None);
            completion.respond_error(asked, error, &mut self.counters, cx);
        } else {
            completion.respond(&mut self.counters, cx, |out| {
                write_bare(out, asked, Flags::TC);
            });
        }
    }

    /// Responds to a query for ANY with the synthesized HINFO record (RFC 8482, section 4.2), or
    /// from a local zone.
    pub(in crate::proxy) fn respond_to_any(
        &mut self,
        client: Client,
        asked: &Asked<'_>,
        cx: &mut Cx<'_>,
    ) {
        let question = asked.question;
        let question = question.expect("a query for ANY has a question");
        if let Some((reply, outcome)) = self.own_reply(question, client.origin) {
            return self.respond_locally(client, asked, (&reply, outcome), cx);
        }
        let is_local = self.routes.own(question.name()).is_none();
        if is_local && self.answer_locally(client, asked, question, cx) {
            return;
        }
        let completion = at_once(client, asked, Outcome::AnsweredHere);
        completion.respond(&mut self.counters, cx, |out| {
            let start = start_answer(out, asked, Flags::QR | Flags::RA, [1, 0, 0]);
            out.extend_from_slice(ANY_RECORD);
            end_answer(out, start, asked, iter::empty(), None);
        });
    }

    /// Responds to a query with a cookie and no question: no records, a server cookie, and, unless
    /// `is_valid`, BADCOOKIE. A query without a server cookie is valid, as is one with a valid
    /// server cookie.
    pub(in crate::proxy) fn respond_cookie_only(
        &mut self,
        client: Client,
        asked: &Asked<'_>,
        is_valid: bool,
        cx: &mut Cx<'_>,
    ) {
        let completion = at_once(client, asked, Outcome::AnsweredHere);
        if is_valid {
            completion.respond(&mut self.counters, cx, |out| {
                write_bare(out, asked, Flags::default());
            });
        } else {
            let error = (Rcode::BADCOOKIE, None);
            completion.respond_error(asked, error, &mut self.counters, cx);
        }
    }

    pub(in crate::proxy) fn refuse(
        &mut self,
        client: Client,
        asked: &Asked<'_>,
        refusal: &Refusal,
        cx: &mut Cx<'_>,
    ) {
        let completion = at_once(client, asked, refusal.outcome);
        let error = (refusal.rcode, Some(refusal.error));
        completion.respond_error(asked, error, &mut self.counters, cx);
    }

    /// Answers a query from the cache or locally, or starts an exchange.
    pub(in crate::proxy) fn forward(
        &mut self,
        client: Client,
        message: &Message<'_>,
        asked: &Asked<'_>,
        cx: &mut Cx<'_>,
    ) {
        let question = message.question();
        let question = question.expect("a query that is forwarded has a question");
        if self.record_returned_test(question, cx) {
            return self.refuse(client, asked, &LOOPED, cx);
        }
        if let Some((reply, outcome)) = self.own_reply(question, client.origin) {
            return self.respond_locally(client, asked, (&reply, outcome), cx);
        }
        let request = Request {
            client,
            message,
            question,
            asked,
            lookup: self.cache.lookup_for(message),
        };
        let recall = match request.lookup {
            Some(lookup) => self.cache.recall(question, lookup, cx.now),
            None => Recall::Nothing,
        };
        match recall {
            Recall::Fresh {
                entry,
                is_refresh_due,
            } => {
                self.answer_from_cache(&request, entry, Outcome::Cached, cx);
                if is_refresh_due && self.may_refresh(&request, cx.now) {
                    self.cache.on_prefetch(entry);
                    self.refresh(&request, cx);
                }
            }
            Recall::Failed(entry) => {
                self.answer_from_cache(&request, entry, Outcome::Cached, cx);
                if let Some(pool) = self.routes.pool(question.name()) {
                    self.probe_for_recovery(pool, cx);
                }
            }
            Recall::StaleInUse {
                entry,
                is_refresh_due,
            } => {
                self.answer_from_cache(&request, entry, Outcome::Stale, cx);
                if is_refresh_due && self.may_refresh(&request, cx.now) {
                    self.cache.on_stale_served(entry, cx.now);
                    self.refresh(&request, cx);
                }
            }
            Recall::Stale(entry) => self.query_upstream(&request, Some(entry), cx),
            Recall::Nothing => self.answer_or_query_upstream(&request, cx),
        }
    }

    /// Returns the reply to a question for a name of a hosts file, of our own listeners, or of a
    /// block list, in this order.
    fn own_reply(&self, question: Question<'_>, origin: Origin) -> Option<(Vec<u8>, Outcome)> {
        let Config {
            hosts, designated, ..
        } = &self.config;
        let has_own = !hosts.is_empty() || designated.is_some() || self.config.dns64.is_some();
        if !has_own && self.block_list.is_none() {
            return None;
        }
        let own = hosts::reply(hosts, question);
        let own = own.or_else(|| dns64::reply(&self.config, question));
        let own = own.or_else(|| designated::reply(&self.config, question, origin));
        if let Some(reply) = own {
            return Some((reply, Outcome::AnsweredHere));
        }
        let label = self.block_list.as_ref()?.blocking(question.name())?;
        let reply = blocked::reply(question, self.config.block.answer, label);
        Some((reply, Outcome::Blocked))
    }

    /// Answers a query without a cached answer locally, from a cached proof (RFC 8198) or from the
    /// cached NXDOMAIN of an ancestor (RFC 8020), or asks upstream.
    fn answer_or_query_upstream(&mut self, request: &Request<'_>, cx: &mut Cx<'_>) {
        let question = request.question;
        if self.config.dns64.is_some() && self.reverse_target(question).is_some() {
            return self.query_upstream(request, None, cx);
        }
        let own_pool = self.routes.own(question.name());
        if own_pool.is_none() && self.answer_locally(request.client, request.asked, question, cx) {
            return;
        }
        // Proofs also cover the names below a name that does not exist, and are found faster.
        if self.validator.is_some() && self.answer_by_proof(request, cx) {
            return;
        }
        let (routes, validator) = (&self.routes, &self.validator);
        // The NXDOMAIN of an ancestor holds only if the same upstreams are asked for both names,
        // and the same trust anchor is above both.
        let is_alike = |name: &[u8]| {
            let has_same_anchor = || match validator {
                Some(validator) => validator.has_same_anchor(name, question.name()),
                None => true,
            };
            routes.own(name) == own_pool && has_same_anchor()
        };
        let denial = request
            .lookup
            .and_then(|lookup| self.cache.denial_above(question, lookup, cx.now, is_alike));
        match denial {
            Some(entry) => self.answer_from_cache(request, entry, Outcome::Cached, cx),
            None => self.query_upstream(request, None, cx),
        }
    }

    /// Answers a query for a name or type that verified NSEC or NSEC3 records deny (RFC 8198).
    /// Returns whether the query is answered.
    fn answer_by_proof(&mut self, request: &Request<'_>, cx: &mut Cx<'_>) -> bool {
        let (Some(validator), Some(lookup)) = (&self.validator, request.lookup) else {
            return false;
        };
        let pool = self.routes.pool(request.question.name());
        let is_checked = !request.message.header().flags.contains(Flags::CD);
        let Some(pool) = pool.filter(|_| is_checked) else {
            return false;
        };
        let settings = &self.config.cache;
        let ttl_max = settings.negative_ttl_max.min(settings.ttl_max).as_secs();
        let ttl_max = u32::try_from(ttl_max).unwrap_or(u32::MAX);
        let Some(denial) = validator.deny(request.question, pool, ttl_max, cx.now) else {
            return false;
        };
        let flags = request.message.header().flags;
        if denial.rcode() == Rcode::NOERROR
            && self.makes_addresses(request.question, flags, lookup.wants_proof())
        {
            return false;
        }
        self.counters.dnssec.synthesized += 1;
        let mut completion = at_once(request.client, request.asked, Outcome::Cached);
        completion.security = Some(SecurityKind::Secure);
        completion.respond(&mut self.counters, cx, |out| {
            denial.write(out, request.asked, lookup.wants_proof());
        });
        true
    }

    /// Answers a query for a name in a local zone. Returns whether the query is answered. A name
    /// for which an upstream is configured is not to be answered locally.
    fn answer_locally(
        &mut self,
        client: Client,
        asked: &Asked<'_>,
        question: Question<'_>,
        cx: &mut Cx<'_>,
    ) -> bool {
        let Some(reply) = local_zones::reply(question) else {
            return false;
        };
        self.respond_locally(client, asked, (&reply, Outcome::AnsweredHere), cx);
        true
    }

    /// Responds with a reply of our own.
    fn respond_locally(
        &mut self,
        client: Client,
        asked: &Asked<'_>,
        (reply, outcome): (&[u8], Outcome),
        cx: &mut Cx<'_>,
    ) {
        let reply = Message::parse(reply).expect("replies of our own are well formed");
        let completion = at_once(client, asked, outcome);
        completion.respond(&mut self.counters, cx, |out| {
            write_answer(out, asked, &reply);
        });
    }

    /// Asks upstream for a client, which gets the stale answer if that fails.
    fn query_upstream(&mut self, request: &Request<'_>, stale: Option<Entry>, cx: &mut Cx<'_>) {
        self.counters.misses += u64::from(request.lookup.is_some());
        match self.open_exchange(request, cx) {
            Ok((key, pool)) => {
                if stale.is_some() {
                    self.schedule_stale(key, cx.now);
                }
                self.ask_for_addresses(Some(pool), cx);
            }
            Err(refusal) => match stale {
                Some(entry) if refusal.rcode == Rcode::SERVFAIL => {
                    // Other refusals are due to this query or its client alone.
                    if refusal.outcome == Outcome::UpstreamFailed {
                        self.cache.on_stale_served(entry, cx.now);
                    }
                    self.answer_from_cache(request, entry, Outcome::Stale, cx);
                }
                _ => self.refuse(request.client, request.asked, &refusal, cx),
            },
        }
    }

    fn answer_from_cache(
        &mut self,
        request: &Request<'_>,
        entry: Entry,
        outcome: Outcome,
        cx: &mut Cx<'_>,
    ) {
        let mut completion = at_once(request.client, request.asked, outcome);
        let cache = &self.cache;
        let is_validated = self.validator.as_ref().is_some_and(|it| it.sets_ad());
        if is_validated && cache.has_ad(entry) {
            completion.security = Some(SecurityKind::Secure);
        }
        completion.respond(&mut self.counters, cx, |out| {
            cache.write(entry, request.asked, out);
        });
    }

    /// Starts an exchange for a client and returns its key and pool, or the reason for a refusal.
    fn open_exchange(
        &mut self,
        request: &Request<'_>,
        cx: &mut Cx<'_>,
    ) -> Result<(ExchangeKey, PoolIndex), Refusal> {
        let pool = self.routes.pool(request.question.name());
        let pool = pool.ok_or(NO_UPSTREAM)?;
        let deadline = request.client.received_at + self.config.timeouts.deadline;
        if deadline <= cx.now {
            return Err(TOO_LATE);
        }
        let may_retest = deadline - cx.now >= self.config.timeouts.attempt;
        let failed = self.failures.recall(request.question, may_retest, cx.now);
        if let Some(reason) = failed {
            self.probe_for_recovery(pool, cx);
            return Err(failed_before(reason));
        }
        let query = self.query_for(request, pool);
        if query.unpadded_len() > self.config.limits.forwarded_query {
            return Err(TOO_LONG);
        }
        let holder = request.holder();
        // The last reason for a refusal, since other queries may be shed.
        self.make_room(holder, pool, cx)?;
        let purpose = Purpose::Client {
            client: request.client,
            reception: Reception::of(request.asked),
        };
        let mut exchange = Exchange::new(purpose, pool, query, (cx.now, deadline));
        exchange.is_retest = may_retest && self.failures.begin_retest(request.question, deadline);
        exchange.holder = Some(holder);
        if is_recursive(request.message) {
            exchange.lookup = request.lookup;
        }
        exchange.tracer = Tracer::new(request.client.is_traced);
        if request.lookup.is_some() {
            exchange.tracer.on_miss(cx.now);
        }
        Ok((self.start(exchange, cx), pool))
    }

    /// Returns whether an answer in the cache may be refreshed: there is room, and its question did
    /// not fail a short time ago.
    fn may_refresh(&self, request: &Request<'_>, now: Instant) -> bool {
        let pool = self.routes.pool(request.question.name());
        is_recursive(request.message)
            && self.has_capacity_to_spare()
            && pool.is_some_and(|pool| self.may_hold(request.holder(), pool))
            && self.failures.recall(request.question, true, now).is_none()
    }

    /// Starts an exchange that refreshes an answer in the cache.
    fn refresh(&mut self, request: &Request<'_>, cx: &mut Cx<'_>) {
        let Some(pool) = self.routes.pool(request.question.name()) else {
            return;
        };
        self.counters.refreshes += 1;
        let query = self.query_for(request, pool);
        let deadline = cx.now + self.config.timeouts.deadline;
        let mut exchange = Exchange::new(Purpose::Cache, pool, query, (cx.now, deadline));
        exchange.is_retest = self.failures.begin_retest(request.question, deadline);
        exchange.holder = Some(request.holder());
        exchange.lookup = request.lookup;
        self.start(exchange, cx);
    }

    /// Probes the pool of a failed question that is not asked: if an upstream is in outage or has
    /// no address, queries of our own detect the recovery.
    fn probe_for_recovery(&mut self, pool: PoolIndex, cx: &mut Cx<'_>) {
        let has_failed = self.upstreams.last_failure(pool).is_some();
        if has_failed && self.has_capacity_to_spare() && self.failures.reserve_probe(pool, cx.now) {
            let query = Query::new(&self.routes.probe_name(Some(pool)), Type::NS);
            // A probe that was lost shortly before the recovery must not delay the next one.
            let deadline = cx.now + self.config.timeouts.attempt / 2;
            let exchange = Exchange::new(Purpose::Probe, pool, query, (cx.now, deadline));
            self.start(exchange, cx);
        }
        self.ask_for_addresses(Some(pool), cx);
    }

    fn query_for(&mut self, request: &Request<'_>, pool: PoolIndex) -> Query {
        let buffer = self.spare_buffers.pop().unwrap_or_default();
        let query = Query::forward(request.message, buffer);
        let mut query = query.expect("a query that is forwarded has a question");
        let validator = self.validator.as_ref();
        if validator.is_some_and(|validator| validator.validates(pool)) {
            query.set_dnssec(true);
        }
        query
    }

    /// Returns whether there is room for queries without a client.
    fn has_capacity_to_spare(&self) -> bool {
        self.under_way() < self.config.limits.inflight / 2
    }
}

/// Returns the completion of a query that is answered at once.
fn at_once<'a>(client: Client, asked: &Asked<'a>, outcome: Outcome) -> Completion<'a> {
    Completion {
        client,
        question: asked.question,
        outcome,
        upstream: None,
        security: None,
        trace: None,
    }
}

/// The HINFO record for ANY, at the name in the question, with a TTL of one hour.
const ANY_RECORD: &[u8] = b"\xc0\x0c\0\x0d\0\x01\0\0\x0e\x10\0\x09\x07RFC8482\0";

/// Appends an answer without records.
fn write_bare(out: &mut Vec<u8>, asked: &Asked<'_>, flags: Flags) {
    let start = start_answer(out, asked, Flags::QR | Flags::RA | flags, [0; 3]);
    end_answer(out, start, asked, iter::empty(), None);
}

/// Returns whether a query asks for recursion (RD).
fn is_recursive(query: &Message<'_>) -> bool {
    query.header().flags.contains(Flags::RD)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::testing::Scene;
    use crate::proxy::{Action, ClientTransport};
    use crate::wire::Header;
    use crate::wire::edns::{OptWriter, OptionCode};

    /// Builds a query with this first byte of flags, this type, and an OPT with these options.
    fn query(flags: u8, rr_type: u16, options: Option<&[(OptionCode, &[u8])]>) -> Vec<u8> {
        let additionals = u8::from(options.is_some());
        let mut bytes = vec![1, 2, flags, 0, 0, 1, 0, 0, 0, 0, 0, additionals];
        bytes.extend(b"\x03www\x07example\0");
        bytes.extend(rr_type.to_be_bytes());
        bytes.extend([0, 1]);
        if let Some(options) = options {
            let mut writer = OptWriter::start(&mut bytes, 1232, 0, 0);
            for (code, data) in options {
                writer.option(*code, data);
            }
            writer.finish();
        }
        bytes
    }

    fn response(scene: &Scene) -> Vec<u8> {
        match scene.outbox.actions() {
            [Action::Respond { message, .. }] => scene.outbox.bytes(message).to_vec(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn refusal_of_a_denied_udp_client_is_not_larger_than_its_query() {
        let cookie = |data| Some([(OptionCode::COOKIE, data)]);
        let [first, short, full] = [&[7; 8][..], &[7; 16], &[7; 24]].map(cookie);
        let padding = [(OptionCode::PADDING, &[0; 100][..])];
        let mut malformed = query(1, 1, Some(&[]));
        malformed.push(0);
        let mut no_question = query(1, 1, first.as_ref().map(|it| &it[..]));
        no_question.drain(12..29);
        no_question[5] = 0;
        let header = query(1, 1, None)[..12].to_vec();
        for limit in [None, Some("--rate-limit=1/1")] {
            let mut arguments = vec!["-u192.0.2.1", "--deny=127.0.0.1"];
            arguments.extend(limit);
            for query in [
                query(1, 1, None),
                query(1, 1, Some(&[])),
                query(1, 1, first.as_ref().map(|it| &it[..])),
                query(1, 1, short.as_ref().map(|it| &it[..])),
                query(1, 1, full.as_ref().map(|it| &it[..])),
                query(1, 1, Some(&padding)),
                query(1, 255, Some(&[])),
                query(1, 252, Some(&[])),
                query(2 << 3, 1, Some(&[])),
                malformed.clone(),
                no_question.clone(),
                header.clone(),
            ] {
                let mut scene = Scene::with(&arguments);
                for _ in 0..4 {
                    if !scene.offer(&query, ClientTransport::Udp) {
                        continue;
                    }
                    let response = response(&scene);
                    assert!(response.len() <= query.len(), "{response:?} to {query:?}");
                    let flags = Header::parse(&response).expect("a header").flags;
                    assert_eq!(flags.rcode(), Rcode::REFUSED);
                }
            }
        }
    }

    #[test]
    fn special_name_is_not_sent_upstream_in_any_class_or_type() {
        let mut scene = Scene::with(&["-u192.0.2.1"]);
        for class in [1, 3, 4, 255] {
            for rr_type in [1, 2, 6, 16, 65, 128, 255, 251, 252, 253, 254, 65_280] {
                let mut bytes = vec![1, 2, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
                bytes.extend(b"\x07printer\x05local\0");
                bytes.extend(u16::to_be_bytes(rr_type));
                bytes.extend([0, class]);
                scene.ask(&bytes, ClientTransport::Udp);
                let flags = Header::parse(&response(&scene)).expect("a header").flags;
                let expected = match rr_type {
                    128 => Rcode::FORMERR,
                    251 | 252 => Rcode::REFUSED,
                    _ => Rcode::NXDOMAIN,
                };
                assert_eq!(flags.rcode(), expected, "type {rr_type}, class {class}");
            }
        }
    }

    #[test]
    fn special_name_of_a_domain_is_sent_upstream_in_every_class() {
        for class in [1, 3] {
            let mut scene = Scene::with(&["-u192.0.2.1,domain=local"]);
            let question = [&b"\x07printer\x05local\0\0\x10\0"[..], &[class]].concat();
            let header = [1, 2, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
            scene.ask(&[&header[..], &question].concat(), ClientTransport::Udp);
            scene.opened_last();
        }
    }

    #[test]
    fn denied_udp_client_gets_an_extended_error_if_its_query_is_long_enough() {
        let padding = [(OptionCode::PADDING, &[0; 100][..])];
        let mut scene = Scene::with(&["-u192.0.2.1", "--deny=127.0.0.1"]);
        for (options, has_error) in [(&[][..], false), (&padding, true)] {
            scene.ask(&query(1, 1, Some(options)), ClientTransport::Udp);
            let response = response(&scene);
            let opt = Message::parse(&response)
                .expect("a well-formed response")
                .opt()
                .expect("OPT");
            assert_eq!(opt.has_option(OptionCode::EXTENDED_ERROR), has_error);
        }
    }
}
