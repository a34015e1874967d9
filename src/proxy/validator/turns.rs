//! The order in which answers are verified: the clients that need them take turns.

use super::room::{ClientCounts, client_of};
use crate::base::origin::Subscriber;
use crate::proxy::Proxy;
use crate::proxy::exchange::{Exchange, Purpose};
use crate::proxy::keys::ExchangeKey;

impl Proxy {
    /// Orders answers that are being verified so that the clients that need them take turns: the
    /// first answer of each client, then the second ones, and so on. An answer that several clients
    /// need takes the turn of the one that has had the fewest.
    pub(super) fn in_turn_by_client(&mut self, answers: Vec<ExchangeKey>) -> Vec<ExchangeKey> {
        if answers.len() < 2 {
            return answers;
        }
        let mut turns = ClientCounts::default();
        let mut ranked: Vec<(usize, ExchangeKey)> = Vec::with_capacity(answers.len());
        for key in answers {
            if self.exchanges.get(key).is_some_and(Exchange::is_parked) {
                let client = self.least_served(key, &turns);
                turns.add(client, 1);
                ranked.push((turns.get(client), key));
            }
        }
        ranked.sort_by_key(|(turn, _)| *turn);
        ranked.into_iter().map(|(_, key)| key).collect()
    }

    /// Returns the client with the fewest turns among those that need the answer of an exchange:
    /// the one that it counts against, those of its followers, and those of the answers that wait
    /// for it.
    fn least_served(&mut self, key: ExchangeKey, turns: &ClientCounts) -> Option<Subscriber> {
        let exchanges = &mut self.exchanges;
        let validator = self.validator.as_mut()?;
        validator.searches = validator.searches.wrapping_add(1);
        let search = validator.searches;
        let mut least: Option<(usize, Option<Subscriber>)> = None;
        let mut open = vec![key];
        while let Some(key) = open.pop() {
            let Some(exchange) = exchanges.get_mut(key) else {
                continue;
            };
            // An answer may wait for several questions, and be found by each of them.
            match &mut exchange.parked {
                Some(parked) if parked.found_by != search => parked.found_by = search,
                _ => continue,
            }
            let exchange = &exchanges[key];
            let followers = exchange.followers.iter();
            let followers = followers.filter_map(|one| Some(exchanges.get(*one)?.holder));
            for client in followers.chain([client_of(exchange)]) {
                let turns = turns.get(client);
                if least.is_none_or(|(fewest, _)| turns < fewest) {
                    least = Some((turns, client));
                }
            }
            if let Purpose::Validation { .. } = exchange.purpose {
                let mut questions = validator.questions.iter();
                let question = questions.find(|question| question.exchange == key);
                open.extend(question.iter().flat_map(|question| &question.waiters));
            }
        }
        least.and_then(|(_, client)| client)
    }
}
