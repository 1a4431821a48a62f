//! The pool as it is now, for people and metrics.

use proto::routing::v1;
use tokio::sync::oneshot;

use super::Driver;

impl Driver {
    /// Brings the gauges up to date.
    pub(super) fn show(&mut self) {
        let status = self.pool.status(self.now());
        self.context.metrics.show(&self.name, &status);
        let waiting = i64::try_from(self.inbox.len()).unwrap_or(i64::MAX);
        self.context
            .metrics
            .inbox_inputs
            .get_or_create(&self.labels)
            .set(waiting);
    }

    /// Answers `GetPool`.
    pub(super) fn tell_status(&self, asked: oneshot::Sender<v1::GetPoolResponse>) {
        let status = self.pool.status(self.now());
        let queues = status
            .queues
            .iter()
            .map(|queue| v1::QueueStatus {
                queue: queue.queue.to_string(),
                waiting: queue.waiting,
                virtual_waiting: queue.virtual_waiting,
                oldest_arrived_at_ms: queue.oldest_arrived_at.map_or(0, |at| at.0),
                expected_wait_ms: queue.expected_wait_ms,
            })
            .collect();
        // Who asked may have gone.
        let _ = asked.send(v1::GetPoolResponse {
            pool: self.name.clone(),
            epoch: self.epoch,
            agents: status.agents,
            agents_ready: status.agents_ready,
            queues,
        });
    }
}
