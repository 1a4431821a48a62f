//! The one task that owns the core: takes what has come, lets time pass, sends what is due.
//!
//! Each turn drains up to 256 frames of dialogues and peers and at most one of events, so
//! an answer waits for no more than 512 events. The core never waits for a stream: a sink
//! that is full belongs to a peer that has stopped reading, and its link ends.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, watch};
use tonic::Status;

use super::{Sink, ToCore};
use crate::core::{Core, Health, Input, LinkId, Moment, Outgoing};
use crate::metrics::{Limit, Metrics};

/// Frames of dialogues and peers in one turn.
const TURN_FRAMES: usize = 256;
/// The deadlines' precision.
const TICK: Duration = Duration::from_millis(4);

/// What the task needs besides the core.
pub(crate) struct Driver {
    pub(crate) core: Core,
    pub(crate) clock: runtime::Clock,
    pub(crate) metrics: Metrics,
    pub(crate) fast: mpsc::Receiver<ToCore>,
    pub(crate) slow: mpsc::Receiver<ToCore>,
    pub(crate) health: watch::Sender<Health>,
    pub(crate) shutdown: runtime::Shutdown,
    pub(crate) sinks: HashMap<LinkId, Sink>,
}

impl Driver {
    /// Runs until streams must end.
    pub(crate) async fn run(mut self) {
        let mut turn = Vec::with_capacity(TURN_FRAMES);
        let mut out = Vec::new();
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let mut slow = None;
            tokio::select! {
                biased;
                () = self.shutdown.closing() => break,
                count = self.fast.recv_many(&mut turn, TURN_FRAMES) => if count == 0 { break },
                frame = self.slow.recv() => slow = frame,
                _ = ticks.tick() => {}
            }
            let now = Moment {
                wall: self.clock.now(),
                instant: Instant::now(),
            };
            for message in turn.drain(..) {
                self.take(now, message);
            }
            if let Some(message) = slow.or_else(|| self.slow.try_recv().ok()) {
                self.take(now, message);
            }
            self.core.tick(now);
            self.core.flush(Instant::now(), &mut out);
            for frame in out.drain(..) {
                self.send(now, frame);
            }
            let health = self.core.health();
            self.health.send_if_modified(|known| {
                let changed = *known != health;
                *known = health;
                changed
            });
        }
        for sink in self.sinks.into_values() {
            end(&sink, "draining: ask another node");
        }
    }

    fn take(&mut self, now: Moment, message: ToCore) {
        if let Some((link, sink)) = message.sink {
            self.sinks.insert(link, sink);
        }
        if let Input::Closed { link } = &message.input {
            self.sinks.remove(link);
        }
        self.core.handle(now, message.input);
    }

    fn send(&mut self, now: Moment, frame: Outgoing) {
        let (link, sent) = match frame {
            Outgoing::Close(link, reason) => {
                if let Some(sink) = self.sinks.remove(&link) {
                    end(&sink, reason);
                }
                return self.core.handle(now, Input::Closed { link });
            }
            Outgoing::EventsMayRead(link, count) => {
                if let Some(Sink::Events(_, reads)) = self.sinks.get(&link) {
                    reads.add_permits(count);
                }
                return;
            }
            Outgoing::Dialogues(link, frame) => (
                link,
                with(&self.sinks, link, |sink| match sink {
                    Sink::Dialogues(sender) => sender.try_send(Ok(frame)).map_err(drop_frame),
                    _ => Ok(()),
                }),
            ),
            Outgoing::Events(link, frame) => (
                link,
                with(&self.sinks, link, |sink| match sink {
                    Sink::Events(sender, _) => sender.try_send(Ok(frame)).map_err(drop_frame),
                    _ => Ok(()),
                }),
            ),
            Outgoing::Commands(link, frame) => (
                link,
                with(&self.sinks, link, |sink| match sink {
                    Sink::Commands(sender) => sender.try_send(Ok(frame)).map_err(drop_frame),
                    _ => Ok(()),
                }),
            ),
            Outgoing::Routing(link, frame) => (
                link,
                with(&self.sinks, link, |sink| match sink {
                    Sink::Routing(sender) => sender.try_send(frame).map_err(drop_frame),
                    _ => Ok(()),
                }),
            ),
            Outgoing::Intent(link, frame) => (
                link,
                with(&self.sinks, link, |sink| match sink {
                    Sink::Intent(sender) => sender.try_send(frame).map_err(drop_frame),
                    _ => Ok(()),
                }),
            ),
            Outgoing::Callback(link, frame) => (
                link,
                with(&self.sinks, link, |sink| match sink {
                    Sink::Callback(sender) => sender.try_send(frame).map_err(drop_frame),
                    _ => Ok(()),
                }),
            ),
        };
        if let Err(is_full) = sent {
            if is_full {
                self.metrics.limit_hits.inc(Limit::SlowReader as usize);
            }
            if let Some(sink) = self.sinks.remove(&link) {
                end(&sink, "the reader is too slow");
            }
            self.core.handle(now, Input::Closed { link });
        }
    }
}

/// Whether a full sink (and not a closed one) refused the frame.
fn drop_frame<T>(error: TrySendError<T>) -> bool {
    matches!(error, TrySendError::Full(_))
}

fn with(
    sinks: &HashMap<LinkId, Sink>,
    link: LinkId,
    send: impl FnOnce(&Sink) -> Result<(), bool>,
) -> Result<(), bool> {
    sinks.get(&link).map_or(Ok(()), send)
}

/// Ends a stream with a status; a peer's link ends when its sender is dropped.
fn end(sink: &Sink, reason: &'static str) {
    // A sink that is full or closed ends without hearing why.
    match sink {
        Sink::Dialogues(sender) => drop(sender.try_send(Err(Status::unavailable(reason)))),
        Sink::Events(sender, reads) => {
            reads.close();
            drop(sender.try_send(Err(Status::unavailable(reason))));
        }
        Sink::Commands(sender) => drop(sender.try_send(Err(Status::unavailable(reason)))),
        Sink::Routing(_) | Sink::Intent(_) | Sink::Callback(_) => {}
    }
}
