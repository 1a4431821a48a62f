//! The measures against hand-made contacts, the field's traps among them.

mod resolution;

use std::collections::BTreeMap;

use super::*;
use crate::invariant::Invariant;
use crate::pool::{
    CallbackEnd, CallbackStep, Cause, Disposition, Event, EventBody, QueuedReason, RoutedBy,
    SurveyAnswers, Window,
};
use crate::{AgentId, CallerId, ContactId, TimeMs};

const T0: u64 = 1_760_000_400_000; // on a half hour and a few seconds
const MINUTE: u64 = 60_000;

/// Writes one contact's events.
struct Script {
    contact: u128,
    arrived_at: u64,
    caller: Option<u128>,
    line: &'static str,
    topic: &'static str,
    queue: &'static str,
    language: &'static str,
    events: Vec<Event>,
}

fn agent(name: &str) -> AgentId {
    AgentId::parse(name).expect("a valid id")
}

fn contact(number: u128) -> Script {
    Script {
        contact: number,
        arrived_at: T0,
        caller: Some(1_000 + number),
        line: "individual",
        topic: "REF_STATUS",
        queue: "",
        language: "en",
        events: Vec::new(),
    }
}

impl Script {
    fn arriving(mut self, at: u64) -> Self {
        self.arrived_at = at;
        self
    }

    fn of_caller(mut self, caller: Option<u128>) -> Self {
        self.caller = caller;
        for event in &mut self.events {
            event.caller = caller.map(CallerId);
        }
        self
    }

    fn about(mut self, topic: &'static str) -> Self {
        self.topic = topic;
        self
    }

    /// An event `after_ms` after arrival.
    fn then(mut self, after_ms: u64, body: EventBody) -> Self {
        if matches!(body, EventBody::Queued { .. }) {
            self.queue = "refunds";
        }
        self.events.push(Event {
            contact: ContactId(self.contact),
            sequence: self.events.len() as u64 + 1,
            at: TimeMs(self.arrived_at + after_ms),
            traceparent: "".into(),
            line: self.line.into(),
            topic: self.topic.into(),
            queue: self.queue.into(),
            language: self.language.into(),
            channel: 1,
            caller: self.caller.map(CallerId),
            arrived_at: TimeMs(self.arrived_at),
            switch: "east".into(),
            body,
        });
        self
    }

    fn offered(self) -> Self {
        self.then(
            0,
            EventBody::Offered {
                topic_confidence: 0.9,
                person_asked: false,
                authenticated: false,
            },
        )
    }

    fn queued(self, after_ms: u64, expected_wait_ms: u64) -> Self {
        self.then(
            after_ms,
            EventBody::Queued {
                position: 3,
                expected_wait_ms,
                low_ms: expected_wait_ms / 2,
                high_ms: expected_wait_ms * 2,
                reason: QueuedReason::Arrival,
                place_from: TimeMs(T0),
            },
        )
    }

    fn established(self, after_ms: u64, by: &str) -> Self {
        let body = EventBody::Established {
            agent: agent(by),
            waited_ms: after_ms,
            callback: false,
            first: true,
            nuisance_hold_ms: 0,
            agent_held_ms: 0,
        };
        self.then(after_ms, body)
    }

    fn talked(self, from_ms: u64, until_ms: u64, by: &str, disposition: Disposition) -> Self {
        let talk_ms = until_ms - from_ms;
        self.established(from_ms, by)
            .then(
                until_ms,
                EventBody::Disconnected {
                    agent: agent(by),
                    talk_ms,
                },
            )
            .then(
                until_ms + 20_000,
                EventBody::WrappedUp {
                    agent: agent(by),
                    disposition,
                    handle_ms: talk_ms + 20_000,
                    timed_out: false,
                },
            )
    }

    fn closed(self, after_ms: u64) -> Self {
        self.then(after_ms, EventBody::Closed)
    }
}

fn rules() -> Rules {
    Rules {
        families: BTreeMap::from([
            ("REF_STATUS".to_owned(), "refund".to_owned()),
            ("REF_DELAY".to_owned(), "refund".to_owned()),
        ]),
        service_level_ms: BTreeMap::from([("refunds".to_owned(), 30_000)]),
        service_level_default_ms: 20_000,
        legacy_lines: ["individual".to_owned()].into(),
    }
}

/// Everything the events of some contacts mean.
#[derive(Default)]
struct Book {
    states: BTreeMap<ContactId, ContactState>,
    issues: BTreeMap<IssueKey, Issue>,
    tally: Tally,
    violations: Vec<crate::invariant::Violation>,
    repeated: usize,
}

impl Book {
    fn of(scripts: impl IntoIterator<Item = Script>) -> Self {
        let mut book = Self::default();
        for script in scripts {
            for event in &script.events {
                book.apply(event);
            }
        }
        book
    }

    fn apply(&mut self, event: &Event) {
        let mut effects = Effects::default();
        let state = self.states.entry(event.contact).or_default();
        if state.apply(event, &rules(), &mut effects) == Applied::Repeated {
            self.repeated += 1;
        }
        for (key, visit) in effects.visits {
            self.issues
                .entry(key)
                .or_default()
                .add(visit, &mut effects.tally);
        }
        self.tally.merge(&effects.tally);
        self.violations.extend(effects.violations);
    }

    fn counts(&self, grouping: Grouping, group: &str) -> Counts {
        self.tally
            .totals()
            .remove(&(grouping, group.into()))
            .unwrap_or_default()
    }

    fn count(&self, counter: Counter) -> i64 {
        self.counts(Grouping::All, "").signed(counter)
    }

    fn measure(&self, name: &str) -> Value {
        let measured = Measured {
            counts: self.counts(Grouping::All, ""),
            ..Measured::default()
        };
        let definition = definitions()
            .iter()
            .find(|definition| definition.name == name)
            .expect("a measure");
        definition.value(&measured)
    }

    fn value(&self, name: &str) -> f64 {
        let value = self.measure(name);
        assert!(value.known, "{name} is not known");
        value.value
    }
}

/// A caller who books a callback after one minute and talks to a person after two hours.
fn callback_taker(number: u128) -> Script {
    let hour = 60 * MINUTE;
    contact(number)
        .offered()
        .queued(10_000, hour)
        .then(
            10_000,
            EventBody::OfferMade {
                virtual_hold: true,
                windows: 0,
            },
        )
        .then(MINUTE, EventBody::CallbackBooked { window: None })
        .then(
            2 * hour - MINUTE,
            EventBody::CallbackAttempted {
                attempt: 1,
                step: CallbackStep::Dialled,
            },
        )
        .then(
            2 * hour - MINUTE,
            EventBody::CallbackAttempted {
                attempt: 1,
                step: CallbackStep::NoAnswer,
            },
        )
        .then(
            2 * hour - 30_000,
            EventBody::CallbackAttempted {
                attempt: 2,
                step: CallbackStep::Dialled,
            },
        )
        .then(
            2 * hour - 10_000,
            EventBody::CallbackAttempted {
                attempt: 2,
                step: CallbackStep::Answered,
            },
        )
        .then(
            2 * hour,
            EventBody::Established {
                agent: agent("a7"),
                waited_ms: 2 * hour,
                callback: true,
                first: true,
                nuisance_hold_ms: 10_000,
                agent_held_ms: 4_000,
            },
        )
        .then(
            2 * hour,
            EventBody::CallbackEnded {
                end: CallbackEnd::Connected,
                attempts: 2,
            },
        )
        .then(
            2 * hour + MINUTE,
            EventBody::Disconnected {
                agent: agent("a7"),
                talk_ms: MINUTE,
            },
        )
        .closed(2 * hour + 2 * MINUTE)
}

#[test]
fn ssa_trap_accepting_a_callback_is_not_an_answer_and_does_not_stop_the_clock() {
    let hour = 60 * MINUTE;
    let mut book = Book::default();
    let taker = callback_taker(1);
    for event in &taker.events[..4] {
        book.apply(event);
    }
    assert_eq!(book.count(Counter::CallbackAccepted), 1);
    assert_eq!(
        book.count(Counter::Answered),
        0,
        "accepting is not an answer"
    );
    assert!(!book.measure("speed_of_answer_everyone_ms").known);
    for event in &taker.events[4..] {
        book.apply(event);
    }
    for event in &contact(2)
        .offered()
        .queued(0, hour)
        .established(hour, "a1")
        .events
    {
        book.apply(event);
    }
    #[expect(clippy::cast_precision_loss, reason = "milliseconds")]
    let hour = hour as f64;
    assert_eq!(book.value("speed_of_answer_callback_takers_ms"), 2.0 * hour);
    assert_eq!(book.value("speed_of_answer_holders_ms"), hour);
    assert_eq!(book.value("speed_of_answer_everyone_ms"), 1.5 * hour);
    let p90 = book.value("speed_of_answer_everyone_p90_ms");
    assert!((p90 - 2.0 * hour).abs() < 2.0 * hour / 16.0, "{p90}");
    assert_eq!(book.value("callback_kept_rate"), 1.0);
    assert_eq!(book.value("callback_attempts_per_callback"), 2.0);
    assert_eq!(book.value("nuisance_hold_ms"), 10_000.0);
    assert_eq!(book.value("agent_held_ms"), 4_000.0);
    assert_eq!(
        book.value("service_level_of_answered"),
        0.0,
        "two hours is not within 30 s"
    );
    assert!(book.violations.is_empty(), "{:?}", book.violations);
}

#[test]
fn an_event_that_understates_the_wait_is_counted_by_its_time_stamps_and_reported() {
    let mut script = contact(1).offered().established(10 * MINUTE, "a1");
    let Some(EventBody::Established { waited_ms, .. }) =
        script.events.last_mut().map(|event| &mut event.body)
    else {
        panic!("the last event is Established");
    };
    *waited_ms = 0;
    let book = Book::of([script]);
    #[expect(clippy::cast_precision_loss, reason = "milliseconds")]
    let expected = (10 * MINUTE) as f64;
    assert_eq!(book.value("speed_of_answer_holders_ms"), expected);
    assert_eq!(book.violations[0].invariant, Invariant::HonestClock);
}

#[test]
fn hmrc_trap_hanging_up_on_the_recording_is_abandoning_and_never_an_answer() {
    let book = Book::of([contact(1)
        .offered()
        .queued(0, 60_000)
        .then(
            45_000,
            EventBody::Abandoned {
                waited_ms: 45_000,
                ringing: false,
            },
        )
        .closed(45_000)]);
    assert_eq!(book.count(Counter::Answered), 0);
    assert_eq!(book.count(Counter::Abandoned), 1);
    assert_eq!(book.count(Counter::AbandonedInQueue), 1);
    assert_eq!(book.count(Counter::EndedAbandoned), 1);
    assert_eq!(book.value("time_to_abandon_ms"), 45_000.0);
    assert!(
        !book.measure("speed_of_answer_everyone_ms").known,
        "an abandon is no wait of zero"
    );
}

#[test]
fn containment_is_not_resolution_and_an_end_without_a_person_is_not_served() {
    let book = Book::of([contact(1).offered().closed(MINUTE)]);
    assert_eq!(book.count(Counter::EndedOther), 1);
    assert_eq!(book.count(Counter::ResolutionAnswered), 0);
    assert_eq!(book.count(Counter::Issues7), 0);
    assert!(!book.measure("first_contact_resolution_7d").known);
    assert_eq!(book.value("level_of_access"), 0.0);
}

#[test]
fn blocked_and_default_routed_callers_are_offered_and_in_the_denominators() {
    let blocked = |number, reason| {
        contact(number)
            .offered()
            .then(0, EventBody::Blocked { reason })
            .closed(0)
    };
    // Never seen by the mesh while it lived: its first event is its end.
    let default_routed = |number| {
        contact(number)
            .then(
                0,
                EventBody::DefaultRouted {
                    by: RoutedBy::DefaultNoLink,
                },
            )
            .closed(0)
    };
    let book = Book::of([
        contact(1).offered().established(5_000, "a1").closed(MINUTE),
        blocked(2, 1),
        blocked(3, 3),
        default_routed(4),
    ]);
    assert_eq!(book.count(Counter::Offered), 4);
    assert_eq!(book.count(Counter::Blocked), 2);
    assert_eq!(book.count(Counter::BlockedClosed), 1);
    assert_eq!(book.value("blocked_rate"), 0.5);
    assert_eq!(book.value("default_routed_rate"), 0.25);
    assert_eq!(book.value("level_of_access"), 0.25);
    assert_eq!(book.value("service_level_of_offered"), 0.25);
    assert_eq!(book.count(Counter::EndedDefaultRouted), 1);
    // The legacy formula leaves the default route out.
    let legacy = book.measure("legacy_level_of_service");
    assert_eq!((legacy.value, legacy.denominator), (1.0 / 3.0, 3));
}

#[test]
fn the_legacy_level_leaves_out_what_it_always_left_out() {
    let gone = |number| {
        contact(number).then(
            9_000,
            EventBody::Abandoned {
                waited_ms: 9_000,
                ringing: false,
            },
        )
    };
    let mut elsewhere = contact(6);
    elsewhere.line = "practitioner";
    let book = Book::of([
        contact(1)
            .offered()
            .queued(0, 0)
            .established(40_000, "a1")
            .closed(MINUTE),
        contact(2)
            .offered()
            .queued(0, 0)
            .then(
                40_000,
                EventBody::Abandoned {
                    waited_ms: 40_000,
                    ringing: true,
                },
            )
            .closed(MINUTE),
        gone(3).closed(MINUTE),
        gone(4).closed(MINUTE),
        elsewhere.offered().queued(0, 0).then(
            1,
            EventBody::Abandoned {
                waited_ms: 1,
                ringing: false,
            },
        ),
    ]);
    // Answered 1; secondary abandons on its lines 1; primary abandons and other lines out.
    let legacy = book.measure("legacy_level_of_service");
    assert_eq!((legacy.value, legacy.denominator), (0.5, 2));
    let enterprise = book.measure("enterprise_level_of_service");
    assert_eq!((enterprise.value, enterprise.denominator), (1.0 / 3.0, 3));
    assert_eq!(book.value("level_of_access"), 0.2);
    assert_eq!(book.count(Counter::AbandonedRinging), 1);
    assert_eq!(book.count(Counter::AbandonedBeforeQueue), 2);
}

#[test]
fn each_service_level_has_its_own_denominator() {
    let gone = |number, after_ms| {
        contact(number).offered().queued(0, 0).then(
            after_ms,
            EventBody::Abandoned {
                waited_ms: after_ms,
                ringing: false,
            },
        )
    };
    let book = Book::of([
        contact(1).offered().queued(0, 0).established(30_000, "a1"),
        contact(2).offered().queued(0, 0).established(30_001, "a1"),
        gone(3, 5_000),
        gone(4, 60_000),
        contact(5)
            .offered()
            .then(0, EventBody::Blocked { reason: 2 }),
    ]);
    assert_eq!(book.value("service_level_of_offered"), 1.0 / 5.0);
    assert_eq!(book.value("service_level_of_answered"), 1.0 / 2.0);
    assert_eq!(book.value("service_level_less_short_abandons"), 1.0 / 3.0);
    assert_eq!(book.value("service_level_abandons_as_met"), 2.0 / 4.0);
}

#[test]
fn a_transfer_counts_once_and_keeps_the_contact_where_it_came_in() {
    let mut first = contact(1)
        .offered()
        .talked(5_000, MINUTE, "a1", Disposition::Referred);
    first = first.then(
        MINUTE,
        EventBody::TransferRequested {
            from: agent("a1"),
            from_topic: "REF_STATUS".to_owned(),
            to_topic: "COL_BALANCE".to_owned(),
            warm: true,
        },
    );
    first.topic = "COL_BALANCE";
    let book = Book::of([first
        .then(
            2 * MINUTE,
            EventBody::Transferred {
                from: agent("a1"),
                to: agent("a2"),
            },
        )
        .talked(2 * MINUTE, 9 * MINUTE, "a2", Disposition::Resolved)
        .closed(10 * MINUTE)]);
    assert_eq!(
        book.count(Counter::Answered),
        1,
        "the second person is no second answer"
    );
    assert_eq!(book.value("transferred_once_to_the_right_office"), 1.0);
    assert_eq!(book.value("transfer_rate"), 1.0);
    assert_eq!(
        book.count(Counter::Resolved7),
        1,
        "a transfer does not break resolution"
    );
    assert_eq!(
        book.counts(Grouping::Topic, "REF_STATUS")
            .signed(Counter::Answered),
        1
    );
    assert!(book.counts(Grouping::Topic, "COL_BALANCE").is_empty());
    assert_eq!(book.value("talk_ms"), 237_500.0);
    let issue = book.issues.keys().next().expect("one issue");
    assert_eq!(
        issue.family, "COL_BALANCE",
        "linked by what it turned out to be about"
    );
}

#[test]
fn an_earlier_agents_late_wrap_up_does_not_overrule_the_last_agent() {
    let book = Book::of([contact(1)
        .offered()
        .established(1_000, "a1")
        .then(
            2_000,
            EventBody::Transferred {
                from: agent("a1"),
                to: agent("a2"),
            },
        )
        .talked(2_000, 9_000, "a2", Disposition::Resolved)
        .then(
            MINUTE,
            EventBody::WrappedUp {
                agent: agent("a1"),
                disposition: Disposition::Unresolved,
                handle_ms: 5_000,
                timed_out: false,
            },
        )
        .closed(MINUTE)]);
    assert_eq!(book.count(Counter::AgentResolved), 1);
}

#[test]
fn the_announced_wait_is_held_against_the_actual_one() {
    let book = Book::of([
        contact(1)
            .offered()
            .queued(0, 100_000)
            .established(120_000, "a1"), // +20 s, inside
        contact(2)
            .offered()
            .queued(0, 100_000)
            .established(10_000, "a1"), // -90 s, outside
        // Not announced, and given up: in neither.
        contact(3).offered().queued(0, 0).established(10_000, "a1"),
        contact(4).offered().queued(0, 100_000).then(
            9,
            EventBody::Abandoned {
                waited_ms: 9,
                ringing: false,
            },
        ),
    ]);
    let bias = book.measure("announced_wait_bias_ms");
    assert_eq!((bias.value, bias.denominator), (-35_000.0, 2));
    let rmse = book.value("announced_wait_rmse_ms");
    assert!(
        (rmse - ((20f64.powi(2) + 90f64.powi(2)) / 2.0).sqrt() * 1_000.0).abs() < 1.0,
        "{rmse}"
    );
    assert_eq!(book.value("announced_wait_interval_coverage"), 0.5);
}

#[test]
fn a_window_is_kept_only_before_its_end_and_an_exhausted_callback_is_no_service() {
    let window = Window {
        from: TimeMs(T0 + 60 * MINUTE),
        until: TimeMs(T0 + 120 * MINUTE),
    };
    let booked = |number| {
        contact(number)
            .offered()
            .queued(0, 100_000)
            .then(
                1_000,
                EventBody::OfferMade {
                    virtual_hold: false,
                    windows: 3,
                },
            )
            .then(
                2_000,
                EventBody::CallbackBooked {
                    window: Some(window),
                },
            )
    };
    let book = Book::of([
        booked(1).established(90 * MINUTE, "a1"),
        booked(2).established(121 * MINUTE, "a1"),
        booked(3)
            .then(
                95 * MINUTE,
                EventBody::CallbackEnded {
                    end: CallbackEnd::Exhausted,
                    attempts: 3,
                },
            )
            .closed(96 * MINUTE),
        contact(4)
            .offered()
            .then(
                0,
                EventBody::OfferMade {
                    virtual_hold: true,
                    windows: 0,
                },
            )
            .then(1, EventBody::OfferDeclined),
    ]);
    assert_eq!(book.value("callback_window_kept_rate"), 1.0 / 3.0);
    assert_eq!(book.value("callback_acceptance_rate"), 0.75);
    assert_eq!(book.count(Counter::CallbackDeclined), 1);
    assert_eq!(book.count(Counter::EndedCallbackUnreached), 1);
    assert_eq!(
        book.count(Counter::AnsweredCallback),
        2,
        "who took a callback is no holder"
    );
    assert!(
        !book.measure("announced_wait_bias_ms").known,
        "a chosen window voids the announcement"
    );
}

#[test]
fn a_callback_that_ends_twice_is_a_broken_promise_and_counted_once() {
    let ended = EventBody::CallbackEnded {
        end: CallbackEnd::Cancelled,
        attempts: 0,
    };
    let book = Book::of([contact(1)
        .offered()
        .then(1, EventBody::CallbackBooked { window: None })
        .then(2, ended.clone())
        .then(3, ended)]);
    assert_eq!(book.count(Counter::CallbackCancelled), 1);
    assert_eq!(book.violations[0].invariant, Invariant::CallbackKept);
}

#[test]
fn what_is_known_before_the_queue_is_counted_in_its_group_all_the_same() {
    let book = Book::of([
        contact(1)
            .offered()
            .queued(5_000, 0)
            .established(9_000, "a1")
            .closed(MINUTE),
        contact(2)
            .offered()
            .then(0, EventBody::Blocked { reason: 2 })
            .closed(0),
    ]);
    assert_eq!(
        book.counts(Grouping::Queue, "refunds")
            .signed(Counter::Offered),
        1
    );
    assert_eq!(
        book.counts(Grouping::Queue, "refunds")
            .signed(Counter::Closed),
        1
    );
    assert_eq!(
        book.counts(Grouping::Queue, NO_GROUP)
            .signed(Counter::Offered),
        1
    );
    assert_eq!(
        book.counts(Grouping::Queue, NO_GROUP)
            .signed(Counter::EndedBlocked),
        1
    );
    for grouping in Grouping::ALL {
        let sum: i64 = book
            .tally
            .totals()
            .iter()
            .filter(|((by, _), _)| *by == grouping)
            .map(|(_, counts)| counts.signed(Counter::Offered))
            .sum();
        assert_eq!(sum, 2, "{grouping:?}");
    }
}

#[test]
fn free_text_never_becomes_a_group() {
    let mut script = contact(1);
    script.line = "Jane Doe, 555 0100";
    script.topic = "x-x-x-x-x-x-x-x-x-x-x-x-x-x-x-x-x-x-x-x-x-x-x-x-x-x-x-x-x-x-x-x-x-x-x";
    let book = Book::of([script.offered()]);
    assert_eq!(
        book.counts(Grouping::Line, OTHER_GROUP)
            .signed(Counter::Offered),
        1
    );
    assert_eq!(
        book.counts(Grouping::Topic, OTHER_GROUP)
            .signed(Counter::Offered),
        1
    );
}

#[test]
fn repeats_change_nothing_and_holes_are_broken_promises_that_still_count() {
    let script = callback_taker(1);
    let once = Book::of([callback_taker(1)]);
    let mut book = Book::default();
    for event in script.events.iter().chain(&script.events) {
        book.apply(event);
    }
    assert_eq!(book.tally, once.tally);
    assert_eq!(book.repeated, script.events.len());
    assert!(book.violations.is_empty());

    let mut holed = Book::default();
    let events = &callback_taker(2).events;
    for index in [0, 1, 4, 3, 2, 5, 6, 7, 8, 9, 10, 11] {
        holed.apply(&events[index]);
        holed.apply(&events[index]);
    }
    assert_eq!(
        holed.tally, once.tally,
        "the same events in another order mean the same"
    );
    assert_eq!(
        holed.violations.len(),
        3,
        "one hole, two late: {:?}",
        holed.violations
    );
    assert!(
        holed
            .violations
            .iter()
            .all(|violation| { violation.invariant == Invariant::EveryOutcomeCounted })
    );
}

#[test]
fn after_the_end_nothing_counts_and_only_a_number_is_kept() {
    let mut book = Book::of([contact(1).offered().established(1, "a1").closed(2)]);
    let mut late = contact(1)
        .offered()
        .established(1, "a1")
        .closed(2)
        .offered();
    book.apply(&late.events.pop().expect("an event"));
    assert_eq!(book.count(Counter::Offered), 1);
    assert_eq!(book.violations.len(), 1);
    let state = &book.states[&ContactId(1)];
    assert!(state.is_closed());
    assert_eq!(state.sequence(), 4);
}

#[test]
fn every_definition_is_named_once_and_explained() {
    let mut names = std::collections::BTreeSet::new();
    for definition in definitions() {
        assert!(names.insert(definition.name), "{} twice", definition.name);
        assert!(definition.text().len() > 10, "{}", definition.name);
        let ratio = !matches!(definition.unit, Unit::Count);
        assert_eq!(
            ratio,
            !definition.denominator.is_empty(),
            "{}",
            definition.name
        );
        let value = definition.value(&Measured::default());
        assert_eq!(value.known, !ratio, "{} of nothing", definition.name);
    }
    for name in [
        "offered",
        "speed_of_answer_holders_ms",
        "first_contact_resolution_7d",
    ] {
        assert!(names.contains(name), "{name} is named in the contract");
    }
}

#[test]
fn stored_names_are_read_back() {
    for counter in Counter::ALL {
        assert_eq!(counter.name().parse(), Ok(Slot::Count(*counter)));
    }
    for histogram in Histogram::ALL {
        let slot = Slot::Bucket(*histogram, 117);
        assert_eq!(slot.to_string().parse(), Ok(slot));
    }
    for nonsense in [
        "",
        "h.",
        "h.wait_holders",
        "h.wait_holders.70000",
        "h.nothing.1",
        "offered ",
    ] {
        assert!(nonsense.parse::<Slot>().is_err(), "{nonsense:?}");
    }
}

#[test]
fn agents_who_do_not_answer_are_counted() {
    let book = Book::of([contact(1)
        .offered()
        .then(1, EventBody::Delivered { agent: agent("a1") })
        .then(
            20_000,
            EventBody::NotAnswered {
                agent: agent("a1"),
                cause: Cause::CallNotAnswered,
            },
        )
        .established(30_000, "a2")]);
    assert_eq!(book.count(Counter::NotAnsweredByAgent), 1);
    assert_eq!(book.value("speed_of_answer_holders_ms"), 30_000.0);
}
