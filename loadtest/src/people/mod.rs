//! Callers and agents: event-driven models over the switch.
//!
//! They notice what the switch tells them ([`Happening`]) and act through its phones; they
//! know nothing of the mesh. A caller carries a die of their own, so what they would do is
//! settled by the scenario's seed, whenever the mesh answers.

mod agents;
mod callers;
mod heap;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use domain::policy::Policy;
use proto::cti::v1 as cti;

use crate::dice::Dice;
use crate::record::{CallNumber, Leg};
use crate::scenario::Scenario;
use crate::scenario::schedule::Schedule;
use crate::scenario::words::Words;
use crate::switch::{Core, Happening};
use crate::time::Us;
use agents::Agent;
use heap::Heap;

/// Everybody.
#[derive(Debug)]
pub(crate) struct People {
    scenario: Arc<Scenario>,
    schedule: Schedule,
    words: Words,
    began: Us,
    next_arrival: usize,
    /// Who is on the line.
    lives: HashMap<CallNumber, Caller>,
    /// Who waits to be called.
    bookings: HashMap<u32, Booking>,
    agents: Vec<Agent>,
    timers: Heap<Timer>,
    phase: Phase,
    happenings: Vec<Happening>,
    /// Worst lateness of an arrival since it was last asked.
    arrival_lag: Us,
}

/// A caller on the line.
#[derive(Clone, Debug)]
struct Caller {
    caller: u32,
    topic: u16,
    language: u8,
    leg: Leg,
    dice: Dice,
    /// Neither talking nor done: may give up.
    waiting: bool,
    /// Has been offered something.
    offered: bool,
    /// Says this code to cancel.
    cancels: Option<String>,
    authenticated: bool,
}

/// A caller who waits to be called.
#[derive(Clone, Debug)]
struct Booking {
    topic: u16,
    language: u8,
    code: String,
}

/// A caller who will call again.
#[derive(Clone, Debug)]
struct Again {
    caller: u32,
    topic: u16,
    language: u8,
    leg: Leg,
    dice: Dice,
}

/// How far the run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    /// Calls arrive.
    Open,
    /// No new calls; those in line are served.
    Drain,
    /// Everybody hangs up, agents log off.
    Close,
}

#[derive(Debug)]
enum Timer {
    Patience(CallNumber),
    Choose(CallNumber, Vec<cti::Offer>),
    Again(Again),
    DialOutcome {
        dial: u64,
        caller: u32,
        outcome: cti::DialOutcome,
    },
    Cancel(u32),
    LogOn(usize),
    Answer(usize, u32),
    AskTransfer(usize, u32),
    EndTalk(usize, u32),
    WrapUpOver(usize, u32),
    Return(usize, u32),
}

impl People {
    /// Everybody of a scenario; the first arrival counts from `began`.
    pub(crate) fn new(
        scenario: Arc<Scenario>,
        policy: &Policy,
        schedule: Schedule,
        words: Words,
        began: Us,
    ) -> Self {
        let agents = agents::staff(&scenario, policy, &schedule);
        let mut people = Self {
            scenario,
            schedule,
            words,
            began,
            next_arrival: 0,
            lives: HashMap::new(),
            bookings: HashMap::new(),
            agents,
            timers: Heap::default(),
            phase: Phase::Open,
            happenings: Vec::new(),
            arrival_lag: 0,
        };
        let span = people.scenario.agents.log_on_s * 1e6;
        let count = people.agents.len();
        for agent in 0..count {
            // Before the first call, so that it finds somebody.
            let at = began.saturating_sub(span as Us) + (span * agent as f64 / count as f64) as Us;
            people.timers.push(at, Timer::LogOn(agent));
        }
        people
    }

    /// When [`People::step`] is next needed.
    pub(crate) fn next_deadline(&self) -> Option<Us> {
        let arrival = self
            .schedule
            .arrivals
            .get(self.next_arrival)
            .map(|arrival| self.began + arrival.at);
        [arrival, self.timers.next_deadline()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Does what is due at `now`, and what follows from what the switch told.
    pub(crate) fn step(&mut self, now: Us, core: &mut Core) {
        self.arrive(now, core);
        loop {
            self.react(now, core);
            let Some(timer) = self.timers.pop_due(now) else {
                return;
            };
            self.act(now, core, timer);
        }
    }

    fn act(&mut self, now: Us, core: &mut Core, timer: Timer) {
        match timer {
            Timer::Patience(call) => self.patience_over(now, core, call),
            Timer::Choose(call, offers) => self.choose(now, core, call, &offers),
            Timer::Again(again) => self.call_again(now, core, again),
            Timer::DialOutcome {
                dial,
                caller,
                outcome,
            } => self.dial_outcome(now, core, dial, caller, outcome),
            Timer::Cancel(caller) => self.call_to_cancel(now, core, caller),
            Timer::LogOn(agent) => self.log_on(now, core, agent),
            Timer::Answer(agent, generation) => self.answer(now, core, agent, generation),
            Timer::AskTransfer(agent, generation) => {
                self.ask_transfer(now, core, agent, generation)
            }
            Timer::EndTalk(agent, generation) => self.end_talk(now, core, agent, generation),
            Timer::WrapUpOver(agent, generation) => self.wrap_up_over(now, core, agent, generation),
            Timer::Return(agent, generation) => self.return_to_work(now, core, agent, generation),
        }
    }

    fn react(&mut self, now: Us, core: &mut Core) {
        let mut happenings = std::mem::take(&mut self.happenings);
        loop {
            core.take_happenings(&mut happenings);
            if happenings.is_empty() {
                break;
            }
            for happening in happenings.drain(..) {
                match happening {
                    Happening::Queued { call, offers } => self.in_line(now, core, call, offers),
                    Happening::Rings { phone, .. } => self.rings(now, phone),
                    Happening::Connected { call, phone } => self.connected(now, core, call, phone),
                    Happening::Released { call, phone, why } => {
                        self.released(now, core, call, phone, why)
                    }
                    Happening::AgentSet { phone, state } => self.agent_set(now, phone, state),
                    Happening::Message { call } | Happening::Defaulted { call } => {
                        self.turned_away(now, call)
                    }
                    Happening::Booked { call, code, .. } => self.booked(now, call, code),
                    Happening::BookingFailed { .. } => {}
                    Happening::Dial {
                        dial,
                        number,
                        ring_ms,
                    } => self.dialled(now, dial, &number, ring_ms),
                    Happening::Ended { call } => {
                        self.lives.remove(&call);
                    }
                }
            }
        }
        self.happenings = happenings;
    }

    /// No more calls arrive; nobody calls again.
    pub(crate) fn drain(&mut self) {
        self.phase = self.phase.max(Phase::Drain);
        self.next_arrival = self.schedule.arrivals.len();
    }

    /// Everybody hangs up and the agents log off. Bookings stay with the mesh.
    pub(crate) fn close(&mut self, now: Us, core: &mut Core) {
        self.drain();
        self.phase = Phase::Close;
        let mut calls: Vec<CallNumber> = self.lives.keys().copied().collect();
        calls.sort_unstable();
        for call in calls {
            core.caller_hangs_up(now, call);
        }
        self.react(now, core);
        for agent in 0..self.agents.len() {
            self.log_off(now, core, agent);
        }
        self.react(now, core);
    }

    /// Callers who wait to be called.
    pub(crate) fn bookings(&self) -> usize {
        self.bookings.len()
    }

    /// All scheduled calls have come.
    pub(crate) fn all_arrived(&self) -> bool {
        self.next_arrival == self.schedule.arrivals.len()
    }

    /// Worst lateness of an arrival since the last call.
    pub(crate) fn take_arrival_lag(&mut self) -> Us {
        std::mem::take(&mut self.arrival_lag)
    }
}
