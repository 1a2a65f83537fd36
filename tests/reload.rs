//! Reloads of the built daemon: they apply all changes or none, and do not disturb clients.

mod harness;

use std::fs;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use harness::tracker::{
    ADDRESS_REFUSED, DENIED, InfoHash, Mirror, RELOAD_ERROR, SERVED, Tracker, V4, V6, announce,
    announce_with, hex, new_info_hash, outcome, percent, udp_outcome,
};

#[test]
fn reload_applies_all_changes_or_none() {
    let mirror = Mirror::new();
    mirror.write("deny", "");
    let settings = format!(
        "deny = [{}]\n[tracker]\ninterval = 1800\n[access]\nscrape_deny = []",
        mirror.quoted("deny")
    );
    let tracker = Tracker::open(&settings);
    let id = new_info_hash();
    tracker.client("127.0.0.2").announce(&id, "port=1&left=1");
    tracker.client("2001:db8::2").announce(&id, "port=1&left=1");
    let mut waiting = tracker.connect(V4);
    let mut half = tracker.connect(V6);
    assert_eq!(
        announce_with(&mut waiting, &id, "")
            .dictionary()
            .number("interval"),
        1800
    );
    let target = announce(&id, "port=7&left=0");
    half.send(format!("GET {target} HTT"));
    let udp_before = tracker.udp_client("127.0.0.2");

    tracker.edit_config("interval = 1800", "interval = 1200");
    tracker.edit_config("scrape_deny = []", "scrape_deny = ['127.0.0.3']");
    mirror.write("deny", hex(&new_info_hash()));
    tracker.reload();
    half.send("P/1.1\r\nHost: t\r\n\r\n");
    let response = half.response().dictionary();
    assert_eq!(response.number("interval"), 1200);
    assert_eq!(
        response.peers(),
        ["[2001:db8::2]:1".parse().unwrap()],
        "a reload keeps the swarms"
    );
    let response = announce_with(&mut waiting, &id, "").dictionary();
    assert_eq!(response.number("interval"), 1200);
    assert_eq!(response.peers(), ["127.0.0.2:1".parse().unwrap()]);
    assert_eq!(
        udp_outcome(&udp_before, &id),
        SERVED,
        "a reload keeps UDP connection ids valid"
    );
    let scrape = |from: &str| {
        let target = format!("/scrape?info_hash={}", percent(&id));
        tracker.client(from).get(&target).has("files")
    };
    assert!(!scrape("127.0.0.3") && scrape("127.0.0.2"));

    // If anything is invalid, nothing is applied, and all errors are logged.
    mirror.write("deny", format!("{}\n{}\n", hex(&id), "0".repeat(39)));
    tracker.edit_config("interval = 1200", "interval = 900\nworkers = -1");
    tracker.edit_config("scrape_deny = ['127.0.0.3']", "scrape_deny = []");
    let text = fs::read_to_string(tracker.config_file()).unwrap();
    let line = 1 + text
        .lines()
        .position(|line| line == "workers = -1")
        .unwrap();
    let lines = tracker.failing_reload(2);
    let errors = [
        format!(
            "{}:{line}: [tracker] workers",
            tracker.config_file().display()
        ),
        format!("{}:2: ", mirror.path("deny").display()),
    ];
    for (line, error) in lines.iter().zip(errors) {
        assert!(line.contains(&format!("{RELOAD_ERROR}{error}")), "{line}");
    }
    tracker.edit_config("workers = -1\n", "");
    assert!(tracker.failing_reload(1)[0].contains("deny:2: "));
    fs::remove_file(mirror.path("deny")).unwrap();
    let lines = tracker.failing_reload(1);
    let error = format!(
        "{RELOAD_ERROR}{}: no such list",
        mirror.path("deny").display()
    );
    assert!(lines[0].contains(&error), "{lines:?}");
    let response = announce_with(&mut waiting, &id, "").dictionary();
    assert_eq!(
        (response.number("interval"), outcome(&response)),
        (1200, SERVED.into())
    );
    assert!(!scrape("127.0.0.3"), "valid files are not applied either");

    mirror.write("deny", "");
    tracker.edit_config("[http]\nlisten = ['[::]:0']", "[http]\nlisten = ['[::]:1']");
    tracker.reload();
    tracker.daemon.wait_for_line("key=http.listen");
    let response = announce_with(&mut waiting, &id, "").dictionary();
    assert_eq!(response.number("interval"), 900);
    assert!(scrape("127.0.0.3"));
}

#[test]
fn refusals_apply_during_reload() {
    let mirror = Mirror::new();
    let [denied, withdrawn, other] = [(); 3].map(|()| new_info_hash());
    mirror.write("deny", hex(&denied));
    mirror.write("notices", format!("{} failure gone", hex(&withdrawn)));
    let settings = format!(
        "deny = [{}]\nnotices = [{}]\n[access]\nannounce_deny = ['127.0.0.3']",
        mirror.quoted("deny"),
        mirror.quoted("notices")
    );
    let tracker = Tracker::open(&settings);
    let done = AtomicBool::new(false);
    let requests = thread::scope(|scope| {
        let send = |from: IpAddr, id: InfoHash, expected: &'static str| {
            let (tracker, done) = (&tracker, &done);
            scope.spawn(move || {
                let mut connection = tracker.connect(from);
                let mut count = 0;
                while !done.load(Ordering::Relaxed) {
                    let response = announce_with(&mut connection, &id, "").dictionary();
                    assert_eq!(outcome(&response), expected);
                    count += 1;
                }
                count
            })
        };
        let clients = [
            send(V4, denied, DENIED),
            send(V6, withdrawn, "gone"),
            send(V4, other, SERVED),
            send([127, 0, 0, 3].into(), other, ADDRESS_REFUSED),
        ];
        for _ in 0..40 {
            tracker.reload();
        }
        done.store(true, Ordering::Relaxed);
        clients.map(|client| client.join().unwrap())
    });
    println!("requests during 40 reloads: {requests:?}");
    assert!(requests.iter().all(|&count| count > 40), "{requests:?}");
}
