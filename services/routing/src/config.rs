//! The role's configuration: parsed once, checked before a port is bound, never changed.

use std::path::PathBuf;

use anyhow::bail;
use runtime::Secret;

/// Who waits, who is ready, who gets whom: owns pools
#[derive(clap::Args, Clone, Debug)]
pub struct Config {
    #[command(flatten)]
    #[expect(
        missing_docs,
        reason = "a doc comment here would become the command's help"
    )]
    pub runtime: runtime::Args,
    /// Redis of routing's state and outboxes; may hold a password
    #[arg(
        long,
        env = "TRUNKLINE_REDIS_URL",
        default_value = "redis://127.0.0.1:6379/"
    )]
    pub redis_url: Secret,
    /// First part of every key
    #[arg(long, env = "TRUNKLINE_KEY_PREFIX", default_value = "trunkline")]
    pub key_prefix: String,
    /// Folder of policy documents; none: the embedded example
    #[arg(long, env = "TRUNKLINE_POLICY_DIR")]
    pub policy_dir: Option<PathBuf>,
    /// Pools to compete for, separated by commas; none: all of policy's
    #[arg(long, env = "TRUNKLINE_POOLS", value_delimiter = ',')]
    pub pools: Vec<String>,
    /// How long a crashed owner keeps others away, in ms; renewed every third of it
    #[arg(long, env = "TRUNKLINE_LEASE_MS", default_value_t = 2_000)]
    pub lease_ms: u64,
    /// How long one Redis command may take before it is sent again, in ms
    #[arg(long, env = "TRUNKLINE_REDIS_TIMEOUT_MS", default_value_t = 500)]
    pub redis_timeout_ms: u64,
    /// Most inputs of one commit. 512 inputs are some 1,500 records and events, 4 ms of
    /// Redis: nobody else waits longer than that
    #[arg(long, env = "TRUNKLINE_BATCH_INPUTS_MAX", default_value_t = 512)]
    pub batch_inputs_max: usize,
    /// Inputs that may wait for a pool; beyond it the links stop reading. Half a second of
    /// the national peak (1,500 calls/s of 10 inputs)
    #[arg(long, env = "TRUNKLINE_INBOX_INPUTS", default_value_t = 8_192)]
    pub inbox_inputs: usize,
    /// Messages that may wait for a peer; beyond it the peer is disconnected
    #[arg(long, env = "TRUNKLINE_PEER_QUEUE_MESSAGES", default_value_t = 65_536)]
    pub peer_queue_messages: usize,
    /// Peers that may be linked at once
    #[arg(long, env = "TRUNKLINE_PEERS_MAX", default_value_t = 512)]
    pub peers_max: usize,
    /// Commands (and callback turns and notices) of a pool kept while nobody is linked who
    /// could take them
    #[arg(long, env = "TRUNKLINE_PENDING_MAX", default_value_t = 4_096)]
    pub pending_max: usize,
    /// Events that may wait in a pool's outbox; beyond it new contacts take the default
    /// route and only known ones are followed
    #[arg(long, env = "TRUNKLINE_OUTBOX_MAX", default_value_t = 2_000_000)]
    pub outbox_max: u64,
    /// Committed batches kept for a Redis that comes back without its last second, in
    /// bytes a pool
    #[arg(long, env = "TRUNKLINE_REPLAY_BYTES", default_value_t = 64 * 1024 * 1024)]
    pub replay_bytes: usize,
}

impl Config {
    /// A configuration for a test on `redis_url`, its keys under `key_prefix`.
    #[must_use]
    pub fn for_test(redis_url: &str, key_prefix: &str) -> Self {
        Self {
            runtime: runtime::Args::for_test(),
            redis_url: Secret::new(redis_url),
            key_prefix: key_prefix.to_owned(),
            policy_dir: None,
            pools: Vec::new(),
            lease_ms: 600,
            redis_timeout_ms: 150,
            batch_inputs_max: 512,
            inbox_inputs: 8_192,
            peer_queue_messages: 65_536,
            peers_max: 64,
            pending_max: 4_096,
            outbox_max: 2_000_000,
            replay_bytes: 64 * 1024 * 1024,
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
        within("lease_ms", self.lease_ms, 300, 60_000)?;
        within("redis_timeout_ms", self.redis_timeout_ms, 20, 30_000)?;
        if self.redis_timeout_ms * 3 > self.lease_ms {
            bail!(
                "redis_timeout_ms: {} is outside the limit: a third of lease_ms ({}), so that a lost renewal is made up for",
                self.redis_timeout_ms,
                self.lease_ms
            );
        }
        within("batch_inputs_max", self.batch_inputs_max as u64, 1, 4_096)?;
        within(
            "inbox_inputs",
            self.inbox_inputs as u64,
            FRAME_INPUTS_MAX as u64,
            1 << 20,
        )?;
        if self.batch_inputs_max > self.inbox_inputs {
            bail!(
                "batch_inputs_max: {} is outside the limit: inbox_inputs ({})",
                self.batch_inputs_max,
                self.inbox_inputs
            );
        }
        // One frame of replies must fit, or no peer could live.
        within(
            "peer_queue_messages",
            self.peer_queue_messages as u64,
            2_048,
            1 << 24,
        )?;
        within("peers_max", self.peers_max as u64, 1, 1_000)?;
        within("pending_max", self.pending_max as u64, 16, 1 << 20)?;
        within("outbox_max", self.outbox_max, 1, 1 << 40)?;
        within("replay_bytes", self.replay_bytes as u64, 1 << 20, 1 << 34)?;
        Ok(())
    }
}

/// Most inputs of one frame: the contract's number.
pub(crate) const FRAME_INPUTS_MAX: usize = 512;

fn within(name: &str, value: u64, min: u64, max: u64) -> anyhow::Result<()> {
    if !(min..=max).contains(&value) {
        bail!("{name}: {value} is outside the limit: {min} to {max}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(change: impl FnOnce(&mut Config)) -> String {
        let mut config = Config::for_test("redis://127.0.0.1:1/", "t");
        change(&mut config);
        config.check().expect_err("must be refused").to_string()
    }

    #[test]
    fn options_outside_their_limits_are_refused_by_name() {
        Config::for_test("redis://127.0.0.1:1/", "t")
            .check()
            .expect("the base is good");
        for (text, name) in [
            (refusal(|config| config.lease_ms = 10), "lease_ms: 10"),
            (
                refusal(|config| config.redis_timeout_ms = 300),
                "redis_timeout_ms: 300",
            ),
            (
                refusal(|config| config.key_prefix = "a{b}".into()),
                "key_prefix: \"a{b}\"",
            ),
            (
                refusal(|config| config.batch_inputs_max = 0),
                "batch_inputs_max: 0",
            ),
            (
                refusal(|config| config.inbox_inputs = 100),
                "inbox_inputs: 100",
            ),
            (
                refusal(|config| config.peer_queue_messages = 1),
                "peer_queue_messages: 1",
            ),
        ] {
            assert!(text.starts_with(name), "{text}");
        }
    }

    #[test]
    fn a_password_in_the_redis_url_is_never_printed() {
        let config = Config::for_test("redis://user:word@host/", "t");
        assert!(!format!("{config:?}").contains("word"));
    }
}
