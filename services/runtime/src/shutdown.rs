//! The two moments of an end: drain begins, streams close.

use tokio_util::sync::CancellationToken;

/// Told to every part of a role. Drain begins at `request`: stop taking, hand over,
/// finish. Streams end at `close`, which [`crate::Service`] calls when the drain is done.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    requested: CancellationToken,
    closing: CancellationToken,
}

impl Shutdown {
    /// Nothing requested yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Drain begins.
    pub fn request(&self) {
        self.requested.cancel();
    }

    /// Waits until drain begins.
    pub async fn requested(&self) {
        self.requested.cancelled().await;
    }

    /// Whether drain has begun.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        self.requested.is_cancelled()
    }

    /// Streams must end now.
    pub fn close(&self) {
        self.requested.cancel();
        self.closing.cancel();
    }

    /// Waits until streams must end.
    pub async fn closing(&self) {
        self.closing.cancelled().await;
    }

    /// Whether streams must end.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        self.closing.is_cancelled()
    }

    /// A shutdown of its own that also follows this one: each role of `dev` drains with
    /// the process and closes by itself.
    #[must_use]
    pub fn child(&self) -> Self {
        Self {
            requested: self.requested.child_token(),
            closing: self.closing.child_token(),
        }
    }
}
