//! Callers and agents over the switch in virtual time, against a plain automatic call
//! distributor that answers at once: one queue, first come first served.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use proto::cti::v1 as cti;

use super::People;
use crate::check::facts::Facts;
use crate::record::{Leg, Line, Release};
use crate::scenario::schedule::Schedule;
use crate::scenario::words::Words;
use crate::scenario::{Loaded, load};
use crate::switch::{Config, Core, Frame, StreamKind};
use crate::time::{MILLISECOND, SECOND, Us};

const BEGAN: Us = 1_000_000 * SECOND;

/// The distributor.
#[derive(Default)]
struct Distributor {
    ready: VecDeque<String>,
    waiting: VecDeque<cti::CallRef>,
    correlators: HashMap<String, Bytes>,
    booked: VecDeque<(Bytes, String)>,
    invoke_id: u64,
    commands: Vec<cti::Command>,
}

impl Distributor {
    fn command(
        &mut self,
        call: Option<cti::CallRef>,
        correlator_data: Bytes,
        body: cti::command::Body,
    ) {
        self.invoke_id += 1;
        self.commands.push(cti::Command {
            invoke_id: self.invoke_id,
            call,
            correlator_data,
            body: Some(body),
            ..Default::default()
        });
    }

    fn answer(&mut self, request: cti::RouteRequest) -> cti::MeshDialogueMessage {
        let call = request.call.unwrap();
        let correlator_data = if request.correlator_data.is_empty() {
            let number: u128 = call.call_id[1..].parse().unwrap();
            let correlator = cti::Correlator {
                version: 1,
                contact_id: number.to_be_bytes().to_vec().into(),
                pool: "p".into(),
                blocked: 0,
                ..Default::default()
            };
            Bytes::from(correlator.encode_to_vec())
        } else {
            request.correlator_data
        };
        self.correlators
            .insert(call.call_id.clone(), correlator_data.clone());
        let (device, treatment) = match self.ready.pop_front() {
            Some(agent) => (
                agent.clone(),
                cti::route_select::Treatment::Agent(cti::AgentTreatment {
                    agent_id: agent,
                    context: None,
                }),
            ),
            None => {
                self.waiting.push_back(call);
                let hold = cti::Offer {
                    offer_id: 1,
                    kind: Some(cti::offer::Kind::VirtualHold(cti::VirtualHoldOffer {
                        expected_callback_ms: 1,
                    })),
                };
                (
                    "q".into(),
                    cti::route_select::Treatment::Queue(cti::QueueTreatment {
                        queue: "q".into(),
                        offers: vec![hold],
                        ..Default::default()
                    }),
                )
            }
        };
        let select = cti::RouteSelect {
            cross_ref_id: request.cross_ref_id,
            route_selected: Some(cti::Device { id: device }),
            correlator_data,
            treatment: Some(treatment),
            ..Default::default()
        };
        cti::MeshDialogueMessage {
            body: Some(cti::mesh_dialogue_message::Body::Select(select)),
        }
    }

    fn event(&mut self, event: cti::SwitchEvent) {
        use cti::switch_event::Body;
        let correlator = event.correlator_data;
        match (event.body, event.call) {
            (Some(Body::Agent(agent)), _) => {
                self.ready.retain(|known| *known != agent.agent_id);
                if agent.state() == cti::AgentState::Ready {
                    self.ready.push_back(agent.agent_id);
                }
            }
            (Some(Body::Delivered(delivered)), _) => {
                self.ready.retain(|known| *known != delivered.agent_id)
            }
            (Some(Body::Failed(failed)), Some(call)) => {
                let set = cti::SetAgentState {
                    agent_id: failed.agent_id,
                    state: cti::AgentState::NotReady.into(),
                    reason: "no answer".into(),
                };
                self.command(None, Bytes::new(), cti::command::Body::SetAgentState(set));
                self.waiting.push_front(call);
            }
            (Some(Body::Cleared(_)), Some(call)) => {
                self.waiting.retain(|known| known.call_id != call.call_id)
            }
            (Some(Body::OfferAnswered(answered)), Some(call)) if answered.offer_id > 0 => {
                self.waiting.retain(|known| known.call_id != call.call_id);
                let booking = cti::AnnounceBooking {
                    code: "123456".into(),
                    ..Default::default()
                };
                self.command(
                    Some(call),
                    correlator.clone(),
                    cti::command::Body::AnnounceBooking(booking),
                );
                self.booked
                    .push_back((correlator, answered.callback_device.unwrap().id));
            }
            (Some(Body::TransferRequested(asked)), Some(call)) => {
                let queue = cti::QueueTreatment {
                    queue: "q".into(),
                    ..Default::default()
                };
                let transfer = cti::SingleStepTransfer {
                    transferred_to: None,
                    warm: asked.warm,
                    treatment: Some(cti::single_step_transfer::Treatment::Queue(queue)),
                };
                self.command(
                    Some(call.clone()),
                    correlator,
                    cti::command::Body::Transfer(transfer),
                );
                self.waiting.push_back(call);
            }
            _ => {}
        }
    }

    fn match_up(&mut self) {
        while !self.ready.is_empty() && !self.waiting.is_empty() {
            let (agent, call) = (
                self.ready.pop_front().unwrap(),
                self.waiting.pop_front().unwrap(),
            );
            let treatment = cti::AgentTreatment {
                agent_id: agent,
                context: None,
            };
            let deflect = cti::DeflectCall {
                new_destination: None,
                treatment: Some(cti::deflect_call::Treatment::Agent(treatment)),
            };
            let correlator = self.correlators[&call.call_id].clone();
            self.command(Some(call), correlator, cti::command::Body::Deflect(deflect));
        }
        if self.ready.is_empty() {
            return;
        }
        if let Some((correlator, number)) = self.booked.pop_front() {
            let make_call = cti::MakeCall {
                called_device: Some(cti::Device { id: number }),
                ring_ms: 3000,
                ..Default::default()
            };
            self.command(None, correlator, cti::command::Body::MakeCall(make_call));
        }
    }
}

fn simulate(seed: u64) -> (Vec<Line>, Core, usize) {
    let scratch = tempfile::tempdir().unwrap();
    let Loaded {
        mut scenario,
        policy,
        ..
    } = load("filing-season-monday", scratch.path()).unwrap();
    scenario.seed = seed;
    scenario.seconds = 40.0;
    scenario.agents.count = 120;
    let scenario = Arc::new(scenario);
    let schedule = Schedule::draw(&scenario, &policy);
    let scheduled = schedule.arrivals.len();
    let config = Config {
        switch_id: "s".into(),
        boot_id: 1,
        reply_timeout: 500 * MILLISECOND,
        ring_max: 4 * SECOND,
        announcement: 200 * MILLISECOND,
        callback_lines: HashMap::new(),
    };
    let mut core = Core::new(config, &["gateway".to_owned()]);
    let welcome = Some(cti::Welcome {
        session_id: "s".into(),
        system_status_timer_ms: 60_000,
        initial_credit: 1_000_000,
        ..Default::default()
    });
    let mut now = BEGAN - 10 * SECOND;
    for kind in StreamKind::ALL {
        core.opened(0, kind);
    }
    core.dialogues(
        now,
        0,
        cti::DialoguesResponse {
            welcome: welcome.clone(),
            ..Default::default()
        },
    );
    core.event_acks(
        now,
        0,
        cti::EventsResponse {
            welcome: welcome.clone(),
            ..Default::default()
        },
    );
    core.commands(
        now,
        0,
        cti::CommandsResponse {
            welcome,
            ..Default::default()
        },
    );
    let mut people = People::new(
        Arc::clone(&scenario),
        &policy,
        schedule,
        Words::own().unwrap(),
        BEGAN,
    );
    let mut distributor = Distributor::default();
    let mut lines = Vec::new();
    let (drain_at, close_at) = (BEGAN + 40 * SECOND, BEGAN + 100 * SECOND);
    let mut closed = false;
    while now < close_at + 30 * SECOND {
        now = [
            people.next_deadline(),
            core.next_deadline(),
            Some(now + SECOND),
        ]
        .into_iter()
        .flatten()
        .min()
        .unwrap()
        .max(now);
        if now >= drain_at {
            people.drain();
        }
        if now >= close_at && !closed {
            closed = true;
            people.close(now, &mut core);
        }
        core.tick(now);
        people.step(now, &mut core);
        // Until nothing more is said at this moment.
        loop {
            let mut quiet = true;
            while let Some(Frame::Dialogues(frame)) = core.next_frame(now, 0, StreamKind::Dialogues)
            {
                for message in frame.messages {
                    if let Some(cti::switch_dialogue_message::Body::Request(request)) = message.body
                    {
                        quiet = false;
                        let answer = distributor.answer(request);
                        core.dialogues(
                            now,
                            0,
                            cti::DialoguesResponse {
                                messages: vec![answer],
                                credit: 1,
                                ..Default::default()
                            },
                        );
                    }
                }
            }
            while let Some(Frame::Events(frame)) = core.next_frame(now, 0, StreamKind::Events) {
                quiet = false;
                let acknowledged_event_seq = frame.events.last().unwrap().event_seq;
                frame
                    .events
                    .into_iter()
                    .for_each(|event| distributor.event(event));
                core.event_acks(
                    now,
                    0,
                    cti::EventsResponse {
                        acknowledged_event_seq,
                        ..Default::default()
                    },
                );
            }
            distributor.match_up();
            let commands = std::mem::take(&mut distributor.commands);
            quiet &= commands.is_empty();
            core.commands(
                now,
                0,
                cti::CommandsResponse {
                    commands,
                    ..Default::default()
                },
            );
            while core.next_frame(now, 0, StreamKind::Commands).is_some() {}
            people.step(now, &mut core);
            if quiet {
                break;
            }
        }
        core.take_record(&mut lines);
    }
    (lines, core, scheduled)
}

#[test]
fn a_day_goes_by_with_everything_that_people_do_and_every_call_ends() {
    let (lines, core, scheduled) = simulate(1);
    assert_eq!((core.live_calls(), core.live_dials()), (0, 0));
    let facts = Facts::from_lines(&lines);
    let legs = |leg| facts.calls.values().filter(|call| call.leg == leg).count();
    assert_eq!(legs(Leg::New), scheduled);
    for leg in [Leg::Redial, Leg::Repeat, Leg::Cancel, Leg::Callback] {
        assert!(legs(leg) > 0, "no {leg:?}");
    }
    assert!(facts.calls.values().all(|call| call.cleared.is_some()));
    assert!(facts.counts.established > 100 && facts.counts.gave_up > 0 && facts.counts.booked > 0);
    assert_eq!(facts.counts.defaults(), 0);
    let releases = |why: Release| {
        lines.iter().filter(|line| matches!(&line.entry, crate::record::Entry::Released { why: known, .. } if *known == why)).count()
    };
    assert!(releases(Release::NotAnswered) > 0 && releases(Release::Transferred) > 0);
    // Nobody is at two phones but in a transfer, and no phone has two calls.
    for holds in facts.holds.values() {
        assert!(
            holds
                .windows(2)
                .all(|pair| pair[0].until.is_some_and(|until| until <= pair[1].from))
        );
    }
}

#[test]
fn the_same_seed_gives_the_same_day_to_the_last_entry() {
    let (first, ..) = simulate(2);
    let (second, ..) = simulate(2);
    assert_eq!(first.len(), second.len());
    assert_eq!(first, second);
}

#[test]
fn what_callers_bring_does_not_depend_on_how_they_are_answered() {
    let scratch = tempfile::tempdir().unwrap();
    let loaded = load("filing-season-monday", scratch.path()).unwrap();
    let schedule = Schedule::draw(&loaded.scenario, &loaded.policy);
    let (lines, ..) = simulate(loaded.scenario.seed);
    let told: Vec<u32> = lines
        .iter()
        .filter_map(|line| {
            if let crate::record::Entry::Call {
                caller,
                leg: Leg::New,
                ..
            } = &line.entry
            {
                Some(*caller)
            } else {
                None
            }
        })
        .collect();
    assert!(told.iter().copied().eq(0..told.len() as u32));
    assert!(schedule.arrivals.len() > told.len());
}
