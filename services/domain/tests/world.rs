//! A whole day in a small world: a switch, agents, callers and callback that behave, on
//! links that lose, delay and double, around a pool whose owner dies at random. At the end
//! of the day nobody is forgotten: every call that reached the switch has one closed
//! story, every accepted callback one end, no agent is stuck.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use domain::policy::Policy;
use domain::pool::{
    Answer, CallbackEnd, CallbackStep, Cause, Cleared, Command, CommandBody, Disposition, Input,
    InputBody, NoticeKind, Output, Pool, ReplyBody, RouteInput, RoutedBy, SnapshotCall,
    SnapshotPlace, SwitchAgentState, VirtualRegistration,
};
use domain::{AgentId, ContactId, TimeMs};
use support::dice::{Dice, Seed, seeds};
use support::mirror::{Callback, Mirror};
use support::{agent, call, switch, update};

#[derive(Clone, Debug, PartialEq)]
enum Place {
    Dialogue,
    Queue,
    Rings(AgentId),
    Talks(AgentId),
    Default,
    Message,
}

#[derive(Clone, Debug)]
struct Leg {
    contact: ContactId,
    place: Place,
    staying: Option<AgentId>,
    /// A booking is being made: the caller waits for it to be announced.
    booking: bool,
}

/// What the world does next.
#[derive(Clone, Debug)]
enum Act {
    Arrive,
    Input(Box<Input>),
    Answer(String, Answer),
    Command(Box<Command>),
    Hangs(String),
    Answers(String, AgentId),
    Ends(String, AgentId),
    Wraps(ContactId, AgentId),
    Comes(AgentId),
    Dial(ContactId, u32),
    Rung(ContactId, u32, bool),
    Register(ContactId),
    Acknowledge(ContactId, NoticeKind, u32),
    Snapshot,
}

#[derive(Default)]
struct Booking {
    report: u32,
    attempts: u32,
    turn: u32,
    dialling: bool,
    ended: bool,
}

struct World {
    dice: Dice,
    now: TimeMs,
    pool: Pool,
    policy: Arc<Policy>,
    mirror: Mirror,
    out: Vec<Output>,
    acts: BTreeMap<(TimeMs, u64), Act>,
    number: u64,
    legs: BTreeMap<String, Leg>,
    /// Agents of the switch: logged on, ready, the leg they are on.
    agents: BTreeMap<AgentId, (SwitchAgentState, Option<String>)>,
    bookings: BTreeMap<ContactId, Booking>,
    contacts: BTreeSet<ContactId>,
    /// Frames from the switch keep their order.
    last_delivery: TimeMs,
    tokens: BTreeMap<u64, String>,
    open: bool,
}

const AGENTS: u64 = 5;

impl World {
    fn new(seed: u64, policy: &Arc<Policy>) -> World {
        World {
            dice: Dice::new(seed),
            now: support::START,
            pool: Pool::new(Arc::clone(policy), "p"),
            policy: Arc::clone(policy),
            mirror: Mirror::default(),
            out: Vec::new(),
            acts: BTreeMap::new(),
            number: 0,
            legs: BTreeMap::new(),
            agents: BTreeMap::new(),
            bookings: BTreeMap::new(),
            contacts: BTreeSet::new(),
            last_delivery: support::START,
            tokens: BTreeMap::new(),
            open: true,
        }
    }

    fn later(&mut self, milliseconds: u64, act: Act) {
        self.number += 1;
        self.acts
            .insert((self.now.plus(milliseconds), self.number), act);
    }

    fn input(&mut self, contact: Option<ContactId>, body: InputBody) -> Input {
        self.number += 1;
        Input {
            token: self.number,
            contact,
            source: Some(switch(1)),
            occurred_at: self.now,
            traceparent: String::new(),
            body,
        }
    }

    /// An event of the switch: reliable and in order, sometimes late, sometimes told again.
    fn event(&mut self, contact: Option<ContactId>, body: InputBody) {
        let input = self.input(contact, body);
        let delay = if self.dice.chance(3) {
            self.dice.below(4_000)
        } else {
            self.dice.below(40)
        };
        let at = self.now.plus(delay).max(self.last_delivery);
        self.last_delivery = at;
        self.number += 1;
        self.acts
            .insert((at, self.number), Act::Input(Box::new(input.clone())));
        if self.dice.chance(5) {
            self.number += 1;
            let again = at.plus(self.dice.below(2_000));
            self.acts
                .insert((again, self.number), Act::Input(Box::new(input)));
        }
    }

    fn set_agent(&mut self, id: &AgentId, state: SwitchAgentState) {
        let entry = self
            .agents
            .entry(id.clone())
            .or_insert((SwitchAgentState::Null, None));
        entry.0 = state;
        let number: u64 = id.as_str()[1..].parse().expect("a number");
        let skills: &[(&str, u8)] = match number % 3 {
            0 => &[("account", 8), ("operator", 5)],
            1 => &[("account", 4)],
            _ => &[("operator", 9), ("account", 2)],
        };
        self.event(None, InputBody::Agent(update(id.as_str(), state, skills)));
    }

    fn route(&mut self, contact: ContactId, leg: &str) {
        let topic = *self
            .dice
            .pick(&["PLAIN", "PLAIN", "URGENT", "HARD", "META_OPERATOR"]);
        let route = RouteInput {
            call: call(leg),
            cross_ref: leg.into(),
            line: "main".into(),
            topic: topic.into(),
            topic_confidence: 0.8,
            other_topics: Vec::new(),
            language: "en".into(),
            channel: 1,
            caller: None,
            authenticated: false,
            person_asked: false,
            arrived_at: self.now,
            deadline: self.now.plus(500),
        };
        let input = self.input(Some(contact), InputBody::Route(route));
        self.tokens.insert(input.token, leg.into());
        let delay = if self.dice.chance(3) {
            600
        } else {
            self.dice.below(20)
        };
        if self.dice.chance(5) {
            self.later(delay + 30, Act::Input(Box::new(input.clone())));
        }
        if self.dice.chance(98) {
            self.later(delay, Act::Input(Box::new(input)));
        }
        // The switch's own timer, should no answer come.
        self.later(500, Act::Answer(leg.into(), Answer::DefaultRoute));
    }

    fn clear(&mut self, leg: &str, routed_by: RoutedBy) {
        let Some(gone) = self.legs.remove(leg) else {
            return;
        };
        let (Place::Rings(with) | Place::Talks(with)) = gone.place.clone() else {
            return self.send_cleared(leg, gone.contact, routed_by, gone.staying);
        };
        self.off_the_line(&with, gone.contact, matches!(gone.place, Place::Talks(_)));
        self.send_cleared(leg, gone.contact, routed_by, gone.staying);
    }

    fn send_cleared(
        &mut self,
        leg: &str,
        contact: ContactId,
        routed_by: RoutedBy,
        staying: Option<AgentId>,
    ) {
        if let Some(staying) = staying {
            self.off_the_line(&staying, contact, true);
        }
        let cleared = Cleared {
            cause: Cause::NormalClearing,
            agent: None,
            call: Some(call(leg)),
            routed_by,
            blocked: 0,
            line: "main".into(),
            arrived_at: self.now,
            caller: None,
            language: "en".into(),
            channel: 1,
        };
        self.event(Some(contact), InputBody::Cleared(cleared));
    }

    fn off_the_line(&mut self, id: &AgentId, contact: ContactId, talked: bool) {
        if let Some(entry) = self.agents.get_mut(id) {
            entry.1 = None;
            if talked {
                entry.0 = SwitchAgentState::WorkingAfterCall;
                let after = self.dice.after(8_000);
                self.later(after, Act::Wraps(contact, id.clone()));
            }
        }
    }

    /// The call goes to an agent of the switch; false: the agent cannot take it.
    fn ring(&mut self, leg: &str, id: &AgentId) -> bool {
        let free = self
            .agents
            .get(id)
            .is_some_and(|(state, on)| *state == SwitchAgentState::Ready && on.is_none());
        let Some(entry) = self.legs.get_mut(leg) else {
            return false;
        };
        if !free {
            return false;
        }
        let contact = entry.contact;
        if let Place::Talks(from) = &entry.place {
            let from = from.clone();
            entry.place = Place::Rings(id.clone());
            if entry.staying.is_none() {
                self.off_the_line(&from, contact, true);
            }
        } else {
            entry.place = Place::Rings(id.clone());
        }
        self.agents.get_mut(id).expect("free").1 = Some(leg.into());
        if self.dice.chance(95) {
            self.event(Some(contact), InputBody::Delivered { agent: id.clone() });
        }
        if self.dice.chance(90) {
            let after = self.dice.below(6_000);
            self.later(after, Act::Answers(leg.into(), id.clone()));
        }
        true
    }

    fn take_answer(&mut self, leg: &str, answer: &Answer) {
        let Some(entry) = self.legs.get(leg) else {
            return;
        };
        if entry.place != Place::Dialogue {
            return;
        }
        let contact = entry.contact;
        match answer {
            Answer::Agent { agent, .. } => {
                if !self.ring(leg, &agent.clone()) {
                    let body = InputBody::Reroute {
                        cause: Cause::Busy,
                        deadline: self.now.plus(500),
                    };
                    let input = self.input(Some(contact), body);
                    self.tokens.insert(input.token, leg.into());
                    self.later(5, Act::Input(Box::new(input)));
                    self.later(500, Act::Answer(leg.into(), Answer::DefaultRoute));
                }
            }
            Answer::Queue(place) => {
                self.place(leg, Place::Queue);
                self.event(Some(contact), InputBody::AtQueue);
                let known = self
                    .bookings
                    .get(&contact)
                    .is_some_and(|booking| !booking.ended);
                if place.offer_virtual_hold && !known && self.dice.chance(60) {
                    self.place_booking(leg);
                    let after = self.dice.below(300);
                    self.later(after, Act::Register(contact));
                    if self.dice.chance(30) {
                        self.later(after / 2, Act::Hangs(leg.into()));
                    }
                }
            }
            Answer::Message { .. } => {
                self.place(leg, Place::Message);
                self.later(3_000, Act::Hangs(leg.into()));
            }
            Answer::DefaultRoute => {
                self.place(leg, Place::Default);
                self.later(50, Act::Hangs(leg.into()));
                let input = self.input(
                    Some(contact),
                    InputBody::RouteFailed {
                        caller_gave_up: false,
                    },
                );
                self.later(5, Act::Input(Box::new(input)));
            }
        }
    }

    fn place(&mut self, leg: &str, place: Place) {
        self.legs
            .get_mut(leg)
            .expect("looked up by the caller")
            .place = place;
    }

    fn place_booking(&mut self, leg: &str) {
        self.legs
            .get_mut(leg)
            .expect("looked up by the caller")
            .booking = true;
    }

    fn take_command(&mut self, command: &Command) {
        let leg = command
            .call
            .as_ref()
            .map(|call| call.as_str().to_owned())
            .unwrap_or_default();
        let place = self.legs.get(&leg).map(|leg| leg.place.clone());
        let (done, about) = match &command.body {
            CommandBody::SetAgentState { agent, state, .. } => {
                let known = self
                    .agents
                    .get(agent)
                    .is_some_and(|(now, on)| *now != SwitchAgentState::Null && on.is_none());
                if known {
                    self.set_agent(&agent.clone(), *state);
                    if *state == SwitchAgentState::NotReady {
                        let after = self.dice.after(20_000);
                        self.later(after, Act::Comes(agent.clone()));
                    }
                }
                (known, Some(agent.clone()))
            }
            CommandBody::Deflect(Answer::Agent { agent, .. }) => {
                if let Some(Place::Rings(other)) = place
                    .clone()
                    .filter(|place| *place != Place::Rings(agent.clone()))
                {
                    self.agents.get_mut(&other).expect("rings").1 = None;
                    self.place(&leg, Place::Queue);
                }
                let can = matches!(place, Some(Place::Queue | Place::Rings(_)));
                (can && self.ring(&leg, agent), Some(agent.clone()))
            }
            CommandBody::Transfer {
                to: Answer::Agent { agent, .. },
                warm,
            } => {
                if *warm && let Some(Place::Talks(from)) = &place {
                    self.legs.get_mut(&leg).expect("it has a place").staying = Some(from.clone());
                }
                let can = matches!(place, Some(Place::Queue | Place::Talks(_)));
                let done = can && self.ring(&leg, agent);
                if !done
                    && let Some(entry) = self.legs.get_mut(&leg)
                    && matches!(entry.place, Place::Talks(_))
                {
                    entry.staying = None;
                }
                (done, Some(agent.clone()))
            }
            CommandBody::Deflect(_) | CommandBody::Transfer { .. } => {
                let done = matches!(
                    place,
                    Some(Place::Queue | Place::Talks(_) | Place::Rings(_))
                );
                if done {
                    let contact = self.legs[&leg].contact;
                    match (place, &command.body) {
                        (Some(Place::Rings(other)), _) => {
                            self.agents.get_mut(&other).expect("rings").1 = None
                        }
                        (Some(Place::Talks(from)), CommandBody::Transfer { warm: true, .. }) => {
                            self.legs.get_mut(&leg).expect("it has a place").staying = Some(from);
                        }
                        (Some(Place::Talks(from)), _) => self.off_the_line(&from, contact, true),
                        _ => {}
                    }
                    self.place(&leg, Place::Queue);
                    self.event(Some(contact), InputBody::AtQueue);
                }
                (done, None)
            }
        };
        if self.dice.chance(95) {
            let contact = command.contact;
            let body = InputBody::CommandDone {
                command: command.id,
                agent: about,
                failed: !done,
            };
            let input = self.input(contact, body);
            self.later(5, Act::Input(Box::new(input)));
        }
    }

    fn report(&mut self, contact: ContactId, body: impl FnOnce(u32, u32) -> InputBody) {
        let booking = self.bookings.entry(contact).or_default();
        booking.report += 1;
        let body = body(booking.report, booking.attempts);
        let mut input = self.input(Some(contact), body);
        input.source = None;
        if self.dice.chance(10) {
            let again = self.dice.below(500);
            self.later(again + 6, Act::Input(Box::new(input.clone())));
        }
        self.later(5, Act::Input(Box::new(input)));
    }

    fn end_booking(&mut self, contact: ContactId, end: CallbackEnd) {
        self.bookings.entry(contact).or_default().ended = true;
        self.report(contact, |report, _| InputBody::CancelVirtual {
            end,
            report,
        });
    }

    fn missed(&mut self, contact: ContactId, step: CallbackStep) {
        let exhausted = self.bookings[&contact].attempts >= 3;
        let next_at = (!exhausted).then(|| self.now.plus(30_000));
        self.bookings.get_mut(&contact).expect("dialled").dialling = false;
        self.report(contact, |report, attempt| InputBody::CallbackProgress {
            attempt,
            step,
            next_at,
            report,
        });
        if exhausted {
            self.end_booking(contact, CallbackEnd::Exhausted);
        }
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Arrive => {
                self.number += 1;
                let contact = ContactId(u128::from(self.number));
                let leg = format!("leg-{}", self.number);
                self.contacts.insert(contact);
                self.legs.insert(
                    leg.clone(),
                    Leg {
                        contact,
                        place: Place::Dialogue,
                        staying: None,
                        booking: false,
                    },
                );
                self.route(contact, &leg);
                let patience = self.dice.after(60_000);
                self.later(patience + 600, Act::Hangs(leg));
                if self.open {
                    let next = self.dice.after(9_000);
                    self.later(next, Act::Arrive);
                }
            }
            Act::Input(input) => self.handle(*input),
            Act::Answer(leg, answer) => self.take_answer(&leg, &answer),
            Act::Command(command) => self.take_command(&command),
            Act::Hangs(leg) => {
                let by = match self.legs.get(&leg).map(|leg| &leg.place) {
                    Some(Place::Default) => RoutedBy::DefaultTimer,
                    Some(Place::Talks(_)) | None => return,
                    Some(Place::Dialogue) => RoutedBy::Nobody,
                    Some(_) => RoutedBy::Mesh,
                };
                self.clear(&leg, by);
            }
            Act::Answers(leg, id) => {
                let Some(entry) = self.legs.get_mut(&leg) else {
                    return;
                };
                if entry.place != Place::Rings(id.clone()) {
                    return;
                }
                entry.place = Place::Talks(id.clone());
                let (contact, staying) = (entry.contact, entry.staying.take());
                self.event(Some(contact), InputBody::Established { agent: id.clone() });
                self.agents.get_mut(&id).expect("rings").0 = SwitchAgentState::Busy;
                if let Some(staying) = staying {
                    self.off_the_line(&staying, contact, true);
                }
                let talk = self.dice.after(25_000);
                self.later(talk, Act::Ends(leg, id));
            }
            Act::Ends(leg, id) => {
                let Some(entry) = self.legs.get(&leg) else {
                    return;
                };
                if entry.place != Place::Talks(id.clone()) || entry.staying.is_some() {
                    return;
                }
                let contact = entry.contact;
                if self.dice.chance(15) {
                    let topic = (*self.dice.pick(&["PLAIN", "HARD", "META_OPERATOR"])).into();
                    let warm = self.dice.chance(50);
                    self.event(
                        Some(contact),
                        InputBody::Transfer {
                            from: id.clone(),
                            topic,
                            warm,
                            authenticated: true,
                        },
                    );
                    self.later(30_000, Act::Ends(leg, id));
                } else {
                    self.clear(&leg, RoutedBy::Mesh);
                }
            }
            Act::Wraps(contact, id) => {
                if self.agents.get(&id).is_none_or(|(state, on)| {
                    *state != SwitchAgentState::WorkingAfterCall || on.is_some()
                }) {
                    return;
                }
                if self.dice.chance(95) {
                    let body = InputBody::WrappedUp {
                        agent: id.clone(),
                        disposition: Disposition::Resolved,
                        topic: None,
                    };
                    self.event(Some(contact), body);
                }
                if self.dice.chance(5) {
                    self.set_agent(&id, SwitchAgentState::Null);
                    let after = self.dice.after(30_000);
                    self.later(after, Act::Comes(id));
                } else {
                    self.set_agent(&id, SwitchAgentState::Ready);
                }
            }
            Act::Comes(id) => {
                let idle = self.agents.get(&id).is_none_or(|(state, on)| {
                    on.is_none()
                        && matches!(state, SwitchAgentState::Null | SwitchAgentState::NotReady)
                });
                if idle {
                    self.set_agent(&id, SwitchAgentState::Ready);
                }
            }
            Act::Register(contact) => {
                let route = None;
                self.report(contact, |report, _| {
                    InputBody::RegisterVirtual(VirtualRegistration {
                        window: None,
                        ring_ms: 10_000,
                        code: "123456".into(),
                        route,
                        report,
                    })
                });
            }
            Act::Dial(contact, turn) => {
                let Some(booking) = self
                    .bookings
                    .get_mut(&contact)
                    .filter(|booking| !booking.ended && !booking.dialling && turn > booking.turn)
                else {
                    return;
                };
                booking.turn = turn;
                booking.attempts += 1;
                booking.dialling = true;
                self.report(contact, |report, attempt| InputBody::CallbackProgress {
                    attempt,
                    step: CallbackStep::Dialled,
                    next_at: None,
                    report,
                });
                let ring = 1_000 + self.dice.below(9_000);
                let answers = self.dice.chance(60);
                self.later(ring, Act::Rung(contact, turn, answers));
            }
            Act::Rung(contact, _, false) => self.missed(contact, CallbackStep::NoAnswer),
            Act::Rung(contact, turn, true) => {
                let leg = format!("back-{}-{turn}", contact.0);
                self.legs.insert(
                    leg.clone(),
                    Leg {
                        contact,
                        place: Place::Dialogue,
                        staying: None,
                        booking: false,
                    },
                );
                self.route(contact, &leg);
                let patience = self.dice.after(60_000);
                self.later(patience + 600, Act::Hangs(leg));
            }
            Act::Acknowledge(contact, kind, turn) => {
                let mut input =
                    self.input(Some(contact), InputBody::NoticeAcknowledged { kind, turn });
                input.source = None;
                let fresh = self
                    .bookings
                    .get(&contact)
                    .is_some_and(|booking| !booking.ended && booking.dialling);
                match kind {
                    NoticeKind::Connected => self.bookings.entry(contact).or_default().ended = true,
                    NoticeKind::LegLost if fresh => self.missed(contact, CallbackStep::Failed),
                    NoticeKind::LegLost => {}
                }
                self.handle(input);
            }
            Act::Snapshot => self.snapshot(),
        }
    }

    /// What the switch has, part by part; what lies between is no longer wanted.
    fn snapshot(&mut self) {
        self.event(None, InputBody::SnapshotBegin);
        let agents: Vec<(AgentId, SwitchAgentState)> = self
            .agents
            .iter()
            .map(|(id, (state, _))| (id.clone(), *state))
            .collect();
        for (id, state) in agents
            .into_iter()
            .filter(|(_, state)| *state != SwitchAgentState::Null)
        {
            self.event(
                None,
                InputBody::SnapshotAgent(update(id.as_str(), state, &[])),
            );
        }
        let legs: Vec<(String, Leg)> = self
            .legs
            .iter()
            .map(|(name, leg)| (name.clone(), leg.clone()))
            .collect();
        for (name, leg) in legs {
            let (place, with) = match leg.place {
                Place::Dialogue | Place::Message => (SnapshotPlace::Dialogue, None),
                Place::Queue => (SnapshotPlace::Queued, None),
                Place::Rings(agent) => (SnapshotPlace::Alerting, Some(agent)),
                Place::Talks(agent) => (SnapshotPlace::Connected, Some(agent)),
                Place::Default => (SnapshotPlace::DefaultRouted, None),
            };
            let part = SnapshotCall {
                place,
                agent: with,
                call: call(&name),
                arrived_at: self.now,
                line: "main".into(),
                caller: None,
                language: "en".into(),
            };
            self.event(Some(leg.contact), InputBody::SnapshotCall(part));
        }
        self.event(None, InputBody::SnapshotEnd);
    }

    fn handle(&mut self, input: Input) {
        let token = input.token;
        let registers = matches!(input.body, InputBody::RegisterVirtual(_));
        let contact = input.contact;
        self.pool.handle(self.now, input, &mut self.out);
        self.carry_out(Some((token, registers, contact)));
    }

    /// Outputs, after the write they belong to.
    fn carry_out(&mut self, about: Option<(u64, bool, Option<ContactId>)>) {
        let mut out = std::mem::take(&mut self.out);
        self.mirror.take(&mut self.pool, &mut out);
        self.mirror.check(&self.pool, &self.policy);
        for output in out.drain(..) {
            match output {
                Output::Reply(reply) => {
                    let (token, registers, contact) = about.expect("ticks answer nobody");
                    assert_eq!(reply.token, token);
                    if registers {
                        self.registered(contact.expect("a contact's"), &reply.body);
                    }
                    if let (ReplyBody::Answer { answer, .. }, Some(leg)) =
                        (reply.body, self.tokens.get(&token).cloned())
                    {
                        let delay = self.dice.below(20);
                        self.later(delay, Act::Answer(leg, answer));
                    }
                }
                Output::Command(command) => {
                    let delay = self.dice.below(30);
                    if self.dice.chance(97) {
                        self.later(delay, Act::Command(Box::new(command)));
                    }
                }
                Output::VirtualDue { contact, turn, .. } => {
                    if self.dice.chance(80) {
                        self.later(10, Act::Dial(contact, turn));
                    }
                }
                Output::Notice {
                    contact,
                    kind,
                    turn,
                } => {
                    if self.dice.chance(70) {
                        self.later(10, Act::Acknowledge(contact, kind, turn));
                    }
                }
                Output::Event(_) | Output::Violation(_) => {}
            }
        }
        self.out = out;
    }

    /// The booking is accepted (the switch says so and clears the leg), or not.
    fn registered(&mut self, contact: ContactId, reply: &ReplyBody) {
        if *reply != ReplyBody::Acknowledged {
            self.bookings.entry(contact).or_default().ended = true;
            return;
        }
        let leg = self
            .legs
            .iter()
            .find(|(_, leg)| leg.contact == contact && leg.booking)
            .map(|(name, _)| name.clone());
        if let Some(leg) = leg {
            self.later(400, Act::Hangs(leg));
        }
    }

    fn crash(&mut self) {
        self.out.clear();
        let mut out = Vec::new();
        self.pool = self.mirror.restore(&self.policy, self.now, &mut out);
        self.out = out;
        self.carry_out(None);
    }

    fn run_until(&mut self, end: TimeMs, crashes: bool) {
        loop {
            let next_act = self.acts.first_key_value().map(|((at, _), _)| *at);
            let next_deadline = self.pool.next_deadline();
            let Some(next) = next_act
                .into_iter()
                .chain(next_deadline)
                .min()
                .filter(|next| *next <= end)
            else {
                break;
            };
            self.now = self.now.max(next);
            if next_deadline.is_some_and(|at| at <= self.now) {
                self.pool.tick(self.now, &mut self.out);
                self.carry_out(None);
                continue;
            }
            let (_, act) = self.acts.pop_first().expect("there is one");
            self.act(act);
            if crashes && self.dice.below(400) == 0 {
                self.crash();
            }
        }
        self.now = end;
    }
}

fn live(seed: u64, policy: &Arc<Policy>) -> BTreeMap<String, u64> {
    let _seed = Seed(seed);
    let mut world = World::new(seed, policy);
    for number in 0..AGENTS {
        world.later(number * 100, Act::Comes(agent(&format!("a{number}"))));
    }
    world.later(1_000, Act::Arrive);
    for _ in 0..seed % 3 {
        let at = world.dice.below(1_200_000);
        world.later(at, Act::Snapshot);
    }
    world.run_until(support::START.plus(1_200_000), true);
    // Closing time: nobody new; then everybody who is left hangs up, and the dust settles.
    world.open = false;
    world.run_until(support::START.plus(2_400_000), true);
    let open: Vec<ContactId> = world
        .bookings
        .iter()
        .filter(|(_, booking)| !booking.ended)
        .map(|(id, _)| *id)
        .collect();
    for contact in open {
        world.end_booking(contact, CallbackEnd::Cancelled);
    }
    let legs: Vec<String> = world.legs.keys().cloned().collect();
    for leg in legs {
        world.clear(&leg, RoutedBy::Mesh);
    }
    world.run_until(support::START.plus(3_000_000), false);

    let mut told = 0;
    for (id, story) in world.mirror.stories() {
        assert!(
            story.closed,
            "contact {id} is not closed: {:?}",
            world.mirror.contacts.get(&id)
        );
        assert_ne!(story.callback, Callback::Booked, "contact {id}");
        told += 1;
    }
    assert_eq!(told, world.contacts.len(), "each contact has one story");
    let status = world.pool.status(world.now);
    assert_eq!((status.contacts, status.waiting), (0, 0), "{status:?}");
    let busy = status.agents_reserved
        + status.agents_held
        + status.agents_talking
        + status.agents_wrapping_up;
    assert_eq!(busy, 0, "{status:?}");
    for (id, record) in &world.mirror.agents {
        let (state, on) = &world.agents[id];
        let ready = *state == SwitchAgentState::Ready && on.is_none();
        assert!(
            !ready || (record.willing && !record.busy_elsewhere),
            "{id} is ready on the switch and stuck here: {record:?}"
        );
    }
    world.mirror.kinds
}

#[test]
fn at_the_end_of_the_day_nobody_is_forgotten() {
    let policy = support::policy();
    let mut kinds: BTreeMap<String, u64> = BTreeMap::new();
    for seed in seeds(120) {
        for (kind, count) in live(seed, &policy) {
            *kinds.entry(kind).or_insert(0) += count;
        }
    }
    #[expect(
        clippy::disallowed_methods,
        reason = "the seed of a failure is given from outside"
    )]
    let seeded = std::env::var("TRUNKLINE_SEED").is_ok();
    if !seeded {
        for kind in [
            "established",
            "abandoned",
            "not answered",
            "transferred",
            "callback ended Connected",
            "callback ended Exhausted",
            "default routed DefaultTimer",
            "wrapped up",
            "queued",
        ] {
            let seen = kinds
                .iter()
                .any(|(seen, count)| seen.starts_with(kind) && *count > 100);
            assert!(seen, "the world shows too little: {kind} in {kinds:#?}");
        }
    }
}
