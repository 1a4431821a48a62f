//! The switch's record, put in order: calls, questions, phones, bookings, dials.

use std::collections::{BTreeMap, HashMap};

use crate::record::{AnswerKind, CallNumber, DefaultWhy, Entry, Leg, Line, Release, RunInfo};
use crate::time::{MILLISECOND, Us};

/// The record in order.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    /// The run.
    pub(crate) run: Option<RunInfo>,
    /// Calls, by number.
    pub(crate) calls: BTreeMap<CallNumber, Call>,
    /// Questions to the mesh, in the order in which they were first asked.
    pub(crate) questions: BTreeMap<(CallNumber, u32, u32), Question>,
    /// Contacts, each with its calls in order.
    pub(crate) contacts: HashMap<String, Vec<CallNumber>>,
    /// Agents who were sent a second call.
    pub(crate) busy: Vec<Busy>,
    /// Phones, by agent: when each held which call.
    pub(crate) holds: HashMap<String, Vec<Hold>>,
    /// Agents.
    pub(crate) agents: HashMap<String, Agent>,
    /// Bookings heard, in order.
    pub(crate) bookings: Vec<Booking>,
    /// Dials, by number.
    pub(crate) dials: BTreeMap<u64, Dial>,
    /// Bookings that had not ended at the end.
    pub(crate) pending: HashMap<String, (bool, String)>,
    /// Second answers that differ from the first.
    pub(crate) second_answers: Vec<(CallNumber, u32, bool)>,
    /// Ends by the mesh: cti.v1.RouteEndError, how often.
    pub(crate) ends: BTreeMap<i32, u64>,
    /// Refusals: (field, limit), how often.
    pub(crate) refusals: BTreeMap<(String, String), u64>,
    /// Commands that failed: (kind, error), how often.
    pub(crate) failed_commands: BTreeMap<(String, i32), u64>,
    /// Commands about a call that the switch refused, by contact: when.
    pub(crate) refused_moves: HashMap<String, Vec<Us>>,
    /// What was broken: (target, from, until).
    pub(crate) faults: Vec<(String, Us, Option<Us>)>,
    /// First and last moment.
    pub(crate) span: (Us, Us),
    /// Totals.
    pub(crate) counts: Counts,
    /// The record ends as it should.
    pub(crate) complete: bool,
    /// Events made and acknowledged.
    pub(crate) events: (u64, u64),
    /// Worst lateness of the harness, us.
    pub(crate) lag: Us,
}

/// Totals.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) answers: u64,
    pub(crate) established: u64,
    pub(crate) gave_up: u64,
    pub(crate) overload: u64,
    pub(crate) messages: u64,
    pub(crate) default_timer: u64,
    pub(crate) default_mesh: u64,
    pub(crate) default_no_link: u64,
    pub(crate) late: u64,
    pub(crate) booked: u64,
    pub(crate) booking_failed: u64,
    pub(crate) asked_again: u64,
}

impl Counts {
    /// Calls on the default route.
    pub(crate) const fn defaults(&self) -> u64 {
        self.default_timer + self.default_mesh + self.default_no_link
    }
}

/// A call.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) caller: u32,
    pub(crate) leg: Leg,
    pub(crate) arrived: Us,
    /// Empty: the mesh never named one.
    pub(crate) contact: String,
    pub(crate) cleared: Option<Us>,
    /// When the switch last took its default route for it.
    pub(crate) defaulted: Option<Us>,
    pub(crate) established: Vec<(Us, String)>,
    pub(crate) booked: bool,
}

/// A gateway's deadline lies ahead of the switch's timer by the switch's tick (62 ms) and two
/// round trips.
const GIVE_UP_AHEAD_MS: u64 = 70;

/// A question to the mesh.
#[derive(Clone, Debug, Default)]
pub(crate) struct Question {
    pub(crate) asked: u32,
    pub(crate) first_asked: Us,
    pub(crate) answers: Vec<AnswerKind>,
    pub(crate) gave_up: bool,
    pub(crate) default: Option<Default_>,
}

/// A default route.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Default_ {
    pub(crate) at: Us,
    pub(crate) why: DefaultWhy,
    pub(crate) link_up: bool,
    pub(crate) slow: Us,
}

/// An agent who holds a call was sent another.
#[derive(Clone, Debug)]
pub(crate) struct Busy {
    pub(crate) at: Us,
    pub(crate) contact: String,
    pub(crate) agent: String,
    pub(crate) holds: CallNumber,
}

/// A phone held a call.
#[derive(Clone, Debug)]
pub(crate) struct Hold {
    pub(crate) call: CallNumber,
    pub(crate) from: Us,
    pub(crate) until: Option<Us>,
}

/// An agent.
#[derive(Clone, Debug)]
pub(crate) struct Agent {
    pub(crate) skills: Vec<(String, u32)>,
    pub(crate) languages: Vec<String>,
}

/// A booking as the caller heard it.
#[derive(Clone, Debug)]
pub(crate) struct Booking {
    pub(crate) at: Us,
    pub(crate) contact: String,
    pub(crate) caller: u32,
    pub(crate) code: String,
    pub(crate) window: Option<(u64, u64)>,
}

/// A dial.
#[derive(Clone, Debug)]
pub(crate) struct Dial {
    pub(crate) contact: String,
    pub(crate) from: Us,
    pub(crate) ended: Option<Us>,
    pub(crate) outcome: i32,
    pub(crate) call: Option<CallNumber>,
}

impl Facts {
    /// Puts a record in order.
    pub(crate) fn from_lines(lines: &[Line]) -> Self {
        let mut facts = Self::default();
        if let (Some(first), Some(last)) = (lines.first(), lines.last()) {
            facts.span = (first.at, last.at);
        }
        for line in lines {
            facts.take(line.at, &line.entry);
        }
        for (number, call) in &facts.calls {
            if !call.contact.is_empty() {
                facts
                    .contacts
                    .entry(call.contact.clone())
                    .or_default()
                    .push(*number);
            }
        }
        facts
    }

    fn take(&mut self, at: Us, entry: &Entry) {
        match entry {
            Entry::Run(run) => self.run = Some(run.clone()),
            Entry::Call {
                call,
                caller,
                leg,
                contact,
                ..
            } => {
                let new = Call {
                    caller: *caller,
                    leg: *leg,
                    arrived: at,
                    contact: contact.clone(),
                    cleared: None,
                    defaulted: None,
                    established: Vec::new(),
                    booked: false,
                };
                self.calls.insert(*call, new);
            }
            Entry::Request {
                call,
                dialogue,
                round,
                ..
            } => {
                let question = self.question(*call, *dialogue, *round);
                question.asked += 1;
                if question.asked == 1 {
                    question.first_asked = at;
                } else {
                    self.counts.asked_again += 1;
                }
            }
            Entry::Answer {
                call,
                dialogue,
                round,
                kind,
                error,
                contact,
                ..
            } => {
                if *kind == AnswerKind::End {
                    *self.ends.entry(*error).or_default() += 1;
                }
                self.question(*call, *dialogue, *round).answers.push(*kind);
                self.counts.answers += 1;
                match kind {
                    AnswerKind::Overload => self.counts.overload += 1,
                    AnswerKind::Message => self.counts.messages += 1,
                    _ => {}
                }
                self.name(*call, contact);
            }
            Entry::Default {
                call,
                dialogue,
                round,
                why,
                link_up,
                slow_us,
            } => {
                let default = Default_ {
                    at,
                    why: *why,
                    link_up: *link_up,
                    slow: *slow_us,
                };
                self.question(*call, *dialogue, *round).default = Some(default);
                if let Some(known) = self.calls.get_mut(call) {
                    known.defaulted = Some(at);
                }
                match why {
                    DefaultWhy::Timer => self.counts.default_timer += 1,
                    DefaultWhy::Mesh => self.counts.default_mesh += 1,
                    DefaultWhy::NoLink => self.counts.default_no_link += 1,
                }
            }
            Entry::GaveUpAsking {
                call,
                dialogue,
                round,
            } => self.question(*call, *dialogue, *round).gave_up = true,
            Entry::Late { .. } => self.counts.late += 1,
            Entry::SecondAnswer {
                call,
                dialogue,
                same,
            } => self.second_answers.push((*call, *dialogue, *same)),
            Entry::Refused { field, limit, .. } => {
                *self
                    .refusals
                    .entry((field.clone(), limit.clone()))
                    .or_default() += 1
            }
            Entry::CommandFailed { kind, call, error } => {
                *self
                    .failed_commands
                    .entry((kind.clone(), *error))
                    .or_default() += 1;
                if let Some(call) = self.calls.get(call).filter(|call| !call.contact.is_empty()) {
                    self.refused_moves
                        .entry(call.contact.clone())
                        .or_default()
                        .push(at);
                }
            }
            Entry::Fault { target, up } => {
                if *up {
                    let open = self
                        .faults
                        .iter_mut()
                        .rev()
                        .find(|fault| fault.0 == *target && fault.2.is_none());
                    if let Some(fault) = open {
                        fault.2 = Some(at);
                    }
                } else {
                    self.faults.push((target.clone(), at, None));
                }
            }
            Entry::Pending {
                contact,
                found,
                state,
            } => {
                self.pending
                    .insert(contact.clone(), (*found, state.clone()));
            }
            Entry::Lag { us } => self.lag = self.lag.max(*us),
            Entry::End {
                events,
                events_acknowledged,
                ..
            } => {
                self.complete = true;
                self.events = (*events, *events_acknowledged);
            }
            Entry::Drain
            | Entry::Link { .. }
            | Entry::CancelAsked { .. }
            | Entry::Queued { .. } => {}
            _ => self.take_people(at, entry),
        }
    }

    fn take_people(&mut self, at: Us, entry: &Entry) {
        match entry {
            Entry::Rings {
                call,
                contact,
                agent,
            } => {
                self.name(*call, contact);
                self.holds.entry(agent.clone()).or_default().push(Hold {
                    call: *call,
                    from: at,
                    until: None,
                });
            }
            Entry::Established {
                call,
                contact,
                agent,
            } => {
                self.name(*call, contact);
                self.counts.established += 1;
                if let Some(call) = self.calls.get_mut(call) {
                    call.established.push((at, agent.clone()));
                }
            }
            Entry::Released {
                call, agent, why, ..
            } => {
                debug_assert!(matches!(
                    why,
                    Release::Ended
                        | Release::NotAnswered
                        | Release::MovedWhileRinging
                        | Release::Transferred
                        | Release::CallerGone
                ));
                let holds = self.holds.entry(agent.clone()).or_default();
                if let Some(hold) = holds
                    .iter_mut()
                    .rev()
                    .find(|hold| hold.call == *call && hold.until.is_none())
                {
                    hold.until = Some(at);
                }
            }
            Entry::AgentBusy {
                contact,
                agent,
                holds,
                ..
            } => {
                self.busy.push(Busy {
                    at,
                    contact: contact.clone(),
                    agent: agent.clone(),
                    holds: *holds,
                });
            }
            Entry::Cleared {
                call,
                contact,
                waited,
                ..
            } => {
                self.name(*call, contact);
                if let Some(call) = self.calls.get_mut(call) {
                    call.cleared = Some(at);
                    self.counts.gave_up +=
                        u64::from(*waited && call.established.is_empty() && !call.booked);
                }
            }
            Entry::Booked {
                call,
                contact,
                caller,
                code,
                window,
            } => {
                self.counts.booked += 1;
                if let Some(call) = self.calls.get_mut(call) {
                    call.booked = true;
                }
                self.bookings.push(Booking {
                    at,
                    contact: contact.clone(),
                    caller: *caller,
                    code: code.clone(),
                    window: *window,
                });
            }
            Entry::BookingFailed { .. } => self.counts.booking_failed += 1,
            Entry::Dial { dial, contact, .. } => {
                let new = Dial {
                    contact: contact.clone(),
                    from: at,
                    ended: None,
                    outcome: 0,
                    call: None,
                };
                self.dials.insert(*dial, new);
            }
            Entry::DialEnded {
                dial,
                outcome,
                call,
                ..
            } => {
                if let Some(dial) = self.dials.get_mut(dial) {
                    dial.ended = Some(at);
                    dial.outcome = *outcome;
                    dial.call = *call;
                }
            }
            Entry::Agent {
                agent,
                skills,
                languages,
            } => {
                self.agents.insert(
                    agent.clone(),
                    Agent {
                        skills: skills.clone(),
                        languages: languages.clone(),
                    },
                );
            }
            _ => {}
        }
    }

    fn question(&mut self, call: CallNumber, dialogue: u32, round: u32) -> &mut Question {
        self.questions.entry((call, dialogue, round)).or_default()
    }

    fn name(&mut self, call: CallNumber, contact: &str) {
        if !contact.is_empty()
            && let Some(call) = self.calls.get_mut(&call)
        {
            contact.clone_into(&mut call.contact);
        }
    }

    /// The first call of a contact.
    pub(crate) fn first_call(&self, contact: &str) -> Option<&Call> {
        let number = self.contacts.get(contact)?.first()?;
        self.calls.get(number)
    }

    /// Milliseconds at which a leg of a contact ended, in order.
    pub(crate) fn legs_ended_ms(&self, contact: &str) -> Vec<u64> {
        let calls = self
            .contacts
            .get(contact)
            .into_iter()
            .flatten()
            .filter_map(|call| self.calls.get(call));
        // The gateway gives up, and frees the agent, before the switch hears of it.
        let gave_up = |at: Us| (at / MILLISECOND).saturating_sub(GIVE_UP_AHEAD_MS);
        calls
            .flat_map(|call| {
                let cleared = call.cleared.map(|at| at / MILLISECOND);
                [cleared, call.defaulted.map(gave_up)]
            })
            .flatten()
            .collect()
    }

    /// Milliseconds at which the switch refused to move a contact's call, in order.
    pub(crate) fn moves_ended_ms(&self, contact: &str) -> Vec<u64> {
        self.refused_moves
            .get(contact)
            .into_iter()
            .flatten()
            .map(|at| at / MILLISECOND)
            .collect()
    }

    /// The contact of a call, for messages; the call's number if the mesh never named one.
    pub(crate) fn contact_of(&self, call: CallNumber) -> String {
        match self.calls.get(&call) {
            Some(known) if !known.contact.is_empty() => known.contact.clone(),
            _ => format!("call {call}"),
        }
    }
}
