//! DNS64 (RFC 6147): answers with AAAA records that are made of A records, for clients without
//! IPv4.
//!
//! An answer without AAAA records is kept in its exchange, while an exchange of our own asks for
//! the A records of the name. Their answer becomes the answer to the first exchange, which caches
//! and delivers it like one from upstream. A PTR query for an address of the prefix is not sent
//! upstream: the answer for the IPv4 address becomes its answer, behind a CNAME record.
//!
//! ```text
//!   AAAA query --> upstream --> no AAAA record --> A query of our own --> mapped --> delivered
//!   PTR query of the prefix ---------------------> PTR query of our own --> mapped --> delivered
//! ```

mod message;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr};

use super::Proxy;
use super::actions::Cx;
use super::client::{hosts, local_zones};
use super::exchange::classify::{is_error, is_truncated, shortened};
use super::exchange::{Exchange, Purpose};
use super::followups::Followup;
use super::keys::ExchangeKey;
use super::outcome::Outcome;
use crate::config::Config;
use crate::config::hosts::address_of_pointer;
use crate::dnssec::validation::SecurityKind;
use crate::wire::name::Name;
use crate::wire::question::{CLASS_IN, Type};
use crate::wire::{Flags, Message, Query, Question, Rcode};

/// Maximum length of an answer that is kept whole while it is mapped. Few negative answers are
/// longer, with their proofs.
const ORIGINAL_LEN_MAX: usize = 4_096;

/// The mapping of the answer of an exchange. It is pending until its end.
#[derive(Debug, Default)]
pub(super) struct Mapping {
    is_pending: bool,
    /// The answer without AAAA records, shortened if it is long; `None` for a PTR query.
    original: Option<Box<[u8]>>,
    /// The mapped answer.
    mapped: Option<Vec<u8>>,
}

/// Returns whether a client may get an answer with this AAAA record: IPv4-mapped addresses are
/// excluded (RFC 6147, section 5.1.4).
fn is_usable(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.to_ipv4_mapped().is_none())
}

impl Proxy {
    /// Returns whether AAAA records may be made for a question with these flags. A client that sets
    /// CD and DO validates by itself, and would find them bogus (RFC 6147, section 5.5).
    pub(super) fn makes_addresses(
        &self,
        question: Question<'_>,
        flags: Flags,
        wants_proof: bool,
    ) -> bool {
        self.config.dns64.is_some()
            && question.rr_type() == Type::AAAA
            && question.class() == CLASS_IN
            && !(wants_proof && flags.contains(Flags::CD))
    }

    /// Returns the name for the IPv4 address in a question for the PTR records of an address of the
    /// prefix (RFC 6147, section 5.3.1).
    pub(super) fn reverse_target(&self, question: Question<'_>) -> Option<Name> {
        let prefix = self.config.dns64?;
        if question.rr_type() != Type::PTR || question.class() != CLASS_IN {
            return None;
        }
        let IpAddr::V6(address) = address_of_pointer(question.name())? else {
            return None;
        };
        let [a, b, c, d] = prefix.extract(address)?.octets();
        format!("{d}.{c}.{b}.{a}.in-addr.arpa").parse().ok()
    }

    /// Begins to map the answer of an exchange if it has no usable AAAA record. Returns whether the
    /// answer is handled here.
    pub(super) fn begin_mapping(
        &mut self,
        key: ExchangeKey,
        answer: &Message<'_>,
        cx: &mut Cx<'_>,
    ) -> bool {
        let exchange = &self.exchanges[key];
        let query = &exchange.query;
        let question = query.question();
        if exchange.mapping.is_some()
            || !exchange.is_for_answer()
            || !self.makes_addresses(question, query.flags(), exchange.wants_proof())
            || answer.rcode() == Rcode::NXDOMAIN
            || is_truncated(answer)
            || exchange.is_rejected(answer)
        {
            return false;
        }
        let name = question.name().to_vec();
        let addresses = || answer.answers().filter_map(|it| it.address(answer.bytes()));
        let addresses = || addresses().filter(IpAddr::is_ipv6);
        if addresses().any(is_usable) {
            self.exchanges[key].mapping = Some(Box::default());
            if addresses().all(is_usable) {
                return false;
            }
            let Ok(usable) = message::with_usable_addresses(answer) else {
                return false;
            };
            let usable = Message::parse(&usable).expect("its records are well formed");
            self.deliver(key, &usable, cx);
            return true;
        }
        let original = match answer.bytes() {
            bytes if bytes.len() <= ORIGINAL_LEN_MAX => bytes.into(),
            _ => shortened(answer),
        };
        let original = Some(original);
        self.wait_for_mapping(key, original, (&name, Type::A), cx);
        true
    }

    /// Begins to answer a PTR query for an address of the prefix. Returns whether it is one.
    pub(super) fn begin_reverse_mapping(&mut self, key: ExchangeKey, cx: &mut Cx<'_>) -> bool {
        let exchange = &self.exchanges[key];
        if !exchange.is_for_answer() {
            return false;
        }
        let Some(target) = self.reverse_target(exchange.query.question()) else {
            return false;
        };
        self.wait_for_mapping(key, None, (target.as_bytes(), Type::PTR), cx);
        true
    }

    /// Lets an exchange wait for the answer to another question, which is mapped.
    fn wait_for_mapping(
        &mut self,
        key: ExchangeKey,
        original: Option<Box<[u8]>>,
        (name, rr_type): (&[u8], Type),
        cx: &mut Cx<'_>,
    ) {
        let exchange = &mut self.exchanges[key];
        exchange.is_waiting = false;
        exchange.mapping = Some(Box::new(Mapping {
            is_pending: true,
            original,
            mapped: None,
        }));
        let (deadline, holder) = (exchange.deadline, exchange.holder);
        self.abandon_attempts(key, cx.now);
        let mut query = Query::of_name(name, rr_type);
        if let Some(answer) = self.known_answer(query.question(), cx) {
            let answer = Message::parse(&answer).expect("our own answers are well formed");
            self.map_answer(key, &answer, None);
            return self.followups.push(Followup::Mapped(key));
        }
        let Some(pool) = self.routes.pool(name) else {
            return self.followups.push(Followup::Mapped(key));
        };
        let validator = self.validator.as_ref();
        query.set_dnssec(validator.is_some_and(|validator| validator.validates(pool)));
        let lookup = self.cache.lookup_of(name);
        let purpose = Purpose::Mapping(key);
        let mut exchange = Exchange::new(purpose, pool, query, (cx.now, deadline));
        exchange.holder = holder;
        exchange.lookup = lookup;
        self.start(exchange, cx);
    }

    /// Returns the answer to a question of our own from a local zone, a hosts file or the cache.
    fn known_answer(&mut self, question: Question<'_>, cx: &Cx<'_>) -> Option<Vec<u8>> {
        if let Some(reply) = hosts::reply(&self.config.hosts, question) {
            return Some(reply);
        }
        if self.routes.own(question.name()).is_none()
            && let Some(reply) = local_zones::reply(question)
        {
            return Some(reply);
        }
        let lookup = self.cache.lookup_of(question.name())?;
        self.cache.fresh_answer(question, lookup, cx.now)
    }

    /// Maps the answer to a question of our own for the exchange that waits for it.
    pub(super) fn map_answer(
        &mut self,
        waiter: ExchangeKey,
        answer: &Message<'_>,
        security: Option<SecurityKind>,
    ) {
        let Some(exchange) = self.exchanges.get_mut(waiter) else {
            return;
        };
        let Some(mapping) = &mut exchange.mapping else {
            return;
        };
        let question = exchange.query.question();
        let original = mapping.original.as_deref();
        let original = original.and_then(|bytes| Message::parse(bytes).ok());
        mapping.mapped = match &original {
            _ if is_truncated(answer) => None,
            None => message::behind_alias(question, answer),
            Some(_) if is_error(answer.rcode()) => message::error_of(question, answer),
            Some(original) => match self.config.dns64 {
                Some(prefix) => message::with_mapped_addresses(question, original, answer, prefix),
                // A reload has turned DNS64 off.
                None => Some(original.bytes().to_vec()),
            },
        };
        // Both answers decide on the verdict (RFC 6147, section 5.5).
        if security.is_some_and(|security| security != SecurityKind::Secure) {
            exchange.security = security;
        }
    }

    /// Delivers the mapped answer of an exchange, or the original one without a mapped one.
    pub(super) fn end_mapping(&mut self, key: ExchangeKey, cx: &mut Cx<'_>) {
        let Some(exchange) = self.exchanges.get_mut(key) else {
            return;
        };
        let mapping = exchange.mapping.as_mut();
        let Some(mapping) = mapping.filter(|mapping| mapping.is_pending) else {
            return;
        };
        mapping.is_pending = false;
        mapping.original = None;
        let Some(answer) = mapping.mapped.take() else {
            return self.fail(key, Outcome::UpstreamFailed, cx);
        };
        let answer = Message::parse(&answer).expect("a mapped answer is well formed");
        self.deliver(key, &answer, cx);
    }
}

/// Returns the reply to a question for `ipv4only.arpa`, by which clients detect the prefix (RFC
/// 7050; RFC 8880, section 7.1), with id 0 for the caller to replace.
pub(super) fn reply(config: &Config, question: Question<'_>) -> Option<Vec<u8>> {
    const NAME: &[u8] = b"\x08ipv4only\x04arpa\0";
    let prefix = config.dns64?;
    if !question.name().eq_ignore_ascii_case(NAME) || question.class() != CLASS_IN {
        return None;
    }
    let addresses = [170, 171].map(|last| Ipv4Addr::new(192, 0, 0, last));
    let mapped = addresses.map(|address| IpAddr::from(prefix.embed_any(address)));
    let all = [addresses.map(IpAddr::from), mapped].concat();
    Some(hosts::reply_with(&all, question))
}
