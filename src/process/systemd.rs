//! Whoever has started the process and watches over it: systemd, or somebody else who speaks its
//! protocol (`sd_notify(3)`, `sd_watchdog_enabled(3)`), or nobody.
//!
//! It may be held up itself, and nobody waits for it: what it does not take at once, it gets later.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::base::time::Instant;

/// How long it has to make room for what it did not take.
const ROOM_PAUSE: Duration = Duration::from_millis(100);

/// Messages that wait for room at the most; of more, the oldest are out of date.
const UNTOLD_MAX: usize = 8;

/// The way to tell it how the process is doing.
#[derive(Debug)]
pub struct Supervisor {
    /// Where it listens, if there is one.
    address: Option<SockAddr>,
    /// The socket that is connected to it. A confined process cannot connect beside the file
    /// system.
    socket: RefCell<Option<Socket>>,
    /// How often it wants to hear that the process is alive, if it does.
    interval: Option<Duration>,
    /// What it has not taken yet, oldest first.
    suppressed: RefCell<VecDeque<String>>,
    /// When there is something to tell it, if there will be.
    due: Cell<Option<Instant>>,
}

impl Supervisor {
    /// The one that the environment tells of, by its variables. To be called before the process is
    /// confined: it connects.
    pub fn from_environment(variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let number = |name| variable(name)?.to_str()?.parse::<u64>().ok();
        let is_ours = |pid| pid == u64::from(std::process::id());
        let address = variable("NOTIFY_SOCKET").and_then(|place| address(&place));
        let interval = number("WATCHDOG_USEC")
            .filter(|longest| *longest > 0 && number("WATCHDOG_PID").is_none_or(is_ours))
            // Early enough for a loop that is busy.
            .map(|longest| Duration::from_micros(longest) / 3)
            .filter(|_| address.is_some());
        let socket = address.as_ref().and_then(|address| {
            let problem = |error| log::debug!("cannot connect to NOTIFY_SOCKET yet: {error}");
            connect(address).map_err(problem).ok()
        });
        Self {
            address,
            socket: socket.into(),
            interval,
            suppressed: RefCell::default(),
            due: Cell::new(interval.map(|_| Instant::default())),
        }
    }

    /// The process does what it was started for.
    pub fn tell_ready(&self) {
        self.tell("READY=1".to_owned());
    }

    /// It is about to do that in another way.
    pub fn tell_reloading(&self) {
        match clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from) {
            Ok(now) => {
                let now = now.as_micros();
                self.tell(format!("RELOADING=1\nMONOTONIC_USEC={now}"));
            }
            Err(error) => log::debug!("no time for whoever has started this: {error}"),
        }
    }

    /// It is about to end.
    pub fn tell_stopping(&self) {
        self.tell("STOPPING=1".to_owned());
    }

    /// It is alive, which is told, and what is left to tell, if it is time to. Returns when it is
    /// next.
    pub fn tell_alive(&self, now: Instant) -> Option<Instant> {
        if self.due.get().is_some_and(|due| due <= now) {
            if self.tell_untold() && self.interval.is_some() {
                self.tell("WATCHDOG=1".to_owned());
            }
            let is_all_told = self.suppressed.borrow().is_empty();
            let pause = if is_all_told {
                self.interval
            } else {
                Some(ROOM_PAUSE)
            };
            self.due.set(pause.map(|pause| now + pause));
        }
        self.due.get()
    }

    fn tell(&self, message: String) {
        let mut suppressed = self.suppressed.borrow_mut();
        if suppressed.len() == UNTOLD_MAX {
            suppressed.pop_front();
        }
        suppressed.push_back(message);
        drop(suppressed);
        if !self.tell_untold() {
            self.due.set(Some(Instant::default()));
        }
    }

    /// Tells what was not told; returns whether that is all of it.
    fn tell_untold(&self) -> bool {
        let mut suppressed = self.suppressed.borrow_mut();
        while let Some(message) = suppressed.front() {
            match self.send(message) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
                Err(error) => {
                    log::debug!("cannot tell whoever has started this how it is doing: {error}");
                }
            }
            suppressed.pop_front();
        }
        true
    }

    /// Sends a message. If its socket is not the one any more that was connected to, connects anew.
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

fn connect(address: &SockAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::DGRAM.nonblocking(), None)?;
    socket.connect(address)?;
    Ok(socket)
}

/// The address of a socket that stands in the file system or, with `@` before its name, beside it.
fn address(place: &OsStr) -> Option<SockAddr> {
    let mut octets = place.as_bytes().to_vec();
    match octets.first_mut()? {
        b'/' => {}
        first @ b'@' => *first = 0,
        _ => return None,
    }
    SockAddr::unix(OsString::from_vec(octets)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixDatagram};

    /// Somebody who listens beside the file system, and what tells him, asked for a sign of life
    /// every three seconds by a variable that may be meant for another process.
    fn scene(label: &str, pid: u32) -> (UnixDatagram, Supervisor) {
        let name = format!("dotproxy-{label}-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let listener = UnixDatagram::bind_addr(&address).unwrap();
        listener.set_nonblocking(true).unwrap();
        let supervisor = Supervisor::from_environment(|variable| match variable {
            "NOTIFY_SOCKET" => Some(format!("@{name}").into()),
            "WATCHDOG_USEC" => Some("9000000".into()),
            "WATCHDOG_PID" => Some(pid.to_string().into()),
            other => panic!("{other}"),
        });
        (listener, supervisor)
    }

    /// All that was told since.
    fn told(listener: &UnixDatagram) -> Vec<String> {
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
    fn sign_of_life_comes_three_times_in_the_longest_silence() {
        let (listener, supervisor) = scene("alive", std::process::id());
        supervisor.tell_ready();
        assert_eq!(supervisor.tell_alive(at(0)), Some(at(3_000)));
        assert_eq!(supervisor.tell_alive(at(2_999)), Some(at(3_000)));
        assert_eq!(told(&listener), ["READY=1", "WATCHDOG=1"]);
        assert_eq!(supervisor.tell_alive(at(3_000)), Some(at(6_000)));
        assert_eq!(told(&listener), ["WATCHDOG=1"]);
    }

    #[test]
    fn what_is_meant_for_another_process_is_nothing_to_this_one() {
        let (listener, supervisor) = scene("other", std::process::id() + 1);
        supervisor.tell_ready();
        assert_eq!(supervisor.tell_alive(at(0)), None);
        assert_eq!(told(&listener), ["READY=1"]);
    }

    #[test]
    fn who_has_no_room_is_told_later_and_not_too_much() {
        let (listener, supervisor) = scene("full", std::process::id());
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
            supervisor.tell_reloading();
            supervisor.tell_ready();
        }
        assert_eq!(supervisor.tell_alive(at(5_000)), Some(at(5_100)));
        assert!(told(&listener).iter().all(String::is_empty));
        assert_eq!(supervisor.tell_alive(at(5_099)), Some(at(5_100)));
        assert_eq!(told(&listener), [""; 0]);
        assert_eq!(supervisor.tell_alive(at(5_100)), Some(at(8_100)));
        let late = told(&listener);
        assert_eq!(late.len(), UNTOLD_MAX + 1);
        assert_eq!(late[UNTOLD_MAX - 1..], ["READY=1", "WATCHDOG=1"]);
    }

    #[test]
    fn without_anybody_there_is_nothing_to_do() {
        let supervisor = Supervisor::from_environment(|_| None);
        supervisor.tell_ready();
        assert_eq!(supervisor.tell_alive(at(0)), None);
        for place in ["", "vsock:2:1", "relative/path"] {
            assert!(address(OsStr::new(place)).is_none(), "{place}");
        }
        assert!(address(OsStr::new("/run/systemd/notify")).is_some());
    }
}
