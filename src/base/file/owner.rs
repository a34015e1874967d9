//! What another user may do with a file, according to the modes of the file and its folders.

use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{StatVfsMountFlags, statvfs};

use super::folder_of;

/// Maximum number of symbolic links in the path of a file, the same as in the kernel.
const LINKS_MAX: usize = 40;

/// A user and its only group.
#[derive(Clone, Copy, Debug)]
pub struct Owner {
    /// The user id.
    pub uid: u32,
    /// The group id.
    pub gid: u32,
}

impl Owner {
    /// Returns the first file or folder in the path of a file that this user may write or change
    /// the mode of: with that access the user controls the content of the file.
    pub fn first_writable(self, path: &Path) -> io::Result<Option<PathBuf>> {
        let mut at = PathBuf::from("/");
        let mut rest = components(&std::path::absolute(path)?);
        let mut links = 0;
        while let Some(name) = rest.pop() {
            if name == ".." {
                at.pop();
                continue;
            }
            let folder = fs::metadata(&at)?;
            let next = at.join(name);
            let entry = fs::symlink_metadata(&next)?;
            if self.may_write(&at, &folder) {
                // In a sticky folder like /tmp, only the owner of an entry can replace it.
                let is_sticky = folder.mode() & 0o1000 != 0 && folder.uid() != self.uid;
                if !is_sticky {
                    return Ok(Some(at));
                } else if entry.uid() == self.uid {
                    return Ok(Some(next));
                }
            }
            if !entry.is_symlink() {
                at = next;
                continue;
            }
            links += 1;
            if links > LINKS_MAX {
                return Err(io::Error::other("too many symbolic links"));
            }
            let target = fs::read_link(&next)?;
            if target.is_absolute() {
                at = PathBuf::from("/");
            }
            rest.extend(components(&target));
        }
        let may_write = self.may_write(&at, &fs::metadata(&at)?);
        Ok(may_write.then_some(at))
    }

    /// Returns the path if this user could not [append](super::append) to the file after root has
    /// [prepared](super::prepare_for) it.
    pub fn refused_to_append(self, path: &Path) -> io::Result<Option<&Path>> {
        let folder = folder_of(path);
        let is_controlled = self.first_writable(folder)?.is_some();
        let may = match fs::symlink_metadata(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                !is_controlled || self.may_write(folder, &fs::metadata(folder)?)
            }
            Err(error) => return Err(error),
            Ok(entry) => {
                let is_own = entry.uid() == 0 || entry.uid() == self.uid;
                let is_given = entry.is_file() && entry.nlink() == 1 && is_own && !is_controlled;
                is_given || self.may_write(path, &fs::metadata(path)?)
            }
        };
        Ok((!may).then_some(path))
    }

    /// Returns the folder of a file if this user could not replace the file in it.
    pub fn refused_to_replace(self, path: &Path) -> io::Result<Option<&Path>> {
        let folder = folder_of(path);
        let may = self.may_write(folder, &fs::metadata(folder)?);
        Ok((!may).then_some(folder))
    }

    /// Returns whether this user may read a file, according to the modes of the file and its
    /// folders.
    pub fn may_read(self, path: &Path) -> io::Result<bool> {
        let real = fs::canonicalize(path)?;
        let given = std::path::absolute(path)?;
        let folders = given.ancestors().skip(1).chain(real.ancestors().skip(1));
        for folder in folders {
            if !self.has_mode(&fs::metadata(folder)?, 0o1) {
                return Ok(false);
            }
        }
        Ok(self.has_mode(&fs::metadata(&real)?, 0o4))
    }

    /// Returns whether the mode of a file gives this user these permissions.
    fn has_mode(self, metadata: &Metadata, permissions: u32) -> bool {
        let class = if metadata.uid() == self.uid {
            6
        } else if metadata.gid() == self.gid {
            3
        } else {
            0
        };
        metadata.mode() >> class & permissions == permissions
    }

    fn may_write(self, path: &Path, metadata: &Metadata) -> bool {
        let is_group = metadata.gid() == self.gid;
        let needed = if is_group { 0o020 } else { 0o002 };
        let may = metadata.uid() == self.uid || metadata.mode() & needed != 0;
        // Kubernetes mounts settings so that only the mount is read-only, not the files.
        let is_read_only = || {
            let flags = statvfs(path).map(|found| found.f_flag);
            flags.is_ok_and(|flags| flags.contains(StatVfsMountFlags::RDONLY))
        };
        may && !is_read_only()
    }
}

/// Returns the names in a path, the last one first, without the root.
fn components(path: &Path) -> Vec<OsString> {
    let names = path.components().rev();
    let names = names.filter(|name| matches!(name, Component::Normal(_) | Component::ParentDir));
    names.map(|name| name.as_os_str().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    /// A folder that is removed at the end of its test.
    struct Folder(PathBuf);

    impl Folder {
        fn new(label: &str) -> Self {
            let name = format!("dotproxy-file-{label}-{}", std::process::id());
            let folder = std::env::temp_dir().join(name);
            fs::create_dir(&folder).unwrap();
            // Without symbolic links in the path.
            Self(folder.canonicalize().unwrap())
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn writable_place_is_found_behind_links() {
        let folder = Folder::new("place");
        let path = |name: &str| folder.0.join(name);
        let own = fs::metadata(&folder.0).unwrap();
        let (owner, stranger) = (
            Owner {
                uid: own.uid(),
                gid: own.gid(),
            },
            Owner {
                uid: 65_530,
                gid: 65_530,
            },
        );
        let set_mode = |name: &str, mode| {
            fs::set_permissions(path(name), PermissionsExt::from_mode(mode)).unwrap();
        };
        fs::create_dir(path("open")).unwrap();
        fs::write(path("file"), b"").unwrap();
        set_mode("", 0o755);
        set_mode("file", 0o644);
        set_mode("open", 0o777);
        symlink("../file", path("open/link")).unwrap();
        symlink("open/../file", path("link")).unwrap();
        symlink("loop", path("loop")).unwrap();
        let writable = |user: Owner, name: &str| user.first_writable(&path(name)).unwrap();
        assert_eq!(writable(stranger, "file"), None);
        assert_eq!(
            writable(stranger, "link"),
            None,
            "only entries can be replaced"
        );
        assert_eq!(writable(stranger, "open/link"), Some(path("open")));
        set_mode("open", 0o1777);
        assert_eq!(writable(stranger, "open/link"), None);
        set_mode("file", 0o666);
        for name in ["file", "link", "open/link"] {
            assert_eq!(writable(stranger, name), Some(path("file")));
        }
        assert!(writable(owner, "file").is_some());
        assert!(stranger.first_writable(&path("loop")).is_err());
        let missing = stranger.first_writable(&path("none")).unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::NotFound);
    }
}
