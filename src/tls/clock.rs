//! The time for the verification of certificates and DNSSEC signatures.
//!
//! A board without a clock battery starts in 1970. It cannot resolve the names of time servers
//! while no certificate is valid yet. Certificates are therefore verified at the time of the
//! system's clock, but not earlier than two moments that have surely passed: the build of the
//! program and, with a stamp file, its last run. All other checks of a certificate are unchanged.
//!
//! A wrong clock must not leave a stamp that stops the service for good: a stamp is written only
//! after a certificate of an upstream was verified at that time, and an implausibly late stamp is
//! ignored.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::base::file;
use crate::base::time::Instant;
use crate::dnssec::clock::SignatureClock;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Maximum time for which a build is in use. A later stamp is wrong.
const BUILD_AGE_MAX: Duration = DAY.saturating_mul(15 * 365);

/// Maximum lead of a stamp over the system's clock, unless the clock is known to be behind: no
/// correction of a clock is larger.
const STAMP_AHEAD_MAX: Duration = DAY.saturating_mul(365);

/// A clock with a lower bound (floor).
#[derive(Clone, Debug)]
pub struct Clock {
    floor: Duration,
    /// The floor is the time in the stamp file, not that of the build.
    is_stamped: bool,
    stamp: Option<PathBuf>,
    /// The time of the last verification of a certificate, and when it happened.
    verified: Option<(Duration, Instant)>,
}

impl Clock {
    /// Returns the interval of calls of [`Clock::stamp`], if there is a stamp file.
    pub fn stamp_interval(&self) -> Option<Duration> {
        self.stamp.as_ref().map(|_| Duration::from_secs(3600))
    }

    /// Creates a clock with the floor in the file `stamp`, if the file exists.
    pub fn new(stamp: Option<&Path>) -> Self {
        let stamped = stamp.map_or(Duration::ZERO, |path| {
            read_plausible(path).unwrap_or_else(|problem| {
                log::warn!("{problem}");
                Duration::ZERO
            })
        });
        Self {
            floor: stamped.max(built_at()),
            is_stamped: stamped > built_at(),
            stamp: stamp.map(Path::to_owned),
            verified: None,
        }
    }

    /// Returns the time since 1970.
    pub fn now(&self) -> Duration {
        self.at_least_floor(system_time())
    }

    /// Returns the time of the system's clock since 1970, unless that clock is behind the floor.
    pub fn plausible_now(&self) -> Option<Duration> {
        Some(system_time()).filter(|time| *time >= self.floor)
    }

    /// Returns the time by which DNSSEC signatures are judged.
    pub fn for_signatures(&self) -> SignatureClock {
        SignatureClock {
            lower_bound: self.floor.as_secs(),
            system: system_time().as_secs(),
        }
    }

    /// Returns a warning with the time that replaces the system's clock, if the system's clock is
    /// behind the floor.
    pub fn replacement(&self) -> Option<String> {
        let (clock, judged_by) = (date(system_time()), self.judged_by()?);
        Some(format!("the system clock is behind ({clock}): {judged_by}"))
    }

    /// Returns the time that replaces the system's clock, its source and advice, if the system's
    /// clock is behind the floor.
    pub fn judged_by(&self) -> Option<String> {
        if system_time() >= self.floor {
            return None;
        }
        let floor = date(self.floor);
        Some(match &self.stamp {
            Some(path) if self.is_stamped => format!(
                "certificates and DNSSEC signatures are verified at the time in --clock-stamp {:?} \
                 ({floor}): set the clock, or remove the file if its time is wrong",
                path.display()
            ),
            _ => format!(
                "certificates and DNSSEC signatures are verified at the build time of the program \
                 ({floor}): set the clock"
            ),
        })
    }

    /// Records that the certificate of an upstream was verified just now, by chain and dates.
    /// Returns whether a stamp should be written: this is the first verification.
    pub fn on_verified(&mut self, now: Instant) -> bool {
        let time = system_time();
        time >= self.floor && self.verified.replace((time, now)).is_none()
    }

    /// Writes the time to the stamp file, if there is one. Nothing is written before a certificate
    /// was verified at the time of the system's clock, because the clock may be wrong. Afterwards
    /// the stamp is at most the time of that verification plus the time that has passed since.
    pub fn stamp(&self, now: Instant) {
        let (Some(path), Some((time, at))) = (&self.stamp, self.verified) else {
            return;
        };
        let time = system_time().min(time + (now - at));
        if time < self.floor {
            return;
        }
        let text = format!("{}\n", time.as_secs());
        if let Err(error) = file::write(path, text.as_bytes()) {
            log::warn!("--clock-stamp: {:?}: {error}", path.display());
        }
    }

    fn at_least_floor(&self, time: Duration) -> Duration {
        time.max(self.floor)
    }
}

/// Returns why a stamp must be ignored, if it must. A system clock earlier than the build is not
/// considered.
fn doubt(stamp: Duration, clock: Duration) -> Option<String> {
    let shown_stamp = date(stamp);
    if stamp > built_at() + BUILD_AGE_MAX {
        Some(format!(
            "ignored, since {shown_stamp} is more than 15 years after the program was built ({})",
            date(built_at())
        ))
    } else if clock >= built_at() && stamp > clock + STAMP_AHEAD_MAX {
        Some(format!(
            "ignored, since {shown_stamp} is more than a year ahead of the system clock ({})",
            date(clock)
        ))
    } else {
        None
    }
}

/// Reads the time in a stamp file, or returns why it is ignored.
fn read_plausible(path: &Path) -> Result<Duration, String> {
    let plausible = read(path).and_then(|time| match doubt(time, system_time()) {
        None => Ok(time),
        Some(doubt) => Err(io::Error::other(doubt)),
    });
    plausible.map_err(|error| format!("--clock-stamp: {:?}: {error}", path.display()))
}

/// Returns why a stamp cannot be kept in a file, without changing the file, or else a warning if
/// the stamp in the file is ignored.
pub fn check_stamp(path: &Path) -> Result<Option<String>, String> {
    let read = read_bytes(path).and_then(|_| file::try_to_write(path));
    read.map_err(|error| {
        let error = file::describe_written(path, &error);
        format!("--clock-stamp: {:?}: {error}", path.display())
    })?;
    Ok(read_plausible(path).err())
}

/// Returns the time of the system's clock since 1970.
pub fn system_time() -> Duration {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
    since_1970.unwrap_or(Duration::ZERO)
}

/// Formats a time since 1970 as a date. A certificate can hold times beyond the range of some
/// hosts.
pub(super) fn date(since_1970: Duration) -> String {
    let time = UNIX_EPOCH.checked_add(Duration::from_secs(since_1970.as_secs()));
    let mut text = String::new();
    let written = time.map(|time| write!(text, "{}", humantime::format_rfc3339_seconds(time)));
    match written {
        Some(Ok(())) => text,
        Some(Err(_)) | None => "a time after the year 9999".to_owned(),
    }
}

fn built_at() -> Duration {
    Duration::from_secs(env!("BUILT_AT").parse().unwrap_or(0))
}

/// Reads the file if it is there. Another user may have put a link to a file of root in its place.
fn read_bytes(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match file::read_unlinked(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        bytes => bytes.map(Some),
    }
}

/// Reads seconds since 1970. A missing file is no error.
fn read(path: &Path) -> io::Result<Duration> {
    let Some(bytes) = read_bytes(path)? else {
        return Ok(Duration::ZERO);
    };
    let text = str::from_utf8(&bytes).ok().map(str::trim);
    let seconds = text.and_then(|text| text.parse().ok());
    let seconds = seconds.ok_or_else(|| io::Error::other("expected seconds since 1970"))?;
    Ok(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Stamp(PathBuf);

    impl Stamp {
        fn new(label: &str) -> Self {
            let name = format!("dotproxy-clock-{label}-{}", std::process::id());
            Self(std::env::temp_dir().join(name))
        }

        fn clock(&self) -> Clock {
            Clock::new(Some(&self.0))
        }
    }

    fn at(seconds: u64) -> Instant {
        Instant::after_start(Duration::from_secs(seconds))
    }

    impl Drop for Stamp {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    #[test]
    fn time_is_not_before_the_build_of_the_program() {
        let clock = Clock::new(None);
        assert!(built_at() > Duration::from_secs(1_700_000_000));
        assert_eq!(clock.at_least_floor(Duration::ZERO), built_at());
        let later = built_at() + Duration::from_secs(5);
        assert_eq!(clock.at_least_floor(later), later);
    }

    #[test]
    fn time_is_not_before_the_last_run() {
        let stamp = Stamp::new("last-run");
        let mut clock = stamp.clock();
        assert_eq!(clock.floor, built_at());
        clock.stamp(at(0));
        assert!(!stamp.0.exists(), "the clock may be wrong");
        assert!(clock.on_verified(at(0)));
        assert!(!clock.on_verified(at(1)));
        clock.stamp(at(100));
        let floor = stamp.clock().floor;
        assert!(floor >= built_at() && floor + Duration::from_secs(60) > system_time());

        let future = system_time().as_secs() + 1_000_000;
        std::fs::write(&stamp.0, format!("{future}\n")).unwrap();
        let mut clock = stamp.clock();
        assert_eq!(clock.now().as_secs(), future);
        let replacement = clock.replacement().unwrap();
        let expected = format!(
            "): certificates and DNSSEC signatures are verified at the time in --clock-stamp {:?} \
             ({}): set the clock, or remove the file if its time is wrong",
            stamp.0.display(),
            date(Duration::from_secs(future))
        );
        assert!(replacement.starts_with("the system clock is behind (20"));
        assert!(replacement.ends_with(&expected), "{replacement}");
        assert!(!clock.on_verified(at(0)), "not by the system's clock");
        clock.stamp(at(1));
        assert_eq!(
            std::fs::read_to_string(&stamp.0).unwrap(),
            format!("{future}\n")
        );
    }

    #[test]
    fn stamp_advances_only_by_the_time_since_a_verification() {
        let stamp = Stamp::new("jump");
        let mut clock = stamp.clock();
        clock.floor = Duration::ZERO;
        let verified_at = system_time().saturating_sub(DAY);
        clock.verified = Some((verified_at, at(10)));
        // Meanwhile the clock was set to a day later.
        clock.stamp(at(15));
        let written = std::fs::read_to_string(&stamp.0).unwrap();
        let expected = (verified_at + Duration::from_secs(5)).as_secs();
        assert_eq!(written, format!("{expected}\n"));
    }

    #[test]
    fn stamp_far_ahead_is_ignored() {
        let (year, built_at) = (DAY * 365, built_at());
        let is_believed = |stamp, clock| doubt(stamp, clock).is_none();
        // A clock without a battery.
        assert!(is_believed(built_at + 15 * year, Duration::ZERO));
        assert!(!is_believed(built_at + 15 * year + DAY, Duration::ZERO));
        // A clock that may be right.
        assert!(is_believed(built_at + year, built_at));
        assert!(!is_believed(built_at + year + DAY, built_at));
        assert!(!is_believed(Duration::from_secs(u64::MAX), built_at));
        assert!(!is_believed(built_at + 16 * year, built_at + 16 * year));

        let stamp = Stamp::new("far");
        std::fs::write(&stamp.0, format!("{}\n", u64::MAX)).unwrap();
        assert_eq!(stamp.clock().floor, built_at);
    }

    #[test]
    fn file_without_a_time_is_ignored() {
        let stamp = Stamp::new("no-time");
        std::fs::write(&stamp.0, b"yesterday\xff").unwrap();
        assert_eq!(stamp.clock().floor, built_at());
    }
}
