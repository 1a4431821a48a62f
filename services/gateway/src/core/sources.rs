//! Sources: one switch at one boot, and what is kept for it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use domain::TimeMs;
use proto::cti;

use super::{Core, LinkId, Moment, Role, Window};
use crate::admission::Bucket;

/// One switch at one boot.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) number: u64,
    pub(crate) switch: String,
    pub(crate) boot: u64,
}

/// What is kept for a source.
#[derive(Debug)]
pub(super) struct SourceState {
    pub(super) source: Arc<Source>,
    /// Dialogues by cross reference.
    pub(super) dialogue_by_ref: HashMap<String, u64>,
    /// Admission of its own, if configured.
    pub(super) bucket: Option<Bucket>,
    pub(super) window: Window,
    pub(super) commands_link: Option<LinkId>,
    /// Commands that wait for the command stream to come back: announcements only.
    pub(super) held: VecDeque<(TimeMs, cti::v1::Command)>,
    pub(super) last_seen: TimeMs,
}

impl Core {
    /// The source that a hello names; made, and its boot told to every pool, when new.
    pub(super) fn source(&mut self, now: Moment, hello: &cti::v1::Hello) -> u64 {
        let name = (hello.switch_id.clone(), hello.boot_id);
        if let Some(number) = self.source_by_name.get(&name) {
            if let Some(state) = self.sources.get_mut(number) {
                state.last_seen = now.wall;
            }
            return *number;
        }
        let number = self.number();
        let rate = self.config.admission_per_switch_per_second;
        let bucket = (rate > 0).then(|| Bucket::new(rate, rate.div_ceil(2), now.wall));
        let source = Arc::new(Source {
            number,
            switch: name.0.clone(),
            boot: name.1,
        });
        self.sources.insert(
            number,
            SourceState {
                source: Arc::clone(&source),
                dialogue_by_ref: HashMap::new(),
                bucket,
                window: Window::default(),
                commands_link: None,
                held: VecDeque::new(),
                last_seen: now.wall,
            },
        );
        self.source_by_name.insert(name.clone(), number);
        let earlier = self.boot_by_switch.insert(name.0, name.1);
        if earlier != Some(name.1) {
            self.report_boot(now, &source);
        }
        number
    }

    /// Forgets sources that have been silent for twice the cleanup delay.
    pub(super) fn tick_sources(&mut self, now: Moment) {
        let keep_ms = u64::from(self.config.session_cleanup_delay_ms) * 2;
        let used: std::collections::HashSet<u64> = self
            .links
            .values()
            .filter_map(|role| match role {
                Role::Events(source) | Role::Commands(source) => Some(*source),
                _ => None,
            })
            .chain(self.sessions.values().map(|session| session.source.number))
            .collect();
        let mut gone = Vec::new();
        for (number, state) in &mut self.sources {
            if used.contains(number) || !state.window.is_settled() {
                state.last_seen = now.wall;
            } else if now.wall.since(state.last_seen) > keep_ms {
                gone.push(*number);
            }
        }
        for number in gone {
            if let Some(state) = self.sources.remove(&number) {
                self.source_by_name
                    .remove(&(state.source.switch.clone(), state.source.boot));
                for dialogue in state.dialogue_by_ref.into_values() {
                    self.forget(dialogue);
                }
            }
        }
    }
}
