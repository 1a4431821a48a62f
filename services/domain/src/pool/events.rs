//! Writing a contact's events: numbered without gap, never back in time, `Closed` last.

use std::sync::Arc;

use super::output::{Event, EventBody, Output, Outputs};
use super::record::Phase;
use super::state::Ended;
use super::{EndedContact, Invariant, Pool, Timer};
use crate::{ContactId, TimeMs};

/// Ended contacts remembered at most, whatever their time: a burst must not grow memory.
const ENDED_MAX: usize = 500_000;

impl Pool {
    /// When the input at hand happened, for this contact: never before its last event.
    pub(super) fn event_time(&self, index: u32) -> TimeMs {
        self.at.max(self.contacts[index].record.last_event_at)
    }

    /// Writes an event.
    pub(super) fn emit(&mut self, index: u32, body: EventBody, out: &mut Outputs) {
        let at = self.event_time(index);
        let contact = &mut self.contacts[index];
        let record = &mut contact.record;
        if record.closed {
            let detail = format!("contact {} has an event after its end", contact.id);
            self.violation(Invariant::EveryOutcomeCounted, detail, out);
            return;
        }
        record.sequence += 1;
        record.last_event_at = at;
        let queue = if matches!(body, EventBody::Offered { .. }) {
            Arc::default()
        } else {
            Arc::clone(&record.queue)
        };
        out.push(Output::Event(Event {
            contact: contact.id,
            sequence: record.sequence,
            at,
            traceparent: Arc::clone(&record.traceparent),
            line: Arc::clone(&record.line),
            topic: Arc::clone(&record.topic),
            queue,
            language: Arc::clone(&record.language),
            channel: record.channel,
            caller: record.caller,
            arrived_at: record.arrived_at,
            switch: Arc::clone(&record.switch_name),
            body,
        }));
        self.mark_contact(index);
    }

    /// The call is over: closed now, or when wrap-ups and the survey are. A callback that
    /// has not ended keeps its place instead.
    pub(super) fn conclude(&mut self, index: u32, out: &mut Outputs) {
        self.drop_staying(index, out);
        if self.keep_for_callback(index, out) {
            return;
        }
        let survey_wait_ms = self.catalogue.pool.survey_wait_ms;
        let now = self.now;
        let record = &mut self.contacts[index].record;
        record.leg_live = false;
        record.agent = None;
        record.hold_off_until = None;
        record.offered = false;
        let survey_open = record.persons > 0 && !record.surveyed && survey_wait_ms > 0;
        if record.wrapping == 0 && !survey_open {
            return self.close(index, out);
        }
        record.phase = Phase::Over;
        record.phase_since = now;
        self.sync_contact(index);
    }

    /// Writes the last event. The contact is dropped and remembered as ended, unless
    /// callback has yet to acknowledge a notice about it.
    pub(super) fn close(&mut self, index: u32, out: &mut Outputs) {
        self.emit(index, EventBody::Closed, out);
        let record = &mut self.contacts[index].record;
        record.closed = true;
        record.phase = Phase::Over;
        if !record.notices.is_empty() {
            return self.sync_contact(index);
        }
        self.forget_open(index);
    }

    /// Drops a closed contact's record and remembers that it has ended.
    pub(super) fn forget_open(&mut self, index: u32) {
        self.unindex_contact(index);
        let Some(contact) = self.contacts.remove(index) else {
            return;
        };
        self.remember(
            contact.id,
            EndedContact {
                closed_at: self.now,
                events: contact.record.sequence,
            },
        );
        if !contact.changed {
            self.changed_contacts.push(contact.id);
        }
    }

    /// Remembers an ended contact for a while.
    pub(super) fn remember(&mut self, id: ContactId, record: EndedContact) {
        self.ended.insert(
            id,
            Ended {
                record,
                changed: true,
            },
        );
        self.ended_order.push_back((record.closed_at, id));
        if self.ended.len() > ENDED_MAX {
            self.forgotten_early += 1;
            self.forget_oldest();
        }
        self.arm_forget();
    }

    pub(super) fn arm_forget(&mut self) {
        if self.forget_at.is_some() {
            return;
        }
        if let Some((closed_at, _)) = self.ended_order.front() {
            let at = closed_at.plus(self.catalogue.pool.remember_ended_ms);
            self.forget_at = Some(at);
            self.timers.insert((at, Timer::Forget));
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((_, id)) = self.ended_order.pop_front() {
            self.ended.remove(&id);
            self.changed_contacts.push(id);
        }
    }

    /// Forgets those whose time is over.
    pub(super) fn forget_ended(&mut self) {
        let remember_ms = self.catalogue.pool.remember_ended_ms;
        while self
            .ended_order
            .front()
            .is_some_and(|(at, _)| at.plus(remember_ms) <= self.now)
        {
            self.forget_oldest();
        }
        self.arm_forget();
    }
}
