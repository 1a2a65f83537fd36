//! The status page: the report as HTML without scripts. The query selects order, search and page.

use std::cmp::Reverse;
use std::fmt::{self, Display};

use crate::cluster::report::ClusterState;
use crate::status::chart::write_charts;
use crate::status::format::{
    ByteSize, Grouped, HtmlEscaped, Rounded, Span, decode_form_value, percent_encode,
};
use crate::status::report::{Release, ReleaseHealth, StatusReport};
use crate::utc::{UnixSecs, Utc};

/// The page's style sheet. It is a resource of its own, so that [`POLICY`] can forbid inline styles.
pub const STYLE: &str = include_str!("page.css");

/// The page's Content-Security-Policy: no scripts, and nothing is loaded except the style sheet. If markup in a
/// torrent's name were not escaped, the browser would still not run it.
pub const POLICY: &str = "default-src 'none'; style-src 'self'; img-src data:; form-action 'self'; base-uri 'none'; \
                          frame-ancestors 'none'";

/// Number of releases on a page.
const PAGE_ROWS: usize = 100;

/// Maximum length of a search, in characters. Further characters are ignored.
const MAX_SEARCH: usize = 100;

/// The query of a page: which releases it shows, and in which order.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Query {
    pub sort: Sort,
    /// Whether the order is the reverse of the column's default.
    pub reversed: bool,
    pub search: String,
    /// Page number; the first page is 1.
    pub page: usize,
}

/// A column to sort by. By default, names are sorted from A to Z and numbers from the largest; the column `LastSeed`
/// has the releases without a seeder first.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Sort {
    #[default]
    Name,
    Size,
    Seeders,
    Leechers,
    Downloads,
    LastSeed,
}

impl Sort {
    const ALL: [Self; 6] = [
        Self::Name,
        Self::Size,
        Self::Seeders,
        Self::Leechers,
        Self::Downloads,
        Self::LastSeed,
    ];

    /// Returns the column's name in a query.
    fn key(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Size => "size",
            Self::Seeders => "seeders",
            Self::Leechers => "leechers",
            Self::Downloads => "downloads",
            Self::LastSeed => "last_seed",
        }
    }

    /// Returns the column's heading.
    fn title(self) -> &'static str {
        match self {
            Self::Name => "Name",
            Self::Size => "Size",
            Self::Seeders => "Seeders",
            Self::Leechers => "Leechers",
            Self::Downloads => "Downloads",
            Self::LastSeed => "Last seeded",
        }
    }

    /// Returns whether the column's default order is ascending.
    fn is_ascending_by_default(self) -> bool {
        matches!(self, Self::Name | Self::LastSeed)
    }
}

impl Query {
    /// Parses the query of a URL. Unknown keys and invalid values are ignored: the page is shown anyway.
    pub fn parse(query: &str) -> Self {
        let mut parsed = Self {
            page: 1,
            ..Self::default()
        };
        let mut order = String::new();
        for pair in query.split('&') {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = decode_form_value(value);
            match key {
                "sort" => {
                    let sort = Sort::ALL.into_iter().find(|sort| sort.key() == value);
                    parsed.sort = sort.unwrap_or_default();
                }
                "order" => order = value,
                "search" => parsed.search = value.trim().chars().take(MAX_SEARCH).collect(),
                "page" => parsed.page = value.parse().unwrap_or(1).max(1),
                _ => {}
            }
        }
        parsed.reversed = match order.as_str() {
            "asc" => !parsed.sort.is_ascending_by_default(),
            "desc" => parsed.sort.is_ascending_by_default(),
            _ => false,
        };
        parsed
    }

    fn is_ascending(&self) -> bool {
        self.sort.is_ascending_by_default() != self.reversed
    }

    fn order(&self) -> &'static str {
        if self.is_ascending() { "asc" } else { "desc" }
    }

    /// Returns the query as a relative URL.
    fn link(&self) -> String {
        let mut link = format!("?sort={}&order={}", self.sort.key(), self.order());
        if !self.search.is_empty() {
            link += &format!("&search={}", percent_encode(&self.search));
        }
        if self.page > 1 {
            link += &format!("&page={}", self.page);
        }
        link
    }

    /// Returns all releases that match the search, in order.
    fn select<'a>(&self, releases: &'a [Release]) -> Vec<&'a Release> {
        let words: Vec<_> = self
            .search
            .split_whitespace()
            .map(str::to_lowercase)
            .collect();
        // A shorter word may match the start of an unrelated ID by chance.
        let is_id_prefix = |id: &str, word: &str| word.len() >= 8 && id.starts_with(word);
        let matches = |release: &&Release| {
            if words.is_empty() {
                return true;
            }
            let name = release.name.to_lowercase();
            words
                .iter()
                .all(|word| name.contains(word) || release.ids().any(|id| is_id_prefix(id, word)))
        };
        let mut found: Vec<_> = releases.iter().filter(matches).collect();
        // The report lists releases by name, and a stable sort keeps that order among equals.
        match self.sort {
            Sort::Name => {}
            Sort::Size => found.sort_by_key(|release| Reverse(release.size)),
            Sort::Seeders => found.sort_by_key(|release| Reverse(release.seeders)),
            Sort::Leechers => found.sort_by_key(|release| Reverse(release.leechers)),
            Sort::Downloads => found.sort_by_key(|release| Reverse(release.downloads)),
            Sort::LastSeed => found.sort_by_key(|release| (release.health, release.last_seed)),
        }
        if self.reversed {
            found.reverse();
        }
        found
    }
}

/// The settings that the page needs.
#[derive(Clone, Copy, Debug)]
pub struct PageOptions<'a> {
    /// The path of the page.
    pub path: &'a str,
    /// Whether the page links to the `.torrent` files.
    pub link_torrents: bool,
    /// Trackers in the magnet links.
    pub announce_urls: &'a [String],
}

/// Renders the page.
pub fn render(report: &StatusReport, options: PageOptions<'_>, query: &Query) -> String {
    StatusPage {
        report,
        options,
        query,
    }
    .to_string()
}

struct StatusPage<'a> {
    report: &'a StatusReport,
    options: PageOptions<'a>,
    query: &'a Query,
}

impl Display for StatusPage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let base = self.base();
        let report = self.report;
        write!(
            f,
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <title>BitTorrent tracker: status</title>\n\
             <link rel=\"stylesheet\" href=\"{base}.css\">\n<link rel=\"icon\" href=\"data:,\">\n</head>\n<body>\n\
             <header>\n<h1>BitTorrent tracker</h1>\n<p>As of {}, running since {}.</p>\n</header>\n<main>\n",
            time(report.now),
            time(report.started),
        )?;
        self.write_totals(f)?;
        self.write_cluster(f)?;
        self.write_health(f)?;
        write_charts(f, &report.history)?;
        self.write_releases(f)?;
        write!(
            f,
            "</main>\n<footer>tbtt {}. Also available as <a href=\"{base}.json\">JSON</a>.</footer>\n</body>\n</html>\n",
            HtmlEscaped(&report.version)
        )
    }
}

impl StatusPage<'_> {
    /// Returns the last segment of the page's path. Links relative to it also work behind a proxy that serves the page at
    /// another path.
    fn base(&self) -> HtmlEscaped<'_> {
        HtmlEscaped(self.options.path.rsplit('/').next().unwrap_or_default())
    }

    fn write_totals(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let StatusReport {
            totals, counters, ..
        } = self.report;
        let counter = |name| Grouped(counters.get(name).copied().unwrap_or_default());
        let by_family = |v4, v6| format!("{} IPv4, {} IPv6", Grouped(v4), Grouped(v6));
        f.write_str("<dl class=\"totals\">\n")?;
        let mut total = |title: &str, value: &dyn Display, detail: &dyn Display| {
            writeln!(
                f,
                "<div><dt>{title}</dt><dd>{value}</dd><dd>{detail}</dd></div>"
            )
        };
        let (leechers_v4, leechers_v6) = (
            totals.peers_ipv4.saturating_sub(totals.seeders_ipv4),
            totals.peers_ipv6.saturating_sub(totals.seeders_ipv6),
        );
        let listed = format!("{} listed", Grouped(self.report.releases.len() as u64));
        let by_protocol =
            |http, udp| format!("{} HTTP, {} UDP since start", counter(http), counter(udp));
        let per_second = Rounded(self.report.announces_per_second);
        total("Torrents", &Grouped(totals.torrents), &listed)?;
        total(
            "Seeders",
            &Grouped(totals.seeders),
            &by_family(totals.seeders_ipv4, totals.seeders_ipv6),
        )?;
        total(
            "Leechers",
            &Grouped(totals.leechers),
            &by_family(leechers_v4, leechers_v6),
        )?;
        total(
            "Announces per second",
            &per_second,
            &by_protocol("http_announces", "udp_announces"),
        )?;
        f.write_str("</dl>\n")
    }

    fn write_cluster(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(cluster) = &self.report.cluster else {
            return Ok(());
        };
        let alarm = match cluster.state {
            ClusterState::Disconnected => " class=\"alarm\"",
            ClusterState::CatchingUp | ClusterState::Joined => "",
        };
        writeln!(
            f,
            "<p{alarm}>Cluster: {}, {} other trackers, {:.1} s behind, {} changes waiting to be sent.</p>",
            cluster.state.as_str(),
            cluster.nodes.len(),
            cluster.lag_seconds,
            Grouped(cluster.queue_length)
        )
    }

    fn write_health(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |health| {
            self.report
                .releases
                .iter()
                .filter(|release| release.health == health)
                .count()
        };
        let (never, lost) = (
            count(ReleaseHealth::NeverSeeded),
            count(ReleaseHealth::LostSeeds),
        );
        if never + lost > 0 {
            writeln!(
                f,
                "<p class=\"alarm\"><a href=\"?sort=last_seed&amp;order=asc\">Without a seeder</a>: \
                 {never} never had one, {lost} lost the last one.</p>"
            )?;
        }
        Ok(())
    }

    fn write_releases(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let query = self.query;
        let found = query.select(&self.report.releases);
        let pages = found.len().div_ceil(PAGE_ROWS).max(1);
        let number = query.page.clamp(1, pages);
        writeln!(
            f,
            "<form role=\"search\">\n<label for=\"search\">Search names and IDs</label>\n\
             <input type=\"search\" id=\"search\" name=\"search\" maxlength=\"{MAX_SEARCH}\" value=\"{}\">\n\
             <input type=\"hidden\" name=\"sort\" value=\"{}\">\n\
             <input type=\"hidden\" name=\"order\" value=\"{}\">\n<button>Search</button>\n</form>",
            HtmlEscaped(&query.search),
            query.sort.key(),
            query.order()
        )?;
        if found.is_empty() {
            let text = if query.search.is_empty() {
                "No torrent is listed."
            } else {
                "No torrent matches the search."
            };
            return writeln!(f, "<p>{text}</p>");
        }
        writeln!(f, "<table role=\"table\">\n<thead>\n<tr role=\"row\">")?;
        Sort::ALL
            .into_iter()
            .try_for_each(|sort| self.write_heading(f, sort))?;
        writeln!(f, "</tr>\n</thead>\n<tbody>")?;
        let rows = found.iter().skip((number - 1) * PAGE_ROWS).take(PAGE_ROWS);
        rows.into_iter()
            .try_for_each(|release| self.write_row(f, release))?;
        writeln!(f, "</tbody>\n</table>")?;
        if pages > 1 {
            self.write_page_links(f, number, pages)?;
        }
        Ok(())
    }

    fn write_heading(&self, f: &mut fmt::Formatter<'_>, sort: Sort) -> fmt::Result {
        let is_current = self.query.sort == sort;
        let (state, arrow) = match (is_current, self.query.is_ascending()) {
            (false, _) => ("none", ""),
            (true, true) => ("ascending", " \u{25b2}"),
            (true, false) => ("descending", " \u{25bc}"),
        };
        let link = Query {
            sort,
            reversed: is_current && !self.query.reversed,
            search: self.query.search.clone(),
            page: 1,
        };
        writeln!(
            f,
            "<th role=\"columnheader\" scope=\"col\" aria-sort=\"{state}\"><a href=\"{}\">{}{arrow}</a></th>",
            HtmlEscaped(&link.link()),
            sort.title()
        )
    }

    fn write_row(&self, f: &mut fmt::Formatter<'_>, release: &Release) -> fmt::Result {
        write!(
            f,
            "<tr role=\"row\"><th role=\"rowheader\" scope=\"row\"><bdi>{}</bdi> \
             <span class=\"get\"><a href=\"{}\">magnet</a>",
            HtmlEscaped(&release.name),
            HtmlEscaped(&magnet(release, self.options.announce_urls))
        )?;
        if self.options.link_torrents {
            write!(
                f,
                " <a href=\"{}/{}.torrent\">torrent</a>",
                self.base(),
                release.id()
            )?;
        }
        f.write_str(" <details><summary>IDs</summary>")?;
        for (version, id) in [("v1", &release.v1), ("v2", &release.v2)] {
            if let Some(id) = id {
                write!(f, " <code>{version} {id}</code>")?;
            }
        }
        f.write_str("</details></span></th>")?;
        let mut cell = |sort: Sort, value: &dyn Display| {
            write!(
                f,
                "<td role=\"cell\" data-label=\"{}\">{value}</td>",
                sort.title()
            )
        };
        cell(Sort::Size, &ByteSize(release.size))?;
        cell(Sort::Seeders, &Grouped(release.seeders.into()))?;
        cell(Sort::Leechers, &Grouped(release.leechers.into()))?;
        cell(Sort::Downloads, &Grouped(release.downloads.into()))?;
        cell(
            Sort::LastSeed,
            &LastSeed {
                release,
                now: self.report.now,
            },
        )?;
        writeln!(f, "</tr>")
    }

    fn write_page_links(
        &self,
        f: &mut fmt::Formatter<'_>,
        number: usize,
        pages: usize,
    ) -> fmt::Result {
        let link = |page: usize, title: &str| {
            let query = Query {
                page,
                ..self.query.clone()
            };
            format!("<a href=\"{}\">{title}</a> ", HtmlEscaped(&query.link()))
        };
        f.write_str("<nav aria-label=\"Pages\">\n")?;
        if number > 1 {
            f.write_str(&(link(1, "First") + &link(number - 1, "Previous")))?;
        }
        write!(f, "<span>Page {number} of {pages}</span> ")?;
        if number < pages {
            f.write_str(&(link(number + 1, "Next") + &link(pages, "Last")))?;
        }
        f.write_str("\n</nav>\n")
    }
}

/// Returns the magnet link, with which a client can download a release without its `.torrent` file (BEP 9, BEP 52).
fn magnet(release: &Release, announce_urls: &[String]) -> String {
    let v1 = release.v1.iter().map(|v1| format!("xt=urn:btih:{v1}"));
    // The ID is a multihash: 12 is SHA-256, 20 its length of 32 bytes in hexadecimal.
    let v2 = release.v2.iter().map(|v2| format!("xt=urn:btmh:1220{v2}"));
    let name = format!("dn={}", percent_encode(&release.name));
    let trackers = announce_urls
        .iter()
        .map(|url| format!("tr={}", percent_encode(url)));
    let parts: Vec<_> = v1.chain(v2).chain([name]).chain(trackers).collect();
    format!("magnet:?{}", parts.join("&"))
}

/// Formats when a release last had a seeder.
struct LastSeed<'a> {
    release: &'a Release,
    now: UnixSecs,
}

impl Display for LastSeed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.release.health, self.release.last_seed) {
            (ReleaseHealth::Seeded, _) => f.write_str("now"),
            (ReleaseHealth::LostSeeds, Some(last)) => write!(
                f,
                "<time class=\"none\" datetime=\"{}\">{} ago</time>",
                Utc::from_unix_secs(last).iso(),
                Span(self.now.saturating_sub(last))
            ),
            _ => f.write_str("<span class=\"none\">never</span>"),
        }
    }
}

/// Formats a time for people, and in an attribute for programs.
fn time(at: UnixSecs) -> String {
    let utc = Utc::from_unix_secs(at);
    format!("<time datetime=\"{}\">{utc}</time>", utc.iso())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef01234567";

    fn release(name: &str, seeders: u32, last_seed: Option<UnixSecs>) -> Release {
        Release {
            name: name.to_owned(),
            v1: Some(ID.to_owned()),
            seeders,
            last_seed,
            health: ReleaseHealth::new(seeders, last_seed),
            ..Release::default()
        }
    }

    const OPTIONS: PageOptions<'_> = PageOptions {
        path: "/a/status",
        link_torrents: true,
        announce_urls: &[],
    };

    fn render_with(report: &StatusReport, query: &str) -> String {
        render(report, OPTIONS, &Query::parse(query))
    }

    fn names(releases: &[Release], query: &str) -> Vec<String> {
        let found = Query::parse(query).select(releases);
        found.iter().map(|release| release.name.clone()).collect()
    }

    #[test]
    fn escapes_names() {
        let hostile = "<script>alert(1)</script>\"'&";
        let report = StatusReport {
            version: hostile.to_owned(),
            releases: vec![release(hostile, 1, None)],
            ..StatusReport::default()
        };
        let page = render_with(&report, &format!("search={}", percent_encode("<script>")));
        assert!(
            !page.contains("<script") && !page.contains("</script"),
            "{page}"
        );
        assert!(page.contains("<bdi>&lt;script&gt;alert(1)&lt;/script&gt;&quot;&#39;&amp;</bdi>"));
        assert!(page.contains("dn=%3Cscript%3Ealert%281%29%3C%2Fscript%3E%22%27%26\""));
        assert!(page.contains(" value=\"&lt;script&gt;\""));
        assert!(page.contains("?sort=size&amp;order=desc&amp;search=%3Cscript%3E\""));
    }

    #[test]
    fn sorts_columns_in_both_orders() {
        let releases = [
            release("a", 2, Some(9)),
            release("b", 0, Some(7)),
            release("c", 5, Some(9)),
            release("d", 0, None),
            release("e", 0, Some(5)),
        ];
        for (query, expected) in [
            ("", "abcde"),
            ("sort=name&order=desc", "edcba"),
            ("sort=seeders", "cabde"),
            ("sort=seeders&order=desc", "cabde"),
            ("sort=seeders&order=asc", "edbac"),
            ("sort=last_seed", "debac"),
            ("sort=last_seed&order=desc", "cabed"),
            ("sort=nonsense&order=nonsense", "abcde"),
        ] {
            assert_eq!(names(&releases, query).concat(), expected, "{query}");
        }
    }

    #[test]
    fn search_finds_names_with_all_words_and_id_prefixes() {
        let mut releases =
            ["Debian 12 amd64", "Debian 13 amd64", "Übung 13"].map(|name| release(name, 0, None));
        releases[2].v1 = Some("fe".repeat(20));
        for (query, expected) in [
            ("search=debian", "Debian 12 amd64,Debian 13 amd64"),
            ("search=AMD+13", "Debian 13 amd64"),
            ("search=%C3%9Cbung", "Übung 13"),
            ("search=%fF%%c3%9cb", ""),
            ("search=FEfefefe", "Übung 13"),
            ("search=fefefef", ""),
            ("search=123456789", ""),
            ("search=+", "Debian 12 amd64,Debian 13 amd64,Übung 13"),
        ] {
            assert_eq!(names(&releases, query).join(","), expected, "{query}");
        }
        assert_eq!(
            Query::parse(&format!("search={}", "ä".repeat(999)))
                .search
                .chars()
                .count(),
            MAX_SEARCH
        );
    }

    #[test]
    fn splits_releases_into_linked_pages() {
        let releases = (0..201).map(|number| release(&format!("r{number:03}"), 0, None));
        let report = StatusReport {
            releases: releases.collect(),
            ..StatusReport::default()
        };
        for (query, first, last, links) in [
            ("", "r000", "r099", "Next Last"),
            ("page=2", "r100", "r199", "First Previous Next Last"),
            ("page=3", "r200", "r200", "First Previous"),
            ("page=99999999999999999999", "r000", "r099", "Next Last"),
            ("page=4000", "r200", "r200", "First Previous"),
            ("page=0", "r000", "r099", "Next Last"),
            ("search=r1", "r100", "r199", ""),
        ] {
            let page = render_with(&report, query);
            let rows: Vec<_> = page.split("<bdi>").skip(1).map(|row| &row[..4]).collect();
            assert_eq!((rows[0], rows[rows.len() - 1]), (first, last), "{query}");
            let nav = page.split_once("<nav").map_or("", |(_, nav)| nav);
            let shown: Vec<_> = ["First", "Previous", "Next", "Last"]
                .into_iter()
                .filter(|link| nav.contains(&format!(">{link}</a>")))
                .collect();
            assert_eq!(shown.join(" "), links, "{query}");
        }
        assert!(
            render_with(&report, "page=2&sort=size")
                .contains("href=\"?sort=size&amp;order=desc&amp;page=3\">Next")
        );
    }

    #[test]
    fn reports_releases_without_a_seeder() {
        let mut report = StatusReport {
            now: 10_000,
            releases: vec![release("a", 1, Some(10_000))],
            ..StatusReport::default()
        };
        let healthy = render_with(&report, "");
        assert!(
            healthy.contains(">now</td>") && !healthy.contains("Without a seeder"),
            "{healthy}"
        );
        report.releases.push(release("b", 0, Some(1000)));
        report.releases.push(release("c", 0, None));
        let page = render_with(&report, "");
        for part in [
            "1 never had one, 1 lost the last one",
            "datetime=\"1970-01-01T00:16:40Z\">2 h ago</time>",
            ">never</span>",
        ] {
            assert!(page.contains(part), "{part} in {page}");
        }
        assert!(render_with(&StatusReport::default(), "").contains("No torrent is listed."));
    }

    #[test]
    fn links_are_relative_to_the_page() {
        let report = StatusReport {
            releases: vec![release("a", 0, None)],
            ..StatusReport::default()
        };
        let page = render_with(&report, "");
        for link in ["status.css", "status.json", &format!("status/{ID}.torrent")] {
            assert!(
                page.contains(&format!("href=\"{link}\"")),
                "{link} in {page}"
            );
        }
        let without_torrents = PageOptions {
            link_torrents: false,
            ..OPTIONS
        };
        let page = render(&report, without_torrents, &Query::default());
        assert!(!page.contains(".torrent\""), "{page}");
    }

    #[test]
    fn magnet_link_has_both_ids_and_all_trackers() {
        let hybrid = Release {
            name: "a b".to_owned(),
            v1: Some("01".repeat(20)),
            v2: Some("02".repeat(32)),
            ..Release::default()
        };
        let urls = ["http://a/announce".to_owned(), "udp://a:1".to_owned()];
        assert_eq!(
            magnet(&hybrid, &urls),
            format!(
                "magnet:?xt=urn:btih:{}&xt=urn:btmh:1220{}&dn=a%20b&tr=http%3A%2F%2Fa%2Fannounce&tr=udp%3A%2F%2Fa%3A1",
                "01".repeat(20),
                "02".repeat(32)
            )
        );
    }
}
