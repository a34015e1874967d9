//! Clients that are turned away, as the log tells of them: at once, and then once a minute at most,
//! so that a flood of theirs is none of lines.

use std::net::IpAddr;
use std::time::Duration;

use crate::base::time::Instant;

/// What there is to tell.
#[derive(Debug, Default)]
pub(in crate::proxy) struct LogThrottle {
    denied: Notice,
    limited: Notice,
    without_certificate: Notice,
}

/// Things of one kind.
#[derive(Debug, Default)]
struct Notice {
    /// How many there were that were not told.
    suppressed: u64,
    tell_at: Instant,
}

const PAUSE: Duration = Duration::from_secs(60);

impl LogThrottle {
    /// Takes note of a client that may not ask.
    pub(in crate::proxy) fn on_denied(&mut self, ip: IpAddr, now: Instant) {
        if let Some(count) = self.denied.count(now) {
            log::warn!(
                event = "denied-client", client:% = ip, count = count;
                "{ip} may not ask here; since this was last told, so often: {count}"
            );
        }
    }

    /// Records a client that mutual TLS refused.
    pub(in crate::proxy) fn on_refused_certificate(
        &mut self,
        ip: IpAddr,
        reason: &str,
        now: Instant,
    ) {
        if let Some(count) = self.without_certificate.count(now) {
            log::info!(
                event = "refused-tls-client", client:% = ip, reason = reason, count = count;
                "refused TLS client {ip}: {reason} ({count} since the last report)"
            );
        }
    }

    /// Takes note of a client that asks too often.
    pub(in crate::proxy) fn on_limited(&mut self, ip: IpAddr, now: Instant) {
        if let Some(count) = self.limited.count(now) {
            log::warn!(
                event = "rate-limited", client:% = ip, count = count;
                "{ip} asks too often; since this was last told, queries turned away: {count}"
            );
        }
    }
}

impl Notice {
    /// Counts one more. Returns how many are to be told now, if they are.
    fn count(&mut self, now: Instant) -> Option<u64> {
        self.suppressed += 1;
        if now < self.tell_at {
            return None;
        }
        self.tell_at = now + PAUSE;
        Some(std::mem::take(&mut self.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_are_told_together() {
        let mut notice = Notice::default();
        let at = |seconds| Instant::after_start(Duration::from_secs(seconds));
        assert_eq!(notice.count(at(1)), Some(1));
        for second in 2..61 {
            assert_eq!(notice.count(at(second)), None);
        }
        assert_eq!(notice.count(at(61)), Some(60));
        assert_eq!(notice.count(at(62)), None);
    }
}
