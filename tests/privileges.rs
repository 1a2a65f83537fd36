//! Root given up for good, as the kernel tells it from outside: `/proc/PID/status` of a process that did so.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};

use nix::unistd::{Gid, Uid, User, getgrouplist, gettid, setresgid, setresuid};
use tbtt::os::privileges::{Privileges, irrevocably_drop};

const USER: &str = "TBTT_TEST_USER";

/// Instead of a user: be an ordinary one from the start.
const UNPRIVILEGED: &str = "-";

/// What the other tests start as a process of its own; by itself it does nothing.
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
    // Which thread did it: the test harness has another beside it.
    match irrevocably_drop(user) {
        Ok(privileges) => eprintln!("{} {privileges:?}", gettid()),
        Err(error) => eprintln!("0 refused: {error}"),
    }
    // Until the test has looked.
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

struct Helper {
    child: Child,
    thread: u32,
    told: String,
}

impl Helper {
    /// Starts the helper and waits until it has spoken.
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
        let (thread, told) = line.trim_end().split_once(' ').unwrap();
        Self {
            child,
            thread: thread.parse().unwrap(),
            told: told.to_owned(),
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
        eprintln!("skipped: only root has something to give up");
    }
    skipped
}

#[test]
fn root_keeps_no_id_no_group_and_no_capability() {
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
    assert_eq!(helper.told, format!("{expected:?}"));

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

    // Not dumpable: its files below /proc belong to root, so that its own uid cannot trace it.
    let owner = std::os::unix::fs::MetadataExt::uid(
        &fs::metadata(format!("/proc/{}/mem", helper.child.id())).unwrap(),
    );
    assert_eq!(owner, 0);
    helper.end();
}

#[test]
fn root_without_a_fit_user_is_refused() {
    if skipped_without_root() {
        return;
    }
    let cases = [
        ("", "refused: started as root, but no user is configured"),
        ("root", "refused: user \"root\" is root or in root's group"),
        (
            "no-such-user-here",
            "refused: no user \"no-such-user-here\" on this machine",
        ),
    ];
    for (user, expected) in cases {
        let helper = Helper::start(&mut this_test(), user);
        assert!(helper.told.starts_with(expected), "{}", helper.told);
        helper.end();
    }
}

/// A caller that tied capabilities to the process: setresuid then leaves them all in place.
#[test]
fn capabilities_that_survive_the_uid_are_noticed() {
    if skipped_without_root() {
        return;
    }
    let mut command = Command::new("setpriv");
    command
        .args(["--securebits", "+no_setuid_fixup"])
        .arg(std::env::current_exe().unwrap());
    let helper = Helper::start(&mut command, "nobody");
    let expected = "refused: root was given up, yet setuid brings it back";
    assert!(helper.told.starts_with(expected), "{}", helper.told);
    helper.end();
}

#[test]
fn a_start_without_root_needs_no_user_and_keeps_its_own() {
    let helper = Helper::start(&mut this_test(), UNPRIVILEGED);
    assert_eq!(helper.told, "NeverHeld");
    assert_eq!(helper.status("NoNewPrivs"), "1");
    assert_eq!(helper.status("CapEff"), "0000000000000000");
    helper.end();
}
