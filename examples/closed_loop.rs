//! Closed-loop load for a DNS server on 127.0.0.1: keeps a number of queries outstanding and
//! answers each response with the next query at once. `scripts/bench.py --closed-loop` runs it
//! against several programs.
//!
//! `closed_loop PORT OUTSTANDING SOCKETS SECONDS FRESH`
//!
//! The queries are spread over the UDP sockets. With FRESH 0 the program asks for the addresses of
//! n0.check.net to n1999.check.net, which are in a cache after the first round. With FRESH 1 it
//! asks for a new name below w.net each time, which a cache forwards; the upstream should answer
//! these names from local data.
//!
//! The program prints one line: responses per second, and the mean and the largest latency in
//! microseconds. If no response arrives for half a second, the outstanding queries count as lost
//! and the program sends as many new ones.
//!
//! `dnsperf` is no substitute: below some 32 outstanding queries it sleeps between queries.

use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Time without a response after which the outstanding queries count as lost.
const LOST_AFTER_MS: u16 = 500;

/// The number of names with FRESH 0.
const KNOWN_NAMES: u64 = 2000;

fn main() -> io::Result<()> {
    let arguments: Vec<f64> = std::env::args()
        .skip(1)
        .map_while(|argument| argument.parse().ok())
        .collect();
    let &[port, outstanding, sockets, seconds, fresh] = &arguments[..] else {
        let usage = "usage: closed_loop PORT OUTSTANDING SOCKETS SECONDS FRESH";
        return Err(io::Error::other(usage));
    };
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "small whole numbers, and the cast saturates"
    )]
    let (port, outstanding, sockets) = (port as u16, outstanding as u64, sockets as usize);
    let mut load = Load::new(port, outstanding, sockets.max(1), fresh != 0.0)?;
    let length = Duration::from_secs_f64(seconds);
    load.run(length)?;
    load.report();
    Ok(())
}

/// The sockets and the outstanding queries.
struct Load {
    sockets: Vec<UdpSocket>,
    outstanding: u64,
    is_fresh: bool,
    /// Distinguishes the fresh names of two runs.
    run: u32,
    asked: u64,
    /// The time at which the query of each id was sent.
    sent_at: Vec<Instant>,
    started: Instant,
    took: Duration,
    responses: u32,
    latency_sum: Duration,
    latency_max: Duration,
}

impl Load {
    fn new(port: u16, outstanding: u64, sockets: usize, is_fresh: bool) -> io::Result<Self> {
        let open = |_| {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
            socket.connect((Ipv4Addr::LOCALHOST, port))?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        };
        let now = Instant::now();
        let since_1970 = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
        Ok(Self {
            sockets: (0..sockets).map(open).collect::<io::Result<_>>()?,
            outstanding,
            is_fresh,
            run: std::process::id() ^ since_1970.subsec_nanos(),
            asked: 0,
            sent_at: vec![now; 1 << 16],
            started: now,
            took: Duration::ZERO,
            responses: 0,
            latency_sum: Duration::ZERO,
            latency_max: Duration::ZERO,
        })
    }

    fn run(&mut self, length: Duration) -> io::Result<()> {
        self.ask_all();
        self.started = Instant::now();
        while self.started.elapsed() < length {
            let readable = self.readable()?;
            if readable.is_empty() {
                self.ask_all();
            }
            for socket in readable {
                self.serve(socket);
            }
        }
        self.took = self.started.elapsed();
        Ok(())
    }

    fn report(&self) {
        let responses = f64::from(self.responses);
        let microseconds = |latency: Duration| latency.as_secs_f64() * 1e6;
        println!(
            "{:.0} {:.1} {:.1}",
            responses / self.took.as_secs_f64(),
            microseconds(self.latency_sum) / responses.max(1.0),
            microseconds(self.latency_max),
        );
    }

    /// Waits for responses. Returns the indexes of readable sockets.
    fn readable(&self) -> io::Result<Vec<usize>> {
        let watched = self.sockets.iter();
        let mut watched: Vec<PollFd<'_>> = watched
            .map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN))
            .collect();
        poll(&mut watched, PollTimeout::from(LOST_AFTER_MS))?;
        let is_ready = |index: &usize| watched[*index].any() == Some(true);
        Ok((0..watched.len()).filter(is_ready).collect())
    }

    /// Sends queries until the configured number is outstanding.
    fn ask_all(&mut self) {
        for nth in 0..self.outstanding {
            let nth = usize::try_from(nth).expect("a number of queries");
            self.ask(nth % self.sockets.len());
        }
    }

    /// Reads the responses of a socket, and sends the next query for each.
    fn serve(&mut self, socket: usize) {
        let mut response = [0; 1500];
        while let Ok(2..) = self.sockets[socket].recv(&mut response) {
            let id = u16::from_be_bytes([response[0], response[1]]);
            let latency = self.sent_at[usize::from(id)].elapsed();
            self.latency_sum += latency;
            self.latency_max = self.latency_max.max(latency);
            self.responses += 1;
            self.ask(socket);
        }
    }

    fn ask(&mut self, socket: usize) {
        let (nth, run) = (self.asked, self.run);
        self.asked += 1;
        let [.., high, low] = nth.to_be_bytes();
        let id = u16::from_be_bytes([high, low]);
        let query = if self.is_fresh {
            query(id, &format!("x{run:x}{nth:x}"), b"\x01w\x03net")
        } else {
            query(id, &format!("n{}", nth % KNOWN_NAMES), b"\x05check\x03net")
        };
        self.sent_at[usize::from(id)] = Instant::now();
        // A datagram that the kernel does not accept is lost, as on any network.
        let _ = self.sockets[socket].send(&query);
    }
}

/// Returns a query for the address of a name: its first label, and the others in wire format.
fn query(id: u16, label: &str, others: &[u8]) -> Vec<u8> {
    let mut query = Vec::with_capacity(64);
    query.extend(id.to_be_bytes());
    query.extend(b"\x01\0\0\x01\0\0\0\0\0\0");
    query.push(u8::try_from(label.len()).expect("a label is short"));
    query.extend(label.as_bytes());
    query.extend(others);
    query.extend(b"\0\0\x01\0\x01");
    query
}
