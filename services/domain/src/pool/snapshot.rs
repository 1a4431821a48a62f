//! Reconciliation with a switch: its snapshot, and its restart.
//!
//! A snapshot is taken part by part against what the pool holds; at its end, legs and
//! agents of that switch that were not in it and are older than its beginning are gone.
//! Only here, and at a restart, all contacts and agents are walked.

use super::Pool;
use super::input::{RoutedBy, SnapshotCall, SnapshotPlace, SwitchRef};
use super::output::{EventBody, Outputs, QueuedReason};
use super::record::{OpenContact, Phase};
use super::state::Snapshot;
use crate::id::FieldError;
use crate::{AgentId, ContactId, TimeMs};

fn named(source: Option<SwitchRef>) -> Result<SwitchRef, FieldError> {
    source.ok_or_else(|| FieldError::new("switch_id", "a switch: this input is about one", "none"))
}

impl Pool {
    pub(super) fn snapshot_begin(&mut self, source: Option<SwitchRef>) -> Result<(), FieldError> {
        let source = named(source)?;
        let snapshot = Snapshot {
            boot: source.boot,
            begun_at: self.now,
            contacts: std::collections::BTreeSet::new(),
            agents: std::collections::BTreeSet::new(),
        };
        self.snapshots.insert(source.switch, snapshot);
        Ok(())
    }

    /// An agent is in the snapshot of its switch.
    pub(super) fn seen_agent(&mut self, source: Option<&SwitchRef>, agent: &AgentId) {
        if let Some(snapshot) = source.and_then(|source| self.snapshots.get_mut(&source.switch)) {
            snapshot.agents.insert(agent.clone());
        }
    }

    /// A live call of the snapshot.
    pub(super) fn snapshot_call(
        &mut self,
        id: ContactId,
        source: Option<SwitchRef>,
        traceparent: &str,
        call: SnapshotCall,
        out: &mut Outputs,
    ) -> Result<(), FieldError> {
        let source = named(source)?;
        if self.ended.contains_key(&id) {
            return Ok(());
        }
        if let Some(snapshot) = self.snapshots.get_mut(&source.switch) {
            snapshot.contacts.insert(id);
        }
        let agent = call
            .agent
            .as_ref()
            .map(|agent| self.known_agent(agent))
            .transpose()?;
        let index = match self.contacts.find(id) {
            Some(index) => index,
            // Its dialogue, or the end of its call, will tell.
            None if call.place == SnapshotPlace::Dialogue => return Ok(()),
            None => self.rebuild_from_snapshot(id, source.clone(), traceparent, &call, out)?,
        };
        let record = &self.contacts[index].record;
        let other_leg = record.leg_live
            && record
                .call
                .as_ref()
                .is_some_and(|known| *known != call.call);
        let virtual_leg = super::index::is_virtual(record) && !record.leg_live;
        // Told again, after the end of that leg was told.
        let stale = !record.leg_live && self.at <= record.phase_since;
        if record.closed
            || matches!(record.phase, Phase::Over | Phase::Blocked)
            || other_leg
            || virtual_leg
            || stale
        {
            return Ok(());
        }
        self.set_source(index, Some(source));
        let record = &mut self.contacts[index].record;
        record.call = Some(call.call.clone());
        record.leg_live = true;
        self.place_from_snapshot(index, call.place, agent, out);
        Ok(())
    }

    fn place_from_snapshot(
        &mut self,
        index: u32,
        place: SnapshotPlace,
        agent: Option<u32>,
        out: &mut Outputs,
    ) {
        let phase = self.contacts[index].record.phase;
        let is_new = self.contacts[index].record.sequence == 1 && phase == Phase::Elsewhere;
        match (place, agent) {
            (SnapshotPlace::Queued, _) if phase == Phase::Talking => {
                if let Some(from) = self.contacts[index].record.agent.take() {
                    self.disconnect(index, &from, out);
                }
                self.requeue(index, QueuedReason::Recovered, out);
            }
            (SnapshotPlace::Queued, _)
                if matches!(
                    phase,
                    Phase::Leaving | Phase::Elsewhere | Phase::DefaultRouted
                ) =>
            {
                self.requeue(index, QueuedReason::Recovered, out);
            }
            (SnapshotPlace::Queued, _) => self.at_queue(index, out),
            (SnapshotPlace::Alerting | SnapshotPlace::Connected, Some(agent)) => {
                let was_away = matches!(
                    phase,
                    Phase::Leaving | Phase::Elsewhere | Phase::DefaultRouted
                );
                if was_away {
                    self.contacts[index].record.phase = Phase::Waiting;
                }
                let agent = self.agents[agent].id.clone();
                // The agent is known; a refusal could be about nothing else.
                let _ = if place == SnapshotPlace::Alerting {
                    self.delivered(index, &agent, out)
                } else {
                    self.established(index, &agent, out)
                };
                let record = &mut self.contacts[index].record;
                if was_away && record.phase == Phase::Waiting {
                    record.phase = phase;
                }
            }
            (SnapshotPlace::DefaultRouted, _)
                if matches!(phase, Phase::Waiting | Phase::Assigned | Phase::Alerting)
                    || is_new =>
            {
                self.release_current(index);
                self.default_routed(index, RoutedBy::DefaultNoLink, out);
            }
            _ => {}
        }
        self.sync_contact(index);
    }

    /// A call that the pool has lost: counted, and put where it is.
    fn rebuild_from_snapshot(
        &mut self,
        id: ContactId,
        source: SwitchRef,
        traceparent: &str,
        call: &SnapshotCall,
        out: &mut Outputs,
    ) -> Result<u32, FieldError> {
        let known_language = crate::policy::is_language(&call.language);
        let resolved = {
            let line = self.catalogue.line(&call.line);
            let default = line.map(|line| self.catalogue.lines[line as usize].default_topic);
            let topic = default.map(|topic| self.catalogue.topics[topic as usize].id.clone());
            let language = if known_language {
                call.language.as_str()
            } else {
                ""
            };
            self.resolve(&call.line, topic.as_deref().unwrap_or_default(), language)?
        };
        let arrived_at = if call.arrived_at == TimeMs::default() {
            self.at
        } else {
            call.arrived_at.min(self.at)
        };
        let record = OpenContact {
            caller: call.caller,
            arrived_at,
            last_event_at: arrived_at,
            traceparent: traceparent.into(),
            call: Some(call.call.clone()),
            phase: Phase::Elsewhere,
            phase_since: arrived_at,
            leg_live: true,
            leg_since: self.now,
            ..OpenContact::default()
        };
        let index = self.open(id, resolved, record);
        self.set_source(index, Some(source));
        let offered = EventBody::Offered {
            topic_confidence: 0.0,
            person_asked: false,
            authenticated: false,
        };
        self.emit(index, offered, out);
        Ok(index)
    }

    /// The snapshot is complete: what was not in it is gone.
    pub(super) fn snapshot_end(
        &mut self,
        source: Option<SwitchRef>,
        out: &mut Outputs,
    ) -> Result<(), FieldError> {
        let source = named(source)?;
        let whole = self
            .snapshots
            .remove(&source.switch)
            .filter(|snapshot| snapshot.boot == source.boot);
        let Some(snapshot) = whole else {
            return Err(FieldError::new(
                "snapshot",
                "begun before its end, at this owner",
                &source.switch,
            ));
        };
        let is_of = |other: &Option<SwitchRef>| {
            other
                .as_ref()
                .is_some_and(|other| other.switch == source.switch)
        };
        let gone = self.contacts.iter().filter(|(_, contact)| {
            let record = &contact.record;
            is_of(&record.source)
                && record.leg_live
                && record.leg_since < snapshot.begun_at
                && !snapshot.contacts.contains(&contact.id)
        });
        let gone: Vec<u32> = gone.map(|(index, _)| index).collect();
        for index in gone {
            self.leg_cleared(index, RoutedBy::Nobody, out);
        }
        let gone = self.agents.iter().filter(|(_, agent)| {
            is_of(&agent.record.source)
                && agent.record.reported_at < snapshot.begun_at
                && !snapshot.agents.contains(&agent.id)
        });
        let gone: Vec<u32> = gone.map(|(index, _)| index).collect();
        self.log_off_all(gone, out);
        Ok(())
    }

    /// The switch has restarted: calls of its earlier boots are gone, its agents logged off.
    /// Booked callbacks keep their places; they are dialled on the new boot.
    pub(super) fn switch_boot(
        &mut self,
        source: Option<SwitchRef>,
        out: &mut Outputs,
    ) -> Result<(), FieldError> {
        let source = named(source)?;
        if self
            .snapshots
            .get(&source.switch)
            .is_some_and(|snapshot| snapshot.boot != source.boot)
        {
            self.snapshots.remove(&source.switch);
        }
        let is_old = |other: &Option<SwitchRef>| {
            other
                .as_ref()
                .is_some_and(|other| other.switch == source.switch && other.boot != source.boot)
        };
        let old: Vec<u32> = self
            .contacts
            .iter()
            .filter(|(_, contact)| is_old(&contact.record.source))
            .map(|(index, _)| index)
            .collect();
        for index in old {
            self.contacts[index].record.source = Some(source.clone());
            if self.contacts[index].record.leg_live {
                self.leg_cleared(index, RoutedBy::Nobody, out);
            } else {
                self.mark_contact(index);
            }
        }
        let old: Vec<u32> = self
            .agents
            .iter()
            .filter(|(_, agent)| is_old(&agent.record.source))
            .map(|(index, _)| index)
            .collect();
        self.log_off_all(old, out);
        Ok(())
    }

    fn log_off_all(&mut self, agents: Vec<u32>, out: &mut Outputs) {
        for index in agents {
            if self.agents.get(index).is_some() {
                self.log_off(index, out);
            }
        }
    }
}
