//! Configuration files: good, or refused with faults that name a place; never anything else.
#![no_main]

use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use tbtt::config::Config;

/// In memory, where the system has such a place.
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
    fs::write(&*FILE, input).expect("room for a configuration");
    let loaded = Config::load(&FILE);
    fs::remove_file(&*FILE).expect("just written");
    match loaded {
        Ok(loaded) => {
            loaded.warnings();
            loaded.http_settings(1);
            loaded.udp_settings();
            loaded.tracker_settings(1);
        }
        Err(faults) => {
            assert!(!faults.0.is_empty());
            // One line each, for the log.
            for fault in &faults.0 {
                assert!(!fault.to_string().chars().any(char::is_control), "{fault}");
            }
        }
    }
});
