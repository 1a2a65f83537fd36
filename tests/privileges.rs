//! Root privileges dropped permanently, verified from outside: in `/proc/PID/status` of a process that dropped them.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};

use nix::unistd::{Gid, Uid, User, getgrouplist, gettid, setresgid, setresuid};
use tbtt::os::privileges::{Privileges, irrevocably_drop};

const USER: &str = "TBTT_TEST_USER";

/// Instead of a user: start without root privileges.
const UNPRIVILEGED: &str = "-";

/// The process that the other tests start. Without them it does nothing.
#[test]
fn helper() {
    let Ok(user) = std::env::var(USER) else {
        return;
    };
    if user == UNPRIVILEGED && Uid::effective().is_root() {
        let (uid, gid) = (Uid::from_raw(65534), Gid::from_raw(65534));
        setresgid(gid, gid, gid)
            .and_then(|()| setresuid(uid, uid, uid))
            .unwrap();
    }
    let user = Some(user.as_str()).filter(|user| !["", UNPRIVILEGED].contains(user));
    // The id of this thread: the test harness has other threads.
    match irrevocably_drop(user) {
        Ok(privileges) => eprintln!("{} {privileges:?}", gettid()),
        Err(error) => eprintln!("0 refused: {error}"),
    }
    // Wait until the test has read /proc.
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

struct Helper {
    child: Child,
    thread: u32,
    result: String,
}

impl Helper {
    /// Starts the helper and waits for its result.
    fn start(command: &mut Command, user: &str) -> Self {
        let mut child = command
            .args(["--exact", "helper", "--nocapture"])
            .env(USER, user)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stderr.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let (thread, result) = line.trim_end().split_once(' ').unwrap();
        Self {
            child,
            thread: thread.parse().unwrap(),
            result: result.to_owned(),
        }
    }

    fn status(&self, key: &str) -> String {
        let path = format!("/proc/{}/task/{}/status", self.child.id(), self.thread);
        let status = fs::read_to_string(path).unwrap();
        let value = status
            .lines()
            .find_map(|line| line.strip_prefix(key))
            .unwrap();
        value
            .trim_start_matches(':')
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
    }

    fn end(mut self) {
        drop(self.child.stdin.take());
        assert!(self.child.wait().unwrap().success());
    }
}

fn this_test() -> Command {
    Command::new(std::env::current_exe().unwrap())
}

fn skipped_without_root() -> bool {
    let skipped = !Uid::effective().is_root();
    if skipped {
        eprintln!("skipped: needs root");
    }
    skipped
}

#[test]
fn dropping_root_leaves_no_id_group_or_capability() {
    if skipped_without_root() {
        return;
    }
    let nobody = User::from_name("nobody").unwrap().unwrap();
    let helper = Helper::start(&mut this_test(), "nobody");
    let (uid, gid) = (nobody.uid.as_raw(), nobody.gid.as_raw());
    let expected = Privileges::Dropped {
        user: "nobody".to_owned(),
        uid,
        gid,
    };
    assert_eq!(helper.result, format!("{expected:?}"));

    assert_eq!(
        helper.status("Uid"),
        [uid.to_string().as_str(); 4].join(" ")
    );
    assert_eq!(
        helper.status("Gid"),
        [gid.to_string().as_str(); 4].join(" ")
    );
    let mut groups: Vec<u32> = getgrouplist(c"nobody", nobody.gid)
        .unwrap()
        .iter()
        .map(|group| group.as_raw())
        .collect();
    groups.sort_unstable();
    let groups: Vec<String> = groups.iter().map(u32::to_string).collect();
    assert_eq!(helper.status("Groups"), groups.join(" "));
    for capabilities in ["CapEff", "CapPrm", "CapInh", "CapAmb"] {
        assert_eq!(
            helper.status(capabilities),
            "0000000000000000",
            "{capabilities}"
        );
    }
    assert_eq!(helper.status("NoNewPrivs"), "1");

    // The process is not dumpable: its files below /proc belong to root, so that other processes of its user cannot
    // trace it.
    let owner = std::os::unix::fs::MetadataExt::uid(
        &fs::metadata(format!("/proc/{}/mem", helper.child.id())).unwrap(),
    );
    assert_eq!(owner, 0);
    helper.end();
}

#[test]
fn refuses_root_without_a_suitable_user() {
    if skipped_without_root() {
        return;
    }
    let cases = [
        ("", "refused: started as root, but no user is configured"),
        ("root", "refused: user \"root\" is root or in root's group"),
        (
            "no-such-user-here",
            "refused: user \"no-such-user-here\" does not exist",
        ),
    ];
    for (user, expected) in cases {
        let helper = Helper::start(&mut this_test(), user);
        assert!(helper.result.starts_with(expected), "{}", helper.result);
        helper.end();
    }
}

/// A caller that sets secure bits: setresuid then keeps all capabilities.
#[test]
fn detects_capabilities_that_survive_setresuid() {
    if skipped_without_root() {
        return;
    }
    let mut command = Command::new("setpriv");
    command
        .args(["--securebits", "+no_setuid_fixup"])
        .arg(std::env::current_exe().unwrap());
    let helper = Helper::start(&mut command, "nobody");
    let expected = "refused: dropped root privileges can be regained by setuid";
    assert!(helper.result.starts_with(expected), "{}", helper.result);
    helper.end();
}

#[test]
fn start_without_root_needs_no_user() {
    let helper = Helper::start(&mut this_test(), UNPRIVILEGED);
    assert_eq!(helper.result, "NeverHeld");
    assert_eq!(helper.status("NoNewPrivs"), "1");
    assert_eq!(helper.status("CapEff"), "0000000000000000");
    helper.end();
}
