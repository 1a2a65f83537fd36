//! How long a client may take.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::time::{Sleep, sleep_until};

/// How long a view may take: 100,000 releases on a machine that has other things to do.
const ANSWERED_WITHIN: Duration = Duration::from_secs(60);

/// How many requests a worker has begun to receive and not answered yet.
pub(in crate::server) type InFlight = Rc<Cell<usize>>;

/// By when a connection must have come on, or be cut.
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

    pub(super) fn received(&self) {
        if !self.in_request.replace(true) {
            self.in_flight.set(self.in_flight.get() + 1);
            self.deadline.set(Instant::now() + self.header_timeout);
        }
    }

    /// A request has come in whole, and its answer takes time that is not the client's.
    pub(in crate::server) fn heard(&self) {
        self.deadline.set(Instant::now() + ANSWERED_WITHIN);
    }

    /// A request has come in whole, and its answer is about to be written.
    pub(in crate::server) fn answered(&self) {
        if self.in_request.replace(false) {
            self.in_flight.set(self.in_flight.get() - 1);
        }
        self.deadline.set(Instant::now() + self.idle_timeout);
    }

    /// Ready once the deadline has passed. The timer is made when a connection first has to wait: most never do. It is
    /// moved only when it must ring earlier, or has rung too early: else each request would move it twice.
    pub(in crate::server) fn poll_overdue(
        &self,
        timer: &mut Option<Pin<Box<Sleep>>>,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        let deadline = self.deadline.get().into();
        let timer = timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if timer.deadline() > deadline {
            timer.as_mut().reset(deadline);
        }
        loop {
            ready!(timer.as_mut().poll(cx));
            if timer.deadline() >= deadline {
                return Poll::Ready(());
            }
            timer.as_mut().reset(deadline);
        }
    }
}

impl Drop for RequestTimer {
    fn drop(&mut self) {
        self.answered();
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::runtime::Builder;

    use super::*;

    #[test]
    fn the_time_of_an_answer_is_not_the_clients() {
        let overdue = |pace: &RequestTimer| {
            let pace = poll_fn(|cx| Poll::Ready(pace.poll_overdue(&mut None, cx).is_ready()));
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(pace)
        };
        let pace = RequestTimer::new(Duration::ZERO, Duration::ZERO, InFlight::default());
        pace.received();
        assert!(overdue(&pace), "for the rest of the request");
        pace.heard();
        assert!(!overdue(&pace), "while it is answered");
        pace.answered();
        assert!(overdue(&pace), "for the next request");
    }
}
