//! The log: one event is one line and one write, whole and at once; no worker waits for it, and what it must drop it counts.

use std::fmt::{self, Display, Write as _};
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, IsTerminal, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, RwLock};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::lock::{lock, read, write};
use crate::utc::Utc;
use nix::libc::{MSG_DONTWAIT, MSG_NOSIGNAL, O_NOCTTY, O_NONBLOCK};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{getpid, gettid};
use syslog::{LogFormat, Severity};

/// The longest line in bytes, its prefix and newline included: `PIPE_BUF`, the most that a pipe takes whole or not
/// at all (pipe(7)). A longer one is cut and ends in `cut=yes`.
pub const LINE_MAX: usize = 4096;

/// Kept free for what stands before the sentence: priority, name and pid, or time and level.
const PREFIX_MAX: usize = 64;

/// A receiver that takes a line now and then must not be fed on these reports alone.
const TELL_DROPPED_EVERY: Duration = Duration::from_secs(1);

const CUT_MARK: &str = " cut=yes";

const NAME: &str = env!("CARGO_PKG_NAME");

/// What `[log]` says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    pub target: Target,
    /// Lines less urgent than this are not written.
    pub level: Level,
    /// Only syslog knows it.
    pub facility: Facility,
    pub addresses: Addresses,
    /// Where syslog listens; only tests use another than `/dev/log`.
    pub socket: PathBuf,
}

impl Settings {
    fn same_place(&self, other: &Self) -> bool {
        (self.target, self.facility, &self.socket) == (other.target, other.facility, &other.socket)
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            target: Target::Auto,
            level: Level::Info,
            facility: Facility::default(),
            addresses: Addresses::Off,
            socket: PathBuf::from("/dev/log"),
        }
    }
}

/// Refused: not one of the words that this key takes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UnknownWord {
    pub word: String,
    pub allowed: &'static str,
}

impl Display for UnknownWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\" is not one of {}", self.word, self.allowed)
    }
}

impl std::error::Error for UnknownWord {}

macro_rules! words {
    ($type:ident, $allowed:literal, $($variant:ident = $word:literal),+) => {
        impl FromStr for $type {
            type Err = UnknownWord;

            fn from_str(word: &str) -> Result<Self, UnknownWord> {
                match word {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(UnknownWord { word: word.to_owned(), allowed: $allowed }),
                }
            }
        }

        impl Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Self::$variant => $word),+ })
            }
        }
    };
}

/// Where lines go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    /// Standard error if that is a terminal or the journal, or if syslog has no socket here; else syslog.
    Auto,
    Syslog,
    Stderr,
}

words!(
    Target,
    "auto, syslog, stderr",
    Auto = "auto",
    Syslog = "syslog",
    Stderr = "stderr"
);

/// How urgent a line is, with syslog's numbers (syslog(3)).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum Level {
    /// Something asked for does not work.
    Error = 3,
    /// It works, but somebody should look.
    Warning = 4,
    /// Normal and rare: start, stop, reload.
    Notice = 5,
    Info = 6,
    Debug = 7,
}

words!(
    Level,
    "error, warning, notice, info, debug",
    Error = "error",
    Warning = "warning",
    Notice = "notice",
    Info = "info",
    Debug = "debug"
);

impl Level {
    fn severity(self) -> Severity {
        match self {
            Self::Error => Severity::LOG_ERR,
            Self::Warning => Severity::LOG_WARNING,
            Self::Notice => Severity::LOG_NOTICE,
            Self::Info => Severity::LOG_INFO,
            Self::Debug => Severity::LOG_DEBUG,
        }
    }
}

/// How much of a client's address a line may show.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Addresses {
    /// Nothing: `-`.
    Off,
    /// Its network: /24 of IPv4, /48 of IPv6.
    Masked,
    Full,
}

words!(
    Addresses,
    "off, masked, full",
    Off = "off",
    Masked = "masked",
    Full = "full"
);

impl Addresses {
    /// The address as a line may show it. An IPv4 address mapped into IPv6 shows as IPv4.
    pub fn show(self, address: IpAddr) -> impl Display {
        ShownAddress {
            address: address.to_canonical(),
            addresses: self,
        }
    }
}

struct ShownAddress {
    address: IpAddr,
    addresses: Addresses,
}

impl Display for ShownAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.addresses, self.address) {
            (Addresses::Off, _) => f.write_str("-"),
            (Addresses::Full, address) => address.fmt(f),
            (Addresses::Masked, IpAddr::V4(v4)) => {
                write!(
                    f,
                    "{}/24",
                    Ipv4Addr::from_bits(v4.to_bits() & (u32::MAX << 8))
                )
            }
            (Addresses::Masked, IpAddr::V6(v6)) => {
                write!(
                    f,
                    "{}/48",
                    Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 80))
                )
            }
        }
    }
}

/// A syslog facility: `daemon`, `local0` to `local7` and the others of syslog(3).
#[derive(Clone, Copy, Debug)]
pub struct Facility(syslog::Facility);

impl Default for Facility {
    fn default() -> Self {
        Self(syslog::Facility::LOG_DAEMON)
    }
}

impl PartialEq for Facility {
    fn eq(&self, other: &Self) -> bool {
        self.0 as u8 == other.0 as u8
    }
}

impl Eq for Facility {}

impl FromStr for Facility {
    type Err = UnknownWord;

    /// Refuses `kern`, which the receiver takes from the kernel alone.
    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        let known = word.parse().map(Self).ok();
        known.filter(|facility| facility.to_string() == word && word != "kern").ok_or_else(|| UnknownWord {
            word: word.to_owned(),
            allowed: "daemon, local0 to local7, user, auth, authpriv, cron, ftp, lpr, mail, news, syslog, uucp",
        })
    }
}

impl Display for Facility {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = format!("{:?}", self.0);
        f.write_str(&name.trim_start_matches("LOG_").to_ascii_lowercase())
    }
}

/// What a line says after its sentence: `key=value`, keys in lower case, in the order given.
pub type Fields<'a> = &'a [(&'a str, &'a dyn Display)];

static LOG: OnceLock<Log> = OnceLock::new();

fn log() -> &'static Log {
    LOG.get_or_init(Log::early)
}

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

struct Log {
    level: AtomicU8,
    addresses: AtomicU8,
    /// Locked only to take the `Arc` or to exchange it, never over a write.
    sink: RwLock<Arc<Sink>>,
    /// What `sink` was opened for.
    opened: Mutex<Option<Settings>>,
    /// Lines dropped and not yet told.
    dropped: AtomicUsize,
    dropped_total: AtomicUsize,
    /// When dropped lines were last told of.
    told: Mutex<Option<Instant>>,
}

impl Log {
    fn early() -> Self {
        Self {
            level: AtomicU8::new(Level::Info as u8),
            addresses: AtomicU8::new(Addresses::Off as u8),
            sink: RwLock::new(Arc::new(Sink::open_stderr().unwrap_or(Sink::Nowhere))),
            opened: Mutex::new(None),
            dropped: AtomicUsize::new(0),
            dropped_total: AtomicUsize::new(0),
            told: Mutex::new(None),
        }
    }

    fn apply(&self, settings: &Settings) -> io::Result<()> {
        let mut opened = lock(&self.opened);
        // Where lines go is kept if nothing else is asked for: without root, standard error may not open anew.
        if !opened
            .as_ref()
            .is_some_and(|before| before.same_place(settings))
        {
            let sink = Sink::open(settings)?;
            *write(&self.sink) = Arc::new(sink);
        }
        self.level.store(settings.level as u8, Relaxed);
        self.addresses.store(settings.addresses as u8, Relaxed);
        *opened = Some(settings.clone());
        Ok(())
    }

    fn enabled(&self, level: Level) -> bool {
        level as u8 <= self.level.load(Relaxed)
    }

    fn sink(&self) -> Arc<Sink> {
        Arc::clone(&read(&self.sink))
    }

    fn write(&self, level: Level, sentence: &str, fields: Fields<'_>) {
        if !self.enabled(level) {
            return;
        }
        let sink = self.sink();
        // What was dropped comes first, so that the gap shows where it was.
        let open = self.tell_dropped(&sink, TELL_DROPPED_EVERY);
        if !open || !sink.deliver(level, &compose(sentence, fields), patience()) {
            self.dropped.fetch_add(1, Relaxed);
            self.dropped_total.fetch_add(1, Relaxed);
        }
    }

    /// False when that was due and could not be written: then another line can't either.
    fn tell_dropped(&self, sink: &Sink, every: Duration) -> bool {
        if self.dropped.load(Relaxed) == 0 {
            return true;
        }
        // Taken: another thread is telling.
        let Ok(mut told) = self.told.try_lock() else {
            return true;
        };
        let now = Instant::now();
        if told.is_some_and(|told| now.saturating_duration_since(told) < every) {
            return true;
        }
        let dropped = self.dropped.swap(0, Relaxed);
        let report = compose("log lines dropped", &[("dropped", &dropped)]);
        if sink.deliver(Level::Warning, &report, patience()) {
            *told = Some(now);
            return true;
        }
        self.dropped.fetch_add(dropped, Relaxed);
        false
    }
}

/// A burst of the few lines that a start and a stop write outruns a receiver that lives: outside systemd the kernel queues
/// eleven datagrams. The main thread, which serves nobody, waits a moment for it. No other thread ever waits.
fn patience() -> Duration {
    match gettid() == getpid() {
        true => Duration::from_millis(100),
        false => Duration::ZERO,
    }
}

const PATIENCE_STEP: Duration = Duration::from_millis(5);

/// A receiver of lines. Its `write` takes one line whole or not at all, and never waits.
enum Sink {
    Syslog(Syslog),
    Stderr(Stderr),
    /// Not even a file descriptor was to be had.
    Nowhere,
}

impl Sink {
    fn open(settings: &Settings) -> io::Result<Self> {
        let to_stderr = match settings.target {
            Target::Stderr => true,
            Target::Syslog => false,
            Target::Auto => {
                io::stderr().is_terminal()
                    || stderr_is_journal(&duplicate_stderr()?)
                    || settings.socket.symlink_metadata().is_err()
            }
        };
        if to_stderr {
            return Self::open_stderr();
        }
        let syslog = Syslog::open(&settings.socket, settings.facility)?;
        if let Err(reason) = syslog.socket.connect(&syslog.path) {
            let warning = compose(
                "nobody takes log lines, they are dropped until somebody does",
                &[("path", &syslog.path.display()), ("reason", &reason)],
            );
            Self::open_stderr()?.deliver(Level::Warning, &warning, Duration::ZERO);
        }
        Ok(Self::Syslog(syslog))
    }

    fn open_stderr() -> io::Result<Self> {
        let stderr = duplicate_stderr()?;
        let prefix = if stderr_is_journal(&stderr) {
            Prefix::Priority
        } else {
            Prefix::TimeAndLevel
        };
        Stderr::open(stderr, Path::new("/proc/self/fd/2"), prefix).map(Self::Stderr)
    }

    fn write(&self, level: Level, text: &str) -> io::Result<()> {
        match self {
            Self::Syslog(syslog) => syslog.write(level, text),
            Self::Stderr(stderr) => stderr.write(level, text),
            Self::Nowhere => Err(ErrorKind::NotConnected.into()),
        }
    }

    /// Whether the line got through, for which it waits as long as `patience` says if the receiver lives but is full.
    fn deliver(&self, level: Level, text: &str, patience: Duration) -> bool {
        let mut waited = Duration::ZERO;
        loop {
            match self.write(level, text) {
                Err(error) if error.kind() == ErrorKind::WouldBlock && waited < patience => {
                    thread::sleep(PATIENCE_STEP);
                    waited += PATIENCE_STEP;
                }
                result => return result.is_ok(),
            }
        }
    }
}

/// Syslog's local socket: one line, one datagram.
///
/// From the syslog crate come the facilities, severities and the trait of a format; not its socket, which blocks when the
/// receiver is slow and is connected once, so that a syslogd restarted is a syslogd lost; nor its format, which
/// stamps UTC where receivers that believe the stamp (syslog-ng, busybox) read local time. Without a stamp each of them takes the
/// time at which the line came.
struct Syslog {
    socket: UnixDatagram,
    path: PathBuf,
    header: Header,
}

impl Syslog {
    fn open(path: &Path, facility: Facility) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        let header = Header {
            facility,
            pid: std::process::id(),
        };
        Ok(Self {
            socket,
            path: path.to_owned(),
            header,
        })
    }

    fn write(&self, level: Level, text: &str) -> io::Result<()> {
        let mut datagram = Vec::with_capacity(text.len() + PREFIX_MAX);
        self.header
            .format(&mut datagram, level.severity(), text)
            .map_err(|_| ErrorKind::InvalidData)?;
        match self.send(&datagram) {
            // A full queue is a receiver that lives: connecting again would not help.
            Err(error) if error.kind() != ErrorKind::WouldBlock => {
                self.socket.connect(&self.path)?;
                self.send(&datagram)
            }
            result => result,
        }
    }

    fn send(&self, datagram: &[u8]) -> io::Result<()> {
        retry_interrupted(|| self.socket.send(datagram)).map(drop)
    }
}

/// `<30>tbtt[123]: sentence key=value`
struct Header {
    facility: Facility,
    pid: u32,
}

impl LogFormat<&str> for Header {
    fn format<W: io::Write>(
        &self,
        line: &mut W,
        severity: Severity,
        text: &str,
    ) -> syslog::Result<()> {
        let priority = self.facility.0 as u8 | severity as u8;
        write!(line, "<{priority}>{NAME}[{}]: {text}", self.pid)?;
        Ok(())
    }
}

/// Standard error, whatever it is.
struct Stderr {
    pipe: Pipe,
    prefix: Prefix,
    /// A line was written in part (a full disk): the next one begins on a line of its own.
    torn: AtomicBool,
}

enum Prefix {
    /// `<5>`, which the journal takes off again (sd-daemon(3)).
    Priority,
    /// For those who have nothing else that would tell.
    TimeAndLevel,
}

/// How to write without waiting depends on what standard error is. `O_NONBLOCK` is never set on it: the flag belongs to the open
/// file, which is the parent's as well, and a shell would find its terminal changed.
enum Pipe {
    /// The journal, or another Unix socket: each send says for itself that it will not wait.
    Socket(socket2::Socket),
    /// A pipe, opened anew through `/proc`: the same pipe, but an open file of our own, whose flag is ours to set.
    Reopened(File),
    /// A terminal, or a pipe that cannot be opened anew (made by another user). Room for one page is room for one line,
    /// and the lock lets nobody else of this process take it between the look and the write.
    Polled(File, Mutex<()>),
    /// A file or `/dev/null`, which never makes a writer wait for a reader. Where a line crosses into a new page of a file, the
    /// kernel itself stops half way if the disk is full or a SIGKILL comes at that moment; pipes and sockets have no such gap.
    File(File),
}

impl Stderr {
    /// `reopen_path` is where the same pipe can be opened anew.
    fn open(stderr: OwnedFd, reopen_path: &Path, prefix: Prefix) -> io::Result<Self> {
        let file = File::from(stderr);
        let metadata = file.metadata()?;
        let kind = metadata.file_type();
        let pipe = if kind.is_socket() {
            Pipe::Socket(OwnedFd::from(file).into())
        } else if kind.is_fifo() {
            let nonblocking = OpenOptions::new()
                .write(true)
                .custom_flags(O_NONBLOCK | O_NOCTTY)
                .open(reopen_path)
                .ok();
            let same = |other: &File| {
                other
                    .metadata()
                    .is_ok_and(|m| (m.dev(), m.ino()) == (metadata.dev(), metadata.ino()))
            };
            match nonblocking.filter(same) {
                Some(reopened) => Pipe::Reopened(reopened),
                None => Pipe::Polled(file, Mutex::new(())),
            }
        } else if file.is_terminal() {
            Pipe::Polled(file, Mutex::new(()))
        } else {
            Pipe::File(file)
        };
        Ok(Self {
            pipe,
            prefix,
            torn: AtomicBool::new(false),
        })
    }

    fn write(&self, level: Level, text: &str) -> io::Result<()> {
        let mut line = String::with_capacity(text.len() + PREFIX_MAX);
        if self.torn.load(Relaxed) {
            line.push('\n');
        }
        // Writing to a String cannot fail.
        let _ = match self.prefix {
            Prefix::Priority => writeln!(line, "<{}>{text}", level as u8),
            Prefix::TimeAndLevel => {
                writeln!(line, "{} {level} {text}", Timestamp(SystemTime::now()))
            }
        };
        let written = self.pipe.write(line.as_bytes())?;
        self.torn.store(written < line.len(), Relaxed);
        match written == line.len() {
            true => Ok(()),
            false => Err(ErrorKind::WriteZero.into()),
        }
    }
}

impl Pipe {
    fn write(&self, line: &[u8]) -> io::Result<usize> {
        retry_interrupted(|| match self {
            Self::Socket(socket) => socket.send_with_flags(line, MSG_DONTWAIT | MSG_NOSIGNAL),
            Self::Reopened(pipe) => (&*pipe).write(line),
            Self::Polled(pipe, looking) => {
                let _looking = lock(&looking);
                let mut room = [PollFd::new(pipe.as_fd(), PollFlags::POLLOUT)];
                match poll(&mut room, PollTimeout::ZERO)? {
                    0 => Err(ErrorKind::WouldBlock.into()),
                    _ => (&*pipe).write(line),
                }
            }
            Self::File(file) => (&*file).write(line),
        })
    }
}

fn retry_interrupted<T>(mut attempt: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match attempt() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// A descriptor of our own, closed on exec: if somebody closes 2, no line lands in a stranger's file.
fn duplicate_stderr() -> io::Result<OwnedFd> {
    io::stderr().as_fd().try_clone_to_owned()
}

/// `JOURNAL_STREAM` is inherited by children whose standard error was redirected since, so it must be compared (systemd.exec(5)).
fn stderr_is_journal(stderr: &OwnedFd) -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else {
        return false;
    };
    let metadata = stderr
        .try_clone()
        .and_then(|stderr| File::from(stderr).metadata());
    metadata.is_ok_and(|m| stream == format!("{}:{}", m.dev(), m.ino()))
}

/// `2026-11-22T10:25:46.123Z` (RFC 3339).
struct Timestamp(SystemTime);

impl Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since = self.0.duration_since(UNIX_EPOCH).unwrap_or_default();
        let utc = Utc::from_unix(i64::try_from(since.as_secs()).unwrap_or(i64::MAX));
        write!(
            f,
            "{}T{}.{:03}Z",
            utc.date(),
            utc.time(),
            since.subsec_millis()
        )
    }
}

/// The sentence and its fields as one line's text: no newline or other control character gets through, and it always fits.
fn compose(sentence: &str, fields: Fields<'_>) -> String {
    let mut line = Line {
        text: String::with_capacity(256),
        cut: false,
    };
    for character in sentence.chars() {
        line.push_escaped(character);
    }
    for (key, value) in fields {
        line.push_field(key, value);
    }
    if line.cut {
        line.text.push_str(CUT_MARK);
    }
    line.text
}

struct Line {
    text: String,
    /// Full: nothing more is added but the mark that says so.
    cut: bool,
}

impl Line {
    /// The last bytes are for a closing quote, the mark and the newline.
    const ROOM: usize = LINE_MAX - PREFIX_MAX - CUT_MARK.len() - 2;

    fn push(&mut self, piece: impl Display) {
        let before = self.text.len();
        if !self.cut && (write!(self.text, "{piece}").is_err() || self.text.len() > Self::ROOM) {
            self.text.truncate(before);
            self.cut = true;
        }
    }

    fn push_field(&mut self, key: &str, value: &dyn Display) {
        let before = self.text.len();
        self.push(format_args!(" {key}="));
        if self.cut {
            return;
        }
        // Written where it belongs; taken out again only if it cannot stand there bare.
        let start = self.text.len();
        let told = write!(self.text, "{value}");
        let bare = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\' | b'=');
        let value = &self.text[start..];
        if told.is_ok()
            && !value.is_empty()
            && value.bytes().all(bare)
            && self.text.len() <= Self::ROOM
        {
            return;
        }
        let value = self.text.split_off(start);
        self.push('"');
        if self.cut {
            self.text.truncate(before);
            return;
        }
        for character in value.chars() {
            match character {
                '"' | '\\' => self.push(format_args!("\\{character}")),
                _ => self.push_escaped(character),
            }
        }
        self.text.push('"');
    }

    /// Control characters, line separators, text-direction marks and the like are written as Rust writes them.
    fn push_escaped(&mut self, character: char) {
        match character {
            '"' | '\'' | '\\' => self.push(character),
            _ => self.push(character.escape_debug()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::fd::AsRawFd;

    fn scratch(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("tbtt-log-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir(&dir).unwrap();
        dir
    }

    fn log_to(sink: Sink) -> Log {
        let log = Log::early();
        *log.sink.write().unwrap() = Arc::new(sink);
        log
    }

    fn receive(receiver: &UnixDatagram) -> Option<String> {
        let mut datagram = [0; 2 * LINE_MAX];
        receiver.set_nonblocking(true).unwrap();
        let length = receiver.recv(&mut datagram).ok()?;
        Some(String::from_utf8(datagram[..length].to_vec()).unwrap())
    }

    fn syslog_sink(path: &Path) -> Sink {
        let syslog = Syslog::open(path, Facility::default()).unwrap();
        let _ = syslog.socket.connect(path);
        Sink::Syslog(syslog)
    }

    #[test]
    fn fields_are_quoted_only_when_they_must_be() {
        let cases: [(&str, &str); 11] = [
            ("[::]:6969", "k=[::]:6969"),
            ("", "k=\"\""),
            ("two words", "k=\"two words\""),
            ("a=b", "k=\"a=b\""),
            ("it's", "k=it's"),
            ("say \"no\" \\", "k=\"say \\\"no\\\" \\\\\""),
            ("x\n<0>forged error=1", "k=\"x\\n<0>forged error=1\""),
            ("\0\r\t\x1b[2J\x7f", "k=\"\\0\\r\\t\\u{1b}[2J\\u{7f}\""),
            ("/srv/\u{e4}", "k=\"/srv/\u{e4}\""),
            ("\u{85}\u{9b}\u{2028}", "k=\"\\u{85}\\u{9b}\\u{2028}\""),
            ("\u{202e}\u{feff}", "k=\"\\u{202e}\\u{feff}\""),
        ];
        for (value, expected) in cases {
            assert_eq!(compose("s", &[("k", &value)]), format!("s {expected}"));
        }
        assert_eq!(compose("one\ntwo \"x\" it's", &[]), "one\\ntwo \"x\" it's");
        assert_eq!(compose("s", &[("a", &1), ("b", &"x")]), "s a=1 b=x");
    }

    #[test]
    fn a_long_line_is_cut_within_its_bounds_and_says_so() {
        let mut cut = 0;
        for length in Line::ROOM - 40..Line::ROOM + 40 {
            for unit in ["x", "\"", "\n", "\u{e4}", "\u{202e}"] {
                let value = unit.repeat(length / unit.len());
                let text = compose("s", &[("key", &value), ("next", &"n")]);
                assert!(text.len() + PREFIX_MAX < LINE_MAX, "{length}");
                assert_eq!(
                    text.ends_with(CUT_MARK),
                    !text.ends_with(" next=n"),
                    "{text}"
                );
                let body = text.trim_end_matches(CUT_MARK).trim_end_matches(" next=n");
                let inside = body.trim_start_matches("s key=");
                if let Some(quoted) = inside.strip_prefix('"') {
                    let inner = quoted.strip_suffix('"').unwrap();
                    let trailing = inner.len() - inner.trim_end_matches('\\').len();
                    assert_eq!(trailing % 2, 0, "the closing quote is not escaped: {inner}");
                }
                cut += usize::from(text.ends_with(CUT_MARK));
            }
        }
        assert!(cut > 0);
        assert!(compose(&"x".repeat(9000), &[("k", &1)]).ends_with(CUT_MARK));
        let full = "x".repeat(Line::ROOM);
        assert_eq!(compose(&full, &[]), full);
    }

    #[test]
    fn addresses_show_what_the_setting_allows() {
        let show = |addresses: Addresses, address: &str| {
            addresses.show(address.parse().unwrap()).to_string()
        };
        assert_eq!(show(Addresses::Off, "192.0.2.77"), "-");
        assert_eq!(show(Addresses::Masked, "192.0.2.77"), "192.0.2.0/24");
        assert_eq!(show(Addresses::Masked, "::ffff:192.0.2.77"), "192.0.2.0/24");
        assert_eq!(
            show(Addresses::Masked, "2001:db8:aaaa:bbbb::1"),
            "2001:db8:aaaa::/48"
        );
        assert_eq!(show(Addresses::Full, "::ffff:192.0.2.77"), "192.0.2.77");
        assert_eq!(show(Addresses::Full, "2001:db8::1"), "2001:db8::1");
    }

    #[test]
    fn words_are_read_as_they_are_shown() {
        for word in ["auto", "syslog", "stderr"] {
            assert_eq!(word.parse::<Target>().unwrap().to_string(), word);
        }
        for word in ["error", "warning", "notice", "info", "debug"] {
            assert_eq!(word.parse::<Level>().unwrap().to_string(), word);
        }
        for word in ["off", "masked", "full"] {
            assert_eq!(word.parse::<Addresses>().unwrap().to_string(), word);
        }
        for word in ["daemon", "local0", "local7", "user", "authpriv"] {
            assert_eq!(word.parse::<Facility>().unwrap().to_string(), word);
        }
        for word in ["kern", "local8", "LOCAL0", "log_daemon", ""] {
            assert_eq!(word.parse::<Facility>().unwrap_err().word, word);
        }
        let refused = "loud".parse::<Level>().unwrap_err().to_string();
        assert_eq!(
            refused,
            "\"loud\" is not one of error, warning, notice, info, debug"
        );
    }

    #[test]
    fn times_are_written_as_rfc_3339() {
        let utc = |secs: u64, millis: u64| {
            Timestamp(UNIX_EPOCH + Duration::from_secs(secs) + Duration::from_millis(millis))
                .to_string()
        };
        assert_eq!(utc(0, 0), "1970-01-01T00:00:00.000Z");
        assert_eq!(utc(951_827_696, 7), "2000-02-29T12:34:56.007Z");
        assert_eq!(utc(1_795_343_146, 999), "2026-11-22T10:25:46.999Z");
        assert_eq!(utc(4_107_542_399, 0), "2100-02-28T23:59:59.000Z");
        assert_eq!(utc(4_107_542_400, 0), "2100-03-01T00:00:00.000Z");
    }

    #[test]
    fn levels_below_the_set_one_are_silent() {
        let dir = scratch("levels");
        let receiver = UnixDatagram::bind(dir.join("log")).unwrap();
        let log = log_to(syslog_sink(&dir.join("log")));
        log.level.store(Level::Warning as u8, Relaxed);
        log.write(Level::Notice, "no", &[]);
        log.write(Level::Warning, "yes", &[("n", &1)]);
        let pid = std::process::id();
        assert_eq!(
            receive(&receiver).unwrap(),
            format!("<28>tbtt[{pid}]: yes n=1")
        );
        assert_eq!(receive(&receiver), None);
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn syslog_full_gone_and_back_loses_only_counted_lines() {
        let dir = scratch("syslog");
        let path = dir.join("log");
        let log = log_to(syslog_sink(&path));
        log.write(Level::Error, "nobody yet", &[]);
        assert_eq!(log.dropped.load(Relaxed), 1);

        let receiver = UnixDatagram::bind(&path).unwrap();
        let mut sent = 0;
        while log.dropped.load(Relaxed) < 5 {
            log.write(Level::Error, "line", &[("n", &sent)]);
            sent += 1;
            assert!(sent < 100_000, "the queue never filled");
        }
        assert!(
            receive(&receiver)
                .unwrap()
                .ends_with("]: log lines dropped dropped=1")
        );
        for n in 0..sent - 5 {
            assert!(
                receive(&receiver)
                    .unwrap()
                    .ends_with(&format!("]: line n={n}"))
            );
        }
        assert_eq!(receive(&receiver), None);
        log.tell_dropped(&log.sink(), Duration::ZERO);
        assert!(
            receive(&receiver)
                .unwrap()
                .ends_with("]: log lines dropped dropped=5")
        );

        drop(receiver);
        std::fs::remove_file(&path).unwrap();
        log.write(Level::Error, "gone", &[]);
        let receiver = UnixDatagram::bind(&path).unwrap();
        log.write(Level::Error, "within a second of the last report", &[]);
        assert!(
            receive(&receiver)
                .unwrap()
                .ends_with("]: within a second of the last report")
        );
        *log.told.lock().unwrap() = None;
        log.write(Level::Error, "back", &[]);
        assert!(receive(&receiver).unwrap().ends_with("dropped=1"));
        assert!(receive(&receiver).unwrap().ends_with("]: back"));
        assert_eq!(log.dropped_total.load(Relaxed), 7);
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn patience_outlasts_a_receiver_that_catches_up_and_no_other() {
        let dir = scratch("patience");
        let receiver = UnixDatagram::bind(dir.join("log")).unwrap();
        let sink = syslog_sink(&dir.join("log"));
        while sink.deliver(Level::Info, "fill", Duration::ZERO) {}
        assert!(!sink.deliver(Level::Info, "late", Duration::from_millis(20)));
        thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(Duration::from_millis(20));
                receiver.recv(&mut [0; LINE_MAX]).unwrap();
            });
            assert!(sink.deliver(Level::Info, "in time", Duration::from_secs(20)));
        });
        drop(receiver);
        assert!(!sink.deliver(
            Level::Info,
            "gone: no reason to wait",
            Duration::from_secs(3600)
        ));
        std::fs::remove_dir_all(dir).unwrap();
    }

    fn open_flags(fd: &OwnedFd) -> String {
        let info =
            std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).unwrap();
        info.lines()
            .find(|line| line.starts_with("flags:"))
            .unwrap()
            .to_owned()
    }

    #[test]
    fn a_full_pipe_never_blocks_and_takes_whole_lines() {
        for reopen in [true, false] {
            let (reader, writer) = nix::unistd::pipe().unwrap();
            let path = match reopen {
                true => format!("/proc/self/fd/{}", writer.as_raw_fd()),
                false => "/nonexistent".to_owned(),
            };
            let flags_before = open_flags(&writer);
            let stderr = Stderr::open(
                writer.try_clone().unwrap(),
                Path::new(&path),
                Prefix::Priority,
            )
            .unwrap();
            assert_eq!(matches!(stderr.pipe, Pipe::Reopened(_)), reopen);
            let log = log_to(Sink::Stderr(stderr));
            let value = "x".repeat(700);
            let mut lines = 0;
            while log.dropped.load(Relaxed) == 0 {
                log.write(Level::Error, "line", &[("n", &lines), ("value", &value)]);
                lines += 1;
                assert!(lines < 100_000, "the pipe never filled");
            }
            let flags_after = open_flags(&writer);
            assert_eq!(
                flags_before, flags_after,
                "the parent's open file is as it was"
            );
            drop((log, writer));
            let mut text = String::new();
            File::from(reader).read_to_string(&mut text).unwrap();
            for (n, line) in text.lines().enumerate() {
                assert_eq!(line, format!("<3>line n={n} value={value}"));
            }
            assert_eq!(text.lines().count(), lines - 1);
            assert!(text.ends_with('\n'));
        }
    }

    #[test]
    fn a_pipe_without_a_reader_only_counts() {
        let (reader, writer) = nix::unistd::pipe().unwrap();
        let stderr = Stderr::open(writer, Path::new("/nonexistent"), Prefix::Priority).unwrap();
        drop(reader);
        let log = log_to(Sink::Stderr(stderr));
        log.write(Level::Error, "lost", &[]);
        assert_eq!(log.dropped.load(Relaxed), 1);
    }

    #[test]
    fn a_full_socket_never_blocks() {
        let (reader, writer) = std::os::unix::net::UnixStream::pair().unwrap();
        let stderr =
            Stderr::open(writer.into(), Path::new("/nonexistent"), Prefix::Priority).unwrap();
        let log = log_to(Sink::Stderr(stderr));
        let mut lines = 0;
        while log.dropped.load(Relaxed) == 0 {
            log.write(Level::Notice, "line", &[("n", &lines)]);
            lines += 1;
            assert!(lines < 1_000_000, "the socket never filled");
        }
        drop(log);
        let mut text = String::new();
        (&reader).read_to_string(&mut text).unwrap();
        for (n, line) in text.lines().enumerate() {
            assert_eq!(line, format!("<5>line n={n}"));
        }
        assert_eq!(text.lines().count(), lines - 1);
    }

    #[test]
    fn after_half_a_line_the_next_begins_anew() {
        let dir = scratch("torn");
        let file = File::create(dir.join("out")).unwrap();
        let stderr =
            Stderr::open(file.into(), Path::new("/nonexistent"), Prefix::Priority).unwrap();
        stderr.torn.store(true, Relaxed);
        stderr.write(Level::Info, "one").unwrap();
        stderr.write(Level::Info, "two").unwrap();
        assert_eq!(
            std::fs::read_to_string(dir.join("out")).unwrap(),
            "\n<6>one\n<6>two\n"
        );
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_plain_file_gets_time_and_level() {
        let dir = scratch("plain");
        let file = File::create(dir.join("out")).unwrap();
        let stderr =
            Stderr::open(file.into(), Path::new("/nonexistent"), Prefix::TimeAndLevel).unwrap();
        stderr.write(Level::Warning, "one").unwrap();
        let line = std::fs::read_to_string(dir.join("out")).unwrap();
        assert_eq!(line.len(), "2026-11-22T10:25:46.123Z warning one\n".len());
        assert!(line.ends_with("Z warning one\n"));
        std::fs::remove_dir_all(dir).unwrap();
    }
}
