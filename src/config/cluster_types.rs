//! Values of the keys of a cluster.

use toml::Spanned;

use super::toml_value::TomlValue;
use super::value_types::{AbsolutePath, InvalidValue, ValueType, quoted, text_of};
use crate::cluster::{PasswordFile, Url};

/// Where a cluster's engine is.
pub(super) struct EngineUrl;

impl ValueType for EngineUrl {
    type Value = Url;

    fn allowed(&self) -> String {
        "the URL of an engine".to_owned()
    }

    fn read(&self, given: &Spanned<TomlValue>) -> Result<Url, Vec<InvalidValue>> {
        let url = text_of(given)?.parse::<Url>();
        url.map_err(|wrong| InvalidValue::one(given, wrong.what, Some(wrong.advice.to_owned())))
    }

    fn write(&self, value: &Url) -> String {
        quoted(&value.to_string())
    }
}

/// What a cluster's keys begin with.
pub(super) struct ClusterName;

impl ValueType for ClusterName {
    type Value = String;

    fn allowed(&self) -> String {
        "letters, digits, dots, dashes and underscores, 1 to 32 of them".to_owned()
    }

    fn read(&self, given: &Spanned<TomlValue>) -> Result<String, Vec<InvalidValue>> {
        let name = text_of(given)?;
        let odd = |c: char| !c.is_ascii_alphanumeric() && !"-._".contains(c);
        if name.is_empty() {
            Err(InvalidValue::one(given, "is empty", None))
        } else if name.len() > 32 {
            Err(InvalidValue::one(given, "is too long", None))
        } else if let Some(c) = name.chars().find(|&c| odd(c)) {
            Err(InvalidValue::one(given, format!("has {c:?}"), None))
        } else {
            Ok(name.to_owned())
        }
    }

    fn write(&self, value: &String) -> String {
        quoted(value)
    }
}

/// Where a password is.
pub(super) struct PasswordPlace;

impl ValueType for PasswordPlace {
    type Value = PasswordFile;

    fn allowed(&self) -> String {
        "an absolute path, \"credential:NAME\"".to_owned()
    }

    fn read(&self, given: &Spanned<TomlValue>) -> Result<PasswordFile, Vec<InvalidValue>> {
        let Some(name) = text_of(given)?.strip_prefix(CREDENTIAL) else {
            return AbsolutePath.read(given).map(PasswordFile::At);
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        match name.starts_with(|c: char| c != '.') && name.chars().all(plain) {
            true => Ok(PasswordFile::Credential(name.to_owned())),
            false => Err(InvalidValue::one(given, "names no credential", None)),
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
