//! The end of the time for questions of our own: an answer gets its verdict without their answers,
//! while it still has time for a response. The questions go on for later answers.

use std::iter::successors;

use super::{AskerLimit, Validator};
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
            let parked = self.exchanges[key].parked.as_mut();
            // The exchange may have parked another answer since, which has its own entry.
            let Some(parked) = parked.filter(|parked| parked.questions_until <= cx.now) else {
                continue;
            };
            if !parked.validation.is_waiting() {
                continue;
            }
            if let Some(problem) = validator.missing_records(key) {
                parked.validation.give_up_questions(&problem);
            }
            parked.limit = Some(AskerLimit::Time);
            for question in &mut validator.questions {
                question.waiters.retain(|waiter| *waiter != key);
            }
            self.run_validation(key, cx);
        }
    }

    /// Handles the failure of an answer because of a limit of its query: the failure is not cached,
    /// and followers leave the exchange that have more time, or are of another client.
    pub(super) fn fail_at_limit(&mut self, key: ExchangeKey, limit: AskerLimit) {
        match limit {
            AskerLimit::Time => self.fail_alone_for_time(key),
            AskerLimit::Room(client) => self.fail_alone(key, |follower| follower.holder != client),
            AskerLimit::Depth | AskerLimit::Work => self.fail_alone(key, |_| false),
        }
    }
}

impl Validator {
    /// Returns the missing records for which an answer waits in the end: those of a question that
    /// does not wait for another one itself.
    fn missing_records(&self, waiter: ExchangeKey) -> Option<Problem> {
        let asked_for = |waiter: ExchangeKey| {
            let mut questions = self.questions.iter();
            questions.find(|question| question.waiters.contains(&waiter))
        };
        let first = asked_for(waiter)?;
        let chain = successors(Some(first), |question| asked_for(question.exchange));
        // A question waits only for records of zones above.
        let chain = chain.take(NAME_LEN_MAX);
        let need = &chain.last().unwrap_or(first).need;
        Some(Problem::limit_reached(&need.name, need.rr_type))
    }
}
