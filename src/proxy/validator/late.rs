//! The end of the time for questions of our own: an answer gets its verdict without their answers,
//! while it still has time for a response. The questions go on for later answers.

use std::iter::{self, successors};

use super::{AskerLimit, OwnQuestion, Validator};
use crate::base::time::Instant;
use crate::dnssec::zones::Problem;
use crate::proxy::Proxy;
use crate::proxy::actions::Cx;
use crate::proxy::exchange::Exchange;
use crate::proxy::keys::ExchangeKey;
use crate::wire::name::NAME_LEN_MAX;

impl Proxy {
    /// Schedules the end of the time that a parked answer has for questions of our own.
    pub(super) fn schedule_late_verdict(&mut self, key: ExchangeKey, at: Instant) {
        let exchanges = &self.exchanges;
        let validator = self.validator.as_mut().expect("the validator is on");
        let is_parked = |key: ExchangeKey| exchanges.get(key).is_some_and(Exchange::is_parked);
        validator.by_questions_until.push_ranked(
            (at, key),
            |(at, _)| *at,
            validator.parked,
            |(_, key)| is_parked(*key),
        );
    }

    /// Returns the next parked answer whose time for questions ends, and that time.
    pub(in crate::proxy) fn next_late_verdict(&mut self) -> Option<(Instant, ExchangeKey)> {
        let exchanges = &self.exchanges;
        let is_parked = |key: ExchangeKey| exchanges.get(key).is_some_and(Exchange::is_parked);
        let validator = self.validator.as_mut()?;
        let first = validator
            .by_questions_until
            .front(|(_, key)| is_parked(*key));
        first.copied()
    }

    /// Gives the answers a verdict whose time for questions has ended.
    pub(in crate::proxy) fn end_late_validations(&mut self, cx: &mut Cx<'_>) {
        while let Some((at, key)) = self.next_late_verdict()
            && at <= cx.now
        {
            let validator = self.validator.as_mut().expect("the validator is on");
            validator.by_questions_until.pop();
            let parked = self.exchanges[key].parked.as_ref();
            // The exchange may have parked another answer since, which has its own entry.
            let Some(parked) = parked.filter(|parked| parked.questions_until <= cx.now) else {
                continue;
            };
            if !parked.validation.is_waiting() {
                continue;
            }
            let (limit, problem) = self.missing_records(key, cx.now);
            let parked = self.exchanges[key].parked.as_mut();
            let parked = parked.expect("the answer is parked");
            parked.limit = Some(limit);
            if let Some(problem) = problem {
                parked.validation.give_up_questions(&problem);
            }
            let validator = self.validator.as_mut().expect("the validator is on");
            for question in &mut validator.questions {
                question.waiters.retain(|waiter| *waiter != key);
            }
            self.run_validation(key, cx);
        }
    }

    /// Handles the failure of an answer because of a limit of its query. Unless upstream did not
    /// answer, the failure is not cached, and followers leave the exchange that have more time, or
    /// are of another client.
    pub(super) fn fail_at_limit(&mut self, key: ExchangeKey, limit: AskerLimit, now: Instant) {
        match limit {
            AskerLimit::Silence => self.fail_for_silence(key, now),
            AskerLimit::Time => self.fail_alone_for_time(key),
            AskerLimit::Room(client) => self.fail_alone(key, |follower| follower.holder != client),
            AskerLimit::Depth | AskerLimit::Work => self.fail_alone(key, |_| false),
        }
    }

    /// Handles the failure of an answer because upstream did not send records that it needs: the
    /// failure is cached and shared. The first time, followers that have waited for less than the
    /// time of an attempt leave the exchange, and nothing is cached while upstream is asked again.
    /// The failure of a query that was itself sent late concerns that query alone.
    fn fail_for_silence(&mut self, key: ExchangeKey, now: Instant) {
        let exchange = &self.exchanges[key];
        if exchange.retry.is_late() {
            return self.fail_alone_for_time(key);
        }
        if exchange.retry.has_followed_silence() {
            return;
        }
        let attempt = self.config.timeouts.attempt;
        let is_new = |follower: &Exchange| {
            now - follower.asked_at < attempt && follower.deadline - now >= attempt
        };
        let followers = exchange.followers.iter().copied();
        let of_exchange = |key: &ExchangeKey| self.exchanges.get(*key).is_some_and(is_new);
        let leaving: Vec<ExchangeKey> = followers.filter(of_exchange).collect();
        if leaving.is_empty() {
            return;
        }
        self.fail_alone(key, is_new);
        for follower in leaving {
            self.exchanges[follower].retry.set_followed_silence();
        }
    }

    /// Returns the limit because of which the time for the questions of a parked answer ends, and
    /// the missing records if it waits for a question.
    fn missing_records(&self, key: ExchangeKey, now: Instant) -> (AskerLimit, Option<Problem>) {
        let validator = self.validator.as_ref();
        let chain = validator.map_or_else(Vec::new, |one| one.questions_for(key));
        let Some(last) = chain.last() else {
            return (AskerLimit::Time, None);
        };
        let parked_by = |key| self.exchanges.get(key)?.parked.as_deref();
        let waiters = iter::once(key).chain(chain.iter().map(|question| question.exchange));
        let mut waiters = waiters.filter_map(parked_by);
        let is_silent = match self.exchanges.get(last.exchange) {
            Some(exchange) if exchange.is_parked() => false,
            Some(exchange) => {
                let had_time = now - exchange.asked_at >= self.config.timeouts.attempt;
                had_time || waiters.any(|parked| parked.met_silence)
            }
            None => last.limit == Some(AskerLimit::Silence),
        };
        let limit = if is_silent {
            AskerLimit::Silence
        } else {
            AskerLimit::Time
        };
        let need = &last.need;
        (
            limit,
            Some(Problem::limit_reached(&need.name, need.rr_type)),
        )
    }

    /// Records that the time of a question of our own ends before its answer is verified.
    pub(in crate::proxy) fn on_own_question_unverified(&mut self, key: ExchangeKey) {
        let mut questions = self.validator.iter_mut().flat_map(|one| &mut one.questions);
        if let Some(question) = questions.find(|question| question.exchange == key) {
            question.limit = question.limit.or(Some(AskerLimit::Time));
        }
    }
}

impl Validator {
    /// Returns the question for which an answer waits, the one for which that question waits, and
    /// so on.
    fn questions_for(&self, waiter: ExchangeKey) -> Vec<&OwnQuestion> {
        let asked_for = |waiter: ExchangeKey| {
            let mut questions = self.questions.iter();
            questions.find(|question| question.waiters.contains(&waiter))
        };
        let chain = successors(asked_for(waiter), |question| asked_for(question.exchange));
        // A question waits only for records of zones above.
        chain.take(NAME_LEN_MAX).collect()
    }
}
