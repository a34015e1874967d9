//! The order in which answers are verified: the clients that need them take turns.

use std::collections::{BTreeMap, BTreeSet};

use super::room::client_of;
use crate::base::origin::Subscriber;
use crate::proxy::Proxy;
use crate::proxy::keys::ExchangeKey;

/// The answers that wait for the answer of an exchange.
type WaitersByExchange<'a> = BTreeMap<ExchangeKey, &'a [ExchangeKey]>;

impl Proxy {
    /// Orders answers that are being verified so that the clients that need them take turns: the
    /// first answer of each client, then the second ones, and so on. An answer that several clients
    /// need takes the turn of the one that has had the fewest.
    pub(super) fn in_turn_by_client(&self, answers: Vec<ExchangeKey>) -> Vec<ExchangeKey> {
        if answers.len() < 2 {
            return answers;
        }
        let questions = self.validator.iter().flat_map(|it| &it.questions);
        let waiters: WaitersByExchange<'_> = questions
            .map(|question| (question.exchange, &question.waiters[..]))
            .collect();
        let mut turns_by_client = BTreeMap::new();
        let ranked = answers.into_iter().filter_map(|key| {
            let clients = self.clients_that_need(key, &waiters);
            let turns_of =
                |client: &Option<Subscriber>| turns_by_client.get(client).copied().unwrap_or(0);
            let client = clients.into_iter().min_by_key(turns_of)?;
            let turns = turns_by_client.entry(client).or_insert(0_usize);
            *turns += 1;
            Some((*turns, key))
        });
        let mut ranked: Vec<(usize, ExchangeKey)> = ranked.collect();
        ranked.sort_by_key(|(turn, _)| *turn);
        ranked.into_iter().map(|(_, key)| key).collect()
    }

    /// Returns the clients that need the answer of an exchange: the one that it counts against,
    /// those of its followers, and those of the answers that wait for it.
    fn clients_that_need(
        &self,
        key: ExchangeKey,
        waiters: &WaitersByExchange<'_>,
    ) -> BTreeSet<Option<Subscriber>> {
        let mut clients = BTreeSet::new();
        let mut seen = BTreeSet::from([key]);
        let mut open = vec![key];
        while let Some(key) = open.pop() {
            let Some(exchange) = self.exchanges.get(key) else {
                continue;
            };
            clients.insert(client_of(exchange));
            let followers = exchange.followers.iter();
            clients.extend(followers.filter_map(|one| Some(self.exchanges.get(*one)?.holder)));
            let waiting = waiters.get(&key).copied().unwrap_or_default();
            open.extend(waiting.iter().copied().filter(|one| seen.insert(*one)));
        }
        clients
    }
}
