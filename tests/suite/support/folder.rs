//! A temporary folder for the files of a test.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use super::certificates::unique_name;

/// A folder that every user may write and that is removed with its test.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new(label: &str) -> Self {
        let path = std::env::temp_dir().join(unique_name(label));
        std::fs::create_dir_all(&path).expect("a temporary folder");
        let every_user = PermissionsExt::from_mode(0o777);
        std::fs::set_permissions(&path, every_user).expect("the folder of the test is writable");
        Self(path)
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
