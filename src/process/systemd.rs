//! Service-manager notifications (`sd_notify(3)`) and the watchdog (`sd_watchdog_enabled(3)`), for
//! systemd or another service manager with its protocol.
//!
//! The service manager may be slow, and the process never waits for it: messages that the socket
//! does not accept are sent later.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::base::file;
use crate::base::time::Instant;

/// Pause before messages are sent again to a socket without room.
const ROOM_PAUSE: Duration = Duration::from_millis(100);

/// Maximum number of waiting messages; of more, the oldest are out of date.
const UNSENT_MAX: usize = 8;

/// The connection to the service manager.
#[derive(Debug)]
pub struct ServiceManager {
    /// The address of the service manager, if there is one.
    address: Option<SockAddr>,
    /// The connected socket. A sandboxed process cannot connect to an abstract Unix socket.
    socket: RefCell<Option<Socket>>,
    /// The interval of watchdog messages, if the watchdog is enabled.
    interval: Option<Duration>,
    /// Unsent messages, oldest first.
    unsent: RefCell<VecDeque<String>>,
    /// The time of the next message, if there will be one.
    due: Cell<Option<Instant>>,
}

impl ServiceManager {
    /// Connects to the service manager that the environment variables announce. The sandbox
    /// prevents connecting later.
    pub fn from_environment(variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let number = |name| variable(name)?.to_str()?.parse::<u64>().ok();
        let is_ours = |pid| pid == u64::from(std::process::id());
        let path = variable("NOTIFY_SOCKET").unwrap_or_default();
        let warn = |problem: &io::Error| warn_unusable(&path, problem);
        let address = (!path.is_empty()).then(|| address(&path));
        let address = address.and_then(|address| address.inspect_err(warn).ok());
        let watchdog = number("WATCHDOG_USEC")
            .filter(|longest| *longest > 0 && number("WATCHDOG_PID").is_none_or(is_ours))
            // Early enough for a busy loop.
            .map(|longest| Duration::from_micros(longest) / 3);
        let interval = if address.is_some() { watchdog } else { None };
        let socket = address
            .as_ref()
            .and_then(|address| connect(address).inspect_err(warn).ok());
        Self {
            address,
            socket: socket.into(),
            interval,
            unsent: RefCell::default(),
            due: Cell::new(interval.map(|_| Instant::default())),
        }
    }

    /// Reports that the process serves clients.
    pub fn notify_ready(&self) {
        self.notify("READY=1".to_owned());
    }

    /// Reports that a reload begins.
    pub fn notify_reloading(&self) {
        match clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from) {
            Ok(now) => {
                let now = now.as_micros();
                self.notify(format!("RELOADING=1\nMONOTONIC_USEC={now}"));
            }
            Err(error) => log::debug!("cannot read the clock for the service manager: {error}"),
        }
    }

    /// Reports that the shutdown begins.
    pub fn notify_stopping(&self) {
        self.notify("STOPPING=1".to_owned());
    }

    /// Sends unsent messages and the watchdog message, if they are due. Returns the time of the
    /// next message.
    pub fn feed_watchdog(&self, now: Instant) -> Option<Instant> {
        if self.due.get().is_some_and(|due| due <= now) {
            if self.send_unsent() && self.interval.is_some() {
                self.notify("WATCHDOG=1".to_owned());
            }
            let is_all_sent = self.unsent.borrow().is_empty();
            let pause = if is_all_sent {
                self.interval
            } else {
                Some(ROOM_PAUSE)
            };
            self.due.set(pause.map(|pause| now + pause));
        }
        self.due.get()
    }

    fn enqueue(&self, message: String) {
        let mut unsent = self.unsent.borrow_mut();
        if unsent.len() == UNSENT_MAX {
            unsent.pop_front();
        }
        unsent.push_back(message);
    }

    fn notify(&self, message: String) {
        self.enqueue(message);
        if !self.send_unsent() {
            self.due.set(Some(Instant::default()));
        }
    }

    /// Sends the unsent messages; returns whether none is left.
    fn send_unsent(&self) -> bool {
        let mut unsent = self.unsent.borrow_mut();
        while let Some(message) = unsent.front() {
            match self.send(message) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
                Err(error) => {
                    log::debug!("cannot notify the service manager: {error}");
                }
            }
            unsent.pop_front();
        }
        true
    }

    /// Sends a message. Connects again if the service manager has replaced its socket.
    fn send(&self, message: &str) -> io::Result<()> {
        let Some(address) = &self.address else {
            return Ok(());
        };
        let mut socket = self.socket.borrow_mut();
        if let Some(socket) = &*socket {
            match socket.send(message.as_bytes()) {
                Err(error) if error.kind() != ErrorKind::WouldBlock => {}
                sent => return sent.map(|_| ()),
            }
        }
        let connected = socket.insert(connect(address)?);
        connected.send(message.as_bytes()).map(|_| ())
    }
}

#[cold]
#[inline(never)]
fn warn_unusable(path: &OsStr, problem: &io::Error) {
    let path = path.display();
    log::warn!("NOTIFY_SOCKET: {path:?}: {problem}: the service manager gets no notifications");
}

fn connect(address: &SockAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::DGRAM.nonblocking(), None)?;
    socket.connect(address)?;
    Ok(socket)
}

/// Returns the address of a Unix socket: a path or, after `@`, an abstract name.
fn address(path: &OsStr) -> io::Result<SockAddr> {
    let mut bytes = path.as_bytes().to_vec();
    match bytes.first_mut() {
        Some(b'/') => file::check_socket(Path::new(path))?,
        Some(first @ b'@') => *first = 0,
        _ => {
            let expected = "expected an absolute path, or @NAME for an abstract socket";
            return Err(io::Error::other(expected));
        }
    }
    SockAddr::unix(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixDatagram};

    /// A service manager on an abstract socket, and the connection to it. The watchdog interval is
    /// nine seconds, and `pid` is the process that the watchdog setting is for.
    fn scene(label: &str, pid: u32) -> (UnixDatagram, ServiceManager) {
        let name = format!("dotproxy-{label}-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let listener = UnixDatagram::bind_addr(&address).unwrap();
        listener.set_nonblocking(true).unwrap();
        let service_manager = ServiceManager::from_environment(|variable| match variable {
            "NOTIFY_SOCKET" => Some(format!("@{name}").into()),
            "WATCHDOG_USEC" => Some("9000000".into()),
            "WATCHDOG_PID" => Some(pid.to_string().into()),
            other => panic!("{other}"),
        });
        (listener, service_manager)
    }

    /// Returns the messages since the last call.
    fn received(listener: &UnixDatagram) -> Vec<String> {
        let mut buffer = [0; 100];
        let next = || {
            let len = listener.recv(&mut buffer).ok()?;
            Some(String::from_utf8(buffer[..len].to_vec()).unwrap())
        };
        std::iter::from_fn(next).collect()
    }

    fn at(milliseconds: u64) -> Instant {
        Instant::after_start(Duration::from_millis(milliseconds))
    }

    #[test]
    fn watchdog_message_is_sent_three_times_per_interval() {
        let (listener, service_manager) = scene("alive", std::process::id());
        service_manager.notify_ready();
        assert_eq!(service_manager.feed_watchdog(at(0)), Some(at(3_000)));
        assert_eq!(service_manager.feed_watchdog(at(2_999)), Some(at(3_000)));
        assert_eq!(received(&listener), ["READY=1", "WATCHDOG=1"]);
        assert_eq!(service_manager.feed_watchdog(at(3_000)), Some(at(6_000)));
        assert_eq!(received(&listener), ["WATCHDOG=1"]);
    }

    #[test]
    fn watchdog_setting_for_another_process_is_ignored() {
        let (listener, service_manager) = scene("other", std::process::id() + 1);
        service_manager.notify_ready();
        assert_eq!(service_manager.feed_watchdog(at(0)), None);
        assert_eq!(received(&listener), ["READY=1"]);
    }

    #[test]
    fn messages_to_a_full_socket_are_sent_later_up_to_a_limit() {
        let (listener, service_manager) = scene("full", std::process::id());
        // Each socket has a limit of its own.
        let address = listener.local_addr().unwrap();
        loop {
            let other = UnixDatagram::unbound().unwrap();
            other.set_nonblocking(true).unwrap();
            if other.send_to_addr(b"", &address).is_err() {
                break;
            }
        }
        for _ in 0..100 {
            service_manager.notify_reloading();
            service_manager.notify_ready();
        }
        assert_eq!(service_manager.feed_watchdog(at(5_000)), Some(at(5_100)));
        assert!(received(&listener).iter().all(String::is_empty));
        assert_eq!(service_manager.feed_watchdog(at(5_099)), Some(at(5_100)));
        assert_eq!(received(&listener), [""; 0]);
        assert_eq!(service_manager.feed_watchdog(at(5_100)), Some(at(8_100)));
        let late = received(&listener);
        assert_eq!(late.len(), UNSENT_MAX + 1);
        assert_eq!(late[UNSENT_MAX - 1..], ["READY=1", "WATCHDOG=1"]);
    }

    #[test]
    fn without_a_service_manager_nothing_is_sent() {
        let service_manager = ServiceManager::from_environment(|_| None);
        service_manager.notify_ready();
        assert_eq!(service_manager.feed_watchdog(at(0)), None);
        for path in ["", "vsock:2:1", "relative/path"] {
            assert!(address(OsStr::new(path)).is_err(), "{path}");
        }
        assert!(address(OsStr::new("/run/systemd/notify")).is_ok());
    }
}
