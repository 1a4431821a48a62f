//! Agents: log-on, states as the switch reports them, places, wrap-up.
//!
//! An agent's ties to contacts ([`Hold`]) are the pool's own knowledge; the reported state
//! says only whether the agent would take calls. So a late or doubled report never frees
//! an agent who talks, nor loses one who is free.

use std::sync::Arc;

use super::input::{AgentUpdate, Cause, Disposition, SwitchAgentState, SwitchRef};
use super::output::{Command, CommandBody, EventBody, Output, Outputs, QueuedReason};
use super::record::{AgentRecord, Hold, HoldPhase, Phase};
use super::state::{Agent, AgentClass};
use super::{Invariant, Pool};
use crate::id::FieldError;
use crate::{AgentId, ContactId, TimeMs};

/// A report older than what is known by more than this is a repeat. Frames of one stream
/// differ in transit by so much; a switch's clock does not matter, only ages are told.
const STALE_MS: u64 = 50;
/// Skills a log-on may carry.
const SKILLS_MAX: usize = 64;

impl Pool {
    /// The agent, if logged on.
    pub(super) fn known_agent(&self, id: &AgentId) -> Result<u32, FieldError> {
        self.agents
            .find(id)
            .ok_or_else(|| FieldError::new("agent_id", "logged on", id))
    }

    /// An agent changed state, or logged on.
    pub(super) fn agent_changed(
        &mut self,
        source: Option<SwitchRef>,
        update: AgentUpdate,
        in_snapshot: bool,
        out: &mut Outputs,
    ) -> Result<(), FieldError> {
        check(&update)?;
        if in_snapshot {
            self.seen_agent(source.as_ref(), &update.agent);
        }
        let known = self.agents.find(&update.agent);
        let is_new = known.is_none();
        let index = match known {
            None if update.state == SwitchAgentState::Null => return Ok(()),
            None => self.log_on(source, &update)?,
            Some(index) => {
                let reported_at = self.agents[index].record.reported_at;
                if self.at.plus(STALE_MS) < reported_at {
                    return Ok(());
                }
                self.refresh(index, source, &update);
                index
            }
        };
        self.report(index, update.state, is_new, out);
        Ok(())
    }

    fn log_on(
        &mut self,
        source: Option<SwitchRef>,
        update: &AgentUpdate,
    ) -> Result<u32, FieldError> {
        let pool = &self.catalogue.pool;
        let policy_knows = pool
            .agents
            .get(update.agent.as_str())
            .is_some_and(|agent| !agent.skills.is_empty());
        if update.skills.is_empty() && !policy_knows {
            return Err(FieldError::new("agent_id", "logged on", &update.agent));
        }
        if self.agents.len() >= pool.agents_max as usize {
            let limit = format!("at most {} agents logged on in the pool", pool.agents_max);
            return Err(FieldError::new("agent_id", limit, &update.agent));
        }
        let policy_capacity = pool
            .agents
            .get(update.agent.as_str())
            .map_or(1, |agent| agent.capacity);
        let record = AgentRecord {
            device: update.device.as_str().into(),
            source,
            skills: update.skills.as_slice().into(),
            languages: update
                .languages
                .iter()
                .map(|language| Arc::from(language.as_str()))
                .collect(),
            capacity: if update.capacity == 0 {
                policy_capacity.max(1)
            } else {
                update.capacity
            },
            state: update.state,
            willing: false,
            busy_elsewhere: false,
            leaving: false,
            idle_since: self.at,
            idle_sequence: self.numbers.next_idle(),
            reported_at: self.at,
            holds: Vec::new(),
            command: None,
            command_at: TimeMs::default(),
            command_repeats: 0,
        };
        Ok(self.add_agent(update.agent.clone(), record))
    }

    /// Enters an agent; its indexes follow with the next `sync_agent`.
    pub(super) fn add_agent(&mut self, id: AgentId, record: AgentRecord) -> u32 {
        let desks = self.desks_of(&id, &record);
        let index = self.agents.insert(Agent {
            id: id.clone(),
            record,
            desks,
            ready: None,
            staffed: false,
            freed: false,
            wake: None,
            class: AgentClass::NotReady,
            changed: false,
        });
        self.agent_counts.0[AgentClass::NotReady as usize] += 1;
        index
    }

    /// What a report may change besides the state.
    fn refresh(&mut self, index: u32, source: Option<SwitchRef>, update: &AgentUpdate) {
        let record = &mut self.agents[index].record;
        if source.is_some() {
            record.source = source;
        }
        if !update.device.is_empty() && *record.device != *update.device {
            record.device = update.device.as_str().into();
        }
        if update.capacity != 0 {
            record.capacity = update.capacity;
        }
        let languages_differ = !update.languages.is_empty()
            && !record
                .languages
                .iter()
                .map(AsRef::as_ref)
                .eq(update.languages.iter().map(String::as_str));
        let skills_differ = !update.skills.is_empty() && *record.skills != *update.skills;
        if !languages_differ && !skills_differ {
            return;
        }
        if skills_differ {
            record.skills = update.skills.as_slice().into();
        }
        if languages_differ {
            record.languages = update
                .languages
                .iter()
                .map(|language| Arc::from(language.as_str()))
                .collect();
        }
        let (id, record) = (
            self.agents[index].id.clone(),
            self.agents[index].record.clone(),
        );
        self.set_ready(index, None);
        self.set_staffed(index, false);
        let desks = self.desks_of(&id, &record);
        self.agents[index].desks = desks;
    }

    fn report(&mut self, index: u32, state: SwitchAgentState, is_new: bool, out: &mut Outputs) {
        let (at, sequence) = (self.at, self.numbers.next_idle());
        let record = &mut self.agents[index].record;
        record.reported_at = record.reported_at.max(at);
        record.state = state;
        // A Ready that was to be set is settled by any report; a NotReady only by itself.
        record.command = record
            .command
            .filter(|(_, commanded)| *commanded != state && *commanded != SwitchAgentState::Ready);
        let was_free = record.willing && !record.busy_elsewhere && !record.leaving;
        match state {
            SwitchAgentState::Ready => {
                record.leaving = false;
                record.willing = true;
                record.busy_elsewhere = false;
                if !was_free && record.holds.is_empty() {
                    record.idle_since = at;
                    record.idle_sequence = sequence;
                }
                self.end_wrap_ups(index, false, out);
            }
            SwitchAgentState::NotReady => {
                record.leaving = false;
                record.willing = false;
                record.busy_elsewhere = false;
            }
            SwitchAgentState::Busy | SwitchAgentState::WorkingAfterCall => {
                // Whether the agent would take calls is told by the report that follows.
                record.willing |= is_new || record.leaving;
                record.leaving = false;
                record.busy_elsewhere = record.holds.is_empty();
            }
            SwitchAgentState::Null => return self.log_off(index, out),
        }
        if self.agents.get(index).is_some() {
            self.sync_agent(index);
        }
    }

    /// The agent is gone: what rang or was reserved goes back in line, a conversation goes
    /// on until the switch says that it ended.
    pub(super) fn log_off(&mut self, index: u32, out: &mut Outputs) {
        let record = &mut self.agents[index].record;
        record.state = SwitchAgentState::Null;
        record.leaving = true;
        record.willing = false;
        record.command = None;
        let holds = record.holds.clone();
        self.sync_agent(index);
        for hold in holds {
            match hold.phase {
                HoldPhase::WrapUp => {
                    self.end_wrap_up(index, hold.contact, Disposition::Unspecified, false, out)
                }
                HoldPhase::Held => {
                    if let Some(contact) = self.contacts.find(hold.contact) {
                        self.unhold(contact);
                        self.sync_contact(contact);
                    }
                }
                HoldPhase::Reserved => {
                    if let Some(contact) = self.contacts.find(hold.contact) {
                        let agent = self.agents[index].id.clone();
                        self.emit(
                            contact,
                            EventBody::NotAnswered {
                                agent,
                                cause: Cause::DestOutOfOrder,
                            },
                            out,
                        );
                        self.release_current(contact);
                        self.requeue(contact, QueuedReason::NotAnswered, out);
                    }
                }
                HoldPhase::Talking => {}
            }
        }
        self.drop_if_gone(index);
    }

    fn drop_if_gone(&mut self, index: u32) {
        let Some(agent) = self.agents.get(index) else {
            return;
        };
        if !agent.record.leaving || !agent.record.holds.is_empty() {
            return;
        }
        self.set_ready(index, None);
        self.set_staffed(index, false);
        let agent = self.agents.remove(index).expect("looked up above");
        self.agent_counts.0[agent.class as usize] -= 1;
        if let Some(at) = agent.wake {
            self.timers.remove(&(at, super::Timer::Agent(index)));
        }
        self.freed.retain(|freed| *freed != index);
        if !agent.changed {
            self.changed_agents.push(agent.id);
        }
    }

    /// Ties an agent to a contact.
    pub(super) fn add_hold(
        &mut self,
        agent: u32,
        contact: u32,
        phase: HoldPhase,
        out: &mut Outputs,
    ) {
        let lane = self.lane_of(contact);
        let id = self.contacts[contact].id;
        let since = self.at;
        let record = &mut self.agents[agent].record;
        let over = record.holds.len() >= usize::from(record.capacity)
            || record.holds.iter().any(|hold| hold.contact == id);
        let queue = Arc::clone(&self.contacts[contact].record.queue);
        record.holds.push(Hold {
            contact: id,
            queue,
            lane,
            phase,
            since,
            talk_ms: 0,
            wrapped_early: None,
        });
        self.lanes[lane as usize].busy += 1;
        if over {
            let detail = format!(
                "agent {} is given contact {id} beyond capacity",
                self.agents[agent].id
            );
            self.violation(Invariant::OneCallOneAgent, detail, out);
        }
        self.sync_agent(agent);
    }

    /// The tie of an agent to a contact, if there is one.
    pub(super) fn hold_mut(&mut self, agent: u32, contact: ContactId) -> Option<&mut Hold> {
        self.agents[agent]
            .record
            .holds
            .iter_mut()
            .find(|hold| hold.contact == contact)
    }

    /// Unties an agent from a contact. Who did nothing for it keeps the idle time they had.
    pub(super) fn release_hold(&mut self, agent: u32, contact: ContactId, worked: bool) {
        let (at, sequence) = (self.at, self.numbers.next_idle());
        let record = &mut self.agents[agent].record;
        let Some(position) = record.holds.iter().position(|hold| hold.contact == contact) else {
            return;
        };
        let hold = record.holds.swap_remove(position);
        if worked {
            record.idle_since = at;
            record.idle_sequence = sequence;
        }
        self.lanes[hold.lane as usize].busy -= 1;
        self.sync_agent(agent);
        self.drop_if_gone(agent);
    }

    /// Frees the agent who is reserved for or rung by the contact, without blame.
    pub(super) fn release_current(&mut self, contact: u32) {
        let id = self.contacts[contact].id;
        let Some(agent) = self.contacts[contact].record.agent.take() else {
            return;
        };
        if let Some(index) = self.agents.find(&agent) {
            self.release_hold(index, id, false);
        }
    }

    /// The agent did not take the call: not ready until they say so, the call back in line.
    pub(super) fn not_answered(&mut self, contact: u32, cause: Cause, out: &mut Outputs) {
        let id = self.contacts[contact].id;
        let Some(agent) = self.contacts[contact].record.agent.take() else {
            return;
        };
        self.emit(
            contact,
            EventBody::NotAnswered {
                agent: agent.clone(),
                cause,
            },
            out,
        );
        if let Some(index) = self.agents.find(&agent) {
            let record = &mut self.agents[index].record;
            record.willing = false;
            record.reported_at = record.reported_at.max(self.at);
            record.command_repeats = 0;
            self.release_hold(index, id, true);
            self.tell_agent_state(index, SwitchAgentState::NotReady, "not answered", out);
        }
        self.requeue(contact, QueuedReason::NotAnswered, out);
    }

    /// Tells the switch to set an agent's state. The caller syncs the agent.
    pub(super) fn tell_agent_state(
        &mut self,
        index: u32,
        state: SwitchAgentState,
        reason: &'static str,
        out: &mut Outputs,
    ) {
        let Some(agent) = self.agents.get(index) else {
            return;
        };
        let Some(target) = agent.record.source.clone() else {
            return;
        };
        let id = self.numbers.next_command();
        let body = CommandBody::SetAgentState {
            agent: agent.id.clone(),
            state,
            reason,
        };
        let record = &mut self.agents[index].record;
        record.state = state;
        record.command = Some((id, state));
        record.command_at = self.now;
        out.push(Output::Command(Command {
            id,
            target,
            call: None,
            contact: None,
            traceparent: String::new(),
            body,
        }));
        self.sync_agent(index);
    }

    /// The conversation with this agent ended: wrap-up begins.
    pub(super) fn disconnect(&mut self, contact: u32, agent: &AgentId, out: &mut Outputs) {
        let at = self.event_time(contact);
        let id = self.contacts[contact].id;
        let index = self.agents.find(agent);
        let hold = index.and_then(|index| self.hold_mut(index, id));
        let Some((index, hold)) = index.zip(hold) else {
            self.emit(
                contact,
                EventBody::Disconnected {
                    agent: agent.clone(),
                    talk_ms: 0,
                },
                out,
            );
            return;
        };
        let talk_ms = at.since(hold.since);
        hold.phase = HoldPhase::WrapUp;
        hold.since = at;
        hold.talk_ms = talk_ms;
        let early = hold.wrapped_early;
        self.agents[index].record.state = SwitchAgentState::WorkingAfterCall;
        self.agents[index].record.command = None;
        self.contacts[contact].record.wrapping += 1;
        self.emit(
            contact,
            EventBody::Disconnected {
                agent: agent.clone(),
                talk_ms,
            },
            out,
        );
        self.sync_agent(index);
        if let Some(disposition) = early {
            self.end_wrap_up(index, id, disposition, false, out);
        } else if self.agents[index].record.leaving {
            self.end_wrap_up(index, id, Disposition::Unspecified, false, out);
        }
    }

    /// Wrap-ups that a report of Ready ends. One that began after the report is not meant.
    fn end_wrap_ups(&mut self, index: u32, timed_out: bool, out: &mut Outputs) {
        let at = self.at;
        let ended =
            |hold: &Hold| hold.phase == HoldPhase::WrapUp && hold.since <= at.plus(STALE_MS);
        while let Some(contact) = self.agents.get(index).and_then(|agent| {
            agent
                .record
                .holds
                .iter()
                .find(|hold| ended(hold))
                .map(|hold| hold.contact)
        }) {
            self.finish_wrap_up(index, contact, Disposition::Unspecified, timed_out, out);
        }
    }

    /// Ends a wrap-up and sets the agent ready, on the switch too.
    pub(super) fn end_wrap_up(
        &mut self,
        agent: u32,
        contact: ContactId,
        disposition: Disposition,
        timed_out: bool,
        out: &mut Outputs,
    ) {
        self.finish_wrap_up(agent, contact, disposition, timed_out, out);
        let Some(record) = self.agents.get(agent).map(|agent| &agent.record) else {
            return;
        };
        if record.willing && record.state != SwitchAgentState::Ready {
            self.agents[agent].record.command_repeats = 0;
            self.tell_agent_state(agent, SwitchAgentState::Ready, "wrapped up", out);
        }
    }

    fn finish_wrap_up(
        &mut self,
        agent: u32,
        contact: ContactId,
        disposition: Disposition,
        timed_out: bool,
        out: &mut Outputs,
    ) {
        let id = self.agents[agent].id.clone();
        let at = self.at;
        let Some(hold) = self.hold_mut(agent, contact) else {
            return;
        };
        let (handle_ms, lane) = (hold.talk_ms.saturating_add(at.since(hold.since)), hold.lane);
        let index = self.contacts.find(contact);
        if let Some(index) = index {
            self.measure_handle(lane, handle_ms);
            self.emit(
                index,
                EventBody::WrappedUp {
                    agent: id,
                    disposition,
                    handle_ms,
                    timed_out,
                },
                out,
            );
            let now = self.now;
            let survey_wait_ms = self.catalogue.pool.survey_wait_ms;
            let record = &mut self.contacts[index].record;
            record.wrapping = record.wrapping.saturating_sub(1);
            let over = record.phase == Phase::Over && record.wrapping == 0;
            if over && (record.surveyed || survey_wait_ms == 0) {
                self.close(index, out);
            } else {
                if over {
                    record.phase_since = now;
                }
                self.sync_contact(index);
            }
        }
        self.release_hold(agent, contact, true);
    }
}

fn check(update: &AgentUpdate) -> Result<(), FieldError> {
    if update.capacity > 8 {
        return Err(FieldError::new("agent.capacity", "1 to 8", update.capacity));
    }
    if update.skills.len() > SKILLS_MAX {
        return Err(FieldError::new(
            "agent.skills",
            format!("at most {SKILLS_MAX}"),
            update.skills.len(),
        ));
    }
    if let Some(skill) = update
        .skills
        .iter()
        .find(|skill| !(1..=10).contains(&skill.proficiency))
    {
        return Err(FieldError::new(
            "agent.skills.proficiency",
            "1 to 10",
            skill.proficiency,
        ));
    }
    if update.languages.len() > 16 {
        return Err(FieldError::new(
            "agent.languages",
            "at most 16",
            update.languages.len(),
        ));
    }
    if let Some(language) = update
        .languages
        .iter()
        .find(|language| !crate::policy::is_language(language))
    {
        return Err(FieldError::new("agent.languages", "BCP 47", language));
    }
    if update.device.len() > 128 {
        return Err(FieldError::new(
            "agent.device",
            "at most 128 bytes",
            update.device.len(),
        ));
    }
    Ok(())
}
