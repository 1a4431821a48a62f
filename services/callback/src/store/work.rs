//! The leaseholder's side of a shard: leases, what there is to do, what is given back.

use domain::callback::Booking;
use domain::{ContactId, TimeMs};
use redis::{FromRedisValue, ParsingError, Value};

use super::keys::{Shard, contact, member};
use super::{Error, Store, Stored, decode};

/// The right to work on a shard, while the epoch is the shard's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ShardLease {
    pub(crate) shard: Shard,
    pub(crate) owner: String,
    pub(crate) epoch: u64,
}

/// How much to take at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TakeLimits {
    pub(crate) ticks: usize,
    pub(crate) dials: usize,
    pub(crate) reports: usize,
}

/// A taken entry: readable or not.
pub(crate) type Entry = Result<Stored, ContactId>;

/// What there was to do.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    /// Overdue: to be ticked.
    pub(crate) ticks: Vec<Entry>,
    /// To be dialled.
    pub(crate) dials: Vec<Entry>,
    /// With a report to send.
    pub(crate) reports: Vec<Entry>,
    /// Left in the due set, although due.
    pub(crate) waiting: u64,
    /// Found without a record and put among the dead.
    pub(crate) dead: u64,
}

/// A record as the script gives it.
struct Raw {
    contact: String,
    revision: u64,
    data: Vec<u8>,
    code: String,
}

impl FromRedisValue for Raw {
    fn from_redis_value(value: Value) -> Result<Self, ParsingError> {
        let (contact, revision, data, code) = FromRedisValue::from_redis_value(value)?;
        Ok(Self {
            contact,
            revision,
            data,
            code,
        })
    }
}

/// How many of each kind a shard has, and when the oldest due one was due.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) held: u64,
    pub(crate) due: u64,
    pub(crate) leased: u64,
    pub(crate) dead: u64,
    pub(crate) reports: u64,
}

impl Store {
    /// Takes or keeps the lease of a shard. `None`: another replica has it, or it is free
    /// and `take_free` is not set.
    pub(crate) async fn lease(
        &self,
        shard: Shard,
        owner: &str,
        length_ms: u64,
        take_free: bool,
    ) -> Result<Option<ShardLease>, Error> {
        let (mine, epoch): (u8, u64) = self
            .invoke(
                self.scripts
                    .lease
                    .key(self.keys.in_shard(shard, "lease"))
                    .arg(owner)
                    .arg(length_ms)
                    .arg(u8::from(take_free)),
            )
            .await?;
        Ok((mine == 1).then(|| ShardLease {
            shard,
            owner: owner.to_owned(),
            epoch,
        }))
    }

    /// Gives a shard up.
    pub(crate) async fn release(&self, lease: &ShardLease) -> Result<(), Error> {
        let _: u8 = self
            .invoke(
                self.scripts
                    .release
                    .key(self.keys.in_shard(lease.shard, "lease"))
                    .arg(&lease.owner)
                    .arg(lease.epoch),
            )
            .await?;
        Ok(())
    }

    /// Says that this replica lives (or goes), and counts those that do.
    pub(crate) async fn alive(
        &self,
        owner: &str,
        remembered_ms: u64,
        lives: bool,
    ) -> Result<u32, Error> {
        let count: u32 = self
            .invoke(
                self.scripts
                    .alive
                    .key(self.keys.replicas())
                    .arg(owner)
                    .arg(remembered_ms)
                    .arg(u8::from(lives)),
            )
            .await?;
        Ok(count)
    }

    /// Takes what there is to do in a shard. `None`: it is another's now.
    pub(crate) async fn take(
        &self,
        lease: &ShardLease,
        now: TimeMs,
        leased_until: TimeMs,
        report_again_at: TimeMs,
        limits: TakeLimits,
    ) -> Result<Option<Taken>, Error> {
        let key = |name| self.keys.in_shard(lease.shard, name);
        let mut invocation = self.scripts.take.prepare_invoke();
        invocation
            .key(key("lease"))
            .key(key("held"))
            .key(key("due"))
            .key(key("leased"))
            .key(key("dead"))
            .key(key("reports"))
            .arg(&lease.owner)
            .arg(lease.epoch)
            .arg(now.0)
            .arg(leased_until.0)
            .arg(report_again_at.0)
            .arg(limits.ticks)
            .arg(limits.dials)
            .arg(limits.reports)
            .arg(self.keys.record_prefix(lease.shard));
        let reply: Value = self.invoke(&invocation).await?;
        let Value::Array(parts) = &reply else {
            return Ok(None);
        };
        if parts.len() != 6 {
            return Ok(None);
        }
        let (_, ticks, dials, reports, waiting, dead): (
            String,
            Vec<Raw>,
            Vec<Raw>,
            Vec<Raw>,
            u64,
            u64,
        ) = FromRedisValue::from_redis_value(reply).map_err(redis::RedisError::from)?;
        let read = |raw: Vec<Raw>| {
            raw.into_iter()
                .filter_map(|raw| entry(lease.shard, raw))
                .collect()
        };
        Ok(Some(Taken {
            ticks: read(ticks),
            dials: read(dials),
            reports: read(reports),
            waiting,
            dead,
        }))
    }

    /// Gives due entries back undialled, to be taken again from `due_at` on.
    pub(crate) async fn put_back(
        &self,
        lease: &ShardLease,
        contacts: &[ContactId],
        due_at: TimeMs,
        leased_until: TimeMs,
    ) -> Result<(), Error> {
        let key = |name| self.keys.in_shard(lease.shard, name);
        let mut invocation = self.scripts.put_back.prepare_invoke();
        invocation
            .key(key("lease"))
            .key(key("due"))
            .key(key("leased"))
            .key(key("dead"))
            .arg(&lease.owner)
            .arg(lease.epoch)
            .arg(due_at.0)
            .arg(leased_until.0);
        for contact in contacts {
            invocation.arg(member(*contact));
        }
        let _: u64 = self.invoke(&invocation).await?;
        Ok(())
    }

    /// Puts an entry whose record cannot be read among the dead.
    pub(crate) async fn bury(
        &self,
        shard: Shard,
        contact: ContactId,
        now: TimeMs,
    ) -> Result<(), Error> {
        let mut pipe = redis::pipe();
        pipe.atomic();
        for name in ["held", "due", "leased", "reports"] {
            pipe.cmd("ZREM")
                .arg(self.keys.in_shard(shard, name))
                .arg(member(contact))
                .ignore();
        }
        pipe.cmd("ZADD")
            .arg(self.keys.in_shard(shard, "dead"))
            .arg(now.0)
            .arg(member(contact))
            .ignore();
        let () = pipe.query_async(&mut self.connection().await).await?;
        Ok(())
    }

    /// Some of the bookings whose place is held, and the cursor of the next ones; 0 at the end.
    pub(crate) async fn scan_held(
        &self,
        shard: Shard,
        cursor: u64,
    ) -> Result<(u64, Vec<ContactId>), Error> {
        let (next, pairs): (u64, Vec<(String, f64)>) = self
            .query(
                redis::cmd("ZSCAN")
                    .arg(self.keys.in_shard(shard, "held"))
                    .arg(cursor)
                    .arg("COUNT")
                    .arg(128),
            )
            .await?;
        Ok((
            next,
            pairs.iter().filter_map(|(id, _)| contact(id)).collect(),
        ))
    }

    /// The routing epoch with which a pool's bookings of a shard were last registered.
    pub(crate) async fn registered_epoch(
        &self,
        shard: Shard,
        pool: &str,
    ) -> Result<Option<u64>, Error> {
        self.query(
            redis::cmd("HGET")
                .arg(self.keys.in_shard(shard, "pools"))
                .arg(pool),
        )
        .await
    }

    /// They are registered with this one now.
    pub(crate) async fn set_registered_epoch(
        &self,
        shard: Shard,
        pool: &str,
        epoch: u64,
    ) -> Result<(), Error> {
        let () = self
            .query(
                redis::cmd("HSET")
                    .arg(self.keys.in_shard(shard, "pools"))
                    .arg(pool)
                    .arg(epoch),
            )
            .await?;
        Ok(())
    }

    /// Counts a shard's sets.
    pub(crate) async fn counts(&self, shard: Shard) -> Result<Counts, Error> {
        let mut pipe = redis::pipe();
        for name in ["held", "due", "leased", "dead", "reports"] {
            pipe.cmd("ZCARD").arg(self.keys.in_shard(shard, name));
        }
        let (held, due, leased, dead, reports) =
            pipe.query_async(&mut self.connection().await).await?;
        Ok(Counts {
            held,
            due,
            leased,
            dead,
            reports,
        })
    }
}

/// `None`: not even the contact can be read, which only a hand in the store can bring about.
fn entry(shard: Shard, raw: Raw) -> Option<Entry> {
    let contact = contact(&raw.contact)?;
    let booking: Result<Box<Booking>, Error> = decode(contact, &raw.data, raw.code);
    Some(
        booking
            .map(|booking| Stored {
                shard,
                revision: raw.revision,
                booking,
            })
            .map_err(|_| contact),
    )
}
