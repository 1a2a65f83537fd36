//! Types of the values in the section `[cluster]`.

use toml::Spanned;

use super::toml_value::TomlValue;
use super::value_types::{AbsolutePath, InvalidValue, ValueType, quoted, text_of};
use crate::cluster::settings::PasswordFile;
use crate::cluster::url::StoreUrl;

/// The URL of a store.
pub(super) struct ClusterUrl;

impl ValueType for ClusterUrl {
    type Value = StoreUrl;

    fn allowed(&self) -> String {
        "the URL of a store".to_owned()
    }

    fn parse(&self, value: &Spanned<TomlValue>) -> Result<StoreUrl, Vec<InvalidValue>> {
        let url = text_of(value)?.parse::<StoreUrl>();
        url.map_err(|error| {
            InvalidValue::single(value, error.problem, Some(error.advice.to_owned()))
        })
    }

    fn write(&self, value: &StoreUrl) -> String {
        quoted(&value.to_string())
    }
}

/// The name of a cluster, with which its keys in the store begin.
pub(super) struct ClusterName;

impl ValueType for ClusterName {
    type Value = String;

    fn allowed(&self) -> String {
        "letters, digits, dots, dashes and underscores, 1 to 32 of them".to_owned()
    }

    fn parse(&self, value: &Spanned<TomlValue>) -> Result<String, Vec<InvalidValue>> {
        let name = text_of(value)?;
        if name.is_empty() {
            Err(InvalidValue::single(value, "is empty", None))
        } else if name.len() > 32 {
            Err(InvalidValue::single(value, "is too long", None))
        } else if let Some(c) = name.chars().find(|&c| !is_name_char(c)) {
            Err(InvalidValue::single(value, format!("contains {c:?}"), None))
        } else {
            Ok(name.to_owned())
        }
    }

    fn write(&self, value: &String) -> String {
        quoted(value)
    }
}

/// The location of a password: a file, or a credential of the service manager.
pub(super) struct PasswordLocation;

impl ValueType for PasswordLocation {
    type Value = PasswordFile;

    fn allowed(&self) -> String {
        "an absolute path, \"credential:NAME\"".to_owned()
    }

    fn parse(&self, value: &Spanned<TomlValue>) -> Result<PasswordFile, Vec<InvalidValue>> {
        let Some(name) = text_of(value)?.strip_prefix(CREDENTIAL) else {
            return AbsolutePath.parse(value).map(PasswordFile::At);
        };
        // The service manager passes a credential as a file of this name, so a leading dot is refused.
        match name.starts_with(|c: char| c != '.') && name.chars().all(is_name_char) {
            true => Ok(PasswordFile::Credential(name.to_owned())),
            false => {
                let problem = "does not name a credential";
                Err(InvalidValue::single(value, problem, None))
            }
        }
    }

    fn write(&self, value: &PasswordFile) -> String {
        match value {
            PasswordFile::At(path) => AbsolutePath.write(path),
            PasswordFile::Credential(name) => quoted(&format!("{CREDENTIAL}{name}")),
        }
    }
}

const CREDENTIAL: &str = "credential:";

fn is_name_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-._".contains(c)
}
