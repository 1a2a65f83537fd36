//! Web seeds, asked whether they have the files.

use std::sync::LazyLock;
use std::time::Duration;

use tbtt::metainfo::Details;
use ureq::Agent;
use ureq::http::header::{CONTENT_LENGTH, LOCATION};
use ureq::tls::{RootCerts, TlsConfig};

use crate::urls;

/// One that follows nothing, as libtorrent's web seeds do not.
static AGENT: LazyLock<Agent> = LazyLock::new(|| {
    let tls = TlsConfig::builder().root_certs(RootCerts::PlatformVerifier);
    Agent::config_builder()
        .user_agent(concat!("tbtt-torrent/", env!("CARGO_PKG_VERSION")))
        .tls_config(tls.build())
        .max_redirects(0)
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(30)))
        .build()
        .into()
});

/// The URL and length that a web seed should have of each file.
pub(crate) fn files(seed: &str, details: &Details<'_>) -> Vec<(String, u64)> {
    let of_file = |file: &tbtt::metainfo::files::FileEntry| {
        let below = file.path.iter().map(|part| part.as_slice());
        let below = below.filter(|_| !details.is_single);
        (urls::of_file(seed, &details.name, below), file.length)
    };
    details.files().map(of_file).collect()
}

/// What is wrong at a URL, if anything is.
pub(crate) fn ask(url: &str, length: u64) -> Result<(), String> {
    if url.starts_with("ftp:") {
        return Ok(());
    }
    let answer = AGENT
        .head(url)
        .call()
        .map_err(|error| format!("cannot be asked: {error}"))?;
    let header = |name| {
        answer
            .headers()
            .get(name)
            .and_then(|value| value.to_str().ok())
    };
    let status = answer.status();
    if status.is_redirection() {
        let place = header(LOCATION).unwrap_or("nowhere");
        return Err(format!(
            "redirects to `{place}`, which libtorrent does not follow"
        ));
    }
    if !status.is_success() {
        return Err(format!("is answered with {status}"));
    }
    match header(CONTENT_LENGTH).and_then(|length| length.parse::<u64>().ok()) {
        Some(there) if there == length => Ok(()),
        Some(there) => Err(format!("has {there} bytes instead of {length}")),
        None => Err("does not say how long it is".to_owned()),
    }
}
