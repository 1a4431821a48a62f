//! Anything at all, in any order: no input may break a promise, and a new owner may take
//! over after any of them.

mod support;

use std::sync::Arc;

use domain::policy::Policy;
use domain::pool::{
    AgentUpdate, CallbackEnd, CallbackStep, Cause, Cleared, Disposition, Input, InputBody,
    NoticeKind, Output, Pool, RouteInput, RoutedBy, SnapshotCall, SnapshotPlace, SurveyAnswers,
    SwitchAgentState, SwitchRef, VirtualRegistration,
};
use domain::{AgentId, CallId, CallerId, ContactId, TimeMs};
use support::dice::{Dice, Seed, seeds};
use support::mirror::Mirror;
use support::{agent, call, switch, update};

const CONTACTS: u64 = 14;
const AGENTS: u64 = 6;

struct Chaos {
    dice: Dice,
    now: TimeMs,
    boot: u64,
    report: u32,
    commands: Vec<(u64, Option<ContactId>)>,
}

impl Chaos {
    fn agent(&mut self) -> AgentId {
        agent(&format!("a{}", self.dice.below(AGENTS)))
    }

    fn leg(&mut self, contact: u64) -> CallId {
        call(&format!("call-{contact}-{}", self.dice.below(3)))
    }

    fn topic(&mut self) -> String {
        (*self.dice.pick(&[
            "PLAIN",
            "PLAIN",
            "URGENT",
            "HARD",
            "META_OPERATOR",
            "NOTHING",
        ]))
        .into()
    }

    fn language(&mut self) -> String {
        (*self.dice.pick(&["en", "en", "es", ""])).into()
    }

    fn cause(&mut self) -> Cause {
        *self.dice.pick(&[
            Cause::Busy,
            Cause::CallNotAnswered,
            Cause::CallCancelled,
            Cause::DestNotObtainable,
        ])
    }

    fn time(&mut self) -> TimeMs {
        let shift = self.dice.below(20_000);
        if self.dice.chance(80) {
            self.now.minus(shift % 3_000)
        } else {
            self.now.plus(shift)
        }
    }

    fn route(&mut self, contact: u64) -> RouteInput {
        RouteInput {
            call: self.leg(contact),
            cross_ref: format!("ref-{contact}-{}", self.dice.below(3)),
            line: (if self.dice.chance(98) {
                "main"
            } else {
                "nowhere"
            })
            .into(),
            topic: self.topic(),
            topic_confidence: 0.5,
            other_topics: vec!["PLAIN".into()],
            language: self.language(),
            channel: 1,
            caller: self
                .dice
                .chance(50)
                .then(|| CallerId(u128::from(contact % 5))),
            authenticated: self.dice.chance(20),
            person_asked: false,
            arrived_at: self.time(),
            deadline: if self.dice.chance(95) {
                self.now.plus(500)
            } else {
                self.now
            },
        }
    }

    fn update(&mut self) -> AgentUpdate {
        let state = *self.dice.pick(&[
            SwitchAgentState::Ready,
            SwitchAgentState::Ready,
            SwitchAgentState::Ready,
            SwitchAgentState::NotReady,
            SwitchAgentState::Busy,
            SwitchAgentState::WorkingAfterCall,
            SwitchAgentState::Null,
        ]);
        let skills: &[(&str, u8)] = self.dice.pick::<&[(&str, u8)]>(&[
            &[],
            &[("account", 5)],
            &[("account", 9), ("operator", 2)],
            &[("operator", 7)],
            &[("piano", 7)],
        ]);
        let mut update = update(self.agent().as_str(), state, skills);
        if self.dice.chance(20) {
            update.languages = vec!["en".into(), "es".into()];
        }
        // Only at log-on and only upwards: a switch that takes places away from an agent
        // who fills them is right, and more than can be held against the pool.
        update.capacity = 0;
        update
    }

    fn cleared(&mut self, contact: u64) -> Cleared {
        Cleared {
            cause: self.cause(),
            agent: self.dice.chance(20).then(|| self.agent()),
            call: self.dice.chance(90).then(|| self.leg(contact)),
            routed_by: *self.dice.pick(&[
                RoutedBy::Mesh,
                RoutedBy::Mesh,
                RoutedBy::Nobody,
                RoutedBy::DefaultTimer,
            ]),
            blocked: u8::from(self.dice.chance(5)),
            line: "main".into(),
            arrived_at: self.time(),
            caller: None,
            language: self.language(),
            channel: 1,
        }
    }

    fn registration(&mut self, contact: u64) -> VirtualRegistration {
        let from = self.now.plus(self.dice.below(60_000));
        self.report += 1;
        VirtualRegistration {
            window: self.dice.chance(30).then(|| (from, from.plus(60_000))),
            ring_ms: 10_000,
            code: "123456".into(),
            route: self.dice.chance(80).then(|| self.route(contact)),
            report: self.report,
        }
    }

    fn body(&mut self, contact: u64) -> InputBody {
        let report = if self.dice.chance(80) {
            self.report + 1
        } else {
            self.report
        };
        self.report = report;
        match self.dice.below(34) {
            0..=5 => InputBody::Route(self.route(contact)),
            6 => InputBody::Reroute {
                cause: self.cause(),
                deadline: self.time().plus(2_000),
            },
            7 => InputBody::RouteFailed {
                caller_gave_up: self.dice.chance(50),
            },
            8 => InputBody::AtQueue,
            9..=10 => InputBody::Delivered {
                agent: self.agent(),
            },
            11..=13 => InputBody::Established {
                agent: self.agent(),
            },
            14 => InputBody::Failed {
                agent: self.dice.chance(80).then(|| self.agent()),
                cause: self.cause(),
            },
            15..=17 => InputBody::Cleared(self.cleared(contact)),
            18 => InputBody::WrappedUp {
                agent: self.agent(),
                disposition: Disposition::Resolved,
                topic: None,
            },
            19 => InputBody::Survey(SurveyAnswers {
                calls_about_this: 1,
                all_answered: None,
                no_more_calls: None,
            }),
            20..=21 => InputBody::Transfer {
                from: self.agent(),
                topic: self.topic(),
                warm: self.dice.chance(50),
                authenticated: false,
            },
            22 => InputBody::Moved {
                from: self.agent(),
                to: self.dice.chance(70).then(|| self.agent()),
            },
            23 => InputBody::SnapshotCall(SnapshotCall {
                place: *self.dice.pick(&[
                    SnapshotPlace::Dialogue,
                    SnapshotPlace::Queued,
                    SnapshotPlace::Alerting,
                    SnapshotPlace::Connected,
                    SnapshotPlace::DefaultRouted,
                ]),
                agent: self.dice.chance(60).then(|| self.agent()),
                call: self.leg(contact),
                arrived_at: self.time(),
                line: "main".into(),
                caller: None,
                language: self.language(),
            }),
            24..=25 => InputBody::RegisterVirtual(self.registration(contact)),
            26 => InputBody::CancelVirtual {
                end: *self.dice.pick(&[
                    CallbackEnd::Cancelled,
                    CallbackEnd::Exhausted,
                    CallbackEnd::Connected,
                ]),
                report,
            },
            27..=28 => InputBody::CallbackProgress {
                attempt: 1,
                step: *self.dice.pick(&[
                    CallbackStep::Dialled,
                    CallbackStep::Answered,
                    CallbackStep::NoAnswer,
                    CallbackStep::Busy,
                ]),
                next_at: self.dice.chance(70).then(|| self.time()),
                report,
            },
            29 => InputBody::OfferDeclined,
            30 => InputBody::NoticeAcknowledged {
                kind: *self
                    .dice
                    .pick(&[NoticeKind::Connected, NoticeKind::LegLost]),
                turn: u32::try_from(self.dice.below(3)).expect("small"),
            },
            _ => {
                let (command, _) = self.commands.last().copied().unwrap_or((1, None));
                InputBody::CommandDone {
                    command,
                    agent: Some(self.agent()),
                    failed: self.dice.chance(60),
                }
            }
        }
    }

    fn input(&mut self, token: u64) -> Input {
        let occurred_at = self.time();
        let mut source = Some(switch(self.boot));
        let mut contact = None;
        let body = match self.dice.below(100) {
            0..=21 => InputBody::Agent(self.update()),
            22 => InputBody::SnapshotBegin,
            23 => InputBody::SnapshotAgent(self.update()),
            24 if self.dice.chance(50) => InputBody::SnapshotEnd,
            25 if self.dice.chance(20) => {
                self.boot += 1;
                source = Some(switch(self.boot));
                InputBody::SwitchBoot
            }
            _ => {
                let number = self.dice.below(CONTACTS);
                contact = Some(support::contact(number));
                self.body(number)
            }
        };
        if matches!(body, InputBody::CommandDone { .. }) {
            contact = self
                .commands
                .last()
                .and_then(|(_, contact)| *contact)
                .or(contact);
        }
        if matches!(
            body,
            InputBody::RegisterVirtual(_) | InputBody::CancelVirtual { .. }
        ) {
            source = None::<SwitchRef>;
        }
        Input {
            token,
            contact,
            source,
            occurred_at,
            traceparent: String::new(),
            body,
        }
    }
}

/// The order in which those who wait are served, as one agent after the other logs on.
fn order_of_service(pool: &mut Pool, now: TimeMs) -> Vec<ContactId> {
    let mut order = Vec::new();
    let mut out = Vec::new();
    for number in 0..30 {
        let mut everything = update(
            &format!("probe-{number}"),
            SwitchAgentState::Ready,
            &[("account", 10), ("operator", 10)],
        );
        everything.languages = vec!["en".into(), "es".into()];
        let body = InputBody::Agent(everything);
        let input = Input {
            token: 0,
            contact: None,
            source: Some(switch(1)),
            occurred_at: now,
            traceparent: String::new(),
            body,
        };
        pool.handle(now, input, &mut out);
        for output in out.drain(..) {
            match output {
                Output::Event(event)
                    if matches!(event.body, domain::pool::EventBody::Assigned { .. }) =>
                {
                    order.push(event.contact)
                }
                Output::VirtualDue {
                    contact,
                    agent_held: true,
                    ..
                } => order.push(contact),
                _ => {}
            }
        }
    }
    order
}

fn run(seed: u64, policy: &Arc<Policy>, steps: u64) {
    let _seed = Seed(seed);
    let mut chaos = Chaos {
        dice: Dice::new(seed),
        now: support::START,
        boot: 1,
        report: 1,
        commands: Vec::new(),
    };
    let mut pool = Pool::new(Arc::clone(policy), "p");
    let mut mirror = Mirror::default();
    let mut out: Vec<Output> = Vec::new();
    for token in 0..steps {
        let pause = if chaos.dice.chance(5) {
            chaos.dice.below(40_000)
        } else {
            chaos.dice.below(800)
        };
        chaos.now = chaos.now.plus(pause);
        let now = if chaos.dice.chance(2) {
            chaos.now.minus(5_000)
        } else {
            chaos.now
        };
        let input = chaos.input(token);
        let about = format!("step {token}: {input:?}");
        pool.handle(now, input, &mut out);
        let replies: Vec<u64> = out
            .iter()
            .filter_map(|output| match output {
                Output::Reply(reply) => Some(reply.token),
                _ => None,
            })
            .collect();
        assert_eq!(replies, [token], "{about}");
        let commands = out.iter().filter_map(|output| match output {
            Output::Command(command) => Some((command.id, command.contact)),
            _ => None,
        });
        for (id, contact) in commands {
            assert!(
                chaos.commands.last().is_none_or(|(last, _)| id > *last),
                "command ids grow: {about}"
            );
            chaos.commands.push((id, contact));
        }
        mirror.take(&mut pool, &mut out);
        out.clear();
        mirror.check(&pool, policy);
        if chaos.dice.chance(2) {
            pool.tick(chaos.now, &mut out);
            mirror.take(&mut pool, &mut out);
            out.clear();
            let mut twin = mirror.restore(policy, chaos.now, &mut out);
            out.clear();
            let before = pool.status(chaos.now);
            let after = twin.status(chaos.now);
            let counts = |status: &domain::pool::PoolStatus| {
                let queues: Vec<_> = status
                    .queues
                    .iter()
                    .map(|queue| {
                        (
                            queue.waiting,
                            queue.virtual_waiting,
                            queue.agents_busy,
                            queue.oldest_arrived_at,
                        )
                    })
                    .collect();
                (
                    queues,
                    status.agents,
                    status.agents_talking,
                    status.agents_wrapping_up,
                    status.contacts,
                    status.remembered,
                )
            };
            // Turns may begin at the moment of loading, which the first owner would find at its next look.
            assert_eq!(counts(&before), counts(&after), "{about}");
            let first = order_of_service(&mut pool, chaos.now);
            let second = order_of_service(&mut twin, chaos.now);
            assert_eq!(first, second, "{about}");
            pool = mirror.restore(policy, chaos.now, &mut out);
            mirror.take(&mut pool, &mut out);
            out.clear();
            mirror.check(&pool, policy);
        }
    }
}

#[test]
fn no_order_of_inputs_breaks_a_promise_and_any_owner_may_be_followed() {
    let policy = support::policy();
    for seed in seeds(150) {
        run(seed, &policy, 2_000);
    }
}
