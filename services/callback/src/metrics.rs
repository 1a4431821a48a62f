//! What this role counts. Handles are resolved once, when the role starts.

use domain::callback::DialEnd;
use domain::invariant::Invariant;
use domain::pool::CallbackEnd;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// What became of a request to book.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum BookResult {
    Accepted,
    Existing,
    Repeated,
    Invalid,
    WindowFull,
    OutsideHours,
    Unavailable,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct BookLabels {
    pub(crate) result: BookResult,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum AttemptOutcome {
    Answered,
    NoAnswer,
    Busy,
    Voicemail,
    Failed,
    NotPlaced,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct AttemptLabels {
    pub(crate) outcome: AttemptOutcome,
}

/// How a booking ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum EndKind {
    Connected,
    Exhausted,
    Cancelled,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct EndLabels {
    pub(crate) end: EndKind,
}

/// A set of bookings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum SetName {
    Held,
    Due,
    Leased,
    Dead,
    Reports,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct SetLabels {
    pub(crate) set: SetName,
}

/// What routing answered to a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum ReportResult {
    Acknowledged,
    Refused,
    NotOwner,
    NoAnswer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ReportLabels {
    pub(crate) result: ReportResult,
}

/// A limit of this role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum Limit {
    ChangesInFlight,
    ReportsInFlight,
    Withdrawals,
    RequestsInFlight,
    GatewayQueue,
    Gateways,
    FrameRequests,
    Codes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct LimitLabels {
    pub(crate) limit: Limit,
}

/// A pool, by its name in policy: there are few.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct PoolLabels {
    pub(crate) pool: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct InvariantLabels {
    pub(crate) invariant: String,
}

#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    pub(crate) bookings: Family<BookLabels, Counter>,
    pub(crate) book_seconds: Histogram,
    pub(crate) attempts: Family<AttemptLabels, Counter>,
    pub(crate) ends: Family<EndLabels, Counter>,
    pub(crate) carried_over: Counter,
    pub(crate) sets: Family<SetLabels, Gauge>,
    pub(crate) shards: Gauge,
    pub(crate) reports: Family<ReportLabels, Counter>,
    pub(crate) dial_wait_seconds: Histogram,
    pub(crate) forecast_agents: Family<PoolLabels, Gauge>,
    pub(crate) gateways: Gauge,
    pub(crate) routing_links: Gauge,
    pub(crate) conflicts: Counter,
    pub(crate) store_errors: Counter,
    pub(crate) invalid_messages: Counter,
    pub(crate) limit_use: Family<LimitLabels, Gauge>,
    pub(crate) limit_hits: Family<LimitLabels, Counter>,
    pub(crate) violations: Family<InvariantLabels, Counter>,
}

impl Metrics {
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            bookings: Family::default(),
            // 1 ms to 4 s: a disk's sync is 1 to 20 ms, the longest wait allowed is seconds.
            book_seconds: Histogram::new(exponential_buckets(0.001, 2.0, 13)),
            attempts: Family::default(),
            ends: Family::default(),
            carried_over: Counter::default(),
            sets: Family::default(),
            shards: Gauge::default(),
            reports: Family::default(),
            // 10 ms to 80 s: from a poll to a gateway's restart.
            dial_wait_seconds: Histogram::new(exponential_buckets(0.01, 2.0, 14)),
            forecast_agents: Family::default(),
            gateways: Gauge::default(),
            routing_links: Gauge::default(),
            conflicts: Counter::default(),
            store_errors: Counter::default(),
            invalid_messages: Counter::default(),
            limit_use: Family::default(),
            limit_hits: Family::default(),
            violations: Family::default(),
        };
        let all = metrics.clone();
        registry.register(
            "callback_bookings",
            "Requests to book, by what became of them",
            all.bookings,
        );
        registry.register(
            "callback_book_seconds",
            "From a request to book to its answer",
            all.book_seconds,
        );
        registry.register(
            "callback_attempts",
            "Attempts that ended, by outcome; not placed is none",
            all.attempts,
        );
        registry.register("callback_ends", "Bookings that ended, by end", all.ends);
        registry.register(
            "callback_carried_over",
            "Turns outside callable hours, carried over",
            all.carried_over,
        );
        registry.register(
            "callback_entries",
            "Bookings of this replica's shards, by set; reports: not yet acknowledged by routing",
            all.sets,
        );
        registry.register(
            "callback_shards",
            "Shards leased by this replica",
            all.shards,
        );
        registry.register(
            "callback_reports",
            "Reports sent to routing, by what was answered",
            all.reports,
        );
        registry.register(
            "callback_dial_wait_seconds",
            "From the moment a dial was due to the dial",
            all.dial_wait_seconds,
        );
        registry.register(
            "callback_forecast_agents",
            "Agents expected in this hour, from which windows have their room",
            all.forecast_agents,
        );
        registry.register("callback_gateways", "Gateways linked", all.gateways);
        registry.register(
            "callback_routing_links",
            "Routing replicas linked",
            all.routing_links,
        );
        registry.register(
            "callback_conflicts",
            "Changes that were decided again because another came first",
            all.conflicts,
        );
        registry.register(
            "callback_store_errors",
            "Store calls that failed",
            all.store_errors,
        );
        registry.register(
            "callback_invalid_messages",
            "Messages refused as nonsense",
            all.invalid_messages,
        );
        registry.register("callback_limit_use", "Use of a limit now", all.limit_use);
        registry.register(
            "callback_limit_hits",
            "Times a limit was reached",
            all.limit_hits,
        );
        registry.register(
            "invariant_violations",
            "Broken promises, by name",
            all.violations,
        );
        for invariant in [Invariant::CallbackKept, Invariant::PlaceKept] {
            // Present from the start: an absent zero looks like an absent check.
            drop(metrics.violations.get_or_create(&InvariantLabels {
                invariant: invariant.name().to_owned(),
            }));
        }
        metrics
    }

    pub(crate) fn booked(&self, result: BookResult) {
        self.bookings.get_or_create(&BookLabels { result }).inc();
    }

    pub(crate) fn attempt_over(&self, end: DialEnd) {
        let outcome = match end {
            DialEnd::Answered => AttemptOutcome::Answered,
            DialEnd::NoAnswer => AttemptOutcome::NoAnswer,
            DialEnd::Busy => AttemptOutcome::Busy,
            DialEnd::Voicemail => AttemptOutcome::Voicemail,
            DialEnd::Failed => AttemptOutcome::Failed,
            DialEnd::NotPlaced => AttemptOutcome::NotPlaced,
        };
        self.attempts
            .get_or_create(&AttemptLabels { outcome })
            .inc();
    }

    pub(crate) fn ended(&self, end: CallbackEnd) {
        let end = match end {
            CallbackEnd::Connected => EndKind::Connected,
            CallbackEnd::Exhausted => EndKind::Exhausted,
            CallbackEnd::Cancelled => EndKind::Cancelled,
        };
        self.ends.get_or_create(&EndLabels { end }).inc();
    }

    pub(crate) fn reported(&self, result: ReportResult) {
        self.reports.get_or_create(&ReportLabels { result }).inc();
    }

    pub(crate) fn violated(&self, invariant: Invariant) {
        let labels = InvariantLabels {
            invariant: invariant.name().to_owned(),
        };
        self.violations.get_or_create(&labels).inc();
    }

    pub(crate) fn hit(&self, limit: Limit) {
        self.limit_hits.get_or_create(&LimitLabels { limit }).inc();
    }

    pub(crate) fn limit_use(&self, limit: Limit) -> Gauge {
        self.limit_use.get_or_create(&LimitLabels { limit }).clone()
    }

    pub(crate) fn set(&self, set: SetName, count: u64) {
        let labels = SetLabels { set };
        self.sets
            .get_or_create(&labels)
            .set(i64::try_from(count).unwrap_or(i64::MAX));
    }
}
