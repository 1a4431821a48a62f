//! Route requests to their one answer.
//!
//! Requested -> (classifying) -> (waiting for an owner) -> asked -> answered -> ended, as
//! rule 1 of the contract has it. Every way out of the active states goes through
//! [`Core::finish`], so a request without an answer cannot be forgotten: the wheel fires
//! at its deadline whatever the peers do, and a dialogue that is dropped while active is
//! counted as a broken promise.
//!
//! Answers are remembered, oldest forgotten first, so that a repeated request gets the
//! same answer; beyond that memory the contact's id, made from the cross reference, keeps
//! routing's answer the same. A call that admission refused leaves only a hash behind:
//! memory stays flat however many come.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use domain::id::FieldError;
use domain::{ContactId, TimeMs};
use proto::convert::cti as check;
use proto::cti::v1::{RouteEndError, RouteRequest, mesh_dialogue_message as mesh};
use proto::routing::v1 as wire;

use super::{Core, Moment, Source};
use crate::metrics::{Answered, Classified, RefusedClass};

/// What the wheel fires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Alarm {
    /// Intent has had its time.
    Topic,
    /// The answer is due.
    Answer,
}

/// Where a dialogue is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Intent is asked, over this link.
    Classifying(super::LinkId),
    /// No replica owns the pool at the moment.
    Waiting,
    /// Routing is asked, by this request id.
    Asked(u64),
    /// The switch has its answer, or the link is down and the answer waits.
    Answered,
    /// Over: only remembered.
    Ended,
}

impl State {
    pub(super) fn is_active(self) -> bool {
        matches!(
            self,
            State::Classifying(_) | State::Waiting | State::Asked(_)
        )
    }
}

/// One dialogue.
#[derive(Debug)]
pub(crate) struct Dialogue {
    pub(super) session: u64,
    pub(super) source: Arc<Source>,
    pub(super) cross_ref: String,
    pub(super) contact: ContactId,
    pub(super) pool: usize,
    /// Changes with each re-route.
    pub(super) turn: u64,
    /// Tells a repeated request from a reused reference; 0: not known (a re-route came first).
    pub(super) fingerprint: u64,
    pub(super) received: Instant,
    /// When the answer must be on its way.
    pub(super) deadline: TimeMs,
    /// When the switch has default-routed.
    pub(super) switch_deadline: TimeMs,
    pub(super) state: State,
    /// It answers a request, which holds a credit; else a re-route.
    pub(super) is_request: bool,
    /// What routing is asked; dropped with the answer.
    pub(super) ask: Option<Box<wire::Input>>,
    pub(super) default_topic: bool,
    /// The answer holds something in routing: an agent or a place.
    pub(super) holds: bool,
    pub(super) answer: Option<mesh::Body>,
    pub(super) span: tracing::Span,
    pub(super) traceparent: String,
}

fn fingerprint(request: &RouteRequest) -> u64 {
    let mut hasher = DefaultHasher::new();
    let call = request.call.as_ref();
    call.map(|call| (&call.call_id, &call.global_call_id))
        .hash(&mut hasher);
    request
        .current_route
        .as_ref()
        .map(|device| &device.id)
        .hash(&mut hasher);
    request
        .calling_device
        .as_ref()
        .map(|device| &device.id)
        .hash(&mut hasher);
    hasher.finish().max(1)
}

pub(super) fn hash(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

/// The primary tag of a language, in lower case: what policy knows languages by.
pub(super) fn primary_tag(language: &str) -> String {
    language
        .split('-')
        .next()
        .unwrap_or_default()
        .to_ascii_lowercase()
}

/// The deadlines that follow from a request's timeout and age.
pub(super) struct Times {
    pub(super) arrived: TimeMs,
    pub(super) switch_deadline: TimeMs,
    pub(super) deadline: TimeMs,
}

impl Core {
    pub(super) fn times(
        &self,
        now: Moment,
        session: u64,
        received: Instant,
        timeout_ms: u32,
        age_ms: u32,
    ) -> Times {
        let tick_ms = self
            .sessions
            .get(&session)
            .map_or(check::TICK_DEFAULT_MS, |found| found.tick_ms);
        let queued_ms = now.instant.saturating_duration_since(received).as_millis();
        let sent = now.wall.minus(u64::try_from(queued_ms).unwrap_or(0));
        let arrived = sent.minus(age_ms.into());
        let switch_deadline = arrived.plus(timeout_ms.into());
        let margin_ms = 2 * u64::from(self.config.link_rtt_ms) + u64::from(tick_ms);
        Times {
            arrived,
            switch_deadline,
            deadline: switch_deadline.minus(margin_ms),
        }
    }

    /// A request: checked, recognised, admitted, asked for.
    pub(super) fn route_request(
        &mut self,
        now: Moment,
        session: u64,
        received: Instant,
        request: RouteRequest,
    ) {
        self.metrics.route_requests.inc();
        if !self.take_credit(session) {
            let error = RouteEndError::OutstandingRequestLimitExceeded;
            self.end_unopened(session, &request.cross_ref_id, error, Answered::Credit);
            return;
        }
        let checked = check::route_request(&request).and_then(|()| self.line_and_pool(&request));
        let (line, pool, correlated) = match checked {
            Ok(found) => found,
            Err(fault) => return self.invalid(session, &request.cross_ref_id, &fault),
        };
        let Some(source) = self
            .sessions
            .get(&session)
            .map(|found| Arc::clone(&found.source))
        else {
            return;
        };
        if self.repeated(session, &source, &request) {
            return;
        }
        let timeout_ms = check::reply_timeout("request.reply_timeout_ms", request.reply_timeout_ms)
            .unwrap_or(check::REPLY_TIMEOUT_DEFAULT_MS);
        let times = self.times(now, session, received, timeout_ms, request.age_ms);
        if request.age_ms >= timeout_ms || times.deadline <= now.wall {
            let error = RouteEndError::RouteingTimerExpired;
            self.end_unopened(session, &request.cross_ref_id, error, Answered::Expired);
            return self.give_back(session);
        }
        let contact = match correlated {
            Some(contact) => contact,
            None => self
                .keys
                .contact(&source.switch, source.boot, &request.cross_ref_id),
        };
        if correlated.is_none() && !self.admit(now, &source) {
            self.answer_overload(
                session,
                received,
                &source,
                &request.cross_ref_id,
                contact,
                pool,
            );
            return;
        }
        self.open_dialogue(
            now,
            session,
            received,
            source,
            request,
            line,
            pool,
            contact,
            correlated.is_some(),
            &times,
        );
    }

    pub(super) fn invalid(&mut self, session: u64, cross_ref: &str, fault: &FieldError) {
        self.refuse(session, cross_ref, fault, RefusedClass::Request);
        self.end_unopened(
            session,
            cross_ref,
            RouteEndError::InvalidRequest,
            Answered::Invalid,
        );
        self.give_back(session);
    }

    /// The line by its number (or name), the pool, and the contact that goes on.
    fn line_and_pool(
        &self,
        request: &RouteRequest,
    ) -> Result<(String, usize, Option<ContactId>), FieldError> {
        let correlated = check::correlator("request.correlator_data", &request.correlator_data)?;
        let device = request
            .current_route
            .as_ref()
            .map_or("", |device| &device.id);
        let line = self.line(device);
        if let Some(correlated) = correlated {
            let pool = self
                .pool_by_name
                .get(&correlated.pool)
                .copied()
                .ok_or_else(|| {
                    FieldError::new(
                        "request.correlator_data",
                        "a pool of policy",
                        &correlated.pool,
                    )
                })?;
            // A transfer or a callback's leg may be dialled to anything; its contact has a line.
            let name = line.map(|(name, _)| name).unwrap_or_default();
            return Ok((name, pool, Some(correlated.contact)));
        }
        let (name, pool) = line.ok_or_else(|| {
            FieldError::new(
                "request.current_route.id",
                "a number of a line in policy",
                check::stripped(device),
            )
        })?;
        Ok((name, pool, None))
    }

    /// A line of policy and its pool.
    pub(super) fn line(&self, device: &str) -> Option<(String, usize)> {
        let line = self
            .policy
            .line_of_number(device)
            .or_else(|| self.policy.lines.get(device))?;
        let pool = self.pool_by_name.get(&line.pool).copied()?;
        Some((line.name.clone(), pool))
    }

    /// Handles a reference that is known already; false: it is new.
    fn repeated(&mut self, session: u64, source: &Arc<Source>, request: &RouteRequest) -> bool {
        let key = (source.number, hash(&request.cross_ref_id));
        if self.shed.get(&key).is_some() {
            self.metrics.duplicates.inc();
            let contact = self
                .keys
                .contact(&source.switch, source.boot, &request.cross_ref_id);
            let device = request
                .current_route
                .as_ref()
                .map_or("", |device| &device.id);
            let pool = self.line(device).map_or(0, |(_, pool)| pool);
            let body = self.overload(&request.cross_ref_id, contact, pool);
            self.push(session, body);
            self.give_back(session);
            return true;
        }
        let known = self
            .sources
            .get(&source.number)
            .and_then(|state| state.dialogue_by_ref.get(&request.cross_ref_id));
        let Some(number) = known.copied() else {
            return false;
        };
        let Some(dialogue) = self.dialogues.get_mut(&number) else {
            return false;
        };
        if dialogue.fingerprint != 0 && dialogue.fingerprint != fingerprint(request) {
            self.metrics.reused_references.inc();
            let fault = FieldError::new(
                "request.cross_ref_id",
                "never used for another call within a boot",
                check::stripped(&request.cross_ref_id),
            );
            self.invalid(session, &request.cross_ref_id, &fault);
            return true;
        }
        self.metrics.duplicates.inc();
        if dialogue.state.is_active() {
            // The one answer will serve both; it goes where the switch spoke last.
            let earlier = std::mem::replace(&mut dialogue.session, session);
            self.give_back(earlier);
        } else if dialogue.answer.is_none() {
            // The switch had ended it before it was answered.
            let error = RouteEndError::InvalidCrossRefId;
            self.end_unopened(session, &request.cross_ref_id, error, Answered::Invalid);
            self.give_back(session);
        } else {
            dialogue.session = session;
            self.send_answer_again(number);
            self.give_back(session);
        }
        true
    }

    /// Sends a remembered answer once more.
    pub(super) fn send_answer_again(&mut self, number: u64) {
        if let Some(dialogue) = self.dialogues.get(&number)
            && let Some(answer) = dialogue.answer.clone()
        {
            let session = dialogue.session;
            self.push_answer(session, number, answer);
        }
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "one caller; a struct would only rename the arguments"
    )]
    fn open_dialogue(
        &mut self,
        now: Moment,
        session: u64,
        received: Instant,
        source: Arc<Source>,
        request: RouteRequest,
        line: String,
        pool: usize,
        contact: ContactId,
        continues: bool,
        times: &Times,
    ) {
        let incoming = if runtime::trace::is_valid(&request.traceparent) {
            request.traceparent.clone()
        } else if self.config.trace_ratio > 0.0 {
            runtime::trace::new_traceparent(self.config.trace_ratio)
        } else {
            String::new()
        };
        let span = runtime::trace::span("gateway", "route request", &incoming);
        let traceparent = runtime::trace::forward(&span, &incoming);
        let fingerprint = fingerprint(&request);
        let call_id = request.call.map(|call| call.call_id).unwrap_or_default();
        let caller = self.keys.caller_bytes(request.calling_device.as_ref());
        let number = self.number();
        let turn = number;
        self.calls
            .insert((source.number, call_id.clone()), (contact, pool));
        let route = wire::Route {
            call_id,
            cross_ref_id: request.cross_ref_id.clone(),
            line,
            topic: String::new(),
            topic_confidence: 0.0,
            other_topics: Vec::new(),
            language: primary_tag(&request.language),
            channel: u32::try_from(request.channel).unwrap_or(0),
            caller,
            authenticated: request.authenticated,
            person_asked: false,
            arrived_at_ms: times.arrived.0,
            deadline_at_ms: times.deadline.0,
        };
        let query = (!continues).then(|| proto::intent::v1::Query {
            query_id: number,
            utterance: request.utterance,
            digits: request.digits,
            language: request.language,
            line: route.line.clone(),
            traceparent: traceparent.clone(),
        });
        let ask = self.input(
            &source,
            Some(contact),
            pool,
            now.wall,
            &traceparent,
            wire::input::Body::Route(route),
        );
        let dialogue = Dialogue {
            session,
            cross_ref: request.cross_ref_id.clone(),
            contact,
            pool,
            turn,
            fingerprint,
            received,
            deadline: times.deadline,
            switch_deadline: times.switch_deadline,
            state: State::Waiting,
            is_request: true,
            ask: Some(Box::new(ask)),
            default_topic: true,
            holds: false,
            answer: None,
            span,
            traceparent,
            source: Arc::clone(&source),
        };
        self.dialogues.insert(number, dialogue);
        if let Some(state) = self.sources.get_mut(&source.number) {
            state.dialogue_by_ref.insert(request.cross_ref_id, number);
        }
        self.in_flight += 1;
        self.wheel.add(times.deadline, (number, Alarm::Answer));
        match query {
            Some(query) => self.classify(now, number, query),
            None => {
                self.metrics.classified.inc(Classified::Continued as usize);
                self.operator_topic(number, false);
                self.ask_routing(number);
            }
        }
    }

    /// An input for routing about a contact of a switch.
    pub(super) fn input(
        &self,
        source: &Source,
        contact: Option<ContactId>,
        pool: usize,
        occurred_at: TimeMs,
        traceparent: &str,
        body: wire::input::Body,
    ) -> wire::Input {
        wire::Input {
            request_id: 0,
            pool: self.pools[pool].name().to_owned(),
            contact_id: contact
                .map(|contact| Bytes::copy_from_slice(&contact.to_bytes()))
                .unwrap_or_default(),
            switch_id: source.switch.clone(),
            boot_id: source.boot,
            occurred_at_ms: occurred_at.0,
            traceparent: traceparent.to_owned(),
            body: Some(body),
        }
    }
}

impl Dialogue {
    pub(super) fn route_mut(&mut self) -> Option<&mut wire::Route> {
        match self.ask.as_mut()?.body.as_mut()? {
            wire::input::Body::Route(route) => Some(route),
            _ => None,
        }
    }
}
