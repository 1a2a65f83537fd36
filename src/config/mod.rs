//! The configuration: files are read, checked and made into the settings of the other modules.
#![forbid(unsafe_code)]

pub mod address_types;
mod cluster_types;
pub mod diagnostics;
pub mod list_file;
mod lists;
pub mod loader;
pub mod sample;
pub mod schema;
pub mod settings;
mod suggest;
mod toml_value;
mod torrent_settings;
mod validate;
mod value_types;

#[cfg(test)]
mod test_support;
