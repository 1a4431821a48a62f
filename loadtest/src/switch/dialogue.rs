//! Routeing dialogues: ask, take the answer, or decide without the mesh.

use proto::cti::v1 as cti;

use super::links::StreamKind;
use super::{Call, Core, Dialogue, Happening, NewCall, Place, Question, Timer, contact_of, ms};
use crate::record::{AnswerKind, CallNumber, DefaultWhy, Entry};
use crate::time::Us;

impl Core {
    /// A call reaches the switch: who takes it?
    pub(crate) fn call_arrives(&mut self, now: Us, new: NewCall) -> CallNumber {
        let number = self.next_call;
        self.next_call += 1;
        self.counts.calls += 1;
        let contact = contact_of(&new.correlator);
        self.note(
            now,
            Entry::Call {
                call: number,
                caller: new.caller,
                leg: new.leg,
                intended: new.intended,
                contact: contact.clone(),
                topic: new.topic.clone(),
                language: new.language.clone(),
            },
        );
        let call = Call {
            arrived: now,
            correlator: new.correlator.clone(),
            contact,
            place: Place::Asking,
            routed_by: cti::RoutedBy::Unspecified,
            dialogue: None,
            dialogues: 0,
            answered: None,
            rings: 0,
            warm: None,
            leaving: false,
            new,
        };
        let intended = call.new.intended;
        self.calls.insert(number, call);
        self.open_dialogue(now, number, intended);
        number
    }

    fn open_dialogue(&mut self, now: Us, number: CallNumber, intended: Us) {
        let deadline = now + self.config.reply_timeout;
        let Some(call) = self.calls.get_mut(&number) else {
            return;
        };
        call.dialogues += 1;
        let dialogue = Dialogue {
            number: call.dialogues,
            round: 0,
            node: None,
            deadline,
            intended,
            link_lost: false,
            failed: None,
        };
        let question = Question {
            call: number,
            dialogue: dialogue.number,
            round: 0,
        };
        call.dialogue = Some(dialogue);
        call.place = Place::Asking;
        self.timer(deadline, Timer::Reply(question));
        self.ask(now, question);
    }

    /// The open dialogue that a question is about.
    fn open(&mut self, question: Question) -> Option<&mut Dialogue> {
        let dialogue = self.calls.get_mut(&question.call)?.dialogue.as_mut()?;
        (dialogue.number == question.dialogue && dialogue.round == question.round)
            .then_some(dialogue)
    }

    /// Sends the question to the node for it, or leaves it to wait for credit.
    fn ask(&mut self, now: Us, question: Question) {
        if self.send_question(now, question) {
            return;
        }
        let half = self.config.reply_timeout / 2;
        let Some(dialogue) = self.open(question) else {
            return;
        };
        dialogue.node = None;
        let until = dialogue.deadline - half;
        self.without_credit.push_back(question);
        self.timer(until.max(now), Timer::Credit(question));
    }

    fn send_question(&mut self, now: Us, question: Question) -> bool {
        let Some(node) = self.choose(now, question.call) else {
            return false;
        };
        let timeout = self.config.reply_timeout;
        let Some(call) = self.calls.get_mut(&question.call) else {
            return true;
        };
        let Some(dialogue) = call.dialogue.as_mut() else {
            return true;
        };
        dialogue.node = Some(node);
        let asked_at = dialogue.deadline - timeout;
        let message = cti::RouteRequest {
            cross_ref_id: cross_ref(question.call, question.dialogue),
            call: Some(call_ref(self.config.boot_id, question.call)),
            current_route: Some(cti::Device {
                id: call.new.line.clone(),
            }),
            calling_device: call.new.number.clone().map(|id| cti::Device { id }),
            reply_timeout_ms: ms(timeout) as u32,
            age_ms: ms(now.saturating_sub(asked_at)) as u32,
            language: call.new.language.clone(),
            utterance: call.new.utterance.clone(),
            digits: call.new.digits.clone(),
            channel: cti::Channel::Voice.into(),
            correlator_data: call.correlator.clone(),
            traceparent: String::new(),
            authenticated: call.new.authenticated,
            private_data: Default::default(),
        };
        let link = &mut self.nodes[node];
        link.credit = link.credit.saturating_sub(1);
        link.dialogue_out
            .push(switch_message(cti::switch_dialogue_message::Body::Request(
                message,
            )));
        self.note(
            now,
            Entry::Request {
                call: question.call,
                dialogue: question.dialogue,
                round: question.round,
                node: node as u32,
            },
        );
        true
    }

    /// Credit or a link came: asks those who wait, oldest first.
    pub(super) fn ask_those_without_credit(&mut self, now: Us) {
        while let Some(question) = self.without_credit.front().copied() {
            if self
                .open(question)
                .is_none_or(|dialogue| dialogue.node.is_some())
            {
                self.without_credit.pop_front();
                continue;
            }
            if !self.send_question(now, question) {
                return;
            }
            self.without_credit.pop_front();
        }
    }

    /// The link to a node is lost: its questions go to the next node, if there is time.
    pub(super) fn ask_again_elsewhere(&mut self, now: Us, node: usize) {
        let mut asked: Vec<Question> = self
            .calls
            .iter()
            .filter_map(|(number, call)| {
                let dialogue = call
                    .dialogue
                    .as_ref()
                    .filter(|dialogue| dialogue.node == Some(node))?;
                Some(Question {
                    call: *number,
                    dialogue: dialogue.number,
                    round: dialogue.round,
                })
            })
            .collect();
        asked.sort_unstable();
        for question in asked {
            let Some(dialogue) = self.open(question) else {
                continue;
            };
            dialogue.link_lost = true;
            dialogue.node = None;
            // A node that has not seen the first question knows nothing of a reroute: there
            // it is a new request of the same contact. The open timer goes on.
            dialogue.failed = None;
            self.ask(now, question);
        }
    }

    /// The destination failed: another, on the same dialogue and node.
    fn ask_for_another(&mut self, now: Us, node: usize, question: Question, cause: cti::Cause) {
        let deadline = now + self.config.reply_timeout;
        let timeout = self.config.reply_timeout;
        let Some(call) = self.calls.get_mut(&question.call) else {
            return;
        };
        call.place = Place::Asking;
        let again = Question {
            round: question.round + 1,
            ..question
        };
        call.dialogue = Some(Dialogue {
            number: again.dialogue,
            round: again.round,
            node: Some(node),
            deadline,
            intended: now,
            link_lost: false,
            failed: Some(cause),
        });
        let message = cti::ReRoute {
            cross_ref_id: cross_ref(question.call, question.dialogue),
            cause: cause.into(),
            reply_timeout_ms: ms(timeout) as u32,
            age_ms: 0,
            correlator_data: call.correlator.clone(),
        };
        self.nodes[node].dialogue_out.push(switch_message(
            cti::switch_dialogue_message::Body::Reroute(message),
        ));
        self.note(
            now,
            Entry::Request {
                call: again.call,
                dialogue: again.dialogue,
                round: again.round,
                node: node as u32,
            },
        );
        self.timer(deadline, Timer::Reply(again));
    }

    pub(super) fn reply_time_over(&mut self, now: Us, question: Question) {
        let Some(dialogue) = self.open(question) else {
            return;
        };
        let (node, link_lost) = (dialogue.node, dialogue.link_lost);
        if let Some(node) = node {
            self.timed_out_on(now, node);
        }
        let why = if node.is_some() || link_lost {
            DefaultWhy::Timer
        } else {
            DefaultWhy::NoLink
        };
        self.take_default(
            now,
            question,
            node,
            why,
            cti::RouteEndError::RouteingTimerExpired,
        );
    }

    pub(super) fn credit_time_over(&mut self, now: Us, question: Question) {
        if self
            .open(question)
            .is_none_or(|dialogue| dialogue.node.is_some())
        {
            return;
        }
        self.take_default(
            now,
            question,
            None,
            DefaultWhy::NoLink,
            cti::RouteEndError::OutstandingRequestLimitExceeded,
        );
    }

    /// The default route: decided here, needs no network.
    fn take_default(
        &mut self,
        now: Us,
        question: Question,
        tell: Option<usize>,
        why: DefaultWhy,
        error: cti::RouteEndError,
    ) {
        let slow_us = self.slow;
        let Some(call) = self.calls.get_mut(&question.call) else {
            return;
        };
        let Some(dialogue) = call.dialogue.take() else {
            return;
        };
        let correlator_data = call.correlator.clone();
        call.place = Place::Default;
        (
            call.routed_by,
            *match why {
                DefaultWhy::Timer => &mut self.counts.default_timer,
                DefaultWhy::Mesh => &mut self.counts.default_mesh,
                DefaultWhy::NoLink => &mut self.counts.default_no_link,
            },
        ) = match why {
            DefaultWhy::Timer => (cti::RoutedBy::DefaultTimer, self.counts.default_timer + 1),
            DefaultWhy::Mesh => (cti::RoutedBy::DefaultMesh, self.counts.default_mesh + 1),
            DefaultWhy::NoLink => (
                cti::RoutedBy::DefaultNoLink,
                self.counts.default_no_link + 1,
            ),
        };
        let link_up = tell.is_some() && !dialogue.link_lost;
        if let Some(node) = tell {
            self.end_dialogue(node, question, error, correlator_data);
        }
        self.note(
            now,
            Entry::Default {
                call: question.call,
                dialogue: question.dialogue,
                round: question.round,
                why,
                link_up,
                slow_us,
            },
        );
        self.happenings.push(Happening::Defaulted {
            call: question.call,
        });
        let at = now + self.config.announcement;
        self.timer(at, Timer::Announcement(question.call));
    }

    fn end_dialogue(
        &mut self,
        node: usize,
        question: Question,
        error: cti::RouteEndError,
        correlator_data: bytes::Bytes,
    ) {
        if !self.nodes[node].streams[StreamKind::Dialogues as usize].up {
            return;
        }
        let end = cti::RouteEnd {
            cross_ref_id: cross_ref(question.call, question.dialogue),
            error: error.into(),
            correlator_data,
        };
        self.nodes[node]
            .dialogue_out
            .push(switch_message(cti::switch_dialogue_message::Body::End(end)));
    }

    /// The caller gave up while the mesh was asked.
    pub(super) fn give_up_asking(&mut self, now: Us, number: CallNumber) {
        let Some(call) = self.calls.get_mut(&number) else {
            return;
        };
        let Some(dialogue) = call.dialogue.take() else {
            return;
        };
        let correlator = call.correlator.clone();
        let question = Question {
            call: number,
            dialogue: dialogue.number,
            round: dialogue.round,
        };
        if let Some(node) = dialogue.node {
            self.end_dialogue(
                node,
                question,
                cti::RouteEndError::CallCancelled,
                correlator,
            );
        }
        self.note(
            now,
            Entry::GaveUpAsking {
                call: number,
                dialogue: dialogue.number,
                round: dialogue.round,
            },
        );
    }

    /// The question that an answer is about, if it is still open; else the answer is
    /// recorded as late, or as the second one of a question that two nodes were asked.
    fn open_question(
        &mut self,
        now: Us,
        node: usize,
        reference: &str,
        kind: AnswerKind,
        route: &str,
    ) -> Option<(Question, Us)> {
        let (number, dialogue) = parse_cross_ref(reference)?;
        let call = self.calls.get(&number);
        let open = call
            .and_then(|call| call.dialogue.as_ref())
            .filter(|open| open.number == dialogue && open.node.is_some());
        if let Some(open) = open {
            return Some((
                Question {
                    call: number,
                    dialogue,
                    round: open.round,
                },
                open.intended,
            ));
        }
        let question = Question {
            call: number,
            dialogue,
            round: 0,
        };
        let answered = call
            .and_then(|call| call.answered.as_ref())
            .filter(|answered| answered.0 == dialogue);
        let correlator = call.map(|call| call.correlator.clone()).unwrap_or_default();
        match answered {
            Some((_, _, taken)) => {
                let same = taken == route;
                self.note(
                    now,
                    Entry::SecondAnswer {
                        call: number,
                        dialogue,
                        same,
                    },
                );
                // Closed without an error: the answer taken is the same contact's.
                self.end_dialogue(node, question, cti::RouteEndError::Unspecified, correlator);
            }
            None => {
                self.counts.late += 1;
                self.note(
                    now,
                    Entry::Late {
                        call: number,
                        dialogue,
                        kind,
                    },
                );
                if kind != AnswerKind::End {
                    self.end_dialogue(
                        node,
                        question,
                        cti::RouteEndError::InvalidCrossRefId,
                        correlator,
                    );
                }
            }
        }
        None
    }

    /// The mesh says where the call goes.
    pub(super) fn selected(&mut self, now: Us, node: usize, select: cti::RouteSelect) {
        use cti::route_select::Treatment;
        let route = select
            .route_selected
            .map(|device| device.id)
            .unwrap_or_default();
        let kind = match &select.treatment {
            Some(Treatment::Agent(_)) => AnswerKind::Agent,
            Some(Treatment::Message(message))
                if message.reason() == cti::MessageReason::Overload =>
            {
                AnswerKind::Overload
            }
            Some(Treatment::Message(_)) => AnswerKind::Message,
            Some(Treatment::Queue(_)) | None => AnswerKind::Queue,
        };
        let Some((question, intended)) =
            self.open_question(now, node, &select.cross_ref_id, kind, &route)
        else {
            return;
        };
        self.nodes[node].timeouts = 0;
        self.counts.answers += 1;
        let Some(call) = self.calls.get_mut(&question.call) else {
            return;
        };
        call.dialogue = None;
        call.routed_by = cti::RoutedBy::Mesh;
        call.correlator = select.correlator_data;
        call.contact = contact_of(&call.correlator);
        call.answered = Some((question.dialogue, question.round, route.clone()));
        let (contact, correlator) = (call.contact.clone(), call.correlator.clone());
        let empty = cti::QueueTreatment::default();
        let (agent, queue) = match &select.treatment {
            Some(Treatment::Agent(agent)) => (agent.agent_id.clone(), &empty),
            Some(Treatment::Queue(queue)) => (String::new(), queue),
            _ => (String::new(), &empty),
        };
        self.note(
            now,
            Entry::Answer {
                call: question.call,
                dialogue: question.dialogue,
                round: question.round,
                node: node as u32,
                kind,
                error: 0,
                contact,
                us: now.saturating_sub(intended),
                agent,
                queue: queue.queue.clone(),
                expected_wait_ms: queue.expected_wait_ms,
                low_ms: queue.expected_wait_low_ms,
                high_ms: queue.expected_wait_high_ms,
                offers: queue.offers.len() as u32,
            },
        );
        let failed = match select.treatment {
            Some(Treatment::Agent(agent)) => self.alert(now, question.call, &agent.agent_id).err(),
            Some(Treatment::Message(_)) => {
                self.announce(now, question.call);
                None
            }
            Some(Treatment::Queue(queue)) => {
                self.queue(now, question.call, queue);
                None
            }
            None => {
                self.queue(
                    now,
                    question.call,
                    cti::QueueTreatment {
                        queue: route.clone(),
                        ..Default::default()
                    },
                );
                None
            }
        };
        if let Some(cause) = failed {
            self.ask_for_another(now, node, question, cause);
            return;
        }
        if select.route_used_requested {
            let used = cti::RouteUsed {
                cross_ref_id: select.cross_ref_id,
                route_used: Some(cti::Device { id: route }),
                correlator_data: correlator.clone(),
            };
            self.nodes[node].dialogue_out.push(switch_message(
                cti::switch_dialogue_message::Body::Used(used),
            ));
        }
        self.end_dialogue(node, question, cti::RouteEndError::Unspecified, correlator);
    }

    /// The mesh hands the call back to the network.
    pub(super) fn rejected(&mut self, now: Us, node: usize, reject: &cti::RouteReject) {
        let Some((question, intended)) =
            self.open_question(now, node, &reject.cross_ref_id, AnswerKind::Reject, "")
        else {
            return;
        };
        self.answer_without_route(now, node, question, intended, AnswerKind::Reject, 0);
        let Some(call) = self.calls.get_mut(&question.call) else {
            return;
        };
        call.dialogue = None;
        call.routed_by = cti::RoutedBy::Mesh;
        let correlator = call.correlator.clone();
        self.end_dialogue(node, question, cti::RouteEndError::Unspecified, correlator);
        self.announce(now, question.call);
    }

    /// The mesh has no answer: the default route, or the next node if this one only has too
    /// many requests (rule 6).
    pub(super) fn ended_by_mesh(&mut self, now: Us, node: usize, end: &cti::RouteEnd) {
        let Some((question, intended)) =
            self.open_question(now, node, &end.cross_ref_id, AnswerKind::End, "")
        else {
            return;
        };
        if end.error() == cti::RouteEndError::OutstandingRequestLimitExceeded {
            self.nodes[node].credit = 0;
            if let Some(dialogue) = self.open(question) {
                dialogue.node = None;
                self.ask(now, question);
            }
            return;
        }
        self.nodes[node].timeouts = 0;
        self.answer_without_route(now, node, question, intended, AnswerKind::End, end.error);
        if let Some(call) = self.calls.get_mut(&question.call)
            && !end.correlator_data.is_empty()
        {
            call.correlator = end.correlator_data.clone();
            call.contact = contact_of(&call.correlator);
        }
        self.take_default(
            now,
            question,
            None,
            DefaultWhy::Mesh,
            cti::RouteEndError::Unspecified,
        );
    }

    fn answer_without_route(
        &mut self,
        now: Us,
        node: usize,
        question: Question,
        intended: Us,
        kind: AnswerKind,
        error: i32,
    ) {
        self.note(
            now,
            Entry::Answer {
                call: question.call,
                dialogue: question.dialogue,
                round: question.round,
                node: node as u32,
                kind,
                error,
                contact: String::new(),
                us: now.saturating_sub(intended),
                agent: String::new(),
                queue: String::new(),
                expected_wait_ms: 0,
                low_ms: 0,
                high_ms: 0,
                offers: 0,
            },
        );
    }
}

const fn switch_message(body: cti::switch_dialogue_message::Body) -> cti::SwitchDialogueMessage {
    cti::SwitchDialogueMessage { body: Some(body) }
}

/// A dialogue's name: call and dialogue, so that it is never reused within the boot.
pub(super) fn cross_ref(call: CallNumber, dialogue: u32) -> String {
    format!("x{call}.{dialogue}")
}

fn parse_cross_ref(text: &str) -> Option<(CallNumber, u32)> {
    let (call, dialogue) = text.strip_prefix('x')?.split_once('.')?;
    Some((call.parse().ok()?, dialogue.parse().ok()?))
}

/// A call as the mesh knows it.
pub(super) fn call_ref(boot: u64, call: CallNumber) -> cti::CallRef {
    cti::CallRef {
        call_id: format!("c{call}"),
        sip_call_id: String::new(),
        global_call_id: format!(
            "{:08x}-0000-8000-8000-{:012x}",
            (boot >> 32) as u32 ^ boot as u32,
            call
        ),
    }
}

/// The call of a reference.
pub(super) fn call_number(reference: &cti::CallRef) -> Option<CallNumber> {
    reference.call_id.strip_prefix('c')?.parse().ok()
}
