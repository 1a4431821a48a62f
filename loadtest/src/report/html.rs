//! The page for people: opens from a file, needs nothing else.

use std::fmt::Write as _;

use super::Report;
use super::svg::{Plot, escape, number};
use crate::check::live::Measure;

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:900px;margin:2rem auto;padding:0 1rem;color:#1b1b1b;background:#fff}\
h1{font-size:1.6rem}h2{font-size:1.2rem;margin-top:2.2rem}table{border-collapse:collapse;width:100%;font-size:.9rem}\
td,th{text-align:left;padding:.3rem .6rem;border-bottom:1px solid #ddd;vertical-align:top}td.n,th.n{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}\
.kept{color:#00694a;font-weight:600}.broken{color:#a40000;font-weight:600}svg{width:100%;height:auto;font-size:11px;fill:#333}\
.grid{stroke:#e4e4e4}.fault{fill:#d55e00;opacity:.15}.small{font-size:10px;fill:#8a3d00}.note{color:#555;font-size:.85rem}details{margin:.4rem 0}";

/// The promises in plain words.
const PROMISES: [(&str, &str); 9] = [
    (
        "NeverSilent",
        "Whenever the switch asked who takes a call, it got exactly one answer in time.",
    ),
    (
        "OneCallOneAgent",
        "No call went to two agents, and no agent got a second call while holding one.",
    ),
    (
        "PlaceKept",
        "Nothing cost a caller the place that their first arrival gave them.",
    ),
    (
        "CallbackKept",
        "Everyone who was promised a callback got exactly one end of it, and was never dialled twice at once.",
    ),
    (
        "EveryOutcomeCounted",
        "Everything that happened to a contact is in the event log, in order, and is counted once.",
    ),
    (
        "BoundedOvertaking",
        "Nobody who came later went first beyond what the priority rules state.",
    ),
    (
        "NoPlainPii",
        "No caller's number, name or words turned up in an event, a log, a metric or a key.",
    ),
    (
        "HonestClock",
        "The waiting time that is reported runs until a human answered.",
    ),
    ("Scenario", "What the scenario expects beside the promises."),
];

/// The whole page.
pub(super) fn page(report: &Report) -> String {
    let mut page = String::new();
    let run = &report.run;
    let _ = write!(
        page,
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\"><title>{} - load test</title><style>{STYLE}</style>",
        escape(&run.scenario)
    );
    let _ = write!(page, "<h1>{}</h1>", escape(&run.title));
    let verdict = if report.kept {
        "<p class=\"kept\">Every promise was kept.</p>".to_owned()
    } else {
        let broken: u64 = report
            .promises
            .iter()
            .map(|promise| promise.violations)
            .sum();
        format!(
            "<p class=\"broken\">{} violations of promises; they are listed below.</p>",
            number(broken as f64)
        )
    };
    page.push_str(&verdict);
    let _ = write!(
        page,
        "<p>Scenario <b>{}</b>, seed {}, {:.0} seconds, {} gateway(s), Kafka: {}. The switch, the callers and the agents are synthetic; the mesh, Redis and Kafka are real. \
        Half of the answers came within {:.2} ms of the moment at which the call should have been placed, 99 % within {:.2} ms. The harness itself was at worst {:.1} ms late.</p>",
        escape(&run.scenario),
        run.seed,
        report.seconds,
        run.nodes.len(),
        escape(&run.kafka),
        report.latency.p50 as f64 / 1000.0,
        report.latency.p99 as f64 / 1000.0,
        report.harness_late_ms,
    );
    promises(&mut page, report);
    plots(&mut page, report);
    counts(&mut page, report);
    measures(&mut page, report);
    page
}

fn promises(page: &mut String, report: &Report) {
    page.push_str("<h2>Promises</h2><table><tr><th>Promise<th>What it means<th class=\"n\">Checked<th class=\"n\">Violations</tr>");
    for verdict in &report.promises {
        let words = PROMISES
            .iter()
            .find(|(name, _)| *name == verdict.promise)
            .map_or("", |(_, words)| words);
        let class = if verdict.violations == 0 {
            "kept"
        } else {
            "broken"
        };
        let _ = write!(
            page,
            "<tr><td><b>{}</b><td>{words}<div class=\"note\">Checked: {}.",
            verdict.promise,
            escape(&verdict.what)
        );
        for note in &verdict.notes {
            let _ = write!(page, "<br>{}.", escape(note));
        }
        page.push_str("</div>");
        if !verdict.first.is_empty() {
            let _ = write!(
                page,
                "<details open><summary>The first {} violations</summary><ul>",
                verdict.first.len()
            );
            for finding in &verdict.first {
                let _ = write!(
                    page,
                    "<li><code>{}</code>: expected {}; seen {}</li>",
                    escape(&finding.contact),
                    escape(&finding.expected),
                    escape(&finding.seen)
                );
            }
            page.push_str("</ul></details>");
        }
        let _ = write!(
            page,
            "<td class=\"n\">{}<td class=\"n {class}\">{}</tr>",
            number(verdict.checked as f64),
            number(verdict.violations as f64)
        );
    }
    page.push_str("</table>");
}

fn plots(page: &mut String, report: &Report) {
    let series = &report.series;
    let by_second = |points: &[u64], factor: f64| -> Vec<(f64, f64)> {
        points
            .iter()
            .enumerate()
            .map(|(second, value)| (second as f64, *value as f64 * factor))
            .collect()
    };
    let mut plot = |title: &str, words: &str, plot: Plot<'_>| {
        let _ = write!(
            page,
            "<h2>{title}</h2><p class=\"note\">{words}</p>{}",
            plot.svg()
        );
    };
    plot(
        "Calls and answers",
        "How many calls came in each second, how many an agent answered, how many callers gave up, and how many were sent to the switch's default route. Shaded: something was killed.",
        Plot {
            x_title: "seconds",
            y_title: "a second",
            lines: vec![
                ("calls", by_second(&series.calls, 1.0)),
                ("answered by an agent", by_second(&series.established, 1.0)),
                ("gave up", by_second(&series.gave_up, 1.0)),
                ("default route", by_second(&series.turned_away, 1.0)),
            ],
            spans: report.faults.clone(),
            logarithmic: false,
        },
    );
    plot(
        "Lines",
        "Callers who hold a line, and callers who hung up and keep their place until they are called.",
        Plot {
            x_title: "seconds",
            y_title: "callers",
            lines: vec![
                ("hold a line", by_second(&series.waiting, 1.0)),
                ("wait to be called", by_second(&series.to_be_called, 1.0)),
            ],
            spans: report.faults.clone(),
            logarithmic: false,
        },
    );
    plot(
        "How long the switch waited for an answer",
        "From the moment at which the request should have been sent. To the right: the slowest answers; 4 stands for one in ten thousand.",
        Plot {
            x_title: "nines (1: one in ten is slower, 2: one in a hundred, ...)",
            y_title: "milliseconds",
            lines: vec![(
                "answers",
                series
                    .latency
                    .iter()
                    .filter(|(quantile, _)| *quantile < 1.0)
                    .map(|(quantile, us)| (-(1.0 - quantile).log10(), *us as f64 / 1000.0))
                    .collect(),
            )],
            spans: Vec::new(),
            logarithmic: true,
        },
    );
    plot(
        "The slowest answer of each second",
        "",
        Plot {
            x_title: "seconds",
            y_title: "milliseconds",
            lines: vec![("slowest answer", by_second(&series.latency_max_us, 0.001))],
            spans: report.faults.clone(),
            logarithmic: false,
        },
    );
    let waits = |points: &[(f64, u64)]| -> Vec<(f64, f64)> {
        points
            .iter()
            .map(|(share, ms)| (share * 100.0, *ms as f64 / 1000.0))
            .collect()
    };
    plot(
        "Waiting for a person",
        "By the switch's own record, from the first arrival to a human, in seconds of the run (the scenario shrinks them). Read: so many in a hundred waited at most that long.",
        Plot {
            x_title: "callers in a hundred",
            y_title: "seconds",
            lines: vec![
                ("those who held", waits(&series.waits_holders)),
                ("callback takers", waits(&series.waits_callbacks)),
                ("everyone", waits(&series.waits_everyone)),
            ],
            spans: Vec::new(),
            logarithmic: false,
        },
    );
}

fn counts(page: &mut String, report: &Report) {
    page.push_str("<h2>What the switch counted</h2><table>");
    for (name, count) in &report.counts {
        let _ = write!(
            page,
            "<tr><td>{}<td class=\"n\">{}</tr>",
            escape(name),
            number(*count as f64)
        );
    }
    page.push_str("</table>");
}

fn measures(page: &mut String, report: &Report) {
    let _ = write!(
        page,
        "<h2>Measures</h2><p class=\"note\">As the outcomes role tells them from the event log, definitions version {}. Times are those of the run.</p><table><tr><th>Measure<th class=\"n\">Value<th class=\"n\">Divided by<th>Definition</tr>",
        report.definitions
    );
    for measure in &report.measures {
        let denominator = if measure.denominator == 0 {
            String::new()
        } else {
            number(measure.denominator as f64)
        };
        let _ = write!(
            page,
            "<tr><td>{}<td class=\"n\">{}<td class=\"n\">{denominator}<td>{}</tr>",
            escape(&measure.name.replace('_', " ")),
            value(measure),
            escape(&measure.definition)
        );
    }
    page.push_str("</table>");
    let names = [
        "offered",
        "abandonment_rate",
        "speed_of_answer_everyone_ms",
        "level_of_access",
    ];
    page.push_str("<h2>By language</h2><table><tr><th>Language");
    for name in names {
        let _ = write!(page, "<th class=\"n\">{}", name.replace('_', " "));
    }
    page.push_str("</tr>");
    for (language, measures) in &report.by_language {
        let _ = write!(page, "<tr><td>{}", escape(language));
        for name in names {
            let text = measures
                .iter()
                .find(|measure| measure.name == name)
                .map_or_else(String::new, value);
            let _ = write!(page, "<td class=\"n\">{text}");
        }
        page.push_str("</tr>");
    }
    page.push_str("</table>");
}

/// A measure's value for people.
pub(super) fn value(measure: &Measure) -> String {
    if measure.unknown {
        return "not known".to_owned();
    }
    if measure.name.ends_with("_ms") {
        return format!("{} ms", number(measure.value.round()));
    }
    let share = measure.denominator > 0
        && (0.0..=1.0).contains(&measure.value)
        && !measure.name.contains("_per_");
    if share {
        format!("{:.1} %", measure.value * 100.0)
    } else {
        number(measure.value)
    }
}
