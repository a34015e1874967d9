//! Small files, read and written whole.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, fchown};
use std::path::Path;

use nix::libc::{ELOOP, O_NOFOLLOW, O_NONBLOCK};
use rustix::fs::{Access, access};

/// Octets of the largest file that is read. All roots of a system together have a quarter of it.
const LEN_MAX: u64 = 1024 * 1024;

/// Reads a file, which is an error if it is larger than anybody writes.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut octets = Vec::new();
    File::open(path)?
        .take(LEN_MAX + 1)
        .read_to_end(&mut octets)?;
    if octets.len() as u64 > LEN_MAX {
        return Err(io::Error::other("larger than 1 MiB"));
    }
    Ok(octets)
}

/// Whether a file can be read, without reading it.
pub fn try_to_open(path: &Path) -> io::Result<()> {
    File::open(path).map(drop)
}

/// Whether there is a file with contents of its own.
pub fn is_ordinary(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.is_file())
}

/// Whether there is a device or a pipe.
pub fn is_special(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| !metadata.is_file() && !metadata.is_dir())
}

/// Opens a file to add to it, so that nobody waits for whoever reads it. It is made if need be. A
/// pipe is opened whether somebody reads it or not.
pub fn append(path: &Path) -> io::Result<File> {
    let is_pipe = fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_fifo());
    OpenOptions::new()
        .read(is_pipe)
        .append(true)
        .create(true)
        .mode(0o640)
        .custom_flags(O_NONBLOCK)
        .open(path)
}

/// Returns whether [`append`] would open a file, without making or changing one.
pub fn try_to_append(path: &Path) -> io::Result<()> {
    match fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => try_to_make(path),
        Err(error) => Err(error),
        Ok(metadata) if metadata.is_dir() => Err(ErrorKind::IsADirectory.into()),
        Ok(metadata) if metadata.file_type().is_socket() => {
            Err(io::Error::other("expected a file, not a socket"))
        }
        Ok(_) => Ok(access(path, Access::WRITE_OK)?),
    }
}

/// Returns whether [`write()`] would make or replace a file, without doing so.
pub fn try_to_write(path: &Path) -> io::Result<()> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => Err(ErrorKind::IsADirectory.into()),
        _ => try_to_make(path),
    }
}

/// Returns whether a file of this name could be made.
fn try_to_make(path: &Path) -> io::Result<()> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    if path.file_name().is_none() || !fs::metadata(folder)?.is_dir() {
        return Err(ErrorKind::NotADirectory.into());
    }
    Ok(access(folder, Access::WRITE_OK | Access::EXEC_OK)?)
}

/// Returns whether something other than a socket has this name.
pub fn is_no_socket(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| !metadata.file_type().is_socket())
}

/// Gives an ordinary file to another user and group. What is behind a link stays whose it is: who
/// has put the link there may not have it.
pub fn give(path: &Path, uid: u32, gid: u32) -> io::Result<()> {
    let opened = OpenOptions::new()
        .append(true)
        .custom_flags(O_NONBLOCK | O_NOFOLLOW)
        .open(path);
    match opened {
        Ok(file) => fchown(file, Some(uid), Some(gid)),
        Err(error) if error.raw_os_error() == Some(ELOOP) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Writes a file so that, whatever happens meanwhile, it is either the old one or the new one.
pub fn write(path: &Path, octets: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let beside = path.with_file_name(name);
    fs::write(&beside, octets)?;
    fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn file_without_an_end_is_an_error() {
        assert!(read(Path::new("/dev/zero")).is_err());
        assert_eq!(read(Path::new("/dev/null")).unwrap(), b"");
    }

    #[test]
    fn what_is_behind_a_link_stays_whose_it_is() {
        let folder = std::env::temp_dir().join(format!("dotproxy-give-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        let (file, link) = (folder.join("file"), folder.join("link"));
        write(&file, b"").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        let own = fs::metadata(&file).unwrap();
        // Only root can give anything away.
        let other = if own.uid() == 0 { 65_532 } else { own.uid() };
        give(&link, other, own.gid()).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().uid(), own.uid());
        give(&file, other, own.gid()).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().uid(), other);
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn file_is_replaced_as_a_whole() {
        let name = format!("dotproxy-file-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        for text in ["first\n", "second\n"] {
            write(&path, text.as_bytes()).unwrap();
            assert_eq!(read(&path).unwrap(), text.as_bytes());
        }
        fs::remove_file(&path).unwrap();
        assert!(write(Path::new("/nonexistent/file"), b"").is_err());
    }
}
