//! What the role is told at start: each option a flag and an environment variable.

use std::path::PathBuf;

use anyhow::bail;
use domain::outcome::Rules;

/// Configuration of the outcomes role.
#[derive(clap::Args, Clone, Debug)]
pub struct Config {
    /// Redis with the pools' outboxes, the counters and the contacts' states
    #[arg(
        long,
        env = "TRUNKLINE_REDIS_URL",
        default_value = "redis://127.0.0.1:6379/"
    )]
    pub redis_url: String,
    /// Prefix of every Redis key; the same as routing's
    #[arg(long, env = "TRUNKLINE_KEY_PREFIX", default_value = "trunkline")]
    pub key_prefix: String,
    /// Kafka's bootstrap addresses, "host:port", separated by commas
    #[arg(
        long,
        env = "TRUNKLINE_KAFKA_BROKERS",
        default_value = "127.0.0.1:9092"
    )]
    pub kafka_brokers: String,
    /// Topic of the contacts' events
    #[arg(long, env = "TRUNKLINE_TOPIC", default_value = "trunkline.contact.v1")]
    pub topic: String,
    /// Partitions of the topic, if it has to be created, 1 to 1000
    #[arg(long, env = "TRUNKLINE_TOPIC_PARTITIONS", default_value_t = 12)]
    pub partitions: i32,
    /// Replicas of the topic, if it has to be created; -1: the broker's default
    #[arg(long, env = "TRUNKLINE_TOPIC_REPLICATION", default_value_t = -1, allow_negative_numbers = true)]
    pub replication: i32,
    /// Consumer group
    #[arg(long, env = "TRUNKLINE_GROUP", default_value = "trunkline-outcomes")]
    pub group: String,
    /// Run only the relay from the outboxes to Kafka
    #[arg(long, env = "TRUNKLINE_RELAY", conflicts_with = "consume")]
    pub relay: bool,
    /// Run only the consumer that counts
    #[arg(long, env = "TRUNKLINE_CONSUME")]
    pub consume: bool,
    /// Events read from an outbox at once, 1 to 10000
    #[arg(long, env = "TRUNKLINE_RELAY_BATCH_MAX", default_value_t = 500)]
    pub relay_batch_max: usize,
    /// Events of one outbox given to Kafka and not yet acknowledged, at least a batch
    #[arg(long, env = "TRUNKLINE_RELAY_IN_FLIGHT_MAX", default_value_t = 10_000)]
    pub relay_in_flight_max: usize,
    /// Pause before an empty outbox is read again, in ms, 1 to 10000
    #[arg(long, env = "TRUNKLINE_RELAY_POLL_MS", default_value_t = 20)]
    pub relay_poll_ms: u64,
    /// How long an outbox stays with a relay that is gone, in ms, 500 to 60000
    #[arg(long, env = "TRUNKLINE_RELAY_LEASE_MS", default_value_t = 5_000)]
    pub relay_lease_ms: u64,
    /// Events counted in one Redis call, 1 to 10000
    #[arg(long, env = "TRUNKLINE_CONSUME_BATCH_MAX", default_value_t = 2_000)]
    pub consume_batch_max: usize,
    /// How long a contact that is not closed is remembered after its last event, in hours
    #[arg(long, env = "TRUNKLINE_OPEN_HOURS", default_value_t = 24 * 35)]
    pub open_hours: u64,
    /// How long a closed contact is remembered, so that a repeated event is known, in hours
    #[arg(long, env = "TRUNKLINE_CLOSED_HOURS", default_value_t = 24)]
    pub closed_hours: u64,
    /// How long half hours are kept, in days, 1 to 400; totals are kept for good
    #[arg(long, env = "TRUNKLINE_INTERVAL_DAYS", default_value_t = 8)]
    pub interval_days: u64,
    /// Folder with the policy documents; absent: the built-in example
    #[arg(long, env = "TRUNKLINE_POLICY_DIR")]
    pub policy_dir: Option<PathBuf>,
    /// Service level threshold of contacts that had no queue, in ms
    #[arg(
        long,
        env = "TRUNKLINE_SERVICE_LEVEL_DEFAULT_MS",
        default_value_t = 30_000
    )]
    pub service_level_default_ms: u64,
    /// Lines that the legacy level of service covers, separated by commas; empty: all
    #[arg(long, env = "TRUNKLINE_LEGACY_LINES", value_delimiter = ',')]
    pub legacy_lines: Vec<String>,
    /// How long Redis may take to answer, in ms
    #[arg(long, env = "TRUNKLINE_REDIS_TIMEOUT_MS", default_value_t = 2_000)]
    pub redis_timeout_ms: u64,
    /// How often the measures on /metrics are read anew, in ms, 100 to 600000
    #[arg(long, env = "TRUNKLINE_MEASURES_MS", default_value_t = 5_000)]
    pub measures_ms: u64,
    #[command(flatten)]
    #[expect(
        missing_docs,
        reason = "a doc comment here would become the command's help"
    )]
    pub runtime: runtime::Args,
}

fn within<T: PartialOrd + std::fmt::Display>(
    field: &str,
    value: T,
    low: T,
    high: T,
) -> anyhow::Result<()> {
    if value < low || value > high {
        bail!("{field}: {value} is outside the limit: {low} to {high}");
    }
    Ok(())
}

impl Config {
    /// A configuration for a test: free ports, short waits.
    #[must_use]
    pub fn for_test(redis_url: &str, kafka_brokers: &str, key_prefix: &str, topic: &str) -> Self {
        Self {
            redis_url: redis_url.to_owned(),
            key_prefix: key_prefix.to_owned(),
            kafka_brokers: kafka_brokers.to_owned(),
            topic: topic.to_owned(),
            partitions: 4,
            replication: 1,
            group: format!("{topic}-group"),
            relay: false,
            consume: false,
            relay_batch_max: 500,
            relay_in_flight_max: 10_000,
            relay_poll_ms: 5,
            relay_lease_ms: 1_000,
            consume_batch_max: 2_000,
            open_hours: 24,
            closed_hours: 24,
            interval_days: 8,
            policy_dir: None,
            service_level_default_ms: 30_000,
            legacy_lines: Vec::new(),
            redis_timeout_ms: 2_000,
            measures_ms: 200,
            runtime: runtime::Args::for_test(),
        }
    }

    /// Checks the arguments against their limits and each other.
    ///
    /// # Errors
    /// Names the argument, the limit and the value.
    pub fn check(&self) -> anyhow::Result<()> {
        self.runtime.check()?;
        let name = |field: &str, value: &str, length_max: usize| {
            let allowed = |byte: u8| {
                byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b':')
            };
            if value.is_empty() || value.len() > length_max || !value.bytes().all(allowed) {
                bail!(
                    "{field}: {value:?} is outside the limit: 1 to {length_max} bytes of [A-Za-z0-9._:-]"
                );
            }
            Ok(())
        };
        name("key_prefix", &self.key_prefix, 64)?;
        name("topic", &self.topic, 249)?;
        name("group", &self.group, 249)?;
        if self.kafka_brokers.is_empty() {
            bail!("kafka_brokers: empty, give host:port");
        }
        within("partitions", self.partitions, 1, 1_000)?;
        if self.replication != -1 {
            within("replication", self.replication, 1, 16)?;
        }
        if self.relay && self.consume {
            bail!("relay: give one of relay and consume, or none for both");
        }
        within("relay_batch_max", self.relay_batch_max, 1, 10_000)?;
        within(
            "relay_in_flight_max",
            self.relay_in_flight_max,
            self.relay_batch_max,
            1_000_000,
        )?;
        within("relay_poll_ms", self.relay_poll_ms, 1, 10_000)?;
        within("relay_lease_ms", self.relay_lease_ms, 500, 60_000)?;
        within("consume_batch_max", self.consume_batch_max, 1, 10_000)?;
        within("open_hours", self.open_hours, 1, 24 * 400)?;
        within("closed_hours", self.closed_hours, 1, 24 * 400)?;
        within("interval_days", self.interval_days, 1, 400)?;
        within(
            "service_level_default_ms",
            self.service_level_default_ms,
            1,
            86_400_000,
        )?;
        within("redis_timeout_ms", self.redis_timeout_ms, 100, 60_000)?;
        within("measures_ms", self.measures_ms, 100, 600_000)?;
        Ok(())
    }

    /// Whether the relay runs here.
    #[must_use]
    pub const fn relays(&self) -> bool {
        !self.consume
    }

    /// Whether the consumer runs here.
    #[must_use]
    pub const fn consumes(&self) -> bool {
        !self.relay
    }

    /// What the measures need of policy.
    ///
    /// # Errors
    /// The folder cannot be read, or its documents are faulty.
    pub fn rules(&self) -> anyhow::Result<Rules> {
        let policy = runtime::policy::load(self.policy_dir.as_deref())?;
        Ok(Rules::from_policy(
            &policy,
            self.service_level_default_ms,
            self.legacy_lines
                .iter()
                .filter(|line| !line.is_empty())
                .cloned(),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_argument_is_named_with_its_limit_and_value() {
        let good = Config::for_test("redis://127.0.0.1/", "127.0.0.1:1", "t", "topic");
        assert!(good.check().is_ok());
        let spoil = |change: fn(&mut Config)| {
            let mut config = good.clone();
            change(&mut config);
            config.check().expect_err("refused").to_string()
        };
        let text = spoil(|config| config.relay_batch_max = 0);
        assert_eq!(text, "relay_batch_max: 0 is outside the limit: 1 to 10000");
        assert!(spoil(|config| config.relay_in_flight_max = 1).contains("relay_in_flight_max: 1"));
        assert!(spoil(|config| config.key_prefix = "a b".to_owned()).contains("key_prefix"));
        assert!(spoil(|config| config.partitions = 0).contains("partitions: 0"));
        assert!(spoil(|config| (config.relay, config.consume) = (true, true)).contains("relay"));
    }
}
