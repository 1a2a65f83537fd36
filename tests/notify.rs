//! Notifications to the service manager, datagram by datagram.

use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use tbtt::os::systemd::{self, Watchdog};

const HELPER: &str = "TBTT_TEST_NOTIFY";

/// The process that the other tests start. Without them it does nothing.
#[test]
fn helper() {
    if std::env::var_os(HELPER).is_none() {
        return;
    }
    systemd::ready("0 torrents").unwrap();
    systemd::status("1 torrent\nREADY=1").unwrap();
    systemd::reloading().unwrap();
    systemd::ready("2 torrents").unwrap();
    if let Some(watchdog) = Watchdog::from_environment() {
        assert_eq!(watchdog.timeout, Duration::from_secs(3));
        assert_eq!(watchdog.interval(), Duration::from_millis(1500));
        watchdog.ping().unwrap();
    }
    systemd::stopping().unwrap();
}

/// Runs the helper. `$$` in the variables stands for its pid.
fn run(variables: &str) {
    let status = Command::new("sh")
        .args([
            "-c",
            &format!("{variables} exec \"$0\" --exact helper >/dev/null"),
        ])
        .arg(std::env::current_exe().unwrap())
        .env(HELPER, "1")
        .env_remove("NOTIFY_SOCKET")
        .status()
        .unwrap();
    assert!(status.success());
}

/// Runs the helper and returns all messages that it sent: the socket queues them until they are read.
fn messages(test: &str, variables: &str) -> Vec<String> {
    let path = std::env::temp_dir().join(format!("tbtt-notify-{}-{test}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let manager = UnixDatagram::bind(&path).unwrap();
    run(&format!("NOTIFY_SOCKET={} {variables}", path.display()));
    manager.set_nonblocking(true).unwrap();
    let mut datagram = [0; 4096];
    let mut messages = Vec::new();
    while let Ok(length) = manager.recv(&mut datagram) {
        messages.push(String::from_utf8(datagram[..length].to_vec()).unwrap());
    }
    std::fs::remove_file(path).unwrap();
    messages
}

fn monotonic_usec() -> u128 {
    Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap()).as_micros()
}

#[test]
fn sends_a_datagram_per_message_and_the_time_of_a_reload() {
    let before = monotonic_usec();
    let mut messages = messages("all", "");
    let after = monotonic_usec();
    let reloading = messages.remove(2);
    let usec = reloading
        .strip_prefix("RELOADING=1\nMONOTONIC_USEC=")
        .unwrap()
        .trim_end();
    assert!((before..=after).contains(&usec.parse().unwrap()), "{usec}");
    assert_eq!(
        messages,
        [
            "READY=1\nSTATUS=0 torrents\n",
            "STATUS=1 torrent READY=1\n",
            "READY=1\nSTATUS=2 torrents\n",
            "STOPPING=1\n",
        ]
    );
}

#[test]
fn pings_only_a_watchdog_for_this_process() {
    let mine = messages("mine", "WATCHDOG_USEC=3000000 WATCHDOG_PID=$$");
    assert!(mine.contains(&"WATCHDOG=1\n".to_owned()), "{mine:?}");
    let others = messages("others", "WATCHDOG_USEC=3000000 WATCHDOG_PID=1");
    assert!(
        !others.iter().any(|message| message.contains("WATCHDOG")),
        "{others:?}"
    );
}

#[test]
fn without_service_manager_notifications_do_nothing() {
    run("");
}
