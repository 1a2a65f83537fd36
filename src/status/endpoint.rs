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
use crate::status::report::{Figures, Release};
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
pub enum Asked {
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
    pub fn asked(
        &self,
        path: &str,
        query: &str,
        from: impl FnOnce() -> Option<IpAddr>,
    ) -> Option<Asked> {
        let may = |access: &AccessList| from().is_some_and(|from| access.admits(from));
        if self.metrics_path.as_deref() == Some(path) {
            return may(&self.metrics_access).then_some(Asked::Metrics);
        }
        let rest = path.strip_prefix(self.status_path.as_deref()?)?;
        let asked = match rest {
            "" => Asked::Page(Query::parse(query)),
            ".css" => Asked::Style,
            ".json" => Asked::Json,
            _ => {
                let id = rest.strip_prefix('/')?.strip_suffix(".torrent")?;
                self.torrents.then(|| Asked::Torrent(id.to_owned()))?
            }
        };
        may(&self.status_access).then_some(asked)
    }
}

/// Where figures come from.
pub type Source = Box<dyn Fn() -> Figures + Send>;

/// Hands requests to the thread that renders. One alone: what many ask at once is rendered once, announces wait for none of
/// it, and if a torrent directory hangs, nothing but this does.
pub struct Views {
    jobs: SyncSender<Job>,
}

struct Job {
    settings: Arc<Settings>,
    asked: Asked,
    /// The body, or the status that says why there is none.
    reply: oneshot::Sender<Result<Bytes, StatusCode>>,
}

impl Views {
    /// # Errors
    /// If the system has no thread to give.
    pub fn start(source: Source) -> io::Result<Self> {
        let (jobs, waiting) = sync_channel(WAITING_MAX);
        thread::Builder::new()
            .name("views".to_owned())
            .spawn(move || render_all(&source, &waiting))?;
        Ok(Self { jobs })
    }

    pub async fn answer(&self, settings: &Arc<Settings>, asked: Asked) -> Response<Full<Bytes>> {
        let (reply, answer) = oneshot::channel();
        let job = Job {
            settings: settings.clone(),
            asked: asked.clone(),
            reply,
        };
        if self.jobs.try_send(job).is_err() {
            return busy();
        }
        match answer.await {
            Ok(Ok(body)) => response(&asked, body),
            Ok(Err(StatusCode::NOT_FOUND)) => {
                plain(StatusCode::NOT_FOUND, "there is no such torrent file\n")
            }
            Ok(Err(_)) | Err(_) => busy(),
        }
    }
}

fn render_all(source: &Source, waiting: &Receiver<Job>) {
    let mut kept: Option<Kept> = None;
    for Job {
        settings,
        asked,
        reply,
    } in waiting
    {
        kept = kept.filter(Kept::is_fresh);
        let kept = kept.get_or_insert_with(|| Kept::new(source()));
        // Who asked may be gone.
        let _ = reply.send(kept.body(&settings, asked));
    }
}

/// The figures of a moment, and what was made of them.
struct Kept {
    since: Instant,
    figures: Figures,
    /// By id: the figures themselves are for the public and name no file.
    files: HashMap<String, PathBuf>,
    bodies: HashMap<Asked, Bytes>,
}

impl Kept {
    fn new(mut figures: Figures) -> Self {
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

    fn body(&mut self, settings: &Settings, asked: Asked) -> Result<Bytes, StatusCode> {
        if let Some(body) = self.bodies.get(&asked) {
            return Ok(body.clone());
        }
        let bytes: usize = self.bodies.values().map(Bytes::len).sum();
        let full = self.bodies.len() >= BODIES_MAX || bytes >= BYTES_MAX;
        let body = match &asked {
            Asked::Json => serde_json::to_vec(&self.figures).unwrap_or_default(),
            Asked::Metrics => metrics::text(&self.figures, settings.per_torrent).into_bytes(),
            Asked::Style => status::STYLE.into(),
            _ if full => return Err(StatusCode::SERVICE_UNAVAILABLE),
            Asked::Page(query) => status::page(&self.figures, settings, query).into_bytes(),
            Asked::Torrent(id) => {
                let file = self.files.get(id).and_then(|file| read_torrent(file, id));
                file.ok_or(StatusCode::NOT_FOUND)?
            }
        };
        let body = Bytes::from(body);
        self.bodies.insert(asked, body.clone());
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

fn response(asked: &Asked, body: Bytes) -> Response<Full<Bytes>> {
    let content_type = match asked {
        Asked::Page(_) => "text/html; charset=utf-8",
        Asked::Style => "text/css; charset=utf-8",
        Asked::Json => "application/json",
        Asked::Metrics => "text/plain; version=0.0.4; charset=utf-8",
        Asked::Torrent(_) => "application/x-bittorrent",
    };
    let mut response = Response::new(Full::new(body));
    let headers = response.headers_mut();
    let mut set = |name: HeaderName, value| headers.insert(name, HeaderValue::from_static(value));
    set(CONTENT_TYPE, content_type);
    set(CONTENT_SECURITY_POLICY, status::POLICY);
    set(X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(REFERRER_POLICY, "no-referrer");
    if let Asked::Torrent(_) = asked {
        set(CONTENT_DISPOSITION, "attachment");
    }
    headers.insert(CACHE_CONTROL, FRESH_SECS);
    response
}

fn busy() -> Response<Full<Bytes>> {
    let mut response = plain(
        StatusCode::SERVICE_UNAVAILABLE,
        "too much was asked at once; come again\n",
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
        let asked = |path, last: u8| settings.asked(path, "", || Some([192, 0, 2, last].into()));
        for path in [
            "/status",
            "/status.json",
            "/status.css",
            "/status/ab.torrent",
        ] {
            assert!(asked(path, 1).is_some(), "{path}");
            assert_eq!(asked(path, 2), None, "{path}");
            assert_eq!(settings.asked(path, "", || None), None, "{path}");
        }
        assert_eq!(asked("/metrics", 2), Some(Asked::Metrics));
        assert_eq!(asked("/metrics", 1), None);
        assert_eq!(settings.asked("/metrics", "", || None), None);
        for path in [
            "/",
            "/status/",
            "/statu",
            "/status.xml",
            "/status/ab",
            "/metrics/",
            "/a/status",
        ] {
            assert_eq!((asked(path, 1), asked(path, 2)), (None, None), "{path}");
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
            assert_eq!(settings.asked(path, "", from), None, "{path}");
        }
        let settings = Settings {
            torrents: false,
            ..self::settings()
        };
        assert_eq!(settings.asked("/status/ab.torrent", "", from), None);
    }

    #[test]
    fn the_same_is_rendered_once_and_only_so_much_that_is_not() {
        let settings = settings();
        let mut kept = Kept::new(Figures::default());
        let mut page = |number| {
            kept.body(
                &settings,
                Asked::Page(Query {
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
        assert!(kept.body(&settings, Asked::Json).is_ok());
        assert!(kept.body(&settings, Asked::Metrics).is_ok());
    }

    #[test]
    fn the_figures_are_shown_without_their_files() {
        let release = Release {
            v1: Some("ab".repeat(20)),
            file: Some("/srv/secret.torrent".into()),
            ..Release::default()
        };
        let mut kept = Kept::new(Figures {
            releases: vec![release],
            ..Figures::default()
        });
        let json = kept.body(&settings(), Asked::Json).unwrap();
        assert!(!String::from_utf8_lossy(&json).contains("/srv"));
        assert_eq!(kept.files.len(), 1);
        let read: Figures = serde_json::from_slice(&json).unwrap();
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
