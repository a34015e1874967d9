//! The sockets that clients connect or send to.

use std::io;
use std::net::SocketAddr;

use log::Level;

use super::{Session, Slot};
use crate::base::arena::{Arena, Key};
use crate::base::origin::ClientProtocol;
use crate::config::{Config, InheritedSocket};
use crate::net::{self, Net};
use crate::session::ClientDatagram;

/// The service behind a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Service {
    /// DNS queries.
    Dns(ClientProtocol),
    /// Metrics and health checks.
    Http,
}

/// An error: a socket for clients could not be opened.
#[derive(Debug)]
pub struct ListenError {
    /// The address to listen on.
    pub address: SocketAddr,
    /// `UDP`, `TCP`, `TLS`, `HTTPS` or `HTTP`.
    pub protocol: &'static str,
    /// The cause of the failure.
    pub cause: io::Error,
}

impl ListenError {
    /// Returns whether no interface of this host has the address, and the system does not bind it
    /// in advance.
    pub fn is_address_missing(&self) -> bool {
        self.cause.kind() == io::ErrorKind::AddrNotAvailable && !self.address.ip().is_unspecified()
    }
}

/// A listener of the configuration.
pub(super) struct Listener {
    socket: InheritedSocket,
    service: Service,
}

/// The listeners at the start.
pub(super) struct Opened<N: Net> {
    /// The sessions of the listeners that are open.
    pub(super) sessions: Arena<Key, Slot<N>>,
    /// The listeners whose address the host does not have yet, each with the error.
    pub(super) late: Vec<(Listener, ListenError)>,
}

impl Listener {
    /// Returns the listeners that the options ask for.
    fn all(config: &Config) -> Vec<Self> {
        let stream = |service| {
            move |&address: &SocketAddr| Self {
                socket: InheritedSocket {
                    address,
                    has_udp: false,
                    has_tcp: true,
                },
                service,
            }
        };
        let plain = config.listen.sockets().into_iter().map(|socket| Self {
            socket,
            service: Service::Dns(ClientProtocol::Tcp),
        });
        let under_tls = config.tls.iter().flat_map(|tls| &tls.addresses);
        let over_https = config.tls.iter().flat_map(|tls| &tls.https_addresses);
        plain
            .chain(under_tls.map(stream(Service::Dns(ClientProtocol::Tls))))
            .chain(over_https.map(stream(Service::Dns(ClientProtocol::Https))))
            .chain(config.http_listen.iter().map(stream(Service::Http)))
            .collect()
    }

    /// Returns the text that follows the address in the log.
    fn note(&self) -> &'static str {
        match (self.service, self.socket.has_udp, self.socket.has_tcp) {
            (Service::Dns(ClientProtocol::Tls), ..) => " (TLS)",
            (Service::Dns(ClientProtocol::Https), ..) => " (HTTPS)",
            (Service::Http, ..) => " (HTTP)",
            (_, true, false) => " (UDP only)",
            (_, false, true) => " (TCP only)",
            _ => "",
        }
    }
}

/// Opens all listeners of `config`. A host without IPv6 does not prevent the start as long as there
/// is another listener for DNS.
pub(super) fn listen_everywhere<N: Net>(
    net: &mut N,
    config: &Config,
) -> Result<Opened<N>, ListenError> {
    let (mut sessions, mut late) = (Arena::default(), Vec::new());
    let mut has_dns = false;
    let mut without_family = None;
    let listeners = Listener::all(config);
    let is_alone = listeners.len() == 1;
    for listener in listeners {
        let address = listener.socket.address;
        let is_dns = listener.service != Service::Http;
        match open(net, &mut sessions, &listener) {
            Ok(()) => has_dns |= is_dns,
            Err(error) if lacks_family(&error) => {
                // A wildcard for IPv6 goes with the one for IPv4.
                let is_implied = address.ip().is_unspecified() && !is_alone;
                let level = if is_implied { Level::Info } else { Level::Warn };
                log::log!(
                    level,
                    "not listening on {address}{}: this host has no IPv6 ({})",
                    listener.note(),
                    error.cause
                );
                without_family.get_or_insert(error);
            }
            Err(error) if error.is_address_missing() => {
                has_dns |= is_dns;
                late.push((listener, error));
            }
            Err(error) => return Err(error),
        }
    }
    match without_family {
        Some(error) if !has_dns => Err(error),
        _ => Ok(Opened { sessions, late }),
    }
}

/// Returns whether an address cannot be bound because the host has no IPv6.
fn lacks_family(ListenError { address, cause, .. }: &ListenError) -> bool {
    let is_everywhere = address.ip().is_unspecified();
    let lacks_address = is_everywhere && cause.kind() == io::ErrorKind::AddrNotAvailable;
    address.is_ipv6() && (net::lacks_family(cause) || lacks_address)
}

/// Opens all sockets of a listener, or none.
pub(super) fn open<N: Net>(
    net: &mut N,
    sessions: &mut Arena<Key, Slot<N>>,
    listener: &Listener,
) -> Result<(), ListenError> {
    let Listener { socket, service } = listener;
    let address = socket.address;
    let mut datagram_key = None;
    if socket.has_udp {
        let datagram = net.bind(address, sessions.next_key());
        let datagram = datagram.map_err(|cause| ListenError {
            address,
            protocol: "UDP",
            cause,
        })?;
        let session = Session::Datagram(ClientDatagram::new(datagram));
        datagram_key = Some(sessions.insert(Slot::new(session)));
    }
    if socket.has_tcp
        && let Err(error) = listen_for(*service, net, sessions, address)
    {
        datagram_key.map(|key| sessions.remove(key));
        return Err(error);
    }
    let note = listener.note();
    log::info!(
        event = "listening", address:% = address;
        "listening on {address}{note}"
    );
    Ok(())
}

fn listen_for<N: Net>(
    service: Service,
    net: &mut N,
    sessions: &mut Arena<Key, Slot<N>>,
    address: SocketAddr,
) -> Result<(), ListenError> {
    let listener = net.listen(address, sessions.next_key());
    let listener = listener.map_err(|cause| ListenError {
        address,
        protocol: match service {
            Service::Dns(ClientProtocol::Udp) => "UDP",
            Service::Dns(ClientProtocol::Tcp) => "TCP",
            Service::Dns(ClientProtocol::Tls) => "TLS",
            Service::Dns(ClientProtocol::Https) => "HTTPS",
            Service::Http => "HTTP",
        },
        cause,
    })?;
    sessions.insert(Slot::new(Session::Listener(listener, service)));
    Ok(())
}
