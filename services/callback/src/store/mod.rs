//! Bookings in Redis: sorted sets a shard, moved by scripts. [`keys`] lists the keys.
//!
//! A record is changed by compare-and-set on its revision: load, let the domain decide,
//! commit. Whoever loses loads again. So any replica can take any input, and no decision is
//! ever made on a state that another has changed. Rejected: all inputs of a shard through
//! its leaseholder (a booking would wait for a hand-over), and locks (a holder that dies
//! holds them).

pub(crate) mod durability;
pub(crate) mod keys;
mod work;

pub(crate) use work::{Entry, ShardLease, TakeLimits, Taken};

use domain::callback::{Booking, Place, Rules};
use domain::pool::CallbackEnd;
use domain::{CallerId, ContactId, TimeMs};
use futures::future::BoxFuture;
use redis::aio::ConnectionManager;
use redis::{FromRedisValue, Script, ScriptInvocation, Value};

use crate::faults::Faults;
use durability::Durability;
use keys::{Keys, Shard, active_field, member};

/// Candidate codes of one booking: even with nine tenths of a shard's codes taken, one in
/// 50,000 bookings finds none and is tried again.
const CODE_CANDIDATES: usize = 100;
/// Codes there are.
const CODES: u32 = 1_000_000;
/// A pointer outlives its booking by far, and goes in the end.
const POINTER_SECONDS: u64 = 30 * 86_400;

/// Why the store did not do it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// It is away, or too slow. The write may or may not have happened.
    #[error("the store is away: {0}")]
    Away(#[from] redis::RedisError),
    /// A record cannot be read.
    #[error("the record of contact {contact} cannot be read: {reason}")]
    Unreadable {
        /// Whose.
        contact: ContactId,
        /// What the decoder says; ids and positions only.
        reason: String,
    },
    /// The write is there, but not on disk in time.
    #[error("the write was not durable in time")]
    NotDurable,
    /// Others kept changing the record.
    #[error("the record of contact {0} kept changing")]
    Contended(ContactId),
}

/// A booking as it is stored.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) shard: Shard,
    pub(crate) revision: u64,
    pub(crate) booking: Box<Booking>,
}

/// What became of a booking.
#[derive(Debug)]
pub(crate) enum Booked {
    /// It is written.
    New(Stored),
    /// The contact has a record that was not expected.
    Known,
    /// Another active callback of the same caller and family.
    Existing(ContactId),
    /// No code was free among the candidates.
    NoCode,
}

/// When the first unacknowledged report is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReportAt {
    /// As decided before; at once if it was not.
    Keep,
    /// From then on.
    At(TimeMs),
}

/// The store. Cheap to clone: one multiplexed connection.
#[derive(Clone)]
pub(crate) struct Store {
    connection: ConnectionManager,
    pub(crate) keys: Keys,
    ended_ttl_ms: u64,
    faults: Faults,
    scripts: std::sync::Arc<Scripts>,
}

struct Scripts {
    book: Script,
    commit: Script,
    take: Script,
    put_back: Script,
    lease: Script,
    release: Script,
    alive: Script,
    seat: Script,
}

impl Store {
    pub(crate) fn new(
        connection: ConnectionManager,
        keys: Keys,
        ended_ttl_ms: u64,
        faults: Faults,
    ) -> Self {
        let scripts = Scripts {
            book: Script::new(include_str!("../lua/book.lua")),
            commit: Script::new(include_str!("../lua/commit.lua")),
            take: Script::new(include_str!("../lua/take.lua")),
            put_back: Script::new(include_str!("../lua/put_back.lua")),
            lease: Script::new(include_str!("../lua/lease.lua")),
            release: Script::new(include_str!("../lua/release.lua")),
            alive: Script::new(include_str!("../lua/alive.lua")),
            seat: Script::new(include_str!("../lua/seat.lua")),
        };
        Self {
            connection,
            keys,
            ended_ttl_ms,
            faults,
            scripts: std::sync::Arc::new(scripts),
        }
    }

    /// Sends a command. Boxed and not generic, here and below: each caller would otherwise
    /// carry a copy of the whole client in its future, and in the binary.
    fn value<'a>(
        &'a self,
        command: &'a redis::Cmd,
    ) -> BoxFuture<'a, Result<Value, redis::RedisError>> {
        Box::pin(async move { command.query_async(&mut self.connection().await).await })
    }

    async fn query<T: FromRedisValue>(&self, command: &redis::Cmd) -> Result<T, Error> {
        Ok(redis::from_redis_value(self.value(command).await?).map_err(redis::RedisError::from)?)
    }

    fn invoked<'a>(
        &'a self,
        script: &'a ScriptInvocation<'_>,
    ) -> BoxFuture<'a, Result<Value, redis::RedisError>> {
        Box::pin(async move { script.invoke_async(&mut self.connection().await).await })
    }

    async fn invoke<T: FromRedisValue>(&self, script: &ScriptInvocation<'_>) -> Result<T, Error> {
        Ok(
            redis::from_redis_value(self.invoked(script).await?)
                .map_err(redis::RedisError::from)?,
        )
    }

    /// The connection, unless a fault has stopped this replica.
    async fn connection(&self) -> ConnectionManager {
        self.faults.gate().await;
        self.connection.clone()
    }

    /// How the server makes writes durable.
    pub(crate) async fn durability(&self, replicas: u32) -> Result<Durability, Error> {
        Ok(Durability::of(&mut self.connection().await, replicas).await?)
    }

    /// Waits until what was written before is durable.
    pub(crate) async fn wait_durable(
        &self,
        durability: Durability,
        timeout_ms: u64,
    ) -> Result<(), Error> {
        if durability
            .wait(&mut self.connection().await, timeout_ms)
            .await?
        {
            Ok(())
        } else {
            Err(Error::NotDurable)
        }
    }

    /// The booking of a contact.
    pub(crate) async fn find(&self, contact: ContactId) -> Result<Option<Stored>, Error> {
        let shard: Option<Shard> = self
            .query(redis::cmd("GET").arg(self.keys.pointer(contact)))
            .await?;
        match shard {
            Some(shard) => self.load(shard, contact).await,
            None => Ok(None),
        }
    }

    /// The booking of a contact in a shard.
    pub(crate) async fn load(
        &self,
        shard: Shard,
        contact: ContactId,
    ) -> Result<Option<Stored>, Error> {
        let (revision, data, code): (Option<u64>, Option<Vec<u8>>, Option<String>) = self
            .query(
                redis::cmd("HMGET")
                    .arg(self.keys.record(shard, contact))
                    .arg(&["rev", "data", "code"]),
            )
            .await?;
        let (Some(revision), Some(data)) = (revision, data) else {
            return Ok(None);
        };
        let booking = decode(contact, &data, code.unwrap_or_default())?;
        Ok(Some(Stored {
            shard,
            revision,
            booking,
        }))
    }

    /// Who has this code.
    pub(crate) async fn find_code(&self, code: &str) -> Result<Option<Stored>, Error> {
        let Ok(number) = code.parse::<u32>() else {
            return Ok(None);
        };
        let shard = self.keys.shard_of_code(number);
        let holder: Option<String> = self
            .query(
                redis::cmd("HGET")
                    .arg(self.keys.in_shard(shard, "codes"))
                    .arg(code),
            )
            .await?;
        match holder.as_deref().and_then(keys::contact) {
            Some(contact) => self.load(shard, contact).await,
            None => Ok(None),
        }
    }

    /// Writes where a contact's booking is, before there is one: a pointer to nothing is
    /// harmless, a booking that cannot be found is not. Gives the other shard that it points
    /// to already, if it does.
    pub(crate) async fn point(
        &self,
        contact: ContactId,
        shard: Shard,
    ) -> Result<Option<Shard>, Error> {
        let other: Option<Shard> = self
            .query(
                redis::cmd("SET")
                    .arg(self.keys.pointer(contact))
                    .arg(shard)
                    .arg("EX")
                    .arg(POINTER_SECONDS)
                    .arg("NX")
                    .arg("GET"),
            )
            .await?;
        Ok(other.filter(|other| *other != shard))
    }

    /// Points a contact to another shard.
    pub(crate) async fn point_anew(&self, contact: ContactId, shard: Shard) -> Result<(), Error> {
        let () = self
            .query(
                redis::cmd("SET")
                    .arg(self.keys.pointer(contact))
                    .arg(shard)
                    .arg("EX")
                    .arg(POINTER_SECONDS),
            )
            .await?;
        Ok(())
    }

    /// The active booking of the same caller and family.
    pub(crate) async fn find_active(&self, booking: &Booking) -> Result<Option<Stored>, Error> {
        let shard = self.keys.shard_of_caller(booking.caller);
        let holder: Option<String> = self
            .query(
                redis::cmd("HGET")
                    .arg(self.keys.in_shard(shard, "active"))
                    .arg(active_field(booking)),
            )
            .await?;
        match holder.as_deref().and_then(keys::contact) {
            Some(contact) => self.load(shard, contact).await,
            None => Ok(None),
        }
    }

    /// Writes a new booking, if its caller has no other. `revision`: of the ended booking of
    /// the same contact that it replaces.
    pub(crate) async fn book(
        &self,
        booking: &Booking,
        revision: Option<u64>,
        rules: &Rules,
        report_at: TimeMs,
    ) -> Result<Booked, Error> {
        let shard = self.keys.shard_of_caller(booking.caller);
        let held_at = match booking.place(rules) {
            Place::Held(at) | Place::Due(at) | Place::Leased(at) => at,
            Place::Ended => booking.booked_at,
        };
        let mut invocation = self.scripts.book.prepare_invoke();
        invocation
            .key(self.keys.record(shard, booking.contact))
            .key(self.keys.in_shard(shard, "active"))
            .key(self.keys.in_shard(shard, "codes"))
            .key(self.keys.in_shard(shard, "held"))
            .key(self.keys.in_shard(shard, "reports"))
            .arg(member(booking.contact))
            .arg(active_field(booking))
            .arg(revision.map_or_else(String::new, |revision| revision.to_string()))
            .arg(encode(booking))
            .arg(held_at.0)
            .arg(report_at.0)
            .arg(self.keys.wake_channel())
            .arg(shard);
        for _ in 0..CODE_CANDIDATES {
            invocation.arg(self.candidate_code(shard));
        }
        let reply: Vec<String> = self.invoke(&invocation).await?;
        Ok(
            match reply.iter().map(String::as_str).collect::<Vec<_>>()[..] {
                ["booked", revision, code] => {
                    let mut booking = Box::new(booking.clone());
                    booking.code = code.to_owned();
                    Booked::New(Stored {
                        shard,
                        revision: revision.parse().unwrap_or(1),
                        booking,
                    })
                }
                ["existing", holder] => match keys::contact(holder) {
                    Some(contact) => Booked::Existing(contact),
                    None => Booked::NoCode,
                },
                ["known"] => Booked::Known,
                _ => Booked::NoCode,
            },
        )
    }

    fn candidate_code(&self, shard: Shard) -> String {
        let shards = u32::from(self.keys.shards);
        let rounds = (CODES - u32::from(shard)).div_ceil(shards);
        let code = rand::random_range(0..rounds) * shards + u32::from(shard);
        format!("{code:06}")
    }

    /// Writes a changed booking. `false`: somebody else has changed it first.
    pub(crate) async fn commit(
        &self,
        stored: &Stored,
        rules: &Rules,
        report_at: ReportAt,
        wake: bool,
    ) -> Result<bool, Error> {
        let booking = &stored.booking;
        let (set, score) = match booking.place(rules) {
            Place::Ended => (0, TimeMs(0)),
            Place::Held(at) => (1, at),
            Place::Due(at) => (2, at),
            Place::Leased(at) => (3, at),
        };
        let reports = match (booking.first_report(), report_at) {
            (None, _) => "none".to_owned(),
            (Some(_), ReportAt::Keep) => "keep".to_owned(),
            (Some(_), ReportAt::At(at)) => at.0.to_string(),
        };
        let time_to_live = if booking.is_ended() {
            self.ended_ttl_ms.to_string()
        } else {
            String::new()
        };
        let channel = if wake {
            self.keys.wake_channel()
        } else {
            String::new()
        };
        let key = |name| self.keys.in_shard(stored.shard, name);
        let mut invocation = self.scripts.commit.prepare_invoke();
        invocation
            .key(self.keys.record(stored.shard, booking.contact))
            .key(key("held"))
            .key(key("due"))
            .key(key("leased"))
            .key(key("reports"))
            .key(key("active"))
            .key(key("codes"))
            .arg(member(booking.contact))
            .arg(stored.revision)
            .arg(encode(booking))
            .arg(booking.state_name())
            .arg(set)
            .arg(score.0)
            .arg(reports)
            .arg(active_field(booking))
            .arg(&booking.code)
            .arg(time_to_live)
            .arg(channel)
            .arg(stored.shard);
        let written: u8 = self.invoke(&invocation).await?;
        Ok(written == 1)
    }

    /// Takes a seat of a window. `false`: it is full.
    pub(crate) async fn take_seat(&self, booking: &Booking, capacity: u32) -> Result<bool, Error> {
        let Some(window) = booking.window else {
            return Ok(true);
        };
        let mut invocation = self.scripts.seat.prepare_invoke();
        invocation
            .key(self.keys.seats(&booking.pool, window.from.0))
            .arg(member(booking.contact))
            .arg(capacity)
            // A day after the window nobody asks any more.
            .arg(window.until.plus(86_400_000).0);
        let taken: u8 = self.invoke(&invocation).await?;
        Ok(taken == 1)
    }

    /// Gives the seat of a booking that was cancelled (or never made) to the next caller.
    pub(crate) async fn free_seat(&self, booking: &Booking) -> Result<(), Error> {
        let Some(window) = booking.window else {
            return Ok(());
        };
        let () = self
            .query(
                redis::cmd("ZREM")
                    .arg(self.keys.seats(&booking.pool, window.from.0))
                    .arg(member(booking.contact)),
            )
            .await?;
        Ok(())
    }

    /// Remembers the most agents seen in an hour of the week.
    pub(crate) async fn saw_agents(&self, pool: &str, hour: u32, agents: u32) -> Result<(), Error> {
        let () = self
            .query(
                redis::cmd("HSET")
                    .arg(self.keys.forecast(pool))
                    .arg(hour)
                    .arg(agents),
            )
            .await?;
        Ok(())
    }

    /// Agents seen by hour of the week.
    pub(crate) async fn agents_seen(
        &self,
        pool: &str,
    ) -> Result<std::collections::BTreeMap<u32, u32>, Error> {
        self.query(redis::cmd("HGETALL").arg(self.keys.forecast(pool)))
            .await
    }

    /// Whether the caller's booking that a code names is theirs.
    pub(crate) fn is_of(stored: &Stored, caller: CallerId) -> bool {
        stored.booking.caller == caller
    }
}

/// Whether a cancelled window booking leaves a seat to others.
pub(crate) fn frees_seat(end: CallbackEnd) -> bool {
    end == CallbackEnd::Cancelled
}

fn encode(booking: &Booking) -> Vec<u8> {
    rmp_serde::to_vec_named(booking)
        .expect("a booking is plain data: nothing in it can fail to encode")
}

pub(crate) fn decode(contact: ContactId, data: &[u8], code: String) -> Result<Box<Booking>, Error> {
    let mut booking: Box<Booking> =
        rmp_serde::from_slice(data).map_err(|error| Error::Unreadable {
            contact,
            reason: error.to_string(),
        })?;
    booking.code = code;
    Ok(booking)
}
