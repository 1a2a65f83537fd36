use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, UNIX_EPOCH};

use super::line::{CUT_MARK, LineBuffer, MAX_LINE_LEN, MAX_PREFIX_LEN, compose};
use super::logger::Logger;
use super::settings::{Addresses, Facility, Level, Target};
use super::sink::Sink;
use super::stderr::{Pipe, Prefix, Stderr, Timestamp};
use super::syslog::Syslog;

fn scratch(name: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("tbtt-log-{}-{name}", std::process::id()));
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir(&dir).unwrap();
    dir
}

fn log_to(sink: Sink) -> Logger {
    let log = Logger::early();
    *log.sink.write().unwrap() = Arc::new(sink);
    log
}

fn receive(receiver: &UnixDatagram) -> Option<String> {
    let mut datagram = [0; 2 * MAX_LINE_LEN];
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
fn quotes_fields_only_if_needed() {
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
fn cuts_long_line_and_marks_the_cut() {
    let mut cut = 0;
    for length in LineBuffer::MAX_TEXT_LEN - 40..LineBuffer::MAX_TEXT_LEN + 40 {
        for unit in ["x", "\"", "\n", "\u{e4}", "\u{202e}"] {
            let value = unit.repeat(length / unit.len());
            let text = compose("s", &[("key", &value), ("next", &"n")]);
            assert!(text.len() + MAX_PREFIX_LEN < MAX_LINE_LEN, "{length}");
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
    let full = "x".repeat(LineBuffer::MAX_TEXT_LEN);
    assert_eq!(compose(&full, &[]), full);
}

#[test]
fn shows_addresses_as_the_setting_allows() {
    let show =
        |addresses: Addresses, address: &str| addresses.show(address.parse().unwrap()).to_string();
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
fn parses_words_as_displayed() {
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
fn formats_times_as_rfc_3339() {
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
fn skips_less_important_levels() {
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
fn syslog_full_missing_and_back_loses_only_counted_lines() {
    let dir = scratch("syslog");
    let path = dir.join("log");
    let log = log_to(syslog_sink(&path));
    log.write(Level::Error, "no receiver yet", &[]);
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
    log.report_dropped(&log.sink(), Duration::ZERO);
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
    *log.last_report.lock().unwrap() = None;
    log.write(Level::Error, "back", &[]);
    assert!(receive(&receiver).unwrap().ends_with("dropped=1"));
    assert!(receive(&receiver).unwrap().ends_with("]: back"));
    assert_eq!(log.dropped_total.load(Relaxed), 7);
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn waits_only_for_a_receiver_that_catches_up() {
    let dir = scratch("patience");
    let receiver = UnixDatagram::bind(dir.join("log")).unwrap();
    let sink = syslog_sink(&dir.join("log"));
    while sink.deliver(Level::Info, "fill", Duration::ZERO) {}
    assert!(!sink.deliver(Level::Info, "late", Duration::from_millis(20)));
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(Duration::from_millis(20));
            receiver.recv(&mut [0; MAX_LINE_LEN]).unwrap();
        });
        assert!(sink.deliver(Level::Info, "in time", Duration::from_secs(20)));
    });
    drop(receiver);
    assert!(!sink.deliver(
        Level::Info,
        "no receiver: no reason to wait",
        Duration::from_secs(3600)
    ));
    std::fs::remove_dir_all(dir).unwrap();
}

fn open_flags(fd: &OwnedFd) -> String {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).unwrap();
    info.lines()
        .find(|line| line.starts_with("flags:"))
        .unwrap()
        .to_owned()
}

#[test]
fn full_pipe_never_blocks_and_accepts_whole_lines() {
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
            "the open file of the parent is unchanged"
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
fn pipe_without_reader_only_counts() {
    let (reader, writer) = nix::unistd::pipe().unwrap();
    let stderr = Stderr::open(writer, Path::new("/nonexistent"), Prefix::Priority).unwrap();
    drop(reader);
    let log = log_to(Sink::Stderr(stderr));
    log.write(Level::Error, "lost", &[]);
    assert_eq!(log.dropped.load(Relaxed), 1);
}

#[test]
fn full_socket_never_blocks() {
    let (reader, writer) = std::os::unix::net::UnixStream::pair().unwrap();
    let stderr = Stderr::open(writer.into(), Path::new("/nonexistent"), Prefix::Priority).unwrap();
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
fn line_after_a_torn_line_starts_with_newline() {
    let dir = scratch("torn");
    let file = File::create(dir.join("out")).unwrap();
    let stderr = Stderr::open(file.into(), Path::new("/nonexistent"), Prefix::Priority).unwrap();
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
fn plain_file_gets_time_and_level() {
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
