//! The checker itself: a run in which every promise is kept passes, and for each promise a
//! doctored record or log makes its check, and no other, fail.

use domain::policy::Policy;
use prost::Message as _;
use proto::event::v1::{self as event, ContactEvent, contact_event::Body};

use super::facts::Facts;
use super::live::{Live, Measure};
use super::log::Log;
use super::pii::{Scanner, Sightings};
use super::{Evidence, Verdict, every_promise, outcomes};
use crate::record::{AnswerKind, DefaultWhy, Entry, Leg, Line, Release, RunInfo};
use crate::scenario::Expect;

const T0: u64 = 1_700_000_000_000;

/// A run: the switch's record and the events, each (contact, at ms after T0, body).
struct Run {
    record: Vec<(u64, Entry)>,
    events: Vec<(&'static str, u64, Body)>,
    live: bool,
    /// Applied to each encoded event: (contact, sequence, event).
    doctor: fn(&str, u64, &mut ContactEvent),
    /// Sequences that never reach the topic.
    lost: Vec<(&'static str, u64)>,
}

fn ring(
    agent: &str,
    call: u64,
    contact: &str,
    at: u64,
    answered: u64,
    until: u64,
) -> Vec<(u64, Entry)> {
    let (contact, agent) = (contact.to_owned(), agent.to_owned());
    vec![
        (
            at,
            Entry::Rings {
                call,
                contact: contact.clone(),
                agent: agent.clone(),
            },
        ),
        (
            answered,
            Entry::Established {
                call,
                contact: contact.clone(),
                agent: agent.clone(),
            },
        ),
        (
            until,
            Entry::Released {
                call,
                contact,
                agent,
                why: Release::Ended,
            },
        ),
    ]
}

fn call(call: u64, caller: u32, leg: Leg, contact: &str, at: u64) -> Vec<(u64, Entry)> {
    vec![
        (
            at,
            Entry::Call {
                call,
                caller,
                leg,
                intended: (T0 + at) * 1000,
                contact: contact.into(),
                topic: "REF_STATUS".into(),
                language: "en".into(),
            },
        ),
        (
            at,
            Entry::Request {
                call,
                dialogue: 1,
                round: 0,
                node: 0,
            },
        ),
    ]
}

fn answer(call: u64, contact: &str, at: u64, kind: AnswerKind) -> (u64, Entry) {
    let entry = Entry::Answer {
        call,
        dialogue: 1,
        round: 0,
        node: 0,
        kind,
        error: 0,
        contact: contact.into(),
        us: 1000,
        agent: String::new(),
        queue: String::new(),
        expected_wait_ms: 0,
        low_ms: 0,
        high_ms: 0,
        offers: 0,
    };
    (at, entry)
}

fn cleared(call: u64, contact: &str, at: u64) -> (u64, Entry) {
    (
        at,
        Entry::Cleared {
            call,
            contact: contact.into(),
            cause: 1,
            routed_by: 1,
            waited: false,
        },
    )
}

fn queued(reason: event::QueuedReason, place_from: u64) -> Body {
    Body::Queued(event::Queued {
        position: 1,
        reason: reason.into(),
        place_from_ms: T0 + place_from,
        ..Default::default()
    })
}

fn assigned(agent: &str) -> Body {
    Body::Assigned(event::Assigned {
        agent_id: agent.into(),
        assignment: 1,
        waited_ms: 0,
    })
}

fn established(agent: &str, waited_ms: u64, callback: bool) -> Body {
    Body::Established(event::Established {
        agent_id: agent.into(),
        waited_ms,
        callback,
        first: true,
        ..Default::default()
    })
}

fn disconnected(agent: &str) -> Body {
    Body::Disconnected(event::Disconnected {
        agent_id: agent.into(),
        talk_ms: 1,
    })
}

/// A good run: `now` is answered at once, `held` waits 5 s and misses one agent, `called`
/// takes a callback, `later` waits for one still, `lost` was default-routed unheard.
fn good() -> Run {
    use event::QueuedReason as Reason;
    let run = RunInfo {
        scenario: "test".into(),
        title: "test".into(),
        seed: 1,
        switch_id: "switch".into(),
        boot_id: 1,
        nodes: vec!["gateway".into()],
        kafka: "none".into(),
        scheduled: 5,
        callers: 100,
    };
    let mut record = vec![(0, Entry::Run(run))];
    for agent in ["a1", "a2"] {
        record.push((
            0,
            Entry::Agent {
                agent: agent.into(),
                skills: vec![("refund".into(), 9)],
                languages: vec!["en".into()],
            },
        ));
    }
    record.extend(call(1, 1, Leg::New, "", 1000));
    record.push(answer(1, "now", 1001, AnswerKind::Agent));
    record.extend(ring("a1", 1, "now", 1001, 2000, 8000));
    record.push(cleared(1, "now", 8000));
    record.extend(call(2, 2, Leg::New, "", 3000));
    record.push(answer(2, "held", 3001, AnswerKind::Queue));
    record.push((
        6000,
        Entry::Rings {
            call: 2,
            contact: "held".into(),
            agent: "a2".into(),
        },
    ));
    record.push((
        7000,
        Entry::Released {
            call: 2,
            contact: "held".into(),
            agent: "a2".into(),
            why: Release::NotAnswered,
        },
    ));
    record.extend(ring("a1", 2, "held", 8010, 8500, 12_000));
    record.push(cleared(2, "held", 12_000));
    for (number, caller, contact, at) in [(3, 3, "called", 4000), (4, 4, "later", 4500)] {
        record.extend(call(number, caller, Leg::New, "", at));
        record.push(answer(number, contact, at + 1, AnswerKind::Queue));
        record.push((
            at + 500,
            Entry::Booked {
                call: number,
                contact: contact.into(),
                caller,
                code: format!("00000{caller}"),
                window: None,
            },
        ));
        record.push(cleared(number, contact, at + 700));
    }
    record.push((
        13_000,
        Entry::Dial {
            dial: 1,
            contact: "called".into(),
            caller: Some(3),
        },
    ));
    record.push((
        14_000,
        Entry::DialEnded {
            dial: 1,
            contact: "called".into(),
            outcome: 2,
            call: None,
        },
    ));
    record.push((
        15_000,
        Entry::Dial {
            dial: 2,
            contact: "called".into(),
            caller: Some(3),
        },
    ));
    record.push((
        15_500,
        Entry::DialEnded {
            dial: 2,
            contact: "called".into(),
            outcome: 1,
            call: Some(5),
        },
    ));
    record.extend(call(5, 3, Leg::Callback, "called", 15_500));
    record.push(answer(5, "called", 15_501, AnswerKind::Agent));
    record.extend(ring("a1", 5, "called", 15_502, 16_000, 18_000));
    record.push(cleared(5, "called", 18_000));
    record.extend(call(6, 6, Leg::New, "", 5000));
    record.push((
        5500,
        Entry::Default {
            call: 6,
            dialogue: 1,
            round: 0,
            why: DefaultWhy::NoLink,
            link_up: false,
            slow_us: 0,
        },
    ));
    record.push(cleared(6, "", 5700));
    record.push((
        20_000,
        Entry::Pending {
            contact: "later".into(),
            found: true,
            state: "booked".into(),
        },
    ));
    record.push((
        20_000,
        Entry::End {
            calls: 6,
            events: 40,
            events_acknowledged: 40,
        },
    ));
    record.sort_by_key(|(at, _)| *at);
    let offered = || Body::Offered(event::Offered::default());
    let booked = || Body::CallbackBooked(event::CallbackBooked::default());
    let attempted = |step| Body::CallbackAttempted(event::CallbackAttempted { attempt: 1, step });
    let closed = || Body::Closed(event::Closed { events: 0 });
    let events = vec![
        ("now", 1000, offered()),
        ("now", 1000, assigned("a1")),
        (
            "now",
            1001,
            Body::Delivered(event::Delivered {
                agent_id: "a1".into(),
            }),
        ),
        ("now", 2000, established("a1", 1000, false)),
        ("now", 8000, disconnected("a1")),
        ("now", 8005, closed()),
        ("held", 3000, offered()),
        ("held", 3000, queued(Reason::Arrival, 3000)),
        ("held", 6000, assigned("a2")),
        (
            "held",
            7000,
            Body::NotAnswered(event::NotAnswered {
                agent_id: "a2".into(),
                cause: 3,
            }),
        ),
        ("held", 7000, queued(Reason::NotAnswered, 3000)),
        ("held", 8010, assigned("a1")),
        ("held", 8500, established("a1", 5500, false)),
        ("held", 12_000, disconnected("a1")),
        ("held", 12_010, closed()),
        ("called", 4000, offered()),
        ("called", 4000, queued(Reason::Arrival, 4000)),
        ("called", 4500, booked()),
        ("called", 13_000, attempted(1)),
        ("called", 14_000, attempted(3)),
        ("called", 15_500, attempted(2)),
        ("called", 15_500, assigned("a1")),
        ("called", 16_000, established("a1", 12_000, true)),
        (
            "called",
            16_000,
            Body::CallbackEnded(event::CallbackEnded {
                end: 1,
                attempts: 2,
            }),
        ),
        ("called", 18_000, disconnected("a1")),
        ("called", 18_010, closed()),
        ("later", 4500, offered()),
        ("later", 4500, queued(Reason::Arrival, 4500)),
        ("later", 5000, booked()),
        ("lost", 5700, offered()),
        (
            "lost",
            5700,
            Body::DefaultRouted(event::DefaultRouted { by: 4 }),
        ),
        ("lost", 5700, closed()),
    ];
    Run {
        record,
        events,
        live: true,
        doctor: |_, _, _| {},
        lost: Vec::new(),
    }
}

fn arrived(contact: &str) -> u64 {
    T0 + match contact {
        "now" => 1000,
        "held" => 3000,
        "called" => 4000,
        "later" => 4500,
        _ => 5000,
    }
}

impl Run {
    fn log(&self) -> Log {
        let mut log = Log::default();
        let mut sequences = std::collections::HashMap::new();
        for (contact, at, body) in &self.events {
            let sequence = sequences.entry(*contact).or_insert(0u64);
            *sequence += 1;
            let mut body = body.clone();
            if let Body::Closed(closed) = &mut body {
                closed.events = *sequence;
            }
            let time = |ms: u64| {
                Some(prost_types::Timestamp {
                    seconds: (ms / 1000).cast_signed(),
                    nanos: (ms % 1000) as i32 * 1_000_000,
                })
            };
            let mut event = ContactEvent {
                event_id: format!("{contact}/{sequence}"),
                contact_id: (*contact).to_owned(),
                sequence: *sequence,
                occurred_at: time(T0 + at),
                arrived_at: time(arrived(contact)),
                topic: "REF_STATUS".into(),
                queue: "refund".into(),
                language: "en".into(),
                body: Some(body),
                ..Default::default()
            };
            (self.doctor)(contact, *sequence, &mut event);
            if self.lost.contains(&(*contact, *sequence)) {
                continue;
            }
            let payload = event.encode_to_vec();
            Scanner::new(100).scan("Kafka record", &payload, &mut log.personal);
            log.take(contact.as_bytes(), &payload);
        }
        log.finish();
        log
    }

    fn verdicts(&self) -> Vec<Verdict> {
        let lines: Vec<Line> = self
            .record
            .iter()
            .map(|(at, entry)| Line {
                at: (T0 + at) * 1000,
                entry: entry.clone(),
            })
            .collect();
        let (facts, log) = (Facts::from_lines(&lines), self.log());
        let measure = |(name, count): (&str, u64)| Measure {
            name: name.into(),
            value: count as f64,
            denominator: 0,
            definition: String::new(),
            unknown: false,
        };
        let live = Live {
            measures: outcomes::count(&good().log())
                .into_iter()
                .map(measure)
                .collect(),
            caught_up: true,
            ..Default::default()
        };
        let policy = Policy::worked_example();
        let expect = Expect {
            clock_tolerance_ms: 100,
            established_min: 0,
            ..Default::default()
        };
        every_promise(&Evidence {
            facts: &facts,
            log: &log,
            live: self.live.then_some(&live),
            policy: &policy,
            expect: &expect,
        })
    }

    /// The promises that are broken.
    fn broken(&self) -> Vec<String> {
        let verdicts = self.verdicts().into_iter();
        verdicts
            .filter(|verdict| verdict.violations > 0)
            .map(|verdict| verdict.promise)
            .collect()
    }

    fn replace(&mut self, pick: impl Fn(&Entry) -> bool, change: impl Fn(&mut Entry)) {
        let (_, entry) = self
            .record
            .iter_mut()
            .find(|(_, entry)| pick(entry))
            .expect("the good run has such an entry");
        change(entry);
    }

    fn insert_event(&mut self, after: usize, event: (&'static str, u64, Body)) {
        self.events.insert(after, event);
    }
}

#[test]
fn a_run_that_keeps_every_promise_passes_and_checks_something_for_each() {
    let run = good();
    for verdict in run.verdicts() {
        assert_eq!(
            (verdict.violations, &verdict.first),
            (0, &Vec::new()),
            "{}",
            verdict.promise
        );
        assert!(verdict.checked > 0, "{} checked nothing", verdict.promise);
    }
}

#[test]
fn silence_with_the_link_up_breaks_never_silent() {
    let mut run = good();
    run.replace(
        |entry| matches!(entry, Entry::Default { .. }),
        |entry| {
            if let Entry::Default { why, link_up, .. } = entry {
                (*why, *link_up) = (DefaultWhy::Timer, true);
            }
        },
    );
    assert_eq!(run.broken(), ["NeverSilent"]);
    run.replace(
        |entry| matches!(entry, Entry::Default { .. }),
        |entry| {
            if let Entry::Default { slow_us, .. } = entry {
                *slow_us = 200_000;
            }
        },
    );
    assert!(run.broken().is_empty(), "the harness was late itself");
}

#[test]
fn a_question_that_never_ends_or_ends_twice_breaks_never_silent() {
    let mut run = good();
    run.record
        .retain(|(_, entry)| !matches!(entry, Entry::Default { .. }));
    assert_eq!(run.broken(), ["NeverSilent"]);
    let mut run = good();
    run.record.push(answer(2, "held", 3100, AnswerKind::Queue));
    assert_eq!(run.broken(), ["NeverSilent"]);
    let mut run = good();
    run.record.push((
        3100,
        Entry::SecondAnswer {
            call: 2,
            dialogue: 1,
            same: false,
        },
    ));
    assert_eq!(run.broken(), ["NeverSilent"]);
}

#[test]
fn a_contact_given_to_a_second_agent_breaks_one_call_one_agent() {
    let mut run = good();
    run.insert_event(3, ("now", 1500, assigned("a2")));
    assert!(run.broken().contains(&"OneCallOneAgent".to_owned()));
}

#[test]
fn an_agent_with_two_contacts_at_once_breaks_one_call_one_agent() {
    let mut run = good();
    // `held` goes to a1 while a1 still talks to `now`.
    for (contact, at, body) in &mut run.events {
        if *contact == "held"
            && matches!(body, Body::Assigned(assigned) if assigned.agent_id == "a1")
        {
            *at = 7500;
        }
    }
    assert_eq!(run.broken(), ["OneCallOneAgent"]);
}

#[test]
fn a_reservation_ends_when_the_switch_refuses_the_move_though_no_event_says_so() {
    let mut run = good();
    // `held` was given to a2 first; nothing says that it is over before a2 gets it again.
    run.insert_event(8, ("held", 4000, assigned("a1")));
    for (contact, at, body) in &mut run.events {
        if *contact == "now" && !matches!(body, Body::Offered(_)) {
            *at = 1000;
        }
    }
    assert!(run.broken().contains(&"OneCallOneAgent".to_owned()));
    run.record.push((
        4001,
        Entry::CommandFailed {
            kind: "deflect".into(),
            call: 2,
            error: 2,
        },
    ));
    assert!(
        !run.broken().contains(&"OneCallOneAgent".to_owned()),
        "{:?}",
        run.broken()
    );
}

#[test]
fn a_call_sent_to_a_phone_in_use_breaks_one_call_one_agent_unless_it_is_just_leaving() {
    let busy = |at| Entry::AgentBusy {
        call: 2,
        contact: "held".into(),
        agent: "a1".into(),
        holds: 1,
        since: at,
    };
    let mut run = good();
    run.record.push((5000, busy(0)));
    assert_eq!(run.broken(), ["OneCallOneAgent"]);
    let mut run = good();
    run.record.push((7950, busy(0)));
    assert!(run.broken().is_empty());
}

#[test]
fn a_place_that_moved_breaks_place_kept() {
    let mut run = good();
    run.events[10].2 = queued(event::QueuedReason::NotAnswered, 7000);
    assert_eq!(run.broken(), ["PlaceKept"]);
    let mut run = good();
    run.doctor = |contact, sequence, event| {
        if contact == "held" && sequence == 5 {
            event.arrived_at = Some(prost_types::Timestamp {
                seconds: 1,
                nanos: 0,
            });
        }
    };
    assert_eq!(run.broken(), ["PlaceKept"]);
}

#[test]
fn a_callback_that_is_lost_ends_twice_or_overlaps_breaks_callback_kept() {
    let mut run = good();
    run.record
        .retain(|(_, entry)| !matches!(entry, Entry::Pending { .. }));
    assert_eq!(run.broken(), ["CallbackKept"]);
    let mut run = good();
    run.replace(
        |entry| matches!(entry, Entry::Pending { .. }),
        |entry| {
            if let Entry::Pending { found, .. } = entry {
                *found = false;
            }
        },
    );
    assert_eq!(run.broken(), ["CallbackKept"]);
    let mut run = good();
    run.insert_event(
        24,
        (
            "called",
            16_001,
            Body::CallbackEnded(event::CallbackEnded {
                end: 2,
                attempts: 2,
            }),
        ),
    );
    assert_eq!(run.broken(), ["CallbackKept"]);
    let mut run = good();
    run.record.push((
        13_500,
        Entry::Dial {
            dial: 3,
            contact: "called".into(),
            caller: Some(3),
        },
    ));
    assert_eq!(run.broken(), ["CallbackKept"]);
}

#[test]
fn a_connected_callback_without_a_person_breaks_callback_kept() {
    let mut run = good();
    run.record
        .retain(|(_, entry)| !matches!(entry, Entry::Established { call: 5, .. }));
    let broken = run.broken();
    assert!(
        broken.contains(&"CallbackKept".to_owned()) && broken.contains(&"HonestClock".to_owned()),
        "{broken:?}"
    );
}

#[test]
fn a_lost_event_breaks_every_outcome_counted() {
    for lost in [("now", 3), ("held", 1), ("now", 6)] {
        let mut run = good();
        run.lost.push(lost);
        let broken = run.broken();
        assert!(
            broken.contains(&"EveryOutcomeCounted".to_owned()),
            "{lost:?}: {broken:?}"
        );
    }
}

#[test]
fn a_contact_that_is_missing_or_one_too_many_breaks_every_outcome_counted() {
    for contact in ["now", "lost"] {
        let mut run = good();
        run.events.retain(|(known, _, _)| *known != contact);
        assert_eq!(run.broken(), ["EveryOutcomeCounted"], "{contact}");
    }
    let mut run = good();
    run.events
        .push(("ghost", 5000, Body::Offered(event::Offered::default())));
    assert_eq!(run.broken(), ["EveryOutcomeCounted"]);
}

#[test]
fn a_repeat_is_harmless_but_other_bytes_under_the_same_sequence_are_not() {
    let run = good();
    let mut log = run.log();
    let event = ContactEvent {
        contact_id: "new".into(),
        sequence: 1,
        body: Some(Body::Offered(event::Offered::default())),
        ..Default::default()
    };
    log.take(b"new", &event.encode_to_vec());
    log.take(b"new", &event.encode_to_vec());
    assert_eq!((log.repeats, log.contradictions.len()), (1, 0));
    log.take(
        b"new",
        &ContactEvent {
            pool: "other".into(),
            ..event
        }
        .encode_to_vec(),
    );
    assert_eq!(log.contradictions, [("new".to_owned(), 1)]);
}

#[test]
fn events_out_of_order_totals_that_differ_and_unacknowledged_events_break_every_outcome_counted() {
    let mut run = good();
    run.doctor = |contact, sequence, event| {
        if contact == "now" && (sequence == 3 || sequence == 4) {
            event.sequence = 7 - sequence;
        }
    };
    assert!(run.broken().contains(&"EveryOutcomeCounted".to_owned()));
    let mut run = good();
    let transferred = event::TransferRequested {
        from_agent_id: "a1".into(),
        ..Default::default()
    };
    run.insert_event(4, ("now", 3000, Body::TransferRequested(transferred)));
    assert_eq!(
        run.broken(),
        ["EveryOutcomeCounted"],
        "a total the query API does not have"
    );
    let mut run = good();
    run.replace(
        |entry| matches!(entry, Entry::End { .. }),
        |entry| {
            if let Entry::End { events, .. } = entry {
                *events += 1;
            }
        },
    );
    assert_eq!(run.broken(), ["EveryOutcomeCounted"]);
}

#[test]
fn somebody_who_came_later_going_first_breaks_bounded_overtaking() {
    let mut run = good();
    // `later` waits in line instead of being booked, and is overtaken by one who came after.
    run.events.retain(|(contact, _, body)| {
        !(*contact == "later" && matches!(body, Body::CallbackBooked(_)))
    });
    for (at, entry) in &mut run.record {
        if matches!(entry, Entry::Cleared { call: 4, .. }) {
            *at = 19_000;
        }
    }
    assert!(
        !run.broken().contains(&"BoundedOvertaking".to_owned()),
        "nobody came after"
    );
    run.doctor = |contact, _, event| {
        if contact == "held" {
            event.arrived_at = Some(prost_types::Timestamp {
                seconds: (T0 / 1000 + 6).cast_signed(),
                nanos: 0,
            });
        }
    };
    assert!(run.broken().contains(&"BoundedOvertaking".to_owned()));
    // Somebody who had hung up before is not overtaken.
    let hung_up: Vec<(u64, Entry)> = run
        .record
        .iter()
        .map(|(at, entry)| {
            if matches!(entry, Entry::Cleared { call: 4, .. }) {
                (5200, entry.clone())
            } else {
                (*at, entry.clone())
            }
        })
        .collect();
    let in_line = std::mem::replace(&mut run.record, hung_up);
    assert!(!run.broken().contains(&"BoundedOvertaking".to_owned()));
    run.record = in_line;
    // Another language is another line: that agent does not speak it.
    run.doctor = |contact, _, event| {
        if contact == "held" {
            event.arrived_at = Some(prost_types::Timestamp {
                seconds: (T0 / 1000 + 6).cast_signed(),
                nanos: 0,
            });
        }
        if contact == "later" {
            event.language = "fr".into();
        }
    };
    assert!(!run.broken().contains(&"BoundedOvertaking".to_owned()));
}

#[test]
fn a_number_or_a_name_in_an_event_breaks_no_plain_pii() {
    for text in ["+88381000000042", "zorblax", "900-55-0001"] {
        let mut run = good();
        run.doctor = match text {
            "zorblax" => |_, _, event| event.line = "for ZORBLAX".into(),
            "900-55-0001" => |_, _, event| event.traceparent = "900-55-0001".into(),
            _ => |_, _, event| event.line = "+88381000000042".into(),
        };
        assert_eq!(run.broken(), ["NoPlainPii"], "{text}");
    }
    let mut sightings = Sightings::default();
    // Nobody had that number: a chance likeness.
    Scanner::new(100).scan("key", b"88381012345678", &mut sightings);
    assert_eq!(sightings.found, 0);
}

#[test]
fn a_clock_that_stops_at_the_booking_breaks_honest_clock() {
    let mut run = good();
    for (contact, _, body) in &mut run.events {
        if *contact == "called"
            && let Body::Established(established) = body
        {
            established.waited_ms = 500;
        }
    }
    assert_eq!(run.broken(), ["HonestClock"]);
}

#[test]
fn without_the_mesh_totals_are_not_compared_but_everything_else_is() {
    let mut run = good();
    run.live = false;
    assert!(run.broken().is_empty());
    let notes: Vec<String> = run
        .verdicts()
        .into_iter()
        .flat_map(|verdict| verdict.notes)
        .collect();
    assert!(
        notes
            .iter()
            .any(|note| note.contains("totals not compared"))
    );
}
