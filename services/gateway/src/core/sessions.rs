//! Links of dialogues: who speaks, in which order, with how much credit, and whether they
//! are alive.
//!
//! A session outlives its link by the cleanup delay. What was answered while the link was
//! down waits for it until the dialogue's deadline; what was sent but not received (the
//! switch says what it received last) is sent again. A frame that came before is dropped;
//! one after a gap or out of order is taken, because a request in it must be answered,
//! and complained about.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use domain::TimeMs;
use domain::id::FieldError;
use proto::convert::cti as check;
use proto::cti::v1::{
    DialoguesRequest, DialoguesResponse, Hello, MeshDialogueMessage, Refusal, SystemCondition,
    SystemStatus, Welcome, mesh_dialogue_message as mesh,
};

use super::{Core, LinkId, Malformed, Moment, Outgoing, Role, Source};
use crate::metrics::Limit;

/// Answers of which a resumed session may ask again: what 256 full frames carry.
const SENT_MAX: usize = 4_096;
/// Gaps remembered; a link with more is not worth more memory.
const GAPS_MAX: usize = 16;
/// CSTA: dead after four missed heartbeats.
const MISSED_MAX: u64 = 4;

/// One session of dialogues.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) id: String,
    pub(super) source: Arc<Source>,
    pub(super) link: Option<LinkId>,
    pub(super) lost_at: TimeMs,
    /// Highest frame received.
    pub(super) in_seq: u64,
    /// Frames below `in_seq` that never came: first and last.
    pub(super) gaps: VecDeque<(u64, u64)>,
    /// Last frame sent.
    pub(super) out_seq: u64,
    pub(super) outstanding: u32,
    pub(super) credit_back: u32,
    pub(super) welcome: Option<Welcome>,
    pub(super) pending: Vec<MeshDialogueMessage>,
    /// Dialogues answered by messages in `pending`.
    pub(super) pending_dialogues: Vec<u64>,
    pub(super) sent: VecDeque<(u64, u64)>,
    /// Dialogues answered while the link is down.
    pub(super) undelivered: Vec<u64>,
    pub(super) last_heard: TimeMs,
    pub(super) next_status: TimeMs,
    pub(super) tick_ms: u32,
    pub(super) touched: bool,
}

pub(super) enum Order {
    Next,
    Repeated,
    /// After a gap, or from within one: taken, and complained about.
    Irregular,
}

impl Session {
    pub(super) fn order(&mut self, link_seq: u64) -> Order {
        if link_seq == self.in_seq + 1 {
            self.in_seq = link_seq;
            return Order::Next;
        }
        if link_seq == 0 {
            return Order::Irregular;
        }
        if link_seq > self.in_seq {
            self.gaps.push_back((self.in_seq + 1, link_seq - 1));
            if self.gaps.len() > GAPS_MAX {
                self.gaps.pop_front();
            }
            self.in_seq = link_seq;
            return Order::Irregular;
        }
        let Some(position) = self
            .gaps
            .iter()
            .position(|(first, last)| (*first..=*last).contains(&link_seq))
        else {
            return Order::Repeated;
        };
        let (first, last) = self.gaps.remove(position).expect("just found");
        if first < link_seq {
            self.gaps.push_back((first, link_seq - 1));
        }
        if link_seq < last {
            self.gaps.push_back((link_seq + 1, last));
        }
        Order::Irregular
    }
}

impl Core {
    /// A stream of dialogues said hello: a new session, or one resumed.
    pub(super) fn dialogues_opened(
        &mut self,
        now: Moment,
        link: LinkId,
        received: Instant,
        hello: &Hello,
        frame: DialoguesRequest,
        malformed: &[Malformed],
    ) {
        let link_seq = frame.link_seq;
        let source = self.source(now, hello);
        let resumed = self
            .session_by_id
            .get(&hello.session_id)
            .copied()
            .filter(|number| {
                self.sessions
                    .get(number)
                    .is_some_and(|session| session.source.number == source)
            });
        let number = resumed.unwrap_or_else(|| self.new_session(source));
        self.open_link(link, Role::Dialogues(number));
        let Some(session) = self.sessions.get_mut(&number) else {
            return;
        };
        if let Some(old) = session.link.replace(link) {
            // The switch gave the old link up before we noticed.
            self.links.remove(&old);
            self.metrics.streams[crate::metrics::Stream::Dialogues as usize].dec();
            self.closing.push((old, "resumed on another link"));
        }
        session.last_heard = now.wall;
        session.next_status = now.wall.plus(self.config.system_status_timer_ms.into());
        let capabilities = hello.capabilities.unwrap_or_default();
        session.tick_ms = if capabilities.tick_ms == 0 {
            check::TICK_DEFAULT_MS
        } else {
            capabilities.tick_ms
        };
        let in_order = matches!(session.order(link_seq), Order::Next);
        session.pending.clear();
        session.pending_dialogues.clear();
        session.credit_back = 0;
        session.welcome = Some(Welcome {
            session_id: session.id.clone(),
            acknowledged_event_seq: 0,
            snapshot_required: resumed.is_some() && !in_order,
            system_status_timer_ms: self.config.system_status_timer_ms,
            session_cleanup_delay_ms: self.config.session_cleanup_delay_ms,
            initial_credit: self
                .config
                .credit
                .saturating_sub(session.outstanding)
                .max(1),
        });
        let last = hello.last_received_link_seq;
        let mut again: Vec<u64> = session
            .sent
            .iter()
            .filter(|(seq, _)| *seq > last)
            .map(|(_, dialogue)| *dialogue)
            .collect();
        again.append(&mut session.undelivered);
        self.touch_session(number);
        if resumed.is_none() && !in_order {
            self.refuse_frame(number, "link_seq", "1 in a new session", link_seq);
        }
        for dialogue in again {
            self.send_answer_again(dialogue);
        }
        if self.draining {
            self.send_status(number, SystemCondition::Disabled);
        }
        self.dialogue_messages(now, number, received, frame, malformed);
    }

    fn new_session(&mut self, source: u64) -> u64 {
        let number = self.number();
        let id = format!("{}-{number}", self.instance);
        let id = id[id.len().saturating_sub(64)..].to_owned();
        self.session_by_id.insert(id.clone(), number);
        let source = Arc::clone(&self.sources[&source].source);
        self.sessions.insert(
            number,
            Session {
                id,
                source,
                link: None,
                lost_at: TimeMs(0),
                in_seq: 0,
                gaps: VecDeque::new(),
                out_seq: 0,
                outstanding: 0,
                credit_back: 0,
                welcome: None,
                pending: Vec::new(),
                pending_dialogues: Vec::new(),
                sent: VecDeque::new(),
                undelivered: Vec::new(),
                last_heard: TimeMs(0),
                next_status: TimeMs(0),
                tick_ms: check::TICK_DEFAULT_MS,
                touched: false,
            },
        );
        number
    }

    pub(super) fn push(&mut self, session: u64, body: mesh::Body) {
        if let Some(found) = self.sessions.get_mut(&session)
            && found.link.is_some()
        {
            found.pending.push(MeshDialogueMessage { body: Some(body) });
            self.touch_session(session);
        }
    }

    /// Queues a dialogue's answer; false: the link is down.
    pub(super) fn push_answer(&mut self, session: u64, dialogue: u64, body: mesh::Body) -> bool {
        let Some(found) = self.sessions.get_mut(&session) else {
            return false;
        };
        if found.link.is_none() {
            found.undelivered.push(dialogue);
            return false;
        }
        found.pending.push(MeshDialogueMessage { body: Some(body) });
        found.pending_dialogues.push(dialogue);
        self.touch_session(session);
        true
    }

    /// Gives one credit back.
    pub(super) fn give_back(&mut self, session: u64) {
        if let Some(found) = self.sessions.get_mut(&session) {
            found.outstanding = found.outstanding.saturating_sub(1);
            if found.link.is_some() {
                found.credit_back += 1;
                self.touch_session(session);
            }
        }
    }

    /// Takes one credit; false: there is none.
    pub(super) fn take_credit(&mut self, session: u64) -> bool {
        let most = self.config.credit;
        let Some(found) = self.sessions.get_mut(&session) else {
            return false;
        };
        if found.outstanding >= most {
            self.metrics.limit_hits.inc(Limit::Credit as usize);
            return false;
        }
        found.outstanding += 1;
        true
    }

    pub(super) fn touch_session(&mut self, session: u64) {
        if let Some(found) = self.sessions.get_mut(&session)
            && !found.touched
        {
            found.touched = true;
            self.touched_sessions.push(session);
        }
    }

    pub(super) fn send_status(&mut self, session: u64, condition: SystemCondition) {
        self.push(
            session,
            mesh::Body::Status(SystemStatus {
                condition: condition.into(),
            }),
        );
    }

    /// Tells every switch the node's condition.
    pub(super) fn broadcast_status(&mut self, condition: SystemCondition) {
        let sessions: Vec<u64> = self.sessions.keys().copied().collect();
        for session in sessions {
            self.send_status(session, condition);
        }
    }

    /// The link of a session is gone; the session waits.
    pub(super) fn session_lost(&mut self, now: Moment, session: u64, link: LinkId) {
        let Some(found) = self.sessions.get_mut(&session) else {
            return;
        };
        if found.link != Some(link) {
            return;
        }
        found.link = None;
        found.lost_at = now.wall;
        found.pending.clear();
        // What was queued but not framed was not sent.
        let unsent = std::mem::take(&mut found.pending_dialogues);
        found.undelivered.extend(unsent);
    }

    /// Heartbeats, dead links, sessions that were not resumed.
    pub(super) fn tick_sessions(&mut self, now: Moment) {
        let timer_ms = u64::from(self.config.system_status_timer_ms);
        let cleanup_ms = u64::from(self.config.session_cleanup_delay_ms);
        let condition = if self.draining {
            SystemCondition::Disabled
        } else {
            self.admission.condition()
        };
        let mut beat = Vec::new();
        let mut expired = Vec::new();
        for (number, session) in &mut self.sessions {
            match session.link {
                Some(link) if now.wall.since(session.last_heard) > timer_ms * MISSED_MAX => {
                    self.closing
                        .push((link, "four heartbeats of the switch were missed"));
                    session.last_heard = now.wall;
                }
                Some(_) if now.wall >= session.next_status => {
                    session.next_status = now.wall.plus(timer_ms);
                    beat.push(*number);
                }
                None if now.wall.since(session.lost_at) > cleanup_ms => expired.push(*number),
                _ => {}
            }
        }
        for number in beat {
            self.send_status(number, condition);
        }
        for number in expired {
            if let Some(session) = self.sessions.remove(&number) {
                self.session_by_id.remove(&session.id);
            }
        }
    }

    /// Frames for every session that has something to say.
    pub(super) fn flush_sessions(&mut self, out: &mut Vec<Outgoing>) {
        for number in std::mem::take(&mut self.touched_sessions) {
            let Some(session) = self.sessions.get_mut(&number) else {
                continue;
            };
            session.touched = false;
            let Some(link) = session.link else {
                continue;
            };
            let mut messages = std::mem::take(&mut session.pending);
            loop {
                let rest = messages.split_off(messages.len().min(check::DIALOGUE_MESSAGES_MAX));
                session.out_seq += 1;
                let frame = DialoguesResponse {
                    link_seq: session.out_seq,
                    welcome: session.welcome.take(),
                    messages,
                    credit: std::mem::take(&mut session.credit_back),
                };
                out.push(Outgoing::Dialogues(link, frame));
                messages = rest;
                if messages.is_empty() {
                    break;
                }
            }
            // One number for the batch: asking again for a little too much does no harm.
            for dialogue in session.pending_dialogues.drain(..) {
                session.sent.push_back((session.out_seq, dialogue));
                if session.sent.len() > SENT_MAX {
                    session.sent.pop_front();
                }
            }
        }
    }
}

/// A refusal on the wire.
pub(super) fn refusal(about: &str, fault: &FieldError) -> Refusal {
    Refusal {
        about: cut(about).to_owned(),
        field: fault.field.to_owned(),
        limit: fault.limit.clone(),
        value: fault.value.clone(),
    }
}

/// A reference that may itself be too long.
pub(super) fn cut(text: &str) -> &str {
    let mut end = text.len().min(check::CROSS_REF_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
