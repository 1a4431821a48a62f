//! What the gateway counts. Handles are resolved here, once: the hot path only increments.

use domain::invariant::Invariant;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

type Labels = [(&'static str, &'static str); 1];

/// Counters of one name, by a label from a closed enumeration.
#[derive(Clone, Debug)]
pub(crate) struct Counters<const N: usize>([Counter; N]);

impl<const N: usize> Counters<N> {
    fn new(
        registry: &mut Registry,
        name: &str,
        help: &str,
        label: &'static str,
        values: [&'static str; N],
    ) -> Self {
        let family = Family::<Labels, Counter>::default();
        registry.register(name, help, family.clone());
        Self(values.map(|value| family.get_or_create(&[(label, value)]).clone()))
    }

    /// Counts one of the kind at `index`.
    pub(crate) fn inc(&self, index: usize) {
        self.0[index].inc();
    }

    /// The count of the kind at `index`.
    #[cfg(test)]
    pub(crate) fn get(&self, index: usize) -> u64 {
        self.0[index].get()
    }
}

macro_rules! kinds {
    ($(#[$doc:meta])* $name:ident, $values:ident { $($variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum $name { $(#[doc = $text] $variant),+ }
        const $values: [&str; [$($text),+].len()] = [$($text),+];
    };
}

kinds!(
    /// How a route request was answered.
    Answered, ANSWERED {
        Agent = "agent",
        Queue = "queue",
        Message = "message",
        Overload = "overload",
        DefaultDeadline = "default_deadline",
        DefaultRouting = "default_routing",
        DefaultRefused = "default_refused",
        Expired = "expired",
        Credit = "credit",
        Invalid = "invalid",
        SwitchEnded = "switch_ended",
        SessionLost = "session_lost",
    }
);
kinds!(
    /// What a refusal was about.
    RefusedClass, REFUSED { Frame = "frame", Request = "request", Dialogue = "dialogue", Event = "event", CommandResult = "command_result", Routing = "routing" }
);
kinds!(
    /// A limit that was hit.
    Limit, LIMIT {
        NodeRate = "node_rate",
        SwitchRate = "switch_rate",
        InFlight = "in_flight",
        Credit = "credit",
        SlowReader = "slow_reader",
        Reports = "reports",
        Commands = "commands",
    }
);
kinds!(
    /// What became of a command or a dial.
    CommandEnd, COMMAND { Done = "done", Failed = "failed", NotAttached = "not_attached", OtherBoot = "other_boot", Repeated = "repeated", Lost = "lost" }
);
kinds!(
    /// What became of a booking.
    BookingEnd, BOOKING { Accepted = "accepted", Refused = "refused", TimedOut = "timed_out", Cancelled = "cancelled" }
);
kinds!(
    /// What came of asking for a topic.
    Classified, CLASSIFIED { Topic = "topic", Person = "person", Late = "late", Away = "away", Continued = "continued", UnknownTopic = "unknown_topic" }
);
kinds!(
    /// Streams and peers.
    Stream, STREAM { Dialogues = "dialogues", Events = "events", Commands = "commands", Routing = "routing", Intent = "intent", Callback = "callback" }
);

/// The gateway's metrics.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    pub(crate) route_requests: Counter,
    pub(crate) reroutes: Counter,
    pub(crate) answers: Counters<{ ANSWERED.len() }>,
    pub(crate) answer_seconds: Histogram,
    pub(crate) answers_late: Counter,
    pub(crate) late_assignments: Counter,
    pub(crate) duplicates: Counter,
    pub(crate) reused_references: Counter,
    pub(crate) frames_dropped: Counter,
    pub(crate) frames_out_of_order: Counter,
    pub(crate) refusals: Counters<{ REFUSED.len() }>,
    pub(crate) limit_hits: Counters<{ LIMIT.len() }>,
    pub(crate) in_flight: Gauge,
    pub(crate) admission_tokens_percent: Gauge,
    pub(crate) credits_outstanding: Gauge,
    pub(crate) events: Counter,
    pub(crate) events_repeated: Counter,
    pub(crate) events_acknowledged: Counter,
    pub(crate) events_unacknowledged: Gauge,
    pub(crate) event_gaps: Counter,
    pub(crate) reports_waiting: Gauge,
    pub(crate) commands: Counters<{ COMMAND.len() }>,
    pub(crate) dials: Counters<{ COMMAND.len() }>,
    pub(crate) bookings: Counters<{ BOOKING.len() }>,
    pub(crate) classified: Counters<{ CLASSIFIED.len() }>,
    pub(crate) streams: [Gauge; STREAM.len()],
    pub(crate) violations: Counters<{ Invariant::ALL.len() }>,
}

impl Metrics {
    /// Registers all of them.
    pub(crate) fn new(registry: &mut Registry) -> Self {
        fn counter(registry: &mut Registry, name: &str, help: &str) -> Counter {
            let made = Counter::default();
            registry.register(name, help, made.clone());
            made
        }
        fn gauge(registry: &mut Registry, name: &str, help: &str) -> Gauge {
            let made = Gauge::default();
            registry.register(name, help, made.clone());
            made
        }
        // 0.25 ms to 8 s: a local answer to the longest reply timeout.
        let answer_seconds = Histogram::new(
            prometheus_client::metrics::histogram::exponential_buckets(0.000_25, 2.0, 16),
        );
        registry.register(
            "gateway_answer_seconds",
            "From the route request's arrival to its answer being handed to the stream",
            answer_seconds.clone(),
        );
        let open = Family::<Labels, Gauge>::default();
        registry.register(
            "gateway_streams",
            "Open streams and links, by kind",
            open.clone(),
        );
        let r = registry;
        Self {
            route_requests: counter(
                r,
                "gateway_route_requests",
                "Route requests received, repeats included",
            ),
            reroutes: counter(r, "gateway_reroutes", "Re-routes received"),
            answers: Counters::new(
                r,
                "gateway_answers",
                "How route requests and re-routes ended, by kind",
                "kind",
                ANSWERED,
            ),
            answer_seconds,
            answers_late: counter(
                r,
                "gateway_answers_late",
                "Answers handed over after the switch's timer had run out",
            ),
            late_assignments: counter(
                r,
                "gateway_late_assignments",
                "Routing's answers that came after the dialogue was given up; taken back",
            ),
            duplicates: counter(
                r,
                "gateway_duplicates",
                "Repeated route requests, given the same answer",
            ),
            reused_references: counter(
                r,
                "gateway_reused_references",
                "Cross references reused for another call, refused",
            ),
            frames_dropped: counter(
                r,
                "gateway_frames_dropped",
                "Frames of dialogues received a second time",
            ),
            frames_out_of_order: counter(
                r,
                "gateway_frames_out_of_order",
                "Frames of dialogues after a gap or out of order",
            ),
            refusals: Counters::new(
                r,
                "gateway_refusals",
                "Messages refused, by what they were about",
                "class",
                REFUSED,
            ),
            limit_hits: Counters::new(
                r,
                "gateway_limit_hits",
                "Limits reached, by limit",
                "limit",
                LIMIT,
            ),
            in_flight: gauge(
                r,
                "gateway_in_flight_requests",
                "Route requests being answered",
            ),
            admission_tokens_percent: gauge(
                r,
                "gateway_admission_tokens_percent",
                "Admission tokens left on this node",
            ),
            credits_outstanding: gauge(
                r,
                "gateway_credits_outstanding",
                "Credits in use, all links",
            ),
            events: counter(
                r,
                "gateway_events",
                "Switch events received, repeats included",
            ),
            events_repeated: counter(
                r,
                "gateway_events_repeated",
                "Switch events received again, dropped",
            ),
            events_acknowledged: counter(
                r,
                "gateway_events_acknowledged",
                "Switch events that the mesh holds or has refused",
            ),
            events_unacknowledged: gauge(
                r,
                "gateway_events_unacknowledged",
                "Switch events waiting for an acknowledgement",
            ),
            event_gaps: counter(
                r,
                "gateway_event_gaps",
                "Gaps in event sequences; a snapshot was asked for",
            ),
            reports_waiting: gauge(
                r,
                "gateway_reports_waiting",
                "Inputs for routing that are not acknowledged",
            ),
            commands: Counters::new(
                r,
                "gateway_commands",
                "Commands for switches, by end",
                "end",
                COMMAND,
            ),
            dials: Counters::new(r, "gateway_dials", "Callback dials, by end", "end", COMMAND),
            bookings: Counters::new(
                r,
                "gateway_bookings",
                "Bookings and cancellations, by end",
                "end",
                BOOKING,
            ),
            classified: Counters::new(
                r,
                "gateway_classified",
                "What came of asking for a topic",
                "outcome",
                CLASSIFIED,
            ),
            streams: STREAM.map(|kind| open.get_or_create(&[("kind", kind)]).clone()),
            violations: Counters::new(
                r,
                "invariant_violations",
                "Broken promises, by name",
                "invariant",
                Invariant::ALL.map(Invariant::name),
            ),
        }
    }

    /// Counts a broken promise.
    pub(crate) fn violation(&self, invariant: Invariant) {
        let index = Invariant::ALL.iter().position(|known| *known == invariant);
        self.violations
            .inc(index.expect("ALL holds every invariant"));
    }
}
