//! Runs the built daemon for a test: starts it, waits for its log lines, and kills it when the test ends.
#![allow(
    dead_code,
    reason = "each test file compiles its own copy and uses only a part of it"
)]

pub(crate) mod http;
pub(crate) mod tracker;
pub(crate) mod udp;

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, mpsc};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{self, Signal};
use nix::unistd::{Pid, geteuid};

/// Timeout of every wait: far longer than a busy machine needs, so a test fails only if the event never occurs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Path of the daemon that Cargo built.
pub(crate) const TBTT: &str = env!("CARGO_BIN_EXE_tbtt");

/// A temporary directory for a test, removed when dropped.
pub(crate) struct Directory(PathBuf);

impl Directory {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}-{number}", std::process::id());
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &PathBuf {
        &self.0
    }

    /// Writes a file below the directory, creates its parent directories if needed, and returns its path.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // If this fails, `cargo clean` removes the directory later.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A running daemon, killed when dropped.
pub(crate) struct Daemon {
    child: Child,
    log: Arc<Log>,
    directory: Directory,
}

/// Part of a log line of the start. This line follows the lines with the addresses on which the daemon listens.
const READY: &str = "clients announce to";

/// The output of the daemon on standard error.
#[derive(Default)]
struct Log {
    content: Mutex<LogContent>,
    /// Notified for each new line, and when the output ends.
    changed: Condvar,
}

#[derive(Default)]
struct LogContent {
    lines: Vec<String>,
    /// Standard error is closed, so the daemon has exited.
    ended: bool,
}

impl Daemon {
    /// Starts the daemon with a configuration, and waits until its log contains all addresses on which it listens.
    ///
    /// The configuration must contain an IP address for clients in `[http]` or `[udp]`. The daemon listens only on the
    /// addresses that the configuration contains. It logs at level "debug"; [`Daemon::log`] returns these lines.
    pub(crate) fn start(config: &str) -> Self {
        let daemon = Self::spawn(Command::new(TBTT), config);
        daemon.wait_for_line(READY);
        daemon
    }

    /// Starts `program`, with the configuration file as its last argument, and returns at once.
    pub(crate) fn spawn(mut program: Command, config: &str) -> Self {
        let directory = Directory::new();
        let config = format!(
            "{config}\n{}{}[log]\ntarget = \"stderr\"\nlevel = \"debug\"\n",
            disabled_listeners(config),
            unprivileged_user(config)
        );
        let config = directory.write("tbtt.toml", config);
        let mut child = program
            .arg("--config")
            .arg(config)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::<Log>::default();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        thread::spawn({
            let log = log.clone();
            move || log.follow(stderr)
        });
        Self {
            child,
            log,
            directory,
        }
    }

    /// Waits for a log line that contains `text`, and returns the first such line.
    pub(crate) fn wait_for_line(&self, text: &str) -> String {
        self.wait_for_lines(text, 1)
    }

    /// Waits for `count` log lines that contain `text`, and returns the last of them.
    pub(crate) fn wait_for_lines(&self, text: &str, count: usize) -> String {
        let found = |content: &LogContent| {
            let mut lines = content.lines.iter().filter(|line| line.contains(text));
            lines.nth(count - 1).cloned()
        };
        let content = self.log.wait_while(|content| found(content).is_none());
        found(&content)
            .unwrap_or_else(|| panic!("no log line contains \"{text}\": {:#?}", content.lines))
    }

    /// Returns all log lines so far that contain `text`.
    pub(crate) fn lines(&self, text: &str) -> Vec<String> {
        let content = self.log.content.lock().unwrap();
        let lines = content.lines.iter().filter(|line| line.contains(text));
        lines.cloned().collect()
    }

    /// Returns the IP addresses on which the daemon listens for a protocol, in the order of the configuration.
    pub(crate) fn addresses(&self, protocol: &str) -> Vec<SocketAddr> {
        let content = self.log.content.lock().unwrap();
        content
            .lines
            .iter()
            .filter_map(|line| {
                let (_, address) =
                    line.split_once(&format!("listening protocol={protocol} address="))?;
                (!address.starts_with("unix:")).then(|| address.parse().expect("an address"))
            })
            .collect()
    }

    /// Returns the port of the first of [`Daemon::addresses`].
    pub(crate) fn port(&self, protocol: &str) -> u16 {
        self.addresses(protocol)[0].port()
    }

    /// Returns all log lines so far.
    pub(crate) fn log(&self) -> String {
        self.log.content.lock().unwrap().lines.join("\n")
    }

    pub(crate) fn directory(&self) -> &Directory {
        &self.directory
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().try_into().unwrap())
    }

    pub(crate) fn signal(&self, signal: Signal) {
        signal::kill(self.pid(), signal).unwrap();
    }

    /// Waits until the daemon exits, and returns its exit status.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let content = self.log.wait_while(|_| true);
        assert!(content.ended, "still running: {:#?}", content.lines);
        drop(content);
        self.child.wait().unwrap()
    }

    /// Sends SIGTERM, waits until the daemon exits, and returns its exit status.
    pub(crate) fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.wait()
    }
}

/// Returns the settings that disable the listeners of all sections that `config` does not contain.
///
/// Their defaults are fixed ports, which another test may hold.
fn disabled_listeners(config: &str) -> String {
    /// The sections that have the key `listen`, with the value that disables it.
    static SECTIONS: OnceLock<Vec<(String, &str)>> = OnceLock::new();
    let sections = SECTIONS.get_or_init(|| {
        let sample = String::from_utf8(run(&["--print-default-config"]).stdout).unwrap();
        let (mut sections, mut section) = (Vec::new(), "");
        for line in sample.lines() {
            if line.starts_with('[') {
                section = line;
            } else if line.starts_with("#listen = [") {
                sections.push((section.to_owned(), "[]"));
            } else if line.starts_with("#listen = \"") {
                sections.push((section.to_owned(), "\"\""));
            }
        }
        sections
    });
    sections
        .iter()
        .filter(|(section, _)| !config.contains(section.as_str()))
        .map(|(section, disabled)| format!("{section}\nlisten = {disabled}\n"))
        .collect()
}

/// Returns the setting of the user to run as. The daemon refuses to start as root without it.
fn unprivileged_user(config: &str) -> &'static str {
    if geteuid().is_root() && !config.contains("[daemon]") {
        "[daemon]\nuser = \"nobody\"\n"
    } else {
        ""
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // The daemon may have exited already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Log {
    /// Collects the lines until the output ends.
    fn follow(&self, stderr: impl BufRead) {
        // Invalid UTF-8 is replaced, so that a test which looks at the line fails.
        for line in stderr.split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            self.content.lock().unwrap().lines.push(line);
            self.changed.notify_all();
        }
        self.content.lock().unwrap().ended = true;
        self.changed.notify_all();
    }

    /// Waits while `condition` holds, until the daemon exits or the time is up.
    fn wait_while(&self, condition: impl Fn(&LogContent) -> bool) -> MutexGuard<'_, LogContent> {
        let content = self.content.lock().unwrap();
        let (content, _) = self
            .changed
            .wait_timeout_while(content, PATIENCE, |content| {
                !content.ended && condition(content)
            })
            .unwrap();
        content
    }
}

/// Runs the daemon with arguments with which it exits at once, and returns its output.
pub(crate) fn run(arguments: &[&str]) -> Output {
    let mut child = Command::new(TBTT)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut stdout, mut stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let (sender, output) = mpsc::channel();
    thread::spawn(move || {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let read = stdout
            .read_to_end(&mut out)
            .and(stderr.read_to_end(&mut err));
        // Sending fails only if the test has failed and no longer waits.
        let _ = sender.send(read.map(|_| (out, err)));
    });
    let output = output.recv_timeout(PATIENCE);
    if output.is_err() {
        child.kill().unwrap();
    }
    let status = child.wait().unwrap();
    let (stdout, stderr) = output.expect("the daemon exits in time").unwrap();
    Output {
        status,
        stdout,
        stderr,
    }
}
