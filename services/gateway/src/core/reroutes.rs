//! Another destination on the same dialogue.
//!
//! A re-route needs no memory: the correlator that the answer carried names the contact, so
//! a gateway that never saw the request can go on.

use std::sync::Arc;
use std::time::Instant;

use domain::id::FieldError;
use proto::convert::cti as check;
use proto::cti::v1::{ReRoute, RouteEndError};
use proto::routing::v1 as wire;

use super::dialogues::{Alarm, Dialogue, State};
use super::{Core, Moment};
use crate::metrics::{Answered, RefusedClass};

impl Core {
    /// Another destination on the same dialogue.
    pub(super) fn reroute(
        &mut self,
        now: Moment,
        session: u64,
        received: Instant,
        reroute: ReRoute,
    ) {
        self.metrics.reroutes.inc();
        let cross_ref = &reroute.cross_ref_id;
        let refuse = |core: &mut Self, fault: &FieldError| {
            core.refuse(session, cross_ref, fault, RefusedClass::Dialogue);
            core.end_unopened(
                session,
                cross_ref,
                RouteEndError::InvalidRequest,
                Answered::Invalid,
            );
        };
        if let Err(fault) = check::reroute(&reroute) {
            return refuse(self, &fault);
        }
        let Some(source) = self
            .sessions
            .get(&session)
            .map(|found| Arc::clone(&found.source))
        else {
            return;
        };
        let correlated = check::correlator("reroute.correlator_data", &reroute.correlator_data)
            .ok()
            .flatten();
        let named = correlated
            .and_then(|found| Some((found.contact, *self.pool_by_name.get(&found.pool)?)));
        let known = self
            .sources
            .get(&source.number)
            .and_then(|state| state.dialogue_by_ref.get(cross_ref))
            .copied();
        let remembered = known.and_then(|number| self.dialogues.get(&number));
        if remembered.is_some_and(|dialogue| dialogue.state.is_active()) {
            let fault = FieldError::new(
                "reroute.cross_ref_id",
                "a dialogue that has been answered",
                check::stripped(cross_ref),
            );
            // Its request or earlier re-route still gets its own answer.
            return self.refuse(session, cross_ref, &fault, RefusedClass::Dialogue);
        }
        let place = remembered
            .map(|dialogue| (dialogue.contact, dialogue.pool))
            .or(named);
        let Some((contact, pool)) = place else {
            self.end_unopened(
                session,
                cross_ref,
                RouteEndError::InvalidCrossRefId,
                Answered::Invalid,
            );
            return;
        };
        let timeout_ms = check::reply_timeout("reroute.reply_timeout_ms", reroute.reply_timeout_ms)
            .unwrap_or(check::REPLY_TIMEOUT_DEFAULT_MS);
        let times = self.times(now, session, received, timeout_ms, reroute.age_ms);
        if times.deadline <= now.wall {
            self.end_unopened(
                session,
                cross_ref,
                RouteEndError::RouteingTimerExpired,
                Answered::Expired,
            );
            return;
        }
        let traceparent = remembered
            .map(|dialogue| dialogue.traceparent.clone())
            .unwrap_or_default();
        let fingerprint = remembered.map_or(0, |dialogue| dialogue.fingerprint);
        let body = wire::input::Body::Reroute(wire::Reroute {
            cause: u32::try_from(reroute.cause).unwrap_or(0),
            deadline_at_ms: times.deadline.0,
        });
        let ask = self.input(&source, Some(contact), pool, now.wall, &traceparent, body);
        let turn = self.number();
        let number = known.unwrap_or(turn);
        let span = runtime::trace::span("gateway", "reroute", &traceparent);
        let dialogue = Dialogue {
            session,
            source: Arc::clone(&source),
            cross_ref: cross_ref.clone(),
            contact,
            pool,
            turn,
            fingerprint,
            received,
            deadline: times.deadline,
            switch_deadline: times.switch_deadline,
            state: State::Waiting,
            is_request: false,
            ask: Some(Box::new(ask)),
            default_topic: false,
            holds: false,
            answer: None,
            span,
            traceparent,
        };
        self.dialogues.insert(number, dialogue);
        if let Some(state) = self.sources.get_mut(&source.number) {
            state.dialogue_by_ref.insert(cross_ref.clone(), number);
        }
        self.in_flight += 1;
        self.wheel.add(times.deadline, (number, Alarm::Answer));
        self.ask_routing(number);
    }
}
