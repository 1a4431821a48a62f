//! The switch alone, in virtual time: what it asks, when it decides without the mesh, what
//! it sends again.

use bytes::Bytes;
use proto::cti::v1 as cti;

use super::{Config, Core, Frame, Happening, NewCall, StreamKind};
use crate::record::{DefaultWhy, Entry, Leg, Release};
use crate::time::{MILLISECOND, SECOND, Us};

const T0: Us = 1_000 * SECOND;
const TIMEOUT: Us = 500 * MILLISECOND;

struct Bench {
    core: Core,
    now: Us,
}

fn bench(nodes: usize) -> Bench {
    let names: Vec<String> = (0..nodes).map(|node| format!("gateway-{node}:1")).collect();
    let config = Config {
        switch_id: "switch".into(),
        boot_id: 7,
        reply_timeout: TIMEOUT,
        ring_max: 4 * SECOND,
        announcement: 200 * MILLISECOND,
        callback_lines: [("8005550191".to_owned(), "8005550101".to_owned())].into(),
    };
    let mut bench = Bench {
        core: Core::new(config, &names),
        now: T0,
    };
    for node in 0..nodes {
        bench.connect(node, 100);
    }
    bench
}

impl Bench {
    fn welcome(credit: u32) -> cti::Welcome {
        cti::Welcome {
            session_id: "s".into(),
            system_status_timer_ms: 5000,
            session_cleanup_delay_ms: 60_000,
            initial_credit: credit,
            ..Default::default()
        }
    }

    fn connect(&mut self, node: usize, credit: u32) {
        for kind in StreamKind::ALL {
            let frame = self.core.opened(node, kind);
            let hello = match frame {
                Frame::Dialogues(frame) => frame.hello,
                Frame::Events(frame) => frame.hello,
                Frame::Commands(frame) => frame.hello,
            };
            assert_eq!(hello.unwrap().boot_id, 7);
        }
        let welcome = Some(Self::welcome(credit));
        self.core.dialogues(
            self.now,
            node,
            cti::DialoguesResponse {
                welcome: welcome.clone(),
                ..Default::default()
            },
        );
        self.core.event_acks(
            self.now,
            node,
            cti::EventsResponse {
                welcome: welcome.clone(),
                ..Default::default()
            },
        );
        self.core.commands(
            self.now,
            node,
            cti::CommandsResponse {
                welcome,
                ..Default::default()
            },
        );
    }

    fn lose(&mut self, node: usize) {
        for kind in StreamKind::ALL {
            self.core.lost(self.now, node, kind);
        }
    }

    fn call(&mut self) -> u64 {
        self.call_with(Bytes::new())
    }

    fn call_with(&mut self, correlator: Bytes) -> u64 {
        let new = NewCall {
            caller: 1,
            intended: self.now,
            leg: Leg::New,
            line: "8005550101".into(),
            number: Some("+88381000000001".into()),
            language: "en".into(),
            utterance: "where is my refund".into(),
            digits: String::new(),
            authenticated: false,
            correlator,
            topic: "REF_STATUS".into(),
        };
        self.core.call_arrives(self.now, new)
    }

    fn agent(&mut self, name: &str) -> usize {
        let phone = self.core.agent_logs_on(
            self.now,
            name,
            vec![("refund".into(), 7)],
            vec!["en".into()],
        );
        self.core
            .set_state(self.now, phone, cti::AgentState::Ready, "");
        phone
    }

    fn pass(&mut self, time: Us) {
        self.now += time;
        self.core.tick(self.now);
    }

    fn sent(&mut self, node: usize) -> Vec<cti::switch_dialogue_message::Body> {
        let mut bodies = Vec::new();
        while let Some(Frame::Dialogues(frame)) =
            self.core.next_frame(self.now, node, StreamKind::Dialogues)
        {
            bodies.extend(
                frame
                    .messages
                    .into_iter()
                    .filter_map(|message| message.body),
            );
        }
        bodies
    }

    fn requests(&mut self, node: usize) -> Vec<cti::RouteRequest> {
        let bodies = self.sent(node).into_iter();
        bodies
            .filter_map(|body| {
                if let cti::switch_dialogue_message::Body::Request(request) = body {
                    Some(request)
                } else {
                    None
                }
            })
            .collect()
    }

    fn ends(&mut self, node: usize) -> Vec<(String, cti::RouteEndError)> {
        let bodies = self.sent(node).into_iter();
        bodies
            .filter_map(|body| {
                if let cti::switch_dialogue_message::Body::End(end) = body {
                    Some((end.cross_ref_id.clone(), end.error()))
                } else {
                    None
                }
            })
            .collect()
    }

    fn answer(&mut self, node: usize, body: cti::mesh_dialogue_message::Body) {
        let messages = vec![cti::MeshDialogueMessage { body: Some(body) }];
        self.core.dialogues(
            self.now,
            node,
            cti::DialoguesResponse {
                messages,
                ..Default::default()
            },
        );
    }

    fn select_agent(&mut self, node: usize, reference: &str, agent: &str) {
        let treatment = cti::route_select::Treatment::Agent(cti::AgentTreatment {
            agent_id: agent.into(),
            context: None,
        });
        self.select(node, reference, &format!("device-{agent}"), treatment);
    }

    fn select_queue(&mut self, node: usize, reference: &str) {
        let treatment = cti::route_select::Treatment::Queue(cti::QueueTreatment {
            queue: "refund".into(),
            position: 1,
            ..Default::default()
        });
        self.select(node, reference, "7104", treatment);
    }

    fn select(
        &mut self,
        node: usize,
        reference: &str,
        device: &str,
        treatment: cti::route_select::Treatment,
    ) {
        let select = cti::RouteSelect {
            cross_ref_id: reference.into(),
            route_selected: Some(cti::Device { id: device.into() }),
            correlator_data: correlator(9),
            treatment: Some(treatment),
            ..Default::default()
        };
        self.answer(node, cti::mesh_dialogue_message::Body::Select(select));
    }

    fn command(&mut self, node: usize, call: u64, body: cti::command::Body) -> cti::CommandError {
        let call = (call > 0).then(|| super::dialogue::call_ref(7, call));
        let command = cti::Command {
            invoke_id: 1,
            call,
            correlator_data: correlator(9),
            body: Some(body),
            ..Default::default()
        };
        self.core.commands(
            self.now,
            node,
            cti::CommandsResponse {
                commands: vec![command],
                ..Default::default()
            },
        );
        match self.core.next_frame(self.now, node, StreamKind::Commands) {
            Some(Frame::Commands(frame)) => frame.results[0].error(),
            _ => cti::CommandError::Unspecified,
        }
    }

    fn events(&mut self, node: usize) -> Vec<cti::SwitchEvent> {
        let mut events = Vec::new();
        while let Some(Frame::Events(frame)) =
            self.core.next_frame(self.now, node, StreamKind::Events)
        {
            events.extend(frame.events);
        }
        events
    }

    fn happenings(&mut self) -> Vec<Happening> {
        let mut happenings = Vec::new();
        self.core.take_happenings(&mut happenings);
        happenings
    }

    fn record(&mut self) -> Vec<Entry> {
        let mut lines = Vec::new();
        self.core.take_record(&mut lines);
        lines.into_iter().map(|line| line.entry).collect()
    }

    fn defaults(&mut self) -> Vec<(DefaultWhy, bool)> {
        let record = self.record().into_iter();
        record
            .filter_map(|entry| {
                if let Entry::Default { why, link_up, .. } = entry {
                    Some((why, link_up))
                } else {
                    None
                }
            })
            .collect()
    }
}

fn correlator(contact: u128) -> Bytes {
    use prost::Message as _;
    let correlator = cti::Correlator {
        version: 1,
        contact_id: contact.to_be_bytes().to_vec().into(),
        pool: "tax-line".into(),
        blocked: 0,
        ..Default::default()
    };
    correlator.encode_to_vec().into()
}

#[test]
fn a_request_without_an_answer_is_default_routed_at_its_timeout_and_the_mesh_is_told() {
    let mut bench = bench(1);
    bench.call();
    let requests = bench.requests(0);
    assert_eq!(
        (
            requests.len(),
            requests[0].reply_timeout_ms,
            requests[0].age_ms
        ),
        (1, 500, 0)
    );
    bench.pass(TIMEOUT - 1);
    assert!(bench.defaults().is_empty());
    bench.pass(1);
    assert_eq!(bench.defaults(), [(DefaultWhy::Timer, true)]);
    assert_eq!(
        bench.ends(0),
        [("x1.1".to_owned(), cti::RouteEndError::RouteingTimerExpired)]
    );
    bench.pass(SECOND);
    let cleared = bench.events(0).pop().unwrap();
    let Some(cti::switch_event::Body::Cleared(cleared)) = cleared.body else {
        panic!("{cleared:?}")
    };
    assert_eq!(cleared.routed_by(), cti::RoutedBy::DefaultTimer);
    assert_eq!(cleared.cross_ref_id, "x1.1");
}

#[test]
fn without_any_link_the_default_route_is_taken_after_half_the_timeout() {
    let mut bench = bench(1);
    bench.lose(0);
    bench.record();
    bench.call();
    bench.pass(TIMEOUT / 2);
    assert_eq!(bench.defaults(), [(DefaultWhy::NoLink, false)]);
}

#[test]
fn out_of_credit_a_request_waits_and_goes_out_with_its_age_when_credit_comes() {
    let mut bench = bench(1);
    bench.lose(0);
    bench.connect(0, 1);
    bench.call();
    bench.call();
    assert_eq!(bench.requests(0).len(), 1);
    bench.pass(100 * MILLISECOND);
    bench.core.dialogues(
        bench.now,
        0,
        cti::DialoguesResponse {
            credit: 1,
            ..Default::default()
        },
    );
    let requests = bench.requests(0);
    assert_eq!((requests.len(), requests[0].age_ms), (1, 100));
}

#[test]
fn a_lost_link_moves_the_question_to_the_next_node_with_the_same_reference() {
    let mut bench = bench(2);
    let call = bench.call();
    let asked = (0..2)
        .find(|node| !bench.requests(*node).is_empty())
        .unwrap();
    bench.pass(50 * MILLISECOND);
    bench.lose(asked);
    let again = bench.requests(1 - asked);
    assert_eq!(
        (again[0].cross_ref_id.as_str(), again[0].age_ms),
        (format!("x{call}.1").as_str(), 50)
    );
    bench.select_queue(1 - asked, &again[0].cross_ref_id);
    bench.pass(SECOND);
    assert!(bench.defaults().is_empty());
    assert_eq!(bench.core.counts().waiting, 1);
}

#[test]
fn three_timeouts_in_a_row_send_new_calls_to_the_next_node() {
    let mut bench = bench(2);
    let mut on_first = Vec::new();
    while on_first.len() < 3 {
        let call = bench.call();
        if bench.requests(0).is_empty() {
            bench.select_queue(1, &format!("x{call}.1"));
        } else {
            on_first.push(call);
        }
        bench.requests(1);
    }
    bench.pass(TIMEOUT);
    for _ in 0..20 {
        let call = bench.call();
        assert!(bench.requests(0).is_empty());
        bench.select_queue(1, &format!("x{call}.1"));
    }
    bench.pass(3 * SECOND);
    let tried_again = (0..20).any(|_| {
        let call = bench.call();
        let on_first = !bench.requests(0).is_empty();
        bench.select_queue(usize::from(!on_first), &format!("x{call}.1"));
        on_first
    });
    assert!(tried_again, "the node is never tried again");
}

#[test]
fn a_late_answer_is_refused_and_changes_nothing() {
    let mut bench = bench(1);
    bench.agent("a1");
    let call = bench.call();
    bench.pass(TIMEOUT);
    bench.sent(0);
    bench.select_agent(0, &format!("x{call}.1"), "a1");
    assert_eq!(
        bench.ends(0),
        [(format!("x{call}.1"), cti::RouteEndError::InvalidCrossRefId)]
    );
    assert!(!bench.core.has_call(0));
    assert_eq!(bench.core.counts().late, 1);
}

#[test]
fn the_same_answer_from_a_second_node_closes_the_dialogue_there_without_an_error() {
    let mut bench = bench(2);
    bench.agent("a1");
    let call = bench.call();
    let asked = (0..2)
        .find(|node| !bench.requests(*node).is_empty())
        .unwrap();
    bench.core.lost(bench.now, asked, StreamKind::Dialogues);
    bench.requests(1 - asked);
    bench.select_agent(1 - asked, &format!("x{call}.1"), "a1");
    bench.sent(1 - asked);
    bench.record();
    bench.connect(asked, 100);
    bench.select_agent(asked, &format!("x{call}.1"), "a1");
    assert!(bench.record().contains(&Entry::SecondAnswer {
        call,
        dialogue: 1,
        same: true
    }));
    assert_eq!(
        bench.ends(asked),
        [(format!("x{call}.1"), cti::RouteEndError::Unspecified)]
    );
}

#[test]
fn a_device_that_is_out_of_order_asks_for_another_on_the_same_dialogue() {
    let mut bench = bench(1);
    let phone = bench.agent("a1");
    bench.agent("a2");
    bench.core.set_out_of_order(phone);
    let call = bench.call();
    bench.sent(0);
    bench.select_agent(0, &format!("x{call}.1"), "a1");
    let sent = bench.sent(0);
    let Some(cti::switch_dialogue_message::Body::Reroute(reroute)) = sent.first() else {
        panic!("{sent:?}")
    };
    assert_eq!(
        (reroute.cross_ref_id.as_str(), reroute.cause()),
        ("x1.1", cti::Cause::DestOutOfOrder)
    );
    bench.select_agent(0, "x1.1", "a2");
    assert!(matches!(
        bench.happenings().last(),
        Some(Happening::Rings { phone: 1, .. })
    ));
    bench.pass(TIMEOUT);
    assert!(bench.defaults().is_empty());
}

#[test]
fn a_phone_that_holds_a_call_is_not_rung_again_and_the_record_says_so() {
    let mut bench = bench(1);
    bench.agent("a1");
    let first = bench.call();
    bench.select_agent(0, &format!("x{first}.1"), "a1");
    let second = bench.call();
    bench.record();
    bench.select_agent(0, &format!("x{second}.1"), "a1");
    assert!(
        bench
            .record()
            .iter()
            .any(|entry| matches!(entry, Entry::AgentBusy { holds, .. } if *holds == first))
    );
}

#[test]
fn a_conversation_is_told_event_by_event_and_ends_with_one_cleared() {
    let mut bench = bench(1);
    let phone = bench.agent("a1");
    let call = bench.call();
    bench.select_agent(0, &format!("x{call}.1"), "a1");
    bench.pass(SECOND);
    bench.core.agent_answers(bench.now, phone);
    bench.pass(SECOND);
    bench.core.agent_ends(bench.now, phone, None);
    bench
        .core
        .wrap_up(bench.now, phone, cti::Disposition::Resolved, String::new());
    bench
        .core
        .set_state(bench.now, phone, cti::AgentState::Ready, "");
    let events = bench.events(0);
    let names: Vec<&str> = events
        .iter()
        .map(|event| match event.body.as_ref().unwrap() {
            cti::switch_event::Body::Agent(_) => "agent",
            cti::switch_event::Body::Delivered(_) => "delivered",
            cti::switch_event::Body::Established(_) => "established",
            cti::switch_event::Body::Cleared(_) => "cleared",
            cti::switch_event::Body::WrapUp(_) => "wrap-up",
            _ => "other",
        })
        .collect();
    assert_eq!(
        names,
        [
            "agent",
            "agent",
            "delivered",
            "established",
            "cleared",
            "agent",
            "wrap-up",
            "agent"
        ]
    );
    assert!(events.iter().map(|event| event.event_seq).eq(1..=8));
    let wrap_up = &events[6];
    assert_eq!(
        (
            wrap_up.correlator_data.clone(),
            wrap_up.call.clone().unwrap().call_id
        ),
        (correlator(9), format!("c{call}"))
    );
    assert_eq!(bench.core.live_calls(), 0);
}

#[test]
fn events_that_are_not_acknowledged_go_to_the_other_node_when_the_link_is_lost() {
    let mut bench = bench(2);
    bench.agent("a1");
    assert_eq!(bench.events(0).len(), 2);
    assert!(bench.events(1).is_empty());
    bench.core.event_acks(
        bench.now,
        0,
        cti::EventsResponse {
            acknowledged_event_seq: 1,
            ..Default::default()
        },
    );
    bench.lose(0);
    let again = bench.events(1);
    assert_eq!(
        again
            .iter()
            .map(|event| event.event_seq)
            .collect::<Vec<_>>(),
        [2]
    );
}

#[test]
fn a_ring_in_vain_puts_the_call_back_and_the_next_agent_is_tried_on_command() {
    let mut bench = bench(1);
    bench.agent("a1");
    bench.agent("a2");
    let call = bench.call();
    bench.select_agent(0, &format!("x{call}.1"), "a1");
    bench.pass(4 * SECOND);
    assert!(bench.happenings().contains(&Happening::Released {
        call,
        phone: 0,
        why: Release::NotAnswered
    }));
    let deflect = |agent: &str| {
        cti::command::Body::Deflect(cti::DeflectCall {
            new_destination: None,
            treatment: Some(cti::deflect_call::Treatment::Agent(cti::AgentTreatment {
                agent_id: agent.into(),
                context: None,
            })),
        })
    };
    assert_eq!(
        bench.command(0, call, deflect("nobody")),
        cti::CommandError::InvalidDestination
    );
    assert_eq!(
        bench.command(0, call, deflect("a2")),
        cti::CommandError::Unspecified
    );
    assert_eq!(
        bench.command(0, call, deflect("a2")),
        cti::CommandError::Unspecified,
        "a repeat does no harm"
    );
    assert!(bench.core.has_call(1));
    assert_eq!(
        bench.command(0, 99, deflect("a2")),
        cti::CommandError::InvalidCall
    );
}

#[test]
fn in_a_warm_transfer_the_first_agent_stays_until_the_next_answers() {
    let mut bench = bench(1);
    let (first, second) = (bench.agent("a1"), bench.agent("a2"));
    let call = bench.call();
    bench.select_agent(0, &format!("x{call}.1"), "a1");
    bench.core.agent_answers(bench.now, first);
    let transfer = cti::command::Body::Transfer(cti::SingleStepTransfer {
        transferred_to: None,
        warm: true,
        treatment: Some(cti::single_step_transfer::Treatment::Agent(
            cti::AgentTreatment {
                agent_id: "a2".into(),
                context: None,
            },
        )),
    });
    assert_eq!(
        bench.command(0, call, transfer),
        cti::CommandError::Unspecified
    );
    assert!(bench.core.has_call(first) && bench.core.has_call(second) && !bench.core.talks(first));
    bench.core.agent_answers(bench.now, second);
    assert!(!bench.core.has_call(first) && bench.core.talks(second));
    assert!(bench.happenings().contains(&Happening::Released {
        call,
        phone: first,
        why: Release::Transferred
    }));
}

#[test]
fn a_booked_caller_hears_it_once_and_is_cleared_and_a_dial_that_is_answered_asks_with_the_contact()
{
    let mut bench = bench(1);
    let call = bench.call();
    bench.select_queue(0, &format!("x{call}.1"));
    let booking = || {
        cti::command::Body::AnnounceBooking(cti::AnnounceBooking {
            code: "123456".into(),
            ..Default::default()
        })
    };
    assert_eq!(
        bench.command(0, call, booking()),
        cti::CommandError::Unspecified
    );
    assert_eq!(
        bench.command(0, call, booking()),
        cti::CommandError::Unspecified
    );
    assert_eq!(bench.core.counts().booked, 1);
    bench.pass(SECOND);
    assert_eq!(bench.core.live_calls(), 0);
    bench.sent(0);
    let make_call = cti::command::Body::MakeCall(cti::MakeCall {
        called_device: Some(cti::Device {
            id: "+88381000000001".into(),
        }),
        calling_device: Some(cti::Device {
            id: "8005550191".into(),
        }),
        ring_ms: 3000,
        callback_code: "123456".into(),
        language: "en".into(),
    });
    bench.command(0, 0, make_call);
    let Some(Happening::Dial { dial, .. }) = bench.happenings().pop() else {
        panic!("no dial")
    };
    let leg = bench
        .core
        .dial_ends(
            bench.now,
            dial,
            cti::DialOutcome::Answered,
            1,
            String::new(),
        )
        .unwrap();
    let requests = bench.requests(0);
    assert_eq!(
        (
            requests[0].correlator_data.clone(),
            requests[0].cross_ref_id.as_str()
        ),
        (correlator(9), format!("x{leg}.1").as_str())
    );
    assert_eq!(
        requests[0].current_route.clone().unwrap().id,
        "8005550101",
        "the line that it dials for"
    );
    let Some(Frame::Commands(results)) = bench.core.next_frame(bench.now, 0, StreamKind::Commands)
    else {
        panic!("no result")
    };
    assert_eq!(
        results.results[0].dial_outcome(),
        cti::DialOutcome::Answered
    );
}

#[test]
fn a_snapshot_names_every_call_and_agent_between_begin_and_end() {
    let mut bench = bench(1);
    bench.agent("a1");
    bench.agent("a2");
    let (queued, talking) = (bench.call(), bench.call());
    bench.select_queue(0, &format!("x{queued}.1"));
    bench.select_agent(0, &format!("x{talking}.1"), "a1");
    bench.core.agent_answers(bench.now, 0);
    bench.events(0);
    bench.core.event_acks(
        bench.now,
        0,
        cti::EventsResponse {
            snapshot_required: true,
            ..Default::default()
        },
    );
    let parts: Vec<cti::snapshot::Body> = bench
        .events(0)
        .into_iter()
        .filter_map(|event| {
            if let Some(cti::switch_event::Body::Snapshot(snapshot)) = event.body {
                snapshot.body
            } else {
                None
            }
        })
        .collect();
    assert!(matches!(parts[0], cti::snapshot::Body::Begin(_)));
    let places: Vec<cti::SnapshotPlace> = parts
        .iter()
        .filter_map(|part| {
            if let cti::snapshot::Body::Call(call) = part {
                Some(call.place())
            } else {
                None
            }
        })
        .collect();
    assert_eq!(
        places,
        [cti::SnapshotPlace::Queued, cti::SnapshotPlace::Connected]
    );
    assert!(
        matches!(parts.last(), Some(cti::snapshot::Body::End(end)) if end.calls == 2 && end.agents == 2)
    );
}

#[test]
fn a_node_without_heartbeats_is_given_up_after_four_are_missed() {
    let mut bench = bench(1);
    for _ in 0..5 {
        bench.pass(5 * SECOND);
    }
    assert_eq!(bench.core.take_dead_nodes(), [0]);
    assert_eq!(bench.sent(0), []);
}
