//! The file that keeps the cache over a restart (`--cache-file`): written at shutdown, read at the
//! start.
//!
//! ```text
//!   magic with the version │ digest of settings │ time of writing │ entries │ SHA-256
//!          16 bytes                 32                   8                    32
//! ```
//!
//! The last digest covers everything before it, so that a damaged file is not used. The digest of
//! settings covers what the answers depend on: upstreams, domains, DNSSEC and DNS64. The time is in
//! seconds since 1970, or zero if the clock of the host was not set.

use std::io::{self, BufReader, BufWriter, ErrorKind, Read, Write};
use std::path::Path;
use std::time::Duration;

use ring::digest::{Context, SHA256, SHA256_OUTPUT_LEN};

use super::Reactor;
use crate::base::counted::counted;
use crate::base::file;
use crate::base::file::LongFile;
use crate::config::Config;
use crate::net::Net;
use crate::proxy::Restored;

/// The start of a cache file. The last byte is the version of the format.
const MAGIC: &[u8; 16] = b"dotproxy cache\n\x01";

/// The bytes before the entries.
const HEADER_LEN: usize = MAGIC.len() + SHA256_OUTPUT_LEN + size_of::<u64>();

/// The mode of the file, which tells what clients looked up.
const MODE: u32 = 0o600;

/// Returns the digest of the settings that answers depend on. The running settings count, and not
/// the present content of their files.
fn digest_of(config: &Config) -> [u8; SHA256_OUTPUT_LEN] {
    let mut lines = Vec::new();
    for upstream in &config.upstreams {
        let (pins, is_validated) = (&upstream.pins, upstream.is_validated);
        lines.push(format!("upstream {upstream} {pins:?} {is_validated}"));
    }
    let dnssec = &config.dnssec;
    let (domains, mode) = (config.domains.checksum(), dnssec.mode);
    lines.push(format!("domains {domains} dnssec {mode:?}"));
    let (ca_file, dns64) = (&config.ca_file, &config.dns64);
    lines.push(format!("authorities {ca_file:?} dns64 {dns64:?}"));
    for anchor in &dnssec.anchors {
        let (zone, rr_type, data) = (&anchor.zone, anchor.rr_type.0, &anchor.data);
        lines.push(format!("anchor {zone} {rr_type} {data:?}"));
    }
    for domain in &dnssec.negative_anchors {
        lines.push(format!("negative anchor {domain}"));
    }
    let mut context = Context::new(&SHA256);
    context.update(lines.join("\n").as_bytes());
    finish(context)
}

fn finish(context: Context) -> [u8; SHA256_OUTPUT_LEN] {
    let digest = context.finish();
    digest.as_ref().try_into().expect("the length of SHA-256")
}

/// A file whose content is digested as it is read or written.
struct DigestedFile<F> {
    file: F,
    digested: Context,
}

impl<F> DigestedFile<F> {
    fn new(file: F) -> Self {
        let digested = Context::new(&SHA256);
        Self { file, digested }
    }
}

impl<R: Read> Read for DigestedFile<R> {
    fn read(&mut self, part: &mut [u8]) -> io::Result<usize> {
        let len = self.file.read(part)?;
        self.digested.update(&part[..len]);
        Ok(len)
    }
}

impl<W: Write> Write for DigestedFile<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = self.file.write(bytes)?;
        self.digested.update(&bytes[..len]);
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl<N: Net> Reactor<N> {
    /// Fills the cache from a cache file, if the file exists. A file that cannot be used is ignored
    /// with a warning.
    #[inline(never)]
    pub fn read_cache_file(&mut self, path: &Path) {
        let file = match LongFile::open_own(path) {
            // The first start.
            Err(error) if error.kind() == ErrorKind::NotFound => return,
            opened => opened,
        };
        let path = path.display();
        match file.and_then(|file| self.restore_cache(file)) {
            Ok(Restored { fresh, stale }) => {
                let kept = self.proxy.cache_usage().entries;
                let loss = if kept < fresh + stale {
                    format!("; {kept} fit into the cache")
                } else {
                    String::new()
                };
                log::info!(
                    event = "cache-restored", fresh = fresh, stale = stale, kept = kept;
                    "--cache-file: {path:?}: restored {fresh} fresh and {stale} expired \
                     entries{loss}",
                );
            }
            Err(error) => log::warn!(
                event = "cache-not-restored";
                "--cache-file: {path:?}: ignored, starting with an empty cache: {}",
                match error.kind() {
                    ErrorKind::UnexpectedEof => "the file is cut short".to_owned(),
                    ErrorKind::InvalidData => "the file is damaged".to_owned(),
                    _ => error.to_string(),
                }
            ),
        }
    }

    fn restore_cache(&mut self, file: LongFile) -> io::Result<Restored> {
        let mut file = DigestedFile::new(BufReader::new(file));
        let mut header = [0; HEADER_LEN];
        file.read_exact(&mut header)?;
        let (magic, rest) = header.split_at(MAGIC.len());
        let (settings, written_at) = rest.split_at(SHA256_OUTPUT_LEN);
        if magic != MAGIC {
            return Err(io::Error::other(
                "it is not a cache file, or was written by another version of dotproxy",
            ));
        }
        if settings != digest_of(&self.config) {
            return Err(io::Error::other(
                "the settings of upstreams, domains, DNSSEC or DNS64 have changed",
            ));
        }
        let written_at = written_at.try_into().expect("eight bytes");
        let written_at = Duration::from_secs(u64::from_be_bytes(written_at));
        let now = self.clock.plausible_now();
        let elapsed = now
            .and_then(|now| now.checked_sub(written_at))
            .filter(|_| !written_at.is_zero());
        let restored = self.proxy.restore_cache(&mut file, elapsed, self.now)?;
        let DigestedFile { mut file, digested } = file;
        let mut end = [0; SHA256_OUTPUT_LEN];
        let read = file.read_exact(&mut end);
        let has_more = file.read(&mut [0]).is_ok_and(|len| len > 0);
        if read.is_err() || has_more || end != finish(digested) {
            self.proxy.clear_cache();
            return Err(ErrorKind::InvalidData.into());
        }
        Ok(restored)
    }

    /// Writes the cache to a cache file.
    #[inline(never)]
    pub(super) fn write_cache_file(&self, path: &Path) {
        let shown = path.display();
        match self.save_cache(path) {
            Ok(entries) => log::info!(
                event = "cache-saved", entries = entries;
                "--cache-file: {shown:?}: {} written",
                counted(entries, "entry", "entries"),
            ),
            Err(error) => log::warn!(
                event = "cache-not-saved";
                "--cache-file: {shown:?}: {}",
                file::describe_written(path, &error)
            ),
        }
    }

    fn save_cache(&self, path: &Path) -> io::Result<usize> {
        let settings = digest_of(&self.config);
        let written_at = self.clock.plausible_now().unwrap_or_default();
        file::replace(path, MODE, |file| {
            let mut file = DigestedFile::new(BufWriter::new(file));
            file.write_all(MAGIC)?;
            file.write_all(&settings)?;
            file.write_all(&written_at.as_secs().to_be_bytes())?;
            let entries = self.proxy.save_cache(self.now, &mut file)?;
            let DigestedFile { mut file, digested } = file;
            file.write_all(&finish(digested))?;
            file.flush()?;
            Ok(entries)
        })
    }
}
