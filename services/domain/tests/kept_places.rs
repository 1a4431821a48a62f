//! Places that are kept: transfers, virtual hold, windows, dropped legs.

mod support;

use domain::TimeMs;
use domain::pool::{
    Answer, CallbackEnd, CallbackStep, Cause, EventBody, InputBody, NoticeKind, ReplyBody,
    RouteInput, SwitchAgentState,
};
use support::{Bench, agent, call, contact, route, switch, update};

const ACCOUNT: &[(&str, u8)] = &[("account", 5)];
const OPERATOR: &[(&str, u8)] = &[("operator", 5)];

fn transfer(bench: &mut Bench, number: u64, from: &str, topic: &str, warm: bool) -> ReplyBody {
    let body = InputBody::Transfer {
        from: agent(from),
        topic: topic.into(),
        warm,
        authenticated: true,
    };
    bench.tell(number, body)
}

/// The callback's leg, answered by the caller.
fn callback_leg(bench: &mut Bench, number: u64, leg: &str) -> Answer {
    let input = RouteInput {
        call: call(leg),
        cross_ref: leg.into(),
        deadline: bench.now.plus(500),
        ..route(number, "PLAIN", support::START)
    };
    bench.route_with(number, input)
}

fn clear_leg(bench: &mut Bench, number: u64, leg: &str) {
    let mut over = support::cleared(
        number,
        Cause::CallCancelled,
        domain::pool::RoutedBy::Mesh,
        bench.now,
    );
    over.call = Some(call(leg));
    bench.tell(number, InputBody::Cleared(over));
}

#[test]
fn a_warm_transfer_keeps_the_first_agent_until_the_next_answers() {
    let mut bench = Bench::new();
    bench.ready("op", OPERATOR);
    bench.ready("ann", ACCOUNT);
    bench.route(1, "META_OPERATOR");
    bench.established(1, "op");
    bench.pass(5_000);
    assert_eq!(
        transfer(&mut bench, 1, "op", "PLAIN", true),
        ReplyBody::Acknowledged
    );
    assert_eq!(
        transfer(&mut bench, 1, "op", "PLAIN", true),
        ReplyBody::Acknowledged,
        "a repeat"
    );
    assert_eq!(bench.said(), ["transfer ann warm=true"]);
    assert_eq!(bench.pool.status(bench.now).agents_talking, 1);
    bench.delivered(1, "ann");
    bench.pass(2_000);
    bench.established(1, "ann");
    let expected = [
        "offered",
        "assigned op",
        "established op callback=false",
        "transfer META_OPERATOR PLAIN warm=true",
        "assigned ann",
        "delivered ann",
        "established ann callback=false",
        "transferred op ann",
        "disconnected op 7000",
    ];
    assert_eq!(bench.story(1), expected);
    bench.wrapped_up(1, "op");
    bench.pass(1_000);
    bench.cleared(1, Cause::NormalClearing);
    bench.wrapped_up(1, "ann");
    bench.pass(4_000);
    assert_eq!(
        bench.story(1)[9..],
        [
            "wrapped up op timed_out=false",
            "disconnected ann 1000",
            "wrapped up ann timed_out=false",
            "closed",
        ]
    );
}

#[test]
fn a_transferred_caller_stands_in_the_next_queue_by_first_arrival() {
    let mut bench = Bench::new();
    bench.ready("op", OPERATOR);
    bench.route(1, "META_OPERATOR");
    bench.established(1, "op");
    bench.pass(10_000);
    bench.route(2, "PLAIN");
    bench.pass(10_000);
    transfer(&mut bench, 1, "op", "PLAIN", false);
    assert_eq!(bench.said(), ["transfer q-plain warm=false"]);
    assert_eq!(
        bench.story(1)[3..],
        [
            "transfer META_OPERATOR PLAIN warm=false",
            "disconnected op 20000",
            "queued 1 Transfer",
        ]
    );
    bench.tell(1, InputBody::AtQueue);
    bench.ready("ann", ACCOUNT);
    match &bench.commands.last().expect("a deflect").body {
        domain::pool::CommandBody::Deflect(Answer::Agent { context, .. }) => {
            assert_eq!(
                (context.transfers, context.authenticated, context.waited_ms),
                (1, true, 20_000)
            );
            assert_eq!(context.topic, "PLAIN");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(bench.said(), ["deflect call-1 ann"]);
}

#[test]
fn a_warm_transfer_that_cannot_be_made_gives_the_caller_back_to_the_first_agent() {
    let mut bench = Bench::new();
    bench.ready("op", OPERATOR);
    bench.ready("ann", ACCOUNT);
    bench.route(1, "META_OPERATOR");
    bench.established(1, "op");
    transfer(&mut bench, 1, "op", "PLAIN", true);
    let command = bench.commands.last().expect("a transfer").id;
    bench.tell(
        1,
        InputBody::CommandDone {
            command,
            agent: Some(agent("ann")),
            failed: true,
        },
    );
    let status = bench.pool.status(bench.now);
    assert_eq!((status.agents_talking, status.agents_ready), (1, 1));
    bench.cleared(1, Cause::NormalClearing);
    assert_eq!(
        bench.story(1).last().map(String::as_str),
        Some("disconnected op 0")
    );
}

#[test]
fn only_the_agent_who_talks_may_transfer_and_only_to_a_known_topic() {
    let mut bench = Bench::new();
    bench.ready("op", OPERATOR);
    bench.ready("ann", ACCOUNT);
    bench.route(1, "META_OPERATOR");
    bench.established(1, "op");
    for (from, topic, field) in [
        ("ann", "PLAIN", "transfer.from_agent_id"),
        ("ghost", "PLAIN", "agent_id"),
        ("op", "NOTHING", "transfer.topic"),
    ] {
        match transfer(&mut bench, 1, from, topic, true) {
            ReplyBody::Refused(error) => assert_eq!(error.field, field),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(bench.story(1).len(), 3);
}

#[test]
fn a_call_that_the_switch_moves_by_itself_is_followed() {
    let mut bench = Bench::new();
    bench.ready("op", OPERATOR);
    bench.ready("ann", ACCOUNT);
    bench.route(1, "META_OPERATOR");
    bench.established(1, "op");
    for _ in 0..2 {
        bench.tell(
            1,
            InputBody::Moved {
                from: agent("op"),
                to: Some(agent("ann")),
            },
        );
        bench.established(1, "ann");
    }
    assert_eq!(
        bench.story(1)[3..],
        [
            "disconnected op 0",
            "assigned ann",
            "established ann callback=false",
            "transferred op ann",
        ]
    );
    bench.tell(
        1,
        InputBody::Moved {
            from: agent("ann"),
            to: None,
        },
    );
    bench.cleared(1, Cause::NormalClearing);
    bench.wrapped_up(1, "op");
    bench.wrapped_up(1, "ann");
    bench.pass(4_000);
    assert_eq!(bench.story(1).last().map(String::as_str), Some("closed"));
}

/// One busy agent; three callers wait, the second has taken a callback and hung up.
fn with_one_virtual() -> Bench {
    let mut bench = Bench::new();
    bench.ready("ann", ACCOUNT);
    bench.route(1, "PLAIN");
    bench.established(1, "ann");
    for number in 2..=4 {
        bench.pass(1_000);
        bench.route(number, "PLAIN");
    }
    assert_eq!(bench.register(3, None), ReplyBody::Acknowledged);
    assert_eq!(bench.register(3, None), ReplyBody::Acknowledged, "a repeat");
    bench.cleared(3, Cause::NormalClearing);
    bench
}

#[test]
fn virtual_hold_keeps_the_place_and_is_no_abandonment() {
    let bench = with_one_virtual();
    assert_eq!(
        bench.story(3),
        [
            "offered",
            "queued 2 Arrival",
            "offer hold=true windows=2",
            "booked window=false"
        ]
    );
    let status = bench.pool.status(bench.now);
    let queue = status
        .queues
        .iter()
        .find(|queue| &*queue.queue == "plain")
        .expect("there");
    assert_eq!((queue.waiting, queue.virtual_waiting), (2, 1));
}

#[test]
fn an_entry_that_reaches_an_agent_first_holds_the_agent_while_it_rings() {
    let mut bench = with_one_virtual();
    bench.cleared(1, Cause::NormalClearing);
    bench.wrapped_up(1, "ann");
    bench.serve(2, "ann");
    assert_eq!(bench.due, [(contact(3), true, 1)]);
    assert_eq!(bench.pool.status(bench.now).agents_held, 1);
    bench.progress(3, CallbackStep::Dialled, None, 2);
    bench.pass(10_000);
    bench.said();
    match callback_leg(&mut bench, 3, "leg-1") {
        Answer::Agent {
            agent: found,
            context,
            ..
        } => {
            assert_eq!(
                (found, context.callback_code.as_str()),
                (agent("ann"), "123456")
            );
        }
        other => panic!("{other:?}"),
    }
    bench.delivered(3, "ann");
    bench.pass(2_000);
    bench.established(3, "ann");
    let last = bench
        .events
        .iter()
        .rev()
        .find_map(|event| match event.body {
            EventBody::Established {
                callback,
                nuisance_hold_ms,
                agent_held_ms,
                waited_ms,
                ..
            } => Some((callback, nuisance_hold_ms, agent_held_ms, waited_ms)),
            _ => None,
        });
    // The clock ran from first arrival, two seconds after the start, to a person.
    assert_eq!(
        last,
        Some((
            true,
            2_000,
            10_000,
            bench.now.since(support::START.plus(2_000))
        ))
    );
    assert_eq!(
        bench.story(3)[4..],
        [
            "attempt 1 Dialled",
            "assigned ann",
            "delivered ann",
            "established ann callback=true",
            "callback ended Connected",
        ]
    );
    assert_eq!(bench.notices, [(contact(3), NoticeKind::Connected, 1)]);
    bench.pass(5_000);
    assert_eq!(bench.notices.len(), 2, "told again until acknowledged");
    bench.input(
        Some(contact(3)),
        None,
        InputBody::NoticeAcknowledged {
            kind: NoticeKind::Connected,
            turn: 1,
        },
    );
    let cancel = InputBody::CancelVirtual {
        end: CallbackEnd::Exhausted,
        report: 9,
    };
    bench.input(Some(contact(3)), None, cancel);
    bench.pass(20_000);
    assert_eq!(bench.notices.len(), 2);
    assert_eq!(
        bench
            .story(3)
            .iter()
            .filter(|event| event.starts_with("callback ended"))
            .count(),
        1
    );
}

#[test]
fn an_agent_is_held_for_the_ring_time_at_most_and_then_serves_the_next() {
    let mut bench = with_one_virtual();
    bench.cleared(1, Cause::NormalClearing);
    bench.wrapped_up(1, "ann");
    bench.serve(2, "ann");
    bench.ready("ann", &[]);
    bench.said();
    bench.pass(27_999);
    assert_eq!(bench.said(), Vec::<String>::new());
    bench.pass(1);
    assert_eq!(bench.said(), ["deflect call-4 ann"]);
    assert_eq!(bench.pool.status(bench.now).holds_expired, 1);
}

#[test]
fn a_missed_ring_keeps_the_place_until_the_next_attempt() {
    let mut bench = with_one_virtual();
    bench.cleared(1, Cause::NormalClearing);
    bench.wrapped_up(1, "ann");
    bench.serve(2, "ann");
    bench.said();
    let next_at = bench.now.plus(60_000);
    bench.progress(3, CallbackStep::NoAnswer, Some(next_at), 2);
    bench.progress(3, CallbackStep::NoAnswer, Some(next_at), 2);
    assert_eq!(
        bench.said(),
        ["deflect call-4 ann"],
        "the held agent goes on at once"
    );
    bench.established(4, "ann");
    bench.pass(1_000);
    bench.route(5, "PLAIN");
    bench.pass(60_000);
    bench.cleared(4, Cause::NormalClearing);
    bench.wrapped_up(4, "ann");
    assert_eq!(
        bench.due.last(),
        Some(&(contact(3), true, 2)),
        "its turn again, before who came later"
    );
    assert_eq!(bench.story(3)[4..], ["attempt 1 NoAnswer"]);
    let cancel = InputBody::CancelVirtual {
        end: CallbackEnd::Exhausted,
        report: 3,
    };
    bench.input(Some(contact(3)), None, cancel);
    assert_eq!(bench.story(3)[5..], ["callback ended Exhausted", "closed"]);
    assert_eq!(
        bench.said().last().map(String::as_str),
        Some("deflect call-5 ann")
    );
}

#[test]
fn with_many_agents_the_caller_is_dialled_before_an_agent_is_free() {
    let mut bench = Bench::new();
    for number in 0..200_u64 {
        bench.ready(&format!("a{number}"), ACCOUNT);
        bench.route(number, "PLAIN");
        bench.established(number, &format!("a{number}"));
    }
    for number in 200..260 {
        bench.pass(10);
        bench.route(number, "PLAIN");
    }
    bench.register(259, None);
    bench.cleared(259, Cause::NormalClearing);
    // Two hundred agents of ten minutes each: one frees every three seconds.
    bench.pass(10_000);
    assert_eq!(bench.due, [], "59 are ahead: three minutes");
    for number in 0..53 {
        bench.cleared(number, Cause::NormalClearing);
        bench.wrapped_up(number, &format!("a{number}"));
        bench.established(200 + number, &format!("a{number}"));
    }
    assert_eq!(
        bench.due.first(),
        Some(&(contact(259), false, 1)),
        "{:?}",
        bench.due
    );
    assert_eq!(bench.pool.status(bench.now).agents_held, 0);
    // The caller answers before an agent is free and holds, at the first place.
    for number in 253..257 {
        bench.cleared(number, Cause::CallCancelled);
    }
    match callback_leg(&mut bench, 259, "leg-1") {
        Answer::Queue(place) => assert!(
            place.position <= 3 && !place.offer_virtual_hold,
            "{place:?}"
        ),
        other => panic!("{other:?}"),
    }
    assert_eq!(
        bench.story(259).last().map(String::as_str),
        Some("queued 3 Callback")
    );
}

#[test]
fn a_due_turn_is_told_again_until_callback_acts() {
    let mut bench = Bench::new();
    bench.ready("ann", ACCOUNT);
    bench.ready("bob", ACCOUNT);
    bench.route(1, "PLAIN");
    bench.established(1, "ann");
    bench.route(2, "PLAIN");
    bench.established(2, "bob");
    bench.route(3, "PLAIN");
    bench.register(3, None);
    bench.cleared(3, Cause::NormalClearing);
    bench.cleared(1, Cause::NormalClearing);
    bench.wrapped_up(1, "ann");
    assert_eq!(bench.due, [(contact(3), true, 1)]);
    bench.pass(10_000);
    assert_eq!(bench.due, [(contact(3), true, 1); 3]);
    bench.progress(3, CallbackStep::Dialled, None, 2);
    bench.pass(17_000);
    assert_eq!(bench.due.len(), 3, "a turn in progress is not pressed");
}

#[test]
fn a_caller_who_answers_and_is_gone_before_a_person_came_keeps_the_place() {
    let mut bench = with_one_virtual();
    bench.pass(1_000);
    let waits = callback_leg(&mut bench, 3, "leg-1");
    assert!(matches!(waits, Answer::Queue(_)), "{waits:?}");
    clear_leg(&mut bench, 3, "call-3");
    assert_eq!(bench.notices, [], "the first leg's end is old news");
    clear_leg(&mut bench, 3, "leg-1");
    assert_eq!(bench.notices, [(contact(3), NoticeKind::LegLost, 0)]);
    assert!(
        !bench
            .story(3)
            .iter()
            .any(|event| event.starts_with("abandoned"))
    );
    bench.route(5, "PLAIN");
    bench.pass(60_000);
    bench.cleared(1, Cause::NormalClearing);
    bench.wrapped_up(1, "ann");
    bench.serve(2, "ann");
    assert_eq!(
        bench.due.last(),
        Some(&(contact(3), true, 1)),
        "due again after the policy's spacing"
    );
}

#[test]
fn a_window_joins_the_line_at_its_start_with_the_first_arrival() {
    let mut bench = Bench::new();
    bench.ready("ann", ACCOUNT);
    bench.route(1, "PLAIN");
    bench.established(1, "ann");
    bench.route(2, "PLAIN");
    let from = bench.now.plus(3_600_000);
    bench.register(2, Some((from, from.plus(1_800_000))));
    bench.cleared(2, Cause::NormalClearing);
    assert_eq!(
        bench.story(2).last().map(String::as_str),
        Some("booked window=true")
    );
    bench.cleared(1, Cause::NormalClearing);
    bench.wrapped_up(1, "ann");
    assert_eq!(bench.due, [], "not before the window");
    bench.route(3, "PLAIN");
    bench.established(3, "ann");
    bench.pass(3_599_000);
    bench.route(4, "PLAIN");
    bench.pass(1_000);
    bench.cleared(3, Cause::NormalClearing);
    bench.wrapped_up(3, "ann");
    assert_eq!(
        bench.due,
        [(contact(2), true, 1)],
        "before who arrived an hour later"
    );
}

#[test]
fn a_booking_that_comes_just_after_the_caller_hung_up_is_kept() {
    let mut bench = Bench::new();
    bench.ready("ann", ACCOUNT);
    bench.route(1, "PLAIN");
    bench.established(1, "ann");
    bench.route(2, "PLAIN");
    bench.route(3, "PLAIN");
    bench.cleared(2, Cause::CallCancelled);
    bench.cleared(3, Cause::CallCancelled);
    bench.pass(2_000);
    assert_eq!(bench.register(2, None), ReplyBody::Acknowledged);
    bench.pass(5_000);
    assert_eq!(
        bench.story(2).last().map(String::as_str),
        Some("booked window=false")
    );
    assert_eq!(
        bench.story(3)[2..],
        [
            "offer hold=true windows=2",
            "abandoned 0 ringing=false",
            "closed"
        ]
    );
    match bench.register(3, None) {
        ReplyBody::Refused(error) => assert_eq!(error.field, "contact_id"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_booking_rebuilds_a_contact_that_the_pool_lost() {
    let mut bench = Bench::new();
    assert_eq!(bench.register(7, None), ReplyBody::Acknowledged);
    assert_eq!(bench.story(7), ["offered", "booked window=false"]);
    bench.ready("ann", ACCOUNT);
    assert_eq!(
        bench.due.last().map(|due| (due.0, due.2)),
        Some((contact(7), 1))
    );
    let cancel = InputBody::CancelVirtual {
        end: CallbackEnd::Cancelled,
        report: 2,
    };
    bench.input(Some(contact(7)), None, cancel);
    assert_eq!(bench.story(7)[2..], ["callback ended Cancelled", "closed"]);
}

#[test]
fn windows_lie_inside_callable_hours_of_the_line() {
    let mut bench = Bench::new();
    // 20:10 in New York: one window until 21:00 is left, the next begins at eight tomorrow.
    bench.now = TimeMs(support::START.0 + 10 * 3_600_000 + 600_000);
    bench.ready("ann", ACCOUNT);
    bench.route(1, "PLAIN");
    bench.established(1, "ann");
    match bench.route(2, "PLAIN") {
        Answer::Queue(place) => {
            let starts: Vec<u64> = place
                .windows
                .iter()
                .map(|window| window.from.since(support::START) / 60_000)
                .collect();
            assert_eq!(starts, [10 * 60 + 30, 22 * 60]);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_booking_while_an_agent_is_on_the_way_loses_neither() {
    let mut bench = Bench::new();
    bench.ready("ann", ACCOUNT);
    bench.route(1, "PLAIN");
    bench.register(1, None);
    bench.established(1, "ann");
    assert_eq!(
        bench.story(1)[2..],
        [
            "booked window=false",
            "established ann callback=false",
            "callback ended Connected"
        ]
    );
    bench.ready("bob", ACCOUNT);
    bench.route(2, "PLAIN");
    bench.register(2, None);
    bench.cleared(2, Cause::NormalClearing);
    bench.pass(1_000);
    assert!(
        !bench
            .story(2)
            .iter()
            .any(|event| event.starts_with("abandoned") || event == "closed"),
        "{:?}",
        bench.story(2)
    );
    assert_eq!(bench.due.last().map(|due| due.0), Some(contact(2)));
}

#[test]
fn an_agent_of_another_switch_boot_is_told_under_the_new_one() {
    let mut bench = Bench::new();
    bench.ready("ann", ACCOUNT);
    let again = update("ann", SwitchAgentState::Ready, ACCOUNT);
    bench.input(None, Some(switch(2)), InputBody::Agent(again));
    bench.input(None, Some(switch(2)), InputBody::SwitchBoot);
    bench.route(1, "PLAIN");
    bench.delivered(1, "ann");
    bench.pass(20_000);
    assert_eq!(
        bench.commands.first().map(|command| command.target.clone()),
        Some(switch(2))
    );
}
