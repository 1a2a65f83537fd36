//! Reads the configuration file and its drop-ins, and reports every error with its file and line.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::diagnostics::{Diagnostic, Errors};
use super::lists::Lists;
use super::schema::{Config, RENAMED_KEYS, SectionDescription};
use super::suggest::nearest;
use super::toml_value::{self, TomlValue};
use super::validate::Finding;
use super::value_types::InvalidValue;

/// A configuration, with the files that it was read from.
#[derive(Clone, Debug)]
pub struct LoadedConfig {
    pub config: Config,
    /// The content of the list files that `config` names.
    pub lists: Lists,
    /// Every configuration file that was read, in order, without the list files.
    pub files: Vec<PathBuf>,
    pub(super) locations: KeyLocations,
    file_warnings: Vec<Diagnostic>,
}

/// The file and line that last set a key, by `section.key`.
type KeyLocations = HashMap<String, (PathBuf, usize)>;

impl LoadedConfig {
    /// Returns warnings about values that are allowed but probably unintended.
    ///
    /// `config` is checked as it is now, because options of the command line may have changed it since it was read.
    pub fn warnings(&self) -> Vec<Diagnostic> {
        let findings = self.config.warnings().into_iter();
        let warnings = findings.map(|finding| at_location(&self.locations, finding));
        self.file_warnings.iter().cloned().chain(warnings).collect()
    }
}

impl Config {
    /// Reads the file at `path`, then its drop-ins.
    ///
    /// The drop-ins are the files `*.toml` in the directory of the same name with `.d` appended, in the order of their
    /// names. A key in a later file replaces the same key of an earlier file completely.
    ///
    /// # Errors
    /// Returns all errors in all files and lists. Each has the remedy, and the file, line and key, if known.
    pub fn load(path: &Path) -> Result<LoadedConfig, Errors> {
        Self::load_from(path, false)
    }

    /// Does the same as [`Config::load`], but treats a missing file as an empty file.
    ///
    /// # Errors
    /// Returns the same errors as [`Config::load`].
    pub fn load_if_present(path: &Path) -> Result<LoadedConfig, Errors> {
        Self::load_from(path, true)
    }

    fn load_from(path: &Path, may_be_missing: bool) -> Result<LoadedConfig, Errors> {
        let mut loader = Loader::default();
        match fs::read(path) {
            Err(error) if may_be_missing && error.kind() == io::ErrorKind::NotFound => {}
            content => loader.add_file(path, content),
        }
        let mut drop_ins = OsString::from(path);
        drop_ins.push(".d");
        loader.add_drop_ins(Path::new(&drop_ins));
        loader.finish()
    }
}

/// Collects the values of all files, and the errors in them.
#[derive(Default)]
pub(super) struct Loader {
    pub(super) config: Config,
    files: Vec<PathBuf>,
    locations: KeyLocations,
    file_warnings: Vec<Diagnostic>,
    pub(super) errors: Vec<Diagnostic>,
}

impl Loader {
    fn add_drop_ins(&mut self, directory: &Path) {
        let listing = fs::read_dir(directory).and_then(|entries| {
            let paths = entries.map(|entry| Ok(entry?.path()));
            paths.collect::<io::Result<Vec<_>>>()
        });
        let mut paths = match listing {
            Ok(paths) => paths,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => {
                let text = format!(
                    "cannot read the directory of drop-ins: {error}; make it a readable directory, or remove it"
                );
                return self.add_error(directory, None, text);
            }
        };
        paths.retain(|path| {
            let hidden = path
                .file_name()
                .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
            !hidden
                && path
                    .extension()
                    .is_some_and(|extension| extension == "toml")
        });
        paths.sort();
        for path in paths {
            self.add_file(&path, fs::read(&path));
        }
    }

    fn add_file(&mut self, path: &Path, content: io::Result<Vec<u8>>) {
        self.files.push(path.to_owned());
        let bytes = match content {
            Ok(bytes) => bytes,
            Err(error) => return self.add_error(path, None, unreadable_file(&error)),
        };
        if fs::metadata(path)
            .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o002 != 0)
        {
            self.file_warnings.push(Diagnostic {
                file: Some(path.to_owned()),
                line: None,
                text: "every user can change this file; remove that permission with chmod o-w"
                    .to_owned(),
            });
        }
        match String::from_utf8(bytes) {
            Ok(text) => self.add_text(path, &text),
            Err(error) => {
                let valid = error.utf8_error().valid_up_to();
                let line = 1 + error.as_bytes()[..valid]
                    .iter()
                    .filter(|byte| **byte == b'\n')
                    .count();
                self.add_error(
                    path,
                    Some(line),
                    "the file is not UTF-8; save it as UTF-8".to_owned(),
                );
            }
        }
    }

    /// Parses the text of a file. Its values replace those of earlier files.
    pub(super) fn add_text(&mut self, path: &Path, text: &str) {
        let errors_before = self.errors.len();
        match toml_value::parse(text) {
            Ok(document) => {
                for (name, value) in &document.0 {
                    self.add_section(path, text, name, value);
                }
            }
            Err(error) => {
                let line = error.span.map(|span| toml_value::line_at(text, span.start));
                let source = line
                    .and_then(|line| text.lines().nth(line - 1))
                    .unwrap_or_default();
                let message = format!(
                    "invalid TOML: {}: {}; write text in double quotes, lists in brackets, and numbers without quotes",
                    shorten(source),
                    error.message
                );
                self.add_error(path, line, message);
            }
        }
        self.errors[errors_before..].sort_by_key(|error| error.line);
    }

    fn add_section(&mut self, path: &Path, text: &str, name: &str, value: &TomlValue) {
        let line = toml_value::line_of_name(text, name);
        let sections = Config::default().describe();
        let Some(section) = sections.iter().find(|section| section.name == name) else {
            let text = match value {
                TomlValue::Table(_) => unknown_section(&sections, name),
                _ => key_outside_section(&sections, name),
            };
            return self.add_error(path, line, text);
        };
        let TomlValue::Table(entries) = value else {
            let text = format!(
                "[{name}]: this is {}, not a section; write [{name}] once, on a line of its own, with its keys below it",
                value.type_name()
            );
            return self.add_error(path, line, text);
        };
        for (name, value) in entries {
            let line = toml_value::line_at(text, value.span().start);
            match self.config.set_key(section.name, name, value) {
                Some(Ok(())) => {
                    let key = format!("{}.{name}", section.name);
                    self.locations.insert(key, (path.to_owned(), line));
                }
                Some(Err(invalid_values)) => {
                    for invalid in invalid_values {
                        let line = toml_value::line_at(text, invalid.span.start);
                        let text = describe_invalid_value(section, name, text, &invalid);
                        self.add_error(path, Some(line), text);
                    }
                }
                None => self.add_error(path, Some(line), unknown_key(&sections, section, name)),
            }
        }
    }

    fn add_error(&mut self, path: &Path, line: Option<usize>, text: String) {
        self.errors.push(Diagnostic {
            file: Some(path.to_owned()),
            line,
            text,
        });
    }

    /// Checks the configuration as a whole, and reads the lists that it names.
    pub(super) fn finish(mut self) -> Result<LoadedConfig, Errors> {
        // A key with an invalid value still has its previous value here, so a conflict with that would mislead.
        if self.errors.is_empty() {
            let conflicts = self.config.conflicts().into_iter();
            self.errors
                .extend(conflicts.map(|finding| at_location(&self.locations, finding)));
        }
        let lists = Lists::read(&self.config, &mut self.errors);
        if !self.errors.is_empty() {
            return Err(Errors(self.errors));
        }
        Ok(LoadedConfig {
            config: self.config,
            lists,
            files: self.files,
            locations: self.locations,
            file_warnings: self.file_warnings,
        })
    }
}

/// Adds the file and line of the first of the finding's keys that a file sets.
fn at_location(locations: &KeyLocations, finding: Finding) -> Diagnostic {
    let location = finding.keys.iter().find_map(|key| locations.get(*key));
    let (section, key) = finding.keys[0].split_once('.').unwrap_or_default();
    Diagnostic {
        file: location.map(|(file, _)| file.clone()),
        line: location.map(|(_, line)| *line),
        text: format!("[{section}] {key}: {}", finding.text),
    }
}

fn unreadable_file(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => {
            "no such file; correct the path, or create the file with tbtt --print-default-config".to_owned()
        }
        io::ErrorKind::PermissionDenied => {
            "permission denied; grant the user that runs tbtt read access to the file and to its directory".to_owned()
        }
        io::ErrorKind::IsADirectory => "this is a directory; give the path of a file".to_owned(),
        _ => format!("cannot read the file: {error}"),
    }
}

fn describe_invalid_value(
    section: &SectionDescription,
    name: &str,
    text: &str,
    invalid: &InvalidValue,
) -> String {
    let mut value = text
        .get(invalid.span.clone())
        .unwrap_or_default()
        .to_owned();
    // A URL may have a password before its @. The password must not appear in a log.
    if let (true, Some((_, host))) = (name == "url", value.rsplit_once('@')) {
        value = format!("\"...@{host}");
    }
    let key = section.keys.iter().find(|key| key.name == name);
    let (allowed, default) = key.map_or(("", ""), |key| (&key.allowed, &key.value));
    let remedy = match &invalid.remedy {
        Some(remedy) => remedy.clone(),
        None => format!("correct it, or remove the key to use its default, {default}"),
    };
    format!(
        "[{}] {name}: {} {}; allowed: {allowed}; {remedy}",
        section.name,
        shorten(&value),
        invalid.problem
    )
}

fn unknown_section(sections: &[SectionDescription], name: &str) -> String {
    let names = || sections.iter().map(|section| section.name);
    match nearest(name, names()) {
        Some(near) => format!("[{name}]: unknown section; did you mean [{near}]?"),
        None => {
            let names: Vec<_> = names().map(|name| format!("[{name}]")).collect();
            format!(
                "[{name}]: unknown section; the sections are {}",
                names.join(", ")
            )
        }
    }
}

fn key_outside_section(sections: &[SectionDescription], name: &str) -> String {
    let renamed = RENAMED_KEYS.iter().find(|(_, old, _)| *old == name);
    if let Some((section, old, new)) = renamed {
        return format!(
            "{name}: `{old}` is now `{new}`; rename the key, and move it below [{section}]"
        );
    }
    let owners = sections_with_key(sections, name);
    if owners.is_empty() {
        format!("{name}: unknown key outside of a section; remove it")
    } else {
        format!(
            "{name}: this key is outside of a section; move it below {}",
            owners.join(" or ")
        )
    }
}

fn unknown_key(
    sections: &[SectionDescription],
    section: &SectionDescription,
    name: &str,
) -> String {
    let section_name = section.name;
    let renamed = RENAMED_KEYS
        .iter()
        .find(|(section, old, _)| (*section, *old) == (section_name, name));
    if let Some((_, old, new)) = renamed {
        return format!("[{section_name}] {name}: `{old}` is now `{new}`; rename the key");
    }
    let owners = sections_with_key(sections, name);
    let names = || section.keys.iter().map(|key| key.name);
    let remedy = if !owners.is_empty() {
        format!("it belongs in {}", owners.join(" or "))
    } else if let Some(near) = nearest(name, names()) {
        format!("did you mean {near}?")
    } else {
        format!(
            "the keys of this section are {}",
            names().collect::<Vec<_>>().join(", ")
        )
    };
    format!("[{section_name}] {name}: unknown key; {remedy}")
}

/// Returns the sections that have a key of this name, in brackets.
fn sections_with_key(sections: &[SectionDescription], key: &str) -> Vec<String> {
    let has_key =
        |section: &&SectionDescription| section.keys.iter().any(|known| known.name == key);
    sections
        .iter()
        .filter(has_key)
        .map(|section| format!("[{}]", section.name))
        .collect()
}

/// Returns the first line of a quoted value, cut to a length that fits a message.
fn shorten(source: &str) -> String {
    const MAX_CHARS: usize = 60;
    let line = source.trim().lines().next().unwrap_or_default();
    let short: String = line.chars().take(MAX_CHARS).collect();
    let cut = short.len() < source.trim().len();
    if cut { short + "..." } else { short }
}

#[cfg(test)]
mod tests;
