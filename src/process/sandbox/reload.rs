//! Whether new settings fit the restrictions of the running process, and whether it can read its
//! files again.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf, absolute};

use nix::unistd::Uid;
use rustix::io::Errno;

use super::{Restrictions, RuntimeUser, ports, query_log, to_write};
use crate::base::file::{self, Owner};
use crate::base::user;
use crate::config::{Config, DnstapTarget};

impl Restrictions {
    /// Returns an error if the process cannot apply these settings within its restrictions, which
    /// are permanent.
    pub fn admits(&self, config: &Config) -> Result<(), String> {
        if let Some(open) = &self.ports
            && let Some(port) = ports(config).find(|port| !open.contains(port))
        {
            return Err(format!(
                "{}: the sandbox does not allow TCP to port {port}: restart the program to use it",
                option_with_port(config, port)
            ));
        }
        self.check_query_log(config)?;
        self.check_log_folder(config)?;
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

    /// Returns an error if the modes of files prevent the user of `--user` from writing the query
    /// log. The sandbox has no effect here.
    pub fn check_query_log(&self, config: &Config) -> Result<(), String> {
        let (Some(user), Some(path)) = (&self.user, query_log(config)) else {
            return Ok(());
        };
        match file::try_to_append(path) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                user.judge("--query-log", path, Ok(Some(path)))
            }
            _ => Ok(()),
        }
    }

    /// Returns an error if the query log is in a folder that the sandbox has closed for writing.
    fn check_log_folder(&self, config: &Config) -> Result<(), String> {
        let (Some(path), Some(open)) = (query_log(config), &self.files) else {
            return Ok(());
        };
        let needed = to_write(path);
        let needed = needed.iter().filter_map(|path| path.canonicalize().ok());
        match needed
            .into_iter()
            .find(|path| !is_within(path, &open.write))
        {
            Some(closed) => Err(format!(
                "--query-log: {:?}: the sandbox does not allow writing in {}: restart the program \
                 to use it",
                path.display(),
                closed.display()
            )),
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
        let open = self.files.as_ref();
        open.is_some_and(|open| is_within(path, &open.read))
    }
}

/// Returns whether a path is one of these, or below one.
fn is_within(path: &Path, open: &BTreeSet<PathBuf>) -> bool {
    open.iter().any(|open| path.starts_with(open))
}

/// Returns the option whose value has this TCP port, with the value.
fn option_with_port(config: &Config, port: u16) -> String {
    let mut upstreams = config.upstreams.iter();
    let mut bootstrap = config.bootstrap.iter();
    if let Some(upstream) = upstreams.find(|upstream| upstream.port() == port) {
        format!("--upstream: \"{upstream}\"")
    } else if let Some(server) = bootstrap.find(|server| server.port() == port) {
        format!("--bootstrap: \"{server}\"")
    } else if let Some(DnstapTarget::Tcp(reader)) = &config.dnstap
        && reader.port() == port
    {
        format!("--dnstap: \"tcp:{reader}\"")
    } else {
        "--otlp".to_owned()
    }
}

/// Logs files that were read at the start and are not readable for the new user.
pub(super) fn warn_of_closed_files(config: &Config, user: &str) {
    for (option, path) in config.files_by_option() {
        if let Err(error) = file::try_to_open(path) {
            log::warn!("{}", closed_file((option, path), user, &error));
        }
    }
}

/// Returns a warning for each file that is read at the start and will not be readable for the
/// process afterwards: for the user `target`, or for root without capabilities.
pub fn closed_files(config: &Config, target: Option<&RuntimeUser>) -> Vec<String> {
    let root = Owner { uid: 0, gid: 0 };
    let target = target.filter(|target| !target.uid.is_root());
    let user = target.map_or(user::label(Uid::from_raw(0)), |target| target.label.clone());
    let owner = target.map(RuntimeUser::owner);
    let owner = owner.or(config.is_sandboxed.then_some(root));
    let Some(owner) = owner.filter(|_| Uid::effective().is_root()) else {
        return Vec::new();
    };
    let files =
        config
            .files_by_option()
            .into_iter()
            .filter_map(|file| match owner.may_read(file.1) {
                Ok(true) => None,
                Ok(false) => Some(closed_file(file, &user, &Errno::ACCESS.into())),
                Err(error) => Some(closed_file(file, &user, &error)),
            });
    files.collect()
}

fn closed_file((option, path): (&str, &PathBuf), user: &str, error: &io::Error) -> String {
    let advice = file::advice_to_permit(path);
    format!(
        "{option}: {:?}: {error}: the file is read at the start, and cannot be read again on \
         SIGHUP by user {user}: {advice}",
        path.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::{self, Command};

    fn config(line: &str) -> Box<Config> {
        let arguments: Vec<String> = line.split(' ').map(str::to_owned).collect();
        match options::parse(&arguments) {
            Ok(Command::Run(config)) => config,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn option_with_a_closed_port_is_named() {
        for (line, port, expected) in [
            ("-b 192.0.2.1", 853, "--upstream: \"1.1.1.1:853\""),
            ("-b 192.0.2.1", 53, "--bootstrap: \"192.0.2.1:53\""),
            (
                "--dnstap tcp:192.0.2.1:6000",
                6000,
                "--dnstap: \"tcp:192.0.2.1:6000\"",
            ),
            ("--otlp http://192.0.2.1:4318", 4318, "--otlp"),
        ] {
            let config = config(&format!("-u 1.1.1.1 {line}"));
            assert_eq!(option_with_port(&config, port), expected);
        }
    }

    #[test]
    fn file_of_an_upstream_is_named_with_its_option() {
        let config = config("-u 1.1.1.1,client-cert=a.pem,client-key=b.key");
        let files = config.files_by_option().into_iter();
        let options: Vec<_> = files.map(|(option, _)| option).collect();
        assert_eq!(
            options,
            ["--upstream: client-cert", "--upstream: client-key"]
        );
    }
}
