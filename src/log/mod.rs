//! The log: each event is one line and one write. No worker waits for the log; lines that cannot be written are dropped
//! and counted.

mod libraries;
mod line;
mod logger;
mod settings;
mod sink;
mod stderr;
mod syslog;
#[cfg(test)]
mod tests;

use std::fmt::Display;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::Duration;

use self::line::compose;
use self::logger::logger;
use self::sink::Sink;
use self::stderr::{duplicate_stderr, stderr_is_journal};

pub use self::line::{Fields, MAX_LINE_LEN};
pub use self::settings::{Addresses, Facility, Level, Settings, Target, UnknownKeyword};

/// Opens the log with these settings, and receives the messages of libraries from then on. Before the first call, lines
/// go to standard error.
///
/// Call this before privileges are dropped, and at each reload: a second call changes only the settings that differ.
///
/// A missing `/dev/log` is not an error: a warning is written to standard error, and lines are dropped and counted
/// until the socket exists.
///
/// # Errors
/// When the process has no file descriptors left. The log then keeps its settings.
pub fn init(settings: &Settings) -> io::Result<()> {
    logger().apply(settings)?;
    libraries::receive_messages(settings.level);
    Ok(())
}

/// Writes an error to standard error, for a user who waits for the result of a command. The journal also gets its priority.
pub fn error_on_stderr(line: &str) {
    let journal = duplicate_stderr().is_ok_and(|stderr| stderr_is_journal(&stderr));
    let priority = match journal {
        true => format!("<{}>", Level::Error as u8),
        false => String::new(),
    };
    // If standard error is closed, there is no place to report it.
    let _ = io::stderr().write_all(format!("{priority}{line}\n").as_bytes());
}

/// Reports an error before the log is configured: to standard error and, unless that is a terminal or the journal, also
/// to syslog. An init script, for example, can discard standard error.
pub fn error_before_init(line: &str) {
    error_on_stderr(line);
    let settings = Settings::default();
    if let Ok(Sink::Syslog(syslog)) = Sink::open(&settings) {
        let _ = syslog.write(Level::Error, &compose(line, &[]));
    }
}

/// Sets the least important level that is written.
pub fn set_level(level: Level) {
    logger().level.store(level as u8, Relaxed);
    libraries::receive_messages(level);
}

/// Returns the least important level that is written.
pub fn level() -> Level {
    let level = logger().level.load(Relaxed);
    let levels = [Level::Error, Level::Warning, Level::Notice, Level::Info];
    let known = levels.into_iter().find(|known| *known as u8 == level);
    known.unwrap_or(Level::Debug)
}

/// Returns whether lines of this level are written. Check this before computing fields that are expensive.
pub fn enabled(level: Level) -> bool {
    logger().enabled(level)
}

/// Logs that an operation failed.
pub fn error(message: &str, fields: Fields<'_>) {
    logger().write(Level::Error, message, fields);
}

/// Logs a condition that an operator should look into.
pub fn warning(message: &str, fields: Fields<'_>) {
    logger().write(Level::Warning, message, fields);
}

/// Logs an event that is normal and rare.
pub fn notice(message: &str, fields: Fields<'_>) {
    logger().write(Level::Notice, message, fields);
}

/// Logs a normal event.
pub fn info(message: &str, fields: Fields<'_>) {
    logger().write(Level::Info, message, fields);
}

/// Logs a detail that helps to find the cause of a problem. Such lines must be limited in rate by their caller, and
/// must not contain a client address, except as [`client`] displays it.
pub fn debug(message: &str, fields: Fields<'_>) {
    logger().write(Level::Debug, message, fields);
}

/// Returns a client's address as the settings allow it in a line.
pub fn client(address: IpAddr) -> impl Display {
    let addresses = match logger().addresses.load(Relaxed) {
        0 => Addresses::Off,
        1 => Addresses::Masked,
        _ => Addresses::Full,
    };
    addresses.show(address)
}

/// Logs the number of dropped lines, if the receiver accepts lines again. The next line also does this; call this from
/// a timer and at shutdown, when there may be no next line.
pub fn report_dropped() {
    logger().report_dropped(&logger().sink(), Duration::ZERO);
}

/// Returns the number of lines dropped since the start, reported or not.
pub fn dropped_total() -> usize {
    logger().dropped_total.load(Relaxed)
}

/// Makes each panic one line of the log. Rust's own message is written in several pieces, and never to syslog.
pub fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let payload = panic.payload();
        let reason = payload.downcast_ref::<&str>().copied();
        let reason = reason.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        let location = panic
            .location()
            .map_or_else(|| "-".to_owned(), ToString::to_string);
        let thread = thread::current();
        error(
            "tbtt panicked; report this line as a bug",
            &[
                ("reason", &reason.unwrap_or("-")),
                ("place", &location),
                ("thread", &thread.name().unwrap_or("-")),
            ],
        );
    }));
}
