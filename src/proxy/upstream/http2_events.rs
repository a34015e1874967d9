//! Events of links over HTTP/2: limits on streams, GOAWAY, and requests that end without a message.

use super::link::Link;
use crate::base::failure::FailureKind;
use crate::base::time::Instant;
use crate::proxy::Proxy;
use crate::proxy::actions::{Cx, Outbox};
use crate::proxy::client::log_throttle::NoAnswer;
use crate::proxy::keys::{Attempt, LinkKey};
use crate::wire::edns::{ExtendedErrorCode, append_error};
use crate::wire::header::{Flags, Header, Rcode};

/// The UDP size in the OPT record of a reply that is made here. It has no effect.
const UDP_LEN: u16 = 1232;

impl Proxy {
    /// Handles the number of streams that the upstream allows on a link.
    pub fn handle_streams_max(
        &mut self,
        key: LinkKey,
        streams_max: usize,
        now: Instant,
        outbox: &mut Outbox,
    ) {
        if let Some(link) = self.upstreams.link_mut(key) {
            link.set_streams_max(streams_max);
            self.followups.on_room();
        }
        self.settle(&mut Cx { now, outbox });
    }

    /// Handles GOAWAY: the link takes no new query, and is closed after its last answer.
    pub fn handle_draining(&mut self, key: LinkKey, now: Instant, outbox: &mut Outbox) {
        let cx = &mut Cx { now, outbox };
        if let Some(link) = self.upstreams.link_mut(key) {
            link.on_goaway();
            self.close_if_done(key, cx.outbox);
            self.followups.on_room();
        }
        self.settle(cx);
    }

    /// Handles a request that the upstream ended without a response (`RST_STREAM`), and did not
    /// process if `is_refused`. A refusal while older queries are unanswered on the link costs no
    /// try. Neither does a refusal by GOAWAY that is the first one for the query, or comes from an
    /// upstream that has answered since the link was opened. A query that is refused again prefers
    /// another upstream. Any other reset counts as a failure of the upstream, and the query is sent
    /// once more, to another upstream if there is one.
    pub fn handle_reset(
        &mut self,
        key: LinkKey,
        id: u16,
        is_refused: bool,
        now: Instant,
        outbox: &mut Outbox,
    ) {
        let cx = &mut Cx { now, outbox };
        self.on_reset(key, id, is_refused, cx);
        self.settle(cx);
    }

    fn on_reset(&mut self, key: LinkKey, id: u16, is_refused: bool, cx: &mut Cx<'_>) {
        let Some(link) = self.upstreams.link_mut(key) else {
            return;
        };
        let Some(position) = link.position(id) else {
            return;
        };
        let exchange = link.sent()[position].exchange();
        let (endpoint, opened_at) = (link.endpoint, link.opened_at());
        // The upstream refuses the newest requests: by GOAWAY those above the last one that it
        // processes, otherwise those above the number that it processes at a time.
        let (older, is_going_away) = (position, link.is_going_away());
        if !is_refused {
            link.on_reset();
        }
        let close = link.refusal_by_goaway(older, cx.now);
        if is_refused && is_going_away {
            self.upstreams.learn_queries_max(endpoint, close, cx.now);
        } else if is_refused && older > 0 {
            self.upstreams.on_stream_refused(endpoint, older, cx.now);
        }
        let has_answered = !self.upstreams.endpoint(endpoint).is_silent_since(opened_at);
        let refused = exchange.filter(|_| is_refused);
        let is_first = refused.is_none_or(|key| self.exchanges[key].attempts.on_refused());
        let is_free = is_refused && (older > 0 || is_going_away && (is_first || has_answered));
        let upstream = self.upstreams.endpoint(endpoint).upstream;
        if !is_free {
            self.on_failed_request(key, is_refused, cx.now);
        }
        match exchange {
            Some(exchange) if is_free => {
                self.remove_sent(key, position, cx.now);
                let attempt = Attempt { link: key, id };
                let refused = &mut self.exchanges[exchange];
                refused.attempts.on_uncounted_end(attempt);
                if !is_first {
                    refused.preferences.avoid.insert(upstream);
                }
                self.lose_attempt(exchange, attempt, FailureKind::Closed, cx);
            }
            Some(exchange) => {
                let failure = (FailureKind::Http2, None);
                self.on_unusable_reply((key, position), exchange, failure, cx);
            }
            None => {
                self.remove_sent(key, position, cx.now);
                if !is_free {
                    self.count_failure(upstream, FailureKind::Http2);
                }
            }
        }
        self.close_if_done(key, cx.outbox);
        self.followups.on_room();
    }

    /// Handles a request that failed on a link: logs it, and replaces a link that answers none,
    /// since another one may lead to another server.
    fn on_failed_request(&mut self, key: LinkKey, is_refused: bool, now: Instant) {
        let Some(link) = self.upstreams.link(key) else {
            return;
        };
        let endpoint = link.endpoint;
        let has_working = self.upstreams.has_working_link(key, link);
        if let Some(link) = self.upstreams.link_mut(key)
            && link.on_failed_request(has_working, now)
        {
            link.drain();
        }
        let reason = if is_refused {
            NoAnswer::Refused
        } else {
            NoAnswer::Reset
        };
        let label = self.upstreams.endpoint(endpoint).label();
        self.log_throttle.on_no_answer(label, reason, now);
    }

    fn remove_sent(&mut self, key: LinkKey, position: usize, now: Instant) {
        if let Some(link) = self.upstreams.link_mut(key) {
            link.remove_sent(position, now);
        }
    }

    /// Handles a response without a DNS message. It counts as an error of the upstream, so another
    /// upstream is asked.
    pub fn handle_no_message(
        &mut self,
        key: LinkKey,
        (id, status): (u16, u16),
        now: Instant,
        outbox: &mut Outbox,
    ) {
        let Some(endpoint) = self.upstreams.link(key).map(Link::endpoint_key) else {
            return;
        };
        let upstream = self.upstreams.endpoint(endpoint).upstream;
        self.count_failure(upstream, FailureKind::Http2);
        let label = self.upstreams.endpoint(endpoint).label().to_owned();
        let reason = NoAnswer::Status(status);
        self.log_throttle.on_no_answer(&label, reason, now);
        if let Some(reply) = self.reply_without_message(key, id, status) {
            self.handle_reply(key, &reply, now, outbox);
        }
    }

    /// Returns a SERVFAIL reply with an extended error that has the status code of a response.
    fn reply_without_message(&self, key: LinkKey, id: u16, status: u16) -> Option<Vec<u8>> {
        let link = self.upstreams.link(key)?;
        let sent = link.sent().get(link.position(id)?)?;
        let exchange = sent.exchange().and_then(|key| self.exchanges.get(key));
        let question = exchange.map(|exchange| exchange.query.question());
        let header = Header {
            id,
            flags: (Flags::QR | Flags::RA).with_rcode(Rcode::SERVFAIL),
            questions: u16::from(question.is_some()),
            answers: 0,
            authorities: 0,
            additionals: 1,
        };
        let mut reply = header.to_bytes().to_vec();
        reply.extend_from_slice(question.map_or(&[], |question| question.as_bytes()));
        let text = format!("upstream: HTTP status {status} without a DNS message");
        append_error(&mut reply, UDP_LEN, ExtendedErrorCode::NETWORK_ERROR, &text);
        Some(reply)
    }
}

#[cfg(test)]
mod tests {
    use crate::base::failure::FailureKind;
    use crate::proxy::testing::Scene;
    use crate::proxy::{ClientTransport, LinkKey};
    use crate::wire::{Header, Rcode};
    use std::time::Duration;

    const QUERY: &[u8] = b"\0\x01\x01\0\0\x01\0\0\0\0\0\0\x03www\0\0\x01\0\x01";

    /// Creates a scene with this number of upstreams. The first one has the query.
    fn scene(upstreams: usize) -> Scene {
        let all = [
            "--policy=ordered",
            "-uhttps://192.0.2.1",
            "-uhttps://192.0.2.2",
        ];
        let mut scene = Scene::with(&all[..=upstreams]);
        scene.ask(QUERY, ClientTransport::Udp);
        scene.bring_up();
        scene
    }

    /// Refuses a query by GOAWAY, or resets its stream, and brings up the links that follow.
    fn end_request(scene: &mut Scene, (link, query): (LinkKey, Vec<u8>), is_goaway: bool) {
        let id = Header::parse(&query).unwrap().id;
        let (proxy, outbox) = (&mut scene.proxy, &mut scene.outbox);
        outbox.clear();
        if is_goaway {
            proxy.handle_draining(link, scene.now, outbox);
        }
        proxy.handle_reset(link, id, is_goaway, scene.now, outbox);
        scene.bring_up();
    }

    /// Resets the stream of the query. Returns the response codes that follow.
    fn reset(scene: &mut Scene, is_refused: bool) -> Vec<Rcode> {
        let (link, query) = scene.sent().remove(0);
        let id = Header::parse(&query).unwrap().id;
        scene.outbox.clear();
        let (proxy, outbox) = (&mut scene.proxy, &mut scene.outbox);
        proxy.handle_reset(link, id, is_refused, scene.now, outbox);
        scene.bring_up();
        scene.rcodes()
    }

    #[test]
    fn query_whose_stream_is_reset_is_sent_to_another_upstream() {
        for is_refused in [false, true] {
            let mut scene = scene(2);
            let (first, _) = scene.sent().remove(0);
            assert_eq!(reset(&mut scene, is_refused), []);
            let (second, query) = scene.sent().remove(0);
            let upstream = |link| scene.proxy.link_upstream(link);
            assert_ne!(upstream(first), upstream(second), "{is_refused}");
            assert_eq!(scene.reply_to(second, &query), 1);
            let failures = scene.proxy.counters().failure(FailureKind::Http2);
            assert_eq!(failures, 1);
        }
    }

    #[test]
    fn query_that_a_single_upstream_resets_twice_is_servfail() {
        for is_refused in [false, true] {
            let mut scene = scene(1);
            assert_eq!(reset(&mut scene, is_refused), []);
            assert_eq!(reset(&mut scene, is_refused), [Rcode::SERVFAIL]);
        }
    }

    #[test]
    fn query_that_is_refused_with_goaway_is_sent_again_to_the_same_upstream() {
        let mut scene = scene(2);
        let (first, query) = scene.sent().remove(0);
        let upstream = scene.proxy.link_upstream(first);
        end_request(&mut scene, (first, query), true);
        let (second, _) = scene.sent().remove(0);
        assert_eq!(scene.proxy.link_upstream(second), upstream);
        assert_ne!(first, second);
    }

    #[test]
    fn query_that_goaway_refuses_again_is_sent_to_another_upstream() {
        let mut scene = scene(2);
        let first = scene.sent().remove(0).0;
        let first = scene.proxy.link_upstream(first);
        for nth in 0..4 {
            let (link, query) = scene.sent().remove(0);
            if scene.proxy.link_upstream(link) != first {
                assert_eq!(nth, 2);
                assert_eq!(scene.reply_to(link, &query), 1);
                return;
            }
            end_request(&mut scene, (link, query), true);
        }
        panic!("the query stays with the upstream that refuses it");
    }

    /// Returns a query for a name of one letter.
    fn query_for(letter: u8) -> Vec<u8> {
        let mut query = b"\0\x01\x01\0\0\x01\0\0\0\0\0\0\x01?\0\0\x01\0\x01".to_vec();
        query[13] = letter;
        query
    }

    #[test]
    fn refusals_beside_other_requests_limit_the_requests_on_every_link() {
        const AT_A_TIME: usize = 3;
        let mut scene = Scene::with(&["-uhttps://192.0.2.1"]);
        let mut sent = Vec::new();
        for letter in b'a'..b'u' {
            scene.ask(&query_for(letter), ClientTransport::Udp);
            scene.bring_up();
            sent.append(&mut scene.sent());
            scene.outbox.clear();
        }
        let link = sent[0].0;
        assert!(sent.len() == 20 && sent.iter().all(|one| one.0 == link));
        for (link, query) in &sent[AT_A_TIME..] {
            let id = Header::parse(query).unwrap().id;
            let (proxy, outbox) = (&mut scene.proxy, &mut scene.outbox);
            proxy.handle_reset(*link, id, true, scene.now, outbox);
        }
        scene.bring_up();
        // No link gets more than it takes, and each answer makes room for one query.
        let mut open: Vec<_> = sent.drain(..AT_A_TIME).collect();
        let mut answered = 0;
        loop {
            open.append(&mut scene.sent());
            for (link, _) in &open {
                let on_link = open.iter().filter(|other| other.0 == *link).count();
                assert!(on_link <= AT_A_TIME, "{on_link}");
            }
            let Some((link, query)) = open.pop() else {
                break;
            };
            answered += scene.reply_to(link, &query);
            scene.bring_up();
        }
        assert_eq!(answered, 20);
        let failures = scene.proxy.counters().failure(FailureKind::Http2);
        assert_eq!(failures, 0);
    }

    #[test]
    fn query_that_goaway_of_a_single_upstream_refuses_is_sent_three_times() {
        let mut scene = scene(1);
        let mut sent = 0;
        while let Some((link, query)) = scene.sent().pop() {
            sent += 1;
            end_request(&mut scene, (link, query), true);
        }
        assert_eq!((sent, scene.rcodes()), (3, vec![Rcode::SERVFAIL]));
    }

    #[test]
    fn reset_of_a_query_that_another_upstream_answered_is_counted() {
        let mut scene = scene(2);
        let (first, query) = scene.sent().remove(0);
        let id = Header::parse(&query).unwrap().id;
        // The query is hedged.
        scene.outbox.clear();
        scene.now += Duration::from_millis(500);
        scene.proxy.handle_timeout(scene.now, &mut scene.outbox);
        scene.bring_up();
        let (second, query) = scene.sent().pop().unwrap();
        assert_ne!(first, second);
        assert_eq!(scene.reply_to(second, &query), 1);
        let failures = |scene: &Scene| scene.proxy.counters().failure(FailureKind::Http2);
        assert_eq!(failures(&scene), 0);
        let (proxy, outbox) = (&mut scene.proxy, &mut scene.outbox);
        proxy.handle_reset(first, id, false, scene.now, outbox);
        assert_eq!(failures(&scene), 1);
    }

    #[test]
    fn number_of_queries_per_connection_is_learned_from_goaway() {
        let mut scene = Scene::with(&["-uhttps://192.0.2.1"]);
        // Each connection takes two queries.
        let mut open = Vec::new();
        for letter in b'a'..b'g' {
            scene.ask(&query_for(letter), ClientTransport::Udp);
            scene.bring_up();
            open.append(&mut scene.sent());
        }
        let mut sent_by_link: Vec<(LinkKey, usize)> = Vec::new();
        let mut answered = 0;
        while !open.is_empty() {
            scene.outbox.clear();
            let (link, query) = open.remove(0);
            let place = sent_by_link.iter().position(|one| one.0 == link);
            let place = place.unwrap_or(sent_by_link.len());
            if place == sent_by_link.len() {
                sent_by_link.push((link, 0));
            }
            sent_by_link[place].1 += 1;
            if sent_by_link[place].1 > 2 {
                end_request(&mut scene, (link, query), true);
            } else {
                answered += scene.reply_to(link, &query);
                scene.bring_up();
            }
            open.append(&mut scene.sent());
        }
        assert_eq!(answered, 6);
        let sent: Vec<usize> = sent_by_link.iter().map(|(_, sent)| *sent).collect();
        assert_eq!(sent, [6, 2, 2]);
    }

    #[test]
    fn connection_that_resets_every_request_is_replaced() {
        let mut scene = Scene::with(&["-uhttps://192.0.2.1"]);
        let mut links = Vec::new();
        for letter in b'a'..b'e' {
            scene.now += Duration::from_millis(500);
            scene.ask(&query_for(letter), ClientTransport::Udp);
            scene.bring_up();
            while let Some((link, query)) = scene.sent().pop() {
                links.push(link);
                end_request(&mut scene, (link, query), false);
            }
            scene.outbox.clear();
        }
        let on_first = links.iter().take_while(|link| **link == links[0]);
        assert_eq!(on_first.count(), 5, "{links:?}");
        assert_eq!(links.len(), 8);
    }

    /// Asks for these names. Returns the queries that are sent.
    fn send(scene: &mut Scene, letters: &[u8]) -> Vec<(LinkKey, Vec<u8>)> {
        let mut sent = Vec::new();
        for letter in letters {
            scene.ask(&query_for(*letter), ClientTransport::Udp);
            scene.bring_up();
            sent.append(&mut scene.sent());
        }
        sent
    }

    /// Returns the number of queries per connection, and whether queries go one at a time.
    fn learned(scene: &Scene, link: LinkKey) -> (usize, bool) {
        let link = scene.proxy.upstreams.link(link).unwrap();
        let capacity = &scene.proxy.upstreams.endpoint(link.endpoint_key()).capacity;
        (
            capacity.queries_max(scene.now),
            capacity.is_serial(scene.now),
        )
    }

    #[test]
    fn new_connection_to_a_prompt_upstream_gets_no_more_requests_than_it_can_send() {
        let mut scene = Scene::with(&["-uhttps://192.0.2.1"]);
        let (link, query) = send(&mut scene, b"a").remove(0);
        assert_eq!(scene.reply_to(link, &query), 1);
        let (proxy, outbox) = (&mut scene.proxy, &mut scene.outbox);
        proxy.handle_link_down(link, &FailureKind::Closed.into(), scene.now, outbox);
        let mut opened = None;
        for nth in 0..150 {
            let mut query = query_for(b'0' + nth % 40);
            query[16] = 1 + nth / 40;
            scene.offer(&query, ClientTransport::Udp);
            opened.get_or_insert_with(|| scene.opened_last());
        }
        scene.outbox.clear();
        let (proxy, outbox) = (&mut scene.proxy, &mut scene.outbox);
        proxy.handle_link_up(opened.unwrap(), false, scene.now, outbox);
        let on_link = |(link, _): &(LinkKey, Vec<u8>)| Some(*link) == opened;
        let sent = scene.sent().iter().filter(|one| on_link(one)).count();
        assert_eq!(sent, 100);
    }

    #[test]
    fn close_without_goaway_shows_no_number_of_queries() {
        for (upstream, expected) in [("-uhttps://192.0.2.1", false), ("-u192.0.2.1", true)] {
            let mut scene = Scene::with(&[upstream]);
            for letter in (b'a'..b'g').step_by(2) {
                let sent = send(&mut scene, &[letter, letter + 1]);
                let (link, query) = sent.last().unwrap();
                assert_eq!(scene.reply_to(*link, query), 1);
                let (proxy, outbox) = (&mut scene.proxy, &mut scene.outbox);
                outbox.clear();
                proxy.handle_link_down(*link, &FailureKind::Closed.into(), scene.now, outbox);
                scene.bring_up();
                for (link, query) in scene.sent() {
                    scene.reply_to(link, &query);
                }
                scene.now += Duration::from_secs(1);
            }
            let link = send(&mut scene, b"z")[0].0;
            let is_limited = learned(&scene, link).0 < usize::MAX;
            assert_eq!(is_limited, expected, "{upstream}");
        }
    }

    #[test]
    fn request_that_was_reset_counts_toward_the_queries_of_a_connection() {
        let mut scene = Scene::with(&["-uhttps://192.0.2.1"]);
        let sent = send(&mut scene, b"abc");
        let (link, _) = sent[0];
        assert_eq!(scene.reply_to(link, &sent[0].1), 1);
        let id = |nth: usize| Header::parse(&sent[nth].1).unwrap().id;
        let (proxy, outbox) = (&mut scene.proxy, &mut scene.outbox);
        proxy.handle_reset(link, id(1), false, scene.now, outbox);
        scene.bring_up();
        let (proxy, outbox) = (&mut scene.proxy, &mut scene.outbox);
        proxy.handle_draining(link, scene.now, outbox);
        outbox.clear();
        proxy.handle_reset(link, id(2), true, scene.now, outbox);
        scene.bring_up();
        let (link, _) = scene.sent()[0];
        assert_eq!(learned(&scene, link).0, 2);
    }

    #[test]
    fn slow_request_does_not_end_concurrency() {
        for (upstream, expected) in [("-uhttps://192.0.2.1", false), ("-u192.0.2.1", true)] {
            let mut scene = Scene::with(&[upstream]);
            let link = send(&mut scene, b"a")[0].0;
            let endpoint = scene.proxy.upstreams.link(link).unwrap().endpoint_key();
            let (upstreams, now) = (&mut scene.proxy.upstreams, scene.now);
            upstreams.on_pipelined_silence(endpoint, true, now);
            assert_eq!(learned(&scene, link).1, expected, "{upstream}");
        }
    }
}
