//! Routeing: a contact arrives, asks again, fails, and ends.

use std::sync::Arc;

use super::input::{Cause, Cleared, RouteInput, RoutedBy, SurveyAnswers, SwitchRef};
use super::output::{Answer, EventBody, Outputs, QueuedReason, ReplyBody};
use super::record::{Announced, OpenContact, Phase};
use super::state::{Contact, Indexed};
use super::{DEFAULT_LANGUAGE, Pool};
use crate::id::FieldError;
use crate::{ContactId, TimeMs};

/// cti.v1.MessageReason.
const QUEUE_FULL: u8 = 2;
/// cti.v1.MessageReason.
const CALLER_LIMIT: u8 = 4;
/// Guesses kept besides the topic.
const OTHER_TOPICS_MAX: usize = 4;
/// Longest cross reference, in bytes, as in cti.v1.
const CROSS_REF_BYTES_MAX: usize = 64;

/// Names of a contact resolved against the policy.
#[derive(Clone, Copy)]
pub(super) struct Resolved {
    pub(super) line: u32,
    pub(super) topic: u32,
    pub(super) language: u16,
}

impl Pool {
    pub(super) fn resolve(
        &mut self,
        line: &str,
        topic: &str,
        language: &str,
    ) -> Result<Resolved, FieldError> {
        let line = self.resolve_line(line)?;
        let topic = self.resolve_topic(topic, line)?;
        let language = self.resolve_language(language)?;
        Ok(Resolved {
            line,
            topic,
            language,
        })
    }

    fn resolve_line(&self, line: &str) -> Result<u32, FieldError> {
        self.catalogue
            .line(line)
            .ok_or_else(|| FieldError::new("line", "a line of this pool in policy", line))
    }

    /// A topic that another pool serves goes to the line's own (the operator's): a person.
    fn resolve_topic(&self, topic: &str, line: u32) -> Result<u32, FieldError> {
        let known_elsewhere = || self.policy.topics.contains_key(topic);
        match self.catalogue.topic(topic) {
            Some(topic) => Ok(topic),
            None if known_elsewhere() => Ok(self.catalogue.lines[line as usize].default_topic),
            None => Err(FieldError::new("topic", "a topic in policy", topic)),
        }
    }

    fn resolve_language(&mut self, language: &str) -> Result<u16, FieldError> {
        let language = if language.is_empty() {
            DEFAULT_LANGUAGE
        } else {
            language
        };
        if !crate::policy::is_language(language) {
            return Err(FieldError::new("language", "BCP 47", language));
        }
        let limit = || {
            format!(
                "at most {} languages in a pool",
                super::state::LANGUAGES_MAX
            )
        };
        self.languages
            .intern(language)
            .ok_or_else(|| FieldError::new("language", limit(), language))
    }

    /// Opens a contact.
    pub(super) fn open(
        &mut self,
        id: ContactId,
        resolved: Resolved,
        mut record: OpenContact,
    ) -> u32 {
        let topic = &self.catalogue.topics[resolved.topic as usize];
        record.line = Arc::clone(&self.catalogue.lines[resolved.line as usize].name);
        record.topic = Arc::clone(&topic.id);
        record.language = Arc::clone(self.languages.name(resolved.language));
        let queue = topic.queue;
        record.queue = Arc::clone(&self.catalogue.queues[usize::from(queue)].name);
        self.contacts.insert(Contact {
            id,
            record,
            line: resolved.line,
            topic: resolved.topic,
            queue,
            language: resolved.language,
            indexed: Indexed::default(),
            changed: false,
        })
    }

    /// Another topic; the queue stays.
    pub(super) fn set_topic(&mut self, index: u32, topic: u32) {
        let entry = &self.catalogue.topics[topic as usize];
        let contact = &mut self.contacts[index];
        contact.topic = topic;
        contact.record.topic = Arc::clone(&entry.id);
    }

    /// Another topic and its queue.
    pub(super) fn set_topic_and_queue(&mut self, index: u32, topic: u32) {
        self.set_topic(index, topic);
        let queue = self.catalogue.topics[topic as usize].queue;
        let contact = &mut self.contacts[index];
        contact.queue = queue;
        contact.record.queue = Arc::clone(&self.catalogue.queues[usize::from(queue)].name);
    }

    pub(super) fn set_source(&mut self, index: u32, source: Option<SwitchRef>) {
        let Some(source) = source else { return };
        let record = &mut self.contacts[index].record;
        if *record.switch_name != *source.switch.as_str() {
            record.switch_name = source.switch.as_str().into();
        }
        record.source = Some(source);
    }

    /// Who takes this contact?
    pub(super) fn route(
        &mut self,
        id: ContactId,
        source: Option<SwitchRef>,
        traceparent: &str,
        route: RouteInput,
        out: &mut Outputs,
    ) -> Result<ReplyBody, FieldError> {
        if route.cross_ref.len() > CROSS_REF_BYTES_MAX {
            return Err(FieldError::new(
                "cross_ref",
                format!("at most {CROSS_REF_BYTES_MAX} bytes"),
                route.cross_ref.len(),
            ));
        }
        if let Some(index) = self.contacts.find(id) {
            return self.route_again(index, source, traceparent, route, out);
        }
        let resolved = self.resolve(&route.line, &route.topic, &route.language)?;
        if self.ended.contains_key(&id) || self.now >= route.deadline {
            // Ended, or default-routed by now: the end of the call tells what became of it.
            return Ok(default_route(1));
        }
        let index = self.open_route(id, resolved, source, traceparent, &route);
        let record = &self.contacts[index].record;
        let offered = EventBody::Offered {
            topic_confidence: record.topic_confidence,
            person_asked: route.person_asked,
            authenticated: record.authenticated,
        };
        self.emit(index, offered, out);
        self.answering = Some(index);
        self.contacts[index].record.decisions = 1;
        if let Some(agent) = self.find_agent(index) {
            self.contacts[index].record.leg_live = true;
            self.assign(index, agent, out);
            return Ok(self.answer(index));
        }
        if let Some(reason) = self.refusal(index) {
            return Ok(self.block(index, reason, out));
        }
        self.contacts[index].record.leg_live = true;
        self.sync_contact(index);
        self.announce(index, QueuedReason::Arrival, true, out);
        Ok(self.answer(index))
    }

    /// A contact from a route request, not yet in any index.
    pub(super) fn open_route(
        &mut self,
        id: ContactId,
        resolved: Resolved,
        source: Option<SwitchRef>,
        traceparent: &str,
        route: &RouteInput,
    ) -> u32 {
        let others = route
            .other_topics
            .iter()
            .filter_map(|topic| self.catalogue.topic(topic));
        let others = others
            .take(OTHER_TOPICS_MAX)
            .map(|topic| Arc::clone(&self.catalogue.topics[topic as usize].id));
        let arrived_at = if route.arrived_at == TimeMs::default() {
            self.at
        } else {
            route.arrived_at.min(self.now)
        };
        let record = OpenContact {
            other_topics: others.collect(),
            topic_confidence: if route.topic_confidence.is_nan() {
                0.0
            } else {
                route.topic_confidence.clamp(0.0, 1.0)
            },
            channel: route.channel,
            caller: route.caller,
            authenticated: route.authenticated,
            arrived_at,
            traceparent: traceparent.into(),
            call: Some(route.call.clone()),
            cross_ref: route.cross_ref.as_str().into(),
            leg_since: self.now,
            phase_since: self.now,
            last_event_at: arrived_at,
            ..OpenContact::default()
        };
        let index = self.open(id, resolved, record);
        self.set_source(index, source);
        index
    }

    /// Why an arrival gets no place, if so.
    fn refusal(&mut self, index: u32) -> Option<u8> {
        let contact = &self.contacts[index];
        let queue = usize::from(contact.queue);
        let line = &self.catalogue.lines[contact.line as usize];
        let places = contact
            .record
            .caller
            .and_then(|caller| self.caller_places.get(&(contact.line, caller)));
        if places.is_some_and(|places| *places >= line.caller_places_max) {
            self.refused_caller_limit += 1;
            return Some(CALLER_LIMIT);
        }
        let full = self.waiting >= self.catalogue.pool.waiting_max
            || self.queue_waiting[queue] >= self.catalogue.queues[queue].waiting_max;
        if full {
            self.refused_full += 1;
            return Some(QUEUE_FULL);
        }
        None
    }

    fn block(&mut self, index: u32, reason: u8, out: &mut Outputs) -> ReplyBody {
        let record = &mut self.contacts[index].record;
        record.phase = Phase::Blocked;
        record.blocked = reason;
        record.leg_live = true;
        self.emit(index, EventBody::Blocked { reason }, out);
        self.sync_contact(index);
        self.answer(index)
    }

    /// The answer that the contact's state is.
    pub(super) fn answer(&self, index: u32) -> ReplyBody {
        let contact = &self.contacts[index];
        let record = &contact.record;
        let answer = match record.phase {
            Phase::Assigned | Phase::Alerting | Phase::Talking => self.agent_answer(index),
            Phase::Waiting if record.leg_live => self.queue_answer(index),
            Phase::Blocked => Answer::Message {
                announcement: self.catalogue.queues[usize::from(contact.queue)]
                    .announcement
                    .as_ref()
                    .to_owned(),
                reason: record.blocked,
            },
            _ => Answer::DefaultRoute,
        };
        ReplyBody::Answer {
            decision: record.decisions,
            answer,
        }
    }

    /// A contact that is known asks: a repeat, or a new leg (a callback's, or a transfer's).
    fn route_again(
        &mut self,
        index: u32,
        source: Option<SwitchRef>,
        traceparent: &str,
        route: RouteInput,
        out: &mut Outputs,
    ) -> Result<ReplyBody, FieldError> {
        let record = &self.contacts[index].record;
        if record.closed || record.phase == Phase::Over {
            return Ok(default_route(record.decisions));
        }
        let repeated = *record.cross_ref == *route.cross_ref && record.source == source;
        if repeated {
            // Also when that leg is over: a callback comes on a dialogue of its own.
            return Ok(self.answer(index));
        }
        if self.now >= route.deadline {
            return Ok(default_route(record.decisions + 1));
        }
        let was_leaving = record.phase == Phase::Leaving;
        let is_callback = super::index::is_virtual(record);
        let talks_with = record
            .agent
            .clone()
            .filter(|_| record.phase == Phase::Talking);
        // The leg may have come in on any number; the contact has a line of its own.
        let topic = self.resolve_topic(&route.topic, self.contacts[index].line)?;
        let (now, call) = (self.now, route.call.clone());
        self.set_source(index, source);
        let record = &mut self.contacts[index].record;
        record.call = Some(call);
        record.cross_ref = route.cross_ref.as_str().into();
        record.leg_since = now;
        record.leg_live = true;
        record.authenticated |= route.authenticated;
        record.command = None;
        record.hold_off_until = None;
        record.decisions += 1;
        if record.traceparent.is_empty() {
            record.traceparent = traceparent.into();
        }
        self.answering = Some(index);
        if was_leaving {
            self.contacts[index].record.phase = Phase::Waiting;
        }
        if is_callback {
            self.callback_answered(index, out);
        } else if let Some(from) = talks_with {
            self.switch_transfers(index, &from, topic, out);
        } else if was_leaving
            || matches!(
                self.contacts[index].record.phase,
                Phase::DefaultRouted | Phase::Elsewhere
            )
        {
            self.requeue(index, QueuedReason::Recovered, out);
        }
        self.sync_contact(index);
        self.rematch(index, out);
        self.settle(out);
        Ok(self.answer(index))
    }

    /// The destination failed; another, on the same dialogue.
    pub(super) fn reroute(
        &mut self,
        id: ContactId,
        cause: Cause,
        deadline: TimeMs,
        out: &mut Outputs,
    ) -> ReplyBody {
        let Some(index) = self.contacts.find(id) else {
            return default_route(1);
        };
        let record = &mut self.contacts[index].record;
        let too_late = self.now >= deadline;
        record.decisions += 1;
        let decision = record.decisions;
        match record.phase {
            Phase::Assigned | Phase::Alerting => {
                self.answering = Some(index);
                if cause == Cause::CallCancelled {
                    self.release_current(index);
                    self.requeue(index, QueuedReason::NotAnswered, out);
                } else {
                    self.not_answered(index, cause, out);
                }
            }
            Phase::Waiting if record.leg_live => {
                self.answering = Some(index);
                self.requeue(index, QueuedReason::Recovered, out);
            }
            Phase::Blocked => return self.answer(index),
            _ => return default_route(decision),
        }
        if too_late {
            // The switch has default-routed: whatever was found meanwhile is given back.
            self.release_current(index);
            self.leave_dialogue(index, RoutedBy::DefaultTimer, out);
            return default_route(decision);
        }
        self.settle(out);
        self.answer(index)
    }

    /// The dialogue ended with an error: the answer was not used.
    pub(super) fn route_failed(&mut self, index: u32, caller_gave_up: bool, out: &mut Outputs) {
        let record = &self.contacts[index].record;
        if !matches!(
            record.phase,
            Phase::Waiting | Phase::Assigned | Phase::Alerting
        ) || !record.leg_live
        {
            return;
        }
        let ringing = record.phase == Phase::Alerting;
        self.release_current(index);
        if caller_gave_up {
            self.caller_left(index, ringing, out);
        } else {
            self.leave_dialogue(index, RoutedBy::DefaultTimer, out);
        }
    }

    /// The switch took its default route in a dialogue of ours.
    fn leave_dialogue(&mut self, index: u32, by: RoutedBy, out: &mut Outputs) {
        if !self.keep_for_callback(index, out) {
            self.default_routed(index, by, out);
        }
    }

    /// The caller has hung up before a person came; an agent, if any, is freed already.
    fn caller_left(&mut self, index: u32, ringing: bool, out: &mut Outputs) {
        if self.keep_for_callback(index, out) {
            return;
        }
        let gone_at = self.event_time(index);
        let record = &mut self.contacts[index].record;
        if !record.offered || record.phase != Phase::Waiting {
            return self.give_up(index, ringing, out);
        }
        record.leg_live = false;
        record.phase = Phase::Leaving;
        record.phase_since = gone_at;
        self.sync_contact(index);
    }

    /// The call is over.
    pub(super) fn cleared(
        &mut self,
        id: ContactId,
        source: Option<SwitchRef>,
        traceparent: &str,
        cleared: Cleared,
        out: &mut Outputs,
    ) -> Result<(), FieldError> {
        let Some(index) = self.contacts.find(id) else {
            if self.ended.contains_key(&id) {
                return Ok(());
            }
            return self.cleared_unknown(id, source, traceparent, &cleared, out);
        };
        let record = &self.contacts[index].record;
        let other_leg =
            cleared.call.is_some() && record.call.is_some() && cleared.call != record.call;
        if record.closed || !record.leg_live || other_leg {
            return Ok(());
        }
        self.leg_cleared(index, cleared.routed_by, out);
        Ok(())
    }

    /// The contact's leg is gone.
    pub(super) fn leg_cleared(&mut self, index: u32, routed_by: RoutedBy, out: &mut Outputs) {
        let record = &self.contacts[index].record;
        let by_default = matches!(
            routed_by,
            RoutedBy::DefaultTimer | RoutedBy::DefaultMesh | RoutedBy::DefaultNoLink
        );
        match record.phase {
            Phase::Waiting | Phase::Assigned | Phase::Alerting => {
                let ringing = record.phase == Phase::Alerting;
                let with_someone = record.staying.is_some();
                self.release_current(index);
                if with_someone {
                    self.conclude(index, out);
                } else if by_default {
                    self.leave_dialogue(index, routed_by, out);
                    if self
                        .contacts
                        .get(index)
                        .is_some_and(|contact| contact.record.phase == Phase::DefaultRouted)
                    {
                        self.conclude(index, out);
                    }
                } else {
                    self.caller_left(index, ringing, out);
                }
            }
            Phase::Talking => {
                if let Some(agent) = self.contacts[index].record.agent.take() {
                    self.disconnect(index, &agent, out);
                }
                self.conclude(index, out);
            }
            Phase::Blocked | Phase::DefaultRouted | Phase::Elsewhere => self.conclude(index, out),
            Phase::Leaving | Phase::Over => {}
        }
    }

    /// A call that the pool never heard of has ended: it is counted all the same.
    fn cleared_unknown(
        &mut self,
        id: ContactId,
        source: Option<SwitchRef>,
        traceparent: &str,
        cleared: &Cleared,
        out: &mut Outputs,
    ) -> Result<(), FieldError> {
        let line = self.resolve_line(&cleared.line)?;
        let topic = self.catalogue.lines[line as usize].default_topic;
        let known_language = crate::policy::is_language(&cleared.language);
        let language = self.resolve_language(if known_language {
            &cleared.language
        } else {
            ""
        })?;
        let arrived_at = if cleared.arrived_at == TimeMs::default() {
            self.at
        } else {
            cleared.arrived_at.min(self.at)
        };
        let record = OpenContact {
            channel: cleared.channel,
            caller: cleared.caller,
            arrived_at,
            last_event_at: arrived_at,
            traceparent: traceparent.into(),
            call: cleared.call.clone(),
            phase: Phase::Elsewhere,
            ..OpenContact::default()
        };
        let index = self.open(
            id,
            Resolved {
                line,
                topic,
                language,
            },
            record,
        );
        self.set_source(index, source);
        let offered = EventBody::Offered {
            topic_confidence: 0.0,
            person_asked: false,
            authenticated: false,
        };
        self.emit(index, offered, out);
        match cleared.routed_by {
            _ if cleared.blocked != 0 => self.emit(
                index,
                EventBody::Blocked {
                    reason: cleared.blocked,
                },
                out,
            ),
            by @ (RoutedBy::DefaultTimer | RoutedBy::DefaultMesh | RoutedBy::DefaultNoLink) => {
                self.emit(index, EventBody::DefaultRouted { by }, out);
            }
            // Whoever talked to an agent did not give up; more is not known any more.
            RoutedBy::Mesh if cleared.agent.is_some() => {}
            RoutedBy::Mesh | RoutedBy::Nobody => {
                let waited_ms = self.at.since(arrived_at);
                self.emit(
                    index,
                    EventBody::Abandoned {
                        waited_ms,
                        ringing: false,
                    },
                    out,
                );
            }
        }
        self.close(index, out);
        Ok(())
    }

    pub(super) fn survey(&mut self, index: u32, answers: SurveyAnswers, out: &mut Outputs) {
        let record = &mut self.contacts[index].record;
        if record.surveyed || record.closed {
            return;
        }
        record.surveyed = true;
        let over = record.phase == Phase::Over && record.wrapping == 0;
        self.emit(index, EventBody::SurveyAnswered(answers), out);
        if over {
            self.close(index, out);
        }
    }

    pub(super) fn offer_declined(&mut self, index: u32, out: &mut Outputs) {
        let record = &mut self.contacts[index].record;
        if !record.offered {
            return;
        }
        record.offered = false;
        let leaving = record.phase == Phase::Leaving;
        self.emit(index, EventBody::OfferDeclined, out);
        if leaving {
            self.give_up(index, false, out);
        }
    }

    /// Tells the contact's place, and what is offered instead of holding.
    pub(super) fn announce(
        &mut self,
        index: u32,
        reason: QueuedReason,
        offer: bool,
        out: &mut Outputs,
    ) {
        let lane = self.lane_of(index);
        let contact = &self.contacts[index];
        let place = (contact.record.arrived_at, contact.id);
        let ahead = self.lanes[lane as usize].order.ahead(place);
        let wait = self.wait(lane, ahead);
        let (virtual_hold, windows) = if offer {
            self.offers(index, wait.expected_ms)
        } else {
            (false, Vec::new())
        };
        let count = u32::try_from(windows.len()).expect("policy offers at most 8 windows");
        let record = &mut self.contacts[index].record;
        let queued = EventBody::Queued {
            position: ahead + 1,
            expected_wait_ms: wait.expected_ms,
            low_ms: wait.low_ms,
            high_ms: wait.high_ms,
            reason,
            place_from: record.arrived_at,
        };
        record.announced = Some(Announced {
            position: ahead + 1,
            expected_wait_ms: wait.expected_ms,
            low_ms: wait.low_ms,
            high_ms: wait.high_ms,
            virtual_hold,
            windows,
        });
        record.offered = virtual_hold || count > 0;
        self.emit(index, queued, out);
        if virtual_hold || count > 0 {
            self.emit(
                index,
                EventBody::OfferMade {
                    virtual_hold,
                    windows: count,
                },
                out,
            );
        }
    }
}

fn default_route(decision: u32) -> ReplyBody {
    ReplyBody::Answer {
        decision: decision.max(1),
        answer: Answer::DefaultRoute,
    }
}
