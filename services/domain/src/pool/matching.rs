//! Who gets whom, and back in line.

use super::output::{
    Answer, Command, CommandBody, ContactContext, EventBody, Output, Outputs, QueuePlace,
    QueuedReason,
};
use super::record::{HoldPhase, Phase};
use super::state::Class;
use super::{Invariant, Pool, catalogue, index};
use crate::{ContactId, TimeMs};

impl Class {
    /// Priority after that wait, in thousandths of a point.
    fn priority(self, waited_ms: u64, cap: u64) -> u64 {
        let start = u64::from(self.start) * catalogue::POINT;
        // A second of waiting is `acceleration` points, a millisecond as many thousandths.
        start
            .saturating_add(u64::from(self.acceleration).saturating_mul(waited_ms))
            .min(cap)
    }

    /// After this wait the cap is reached.
    fn bound_ms(self, cap: u64) -> u64 {
        cap.saturating_sub(u64::from(self.start) * catalogue::POINT)
            .div_ceil(u64::from(self.acceleration.max(1)))
    }
}

/// The best caller so far for an agent who frees.
struct Best {
    priority: u64,
    place: (TimeMs, ContactId),
    contact: u32,
}

impl Pool {
    /// The agent idle longest of those who can serve the contact now.
    pub(super) fn find_agent(&mut self, contact: u32) -> Option<u32> {
        let lane = self.lane_of(contact);
        let contact = &self.contacts[contact];
        let staying = contact
            .record
            .staying
            .as_ref()
            .and_then(|agent| self.agents.find(agent));
        let from =
            usize::from(self.catalogue.queues[usize::from(contact.queue)].proficiency_min) - 1;
        let desk = &self.desks[self.lanes[lane as usize].desk as usize];
        let longest = desk.ready[from..]
            .iter()
            .filter_map(|ready| ready.iter().find(|(_, _, agent)| Some(*agent) != staying));
        longest.min().map(|(_, _, agent)| *agent)
    }

    /// Gives a free agent to the caller who has waited with the highest priority, or enters
    /// the agent as ready when nobody waits.
    pub(super) fn serve(&mut self, agent: u32, out: &mut Outputs) {
        let Some(entry) = self.agents.get(agent) else {
            return;
        };
        if !entry.freed {
            return;
        }
        self.agents[agent].freed = false;
        let record = &self.agents[agent].record;
        let free = record.willing
            && !record.busy_elsewhere
            && !record.leaving
            && record.holds.len() < usize::from(record.capacity);
        if !free {
            return;
        }
        let key = (record.idle_since, record.idle_sequence);
        match self.best_for(agent, out) {
            Some(contact) => self.take(contact, agent, out),
            None => self.set_ready(agent, Some(key)),
        }
    }

    /// Looks at the head of each class at the agent's desks: as many as differ, never at
    /// those behind them.
    fn best_for(&self, agent: u32, out: &mut Outputs) -> Option<u32> {
        let cap = self.catalogue.cap;
        let mut best: Option<Best> = None;
        let mut capped: Option<(TimeMs, ContactId)> = None;
        for (desk, proficiency) in &self.agents[agent].desks {
            let end = Class {
                proficiency_min: proficiency + 1,
                start: 0,
                acceleration: 0,
            };
            for (class, entries) in self.desks[*desk as usize].waiting.range(..end) {
                let head = entries.iter().find(|(_, _, contact)| {
                    self.contacts[*contact].record.staying.as_ref() != Some(&self.agents[agent].id)
                });
                let Some((arrived_at, id, contact)) = head.copied() else {
                    continue;
                };
                let place = (arrived_at, id);
                let waited_ms = self.now.since(arrived_at);
                let priority = class.priority(waited_ms, cap);
                if waited_ms >= class.bound_ms(cap) {
                    capped = Some(capped.map_or(place, |other| other.min(place)));
                }
                let better = best.as_ref().is_none_or(|best| {
                    (priority, std::cmp::Reverse(place))
                        > (best.priority, std::cmp::Reverse(best.place))
                });
                if better {
                    best = Some(Best {
                        priority,
                        place,
                        contact,
                    });
                }
            }
        }
        if let (Some(best), Some(capped)) = (&best, capped)
            && capped < best.place
        {
            let detail = format!(
                "contact {} goes before contact {}, who is past the bound",
                best.place.1, capped.1
            );
            self.violation(Invariant::BoundedOvertaking, detail, out);
        }
        best.map(|best| best.contact)
    }

    /// An agent and a waiting contact meet: a caller on the line is given to the agent, a
    /// callback's place holds the agent and is dialled.
    pub(super) fn take(&mut self, contact: u32, agent: u32, out: &mut Outputs) {
        if index::is_virtual(&self.contacts[contact].record) {
            self.hold_for_turn(contact, agent, out);
        } else {
            self.assign(contact, agent, out);
        }
    }

    /// Reserves the agent for the contact, and tells the switch unless this is the answer
    /// to a route request.
    pub(super) fn assign(&mut self, contact: u32, agent: u32, out: &mut Outputs) {
        let now = self.now;
        let agent_id = self.agents[agent].id.clone();
        let id = self.contacts[contact].id;
        // Whoever is held for its callback is needed no longer, or is the one who takes it.
        self.unhold(contact);
        if self.contacts[contact].record.agent.is_some() {
            let detail = format!("contact {id} is given to agent {agent_id} while with another");
            self.violation(Invariant::OneCallOneAgent, detail, out);
        }
        let record = &mut self.contacts[contact].record;
        record.phase = Phase::Assigned;
        record.phase_since = now;
        record.agent = Some(agent_id.clone());
        record.assignments += 1;
        record.hold_off_until = None;
        let assignment = record.assignments;
        self.add_hold(agent, contact, HoldPhase::Reserved, out);
        let waited_ms = self
            .event_time(contact)
            .since(self.contacts[contact].record.arrived_at);
        self.emit(
            contact,
            EventBody::Assigned {
                agent: agent_id,
                assignment,
                waited_ms,
            },
            out,
        );
        self.measure_wait(contact, false);
        if self.answering != Some(contact) {
            let answer = self.agent_answer(contact);
            self.tell_move(contact, answer, out);
        }
        self.sync_contact(contact);
    }

    /// Tells the switch where the call goes now.
    pub(super) fn tell_move(&mut self, contact: u32, answer: Answer, out: &mut Outputs) {
        let id = self.numbers.next_command();
        let entry = &mut self.contacts[contact];
        let record = &mut entry.record;
        let Some(target) = record.source.clone().filter(|_| record.leg_live) else {
            return;
        };
        record.command = Some(id);
        let warm = record.staying.is_some();
        let body = if warm || record.connected {
            CommandBody::Transfer { to: answer, warm }
        } else {
            CommandBody::Deflect(answer)
        };
        out.push(Output::Command(Command {
            id,
            target,
            call: record.call.clone(),
            contact: Some(entry.id),
            traceparent: record.traceparent.as_ref().to_owned(),
            body,
        }));
        self.mark_contact(contact);
    }

    /// Back in line, at the place of the first arrival. Who is ready takes it at once; who
    /// has just become free is offered it with all others when the input is settled.
    pub(super) fn requeue(&mut self, contact: u32, reason: QueuedReason, out: &mut Outputs) {
        let now = self.now;
        let record = &mut self.contacts[contact].record;
        record.phase = Phase::Waiting;
        record.phase_since = now;
        record.agent = None;
        self.sync_contact(contact);
        let id = self.contacts[contact].id;
        if self.contacts[contact].record.leg_live {
            self.requeued.push((contact, id, reason));
        }
        self.rematch(contact, out);
    }

    /// If an idle agent can serve the contact now, they meet.
    pub(super) fn rematch(&mut self, contact: u32, out: &mut Outputs) {
        if self.contacts[contact].indexed.desk.is_none() {
            return;
        }
        if let Some(agent) = self.find_agent(contact) {
            self.take(contact, agent, out);
        }
    }

    /// The input is settled and the contact is in line still: it gets its place told, and
    /// the switch takes it (back) to the queue's device.
    pub(super) fn back_in_line(
        &mut self,
        contact: u32,
        id: ContactId,
        reason: QueuedReason,
        out: &mut Outputs,
    ) {
        let Some(entry) = self.contacts.get(contact) else {
            return;
        };
        if entry.id != id
            || entry.record.phase != Phase::Waiting
            || !entry.record.leg_live
            || entry.record.closed
        {
            return;
        }
        self.announce(contact, reason, false, out);
        if self.answering == Some(contact) || self.contacts[contact].record.hold_off_until.is_some()
        {
            return;
        }
        let answer = self.queue_answer(contact);
        self.tell_move(contact, answer, out);
    }

    /// What the agent sees, as an answer.
    pub(super) fn agent_answer(&self, contact: u32) -> Answer {
        let contact = &self.contacts[contact];
        let record = &contact.record;
        let Some(id) = record.agent.clone() else {
            return Answer::DefaultRoute;
        };
        let Some(index) = self.agents.find(&id) else {
            return Answer::DefaultRoute;
        };
        let context = ContactContext {
            topic: record.topic.as_ref().to_owned(),
            topic_confidence: record.topic_confidence,
            other_topics: record
                .other_topics
                .iter()
                .map(|topic| topic.as_ref().to_owned())
                .collect(),
            language: record.language.as_ref().to_owned(),
            waited_ms: self.now.since(record.arrived_at),
            transfers: record.transfers,
            authenticated: record.authenticated,
            callback_code: record
                .callback
                .as_ref()
                .map(|callback| callback.code.as_ref().to_owned())
                .unwrap_or_default(),
        };
        Answer::Agent {
            agent: id,
            device: self.agents[index].record.device.as_ref().to_owned(),
            context,
        }
    }

    /// The place as last announced, as an answer.
    pub(super) fn queue_answer(&self, contact: u32) -> Answer {
        let contact = &self.contacts[contact];
        let queue = &self.catalogue.queues[usize::from(contact.queue)];
        let announced = contact.record.announced.clone().unwrap_or_default();
        Answer::Queue(QueuePlace {
            queue: queue.name.as_ref().to_owned(),
            device: queue.device.as_ref().to_owned(),
            position: announced.position.max(1),
            expected_wait_ms: announced.expected_wait_ms,
            expected_wait_low_ms: announced.low_ms,
            expected_wait_high_ms: announced.high_ms,
            offer_virtual_hold: announced.virtual_hold,
            windows: announced.windows,
        })
    }

    /// How long anyone in this queue can be overtaken, in ms: until the priority cap is
    /// reached, after which only those who arrived earlier go first. `None`: no such queue.
    #[must_use]
    pub fn overtaking_bound_ms(&self, queue: &str) -> Option<u64> {
        let queue = &self.catalogue.queues[usize::from(self.catalogue.queue(queue)?)];
        let class = Class {
            proficiency_min: queue.proficiency_min,
            start: queue.priority_start,
            acceleration: queue.acceleration,
        };
        Some(class.bound_ms(self.catalogue.cap))
    }
}
