//! Commands and dials on their way to a switch, and their results on the way back.
//!
//! A command for a switch that is not attached here, or for another boot, fails at once:
//! its sender decides what next. A command that was sent when the stream was lost has no
//! result: whether it was carried out shows in the switch's events, and guessing would be
//! worse than the sender's own time limit. Announcements alone are kept for a moment and
//! sent again, because a caller waits for them in silence.
//!
//! A callback's number is decrypted here, into the command, and nowhere else.

use std::sync::Arc;

use bytes::Bytes;
use domain::{ContactId, TimeMs};
use proto::callback::v1::{Dial, DialResult};
use proto::cti::v1::{
    AnnounceBooking, CallRef, Command, CommandError, CommandResult, CommandsResponse, Device,
    DialOutcome, Hello, MakeCall, command,
};
use proto::routing::v1::{CommandOutcome, SwitchCommand};

use super::dialogues::primary_tag;
use super::{Core, LinkId, Moment, Outgoing, Role, Source, answers};
use crate::metrics::{CommandEnd, Limit};

/// Commands in a frame.
const COMMANDS_MAX: usize = 256;
/// Commands that may wait for their results, all switches.
const OUTSTANDING_MAX: usize = 65_536;
/// An announcement waits so long for the command stream.
const HELD_MS: u64 = 5_000;
/// Announcements held for one switch.
const HELD_MAX: usize = 1_024;
/// A result is waited for this long: longer than any call rings.
const RESULT_WAIT_MS: u64 = 300_000;

/// A command whose result has not come.
#[derive(Debug)]
pub(super) struct Outstanding {
    link: LinkId,
    sent_at: TimeMs,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Routing {
        command_id: u64,
        pool: String,
        contact: Bytes,
        agent_id: String,
    },
    Dial {
        contact: ContactId,
        attempt: u32,
        replica: LinkId,
    },
    Announcement {
        source: u64,
        command: Box<Command>,
    },
}

/// A dial, by contact and attempt: placed once.
#[derive(Debug)]
pub(super) enum Dialled {
    Waiting,
    Done(DialResult),
}

impl Core {
    /// A stream of commands said hello; the newest one of a source is used.
    pub(super) fn commands_opened(&mut self, now: Moment, link: LinkId, hello: &Hello) {
        let source = self.source(now, hello);
        self.open_link(link, Role::Commands(source));
        let welcome = self.plain_welcome(source);
        let Some(state) = self.sources.get_mut(&source) else {
            return;
        };
        let old = state.commands_link.replace(link);
        let held = std::mem::take(&mut state.held);
        self.closing
            .extend(old.map(|old| (old, "opened again on another link")));
        if let Some(old) = old {
            self.closed(now, old);
        }
        self.welcomes.push((link, welcome));
        self.command_batches.entry(link).or_default();
        for (until, command) in held {
            if now.wall < until {
                self.send_announcement(now, source, link, command);
            }
        }
        self.attached_changed();
    }

    /// The stream of commands is gone.
    pub(super) fn commands_closed(&mut self, now: Moment, source: u64, link: LinkId) {
        self.command_batches.remove(&link);
        if let Some(state) = self.sources.get_mut(&source)
            && state.commands_link == Some(link)
        {
            state.commands_link = None;
        }
        let lost: Vec<u64> = self
            .outstanding
            .iter()
            .filter(|(_, waiting)| waiting.link == link)
            .map(|(invoke, _)| *invoke)
            .collect();
        for invoke in lost {
            match self.outstanding.remove(&invoke).map(|waiting| waiting.kind) {
                Some(Kind::Announcement { source, command }) => self.hold(now, source, *command),
                Some(Kind::Dial { .. }) => self.metrics.dials.inc(CommandEnd::Lost as usize),
                Some(Kind::Routing { .. }) => self.metrics.commands.inc(CommandEnd::Lost as usize),
                None => {}
            }
        }
        self.attached_changed();
    }

    fn hold(&mut self, now: Moment, source: u64, command: Command) {
        let attached = self
            .sources
            .get(&source)
            .and_then(|state| state.commands_link);
        if let Some(link) = attached {
            return self.send_announcement(now, source, link, command);
        }
        if let Some(state) = self.sources.get_mut(&source) {
            if state.held.len() >= HELD_MAX {
                state.held.pop_front();
                self.metrics.limit_hits.inc(Limit::Commands as usize);
            }
            state.held.push_back((now.wall.plus(HELD_MS), command));
        }
    }

    fn send_announcement(&mut self, now: Moment, source: u64, link: LinkId, command: Command) {
        let kind = Kind::Announcement {
            source,
            command: Box::new(command.clone()),
        };
        self.send_command(now, link, command, kind);
    }

    fn send_command(&mut self, now: Moment, link: LinkId, mut command: Command, kind: Kind) {
        let invoke = self.number();
        command.invoke_id = invoke;
        self.outstanding.insert(
            invoke,
            Outstanding {
                link,
                sent_at: now.wall,
                kind,
            },
        );
        self.command_batches.entry(link).or_default().push(command);
    }

    /// Tells the caller what became of a booking.
    pub(super) fn announce(
        &mut self,
        now: Moment,
        source: &Arc<Source>,
        call: CallRef,
        contact: ContactId,
        pool: usize,
        announce: AnnounceBooking,
    ) {
        let command = Command {
            invoke_id: 0,
            call: Some(call),
            correlator_data: self.correlator(contact, self.pools[pool].name(), 0),
            traceparent: String::new(),
            body: Some(command::Body::AnnounceBooking(announce)),
        };
        self.hold(now, source.number, command);
    }

    fn attached(&self, switch: &str) -> Option<(&Source, LinkId)> {
        let boot = *self.boot_by_switch.get(switch)?;
        let number = self.source_by_name.get(&(switch.to_owned(), boot))?;
        let state = self.sources.get(number)?;
        Some((&state.source, state.commands_link?))
    }

    /// A command of routing.
    pub(super) fn switch_command(&mut self, now: Moment, from: SwitchCommand) {
        let agent_id = answers::agent_of(&from);
        let outcome = CommandOutcome {
            command_id: from.command_id,
            pool: from.pool.clone(),
            contact_id: from.contact_id.clone(),
            error: 0,
            agent_id: agent_id.clone(),
        };
        let place = self
            .attached(&from.switch_id)
            .map(|(source, link)| (source.boot, link));
        let end = match place {
            Some((boot, _)) if boot != from.boot_id => {
                Err((CommandEnd::OtherBoot, CommandError::InvalidCall))
            }
            None => Err((CommandEnd::NotAttached, CommandError::ResourceBusy)),
            Some(_) if self.outstanding.len() >= OUTSTANDING_MAX => {
                self.metrics.limit_hits.inc(Limit::Commands as usize);
                Err((CommandEnd::Failed, CommandError::ResourceBusy))
            }
            Some((_, link)) => self
                .command_of(from)
                .map(|command| (command, link))
                .ok_or((CommandEnd::Failed, CommandError::NotSupported)),
        };
        match end {
            Ok((command, link)) => {
                let kind = Kind::Routing {
                    command_id: outcome.command_id,
                    pool: outcome.pool,
                    contact: outcome.contact_id,
                    agent_id,
                };
                self.send_command(now, link, command, kind);
            }
            Err((end, error)) => {
                self.metrics.commands.inc(end as usize);
                self.command_outcome(CommandOutcome {
                    error: number(error),
                    ..outcome
                });
            }
        }
    }

    fn command_of(&self, from: SwitchCommand) -> Option<Command> {
        let contact = ContactId::from_bytes(&from.contact_id).ok();
        let body = answers::command_body(from.body?);
        Some(Command {
            invoke_id: 0,
            call: (!from.call_id.is_empty()).then(|| CallRef {
                call_id: from.call_id,
                ..CallRef::default()
            }),
            correlator_data: contact
                .map(|contact| self.correlator(contact, &from.pool, 0))
                .unwrap_or_default(),
            traceparent: from.traceparent,
            body: Some(body),
        })
    }

    /// A call to place for callback.
    pub(super) fn dial(&mut self, now: Moment, replica: LinkId, dial: Dial) {
        let Ok(contact) = ContactId::from_bytes(&dial.contact_id) else {
            return;
        };
        let key = (contact, dial.attempt);
        match self.dialled.get(&key) {
            Some(Dialled::Waiting) => return self.metrics.dials.inc(CommandEnd::Repeated as usize),
            Some(Dialled::Done(result)) => {
                let result = result.clone();
                self.metrics.dials.inc(CommandEnd::Repeated as usize);
                return self.dial_result(replica, result);
            }
            None => {}
        }
        let place = self.attached(&dial.switch_id).map(|(_, link)| link);
        let number = self.keys.decrypt(&dial.number, contact);
        let (link, number) = match (place, number) {
            (Some(link), Ok(number)) if self.outstanding.len() < OUTSTANDING_MAX => (link, number),
            (place, number) => {
                let reason = if place.is_none() {
                    CommandEnd::NotAttached
                } else {
                    CommandEnd::Failed
                };
                self.metrics.dials.inc(reason as usize);
                if number.is_err()
                    && let Some(suppressed) = self.logs.booking.check()
                {
                    tracing::error!(%contact, suppressed, "a callback's number cannot be decrypted");
                }
                let result = DialResult {
                    contact_id: dial.contact_id,
                    attempt: dial.attempt,
                    outcome: 0,
                    not_placed: true,
                };
                // Not remembered: the same attempt may be placed when the switch is back.
                return self.dial_result(replica, result);
            }
        };
        let shown = self
            .policy
            .lines
            .get(&dial.line)
            // A booking rebuilt from little still shows a published number of its pool.
            .or_else(|| {
                let mut lines = self.policy.lines.values();
                lines.find(|line| line.pool == dial.pool)
            })
            .map(|line| line.callback_number.clone())
            .unwrap_or_default();
        let make_call = MakeCall {
            called_device: Some(Device {
                id: number.expose().to_owned(),
            }),
            calling_device: Some(Device { id: shown }),
            ring_ms: dial.ring_ms,
            callback_code: dial.code,
            language: primary_tag(&dial.language),
        };
        let command = Command {
            invoke_id: 0,
            call: None,
            correlator_data: self.correlator(contact, &dial.pool, 0),
            traceparent: dial.traceparent,
            body: Some(command::Body::MakeCall(make_call)),
        };
        self.dialled.insert(key, Dialled::Waiting);
        self.send_command(
            now,
            link,
            command,
            Kind::Dial {
                contact,
                attempt: dial.attempt,
                replica,
            },
        );
    }

    fn dial_result(&mut self, replica: LinkId, result: DialResult) {
        // Every replica shares the store: any of them may hear it when that one is gone.
        let link = if self.callback_peers.contains_key(&replica) {
            Some(replica)
        } else {
            self.callback_peers.keys().next().copied()
        };
        if let Some(peer) = link.and_then(|link| self.callback_peers.get_mut(&link)) {
            peer.results.push(result);
        }
    }

    /// Results of commands.
    pub(super) fn results(&mut self, link: LinkId, results: Vec<CommandResult>) {
        for result in results {
            let known = self
                .outstanding
                .get(&result.invoke_id)
                .is_some_and(|waiting| waiting.link == link);
            if known && let Some(waiting) = self.outstanding.remove(&result.invoke_id) {
                self.result(waiting.kind, &result);
            }
        }
    }

    fn result(&mut self, kind: Kind, result: &CommandResult) {
        let end = if result.error == 0 {
            CommandEnd::Done
        } else {
            CommandEnd::Failed
        };
        match kind {
            Kind::Announcement { .. } => self.metrics.commands.inc(end as usize),
            Kind::Routing {
                command_id,
                pool,
                contact,
                agent_id,
            } => {
                self.metrics.commands.inc(end as usize);
                let error = u32::try_from(result.error).unwrap_or(u32::MAX);
                self.command_outcome(CommandOutcome {
                    command_id,
                    pool,
                    contact_id: contact,
                    error,
                    agent_id,
                });
            }
            Kind::Dial {
                contact,
                attempt,
                replica,
            } => {
                self.metrics.dials.inc(end as usize);
                let not_placed =
                    result.error != 0 && result.error() != CommandError::InvalidDestination;
                let outcome = match result.dial_outcome {
                    _ if not_placed => 0,
                    0 => DialOutcome::Failed.into(),
                    other => other,
                };
                let outcome = u32::try_from(outcome).unwrap_or(0);
                let contact_id = super::mapping::contact_bytes(contact);
                let result = DialResult {
                    contact_id,
                    attempt,
                    outcome,
                    not_placed,
                };
                if let Some(dialled) = self.dialled.get_mut(&(contact, attempt)) {
                    *dialled = Dialled::Done(result.clone());
                }
                self.dial_result(replica, result);
            }
        }
    }

    /// Forgets announcements that nobody could hear and results that never came.
    pub(super) fn tick_commands(&mut self, now: Moment) {
        for state in self.sources.values_mut() {
            state.held.retain(|(until, _)| now.wall < *until);
        }
        let metrics = &self.metrics;
        self.outstanding.retain(|_, waiting| {
            let waits = now.wall.since(waiting.sent_at) < RESULT_WAIT_MS;
            if !waits {
                metrics.commands.inc(CommandEnd::Lost as usize);
            }
            waits
        });
    }

    /// Frames for every stream of commands that has something to hear.
    pub(super) fn flush_commands(&mut self, out: &mut Vec<Outgoing>) {
        for (link, welcome) in self.welcomes.drain(..) {
            out.push(Outgoing::Commands(
                link,
                CommandsResponse {
                    welcome: Some(welcome),
                    commands: Vec::new(),
                },
            ));
        }
        for (link, batch) in &mut self.command_batches {
            let mut commands = std::mem::take(batch);
            while !commands.is_empty() {
                let rest = commands.split_off(commands.len().min(COMMANDS_MAX));
                out.push(Outgoing::Commands(
                    *link,
                    CommandsResponse {
                        welcome: None,
                        commands,
                    },
                ));
                commands = rest;
            }
        }
    }
}

fn number(error: CommandError) -> u32 {
    u32::try_from(i32::from(error)).unwrap_or(0)
}
