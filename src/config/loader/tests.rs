use super::super::address_types::{Listen, NetworkSource};
use super::super::schema::TrackerSection;
use super::super::test_support::{TestDirectory, config, errors, load};
use super::*;
use crate::log;

#[test]
fn parses_every_type_of_value() {
    let config = config(
        "[http]\nlisten = ['192.0.2.1:80', \"[2001:db8::1]:80\", 'unix:/run/t.sock', '127.0.0.1:0', \
         '127.0.0.1:0']\nannounce_path = '/a/announce.php'\n[tracker]\ninterval = 60\nmin_interval = \
         0x1e\nfull_scrape = true\nwarning = 'fünf'\n[torrents]\ndirectories = [\n  '/srv/a', # one\n  \
         '/srv/b',\n]\n[state]\ndirectory = '/var/lib/tbtt'\n[log]\nlevel = 'debug'\n",
    );
    assert_eq!(
        config.state.directory.as_deref(),
        Some(Path::new("/var/lib/tbtt"))
    );
    assert_eq!(
        config
            .http
            .listen
            .iter()
            .map(Listen::to_string)
            .collect::<Vec<_>>(),
        [
            "192.0.2.1:80",
            "[2001:db8::1]:80",
            "unix:/run/t.sock",
            "127.0.0.1:0",
            "127.0.0.1:0"
        ]
    );
    assert_eq!(config.http.announce_path, "/a/announce.php");
    assert_eq!(
        (config.tracker.interval, config.tracker.min_interval),
        (60, 30)
    );
    assert!(config.tracker.full_scrape);
    assert_eq!(config.tracker.warning, "fünf");
    assert_eq!(
        config.torrents.directories,
        [Path::new("/srv/a"), Path::new("/srv/b")]
    );
    assert_eq!(config.log.level, log::Level::Debug);
}

#[test]
fn errors_hide_passwords() {
    for url in ["redis://tbtt:secret@192.0.2.1/", "rediss:tbtt:secret@x"] {
        let errors = errors(&format!("[cluster]\nurl = '{url}'\n"));
        assert!(errors.contains("[cluster] url: \"...@"), "{errors}");
        assert!(!errors.contains("secret"), "{errors}");
    }
}

#[test]
fn accepts_all_forms_of_toml() {
    for text in [
        "tracker.interval = 600",
        "tracker = { interval = 600 }",
        "[tracker]\r\ninterval=6_00\r\n",
        "\u{feff}[ tracker ] # c\n\"interval\" = 600",
    ] {
        assert_eq!(config(text).tracker.interval, 600, "{text}");
    }
}

#[test]
fn later_file_replaces_key_completely() {
    let loaded = load(&[
        (
            "a",
            "[torrents]\ndirectories = ['/a', '/b']\n[tracker]\ninterval = 900\nnumwant = 7",
        ),
        (
            "b",
            "[torrents]\ndirectories = ['/c']\n[tracker]\ninterval = 1000",
        ),
    ])
    .unwrap();
    assert_eq!(loaded.config.torrents.directories, [Path::new("/c")]);
    assert_eq!(
        (
            loaded.config.tracker.interval,
            loaded.config.tracker.numwant
        ),
        (1000, 7)
    );
}

#[test]
fn error_names_line_problem_and_remedy() {
    const TCP: &str =
        r#"allowed: a list, each "address:port", "[IPv6 address]:port" or "unix:/path""#;
    const NETWORKS: &str =
        r#"allowed: a list, each "address", "network/length" or "/path" of a file of these"#;
    for (text, expected) in [
        (
            "[tracker]\ninterval = 30",
            "t:2: [tracker] interval: 30 is too small; allowed: 60 to 7200 seconds; correct it, or remove the key \
             to use its default, 1800",
        ),
        (
            "[tracker]\n\ninterval = 99999999999",
            "t:3: [tracker] interval: 99999999999 is too large; allowed: 60 to 7200 seconds; correct it, or remove \
             the key to use its default, 1800",
        ),
        (
            "[tracker]\ninterval = \"1800\"",
            "t:2: [tracker] interval: \"1800\" is text, not a number; allowed: 60 to 7200 seconds; write it without \
             quotes",
        ),
        (
            "[tracker]\ninterval = '30m'",
            "t:2: [tracker] interval: '30m' is text, not a number; allowed: 60 to 7200 seconds; write the number \
             alone, without quotes",
        ),
        (
            "[tracker]\ninterval = 60.5",
            "t:2: [tracker] interval: 60.5 is a fraction, not a whole number; allowed: 60 to 7200 seconds; correct \
             it, or remove the key to use its default, 1800",
        ),
        (
            "[tracker]\ninterval = 1979-05-27",
            "t:2: [tracker] interval: 1979-05-27 is a date or time, not a number; allowed: 60 to 7200 seconds; \
             correct it, or remove the key to use its default, 1800",
        ),
        (
            "[tracker]\n\ninterval = { minutes = 30 }",
            "t:3: [tracker] interval: { minutes = 30 } is a table, not a number; allowed: 60 to 7200 seconds; \
             correct it, or remove the key to use its default, 1800",
        ),
        (
            "[torrents]\nopen = 1",
            "t:2: [torrents] open: 1 is a number, not true or false; allowed: true or false; correct it, or remove \
             the key to use its default, false",
        ),
        (
            "[torrents]\nopen = 'true'",
            "t:2: [torrents] open: 'true' is text, not true or false; allowed: true or false; write it without \
             quotes",
        ),
        (
            "[torrents]\ndirectories = '/srv'",
            "t:2: [torrents] directories: '/srv' is text, not a list; allowed: a list, each an absolute path; write \
             it in brackets: [...]",
        ),
        (
            "[torrents]\ndirectories = [\n'/srv',\n'torrents',\n3]",
            "t:4: [torrents] directories: 'torrents' is not an absolute path; allowed: a list, each an absolute \
             path; write the whole path, starting with /\nt:5: [torrents] directories: 3 is a number, not text; \
             allowed: a list, each an absolute path; write it in double quotes",
        ),
        (
            "[state]\ndirectory = 'lib'",
            "t:2: [state] directory: 'lib' is not an absolute path; allowed: an absolute path or \"\"; write the \
             whole path, starting with /",
        ),
        (
            "[log]\nlevel = 'notise'",
            "t:2: [log] level: 'notise' is not an allowed word; allowed: \"error\", \"warning\", \"notice\", \
             \"info\" or \"debug\"; did you mean \"notice\"?",
        ),
        (
            "[log]\naddresses = false",
            "t:2: [log] addresses: false is a boolean, not text; allowed: \"off\", \"masked\" or \"full\"; write it \
             in double quotes",
        ),
        (
            "[tracker]\nwarning = \"a\\nb\"",
            "t:2: [tracker] warning: \"a\\nb\" contains a line break or another control character; allowed: one \
             line of text, up to 255 bytes; correct it, or remove the key to use its default, \"\"",
        ),
        (
            "[http]\nannounce_path = 'announce'",
            "t:2: [http] announce_path: 'announce' does not start with /; allowed: a path that starts with / and \
             whose last part starts with announce; write, for example, \"/announce\"",
        ),
        (
            "[http]\nannounce_path = '/announce/x'",
            "t:2: [http] announce_path: '/announce/x' has a last part that does not start with announce, so clients \
             cannot derive the scrape path; allowed: a path that starts with / and whose last part starts with \
             announce; write, for example, \"/announce/x/announce\"",
        ),
        (
            "[status]\npath = '/'",
            "t:2: [status] path: '/' ends with /; allowed: a path that starts with / and does not end with it or \
             \"\"; correct it, or remove the key to use its default, \"/status\"",
        ),
        (
            "[http]\nannounce_path = '/announce?a'",
            "t:2: [http] announce_path: '/announce?a' contains '?', which is not allowed in a path; allowed: a path \
             that starts with / and whose last part starts with announce; correct it, or remove the key to use its \
             default, \"/announce\"",
        ),
        (
            "[http]\nlisten = ['0.0.0.0']",
            &format!(
                "t:2: [http] listen: '0.0.0.0' has no port; {TCP}; write \"0.0.0.0:6969\""
            ),
        ),
        (
            "[http]\nlisten = ['::']",
            &format!("t:2: [http] listen: '::' has no port; {TCP}; write \"[::]:6969\""),
        ),
        (
            "[http]\nlisten = ['80', ':80', '*:80']",
            &["'80'", "':80'", "'*:80'"]
                .map(|value| {
                    format!(
                        "t:2: [http] listen: {value} has no address; {TCP}; write \"[::]:80\""
                    )
                })
                .join("\n"),
        ),
        (
            "[http]\nlisten = ['localhost:80']",
            &format!(
                "t:2: [http] listen: 'localhost:80' has a host name, which is not resolved; {TCP}; write the IP \
                 address"
            ),
        ),
        (
            "[http]\nlisten = ['127.0.0.1:65536']",
            &format!(
                "t:2: [http] listen: '127.0.0.1:65536' has no valid port, 0 to 65535; {TCP}; correct it, or remove \
                 the key to use its default, [\"[::]:6969\"]"
            ),
        ),
        (
            "[http]\nlisten = ['127.0.0.256:80']",
            &format!(
                "t:2: [http] listen: '127.0.0.256:80' is not an address; {TCP}; correct it, or remove the key to \
                 use its default, [\"[::]:6969\"]"
            ),
        ),
        (
            "[http]\nlisten = ['unix:run']",
            &format!(
                "t:2: [http] listen: 'unix:run' has no absolute path; {TCP}; write unix: and the whole path, \
                 starting with /"
            ),
        ),
        (
            "[udp]\nlisten = ['unix:/run/t']",
            "t:2: [udp] listen: 'unix:/run/t' has no valid port, 0 to 65535; allowed: a list, each \"address:port\" \
             or \"[IPv6 address]:port\"; correct it, or remove the key to use its default, [\"[::]:6969\"]",
        ),
        (
            "[udp]\ninvalid_connection_ids = 'answer'",
            "t:2: [udp] invalid_connection_ids: 'answer' is not an allowed word; allowed: \"silence\" or \"error\"; \
             correct it, or remove the key to use its default, \"silence\"",
        ),
        (
            "[access]\nannounce_deny = '192.0.2.1'",
            &format!(
                "t:2: [access] announce_deny: '192.0.2.1' is text, not a list; {NETWORKS}; write it in brackets: \
                 [...]"
            ),
        ),
        (
            "[access]\nscrape_allow = [\n'192.0.2.1/24',\n'2001:db8::1/32',\n]",
            &format!(
                "t:3: [access] scrape_allow: '192.0.2.1/24' has bits set beyond its prefix; {NETWORKS}; write \
                 \"192.0.2.0/24\" for the network or \"192.0.2.1\" for the address\nt:4: [access] scrape_allow: \
                 '2001:db8::1/32' has bits set beyond its prefix; {NETWORKS}; write \"2001:db8::/32\" for the \
                 network or \"2001:db8::1\" for the address"
            ),
        ),
        (
            "[proxy]\ntrusted = ['192.0.2.0/33', 'lists/proxies', 'localhost', '']",
            &["'192.0.2.0/33'", "'lists/proxies'", "'localhost'", "''"]
                .map(|value| {
                    format!(
                        "t:2: [proxy] trusted: {value} is neither a network nor an absolute path; {NETWORKS}; \
                         correct it, or remove the key to use its default, []"
                    )
                })
                .join("\n"),
        ),
        (
            "[proxy]\nheader = 'X-Forwarded-For'",
            "t:2: [proxy] header: 'X-Forwarded-For' is not an allowed word; allowed: \"x-forwarded-for\" or \
             \"forwarded\"; did you mean \"x-forwarded-for\"?",
        ),
        (
            "[limits]\nannounces = -1",
            "t:2: [limits] announces: -1 is too small; allowed: 0 to 200000 a minute; correct it, or remove the key \
             to use its default, 600",
        ),
        (
            "[limits]\nannounces = '600/min'",
            "t:2: [limits] announces: '600/min' is text, not a number; allowed: 0 to 200000 a minute; write the \
             number alone, without quotes",
        ),
    ] {
        assert_eq!(errors(text), expected, "{text}");
    }
}

#[test]
fn unknown_name_suggests_similar_name() {
    for (text, expected) in [
        (
            "[trakcer]\ninterval = 60",
            "t:1: [trakcer]: unknown section; did you mean [tracker]?",
        ),
        (
            "\n[database]\n",
            "t:2: [database]: unknown section; the sections are [http], [udp], [tracker], [torrents], [access], \
             [limits], [proxy], [status], [metrics], [state], [cluster], [control], [daemon], [log]",
        ),
        (
            "[tracker]\nintervall = 60",
            "t:2: [tracker] intervall: unknown key; did you mean interval?",
        ),
        (
            "[tracker]\nMin-Interval = 60",
            "t:2: [tracker] Min-Interval: unknown key; did you mean min_interval?",
        ),
        (
            "[tracker]\nlisten = []",
            "t:2: [tracker] listen: unknown key; it belongs in [http] or [udp] or [proxy] or [status] or [control]",
        ),
        (
            "[log]\nrotate = true",
            "t:2: [log] rotate: unknown key; the keys of this section are target, level, facility, announces, \
             addresses",
        ),
        (
            "# c\nlisten = []",
            "t:2: listen: this key is outside of a section; move it below [http] or [udp] or [proxy] or [status] or \
             [control]",
        ),
        (
            "speed = 'a'",
            "t:1: speed: unknown key outside of a section; remove it",
        ),
        (
            "http = 3",
            "t:1: [http]: this is a number, not a section; write [http] once, on a line of its own, with its keys \
             below it",
        ),
        (
            "[[http]]\n[[http]]",
            "t:1: [http]: this is a list, not a section; write [http] once, on a line of its own, with its keys \
             below it",
        ),
    ] {
        assert_eq!(errors(text), expected, "{text}");
    }
}

#[test]
fn old_name_of_renamed_key_names_new_name() {
    for (text, expected) in [
        (
            "[torrents]\ngrace = 600",
            "t:2: [torrents] grace: `grace` is now `removal_grace`; rename the key",
        ),
        (
            "[status]\ntorrents = true",
            "t:2: [status] torrents: `torrents` is now `serve_torrents`; rename the key",
        ),
        (
            "bad_ids = 'error'",
            "t:1: bad_ids: `bad_ids` is now `invalid_connection_ids`; rename the key, and move it below [udp]",
        ),
    ] {
        assert_eq!(errors(text), expected, "{text}");
    }
    let sections = Config::default().describe();
    for (section, old, new) in RENAMED_KEYS {
        let has_key = |name: &str| {
            let section = sections
                .iter()
                .find(|known| known.name == *section)
                .unwrap();
            section.keys.iter().any(|key| key.name == name)
        };
        assert!(has_key(new) && !has_key(old), "[{section}] {old}");
    }
}

#[test]
fn invalid_toml_names_its_line() {
    // The reason comes from the toml crate, and differs between its versions.
    for (text, start) in [
        (
            "[http]\nlisten = [::]:6969\n",
            "t:2: invalid TOML: listen = [::]:6969: ",
        ),
        (
            "[tracker]\ninterval = 30m\n",
            "t:2: invalid TOML: interval = 30m: ",
        ),
        (
            "[tracker]\ninterval = 60\ninterval = 70\n",
            "t:3: invalid TOML: interval = 70: duplicate key",
        ),
        ("[http\n", "t:1: invalid TOML: [http: "),
        ("level\u{1b}[2J", "t:1: invalid TOML: level\\u{1b}[2J: "),
        ("[log]\n\nlevel: info\n", "t:3: invalid TOML: level: info: "),
    ] {
        let errors = errors(text);
        assert!(errors.starts_with(start), "{errors}");
        assert!(!errors.contains('\n'), "{errors}");
        assert!(
            errors.ends_with(
                "; write text in double quotes, lists in brackets, and numbers without quotes"
            ),
            "{errors}"
        );
    }
}

#[test]
fn reports_errors_of_all_files_in_order() {
    let errors = load(&[
        (
            "a",
            "[tracker]\nworkers = -1\ninterval = 'x'\n[log]\nlevle = 'info'",
        ),
        ("b", "[http"),
        ("c", "[http]\nidle_timeout = 0"),
    ])
    .unwrap_err();
    let locations: Vec<_> = errors
        .0
        .iter()
        .map(|error| (error.file.clone().unwrap(), error.line))
        .collect();
    let expected = [("a", 2), ("a", 3), ("a", 5), ("b", 1), ("c", 2)];
    assert_eq!(
        locations,
        expected.map(|(file, line)| (file.into(), Some(line)))
    );
}

#[test]
fn reports_errors_of_values_and_lists_together() {
    let errors = errors(
        "[access]\nannounce_deny = ['/nowhere/a']\n[limits]\nexempt = ['/nowhere/b']\n[tracker]\ninterval = 1",
    );
    let lines: Vec<_> = errors.lines().collect();
    assert_eq!(lines.len(), 3, "{errors}");
    assert!(lines[0].starts_with("t:6: [tracker] interval: 1 is too small"));
    for (line, list) in lines[1..].iter().zip(["/nowhere/a", "/nowhere/b"]) {
        assert_eq!(
            *line,
            format!("{list}: no such list; create the file, empty if it has no entries")
        );
    }
}

#[test]
fn accepts_all_forms_of_networks() {
    let networks = |config: &Config| {
        let sources = config.access.announce_allow.iter();
        sources.map(NetworkSource::to_string).collect::<Vec<_>>()
    };
    let config = config(
        "[access]\nannounce_allow = ['192.0.2.0/24', '198.51.100.7', '2001:DB8::/32', '::1/128', '0.0.0.0/0', \
         '/dev/null']",
    );
    assert_eq!(
        networks(&config),
        [
            "192.0.2.0/24",
            "198.51.100.7",
            "2001:db8::/32",
            "::1",
            "0.0.0.0/0",
            "/dev/null"
        ]
    );
}

#[test]
fn reads_drop_ins_in_order_of_names() {
    let directory = TestDirectory::new("drop-ins");
    let base = directory.write(
        "t.toml",
        "[tracker]\ninterval = 100\nmin_interval = 10\nnumwant = 1",
    );
    directory.write("t.toml.d/20.toml", "[tracker]\ninterval = 120");
    directory.write(
        "t.toml.d/10.toml",
        "[tracker]\ninterval = 110\nmin_interval = 11",
    );
    for ignored in [
        "t.toml.d/30.toml.bak",
        "t.toml.d/.40.toml",
        "t.toml.d/README",
        "t.toml.d/toml",
    ] {
        directory.write(ignored, "not read");
    }
    let loaded = Config::load(&base).unwrap();
    let TrackerSection {
        interval,
        min_interval,
        numwant,
        ..
    } = loaded.config.tracker;
    assert_eq!((interval, min_interval, numwant), (120, 11, 1));
    let d = directory.0.join("t.toml.d");
    assert_eq!(loaded.files, [base, d.join("10.toml"), d.join("20.toml")]);
}

#[test]
fn missing_file_is_an_error_unless_optional() {
    let directory = TestDirectory::new("missing");
    let missing = directory.0.join("t.toml");
    let error = Config::load(&missing).unwrap_err().to_string();
    assert_eq!(
        error,
        format!(
            "{}: no such file; correct the path, or create the file with tbtt --print-default-config",
            missing.display()
        )
    );
    assert_eq!(
        Config::load_if_present(&missing).unwrap().config,
        Config::default()
    );
    let drop_in = directory.write("t.toml.d/a.toml", "tracker.numwant = 5");
    let loaded = Config::load_if_present(&missing).unwrap();
    assert_eq!(
        (loaded.config.tracker.numwant, loaded.files),
        (5, vec![drop_in])
    );
}

#[test]
fn names_unreadable_files() {
    let directory = TestDirectory::new("unreadable");
    let name = directory.0.display();
    assert_eq!(
        Config::load(&directory.0).unwrap_err().to_string(),
        format!("{name}: this is a directory; give the path of a file")
    );
    let base = directory.write("t.toml", b"# one\n# \xfc\n");
    directory.write("t.toml.d/a.toml/x", "");
    assert_eq!(
        Config::load(&base).unwrap_err().to_string(),
        format!(
            "{name}/t.toml:2: the file is not UTF-8; save it as UTF-8\n{name}/t.toml.d/a.toml: this is a directory; \
             give the path of a file"
        )
    );
    let base = directory.write("u.toml", "");
    directory.write("u.toml.d", "");
    let errors = Config::load(&base).unwrap_err().to_string();
    assert!(errors.starts_with(&format!(
        "{name}/u.toml.d: cannot read the directory of drop-ins: "
    )));
    // The tests may run as root, which can read every file.
    assert_eq!(
        unreadable_file(&io::ErrorKind::PermissionDenied.into()),
        "permission denied; grant the user that runs tbtt read access to the file and to its directory"
    );
}

#[test]
fn warns_about_world_writable_file() {
    let directory = TestDirectory::new("writable");
    let base = directory.write("t.toml", "torrents.open = true");
    for (mode, expected) in [(0o664, 0), (0o646, 1)] {
        fs::set_permissions(&base, fs::Permissions::from_mode(mode)).unwrap();
        let warnings = Config::load(&base).unwrap().warnings();
        assert_eq!(warnings.len(), expected, "{warnings:?}");
    }
}
