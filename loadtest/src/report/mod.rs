//! The report of a run: `report.json` for machines, `report.html` for people, a few lines
//! for the console.

mod evidence;
mod html;
mod series;
mod svg;

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::check::live::Measure;
use crate::check::{Verdict, overtaking};
use crate::record::RunInfo;
use crate::run::play::Judged;
use crate::time::{MILLISECOND, SECOND};
pub(crate) use evidence::write as write_evidence;
pub(crate) use series::Series;

/// A report.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    /// The run.
    pub(crate) run: RunInfo,
    /// How long it took, in seconds.
    pub(crate) seconds: f64,
    /// No promise was broken.
    pub(crate) kept: bool,
    /// What the switch counted.
    pub(crate) counts: Vec<(String, u64)>,
    /// From the intended start of a request to its answer, in microseconds.
    pub(crate) latency: Latency,
    /// How late the harness itself was at worst, in milliseconds.
    pub(crate) harness_late_ms: f64,
    /// Promises.
    pub(crate) promises: Vec<Verdict>,
    /// Measures of the outcomes role.
    pub(crate) measures: Vec<Measure>,
    /// The same by language.
    pub(crate) by_language: Vec<(String, Vec<Measure>)>,
    /// Version of their definitions.
    pub(crate) definitions: u32,
    /// What was broken: (target, from, until), seconds after the first entry.
    pub(crate) faults: Vec<(String, f64, f64)>,
    /// Longest that anyone can be overtaken, by queue, in seconds, as policy states it.
    pub(crate) overtaking_bounds_s: Vec<(String, u64)>,
    /// What the plots show.
    pub(crate) series: Series,
}

/// Percentiles, in microseconds.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Latency {
    /// How many.
    pub(crate) count: u64,
    /// Half.
    pub(crate) p50: u64,
    /// Nine in ten.
    pub(crate) p90: u64,
    /// 99 in a hundred.
    pub(crate) p99: u64,
    /// 999 in a thousand.
    pub(crate) p999: u64,
    /// The longest.
    pub(crate) max: u64,
}

impl Report {
    /// From a finished run.
    pub(crate) fn of(judged: &Judged, policy: &domain::policy::Policy) -> anyhow::Result<Self> {
        let facts = &judged.facts;
        let run = facts
            .run
            .clone()
            .context("the record does not begin with its run")?;
        let (series, histogram) = series::of(judged)?;
        let counts = &facts.counts;
        let counts = [
            (
                "calls at the switch, callback legs included",
                facts.calls.len() as u64,
            ),
            ("calls scheduled in advance", run.scheduled),
            ("answers of the mesh in time", counts.answers),
            ("calls that an agent answered", counts.established),
            ("calls whose caller gave up waiting", counts.gave_up),
            ("messages: overload", counts.overload),
            ("messages: other reasons", counts.messages),
            (
                "default routes: the reply timer ran out",
                counts.default_timer,
            ),
            ("default routes: the mesh asked for it", counts.default_mesh),
            (
                "default routes: no link or no credit",
                counts.default_no_link,
            ),
            ("callbacks booked", counts.booked),
            ("callbacks that could not be booked", counts.booking_failed),
            ("dials", facts.dials.len() as u64),
            ("questions asked again at another node", counts.asked_again),
            ("late answers", counts.late),
            ("records on Kafka", judged.log.records),
            ("contacts on Kafka", judged.log.contacts.len() as u64),
        ];
        let since = |at: u64| (at.saturating_sub(facts.span.0)) as f64 / SECOND as f64;
        let live = judged.live.clone().unwrap_or_default();
        let mut bounds: Vec<(String, u64)> = overtaking::bounds(policy).into_iter().collect();
        bounds.sort();
        Ok(Self {
            run,
            seconds: since(facts.span.1),
            kept: judged.violations() == 0,
            counts: counts
                .map(|(name, count)| (name.to_owned(), count))
                .to_vec(),
            latency: Latency {
                count: histogram.len(),
                p50: histogram.value_at_quantile(0.5),
                p90: histogram.value_at_quantile(0.9),
                p99: histogram.value_at_quantile(0.99),
                p999: histogram.value_at_quantile(0.999),
                max: histogram.max(),
            },
            harness_late_ms: facts.lag as f64 / MILLISECOND as f64,
            promises: judged.verdicts.clone(),
            measures: live.measures,
            by_language: live.by_language,
            definitions: live.definitions,
            faults: facts
                .faults
                .iter()
                .map(|(target, from, until)| {
                    (
                        target.clone(),
                        since(*from),
                        until.map_or(since(facts.span.1), since),
                    )
                })
                .collect(),
            overtaking_bounds_s: bounds,
            series,
        })
    }

    /// Writes `report.json` and `report.html` into a folder; the path of the latter.
    pub(crate) fn write(&self, folder: &Path) -> anyhow::Result<PathBuf> {
        let json = folder.join("report.json");
        std::fs::write(&json, serde_json::to_vec_pretty(self)?)
            .with_context(|| format!("writing {}", json.display()))?;
        let html = folder.join("report.html");
        std::fs::write(&html, html::page(self))
            .with_context(|| format!("writing {}", html.display()))?;
        Ok(html)
    }

    /// The same again from its JSON.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let bytes = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
        serde_json::from_slice(&bytes)
            .with_context(|| format!("{} is no report of a run", path.display()))
    }

    /// For the console.
    pub(crate) fn summary(&self) -> String {
        use std::fmt::Write as _;
        let mut text = String::new();
        let mut line = |what: String| {
            // Writing into a string cannot fail.
            let _ = writeln!(text, "{what}");
        };
        line(format!(
            "\n{} (seed {}, {:.0} s, Kafka: {})",
            self.run.title, self.run.seed, self.seconds, self.run.kafka
        ));
        for (name, count) in self.counts.iter().filter(|(_, count)| *count > 0) {
            line(format!("  {count:>9}  {name}"));
        }
        let latency = &self.latency;
        line(format!(
            "  answer after, from the intended start: half {:.2} ms, 99 % {:.2} ms, 99.9 % {:.2} ms, longest {:.2} ms",
            latency.p50 as f64 / 1000.0,
            latency.p99 as f64 / 1000.0,
            latency.p999 as f64 / 1000.0,
            latency.max as f64 / 1000.0,
        ));
        line("\nMeasures (outcomes role)".to_owned());
        for measure in self
            .measures
            .iter()
            .filter(|measure| HEADLINES.contains(&measure.name.as_str()))
        {
            line(format!("  {:>12}  {}", html::value(measure), measure.name));
        }
        line("\nPromises".to_owned());
        for verdict in &self.promises {
            let word = if verdict.violations == 0 {
                "kept"
            } else {
                "BROKEN"
            };
            line(format!(
                "  {:<20} {word:<7} {:>9} checked, {} violations",
                verdict.promise, verdict.checked, verdict.violations
            ));
            for finding in &verdict.first {
                line(format!(
                    "      {}: expected {}; seen {}",
                    finding.contact, finding.expected, finding.seen
                ));
            }
        }
        text
    }
}

/// Measures shown on the console; all of them are in the report.
const HEADLINES: [&str; 16] = [
    "offered",
    "answered",
    "abandoned",
    "default_routed",
    "blocked",
    "transfers_completed",
    "abandonment_rate",
    "speed_of_answer_holders_ms",
    "speed_of_answer_callback_takers_ms",
    "speed_of_answer_everyone_ms",
    "legacy_level_of_service",
    "level_of_access",
    "callback_accepted",
    "callback_kept_rate",
    "first_contact_resolution_7d",
    "first_contact_resolution_coverage",
];
