//! One pool, step by step: what a caller, an agent and a switch would notice.

mod support;

use domain::TimeMs;
use domain::pool::{
    Answer, Cause, EventBody, InputBody, ReplyBody, RoutedBy, SurveyAnswers, SwitchAgentState,
};
use support::{Bench, agent, call, cleared, contact, route, switch, update};

const ACCOUNT: &[(&str, u8)] = &[("account", 5)];
const EXPERT: &[(&str, u8)] = &[("account", 8), ("operator", 3)];

fn goes_to(answer: &Answer, name: &str) {
    assert!(
        matches!(answer, Answer::Agent { agent: found, .. } if *found == agent(name)),
        "{answer:?}, not {name}"
    );
}

fn position(answer: &Answer) -> u32 {
    match answer {
        Answer::Queue(place) => place.position,
        other => panic!("not queued: {other:?}"),
    }
}

#[test]
fn an_arriving_call_takes_the_agent_idle_longest_who_can_serve_it() {
    let mut bench = Bench::new();
    bench.ready("late", ACCOUNT);
    bench.pass(1_000);
    bench.ready("expert", EXPERT);
    bench.pass(1_000);
    bench.ready("other", ACCOUNT);
    goes_to(&bench.route(1, "HARD"), "expert");
    goes_to(&bench.route(2, "PLAIN"), "late");
    goes_to(&bench.route(3, "PLAIN"), "other");
    assert_eq!(position(&bench.route(4, "PLAIN")), 1);
    assert_eq!(
        bench.said(),
        Vec::<String>::new(),
        "answers go on the dialogue, no command"
    );
}

#[test]
fn who_did_not_get_the_call_after_all_stays_longest_idle() {
    let mut bench = Bench::new();
    bench.ready("first", ACCOUNT);
    bench.pass(10);
    bench.ready("second", ACCOUNT);
    goes_to(&bench.route(1, "PLAIN"), "first");
    bench.tell(
        1,
        InputBody::RouteFailed {
            caller_gave_up: true,
        },
    );
    goes_to(&bench.route(2, "PLAIN"), "first");
}

#[test]
fn a_whole_call_tells_its_story_in_order_and_closes_after_the_survey_wait() {
    let mut bench = Bench::new();
    bench.ready("ann", ACCOUNT);
    bench.route(1, "PLAIN");
    bench.delivered(1, "ann");
    bench.pass(3_000);
    bench.established(1, "ann");
    bench.pass(60_000);
    bench.cleared(1, Cause::NormalClearing);
    bench.pass(10_000);
    bench.wrapped_up(1, "ann");
    assert_eq!(bench.pool.status(bench.now).agents_ready, 1);
    bench.pass(4_000);
    let expected = [
        "offered",
        "assigned ann",
        "delivered ann",
        "established ann callback=false",
        "disconnected ann 60000",
        "wrapped up ann timed_out=false",
        "closed",
    ];
    assert_eq!(bench.story(1), expected);
    assert_eq!(bench.said(), ["set ann Ready"]);
    let handled = bench.events.iter().find_map(|event| match event.body {
        EventBody::WrappedUp { handle_ms, .. } => Some(handle_ms),
        _ => None,
    });
    assert_eq!(handled, Some(70_000));
}

#[test]
fn the_survey_closes_the_contact_and_is_counted_once() {
    let mut bench = Bench::new();
    bench.ready("ann", ACCOUNT);
    bench.route(1, "PLAIN");
    bench.serve(1, "ann");
    let answers = SurveyAnswers {
        calls_about_this: 2,
        all_answered: Some(true),
        no_more_calls: Some(false),
    };
    for _ in 0..3 {
        assert_eq!(
            bench.tell(1, InputBody::Survey(answers)),
            ReplyBody::Acknowledged
        );
    }
    assert_eq!(bench.story(1)[5..], ["survey", "closed"]);
}

#[test]
fn a_freed_agent_takes_the_highest_priority_and_then_the_longest_wait() {
    let mut bench = Bench::new();
    bench.route(1, "PLAIN");
    bench.pass(1_000);
    bench.route(2, "PLAIN");
    bench.pass(1_000);
    bench.route(3, "URGENT");
    bench.route(4, "HARD");
    // Priorities: 1: 2 points, 2: 1, 3: 100, 4: 300 of another queue that needs proficiency 7.
    bench.ready("ann", ACCOUNT);
    assert_eq!(bench.said(), ["deflect call-3 ann"]);
    bench.ready("eve", EXPERT);
    assert_eq!(bench.said(), ["deflect call-4 eve"]);
    bench.serve(3, "ann");
    bench.serve(4, "eve");
    assert_eq!(
        bench.said(),
        [
            "set ann Ready",
            "deflect call-1 ann",
            "set eve Ready",
            "deflect call-2 eve"
        ]
    );
}

#[test]
fn nobody_is_overtaken_beyond_the_stated_bound() {
    let mut bench = Bench::new();
    assert_eq!(bench.pool.overtaking_bound_ms("plain"), Some(600_000));
    assert_eq!(bench.pool.overtaking_bound_ms("hard"), Some(150_000));
    assert_eq!(bench.pool.overtaking_bound_ms("nowhere"), None);
    bench.route(1, "PLAIN");
    bench.pass(599_000);
    bench.route(2, "HARD");
    bench.pass(1_000);
    bench.pass(150_000);
    // Both are at the cap now: who came first goes first.
    bench.ready("eve", EXPERT);
    assert_eq!(bench.said(), ["deflect call-1 eve"]);
}

#[test]
fn languages_wait_in_lanes_of_their_own() {
    let mut bench = Bench::new();
    let spanish = |number| domain::pool::RouteInput {
        language: "es".into(),
        ..route(number, "PLAIN", support::START)
    };
    assert_eq!(position(&bench.route_with(1, spanish(1))), 1);
    assert_eq!(position(&bench.route(2, "PLAIN")), 1);
    bench.ready("ann", ACCOUNT);
    assert_eq!(bench.said(), ["deflect call-2 ann"]);
    let mut both = update("bea", SwitchAgentState::Ready, ACCOUNT);
    both.languages = vec!["en".into(), "es".into()];
    bench.input(None, Some(switch(1)), InputBody::Agent(both));
    assert_eq!(bench.said(), ["deflect call-1 bea"]);
}

#[test]
fn an_agent_who_does_not_answer_is_set_not_ready_and_the_caller_keeps_the_place() {
    let mut bench = Bench::new();
    bench.ready("ann", ACCOUNT);
    bench.route(1, "PLAIN");
    bench.pass(1_000);
    bench.route(2, "PLAIN");
    bench.delivered(1, "ann");
    bench.pass(20_000);
    assert_eq!(bench.said(), ["set ann NotReady", "deflect call-1 q-plain"]);
    assert_eq!(
        bench.story(1),
        [
            "offered",
            "assigned ann",
            "delivered ann",
            "not answered ann",
            "queued 1 NotAnswered"
        ]
    );
    let place_from = bench
        .events
        .iter()
        .rev()
        .find_map(|event| match event.body {
            EventBody::Queued { place_from, .. } => Some((place_from, event.arrived_at)),
            _ => None,
        });
    assert_eq!(place_from, Some((support::START, support::START)));
    bench.ready("bob", ACCOUNT);
    assert_eq!(bench.said(), ["deflect call-1 bob"]);
    bench.tell(
        1,
        InputBody::Failed {
            agent: Some(agent("bob")),
            cause: Cause::Busy,
        },
    );
    bench.ready("ann", &[]);
    assert_eq!(
        bench.said(),
        [
            "set bob NotReady",
            "deflect call-1 q-plain",
            "deflect call-1 ann"
        ]
    );
}

#[test]
fn a_reroute_is_answered_with_the_next_agent_on_the_same_dialogue() {
    let mut bench = Bench::new();
    bench.ready("ann", ACCOUNT);
    bench.pass(1);
    bench.ready("bob", ACCOUNT);
    goes_to(&bench.route(1, "PLAIN"), "ann");
    let reroute = InputBody::Reroute {
        cause: Cause::DestNotObtainable,
        deadline: bench.now.plus(500),
    };
    match bench.tell(1, reroute.clone()) {
        ReplyBody::Answer {
            decision: 2,
            answer,
        } => goes_to(&answer, "bob"),
        other => panic!("{other:?}"),
    }
    match bench.tell(1, reroute) {
        ReplyBody::Answer {
            decision: 3,
            answer,
        } => assert_eq!(position(&answer), 1),
        other => panic!("{other:?}"),
    }
    assert_eq!(
        bench.said(),
        ["set ann NotReady", "set bob NotReady"],
        "the call is moved by the answers"
    );
}

#[test]
fn a_reservation_without_news_puts_the_call_back_in_line() {
    let mut bench = Bench::new();
    bench.ready("ann", ACCOUNT);
    bench.route(1, "PLAIN");
    bench.pass(4_999);
    assert_eq!(bench.said(), Vec::<String>::new());
    bench.pass(1);
    assert_eq!(
        bench.said(),
        ["deflect call-1 ann"],
        "the only agent, by command now"
    );
    assert_eq!(bench.pool.status(bench.now).reservations_expired, 1);
}

#[test]
fn a_repeated_request_gets_the_same_answer_and_reserves_once() {
    let mut bench = Bench::new();
    bench.ready("ann", ACCOUNT);
    bench.ready("bob", ACCOUNT);
    let first = bench.tell(1, InputBody::Route(route(1, "PLAIN", support::START)));
    for _ in 0..3 {
        assert_eq!(
            bench.tell(1, InputBody::Route(route(1, "PLAIN", support::START))),
            first
        );
    }
    assert_eq!(bench.pool.status(bench.now).agents_reserved, 1);
    bench.route(2, "PLAIN");
    let queued = bench.tell(3, InputBody::Route(route(3, "PLAIN", support::START)));
    bench.route(4, "PLAIN");
    assert_eq!(
        bench.tell(3, InputBody::Route(route(3, "PLAIN", support::START))),
        queued
    );
    assert_eq!(bench.story(3).len(), 3, "{:?}", bench.story(3));
}

#[test]
fn a_request_past_its_deadline_takes_the_default_route_and_reserves_nothing() {
    let mut bench = Bench::new();
    bench.ready("ann", ACCOUNT);
    let late = domain::pool::RouteInput {
        deadline: bench.now,
        ..route(1, "PLAIN", bench.now)
    };
    assert_eq!(bench.route_with(1, late), Answer::DefaultRoute);
    assert_eq!(bench.pool.status(bench.now).agents_ready, 1);
    let over = cleared(1, Cause::NormalClearing, RoutedBy::DefaultTimer, bench.now);
    bench.tell(1, InputBody::Cleared(over));
    assert_eq!(
        bench.story(1),
        ["offered", "default routed DefaultTimer", "closed"]
    );
}

#[test]
fn calls_the_pool_never_heard_of_are_counted_once() {
    let mut bench = Bench::new();
    let cases = [
        (
            1,
            RoutedBy::DefaultNoLink,
            0,
            "default routed DefaultNoLink",
        ),
        (2, RoutedBy::Nobody, 0, "abandoned 5000 ringing=false"),
        (3, RoutedBy::Mesh, 1, "blocked 1"),
    ];
    for (number, by, blocked, expected) in cases {
        for _ in 0..2 {
            let mut over = cleared(number, Cause::CallCancelled, by, bench.now);
            over.blocked = blocked;
            assert_eq!(
                bench.tell(number, InputBody::Cleared(over)),
                ReplyBody::Acknowledged
            );
        }
        assert_eq!(bench.story(number), ["offered", expected, "closed"]);
    }
}

#[test]
fn ended_contacts_are_remembered_for_a_while_and_late_events_change_nothing() {
    let mut bench = Bench::new();
    bench.ready("ann", ACCOUNT);
    bench.route(1, "PLAIN");
    bench.cleared(1, Cause::CallCancelled);
    let story = bench.story(1);
    assert_eq!(
        story,
        [
            "offered",
            "assigned ann",
            "abandoned 0 ringing=false",
            "closed"
        ]
    );
    for _ in 0..2 {
        assert_eq!(bench.delivered(1, "ann"), ReplyBody::Acknowledged);
        assert_eq!(bench.established(1, "ann"), ReplyBody::Acknowledged);
        assert_eq!(
            bench.cleared(1, Cause::CallCancelled),
            ReplyBody::Acknowledged
        );
        assert_eq!(bench.wrapped_up(1, "nobody"), ReplyBody::Acknowledged);
        assert_eq!(bench.route(1, "PLAIN"), Answer::DefaultRoute);
    }
    assert_eq!(bench.story(1), story);
    assert_eq!(bench.pool.status(bench.now).remembered, 1);
    bench.pass(60_000);
    assert_eq!(bench.pool.status(bench.now).remembered, 0);
}

#[test]
fn established_without_delivered_and_wrap_up_before_the_end_are_taken() {
    let mut bench = Bench::new();
    bench.ready("ann", ACCOUNT);
    bench.route(1, "PLAIN");
    bench.established(1, "ann");
    bench.wrapped_up(1, "ann");
    bench.pass(1_000);
    bench.cleared(1, Cause::NormalClearing);
    assert_eq!(
        bench.story(1)[2..],
        [
            "established ann callback=false",
            "disconnected ann 1000",
            "wrapped up ann timed_out=false"
        ]
    );
    assert_eq!(bench.pool.status(bench.now).agents_ready, 1);
}

#[test]
fn a_wrap_up_ends_by_time_or_by_ready_and_the_agent_works_again() {
    let mut bench = Bench::new();
    bench.ready("ann", ACCOUNT);
    bench.route(1, "PLAIN");
    bench.established(1, "ann");
    bench.cleared(1, Cause::NormalClearing);
    bench.pass(60_000);
    assert_eq!(bench.story(1)[4], "wrapped up ann timed_out=true");
    assert_eq!(bench.said(), ["set ann Ready"]);
    bench.route(2, "PLAIN");
    bench.established(2, "ann");
    bench.cleared(2, Cause::NormalClearing);
    bench.pass(5_000);
    bench.ready("ann", &[]);
    assert_eq!(bench.story(2)[4], "wrapped up ann timed_out=false");
    assert_eq!(bench.pool.status(bench.now).agents_ready, 1);
}

#[test]
fn an_agent_who_went_not_ready_during_a_call_gets_no_other_after_it() {
    let mut bench = Bench::new();
    bench.ready("ann", ACCOUNT);
    bench.route(1, "PLAIN");
    bench.established(1, "ann");
    bench.agent("ann", SwitchAgentState::NotReady, &[]);
    bench.cleared(1, Cause::NormalClearing);
    bench.wrapped_up(1, "ann");
    assert_eq!(position(&bench.route(2, "PLAIN")), 1);
    assert_eq!(bench.said(), Vec::<String>::new());
    assert_eq!(bench.pool.status(bench.now).agents_not_ready, 1);
}

#[test]
fn an_agent_never_logged_on_is_refused_and_nothing_else_is_touched() {
    let mut bench = Bench::new();
    bench.ready("ann", ACCOUNT);
    bench.route(1, "PLAIN");
    for body in [
        InputBody::Delivered {
            agent: agent("ghost"),
        },
        InputBody::Established {
            agent: agent("ghost"),
        },
        InputBody::Failed {
            agent: Some(agent("ghost")),
            cause: Cause::Busy,
        },
    ] {
        match bench.tell(1, body) {
            ReplyBody::Refused(error) => {
                assert_eq!((error.field, error.value.as_str()), ("agent_id", "ghost"))
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(matches!(
        bench.agent("ghost", SwitchAgentState::Ready, &[]),
        ReplyBody::Refused(_)
    ));
    assert_eq!(bench.story(1), ["offered", "assigned ann"]);
}

#[test]
fn nonsense_is_refused_with_field_limit_and_value() {
    let mut bench = Bench::new();
    let ask = |bench: &mut Bench, change: &dyn Fn(&mut domain::pool::RouteInput)| {
        let mut input = route(1, "PLAIN", support::START);
        change(&mut input);
        match bench.tell(1, InputBody::Route(input)) {
            ReplyBody::Refused(error) => error.field,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(
        ask(&mut bench, &|input| input.line = "nowhere".into()),
        "line"
    );
    assert_eq!(
        ask(&mut bench, &|input| input.topic = "NOTHING".into()),
        "topic"
    );
    assert_eq!(
        ask(&mut bench, &|input| input.language = "e n".into()),
        "language"
    );
    assert_eq!(
        ask(&mut bench, &|input| input.cross_ref = "x".repeat(65)),
        "cross_ref"
    );
    let mut bad = update("ann", SwitchAgentState::Ready, &[("account", 11)]);
    assert!(matches!(
        bench.input(None, Some(switch(1)), InputBody::Agent(bad.clone())),
        ReplyBody::Refused(_)
    ));
    bad.skills = Vec::new();
    bad.capacity = 9;
    assert!(matches!(
        bench.input(None, Some(switch(1)), InputBody::Agent(bad)),
        ReplyBody::Refused(_)
    ));
    assert!(matches!(
        bench.input(None, None, InputBody::AtQueue),
        ReplyBody::Refused(_)
    ));
    assert!(matches!(
        bench.input(None, Some(switch(1)), InputBody::SnapshotEnd),
        ReplyBody::Refused(_)
    ));
    assert_eq!(bench.pool.status(bench.now).contacts, 0);
}

#[test]
fn a_full_queue_and_a_caller_with_too_many_places_hear_a_message() {
    let mut bench = Bench::new();
    for number in 1..=3 {
        assert_eq!(
            u64::from(position(&bench.route(number, "META_OPERATOR"))),
            number
        );
    }
    let full = Answer::Message {
        announcement: "operator-full".into(),
        reason: 2,
    };
    assert_eq!(bench.route(4, "META_OPERATOR"), full);
    assert_eq!(bench.route(4, "META_OPERATOR"), full, "asked again");
    bench.cleared(4, Cause::NormalClearing);
    assert_eq!(bench.story(4), ["offered", "blocked 2", "closed"]);
    let same = |number| domain::pool::RouteInput {
        caller: Some(domain::CallerId(77)),
        ..route(number, "PLAIN", support::START)
    };
    bench.route_with(10, same(10));
    bench.route_with(11, same(11));
    assert!(matches!(
        bench.route_with(12, same(12)),
        Answer::Message { reason: 4, .. }
    ));
    bench.cleared(10, Cause::CallCancelled);
    bench.tell(10, InputBody::OfferDeclined);
    assert_eq!(position(&bench.route_with(13, same(13))), 2);
}

#[test]
fn a_deflect_that_fails_is_tried_again_when_the_call_is_at_the_queue() {
    let mut bench = Bench::new();
    bench.route(1, "PLAIN");
    bench.ready("ann", ACCOUNT);
    let command = bench.commands.first().expect("a deflect").id;
    bench.said();
    let failed = InputBody::CommandDone {
        command,
        agent: Some(agent("ann")),
        failed: true,
    };
    bench.tell(1, failed.clone());
    assert_eq!(bench.pool.status(bench.now).agents_ready, 1);
    bench.tell(1, failed);
    bench.tell(1, InputBody::AtQueue);
    assert_eq!(bench.said(), ["deflect call-1 ann"]);
    let command = 3;
    bench.tell(
        1,
        InputBody::CommandDone {
            command,
            agent: None,
            failed: true,
        },
    );
    assert_eq!(
        bench.pool.status(bench.now).agents_reserved,
        1,
        "an unknown command changes nothing"
    );
}

#[test]
fn a_failed_deflect_waits_its_time_without_news() {
    let mut bench = Bench::new();
    bench.route(1, "PLAIN");
    bench.ready("ann", ACCOUNT);
    let command = bench.commands.first().expect("a deflect").id;
    bench.tell(
        1,
        InputBody::CommandDone {
            command,
            agent: None,
            failed: true,
        },
    );
    bench.said();
    bench.pass(999);
    assert_eq!(bench.said(), Vec::<String>::new());
    bench.pass(1);
    assert_eq!(bench.said(), ["deflect call-1 ann"]);
}

#[test]
fn an_abandoned_ring_frees_the_agent_and_says_so() {
    let mut bench = Bench::new();
    bench.ready("ann", ACCOUNT);
    bench.route(1, "PLAIN");
    bench.delivered(1, "ann");
    bench.pass(7_000);
    bench.cleared(1, Cause::CallCancelled);
    assert_eq!(
        bench.story(1)[3..],
        ["abandoned 7000 ringing=true", "closed"]
    );
    assert_eq!(bench.pool.status(bench.now).agents_ready, 1);
}

#[test]
fn an_agent_who_logs_off_gives_ringing_calls_back_and_finishes_conversations() {
    let mut bench = Bench::new();
    bench.ready("ann", ACCOUNT);
    bench.pass(1);
    bench.ready("bob", ACCOUNT);
    bench.route(1, "PLAIN");
    bench.delivered(1, "ann");
    bench.agent("ann", SwitchAgentState::Null, &[]);
    assert_eq!(bench.said(), ["deflect call-1 bob"]);
    bench.established(1, "bob");
    bench.agent("bob", SwitchAgentState::Null, &[]);
    assert_eq!(bench.pool.status(bench.now).agents, 1);
    bench.pass(1_000);
    bench.cleared(1, Cause::NormalClearing);
    assert_eq!(bench.pool.status(bench.now).agents, 0);
    assert_eq!(
        bench.story(1)[6..],
        ["disconnected bob 1000", "wrapped up bob timed_out=false"]
    );
}

#[test]
fn agents_with_more_places_take_more_contacts_and_never_more_than_those() {
    let mut bench = Bench::new();
    let mut chat = update("ann", SwitchAgentState::Ready, ACCOUNT);
    chat.capacity = 2;
    bench.input(None, Some(switch(1)), InputBody::Agent(chat));
    goes_to(&bench.route(1, "PLAIN"), "ann");
    goes_to(&bench.route(2, "PLAIN"), "ann");
    assert_eq!(position(&bench.route(3, "PLAIN")), 1);
    bench.established(1, "ann");
    bench.established(2, "ann");
    bench.cleared(1, Cause::NormalClearing);
    bench.wrapped_up(1, "ann");
    assert_eq!(
        bench.said().last().map(String::as_str),
        Some("deflect call-3 ann")
    );
}

#[test]
fn a_clock_that_jumps_back_or_ahead_breaks_nothing() {
    let mut bench = Bench::new();
    bench.ready("ann", ACCOUNT);
    bench.route(1, "PLAIN");
    bench.established(1, "ann");
    bench.now = TimeMs(5);
    bench.cleared(1, Cause::NormalClearing);
    bench.now = support::START.plus(3_000);
    bench.wrapped_up(1, "ann");
    let future = domain::pool::RouteInput {
        arrived_at: bench.now.plus(86_400_000),
        ..route(2, "PLAIN", bench.now)
    };
    bench.route_with(2, future);
    let events: Vec<_> = bench
        .events
        .iter()
        .filter(|event| event.contact == contact(2))
        .collect();
    assert!(
        events
            .iter()
            .all(|event| event.arrived_at <= bench.now && event.at <= bench.now),
        "{events:?}"
    );
    for pair in bench
        .events
        .windows(2)
        .filter(|pair| pair[0].contact == pair[1].contact)
    {
        assert!(pair[0].at <= pair[1].at, "{pair:?}");
    }
}

#[test]
fn a_late_report_of_ready_does_not_free_an_agent_who_talks() {
    let mut bench = Bench::new();
    bench.ready("ann", ACCOUNT);
    bench.route(1, "PLAIN");
    bench.established(1, "ann");
    bench.ready("ann", ACCOUNT);
    assert_eq!(position(&bench.route(2, "PLAIN")), 1);
    assert_eq!(bench.pool.status(bench.now).agents_talking, 1);
}

#[test]
fn snapshot_parts_restore_what_the_pool_lost_and_its_end_removes_what_is_gone() {
    let mut bench = Bench::new();
    bench.ready("ann", ACCOUNT);
    bench.ready("bob", ACCOUNT);
    bench.route(1, "PLAIN");
    bench.route(2, "PLAIN");
    bench.established(2, "bob");
    bench.route(3, "PLAIN");
    bench.pass(1_000);
    bench.input(None, Some(switch(1)), InputBody::SnapshotBegin);
    let part = |number: u64, place, name: Option<&str>| domain::pool::SnapshotCall {
        place,
        agent: name.map(agent),
        call: call(&format!("call-{number}")),
        arrived_at: support::START.minus(30_000),
        line: "main".into(),
        caller: None,
        language: "en".into(),
    };
    use domain::pool::SnapshotPlace::{Connected, Queued};
    bench.input(
        None,
        Some(switch(1)),
        InputBody::SnapshotAgent(update("bob", SwitchAgentState::Busy, &[])),
    );
    bench.input(
        None,
        Some(switch(1)),
        InputBody::SnapshotAgent(update("cat", SwitchAgentState::Busy, ACCOUNT)),
    );
    bench.tell(3, InputBody::SnapshotCall(part(3, Queued, None)));
    bench.tell(2, InputBody::SnapshotCall(part(2, Connected, Some("bob"))));
    bench.tell(8, InputBody::SnapshotCall(part(8, Queued, None)));
    bench.tell(9, InputBody::SnapshotCall(part(9, Connected, Some("cat"))));
    assert_eq!(
        bench.input(None, Some(switch(1)), InputBody::SnapshotEnd),
        ReplyBody::Acknowledged
    );
    assert_eq!(
        bench.story(1).last().map(String::as_str),
        Some("closed"),
        "{:?}",
        bench.story(1)
    );
    assert_eq!(
        bench.story(2).last().map(String::as_str),
        Some("established bob callback=false")
    );
    assert_eq!(bench.story(8), ["offered", "queued 1 Recovered"]);
    assert_eq!(
        bench.story(9),
        ["offered", "assigned cat", "established cat callback=false"]
    );
    let status = bench.pool.status(bench.now);
    assert_eq!(
        (status.agents, status.agents_talking, status.waiting),
        (2, 2, 2)
    );
}

#[test]
fn a_restarted_switch_loses_its_calls_and_agents_but_no_callback() {
    let mut bench = Bench::new();
    bench.ready("ann", ACCOUNT);
    bench.route(1, "PLAIN");
    bench.established(1, "ann");
    bench.route(2, "PLAIN");
    bench.route(3, "PLAIN");
    bench.register(3, None);
    bench.cleared(3, Cause::NormalClearing);
    bench.route(4, "PLAIN");
    bench.register(4, None);
    for _ in 0..2 {
        assert_eq!(
            bench.input(None, Some(switch(2)), InputBody::SwitchBoot),
            ReplyBody::Acknowledged
        );
    }
    bench.pass(10_000);
    let status = bench.pool.status(bench.now);
    assert_eq!((status.agents, status.waiting), (0, 2), "{status:?}");
    assert_eq!(bench.story(1).last().map(String::as_str), Some("closed"));
    assert_eq!(bench.story(2).last().map(String::as_str), Some("closed"));
    assert_eq!(
        bench.story(4).last().map(String::as_str),
        Some("booked window=false")
    );
}
