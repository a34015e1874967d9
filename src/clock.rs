//! The time that certificates are judged by.
//!
//! A board without a battery for its clock starts in 1970, and gets the time from servers whose
//! names it cannot resolve while every certificate is still to begin. So time is taken to be no
//! earlier than two moments that have surely passed: when the program was built, and, where it may
//! keep a file, when it last ran. Everything else about a certificate is judged as ever.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::file;

/// A clock that does not fall behind what is known to have passed.
#[derive(Clone, Debug)]
pub struct Clock {
    floor: Duration,
    stamp: Option<PathBuf>,
}

impl Clock {
    /// How often [`Clock::stamp`] is worth it, if ever.
    pub fn stamp_interval(&self) -> Option<Duration> {
        self.stamp.as_ref().map(|_| Duration::from_secs(3600))
    }

    /// The clock whose floor is in the file `stamp`, if there is one by now.
    pub fn new(stamp: Option<&Path>) -> Self {
        let stamped = stamp.map_or(Duration::ZERO, |path| {
            read(path).unwrap_or_else(|error| {
                log::warn!("--clock-stamp: {}: {error}", path.display());
                Duration::ZERO
            })
        });
        Self {
            floor: stamped.max(built_at()),
            stamp: stamp.map(Path::to_owned),
        }
    }

    /// The time since 1970.
    pub fn now(&self) -> Duration {
        self.at_least_floor(system_time())
    }

    /// For how long the system's clock is behind what is known to have passed, if it is.
    pub fn is_behind(&self) -> Option<Duration> {
        let behind = self.floor.saturating_sub(system_time());
        (!behind.is_zero()).then_some(behind)
    }

    /// Writes the time to the file, if there is one. As long as the system's clock is behind there
    /// is nothing new to write.
    pub fn stamp(&self) {
        let (Some(path), None) = (&self.stamp, self.is_behind()) else {
            return;
        };
        let text = format!("{}\n", system_time().as_secs());
        if let Err(error) = file::write(path, text.as_bytes()) {
            log::warn!("--clock-stamp: {}: {error}", path.display());
        }
    }

    fn at_least_floor(&self, time: Duration) -> Duration {
        time.max(self.floor)
    }
}

/// Returns why a stamp cannot be kept in a file, without changing the file.
pub fn check_stamp(path: &Path) -> Result<(), String> {
    let read = read_octets(path).and_then(|_| file::try_to_write(path));
    read.map_err(|error| format!("--clock-stamp: {}: {error}", path.display()))
}

/// The time of the system's clock since 1970.
pub fn system_time() -> Duration {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
    since_1970.unwrap_or(Duration::ZERO)
}

fn built_at() -> Duration {
    Duration::from_secs(env!("BUILT_AT").parse().unwrap_or(0))
}

/// Reads the file if it is there.
fn read_octets(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match file::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        octets => octets.map(Some),
    }
}

/// Reads seconds since 1970. A file that is not there yet says nothing.
fn read(path: &Path) -> io::Result<Duration> {
    let Some(octets) = read_octets(path)? else {
        return Ok(Duration::ZERO);
    };
    let text = str::from_utf8(&octets).ok().map(str::trim);
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

    impl Drop for Stamp {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    #[test]
    fn time_is_not_before_the_program_was_built() {
        let clock = Clock::new(None);
        assert!(built_at() > Duration::from_secs(1_700_000_000));
        assert_eq!(clock.at_least_floor(Duration::ZERO), built_at());
        let later = built_at() + Duration::from_secs(5);
        assert_eq!(clock.at_least_floor(later), later);
    }

    #[test]
    fn time_is_not_before_the_last_run() {
        let stamp = Stamp::new("last-run");
        assert_eq!(stamp.clock().floor, built_at());
        stamp.clock().stamp();
        let floor = stamp.clock().floor;
        assert!(floor >= built_at() && floor + Duration::from_secs(60) > system_time());

        let future = system_time().as_secs() + 1_000_000;
        std::fs::write(&stamp.0, format!("{future}\n")).unwrap();
        let clock = stamp.clock();
        assert_eq!(clock.now().as_secs(), future);
        assert!(clock.is_behind().is_some());
        clock.stamp();
        assert_eq!(
            std::fs::read_to_string(&stamp.0).unwrap(),
            format!("{future}\n")
        );
    }

    #[test]
    fn file_without_a_time_is_ignored() {
        let stamp = Stamp::new("no-time");
        std::fs::write(&stamp.0, b"yesterday\xff").unwrap();
        assert_eq!(stamp.clock().floor, built_at());
    }
}
