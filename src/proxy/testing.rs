//! A test scene: a proxy, its outbox and the simulated time.

use std::time::Duration;

use super::{Action, ClientTransport, LinkKey, Outbox, Proxy};
use crate::base::arena::Key;
use crate::base::origin::Origin;
use crate::base::time::Instant;
use crate::config::Config;
use crate::options::{self, Command};
use crate::wire::{Message, Rcode};

pub(super) struct Scene {
    pub(super) proxy: Proxy,
    pub(super) outbox: Outbox,
    pub(super) now: Instant,
}

/// Parses the arguments into a configuration.
pub(super) fn config(arguments: &[&str]) -> Config {
    let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
    match options::parse(&arguments) {
        Ok(Command::Run(config)) => *config,
        other => panic!("{other:?}"),
    }
}

impl Scene {
    /// Creates a proxy with these arguments.
    pub(super) fn with(arguments: &[&str]) -> Self {
        Self {
            proxy: Proxy::new(&config(arguments), &[3; 32]),
            outbox: Outbox::default(),
            now: Instant::after_start(Duration::from_secs(100)),
        }
    }

    /// Passes a query of a client, which gets a response, to the proxy. The outbox has the actions.
    pub(super) fn ask(&mut self, query: &[u8], transport: ClientTransport) {
        assert!(self.offer(query, transport));
    }

    /// Passes a query of a client to the proxy. Returns whether a response follows.
    pub(super) fn offer(&mut self, query: &[u8], transport: ClientTransport) -> bool {
        self.offer_from([127, 0, 0, 1], query, transport)
    }

    /// Passes a query of the client with this address to the proxy. Returns whether a response
    /// follows.
    pub(super) fn offer_from(
        &mut self,
        client: [u8; 4],
        query: &[u8],
        transport: ClientTransport,
    ) -> bool {
        self.outbox.clear();
        let origin = Origin {
            session: Key::from_usize(1),
            peer: (client, 4711).into(),
            local: None,
        };
        let (proxy, outbox) = (&mut self.proxy, &mut self.outbox);
        proxy.handle_query(origin, transport, query, self.now, outbox)
    }

    /// Reports every link that the outbox opens as up.
    pub(super) fn bring_up(&mut self) {
        let actions = self.outbox.actions().iter();
        let opened = actions.filter_map(|action| match action {
            Action::OpenLink { link, .. } => Some(*link),
            _ => None,
        });
        for link in opened.collect::<Vec<_>>() {
            let (proxy, outbox) = (&mut self.proxy, &mut self.outbox);
            proxy.handle_link_up(link, false, self.now, outbox);
        }
    }

    /// Passes the reply to a sent query to the proxy. Returns the number of responses.
    pub(super) fn reply_to(&mut self, link: LinkKey, query: &[u8]) -> usize {
        let end = Message::parse(query)
            .expect("the proxy sends whole queries")
            .records_start();
        let mut bytes = query[..end].to_vec();
        (bytes[2], bytes[3], bytes[11]) = (0x81, 0x80, 0);
        let (proxy, outbox) = (&mut self.proxy, &mut self.outbox);
        outbox.clear();
        proxy.handle_reply(link, &bytes, self.now, outbox);
        self.rcodes().len()
    }

    pub(super) fn rcodes(&self) -> Vec<Rcode> {
        let rcode = |action: &Action| match action {
            Action::Respond { message, .. } => {
                let message =
                    Message::parse(self.outbox.bytes(message)).expect("responses are well formed");
                Some(message.header().flags.rcode())
            }
            _ => None,
        };
        self.outbox.actions().iter().filter_map(rcode).collect()
    }

    /// Returns the link that was opened last.
    pub(super) fn opened_last(&self) -> LinkKey {
        let mut actions = self.outbox.actions().iter().rev();
        let opened = actions.find_map(|action| match action {
            Action::OpenLink { link, .. } => Some(*link),
            _ => None,
        });
        opened.expect("a link was opened")
    }

    /// Returns the queries in the outbox with their links.
    pub(super) fn sent(&self) -> Vec<(LinkKey, Vec<u8>)> {
        let sent = self
            .outbox
            .actions()
            .iter()
            .filter_map(|action| match action {
                Action::Send { link, message } => {
                    Some((*link, self.outbox.bytes(message).to_vec()))
                }
                _ => None,
            });
        sent.collect()
    }
}
