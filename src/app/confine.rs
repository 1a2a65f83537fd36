//! Confinement: raises the limit of open files, drops root privileges and enters the sandbox.

use std::path::{Path, PathBuf};

use crate::app::context::ConfigSource;
use crate::app::{Exit, Failed, fail};
use crate::cluster::url::StoreUrl;
use crate::config::schema::Config;
use crate::config::settings::RESERVED_FILES;
use crate::log;
use crate::os::privileges::{self, Privileges};
use crate::os::sandbox;

/// Gives up privileges and access that the daemon no longer needs, permanently. Call this before the first thread
/// starts and before the first byte of a client is read.
///
/// # Errors
/// When privileges cannot be dropped, or the kernel rejects the sandbox.
pub fn enter_confinement(source: &ConfigSource, config: &Config) -> Result<(), Failed> {
    // A trial run reads no configuration, so it needs no file that belongs to a user of its own.
    let trial = source.is_trial().then_some("nobody");
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
            "dropped root privileges",
            &[("user", &user), ("uid", &uid), ("gid", &gid)],
        );
    }
    let needed = u64::from(config.http.max_connections) + RESERVED_FILES;
    if open_files < needed {
        log::warning(
            "open-file limit is too low for max_connections; accepting fewer connections",
            &[("limit", &open_files), ("needed", &needed)],
        );
    }
    if config.daemon.landlock {
        let restricted = sandbox::restrict(&sandbox_settings(&source.file, config))
            .map_err(|error| fail(Exit::Internal, "cannot set up the sandbox", &error))?;
        log::notice(
            "entered the Landlock sandbox",
            &[("enforcement", &restricted.enforcement)],
        );
        for path in restricted.missing_paths {
            log::warning(
                "path does not exist; inaccessible in the sandbox until tbtt is restarted",
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
            .chain(for_store(config))
            .collect(),
        write: config.state.directory.iter().cloned().collect(),
        connect_tcp: config.cluster.url.as_ref().and_then(StoreUrl::tcp_port),
        ..sandbox::Settings::default()
    }
}

/// Directories of the system's trusted certificates.
const CERTIFICATES: &[&str] = &[
    "/etc/ssl",
    "/usr/share/ca-certificates",
    "/usr/local/share/ca-certificates",
];

/// Directories of the files that configure name resolution. These files are replaced by renaming, so their directories
/// are needed.
const NAME_RESOLUTION: &[&str] = &[
    "/etc",
    "/run/systemd/resolve",
    "/run/resolvconf",
    "/run/NetworkManager",
];

/// Returns the paths that each connection to the cluster's store reads.
fn for_store(config: &Config) -> impl Iterator<Item = PathBuf> {
    let url = config.cluster.url.as_ref();
    let certificates = url.is_some_and(StoreUrl::tls).then_some(CERTIFICATES);
    let names = url.and_then(StoreUrl::name).map(|_| NAME_RESOLUTION);
    let paths = certificates.into_iter().chain(names).flatten();
    paths.map(PathBuf::from).filter(|path| path.exists())
}

/// Returns a path and, if symbolic links lead elsewhere now, their target: a rule for one of them does not include the
/// other.
fn with_target(path: &Path) -> impl Iterator<Item = PathBuf> {
    let target = path.canonicalize().ok().filter(|target| target != path);
    std::iter::once(path.to_owned()).chain(target)
}

/// Returns the directory of a file: the working directory, if the path is only a name.
fn directory_of(file: &Path) -> Option<&Path> {
    let directory = file.parent()?;
    match directory.as_os_str().is_empty() {
        true => Some(Path::new(".")),
        false => Some(directory),
    }
}

/// Returns the path that must be accessible so that a directory can be replaced or created later. A rule applies to the
/// directory that exists now, so the rule must be for the nearest existing directory above. The root is not used: a
/// rule for it would allow everything.
fn replaceable(directory: &Path) -> PathBuf {
    let above = directory
        .ancestors()
        .skip(1)
        .find(|ancestor| ancestor.is_dir());
    above
        .filter(|ancestor| ancestor.parent().is_some())
        .unwrap_or(directory)
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allows_the_directory_above_a_replaceable_directory() {
        assert_eq!(replaceable(Path::new("/usr/lib")), Path::new("/usr"));
        assert_eq!(
            replaceable(Path::new("/usr/no such/nor this")),
            Path::new("/usr")
        );
        assert_eq!(
            replaceable(Path::new("/usr")),
            Path::new("/usr"),
            "the root is not allowed"
        );
        assert_eq!(replaceable(Path::new("/no such")), Path::new("/no such"));
    }

    #[test]
    fn allows_the_working_directory_for_a_file_name_without_directory() {
        let settings = sandbox_settings(Path::new("tbtt.toml"), &Config::default());
        assert_eq!(settings.read, [Path::new(".")]);
        let settings = sandbox_settings(Path::new("/usr/tbtt.toml"), &Config::default());
        assert_eq!(settings.read, [Path::new("/usr")]);
    }

    #[test]
    fn allows_what_the_store_needs_and_no_more() {
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
