//! The links to the gateways: three streams each, credit, heartbeats, choice.

use proto::cti::v1 as cti;

use super::{AVOID, Core, MISSED_MAX, TIMEOUTS_MAX, Timer};
use crate::dice::mix;
use crate::record::{CallNumber, Entry};
use crate::time::{MILLISECOND, Us};

/// The three streams of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum StreamKind {
    /// Routeing dialogues.
    Dialogues,
    /// Events.
    Events,
    /// Commands.
    Commands,
}

impl StreamKind {
    /// All of them.
    pub(crate) const ALL: [StreamKind; 3] = [
        StreamKind::Dialogues,
        StreamKind::Events,
        StreamKind::Commands,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Dialogues => "dialogues",
            Self::Events => "events",
            Self::Commands => "commands",
        }
    }
}

/// A frame to a gateway.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Frame {
    /// On the dialogue stream.
    Dialogues(cti::DialoguesRequest),
    /// On the event stream.
    Events(cti::EventsRequest),
    /// On the command stream.
    Commands(cti::CommandsRequest),
}

/// One stream of a link.
#[derive(Debug, Default)]
pub(super) struct Stream {
    /// Hello sent; not yet welcomed.
    pub(super) opened: bool,
    /// Welcomed.
    pub(super) up: bool,
    pub(super) session: String,
    pub(super) received: u64,
    pub(super) sent: u64,
}

/// One gateway.
#[derive(Debug)]
pub(super) struct Node {
    hash: u64,
    pub(super) streams: [Stream; 3],
    /// Which connection of the dialogue stream this is: tells old timers from new.
    pub(super) connection: u64,
    /// Which connection of the command stream: a result belongs to the one its command came on.
    pub(super) commands_connection: u64,
    pub(super) credit: u32,
    pub(super) timeouts: u32,
    pub(super) avoid_until: Us,
    /// Says that new calls should go elsewhere.
    pub(super) elsewhere: bool,
    pub(super) heard: Us,
    heartbeat: Us,
    pub(super) dialogue_out: Vec<cti::SwitchDialogueMessage>,
    pub(super) results_out: Vec<cti::CommandResult>,
}

impl Node {
    pub(super) fn new(name: &str) -> Self {
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            mix(hash ^ u64::from(byte))
        });
        Self {
            hash,
            streams: Default::default(),
            connection: 0,
            commands_connection: 0,
            credit: 0,
            timeouts: 0,
            avoid_until: 0,
            elsewhere: false,
            heard: 0,
            heartbeat: 5000 * MILLISECOND,
            dialogue_out: Vec::new(),
            results_out: Vec::new(),
        }
    }

    pub(super) fn up(&self) -> bool {
        self.streams[StreamKind::Dialogues as usize].up
    }

    fn usable(&self, now: Us) -> bool {
        self.up() && self.credit > 0 && !self.elsewhere && self.avoid_until <= now
    }

    fn rank(&self, key: u64) -> u64 {
        mix(self.hash ^ mix(key))
    }
}

/// The tick of the switch's timers as it tells the mesh: that of a real one (Kamailio). The
/// synthetic one is finer, so what the mesh sends in its last moment still counts.
const TICK_MS: u32 = 62;
/// Messages of a dialogue frame, by contract.
const DIALOGUE_MESSAGES_MAX: usize = 256;
/// Results of a command frame, by contract.
const RESULTS_MAX: usize = 256;

impl Core {
    /// A connection for a stream is being made: its first frame.
    pub(crate) fn opened(&mut self, node: usize, kind: StreamKind) -> Frame {
        let hello = cti::Hello {
            switch_id: self.config.switch_id.clone(),
            boot_id: self.config.boot_id,
            adapter_id: format!("loadtest-{}", std::process::id()),
            session_id: self.nodes[node].streams[kind as usize].session.clone(),
            last_received_link_seq: self.nodes[node].streams[kind as usize].received,
            capabilities: Some(cti::SwitchCapabilities {
                correlator_data_bytes_max: 256,
                snapshot: true,
                make_call: true,
                deflect_call: true,
                tick_ms: TICK_MS,
            }),
        };
        let link = &mut self.nodes[node];
        match kind {
            StreamKind::Dialogues => {
                link.connection += 1;
                link.dialogue_out.clear();
            }
            StreamKind::Commands => {
                link.commands_connection += 1;
                link.results_out.clear();
            }
            StreamKind::Events => {}
        }
        let stream = &mut link.streams[kind as usize];
        stream.opened = true;
        stream.up = false;
        match kind {
            StreamKind::Dialogues => {
                stream.sent += 1;
                Frame::Dialogues(cti::DialoguesRequest {
                    link_seq: stream.sent,
                    hello: Some(hello),
                    messages: Vec::new(),
                })
            }
            StreamKind::Events => Frame::Events(cti::EventsRequest {
                hello: Some(hello),
                events: Vec::new(),
            }),
            StreamKind::Commands => Frame::Commands(cti::CommandsRequest {
                hello: Some(hello),
                results: Vec::new(),
            }),
        }
    }

    /// Every stream of the first `nodes` nodes is up.
    pub(crate) fn all_up(&self, nodes: usize) -> bool {
        self.nodes
            .iter()
            .take(nodes)
            .all(|node| node.streams.iter().all(|stream| stream.up))
    }

    /// The mesh welcomed a stream.
    pub(super) fn welcomed(
        &mut self,
        now: Us,
        node: usize,
        kind: StreamKind,
        welcome: &cti::Welcome,
    ) {
        let link = &mut self.nodes[node];
        let stream = &mut link.streams[kind as usize];
        if stream.session != welcome.session_id {
            stream.session.clone_from(&welcome.session_id);
            stream.received = 0;
        }
        stream.up = true;
        self.note(
            now,
            Entry::Link {
                node: node as u32,
                stream: kind.name().to_owned(),
                up: true,
            },
        );
        match kind {
            StreamKind::Dialogues => {
                let link = &mut self.nodes[node];
                link.credit = welcome.initial_credit.max(1);
                link.timeouts = 0;
                link.avoid_until = 0;
                link.elsewhere = false;
                link.heard = now;
                link.heartbeat =
                    u64::from(welcome.system_status_timer_ms.clamp(1000, 60_000)) * MILLISECOND;
                let (at, connection) = (now + link.heartbeat, link.connection);
                self.timer(at, Timer::Heartbeat(node, connection));
                if welcome.snapshot_required && self.outbox.node().is_some() {
                    self.snapshot(now);
                }
                self.ask_those_without_credit(now);
            }
            StreamKind::Events => {
                if self.outbox.node().is_none() {
                    self.outbox.attach(node, welcome.acknowledged_event_seq);
                    if welcome.snapshot_required {
                        self.snapshot(now);
                    }
                }
            }
            StreamKind::Commands => {}
        }
    }

    /// A stream is lost.
    pub(crate) fn lost(&mut self, now: Us, node: usize, kind: StreamKind) {
        let stream = &mut self.nodes[node].streams[kind as usize];
        let was_up = std::mem::take(&mut stream.up);
        stream.opened = false;
        if was_up {
            self.note(
                now,
                Entry::Link {
                    node: node as u32,
                    stream: kind.name().to_owned(),
                    up: false,
                },
            );
        }
        match kind {
            StreamKind::Dialogues => {
                let link = &mut self.nodes[node];
                link.credit = 0;
                link.dialogue_out.clear();
                self.ask_again_elsewhere(now, node);
            }
            StreamKind::Events => {
                if self.outbox.node() == Some(node) {
                    self.outbox.detach();
                    self.attach_events_elsewhere();
                }
            }
            StreamKind::Commands => self.nodes[node].results_out.clear(),
        }
    }

    fn attach_events_elsewhere(&mut self) {
        let next = (0..self.nodes.len())
            .find(|node| self.nodes[*node].streams[StreamKind::Events as usize].up);
        if let Some(node) = next {
            // That node told what it held when it was connected; resending more than
            // needed is harmless, the mesh drops repeats.
            self.outbox.attach(node, 0);
        }
    }

    /// A frame on the dialogue stream.
    pub(crate) fn dialogues(&mut self, now: Us, node: usize, frame: cti::DialoguesResponse) {
        self.nodes[node].heard = now;
        if let Some(welcome) = &frame.welcome {
            self.welcomed(now, node, StreamKind::Dialogues, welcome);
        }
        self.nodes[node].streams[StreamKind::Dialogues as usize].received = frame.link_seq;
        for message in frame.messages {
            use cti::mesh_dialogue_message::Body;
            match message.body {
                Some(Body::Select(select)) => self.selected(now, node, select),
                Some(Body::Reject(reject)) => self.rejected(now, node, &reject),
                Some(Body::End(end)) => self.ended_by_mesh(now, node, &end),
                Some(Body::Status(status)) => self.status(now, node, &status),
                Some(Body::Refusal(refusal)) => self.refused(now, refusal),
                // Rule 11: what is not known passes.
                None => {}
            }
        }
        if frame.credit > 0 {
            self.nodes[node].credit = self.nodes[node].credit.saturating_add(frame.credit);
        }
        self.ask_those_without_credit(now);
    }

    /// A frame on the event stream.
    pub(crate) fn event_acks(&mut self, now: Us, node: usize, frame: cti::EventsResponse) {
        if let Some(welcome) = &frame.welcome {
            self.welcomed(now, node, StreamKind::Events, welcome);
        }
        for refusal in frame.refusals {
            self.refused(now, refusal);
        }
        if self.outbox.node() != Some(node) {
            return;
        }
        self.outbox.acknowledge(frame.acknowledged_event_seq);
        if frame.snapshot_required {
            self.snapshot(now);
        }
    }

    fn refused(&mut self, now: Us, refusal: cti::Refusal) {
        self.note(
            now,
            Entry::Refused {
                about: refusal.about,
                field: refusal.field,
                limit: refusal.limit,
            },
        );
    }

    fn status(&mut self, now: Us, node: usize, status: &cti::SystemStatus) {
        use cti::SystemCondition as Condition;
        let link = &mut self.nodes[node];
        match status.condition() {
            Condition::OverloadReached | Condition::Disabled => link.elsewhere = true,
            Condition::OverloadRelieved | Condition::Normal => link.elsewhere = false,
            Condition::MessagesLost => {
                if self.outbox.node() == Some(node) {
                    self.snapshot(now);
                }
            }
            Condition::Unspecified | Condition::OverloadImminent => {}
        }
    }

    pub(super) fn heartbeat(&mut self, now: Us, node: usize, connection: u64) {
        let link = &mut self.nodes[node];
        if link.connection != connection || !link.up() {
            return;
        }
        if now.saturating_sub(link.heard) > MISSED_MAX * link.heartbeat {
            self.dead_nodes.push(node);
            self.lost(now, node, StreamKind::Dialogues);
            return;
        }
        link.dialogue_out.push(cti::SwitchDialogueMessage {
            body: Some(cti::switch_dialogue_message::Body::Status(
                cti::SystemStatus {
                    condition: cti::SystemCondition::Normal.into(),
                },
            )),
        });
        let at = now + link.heartbeat;
        self.timer(at, Timer::Heartbeat(node, connection));
    }

    /// The node for a call: the highest rendezvous rank of those that can take it now; of
    /// those that are up and have credit if there is no better one.
    pub(super) fn choose(&self, now: Us, call: CallNumber) -> Option<usize> {
        let best = |usable: &dyn Fn(&Node) -> bool| {
            (0..self.nodes.len())
                .filter(|node| usable(&self.nodes[*node]))
                .max_by_key(|node| self.nodes[*node].rank(call))
        };
        best(&|node| node.usable(now)).or_else(|| best(&|node| node.up() && node.credit > 0))
    }

    /// A reply timeout on this node: the third in a row sends new calls elsewhere.
    pub(super) fn timed_out_on(&mut self, now: Us, node: usize) {
        let link = &mut self.nodes[node];
        link.timeouts += 1;
        if link.timeouts >= TIMEOUTS_MAX {
            link.avoid_until = now + AVOID;
            link.timeouts = 0;
        }
    }

    /// The next frame for a stream, if there is something to send.
    pub(crate) fn next_frame(&mut self, now: Us, node: usize, kind: StreamKind) -> Option<Frame> {
        if !self.nodes[node].streams[kind as usize].up {
            return None;
        }
        match kind {
            StreamKind::Dialogues => {
                let link = &mut self.nodes[node];
                if link.dialogue_out.is_empty() {
                    return None;
                }
                let count = link.dialogue_out.len().min(DIALOGUE_MESSAGES_MAX);
                let messages = link.dialogue_out.drain(..count).collect();
                let stream = &mut link.streams[kind as usize];
                stream.sent += 1;
                Some(Frame::Dialogues(cti::DialoguesRequest {
                    link_seq: stream.sent,
                    hello: None,
                    messages,
                }))
            }
            StreamKind::Events => {
                if self.outbox.node() != Some(node) {
                    return None;
                }
                let events = self.outbox.next_batch(now)?;
                Some(Frame::Events(cti::EventsRequest {
                    hello: None,
                    events,
                }))
            }
            StreamKind::Commands => {
                let link = &mut self.nodes[node];
                if link.results_out.is_empty() {
                    return None;
                }
                let count = link.results_out.len().min(RESULTS_MAX);
                let results = link.results_out.drain(..count).collect();
                Some(Frame::Commands(cti::CommandsRequest {
                    hello: None,
                    results,
                }))
            }
        }
    }
}
