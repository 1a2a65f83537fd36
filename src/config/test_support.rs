//! Helpers of the tests of this module.

use std::fs;
use std::path::{Path, PathBuf};

use super::diagnostics::{Diagnostic, Errors};
use super::loader::{Loaded, Loader};
use super::schema::Config;

/// What the files say, without a file.
pub(super) fn read(files: &[(&str, &str)]) -> Result<Loaded, Errors> {
    let mut loader = Loader::default();
    for (name, text) in files {
        loader.add_text(Path::new(name), text);
    }
    loader.finish()
}

pub(super) fn config(text: &str) -> Config {
    read(&[("t", text)]).unwrap().config
}

pub(super) fn faults(text: &str) -> String {
    read(&[("t", text)]).unwrap_err().to_string()
}

pub(super) fn warnings(text: &str) -> Vec<String> {
    let loaded = read(&[("t", text)]).unwrap();
    loaded
        .warnings()
        .iter()
        .map(Diagnostic::to_string)
        .collect()
}

/// A directory of one test's own, gone after it.
pub(super) struct TestDirectory(pub(super) PathBuf);

impl TestDirectory {
    pub(super) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("tbtt-config-{}-{name}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub(super) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }
}

impl Drop for TestDirectory {
    fn drop(&mut self) {
        // A test that fails must say why, not that this failed too.
        let _ = fs::remove_dir_all(&self.0);
    }
}
