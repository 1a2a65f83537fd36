//! Starts the built daemon for a test, waits for what it says, and never leaves it running.
#![allow(
    dead_code,
    reason = "each test file compiles its own copy and uses a part of it"
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
use std::sync::{Arc, Condvar, Mutex, OnceLock, mpsc};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{self, Signal};
use nix::unistd::{Pid, geteuid};

/// How long anything is waited for: far more than a busy machine needs, so that only what never comes fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Where Cargo has put the daemon.
pub(crate) const TBTT: &str = env!("CARGO_BIN_EXE_tbtt");

/// A directory of a test's own, removed when dropped.
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

    /// Writes a file, and the directories that it needs.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // What can't be removed is left to `cargo clean`.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A daemon, killed when dropped.
pub(crate) struct Daemon {
    child: Child,
    log: Arc<Log>,
    directory: Directory,
}

/// What the daemon has written to standard error so far.
#[derive(Default)]
struct Log {
    told: Mutex<TimedUpdate>,
    news: Condvar,
}

#[derive(Default)]
struct TimedUpdate {
    lines: Vec<String>,
    /// Standard error is closed: the daemon has ended.
    ended: bool,
}

impl Daemon {
    /// Starts with a configuration and returns when it listens: where the configuration says, and nowhere else. It logs
    /// all that it can to where [`Daemon::log`] reads it.
    pub(crate) fn start(config: &str) -> Self {
        let daemon = Self::spawn(Command::new(TBTT), config);
        daemon.wait_for_line("listening");
        daemon
    }

    /// Starts `program` with the configuration as its last arguments, and waits for nothing.
    pub(crate) fn spawn(mut program: Command, config: &str) -> Self {
        let directory = Directory::new();
        let config = format!(
            "{config}\n{}{}[log]\ntarget = \"stderr\"\nlevel = \"debug\"\n",
            silence(config),
            nobody(config)
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

    /// The first line with this text, as soon as it is there.
    pub(crate) fn wait_for_line(&self, text: &str) -> String {
        self.wait_for_lines(text, 1)
    }

    /// The last of so many lines with this text, as soon as they are there.
    pub(crate) fn wait_for_lines(&self, text: &str, count: usize) -> String {
        let found = |told: &TimedUpdate| {
            let mut lines = told.lines.iter().filter(|line| line.contains(text));
            lines.nth(count - 1).cloned()
        };
        let waiting = |told: &mut TimedUpdate| !told.ended && found(told).is_none();
        let told = self.log.told.lock().unwrap();
        let (told, _) = self
            .log
            .news
            .wait_timeout_while(told, PATIENCE, waiting)
            .unwrap();
        found(&told).unwrap_or_else(|| panic!("no line says \"{text}\" in {:#?}", told.lines))
    }

    /// All lines with this text so far.
    pub(crate) fn lines(&self, text: &str) -> Vec<String> {
        let told = self.log.told.lock().unwrap();
        let lines = told.lines.iter().filter(|line| line.contains(text));
        lines.cloned().collect()
    }

    /// Where it listens for a protocol, in the order of the configuration; Unix sockets left out.
    pub(crate) fn addresses(&self, protocol: &str) -> Vec<SocketAddr> {
        let told = self.log.told.lock().unwrap();
        told.lines
            .iter()
            .filter_map(|line| {
                let (_, address) =
                    line.split_once(&format!("listening protocol={protocol} address="))?;
                (!address.starts_with("unix:")).then(|| address.parse().expect("an address"))
            })
            .collect()
    }

    /// The port of the first socket that it listens on for a protocol.
    pub(crate) fn port(&self, protocol: &str) -> u16 {
        self.addresses(protocol)[0].port()
    }

    /// All lines so far.
    pub(crate) fn log(&self) -> String {
        self.log.told.lock().unwrap().lines.join("\n")
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

    /// Its status, once it has ended by itself.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let told = self.log.told.lock().unwrap();
        let (told, waited) = self
            .log
            .news
            .wait_timeout_while(told, PATIENCE, |told| !told.ended)
            .unwrap();
        assert!(!waited.timed_out(), "still running: {:#?}", told.lines);
        drop(told);
        self.child.wait().unwrap()
    }

    /// Asks it to end, and returns its status.
    pub(crate) fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.wait()
    }
}

/// Has the parts that a configuration does not name listen nowhere: their default is a port that another test may hold.
fn silence(config: &str) -> String {
    static LISTENING: OnceLock<Vec<(String, &str)>> = OnceLock::new();
    let listening = LISTENING.get_or_init(|| {
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
    listening
        .iter()
        .filter(|(section, _)| !config.contains(section.as_str()))
        .map(|(section, none)| format!("{section}\nlisten = {none}\n"))
        .collect()
}

/// As root the daemon asks whom to become.
fn nobody(config: &str) -> &'static str {
    if geteuid().is_root() && !config.contains("[daemon]") {
        "[daemon]\nuser = \"nobody\"\n"
    } else {
        ""
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // One that has ended already is none to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Log {
    fn follow(&self, stderr: impl BufRead) {
        // Bytes that are no text are a fault that the test that looks for them shall see.
        for line in stderr.split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            self.told.lock().unwrap().lines.push(line);
            self.news.notify_all();
        }
        self.told.lock().unwrap().ended = true;
        self.news.notify_all();
    }
}

/// Runs the daemon for something that ends by itself.
pub(crate) fn run(arguments: &[&str]) -> Output {
    let mut child = Command::new(TBTT)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut stdout, mut stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let (done, ended) = mpsc::channel();
    thread::spawn(move || {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let read = stdout
            .read_to_end(&mut out)
            .and(stderr.read_to_end(&mut err));
        // Nobody waits any more: the test has failed.
        let _ = done.send(read.map(|_| (out, err)));
    });
    let ended = ended.recv_timeout(PATIENCE);
    if ended.is_err() {
        child.kill().unwrap();
    }
    let status = child.wait().unwrap();
    let (stdout, stderr) = ended.expect("ends by itself").unwrap();
    Output {
        status,
        stdout,
        stderr,
    }
}
