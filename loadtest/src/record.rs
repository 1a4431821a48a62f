//! The switch's own record: what happened at its phones, call by call, independent of the
//! mesh. The checker holds the mesh's log against it.
//!
//! One JSON object a line, written as it happens through a buffer of a MiB: a run that is
//! killed leaves a record that can still be checked. A binary form would be smaller; this
//! one can be read with `grep`, and at 20,000 entries/s costs a few percent of a core.
//! Callers appear by their index in the scenario, never by number.

use std::fs::File;
use std::io::{BufRead as _, BufReader, BufWriter, Write as _};
use std::path::Path;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::time::Us;

/// A call at the switch: numbered from 1 within the run.
pub(crate) type CallNumber = u64;

/// One entry, with its time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Line {
    /// When, epoch microseconds.
    pub(crate) at: Us,
    /// What.
    #[serde(flatten)]
    pub(crate) entry: Entry,
}

/// What can happen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "e", rename_all = "snake_case")]
pub(crate) enum Entry {
    /// First entry: the run.
    Run(RunInfo),
    /// A call reached the switch, or (callback) its leg was answered.
    Call {
        call: CallNumber,
        caller: u32,
        leg: Leg,
        intended: Us,
        contact: String,
        topic: String,
        language: String,
    },
    /// The mesh is asked; again after a lost link, with the same dialogue and round.
    Request {
        call: CallNumber,
        dialogue: u32,
        round: u32,
        node: u32,
    },
    /// The mesh answered in time. `us`: since the intended start; `error`: of an end, as in
    /// cti.v1.RouteEndError.
    Answer {
        call: CallNumber,
        dialogue: u32,
        round: u32,
        node: u32,
        kind: AnswerKind,
        error: i32,
        contact: String,
        us: u64,
        agent: String,
        queue: String,
        expected_wait_ms: u64,
        low_ms: u64,
        high_ms: u64,
        offers: u32,
    },
    /// An answer to a dialogue that was over.
    Late {
        call: CallNumber,
        dialogue: u32,
        kind: AnswerKind,
    },
    /// The same answer from a second node that had been asked.
    SecondAnswer {
        call: CallNumber,
        dialogue: u32,
        same: bool,
    },
    /// The switch took its default route. `link_up`: the node asked last was attached all
    /// the time since; `slow_us`: by how much the harness itself was late.
    Default {
        call: CallNumber,
        dialogue: u32,
        round: u32,
        why: DefaultWhy,
        link_up: bool,
        slow_us: u64,
    },
    /// The caller gave up while the mesh was asked.
    GaveUpAsking {
        call: CallNumber,
        dialogue: u32,
        round: u32,
    },
    /// The mesh refused a message.
    Refused {
        about: String,
        field: String,
        limit: String,
    },
    /// The call sits at a queue's device.
    Queued {
        call: CallNumber,
        contact: String,
        queue: String,
    },
    /// It rings at an agent.
    Rings {
        call: CallNumber,
        contact: String,
        agent: String,
    },
    /// The agent answered.
    Established {
        call: CallNumber,
        contact: String,
        agent: String,
    },
    /// The agent is done with the call, or no longer rings.
    Released {
        call: CallNumber,
        contact: String,
        agent: String,
        why: Release,
    },
    /// The mesh sent a call to an agent who has another one.
    AgentBusy {
        call: CallNumber,
        contact: String,
        agent: String,
        holds: CallNumber,
        since: Us,
    },
    /// The call is over.
    Cleared {
        call: CallNumber,
        contact: String,
        cause: i32,
        routed_by: i32,
        waited: bool,
    },
    /// The caller heard that the callback is booked.
    Booked {
        call: CallNumber,
        contact: String,
        caller: u32,
        code: String,
        window: Option<(u64, u64)>,
    },
    /// The caller heard that it is not.
    BookingFailed { call: CallNumber, contact: String },
    /// The caller cancelled a booking.
    CancelAsked { call: CallNumber, code: String },
    /// The mesh had the switch dial.
    Dial {
        dial: u64,
        contact: String,
        caller: Option<u32>,
    },
    /// What became of it. The leg of an answered dial ends with its own `cleared`.
    DialEnded {
        dial: u64,
        contact: String,
        outcome: i32,
        call: Option<CallNumber>,
    },
    /// A command could not be carried out.
    CommandFailed {
        kind: String,
        call: CallNumber,
        error: i32,
    },
    /// An agent logged on.
    Agent {
        agent: String,
        skills: Vec<(String, u32)>,
        languages: Vec<String>,
    },
    /// A node's stream came up or went down.
    Link { node: u32, stream: String, up: bool },
    /// The harness broke something, or mended it.
    Fault { target: String, up: bool },
    /// No more calls arrive; those in line are waited for.
    Drain,
    /// A callback that had not ended at the end of the run, as the callback role tells it.
    Pending {
        contact: String,
        found: bool,
        state: String,
    },
    /// How late the harness ran its own timers, worst of a second.
    Lag { us: u64 },
    /// Last entry.
    End {
        calls: u64,
        events: u64,
        events_acknowledged: u64,
    },
}

/// The run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct RunInfo {
    /// The scenario.
    pub(crate) scenario: String,
    /// Its sentence.
    pub(crate) title: String,
    /// Its seed.
    pub(crate) seed: u64,
    /// The switch.
    pub(crate) switch_id: String,
    /// Its boot.
    pub(crate) boot_id: u64,
    /// The nodes, by index.
    pub(crate) nodes: Vec<String>,
    /// Kafka, embedded or Apache, for the report.
    pub(crate) kafka: String,
    /// Calls scheduled.
    pub(crate) scheduled: u64,
    /// Callers' numbers that may have been used: below this index.
    pub(crate) callers: u32,
}

/// Why a call came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Leg {
    /// As scheduled.
    New,
    /// After giving up.
    Redial,
    /// The need was not resolved.
    Repeat,
    /// To cancel a booking.
    Cancel,
    /// A callback that was answered.
    Callback,
}

/// Kinds of answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum AnswerKind {
    /// An agent.
    Agent,
    /// A place in line.
    Queue,
    /// A message.
    Message,
    /// A message because of load.
    Overload,
    /// Back to the network.
    Reject,
    /// The mesh says: default route.
    End,
}

/// Why the default route was taken; numbered as cti.v1.RoutedBy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum DefaultWhy {
    /// The timer ran out.
    Timer,
    /// The mesh said so.
    Mesh,
    /// No link, or no credit.
    NoLink,
}

/// How an agent's part in a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Release {
    /// The conversation is over.
    Ended,
    /// It rang in vain.
    NotAnswered,
    /// The mesh moved the call while it rang.
    MovedWhileRinging,
    /// The mesh moved the call to somebody else.
    Transferred,
    /// The caller was gone.
    CallerGone,
}

/// Writes the record.
#[derive(Debug)]
pub(crate) struct Writer {
    file: BufWriter<File>,
    lines: u64,
}

impl Writer {
    /// A new record.
    pub(crate) fn create(path: &Path) -> anyhow::Result<Self> {
        let file = File::create(path)
            .with_context(|| format!("creating the record {}", path.display()))?;
        Ok(Self {
            file: BufWriter::with_capacity(1 << 20, file),
            lines: 0,
        })
    }

    /// Writes one line.
    pub(crate) fn write(&mut self, line: &Line) -> anyhow::Result<()> {
        serde_json::to_writer(&mut self.file, line).context("writing the record")?;
        self.file.write_all(b"\n").context("writing the record")?;
        self.lines += 1;
        Ok(())
    }

    /// Flushes what is buffered.
    pub(crate) fn flush(&mut self) -> anyhow::Result<()> {
        self.file.flush().context("writing the record")
    }
}

/// Reads a record; a last line that was cut off is left out.
pub(crate) fn read(path: &Path) -> anyhow::Result<Vec<Line>> {
    let file =
        File::open(path).with_context(|| format!("opening the record {}", path.display()))?;
    let mut reader = BufReader::with_capacity(1 << 20, file);
    let mut lines = Vec::new();
    let mut text = String::new();
    loop {
        text.clear();
        if reader.read_line(&mut text)? == 0 {
            return Ok(lines);
        }
        match serde_json::from_str(&text) {
            Ok(line) => lines.push(line),
            Err(_) if !text.ends_with('\n') => return Ok(lines),
            Err(error) => {
                return Err(error)
                    .with_context(|| format!("{}: line {}", path.display(), lines.len() + 1));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again_and_a_cut_last_line_is_left_out() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("record.jsonl");
        let lines = [
            Line {
                at: 5,
                entry: Entry::Drain,
            },
            Line {
                at: 6,
                entry: Entry::Booked {
                    call: 1,
                    contact: "c".into(),
                    caller: 2,
                    code: "123456".into(),
                    window: Some((1, 2)),
                },
            },
        ];
        let mut writer = Writer::create(&path).unwrap();
        for line in &lines {
            writer.write(line).unwrap();
        }
        writer.flush().unwrap();
        assert_eq!(read(&path).unwrap(), lines);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, &text[..text.len() - 5]).unwrap();
        assert_eq!(read(&path).unwrap(), lines[..1]);
    }
}
