//! A pool under test, and words to speak with it.

#![allow(
    dead_code,
    reason = "each test file uses its share, and one of them all of it"
)]

pub(crate) mod dice;
pub(crate) mod mirror;

use std::sync::Arc;

use domain::invariant::Violation;
use domain::policy::Policy;
use domain::pool::{
    AgentSkill, AgentUpdate, Answer, CallbackStep, Cause, Cleared, Command, Disposition, Event,
    EventBody, Input, InputBody, Output, Pool, ReplyBody, RouteInput, RoutedBy, SwitchAgentState,
    SwitchRef, VirtualRegistration,
};
use domain::{AgentId, BootId, CallId, CallerId, ContactId, SwitchId, TimeMs};

/// Two queues of one skill that differ in proficiency and priority, one of another skill.
pub(crate) const POLICY: &str = r#"
apiVersion: trunkline.dev/v1
kind: Pool
metadata: { name: p }
spec:
  noAnswerMs: 20000
  wrapUpMaxMs: 60000
  reservationMaxMs: 5000
  waitingMax: 100000
  agentsMax: 50000
  priorityCap: 600
  rememberEndedMs: 60000
  surveyWaitMs: 4000
---
apiVersion: trunkline.dev/v1
kind: Queue
metadata: { name: plain }
spec: { pool: p, skill: account, proficiencyMin: 1, device: "q-plain", priorityStart: 0, priorityAcceleration: 1,
  waitingMax: 50000, serviceLevelMs: 60000, handleTimePriorMs: 600000, patiencePriorMs: 1200000, announcement: full }
---
apiVersion: trunkline.dev/v1
kind: Queue
metadata: { name: hard }
spec: { pool: p, skill: account, proficiencyMin: 7, device: "q-hard", priorityStart: 300, priorityAcceleration: 2,
  waitingMax: 50000, serviceLevelMs: 60000, handleTimePriorMs: 600000, patiencePriorMs: 1200000, announcement: full }
---
apiVersion: trunkline.dev/v1
kind: Queue
metadata: { name: operator }
spec: { pool: p, skill: operator, proficiencyMin: 1, device: "q-operator", priorityStart: 0, priorityAcceleration: 1,
  waitingMax: 3, serviceLevelMs: 60000, handleTimePriorMs: 300000, patiencePriorMs: 1200000, announcement: operator-full }
---
apiVersion: trunkline.dev/v1
kind: Topic
metadata: { name: plain }
spec: { id: PLAIN, title: Plain, queue: plain, callback: true, family: a }
---
apiVersion: trunkline.dev/v1
kind: Topic
metadata: { name: urgent }
spec: { id: URGENT, title: Urgent, queue: plain, callback: true, priorityStart: 100, family: a }
---
apiVersion: trunkline.dev/v1
kind: Topic
metadata: { name: hard }
spec: { id: HARD, title: Hard, queue: hard, callback: true, family: a }
---
apiVersion: trunkline.dev/v1
kind: Topic
metadata: { name: operator }
spec: { id: META_OPERATOR, title: Operator, queue: operator, callback: false, family: b }
---
apiVersion: trunkline.dev/v1
kind: Line
metadata: { name: main }
spec: { pool: p, numbers: ["8005550100"], defaultTopic: META_OPERATOR, callbackNumber: "8005550199",
  timeZone: America/New_York, callerPlacesMax: 2 }
---
apiVersion: trunkline.dev/v1
kind: CallbackPolicy
metadata: { name: default }
spec: { offerFromExpectedWaitMs: 120000, attemptsMax: 3, attemptSpacingMs: 60000, ringMs: 25000, leaseMs: 30000,
  windowMs: 1800000, windowsOffered: 2, windowCapacityPercent: 30, callableFromHour: 8, callableUntilHour: 21 }
"#;

/// 2026-02-17 15:00 UTC, ten in the morning in New York.
pub(crate) const START: TimeMs = TimeMs(1_771_340_400_000);

pub(crate) fn policy() -> Arc<Policy> {
    Arc::new(Policy::parse(&[("test", POLICY)]).unwrap_or_else(|faults| panic!("{faults:#?}")))
}

pub(crate) fn contact(number: u64) -> ContactId {
    ContactId(u128::from(number))
}

pub(crate) fn agent(name: &str) -> AgentId {
    AgentId::parse(name).expect("a name of the test's own")
}

pub(crate) fn switch(boot: u64) -> SwitchRef {
    SwitchRef {
        switch: SwitchId::parse("sw1").expect("valid"),
        boot: BootId(boot),
    }
}

pub(crate) fn call(name: &str) -> CallId {
    CallId::parse(name).expect("a name of the test's own")
}

/// A route request with the usual content.
pub(crate) fn route(number: u64, topic: &str, now: TimeMs) -> RouteInput {
    RouteInput {
        call: call(&format!("call-{number}")),
        cross_ref: format!("ref-{number}"),
        line: "main".into(),
        topic: topic.into(),
        topic_confidence: 0.9,
        other_topics: vec!["HARD".into(), "NOT_A_TOPIC".into()],
        language: "en".into(),
        channel: 1,
        caller: Some(CallerId(u128::from(number))),
        authenticated: false,
        person_asked: false,
        arrived_at: now,
        deadline: now.plus(500),
    }
}

pub(crate) fn update(name: &str, state: SwitchAgentState, skills: &[(&str, u8)]) -> AgentUpdate {
    let skill = |(skill, proficiency): &(&str, u8)| AgentSkill {
        skill: (*skill).into(),
        proficiency: *proficiency,
    };
    AgentUpdate {
        agent: agent(name),
        device: format!("dev-{name}"),
        state,
        skills: skills.iter().map(skill).collect(),
        languages: Vec::new(),
        capacity: 0,
        reason: String::new(),
    }
}

/// A pool with its outputs at hand.
pub(crate) struct Bench {
    pub(crate) pool: Pool,
    pub(crate) now: TimeMs,
    pub(crate) events: Vec<Event>,
    pub(crate) commands: Vec<Command>,
    pub(crate) due: Vec<(ContactId, bool, u32)>,
    pub(crate) notices: Vec<(ContactId, domain::pool::NoticeKind, u32)>,
    pub(crate) violations: Vec<Violation>,
    token: u64,
    out: Vec<Output>,
}

impl Bench {
    pub(crate) fn new() -> Bench {
        Bench::on(Pool::new(policy(), "p"))
    }

    pub(crate) fn on(pool: Pool) -> Bench {
        Bench {
            pool,
            now: START,
            events: Vec::new(),
            commands: Vec::new(),
            due: Vec::new(),
            notices: Vec::new(),
            violations: Vec::new(),
            token: 0,
            out: Vec::new(),
        }
    }

    /// Takes the outputs apart; the replies are given back.
    fn sort(&mut self) -> Vec<(u64, ReplyBody)> {
        let mut replies = Vec::new();
        for output in self.out.drain(..) {
            match output {
                Output::Reply(reply) => replies.push((reply.token, reply.body)),
                Output::Command(command) => self.commands.push(command),
                Output::VirtualDue {
                    contact,
                    agent_held,
                    turn,
                    ..
                } => self.due.push((contact, agent_held, turn)),
                Output::Notice {
                    contact,
                    kind,
                    turn,
                } => self.notices.push((contact, kind, turn)),
                Output::Event(event) => self.events.push(event),
                Output::Violation(violation) => self.violations.push(violation),
            }
        }
        replies
    }

    pub(crate) fn input(
        &mut self,
        contact: Option<ContactId>,
        source: Option<SwitchRef>,
        body: InputBody,
    ) -> ReplyBody {
        self.token += 1;
        let input = Input {
            token: self.token,
            contact,
            source,
            occurred_at: self.now,
            traceparent: String::new(),
            body,
        };
        self.pool.handle(self.now, input, &mut self.out);
        let replies = self.sort();
        assert_eq!(replies.len(), 1, "one reply an input");
        let (token, body) = replies.into_iter().next().expect("one");
        assert_eq!(token, self.token);
        assert!(self.violations.is_empty(), "{:?}", self.violations);
        body
    }

    /// About a contact, from the switch.
    pub(crate) fn tell(&mut self, number: u64, body: InputBody) -> ReplyBody {
        self.input(Some(contact(number)), Some(switch(1)), body)
    }

    pub(crate) fn route(&mut self, number: u64, topic: &str) -> Answer {
        self.route_with(number, route(number, topic, self.now))
    }

    pub(crate) fn route_with(&mut self, number: u64, route: RouteInput) -> Answer {
        match self.tell(number, InputBody::Route(route)) {
            ReplyBody::Answer { answer, .. } => answer,
            other => panic!("not an answer: {other:?}"),
        }
    }

    pub(crate) fn agent(
        &mut self,
        name: &str,
        state: SwitchAgentState,
        skills: &[(&str, u8)],
    ) -> ReplyBody {
        self.input(
            None,
            Some(switch(1)),
            InputBody::Agent(update(name, state, skills)),
        )
    }

    pub(crate) fn ready(&mut self, name: &str, skills: &[(&str, u8)]) {
        assert_eq!(
            self.agent(name, SwitchAgentState::Ready, skills),
            ReplyBody::Acknowledged
        );
    }

    pub(crate) fn delivered(&mut self, number: u64, name: &str) -> ReplyBody {
        self.tell(number, InputBody::Delivered { agent: agent(name) })
    }

    pub(crate) fn established(&mut self, number: u64, name: &str) -> ReplyBody {
        self.tell(number, InputBody::Established { agent: agent(name) })
    }

    pub(crate) fn cleared(&mut self, number: u64, cause: Cause) -> ReplyBody {
        let cleared = cleared(number, cause, RoutedBy::Mesh, self.now);
        self.tell(number, InputBody::Cleared(cleared))
    }

    pub(crate) fn wrapped_up(&mut self, number: u64, name: &str) -> ReplyBody {
        let body = InputBody::WrappedUp {
            agent: agent(name),
            disposition: Disposition::Resolved,
            topic: None,
        };
        self.tell(number, body)
    }

    pub(crate) fn register(&mut self, number: u64, window: Option<(TimeMs, TimeMs)>) -> ReplyBody {
        let registration = VirtualRegistration {
            window,
            ring_ms: 25_000,
            code: "123456".into(),
            route: Some(RouteInput {
                deadline: TimeMs(u64::MAX),
                ..route(number, "PLAIN", START)
            }),
            report: 1,
        };
        self.input(
            Some(contact(number)),
            None,
            InputBody::RegisterVirtual(registration),
        )
    }

    pub(crate) fn progress(
        &mut self,
        number: u64,
        step: CallbackStep,
        next_at: Option<TimeMs>,
        report: u32,
    ) -> ReplyBody {
        let body = InputBody::CallbackProgress {
            attempt: 1,
            step,
            next_at,
            report,
        };
        self.input(Some(contact(number)), None, body)
    }

    /// A whole conversation and its wrap-up.
    pub(crate) fn serve(&mut self, number: u64, name: &str) {
        self.established(number, name);
        self.pass(1_000);
        self.cleared(number, Cause::NormalClearing);
        self.wrapped_up(number, name);
    }

    pub(crate) fn pass(&mut self, milliseconds: u64) {
        let until = self.now.plus(milliseconds);
        while let Some(deadline) = self
            .pool
            .next_deadline()
            .filter(|deadline| *deadline <= until)
        {
            self.now = self.now.max(deadline);
            self.pool.tick(self.now, &mut self.out);
            assert!(self.sort().is_empty(), "ticks answer nobody");
        }
        self.now = until;
        assert!(self.violations.is_empty(), "{:?}", self.violations);
    }

    /// The events of a contact, in short.
    pub(crate) fn story(&self, number: u64) -> Vec<String> {
        let mine = self
            .events
            .iter()
            .filter(|event| event.contact == contact(number));
        for (event, sequence) in mine.clone().zip(1..) {
            assert_eq!(event.sequence, sequence, "no gap: {event:?}");
        }
        mine.map(|event| short(&event.body)).collect()
    }

    /// The commands so far, in short, and forgotten.
    pub(crate) fn said(&mut self) -> Vec<String> {
        self.commands
            .drain(..)
            .map(|command| short_command(&command))
            .collect()
    }
}

pub(crate) fn cleared(number: u64, cause: Cause, routed_by: RoutedBy, now: TimeMs) -> Cleared {
    Cleared {
        cause,
        agent: None,
        call: Some(call(&format!("call-{number}"))),
        routed_by,
        blocked: 0,
        line: "main".into(),
        arrived_at: now.minus(5_000),
        caller: None,
        language: "en".into(),
        channel: 1,
    }
}

pub(crate) fn short_command(command: &Command) -> String {
    use domain::pool::CommandBody::{Deflect, SetAgentState, Transfer};
    let to = |answer: &Answer| match answer {
        Answer::Agent { agent, .. } => agent.to_string(),
        Answer::Queue(place) => place.device.clone(),
        Answer::Message { announcement, .. } => announcement.clone(),
        Answer::DefaultRoute => "default".into(),
    };
    match &command.body {
        Deflect(answer) => format!(
            "deflect {} {}",
            command.call.as_ref().expect("of a call"),
            to(answer)
        ),
        Transfer { to: answer, warm } => format!("transfer {} warm={warm}", to(answer)),
        SetAgentState { agent, state, .. } => format!("set {agent} {state:?}"),
    }
}

/// An event's name and what matters in it.
pub(crate) fn short(body: &EventBody) -> String {
    match body {
        EventBody::Offered { .. } => "offered".into(),
        EventBody::Queued {
            position, reason, ..
        } => format!("queued {position} {reason:?}"),
        EventBody::OfferMade {
            virtual_hold,
            windows,
        } => format!("offer hold={virtual_hold} windows={windows}"),
        EventBody::OfferDeclined => "declined".into(),
        EventBody::Assigned { agent, .. } => format!("assigned {agent}"),
        EventBody::Delivered { agent } => format!("delivered {agent}"),
        EventBody::Established {
            agent, callback, ..
        } => format!("established {agent} callback={callback}"),
        EventBody::NotAnswered { agent, .. } => format!("not answered {agent}"),
        EventBody::TransferRequested {
            from_topic,
            to_topic,
            warm,
            ..
        } => format!("transfer {from_topic} {to_topic} warm={warm}"),
        EventBody::Transferred { from, to } => format!("transferred {from} {to}"),
        EventBody::Disconnected { agent, talk_ms } => format!("disconnected {agent} {talk_ms}"),
        EventBody::WrappedUp {
            agent, timed_out, ..
        } => format!("wrapped up {agent} timed_out={timed_out}"),
        EventBody::Abandoned { waited_ms, ringing } => {
            format!("abandoned {waited_ms} ringing={ringing}")
        }
        EventBody::CallbackBooked { window } => format!("booked window={}", window.is_some()),
        EventBody::CallbackAttempted { attempt, step } => format!("attempt {attempt} {step:?}"),
        EventBody::CallbackEnded { end, .. } => format!("callback ended {end:?}"),
        EventBody::DefaultRouted { by } => format!("default routed {by:?}"),
        EventBody::Blocked { reason } => format!("blocked {reason}"),
        EventBody::SurveyAnswered(_) => "survey".into(),
        EventBody::Closed => "closed".into(),
    }
}
