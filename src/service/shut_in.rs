//! Giving up what the daemon does not need any more.

use std::path::{Path, PathBuf};

use crate::config::Config;
use crate::daemon::privileges::{self, Privileges};
use crate::daemon::{log, sandbox};

use super::{Exit, Failed, failed};

/// Gives up what the daemon does not need any more, for good, before the first thread and the first stranger's byte.
pub fn shut_in(config_file: &Path, trial: bool, config: &Config) -> Result<(), Failed> {
    // A trial run that reads no configuration needs nothing that belongs to anyone.
    let trial = trial.then_some("nobody");
    let user = Some(config.daemon.user.as_str())
        .filter(|user| !user.is_empty())
        .or(trial);
    let open_files = privileges::raise_open_files().unwrap_or_default();
    let dropped = privileges::irrevocably_drop(user).map_err(|error| {
        log::error(&error.to_string(), &[]);
        Failed(Exit::NoPermission)
    })?;
    if let Privileges::Dropped { user, uid, gid } = dropped {
        log::notice(
            "gave up root for good",
            &[("user", &user), ("uid", &uid), ("gid", &gid)],
        );
    }
    let wanted = u64::from(config.http.max_connections) + 64;
    if open_files < wanted {
        log::warning(
            "fewer files may be open than max_connections asks for",
            &[("limit", &open_files), ("wanted", &wanted)],
        );
    }
    if config.daemon.sandbox {
        let restricted = sandbox::restrict(&sandbox_settings(config_file, config))
            .map_err(|error| failed(Exit::Internal, "cannot set up the sandbox", &error))?;
        log::notice("sandboxed by landlock", &[("reached", &restricted.reached)]);
        for path in restricted.absent {
            log::warning(
                "absent, and out of reach until a restart",
                &[("path", &path.display())],
            );
        }
    }
    Ok(())
}

fn sandbox_settings(config_file: &Path, config: &Config) -> sandbox::Settings {
    let config_directory = config_file.parent().filter(|directory| directory.is_dir());
    let lists = config.list_files().filter_map(Path::parent);
    let read = config_directory
        .into_iter()
        .chain(config.torrents.directories.iter().map(PathBuf::as_path))
        .chain(lists);
    sandbox::Settings {
        read: read.map(Path::to_owned).collect(),
        ..sandbox::Settings::default()
    }
}
