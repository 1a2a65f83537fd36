//! Requests over a connection: the responses of the fast path equal those of hyper, byte by byte.
#![no_main]

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use tbtt::clock::Clock;
use tbtt::config::schema::Config;
use tbtt::server::Shared;
use tbtt::server::http::connection_limits::ConnectionLimits;
use tbtt::server::http::server::HttpServer;
use tbtt::server::http::settings::{ListenerRole, Settings};
use tbtt::server::http::{HttpListener, ListenSocket, serve};
use tbtt::status::endpoint::StatusEndpoint;
use tbtt::tracker::Tracker;
use tbtt::tracker::settings as tracker;
use tbtt::tracker::types::Time;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tokio::task::{LocalSet, spawn_local, yield_now};

/// Separates pieces of the input. A piece is sent only after the responses to earlier pieces were received.
const SEPARATOR: u8 = 0x1e;

/// Number of attempts to receive a response. After these, a worker on the same thread has done all that it can.
const ATTEMPTS: usize = 6;

static SETTINGS: LazyLock<Settings> = LazyLock::new(|| {
    let loaded = Config::load_if_present(Path::new("/nonexistent")).expect("the defaults");
    Settings {
        connection_rate: None,
        ..loaded.http_settings(1)
    }
});

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_current_thread().enable_all().build().unwrap());

/// Never used: by default only loopback addresses may see the status page, and a Unix socket has no address.
static STATUS: LazyLock<StatusEndpoint> = LazyLock::new(|| {
    StatusEndpoint::start(Box::new(|| {
        unreachable!("the status page needs an address")
    }))
    .unwrap()
});

/// Two listening sockets with abstract names, which are not in the file system.
static LISTENERS: LazyLock<[UnixListener; 2]> = LazyLock::new(|| [0, 1].map(listener));

fn name(number: usize) -> SocketAddr {
    let name = format!("tbtt-fuzz-{}-{number}", std::process::id());
    SocketAddr::from_abstract_name(name).unwrap()
}

fn listener(number: usize) -> UnixListener {
    UnixListener::bind_addr(&name(number)).unwrap()
}

fuzz_target!(|input: &[u8]| {
    let pieces: Vec<_> = input.split(|&byte| byte == SEPARATOR).collect();
    let Some((&first, _)) = pieces[0].split_first() else {
        return;
    };
    // The second connection sends the first byte on its own. This passes it to hyper only if the byte cannot start a
    // request, because the fast path waits for the rest of an incomplete head.
    let mut for_hyper = vec![std::slice::from_ref(&first), &pieces[0][1..]];
    for_hyper.extend_from_slice(&pieces[1..]);
    let [fast, hyper] = [responses(0, &pieces), responses(1, &for_hyper)];
    let (fast, hyper) = (without_rejection(&fast), without_rejection(&hyper));
    assert!(
        fast == hyper,
        "fast path: {}\nhyper: {}",
        fast.escape_ascii(),
        hyper.escape_ascii()
    );
    assert!(fast.is_empty() || fast.starts_with(b"HTTP/1."));
});

/// Returns the responses of a new tracker to these pieces, without dates.
fn responses(number: usize, pieces: &[&[u8]]) -> Vec<u8> {
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
    let listener = HttpListener {
        listener: ListenSocket::Unix(LISTENERS[number].try_clone().unwrap()),
        proxy_header: false,
        role: ListenerRole::Both,
    };
    let local = LocalSet::new();
    let received = RUNTIME.block_on(local.run_until(async {
        let (_running, stop) = watch::channel(false);
        spawn_local(serve(server, vec![listener], stop, || {}));
        let mut client = UnixStream::connect_addr(&name(number)).unwrap();
        client.set_nonblocking(true).unwrap();
        let mut received = Vec::new();
        for piece in pieces {
            // The tracker may have closed the connection.
            let _ = client.write_all(piece);
            receive(&mut client, &mut received).await;
        }
        let _ = client.shutdown(Shutdown::Write);
        receive(&mut client, &mut received).await;
        received
    }));
    without_dates(&received)
}

async fn receive(client: &mut UnixStream, received: &mut Vec<u8>) {
    for _ in 0..ATTEMPTS {
        yield_now().await;
        match client.read_to_end(received) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            _ => return,
        }
    }
}

/// Removes a last response that rejects the request: hyper rejects an incomplete head at once if it is received whole,
/// and otherwise when the head is complete.
fn without_rejection(responses: &[u8]) -> &[u8] {
    const REJECTED: &[u8] = b"HTTP/1.1 400";
    let mut windows = responses.windows(REJECTED.len());
    &responses[..windows
        .rposition(|bytes| bytes == REJECTED)
        .unwrap_or(responses.len())]
}

/// Removes the dates, because the responses may have been written in different seconds.
fn without_dates(bytes: &[u8]) -> Vec<u8> {
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
