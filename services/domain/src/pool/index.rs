//! Keeps the indexes in step with the records.
//!
//! Each handler changes records only and then calls [`Pool::sync_contact`] or
//! [`Pool::sync_agent`]: what the record wants is compared with where it is entered, and
//! the difference is carried out. So no path can forget an index, and a restored pool
//! builds its indexes with the same code. Rejected: updating indexes at each transition,
//! which has as many places to forget as there are transitions.

use std::sync::Arc;

use super::record::{HoldPhase, OpenContact, Phase, VirtualState};
use super::state::{Agent, AgentClass, Class, Desk, Indexed, LEVELS, Lane, Timer};
use super::{Pool, timers};
use crate::{AgentId, ContactId};

/// Whether the contact keeps a place that is in line now.
fn is_in_line(record: &OpenContact) -> bool {
    let virtual_in_line = |state| {
        matches!(
            state,
            VirtualState::InLine | VirtualState::Due | VirtualState::Missed
        )
    };
    record.phase == Phase::Waiting
        && !record.closed
        && match &record.callback {
            Some(callback) if callback.state == VirtualState::Window => false,
            Some(callback) => record.leg_live || virtual_in_line(callback.state),
            None => record.leg_live,
        }
}

/// Whether its place is held by nobody on a line.
pub(super) fn is_virtual(record: &OpenContact) -> bool {
    record
        .callback
        .as_ref()
        .is_some_and(|callback| !matches!(callback.state, VirtualState::Live | VirtualState::Ended))
}

/// Whether an agent who frees may be given to it (or held for it).
fn is_matchable(record: &OpenContact) -> bool {
    is_in_line(record)
        && record.hold_off_until.is_none()
        && record
            .callback
            .as_ref()
            .is_none_or(|callback| match callback.state {
                VirtualState::InLine | VirtualState::Live | VirtualState::Ended => true,
                VirtualState::Due => callback.held.is_none() && callback.hold_wanted,
                VirtualState::Missed | VirtualState::Window => false,
            })
}

impl Pool {
    /// The desk of a skill and language, made when first needed.
    pub(super) fn desk(&mut self, skill: u32, language: u16) -> u32 {
        if let Some(desk) = self.desk_by.get(&(skill, language)) {
            return *desk;
        }
        let index = u32::try_from(self.desks.len()).expect("skills x languages is below 2^32");
        self.desks.push(Desk::default());
        self.desk_by.insert((skill, language), index);
        index
    }

    /// The lane of a queue and language, made when first needed.
    pub(super) fn lane(&mut self, queue: u16, language: u16) -> u32 {
        if let Some(lane) = self.lane_by.get(&(queue, language)) {
            return *lane;
        }
        let desk = self.desk(self.catalogue.queues[usize::from(queue)].skill, language);
        let index = u32::try_from(self.lanes.len()).expect("queues x languages is below 2^32");
        self.lanes.push(Lane {
            queue,
            desk,
            order: super::order::Order::default(),
            waiting_virtual: 0,
            turns: std::collections::BTreeSet::new(),
            busy: 0,
        });
        self.lane_by.insert((queue, language), index);
        index
    }

    /// The lane a contact belongs to.
    pub(super) fn lane_of(&mut self, contact: u32) -> u32 {
        let (queue, language) = (
            self.contacts[contact].queue,
            self.contacts[contact].language,
        );
        self.lane(queue, language)
    }

    /// Enters the contact where its record wants it, and marks it changed.
    pub(super) fn sync_contact(&mut self, index: u32) {
        let lane = self.lane_of(index);
        let contact = &self.contacts[index];
        let record = &contact.record;
        let in_line = is_in_line(record);
        let queue = &self.catalogue.queues[usize::from(contact.queue)];
        let topic = &self.catalogue.topics[contact.topic as usize];
        let class = Class {
            proficiency_min: queue.proficiency_min,
            start: queue.priority_start.saturating_add(topic.priority_start),
            acceleration: queue.acceleration,
        };
        let in_turn = in_line
            && record.hold_off_until.is_none()
            && record
                .callback
                .as_ref()
                .is_some_and(|callback| callback.state == VirtualState::InLine);
        let wanted = Indexed {
            lane: in_line.then(|| (lane, is_virtual(record))),
            turn: in_turn.then_some(lane),
            desk: is_matchable(record).then(|| (self.lanes[lane as usize].desk, class)),
            caller: record
                .caller
                .filter(|_| record.phase == Phase::Waiting)
                .map(|caller| (contact.line, caller)),
            wake: timers::contact_wake(record, &self.catalogue.pool),
        };
        let (place, was) = ((record.arrived_at, contact.id), contact.indexed);
        self.contacts[index].indexed = wanted;
        if was.lane != wanted.lane {
            self.move_in_lane(place, was.lane, wanted.lane);
        }
        let entry = (place.0, place.1, index);
        if was.turn != wanted.turn {
            self.move_turn(entry, was.turn, wanted.turn);
        }
        if was.desk != wanted.desk {
            self.move_at_desk(entry, was.desk, wanted.desk);
        }
        if was.caller != wanted.caller {
            self.move_caller_place(was.caller, wanted.caller);
        }
        self.move_timer(Timer::Contact(index), was.wake, wanted.wake);
        self.mark_contact(index);
    }

    /// Takes a contact out of every index, before it is dropped.
    pub(super) fn unindex_contact(&mut self, index: u32) {
        let contact = &mut self.contacts[index];
        let was = std::mem::take(&mut contact.indexed);
        let place = (contact.record.arrived_at, contact.id);
        let entry = (place.0, place.1, index);
        self.move_in_lane(place, was.lane, None);
        self.move_turn(entry, was.turn, None);
        self.move_at_desk(entry, was.desk, None);
        self.move_caller_place(was.caller, None);
        self.move_timer(Timer::Contact(index), was.wake, None);
    }

    fn move_in_lane(
        &mut self,
        place: super::order::Place,
        was: Option<(u32, bool)>,
        wanted: Option<(u32, bool)>,
    ) {
        if let Some((lane, was_virtual)) = was {
            let stays = wanted.is_some_and(|(other, _)| other == lane);
            let lane_index = lane;
            let lane = &mut self.lanes[lane as usize];
            lane.waiting_virtual -= u32::from(was_virtual);
            if !stays {
                lane.order.remove(place);
                let queue = usize::from(lane.queue);
                self.queue_waiting[queue] -= 1;
                self.waiting -= 1;
                self.touch(lane_index);
            }
        }
        if let Some((lane, is_virtual)) = wanted {
            let stays = was.is_some_and(|(other, _)| other == lane);
            let lane = &mut self.lanes[lane as usize];
            lane.waiting_virtual += u32::from(is_virtual);
            if !stays {
                lane.order.insert(place);
                let queue = usize::from(lane.queue);
                self.queue_waiting[queue] += 1;
                self.waiting += 1;
            }
        }
    }

    fn move_turn(
        &mut self,
        entry: (crate::TimeMs, ContactId, u32),
        was: Option<u32>,
        wanted: Option<u32>,
    ) {
        if let Some(lane) = was {
            self.lanes[lane as usize].turns.remove(&entry);
            if self.lanes[lane as usize].turns.is_empty() {
                self.lanes_with_turns.remove(&lane);
            }
        }
        if let Some(lane) = wanted {
            self.lanes[lane as usize].turns.insert(entry);
            self.lanes_with_turns.insert(lane);
            self.touch(lane);
        }
    }

    fn move_at_desk(
        &mut self,
        entry: (crate::TimeMs, ContactId, u32),
        was: Option<(u32, Class)>,
        wanted: Option<(u32, Class)>,
    ) {
        if let Some((desk, class)) = was {
            let waiting = &mut self.desks[desk as usize].waiting;
            if let Some(entries) = waiting.get_mut(&class) {
                entries.remove(&entry);
                if entries.is_empty() {
                    waiting.remove(&class);
                }
            }
        }
        if let Some((desk, class)) = wanted {
            self.desks[desk as usize]
                .waiting
                .entry(class)
                .or_default()
                .insert(entry);
        }
    }

    fn move_caller_place(
        &mut self,
        was: Option<(u32, crate::CallerId)>,
        wanted: Option<(u32, crate::CallerId)>,
    ) {
        if let Some(key) = was
            && let Some(places) = self.caller_places.get_mut(&key)
        {
            *places -= 1;
            if *places == 0 {
                self.caller_places.remove(&key);
            }
        }
        if let Some(key) = wanted {
            *self.caller_places.entry(key).or_insert(0) += 1;
        }
    }

    fn move_timer(
        &mut self,
        timer: Timer,
        was: Option<crate::TimeMs>,
        wanted: Option<crate::TimeMs>,
    ) {
        if was == wanted {
            return;
        }
        if let Some(at) = was {
            self.timers.remove(&(at, timer));
        }
        if let Some(at) = wanted {
            self.timers.insert((at, timer));
        }
    }

    /// The virtual entries of this lane may have come nearer.
    fn touch(&mut self, lane: u32) {
        if self.lanes[lane as usize].turns.is_empty() || self.touched.last() == Some(&lane) {
            return;
        }
        self.touched.push(lane);
    }

    pub(super) fn mark_contact(&mut self, index: u32) {
        let contact = &mut self.contacts[index];
        if !contact.changed {
            contact.changed = true;
            self.changed_contacts.push(contact.id);
        }
    }

    /// Counts the agent where its record wants it. An agent who has become free goes to the
    /// list of those to be served and is ready only when nobody waits for them.
    pub(super) fn sync_agent(&mut self, index: u32) {
        let agent = &mut self.agents[index];
        let record = &agent.record;
        let free = record.willing
            && !record.busy_elsewhere
            && !record.leaving
            && record.holds.len() < usize::from(record.capacity);
        let key = (record.idle_since, record.idle_sequence);
        let class = class_of(agent, free);
        let wake = timers::agent_wake(record, &self.catalogue.pool);
        let staffed = record.willing && !record.leaving;
        let (was_class, was_wake) = (agent.class, agent.wake);
        agent.class = class;
        agent.wake = wake;
        self.agent_counts.0[was_class as usize] -= 1;
        self.agent_counts.0[class as usize] += 1;
        if let Some(ready) = self.agents[index].ready
            && (!free || ready != key)
        {
            self.set_ready(index, None);
        }
        if staffed != self.agents[index].staffed {
            self.set_staffed(index, staffed);
        }
        let agent = &mut self.agents[index];
        if free && agent.ready.is_none() && !agent.freed {
            agent.freed = true;
            self.freed.push(index);
        }
        if !agent.changed {
            agent.changed = true;
            self.changed_agents.push(agent.id.clone());
        }
        self.move_timer(Timer::Agent(index), was_wake, wake);
    }

    /// Enters the agent as ready at all its desks, or takes it out.
    pub(super) fn set_ready(&mut self, index: u32, key: Option<(crate::TimeMs, u64)>) {
        let agent = &mut self.agents[index];
        let was = std::mem::replace(&mut agent.ready, key);
        for (desk, proficiency) in &agent.desks {
            let ready = &mut self.desks[*desk as usize].ready[level(*proficiency)];
            if let Some((since, sequence)) = was {
                ready.remove(&(since, sequence, index));
            }
            if let Some((since, sequence)) = key {
                ready.insert((since, sequence, index));
            }
        }
    }

    /// Counts the agent as staff of its desks, or no longer.
    pub(super) fn set_staffed(&mut self, index: u32, staffed: bool) {
        let agent = &mut self.agents[index];
        if agent.staffed == staffed {
            return;
        }
        agent.staffed = staffed;
        let desks = agent.desks.len() as u64;
        for (desk, proficiency) in &agent.desks {
            let count = &mut self.desks[*desk as usize].staffed[level(*proficiency)];
            *count = if staffed { *count + 1 } else { *count - 1 };
        }
        if staffed {
            self.staff.0 += 1;
            self.staff.1 += desks;
        } else {
            self.staff.0 -= 1;
            self.staff.1 -= desks;
        }
    }

    /// The desks of an agent: what it said at log-on and what policy adds.
    pub(super) fn desks_of(&mut self, id: &AgentId, record: &super::AgentRecord) -> Vec<(u32, u8)> {
        let catalogue = Arc::clone(&self.catalogue);
        let known = catalogue.pool.agents.get(id.as_str());
        let mut skills: Vec<(u32, u8)> = Vec::new();
        let said = record
            .skills
            .iter()
            .map(|skill| (skill.skill.as_str(), skill.proficiency));
        let policy = known.into_iter().flat_map(|agent| {
            agent
                .skills
                .iter()
                .map(|(name, level)| (name.as_str(), *level))
        });
        for (name, proficiency) in said.chain(policy) {
            let Some(skill) = catalogue.skill(name) else {
                continue;
            };
            let proficiency = proficiency.clamp(1, 10);
            match skills.iter_mut().find(|(other, _)| *other == skill) {
                Some((_, level)) => *level = proficiency.max(*level),
                None => skills.push((skill, proficiency)),
            }
        }
        let mut languages: Vec<u16> = Vec::new();
        let said = record.languages.iter().map(AsRef::as_ref);
        let policy = known
            .into_iter()
            .flat_map(|agent| agent.languages.iter().map(String::as_str));
        for name in said.chain(policy) {
            if let Some(language) = self.languages.intern(name)
                && !languages.contains(&language)
            {
                languages.push(language);
            }
        }
        if languages.is_empty() {
            languages.extend(self.languages.intern(super::DEFAULT_LANGUAGE));
        }
        let mut desks = Vec::with_capacity(skills.len() * languages.len());
        for (skill, proficiency) in &skills {
            for language in &languages {
                desks.push((self.desk(*skill, *language), *proficiency));
            }
        }
        desks
    }
}

fn level(proficiency: u8) -> usize {
    (usize::from(proficiency) - 1).min(LEVELS - 1)
}

fn class_of(agent: &Agent, free: bool) -> AgentClass {
    let mut class = if free {
        AgentClass::Ready
    } else {
        AgentClass::NotReady
    };
    for hold in &agent.record.holds {
        let of_hold = match hold.phase {
            HoldPhase::Talking => AgentClass::Talking,
            HoldPhase::Reserved => AgentClass::Reserved,
            HoldPhase::Held => AgentClass::Held,
            HoldPhase::WrapUp => AgentClass::WrappingUp,
        };
        if of_hold as usize > class as usize {
            class = of_hold;
        }
    }
    class
}
