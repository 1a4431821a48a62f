//! Transfers: by topic, warm or cold, with the place of the first arrival; and moves that
//! the switch makes by itself.

use super::Pool;
use super::input::SwitchAgentState;
use super::output::{EventBody, Outputs, QueuedReason};
use super::record::Phase;
use crate::AgentId;
use crate::id::FieldError;

impl Pool {
    /// An agent asks for a transfer by topic.
    pub(super) fn transfer(
        &mut self,
        index: u32,
        from: &AgentId,
        topic: &str,
        warm: bool,
        authenticated: bool,
        out: &mut Outputs,
    ) -> Result<(), FieldError> {
        self.known_agent(from)?;
        let found = self.catalogue.topic(topic);
        let to = found.ok_or_else(|| {
            FieldError::new("transfer.topic", "a topic of this pool in policy", topic)
        })?;
        let record = &self.contacts[index].record;
        let repeated = record.sent_by.as_ref() == Some(from) && *record.topic == *topic;
        if record.phase != Phase::Talking || record.agent.as_ref() != Some(from) {
            let error = || {
                FieldError::new(
                    "transfer.from_agent_id",
                    "the agent who talks to the caller",
                    from,
                )
            };
            return if repeated { Ok(()) } else { Err(error()) };
        }
        self.contacts[index].record.authenticated |= authenticated;
        self.contacts[index].record.connected = true;
        self.leave_agent(index, from, to, warm, out);
        Ok(())
    }

    /// The switch sent the contact on in a new dialogue: a cold transfer.
    pub(super) fn switch_transfers(
        &mut self,
        index: u32,
        from: &AgentId,
        to: u32,
        out: &mut Outputs,
    ) {
        self.leave_agent(index, from, to, false, out);
    }

    fn leave_agent(&mut self, index: u32, from: &AgentId, to: u32, warm: bool, out: &mut Outputs) {
        let from_topic = self.contacts[index].record.topic.as_ref().to_owned();
        let to_topic = self.catalogue.topics[to as usize].id.as_ref().to_owned();
        let asked = EventBody::TransferRequested {
            from: from.clone(),
            from_topic,
            to_topic,
            warm,
        };
        self.emit(index, asked, out);
        let record = &mut self.contacts[index].record;
        record.transfers += 1;
        record.sent_by = Some(from.clone());
        record.agent = None;
        record.staying = warm.then(|| from.clone());
        if !warm {
            self.disconnect(index, from, out);
        }
        self.set_topic_and_queue(index, to);
        self.requeue(index, QueuedReason::Transfer, out);
    }

    /// The next person has answered: who stayed is free to go.
    pub(super) fn transfer_arrived(&mut self, index: u32, to: &AgentId, out: &mut Outputs) {
        let record = &mut self.contacts[index].record;
        let staying = record.staying.take();
        let Some(from) = record.sent_by.take() else {
            return;
        };
        self.emit(
            index,
            EventBody::Transferred {
                from: from.clone(),
                to: to.clone(),
            },
            out,
        );
        if staying.is_some() {
            self.disconnect(index, &from, out);
        }
    }

    /// The call leaves us while someone stayed on it: their conversation is over.
    pub(super) fn drop_staying(&mut self, index: u32, out: &mut Outputs) {
        let staying = self.contacts[index].record.staying.clone();
        self.end_transfer(index);
        if let Some(from) = staying {
            self.disconnect(index, &from, out);
        }
    }

    /// Nobody is waited for any more.
    pub(super) fn end_transfer(&mut self, index: u32) {
        let record = &mut self.contacts[index].record;
        record.staying = None;
        record.sent_by = None;
        record.connected = false;
    }

    /// The switch could not move the call: the caller is still with who stayed.
    pub(super) fn transfer_failed(&mut self, index: u32) {
        let now = self.now;
        let staying = self.contacts[index].record.staying.clone();
        self.end_transfer(index);
        let record = &mut self.contacts[index].record;
        record.agent = staying;
        record.phase = Phase::Talking;
        record.phase_since = now;
        self.sync_contact(index);
    }

    /// The switch moved the call by itself: it is followed.
    pub(super) fn moved(
        &mut self,
        index: u32,
        from: &AgentId,
        to: Option<&AgentId>,
        out: &mut Outputs,
    ) -> Result<(), FieldError> {
        self.known_agent(from)?;
        let to = to.map(|to| self.known_agent(to)).transpose()?;
        let at = self.at;
        let record = &mut self.contacts[index].record;
        let to_himself = to.is_some_and(|to| self.agents[to].id == *from);
        if record.phase != Phase::Talking || record.agent.as_ref() != Some(from) || to_himself {
            // Our own transfer, confirmed; or old; or nothing.
            return Ok(());
        }
        record.agent = None;
        record.phase = Phase::Waiting;
        record.phase_since = at;
        record.transfers += 1;
        record.sent_by = Some(from.clone());
        self.disconnect(index, from, out);
        if let Some(to) = to
            && self.follow(index, to, out)
        {
            self.agents[to].record.state = SwitchAgentState::Busy;
            self.talk(index, to, out);
            return Ok(());
        }
        self.end_transfer(index);
        self.contacts[index].record.phase = Phase::Elsewhere;
        self.sync_contact(index);
        Ok(())
    }
}
