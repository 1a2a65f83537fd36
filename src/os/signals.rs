//! Signals of the operator to the running process.

use std::future::poll_fn;
use std::io;
use std::task::Poll;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// A request of the operator, sent as a signal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Request {
    /// SIGTERM or SIGINT: respond to the requests in progress, save the state, exit.
    Stop,
    /// SIGHUP: read the configuration again.
    Reload,
    /// SIGUSR1: save the state now.
    Snapshot,
}

/// Receives requests. Signals that arrive before the first call of [`Requests::next`] are not lost; equal signals may
/// be merged.
#[derive(Debug)]
pub struct Requests([(Signal, Request); 4]);

impl Requests {
    /// Installs the signal handlers. Without them, these signals end the process. SIGPIPE is ignored already, by Rust's
    /// start-up code.
    ///
    /// # Errors
    /// When the kernel refuses, or the process has no file descriptors left.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O.
    pub fn listen() -> io::Result<Self> {
        // By importance: if several requests wait, a stop is returned first.
        Ok(Self([
            (signal(SignalKind::terminate())?, Request::Stop),
            (signal(SignalKind::interrupt())?, Request::Stop),
            (signal(SignalKind::hangup())?, Request::Reload),
            (signal(SignalKind::user_defined1())?, Request::Snapshot),
        ]))
    }

    /// Waits for the next request. The future can be dropped and created again without losing a request.
    pub async fn next(&mut self) -> Request {
        poll_fn(|context| {
            let mut ready =
                self.0
                    .iter_mut()
                    .filter_map(|(signal, request)| match signal.poll_recv(context) {
                        Poll::Ready(Some(())) => Some(*request),
                        _ => None,
                    });
            ready.next().map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::signal::{Signal as Number, raise};

    #[test]
    fn maps_signals_to_requests_and_returns_stop_first() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut requests = Requests::listen().unwrap();
            let expected = [
                (Number::SIGHUP, Request::Reload),
                (Number::SIGUSR1, Request::Snapshot),
                (Number::SIGTERM, Request::Stop),
                (Number::SIGINT, Request::Stop),
                (Number::SIGHUP, Request::Reload),
            ];
            for (number, request) in expected {
                raise(number).unwrap();
                assert_eq!(requests.next().await, request);
            }
            raise(Number::SIGHUP).unwrap();
            raise(Number::SIGTERM).unwrap();
            assert_eq!(requests.next().await, Request::Stop);
            assert_eq!(requests.next().await, Request::Reload);
        });
    }
}
