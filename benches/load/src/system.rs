//! System calls that std lacks, behind safe functions. This is the only unsafe code of the crate.

#![expect(
    unsafe_code,
    reason = "recvmmsg, sendmmsg, epoll, affinity and other processes' CPU clocks have no safe interface in std"
)]

use std::io;
use std::mem::{size_of, zeroed};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::time::Duration;

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}

fn set_option(fd: RawFd, level: i32, name: i32, value: libc::c_int) -> io::Result<()> {
    // SAFETY: the pointer and length describe `value`, which outlives the call.
    check(unsafe {
        libc::setsockopt(
            fd,
            level,
            name,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    })
    .map(|_| ())
}

fn to_sockaddr(address: SocketAddrV4) -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: address.port().to_be(),
        sin_addr: to_in_addr(*address.ip()),
        sin_zero: [0; 8],
    }
}

fn to_in_addr(address: Ipv4Addr) -> libc::in_addr {
    libc::in_addr {
        s_addr: u32::from_ne_bytes(address.octets()),
    }
}

/// Makes the kernel pass a connection to accept only after the client has sent data.
pub fn defer_accept(listener: &TcpListener) -> io::Result<()> {
    let fd = listener.as_raw_fd();
    set_option(fd, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, 5)
}

/// Connects from any port of `source` to `to`. On loopback the connection is established when this function returns.
pub fn connect_from(source: Ipv4Addr, to: SocketAddrV4) -> io::Result<TcpStream> {
    // SAFETY: `socket` takes no pointers, and its new descriptor has no other owner.
    let socket = unsafe {
        let fd = libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0);
        OwnedFd::from_raw_fd(check(fd)?)
    };
    let fd = socket.as_raw_fd();
    // The kernel chooses the port at connect and not at bind, so that a source can have connections to many servers.
    set_option(fd, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, 1)?;
    let (source, to) = (to_sockaddr(SocketAddrV4::new(source, 0)), to_sockaddr(to));
    let length = size_of::<libc::sockaddr_in>() as libc::socklen_t;
    // SAFETY: both pointers are to a sockaddr_in of that length, which outlives the calls.
    unsafe {
        check(libc::bind(fd, (&raw const source).cast(), length))?;
        check(libc::connect(fd, (&raw const to).cast(), length))?;
    }
    Ok(socket.into())
}

/// Receives without waiting. Fails with `WouldBlock` if no data is available.
pub fn try_receive(stream: &TcpStream, into: &mut [u8]) -> io::Result<usize> {
    // SAFETY: pointer and length are those of `into`.
    let got = unsafe {
        libc::recv(
            stream.as_raw_fd(),
            into.as_mut_ptr().cast(),
            into.len(),
            libc::MSG_DONTWAIT,
        )
    };
    usize::try_from(got).map_err(|_| io::Error::last_os_error())
}

/// A level-triggered epoll instance, which waits until any of many connections is readable.
pub struct Epoll {
    fd: OwnedFd,
    events: Vec<libc::epoll_event>,
}

/// A readable connection.
pub struct Ready {
    pub token: u64,
    /// The other side has closed the connection or will send no more.
    pub closed: bool,
}

impl Epoll {
    pub fn new() -> io::Result<Self> {
        // SAFETY: no pointers; the new descriptor has no other owner.
        let fd = unsafe { OwnedFd::from_raw_fd(check(libc::epoll_create1(libc::EPOLL_CLOEXEC))?) };
        Ok(Self {
            fd,
            events: vec![libc::epoll_event { events: 0, u64: 0 }; 64],
        })
    }

    /// Watches `file` until the file is closed. [`Ready`] contains `token` when the file is readable.
    pub fn add(&self, file: &impl AsRawFd, token: u64) -> io::Result<()> {
        let mut event = libc::epoll_event {
            events: (libc::EPOLLIN | libc::EPOLLRDHUP) as u32,
            u64: token,
        };
        // SAFETY: the event outlives the call.
        check(unsafe {
            libc::epoll_ctl(
                self.fd.as_raw_fd(),
                libc::EPOLL_CTL_ADD,
                file.as_raw_fd(),
                &raw mut event,
            )
        })
        .map(|_| ())
    }

    /// Waits until a file is readable, or until the timeout; `None` waits without a timeout. Returns the number of
    /// readable files.
    pub fn wait(&mut self, timeout: Option<Duration>) -> io::Result<usize> {
        let timeout = timeout.map_or(-1, |time| time.as_millis() as i32);
        // SAFETY: pointer and length are those of `events`.
        let count = check(unsafe {
            libc::epoll_wait(
                self.fd.as_raw_fd(),
                self.events.as_mut_ptr(),
                self.events.len() as i32,
                timeout,
            )
        })?;
        Ok(count as usize)
    }

    /// Returns a readable file of the last `wait`. `index` must be less than the number that `wait` returned.
    pub fn ready(&self, index: usize) -> Ready {
        let libc::epoll_event { events, u64: token } = self.events[index];
        let gone = (libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR) as u32;
        Ready {
            token,
            closed: events & gone != 0,
        }
    }
}

/// Maximum number of datagrams that a system call sends or receives.
pub const BATCH: usize = 64;

/// A packet to send, or a received packet.
#[derive(Clone)]
pub struct Datagram {
    pub bytes: [u8; 2048],
    pub length: usize,
    /// The sender or the receiver.
    pub remote: SocketAddrV4,
    /// The source address of a packet to send; `None` is the socket's.
    pub source: Option<Ipv4Addr>,
}

impl Default for Datagram {
    fn default() -> Self {
        Self {
            bytes: [0; 2048],
            length: 0,
            remote: SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0),
            source: None,
        }
    }
}

impl Datagram {
    pub fn payload(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// Space for the control message with a source address, with the alignment of `cmsghdr`.
#[repr(C)]
#[derive(Clone, Copy)]
struct SourceControl {
    header: libc::cmsghdr,
    info: libc::in_pktinfo,
}

/// The structures that describe up to `BATCH` datagrams to the kernel. They are reused for each call.
struct Headers {
    messages: [libc::mmsghdr; BATCH],
    parts: [libc::iovec; BATCH],
    names: [libc::sockaddr_in; BATCH],
    controls: [SourceControl; BATCH],
}

/// A UDP socket that sends and receives many datagrams with a system call.
pub struct BatchSocket {
    socket: UdpSocket,
    headers: Box<Headers>,
}

impl BatchSocket {
    /// Binds a socket, and requests buffers of 8 MiB. The kernel may grant less.
    pub fn bind(address: SocketAddrV4) -> io::Result<Self> {
        let socket = UdpSocket::bind(address)?;
        for name in [libc::SO_RCVBUF, libc::SO_SNDBUF] {
            set_option(socket.as_raw_fd(), libc::SOL_SOCKET, name, 8 << 20)?;
        }
        // SAFETY: all four are plain C structs, for which zero bytes are valid.
        let headers = Box::new(unsafe { zeroed::<Headers>() });
        Ok(Self { socket, headers })
    }

    /// Receives the available datagrams, and returns their number. `wait` says whether to wait for the first.
    pub fn receive(&mut self, into: &mut [Datagram], wait: bool) -> io::Result<usize> {
        let headers = &mut *self.headers;
        let count = into.len().min(BATCH);
        for (index, datagram) in into.iter_mut().enumerate().take(count) {
            headers.parts[index] = libc::iovec {
                iov_base: datagram.bytes.as_mut_ptr().cast(),
                iov_len: datagram.bytes.len(),
            };
            let header = &mut headers.messages[index].msg_hdr;
            header.msg_iov = &raw mut headers.parts[index];
            header.msg_iovlen = 1;
            header.msg_name = (&raw mut headers.names[index]).cast();
            header.msg_namelen = size_of::<libc::sockaddr_in>() as libc::socklen_t;
            header.msg_control = ptr::null_mut();
            header.msg_controllen = 0;
        }
        let flags = if wait {
            libc::MSG_WAITFORONE
        } else {
            libc::MSG_DONTWAIT
        };
        // SAFETY: the first `count` headers point to `into` and to `self.headers`, which outlive the call.
        let got = check(unsafe {
            libc::recvmmsg(
                self.socket.as_raw_fd(),
                headers.messages.as_mut_ptr(),
                count as u32,
                flags,
                ptr::null_mut(),
            )
        })? as usize;
        for (index, datagram) in into.iter_mut().enumerate().take(got) {
            let name = headers.names[index];
            datagram.length = headers.messages[index].msg_len as usize;
            let address = Ipv4Addr::from(name.sin_addr.s_addr.to_ne_bytes());
            datagram.remote = SocketAddrV4::new(address, u16::from_be(name.sin_port));
            datagram.source = None;
        }
        Ok(got)
    }

    /// Sends all datagrams, with as many calls as needed.
    pub fn send(&mut self, mut datagrams: &[Datagram]) -> io::Result<()> {
        while !datagrams.is_empty() {
            let sent = self.send_some(datagrams)?;
            datagrams = &datagrams[sent..];
        }
        Ok(())
    }

    fn send_some(&mut self, datagrams: &[Datagram]) -> io::Result<usize> {
        let headers = &mut *self.headers;
        let count = datagrams.len().min(BATCH);
        for (index, datagram) in datagrams.iter().enumerate().take(count) {
            headers.parts[index] = libc::iovec {
                iov_base: datagram.bytes.as_ptr().cast_mut().cast(),
                iov_len: datagram.length,
            };
            headers.names[index] = to_sockaddr(datagram.remote);
            let header = &mut headers.messages[index].msg_hdr;
            header.msg_iov = &raw mut headers.parts[index];
            header.msg_iovlen = 1;
            header.msg_name = (&raw mut headers.names[index]).cast();
            header.msg_namelen = size_of::<libc::sockaddr_in>() as libc::socklen_t;
            header.msg_control = ptr::null_mut();
            header.msg_controllen = 0;
            if let Some(source) = datagram.source {
                let length = size_of::<libc::cmsghdr>() + size_of::<libc::in_pktinfo>();
                let control = &mut headers.controls[index];
                control.header.cmsg_level = libc::IPPROTO_IP;
                control.header.cmsg_type = libc::IP_PKTINFO;
                control.header.cmsg_len = length as _;
                control.info.ipi_spec_dst = to_in_addr(source);
                header.msg_control = (&raw mut *control).cast();
                header.msg_controllen = size_of::<SourceControl>() as _;
            }
        }
        // SAFETY: the first `count` headers point to `datagrams` and to `self.headers`, which outlive the call.
        let sent = check(unsafe {
            libc::sendmmsg(
                self.socket.as_raw_fd(),
                headers.messages.as_mut_ptr(),
                count as u32,
                0,
            )
        })?;
        Ok(sent as usize)
    }
}

/// Binds the calling thread to a core. Threads and processes that it starts later inherit this.
pub fn pin_to_core(core: usize) -> io::Result<()> {
    // SAFETY: zero bytes are a valid empty set, `core` is in range, and the set outlives the call.
    check(unsafe {
        let mut set: libc::cpu_set_t = zeroed();
        if core >= 8 * size_of::<libc::cpu_set_t>() {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
        libc::CPU_SET(core, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set)
    })
    .map(|_| ())
}

/// Returns the CPU time of a process with all its threads, including threads that have ended.
///
/// The resolution is a nanosecond; `/proc/PID/stat` has only clock ticks.
pub fn process_cpu_time(pid: u32) -> io::Result<Duration> {
    // This is the clock id of the process, computed as clock_getcpuclockid(3) does.
    read_clock((!(pid as libc::clockid_t) << 3) | 2)
}

/// Returns the CPU time of the calling thread.
pub fn thread_cpu_time() -> Duration {
    // This cannot fail: every thread has this clock.
    read_clock(libc::CLOCK_THREAD_CPUTIME_ID).unwrap_or_default()
}

fn read_clock(clock: libc::clockid_t) -> io::Result<Duration> {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the timespec outlives the call.
    check(unsafe { libc::clock_gettime(clock, &raw mut time) })?;
    Ok(Duration::new(time.tv_sec as u64, time.tv_nsec as u32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_have_their_source_address() {
        let loopback = |port| SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
        let mut server = BatchSocket::bind(loopback(0)).unwrap();
        let std::net::SocketAddr::V4(to) = server.socket.local_addr().unwrap() else {
            unreachable!("bound to an IPv4 address");
        };
        let any = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0);
        let mut client = BatchSocket::bind(any).unwrap();
        let source = Ipv4Addr::new(127, 3, 2, 1);
        let packet = Datagram {
            length: 3,
            remote: to,
            source: Some(source),
            ..Datagram::default()
        };
        // These are more datagrams than a system call sends.
        client.send(&vec![packet; BATCH + 1]).unwrap();
        let mut seen = 0;
        let mut room = vec![Datagram::default(); BATCH];
        while seen < BATCH + 1 {
            let got = server.receive(&mut room, true).unwrap();
            for datagram in &room[..got] {
                assert_eq!((datagram.length, *datagram.remote.ip()), (3, source));
            }
            seen += got;
        }
    }

    #[test]
    fn cpu_time_grows_with_work() {
        let before = process_cpu_time(std::process::id()).unwrap();
        let mut sum = 0_u64;
        while process_cpu_time(std::process::id()).unwrap() < before + Duration::from_millis(2) {
            sum = std::hint::black_box(sum + 1);
        }
        assert!(sum > 0);
    }
}
