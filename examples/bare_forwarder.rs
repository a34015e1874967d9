//! The minimum cost of a forwarded query: a loop like dotproxy's that sends each UDP query, padded,
//! to one resolver over TLS, and the reply back, and does nothing else. It has no cache, no
//! timeouts, no retries, no limits and no checks. `scripts/bench.py` runs it for comparison.
//!
//! `bare_forwarder PORT RESOLVER NAME CA` listens on that port of 127.0.0.1 and connects to the port
//! RESOLVER. NAME is the name in the certificate of the resolver, and CA the file of its authority.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use dotproxy::wire::edns::OptWriter;
use dotproxy::wire::frame::{self, Deframer};
use dotproxy::wire::header::HEADER_LEN;
use dotproxy::wire::query::{PADDING_BLOCK, UDP_SIZE};
use mio::net::{TcpStream, UdpSocket};
use mio::{Events, Interest, Poll, Token};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

const CLIENTS: Token = Token(0);
const RESOLVER: Token = Token(1);

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [port, resolver_port, name, ca_file] = &arguments[..] else {
        let usage = "usage: bare_forwarder PORT RESOLVER NAME CA";
        return Err(io::Error::other(usage));
    };
    let local = |port: &String| -> io::Result<SocketAddr> {
        let port: u16 = port.parse().map_err(io::Error::other)?;
        Ok((Ipv4Addr::LOCALHOST, port).into())
    };
    let tls = session(name.clone(), ca_file)?;
    let stream = std::net::TcpStream::connect(local(resolver_port)?)?;
    stream.set_nodelay(true)?;
    stream.set_nonblocking(true)?;
    let mut forwarder = Forwarder {
        clients: UdpSocket::bind(local(port)?)?,
        resolver: TcpStream::from_std(stream),
        tls,
        deframer: Deframer::default(),
        queries: vec![None; 1 << 16],
        next_id: 0,
    };
    forwarder.run()
}

fn session(name: String, ca_file: &str) -> io::Result<ClientConnection> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca_file).map_err(io::Error::other)? {
        let certificate = certificate.map_err(io::Error::other)?;
        roots.add(certificate).map_err(io::Error::other)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(name).map_err(io::Error::other)?;
    ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)
}

struct Forwarder {
    clients: UdpSocket,
    resolver: TcpStream,
    tls: ClientConnection,
    deframer: Deframer,
    /// The id of each query and its client, by the id of the forwarded query.
    queries: Vec<Option<([u8; 2], SocketAddr)>>,
    next_id: u16,
}

impl Forwarder {
    fn run(&mut self) -> io::Result<()> {
        let mut poll = Poll::new()?;
        let registry = poll.registry();
        registry.register(&mut self.clients, CLIENTS, Interest::READABLE)?;
        let both = Interest::READABLE | Interest::WRITABLE;
        registry.register(&mut self.resolver, RESOLVER, both)?;
        let mut events = Events::with_capacity(2);
        let mut buffer = vec![0; 1 << 16];
        loop {
            self.write()?;
            poll.poll(&mut events, None)?;
            for event in &events {
                match event.token() {
                    CLIENTS => self.forward_queries(&mut buffer)?,
                    _ => self.return_replies(&mut buffer)?,
                }
            }
        }
    }

    fn forward_queries(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        let mut framed = Vec::new();
        while let Ok((len, client)) = self.clients.recv_from(buffer) {
            if len < HEADER_LEN {
                continue;
            }
            let mut query = buffer[..len].to_vec();
            let id = [query[0], query[1]];
            self.next_id = self.next_id.wrapping_add(1);
            self.queries[usize::from(self.next_id)] = Some((id, client));
            query[..2].copy_from_slice(&self.next_id.to_be_bytes());
            // A query with additional records is not padded.
            if query[HEADER_LEN - 1] == 0 {
                query[HEADER_LEN - 1] = 1;
                let opt = OptWriter::start(&mut query, UDP_SIZE, 0, 0);
                opt.pad(0, PADDING_BLOCK, usize::from(u16::MAX));
            }
            frame::write(&mut framed, &query);
        }
        self.tls.writer().write_all(&framed)
    }

    fn return_replies(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        let mut is_open = true;
        while is_open {
            match self.tls.read_tls(&mut self.resolver) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => is_open = false,
                Err(error) => return Err(error),
            }
            let state = self.tls.process_new_packets().map_err(io::Error::other)?;
            let mut left = state.plaintext_bytes_to_read();
            while left > 0 {
                let len = self.tls.reader().read(buffer)?;
                left -= len;
                let (queries, clients) = (&mut self.queries, &self.clients);
                let _ = self.deframer.feed(&buffer[..len], |reply| {
                    respond(queries, clients, reply);
                    std::ops::ControlFlow::Continue(())
                });
            }
        }
        Ok(())
    }

    fn write(&mut self) -> io::Result<()> {
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut self.resolver) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Sends a reply to the client of its query.
fn respond(queries: &mut [Option<([u8; 2], SocketAddr)>], clients: &UdpSocket, reply: &[u8]) {
    let Some(id) = reply.first_chunk().copied().map(u16::from_be_bytes) else {
        return;
    };
    if let Some((id, client)) = queries[usize::from(id)].take() {
        let mut response = reply.to_vec();
        response[..2].copy_from_slice(&id);
        // A datagram that does not fit is lost, as on any network.
        let _ = clients.send_to(&response, client);
    }
}
