//! The sandbox, tested from inside: the access in its settings is allowed, other access is refused.
#![cfg(feature = "landlock")]

use std::fmt::Display;
use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::kill;
use nix::unistd::getppid;
use tbtt::os::sandbox::{Enforcement, Settings, restrict};

const INSIDE: &str = "TBTT_TEST_INSIDE";

/// The process that the other tests start: it reports which operations succeed. Without them it does nothing.
#[test]
fn helper() {
    let Some(root) = std::env::var_os(INSIDE).map(PathBuf::from) else {
        return;
    };
    let output = OpenOptions::new()
        .append(true)
        .open(root.join("report"))
        .unwrap();
    let mut report = String::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let connection = TcpStream::connect(address).unwrap();
    let may_tcp = root.join("may-tcp").exists();
    let restricted = restrict(&Settings {
        read: vec![
            root.join("read"),
            root.join("missing"),
            root.join("one-file"),
        ],
        write: vec![root.join("state")],
        bind_tcp: may_tcp,
        connect_tcp: may_tcp.then_some(address.port()),
    })
    .unwrap();
    if let Enforcement::Nothing(why) = &restricted.enforcement {
        io::Write::write_all(&mut &output, format!("skipped: {why}\n").as_bytes()).unwrap();
        return;
    }
    let mut note = |operation: &str, result: io::Result<()>| {
        let outcome = match result {
            Ok(()) => "done".to_owned(),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => "refused".to_owned(),
            Err(error) => error.to_string(),
        };
        report += &format!("{operation}: {outcome}\n");
    };
    let read = |path: &Path| fs::read(path).map(drop);
    let write = |path: &Path| fs::write(path, "x");

    note(
        &format!(
            "enforcement {}, missing paths {:?}",
            restricted.enforcement,
            names(&restricted.missing_paths)
        ),
        Ok(()),
    );
    note(
        "read a named directory's file",
        read(&root.join("read/below/file")),
    );
    note(
        "list a named directory",
        fs::read_dir(root.join("read")).map(drop),
    );
    note("read a named file", read(&root.join("one-file")));
    note(
        "write a named directory's file",
        write(&root.join("read/below/file")),
    );
    note("create a file next to it", write(&root.join("read/new")));
    note("remove it", fs::remove_file(root.join("read/below/file")));
    note(
        "read through a link out of it",
        read(&root.join("read/link")),
    );
    note("read an unnamed file", read(&root.join("unnamed")));
    note("read /etc/passwd", read(Path::new("/etc/passwd")));
    note("list the root", fs::read_dir("/").map(drop));
    note(
        "write to the temporary directory",
        write(&root.join("temporary")),
    );
    note(
        "write state under a temporary name",
        write(&root.join("state/new")),
    );
    note(
        "rename it",
        fs::rename(root.join("state/new"), root.join("state/now")),
    );
    note("read it", read(&root.join("state/now")));
    note(
        "truncate it",
        fs::File::create(root.join("state/now")).map(drop),
    );
    note(
        "fsync the directory",
        fs::File::open(root.join("state")).and_then(|dir| dir.sync_all()),
    );
    note(
        "move it out",
        fs::rename(root.join("state/now"), root.join("read/now")),
    );
    note("remove it", fs::remove_file(root.join("state/now")));
    note(
        "make a link",
        std::os::unix::fs::symlink("/etc/passwd", root.join("state/link")),
    );
    note(
        "run a program",
        Command::new("/bin/true").status().map(drop),
    );
    note("listen on TCP", TcpListener::bind("127.0.0.1:0").map(drop));
    note("connect by TCP", TcpStream::connect(address).map(drop));
    note("accept on the open listener", listener.accept().map(drop));
    note(
        "use a connection",
        io::Write::write_all(&mut &connection, b"x"),
    );
    note(
        "send to the log",
        UnixDatagram::unbound()
            .and_then(|s| s.send_to(b"x", root.join("log")))
            .map(drop),
    );
    note(
        "make a UDP socket",
        UdpSocket::bind("127.0.0.1:0").map(drop),
    );
    let parent = kill(getppid(), None).map_err(io::Error::from);
    note("signal another process", parent);
    io::Write::write_all(&mut &output, report.as_bytes()).unwrap();
}

fn names(paths: &[PathBuf]) -> Vec<impl Display + std::fmt::Debug> {
    paths
        .iter()
        .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
        .collect()
}

/// Returns the report of the helper, a line for each operation; `None` if the kernel has no Landlock.
fn inside(test: &str, may_tcp: bool) -> Option<String> {
    let root = std::env::temp_dir().join(format!("tbtt-sandbox-{}-{test}", std::process::id()));
    let _ = fs::remove_dir_all(&root);
    for dir in ["read/below", "state"] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    for file in ["read/below/file", "one-file", "unnamed", "report"] {
        fs::write(root.join(file), "").unwrap();
    }
    std::os::unix::fs::symlink("../unnamed", root.join("read/link")).unwrap();
    if may_tcp {
        fs::write(root.join("may-tcp"), "").unwrap();
    }
    let _log = UnixDatagram::bind(root.join("log")).unwrap();
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "helper"])
        .env(INSIDE, &root)
        .status()
        .unwrap();
    assert!(status.success());
    let report = fs::read_to_string(root.join("report")).unwrap();
    fs::remove_dir_all(&root).unwrap();
    if report.starts_with("skipped") {
        eprintln!("{report}");
        return None;
    }
    Some(report)
}

#[test]
fn refuses_access_outside_the_settings() {
    let Some(report) = inside("refused", false) else {
        return;
    };
    // TCP is restricted since Linux 6.7, signals since Linux 6.12.
    let full = report.starts_with("enforcement full");
    let tcp = if full { "refused" } else { "done" };
    let enforcement = report.lines().next().unwrap().split_once(',').unwrap().0;
    let expected = format!(
        "{enforcement}, missing paths [\"missing\"]: done
read a named directory's file: done
list a named directory: done
read a named file: done
write a named directory's file: refused
create a file next to it: refused
remove it: refused
read through a link out of it: refused
read an unnamed file: refused
read /etc/passwd: refused
list the root: refused
write to the temporary directory: refused
write state under a temporary name: done
rename it: done
read it: done
truncate it: done
fsync the directory: done
move it out: refused
remove it: done
make a link: refused
run a program: refused
listen on TCP: {tcp}
connect by TCP: {tcp}
accept on the open listener: done
use a connection: done
send to the log: done
make a UDP socket: done
signal another process: {tcp}
"
    );
    if full {
        assert_eq!(report, expected);
    } else {
        eprintln!("partly: this kernel's Landlock is older; TCP and signals are not compared");
        let files = |report: &str| {
            report
                .lines()
                .filter(|line| !line.contains("TCP") && !line.contains("signal"))
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        assert_eq!(files(&report), files(&expected));
    }
}

#[test]
fn allows_tcp_if_the_settings_do() {
    let Some(report) = inside("tcp", true) else {
        return;
    };
    assert!(report.contains("listen on TCP: done\n"), "{report}");
    assert!(report.contains("connect by TCP: done\n"), "{report}");
    assert!(
        report.contains("read an unnamed file: refused\n"),
        "{report}"
    );
}
