//! What the operator asks of the running process by signals.

use std::future::poll_fn;
use std::io;
use std::task::Poll;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// What is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Request {
    /// SIGTERM or SIGINT: answer what is in flight, save the state, exit.
    Stop,
    /// SIGHUP: read the configuration again.
    Reload,
    /// SIGUSR1: save the state now.
    Snapshot,
}

/// Requests as they come. Signals that came before the first call are not lost, equal ones may be merged.
#[derive(Debug)]
pub struct Requests([(Signal, Request); 4]);

impl Requests {
    /// Takes the signals over from their default, which is to end the process. SIGPIPE is ignored by Rust's start already.
    ///
    /// # Errors
    /// When the kernel refuses, or the process has no file descriptors left.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O.
    pub fn listen() -> io::Result<Self> {
        // In order of weight: of two that wait, the stop is told first.
        Ok(Self([
            (signal(SignalKind::terminate())?, Request::Stop),
            (signal(SignalKind::interrupt())?, Request::Stop),
            (signal(SignalKind::hangup())?, Request::Reload),
            (signal(SignalKind::user_defined1())?, Request::Snapshot),
        ]))
    }

    /// Waits for the next request. May be dropped and called again: nothing is lost.
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
    fn each_signal_is_the_request_it_stands_for_and_stop_comes_first() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut requests = Requests::listen().unwrap();
            let meanings = [
                (Number::SIGHUP, Request::Reload),
                (Number::SIGUSR1, Request::Snapshot),
                (Number::SIGTERM, Request::Stop),
                (Number::SIGINT, Request::Stop),
                (Number::SIGHUP, Request::Reload),
            ];
            for (number, request) in meanings {
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
