//! The report: for people, as JSON, and in the Test Anything Protocol.

use std::fmt::Write as _;
use std::net::SocketAddr;

use serde_json::{Value, json};
use tbtt::bytes::Hex;

use crate::case::{Effort, Outcome, Source, Verdict};
use crate::peer::InfoHash;
use crate::target::{TrackerUrl, txt_records};

/// One URL at one address.
pub(crate) struct Target {
    pub(crate) url: TrackerUrl,
    pub(crate) address: Option<SocketAddr>,
    pub(crate) effort: Effort,
    /// The outcomes of the cases, or the reason why the tracker was not reached.
    pub(crate) result: Result<Vec<Outcome>, String>,
}

pub(crate) struct Report {
    /// The torrents that the user gave.
    pub(crate) torrents: Vec<InfoHash>,
    pub(crate) targets: Vec<Target>,
}

impl Target {
    fn name(&self) -> String {
        match self.address {
            Some(address) => format!("{} at {}", self.url.text, address.ip()),
            None => self.url.text.clone(),
        }
    }
}

fn effort_word(effort: Effort) -> &'static str {
    match effort {
        Effort::Gentle => "gentle",
        Effort::Full | Effort::Wait => "full",
        Effort::Hostile => "hostile",
    }
}

impl Report {
    fn outcomes(&self) -> impl Iterator<Item = &Outcome> {
        let found = self.targets.iter().flat_map(|target| &target.result);
        found.flatten()
    }

    pub(crate) fn count(&self, verdict: Verdict) -> usize {
        let all = self.outcomes();
        all.filter(|outcome| outcome.verdict == verdict).count()
    }

    pub(crate) fn unreachable(&self) -> usize {
        let all = self.targets.iter();
        all.filter(|target| target.result.is_err()).count()
    }

    /// Returns the TXT records for the URLs that were reached.
    fn txt(&self) -> Vec<String> {
        let reached = self.targets.iter().filter(|target| target.result.is_ok());
        txt_records(reached.map(|target| &target.url))
    }

    /// Returns the report for people. Cases from standards come first, those from practice second, skipped ones last. What
    /// was seen is part of the report for faults and differences, or for all cases if `verbose`.
    pub(crate) fn human(&self, verbose: bool) -> String {
        let mut out = String::new();
        for target in &self.targets {
            let effort = effort_word(target.effort);
            let outcomes = match &target.result {
                Ok(outcomes) => outcomes,
                Err(reason) => {
                    let _ = writeln!(out, "{}: unreachable: {reason}\n", target.name());
                    continue;
                }
            };
            let _ = writeln!(out, "{}, {effort}", target.name());
            for (title, practice) in [("Standards:", false), ("Practice:", true)] {
                let _ = writeln!(out, "  {title}");
                for outcome in outcomes {
                    if (outcome.source == Source::Practice) == practice {
                        human_outcome(&mut out, outcome, verbose);
                    }
                }
            }
            human_skipped(&mut out, outcomes);
            out.push('\n');
        }
        let counts =
            Verdict::ALL.map(|verdict| format!("{}: {}", verdict.word(), self.count(verdict)));
        let _ = write!(out, "{}", counts.join(", "));
        match self.unreachable() {
            0 => out.push('\n'),
            count => {
                let _ = writeln!(out, ", unreachable: {count}");
            }
        }
        let txt = self.txt();
        if !txt.is_empty() {
            let _ = writeln!(
                out,
                "TXT records to publish in DNS (BEP 34):\n  {}",
                txt.join("\n  ")
            );
        }
        out
    }

    pub(crate) fn json(&self) -> String {
        let hex = |hash: &InfoHash| Hex(hash).to_string();
        let targets: Vec<_> = self.targets.iter().map(json_target).collect();
        let counts: serde_json::Map<_, _> = Verdict::ALL
            .iter()
            .map(|verdict| (verdict.word().to_owned(), self.count(*verdict).into()))
            .collect();
        let report = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "info_hashes": self.torrents.iter().map(hex).collect::<Vec<_>>(),
            "targets": targets,
            "counts": counts,
            "unreachable": self.unreachable(),
            "txt": self.txt(),
        });
        format!("{report:#}\n")
    }

    /// Returns the report in the Test Anything Protocol, version 14. A tracker that was not reached is a failed test.
    pub(crate) fn tap(&self) -> String {
        let tests = self.outcomes().count() + self.unreachable();
        let mut out = format!("TAP version 14\n1..{tests}\n");
        let mut number = 0;
        for target in &self.targets {
            let _ = writeln!(out, "# {}, {}", target.name(), effort_word(target.effort));
            let outcomes = match &target.result {
                Ok(outcomes) => outcomes,
                Err(reason) => {
                    number += 1;
                    let _ = writeln!(out, "not ok {number} - reachable");
                    tap_seen(&mut out, reason);
                    continue;
                }
            };
            for outcome in outcomes {
                number += 1;
                let Outcome {
                    id, source, title, ..
                } = outcome;
                let (result, directive) = match outcome.verdict {
                    Verdict::Ok => ("ok", String::new()),
                    Verdict::Fault => ("not ok", String::new()),
                    Verdict::Differs => ("not ok", " # TODO practice".to_owned()),
                    Verdict::Skipped => ("ok", format!(" # SKIP {}", tap_text(&outcome.seen))),
                };
                let title = tap_text(title);
                let _ = writeln!(
                    out,
                    "{result} {number} - {id}: {title} ({source}){directive}"
                );
                if matches!(outcome.verdict, Verdict::Fault | Verdict::Differs) {
                    tap_seen(&mut out, &outcome.seen);
                }
            }
        }
        out
    }
}

fn human_outcome(out: &mut String, outcome: &Outcome, verbose: bool) {
    let Outcome {
        id,
        source,
        title,
        verdict,
        seen,
    } = outcome;
    if *verdict == Verdict::Skipped {
        return;
    }
    let source = match source {
        Source::Practice => String::new(),
        source => format!(" ({source})"),
    };
    let _ = writeln!(out, "    {:<8}{id:<22}{title}{source}", verdict.word());
    if verbose || *verdict != Verdict::Ok {
        let _ = writeln!(out, "            {seen}");
    }
}

/// Lists the skipped cases by the reason.
fn human_skipped(out: &mut String, outcomes: &[Outcome]) {
    let mut reasons: Vec<(&str, Vec<&str>)> = Vec::new();
    for Outcome {
        id, verdict, seen, ..
    } in outcomes
    {
        if *verdict != Verdict::Skipped {
            continue;
        }
        match reasons.iter_mut().find(|(reason, _)| reason == seen) {
            Some((_, ids)) => ids.push(id),
            None => reasons.push((seen, vec![id])),
        }
    }
    if !reasons.is_empty() {
        out.push_str("  Skipped:\n");
    }
    for (reason, ids) in reasons {
        let _ = writeln!(out, "    {reason}:\n      {}", ids.join(", "));
    }
}

fn json_target(target: &Target) -> Value {
    let case = |outcome: &Outcome| {
        json!({
            "id": outcome.id,
            "title": outcome.title,
            "source": outcome.source.to_string(),
            "verdict": outcome.verdict.word(),
            "seen": outcome.seen,
        })
    };
    let (cases, unreachable) = match &target.result {
        Ok(outcomes) => (outcomes.iter().map(case).collect(), None),
        Err(reason) => (Vec::new(), Some(reason)),
    };
    json!({
        "url": target.url.text,
        "address": target.address.map(|address| address.to_string()),
        "effort": effort_word(target.effort),
        "unreachable": unreachable,
        "cases": cases,
    })
}

/// Escapes text for a test line, in which # starts a directive.
fn tap_text(text: &str) -> String {
    text.replace('\\', "\\\\").replace('#', "\\#")
}

/// Adds what was seen as YAML, in which a single quote is written twice.
fn tap_seen(out: &mut String, seen: &str) {
    let seen = seen.replace('\'', "''");
    let _ = writeln!(out, "  ---\n  seen: '{seen}'\n  ...");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let outcome = |id, source, verdict, seen: &str| Outcome {
            id,
            source,
            title: "a title",
            verdict,
            seen: seen.to_owned(),
        };
        let target = |url: &str, result| Target {
            url: url.parse().unwrap(),
            address: "127.0.0.1:80".parse().ok(),
            effort: Effort::Gentle,
            result,
        };
        let outcomes = vec![
            outcome("a", Source::Bep(3), Verdict::Ok, "well"),
            outcome("b", Source::Bep(3), Verdict::Fault, "it's \"bad\" # 1"),
            outcome("c", Source::Practice, Verdict::Differs, "other"),
            outcome("d", Source::Practice, Verdict::Skipped, "no # here"),
        ];
        Report {
            torrents: vec![[0xab; 20]],
            targets: vec![
                target("http://t.example/announce", Ok(outcomes)),
                target("udp://u.example:1", Err("refused".to_owned())),
            ],
        }
    }

    #[test]
    fn human_report_separates_standards_and_practice() {
        assert_eq!(
            report().human(false),
            "http://t.example/announce at 127.0.0.1, gentle\n\
             \x20 Standards:\n\
             \x20   ok      a                     a title (BEP 3)\n\
             \x20   fault   b                     a title (BEP 3)\n\
             \x20           it's \"bad\" # 1\n\
             \x20 Practice:\n\
             \x20   differs c                     a title\n\
             \x20           other\n\
             \x20 Skipped:\n\
             \x20   no # here:\n\
             \x20     d\n\
             \n\
             udp://u.example:1 at 127.0.0.1: unreachable: refused\n\
             \n\
             fault: 1, differs: 1, ok: 1, skipped: 1, unreachable: 1\n\
             TXT records to publish in DNS (BEP 34):\n\
             \x20 t.example. IN TXT \"BITTORRENT TCP:80\"\n"
        );
        assert!(report().human(true).contains("(BEP 3)\n            well\n"));
    }

    #[test]
    fn json_report_is_complete() {
        let report: Value = serde_json::from_str(&report().json()).unwrap();
        assert_eq!(report["info_hashes"][0], "ab".repeat(20));
        assert_eq!(
            report["counts"],
            json!({"ok": 1, "fault": 1, "differs": 1, "skipped": 1})
        );
        let cases = &report["targets"][0]["cases"];
        assert_eq!(
            cases[1],
            json!({"id": "b", "title": "a title", "source": "BEP 3", "verdict": "fault", "seen": "it's \"bad\" # 1"})
        );
        assert_eq!(report["targets"][1]["unreachable"], "refused");
        assert_eq!(report["targets"][0]["unreachable"], Value::Null);
    }

    #[test]
    fn tap_report_marks_differences_as_todo() {
        assert_eq!(
            report().tap(),
            "TAP version 14\n\
             1..5\n\
             # http://t.example/announce at 127.0.0.1, gentle\n\
             ok 1 - a: a title (BEP 3)\n\
             not ok 2 - b: a title (BEP 3)\n\
             \x20 ---\n\
             \x20 seen: 'it''s \"bad\" # 1'\n\
             \x20 ...\n\
             not ok 3 - c: a title (practice) # TODO practice\n\
             \x20 ---\n\
             \x20 seen: 'other'\n\
             \x20 ...\n\
             ok 4 - d: a title (practice) # SKIP no \\# here\n\
             # udp://u.example:1 at 127.0.0.1, gentle\n\
             not ok 5 - reachable\n\
             \x20 ---\n\
             \x20 seen: 'refused'\n\
             \x20 ...\n"
        );
    }
}
