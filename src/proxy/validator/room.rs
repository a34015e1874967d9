//! Limits on the answers that are validated and on the questions of our own, and the shares that
//! clients have of them.
//!
//! Answers that wait for questions have room of their own, so that an answer whose keys are known
//! does not fail because others wait. If that room, the room of the answers being verified, or the
//! table of questions is full, the client that holds most of it gives up its newest answer or
//! question (max-min fairness). Everything without a client counts as the share of one client.

use super::{AskerLimit, Validator};
use crate::base::origin::Subscriber;
use crate::base::time::Instant;
use crate::config::Limits;
use crate::dnssec::validation::{Need, SecurityStatus};
use crate::dnssec::zones::Problem;
use crate::proxy::Proxy;
use crate::proxy::actions::Cx;
use crate::proxy::exchange::{Exchange, Purpose};
use crate::proxy::followups::Followup;
use crate::proxy::keys::ExchangeKey;
use crate::proxy::outcome::Outcome;

/// Number of bytes above which an answer is large. Ordinary answers with signatures are shorter.
const LARGE_ANSWER_LEN: usize = 4_096;

/// A number of answers and their bytes.
#[derive(Clone, Copy, Debug, Default)]
struct RoomUse {
    answers: usize,
    bytes: usize,
}

impl RoomUse {
    /// Returns the usage of other answers beside which there is room for an answer of this length,
    /// to a client or to a question of our own. Answers to clients leave half of the room for the
    /// records that their validation needs, and large answers leave room for ordinary ones. `None`
    /// if there is never room for the answer.
    fn most_beside(is_for_answer: bool, len: usize, limits: &Limits) -> Option<Self> {
        let quarters = match (is_for_answer, len > LARGE_ANSWER_LEN) {
            (true, true) => 1,
            (true, false) => 2,
            (false, true) => 3,
            (false, false) => 4,
        };
        let answers = limits.validations / if is_for_answer { 2 } else { 1 };
        let bytes = limits.validations_held / 4 * quarters;
        Some(Self {
            answers: answers.checked_sub(1)?,
            bytes: bytes.checked_sub(len)?,
        })
    }

    fn is_within(self, most: Self) -> bool {
        self.answers <= most.answers && self.bytes <= most.bytes
    }
}

/// An answer that is validated.
#[derive(Clone, Copy, Debug)]
struct ParkedAnswer {
    key: ExchangeKey,
    client: Option<Subscriber>,
    /// The answer is for a client or for the cache.
    is_for_answer: bool,
    asked_at: Instant,
    len: usize,
}

impl ParkedAnswer {
    /// Returns the parked answer of an exchange, if it has one.
    fn of(key: ExchangeKey, exchange: &Exchange) -> Option<Self> {
        let parked = exchange.parked.as_ref()?;
        Some(Self {
            key,
            client: parked.client,
            is_for_answer: exchange.is_for_answer(),
            asked_at: exchange.asked_at,
            len: parked.validation.message().len(),
        })
    }

    /// Returns whether there is room for the answer beside this usage.
    fn has_room_beside(&self, others: RoomUse, limits: &Limits) -> bool {
        let most = RoomUse::most_beside(self.is_for_answer, self.len, limits);
        most.is_some_and(|most| others.is_within(most))
    }
}

/// Returns the position of the answer that gives up its room, if there is too little for the last
/// of these answers. It is the newest one of the client that holds most.
fn one_too_many(answers: &[ParkedAnswer], limits: &Limits) -> Option<usize> {
    let (last, others) = answers.split_last()?;
    let Some(most) = RoomUse::most_beside(last.is_for_answer, last.len, limits) else {
        return Some(others.len());
    };
    // The number of answers to questions has a limit already, that of the questions.
    let is_counted = |one: &ParkedAnswer| one.is_for_answer == last.is_for_answer;
    let used = RoomUse {
        answers: others.iter().filter(|one| is_counted(one)).count(),
        bytes: others.iter().map(|one| one.len).sum(),
    };
    if used.is_within(most) {
        return None;
    }
    let is_crowded = used.answers > most.answers;
    let is_candidate = |one: &ParkedAnswer| !is_crowded || is_counted(one);
    let candidates = answers.iter().filter(|one| is_candidate(one));
    let shares = candidates.map(|one| (one.client, if is_crowded { 1 } else { one.len }));
    let holder = largest_holder(shares, last.client);
    let of_holder = answers.iter().enumerate();
    let of_holder = of_holder.filter(|(_, one)| one.client == holder && is_candidate(one));
    // Answers to questions are given up last, since other answers wait for them. Of several answers
    // with the same time, the last one is the newest.
    let newest = of_holder.max_by_key(|(_, one)| (one.is_for_answer, one.asked_at));
    newest.map(|(place, _)| place)
}

/// Returns the client that an exchange counts against in the validator.
pub(super) fn client_of(exchange: &Exchange) -> Option<Subscriber> {
    match exchange.purpose {
        Purpose::Validation { client, .. } => client,
        _ => exchange.holder,
    }
}

/// Returns the client with the largest share, which is `own` if its share is as large as any.
fn largest_holder(
    shares: impl Iterator<Item = (Option<Subscriber>, usize)>,
    own: Option<Subscriber>,
) -> Option<Subscriber> {
    let mut share_by_client = ClientCounts::default();
    for (client, share) in shares {
        share_by_client.add(client, share);
    }
    let shares = share_by_client.0.into_iter();
    let largest = shares.max_by_key(|(client, share)| (*share, *client == own));
    largest.map_or(own, |(client, _)| client)
}

/// A number for each client, in the order of the clients.
#[derive(Debug, Default)]
pub(super) struct ClientCounts(Vec<(Option<Subscriber>, usize)>);

impl ClientCounts {
    /// Adds to the number of a client.
    pub(super) fn add(&mut self, client: Option<Subscriber>, more: usize) {
        match self.0.binary_search_by_key(&client, |(one, _)| *one) {
            Ok(place) => self.0[place].1 += more,
            Err(place) => self.0.insert(place, (client, more)),
        }
    }

    /// Returns the number of a client.
    pub(super) fn get(&self, client: Option<Subscriber>) -> usize {
        let place = self.0.binary_search_by_key(&client, |(one, _)| *one);
        place.map_or(0, |place| self.0[place].1)
    }
}

impl Validator {
    fn usage(&self) -> RoomUse {
        RoomUse {
            answers: self.parked,
            bytes: self.held,
        }
    }
}

impl Proxy {
    /// Returns whether there may be room to verify an answer of this length to an exchange, if no
    /// other answer has any.
    pub(super) fn may_have_room_to_verify(&self, key: ExchangeKey, len: usize) -> bool {
        let is_for_answer = self.exchanges[key].is_for_answer();
        RoomUse::most_beside(is_for_answer, len, &self.config.limits).is_some()
    }

    /// Makes room to verify an answer of this length to an exchange. As long as there is no room,
    /// the client whose answers take most gives up its newest one that is being verified. Returns
    /// `false` if that is the answer itself.
    pub(super) fn make_room_to_verify(
        &mut self,
        key: ExchangeKey,
        len: usize,
        cx: &mut Cx<'_>,
    ) -> bool {
        let exchange = &self.exchanges[key];
        let own = ParkedAnswer {
            key,
            client: client_of(exchange),
            is_for_answer: exchange.is_for_answer(),
            asked_at: exchange.asked_at,
            len,
        };
        let limits = self.config.limits;
        loop {
            let Some(validator) = &self.validator else {
                return false;
            };
            // Most of the time there is room for all answers, also for those that wait.
            if own.has_room_beside(validator.usage(), &limits) {
                return true;
            }
            let verified = validator.runnable.iter();
            let verified =
                verified.filter_map(|key| ParkedAnswer::of(*key, self.exchanges.get(*key)?));
            let mut answers: Vec<ParkedAnswer> = verified.collect();
            answers.push(own);
            let Some(place) = one_too_many(&answers, &limits) else {
                return true;
            };
            let evicted = answers[place];
            if evicted.key == key {
                return false;
            }
            self.end_verification(evicted, cx);
        }
    }

    /// Ends the verification of an answer for lack of room.
    fn end_verification(&mut self, evicted: ParkedAnswer, cx: &mut Cx<'_>) {
        let exchange = &mut self.exchanges[evicted.key];
        let question = exchange.query.question();
        let problem = Problem::limit_reached(question.name(), question.rr_type());
        if let Some(parked) = &mut exchange.parked {
            parked.limit = Some(AskerLimit::Room(evicted.client));
            parked.validation.lack_room();
        }
        let verdict = SecurityStatus::Indeterminate(problem);
        self.on_verdict(evicted.key, verdict, cx);
    }

    /// Asks for the records that the answer of an exchange needs, if there is room for an answer
    /// that waits.
    pub(super) fn wait_for(&mut self, key: ExchangeKey, needs: Vec<Need>, cx: &mut Cx<'_>) {
        if needs.is_empty() || self.make_room_to_wait(key) {
            for need in needs {
                self.ask_own_question(key, need, cx);
            }
        } else {
            self.evict(key, needs);
        }
    }

    /// Makes room for the answer of an exchange that has to wait for questions. As long as there is
    /// no room, the client that holds most gives up its newest answer. Returns `false` if that is
    /// the answer itself.
    fn make_room_to_wait(&mut self, key: ExchangeKey) -> bool {
        let (Some(validator), Some(own)) =
            (&self.validator, ParkedAnswer::of(key, &self.exchanges[key]))
        else {
            return false;
        };
        let limits = self.config.limits;
        let others = RoomUse {
            answers: validator.parked - 1,
            bytes: validator.held - own.len,
        };
        // Most of the time there is room for all answers, also for those that do not wait.
        if own.has_room_beside(others, &limits) {
            return true;
        }
        let mut waiting = self.waiting_answers();
        waiting.retain(|one| one.key != key);
        waiting.push(own);
        while let Some(place) = one_too_many(&waiting, &limits) {
            let evicted = waiting.remove(place);
            if evicted.key == key {
                return false;
            }
            self.evict(evicted.key, Vec::new());
        }
        true
    }

    /// Returns the answers that wait for questions of our own.
    fn waiting_answers(&self) -> Vec<ParkedAnswer> {
        let questions = self.validator.iter().flat_map(|one| &one.questions);
        let waiters = questions.flat_map(|question| question.waiters.iter().copied());
        let mut keys: Vec<ExchangeKey> = waiters.collect();
        keys.sort_unstable();
        keys.dedup();
        let answers = keys.into_iter();
        answers
            .filter_map(|key| ParkedAnswer::of(key, self.exchanges.get(key)?))
            .collect()
    }

    /// Ends the waiting of a parked answer, which gets a verdict without the records that it waits
    /// for and these further ones. No other upstream is asked: its answer would have to wait too.
    fn evict(&mut self, key: ExchangeKey, needs: Vec<Need>) {
        let (Some(exchange), Some(validator)) = (self.exchanges.get_mut(key), &mut self.validator)
        else {
            return;
        };
        let Some(parked) = &mut exchange.parked else {
            return;
        };
        for question in &mut validator.questions {
            let waiters = question.waiters.len();
            question.waiters.retain(|waiter| *waiter != key);
            if question.waiters.len() < waiters {
                let need = question.need.clone();
                parked.validation.on_unanswered(need, None);
            }
        }
        let limit = AskerLimit::Room(parked.client);
        self.leave_unanswered(key, needs, Some(limit));
    }

    /// Goes on with the validation of a parked answer without these records, because of a limit.
    pub(super) fn leave_unanswered(
        &mut self,
        key: ExchangeKey,
        needs: Vec<Need>,
        limit: Option<AskerLimit>,
    ) {
        let Some(parked) = &mut self.exchanges[key].parked else {
            return;
        };
        parked.limit = limit.or(parked.limit);
        for need in needs {
            parked.validation.on_unanswered(need, None);
        }
        self.followups.push(Followup::Validate(key));
    }

    /// Makes room for a question of our own that counts against a client. If the table is full, the
    /// newest question of the client that holds most ends. Returns `false` if that is this client.
    pub(super) fn make_room_for_question(
        &mut self,
        client: Option<Subscriber>,
        now: Instant,
    ) -> bool {
        let Some(validator) = &mut self.validator else {
            return false;
        };
        if validator.questions.len() < self.config.limits.validations {
            return true;
        }
        let exchanges = &self.exchanges;
        let questions = validator.questions.iter_mut().filter_map(|question| {
            let exchange = exchanges.get(question.exchange)?;
            Some((client_of(exchange), exchange.asked_at, question))
        });
        let questions: Vec<_> = questions.collect();
        let shares = questions.iter().map(|(holder, ..)| (*holder, 1));
        // The question that needs room counts as well.
        let holder = largest_holder(shares.chain([(client, 1)]), client);
        if holder == client {
            return false;
        }
        let questions = questions.into_iter();
        let of_holder = questions.filter(|(one, ..)| *one == holder);
        let newest = of_holder.max_by_key(|(_, asked_at, _)| *asked_at);
        let Some((_, _, newest)) = newest else {
            return false;
        };
        newest.limit = Some(AskerLimit::Room(holder));
        let ended = newest.exchange;
        self.end(ended, Outcome::Shed, now);
        self.on_own_question_ended(ended, now);
        true
    }
}
