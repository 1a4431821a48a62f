//! Keeps a pool's lease, and says when it is not kept any more.

use std::sync::Arc;
use std::time::{Duration, Instant};

use runtime::Backoff;
use tokio::sync::watch;

use crate::driver::Context;
use crate::store::PoolStore;

/// How the lease stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lease {
    /// Ours, for some time yet.
    Held,
    /// It has run out and Redis cannot be asked: somebody may have taken over.
    Lapsed,
    /// Somebody has taken over.
    Lost,
}

impl Lease {
    pub(crate) fn is_held(self) -> bool {
        self == Lease::Held
    }
}

/// Renews the lease every third of its time, until it is lost or `told` has nobody left.
/// `asked_at`: when it was asked for, which is before Redis began to count.
pub(crate) async fn keep(
    context: Arc<Context>,
    store: PoolStore,
    epoch: u64,
    lease_ms: u64,
    asked_at: Instant,
    told: watch::Sender<Lease>,
) {
    // A tenth off: our clock may be slow against Redis's.
    let usable = Duration::from_millis(lease_ms - lease_ms / 10);
    let period = Duration::from_millis(lease_ms / 3);
    let mut until = asked_at + usable;
    let mut next = asked_at + period;
    let mut backoff = Backoff::new(20, 100);
    loop {
        tokio::select! {
            biased;
            () = told.closed() => return,
            () = tokio::time::sleep_until(tokio::time::Instant::from_std(next)) => {}
        }
        let asked = Instant::now();
        let renewal = tokio::select! {
            biased;
            renewal = store.renew(epoch) => Some(renewal),
            // No answer before the end: say so in time, and go on asking.
            () = tokio::time::sleep_until(tokio::time::Instant::from_std(until)), if until > asked => None,
        };
        match renewal {
            Some(Ok(true)) => {
                until = asked + usable;
                next = asked + period;
                backoff.reset();
                context.redis.ready();
                tell(
                    &told,
                    if until > Instant::now() {
                        Lease::Held
                    } else {
                        Lease::Lapsed
                    },
                );
            }
            Some(Ok(false)) => {
                tell(&told, Lease::Lost);
                return;
            }
            Some(Err(error)) => {
                context
                    .redis
                    .not_ready(format!("renewing a lease: {error}"));
                if let Some(suppressed) = context.limit.check() {
                    tracing::warn!(%error, suppressed, "a lease cannot be renewed");
                }
                next = (Instant::now() + backoff.next_delay()).min(until.max(Instant::now()));
                if Instant::now() >= until {
                    tell(&told, Lease::Lapsed);
                    next = Instant::now() + backoff.next_delay();
                }
            }
            None => {
                tell(&told, Lease::Lapsed);
                next = Instant::now();
            }
        }
    }
}

fn tell(told: &watch::Sender<Lease>, lease: Lease) {
    told.send_if_modified(|known| std::mem::replace(known, lease) != lease);
}
