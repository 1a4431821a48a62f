//! Callbacks' places: the place of a caller who has hung up, kept as if they had not.
//!
//! A virtual entry stands in line like any other. When its predicted wait falls under the
//! time the telephone rings, callback is told to dial (*caller first*): by the time of
//! the answer an agent should be free. When it reaches an agent before that, the agent is
//! held while callback dials (*agent first*), for the ring time at most. An agent who frees
//! while a caller-first entry is being dialled passes it by, unless agents free so seldom
//! that the caller would then hold for longer than the telephone rings.
//!
//! Rejected: holding an agent for every callback, which wastes a ring time of an agent for
//! each; and never holding one, which makes the callers of small queues hold again.

use super::Pool;
use super::input::{CallbackEnd, CallbackStep, NoticeKind, SwitchRef, VirtualRegistration};
use super::output::{EventBody, Output, Outputs, QueuedReason, Window};
use super::record::{HoldPhase, Phase, VirtualPlace, VirtualState};
use super::timers::{HOLD_MARGIN_MS, NOTICE_REPEAT_MS, TURN_REPEAT_DIALLED_MS, TURN_REPEAT_MS};
use crate::id::FieldError;
use crate::{ContactId, TimeMs};

/// Longest a callback may ring, in ms.
const RING_MAX_MS: u64 = 600_000;
/// Windows looked at for one offer: two days of half hours.
const WINDOWS_LOOKED_AT_MAX: u64 = 96;

impl Pool {
    /// A callback is booked durably: the place is kept without the leg.
    pub(super) fn register_virtual(
        &mut self,
        id: ContactId,
        source: Option<SwitchRef>,
        traceparent: &str,
        registration: VirtualRegistration,
        out: &mut Outputs,
    ) -> Result<(), FieldError> {
        if registration.ring_ms == 0 || registration.ring_ms > RING_MAX_MS {
            return Err(FieldError::new(
                "register_virtual.ring_ms",
                format!("1 to {RING_MAX_MS}"),
                registration.ring_ms,
            ));
        }
        if registration.code.len() > 32 {
            return Err(FieldError::new(
                "register_virtual.code",
                "at most 32 bytes",
                registration.code.len(),
            ));
        }
        if let Some((from, until)) = registration.window
            && from >= until
        {
            return Err(FieldError::new(
                "register_virtual.window",
                "from before until",
                format!("{from} to {until}"),
            ));
        }
        let index = match self.contacts.find(id) {
            Some(index) => index,
            None => self.rebuild_virtual(id, source, traceparent, &registration, out)?,
        };
        let (now, record) = (self.now, &mut self.contacts[index].record);
        if let Some(callback) = &mut record.callback
            && (callback.state != VirtualState::Ended || registration.report <= callback.report)
        {
            callback.report = callback.report.max(registration.report);
            self.mark_contact(index);
            return Ok(());
        }
        if record.closed
            || matches!(
                record.phase,
                Phase::Blocked | Phase::DefaultRouted | Phase::Elsewhere
            )
        {
            return Err(not_in_progress(id));
        }
        let window = registration
            .window
            .map(|(from, until)| Window { from, until });
        let later = window.is_some_and(|window| window.from > now);
        let turn = record.callback.as_ref().map_or(0, |callback| callback.turn);
        record.callback = Some(VirtualPlace {
            window,
            ring_ms: registration.ring_ms,
            code: registration.code.as_str().into(),
            report: registration.report,
            turn,
            state: if later {
                VirtualState::Window
            } else {
                VirtualState::InLine
            },
            since: now,
            ..VirtualPlace::default()
        });
        record.offered = false;
        if record.phase == Phase::Leaving {
            record.phase = Phase::Waiting;
            record.phase_since = now;
        }
        let talks = matches!(record.phase, Phase::Talking | Phase::Over);
        self.emit(index, EventBody::CallbackBooked { window }, out);
        if talks {
            self.end_callback(index, CallbackEnd::Connected, out);
            self.notice(index, NoticeKind::Connected, out);
        }
        self.sync_contact(index);
        Ok(())
    }

    /// The pool lost the contact: callback has what is needed to rebuild it.
    fn rebuild_virtual(
        &mut self,
        id: ContactId,
        source: Option<SwitchRef>,
        traceparent: &str,
        registration: &VirtualRegistration,
        out: &mut Outputs,
    ) -> Result<u32, FieldError> {
        if self.ended.contains_key(&id) {
            return Err(not_in_progress(id));
        }
        let Some(route) = &registration.route else {
            return Err(FieldError::new(
                "register_virtual.route",
                "needed for a contact that is not known",
                "none",
            ));
        };
        let resolved = self.resolve(&route.line, &route.topic, &route.language)?;
        let index = self.open_route(id, resolved, source, traceparent, route);
        let record = &self.contacts[index].record;
        let offered = EventBody::Offered {
            topic_confidence: record.topic_confidence,
            person_asked: route.person_asked,
            authenticated: record.authenticated,
        };
        self.emit(index, offered, out);
        Ok(index)
    }

    /// The entry takes its place: the window began, or the next attempt may be made.
    pub(super) fn join_line(&mut self, index: u32, _out: &mut Outputs) {
        let now = self.now;
        if let Some(callback) = &mut self.contacts[index].record.callback {
            callback.state = VirtualState::InLine;
            callback.since = now;
            callback.next_at = None;
        }
        self.sync_contact(index);
    }

    /// Has the turn of the next virtual entries of this lane come?
    pub(super) fn look_at_turns(&mut self, lane: u32, out: &mut Outputs) {
        while let Some((arrived_at, id, contact)) = self.lanes[lane as usize].turns.first().copied()
        {
            let ahead = self.lanes[lane as usize].order.ahead((arrived_at, id));
            let ring_ms = self.contacts[contact]
                .record
                .callback
                .as_ref()
                .map_or(0, |callback| callback.ring_ms);
            let idle = self.find_agent(contact);
            // Who is ahead may be between two attempts: an idle agent is not kept for them.
            if idle.is_none() && self.wait(lane, ahead).expected_ms >= ring_ms {
                break;
            }
            let hold_wanted = self.next_agent_ms(lane) > ring_ms;
            self.begin_turn(contact, hold_wanted);
            match idle.filter(|_| hold_wanted) {
                Some(agent) => self.hold_for_turn(contact, agent, out),
                None => self.tell_turn(contact, out),
            }
        }
    }

    fn begin_turn(&mut self, index: u32, hold_wanted: bool) {
        let now = self.now;
        if let Some(callback) = &mut self.contacts[index].record.callback {
            callback.state = VirtualState::Due;
            callback.since = now;
            callback.turn += 1;
            callback.dialled = false;
            callback.hold_wanted = hold_wanted;
            callback.repeat_at = now.plus(TURN_REPEAT_MS);
        }
        self.sync_contact(index);
    }

    fn tell_turn(&mut self, index: u32, out: &mut Outputs) {
        let contact = &self.contacts[index];
        let Some(callback) = &contact.record.callback else {
            return;
        };
        out.push(Output::VirtualDue {
            contact: contact.id,
            agent_held: callback.held.is_some(),
            turn: callback.turn,
            traceparent: contact.record.traceparent.as_ref().to_owned(),
        });
    }

    /// The entry has reached an agent, who is held while callback dials.
    pub(super) fn hold_for_turn(&mut self, index: u32, agent: u32, out: &mut Outputs) {
        let in_line = self.contacts[index]
            .record
            .callback
            .as_ref()
            .is_some_and(|callback| callback.state == VirtualState::InLine);
        if in_line {
            self.begin_turn(index, true);
        }
        let (now, id) = (self.now, self.agents[agent].id.clone());
        if let Some(callback) = &mut self.contacts[index].record.callback {
            callback.held = Some(id);
            callback.held_since = now;
        }
        self.add_hold(agent, index, HoldPhase::Held, out);
        self.sync_contact(index);
        self.tell_turn(index, out);
    }

    /// Frees the agent who is held for the entry. The caller syncs the contact.
    pub(super) fn unhold(&mut self, index: u32) {
        let (now, id) = (self.now, self.contacts[index].id);
        let Some(callback) = &mut self.contacts[index].record.callback else {
            return;
        };
        let Some(agent) = callback.held.take() else {
            return;
        };
        callback.agent_held_ms += now.since(callback.held_since);
        callback.hold_wanted = false;
        if let Some(agent) = self.agents.find(&agent) {
            self.release_hold(agent, id, false);
        }
    }

    /// A deadline of an entry whose turn it is.
    pub(super) fn turn_due(&mut self, index: u32, out: &mut Outputs) {
        let now = self.now;
        let Some(callback) = &self.contacts[index].record.callback else {
            return;
        };
        if callback.held.is_some()
            && callback
                .held_since
                .plus(callback.ring_ms)
                .plus(HOLD_MARGIN_MS)
                <= now
        {
            self.holds_expired += 1;
            self.unhold(index);
        }
        let Some(callback) = &mut self.contacts[index].record.callback else {
            return;
        };
        if callback.repeat_at <= now {
            callback.repeat_at = now.plus(if callback.dialled {
                TURN_REPEAT_DIALLED_MS
            } else {
                TURN_REPEAT_MS
            });
            self.tell_turn(index, out);
        }
    }

    /// The caller has answered and asks, on a new leg: the held agent, or the next.
    pub(super) fn callback_answered(&mut self, index: u32, out: &mut Outputs) {
        let at = self.at;
        let record = &mut self.contacts[index].record;
        let waiting = record.phase == Phase::Waiting;
        let Some(callback) = &mut record.callback else {
            return;
        };
        callback.state = VirtualState::Live;
        callback.since = at;
        callback.answered_at = Some(at);
        callback.next_at = None;
        let held = callback.held.clone();
        if !waiting {
            return;
        }
        match held.and_then(|agent| self.agents.find(&agent)) {
            Some(agent) => self.assign(index, agent, out),
            None => self.requeue(index, QueuedReason::Callback, out),
        }
    }

    /// The leg is gone. If a callback is open its place is kept: true.
    pub(super) fn keep_for_callback(&mut self, index: u32, out: &mut Outputs) -> bool {
        let now = self.now;
        let record = &self.contacts[index].record;
        let Some(state) = record.callback.as_ref().map(|callback| callback.state) else {
            return false;
        };
        if state == VirtualState::Ended {
            return false;
        }
        self.drop_staying(index, out);
        let record = &mut self.contacts[index].record;
        match state {
            VirtualState::Ended => {}
            VirtualState::Live => self.leg_lost(index, out),
            VirtualState::InLine
            | VirtualState::Window
            | VirtualState::Due
            | VirtualState::Missed => {
                record.leg_live = false;
                record.phase = Phase::Waiting;
                record.phase_since = now;
                record.command = None;
                record.hold_off_until = None;
                self.sync_contact(index);
                self.rematch(index, out);
            }
        }
        true
    }

    /// The caller had answered and was gone before a person came: the place is kept.
    pub(super) fn leg_lost(&mut self, index: u32, out: &mut Outputs) {
        let now = self.now;
        let spacing_ms = self.policy.callback.attempt_spacing_ms;
        let record = &mut self.contacts[index].record;
        record.leg_live = false;
        record.phase = Phase::Waiting;
        record.phase_since = now;
        record.command = None;
        record.hold_off_until = None;
        if let Some(callback) = &mut record.callback {
            callback.state = VirtualState::Missed;
            callback.since = now;
            callback.answered_at = None;
            callback.next_at = Some(now.plus(spacing_ms));
        }
        self.notice(index, NoticeKind::LegLost, out);
        self.sync_contact(index);
    }

    /// A callback attempt went a step further.
    pub(super) fn callback_progress(
        &mut self,
        index: u32,
        attempt: u32,
        step: CallbackStep,
        next_at: Option<TimeMs>,
        report: u32,
        out: &mut Outputs,
    ) {
        let now = self.now;
        let Some(callback) = &mut self.contacts[index].record.callback else {
            return;
        };
        if report <= callback.report || callback.state == VirtualState::Ended {
            return;
        }
        callback.report = report;
        callback.attempts = callback.attempts.max(attempt);
        let state = callback.state;
        match step {
            CallbackStep::Dialled | CallbackStep::Answered => {
                callback.dialled = true;
                callback.repeat_at = now.plus(TURN_REPEAT_DIALLED_MS);
            }
            CallbackStep::NoAnswer
            | CallbackStep::Busy
            | CallbackStep::Voicemail
            | CallbackStep::Failed => {
                if matches!(
                    state,
                    VirtualState::Due | VirtualState::InLine | VirtualState::Missed
                ) {
                    callback.state = VirtualState::Missed;
                    callback.since = now;
                    callback.next_at = next_at;
                }
            }
        }
        let missed = callback.state == VirtualState::Missed;
        self.emit(index, EventBody::CallbackAttempted { attempt, step }, out);
        if missed {
            self.unhold(index);
        }
        self.sync_contact(index);
    }

    /// The booking is gone.
    pub(super) fn cancel_virtual(
        &mut self,
        index: u32,
        end: CallbackEnd,
        report: u32,
        out: &mut Outputs,
    ) {
        let Some(callback) = &mut self.contacts[index].record.callback else {
            return;
        };
        if report <= callback.report || callback.state == VirtualState::Ended {
            return;
        }
        callback.report = report;
        self.end_callback(index, end, out);
        let record = &self.contacts[index].record;
        if record.phase == Phase::Waiting && !record.leg_live {
            return self.conclude(index, out);
        }
        self.sync_contact(index);
        self.rematch(index, out);
    }

    /// Writes the end of the callback, once.
    pub(super) fn end_callback(&mut self, index: u32, end: CallbackEnd, out: &mut Outputs) {
        let now = self.now;
        self.unhold(index);
        let Some(callback) = &mut self.contacts[index].record.callback else {
            return;
        };
        callback.state = VirtualState::Ended;
        callback.since = now;
        let attempts = callback.attempts;
        self.emit(index, EventBody::CallbackEnded { end, attempts }, out);
    }

    /// Tells callback, until it acknowledges.
    pub(super) fn notice(&mut self, index: u32, kind: NoticeKind, out: &mut Outputs) {
        let contact = &mut self.contacts[index];
        let turn = contact
            .record
            .callback
            .as_ref()
            .map_or(0, |callback| callback.turn);
        if !contact.record.notices.contains(&(kind, turn)) {
            contact.record.notices.push((kind, turn));
        }
        contact.record.notices_at = self.now.plus(NOTICE_REPEAT_MS);
        out.push(Output::Notice {
            contact: contact.id,
            kind,
            turn,
        });
    }

    /// Callback holds the notice.
    pub(super) fn notice_acknowledged(&mut self, index: u32, kind: NoticeKind, turn: u32) {
        let record = &mut self.contacts[index].record;
        let before = record.notices.len();
        record.notices.retain(|notice| *notice != (kind, turn));
        if record.notices.len() == before {
            return;
        }
        if record.closed && record.notices.is_empty() {
            self.forget_open(index);
        } else {
            self.sync_contact(index);
        }
    }

    /// What may be offered instead of holding: virtual hold, and the next windows inside
    /// callable hours after the wait would be over. Whether a window has room is
    /// callback's to say.
    pub(super) fn offers(&self, index: u32, expected_ms: u64) -> (bool, Vec<Window>) {
        let contact = &self.contacts[index];
        let policy = &self.policy.callback;
        let topic = &self.catalogue.topics[contact.topic as usize];
        // cti.v1.Channel: a voice call, or not said.
        let is_voice = contact.record.channel <= 1;
        if !topic.callback || !is_voice || expected_ms < policy.offer_from_expected_wait_ms {
            return (false, Vec::new());
        }
        let zone = &self.catalogue.lines[contact.line as usize].time_zone;
        let mut windows = Vec::new();
        let first = self.now.plus(expected_ms).0.div_ceil(policy.window_ms);
        for number in first..first.saturating_add(WINDOWS_LOOKED_AT_MAX) {
            if windows.len() >= policy.windows_offered as usize {
                break;
            }
            let from = TimeMs(number.saturating_mul(policy.window_ms));
            let window = Window {
                from,
                until: from.plus(policy.window_ms),
            };
            if is_callable(
                zone,
                window,
                policy.callable_from_hour,
                policy.callable_until_hour,
            ) {
                windows.push(window);
            }
        }
        (true, windows)
    }
}

/// Whether the whole window lies inside the callable hours of one local day.
fn is_callable(zone: &jiff::tz::TimeZone, window: Window, from_hour: u32, until_hour: u32) -> bool {
    let local = |at: TimeMs| {
        let at = jiff::Timestamp::from_millisecond(i64::try_from(at.0).ok()?).ok()?;
        Some(zone.to_datetime(at))
    };
    // The end is exclusive: a window until 21:00 ends within the hour before.
    let (Some(start), Some(end)) = (local(window.from), local(window.until.minus(1))) else {
        return false;
    };
    let hours = i64::from(from_hour)..i64::from(until_hour);
    start.date() == end.date()
        && hours.contains(&i64::from(start.hour()))
        && hours.contains(&i64::from(end.hour()))
}

fn not_in_progress(id: ContactId) -> FieldError {
    FieldError::new("contact_id", "a contact in progress", id)
}
