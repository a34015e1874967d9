//! The effects of a verdict: known zones, denial cache, response, log and metrics.

use super::room::client_of;
use super::{AnswerLimit, AskerLimit, BOGUS_OF_ONE, Parked, ROOT, is_checked};
use crate::base::time::Instant;
use crate::config::DnssecMode;
use crate::dnssec::validation::{SecurityKind, SecurityStatus};
use crate::dnssec::zones::{Problem, ZoneStatus};
use crate::proxy::Proxy;
use crate::proxy::actions::Cx;
use crate::proxy::exchange::Purpose;
use crate::proxy::exchange::preferences::UpstreamSet;
use crate::proxy::exchange::retry::{AnswerSource, BadAnswer};
use crate::proxy::keys::ExchangeKey;
use crate::proxy::outcome::Outcome;
use crate::wire::edns::append_error;
use crate::wire::header::{Flags, HEADER_LEN, Header, Rcode};
use crate::wire::query::UDP_SIZE;
use crate::wire::question::Type;
use crate::wire::record::Record;
use crate::wire::without_proof::{is_proof, without_proof};
use crate::wire::{Message, Query};

/// The reason that an upstream's answers cannot be validated.
const NO_EDNS: &str = "the upstream refuses queries with EDNS and DO";

impl Proxy {
    /// Handles the verdict on the parked answer of an exchange.
    pub(super) fn on_verdict(
        &mut self,
        key: ExchangeKey,
        verdict: SecurityStatus,
        cx: &mut Cx<'_>,
    ) {
        let parked = self.take_parked(key).expect("the answer is parked");
        let exchange = &mut self.exchanges[key];
        exchange.tracer.on_wait_end(cx.now);
        exchange.security = Some(verdict.kind());
        self.counters.dnssec.count_verdict(&verdict);
        if let Purpose::Validation { .. } = exchange.purpose {
            return self.on_own_verdict(key, *parked, &verdict, cx);
        }
        let Parked {
            validation,
            source,
            limit,
            ..
        } = *parked;
        let is_on = self.is_validation_on();
        match &verdict {
            SecurityStatus::Bogus(problem) | SecurityStatus::Indeterminate(problem) => {
                self.report(problem, is_on, cx.now);
                if is_on {
                    if let Some(
                        limit @ (AskerLimit::Time | AskerLimit::Silence | AskerLimit::Room(_)),
                    ) = limit
                    {
                        self.fail_at_limit(key, limit, cx.now);
                        // Another upstream's answer would have no time or room either.
                        return self.on_unverifiable(key, problem, (source, true), cx);
                    }
                    return self.on_unverifiable(key, problem, (source, false), cx);
                }
            }
            SecurityStatus::Secure | SecurityStatus::Insecure => {}
        }
        let is_secure = verdict == SecurityStatus::Secure;
        if is_secure && let Some(validator) = &mut self.validator {
            validator.learn_denials(&validation, self.exchanges[key].pool, cx.now);
        }
        let bytes = if is_on {
            validation.into_message(is_secure)
        } else {
            Some(validation.message().into())
        };
        let Some(mut bytes) = bytes else {
            let question = self.exchanges[key].query.question();
            let problem = Problem::limit_reached(question.name(), question.rr_type());
            return self.on_unverifiable(key, &problem, (source, false), cx);
        };
        self.on_accepted(key, || source, cx.now);
        if is_on {
            set_ad(&mut bytes, is_secure);
        }
        self.deliver_with_proof_if_asked(key, &bytes, cx);
    }

    fn is_validation_on(&self) -> bool {
        let validator = self.validator.as_ref();
        validator.is_some_and(|validator| validator.mode == DnssecMode::On)
    }

    /// Logs a failed validation.
    fn report(&mut self, problem: &Problem, is_on: bool, now: Instant) {
        let text = problem.code_text();
        log::debug!("DNSSEC: {problem}: {text}");
        self.log_throttle.on_bogus(text, is_on, now);
    }

    /// Handles an answer that exceeds a limit, so that it is not validated.
    pub(super) fn on_limit(
        &mut self,
        key: ExchangeKey,
        answer: &Message<'_>,
        (source, limit): (AnswerSource, AnswerLimit),
        cx: &mut Cx<'_>,
    ) {
        // The answer of another upstream would not have room either.
        let is_last = limit != AnswerLimit::Records;
        let lacks_room = limit == AnswerLimit::Room;
        let exchange = &mut self.exchanges[key];
        let question = exchange.query.question();
        let problem = Problem::limit_reached(question.name(), question.rr_type());
        if let Purpose::Validation { client, .. } = exchange.purpose {
            let questions = self.validator.iter_mut().flat_map(|it| &mut it.questions);
            for question in questions.filter(|it| lacks_room && it.exchange == key) {
                question.limit = Some(AskerLimit::Room(client));
            }
            if is_last || !self.asks_elsewhere_for_records(key, &source, cx) {
                self.end(key, Outcome::UpstreamFailed, cx.now);
            }
            return;
        }
        let verdict = SecurityStatus::Indeterminate(problem.clone());
        exchange.security = Some(verdict.kind());
        self.counters.dnssec.count_verdict(&verdict);
        let is_on = self.is_validation_on();
        self.report(&problem, is_on, cx.now);
        if is_on {
            if lacks_room {
                let client = client_of(&self.exchanges[key]);
                self.fail_at_limit(key, AskerLimit::Room(client), cx.now);
            }
            return self.on_unverifiable(key, &problem, (source, is_last), cx);
        }
        self.on_accepted(key, || source, cx.now);
        self.deliver_unchecked(key, answer, cx);
    }

    /// Asks another upstream once for the records of a question of our own, if there is one.
    /// Returns whether it is asked.
    fn asks_elsewhere_for_records(
        &mut self,
        key: ExchangeKey,
        source: &AnswerSource,
        cx: &mut Cx<'_>,
    ) -> bool {
        if self.exchanges[key].has_error() {
            return false;
        }
        self.on_bad_source(key, source);
        let preferences = &mut self.exchanges[key].preferences;
        preferences.exclude.insert(source.upstream);
        if !self.begin_retry(key, cx.now) {
            return false;
        }
        if !self.exchanges[key].is_waiting {
            self.dispatch(key, cx);
        }
        true
    }

    /// Handles the verdict on the answer to a question of our own. If it is bogus, or indeterminate
    /// because of the answer itself, another upstream is asked once.
    fn on_own_verdict(
        &mut self,
        key: ExchangeKey,
        mut parked: Parked,
        verdict: &SecurityStatus,
        cx: &mut Cx<'_>,
    ) {
        let source = parked.source;
        let is_bad = match verdict {
            SecurityStatus::Secure | SecurityStatus::Insecure => {
                self.on_accepted(key, || source, cx.now);
                false
            }
            SecurityStatus::Bogus(_) => true,
            // Otherwise the upstream gets neither credit nor blame.
            SecurityStatus::Indeterminate(_) => {
                let is_own_fault = !parked.validation.lacks_answers();
                is_own_fault && !parked.work.is_exhausted()
            }
        };
        let validator = self.validator.as_mut().expect("the validator is on");
        let mut questions = validator.questions.iter_mut();
        if let SecurityStatus::Bogus(_) = verdict
            && let Some(question) = questions.find(|question| question.exchange == key)
        {
            question.bogus_of.insert(source.upstream);
        }
        if is_bad && self.asks_elsewhere_for_records(key, &source, cx) {
            return;
        }
        let validator = self.validator.as_mut().expect("the validator is on");
        let mut questions = validator.questions.iter_mut();
        if let Some(question) = questions.find(|question| question.exchange == key) {
            let learned = parked.validation.take_learned();
            // A secure or insecure answer without a new status: the known zones have it already.
            question.is_learned = learned.is_some()
                || matches!(verdict, SecurityStatus::Secure | SecurityStatus::Insecure);
            if let SecurityStatus::Indeterminate(problem) = verdict {
                question.problem = Some(problem.clone());
                let is_exhausted = parked.work.is_exhausted();
                let of_work = is_exhausted.then_some(AskerLimit::Work);
                question.limit = of_work.or(parked.limit);
            }
            let (name, pool) = (question.need.name.clone(), question.pool);
            if let Some((status, mut lifetime)) = learned {
                let is_of_one = question.bogus_of == UpstreamSet::of(source.upstream);
                if is_of_one && !self.upstreams.is_covered(pool, question.bogus_of) {
                    lifetime = lifetime.min(BOGUS_OF_ONE);
                }
                if let ZoneStatus::Secure(keys) = &status
                    && *name == *ROOT
                {
                    validator.learn_root_keys(keys);
                }
                validator
                    .zones
                    .insert(&name, pool.0, status, cx.now + lifetime);
            }
            if *verdict == SecurityStatus::Secure {
                validator.learn_denials(&parked.validation, pool, cx.now);
            }
        }
        self.end(key, Outcome::Answered, cx.now);
    }

    /// Delivers an answer that is not validated. If others are, only their verdicts set AD, an
    /// error has no records, and DNSSEC records are for clients that asked for them.
    #[inline]
    pub(in crate::proxy) fn deliver_unchecked(
        &mut self,
        key: ExchangeKey,
        answer: &Message<'_>,
        cx: &mut Cx<'_>,
    ) {
        match &self.validator {
            None => self.deliver(key, answer, cx),
            Some(validator) => {
                let is_on = validator.mode == DnssecMode::On;
                let is_of_validated = validator.validates(self.exchanges[key].pool);
                let flags = answer.header().flags;
                let is_as_delivered = answer.rcode() == Rcode::NOERROR
                    && !(is_on && flags.contains(Flags::TC))
                    && !(is_on && flags.contains(Flags::AD))
                    && !(is_of_validated && has_proof(answer));
                if is_as_delivered {
                    return self.deliver(key, answer, cx);
                }
                self.deliver_adapted(key, answer, (is_on, is_of_validated), cx);
            }
        }
    }

    #[cold]
    fn deliver_adapted(
        &mut self,
        key: ExchangeKey,
        answer: &Message<'_>,
        (is_on, is_of_validated): (bool, bool),
        cx: &mut Cx<'_>,
    ) {
        let is_data = matches!(answer.rcode(), Rcode::NOERROR | Rcode::NXDOMAIN);
        let is_checked = is_checked(&self.exchanges[key].query);
        let is_truncated = answer.header().flags.contains(Flags::TC);
        let is_error = is_on && is_of_validated && is_checked && (!is_data || is_truncated);
        let is_refusal = matches!(
            answer.rcode(),
            Rcode::FORMERR | Rcode::NOTIMP | Rcode::BADVERS
        );
        let mut bytes: Box<[u8]> = if is_error && is_refusal {
            // The client's query may be without EDNS and DO, which validation needs.
            let exchange = &mut self.exchanges[key];
            let question = exchange.query.question();
            let problem = Problem::limit_reached(question.name(), question.rr_type());
            exchange.security = Some(SecurityKind::Indeterminate);
            log::debug!("DNSSEC: {problem}: {NO_EDNS}");
            self.log_throttle.on_bogus(NO_EDNS, true, cx.now);
            let reply = bogus_reply(&self.exchanges[key].query, &problem);
            let verdict = SecurityStatus::Indeterminate(problem);
            self.counters.dnssec.count_verdict(&verdict);
            reply
        } else if is_error {
            without_records(answer).into()
        } else {
            answer.bytes().into()
        };
        if is_on {
            set_ad(&mut bytes, false);
        }
        if is_of_validated {
            return self.deliver_with_proof_if_asked(key, &bytes, cx);
        }
        let answer = Message::parse(&bytes).expect("the message was parsed before");
        self.deliver(key, &answer, cx);
    }

    /// Delivers a validated answer, without signatures and denials unless the query asked for them.
    fn deliver_with_proof_if_asked(&mut self, key: ExchangeKey, bytes: &[u8], cx: &mut Cx<'_>) {
        let answer = Message::parse(bytes).expect("the message was parsed before");
        if self.exchanges[key].wants_proof() || !has_proof(&answer) {
            return self.deliver(key, &answer, cx);
        }
        let plain = without_proof(&answer).ok();
        let plain = plain
            .as_deref()
            .and_then(|plain| Message::parse(plain).ok());
        self.deliver(key, plain.as_ref().unwrap_or(&answer), cx);
    }

    /// Handles an answer that is bogus, or that could not be verified: another upstream is asked
    /// once, and then the response is SERVFAIL with the reason.
    pub(super) fn on_unverifiable(
        &mut self,
        key: ExchangeKey,
        problem: &Problem,
        (source, is_last): (AnswerSource, bool),
        cx: &mut Cx<'_>,
    ) {
        let exchange = &mut self.exchanges[key];
        let failure = bogus_reply(&exchange.query, problem);
        let is_last = is_last || exchange.has_error();
        exchange.retry.set_fallback(failure);
        self.on_bad_source(key, &source);
        if is_last {
            self.fail(key, Outcome::UpstreamFailed, cx);
        } else {
            self.ask_elsewhere(key, source.upstream, cx);
        }
    }

    /// Records that an answer does not count as one.
    fn on_bad_source(&mut self, key: ExchangeKey, source: &AnswerSource) {
        let exchange = &mut self.exchanges[key];
        exchange.is_answered = false;
        exchange.retry.set_bad_answer(BadAnswer {
            by: source.endpoint,
            sent_at: source.sent_at,
            is_malformed: false,
        });
    }
}

/// Returns whether an answer has records that only clients with DO get.
fn has_proof(answer: &Message<'_>) -> bool {
    let mut records = answer.answers().chain(answer.authorities());
    records.any(|record: Record| is_proof(record.rr_type))
}

/// Returns a message with its header, question and OPT alone. A truncated one has the response code
/// NOERROR, since the denial of a name would be in the records.
fn without_records(message: &Message<'_>) -> Vec<u8> {
    let bytes = message.bytes();
    let [_, additionals] = message.answer_and_authority_ends();
    let mut additionals = message.records(additionals, message.end());
    let opt = additionals.find(|record| record.rr_type == Type::OPT);
    let flags = message.header().flags;
    let header = Header {
        flags: if flags.contains(Flags::TC) {
            flags.with_rcode(Rcode::NOERROR)
        } else {
            flags
        },
        answers: 0,
        authorities: 0,
        additionals: u16::from(opt.is_some()),
        ..message.header()
    };
    let mut out = bytes[..message.records_start()].to_vec();
    out[..HEADER_LEN].copy_from_slice(&header.to_bytes());
    out.extend_from_slice(opt.map_or(&[], |opt| &bytes[opt.start..opt.end]));
    out
}

fn set_ad(message: &mut [u8], is_secure: bool) {
    let Some(header) = Header::parse(message) else {
        return;
    };
    let flags = header.flags.without(Flags::AD);
    let flags = if is_secure { flags | Flags::AD } else { flags };
    message[2..4].copy_from_slice(&flags.to_u16().to_be_bytes());
}

/// Returns SERVFAIL with the reason, in the form of a reply from upstream.
fn bogus_reply(query: &Query, problem: &Problem) -> Box<[u8]> {
    let question = query.question();
    let flags = query.flags() & (Flags::RD | Flags::CD) | Flags::QR | Flags::RA;
    let header = Header {
        id: 0,
        flags: flags.with_rcode(Rcode::SERVFAIL),
        questions: 1,
        answers: 0,
        authorities: 0,
        additionals: 1,
    };
    let mut bytes = Vec::with_capacity(HEADER_LEN + question.as_bytes().len() + 64);
    bytes.extend(header.to_bytes());
    bytes.extend_from_slice(question.as_bytes());
    append_error(&mut bytes, UDP_SIZE, problem.code, &problem.to_string());
    bytes.into()
}
