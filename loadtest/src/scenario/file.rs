//! The scenario file. Times of people are in real seconds and are divided by `shrink`;
//! times of the run (`seconds`, `at_s`) are as they pass.

use std::collections::BTreeMap;

use anyhow::{bail, ensure};
use domain::policy::Policy;
use serde::Deserialize;

/// A scenario.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Scenario {
    /// Its name.
    pub(crate) name: String,
    /// One sentence for the report.
    pub(crate) title: String,
    /// Seed of everything random.
    pub(crate) seed: u64,
    /// Divides handle times, patience and the times between calls.
    pub(crate) shrink: f64,
    /// How long calls arrive.
    pub(crate) seconds: f64,
    /// How long the run goes on afterwards for those still in line; then they hang up.
    pub(crate) drain_s: f64,
    /// What the switch gives the mesh to answer, 100 to 5000.
    #[serde(default = "reply_timeout_ms")]
    pub(crate) reply_timeout_ms: u32,
    /// Changes to the worked example's policy: document kind, field, and value or "/60".
    pub(crate) policy: Option<super::overrides::Changes>,
    /// When calls arrive.
    pub(crate) arrivals: Arrivals,
    /// Topic id to weight.
    pub(crate) topics: BTreeMap<String, f64>,
    /// Language to weight.
    pub(crate) languages: BTreeMap<String, f64>,
    /// What callers say.
    pub(crate) words: WordShares,
    /// Who answers.
    pub(crate) agents: Agents,
    /// Who calls.
    pub(crate) callers: Callers,
    /// What they do about callbacks.
    pub(crate) callbacks: Callbacks,
    /// Processes, for `load`.
    #[serde(default)]
    pub(crate) mesh: Mesh,
    /// What breaks, for `load`.
    #[serde(default)]
    pub(crate) faults: Vec<Fault>,
    /// What must come out.
    #[serde(default)]
    pub(crate) expect: Expect,
}

const fn reply_timeout_ms() -> u32 {
    500
}

/// When calls arrive.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Arrivals {
    /// Mean rate over the run.
    pub(crate) calls_per_s: f64,
    /// Relative rate over equal parts of the run; empty: constant. For the shape of a day:
    /// the half-hour shares of `halfhour_profile_bank_feb1999.csv`.
    #[serde(default)]
    pub(crate) profile: Vec<f64>,
    /// Variance over mean of the calls in a block; 1: plain Poisson.
    #[serde(default = "one")]
    pub(crate) dispersion: f64,
    /// Length of such a block.
    #[serde(default = "ten")]
    pub(crate) dispersion_block_s: f64,
}

const fn one() -> f64 {
    1.0
}
const fn ten() -> f64 {
    10.0
}

/// What callers say at the first choice: weights.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WordShares {
    /// Their need, in words.
    pub(crate) need: f64,
    /// "A person".
    pub(crate) person: f64,
    /// "0".
    pub(crate) zero: f64,
    /// Nothing.
    pub(crate) silence: f64,
    /// Share of those who say their need and add a name and a number to it, which must
    /// never be seen again.
    #[serde(default)]
    pub(crate) personal: f64,
}

/// Who answers.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Agents {
    /// How many.
    pub(crate) count: u32,
    /// Skills each: the first by the load of the topics, the others in turn.
    pub(crate) skills_each: u32,
    /// Over how long they log on, from just before the first call.
    pub(crate) log_on_s: f64,
    /// Conversation, mean, real seconds.
    pub(crate) talk_mean_s: f64,
    /// Its coefficient of variation (lognormal).
    pub(crate) talk_variation: f64,
    /// Wrap-up, mean, real seconds (exponential).
    pub(crate) wrap_up_mean_s: f64,
    /// Until the agent answers, mean, real seconds (exponential).
    pub(crate) answer_mean_s: f64,
    /// Chance that the agent does not answer.
    pub(crate) no_answer: f64,
    /// How long the agent's device rings by itself, in milliseconds of the run.
    pub(crate) ring_max_ms: u64,
    /// Chance that the device is out of order when a call comes.
    pub(crate) device_failure: f64,
    /// Chance of a break after a wrap-up.
    pub(crate) not_ready: f64,
    /// Break, mean, real seconds.
    pub(crate) not_ready_mean_s: f64,
    /// Chance that a call is asked to be transferred to another topic.
    pub(crate) transfer: f64,
    /// Of those, warm.
    pub(crate) transfer_warm: f64,
    /// Language to chance that an agent has it; everybody has "en".
    #[serde(default)]
    pub(crate) languages: BTreeMap<String, f64>,
}

/// Who calls.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Callers {
    /// Mean patience, real seconds, in the shape of the oracle's survival curve.
    pub(crate) patience_mean_s: f64,
    /// Chance to call again after giving up.
    pub(crate) redial: f64,
    /// After how long, mean, real seconds.
    pub(crate) redial_mean_s: f64,
    /// Chance that the call resolves the need.
    pub(crate) resolved: f64,
    /// Chance to call again when it did not.
    pub(crate) repeat: f64,
    /// After how long, mean, real seconds.
    pub(crate) repeat_mean_s: f64,
    /// Chance that the survey is answered.
    pub(crate) survey: f64,
    /// Share of withheld numbers.
    pub(crate) withheld: f64,
    /// Share authenticated.
    pub(crate) authenticated: f64,
}

/// What callers do about callbacks.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Callbacks {
    /// Chance to accept when offered.
    pub(crate) accept: f64,
    /// Of those, take a window if there is one.
    pub(crate) window: f64,
    /// Until they choose, mean, real seconds.
    pub(crate) choose_mean_s: f64,
    /// Chance to answer a callback.
    pub(crate) answer: f64,
    /// Of those not answered, a machine answers.
    pub(crate) voicemail: f64,
    /// Of those not answered, busy.
    pub(crate) busy: f64,
    /// Until they answer, mean, in milliseconds of the run; cut at the ring time.
    pub(crate) answer_mean_ms: f64,
    /// Chance that a booked caller calls in to cancel.
    #[serde(default)]
    pub(crate) cancel: f64,
}

/// How many processes of each role.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Mesh {
    /// Gateways.
    pub(crate) gateways: u32,
    /// Intent.
    pub(crate) intents: u32,
    /// Routing.
    pub(crate) routings: u32,
    /// Callback.
    pub(crate) callbacks: u32,
    /// Outcomes.
    pub(crate) outcomes: u32,
}

impl Default for Mesh {
    fn default() -> Self {
        Self {
            gateways: 2,
            intents: 1,
            routings: 2,
            callbacks: 2,
            outcomes: 1,
        }
    }
}

/// Something is killed with SIGKILL and started again.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Fault {
    /// When, seconds after the first call.
    pub(crate) at_s: f64,
    /// What.
    pub(crate) kill: FaultTarget,
    /// For how long.
    pub(crate) down_ms: u64,
}

/// What can be killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum FaultTarget {
    /// The gateway that the switch's events go to.
    Gateway,
    /// The first intent.
    Intent,
    /// The routing replica that owns the first pool.
    RoutingOwner,
    /// The first callback replica.
    Callback,
    /// The first outcomes replica.
    Outcomes,
    /// Routing's Redis.
    Redis,
    /// Callback's Redis.
    CallbackRedis,
    /// Kafka.
    Kafka,
}

impl FaultTarget {
    /// In words.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Intent => "intent",
            Self::RoutingOwner => "routing owner",
            Self::Callback => "callback",
            Self::Outcomes => "outcomes",
            Self::Redis => "Redis",
            Self::CallbackRedis => "callback's Redis",
            Self::Kafka => "Kafka",
        }
    }
}

/// What must come out, beside the promises.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Expect {
    /// Most calls on the switch's default route; absent: any number.
    pub(crate) default_routed_max: Option<u64>,
    /// Most calls answered with an overload message; absent: any number.
    pub(crate) blocked_max: Option<u64>,
    /// Fewest calls answered by an agent.
    pub(crate) established_min: u64,
    /// Fewest callbacks booked.
    pub(crate) booked_min: u64,
    /// How far the mesh's clock may be from the switch's, in milliseconds.
    pub(crate) clock_tolerance_ms: u64,
}

impl Default for Expect {
    fn default() -> Self {
        Self {
            default_routed_max: None,
            blocked_max: None,
            established_min: 1,
            booked_min: 0,
            clock_tolerance_ms: 250,
        }
    }
}

// === impl Scenario ===

impl Scenario {
    /// A duration of people, in microseconds of the run.
    pub(crate) fn shrunk(&self, real_s: f64) -> u64 {
        (real_s / self.shrink * 1e6) as u64
    }

    /// Checks every field against its limits and the policy's names.
    pub(crate) fn check(&self, policy: &Policy) -> anyhow::Result<()> {
        ensure!(self.shrink >= 1.0, "shrink: 1 or more, not {}", self.shrink);
        ensure!(
            (100..=5000).contains(&self.reply_timeout_ms),
            "reply_timeout_ms: 100 to 5000, not {}",
            self.reply_timeout_ms
        );
        ensure!(
            (1.0..=86_400.0).contains(&self.seconds),
            "seconds: 1 to 86400, not {}",
            self.seconds
        );
        ensure!(
            (0.0..=3600.0).contains(&self.drain_s),
            "drain_s: 0 to 3600, not {}",
            self.drain_s
        );
        let expected = self.arrivals.calls_per_s * self.seconds;
        ensure!(
            (1.0..=5e6).contains(&expected),
            "arrivals.calls_per_s x seconds: 1 to 5000000 calls, not {expected}"
        );
        ensure!(
            self.arrivals.dispersion >= 1.0,
            "arrivals.dispersion: 1 or more, not {}",
            self.arrivals.dispersion
        );
        ensure!(
            self.arrivals.dispersion_block_s > 0.0,
            "arrivals.dispersion_block_s: more than 0, not {}",
            self.arrivals.dispersion_block_s
        );
        ensure!(
            (1..=100_000).contains(&self.agents.count),
            "agents.count: 1 to 100000, not {}",
            self.agents.count
        );
        ensure!(
            (1..=64).contains(&self.agents.skills_each),
            "agents.skills_each: 1 to 64, not {}",
            self.agents.skills_each
        );
        for (field, share) in self.shares() {
            ensure!((0.0..=1.0).contains(&share), "{field}: 0 to 1, not {share}");
        }
        ensure!(!self.topics.is_empty(), "topics: at least one");
        for topic in self.topics.keys() {
            let Some(known) = policy.topics.get(topic) else {
                bail!("topics: {topic} is not in the policy")
            };
            let pool = &policy.queue(known.queue).pool;
            ensure!(
                policy.lines.values().any(|line| line.pool == *pool),
                "topics: no line of the policy leads to {topic}'s pool {pool}"
            );
        }
        ensure!(!self.languages.is_empty(), "languages: at least one");
        for fault in &self.faults {
            ensure!(
                (0.0..self.seconds).contains(&fault.at_s),
                "faults.at_s: within the run's {} s, not {}",
                self.seconds,
                fault.at_s
            );
        }
        Ok(())
    }

    fn shares(&self) -> [(&'static str, f64); 19] {
        [
            ("words.personal", self.words.personal),
            ("agents.no_answer", self.agents.no_answer),
            ("agents.device_failure", self.agents.device_failure),
            ("agents.not_ready", self.agents.not_ready),
            ("agents.transfer", self.agents.transfer),
            ("agents.transfer_warm", self.agents.transfer_warm),
            ("callers.redial", self.callers.redial),
            ("callers.resolved", self.callers.resolved),
            ("callers.repeat", self.callers.repeat),
            ("callers.survey", self.callers.survey),
            ("callers.withheld", self.callers.withheld),
            ("callers.authenticated", self.callers.authenticated),
            ("callbacks.accept", self.callbacks.accept),
            ("callbacks.window", self.callbacks.window),
            ("callbacks.answer", self.callbacks.answer),
            ("callbacks.voicemail", self.callbacks.voicemail),
            ("callbacks.busy", self.callbacks.busy),
            ("callbacks.cancel", self.callbacks.cancel),
            (
                "callbacks.voicemail + busy",
                self.callbacks.voicemail + self.callbacks.busy,
            ),
        ]
    }
}
