//! Connections at the start: one to each upstream before the first query, so that a problem shows
//! in the log at once and the first query does not wait for a handshake.

use crate::base::time::Instant;
use crate::config::Scheme;
use crate::proxy::Proxy;
use crate::proxy::actions::{Cx, Outbox};
use crate::proxy::keys::UpstreamIndex;

impl Proxy {
    /// Connects to each upstream that takes connections. Upstreams with a host name are connected
    /// to when their addresses are known.
    pub fn connect_at_start(&mut self, now: Instant, outbox: &mut Outbox) {
        let cx = &mut Cx { now, outbox };
        let upstreams = self.config.upstreams.iter().enumerate();
        let upstreams = upstreams.filter(|(_, upstream)| upstream.scheme != Scheme::Udp);
        self.unconnected = upstreams.map(|(index, _)| UpstreamIndex(index)).collect();
        self.followups.on_room();
        self.settle(cx);
    }

    /// Opens links to the upstreams that have not been connected to since the start, as far as
    /// their addresses are known and the number of handshakes allows.
    pub(in crate::proxy) fn connect_unconnected(&mut self, cx: &mut Cx<'_>) {
        let mut later = Vec::new();
        for upstream in std::mem::take(&mut self.unconnected) {
            let endpoint = self.upstreams.addresses(upstream).next();
            match endpoint {
                Some((endpoint, _)) if self.upstreams.may_handshake() => {
                    if !self.upstreams.endpoint(endpoint).has_links() {
                        self.open(endpoint, self.config.upstreams[upstream.0].scheme, cx);
                    }
                }
                _ => later.push(upstream),
            }
        }
        self.unconnected = later;
    }
}
