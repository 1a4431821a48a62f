//! What agents do.

use std::collections::BTreeMap;

use domain::policy::{OPERATOR_TOPIC, Policy};
use proto::cti::v1 as cti;

use super::{People, Phase, Timer};
use crate::dice::Dice;
use crate::record::{CallNumber, Release};
use crate::scenario::Scenario;
use crate::scenario::schedule::Schedule;
use crate::switch::Core;
use crate::time::Us;

/// An agent.
#[derive(Debug)]
pub(super) struct Agent {
    name: String,
    skills: Vec<(String, u32)>,
    languages: Vec<String>,
    dice: Dice,
    phone: Option<usize>,
    /// Tells timers of an earlier occupation from those of this one.
    generation: u32,
    occupation: Occupation,
    disposition: cti::Disposition,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Occupation {
    Off,
    Idle,
    Ringing,
    Talking(CallNumber),
    WrapUp,
    Break,
}

/// Agents' skills: the first by the load of the topics, the others in turn, and one more
/// each so that no skill of the policy is without anybody.
pub(super) fn staff(scenario: &Scenario, policy: &Policy, schedule: &Schedule) -> Vec<Agent> {
    let mut load: BTreeMap<&str, f64> = BTreeMap::new();
    let words = &scenario.words;
    let all = words.need + words.person + words.zero + words.silence;
    let weights: f64 = schedule.topics.iter().map(|topic| topic.weight).sum();
    for topic in &schedule.topics {
        *load.entry(topic.skill.as_str()).or_default() += topic.weight / weights * words.need / all;
    }
    if let Some(operator) = policy.topics.get(OPERATOR_TOPIC) {
        let skill = policy.queue(operator.queue).skill.as_str();
        *load.entry(skill).or_default() += (all - words.need) / all;
    }
    let pools: Vec<&str> = schedule
        .topics
        .iter()
        .map(|topic| topic.pool.as_str())
        .collect();
    let mut every: Vec<&str> = policy
        .queues
        .iter()
        .filter(|queue| pools.contains(&queue.pool.as_str()))
        .map(|queue| queue.skill.as_str())
        .collect();
    every.sort_unstable();
    every.dedup();
    let skills: Vec<(&str, f64)> = load.into_iter().collect();
    let mut credit = vec![0.0; skills.len()];
    let mut agents = Vec::new();
    for number in 0..scenario.agents.count {
        let mut dice = Dice::new(scenario.seed, 5_000_000_000 + u64::from(number));
        // Smooth weighted turns: the skill that is owed most.
        for (owed, (_, weight)) in credit.iter_mut().zip(&skills) {
            *owed += weight;
        }
        let first = (0..skills.len())
            .max_by(|a, b| credit[*a].total_cmp(&credit[*b]))
            .unwrap_or(0);
        credit[first] -= skills.iter().map(|(_, weight)| weight).sum::<f64>();
        let mut own: Vec<(String, u32)> = Vec::new();
        for turn in 0..scenario.agents.skills_each as usize {
            let (skill, _) = skills[(first + turn) % skills.len()];
            let proficiency = if turn == 0 {
                7 + dice.below(4)
            } else {
                3 + dice.below(6)
            };
            if !own.iter().any(|(known, _)| known == skill) {
                own.push((skill.to_owned(), proficiency as u32));
            }
        }
        if !every.is_empty() {
            let rare = every[number as usize % every.len()];
            if !own.iter().any(|(known, _)| known == rare) {
                own.push((rare.to_owned(), 6 + dice.below(4) as u32));
            }
        }
        let mut languages = vec!["en".to_owned()];
        for (language, chance) in &scenario.agents.languages {
            if dice.chance(*chance) && language != "en" {
                languages.push(language.clone());
            }
        }
        agents.push(Agent {
            name: format!("agent-{:05}", number + 1),
            skills: own,
            languages,
            dice,
            phone: None,
            generation: 0,
            occupation: Occupation::Off,
            disposition: cti::Disposition::Unspecified,
        });
    }
    agents
}

impl Agent {
    fn turn(&mut self, occupation: Occupation) -> u32 {
        self.generation += 1;
        self.occupation = occupation;
        self.generation
    }
}

impl People {
    pub(super) fn log_on(&mut self, now: Us, core: &mut Core, index: usize) {
        if self.phase == Phase::Close {
            return;
        }
        let agent = &mut self.agents[index];
        let phone = core.agent_logs_on(
            now,
            &agent.name,
            agent.skills.clone(),
            agent.languages.clone(),
        );
        // Phones are given out in the order of log-on, which is that of the agents.
        debug_assert_eq!(phone, index);
        agent.phone = Some(phone);
        agent.turn(Occupation::Idle);
        core.set_state(now, phone, cti::AgentState::Ready, "");
    }

    pub(super) fn log_off(&mut self, now: Us, core: &mut Core, index: usize) {
        let agent = &mut self.agents[index];
        let Some(phone) = agent.phone else { return };
        if agent.occupation == Occupation::WrapUp {
            let disposition = agent.disposition;
            core.wrap_up(now, phone, disposition, String::new());
        }
        agent.turn(Occupation::Off);
        core.set_state(now, phone, cti::AgentState::Null, "");
    }

    pub(super) fn rings(&mut self, now: Us, phone: usize) {
        let agent = &mut self.agents[phone];
        let generation = agent.turn(Occupation::Ringing);
        if agent.dice.chance(self.scenario.agents.no_answer) {
            return;
        }
        let after = self
            .scenario
            .shrunk(agent.dice.exponential(self.scenario.agents.answer_mean_s));
        self.timers
            .push(now + after, Timer::Answer(phone, generation));
    }

    pub(super) fn answer(&mut self, now: Us, core: &mut Core, phone: usize, generation: u32) {
        if self.agents[phone].generation == generation {
            core.agent_answers(now, phone);
        }
    }

    pub(super) fn connected(&mut self, now: Us, core: &mut Core, call: CallNumber, phone: usize) {
        let settings = &self.scenario.agents;
        let agent = &mut self.agents[phone];
        let generation = agent.turn(Occupation::Talking(call));
        let talk_s = agent
            .dice
            .lognormal(settings.talk_mean_s, settings.talk_variation);
        let transfers = agent.dice.chance(settings.transfer);
        let (talk, third) = (
            self.scenario.shrunk(talk_s),
            self.scenario.shrunk(talk_s / 3.0),
        );
        self.timers
            .push(now + talk, Timer::EndTalk(phone, generation));
        if transfers {
            self.timers
                .push(now + third, Timer::AskTransfer(phone, generation));
        }
        self.meets_agent(now, core, call);
    }

    pub(super) fn ask_transfer(&mut self, now: Us, core: &mut Core, phone: usize, generation: u32) {
        let agent = &mut self.agents[phone];
        let Occupation::Talking(call) = agent.occupation else {
            return;
        };
        if agent.generation != generation {
            return;
        }
        let Some(life) = self.lives.get_mut(&call) else {
            return;
        };
        let pool = &self.schedule.topics[usize::from(life.topic)].pool;
        let others: Vec<usize> = (0..self.schedule.topics.len())
            .filter(|topic| {
                *topic != usize::from(life.topic) && self.schedule.topics[*topic].pool == *pool
            })
            .collect();
        if others.is_empty() {
            return;
        }
        let topic = others[agent.dice.below(others.len())];
        let warm = agent.dice.chance(self.scenario.agents.transfer_warm);
        life.topic = topic as u16;
        let authenticated = life.authenticated;
        let name = self.schedule.topics[topic].id.clone();
        core.agent_asks_transfer(now, phone, name, warm, authenticated);
    }

    pub(super) fn end_talk(&mut self, now: Us, core: &mut Core, phone: usize, generation: u32) {
        let Occupation::Talking(call) = self.agents[phone].occupation else {
            return;
        };
        if self.agents[phone].generation != generation {
            return;
        }
        if !core.talks(phone) {
            // Stays on the line until the next person answers (warm transfer).
            return;
        }
        let (disposition, survey) = self.need_met(now, call);
        self.agents[phone].disposition = disposition;
        core.agent_ends(now, phone, survey);
    }

    pub(super) fn released(
        &mut self,
        now: Us,
        core: &mut Core,
        call: CallNumber,
        phone: usize,
        why: Release,
    ) {
        let agent = &mut self.agents[phone];
        if agent.occupation == Occupation::Off {
            return;
        }
        if agent.dice.chance(self.scenario.agents.device_failure) {
            core.set_out_of_order(phone);
        }
        match why {
            Release::Ended | Release::Transferred => {
                if why == Release::Transferred {
                    agent.disposition = cti::Disposition::Unspecified;
                    if let Some(life) = self.lives.get_mut(&call) {
                        life.waiting = true;
                    }
                }
                let agent = &mut self.agents[phone];
                let generation = agent.turn(Occupation::WrapUp);
                let after = self
                    .scenario
                    .shrunk(agent.dice.exponential(self.scenario.agents.wrap_up_mean_s));
                self.timers
                    .push(now + after, Timer::WrapUpOver(phone, generation));
            }
            Release::NotAnswered | Release::MovedWhileRinging | Release::CallerGone => {
                agent.turn(Occupation::Idle);
            }
        }
    }

    pub(super) fn wrap_up_over(&mut self, now: Us, core: &mut Core, phone: usize, generation: u32) {
        let agent = &mut self.agents[phone];
        if agent.generation != generation || agent.occupation != Occupation::WrapUp {
            return;
        }
        let disposition = std::mem::replace(&mut agent.disposition, cti::Disposition::Unspecified);
        core.wrap_up(now, phone, disposition, String::new());
        let settings = &self.scenario.agents;
        if self.phase == Phase::Open && agent.dice.chance(settings.not_ready) {
            let generation = agent.turn(Occupation::Break);
            let after = self
                .scenario
                .shrunk(agent.dice.exponential(settings.not_ready_mean_s));
            core.set_state(now, phone, cti::AgentState::NotReady, "break");
            self.timers
                .push(now + after, Timer::Return(phone, generation));
            return;
        }
        agent.turn(Occupation::Idle);
        core.set_state(now, phone, cti::AgentState::Ready, "");
    }

    /// The mesh set the state: after a missed call the agent notices after a while.
    pub(super) fn agent_set(&mut self, now: Us, phone: usize, state: cti::AgentState) {
        let agent = &mut self.agents[phone];
        match (state, agent.occupation) {
            (cti::AgentState::NotReady, Occupation::Idle | Occupation::Break) => {
                let generation = agent.turn(Occupation::Break);
                let mean_s = self.scenario.agents.not_ready_mean_s;
                let after = self.scenario.shrunk(agent.dice.exponential(mean_s));
                self.timers
                    .push(now + after, Timer::Return(phone, generation));
            }
            (cti::AgentState::Ready, Occupation::WrapUp | Occupation::Break) => {
                agent.turn(Occupation::Idle);
            }
            _ => {}
        }
    }

    pub(super) fn return_to_work(
        &mut self,
        now: Us,
        core: &mut Core,
        phone: usize,
        generation: u32,
    ) {
        let agent = &mut self.agents[phone];
        if agent.generation != generation
            || agent.occupation != Occupation::Break
            || core.has_call(phone)
        {
            return;
        }
        agent.turn(Occupation::Idle);
        core.set_state(now, phone, cti::AgentState::Ready, "");
    }
}
