//! The dates of the certificates in the configured files: the server and client certificates with
//! their chains, and CA certificates.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustls::pki_types::CertificateDer;

use super::certificate::{has_ca_issuers_url, is_ca, subject, validity, verifies_none};
use super::clock::date;
use crate::base::time::Validity;

/// A certificate that expires within this period is logged, like those of upstreams.
const NOTICE: Duration = Duration::from_secs(7 * 86_400);

/// The advice for a certificate that has expired, and for one that expires soon.
#[derive(Clone, Copy)]
struct Advice {
    expired: &'static str,
    expiring: &'static str,
}

impl Advice {
    const fn always(text: &'static str) -> Self {
        Self {
            expired: text,
            expiring: text,
        }
    }
}

/// Describes the problem with the dates of a certificate at `now`, or within seven days, and gives
/// advice.
fn problem_with(validity: Validity, now: Duration, advice: Advice) -> Option<String> {
    let (begins_at, expires_at) = (validity.begins_at, validity.expires_at);
    let (dates, advice) = if now > expires_at {
        (format!("expired at {}", date(expires_at)), advice.expired)
    } else if now < begins_at {
        let dates = format!("is not valid before {}", date(begins_at));
        (dates, "check the clock")
    } else if expires_at.saturating_sub(now) < NOTICE {
        (format!("expires at {}", date(expires_at)), advice.expiring)
    } else {
        return None;
    };
    let now = date(now);
    Some(format!("{dates}; system clock: {now}; {advice}"))
}

/// The dates of the certificates in a file, each with its name: its position in the file, from 1,
/// and its subject. Certificates whose dates cannot be read are left out.
#[derive(Clone, Debug)]
struct DatedFile {
    /// The option or setting that names the file.
    option: &'static str,
    path: PathBuf,
    certificates: Vec<(usize, Box<str>, Validity)>,
}

impl DatedFile {
    fn new(option: &'static str, path: &Path, certificates: &[CertificateDer<'_>]) -> Self {
        let numbered = (1..).zip(certificates);
        let dated = numbered.filter_map(|(position, one)| {
            let subject = subject(one).unwrap_or_default();
            Some((position, subject.into(), validity(one)?))
        });
        Self {
            option,
            path: path.to_owned(),
            certificates: dated.collect(),
        }
    }

    /// Returns the problem with one certificate, which is called `name`.
    fn problem(
        &self,
        name: &str,
        dates: Validity,
        now: Duration,
        advice: Advice,
    ) -> Option<String> {
        let problem = problem_with(dates, now, advice)?;
        let (option, path) = (self.option, self.path.display());
        Some(format!("{option}: {path:?}: {name} {problem}"))
    }

    /// Returns the problems with the certificates from this position in the file.
    fn problems(&self, from: usize, now: Duration, advice: Advice) -> impl Iterator<Item = String> {
        let certificates = self.certificates.iter();
        let certificates = certificates.filter(move |(position, ..)| *position >= from);
        certificates.filter_map(move |(position, subject, dates)| {
            let name = format!("certificate {position} ({subject})");
            self.problem(&name, *dates, now, advice)
        })
    }
}

/// A server or client certificate with its chain, in a file, and their dates.
#[derive(Clone, Debug)]
pub struct OwnCertificate {
    dates: Validity,
    file: DatedFile,
    /// The advice on a certificate that peers may refuse for another reason than its dates.
    advice: Option<&'static str>,
    /// The name of `--designated`, if the certificate is not for it.
    other_name: Option<String>,
}

impl OwnCertificate {
    /// Returns the first certificate of a chain, or `None` if its dates cannot be read.
    pub(super) fn new(
        option: &'static str,
        path: &Path,
        chain: &[CertificateDer<'_>],
    ) -> Option<Self> {
        let first = chain.first()?;
        let advice = if is_ca(first) {
            Some("is a CA certificate, which peers may refuse: use one that the CA has signed")
        } else if chain.len() == 1 && has_ca_issuers_url(first) {
            Some(
                "has no intermediate certificate behind it: peers may refuse it (use the chain, \
                 like fullchain.pem)",
            )
        } else {
            None
        };
        Some(Self {
            dates: validity(first)?,
            file: DatedFile::new(option, path, chain),
            advice,
            other_name: None,
        })
    }

    /// Records that the certificate is not for the name of `--designated`.
    pub(super) fn set_other_name(&mut self, name: &str) {
        self.other_name = Some(name.to_owned());
    }

    /// Returns the validity period of the certificate.
    pub fn validity(&self) -> Validity {
        self.dates
    }

    /// Returns whether the certificate is valid by its dates at `now`, in time since 1970.
    pub fn is_valid(&self, now: Duration) -> bool {
        self.dates.includes(now)
    }

    /// Returns an error if the certificate, one of the `new` ones, is not valid at `now`, unless
    /// those in use that it replaces are not valid either.
    pub(super) fn refusal(&self, new: &[Self], in_use: &[Self], now: Duration) -> Option<String> {
        if self.is_valid(now) || self.replaces_invalid(new, in_use, now) {
            return None;
        }
        self.problem(now)
    }

    /// Returns whether the certificates in use that this one replaces are all invalid at `now`:
    /// those in the same file; else those of the same option whose files are not among the `new`
    /// ones; else all of the same option.
    fn replaces_invalid(&self, new: &[Self], in_use: &[Self], now: Duration) -> bool {
        let mut are_invalid = [None; 3];
        for old in in_use {
            if old.file.option != self.file.option {
                continue;
            }
            let place = if old.file.path == self.file.path {
                0
            } else {
                1 + usize::from(new.iter().any(|new| new.file.path == old.file.path))
            };
            let is_invalid = !old.is_valid(now);
            are_invalid[place] = Some(is_invalid && are_invalid[place].unwrap_or(true));
        }
        are_invalid.into_iter().flatten().next().unwrap_or(false)
    }

    /// Returns the problem with the dates at `now`, or within seven days.
    pub fn problem(&self, now: Duration) -> Option<String> {
        let advice = Advice::always("renew it");
        self.file
            .problem("the certificate", self.dates, now, advice)
    }

    /// Returns the problems with the name and the chain, and with the dates of the certificates
    /// behind the first: authorities that lead to one that peers trust.
    pub fn chain_problems(&self, now: Duration) -> impl Iterator<Item = String> {
        let (option, path) = (self.file.option, &self.file.path);
        let of_chain = self.advice.iter();
        let of_chain = of_chain
            .map(move |advice| format!("{option}: {:?}: the certificate {advice}", path.display()));
        let advice = Advice {
            expired: "replace it, since peers may reject the chain",
            expiring: "replace it before then, since peers may reject the chain afterwards",
        };
        let of_name = self.other_name.iter().map(move |name| {
            format!(
                "--designated: {name:?}: the certificate in {:?} ({option}) is not for this name, \
                 so clients will refuse it: use a name in the certificate",
                path.display()
            )
        });
        of_name
            .chain(of_chain)
            .chain(self.file.problems(2, now, advice))
    }
}

/// The certificates of authorities in a file, and their dates.
#[derive(Clone, Debug)]
pub struct Authorities {
    file: DatedFile,
    /// The positions of certificates that belong to no CA.
    others: Vec<usize>,
}

impl Authorities {
    pub(super) fn new(
        option: &'static str,
        path: &Path,
        certificates: &[CertificateDer<'_>],
    ) -> Self {
        let numbered = (1..).zip(certificates);
        let others = numbered.filter(|(_, certificate)| verifies_none(certificate));
        Self {
            file: DatedFile::new(option, path, certificates),
            others: others.map(|(position, _)| position).collect(),
        }
    }

    /// Returns warnings about certificates that belong to no CA, and about the dates of the others
    /// at `now`, or within seven days.
    pub fn problems(&self, now: Duration) -> impl Iterator<Item = String> {
        let advice = Advice {
            expired: "replace or remove it",
            expiring: "install its successor before then",
        };
        let (option, path) = (self.file.option, self.file.path.display());
        let others = self.others.iter().map(move |position| {
            format!(
                "{option}: {path:?}: certificate {position} is not a CA certificate: expected the \
                 certificate of the CA that signed the certificate of the peer"
            )
        });
        others.chain(self.file.problems(1, now, advice))
    }

    /// Returns an error if no authority is valid at `now`, unless that applies to the authorities
    /// in use that these replace.
    pub(super) fn refusal(&self, in_use: &[Self], now: Duration) -> Option<String> {
        let before = in_use
            .iter()
            .find(|one| one.file.option == self.file.option);
        let is_excused = before.is_some_and(|one| one.lack(now).is_some());
        self.lack(now).filter(|_| !is_excused)
    }

    /// Returns whether an authority is valid by its dates at `now`.
    fn has_valid(&self, now: Duration) -> bool {
        let mut all = self.file.certificates.iter();
        all.any(|(.., dates)| dates.includes(now))
    }

    /// Returns an error if no authority is valid by its dates at `now`: the one with the latest
    /// expiry, and its dates.
    fn lack(&self, now: Duration) -> Option<String> {
        if self.has_valid(now) {
            return None;
        }
        let all = &self.file.certificates;
        let (position, subject, dates) = all.iter().max_by_key(|(.., dates)| dates.expires_at)?;
        let name = format!("no CA certificate is valid: certificate {position} ({subject})");
        self.file
            .problem(&name, *dates, now, Advice::always("replace it"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    fn certificate() -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2050, 1, 1);
        let key = KeyPair::generate().expect("a key");
        params.self_signed(&key).expect("a certificate").into()
    }

    #[test]
    fn advice_depends_on_whether_a_certificate_has_expired() {
        let both = [certificate(), certificate()];
        let path = Path::new("a.pem");
        let authorities = Authorities::new("--ca-file", path, &both[..1]);
        let own = OwnCertificate::new("--tls-cert", path, &both).expect("it has dates");
        let check = |now, authority: &[&str], chain: &[&str]| {
            let ends_with = |problems: Vec<String>, ends: &[&str]| {
                assert_eq!(problems.len(), ends.len(), "{problems:?}");
                for (problem, end) in problems.iter().zip(ends) {
                    assert!(problem.ends_with(end), "{problem}");
                }
            };
            ends_with(authorities.problems(now).collect(), authority);
            ends_with(own.chain_problems(now).collect(), chain);
        };
        // The certificates expire at the start of 2050.
        let after = |days: u64| Duration::from_secs((29_220 + days) * 86_400);
        let before = |days: u64| Duration::from_secs((29_220 - days) * 86_400);
        check(before(8), &[], &[]);
        check(
            before(6),
            &["00:00:00Z; install its successor before then"],
            &["replace it before then, since peers may reject the chain afterwards"],
        );
        check(
            after(1),
            &["00:00:00Z; replace or remove it"],
            &["00:00:00Z; replace it, since peers may reject the chain"],
        );
    }
}
