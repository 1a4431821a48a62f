//! The switch's events and bookings.

use proto::callback::v1::{Accepted, Response, request, response};
use proto::cti::v1::{
    AgentEvent, CallCleared, CallRef, CallbackCancelled, Delivered, Device, Established,
    OfferAnswered, Snapshot, SnapshotBegin, SnapshotEnd, SwitchEvent, command, snapshot,
    switch_event::Body,
};
use proto::routing::v1::{NotOwner, Refused, input, reply, snapshot_part};
use proto::{callback, routing as wire};

use super::{LINE, NUMBER, POOL, Rig, agent_answer, queue_answer};
use crate::core::{Input, Malformed};

fn delivered() -> Body {
    Body::Delivered(Delivered {
        agent_id: "a1".to_owned(),
    })
}

fn ready_for_events() -> Rig {
    let mut rig = Rig::ready(|_| ());
    rig.open_events(20);
    for input in rig.take_inputs(100) {
        rig.acknowledge(100, input.request_id);
    }
    rig
}

#[test]
fn an_event_is_acknowledged_only_when_routing_holds_it_and_in_order() {
    let mut rig = ready_for_events();
    assert_eq!(rig.may_read[&20], 16_384);
    rig.tell(
        20,
        (1..=3)
            .map(|seq| Rig::event(seq, u128::from(seq), delivered()))
            .collect(),
    );
    let sent = rig.take_inputs(100);
    assert_eq!(sent.len(), 3);
    assert_eq!(rig.acknowledged(20), 0);
    rig.acknowledge(100, sent[1].request_id);
    assert_eq!(rig.acknowledged(20), 0, "the first is not held yet");
    rig.acknowledge(100, sent[0].request_id);
    assert_eq!(rig.acknowledged(20), 2);
    let refused = Refused {
        field: "agent_id".to_owned(),
        limit: "logged on".to_owned(),
        value: "a1".to_owned(),
    };
    rig.reply(100, sent[2].request_id, reply::Body::Refused(refused));
    assert_eq!(
        rig.acknowledged(20),
        3,
        "what is refused counts as acknowledged"
    );
    let frame = rig.events[&20].last().expect("frame");
    assert_eq!(
        (
            frame.refusals[0].about.as_str(),
            frame.refusals[0].field.as_str()
        ),
        ("3", "agent_id")
    );
    assert_eq!(rig.may_read[&20], 16_384 + 3);
}

#[test]
fn a_new_owner_gets_everything_unacknowledged_again_in_order() {
    let mut rig = ready_for_events();
    rig.tell(
        20,
        (1..=5).map(|seq| Rig::event(seq, 1, delivered())).collect(),
    );
    let first = rig.take_inputs(100);
    rig.acknowledge(100, first[1].request_id);
    rig.give(Input::Closed { link: 100 });
    rig.tell(
        20,
        vec![Rig::event(
            6,
            1,
            Body::Established(Established {
                agent_id: "a1".to_owned(),
            }),
        )],
    );
    rig.own(101, 2);
    let again = rig.take_inputs(101);
    let times: Vec<bool> = again
        .iter()
        .map(|input| matches!(input.body, Some(input::Body::Established(_))))
        .collect();
    assert_eq!(
        times,
        [false, false, false, false, true],
        "four of the old, then the new one"
    );
    // The old replica's word no longer counts.
    rig.reply(
        100,
        first[0].request_id,
        reply::Body::Acknowledged(wire::v1::Acknowledged {}),
    );
    assert_eq!(rig.acknowledged(20), 0);
    for input in again {
        rig.acknowledge(101, input.request_id);
    }
    assert_eq!(rig.acknowledged(20), 6);
}

#[test]
fn not_the_owner_holds_the_line_until_there_is_one() {
    let mut rig = ready_for_events();
    rig.tell(
        20,
        vec![Rig::event(1, 1, delivered()), Rig::event(2, 1, delivered())],
    );
    let sent = rig.take_inputs(100);
    rig.reply(100, sent[0].request_id, reply::Body::NotOwner(NotOwner {}));
    rig.reply(100, sent[1].request_id, reply::Body::NotOwner(NotOwner {}));
    rig.tell(20, vec![Rig::event(3, 1, delivered())]);
    assert!(rig.inputs.get(&100).is_none_or(Vec::is_empty));
    rig.own(100, 2);
    assert_eq!(rig.take_inputs(100).len(), 3);
}

#[test]
fn a_repeat_is_dropped_and_a_gap_asks_for_a_snapshot() {
    let mut rig = ready_for_events();
    rig.tell(20, vec![Rig::event(10, 1, delivered())]);
    assert_eq!(
        rig.take_inputs(100).len(),
        1,
        "a stream may start where another gateway stopped"
    );
    assert!(!rig.events[&20].iter().any(|frame| frame.snapshot_required));
    rig.tell(
        20,
        vec![
            Rig::event(10, 1, delivered()),
            Rig::event(9, 1, delivered()),
        ],
    );
    assert!(rig.inputs.get(&100).is_none_or(Vec::is_empty));
    rig.tell(20, vec![Rig::event(13, 1, delivered())]);
    assert!(rig.events[&20].last().expect("frame").snapshot_required);
    // Out of order after all: taken.
    rig.tell(20, vec![Rig::event(12, 1, delivered())]);
    let sent = rig.take_inputs(100);
    assert_eq!(sent.len(), 2);
    assert_eq!(rig.metrics.event_gaps.get(), 1);
}

#[test]
fn an_acknowledgement_stops_at_what_is_missing_until_the_snapshot_is_held() {
    let mut rig = ready_for_events();
    rig.tell(
        20,
        vec![Rig::event(1, 1, delivered()), Rig::event(3, 1, delivered())],
    );
    for input in rig.take_inputs(100) {
        rig.acknowledge(100, input.request_id);
    }
    assert_eq!(rig.acknowledged(20), 1);
    let part = |seq, body| SwitchEvent {
        event_seq: seq,
        body: Some(Body::Snapshot(Snapshot { body: Some(body) })),
        ..SwitchEvent::default()
    };
    rig.tell(
        20,
        vec![
            part(4, snapshot::Body::Begin(SnapshotBegin {})),
            part(
                5,
                snapshot::Body::End(SnapshotEnd {
                    calls: 0,
                    agents: 0,
                }),
            ),
        ],
    );
    let sent = rig.take_inputs(100);
    assert!(
        matches!(&sent[0].body, Some(input::Body::Snapshot(part)) if matches!(part.body, Some(snapshot_part::Body::Begin(_))))
    );
    for input in sent {
        rig.acknowledge(100, input.request_id);
    }
    assert_eq!(rig.acknowledged(20), 5);
}

#[test]
fn after_a_reconnect_what_is_held_is_known_and_what_is_not_is_not_sent_twice() {
    let mut rig = ready_for_events();
    rig.tell(
        20,
        vec![Rig::event(1, 1, delivered()), Rig::event(2, 1, delivered())],
    );
    let sent = rig.take_inputs(100);
    rig.acknowledge(100, sent[0].request_id);
    rig.give(Input::Closed { link: 20 });
    rig.open_events(21);
    assert_eq!(
        rig.events[&21][0]
            .welcome
            .as_ref()
            .expect("welcome")
            .acknowledged_event_seq,
        1
    );
    rig.tell(
        21,
        vec![Rig::event(2, 1, delivered()), Rig::event(3, 1, delivered())],
    );
    assert_eq!(rig.take_inputs(100).len(), 1, "only the third is new");
    rig.acknowledge(100, sent[1].request_id);
    assert_eq!(rig.acknowledged(21), 2);
}

#[test]
fn nonsense_is_refused_by_name_and_the_others_go_on() {
    let mut rig = ready_for_events();
    let mut nobody = Rig::event(1, 1, delivered());
    nobody.correlator_data = bytes::Bytes::new();
    let unknown_state = SwitchEvent {
        event_seq: 2,
        body: Some(Body::Agent(AgentEvent {
            agent_id: "a1".to_owned(),
            state: 99,
            ..AgentEvent::default()
        })),
        ..SwitchEvent::default()
    };
    let empty = SwitchEvent {
        event_seq: 3,
        ..SwitchEvent::default()
    };
    rig.tell(
        20,
        vec![nobody, unknown_state, empty, Rig::event(5, 1, delivered())],
    );
    let malformed = vec![Malformed {
        event_seq: 4,
        bytes: 9,
        ..Malformed::default()
    }];
    rig.give(Input::Events {
        link: 20,
        events: Vec::new(),
        malformed,
    });
    let sent = rig.take_inputs(100);
    assert_eq!(sent.len(), 1);
    rig.acknowledge(100, sent[0].request_id);
    assert_eq!(rig.acknowledged(20), 5);
    let refused: Vec<(String, String)> = rig.events[&20]
        .iter()
        .flat_map(|frame| &frame.refusals)
        .map(|refusal| (refusal.about.clone(), refusal.field.clone()))
        .collect();
    let named = |about: &str, field: &str| (about.to_owned(), field.to_owned());
    assert_eq!(
        refused,
        [
            named("1", "correlator_data"),
            named("2", "agent.state"),
            named("3", "call"),
            named("4", "events"),
        ]
    );
}

#[test]
fn an_agent_goes_to_the_pool_of_its_log_on_and_one_never_seen_to_the_first() {
    let mut rig = Rig::with_policy(
        |_| (),
        |policy| {
            let mut second = policy.pools.values().next().expect("a pool").clone();
            second.name = "zz-second".to_owned();
            policy.pools.insert(second.name.clone(), second);
        },
    );
    rig.own(100, 1);
    rig.open_events(20);
    rig.take_inputs(100);
    let agent = |seq, id: &str, pool: &str, state| SwitchEvent {
        event_seq: seq,
        body: Some(Body::Agent(AgentEvent {
            agent_id: id.to_owned(),
            pool: pool.to_owned(),
            state,
            ..AgentEvent::default()
        })),
        ..SwitchEvent::default()
    };
    rig.tell(
        20,
        vec![
            agent(1, "a1", "zz-second", 2),
            agent(2, "a1", "", 3),
            agent(3, "never-logged-on", "", 3),
            agent(4, "a2", "nowhere", 2),
        ],
    );
    let pools: Vec<String> = rig
        .take_inputs(100)
        .into_iter()
        .map(|input| input.pool)
        .collect();
    assert_eq!(pools, ["zz-second", "zz-second", POOL]);
    assert_eq!(
        rig.events[&20].last().expect("frame").refusals[0].field,
        "agent.pool"
    );
}

#[test]
fn a_call_the_mesh_never_heard_of_is_counted_by_its_end() {
    let mut rig = ready_for_events();
    let cleared = |seq, cross_ref: &str, line: &str| SwitchEvent {
        event_seq: seq,
        age_ms: 100,
        call: Some(CallRef {
            call_id: format!("c{seq}"),
            ..CallRef::default()
        }),
        body: Some(Body::Cleared(CallCleared {
            current_route: Some(Device {
                id: line.to_owned(),
            }),
            calling_device: Some(Device {
                id: NUMBER.to_owned(),
            }),
            cross_ref_id: cross_ref.to_owned(),
            arrived_ago_ms: 5_000,
            routed_by: 4,
            ..CallCleared::default()
        })),
        ..SwitchEvent::default()
    };
    rig.tell(
        20,
        vec![cleared(1, "x9", LINE), cleared(2, "", "+12065550000")],
    );
    let sent = rig.take_inputs(100);
    assert_eq!(
        sent[0].contact_id.as_ref(),
        rig.core.keys.contact("sw1", 7, "x9").to_bytes()
    );
    let Some(input::Body::Cleared(body)) = &sent[0].body else {
        panic!("not cleared")
    };
    assert_eq!(
        (body.line.as_str(), body.routed_by, body.caller.len()),
        ("individual", 4, 16)
    );
    assert_eq!(body.arrived_at_ms, rig.now.wall.0 - 5_100);
    assert_eq!(sent[1].pool, POOL);
    assert!(!rig.leaks.contains(&NUMBER[2..]));
}

#[test]
fn a_call_without_correlator_is_known_from_its_request() {
    let mut rig = ready_for_events();
    rig.ask(1, "x1");
    let (request, _) = rig.last_route(100);
    rig.reply(100, request, agent_answer("a1"));
    rig.take_inputs(100);
    let mut event = Rig::event(1, 0, delivered());
    event.call = Some(CallRef {
        call_id: "call-x1".to_owned(),
        ..CallRef::default()
    });
    event.correlator_data = bytes::Bytes::new();
    rig.tell(20, vec![event]);
    let sent = rig.take_inputs(100);
    assert_eq!(
        sent[0].contact_id.as_ref(),
        rig.core.keys.contact("sw1", 7, "x1").to_bytes()
    );
}

fn accept(seq: u64, contact: u128) -> SwitchEvent {
    Rig::event(
        seq,
        contact,
        Body::OfferAnswered(OfferAnswered {
            offer_id: 1,
            callback_device: Some(Device {
                id: NUMBER.to_owned(),
            }),
            ..OfferAnswered::default()
        }),
    )
}

fn requests(rig: &Rig, link: u64) -> Vec<callback::v1::Request> {
    rig.callback_frames
        .get(&link)
        .into_iter()
        .flatten()
        .flat_map(|frame| frame.requests.clone())
        .collect()
}

#[test]
fn an_accepted_offer_is_acknowledged_and_announced_when_callback_holds_it() {
    let mut rig = ready_for_events();
    rig.give(Input::CommandsOpened {
        link: 10,
        hello: Rig::hello("", 0),
    });
    rig.give(Input::CallbackUp { link: 300 });
    rig.ask(1, "x1");
    let (request, _) = rig.last_route(100);
    rig.reply(100, request, queue_answer(0));
    let contact = rig.core.keys.contact("sw1", 7, "x1");
    rig.tell(20, vec![accept(1, contact.0)]);
    let sent = requests(&rig, 300);
    let Some(request::Body::Book(book)) = &sent[0].body else {
        panic!("not a booking")
    };
    assert_eq!(
        (book.line.as_str(), book.expected_callback_ms),
        ("individual", 60_000)
    );
    assert_eq!(
        rig.core
            .keys
            .decrypt(&book.number, contact)
            .expect("ours")
            .expose(),
        "12065551234"
    );
    assert_eq!(rig.acknowledged(20), 0);
    let accepted = Accepted {
        code: "123456".to_owned(),
        ..Accepted::default()
    };
    let responses = vec![Response {
        request_id: sent[0].request_id,
        body: Some(response::Body::Accepted(accepted)),
    }];
    rig.give(Input::Callback {
        link: 300,
        frame: callback::v1::LinkResponse {
            responses,
            ..Default::default()
        },
    });
    assert_eq!(rig.acknowledged(20), 1);
    let Some(command::Body::AnnounceBooking(said)) = &rig.commands[&10][0].body else {
        panic!("not announced")
    };
    assert_eq!(
        (said.code.as_str(), said.failed, said.expected_callback_ms),
        ("123456", false, 60_000)
    );
    assert!(!rig.leaks.contains(&NUMBER[2..]));
}

#[test]
fn a_booking_is_tried_elsewhere_and_at_last_the_caller_is_told_and_it_is_cancelled() {
    let mut rig = ready_for_events();
    rig.give(Input::CommandsOpened {
        link: 10,
        hello: Rig::hello("", 0),
    });
    rig.give(Input::CallbackUp { link: 300 });
    rig.give(Input::CallbackUp { link: 301 });
    rig.tell(20, vec![accept(1, 5)]);
    rig.pass(900);
    assert!(
        !requests(&rig, 300).is_empty() && !requests(&rig, 301).is_empty(),
        "both were asked"
    );
    rig.pass(1_300);
    let Some(command::Body::AnnounceBooking(said)) = &rig.commands[&10][0].body else {
        panic!("not announced")
    };
    assert!(said.failed);
    assert_eq!(rig.acknowledged(20), 1);
    let all = [requests(&rig, 300), requests(&rig, 301)].concat();
    assert!(all.iter().any(|request| matches!(&request.body, Some(request::Body::Cancel(cancel)) if cancel.contact_id.as_ref() == 5u128.to_be_bytes())));
}

#[test]
fn an_announcement_waits_for_the_command_stream_for_a_moment() {
    let mut rig = ready_for_events();
    rig.tell(20, vec![accept(1, 5)]);
    rig.pass(2_100);
    assert!(rig.commands.is_empty());
    rig.give(Input::CommandsOpened {
        link: 10,
        hello: Rig::hello("", 0),
    });
    assert_eq!(rig.commands[&10].len(), 1);
    // Lost with the stream before its result: said again.
    rig.give(Input::Closed { link: 10 });
    rig.give(Input::CommandsOpened {
        link: 11,
        hello: Rig::hello("", 0),
    });
    assert_eq!(rig.commands[&11].len(), 1);
}

#[test]
fn an_offer_without_a_number_is_refused_and_one_declined_is_told_to_routing() {
    let mut rig = ready_for_events();
    let mut hidden = accept(1, 5);
    if let Some(Body::OfferAnswered(offer)) = &mut hidden.body {
        offer.callback_device = Some(Device {
            id: "anonymous".to_owned(),
        });
    }
    let mut declined = accept(2, 5);
    if let Some(Body::OfferAnswered(offer)) = &mut declined.body {
        offer.offer_id = 0;
    }
    rig.tell(20, vec![hidden, declined]);
    assert_eq!(rig.acknowledged(20), 1);
    let sent = rig.take_inputs(100);
    assert!(matches!(sent[0].body, Some(input::Body::OfferDeclined(_))));
}

#[test]
fn a_booking_is_cancelled_by_contact_or_by_the_code_and_the_caller() {
    let mut rig = ready_for_events();
    rig.give(Input::CallbackUp { link: 300 });
    rig.ask(1, "x1");
    let (request, _) = rig.last_route(100);
    rig.reply(100, request, queue_answer(0));
    let contact = rig.core.keys.contact("sw1", 7, "x1").0;
    let cancel = |seq, contact, code: &str| {
        Rig::event(
            seq,
            contact,
            Body::CallbackCancelled(CallbackCancelled {
                code: code.to_owned(),
                calling_device: None,
            }),
        )
    };
    rig.tell(
        20,
        vec![
            cancel(1, 5, ""),
            cancel(2, contact, "654321"),
            cancel(3, 6, "654321"),
        ],
    );
    let sent = requests(&rig, 300);
    assert_eq!(sent.len(), 2);
    let Some(request::Body::Cancel(by_contact)) = &sent[0].body else {
        panic!("not a cancellation")
    };
    assert_eq!(by_contact.contact_id.as_ref(), 5u128.to_be_bytes());
    let Some(request::Body::Cancel(by_code)) = &sent[1].body else {
        panic!("not a cancellation")
    };
    assert_eq!(
        (
            by_code.contact_id.len(),
            by_code.caller.len(),
            by_code.code.as_str()
        ),
        (0, 16, "654321")
    );
    for request in sent {
        let cancelled = response::Body::Cancelled(callback::v1::Cancelled { existed: true });
        let responses = vec![Response {
            request_id: request.request_id,
            body: Some(cancelled),
        }];
        rig.give(Input::Callback {
            link: 300,
            frame: callback::v1::LinkResponse {
                responses,
                ..Default::default()
            },
        });
    }
    assert_eq!(rig.acknowledged(20), 3);
}

#[test]
fn a_new_boot_is_told_to_every_pool_before_anything_of_it() {
    let mut rig = Rig::new(|_| ());
    rig.open_events(20);
    rig.tell(20, vec![Rig::event(1, 1, delivered())]);
    rig.own(100, 1);
    let sent = rig.take_inputs(100);
    assert!(matches!(sent[0].body, Some(input::Body::SwitchBoot(_))));
    assert_eq!((sent[0].boot_id, sent.len()), (7, 2));
    let mut hello = Rig::hello("", 0);
    hello.boot_id = 8;
    rig.give(Input::EventsOpened { link: 21, hello });
    let sent = rig.take_inputs(100);
    assert!(matches!(sent[0].body, Some(input::Body::SwitchBoot(_))));
    assert_eq!(sent[0].boot_id, 8);
}
