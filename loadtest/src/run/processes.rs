//! Roles as processes: started, asked whether they are ready, killed, started again.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use tokio::process::{Child, Command};

use crate::check::live::http_get;

/// How long a role may take to become ready; the first start of intent trains its model.
const READY_LIMIT: Duration = Duration::from_secs(120);
/// How long a role may take to drain.
const DRAIN_LIMIT: Duration = Duration::from_secs(20);

/// One process of a role.
#[derive(Debug)]
pub(crate) struct Role {
    /// "gateway-1".
    pub(crate) name: String,
    /// gRPC address.
    pub(crate) grpc: String,
    /// Admin address.
    pub(crate) admin: String,
    binary: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    log: PathBuf,
    child: Option<Child>,
}

impl Role {
    /// A role on two free ports; `arguments` come after the role's name.
    pub(crate) fn new(
        binary: &Path,
        role: &str,
        number: u32,
        mut arguments: Vec<String>,
        environment: Vec<(String, String)>,
        logs: &Path,
    ) -> anyhow::Result<Self> {
        let grpc = format!("127.0.0.1:{}", runtime::local::free_port()?);
        let admin = format!("127.0.0.1:{}", runtime::local::free_port()?);
        let name = format!("{role}-{number}");
        let mut all = vec![
            role.to_owned(),
            format!("--listen={grpc}"),
            format!("--admin-listen={admin}"),
            format!("--instance={name}"),
        ];
        all.append(&mut arguments);
        let log = logs.join(format!("{name}.log"));
        Ok(Self {
            name,
            grpc,
            admin,
            binary: binary.to_owned(),
            arguments: all,
            environment,
            log,
            child: None,
        })
    }

    /// Starts it; its output is appended to its log.
    pub(crate) fn start(&mut self) -> anyhow::Result<()> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(&self.log)
            .with_context(|| format!("log {}", self.log.display()))?;
        let child = Command::new(&self.binary)
            .args(&self.arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("starting {} ({})", self.name, self.binary.display()))?;
        self.child = Some(child);
        Ok(())
    }

    /// Waits until `/ready` says so.
    pub(crate) async fn ready(&mut self) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            if let Some(child) = &mut self.child
                && let Some(status) = child.try_wait()?
            {
                bail!(
                    "{} ended with {status}; its last lines:\n{}",
                    self.name,
                    self.tail()
                );
            }
            let page = http_get(&self.admin, "/ready").await;
            if page
                .as_ref()
                .is_ok_and(|page| page.starts_with("HTTP/1.1 200"))
            {
                return Ok(());
            }
            if began.elapsed() > READY_LIMIT {
                let page = page.unwrap_or_default();
                bail!(
                    "{} is not ready after {READY_LIMIT:?}: {}; its last lines:\n{}",
                    self.name,
                    page.lines().last().unwrap_or_default(),
                    self.tail()
                );
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// SIGKILL, and waits until it is gone.
    pub(crate) async fn kill9(&mut self) -> anyhow::Result<()> {
        if let Some(mut child) = self.child.take() {
            child
                .kill()
                .await
                .with_context(|| format!("killing {}", self.name))?;
        }
        Ok(())
    }

    /// SIGTERM, and waits until it has drained.
    ///
    /// # Errors
    /// It ended with an error, or not within the limit.
    pub(crate) async fn drain(&mut self) -> anyhow::Result<()> {
        let Some(child) = &mut self.child else {
            return Ok(());
        };
        terminate(child).await?;
        match tokio::time::timeout(DRAIN_LIMIT, child.wait()).await {
            Ok(status) => {
                let status = status?;
                self.child = None;
                anyhow::ensure!(
                    status.success(),
                    "{} drained with {status}; its last lines:\n{}",
                    self.name,
                    self.tail()
                );
                Ok(())
            }
            Err(_) => {
                self.kill9().await?;
                bail!("{} did not drain within {DRAIN_LIMIT:?}", self.name)
            }
        }
    }

    fn tail(&self) -> String {
        tail(&self.log)
    }
}

/// The last lines of a log.
pub(crate) fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(12)..].join("\n")
}

/// Asks a child to end. The standard library knows only SIGKILL, and this workspace has no
/// unsafe code: `kill` is part of every system that runs a shell.
pub(crate) async fn terminate(child: &Child) -> anyhow::Result<()> {
    let Some(id) = child.id() else { return Ok(()) };
    let status = Command::new("kill")
        .arg("-TERM")
        .arg(id.to_string())
        .status()
        .await
        .context("sending SIGTERM")?;
    anyhow::ensure!(status.success(), "kill -TERM {id} ended with {status}");
    Ok(())
}
