//! What operators ask over HTTP: page, JSON, metrics and `.torrent` files, rendered beside the workers and seldom.

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
use crate::status::page::{self as status, Query};
use crate::status::prometheus as metrics;
use crate::status::report::{Release, StatusReport};
use crate::tracker::access::AccessList;

/// How long figures are shown before they are taken anew. As long, clients may keep what they got.
const FRESH: Duration = Duration::from_secs(5);
const FRESH_SECS: HeaderValue = HeaderValue::from_static("private, max-age=5");

/// How many pages, by sorting, search and number, and `.torrent` files are made ready while the figures are the same, and how
/// many bytes these may have before no more are. Who asks for more may come again: it bounds what a hammering stranger can
/// cost.
const BODIES_MAX: usize = 100;
const BYTES_MAX: usize = 64 << 20;

/// How many requests may wait while something is rendered.
const WAITING_MAX: usize = 1024;

/// The largest `.torrent` file that is handed out, in bytes.
const TORRENT_MAX: u64 = 16 << 20;

/// What the operator decides about views.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Where the page is; `None` for no page.
    pub status_path: Option<String>,
    pub status_access: AccessList,
    /// Whether the page leads to the `.torrent` files.
    pub torrents: bool,
    /// Named in magnet links.
    pub announce_urls: Vec<String>,
    /// Where the metrics are; `None` for none.
    pub metrics_path: Option<String>,
    pub metrics_access: AccessList,
    /// Whether each release has metrics of its own.
    pub per_torrent: bool,
}

/// One view, for someone who may see it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Resource {
    Page(Query),
    Style,
    Json,
    Metrics,
    /// The id in hexadecimal digits, as the page has it.
    Torrent(String),
}

impl Settings {
    /// The view that a path names; `None` if it names none, or none that its sender may see: who may not cannot tell the two
    /// apart.
    pub fn route(
        &self,
        path: &str,
        query: &str,
        from: impl FnOnce() -> Option<IpAddr>,
    ) -> Option<Resource> {
        let may = |access: &AccessList| from().is_some_and(|from| access.admits(from));
        if self.metrics_path.as_deref() == Some(path) {
            return may(&self.metrics_access).then_some(Resource::Metrics);
        }
        let rest = path.strip_prefix(self.status_path.as_deref()?)?;
        let route = match rest {
            "" => Resource::Page(Query::parse(query)),
            ".css" => Resource::Style,
            ".json" => Resource::Json,
            _ => {
                let id = rest.strip_prefix('/')?.strip_suffix(".torrent")?;
                self.torrents.then(|| Resource::Torrent(id.to_owned()))?
            }
        };
        may(&self.status_access).then_some(route)
    }
}

/// Where figures come from.
pub type ReportSource = Box<dyn Fn() -> StatusReport + Send>;

/// Hands requests to the thread that renders. One alone: what many ask at once is rendered once, announces wait for none of
/// it, and if a torrent directory hangs, nothing but this does.
#[derive(Clone)]
pub struct StatusEndpoint {
    jobs: SyncSender<Job>,
}

struct Job {
    settings: Arc<Settings>,
    route: Resource,
    /// The body, or the status that says why there is none.
    reply: oneshot::Sender<Result<Bytes, StatusCode>>,
}

impl StatusEndpoint {
    /// # Errors
    /// If the system has no thread to give.
    pub fn start(source: ReportSource) -> io::Result<Self> {
        let (jobs, waiting) = sync_channel(WAITING_MAX);
        thread::Builder::new()
            .name("views".to_owned())
            .spawn(move || render_all(&source, &waiting))?;
        Ok(Self { jobs })
    }

    pub async fn answer(&self, settings: &Arc<Settings>, route: Resource) -> Response<Full<Bytes>> {
        let (reply, answer) = oneshot::channel();
        let job = Job {
            settings: settings.clone(),
            route: route.clone(),
            reply,
        };
        if self.jobs.try_send(job).is_err() {
            return busy();
        }
        match answer.await {
            Ok(Ok(body)) => response(&route, body),
            Ok(Err(StatusCode::NOT_FOUND)) => {
                plain(StatusCode::NOT_FOUND, "there is no such torrent file\n")
            }
            Ok(Err(_)) | Err(_) => busy(),
        }
    }
}

fn render_all(source: &ReportSource, waiting: &Receiver<Job>) {
    let mut kept: Option<RenderCache> = None;
    for Job {
        settings,
        route,
        reply,
    } in waiting
    {
        kept = kept.filter(RenderCache::is_fresh);
        let kept = kept.get_or_insert_with(|| RenderCache::new(source()));
        // Who route may be gone.
        let _ = reply.send(kept.body(&settings, route));
    }
}

/// The figures of a moment, and what was made of them.
struct RenderCache {
    since: Instant,
    figures: StatusReport,
    /// By id: the figures themselves are for the public and name no file.
    files: HashMap<String, PathBuf>,
    bodies: HashMap<Resource, Bytes>,
}

impl RenderCache {
    fn new(mut figures: StatusReport) -> Self {
        let mut files = HashMap::new();
        for release in &mut figures.releases {
            if let Some(file) = release.file.take() {
                files.extend(release.ids().map(|id| (id.to_owned(), file.clone())));
            }
        }
        Self {
            since: Instant::now(),
            figures,
            files,
            bodies: HashMap::new(),
        }
    }

    fn is_fresh(&self) -> bool {
        self.since.elapsed() < FRESH
    }

    fn body(&mut self, settings: &Settings, route: Resource) -> Result<Bytes, StatusCode> {
        if let Some(body) = self.bodies.get(&route) {
            return Ok(body.clone());
        }
        let bytes: usize = self.bodies.values().map(Bytes::len).sum();
        let full = self.bodies.len() >= BODIES_MAX || bytes >= BYTES_MAX;
        let body = match &route {
            Resource::Json => serde_json::to_vec(&self.figures).unwrap_or_default(),
            Resource::Metrics => metrics::text(&self.figures, settings.per_torrent).into_bytes(),
            Resource::Style => status::STYLE.into(),
            _ if full => return Err(StatusCode::SERVICE_UNAVAILABLE),
            Resource::Page(query) => status::page(&self.figures, settings, query).into_bytes(),
            Resource::Torrent(id) => {
                let file = self.files.get(id).and_then(|file| read_torrent(file, id));
                file.ok_or(StatusCode::NOT_FOUND)?
            }
        };
        let body = Bytes::from(body);
        self.bodies.insert(route, body.clone());
        Ok(body)
    }
}

/// A file is handed out only as what it was listed for: another may have taken its place, or a link to another.
fn read_torrent(path: &Path, id: &str) -> Option<Vec<u8>> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(path)
        .ok()?;
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    let mut bytes = Vec::new();
    file.take(TORRENT_MAX).read_to_end(&mut bytes).ok()?;
    let torrent = Metainfo::parse(&bytes).ok()?.torrent();
    let is_it = torrent.v1.is_some_and(|v1| v1.to_string() == id)
        || torrent.v2.is_some_and(|v2| v2.to_string() == id);
    is_it.then_some(bytes)
}

/// The id under which a release's file is handed out.
pub(super) fn file_id(release: &Release) -> &str {
    release.ids().next().unwrap_or_default()
}

fn response(route: &Resource, body: Bytes) -> Response<Full<Bytes>> {
    let content_type = match route {
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
    set(CONTENT_SECURITY_POLICY, status::POLICY);
    set(X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(REFERRER_POLICY, "no-referrer");
    if let Resource::Torrent(_) = route {
        set(CONTENT_DISPOSITION, "attachment");
    }
    headers.insert(CACHE_CONTROL, FRESH_SECS);
    response
}

fn busy() -> Response<Full<Bytes>> {
    let mut response = plain(
        StatusCode::SERVICE_UNAVAILABLE,
        "server busy, try again later\n",
    );
    response
        .headers_mut()
        .insert(RETRY_AFTER, HeaderValue::from_static("5"));
    response
}

fn plain(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tracker::access::parse_network;

    fn settings() -> Settings {
        let only = |network| AccessList::new(vec![parse_network(network).unwrap()], Vec::new());
        Settings {
            status_path: Some("/status".to_owned()),
            status_access: only("192.0.2.1"),
            torrents: true,
            metrics_path: Some("/metrics".to_owned()),
            metrics_access: only("192.0.2.2"),
            ..Settings::default()
        }
    }

    #[test]
    fn only_who_may_see_a_view_can_ask_for_it() {
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
    fn what_is_switched_off_is_not_there() {
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
            torrents: false,
            ..self::settings()
        };
        assert_eq!(settings.route("/status/ab.torrent", "", from), None);
    }

    #[test]
    fn the_same_is_rendered_once_and_only_so_much_that_is_not() {
        let settings = settings();
        let mut kept = RenderCache::new(StatusReport::default());
        let mut page = |number| {
            kept.body(
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
            BODIES_MAX - 1
        );
        assert!(page(1).is_ok(), "what is there is still given");
        assert!(kept.body(&settings, Resource::Json).is_ok());
        assert!(kept.body(&settings, Resource::Metrics).is_ok());
    }

    #[test]
    fn the_figures_are_shown_without_their_files() {
        let release = Release {
            v1: Some("ab".repeat(20)),
            file: Some("/srv/secret.torrent".into()),
            ..Release::default()
        };
        let mut kept = RenderCache::new(StatusReport {
            releases: vec![release],
            ..StatusReport::default()
        });
        let json = kept.body(&settings(), Resource::Json).unwrap();
        assert!(!String::from_utf8_lossy(&json).contains("/srv"));
        assert_eq!(kept.files.len(), 1);
        let read: StatusReport = serde_json::from_slice(&json).unwrap();
        assert_eq!(read, kept.figures);
    }

    #[test]
    fn a_file_is_given_only_for_what_it_was_listed_for() {
        let directory = std::env::temp_dir().join(format!("tbtt-views-{}", std::process::id()));
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
