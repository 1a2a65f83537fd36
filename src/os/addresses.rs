//! The addresses of this host under which a listening socket is reachable.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use nix::ifaddrs::getifaddrs;

/// Returns the addresses under which clients reach a socket that is bound to `bound`. For a wildcard, these are all
/// addresses of this host that are not link-local; for the IPv6 wildcard, they include the IPv4 addresses. The list is
/// empty if the system does not return addresses, for example in a network namespace of its own.
pub fn reachable(bound: SocketAddr) -> Vec<SocketAddr> {
    if !bound.ip().is_unspecified() {
        return vec![bound];
    }
    let fits = |ip: &IpAddr| match ip {
        IpAddr::V4(v4) => !v4.is_link_local(),
        IpAddr::V6(v6) => bound.is_ipv6() && !is_link_local(v6),
    };
    let mut found: Vec<_> = getifaddrs()
        .into_iter()
        .flatten()
        .filter_map(|interface| {
            let address = interface.address?;
            let v4 = address.as_sockaddr_in().map(|v4| IpAddr::from(v4.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|v6| v6.ip().into()))
        })
        .filter(fits)
        .map(|ip| SocketAddr::new(ip, bound.port()))
        .collect();
    found.sort_by_key(|address| !address.ip().is_loopback());
    found
}

fn is_link_local(address: &Ipv6Addr) -> bool {
    address.segments()[0] & 0xffc0 == 0xfe80
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bound_address_is_reachable_as_itself() {
        let bound = "192.0.2.1:6969".parse().unwrap();
        assert_eq!(reachable(bound), [bound]);
    }

    #[test]
    fn wildcard_is_reachable_at_all_addresses_of_the_host() {
        let loopback = "127.0.0.1:6969".parse().unwrap();
        assert!(reachable("[::]:6969".parse().unwrap()).contains(&loopback));
        let v4 = reachable("0.0.0.0:6969".parse().unwrap());
        assert!(
            v4.contains(&loopback) && v4.iter().all(SocketAddr::is_ipv4),
            "{v4:?}"
        );
    }
}
