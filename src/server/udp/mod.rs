//! UDP server: receives and sends up to 64 packets per system call, and never waits until it can send.
//!
//! Each socket belongs to a single worker. Each worker of an address has its own socket, bound with SO_REUSEPORT. The
//! kernel distributes the clients over the sockets, so a packet wakes only the worker that serves it.
//!
//! Each worker has a thread that waits for its sockets with poll(2), which is registered at a socket only while it
//! waits. With a reactor's epoll, the kernel would call back for each packet that is sent, although no caller waits for
//! that event.

mod packet_info;

use std::cell::RefCell;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::UdpSocket;
use std::ops::{ControlFlow, Range};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::{Arc, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::socket::sockopt::RxqOvfl;
use nix::sys::socket::{
    ControlMessage, MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg, sendmmsg, setsockopt,
};

use crate::lock::{read, write};
use crate::protocol::udp::{MAX_PACKET_LEN, Responder, UdpOutcome, lookups_in};
use crate::server::Shared;
use crate::server::udp::packet_info::{
    LocalAddress, Message, PacketInfo, ResponseSource, SendHeaders, info_v4, info_v6,
    with_socket_addr,
};
use crate::tracker::prefetch::Lookup;
use crate::tracker::types::{Time, UnixTime};

/// Maximum number of packets per system call.
const BATCH_SIZE: usize = 64;

/// Number of packets whose data is prefetched together. The data has to stay in the nearest cache until the packets are
/// handled.
const PREFETCH_SIZE: usize = 16;

/// Length of a receive buffer. It is a byte more than the maximum packet length, so that longer packets are recognized.
const SLOT_LEN: usize = MAX_PACKET_LEN + 1;

/// Maximum number of batches per socket that are handled at shutdown: more than the usual receive buffer holds.
const MAX_SHUTDOWN_BATCHES: usize = 64;

/// Maximum time in milliseconds for which a thread waits for packets before it reports that it is alive.
const MAX_WAIT_MS: u16 = 1000;

/// Pause after the system failed to receive for lack of memory.
const RECEIVE_BACKOFF: Duration = Duration::from_millis(20);

/// State that all UDP workers share.
pub struct UdpServer {
    shared: Arc<Shared>,
    responder: RwLock<Arc<Responder>>,
}

impl UdpServer {
    pub fn new(shared: Arc<Shared>, responder: Responder) -> Self {
        Self {
            shared,
            responder: RwLock::new(Arc::new(responder)),
        }
    }

    /// Replaces the responder, from the next batch on.
    pub fn set_responder(&self, responder: Responder) {
        *write(&self.responder) = Arc::new(responder);
    }
}

/// Serves on the calling thread until the other end of `stop` is closed. Then handles the packets that were received
/// already. Calls `alive` at least once a second, unless a batch takes longer.
pub fn serve(
    server: &Arc<UdpServer>,
    sockets: Vec<UdpSocket>,
    stop: &OwnedFd,
    alive: impl Fn(),
) -> io::Result<()> {
    let listeners = sockets
        .into_iter()
        .map(|socket| UdpListener::new(server.clone(), socket))
        .collect::<io::Result<Vec<_>>>()?;
    let fds = listeners
        .iter()
        .map(|listener| listener.socket.as_fd())
        .chain([stop.as_fd()]);
    let mut waiting: Vec<_> = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
    let is_ready = |fd: &PollFd<'_>| fd.any().unwrap_or(true);
    loop {
        alive();
        match poll(&mut waiting, MAX_WAIT_MS) {
            Ok(_) => {}
            Err(Errno::EINTR) => continue,
            Err(error) => return Err(error.into()),
        }
        // A single batch per socket: more packets may be waiting, but other sockets come first.
        for (listener, fd) in listeners.iter().zip(&waiting) {
            if is_ready(fd) {
                listener.handle_ready();
            }
        }
        if waiting.last().is_none_or(is_ready) {
            break;
        }
    }
    for listener in &listeners {
        for _ in 0..MAX_SHUTDOWN_BATCHES {
            if listener.handle_batch() != Ok(BATCH_SIZE) {
                break;
            }
        }
    }
    Ok(())
}

/// A socket and its buffers.
struct UdpListener {
    server: Arc<UdpServer>,
    socket: UdpSocket,
    response_source: ResponseSource,
    batch: RefCell<PacketBatch>,
}

/// The buffers of a socket, reused for each batch.
struct PacketBatch {
    receive_headers: MultiHeaders<SockaddrStorage>,
    input: Box<[[u8; SLOT_LEN]; BATCH_SIZE]>,
    lookups: Vec<Lookup>,
    responses: ResponseBatch,
    send_headers: SendHeaders,
    /// Destinations of the responses that are sent together.
    destinations: Vec<Option<SockaddrStorage>>,
    /// The kernel's count of packets that it dropped at this socket.
    kernel_drops: u32,
}

/// The responses to the packets of a batch.
struct ResponseBatch {
    responses: Vec<PendingResponse>,
    output: Vec<u8>,
}

/// A response that is sent at the end of its batch.
struct PendingResponse {
    to: SockaddrStorage,
    /// `None` for the address that the socket is bound to.
    from: Option<LocalAddress>,
    /// The part of [`ResponseBatch::output`] that holds the response.
    bytes: Range<usize>,
}

/// The state that all packets of a batch are handled with.
struct BatchContext {
    responder: Arc<Responder>,
    now: Time,
    unix: UnixTime,
}

impl UdpListener {
    fn new(server: Arc<UdpServer>, socket: UdpSocket) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let response_source = ResponseSource::of(socket.local_addr()?.ip());
        response_source.set_up(&socket)?;
        setsockopt(&socket, RxqOvfl, &1)?;
        let batch = PacketBatch {
            receive_headers: response_source.receive_headers(BATCH_SIZE),
            input: Box::new([[0; SLOT_LEN]; BATCH_SIZE]),
            lookups: Vec::with_capacity(BATCH_SIZE),
            responses: ResponseBatch {
                responses: Vec::with_capacity(BATCH_SIZE),
                output: Vec::new(),
            },
            send_headers: SendHeaders::new(BATCH_SIZE),
            destinations: Vec::with_capacity(BATCH_SIZE),
            kernel_drops: 0,
        };
        Ok(Self {
            server,
            socket,
            response_source,
            batch: RefCell::new(batch),
        })
    }

    fn handle_ready(&self) {
        match self.handle_batch() {
            Ok(_) | Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(_) => {
                self.server.shared.counters.udp_receive_errors.add_one();
                thread::sleep(RECEIVE_BACKOFF);
            }
        }
    }

    /// Receives a batch of packets and sends the responses. Returns the number of packets.
    fn handle_batch(&self) -> nix::Result<usize> {
        let batch = &mut *self.batch.borrow_mut();
        let received = self.receive(batch)?;
        self.send(batch);
        Ok(received)
    }

    /// Receives a batch of packets and writes the responses to the batch. Returns the number of packets.
    fn receive(&self, batch: &mut PacketBatch) -> nix::Result<usize> {
        let Shared {
            clock, counters, ..
        } = &*self.server.shared;
        let mut slots = batch.input.each_mut().map(|slot| [IoSliceMut::new(slot)]);
        let messages = recvmmsg(
            self.socket.as_raw_fd(),
            &mut batch.receive_headers,
            &mut slots,
            MsgFlags::MSG_DONTWAIT,
            None,
        )?;
        let start = Instant::now();
        let context = BatchContext {
            responder: read(&self.server.responder).clone(),
            now: clock.at(start),
            unix: clock.unix_at(start),
        };
        batch.responses.responses.clear();
        batch.responses.output.clear();
        let messages: Vec<_> = messages.collect();
        let mut is_control_truncated = false;
        for (nth, message) in messages.iter().enumerate() {
            if nth % PREFETCH_SIZE == 0 {
                self.prefetch(&messages[nth..], &mut batch.lookups);
            }
            let Ok(info) = PacketInfo::of(message) else {
                is_control_truncated = true;
                counters.udp_unanswerable.add_one();
                continue;
            };
            if let Some(drops) = info.kernel_drops {
                let new_drops = drops.wrapping_sub(batch.kernel_drops);
                counters.udp_dropped_by_kernel.add(new_drops.into());
                batch.kernel_drops = drops;
            }
            self.respond(&context, message, info.local, &mut batch.responses);
        }
        let received = messages.len();
        if received > 0 {
            // Measured once per batch, because the cost of reading the clock for each packet would be noticeable.
            let mean = start.elapsed() / received as u32;
            counters.udp_request_duration.record(mean);
        }
        if is_control_truncated {
            // The headers keep the control length that the kernel wrote last. The kernel reports drops only after the first
            // drop, and then the report does not fit. New headers have the full length.
            batch.receive_headers = self.response_source.receive_headers(BATCH_SIZE);
        }
        Ok(received)
    }

    /// Responds to a packet and counts the outcome. `from` is the address that the response has to leave from.
    fn respond(
        &self,
        context: &BatchContext,
        message: &Message<'_, '_>,
        from: Option<LocalAddress>,
        batch: &mut ResponseBatch,
    ) {
        let Shared {
            tracker,
            counters,
            updates,
            ..
        } = &*self.server.shared;
        let Some((to, client)) = message.address.and_then(with_socket_addr) else {
            return counters.udp_unanswerable.add_one();
        };
        let packet = message.iovs().next().unwrap_or_default();
        let BatchContext {
            responder,
            now,
            unix,
        } = context;
        let start = batch.output.len();
        let outcome = responder.respond(tracker, *now, *unix, client, packet, &mut batch.output);
        counters.count_udp(client.ip(), &outcome);
        if let (Some(updates), UdpOutcome::Announced(_, effect)) = (updates, &outcome) {
            updates.push_effect(effect, *now);
        }
        let bytes = start..batch.output.len();
        if !bytes.is_empty() {
            batch.responses.push(PendingResponse { to, from, bytes });
        }
    }

    /// Prefetches the tracker's data for the next packets.
    fn prefetch(&self, next: &[Message<'_, '_>], lookups: &mut Vec<Lookup>) {
        lookups.clear();
        for message in next.iter().take(PREFETCH_SIZE) {
            if let Some((_, client)) = message.address.and_then(with_socket_addr) {
                let packet = message.iovs().next().unwrap_or_default();
                lookups_in(packet, client.ip().to_canonical(), lookups);
            }
        }
        // For a single lookup, no other memory access could overlap with its own.
        if lookups.len() > 1 {
            self.server.shared.tracker.prefetch(lookups);
        }
    }

    /// Sends the responses of a batch, or drops those that cannot be sent. A system call sends from a single source
    /// address, so the responses are sorted by it.
    fn send(&self, batch: &mut PacketBatch) {
        let ResponseBatch { responses, output } = &mut batch.responses;
        responses.sort_unstable_by_key(|response| response.from);
        for run in responses.chunk_by(|a, b| a.from == b.from) {
            let mut unsent = run;
            while !unsent.is_empty() {
                let headers = &mut batch.send_headers;
                match self.send_run(unsent, output, headers, &mut batch.destinations) {
                    ControlFlow::Continue(done) => unsent = &unsent[done..],
                    ControlFlow::Break(()) => break,
                }
            }
            let dropped = unsent.len() as u64;
            self.server.shared.counters.udp_unsent.add(dropped);
        }
    }

    /// Sends responses that have the same source address. Returns the number of responses that were sent or cannot be
    /// sent at all, or `Break` if the send buffer is full.
    fn send_run(
        &self,
        run: &[PendingResponse],
        output: &[u8],
        headers: &mut SendHeaders,
        destinations: &mut Vec<Option<SockaddrStorage>>,
    ) -> ControlFlow<(), usize> {
        destinations.clear();
        destinations.extend(run.iter().map(|response| Some(response.to)));
        let slices: [_; BATCH_SIZE] = std::array::from_fn(|i| {
            let bytes = run.get(i).map(|response| &output[response.bytes.clone()]);
            [IoSlice::new(bytes.unwrap_or_default())]
        });
        let (v4, v6);
        let (headers, control): (_, &[_]) = match run[0].from {
            None => (&mut headers.without_source, &[]),
            Some(LocalAddress::V4(address)) => {
                v4 = info_v4(address);
                (&mut headers.from_v4, &[ControlMessage::Ipv4PacketInfo(&v4)])
            }
            Some(LocalAddress::V6(address, interface)) => {
                v6 = info_v6(address, interface);
                (&mut headers.from_v6, &[ControlMessage::Ipv6PacketInfo(&v6)])
            }
        };
        let flags = MsgFlags::MSG_DONTWAIT;
        let fd = self.socket.as_raw_fd();
        let slices = &slices[..run.len()];
        match sendmmsg(fd, headers, slices, &destinations[..], control, flags) {
            Ok(sent) => ControlFlow::Continue(sent.count()),
            Err(Errno::EINTR) => ControlFlow::Continue(0),
            Err(Errno::EAGAIN | Errno::ENOBUFS | Errno::ENOMEM) => ControlFlow::Break(()),
            // The first response cannot be sent at all: there is no route to the client, or a packet filter rejects it.
            Err(_) => {
                self.server.shared.counters.udp_unanswerable.add_one();
                ControlFlow::Continue(1)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, SocketAddr};

    use nix::sys::socket::sockopt::RcvBuf;
    use nix::unistd::pipe;

    use super::*;
    use crate::clock::Clock;
    use crate::protocol::connection_id::Secret;
    use crate::protocol::udp::Settings;
    use crate::server::counters::Counters;
    use crate::tracker::Tracker;
    use crate::tracker::settings as tracker;

    const CONNECT: &[u8; 16] = b"\x00\x00\x04\x17\x27\x10\x19\x80\x00\x00\x00\x00tran";

    /// A UDP server with a socket, and its counters.
    struct TestServer {
        socket: Option<UdpSocket>,
        at: SocketAddr,
        counters: Arc<Counters>,
        stop: Option<OwnedFd>,
        stopped: Option<OwnedFd>,
        thread: Option<thread::JoinHandle<io::Result<()>>>,
    }

    impl TestServer {
        fn bound(address: &str) -> Self {
            let socket = UdpSocket::bind(address).unwrap();
            let (stopped, stop) = pipe().unwrap();
            Self {
                at: socket.local_addr().unwrap(),
                socket: Some(socket),
                counters: Arc::default(),
                stop: Some(stop),
                stopped: Some(stopped),
                thread: None,
            }
        }

        fn start(mut self) -> Self {
            let socket = self.socket.take().unwrap();
            let (counters, stopped) = (self.counters.clone(), self.stopped.take().unwrap());
            self.thread = Some(thread::spawn(move || {
                let responder = Responder::new(Settings::default(), &Secret([7; 16]));
                let shared = Shared {
                    tracker: Arc::new(Tracker::new(tracker::Settings::default(), 7)),
                    clock: Clock::start(),
                    counters,
                    updates: None,
                };
                let server = Arc::new(UdpServer::new(Arc::new(shared), responder));
                serve(&server, vec![socket], &stopped, || {})
            }));
            self
        }

        fn stop(mut self) {
            self.stop = None;
            self.thread.unwrap().join().unwrap().unwrap();
        }

        /// Returns a client that sends to `address`, and receives only from there.
        fn client(&self, address: &str) -> UdpSocket {
            let address: IpAddr = address.parse().unwrap();
            let own: IpAddr = match address {
                IpAddr::V4(_) => [127, 0, 0, 1].into(),
                IpAddr::V6(_) => "::1".parse().unwrap(),
            };
            let client = UdpSocket::bind((own, 0)).unwrap();
            client.connect((address, self.at.port())).unwrap();
            client
                .set_read_timeout(Some(Duration::from_secs(10)))
                .unwrap();
            client
        }
    }

    fn receive(client: &UdpSocket) -> Vec<u8> {
        let mut response = [0; 2048];
        let len = client.recv(&mut response).expect("a response in time");
        response[..len].to_vec()
    }

    fn is_served(client: &UdpSocket) -> bool {
        client.send(CONNECT).unwrap();
        receive(client).len() == 16
    }

    #[test]
    fn responses_leave_from_the_requested_address() {
        let (v4, v6) = (
            TestServer::bound("0.0.0.0:0").start(),
            TestServer::bound("[::]:0").start(),
        );
        for server in [&v4, &v6] {
            let clients: Vec<_> = (1..100)
                .map(|host| server.client(&format!("127.0.{host}.{host}")))
                .collect();
            // All requests are sent before the first response is read, so that batches hold many addresses.
            clients
                .iter()
                .for_each(|client| assert_eq!(client.send(CONNECT).unwrap(), 16));
            clients
                .iter()
                .for_each(|client| assert_eq!(receive(client).len(), 16));
        }
        assert!(is_served(&v6.client("::1")));
        for (bound, address) in [("127.0.0.9:0", "127.0.0.9"), ("[::1]:0", "::1")] {
            let server = TestServer::bound(bound).start();
            assert!(is_served(&server.client(address)));
            server.stop();
        }
        assert_eq!(v4.counters.udp_connects.get(), 99);
        assert_eq!(v6.counters.udp_connects.get(), 100);
        assert_eq!(v6.counters.udp_unanswerable.get(), 0);
        v4.stop();
        v6.stop();
    }

    #[test]
    fn shutdown_handles_received_packets() {
        let mut server = TestServer::bound("127.0.0.1:0");
        let client = server.client("127.0.0.1");
        for _ in 0..3 * BATCH_SIZE + 1 {
            client.send(CONNECT).unwrap();
        }
        server.stop = None;
        let counters = server.counters.clone();
        server.start().stop();
        assert_eq!(counters.udp_connects.get(), 3 * BATCH_SIZE as u64 + 1);
        assert_eq!(receive(&client).len(), 16);
    }

    #[test]
    fn socket_stays_usable_after_packets_of_any_length() {
        let server = TestServer::bound("[::]:0").start();
        let client = server.client("127.0.0.1");
        let mut responses = 0;
        for len in (0..=MAX_PACKET_LEN + 2).chain([9000, 65_507]) {
            let mut packet = CONNECT.to_vec();
            packet.resize(len, 0);
            client.send(&packet).unwrap();
            if (16..=MAX_PACKET_LEN).contains(&len) {
                assert_eq!(receive(&client).len(), 16, "{len}");
                responses += 1;
            }
        }
        assert!(is_served(&client));
        assert_eq!(server.counters.udp_connects.get(), responses + 1);
        assert_eq!(server.counters.udp_ignored.get(), 16 + 2 + 2);
        server.stop();
    }

    #[test]
    fn counts_packets_dropped_by_the_kernel_and_handles_the_rest() {
        for (bound, address) in [
            ("0.0.0.0:0", "127.0.0.5"),
            ("[::]:0", "127.0.0.5"),
            ("[::]:0", "::1"),
            ("127.0.0.5:0", "127.0.0.5"),
        ] {
            let server = TestServer::bound(bound);
            setsockopt(server.socket.as_ref().unwrap(), RcvBuf, &20_000).unwrap();
            let server = server.start();
            let client = server.client(address);
            assert!(is_served(&client));
            // Sent until the kernel drops a packet, because the speed of the worker is unknown.
            let flood = server.client(address);
            let dropped = &server.counters.udp_dropped_by_kernel;
            let mut sent = 1;
            while dropped.get() == 0 && sent < 1_000_000 {
                flood.send(CONNECT).unwrap();
                sent += 1;
            }
            assert!(dropped.get() > 0, "{bound} {address}");
            // A packet that is received together with the first report of a drop is lost. So the request is repeated.
            let mut tries = 0;
            client
                .set_read_timeout(Some(Duration::from_millis(200)))
                .unwrap();
            while tries < 50 && client.send(CONNECT).is_ok() && client.recv(&mut [0; 99]).is_err() {
                tries += 1;
            }
            assert!(tries < 50, "{bound} {address}");
            server.stop();
        }
    }
}
