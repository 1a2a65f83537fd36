//! The sample configuration, which `tbtt --print-default-config` prints.

use super::schema::Config;

/// Number of columns that a line may have.
const MAX_COLUMNS: usize = 79;

const HEAD: &str = "\
# Configuration of tbtt(8), the BitTorrent tracker. See also tbtt.toml(5).
#
# Each key is shown with its default. To change a key, remove the # before it.
# A long list has a # on each of its lines.
#
# Drop-ins are read after this file: all files *.toml in the directory of the
# same name with .d appended, in the order of their names. A key in a later
# file replaces the same key of an earlier file completely.
#
# Check the configuration after every change: tbtt --check-config
";

/// Returns the default configuration as a file, in which every key is commented out below its help text.
pub fn sample() -> String {
    let mut sample = HEAD.to_owned();
    for section in Config::default().describe() {
        sample += &format!("\n{}[{}]\n", comment(&section.about.concat()), section.name);
        for key in section.keys {
            let help = comment(&key.help.concat());
            let allowed = comment(&format!("Allowed: {}.", key.allowed));
            let setting = commented_out(&format!("{} = ", key.name), &key.value);
            sample += &format!("\n{help}{allowed}{setting}");
        }
    }
    sample
}

/// Writes a key and its default as a comment. A list that is too long for a line has each value on its own line.
fn commented_out(name: &str, value: &str) -> String {
    let elements = value
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    match elements {
        Some(elements) if 1 + name.len() + value.len() > MAX_COLUMNS => {
            // The values come from the table of keys, and none of them contains a comma.
            let elements: String = elements
                .split(", ")
                .map(|element| format!("#    {element},\n"))
                .collect();
            format!("#{name}[\n{elements}#]\n")
        }
        _ => format!("#{name}{value}\n"),
    }
}

/// Writes `text` as comment lines.
fn comment(text: &str) -> String {
    let mut comment = String::new();
    let mut line = String::from("#");
    for word in text.split_whitespace() {
        if line.len() + 1 + word.len() > MAX_COLUMNS {
            comment += &line;
            comment += "\n";
            line.truncate(1);
        }
        line += " ";
        line += word;
    }
    comment + &line + "\n"
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::loader::Loader;
    use super::super::test_support::config;
    use super::*;
    use crate::log;

    #[test]
    fn sample_sets_every_key_to_its_default() {
        let sample = sample();
        let is_key = |line: &str| {
            line.strip_prefix('#').is_some_and(|rest| {
                rest.starts_with(char::is_alphabetic)
                    || rest.starts_with("    ")
                    || rest.starts_with(']')
            })
        };
        let uncommented: Vec<_> = sample
            .lines()
            .map(|line| if is_key(line) { &line[1..] } else { line })
            .collect();
        let uncommented = uncommented.join("\n");
        assert_eq!(config(&sample), Config::default());

        // Two keys differ from their defaults before, so this checks that the sample sets them.
        let mut loader = Loader::default();
        loader.config.http.listen.clear();
        loader.config.log.level = log::Level::Debug;
        loader.add_text(Path::new("t"), &uncommented);
        let loaded = loader.finish().unwrap();
        assert_eq!(loaded.config, Config::default());
        let keys: usize = Config::default()
            .describe()
            .iter()
            .map(|section| section.keys.len())
            .sum();
        assert_eq!(loaded.locations.len(), keys);
    }

    #[test]
    fn sample_fits_terminal() {
        for line in sample().lines() {
            assert!(line.len() <= 79, "{line}");
        }
    }
}
