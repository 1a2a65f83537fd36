//! Finds the client's address in the headers that proxies add: `Forwarded` and `X-Forwarded-For`.
//!
//! Any client can send such a header, so only the part that trusted proxies wrote counts. Each proxy appends, on the right,
//! the address that it received the request from. The search starts at the socket's own address and moves left as long
//! as the current address is a trusted proxy. So addresses that an untrusted sender wrote, further left, never count.
//! Only the configured header may be read, because proxies pass the other header on as the client sent it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::tracker::access::Networks;

/// The operator's settings for proxies.
#[derive(Clone, Debug)]
pub struct Settings {
    pub trusted: Networks,
    pub header: ForwardingHeader,
}

/// The header that the trusted proxies write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ForwardingHeader {
    /// `X-Forwarded-For`: addresses separated by commas, also in brackets or with ports.
    XForwardedFor,
    /// `Forwarded` (RFC 7239): the `for` parameter of each element.
    Forwarded,
}

impl ForwardingHeader {
    /// Returns the name of the header in lower case.
    pub fn name(self) -> &'static str {
        match self {
            Self::XForwardedFor => "x-forwarded-for",
            Self::Forwarded => "forwarded",
        }
    }
}

/// Returns the address of the client that a request is from.
///
/// `sender` is the peer address of the socket, or `None` for a proxy on this host that connects over a Unix socket. `lines`
/// are the values of the header, in the order in which they were received.
///
/// Returns `None` if a trusted proxy does not name its client by an address: `unknown`, `_hidden`, or a malformed
/// value. Then no address can be given to peers, and the proxy's own address would be wrong. If a trusted sender sends
/// no such header, its own address is returned.
pub fn client_address<'h>(
    header: ForwardingHeader,
    trusted: &Networks,
    sender: Option<IpAddr>,
    lines: impl DoubleEndedIterator<Item = &'h [u8]>,
) -> Option<IpAddr> {
    let mut search = ClientSearch {
        trusted,
        is_local: sender.is_none(),
        client: sender.map(|sender| sender.to_canonical()),
    };
    for line in lines.rev() {
        if !search.must_continue() {
            break;
        }
        match header {
            ForwardingHeader::XForwardedFor => search.search_x_forwarded_for(line),
            ForwardingHeader::Forwarded => search.search_forwarded(line),
        }
    }
    search.client
}

/// The search for the client: the current address is the sender's, or was written by a trusted proxy.
struct ClientSearch<'t> {
    trusted: &'t Networks,
    /// Whether the search is still at the proxy on this host, which has no address.
    is_local: bool,
    client: Option<IpAddr>,
}

impl ClientSearch<'_> {
    /// Returns whether the current address is a trusted proxy, so that the search moves on.
    fn must_continue(&self) -> bool {
        self.is_local
            || self
                .client
                .is_some_and(|client| self.trusted.contains(client))
    }

    fn move_to(&mut self, hop: Option<IpAddr>) {
        self.is_local = false;
        self.client = hop;
    }

    /// Searches an `X-Forwarded-For` line from the right.
    fn search_x_forwarded_for(&mut self, line: &[u8]) {
        for hop in line.rsplit(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            if !self.must_continue() {
                return;
            }
            if !hop.is_empty() {
                self.move_to(parse_node(hop));
            }
        }
    }

    /// Searches a `Forwarded` line. The line is parsed from the left, because otherwise commas in quotes cannot be
    /// recognized. So the search keeps the last address that is not a trusted proxy, or the first address if all are. A
    /// malformed line names no client, because the position of its parts is uncertain.
    fn search_forwarded(&mut self, line: &[u8]) {
        let mut parser = ForwardedParser(line);
        let mut is_first = true;
        loop {
            match parser.next_element() {
                Ok(Some(element)) => {
                    let hop = element.node.and_then(parse_node);
                    if is_first || !hop.is_some_and(|hop| self.trusted.contains(hop)) {
                        self.move_to(hop);
                    }
                    is_first = false;
                }
                Ok(None) => return,
                Err(InvalidForwarded) => {
                    return self.move_to(None);
                }
            }
        }
    }
}

/// A parser of a `Forwarded` line, with the bytes that are not parsed yet.
struct ForwardedParser<'h>(&'h [u8]);

/// An element of a `Forwarded` line.
struct ForwardedElement<'h> {
    /// The value of `for`, without quotes.
    node: Option<&'h [u8]>,
}

/// The line does not follow the grammar of RFC 7239.
struct InvalidForwarded;

impl<'h> ForwardedParser<'h> {
    /// Parses the next element. Returns `None` at the end of the line.
    fn next_element(&mut self) -> Result<Option<ForwardedElement<'h>>, InvalidForwarded> {
        self.skip(|byte| byte == b',' || is_space(byte));
        if self.0.is_empty() {
            return Ok(None);
        }
        let mut element = ForwardedElement { node: None };
        loop {
            self.skip(|byte| byte == b';' || is_space(byte));
            if matches!(self.0.first(), None | Some(b',')) {
                return Ok(Some(element));
            }
            let name = self.take_while(|byte| {
                byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
            });
            if name.is_empty() || self.take_one() != Some(b'=') {
                return Err(InvalidForwarded);
            }
            let value = self.value()?;
            if name.eq_ignore_ascii_case(b"for") && element.node.replace(value).is_some() {
                return Err(InvalidForwarded);
            }
            self.skip(is_space);
            if !matches!(self.0.first(), None | Some(b',' | b';')) {
                return Err(InvalidForwarded);
            }
        }
    }

    /// Parses a value: a quoted string, or a run of characters without a separator. The grammar is stricter about the
    /// latter, but addresses with ports often lack their quotes.
    fn value(&mut self) -> Result<&'h [u8], InvalidForwarded> {
        if self.0.first() != Some(&b'"') {
            let value = self.take_while(|byte| byte.is_ascii_graphic() && !b",;\"".contains(&byte));
            return if value.is_empty() {
                Err(InvalidForwarded)
            } else {
                Ok(value)
            };
        }
        let quoted = &self.0[1..];
        let mut at = 0;
        while let Some(byte) = quoted.get(at) {
            match byte {
                b'"' => {
                    self.0 = &quoted[at + 1..];
                    return Ok(&quoted[..at]);
                }
                // An address contains no escape. So the escape is kept, and the value is not an address.
                b'\\' => at += 2,
                _ => at += 1,
            }
        }
        Err(InvalidForwarded)
    }

    fn take_while(&mut self, belongs: impl Fn(u8) -> bool) -> &'h [u8] {
        let count = self.0.iter().take_while(|byte| belongs(**byte)).count();
        let (taken, rest) = self.0.split_at(count);
        self.0 = rest;
        taken
    }

    fn skip(&mut self, belongs: impl Fn(u8) -> bool) {
        self.take_while(belongs);
    }

    fn take_one(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// Parses an address, which may have brackets or a port. Returns `None` for `unknown` and for obfuscated names.
fn parse_node(node: &[u8]) -> Option<IpAddr> {
    let node = std::str::from_utf8(node).ok()?;
    let bare = match node.strip_prefix('[') {
        Some(bracketed) => {
            let (address, port) = bracketed.split_once(']')?;
            let is_valid = port.is_empty() || port.strip_prefix(':').is_some_and(is_node_port);
            let address: Option<Ipv6Addr> = address.parse().ok();
            address.filter(|_| is_valid).map(IpAddr::V6)
        }
        None => node.parse().ok(),
    };
    let with_port = || {
        let (address, port) = node.split_once(':')?;
        let address: Option<Ipv4Addr> = address.parse().ok();
        address.filter(|_| is_node_port(port)).map(IpAddr::V4)
    };
    Some(bare.or_else(with_port)?.to_canonical())
}

/// Returns whether the text is a port number or an obfuscated port (RFC 7239, section 6.3).
fn is_node_port(port: &str) -> bool {
    let hidden = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    !port.is_empty() && port.bytes().all(hidden)
}

#[cfg(test)]
mod tests;
