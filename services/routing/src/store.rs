//! What routing keeps in Redis: pools' state, leases and outboxes.
//!
//! # Key layout
//! `PREFIX` is `--key-prefix` (default `trunkline`), `POOL` a pool's name. All keys of a
//! pool share one hash tag, so that one script reaches them in a cluster too.
//!
//! | key | type | holds |
//! |---|---|---|
//! | `PREFIX:pools` | set | names of all pools ever owned: how the outcomes relay finds the outboxes |
//! | `{PREFIX:POOL}:lease` | hash, PX expiry | `epoch`, `owner` (instance and a process nonce), `address`: who owns the pool now; gone = free |
//! | `{PREFIX:POOL}:fence` | hash | `epoch`, `owner`, `batch`: the highest epoch given out, to whom, and the last batch applied in it. Never expires |
//! | `{PREFIX:POOL}:contacts` | hash | contact id as text -> `domain::pool::ContactRecord`, rmp-serde named |
//! | `{PREFIX:POOL}:agents` | hash | agent id -> `domain::pool::AgentRecord`, rmp-serde named |
//! | `{PREFIX:POOL}:meta` | hash | `record` -> `domain::pool::MetaRecord`, rmp-serde named; `now` -> pool time of the last batch, ms |
//! | `{PREFIX:POOL}:outbox` | stream | one entry an event: `k` contact id as text, `s` sequence in decimal, `v` `trunkline.event.v1.ContactEvent` as protobuf, `t` traceparent (may be empty) |
//!
//! The relay reads an outbox with XREAD/XRANGE, publishes, and trims what Kafka has
//! acknowledged (`XTRIM MINID` or `XDEL`). Routing only ever appends. Entries of one
//! contact are in order of sequence; after a Redis that lost its last writes an entry can
//! be there twice: de-duplicate by (k, s).
//!
//! # Fence and lease
//! The **fence** is what makes a second writer harmless: every commit names its epoch and
//! owner, and the script refuses it when the fence says otherwise. The **lease** is only
//! about liveness: when it has run out another replica may raise the fence. So a commit
//! by an owner whose lease ran out unnoticed is still right as long as nobody took over.
//! Epochs are `max(last + 1, Redis time in ms)`: they rise even over a Redis that came back
//! empty.
//!
//! # A commit is applied once
//! Batches of an epoch are numbered. The script applies batch n only on top of n - 1;
//! the same n again (its answer was lost) is "applied"; and a hole means that Redis came
//! back without its last writes (`appendfsync everysec`): the owner, who still has them,
//! plays them again.
//!
//! Rejected: WATCH/MULTI (a round trip more, and no check inside), one key per contact
//! (a load would need SCAN over the whole key space), Redis functions (not in 6.2).

use std::collections::BTreeMap;
use std::sync::Arc;

use domain::{ContactId, TimeMs};
use redis::aio::ConnectionManager;
use redis::{Cmd, ErrorKind, RedisResult, Script, ServerErrorKind};

/// Fields fetched in one HSCAN step: some 300 KB a reply, so that nobody else waits long.
const SCAN_COUNT: u32 = 1_000;

/// Names of one pool's keys.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    pub(crate) lease: String,
    pub(crate) fence: String,
    pub(crate) contacts: String,
    pub(crate) agents: String,
    pub(crate) meta: String,
    pub(crate) outbox: String,
}

impl Keys {
    pub(crate) fn new(prefix: &str, pool: &str) -> Self {
        let key = |what: &str| format!("{{{prefix}:{pool}}}:{what}");
        Self {
            lease: key("lease"),
            fence: key("fence"),
            contacts: key("contacts"),
            agents: key("agents"),
            meta: key("meta"),
            outbox: key("outbox"),
        }
    }
}

/// Who we are, towards the lease.
#[derive(Clone, Debug)]
pub(crate) struct Owner {
    /// Instance and a nonce of this process: a restarted replica is somebody else.
    pub(crate) name: String,
    /// Where peers reach this replica.
    pub(crate) address: String,
    /// The lease's length.
    pub(crate) lease_ms: u64,
}

/// What came of asking for a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Acquired {
    /// Somebody has it.
    Held {
        /// Who.
        owner: String,
    },
    /// Ours, as a new epoch: load it.
    New {
        /// The epoch.
        epoch: u64,
    },
}

/// What came of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Committed {
    /// It is there, and is there once.
    Applied {
        /// Entries in the outbox.
        outbox_events: u64,
    },
    /// Another owner: nothing was written.
    Deposed {
        /// The fence's epoch.
        epoch: u64,
    },
    /// Redis came back without its last writes: nothing was written.
    Gap {
        /// The last batch that is there.
        stored: u64,
    },
}

/// One field of a hash.
type Field = (Vec<u8>, Vec<u8>);

/// A hash as it came out of Redis.
pub(crate) type Fields = BTreeMap<Vec<u8>, Vec<u8>>;

/// A loaded pool, still encoded.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    /// Id to record.
    pub(crate) contacts: Fields,
    /// Id to record.
    pub(crate) agents: Fields,
    pub(crate) meta: Option<Vec<u8>>,
    /// Pool time of the last batch.
    pub(crate) now: TimeMs,
}

/// An event, encoded.
#[derive(Debug)]
pub(crate) struct OutboxEntry {
    pub(crate) contact: ContactId,
    pub(crate) sequence: u64,
    pub(crate) bytes: Vec<u8>,
    pub(crate) traceparent: String,
}

/// One batch's changes, encoded.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) contacts: Vec<(ContactId, Vec<u8>)>,
    pub(crate) contacts_gone: Vec<ContactId>,
    pub(crate) agents: Vec<(String, Vec<u8>)>,
    pub(crate) agents_gone: Vec<String>,
    pub(crate) meta: Option<Vec<u8>>,
    pub(crate) events: Vec<OutboxEntry>,
}

impl Batch {
    /// Nothing to write.
    pub(crate) fn is_empty(&self) -> bool {
        self.contacts.is_empty()
            && self.contacts_gone.is_empty()
            && self.agents.is_empty()
            && self.agents_gone.is_empty()
            && self.meta.is_none()
            && self.events.is_empty()
    }
}

/// A batch as it goes to Redis: made once, sent as often as needed.
#[derive(Clone, Debug)]
pub(crate) struct Commit {
    pub(crate) batch: u64,
    /// Size on the wire, roughly: what keeping it for a replay costs.
    pub(crate) bytes: usize,
    command: Cmd,
}

/// One pool's side of the store.
#[derive(Clone)]
pub(crate) struct PoolStore {
    connection: ConnectionManager,
    pools_key: String,
    pool: String,
    keys: Keys,
    owner: Owner,
    scripts: Arc<Scripts>,
}

/// The scripts, hashed once.
struct Scripts {
    acquire: Script,
    renew: Script,
    release: Script,
    commit: Script,
}

impl PoolStore {
    pub(crate) fn new(
        connection: ConnectionManager,
        prefix: &str,
        pool: &str,
        owner: Owner,
    ) -> Self {
        Self {
            connection,
            pools_key: format!("{prefix}:pools"),
            pool: pool.to_owned(),
            keys: Keys::new(prefix, pool),
            owner,
            scripts: Arc::new(Scripts {
                acquire: Script::new(include_str!("lua/acquire.lua")),
                renew: Script::new(include_str!("lua/renew.lua")),
                release: Script::new(include_str!("lua/release.lua")),
                commit: Script::new(include_str!("lua/commit.lua")),
            }),
        }
    }

    /// Takes the pool if it is free.
    pub(crate) async fn acquire(&self) -> RedisResult<Acquired> {
        let mut connection = self.connection.clone();
        let (state, epoch, holder): (String, u64, String) = self
            .scripts
            .acquire
            .key(&self.keys.lease)
            .key(&self.keys.fence)
            .arg(&self.owner.name)
            .arg(&self.owner.address)
            .arg(self.owner.lease_ms)
            .invoke_async(&mut connection)
            .await?;
        if state != "acquired" {
            return Ok(Acquired::Held { owner: holder });
        }
        // Its own key, its own slot in a cluster: not in the script. Before any event is
        // written, so the relay cannot miss an outbox.
        let () = redis::cmd("SADD")
            .arg(&self.pools_key)
            .arg(&self.pool)
            .query_async(&mut connection)
            .await?;
        Ok(Acquired::New { epoch })
    }

    /// Prolongs the lease; `false`: another owner has raised the fence.
    pub(crate) async fn renew(&self, epoch: u64) -> RedisResult<bool> {
        self.scripts
            .renew
            .key(&self.keys.lease)
            .key(&self.keys.fence)
            .arg(&self.owner.name)
            .arg(epoch)
            .arg(self.owner.lease_ms)
            .arg(&self.owner.address)
            .invoke_async(&mut self.connection.clone())
            .await
    }

    /// Gives the pool up.
    pub(crate) async fn release(&self, epoch: u64) -> RedisResult<bool> {
        self.scripts
            .release
            .key(&self.keys.lease)
            .arg(&self.owner.name)
            .arg(epoch)
            .invoke_async(&mut self.connection.clone())
            .await
    }

    /// Loads the pool. Only its owner may: nobody else writes meanwhile, so the scan is
    /// of one state.
    pub(crate) async fn load(&self) -> RedisResult<Loaded> {
        let mut connection = self.connection.clone();
        let (meta, now): (Option<Vec<u8>>, Option<u64>) = redis::cmd("HMGET")
            .arg(&self.keys.meta)
            .arg("record")
            .arg("now")
            .query_async(&mut connection)
            .await?;
        Ok(Loaded {
            contacts: self.scan(&self.keys.contacts).await?,
            agents: self.scan(&self.keys.agents).await?,
            meta,
            now: TimeMs(now.unwrap_or(0)),
        })
    }

    /// All fields of a hash, each once (HSCAN may show a field twice).
    async fn scan(&self, key: &str) -> RedisResult<Fields> {
        let mut connection = self.connection.clone();
        let mut records = Fields::new();
        let mut cursor = 0u64;
        loop {
            let (next, fields): (u64, Vec<Field>) = redis::cmd("HSCAN")
                .arg(key)
                .arg(cursor)
                .arg("COUNT")
                .arg(SCAN_COUNT)
                .query_async(&mut connection)
                .await?;
            records.extend(fields);
            if next == 0 {
                return Ok(records);
            }
            cursor = next;
        }
    }

    /// Encodes a batch for [`PoolStore::commit`].
    pub(crate) fn encode(&self, epoch: u64, number: u64, now: TimeMs, batch: &Batch) -> Commit {
        let mut command = redis::cmd("EVALSHA");
        command.arg(self.scripts.commit.get_hash()).arg(5);
        for key in [
            &self.keys.fence,
            &self.keys.contacts,
            &self.keys.agents,
            &self.keys.meta,
            &self.keys.outbox,
        ] {
            command.arg(key);
        }
        command
            .arg(&self.owner.name)
            .arg(epoch)
            .arg(number)
            .arg(now.0);
        command.arg(batch.meta.as_deref().unwrap_or_default());
        let mut bytes = 256;
        command.arg(batch.contacts.len());
        for (contact, record) in &batch.contacts {
            command.arg(contact.to_string()).arg(record.as_slice());
            bytes += 48 + record.len();
        }
        command.arg(batch.contacts_gone.len());
        for contact in &batch.contacts_gone {
            command.arg(contact.to_string());
            bytes += 48;
        }
        command.arg(batch.agents.len());
        for (agent, record) in &batch.agents {
            command.arg(agent).arg(record.as_slice());
            bytes += 32 + record.len();
        }
        command.arg(batch.agents_gone.len());
        for agent in &batch.agents_gone {
            command.arg(agent);
            bytes += 32;
        }
        command.arg(batch.events.len());
        for event in &batch.events {
            command
                .arg(event.contact.to_string())
                .arg(event.sequence)
                .arg(event.bytes.as_slice())
                .arg(&event.traceparent);
            bytes += 128 + event.bytes.len();
        }
        Commit {
            batch: number,
            bytes,
            command,
        }
    }

    /// Sends a commit. Sending the same one again is harmless.
    ///
    /// # Errors
    /// Redis is away or refuses; whether the batch was applied is then not known.
    pub(crate) async fn commit(&self, commit: &Commit) -> RedisResult<Committed> {
        let mut connection = self.connection.clone();
        let mut answer: RedisResult<(String, u64)> =
            commit.command.query_async(&mut connection).await;
        if answer
            .as_ref()
            .is_err_and(|error| error.kind() == ErrorKind::Server(ServerErrorKind::NoScript))
        {
            self.scripts.commit.load_async(&mut connection).await?;
            answer = commit.command.query_async(&mut connection).await;
        }
        let (state, number) = answer?;
        Ok(match state.as_str() {
            "applied" | "repeated" => Committed::Applied {
                outbox_events: number,
            },
            "gap" => Committed::Gap { stored: number },
            _ => Committed::Deposed { epoch: number },
        })
    }
}

#[cfg(test)]
mod tests;
