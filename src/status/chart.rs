//! The charts of the status page, as SVG.

use std::fmt;

use crate::status::format::{Rounded, Span};
use crate::status::report::History;

/// A line of a chart.
struct Line<'a> {
    /// The name in the legend; empty if the chart has a single line and so no legend.
    name: &'a str,
    /// The CSS class, which sets the color.
    class: &'a str,
    values: &'a [f64],
}

/// Writes charts of the peers and announces of the last day. Writes nothing if there are fewer than two samples.
pub(super) fn write_charts(f: &mut fmt::Formatter<'_>, history: &History) -> fmt::Result {
    let to_floats = |numbers: &[u64]| numbers.iter().map(|&n| n as f64).collect::<Vec<_>>();
    let (v4, v6) = (
        to_floats(&history.peers_ipv4),
        to_floats(&history.peers_ipv6),
    );
    if v4.len() < 2 {
        return Ok(());
    }
    let span = Span((v4.len() as u64 - 1) * history.interval);
    let line = |name, class, values| Line {
        name,
        class,
        values,
    };
    f.write_str("<div class=\"plots\">\n")?;
    let peers = [line("IPv4", "first", &v4), line("IPv6", "second", &v6)];
    write_chart(f, "Peers", &peers, span)?;
    let announces = [line("", "first", &history.announces_per_second)];
    write_chart(f, "Announces per second", &announces, span)?;
    f.write_str("</div>\n")
}

/// Writes a chart. All lines share the same scale, from 0 to the largest value.
fn write_chart(
    f: &mut fmt::Formatter<'_>,
    title: &str,
    lines: &[Line<'_>],
    span: Span,
) -> fmt::Result {
    let all = lines.iter().flat_map(|line| line.values);
    let max = all.copied().fold(0.0, f64::max);
    write!(f, "<figure>\n<figcaption>{title}, maximum {}", Rounded(max))?;
    for Line { name, class, .. } in lines.iter().filter(|line| !line.name.is_empty()) {
        write!(f, " <span class=\"key {class}\">{name}</span>")?;
    }
    let count = lines
        .iter()
        .map(|line| line.values.len())
        .max()
        .unwrap_or_default();
    let width = count.saturating_sub(1).max(1);
    write!(
        f,
        "</figcaption>\n<svg viewBox=\"0 0 {width} 100\" preserveAspectRatio=\"none\" role=\"img\" \
         aria-label=\"{title} over the last {span}, maximum {}\">",
        Rounded(max)
    )?;
    for line in lines {
        write!(f, "<path class=\"{}\" d=\"", line.class)?;
        for (x, value) in line.values.iter().enumerate() {
            let command = if x == 0 { 'M' } else { 'L' };
            // A margin of 3 at both ends, so that no part of the stroke is cut off.
            let y = 97.0 - 94.0 * value / max.max(f64::MIN_POSITIVE);
            write!(f, "{command}{x} {y:.1}")?;
        }
        f.write_str("\"/>")?;
    }
    writeln!(
        f,
        "</svg>\n<figcaption class=\"ends\"><span>{span} ago</span> <span>now</span></figcaption>\n</figure>"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Charts<'a>(&'a History);

    impl fmt::Display for Charts<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write_charts(f, self.0)
        }
    }

    #[test]
    fn chart_has_a_point_for_each_sample_within_its_bounds() {
        let history = History {
            interval: 300,
            last: 600,
            peers_ipv4: vec![0, 10, 5],
            peers_ipv6: vec![0, 0, 0],
            announces_per_second: vec![0.0, 0.0, 0.0],
        };
        let charts = Charts(&history).to_string();
        for part in [
            "viewBox=\"0 0 2 100\"",
            "class=\"first\" d=\"M0 97.0L1 3.0L2 50.0\"",
            "class=\"second\" d=\"M0 97.0L1 97.0L2 97.0\"",
            "Peers over the last 10 min, maximum 10\"",
        ] {
            assert!(charts.contains(part), "{part} in {charts}");
        }
    }

    #[test]
    fn no_chart_is_drawn_before_the_second_sample() {
        let mut history = History::default();
        assert_eq!(Charts(&history).to_string(), "");
        history.peers_ipv4 = vec![1];
        assert_eq!(Charts(&history).to_string(), "");
    }
}
