//! Log lines about refused clients: the first one at once, and then up to one per minute, so that a
//! flood of queries does not flood the log.

use std::net::IpAddr;
use std::time::Duration;

use crate::base::time::Instant;

/// The throttles of the log lines.
#[derive(Debug, Default)]
pub(in crate::proxy) struct LogThrottle {
    denied: Notice,
    limited: Notice,
    without_certificate: Notice,
    bogus: Notice,
    without_message: Notice,
}

/// The throttle of one kind of log line.
#[derive(Debug, Default)]
struct Notice {
    /// The number of events since the last line.
    suppressed: u64,
    report_at: Instant,
}

const PAUSE: Duration = Duration::from_secs(60);

impl LogThrottle {
    /// Records a client with an address that is not allowed.
    pub(in crate::proxy) fn on_denied(&mut self, ip: IpAddr, now: Instant) {
        if let Some(count) = self.denied.count(now) {
            log::warn!(
                event = "denied-client", client:% = ip, count = count;
                "refused query from {ip}: denied by --allow or --deny ({count} since the last \
                 report)"
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

    /// Records an answer that failed DNSSEC validation. The line has no name: names of queries are
    /// logged at level debug only.
    pub(in crate::proxy) fn on_bogus(&mut self, reason: &str, is_on: bool, now: Instant) {
        let Some(count) = self.bogus.count(now) else {
            return;
        };
        let result = if is_on {
            "clients get SERVFAIL unless another upstream has a valid answer; the extended error \
             names the record"
        } else {
            "with --dnssec log, clients get the answer anyway; log level debug names the record"
        };
        log::warn!(
            event = "bogus", reason = reason, count = count;
            "DNSSEC validation failed: {reason}; {result} ({count} since the last report)"
        );
    }

    /// Records a request to an HTTPS upstream that got no DNS message.
    pub(in crate::proxy) fn on_no_answer(&mut self, label: &str, reason: NoAnswer, now: Instant) {
        let Some(count) = self.without_message.count(now) else {
            return;
        };
        let NoAnswer::Status(status) = reason else {
            let what = match reason {
                NoAnswer::Refused => "refused a request (REFUSED_STREAM or GOAWAY)",
                _ => "reset the stream of a request (RST_STREAM)",
            };
            log::warn!(
                event = "stream-reset", upstream = label, count = count;
                "upstream {label}: {what}: {count} since the last report"
            );
            return;
        };
        let problem = match status {
            200 => "the body is not application/dns-message",
            404 => "check the path of the URL",
            _ => "the response contains no DNS message",
        };
        log::warn!(
            event = "no-dns-message", upstream = label, status = status, count = count;
            "upstream {label}: HTTP status {status}: {problem} ({count} since the last report)"
        );
    }

    /// Records a client that exceeds the rate limit.
    pub(in crate::proxy) fn on_limited(&mut self, ip: IpAddr, now: Instant) {
        if let Some(count) = self.limited.count(now) {
            log::warn!(
                event = "rate-limited", client:% = ip, count = count;
                "{ip} exceeds --rate-limit ({count} queries dropped or truncated since the last \
                 report)"
            );
        }
    }
}

/// The reason why a request over HTTP/2 got no DNS message.
#[derive(Clone, Copy, Debug)]
pub(in crate::proxy) enum NoAnswer {
    /// The response has this status and no DNS message.
    Status(u16),
    /// The upstream reset the stream.
    Reset,
    /// The upstream refused the request.
    Refused,
}

impl Notice {
    /// Counts an event. Returns the number of events to report now, if a line is due.
    fn count(&mut self, now: Instant) -> Option<u64> {
        self.suppressed += 1;
        if now < self.report_at {
            return None;
        }
        self.report_at = now + PAUSE;
        Some(std::mem::take(&mut self.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_of_a_minute_are_reported_together() {
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
