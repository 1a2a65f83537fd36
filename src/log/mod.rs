//! The log: one event is one line and one write, whole and at once; no worker waits for it, and what it must drop it counts.

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
use self::logger::log;
use self::sink::Sink;
use self::stderr::{duplicate_stderr, stderr_is_journal};

pub use self::line::{Fields, LINE_MAX};
pub use self::settings::{Addresses, Facility, Level, Settings, Target, UnknownWord};

/// Opens the log as the settings say; before that, lines go to standard error. To be called before privileges are dropped,
/// and again at a reload, when it changes what the settings changed.
///
/// That nobody listens at `/dev/log` yet is no error: it is told on standard error, and lines are dropped and counted until
/// somebody does.
///
/// # Errors
/// When the process has no file descriptors left. The log then stays as it was.
pub fn init(settings: &Settings) -> io::Result<()> {
    log().apply(settings)
}

/// An error as it is, on standard error, for who has asked. The journal is told how urgent it is.
pub fn error_on_stderr(line: &str) {
    let journal = duplicate_stderr().is_ok_and(|stderr| stderr_is_journal(&stderr));
    let priority = match journal {
        true => format!("<{}>", Level::Error as u8),
        false => String::new(),
    };
    // If nobody takes it, there is nobody to tell.
    let _ = io::stderr().write_all(format!("{priority}{line}\n").as_bytes());
}

/// An error before [`init`], as what would say where to is at fault itself: on standard error, and where that is neither
/// journal nor terminal, as in an init script, to syslog too.
pub fn error_before_init(line: &str) {
    error_on_stderr(line);
    let settings = Settings::default();
    if let Ok(Sink::Syslog(syslog)) = Sink::open(&settings) {
        let _ = syslog.write(Level::Error, &compose(line, &[]));
    }
}

/// Writes lines as urgent as this and more so from now on.
pub fn set_level(level: Level) {
    log().level.store(level as u8, Relaxed);
}

/// The least urgent level that is written.
pub fn level() -> Level {
    let level = log().level.load(Relaxed);
    let levels = [Level::Error, Level::Warning, Level::Notice, Level::Info];
    let known = levels.into_iter().find(|known| *known as u8 == level);
    known.unwrap_or(Level::Debug)
}

/// Whether a line of this level would be written: asked where the fields are dear to come by.
pub fn enabled(level: Level) -> bool {
    log().enabled(level)
}

/// Something asked for does not work.
pub fn error(sentence: &str, fields: Fields<'_>) {
    log().write(Level::Error, sentence, fields);
}

/// It works, but somebody should look.
pub fn warning(sentence: &str, fields: Fields<'_>) {
    log().write(Level::Warning, sentence, fields);
}

/// Normal and rare.
pub fn notice(sentence: &str, fields: Fields<'_>) {
    log().write(Level::Notice, sentence, fields);
}

pub fn info(sentence: &str, fields: Fields<'_>) {
    log().write(Level::Info, sentence, fields);
}

pub fn debug(sentence: &str, fields: Fields<'_>) {
    log().write(Level::Debug, sentence, fields);
}

/// A client's address as far as the settings let a line show it.
pub fn client(address: IpAddr) -> impl Display {
    let addresses = match log().addresses.load(Relaxed) {
        0 => Addresses::Off,
        1 => Addresses::Masked,
        _ => Addresses::Full,
    };
    addresses.show(address)
}

/// Tells how many lines were dropped if the receiver takes lines again. The next line does so by itself: this is for a timer
/// and for the stop, when there may be no next line.
pub fn report_dropped() {
    log().tell_dropped(&log().sink(), Duration::ZERO);
}

/// Lines dropped since the start, told or not.
pub fn dropped_total() -> usize {
    log().dropped_total.load(Relaxed)
}

/// Makes a panic a line of the log, whole and at once; Rust's own message comes in pieces and knows no syslog.
pub fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let payload = panic.payload();
        let reason = payload.downcast_ref::<&str>().copied();
        let reason = reason.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        let place = panic
            .location()
            .map_or_else(|| "-".to_owned(), ToString::to_string);
        let thread = thread::current();
        error(
            "panicked",
            &[
                ("reason", &reason.unwrap_or("-")),
                ("place", &place),
                ("thread", &thread.name().unwrap_or("-")),
            ],
        );
    }));
}
