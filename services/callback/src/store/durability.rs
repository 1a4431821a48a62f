//! Whether a write that the store has acknowledged outlives the store's process.

use redis::aio::ConnectionManager;

/// How a booking is made durable before it is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Durability {
    /// The server syncs its append-only file before it answers.
    Always,
    /// A number of replicas must have it (`WAIT`).
    Replicas(u32),
    /// The server's own append-only file must have it (`WAITAOF`, Redis 7.2 and later).
    AppendOnlyFile,
    /// Not: the server answers before the write is on disk.
    None,
    /// Not: fewer replicas are connected than must have a write.
    TooFewReplicas,
}

impl Durability {
    /// Asks the server. `replicas`: how many must have a write, 0: none need to.
    pub(crate) async fn of(
        connection: &mut ConnectionManager,
        replicas: u32,
    ) -> Result<Self, redis::RedisError> {
        if replicas > 0 {
            let enough = connected_replicas(connection).await? >= replicas;
            return Ok(if enough {
                Durability::Replicas(replicas)
            } else {
                Durability::TooFewReplicas
            });
        }
        let append_only = setting(connection, "appendonly").await?;
        let sync = setting(connection, "appendfsync").await?;
        if append_only != "yes" {
            return Ok(Durability::None);
        }
        if sync == "always" {
            return Ok(Durability::Always);
        }
        // 0 replicas and 0 files are asked for: answered at once by a server that knows it.
        let known = redis::cmd("WAITAOF")
            .arg(0)
            .arg(0)
            .arg(1)
            .query_async::<redis::Value>(connection)
            .await
            .is_ok();
        Ok(if known {
            Durability::AppendOnlyFile
        } else {
            Durability::None
        })
    }

    /// Waits until what this connection has written is durable. `false`: not within `timeout_ms`.
    pub(crate) async fn wait(
        self,
        connection: &mut ConnectionManager,
        timeout_ms: u64,
    ) -> Result<bool, redis::RedisError> {
        match self {
            Durability::Always | Durability::None | Durability::TooFewReplicas => Ok(true),
            Durability::Replicas(wanted) => {
                let have: u32 = redis::cmd("WAIT")
                    .arg(wanted)
                    .arg(timeout_ms)
                    .query_async(connection)
                    .await?;
                Ok(have >= wanted)
            }
            Durability::AppendOnlyFile => {
                let (local, _): (u32, u32) = redis::cmd("WAITAOF")
                    .arg(1)
                    .arg(0)
                    .arg(timeout_ms)
                    .query_async(connection)
                    .await?;
                Ok(local >= 1)
            }
        }
    }

    /// For logs and `/ready`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Durability::Always => "appendfsync always",
            Durability::Replicas(_) => "replicas",
            Durability::AppendOnlyFile => "append-only file, awaited",
            Durability::None => "none: set appendonly yes and appendfsync always",
            Durability::TooFewReplicas => {
                "none: fewer replicas are connected than durable_replicas"
            }
        }
    }
}

async fn connected_replicas(connection: &mut ConnectionManager) -> Result<u32, redis::RedisError> {
    let text: String = redis::cmd("INFO")
        .arg("replication")
        .query_async(connection)
        .await?;
    let count = text
        .lines()
        .find_map(|line| line.strip_prefix("connected_slaves:"));
    Ok(count
        .and_then(|count| count.trim().parse().ok())
        .unwrap_or(0))
}

async fn setting(
    connection: &mut ConnectionManager,
    name: &str,
) -> Result<String, redis::RedisError> {
    let pair: Vec<String> = redis::cmd("CONFIG")
        .arg("GET")
        .arg(name)
        .query_async(connection)
        .await?;
    Ok(pair.into_iter().nth(1).unwrap_or_default())
}
