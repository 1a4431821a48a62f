//! Calls that admission refuses: answered at once, remembered as a hash.

use std::time::Instant;

use domain::ContactId;
use proto::cti::v1::mesh_dialogue_message as mesh;

use super::dialogues::hash;
use super::{Core, Moment, Source, answers};
use crate::metrics::{Answered, Limit};

impl Core {
    pub(super) fn admit(&mut self, now: Moment, source: &Source) -> bool {
        let bucket = self
            .sources
            .get_mut(&source.number)
            .and_then(|state| state.bucket.as_mut());
        match self.admission.admit(now.wall, self.in_flight, bucket) {
            Ok(()) => true,
            Err(shed) => {
                let limit = match shed {
                    crate::admission::Shed::NodeRate => Limit::NodeRate,
                    crate::admission::Shed::SwitchRate => Limit::SwitchRate,
                    crate::admission::Shed::InFlight => Limit::InFlight,
                };
                self.metrics.limit_hits.inc(limit as usize);
                false
            }
        }
    }

    pub(super) fn overload(&self, cross_ref: &str, contact: ContactId, pool: usize) -> mesh::Body {
        let reason = proto::cti::v1::MessageReason::Overload.into();
        let announcement = &self.config.overload_announcement;
        let correlator = self.correlator(contact, self.pools[pool].name(), reason);
        mesh::Body::Select(answers::message(
            cross_ref,
            correlator,
            announcement,
            reason,
            String::new(),
        ))
    }

    pub(super) fn answer_overload(
        &mut self,
        session: u64,
        received: Instant,
        source: &Source,
        cross_ref: &str,
        contact: ContactId,
        pool: usize,
    ) {
        self.metrics.answers.inc(Answered::Overload as usize);
        self.answered_in_batch.push(received);
        self.shed.insert((source.number, hash(cross_ref)), ());
        let body = self.overload(cross_ref, contact, pool);
        self.push(session, body);
        self.give_back(session);
    }
}
