//! Names of keys. Ids and policy names only: never a number, never free text.
//!
//! | key | type | holds |
//! |---|---|---|
//! | `{prefix:shard}:b:<contact>` | hash | a booking: `rev`, `data`, `state`, `code` |
//! | `{prefix:shard}:held` | sorted set | contacts whose place routing holds; score: looked after at |
//! | `{prefix:shard}:due` | sorted set | contacts to be dialled; score: from when |
//! | `{prefix:shard}:leased` | sorted set | taken by a worker, dialled, or answered; score: given back at |
//! | `{prefix:shard}:dead` | sorted set | entries without a readable record, for people; score: found at |
//! | `{prefix:shard}:reports` | sorted set | contacts with reports to routing; score: sent (again) at |
//! | `{prefix:shard}:active` | hash | `<caller>:<family>` to contact: one active callback each |
//! | `{prefix:shard}:codes` | hash | spoken code to contact |
//! | `{prefix:shard}:lease` | hash | the shard's owner, epoch, until |
//! | `{prefix:shard}:pools` | hash | pool to the routing epoch its bookings were last registered with |
//! | `{prefix:shard}:where:<contact>` | string | the shard of a contact's booking |
//! | `{prefix:window}:<pool>:<from ms>` | sorted set | contacts with a seat in a window |
//! | `{prefix:forecast}:<pool>` | hash | hour of the week to agents seen in it |
//! | `{prefix:replicas}` | sorted set | replicas alive; score: last seen |
//!
//! All of one script's keys carry one hash tag. A booking lives in the shard of its
//! caller, so that "one active callback a caller" is decided by one script; the contact's
//! own shard holds the pointer to it.

use domain::callback::Booking;
use domain::{CallerId, ContactId};

/// A part of the key space, from 0.
pub(crate) type Shard = u16;

#[derive(Clone, Debug)]
pub(crate) struct Keys {
    prefix: String,
    pub(crate) shards: Shard,
}

impl Keys {
    pub(crate) fn new(prefix: &str, shards: Shard) -> Self {
        Self {
            prefix: prefix.to_owned(),
            shards,
        }
    }

    fn spread(&self, id: u128) -> Shard {
        // The ids are hashes already; folding keeps all of their bits in play.
        let folded = (id >> 64) as u64 ^ id as u64;
        Shard::try_from(folded % u64::from(self.shards)).unwrap_or(0)
    }

    pub(crate) fn shard_of_caller(&self, caller: CallerId) -> Shard {
        self.spread(caller.0)
    }

    /// Codes of a shard leave its number as their remainder.
    pub(crate) fn shard_of_code(&self, code: u32) -> Shard {
        Shard::try_from(code % u32::from(self.shards)).unwrap_or(0)
    }

    pub(crate) fn in_shard(&self, shard: Shard, name: &str) -> String {
        format!("{{{}:{shard}}}:{name}", self.prefix)
    }

    pub(crate) fn record_prefix(&self, shard: Shard) -> String {
        self.in_shard(shard, "b:")
    }

    pub(crate) fn record(&self, shard: Shard, contact: ContactId) -> String {
        self.in_shard(shard, &format!("b:{}", member(contact)))
    }

    pub(crate) fn pointer(&self, contact: ContactId) -> String {
        self.in_shard(
            self.spread(contact.0),
            &format!("where:{}", member(contact)),
        )
    }

    pub(crate) fn seats(&self, pool: &str, from_ms: u64) -> String {
        format!("{{{}:window}}:{pool}:{from_ms}", self.prefix)
    }

    pub(crate) fn forecast(&self, pool: &str) -> String {
        format!("{{{}:forecast}}:{pool}", self.prefix)
    }

    pub(crate) fn replicas(&self) -> String {
        format!("{{{}:replicas}}", self.prefix)
    }

    /// Where replicas hear that a shard has something to do now.
    pub(crate) fn wake_channel(&self) -> String {
        format!("{}:wake", self.prefix)
    }
}

/// A contact as a member of a set.
pub(crate) fn member(contact: ContactId) -> String {
    format!("{:032x}", contact.0)
}

/// A member of a set as a contact.
pub(crate) fn contact(member: &str) -> Option<ContactId> {
    u128::from_str_radix(member, 16).ok().map(ContactId)
}

/// The field under which one callback of a caller may be active.
pub(crate) fn active_field(booking: &Booking) -> String {
    format!("{:032x}:{}", booking.caller.0, booking.family)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_of_a_shard_carries_its_hash_tag() {
        let keys = Keys::new("callback", 16);
        let contact = ContactId(0xabc);
        assert_eq!(keys.in_shard(3, "due"), "{callback:3}:due");
        assert!(keys.record(3, contact).starts_with("{callback:3}:b:0000"));
        assert_eq!(super::contact(&member(contact)), Some(contact));
    }

    #[test]
    fn shards_are_spread_evenly() {
        let keys = Keys::new("callback", 16);
        let mut counts = [0u32; 16];
        for index in 0..16_000u128 {
            let id = index.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
            counts[usize::from(keys.shard_of_caller(CallerId(id)))] += 1;
        }
        assert!(
            counts.iter().all(|count| (800..1_200).contains(count)),
            "{counts:?}"
        );
    }
}
