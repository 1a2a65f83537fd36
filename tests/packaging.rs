//! Files of the Debian package that must match the program: the configuration, and the logcheck rules.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use nix::unistd::{Uid, chown, geteuid};

mod harness;

use harness::{Daemon, Directory};

fn shipped(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("debian")
        .join(file)
}

/// The shipped configuration is the output of `--print-default-config`, with the settings that an installed tracker needs.
#[test]
fn shipped_configuration_is_the_sample_with_settings() {
    let sample = Command::new(env!("CARGO_BIN_EXE_tbtt"))
        .arg("--print-default-config")
        .output()
        .unwrap();
    let mut ready = String::from_utf8(sample.stdout).unwrap();
    for (default, set) in [
        (
            "# Check the configuration after every change: tbtt --check-config\n",
            "# Check the configuration after every change: tbtt --check-config\n\
             #\n\
             # In the Debian package, the tracker is closed: it tracks only the torrents in\n\
             # /srv/torrents. To track every torrent, set open = true in [torrents].\n",
        ),
        (
            "\n#directories = []\n",
            "\ndirectories = [\"/srv/torrents\"]\n",
        ),
        ("\n#directory = \"\"\n", "\ndirectory = \"/var/lib/tbtt\"\n"),
        (
            "\n# Allowed: one line of text, up to 32 bytes.\n#user = \"\"\n",
            "\n# Allowed: one line of text, up to 32 bytes.\nuser = \"_tbtt\"\n",
        ),
    ] {
        assert_eq!(ready.matches(default).count(), 1, "{default}");
        ready = ready.replace(default, set);
    }
    let file = shipped("tbtt.toml");
    if std::env::var_os("TBTT_WRITE").is_some() {
        fs::write(&file, &ready).unwrap();
    }
    assert!(
        fs::read_to_string(&file).unwrap() == ready,
        "{} differs from the sample with settings; run TBTT_WRITE=1 cargo test --test packaging",
        file.display()
    );
    let checked = Command::new(env!("CARGO_BIN_EXE_tbtt"))
        .args(["--check-config", "--config"])
        .arg(&file)
        .output()
        .unwrap();
    assert!(checked.status.success());
    assert_eq!(checked.stderr, b"", "no warnings");
}

/// The log of a healthy tracker causes no mail to the administrator.
#[test]
fn logcheck_ignores_a_quiet_day() {
    let state = Directory::new();
    let config = format!(
        "[http]\nlisten = [\"127.0.0.1:0\"]\n[proxy]\ntrusted = [\"127.0.0.1\"]\nlisten = [\"127.0.0.1:0\"]\n\
         [torrents]\ndirectories = [{torrents:?}]\n[state]\ndirectory = {state:?}\n[daemon]\nuser = \"\"\n",
        torrents = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/torrents"),
        state = state.path(),
    );
    let config = match geteuid().is_root() {
        // The state directory must belong to the user of the daemon.
        true => {
            chown(state.path(), Some(Uid::from_raw(65534)), None).unwrap();
            config.replace("user = \"\"", "user = \"nobody\"")
        }
        false => config,
    };
    let mut notices = Vec::new();
    // The second start restores the state.
    for _ in 0..2 {
        let mut daemon = Daemon::start(&config);
        daemon.wait_for_line("torrent directories read");
        daemon.signal(Signal::SIGHUP);
        daemon.wait_for_line("reloaded");
        assert!(daemon.stop().success());
        notices.extend(daemon.lines(" notice "));
    }
    let lines: String = notices
        .iter()
        .map(|line| line.split_once(" notice ").unwrap().1)
        .map(|line| format!("Nov 22 06:25:01 mirror tbtt[4711]: {line}\n"))
        .collect();
    assert!(lines.contains("state restored"), "{lines}");
    assert_eq!(not_ignored(&lines), "", "all of these lines are expected");
    let worse = "Nov 22 06:25:01 mirror tbtt[4711]: cannot save the state reason=\"disk full\"\n";
    assert_eq!(not_ignored(worse), worse);
}

/// A rule that no line matches is out of date: logcheck mails the line that it was for.
#[test]
fn logcheck_rules_are_for_notices_of_the_daemon() {
    let mut notices = Vec::new();
    add_notices(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("src"),
        &mut notices,
    );
    let rules = fs::read_to_string(shipped("tbtt.logcheck.ignore.server")).unwrap();
    for rule in rules.lines() {
        // A sentence, and fields such as `( [_[:lower:]]+=[[:digit:]]+)*` or ` seconds=[[:digit:]]+`.
        let line = rule.split_once("\\]: ").unwrap().1;
        let sentence = line.split(['=', '(', '$']).next().unwrap();
        let sentence = match line[sentence.len()..].starts_with('=') {
            true => sentence.rsplit_once(' ').unwrap().0,
            false => sentence,
        };
        assert!(notices.iter().any(|notice| notice == sentence), "{rule}");
    }
}

/// Collects the sentences of the `log::notice` calls in the sources.
fn add_notices(directory: &Path, notices: &mut Vec<String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            add_notices(&path, notices);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let source = fs::read_to_string(&path).unwrap();
            let calls = source.split("log::notice(").skip(1);
            notices.extend(calls.map(|call| call.split('"').nth(1).unwrap_or_default().to_owned()));
        }
    }
}

/// Returns the lines that logcheck would mail.
fn not_ignored(lines: &str) -> String {
    let mut grep = Command::new("grep")
        .args(["--invert-match", "--extended-regexp", "--file"])
        .arg(shipped("tbtt.logcheck.ignore.server"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    grep.stdin
        .take()
        .unwrap()
        .write_all(lines.as_bytes())
        .unwrap();
    let output = grep.wait_with_output().unwrap();
    assert!(output.status.code() < Some(2), "grep accepts the rules");
    String::from_utf8(output.stdout).unwrap()
}
