//! Around the core: streams, peers, time.
//!
//! | file | does |
//! |---|---|
//! | `codec` | decodes a frame part by part, so that one bad message costs one message |
//! | `switch` | the gRPC services that a switch calls |
//! | `peers` | long-lived links to routing, intent and callback |
//! | `driver` | the one task that owns the core |

pub(crate) mod codec;
pub(crate) mod driver;
pub(crate) mod peers;
pub(crate) mod switch;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use proto::{callback, cti, intent, routing};
use tokio::sync::{Semaphore, mpsc};
use tonic::Status;

use crate::core::{Input, LinkId};

/// Where the core's frames for a link go. Each is bounded; a full one ends its link.
#[derive(Debug)]
pub(crate) enum Sink {
    Dialogues(mpsc::Sender<Result<cti::v1::DialoguesResponse, Status>>),
    /// With it, how many events may be read.
    Events(
        mpsc::Sender<Result<cti::v1::EventsResponse, Status>>,
        Arc<Semaphore>,
    ),
    Commands(mpsc::Sender<Result<cti::v1::CommandsResponse, Status>>),
    Routing(mpsc::Sender<routing::v1::LinkRequest>),
    Intent(mpsc::Sender<intent::v1::LinkRequest>),
    Callback(mpsc::Sender<callback::v1::LinkRequest>),
}

/// To the core's task.
#[derive(Debug)]
pub(crate) struct ToCore {
    /// Set when the input opens a link.
    pub(crate) sink: Option<(LinkId, Sink)>,
    pub(crate) input: Input,
}

/// The two ways to the core. Dialogues and peers go first; events of switches wait for
/// them, so that a burst of events cannot delay an answer.
#[derive(Clone, Debug)]
pub(crate) struct Ways {
    pub(crate) fast: mpsc::Sender<ToCore>,
    pub(crate) slow: mpsc::Sender<ToCore>,
    links: Arc<AtomicU64>,
}

/// Frames waiting for the core: what a burst of 10 ms leaves behind.
const FAST_FRAMES: usize = 1_024;
/// Frames of events waiting: each holds up to 512.
const SLOW_FRAMES: usize = 64;
/// Frames of the core waiting for a stream: at one a millisecond, four seconds of a stalled
/// reader.
pub(crate) const SINK_FRAMES: usize = 4_096;

impl Ways {
    /// New ways, with the receivers for the core's task.
    pub(crate) fn new() -> (Self, mpsc::Receiver<ToCore>, mpsc::Receiver<ToCore>) {
        let (fast, fast_receiver) = mpsc::channel(FAST_FRAMES);
        let (slow, slow_receiver) = mpsc::channel(SLOW_FRAMES);
        let links = Arc::new(AtomicU64::new(0));
        (Self { fast, slow, links }, fast_receiver, slow_receiver)
    }

    /// A name for a new link.
    pub(crate) fn link(&self) -> LinkId {
        self.links.fetch_add(1, Ordering::Relaxed) + 1
    }
}
