//! What one commit carries: inputs that wait for their reply, the pool's outputs, and the
//! changes as they are written.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use domain::id::FieldError;
use domain::invariant::{Invariant, Violation};
use domain::pool::{Answer, Changes, InputBody, Output, Outputs, ReplyBody};
use domain::{ContactId, TimeMs};
use prost::Message as _;
use proto::convert::{event, routing as convert};
use proto::routing::v1;
use tracing::Span;

use crate::driver::Context;
use crate::metrics::{KindLabels, Metrics, ReasonLabels, command_kind};
use crate::owned::PoolInput;
use crate::peers::{Messages, Peer, chunks};
use crate::reader::not_owner;
use crate::store::{Batch, OutboxEntry};

/// An input that was applied and waits for its commit.
struct Waiting {
    reply_to: Option<(Arc<Peer>, u64)>,
    contact: Option<ContactId>,
    /// The switch default-routes after this.
    deadline: Option<TimeMs>,
    reply: Option<ReplyBody>,
    span: Span,
    commit_span: Span,
}

/// What has been applied since the last commit was made.
#[derive(Default)]
pub(crate) struct Gathered {
    waiting: Vec<Waiting>,
    pub(crate) outputs: Outputs,
    /// A timer or an input ran: there may be changes.
    dirty: bool,
}

/// What is told when a commit has landed.
#[derive(Default)]
pub(crate) struct Landed {
    waiting: Vec<Waiting>,
    messages: Messages,
}

impl Gathered {
    /// Begins with what restoring a pool gave.
    pub(crate) fn with_outputs(outputs: Outputs) -> Self {
        Self {
            waiting: Vec::new(),
            outputs,
            dirty: true,
        }
    }

    /// Whether there may be something to write or to tell.
    pub(crate) fn is_dirty(&self) -> bool {
        self.dirty
    }

    /// Inputs applied.
    pub(crate) fn inputs(&self) -> usize {
        self.waiting.len()
    }

    /// A timer ran.
    pub(crate) fn ticked(&mut self) {
        self.dirty = true;
    }

    /// Notes who waits for an input's reply; the token names it to the pool.
    pub(crate) fn wait(&mut self, taken: &mut PoolInput) {
        self.dirty = true;
        taken.input.token = self.waiting.len() as u64;
        self.waiting.push(Waiting {
            reply_to: taken.reply_to.take(),
            contact: taken.input.contact,
            deadline: answer_deadline(&taken.input.body),
            reply: None,
            span: std::mem::replace(&mut taken.span, Span::none()),
            commit_span: Span::none(),
        });
    }

    /// Closes the batch: its events are added to `batch`, everything else is told when it
    /// has landed.
    pub(crate) fn close(&mut self, pool: &str, batch: &mut Batch, context: &Context) -> Landed {
        self.dirty = false;
        let mut waiting = std::mem::take(&mut self.waiting);
        let mut messages = Messages::default();
        for output in self.outputs.drain(..) {
            match output {
                Output::Reply(reply) => {
                    // Restoring has no inputs, and so no one to reply to.
                    if let Some(waiting) = usize::try_from(reply.token)
                        .ok()
                        .and_then(|token| waiting.get_mut(token))
                    {
                        waiting.reply = Some(reply.body);
                    }
                }
                Output::Command(command) => {
                    let kind = command_kind(&command.body);
                    context
                        .metrics
                        .commands
                        .get_or_create(&KindLabels { kind })
                        .inc();
                    match convert::command(pool, command) {
                        Some(command) => messages.commands.push(command),
                        None => {
                            let labels = ReasonLabels {
                                reason: "no_such_command",
                            };
                            context
                                .metrics
                                .commands_dropped
                                .get_or_create(&labels)
                                .inc();
                        }
                    }
                }
                Output::VirtualDue {
                    contact,
                    agent_held,
                    turn,
                    traceparent,
                } => {
                    messages.virtual_due.push(convert::virtual_due(
                        pool,
                        contact,
                        agent_held,
                        turn,
                        traceparent,
                    ));
                }
                Output::Notice {
                    contact,
                    kind,
                    turn,
                } => {
                    messages
                        .notices
                        .push(convert::notice(pool, contact, kind, turn));
                }
                Output::Event(event) => batch.events.push(entry(pool, event)),
                Output::Violation(violation) => violated(context, pool, &violation),
            }
        }
        for waiting in &mut waiting {
            if !waiting.span.is_none() {
                let parent = runtime::trace::traceparent(&waiting.span);
                waiting.commit_span = runtime::trace::span("routing", "routing.commit", &parent);
            }
        }
        Landed { waiting, messages }
    }

    /// Lets go of everything; who waits can still be told.
    pub(crate) fn abandon(&mut self) -> Landed {
        self.dirty = false;
        self.outputs.clear();
        Landed {
            waiting: std::mem::take(&mut self.waiting),
            messages: Messages::default(),
        }
    }
}

impl Landed {
    /// Inputs of the batch.
    pub(crate) fn inputs(&self) -> usize {
        self.waiting.len()
    }

    /// Tells everybody: the changes are durable.
    pub(crate) fn release(self, context: &Context, pool: &str, keep: Duration, now: TimeMs) {
        let mut frames = Frames::default();
        for waiting in self.waiting {
            let Some((peer, request_id)) = waiting.reply_to else {
                continue;
            };
            let reply = waiting.reply.unwrap_or_else(|| {
                let detail = format!("an input of contact {:?} got no reply", waiting.contact);
                violated(
                    context,
                    pool,
                    &Violation {
                        invariant: Invariant::NeverSilent,
                        detail,
                    },
                );
                ReplyBody::Refused(FieldError::new(
                    "body",
                    "an input the pool answers",
                    "no answer",
                ))
            });
            if waiting.deadline.is_some_and(|deadline| deadline < now) {
                context.metrics.late_answers.inc();
            }
            let kind = reply_kind(&reply);
            context
                .metrics
                .replies
                .get_or_create(&KindLabels { kind })
                .inc();
            frames.add(peer, convert::reply(request_id, waiting.contact, reply));
        }
        frames.send();
        context.peers.dispatch(pool, self.messages, keep);
    }

    /// Tells whoever waits to ask elsewhere.
    pub(crate) fn not_owner(self, metrics: &Metrics) {
        reply_not_owner(
            metrics,
            self.waiting
                .into_iter()
                .filter_map(|waiting| waiting.reply_to),
        );
    }
}

/// Replies, by peer.
#[derive(Default)]
struct Frames(BTreeMap<u64, (Arc<Peer>, Vec<v1::Reply>)>);

impl Frames {
    fn add(&mut self, peer: Arc<Peer>, reply: v1::Reply) {
        self.0
            .entry(peer.serial)
            .or_insert_with(|| (peer, Vec::new()))
            .1
            .push(reply);
    }

    fn send(self) {
        for (peer, replies) in self.0.into_values() {
            for replies in chunks(replies) {
                peer.send(v1::LinkResponse {
                    replies,
                    ..v1::LinkResponse::default()
                });
            }
        }
    }
}

/// Tells senders to ask elsewhere.
pub(crate) fn reply_not_owner(metrics: &Metrics, senders: impl Iterator<Item = (Arc<Peer>, u64)>) {
    let mut frames = Frames::default();
    for (peer, request_id) in senders {
        metrics
            .replies
            .get_or_create(&KindLabels { kind: "not_owner" })
            .inc();
        frames.add(peer, not_owner(request_id));
    }
    frames.send();
}

/// Answers a new contact without the pool: the default route.
pub(crate) fn reply_default_route(metrics: &Metrics, taken: PoolInput) {
    let Some((peer, request_id)) = taken.reply_to else {
        return;
    };
    let body = ReplyBody::Answer {
        decision: 0,
        answer: Answer::DefaultRoute,
    };
    metrics
        .replies
        .get_or_create(&KindLabels {
            kind: reply_kind(&body),
        })
        .inc();
    let reply = convert::reply(request_id, taken.input.contact, body);
    peer.send(v1::LinkResponse {
        replies: vec![reply],
        ..v1::LinkResponse::default()
    });
}

/// Encodes what changed. `known` follows which contacts have a record.
///
/// # Errors
/// A record cannot be encoded, which is a bug.
pub(crate) fn encode_changes(
    changes: &Changes,
    known: &mut HashSet<ContactId>,
) -> Result<Batch, rmp_serde::encode::Error> {
    let mut batch = Batch::default();
    // An id may occur twice; the later entry counts.
    let contacts: BTreeMap<_, _> = changes
        .contacts
        .iter()
        .map(|(id, record)| (*id, record))
        .collect();
    for (contact, record) in contacts {
        match record {
            Some(record) => {
                known.insert(contact);
                batch
                    .contacts
                    .push((contact, rmp_serde::to_vec_named(record)?));
            }
            None => {
                known.remove(&contact);
                batch.contacts_gone.push(contact);
            }
        }
    }
    let agents: BTreeMap<_, _> = changes
        .agents
        .iter()
        .map(|(id, record)| (id, record))
        .collect();
    for (agent, record) in agents {
        match record {
            Some(record) => batch
                .agents
                .push((agent.to_string(), rmp_serde::to_vec_named(record)?)),
            None => batch.agents_gone.push(agent.to_string()),
        }
    }
    batch.meta = changes
        .meta
        .as_ref()
        .map(rmp_serde::to_vec_named)
        .transpose()?;
    Ok(batch)
}

fn entry(pool: &str, event: domain::pool::Event) -> OutboxEntry {
    let (contact, sequence) = (event.contact, event.sequence);
    let wire = event::contact_event(pool, event);
    OutboxEntry {
        contact,
        sequence,
        bytes: wire.encode_to_vec(),
        traceparent: wire.traceparent,
    }
}

fn violated(context: &Context, pool: &str, violation: &Violation) {
    context.metrics.violated(violation);
    if let Some(suppressed) = context.limit.check() {
        tracing::error!(
            pool,
            invariant = violation.invariant.name(),
            detail = violation.detail,
            suppressed,
            "a promise was broken"
        );
    }
}

fn answer_deadline(body: &InputBody) -> Option<TimeMs> {
    match body {
        InputBody::Route(route) => Some(route.deadline),
        InputBody::Reroute { deadline, .. } => Some(*deadline),
        _ => None,
    }
}

fn reply_kind(body: &ReplyBody) -> &'static str {
    match body {
        ReplyBody::Answer {
            answer: Answer::Agent { .. },
            ..
        } => "agent",
        ReplyBody::Answer {
            answer: Answer::Queue(_),
            ..
        } => "queue",
        ReplyBody::Answer {
            answer: Answer::Message { .. },
            ..
        } => "message",
        ReplyBody::Answer {
            answer: Answer::DefaultRoute,
            ..
        } => "default_route",
        ReplyBody::Acknowledged => "acknowledged",
        ReplyBody::Refused(_) => "refused",
    }
}
