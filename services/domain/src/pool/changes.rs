//! Records out, and a pool from records.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::input::SwitchAgentState;
use super::output::{EventBody, Outputs, QueuedReason};
use super::record::{
    AgentRecord, Changes, ContactRecord, EndedContact, HoldPhase, Measured, MetaRecord,
    OpenContact, Phase, VirtualState,
};
use super::timers::{NOTICE_REPEAT_MS, TURN_REPEAT_MS};
use super::{Output, Pool};
use crate::policy::Policy;
use crate::{AgentId, ContactId, TimeMs};

/// What was measured is written this often.
const MEASURED_EVERY_MS: u64 = 30_000;

impl Pool {
    /// What changed since the last call: `changes` is cleared and filled.
    pub fn take_changes(&mut self, changes: &mut Changes) {
        changes.clear();
        for id in self.changed_contacts.drain(..) {
            let record = match self.contacts.find(id) {
                Some(index) => {
                    let contact = &mut self.contacts[index];
                    if !std::mem::take(&mut contact.changed) {
                        continue;
                    }
                    Some(ContactRecord::Open(contact.record.clone()))
                }
                None => match self.ended.get_mut(&id) {
                    Some(ended) => {
                        if !std::mem::take(&mut ended.changed) {
                            continue;
                        }
                        Some(ContactRecord::Ended(ended.record))
                    }
                    None => None,
                },
            };
            changes.contacts.push((id, record));
        }
        for id in self.changed_agents.drain(..) {
            let record = match self.agents.find(&id) {
                Some(index) => {
                    let agent = &mut self.agents[index];
                    if !std::mem::take(&mut agent.changed) {
                        continue;
                    }
                    Some(agent.record.clone())
                }
                None => None,
            };
            changes.agents.push((id, record));
        }
        let numbers = &mut self.numbers;
        let measured_is_old = numbers.measured_at.plus(MEASURED_EVERY_MS) <= self.now;
        if numbers.changed
            || (measured_is_old && !(changes.contacts.is_empty() && changes.agents.is_empty()))
        {
            numbers.changed = false;
            numbers.measured_at = self.now;
            changes.meta = Some(self.meta());
        }
    }

    fn meta(&self) -> MetaRecord {
        let measured = self
            .catalogue
            .queues
            .iter()
            .zip(&self.measured)
            .filter(|(_, measured)| measured.handled > 0 || measured.waited_ms > 0.0);
        MetaRecord {
            command_ids_until: self.numbers.command_until,
            idle_sequences_until: self.numbers.idle_until,
            measured: measured
                .map(|(queue, measured)| (Arc::clone(&queue.name), *measured))
                .collect(),
        }
    }

    /// Rebuilds a pool from its records and goes on: every index follows from the records,
    /// reservations in flight get their time again, unacknowledged notices, due turns and
    /// commands that may not have been delivered are told again. Arrival times are in the
    /// records and stay. What is mended (an agent or a topic that is no more) is marked
    /// changed.
    pub fn restore(
        policy: Arc<Policy>,
        name: &str,
        now: TimeMs,
        contacts: impl IntoIterator<Item = (ContactId, ContactRecord)>,
        agents: impl IntoIterator<Item = (AgentId, AgentRecord)>,
        meta: MetaRecord,
        out: &mut Outputs,
    ) -> Pool {
        let mut pool = Pool::new(policy, name);
        pool.begin(now, now);
        pool.numbers.command = meta.command_ids_until;
        pool.numbers.command_until = meta.command_ids_until;
        pool.numbers.idle = meta.idle_sequences_until;
        pool.numbers.idle_until = meta.idle_sequences_until;
        for (queue, measured) in meta.measured {
            if let Some(queue) = pool.catalogue.queue(&queue)
                && is_sound(&measured)
            {
                pool.measured[usize::from(queue)] = measured;
            }
        }
        let mut loaded = Vec::new();
        let mut ended = Vec::new();
        for (id, record) in contacts {
            match record {
                ContactRecord::Open(record) => loaded.extend(pool.load_contact(id, record)),
                ContactRecord::Ended(record) => ended.push((record.closed_at, id, record)),
            }
        }
        ended.sort_unstable_by_key(|(closed_at, id, _)| (*closed_at, *id));
        for (_, id, record) in ended {
            pool.load_ended(id, record);
        }
        let mut agents: Vec<(AgentId, AgentRecord)> = agents.into_iter().collect();
        agents.sort_by(|(_, a), (_, b)| {
            (a.idle_since, a.idle_sequence).cmp(&(b.idle_since, b.idle_sequence))
        });
        for (id, record) in agents {
            pool.load_agent(id, record);
        }
        for index in &loaded {
            pool.sync_contact(*index);
        }
        pool.unmark();
        // Turns are looked at in a moment, when the load is over, not while it is half done.
        pool.touched.clear();
        pool.mend_contacts(&loaded, out);
        pool.tell_again(&loaded, out);
        pool.settle(out);
        pool
    }

    /// What was loaded is stored already.
    fn unmark(&mut self) {
        for id in std::mem::take(&mut self.changed_contacts) {
            if let Some(index) = self.contacts.find(id) {
                self.contacts[index].changed = false;
            }
        }
        for id in std::mem::take(&mut self.changed_agents) {
            if let Some(index) = self.agents.find(&id) {
                self.agents[index].changed = false;
            }
        }
    }

    fn load_contact(&mut self, id: ContactId, mut record: OpenContact) -> Option<u32> {
        let first_line = || self.catalogue.lines.first().map(|_| 0);
        let line = self.catalogue.line(&record.line).or_else(first_line)?;
        let default_topic = self.catalogue.lines[line as usize].default_topic;
        let topic = self.catalogue.topic(&record.topic).unwrap_or(default_topic);
        let language = self
            .languages
            .intern(&record.language)
            .or_else(|| self.languages.intern(super::DEFAULT_LANGUAGE))?;
        let queue = self
            .catalogue
            .queue(&record.queue)
            .unwrap_or(self.catalogue.topics[topic as usize].queue);
        record.phase_since = match record.phase {
            // The time that the process was away is not the agent's.
            Phase::Assigned | Phase::Alerting => self.now,
            _ => record.phase_since,
        };
        let index = self.open(
            id,
            super::contact::Resolved {
                line,
                topic,
                language,
            },
            record,
        );
        let contact = &mut self.contacts[index];
        contact.queue = queue;
        contact.record.queue = Arc::clone(&self.catalogue.queues[usize::from(queue)].name);
        Some(index)
    }

    fn load_ended(&mut self, id: ContactId, record: EndedContact) {
        self.ended.insert(
            id,
            super::Ended {
                record,
                changed: false,
            },
        );
        self.ended_order.push_back((record.closed_at, id));
        self.arm_forget();
    }

    fn load_agent(&mut self, id: AgentId, mut record: AgentRecord) {
        record.capacity = record.capacity.clamp(1, 8);
        record.command_at = self.now;
        let kept = |hold: &super::Hold| {
            let Some(index) = self.contacts.find(hold.contact) else {
                return false;
            };
            let contact = &self.contacts[index].record;
            let is = |agent: &Option<AgentId>| agent.as_ref() == Some(&id);
            match hold.phase {
                HoldPhase::Reserved => {
                    is(&contact.agent) && matches!(contact.phase, Phase::Assigned | Phase::Alerting)
                }
                HoldPhase::Talking => is(&contact.agent) || is(&contact.staying),
                HoldPhase::Held => contact
                    .callback
                    .as_ref()
                    .is_some_and(|callback| is(&callback.held)),
                HoldPhase::WrapUp => true,
            }
        };
        record.holds.retain(kept);
        if record.leaving && record.holds.is_empty() {
            return;
        }
        for position in 0..record.holds.len() {
            let hold = &record.holds[position];
            let contact = &self.contacts[self
                .contacts
                .find(hold.contact)
                .expect("kept because it is there")];
            let (queue, language) = (
                self.catalogue.queue(&hold.queue).unwrap_or(contact.queue),
                contact.language,
            );
            let lane = self.lane(queue, language);
            record.holds[position].lane = lane;
            self.lanes[lane as usize].busy += 1;
        }
        let index = self.add_agent(id, record);
        self.sync_agent(index);
    }

    /// A contact whose agent is not tied to it any more goes back in line; a wrap-up that
    /// nobody does is over.
    fn mend_contacts(&mut self, loaded: &[u32], out: &mut Outputs) {
        let mut wrapping = BTreeMap::<ContactId, u32>::new();
        for (_, agent) in self.agents.iter() {
            for hold in agent
                .record
                .holds
                .iter()
                .filter(|hold| hold.phase == HoldPhase::WrapUp)
            {
                *wrapping.entry(hold.contact).or_insert(0) += 1;
            }
        }
        for index in loaded.iter().copied() {
            self.mend_contact(index, &wrapping, out);
        }
    }

    fn is_tied(&mut self, agent: Option<&AgentId>, contact: ContactId) -> bool {
        let agent = agent.and_then(|agent| self.agents.find(agent));
        agent.is_some_and(|agent| self.hold_mut(agent, contact).is_some())
    }

    fn mend_contact(&mut self, index: u32, wrapping: &BTreeMap<ContactId, u32>, out: &mut Outputs) {
        let id = self.contacts[index].id;
        let wrapping = wrapping.get(&id).copied().unwrap_or(0);
        let record = &self.contacts[index].record;
        let (phase, agent, staying) = (record.phase, record.agent.clone(), record.staying.clone());
        let held = record
            .callback
            .as_ref()
            .and_then(|callback| callback.held.clone());
        let mut mended = record.wrapping != wrapping;
        self.contacts[index].record.wrapping = wrapping;
        if staying.is_some() && !self.is_tied(staying.as_ref(), id) {
            self.contacts[index].record.staying = None;
            mended = true;
        }
        if held.is_some()
            && !self.is_tied(held.as_ref(), id)
            && let Some(callback) = &mut self.contacts[index].record.callback
        {
            callback.held = None;
            mended = true;
        }
        match phase {
            Phase::Assigned | Phase::Alerting if !self.is_tied(agent.as_ref(), id) => {
                self.requeue(index, QueuedReason::Recovered, out);
            }
            Phase::Talking if !self.is_tied(agent.as_ref(), id) => {
                // The agent is unknown here, the call goes on: its end will be told.
                if let Some(agent) = agent {
                    self.emit(index, EventBody::Disconnected { agent, talk_ms: 0 }, out);
                }
                let record = &mut self.contacts[index].record;
                record.agent = None;
                record.phase = Phase::Elsewhere;
                mended = true;
            }
            _ => {}
        }
        if mended {
            self.sync_contact(index);
        }
    }

    fn tell_again(&mut self, loaded: &[u32], out: &mut Outputs) {
        let now = self.now;
        for index in loaded.iter().copied() {
            let Some(contact) = self.contacts.get(index) else {
                continue;
            };
            let (phase, has_command) = (contact.record.phase, contact.record.command.is_some());
            if has_command {
                match phase {
                    Phase::Assigned => {
                        let answer = self.agent_answer(index);
                        self.tell_move(index, answer, out);
                    }
                    Phase::Waiting => {
                        let answer = self.queue_answer(index);
                        self.tell_move(index, answer, out);
                    }
                    _ => self.contacts[index].record.command = None,
                }
            }
            let contact = &mut self.contacts[index];
            let mut told = has_command;
            if !contact.record.notices.is_empty() {
                told = true;
                contact.record.notices_at = now.plus(NOTICE_REPEAT_MS);
                for (kind, turn) in &contact.record.notices {
                    out.push(Output::Notice {
                        contact: contact.id,
                        kind: *kind,
                        turn: *turn,
                    });
                }
            }
            if let Some(callback) = &mut contact.record.callback
                && callback.state == VirtualState::Due
                && phase == Phase::Waiting
            {
                told = true;
                callback.repeat_at = now.plus(TURN_REPEAT_MS);
                if callback.held.is_some() {
                    callback.held_since = now;
                }
                out.push(Output::VirtualDue {
                    contact: contact.id,
                    agent_held: callback.held.is_some(),
                    turn: callback.turn,
                    traceparent: contact.record.traceparent.as_ref().to_owned(),
                });
            }
            if told {
                self.sync_contact(index);
            }
        }
        let commanded = self
            .agents
            .iter()
            .filter_map(|(index, agent)| Some((index, agent.record.command?.1)));
        let commanded: Vec<(u32, SwitchAgentState)> = commanded.collect();
        for (index, state) in commanded {
            self.tell_agent_state(index, state, "told again by a new owner", out);
        }
    }
}

fn is_sound(measured: &Measured) -> bool {
    let positive = |value: f64| value.is_finite() && value > 0.0;
    positive(measured.handle_ms) && positive(measured.waited_ms) && positive(measured.abandoned)
}
