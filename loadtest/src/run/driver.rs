//! The driver: one task that owns switch and people, and the only one that reads the clock.
//!
//! Each turn takes what the network brought, does what is due, fetches the frames for which
//! there is room, and writes the record. Answers are taken before timers, so an answer that
//! has reached this process is never called late because of the harness.

use std::collections::HashMap;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::net::{Inbound, Sender};
use crate::people::People;
use crate::progress::Progress;
use crate::record::{Entry, Line, Writer};
use crate::switch::{Core, Happening, StreamKind};
use crate::time::{Clock, MILLISECOND, SECOND, Us};

/// Notes of the fault schedule that may wait for the driver: a run has dozens.
pub(crate) const NOTES_MAX: usize = 1_024;
/// Frames taken in one turn before timers are looked at again.
const TURN_MAX: usize = 256;

/// What drives a run.
pub(crate) struct Driver {
    /// The clock.
    pub(crate) clock: Clock,
    /// The switch.
    pub(crate) core: Core,
    /// From the network.
    pub(crate) inbound: mpsc::Receiver<Inbound>,
    /// Entries from elsewhere: faults.
    pub(crate) notes: mpsc::Receiver<Entry>,
    /// The record.
    pub(crate) writer: Writer,
    /// The display.
    pub(crate) progress: Progress,
    /// The node that the events go to, for the one who breaks things.
    pub(crate) events_node: tokio::sync::watch::Sender<Option<usize>>,
    senders: HashMap<(usize, StreamKind), (u64, Sender)>,
    buffer: Vec<Inbound>,
    lines: Vec<Line>,
    next_second: Us,
}

/// How long the phases of a run may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Phases {
    /// Calls arrive until then.
    pub(crate) open_until: Us,
    /// Those in line are served until then.
    pub(crate) drain_until: Us,
    /// After that, to let everything end and be acknowledged.
    pub(crate) close_max: Us,
}

impl Driver {
    /// A driver.
    pub(crate) fn new(
        clock: Clock,
        core: Core,
        inbound: mpsc::Receiver<Inbound>,
        notes: mpsc::Receiver<Entry>,
        writer: Writer,
        progress: Progress,
    ) -> Self {
        Self {
            clock,
            core,
            inbound,
            notes,
            writer,
            progress,
            events_node: tokio::sync::watch::Sender::new(None),
            senders: HashMap::new(),
            buffer: Vec::with_capacity(TURN_MAX),
            lines: Vec::new(),
            next_second: 0,
        }
    }

    /// Waits until every stream of every node is up.
    pub(crate) async fn connect(&mut self, nodes: usize, limit: Duration) -> anyhow::Result<()> {
        let until = self.clock.now() + limit.as_micros() as Us;
        let mut nobody = Vec::new();
        loop {
            let now = self.turn().await?;
            self.core.take_happenings(&mut nobody);
            nobody.retain(|happening: &Happening| matches!(happening, Happening::Dial { .. }));
            if self.core.all_up(nodes) {
                return Ok(());
            }
            anyhow::ensure!(
                now < until,
                "the gateways did not welcome the switch within {limit:?}"
            );
            self.wait(Some(now + 20 * MILLISECOND)).await;
        }
    }

    /// Plays the scenario to its end.
    pub(crate) async fn play(&mut self, people: &mut People, phases: Phases) -> anyhow::Result<()> {
        let mut drained_at = None;
        let mut closed_at = None;
        loop {
            let now = self.turn().await?;
            people.step(now, &mut self.core);
            self.flush(now);
            self.write()?;
            self.second(now, people)?;
            if drained_at.is_none() && now >= phases.open_until && people.all_arrived() {
                drained_at = Some(now);
                people.drain();
                self.writer.write(&Line {
                    at: now,
                    entry: Entry::Drain,
                })?;
                self.progress
                    .announce("no more calls arrive; those in line are served");
            }
            let idle = self.core.live_calls() == 0 && self.core.live_dials() == 0;
            if drained_at.is_some()
                && closed_at.is_none()
                && (now >= phases.drain_until || idle && people.bookings() == 0)
            {
                closed_at = Some(now);
                self.progress.announce("everybody hangs up, agents log off");
                people.close(now, &mut self.core);
                self.flush(now);
            }
            if let Some(closed_at) = closed_at {
                let (made, acknowledged) = self.core.events();
                if idle && made == acknowledged || now > closed_at + phases.close_max {
                    self.write()?;
                    return Ok(());
                }
            }
            let next = [
                people.next_deadline(),
                self.core.next_deadline(),
                Some(now + 50 * MILLISECOND),
            ];
            self.wait(next.into_iter().flatten().min()).await;
        }
    }

    /// Ends the record.
    pub(crate) fn finish(&mut self) -> anyhow::Result<()> {
        let (events, events_acknowledged) = self.core.events();
        let entry = Entry::End {
            calls: self.core.counts().calls,
            events,
            events_acknowledged,
        };
        self.writer.write(&Line {
            at: self.clock.now(),
            entry,
        })?;
        self.writer.flush()
    }

    /// Takes what the network brought, does what is due, sends what there is room for.
    pub(crate) async fn turn(&mut self) -> anyhow::Result<Us> {
        // Lets the streams' tasks run between two turns even when there is always work.
        tokio::task::yield_now().await;
        let now = self.clock.now();
        self.take(now);
        while let Ok(entry) = self.notes.try_recv() {
            if let Entry::Fault { target, up } = &entry {
                self.progress.announce(&format!(
                    "{target} {}",
                    if *up { "is back" } else { "is killed" }
                ));
            }
            self.lines.push(Line { at: now, entry });
        }
        self.core.tick(now);
        for node in self.core.take_dead_nodes() {
            for kind in StreamKind::ALL {
                self.senders.remove(&(node, kind));
            }
        }
        self.flush(now);
        Ok(now)
    }

    fn take(&mut self, now: Us) {
        let mut frames = std::mem::take(&mut self.buffer);
        while frames.len() < TURN_MAX {
            match self.inbound.try_recv() {
                Ok(frame) => frames.push(frame),
                Err(_) => break,
            }
        }
        for frame in frames.drain(..) {
            match frame {
                Inbound::Opening {
                    node,
                    kind,
                    generation,
                    sender,
                } => {
                    sender.send(self.core.opened(node, kind));
                    self.senders.insert((node, kind), (generation, sender));
                }
                Inbound::Dialogues(node, frame) => self.core.dialogues(now, node, frame),
                Inbound::Events(node, frame) => self.core.event_acks(now, node, frame),
                Inbound::Commands(node, frame) => self.core.commands(now, node, frame),
                Inbound::Lost {
                    node,
                    kind,
                    generation,
                } => {
                    self.core.lost(now, node, kind);
                    if self
                        .senders
                        .get(&(node, kind))
                        .is_some_and(|(known, _)| *known == generation)
                    {
                        self.senders.remove(&(node, kind));
                    }
                }
            }
        }
        self.buffer = frames;
    }

    /// Sends what there is room for.
    pub(crate) fn flush(&mut self, now: Us) {
        for ((node, kind), (_, sender)) in &self.senders {
            while sender.has_room() {
                let Some(frame) = self.core.next_frame(now, *node, *kind) else {
                    break;
                };
                sender.send(frame);
            }
        }
    }

    fn write(&mut self) -> anyhow::Result<()> {
        self.core.take_record(&mut self.lines);
        for line in self.lines.drain(..) {
            if let Entry::Answer { us, .. } = &line.entry {
                self.progress.answered(*us);
            }
            self.writer.write(&line)?;
        }
        Ok(())
    }

    fn second(&mut self, now: Us, people: &mut People) -> anyhow::Result<()> {
        if now < self.next_second {
            return Ok(());
        }
        self.next_second = now + SECOND;
        let us = people.take_arrival_lag();
        self.writer.write(&Line {
            at: now,
            entry: Entry::Lag { us },
        })?;
        self.progress
            .show(now, self.core.counts(), people.bookings());
        self.events_node.send_replace(self.core.events_node());
        Ok(())
    }

    /// Waits for the network, at most until `until`.
    pub(crate) async fn wait(&mut self, until: Option<Us>) {
        let until = until.unwrap_or_else(|| self.clock.now() + 50 * MILLISECOND);
        let instant = tokio::time::Instant::from_std(self.clock.instant(until));
        tokio::select! {
            biased;
            frame = self.inbound.recv() => {
                if let Some(frame) = frame {
                    self.buffer.push(frame);
                }
            }
            () = tokio::time::sleep_until(instant) => {}
        }
    }
}
