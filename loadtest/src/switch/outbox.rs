//! Events that the mesh does not hold yet, in order, sent again after a lost link.

use std::collections::VecDeque;

use bytes::Bytes;
use proto::cti::v1 as cti;

use super::ms;
use crate::time::Us;

/// Events of a frame, by contract.
const BATCH_MAX: usize = 512;
/// Events sent and not acknowledged. Enough for half a second of the busiest scenario;
/// beyond it the mesh is slow and more would only fill its buffers.
const IN_FLIGHT_MAX: usize = 16_384;

/// The events.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    /// Sequence of the last event made.
    last: u64,
    /// Not acknowledged: the front one has sequence `last - held.len() + 1`.
    held: VecDeque<(Us, cti::SwitchEvent)>,
    /// How many of them have been sent on this link.
    sent: usize,
    node: Option<usize>,
}

impl Outbox {
    pub(super) fn push(
        &mut self,
        now: Us,
        call: Option<cti::CallRef>,
        correlator_data: Bytes,
        body: cti::switch_event::Body,
    ) {
        self.last += 1;
        let event = cti::SwitchEvent {
            event_seq: self.last,
            age_ms: 0,
            call,
            correlator_data,
            body: Some(body),
        };
        self.held.push_back((now, event));
    }

    /// Events go to this node from now on; it holds those up to `acknowledged`.
    pub(super) fn attach(&mut self, node: usize, acknowledged: u64) {
        self.node = Some(node);
        self.sent = 0;
        self.acknowledge(acknowledged);
    }

    pub(super) fn detach(&mut self) {
        self.node = None;
        self.sent = 0;
    }

    pub(super) const fn node(&self) -> Option<usize> {
        self.node
    }

    pub(super) const fn made(&self) -> u64 {
        self.last
    }

    pub(super) fn acknowledged(&self) -> u64 {
        self.last - self.held.len() as u64
    }

    /// Cumulative; one that goes back, or beyond what was made, is ignored.
    pub(super) fn acknowledge(&mut self, sequence: u64) {
        if sequence > self.last {
            return;
        }
        while self.acknowledged() < sequence {
            self.held.pop_front();
            self.sent = self.sent.saturating_sub(1);
        }
    }

    pub(super) fn next_batch(&mut self, now: Us) -> Option<Vec<cti::SwitchEvent>> {
        let room = IN_FLIGHT_MAX.saturating_sub(self.sent).min(BATCH_MAX);
        let count = (self.held.len() - self.sent).min(room);
        if count == 0 {
            return None;
        }
        let batch = self.held.range(self.sent..self.sent + count);
        let events = batch
            .map(|(at, event)| {
                let mut event = event.clone();
                event.age_ms = u32::try_from(ms(now.saturating_sub(*at))).unwrap_or(u32::MAX);
                event
            })
            .collect();
        self.sent += count;
        Some(events)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outbox(events: u64) -> Outbox {
        let mut outbox = Outbox::default();
        for at in 0..events {
            let body = cti::switch_event::Body::Queued(cti::Queued { queue: "q".into() });
            outbox.push(at * 1000, None, Bytes::new(), body);
        }
        outbox
    }

    fn sequences(batch: Option<Vec<cti::SwitchEvent>>) -> Vec<u64> {
        batch
            .unwrap_or_default()
            .iter()
            .map(|event| event.event_seq)
            .collect()
    }

    #[test]
    fn what_is_not_acknowledged_is_sent_again_on_the_next_link_with_its_age() {
        let mut outbox = outbox(5);
        outbox.attach(0, 0);
        assert_eq!(sequences(outbox.next_batch(5000)), [1, 2, 3, 4, 5]);
        assert_eq!(outbox.next_batch(5000), None);
        outbox.acknowledge(2);
        outbox.detach();
        outbox.attach(1, 3);
        let again = outbox.next_batch(9000).unwrap();
        assert_eq!(
            again
                .iter()
                .map(|event| (event.event_seq, event.age_ms))
                .collect::<Vec<_>>(),
            [(4, 6), (5, 5)]
        );
        outbox.acknowledge(5);
        assert_eq!((outbox.made(), outbox.acknowledged()), (5, 5));
    }

    #[test]
    fn an_acknowledgement_from_the_past_or_the_future_changes_nothing() {
        let mut outbox = outbox(3);
        outbox.attach(0, 0);
        outbox.acknowledge(2);
        outbox.acknowledge(1);
        outbox.acknowledge(9);
        assert_eq!(outbox.acknowledged(), 2);
        assert_eq!(sequences(outbox.next_batch(0)), [3]);
    }

    #[test]
    fn batches_keep_to_the_contract_and_to_the_window() {
        let mut outbox = outbox(20_000);
        outbox.attach(0, 0);
        let mut sent = 0;
        while let Some(batch) = outbox.next_batch(0) {
            assert!(batch.len() <= BATCH_MAX);
            sent += batch.len();
        }
        assert_eq!(sent, IN_FLIGHT_MAX);
        outbox.acknowledge(100);
        assert_eq!(sequences(outbox.next_batch(0)).len(), 100);
    }
}
