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
use domain::invariant::Invariant;
use domain::{ContactId, TimeMs};
use proto::convert::cti as check;
use proto::cti::v1::{
    ReRoute, RouteEnd, RouteEndError, RouteRequest, RouteSelect, mesh_dialogue_message as mesh,
};
use proto::routing::v1 as wire;

use super::answers;
use super::{ContactMemo, Core, Moment, Source};
use crate::metrics::{Answered, Classified, Limit, RefusedClass};

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
        matches!(self, State::Classifying(_) | State::Waiting | State::Asked(_))
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
    turn: u64,
    /// Tells a repeated request from a reused reference; 0: not known (a re-route came first).
    fingerprint: u64,
    received: Instant,
    /// When the answer must be on its way.
    pub(super) deadline: TimeMs,
    /// When the switch has default-routed.
    switch_deadline: TimeMs,
    pub(super) state: State,
    /// It answers a request, which holds a credit; else a re-route.
    is_request: bool,
    /// What routing is asked; dropped with the answer.
    pub(super) ask: Option<Box<wire::Input>>,
    default_topic: bool,
    /// The answer holds something in routing: an agent or a place.
    holds: bool,
    answer: Option<mesh::Body>,
    span: tracing::Span,
    pub(super) traceparent: String,
}

fn fingerprint(request: &RouteRequest) -> u64 {
    let mut hasher = DefaultHasher::new();
    let call = request.call.as_ref();
    call.map(|call| (&call.call_id, &call.global_call_id)).hash(&mut hasher);
    request.current_route.as_ref().map(|device| &device.id).hash(&mut hasher);
    request.calling_device.as_ref().map(|device| &device.id).hash(&mut hasher);
    hasher.finish().max(1)
}

fn hash(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

/// The primary tag of a language, in lower case: what policy knows languages by.
pub(super) fn primary_tag(language: &str) -> String {
    language.split('-').next().unwrap_or_default().to_ascii_lowercase()
}

/// The deadlines that follow from a request's timeout and age.
struct Times {
    arrived: TimeMs,
    switch_deadline: TimeMs,
    deadline: TimeMs,
}

impl Core {
    fn times(&self, now: Moment, session: u64, received: Instant, timeout_ms: u32, age_ms: u32) -> Times {
        let tick_ms = self.sessions.get(&session).map_or(check::TICK_DEFAULT_MS, |found| found.tick_ms);
        let queued_ms = now.instant.saturating_duration_since(received).as_millis();
        let sent = now.wall.minus(u64::try_from(queued_ms).unwrap_or(0));
        let arrived = sent.minus(age_ms.into());
        let switch_deadline = arrived.plus(timeout_ms.into());
        let margin_ms = 2 * u64::from(self.config.link_rtt_ms) + u64::from(tick_ms);
        Times { arrived, switch_deadline, deadline: switch_deadline.minus(margin_ms) }
    }

    /// A request: checked, recognised, admitted, asked for.
    pub(super) fn route_request(&mut self, now: Moment, session: u64, received: Instant, request: RouteRequest) {
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
        let Some(source) = self.sessions.get(&session).map(|found| Arc::clone(&found.source)) else {
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
            None => self.keys.contact(&source.switch, source.boot, &request.cross_ref_id),
        };
        if correlated.is_none() && !self.admit(now, &source) {
            self.answer_overload(session, received, &source, &request.cross_ref_id, contact, pool);
            return;
        }
        self.open_dialogue(now, session, received, source, request, line, pool, contact, correlated.is_some(), &times);
    }

    fn invalid(&mut self, session: u64, cross_ref: &str, fault: &FieldError) {
        self.refuse(session, cross_ref, fault, RefusedClass::Request);
        self.end_unopened(session, cross_ref, RouteEndError::InvalidRequest, Answered::Invalid);
        self.give_back(session);
    }

    /// The line by its number (or name), the pool, and the contact that goes on.
    fn line_and_pool(&self, request: &RouteRequest) -> Result<(String, usize, Option<ContactId>), FieldError> {
        let correlated = check::correlator("request.correlator_data", &request.correlator_data)?;
        let device = request.current_route.as_ref().map_or("", |device| &device.id);
        let line = self.line(device);
        if let Some(correlated) = correlated {
            let pool = self.pool_by_name.get(&correlated.pool).copied().ok_or_else(|| {
                FieldError::new("request.correlator_data", "a pool of policy", &correlated.pool)
            })?;
            // A transfer or a callback's leg may be dialled to anything; its contact has a line.
            let name = line.map(|(name, _)| name).unwrap_or_default();
            return Ok((name, pool, Some(correlated.contact)));
        }
        let (name, pool) = line.ok_or_else(|| {
            FieldError::new("request.current_route.id", "a number of a line in policy", check::stripped(device))
        })?;
        Ok((name, pool, None))
    }

    /// A line of policy and its pool.
    pub(super) fn line(&self, device: &str) -> Option<(String, usize)> {
        let line = self.policy.line_of_number(device).or_else(|| self.policy.lines.get(device))?;
        let pool = self.pool_by_name.get(&line.pool).copied()?;
        Some((line.name.clone(), pool))
    }

    /// Handles a reference that is known already; false: it is new.
    fn repeated(&mut self, session: u64, source: &Arc<Source>, request: &RouteRequest) -> bool {
        let key = (source.number, hash(&request.cross_ref_id));
        if self.shed.get(&key).is_some() {
            self.metrics.duplicates.inc();
            let contact = self.keys.contact(&source.switch, source.boot, &request.cross_ref_id);
            let device = request.current_route.as_ref().map_or("", |device| &device.id);
            let pool = self.line(device).map_or(0, |(_, pool)| pool);
            let body = self.overload(&request.cross_ref_id, contact, pool);
            self.push(session, body);
            self.give_back(session);
            return true;
        }
        let known = self.sources.get(&source.number).and_then(|state| state.dialogue_by_ref.get(&request.cross_ref_id));
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

    fn admit(&mut self, now: Moment, source: &Source) -> bool {
        let bucket = self.sources.get_mut(&source.number).and_then(|state| state.bucket.as_mut());
        match self.admission.admit(now.wall, self.in_flight, bucket) {
            Ok(()) => true,
            Err(shed) => {
                let limit = match shed {
                    crate::admission::Shed::NodeRate => Limit::NodeRate,
                    crate::admission::Shed::SwitchRate => Limit::SwitchRate,
                    crate::admission::Shed::InFlight => Limit::InFlight,
                };
                self.metrics.limit_hits.inc(limit as usize);
                false
            }
        }
    }

    fn overload(&self, cross_ref: &str, contact: ContactId, pool: usize) -> mesh::Body {
        let reason = proto::cti::v1::MessageReason::Overload.into();
        let announcement = &self.config.overload_announcement;
        let correlator = check::correlator_data(contact, self.pools[pool].name(), reason);
        mesh::Body::Select(answers::message(cross_ref, correlator, announcement, reason, String::new()))
    }

    fn answer_overload(
        &mut self,
        session: u64,
        received: Instant,
        source: &Source,
        cross_ref: &str,
        contact: ContactId,
        pool: usize,
    ) {
        self.metrics.answers.inc(Answered::Overload as usize);
        self.answered_in_batch.push(received);
        self.shed.insert((source.number, hash(cross_ref)), ());
        let body = self.overload(cross_ref, contact, pool);
        self.push(session, body);
        self.give_back(session);
    }

    #[expect(clippy::too_many_arguments, reason = "one caller; a struct would only rename the arguments")]
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
        self.calls.insert((source.number, call_id.clone()), (contact, pool));
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
        let ask = self.input(&source, Some(contact), pool, now.wall, &traceparent, wire::input::Body::Route(route));
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

    /// Asks intent, or goes on without.
    fn classify(&mut self, now: Moment, number: u64, query: proto::intent::v1::Query) {
        let links: Vec<u64> =
            self.intent_peers.iter().filter(|(_, peer)| !peer.draining).map(|(link, _)| *link).collect();
        let Some(dialogue) = self.dialogues.get_mut(&number) else {
            return;
        };
        if links.is_empty() {
            self.metrics.classified.inc(Classified::Away as usize);
            self.operator_topic(number, true);
            self.ask_routing(number);
            return;
        }
        self.intent_turn = self.intent_turn.wrapping_add(1);
        let link = links[self.intent_turn % links.len()];
        let left_ms = dialogue.deadline.since(now.wall);
        let share_ms = left_ms * self.config.intent_share_percent / 100;
        let until = now.wall.plus(share_ms.min(self.config.intent_timeout_ms));
        dialogue.state = State::Classifying(link);
        if let Some(peer) = self.intent_peers.get_mut(&link) {
            peer.batch.push(query);
        }
        self.wheel.add(until, (number, Alarm::Topic));
    }

    /// A frame of verdicts.
    pub(super) fn intent_frame(&mut self, _now: Moment, link: u64, frame: proto::intent::v1::LinkResponse) {
        if let Some(peer) = self.intent_peers.get_mut(&link) {
            peer.draining |= frame.draining;
        }
        for verdict in frame.verdicts {
            self.verdict(verdict);
        }
    }

    fn verdict(&mut self, verdict: proto::intent::v1::Verdict) {
        let number = verdict.query_id;
        let known = self.policy.topics.contains_key(&verdict.topic_id);
        let Some(dialogue) = self.dialogues.get_mut(&number) else {
            return;
        };
        if !matches!(dialogue.state, State::Classifying(_)) {
            return;
        }
        let to_person = verdict.decision() != proto::intent::v1::Decision::Topic;
        let Some(route) = dialogue.route_mut() else {
            return;
        };
        if route.language.is_empty() {
            route.language = primary_tag(&verdict.language);
        }
        route.topic_confidence = verdict.confidence.clamp(0.0, 1.0);
        let others = verdict.top.into_iter().map(|candidate| candidate.topic_id);
        route.other_topics = others.filter(|topic| *topic != verdict.topic_id).take(2).collect();
        route.person_asked = to_person;
        if known {
            route.topic = verdict.topic_id;
            dialogue.default_topic = false;
            let kind = if to_person { Classified::Person } else { Classified::Topic };
            self.metrics.classified.inc(kind as usize);
        } else {
            self.metrics.classified.inc(Classified::UnknownTopic as usize);
            self.operator_topic(number, true);
        }
        self.ask_routing(number);
    }

    /// An intent replica is gone: its callers go on to a person.
    pub(super) fn intent_down(&mut self, _now: Moment, link: u64) {
        self.intent_peers.remove(&link);
        let stranded: Vec<u64> = self
            .dialogues
            .iter()
            .filter(|(_, dialogue)| dialogue.state == State::Classifying(link))
            .map(|(number, _)| *number)
            .collect();
        for number in stranded {
            self.metrics.classified.inc(Classified::Away as usize);
            self.operator_topic(number, true);
            self.ask_routing(number);
        }
    }

    /// The topic of the line when nothing better is known: the operator's.
    fn operator_topic(&mut self, number: u64, person_asked: bool) {
        let Some(dialogue) = self.dialogues.get_mut(&number) else {
            return;
        };
        let Some(route) = dialogue.route_mut() else {
            return;
        };
        let line = self.policy.lines.get(&route.line);
        let topic = line.map_or(domain::policy::OPERATOR_TOPIC, |line| &line.default_topic);
        topic.clone_into(&mut route.topic);
        route.person_asked = person_asked;
    }

    /// Another destination on the same dialogue.
    pub(super) fn reroute(&mut self, now: Moment, session: u64, received: Instant, reroute: ReRoute) {
        self.metrics.reroutes.inc();
        let cross_ref = &reroute.cross_ref_id;
        let refuse = |core: &mut Self, fault: &FieldError| {
            core.refuse(session, cross_ref, fault, RefusedClass::Dialogue);
            core.end_unopened(session, cross_ref, RouteEndError::InvalidRequest, Answered::Invalid);
        };
        if let Err(fault) = check::reroute(&reroute) {
            return refuse(self, &fault);
        }
        let Some(source) = self.sessions.get(&session).map(|found| Arc::clone(&found.source)) else {
            return;
        };
        let correlated = check::correlator("reroute.correlator_data", &reroute.correlator_data).ok().flatten();
        let named = correlated.and_then(|found| Some((found.contact, *self.pool_by_name.get(&found.pool)?)));
        let known = self.sources.get(&source.number).and_then(|state| state.dialogue_by_ref.get(cross_ref)).copied();
        let remembered = known.and_then(|number| self.dialogues.get(&number));
        if remembered.is_some_and(|dialogue| dialogue.state.is_active()) {
            let fault = FieldError::new("reroute.cross_ref_id", "a dialogue that has been answered", check::stripped(cross_ref));
            // Its request or earlier re-route still gets its own answer.
            return self.refuse(session, cross_ref, &fault, RefusedClass::Dialogue);
        }
        let place = remembered.map(|dialogue| (dialogue.contact, dialogue.pool)).or(named);
        let Some((contact, pool)) = place else {
            self.end_unopened(session, cross_ref, RouteEndError::InvalidCrossRefId, Answered::Invalid);
            return;
        };
        let timeout_ms = check::reply_timeout("reroute.reply_timeout_ms", reroute.reply_timeout_ms)
            .unwrap_or(check::REPLY_TIMEOUT_DEFAULT_MS);
        let times = self.times(now, session, received, timeout_ms, reroute.age_ms);
        if times.deadline <= now.wall {
            self.end_unopened(session, cross_ref, RouteEndError::RouteingTimerExpired, Answered::Expired);
            return;
        }
        let traceparent = remembered.map(|dialogue| dialogue.traceparent.clone()).unwrap_or_default();
        let fingerprint = remembered.map_or(0, |dialogue| dialogue.fingerprint);
        let body = wire::input::Body::Reroute(wire::Reroute {
            cause: u32::try_from(reroute.cause).unwrap_or(0),
            deadline_at_ms: times.deadline.0,
        });
        let ask = self.input(&source, Some(contact), pool, now.wall, &traceparent, body);
        let turn = self.number();
        let number = known.unwrap_or(turn);
        let span = runtime::trace::span("gateway", "reroute", &traceparent);
        let dialogue = Dialogue {
            session,
            source: Arc::clone(&source),
            cross_ref: cross_ref.clone(),
            contact,
            pool,
            turn,
            fingerprint,
            received,
            deadline: times.deadline,
            switch_deadline: times.switch_deadline,
            state: State::Waiting,
            is_request: false,
            ask: Some(Box::new(ask)),
            default_topic: false,
            holds: false,
            answer: None,
            span,
            traceparent,
        };
        self.dialogues.insert(number, dialogue);
        if let Some(state) = self.sources.get_mut(&source.number) {
            state.dialogue_by_ref.insert(cross_ref.clone(), number);
        }
        self.in_flight += 1;
        self.wheel.add(times.deadline, (number, Alarm::Answer));
        self.ask_routing(number);
    }

    /// Routing's answer for a dialogue that waits for it.
    pub(super) fn routing_answered(&mut self, now: Moment, number: u64, reply: Option<wire::reply::Body>) {
        let Some(dialogue) = self.dialogues.get(&number) else {
            return;
        };
        let pool = self.pools[dialogue.pool].name();
        let correlator = check::correlator_data(dialogue.contact, pool, 0);
        let cross_ref = dialogue.cross_ref.clone();
        let answer = match reply {
            Some(wire::reply::Body::Answer(answer)) => answers::select(&cross_ref, correlator, answer),
            Some(wire::reply::Body::Refused(refused)) => {
                let session = dialogue.session;
                self.refuse_by_routing(session, &cross_ref, &refused);
                return self.end_without(now, number, Answered::DefaultRefused);
            }
            _ => None,
        };
        let Some((kind, holds, select)) = answer else {
            return self.end_without(now, number, Answered::DefaultRouting);
        };
        self.remember_contact(number, &select);
        self.finish(now, number, kind, holds, mesh::Body::Select(select));
    }

    fn refuse_by_routing(&mut self, session: u64, cross_ref: &str, refused: &wire::Refused) {
        self.metrics.refusals.inc(RefusedClass::Routing as usize);
        let refusal = proto::cti::v1::Refusal {
            about: cross_ref.to_owned(),
            field: refused.field.clone(),
            limit: refused.limit.clone(),
            value: check::stripped(&refused.value),
        };
        self.push(session, mesh::Body::Refusal(refusal));
    }

    /// Ends a dialogue with "use your default route".
    fn end_without(&mut self, now: Moment, number: u64, kind: Answered) {
        let Some(dialogue) = self.dialogues.get(&number) else {
            return;
        };
        let end = RouteEnd {
            cross_ref_id: dialogue.cross_ref.clone(),
            error: RouteEndError::ResourceUnavailable.into(),
            correlator_data: check::correlator_data(dialogue.contact, self.pools[dialogue.pool].name(), 0),
        };
        self.finish(now, number, kind, false, mesh::Body::End(end));
    }

    /// The one way from active to answered.
    fn finish(&mut self, now: Moment, number: u64, kind: Answered, holds: bool, body: mesh::Body) {
        let Some(dialogue) = self.dialogues.get_mut(&number) else {
            return;
        };
        if !dialogue.state.is_active() {
            return;
        }
        dialogue.state = State::Answered;
        dialogue.holds = holds;
        dialogue.ask = None;
        dialogue.answer = Some(body.clone());
        dialogue.span = tracing::Span::none();
        let (session, is_request, turn) = (dialogue.session, dialogue.is_request, dialogue.turn);
        self.metrics.answers.inc(kind as usize);
        if now.wall > dialogue.switch_deadline {
            self.metrics.answers_late.inc();
        }
        self.answered_in_batch.push(dialogue.received);
        self.in_flight -= 1;
        self.push_answer(session, number, body);
        if is_request {
            self.give_back(session);
        }
        self.answered_order.push_back((number, turn));
        self.forget_old_answers();
    }

    fn forget_old_answers(&mut self) {
        while self.answered_order.len() > self.config.remembered_answers_max {
            let Some((number, turn)) = self.answered_order.pop_front() else {
                return;
            };
            // A dialogue that was re-routed stands in the line twice, and counts the last time.
            let last = self.dialogues.get(&number).is_some_and(|dialogue| dialogue.turn == turn);
            if last {
                self.forget(number);
            }
        }
    }

    pub(super) fn forget(&mut self, number: u64) {
        if let Some(dialogue) = self.dialogues.remove(&number) {
            if dialogue.state.is_active() {
                self.in_flight -= 1;
                self.violated(Invariant::NeverSilent, "a route request was dropped without an answer");
            }
            if let Some(state) = self.sources.get_mut(&dialogue.source.number) {
                state.dialogue_by_ref.remove(&dialogue.cross_ref);
            }
        }
    }

    /// Counts a broken promise, and says so.
    pub(super) fn violated(&mut self, invariant: Invariant, detail: &'static str) {
        self.metrics.violation(invariant);
        if let Some(suppressed) = self.logs.violation.check() {
            tracing::error!(invariant = invariant.name(), detail, suppressed, "a promise was broken");
        }
    }

    fn remember_contact(&mut self, number: u64, select: &RouteSelect) {
        let Some(dialogue) = self.dialogues.get(&number) else {
            return;
        };
        let Some(wire::input::Body::Route(route)) = dialogue.ask.as_ref().and_then(|ask| ask.body.as_ref()) else {
            return;
        };
        let expected_callback_ms = match &select.treatment {
            Some(proto::cti::v1::route_select::Treatment::Queue(queue)) => queue.expected_wait_ms,
            _ => 0,
        };
        // The topic is left to routing when intent did not give it: routing may know better.
        let topic = if dialogue.default_topic { String::new() } else { route.topic.clone() };
        let memo = ContactMemo {
            line: route.line.clone(),
            topic,
            language: route.language.clone(),
            caller: route.caller.clone(),
            arrived_at: TimeMs(route.arrived_at_ms),
            expected_callback_ms,
        };
        self.contacts.insert(dialogue.contact, memo);
    }

    /// RouteEnd from the switch: always the end.
    pub(super) fn switch_ended(&mut self, now: Moment, session: u64, end: &RouteEnd) {
        if let Err(fault) = check::cross_ref("end.cross_ref_id", &end.cross_ref_id) {
            return self.refuse(session, &end.cross_ref_id, &fault, RefusedClass::Dialogue);
        }
        let Some(source) = self.sessions.get(&session).map(|found| Arc::clone(&found.source)) else {
            return;
        };
        let failed = end.error != 0;
        let known = self.sources.get(&source.number).and_then(|state| state.dialogue_by_ref.get(&end.cross_ref_id));
        let Some(number) = known.copied() else {
            // Another gateway's dialogue, or one forgotten: the correlator names the contact.
            let correlated = check::correlator("end.correlator_data", &end.correlator_data).ok().flatten();
            if failed
                && let Some(correlated) = correlated.filter(|found| found.blocked == 0)
                && let Some(pool) = self.pool_by_name.get(&correlated.pool).copied()
            {
                self.report_route_failed(now, &source, correlated.contact, pool, end.error, "");
            }
            return;
        };
        self.end_known(now, &source, number, end.error);
    }

    fn end_known(&mut self, now: Moment, source: &Arc<Source>, number: u64, error: i32) {
        let Some(dialogue) = self.dialogues.get_mut(&number) else {
            return;
        };
        let before = std::mem::replace(&mut dialogue.state, State::Ended);
        dialogue.span = tracing::Span::none();
        let (session, contact, pool) = (dialogue.session, dialogue.contact, dialogue.pool);
        let (holds, is_request, turn) = (dialogue.holds, dialogue.is_request, dialogue.turn);
        let traceparent = dialogue.traceparent.clone();
        if before.is_active() {
            dialogue.ask = None;
            self.in_flight -= 1;
            self.metrics.answers.inc(Answered::SwitchEnded as usize);
            if is_request {
                self.give_back(session);
            }
            self.answered_order.push_back((number, turn));
            self.forget_old_answers();
            if let State::Asked(request) = before {
                self.give_up_request(request, error, number);
            }
        } else if before == State::Answered && error != 0 && holds {
            self.report_route_failed(now, source, contact, pool, error, &traceparent);
        }
    }

    /// Fires what is due.
    pub(super) fn fire_alarms(&mut self, now: Moment) {
        let mut due = std::mem::take(&mut self.due);
        self.wheel.advance(now.wall, &mut due);
        for (number, alarm) in due.drain(..) {
            match alarm {
                Alarm::Topic => self.topic_is_late(number),
                Alarm::Answer => self.answer_is_due(now, number),
            }
        }
        self.due = due;
    }

    fn topic_is_late(&mut self, number: u64) {
        let waits = self.dialogues.get(&number).is_some_and(|dialogue| matches!(dialogue.state, State::Classifying(_)));
        if waits {
            self.metrics.classified.inc(Classified::Late as usize);
            self.operator_topic(number, true);
            self.ask_routing(number);
        }
    }

    fn answer_is_due(&mut self, now: Moment, number: u64) {
        let Some(dialogue) = self.dialogues.get(&number) else {
            return;
        };
        // A re-route has set a later one, which has its own alarm.
        if dialogue.deadline > now.wall.plus(8) {
            return;
        }
        let state = dialogue.state;
        if state.is_active() {
            self.end_without(now, number, Answered::DefaultDeadline);
            if let State::Asked(request) = state {
                let error = RouteEndError::RouteingTimerExpired.into();
                self.give_up_request(request, error, number);
            }
        } else if state == State::Answered {
            self.answer_was_not_delivered(now, number);
        }
    }

    /// At its deadline an answer still waits for a link: the switch has default-routed.
    fn answer_was_not_delivered(&mut self, now: Moment, number: u64) {
        let Some(dialogue) = self.dialogues.get_mut(&number) else {
            return;
        };
        let waits = match self.sessions.get_mut(&dialogue.session) {
            Some(session) => {
                let before = session.undelivered.len();
                session.undelivered.retain(|waiting| *waiting != number);
                session.undelivered.len() < before
            }
            None => false,
        };
        if !waits {
            return;
        }
        self.metrics.answers.inc(Answered::SessionLost as usize);
        if dialogue.holds {
            dialogue.holds = false;
            let (source, contact, pool) = (Arc::clone(&dialogue.source), dialogue.contact, dialogue.pool);
            let traceparent = dialogue.traceparent.clone();
            let error = RouteEndError::RouteingTimerExpired.into();
            self.report_route_failed(now, &source, contact, pool, error, &traceparent);
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
            contact_id: contact.map(|contact| Bytes::copy_from_slice(&contact.to_bytes())).unwrap_or_default(),
            switch_id: source.switch.clone(),
            boot_id: source.boot,
            occurred_at_ms: occurred_at.0,
            traceparent: traceparent.to_owned(),
            body: Some(body),
        }
    }
}

impl Dialogue {
    fn route_mut(&mut self) -> Option<&mut wire::Route> {
        match self.ask.as_mut()?.body.as_mut()? {
            wire::input::Body::Route(route) => Some(route),
            _ => None,
        }
    }
}
