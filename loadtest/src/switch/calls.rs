//! A call after its dialogue: in line, ringing, talking, over.

use proto::cti::v1 as cti;

use super::dialogue::{call_ref, cross_ref};
use super::{Core, Happening, Place, Timer, ms};
use crate::record::{CallNumber, Entry, Release};
use crate::time::Us;

impl Core {
    /// The call goes to a queue's device.
    pub(super) fn queue(&mut self, now: Us, number: CallNumber, treatment: cti::QueueTreatment) {
        let Some(call) = self.calls.get_mut(&number) else {
            return;
        };
        call.place = Place::Queued(treatment.queue.clone());
        let contact = call.contact.clone();
        self.counts.waiting += 1;
        self.note(
            now,
            Entry::Queued {
                call: number,
                contact,
                queue: treatment.queue.clone(),
            },
        );
        self.event(
            now,
            number,
            cti::switch_event::Body::Queued(cti::Queued {
                queue: treatment.queue,
            }),
        );
        self.happenings.push(Happening::Queued {
            call: number,
            offers: treatment.offers,
        });
    }

    /// The call rings at an agent.
    ///
    /// # Errors
    /// Why it does not: the phone is out of order, taken, or takes no calls.
    pub(super) fn alert(
        &mut self,
        now: Us,
        number: CallNumber,
        agent: &str,
    ) -> Result<(), cti::Cause> {
        let Some(phone_index) = self.phone_by_agent.get(agent).copied() else {
            return Err(cti::Cause::DestNotObtainable);
        };
        let phone = &mut self.phones[phone_index];
        if let Some(holds) = phone.call.filter(|holds| *holds != number) {
            let since = phone.since;
            let contact = self
                .calls
                .get(&number)
                .map(|call| call.contact.clone())
                .unwrap_or_default();
            self.note(
                now,
                Entry::AgentBusy {
                    call: number,
                    contact,
                    agent: agent.to_owned(),
                    holds,
                    since,
                },
            );
            return Err(cti::Cause::Busy);
        }
        if std::mem::take(&mut phone.out_of_order) {
            return Err(cti::Cause::DestOutOfOrder);
        }
        if phone.state != cti::AgentState::Ready {
            return Err(cti::Cause::DestNotObtainable);
        }
        let Some(call) = self.calls.get_mut(&number) else {
            return Err(cti::Cause::CallCancelled);
        };
        phone.call = Some(number);
        phone.since = now;
        call.place = Place::Alerting(phone_index);
        call.rings += 1;
        let (ring, contact) = (call.rings, call.contact.clone());
        self.note(
            now,
            Entry::Rings {
                call: number,
                contact,
                agent: agent.to_owned(),
            },
        );
        self.event(
            now,
            number,
            cti::switch_event::Body::Delivered(cti::Delivered {
                agent_id: agent.to_owned(),
            }),
        );
        self.happenings.push(Happening::Rings {
            call: number,
            phone: phone_index,
        });
        let at = now + self.config.ring_max;
        self.timer(at, Timer::Ring(number, ring));
        Ok(())
    }

    /// The call leaves the line, if it is in one.
    pub(super) fn leave_line(&mut self, number: CallNumber) {
        if self
            .calls
            .get(&number)
            .is_some_and(|call| matches!(call.place, Place::Queued(_)))
        {
            self.counts.waiting = self.counts.waiting.saturating_sub(1);
        }
    }

    pub(super) fn ring_time_over(&mut self, now: Us, number: CallNumber, ring: u32) {
        let Some(call) = self.calls.get_mut(&number) else {
            return;
        };
        let Place::Alerting(phone) = call.place else {
            return;
        };
        if call.rings != ring {
            return;
        }
        // It waits where it came from until the mesh moves it.
        call.place = Place::Queued(String::new());
        self.counts.waiting += 1;
        self.release(now, number, phone, Release::NotAnswered);
        let agent_id = self.phones[phone].agent.clone();
        let failed = cti::Failed {
            agent_id,
            cause: cti::Cause::CallNotAnswered.into(),
        };
        self.event(now, number, cti::switch_event::Body::Failed(failed));
    }

    /// The agent's part in the call is over.
    pub(super) fn release(
        &mut self,
        now: Us,
        number: CallNumber,
        phone_index: usize,
        why: Release,
    ) {
        let phone = &mut self.phones[phone_index];
        phone.call = None;
        phone.since = now;
        let agent = phone.agent.clone();
        let contact = self
            .calls
            .get(&number)
            .map(|call| call.contact.clone())
            .unwrap_or_default();
        let talked = matches!(why, Release::Ended | Release::Transferred);
        if talked {
            let reference = call_ref(self.config.boot_id, number);
            let correlator = self
                .calls
                .get(&number)
                .map(|call| call.correlator.clone())
                .unwrap_or_default();
            self.phones[phone_index].last = Some((reference, correlator));
        }
        self.note(
            now,
            Entry::Released {
                call: number,
                contact,
                agent,
                why,
            },
        );
        self.happenings.push(Happening::Released {
            call: number,
            phone: phone_index,
            why,
        });
    }

    /// The agent picks up.
    pub(crate) fn agent_answers(&mut self, now: Us, phone_index: usize) {
        let Some(number) = self.phones[phone_index].call else {
            return;
        };
        let agent = self.phones[phone_index].agent.clone();
        let Some(call) = self.calls.get_mut(&number) else {
            return;
        };
        if call.place != Place::Alerting(phone_index) {
            return;
        }
        call.place = Place::Connected(phone_index);
        let (warm, contact) = (call.warm.take(), call.contact.clone());
        self.phones[phone_index].since = now;
        self.counts.established += 1;
        self.note(
            now,
            Entry::Established {
                call: number,
                contact,
                agent: agent.clone(),
            },
        );
        self.event(
            now,
            number,
            cti::switch_event::Body::Established(cti::Established { agent_id: agent }),
        );
        self.happenings.push(Happening::Connected {
            call: number,
            phone: phone_index,
        });
        if let Some(first) = warm {
            self.release(now, number, first, Release::Transferred);
            self.set_state(now, first, cti::AgentState::WorkingAfterCall, "");
        }
    }

    /// The conversation ends: the agent goes on to the wrap-up.
    pub(crate) fn agent_ends(
        &mut self,
        now: Us,
        phone_index: usize,
        survey: Option<cti::SurveyAnswered>,
    ) {
        let Some(number) = self.phones[phone_index].call else {
            return;
        };
        if self
            .calls
            .get(&number)
            .is_none_or(|call| call.place != Place::Connected(phone_index))
        {
            return;
        }
        if let Some(survey) = survey {
            self.event(now, number, cti::switch_event::Body::Survey(survey));
        }
        self.release(now, number, phone_index, Release::Ended);
        let agent_id = self.phones[phone_index].agent.clone();
        self.clear(now, number, cti::Cause::NormalClearing, agent_id);
        self.set_state(now, phone_index, cti::AgentState::WorkingAfterCall, "");
    }

    /// The caller hangs up.
    pub(crate) fn caller_hangs_up(&mut self, now: Us, number: CallNumber) {
        let Some(call) = self.calls.get(&number) else {
            return;
        };
        let mut agent_id = String::new();
        match call.place {
            Place::Asking => self.give_up_asking(now, number),
            Place::Connected(phone) => {
                self.agent_ends(now, phone, None);
                return;
            }
            Place::Alerting(phone) => {
                agent_id.clone_from(&self.phones[phone].agent);
                self.release(now, number, phone, Release::CallerGone);
            }
            Place::Queued(_) | Place::Announcement | Place::Default => {}
        }
        self.counts.gave_up += 1;
        self.clear(now, number, cti::Cause::CallCancelled, agent_id);
    }

    /// The caller hears an announcement; then the call is cleared.
    pub(super) fn announce(&mut self, now: Us, number: CallNumber) {
        let Some(call) = self.calls.get_mut(&number) else {
            return;
        };
        call.place = Place::Announcement;
        self.counts.messages += 1;
        self.happenings.push(Happening::Message { call: number });
        let at = now + self.config.announcement;
        self.timer(at, Timer::Announcement(number));
    }

    pub(super) fn announcement_over(&mut self, now: Us, number: CallNumber) {
        let Some(call) = self.calls.get(&number) else {
            return;
        };
        let over = matches!(call.place, Place::Announcement | Place::Default) || call.leaving;
        if over {
            self.clear(now, number, cti::Cause::NormalClearing, String::new());
        }
    }

    /// The call is over: its one `CallCleared`.
    pub(super) fn clear(
        &mut self,
        now: Us,
        number: CallNumber,
        cause: cti::Cause,
        agent_id: String,
    ) {
        self.leave_line(number);
        if let Some(first) = self
            .calls
            .get_mut(&number)
            .and_then(|call| call.warm.take())
        {
            self.release(now, number, first, Release::Transferred);
            self.set_state(now, first, cti::AgentState::WorkingAfterCall, "");
        }
        let Some(call) = self.calls.get(&number) else {
            return;
        };
        let waited = !matches!(call.place, Place::Connected(_));
        let cleared = cti::CallCleared {
            cause: cause.into(),
            agent_id,
            current_route: Some(cti::Device {
                id: call.new.line.clone(),
            }),
            calling_device: call.new.number.clone().map(|id| cti::Device { id }),
            cross_ref_id: cross_ref(number, 1),
            arrived_ago_ms: ms(now.saturating_sub(call.arrived)),
            routed_by: call.routed_by.into(),
            language: call.new.language.clone(),
            channel: cti::Channel::Voice.into(),
        };
        let entry = Entry::Cleared {
            call: number,
            contact: call.contact.clone(),
            cause: cause.into(),
            routed_by: call.routed_by.into(),
            waited,
        };
        self.note(now, entry);
        self.event(now, number, cti::switch_event::Body::Cleared(cleared));
        self.calls.remove(&number);
        self.happenings.push(Happening::Ended { call: number });
    }

    /// The caller chooses among what was offered; `None`: holds on.
    pub(crate) fn caller_chooses(
        &mut self,
        now: Us,
        number: CallNumber,
        offer: Option<&cti::Offer>,
        callback_number: Option<String>,
    ) {
        let Some(call) = self.calls.get(&number) else {
            return;
        };
        if !matches!(call.place, Place::Queued(_)) {
            return;
        }
        let window = offer.and_then(|offer| match &offer.kind {
            Some(cti::offer::Kind::Window(window)) => Some(*window),
            _ => None,
        });
        let answered = cti::OfferAnswered {
            offer_id: offer.map_or(0, |offer| offer.offer_id),
            callback_device: offer.and(callback_number).map(|id| cti::Device { id }),
            window,
            time_zone: String::new(),
        };
        self.event(
            now,
            number,
            cti::switch_event::Body::OfferAnswered(answered),
        );
    }

    /// The caller says a booking's code and cancels it.
    pub(crate) fn caller_cancels(&mut self, now: Us, number: CallNumber, code: String) {
        if let Some(call) = self.calls.get(&number) {
            let calling_device = call.new.number.clone().map(|id| cti::Device { id });
            self.note(
                now,
                Entry::CancelAsked {
                    call: number,
                    code: code.clone(),
                },
            );
            self.event(
                now,
                number,
                cti::switch_event::Body::CallbackCancelled(cti::CallbackCancelled {
                    code,
                    calling_device,
                }),
            );
        }
    }

    /// The agent asks for a transfer.
    pub(crate) fn agent_asks_transfer(
        &mut self,
        now: Us,
        phone: usize,
        topic: String,
        warm: bool,
        authenticated: bool,
    ) {
        let Some(number) = self.phones[phone].call else {
            return;
        };
        let from_agent_id = self.phones[phone].agent.clone();
        let asked = cti::TransferRequested {
            from_agent_id,
            topic,
            warm,
            authenticated,
        };
        self.event(
            now,
            number,
            cti::switch_event::Body::TransferRequested(asked),
        );
    }

    fn event(&mut self, now: Us, number: CallNumber, body: cti::switch_event::Body) {
        let Some(call) = self.calls.get(&number) else {
            return;
        };
        let reference = call_ref(self.config.boot_id, number);
        self.outbox
            .push(now, Some(reference), call.correlator.clone(), body);
    }
}
