//! Route requests to their one answer.

use proto::cti::v1::{
    ReRoute, RouteEnd, RouteEndError, mesh_dialogue_message as mesh, offer,
    route_select::Treatment, switch_dialogue_message::Body,
};
use proto::intent::v1::{Candidate, Decision, LinkResponse, Verdict};
use proto::routing::v1::{NotOwner, input, reply};

use super::{NUMBER, POOL, Rig, agent_answer, queue_answer, read_correlator};
use crate::core::Input;
use crate::metrics::{Answered, Limit};

fn select(body: &mesh::Body) -> &proto::cti::v1::RouteSelect {
    match body {
        mesh::Body::Select(select) => select,
        other => panic!("not a select: {other:?}"),
    }
}

fn ended(body: &mesh::Body) -> RouteEndError {
    match body {
        mesh::Body::End(end) => end.error(),
        other => panic!("not an end: {other:?}"),
    }
}

#[test]
fn a_request_is_classified_routed_and_answered_with_an_agent() {
    let mut rig = Rig::ready(|_| ());
    rig.give(Input::IntentUp { link: 200 });
    rig.ask(1, "x1");
    let query = rig.queries[&200][0].clone();
    assert_eq!(
        (query.utterance.as_str(), query.line.as_str()),
        ("where is my refund", "individual")
    );
    assert!(!rig.inputs.get(&100).is_some_and(|inputs| {
        inputs
            .iter()
            .any(|i| matches!(i.body, Some(input::Body::Route(_))))
    }));
    let verdict = Verdict {
        query_id: query.query_id,
        topic_id: "REF_STATUS".to_owned(),
        confidence: 0.9,
        decision: Decision::Topic.into(),
        top: vec![
            Candidate {
                topic_id: "REF_STATUS".to_owned(),
                probability: 0.9,
            },
            Candidate {
                topic_id: "REF_DELAY".to_owned(),
                probability: 0.05,
            },
        ],
        ..Verdict::default()
    };
    rig.give(Input::Intent {
        link: 200,
        frame: LinkResponse {
            verdicts: vec![verdict],
            ..LinkResponse::default()
        },
    });
    let (request, route) = rig.last_route(100);
    assert_eq!(
        (route.topic.as_str(), route.person_asked),
        ("REF_STATUS", false)
    );
    assert_eq!(route.other_topics, ["REF_DELAY"]);
    assert_eq!(route.language, "es");
    assert_eq!(route.caller.len(), 16);
    // 500 ms less two round trips of 2 ms and a tick of 62 ms.
    assert_eq!(route.deadline_at_ms, rig.now.wall.0 + 500 - 4 - 62);
    rig.reply(100, request, agent_answer("a1"));
    let heard = rig.heard(1);
    let answer = select(&heard[0]);
    assert_eq!(answer.route_selected.as_ref().expect("device").id, "dev-a1");
    assert!(matches!(&answer.treatment, Some(Treatment::Agent(agent)) if agent.agent_id == "a1"));
    let correlator = read_correlator(&answer.correlator_data);
    assert_eq!(
        (
            correlator.pool.as_str(),
            correlator.contact_id.len(),
            correlator.blocked
        ),
        (POOL, 16, 0)
    );
    assert_eq!(rig.credits(1), 1);
    assert_eq!(rig.core.in_flight, 0);
    assert!(!rig.leaks.contains(&NUMBER[2..]));
}

#[test]
fn without_intent_a_caller_gets_a_person() {
    let mut rig = Rig::ready(|_| ());
    rig.ask(1, "x1");
    let (_, route) = rig.last_route(100);
    assert_eq!(
        (route.topic.as_str(), route.person_asked),
        (domain::policy::OPERATOR_TOPIC, true)
    );
}

#[test]
fn intent_that_is_late_or_dies_costs_the_topic_and_not_the_answer() {
    let mut rig = Rig::ready(|_| ());
    rig.give(Input::IntentUp { link: 200 });
    rig.ask(1, "x1");
    rig.pass(148);
    assert!(rig.heard(1).is_empty());
    assert!(rig.last_route(100).1.person_asked);
    rig.ask(1, "x2");
    rig.give(Input::Closed { link: 200 });
    assert_eq!(rig.last_route(100).1.cross_ref_id, "x2");
}

#[test]
fn a_place_in_line_comes_with_its_offers_numbered() {
    let mut rig = Rig::ready(|_| ());
    rig.ask(1, "x1");
    let (request, _) = rig.last_route(100);
    rig.reply(100, request, queue_answer(2));
    let heard = rig.heard(1);
    let Some(Treatment::Queue(queue)) = &select(&heard[0]).treatment else {
        panic!("not a queue")
    };
    assert_eq!(
        queue
            .offers
            .iter()
            .map(|offer| offer.offer_id)
            .collect::<Vec<_>>(),
        [1, 2, 3]
    );
    assert!(
        matches!(queue.offers[0].kind, Some(offer::Kind::VirtualHold(hold)) if hold.expected_callback_ms == 60_000)
    );
    assert!(
        matches!(queue.offers[2].kind, Some(offer::Kind::Window(window)) if window.from_ms == 2_000)
    );
}

#[test]
fn a_repeated_request_gets_the_same_answer_and_reserves_once() {
    let mut rig = Rig::ready(|_| ());
    rig.ask(1, "x1");
    rig.ask(1, "x1");
    let routes = rig
        .take_inputs(100)
        .into_iter()
        .filter(|input| matches!(input.body, Some(input::Body::Route(_))));
    let asked: Vec<u64> = routes.map(|input| input.request_id).collect();
    assert_eq!(asked.len(), 1);
    rig.reply(100, asked[0], agent_answer("a1"));
    assert_eq!(rig.heard(1).len(), 1, "one answer for both");
    rig.ask(1, "x1");
    let heard = rig.heard(1);
    assert_eq!(heard.len(), 2);
    assert_eq!(heard[0], heard[1]);
    assert_eq!(rig.credits(1), 3);
    assert!(rig.inputs.get(&100).is_none_or(|inputs| inputs.is_empty()));
    assert_eq!(rig.metrics.duplicates.get(), 2);
}

#[test]
fn a_reference_reused_for_another_call_is_refused_and_the_first_call_goes_on() {
    let mut rig = Rig::ready(|_| ());
    rig.ask(1, "x1");
    let (request, _) = rig.last_route(100);
    let mut other = Rig::request("x1");
    other.call.as_mut().expect("call").call_id = "another".to_owned();
    rig.say(1, vec![Body::Request(other)]);
    let heard = rig.heard(1);
    assert!(
        matches!(&heard[0], mesh::Body::Refusal(refusal) if refusal.field == "request.cross_ref_id" && refusal.about == "x1")
    );
    assert_eq!(ended(&heard[1]), RouteEndError::InvalidRequest);
    rig.reply(100, request, agent_answer("a1"));
    select(&rig.heard(1)[2]);
}

#[test]
fn a_bad_field_costs_its_own_dialogue_only() {
    let mut rig = Rig::ready(|_| ());
    let mut bad = Rig::request("bad");
    bad.utterance = "x".repeat(65_536);
    let mut unknown = Rig::request("unknown");
    unknown.current_route.as_mut().expect("line").id = "+12065550000".to_owned();
    let mut empty = Rig::request("empty");
    empty.utterance.clear();
    empty.calling_device = None;
    rig.say(
        1,
        vec![
            Body::Request(bad),
            Body::Request(unknown),
            Body::Request(empty),
        ],
    );
    let heard = rig.heard(1);
    let refusal = |index: usize| match &heard[index] {
        mesh::Body::Refusal(refusal) => (
            refusal.about.clone(),
            refusal.field.clone(),
            refusal.value.clone(),
        ),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        refusal(0),
        (
            "bad".to_owned(),
            "request.utterance".to_owned(),
            "65536 bytes".to_owned()
        )
    );
    assert_eq!(ended(&heard[1]), RouteEndError::InvalidRequest);
    let (about, field, value) = refusal(2);
    assert_eq!(
        (about.as_str(), field.as_str()),
        ("unknown", "request.current_route.id")
    );
    assert!(!value.contains("5550000"), "{value}");
    let (request, route) = rig.last_route(100);
    assert_eq!(
        (route.cross_ref_id.as_str(), route.caller.len()),
        ("empty", 0)
    );
    rig.reply(100, request, agent_answer("a1"));
    assert_eq!(rig.heard(1).len(), 5);
    assert_eq!(rig.credits(1), 3);
}

#[test]
fn a_silent_routing_costs_the_call_its_default_route_in_time_and_a_late_agent_is_freed() {
    let mut rig = Rig::ready(|_| ());
    rig.ask(1, "x1");
    let (request, _) = rig.last_route(100);
    rig.pass(424);
    assert!(rig.heard(1).is_empty(), "not before its time");
    rig.pass(12);
    let heard = rig.heard(1);
    assert_eq!(ended(&heard[0]), RouteEndError::ResourceUnavailable);
    assert_eq!(rig.credits(1), 1);
    rig.take_inputs(100);
    rig.reply(100, request, agent_answer("a1"));
    let failed = rig.take_inputs(100);
    assert!(
        matches!(failed[0].body, Some(input::Body::RouteFailed(_))),
        "{failed:?}"
    );
    assert_eq!(rig.heard(1).len(), 1, "one terminal message");
    assert_eq!(rig.metrics.late_assignments.get(), 1);
}

#[test]
fn a_request_as_old_as_its_timeout_is_dropped() {
    let mut rig = Rig::ready(|_| ());
    let mut old = Rig::request("x1");
    old.age_ms = 500;
    rig.say(1, vec![Body::Request(old)]);
    assert_eq!(ended(&rig.heard(1)[0]), RouteEndError::RouteingTimerExpired);
    assert!(rig.inputs.get(&100).is_none_or(|inputs| {
        inputs
            .iter()
            .all(|i| !matches!(i.body, Some(input::Body::Route(_))))
    }));
}

#[test]
fn not_the_owner_is_asked_elsewhere_and_no_owner_is_waited_for() {
    let mut rig = Rig::ready(|_| ());
    rig.own(101, 1);
    rig.ask(1, "x1");
    let first = if rig.inputs.get(&101).is_some_and(|inputs| {
        inputs
            .iter()
            .any(|i| matches!(i.body, Some(input::Body::Route(_))))
    }) {
        101
    } else {
        100
    };
    let other = 201 - first;
    let (request, _) = rig.last_route(first);
    rig.reply(first, request, reply::Body::NotOwner(NotOwner {}));
    let (request, _) = rig.last_route(other);
    rig.reply(other, request, reply::Body::NotOwner(NotOwner {}));
    assert!(rig.heard(1).is_empty());
    rig.pass(100);
    rig.own(102, 2);
    let (request, _) = rig.last_route(102);
    rig.reply(102, request, agent_answer("a1"));
    select(&rig.heard(1)[0]);
}

#[test]
fn a_link_that_is_lost_is_asked_again_elsewhere_and_the_old_answer_is_not_heard() {
    let mut rig = Rig::ready(|_| ());
    rig.ask(1, "x1");
    let (old, _) = rig.last_route(100);
    rig.own(101, 2);
    let (new, _) = rig.last_route(101);
    rig.reply(100, old, agent_answer("old"));
    assert!(rig.heard(1).is_empty());
    rig.reply(101, new, agent_answer("new"));
    let heard = rig.heard(1);
    assert_eq!(heard.len(), 1);
    assert_eq!(select(&heard[0]).decision_id, "d-new");
}

#[test]
fn beyond_its_credit_a_request_is_ended_at_once() {
    let mut rig = Rig::ready(|config| config.credit = 2);
    for cross_ref in ["x1", "x2", "x3"] {
        rig.ask(1, cross_ref);
    }
    let heard = rig.heard(1);
    assert_eq!(heard.len(), 1);
    assert_eq!(
        ended(&heard[0]),
        RouteEndError::OutstandingRequestLimitExceeded
    );
    let (request, _) = rig.last_route(100);
    rig.reply(100, request, agent_answer("a1"));
    assert_eq!(rig.credits(1), 1);
    rig.ask(1, "x4");
    assert_eq!(rig.heard(1).len(), 2, "there is credit again");
}

#[test]
fn a_burst_beyond_admission_is_answered_with_a_message_and_leaves_nothing_behind() {
    let mut rig = Rig::ready(|config| {
        config.admission_per_second = 100;
        config.admission_burst = 10;
        config.credit = 65_536;
    });
    for batch in 0..40 {
        let requests = (0..250)
            .map(|index| Body::Request(Rig::request(&format!("b{batch}-{index}"))))
            .collect();
        rig.say(1, requests);
    }
    let heard = rig.heard(1);
    assert_eq!(
        heard.len(),
        10_000 - 10,
        "every caller but those admitted hears something at once"
    );
    let Some(Treatment::Message(message)) = &select(&heard[0]).treatment else {
        panic!("not a message")
    };
    assert_eq!(message.reason(), proto::cti::v1::MessageReason::Overload);
    let correlator = read_correlator(&select(&heard[0]).correlator_data);
    assert_eq!(
        correlator.blocked(),
        proto::cti::v1::MessageReason::Overload
    );
    assert_eq!(rig.core.dialogues.len(), 10);
    assert_eq!(rig.metrics.limit_hits.get(Limit::NodeRate as usize), 9_990);
    // A repeat of a refused call is refused again, admitted or not.
    rig.pass(1_000);
    let before = rig.heard(1).len();
    rig.ask(1, "b39-249");
    assert_eq!(rig.heard(1)[before], heard[heard.len() - 1]);
    assert_eq!(rig.core.dialogues.len(), 10);
}

#[test]
fn what_goes_on_is_not_refused_by_admission_and_keeps_its_contact() {
    let mut rig = Rig::ready(|config| {
        config.admission_per_second = 1;
        config.admission_burst = 1;
    });
    rig.ask(1, "x1");
    let mut transfer = Rig::request("x2");
    transfer.correlator_data = super::correlator(42);
    transfer.current_route.as_mut().expect("line").id = "somewhere".to_owned();
    rig.say(1, vec![Body::Request(transfer)]);
    let (_, route) = rig.last_route(100);
    assert_eq!(route.cross_ref_id, "x2");
    let input = rig.inputs[&100].last().expect("input");
    assert_eq!(input.contact_id.as_ref(), 42u128.to_be_bytes());
}

#[test]
fn the_switch_ends_a_dialogue_and_what_it_held_is_freed() {
    let mut rig = Rig::ready(|_| ());
    let end = |cross_ref: &str, error: RouteEndError| {
        Body::End(RouteEnd {
            cross_ref_id: cross_ref.to_owned(),
            error: error.into(),
            correlator_data: Default::default(),
        })
    };
    let failed = |rig: &mut Rig| {
        let inputs = rig.take_inputs(100);
        inputs
            .iter()
            .filter(|input| matches!(input.body, Some(input::Body::RouteFailed(_))))
            .count()
    };
    // Answered, used: nothing to free.
    rig.ask(1, "used");
    let (request, _) = rig.last_route(100);
    rig.reply(100, request, agent_answer("a1"));
    rig.say(1, vec![end("used", RouteEndError::Unspecified)]);
    assert_eq!(failed(&mut rig), 0);
    // Answered too late for the switch.
    rig.ask(1, "late");
    let (request, _) = rig.last_route(100);
    rig.reply(100, request, agent_answer("a2"));
    rig.say(1, vec![end("late", RouteEndError::InvalidCrossRefId)]);
    assert_eq!(failed(&mut rig), 1);
    // The caller gives up while routing is asked: its answer is freed when it comes.
    rig.ask(1, "gone");
    let (request, _) = rig.last_route(100);
    rig.say(1, vec![end("gone", RouteEndError::CallCancelled)]);
    assert_eq!(failed(&mut rig), 0);
    rig.reply(100, request, queue_answer(0));
    assert_eq!(failed(&mut rig), 1);
    assert_eq!(rig.heard(1).len(), 2);
    assert_eq!((rig.credits(1), rig.core.in_flight), (3, 0));
    assert_eq!(rig.metrics.answers.get(Answered::SwitchEnded as usize), 1);
}

#[test]
fn a_dialogue_of_a_lost_gateway_is_ended_by_its_correlator() {
    let mut rig = Rig::ready(|_| ());
    let end = RouteEnd {
        cross_ref_id: "theirs".to_owned(),
        error: RouteEndError::InvalidDestination.into(),
        correlator_data: super::correlator(9),
    };
    rig.say(1, vec![Body::End(end)]);
    let inputs = rig.take_inputs(100);
    let last = inputs.last().expect("reported");
    assert!(matches!(last.body, Some(input::Body::RouteFailed(_))));
    assert_eq!(last.contact_id.as_ref(), 9u128.to_be_bytes());
}

#[test]
fn another_destination_is_found_on_the_same_dialogue() {
    let mut rig = Rig::ready(|_| ());
    rig.ask(1, "x1");
    let (request, _) = rig.last_route(100);
    rig.reply(100, request, agent_answer("a1"));
    let again = ReRoute {
        cross_ref_id: "x1".to_owned(),
        cause: 2,
        reply_timeout_ms: 500,
        ..ReRoute::default()
    };
    rig.say(1, vec![Body::Reroute(again.clone())]);
    let inputs = rig.take_inputs(100);
    let last = inputs.last().expect("asked");
    assert!(matches!(&last.body, Some(input::Body::Reroute(reroute)) if reroute.cause == 2));
    // While it runs, another is refused.
    rig.say(1, vec![Body::Reroute(again.clone())]);
    rig.reply(100, last.request_id, agent_answer("a2"));
    let heard = rig.heard(1);
    assert!(
        matches!(&heard[1], mesh::Body::Refusal(refusal) if refusal.field == "reroute.cross_ref_id")
    );
    assert_eq!(select(&heard[2]).decision_id, "d-a2");
    // Routing silent: the default route, in time.
    rig.say(1, vec![Body::Reroute(again)]);
    rig.pass(440);
    assert_eq!(ended(&rig.heard(1)[3]), RouteEndError::ResourceUnavailable);
    // Unknown and without a correlator.
    let unknown = ReRoute {
        cross_ref_id: "nobody".to_owned(),
        reply_timeout_ms: 500,
        ..ReRoute::default()
    };
    rig.say(1, vec![Body::Reroute(unknown)]);
    assert_eq!(ended(&rig.heard(1)[4]), RouteEndError::InvalidCrossRefId);
}

#[test]
fn an_outage_of_routing_keeps_memory_bounded_and_answers_everyone() {
    let mut rig = Rig::new(|config| {
        config.in_flight_max = 64;
        config.admission_burst = 1_000_000;
        config.remembered_answers_max = 64;
    });
    rig.open(1, "", 0);
    for round in 0..20 {
        for index in 0..50 {
            rig.ask(1, &format!("r{round}-{index}"));
        }
        rig.pass(440);
    }
    assert_eq!(rig.heard(1).len(), 1_000);
    assert_eq!(rig.core.in_flight, 0);
    assert!(
        rig.core.dialogues.len() <= 64,
        "{}",
        rig.core.dialogues.len()
    );
    rig.own(100, 1);
    let routes = rig
        .take_inputs(100)
        .into_iter()
        .filter(|input| matches!(input.body, Some(input::Body::Route(_))));
    assert_eq!(routes.count(), 0, "what was given up is not asked for");
}
