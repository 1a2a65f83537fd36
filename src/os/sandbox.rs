//! The daemon shuts itself in (Landlock): only the named directories can be reached, and no TCP unless it is told so.
//!
//! What it does not do: UDP and Unix sockets can be made as before (log and service manager need the latter), and a socket that is open
//! stays so. The unit and the AppArmor profile refuse those.

use std::fmt::{self, Display};
use std::path::PathBuf;

/// What the daemon still needs once it serves.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Settings {
    /// Read beneath these. Directories rather than files: an editor that replaces a file makes one that no rule knows. A symbolic
    /// link that leads out of them cannot be followed.
    pub read: Vec<PathBuf>,
    /// Read, write, create and remove files beneath these, but not run them.
    pub write: Vec<PathBuf>,
    /// TCP listeners will still be made (not those inherited or bound by now).
    pub bind_tcp: bool,
    /// TCP connections will be made to this port, and no other.
    pub connect_tcp: Option<u16>,
}

/// How far the sandbox came.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Enforcement {
    /// All that was asked for.
    Full,
    /// This kernel knows a part of it: files at least, but not always TCP (Linux 6.7) or signals (Linux 6.12).
    Partial,
    /// Nothing, and why.
    Nothing(&'static str),
}

impl Display for Enforcement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("full"),
            Self::Partial => f.write_str("partial: this kernel cannot refuse all"),
            Self::Nothing(why) => write!(f, "none: {why}"),
        }
    }
}

/// What [`restrict`] has to tell the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Restricted {
    pub reached: Enforcement,
    /// Paths of the settings that could not be opened: they stay out of reach, even if they appear later.
    pub missing_paths: Vec<PathBuf>,
}

/// Shuts the calling thread and all threads that it starts later in, for good: to be called before the first is started. No
/// program can be run afterwards. A directory that a reload adds needs a restart to be reached.
///
/// Best effort: an older kernel refuses less, one without Landlock nothing.
///
/// # Errors
/// When the kernel knows Landlock, but did not take the rules.
pub fn restrict(settings: &Settings) -> Result<Restricted, RestrictError> {
    imp::restrict(settings)
}

/// The kernel's reason.
#[derive(Debug)]
pub struct RestrictError(String);

impl Display for RestrictError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the kernel did not take the Landlock rules: {}", self.0)
    }
}

impl std::error::Error for RestrictError {}

#[cfg(not(feature = "landlock"))]
mod imp {
    use super::{Enforcement, RestrictError, Restricted, Settings};

    #[expect(
        clippy::unnecessary_wraps,
        reason = "the same signature as with Landlock"
    )]
    pub(super) fn restrict(_: &Settings) -> Result<Restricted, RestrictError> {
        Ok(Restricted {
            reached: Enforcement::Nothing("built without Landlock"),
            missing_paths: Vec::new(),
        })
    }
}

#[cfg(feature = "landlock")]
mod imp {
    use std::path::{Path, PathBuf};

    use landlock::{
        ABI, Access, AccessFs, AccessNet, BitFlags, LandlockStatus, NetPort, PathBeneath, PathFd,
        RestrictionStatus, Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError,
        RulesetStatus, Scope, make_bitflags,
    };

    use super::{Enforcement, RestrictError, Restricted, Settings};

    /// The newest rules that were tried here (Linux 6.12). Those after it would forbid to connect to the log's socket.
    const KNOWN: ABI = ABI::V6;

    const READ: BitFlags<AccessFs> = make_bitflags!(AccessFs::{ReadFile | ReadDir});

    /// No directories, links, sockets or devices: the state is plain files, written beside and renamed.
    const WRITE: BitFlags<AccessFs> = make_bitflags!(AccessFs::{
        ReadFile | ReadDir | WriteFile | Truncate | MakeReg | RemoveFile
    });

    pub(super) fn restrict(settings: &Settings) -> Result<Restricted, RestrictError> {
        let mut missing_paths = Vec::new();
        let status = apply(settings, &mut missing_paths)
            .map_err(|error| RestrictError(error.to_string()))?;
        Ok(Restricted {
            reached: reached(&status),
            missing_paths,
        })
    }

    fn apply(
        settings: &Settings,
        missing_paths: &mut Vec<PathBuf>,
    ) -> Result<RestrictionStatus, RulesetError> {
        let mut handled = Ruleset::default()
            .handle_access(AccessFs::from_all(KNOWN))?
            .scope(Scope::from_all(KNOWN))?;
        if !settings.bind_tcp {
            handled = handled.handle_access(AccessNet::BindTcp)?;
        }
        handled = handled.handle_access(AccessNet::ConnectTcp)?;
        let mut rules = handled.create()?;
        if let Some(port) = settings.connect_tcp {
            rules = rules.add_rule(NetPort::new(port, AccessNet::ConnectTcp))?;
        }
        for (paths, access) in [(&settings.read, READ), (&settings.write, WRITE)] {
            for path in paths {
                rules = allow(rules, path, access, missing_paths)?;
            }
        }
        rules.restrict_self()
    }

    fn allow(
        rules: RulesetCreated,
        path: &Path,
        access: BitFlags<AccessFs>,
        missing_paths: &mut Vec<PathBuf>,
    ) -> Result<RulesetCreated, RulesetError> {
        let Ok(opened) = PathFd::new(path) else {
            missing_paths.push(path.to_owned());
            return Ok(rules);
        };
        let access = if path.is_dir() {
            access
        } else {
            access & AccessFs::from_file(KNOWN)
        };
        rules.add_rule(PathBeneath::new(opened, access))
    }

    fn reached(status: &RestrictionStatus) -> Enforcement {
        match (&status.ruleset, &status.landlock) {
            (RulesetStatus::FullyEnforced, _) => Enforcement::Full,
            (RulesetStatus::PartiallyEnforced, _) => Enforcement::Partial,
            (RulesetStatus::NotEnforced, LandlockStatus::NotEnabled) => Enforcement::Nothing(
                "Landlock is switched off in this kernel (lsm= on its command line)",
            ),
            (RulesetStatus::NotEnforced, _) => {
                Enforcement::Nothing("this kernel has no Landlock, or a filter hides it")
            }
        }
    }
}
