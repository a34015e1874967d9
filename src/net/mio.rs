//! The network of the operating system, through mio. Only this file and [`super::udp`] use the
//! operating system or mio.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZero;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::Duration;

use mio::net::{TcpListener, TcpStream, UnixStream};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use nix::sys::signal::{SigSet, Signal as Number};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::time::{ClockId, clock_getres, clock_gettime};
use rustix::thread::{nanosleep, sched_getaffinity, set_current_timer_slack};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

use super::busy_poll::{BusyPoll, POLL_TIME};
use super::inherited::Inherited;
use super::short_reads::ShortReads;
use super::udp::Udp;
use super::{Event, Net, Signal};
use crate::base::arena;
use crate::base::arena::Key;
use crate::base::time::Instant;
use crate::session;

/// Maximum number of events that one call of the poller reports; the rest comes with the next.
const EVENTS_MAX: usize = 256;

/// Maximum number of connections that the kernel completes before they are accepted.
const BACKLOG: i32 = 1024;

/// Minimum time that counts as a suspension: less is the time between two readings of clocks.
const SUSPENDED_MIN: Duration = Duration::from_secs(1);

/// Keepalive settings that detect a silently lost upstream, also without queries.
const KEEPALIVE: TcpKeepalive = TcpKeepalive::new()
    .with_time(Duration::from_secs(10))
    .with_interval(Duration::from_secs(3))
    .with_retries(3);

/// Maximum time for an upstream to acknowledge data.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(10);

/// Token of the signals. It is never the token of a key: its index is beyond the capacity of every
/// arena.
const SIGNALS: Token = Token(usize::MAX);

/// The network of the operating system.
#[derive(Debug)]
pub struct MioNet {
    poll: Poll,
    ready: Events,
    signals: SignalFd,
    start: std::time::Instant,
    /// Total suspension so far: the lead of the boot clock over ours.
    suspended: Duration,
    /// The kernel's timers are finer than its ticks.
    has_fine_timers: bool,
    inherited: Inherited,
    is_port_shared: bool,
    /// The last address that was bound although the host does not have it.
    absent: Option<IpAddr>,
    busy_poll: BusyPoll,
}

impl MioNet {
    /// Creates a poller, blocks the handled signals and receives them through the poller. Inherited
    /// sockets are used for clients where they match; other sockets share their port with other
    /// processes if `is_port_shared` is set.
    pub fn new(inherited: Inherited, is_port_shared: bool) -> io::Result<Self> {
        let poll = Poll::new()?;
        let mut numbers = SigSet::empty();
        for number in [
            Number::SIGTERM,
            Number::SIGINT,
            Number::SIGHUP,
            Number::SIGUSR1,
        ] {
            numbers.add(number);
        }
        numbers.thread_block()?;
        let signals =
            SignalFd::with_flags(&numbers, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        let descriptor = signals.as_raw_fd();
        poll.registry()
            .register(&mut SourceFd(&descriptor), SIGNALS, Interest::READABLE)?;
        Ok(Self {
            poll,
            ready: Events::with_capacity(EVENTS_MAX),
            signals,
            start: std::time::Instant::now(),
            suspended: suspended(),
            has_fine_timers: set_fine_timers(),
            busy_poll: BusyPoll::new(sched_getaffinity(None).map_or(1, |own| own.count())),
            inherited,
            is_port_shared,
            absent: None,
        })
    }

    /// Waits until a socket is ready or `timeout` has passed.
    fn wait_for_events(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let start = self.now();
        let may_sleep = timeout.is_none_or(|timeout| timeout > POLL_TIME);
        if may_sleep && self.busy_poll.is_on() {
            while self.now() - start < POLL_TIME {
                self.poll_for(Some(Duration::ZERO))?;
                if !self.ready.is_empty() {
                    self.busy_poll.on_wait(self.now() - start);
                    return Ok(());
                }
            }
        }
        self.poll_for(timeout)?;
        if may_sleep {
            self.busy_poll.on_wait(self.now() - start);
        }
        Ok(())
    }

    fn poll_for(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        match self.poll.poll(&mut self.ready, timeout) {
            Err(error) if error.kind() == ErrorKind::Interrupted => self.ready.clear(),
            result => result?,
        }
        Ok(())
    }

    fn register(&self, source: &mut impl mio::event::Source, key: Key) -> io::Result<()> {
        self.register_for(Interest::READABLE | Interest::WRITABLE, source, key)
    }

    fn open_for_clients(
        &self,
        address: SocketAddr,
        kind: Type,
        protocol: Protocol,
    ) -> io::Result<Socket> {
        let socket = open(address, kind, protocol)?;
        socket.set_reuse_port(self.is_port_shared)?;
        Ok(socket)
    }

    /// Binds a socket to an address, even if this host gets the address later (`IP_FREEBIND`,
    /// `ip(7)`).
    fn bind_for_clients(&mut self, socket: &Socket, address: SocketAddr) -> io::Result<()> {
        let bound = socket.bind(&address.into());
        let Err(error) = bound else {
            return Ok(());
        };
        if error.kind() != ErrorKind::AddrNotAvailable {
            return Err(error);
        }
        let freebind = match address {
            SocketAddr::V4(_) => socket.set_freebind_v4(true),
            SocketAddr::V6(_) => socket.set_freebind_v6(true),
        };
        if freebind.is_err() {
            return Err(error);
        }
        // The port may be in use although the host does not have the address.
        socket.bind(&address.into())?;
        let ip = address.ip();
        if self.absent != Some(ip) {
            log::warn!(
                "{address} is bound in advance: no interface of this host has the address {ip} \
                 now; clients are served there as soon as an interface has it"
            );
            self.absent = Some(ip);
        }
        Ok(())
    }

    fn register_for(
        &self,
        interest: Interest,
        source: &mut impl mio::event::Source,
        key: Key,
    ) -> io::Result<()> {
        let token = Token(key.token().to_usize());
        self.poll.registry().register(source, token, interest)
    }
}

impl Net for MioNet {
    type Stream = MioStream;
    type Listener = TcpListener;
    type Datagram = Udp;

    fn now(&self) -> Instant {
        Instant::after_start(self.start.elapsed())
    }

    fn wait(&mut self, timeout: Option<Duration>, events: &mut Vec<Event>) -> io::Result<Instant> {
        self.wait_for_events(timeout)?;
        for event in &self.ready {
            if event.token() != SIGNALS {
                let token = arena::Token::from_usize(event.token().0);
                events.push(Event::Ready {
                    token,
                    is_read_closed: event.is_read_closed() || event.is_error(),
                });
                continue;
            }
            while let Ok(Some(info)) = self.signals.read_signal() {
                let number = i32::try_from(info.ssi_signo).ok();
                let signal = match number.and_then(|number| Number::try_from(number).ok()) {
                    Some(Number::SIGUSR1) => Signal::Report,
                    Some(Number::SIGHUP) => Signal::Reload,
                    _ => Signal::Finish,
                };
                events.push(Event::Signal(signal));
            }
        }
        let suspended = suspended();
        let slept = suspended.saturating_sub(self.suspended);
        if slept > SUSPENDED_MIN {
            events.push(Event::Resumed { slept });
        }
        self.suspended = suspended;
        Ok(self.now())
    }

    fn pause(&mut self, length: Duration) {
        if self.has_fine_timers
            && let Ok(length) = length.try_into()
        {
            // A signal may end the pause early.
            let _ = nanosleep(&length);
        }
    }

    fn bind(&mut self, address: SocketAddr, key: Key) -> io::Result<Udp> {
        let inherited = self.inherited.take(address, Type::DGRAM);
        let is_inherited = inherited.is_some();
        let socket = match inherited {
            Some(socket) => socket,
            None => self.open_for_clients(address, Type::DGRAM, Protocol::UDP)?,
        };
        let mut udp = Udp::for_clients(socket, address, is_inherited)?;
        if !is_inherited {
            self.bind_for_clients(&SockRef::from(&*udp.source()), address)?;
        }
        self.register_for(Interest::READABLE, udp.source(), key)?;
        Ok(udp)
    }

    fn watch_room(&mut self, socket: &mut Udp, key: Key, is_watched: bool) -> io::Result<()> {
        let writable = is_watched.then_some(Interest::WRITABLE);
        let interest = writable.map_or(Interest::READABLE, |it| it | Interest::READABLE);
        let token = Token(key.token().to_usize());
        let registry = self.poll.registry();
        registry.reregister(socket.source(), token, interest)
    }

    fn connect_datagram(&mut self, peer: SocketAddr, key: Key) -> io::Result<Udp> {
        let socket = open(peer, Type::DGRAM, Protocol::UDP)?;
        let mut udp = Udp::to_upstream(socket, peer)?;
        self.register_for(Interest::READABLE, udp.source(), key)?;
        Ok(udp)
    }

    fn listen(&mut self, address: SocketAddr, key: Key) -> io::Result<TcpListener> {
        let inherited = self.inherited.take(address, Type::STREAM);
        let socket = if let Some(socket) = inherited {
            socket
        } else {
            let socket = self.open_for_clients(address, Type::STREAM, Protocol::TCP)?;
            // Lingering connections of an earlier process must not prevent the start.
            socket.set_reuse_address(true)?;
            self.bind_for_clients(&socket, address)?;
            socket.listen(BACKLOG)?;
            socket
        };
        let mut listener = TcpListener::from_std(socket.into());
        self.register_for(Interest::READABLE, &mut listener, key)?;
        Ok(listener)
    }

    fn accept(&mut self, listener: &TcpListener, key: Key) -> io::Result<(MioStream, SocketAddr)> {
        let (mut stream, peer) = listener.accept()?;
        // With Nagle's algorithm some responses would wait for acknowledgements of others.
        let _ = stream.set_nodelay(true);
        self.register(&mut stream, key)?;
        Ok((MioStream::tcp(stream), peer))
    }

    fn connect_local(&mut self, path: &Path, key: Key) -> io::Result<MioStream> {
        let mut stream = UnixStream::connect(path)?;
        self.register(&mut stream, key)?;
        Ok(MioStream::Local(stream))
    }

    fn connect(&mut self, peer: SocketAddr, key: Key) -> io::Result<MioStream> {
        let mut stream = TcpStream::connect(peer)?;
        stream.set_nodelay(true)?;
        let socket = SockRef::from(&stream);
        socket.set_tcp_keepalive(&KEEPALIVE)?;
        socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED_MAX))?;
        self.register(&mut stream, key)?;
        Ok(MioStream::tcp(stream))
    }
}

/// A stream socket of the operating system.
#[derive(Debug)]
pub enum MioStream {
    /// A TCP connection.
    Tcp(TcpStream, ShortReads),
    /// A connection to a Unix socket. Its reads can be short for other reasons (`unix(7)`).
    Local(UnixStream),
}

impl MioStream {
    fn tcp(stream: TcpStream) -> Self {
        Self::Tcp(stream, ShortReads::default())
    }
}

impl Read for MioStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream, reads) => reads.read(buffer, |buffer| stream.read(buffer)),
            Self::Local(stream) => stream.read(buffer),
        }
    }
}

impl Write for MioStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream, _) => stream.write(bytes),
            Self::Local(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Tcp(stream, _) => stream.flush(),
            Self::Local(stream) => stream.flush(),
        }
    }
}

impl session::Stream for MioStream {
    fn on_event(&mut self, is_read_closed: bool) {
        if let Self::Tcp(_, reads) = self {
            reads.on_event(is_read_closed);
        }
    }

    fn acknowledge(&mut self) {
        if let Self::Tcp(stream, _) = self {
            // Otherwise the peer waits for the delayed acknowledgement.
            let _ = SockRef::from(&*stream).set_tcp_quickack(true);
        }
    }

    fn local_ip(&self) -> Option<IpAddr> {
        match self {
            Self::Tcp(stream, _) => Some(stream.local_addr().ok()?.ip()),
            Self::Local(_) => None,
        }
    }
}

/// Sets the timer slack to its minimum and returns whether short pauses are accurate. By default
/// the kernel may extend each pause by up to 50 µs, so that timers end together.
fn set_fine_timers() -> bool {
    let resolution = clock_getres(ClockId::CLOCK_MONOTONIC).map(Duration::from);
    let slack = set_current_timer_slack(NonZero::new(1));
    slack.is_ok() && resolution.is_ok_and(|resolution| resolution <= Duration::from_micros(1))
}

/// Returns the total time that the host was suspended since its start: the monotonic clock stops
/// during a suspension, the boot clock does not.
fn suspended() -> Duration {
    let read = |clock| clock_gettime(clock).map(Duration::from);
    match (
        read(ClockId::CLOCK_BOOTTIME),
        read(ClockId::CLOCK_MONOTONIC),
    ) {
        (Ok(since_boot), Ok(awake)) => since_boot.saturating_sub(awake),
        _ => Duration::ZERO,
    }
}

pub(super) fn open(address: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    socket.set_nonblocking(true)?;
    if address.is_ipv6() {
        // IPv4 has its own socket, so that IPv4 clients do not appear with mapped addresses.
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}
