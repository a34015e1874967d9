//! A place for files of a test.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

/// A folder that everybody may use and that goes with its test.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new(label: &str) -> Self {
        let name = format!("dotproxy-{label}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).expect("a temporary folder");
        let everybody = PermissionsExt::from_mode(0o777);
        std::fs::set_permissions(&path, everybody).expect("a folder of ours");
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
