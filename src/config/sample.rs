//! The sample configuration.

use super::schema::Config;

/// The default configuration as a file: every key commented out below its help.
pub fn sample() -> String {
    let mut sample = SAMPLE_HEAD.to_owned();
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

const TERMINAL: usize = 79;

/// A key and its default, a list over several lines where it is too long for one.
fn commented_out(name: &str, value: &str) -> String {
    let elements = value
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    match elements {
        Some(elements) if 1 + name.len() + value.len() > TERMINAL => {
            // Our own defaults, none of which has a comma within.
            let elements: String = elements
                .split(", ")
                .map(|element| format!("#    {element},\n"))
                .collect();
            format!("#{name}[\n{elements}#]\n")
        }
        _ => format!("#{name}{value}\n"),
    }
}

/// `text` as comment lines that fit a terminal.
fn comment(text: &str) -> String {
    let mut comment = String::new();
    let mut line = String::from("#");
    for word in text.split_whitespace() {
        if line.len() + 1 + word.len() > TERMINAL {
            comment += &line;
            comment += "\n";
            line.truncate(1);
        }
        line += " ";
        line += word;
    }
    comment + &line + "\n"
}

const SAMPLE_HEAD: &str = "\
# The configuration of tbtt(8), the BitTorrent tracker. See also tbtt.toml(5).
#
# Each key stands below with its default; to change it, remove the # before it,
# which a long list has on each of its lines.
# Files named *.toml in the directory tbtt.toml.d beside this file are read
# after it, in the order of their names; a key in a later file replaces it as a
# whole.
# To see whether all is well: tbtt --check-config
";

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::loader::Loader;
    use super::super::test_support::config;
    use super::*;
    use crate::log;

    #[test]
    fn the_sample_reads_back_as_the_default() {
        let sample = sample();
        let is_key = |line: &str| {
            line.strip_prefix('#').is_some_and(|rest| {
                rest.starts_with(char::is_alphabetic)
                    || rest.starts_with("    ")
                    || rest.starts_with(']')
            })
        };
        let live: Vec<_> = sample
            .lines()
            .map(|line| if is_key(line) { &line[1..] } else { line })
            .collect();
        let live = live.join("\n");
        assert_eq!(config(&sample), Config::default());

        // Over a base in which every key is another, so that each must really have been set.
        let mut loader = Loader::default();
        loader.config.http.listen.clear();
        loader.config.log.level = log::Level::Debug;
        loader.add_text(Path::new("t"), &live);
        let loaded = loader.finish().unwrap();
        assert_eq!(loaded.config, Config::default());
        let keys: usize = Config::default()
            .describe()
            .iter()
            .map(|section| section.keys.len())
            .sum();
        assert_eq!(loaded.places.len(), keys);
    }

    #[test]
    fn the_sample_fits_a_terminal() {
        for line in sample().lines() {
            assert!(line.len() <= 79, "{line}");
        }
    }
}
