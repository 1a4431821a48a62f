//! A run from the first link to the last entry, and the judgement afterwards.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use domain::policy::Policy;
use tokio::sync::{mpsc, watch};

use super::driver::{Driver, NOTES_MAX, Phases};
use crate::check::facts::Facts;
use crate::check::live::{self, Live, Places};
use crate::check::log::Log;
use crate::check::pii::Scanner;
use crate::check::{Evidence, Verdict, callbacks, every_promise};
use crate::dice::mix;
use crate::net::Links;
use crate::people::People;
use crate::progress::Progress;
use crate::record::{Entry, Line, RunInfo, Writer};
use crate::scenario::schedule::Schedule;
use crate::scenario::words::Words;
use crate::scenario::{Expect, Loaded};
use crate::switch::{Config, Core};
use crate::time::{Clock, MILLISECOND, SECOND};

/// The topic has not grown for this long: nothing more comes.
const QUIET: Duration = Duration::from_secs(3);
/// How long to wait for that, and for contacts to be closed.
const QUIET_LIMIT: Duration = Duration::from_secs(120);

/// Tells who breaks things when the first call comes and where the events go.
#[derive(Debug)]
pub(crate) struct Cue {
    /// The first call.
    pub(crate) began: tokio::time::Instant,
    /// The node that the events go to.
    pub(crate) events_node: watch::Receiver<Option<usize>>,
    /// Faults are told here.
    pub(crate) notes: mpsc::Sender<Entry>,
}

/// A finished run.
#[derive(Debug)]
pub(crate) struct Judged {
    /// From the record.
    pub(crate) lines: Vec<Line>,
    /// In order.
    pub(crate) facts: Facts,
    /// From Kafka.
    pub(crate) log: Log,
    /// Asked of the mesh.
    pub(crate) live: Option<Live>,
    /// The promises.
    pub(crate) verdicts: Vec<Verdict>,
}

impl Judged {
    /// Violations of all promises.
    pub(crate) fn violations(&self) -> u64 {
        self.verdicts.iter().map(|verdict| verdict.violations).sum()
    }
}

/// Plays a scenario against the gateways and writes the record. `cue` is called when the
/// first call is about to come.
pub(crate) async fn play(
    loaded: &Loaded,
    gateways: &[String],
    kafka: &str,
    record: &Path,
    cue: impl FnOnce(Cue),
) -> anyhow::Result<()> {
    let scenario = Arc::new(loaded.scenario.clone());
    let schedule = Schedule::draw(&scenario, &loaded.policy);
    let clock = Clock::start();
    let boot_id = mix(clock.now()) | 1;
    let config = Config {
        switch_id: "loadtest-switch".to_owned(),
        boot_id,
        reply_timeout: u64::from(scenario.reply_timeout_ms) * MILLISECOND,
        ring_max: scenario.agents.ring_max_ms * MILLISECOND,
        announcement: 200 * MILLISECOND,
        callback_lines: loaded
            .policy
            .lines
            .values()
            .filter_map(|line| Some((line.callback_number.clone(), line.numbers.first()?.clone())))
            .collect(),
    };
    let mut writer = Writer::create(record)?;
    let run = RunInfo {
        scenario: scenario.name.clone(),
        title: scenario.title.clone(),
        seed: scenario.seed,
        switch_id: config.switch_id.clone(),
        boot_id,
        nodes: gateways.to_vec(),
        kafka: kafka.to_owned(),
        scheduled: schedule.arrivals.len() as u64,
        callers: schedule.arrivals.len() as u32,
    };
    writer.write(&Line {
        at: clock.now(),
        entry: Entry::Run(run),
    })?;
    let (links, inbound) = Links::open(gateways)?;
    let (notes, noted) = mpsc::channel(NOTES_MAX);
    let core = Core::new(config, gateways);
    let mut driver = Driver::new(
        clock,
        core,
        inbound,
        noted,
        writer,
        Progress::new(clock.now())?,
    );
    driver
        .connect(gateways.len(), Duration::from_secs(30))
        .await?;
    let began = clock.now() + (scenario.agents.log_on_s * 1e6) as u64 + 300 * MILLISECOND;
    driver.progress.begins(began);
    let words = Words::own()?;
    let mut people = People::new(
        Arc::clone(&scenario),
        &loaded.policy,
        schedule,
        words,
        began,
    );
    cue(Cue {
        began: tokio::time::Instant::from_std(clock.instant(began)),
        events_node: driver.events_node.subscribe(),
        notes,
    });
    let open_until = began + (scenario.seconds * 1e6) as u64;
    let phases = Phases {
        open_until,
        drain_until: open_until + (scenario.drain_s * 1e6) as u64,
        close_max: 30 * SECOND,
    };
    driver.play(&mut people, phases).await?;
    driver.finish()?;
    drop(links);
    Ok(())
}

/// Waits until the log is complete, asks what is to be asked, and checks every promise.
pub(crate) async fn judge(
    record: &Path,
    places: &Places,
    policy: &Policy,
    expect: &Expect,
) -> anyhow::Result<Judged> {
    let mut lines = read_record(record).await?;
    let mut facts = Facts::from_lines(&lines);
    let callers = facts.run.as_ref().map_or(0, |run| run.callers);
    let scanner = Scanner::new(callers);
    let began = std::time::Instant::now();
    let (log, caught_up, lag) = loop {
        let left = QUIET_LIMIT.saturating_sub(began.elapsed()).max(QUIET * 3);
        let (caught_up, lag) = live::wait_until_quiet(places, QUIET, left).await?;
        let log = read_log(places, &scanner).await?;
        if complete(&facts, &log) || began.elapsed() > QUIET_LIMIT {
            break (log, caught_up, lag);
        }
    };
    let mut added = Vec::new();
    for (holder, _) in callbacks::holders(&facts, &log) {
        let to_come = log
            .contacts
            .get(holder)
            .is_none_or(|contact| contact.callback_to_come() || !contact.booked_at(u64::MAX));
        if to_come && let Some((found, state)) = live::booking(places, holder).await {
            added.push(Line {
                at: facts.span.1,
                entry: Entry::Pending {
                    contact: holder.to_owned(),
                    found,
                    state,
                },
            });
        }
    }
    append(record, &added)?;
    lines.append(&mut added);
    facts = Facts::from_lines(&lines);
    let mut live = live::collect(places, &scanner).await?;
    (live.caught_up, live.lag) = (caught_up, lag);
    let path = record.with_file_name("live.json");
    std::fs::write(&path, serde_json::to_vec(&live)?)
        .with_context(|| format!("writing {}", path.display()))?;
    Ok(verdicts(lines, facts, log, Some(live), policy, expect))
}

/// Checks a record again, against a Kafka that still has its topic.
pub(crate) async fn check_again(
    record: &Path,
    kafka: &str,
    policy: &Policy,
    expect: &Expect,
) -> anyhow::Result<Judged> {
    let lines = read_record(record).await?;
    let facts = Facts::from_lines(&lines);
    let places = Places {
        kafka: kafka.to_owned(),
        ..Places::default()
    };
    let log = read_log(
        &places,
        &Scanner::new(facts.run.as_ref().map_or(0, |run| run.callers)),
    )
    .await?;
    let live = std::fs::read(record.with_file_name("live.json"))
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok());
    Ok(verdicts(lines, facts, log, live, policy, expect))
}

fn verdicts(
    lines: Vec<Line>,
    facts: Facts,
    log: Log,
    live: Option<Live>,
    policy: &Policy,
    expect: &Expect,
) -> Judged {
    let evidence = Evidence {
        facts: &facts,
        log: &log,
        live: live.as_ref(),
        policy,
        expect,
    };
    let verdicts = every_promise(&evidence);
    Judged {
        lines,
        facts,
        log,
        live,
        verdicts,
    }
}

async fn read_record(record: &Path) -> anyhow::Result<Vec<Line>> {
    let path: PathBuf = record.to_owned();
    tokio::task::spawn_blocking(move || crate::record::read(&path)).await?
}

async fn read_log(places: &Places, scanner: &Scanner) -> anyhow::Result<Log> {
    let (brokers, scanner) = (places.kafka.clone(), scanner.clone());
    tokio::task::spawn_blocking(move || crate::check::log::read(&brokers, &scanner)).await?
}

fn append(record: &Path, lines: &[Line]) -> anyhow::Result<()> {
    use std::io::Write as _;
    let mut file = std::fs::File::options().append(true).open(record)?;
    for line in lines {
        serde_json::to_writer(&mut file, line)?;
        file.write_all(b"\n")?;
    }
    Ok(())
}

/// Every contact of the record whose calls are over is closed in the log, those with a
/// callback to come apart.
fn complete(facts: &Facts, log: &Log) -> bool {
    let closed = facts.contacts.keys().all(|id| {
        log.contacts
            .get(id)
            .is_some_and(|contact| contact.closed() || contact.callback_to_come())
    });
    let nameless = facts
        .calls
        .values()
        .filter(|call| call.contact.is_empty() && call.cleared.is_some())
        .count();
    let unknown = log
        .contacts
        .keys()
        .filter(|id| !facts.contacts.contains_key(*id))
        .count();
    closed && unknown >= nameless
}
