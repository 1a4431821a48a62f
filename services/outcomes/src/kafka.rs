//! Kafka, as both halves of the role see it: client settings, the topic, and whether the
//! brokers answer.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::KafkaError;
use rdkafka::producer::{FutureProducer, Producer as _};
use rdkafka::types::RDKafkaErrorCode;
use runtime::{Backoff, Condition, LogLimit, Shutdown};
use tokio::sync::{Mutex, watch};

use crate::config::Config;
use crate::metrics::Metrics;

/// How often the brokers are asked whether they are there.
const PROBE_EVERY: Duration = Duration::from_secs(2);
/// How long they may take to answer.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);

/// How long the creation of the topic may take before it is tried again.
const CREATE_TIMEOUT: Duration = Duration::from_secs(2);

/// librdkafka's own log at our levels, and quietly: it repeats itself while brokers are away.
#[derive(Debug)]
pub(crate) struct QuietContext {
    limit: LogLimit,
}

impl Default for QuietContext {
    fn default() -> Self {
        Self {
            limit: LogLimit::new(Duration::from_secs(10)),
        }
    }
}

impl ClientContext for QuietContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        kafka_log(&self.limit, level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if let Some(suppressed) = self.limit.check() {
            tracing::warn!(%error, reason, suppressed, "kafka client");
        }
    }
}

/// Passes one of librdkafka's lines on, if it may be written now.
pub(crate) fn kafka_log(limit: &LogLimit, level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Emerg
        | RDKafkaLogLevel::Alert
        | RDKafkaLogLevel::Critical
        | RDKafkaLogLevel::Error
        | RDKafkaLogLevel::Warning => {
            if let Some(suppressed) = limit.check() {
                tracing::warn!(facility, message, suppressed, "kafka client");
            }
        }
        _ => tracing::debug!(facility, message, "kafka client"),
    }
}

/// Settings that every client has.
pub(crate) fn client_config(config: &Config, role: &str) -> ClientConfig {
    let mut client = ClientConfig::new();
    client
        .set("bootstrap.servers", &config.kafka_brokers)
        .set("client.id", format!("trunkline-outcomes-{role}"))
        // Come back soon after an outage; the defaults wait up to 10 s.
        .set("reconnect.backoff.ms", "50")
        .set("reconnect.backoff.max.ms", "1000")
        .set("socket.keepalive.enable", "true")
        // A topic made by another replica is seen within seconds, not minutes.
        .set("topic.metadata.refresh.interval.ms", "10000")
        .set_log_level(RDKafkaLogLevel::Info);
    client
}

/// Settings of the relay's producer.
///
/// `message.timeout.ms` 0 is "never give up": nothing is dropped while Kafka is away, so
/// no event can be overtaken by a later one of its contact. `enable.gapless.guarantee`
/// makes the one way left to lose a record an error of the whole producer, on which the
/// relay starts from the outbox's first entry again.
pub(crate) fn producer_config(config: &Config) -> ClientConfig {
    let mut client = client_config(config, "relay");
    client
        .set("enable.idempotence", "true")
        .set("enable.gapless.guarantee", "true")
        .set("acks", "all")
        .set("message.timeout.ms", "0")
        .set("request.timeout.ms", "10000")
        .set("linger.ms", "2")
        .set("compression.type", "lz4")
        .set("batch.num.messages", "5000")
        // Room for a few outboxes' in-flight limits; the relay's own limit comes first.
        .set(
            "queue.buffering.max.messages",
            (config.relay_in_flight_max * 4)
                .clamp(10_000, 1_000_000)
                .to_string(),
        )
        .set("queue.buffering.max.kbytes", "131072")
        // Java's default partitioner for keys, so that other producers agree with us.
        .set("partitioner", "murmur2_random");
    client
}

type RelayProducer = FutureProducer<QuietContext>;

/// The producer, made anew when it has become useless. A failed idempotent producer
/// cannot be repaired, by design.
pub(crate) struct Producers {
    config: ClientConfig,
    metrics: Metrics,
    current: Mutex<(u64, Arc<RelayProducer>)>,
}

impl Producers {
    pub(crate) fn new(config: &Config, metrics: Metrics) -> anyhow::Result<Self> {
        let config = producer_config(config);
        let producer = create(&config)?;
        metrics.producers_made.inc();
        Ok(Self {
            config,
            metrics,
            current: Mutex::new((1, Arc::new(producer))),
        })
    }

    /// The producer of now and its generation.
    pub(crate) async fn current(&self) -> (u64, Arc<RelayProducer>) {
        self.current.lock().await.clone()
    }

    /// Replaces the producer of `generation` if it has failed for good. Whoever comes
    /// second finds it done.
    pub(crate) async fn replace_failed(&self, generation: u64) -> anyhow::Result<()> {
        let mut current = self.current.lock().await;
        if current.0 != generation {
            return Ok(());
        }
        let Some((code, reason)) = current.1.client().fatal_error() else {
            return Ok(());
        };
        tracing::warn!(
            ?code,
            reason,
            generation,
            "the kafka producer failed, making another"
        );
        *current = (generation + 1, Arc::new(create(&self.config)?));
        self.metrics.producers_made.inc();
        Ok(())
    }
}

fn create(config: &ClientConfig) -> anyhow::Result<RelayProducer> {
    config
        .create_with_context(QuietContext::default())
        .context("making the kafka producer")
}

type Admin = AdminClient<QuietContext>;

/// Makes sure that the topic is there, before anybody asks for its metadata: a broker that
/// creates topics by itself would give it the wrong number of partitions.
async fn ensure_topic(config: &Config, admin: &Arc<Admin>) -> anyhow::Result<()> {
    if listed(config, admin).await? {
        return Ok(());
    }
    let topic = NewTopic::new(
        &config.topic,
        config.partitions,
        TopicReplication::Fixed(config.replication),
    );
    let options = AdminOptions::new()
        .request_timeout(Some(CREATE_TIMEOUT))
        .operation_timeout(Some(CREATE_TIMEOUT));
    let refused = match admin.create_topics([&topic], &options).await {
        Ok(results) => match results.into_iter().next() {
            Some(Ok(name)) => {
                tracing::info!(
                    topic = name,
                    partitions = config.partitions,
                    "topic created"
                );
                return Ok(());
            }
            Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => return Ok(()),
            Some(Err((_, code))) => KafkaError::AdminOp(code),
            None => KafkaError::AdminOp(RDKafkaErrorCode::Fail),
        },
        Err(error) => error,
    };
    // No such request (librdkafka's mock cluster), or no right to create: then the topic
    // must be there, or come into being when it is asked for.
    probe(config, admin)
        .await
        .with_context(|| format!("creating topic {} was refused: {refused}", config.topic))
}

/// Whether the brokers list the topic. Asking for all topics creates none.
async fn listed(config: &Config, admin: &Arc<Admin>) -> anyhow::Result<bool> {
    let (admin, name) = (Arc::clone(admin), config.topic.clone());
    tokio::task::spawn_blocking(move || {
        let metadata = admin.inner().fetch_metadata(None, PROBE_TIMEOUT)?;
        Ok(metadata.topics().iter().any(|topic| topic.name() == name))
    })
    .await
    .context("the listing's task was lost")?
}

/// Asks the brokers for the topic.
async fn probe(config: &Config, admin: &Arc<Admin>) -> anyhow::Result<()> {
    let (admin, topic) = (Arc::clone(admin), config.topic.clone());
    tokio::task::spawn_blocking(move || partitions_of(admin.inner(), &topic).map(|_| ()))
        .await
        .context("the probe's task was lost")?
}

fn partitions_of<C: ClientContext>(
    client: &rdkafka::client::Client<C>,
    topic: &str,
) -> anyhow::Result<usize> {
    let metadata = client.fetch_metadata(Some(topic), PROBE_TIMEOUT)?;
    let found = metadata.topics().iter().find(|found| found.name() == topic);
    let found = found.with_context(|| format!("topic {topic} is not there"))?;
    if let Some(error) = found.error() {
        let code = RDKafkaErrorCode::from(error);
        anyhow::bail!("topic {topic}: {code}");
    }
    let partitions = found.partitions().len();
    anyhow::ensure!(partitions > 0, "topic {topic} has no partition yet");
    Ok(partitions)
}

/// Makes sure that the topic is there, then says on `/ready` whether the brokers answer.
/// `there` turns true when the relay and the consumer may start. Ends with the drain.
pub(crate) async fn watch(
    config: Config,
    condition: Condition,
    there: watch::Sender<bool>,
    shutdown: Shutdown,
) {
    let limit = LogLimit::new(Duration::from_secs(30));
    let mut backoff = Backoff::new(100, 5_000);
    let mut admin: Option<Arc<Admin>> = None;
    loop {
        let answer = async {
            let admin = match &admin {
                Some(admin) => Arc::clone(admin),
                None => {
                    let made: Arc<Admin> = Arc::new(
                        client_config(&config, "admin")
                            .create_with_context(QuietContext::default())
                            .context("making the kafka admin client")?,
                    );
                    admin = Some(Arc::clone(&made));
                    made
                }
            };
            if !*there.borrow() {
                ensure_topic(&config, &admin).await?;
            }
            probe(&config, &admin).await
        };
        let answer = tokio::select! {
            biased;
            () = shutdown.requested() => return,
            answer = answer => answer,
        };
        let pause = match answer {
            Ok(()) => {
                if !condition.is_ready() {
                    tracing::info!(brokers = config.kafka_brokers, "kafka answers");
                }
                condition.ready();
                there.send_replace(true);
                backoff.reset();
                PROBE_EVERY
            }
            Err(error) => {
                condition.not_ready(format!("{error:#}"));
                if let Some(suppressed) = limit.check() {
                    tracing::warn!(
                        error = format!("{error:#}"),
                        suppressed,
                        "kafka does not answer, events wait in the outboxes"
                    );
                }
                backoff.next_delay()
            }
        };
        tokio::select! {
            biased;
            () = shutdown.requested() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}
