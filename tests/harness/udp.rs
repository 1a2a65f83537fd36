//! BEP 15 by hand: the packets of clients, over sockets that take answers from the tracker alone.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use super::PATIENCE;

pub(crate) const MAGIC: u64 = 0x0417_2710_1980;
pub(crate) const TORRENT: [u8; 20] = *b"a torrent's 20 bytes";

/// A socket that takes packets from nowhere but where it sends its own.
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
        let mut answer = [0; 4096];
        let len = self.0.recv(&mut answer).expect("an answer in time");
        answer[..len].to_vec()
    }

    pub(crate) fn ask(&self, packet: &[u8]) -> Vec<u8> {
        self.send(packet);
        self.receive()
    }

    pub(crate) fn id(&self) -> u64 {
        let answer = self.ask(&connect(1));
        assert_eq!(
            (&answer[..8], answer.len()),
            (&[0, 0, 0, 0, 0, 0, 0, 1][..], 16)
        );
        u64::from_be_bytes(field(&answer, 8))
    }

    /// What packets are answered with: none of those answers can come later than the answer to a question that is asked
    /// when a later one's answer is there already.
    pub(crate) fn answers(&self, packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
        packets.iter().for_each(|packet| self.send(packet));
        let mut answers = Vec::new();
        for mark in [0xfeed_0001, 0xfeed_0002] {
            self.send(&connect(mark));
            loop {
                let answer = self.receive();
                if answer.len() == 16 && answer[4..8] == mark.to_be_bytes() {
                    break;
                }
                answers.push(answer);
            }
        }
        answers
    }
}

/// Peers in compact form, whose addresses have `N` bytes.
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

pub(crate) fn field<const N: usize>(packet: &[u8], at: usize) -> [u8; N] {
    packet[at..at + N].try_into().unwrap()
}

pub(crate) fn with<const N: usize>(mut packet: Vec<u8>, at: usize, bytes: [u8; N]) -> Vec<u8> {
    packet[at..at + N].copy_from_slice(&bytes);
    packet
}

pub(crate) fn connect(transaction: u32) -> Vec<u8> {
    [
        &MAGIC.to_be_bytes()[..],
        &[0; 4],
        &transaction.to_be_bytes(),
    ]
    .concat()
}

/// A seeder's.
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

pub(crate) fn leecher(id: u64) -> Vec<u8> {
    with(announce(id), 64, 1u64.to_be_bytes())
}

pub(crate) fn scrape(id: u64, hashes: &[[u8; 20]]) -> Vec<u8> {
    let head = [&id.to_be_bytes()[..], &2u32.to_be_bytes(), b"tran"].concat();
    [head, hashes.concat()].concat()
}

pub(crate) fn error(reason: &str) -> Vec<u8> {
    [b"\x00\x00\x00\x03tran", reason.as_bytes()].concat()
}
