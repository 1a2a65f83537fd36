//! Giving up root for good, once the sockets and the log are open and before any thread or stranger's byte.

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

/// Who the process is from now on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Privileges {
    /// It never was root: nothing to say.
    NeverHeld,
    /// It was root and is this user.
    Dropped { user: String, uid: u32, gid: u32 },
}

/// Why the process must not go on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PrivilegesError {
    /// Started as root, and the configuration names no user.
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
    /// After all steps root could be had again.
    Regained {
        step: &'static str,
    },
}

impl Display for PrivilegesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoUser => f.write_str(
                "started as root, but no user is configured: set one that owns nothing but the state (Debian's is _tbtt), \
                 or start as that user",
            ),
            Self::UnknownUser { user } => {
                write!(f, "no user \"{user}\" on this machine: create it, or configure another")
            }
            Self::RootUser { user } => {
                write!(f, "user \"{user}\" is root or in root's group: configure one that is not")
            }
            Self::Refused { step, reason } => write!(f, "cannot give up root: {step}: {reason}"),
            Self::Regained { step } => write!(
                f,
                "root was given up, yet {step} brings it back (secure bits or capabilities set by the caller?)"
            ),
        }
    }
}

impl std::error::Error for PrivilegesError {}

/// Becomes `user` irrevocably if the process is root in any of its ids: groups, gid, uid, all three of each, and proves that the
/// way back is shut. Whoever it is, exec gives it no new privileges afterwards, and nobody of its uid can read its memory.
///
/// The groups are those that the user database gives the user, so that an administrator may let it read by group.
/// To be called before threads start: `no_new_privs` holds for the caller and its later threads only.
///
/// # Errors
/// Each is a reason to exit: the process may be half way.
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

    // In this order: without the uid of root the groups could no longer be given up.
    step("initgroups", initgroups(&c_name, user.gid))?;
    step("setresgid", setresgid(user.gid, user.gid, user.gid))?;
    step("setresuid", setresuid(user.uid, user.uid, user.uid))?;

    if step("getgroups", getgroups())?.contains(&ROOT_GROUP) {
        return Err(root_user());
    }
    prove_no_way_back(user.uid, user.gid)?;
    Ok(Privileges::Dropped {
        user: name.to_owned(),
        uid: user.uid.as_raw(),
        gid: user.gid.as_raw(),
    })
}

const ROOT_GROUP: Gid = Gid::from_raw(0);

/// Not read from what the calls returned but tried: capabilities kept by secure bits would show here, too.
fn prove_no_way_back(uid: Uid, gid: Gid) -> Result<(), PrivilegesError> {
    let uids = step("getresuid", getresuid())?;
    let gids = step("getresgid", getresgid())?;
    let all_uids = [uids.real, uids.effective, uids.saved] == [uid; 3];
    let all_gids = [gids.real, gids.effective, gids.saved] == [gid; 3];
    let ways: [(&'static str, bool); 5] = [
        ("an id that stayed", !(all_uids && all_gids)),
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

/// Lets the process open as many files, and so serve as many connections, as its hard limit allows. Returns how many that are now:
/// where a service manager forbids the call, its own limit stands.
///
/// # Errors
/// When even reading the limit fails.
pub fn raise_open_files() -> Result<rlim_t, Errno> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => Ok(hard),
        Err(_) => Ok(soft),
    }
}

/// How many files the process may open now; `None` if the system does not say.
pub fn open_files() -> Option<rlim_t> {
    getrlimit(Resource::RLIMIT_NOFILE)
        .ok()
        .map(|(soft, _)| soft)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_without_a_user_or_as_root_is_refused() {
        assert_eq!(become_user(None), Err(PrivilegesError::NoUser));
        let root = PrivilegesError::RootUser {
            user: "root".to_owned(),
        };
        assert_eq!(become_user(Some("root")), Err(root));
    }

    #[test]
    fn an_unknown_user_is_named() {
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
    fn the_open_file_limit_is_the_hard_one() {
        let raised = raise_open_files().unwrap();
        assert_eq!(
            getrlimit(Resource::RLIMIT_NOFILE).unwrap(),
            (raised, raised)
        );
    }
}
