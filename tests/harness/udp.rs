//! A UDP client for tests (BEP 15), and functions that build its packets.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use super::PATIENCE;

/// The protocol id in a connect request.
pub(crate) const MAGIC: u64 = 0x0417_2710_1980;
/// The info-hash of the torrent that [`announce`] announces.
pub(crate) const TORRENT: [u8; 20] = *b"a torrent's 20 bytes";

/// A UDP client, which receives packets only from the address to which it sends.
pub(crate) struct Client(UdpSocket);

impl Client {
    pub(crate) fn new(own: IpAddr, to: SocketAddr) -> Self {
        let socket = UdpSocket::bind((own, 0)).unwrap();
        socket.connect(to).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(socket)
    }

    pub(crate) fn send(&self, packet: &[u8]) {
        assert_eq!(self.0.send(packet).unwrap(), packet.len());
    }

    pub(crate) fn receive(&self) -> Vec<u8> {
        let mut response = [0; 4096];
        let len = self.0.recv(&mut response).expect("a response in time");
        response[..len].to_vec()
    }

    /// Sends a packet, and returns the next packet from the tracker.
    pub(crate) fn ask(&self, packet: &[u8]) -> Vec<u8> {
        self.send(packet);
        self.receive()
    }

    /// Sends a connect request, and returns the connection id of the response.
    pub(crate) fn id(&self) -> u64 {
        let response = self.ask(&connect(1));
        assert_eq!(
            (&response[..8], response.len()),
            (&[0, 0, 0, 0, 0, 0, 0, 1][..], 16)
        );
        u64::from_be_bytes(field(&response, 8))
    }

    /// Sends packets, and returns all responses to them.
    ///
    /// The tracker handles packets in batches, and may reorder the responses of a batch. Therefore two connect requests
    /// follow `packets`, the second after the response to the first. The second is in a later batch than `packets`, so
    /// its response is the last.
    pub(crate) fn answers(&self, packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
        packets.iter().for_each(|packet| self.send(packet));
        let mut responses = Vec::new();
        for transaction in [0xfeed_0001, 0xfeed_0002] {
            self.send(&connect(transaction));
            loop {
                let response = self.receive();
                if response.len() == 16 && response[4..8] == transaction.to_be_bytes() {
                    break;
                }
                responses.push(response);
            }
        }
        responses
    }
}

/// Parses peers in compact form. Their addresses have `N` bytes.
pub(crate) fn endpoints<const N: usize>(compact: &[u8]) -> Vec<SocketAddr>
where
    IpAddr: From<[u8; N]>,
{
    assert_eq!(compact.len() % (N + 2), 0);
    compact
        .chunks(N + 2)
        .map(|peer| {
            let address = IpAddr::from(field::<N>(peer, 0));
            SocketAddr::new(address, u16::from_be_bytes(field(peer, N)))
        })
        .collect()
}

/// Returns the `N` bytes of a packet at the offset `at`.
pub(crate) fn field<const N: usize>(packet: &[u8], at: usize) -> [u8; N] {
    packet[at..at + N].try_into().unwrap()
}

/// Returns the packet with its bytes at the offset `at` replaced by `bytes`.
pub(crate) fn with<const N: usize>(mut packet: Vec<u8>, at: usize, bytes: [u8; N]) -> Vec<u8> {
    packet[at..at + N].copy_from_slice(&bytes);
    packet
}

/// Returns a connect request.
pub(crate) fn connect(transaction: u32) -> Vec<u8> {
    [
        &MAGIC.to_be_bytes()[..],
        &[0; 4],
        &transaction.to_be_bytes(),
    ]
    .concat()
}

/// Returns a seeder's announce request for [`TORRENT`].
pub(crate) fn announce(id: u64) -> Vec<u8> {
    let mut packet = vec![0; 98];
    packet[..8].copy_from_slice(&id.to_be_bytes());
    packet[8..12].copy_from_slice(&1u32.to_be_bytes());
    packet[12..16].copy_from_slice(b"tran");
    packet[16..36].copy_from_slice(&TORRENT);
    packet[36..56].copy_from_slice(b"-XX0001-abcdefghijkl");
    packet[92..96].copy_from_slice(&(-1i32).to_be_bytes());
    packet[96..98].copy_from_slice(&6881u16.to_be_bytes());
    packet
}

/// Returns a leecher's announce request for [`TORRENT`]. It is [`announce`] with 1 byte left.
pub(crate) fn leecher(id: u64) -> Vec<u8> {
    with(announce(id), 64, 1u64.to_be_bytes())
}

/// Returns a scrape request.
pub(crate) fn scrape(id: u64, hashes: &[[u8; 20]]) -> Vec<u8> {
    let head = [&id.to_be_bytes()[..], &2u32.to_be_bytes(), b"tran"].concat();
    [head, hashes.concat()].concat()
}

/// Returns the error response to [`announce`] or [`scrape`].
pub(crate) fn error(reason: &str) -> Vec<u8> {
    [b"\x00\x00\x00\x03tran", reason.as_bytes()].concat()
}
