//! Requests over one connection, whole: what is answered without hyper is answered as hyper has it, byte for byte.
#![no_main]

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use tbtt::clock::Clock;
use tbtt::config::Config;
use tbtt::server::Shared;
use tbtt::server::http::connection_limits::ConnectionLimits;
use tbtt::server::http::server::HttpServer;
use tbtt::server::http::settings::{ListenerRole, Settings};
use tbtt::server::http::{HttpListener, ListenSocket, serve};
use tbtt::status::endpoint::StatusEndpoint;
use tbtt::tracker::{self, Time, Tracker};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tokio::task::{LocalSet, spawn_local, yield_now};

/// Begins a piece that is written only when what came before is answered, as far as it can be.
const NEXT: u8 = 0x1e;

/// As many looks at what has come let a worker on the same thread do all that it can.
const TURNS: usize = 6;

static SETTINGS: LazyLock<Settings> = LazyLock::new(|| {
    let loaded = Config::load_if_present(Path::new("/nonexistent")).expect("the defaults");
    Settings {
        connections: None,
        ..loaded.http_settings(1)
    }
});

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_current_thread().enable_all().build().unwrap());

/// Never asked: by default only loopback addresses may see the status page, and a Unix socket has no address.
static STATUS: LazyLock<StatusEndpoint> = LazyLock::new(|| {
    StatusEndpoint::start(Box::new(|| {
        unreachable!("the status page needs an address")
    }))
    .unwrap()
});

/// A listening socket without a name in the file system, by its number.
static LISTENERS: LazyLock<[UnixListener; 2]> = LazyLock::new(|| [0, 1].map(listener));

fn name(number: usize) -> SocketAddr {
    let name = format!("tbtt-fuzz-{}-{number}", std::process::id());
    SocketAddr::from_abstract_name(name).unwrap()
}

fn listener(number: usize) -> UnixListener {
    UnixListener::bind_addr(&name(number)).unwrap()
}

fuzz_target!(|input: &[u8]| {
    let pieces: Vec<_> = input.split(|&byte| byte == NEXT).collect();
    let Some((&first, _)) = pieces[0].split_first() else {
        return;
    };
    // What begins with one byte alone is handed to hyper from there on.
    let mut split = vec![std::slice::from_ref(&first), &pieces[0][1..]];
    split.extend_from_slice(&pieces[1..]);
    let [plain, hyper] = [answers(0, &pieces), answers(1, &split)];
    let (plain, hyper) = (taken(&plain), taken(&hyper));
    assert!(
        plain == hyper,
        "plain: {}\nhyper: {}",
        plain.escape_ascii(),
        hyper.escape_ascii()
    );
    assert!(plain.is_empty() || plain.starts_with(b"HTTP/1."));
});

/// What a new tracker sends for these pieces, with every date made the same.
fn answers(number: usize, pieces: &[&[u8]]) -> Vec<u8> {
    let open = tracker::Settings {
        open: true,
        ..Default::default()
    };
    let tracker = Arc::new(Tracker::new(open, 1));
    let clock = Clock::resume(Time(10_000));
    let shared = Arc::new(Shared {
        tracker,
        clock,
        counters: Arc::default(),
        updates: None,
    });
    let limits = ConnectionLimits::new(
        SETTINGS.max_connections,
        SETTINGS.max_connections_per_network,
    );
    let server = HttpServer::new(shared, STATUS.clone(), SETTINGS.clone(), Arc::new(limits));
    let server = Arc::new(server);
    let door = HttpListener {
        listener: ListenSocket::Unix(LISTENERS[number].try_clone().unwrap()),
        proxy_header: false,
        serves: ListenerRole::Both,
    };
    let local = LocalSet::new();
    let received = RUNTIME.block_on(local.run_until(async {
        let (_running, stop) = watch::channel(false);
        spawn_local(serve(server, vec![door], stop, || {}));
        let mut client = UnixStream::connect_addr(&name(number)).unwrap();
        client.set_nonblocking(true).unwrap();
        let mut received = Vec::new();
        for piece in pieces {
            // The other end may be closed.
            let _ = client.write_all(piece);
            receive(&mut client, &mut received).await;
        }
        let _ = client.shutdown(Shutdown::Write);
        receive(&mut client, &mut received).await;
        received
    }));
    undated(&received)
}

async fn receive(client: &mut UnixStream, received: &mut Vec<u8>) {
    for _ in 0..TURNS {
        yield_now().await;
        match client.read_to_end(received) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            _ => return,
        }
    }
}

/// All answers but a last one that rejects what came: hyper rejects the beginning of a head at once if it comes in one
/// piece, and otherwise when the head is whole.
fn taken(answers: &[u8]) -> &[u8] {
    const REJECTED: &[u8] = b"HTTP/1.1 400";
    let mut places = answers.windows(REJECTED.len());
    &answers[..places
        .rposition(|bytes| bytes == REJECTED)
        .unwrap_or(answers.len())]
}

/// The answers may have been begun in different seconds.
fn undated(bytes: &[u8]) -> Vec<u8> {
    const DATE: &[u8] = b"\r\ndate: ";
    let mut left = Vec::new();
    let mut rest = bytes;
    while let Some(at) = rest.windows(DATE.len()).position(|bytes| bytes == DATE) {
        let (before, after) = rest.split_at(at + DATE.len());
        left.extend_from_slice(before);
        rest = after
            .get("Sun, 22 Nov 2026 00:00:00 GMT".len()..)
            .unwrap_or_default();
    }
    left.extend_from_slice(rest);
    left
}
