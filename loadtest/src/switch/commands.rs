//! Commands of the mesh: move calls, dial, set agents' states, tell callers.

use proto::cti::v1 as cti;

use super::dialogue::{call_number, call_ref};
use super::links::StreamKind;
use super::{Core, Dial, Happening, NewCall, Place, Timer, contact_of};
use crate::record::{CallNumber, Entry, Release};
use crate::scenario::words::caller_of;
use crate::time::Us;

impl Core {
    /// A frame on the command stream.
    pub(crate) fn commands(&mut self, now: Us, node: usize, frame: cti::CommandsResponse) {
        if let Some(welcome) = &frame.welcome {
            self.welcomed(now, node, StreamKind::Commands, welcome);
        }
        for command in frame.commands {
            self.command(now, node, command);
        }
    }

    fn command(&mut self, now: Us, node: usize, command: cti::Command) {
        use cti::command::Body;
        let number = command
            .call
            .as_ref()
            .and_then(call_number)
            .unwrap_or_default();
        let correlator = command.correlator_data.clone();
        let (kind, done) = match command.body {
            // Its result comes when somebody answered or nobody did.
            Some(Body::MakeCall(make_call)) => {
                self.dial(now, node, command.invoke_id, make_call, correlator);
                return;
            }
            Some(Body::SetAgentState(set)) => ("set agent state", self.set_agent_state(now, &set)),
            Some(body) => {
                let Some(call) = self.calls.get_mut(&number) else {
                    self.result(
                        now,
                        node,
                        command.invoke_id,
                        "call command",
                        number,
                        Err(cti::CommandError::InvalidCall),
                        correlator,
                    );
                    return;
                };
                if !correlator.is_empty() {
                    call.contact = contact_of(&correlator);
                    call.correlator = correlator.clone();
                }
                match body {
                    Body::Deflect(deflect) => ("deflect", self.deflect(now, number, deflect)),
                    Body::Transfer(transfer) => ("transfer", self.transfer(now, number, transfer)),
                    Body::Clear(clear) => {
                        let cause = clear.cause();
                        ("clear", self.clear_by_mesh(now, number, cause))
                    }
                    Body::AnnounceBooking(booking) => (
                        "announce booking",
                        self.announce_booking(now, number, booking),
                    ),
                    Body::AnnounceWait(_) => ("announce wait", Ok(())),
                    Body::MakeCall(_) | Body::SetAgentState(_) => {
                        ("", Err(cti::CommandError::NotSupported))
                    }
                }
            }
            None => ("unknown", Err(cti::CommandError::NotSupported)),
        };
        self.result(now, node, command.invoke_id, kind, number, done, correlator);
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "a result repeats what the command carried"
    )]
    fn result(
        &mut self,
        now: Us,
        node: usize,
        invoke_id: u64,
        kind: &str,
        call: CallNumber,
        done: Result<(), cti::CommandError>,
        correlator_data: bytes::Bytes,
    ) {
        let error = done.err().unwrap_or(cti::CommandError::Unspecified);
        if done.is_err() {
            self.note(
                now,
                Entry::CommandFailed {
                    kind: kind.to_owned(),
                    call,
                    error: error.into(),
                },
            );
        }
        self.nodes[node].results_out.push(cti::CommandResult {
            invoke_id,
            error: error.into(),
            call: None,
            dial_outcome: cti::DialOutcome::Unspecified.into(),
            correlator_data,
        });
    }

    fn set_agent_state(
        &mut self,
        now: Us,
        set: &cti::SetAgentState,
    ) -> Result<(), cti::CommandError> {
        let phone = self
            .phone_by_agent
            .get(&set.agent_id)
            .copied()
            .ok_or(cti::CommandError::InvalidDestination)?;
        let state = set.state();
        if self.phones[phone].state == cti::AgentState::Null {
            return Err(cti::CommandError::InvalidState);
        }
        self.set_state(now, phone, state, &set.reason);
        self.happenings.push(Happening::AgentSet { phone, state });
        Ok(())
    }

    fn deflect(
        &mut self,
        now: Us,
        number: CallNumber,
        deflect: cti::DeflectCall,
    ) -> Result<(), cti::CommandError> {
        use cti::deflect_call::Treatment;
        let Some(call) = self.calls.get_mut(&number) else {
            return Err(cti::CommandError::InvalidCall);
        };
        let rings_at = match call.place {
            Place::Queued(_) => None,
            Place::Alerting(phone) => Some(phone),
            Place::Connected(phone) => {
                // A repeat of the command that connected it.
                let same = matches!(&deflect.treatment, Some(Treatment::Agent(agent)) if agent.agent_id == self.phones[phone].agent);
                return if same {
                    Ok(())
                } else {
                    Err(cti::CommandError::InvalidState)
                };
            }
            Place::Asking | Place::Announcement | Place::Default => {
                return Err(cti::CommandError::InvalidState);
            }
        };
        if call.leaving {
            return Err(cti::CommandError::InvalidState);
        }
        match deflect.treatment {
            Some(Treatment::Agent(agent)) => {
                if rings_at.is_some_and(|phone| self.phones[phone].agent == agent.agent_id) {
                    return Ok(());
                }
                self.stop_ringing(now, number, rings_at);
                self.leave_line(number);
                if self.alert(now, number, &agent.agent_id).is_ok() {
                    return Ok(());
                }
                // Where it was: the mesh hears of the failure and moves it.
                self.back_in_line(number);
                Err(cti::CommandError::InvalidDestination)
            }
            Some(Treatment::Queue(queue)) => {
                self.stop_ringing(now, number, rings_at);
                self.leave_line(number);
                self.queue(now, number, queue);
                Ok(())
            }
            Some(Treatment::Message(_)) => {
                self.stop_ringing(now, number, rings_at);
                self.leave_line(number);
                self.announce(now, number);
                Ok(())
            }
            None => Err(cti::CommandError::NotSupported),
        }
    }

    fn stop_ringing(&mut self, now: Us, number: CallNumber, phone: Option<usize>) {
        if let Some(phone) = phone {
            self.release(now, number, phone, Release::MovedWhileRinging);
            self.back_in_line(number);
        }
    }

    fn back_in_line(&mut self, number: CallNumber) {
        if let Some(call) = self.calls.get_mut(&number) {
            call.place = Place::Queued(String::new());
            self.counts.waiting += 1;
        }
    }

    fn transfer(
        &mut self,
        now: Us,
        number: CallNumber,
        transfer: cti::SingleStepTransfer,
    ) -> Result<(), cti::CommandError> {
        use cti::single_step_transfer::Treatment;
        let Some(call) = self.calls.get(&number) else {
            return Err(cti::CommandError::InvalidCall);
        };
        let first = match call.place {
            Place::Connected(phone) => phone,
            // On its way already (the first agent may still be on the line): moved on.
            Place::Queued(_) | Place::Alerting(_) => {
                use cti::deflect_call::Treatment as Deflect;
                let treatment = transfer.treatment.map(|treatment| match treatment {
                    Treatment::Agent(agent) => Deflect::Agent(agent),
                    Treatment::Queue(queue) => Deflect::Queue(queue),
                });
                return self.deflect(
                    now,
                    number,
                    cti::DeflectCall {
                        new_destination: transfer.transferred_to,
                        treatment,
                    },
                );
            }
            Place::Asking | Place::Announcement | Place::Default => {
                return Err(cti::CommandError::InvalidState);
            }
        };
        match transfer.treatment {
            Some(Treatment::Agent(agent)) => {
                if self.alert(now, number, &agent.agent_id).is_err() {
                    return Err(cti::CommandError::InvalidDestination);
                }
            }
            Some(Treatment::Queue(queue)) => self.queue(now, number, queue),
            None => return Err(cti::CommandError::NotSupported),
        }
        if transfer.warm {
            if let Some(call) = self.calls.get_mut(&number) {
                call.warm = Some(first);
            }
        } else {
            self.release(now, number, first, Release::Transferred);
            self.set_state(now, first, cti::AgentState::WorkingAfterCall, "");
        }
        Ok(())
    }

    fn clear_by_mesh(
        &mut self,
        now: Us,
        number: CallNumber,
        cause: cti::Cause,
    ) -> Result<(), cti::CommandError> {
        let Some(call) = self.calls.get(&number) else {
            return Err(cti::CommandError::InvalidCall);
        };
        match call.place {
            Place::Connected(phone) => {
                self.agent_ends(now, phone, None);
                return Ok(());
            }
            Place::Alerting(phone) => self.release(now, number, phone, Release::CallerGone),
            _ => {}
        }
        self.clear(now, number, cause, String::new());
        Ok(())
    }

    fn announce_booking(
        &mut self,
        now: Us,
        number: CallNumber,
        booking: cti::AnnounceBooking,
    ) -> Result<(), cti::CommandError> {
        let Some(call) = self.calls.get_mut(&number) else {
            return Err(cti::CommandError::InvalidCall);
        };
        let contact = call.contact.clone();
        if booking.failed {
            self.note(
                now,
                Entry::BookingFailed {
                    call: number,
                    contact,
                },
            );
            self.happenings
                .push(Happening::BookingFailed { call: number });
            return Ok(());
        }
        if call.leaving {
            return Ok(());
        }
        if !matches!(call.place, Place::Queued(_)) {
            return Err(cti::CommandError::InvalidState);
        }
        call.leaving = true;
        let caller = call.new.caller;
        self.counts.booked += 1;
        let window = booking
            .window
            .map(|window| (window.from_ms, window.until_ms));
        self.note(
            now,
            Entry::Booked {
                call: number,
                contact: contact.clone(),
                caller,
                code: booking.code.clone(),
                window,
            },
        );
        self.happenings.push(Happening::Booked {
            call: number,
            contact,
            code: booking.code,
        });
        let at = now + self.config.announcement;
        self.timer(at, Timer::Announcement(number));
        Ok(())
    }

    fn dial(
        &mut self,
        now: Us,
        node: usize,
        invoke_id: u64,
        make_call: cti::MakeCall,
        correlator: bytes::Bytes,
    ) {
        let number = make_call
            .called_device
            .map(|device| device.id)
            .unwrap_or_default();
        let dial = self.next_dial;
        self.next_dial += 1;
        self.counts.dials += 1;
        let contact = contact_of(&correlator);
        self.note(
            now,
            Entry::Dial {
                dial,
                contact: contact.clone(),
                caller: caller_of(&number),
            },
        );
        let shown = make_call
            .calling_device
            .map(|device| device.id)
            .unwrap_or_default();
        let line = self
            .config
            .callback_lines
            .get(&shown)
            .cloned()
            .unwrap_or(shown);
        let connection = self.nodes[node].commands_connection;
        self.dials.insert(
            dial,
            Dial {
                node,
                connection,
                invoke_id,
                correlator,
                contact,
                line,
                language: make_call.language,
            },
        );
        self.happenings.push(Happening::Dial {
            dial,
            number,
            ring_ms: make_call.ring_ms,
        });
    }

    /// What became of a dial. A person who answers is a call that asks the mesh who takes it.
    pub(crate) fn dial_ends(
        &mut self,
        now: Us,
        dial: u64,
        outcome: cti::DialOutcome,
        caller: u32,
        topic: String,
    ) -> Option<CallNumber> {
        let made = self.dials.remove(&dial)?;
        let answered = outcome == cti::DialOutcome::Answered;
        let number = answered.then_some(self.next_call);
        self.note(
            now,
            Entry::DialEnded {
                dial,
                contact: made.contact,
                outcome: outcome.into(),
                call: number,
            },
        );
        let call = number.map(|number| call_ref(self.config.boot_id, number));
        let link = &mut self.nodes[made.node];
        // The link that the command came on may be gone: then the mesh learns from the call.
        if link.streams[StreamKind::Commands as usize].up
            && link.commands_connection == made.connection
        {
            link.results_out.push(cti::CommandResult {
                invoke_id: made.invoke_id,
                error: cti::CommandError::Unspecified.into(),
                call,
                dial_outcome: outcome.into(),
                correlator_data: made.correlator.clone(),
            });
        }
        if !answered {
            return None;
        }
        let new = NewCall {
            caller,
            intended: now,
            leg: crate::record::Leg::Callback,
            line: made.line,
            number: Some(crate::scenario::words::number_of(caller)),
            language: made.language,
            utterance: String::new(),
            digits: String::new(),
            authenticated: false,
            correlator: made.correlator,
            topic,
        };
        Some(self.call_arrives(now, new))
    }
}
