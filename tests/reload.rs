//! What a reload of the built daemon changes, and what it leaves alone.

mod harness;

use std::fs;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use harness::tracker::{
    DENIED, Id, Mirror, SERVED, Tracker, UNWELCOME, V4, V6, announce, announce_with, hex, percent,
    some_id, udp_verdict, verdict,
};

#[test]
fn a_reload_takes_all_at_once_and_disturbs_nobody() {
    let mirror = Mirror::new();
    mirror.0.write("deny", "");
    let settings = format!(
        "deny = [{}]\n[tracker]\ninterval = 1800\n[access]\nscrape_deny = []",
        mirror.quoted("deny")
    );
    let tracker = Tracker::open(&settings);
    let id = some_id();
    tracker.from("127.0.0.2").announce(&id, "port=1&left=1");
    tracker.from("2001:db8::2").announce(&id, "port=1&left=1");
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
    let udp_before = tracker.udp_from("127.0.0.2");

    tracker.rewrite("interval = 1800", "interval = 1200");
    tracker.rewrite("scrape_deny = []", "scrape_deny = ['127.0.0.3']");
    mirror.0.write("deny", hex(&some_id()));
    tracker.reload();
    half.send("P/1.1\r\nHost: t\r\n\r\n");
    let answer = half.response().dictionary();
    assert_eq!(answer.number("interval"), 1200);
    assert_eq!(
        answer.peers(),
        ["[2001:db8::2]:1".parse().unwrap()],
        "swarms are kept"
    );
    let answer = announce_with(&mut waiting, &id, "").dictionary();
    assert_eq!(answer.number("interval"), 1200);
    assert_eq!(answer.peers(), ["127.0.0.2:1".parse().unwrap()]);
    assert_eq!(
        udp_verdict(&udp_before, &id),
        SERVED,
        "its connection id too"
    );
    let scrape = |from: &str| {
        let target = format!("/scrape?info_hash={}", percent(&id));
        tracker.from(from).get(&target).has("files")
    };
    assert!(!scrape("127.0.0.3") && scrape("127.0.0.2"));

    // Whatever is wrong, nothing of it is taken, and all of it is told.
    mirror
        .0
        .write("deny", format!("{}\n{}\n", hex(&id), "0".repeat(39)));
    tracker.rewrite("interval = 1200", "interval = 900\nworkers = -1");
    tracker.rewrite("scrape_deny = ['127.0.0.3']", "scrape_deny = []");
    let text = fs::read_to_string(tracker.file()).unwrap();
    let line = 1 + text
        .lines()
        .position(|line| line == "workers = -1")
        .unwrap();
    let told = tracker.reload_in_vain(2);
    let faults = [
        format!("{}:{line}: [tracker] workers", tracker.file().display()),
        format!("{}:2: ", mirror.at("deny").display()),
    ];
    for (told, fault) in told.iter().zip(faults) {
        assert!(told.contains(&format!("fault=\"{fault}")), "{told}");
    }
    tracker.rewrite("workers = -1\n", "");
    assert!(tracker.reload_in_vain(1)[0].contains("deny:2: "));
    fs::remove_file(mirror.at("deny")).unwrap();
    let told = tracker.reload_in_vain(1);
    let fault = format!("fault=\"{}: no such list", mirror.at("deny").display());
    assert!(told[0].contains(&fault), "{told:?}");
    let answer = announce_with(&mut waiting, &id, "").dictionary();
    assert_eq!(
        (answer.number("interval"), verdict(&answer)),
        (1200, SERVED.into())
    );
    assert!(
        !scrape("127.0.0.3"),
        "nor what stands in files without a fault"
    );

    mirror.0.write("deny", "");
    tracker.rewrite("[http]\nlisten = ['[::]:0']", "[http]\nlisten = ['[::]:1']");
    tracker.reload();
    tracker.daemon.wait_for_line("key=http.listen");
    let answer = announce_with(&mut waiting, &id, "").dictionary();
    assert_eq!(answer.number("interval"), 900);
    assert!(scrape("127.0.0.3"));
}

#[test]
fn what_is_refused_is_refused_during_a_reload_too() {
    let mirror = Mirror::new();
    let [denied, withdrawn, any] = [(); 3].map(|()| some_id());
    mirror.0.write("deny", hex(&denied));
    mirror
        .0
        .write("notices", format!("{} failure gone", hex(&withdrawn)));
    let settings = format!(
        "deny = [{}]\nnotices = [{}]\n[access]\nannounce_deny = ['127.0.0.3']",
        mirror.quoted("deny"),
        mirror.quoted("notices")
    );
    let tracker = Tracker::open(&settings);
    let done = AtomicBool::new(false);
    let asked = thread::scope(|scope| {
        let asks = |from: IpAddr, id: Id, expected: &'static str| {
            let (tracker, done) = (&tracker, &done);
            scope.spawn(move || {
                let mut connection = tracker.connect(from);
                let mut asked = 0;
                while !done.load(Ordering::Relaxed) {
                    let answer = announce_with(&mut connection, &id, "").dictionary();
                    assert_eq!(verdict(&answer), expected);
                    asked += 1;
                }
                asked
            })
        };
        let asking = [
            asks(V4, denied, DENIED),
            asks(V6, withdrawn, "gone"),
            asks(V4, any, SERVED),
            asks([127, 0, 0, 3].into(), any, UNWELCOME),
        ];
        for _ in 0..40 {
            tracker.reload();
        }
        done.store(true, Ordering::Relaxed);
        asking.map(|asking| asking.join().unwrap())
    });
    println!("asked during 40 reloads: {asked:?}");
    assert!(asked.iter().all(|&asked| asked > 40), "{asked:?}");
}
