//! What callers do.

use proto::cti::v1 as cti;

use super::{Again, Booking, Caller, People, Phase, Timer};
use crate::dice::Dice;
use crate::record::{CallNumber, Leg};
use crate::scenario::schedule::said;
use crate::scenario::words::{caller_of, number_of};
use crate::switch::{Core, NewCall};
use crate::time::{MILLISECOND, Us};

impl People {
    /// Scheduled calls that are due.
    pub(super) fn arrive(&mut self, now: Us, core: &mut Core) {
        while let Some(arrival) = self.schedule.arrivals.get(self.next_arrival) {
            let intended = self.began + arrival.at;
            if intended > now {
                return;
            }
            self.arrival_lag = self.arrival_lag.max(now - intended);
            self.next_arrival += 1;
            let (caller, topic, language) = (arrival.caller, arrival.topic, arrival.language);
            let dice = Dice::new(self.scenario.seed, 1000 + u64::from(caller));
            self.call(
                now,
                core,
                intended,
                Again {
                    caller,
                    topic,
                    language,
                    leg: Leg::New,
                    dice,
                },
                None,
            );
        }
    }

    fn call(
        &mut self,
        now: Us,
        core: &mut Core,
        intended: Us,
        again: Again,
        cancels: Option<String>,
    ) {
        let Again {
            caller,
            topic,
            language,
            leg,
            mut dice,
        } = again;
        let choice = &self.schedule.topics[usize::from(topic)];
        let language_name = &self.schedule.languages[usize::from(language)];
        let said = said(
            &self.scenario,
            &self.words,
            &choice.id,
            language_name,
            caller,
            &mut dice,
        );
        let withheld = dice.chance(self.scenario.callers.withheld);
        let authenticated = dice.chance(self.scenario.callers.authenticated);
        let line = choice.numbers[dice.below(choice.numbers.len())].clone();
        let new = NewCall {
            caller,
            intended,
            leg,
            line,
            number: (!withheld).then(|| number_of(caller)),
            language: language_name.clone(),
            utterance: said.utterance,
            digits: said.digits,
            authenticated,
            correlator: bytes::Bytes::new(),
            topic: choice.id.clone(),
        };
        let patience = self
            .scenario
            .shrunk(dice.patience(self.scenario.callers.patience_mean_s));
        let call = core.call_arrives(now, new);
        let life = Caller {
            caller,
            topic,
            language,
            leg,
            dice,
            waiting: true,
            offered: false,
            cancels,
            authenticated,
        };
        self.lives.insert(call, life);
        self.timers.push(now + patience, Timer::Patience(call));
    }

    pub(super) fn call_again(&mut self, now: Us, core: &mut Core, again: Again) {
        if self.phase == Phase::Open && !self.bookings.contains_key(&again.caller) {
            self.call(now, core, now, again, None);
        }
    }

    fn later(&mut self, now: Us, life: &Caller, leg: Leg, chance: f64, mean_s: f64) {
        let mut dice = life.dice;
        if self.phase != Phase::Open || !dice.chance(chance) {
            return;
        }
        let after = self.scenario.shrunk(dice.exponential(mean_s));
        let again = Again {
            caller: life.caller,
            topic: life.topic,
            language: life.language,
            leg,
            dice,
        };
        self.timers.push(now + after, Timer::Again(again));
    }

    /// The caller has waited long enough.
    pub(super) fn patience_over(&mut self, now: Us, core: &mut Core, call: CallNumber) {
        let Some(life) = self.lives.get(&call).filter(|life| life.waiting).cloned() else {
            return;
        };
        core.caller_hangs_up(now, call);
        // Somebody who was called back and gave up is called again by the mesh.
        if !matches!(life.leg, Leg::Callback | Leg::Cancel) {
            let callers = &self.scenario.callers;
            let (chance, mean_s) = (callers.redial, callers.redial_mean_s);
            self.later(now, &life, Leg::Redial, chance, mean_s);
        }
    }

    /// A message or the default route: no person today, perhaps later.
    pub(super) fn turned_away(&mut self, now: Us, call: CallNumber) {
        let Some(life) = self.lives.get_mut(&call) else {
            return;
        };
        life.waiting = false;
        let life = life.clone();
        let callers = &self.scenario.callers;
        let (chance, mean_s) = (callers.redial, callers.redial_mean_s);
        self.later(now, &life, Leg::Redial, chance, mean_s);
    }

    pub(super) fn in_line(
        &mut self,
        now: Us,
        core: &mut Core,
        call: CallNumber,
        offers: Vec<cti::Offer>,
    ) {
        let Some(life) = self.lives.get_mut(&call) else {
            return;
        };
        life.waiting = true;
        if life.cancels.is_some() {
            self.cancel_now(now, core, call);
            return;
        }
        if offers.is_empty() || std::mem::replace(&mut life.offered, true) {
            return;
        }
        let after = self.scenario.callbacks.choose_mean_s * (0.5 + life.dice.unit());
        let at = now + self.scenario.shrunk(after);
        self.timers.push(at, Timer::Choose(call, offers));
    }

    pub(super) fn choose(
        &mut self,
        now: Us,
        core: &mut Core,
        call: CallNumber,
        offers: &[cti::Offer],
    ) {
        let Some(life) = self.lives.get_mut(&call).filter(|life| life.waiting) else {
            return;
        };
        let callbacks = &self.scenario.callbacks;
        if !life.dice.chance(callbacks.accept) {
            core.caller_chooses(now, call, None, None);
            return;
        }
        let is_window =
            |offer: &&cti::Offer| matches!(offer.kind, Some(cti::offer::Kind::Window(_)));
        let windows: Vec<&cti::Offer> = offers.iter().filter(is_window).collect();
        let hold = offers.iter().find(|offer| !is_window(offer));
        let offer = if !windows.is_empty() && (hold.is_none() || life.dice.chance(callbacks.window))
        {
            Some(windows[life.dice.below(windows.len())])
        } else {
            hold
        };
        let number = number_of(life.caller);
        core.caller_chooses(now, call, offer, Some(number));
    }

    pub(super) fn booked(&mut self, now: Us, call: CallNumber, code: String) {
        let Some(life) = self.lives.get_mut(&call) else {
            return;
        };
        life.waiting = false;
        let caller = life.caller;
        let cancels = life.dice.chance(self.scenario.callbacks.cancel);
        let after = life.dice.exponential(300.0);
        self.bookings.insert(
            caller,
            Booking {
                topic: life.topic,
                language: life.language,
                code,
            },
        );
        if cancels {
            self.timers
                .push(now + self.scenario.shrunk(after), Timer::Cancel(caller));
        }
    }

    pub(super) fn call_to_cancel(&mut self, now: Us, core: &mut Core, caller: u32) {
        if self.phase != Phase::Open {
            return;
        }
        let Some(booking) = self.bookings.get(&caller).cloned() else {
            return;
        };
        let dice = Dice::new(self.scenario.seed, 3_000_000_000 + u64::from(caller));
        let again = Again {
            caller,
            topic: booking.topic,
            language: booking.language,
            leg: Leg::Cancel,
            dice,
        };
        self.call(now, core, now, again, Some(booking.code));
    }

    /// Somebody listens, or a place in line is reached: says the code and hangs up.
    fn cancel_now(&mut self, now: Us, core: &mut Core, call: CallNumber) {
        let Some(life) = self.lives.get_mut(&call) else {
            return;
        };
        let Some(code) = life.cancels.take() else {
            return;
        };
        let caller = life.caller;
        self.bookings.remove(&caller);
        core.caller_cancels(now, call, code);
        self.timers
            .push(now + 300 * MILLISECOND, Timer::Patience(call));
    }

    /// The mesh calls somebody.
    pub(super) fn dialled(&mut self, now: Us, dial: u64, number: &str, ring_ms: u32) {
        let caller = caller_of(number).unwrap_or_default();
        let mut dice = Dice::new(
            self.scenario.seed ^ 0xd1a1,
            (u64::from(caller) << 24) ^ dial,
        );
        let callbacks = &self.scenario.callbacks;
        let ring = u64::from(ring_ms) * MILLISECOND;
        let (outcome, after) = if self.phase < Phase::Close && dice.chance(callbacks.answer) {
            let mean = callbacks.answer_mean_ms * MILLISECOND as f64;
            (
                cti::DialOutcome::Answered,
                (dice.exponential(mean) as Us).min(ring * 9 / 10),
            )
        } else {
            let rest = 1.0 - callbacks.voicemail - callbacks.busy;
            match dice.weighted(&[callbacks.voicemail, callbacks.busy, rest]) {
                0 => (cti::DialOutcome::Voicemail, ring * 6 / 10),
                1 => (cti::DialOutcome::Busy, 20 * MILLISECOND),
                _ => (cti::DialOutcome::NoAnswer, ring),
            }
        };
        self.timers.push(
            now + after,
            Timer::DialOutcome {
                dial,
                caller,
                outcome,
            },
        );
    }

    pub(super) fn dial_outcome(
        &mut self,
        now: Us,
        core: &mut Core,
        dial: u64,
        caller: u32,
        outcome: cti::DialOutcome,
    ) {
        // Everybody has gone home: nobody answers any more.
        let outcome = if self.phase == Phase::Close && outcome == cti::DialOutcome::Answered {
            cti::DialOutcome::NoAnswer
        } else {
            outcome
        };
        let booking = self.bookings.get(&caller).cloned();
        let (topic, language) = booking.map_or((0, 0), |booking| (booking.topic, booking.language));
        let topic_name = self.schedule.topics[usize::from(topic)].id.clone();
        let Some(call) = core.dial_ends(now, dial, outcome, caller, topic_name) else {
            return;
        };
        let mut dice = Dice::new(
            self.scenario.seed ^ 0xca11,
            (u64::from(caller) << 24) ^ dial,
        );
        let patience = self
            .scenario
            .shrunk(dice.patience(self.scenario.callers.patience_mean_s));
        let life = Caller {
            caller,
            topic,
            language,
            leg: Leg::Callback,
            dice,
            waiting: true,
            offered: true,
            cancels: None,
            authenticated: false,
        };
        self.lives.insert(call, life);
        self.timers.push(now + patience, Timer::Patience(call));
    }

    /// An agent talks to the caller.
    pub(super) fn meets_agent(&mut self, now: Us, core: &mut Core, call: CallNumber) {
        let Some(life) = self.lives.get_mut(&call) else {
            return;
        };
        life.waiting = false;
        let (caller, leg) = (life.caller, life.leg);
        if leg == Leg::Callback {
            self.bookings.remove(&caller);
        }
        self.cancel_now(now, core, call);
    }

    /// The conversation is over: was the need met?
    pub(super) fn need_met(
        &mut self,
        now: Us,
        call: CallNumber,
    ) -> (cti::Disposition, Option<cti::SurveyAnswered>) {
        let Some(life) = self.lives.get_mut(&call) else {
            return (cti::Disposition::Unspecified, None);
        };
        let callers = &self.scenario.callers;
        let resolved = life.dice.chance(callers.resolved);
        let surveyed = life.dice.chance(callers.survey);
        let calls_about_this = if life.leg == Leg::New { 1 } else { 2 };
        let life = life.clone();
        let (repeat, mean_s) = (callers.repeat, callers.repeat_mean_s);
        let answer = if resolved {
            cti::Answer::Yes
        } else {
            cti::Answer::No
        };
        let survey = surveyed.then(|| cti::SurveyAnswered {
            calls_about_this,
            all_answered: answer.into(),
            no_more_calls: answer.into(),
        });
        if resolved {
            return (cti::Disposition::Resolved, survey);
        }
        self.later(now, &life, Leg::Repeat, repeat, mean_s);
        (cti::Disposition::Unresolved, survey)
    }
}
