//! The sockets that clients connect or send to.

use std::io;
use std::net::SocketAddr;

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
    /// `UDP`, `TCP`, `TLS` or `HTTP`.
    pub protocol: &'static str,
    /// The cause of the failure.
    pub cause: io::Error,
}

/// Opens all listeners of `config`.
pub(super) fn listen_everywhere<N: Net>(
    net: &mut N,
    config: &Config,
) -> Result<Arena<Key, Slot<N>>, ListenError> {
    let mut sessions = Arena::default();
    for socket in config.listen.sockets() {
        let address = socket.address;
        match listen(net, &mut sessions, socket) {
            Ok(()) => {
                let alone = match (socket.has_udp, socket.has_tcp) {
                    (true, false) => " (UDP only)",
                    (false, true) => " (TCP only)",
                    _ => "",
                };
                log::info!(
                    event = "listening", address:% = address;
                    "listening on {address}{alone}"
                );
            }
            Err(error) if config.listen.is_optional(&address) && net::has_no_ipv6(&error.cause) => {
                log::info!("not listening on {address}: {}", error.cause);
            }
            Err(error) => return Err(error),
        }
    }
    for &address in config.tls.iter().flat_map(|tls| &tls.addresses) {
        listen_for(
            Service::Dns(ClientProtocol::Tls),
            net,
            &mut sessions,
            address,
        )?;
        log::info!(event = "listening", address:% = address; "listening on {address} (TLS)");
    }
    for &address in &config.http_listen {
        listen_for(Service::Http, net, &mut sessions, address)?;
        log::info!(event = "listening", address:% = address; "listening on {address} (HTTP)");
    }
    Ok(sessions)
}

fn listen<N: Net>(
    net: &mut N,
    sessions: &mut Arena<Key, Slot<N>>,
    socket: InheritedSocket,
) -> Result<(), ListenError> {
    let address = socket.address;
    if socket.has_udp {
        let datagram = net.bind(address, sessions.next_key());
        let datagram = datagram.map_err(|cause| ListenError {
            address,
            protocol: "UDP",
            cause,
        })?;
        sessions.insert(Slot::new(Session::Datagram(ClientDatagram::new(datagram))));
    }
    if socket.has_tcp {
        listen_for(Service::Dns(ClientProtocol::Tcp), net, sessions, address)?;
    }
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
            Service::Http => "HTTP",
        },
        cause,
    })?;
    sessions.insert(Slot::new(Session::Listener(listener, service)));
    Ok(())
}
