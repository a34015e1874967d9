//! The program: options in, exit code out.

mod allocator;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt::Display;
use std::io::{self, ErrorKind, Write};
use std::net::SocketAddr;
use std::process::ExitCode;

use dotproxy::base::counted::counted;
use dotproxy::base::random::{Random, SEED_LEN};
use dotproxy::base::time::Instant;
use dotproxy::check::check;
use dotproxy::check_upstreams::progress::{CheckProgress, ProgressLine};
use dotproxy::check_upstreams::{Interrupted, check_upstreams, report};
use dotproxy::config::{Config, InheritedSocket, LogFormat, ResourceSettings};
use dotproxy::net::inherited::Inherited;
use dotproxy::net::lacks_family;
use dotproxy::net::mio::MioNet;
use dotproxy::options::{self, Command};
use dotproxy::process::file_limit;
use dotproxy::process::probe::Probe;
use dotproxy::process::sandbox;
use dotproxy::process::sandbox::ports;
use dotproxy::process::sandbox::{Restrictions, RuntimeUser};
use dotproxy::process::systemd::ServiceManager;
use dotproxy::reactor::{ListenError, ProcessHooks, Reactor};
use dotproxy::telemetry::journal;
use dotproxy::telemetry::logger;
use dotproxy::telemetry::one_line::OneLine;
use dotproxy::tls;
use dotproxy::tls::clock::Clock;

use log::Level;
use ring::rand::{SecureRandom, SystemRandom};

/// Exit code for invalid options, or invalid files that they name.
const USAGE: u8 = 2;

/// Exit code for other failures.
const FAILURE: u8 = 1;

/// The reason why the program ends.
struct Stop {
    code: u8,
    problem: String,
}

impl Stop {
    /// Creates the reason for an invalid option, or an invalid file that it names.
    fn usage(problem: impl Display) -> Self {
        Self {
            code: USAGE,
            problem: problem.to_string(),
        }
    }
}

impl From<String> for Stop {
    fn from(problem: String) -> Self {
        Self {
            code: FAILURE,
            problem,
        }
    }
}

fn main() -> ExitCode {
    allocator::set_up();
    journal::detect(std::env::var_os("JOURNAL_STREAM").as_deref());
    let arguments: Vec<String> = match std::env::args_os()
        .skip(1)
        .map(OsString::into_string)
        .collect()
    {
        Ok(arguments) => arguments,
        Err(argument) => {
            let argument = argument.display();
            return fail(USAGE, format!("{argument:?}: expected UTF-8"));
        }
    };
    match options::parse(&arguments) {
        Ok(Command::Run(config)) => match run(*config, &arguments) {
            Ok(()) => ExitCode::SUCCESS,
            Err(Stop { code, problem }) => fail(code, problem),
        },
        Ok(Command::Check(config)) => match check_all(&config) {
            Ok(warnings) => {
                for warning in warnings {
                    complain(Level::Warn, format!("warning: {warning}"));
                }
                print("dotproxy: options and files are valid\n")
            }
            Err(problem) => fail(USAGE, problem),
        },
        Ok(Command::CheckUpstreams(config)) => match check_all_upstreams(*config) {
            Ok(code) => code,
            Err(Stop { code, problem }) => fail(code, problem),
        },
        Ok(Command::Probe(url)) => match Probe::parse(&url) {
            Ok(probe) => match probe.run() {
                Ok(()) => ExitCode::SUCCESS,
                Err(problem) => fail(FAILURE, problem),
            },
            Err(problem) => fail(USAGE, problem),
        },
        Ok(Command::Print(text)) => print(&text),
        Err(problem) => fail(USAGE, problem),
    }
}

/// Checks the settings and their files. Returns warnings.
fn check_all(config: &Config) -> Result<Vec<String>, String> {
    options::check_loops(config).map_err(|error| error.to_string())?;
    check(config)
}

/// Checks the upstreams with the rights that the program would have, and prints the result. Returns
/// the exit code.
fn check_all_upstreams(mut config: Config) -> Result<ExitCode, Stop> {
    for warning in &config.warnings {
        complain(Level::Warn, format!("warning: {warning}"));
    }
    let user = find_user(&config).map_err(Stop::usage)?;
    let clock = Clock::new(config.clock_stamp.as_deref());
    if let Some(replacement) = clock.replacement() {
        complain(Level::Warn, format!("warning: {replacement}"));
    }
    let tls = tls::set_up(&config, &clock).map_err(Stop::usage)?;
    let random = Random::new(&random_seed()?);
    let net = MioNet::new(Inherited::default(), false).map_err(explain_poller)?;
    // The check writes no files and sends nothing but queries.
    (config.clock_stamp, config.cache_file, config.query_log) = (None, None, None);
    (config.dnstap, config.traces) = (None, None);
    let user = user.filter(RuntimeUser::changes_rights);
    let restrictions = sandbox::switch_user(&config, user)?;
    sandbox::restrict(&config, restrictions, BTreeSet::new())?;
    let mut line = ProgressLine::new(io::stderr());
    let mut on_progress = |progress: &CheckProgress<'_>| line.show(progress);
    let found = check_upstreams(net, (&config, &tls), random, &mut on_progress);
    line.clear();
    let found = found.map_err(|Interrupted| "--check-upstreams: interrupted".to_owned())?;
    let is_json = config.log_format == LogFormat::Json;
    let printed = if is_json {
        print_bytes(&report::to_json(&found, clock.now()))
    } else {
        print(&report::to_text(&found, clock.now()))
    };
    let failed = found.iter().filter(|upstream| !upstream.works()).count();
    if failed == 0 {
        return Ok(printed);
    }
    if is_json {
        return Ok(ExitCode::from(FAILURE));
    }
    let total = counted(found.len(), "upstream", "upstreams");
    Err(format!("--check-upstreams: {failed} of {total} failed").into())
}

/// Looks up the user that the process switches to, which must not be able to write root's options.
fn find_user(config: &Config) -> Result<Option<RuntimeUser>, String> {
    let user = config.user.as_ref().map(RuntimeUser::find).transpose()?;
    if let Some(user) = &user {
        user.check_options_file(config)?;
    }
    Ok(user)
}

fn run(mut config: Config, arguments: &[String]) -> Result<(), Stop> {
    logger::init(
        config.log_level,
        config.log_format,
        config.limits.log_unwritten,
    );
    let user = find_user(&config).map_err(Stop::usage)?;
    let inherited = Inherited::from_environment(|variable| std::env::var_os(variable))
        .map_err(|error| format!("cannot use the inherited sockets: {error}"))?;
    let sockets = inherited.sockets();
    config.inherit(&sockets);
    options::check_loops(&config).map_err(Stop::usage)?;
    set_resource(&mut config);
    let clock = Clock::new(config.clock_stamp.as_deref());
    let tls = tls::set_up(&config, &clock).map_err(Stop::usage)?;
    file_limit::fit(&mut config).map_err(|error| error.to_string())?;
    let seed = random_seed()?;
    let net = MioNet::new(inherited, config.reuse_port).map_err(explain_poller)?;
    let reactor = Reactor::new(net, &config, tls, clock, &seed);
    let mut reactor = reactor.map_err(|error| explain(&error, &sockets))?;
    reactor.read_block_lists().map_err(Stop::usage)?;
    let late_ports = check_late_ports(&reactor, &config, user.as_ref(), &sockets)?;
    let service_manager = ServiceManager::from_environment(|variable| std::env::var_os(variable));
    let restrictions = sandbox::switch_user(&config, user)?;
    let refusal = restrictions.check_query_log(&config);
    refusal.map_err(Stop::usage)?;
    reactor.open_query_log().map_err(Stop::usage)?;
    if let Some(path) = config.cache_file_in_use() {
        reactor.read_cache_file(path);
    }
    // Not an argument of the log macro, which evaluates its arguments only if the level is enabled.
    let restrictions = sandbox::restrict(&config, restrictions, late_ports)?;
    log::info!(event = "confined"; "sandbox: {restrictions}");
    let process = Process {
        arguments,
        sockets,
        restrictions,
        service_manager,
    };
    reactor
        .run(&process)
        .map_err(|error| explain_poller(error).into())
}

fn random_seed() -> Result<[u8; SEED_LEN], String> {
    let mut seed = [0; SEED_LEN];
    let filled = SystemRandom::new().fill(&mut seed);
    filled.map_err(|_| "the kernel returned no random numbers".to_owned())?;
    Ok(seed)
}

/// Returns the ports of the listeners whose addresses are missing, if the process can bind them
/// later.
fn check_late_ports(
    reactor: &Reactor<MioNet>,
    config: &Config,
    user: Option<&RuntimeUser>,
    sockets: &[InheritedSocket],
) -> Result<BTreeSet<u16>, String> {
    let late = reactor.late_listeners().map(|late| {
        let port = late.address.port();
        let may_bind = ports::may_bind_later(config, user, port);
        may_bind
            .then_some(port)
            .ok_or_else(|| explain(late, sockets))
    });
    late.collect()
}

/// Sets the attributes of traces from the environment. An invalid variable is ignored with a
/// warning, as the specification of OpenTelemetry asks for.
fn set_resource(config: &mut Config) {
    let Some(traces) = &mut config.traces else {
        return;
    };
    let variable = |name| std::env::var(name).ok();
    let (attributes, name) = ("OTEL_RESOURCE_ATTRIBUTES", "OTEL_SERVICE_NAME");
    let (attributes_text, name) = (variable(attributes), variable(name));
    match ResourceSettings::parse(attributes_text.as_deref(), name.as_deref()) {
        Ok(resource) => traces.resource = resource,
        Err(expected) => {
            let problem = format!("{attributes}: expected {expected}; the variable is ignored");
            config.warnings.push(problem);
        }
    }
}

/// The process in which the loop runs.
struct Process<'a> {
    arguments: &'a [String],
    /// Addresses of the sockets that the process was started with.
    sockets: Vec<InheritedSocket>,
    restrictions: Restrictions,
    service_manager: ServiceManager,
}

impl ProcessHooks for Process<'_> {
    fn on_ready(&self) {
        self.service_manager.notify_ready();
    }

    fn on_reload(&self) {
        self.service_manager.notify_reloading();
    }

    fn on_finish(&self) {
        self.service_manager.notify_stopping();
    }

    fn trim_memory(&self) {
        allocator::give_back();
    }

    fn read_again(&self) -> Result<Config, String> {
        let mut config = match options::parse(self.arguments) {
            Ok(Command::Run(config)) => *config,
            Ok(_) => unreachable!("the arguments were a command to run"),
            Err(problem) => return Err(problem.to_string()),
        };
        config.inherit(&self.sockets);
        options::check_loops(&config).map_err(|error| error.to_string())?;
        set_resource(&mut config);
        self.restrictions.admits(&config)?;
        file_limit::fit(&mut config).map_err(|error| error.to_string())?;
        Ok(config)
    }

    fn feed_watchdog(&self, now: Instant) -> Option<Instant> {
        self.service_manager.feed_watchdog(now)
    }
}

fn explain_poller(error: io::Error) -> String {
    format!("cannot poll sockets: {error}")
}

/// Describes a failure to listen, with advice for the operator. `sockets` are inherited.
fn explain(error: &ListenError, sockets: &[InheritedSocket]) -> String {
    let ListenError {
        address,
        protocol,
        cause,
    } = error;
    let port = address.port();
    let other = match *protocol {
        "TLS" => "another address or port with --tls-listen",
        "HTTPS" => "another address or port with --https-listen",
        "HTTP" => "another address or port with --http-listen",
        _ => "another port (-p, or in --listen if that has a port) or another address (-l)",
    };
    let advice = match (cause.kind(), holder(address, sockets)) {
        (ErrorKind::PermissionDenied, _) if port < 1024 => format!(
            "; ports below 1024 require root or CAP_NET_BIND_SERVICE: run `sudo setcap \
             cap_net_bind_service=+ep {}`, or choose a port from 1024, like 5300",
            std::env::current_exe()
                .unwrap_or("dotproxy".into())
                .display()
        ),
        (ErrorKind::AddrInUse, Some(own)) => format!(
            "; this program inherited a socket at {own} (LISTEN_FDS): use {own} with \
             --tls-listen, --https-listen or --http-listen, or change the socket unit"
        ),
        (ErrorKind::AddrInUse, None) => format!(
            "; `sudo ss -lnptu 'sport = :{port}'` shows the program that uses it: stop that \
             program, or choose {other}"
        ),
        _ if error.is_address_missing() => format!(
            "; this kernel does not bind an address in advance (IP_FREEBIND), and after the start \
             this program has no right to port {port}: start it when `ip address` shows the \
             address, run `sudo sysctl net.ipv4.ip_unprivileged_port_start={port}`, or choose a \
             port from 1024"
        ),
        _ if address.is_ipv6() && lacks_family(cause) => {
            "; this host has no IPv6: listen on an IPv4 address, like 127.0.0.1".to_owned()
        }
        (ErrorKind::AddrNotAvailable, _) => {
            "; `ip address` shows the addresses of this host".to_owned()
        }
        _ => String::new(),
    };
    format!("cannot listen on {address} ({protocol}): {cause}{advice}")
}

/// Returns the address of an inherited socket that prevents another listener at `address`.
fn holder(address: &SocketAddr, sockets: &[InheritedSocket]) -> Option<SocketAddr> {
    let sockets = sockets.iter().filter(|socket| socket.has_tcp);
    let mut held = sockets.map(|socket| socket.address);
    held.find(|held| {
        let is_wildcard = held.ip().is_unspecified() || address.ip().is_unspecified();
        let has_ip = held.ip() == address.ip() || is_wildcard;
        has_ip && held.port() == address.port()
    })
}

fn print(text: &str) -> ExitCode {
    print_bytes(text.as_bytes())
}

fn print_bytes(bytes: &[u8]) -> ExitCode {
    match io::stdout().write_all(bytes) {
        Ok(()) => return ExitCode::SUCCESS,
        // The reader has what it needs, as in `| head`.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
        Err(error) => complain(Level::Error, format!("cannot write the output: {error}")),
    }
    ExitCode::FAILURE
}

fn fail(code: u8, problem: impl Display) -> ExitCode {
    if logger::is_json() {
        log::error!(event = "failed"; "{problem}");
        logger::write_rest();
    } else {
        logger::write_rest();
        complain(Level::Error, problem);
    }
    ExitCode::from(code)
}

/// Writes a line to standard error directly, since the log may not be open.
fn complain(level: Level, problem: impl Display) {
    let prefix = journal::prefix(level);
    // Standard error may be closed.
    let _ = writeln!(io::stderr(), "{prefix}dotproxy: {}", OneLine(problem));
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::Errno;

    fn explained(protocol: &'static str, address: &str, cause: Errno) -> String {
        let inherited = InheritedSocket {
            address: "0.0.0.0:853".parse().expect("an address and a port"),
            has_udp: false,
            has_tcp: true,
        };
        let error = ListenError {
            address: address.parse().expect("an address"),
            protocol,
            cause: cause.into(),
        };
        explain(&error, &[inherited])
    }

    #[test]
    fn port_that_an_inherited_socket_has_is_not_blamed_on_another_program() {
        let text = explained("TLS", "192.168.1.1:853", Errno::ADDRINUSE);
        assert!(!text.contains("stop that program"), "{text}");
        assert!(text.contains("inherited a socket at 0.0.0.0:853"), "{text}");
    }

    #[test]
    fn advice_on_a_host_without_ipv6_is_an_ipv4_address() {
        let text = explained("UDP", "[::1]:53", Errno::AFNOSUPPORT);
        let end = "; this host has no IPv6: listen on an IPv4 address, like 127.0.0.1";
        assert!(text.ends_with(end), "{text}");
        let text = explained("UDP", "127.0.0.1:53", Errno::AFNOSUPPORT);
        assert!(!text.contains("IPv6"), "{text}");
    }

    #[test]
    fn advice_on_a_privileged_port_is_another_port_in_any_option() {
        let text = explained("UDP", "127.0.0.1:53", Errno::ACCESS);
        let end = ", or choose a port from 1024, like 5300";
        assert!(text.ends_with(end), "{text}");
    }

    #[test]
    fn advice_on_a_taken_port_includes_the_port_of_a_listen_option() {
        let text = explained("UDP", "127.0.0.1:5353", Errno::ADDRINUSE);
        let end = "another port (-p, or in --listen if that has a port) or another address (-l)";
        assert!(text.ends_with(end), "{text}");
    }
}
