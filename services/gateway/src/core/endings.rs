//! How dialogues end: with routing's answer, with the default route at the deadline, or by
//! the switch.
//!
//! [`Core::finish`] is the one way from active to answered. What routing holds for a
//! dialogue that did not use it (given up, ended with an error, never delivered) is given
//! back by a report, which is kept until routing has it.

use std::sync::Arc;

use domain::TimeMs;
use domain::invariant::Invariant;
use proto::convert::cti as check;
use proto::cti::v1::{RouteEnd, RouteEndError, RouteSelect, mesh_dialogue_message as mesh};
use proto::routing::v1 as wire;

use super::answers;
use super::dialogues::{Alarm, State};
use super::{ContactMemo, Core, Moment, Source};
use crate::metrics::{Answered, RefusedClass};

impl Core {
    /// Routing's answer for a dialogue that waits for it.
    pub(super) fn routing_answered(
        &mut self,
        now: Moment,
        number: u64,
        reply: Option<wire::reply::Body>,
    ) {
        let Some(dialogue) = self.dialogues.get(&number) else {
            return;
        };
        let pool = self.pools[dialogue.pool].name();
        let correlator = self.correlator(dialogue.contact, pool, 0);
        let cross_ref = dialogue.cross_ref.clone();
        let answer = match reply {
            Some(wire::reply::Body::Answer(answer)) => {
                answers::select(&cross_ref, correlator, answer)
            }
            Some(wire::reply::Body::Refused(refused)) => {
                let session = dialogue.session;
                self.refuse_by_routing(session, &cross_ref, &refused);
                return self.end_without(now, number, Answered::DefaultRefused);
            }
            _ => None,
        };
        let Some((kind, holds, select)) = answer else {
            return self.end_without(now, number, Answered::DefaultRouting);
        };
        self.remember_contact(number, &select);
        self.finish(now, number, kind, holds, mesh::Body::Select(select));
    }

    pub(super) fn refuse_by_routing(
        &mut self,
        session: u64,
        cross_ref: &str,
        refused: &wire::Refused,
    ) {
        self.metrics.refusals.inc(RefusedClass::Routing as usize);
        let refusal = proto::cti::v1::Refusal {
            about: cross_ref.to_owned(),
            field: refused.field.clone(),
            limit: refused.limit.clone(),
            value: check::stripped(&refused.value),
        };
        self.push(session, mesh::Body::Refusal(refusal));
    }

    /// Ends a dialogue with "use your default route".
    pub(super) fn end_without(&mut self, now: Moment, number: u64, kind: Answered) {
        let Some(dialogue) = self.dialogues.get(&number) else {
            return;
        };
        let end = RouteEnd {
            cross_ref_id: dialogue.cross_ref.clone(),
            error: RouteEndError::ResourceUnavailable.into(),
            correlator_data: self.correlator(dialogue.contact, self.pools[dialogue.pool].name(), 0),
        };
        self.finish(now, number, kind, false, mesh::Body::End(end));
    }

    /// The one way from active to answered.
    pub(super) fn finish(
        &mut self,
        now: Moment,
        number: u64,
        kind: Answered,
        holds: bool,
        body: mesh::Body,
    ) {
        let Some(dialogue) = self.dialogues.get_mut(&number) else {
            return;
        };
        if !dialogue.state.is_active() {
            return;
        }
        dialogue.state = State::Answered;
        dialogue.holds = holds;
        dialogue.ask = None;
        dialogue.answer = Some(body.clone());
        dialogue.span = tracing::Span::none();
        let (session, is_request, turn) = (dialogue.session, dialogue.is_request, dialogue.turn);
        self.metrics.answers.inc(kind as usize);
        if now.wall > dialogue.switch_deadline {
            self.metrics.answers_late.inc();
        }
        self.answered_in_batch.push(dialogue.received);
        self.in_flight -= 1;
        self.push_answer(session, number, body);
        if is_request {
            self.give_back(session);
        }
        self.answered_order.push_back((number, turn));
        self.forget_old_answers();
    }

    pub(super) fn forget_old_answers(&mut self) {
        while self.answered_order.len() > self.config.remembered_answers_max {
            let Some((number, turn)) = self.answered_order.pop_front() else {
                return;
            };
            // A dialogue that was re-routed stands in the line twice, and counts the last time.
            let last = self
                .dialogues
                .get(&number)
                .is_some_and(|dialogue| dialogue.turn == turn);
            if last {
                self.forget(number);
            }
        }
    }

    pub(super) fn forget(&mut self, number: u64) {
        if let Some(dialogue) = self.dialogues.remove(&number) {
            if dialogue.state.is_active() {
                self.in_flight -= 1;
                self.violated(
                    Invariant::NeverSilent,
                    "a route request was dropped without an answer",
                );
            }
            if let Some(state) = self.sources.get_mut(&dialogue.source.number) {
                state.dialogue_by_ref.remove(&dialogue.cross_ref);
            }
        }
    }

    /// Counts a broken promise, and says so.
    pub(super) fn violated(&mut self, invariant: Invariant, detail: &'static str) {
        self.metrics.violation(invariant);
        if let Some(suppressed) = self.logs.violation.check() {
            tracing::error!(
                invariant = invariant.name(),
                detail,
                suppressed,
                "a promise was broken"
            );
        }
    }

    pub(super) fn remember_contact(&mut self, number: u64, select: &RouteSelect) {
        let Some(dialogue) = self.dialogues.get(&number) else {
            return;
        };
        let Some(wire::input::Body::Route(route)) =
            dialogue.ask.as_ref().and_then(|ask| ask.body.as_ref())
        else {
            return;
        };
        let expected_callback_ms = match &select.treatment {
            Some(proto::cti::v1::route_select::Treatment::Queue(queue)) => queue.expected_wait_ms,
            _ => 0,
        };
        // The topic is left to routing when intent did not give it: routing may know better.
        let topic = if dialogue.default_topic {
            String::new()
        } else {
            route.topic.clone()
        };
        let memo = ContactMemo {
            line: route.line.clone(),
            topic,
            language: route.language.clone(),
            caller: route.caller.clone(),
            arrived_at: TimeMs(route.arrived_at_ms),
            expected_callback_ms,
        };
        self.contacts.insert(dialogue.contact, memo);
    }

    /// RouteEnd from the switch: always the end.
    pub(super) fn switch_ended(&mut self, now: Moment, session: u64, end: &RouteEnd) {
        if let Err(fault) = check::cross_ref("end.cross_ref_id", &end.cross_ref_id) {
            return self.refuse(session, &end.cross_ref_id, &fault, RefusedClass::Dialogue);
        }
        let Some(source) = self
            .sessions
            .get(&session)
            .map(|found| Arc::clone(&found.source))
        else {
            return;
        };
        let failed = end.error != 0;
        let known = self
            .sources
            .get(&source.number)
            .and_then(|state| state.dialogue_by_ref.get(&end.cross_ref_id));
        let Some(number) = known.copied() else {
            // Another gateway's dialogue, or one forgotten: the correlator names the contact.
            let correlated = check::correlator("end.correlator_data", &end.correlator_data)
                .ok()
                .flatten();
            if failed
                && let Some(correlated) = correlated.filter(|found| found.blocked == 0)
                && let Some(pool) = self.pool_by_name.get(&correlated.pool).copied()
            {
                self.report_route_failed(now, &source, correlated.contact, pool, end.error, "");
            }
            return;
        };
        self.end_known(now, &source, number, end.error);
    }

    pub(super) fn end_known(&mut self, now: Moment, source: &Arc<Source>, number: u64, error: i32) {
        let Some(dialogue) = self.dialogues.get_mut(&number) else {
            return;
        };
        let before = std::mem::replace(&mut dialogue.state, State::Ended);
        dialogue.span = tracing::Span::none();
        let (session, contact, pool) = (dialogue.session, dialogue.contact, dialogue.pool);
        let (holds, is_request, turn) = (dialogue.holds, dialogue.is_request, dialogue.turn);
        let traceparent = dialogue.traceparent.clone();
        if before.is_active() {
            dialogue.ask = None;
            self.in_flight -= 1;
            self.metrics.answers.inc(Answered::SwitchEnded as usize);
            if is_request {
                self.give_back(session);
            }
            self.answered_order.push_back((number, turn));
            self.forget_old_answers();
            if let State::Asked(request) = before {
                self.give_up_request(request, error, number);
            }
        } else if before == State::Answered && error != 0 && holds {
            self.report_route_failed(now, source, contact, pool, error, &traceparent);
        }
    }

    /// Fires what is due.
    pub(super) fn fire_alarms(&mut self, now: Moment) {
        let mut due = std::mem::take(&mut self.due);
        self.wheel.advance(now.wall, &mut due);
        for (number, alarm) in due.drain(..) {
            match alarm {
                Alarm::Topic => self.topic_is_late(number),
                Alarm::Answer => self.answer_is_due(now, number),
            }
        }
        self.due = due;
    }

    pub(super) fn answer_is_due(&mut self, now: Moment, number: u64) {
        let Some(dialogue) = self.dialogues.get(&number) else {
            return;
        };
        // A re-route has set a later one, which has its own alarm.
        if dialogue.deadline > now.wall.plus(8) {
            return;
        }
        let state = dialogue.state;
        if state.is_active() {
            self.end_without(now, number, Answered::DefaultDeadline);
            if let State::Asked(request) = state {
                let error = RouteEndError::RouteingTimerExpired.into();
                self.give_up_request(request, error, number);
            }
        } else if state == State::Answered {
            self.answer_was_not_delivered(now, number);
        }
    }

    /// At its deadline an answer still waits for a link: the switch has default-routed.
    pub(super) fn answer_was_not_delivered(&mut self, now: Moment, number: u64) {
        let Some(dialogue) = self.dialogues.get_mut(&number) else {
            return;
        };
        let waits = match self.sessions.get_mut(&dialogue.session) {
            Some(session) => {
                let before = session.undelivered.len();
                session.undelivered.retain(|waiting| *waiting != number);
                session.undelivered.len() < before
            }
            None => false,
        };
        if !waits {
            return;
        }
        self.metrics.answers.inc(Answered::SessionLost as usize);
        if dialogue.holds {
            dialogue.holds = false;
            let (source, contact, pool) = (
                Arc::clone(&dialogue.source),
                dialogue.contact,
                dialogue.pool,
            );
            let traceparent = dialogue.traceparent.clone();
            let error = RouteEndError::RouteingTimerExpired.into();
            self.report_route_failed(now, &source, contact, pool, error, &traceparent);
        }
    }
}
