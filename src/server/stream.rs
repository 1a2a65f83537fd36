//! A client's socket as hyper reads and writes it, and how long the client may take.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::{self, ErrorKind, Read, Write};
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use hyper::rt::ReadBufCursor;
use tokio::io::unix::AsyncFd;
use tokio::time::{Sleep, sleep_until};

use crate::server::proxy::Preamble;

/// How many requests a worker has begun to receive and not answered yet.
pub(super) type InRequests = Rc<Cell<usize>>;

/// By when a connection must have come on, or be cut.
pub(super) struct Pace {
    header_timeout: Duration,
    idle_timeout: Duration,
    deadline: Cell<Instant>,
    in_request: Cell<bool>,
    in_requests: InRequests,
}

impl Pace {
    pub(super) fn new(
        header_timeout: Duration,
        idle_timeout: Duration,
        in_requests: InRequests,
    ) -> Self {
        let deadline = Cell::new(Instant::now() + header_timeout);
        Self {
            header_timeout,
            idle_timeout,
            deadline,
            in_request: Cell::new(false),
            in_requests,
        }
    }

    fn received(&self) {
        if !self.in_request.replace(true) {
            self.in_requests.set(self.in_requests.get() + 1);
            self.deadline.set(Instant::now() + self.header_timeout);
        }
    }

    /// A request has come in whole, and its answer is about to be written.
    pub(super) fn answered(&self) {
        if self.in_request.replace(false) {
            self.in_requests.set(self.in_requests.get() - 1);
        }
        self.deadline.set(Instant::now() + self.idle_timeout);
    }

    /// Ready once the deadline has passed. The timer is made when a connection first has to wait: most never do.
    pub(super) fn poll_overdue(
        &self,
        timer: &mut Option<Pin<Box<Sleep>>>,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        let deadline = self.deadline.get().into();
        let timer = timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if timer.deadline() != deadline {
            timer.as_mut().reset(deadline);
        }
        timer.as_mut().poll(cx)
    }
}

impl Drop for Pace {
    fn drop(&mut self) {
        self.answered();
    }
}

/// A client's socket.
pub(super) struct Stream<S: AsRawFd> {
    socket: Socket<S>,
    /// Received already, and still to be given to hyper.
    pending: Vec<u8>,
    /// What the kernel has to give goes through here to hyper's own buffers; all of a worker's connections share it.
    input: Rc<RefCell<Box<[u8]>>>,
    pace: Rc<Pace>,
}

impl<S: AsRawFd> Stream<S> {
    pub(super) fn new(socket: S, input: Rc<RefCell<Box<[u8]>>>, pace: Rc<Pace>) -> Self {
        Self {
            socket: Socket::Unregistered(socket),
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
    pub(super) async fn preamble(&mut self, peer: Option<IpAddr>) -> io::Result<Option<IpAddr>> {
        loop {
            let (length, client) = match Preamble::parse(&self.pending) {
                Preamble::Proxied { length, client } => (length, Some(client.ip())),
                Preamble::Local { length } => (length, peer),
                Preamble::Invalid => return Err(ErrorKind::InvalidData.into()),
                Preamble::Incomplete if poll_fn(|cx| self.poll_receive(cx)).await? == 0 => {
                    return Err(ErrorKind::UnexpectedEof.into());
                }
                Preamble::Incomplete => continue,
            };
            self.pending.drain(..length);
            return Ok(client);
        }
    }

    /// Adds to `pending` what has come in; tells how much.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let input = &mut **self.input.borrow_mut();
        let received = ready!(
            self.socket
                .poll(cx, Direction::In, |socket| socket.read(input))
        )?;
        if received > 0 {
            self.pace.received();
        }
        self.pending.extend_from_slice(&input[..received]);
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
        let input = &mut **this.input.borrow_mut();
        let most = buf.remaining().min(input.len());
        let received = ready!(
            this.socket
                .poll(cx, Direction::In, |socket| socket.read(&mut input[..most]))
        )?;
        if received > 0 {
            this.pace.received();
        }
        buf.put_slice(&input[..received]);
        Poll::Ready(Ok(()))
    }
}

impl<S: Read + Write + AsRawFd + Unpin> hyper::rt::Write for Stream<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.get_mut()
            .socket
            .poll(cx, Direction::Out, |socket| socket.write(buf))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// The close that follows says the same.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Known to the reactor only from the first time that it must wait.
enum Socket<S: AsRawFd> {
    Unregistered(S),
    Registered(AsyncFd<S>),
    /// The reactor did not take it.
    Failed,
}

#[derive(Clone, Copy)]
enum Direction {
    In,
    Out,
}

impl<S: AsRawFd> Socket<S> {
    fn poll<T>(
        &mut self,
        cx: &mut Context<'_>,
        direction: Direction,
        mut attempt: impl FnMut(&mut S) -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        if let Self::Unregistered(socket) = self {
            match attempt(socket) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
        let socket = self.registered()?;
        loop {
            let mut ready = ready!(match direction {
                Direction::In => socket.poll_read_ready_mut(cx),
                Direction::Out => socket.poll_write_ready_mut(cx),
            })?;
            // An error of this kind is one more "would block".
            if let Ok(result) = ready.try_io(|socket| attempt(socket.get_mut())) {
                return Poll::Ready(result);
            }
        }
    }

    fn registered(&mut self) -> io::Result<&mut AsyncFd<S>> {
        *self = match std::mem::replace(self, Self::Failed) {
            Self::Unregistered(socket) => Self::Registered(register(socket)?),
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
pub(super) fn register<S: AsRawFd>(socket: S) -> io::Result<AsyncFd<S>> {
    AsyncFd::new(socket)
}
