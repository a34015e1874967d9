//! Statistics of the process from the kernel: memory, processor time, file descriptors.
//!
//! The files are opened at the start, because the sandbox prevents it later.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::{Duration, SystemTime};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use nix::unistd::{SysconfVar, sysconf};
use rustix::fs::{Dir, Mode, OFlags};
use rustix::process::{Resource, getrlimit};

/// Open files with the statistics.
#[derive(Debug)]
pub struct ProcessStats {
    started_at: Duration,
    statm: Option<File>,
    descriptors: Option<Dir>,
}

/// The resource usage of the process.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// The start of the process, in time since 1970.
    pub started_at: Duration,
    /// Processor time in user and kernel mode.
    pub processor_time: Option<Duration>,
    /// Resident memory, in bytes.
    pub resident: Option<u64>,
    /// Virtual memory, in bytes.
    pub virtual_memory: Option<u64>,
    /// The number of open file descriptors.
    pub open_descriptors: Option<u64>,
    /// The limit of open file descriptors.
    pub descriptors_max: Option<u64>,
}

impl ProcessStats {
    /// Opens the files of the statistics that the system has.
    pub fn open() -> Self {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let descriptors = rustix::fs::open("/proc/self/fd", flags, Mode::empty());
        Self {
            started_at: since_1970(),
            statm: File::open("/proc/self/statm").ok(),
            descriptors: descriptors.ok().and_then(|folder| Dir::new(folder).ok()),
        }
    }

    /// Reads the current statistics.
    pub fn usage(&mut self) -> Usage {
        let pages = self.statm.as_ref().and_then(pages);
        let page = sysconf(SysconfVar::PAGE_SIZE).ok().flatten();
        let page = page.and_then(|page| u64::try_from(page).ok());
        let bytes = |pages: Option<u64>| Some(pages? * page?);
        Usage {
            started_at: self.started_at,
            processor_time: processor_time(),
            resident: bytes(pages.map(|(_, resident)| resident)),
            virtual_memory: bytes(pages.map(|(all, _)| all)),
            open_descriptors: self.descriptors.as_mut().and_then(count),
            descriptors_max: getrlimit(Resource::Nofile).current,
        }
    }
}

fn since_1970() -> Duration {
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since_1970.unwrap_or_default()
}

/// Returns the pages of virtual and of resident memory (proc(5), `statm`).
fn pages(statm: &File) -> Option<(u64, u64)> {
    let mut text = [0; 128];
    let len = statm.read_at(&mut text, 0).ok()?;
    let text = str::from_utf8(&text[..len]).ok()?;
    let mut numbers = text.split(' ').map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

fn processor_time() -> Option<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_SELF).ok()?;
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    u64::try_from(micros).ok().map(Duration::from_micros)
}

fn count(descriptors: &mut Dir) -> Option<u64> {
    descriptors.rewind();
    let entries = descriptors.filter(|entry| {
        let name = entry.as_ref().map(|entry| entry.file_name().to_bytes());
        name.is_ok_and(|name| !name.starts_with(b"."))
    });
    u64::try_from(entries.count()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_is_that_of_this_process() {
        let mut process = ProcessStats::open();
        let before = process.usage();
        let files: Vec<File> = (0..5).map(|_| File::open("/dev/null").unwrap()).collect();
        let mut memory = vec![0_u8; 8 << 20];
        memory.fill(7);
        let after = process.usage();
        // Other tests open files at the same time.
        assert!(after.open_descriptors >= Some(files.len() as u64));
        assert!(after.open_descriptors <= after.descriptors_max);
        assert!(after.resident >= Some(memory.len() as u64), "{after:?}");
        assert!(after.virtual_memory > after.resident);
        assert!(after.processor_time >= before.processor_time);
        let age = since_1970().saturating_sub(after.started_at);
        assert!(age < Duration::from_secs(10));
    }
}
