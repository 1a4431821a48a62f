//! A private `redis-server`.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::process::{Child, Command};

use super::free_port;

/// When a write is on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Within a second: routing's state, which the switch's snapshot can restore.
    EverySecond,
    /// Before it is acknowledged: callbacks.
    Always,
}

/// A private Redis on a free loopback port, append-only file on.
#[derive(Debug)]
pub struct RedisServer {
    child: Child,
    port: u16,
    durability: Durability,
    directory: tempfile::TempDir,
}

impl RedisServer {
    /// Starts one and waits until it answers.
    ///
    /// # Errors
    /// `redis-server` is not installed, or does not answer within 10 s.
    pub async fn start(durability: Durability) -> anyhow::Result<Self> {
        let mut directory = tempfile::Builder::new()
            .prefix("trunkline-redis-")
            .tempdir()?;
        // Another process may take the port between our look and Redis's bind.
        for _ in 0..5 {
            let port = free_port()?;
            let child = spawn(port, durability, &directory)?;
            let mut server = Self {
                child,
                port,
                durability,
                directory,
            };
            if server.answers().await.is_ok() {
                return Ok(server);
            }
            directory = server.into_directory().await;
        }
        bail!("redis-server did not start on any of five free ports")
    }

    /// Its URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    /// Its port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Kills it with SIGKILL and waits until it is gone.
    ///
    /// # Errors
    /// The process cannot be waited for.
    pub async fn kill9(&mut self) -> anyhow::Result<()> {
        self.child.kill().await.context("killing redis-server")
    }

    /// Starts it again after [`RedisServer::kill9`], on the same port and data.
    ///
    /// # Errors
    /// It does not answer within 10 s.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        self.child = spawn(self.port, self.durability, &self.directory)?;
        self.answers().await
    }

    async fn answers(&mut self) -> anyhow::Result<()> {
        let client = redis::Client::open(self.url())?;
        for _ in 0..500 {
            if let Some(status) = self.child.try_wait()? {
                bail!("redis-server ended with {status}");
            }
            if let Ok(mut connection) = client.get_multiplexed_async_connection().await
                && redis::cmd("PING")
                    .query_async::<String>(&mut connection)
                    .await
                    .is_ok()
            {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        bail!("redis-server on port {} does not answer", self.port)
    }

    async fn into_directory(mut self) -> tempfile::TempDir {
        // It has ended already, or is of no use: either way nothing depends on the result.
        let _ = self.child.kill().await;
        self.directory
    }
}

fn spawn(
    port: u16,
    durability: Durability,
    directory: &tempfile::TempDir,
) -> anyhow::Result<Child> {
    let sync = match durability {
        Durability::EverySecond => "everysec",
        Durability::Always => "always",
    };
    Command::new("redis-server")
        .args([
            "--port",
            &port.to_string(),
            "--bind",
            "127.0.0.1",
            "--protected-mode",
            "yes",
        ])
        .args(["--appendonly", "yes", "--appendfsync", sync, "--save", ""])
        .args([
            "--auto-aof-rewrite-percentage",
            "0",
            "--loglevel",
            "warning",
        ])
        .arg("--dir")
        .arg(directory.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .context("starting redis-server: is it installed? `make test` and `make demo` install it")
}
