//! Sockets passed by a service manager: each is accepted by its kind, or refused with the reason.

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

/// The process that the other tests start. Without them it does nothing.
#[test]
fn helper() {
    let Some(report) = std::env::var_os(REPORT) else {
        return;
    };
    let result = match inherited(KNOWN) {
        Ok(sockets) => {
            let mut lines = String::new();
            for (fd, (name, socket)) in (3..).zip(&sockets) {
                lines += &format!("{name} {} {}\n", socket.address(), flags(fd));
            }
            for variable in ["LISTEN_PID", "LISTEN_FDS"] {
                assert!(sockets.is_empty() || std::env::var_os(variable).is_none());
            }
            assert!(
                inherited(KNOWN).unwrap().is_empty(),
                "they can be taken once"
            );
            lines
        }
        Err(error) => format!("{error}\n"),
    };
    fs::write(report, result).unwrap();
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
        false => "unchanged",
    }
}

/// Starts the helper with the sockets as descriptors 3 and 4, and returns its result.
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
    let result = fs::read_to_string(&report).unwrap();
    fs::remove_file(report).unwrap();
    result
}

#[test]
fn takes_tcp_and_udp_by_name() {
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let udp = UdpSocket::bind("[::1]:0").unwrap();
    let expected = format!(
        "http {} nonblocking,cloexec\nudp {} nonblocking,cloexec\n",
        tcp.local_addr().unwrap(),
        udp.local_addr().unwrap()
    );
    let result = start(
        "both",
        [Some(tcp.into()), Some(udp.into())],
        "LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=http:udp",
    );
    assert_eq!(result, expected);
}

#[test]
fn takes_several_sockets_of_a_name_and_unix_sockets() {
    let path = std::env::temp_dir().join(format!("tbtt-inherited-{}", std::process::id()));
    let unix = UnixListener::bind(&path).unwrap();
    let tcp = TcpListener::bind("[::1]:0").unwrap();
    let expected = format!(
        "http {} nonblocking,cloexec\nhttp {} nonblocking,cloexec\n",
        path.display(),
        tcp.local_addr().unwrap()
    );
    let result = start(
        "unix",
        [Some(unix.into()), Some(tcp.into())],
        "LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=http:http",
    );
    fs::remove_file(path).unwrap();
    assert_eq!(result, expected);
}

#[test]
fn without_passed_sockets_takes_none() {
    assert_eq!(start("none", [None, None], ""), "");
    assert_eq!(start("zero", [None, None], "LISTEN_FDS=0"), "");
}

#[test]
fn refuses_unsuitable_sockets_with_the_reason() {
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
            "the sockets are for another process",
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
            "has the unknown name \"unknown\"; set FileDescriptorName= in its .socket unit to one of http, udp",
        ),
        (
            tcp(),
            "LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=tbtt.socket",
            "has the unknown name \"tbtt.socket\"",
        ),
        (
            tcp(),
            "LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=http:udp",
            "2 names for the 1 sockets",
        ),
        (
            tcp(),
            "LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=udp",
            "is a listening TCP socket; expected a UDP socket",
        ),
        (
            udp(),
            "LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=http",
            "is a UDP socket; expected a listening TCP",
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
        let result = start(&format!("refused-{n}"), [socket, None], variables);
        assert!(result.contains(expected), "{variables}: {result}");
    }
}
