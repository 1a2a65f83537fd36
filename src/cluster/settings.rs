//! The settings of a node, and the credentials with which it connects to the store.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::cluster::url::StoreUrl;
use crate::os::random::random_bytes;

/// Entries are kept this much longer than a peer's lifetime, because clocks differ.
const SLACK: Duration = Duration::from_secs(120);

/// Maximum length of a password or CA file, in bytes. The rest of a longer file is ignored.
const MAX_FILE_LEN: u64 = 1 << 20;

/// The line that begins a certificate in PEM.
const CERTIFICATE: &[u8] = b"-----BEGIN CERTIFICATE-----";

/// The location of the password.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PasswordFile {
    At(PathBuf),
    /// The name of a credential that the service manager passes.
    Credential(String),
}

/// The settings of a node. They do not change while the daemon runs.
#[derive(Clone, Debug)]
pub struct Settings {
    pub url: StoreUrl,
    /// The prefix of all keys in the store.
    pub name: String,
    /// Empty for the store's default user.
    pub user: String,
    pub password_file: Option<PasswordFile>,
    pub ca_file: Option<PathBuf>,
    /// Time for which a peer is kept after its last announce.
    pub peer_timeout: Duration,
    /// Maximum number of updates in the queue.
    pub queue_capacity: usize,
}

impl Settings {
    /// Returns the time for which a stream keeps an entry.
    pub(super) fn lifetime(&self) -> Duration {
        self.peer_timeout + SLACK
    }
}

/// The password for the store, the certificates by which the store is recognized, and random numbers for the node's
/// identity.
pub struct Credentials {
    pub(super) password: Option<String>,
    /// The CA certificates, in PEM.
    pub(super) ca_certificates: Option<Vec<u8>>,
    /// Random numbers for a node's id, if it has none yet, and for its run.
    pub(super) random: [u64; 2],
}

impl Credentials {
    /// Reads the credentials. Must be called before the process drops root and enters the sandbox.
    ///
    /// # Errors
    /// Returns a message that names the file and the problem.
    pub fn read(settings: &Settings) -> Result<Self, String> {
        let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
        let password = match &settings.password_file {
            None => None,
            Some(PasswordFile::At(path)) => Some(read_password(path)?),
            Some(PasswordFile::Credential(name)) => match credentials {
                Some(directory) => Some(read_password(&directory.join(name))?),
                None => {
                    return Err(format!(
                        "credential {name}: not passed by the service manager; \
                         add LoadCredential={name}:/path to the unit"
                    ));
                }
            },
        };
        let ca_certificates = match &settings.ca_file {
            None => None,
            Some(path) => {
                let pem = read_file(path)?;
                let found = pem.windows(CERTIFICATE.len()).any(|at| at == CERTIFICATE);
                found
                    .then_some(())
                    .ok_or_else(|| format!("{}: contains no PEM certificate", path.display()))?;
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
            ca_certificates,
            random: [random()?, random()?],
        })
    }
}

/// Returns the first line of a file.
fn read_password(path: &Path) -> Result<String, String> {
    let text = String::from_utf8(read_file(path)?)
        .map_err(|_| format!("{}: not UTF-8 text", path.display()))?;
    match text.lines().next() {
        Some(password) if !password.is_empty() => Ok(password.to_owned()),
        _ => Err(format!(
            "{}: the first line is empty; write the password there",
            path.display()
        )),
    }
}

fn read_file(path: &Path) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_FILE_LEN).read_to_end(&mut bytes))
        .map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(bytes)
}
