//! Files, read and written as a whole or, if they are long, in parts.
//!
//! Another user may have replaced a file by something else: a named pipe, on which a read would
//! block forever, or a link to a file of a third user. So only regular files are read, without
//! blocking, and a new file replaces whatever has its name.

mod owner;

pub use owner::Owner;

use std::fs::{self, File, FileType, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, fchown};
use std::path::Path;

use nix::libc::{ELOOP, ENXIO, O_NOCTTY, O_NOFOLLOW, O_NONBLOCK};
use nix::unistd::Uid;
use rustix::fs::{Access, AtFlags, CWD, accessat};
use rustix::io::Errno;

use super::user;

/// Maximum size in bytes of a file that is read. All CA certificates of a system together have a
/// quarter of it.
const LEN_MAX: u64 = 1024 * 1024;

/// Reads a regular file of at most 1 MiB.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    read_whole(open(path, 0)?)
}

/// A regular file of any length, which is read in parts.
#[derive(Debug)]
pub struct LongFile(File);

impl LongFile {
    /// Opens a file.
    pub fn open(path: &Path) -> io::Result<Self> {
        open(path, 0).map(Self)
    }

    /// Opens a file that no other user can have written: it belongs to root or to the user of this
    /// process, and no other user may write it. A symbolic link with this name is an error.
    ///
    /// # Errors
    ///
    /// Returns the error of the file system, or one that tells the owner and the mode of the file.
    pub fn open_own(path: &Path) -> io::Result<Self> {
        let file = open_unlinked(path)?;
        let metadata = file.metadata()?;
        let is_own = metadata.uid() == 0 || metadata.uid() == Uid::effective().as_raw();
        if is_own && metadata.mode() & 0o022 == 0 {
            return Ok(Self(file));
        }
        let owner = user::label(Uid::from_raw(metadata.uid()));
        let mode = metadata.mode() & 0o7777;
        Err(io::Error::other(format!(
            "other users could have written it: it belongs to user {owner} and has mode {mode:o}"
        )))
    }
}

impl Read for LongFile {
    fn read(&mut self, part: &mut [u8]) -> io::Result<usize> {
        self.0.read(part)
    }
}

/// Reads a regular file of at most 1 MiB. A symbolic link with this name is an error.
pub fn read_unlinked(path: &Path) -> io::Result<Vec<u8>> {
    read_whole(open_unlinked(path)?)
}

fn open_unlinked(path: &Path) -> io::Result<File> {
    open(path, O_NOFOLLOW).map_err(|error| match error.raw_os_error() {
        Some(ELOOP) => io::Error::other("expected a regular file, found a symbolic link"),
        _ => error,
    })
}

fn read_whole(file: File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(LEN_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LEN_MAX {
        return Err(io::Error::other("larger than 1 MiB"));
    }
    Ok(bytes)
}

/// Opens a regular file. Opening or reading another type of file could block forever.
fn open(path: &Path, flags: i32) -> io::Result<File> {
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(O_NONBLOCK | O_NOCTTY | flags)
        .open(path);
    let file = opened.or_else(|error| {
        // Landlock denies opening a directory, but not reading its type.
        if error.kind() == ErrorKind::PermissionDenied
            && let Ok(metadata) = fs::metadata(path)
        {
            check_regular(metadata.file_type())?;
        }
        Err(error)
    })?;
    check_regular(file.metadata()?.file_type())?;
    Ok(file)
}

fn check_regular(kind: FileType) -> io::Result<()> {
    if kind.is_file() {
        return Ok(());
    }
    Err(unexpected("a regular file", kind))
}

#[inline(never)]
fn unexpected(expected: &str, kind: FileType) -> io::Error {
    let found = name_of(kind);
    io::Error::other(format!("expected {expected}, found {found}"))
}

/// Checks that a file, if there is one, is a Unix socket.
pub fn check_socket(path: &Path) -> io::Result<()> {
    match fs::metadata(path).map(|metadata| metadata.file_type()) {
        Ok(kind) if !kind.is_socket() => Err(unexpected("a Unix socket", kind)),
        _ => Ok(()),
    }
}

fn name_of(kind: FileType) -> &'static str {
    if kind.is_file() {
        "a regular file"
    } else if kind.is_dir() {
        "a directory"
    } else if kind.is_fifo() {
        "a named pipe"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a device"
    }
}

/// Describes an error of a file that is read, with the user that lacks a permission, or the folder
/// that is missing.
pub fn describe(path: &Path, error: &io::Error) -> String {
    let folder = folder_of(path);
    match error.kind() {
        ErrorKind::PermissionDenied if is_refused(path) => {
            let (user, advice) = (user::label(Uid::effective()), advice_to_permit(path));
            format!("{error}: user {user} may not read it: {advice}")
        }
        ErrorKind::NotFound if !folder.exists() => {
            format!("{error}: there is no folder {:?}", folder.display())
        }
        ErrorKind::NotFound if path.is_relative() => {
            let whole = std::path::absolute(path).unwrap_or_default();
            format!("{error}: there is no {:?}", whole.display())
        }
        _ => error.to_string(),
    }
}

/// Returns whether the modes of a file and its folders do not let this process read it.
pub fn is_refused(path: &Path) -> bool {
    check_access(path, Access::READ_OK) == Err(Errno::ACCESS)
}

fn check_access(path: &Path, access: Access) -> rustix::io::Result<()> {
    // The system-call filter allows this call, and not that of `rustix::fs::access`.
    accessat(CWD, path, access, AtFlags::empty())
}

/// Returns advice on a file that a user may not read.
pub fn advice_to_permit(path: &Path) -> &'static str {
    if path.iter().any(|name| name == "letsencrypt") {
        "use LoadCredential= of systemd, or copy it in a deploy hook of certbot"
    } else {
        "change the group or mode of the file or its folders, or use LoadCredential= of systemd"
    }
}

/// Describes an error of a file that is written.
pub fn describe_written(path: &Path, error: &io::Error) -> String {
    let folder = folder_of(path);
    match error.kind() {
        ErrorKind::NotFound if !folder.exists() => {
            format!("{error}: create the folder {:?}", folder.display())
        }
        ErrorKind::NotFound if path.is_symlink() => {
            let target = fs::read_link(path).unwrap_or_default();
            let target = target.display();
            format!("{error}: it is a symbolic link to {target:?}: create the folder of its target")
        }
        ErrorKind::PermissionDenied if is_special(path) || path.is_dir() => {
            let kind = fs::metadata(path).map(|metadata| name_of(metadata.file_type()));
            let found = kind.unwrap_or("another type of file");
            format!("expected a regular file, found {found}")
        }
        ErrorKind::ReadOnlyFilesystem => {
            format!("{error}: with the systemd units, use /var/log/dotproxy or /var/lib/dotproxy")
        }
        _ => error.to_string(),
    }
}

/// Checks that a file can be opened for reading.
pub fn try_to_open(path: &Path) -> io::Result<()> {
    open(path, 0).map(drop)
}

/// Returns why a user may not write a file, for a message that names both.
#[inline(never)]
pub fn obstacle(path: &Path) -> String {
    let (subject, metadata) = match fs::symlink_metadata(path) {
        Ok(entry) if entry.is_symlink() => {
            return "it is a symbolic link: name its target".to_owned();
        }
        Ok(entry) if entry.is_file() && entry.nlink() > 1 => {
            return "it has several names (hard links): use another file".to_owned();
        }
        Ok(entry) => ("it", entry),
        Err(_) => match fs::metadata(folder_of(path)) {
            Ok(folder) => ("its folder", folder),
            Err(error) => return error.to_string(),
        },
    };
    let (owner, mode) = (metadata.uid(), metadata.mode() & 0o7777);
    let owner = user::label(Uid::from_raw(owner));
    format!("{subject} belongs to user {owner} and has mode {mode:o}")
}

/// Returns whether the path is a device or a pipe.
pub fn is_special(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| !metadata.is_file() && !metadata.is_dir())
}

/// Returns the options for appending to a file without blocking.
fn appending() -> OpenOptions {
    let mut options = OpenOptions::new();
    options
        .append(true)
        .mode(0o640)
        .custom_flags(O_NONBLOCK | O_NOCTTY);
    options
}

/// Opens a file for appending, without waiting for a slow reader. Creates the file if it does not
/// exist. A pipe is opened with or without a reader; the returned flag tells whether the reader is
/// missing.
pub fn append(path: &Path) -> io::Result<(File, bool)> {
    let is_pipe = is_pipe(path);
    // The end of the only writer would be the end of the file for a reader.
    let writer = is_pipe.then(|| appending().open(path));
    let file = appending().read(is_pipe).create(true).open(path)?;
    Ok((file, writer.as_ref().is_some_and(lacks_reader)))
}

/// Returns whether the path is a named pipe without a reader. A reader that waits for its first
/// writer then sees the end of the file, as after each run of a program that writes.
pub fn is_pipe_without_reader(path: &Path) -> bool {
    is_pipe(path) && lacks_reader(&appending().open(path))
}

fn is_pipe(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_fifo())
}

/// Returns whether a pipe could not be opened for writing because it has no reader.
fn lacks_reader(opened: &io::Result<File>) -> bool {
    matches!(opened, Err(error) if error.raw_os_error() == Some(ENXIO))
}

/// Checks whether [`append`] would open a file, without creating or changing one.
pub fn try_to_append(path: &Path) -> io::Result<()> {
    match fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => match fs::read_link(path) {
            // Opening the link would create its target.
            Ok(target) => try_to_make(&folder_of(path).join(target)),
            Err(_) => try_to_make(path),
        },
        Err(error) => Err(error),
        Ok(metadata) if metadata.is_dir() => Err(ErrorKind::IsADirectory.into()),
        Ok(metadata) if metadata.file_type().is_socket() => {
            Err(io::Error::other("expected a file, not a socket"))
        }
        Ok(_) => Ok(check_access(path, Access::WRITE_OK)?),
    }
}

/// Checks whether [`write()`] would create or replace a file, without doing so.
pub fn try_to_write(path: &Path) -> io::Result<()> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => Err(ErrorKind::IsADirectory.into()),
        _ => try_to_make(path),
    }
}

/// Checks whether a file with this name could be created.
fn try_to_make(path: &Path) -> io::Result<()> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    if path.file_name().is_none() || !fs::metadata(folder)?.is_dir() {
        return Err(ErrorKind::NotADirectory.into());
    }
    Ok(check_access(folder, Access::WRITE_OK | Access::EXEC_OK)?)
}

/// Returns whether the path exists and is not a socket.
pub fn is_no_socket(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| !metadata.file_type().is_socket())
}

/// The identity of a file's content. A file that is replaced by renaming another one has another
/// inode, also behind a symbolic link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileVersion {
    device: u64,
    inode: u64,
    modified_at: (i64, i64),
    len: u64,
}

impl FileVersion {
    /// Returns the version of a file.
    pub fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs::metadata(path)?;
        Ok(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            modified_at: (metadata.mtime(), metadata.mtime_nsec()),
            len: metadata.len(),
        })
    }
}

/// Prepares a file that another user is going to [append] to, as root: creates it and gives it to
/// that user, unless that user can write the folder. Such a folder can contain anything, so there
/// the user has to create the file itself. A file that is a link, has several names, or belongs to
/// a third user is not changed.
pub fn prepare_for(user: Owner, path: &Path) -> io::Result<()> {
    let folder = folder_of(path);
    match user.first_writable(folder) {
        Ok(None) => {}
        Ok(Some(_)) => return Ok(()),
        // The user gets the error when it opens the file.
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    }
    let is_there = fs::symlink_metadata(path);
    if is_there.is_ok_and(|metadata| !metadata.is_file()) {
        return Ok(());
    }
    let flags = O_NONBLOCK | O_NOCTTY | O_NOFOLLOW;
    let file = appending().create(true).custom_flags(flags).open(path)?;
    let metadata = file.metadata()?;
    let is_own = metadata.uid() == 0 || metadata.uid() == user.uid;
    if metadata.is_file() && metadata.nlink() == 1 && is_own {
        fchown(&file, Some(user.uid), Some(user.gid))?;
    }
    Ok(())
}

/// Writes a file atomically: a crash of the program leaves either the old file or the new one. An
/// existing entry with the name of the file, or of the temporary file, is replaced, not followed or
/// opened.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace(path, 0o644, |file| file.write_all(bytes))
}

/// Replaces a file atomically, like [`write()`], by one of this mode that `fill` writes.
///
/// # Errors
///
/// Returns the error of `fill`, or of the file system.
pub fn replace<T>(
    path: &Path,
    mode: u32,
    fill: impl FnOnce(&mut File) -> io::Result<T>,
) -> io::Result<T> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let beside = path.with_file_name(name);
    let create = || {
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&beside)
    };
    let mut created = create().or_else(|error| match error.kind() {
        // Left by a process that was killed, or created by an attacker.
        ErrorKind::AlreadyExists => fs::remove_file(&beside).and_then(|()| create()),
        _ => Err(error),
    })?;
    fill(&mut created)
        .and_then(|result| fs::rename(&beside, path).map(|()| result))
        .inspect_err(|_| drop(fs::remove_file(&beside)))
}

/// Returns the folder of a file.
fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn obstacle_has_the_name_of_the_owner() {
        let text = obstacle(Path::new("/proc/version"));
        assert_eq!(text, "it belongs to user root (0) and has mode 444");
    }

    #[test]
    fn special_file_is_an_error() {
        for (path, found) in [("/dev/zero", "a device"), ("/proc/self", "a directory")] {
            let error = read(Path::new(path)).unwrap_err().to_string();
            assert_eq!(error, format!("expected a regular file, found {found}"));
        }
    }

    #[test]
    fn file_is_replaced_atomically() {
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
