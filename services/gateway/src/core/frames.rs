//! Frames of dialogues: each message alone, each fault told by name.

use std::time::Instant;

use domain::id::FieldError;
use proto::convert::cti as check;
use proto::cti::v1::{
    DialoguesRequest, RouteEnd, RouteEndError, SwitchDialogueMessage, SystemCondition,
    mesh_dialogue_message as mesh, switch_dialogue_message::Body,
};

use super::sessions::{Order, cut, refusal};
use super::{Core, LinkId, Malformed, Moment, Role};
use crate::metrics::{Answered, RefusedClass};

impl Core {
    /// One frame: each message alone.
    pub(super) fn dialogues_frame(
        &mut self,
        now: Moment,
        link: LinkId,
        received: Instant,
        frame: DialoguesRequest,
        malformed: &[Malformed],
    ) {
        let Some(Role::Dialogues(number)) = self.links.get(&link).copied() else {
            return;
        };
        let Some(session) = self.sessions.get_mut(&number) else {
            return;
        };
        session.last_heard = now.wall;
        let expected = session.in_seq + 1;
        match session.order(frame.link_seq) {
            Order::Next => {}
            Order::Repeated => {
                self.metrics.frames_dropped.inc();
                return;
            }
            Order::Irregular => {
                self.metrics.frames_out_of_order.inc();
                self.refuse_frame(number, "link_seq", &format!("{expected}"), frame.link_seq);
                self.send_status(number, SystemCondition::MessagesLost);
                self.ask_snapshot_of_session(number);
            }
        }
        if frame.hello.is_some() {
            self.refuse_frame(number, "hello", "first frame only", "present");
        }
        self.dialogue_messages(now, number, received, frame, malformed);
    }

    pub(super) fn dialogue_messages(
        &mut self,
        now: Moment,
        number: u64,
        received: Instant,
        frame: DialoguesRequest,
        malformed: &[Malformed],
    ) {
        for part in malformed {
            self.refuse_malformed(number, part);
        }
        let count = frame.messages.len();
        if count > check::DIALOGUE_MESSAGES_MAX {
            let limit = format!("1 to {}", check::DIALOGUE_MESSAGES_MAX);
            self.refuse_frame(number, "messages", &limit, count);
        }
        for (index, message) in frame.messages.into_iter().enumerate() {
            let within = index < check::DIALOGUE_MESSAGES_MAX;
            self.dialogue_message(now, number, received, message, within);
        }
    }

    pub(super) fn dialogue_message(
        &mut self,
        now: Moment,
        session: u64,
        received: Instant,
        message: SwitchDialogueMessage,
        within: bool,
    ) {
        match message.body {
            Some(Body::Request(request)) if !within => {
                self.metrics.route_requests.inc();
                self.end_unopened(
                    session,
                    &request.cross_ref_id,
                    RouteEndError::InvalidRequest,
                    Answered::Invalid,
                );
            }
            Some(Body::Reroute(reroute)) if !within => {
                self.metrics.reroutes.inc();
                self.end_unopened(
                    session,
                    &reroute.cross_ref_id,
                    RouteEndError::InvalidRequest,
                    Answered::Invalid,
                );
            }
            Some(Body::Request(request)) => self.route_request(now, session, received, request),
            Some(Body::Reroute(reroute)) => self.reroute(now, session, received, reroute),
            Some(Body::Used(used)) => {
                if let Err(fault) = check::cross_ref("used.cross_ref_id", &used.cross_ref_id) {
                    self.refuse(session, &used.cross_ref_id, &fault, RefusedClass::Dialogue);
                }
            }
            Some(Body::End(end)) => self.switch_ended(now, session, &end),
            Some(Body::Status(_)) => {}
            None => {
                let fault = FieldError::new(
                    "messages.body",
                    "a message that this version knows",
                    "absent or unknown",
                );
                self.refuse(session, "", &fault, RefusedClass::Frame);
            }
        }
    }

    pub(super) fn refuse_malformed(&mut self, session: u64, part: &Malformed) {
        let bytes = format!("{} bytes that cannot be decoded", part.bytes);
        let fault = FieldError::new(
            "messages",
            "protobuf of SwitchDialogueMessage, text in UTF-8",
            bytes,
        );
        self.refuse(session, &part.about, &fault, RefusedClass::Frame);
        if part.is_request {
            self.metrics.route_requests.inc();
            self.end_unopened(
                session,
                &part.about,
                RouteEndError::InvalidRequest,
                Answered::Invalid,
            );
        }
    }

    pub(super) fn refuse_frame(
        &mut self,
        session: u64,
        field: &'static str,
        limit: &str,
        value: impl std::fmt::Display,
    ) {
        self.refuse(
            session,
            "",
            &FieldError::new(field, limit, value),
            RefusedClass::Frame,
        );
    }

    /// Says why a message was not taken.
    pub(super) fn refuse(
        &mut self,
        session: u64,
        about: &str,
        fault: &FieldError,
        class: RefusedClass,
    ) {
        self.metrics.refusals.inc(class as usize);
        if let Some(suppressed) = self.logs.refused.check() {
            tracing::warn!(field = fault.field, limit = %fault.limit, value = %fault.value, suppressed, "a message of a switch was refused");
        }
        self.push(session, mesh::Body::Refusal(refusal(about, fault)));
    }

    /// Ends a dialogue that was never opened here.
    pub(super) fn end_unopened(
        &mut self,
        session: u64,
        cross_ref: &str,
        error: RouteEndError,
        kind: Answered,
    ) {
        self.metrics.answers.inc(kind as usize);
        let end = RouteEnd {
            cross_ref_id: cut(cross_ref).to_owned(),
            error: error.into(),
            correlator_data: bytes::Bytes::new(),
        };
        self.push(session, mesh::Body::End(end));
    }
}
