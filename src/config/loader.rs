//! Reads the configuration and its drop-ins.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::diagnostics::{Diagnostic, Errors};
use super::lists::Lists;
use super::schema::{Config, Section};
use super::suggest::nearest;
use super::toml_value::{self, TomlValue};
use super::validate::Finding;
use super::value_types::InvalidValue;

/// A configuration and where it came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub config: Config,
    /// What the files say that `config` names.
    pub lists: Lists,
    /// Every file read, in order, but for the lists.
    pub files: Vec<PathBuf>,
    pub(super) places: KeyLocations,
    about_files: Vec<Diagnostic>,
}

/// The file and line that last set a key, by `section.key`.
type KeyLocations = HashMap<String, (PathBuf, usize)>;

impl Loaded {
    /// What is allowed but unwise, as `config` stands now: a command line may have changed it since it was read.
    pub fn warnings(&self) -> Vec<Diagnostic> {
        let advice = self.config.advice().into_iter();
        let advice = advice.map(|finding| locate(&self.places, finding));
        self.about_files.iter().cloned().chain(advice).collect()
    }
}

impl Config {
    /// Reads the file at `path`, then the drop-ins: `*.toml` in the directory of that name with `.d` added, in the
    /// order of their names. A key set in a later file replaces it as a whole.
    pub fn load(path: &Path) -> Result<Loaded, Errors> {
        Self::load_from(path, false)
    }

    /// Like [`Config::load`], but a missing file counts as empty.
    pub fn load_if_present(path: &Path) -> Result<Loaded, Errors> {
        Self::load_from(path, true)
    }

    fn load_from(path: &Path, may_be_missing: bool) -> Result<Loaded, Errors> {
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

/// Gathers what the files say, and all that is wrong with them.
#[derive(Default)]
pub(super) struct Loader {
    pub(super) config: Config,
    files: Vec<PathBuf>,
    pub(super) places: KeyLocations,
    about_files: Vec<Diagnostic>,
    pub(super) faults: Vec<Diagnostic>,
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
                let text = format!("the directory of drop-ins cannot be read: {error}");
                return self.fault(directory, None, text);
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
            Err(error) => return self.fault(path, None, why_unreadable(&error)),
        };
        if fs::metadata(path)
            .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o002 != 0)
        {
            self.about_files.push(Diagnostic {
                file: Some(path.to_owned()),
                line: None,
                text: "anyone on this machine may change this file; chmod o-w it".to_owned(),
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
                self.fault(
                    path,
                    Some(line),
                    "not UTF-8 text; save the file as UTF-8".to_owned(),
                );
            }
        }
    }

    /// Overlays one file's text on what came before.
    pub(super) fn add_text(&mut self, path: &Path, text: &str) {
        let faults_before = self.faults.len();
        match toml_value::parse(text) {
            Ok(document) => {
                for (name, given) in &document.0 {
                    self.add_section(path, text, name, given);
                }
            }
            Err(error) => {
                let line = error.span.map(|span| toml_value::line_at(text, span.start));
                let source = line
                    .and_then(|line| text.lines().nth(line - 1))
                    .unwrap_or_default();
                let message = format!(
                    "not TOML: {}: {}; text goes in double quotes, lists in brackets, numbers bare",
                    shorten(source),
                    error.message
                );
                self.fault(path, line, message);
            }
        }
        self.faults[faults_before..].sort_by_key(|fault| fault.line);
    }

    fn add_section(&mut self, path: &Path, text: &str, name: &str, given: &TomlValue) {
        let line = toml_value::line_of_name(text, name);
        let sections = Config::default().describe();
        let Some(section) = sections.iter().find(|section| section.name == name) else {
            let text = match given {
                TomlValue::Table(_) => unknown_section(&sections, name),
                _ => stray_key(&sections, name),
            };
            return self.fault(path, line, text);
        };
        let TomlValue::Table(entries) = given else {
            let text = format!(
                "[{name}]: is {}, not a section; write [{name}] once, on a line of its own, and its keys below",
                given.kind()
            );
            return self.fault(path, line, text);
        };
        for (name, given) in entries {
            let place = toml_value::line_at(text, given.span().start);
            match self.config.set(section.name, name, given) {
                Some(Ok(())) => {
                    let key = format!("{}.{name}", section.name);
                    self.places.insert(key, (path.to_owned(), place));
                }
                Some(Err(wrongs)) => {
                    for wrong in wrongs {
                        let line = toml_value::line_at(text, wrong.span.start);
                        let text = explain(section, name, text, &wrong);
                        self.fault(path, Some(line), text);
                    }
                }
                None => self.fault(path, Some(place), unknown_key(&sections, section, name)),
            }
        }
    }

    fn fault(&mut self, path: &Path, line: Option<usize>, text: String) {
        self.faults.push(Diagnostic {
            file: Some(path.to_owned()),
            line,
            text,
        });
    }

    pub(super) fn finish(mut self) -> Result<Loaded, Errors> {
        // A key that was refused still has its old value, so a conflict with it would mislead.
        if self.faults.is_empty() {
            let conflicts = self.config.conflicts().into_iter();
            self.faults
                .extend(conflicts.map(|finding| locate(&self.places, finding)));
        }
        let lists = Lists::read(&self.config, &mut self.faults);
        if !self.faults.is_empty() {
            return Err(Errors(self.faults));
        }
        Ok(Loaded {
            config: self.config,
            lists,
            files: self.files,
            places: self.places,
            about_files: self.about_files,
        })
    }
}

/// A finding with the place of the first of its keys that a file sets.
fn locate(places: &KeyLocations, finding: Finding) -> Diagnostic {
    let place = finding.keys.iter().find_map(|key| places.get(*key));
    let (section, key) = finding.keys[0].split_once('.').unwrap_or_default();
    Diagnostic {
        file: place.map(|(file, _)| file.clone()),
        line: place.map(|(_, line)| *line),
        text: format!("[{section}] {key}: {}", finding.text),
    }
}

fn why_unreadable(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => {
            "there is no such file; name another, or make one from what tbtt --print-default-config prints".to_owned()
        }
        io::ErrorKind::PermissionDenied => {
            "no permission to read this file; let the user that runs tbtt read it, and enter its directory".to_owned()
        }
        io::ErrorKind::IsADirectory => "is a directory; name the file itself".to_owned(),
        _ => format!("cannot be read: {error}"),
    }
}

fn explain(section: &Section, name: &str, text: &str, wrong: &InvalidValue) -> String {
    let mut value = text.get(wrong.span.clone()).unwrap_or_default().to_owned();
    // Before the @ of a URL stands a password, which is not for a log to show.
    if let (true, Some((_, host))) = (name == "url", value.rsplit_once('@')) {
        value = format!("\"...@{host}");
    }
    let key = section.keys.iter().find(|key| key.name == name);
    let (allowed, default) = key.map_or(("", ""), |key| (&key.allowed, &key.value));
    let advice = match &wrong.advice {
        Some(advice) => advice.clone(),
        None => format!("correct it, or remove the key for its default, {default}"),
    };
    format!(
        "[{}] {name}: {} {}; allowed: {allowed}; {advice}",
        section.name,
        shorten(&value),
        wrong.what
    )
}

fn unknown_section(sections: &[Section], name: &str) -> String {
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

fn stray_key(sections: &[Section], name: &str) -> String {
    let homes = homes(sections, name);
    if homes.is_empty() {
        format!("{name}: unknown key, and outside of any section; remove it")
    } else {
        format!(
            "{name}: stands before any section; move it below {}",
            homes.join(" or ")
        )
    }
}

fn unknown_key(sections: &[Section], section: &Section, name: &str) -> String {
    let homes = homes(sections, name);
    let names = || section.keys.iter().map(|key| key.name);
    let advice = if !homes.is_empty() {
        format!("it belongs in {}", homes.join(" or "))
    } else if let Some(near) = nearest(name, names()) {
        format!("did you mean {near}?")
    } else {
        format!(
            "the keys here are {}",
            names().collect::<Vec<_>>().join(", ")
        )
    };
    format!("[{}] {name}: unknown key; {advice}", section.name)
}

/// The sections that have a key of this name.
fn homes(sections: &[Section], key: &str) -> Vec<String> {
    let has = |section: &&Section| section.keys.iter().any(|known| known.name == key);
    sections
        .iter()
        .filter(has)
        .map(|section| format!("[{}]", section.name))
        .collect()
}

/// A value or line as a message can carry it.
fn shorten(source: &str) -> String {
    const MAX: usize = 60;
    let line = source.trim().lines().next().unwrap_or_default();
    let short: String = line.chars().take(MAX).collect();
    let cut = short.len() < source.trim().len();
    if cut { short + "..." } else { short }
}

#[cfg(test)]
mod tests;
