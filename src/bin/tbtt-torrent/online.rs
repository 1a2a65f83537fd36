//! `lint --online`: sends requests to web seeds.

use std::sync::LazyLock;
use std::time::Duration;

use tbtt::metainfo::Details;
use ureq::Agent;
use ureq::http::header::{CONTENT_LENGTH, LOCATION};
use ureq::tls::{RootCerts, TlsConfig};

use crate::{count, urls};

/// Does not follow redirects, because libtorrent's web seeds do not follow them.
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

/// Returns the URL and the length in bytes of each file at a web seed.
pub(crate) fn files(seed: &str, details: &Details<'_>) -> Vec<(String, u64)> {
    let url_of = |file: &tbtt::metainfo::files::FileEntry| {
        let below = file.path.iter().map(|part| part.as_slice());
        let below = below.filter(|_| !details.is_single);
        (urls::of_file(seed, &details.name, below), file.length)
    };
    details.files().map(url_of).collect()
}

/// Sends a HEAD request and compares the length. FTP is not checked.
///
/// # Errors
/// The reason why clients do not get the file, without the URL in front.
pub(crate) fn check(url: &str, length: u64) -> Result<(), String> {
    if !url.to_ascii_lowercase().starts_with("http") {
        return Ok(());
    }
    let response = AGENT
        .head(url)
        .call()
        .map_err(|error| format!("does not respond: {error}"))?;
    let header = |name| {
        let value = response.headers().get(name)?;
        value.to_str().ok()
    };
    let status = response.status();
    if status.is_redirection() {
        let location = header(LOCATION).unwrap_or("an unknown location");
        return Err(format!(
            "redirects to `{location}`, which libtorrent does not follow"
        ));
    }
    if !status.is_success() {
        return Err(format!("responds with {status}"));
    }
    match header(CONTENT_LENGTH).and_then(|length| length.parse::<u64>().ok()) {
        Some(actual) if actual == length => Ok(()),
        Some(actual) => Err(format!("has {} instead of {length}", count(actual, "byte"))),
        None => Err("sends no Content-Length".to_owned()),
    }
}
