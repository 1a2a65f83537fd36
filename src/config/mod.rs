//! Text to a checked [`Config`]: each key described once, every fault named with file, line and key.
#![forbid(unsafe_code)]

mod address_types;
mod cluster_types;
mod diagnostics;
mod lists;
mod loader;
mod sample;
mod schema;
mod settings;
mod suggest;
mod toml_value;
mod validate;
mod value_types;

#[cfg(test)]
mod test_support;

pub use address_types::{Listen, Source};
pub use diagnostics::{Diagnostic, Errors};
pub use lists::Lists;
pub use loader::Loaded;
pub use sample::sample;
pub use schema::Config;
pub use settings::FILES_BESIDE;
