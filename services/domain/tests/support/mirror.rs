//! The store beside a pool under test: what was written, and what must hold of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use domain::policy::Policy;
use domain::pool::{
    AgentRecord, Changes, ContactRecord, Event, EventBody, HoldPhase, MetaRecord, OpenContact,
    Output, Phase, Pool, VirtualState,
};
use domain::{AgentId, ContactId, TimeMs};

/// Records as stored, and the log.
#[derive(Default)]
pub(crate) struct Mirror {
    pub(crate) contacts: BTreeMap<ContactId, ContactRecord>,
    pub(crate) agents: BTreeMap<AgentId, AgentRecord>,
    pub(crate) meta: MetaRecord,
    /// Events so far of each contact: last sequence, last time, first arrival, closed.
    log: BTreeMap<ContactId, Story>,
    /// How often each kind of event came.
    pub(crate) kinds: BTreeMap<String, u64>,
    changes: Changes,
}

#[derive(Clone, Copy)]
pub(crate) struct Story {
    pub(crate) sequence: u64,
    pub(crate) at: TimeMs,
    pub(crate) arrived_at: TimeMs,
    pub(crate) closed: bool,
    pub(crate) callback: Callback,
    /// Offered alone; or with something that became of it.
    pub(crate) outcome: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Callback {
    None,
    Booked,
    Ended,
}

impl Mirror {
    /// Takes what a step gave: everything that can be wrong with it is found here.
    pub(crate) fn take(&mut self, pool: &mut Pool, out: &mut [Output]) {
        for output in out.iter() {
            match output {
                Output::Event(event) => self.log(event),
                Output::Violation(violation) => panic!("{violation:?}"),
                _ => {}
            }
        }
        let mut changes = std::mem::take(&mut self.changes);
        pool.take_changes(&mut changes);
        for (id, record) in changes.contacts.drain(..) {
            match record {
                Some(record) => {
                    if let (ContactRecord::Open(new), Some(ContactRecord::Open(old))) =
                        (&record, self.contacts.get(&id))
                    {
                        assert_eq!(
                            new.arrived_at, old.arrived_at,
                            "contact {id} lost its arrival time"
                        );
                    }
                    self.contacts.insert(id, record);
                }
                None => {
                    self.contacts.remove(&id);
                }
            }
        }
        for (id, record) in changes.agents.drain(..) {
            match record {
                Some(record) => self.agents.insert(id, record),
                None => self.agents.remove(&id),
            };
        }
        if let Some(meta) = changes.meta.take() {
            self.meta = meta;
        }
        self.changes = changes;
    }

    fn log(&mut self, event: &Event) {
        let first = matches!(event.body, EventBody::Offered { .. });
        if first
            && self
                .log
                .get(&event.contact)
                .is_some_and(|story| story.closed)
        {
            // Forgotten by the pool in the meantime: a new life under the same name.
            self.log.remove(&event.contact);
        }
        let story = self.log.entry(event.contact).or_insert(Story {
            sequence: 0,
            at: TimeMs::default(),
            arrived_at: event.arrived_at,
            closed: false,
            callback: Callback::None,
            outcome: false,
        });
        assert!(!story.closed, "after the end: {event:?}");
        assert_eq!(event.sequence, story.sequence + 1, "gap: {event:?}");
        assert_eq!(
            first,
            event.sequence == 1,
            "offered is the first: {event:?}"
        );
        assert!(event.at >= story.at, "back in time: {event:?}");
        assert_eq!(
            event.arrived_at, story.arrived_at,
            "arrival changed: {event:?}"
        );
        let kind = super::short(&event.body);
        let kind = kind
            .split(|letter: char| letter.is_ascii_digit() || letter == '=')
            .next()
            .unwrap_or_default();
        let kind = kind.trim_end().trim_end_matches(" a").to_owned();
        *self.kinds.entry(kind).or_insert(0) += 1;
        story.sequence = event.sequence;
        story.at = event.at;
        match &event.body {
            EventBody::Closed => story.closed = true,
            EventBody::Queued { place_from, .. } => {
                assert_eq!(*place_from, event.arrived_at, "place lost: {event:?}")
            }
            EventBody::CallbackBooked { .. } => {
                assert_ne!(
                    story.callback,
                    Callback::Booked,
                    "booked over a booking: {event:?}"
                );
                story.callback = Callback::Booked;
            }
            EventBody::CallbackEnded { .. } => {
                assert_eq!(
                    story.callback,
                    Callback::Booked,
                    "ended twice or unbooked: {event:?}"
                );
                story.callback = Callback::Ended;
            }
            EventBody::Established { .. }
            | EventBody::Abandoned { .. }
            | EventBody::Blocked { .. }
            | EventBody::DefaultRouted { .. } => story.outcome = true,
            _ => {}
        }
        if matches!(event.body, EventBody::Closed) {
            assert_ne!(
                story.callback,
                Callback::Booked,
                "closed with a callback open: {event:?}"
            );
        }
    }

    /// The stories of all contacts.
    pub(crate) fn stories(&self) -> impl Iterator<Item = (ContactId, Story)> {
        self.log.iter().map(|(id, story)| (*id, *story))
    }

    fn open(&self) -> impl Iterator<Item = (ContactId, &OpenContact)> {
        self.contacts
            .iter()
            .filter_map(|(id, record)| match record {
                ContactRecord::Open(record) => Some((*id, record)),
                ContactRecord::Ended(_) => None,
            })
    }

    /// One call one agent: the records of both sides agree.
    pub(crate) fn check(&self, pool: &Pool, policy: &Policy) {
        for (id, record) in self.open() {
            let with = |agent: &AgentId, phases: &[HoldPhase]| {
                let Some(agent) = self.agents.get(agent) else {
                    return false;
                };
                let holds: Vec<_> = agent
                    .holds
                    .iter()
                    .filter(|hold| hold.contact == id)
                    .collect();
                holds.len() == 1 && phases.contains(&holds[0].phase)
            };
            match record.phase {
                Phase::Assigned | Phase::Alerting => {
                    let agent = record.agent.as_ref().expect("an agent is reserved");
                    assert!(
                        with(agent, &[HoldPhase::Reserved]),
                        "{id} {record:?} {:?}",
                        self.agents.get(agent)
                    );
                }
                Phase::Talking => {
                    let agent = record.agent.as_ref().expect("an agent talks");
                    assert!(
                        with(agent, &[HoldPhase::Talking]),
                        "{id} {record:?} {:?}",
                        self.agents.get(agent)
                    );
                }
                _ => assert!(record.agent.is_none(), "{id} {record:?}"),
            }
            if let Some(staying) = &record.staying {
                assert!(with(staying, &[HoldPhase::Talking]), "{id} {record:?}");
            }
            if let Some(callback) = &record.callback {
                assert_eq!(
                    callback.held.is_some(),
                    callback
                        .held
                        .as_ref()
                        .is_some_and(|agent| with(agent, &[HoldPhase::Held])),
                    "{id}"
                );
            }
            let wrapping = self
                .agents
                .values()
                .flat_map(|agent| &agent.holds)
                .filter(|hold| hold.contact == id && hold.phase == HoldPhase::WrapUp);
            assert_eq!(
                record.wrapping as usize,
                wrapping.count(),
                "{id} {record:?}"
            );
        }
        for (id, agent) in &self.agents {
            assert!(
                agent.holds.len() <= usize::from(agent.capacity),
                "{id} {agent:?}"
            );
            for hold in &agent.holds {
                let Some(ContactRecord::Open(contact)) = self.contacts.get(&hold.contact) else {
                    panic!("{id} holds {}, who is gone: {agent:?}", hold.contact);
                };
                let tied = match hold.phase {
                    HoldPhase::Reserved | HoldPhase::Talking => {
                        contact.agent.as_ref() == Some(id) || contact.staying.as_ref() == Some(id)
                    }
                    HoldPhase::Held => contact
                        .callback
                        .as_ref()
                        .is_some_and(|callback| callback.held.as_ref() == Some(id)),
                    HoldPhase::WrapUp => true,
                };
                assert!(tied, "{id} {hold:?} {contact:?}");
            }
        }
        self.check_nobody_waits_beside_a_free_agent(policy);
        let status = pool.status(TimeMs::default());
        assert_eq!(status.contacts as usize, self.open().count());
        assert_eq!(status.agents as usize, self.agents.len());
        let by_state = status.agents_ready
            + status.agents_reserved
            + status.agents_held
            + status.agents_talking
            + status.agents_wrapping_up
            + status.agents_not_ready;
        assert_eq!(by_state, status.agents);
    }

    fn check_nobody_waits_beside_a_free_agent(&self, policy: &Policy) {
        for (id, record) in self.open() {
            let wants = record.phase == Phase::Waiting
                && record.hold_off_until.is_none()
                && !record.closed
                && match &record.callback {
                    None => record.leg_live,
                    Some(callback) => matches!(callback.state, VirtualState::Live),
                };
            if !wants {
                continue;
            }
            let queue = policy.queue(policy.topics[&*record.topic].queue);
            for (agent_id, agent) in &self.agents {
                let free = agent.willing
                    && !agent.busy_elsewhere
                    && !agent.leaving
                    && agent.holds.len() < usize::from(agent.capacity);
                let skilled = agent.skills.iter().any(|skill| {
                    skill.skill == queue.skill && skill.proficiency >= queue.proficiency_min
                });
                let speaks = agent.languages.is_empty() && *record.language == *"en"
                    || agent.languages.contains(&record.language);
                let excluded = record.staying.as_ref() == Some(agent_id);
                assert!(
                    !(free && skilled && speaks) || excluded,
                    "{id} waits beside {agent_id}: {record:?} {agent:?}"
                );
            }
        }
    }

    /// A new owner from what is stored, through the wire's kind of encoding.
    pub(crate) fn restore(&self, policy: &Arc<Policy>, now: TimeMs, out: &mut Vec<Output>) -> Pool {
        fn again<T: serde::Serialize + serde::de::DeserializeOwned>(record: &T) -> T {
            let bytes = rmp_serde::to_vec_named(record).expect("records are encodable");
            rmp_serde::from_slice(&bytes).expect("what was encoded is decodable")
        }
        let contacts = self
            .contacts
            .iter()
            .map(|(id, record)| (*id, again(record)));
        let agents = self
            .agents
            .iter()
            .map(|(id, record)| (id.clone(), again(record)));
        Pool::restore(
            Arc::clone(policy),
            "p",
            now,
            contacts,
            agents,
            again(&self.meta),
            out,
        )
    }
}
