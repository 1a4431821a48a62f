//! The core by itself: no stream, no task, no clock.

mod calls;
mod chaos;
mod events;
mod switch;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use domain::TimeMs;
use domain::policy::Policy;
use proto::cti::v1::{
    CallRef, Command, Correlator, Device, DialoguesRequest, DialoguesResponse, EventsResponse,
    Hello, MeshDialogueMessage, RouteRequest, SwitchDialogueMessage, SwitchEvent,
    mesh_dialogue_message as mesh, switch_dialogue_message as switch_message, switch_event,
};
use proto::{callback, intent, routing as wire};

use super::{Core, Input, LinkId, Moment, Outgoing};
use crate::config::Config;
use crate::keys::Keys;
use crate::metrics::Metrics;

pub(super) const LINE: &str = "8005550101";
pub(super) const POOL: &str = "tax-line";
pub(super) const NUMBER: &str = "+12065551234";

/// A core, its time, and everything it has sent, by link.
pub(super) struct Rig {
    pub(super) core: Core,
    pub(super) now: Moment,
    pub(super) metrics: Metrics,
    pub(super) dialogues: BTreeMap<LinkId, Vec<DialoguesResponse>>,
    pub(super) events: BTreeMap<LinkId, Vec<EventsResponse>>,
    pub(super) may_read: BTreeMap<LinkId, usize>,
    pub(super) commands: BTreeMap<LinkId, Vec<Command>>,
    pub(super) inputs: BTreeMap<LinkId, Vec<wire::v1::Input>>,
    pub(super) routing_frames: BTreeMap<LinkId, Vec<wire::v1::LinkRequest>>,
    pub(super) queries: BTreeMap<LinkId, Vec<intent::v1::Query>>,
    pub(super) callback_frames: BTreeMap<LinkId, Vec<callback::v1::LinkRequest>>,
    pub(super) closed: Vec<(LinkId, &'static str)>,
    pub(super) link_seq: BTreeMap<LinkId, u64>,
    /// Everything sent towards peers, as it would be logged or put on the wire.
    pub(super) leaks: String,
}

impl Rig {
    pub(super) fn new(change: impl FnOnce(&mut Config)) -> Self {
        Self::with_policy(change, |_| ())
    }

    pub(super) fn with_policy(
        change: impl FnOnce(&mut Config),
        policy: impl FnOnce(&mut Policy),
    ) -> Self {
        let mut config = Config::for_test();
        change(&mut config);
        let mut example = Policy::worked_example();
        policy(&mut example);
        let metrics = Metrics::new(&mut prometheus_client::registry::Registry::default());
        let now = Moment {
            wall: TimeMs(1_700_000_000_000),
            instant: Instant::now(),
        };
        let keys = Keys::from_config(&config).expect("keys");
        let core = Core::new(
            config,
            "gateway-test".to_owned(),
            Arc::new(example),
            keys,
            metrics.clone(),
            now.wall,
        );
        Self {
            core,
            now,
            metrics,
            dialogues: BTreeMap::new(),
            events: BTreeMap::new(),
            may_read: BTreeMap::new(),
            commands: BTreeMap::new(),
            inputs: BTreeMap::new(),
            routing_frames: BTreeMap::new(),
            queries: BTreeMap::new(),
            callback_frames: BTreeMap::new(),
            closed: Vec::new(),
            link_seq: BTreeMap::new(),
            leaks: String::new(),
        }
    }

    /// A rig with a switch on link 1 and an owner of every pool on link 100.
    pub(super) fn ready(change: impl FnOnce(&mut Config)) -> Self {
        let mut rig = Self::new(change);
        rig.own(100, 1);
        rig.open(1, "", 0);
        rig
    }

    pub(super) fn give(&mut self, input: Input) {
        self.core.handle(self.now, input);
        self.flush();
    }

    pub(super) fn pass(&mut self, ms: u64) {
        for _ in 0..ms.div_ceil(4) {
            self.now.wall = self.now.wall.plus(4);
            self.now.instant += Duration::from_millis(4);
            self.core.tick(self.now);
        }
        self.flush();
    }

    pub(super) fn flush(&mut self) {
        let mut out = Vec::new();
        self.core.flush(self.now.instant, &mut out);
        for frame in out {
            match frame {
                Outgoing::Dialogues(link, frame) => {
                    self.dialogues.entry(link).or_default().push(frame)
                }
                Outgoing::Events(link, frame) => self.events.entry(link).or_default().push(frame),
                Outgoing::EventsMayRead(link, count) => {
                    *self.may_read.entry(link).or_default() += count
                }
                Outgoing::Commands(link, frame) => self
                    .commands
                    .entry(link)
                    .or_default()
                    .extend(frame.commands),
                Outgoing::Routing(link, frame) => {
                    self.leaks.push_str(&format!("{frame:?}"));
                    self.inputs
                        .entry(link)
                        .or_default()
                        .extend(frame.inputs.clone());
                    self.routing_frames.entry(link).or_default().push(frame);
                }
                Outgoing::Intent(link, frame) => {
                    self.leaks.push_str(&format!("{frame:?}"));
                    self.queries.entry(link).or_default().extend(frame.queries);
                }
                Outgoing::Callback(link, frame) => {
                    self.leaks.push_str(&format!("{frame:?}"));
                    self.callback_frames.entry(link).or_default().push(frame);
                }
                Outgoing::Close(link, reason) => {
                    self.closed.push((link, reason));
                    self.core.handle(self.now, Input::Closed { link });
                }
            }
        }
    }

    pub(super) fn hello(session: &str, last: u64) -> Hello {
        Hello {
            switch_id: "sw1".to_owned(),
            boot_id: 7,
            adapter_id: String::new(),
            session_id: session.to_owned(),
            last_received_link_seq: last,
            capabilities: None,
        }
    }

    /// Opens dialogues on a link; gives the session's id.
    pub(super) fn open(&mut self, link: LinkId, session: &str, last: u64) -> String {
        let link_seq = 1;
        self.link_seq.insert(link, link_seq);
        self.open_at(link, session, last, link_seq)
    }

    pub(super) fn open_at(
        &mut self,
        link: LinkId,
        session: &str,
        last: u64,
        link_seq: u64,
    ) -> String {
        self.link_seq.insert(link, link_seq);
        self.give(Input::DialoguesOpened {
            link,
            received: self.now.instant,
            hello: Self::hello(session, last),
            frame: DialoguesRequest {
                link_seq,
                hello: None,
                messages: Vec::new(),
            },
            malformed: Vec::new(),
        });
        let frames = &self.dialogues[&link];
        let welcome = frames
            .iter()
            .rev()
            .find_map(|frame| frame.welcome.clone())
            .expect("welcomed");
        welcome.session_id
    }

    pub(super) fn say(&mut self, link: LinkId, bodies: Vec<switch_message::Body>) {
        let next = self.link_seq.entry(link).or_default();
        *next += 1;
        let link_seq = *next;
        self.say_at(link, link_seq, bodies);
    }

    pub(super) fn say_at(
        &mut self,
        link: LinkId,
        link_seq: u64,
        bodies: Vec<switch_message::Body>,
    ) {
        let messages = bodies
            .into_iter()
            .map(|body| SwitchDialogueMessage { body: Some(body) })
            .collect();
        let frame = DialoguesRequest {
            link_seq,
            hello: None,
            messages,
        };
        self.give(Input::Dialogues {
            link,
            received: self.now.instant,
            frame,
            malformed: Vec::new(),
        });
    }

    pub(super) fn request(cross_ref: &str) -> RouteRequest {
        RouteRequest {
            cross_ref_id: cross_ref.to_owned(),
            call: Some(CallRef {
                call_id: format!("call-{cross_ref}"),
                ..CallRef::default()
            }),
            current_route: Some(Device {
                id: LINE.to_owned(),
            }),
            calling_device: Some(Device {
                id: NUMBER.to_owned(),
            }),
            reply_timeout_ms: 500,
            language: "es-MX".to_owned(),
            utterance: "where is my refund".to_owned(),
            ..RouteRequest::default()
        }
    }

    pub(super) fn ask(&mut self, link: LinkId, cross_ref: &str) {
        self.say(
            link,
            vec![switch_message::Body::Request(Self::request(cross_ref))],
        );
    }

    /// A routing replica on `link` that owns every pool at `epoch`.
    pub(super) fn own(&mut self, link: LinkId, epoch: u64) {
        if !self.core.links.contains_key(&link) {
            self.give(Input::RoutingUp { link });
        }
        let pools = self.core.policy.pools.keys().cloned();
        let pools = pools
            .map(|pool| wire::v1::OwnedPool { pool, epoch })
            .collect();
        let ownership = wire::v1::Ownership {
            replica_id: format!("r{link}"),
            pools,
            draining: false,
        };
        self.give(Input::Routing {
            link,
            frame: wire::v1::LinkResponse {
                ownership: Some(ownership),
                ..Default::default()
            },
        });
    }

    pub(super) fn reply(&mut self, link: LinkId, request_id: u64, body: wire::v1::reply::Body) {
        let replies = vec![wire::v1::Reply {
            request_id,
            body: Some(body),
        }];
        self.give(Input::Routing {
            link,
            frame: wire::v1::LinkResponse {
                replies,
                ..Default::default()
            },
        });
    }

    pub(super) fn acknowledge(&mut self, link: LinkId, request_id: u64) {
        self.reply(
            link,
            request_id,
            wire::v1::reply::Body::Acknowledged(wire::v1::Acknowledged {}),
        );
    }

    /// Takes the inputs sent on a link and not yet taken.
    pub(super) fn take_inputs(&mut self, link: LinkId) -> Vec<wire::v1::Input> {
        self.inputs.remove(&link).unwrap_or_default()
    }

    /// The last input sent on a link that asks for a route.
    pub(super) fn last_route(&self, link: LinkId) -> (u64, wire::v1::Route) {
        let inputs = &self.inputs[&link];
        inputs
            .iter()
            .rev()
            .find_map(|input| match &input.body {
                Some(wire::v1::input::Body::Route(route)) => {
                    Some((input.request_id, route.clone()))
                }
                _ => None,
            })
            .expect("a route was asked for")
    }

    /// Everything said to the switch on a link, without heartbeats.
    pub(super) fn heard(&self, link: LinkId) -> Vec<mesh::Body> {
        let frames = self.dialogues.get(&link).into_iter().flatten();
        let bodies = frames
            .flat_map(|frame| frame.messages.iter())
            .filter_map(|MeshDialogueMessage { body }| body.clone());
        bodies
            .filter(|body| !matches!(body, mesh::Body::Status(_)))
            .collect()
    }

    pub(super) fn credits(&self, link: LinkId) -> u32 {
        self.dialogues
            .get(&link)
            .into_iter()
            .flatten()
            .map(|frame| frame.credit)
            .sum()
    }

    /// Opens events on a link.
    pub(super) fn open_events(&mut self, link: LinkId) {
        self.give(Input::EventsOpened {
            link,
            hello: Self::hello("", 0),
        });
    }

    pub(super) fn tell(&mut self, link: LinkId, events: Vec<SwitchEvent>) {
        self.give(Input::Events {
            link,
            events,
            malformed: Vec::new(),
        });
    }

    pub(super) fn acknowledged(&self, link: LinkId) -> u64 {
        self.events
            .get(&link)
            .and_then(|frames| frames.last())
            .map_or(0, |frame| frame.acknowledged_event_seq)
    }

    /// An event of a routed call.
    pub(super) fn event(seq: u64, contact: u128, body: switch_event::Body) -> SwitchEvent {
        SwitchEvent {
            event_seq: seq,
            call: Some(CallRef {
                call_id: format!("c{contact}"),
                ..CallRef::default()
            }),
            correlator_data: correlator(contact),
            body: Some(body),
            ..SwitchEvent::default()
        }
    }
}

pub(super) fn correlator(contact: u128) -> Bytes {
    proto::convert::cti::correlator_data(domain::ContactId(contact), POOL, 0)
}

pub(super) fn read_correlator(data: &Bytes) -> Correlator {
    prost::Message::decode(data.clone()).expect("ours")
}

pub(super) fn agent_answer(agent: &str) -> wire::v1::reply::Body {
    let body = wire::v1::answer::Body::Agent(wire::v1::AgentAnswer {
        agent_id: agent.to_owned(),
        device: format!("dev-{agent}"),
        context: Some(wire::v1::Context {
            topic: "REF_STATUS".to_owned(),
            ..Default::default()
        }),
    });
    wire::v1::reply::Body::Answer(wire::v1::Answer {
        decision_id: format!("d-{agent}"),
        body: Some(body),
    })
}

pub(super) fn queue_answer(windows: usize) -> wire::v1::reply::Body {
    let window = |index: usize| wire::v1::Window {
        from_ms: 1_000 * (index as u64 + 1),
        until_ms: 1_000 * (index as u64 + 2),
    };
    let body = wire::v1::answer::Body::Queue(wire::v1::QueueAnswer {
        queue: "refund".to_owned(),
        device: "q-refund".to_owned(),
        position: 3,
        expected_wait_ms: 60_000,
        expected_wait_low_ms: 30_000,
        expected_wait_high_ms: 90_000,
        offer_virtual_hold: true,
        windows: (0..windows).map(window).collect(),
    });
    wire::v1::reply::Body::Answer(wire::v1::Answer {
        decision_id: "d-q".to_owned(),
        body: Some(body),
    })
}
