//! The program as a separate process, started as a user starts it.

use std::collections::BTreeSet;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use socket2::{Domain, Socket, Type};

/// The maximum time to wait for an event. A busy machine delays everything, so only a faulty
/// program exceeds this time.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A running dotproxy.
pub struct Program {
    child: Child,
    pub address: SocketAddr,
    log: Arc<Mutex<String>>,
}

impl Program {
    /// Starts the program on a free port of 127.0.0.1 with these additional arguments, and waits
    /// until the program listens.
    pub fn start(arguments: &[String]) -> Self {
        Self::start_in("exec \"$@\"", arguments)
    }

    /// Starts the program with a shell script, in which `"$@"` is the command.
    pub fn start_in(script: &str, arguments: &[String]) -> Self {
        // A program outside of these tests can take the port before this one does.
        for _ in 0..5 {
            let (mut program, log_reader) = Self::start_at(free_port(), script, arguments);
            await_that("the program listens or exits", || {
                program.log().contains("listening on") || !program.is_running()
            });
            if program.log().contains("listening on") {
                return program;
            }
            log_reader.join().expect("the thread does not panic");
            let is_port_taken = format!("cannot listen on {} ", program.address);
            assert!(program.log().contains(&is_port_taken), "the program exited");
        }
        panic!("five ports were taken by other programs");
    }

    fn start_at(port: u16, script: &str, arguments: &[String]) -> (Self, JoinHandle<()>) {
        let mut child = spawn(
            Command::new("sh")
                .args(["-c", script, "sh", env!("CARGO_BIN_EXE_dotproxy")])
                .args(["-l", "127.0.0.1", "-p", &port.to_string(), "-v"])
                // These tests concern the path upstream, unless their arguments enable the cache.
                .args(["--cache-size", "0"])
                .args(arguments)
                .stdin(Stdio::null())
                .stderr(Stdio::piped()),
        );
        let log = Arc::new(Mutex::new(String::new()));
        let stderr = BufReader::new(child.stderr.take().expect("standard error is piped"));
        let lines = Arc::clone(&log);
        let log_reader = std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let mut log = lines.lock().expect("no thread panics with the lock");
                log.push_str(&line);
                log.push('\n');
            }
        });
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let program = Self {
            child,
            address,
            log,
        };
        (program, log_reader)
    }

    /// Returns the log so far.
    pub fn log(&self) -> String {
        self.log
            .lock()
            .expect("no thread panics with the lock")
            .clone()
    }

    /// Waits until the program has read everything that was sent to it before.
    pub fn await_reading(&self) {
        await_reading(self.address);
    }

    /// Returns the current line of counters.
    pub fn counters(&self) -> String {
        let is_counters = |line: &&str| line.contains("queries udp=");
        let before = self.log().lines().filter(is_counters).count();
        let line = || {
            let log = self.log();
            let mut lines = log.lines().filter(is_counters);
            lines.nth(before).map(str::to_owned)
        };
        self.signal(Signal::SIGUSR1);
        await_that("the program logs its counters", || line().is_some());
        line().expect("the log has the line")
    }

    /// Waits until the log contains this text.
    pub fn await_log(&self, text: &str) {
        await_that(&format!("the log says {text:?}"), || {
            self.log().contains(text)
        });
    }

    /// Sends a query over UDP and waits for its response.
    pub fn ask(&self, query: &[u8]) -> Option<Vec<u8>> {
        self.ask_within(query, PATIENCE)
    }

    /// Sends a query over UDP and waits this time for its response.
    pub fn ask_within(&self, query: &[u8], patience: Duration) -> Option<Vec<u8>> {
        let socket = datagrams_from(Ipv4Addr::LOCALHOST, patience);
        socket
            .send_to(query, self.address)
            .expect("loopback accepts datagrams");
        let mut response = vec![0; 65_535];
        // A stop of the process and its continuation interrupt a receive with a timeout (`signal(7)`).
        let len = loop {
            match socket.recv(&mut response) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
                received => break received.expect("only a timeout ends the wait"),
            }
        };
        response.truncate(len);
        Some(response)
    }

    /// Opens a TCP connection to the program.
    pub fn connect(&self) -> TcpStream {
        self.connect_from(Ipv4Addr::LOCALHOST)
    }

    /// Opens a TCP connection to the program from an address of this host.
    pub fn connect_from(&self, own: Ipv4Addr) -> TcpStream {
        connect_from(own, self.address)
    }

    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).expect("the process runs");
    }

    /// Reloads the settings and files. Returns the new log lines.
    pub fn reload(&self) -> String {
        let before = self.log().len();
        self.signal(Signal::SIGHUP);
        let is_done = |log: &str| {
            log.contains("reloaded the configuration")
                || log.contains("keeping the previous configuration")
        };
        await_that("the program has reloaded its files", || {
            is_done(&self.log()[before..])
        });
        self.log()[before..].to_owned()
    }

    /// Waits for the end of the program. Returns the exit code.
    pub fn wait(&mut self) -> Option<i32> {
        let mut code = None;
        await_that("the program exits", || {
            code = self
                .child
                .try_wait()
                .expect("the process is a child of this test");
            code.is_some()
        });
        code.and_then(|status| status.code())
    }

    pub fn is_running(&mut self) -> bool {
        self.child
            .try_wait()
            .expect("the process is a child of this test")
            .is_none()
    }

    /// Returns the resident memory in KiB.
    pub fn resident_kib(&self) -> u64 {
        self.memory_kib("VmRSS:")
    }

    /// Returns the resident memory in KiB without file pages, such as code, which are never
    /// released.
    pub fn own_kib(&self) -> u64 {
        self.memory_kib("RssAnon:")
    }

    /// Returns the contents of `/proc/PID/status`.
    pub fn proc_status(&self) -> String {
        let path = format!("/proc/{}/status", self.child.id());
        std::fs::read_to_string(path).expect("the process runs")
    }

    fn memory_kib(&self, kind: &str) -> u64 {
        let status = self.proc_status();
        let line = status
            .lines()
            .find(|line| line.starts_with(kind))
            .expect("the status has the field");
        line.split_whitespace()
            .nth(1)
            .and_then(|kib| kib.parse().ok())
            .expect("a number")
    }

    /// Returns the processor time of the program.
    pub fn processor_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()));
        let stat = stat.expect("the process runs");
        let (_, fields) = stat.rsplit_once(')').expect("a name in brackets");
        let ticks = fields
            .split_whitespace()
            .skip(11)
            .take(2)
            .map(str::parse::<u64>);
        // Linux counts hundredths of a second here on every architecture.
        Duration::from_millis(10 * ticks.map(|ticks| ticks.expect("a number")).sum::<u64>())
    }

    /// Returns the number of open file descriptors.
    pub fn descriptors(&self) -> usize {
        let path = format!("/proc/{}/fd", self.child.id());
        std::fs::read_dir(path).expect("the process runs").count()
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("a process id"))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- its log ---\n{}", self.log());
        }
    }
}

/// Opens a TCP connection from an address of this host.
pub fn connect_from(own: Ipv4Addr, to: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    let own = SocketAddr::from((own, 0));
    socket.bind(&own.into()).expect("an address of this host");
    socket.connect(&to.into()).expect("the program listens");
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream
}

/// Binds a UDP socket to an address of this host, which waits this time for responses.
pub fn datagrams_from(own: Ipv4Addr, patience: Duration) -> UdpSocket {
    let socket = UdpSocket::bind((own, 0)).expect("an address of this host");
    socket.set_read_timeout(Some(patience)).expect("a timeout");
    socket
}

/// Waits until a dotproxy has read everything that was sent to this address before. The program
/// reads all its sockets before it waits again, so a second response proves that every socket was
/// read.
pub fn await_reading(address: SocketAddr) {
    let socket = datagrams_from(Ipv4Addr::LOCALHOST, PATIENCE);
    // The program answers this name locally.
    let query = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x09localhost\0\0\x01\0\x01";
    for _ in 0..2 {
        socket
            .send_to(query, address)
            .expect("loopback accepts datagrams");
        socket.recv(&mut [0; 512]).expect("a response");
    }
}

/// Runs the program until it ends. Returns its exit code and its standard error.
pub fn run_to_end(arguments: &[&str]) -> (Option<i32>, String) {
    let output = output_of(Command::new(env!("CARGO_BIN_EXE_dotproxy")).args(arguments));
    let text = String::from_utf8(output.stderr).expect("text");
    (output.status.code(), text)
}

/// Waits until a condition holds.
pub fn await_that(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(
            Instant::now() < end,
            "timeout before this became true: {what}"
        );
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A lock that is held while a port is tested and while a process is started: between fork and exec
/// a new process has a copy of every socket, so a released port would still be in use.
static FORKING: Mutex<()> = Mutex::new(());

/// Starts a process.
pub fn spawn(command: &mut Command) -> Child {
    let _alone = FORKING.lock().unwrap_or_else(PoisonError::into_inner);
    command.spawn().expect("the program starts")
}

/// Runs a process without input until it ends. Returns its exit code and what it wrote.
pub fn output_of(command: &mut Command) -> Output {
    spawn(
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped()),
    )
    .wait_with_output()
    .expect("the process is a child of this test")
}

/// Listens for TCP connections at an address that was in use before. Another test may be starting a
/// process, which has copies of the closed sockets until it executes its program.
pub fn listen_again(address: SocketAddr) -> TcpListener {
    let mut listener = None;
    await_that("the address is free again", || {
        listener = TcpListener::bind(address).ok();
        listener.is_some()
    });
    listener.expect("the address was free")
}

/// Returns a port of 127.0.0.1 that is free for UDP and TCP. The port is below the ephemeral range,
/// so that no client takes it before it is used.
pub fn free_port() -> u16 {
    /// Ports of earlier calls, whose tests may close and open them.
    static DRAWN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let _alone = FORKING.lock().unwrap_or_else(PoisonError::into_inner);
    let mut drawn = DRAWN.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        // Other processes that run at the same time draw other ports.
        let draw = RandomState::new().build_hasher().finish() % 20_000;
        let port = 12_000 + u16::try_from(draw).expect("below 20,000");
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if UdpSocket::bind(address).is_ok()
            && TcpListener::bind(address).is_ok()
            && drawn.insert(port)
        {
            return port;
        }
    }
}

/// Sends messages on a stream, each with its length in front.
pub fn send_framed(stream: &mut impl Write, messages: &[Vec<u8>]) -> std::io::Result<()> {
    let mut bytes = Vec::new();
    for message in messages {
        dotproxy::wire::frame::write(&mut bytes, message);
    }
    stream.write_all(&bytes)
}

/// Reads one message from a stream.
pub fn read_framed(stream: &mut impl Read) -> std::io::Result<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message)?;
    Ok(message)
}
