//! What one input costs the pure pool, by the size of the pool: nanoseconds, median and
//! 99th percentile, and how they grow. Run with `cargo bench -p domain`.
//!
//! Each size runs under two loads: *quiet*, half the agents idle, and *overload*, every
//! agent busy and two callers waiting for each. An input's cost is that of `handle` alone;
//! building it and taking its outputs away is outside the clock, taking the changed
//! records out is a row of its own.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a bench measures time"
)]

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Instant;

use domain::policy::Policy;
use domain::pool::{
    AgentSkill, AgentUpdate, Answer, Cause, Changes, Cleared, CommandBody, Disposition, Input,
    InputBody, Output, Pool, ReplyBody, RouteInput, RoutedBy, SwitchAgentState, SwitchRef,
};
use domain::{AgentId, BootId, CallId, ContactId, SwitchId, TimeMs};

/// (agents, queues).
const SIZES: [(u32, u32); 4] = [(100, 200), (1_000, 500), (10_000, 1_000), (48_000, 2_000)];
const SKILLS_OF_AN_AGENT: u32 = 8;
const QUEUES_OF_A_SKILL: u32 = 4;
const SAMPLES: usize = 20_000;

const ROWS: [&str; 9] = [
    "arrive, an agent is idle",
    "arrive, all are busy",
    "answer",
    "hang up",
    "wrap up, none waits",
    "wrap up, next caller",
    "abandon",
    "not ready, then ready",
    "take changes, per input",
];

struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).expect("below a usize")
    }
}

fn policy(queues: u32) -> Policy {
    let mut text = String::new();
    let mut add = |kind: &str, name: &str, spec: &str| {
        let _ = writeln!(
            text,
            "---\napiVersion: trunkline.dev/v1\nkind: {kind}\nmetadata: {{ name: {name} }}\nspec: {{ {spec} }}"
        );
    };
    add(
        "Pool",
        "p",
        "noAnswerMs: 600000, wrapUpMaxMs: 86400000, reservationMaxMs: 600000, waitingMax: 1000000, \
        agentsMax: 100000, priorityCap: 3600, rememberEndedMs: 1000, surveyWaitMs: 0",
    );
    for queue in 0..queues {
        let (skill, level) = (queue / QUEUES_OF_A_SKILL, 1 + queue % QUEUES_OF_A_SKILL * 2);
        add(
            "Queue",
            &format!("q{queue}"),
            &format!(
                "pool: p, skill: s{skill}, proficiencyMin: {level}, device: d{queue}, priorityStart: {}, priorityAcceleration: 1, \
             waitingMax: 1000000, serviceLevelMs: 60000, handleTimePriorMs: 600000, patiencePriorMs: 1200000, announcement: a",
                queue % 3 * 60
            ),
        );
        add(
            "Topic",
            &format!("t{queue}"),
            &format!("id: T{queue}, title: t, queue: q{queue}, callback: false, family: f"),
        );
    }
    add(
        "Topic",
        "operator",
        "id: META_OPERATOR, title: t, queue: q0, callback: false, family: f",
    );
    add(
        "Line",
        "l",
        "pool: p, numbers: ['8005550100'], defaultTopic: META_OPERATOR, callbackNumber: '8005550199', \
        timeZone: America/New_York, callerPlacesMax: 2",
    );
    add(
        "CallbackPolicy",
        "c",
        "offerFromExpectedWaitMs: 900000, attemptsMax: 3, attemptSpacingMs: 600000, ringMs: 25000, \
        leaseMs: 30000, windowMs: 1800000, windowsOffered: 3, windowCapacityPercent: 30, callableFromHour: 8, callableUntilHour: 21",
    );
    Policy::parse(&[("bench", &text)]).expect("the bench's own policy is valid")
}

struct Run {
    pool: Pool,
    dice: Dice,
    now: TimeMs,
    queues: usize,
    out: Vec<Output>,
    changes: Changes,
    samples: [Vec<u64>; ROWS.len()],
    talking: Vec<(ContactId, AgentId)>,
    waiting: Vec<ContactId>,
    changed: (u64, u64),
}

impl Run {
    fn new(agents: u32, queues: u32) -> Run {
        let pool = Pool::new(Arc::new(policy(queues)), "p");
        let mut run = Run {
            pool,
            dice: Dice(7),
            now: TimeMs(1_771_340_400_000),
            queues: queues as usize,
            out: Vec::new(),
            changes: Changes::default(),
            samples: Default::default(),
            talking: Vec::new(),
            waiting: Vec::new(),
            changed: (0, 0),
        };
        let skills = queues / QUEUES_OF_A_SKILL;
        for number in 0..agents {
            let of_agent = (0..SKILLS_OF_AN_AGENT.min(skills)).map(|_| AgentSkill {
                skill: format!("s{}", run.dice.below(skills as usize)),
                proficiency: u8::try_from(1 + run.dice.below(10)).expect("to 10"),
            });
            let of_agent = of_agent.collect();
            run.agent(&format!("a{number:05}"), SwitchAgentState::Ready, of_agent);
        }
        run
    }

    fn input(&mut self, contact: Option<ContactId>, body: InputBody) -> u64 {
        let source = SwitchRef {
            switch: SwitchId::parse("sw1").expect("valid"),
            boot: BootId(1),
        };
        let input = Input {
            token: 1,
            contact,
            source: Some(source),
            occurred_at: self.now,
            traceparent: String::new(),
            body,
        };
        let from = Instant::now();
        self.pool.handle(self.now, input, &mut self.out);
        u64::try_from(from.elapsed().as_nanos()).expect("centuries")
    }

    /// Takes the outputs away: who was given to whom by command.
    fn drain(&mut self) -> (Option<AgentId>, Vec<(ContactId, AgentId)>) {
        let (mut answered, mut moved) = (None, Vec::new());
        for output in self.out.drain(..) {
            match output {
                Output::Reply(reply) => {
                    if let ReplyBody::Answer {
                        answer: Answer::Agent { agent, .. },
                        ..
                    } = reply.body
                    {
                        answered = Some(agent);
                    }
                }
                Output::Command(command) => {
                    if let (CommandBody::Deflect(Answer::Agent { agent, .. }), Some(contact)) =
                        (command.body, command.contact)
                    {
                        moved.push((contact, agent));
                    }
                }
                Output::Violation(violation) => panic!("{violation:?}"),
                _ => {}
            }
        }
        let from = Instant::now();
        self.pool.take_changes(&mut self.changes);
        self.changed.0 += u64::try_from(from.elapsed().as_nanos()).expect("centuries");
        self.changed.1 += 1;
        if self.changed.1 == 64 {
            self.samples[8].push(self.changed.0 / 64);
            self.changed = (0, 0);
        }
        (answered, moved)
    }

    fn agent(&mut self, name: &str, state: SwitchAgentState, skills: Vec<AgentSkill>) -> u64 {
        let agent = AgentId::parse(name).expect("valid");
        let update = AgentUpdate {
            agent,
            device: String::from("1"),
            state,
            skills,
            languages: Vec::new(),
            capacity: 0,
            reason: String::new(),
        };
        let cost = self.input(None, InputBody::Agent(update));
        self.drain();
        cost
    }

    fn arrive(&mut self) {
        self.now = self.now.plus(1);
        let contact = ContactId(u128::from(self.dice.next()) << 64 | u128::from(self.dice.next()));
        let topic = self.dice.below(self.queues);
        let route = RouteInput {
            call: CallId::parse(&format!("c{}", contact.0 as u32)).expect("valid"),
            cross_ref: format!("r{}", contact.0 as u32),
            line: "l".into(),
            topic: format!("T{topic}"),
            topic_confidence: 0.9,
            other_topics: Vec::new(),
            language: "en".into(),
            channel: 1,
            caller: Some(domain::CallerId(contact.0)),
            authenticated: false,
            person_asked: false,
            arrived_at: self.now,
            deadline: self.now.plus(500),
        };
        let cost = self.input(Some(contact), InputBody::Route(route));
        match self.drain().0 {
            Some(agent) => {
                self.samples[0].push(cost);
                self.answer(contact, agent);
            }
            None => {
                self.samples[1].push(cost);
                self.waiting.push(contact);
            }
        }
    }

    fn answer(&mut self, contact: ContactId, agent: AgentId) {
        let cost = self.input(
            Some(contact),
            InputBody::Established {
                agent: agent.clone(),
            },
        );
        self.drain();
        self.samples[2].push(cost);
        self.talking.push((contact, agent));
    }

    fn clear(&mut self, contact: ContactId) -> u64 {
        let cleared = Cleared {
            cause: Cause::NormalClearing,
            agent: None,
            call: None,
            routed_by: RoutedBy::Mesh,
            blocked: 0,
            line: "l".into(),
            arrived_at: self.now,
            caller: None,
            language: "en".into(),
            channel: 1,
        };
        let cost = self.input(Some(contact), InputBody::Cleared(cleared));
        self.drain();
        cost
    }

    fn finish_one(&mut self) {
        if self.talking.is_empty() {
            return;
        }
        let position = self.dice.below(self.talking.len());
        let (contact, agent) = self.talking.swap_remove(position);
        let cost = self.clear(contact);
        self.samples[3].push(cost);
        self.now = self.now.plus(1);
        let body = InputBody::WrappedUp {
            agent,
            disposition: Disposition::Resolved,
            topic: None,
        };
        let cost = self.input(Some(contact), body);
        let moved = self.drain().1;
        self.samples[if moved.is_empty() { 4 } else { 5 }].push(cost);
        for (contact, agent) in moved {
            if let Some(position) = self.waiting.iter().position(|other| *other == contact) {
                self.waiting.swap_remove(position);
            }
            self.answer(contact, agent);
        }
    }

    fn abandon_one(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        let position = self.dice.below(self.waiting.len());
        let contact = self.waiting.swap_remove(position);
        let cost = self.clear(contact);
        self.samples[6].push(cost);
    }

    fn measure(agents: u32, queues: u32) -> [Vec<u64>; ROWS.len()] {
        let mut run = Run::new(agents, queues);
        while run.talking.len() < agents as usize / 2 {
            run.arrive();
        }
        run.samples = Default::default();
        for _ in 0..SAMPLES {
            if run.talking.len() < agents as usize / 2 {
                run.arrive();
            } else {
                run.finish_one();
            }
            if run.waiting.len() > agents as usize / 10 {
                run.abandon_one();
            }
        }
        for number in 0..SAMPLES {
            let name = format!("a{:05}", number % agents as usize);
            let away = run.agent(&name, SwitchAgentState::NotReady, Vec::new());
            let back = run.agent(&name, SwitchAgentState::Ready, Vec::new());
            run.samples[7].push(away + back);
        }
        while run.waiting.len() < agents as usize * 2 {
            run.arrive();
        }
        for _ in 0..SAMPLES {
            run.finish_one();
            while run.waiting.len() < agents as usize * 2 {
                run.arrive();
            }
            run.abandon_one();
        }
        run.samples
    }
}

/// Of a sorted sample.
fn percentile(sorted: &[u64], percent: usize) -> u64 {
    sorted
        .get((sorted.len() * percent / 100).min(sorted.len().saturating_sub(1)))
        .copied()
        .unwrap_or(0)
}

fn main() {
    let started = Instant::now();
    let mut columns = Vec::new();
    for (agents, queues) in SIZES {
        let mut samples = Run::measure(agents, queues);
        for row in &mut samples {
            row.sort_unstable();
        }
        columns.push(samples);
    }
    println!(
        "ns per input, median / 99th percentile; two callers wait for each agent under overload"
    );
    print!("{:26}", "agents x queues");
    for (agents, queues) in SIZES {
        print!("{:>17}", format!("{agents} x {queues}"));
    }
    println!("{:>18}{:>18}", "48,000 to 100", "48,000 to 1,000");
    for (row, name) in ROWS.iter().enumerate() {
        print!("{name:26}");
        for samples in &columns {
            print!(
                "{:>17}",
                format!(
                    "{} / {}",
                    percentile(&samples[row], 50),
                    percentile(&samples[row], 99)
                )
            );
        }
        let median = |column: usize| percentile(&columns[column][row], 50).max(1) as f64;
        println!(
            "{:>18}{:>18}",
            format!("{:.2}", median(3) / median(0)),
            format!("{:.2}", median(3) / median(1))
        );
    }
    println!(
        "{SAMPLES} steps a size and load, {:.1} s",
        started.elapsed().as_secs_f64()
    );
}
