//! StatusReport as a page to read: plain HTML without scripts, sorted, searched and paged by its query.

use std::cmp::Reverse;
use std::fmt::{self, Display};

use crate::status::chart::plots;
use crate::status::endpoint::{Settings, file_id};
use crate::status::format::{
    ByteSize, Grouped, HtmlEscaped, Rounded, Span, decode_form_value, percent_encode,
};
use crate::status::report::{ClusterState, Health, Release, StatusReport, Unix};
use crate::utc::Utc;

/// The page's own style, beside it so that nothing inline need be allowed.
pub const STYLE: &str = include_str!("page.css");

/// Nothing runs, and nothing is loaded but the style: should a name get past the escaping, it still does nothing.
pub const POLICY: &str = "default-src 'none'; style-src 'self'; img-src data:; form-action 'self'; base-uri 'none'; \
                          frame-ancestors 'none'";

/// Rows on a page.
const ROWS: usize = 100;

/// The longest search, in characters.
const SEARCH_MAX: usize = 100;

/// Which part of the releases is shown, and in which order.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Query {
    pub sort: Sort,
    /// The other way round than a column has it by itself.
    pub reversed: bool,
    pub search: String,
    /// From 1.
    pub page: usize,
}

/// A column. Names begin with A, figures with the greatest, and what lacks a seed stands before the rest.
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

    /// In a query.
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

    fn title(self) -> &'static str {
        match self {
            Self::Name => "Name",
            Self::Size => "Size",
            Self::Seeders => "Seeders",
            Self::Leechers => "Leechers",
            Self::Downloads => "Downloads",
            Self::LastSeed => "Last seed",
        }
    }

    fn begins_with_least(self) -> bool {
        matches!(self, Self::Name | Self::LastSeed)
    }
}

impl Query {
    /// What is not understood is passed over: a page is better than none.
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
                "search" => parsed.search = value.trim().chars().take(SEARCH_MAX).collect(),
                "page" => parsed.page = value.parse().unwrap_or(1).max(1),
                _ => {}
            }
        }
        parsed.reversed = match order.as_str() {
            "asc" => !parsed.sort.begins_with_least(),
            "desc" => parsed.sort.begins_with_least(),
            _ => false,
        };
        parsed
    }

    fn is_ascending(&self) -> bool {
        self.sort.begins_with_least() != self.reversed
    }

    fn order(&self) -> &'static str {
        if self.is_ascending() { "asc" } else { "desc" }
    }

    /// As a link has it.
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

    /// All releases that are searched for, in order.
    fn select<'a>(&self, releases: &'a [Release]) -> Vec<&'a Release> {
        let words: Vec<_> = self
            .search
            .split_whitespace()
            .map(str::to_lowercase)
            .collect();
        // Shorter ones begin many an id by chance.
        let is_of = |id: &str, word: &str| word.len() >= 8 && id.starts_with(word);
        let matches = |release: &&Release| {
            if words.is_empty() {
                return true;
            }
            let name = release.name.to_lowercase();
            words
                .iter()
                .all(|word| name.contains(word) || release.ids().any(|id| is_of(id, word)))
        };
        let mut found: Vec<_> = releases.iter().filter(matches).collect();
        // They come in the order of their names, which equals keep.
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

/// The whole page.
pub fn page(figures: &StatusReport, settings: &Settings, query: &Query) -> String {
    Page {
        figures,
        settings,
        query,
    }
    .to_string()
}

struct Page<'a> {
    figures: &'a StatusReport,
    settings: &'a Settings,
    query: &'a Query,
}

impl Display for Page<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let base = self.base();
        let figures = self.figures;
        write!(
            f,
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <title>BitTorrent tracker: status</title>\n\
             <link rel=\"stylesheet\" href=\"{base}.css\">\n<link rel=\"icon\" href=\"data:,\">\n</head>\n<body>\n\
             <header>\n<h1>BitTorrent tracker</h1>\n<p>As of {}, running since {}.</p>\n</header>\n<main>\n",
            time(figures.now),
            time(figures.started),
        )?;
        self.totals(f)?;
        self.cluster(f)?;
        self.health(f)?;
        plots(f, figures)?;
        self.releases(f)?;
        write!(
            f,
            "</main>\n<footer>tbtt {}. The same as <a href=\"{base}.json\">JSON</a>.</footer>\n</body>\n</html>\n",
            HtmlEscaped(&figures.version)
        )
    }
}

impl Page<'_> {
    /// The last part of the page's path: links from it work behind a proxy that serves it elsewhere.
    fn base(&self) -> HtmlEscaped<'_> {
        let path = self.settings.status_path.as_deref().unwrap_or_default();
        HtmlEscaped(path.rsplit('/').next().unwrap_or_default())
    }

    fn totals(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let StatusReport {
            totals, counters, ..
        } = self.figures;
        let counter = |name| Grouped(counters.get(name).copied().unwrap_or_default());
        let by_family = |v4, v6| format!("{} IPv4, {} IPv6", Grouped(v4), Grouped(v6));
        f.write_str("<dl class=\"totals\">\n")?;
        let mut total = |title: &str, value: &dyn Display, more: &dyn Display| {
            writeln!(
                f,
                "<div><dt>{title}</dt><dd>{value}</dd><dd>{more}</dd></div>"
            )
        };
        let (leechers_v4, leechers_v6) = (
            totals.peers_ipv4.saturating_sub(totals.seeders_ipv4),
            totals.peers_ipv6.saturating_sub(totals.seeders_ipv6),
        );
        let listed = format!("{} listed", Grouped(self.figures.releases.len() as u64));
        let since = |http, udp| format!("{} HTTP, {} UDP so far", counter(http), counter(udp));
        let per_second = Rounded(self.figures.announces_per_second);
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
            "Announces a second",
            &per_second,
            &since("http_announces", "udp_announces"),
        )?;
        f.write_str("</dl>\n")
    }

    fn cluster(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(cluster) = &self.figures.cluster else {
            return Ok(());
        };
        let alarm = match cluster.state {
            ClusterState::Lone => " class=\"alarm\"",
            ClusterState::CatchingUp | ClusterState::Joined => "",
        };
        writeln!(
            f,
            "<p{alarm}>Cluster: {}, {} other trackers, {:.1} s behind, {} changes waiting.</p>",
            cluster.state.as_str(),
            cluster.nodes.len(),
            cluster.lag_seconds,
            Grouped(cluster.queue_length)
        )
    }

    fn health(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |health| {
            self.figures
                .releases
                .iter()
                .filter(|release| release.health == health)
                .count()
        };
        let (never, lost) = (count(Health::NeverSeeded), count(Health::LostSeeds));
        if never + lost > 0 {
            writeln!(
                f,
                "<p class=\"alarm\"><a href=\"?sort=last_seed&amp;order=asc\">Without a seed</a>: \
                 {never} never had one, {lost} lost theirs.</p>"
            )?;
        }
        Ok(())
    }

    fn releases(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let query = self.query;
        let found = query.select(&self.figures.releases);
        let pages = found.len().div_ceil(ROWS).max(1);
        let number = query.page.clamp(1, pages);
        writeln!(
            f,
            "<form role=\"search\">\n<label for=\"search\">Search names and ids</label>\n\
             <input type=\"search\" id=\"search\" name=\"search\" maxlength=\"{SEARCH_MAX}\" value=\"{}\">\n\
             <input type=\"hidden\" name=\"sort\" value=\"{}\">\n\
             <input type=\"hidden\" name=\"order\" value=\"{}\">\n<button>Search</button>\n</form>",
            HtmlEscaped(&query.search),
            query.sort.key(),
            query.order()
        )?;
        if found.is_empty() {
            let what = if query.search.is_empty() {
                "No torrent is listed."
            } else {
                "Nothing is found."
            };
            return writeln!(f, "<p>{what}</p>");
        }
        writeln!(f, "<table role=\"table\">\n<thead>\n<tr role=\"row\">")?;
        Sort::ALL
            .into_iter()
            .try_for_each(|sort| self.column(f, sort))?;
        writeln!(f, "</tr>\n</thead>\n<tbody>")?;
        let rows = found.iter().skip((number - 1) * ROWS).take(ROWS);
        rows.into_iter()
            .try_for_each(|release| self.row(f, release))?;
        writeln!(f, "</tbody>\n</table>")?;
        if pages > 1 {
            self.pages(f, number, pages)?;
        }
        Ok(())
    }

    fn column(&self, f: &mut fmt::Formatter<'_>, sort: Sort) -> fmt::Result {
        let chosen = self.query.sort == sort;
        let (state, arrow) = match (chosen, self.query.is_ascending()) {
            (false, _) => ("none", ""),
            (true, true) => ("ascending", " \u{25b2}"),
            (true, false) => ("descending", " \u{25bc}"),
        };
        let link = Query {
            sort,
            reversed: chosen && !self.query.reversed,
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

    fn row(&self, f: &mut fmt::Formatter<'_>, release: &Release) -> fmt::Result {
        write!(
            f,
            "<tr role=\"row\"><th role=\"rowheader\" scope=\"row\"><bdi>{}</bdi> \
             <span class=\"get\"><a href=\"{}\">magnet</a>",
            HtmlEscaped(&release.name),
            HtmlEscaped(&magnet(release, &self.settings.announce_urls))
        )?;
        if self.settings.torrents {
            write!(
                f,
                " <a href=\"{}/{}.torrent\">torrent</a>",
                self.base(),
                file_id(release)
            )?;
        }
        f.write_str(" <details><summary>ids</summary>")?;
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
                now: self.figures.now,
            },
        )?;
        writeln!(f, "</tr>")
    }

    fn pages(&self, f: &mut fmt::Formatter<'_>, number: usize, pages: usize) -> fmt::Result {
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

/// The link by which a client finds a release without its `.torrent` file (BEP 9, BEP 52).
fn magnet(release: &Release, announce_urls: &[String]) -> String {
    let v1 = release.v1.iter().map(|v1| format!("xt=urn:btih:{v1}"));
    // A multihash: SHA-256, of 32 bytes.
    let v2 = release.v2.iter().map(|v2| format!("xt=urn:btmh:1220{v2}"));
    let name = format!("dn={}", percent_encode(&release.name));
    let trackers = announce_urls
        .iter()
        .map(|url| format!("tr={}", percent_encode(url)));
    let parts: Vec<_> = v1.chain(v2).chain([name]).chain(trackers).collect();
    format!("magnet:?{}", parts.join("&"))
}

/// When a release last had a seed.
struct LastSeed<'a> {
    release: &'a Release,
    now: Unix,
}

impl Display for LastSeed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.release.health, self.release.last_seed) {
            (Health::Seeded, _) => f.write_str("now"),
            (Health::LostSeeds, Some(last)) => write!(
                f,
                "<time class=\"none\" datetime=\"{}\">{} ago</time>",
                utc(last).iso(),
                Span(self.now.saturating_sub(last))
            ),
            _ => f.write_str("<span class=\"none\">never</span>"),
        }
    }
}

fn utc(at: Unix) -> Utc {
    Utc::from_unix(i64::try_from(at).unwrap_or(i64::MAX))
}

/// A moment, for people and for programs.
fn time(at: Unix) -> String {
    let utc = utc(at);
    format!("<time datetime=\"{}\">{utc}</time>", utc.iso())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::report::History;

    const ID: &str = "0123456789abcdef0123456789abcdef01234567";

    fn release(name: &str, seeders: u32, last_seed: Option<Unix>) -> Release {
        Release {
            name: name.to_owned(),
            v1: Some(ID.to_owned()),
            seeders,
            last_seed,
            health: Health::of(seeders, last_seed),
            ..Release::default()
        }
    }

    fn settings() -> Settings {
        Settings {
            status_path: Some("/a/status".to_owned()),
            torrents: true,
            ..Settings::default()
        }
    }

    fn shown(figures: &StatusReport, query: &str) -> String {
        page(figures, &settings(), &Query::parse(query))
    }

    fn names(releases: &[Release], query: &str) -> Vec<String> {
        let found = Query::parse(query).select(releases);
        found.iter().map(|release| release.name.clone()).collect()
    }

    #[test]
    fn a_name_is_nothing_but_text() {
        let hostile = "<script>alert(1)</script>\"'&";
        let figures = StatusReport {
            version: hostile.to_owned(),
            releases: vec![release(hostile, 1, None)],
            ..StatusReport::default()
        };
        let page = shown(&figures, &format!("search={}", percent_encode("<script>")));
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
    fn columns_sort_both_ways() {
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
    fn a_search_wants_every_word_in_the_name_or_at_the_start_of_an_id() {
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
            SEARCH_MAX
        );
    }

    #[test]
    fn pages_follow_each_other_and_end() {
        let releases = (0..201).map(|number| release(&format!("r{number:03}"), 0, None));
        let figures = StatusReport {
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
            let page = shown(&figures, query);
            let rows: Vec<_> = page.split("<bdi>").skip(1).map(|row| &row[..4]).collect();
            assert_eq!((rows[0], rows[rows.len() - 1]), (first, last), "{query}");
            let nav = page.split_once("<nav").map_or("", |(_, nav)| nav);
            let told: Vec<_> = ["First", "Previous", "Next", "Last"]
                .into_iter()
                .filter(|link| nav.contains(&format!(">{link}</a>")))
                .collect();
            assert_eq!(told.join(" "), links, "{query}");
        }
        assert!(
            shown(&figures, "page=2&sort=size")
                .contains("href=\"?sort=size&amp;order=desc&amp;page=3\">Next")
        );
    }

    #[test]
    fn what_lacks_a_seed_is_said() {
        let mut figures = StatusReport {
            now: 10_000,
            releases: vec![release("a", 1, Some(10_000))],
            ..StatusReport::default()
        };
        let healthy = shown(&figures, "");
        assert!(
            healthy.contains(">now</td>") && !healthy.contains("Without a seed"),
            "{healthy}"
        );
        figures.releases.push(release("b", 0, Some(1000)));
        figures.releases.push(release("c", 0, None));
        let page = shown(&figures, "");
        for part in [
            "1 never had one, 1 lost theirs",
            "datetime=\"1970-01-01T00:16:40Z\">2 h ago</time>",
            ">never</span>",
        ] {
            assert!(page.contains(part), "{part} in {page}");
        }
        assert!(shown(&StatusReport::default(), "").contains("No torrent is listed."));
    }

    #[test]
    fn links_stay_beside_the_page_whatever_its_path() {
        let figures = StatusReport {
            releases: vec![release("a", 0, None)],
            ..StatusReport::default()
        };
        let page = shown(&figures, "");
        for link in ["status.css", "status.json", &format!("status/{ID}.torrent")] {
            assert!(
                page.contains(&format!("href=\"{link}\"")),
                "{link} in {page}"
            );
        }
        let without = Settings {
            torrents: false,
            ..settings()
        };
        assert!(!super::page(&figures, &without, &Query::default()).contains(".torrent\""));
    }

    #[test]
    fn a_magnet_names_both_ids_and_the_trackers() {
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

    #[test]
    fn a_plot_has_a_point_for_each_sample_and_none_stands_out() {
        let mut figures = StatusReport::default();
        assert!(!shown(&figures, "").contains("<svg"), "nothing to draw yet");
        figures.history = History {
            interval: 300,
            last: 600,
            peers_ipv4: vec![0, 10, 5],
            peers_ipv6: vec![0, 0, 0],
            announces_per_second: vec![0.0, 0.0, 0.0],
        };
        let page = shown(&figures, "");
        assert!(page.contains("viewBox=\"0 0 2 100\""), "{page}");
        assert!(
            page.contains("class=\"first\" d=\"M0 97.0L1 3.0L2 50.0\""),
            "{page}"
        );
        assert!(
            page.contains("class=\"second\" d=\"M0 97.0L1 97.0L2 97.0\""),
            "{page}"
        );
        assert!(
            page.contains("Peers over the last 10 min, at most 10\""),
            "{page}"
        );
    }
}
