//! Any file is either a valid configuration or is refused with errors that fit one line each.
#![no_main]

use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use tbtt::config::schema::Config;

/// The configuration file. It is in memory if the system has /dev/shm.
static FILE: LazyLock<PathBuf> = LazyLock::new(|| {
    let memory = PathBuf::from("/dev/shm");
    let directory = if memory.is_dir() {
        memory
    } else {
        std::env::temp_dir()
    };
    directory.join(format!("tbtt-fuzz-{}.toml", std::process::id()))
});

fuzz_target!(|input: &[u8]| {
    fs::write(&*FILE, input).expect("the configuration can be written");
    let loaded = Config::load(&FILE);
    fs::remove_file(&*FILE).expect("the configuration was written");
    match loaded {
        Ok(loaded) => {
            loaded.warnings();
            loaded.http_settings(1);
            loaded.udp_settings();
            loaded.tracker_settings(1);
        }
        Err(errors) => {
            assert!(!errors.0.is_empty());
            // The log has one line for each error.
            for error in &errors.0 {
                assert!(!error.to_string().chars().any(char::is_control), "{error}");
            }
        }
    }
});
