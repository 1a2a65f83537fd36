//! The page's plots.

use std::fmt;

use crate::status::format::{Rounded, Span};
use crate::status::report::{History, StatusReport};

/// Peers and announces over the last day.
pub(super) fn plots(f: &mut fmt::Formatter<'_>, figures: &StatusReport) -> fmt::Result {
    let History {
        interval,
        peers_ipv4,
        peers_ipv6,
        announces_per_second,
        ..
    } = &figures.history;
    let floats = |numbers: &[u64]| numbers.iter().map(|&n| n as f64).collect::<Vec<_>>();
    let (v4, v6) = (floats(peers_ipv4), floats(peers_ipv6));
    if v4.len() < 2 {
        return Ok(());
    }
    let span = Span((v4.len() as u64 - 1) * interval);
    f.write_str("<div class=\"plots\">\n")?;
    plot(
        f,
        "Peers",
        &[("IPv4", "first", &v4), ("IPv6", "second", &v6)],
        span,
    )?;
    plot(
        f,
        "Announces a second",
        &[("", "first", announces_per_second)],
        span,
    )?;
    f.write_str("</div>\n")
}

/// Lines on one scale: the name, class and values of each.
fn plot(
    f: &mut fmt::Formatter<'_>,
    title: &str,
    lines: &[(&str, &str, &[f64])],
    span: Span,
) -> fmt::Result {
    let all = lines.iter().flat_map(|(_, _, values)| values.iter());
    let top = all.copied().fold(0.0, f64::max);
    write!(f, "<figure>\n<figcaption>{title}, at most {}", Rounded(top))?;
    for (name, class, _) in lines.iter().filter(|(name, _, _)| !name.is_empty()) {
        write!(f, " <span class=\"key {class}\">{name}</span>")?;
    }
    let count = lines
        .iter()
        .map(|(_, _, values)| values.len())
        .max()
        .unwrap_or_default();
    let width = count.saturating_sub(1).max(1);
    write!(
        f,
        "</figcaption>\n<svg viewBox=\"0 0 {width} 100\" preserveAspectRatio=\"none\" role=\"img\" \
         aria-label=\"{title} over the last {span}, at most {}\">",
        Rounded(top)
    )?;
    for (_, class, values) in lines {
        write!(f, "<path class=\"{class}\" d=\"")?;
        for (x, value) in values.iter().enumerate() {
            let command = if x == 0 { 'M' } else { 'L' };
            let y = 97.0 - 94.0 * value / top.max(f64::MIN_POSITIVE);
            write!(f, "{command}{x} {y:.1}")?;
        }
        f.write_str("\"/>")?;
    }
    writeln!(
        f,
        "</svg>\n<figcaption class=\"ends\"><span>{span} ago</span> <span>now</span></figcaption>\n</figure>"
    )
}
