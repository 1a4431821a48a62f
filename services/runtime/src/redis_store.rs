//! One way to connect to Redis: multiplexed, reconnecting, every command with a deadline.

use std::time::Duration;

use anyhow::Context as _;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};

/// A connection that comes back by itself. Lazy: the server may be away now; then commands
/// fail until it is there, which the caller shows on `/ready`.
///
/// # Errors
/// The URL cannot be understood.
pub fn connect(url: &str, response_timeout_ms: u64) -> anyhow::Result<ConnectionManager> {
    let client = redis::Client::open(url).context("redis_url: not redis://host:port/database")?;
    let config = ConnectionManagerConfig::new()
        .set_connection_timeout(Some(Duration::from_secs(1)))
        .set_response_timeout(Some(Duration::from_millis(response_timeout_ms)))
        // A command must fail within its own deadline, so that the caller can decide;
        // the next one connects again.
        .set_number_of_retries(1)
        .set_min_delay(Duration::from_millis(20))
        .set_max_delay(Duration::from_millis(200));
    ConnectionManager::new_lazy_with_config(client, config)
        .context("preparing the Redis connection")
}

/// The URL without its password, for logs.
#[must_use]
pub fn redacted(url: &str) -> String {
    match url.rsplit_once('@') {
        Some((credentials, host)) => {
            let scheme = credentials
                .split_once("://")
                .map_or("redis", |(scheme, _)| scheme);
            format!("{scheme}://[redacted]@{host}")
        }
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_is_cut_from_a_url() {
        assert_eq!(
            redacted("redis://user:word@host:6379/0"),
            "redis://[redacted]@host:6379/0"
        );
        assert_eq!(redacted("redis://host:6379"), "redis://host:6379");
    }
}
