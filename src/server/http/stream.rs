//! A client's socket, with the interface that hyper reads and writes.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, ErrorKind, Read, Write};
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use hyper::rt::ReadBufCursor;
use nix::errno::Errno;
use nix::libc::MSG_MORE;
use nix::sys::socket::{MsgFlags, send};
use tokio::io::unix::AsyncFd;

use crate::server::http::proxy_protocol::ProxyHeader;
use crate::server::http::timeouts::RequestTimer;

/// A client's socket, with the bytes that were received but not consumed.
pub(in crate::server) struct Stream<S: AsRawFd> {
    socket: Socket<S>,
    /// Bytes that were received and pushed back. They are returned by the next read.
    pending: Vec<u8>,
    /// Receive buffer, shared by all connections of a worker. Hyper's own buffers are filled from it.
    input: Rc<RefCell<Box<[u8]>>>,
    timer: Rc<RequestTimer>,
}

impl<S: AsRawFd> Stream<S> {
    pub(in crate::server) fn new(
        socket: S,
        input: Rc<RefCell<Box<[u8]>>>,
        timer: Rc<RequestTimer>,
    ) -> Self {
        Self {
            socket: Socket::Unregistered {
                socket,
                is_drained: false,
            },
            pending: Vec::new(),
            input,
            timer,
        }
    }
}

impl<S: Read + Write + AsRawFd + Unpin> Stream<S> {
    /// Reads the PROXY protocol header at the start of a connection. Returns the client's address, or `peer` if the proxy
    /// connects on its own behalf.
    ///
    /// # Errors
    /// If the connection ends before the end of the header, or does not start with a valid header.
    pub(in crate::server) async fn read_proxy_header(
        &mut self,
        peer: Option<IpAddr>,
    ) -> io::Result<Option<IpAddr>> {
        loop {
            let (length, client) = match ProxyHeader::parse(&self.pending) {
                ProxyHeader::Proxied { length, client } => (length, Some(client.ip())),
                ProxyHeader::Local { length } => (length, peer),
                ProxyHeader::Invalid => return Err(ErrorKind::InvalidData.into()),
                ProxyHeader::Incomplete => {
                    let received = poll_fn(|cx| self.poll_receive(cx, usize::MAX)).await?;
                    if received == 0 {
                        return Err(ErrorKind::UnexpectedEof.into());
                    }
                    self.pending
                        .extend_from_slice(&self.input.borrow()[..received]);
                    continue;
                }
            };
            self.pending.drain(..length);
            return Ok(client);
        }
    }

    /// Receives the next bytes to the start of the shared input buffer, as many as are available and fit. Returns their
    /// number, or 0 at the end of the connection.
    ///
    /// # Errors
    /// If the connection fails.
    pub(in crate::server) async fn receive(&mut self) -> io::Result<usize> {
        if self.pending.is_empty() {
            return poll_fn(|cx| self.poll_receive(cx, usize::MAX)).await;
        }
        let input = &mut **self.input.borrow_mut();
        let len = self.pending.len().min(input.len());
        input[..len].copy_from_slice(&self.pending[..len]);
        self.pending.drain(..len);
        Ok(len)
    }

    /// Receives more bytes after those that were pushed back, until they may hold a complete request head or fill the
    /// shared input buffer. Returns `false` at the end of the connection.
    ///
    /// # Errors
    /// If the connection fails.
    pub(in crate::server) async fn receive_head(&mut self) -> io::Result<bool> {
        loop {
            let pending = self.pending.len();
            let free = self.input.borrow().len().saturating_sub(pending);
            if free == 0 {
                return Ok(true);
            }
            let received = poll_fn(|cx| self.poll_receive(cx, free)).await?;
            if received == 0 {
                return Ok(false);
            }
            self.pending
                .extend_from_slice(&self.input.borrow()[..received]);
            // Only the new bytes are searched. Otherwise a client that sends single bytes would cause a search of the whole
            // head for each byte.
            if has_empty_line(&self.pending[pending.saturating_sub(2)..]) {
                return Ok(true);
            }
        }
    }

    /// Pushes back bytes from [`Self::receive`]. The next read, here or by hyper, returns them again.
    pub(in crate::server) fn unread(&mut self, input: &[u8]) {
        self.pending.splice(..0, input.iter().copied());
    }

    /// Records that a complete request was received, and that its response is about to be written.
    pub(in crate::server) fn response_ready(&self) {
        self.timer.response_ready();
    }

    /// Sends as many bytes as possible without waiting, and returns their number. If `is_last` is true, the end of the
    /// connection is sent in the same packet as the last bytes.
    ///
    /// # Errors
    /// If the connection fails.
    pub(in crate::server) fn try_send(&mut self, bytes: &[u8], is_last: bool) -> io::Result<usize> {
        let socket = match &self.socket {
            Socket::Unregistered { socket, .. } => socket.as_raw_fd(),
            Socket::Registered(socket) => socket.as_raw_fd(),
            Socket::Failed => return Err(ErrorKind::NotConnected.into()),
        };
        let mut flags = MsgFlags::MSG_NOSIGNAL;
        if is_last {
            flags |= MsgFlags::from_bits_retain(MSG_MORE);
        }
        match send(socket, bytes, flags) {
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(0),
            result => Ok(result?),
        }
    }

    /// Sends all bytes, and waits if necessary.
    ///
    /// # Errors
    /// If the connection fails.
    pub(in crate::server) async fn send_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let sent = poll_fn(|cx| self.socket.poll_write(cx, bytes)).await?;
            bytes = &bytes[sent..];
        }
        Ok(())
    }

    /// Receives up to `len` bytes to the start of the shared input buffer. Returns their number.
    fn poll_receive(&mut self, cx: &mut Context<'_>, len: usize) -> Poll<io::Result<usize>> {
        let input = &mut **self.input.borrow_mut();
        let len = len.min(input.len());
        let received = ready!(self.socket.poll_read(cx, &mut input[..len]))?;
        if received > 0 {
            self.timer.bytes_received();
        }
        Poll::Ready(Ok(received))
    }
}

impl<S: Read + Write + AsRawFd + Unpin> hyper::rt::Read for Stream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.pending.is_empty() {
            let len = buf.remaining().min(this.pending.len());
            buf.put_slice(&this.pending[..len]);
            this.pending.drain(..len);
            return Poll::Ready(Ok(()));
        }
        let received = ready!(this.poll_receive(cx, buf.remaining()))?;
        buf.put_slice(&this.input.borrow()[..received]);
        Poll::Ready(Ok(()))
    }
}

impl<S: Read + Write + AsRawFd + Unpin> hyper::rt::Write for Stream<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().socket.poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Does nothing, because the socket is closed next.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Returns whether the bytes hold an empty line, which ends a head. Line ends may lack their carriage return.
fn has_empty_line(bytes: &[u8]) -> bool {
    let line_ends = bytes.windows(2).any(|pair| pair == b"\n\n");
    line_ends || bytes.windows(3).any(|three| three == b"\n\r\n")
}

/// A socket that is registered with the reactor only when it first has to wait.
enum Socket<S: AsRawFd> {
    Unregistered {
        socket: S,
        /// Whether all available bytes were read, so that the next read has to wait.
        is_drained: bool,
    },
    Registered(AsyncFd<S>),
    /// The registration failed.
    Failed,
}

/// The direction of a transfer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    In,
    Out,
}

impl<S: Read + Write + AsRawFd> Socket<S> {
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let wanted = buf.len();
        self.poll(cx, Direction::In, wanted, |socket| socket.read(buf))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let wanted = bytes.len();
        self.poll(cx, Direction::Out, wanted, |socket| socket.write(bytes))
    }

    /// Attempts a transfer of `wanted` bytes, and waits for the reactor only if the socket is not ready.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        direction: Direction,
        wanted: usize,
        mut attempt: impl FnMut(&mut S) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        // The kernel transfers as many bytes as it can. After a short transfer, another attempt would only return
        // `WouldBlock`, so it is skipped: the reactor reports every later change.
        let is_short = |done: usize| (1..wanted).contains(&done);
        if let Self::Unregistered { socket, is_drained } = self {
            let is_read = direction == Direction::In;
            if !(is_read && *is_drained) {
                match attempt(socket) {
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    result => {
                        *is_drained |= is_read && matches!(result, Ok(done) if is_short(done));
                        return Poll::Ready(result);
                    }
                }
            }
        }
        let socket = self.registered()?;
        loop {
            let mut ready = ready!(match direction {
                Direction::In => socket.poll_read_ready_mut(cx),
                Direction::Out => socket.poll_write_ready_mut(cx),
            })?;
            match attempt(ready.get_inner_mut()) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => ready.clear_ready(),
                Ok(done) if is_short(done) => {
                    ready.clear_ready();
                    return Poll::Ready(Ok(done));
                }
                result => return Poll::Ready(result),
            }
        }
    }

    /// Registers the socket with the reactor, unless that is done.
    fn registered(&mut self) -> io::Result<&mut AsyncFd<S>> {
        *self = match std::mem::replace(self, Self::Failed) {
            Self::Unregistered { socket, .. } => Self::Registered(register(socket)?),
            same => same,
        };
        match self {
            Self::Registered(socket) => Ok(socket),
            _ => Err(ErrorKind::NotConnected.into()),
        }
    }
}

/// Registers a socket with the reactor of the calling worker.
#[allow(
    deprecated,
    reason = "the replacement is unsafe, and is not in Debian's tokio"
)]
pub(in crate::server) fn register<S: AsRawFd>(socket: S) -> io::Result<AsyncFd<S>> {
    AsyncFd::new(socket)
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::Duration;

    use mio::net::UnixStream;
    use socket2::SockRef;
    use tokio::runtime::Builder;

    use super::*;
    use crate::server::http::timeouts::InFlight;

    const TIMEOUT: Duration = Duration::from_secs(20);

    /// Runs a test with a stream and its client.
    fn run<F: Future<Output = ()>>(
        test: impl FnOnce(Stream<UnixStream>, std::os::unix::net::UnixStream) -> F,
    ) {
        let (served, client) = std::os::unix::net::UnixStream::pair().unwrap();
        served.set_nonblocking(true).unwrap();
        SockRef::from(&served).set_send_buffer_size(4096).unwrap();
        let input = Rc::new(RefCell::new(vec![0; 8].into()));
        let timer = Rc::new(RequestTimer::new(TIMEOUT, TIMEOUT, InFlight::default()));
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let stream = Stream::new(UnixStream::from_std(served), input, timer);
            test(stream, client).await;
        });
    }

    async fn next(stream: &mut Stream<UnixStream>) -> Vec<u8> {
        let received = stream.receive().await.unwrap();
        stream.input.borrow()[..received].to_vec()
    }

    #[test]
    fn receives_all_bytes_in_any_portions() {
        run(async |mut stream, mut client| {
            client.write_all(b"12345678short").unwrap();
            assert_eq!(next(&mut stream).await, b"12345678");
            assert_eq!(next(&mut stream).await, b"short");
            let later = thread::spawn(move || {
                client.write_all(b"later").unwrap();
                client
            });
            assert_eq!(next(&mut stream).await, b"later", "waits for bytes");
            let mut client = later.join().unwrap();
            client.write_all(b"last").unwrap();
            drop(client);
            assert_eq!(next(&mut stream).await, b"last");
            assert_eq!(next(&mut stream).await, b"", "the end of the connection");
        });
    }

    #[test]
    fn receive_head_waits_for_the_end_of_the_head_only() {
        run(async |mut stream, mut client| {
            stream.input.replace(vec![0; 12].into());
            for (first, more) in [
                (&b"a\n"[..], &b"b\n\r\n"[..]),
                (b"a\r\n", b"\r\n"),
                (b"a\n\r", b"\n"),
            ] {
                stream.unread(first);
                client.write_all(more).unwrap();
                assert!(stream.receive_head().await.unwrap());
                assert_eq!(next(&mut stream).await, [first, more].concat());
            }
            stream.unread(b"a\r\n");
            client.write_all(b"far too long").unwrap();
            assert!(stream.receive_head().await.unwrap(), "the buffer is full");
            assert_eq!(next(&mut stream).await, b"a\r\nfar too l");
            stream.unread(b"a\r\n");
            drop(client);
            assert!(
                !stream.receive_head().await.unwrap(),
                "the connection has ended"
            );
        });
    }

    #[test]
    fn unread_bytes_are_returned_first() {
        run(async |mut stream, mut client| {
            stream.pending = b"pending".to_vec();
            assert_eq!(next(&mut stream).await, b"pending");
            stream.pending = b"!".to_vec();
            stream.unread(b"again");
            client.write_all(b"new").unwrap();
            assert_eq!(next(&mut stream).await, b"again!");
            assert_eq!(next(&mut stream).await, b"new");
        });
    }

    #[test]
    fn send_all_waits_until_everything_is_sent() {
        run(async |mut stream, mut client| {
            let bytes: Vec<_> = (0..300_000_u32).map(|i| i as u8).collect();
            let sent = stream.try_send(&bytes, true).unwrap();
            assert!((1..bytes.len()).contains(&sent), "{sent}");
            assert_eq!(stream.try_send(&bytes[sent..], true).unwrap(), 0);
            let reader = thread::spawn(move || {
                let mut read = Vec::new();
                client.read_to_end(&mut read).unwrap();
                read
            });
            stream.send_all(&bytes[sent..]).await.unwrap();
            drop(stream);
            assert!(reader.join().unwrap() == bytes);
        });
    }
}
