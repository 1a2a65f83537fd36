//! The log under hostile conditions: the process is killed, nothing reads, syslogd stops and starts.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tbtt::log::{self, Settings, Target};

mod harness;

use harness::{Daemon, Directory};

const SYSLOG_SOCKET: &str = "TBTT_TEST_SYSLOG_SOCKET";
const THREADS: usize = 4;

/// The process that the other tests start: it executes the commands on its standard input. Without them it does nothing.
#[test]
fn helper() {
    let Some(socket) = std::env::var_os(SYSLOG_SOCKET).map(PathBuf::from) else {
        return;
    };
    let mut settings = Settings {
        socket,
        ..Settings::default()
    };
    let mut written = 0;
    for command in std::io::stdin().lines() {
        let command = command.unwrap();
        match command.split_once(' ').unwrap_or((&command, "")) {
            ("target", target) => {
                settings.target = target.parse::<Target>().unwrap();
                log::init(&settings).unwrap();
            }
            ("write", lines) => {
                let lines: usize = lines.parse().unwrap();
                std::thread::scope(|scope| {
                    for thread in 0..THREADS {
                        scope
                            .spawn(move || write_lines(thread, written..written + lines / THREADS));
                    }
                });
                written += lines / THREADS;
            }
            ("report", _) => log::report_dropped(),
            ("level", level) => log::set_level(level.parse().unwrap()),
            ("library", message) => {
                ::log::warn!(target: "rustls::conn", "{message}\n<0>forged error=1");
                ::log::debug!(target: "rustls::conn", "details of {message}");
                ::log::trace!(target: "mio::poll", "ignored");
            }
            ("panic", reason) => {
                log::log_panics();
                let reason = reason.replace('\\', "\n");
                let _ = std::thread::Builder::new()
                    .name("worker".to_owned())
                    .spawn(move || panic!("{reason}"))
                    .unwrap()
                    .join();
            }
            _ => panic!("{command}"),
        }
        println!("\ndone {}", log::dropped_total());
    }
}

/// Writes lines of many lengths, with characters that could break a line.
fn write_lines(thread: usize, numbers: std::ops::Range<usize>) {
    for number in numbers {
        let forged = format!(
            "\n<0>line thread=9 end=yes\n{}",
            "x".repeat(number * 7 % 900)
        );
        log::notice(
            "line",
            &[
                ("thread", &thread),
                ("n", &number),
                ("value", &forged),
                ("end", &"yes"),
            ],
        );
    }
}

struct Helper {
    child: Child,
    /// The lines of its standard output. A thread reads them, so that a log that blocks fails a test instead of hanging it.
    results: Receiver<String>,
}

impl Helper {
    fn start(socket: &PathBuf, stderr: impl Into<Stdio>, journal_stream: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "helper", "--nocapture"])
            .env(SYSLOG_SOCKET, socket)
            .env("JOURNAL_STREAM", journal_stream)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, results) = channel();
        std::thread::spawn(move || {
            output
                .lines()
                .map_while(Result::ok)
                .try_for_each(|line| sender.send(line))
        });
        Self { child, results }
    }

    fn send(&mut self, command: &str) {
        writeln!(self.child.stdin.as_ref().unwrap(), "{command}").unwrap();
    }

    /// Waits until the last command is done. Returns the number of lines dropped since the start.
    fn done(&mut self) -> usize {
        loop {
            let line = self.results.recv_timeout(Duration::from_secs(60));
            let line = line.expect("the command is done within a minute");
            if let Some(dropped) = line.strip_prefix("done ") {
                return dropped.parse().unwrap();
            }
        }
    }

    fn stderr(&mut self) -> ChildStderr {
        self.child.stderr.take().unwrap()
    }

    fn end(mut self) {
        drop(self.child.stdin.take());
        assert!(self.child.wait().unwrap().success());
    }
}

fn scratch(test: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("tbtt-log-test-{}-{test}", std::process::id()));
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir(&dir).unwrap();
    dir
}

/// Asserts that the text is one complete line of the helper, from its sentence to its last field.
fn assert_whole(text: &str) {
    let fields = text
        .strip_prefix("line thread=")
        .unwrap_or_else(|| panic!("not a whole line: {text}"));
    let (thread, rest) = fields.split_once(" n=").unwrap();
    let (number, rest) = rest.split_once(" value=\"").unwrap();
    let number: usize = number.parse().unwrap();
    assert!(thread.parse::<usize>().unwrap() < THREADS);
    let expected = format!(
        "\\n<0>line thread=9 end=yes\\n{}\" end=yes",
        "x".repeat(number * 7 % 900)
    );
    assert_eq!(rest, expected);
}

/// Returns the text after time and level, of a line on standard error that is not the journal.
fn text_of(line: &str) -> &str {
    let (time, rest) = line
        .split_once(' ')
        .unwrap_or_else(|| panic!("not a whole line: {line}"));
    assert!(
        time.len() == 24 && time.ends_with('Z'),
        "not a whole line: {line}"
    );
    rest.split_once(' ').unwrap().1
}

fn dropped_in(text: &str) -> Option<usize> {
    text.strip_prefix("log lines dropped dropped=")?
        .parse()
        .ok()
}

#[test]
fn kill_at_any_moment_leaves_only_whole_lines() {
    let mut lines_seen = 0;
    for round in 0..30 {
        let mut helper = Helper::start(&PathBuf::from("/nonexistent"), Stdio::piped(), "");
        helper.send("target stderr");
        helper.send("write 4000000");
        let mut pipe = helper.stderr();
        // Kills after a number of bytes, not after a time, so that the last line ends at any of its bytes.
        let mut text = vec![0; 1 + round * round * 777];
        pipe.read_exact(&mut text).unwrap();
        helper.child.kill().unwrap();
        helper.child.wait().unwrap();
        pipe.read_to_end(&mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert!(text.ends_with('\n'), "round {round} ends in half a line");
        for text in text.lines().map(text_of) {
            if dropped_in(text).is_none() {
                assert_whole(text);
            }
            lines_seen += 1;
        }
    }
    assert!(lines_seen > 1000);
}

#[test]
fn unread_pipe_blocks_no_thread_and_dropped_lines_are_reported() {
    let mut helper = Helper::start(&PathBuf::from("/nonexistent"), Stdio::piped(), "");
    helper.send("target stderr");
    helper.done();
    let start = Instant::now();
    helper.send("write 40000");
    let dropped = helper.done();
    assert!(start.elapsed() < Duration::from_secs(60));
    assert!(dropped > 0);

    let pipe = BufReader::new(helper.stderr());
    let reported = Arc::new(AtomicUsize::new(0));
    let total = reported.clone();
    let reader = std::thread::spawn(move || {
        let mut whole = 0;
        for line in pipe.lines().map(Result::unwrap) {
            match dropped_in(text_of(&line)) {
                Some(dropped) => _ = total.fetch_add(dropped, Relaxed),
                None => {
                    assert_whole(text_of(&line));
                    whole += 1;
                }
            }
        }
        whole
    });
    helper.send("write 400");
    let dropped = helper.done();
    // Until the reader has made room, the report cannot be written and is repeated.
    while reported.load(Relaxed) < dropped {
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "dropped lines are never reported"
        );
        helper.send("report");
        helper.done();
    }
    helper.end();
    let whole: usize = reader.join().unwrap();
    assert_eq!(
        reported.load(Relaxed),
        dropped,
        "each dropped line is reported once"
    );
    assert_eq!(whole + dropped, 40_400, "each line is written or counted");
}

fn receive(syslog: &UnixDatagram) -> Option<String> {
    let mut datagram = [0; 65_536];
    let length = syslog.recv(&mut datagram).ok()?;
    Some(String::from_utf8(datagram[..length].to_vec()).unwrap())
}

fn bind_syslog(path: &PathBuf) -> UnixDatagram {
    let syslog = UnixDatagram::bind(path).unwrap();
    syslog
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    syslog
}

#[test]
fn slow_stopped_and_restarted_syslogd_loses_only_counted_lines() {
    let dir = scratch("syslog");
    let socket = dir.join("log");
    let syslog = bind_syslog(&socket);
    let mut helper = Helper::start(&socket, Stdio::null(), "");
    let prefix = format!("<29>tbtt[{}]: ", helper.child.id());
    let line = |syslog: &UnixDatagram| {
        let datagram = receive(syslog).expect("a datagram");
        datagram.strip_prefix(&prefix).map(str::to_owned)
    };
    helper.send("target syslog");
    helper.done();

    // A slow syslogd: its queue is full, and no thread waits for it.
    helper.send("write 4000");
    let dropped = helper.done();
    assert!(dropped > 0, "the queue never filled");
    for _ in 0..4000 - dropped {
        assert_whole(&line(&syslog).unwrap());
    }
    helper.send("report");
    helper.done();
    assert_eq!(
        receive(&syslog),
        Some(format!(
            "<28>tbtt[{}]: log lines dropped dropped={dropped}",
            helper.child.id()
        ))
    );

    // A stopped syslogd: lines are only counted. The shutdown is needed because a helper that another test starts at
    // this moment has a copy of the socket until it executes its program.
    syslog.shutdown(Shutdown::Both).unwrap();
    drop(syslog);
    fs::remove_file(&socket).unwrap();
    helper.send("write 400");
    assert_eq!(helper.done(), dropped + 400);

    // A restarted syslogd: another socket under the same name.
    let syslog = bind_syslog(&socket);
    helper.send("report");
    helper.done();
    assert!(
        receive(&syslog)
            .unwrap()
            .ends_with("log lines dropped dropped=400")
    );
    helper.send("write 4");
    assert_eq!(helper.done(), dropped + 400);
    for _ in 0..4 {
        assert_whole(&line(&syslog).unwrap());
    }
    helper.end();
    fs::remove_dir_all(dir).unwrap();
}

/// Returns a socket for standard error, like the journal's, that keeps the boundaries between writes.
fn stderr_by_write() -> (UnixDatagram, OwnedFd, String) {
    let (reader, writer) = UnixDatagram::pair().unwrap();
    reader
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let writer = File::from(OwnedFd::from(writer));
    let metadata = writer.metadata().unwrap();
    (
        reader,
        writer.into(),
        format!("{}:{}", metadata.dev(), metadata.ino()),
    )
}

#[test]
fn journal_gets_each_line_as_one_write_with_its_priority() {
    let (reader, stderr, stream) = stderr_by_write();
    let mut helper = Helper::start(&PathBuf::from("/nonexistent"), stderr, &stream);
    helper.send("target auto");
    helper.done();
    helper.send("write 8");
    assert_eq!(helper.done(), 0);
    for _ in 0..8 {
        let write = receive(&reader).unwrap();
        let text = write
            .strip_prefix("<5>")
            .and_then(|line| line.strip_suffix('\n'));
        assert_whole(text.unwrap_or_else(|| panic!("not one line: {write}")));
    }
    helper.end();
}

#[test]
fn auto_selects_syslog_unless_stderr_is_the_journal() {
    let dir = scratch("auto");
    let socket = dir.join("log");
    let syslog = bind_syslog(&socket);
    let (reader, stderr, stream) = stderr_by_write();
    // JOURNAL_STREAM names another file: the variable was inherited, and standard error was redirected since.
    let mut helper = Helper::start(&socket, stderr, "1:2");
    helper.send("target auto");
    helper.done();
    helper.send("write 4");
    helper.done();
    for _ in 0..4 {
        assert!(receive(&syslog).unwrap().starts_with("<29>tbtt["));
    }
    helper.end();

    let (reader_of_journal, stderr, stream_of_journal) = stderr_by_write();
    assert_ne!(stream, stream_of_journal);
    let mut helper = Helper::start(&socket, stderr, &stream_of_journal);
    helper.send("target auto");
    helper.done();
    helper.send("write 4");
    helper.done();
    for _ in 0..4 {
        assert!(receive(&reader_of_journal).unwrap().starts_with("<5>line"));
    }
    helper.end();
    reader.set_nonblocking(true).unwrap();
    syslog.set_nonblocking(true).unwrap();
    assert_eq!((receive(&reader), receive(&syslog)), (None, None));
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn missing_syslogd_is_reported_on_stderr() {
    let dir = scratch("missing");
    let (reader, stderr, _) = stderr_by_write();
    let mut helper = Helper::start(&dir.join("log"), stderr, "");
    helper.send("target syslog");
    helper.done();
    let line = receive(&reader).unwrap();
    assert!(
        line.contains("cannot reach the syslog socket") && line.contains("path="),
        "{line}"
    );
    helper.send("write 4");
    assert_eq!(helper.done(), 4);
    helper.end();
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn panic_is_one_line() {
    let (reader, stderr, _) = stderr_by_write();
    let mut helper = Helper::start(&PathBuf::from("/nonexistent"), stderr, "");
    helper.send("target stderr");
    helper.done();
    helper.send("panic first\\second");
    helper.done();
    let line = receive(&reader).unwrap();
    assert!(
        line.contains(" error tbtt panicked; report this line as a bug reason=\"first\\nsecond\" place=tests/log.rs:"),
        "{line}"
    );
    assert!(line.ends_with(" thread=worker\n"), "{line}");
    helper.end();
}

#[test]
fn library_messages_are_escaped_lines_of_their_level() {
    let (reader, stderr, stream) = stderr_by_write();
    let mut helper = Helper::start(&PathBuf::from("/nonexistent"), stderr, &stream);
    helper.send("target stderr");
    helper.send("library the handshake");
    helper.send("level debug");
    helper.send("library a handshake");
    (0..4).for_each(|_| _ = helper.done());
    let warning = |subject: &str| {
        format!("<4>library message library=rustls message=\"{subject}\\n<0>forged error=1\"\n")
    };
    let expected = [
        warning("the handshake"),
        warning("a handshake"),
        "<7>library message library=rustls message=\"details of a handshake\"\n".to_owned(),
    ];
    for line in expected {
        assert_eq!(receive(&reader), Some(line));
    }
    helper.end();
}

/// The harness starts the daemon with level debug.
#[test]
fn debug_shows_durations_and_ignored_torrent_files() {
    let directory = Directory::new();
    let torrent = fs::read("tests/torrents/v1-small.torrent").unwrap();
    directory.write("torrents/one.torrent", &torrent);
    let state = directory.path().join("state");
    fs::create_dir(&state).unwrap();
    fs::set_permissions(&state, fs::Permissions::from_mode(0o777)).unwrap();
    let torrents = directory.path().join("torrents");
    let mut daemon = Daemon::start(&format!(
        "[torrents]\ndirectories = [{torrents:?}]\n[state]\ndirectory = {state:?}\n\
         [http]\nlisten = [\"127.0.0.1:0\"]\n"
    ));
    daemon.wait_for_line("start step finished step=\"read the torrent directories\" milliseconds=");
    directory.write("torrents/two.torrent", &torrent);
    let line = daemon.wait_for_line("torrent file read; torrent already tracked, or denied");
    assert!(
        line.contains("two.torrent") && line.contains(" debug "),
        "{line}"
    );
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_line("reload step finished step=\"read the configuration and its lists\"");
    daemon.wait_for_line("reload step finished step=\"apply the torrent lists\" milliseconds=");
    daemon.signal(Signal::SIGUSR1);
    daemon.wait_for_line("snapshot written writing_milliseconds=");
    assert!(daemon.stop().success());
}
