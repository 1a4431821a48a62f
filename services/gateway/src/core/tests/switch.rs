//! Sessions, commands and dials.

use proto::cti::v1::{
    CallRef, CommandError, CommandResult, DialOutcome, SystemCondition, SystemStatus, command,
    mesh_dialogue_message as mesh, switch_dialogue_message::Body,
};
use proto::routing::v1::{SetAgentState, SwitchCommand, switch_command};
use proto::{callback, routing as wire};

use super::{POOL, Rig, agent_answer};
use crate::core::Input;

#[test]
fn frames_are_numbered_and_repeats_gaps_and_disorder_are_told_apart() {
    let mut rig = Rig::ready(|_| ());
    let request = |cross_ref: &str| vec![Body::Request(Rig::request(cross_ref))];
    rig.say_at(1, 2, request("x2"));
    rig.say_at(1, 2, request("x2b"));
    assert_eq!(rig.metrics.frames_dropped.get(), 1);
    rig.say_at(1, 5, request("x5"));
    rig.say_at(1, 4, request("x4"));
    rig.say_at(1, 4, request("x4b"));
    rig.say_at(1, 6, request("x6"));
    let refusals: Vec<(String, String, String)> = rig
        .heard(1)
        .into_iter()
        .filter_map(|body| match body {
            mesh::Body::Refusal(refusal) => Some((refusal.field, refusal.limit, refusal.value)),
            _ => None,
        })
        .collect();
    let told =
        |limit: &str, value: &str| ("link_seq".to_owned(), limit.to_owned(), value.to_owned());
    assert_eq!(refusals, [told("3", "5"), told("6", "4")]);
    let asked: Vec<String> = rig.inputs[&100]
        .iter()
        .filter_map(|input| match &input.body {
            Some(wire::v1::input::Body::Route(route)) => Some(route.cross_ref_id.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(
        asked,
        ["x2", "x5", "x4", "x6"],
        "nothing accepted is lost, nothing is taken twice"
    );
    let frames: Vec<u64> = rig.dialogues[&1]
        .iter()
        .map(|frame| frame.link_seq)
        .collect();
    assert_eq!(frames, (1..=frames.len() as u64).collect::<Vec<_>>());
}

#[test]
fn a_session_that_resumes_gets_what_it_missed_and_goes_on() {
    let mut rig = Rig::ready(|_| ());
    let session = rig.dialogues[&1][0]
        .welcome
        .clone()
        .expect("welcome")
        .session_id;
    for cross_ref in ["sent", "lost", "later"] {
        rig.ask(1, cross_ref);
    }
    let asked: Vec<u64> = rig
        .take_inputs(100)
        .iter()
        .filter(|i| matches!(i.body, Some(wire::v1::input::Body::Route(_))))
        .map(|i| i.request_id)
        .collect();
    rig.reply(100, asked[0], agent_answer("a1"));
    let received = rig.dialogues[&1].last().expect("frame").link_seq;
    rig.reply(100, asked[1], agent_answer("a2"));
    rig.give(Input::Closed { link: 1 });
    rig.reply(100, asked[2], agent_answer("a3"));
    rig.pass(100);
    assert_eq!(rig.open_at(2, &session, received, 5), session);
    let decisions: Vec<String> = rig
        .heard(2)
        .into_iter()
        .map(|body| match body {
            mesh::Body::Select(select) => select.decision_id,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(decisions, ["d-a2", "d-a3"]);
    let welcome = rig.dialogues[&2][0].welcome.clone().expect("welcome");
    assert!(!welcome.snapshot_required);
    assert_eq!(welcome.initial_credit, 1_024);
    assert_eq!(rig.dialogues[&2][0].link_seq, received + 2);
    // A frame was lost on the way in: resumed, but with a snapshot.
    rig.give(Input::Closed { link: 2 });
    rig.open_at(3, &session, 100, 9);
    assert!(
        rig.dialogues[&3][0]
            .welcome
            .clone()
            .expect("welcome")
            .snapshot_required
    );
}

#[test]
fn an_answer_that_no_link_takes_in_time_is_taken_back() {
    let mut rig = Rig::ready(|_| ());
    rig.ask(1, "x1");
    let (request, _) = rig.last_route(100);
    rig.give(Input::Closed { link: 1 });
    rig.reply(100, request, agent_answer("a1"));
    rig.take_inputs(100);
    rig.pass(450);
    let inputs = rig.take_inputs(100);
    assert!(
        matches!(inputs[0].body, Some(wire::v1::input::Body::RouteFailed(_))),
        "{inputs:?}"
    );
}

#[test]
fn a_session_is_forgotten_after_its_delay_and_not_before() {
    let mut rig = Rig::ready(|config| config.session_cleanup_delay_ms = 2_000);
    let session = rig.dialogues[&1][0]
        .welcome
        .clone()
        .expect("welcome")
        .session_id;
    rig.give(Input::Closed { link: 1 });
    rig.pass(1_500);
    assert_eq!(rig.open_at(2, &session, 0, 2), session);
    rig.give(Input::Closed { link: 2 });
    rig.pass(2_500);
    assert_ne!(rig.open_at(3, &session, 0, 1), session);
}

#[test]
fn heartbeats_go_both_ways_and_four_missed_end_the_link() {
    let mut rig = Rig::ready(|config| config.system_status_timer_ms = 1_000);
    for _ in 0..6 {
        rig.pass(1_000);
        rig.say(
            1,
            vec![Body::Status(SystemStatus {
                condition: SystemCondition::Normal.into(),
            })],
        );
    }
    assert!(rig.closed.is_empty());
    let beats = rig.dialogues[&1].iter().flat_map(|frame| &frame.messages).filter(|message| {
        matches!(&message.body, Some(mesh::Body::Status(status)) if status.condition() == SystemCondition::Normal)
    });
    assert!(beats.count() >= 5);
    rig.pass(4_200);
    assert_eq!(
        rig.closed,
        [(1, "four heartbeats of the switch were missed")]
    );
}

#[test]
fn a_drain_sends_new_calls_elsewhere_and_finishes_the_running_ones() {
    let mut rig = Rig::ready(|_| ());
    rig.ask(1, "x1");
    rig.give(Input::Drain);
    let last = rig.dialogues[&1]
        .last()
        .expect("frame")
        .messages
        .last()
        .expect("message")
        .clone();
    assert!(
        matches!(last.body, Some(mesh::Body::Status(status)) if status.condition() == SystemCondition::Disabled)
    );
    assert!(rig.core.health().unfinished > 0);
    let (request, _) = rig.last_route(100);
    rig.reply(100, request, agent_answer("a1"));
    for input in rig.take_inputs(100) {
        rig.acknowledge(100, input.request_id);
    }
    assert_eq!(rig.core.health().unfinished, 0);
}

fn command(id: u64, boot: u64) -> SwitchCommand {
    SwitchCommand {
        command_id: id,
        pool: POOL.to_owned(),
        switch_id: "sw1".to_owned(),
        boot_id: boot,
        body: Some(switch_command::Body::SetAgentState(SetAgentState {
            agent_id: "a1".to_owned(),
            state: 2,
            reason: "no answer".to_owned(),
        })),
        ..SwitchCommand::default()
    }
}

fn send(rig: &mut Rig, commands: Vec<SwitchCommand>) {
    let frame = wire::v1::LinkResponse {
        commands,
        ..Default::default()
    };
    rig.give(Input::Routing { link: 100, frame });
}

fn outcomes(rig: &Rig) -> Vec<(u64, u32)> {
    let frames = &rig.routing_frames[&100];
    frames
        .iter()
        .flat_map(|frame| &frame.command_outcomes)
        .map(|outcome| (outcome.command_id, outcome.error))
        .collect()
}

#[test]
fn commands_reach_the_attached_switch_of_their_boot_and_their_outcome_returns() {
    let mut rig = Rig::ready(|_| ());
    send(&mut rig, vec![command(1, 7)]);
    assert_eq!(
        outcomes(&rig),
        [(1, CommandError::ResourceBusy as u32)],
        "not attached"
    );
    rig.give(Input::CommandsOpened {
        link: 10,
        hello: Rig::hello("", 0),
    });
    let hello = rig.routing_frames[&100]
        .iter()
        .rev()
        .find_map(|frame| frame.hello.clone())
        .expect("hello");
    assert_eq!(hello.attached_switches, ["sw1"]);
    send(&mut rig, vec![command(2, 7), command(3, 6)]);
    let sent = rig.commands[&10].clone();
    assert_eq!(sent.len(), 1, "a command for another boot is dropped");
    assert!(matches!(
        sent[0].body,
        Some(command::Body::SetAgentState(_))
    ));
    let result = CommandResult {
        invoke_id: sent[0].invoke_id,
        ..CommandResult::default()
    };
    rig.give(Input::Results {
        link: 10,
        results: vec![result],
        malformed: 0,
    });
    assert_eq!(
        outcomes(&rig)[1..],
        [(3, CommandError::InvalidCall as u32), (2, 0)]
    );
    rig.give(Input::Closed { link: 10 });
    let hello = rig.routing_frames[&100]
        .iter()
        .rev()
        .find_map(|frame| frame.hello.clone())
        .expect("hello");
    assert!(hello.attached_switches.is_empty());
}

fn dial(rig: &mut Rig, attempt: u32, contact: u128) {
    let number = rig.core.keys.number("+12065551234").expect("number");
    let sealed = rig.core.keys.encrypt(&number, domain::ContactId(contact));
    let dial = callback::v1::Dial {
        contact_id: contact.to_be_bytes().to_vec().into(),
        attempt,
        pool: POOL.to_owned(),
        switch_id: "sw1".to_owned(),
        number: sealed,
        line: "individual".to_owned(),
        ring_ms: 20_000,
        code: "123456".to_owned(),
        language: "es".to_owned(),
        traceparent: String::new(),
    };
    rig.give(Input::Callback {
        link: 300,
        frame: callback::v1::LinkResponse {
            dials: vec![dial],
            ..Default::default()
        },
    });
}

fn dial_results(rig: &Rig) -> Vec<(u32, u32, bool)> {
    let frames = &rig.callback_frames[&300];
    frames
        .iter()
        .flat_map(|frame| &frame.dial_results)
        .map(|result| (result.attempt, result.outcome, result.not_placed))
        .collect()
}

#[test]
fn a_dial_is_placed_once_with_the_number_in_the_clear_for_the_switch_only() {
    let mut rig = Rig::ready(|_| ());
    rig.give(Input::CallbackUp { link: 300 });
    dial(&mut rig, 1, 5);
    assert_eq!(dial_results(&rig), [(1, 0, true)], "no switch is attached");
    rig.give(Input::CommandsOpened {
        link: 10,
        hello: Rig::hello("", 0),
    });
    dial(&mut rig, 1, 5);
    dial(&mut rig, 1, 5);
    let sent = rig.commands[&10].clone();
    assert_eq!(sent.len(), 1, "a repeat is the same attempt");
    let Some(command::Body::MakeCall(call)) = &sent[0].body else {
        panic!("not a call")
    };
    assert_eq!(
        call.called_device.as_ref().expect("called").id,
        "12065551234"
    );
    assert_eq!(
        call.calling_device.as_ref().expect("calling").id,
        "8005550191"
    );
    assert_eq!(
        (call.ring_ms, call.callback_code.as_str()),
        (20_000, "123456")
    );
    let result = CommandResult {
        invoke_id: sent[0].invoke_id,
        call: Some(CallRef {
            call_id: "out".to_owned(),
            ..CallRef::default()
        }),
        dial_outcome: DialOutcome::Voicemail.into(),
        ..CommandResult::default()
    };
    rig.give(Input::Results {
        link: 10,
        results: vec![result],
        malformed: 0,
    });
    dial(&mut rig, 1, 5);
    let voicemail = (1, DialOutcome::Voicemail as u32, false);
    assert_eq!(
        dial_results(&rig)[1..],
        [voicemail, voicemail],
        "asked again, told again"
    );
    assert_eq!(rig.commands[&10].len(), 1);
    assert!(!rig.leaks.contains("2065551234"));
}
