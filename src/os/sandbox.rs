//! The sandbox (Landlock): the process can access only the directories in [`Settings`], and open no TCP port or
//! connection that is not in them.
//!
//! UDP and Unix sockets can still be created (the log and the service manager need Unix sockets), and open sockets stay
//! open. The service unit and the AppArmor profile restrict those.

use std::fmt::{self, Display};
use std::path::PathBuf;

/// The access that the daemon needs while it serves.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Settings {
    /// Directories below which files can be read. Directories instead of files, because a rule for a file does not
    /// include the file that an editor puts in its place. A symbolic link that leads outside cannot be followed.
    pub read: Vec<PathBuf>,
    /// Directories below which files can be read, written, created and removed, but not executed.
    pub write: Vec<PathBuf>,
    /// Whether TCP listeners can be created. Those that exist already are not restricted.
    pub bind_tcp: bool,
    /// The only port to which TCP connections can be opened.
    pub connect_tcp: Option<u16>,
}

/// The extent to which the kernel enforces the sandbox.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Enforcement {
    /// All restrictions.
    Full,
    /// The restrictions that this kernel supports: at least those of files, possibly not those of TCP (since Linux 6.7)
    /// and signals (since Linux 6.12).
    Partial,
    /// No restriction, for this reason.
    Nothing(&'static str),
}

impl Display for Enforcement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("full"),
            Self::Partial => {
                f.write_str("partial: this kernel supports only some of the restrictions")
            }
            Self::Nothing(why) => write!(f, "none: {why}"),
        }
    }
}

/// The result of [`restrict`], for the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Restricted {
    pub enforcement: Enforcement,
    /// Paths of the settings that could not be opened. They stay inaccessible, even if they are created later.
    pub missing_paths: Vec<PathBuf>,
}

/// Restricts the calling thread, and all threads that it starts later, permanently. Call this before the first thread
/// is started. The process cannot execute programs afterwards. A directory that a reload adds is inaccessible until a
/// restart.
///
/// An older kernel enforces fewer restrictions, and a kernel without Landlock enforces none.
///
/// # Errors
/// When the kernel supports Landlock, but rejects the rules.
pub fn restrict(settings: &Settings) -> Result<Restricted, RestrictError> {
    imp::restrict(settings)
}

/// Error: the kernel rejected the rules, for this reason.
#[derive(Debug)]
pub struct RestrictError(String);

impl Display for RestrictError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the kernel rejected the Landlock rules: {}", self.0)
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
            enforcement: Enforcement::Nothing("built without Landlock"),
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

    /// The newest version of Landlock that was tested (Linux 6.12). Later versions would forbid connecting to the log's
    /// socket.
    const TESTED: ABI = ABI::V6;

    const READ: BitFlags<AccessFs> = make_bitflags!(AccessFs::{ReadFile | ReadDir});

    /// The access for writing. It excludes the creation of directories, links, sockets and devices: the state is in
    /// regular files, which are written under a temporary name and renamed.
    const WRITE: BitFlags<AccessFs> = make_bitflags!(AccessFs::{
        ReadFile | ReadDir | WriteFile | Truncate | MakeReg | RemoveFile
    });

    pub(super) fn restrict(settings: &Settings) -> Result<Restricted, RestrictError> {
        let mut missing_paths = Vec::new();
        let status = apply(settings, &mut missing_paths)
            .map_err(|error| RestrictError(error.to_string()))?;
        Ok(Restricted {
            enforcement: enforcement(&status),
            missing_paths,
        })
    }

    fn apply(
        settings: &Settings,
        missing_paths: &mut Vec<PathBuf>,
    ) -> Result<RestrictionStatus, RulesetError> {
        let mut handled = Ruleset::default()
            .handle_access(AccessFs::from_all(TESTED))?
            .scope(Scope::from_all(TESTED))?;
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
            access & AccessFs::from_file(TESTED)
        };
        rules.add_rule(PathBeneath::new(opened, access))
    }

    fn enforcement(status: &RestrictionStatus) -> Enforcement {
        match (&status.ruleset, &status.landlock) {
            (RulesetStatus::FullyEnforced, _) => Enforcement::Full,
            (RulesetStatus::PartiallyEnforced, _) => Enforcement::Partial,
            (RulesetStatus::NotEnforced, LandlockStatus::NotEnabled) => Enforcement::Nothing(
                "Landlock is disabled in this kernel; add landlock to lsm= on its command line",
            ),
            (RulesetStatus::NotEnforced, _) => Enforcement::Nothing(
                "this kernel has no Landlock, or a system call filter blocks it",
            ),
        }
    }
}
