//! Drops root privileges permanently, after the sockets and the log are opened, and before the first thread starts and
//! the first byte of a client is read.

use std::ffi::CString;
use std::fmt::{self, Display};

use nix::errno::Errno;
use nix::libc::rlim_t;
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{
    Gid, Uid, User, getgroups, getresgid, getresuid, initgroups, setgid, setgroups, setresgid,
    setresuid, setuid,
};

/// The result of dropping privileges.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Privileges {
    /// The process was not root.
    NeverHeld,
    /// The process was root, and is this user now.
    Dropped { user: String, uid: u32, gid: u32 },
}

/// The reason why privileges were not dropped: the process must exit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PrivilegesError {
    /// The process was started as root, and the configuration names no user.
    NoUser,
    UnknownUser {
        user: String,
    },
    /// The user is root, or in root's group.
    RootUser {
        user: String,
    },
    /// The kernel or the user database refused a step.
    Refused {
        step: &'static str,
        reason: Errno,
    },
    /// After all steps, root privileges could be regained.
    Regained {
        step: &'static str,
    },
}

impl Display for PrivilegesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoUser => f.write_str(
                "started as root, but no user is configured; set [daemon] user to a user that owns only the state (in \
                 Debian _tbtt), or start tbtt as that user",
            ),
            Self::UnknownUser { user } => {
                write!(f, "user \"{user}\" does not exist; create it, or set another in [daemon] user")
            }
            Self::RootUser { user } => {
                write!(f, "user \"{user}\" is root or in root's group; set another in [daemon] user")
            }
            Self::Refused { step, reason } => write!(f, "cannot drop root privileges: {step}: {reason}"),
            Self::Regained { step } => write!(
                f,
                "dropped root privileges can be regained by {step}; start tbtt without secure bits and extra capabilities"
            ),
        }
    }
}

impl std::error::Error for PrivilegesError {}

/// If any of the process's user IDs is root, switches permanently to `user`: sets the supplementary groups, and the
/// real, effective and saved group and user IDs, and verifies that root privileges cannot be regained. In any case,
/// exec gives the process no new privileges afterwards, and other processes of its user cannot read its memory.
///
/// The supplementary groups are those of the user in the user database, so that an administrator can grant read access
/// by group. Call this before threads start: `no_new_privs` applies to the calling thread and to threads that it starts
/// later.
///
/// # Errors
/// After any error the process must exit: some of the steps may have been taken.
pub fn irrevocably_drop(user: Option<&str>) -> Result<Privileges, PrivilegesError> {
    let privileges = if holds_root()? {
        become_user(user)?
    } else {
        Privileges::NeverHeld
    };
    step("PR_SET_NO_NEW_PRIVS", prctl::set_no_new_privs())?;
    step("PR_SET_DUMPABLE", prctl::set_dumpable(false))?;
    Ok(privileges)
}

fn holds_root() -> Result<bool, PrivilegesError> {
    let uids = step("getresuid", getresuid())?;
    Ok([uids.real, uids.effective, uids.saved]
        .iter()
        .any(|uid| uid.is_root()))
}

fn become_user(name: Option<&str>) -> Result<Privileges, PrivilegesError> {
    let name = name.ok_or(PrivilegesError::NoUser)?;
    let user = step("reading the user database", User::from_name(name))?.ok_or_else(|| {
        PrivilegesError::UnknownUser {
            user: name.to_owned(),
        }
    })?;
    let root_user = || PrivilegesError::RootUser {
        user: name.to_owned(),
    };
    if user.uid.is_root() || user.gid == ROOT_GROUP {
        return Err(root_user());
    }
    let c_name = CString::new(user.name).map_err(|_| PrivilegesError::UnknownUser {
        user: name.to_owned(),
    })?;

    // The order matters: without the user ID of root, the groups could no longer be changed.
    step("initgroups", initgroups(&c_name, user.gid))?;
    step("setresgid", setresgid(user.gid, user.gid, user.gid))?;
    step("setresuid", setresuid(user.uid, user.uid, user.uid))?;

    if step("getgroups", getgroups())?.contains(&ROOT_GROUP) {
        return Err(root_user());
    }
    verify_irrevocable(user.uid, user.gid)?;
    Ok(Privileges::Dropped {
        user: name.to_owned(),
        uid: user.uid.as_raw(),
        gid: user.gid.as_raw(),
    })
}

const ROOT_GROUP: Gid = Gid::from_raw(0);

/// Verifies that root privileges cannot be regained. The calls are tried, which also detects capabilities that secure
/// bits have kept.
fn verify_irrevocable(uid: Uid, gid: Gid) -> Result<(), PrivilegesError> {
    let uids = step("getresuid", getresuid())?;
    let gids = step("getresgid", getresgid())?;
    let all_uids = [uids.real, uids.effective, uids.saved] == [uid; 3];
    let all_gids = [gids.real, gids.effective, gids.saved] == [gid; 3];
    let ways: [(&'static str, bool); 5] = [
        ("an ID that did not change", !(all_uids && all_gids)),
        ("setuid", setuid(Uid::from_raw(0)).is_ok()),
        ("setresuid", setresuid(uid, Uid::from_raw(0), uid).is_ok()),
        ("setgid", setgid(ROOT_GROUP).is_ok()),
        ("setgroups", setgroups(&[ROOT_GROUP]).is_ok()),
    ];
    match ways.into_iter().find(|(_, open)| *open) {
        Some((step, _)) => Err(PrivilegesError::Regained { step }),
        None => Ok(()),
    }
}

fn step<T>(step: &'static str, result: nix::Result<T>) -> Result<T, PrivilegesError> {
    result.map_err(|reason| PrivilegesError::Refused { step, reason })
}

/// Raises the limit of open files to the hard limit, so that as many connections as possible can be served. Returns the
/// limit in effect: a service manager can forbid the call, and then the soft limit stays.
///
/// # Errors
/// When the limit cannot be read.
pub fn raise_open_files() -> Result<rlim_t, Errno> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => Ok(hard),
        Err(_) => Ok(soft),
    }
}

/// Returns the current limit of open files; `None` if it cannot be read.
pub fn open_files() -> Option<rlim_t> {
    getrlimit(Resource::RLIMIT_NOFILE)
        .ok()
        .map(|(soft, _)| soft)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_root_without_user_and_user_root() {
        assert_eq!(become_user(None), Err(PrivilegesError::NoUser));
        let root = PrivilegesError::RootUser {
            user: "root".to_owned(),
        };
        assert_eq!(become_user(Some("root")), Err(root));
    }

    #[test]
    fn error_names_unknown_user() {
        for user in ["no-such-user-here", "", "nul\0"] {
            let error = become_user(Some(user)).unwrap_err();
            assert!(
                matches!(&error, PrivilegesError::UnknownUser { user: named } if named == user)
                    || matches!(&error, PrivilegesError::Refused { .. } if user.contains('\0')),
                "{error}"
            );
        }
    }

    #[test]
    fn raises_open_file_limit_to_the_hard_limit() {
        let raised = raise_open_files().unwrap();
        assert_eq!(
            getrlimit(Resource::RLIMIT_NOFILE).unwrap(),
            (raised, raised)
        );
    }
}
