//! UDP sockets of the operating system.

use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;

use mio::net::UdpSocket;
use nix::libc;
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt,
};
use rustix::net::addr::SocketAddrArg;
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, sendmmsg};
use socket2::{MsgHdr, SockAddr, SockRef, Socket};

use crate::base::address::Address;
use crate::session::client::datagram::{Datagram, Outgoing};

/// Size in bytes of the receive buffer for queries; the kernel may allow less.
const UDP_BUFFER_LEN: usize = 1024 * 1024;

/// Maximum number of datagrams sent with one call.
const BATCH_LEN: usize = 16;

/// Maximum number of segments in a datagram for segmentation (UDP GSO), and the maximum payload of
/// a datagram with headers of IPv6 and UDP.
const SEGMENTS_MAX: usize = 64;
const SEGMENTED_LEN_MAX: usize = 65_535 - 48;

/// The port of the discard protocol (RFC 863).
const DISCARD_PORT: u16 = 9;

/// A UDP socket of the operating system.
#[derive(Debug)]
pub struct Udp {
    socket: UdpSocket,
    /// The socket is bound to the wildcard address, so the kernel reports the destination address.
    is_everywhere: bool,
    /// Another process, which started this one, also holds the socket.
    is_inherited: bool,
    /// The kernel supports segmentation of datagrams (UDP GSO).
    can_segment: bool,
    control: Vec<u8>,
}

impl Udp {
    /// Creates the session socket for clients at `address`, to which an inherited socket is bound
    /// and any other socket is bound afterwards.
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
        // The default is no segmentation; kernels before 4.18 do not know the option.
        let can_segment = setsockopt(&socket, sockopt::UdpGsoSegment, &0).is_ok();
        Ok(Self {
            socket: UdpSocket::from_std(socket.into()),
            is_everywhere,
            is_inherited,
            can_segment,
            // The creator of an inherited socket may have enabled timestamps.
            control: nix::cmsg_space!(libc::in6_pktinfo, [libc::timespec; 3]),
        })
    }

    /// Creates a socket that sends to `peer` and receives from `peer` only.
    pub(super) fn to_upstream(socket: Socket, peer: SocketAddr) -> io::Result<Self> {
        // The kernel picks a random port (RFC 6056).
        socket.connect(&peer.into())?;
        Ok(Self {
            socket: UdpSocket::from_std(socket.into()),
            is_everywhere: false,
            is_inherited: false,
            can_segment: false,
            control: Vec::new(),
        })
    }

    /// Returns the event source for the poller.
    pub(super) fn source(&mut self) -> &mut UdpSocket {
        &mut self.socket
    }
}

impl Datagram for Udp {
    fn leave(&mut self) -> bool {
        if self.is_inherited {
            return false;
        }
        // A connected socket receives only datagrams of its peer, and other sockets on the port
        // receive the rest. No datagram comes from the discard port.
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
        // A multicast address is no valid source: the kernel picks an address.
        let local = local.filter(|local: &Address| !local.ip.is_multicast());
        Ok((received.bytes, peer, local))
    }

    fn send(&mut self, datagrams: &[Outgoing<'_>]) -> io::Result<usize> {
        let alike = self.alike(datagrams);
        if alike > 1 {
            match self.send_segments(&datagrams[..alike]) {
                Ok(()) => return Ok(alike),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Err(error),
                Err(error) => {
                    log::debug!(
                        "UDP segmentation offload disabled, datagrams are sent one by one: \
                         {error}"
                    );
                    self.can_segment = false;
                }
            }
        }
        let apart = |&at: &usize| datagrams[at].local.is_none() && self.alike(&datagrams[at..]) < 2;
        let len = datagrams.len().min(BATCH_LEN);
        match (0..len).take_while(apart).count() {
            0 | 1 => self.send_one(&datagrams[0]).map(|()| 1),
            batch => self.send_batch(&datagrams[..batch]),
        }
    }
}

impl Udp {
    /// Returns how many of the first datagrams can be sent as one segmented datagram: they go to
    /// one client on this host and have equal lengths; the last one may be shorter.
    ///
    /// On this host the kernel splits the datagram on delivery. For other hosts network devices may
    /// split it, and some devices corrupt the segments.
    fn alike(&self, datagrams: &[Outgoing<'_>]) -> usize {
        let first = &datagrams[0];
        if !self.can_segment || !first.peer.ip().is_loopback() {
            return 1;
        }
        let len = first.bytes.len();
        let most = SEGMENTS_MAX.min(SEGMENTED_LEN_MAX / len.max(1));
        let mut same_way = datagrams
            .iter()
            .take(most)
            .take_while(|next| next.peer == first.peer && next.local == first.local)
            .map(|next| next.bytes.len())
            .peekable();
        let mut alike = 0;
        while same_way.next_if_eq(&len).is_some() {
            alike += 1;
        }
        alike + usize::from(same_way.next().is_some_and(|next| (1..len).contains(&next)))
    }

    /// Sends datagrams that [`Udp::alike`] has found as one.
    fn send_segments(&self, datagrams: &[Outgoing<'_>]) -> io::Result<()> {
        let mut parts = [IoSlice::new(&[]); SEGMENTS_MAX];
        for (part, datagram) in parts.iter_mut().zip(datagrams) {
            *part = IoSlice::new(datagram.bytes);
        }
        let mut control = Control::new();
        control.push_segment_len(datagrams[0].bytes.len());
        self.send_message(&parts[..datagrams.len()], &datagrams[0], control)
    }

    fn send_one(&self, datagram: &Outgoing<'_>) -> io::Result<()> {
        if datagram.local.is_none() {
            let sent = self.socket.send_to(datagram.bytes, *datagram.peer);
            return sent.map(|_| ());
        }
        let parts = [IoSlice::new(datagram.bytes)];
        self.send_message(&parts, datagram, Control::new())
    }

    fn send_message(
        &self,
        parts: &[IoSlice<'_>],
        to: &Outgoing<'_>,
        mut control: Control,
    ) -> io::Result<()> {
        if let Some(local) = to.local {
            control.push_packet_info(local);
        }
        let peer = SockAddr::from(*to.peer);
        let message = MsgHdr::new()
            .with_addr(&peer)
            .with_buffers(parts)
            .with_control(control.bytes());
        SockRef::from(&self.socket).sendmsg(&message, 0).map(|_| ())
    }

    /// Sends datagrams with one call; each may have its own source address.
    fn send_batch(&self, datagrams: &[Outgoing<'_>]) -> io::Result<usize> {
        let batch: [_; BATCH_LEN] = std::array::from_fn(|at| {
            let Outgoing { bytes, peer, .. } = datagrams[at.min(datagrams.len() - 1)];
            ([IoSlice::new(bytes)], peer.as_any())
        });
        let mut controls = [(); BATCH_LEN].map(|()| SendAncillaryBuffer::default());
        let mut control = controls.iter_mut();
        let mut messages = batch.each_ref().map(|(parts, peer)| {
            let control = control
                .next()
                .expect("there is a control buffer for each datagram");
            MMsgHdr::new_with_addr(peer, parts, control)
        });
        Ok(sendmmsg(
            &self.socket,
            &mut messages[..datagrams.len()],
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

/// Control messages of a datagram: a struct cmsghdr before each, each padded to whole words. They
/// are written by hand, because the safe interfaces allocate for every datagram.
struct Control {
    bytes: [u8; Self::LEN_MAX],
    len: usize,
}

impl Control {
    const WORD: usize = size_of::<usize>();
    const HEAD_LEN: usize = Self::WORD + 8;
    /// Maximum length in bytes of one message of each kind, on any host.
    const LEN_MAX: usize = 40 + 24;

    fn new() -> Self {
        Self {
            bytes: [0; Self::LEN_MAX],
            len: 0,
        }
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// Adds the source address: struct `in_pktinfo` (ip(7)) or struct `in6_pktinfo` (RFC 3542,
    /// section 6.2).
    fn push_packet_info(&mut self, local: &Address) {
        match local.ip {
            IpAddr::V4(address) => {
                // No interface: the routing table decides.
                let mut info = [0; 12];
                info[4..8].copy_from_slice(&address.octets());
                self.push(libc::IPPROTO_IP, libc::IP_PKTINFO, &info);
            }
            IpAddr::V6(address) => {
                let mut info = [0; 20];
                info[..16].copy_from_slice(&address.octets());
                info[16..].copy_from_slice(&local.zone.to_ne_bytes());
                self.push(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info);
            }
        }
    }

    /// Adds the segment length for segmentation (udp(7)).
    fn push_segment_len(&mut self, len: usize) {
        let len = u16::try_from(len).expect("a response has at most 65,535 bytes");
        self.push(libc::SOL_UDP, libc::UDP_SEGMENT, &len.to_ne_bytes());
    }

    fn push(&mut self, level: i32, kind: i32, data: &[u8]) {
        let message = &mut self.bytes[self.len..];
        message[..Self::WORD].copy_from_slice(&(Self::HEAD_LEN + data.len()).to_ne_bytes());
        message[Self::WORD..][..4].copy_from_slice(&level.to_ne_bytes());
        message[Self::WORD + 4..][..4].copy_from_slice(&kind.to_ne_bytes());
        message[Self::HEAD_LEN..][..data.len()].copy_from_slice(data);
        self.len += Self::HEAD_LEN + data.len().next_multiple_of(Self::WORD);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::mio::open;
    use socket2::{Protocol, Type};
    use std::net::UdpSocket;

    fn server(address: SocketAddr) -> Udp {
        let socket = open(address, Type::DGRAM, Protocol::UDP).unwrap();
        Udp::for_clients(socket, address, false).unwrap()
    }

    /// Creates a client that receives only from address `from` and the port of `server`.
    fn client(server: &Udp, from: IpAddr) -> UdpSocket {
        let client = UdpSocket::bind((from, 0)).unwrap();
        let port = server.socket.local_addr().unwrap().port();
        client.connect((from, port)).unwrap();
        client
            .set_read_timeout(Some(std::time::Duration::from_secs(5)))
            .unwrap();
        client
    }

    fn receive(client: &UdpSocket, count: usize) -> Vec<Vec<u8>> {
        let mut buffer = [0; 2048];
        let mut receive = |_| {
            let len = client.recv(&mut buffer).unwrap();
            buffer[..len].to_vec()
        };
        (0..count).map(&mut receive).collect()
    }

    /// Sends all datagrams. Returns the number sent with each call.
    fn send_all(server: &mut Udp, datagrams: &[Outgoing<'_>]) -> Vec<usize> {
        let mut done = 0;
        let mut counts = Vec::new();
        while done < datagrams.len() {
            counts.push(server.send(&datagrams[done..]).unwrap());
            done += counts.last().unwrap();
        }
        counts
    }

    #[test]
    fn datagrams_of_equal_length_are_sent_as_segments() {
        let messages: Vec<Vec<u8>> = (0..=255).map(|number| vec![number; 1232]).collect();
        for (listens, asked) in [
            ("127.0.0.1:0", "127.0.0.1"),
            ("0.0.0.0:0", "127.0.0.2"),
            ("[::1]:0", "::1"),
            ("[::]:0", "::1"),
        ] {
            let asked: IpAddr = asked.parse().unwrap();
            let mut server = server(listens.parse().unwrap());
            let local = server.is_everywhere.then(|| Address::from(asked));
            let [one, two] = [(); 2].map(|()| client(&server, asked));
            let [one_peer, two_peer] = [&one, &two].map(|client| client.local_addr().unwrap());
            let to = |peer, number: usize, len| Outgoing {
                bytes: &messages[number][..len],
                peer,
                local: local.as_ref(),
            };
            let mut datagrams: Vec<_> = (0..40).map(|number| to(&one_peer, number, 100)).collect();
            datagrams.extend([to(&one_peer, 40, 60), to(&one_peer, 41, 61)]);
            datagrams.extend((42..107).map(|number| to(&two_peer, number, 30)));
            datagrams.extend((107..161).map(|number| to(&two_peer, number, 1232)));
            let sent = send_all(&mut server, &datagrams);
            assert_eq!(sent, [41, 1, 64, 1, 53, 1], "{listens}");
            let expect = |those: &[Outgoing<'_>]| -> Vec<Vec<u8>> {
                those.iter().map(|one| one.bytes.to_vec()).collect()
            };
            assert_eq!(receive(&one, 42), expect(&datagrams[..42]));
            assert_eq!(receive(&two, 119), expect(&datagrams[42..]));
        }
    }

    #[test]
    fn only_datagrams_to_this_host_are_segmented() {
        let server = server("127.0.0.1:0".parse().unwrap());
        for (peer, alike) in [
            ("127.9.9.9:5", 3),
            ("[::1]:5", 3),
            ("192.0.2.1:5", 1),
            ("[2001:db8::1]:5", 1),
        ] {
            let datagram = Outgoing {
                bytes: &[7; 12],
                peer: &peer.parse().unwrap(),
                local: None,
            };
            assert_eq!(server.alike(&[datagram; 3]), alike, "{peer}");
        }
    }

    #[test]
    fn datagrams_with_different_addresses_are_not_segmented() {
        let server = server("127.0.0.1:0".parse().unwrap());
        let [one, two] = [1, 2].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        let address = Address::from(IpAddr::from([127, 0, 0, 1]));
        let datagram = |peer, local| Outgoing {
            bytes: &[7; 12],
            peer,
            local,
        };
        let first = datagram(&one, None);
        assert_eq!(server.alike(&[first, first]), 2);
        assert_eq!(server.alike(&[first, datagram(&two, None)]), 1);
        assert_eq!(server.alike(&[first, datagram(&one, Some(&address))]), 1);
    }
}
