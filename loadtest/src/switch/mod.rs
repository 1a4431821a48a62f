//! A synthetic switch: the switching function of `cti/v1`, as a pure state machine.
//!
//! [`Core`] holds calls, agents' phones, dialogues with their reply timers, the links to
//! the gateways, and the events that the mesh has not acknowledged. Time is passed in; what
//! the network must carry is fetched frame by frame ([`Core::next_frame`]) when there is
//! room for it, so a slow gateway pushes back to here and nothing grows without a bound
//! but the unacknowledged events, which are bounded by the scenario's calls. What people
//! at the phones notice comes out as [`Happening`]s, what the record needs as
//! [`Line`]s. The network is [`crate::net`], the people are [`crate::people`].
//!
//! It keeps the contract's rules by number: the default route is decided here and needs no
//! network (4); a request goes to one node by rendezvous hash (7), to the next one when the
//! link is lost, and new calls avoid a node after three reply timeouts in a row; out of
//! credit, a request waits at most half its timeout (6).
//!
//! Rejected: a task for each call. At 15,000 calls/s on two cores shared with the mesh the
//! harness may spend some 20 us a call; a map and a heap cost a tenth of that.

mod agents;
mod calls;
mod commands;
mod dialogue;
mod links;
mod outbox;
mod snapshot;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};

use bytes::Bytes;
use proto::cti::v1 as cti;

pub(crate) use links::{Frame, StreamKind};

use crate::record::{CallNumber, Entry, Leg, Line, Release};
use crate::time::{MILLISECOND, SECOND, Us};
use links::Node;
use outbox::Outbox;

/// How the switch is set up.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// Its name.
    pub(crate) switch_id: String,
    /// Its boot, never 0.
    pub(crate) boot_id: u64,
    /// What the mesh gets to answer.
    pub(crate) reply_timeout: Us,
    /// How long an agent's device rings by itself.
    pub(crate) ring_max: Us,
    /// How long an announcement takes before the call is cleared.
    pub(crate) announcement: Us,
    /// Numbers shown when calling back, each with a number of its line: the switch knows
    /// which of its lines it dials for.
    pub(crate) callback_lines: HashMap<String, String>,
}

/// A call that reaches the switch.
#[derive(Clone, Debug)]
pub(crate) struct NewCall {
    /// Whose, in the scenario.
    pub(crate) caller: u32,
    /// When it should have come.
    pub(crate) intended: Us,
    /// Why it comes.
    pub(crate) leg: Leg,
    /// The number dialled.
    pub(crate) line: String,
    /// The caller's number; `None`: withheld.
    pub(crate) number: Option<String>,
    /// Language.
    pub(crate) language: String,
    /// What the caller said.
    pub(crate) utterance: String,
    /// What the caller pressed.
    pub(crate) digits: String,
    /// Authenticated by the IVR.
    pub(crate) authenticated: bool,
    /// The contact it goes on with (callback); empty: a new one.
    pub(crate) correlator: Bytes,
    /// The true topic, for the record only.
    pub(crate) topic: String,
}

/// What the people at the phones notice.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Happening {
    /// The caller is in line and may have been offered something.
    Queued {
        call: CallNumber,
        offers: Vec<cti::Offer>,
    },
    /// An agent's phone rings.
    Rings { call: CallNumber, phone: usize },
    /// The agent's part is over.
    Released {
        call: CallNumber,
        phone: usize,
        why: Release,
    },
    /// An agent talks to the caller.
    Connected { call: CallNumber, phone: usize },
    /// The caller hears a message and is cleared.
    Message { call: CallNumber },
    /// The caller is on the default route.
    Defaulted { call: CallNumber },
    /// The caller hears that the callback is booked.
    Booked {
        call: CallNumber,
        contact: String,
        code: String,
    },
    /// The caller hears that it is not, and stays in line.
    BookingFailed { call: CallNumber },
    /// The mesh set an agent's state.
    AgentSet {
        phone: usize,
        state: cti::AgentState,
    },
    /// The mesh has somebody called.
    Dial {
        dial: u64,
        number: String,
        ring_ms: u32,
    },
    /// The call is over.
    Ended { call: CallNumber },
}

/// What the switch counts, for the progress line and the report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Counts {
    /// Calls that reached the switch, callback legs included.
    pub(crate) calls: u64,
    /// Answers of the mesh in time.
    pub(crate) answers: u64,
    /// Agents who answered.
    pub(crate) established: u64,
    /// Callers who gave up.
    pub(crate) gave_up: u64,
    /// Callers who heard a message.
    pub(crate) messages: u64,
    /// Default route: timer.
    pub(crate) default_timer: u64,
    /// Default route: the mesh said so.
    pub(crate) default_mesh: u64,
    /// Default route: no link or credit.
    pub(crate) default_no_link: u64,
    /// Callbacks booked.
    pub(crate) booked: u64,
    /// Dials.
    pub(crate) dials: u64,
    /// Answers that came too late.
    pub(crate) late: u64,
    /// Calls in line now.
    pub(crate) waiting: u64,
}

/// The switch.
#[derive(Debug)]
pub(crate) struct Core {
    config: Config,
    nodes: Vec<Node>,
    calls: HashMap<CallNumber, Call>,
    next_call: CallNumber,
    phones: Vec<Phone>,
    phone_by_agent: HashMap<String, usize>,
    outbox: Outbox,
    timers: BinaryHeap<Reverse<(Us, u64, Timer)>>,
    timer_sequence: u64,
    /// Requests that wait for credit or a link, oldest first.
    without_credit: VecDeque<Question>,
    dials: HashMap<u64, Dial>,
    next_dial: u64,
    /// By how much the last tick was late: told with a default route, so that the checker
    /// does not blame the mesh for a slow harness.
    slow: Us,
    happenings: Vec<Happening>,
    record: Vec<Line>,
    /// Nodes whose connections the shell must drop: no heartbeat.
    dead_nodes: Vec<usize>,
    counts: Counts,
}

/// A question to the mesh: the dialogue of a call, and how often it was asked again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Question {
    call: CallNumber,
    dialogue: u32,
    round: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// The mesh's time to answer is over.
    Reply(Question),
    /// A request without credit has waited long enough.
    Credit(Question),
    /// An agent's phone has rung long enough: which ring of the call.
    Ring(CallNumber, u32),
    /// The announcement is over.
    Announcement(CallNumber),
    /// Heartbeat of a node, of its how-manieth connection.
    Heartbeat(usize, u64),
}

#[derive(Debug)]
struct Call {
    new: NewCall,
    arrived: Us,
    correlator: Bytes,
    contact: String,
    place: Place,
    routed_by: cti::RoutedBy,
    dialogue: Option<Dialogue>,
    dialogues: u32,
    /// The last answer taken: (dialogue, round, destination).
    answered: Option<(u32, u32, String)>,
    rings: u32,
    /// An agent who stays on the line until the next one answers.
    warm: Option<usize>,
    /// The caller is not in this call any more once the announcement is over: booked.
    leaving: bool,
}

#[derive(Clone, Debug, PartialEq)]
enum Place {
    Asking,
    Queued(String),
    Alerting(usize),
    Connected(usize),
    Announcement,
    Default,
}

#[derive(Debug)]
struct Dialogue {
    number: u32,
    round: u32,
    /// Asked now; `None`: waits for credit or a link.
    node: Option<usize>,
    /// The time to answer is over then.
    deadline: Us,
    /// Since when the latency counts.
    intended: Us,
    /// A link was lost while it was asked.
    link_lost: bool,
    /// Why another destination is asked for, if it is.
    failed: Option<cti::Cause>,
}

#[derive(Debug)]
struct Phone {
    agent: String,
    device: String,
    state: cti::AgentState,
    skills: Vec<(String, u32)>,
    languages: Vec<String>,
    call: Option<CallNumber>,
    since: Us,
    /// The next call fails at the device.
    out_of_order: bool,
    /// The last conversation, which the wrap-up is about.
    last: Option<(cti::CallRef, Bytes)>,
}

#[derive(Debug)]
struct Dial {
    node: usize,
    connection: u64,
    invoke_id: u64,
    correlator: Bytes,
    contact: String,
    line: String,
    language: String,
}

// === impl Core ===

impl Core {
    /// A switch with one link to each of `nodes`.
    pub(crate) fn new(config: Config, nodes: &[String]) -> Self {
        Self {
            config,
            nodes: nodes.iter().map(|name| Node::new(name)).collect(),
            calls: HashMap::new(),
            next_call: 1,
            phones: Vec::new(),
            phone_by_agent: HashMap::new(),
            outbox: Outbox::default(),
            timers: BinaryHeap::new(),
            timer_sequence: 0,
            without_credit: VecDeque::new(),
            dials: HashMap::new(),
            next_dial: 1,
            slow: 0,
            happenings: Vec::new(),
            record: Vec::new(),
            dead_nodes: Vec::new(),
            counts: Counts::default(),
        }
    }

    /// When [`Core::tick`] is next needed.
    pub(crate) fn next_deadline(&self) -> Option<Us> {
        self.timers.peek().map(|Reverse((at, _, _))| *at)
    }

    /// Carries out every timer that is due.
    pub(crate) fn tick(&mut self, now: Us) {
        while let Some(Reverse((at, _, _))) = self.timers.peek() {
            if *at > now {
                return;
            }
            let Some(Reverse((at, _, timer))) = self.timers.pop() else {
                return;
            };
            self.slow = now - at;
            match timer {
                Timer::Reply(question) => self.reply_time_over(now, question),
                Timer::Credit(question) => self.credit_time_over(now, question),
                Timer::Ring(call, ring) => self.ring_time_over(now, call, ring),
                Timer::Announcement(call) => self.announcement_over(now, call),
                Timer::Heartbeat(node, connection) => self.heartbeat(now, node, connection),
            }
        }
    }

    /// What people noticed since the last call.
    pub(crate) fn take_happenings(&mut self, into: &mut Vec<Happening>) {
        into.append(&mut self.happenings);
    }

    /// What is to be recorded since the last call.
    pub(crate) fn take_record(&mut self, into: &mut Vec<Line>) {
        into.append(&mut self.record);
    }

    /// Nodes to be disconnected: they stopped sending heartbeats.
    pub(crate) fn take_dead_nodes(&mut self) -> Vec<usize> {
        std::mem::take(&mut self.dead_nodes)
    }

    /// What it counts.
    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    /// Calls alive now.
    pub(crate) fn live_calls(&self) -> usize {
        self.calls.len()
    }

    /// Dials that have not ended.
    pub(crate) fn live_dials(&self) -> usize {
        self.dials.len()
    }

    /// Events made, and events that the mesh holds.
    pub(crate) fn events(&self) -> (u64, u64) {
        (self.outbox.made(), self.outbox.acknowledged())
    }

    /// The node that the events go to.
    pub(crate) fn events_node(&self) -> Option<usize> {
        self.outbox.node()
    }

    fn timer(&mut self, at: Us, timer: Timer) {
        self.timer_sequence += 1;
        self.timers.push(Reverse((at, self.timer_sequence, timer)));
    }

    fn note(&mut self, at: Us, entry: Entry) {
        self.record.push(Line { at, entry });
    }
}

/// The contact in correlator data, as the events have it; empty if there is none.
///
/// A real switch does not look into it. The harness does, to know which contact of the
/// mesh a call is; nothing the switch does depends on it.
fn contact_of(correlator: &[u8]) -> String {
    use prost::Message as _;
    let decoded = cti::Correlator::decode(correlator).ok();
    let contact =
        decoded.and_then(|correlator| domain::ContactId::from_bytes(&correlator.contact_id).ok());
    contact
        .map(|contact| contact.to_string())
        .unwrap_or_default()
}

/// After three timeouts in a row a node is left alone for this long: long enough not to
/// hammer one that is stuck, short beside a restart.
const AVOID: Us = 2 * SECOND;
/// Reply timeouts in a row after which new calls go to the next node.
const TIMEOUTS_MAX: u32 = 3;
/// Heartbeats missed after which a node is dead.
const MISSED_MAX: u64 = 4;

const fn ms(time: Us) -> u64 {
    time / MILLISECOND
}
