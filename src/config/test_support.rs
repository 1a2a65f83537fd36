//! Helpers for the tests of this module.

use std::fs;
use std::path::{Path, PathBuf};

use super::diagnostics::{Diagnostic, Errors};
use super::loader::{LoadedConfig, Loader};
use super::schema::Config;

/// Loads a configuration from texts instead of files. Each text has the name of its file.
pub(super) fn load(files: &[(&str, &str)]) -> Result<LoadedConfig, Errors> {
    let mut loader = Loader::default();
    for (name, text) in files {
        loader.add_text(Path::new(name), text);
    }
    loader.finish()
}

/// Returns the configuration that `text` sets.
pub(super) fn config(text: &str) -> Config {
    load(&[("t", text)]).unwrap().config
}

/// Returns the errors of `text`, as displayed, with the file name `t`.
pub(super) fn errors(text: &str) -> String {
    load(&[("t", text)]).unwrap_err().to_string()
}

/// Returns the warnings of `text`, as displayed, with the file name `t`.
pub(super) fn warnings(text: &str) -> Vec<String> {
    let loaded = load(&[("t", text)]).unwrap();
    loaded
        .warnings()
        .iter()
        .map(Diagnostic::to_string)
        .collect()
}

/// A directory for a test. It is removed when dropped.
pub(super) struct TestDirectory(pub(super) PathBuf);

impl TestDirectory {
    /// Creates the directory. Each test must use another name.
    pub(super) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("tbtt-config-{}-{name}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    /// Writes a file, and creates the directories that it needs.
    pub(super) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }
}

impl Drop for TestDirectory {
    fn drop(&mut self) {
        // An error is ignored, so that a failing test reports its own failure.
        let _ = fs::remove_dir_all(&self.0);
    }
}
