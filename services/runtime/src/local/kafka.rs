//! A private Apache Kafka: one KRaft node, started by `deploy/local/kafka/kafka.sh`.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use super::{free_port, wait_until};

/// How long a start may take: a cold JVM on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(90);

/// A private Kafka broker on a free loopback port.
#[derive(Debug)]
pub struct KafkaServer {
    child: Child,
    port: u16,
    controller_port: u16,
    directory: tempfile::TempDir,
}

impl KafkaServer {
    /// Starts one and waits until it answers.
    ///
    /// # Errors
    /// Kafka is not installed (`TRUNKLINE_KAFKA_HOME`), or does not answer in time.
    pub async fn start() -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix("trunkline-kafka-")
            .tempdir()?;
        let (port, controller_port) = (free_port()?, free_port()?);
        let child = spawn(&directory, port, controller_port)?;
        let mut server = Self {
            child,
            port,
            controller_port,
            directory,
        };
        server.answers().await?;
        Ok(server)
    }

    /// Its bootstrap address.
    #[must_use]
    pub fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.port)
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
        self.child.kill().await.context("killing Kafka")
    }

    /// Starts it again after [`KafkaServer::kill9`], on the same ports and data.
    ///
    /// # Errors
    /// It does not answer in time.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        self.child = spawn(&self.directory, self.port, self.controller_port)?;
        self.answers().await
    }

    async fn answers(&mut self) -> anyhow::Result<()> {
        let port = self.port;
        let answered = wait_until("Kafka answers", START_LIMIT, || async {
            tokio::time::timeout(Duration::from_secs(1), api_versions(port))
                .await
                .is_ok_and(|answer| answer.is_ok())
        });
        tokio::select! {
            biased;
            answered = answered => answered,
            status = self.child.wait() => {
                let log = std::fs::read_to_string(self.directory.path().join("start.log")).unwrap_or_default();
                let tail: Vec<&str> = log.lines().rev().take(12).collect();
                let tail: Vec<&str> = tail.into_iter().rev().collect();
                bail!("Kafka ended with {}; its last lines:\n{}", status?, tail.join("\n"))
            }
        }
    }
}

fn spawn(directory: &tempfile::TempDir, port: u16, controller_port: u16) -> anyhow::Result<Child> {
    let log = std::fs::File::options()
        .create(true)
        .append(true)
        .open(directory.path().join("start.log"))?;
    Command::new(script()?)
        .arg("exec")
        .arg(directory.path())
        .arg(port.to_string())
        .arg(controller_port.to_string())
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .context("starting Kafka: `make test` and `make demo KAFKA=1` install it")
}

/// The script, looked for upwards from the working folder and from the executable.
fn script() -> anyhow::Result<PathBuf> {
    const SCRIPT: &str = "deploy/local/kafka/kafka.sh";
    let mut starts = vec![std::env::current_dir()?];
    starts.extend(std::env::current_exe().ok());
    for start in starts {
        for folder in start.ancestors() {
            let candidate = folder.join(SCRIPT);
            if candidate.is_file() {
                return Ok(candidate);
            }
        }
    }
    bail!("{SCRIPT} was not found above the working folder: run this from the repository")
}

/// Asks a broker for its API versions (request key 18, version 0): the smallest question
/// that a broker answers only when it is up. Spoken by hand, so that this crate does not
/// have to link a Kafka client.
async fn api_versions(port: u16) -> anyhow::Result<()> {
    const CORRELATION: i32 = 7;
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let mut request = Vec::with_capacity(14);
    request.extend_from_slice(&10i32.to_be_bytes());
    request.extend_from_slice(&18i16.to_be_bytes());
    request.extend_from_slice(&0i16.to_be_bytes());
    request.extend_from_slice(&CORRELATION.to_be_bytes());
    request.extend_from_slice(&(-1i16).to_be_bytes());
    stream.write_all(&request).await?;
    let mut head = [0u8; 10];
    stream.read_exact(&mut head).await?;
    let correlation = i32::from_be_bytes([head[4], head[5], head[6], head[7]]);
    let error = i16::from_be_bytes([head[8], head[9]]);
    if correlation != CORRELATION || error != 0 {
        bail!("unexpected answer from the broker: correlation {correlation}, error {error}");
    }
    Ok(())
}
