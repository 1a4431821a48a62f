//! Faults, injected exactly: a test stops a replica between any two steps.
//!
//! In production there are none, and a point costs one check of an `Option`. Rejected:
//! killing the process at random moments only (that is done too, by the load harness): it
//! finds the long windows and misses the short ones.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// Moments at which a replica can be lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Point {
    /// A booking is durable; nobody has been told.
    Booked,
    /// Routing has acknowledged the registration; that is not yet written.
    Registered,
    /// A turn has come from routing; it is not yet written.
    TurnReceived,
    /// Due entries are leased to this worker; none is dialled.
    Taken,
    /// An attempt is written; the dial is not sent.
    DialWritten,
    /// The dial is sent.
    DialSent,
    /// A result has come; it is not yet written.
    ResultReceived,
    /// A result is written.
    ResultWritten,
    /// A notice has come; it is not yet written.
    NoticeReceived,
    /// A notice is written, but not acknowledged.
    NoticeWritten,
    /// Routing has acknowledged a report; that is not yet written.
    ReportAcknowledged,
}

impl Point {
    /// All of them.
    pub const ALL: [Point; 11] = [
        Point::Booked,
        Point::Registered,
        Point::TurnReceived,
        Point::Taken,
        Point::DialWritten,
        Point::DialSent,
        Point::ResultReceived,
        Point::ResultWritten,
        Point::NoticeReceived,
        Point::NoticeWritten,
        Point::ReportAcknowledged,
    ];
}

/// Faults of one replica. `default()`: none.
#[derive(Clone, Debug, Default)]
pub struct Faults(Option<Arc<Inner>>);

#[derive(Debug)]
struct Inner {
    point: Point,
    stopped: AtomicBool,
    reached: Notify,
}

impl Faults {
    /// The replica stops dead the first time it comes to `point`: nothing it does after
    /// that reaches the store, routing or a gateway.
    #[must_use]
    pub fn stop_at(point: Point) -> Self {
        Self(Some(Arc::new(Inner {
            point,
            stopped: AtomicBool::new(false),
            reached: Notify::new(),
        })))
    }

    /// Waits until the point was reached.
    pub async fn reached(&self) {
        if let Some(inner) = &self.0 {
            while !inner.stopped.load(Ordering::SeqCst) {
                inner.reached.notified().await;
            }
        }
    }

    /// Passed here; the last thing this replica does, if it is the point armed.
    pub(crate) async fn pass(&self, point: Point) {
        let Some(inner) = &self.0 else { return };
        if inner.point == point {
            inner.stopped.store(true, Ordering::SeqCst);
            // One permit is kept for a test that asks later.
            inner.reached.notify_one();
        }
        self.gate().await;
    }

    /// Never returns once stopped.
    pub(crate) async fn gate(&self) {
        if let Some(inner) = &self.0
            && inner.stopped.load(Ordering::SeqCst)
        {
            std::future::pending::<()>().await;
        }
    }
}
