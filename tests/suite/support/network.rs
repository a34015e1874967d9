//! A network without sockets: a clock that jumps from event to event, streams that read and write
//! in pieces, and peers that are state machines of the test.
//!
//! Like the real poller, the network reports an edge once: a reader that stops before a short read
//! or `WouldBlock` is not notified again.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use dotproxy::base::address::Address;
use dotproxy::base::arena::Key;
use dotproxy::base::time::Instant;
use dotproxy::net::short_reads::ShortReads;
use dotproxy::net::{Event, Net, Signal};
use dotproxy::session::Stream;
use dotproxy::session::client::datagram::{Datagram, Outgoing};

use super::Chance;

/// The name of a stream, for both its ends.
pub type StreamId = u64;

/// The handlers of a peer. A peer has the far end of streams.
#[expect(unused_variables, reason = "by default, peers do nothing")]
pub trait Peers {
    /// Handles a connection of the proxy to `to`. Returns the fate of the connection.
    fn on_connect(&mut self, world: &mut World, stream: StreamId, to: SocketAddr) -> Fate {
        Fate::Lost
    }
    /// Handles a connection that was established.
    fn on_open(&mut self, world: &mut World, stream: StreamId) {}
    /// Handles bytes of the proxy.
    fn on_bytes(&mut self, world: &mut World, stream: StreamId, bytes: &[u8]) {}
    /// Handles a stream that the proxy closed.
    fn on_closed(&mut self, world: &mut World, stream: StreamId) {}
    /// Handles a datagram of the proxy: to a client, or from its own port to a resolver.
    fn on_datagram(&mut self, world: &mut World, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {}
    /// Handles a reminder that a peer requested.
    fn on_reminder(&mut self, world: &mut World, reminder: u64) {}
}

/// The result of an attempt to connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Accepted,
    Refused,
    /// No packet ever returns.
    Lost,
}

enum NetworkEvent {
    Opened(StreamId),
    Refused(StreamId),
    BytesToProxy(StreamId, Vec<u8>),
    EndToProxy(StreamId),
    ResetToProxy(StreamId),
    BytesToPeer(StreamId, Vec<u8>),
    ClosedToPeer(StreamId),
    DatagramToProxy(SocketAddr, SocketAddr, Vec<u8>),
    DatagramToPeer(SocketAddr, SocketAddr, Vec<u8>),
    Arrived(SocketAddr, SocketAddr, StreamId),
    Reminder(u64),
    Signal(Signal),
}

#[derive(Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "what has happened to a stream, in any combination"
)]
struct Pipe {
    key: Option<Key>,
    is_open: bool,
    to_proxy: VecDeque<u8>,
    /// The number of datagrams that the loop had sent before it first read this stream.
    sent_before_read: Option<usize>,
    is_ended: bool,
    error: Option<ErrorKind>,
    /// The number of bytes that the peer has not read.
    unread: usize,
    /// The limit of unread bytes.
    window: usize,
    /// The peer reads nothing.
    is_ignored: bool,
    is_writer_blocked: bool,
    is_closed_by_proxy: bool,
}

struct Inbox {
    key: Key,
    /// The peer to which the socket is connected.
    only_from: Option<SocketAddr>,
    /// The proxy waits for room to write.
    is_watched: bool,
    datagrams: VecDeque<(Vec<u8>, SocketAddr)>,
}

struct Backlog {
    key: Key,
    streams: VecDeque<(StreamId, SocketAddr)>,
}

/// The state of the network, which peers may change.
pub struct World {
    pub now: Instant,
    pub chance: Chance,
    /// The time until which accepting fails because no file descriptor is free.
    pub no_descriptors_until: Instant,
    /// The error of every attempt to accept.
    pub accept_error: Option<i32>,
    /// The host has no IPv6: no socket of that family can be opened.
    pub lacks_ipv6: bool,
    /// No interface has these addresses, and the system does not bind them in advance.
    pub missing: Vec<IpAddr>,
    /// The number of attempts to open a socket for clients at a missing address.
    pub attempts_at_missing: usize,
    /// Another connection is always ready to be accepted.
    pub accepts_for_ever: bool,
    /// No event will ever happen again.
    pub is_over: bool,
    /// The number of times that the loop has paused.
    pub pauses: usize,
    /// The number of pauses while datagrams were left to read.
    pub pauses_before_input: usize,
    /// Datagrams that the loop has received since it last sent one, and their maximum.
    received_since_sent: usize,
    pub received_since_sent_max: usize,
    /// The number of datagrams that the loop has sent.
    pub datagrams_sent: usize,
    queue: BinaryHeap<Reverse<(Instant, u64)>>,
    network_events: BTreeMap<u64, NetworkEvent>,
    sequence: u64,
    pipes: BTreeMap<StreamId, Pipe>,
    next_stream: StreamId,
    inboxes: BTreeMap<SocketAddr, Inbox>,
    backlogs: BTreeMap<SocketAddr, Backlog>,
    ready: Vec<Event>,
    connecting: Vec<(StreamId, SocketAddr)>,
}

impl World {
    pub fn new(chance: Chance) -> Self {
        Self {
            now: Instant::default() + Duration::from_secs(1),
            chance,
            no_descriptors_until: Instant::default(),
            accept_error: None,
            lacks_ipv6: false,
            missing: Vec::new(),
            attempts_at_missing: 0,
            accepts_for_ever: false,
            is_over: false,
            pauses: 0,
            pauses_before_input: 0,
            received_since_sent: 0,
            received_since_sent_max: 0,
            datagrams_sent: 0,
            queue: BinaryHeap::new(),
            network_events: BTreeMap::new(),
            sequence: 0,
            pipes: BTreeMap::new(),
            next_stream: 0,
            inboxes: BTreeMap::new(),
            backlogs: BTreeMap::new(),
            ready: Vec::new(),
            connecting: Vec::new(),
        }
    }

    fn check_address(&mut self, address: SocketAddr) -> io::Result<()> {
        if self.lacks_ipv6 && address.is_ipv6() {
            return Err(io::Error::from_raw_os_error(nix::libc::EAFNOSUPPORT));
        }
        if self.missing.contains(&address.ip()) {
            self.attempts_at_missing += 1;
            return Err(io::Error::from_raw_os_error(nix::libc::EADDRNOTAVAIL));
        }
        Ok(())
    }

    /// Returns the addresses at which the proxy listens, over UDP or TCP.
    pub fn listeners(&self) -> Vec<SocketAddr> {
        let all: BTreeSet<_> = self.inboxes.keys().chain(self.backlogs.keys()).collect();
        all.into_iter().copied().collect()
    }

    fn after(&mut self, delay: Duration, network_event: NetworkEvent) {
        self.sequence += 1;
        self.queue.push(Reverse((self.now + delay, self.sequence)));
        self.network_events.insert(self.sequence, network_event);
    }

    /// Sends bytes to the proxy.
    pub fn send(&mut self, stream: StreamId, delay: Duration, bytes: Vec<u8>) {
        self.after(delay, NetworkEvent::BytesToProxy(stream, bytes));
    }

    /// Ends the stream towards the proxy.
    pub fn end(&mut self, stream: StreamId, delay: Duration) {
        self.after(delay, NetworkEvent::EndToProxy(stream));
    }

    /// Resets the stream.
    pub fn reset(&mut self, stream: StreamId, delay: Duration) {
        self.after(delay, NetworkEvent::ResetToProxy(stream));
    }

    /// Sends a datagram to the proxy.
    pub fn send_datagram(
        &mut self,
        from: SocketAddr,
        to: SocketAddr,
        delay: Duration,
        bytes: Vec<u8>,
    ) {
        self.after(delay, NetworkEvent::DatagramToProxy(from, to, bytes));
    }

    /// Connects to the proxy from `from`, with a window of this number of bytes for its responses.
    pub fn connect(
        &mut self,
        from: SocketAddr,
        to: SocketAddr,
        delay: Duration,
        window: usize,
    ) -> StreamId {
        let stream = self.new_stream(window);
        self.after(delay, NetworkEvent::Arrived(from, to, stream));
        stream
    }

    /// Makes the peer ignore everything that the proxy sends.
    pub fn ignore(&mut self, stream: StreamId) {
        self.pipes
            .get_mut(&stream)
            .expect("a stream stays known")
            .is_ignored = true;
    }

    /// Calls [`Peers::on_reminder`] later.
    pub fn remind(&mut self, delay: Duration, reminder: u64) {
        self.after(delay, NetworkEvent::Reminder(reminder));
    }

    /// Raises a signal.
    pub fn signal(&mut self, delay: Duration, signal: Signal) {
        self.after(delay, NetworkEvent::Signal(signal));
    }

    /// Returns the number of streams that the proxy has open.
    pub fn open_streams(&self) -> usize {
        self.pipes
            .values()
            .filter(|pipe| pipe.key.is_some() && !pipe.is_closed_by_proxy)
            .count()
    }

    /// Returns the number of datagrams that the loop had sent before it first read bytes of a
    /// stream, if it has read any.
    pub fn sent_before_read(&self, stream: StreamId) -> Option<usize> {
        self.pipes[&stream].sent_before_read
    }

    fn new_stream(&mut self, window: usize) -> StreamId {
        self.next_stream += 1;
        self.pipes.insert(
            self.next_stream,
            Pipe {
                window,
                ..Pipe::default()
            },
        );
        self.next_stream
    }

    fn wake(&mut self, stream: StreamId) {
        let pipe = self.pipes.get(&stream);
        if let Some(pipe) = pipe.filter(|pipe| !pipe.is_closed_by_proxy)
            && let Some(key) = pipe.key
        {
            self.ready.push(Event::Ready {
                token: key.token(),
                is_read_closed: pipe.is_ended || pipe.error.is_some(),
            });
        }
    }

    fn handle_event(&mut self, network_event: NetworkEvent, peers: &mut dyn Peers) {
        match network_event {
            NetworkEvent::Opened(stream) => {
                self.pipes
                    .get_mut(&stream)
                    .expect("a stream stays known")
                    .is_open = true;
                self.wake(stream);
                peers.on_open(self, stream);
            }
            NetworkEvent::Refused(stream) => self.fail(stream, ErrorKind::ConnectionRefused),
            NetworkEvent::BytesToProxy(stream, bytes) => {
                let pipe = self.pipes.get_mut(&stream).expect("a stream stays known");
                if !pipe.is_ended && pipe.error.is_none() {
                    pipe.to_proxy.extend(bytes);
                    self.wake(stream);
                }
            }
            NetworkEvent::EndToProxy(stream) => {
                self.pipes
                    .get_mut(&stream)
                    .expect("a stream stays known")
                    .is_ended = true;
                self.wake(stream);
            }
            NetworkEvent::ResetToProxy(stream) => self.fail(stream, ErrorKind::ConnectionReset),
            NetworkEvent::BytesToPeer(stream, bytes) => {
                let pipe = self.pipes.get_mut(&stream).expect("a stream stays known");
                if pipe.is_ignored {
                    return;
                }
                pipe.unread -= bytes.len();
                if std::mem::take(&mut pipe.is_writer_blocked) {
                    self.wake(stream);
                }
                peers.on_bytes(self, stream, &bytes);
            }
            NetworkEvent::ClosedToPeer(stream) => peers.on_closed(self, stream),
            NetworkEvent::DatagramToProxy(from, to, bytes) => {
                let is_heard = |inbox: &&mut Inbox| inbox.only_from.is_none_or(|peer| peer == from);
                if let Some(inbox) = self.inboxes.get_mut(&to).filter(is_heard) {
                    inbox.datagrams.push_back((bytes, from));
                    self.ready.push(Event::readable(inbox.key.token()));
                }
            }
            NetworkEvent::DatagramToPeer(from, to, bytes) => {
                peers.on_datagram(self, from, to, &bytes);
            }
            NetworkEvent::Arrived(from, to, stream) => {
                if let Some(backlog) = self.backlogs.get_mut(&to) {
                    backlog.streams.push_back((stream, from));
                    self.ready.push(Event::readable(backlog.key.token()));
                }
            }
            NetworkEvent::Reminder(reminder) => peers.on_reminder(self, reminder),
            NetworkEvent::Signal(signal) => self.ready.push(Event::Signal(signal)),
        }
    }

    /// Returns the maximum number of bytes of the next read: some reads get only a part.
    fn read_max(&mut self, stream: StreamId, len: usize) -> usize {
        let available = self.pipes[&stream].to_proxy.len().min(len);
        if available == 0 || self.chance.percent(70) {
            len
        } else {
            1 + self.chance.below(available)
        }
    }

    fn read(&mut self, stream: StreamId, buffer: &mut [u8]) -> io::Result<usize> {
        let pipe = self.pipes.get_mut(&stream).expect("a stream stays known");
        if let Some(kind) = pipe.error {
            return Err(kind.into());
        }
        if pipe.to_proxy.is_empty() && !pipe.is_ended {
            return Err(ErrorKind::WouldBlock.into());
        }
        let len = pipe.to_proxy.len().min(buffer.len());
        if len > 0 {
            pipe.sent_before_read.get_or_insert(self.datagrams_sent);
        }
        for (place, byte) in buffer.iter_mut().zip(pipe.to_proxy.drain(..len)) {
            *place = byte;
        }
        Ok(len)
    }

    fn fail(&mut self, stream: StreamId, kind: ErrorKind) {
        let pipe = self.pipes.get_mut(&stream).expect("a stream stays known");
        pipe.to_proxy.clear();
        pipe.error = Some(kind);
        self.wake(stream);
    }
}

/// The network as the loop sees it.
pub struct SimNet<P> {
    pub world: Rc<RefCell<World>>,
    pub peers: P,
}

impl<P: Peers> SimNet<P> {
    pub fn new(world: World, peers: P) -> Self {
        Self {
            world: Rc::new(RefCell::new(world)),
            peers,
        }
    }

    fn stream(&self, id: StreamId) -> SimStream {
        SimStream {
            id,
            world: Rc::clone(&self.world),
            reads: ShortReads::default(),
        }
    }
}

impl<P: Peers> Net for SimNet<P> {
    type Stream = SimStream;
    type Listener = SocketAddr;
    type Datagram = SimDatagram;

    fn now(&self) -> Instant {
        self.world.borrow().now
    }

    fn wait(&mut self, timeout: Option<Duration>, events: &mut Vec<Event>) -> io::Result<Instant> {
        let world = &mut *self.world.borrow_mut();
        for (stream, to) in std::mem::take(&mut world.connecting) {
            let delay = Duration::from_micros(world.chance.between(50, 20_000));
            match self.peers.on_connect(world, stream, to) {
                Fate::Accepted => world.after(delay, NetworkEvent::Opened(stream)),
                Fate::Refused => world.after(delay, NetworkEvent::Refused(stream)),
                Fate::Lost => {}
            }
        }
        let end = timeout.map(|timeout| world.now + timeout);
        while world.ready.is_empty() {
            let next = world.queue.peek().map(|Reverse((at, _))| *at);
            match (next, end) {
                (Some(at), end) if end.is_none_or(|end| at <= end) => {
                    world.now = world.now.max(at);
                    // Simultaneous events are reported together.
                    while let Some(Reverse((same, number))) = world.queue.peek().copied()
                        && same <= at
                    {
                        world.queue.pop();
                        let network_event = world
                            .network_events
                            .remove(&number)
                            .expect("a queued event");
                        world.handle_event(network_event, &mut self.peers);
                    }
                }
                (_, Some(end)) => {
                    world.now = world.now.max(end);
                    break;
                }
                (_, None) => {
                    world.is_over = true;
                    break;
                }
            }
        }
        events.append(&mut world.ready);
        Ok(world.now)
    }

    fn pause(&mut self, length: Duration) {
        let world = &mut *self.world.borrow_mut();
        let mut inboxes = world.inboxes.values();
        let is_input_left = inboxes.any(|inbox| !inbox.datagrams.is_empty());
        world.now += length;
        world.pauses += 1;
        world.pauses_before_input += usize::from(is_input_left);
    }

    fn bind(&mut self, address: SocketAddr, key: Key) -> io::Result<SimDatagram> {
        self.world.borrow_mut().check_address(address)?;
        let inbox = Inbox {
            key,
            only_from: None,
            is_watched: false,
            datagrams: VecDeque::new(),
        };
        self.world.borrow_mut().inboxes.insert(address, inbox);
        Ok(SimDatagram {
            address,
            world: Rc::clone(&self.world),
        })
    }

    fn watch_room(
        &mut self,
        socket: &mut SimDatagram,
        key: Key,
        is_watched: bool,
    ) -> io::Result<()> {
        let world = &mut *self.world.borrow_mut();
        let inbox = world.inboxes.get_mut(&socket.address);
        inbox.expect("the socket is bound").is_watched = is_watched;
        if is_watched {
            // The socket was full only for a moment.
            world.ready.push(Event::readable(key.token()));
        }
        Ok(())
    }

    fn connect_datagram(&mut self, peer: SocketAddr, key: Key) -> io::Result<SimDatagram> {
        let mut world = self.world.borrow_mut();
        if world.now < world.no_descriptors_until {
            return Err(io::Error::from_raw_os_error(nix::libc::EMFILE));
        }
        let address = loop {
            let port = u16::try_from(world.chance.between(32_768, 60_999)).expect("a port");
            let address = SocketAddr::from(([192, 0, 2, 1], port));
            if !world.inboxes.contains_key(&address) {
                break address;
            }
        };
        let inbox = Inbox {
            key,
            only_from: Some(peer),
            is_watched: false,
            datagrams: VecDeque::new(),
        };
        world.inboxes.insert(address, inbox);
        drop(world);
        Ok(SimDatagram {
            address,
            world: Rc::clone(&self.world),
        })
    }

    fn listen(&mut self, address: SocketAddr, key: Key) -> io::Result<SocketAddr> {
        self.world.borrow_mut().check_address(address)?;
        let backlog = Backlog {
            key,
            streams: VecDeque::new(),
        };
        self.world.borrow_mut().backlogs.insert(address, backlog);
        Ok(address)
    }

    fn accept(&mut self, listener: &SocketAddr, key: Key) -> io::Result<(SimStream, SocketAddr)> {
        let mut world = self.world.borrow_mut();
        if world.now < world.no_descriptors_until {
            return Err(io::Error::from_raw_os_error(nix::libc::EMFILE));
        }
        if let Some(errno) = world.accept_error {
            return Err(io::Error::from_raw_os_error(errno));
        }
        if world.accepts_for_ever {
            let from = SocketAddr::from(([127, 0, 0, 1], 4));
            world.connect(from, *listener, Duration::ZERO, 1_000);
            let stream = world.next_stream;
            let backlog = world
                .backlogs
                .get_mut(listener)
                .expect("the program listens");
            backlog.streams.push_back((stream, from));
        }
        let backlog = world
            .backlogs
            .get_mut(listener)
            .expect("the program listens");
        let (id, from) = backlog.streams.pop_front().ok_or(ErrorKind::WouldBlock)?;
        world.pipes.get_mut(&id).expect("a stream stays known").key = Some(key);
        world.after(Duration::ZERO, NetworkEvent::Opened(id));
        drop(world);
        Ok((self.stream(id), from))
    }

    fn connect_local(&mut self, _: &Path, _: Key) -> io::Result<SimStream> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn connect(&mut self, peer: SocketAddr, key: Key) -> io::Result<SimStream> {
        let mut world = self.world.borrow_mut();
        if world.now < world.no_descriptors_until {
            return Err(io::Error::from_raw_os_error(nix::libc::EMFILE));
        }
        let window = world.chance.between(1_000, 60_000);
        let id = world.new_stream(usize::try_from(window).expect("a window"));
        world.pipes.get_mut(&id).expect("a stream stays known").key = Some(key);
        world.connecting.push((id, peer));
        drop(world);
        Ok(self.stream(id))
    }
}

/// The proxy's end of a stream.
pub struct SimStream {
    id: StreamId,
    world: Rc<RefCell<World>>,
    reads: ShortReads,
}

impl Read for SimStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let world = &mut *self.world.borrow_mut();
        let len = world.read_max(self.id, buffer.len());
        let buffer = &mut buffer[..len];
        self.reads
            .read(buffer, |buffer| world.read(self.id, buffer))
    }
}

impl Stream for SimStream {
    fn on_event(&mut self, is_read_closed: bool) {
        self.reads.on_event(is_read_closed);
    }
}

impl Write for SimStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let world = &mut *self.world.borrow_mut();
        let pipe = world.pipes.get_mut(&self.id).expect("a stream stays known");
        if let Some(kind) = pipe.error {
            return Err(kind.into());
        }
        let room = pipe.window.saturating_sub(pipe.unread).min(bytes.len());
        if !pipe.is_open || room == 0 {
            pipe.is_writer_blocked = true;
            return Err(ErrorKind::WouldBlock.into());
        }
        let len = if world.chance.percent(80) {
            room
        } else {
            1 + world.chance.below(room)
        };
        pipe.unread += len;
        let network_event = NetworkEvent::BytesToPeer(self.id, bytes[..len].to_vec());
        world.after(latency(self.id), network_event);
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Returns the time that bytes take to the peer: the same for all bytes of a stream, so that they
/// arrive in order.
fn latency(stream: StreamId) -> Duration {
    Duration::from_micros(200 + stream * 37 % 3_000)
}

impl Drop for SimStream {
    fn drop(&mut self) {
        let mut world = self.world.borrow_mut();
        if let Some(pipe) = world.pipes.get_mut(&self.id) {
            pipe.is_closed_by_proxy = true;
        }
        world.after(latency(self.id), NetworkEvent::ClosedToPeer(self.id));
    }
}

/// A UDP socket of the proxy.
pub struct SimDatagram {
    address: SocketAddr,
    world: Rc<RefCell<World>>,
}

impl Datagram for SimDatagram {
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr, Option<Address>)> {
        let world = &mut *self.world.borrow_mut();
        let inbox = world
            .inboxes
            .get_mut(&self.address)
            .expect("the socket is bound");
        let (bytes, from) = inbox.datagrams.pop_front().ok_or(ErrorKind::WouldBlock)?;
        world.received_since_sent += 1;
        let most = world.received_since_sent_max.max(world.received_since_sent);
        world.received_since_sent_max = most;
        if bytes.is_empty() {
            // No process listens on the port.
            return Err(ErrorKind::ConnectionRefused.into());
        }
        buffer[..bytes.len()].copy_from_slice(&bytes);
        let local = inbox.only_from.is_none().then(|| self.address.ip().into());
        Ok((bytes.len(), from, local))
    }

    fn send(&mut self, datagrams: &[Outgoing<'_>]) -> io::Result<usize> {
        let taken = self.world.borrow_mut().chance.between(1, 4);
        let mut sent = 0;
        for datagram in datagrams
            .iter()
            .take(usize::try_from(taken).expect("a small number"))
        {
            match self.send_one(datagram) {
                Ok(()) => sent += 1,
                Err(error) if sent == 0 => return Err(error),
                Err(_) => break,
            }
        }
        Ok(sent)
    }
}

impl SimDatagram {
    fn send_one(&self, datagram: &Outgoing<'_>) -> io::Result<()> {
        let (bytes, peer, local) = (datagram.bytes, *datagram.peer, datagram.local.copied());
        let world = &mut *self.world.borrow_mut();
        world.received_since_sent = 0;
        world.datagrams_sent += 1;
        let inbox = &world.inboxes[&self.address];
        let (key, connected, is_watched) = (inbox.key, inbox.only_from, inbox.is_watched);
        match connected {
            Some(connected) => assert_eq!((connected, None), (peer, local)),
            None => assert_eq!(
                local,
                Some(self.address.ip().into()),
                "the response has the source address of the query"
            ),
        }
        // The socket is full for a moment; a socket that is used once hardly ever is.
        let in_thousand = if connected.is_some() { 1 } else { 20 };
        if world.chance.below(1_000) < in_thousand {
            if is_watched {
                world.ready.push(Event::readable(key.token()));
            }
            return Err(ErrorKind::WouldBlock.into());
        }
        let delay = Duration::from_micros(world.chance.between(20, 2_000));
        world.after(
            delay,
            NetworkEvent::DatagramToPeer(self.address, peer, bytes.to_vec()),
        );
        Ok(())
    }
}

impl Drop for SimDatagram {
    fn drop(&mut self) {
        self.world.borrow_mut().inboxes.remove(&self.address);
    }
}
