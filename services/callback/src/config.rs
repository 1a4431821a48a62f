//! The role's options: each a flag and an environment variable, checked before a port is
//! bound, never changed afterwards.

use std::path::PathBuf;

use anyhow::bail;
use domain::callback::Rules;
use domain::policy::Policy;
use runtime::Secret;

use crate::faults::Faults;

/// Callbacks: bookings, windows, attempts
#[derive(clap::Args, Clone, Debug)]
pub struct Config {
    #[command(flatten)]
    #[expect(
        missing_docs,
        reason = "a doc comment here would become the command's help"
    )]
    pub runtime: runtime::Args,
    /// Redis of the bookings, with `appendfsync always`; may hold a password
    #[arg(
        long,
        env = "TRUNKLINE_REDIS_URL",
        default_value = "redis://127.0.0.1:6379/"
    )]
    pub redis_url: Secret,
    /// First part of every key
    #[arg(long, env = "TRUNKLINE_KEY_PREFIX", default_value = "trunkline")]
    pub key_prefix: String,
    /// How long one Redis command may take, in ms
    #[arg(long, env = "TRUNKLINE_REDIS_TIMEOUT_MS", default_value_t = 1_000)]
    pub redis_timeout_ms: u64,
    /// Refuse bookings when Redis does not make them durable before it answers
    #[arg(long, env = "TRUNKLINE_REQUIRE_DURABLE", default_value_t = true, action = clap::ArgAction::Set)]
    pub require_durable: bool,
    /// Redis replicas that must have a booking before it is accepted (WAIT); 0: the disk must
    #[arg(long, env = "TRUNKLINE_DURABLE_REPLICAS", default_value_t = 0)]
    pub durable_replicas: u32,
    /// Routing replicas: host:port, comma separated; a DNS name stands for all its addresses
    #[arg(
        long,
        env = "TRUNKLINE_ROUTING_ENDPOINTS",
        value_delimiter = ',',
        default_value = "127.0.0.1:7130"
    )]
    pub routing_endpoints: Vec<String>,
    /// How often DNS names among the endpoints are resolved again, in ms
    #[arg(long, env = "TRUNKLINE_RESOLVE_PERIOD_MS", default_value_t = 5_000)]
    pub resolve_period_ms: u64,
    /// Folder of policy documents (*.yaml); absent: the worked example in the binary
    #[arg(long, env = "TRUNKLINE_POLICY_DIR")]
    pub policy_dir: Option<PathBuf>,
    /// Parts of the key space, spread over the replicas; never change it under live bookings
    #[arg(long, env = "TRUNKLINE_SHARDS", default_value_t = 16)]
    pub shards: u16,
    /// How long a crashed replica keeps others from its shards, in ms; renewed every third of it
    #[arg(long, env = "TRUNKLINE_SHARD_LEASE_MS", default_value_t = 3_000)]
    pub shard_lease_ms: u64,
    /// How often a shard is looked at when nothing wakes it, in ms
    #[arg(long, env = "TRUNKLINE_POLL_PERIOD_MS", default_value_t = 100)]
    pub poll_period_ms: u64,
    /// Entries taken from a shard at once. 256 records of 600 bytes are 150 KiB, 2 ms of Redis
    #[arg(long, env = "TRUNKLINE_BATCH_ENTRIES_MAX", default_value_t = 256)]
    pub batch_entries_max: usize,
    /// Record changes in flight at once
    #[arg(long, env = "TRUNKLINE_CHANGES_IN_FLIGHT_MAX", default_value_t = 256)]
    pub changes_in_flight_max: usize,
    /// Bookings and cancellations of one gateway in flight at once; beyond it its link is not read
    #[arg(
        long,
        env = "TRUNKLINE_REQUESTS_IN_FLIGHT_MAX",
        default_value_t = 1_024
    )]
    pub requests_in_flight_max: usize,
    /// Messages that may wait for one gateway; beyond it no dial goes there
    #[arg(
        long,
        env = "TRUNKLINE_GATEWAY_QUEUE_MESSAGES",
        default_value_t = 2_048
    )]
    pub gateway_queue_messages: usize,
    /// Gateways that may be linked at once
    #[arg(long, env = "TRUNKLINE_GATEWAYS_MAX", default_value_t = 256)]
    pub gateways_max: usize,
    /// How long a booking may take to be durable, in ms; then it is refused (and withdrawn).
    /// Less than the 2 s for which a gateway keeps the caller
    #[arg(long, env = "TRUNKLINE_BOOK_TIMEOUT_MS", default_value_t = 1_500)]
    pub book_timeout_ms: u64,
    /// How long a booking waits for routing to hold the place before it is accepted all the same, in ms
    #[arg(long, env = "TRUNKLINE_REGISTER_WAIT_MS", default_value_t = 500)]
    pub register_wait_ms: u64,
    /// From one sending of a report to routing to the next, in ms
    #[arg(long, env = "TRUNKLINE_REPORT_RETRY_MS", default_value_t = 2_000)]
    pub report_retry_ms: u64,
    /// How often agents at work are asked of routing for the forecast, in ms
    #[arg(long, env = "TRUNKLINE_FORECAST_PERIOD_MS", default_value_t = 15_000)]
    pub forecast_period_ms: u64,
    /// Farthest start of a window, in hours from now
    #[arg(long, env = "TRUNKLINE_WINDOW_AHEAD_HOURS_MAX", default_value_t = 336)]
    pub window_ahead_hours_max: u64,
    /// How long an ended booking can still be asked for, in ms
    #[arg(long, env = "TRUNKLINE_ENDED_TTL_MS", default_value_t = 86_400_000)]
    pub ended_ttl_ms: u64,
    /// Oldest booking, in hours; then it is exhausted
    #[arg(long, env = "TRUNKLINE_BOOKING_LIFE_HOURS", default_value_t = 384)]
    pub booking_life_hours: u64,
    /// For tests: rules that differ from policy's.
    #[arg(skip)]
    pub rules: Option<Rules>,
    /// For tests: where this replica is lost.
    #[arg(skip)]
    pub faults: Faults,
}

impl Config {
    /// A configuration for a test on `redis_url`, its keys under `key_prefix`.
    #[must_use]
    pub fn for_test(redis_url: &str, key_prefix: &str, routing_endpoints: &[String]) -> Self {
        Self {
            runtime: runtime::Args::for_test(),
            redis_url: Secret::new(redis_url),
            key_prefix: key_prefix.to_owned(),
            redis_timeout_ms: 1_000,
            require_durable: true,
            durable_replicas: 0,
            routing_endpoints: routing_endpoints.to_vec(),
            resolve_period_ms: 1_000,
            policy_dir: None,
            shards: 16,
            shard_lease_ms: 600,
            poll_period_ms: 50,
            batch_entries_max: 256,
            changes_in_flight_max: 256,
            requests_in_flight_max: 1_024,
            gateway_queue_messages: 2_048,
            gateways_max: 16,
            book_timeout_ms: 2_500,
            register_wait_ms: 300,
            report_retry_ms: 300,
            forecast_period_ms: 200,
            window_ahead_hours_max: 336,
            ended_ttl_ms: 60_000,
            booking_life_hours: 384,
            rules: None,
            faults: Faults::default(),
        }
    }

    /// Checks the options against their limits and each other.
    ///
    /// # Errors
    /// Names the option, the limit and the value.
    pub fn check(&self) -> anyhow::Result<()> {
        self.runtime.check()?;
        let prefix = &self.key_prefix;
        let named = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        if prefix.is_empty() || prefix.len() > 64 || !prefix.bytes().all(named) {
            // Braces would break the hash tag, a colon the parsing of keys.
            bail!("key_prefix: {prefix:?} is outside the limit: 1 to 64 bytes of [A-Za-z0-9._-]");
        }
        if self.routing_endpoints.is_empty() || self.routing_endpoints.len() > 64 {
            bail!(
                "routing_endpoints: {} is outside the limit: 1 to 64",
                self.routing_endpoints.len()
            );
        }
        within("redis_timeout_ms", self.redis_timeout_ms, 20, 30_000)?;
        within("durable_replicas", self.durable_replicas.into(), 0, 16)?;
        within("resolve_period_ms", self.resolve_period_ms, 100, 600_000)?;
        within("shards", self.shards.into(), 1, 256)?;
        within("shard_lease_ms", self.shard_lease_ms, 300, 60_000)?;
        within("poll_period_ms", self.poll_period_ms, 10, 10_000)?;
        within("batch_entries_max", self.batch_entries_max as u64, 1, 4_096)?;
        within(
            "changes_in_flight_max",
            self.changes_in_flight_max as u64,
            1,
            65_536,
        )?;
        within(
            "requests_in_flight_max",
            self.requests_in_flight_max as u64,
            1,
            65_536,
        )?;
        within(
            "gateway_queue_messages",
            self.gateway_queue_messages as u64,
            256,
            1 << 20,
        )?;
        within("gateways_max", self.gateways_max as u64, 1, 1_000)?;
        within("book_timeout_ms", self.book_timeout_ms, 100, 30_000)?;
        within(
            "register_wait_ms",
            self.register_wait_ms,
            0,
            self.book_timeout_ms,
        )?;
        within("report_retry_ms", self.report_retry_ms, 100, 60_000)?;
        within("forecast_period_ms", self.forecast_period_ms, 100, 600_000)?;
        within(
            "window_ahead_hours_max",
            self.window_ahead_hours_max,
            1,
            24 * 90,
        )?;
        within("ended_ttl_ms", self.ended_ttl_ms, 1_000, 30 * 86_400_000)?;
        within("booking_life_hours", self.booking_life_hours, 1, 24 * 100)?;
        if self.booking_life_hours < self.window_ahead_hours_max + 24 {
            bail!(
                "booking_life_hours: {} is outside the limit: a day beyond window_ahead_hours_max ({})",
                self.booking_life_hours,
                self.window_ahead_hours_max
            );
        }
        Ok(())
    }

    /// The rules that govern a booking's life.
    pub(crate) fn rules(&self, policy: &Policy) -> Rules {
        self.rules.unwrap_or_else(|| Rules {
            life_max_ms: self.booking_life_hours * 3_600_000,
            ..Rules::new(&policy.callback)
        })
    }
}

fn within(option: &str, value: u64, min: u64, max: u64) -> anyhow::Result<()> {
    if !(min..=max).contains(&value) {
        bail!("{option}: {value} is outside the limit: {min} to {max}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sound() -> Config {
        Config::for_test(
            "redis://127.0.0.1:6379/",
            "test",
            &["127.0.0.1:7130".to_owned()],
        )
    }

    #[test]
    fn the_test_configuration_is_sound() {
        sound().check().expect("sound");
    }

    #[test]
    fn a_bad_option_is_named_with_its_limit_and_value() {
        type Spoil = fn(&mut Config);
        let cases: [(&str, Spoil); 5] = [
            ("key_prefix", |config| config.key_prefix = "a{b".to_owned()),
            ("shards", |config| config.shards = 0),
            ("routing_endpoints", |config| {
                config.routing_endpoints.clear()
            }),
            ("register_wait_ms", |config| {
                config.register_wait_ms = 60_000
            }),
            ("booking_life_hours", |config| {
                config.booking_life_hours = 340
            }),
        ];
        for (option, spoil) in cases {
            let mut config = sound();
            spoil(&mut config);
            let error = config.check().expect_err(option).to_string();
            assert!(
                error.starts_with(option) && error.contains("outside the limit"),
                "{error}"
            );
        }
    }
}
