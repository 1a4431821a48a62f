//! `trunkline dev` as a child: the whole mesh in one process.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use super::processes::{tail, terminate};
use crate::check::live::Places;

/// How long it may take to become ready, training and Kafka's start included.
const READY_LIMIT: Duration = Duration::from_secs(180);
/// How long it may take to drain.
const DRAIN_LIMIT: Duration = Duration::from_secs(30);

/// The line it prints when it is ready.
#[derive(Debug, Deserialize)]
struct Ready {
    event: String,
    gateway: String,
    callback: String,
    outcomes: String,
    admin: BTreeMap<String, String>,
    kafka: String,
    #[serde(default)]
    kafka_kind: String,
    redis: Option<String>,
    callback_redis: Option<String>,
}

/// The child.
#[derive(Debug)]
pub(crate) struct Dev {
    child: Child,
    /// Where the switch attaches.
    pub(crate) gateway: String,
    /// Where to ask afterwards.
    pub(crate) places: Places,
    /// Kafka, in words.
    pub(crate) kafka: String,
}

impl Dev {
    /// Starts it and waits until it is ready.
    pub(crate) async fn start(
        binary: &Path,
        policy: Option<&Path>,
        kafka: &str,
        logs: &Path,
    ) -> anyhow::Result<Self> {
        Self::start_with(binary, policy, kafka, logs, &[]).await
    }

    /// The same, with options of its roles in the environment.
    pub(crate) async fn start_with(
        binary: &Path,
        policy: Option<&Path>,
        kafka: &str,
        logs: &Path,
        environment: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        let log = logs.join("dev.log");
        let mut command = Command::new(binary);
        command.arg("dev").arg(format!("--kafka={kafka}"));
        if let Some(policy) = policy {
            command.arg("--policy-dir").arg(policy);
        }
        let mut child = command
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(&log)?)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("starting {} dev", binary.display()))?;
        let stdout = child.stdout.take().context("the child's output")?;
        let mut lines = BufReader::new(stdout).lines();
        let mut file = File::options().append(true).open(&log)?;
        let wait = async {
            while let Some(line) = lines.next_line().await? {
                if let Ok(ready) = serde_json::from_str::<Ready>(&line)
                    && ready.event == "ready"
                {
                    return Ok(ready);
                }
                writeln!(file, "{line}")?;
            }
            anyhow::bail!("it ended; its last lines:\n{}", tail(&log))
        };
        let ready = tokio::time::timeout(READY_LIMIT, wait)
            .await
            .with_context(|| {
                format!(
                    "trunkline dev was not ready within {READY_LIMIT:?}; its last lines:\n{}",
                    tail(&log)
                )
            })?
            .context("trunkline dev")?;
        // The rest of its output goes to the log.
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                if writeln!(file, "{line}").is_err() {
                    return;
                }
            }
        });
        let places = Places {
            kafka: ready.kafka.clone(),
            outcomes: vec![ready.outcomes],
            callbacks: vec![ready.callback],
            admin: ready.admin.into_iter().collect(),
            redis: [ready.redis, ready.callback_redis]
                .into_iter()
                .flatten()
                .collect(),
            logs: Some(PathBuf::from(logs)),
        };
        let kafka = if ready.kafka_kind.is_empty() {
            kafka.to_owned()
        } else {
            ready.kafka_kind
        };
        Ok(Self {
            child,
            gateway: ready.gateway,
            places,
            kafka,
        })
    }

    /// Has it drain and end.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        terminate(&self.child).await?;
        let status = tokio::time::timeout(DRAIN_LIMIT, self.child.wait())
            .await
            .with_context(|| format!("trunkline dev did not drain within {DRAIN_LIMIT:?}"))??;
        anyhow::ensure!(status.success(), "trunkline dev drained with {status}");
        Ok(())
    }
}
