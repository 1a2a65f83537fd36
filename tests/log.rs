//! The log under hostile conditions: killed at any moment, nobody reading, syslogd stopped and started.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use tbtt::log::{self, Settings, Target};

const SYSLOG_SOCKET: &str = "TBTT_TEST_SYSLOG_SOCKET";
const THREADS: usize = 4;

/// What the other tests start as a process of its own; by itself it does nothing. Does what its standard input says.
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
    for order in std::io::stdin().lines() {
        let order = order.unwrap();
        match order.split_once(' ').unwrap_or((&order, "")) {
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
            ("panic", reason) => {
                log::log_panics();
                let reason = reason.replace('\\', "\n");
                let _ = std::thread::Builder::new()
                    .name("worker".to_owned())
                    .spawn(move || panic!("{reason}"))
                    .unwrap()
                    .join();
            }
            _ => panic!("{order}"),
        }
        println!("\ndone {}", log::dropped_total());
    }
}

/// Of all lengths, with all that could break a line.
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
    /// Its standard output, a line each, by way of a thread: a log that blocks must fail a test, not hang it.
    answers: Receiver<String>,
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
        let (sender, answers) = channel();
        std::thread::spawn(move || {
            output
                .lines()
                .map_while(Result::ok)
                .try_for_each(|line| sender.send(line))
        });
        Self { child, answers }
    }

    fn order(&mut self, order: &str) {
        writeln!(self.child.stdin.as_ref().unwrap(), "{order}").unwrap();
    }

    /// Waits until the last order is done. Returns how many lines it has dropped since its start.
    fn done(&mut self) -> usize {
        loop {
            let line = self.answers.recv_timeout(Duration::from_secs(60));
            let line = line.expect("an answer, within a minute");
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

/// A whole line of the helper's, from its sentence to its last field, and nothing else.
fn assert_whole(text: &str) {
    let fields = text
        .strip_prefix("line thread=")
        .unwrap_or_else(|| panic!("not whole: {text}"));
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

/// The text after time and level, of a line on standard error that is no journal.
fn text_of(line: &str) -> &str {
    let (time, rest) = line
        .split_once(' ')
        .unwrap_or_else(|| panic!("not whole: {line}"));
    assert!(time.len() == 24 && time.ends_with('Z'), "not whole: {line}");
    rest.split_once(' ').unwrap().1
}

fn dropped_in(text: &str) -> Option<usize> {
    text.strip_prefix("log lines dropped dropped=")?
        .parse()
        .ok()
}

#[test]
fn a_kill_at_any_moment_leaves_only_whole_lines() {
    let mut lines_seen = 0;
    for round in 0..30 {
        let mut helper = Helper::start(&PathBuf::from("/nonexistent"), Stdio::piped(), "");
        helper.order("target stderr");
        helper.order("write 4000000");
        let mut pipe = helper.stderr();
        // Not a time but a place: after this many bytes, anywhere within a line.
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
fn a_pipe_nobody_reads_stops_nobody_and_the_gap_is_told() {
    let mut helper = Helper::start(&PathBuf::from("/nonexistent"), Stdio::piped(), "");
    helper.order("target stderr");
    helper.done();
    let start = Instant::now();
    helper.order("write 40000");
    let dropped = helper.done();
    assert!(start.elapsed() < Duration::from_secs(60));
    assert!(dropped > 0);

    let pipe = BufReader::new(helper.stderr());
    let told = Arc::new(AtomicUsize::new(0));
    let telling = told.clone();
    let reader = std::thread::spawn(move || {
        let mut whole = 0;
        for line in pipe.lines().map(Result::unwrap) {
            match dropped_in(text_of(&line)) {
                Some(dropped) => _ = telling.fetch_add(dropped, Relaxed),
                None => {
                    assert_whole(text_of(&line));
                    whole += 1;
                }
            }
        }
        whole
    });
    helper.order("write 400");
    let dropped = helper.done();
    // Until the reader has made room, the report finds none and waits for its next chance.
    while told.load(Relaxed) < dropped {
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "dropped lines are never told of"
        );
        helper.order("report");
        helper.done();
    }
    helper.end();
    let whole: usize = reader.join().unwrap();
    assert_eq!(
        told.load(Relaxed),
        dropped,
        "each dropped line is told of once"
    );
    assert_eq!(whole + dropped, 40_400, "each line is there or counted");
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
fn syslogd_slow_stopped_and_started_costs_only_counted_lines() {
    let dir = scratch("syslog");
    let socket = dir.join("log");
    let syslog = bind_syslog(&socket);
    let mut helper = Helper::start(&socket, Stdio::null(), "");
    let prefix = format!("<29>tbtt[{}]: ", helper.child.id());
    let line = |syslog: &UnixDatagram| {
        let datagram = receive(syslog).expect("a datagram");
        datagram.strip_prefix(&prefix).map(str::to_owned)
    };
    helper.order("target syslog");
    helper.done();

    // Slow: its queue is full, and nobody waits for it.
    helper.order("write 4000");
    let dropped = helper.done();
    assert!(dropped > 0, "the queue never filled");
    for _ in 0..4000 - dropped {
        assert_whole(&line(&syslog).unwrap());
    }
    helper.order("report");
    helper.done();
    assert_eq!(
        receive(&syslog),
        Some(format!(
            "<28>tbtt[{}]: log lines dropped dropped={dropped}",
            helper.child.id()
        ))
    );

    // Stopped: nothing but a count.
    drop(syslog);
    fs::remove_file(&socket).unwrap();
    helper.order("write 400");
    assert_eq!(helper.done(), dropped + 400);

    // Started again: another socket under the same name.
    let syslog = bind_syslog(&socket);
    helper.order("report");
    helper.done();
    assert!(
        receive(&syslog)
            .unwrap()
            .ends_with("log lines dropped dropped=400")
    );
    helper.order("write 4");
    assert_eq!(helper.done(), dropped + 400);
    for _ in 0..4 {
        assert_whole(&line(&syslog).unwrap());
    }
    helper.end();
    fs::remove_dir_all(dir).unwrap();
}

/// Standard error as a socket that keeps each write apart, as the journal's would be seen under strace.
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
fn to_the_journal_each_line_is_one_write_with_its_priority() {
    let (reader, stderr, stream) = stderr_by_write();
    let mut helper = Helper::start(&PathBuf::from("/nonexistent"), stderr, &stream);
    helper.order("target auto");
    helper.done();
    helper.order("write 8");
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
fn auto_is_syslog_unless_stderr_is_the_journal() {
    let dir = scratch("auto");
    let socket = dir.join("log");
    let syslog = bind_syslog(&socket);
    let (reader, stderr, stream) = stderr_by_write();
    // A journal, but not this one: inherited from somebody whose standard error it was.
    let mut helper = Helper::start(&socket, stderr, "1:2");
    helper.order("target auto");
    helper.done();
    helper.order("write 4");
    helper.done();
    for _ in 0..4 {
        assert!(receive(&syslog).unwrap().starts_with("<29>tbtt["));
    }
    helper.end();

    let (reader_of_journal, stderr, stream_of_journal) = stderr_by_write();
    assert_ne!(stream, stream_of_journal);
    let mut helper = Helper::start(&socket, stderr, &stream_of_journal);
    helper.order("target auto");
    helper.done();
    helper.order("write 4");
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
fn a_missing_syslogd_is_told_on_stderr_and_ends_nothing() {
    let dir = scratch("missing");
    let (reader, stderr, _) = stderr_by_write();
    let mut helper = Helper::start(&dir.join("log"), stderr, "");
    helper.order("target syslog");
    helper.done();
    let told = receive(&reader).unwrap();
    assert!(
        told.contains("nobody takes log lines") && told.contains("path="),
        "{told}"
    );
    helper.order("write 4");
    assert_eq!(helper.done(), 4);
    helper.end();
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn a_panic_is_one_line_too() {
    let (reader, stderr, _) = stderr_by_write();
    let mut helper = Helper::start(&PathBuf::from("/nonexistent"), stderr, "");
    helper.order("target stderr");
    helper.done();
    helper.order("panic first\\second");
    helper.done();
    let told = receive(&reader).unwrap();
    assert!(
        told.contains(" error panicked reason=\"first\\nsecond\" place=tests/log.rs:"),
        "{told}"
    );
    assert!(told.ends_with(" thread=worker\n"), "{told}");
    helper.end();
}
