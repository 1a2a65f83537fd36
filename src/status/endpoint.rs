//! The resources for operators over HTTP: page, JSON, metrics and `.torrent` files. A thread of its own renders them.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io::{self, Read};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{
    CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName,
    HeaderValue, REFERRER_POLICY, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Response, StatusCode};
use nix::fcntl::OFlag;
use tokio::sync::oneshot;

use crate::metainfo::Metainfo;
use crate::status::page::{self, PageOptions, Query};
use crate::status::prometheus;
use crate::status::report::StatusReport;
use crate::tracker::access::AccessList;

/// Time for which a report is reused before the next is taken. Clients may keep a response for the same time.
const MAX_AGE: Duration = Duration::from_secs(5);
const MAX_AGE_HEADER: HeaderValue = HeaderValue::from_static("private, max-age=5");

/// Maximum number of bodies that are rendered from the same report: pages, by sort order, search and number, and `.torrent`
/// files. Further requests get 503; JSON, metrics and the style sheet are always served. This bounds the cost of a
/// client that requests very many pages.
const MAX_BODIES: usize = 100;

/// Maximum size of these bodies together, in bytes. No further body is rendered once it is reached.
const MAX_BODY_BYTES: usize = 64 << 20;

/// Maximum number of requests that wait for the thread. Further requests get 503.
const MAX_WAITING: usize = 1024;

/// Maximum size of a `.torrent` file that is served, in bytes.
const MAX_TORRENT_BYTES: u64 = 16 << 20;

/// The operator's settings for the page and the metrics.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The path of the page; `None` for no page.
    pub status_path: Option<String>,
    /// Clients that may see the page, JSON and `.torrent` files.
    pub status_access: AccessList,
    /// Whether `.torrent` files are served and the page links to them.
    pub serve_torrents: bool,
    /// Trackers in the magnet links.
    pub announce_urls: Vec<String>,
    /// The path of the metrics; `None` for no metrics.
    pub metrics_path: Option<String>,
    pub metrics_access: AccessList,
    /// Whether the metrics have series for each release.
    pub per_torrent: bool,
}

/// A resource that the client may see.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Resource {
    Page(Query),
    Style,
    Json,
    Metrics,
    /// A `.torrent` file, by an info-hash of the release in hexadecimal digits.
    Torrent(String),
}

impl Settings {
    /// Returns the resource at a path. Returns `None` both for an unknown path and for a client without access, so that
    /// this client cannot find out whether the resource exists.
    ///
    /// `from` is called only for a known path; it returns the client's address, if that is known.
    pub fn route(
        &self,
        path: &str,
        query: &str,
        from: impl FnOnce() -> Option<IpAddr>,
    ) -> Option<Resource> {
        let is_admitted = |access: &AccessList| from().is_some_and(|from| access.admits(from));
        if self.metrics_path.as_deref() == Some(path) {
            return is_admitted(&self.metrics_access).then_some(Resource::Metrics);
        }
        let rest = path.strip_prefix(self.status_path.as_deref()?)?;
        let resource = match rest {
            "" => Resource::Page(Query::parse(query)),
            ".css" => Resource::Style,
            ".json" => Resource::Json,
            _ => {
                let id = rest.strip_prefix('/')?.strip_suffix(".torrent")?;
                self.serve_torrents
                    .then(|| Resource::Torrent(id.to_owned()))?
            }
        };
        is_admitted(&self.status_access).then_some(resource)
    }

    fn page_options(&self) -> PageOptions<'_> {
        PageOptions {
            path: self.status_path.as_deref().unwrap_or_default(),
            link_torrents: self.serve_torrents,
            announce_urls: &self.announce_urls,
        }
    }
}

/// Takes a report. It is called in the thread that renders.
pub type ReportSource = Box<dyn Fn() -> StatusReport + Send>;

/// Passes requests to the thread that renders. There is only this thread: a resource that many clients request at once is
/// rendered once, announces do not wait for it, and if the file system of a torrent directory hangs, only this thread does.
#[derive(Clone)]
pub struct StatusEndpoint {
    jobs: SyncSender<Job>,
}

struct Job {
    settings: Arc<Settings>,
    resource: Resource,
    /// Takes the body, or the status of the response if there is none.
    reply: oneshot::Sender<Result<Bytes, StatusCode>>,
}

impl StatusEndpoint {
    /// Starts the thread.
    ///
    /// # Errors
    /// If the system cannot create a thread.
    pub fn start(source: ReportSource) -> io::Result<Self> {
        let (jobs, waiting) = sync_channel(MAX_WAITING);
        thread::Builder::new()
            .name("status".to_owned())
            .spawn(move || render_all(&source, &waiting))?;
        Ok(Self { jobs })
    }

    /// Returns the response with a resource. Returns 404 for an unknown torrent, and 503 if a limit is reached.
    pub async fn respond(
        &self,
        settings: &Arc<Settings>,
        resource: Resource,
    ) -> Response<Full<Bytes>> {
        let (reply, body) = oneshot::channel();
        let job = Job {
            settings: settings.clone(),
            resource: resource.clone(),
            reply,
        };
        if self.jobs.try_send(job).is_err() {
            return busy_response();
        }
        match body.await {
            Ok(Ok(body)) => resource_response(&resource, body),
            Ok(Err(StatusCode::NOT_FOUND)) => {
                text_response(StatusCode::NOT_FOUND, "no such torrent file\n")
            }
            Ok(Err(_)) | Err(_) => busy_response(),
        }
    }
}

/// Renders for each request in turn, until the endpoint is dropped.
fn render_all(source: &ReportSource, waiting: &Receiver<Job>) {
    let mut cache: Option<RenderCache> = None;
    for Job {
        settings,
        resource,
        reply,
    } in waiting
    {
        cache = cache.filter(RenderCache::is_fresh);
        let cache = cache.get_or_insert_with(|| RenderCache::new(source()));
        // The client may have closed the connection.
        let _ = reply.send(cache.body(&settings, resource));
    }
}

/// A report and the bodies that were rendered from it.
struct RenderCache {
    taken: Instant,
    report: StatusReport,
    /// The `.torrent` files by info-hash. They are taken out of the report, which is public and has no paths.
    files: HashMap<String, PathBuf>,
    bodies: HashMap<Resource, Bytes>,
}

impl RenderCache {
    fn new(mut report: StatusReport) -> Self {
        let mut files = HashMap::new();
        for release in &mut report.releases {
            if let Some(file) = release.file.take() {
                files.extend(release.ids().map(|id| (id.to_owned(), file.clone())));
            }
        }
        Self {
            taken: Instant::now(),
            report,
            files,
            bodies: HashMap::new(),
        }
    }

    fn is_fresh(&self) -> bool {
        self.taken.elapsed() < MAX_AGE
    }

    /// Returns the body of a resource, or the status of the response if there is none.
    fn body(&mut self, settings: &Settings, resource: Resource) -> Result<Bytes, StatusCode> {
        if let Some(body) = self.bodies.get(&resource) {
            return Ok(body.clone());
        }
        let bytes: usize = self.bodies.values().map(Bytes::len).sum();
        let is_full = self.bodies.len() >= MAX_BODIES || bytes >= MAX_BODY_BYTES;
        let body = match &resource {
            Resource::Json => serde_json::to_vec(&self.report).unwrap_or_default(),
            Resource::Metrics => {
                prometheus::render(&self.report, settings.per_torrent).into_bytes()
            }
            Resource::Style => page::STYLE.into(),
            _ if is_full => return Err(StatusCode::SERVICE_UNAVAILABLE),
            Resource::Page(query) => {
                page::render(&self.report, settings.page_options(), query).into_bytes()
            }
            Resource::Torrent(id) => {
                let file = self.files.get(id).and_then(|file| read_torrent(file, id));
                file.ok_or(StatusCode::NOT_FOUND)?
            }
        };
        let body = Bytes::from(body);
        self.bodies.insert(resource, body.clone());
        Ok(body)
    }
}

/// Reads a `.torrent` file. Returns `None` if it no longer is the torrent with this info-hash: another file, or a link
/// to another file, may have replaced it since it was listed.
fn read_torrent(path: &Path, id: &str) -> Option<Vec<u8>> {
    // Without blocking: opening a FIFO would else wait for a writer.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(path)
        .ok()?;
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    let mut bytes = Vec::new();
    file.take(MAX_TORRENT_BYTES).read_to_end(&mut bytes).ok()?;
    let torrent = Metainfo::parse(&bytes).ok()?.torrent();
    let has_id = torrent.v1.is_some_and(|v1| v1.to_string() == id)
        || torrent.v2.is_some_and(|v2| v2.to_string() == id);
    has_id.then_some(bytes)
}

fn resource_response(resource: &Resource, body: Bytes) -> Response<Full<Bytes>> {
    let content_type = match resource {
        Resource::Page(_) => "text/html; charset=utf-8",
        Resource::Style => "text/css; charset=utf-8",
        Resource::Json => "application/json",
        Resource::Metrics => "text/plain; version=0.0.4; charset=utf-8",
        Resource::Torrent(_) => "application/x-bittorrent",
    };
    let mut response = Response::new(Full::new(body));
    let headers = response.headers_mut();
    let mut set = |name: HeaderName, value| headers.insert(name, HeaderValue::from_static(value));
    set(CONTENT_TYPE, content_type);
    set(CONTENT_SECURITY_POLICY, page::POLICY);
    set(X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(REFERRER_POLICY, "no-referrer");
    if let Resource::Torrent(_) = resource {
        set(CONTENT_DISPOSITION, "attachment");
    }
    headers.insert(CACHE_CONTROL, MAX_AGE_HEADER);
    response
}

fn busy_response() -> Response<Full<Bytes>> {
    let mut response = text_response(
        StatusCode::SERVICE_UNAVAILABLE,
        "server busy, try again later\n",
    );
    response
        .headers_mut()
        .insert(RETRY_AFTER, HeaderValue::from_static("5"));
    response
}

/// Returns a response of plain text.
pub fn text_response(status: StatusCode, text: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::report::Release;

    fn settings() -> Settings {
        let only = |network: &str| AccessList::new(vec![network.parse().unwrap()], Vec::new());
        Settings {
            status_path: Some("/status".to_owned()),
            status_access: only("192.0.2.1/32"),
            serve_torrents: true,
            metrics_path: Some("/metrics".to_owned()),
            metrics_access: only("192.0.2.2/32"),
            ..Settings::default()
        }
    }

    #[test]
    fn routes_only_admitted_clients() {
        let settings = settings();
        let route = |path, last: u8| settings.route(path, "", || Some([192, 0, 2, last].into()));
        for path in [
            "/status",
            "/status.json",
            "/status.css",
            "/status/ab.torrent",
        ] {
            assert!(route(path, 1).is_some(), "{path}");
            assert_eq!(route(path, 2), None, "{path}");
            assert_eq!(settings.route(path, "", || None), None, "{path}");
        }
        assert_eq!(route("/metrics", 2), Some(Resource::Metrics));
        assert_eq!(route("/metrics", 1), None);
        assert_eq!(settings.route("/metrics", "", || None), None);
        for path in [
            "/",
            "/status/",
            "/statu",
            "/status.xml",
            "/status/ab",
            "/metrics/",
            "/a/status",
        ] {
            assert_eq!((route(path, 1), route(path, 2)), (None, None), "{path}");
        }
    }

    #[test]
    fn disabled_resources_have_no_route() {
        let settings = Settings {
            status_path: None,
            metrics_path: None,
            ..Settings::default()
        };
        let from = || Some([192, 0, 2, 1].into());
        for path in ["/status", "/metrics", ".json", ""] {
            assert_eq!(settings.route(path, "", from), None, "{path}");
        }
        let settings = Settings {
            serve_torrents: false,
            ..self::settings()
        };
        assert_eq!(settings.route("/status/ab.torrent", "", from), None);
    }

    #[test]
    fn caches_bodies_and_limits_their_number() {
        let settings = settings();
        let mut cache = RenderCache::new(StatusReport::default());
        let mut page = |number| {
            cache.body(
                &settings,
                Resource::Page(Query {
                    page: number,
                    ..Query::default()
                }),
            )
        };
        let first = page(1).unwrap();
        assert_eq!(page(1).unwrap().as_ptr(), first.as_ptr());
        assert_eq!(
            (2..1000).filter(|&number| page(number).is_ok()).count(),
            MAX_BODIES - 1
        );
        assert!(page(1).is_ok(), "a cached page is still returned");
        assert!(cache.body(&settings, Resource::Json).is_ok());
        assert!(cache.body(&settings, Resource::Metrics).is_ok());
    }

    #[test]
    fn json_has_no_paths() {
        let release = Release {
            v1: Some("ab".repeat(20)),
            file: Some("/srv/secret.torrent".into()),
            ..Release::default()
        };
        let mut cache = RenderCache::new(StatusReport {
            releases: vec![release],
            ..StatusReport::default()
        });
        let json = cache.body(&settings(), Resource::Json).unwrap();
        assert!(!String::from_utf8_lossy(&json).contains("/srv"));
        assert_eq!(cache.files.len(), 1);
        let read: StatusReport = serde_json::from_slice(&json).unwrap();
        assert_eq!(read, cache.report);
    }

    #[test]
    fn serves_a_torrent_file_only_under_its_own_ids() {
        let directory = std::env::temp_dir().join(format!("tbtt-status-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let file = |name: &str| directory.join(name);
        let torrent = include_bytes!("../../tests/torrents/hybrid-small.torrent");
        let ids = Metainfo::parse(torrent).unwrap();
        let (v1, v2) = (ids.v1.unwrap().to_string(), ids.v2.unwrap().to_string());
        std::fs::write(file("a"), torrent).unwrap();
        std::fs::write(file("b"), "d4:infod4:name1:aee").unwrap();
        nix::unistd::mkfifo(&file("c"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        for id in [&v1, &v2] {
            assert_eq!(read_torrent(&file("a"), id).as_deref(), Some(&torrent[..]));
            for other in ["b", "c", "d", "."] {
                assert_eq!(read_torrent(&file(other), id), None, "{other}");
            }
        }
        assert_eq!(read_torrent(&file("a"), &v2[..40]), None);
        std::fs::remove_dir_all(directory).unwrap();
    }
}
