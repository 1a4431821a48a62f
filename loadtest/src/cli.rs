//! Subcommands.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Parser, Subcommand, ValueEnum};

use crate::report::{Report, write_evidence};
use crate::run::dev::Dev;
use crate::run::play::{self, Judged};
use crate::run::roles::Roles;
use crate::{bench, scenario};

/// Plays scenarios against the mesh and holds it to its promises.
#[derive(Debug, Parser)]
#[command(name = "loadtest", version, about)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start `trunkline dev`, play a scenario, check every promise, write the report
    Demo {
        /// A scenario's name, or its file
        #[arg(long, default_value = "filing-season-monday")]
        scenario: String,
        /// Which Kafka
        #[arg(long, value_enum, default_value = "embedded")]
        kafka: Kafka,
        #[command(flatten)]
        common: Common,
    },
    /// The same with every role a process of its own, real Redis, real Kafka, and faults
    Load {
        /// A scenario's name, or its file
        #[arg(long)]
        scenario: String,
        #[command(flatten)]
        common: Common,
    },
    /// Decisions a second end to end beside the raw rate of the same messages on a stream
    Bench {
        /// How long each measurement takes, in seconds
        #[arg(long, default_value_t = 5)]
        seconds: u64,
        #[command(flatten)]
        common: Common,
    },
    /// Check a record again against a Kafka that still has the topic
    Check {
        /// record.jsonl of a run
        #[arg(long)]
        record: PathBuf,
        /// Bootstrap addresses
        #[arg(long)]
        kafka: String,
    },
    /// Write report.html again from a report.json
    Report {
        /// report.json of a run
        file: PathBuf,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kafka {
    /// librdkafka's in-process broker: memory only
    Embedded,
    /// Apache Kafka
    Apache,
}

#[derive(clap::Args, Debug)]
struct Common {
    /// The trunkline binary; absent: beside this one
    #[arg(long, env = "TRUNKLINE_BINARY")]
    trunkline: Option<PathBuf>,
    /// Where reports go, a folder for each scenario
    #[arg(long, default_value = "reports")]
    reports: PathBuf,
    /// Another seed than the scenario's
    #[arg(long)]
    seed: Option<u64>,
}

impl Common {
    fn binary(&self) -> anyhow::Result<PathBuf> {
        let path = match &self.trunkline {
            Some(path) => path.clone(),
            None => std::env::current_exe()?.with_file_name("trunkline"),
        };
        anyhow::ensure!(
            path.is_file(),
            "no trunkline binary at {}: build it, or name it with --trunkline",
            path.display()
        );
        Ok(path)
    }

    /// An empty folder for a run, with one for logs.
    fn folder(&self, name: &str) -> anyhow::Result<(PathBuf, PathBuf)> {
        let folder = self.reports.join(name);
        let logs = folder.join("logs");
        if logs.is_dir() {
            std::fs::remove_dir_all(&logs)
                .with_context(|| format!("emptying {}", logs.display()))?;
        }
        std::fs::create_dir_all(&logs).with_context(|| format!("making {}", logs.display()))?;
        Ok((folder, logs))
    }
}

impl Cli {
    /// Carries it out; false: a promise was broken.
    pub(crate) async fn run(self) -> anyhow::Result<bool> {
        match self.command {
            Command::Demo {
                scenario,
                kafka,
                common,
            } => demo(&scenario, kafka, &common).await,
            Command::Load { scenario, common } => load(&scenario, &common).await,
            Command::Bench { seconds, common } => {
                let (_, logs) = common.folder("bench")?;
                bench::run(&common.binary()?, seconds, &logs).await?;
                Ok(true)
            }
            Command::Check { record, kafka } => check(&record, &kafka).await,
            Command::Report { file } => {
                let report = Report::read(&file)?;
                let page = report.write(file.parent().unwrap_or(Path::new(".")))?;
                say(&format!("{}\nreport: {}", report.summary(), page.display()));
                Ok(report.kept)
            }
        }
    }
}

async fn demo(name: &str, kafka: Kafka, common: &Common) -> anyhow::Result<bool> {
    let binary = common.binary()?;
    let scratch = tempfile::tempdir()?;
    let mut loaded = scenario::load(name, scratch.path())?;
    loaded.scenario.seed = common.seed.unwrap_or(loaded.scenario.seed);
    let (folder, logs) = common.folder(&loaded.scenario.name)?;
    say(&format!(
        "{}: starting trunkline dev",
        loaded.scenario.title
    ));
    let kafka = match kafka {
        Kafka::Embedded => "embedded",
        Kafka::Apache => "apache",
    };
    let dev = Dev::start(&binary, loaded.policy_dir.as_deref(), kafka, &logs).await?;
    say(&format!(
        "the mesh is ready, Kafka: {}; {} s of calls follow",
        dev.kafka, loaded.scenario.seconds
    ));
    let record = folder.join("record.jsonl");
    play::play(
        &loaded,
        std::slice::from_ref(&dev.gateway),
        &dev.kafka,
        &record,
        drop,
    )
    .await?;
    say("checking every promise against the switch's record and the event log");
    let judged = play::judge(
        &record,
        &dev.places,
        &loaded.policy,
        &loaded.scenario.expect,
    )
    .await?;
    dev.stop().await?;
    conclude(&judged, &loaded.policy, &folder)
}

async fn load(name: &str, common: &Common) -> anyhow::Result<bool> {
    let binary = common.binary()?;
    let scratch = tempfile::tempdir()?;
    let mut loaded = scenario::load(name, scratch.path())?;
    loaded.scenario.seed = common.seed.unwrap_or(loaded.scenario.seed);
    let (folder, logs) = common.folder(&loaded.scenario.name)?;
    say(&format!(
        "{}: starting Redis, Kafka and every role",
        loaded.scenario.title
    ));
    let roles = Roles::start(&binary, &loaded, &logs).await?;
    let (places, gateways) = (roles.places(), roles.addresses("gateway"));
    say(&format!(
        "every role is ready; {} s of calls follow",
        loaded.scenario.seconds
    ));
    let record = folder.join("record.jsonl");
    let mut suffering = None;
    let mut roles = Some(roles);
    let faults = loaded.scenario.faults.clone();
    play::play(&loaded, &gateways, "Apache Kafka", &record, |cue| {
        if let Some(roles) = roles.take() {
            suffering = Some(tokio::spawn(roles.suffer(
                faults,
                cue.began,
                cue.events_node,
                cue.notes,
            )));
        }
    })
    .await?;
    let (roles, suffered) = suffering.context("the run did not begin")?.await?;
    suffered?;
    say("checking every promise against the switch's record and the event log");
    let judged = play::judge(&record, &places, &loaded.policy, &loaded.scenario.expect).await?;
    roles.stop().await?;
    conclude(&judged, &loaded.policy, &folder)
}

async fn check(record: &Path, kafka: &str) -> anyhow::Result<bool> {
    let lines = crate::record::read(record)?;
    let name = lines.iter().find_map(|line| match &line.entry {
        crate::record::Entry::Run(run) => Some(run.scenario.clone()),
        _ => None,
    });
    let scratch = tempfile::tempdir()?;
    let loaded = scenario::load(
        &name.context("the record does not begin with its run")?,
        scratch.path(),
    )?;
    let judged = play::check_again(record, kafka, &loaded.policy, &loaded.scenario.expect).await?;
    conclude(
        &judged,
        &loaded.policy,
        record.parent().unwrap_or(Path::new(".")),
    )
}

fn conclude(
    judged: &Judged,
    policy: &domain::policy::Policy,
    folder: &Path,
) -> anyhow::Result<bool> {
    let report = Report::of(judged, policy)?;
    let page = report.write(folder)?;
    say(&format!("{}\nreport: {}", report.summary(), page.display()));
    if let Some(evidence) = write_evidence(judged, folder)? {
        say(&format!(
            "what is known of the contacts concerned: {}",
            evidence.display()
        ));
    }
    Ok(report.kept)
}

#[expect(clippy::print_stdout, reason = "what the command is for")]
fn say(text: &str) {
    println!("{text}");
}
