//! Logs how long each step of a procedure takes, to find out why a start or a reload is slow.

use std::time::Instant;

use crate::log;

/// Measures steps that follow each other.
pub(super) struct StepTimer {
    message: &'static str,
    last: Instant,
}

impl StepTimer {
    /// Starts the first step. Lines begin with `message`.
    pub(super) fn start(message: &'static str) -> Self {
        Self {
            message,
            last: Instant::now(),
        }
    }

    /// Logs that a step is finished, at level debug, and starts the next.
    pub(super) fn finished(&mut self, step: &'static str) {
        let now = Instant::now();
        let milliseconds = now.duration_since(self.last).as_millis();
        let fields: log::Fields<'_> = &[("step", &step), ("milliseconds", &milliseconds)];
        log::debug(self.message, fields);
        self.last = now;
    }
}
