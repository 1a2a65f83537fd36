//! What a node must know and show to join a cluster.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::cluster::url::Url;
use crate::os::random::random_bytes;

/// How much longer than a peer lives an entry is kept: no two clocks are one.
const SLACK: Duration = Duration::from_secs(120);

/// Where a password is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PasswordFile {
    At(PathBuf),
    /// Of the service manager, by this name.
    Credential(String),
}

/// What never changes while the daemon runs.
#[derive(Clone, Debug)]
pub struct Settings {
    pub url: Url,
    /// What the engine's keys begin with.
    pub name: String,
    /// Empty for the engine's default user.
    pub user: String,
    pub password_file: Option<PasswordFile>,
    pub ca_file: Option<PathBuf>,
    /// How long a peer is remembered.
    pub peer_timeout: Duration,
    /// How many changes may wait.
    pub queue: usize,
}

impl Settings {
    /// How long a stream keeps what was told.
    pub(super) fn lifetime(&self) -> Duration {
        self.peer_timeout + SLACK
    }
}

/// What the engine is shown, and what it must show.
pub struct Credentials {
    pub(super) password: Option<String>,
    /// In PEM.
    pub(super) certificates: Option<Vec<u8>>,
    /// Unlike at any other start: a node's id, if it has none yet, and its run.
    pub(super) random: [u64; 2],
}

/// The longest file of either.
const CREDENTIALS_MAX: u64 = 1 << 20;

impl Credentials {
    /// To be called before root and the file system are given up.
    ///
    /// # Errors
    /// Names the file that cannot be used, and says why.
    pub fn read(settings: &Settings) -> Result<Self, String> {
        let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
        let password = match &settings.password_file {
            None => None,
            Some(PasswordFile::At(path)) => Some(read_password(path)?),
            Some(PasswordFile::Credential(name)) => match credentials {
                Some(directory) => Some(read_password(&directory.join(name))?),
                None => {
                    return Err(format!(
                        "credential {name}: the service manager gave none; \
                         add LoadCredential={name}:/path to the unit"
                    ));
                }
            },
        };
        let certificates = match &settings.ca_file {
            None => None,
            Some(path) => {
                let pem = read_file(path)?;
                let some = pem.windows(CERTIFICATE.len()).any(|at| at == CERTIFICATE);
                some.then_some(())
                    .ok_or_else(|| format!("{}: holds no certificate (PEM)", path.display()))?;
                Some(pem)
            }
        };
        let random = || {
            random_bytes()
                .map(u64::from_be_bytes)
                .map_err(|error| format!("cannot generate random numbers: {error}"))
        };
        Ok(Self {
            password,
            certificates,
            random: [random()?, random()?],
        })
    }
}

const CERTIFICATE: &[u8] = b"-----BEGIN CERTIFICATE-----";

fn read_password(path: &Path) -> Result<String, String> {
    let text = String::from_utf8(read_file(path)?)
        .map_err(|_| format!("{}: is not text in UTF-8", path.display()))?;
    match text.lines().next() {
        Some(password) if !password.is_empty() => Ok(password.to_owned()),
        _ => Err(format!("{}: its first line is empty", path.display())),
    }
}

fn read_file(path: &Path) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(CREDENTIALS_MAX).read_to_end(&mut bytes))
        .map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(bytes)
}
