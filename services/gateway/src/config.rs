//! The gateway's options: each a flag and an environment variable, checked before a port
//! is bound, never changed afterwards.

use std::path::PathBuf;

use anyhow::bail;
use runtime::Secret;

use crate::keys::Keys;

/// The gateway's options.
#[derive(clap::Args, Clone, Debug)]
pub struct Config {
    #[command(flatten)]
    #[expect(
        missing_docs,
        reason = "a doc comment here would become the command's help"
    )]
    pub runtime: runtime::Args,
    /// Routing replicas: host:port, comma separated; a DNS name stands for all its addresses
    #[arg(
        long,
        env = "TRUNKLINE_ROUTING_ENDPOINTS",
        value_delimiter = ',',
        default_value = "127.0.0.1:7130"
    )]
    pub routing_endpoints: Vec<String>,
    /// Intent replicas, as above; empty: every caller gets the operator's topic
    #[arg(
        long,
        env = "TRUNKLINE_INTENT_ENDPOINTS",
        value_delimiter = ',',
        default_value = "127.0.0.1:7120"
    )]
    pub intent_endpoints: Vec<String>,
    /// Callback replicas, as above; empty: no offer can be booked
    #[arg(
        long,
        env = "TRUNKLINE_CALLBACK_ENDPOINTS",
        value_delimiter = ',',
        default_value = "127.0.0.1:7140"
    )]
    pub callback_endpoints: Vec<String>,
    /// How often DNS names among the endpoints are resolved again, in ms
    #[arg(long, env = "TRUNKLINE_RESOLVE_PERIOD_MS", default_value_t = 5_000)]
    pub resolve_period_ms: u64,
    /// Folder of policy documents (*.yaml); absent: the worked example in the binary
    #[arg(long, env = "TRUNKLINE_POLICY_DIR")]
    pub policy_dir: Option<PathBuf>,

    /// Current pseudonym key, 64 hexadecimal digits; short for one entry in pseudonym-keys
    #[arg(long, env = "TRUNKLINE_PSEUDONYM_KEY", hide_env_values = true)]
    pub pseudonym_key: Option<Secret>,
    /// Pseudonym keys as id:hex, comma separated, the current one first
    #[arg(long, env = "TRUNKLINE_PSEUDONYM_KEYS", hide_env_values = true)]
    pub pseudonym_keys: Option<Secret>,
    /// Current key for callers' numbers, 64 hexadecimal digits; short for one entry in number-keys
    #[arg(long, env = "TRUNKLINE_NUMBER_KEY", hide_env_values = true)]
    pub number_key: Option<Secret>,
    /// Keys for callers' numbers as id:hex, comma separated, the current one first; older ones
    /// only decrypt
    #[arg(long, env = "TRUNKLINE_NUMBER_KEYS", hide_env_values = true)]
    pub number_keys: Option<Secret>,
    /// Key from which contact ids are made, 64 hexadecimal digits; the same at every gateway
    #[arg(long, env = "TRUNKLINE_CONTACT_KEY", hide_env_values = true)]
    pub contact_key: Option<Secret>,
    /// Country code put before numbers of ten digits, so that one caller has one pseudonym
    #[arg(long, env = "TRUNKLINE_COUNTRY_CODE", default_value = "1")]
    pub country_code: String,

    /// Route requests in flight on this node; beyond it callers hear the overload message
    // 500 ms x 15,000/s = 7,500 requests can be open when nothing answers in time.
    #[arg(long, env = "TRUNKLINE_IN_FLIGHT_MAX", default_value_t = 8_192)]
    pub in_flight_max: usize,
    /// New calls a second that this node admits
    // Twice the worst second on record (1,500 calls/s) on one node.
    #[arg(long, env = "TRUNKLINE_ADMISSION_PER_SECOND", default_value_t = 3_000)]
    pub admission_per_second: u32,
    /// New calls admitted at once after a quiet time
    #[arg(long, env = "TRUNKLINE_ADMISSION_BURST", default_value_t = 1_500)]
    pub admission_burst: u32,
    /// New calls a second admitted from one switch; 0: no limit of its own
    #[arg(
        long,
        env = "TRUNKLINE_ADMISSION_PER_SWITCH_PER_SECOND",
        default_value_t = 0
    )]
    pub admission_per_switch_per_second: u32,
    /// Announcement that a caller hears whom admission refuses
    #[arg(
        long,
        env = "TRUNKLINE_OVERLOAD_ANNOUNCEMENT",
        default_value = "all-lines-busy"
    )]
    pub overload_announcement: String,

    /// Route requests that one link may have outstanding
    // 15,000/s x 60 ms from request to answer and back, rounded up.
    #[arg(long, env = "TRUNKLINE_CREDIT", default_value_t = 1_024)]
    pub credit: u32,
    /// Heartbeat period towards the switch, in ms
    #[arg(
        long,
        env = "TRUNKLINE_SYSTEM_STATUS_TIMER_MS",
        default_value_t = 5_000
    )]
    pub system_status_timer_ms: u32,
    /// How long a session outlives its link, in ms
    #[arg(
        long,
        env = "TRUNKLINE_SESSION_CLEANUP_DELAY_MS",
        default_value_t = 60_000
    )]
    pub session_cleanup_delay_ms: u32,
    /// Round-trip time assumed between switch and gateway, in ms: twice it is taken off the
    /// reply timeout
    #[arg(long, env = "TRUNKLINE_LINK_RTT_MS", default_value_t = 2)]
    pub link_rtt_ms: u32,
    /// Longest wait for a topic, in ms
    #[arg(long, env = "TRUNKLINE_INTENT_TIMEOUT_MS", default_value_t = 150)]
    pub intent_timeout_ms: u64,
    /// Share of what is left of the deadline that a topic may take, in percent
    #[arg(long, env = "TRUNKLINE_INTENT_SHARE_PERCENT", default_value_t = 35)]
    pub intent_share_percent: u64,
    /// Answers remembered, so that a repeated request gets the same one
    // Ten seconds at the worst second on record: twice the longest reply timeout.
    #[arg(
        long,
        env = "TRUNKLINE_REMEMBERED_ANSWERS_MAX",
        default_value_t = 16_384
    )]
    pub remembered_answers_max: usize,
    /// Calls remembered, for events that carry no correlator data and for bookings
    #[arg(long, env = "TRUNKLINE_REMEMBERED_CALLS_MAX", default_value_t = 65_536)]
    pub remembered_calls_max: usize,
    /// Events of one switch that may be waiting for routing's acknowledgement; beyond it the
    /// switch's event stream is not read
    #[arg(
        long,
        env = "TRUNKLINE_EVENTS_UNACKNOWLEDGED_MAX",
        default_value_t = 16_384
    )]
    pub events_unacknowledged_max: usize,
    /// How long a booking may take before the caller is told that it failed, in ms
    #[arg(long, env = "TRUNKLINE_BOOKING_TIMEOUT_MS", default_value_t = 2_000)]
    pub booking_timeout_ms: u64,
    /// Share of contacts that are traced when the switch gives no trace context, 0 to 1
    #[arg(long, env = "TRUNKLINE_TRACE_RATIO", default_value_t = 0.0)]
    pub trace_ratio: f64,
}

fn bound(name: &str, value: u64, least: u64, most: u64) -> anyhow::Result<()> {
    if !(least..=most).contains(&value) {
        bail!("{name}: {value} is outside the limit: {least} to {most}");
    }
    Ok(())
}

impl Config {
    /// Options for a test: free ports, the worked example's policy, no peers.
    #[must_use]
    pub fn for_test() -> Self {
        Self {
            runtime: runtime::Args::for_test(),
            routing_endpoints: Vec::new(),
            intent_endpoints: Vec::new(),
            callback_endpoints: Vec::new(),
            resolve_period_ms: 1_000,
            policy_dir: None,
            pseudonym_key: None,
            pseudonym_keys: None,
            number_key: None,
            number_keys: None,
            contact_key: None,
            country_code: "1".to_owned(),
            in_flight_max: 8_192,
            admission_per_second: 3_000,
            admission_burst: 1_500,
            admission_per_switch_per_second: 0,
            overload_announcement: "all-lines-busy".to_owned(),
            credit: 1_024,
            system_status_timer_ms: 5_000,
            session_cleanup_delay_ms: 60_000,
            link_rtt_ms: 2,
            intent_timeout_ms: 150,
            intent_share_percent: 35,
            remembered_answers_max: 16_384,
            remembered_calls_max: 65_536,
            events_unacknowledged_max: 16_384,
            booking_timeout_ms: 2_000,
            trace_ratio: 0.0,
        }
    }

    /// Checks the options against their limits and each other.
    ///
    /// # Errors
    /// Names the option, the limit and the value (never a key).
    pub fn check(&self) -> anyhow::Result<()> {
        self.runtime.check()?;
        let count = |value: usize| value as u64;
        bound("resolve_period_ms", self.resolve_period_ms, 100, 600_000)?;
        bound("in_flight_max", count(self.in_flight_max), 1, 1 << 20)?;
        bound(
            "admission_per_second",
            self.admission_per_second.into(),
            1,
            1_000_000,
        )?;
        bound("admission_burst", self.admission_burst.into(), 1, 1_000_000)?;
        bound("credit", self.credit.into(), 1, 65_536)?;
        bound(
            "system_status_timer_ms",
            self.system_status_timer_ms.into(),
            1_000,
            60_000,
        )?;
        bound(
            "session_cleanup_delay_ms",
            self.session_cleanup_delay_ms.into(),
            1_000,
            600_000,
        )?;
        bound("link_rtt_ms", self.link_rtt_ms.into(), 0, 1_000)?;
        bound("intent_timeout_ms", self.intent_timeout_ms, 1, 5_000)?;
        bound("intent_share_percent", self.intent_share_percent, 1, 90)?;
        bound(
            "remembered_answers_max",
            count(self.remembered_answers_max),
            16,
            1 << 20,
        )?;
        bound(
            "remembered_calls_max",
            count(self.remembered_calls_max),
            16,
            1 << 22,
        )?;
        // A frame of events must fit, or the stream could never be read again.
        bound(
            "events_unacknowledged_max",
            count(self.events_unacknowledged_max),
            512,
            1 << 20,
        )?;
        bound("booking_timeout_ms", self.booking_timeout_ms, 100, 30_000)?;
        if !(0.0..=1.0).contains(&self.trace_ratio) {
            bail!(
                "trace_ratio: {} is outside the limit: 0 to 1",
                self.trace_ratio
            );
        }
        if self.country_code.len() > 3
            || !self.country_code.bytes().all(|byte| byte.is_ascii_digit())
        {
            bail!(
                "country_code: {:?} is outside the limit: up to 3 digits",
                self.country_code
            );
        }
        if self.overload_announcement.is_empty() || self.overload_announcement.len() > 64 {
            bail!(
                "overload_announcement: {:?} is outside the limit: 1 to 64 bytes",
                self.overload_announcement
            );
        }
        Keys::from_config(self).map(|_| ())
    }
}
