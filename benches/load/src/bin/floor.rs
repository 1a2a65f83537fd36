//! Servers that do no work. Their cost is the minimum for any tracker on this kernel.
//!
//! A server has a single thread, and responds to every request with the same body. The body has the size of a real
//! response with 50 peers, or of a real response to a scrape of 5 torrents.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::process::ExitCode;
use tbtt_load::system::{BATCH, BatchSocket, Datagram, Epoll, defer_accept};

const USAGE: &str = "usage: floor http-close|http-keepalive|http-scrape|udp|udp-peers PORT";

/// Number of peers from which `udp-peers` chooses, all in an array. tbtt has as many peers in the benchmark.
const PEERS: usize = 1_000_000;

/// Size of a peer in bytes, as in tbtt.
const RECORD_SIZE: usize = 11;

/// Number of adjacent peers that `udp-peers` copies from each random place.
const RUN_LENGTH: usize = 8;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [case, port] = arguments.as_slice() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let Ok(port) = port.parse() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let address = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port);
    let result = match case.as_str() {
        "http-close" => serve_close(address, &http_response(&announce_body())),
        "http-keepalive" => serve_keep_alive(address, &http_response(&announce_body())),
        "http-scrape" => serve_close(address, &http_response(&scrape_body())),
        "udp" => serve_udp(address, &[]),
        "udp-peers" => serve_udp(address, &vec![[b'p'; RECORD_SIZE]; PEERS]),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    if let Err(error) = result {
        eprintln!("floor {case}: {error}");
    }
    ExitCode::FAILURE
}

fn announce_body() -> Vec<u8> {
    let mut body =
        b"d8:completei4321e10:incompletei1234e8:intervali1800e12:min intervali900e5:peers300:"
            .to_vec();
    body.extend_from_slice(&[b'p'; 300]);
    body.push(b'e');
    body
}

fn scrape_body() -> Vec<u8> {
    let mut body = b"d5:filesd".to_vec();
    for file in b'a'..b'f' {
        body.extend_from_slice(b"20:");
        body.extend_from_slice(&[file; 20]);
        body.extend_from_slice(b"d8:completei4321e10:downloadedi54321e10:incompletei1234ee");
    }
    body.extend_from_slice(b"ee");
    body
}

fn http_response(body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let mut response =
        format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\r\n")
            .into_bytes();
    response.extend_from_slice(body);
    response
}

/// Serves one request for each connection, with the system calls accept4, recv, send and close.
///
/// The kernel defers the accept until the request has arrived, so recv never waits.
fn serve_close(address: SocketAddrV4, response: &[u8]) -> io::Result<()> {
    let listener = TcpListener::bind(address)?;
    defer_accept(&listener)?;
    let mut request = [0; 4096];
    loop {
        let (mut stream, _) = listener.accept()?;
        // Ignore errors: a client may close its connection early.
        if matches!(stream.read(&mut request), Ok(1..)) {
            let _ = stream.write(response);
        }
    }
}

/// Serves many requests for each connection: epoll_wait for many connections, then recv and send for each.
fn serve_keep_alive(address: SocketAddrV4, response: &[u8]) -> io::Result<()> {
    let listener = TcpListener::bind(address)?;
    let listener_token = listener.as_raw_fd() as u64;
    let mut epoll = Epoll::new()?;
    epoll.add(&listener, listener_token)?;
    let mut streams: HashMap<u64, TcpStream> = HashMap::new();
    let mut request = [0; 4096];
    loop {
        for index in 0..epoll.wait(None)? {
            let token = epoll.ready(index).token;
            if token == listener_token {
                let (stream, _) = listener.accept()?;
                epoll.add(&stream, stream.as_raw_fd() as u64)?;
                streams.insert(stream.as_raw_fd() as u64, stream);
            } else if let Some(stream) = streams.get_mut(&token) {
                let keep = match stream.read(&mut request) {
                    Ok(0) => false,
                    Ok(_) => stream.write(response).is_ok(),
                    Err(error) => error.kind() == ErrorKind::WouldBlock,
                };
                if !keep {
                    streams.remove(&token);
                }
            }
        }
    }
}

/// Serves UDP, with one recvmmsg and one sendmmsg for up to 64 packets.
///
/// Only the action and the transaction id of a packet are read. If `records` is not empty, announce responses contain
/// 50 of them from random places, so that the cost includes the memory accesses that no tracker can avoid.
fn serve_udp(address: SocketAddrV4, records: &[[u8; RECORD_SIZE]]) -> io::Result<()> {
    let mut random = 1u64;
    let mut socket = BatchSocket::bind(address)?;
    let mut packets = vec![Datagram::default(); BATCH];
    loop {
        let count = socket.receive(&mut packets, true)?;
        for packet in &mut packets[..count] {
            let (action, length) = match packet.bytes[11] {
                0 => (0, 16),
                1 => (1, 20 + 50 * 6),
                _ => (2, 8 + 5 * 12),
            };
            let transaction: [u8; 4] = [12, 13, 14, 15].map(|at| packet.bytes[at]);
            packet.bytes[..4].copy_from_slice(&[0, 0, 0, action]);
            packet.bytes[4..8].copy_from_slice(&transaction);
            packet.bytes[8..length].fill(b'p');
            packet.length = length;
            if action == 1 && !records.is_empty() {
                for run in packet.bytes[20..length].chunks_mut(RUN_LENGTH * 6) {
                    random = random
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1_442_695_040_888_963_407);
                    let first = (random >> 33) as usize % (records.len() - RUN_LENGTH);
                    for (slot, record) in run.chunks_exact_mut(6).zip(&records[first..]) {
                        slot.copy_from_slice(&record[..6]);
                    }
                }
            }
        }
        socket.send(&packets[..count])?;
    }
}
