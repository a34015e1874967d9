//! DNSSEC validation of answers, and the queries of our own that it needs.
//!
//! An answer is parked in its exchange while it is validated. Records of other zones that are
//! needed are asked for by exchanges of our own, in the same pool, once for all answers that wait
//! for them. Their answers are validated in the same way, and what they prove goes into the known
//! zones.
//!
//! ```text
//!   answer --> parked --> steps --> verdict --> delivered, with AD or without; bogus: SERVFAIL
//!                ^          |
//!                |          v needs DS or DNSKEY of a zone
//!                '-- known zones <-- verdict <-- steps <-- answer to a query of our own
//! ```
//!
//! Signatures cost time, so the steps of a turn have a limit. The others run in later turns.

mod counters;
mod late;
mod room;
#[cfg(test)]
mod simulation_tests;
#[cfg(test)]
mod tests;
mod turns;
mod verdicts;

pub use counters::DnssecCounters;

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use super::Proxy;
use super::actions::Cx;
use super::exchange::preferences::UpstreamSet;
use super::exchange::retry::AnswerSource;
use super::exchange::trace::StepKind;
use super::exchange::{Exchange, Purpose};
use super::followups::Followup;
use super::keys::{ExchangeKey, PoolIndex};
use crate::base::lazy_queue::LazyQueue;
use crate::base::origin::Subscriber;
use crate::base::time::Instant;
use crate::config::{CacheSettings, Config, DnssecMode, TrustAnchor};
use crate::dnssec::anchors::Anchors;
use crate::dnssec::clock::SignatureClock;
use crate::dnssec::denial_cache::{Denial, DenialCache};
use crate::dnssec::validation::{
    Context, Need, SecurityStatus, Subject, Validation, ValidationStep,
};
use crate::dnssec::work::Work;
use crate::dnssec::zones::{self, KnownZones, Problem, ZoneStatus};
use crate::dnssec::{Dnskey, Ds};
use crate::wire::name::{make_lowercase, suffixes};
use crate::wire::question::{CLASS_IN, Type};
use crate::wire::record::Record;
use crate::wire::{Flags, Message, Query, Question, Rcode};

/// The part of the cache size that the known zones have, and its bounds in bytes.
const ZONES_SHARE: usize = 8;
const ZONES_LEN: std::ops::RangeInclusive<usize> = 8 << 10..=80 << 10;
const _: () = assert!(zones::ENTRY_LEN_MAX <= *ZONES_LEN.start());

/// The part of the cache size that the denial cache has.
const DENIALS_SHARE: usize = 4;

/// Maximum delay of an answer by the questions of its validation, if the verdict is only logged.
const LOG_DELAY_MAX: Duration = Duration::from_secs(1);

/// The time between the end of the questions of a validation and the deadline of its answer, unless
/// it is more than a tenth of all the time.
const QUESTIONS_MARGIN: Duration = Duration::from_millis(50);

/// Time for which a zone is bogus if only one of several upstreams gave a bogus answer: another one
/// may have failed only briefly.
const BOGUS_OF_ONE: Duration = Duration::from_secs(1);

/// The name of the root zone.
const ROOT: &[u8] = &[0];

/// An owner that is a pointer to the name in the question.
const OWNER_IN_QUESTION: &[u8] = b"\xc0\x0c";

/// The validator.
#[derive(Debug)]
pub(super) struct Validator {
    mode: DnssecMode,
    anchors: Anchors,
    zones: KnownZones,
    /// The keys of the root zone that trust anchors may name, by tag, and whether one does.
    root_keys: Vec<(u16, bool)>,
    denials: DenialCache,
    clock: SignatureClock,
    /// The pools whose answers are validated.
    pools: Vec<bool>,
    /// Questions of our own that are being asked.
    questions: Vec<OwnQuestion>,
    /// Exchanges whose validation goes on in a later turn, and the time of the first one.
    runnable: VecDeque<ExchangeKey>,
    runnable_since: Instant,
    /// The ends of the time that parked answers have for questions.
    by_questions_until: LazyQueue<(Instant, ExchangeKey)>,
    /// The rest of the cost of signatures, hashes and digests in this turn.
    cost_left: u32,
    /// The number of answers that are being validated, and their bytes.
    parked: usize,
    held: usize,
    /// The number of searches for the clients that need an answer.
    searches: u32,
}

/// A limit of the answer for which a question of our own was asked. Other answers that wait for the
/// question may be within this limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AskerLimit {
    /// The number of questions above a question.
    Depth,
    /// The work.
    Work,
    /// The time until the deadline, which began too late or in which we verified too slowly.
    Time,
    /// The time until the deadline, in which upstream had enough time and did not answer.
    Silence,
    /// The room, of which this client held most.
    Room(Option<Subscriber>),
}

/// The limit because of which an answer is not validated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AnswerLimit {
    /// There is no room beside the answers of other clients.
    Room,
    /// There is never room for an answer of its length.
    Len,
    /// The answer has too many records, or malformed ones.
    Records,
}

/// A question of our own.
#[derive(Debug)]
struct OwnQuestion {
    need: Need,
    pool: PoolIndex,
    exchange: ExchangeKey,
    /// The number of questions above it, up to the answer that needed it first.
    depth: u8,
    /// The work for the answer that needed it first.
    work: Rc<Work>,
    /// The deadline. It does not depend on the answers that wait for the question.
    until: Instant,
    /// The upstreams that it avoids.
    avoid: UpstreamSet,
    /// The exchanges whose answers wait for it.
    waiters: Vec<ExchangeKey>,
    /// The upstreams with a bogus answer.
    bogus_of: UpstreamSet,
    /// The answer is in the known zones.
    is_learned: bool,
    /// Why the answer could not be verified.
    problem: Option<Problem>,
    /// The limit that was reached before the answer was verified.
    limit: Option<AskerLimit>,
}

impl OwnQuestion {
    /// Returns whether an answer that waits for the question is within the limit that the question
    /// has reached. Without such a limit, the question would fail again.
    fn may_be_asked_again(&self, depth: u8, parked: &Parked) -> bool {
        match self.limit {
            None => false,
            Some(AskerLimit::Depth) => depth < self.depth,
            Some(AskerLimit::Work) => !parked.work.is_exhausted(),
            Some(AskerLimit::Time | AskerLimit::Silence) => self.until < parked.questions_until,
            Some(AskerLimit::Room(client)) => client != parked.client,
        }
    }
}

/// An answer that is being validated.
#[derive(Debug)]
pub(super) struct Parked {
    validation: Validation,
    /// The work for the answer to a client, or for the one that needs this answer.
    work: Rc<Work>,
    /// The client that the answer counts against.
    client: Option<Subscriber>,
    source: AnswerSource,
    /// The deadline of the questions of our own.
    questions_until: Instant,
    /// The limit because of which a question has no answer.
    limit: Option<AskerLimit>,
    /// A question was asked again after upstream did not answer it in all of its time.
    met_silence: bool,
    /// The last search for clients that has found this answer.
    found_by: u32,
}

/// Returns the bytes of the cache size that the known zones and the denial cache have.
fn shares(config: &Config) -> [usize; 2] {
    let zones_len = config.cache.size / ZONES_SHARE;
    let denials_len = match config.dnssec.mode {
        DnssecMode::On => config.cache.size / DENIALS_SHARE,
        DnssecMode::Log | DnssecMode::Off => 0,
    };
    [
        zones_len.clamp(*ZONES_LEN.start(), *ZONES_LEN.end()),
        denials_len,
    ]
}

/// Returns the settings of the answer cache, which shares the cache size with the tables of the
/// validator.
pub(super) fn cache_settings(config: &Config) -> CacheSettings {
    let taken: usize = match config.dnssec.mode {
        DnssecMode::Off => 0,
        DnssecMode::Log | DnssecMode::On => shares(config).iter().sum(),
    };
    CacheSettings {
        size: config.cache.size.saturating_sub(taken),
        ..config.cache
    }
}

impl Validator {
    /// Creates the validator of these settings, if they ask for one.
    pub(super) fn new(config: &Config, pools: Vec<bool>) -> Option<Box<Self>> {
        let settings = &config.dnssec;
        if settings.mode == DnssecMode::Off || !pools.contains(&true) {
            return None;
        }
        let built_in = TrustAnchor::built_in();
        let anchors = match &settings.anchors[..] {
            [] => &built_in,
            anchors => anchors,
        };
        let [zones_len, denials_len] = shares(config);
        Some(Box::new(Self {
            mode: settings.mode,
            anchors: Anchors::new(anchors, &settings.negative_anchors),
            zones: KnownZones::new(zones_len),
            root_keys: Vec::new(),
            denials: DenialCache::new(denials_len),
            clock: SignatureClock::default(),
            pools,
            questions: Vec::new(),
            runnable: VecDeque::new(),
            runnable_since: Instant::default(),
            by_questions_until: LazyQueue::default(),
            cost_left: config.limits.signatures_per_turn,
            parked: 0,
            held: 0,
            searches: 0,
        }))
    }

    /// Returns whether AD in a response is the verdict of the validator.
    pub(super) fn sets_ad(&self) -> bool {
        self.mode == DnssecMode::On
    }

    /// Returns whether the verdicts on the answers of a pool decide on their responses. Then its
    /// upstreams need not validate: with CD in a query, an answer passes that they find bogus (RFC
    /// 6840, section 5.9).
    pub(super) fn decides_for(&self, pool: PoolIndex) -> bool {
        self.mode == DnssecMode::On && self.validates(pool)
    }

    /// Returns whether the query of an exchange has to have DO, which an upstream may refuse.
    pub(super) fn needs_dnssec(&self, exchange: &Exchange) -> bool {
        let is_for_log = self.mode == DnssecMode::Log && exchange.is_for_answer();
        !is_for_log || exchange.wants_proof()
    }

    /// Returns whether the nearest anchor, positive or negative, of a name is also that of a name
    /// below it.
    pub(super) fn has_same_anchor(&self, above: &[u8], name: &[u8]) -> bool {
        self.anchors.depth(above) == self.anchors.depth(name)
    }

    /// Returns whether answers of a pool are validated.
    pub(super) fn validates(&self, pool: PoolIndex) -> bool {
        self.pools.get(pool.0) == Some(&true)
    }

    /// Returns whether an answer is known to be insecure without its validation: it has no signature,
    /// no alias and no record that does not answer the question, and the nearest known zone above
    /// its name is insecure.
    fn is_known_insecure(&mut self, answer: &Message<'_>, pool: PoolIndex, now: Instant) -> bool {
        let Some(question) = answer.question() else {
            return false;
        };
        if !self.anchors.covers(question.name()) {
            return true;
        }
        let bytes = answer.bytes();
        let is_plain = |record: Record| {
            record.rr_type == question.rr_type()
                && bytes.get(record.start..record.fixed) == Some(OWNER_IN_QUESTION)
        };
        let is_soa = |record: Record| record.rr_type == Type::SOA;
        let is_opt = |record: Record| record.rr_type == Type::OPT;
        let [_, authorities_end] = answer.answer_and_authority_ends();
        let mut additionals = answer.records(authorities_end, answer.end());
        if !answer.answers().all(is_plain)
            || !answer.authorities().all(is_soa)
            || !additionals.all(is_opt)
        {
            return false;
        }
        let mut name: Box<[u8]> = question.name().into();
        make_lowercase(&mut name);
        let is_ds = question.rr_type() == Type::DS;
        for suffix in suffixes(&name).skip(usize::from(is_ds)) {
            match self.zones.get(suffix, pool.0, now) {
                Some(ZoneStatus::Insecure) => return true,
                Some(ZoneStatus::NotDelegated) | None => {}
                Some(_) => return false,
            }
            if self.anchors.of_zone(suffix).is_some() {
                return false;
            }
        }
        false
    }

    /// Returns the number of known zones and their bytes.
    pub(super) fn zones_usage(&self) -> (usize, usize) {
        (self.zones.len(), self.zones.bytes())
    }

    /// Returns the keys of the root zone that trust anchors may name, by tag, and whether one does.
    /// Empty until the root zone is validated.
    pub(super) fn root_keys(&self) -> &[(u16, bool)] {
        &self.root_keys
    }

    /// Records the keys of the root zone, which are verified.
    fn learn_root_keys(&mut self, keys: &[Box<[u8]>]) {
        let parsed = keys.iter().filter_map(|data| Dnskey::parse(data).ok());
        let anchored = self.anchors.of_zone(ROOT).unwrap_or_default();
        let is_anchored = |key: &Dnskey<'_>| {
            let mut anchored = anchored.iter().filter_map(|data| Ds::parse(data).ok());
            anchored.any(|ds| ds.matches(ROOT, key))
        };
        let shown = parsed.filter(Dnskey::is_secure_entry_point);
        self.root_keys = shown.map(|key| (key.tag, is_anchored(&key))).collect();
    }

    /// Returns the number of records in the denial cache and their bytes.
    pub(super) fn denials_usage(&self) -> (usize, usize) {
        (self.denials.len(), self.denials.bytes())
    }

    /// Returns the denial of the name or the type in a question of class IN, if verified NSEC or
    /// NSEC3 records of this pool deny it (RFC 8198). No TTL in it is higher than `ttl_max` seconds.
    pub(super) fn deny(
        &self,
        question: Question<'_>,
        pool: PoolIndex,
        ttl_max: u32,
        now: Instant,
    ) -> Option<Denial<'_>> {
        if !self.validates(pool) {
            return None;
        }
        // The records of a zone say nothing of an anchor below it.
        let anchor = self.anchors.nearest(question.name())?;
        let denial = self.denials.deny(question, pool.0, ttl_max, now)?;
        (denial.zone_len() >= anchor.len()).then_some(denial)
    }

    /// Adds the verified denials of a secure answer to the denial cache.
    fn learn_denials(&mut self, validation: &Validation, pool: PoolIndex, now: Instant) {
        if self.mode == DnssecMode::On {
            let records = validation.proven_records();
            self.denials.insert(&records, pool.0, now);
        }
    }
}

/// Returns the depth of a question that an exchange with this purpose needs.
fn depth_below(purpose: &Purpose) -> u8 {
    match purpose {
        Purpose::Validation { depth, .. } => depth + 1,
        _ => 0,
    }
}

/// Returns whether answers to a query are validated: it does not disable that (CD), and the class
/// has trust anchors.
fn is_checked(query: &Query) -> bool {
    !query.flags().contains(Flags::CD) && query.question().class() == CLASS_IN
}

impl Proxy {
    /// Sets the time by which signatures are judged.
    pub fn set_signature_clock(&mut self, clock: SignatureClock) {
        if let Some(validator) = &mut self.validator {
            validator.clock = clock;
        }
    }

    /// Empties the known zones and the denial cache.
    pub(super) fn forget_zones(&mut self) {
        let [zones_len, denials_len] = shares(&self.config);
        if let Some(validator) = &mut self.validator {
            validator.zones = KnownZones::new(zones_len);
            validator.denials = DenialCache::new(denials_len);
        }
    }

    /// Returns whether answers are validated, so that [`Proxy::set_signature_clock`] matters.
    pub fn is_validating(&self) -> bool {
        self.validator.is_some()
    }

    /// Starts the validation of an answer, or delivers it if it is not to be validated.
    #[cold]
    pub(super) fn validate(
        &mut self,
        key: ExchangeKey,
        answer: &Message<'_>,
        source: AnswerSource,
        cx: &mut Cx<'_>,
    ) {
        let exchange = &self.exchanges[key];
        if exchange.parked.is_some() {
            return;
        }
        let validator = self.validator.as_mut().expect("the validator is on");
        let is_data = matches!(answer.rcode(), Rcode::NOERROR | Rcode::NXDOMAIN);
        let question = exchange.query.question();
        let is_checked = is_checked(&exchange.query)
            && !matches!(exchange.purpose, Purpose::Probe | Purpose::Bootstrap(..));
        if !is_data || !is_checked || !validator.validates(exchange.pool) {
            self.on_accepted(key, || source, cx.now);
            return self.deliver_unchecked(key, answer, cx);
        }
        if exchange.is_for_answer() && validator.is_known_insecure(answer, exchange.pool, cx.now) {
            let verdict = SecurityStatus::Insecure;
            self.counters.dnssec.count_verdict(&verdict);
            self.exchanges[key].security = Some(verdict.kind());
            self.on_accepted(key, || source, cx.now);
            return self.deliver_unchecked(key, answer, cx);
        }
        let subject = match (exchange.purpose, question.rr_type()) {
            (Purpose::Validation { .. }, Type::DS) => Subject::Delegation,
            (Purpose::Validation { .. }, _) => Subject::Keys,
            _ => Subject::Answer,
        };
        let len = answer.bytes().len();
        if !self.may_have_room_to_verify(key, len) {
            return self.on_limit(key, answer, (source, AnswerLimit::Len), cx);
        }
        if !self.make_room_to_verify(key, len, cx) {
            return self.on_limit(key, answer, (source, AnswerLimit::Room), cx);
        }
        let Ok(validation) = Validation::new(answer.bytes().into(), subject) else {
            return self.on_limit(key, answer, (source, AnswerLimit::Records), cx);
        };
        let validator = self.validator.as_mut().expect("the validator is on");
        validator.parked += 1;
        validator.held += len;
        let only_logs = validator.mode == DnssecMode::Log;
        let exchange = &mut self.exchanges[key];
        exchange.tracer.on_wait(StepKind::Validation, cx.now);
        // The answer has time left for a verdict without the records.
        let margin = QUESTIONS_MARGIN.min(self.config.timeouts.deadline / 10);
        let mut time_left = (exchange.deadline - cx.now).saturating_sub(margin);
        if only_logs {
            time_left = time_left.min(LOG_DELAY_MAX);
        }
        let own = validator.questions.iter();
        let mut own = own.filter(|own| own.exchange == key && subject != Subject::Answer);
        let work = own.next().map(|own| Rc::clone(&own.work));
        // An attempt that waits for a link is not needed unless the answer is bogus.
        exchange.is_waiting = false;
        exchange.parked = Some(Box::new(Parked {
            validation,
            work: work.unwrap_or_default(),
            client: room::client_of(exchange),
            source,
            questions_until: cx.now + time_left,
            limit: None,
            met_silence: false,
            found_by: 0,
        }));
        self.abandon_attempts(key, cx.now);
        self.schedule_late_verdict(key, cx.now + time_left);
        self.followups.push(Followup::Validate(key));
    }

    /// Performs steps of a validation until its verdict, until it needs other records, or until
    /// the limit of the turn.
    pub(super) fn run_validation(&mut self, key: ExchangeKey, cx: &mut Cx<'_>) {
        loop {
            let (Some(exchange), Some(validator)) =
                (self.exchanges.get_mut(key), &mut self.validator)
            else {
                return;
            };
            let Some(parked) = &mut exchange.parked else {
                return;
            };
            if validator.cost_left == 0 {
                if validator.runnable.is_empty() {
                    validator.runnable_since = cx.now;
                }
                if !validator.runnable.contains(&key) {
                    validator.runnable.push_back(key);
                }
                return;
            }
            let Parked {
                validation, work, ..
            } = &mut **parked;
            let spent_before = work.cost_spent();
            let step = validation.step(&mut Context {
                zones: &mut validator.zones,
                pool: exchange.pool.0,
                anchors: &validator.anchors,
                clock: validator.clock,
                now: cx.now,
                work,
            });
            let cost = work.cost_spent() - spent_before;
            validator.cost_left = validator.cost_left.saturating_sub(cost);
            match step {
                ValidationStep::Yield { is_right } => {
                    self.counters.dnssec.count_signature(is_right);
                }
                ValidationStep::Need(needs) => return self.wait_for(key, needs, cx),
                ValidationStep::Done(verdict) => return self.on_verdict(key, verdict, cx),
            }
        }
    }

    /// Returns the time since which validations wait for the next turn, if any do.
    pub(super) fn validations_wait_since(&self) -> Option<Instant> {
        let validator = self.validator.as_ref()?;
        (!validator.runnable.is_empty()).then_some(validator.runnable_since)
    }

    /// Goes on with the validations that wait for this turn.
    pub(super) fn run_validations(&mut self, cx: &mut Cx<'_>) {
        let Some(validator) = &mut self.validator else {
            return;
        };
        validator.cost_left = self.config.limits.signatures_per_turn;
        let runnable = std::mem::take(&mut validator.runnable);
        for key in self.in_turn_by_client(runnable.into()) {
            self.run_validation(key, cx);
        }
    }

    /// Asks for records that the answer of an exchange needs, or waits for the same question.
    fn ask_own_question(&mut self, waiter: ExchangeKey, need: Need, cx: &mut Cx<'_>) {
        let exchange = &self.exchanges[waiter];
        let Some(parked) = &exchange.parked else {
            return;
        };
        if parked.questions_until <= cx.now {
            let limit = if parked.met_silence {
                AskerLimit::Silence
            } else {
                AskerLimit::Time
            };
            return self.leave_unanswered(waiter, vec![need], Some(limit));
        }
        let work = Rc::clone(&parked.work);
        let client = parked.client;
        let pool = exchange.pool;
        let depth = depth_below(&exchange.purpose);
        // The records come from another upstream than an answer that could not be verified.
        let failed = exchange.preferences.exclude;
        let avoid = failed.with(exchange.purpose.avoided());
        let validator = self.validator.as_mut().expect("the validator is on");
        let mut questions = validator.questions.iter_mut();
        let is_same = |asked: &&mut OwnQuestion| {
            asked.need == need && asked.pool == pool && asked.avoid == avoid
        };
        if let Some(question) = questions.find(is_same) {
            return question.waiters.push(waiter);
        }
        let limit = if depth >= self.config.limits.validation_depth {
            Some(AskerLimit::Depth)
        } else if !work.take_question() {
            Some(AskerLimit::Work)
        } else if !self.make_room_for_question(client, cx.now) {
            Some(AskerLimit::Room(client))
        } else {
            None
        };
        if limit.is_some() {
            return self.leave_unanswered(waiter, vec![need], limit);
        }
        self.counters.dnssec.count_question(need.rr_type);
        let query = Query::for_zone(&need.name, need.rr_type);
        let purpose = Purpose::Validation {
            depth,
            avoid,
            client,
        };
        // An answer gets its verdict at the end of its own time, and the question goes on.
        let deadline = cx.now + self.config.timeouts.deadline;
        let exchange = Exchange::new(purpose, pool, query, (cx.now, deadline));
        let exchange = self.start(exchange, cx);
        let validator = self.validator.as_mut().expect("the validator is on");
        validator.questions.push(OwnQuestion {
            need,
            pool,
            exchange,
            depth,
            work,
            until: deadline,
            avoid,
            waiters: vec![waiter],
            bogus_of: UpstreamSet::default(),
            is_learned: false,
            problem: None,
            limit: None,
        });
    }

    /// Goes on with the validations that waited for a question of our own, whose exchange has ended.
    pub(super) fn on_own_question_ended(&mut self, key: ExchangeKey, now: Instant) {
        let Some(validator) = &mut self.validator else {
            return;
        };
        let mut questions = validator.questions.iter();
        let Some(place) = questions.position(|question| question.exchange == key) else {
            return;
        };
        let mut question = validator.questions.swap_remove(place);
        if now >= question.until {
            question.limit = question.limit.or(Some(AskerLimit::Silence));
        }
        for waiter in &question.waiters {
            let Some(exchange) = self.exchanges.get_mut(*waiter) else {
                continue;
            };
            let depth = depth_below(&exchange.purpose);
            let Some(parked) = exchange.parked.as_mut() else {
                continue;
            };
            if question.is_learned || question.may_be_asked_again(depth, parked) {
                let is_silent = question.limit == Some(AskerLimit::Silence);
                parked.met_silence |= is_silent && !question.is_learned;
                parked.validation.on_answered(&question.need);
            } else {
                let (need, problem) = (question.need.clone(), question.problem.clone());
                parked.limit = question.limit.or(parked.limit);
                parked.validation.on_unanswered(need, problem);
            }
            self.followups.push(Followup::Validate(*waiter));
        }
        if validator.questions.is_empty() {
            validator.questions = Vec::new();
        }
    }

    /// Takes the parked answer of an exchange, if it has one.
    pub(super) fn take_parked(&mut self, key: ExchangeKey) -> Option<Box<Parked>> {
        let parked = self.exchanges[key].parked.take()?;
        if let Some(validator) = &mut self.validator {
            validator.parked -= 1;
            validator.held -= parked.validation.message().len();
        }
        Some(parked)
    }
}
