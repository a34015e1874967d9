//! The sandbox: restricts the process to what it needs once its sockets are bound.
//!
//! ```text
//! look up the user --> bind --> become that user --> open logs --> drop capabilities
//!   --> enforce landlock and seccomp
//! ```
//!
//! Landlock, as far as the kernel has it, closes all files except those that the options name, and
//! TCP to all ports except those of upstreams, dnstap and traces. No socket can listen then, unless
//! an address for clients is still missing. The files are read again later,
//! possibly as new files with the same names, so their folders stay open. For a folder just below
//! the root, which many programs share, only the file stays open.

pub mod ports;
mod reload;
#[cfg(feature = "seccomp")]
mod seccomp;

pub use reload::closed_files;

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf, absolute};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, LandlockStatus, NetPort, RestrictionStatus,
    Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
    path_beneath_rules,
};
use nix::unistd::{Gid, Group, Uid, User, setgroups, setresgid, setresuid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};

use crate::base::file;
use crate::base::file::Owner;
use crate::base::user;
use crate::config::{Config, DnstapTarget, LogTarget, Upstream, UserName, parse_number};

/// The latest version of landlock in use; with an earlier kernel, a part is enforced.
const LANDLOCK: ABI = ABI::V6;

/// The user and group of the process after the start.
#[derive(Clone, Debug)]
pub struct RuntimeUser {
    uid: Uid,
    gid: Gid,
    /// The name of the user, if it is known, and the number.
    label: String,
}

impl RuntimeUser {
    /// Looks up a user and a group, by name or number. Without a group it is the primary group of
    /// the user.
    pub fn find(name: &UserName) -> Result<Self, String> {
        let group = name.group.iter().map(|group| format!(":{group}"));
        let given = name.user.clone() + &group.collect::<String>();
        let missing = |kind: &str, what: &str| {
            format!(
                "--user: {given:?}: this host has no {kind} {what:?}: expected the name or the \
                 number of a {kind}"
            )
        };
        let failed = |error| format!("--user: {error}");
        let (uid, own_gid) = if let Some(uid) = parse_number(&name.user) {
            let user = User::from_uid(Uid::from_raw(uid)).map_err(failed)?;
            // A numeric user needs no entry in the user database.
            let unnamed = (Uid::from_raw(uid), Gid::from_raw(uid));
            user.map_or(unnamed, |user| (user.uid, user.gid))
        } else {
            let user = User::from_name(&name.user).map_err(failed)?;
            let user = user.ok_or_else(|| missing("user", &name.user))?;
            (user.uid, user.gid)
        };
        let gid = match name.group.as_deref() {
            None => own_gid,
            Some(group) => {
                if let Some(gid) = parse_number(group) {
                    Gid::from_raw(gid)
                } else {
                    let found = Group::from_name(group).map_err(failed)?;
                    found.ok_or_else(|| missing("group", group))?.gid
                }
            }
        };
        // The kernel reads this number as "no change".
        for (kind, id) in [("user", uid.as_raw()), ("group", gid.as_raw())] {
            if id == u32::MAX {
                return Err(missing(kind, &id.to_string()));
            }
        }
        Ok(Self {
            uid,
            gid,
            label: user::label(uid),
        })
    }

    /// Refuses an options file that the process could write as this user: root reads the file again
    /// at the next start.
    pub fn check_options_file(&self, config: &Config) -> Result<(), String> {
        let Some(path) = &config.file else {
            return Ok(());
        };
        if !self.changes_rights() {
            return Ok(());
        }
        let shown = path.display();
        match self.owner().first_writable(path) {
            Ok(None) => Ok(()),
            Ok(Some(writable)) => Err(format!(
                "--conf-file: {shown:?}: refusing options file: user {} (--user) can write {:?}; \
                 the file and its folders must be writable by root only (keep files that the \
                 program writes, like that of --clock-stamp, in another folder)",
                self.label,
                writable.display()
            )),
            Err(error) => Err(format!("--conf-file: {shown:?}: {error}")),
        }
    }

    /// Checks whether the process could write its files as this user.
    pub fn check_written_files(&self, config: &Config) -> Result<(), String> {
        if let Some(path) = query_log(config).filter(|_| self.changes_rights()) {
            self.judge("--query-log", path, self.owner().refused_to_append(path))?;
        }
        self.check_replaced_files(config).collect()
    }

    /// Checks whether the process could replace files as this user.
    fn check_replaced_files(&self, config: &Config) -> impl Iterator<Item = Result<(), String>> {
        let files = config.files_replaced();
        let files = files.filter(|_| self.changes_rights());
        files.map(|(option, path)| self.judge(option, path, self.owner().refused_to_replace(path)))
    }

    #[inline(never)]
    fn judge(
        &self,
        option: &str,
        path: &Path,
        refused: io::Result<Option<&Path>>,
    ) -> Result<(), String> {
        let path = path.display();
        match refused {
            Ok(None) => Ok(()),
            Ok(Some(part)) => {
                let (user, obstacle, part) = (&self.label, file::obstacle(part), part.display());
                Err(format!(
                    "{option}: {path:?}: user {user} (--user) cannot write {part:?}: {obstacle}"
                ))
            }
            Err(error) => Err(format!("{option}: {path:?}: {error}")),
        }
    }

    /// Returns whether the process changes from root to an unprivileged user.
    pub fn changes_rights(&self) -> bool {
        Uid::effective().is_root() && !self.uid.is_root()
    }

    fn owner(&self) -> Owner {
        Owner {
            uid: self.uid.as_raw(),
            gid: self.gid.as_raw(),
        }
    }

    /// Makes the query log in a folder of root writable for the user.
    fn prepare_query_log(&self, config: &Config) -> io::Result<()> {
        match query_log(config) {
            Some(path) if self.changes_rights() => file::prepare_for(self.owner(), path),
            _ => Ok(()),
        }
    }

    fn switch(&self) -> io::Result<()> {
        if Uid::effective().is_root() {
            setgroups(&[self.gid])?;
        }
        setresgid(self.gid, self.gid, self.gid)?;
        setresuid(self.uid, self.uid, self.uid)?;
        Ok(())
    }
}

/// The restrictions of the process.
#[derive(Debug, Default)]
pub struct Restrictions {
    in_force: Vec<String>,
    /// The user of `--user`.
    user: Option<RuntimeUser>,
    /// The TCP ports that are open for connections, if they are restricted.
    ports: Option<BTreeSet<u16>>,
    /// The files and folders that are open, if files are restricted.
    files: Option<OpenPaths>,
}

/// Files and folders that are open, without symbolic links.
#[derive(Debug)]
struct OpenPaths {
    /// Those that are open for writing are also open for reading.
    read: BTreeSet<PathBuf>,
    write: BTreeSet<PathBuf>,
}

impl fmt::Display for Restrictions {
    /// Writes the restrictions in force, in one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.in_force.join("; "))
    }
}

/// Switches to the user `target`. Files that are opened later are opened with the user's rights.
pub fn switch_user(config: &Config, target: Option<RuntimeUser>) -> Result<Restrictions, String> {
    if config.is_sandboxed {
        // Only possible before the switch.
        let _ = clear_ambient_capability_set();
        for capability in CapabilitySet::all().iter() {
            // A later kernel has more capabilities than this one: errors are ignored.
            let _ = remove_capability_from_bounding_set(capability);
        }
    }
    let mut restrictions = Restrictions::default();
    if let Some(target) = &target {
        for problem in target.check_replaced_files(config).filter_map(Result::err) {
            log::warn!("{problem}");
        }
        target.prepare_query_log(config).map_err(|error| {
            format!("--user: cannot change the owner of the query log: {error}")
        })?;
        target.switch().map_err(|error| {
            format!(
                "--user: cannot switch to user {}: {error}; only root can switch users",
                target.label
            )
        })?;
        let user = format!("user {}, group {}", target.label, target.gid);
        restrictions.in_force.push(user);
    }
    if Uid::effective().is_root() {
        let (cause, advice) = match &target {
            Some(_) => ("with --user root", "set another user"),
            None => ("without --user", "set --user"),
        };
        log::warn!(
            "running as root {cause}: an attacker that compromises the process can use files and \
             Unix sockets of root; {advice}, for example --user daemon"
        );
        if target.is_none() && config.is_sandboxed {
            restrictions.in_force.push(match setgroups(&[]) {
                Ok(()) => "no supplementary groups".to_owned(),
                Err(error) => format!("supplementary groups kept: {error}"),
            });
        }
    }
    restrictions.user = target;
    Ok(restrictions)
}

/// Applies the remaining restrictions and adds them to `restrictions`. Sockets can still listen on
/// `late_ports`.
pub fn restrict(
    config: &Config,
    mut restrictions: Restrictions,
    late_ports: BTreeSet<u16>,
) -> Result<Restrictions, String> {
    let in_force = &mut restrictions.in_force;
    // The sandbox closes the database of users.
    let user = user::label(Uid::effective());
    if !config.is_sandboxed {
        let rest = if in_force.is_empty() {
            "no restrictions"
        } else {
            "no other restrictions"
        };
        in_force.push(format!("{rest} (--no-sandbox)"));
        reload::warn_of_closed_files(config, &user);
        return Ok(restrictions);
    }
    let none = CapabilitySet::empty();
    let sets = CapabilitySets {
        effective: none,
        permitted: none,
        inheritable: none,
    };
    let failed = |error| format!("cannot drop capabilities: {error}");
    set_capabilities(None, sets).map_err(failed)?;
    set_no_new_privs(true).map_err(failed)?;
    in_force.push("capabilities dropped, no_new_privs set".to_owned());
    #[cfg(feature = "seccomp")]
    let may_listen = !late_ports.is_empty();
    let rules = AccessRules {
        listen: late_ports,
        ..AccessRules::of(config)
    };
    let status = rules.enforce();
    in_force.push(match status.as_ref().map(|status| &status.ruleset) {
        Ok(RulesetStatus::NotEnforced) => "files and ports not restricted (no landlock in this \
                                           kernel)"
            .to_owned(),
        Ok(RulesetStatus::FullyEnforced) => rules.to_string(),
        Ok(RulesetStatus::PartiallyEnforced) => {
            format!("{rules} (landlock, partially supported by this kernel)")
        }
        Err(error) => format!("files and ports not restricted (landlock: {error})"),
    });
    if let Ok(status) = &status
        && status.ruleset != RulesetStatus::NotEnforced
    {
        restrictions.files = Some(rules.open_paths());
    }
    if status.is_ok_and(|status| closes_ports(&status)) {
        restrictions.ports = Some(rules.ports);
    }
    #[cfg(feature = "seccomp")]
    in_force.push(match seccomp::close(may_listen) {
        Ok(()) => "system calls restricted (seccomp)".to_owned(),
        Err(error) => format!("system calls not restricted (seccomp: {error})"),
    });
    reload::warn_of_closed_files(config, &user);
    Ok(restrictions)
}

/// Returns whether this kernel's landlock restricts TCP (Linux 6.7 or later).
fn closes_ports(status: &RestrictionStatus) -> bool {
    let LandlockStatus::Available { effective_abi, .. } = status.landlock else {
        return false;
    };
    status.ruleset != RulesetStatus::NotEnforced && effective_abi >= ABI::V4
}

/// Returns the files that are written.
fn written(config: &Config) -> impl Iterator<Item = &PathBuf> {
    let replaced = config.files_replaced().map(|(_, path)| path);
    replaced.chain(query_log(config))
}

fn query_log(config: &Config) -> Option<&PathBuf> {
    match &config.query_log.as_ref()?.target {
        LogTarget::File(path) => Some(path),
        LogTarget::Stdout => None,
    }
}

/// Returns the TCP ports of outgoing connections.
fn ports(config: &Config) -> impl Iterator<Item = u16> {
    let upstreams = config.upstreams.iter().map(Upstream::port);
    let dnstap = config.dnstap.iter().filter_map(|target| match target {
        DnstapTarget::Tcp(address) => Some(address.port()),
        DnstapTarget::Local(_) => None,
    });
    let traces = config.traces.iter();
    upstreams
        .chain(config.bootstrap.iter().map(SocketAddr::port))
        .chain(dnstap)
        .chain(traces.map(|traces| traces.collector.address.port()))
}

/// The files and ports that stay open.
#[derive(Debug, Default, PartialEq, Eq)]
struct AccessRules {
    read: BTreeSet<PathBuf>,
    write: BTreeSet<PathBuf>,
    ports: BTreeSet<u16>,
    /// Ports on which sockets can still listen.
    listen: BTreeSet<u16>,
}

impl AccessRules {
    fn of(config: &Config) -> Self {
        Self {
            read: config.files_read().flat_map(|file| to_read(file)).collect(),
            write: written(config).flat_map(|file| to_write(file)).collect(),
            ports: ports(config).collect(),
            listen: BTreeSet::new(),
        }
    }

    fn open_paths(&self) -> OpenPaths {
        let real = |path: &PathBuf| path.canonicalize().ok();
        OpenPaths {
            read: self.read.union(&self.write).filter_map(real).collect(),
            write: self.write.iter().filter_map(real).collect(),
        }
    }

    fn enforce(&self) -> Result<RestrictionStatus, RulesetError> {
        let writing = AccessFs::ReadFile
            | AccessFs::WriteFile
            | AccessFs::MakeReg
            | AccessFs::RemoveFile
            | AccessFs::Truncate;
        let reading: BitFlags<AccessFs> = AccessFs::ReadFile.into();
        let open = |access| move |port: &u16| Ok::<_, RulesetError>(NetPort::new(*port, access));
        let (connect, bind) = (open(AccessNet::ConnectTcp), open(AccessNet::BindTcp));
        Ruleset::default()
            .handle_access(AccessFs::from_all(LANDLOCK))?
            .handle_access(AccessNet::from_all(LANDLOCK))?
            .scope(Scope::from_all(LANDLOCK))?
            .create()?
            .add_rules(path_beneath_rules(&self.read, reading))?
            .add_rules(path_beneath_rules(&self.write, writing))?
            .add_rules(self.ports.iter().map(connect))?
            .add_rules(self.listen.iter().map(bind))?
            .restrict_self()
    }
}

impl fmt::Display for AccessRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |paths: &BTreeSet<PathBuf>| {
            let paths = paths
                .iter()
                .map(|path| absolute(path).unwrap_or_else(|_| path.clone()));
            let paths: BTreeSet<_> = paths.map(|path| path.display().to_string()).collect();
            Vec::from_iter(paths).join(" and ")
        };
        let numbers = |ports: &BTreeSet<u16>| {
            let ports: Vec<_> = ports.iter().map(u16::to_string).collect();
            ports.join(" and ")
        };
        let noun = if self.ports.len() == 1 {
            "port"
        } else {
            "ports"
        };
        write!(f, "TCP only to {noun} {}", numbers(&self.ports))?;
        if !self.listen.is_empty() {
            let noun = if self.listen.len() == 1 {
                "port"
            } else {
                "ports"
            };
            let listen = numbers(&self.listen);
            write!(f, ", listening still possible on TCP {noun} {listen}")?;
        }
        if self.read.is_empty() && self.write.is_empty() {
            write!(f, ", no file access")?;
        }
        if !self.read.is_empty() {
            write!(f, ", read access to {}", list(&self.read))?;
        }
        if !self.write.is_empty() {
            write!(f, ", write access to {}", list(&self.write))?;
        }
        Ok(())
    }
}

/// Returns the folder of a file and, if it is elsewhere, the folder of its target.
fn folders(file: &Path) -> BTreeSet<PathBuf> {
    let folder = |path: &Path| match path.parent() {
        Some(folder) if folder != Path::new("") => folder.to_owned(),
        _ => PathBuf::from("."),
    };
    let real = file.canonicalize().ok();
    let paths = [Some(file), real.as_deref()];
    paths.into_iter().flatten().map(folder).collect()
}

/// Returns the paths to keep open for writing a file that may be created anew. A special file is
/// not created: only the file itself stays open.
fn to_write(file: &Path) -> BTreeSet<PathBuf> {
    if file::is_special(file) {
        return [file.to_owned()].into();
    }
    folders(file)
}

/// Returns the paths to keep open for reading a file again.
fn to_read(file: &Path) -> BTreeSet<PathBuf> {
    let is_shared = |folder: &PathBuf| {
        let real = folder.canonicalize();
        real.is_ok_and(|real| real.components().count() <= 2)
    };
    let mut open = folders(file);
    let before = open.len();
    open.retain(|folder| !is_shared(folder));
    if open.len() < before {
        open.insert(file.to_owned());
    }
    open
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::{self, Command};

    fn rules(line: &str) -> AccessRules {
        let arguments: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        match options::parse(&arguments) {
            Ok(Command::Run(config)) => AccessRules::of(&config),
            other => panic!("{other:?}"),
        }
    }

    fn paths(paths: &[&str]) -> BTreeSet<PathBuf> {
        paths.iter().map(PathBuf::from).collect()
    }

    #[test]
    fn files_and_ports_of_options_stay_open() {
        let rules = rules(
            "-u 1.1.1.1 -u udp://10.0.0.53,domain=a -u 9.9.9.9:8853,client-cert=c/d,client-key=/e/f \
             --ca-file=/nowhere/ca.pem --clock-stamp=/stamps/time -b 192.0.2.53 \
             --tls-listen=127.0.0.1 --tls-cert=a --tls-key=/b/k --tls-client-ca=/clients/ca.pem",
        );
        assert_eq!(
            rules.read,
            paths(&[".", "/b", "/clients", "/e", "/nowhere", "c"])
        );
        assert_eq!(rules.write, paths(&["/stamps"]));
        assert_eq!(rules.ports, [53, 853, 8853].into());
    }

    #[test]
    fn description_has_the_path_of_every_folder() {
        let rules = rules("-u 1.1.1.1 --ca-file=ca.pem --clock-stamp=stamp -b 192.0.2.53");
        let here = std::path::absolute(".").expect("a working folder");
        let here = here.display();
        assert_eq!(
            rules.to_string(),
            format!("TCP only to ports 53 and 853, read access to {here}, write access to {here}")
        );
    }

    #[test]
    fn only_the_file_of_a_shared_folder_stays_open() {
        let shared = rules("-u 1.1.1.1 --ca-file=/proc/version --clock-stamp=/tmp/x");
        assert_eq!(shared.read, paths(&["/proc/version"]));
        assert_eq!(shared.write, paths(&["/tmp"]));
        let own = rules("-u 1.1.1.1 --ca-file=/proc/sys/vm/swappiness");
        assert_eq!(own.read, paths(&["/proc/sys/vm"]));
    }

    #[test]
    fn no_files_stay_open_without_options() {
        let mut rules = rules("-u 1.1.1.1");
        assert_eq!(rules.to_string(), "TCP only to port 853, no file access");
        for (listen, text) in [(vec![54], "port 54"), (vec![54, 55], "ports 54 and 55")] {
            rules.listen = listen.into_iter().collect();
            assert_eq!(
                rules.to_string(),
                format!(
                    "TCP only to port 853, listening still possible on TCP {text}, no file access"
                )
            );
        }
    }

    #[test]
    fn user_is_found_by_name_or_number() {
        let find = |user: &str, group: Option<&str>| {
            let name = UserName {
                user: user.to_owned(),
                group: group.map(str::to_owned),
            };
            let target = RuntimeUser::find(&name)?;
            Ok::<_, String>((target.uid.as_raw(), target.gid.as_raw()))
        };
        assert_eq!(find("root", None), Ok((0, 0)));
        assert_eq!(find("0", Some("4321")), Ok((0, 4321)));
        assert_eq!(find("54321", None), Ok((54321, 54321)));
        assert_eq!(
            find("nosuch", None).unwrap_err(),
            "--user: \"nosuch\": this host has no user \"nosuch\": expected the name or the number \
             of a user"
        );
        assert_eq!(
            find("root", Some("nosuch")).unwrap_err(),
            "--user: \"root:nosuch\": this host has no group \"nosuch\": expected the name or the \
             number of a group"
        );
        for (user, group, missing) in [
            ("4294967295", "0", "no user \"4294967295\""),
            ("0", "4294967295", "no group \"4294967295\""),
        ] {
            let problem = find(user, Some(group)).unwrap_err();
            assert!(problem.contains(missing), "{problem}");
        }
    }
}
