//! Deadlines. Each contact and agent has one timer, the earliest of what its record waits
//! for; when it fires, whatever is due is done and the timer follows the record again.

use super::output::{Output, Outputs};
use super::record::{AgentRecord, HoldPhase, OpenContact, Phase, VirtualState};
use super::state::Timer;
use super::{Cause, Disposition, EventBody, Pool, QueuedReason, RoutedBy};
use crate::TimeMs;
use crate::policy::PoolPolicy;

/// A booking may come this long after its caller's leg has ended: callback makes it
/// durable first. Then the caller has given up.
pub(super) const OFFER_GRACE_MS: u64 = 5_000;
/// An agent is held this much longer than the callback rings: the answer's way to us.
pub(super) const HOLD_MARGIN_MS: u64 = 3_000;
/// A due turn that nobody has taken up is told again.
pub(super) const TURN_REPEAT_MS: u64 = 5_000;
/// A due turn that is being dialled is told again much later: callback may have been lost.
pub(super) const TURN_REPEAT_DIALLED_MS: u64 = 30_000;
/// A notice is told again until acknowledged.
pub(super) const NOTICE_REPEAT_MS: u64 = 5_000;
/// A state to set is told again, in case the command was lost on its way or refused ...
const COMMAND_REPEAT_MS: u64 = 5_000;
/// ... this often; after that seldom, until the switch confirms it.
pub(super) const COMMAND_REPEATS_SOON: u8 = 3;
/// Seldom.
const COMMAND_REPEAT_SELDOM_MS: u64 = 60_000;
/// Virtual entries' turns are looked at this often, besides at each departure.
pub(super) const TURNS_EVERY_MS: u64 = 500;

/// When something of this contact is due.
pub(super) fn contact_wake(record: &OpenContact, pool: &PoolPolicy) -> Option<TimeMs> {
    let mut wake: Option<TimeMs> = None;
    let mut at = |time: TimeMs| wake = Some(wake.map_or(time, |other| other.min(time)));
    match record.phase {
        Phase::Assigned => at(record.phase_since.plus(pool.reservation_max_ms)),
        Phase::Alerting => at(record.phase_since.plus(pool.no_answer_ms)),
        Phase::Leaving => at(record.phase_since.plus(OFFER_GRACE_MS)),
        Phase::Over if !record.closed && record.wrapping == 0 => {
            at(record.phase_since.plus(pool.survey_wait_ms));
        }
        Phase::Waiting => {
            if let Some(until) = record.hold_off_until {
                at(until);
            }
            if let Some(callback) = &record.callback {
                match callback.state {
                    VirtualState::Window => at(callback
                        .window
                        .map_or(record.phase_since, |window| window.from)),
                    VirtualState::Due => {
                        at(callback.repeat_at);
                        if callback.held.is_some() {
                            at(callback
                                .held_since
                                .plus(callback.ring_ms)
                                .plus(HOLD_MARGIN_MS));
                        }
                    }
                    VirtualState::Missed => {
                        if let Some(next_at) = callback.next_at {
                            at(next_at);
                        }
                    }
                    VirtualState::InLine | VirtualState::Live | VirtualState::Ended => {}
                }
            }
        }
        _ => {}
    }
    if !record.notices.is_empty() {
        at(record.notices_at);
    }
    wake
}

/// When something of this agent is due.
pub(super) fn agent_wake(record: &AgentRecord, pool: &PoolPolicy) -> Option<TimeMs> {
    let wrap_ups = record
        .holds
        .iter()
        .filter(|hold| hold.phase == HoldPhase::WrapUp);
    let wrapped = wrap_ups
        .map(|hold| hold.since.plus(pool.wrap_up_max_ms))
        .min();
    [wrapped, command_repeat_at(record)]
        .into_iter()
        .flatten()
        .min()
}

fn command_repeat_at(record: &AgentRecord) -> Option<TimeMs> {
    record.command?;
    let soon = record.command_repeats < COMMAND_REPEATS_SOON;
    Some(record.command_at.plus(if soon {
        COMMAND_REPEAT_MS
    } else {
        COMMAND_REPEAT_SELDOM_MS
    }))
}

impl Pool {
    /// Does what is due at `now`. To be called at [`Pool::next_deadline`], harmless earlier.
    pub fn tick(&mut self, now: TimeMs, out: &mut Outputs) {
        self.begin(now, now);
        while let Some((at, timer)) = self.timers.first().copied() {
            if at > self.now {
                break;
            }
            self.timers.pop_first();
            match timer {
                Timer::Contact(index) => {
                    self.contacts[index].indexed.wake = None;
                    self.contact_due(index, out);
                }
                Timer::Agent(index) => {
                    self.agents[index].wake = None;
                    self.agent_due(index, out);
                }
                Timer::Turns => {
                    self.turns_at = None;
                    self.touched.extend(self.lanes_with_turns.iter().copied());
                }
                Timer::Forget => {
                    self.forget_at = None;
                    self.forget_ended();
                }
            }
            self.settle(out);
        }
    }

    /// When [`Pool::tick`] is next needed.
    #[must_use]
    pub fn next_deadline(&self) -> Option<TimeMs> {
        self.timers.first().map(|(at, _)| *at)
    }

    fn contact_due(&mut self, index: u32, out: &mut Outputs) {
        let now = self.now;
        let pool = &self.catalogue.pool;
        let (reservation_max_ms, no_answer_ms, survey_wait_ms) = (
            pool.reservation_max_ms,
            pool.no_answer_ms,
            pool.survey_wait_ms,
        );
        let record = &self.contacts[index].record;
        let since = record.phase_since;
        match record.phase {
            Phase::Assigned if since.plus(reservation_max_ms) <= now => {
                self.reservations_expired += 1;
                self.release_current(index);
                self.requeue(index, QueuedReason::Recovered, out);
            }
            Phase::Alerting if since.plus(no_answer_ms) <= now => {
                self.not_answered(index, Cause::CallNotAnswered, out);
            }
            Phase::Leaving if since.plus(OFFER_GRACE_MS) <= now => {
                self.give_up(index, false, out);
                return;
            }
            Phase::Over
                if !record.closed && record.wrapping == 0 && since.plus(survey_wait_ms) <= now =>
            {
                self.close(index, out);
                return;
            }
            Phase::Waiting => self.waiting_due(index, out),
            _ => {}
        }
        self.notices_due(index, out);
        self.sync_contact(index);
    }

    fn waiting_due(&mut self, index: u32, out: &mut Outputs) {
        let now = self.now;
        if self.contacts[index]
            .record
            .hold_off_until
            .is_some_and(|until| until <= now)
        {
            self.contacts[index].record.hold_off_until = None;
            self.sync_contact(index);
            self.rematch(index, out);
            return;
        }
        let Some(callback) = &self.contacts[index].record.callback else {
            return;
        };
        match callback.state {
            VirtualState::Window if callback.window.is_none_or(|window| window.from <= now) => {
                self.join_line(index, out);
            }
            VirtualState::Missed if callback.next_at.is_some_and(|at| at <= now) => {
                self.join_line(index, out);
            }
            VirtualState::Due => self.turn_due(index, out),
            _ => {}
        }
    }

    fn notices_due(&mut self, index: u32, out: &mut Outputs) {
        let now = self.now;
        let contact = &mut self.contacts[index];
        if contact.record.notices.is_empty() || contact.record.notices_at > now {
            return;
        }
        contact.record.notices_at = now.plus(NOTICE_REPEAT_MS);
        for (kind, turn) in &contact.record.notices {
            out.push(Output::Notice {
                contact: contact.id,
                kind: *kind,
                turn: *turn,
            });
        }
    }

    fn agent_due(&mut self, index: u32, out: &mut Outputs) {
        let now = self.now;
        let wrap_up_max_ms = self.catalogue.pool.wrap_up_max_ms;
        loop {
            let holds = &self.agents[index].record.holds;
            let late = holds.iter().find(|hold| {
                hold.phase == HoldPhase::WrapUp && hold.since.plus(wrap_up_max_ms) <= now
            });
            let Some(contact) = late.map(|hold| hold.contact) else {
                break;
            };
            self.end_wrap_up(index, contact, Disposition::Unspecified, true, out);
            if self.agents.get(index).is_none() {
                return;
            }
        }
        let record = &mut self.agents[index].record;
        let is_due = command_repeat_at(record).is_some_and(|at| at <= now);
        if let Some((_, state)) = record.command.filter(|_| is_due) {
            record.command_repeats = record.command_repeats.saturating_add(1);
            self.tell_agent_state(index, state, "repeated", out);
        }
        self.sync_agent(index);
    }

    /// The caller gave up while waiting or ringing; nothing more of the call will come.
    pub(super) fn give_up(&mut self, index: u32, ringing: bool, out: &mut Outputs) {
        let record = &self.contacts[index].record;
        let gone_at = if record.phase == Phase::Leaving {
            record.phase_since
        } else {
            self.event_time(index)
        };
        let waited_ms = gone_at.since(record.arrived_at);
        self.measure_wait(index, true);
        self.emit(index, EventBody::Abandoned { waited_ms, ringing }, out);
        self.conclude(index, out);
    }

    /// The switch used its default route.
    pub(super) fn default_routed(&mut self, index: u32, by: RoutedBy, out: &mut Outputs) {
        self.drop_staying(index, out);
        let record = &mut self.contacts[index].record;
        record.phase = Phase::DefaultRouted;
        record.phase_since = self.now;
        record.agent = None;
        record.hold_off_until = None;
        self.emit(index, EventBody::DefaultRouted { by }, out);
        self.sync_contact(index);
    }
}
