//! The sandbox, tried from inside: what it names can be done, the rest is refused.
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

/// What the other tests start as a process of its own; by itself it does nothing. Says what it could do.
#[test]
fn helper() {
    let Some(root) = std::env::var_os(INSIDE).map(PathBuf::from) else {
        return;
    };
    let told = OpenOptions::new()
        .append(true)
        .open(root.join("told"))
        .unwrap();
    let mut report = String::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let caller = TcpStream::connect(address).unwrap();
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
    if let Enforcement::Nothing(why) = &restricted.reached {
        io::Write::write_all(&mut &told, format!("skipped: {why}\n").as_bytes()).unwrap();
        return;
    }
    let mut tell = |what: &str, result: io::Result<()>| {
        let outcome = match result {
            Ok(()) => "done".to_owned(),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => "refused".to_owned(),
            Err(error) => error.to_string(),
        };
        report += &format!("{what}: {outcome}\n");
    };
    let read = |path: &Path| fs::read(path).map(drop);
    let write = |path: &Path| fs::write(path, "x");

    tell(
        &format!(
            "reached {}, missing_paths {:?}",
            restricted.reached,
            names(&restricted.missing_paths)
        ),
        Ok(()),
    );
    tell(
        "read a named directory's file",
        read(&root.join("read/below/file")),
    );
    tell(
        "list a named directory",
        fs::read_dir(root.join("read")).map(drop),
    );
    tell("read a named file", read(&root.join("one-file")));
    tell(
        "write a named directory's file",
        write(&root.join("read/below/file")),
    );
    tell("create beside it", write(&root.join("read/new")));
    tell("remove it", fs::remove_file(root.join("read/below/file")));
    tell(
        "read through a link out of it",
        read(&root.join("read/link")),
    );
    tell("read an unnamed file", read(&root.join("unnamed")));
    tell("read /etc/passwd", read(Path::new("/etc/passwd")));
    tell("list the root", fs::read_dir("/").map(drop));
    tell(
        "write to the temporary directory",
        write(&root.join("temporary")),
    );
    tell("write state beside", write(&root.join("state/new")));
    tell(
        "rename it",
        fs::rename(root.join("state/new"), root.join("state/now")),
    );
    tell("read it", read(&root.join("state/now")));
    tell(
        "truncate it",
        fs::File::create(root.join("state/now")).map(drop),
    );
    tell(
        "fsync the directory",
        fs::File::open(root.join("state")).and_then(|dir| dir.sync_all()),
    );
    tell(
        "move it out",
        fs::rename(root.join("state/now"), root.join("read/now")),
    );
    tell("remove it", fs::remove_file(root.join("state/now")));
    tell(
        "make a link",
        std::os::unix::fs::symlink("/etc/passwd", root.join("state/link")),
    );
    tell(
        "run a program",
        Command::new("/bin/true").status().map(drop),
    );
    tell("listen on TCP", TcpListener::bind("127.0.0.1:0").map(drop));
    tell("connect by TCP", TcpStream::connect(address).map(drop));
    tell("accept on the open listener", listener.accept().map(drop));
    tell("use a connection", io::Write::write_all(&mut &caller, b"x"));
    tell(
        "send to the log",
        UnixDatagram::unbound()
            .and_then(|s| s.send_to(b"x", root.join("log")))
            .map(drop),
    );
    tell(
        "make a UDP socket",
        UdpSocket::bind("127.0.0.1:0").map(drop),
    );
    let parent = kill(getppid(), None).map_err(io::Error::from);
    tell("signal another process", parent);
    io::Write::write_all(&mut &told, report.as_bytes()).unwrap();
}

fn names(paths: &[PathBuf]) -> Vec<impl Display + std::fmt::Debug> {
    paths
        .iter()
        .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
        .collect()
}

/// What the helper could do inside, a line each; `None` where the kernel has no Landlock.
fn inside(test: &str, may_tcp: bool) -> Option<String> {
    let root = std::env::temp_dir().join(format!("tbtt-sandbox-{}-{test}", std::process::id()));
    let _ = fs::remove_dir_all(&root);
    for dir in ["read/below", "state"] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    for file in ["read/below/file", "one-file", "unnamed", "told"] {
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
    let told = fs::read_to_string(root.join("told")).unwrap();
    fs::remove_dir_all(&root).unwrap();
    if told.starts_with("skipped") {
        eprintln!("{told}");
        return None;
    }
    Some(told)
}

#[test]
fn what_is_not_named_is_refused() {
    let Some(told) = inside("refused", false) else {
        return;
    };
    // TCP only since Linux 6.7, signals since 6.12.
    let full = told.starts_with("reached full");
    let tcp = if full { "refused" } else { "done" };
    let reached = told.lines().next().unwrap().split_once(',').unwrap().0;
    let expected = format!(
        "{reached}, missing_paths [\"missing\"]: done
read a named directory's file: done
list a named directory: done
read a named file: done
write a named directory's file: refused
create beside it: refused
remove it: refused
read through a link out of it: refused
read an unnamed file: refused
read /etc/passwd: refused
list the root: refused
write to the temporary directory: refused
write state beside: done
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
        assert_eq!(told, expected);
    } else {
        eprintln!("partly: this kernel's Landlock is older, TCP and signals are not compared");
        let files = |told: &str| {
            told.lines()
                .filter(|line| !line.contains("TCP") && !line.contains("signal"))
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        assert_eq!(files(&told), files(&expected));
    }
}

#[test]
fn tcp_is_left_alone_when_asked_for() {
    let Some(told) = inside("tcp", true) else {
        return;
    };
    assert!(told.contains("listen on TCP: done\n"), "{told}");
    assert!(told.contains("connect by TCP: done\n"), "{told}");
    assert!(told.contains("read an unnamed file: refused\n"), "{told}");
}
