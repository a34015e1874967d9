//! The options of the command line and the options file: one table serves both, and the help. A
//! draft collects the values.

mod conf_file;
mod domains_files;
mod draft;
mod given;
mod row;
mod similar;
mod table;
mod values;
mod warnings;

use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::base::address::is_of_this_host;
use crate::config::{Config, Host, Listen, Scheme};

use draft::Draft;
use row::Reload;
use similar::{is_list, means_options_file, similar_option};
use table::{COMMANDS, rows};

/// The command that the command line requests.
#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    /// Serve clients.
    Run(Box<Config>),
    /// Check the options and exit.
    Check(Box<Config>),
    /// Check the upstreams and exit.
    CheckUpstreams(Box<Config>),
    /// Check that this URL is available and exit.
    Probe(String),
    /// Print this text and exit.
    Print(String),
}

/// An invalid option, as one line of text.
#[derive(Debug, PartialEq, Eq)]
pub struct UsageError {
    /// The options file and the line number, if the option is in a file.
    location: Option<(PathBuf, usize)>,
    problem: String,
}

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.location {
            Some((path, line)) => write!(f, "{}:{line}: {}", path.display(), self.problem),
            None => f.write_str(&self.problem),
        }
    }
}

impl std::error::Error for UsageError {}

/// Parses the command line, without the program's name, and the options file that it names.
pub fn parse(arguments: &[String]) -> Result<Command, UsageError> {
    let given = grammar()
        .parse(arguments)
        .map_err(|fail| usage(&describe(&fail)))?;
    check_values(&given)?;
    if given.opt_present("help") {
        return Ok(Command::Print(help()));
    }
    if given.opt_present("version") {
        return Ok(Command::Print(format!(
            "dotproxy {}\n",
            env!("CARGO_PKG_VERSION")
        )));
    }
    if let Some(url) = given.opt_str("probe") {
        return Ok(Command::Probe(url));
    }
    if let Some(argument) = given.free.first() {
        return Err(unexpected_argument(argument, &given.opt_strs("upstream")));
    }
    let mut draft = Draft::default();
    if let Some(path) = given.opt_str("conf-file") {
        conf_file::read_file(&mut draft, Path::new(&path))?;
        draft.config.file = Some(path.into());
    }
    for row in rows() {
        let values = if row.value.is_empty() {
            vec![String::new(); given.opt_count(row.long)]
        } else {
            given.opt_strs(row.long)
        };
        for value in values {
            draft.record(row.long, &value);
            (row.apply)(&mut draft, &value).map_err(|expected| {
                let expected = if is_list(row.long, &value) {
                    "one value: repeat the option for each".into()
                } else {
                    expected
                };
                usage(&format!("--{}: {value:?}: expected {expected}", row.long))
            })?;
        }
    }
    let config = Box::new(draft.finish()?);
    match (
        given.opt_present("check-conf"),
        given.opt_present("check-upstreams"),
    ) {
        (true, true) => Err(usage(
            "--check-upstreams: expected without --check-conf, which is another command",
        )),
        (true, false) => Ok(Command::Check(config)),
        (false, true) => Ok(Command::CheckUpstreams(config)),
        (false, false) => Ok(Command::Run(config)),
    }
}

/// Checks that no upstream and no bootstrap server is a listener of this program, which would query
/// itself in a loop. The listeners are known only after [`Config::inherit`], and only the kernel
/// knows which addresses a wildcard address covers, so [`parse`] does not check this.
pub fn check_loops(config: &Config) -> Result<(), UsageError> {
    let plain = config.listen.addresses();
    let tls = config.tls.as_ref();
    let under_tls = tls.map_or(&[][..], |tls| &tls.addresses);
    let over_https = tls.map_or(&[][..], |tls| &tls.https_addresses);
    let error = |option, server: &dyn std::fmt::Display, listeners| {
        let problem = format!(
            "{option}: \"{server}\": this program itself listens there ({listeners}): expected \
             another server, since queries would loop"
        );
        Err(usage(&problem))
    };
    let of_plain = "--listen, --port";
    let mut bootstrap = config.bootstrap.iter();
    if let Some(address) =
        bootstrap.find(|address| Listen::reaches(&plain, address, is_of_this_host))
    {
        return error("--bootstrap", address, of_plain);
    }
    for upstream in &config.upstreams {
        let Host::Address(address) = &upstream.host else {
            continue;
        };
        if Listen::reaches(&plain, address, is_of_this_host) {
            return error("--upstream", upstream, of_plain);
        }
        if upstream.scheme != Scheme::Udp && Listen::reaches(under_tls, address, is_of_this_host) {
            return error("--upstream", upstream, "--tls-listen");
        }
        if upstream.scheme != Scheme::Udp && Listen::reaches(over_https, address, is_of_this_host) {
            return error("--upstream", upstream, "--https-listen");
        }
    }
    Ok(())
}

/// Restores the settings that a reload cannot change, in new settings. Returns the options that
/// differed.
pub fn restore_fixed(new: &mut Config, running: &Config) -> Vec<&'static str> {
    let mut options = Vec::new();
    for row in rows() {
        if let Reload::Restores(restore) = row.reload
            && restore(new, running)
        {
            options.push(row.long);
        }
    }
    options
}

fn grammar() -> getopts::Options {
    let mut grammar = getopts::Options::new();
    for row in rows() {
        match row.value {
            "" => grammar.optflagmulti(row.short, row.long, ""),
            value => grammar.optmulti(row.short, row.long, "", value),
        };
    }
    for (short, long, value, _) in COMMANDS {
        match *value {
            "" => grammar.optflagmulti(short, long, ""),
            value => grammar.optopt(short, long, "", value),
        };
    }
    grammar
}

/// Checks for an option that takes the next option as its missing value. No value starts with a
/// dash; a file name with a dash needs its folder (`./-name`).
fn check_values(given: &getopts::Matches) -> Result<(), UsageError> {
    let table = rows().map(|row| (row.long, row.value));
    let commands = COMMANDS.iter().map(|(_, long, value, _)| (*long, *value));
    for (long, _) in table.chain(commands).filter(|(_, value)| !value.is_empty()) {
        let values = given.opt_strs(long);
        // `-` alone is standard output.
        let is_dashed = |value: &str| {
            let rest = value.strip_prefix('-');
            rest.is_some_and(|rest| rest.starts_with(|c: char| c == '-' || c.is_alphabetic()))
        };
        let is_option = |value: &&String| is_dashed(value);
        if let Some(value) = values.iter().find(is_option) {
            let problem = format!("--{long}: expected a value, not the option {value:?}");
            return Err(usage(&problem));
        }
    }
    Ok(())
}

fn usage(problem: &str) -> UsageError {
    UsageError {
        location: None,
        problem: problem.to_owned(),
    }
}

/// Returns the error for an argument that belongs to no option.
fn unexpected_argument(argument: &str, upstreams: &[String]) -> UsageError {
    let advice = if upstreams.iter().any(|upstream| upstream.ends_with(',')) {
        ": settings follow a comma without a space"
    } else if means_options_file(argument) {
        ": the options file is -C FILE"
    } else {
        " (see --help)"
    };
    usage(&format!("{argument:?}: expected an option{advice}"))
}

fn describe(fail: &getopts::Fail) -> String {
    let dashed = |name: &str| match name.chars().count() {
        1 => format!("-{name}"),
        _ => format!("--{name}"),
    };
    match fail {
        getopts::Fail::UnrecognizedOption(name) if means_options_file(name) => {
            format!(
                "{}: unknown option: the options file is -C FILE",
                dashed(name)
            )
        }
        getopts::Fail::UnrecognizedOption(name) => match similar_option(name) {
            Some(similar) => format!(
                "{}: unknown option: did you mean --{similar}?",
                dashed(name)
            ),
            None => format!("{}: unknown option (see --help)", dashed(name)),
        },
        getopts::Fail::ArgumentMissing(name) => {
            format!("{}: expected a value", dashed(name))
        }
        getopts::Fail::UnexpectedArgument(name) => {
            let is_switch = rows().any(|row| row.long == name);
            let advice = if is_switch {
                ": the option alone switches it on; yes and no are only for the options file"
            } else {
                ""
            };
            format!("{}: expected no value{advice}", dashed(name))
        }
        getopts::Fail::OptionDuplicated(name) | getopts::Fail::OptionMissing(name) => {
            format!("{}: given more than once", dashed(name))
        }
    }
}

fn help() -> String {
    let mut text = String::from(
        "dotproxy: forwards DNS to authenticated upstreams over TLS or HTTPS\n\
         Usage: dotproxy -u UPSTREAM [OPTIONS]\n\n",
    );
    let rows = rows().map(|row| (row.short, row.long, row.value, row.help));
    let mut left = String::new();
    for (short, long, value, help) in rows.chain(COMMANDS.iter().copied()) {
        let indent = if left.is_empty() { "    " } else { "" };
        match short {
            "" => write!(left, "{indent}--{long}"),
            letter => write!(left, "-{letter}, --{long}"),
        }
        .expect("writing to a string cannot fail");
        if help.is_empty() {
            left.push_str(", ");
            continue;
        }
        left.push(' ');
        left.push_str(value);
        if left.len() > HELP_AT {
            writeln!(text, "  {left}").expect("writing to a string cannot fail");
            left.clear();
        }
        writeln!(text, "  {left:<HELP_AT$} {help}").expect("writing to a string cannot fail");
        left.clear();
    }
    text
}

/// The start column of the help texts.
const HELP_AT: usize = 30;

#[cfg(test)]
mod dnssec_tests;
#[cfg(test)]
mod listen_tests;
#[cfg(test)]
mod message_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod upstream_tests;
