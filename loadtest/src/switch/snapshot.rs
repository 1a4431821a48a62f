//! The snapshot after a gap: every live call and every agent, bracketed.

use bytes::Bytes;
use proto::cti::v1 as cti;

use super::agents::agent_event;
use super::dialogue::{call_ref, cross_ref};
use super::{Core, Place, ms};
use crate::time::Us;

impl Core {
    /// Puts a snapshot of now behind the events that are still to be sent.
    pub(super) fn snapshot(&mut self, now: Us) {
        use cti::snapshot::Body;
        self.part(now, None, Bytes::new(), Body::Begin(cti::SnapshotBegin {}));
        let mut numbers: Vec<_> = self.calls.keys().copied().collect();
        numbers.sort_unstable();
        let calls = numbers.len() as u32;
        for number in numbers {
            let call = &self.calls[&number];
            let (place, agent) = match call.place {
                Place::Asking | Place::Announcement => (cti::SnapshotPlace::Unspecified, None),
                Place::Queued(_) => (cti::SnapshotPlace::Queued, None),
                Place::Alerting(phone) => (cti::SnapshotPlace::Alerting, Some(phone)),
                Place::Connected(phone) => (cti::SnapshotPlace::Connected, Some(phone)),
                Place::Default => (cti::SnapshotPlace::DefaultRouted, None),
            };
            let part = cti::SnapshotCall {
                place: place.into(),
                agent_id: agent
                    .map(|phone| self.phones[phone].agent.clone())
                    .unwrap_or_default(),
                arrived_ago_ms: ms(now.saturating_sub(call.arrived)),
                current_route: Some(cti::Device {
                    id: call.new.line.clone(),
                }),
                calling_device: call.new.number.clone().map(|id| cti::Device { id }),
                language: call.new.language.clone(),
                cross_ref_id: cross_ref(number, 1),
            };
            let (reference, correlator) = (
                call_ref(self.config.boot_id, number),
                call.correlator.clone(),
            );
            self.part(now, Some(reference), correlator, Body::Call(part));
        }
        let mut agents = 0;
        for phone in 0..self.phones.len() {
            if self.phones[phone].state == cti::AgentState::Null {
                continue;
            }
            agents += 1;
            let part = agent_event(&self.phones[phone], "", true);
            self.part(now, None, Bytes::new(), Body::Agent(part));
        }
        self.part(
            now,
            None,
            Bytes::new(),
            Body::End(cti::SnapshotEnd { calls, agents }),
        );
    }

    fn part(
        &mut self,
        now: Us,
        call: Option<cti::CallRef>,
        correlator: Bytes,
        body: cti::snapshot::Body,
    ) {
        let snapshot = cti::Snapshot { body: Some(body) };
        self.outbox.push(
            now,
            call,
            correlator,
            cti::switch_event::Body::Snapshot(snapshot),
        );
    }
}
