//! From endpoints to links: a DNS name stands for all its addresses, now and later.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use runtime::{LogLimit, Shutdown};
use tokio_util::sync::CancellationToken;

use super::link;
use crate::desk::Desk;

/// Keeps one link to every address of every endpoint until the role closes.
pub(crate) async fn follow_endpoints(desk: Arc<Desk>, shutdown: Shutdown) {
    let period = Duration::from_millis(desk.config.resolve_period_ms);
    let log = LogLimit::new(Duration::from_secs(30));
    let mut links: BTreeMap<SocketAddr, CancellationToken> = BTreeMap::new();
    loop {
        let mut wanted = BTreeSet::new();
        let mut complete = true;
        for endpoint in &desk.config.routing_endpoints {
            let host = endpoint
                .trim_start_matches("http://")
                .trim_start_matches("https://");
            match tokio::net::lookup_host(host).await {
                Ok(addresses) => wanted.extend(addresses.map(|address| (address, host.to_owned()))),
                Err(error) => {
                    complete = false;
                    if let Some(suppressed) = log.check() {
                        tracing::warn!(endpoint = host, %error, suppressed, "a routing endpoint cannot be resolved");
                    }
                }
            }
        }
        for (address, host) in &wanted {
            links.entry(*address).or_insert_with(|| {
                let stop = CancellationToken::new();
                tokio::spawn(link::keep(
                    Arc::clone(&desk),
                    *address,
                    host.clone(),
                    stop.clone(),
                    shutdown.clone(),
                ));
                stop
            });
        }
        if complete {
            // Only a full answer says that an address is gone.
            links.retain(|address, stop| {
                let is_wanted = wanted.iter().any(|(other, _)| other == address);
                if !is_wanted {
                    stop.cancel();
                }
                is_wanted
            });
        }
        tokio::select! {
            biased;
            () = shutdown.closing() => return,
            () = tokio::time::sleep(period) => {}
        }
    }
}
