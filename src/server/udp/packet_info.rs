//! Packet information: the address that a packet came to, and the address that a response leaves from.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use nix::cmsg_space;
use nix::libc::{in_addr, in_pktinfo, in6_addr, in6_pktinfo};
use nix::sys::socket::sockopt::{Ipv4PacketInfo, Ipv6RecvPacketInfo};
use nix::sys::socket::{MultiHeaders, SockaddrStorage, setsockopt};

/// Which address answers leave from: with one that the client did not ask, he and his NAT would not know them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum RepliesFrom {
    /// The one that the socket is bound to.
    Bound,
    /// The one that each request came to. An IPv6 wildcard tells it for IPv4 too, as mapped.
    AskedV4,
    AskedV6,
}

impl RepliesFrom {
    pub(super) fn of(bound: IpAddr) -> Self {
        match bound {
            _ if !bound.is_unspecified() => Self::Bound,
            IpAddr::V4(_) => Self::AskedV4,
            IpAddr::V6(_) => Self::AskedV6,
        }
    }

    pub(super) fn set_up(self, socket: &UdpSocket) -> nix::Result<()> {
        match self {
            Self::Bound => Ok(()),
            Self::AskedV4 => setsockopt(socket, Ipv4PacketInfo, &true),
            Self::AskedV6 => setsockopt(socket, Ipv6RecvPacketInfo, &true),
        }
    }

    pub(super) fn receive_headers(self, packets: usize) -> MultiHeaders<SockaddrStorage> {
        let control = match self {
            Self::Bound => cmsg_space!(u32),
            Self::AskedV4 => cmsg_space!(u32, in_pktinfo),
            Self::AskedV6 => cmsg_space!(u32, in6_pktinfo),
        };
        MultiHeaders::preallocate(packets, Some(control))
    }
}

/// Headers to send with, by what they tell the kernel. An IPv4 address as such, even from an IPv6 socket, fits into what the
/// kernel has at hand; for more it allocates memory for each packet.
pub(super) struct Sent {
    pub(super) plain: MultiHeaders<SockaddrStorage>,
    pub(super) from_v4: MultiHeaders<SockaddrStorage>,
    pub(super) from_v6: MultiHeaders<SockaddrStorage>,
}

impl Sent {
    pub(super) fn new(packets: usize) -> Self {
        Self {
            plain: MultiHeaders::preallocate(packets, None),
            from_v4: MultiHeaders::preallocate(packets, Some(cmsg_space!(in_pktinfo))),
            from_v6: MultiHeaders::preallocate(packets, Some(cmsg_space!(in6_pktinfo))),
        }
    }
}

/// An address of this machine, as packet information has it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Local {
    V4(Ipv4Addr),
    /// With the interface: 0 leaves it to the routes; link-local addresses mean nothing without it.
    V6(Ipv6Addr, u32),
}

impl Local {
    pub(super) fn of_v4(info: &in_pktinfo) -> Self {
        Self::V4(Ipv4Addr::from(info.ipi_addr.s_addr.to_ne_bytes()))
    }

    pub(super) fn of_v6(info: &in6_pktinfo) -> Self {
        let address = Ipv6Addr::from(info.ipi6_addr.s6_addr);
        match address.to_ipv4_mapped() {
            Some(v4) => Self::V4(v4),
            None if address.is_unicast_link_local() => Self::V6(address, info.ipi6_ifindex),
            None => Self::V6(address, 0),
        }
    }
}

pub(super) fn info_v4(address: Ipv4Addr) -> in_pktinfo {
    in_pktinfo {
        ipi_ifindex: 0,
        ipi_spec_dst: in_addr {
            s_addr: u32::from_ne_bytes(address.octets()),
        },
        ipi_addr: in_addr { s_addr: 0 },
    }
}

pub(super) fn info_v6(address: Ipv6Addr, interface: u32) -> in6_pktinfo {
    in6_pktinfo {
        ipi6_addr: in6_addr {
            s6_addr: address.octets(),
        },
        ipi6_ifindex: interface,
    }
}

pub(super) fn with_socket_addr(address: SockaddrStorage) -> Option<(SockaddrStorage, SocketAddr)> {
    let v4 = address
        .as_sockaddr_in()
        .map(|v4| SocketAddr::V4((*v4).into()));
    let v6 = || {
        address
            .as_sockaddr_in6()
            .map(|v6| SocketAddr::V6((*v6).into()))
    };
    Some((address, v4.or_else(v6)?))
}
