//! Time limits for a connection: how long a client may take to send a request and to read its response.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::time::{Sleep, sleep_until};

/// Maximum time to create a response for an operator. Enough for 100,000 releases on a busy machine.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(60);

/// Number of requests that a worker has begun to receive and not responded to yet.
pub(in crate::server) type InFlight = Rc<Cell<usize>>;

/// The deadline of a connection's current step: receiving a request, creating a response, or waiting for the next request.
pub(in crate::server) struct RequestTimer {
    header_timeout: Duration,
    idle_timeout: Duration,
    deadline: Cell<Instant>,
    in_request: Cell<bool>,
    in_flight: InFlight,
}

impl RequestTimer {
    pub(in crate::server) fn new(
        header_timeout: Duration,
        idle_timeout: Duration,
        in_flight: InFlight,
    ) -> Self {
        let deadline = Cell::new(Instant::now() + header_timeout);
        Self {
            header_timeout,
            idle_timeout,
            deadline,
            in_request: Cell::new(false),
            in_flight,
        }
    }

    /// Records that bytes were received. The first bytes of a request start its header timeout.
    pub(super) fn bytes_received(&self) {
        if !self.in_request.replace(true) {
            self.in_flight.set(self.in_flight.get() + 1);
            self.deadline.set(Instant::now() + self.header_timeout);
        }
    }

    /// Records that a complete request was received, and that creating its response takes time, which does not count
    /// for the client.
    pub(in crate::server) fn response_started(&self) {
        self.deadline.set(Instant::now() + RESPONSE_TIMEOUT);
    }

    /// Records that a complete request was received, and that its response is about to be written.
    pub(in crate::server) fn response_ready(&self) {
        if self.in_request.replace(false) {
            self.in_flight.set(self.in_flight.get() - 1);
        }
        self.deadline.set(Instant::now() + self.idle_timeout);
    }

    /// Returns `Ready` after the deadline.
    ///
    /// The sleep is created when a connection first has to wait, because most connections never wait. It is reset only if
    /// the deadline moved earlier or the sleep ended early; otherwise every request would reset it twice.
    pub(in crate::server) fn poll_overdue(
        &self,
        sleep: &mut Option<Pin<Box<Sleep>>>,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        let deadline = self.deadline.get().into();
        let sleep = sleep.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if sleep.deadline() > deadline {
            sleep.as_mut().reset(deadline);
        }
        loop {
            ready!(sleep.as_mut().poll(cx));
            if sleep.deadline() >= deadline {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline);
        }
    }
}

impl Drop for RequestTimer {
    fn drop(&mut self) {
        self.response_ready();
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::runtime::Builder;

    use super::*;

    #[test]
    fn time_to_create_a_response_does_not_count_for_the_client() {
        let overdue = |timer: &RequestTimer| {
            let poll = poll_fn(|cx| Poll::Ready(timer.poll_overdue(&mut None, cx).is_ready()));
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(poll)
        };
        let timer = RequestTimer::new(Duration::ZERO, Duration::ZERO, InFlight::default());
        timer.bytes_received();
        assert!(overdue(&timer), "while the request is incomplete");
        timer.response_started();
        assert!(!overdue(&timer), "while the response is created");
        timer.response_ready();
        assert!(overdue(&timer), "while waiting for the next request");
    }
}
