//! The configuration: files are read, checked and made into the settings of the other modules.
#![forbid(unsafe_code)]

mod address_types;
mod cluster_types;
mod diagnostics;
pub mod list_file;
mod lists;
mod loader;
mod sample;
mod schema;
mod settings;
mod suggest;
mod toml_value;
mod torrent_settings;
mod validate;
mod value_types;

#[cfg(test)]
mod test_support;

pub use address_types::{Listen, NetworkSource};
pub use diagnostics::{Diagnostic, Errors};
pub use lists::Lists;
pub use loader::LoadedConfig;
pub use sample::sample;
pub use schema::Config;
pub use settings::RESERVED_FILES;
