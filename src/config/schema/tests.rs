use std::path::Path;

use super::super::loader::Loader;
use super::super::test_support::config;
use super::*;

#[test]
fn nothing_said_is_the_default() {
    let config = config("");
    assert_eq!(config, Config::default());
    assert_eq!(
        config.http.listen,
        [Listen::Tcp("[::]:6969".parse().unwrap())]
    );
    assert!(!config.torrents.open);
}

#[test]
fn ranges_hold_at_their_edges() {
    for section in Config::default().describe() {
        for key in section.keys {
            let mut words = key.allowed.split(' ');
            let (Some(Ok(low)), Some("to"), Some(Ok(high))) = (
                words.next().map(str::parse::<i64>),
                words.next(),
                words.next().map(str::parse::<i64>),
            ) else {
                continue;
            };
            let set = |value: i64| {
                let mut loader = Loader::default();
                let text = format!("{}.{} = {value}", section.name, key.name);
                loader.add_text(Path::new("t"), &text);
                loader
                    .faults
                    .into_iter()
                    .map(|fault| fault.text)
                    .collect::<Vec<_>>()
            };
            assert!(set(low).is_empty() && set(high).is_empty(), "{}", key.name);
            assert!(set(low - 1)[0].contains("is too small"), "{}", key.name);
            assert!(set(high + 1)[0].contains("is too large"), "{}", key.name);
        }
    }
}

#[test]
fn every_word_is_read_and_written() {
    for section in Config::default().describe() {
        for (i, key) in section.keys.iter().enumerate() {
            for word in key.allowed.split('"').skip(1).step_by(2) {
                // A list's quotes are no words.
                if key.value.starts_with('[') {
                    continue;
                }
                let config = config(&format!("{}.{} = '{word}'", section.name, key.name));
                let mut sections = config.describe().into_iter();
                let written = sections
                    .find(|written| written.name == section.name)
                    .unwrap();
                assert_eq!(written.keys[i].value, format!("\"{word}\""));
            }
        }
    }
}

/// What the manual lists, as `section.key = default, allowed`.
fn listed_in(manual: &str) -> Vec<String> {
    let plain = |text: &str| text.replace("\\(dq", "\"");
    let mut listed = Vec::new();
    let mut section = "";
    // A line may be continued on the next.
    let manual = manual.replace("\\\n", "");
    let mut lines = manual.lines();
    while let Some(line) = lines.next() {
        if let Some(name) = line.strip_prefix(".Ss [") {
            section = name.split(']').next().unwrap();
        } else if let Some(key) = line.strip_prefix(".It Ic ") {
            let body: Vec<_> = lines
                .by_ref()
                .take_while(|line| !line.starts_with('.'))
                .collect();
            let key = plain(&key.replace(" No =", " ="));
            listed.push(format!("{section}.{key}, {}", body.join(" ")));
        }
    }
    listed
}

#[test]
fn the_manual_lists_every_key_once_and_in_order() {
    let listed = listed_in(include_str!("../../../man/tbtt.toml.5"));
    let mut known = Vec::new();
    for section in Config::default().describe() {
        for key in section.keys {
            known.push(format!(
                "{}.{} = {}, Allowed: {}.",
                section.name, key.name, key.value, key.allowed
            ));
        }
    }
    assert_eq!(listed, known);
}
