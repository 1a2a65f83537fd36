//! A client's socket as hyper reads and writes it, and how long the client may take.

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

/// A client's socket.
pub(in crate::server) struct Stream<S: AsRawFd> {
    socket: Socket<S>,
    /// Received already, and still to be given to hyper.
    pending: Vec<u8>,
    /// What the kernel has to give goes through here to hyper's own buffers; all of a worker's connections share it.
    input: Rc<RefCell<Box<[u8]>>>,
    pace: Rc<RequestTimer>,
}

impl<S: AsRawFd> Stream<S> {
    pub(in crate::server) fn new(
        socket: S,
        input: Rc<RefCell<Box<[u8]>>>,
        pace: Rc<RequestTimer>,
    ) -> Self {
        Self {
            socket: Socket::Unregistered {
                socket,
                is_drained: false,
            },
            pending: Vec::new(),
            input,
            pace,
        }
    }
}

impl<S: Read + Write + AsRawFd + Unpin> Stream<S> {
    /// Takes what a connection begins with by the PROXY protocol, and tells for whom it is: `None` is `peer`'s own.
    ///
    /// # Errors
    /// When the connection ends before, or begins with anything else.
    pub(in crate::server) async fn proxy_header(
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

    /// The next bytes, as many as have come and fit, at the beginning of the shared input; 0 at the connection's end.
    ///
    /// # Errors
    /// When the connection fails.
    pub(in crate::server) async fn receive(&mut self) -> io::Result<usize> {
        if self.pending.is_empty() {
            return poll_fn(|cx| self.poll_receive(cx, usize::MAX)).await;
        }
        let input = &mut **self.input.borrow_mut();
        let most = self.pending.len().min(input.len());
        input[..most].copy_from_slice(&self.pending[..most]);
        self.pending.drain(..most);
        Ok(most)
    }

    /// Adds to what was given back until a request's head may be whole in it, or it is as long as [`Self::receive`] gives at
    /// once; `false` at the connection's end.
    ///
    /// # Errors
    /// When the connection fails.
    pub(in crate::server) async fn receive_head(&mut self) -> io::Result<bool> {
        loop {
            let seen = self.pending.len();
            let room = self.input.borrow().len().saturating_sub(seen);
            if room == 0 {
                return Ok(true);
            }
            let received = poll_fn(|cx| self.poll_receive(cx, room)).await?;
            if received == 0 {
                return Ok(false);
            }
            self.pending
                .extend_from_slice(&self.input.borrow()[..received]);
            // Each byte is looked at once, or whoever sends them one by one would have all looked at each time.
            if has_empty_line(&self.pending[seen.saturating_sub(2)..]) {
                return Ok(true);
            }
        }
    }

    /// Undoes a [`Self::receive`]: these bytes come again, for hyper.
    pub(in crate::server) fn refund(&mut self, input: &[u8]) {
        self.pending.splice(..0, input.iter().copied());
    }

    /// A request has come in whole, and its answer is about to be written.
    pub(in crate::server) fn answered(&self) {
        self.pace.answered();
    }

    /// Sends what there is room for at once, and tells how much that was. With the last bytes of all, the connection's
    /// end travels in the same packet.
    ///
    /// # Errors
    /// When the connection fails.
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

    /// Sends the rest.
    ///
    /// # Errors
    /// When the connection fails.
    pub(in crate::server) async fn send_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let sent = poll_fn(|cx| self.socket.poll_write(cx, bytes)).await?;
            bytes = &bytes[sent..];
        }
        Ok(())
    }

    /// Reads up to `most` bytes to the beginning of the shared input; tells how many came.
    fn poll_receive(&mut self, cx: &mut Context<'_>, most: usize) -> Poll<io::Result<usize>> {
        let input = &mut **self.input.borrow_mut();
        let most = most.min(input.len());
        let received = ready!(self.socket.poll_read(cx, &mut input[..most]))?;
        if received > 0 {
            self.pace.received();
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
            let most = buf.remaining().min(this.pending.len());
            buf.put_slice(&this.pending[..most]);
            this.pending.drain(..most);
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

    /// The close that follows says the same.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Ends a head; its line ends may lack their carriage return.
fn has_empty_line(bytes: &[u8]) -> bool {
    let line_ends = bytes.windows(2).any(|pair| pair == b"\n\n");
    line_ends || bytes.windows(3).any(|three| three == b"\n\r\n")
}

/// Known to the reactor only from the first time that it must wait.
enum Socket<S: AsRawFd> {
    Unregistered {
        socket: S,
        /// All that had come has been read, so the next read is one that waits.
        is_drained: bool,
    },
    Registered(AsyncFd<S>),
    /// The reactor did not take it.
    Failed,
}

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

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        direction: Direction,
        wanted: usize,
        mut attempt: impl FnMut(&mut S) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        // The kernel gives or takes all that it can. After less than was wanted there is no need to be told once more that
        // now there is nothing: the reactor learns of every change.
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

/// Makes a socket known to the calling worker's reactor.
#[allow(
    deprecated,
    reason = "what replaces it is younger than Debian's tokio, and unsafe"
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

    const SOON: Duration = Duration::from_secs(20);

    /// A stream with its client, on a runtime of their own.
    fn run<F: Future<Output = ()>>(
        test: impl FnOnce(Stream<UnixStream>, std::os::unix::net::UnixStream) -> F,
    ) {
        let (served, client) = std::os::unix::net::UnixStream::pair().unwrap();
        served.set_nonblocking(true).unwrap();
        SockRef::from(&served).set_send_buffer_size(4096).unwrap();
        let input = Rc::new(RefCell::new(vec![0; 8].into()));
        let pace = Rc::new(RequestTimer::new(SOON, SOON, InFlight::default()));
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let stream = Stream::new(UnixStream::from_std(served), input, pace);
            test(stream, client).await;
        });
    }

    async fn next(stream: &mut Stream<UnixStream>) -> Vec<u8> {
        let received = stream.receive().await.unwrap();
        stream.input.borrow()[..received].to_vec()
    }

    #[test]
    fn all_that_comes_is_received_however_it_comes() {
        run(async |mut stream, mut client| {
            client.write_all(b"12345678short").unwrap();
            assert_eq!(next(&mut stream).await, b"12345678");
            assert_eq!(next(&mut stream).await, b"short");
            let later = thread::spawn(move || {
                client.write_all(b"later").unwrap();
                client
            });
            assert_eq!(next(&mut stream).await, b"later", "it waits");
            let mut client = later.join().unwrap();
            client.write_all(b"last").unwrap();
            drop(client);
            assert_eq!(next(&mut stream).await, b"last");
            assert_eq!(next(&mut stream).await, b"", "the end is seen, too");
        });
    }

    #[test]
    fn a_head_in_pieces_is_waited_for_to_its_end_and_no_further() {
        run(async |mut stream, mut client| {
            stream.input.replace(vec![0; 12].into());
            for (begun, more) in [
                (&b"a\n"[..], &b"b\n\r\n"[..]),
                (b"a\r\n", b"\r\n"),
                (b"a\n\r", b"\n"),
            ] {
                stream.refund(begun);
                client.write_all(more).unwrap();
                assert!(stream.receive_head().await.unwrap());
                assert_eq!(next(&mut stream).await, [begun, more].concat());
            }
            stream.refund(b"a\r\n");
            client.write_all(b"far too long").unwrap();
            assert!(stream.receive_head().await.unwrap(), "no room for more");
            assert_eq!(next(&mut stream).await, b"a\r\nfar too l");
            stream.refund(b"a\r\n");
            drop(client);
            assert!(!stream.receive_head().await.unwrap(), "the end");
        });
    }

    #[test]
    fn what_is_given_back_comes_first() {
        run(async |mut stream, mut client| {
            stream.pending = b"pending".to_vec();
            assert_eq!(next(&mut stream).await, b"pending");
            stream.pending = b"!".to_vec();
            stream.refund(b"again");
            client.write_all(b"new").unwrap();
            assert_eq!(next(&mut stream).await, b"again!");
            assert_eq!(next(&mut stream).await, b"new");
        });
    }

    #[test]
    fn what_finds_no_room_at_once_is_sent_as_there_is() {
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
