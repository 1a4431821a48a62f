//! What is shown while a run plays: one line that refreshes in a terminal, a line every
//! five seconds elsewhere.

use std::io::{IsTerminal as _, Write as _};

use hdrhistogram::Histogram;

use crate::switch::Counts;
use crate::time::{SECOND, Us};

/// Longest latency the histogram holds, in microseconds: beyond the longest reply timeout.
const LATENCY_MAX_US: u64 = 60 * SECOND;

/// The display.
#[derive(Debug)]
pub(crate) struct Progress {
    terminal: bool,
    began: Us,
    next_line: Us,
    latency: Histogram<u64>,
    last: Counts,
    shown: bool,
}

impl Progress {
    /// A display; `began` is the first call.
    pub(crate) fn new(began: Us) -> anyhow::Result<Self> {
        Ok(Self {
            terminal: std::io::stderr().is_terminal(),
            began,
            next_line: 0,
            latency: new_latency()?,
            last: Counts::default(),
            shown: false,
        })
    }

    /// When the first call comes.
    pub(crate) fn begins(&mut self, began: Us) {
        self.began = began;
    }

    /// An answer took this long from the intended start.
    pub(crate) fn answered(&mut self, us: u64) {
        self.latency.saturating_record(us);
    }

    /// Says something at once.
    pub(crate) fn announce(&mut self, what: &str) {
        if self.terminal && std::mem::take(&mut self.shown) {
            out("\n");
        }
        out(&format!("  -- {what}\n"));
    }

    /// Called every second.
    pub(crate) fn show(&mut self, now: Us, counts: Counts, bookings: usize) {
        let rate = counts.calls - self.last.calls;
        self.last = counts;
        if !self.terminal && now < self.next_line {
            return;
        }
        self.next_line = now + 5 * SECOND;
        let seconds = (now as i64 - self.began as i64) / SECOND as i64;
        let text = format!(
            "{seconds:>4} s  calls {} ({rate}/s)  answered {}  waiting {}  gave up {}  callbacks {} ({bookings} to come)  default-routed {}  p99 {:.1} ms",
            counts.calls,
            counts.established,
            counts.waiting,
            counts.gave_up,
            counts.booked,
            counts.default_timer + counts.default_mesh + counts.default_no_link,
            self.latency.value_at_quantile(0.99) as f64 / 1000.0,
        );
        if self.terminal {
            out(&format!("\r\x1b[2K{text}"));
            self.shown = true;
        } else {
            out(&format!("{text}\n"));
        }
    }
}

/// A histogram of latencies in microseconds, three digits.
pub(crate) fn new_latency() -> anyhow::Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, LATENCY_MAX_US, 3)?)
}

fn out(text: &str) {
    let mut stderr = std::io::stderr().lock();
    // A closed terminal must not end a run.
    let _ = stderr.write_all(text.as_bytes());
    let _ = stderr.flush();
}
