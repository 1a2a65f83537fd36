use std::path::Path;

use super::super::loader::Loader;
use super::super::test_support::config;
use super::*;

const MANUAL: &str = include_str!("../../../man/tbtt.toml.5");

#[test]
fn empty_configuration_is_the_default() {
    let config = config("");
    assert_eq!(config, Config::default());
    assert_eq!(
        config.http.listen,
        [Listen::Tcp("[::]:6969".parse().unwrap())]
    );
    assert!(!config.torrents.open);
}

#[test]
fn numbers_are_accepted_only_within_their_range() {
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
            let errors = |value: i64| {
                let mut loader = Loader::default();
                let text = format!("{}.{} = {value}", section.name, key.name);
                loader.add_text(Path::new("t"), &text);
                let errors = loader.errors.into_iter().map(|error| error.text);
                errors.collect::<Vec<_>>()
            };
            assert!(
                errors(low).is_empty() && errors(high).is_empty(),
                "{}",
                key.name
            );
            assert!(errors(low - 1)[0].contains("is too small"), "{}", key.name);
            assert!(errors(high + 1)[0].contains("is too large"), "{}", key.name);
        }
    }
}

#[test]
fn every_keyword_is_parsed_and_written() {
    for section in Config::default().describe() {
        for (i, key) in section.keys.iter().enumerate() {
            for word in key.allowed.split('"').skip(1).step_by(2) {
                // For a list, the quotes contain forms of its values instead of keywords.
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

/// Returns the keys in the manual, as `section.key = default, allowed`.
fn keys_in_manual() -> Vec<String> {
    let unescaped = |text: &str| text.replace("\\(dq", "\"");
    let mut keys = Vec::new();
    let mut section = "";
    // A backslash at the end of a line continues the line.
    let manual = MANUAL.replace("\\\n", "");
    let mut lines = manual.lines();
    while let Some(line) = lines.next() {
        if let Some(name) = line.strip_prefix(".Ss [") {
            section = name.split(']').next().unwrap();
        } else if let Some(key) = line.strip_prefix(".It Ic ") {
            let body: Vec<_> = lines
                .by_ref()
                .take_while(|line| !line.starts_with('.'))
                .collect();
            let key = unescaped(&key.replace(" No =", " ="));
            keys.push(format!("{section}.{key}, {}", body.join(" ")));
        }
    }
    keys
}

#[test]
fn manual_has_every_key_in_order() {
    let mut expected = Vec::new();
    for section in Config::default().describe() {
        for key in section.keys {
            expected.push(format!(
                "{}.{} = {}, Allowed: {}.",
                section.name, key.name, key.value, key.allowed
            ));
        }
    }
    assert_eq!(keys_in_manual(), expected);
}

/// Returns the text of the manual without its mdoc(7) macros, normalized.
fn text_of_manual() -> String {
    let mut text = String::new();
    for line in MANUAL.lines() {
        let line = line.replace("\\(dq", "\"").replace("\\&", "");
        let Some(markup) = line.strip_prefix('.') else {
            text += &line;
            text.push(' ');
            continue;
        };
        // The first word is a macro. Other macros may follow it, as in `Ic open No = false`.
        let (first, rest) = markup.split_once(' ').unwrap_or((markup, ""));
        let rest = match first {
            // The section of another manual is displayed in parentheses, as in `tbtt(8)`.
            "Xr" => rest.replace(char::is_numeric, ""),
            "Pq" => rest.replace(|c| c != '.', ""),
            _ => rest.to_owned(),
        };
        for word in rest.split(' ').filter(|word| !MACROS.contains(word)) {
            text += word;
            text.push(' ');
        }
    }
    normalized(&text)
}

/// The mdoc(7) macros that follow another macro in the manual.
const MACROS: &[&str] = &["Ar", "Cm", "Ic", "Li", "No", "Ns"];

/// Removes text in parentheses, letter case, repeated spaces, and spaces before punctuation.
fn normalized(text: &str) -> String {
    let mut depth = 0;
    let mut outside = String::new();
    for c in text.chars() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ if depth == 0 => outside.extend(c.to_lowercase()),
            _ => {}
        }
    }
    let words: Vec<_> = outside.split_whitespace().collect();
    [" .", " ,", " ;", " :"]
        .iter()
        .fold(words.join(" "), |text, spaced| {
            text.replace(spaced, spaced.trim_start())
        })
}

#[test]
fn help_texts_are_sentences_of_the_manual() {
    // The manual shows the forms of the URL in a list.
    const ONLY_IN_HELP: &str =
        "write redis://host:port/database, rediss:// for tls, or redis+unix:///path";
    let manual = text_of_manual();
    for section in Config::default().describe() {
        let keys = section.keys.iter().map(|key| (key.name, key.help));
        for (name, help) in [("", section.about)].into_iter().chain(keys) {
            let help = normalized(&help.concat());
            let parts = help
                .split(". ")
                .flat_map(|sentence| sentence.split(": "))
                .map(|part| part.trim_end_matches('.'));
            for part in parts {
                assert!(
                    manual.contains(part) || part == ONLY_IN_HELP,
                    "[{}] {name}: {part}",
                    section.name
                );
            }
        }
    }
}
