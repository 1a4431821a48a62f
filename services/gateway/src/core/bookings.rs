//! Accepted offers and cancellations on their way to callback.
//!
//! The event is acknowledged when callback has answered, which it does when the booking is
//! on disk; then the switch is told what to say to the caller. A replica is chosen by
//! rendezvous on the contact, and another one when it does not answer. When none has
//! answered in time the caller hears that it did not work and stays in line, and what may
//! have been booked on the way is cancelled: a promise that was not spoken must not ring.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use domain::id::FieldError;
use domain::{ContactId, TimeMs};
use proto::callback::v1::{
    AttachedSwitch, Book, Cancel, DialResult, GatewayHello, LinkRequest, LinkResponse,
    RefusalReason, Request, Response, Window, request, response,
};
use proto::convert::cti as check;
use proto::cti::v1::{
    AnnounceBooking, CallRef, CallbackCancelled, OfferAnswered, SwitchEvent, WindowOffer,
};

use super::mapping::{Mapped, contact_bytes};
use super::{ContactMemo, Core, LinkId, Moment, Outgoing, Role, Source};
use crate::metrics::BookingEnd;

/// Requests in a frame.
const REQUESTS_MAX: usize = 256;
/// A cancellation is tried for so long: an unwanted ring is worse than a late acknowledgement.
const CANCEL_TIMEOUT_MS: u64 = 30_000;

/// A callback replica.
#[derive(Debug, Default)]
pub(super) struct Peer {
    pub(super) hello: bool,
    replica: String,
    requests: Vec<Request>,
    pub(super) results: Vec<DialResult>,
    draining: bool,
}

/// A booking or cancellation that callback has not answered.
#[derive(Debug)]
pub(crate) struct Booking {
    source: Arc<Source>,
    /// The event to acknowledge; 0: the gateway's own cancellation.
    event_seq: u64,
    contact: ContactId,
    pool: usize,
    call: CallRef,
    body: request::Body,
    expected_callback_ms: u64,
    tried: Vec<LinkId>,
    link: Option<LinkId>,
    try_until: TimeMs,
    give_up_at: TimeMs,
}

impl Core {
    /// An accepted offer as a booking; the number leaves as ciphertext.
    pub(super) fn booking(
        &mut self,
        now: Moment,
        source: &Arc<Source>,
        event: &SwitchEvent,
        contact: ContactId,
        pool: usize,
        offer: OfferAnswered,
    ) -> Result<Mapped, FieldError> {
        let device = offer.callback_device.unwrap_or_default();
        let call = event.call.clone().unwrap_or_default();
        let Some(number) = self.keys.number(&device.id) else {
            self.announce(
                now,
                source,
                call,
                contact,
                pool,
                AnnounceBooking {
                    failed: true,
                    ..Default::default()
                },
            );
            return Err(FieldError::new(
                "offer_answered.callback_device.id",
                "a number to call",
                "no digits",
            ));
        };
        let memo = self
            .contacts
            .get(&contact)
            .cloned()
            .unwrap_or_else(|| memo_of(&event.correlator_data));
        let ContactMemo {
            line,
            topic,
            language,
            arrived_at,
            expected_callback_ms,
            ..
        } = memo;
        let book = Book {
            contact_id: contact_bytes(contact),
            pool: self.pools[pool].name().to_owned(),
            switch_id: source.switch.clone(),
            caller: self.keys.caller(&number).0.to_be_bytes().to_vec().into(),
            number: self.keys.encrypt(&number, contact),
            window: offer.window.map(|window| Window {
                from_ms: window.from_ms,
                until_ms: window.until_ms,
            }),
            time_zone: offer.time_zone,
            line,
            topic,
            language,
            arrived_at_ms: arrived_at.0,
            expected_callback_ms,
        };
        Ok(Mapped::Booking(Box::new(Booking {
            source: Arc::clone(source),
            event_seq: event.event_seq,
            contact,
            pool,
            call,
            body: request::Body::Book(book),
            expected_callback_ms,
            tried: Vec::new(),
            link: None,
            try_until: now.wall,
            give_up_at: now.wall.plus(self.config.booking_timeout_ms),
        })))
    }

    /// A cancellation: by the spoken code and the caller's pseudonym, else by contact.
    pub(super) fn cancellation(
        &mut self,
        now: Moment,
        source: &Arc<Source>,
        event_seq: u64,
        contact: ContactId,
        cancelled: &CallbackCancelled,
    ) -> Result<Mapped, FieldError> {
        let code = cancelled.code.as_str();
        let device = cancelled.calling_device.as_ref();
        let told = device.and_then(|device| self.keys.number(&device.id));
        let caller: bytes::Bytes = match told {
            Some(number) => self.keys.caller(&number).0.to_be_bytes().to_vec().into(),
            None => self
                .contacts
                .get(&contact)
                .map(|memo| memo.caller.clone())
                .unwrap_or_default(),
        };
        let by_code = !code.is_empty() && !caller.is_empty();
        if !code.is_empty() && !by_code {
            return Err(FieldError::new(
                "callback_cancelled.code",
                "a call whose number this node knows",
                "not known",
            ));
        }
        let cancel = Cancel {
            contact_id: if by_code {
                bytes::Bytes::new()
            } else {
                contact_bytes(contact)
            },
            caller,
            code: code.to_owned(),
        };
        Ok(Mapped::Booking(Box::new(
            self.cancel(now, source, event_seq, contact, cancel),
        )))
    }

    fn cancel(
        &self,
        now: Moment,
        source: &Arc<Source>,
        event_seq: u64,
        contact: ContactId,
        cancel: Cancel,
    ) -> Booking {
        Booking {
            source: Arc::clone(source),
            event_seq,
            contact,
            pool: 0,
            call: CallRef::default(),
            body: request::Body::Cancel(cancel),
            expected_callback_ms: 0,
            tried: Vec::new(),
            link: None,
            try_until: now.wall,
            give_up_at: now.wall.plus(CANCEL_TIMEOUT_MS),
        }
    }

    /// Sends a booking for the first time.
    pub(super) fn book(&mut self, now: Moment, booking: Booking) {
        let number = self.number();
        self.bookings.insert(number, booking);
        self.try_booking(now, number);
    }

    /// Sends it to the best replica that has not been tried; to any, when all have.
    fn try_booking(&mut self, now: Moment, number: u64) {
        let Some(booking) = self.bookings.get_mut(&number) else {
            return;
        };
        let weight = |peer: &Peer| {
            let mut hasher = DefaultHasher::new();
            (&peer.replica, booking.contact).hash(&mut hasher);
            hasher.finish()
        };
        let best = |tried: &[LinkId]| {
            self.callback_peers
                .iter()
                .filter(|(link, peer)| !peer.draining && !tried.contains(link))
                .max_by_key(|(_, peer)| weight(peer))
                .map(|(link, _)| *link)
        };
        let Some(link) = best(&booking.tried).or_else(|| best(&[])) else {
            booking.link = None;
            return;
        };
        booking.link = Some(link);
        booking.tried.push(link);
        // Three tries fit into the time that the caller is kept.
        booking.try_until = now.wall.plus(self.config.booking_timeout_ms.div_ceil(3));
        let request = Request {
            request_id: number,
            traceparent: String::new(),
            body: Some(booking.body.clone()),
        };
        if let Some(peer) = self.callback_peers.get_mut(&link) {
            peer.requests.push(request);
        }
    }

    /// A callback replica is there.
    pub(super) fn callback_up(&mut self, now: Moment, link: LinkId) {
        self.open_link(link, Role::Callback);
        self.callback_peers.insert(
            link,
            Peer {
                hello: true,
                ..Peer::default()
            },
        );
        self.retry_bookings(now, |booking| booking.link.is_none());
    }

    /// A callback replica is gone.
    pub(super) fn callback_down(&mut self, now: Moment, link: LinkId) {
        self.callback_peers.remove(&link);
        self.retry_bookings(now, |booking| booking.link == Some(link));
    }

    fn retry_bookings(&mut self, now: Moment, which: impl Fn(&Booking) -> bool) {
        let again: Vec<u64> = self
            .bookings
            .iter()
            .filter(|(_, booking)| which(booking))
            .map(|(number, _)| *number)
            .collect();
        for number in again {
            self.try_booking(now, number);
        }
    }

    /// A frame of a callback replica.
    pub(super) fn callback_frame(&mut self, now: Moment, link: LinkId, frame: LinkResponse) {
        if let Some(peer) = self.callback_peers.get_mut(&link) {
            if !frame.replica_id.is_empty() {
                peer.replica.clone_from(&frame.replica_id);
            }
            peer.draining |= frame.draining;
        }
        for response in frame.responses {
            self.booking_answered(now, response);
        }
        for dial in frame.dials {
            self.dial(now, link, dial);
        }
    }

    fn booking_answered(&mut self, now: Moment, answer: Response) {
        let number = answer.request_id;
        let Some(booking) = self.bookings.get(&number) else {
            return;
        };
        match answer.body {
            Some(response::Body::Refused(refused))
                if refused.reason() == RefusalReason::Unavailable
                    && now.wall < booking.give_up_at =>
            {
                // Another replica may reach the store; the same one is asked at its next turn.
                let others = self
                    .callback_peers
                    .keys()
                    .any(|link| !booking.tried.contains(link));
                if others {
                    self.try_booking(now, number);
                }
            }
            Some(response::Body::Accepted(accepted)) => {
                let expected_callback_ms = booking.expected_callback_ms;
                self.metrics.bookings.inc(BookingEnd::Accepted as usize);
                let window = accepted.window.map(|window| WindowOffer {
                    from_ms: window.from_ms,
                    until_ms: window.until_ms,
                });
                let announce = AnnounceBooking {
                    code: accepted.code,
                    window,
                    expected_callback_ms,
                    failed: false,
                };
                self.booking_done(now, number, Some(announce));
            }
            Some(response::Body::Refused(refused)) => {
                self.metrics.bookings.inc(BookingEnd::Refused as usize);
                if refused.reason() == RefusalReason::Invalid
                    && let Some(suppressed) = self.logs.booking.check()
                {
                    tracing::warn!(field = %refused.field, limit = %refused.limit, suppressed, "callback refused a booking as nonsense");
                }
                self.booking_done(
                    now,
                    number,
                    Some(AnnounceBooking {
                        failed: true,
                        ..Default::default()
                    }),
                );
            }
            Some(response::Body::Cancelled(_)) => {
                self.metrics.bookings.inc(BookingEnd::Cancelled as usize);
                self.booking_done(now, number, None);
            }
            None => {}
        }
    }

    /// The event is held; the caller hears about it.
    fn booking_done(&mut self, now: Moment, number: u64, announce: Option<AnnounceBooking>) {
        let Some(booking) = self.bookings.remove(&number) else {
            return;
        };
        let booked = matches!(booking.body, request::Body::Book(_));
        if let Some(announce) = announce.filter(|_| booked) {
            self.announce(
                now,
                &booking.source,
                booking.call,
                booking.contact,
                booking.pool,
                announce,
            );
        }
        if booking.event_seq > 0 {
            self.event_part_done(booking.source.number, booking.event_seq, None);
        }
    }

    /// Tries again what was not answered, and gives up what has had its time.
    pub(super) fn tick_bookings(&mut self, now: Moment) {
        let late: HashMap<u64, bool> = self
            .bookings
            .iter()
            .filter(|(_, booking)| {
                now.wall >= booking.give_up_at
                    || (booking.link.is_some() && now.wall >= booking.try_until)
            })
            .map(|(number, booking)| (*number, now.wall >= booking.give_up_at))
            .collect();
        for (number, over) in late {
            if over {
                self.booking_timed_out(now, number);
            } else {
                self.try_booking(now, number);
            }
        }
    }

    fn booking_timed_out(&mut self, now: Moment, number: u64) {
        let Some(booking) = self.bookings.get(&number) else {
            return;
        };
        self.metrics.bookings.inc(BookingEnd::TimedOut as usize);
        if let Some(suppressed) = self.logs.booking.check() {
            tracing::warn!(contact = %booking.contact, suppressed, "callback did not answer in time");
        }
        let sent = !booking.tried.is_empty() && matches!(booking.body, request::Body::Book(_));
        let (source, contact) = (Arc::clone(&booking.source), booking.contact);
        self.booking_done(
            now,
            number,
            Some(AnnounceBooking {
                failed: true,
                ..Default::default()
            }),
        );
        if sent {
            let cancel = Cancel {
                contact_id: contact_bytes(contact),
                ..Cancel::default()
            };
            let cancel = self.cancel(now, &source, 0, contact, cancel);
            self.book(now, cancel);
        }
    }

    /// Frames for every callback replica that has something to hear.
    pub(super) fn flush_bookings(&mut self, out: &mut Vec<Outgoing>) {
        let attached: Vec<AttachedSwitch> = self
            .sources
            .values()
            .filter(|state| state.commands_link.is_some())
            .map(|state| AttachedSwitch {
                switch_id: state.source.switch.clone(),
                boot_id: state.source.boot,
            })
            .collect();
        for (link, peer) in &mut self.callback_peers {
            if !peer.hello && peer.requests.is_empty() && peer.results.is_empty() {
                continue;
            }
            let mut requests = std::mem::take(&mut peer.requests);
            loop {
                let rest = requests.split_off(requests.len().min(REQUESTS_MAX));
                let hello = std::mem::take(&mut peer.hello).then(|| GatewayHello {
                    gateway_id: self.instance.clone(),
                    switches: attached.clone(),
                });
                let dial_results = std::mem::take(&mut peer.results);
                out.push(Outgoing::Callback(
                    *link,
                    LinkRequest {
                        hello,
                        requests,
                        dial_results,
                    },
                ));
                requests = rest;
                if requests.is_empty() {
                    break;
                }
            }
        }
    }
}

impl Core {
    /// Correlator data of a contact, with what this gateway knows of it.
    pub(super) fn correlator(&self, contact: ContactId, pool: &str, blocked: i32) -> bytes::Bytes {
        let known = self.contacts.get(&contact);
        check::correlator_data_of(check::Correlated {
            contact,
            pool: pool.to_owned(),
            blocked: u32::try_from(blocked).unwrap_or(0),
            line: known.map(|memo| memo.line.clone()).unwrap_or_default(),
            topic: known.map(|memo| memo.topic.clone()).unwrap_or_default(),
            language: known.map(|memo| memo.language.clone()).unwrap_or_default(),
            arrived_at_ms: known.map_or(0, |memo| memo.arrived_at.0),
        })
    }
}

/// What the correlator tells of a contact that another gateway routed.
fn memo_of(correlator_data: &bytes::Bytes) -> ContactMemo {
    // Read once before; what was no correlator then was refused.
    let read = check::correlator("correlator_data", correlator_data);
    let Ok(Some(correlated)) = read else {
        return ContactMemo::default();
    };
    ContactMemo {
        line: correlated.line,
        topic: correlated.topic,
        language: correlated.language,
        arrived_at: TimeMs(correlated.arrived_at_ms),
        ..ContactMemo::default()
    }
}
