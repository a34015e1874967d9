//! UDP sockets of the operating system.

use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;

use mio::net::UdpSocket;
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt,
};
use rustix::net::addr::SocketAddrArg;
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, sendmmsg};
use socket2::{MsgHdr, SockAddr, SockRef, Socket};

use crate::address::Address;
use crate::session::client_datagram::{Datagram, Outgoing};

/// Octets of queries that the kernel keeps while we are busy; it may allow less.
const UDP_BUFFER_LEN: usize = 1024 * 1024;

/// Datagrams that are sent by one call.
const BATCH_LEN: usize = 16;

/// The port of the discard protocol (RFC 863).
const DISCARD_PORT: u16 = 9;

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

impl Udp {
    /// The socket that clients send their queries to, at `address`. One that is inherited is bound
    /// there already.
    pub(super) fn for_clients(
        socket: Socket,
        address: SocketAddr,
        is_inherited: bool,
    ) -> io::Result<Self> {
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
        Ok(Self {
            socket: UdpSocket::from_std(socket.into()),
            is_everywhere,
            is_inherited,
            control: nix::cmsg_space!(nix::libc::in6_pktinfo),
        })
    }

    /// A socket that sends to `peer` and receives from it alone.
    pub(super) fn to_upstream(socket: Socket, peer: SocketAddr) -> io::Result<Self> {
        // The kernel picks the port, by chance (RFC 6056).
        socket.connect(&peer.into())?;
        Ok(Self {
            socket: UdpSocket::from_std(socket.into()),
            is_everywhere: false,
            is_inherited: false,
            control: Vec::new(),
        })
    }

    /// What a poller takes.
    pub(super) fn source(&mut self) -> &mut UdpSocket {
        &mut self.socket
    }
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
