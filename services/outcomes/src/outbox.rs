//! A pool's outbox in Redis, as the relay uses it. Its layout is routing's
//! (`services/routing/src/store.rs`): `PREFIX:pools` names the pools, and
//! `{PREFIX:POOL}:outbox` is a stream with the fields `k` (contact id), `s` (sequence), `v`
//! (the event) and `t` (traceparent).

use std::collections::BTreeMap;
use std::sync::Arc;

use redis::aio::ConnectionManager;
use redis::streams::StreamRangeReply;
use redis::{RedisResult, Script};

/// Where the outboxes are.
#[derive(Clone)]
pub(crate) struct Outboxes {
    connection: ConnectionManager,
    prefix: String,
    instance: String,
    lease_ms: u64,
    renew: Arc<Script>,
    release: Arc<Script>,
}

/// One pool's outbox.
#[derive(Clone)]
pub(crate) struct Outbox {
    outboxes: Outboxes,
    pool: String,
    stream: String,
    lease: String,
}

/// An entry of an outbox.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) id: String,
    /// `None`: it has none, which routing never writes.
    pub(crate) contact: Option<String>,
    /// Likewise.
    pub(crate) event: Option<Vec<u8>>,
    pub(crate) traceparent: String,
}

impl Outboxes {
    pub(crate) fn new(
        connection: ConnectionManager,
        prefix: &str,
        instance: &str,
        lease_ms: u64,
    ) -> Self {
        Self {
            connection,
            prefix: prefix.to_owned(),
            instance: instance.to_owned(),
            lease_ms,
            renew: Arc::new(Script::new(include_str!("lua/renew.lua"))),
            release: Arc::new(Script::new(include_str!("lua/release.lua"))),
        }
    }

    /// All pools that were ever owned.
    pub(crate) async fn pools(&self) -> RedisResult<Vec<String>> {
        redis::cmd("SMEMBERS")
            .arg(format!("{}:pools", self.prefix))
            .query_async(&mut self.connection.clone())
            .await
    }

    pub(crate) fn outbox(&self, pool: &str) -> Outbox {
        Outbox {
            stream: format!("{{{}:{pool}}}:outbox", self.prefix),
            lease: format!("{{{}:{pool}}}:relay", self.prefix),
            pool: pool.to_owned(),
            outboxes: self.clone(),
        }
    }
}

impl Outbox {
    pub(crate) fn pool(&self) -> &str {
        &self.pool
    }

    fn connection(&self) -> ConnectionManager {
        self.outboxes.connection.clone()
    }

    /// Takes the lease, if it is free.
    pub(crate) async fn lease(&self) -> RedisResult<bool> {
        let taken: Option<String> = redis::cmd("SET")
            .arg(&self.lease)
            .arg(&self.outboxes.instance)
            .arg("NX")
            .arg("PX")
            .arg(self.outboxes.lease_ms)
            .query_async(&mut self.connection())
            .await?;
        Ok(taken.is_some())
    }

    /// Prolongs it; `false`: it is not ours any more.
    pub(crate) async fn renew(&self) -> RedisResult<bool> {
        let renewed: bool = self
            .outboxes
            .renew
            .key(&self.lease)
            .arg(&self.outboxes.instance)
            .arg(self.outboxes.lease_ms)
            .invoke_async(&mut self.connection())
            .await?;
        if renewed {
            Ok(true)
        } else {
            self.lease().await
        }
    }

    pub(crate) async fn release(&self) -> RedisResult<()> {
        let _was_ours: i64 = self
            .outboxes
            .release
            .key(&self.lease)
            .arg(&self.outboxes.instance)
            .invoke_async(&mut self.connection())
            .await?;
        Ok(())
    }

    /// Up to `count` entries after `cursor`, or from the first.
    pub(crate) async fn read(&self, cursor: Option<&str>, count: usize) -> RedisResult<Vec<Entry>> {
        let start = cursor.map_or_else(|| "-".to_owned(), |id| format!("({id}"));
        let reply: StreamRangeReply = redis::cmd("XRANGE")
            .arg(&self.stream)
            .arg(start)
            .arg("+")
            .arg("COUNT")
            .arg(count)
            .query_async(&mut self.connection())
            .await?;
        let mut entries = Vec::with_capacity(reply.ids.len());
        for found in reply.ids {
            let mut fields: BTreeMap<String, Vec<u8>> = BTreeMap::new();
            for (name, value) in found.map {
                fields.insert(name, redis::from_redis_value(value)?);
            }
            let text = |bytes: Vec<u8>| String::from_utf8(bytes).ok();
            entries.push(Entry {
                id: found.id,
                contact: fields.remove("k").and_then(text),
                event: fields.remove("v"),
                traceparent: fields.remove("t").and_then(text).unwrap_or_default(),
            });
        }
        Ok(entries)
    }

    /// Drops every entry up to and with `last`.
    pub(crate) async fn trim(&self, last: &str) -> RedisResult<()> {
        let _trimmed: u64 = redis::cmd("XTRIM")
            .arg(&self.stream)
            .arg("MINID")
            .arg(after(last))
            .query_async(&mut self.connection())
            .await?;
        Ok(())
    }

    /// Entries in it.
    pub(crate) async fn entries(&self) -> RedisResult<u64> {
        redis::cmd("XLEN")
            .arg(&self.stream)
            .query_async(&mut self.connection())
            .await
    }
}

/// The smallest id after `id`.
fn after(id: &str) -> String {
    let (ms, sequence) = id.split_once('-').unwrap_or((id, "0"));
    match sequence
        .parse::<u64>()
        .ok()
        .and_then(|sequence| sequence.checked_add(1))
    {
        Some(next) => format!("{ms}-{next}"),
        None => format!("{}-0", ms.parse::<u64>().unwrap_or(0).saturating_add(1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_after_an_id_is_the_smallest_greater_one() {
        assert_eq!(after("1700000000000-4"), "1700000000000-5");
        assert_eq!(after("7-18446744073709551615"), "8-0");
    }
}
