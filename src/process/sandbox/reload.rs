//! Whether new settings fit the restrictions of the running process.

use std::io;
use std::path::{Path, PathBuf, absolute};

use super::{Restrictions, ports};
use crate::base::file;
use crate::config::Config;

impl Restrictions {
    /// Returns an error if the process cannot apply these settings within its restrictions, which
    /// are permanent.
    pub fn admits(&self, config: &Config) -> Result<(), String> {
        if let Some(open) = &self.ports
            && let Some(port) = ports(config).find(|port| !open.contains(port))
        {
            return Err(format!(
                "the sandbox does not allow TCP to port {port}: restart the program to use it"
            ));
        }
        let mut files = config.files_by_option().into_iter();
        let denial = files.find_map(|(option, file)| Some((option, file, self.denial(file)?)));
        match denial {
            Some((option, file, (error, folder))) => {
                let (file, folder) = (file.display(), folder.display());
                let options = config.file.as_ref().and_then(|path| absolute(path).ok());
                let open = options.iter().filter_map(|path| path.parent());
                let mut open = open.filter(|open| self.is_open(open));
                let other = open.next().map_or(String::new(), |open| {
                    format!(", or put the file into {}", open.display())
                });
                Err(format!(
                    "{option}: {file:?}: {error}: the sandbox does not allow reading {folder}: \
                     restart the program{other}"
                ))
            }
            None => Ok(()),
        }
    }

    /// Returns the error and the folder if this file cannot be opened because it is outside of the
    /// files and folders that are open.
    fn denial(&self, file: &Path) -> Option<(io::Error, PathBuf)> {
        self.files.as_ref()?;
        let error = file::try_to_open(file).err()?;
        let real = file.canonicalize().or_else(|_| absolute(file)).ok()?;
        let is_denied = error.kind() == io::ErrorKind::PermissionDenied && !self.is_open(&real);
        // The user of the process may lack the permission, with or without a sandbox.
        let is_denied = is_denied && !file::is_refused(file);
        is_denied.then_some((error, real.parent()?.to_owned()))
    }

    /// Returns whether the sandbox allows reading this file or folder.
    fn is_open(&self, path: &Path) -> bool {
        let mut open = self.files.iter().flatten();
        open.any(|open| path.starts_with(open))
    }
}
