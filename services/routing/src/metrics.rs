//! Metrics of the role. Every limit has one for its use and one for its hits.

use std::sync::atomic::AtomicU64;

use domain::invariant::{Invariant, Violation};
use domain::pool::{CommandBody, InputBody, PoolStatus};
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Labels: the pool. Pools are policy's, a closed set.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct PoolLabels {
    pub(crate) pool: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct KindLabels {
    pub(crate) kind: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct QueueLabels {
    pub(crate) pool: String,
    pub(crate) queue: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct AgentLabels {
    pub(crate) pool: String,
    pub(crate) state: AgentState,
}

/// States an agent can be in, as counted.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelValue)]
pub(crate) enum AgentState {
    Ready,
    Reserved,
    Held,
    Talking,
    WrappingUp,
    NotReady,
}

impl AgentState {
    const ALL: [AgentState; 6] = [
        AgentState::Ready,
        AgentState::Reserved,
        AgentState::Held,
        AgentState::Talking,
        AgentState::WrappingUp,
        AgentState::NotReady,
    ];
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct InvariantLabels {
    pub(crate) invariant: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct ReasonLabels {
    pub(crate) reason: &'static str,
}

/// All metrics, cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    pub(crate) inputs: Family<KindLabels, Counter>,
    pub(crate) replies: Family<KindLabels, Counter>,
    pub(crate) commands: Family<KindLabels, Counter>,
    pub(crate) commands_dropped: Family<ReasonLabels, Counter>,
    pub(crate) commands_pending: Gauge,
    pub(crate) events: Counter,
    pub(crate) commit_seconds: Histogram,
    pub(crate) batch_inputs: Histogram,
    pub(crate) step_seconds: Histogram,
    pub(crate) commit_retries: Counter,
    pub(crate) batches_replayed: Counter,
    pub(crate) late_answers: Counter,
    pub(crate) unanswered: Family<PoolLabels, Gauge>,
    pub(crate) inbox_inputs: Family<PoolLabels, Gauge>,
    pub(crate) inbox_full: Family<PoolLabels, Counter>,
    pub(crate) outbox_events: Family<PoolLabels, Gauge>,
    pub(crate) outbox_refused: Counter,
    pub(crate) pool_epoch: Family<PoolLabels, Gauge>,
    pub(crate) deposed: Counter,
    pub(crate) lease_lapses: Counter,
    pub(crate) waiting: Family<QueueLabels, Gauge>,
    pub(crate) waiting_virtual: Family<QueueLabels, Gauge>,
    pub(crate) expected_wait_seconds: Family<QueueLabels, Gauge<f64, AtomicU64>>,
    pub(crate) agents: Family<AgentLabels, Gauge>,
    pub(crate) contacts: Family<PoolLabels, Gauge>,
    pub(crate) pool_hits: Family<ReasonLabels, Counter>,
    pub(crate) peers: Gauge,
    pub(crate) peers_refused: Family<ReasonLabels, Counter>,
    pub(crate) peers_cut: Counter,
    pub(crate) frames_refused: Counter,
    pub(crate) violations: Family<InvariantLabels, Counter>,
}

fn seconds(from: f64, to: f64) -> Histogram {
    let mut bounds = Vec::new();
    let mut bound = from;
    while bound <= to {
        bounds.push(bound);
        bound *= 2.0;
    }
    Histogram::new(bounds)
}

impl Metrics {
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            inputs: Family::default(),
            replies: Family::default(),
            commands: Family::default(),
            commands_dropped: Family::default(),
            commands_pending: Gauge::default(),
            events: Counter::default(),
            commit_seconds: seconds(0.000_1, 4.0),
            batch_inputs: Histogram::new((0..13).map(|power| f64::from(1u32 << power))),
            step_seconds: seconds(0.000_01, 0.2),
            commit_retries: Counter::default(),
            batches_replayed: Counter::default(),
            late_answers: Counter::default(),
            unanswered: Family::default(),
            inbox_inputs: Family::default(),
            inbox_full: Family::default(),
            outbox_events: Family::default(),
            outbox_refused: Counter::default(),
            pool_epoch: Family::default(),
            deposed: Counter::default(),
            lease_lapses: Counter::default(),
            waiting: Family::default(),
            waiting_virtual: Family::default(),
            expected_wait_seconds: Family::default(),
            agents: Family::default(),
            contacts: Family::default(),
            pool_hits: Family::default(),
            peers: Gauge::default(),
            peers_refused: Family::default(),
            peers_cut: Counter::default(),
            frames_refused: Counter::default(),
            violations: Family::default(),
        };
        metrics.register(registry);
        for invariant in Invariant::ALL {
            // Present at zero: a counter that appears with its first violation has no increase.
            let _ = metrics.violations.get_or_create(&InvariantLabels {
                invariant: invariant.name(),
            });
        }
        metrics
    }

    fn register(&self, registry: &mut Registry) {
        let mut add = |name: &str, help: &str, metric: Registered| match metric {
            Registered::Kinds(metric) => registry.register(name, help, metric),
            Registered::Reasons(metric) => registry.register(name, help, metric),
            Registered::Counter(metric) => registry.register(name, help, metric),
            Registered::Gauge(metric) => registry.register(name, help, metric),
            Registered::Histogram(metric) => registry.register(name, help, metric),
            Registered::PoolGauge(metric) => registry.register(name, help, metric),
            Registered::PoolCounter(metric) => registry.register(name, help, metric),
            Registered::QueueGauge(metric) => registry.register(name, help, metric),
        };
        use Registered as R;
        add(
            "routing_inputs",
            "Inputs taken by pools, by kind",
            R::Kinds(self.inputs.clone()),
        );
        add(
            "routing_replies",
            "Replies sent, by kind",
            R::Kinds(self.replies.clone()),
        );
        add(
            "routing_commands",
            "Commands for switches, by kind",
            R::Kinds(self.commands.clone()),
        );
        add(
            "routing_commands_dropped",
            "Commands that found nobody to take them in time",
            R::Reasons(self.commands_dropped.clone()),
        );
        add(
            "routing_commands_pending",
            "Commands kept until a gateway attaches their switch",
            R::Gauge(self.commands_pending.clone()),
        );
        add(
            "routing_events",
            "Contact events written to outboxes",
            R::Counter(self.events.clone()),
        );
        add(
            "routing_commit_seconds",
            "From sending a batch to Redis to knowing it is there",
            R::Histogram(self.commit_seconds.clone()),
        );
        add(
            "routing_batch_inputs",
            "Inputs in one commit",
            R::Histogram(self.batch_inputs.clone()),
        );
        add(
            "routing_step_seconds",
            "Applying what came at once to a pool",
            R::Histogram(self.step_seconds.clone()),
        );
        add(
            "routing_commit_retries",
            "Commits sent again because their answer was lost",
            R::Counter(self.commit_retries.clone()),
        );
        add(
            "routing_batches_replayed",
            "Batches written again to a Redis that had lost them",
            R::Counter(self.batches_replayed.clone()),
        );
        add(
            "routing_late_answers",
            "Answers that came after the switch's deadline",
            R::Counter(self.late_answers.clone()),
        );
        add(
            "routing_unanswered_inputs",
            "Inputs applied and not answered yet",
            R::PoolGauge(self.unanswered.clone()),
        );
        add(
            "routing_inbox_inputs",
            "Inputs that wait for their pool",
            R::PoolGauge(self.inbox_inputs.clone()),
        );
        add(
            "routing_inbox_full",
            "Times a link had to stop reading because the inbox was full",
            R::PoolCounter(self.inbox_full.clone()),
        );
        add(
            "routing_outbox_events",
            "Events in the outbox that Kafka does not hold yet",
            R::PoolGauge(self.outbox_events.clone()),
        );
        add(
            "routing_outbox_refused",
            "New contacts sent to the default route because the outbox was full",
            R::Counter(self.outbox_refused.clone()),
        );
        add(
            "routing_pool_epoch",
            "Epoch of the lease held; 0: not the owner",
            R::PoolGauge(self.pool_epoch.clone()),
        );
        add(
            "routing_deposed",
            "Pools lost to another owner",
            R::Counter(self.deposed.clone()),
        );
        add(
            "routing_lease_lapses",
            "Times a pool was given up at its lease's end because Redis was away",
            R::Counter(self.lease_lapses.clone()),
        );
        add(
            "routing_waiting_contacts",
            "Live calls waiting",
            R::QueueGauge(self.waiting.clone()),
        );
        add(
            "routing_waiting_virtual_contacts",
            "Callbacks waiting in line",
            R::QueueGauge(self.waiting_virtual.clone()),
        );
        add(
            "routing_contacts",
            "Contacts in progress",
            R::PoolGauge(self.contacts.clone()),
        );
        add(
            "routing_pool_hits",
            "Times a limit of the pool was met, by limit",
            R::Reasons(self.pool_hits.clone()),
        );
        add(
            "routing_peers",
            "Peers linked",
            R::Gauge(self.peers.clone()),
        );
        add(
            "routing_peers_refused",
            "Links refused, by reason",
            R::Reasons(self.peers_refused.clone()),
        );
        add(
            "routing_peers_cut",
            "Peers disconnected because they did not read",
            R::Counter(self.peers_cut.clone()),
        );
        add(
            "routing_frames_refused",
            "Frames above the contract's limits",
            R::Counter(self.frames_refused.clone()),
        );
        registry.register("routing_agents", "Agents, by state", self.agents.clone());
        registry.register(
            "routing_expected_wait_seconds",
            "Expected wait of a caller who comes now",
            self.expected_wait_seconds.clone(),
        );
        registry.register(
            "invariant_violations",
            "Broken promises, by name: always zero",
            self.violations.clone(),
        );
    }

    /// Counts a broken promise.
    pub(crate) fn violated(&self, violation: &Violation) {
        self.violations
            .get_or_create(&InvariantLabels {
                invariant: violation.invariant.name(),
            })
            .inc();
    }

    /// Shows a pool as it is now.
    pub(crate) fn show(&self, pool: &str, status: &PoolStatus) {
        for (state, number) in [
            (AgentState::Ready, status.agents_ready),
            (AgentState::Reserved, status.agents_reserved),
            (AgentState::Held, status.agents_held),
            (AgentState::Talking, status.agents_talking),
            (AgentState::WrappingUp, status.agents_wrapping_up),
            (AgentState::NotReady, status.agents_not_ready),
        ] {
            let labels = AgentLabels {
                pool: pool.to_owned(),
                state,
            };
            self.agents.get_or_create(&labels).set(i64::from(number));
        }
        for queue in &status.queues {
            let labels = QueueLabels {
                pool: pool.to_owned(),
                queue: queue.queue.to_string(),
            };
            self.waiting
                .get_or_create(&labels)
                .set(i64::from(queue.waiting));
            self.waiting_virtual
                .get_or_create(&labels)
                .set(i64::from(queue.virtual_waiting));
            let wait_ms = u32::try_from(queue.expected_wait_ms).unwrap_or(u32::MAX);
            self.expected_wait_seconds
                .get_or_create(&labels)
                .set(f64::from(wait_ms) / 1_000.0);
        }
        self.contacts
            .get_or_create(&PoolLabels {
                pool: pool.to_owned(),
            })
            .set(i64::from(status.contacts));
    }

    /// The pool is not ours any more: its gauges go.
    pub(crate) fn forget(&self, pool: &str) {
        let labels = PoolLabels {
            pool: pool.to_owned(),
        };
        self.pool_epoch.get_or_create(&labels).set(0);
        for gauge in [
            &self.unanswered,
            &self.inbox_inputs,
            &self.outbox_events,
            &self.contacts,
        ] {
            gauge.remove(&labels);
        }
        for state in AgentState::ALL {
            let pool = pool.to_owned();
            self.agents.remove(&AgentLabels { pool, state });
        }
    }

    /// Forgets the gauges of one queue of a pool that is not ours any more.
    pub(crate) fn forget_queue(&self, pool: &str, queue: &str) {
        let labels = QueueLabels {
            pool: pool.to_owned(),
            queue: queue.to_owned(),
        };
        self.waiting.remove(&labels);
        self.waiting_virtual.remove(&labels);
        self.expected_wait_seconds.remove(&labels);
    }
}

/// What can be registered: keeps the list above one line a metric.
enum Registered {
    Kinds(Family<KindLabels, Counter>),
    Reasons(Family<ReasonLabels, Counter>),
    Counter(Counter),
    Gauge(Gauge),
    Histogram(Histogram),
    PoolGauge(Family<PoolLabels, Gauge>),
    PoolCounter(Family<PoolLabels, Counter>),
    QueueGauge(Family<QueueLabels, Gauge>),
}

/// An input's kind, as counted.
pub(crate) fn input_kind(body: &InputBody) -> &'static str {
    match body {
        InputBody::Route(_) => "route",
        InputBody::Reroute { .. } => "reroute",
        InputBody::RouteFailed { .. } => "route_failed",
        InputBody::AtQueue => "at_queue",
        InputBody::Delivered { .. } => "delivered",
        InputBody::Established { .. } => "established",
        InputBody::Failed { .. } => "failed",
        InputBody::Cleared(_) => "cleared",
        InputBody::Agent(_) => "agent",
        InputBody::WrappedUp { .. } => "wrapped_up",
        InputBody::Survey(_) => "survey",
        InputBody::Transfer { .. } => "transfer",
        InputBody::Moved { .. } => "moved",
        InputBody::SnapshotBegin
        | InputBody::SnapshotCall(_)
        | InputBody::SnapshotAgent(_)
        | InputBody::SnapshotEnd => "snapshot",
        InputBody::SwitchBoot => "switch_boot",
        InputBody::RegisterVirtual(_) => "register_virtual",
        InputBody::CancelVirtual { .. } => "cancel_virtual",
        InputBody::CallbackProgress { .. } => "callback_progress",
        InputBody::OfferDeclined => "offer_declined",
        InputBody::NoticeAcknowledged { .. } => "notice_acknowledged",
        InputBody::CommandDone { failed: false, .. } => "command_done",
        InputBody::CommandDone { failed: true, .. } => "command_failed",
    }
}

/// A command's kind, as counted.
pub(crate) fn command_kind(body: &CommandBody) -> &'static str {
    match body {
        CommandBody::Deflect(_) => "deflect",
        CommandBody::Transfer { .. } => "transfer",
        CommandBody::SetAgentState { .. } => "set_agent_state",
    }
}
