//! What became of a call: it rings, is answered, fails. Events of one call may come late,
//! doubled, out of order, or not at all; the switch's word about where a call is counts.

use super::input::{Cause, Disposition, NoticeKind, RoutedBy, SwitchAgentState};
use super::output::{EventBody, Outputs, QueuedReason};
use super::record::{HoldPhase, Phase, VirtualState};
use super::timers::COMMAND_REPEATS_SOON;
use super::{CallbackEnd, Pool};
use crate::AgentId;
use crate::id::FieldError;

/// After a failed command the contact is not matched for this long, doubling ...
const HOLD_OFF_MS: u64 = 1_000;
/// ... up to this.
const HOLD_OFF_MAX_MS: u64 = 60_000;
/// A call that the switch could not move this often, over five minutes, is taken for gone,
/// its end lost: nothing waits for ever.
const COMMAND_FAILURES_MAX: u32 = 10;

impl Pool {
    /// The call sits at its queue's device: it can be moved now.
    pub(super) fn at_queue(&mut self, index: u32, out: &mut Outputs) {
        let record = &mut self.contacts[index].record;
        if record.phase != Phase::Waiting || (!record.connected && record.hold_off_until.is_none())
        {
            return;
        }
        record.connected = false;
        record.hold_off_until = None;
        self.sync_contact(index);
        self.rematch(index, out);
    }

    /// Makes sure that the contact is with this agent, as the switch says. False: the word
    /// is old, or the agent is busy with another.
    pub(super) fn follow(&mut self, index: u32, agent: u32, out: &mut Outputs) -> bool {
        let id = self.contacts[index].id;
        let agent_id = self.agents[agent].id.clone();
        let record = &self.contacts[index].record;
        let reserved = matches!(
            record.phase,
            Phase::Waiting | Phase::Assigned | Phase::Alerting
        );
        if reserved && record.agent.as_ref() == Some(&agent_id) {
            return true;
        }
        if !reserved
            || !record.leg_live
            || self.at < record.phase_since
            || record.staying.as_ref() == Some(&agent_id)
        {
            return false;
        }
        let holds = &self.agents[agent].record.holds;
        let has_place = holds.len() < usize::from(self.agents[agent].record.capacity);
        let displaced = holds.iter().find(|hold| {
            hold.contact != id && matches!(hold.phase, HoldPhase::Reserved | HoldPhase::Held)
        });
        let displaced = displaced.map(|hold| hold.contact);
        if holds
            .iter()
            .any(|hold| hold.contact == id && hold.phase != HoldPhase::Held)
            || (!has_place && displaced.is_none())
        {
            return false;
        }
        self.release_current(index);
        if let Some(other) = displaced
            .filter(|_| !has_place)
            .and_then(|other| self.contacts.find(other))
        {
            self.yield_agent(other, out);
        }
        // The agent may have been entered as free by what was just given back.
        let answering = self.answering.replace(index);
        self.assign(index, agent, out);
        self.answering = answering;
        true
    }

    /// Another call is at the agent who was reserved for this one.
    fn yield_agent(&mut self, other: u32, out: &mut Outputs) {
        if self.contacts[other].record.agent.is_some() {
            self.release_current(other);
            self.requeue(other, QueuedReason::Recovered, out);
        } else {
            self.unhold(other);
            self.sync_contact(other);
        }
    }

    pub(super) fn delivered(
        &mut self,
        index: u32,
        agent: &AgentId,
        out: &mut Outputs,
    ) -> Result<(), FieldError> {
        let agent_index = self.known_agent(agent)?;
        let record = &self.contacts[index].record;
        if matches!(record.phase, Phase::Alerting) && record.agent.as_ref() == Some(agent) {
            return Ok(());
        }
        if !self.follow(index, agent_index, out) {
            return Ok(());
        }
        let now = self.now;
        let record = &mut self.contacts[index].record;
        record.phase = Phase::Alerting;
        record.phase_since = now;
        record.command = None;
        record.command_failures = 0;
        record.connected = false;
        self.emit(
            index,
            EventBody::Delivered {
                agent: agent.clone(),
            },
            out,
        );
        self.sync_contact(index);
        Ok(())
    }

    pub(super) fn established(
        &mut self,
        index: u32,
        agent: &AgentId,
        out: &mut Outputs,
    ) -> Result<(), FieldError> {
        let agent_index = self.known_agent(agent)?;
        let record = &self.contacts[index].record;
        if record.phase == Phase::Talking {
            let other = record
                .agent
                .clone()
                .filter(|other| other != agent && self.at >= record.phase_since);
            if let Some(from) = other {
                return self.moved(index, &from, Some(agent), out);
            }
            return Ok(());
        }
        if self.follow(index, agent_index, out) {
            self.talk(index, agent_index, out);
        }
        Ok(())
    }

    /// Caller and agent talk.
    pub(super) fn talk(&mut self, index: u32, agent: u32, out: &mut Outputs) {
        let at = self.event_time(index);
        let (id, now) = (self.contacts[index].id, self.now);
        let agent_id = self.agents[agent].id.clone();
        if let Some(hold) = self.hold_mut(agent, id) {
            hold.phase = HoldPhase::Talking;
            hold.since = at;
        }
        self.agents[agent].record.state = SwitchAgentState::Busy;
        self.agents[agent].record.command = None;
        let record = &mut self.contacts[index].record;
        record.phase = Phase::Talking;
        record.phase_since = now;
        record.command = None;
        record.command_failures = 0;
        record.connected = false;
        record.persons += 1;
        record.offered = false;
        let waited_ms = at.since(record.arrived_at);
        let first = record.persons == 1;
        let callback = record
            .callback
            .as_ref()
            .filter(|callback| callback.state != VirtualState::Ended);
        let answered_at = callback.and_then(|callback| callback.answered_at);
        let is_callback = callback.is_some_and(|callback| callback.state == VirtualState::Live);
        let established = EventBody::Established {
            agent: agent_id.clone(),
            waited_ms,
            callback: is_callback,
            first,
            nuisance_hold_ms: answered_at.map_or(0, |answered_at| at.since(answered_at)),
            agent_held_ms: callback.map_or(0, |callback| callback.agent_held_ms),
        };
        let had_callback = callback.is_some();
        self.emit(index, established, out);
        if had_callback {
            self.end_callback(index, CallbackEnd::Connected, out);
            self.notice(index, NoticeKind::Connected, out);
        }
        self.transfer_arrived(index, &agent_id, out);
        self.sync_agent(agent);
        self.sync_contact(index);
    }

    pub(super) fn failed(
        &mut self,
        index: u32,
        agent: Option<&AgentId>,
        cause: Cause,
        out: &mut Outputs,
    ) -> Result<(), FieldError> {
        let Some(agent) = agent else { return Ok(()) };
        self.known_agent(agent)?;
        let record = &self.contacts[index].record;
        let is_his = matches!(record.phase, Phase::Assigned | Phase::Alerting)
            && record.agent.as_ref() == Some(agent);
        if !is_his {
            return Ok(());
        }
        if cause == Cause::CallCancelled {
            // The caller left, not the agent: the end of the call follows.
            self.release_current(index);
            self.hold_off(index, out);
        } else {
            self.not_answered(index, cause, out);
        }
        Ok(())
    }

    /// In line, but not matched for a while: the switch could not move the call just now.
    fn hold_off(&mut self, index: u32, out: &mut Outputs) {
        let now = self.now;
        if self.contacts[index].record.command_failures >= COMMAND_FAILURES_MAX {
            return self.leg_cleared(index, RoutedBy::Nobody, out);
        }
        let record = &mut self.contacts[index].record;
        let wait_ms = (HOLD_OFF_MS << record.command_failures.min(6)).min(HOLD_OFF_MAX_MS);
        record.command_failures += 1;
        record.hold_off_until = Some(now.plus(wait_ms));
        self.requeue(index, QueuedReason::Recovered, out);
    }

    /// A command was carried out, or failed.
    pub(super) fn command_done(
        &mut self,
        contact: Option<crate::ContactId>,
        command: u64,
        agent: Option<&AgentId>,
        failed: bool,
        out: &mut Outputs,
    ) {
        if let Some(index) = agent.and_then(|agent| self.agents.find(agent)) {
            let record = &mut self.agents[index].record;
            let state = record
                .command
                .filter(|(id, _)| *id == command)
                .map(|(_, state)| state);
            let given_up = record.command_repeats >= COMMAND_REPEATS_SOON;
            match state {
                Some(SwitchAgentState::NotReady) if failed && !given_up => {}
                // The switch will not have it: its state of the agent stands.
                Some(SwitchAgentState::NotReady) if failed => {
                    record.command = None;
                    record.willing = true;
                    record.state = SwitchAgentState::Ready;
                    self.sync_agent(index);
                }
                Some(_) => {
                    record.command = None;
                    self.sync_agent(index);
                }
                None => {}
            }
        }
        let Some(index) = contact.and_then(|id| self.contacts.find(id)) else {
            return;
        };
        let record = &mut self.contacts[index].record;
        if record.command != Some(command) {
            return;
        }
        record.command = None;
        if !failed {
            record.connected = false;
            self.sync_contact(index);
            return;
        }
        match record.phase {
            Phase::Assigned if record.staying.is_some() => {
                self.release_current(index);
                self.transfer_failed(index);
            }
            Phase::Assigned => {
                self.release_current(index);
                self.hold_off(index, out);
            }
            Phase::Waiting if record.staying.is_some() && record.connected => {
                self.transfer_failed(index)
            }
            _ => self.sync_contact(index),
        }
    }

    pub(super) fn wrapped_up(
        &mut self,
        index: u32,
        agent: &AgentId,
        disposition: Disposition,
        topic: Option<&str>,
        out: &mut Outputs,
    ) -> Result<(), FieldError> {
        let agent_index = self.known_agent(agent)?;
        let topic = match topic.filter(|topic| !topic.is_empty()) {
            Some(topic) => {
                let found = self.catalogue.topic(topic);
                Some(found.ok_or_else(|| {
                    FieldError::new("wrap_up.topic", "a topic of this pool in policy", topic)
                })?)
            }
            None => None,
        };
        let id = self.contacts[index].id;
        let Some(hold) = self.hold_mut(agent_index, id) else {
            return Ok(());
        };
        let phase = hold.phase;
        if phase == HoldPhase::Talking {
            hold.wrapped_early = Some(disposition);
        }
        let settled = matches!(
            self.contacts[index].record.phase,
            Phase::Talking | Phase::Over
        );
        if let Some(topic) = topic
            && settled
            && matches!(phase, HoldPhase::Talking | HoldPhase::WrapUp)
        {
            self.set_topic(index, topic);
            self.sync_contact(index);
        }
        match phase {
            HoldPhase::WrapUp => self.end_wrap_up(agent_index, id, disposition, false, out),
            HoldPhase::Talking => self.sync_agent(agent_index),
            HoldPhase::Reserved | HoldPhase::Held => {}
        }
        Ok(())
    }
}
