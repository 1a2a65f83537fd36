//! Giving up what the daemon does not need any more.

use std::path::{Path, PathBuf};

use crate::cluster::url::StoreUrl;
use crate::config::{Config, RESERVED_FILES};
use crate::log;
use crate::os::privileges::{self, Privileges};
use crate::os::sandbox;

use crate::app::{Exit, Failed, fail};

/// Gives up what the daemon does not need any more, for good, before the first thread and the first stranger's byte.
pub fn enter_confinement(config_file: &Path, trial: bool, config: &Config) -> Result<(), Failed> {
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
    let wanted = u64::from(config.http.max_connections) + RESERVED_FILES;
    if open_files < wanted {
        log::warning(
            "fewer files may be open than max_connections asks for, so there will be fewer connections",
            &[("limit", &open_files), ("wanted", &wanted)],
        );
    }
    if config.daemon.landlock {
        let restricted = sandbox::restrict(&sandbox_settings(config_file, config))
            .map_err(|error| fail(Exit::Internal, "cannot set up the sandbox", &error))?;
        log::notice("sandboxed by landlock", &[("reached", &restricted.reached)]);
        for path in restricted.missing_paths {
            log::warning(
                "missing_paths, and out of reach until a restart",
                &[("path", &path.display())],
            );
        }
    }
    Ok(())
}

fn sandbox_settings(config_file: &Path, config: &Config) -> sandbox::Settings {
    let of_files = std::iter::once(config_file)
        .chain(config.list_files())
        .flat_map(with_target)
        .filter_map(|file| directory_of(&file).map(Path::to_owned));
    let directories = config
        .torrents
        .directories
        .iter()
        .flat_map(|directory| with_target(directory))
        .map(|directory| replaceable(&directory));
    sandbox::Settings {
        read: of_files
            .filter(|path| path.is_dir())
            .chain(directories)
            .chain(for_engine(config))
            .collect(),
        write: config.state.directory.iter().cloned().collect(),
        connect_tcp: config.cluster.url.as_ref().and_then(StoreUrl::tcp_port),
        ..sandbox::Settings::default()
    }
}

/// Where the system keeps whom it trusts, and how it finds out what address a name has: files that come and go by renaming.
const TRUST: &[&str] = &[
    "/etc/ssl",
    "/usr/share/ca-certificates",
    "/usr/local/share/ca-certificates",
];
const NAMES: &[&str] = &[
    "/etc",
    "/run/systemd/resolve",
    "/run/resolvconf",
    "/run/NetworkManager",
];

/// What must be read at each connection to a cluster's engine.
fn for_engine(config: &Config) -> impl Iterator<Item = PathBuf> {
    let url = config.cluster.url.as_ref();
    let trust = url.is_some_and(StoreUrl::tls).then_some(TRUST);
    let names = url.and_then(StoreUrl::name).map(|_| NAMES);
    let paths = trust.into_iter().chain(names).flatten();
    paths.map(PathBuf::from).filter(|path| path.exists())
}

/// A path, and where symbolic links lead from it now: a rule for one does not hold for the other.
fn with_target(path: &Path) -> impl Iterator<Item = PathBuf> {
    let target = path.canonicalize().ok().filter(|target| target != path);
    std::iter::once(path.to_owned()).chain(target)
}

/// Of a name alone, that is where the daemon was started.
fn directory_of(file: &Path) -> Option<&Path> {
    let directory = file.parent()?;
    match directory.as_os_str().is_empty() {
        true => Some(Path::new(".")),
        false => Some(directory),
    }
}

/// What must be reachable for a directory to be: a rule holds for the directory that is there now, so for one that may be
/// replaced, or come later, it must be the nearest one around it. Only not the root, which would be everything.
fn replaceable(directory: &Path) -> PathBuf {
    let around = directory
        .ancestors()
        .skip(1)
        .find(|ancestor| ancestor.is_dir());
    around
        .filter(|ancestor| ancestor.parent().is_some())
        .unwrap_or(directory)
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_may_be_replaced_is_reached_through_the_one_around_it() {
        assert_eq!(replaceable(Path::new("/usr/lib")), Path::new("/usr"));
        assert_eq!(
            replaceable(Path::new("/usr/no such/nor this")),
            Path::new("/usr")
        );
        assert_eq!(
            replaceable(Path::new("/usr")),
            Path::new("/usr"),
            "not all of the root"
        );
        assert_eq!(replaceable(Path::new("/no such")), Path::new("/no such"));
    }

    #[test]
    fn a_file_named_without_its_directory_is_reached_where_it_is() {
        let settings = sandbox_settings(Path::new("tbtt.toml"), &Config::default());
        assert_eq!(settings.read, [Path::new(".")]);
        let settings = sandbox_settings(Path::new("/usr/tbtt.toml"), &Config::default());
        assert_eq!(settings.read, [Path::new("/usr")]);
    }

    #[test]
    fn the_engine_is_reached_and_nothing_else() {
        let settings = |url: &str| {
            let mut config = Config::default();
            config.cluster.url = Some(url.parse().unwrap());
            sandbox_settings(Path::new("/usr/tbtt.toml"), &config)
        };
        let (unix, tcp) = (
            settings("redis+unix:///a"),
            settings("redis://192.0.2.1:7000"),
        );
        assert_eq!((unix.connect_tcp, tcp.connect_tcp), (None, Some(7000)));
        assert_eq!(unix.read, [Path::new("/usr")]);
        assert_eq!(tcp.read, [Path::new("/usr")]);
        assert!(settings("redis://valkey").read.contains(&"/etc".into()));
    }
}
