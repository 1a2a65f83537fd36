use super::super::test_support::TestDirectory;
use super::*;

const HASH: &str = "0123456789abcdef0123456789abcdef01234567";

/// Reads the lists of `config`. Returns the errors as displayed, each on its own line.
fn read(config: &Config) -> Result<Lists, String> {
    let mut errors = Vec::new();
    let lists = Lists::read(config, &mut errors);
    let errors: Vec<_> = errors.iter().map(Diagnostic::to_string).collect();
    if errors.is_empty() {
        Ok(lists)
    } else {
        Err(errors.join("\n"))
    }
}

#[test]
fn reads_networks_from_configuration_and_files() {
    let directory = TestDirectory::new("networks");
    let first = directory.write(
        "first",
        "# mirrors\n192.0.2.0/24 # rack\n\n 2001:db8::7 \r\n",
    );
    let second = directory.write("second", "198.51.100.7");
    let mut config = Config::default();
    config.proxy.trusted = vec![
        NetworkSource::File(first),
        NetworkSource::Network("203.0.113.0/24".parse().unwrap()),
        NetworkSource::File(second),
    ];
    let trusted = read(&config).unwrap().trusted;
    for (address, expected) in [
        ("192.0.2.255", true),
        ("2001:db8::7", true),
        ("203.0.113.1", true),
        ("198.51.100.7", true),
        ("192.0.3.0", false),
        ("2001:db8::8", false),
        ("198.51.100.8", false),
    ] {
        assert_eq!(
            trusted.contains(address.parse().unwrap()),
            expected,
            "{address}"
        );
    }
}

#[test]
fn assigns_each_list_to_its_purpose() {
    let mut config = Config::default();
    let networks = |text: &str| vec![NetworkSource::Network(text.parse().unwrap())];
    config.access.announce_allow = networks("192.0.2.0/24");
    config.access.announce_deny = networks("192.0.2.9/32");
    config.access.scrape_deny = networks("192.0.2.8/32");
    config.access.trust_ip_params_from = networks("192.0.2.7/32");
    config.limits.exempt = networks("192.0.2.6/32");
    config.proxy.trusted = networks("192.0.2.5/32");
    config.access.status_allow = networks("192.0.2.4/32");
    config.access.status_deny = networks("192.0.2.3/32");
    config.access.metrics_allow = networks("192.0.2.2/31");
    config.access.metrics_deny = networks("192.0.2.2/32");
    let lists = read(&config).unwrap();
    let client = |last: u8| {
        let address = [192, 0, 2, last].into();
        [
            lists.announce.admits(address),
            lists.scrape.admits(address),
            lists.trust_ip_params_from.contains(address),
            lists.exempt.contains(address),
            lists.trusted.contains(address),
        ]
    };
    let operator = |last: u8| {
        let address = [192, 0, 2, last].into();
        [lists.status.admits(address), lists.metrics.admits(address)]
    };
    assert_eq!(operator(4), [true, false]);
    assert_eq!(operator(3), [false, true]);
    assert_eq!(operator(2), [false, false]);
    assert_eq!(client(9), [false, true, false, false, false]);
    assert_eq!(client(8), [true, false, false, false, false]);
    assert_eq!(client(7), [true, true, true, false, false]);
    assert_eq!(client(6), [true, true, false, true, false]);
    assert_eq!(client(5), [true, true, false, false, true]);
    assert!(!lists.announce.admits([192, 0, 3, 1].into()));
}

#[test]
fn reads_torrents_from_all_files() {
    let directory = TestDirectory::new("torrents");
    let v2 = format!("{}{}", HASH.to_uppercase(), "f".repeat(24));
    let notice = format!("{HASH} failure moved # to another place\n");
    let mut config = Config::default();
    config.torrents.allow = vec![
        directory.write("a", format!("{HASH}\n")),
        directory.write("b", format!("# v2\n{v2} # truncated\n")),
    ];
    config.torrents.deny = vec![directory.write("c", "")];
    config.torrents.notices = vec![directory.write("d", notice)];
    let lists = read(&config).unwrap();
    let allowed: Vec<_> = lists.allow.iter().map(InfoHash::to_string).collect();
    assert_eq!(allowed, [HASH, HASH]);
    assert_eq!(lists.deny, []);
    assert_eq!(lists.notices[0].1.failure.as_deref(), Some("moved"));
}

#[test]
fn reports_all_errors_of_all_lists() {
    let directory = TestDirectory::new("list-errors");
    let networks = directory.write("networks", "::1\n\n10.0.0.1/8\n");
    let torrents = directory.write("torrents", format!("{HASH} # valid\n{HASH}0\n"));
    let notices = directory.write("notices", format!("{HASH} note x"));
    let bytes = directory.write("bytes", b"# \xfc");
    let mut config = Config::default();
    config.torrents.allow = vec![torrents.clone(), directory.0.join("none")];
    config.torrents.deny = vec![bytes.clone()];
    config.torrents.notices = vec![notices.clone()];
    config.access.scrape_deny = vec![NetworkSource::File(networks.clone())];
    config.limits.exempt = vec![NetworkSource::File(directory.0.clone())];
    let errors = read(&config).unwrap_err();
    let errors: Vec<_> = errors.lines().collect();
    // The reasons that start with a backquote come from the parsers of the entries.
    for (error, expected) in errors.iter().zip([
        format!("{}:2: `{HASH}0` ", torrents.display()),
        format!(
            "{}/none: no such list; create the file, empty if it has no entries",
            directory.0.display()
        ),
        format!(
            "{}: the list is not UTF-8; save it as UTF-8",
            bytes.display()
        ),
        format!(
            "{}:1: `note` is neither `warning` nor `failure`",
            notices.display()
        ),
        format!("{}:3: `10.0.0.1/8` ", networks.display()),
        format!("{}: cannot read the list: ", directory.0.display()),
    ]) {
        assert!(error.starts_with(&expected), "{error}");
    }
    assert_eq!(errors.len(), 6);
}

#[test]
fn notice_has_info_hash_kind_and_text() {
    let parse = |entry: &str| parse_notices(&format!("# first\n{entry}\n"));
    let (hash, notice) = parse(&format!("{HASH} warning  this release is old"))
        .unwrap()
        .remove(0);
    assert_eq!(hash.to_string(), HASH);
    assert_eq!(notice.warning.as_deref(), Some("this release is old"));
    assert_eq!(
        parse(&format!("{HASH} failure withdrawn")).unwrap()[0]
            .1
            .failure
            .as_deref(),
        Some("withdrawn")
    );
    for invalid in [
        "0123 warning x".to_owned(),
        format!("{HASH} remark x"),
        format!("{HASH} warning"),
        HASH.to_owned(),
    ] {
        assert_eq!(parse(&invalid).unwrap_err().line, 2, "{invalid}");
    }
    assert!(parse(&format!("{HASH} warning {}", "x".repeat(255))).is_ok());
    assert!(parse(&format!("{HASH} warning {}", "x".repeat(256))).is_err());
}

#[test]
fn list_files_has_file_of_every_key() {
    let mut config = Config::default();
    let path = |name: &str| Path::new("/lists").join(name);
    config.torrents.allow = vec![path("a"), path("b")];
    config.torrents.deny = vec![path("c")];
    config.torrents.notices = vec![path("d")];
    let network = NetworkSource::Network("192.0.2.0/24".parse().unwrap());
    let keys = [
        &mut config.access.announce_allow,
        &mut config.access.announce_deny,
        &mut config.access.scrape_allow,
        &mut config.access.scrape_deny,
        &mut config.access.status_allow,
        &mut config.access.status_deny,
        &mut config.access.metrics_allow,
        &mut config.access.metrics_deny,
        &mut config.access.local_networks,
        &mut config.access.trust_ip_params_from,
        &mut config.limits.exempt,
        &mut config.proxy.trusted,
    ];
    for (key, name) in keys.into_iter().zip('e'..='p') {
        *key = vec![
            network.clone(),
            NetworkSource::File(path(&name.to_string())),
        ];
    }
    let mut files: Vec<_> = config.list_files().collect();
    files.sort();
    assert_eq!(files.len(), 16);
    assert_eq!(files[0], path("a"));
    files.dedup();
    assert_eq!((files.len(), files[15]), (16, &*path("p")));
}
