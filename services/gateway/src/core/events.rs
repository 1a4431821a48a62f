//! The switch's events: taken once, in order, and acknowledged only when the mesh holds
//! them.
//!
//! A window a (switch, boot): the highest sequence received, what is not held yet, what is
//! missing. The acknowledgement is cumulative, so it stops at the first event that is not
//! held; everything after waits for it. Nothing of this is stored: a gateway that is lost
//! takes its windows with it, and the switch sends again, to any gateway, what was not
//! acknowledged.
//!
//! How much may be read is told to the stream's reader in numbers (`EventsMayRead`): what
//! is not held yet counts against it, so a mesh that cannot write stops the events of a
//! switch at the source, and never its dialogues.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use domain::TimeMs;
use domain::id::FieldError;
use proto::convert::cti as check;
use proto::cti::v1::{
    EventsResponse, Hello, Refusal, SwitchEvent, Welcome, snapshot, switch_event,
};

use super::mapping::Mapped;
use super::routing::Origin;
use super::sessions::refusal;
use super::{Core, LinkId, Malformed, Moment, Outgoing, Role};
use crate::metrics::RefusedClass;

/// How long an acknowledgement waits for events that are missing before it passes them: the
/// snapshot that was asked for has told what they would have.
const MISSING_WAIT_MS: u64 = 10_000;
/// Missing sequences remembered; a larger gap is passed at once, the snapshot covers it.
const MISSING_MAX: u64 = 1_024;

/// The events of one (switch, boot).
#[derive(Debug, Default)]
pub(crate) struct Window {
    link: Option<LinkId>,
    /// The next event tells where this stream starts.
    fresh: bool,
    highest: u64,
    acknowledged: u64,
    /// Parts that are not held yet, by event.
    open: HashMap<u64, u32>,
    open_order: BTreeSet<u64>,
    missing: BTreeMap<u64, TimeMs>,
    sent: u64,
    welcome: Option<Welcome>,
    refusals: Vec<Refusal>,
    snapshot: bool,
    /// The event that ended a snapshot, until it is held.
    snapshot_end: Option<u64>,
    may_read: usize,
    touched: bool,
}

impl Window {
    /// Nothing waits.
    pub(super) fn is_settled(&self) -> bool {
        self.open.is_empty()
    }

    /// Events that are not held yet.
    pub(super) fn waiting(&self) -> usize {
        self.open.len()
    }

    fn advance(&mut self) -> u64 {
        let first_open = self.open_order.first().copied();
        let first_missing = self.missing.first_key_value().map(|(seq, _)| *seq);
        let held = match (first_open, first_missing) {
            (Some(open), Some(missing)) => open.min(missing) - 1,
            (Some(first), None) | (None, Some(first)) => first - 1,
            (None, None) => self.highest,
        };
        let gained = held.saturating_sub(self.acknowledged);
        self.acknowledged = self.acknowledged.max(held);
        gained
    }
}

enum Place {
    Take,
    Repeated,
}

impl Core {
    /// A stream of events said hello.
    pub(super) fn events_opened(&mut self, now: Moment, link: LinkId, hello: &Hello) {
        let source = self.source(now, hello);
        self.open_link(link, Role::Events(source));
        let most = self.config.events_unacknowledged_max;
        let welcome = self.plain_welcome(source);
        let Some(state) = self.sources.get_mut(&source) else {
            return;
        };
        let window = &mut state.window;
        if let Some(old) = window.link.replace(link) {
            self.links.remove(&old);
            self.metrics.streams[crate::metrics::Stream::Events as usize].dec();
            self.closing.push((old, "opened again on another link"));
        }
        window.fresh = true;
        window.sent = window.acknowledged;
        window.refusals.clear();
        window.may_read = most.saturating_sub(window.open.len());
        window.welcome = Some(Welcome {
            acknowledged_event_seq: window.acknowledged,
            ..welcome
        });
        self.touch_window(source);
    }

    /// A welcome without credit: for events and commands, whose state is the source's own.
    pub(super) fn plain_welcome(&self, source: u64) -> Welcome {
        Welcome {
            session_id: format!("{}-s{source}", self.instance)
                .chars()
                .take(64)
                .collect(),
            acknowledged_event_seq: 0,
            snapshot_required: false,
            system_status_timer_ms: self.config.system_status_timer_ms,
            session_cleanup_delay_ms: self.config.session_cleanup_delay_ms,
            initial_credit: 0,
        }
    }

    pub(super) fn events_closed(&mut self, source: u64, link: LinkId) {
        if let Some(state) = self.sources.get_mut(&source)
            && state.window.link == Some(link)
        {
            state.window.link = None;
        }
    }

    /// A frame of events, each alone.
    pub(super) fn events_frame(
        &mut self,
        now: Moment,
        link: LinkId,
        events: Vec<SwitchEvent>,
        malformed: Vec<Malformed>,
    ) {
        let Some(Role::Events(source)) = self.links.get(&link).copied() else {
            return;
        };
        for part in malformed {
            let bytes = format!("{} bytes that cannot be decoded", part.bytes);
            let fault = FieldError::new("events", "protobuf of SwitchEvent, text in UTF-8", bytes);
            if part.event_seq > 0 && matches!(self.place(now, source, part.event_seq), Place::Take)
            {
                self.open_event(source, part.event_seq, 1);
                let refused = refusal(&part.event_seq.to_string(), &fault);
                self.event_part_done(source, part.event_seq, Some(refused));
            } else {
                self.refuse_event(source, "", &fault);
                self.may_read(source, 1);
            }
        }
        let count = events.len();
        if count > check::EVENTS_MAX {
            let fault = FieldError::new(
                "events",
                format!("at most {} in a frame", check::EVENTS_MAX),
                count,
            );
            self.refuse_event(source, "", &fault);
        }
        for (index, event) in events.into_iter().enumerate() {
            self.metrics.events.inc();
            self.event(now, source, event, index < check::EVENTS_MAX);
        }
    }

    fn place(&mut self, now: Moment, source: u64, event_seq: u64) -> Place {
        let Some(state) = self.sources.get_mut(&source) else {
            return Place::Repeated;
        };
        let window = &mut state.window;
        let fresh = std::mem::take(&mut window.fresh);
        if event_seq <= window.highest {
            let late = window.missing.remove(&event_seq).is_some();
            return if late { Place::Take } else { Place::Repeated };
        }
        let gap = event_seq - window.highest - 1;
        if gap > 0 && !fresh {
            self.metrics.event_gaps.inc();
            window.snapshot = true;
            if gap <= MISSING_MAX {
                window
                    .missing
                    .extend((window.highest + 1..event_seq).map(|missing| (missing, now.wall)));
            }
        } else if gap > 0 && window.open.is_empty() && window.missing.is_empty() {
            // Another gateway has acknowledged what lies between.
            window.acknowledged = window.acknowledged.max(event_seq - 1);
        }
        window.highest = event_seq;
        self.touch_window(source);
        Place::Take
    }

    fn event(&mut self, now: Moment, source: u64, event: SwitchEvent, within: bool) {
        let event_seq = event.event_seq;
        if event_seq == 0 {
            let fault = FieldError::new("event_seq", "from 1", 0);
            self.refuse_event(source, "0", &fault);
            return self.may_read(source, 1);
        }
        if matches!(self.place(now, source, event_seq), Place::Repeated) {
            self.metrics.events_repeated.inc();
            self.touch_window(source);
            return self.may_read(source, 1);
        }
        self.open_event(source, event_seq, 1);
        if ends_snapshot(&event)
            && let Some(state) = self.sources.get_mut(&source)
        {
            state.window.snapshot_end = Some(event_seq);
        }
        let mapped = if within {
            check::event(&event).and_then(|()| self.map_event(now, source, event))
        } else {
            let limit = format!("at most {} in a frame", check::EVENTS_MAX);
            Err(FieldError::new("events", limit, "beyond the limit"))
        };
        match mapped {
            Err(fault) => {
                if let Some(suppressed) = self.logs.refused.check() {
                    tracing::warn!(field = fault.field, limit = %fault.limit, value = %fault.value, suppressed, "an event of a switch was refused");
                }
                self.event_part_done(
                    source,
                    event_seq,
                    Some(refusal(&event_seq.to_string(), &fault)),
                );
            }
            Ok(Mapped::Reports(reports)) => {
                // One part stands for the mapping itself, so that the event cannot be done
                // before all its reports are counted.
                self.open_event(
                    source,
                    event_seq,
                    u32::try_from(reports.len()).unwrap_or(u32::MAX),
                );
                for (pool, input) in reports {
                    self.report(pool, input, Origin::Event { source, event_seq });
                }
                self.event_part_done(source, event_seq, None);
            }
            Ok(Mapped::Booking(booking)) => self.book(now, *booking),
            Ok(Mapped::Nothing) => self.event_part_done(source, event_seq, None),
        }
    }

    fn open_event(&mut self, source: u64, event_seq: u64, parts: u32) {
        if let Some(state) = self.sources.get_mut(&source) {
            *state.window.open.entry(event_seq).or_insert(0) += parts;
            state.window.open_order.insert(event_seq);
        }
    }

    /// One part of an event is held, or refused; the last one lets the acknowledgement on.
    pub(super) fn event_part_done(
        &mut self,
        source: u64,
        event_seq: u64,
        refused: Option<Refusal>,
    ) {
        let Some(state) = self.sources.get_mut(&source) else {
            return;
        };
        let window = &mut state.window;
        if let Some(refused) = refused
            && window.link.is_some()
        {
            self.metrics.refusals.inc(RefusedClass::Event as usize);
            window.refusals.push(refused);
        }
        let Some(parts) = window.open.get_mut(&event_seq) else {
            return;
        };
        *parts -= 1;
        if *parts > 0 {
            return;
        }
        window.open.remove(&event_seq);
        window.open_order.remove(&event_seq);
        if window.snapshot_end == Some(event_seq) {
            // What was missing before the snapshot is told by it.
            window.snapshot_end = None;
            window.missing.retain(|missing, _| *missing > event_seq);
        }
        let gained = window.advance();
        self.metrics.events_acknowledged.inc_by(gained);
        self.touch_window(source);
        self.may_read(source, 1);
    }

    fn refuse_event(&mut self, source: u64, about: &str, fault: &FieldError) {
        self.metrics.refusals.inc(RefusedClass::Event as usize);
        if let Some(state) = self.sources.get_mut(&source) {
            state.window.refusals.push(refusal(about, fault));
        }
        self.touch_window(source);
    }

    fn may_read(&mut self, source: u64, count: usize) {
        if let Some(state) = self.sources.get_mut(&source) {
            state.window.may_read += count;
        }
        self.touch_window(source);
    }

    fn touch_window(&mut self, source: u64) {
        if let Some(state) = self.sources.get_mut(&source)
            && !state.window.touched
        {
            state.window.touched = true;
            self.touched_windows.push(source);
        }
    }

    /// Dialogues were lost on the way: the switch is asked to say where its calls are.
    pub(super) fn ask_snapshot_of_session(&mut self, session: u64) {
        if let Some(number) = self.sessions.get(&session).map(|found| found.source.number)
            && let Some(state) = self.sources.get_mut(&number)
            && state.window.link.is_some()
        {
            state.window.snapshot = true;
            self.touch_window(number);
        }
    }

    /// Lets acknowledgements pass what has been missing for long.
    pub(super) fn tick_windows(&mut self, now: Moment) {
        let mut moved = Vec::new();
        for (number, state) in &mut self.sources {
            let window = &mut state.window;
            if window.missing.is_empty() {
                continue;
            }
            window
                .missing
                .retain(|_, since| now.wall.since(*since) < MISSING_WAIT_MS);
            let gained = window.advance();
            if gained > 0 {
                self.metrics.events_acknowledged.inc_by(gained);
                moved.push(*number);
            }
        }
        for number in moved {
            self.touch_window(number);
        }
    }

    /// Frames for every stream of events that has something to hear.
    pub(super) fn flush_windows(&mut self, out: &mut Vec<Outgoing>) {
        for number in std::mem::take(&mut self.touched_windows) {
            let Some(state) = self.sources.get_mut(&number) else {
                continue;
            };
            let window = &mut state.window;
            window.touched = false;
            let Some(link) = window.link else {
                window.refusals.clear();
                window.may_read = 0;
                continue;
            };
            let said = window.welcome.is_some()
                || window.snapshot
                || !window.refusals.is_empty()
                || window.acknowledged > window.sent;
            if said {
                window.sent = window.acknowledged;
                let frame = EventsResponse {
                    welcome: window.welcome.take(),
                    acknowledged_event_seq: window.acknowledged,
                    refusals: std::mem::take(&mut window.refusals),
                    snapshot_required: std::mem::take(&mut window.snapshot),
                };
                out.push(Outgoing::Events(link, frame));
            }
            if window.may_read > 0 {
                out.push(Outgoing::EventsMayRead(
                    link,
                    std::mem::take(&mut window.may_read),
                ));
            }
        }
    }
}

fn ends_snapshot(event: &SwitchEvent) -> bool {
    matches!(
        &event.body,
        Some(switch_event::Body::Snapshot(part)) if matches!(part.body, Some(snapshot::Body::End(_)))
    )
}
