//! A pool as it is now, for people and metrics.

use std::sync::Arc;

use super::Pool;
use super::state::AgentClass;
use crate::TimeMs;

/// A pool as it is now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolStatus {
    /// Agents logged on.
    pub agents: u32,
    /// Ready: free, and would take a call.
    pub agents_ready: u32,
    /// Reserved, or ringing.
    pub agents_reserved: u32,
    /// Held for a callback that is being dialled.
    pub agents_held: u32,
    /// Talking.
    pub agents_talking: u32,
    /// Wrapping up.
    pub agents_wrapping_up: u32,
    /// Logged on, takes no calls (not ready, or busy with something the pool does not know).
    pub agents_not_ready: u32,
    /// Contacts in progress, of every phase.
    pub contacts: u32,
    /// Contacts waiting, live and virtual.
    pub waiting: u32,
    /// The most that may wait.
    pub waiting_max: u32,
    /// Ended contacts remembered.
    pub remembered: u32,
    /// Agents held for a callback whose caller did not answer in time, since start.
    pub holds_expired: u64,
    /// Arrivals refused because a queue or the pool was full, since start.
    pub refused_full: u64,
    /// Arrivals refused because the caller had too many places, since start.
    pub refused_caller_limit: u64,
    /// Reservations of which the switch never said anything, since start.
    pub reservations_expired: u64,
    /// Ended contacts forgotten before their time because there were too many, since start.
    pub forgotten_early: u64,
    /// Queues, in order of name.
    pub queues: Vec<QueueStatus>,
}

/// A queue as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueStatus {
    /// Its name.
    pub queue: Arc<str>,
    /// Live calls waiting.
    pub waiting: u32,
    /// Virtual entries waiting.
    pub virtual_waiting: u32,
    /// Agents reserved for, talking to or wrapping up its contacts.
    pub agents_busy: u32,
    /// Arrival of who waits longest.
    pub oldest_arrived_at: Option<TimeMs>,
    /// Expected wait of a caller who comes now and speaks the queue's most waiting language, in ms.
    pub expected_wait_ms: u64,
}

impl Pool {
    /// The pool as it is now: walks its queues, neither contacts nor agents.
    #[must_use]
    pub fn status(&self, _now: TimeMs) -> PoolStatus {
        let count = |class| self.agent_counts.of(class);
        let mut queues: Vec<QueueStatus> = self
            .catalogue
            .queues
            .iter()
            .map(QueueStatus::empty)
            .collect();
        let mut most_waiting = vec![0; queues.len()];
        for (lane, index) in self.lanes.iter().zip(0_u32..) {
            let queue = usize::from(lane.queue);
            let status = &mut queues[queue];
            let waiting = lane.order.len();
            status.waiting += waiting - lane.waiting_virtual;
            status.virtual_waiting += lane.waiting_virtual;
            status.agents_busy += lane.busy;
            let oldest = lane.order.first().map(|(arrived_at, _)| arrived_at);
            status.oldest_arrived_at = [status.oldest_arrived_at, oldest]
                .into_iter()
                .flatten()
                .min();
            if waiting > most_waiting[queue] {
                most_waiting[queue] = waiting;
                status.expected_wait_ms = self.wait(index, waiting).expected_ms;
            }
        }
        PoolStatus {
            agents: u32::try_from(self.agents.len()).expect("policy's agents_max is below 2^32"),
            agents_ready: count(AgentClass::Ready),
            agents_reserved: count(AgentClass::Reserved),
            agents_held: count(AgentClass::Held),
            agents_talking: count(AgentClass::Talking),
            agents_wrapping_up: count(AgentClass::WrappingUp),
            agents_not_ready: count(AgentClass::NotReady),
            contacts: u32::try_from(self.contacts.len()).expect("as many contacts as slab indexes"),
            waiting: self.waiting,
            waiting_max: self.catalogue.pool.waiting_max,
            remembered: u32::try_from(self.ended.len()).expect("ENDED_MAX is below 2^32"),
            holds_expired: self.holds_expired,
            refused_full: self.refused_full,
            refused_caller_limit: self.refused_caller_limit,
            reservations_expired: self.reservations_expired,
            forgotten_early: self.forgotten_early,
            queues,
        }
    }
}

impl QueueStatus {
    fn empty(queue: &super::catalogue::Queue) -> QueueStatus {
        QueueStatus {
            queue: Arc::clone(&queue.name),
            waiting: 0,
            virtual_waiting: 0,
            agents_busy: 0,
            oldest_arrived_at: None,
            expected_wait_ms: 0,
        }
    }
}
