//! The dates of our own certificates.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustls::pki_types::CertificateDer;

use super::certificate::validity;
use super::explain::date;

/// A certificate that expires within this period is logged, like those of upstreams.
const NOTICE: Duration = Duration::from_secs(7 * 86_400);

/// A certificate of our own in a file, and its dates.
#[derive(Clone, Debug)]
pub struct OwnCertificate {
    /// The option or setting that names the file.
    option: &'static str,
    path: PathBuf,
    begins_at: Duration,
    expires_at: Duration,
}

impl OwnCertificate {
    /// Returns the first certificate of a chain, or `None` if its dates cannot be read.
    pub(super) fn new(
        option: &'static str,
        path: &Path,
        chain: &[CertificateDer<'_>],
    ) -> Option<Self> {
        let (begins_at, expires_at) = validity(chain.first()?)?;
        Some(Self {
            option,
            path: path.to_owned(),
            begins_at,
            expires_at,
        })
    }

    /// Returns the expiry of the certificate, in time since 1970.
    pub fn expires_at(&self) -> Duration {
        self.expires_at
    }

    /// Returns whether the certificate is valid by its dates at `now`, in time since 1970.
    pub fn is_valid(&self, now: Duration) -> bool {
        (self.begins_at..=self.expires_at).contains(&now)
    }

    /// Returns the problem with the dates at `now`, or within seven days.
    pub fn problem(&self, now: Duration) -> Option<String> {
        const RENEW: &str = "renew it, or peers refuse it";
        let (dates, advice) = if now > self.expires_at {
            (format!("expired at {}", date(self.expires_at)), RENEW)
        } else if now < self.begins_at {
            let dates = format!("is not valid before {}", date(self.begins_at));
            (dates, "check the clock, or wait")
        } else if self.expires_at.saturating_sub(now) < NOTICE {
            (format!("expires at {}", date(self.expires_at)), RENEW)
        } else {
            return None;
        };
        let Self { option, path, .. } = self;
        Some(format!(
            "{option}: {:?}: the certificate {dates}, and this host's clock says {}: {advice}",
            path.display(),
            date(now)
        ))
    }
}
