//! Packet information: the local address that a packet was sent to, and that the response has to leave from.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use nix::cmsg_space;
use nix::libc::{in_addr, in_pktinfo, in6_addr, in6_pktinfo};
use nix::sys::socket::sockopt::{Ipv4PacketInfo, Ipv6RecvPacketInfo};
use nix::sys::socket::{ControlMessageOwned, MultiHeaders, RecvMsg, SockaddrStorage, setsockopt};

/// A received packet with its source address and its control messages.
pub(super) type Message<'a, 's> = RecvMsg<'a, 's, SockaddrStorage>;

/// The source address of a socket's responses. A response from another address than the client sent its request to would
/// not reach the client, or its NAT would drop it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ResponseSource {
    /// The address that the socket is bound to.
    Bound,
    /// The destination of the request, at a socket that is bound to all IPv4 addresses.
    RequestDestinationV4,
    /// The destination of the request, at a socket that is bound to all IPv6 addresses. For IPv4 packets, it is an
    /// IPv4-mapped address.
    RequestDestinationV6,
}

impl ResponseSource {
    pub(super) fn of(bound: IpAddr) -> Self {
        match bound {
            _ if !bound.is_unspecified() => Self::Bound,
            IpAddr::V4(_) => Self::RequestDestinationV4,
            IpAddr::V6(_) => Self::RequestDestinationV6,
        }
    }

    /// Makes the kernel report the destination of each packet, if that is needed.
    pub(super) fn set_up(self, socket: &UdpSocket) -> nix::Result<()> {
        match self {
            Self::Bound => Ok(()),
            Self::RequestDestinationV4 => setsockopt(socket, Ipv4PacketInfo, &true),
            Self::RequestDestinationV6 => setsockopt(socket, Ipv6RecvPacketInfo, &true),
        }
    }

    /// Returns headers to receive up to `packets` packets per system call. They have room for the kernel's drop counter
    /// and the packet information.
    pub(super) fn receive_headers(self, packets: usize) -> MultiHeaders<SockaddrStorage> {
        let control = match self {
            Self::Bound => cmsg_space!(u32),
            Self::RequestDestinationV4 => cmsg_space!(u32, in_pktinfo),
            Self::RequestDestinationV6 => cmsg_space!(u32, in6_pktinfo),
        };
        MultiHeaders::preallocate(packets, Some(control))
    }
}

/// Headers to send with, a set for each kind of source address. An IPv4 address is sent as IPv4 packet information even
/// from an IPv6 socket, because it fits into memory that the kernel already has. For more, the kernel allocates memory
/// for each packet.
pub(super) struct SendHeaders {
    pub(super) without_source: MultiHeaders<SockaddrStorage>,
    pub(super) from_v4: MultiHeaders<SockaddrStorage>,
    pub(super) from_v6: MultiHeaders<SockaddrStorage>,
}

impl SendHeaders {
    /// Allocates headers to send up to `packets` packets per system call.
    pub(super) fn new(packets: usize) -> Self {
        Self {
            without_source: MultiHeaders::preallocate(packets, None),
            from_v4: MultiHeaders::preallocate(packets, Some(cmsg_space!(in_pktinfo))),
            from_v6: MultiHeaders::preallocate(packets, Some(cmsg_space!(in6_pktinfo))),
        }
    }
}

/// The control messages of a received packet.
pub(super) struct PacketInfo {
    /// The destination of the packet, if the socket's [`ResponseSource`] requires it.
    pub(super) local: Option<LocalAddress>,
    /// The kernel's count of packets that it dropped at the socket. `None` before the first drop.
    pub(super) kernel_drops: Option<u32>,
}

impl PacketInfo {
    /// Reads the control messages of a packet.
    ///
    /// # Errors
    /// If they did not fit into the receive headers.
    pub(super) fn of(message: &Message<'_, '_>) -> nix::Result<Self> {
        let mut info = Self {
            local: None,
            kernel_drops: None,
        };
        for control in message.cmsgs()? {
            match control {
                ControlMessageOwned::Ipv4PacketInfo(v4) => {
                    info.local = Some(LocalAddress::of_v4(&v4));
                }
                ControlMessageOwned::Ipv6PacketInfo(v6) => {
                    info.local = Some(LocalAddress::of_v6(&v6));
                }
                ControlMessageOwned::RxqOvfl(drops) => info.kernel_drops = Some(drops),
                _ => {}
            }
        }
        Ok(info)
    }
}

/// An address of this host.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum LocalAddress {
    V4(Ipv4Addr),
    /// An address and the index of its interface. The index is 0, and the routing table selects the interface, unless the
    /// address is link-local: such an address is valid only together with an interface.
    V6(Ipv6Addr, u32),
}

impl LocalAddress {
    fn of_v4(info: &in_pktinfo) -> Self {
        Self::V4(Ipv4Addr::from(info.ipi_addr.s_addr.to_ne_bytes()))
    }

    fn of_v6(info: &in6_pktinfo) -> Self {
        let address = Ipv6Addr::from(info.ipi6_addr.s6_addr);
        match address.to_ipv4_mapped() {
            Some(v4) => Self::V4(v4),
            None if address.is_unicast_link_local() => Self::V6(address, info.ipi6_ifindex),
            None => Self::V6(address, 0),
        }
    }
}

/// Returns packet information that makes a packet leave from an IPv4 address.
pub(super) fn info_v4(address: Ipv4Addr) -> in_pktinfo {
    in_pktinfo {
        ipi_ifindex: 0,
        ipi_spec_dst: in_addr {
            s_addr: u32::from_ne_bytes(address.octets()),
        },
        ipi_addr: in_addr { s_addr: 0 },
    }
}

/// Returns packet information that makes a packet leave from an IPv6 address, through an interface unless that is 0.
pub(super) fn info_v6(address: Ipv6Addr, interface: u32) -> in6_pktinfo {
    in6_pktinfo {
        ipi6_addr: in6_addr {
            s6_addr: address.octets(),
        },
        ipi6_ifindex: interface,
    }
}

/// Returns the address with its form in the standard library. Returns `None` if it is not an IP address.
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
