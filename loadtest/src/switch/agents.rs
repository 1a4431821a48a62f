//! Agents' phones and states.

use bytes::Bytes;
use proto::cti::v1 as cti;

use super::{Core, Phone, Place};
use crate::record::Entry;
use crate::time::Us;

impl Core {
    /// An agent logs on, not ready yet. Returns the phone.
    pub(crate) fn agent_logs_on(
        &mut self,
        now: Us,
        agent: &str,
        skills: Vec<(String, u32)>,
        languages: Vec<String>,
    ) -> usize {
        let phone = Phone {
            agent: agent.to_owned(),
            device: format!("device-{agent}"),
            state: cti::AgentState::NotReady,
            skills,
            languages,
            call: None,
            since: now,
            out_of_order: false,
            last: None,
        };
        let entry = Entry::Agent {
            agent: agent.to_owned(),
            skills: phone.skills.clone(),
            languages: phone.languages.clone(),
        };
        self.note(now, entry);
        let index = self.phones.len();
        self.outbox.push(
            now,
            None,
            Bytes::new(),
            cti::switch_event::Body::Agent(agent_event(&phone, "", true)),
        );
        self.phone_by_agent.insert(agent.to_owned(), index);
        self.phones.push(phone);
        index
    }

    /// The agent, or the mesh, sets the phone's state.
    pub(crate) fn set_state(
        &mut self,
        now: Us,
        phone: usize,
        state: cti::AgentState,
        reason: &str,
    ) {
        self.phones[phone].state = state;
        let event = agent_event(&self.phones[phone], reason, false);
        self.outbox.push(
            now,
            None,
            Bytes::new(),
            cti::switch_event::Body::Agent(event),
        );
    }

    /// The agent talks to the caller: not ringing, and not only staying on the line until the
    /// next person answers.
    pub(crate) fn talks(&self, phone: usize) -> bool {
        let call = self.phones[phone]
            .call
            .and_then(|number| self.calls.get(&number));
        call.is_some_and(|call| call.place == Place::Connected(phone))
    }

    /// The phone has a call, ringing or talking.
    pub(crate) fn has_call(&self, phone: usize) -> bool {
        self.phones[phone].call.is_some()
    }

    /// The next call that comes to the phone fails there.
    pub(crate) fn set_out_of_order(&mut self, phone: usize) {
        self.phones[phone].out_of_order = true;
    }

    /// The agent closes the wrap-up of the last conversation.
    pub(crate) fn wrap_up(
        &mut self,
        now: Us,
        phone: usize,
        disposition: cti::Disposition,
        topic: String,
    ) {
        let Some((reference, correlator)) = self.phones[phone].last.take() else {
            return;
        };
        let wrap_up = cti::WrapUp {
            agent_id: self.phones[phone].agent.clone(),
            disposition: disposition.into(),
            topic,
        };
        self.outbox.push(
            now,
            Some(reference),
            correlator,
            cti::switch_event::Body::WrapUp(wrap_up),
        );
    }
}

/// An agent's state; with `log_on` also what is told at log-on only.
pub(super) fn agent_event(phone: &Phone, reason: &str, log_on: bool) -> cti::AgentEvent {
    let skills = phone
        .skills
        .iter()
        .map(|(skill, proficiency)| cti::AgentSkill {
            skill: skill.clone(),
            proficiency: *proficiency,
        });
    cti::AgentEvent {
        agent_id: phone.agent.clone(),
        device: Some(cti::Device {
            id: phone.device.clone(),
        }),
        state: phone.state.into(),
        pool: String::new(),
        skills: if log_on { skills.collect() } else { Vec::new() },
        languages: if log_on {
            phone.languages.clone()
        } else {
            Vec::new()
        },
        capacity: u32::from(log_on),
        reason: reason.to_owned(),
    }
}
