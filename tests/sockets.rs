//! Sockets passed by a service manager: each is taken over for what it is, or refused with the reason.

use std::fs;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Stdio};

use nix::libc::{O_CLOEXEC, O_NONBLOCK};
use tbtt::os::sockets::{Kind, SocketName, inherited};

const REPORT: &str = "TBTT_TEST_REPORT";

const KNOWN: &[SocketName<'_>] = &[
    SocketName {
        name: "http",
        kinds: &[Kind::Tcp, Kind::Unix],
    },
    SocketName {
        name: "udp",
        kinds: &[Kind::Udp],
    },
];

/// What the other tests start as a process of its own; by itself it does nothing.
#[test]
fn helper() {
    let Some(report) = std::env::var_os(REPORT) else {
        return;
    };
    let told = match inherited(KNOWN) {
        Ok(sockets) => {
            let mut told = String::new();
            for (fd, (name, socket)) in (3..).zip(&sockets) {
                told += &format!("{name} {} {}\n", socket.address(), flags(fd));
            }
            for variable in ["LISTEN_PID", "LISTEN_FDS"] {
                assert!(sockets.is_empty() || std::env::var_os(variable).is_none());
            }
            assert!(
                inherited(KNOWN).unwrap().is_empty(),
                "they are taken over once"
            );
            told
        }
        Err(error) => format!("{error}\n"),
    };
    fs::write(report, told).unwrap();
}

fn flags(fd: u32) -> &'static str {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap();
    let octal = info
        .lines()
        .find_map(|line| line.strip_prefix("flags:"))
        .unwrap();
    let flags = i32::from_str_radix(octal.trim(), 8).unwrap();
    match flags & (O_NONBLOCK | O_CLOEXEC) == O_NONBLOCK | O_CLOEXEC {
        true => "nonblocking,cloexec",
        false => "as it came",
    }
}

/// Starts the helper with the sockets as descriptors 3 and 4, and tells what it made of them.
fn start(test: &str, sockets: [Option<OwnedFd>; 2], variables: &str) -> String {
    let report = std::env::temp_dir().join(format!("tbtt-inherited-{}-{test}", std::process::id()));
    let script =
        format!("exec 3<&0 4>&1 0</dev/null 1>/dev/null; {variables} exec \"$0\" --exact helper");
    let [first, second] = sockets.map(|socket| socket.map_or_else(Stdio::null, Stdio::from));
    let status = Command::new("sh")
        .args(["-c", &script])
        .arg(std::env::current_exe().unwrap())
        .env(REPORT, &report)
        .stdin(first)
        .stdout(second)
        .status()
        .unwrap();
    assert!(status.success());
    let told = fs::read_to_string(&report).unwrap();
    fs::remove_file(report).unwrap();
    told
}

#[test]
fn tcp_and_udp_are_taken_over_by_name() {
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let udp = UdpSocket::bind("[::1]:0").unwrap();
    let expected = format!(
        "http {} nonblocking,cloexec\nudp {} nonblocking,cloexec\n",
        tcp.local_addr().unwrap(),
        udp.local_addr().unwrap()
    );
    let told = start(
        "both",
        [Some(tcp.into()), Some(udp.into())],
        "LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=http:udp",
    );
    assert_eq!(told, expected);
}

#[test]
fn several_of_one_name_and_unix_are_taken_over() {
    let path = std::env::temp_dir().join(format!("tbtt-inherited-{}", std::process::id()));
    let unix = UnixListener::bind(&path).unwrap();
    let tcp = TcpListener::bind("[::1]:0").unwrap();
    let expected = format!(
        "http {} nonblocking,cloexec\nhttp {} nonblocking,cloexec\n",
        path.display(),
        tcp.local_addr().unwrap()
    );
    let told = start(
        "unix",
        [Some(unix.into()), Some(tcp.into())],
        "LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=http:http",
    );
    fs::remove_file(path).unwrap();
    assert_eq!(told, expected);
}

#[test]
fn nothing_passed_is_nothing_taken_over() {
    assert_eq!(start("none", [None, None], ""), "");
    assert_eq!(start("zero", [None, None], "LISTEN_FDS=0"), "");
}

#[test]
fn what_cannot_serve_is_refused_with_the_reason() {
    let tcp = || Some(OwnedFd::from(TcpListener::bind("127.0.0.1:0").unwrap()));
    let udp = || Some(OwnedFd::from(UdpSocket::bind("127.0.0.1:0").unwrap()));
    let connection = || Some(OwnedFd::from(UnixStream::pair().unwrap().0));
    let accepted = || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Some(OwnedFd::from(
            TcpStream::connect(listener.local_addr().unwrap()).unwrap(),
        ))
    };
    let cases = [
        (
            tcp(),
            "LISTEN_PID=1 LISTEN_FDS=1 LISTEN_FDNAMES=http",
            "meant for another process",
        ),
        (
            tcp(),
            "LISTEN_FDS=1 LISTEN_FDNAMES=http",
            "LISTEN_PID is not set",
        ),
        (
            tcp(),
            "LISTEN_PID=$$ LISTEN_FDS=many",
            "LISTEN_FDS is \"many\"",
        ),
        (tcp(), "LISTEN_PID=$$ LISTEN_FDS=-1", "LISTEN_FDS is \"-1\""),
        (
            tcp(),
            "LISTEN_PID=$$ LISTEN_FDS=1",
            "named \"unknown\", which is not one of http, udp",
        ),
        (
            tcp(),
            "LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=tbtt.socket",
            "set FileDescriptorName=",
        ),
        (
            tcp(),
            "LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=http:udp",
            "2 names for the 1 sockets",
        ),
        (
            tcp(),
            "LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=udp",
            "is a listening TCP socket; wanted is a UDP socket",
        ),
        (
            udp(),
            "LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=http",
            "is a UDP socket; wanted is a listening TCP",
        ),
        (
            accepted(),
            "LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=http",
            "Accept=no",
        ),
        (
            connection(),
            "LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=http",
            "Accept=no",
        ),
        (
            None,
            "LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=http",
            "not a socket",
        ),
        (
            tcp(),
            "LISTEN_PID=$$ LISTEN_FDS=99 LISTEN_FDNAMES=http",
            "99",
        ),
    ];
    for (n, (socket, variables, expected)) in cases.into_iter().enumerate() {
        let told = start(&format!("refused-{n}"), [socket, None], variables);
        assert!(told.contains(expected), "{variables}: {told}");
    }
}
