//! The gateway's decisions, without streams, tasks or clocks: frames in, frames out.
//!
//! One task owns a [`Core`] and feeds it: [`Core::handle`] takes one input at a moment,
//! [`Core::tick`] lets time pass, [`Core::flush`] hands over what is to be sent. Whatever
//! piles up between two flushes leaves in one frame a link, so frames grow with load and
//! nothing waits to fill one. No lock, no task per call, no timer per call.
//!
//! | file | owns |
//! |---|---|
//! | `sources` | one switch at one boot |
//! | `sessions`, `frames` | links of dialogues: sequence, credits, heartbeats, resume; their messages |
//! | `dialogues`, `reroutes` | requests: checked, recognised, admitted, asked for |
//! | `shed` | what admission refuses |
//! | `topics` | intent, and its absence |
//! | `endings` | the one answer; deadlines, late answers, the switch's word |
//! | `answers` | routing's words to the switch's |
//! | `routing`, `reports` | who owns which pool; requests and reports on their way to the owner |
//! | `events` | the switch's events: order, repeats, acknowledgements, flow |
//! | `mapping` | one switch event to inputs of routing |
//! | `bookings` | accepted offers and cancellations on their way to callback |
//! | `commands` | commands and dials on their way to a switch |
//!
//! Rejected: a task per call (two spawns and a timer cost more than the answer), and a
//! lock around shared tables (a burst of events would then delay an answer). One core
//! carries this loop; more gateways carry more.

mod answers;
mod bookings;
mod commands;
mod dialogues;
mod endings;
mod events;
mod frames;
mod mapping;
mod reports;
mod reroutes;
mod routing;
mod sessions;
mod shed;
mod sources;
#[cfg(test)]
mod tests;
mod topics;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use domain::policy::Policy;
use domain::{ContactId, TimeMs};
use proto::{callback, cti, intent, routing as wire};

use crate::admission::Admission;
use crate::config::Config;
use crate::keys::Keys;
use crate::memory::Memory;
use crate::metrics::{Metrics, Stream};
use crate::wheel::Wheel;

pub(crate) use events::Window;
pub(crate) use sources::Source;

use sources::SourceState;

/// Names one stream or peer link in this process.
pub(crate) type LinkId = u64;

/// Now: for the domain, and for measuring.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    /// Epoch milliseconds.
    pub(crate) wall: TimeMs,
    /// For latencies.
    pub(crate) instant: Instant,
}

/// A part of a frame that could not be decoded.
#[derive(Clone, Debug, Default)]
pub(crate) struct Malformed {
    /// The dialogue or event it is about, if that much could be read.
    pub(crate) about: String,
    /// Its size.
    pub(crate) bytes: usize,
    /// It was a route request.
    pub(crate) is_request: bool,
    /// It was an event with this sequence; 0: none.
    pub(crate) event_seq: u64,
}

/// What the core is told.
#[derive(Debug)]
pub(crate) enum Input {
    /// A stream of dialogues said hello (checked).
    DialoguesOpened {
        link: LinkId,
        received: Instant,
        hello: cti::v1::Hello,
        frame: cti::v1::DialoguesRequest,
        malformed: Vec<Malformed>,
    },
    /// A frame of dialogues.
    Dialogues {
        link: LinkId,
        received: Instant,
        frame: cti::v1::DialoguesRequest,
        malformed: Vec<Malformed>,
    },
    /// A stream of events said hello (checked).
    EventsOpened { link: LinkId, hello: cti::v1::Hello },
    /// A frame of events.
    Events {
        link: LinkId,
        events: Vec<cti::v1::SwitchEvent>,
        malformed: Vec<Malformed>,
    },
    /// A stream of commands said hello (checked).
    CommandsOpened { link: LinkId, hello: cti::v1::Hello },
    /// Results of commands.
    Results {
        link: LinkId,
        results: Vec<cti::v1::CommandResult>,
        malformed: usize,
    },
    /// A link to a routing replica is open.
    RoutingUp { link: LinkId },
    /// A frame of routing.
    Routing {
        link: LinkId,
        frame: wire::v1::LinkResponse,
    },
    /// A link to an intent replica is open.
    IntentUp { link: LinkId },
    /// A frame of intent.
    Intent {
        link: LinkId,
        frame: intent::v1::LinkResponse,
    },
    /// A link to a callback replica is open.
    CallbackUp { link: LinkId },
    /// A frame of callback.
    Callback {
        link: LinkId,
        frame: callback::v1::LinkResponse,
    },
    /// A stream or link is gone.
    Closed { link: LinkId },
    /// New calls go elsewhere from now on.
    Drain,
}

/// What is to be sent.
#[derive(Debug)]
pub(crate) enum Outgoing {
    Dialogues(LinkId, cti::v1::DialoguesResponse),
    Events(LinkId, cti::v1::EventsResponse),
    Commands(LinkId, cti::v1::CommandsResponse),
    Routing(LinkId, wire::v1::LinkRequest),
    Intent(LinkId, intent::v1::LinkRequest),
    Callback(LinkId, callback::v1::LinkRequest),
    /// So many more events may be read from this stream.
    EventsMayRead(LinkId, usize),
    /// End this stream, and why.
    Close(LinkId, &'static str),
}

/// What a link is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// The session's number.
    Dialogues(u64),
    /// The source's number.
    Events(u64),
    /// The source's number.
    Commands(u64),
    Routing,
    Intent,
    Callback,
}

impl Role {
    fn stream(self) -> Stream {
        match self {
            Role::Dialogues(_) => Stream::Dialogues,
            Role::Events(_) => Stream::Events,
            Role::Commands(_) => Stream::Commands,
            Role::Routing => Stream::Routing,
            Role::Intent => Stream::Intent,
            Role::Callback => Stream::Callback,
        }
    }
}

/// What is remembered of a contact from its route request, for later bookings.
#[derive(Clone, Debug, Default)]
struct ContactMemo {
    line: String,
    topic: String,
    language: String,
    caller: bytes::Bytes,
    arrived_at: TimeMs,
    expected_callback_ms: u64,
}

/// An intent link and what waits to be sent on it.
#[derive(Debug, Default)]
struct IntentPeer {
    batch: Vec<intent::v1::Query>,
    draining: bool,
}

/// What [`Core`] shares with the readiness probe and the drain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Health {
    /// Pools that no connected replica owns.
    pub(crate) pools_without_owner: usize,
    /// Connected intent replicas.
    pub(crate) intent: usize,
    /// Connected callback replicas.
    pub(crate) callback: usize,
    /// Dialogues, reports and bookings that are not finished.
    pub(crate) unfinished: usize,
}

/// The gateway's state. See the module's header.
pub(crate) struct Core {
    config: Config,
    instance: String,
    policy: Arc<Policy>,
    keys: Keys,
    metrics: Metrics,
    draining: bool,
    next_number: u64,
    links: HashMap<LinkId, Role>,
    closing: Vec<(LinkId, &'static str)>,
    slow_tick_at: TimeMs,

    sources: HashMap<u64, SourceState>,
    source_by_name: HashMap<(String, u64), u64>,
    boot_by_switch: HashMap<String, u64>,
    sessions: HashMap<u64, sessions::Session>,
    session_by_id: HashMap<String, u64>,
    touched_sessions: Vec<u64>,

    admission: Admission,
    dialogues: HashMap<u64, dialogues::Dialogue>,
    answered_order: VecDeque<(u64, u64)>,
    in_flight: usize,
    wheel: Wheel<(u64, dialogues::Alarm)>,
    due: Vec<(u64, dialogues::Alarm)>,
    shed: Memory<(u64, u64), ()>,
    answered_in_batch: Vec<Instant>,
    calls: Memory<(u64, String), (ContactId, usize)>,
    contacts: Memory<ContactId, ContactMemo>,

    pools: Vec<routing::Pool>,
    pool_by_name: HashMap<String, usize>,
    routing_peers: BTreeMap<LinkId, routing::Peer>,
    requests: HashMap<u64, routing::Asked>,
    intent_peers: BTreeMap<LinkId, IntentPeer>,
    intent_turn: usize,

    /// Pools that agents logged on to, as far as this node has seen.
    agent_pools: Memory<String, usize>,
    policy_agents: HashMap<String, usize>,
    touched_windows: Vec<u64>,
    callback_peers: BTreeMap<LinkId, bookings::Peer>,
    bookings: HashMap<u64, bookings::Booking>,
    outstanding: HashMap<u64, commands::Outstanding>,
    command_batches: BTreeMap<LinkId, Vec<cti::v1::Command>>,
    welcomes: Vec<(LinkId, cti::v1::Welcome)>,
    dialled: Memory<(ContactId, u32), commands::Dialled>,
    logs: Logs,
}

/// One line in ten seconds for each thing that can go wrong in a loop.
#[derive(Debug)]
struct Logs {
    refused: runtime::LogLimit,
    booking: runtime::LogLimit,
    violation: runtime::LogLimit,
}

impl Core {
    /// A core at rest.
    pub(crate) fn new(
        config: Config,
        instance: String,
        policy: Arc<Policy>,
        keys: Keys,
        metrics: Metrics,
        now: TimeMs,
    ) -> Self {
        let pools: Vec<routing::Pool> = policy
            .pools
            .keys()
            .map(|name| routing::Pool::new(name))
            .collect();
        let pool_by_name = policy
            .pools
            .keys()
            .enumerate()
            .map(|(index, name)| (name.clone(), index))
            .collect();
        let limit = || runtime::LogLimit::new(std::time::Duration::from_secs(10));
        let mut policy_agents = HashMap::new();
        for (index, pool) in policy.pools.values().enumerate() {
            for agent in pool.agents.keys() {
                policy_agents.entry(agent.clone()).or_insert(index);
            }
        }
        Self {
            admission: Admission::new(
                config.admission_per_second,
                config.admission_burst,
                config.in_flight_max,
                now,
            ),
            shed: Memory::new(65_536),
            calls: Memory::new(config.remembered_calls_max),
            contacts: Memory::new(config.remembered_calls_max),
            dialled: Memory::new(config.remembered_calls_max),
            agent_pools: Memory::new(config.remembered_calls_max),
            policy_agents,
            wheel: Wheel::new(now),
            slow_tick_at: now,
            config,
            instance,
            policy,
            keys,
            metrics,
            draining: false,
            next_number: 0,
            links: HashMap::new(),
            closing: Vec::new(),
            sources: HashMap::new(),
            source_by_name: HashMap::new(),
            boot_by_switch: HashMap::new(),
            sessions: HashMap::new(),
            session_by_id: HashMap::new(),
            touched_sessions: Vec::new(),
            dialogues: HashMap::new(),
            answered_order: VecDeque::new(),
            in_flight: 0,
            due: Vec::new(),
            answered_in_batch: Vec::new(),
            pools,
            pool_by_name,
            routing_peers: BTreeMap::new(),
            requests: HashMap::new(),
            intent_peers: BTreeMap::new(),
            intent_turn: 0,
            touched_windows: Vec::new(),
            callback_peers: BTreeMap::new(),
            bookings: HashMap::new(),
            outstanding: HashMap::new(),
            command_batches: BTreeMap::new(),
            welcomes: Vec::new(),
            logs: Logs {
                refused: limit(),
                booking: limit(),
                violation: limit(),
            },
        }
    }

    /// Applies one input.
    pub(crate) fn handle(&mut self, now: Moment, input: Input) {
        match input {
            Input::DialoguesOpened {
                link,
                received,
                hello,
                frame,
                malformed,
            } => {
                self.dialogues_opened(now, link, received, &hello, frame, &malformed);
            }
            Input::Dialogues {
                link,
                received,
                frame,
                malformed,
            } => {
                self.dialogues_frame(now, link, received, frame, &malformed);
            }
            Input::EventsOpened { link, hello } => self.events_opened(now, link, &hello),
            Input::Events {
                link,
                events,
                malformed,
            } => self.events_frame(now, link, events, malformed),
            Input::CommandsOpened { link, hello } => self.commands_opened(now, link, &hello),
            Input::Results {
                link,
                results,
                malformed,
            } => {
                for _ in 0..malformed {
                    self.metrics
                        .refusals
                        .inc(crate::metrics::RefusedClass::CommandResult as usize);
                }
                self.results(link, results);
            }
            Input::RoutingUp { link } => self.routing_up(link),
            Input::Routing { link, frame } => self.routing_frame(now, link, frame),
            Input::IntentUp { link } => {
                self.open_link(link, Role::Intent);
                self.intent_peers.insert(link, IntentPeer::default());
            }
            Input::Intent { link, frame } => self.intent_frame(now, link, frame),
            Input::CallbackUp { link } => self.callback_up(now, link),
            Input::Callback { link, frame } => self.callback_frame(now, link, frame),
            Input::Closed { link } => self.closed(now, link),
            Input::Drain => self.drain(),
        }
    }

    /// Lets time pass: deadlines, heartbeats, retries, expiry.
    pub(crate) fn tick(&mut self, now: Moment) {
        self.fire_alarms(now);
        if now.wall >= self.slow_tick_at {
            self.slow_tick_at = now.wall.plus(SLOW_TICK_MS);
            self.tick_sessions(now);
            self.tick_bookings(now);
            self.tick_commands(now);
            self.tick_windows(now);
            self.tick_sources(now);
            self.measure(now);
        }
    }

    /// What can be asked from outside.
    pub(crate) fn health(&self) -> Health {
        Health {
            pools_without_owner: self.pools.iter().filter(|pool| !pool.is_owned()).count(),
            intent: self.intent_peers.len(),
            callback: self.callback_peers.len(),
            unfinished: self.in_flight
                + self.bookings.len()
                + self.pools.iter().map(routing::Pool::waiting).sum::<usize>(),
        }
    }

    /// Hands over everything that is to be sent.
    pub(crate) fn flush(&mut self, now: Instant, out: &mut Vec<Outgoing>) {
        self.flush_sessions(out);
        self.flush_windows(out);
        self.flush_routing(out);
        for (link, peer) in &mut self.intent_peers {
            while !peer.batch.is_empty() {
                let rest = peer
                    .batch
                    .split_off(peer.batch.len().min(INTENT_QUERIES_MAX));
                let queries = std::mem::replace(&mut peer.batch, rest);
                out.push(Outgoing::Intent(*link, intent::v1::LinkRequest { queries }));
            }
        }
        self.flush_bookings(out);
        self.flush_commands(out);
        for received in self.answered_in_batch.drain(..) {
            self.metrics
                .answer_seconds
                .observe(now.saturating_duration_since(received).as_secs_f64());
        }
        for (link, reason) in self.closing.drain(..) {
            out.push(Outgoing::Close(link, reason));
        }
    }

    fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    fn open_link(&mut self, link: LinkId, role: Role) {
        self.metrics.streams[role.stream() as usize].inc();
        self.links.insert(link, role);
    }

    fn closed(&mut self, now: Moment, link: LinkId) {
        let Some(role) = self.links.remove(&link) else {
            return;
        };
        self.metrics.streams[role.stream() as usize].dec();
        match role {
            Role::Dialogues(session) => self.session_lost(now, session, link),
            Role::Events(source) => self.events_closed(source, link),
            Role::Commands(source) => self.commands_closed(now, source, link),
            Role::Routing => self.routing_down(now, link),
            Role::Intent => self.intent_down(now, link),
            Role::Callback => self.callback_down(now, link),
        }
    }

    fn drain(&mut self) {
        self.draining = true;
        self.broadcast_status(cti::v1::SystemCondition::Disabled);
    }

    fn measure(&mut self, now: Moment) {
        let gauge = |value: usize| i64::try_from(value).unwrap_or(i64::MAX);
        let percent = self.admission.percent(now.wall);
        self.metrics
            .admission_tokens_percent
            .set(i64::try_from(percent).unwrap_or(100));
        self.metrics.in_flight.set(gauge(self.in_flight));
        let credits: usize = self
            .sessions
            .values()
            .map(|session| session.outstanding as usize)
            .sum();
        self.metrics.credits_outstanding.set(gauge(credits));
        let waiting: usize = self.pools.iter().map(routing::Pool::waiting).sum();
        self.metrics.reports_waiting.set(gauge(waiting));
        let open: usize = self
            .sources
            .values()
            .map(|state| state.window.waiting())
            .sum();
        self.metrics.events_unacknowledged.set(gauge(open));
        if let Some(condition) = self.admission.changed(now.wall, self.in_flight)
            && !self.draining
        {
            self.broadcast_status(condition);
        }
    }
}

/// Heartbeats, retries and expiry are looked at this often.
const SLOW_TICK_MS: u64 = 100;
/// Intent takes so many queries in a frame.
const INTENT_QUERIES_MAX: usize = 256;
