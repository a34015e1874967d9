//! The network of the operating system, through mio: the only file that knows either.

use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::Duration;

use mio::net::{TcpListener, TcpStream, UdpSocket, UnixStream};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use nix::sys::signal::{SigSet, Signal as Number};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt,
};
use nix::time::{ClockId, clock_gettime};
use rustix::net::addr::SocketAddrArg;
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, sendmmsg};
use socket2::{Domain, MsgHdr, Protocol, SockAddr, SockRef, Socket, TcpKeepalive, Type};

use super::inherited::Inherited;
use super::{Event, Net, Signal};
use crate::address::Address;
use crate::arena::Key;
use crate::session;
use crate::session::client_datagram::{Datagram, Outgoing};
use crate::time::Instant;

/// Events that one call of the poller reports; what is more comes with the next.
const EVENTS_MAX: usize = 256;

/// Connections that the kernel completes ahead of our accepting them.
const BACKLOG: i32 = 1024;

/// Octets of queries that the kernel keeps while we are busy; it may allow less.
const UDP_BUFFER_LEN: usize = 1024 * 1024;

/// Datagrams that are sent by one call.
const BATCH_LEN: usize = 16;

/// The port of the discard protocol (RFC 863).
const DISCARD_PORT: u16 = 9;

/// What is no suspension but the time between two readings of clocks.
const SUSPENDED_MIN: Duration = Duration::from_secs(1);

/// A peer upstream that is gone without a word is found out while nothing is asked, too.
const KEEPALIVE: TcpKeepalive = TcpKeepalive::new()
    .with_time(Duration::from_secs(10))
    .with_interval(Duration::from_secs(3))
    .with_retries(3);

/// How long a peer upstream may take to acknowledge octets.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(10);

/// No key has this value: its place would be beyond every arena's capacity.
const SIGNALS: Token = Token(usize::MAX);

/// The network of the operating system.
#[derive(Debug)]
pub struct MioNet {
    poll: Poll,
    ready: Events,
    signals: SignalFd,
    start: std::time::Instant,
    /// How far the clock that goes on while the host is suspended is ahead of ours.
    suspended: Duration,
    inherited: Inherited,
    is_port_shared: bool,
}

impl MioNet {
    /// A poller, with the signals that the program heeds blocked and led into it. Sockets for
    /// clients are those that are inherited, where there are some; those that are not share their
    /// port with other processes, if so wanted.
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
            inherited,
            is_port_shared,
        })
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

    fn register_for(
        &self,
        interest: Interest,
        source: &mut impl mio::event::Source,
        key: Key,
    ) -> io::Result<()> {
        let token = Token(key.to_usize());
        self.poll.registry().register(source, token, interest)
    }
}

impl Net for MioNet {
    type Stream = Stream;
    type Listener = TcpListener;
    type Datagram = Udp;

    fn now(&self) -> Instant {
        Instant::after_start(self.start.elapsed())
    }

    fn wait(&mut self, timeout: Option<Duration>, events: &mut Vec<Event>) -> io::Result<Instant> {
        match self.poll.poll(&mut self.ready, timeout) {
            Err(error) if error.kind() == ErrorKind::Interrupted => self.ready.clear(),
            result => result?,
        }
        for event in &self.ready {
            if event.token() != SIGNALS {
                events.push(Event::Ready(Key::from_usize(event.token().0)));
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

    fn bind(&mut self, address: SocketAddr, key: Key) -> io::Result<Udp> {
        let inherited = self.inherited.take(address, Type::DGRAM);
        let is_inherited = inherited.is_some();
        let socket = match inherited {
            Some(socket) => socket,
            None => self.open_for_clients(address, Type::DGRAM, Protocol::UDP)?,
        };
        // The kernel caps this at net.core.rmem_max without an error.
        let _ = socket.set_recv_buffer_size(UDP_BUFFER_LEN);
        let is_everywhere = address.ip().is_unspecified();
        if is_everywhere && address.is_ipv4() {
            setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
        } else if is_everywhere {
            setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
        }
        if !is_inherited {
            socket.bind(&address.into())?;
        }
        let mut socket = UdpSocket::from_std(socket.into());
        self.register_for(Interest::READABLE, &mut socket, key)?;
        Ok(Udp {
            socket,
            is_everywhere,
            is_inherited,
            control: nix::cmsg_space!(nix::libc::in6_pktinfo),
        })
    }

    fn watch_room(&mut self, socket: &mut Udp, key: Key, is_watched: bool) -> io::Result<()> {
        let writable = is_watched.then_some(Interest::WRITABLE);
        let interest = writable.map_or(Interest::READABLE, |it| it | Interest::READABLE);
        let token = Token(key.to_usize());
        let registry = self.poll.registry();
        registry.reregister(&mut socket.socket, token, interest)
    }

    fn connect_datagram(&mut self, peer: SocketAddr, key: Key) -> io::Result<Udp> {
        let socket = open(peer, Type::DGRAM, Protocol::UDP)?;
        // The kernel picks the port, by chance (RFC 6056).
        socket.connect(&peer.into())?;
        let mut socket = UdpSocket::from_std(socket.into());
        self.register_for(Interest::READABLE, &mut socket, key)?;
        Ok(Udp {
            socket,
            is_everywhere: false,
            is_inherited: false,
            control: Vec::new(),
        })
    }

    fn listen(&mut self, address: SocketAddr, key: Key) -> io::Result<TcpListener> {
        let inherited = self.inherited.take(address, Type::STREAM);
        let is_inherited = inherited.is_some();
        let socket = match inherited {
            Some(socket) => socket,
            None => self.open_for_clients(address, Type::STREAM, Protocol::TCP)?,
        };
        if !is_inherited {
            // Connections of an earlier process that linger are no reason not to start.
            socket.set_reuse_address(true)?;
            socket.bind(&address.into())?;
            socket.listen(BACKLOG)?;
        }
        let mut listener = TcpListener::from_std(socket.into());
        self.register_for(Interest::READABLE, &mut listener, key)?;
        Ok(listener)
    }

    fn accept(&mut self, listener: &TcpListener, key: Key) -> io::Result<(Stream, SocketAddr)> {
        let (mut stream, peer) = listener.accept()?;
        stream.set_nodelay(true)?;
        self.register(&mut stream, key)?;
        Ok((Stream::Tcp(stream), peer))
    }

    fn connect_local(&mut self, path: &Path, key: Key) -> io::Result<Stream> {
        let mut stream = UnixStream::connect(path)?;
        self.register(&mut stream, key)?;
        Ok(Stream::Local(stream))
    }

    fn connect(&mut self, peer: SocketAddr, key: Key) -> io::Result<Stream> {
        let mut stream = TcpStream::connect(peer)?;
        stream.set_nodelay(true)?;
        let socket = SockRef::from(&stream);
        socket.set_tcp_keepalive(&KEEPALIVE)?;
        socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED_MAX))?;
        self.register(&mut stream, key)?;
        Ok(Stream::Tcp(stream))
    }
}

/// A connection of the operating system.
#[derive(Debug)]
pub enum Stream {
    /// Over TCP.
    Tcp(TcpStream),
    /// To a socket of this host.
    Local(UnixStream),
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            Self::Local(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(octets),
            Self::Local(stream) => stream.write(octets),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.flush(),
            Self::Local(stream) => stream.flush(),
        }
    }
}

impl session::Stream for Stream {
    fn acknowledge(&mut self) {
        if let Self::Tcp(stream) = self {
            // Without it the peer waits a little.
            let _ = SockRef::from(&*stream).set_tcp_quickack(true);
        }
    }
}

/// How long the host has been suspended since it started: our clock stands still meanwhile, that of
/// the time since booting does not.
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

fn open(address: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    socket.set_nonblocking(true)?;
    if address.is_ipv6() {
        // IPv4 has its own socket, so that clients have their own addresses.
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

/// A UDP socket of the operating system.
#[derive(Debug)]
pub struct Udp {
    socket: UdpSocket,
    /// It is bound to every address, so the kernel tells which one was asked.
    is_everywhere: bool,
    /// Whoever has started the process has it, too.
    is_inherited: bool,
    control: Vec<u8>,
}

impl Datagram for Udp {
    fn leave(&mut self) -> bool {
        if self.is_inherited {
            return false;
        }
        // A socket that is connected gets what its peer sends and nothing else, and others that
        // share the port get the rest. Nobody sends from the port for what is to be discarded.
        let is_ipv4 = self.socket.local_addr().is_ok_and(|own| own.is_ipv4());
        let host: IpAddr = if is_ipv4 {
            Ipv4Addr::LOCALHOST.into()
        } else {
            Ipv6Addr::LOCALHOST.into()
        };
        self.socket.connect((host, DISCARD_PORT).into()).is_ok()
    }

    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr, Option<Address>)> {
        if !self.is_everywhere {
            let (len, peer) = self.socket.recv_from(buffer)?;
            return Ok((len, peer, None));
        }
        let mut parts = [IoSliceMut::new(buffer)];
        let received = recvmsg::<SockaddrStorage>(
            self.socket.as_raw_fd(),
            &mut parts,
            Some(&mut self.control),
            MsgFlags::empty(),
        )?;
        let peer = received.address.as_ref().and_then(socket_address);
        let peer = peer.ok_or(ErrorKind::AddrNotAvailable)?;
        let local = received.cmsgs()?.find_map(|message| match message {
            ControlMessageOwned::Ipv4PacketInfo(info) => {
                Some(Ipv4Addr::from(info.ipi_spec_dst.s_addr.to_ne_bytes()).into())
            }
            ControlMessageOwned::Ipv6PacketInfo(info) => {
                let ip = Ipv6Addr::from(info.ipi6_addr.s6_addr);
                Some(Address::on_interface(ip, info.ipi6_ifindex))
            }
            _ => None,
        });
        // Nothing can leave from a multicast address: the kernel picks one.
        let local = local.filter(|local: &Address| !local.ip.is_multicast());
        Ok((received.bytes, peer, local))
    }

    fn send<'a>(
        &mut self,
        mut datagrams: impl Iterator<Item = Outgoing<'a>> + Clone,
    ) -> io::Result<usize> {
        let batch = datagrams.clone().take_while(|next| next.local.is_none());
        if batch.clone().nth(1).is_some() {
            return self.send_batch(batch);
        }
        match datagrams.next() {
            Some(one) => self.send_one(one).map(|()| 1),
            None => Ok(0),
        }
    }
}

impl Udp {
    fn send_one(&self, Outgoing { bytes, peer, local }: Outgoing<'_>) -> io::Result<()> {
        let Some(local) = local else {
            return self.socket.send_to(bytes, peer).map(|_| ());
        };
        let mut control = [0; CONTROL_LEN_MAX];
        let control = packet_info(local, &mut control);
        let peer = SockAddr::from(peer);
        let parts = [IoSlice::new(bytes)];
        let message = MsgHdr::new()
            .with_addr(&peer)
            .with_buffers(&parts)
            .with_control(control);
        SockRef::from(&self.socket).sendmsg(&message, 0).map(|_| ())
    }

    /// Sends by one call datagrams that may leave from any address.
    fn send_batch<'a>(
        &self,
        mut datagrams: impl Iterator<Item = Outgoing<'a>>,
    ) -> io::Result<usize> {
        let nobody = SocketAddr::from(([0; 4], 0));
        let mut len = 0;
        let batch: [_; BATCH_LEN] = std::array::from_fn(|_| match datagrams.next() {
            Some(Outgoing { bytes, peer, .. }) => {
                len += 1;
                ([IoSlice::new(bytes)], peer.as_any())
            }
            None => ([IoSlice::new(&[])], nobody.as_any()),
        });
        let mut controls = [(); BATCH_LEN].map(|()| SendAncillaryBuffer::default());
        let mut control = controls.iter_mut();
        let mut messages = batch.each_ref().map(|(parts, peer)| {
            let control = control.next().expect("there is one for each");
            MMsgHdr::new_with_addr(peer, parts, control)
        });
        Ok(sendmmsg(
            &self.socket,
            &mut messages[..len],
            SendFlags::empty(),
        )?)
    }
}

fn socket_address(address: &SockaddrStorage) -> Option<SocketAddr> {
    if let Some(address) = address.as_sockaddr_in() {
        return Some(SocketAddr::V4((*address).into()));
    }
    address
        .as_sockaddr_in6()
        .map(|address| SocketAddr::V6((*address).into()))
}

/// Octets of the longest control message made here, on any host.
const CONTROL_LEN_MAX: usize = 40;

/// Writes the control message that makes a datagram leave from `local`: struct cmsghdr, then struct
/// `in_pktinfo` (ip(7)) or struct `in6_pktinfo` (RFC 3542, section 6.2), padded to whole words.
/// Written by hand, since the safe interfaces for it allocate for every datagram.
fn packet_info(local: Address, control: &mut [u8; CONTROL_LEN_MAX]) -> &[u8] {
    const WORD: usize = size_of::<usize>();
    const HEAD_LEN: usize = WORD + 8;
    let (level, kind, data_len) = match local.ip {
        IpAddr::V4(address) => {
            // No interface: the routing table finds it.
            control[HEAD_LEN + 4..][..4].copy_from_slice(&address.octets());
            (nix::libc::IPPROTO_IP, nix::libc::IP_PKTINFO, 12)
        }
        IpAddr::V6(address) => {
            control[HEAD_LEN..][..16].copy_from_slice(&address.octets());
            control[HEAD_LEN + 16..][..4].copy_from_slice(&local.zone.to_ne_bytes());
            (nix::libc::IPPROTO_IPV6, nix::libc::IPV6_PKTINFO, 20)
        }
    };
    control[..WORD].copy_from_slice(&(HEAD_LEN + data_len).to_ne_bytes());
    control[WORD..][..4].copy_from_slice(&level.to_ne_bytes());
    control[WORD + 4..][..4].copy_from_slice(&kind.to_ne_bytes());
    &control[..HEAD_LEN + usize::next_multiple_of(data_len, WORD)]
}
