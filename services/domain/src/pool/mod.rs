//! A pool: who waits, who is ready, who gets whom. A plain state machine: inputs in,
//! outputs out, time passed in; one owner at a time.
//!
//! - [`Input`] and [`Output`] are its specification; every input gets one [`Reply`].
//! - The records ([`OpenContact`], [`AgentRecord`]) are its state; [`Pool::take_changes`]
//!   gives what changed, [`Pool::restore`] goes on from it. Indexes follow from records.
//! - An arriving call takes the agent who has been idle longest of those who can serve it.
//!   An agent who frees takes the caller of highest priority, `min(cap, start +
//!   acceleration x waited)`, ties by first arrival. Nothing changes a first arrival.
//! - Every step costs the logarithm of what waits or is ready; no step walks the calls or
//!   the agents, but for a switch's restart or the end of its snapshot.
//!
//! | module | holds |
//! |---|---|
//! | `state`, `index`, `lookup`, `order` | memory layout, indexes kept in step, by id, positions |
//! | `contact`, `call` | inputs about a contact: routeing; what became of the call |
//! | `agent` | agents, their places, wrap-up |
//! | `matching` | who gets whom, and back in line |
//! | `transfer`, `virtual_hold` | place kept without the first agent; without the leg |
//! | `snapshot` | reconciliation with a switch; a switch's restart |
//! | `expected_wait`, `status` | estimates; reading |
//! | `events`, `timers`, `changes` | writing; deadlines; records out and in |

mod agent;
mod call;
mod catalogue;
mod changes;
mod contact;
mod events;
mod expected_wait;
mod index;
mod input;
mod lookup;
mod matching;
mod order;
mod output;
mod record;
mod snapshot;
mod state;
mod status;
mod timers;
mod transfer;
mod virtual_hold;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

pub use input::{
    AgentSkill, AgentUpdate, CallbackEnd, CallbackStep, Cause, Cleared, Disposition, Input,
    InputBody, NoticeKind, RouteInput, RoutedBy, SnapshotCall, SnapshotPlace, SurveyAnswers,
    SwitchAgentState, SwitchRef, VirtualRegistration,
};
pub use output::{
    Answer, Command, CommandBody, ContactContext, Event, EventBody, Output, Outputs, QueuePlace,
    QueuedReason, Reply, ReplyBody, Window,
};
pub use record::{
    AgentRecord, Announced, Changes, ContactRecord, EndedContact, Hold, HoldPhase, Measured,
    MetaRecord, OpenContact, Phase, VirtualPlace, VirtualState,
};
pub use status::{PoolStatus, QueueStatus};

use crate::id::FieldError;
use crate::invariant::{Invariant, Violation};
use crate::policy::Policy;
use crate::{AgentId, CallerId, ContactId, SwitchId, TimeMs};
use catalogue::Catalogue;
use state::{Agent, AgentCounts, Contact, Desk, Ended, Lane, Languages, Slab, Snapshot, Timer};

/// Spoken when nothing else is known.
const DEFAULT_LANGUAGE: &str = "en";

/// A pool.
#[derive(Debug)]
pub struct Pool {
    policy: Arc<Policy>,
    name: Arc<str>,
    catalogue: Arc<Catalogue>,
    /// Never goes back, whatever the caller's clock does.
    now: TimeMs,
    /// When the input at hand happened: at most `now`.
    at: TimeMs,

    contacts: Slab<Contact>,
    ended: BTreeMap<ContactId, Ended>,
    ended_order: VecDeque<(TimeMs, ContactId)>,
    forget_at: Option<TimeMs>,
    agents: Slab<Agent>,
    agent_counts: AgentCounts,
    /// Agents counted as staff, and at how many desks they sit together.
    staff: (u64, u64),

    languages: Languages,
    lanes: Vec<Lane>,
    lane_by: BTreeMap<(u16, u16), u32>,
    desks: Vec<Desk>,
    desk_by: BTreeMap<(u32, u16), u32>,
    queue_waiting: Vec<u32>,
    waiting: u32,
    caller_places: BTreeMap<(u32, CallerId), u32>,
    measured: Vec<Measured>,
    timers: BTreeSet<(TimeMs, Timer)>,
    turns_at: Option<TimeMs>,
    lanes_with_turns: BTreeSet<u32>,
    snapshots: BTreeMap<SwitchId, Snapshot>,

    /// Work of the input at hand: agents who became free, contacts back in line, lanes in
    /// which someone left, the contact whose answer is being made.
    freed: Vec<u32>,
    requeued: Vec<(u32, ContactId, QueuedReason)>,
    touched: Vec<u32>,
    answering: Option<u32>,

    changed_contacts: Vec<ContactId>,
    changed_agents: Vec<AgentId>,
    numbers: Numbers,

    holds_expired: u64,
    refused_full: u64,
    refused_caller_limit: u64,
    reservations_expired: u64,
    forgotten_early: u64,
}

/// Counters that outlive the process: written ahead in blocks, so that the pool's own
/// record is seldom written and no number is used twice.
#[derive(Debug, Default)]
struct Numbers {
    command: u64,
    command_until: u64,
    idle: u64,
    idle_until: u64,
    changed: bool,
    measured_at: TimeMs,
}

/// Numbers taken ahead at once.
const NUMBERS_BLOCK: u64 = 1 << 16;

impl Numbers {
    fn next_command(&mut self) -> u64 {
        self.command += 1;
        if self.command >= self.command_until {
            self.command_until = self.command + NUMBERS_BLOCK;
            self.changed = true;
        }
        self.command
    }

    fn next_idle(&mut self) -> u64 {
        self.idle += 1;
        if self.idle >= self.idle_until {
            self.idle_until = self.idle + NUMBERS_BLOCK;
            self.changed = true;
        }
        self.idle
    }
}

impl Pool {
    /// An empty pool. `name` must be a pool of `policy`.
    ///
    /// # Panics
    /// If it is not: the driver asks only for pools of its policy.
    #[must_use]
    pub fn new(policy: Arc<Policy>, name: &str) -> Pool {
        let catalogue =
            Catalogue::new(&policy, name).expect("the driver asks only for pools of its policy");
        let measured = catalogue.queues.iter().map(expected_wait::prior).collect();
        let queue_waiting = vec![0; catalogue.queues.len()];
        Pool {
            policy,
            name: name.into(),
            catalogue: Arc::new(catalogue),
            now: TimeMs::default(),
            at: TimeMs::default(),
            contacts: Slab::default(),
            ended: BTreeMap::new(),
            ended_order: VecDeque::new(),
            forget_at: None,
            agents: Slab::default(),
            agent_counts: AgentCounts::default(),
            staff: (0, 0),
            languages: Languages::default(),
            lanes: Vec::new(),
            lane_by: BTreeMap::new(),
            desks: Vec::new(),
            desk_by: BTreeMap::new(),
            queue_waiting,
            waiting: 0,
            caller_places: BTreeMap::new(),
            measured,
            timers: BTreeSet::new(),
            turns_at: None,
            lanes_with_turns: BTreeSet::new(),
            snapshots: BTreeMap::new(),
            freed: Vec::new(),
            requeued: Vec::new(),
            touched: Vec::new(),
            answering: None,
            changed_contacts: Vec::new(),
            changed_agents: Vec::new(),
            numbers: Numbers::default(),
            holds_expired: 0,
            refused_full: 0,
            refused_caller_limit: 0,
            reservations_expired: 0,
            forgotten_early: 0,
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its policy.
    #[must_use]
    pub fn policy(&self) -> &Arc<Policy> {
        &self.policy
    }

    /// Takes one input: whatever is due by `now` is done first, so that the order of
    /// inputs and deadlines does not depend on the driver.
    pub fn handle(&mut self, now: TimeMs, input: Input, out: &mut Outputs) {
        if self.timers.first().is_some_and(|(at, _)| *at <= now) {
            self.tick(now, out);
        }
        self.begin(now, input.occurred_at);
        let token = input.token;
        let body = self.dispatch(input, out);
        self.settle(out);
        self.answering = None;
        out.push(Output::Reply(Reply { token, body }));
    }

    fn begin(&mut self, now: TimeMs, occurred_at: TimeMs) {
        self.now = self.now.max(now);
        self.at = if occurred_at == TimeMs::default() {
            self.now
        } else {
            occurred_at.min(self.now)
        };
    }

    fn dispatch(&mut self, input: Input, out: &mut Outputs) -> ReplyBody {
        let Input {
            contact,
            source,
            traceparent,
            body,
            ..
        } = input;
        let done = match (contact, body) {
            (_, InputBody::Agent(update)) => self.agent_changed(source, update, false, out),
            (_, InputBody::SnapshotAgent(update)) => self.agent_changed(source, update, true, out),
            (_, InputBody::SnapshotBegin) => self.snapshot_begin(source),
            (_, InputBody::SnapshotEnd) => self.snapshot_end(source, out),
            (_, InputBody::SwitchBoot) => self.switch_boot(source, out),
            (
                contact,
                InputBody::CommandDone {
                    command,
                    agent,
                    failed,
                },
            ) => {
                self.command_done(contact, command, agent.as_ref(), failed, out);
                Ok(())
            }
            (None, _) => Err(FieldError::new(
                "contact_id",
                "16 bytes: this input is about a contact",
                "none",
            )),
            (Some(id), InputBody::Route(route)) => {
                return self
                    .route(id, source, &traceparent, route, out)
                    .unwrap_or_else(ReplyBody::Refused);
            }
            (Some(id), InputBody::Reroute { cause, deadline }) => {
                return self.reroute(id, cause, deadline, out);
            }
            (Some(id), InputBody::Cleared(cleared)) => {
                self.cleared(id, source, &traceparent, cleared, out)
            }
            (Some(id), InputBody::SnapshotCall(call)) => {
                self.snapshot_call(id, source, &traceparent, call, out)
            }
            (Some(id), InputBody::RegisterVirtual(registration)) => {
                self.register_virtual(id, source, &traceparent, registration, out)
            }
            (Some(id), body) => match self.contacts.find(id) {
                Some(index) => self.about_contact(index, body, out),
                None => self.about_unknown(id, &body),
            },
        };
        match done {
            Ok(()) => ReplyBody::Acknowledged,
            Err(error) => ReplyBody::Refused(error),
        }
    }

    fn about_contact(
        &mut self,
        index: u32,
        body: InputBody,
        out: &mut Outputs,
    ) -> Result<(), FieldError> {
        match body {
            InputBody::RouteFailed { caller_gave_up } => {
                self.route_failed(index, caller_gave_up, out)
            }
            InputBody::AtQueue => self.at_queue(index, out),
            InputBody::Delivered { agent } => return self.delivered(index, &agent, out),
            InputBody::Established { agent } => return self.established(index, &agent, out),
            InputBody::Failed { agent, cause } => {
                return self.failed(index, agent.as_ref(), cause, out);
            }
            InputBody::WrappedUp {
                agent,
                disposition,
                topic,
            } => {
                return self.wrapped_up(index, &agent, disposition, topic.as_deref(), out);
            }
            InputBody::Survey(answers) => self.survey(index, answers, out),
            InputBody::Transfer {
                from,
                topic,
                warm,
                authenticated,
            } => {
                return self.transfer(index, &from, &topic, warm, authenticated, out);
            }
            InputBody::Moved { from, to } => return self.moved(index, &from, to.as_ref(), out),
            InputBody::CancelVirtual { end, report } => {
                self.cancel_virtual(index, end, report, out)
            }
            InputBody::CallbackProgress {
                attempt,
                step,
                next_at,
                report,
            } => {
                self.callback_progress(index, attempt, step, next_at, report, out);
            }
            InputBody::OfferDeclined => self.offer_declined(index, out),
            InputBody::NoticeAcknowledged { kind, turn } => {
                self.notice_acknowledged(index, kind, turn)
            }
            InputBody::Route(_)
            | InputBody::Reroute { .. }
            | InputBody::Cleared(_)
            | InputBody::Agent(_)
            | InputBody::SnapshotBegin
            | InputBody::SnapshotCall(_)
            | InputBody::SnapshotAgent(_)
            | InputBody::SnapshotEnd
            | InputBody::SwitchBoot
            | InputBody::RegisterVirtual(_)
            | InputBody::CommandDone { .. } => {}
        }
        Ok(())
    }

    /// An input about a contact that is over (known already), or that was never heard of:
    /// whatever it was, the end of its call will tell.
    fn about_unknown(&self, id: ContactId, body: &InputBody) -> Result<(), FieldError> {
        if self.ended.contains_key(&id) {
            return Ok(());
        }
        let agent = match body {
            InputBody::Delivered { agent }
            | InputBody::Established { agent }
            | InputBody::WrappedUp { agent, .. }
            | InputBody::Transfer { from: agent, .. }
            | InputBody::Moved { from: agent, .. } => Some(agent),
            InputBody::Failed { agent, .. } => agent.as_ref(),
            _ => None,
        };
        agent.map_or(Ok(()), |agent| self.known_agent(agent).map(drop))
    }

    /// Serves agents who became free, then tells those who are still in line where they
    /// stand, until nothing moves any more.
    fn settle(&mut self, out: &mut Outputs) {
        loop {
            let mut next = 0;
            while next < self.freed.len() {
                let agent = self.freed[next];
                next += 1;
                self.serve(agent, out);
            }
            self.freed.clear();
            while let Some(lane) = self.touched.pop() {
                self.look_at_turns(lane, out);
            }
            if self.freed.is_empty() {
                break;
            }
        }
        let mut requeued = std::mem::take(&mut self.requeued);
        for (index, id, reason) in requeued.drain(..) {
            self.back_in_line(index, id, reason, out);
        }
        self.requeued = requeued;
        if self.turns_at.is_none() && !self.lanes_with_turns.is_empty() {
            let at = self.now.plus(timers::TURNS_EVERY_MS);
            self.turns_at = Some(at);
            self.timers.insert((at, Timer::Turns));
        }
    }

    fn violation(&self, invariant: Invariant, detail: String, out: &mut Outputs) {
        out.push(Output::Violation(Violation { invariant, detail }));
    }
}
