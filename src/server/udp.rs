//! UDP: receives and sends up to 64 packets with one system call each, and never waits for room to send.
//!
//! One socket is read by one worker. Several workers share the load of an address through a socket each, bound to it
//! with SO_REUSEPORT: the kernel deals the clients out, and none is woken for another's packet.
//!
//! A thread of its own waits for a worker's sockets with poll(2), which looks at a socket only while it waits. A reactor's epoll
//! would be called back by the kernel for each packet that is sent, to learn that it does not care.

use std::cell::RefCell;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::ops::{ControlFlow, Range};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::{Arc, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use nix::cmsg_space;
use nix::errno::Errno;
use nix::libc::{in_addr, in_pktinfo, in6_addr, in6_pktinfo};
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::socket::sockopt::{Ipv4PacketInfo, Ipv6RecvPacketInfo, RxqOvfl};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, MultiHeaders, RecvMsg, SockaddrStorage,
    recvmmsg, sendmmsg, setsockopt,
};

use crate::lock::{read, write};
use crate::protocol::udp::{Outcome, PACKET_MAX, Responder, lookups_in};
use crate::server::Shared;
use crate::tracker::prefetch::Lookup;

/// How many packets one system call takes at most.
const BATCH: usize = 64;

/// For how many packets memory is looked at ahead: what they need has to stay in the nearest cache until they are answered.
const AHEAD: usize = 16;

/// One byte more than is answered, so that a longer packet is seen to be too long.
const SLOT: usize = PACKET_MAX + 1;

/// How many batches are still answered when the stop comes: more than a socket's usual buffer holds.
const LAST_BATCHES: usize = 64;

/// How long a thread waits for packets before it shows that it is alive.
const ALIVE_MS: u16 = 1000;

/// How long nothing is received after the system had no memory for it.
const RECEIVE_BACKOFF: Duration = Duration::from_millis(20);

/// The UDP server: what its workers share.
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

    /// Takes another, from the next batch on.
    pub fn set(&self, responder: Responder) {
        *write(&self.responder) = Arc::new(responder);
    }
}

/// Serves on the calling thread until the other end of `stop` is closed; then what has come in already is answered. Calls
/// `alive` at least once a second, unless a batch takes longer.
pub fn serve(
    server: &Arc<UdpServer>,
    sockets: Vec<UdpSocket>,
    stop: &OwnedFd,
    alive: impl Fn(),
) -> io::Result<()> {
    let doors = sockets
        .into_iter()
        .map(|socket| UdpListener::new(server.clone(), socket))
        .collect::<io::Result<Vec<_>>>()?;
    let fds = doors
        .iter()
        .map(|door| door.socket.as_fd())
        .chain([stop.as_fd()]);
    let mut waiting: Vec<_> = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
    let is_ready = |fd: &PollFd<'_>| fd.any().unwrap_or(true);
    loop {
        alive();
        match poll(&mut waiting, ALIVE_MS) {
            Ok(_) => {}
            Err(Errno::EINTR) => continue,
            Err(error) => return Err(error.into()),
        }
        // One batch each: there may be more, but other sockets have waited.
        for (door, fd) in doors.iter().zip(&waiting) {
            if is_ready(fd) {
                door.answer_ready();
            }
        }
        if waiting.last().is_none_or(is_ready) {
            break;
        }
    }
    for door in &doors {
        for _ in 0..LAST_BATCHES {
            if door.answer_batch() != Ok(BATCH) {
                break;
            }
        }
    }
    Ok(())
}

type Message<'a, 's> = RecvMsg<'a, 's, SockaddrStorage>;

/// One socket, and what its packets need on their way.
struct UdpListener {
    server: Arc<UdpServer>,
    socket: UdpSocket,
    replies_from: RepliesFrom,
    batch: RefCell<Batch>,
}

/// Which address answers leave from: with one that the client did not ask, he and his NAT would not know them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum RepliesFrom {
    /// The one that the socket is bound to.
    Bound,
    /// The one that each request came to. An IPv6 wildcard tells it for IPv4 too, as mapped.
    AskedV4,
    AskedV6,
}

impl RepliesFrom {
    fn of(bound: IpAddr) -> Self {
        match bound {
            _ if !bound.is_unspecified() => Self::Bound,
            IpAddr::V4(_) => Self::AskedV4,
            IpAddr::V6(_) => Self::AskedV6,
        }
    }

    fn set_up(self, socket: &UdpSocket) -> nix::Result<()> {
        match self {
            Self::Bound => Ok(()),
            Self::AskedV4 => setsockopt(socket, Ipv4PacketInfo, &true),
            Self::AskedV6 => setsockopt(socket, Ipv6RecvPacketInfo, &true),
        }
    }

    fn receive_headers(self) -> MultiHeaders<SockaddrStorage> {
        let control = match self {
            Self::Bound => cmsg_space!(u32),
            Self::AskedV4 => cmsg_space!(u32, in_pktinfo),
            Self::AskedV6 => cmsg_space!(u32, in6_pktinfo),
        };
        MultiHeaders::preallocate(BATCH, Some(control))
    }
}

/// Headers to send with, by what they tell the kernel. An IPv4 address as such, even from an IPv6 socket, fits into what the
/// kernel has at hand; for more it allocates memory for each packet.
struct Sent {
    plain: MultiHeaders<SockaddrStorage>,
    from_v4: MultiHeaders<SockaddrStorage>,
    from_v6: MultiHeaders<SockaddrStorage>,
}

impl Sent {
    fn new() -> Self {
        Self {
            plain: MultiHeaders::preallocate(BATCH, None),
            from_v4: MultiHeaders::preallocate(BATCH, Some(cmsg_space!(in_pktinfo))),
            from_v6: MultiHeaders::preallocate(BATCH, Some(cmsg_space!(in6_pktinfo))),
        }
    }
}

/// The buffers of one socket, kept from one batch to the next.
struct Batch {
    received: MultiHeaders<SockaddrStorage>,
    input: Box<[[u8; SLOT]; BATCH]>,
    sought: Vec<Lookup>,
    replies: Vec<Reply>,
    output: Vec<u8>,
    sent: Sent,
    /// Where a run of replies goes.
    to: Vec<Option<SockaddrStorage>>,
    /// How many packets the kernel has dropped here, by its count.
    drops: u32,
}

/// One answer, waiting for the end of its batch.
struct Reply {
    to: SockaddrStorage,
    /// `None` where the socket's own address will do.
    from: Option<Local>,
    /// In [`Batch::output`].
    bytes: Range<usize>,
}

/// An address of this machine, as packet information has it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Local {
    V4(Ipv4Addr),
    /// With the interface: 0 leaves it to the routes; link-local addresses mean nothing without it.
    V6(Ipv6Addr, u32),
}

impl UdpListener {
    fn new(server: Arc<UdpServer>, socket: UdpSocket) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let replies_from = RepliesFrom::of(socket.local_addr()?.ip());
        replies_from.set_up(&socket)?;
        setsockopt(&socket, RxqOvfl, &1)?;
        let batch = Batch {
            received: replies_from.receive_headers(),
            input: Box::new([[0; SLOT]; BATCH]),
            sought: Vec::with_capacity(BATCH),
            replies: Vec::with_capacity(BATCH),
            output: Vec::new(),
            sent: Sent::new(),
            to: Vec::with_capacity(BATCH),
            drops: 0,
        };
        Ok(Self {
            server,
            socket,
            replies_from,
            batch: RefCell::new(batch),
        })
    }

    fn answer_ready(&self) {
        match self.answer_batch() {
            Ok(_) | Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(_) => {
                self.server.shared.counters.udp_receive_errors.add_one();
                thread::sleep(RECEIVE_BACKOFF);
            }
        }
    }

    /// Answers what has come in, up to a batch, and tells how many packets that was.
    fn answer_batch(&self) -> nix::Result<usize> {
        let batch = &mut *self.batch.borrow_mut();
        let received = self.receive(batch)?;
        self.send(batch);
        Ok(received)
    }

    fn receive(&self, batch: &mut Batch) -> nix::Result<usize> {
        let counters = &self.server.shared.counters;
        let mut slots = batch.input.each_mut().map(|slot| [IoSliceMut::new(slot)]);
        let messages = recvmmsg(
            self.socket.as_raw_fd(),
            &mut batch.received,
            &mut slots,
            MsgFlags::MSG_DONTWAIT,
            None,
        )?;
        let instant = Instant::now();
        let responder = read(&self.server.responder).clone();
        let (now, unix) = (
            self.server.shared.clock.at(instant),
            self.server.shared.clock.unix_at(instant),
        );
        batch.replies.clear();
        batch.output.clear();
        let messages: Vec<_> = messages.collect();
        let mut control_cut = false;
        for (nth, message) in messages.iter().enumerate() {
            if nth % AHEAD == 0 {
                self.prefetch(&messages[nth..], &mut batch.sought);
            }
            let Ok(control) = message.cmsgs() else {
                control_cut = true;
                counters.udp_unanswerable.add_one();
                continue;
            };
            let mut from = None;
            for control in control {
                match control {
                    ControlMessageOwned::Ipv4PacketInfo(info) => from = Some(Local::of_v4(&info)),
                    ControlMessageOwned::Ipv6PacketInfo(info) => from = Some(Local::of_v6(&info)),
                    ControlMessageOwned::RxqOvfl(drops) => {
                        counters
                            .udp_dropped_by_kernel
                            .add(drops.wrapping_sub(batch.drops).into());
                        batch.drops = drops;
                    }
                    _ => {}
                }
            }
            let Some((to, client)) = message.address.and_then(with_socket_addr) else {
                counters.udp_unanswerable.add_one();
                continue;
            };
            let packet = message.iovs().next().unwrap_or_default();
            let start = batch.output.len();
            let outcome = responder.respond(
                &self.server.shared.tracker,
                now,
                unix,
                client,
                packet,
                &mut batch.output,
            );
            counters.count_udp(client.ip(), &outcome);
            if let (Some(updates), Outcome::Announced(_, news)) =
                (&self.server.shared.updates, &outcome)
            {
                updates.push_effect(news, now);
            }
            let bytes = start..batch.output.len();
            if !bytes.is_empty() {
                batch.replies.push(Reply { to, from, bytes });
            }
        }
        let received = messages.len();
        if received > 0 {
            // For the whole batch once, as reading the clock for each would show.
            let each = instant.elapsed() / received as u32;
            counters.udp_handling.note(each);
        }
        if control_cut {
            // The headers keep no more room than what the kernel last filled, and it counts drops only after the first.
            batch.received = self.replies_from.receive_headers();
        }
        Ok(received)
    }

    /// Has the processor fetch what the next few of these will need.
    fn prefetch(&self, next: &[Message<'_, '_>], sought: &mut Vec<Lookup>) {
        sought.clear();
        for message in next.iter().take(AHEAD) {
            if let Some((_, client)) = message.address.and_then(with_socket_addr) {
                let packet = message.iovs().next().unwrap_or_default();
                lookups_in(packet, client.ip().to_canonical(), sought);
            }
        }
        // One alone has no other to share its waits with.
        if sought.len() > 1 {
            self.server.shared.tracker.prefetch(sought);
        }
    }

    /// Sends each answer or drops it. One system call sends from one address, so they go by that.
    fn send(&self, batch: &mut Batch) {
        batch.replies.sort_unstable_by_key(|reply| reply.from);
        for run in batch.replies.chunk_by(|a, b| a.from == b.from) {
            let mut unsent = run;
            while !unsent.is_empty() {
                match self.send_run(unsent, &batch.output, &mut batch.sent, &mut batch.to) {
                    ControlFlow::Continue(sent) => unsent = &unsent[sent..],
                    ControlFlow::Break(()) => break,
                }
            }
            self.server
                .shared
                .counters
                .udp_unsent
                .add(unsent.len() as u64);
        }
    }

    /// Tells how many are done with, sent or hopeless; or that there is no room for the rest.
    fn send_run(
        &self,
        run: &[Reply],
        output: &[u8],
        sent: &mut Sent,
        to: &mut Vec<Option<SockaddrStorage>>,
    ) -> ControlFlow<(), usize> {
        to.clear();
        to.extend(run.iter().map(|reply| Some(reply.to)));
        let slices: [_; BATCH] = std::array::from_fn(|i| {
            let bytes = run.get(i).map(|reply| &output[reply.bytes.clone()]);
            [IoSlice::new(bytes.unwrap_or_default())]
        });
        let (v4, v6);
        let (headers, control): (_, &[_]) = match run[0].from {
            None => (&mut sent.plain, &[]),
            Some(Local::V4(address)) => {
                v4 = info_v4(address);
                (&mut sent.from_v4, &[ControlMessage::Ipv4PacketInfo(&v4)])
            }
            Some(Local::V6(address, interface)) => {
                v6 = info_v6(address, interface);
                (&mut sent.from_v6, &[ControlMessage::Ipv6PacketInfo(&v6)])
            }
        };
        let flags = MsgFlags::MSG_DONTWAIT;
        let fd = self.socket.as_raw_fd();
        match sendmmsg(fd, headers, &slices[..run.len()], &to[..], control, flags) {
            Ok(sent) => ControlFlow::Continue(sent.count()),
            Err(Errno::EINTR) => ControlFlow::Continue(0),
            Err(Errno::EAGAIN | Errno::ENOBUFS | Errno::ENOMEM) => ControlFlow::Break(()),
            // The first cannot be sent at all: no route back, or a filter.
            Err(_) => {
                self.server.shared.counters.udp_unanswerable.add_one();
                ControlFlow::Continue(1)
            }
        }
    }
}

fn with_socket_addr(address: SockaddrStorage) -> Option<(SockaddrStorage, SocketAddr)> {
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

impl Local {
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

fn info_v4(address: Ipv4Addr) -> in_pktinfo {
    in_pktinfo {
        ipi_ifindex: 0,
        ipi_spec_dst: in_addr {
            s_addr: u32::from_ne_bytes(address.octets()),
        },
        ipi_addr: in_addr { s_addr: 0 },
    }
}

fn info_v6(address: Ipv6Addr, interface: u32) -> in6_pktinfo {
    in6_pktinfo {
        ipi6_addr: in6_addr {
            s6_addr: address.octets(),
        },
        ipi6_ifindex: interface,
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::socket::sockopt::RcvBuf;
    use nix::unistd::pipe;

    use super::*;
    use crate::clock::Clock;
    use crate::protocol::connection_id::Secret;
    use crate::protocol::udp::Settings;
    use crate::server::counters::Counters;
    use crate::tracker::{self, Tracker};

    const CONNECT: &[u8; 16] = b"\x00\x00\x04\x17\x27\x10\x19\x80\x00\x00\x00\x00tran";

    /// A socket that is served from now on, or once asked to, and what has happened on it.
    struct Served {
        socket: Option<UdpSocket>,
        at: SocketAddr,
        counters: Arc<Counters>,
        stop: Option<OwnedFd>,
        stopped: Option<OwnedFd>,
        thread: Option<thread::JoinHandle<io::Result<()>>>,
    }

    impl Served {
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

        /// A client that takes answers from `address` alone, at the served port.
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

    fn answer(client: &UdpSocket) -> Vec<u8> {
        let mut answer = [0; 2048];
        let len = client.recv(&mut answer).expect("an answer in time");
        answer[..len].to_vec()
    }

    fn is_served(client: &UdpSocket) -> bool {
        client.send(CONNECT).unwrap();
        answer(client).len() == 16
    }

    #[test]
    fn answers_leave_from_the_address_that_was_asked() {
        let (v4, v6) = (
            Served::bound("0.0.0.0:0").start(),
            Served::bound("[::]:0").start(),
        );
        for served in [&v4, &v6] {
            let clients: Vec<_> = (1..100)
                .map(|host| served.client(&format!("127.0.{host}.{host}")))
                .collect();
            // Together, for them to come in batches of many addresses.
            clients
                .iter()
                .for_each(|client| assert_eq!(client.send(CONNECT).unwrap(), 16));
            clients
                .iter()
                .for_each(|client| assert_eq!(answer(client).len(), 16));
        }
        assert!(is_served(&v6.client("::1")));
        for (bound, address) in [("127.0.0.9:0", "127.0.0.9"), ("[::1]:0", "::1")] {
            let served = Served::bound(bound).start();
            assert!(is_served(&served.client(address)));
            served.stop();
        }
        assert_eq!(v4.counters.udp_connects.get(), 99);
        assert_eq!(v6.counters.udp_connects.get(), 100);
        assert_eq!(v6.counters.udp_unanswerable.get(), 0);
        v4.stop();
        v6.stop();
    }

    #[test]
    fn a_stop_answers_what_has_come_in() {
        let mut served = Served::bound("127.0.0.1:0");
        let client = served.client("127.0.0.1");
        for _ in 0..3 * BATCH + 1 {
            client.send(CONNECT).unwrap();
        }
        served.stop = None;
        let counters = served.counters.clone();
        served.start().stop();
        assert_eq!(counters.udp_connects.get(), 3 * BATCH as u64 + 1);
        assert_eq!(answer(&client).len(), 16);
    }

    #[test]
    fn packets_of_any_length_leave_the_socket_served() {
        let served = Served::bound("[::]:0").start();
        let client = served.client("127.0.0.1");
        let mut answers = 0;
        for len in (0..=PACKET_MAX + 2).chain([9000, 65_507]) {
            let mut packet = CONNECT.to_vec();
            packet.resize(len, 0);
            client.send(&packet).unwrap();
            if (16..=PACKET_MAX).contains(&len) {
                assert_eq!(answer(&client).len(), 16, "{len}");
                answers += 1;
            }
        }
        assert!(is_served(&client));
        assert_eq!(served.counters.udp_connects.get(), answers + 1);
        assert_eq!(served.counters.udp_ignored.get(), 16 + 2 + 2);
        served.stop();
    }

    #[test]
    fn what_the_kernel_drops_is_counted_and_the_rest_still_answered() {
        for (bound, address) in [
            ("0.0.0.0:0", "127.0.0.5"),
            ("[::]:0", "127.0.0.5"),
            ("[::]:0", "::1"),
            ("127.0.0.5:0", "127.0.0.5"),
        ] {
            let served = Served::bound(bound);
            setsockopt(served.socket.as_ref().unwrap(), RcvBuf, &20_000).unwrap();
            let served = served.start();
            let client = served.client(address);
            assert!(is_served(&client));
            // Until there are drops: it cannot be told when the worker reads.
            let flood = served.client(address);
            let dropped = &served.counters.udp_dropped_by_kernel;
            let mut sent = 1;
            while dropped.get() == 0 && sent < 1_000_000 {
                flood.send(CONNECT).unwrap();
                sent += 1;
            }
            assert!(dropped.get() > 0, "{bound} {address}");
            // One that comes just as the first drop shows is lost, as packets are.
            let mut tries = 0;
            client
                .set_read_timeout(Some(Duration::from_millis(200)))
                .unwrap();
            while tries < 50 && client.send(CONNECT).is_ok() && client.recv(&mut [0; 99]).is_err() {
                tries += 1;
            }
            assert!(tries < 50, "{bound} {address}");
            served.stop();
        }
    }
}
