//! `trunkline dev`: the mesh in one process, on private servers.
//!
//! The roles are the same code as in production and meet on the wire, on loopback ports.
//! State lives in two private Redis servers (or those given), events go to librdkafka's
//! in-process broker, which is memory only and says so, or to a real Kafka. Every role's
//! own options can be set through its environment variables.
//!
//! When everything is ready, one line of JSON with all addresses is printed on standard
//! output: that is how the load harness and tests find the mesh.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, FromArgMatches};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use runtime::local::{Durability, KafkaServer, RedisServer, wait_until};
use runtime::{Running, Shutdown};
use serde_json::json;

/// How long the mesh may take to become ready, first model training included.
const READY_LIMIT: Duration = Duration::from_secs(120);

/// Which Kafka `dev` uses when no brokers are given.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Kafka {
    /// librdkafka's in-process broker: memory only
    Embedded,
    /// Apache Kafka, started from deploy/local
    Apache,
}

/// The whole mesh in one process.
#[derive(clap::Args, Debug)]
pub(crate) struct Config {
    /// Address of the gateway's gRPC port, where the switch attaches
    #[arg(long, default_value = "127.0.0.1:0")]
    gateway_listen: SocketAddr,
    /// Folder of policy documents; absent: the worked example
    #[arg(long)]
    policy_dir: Option<PathBuf>,
    /// Kafka to use when no brokers are given
    #[arg(long, value_enum, default_value = "embedded")]
    kafka: Kafka,
    /// Brokers to use instead, host:port
    #[arg(long)]
    kafka_brokers: Option<String>,
    /// Redis for pools, outboxes and measures; absent: a private one, synced each second
    #[arg(long)]
    redis_url: Option<String>,
    /// Redis for callbacks; absent: a private one, synced on every write
    #[arg(long)]
    callback_redis_url: Option<String>,
    /// Partitions of the contact topic
    #[arg(long, default_value_t = 12)]
    partitions: u16,
}

/// Servers that live as long as the mesh.
struct Servers {
    redis_url: String,
    callback_redis_url: String,
    kafka_brokers: String,
    kafka_name: &'static str,
    _redis: Vec<RedisServer>,
    _kafka: Option<KafkaServer>,
    _embedded: Option<MockCluster<'static, DefaultProducerContext>>,
}

/// Runs the mesh until shutdown.
pub(crate) async fn run(config: Config, shutdown: Shutdown) -> anyhow::Result<()> {
    let servers = tokio::select! {
        biased;
        () = shutdown.requested() => return Ok(()),
        servers = start_servers(&config) => servers?,
    };
    let mut mesh = Mesh::default();
    mesh.start(&config, &servers).await?;
    wait_until("every role is ready", READY_LIMIT, || async {
        shutdown.is_requested()
            || mesh
                .running
                .iter()
                .all(|(_, role)| role.readiness.check().is_ok())
    })
    .await
    .with_context(|| mesh.reasons())?;
    mesh.print_ready(&servers);
    mesh.wait(&shutdown).await
}

async fn start_servers(config: &Config) -> anyhow::Result<Servers> {
    let mut redis = Vec::new();
    let mut redis_url = async |given: &Option<String>, durability| -> anyhow::Result<String> {
        if let Some(url) = given {
            return Ok(url.clone());
        }
        let server = RedisServer::start(durability).await?;
        let url = server.url();
        redis.push(server);
        Ok(url)
    };
    let state_url = redis_url(&config.redis_url, Durability::EverySecond).await?;
    let callback_redis_url = redis_url(&config.callback_redis_url, Durability::Always).await?;
    let (mut kafka, mut embedded) = (None, None);
    let (kafka_brokers, kafka_name) = match (&config.kafka_brokers, config.kafka) {
        (Some(brokers), _) => (brokers.clone(), "given brokers"),
        (None, Kafka::Apache) => {
            let server = KafkaServer::start().await?;
            (kafka.insert(server).bootstrap(), "Apache Kafka, private")
        }
        (None, Kafka::Embedded) => {
            let cluster = MockCluster::new(1).context("starting the embedded broker")?;
            cluster.create_topic("trunkline.contact.v1", i32::from(config.partitions), 1)?;
            (
                embedded.insert(cluster).bootstrap_servers(),
                "embedded broker, memory only",
            )
        }
    };
    Ok(Servers {
        redis_url: state_url,
        callback_redis_url,
        kafka_brokers,
        kafka_name,
        _redis: redis,
        _kafka: kafka,
        _embedded: embedded,
    })
}

/// Parses a role's options from its flags, its environment and its defaults.
fn options<T: Args + FromArgMatches>(
    role: &'static str,
    flags: &[(&str, String)],
) -> anyhow::Result<T> {
    let command = T::augment_args(clap::Command::new(role).no_binary_name(true));
    let arguments = flags
        .iter()
        .map(|(name, value)| format!("--{name}={value}"));
    let matches = command
        .try_get_matches_from(arguments)
        .with_context(|| format!("options of {role}"))?;
    T::from_arg_matches(&matches).with_context(|| format!("options of {role}"))
}

fn random_key() -> String {
    (0..4)
        .map(|_| format!("{:016x}", rand::random::<u64>()))
        .collect()
}

/// In which order the roles drain: first who takes calls, last who publishes their events.
const DRAIN_ORDER: [&str; 5] = ["gateway", "callback", "routing", "intent", "outcomes"];

#[derive(Default)]
struct Mesh {
    running: Vec<(&'static str, Running)>,
    shutdowns: BTreeMap<&'static str, Shutdown>,
}

impl Mesh {
    /// Starts the roles, those without peers first.
    async fn start(&mut self, config: &Config, servers: &Servers) -> anyhow::Result<()> {
        let common = |listen: SocketAddr| {
            let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
            let mut flags = vec![
                ("listen", listen.to_string()),
                ("admin-listen", loopback.to_string()),
                ("drain-delay-ms", "0".to_owned()),
            ];
            if let Some(directory) = &config.policy_dir {
                flags.push(("policy-dir", directory.display().to_string()));
            }
            flags
        };
        let any = SocketAddr::from(([127, 0, 0, 1], 0));

        let mut flags = common(any);
        flags.retain(|(name, _)| *name != "policy-dir");
        let running = intent::start(options("intent", &flags)?, self.shutdown_of("intent")).await?;
        self.keep("intent", running);

        let mut flags = common(any);
        flags.push(("redis-url", servers.redis_url.clone()));
        let running =
            routing::start(options("routing", &flags)?, self.shutdown_of("routing")).await?;
        self.keep("routing", running);

        let mut flags = common(any);
        flags.push(("redis-url", servers.callback_redis_url.clone()));
        flags.push(("routing-endpoints", self.address("routing")));
        let running =
            callback::start(options("callback", &flags)?, self.shutdown_of("callback")).await?;
        self.keep("callback", running);

        let mut flags = common(any);
        flags.push(("redis-url", servers.redis_url.clone()));
        flags.push(("kafka-brokers", servers.kafka_brokers.clone()));
        flags.push(("partitions", config.partitions.to_string()));
        let running =
            outcomes::start(options("outcomes", &flags)?, self.shutdown_of("outcomes")).await?;
        self.keep("outcomes", running);

        let mut flags = common(config.gateway_listen);
        flags.push(("routing-endpoints", self.address("routing")));
        flags.push(("intent-endpoints", self.address("intent")));
        flags.push(("callback-endpoints", self.address("callback")));
        // Keys of this run alone: nothing of it can be linked to another.
        for key in ["pseudonym-key", "number-key", "contact-key"] {
            flags.push((key, random_key()));
        }
        let running =
            gateway::start(options("gateway", &flags)?, self.shutdown_of("gateway")).await?;
        self.keep("gateway", running);
        Ok(())
    }

    fn shutdown_of(&mut self, role: &'static str) -> Shutdown {
        self.shutdowns.entry(role).or_default().clone()
    }

    fn keep(&mut self, role: &'static str, running: Running) {
        self.running.push((role, running));
    }

    fn address(&self, role: &str) -> String {
        self.running
            .iter()
            .find(|(name, _)| *name == role)
            .and_then(|(_, running)| running.grpc)
            .map_or_else(String::new, |address| address.to_string())
    }

    fn reasons(&self) -> String {
        let reasons: Vec<String> = self
            .running
            .iter()
            .filter_map(|(role, running)| {
                running
                    .readiness
                    .check()
                    .err()
                    .map(|reason| format!("{role}: {reason}"))
            })
            .collect();
        format!("not ready: {}", reasons.join("; "))
    }

    #[expect(
        clippy::print_stdout,
        reason = "the line that tells others where the mesh is"
    )]
    fn print_ready(&self, servers: &Servers) {
        let admin: BTreeMap<&str, String> = self
            .running
            .iter()
            .map(|(role, running)| (*role, running.admin.to_string()))
            .collect();
        let mut line = json!({
            "event": "ready",
            "admin": admin,
            "kafka": servers.kafka_brokers,
            "kafka_kind": servers.kafka_name,
            "redis": servers.redis_url,
            "callback_redis": servers.callback_redis_url,
        });
        for (role, _) in &self.running {
            line[*role] = json!(self.address(role));
        }
        println!("{line}");
    }

    /// Waits for shutdown and drains the roles one after the other; one that ends early
    /// takes the others with it.
    async fn wait(self, shutdown: &Shutdown) -> anyhow::Result<()> {
        let mut roles: BTreeMap<&str, _> = self
            .running
            .into_iter()
            .map(|(role, running)| (role, tokio::spawn(running.wait())))
            .collect();
        let early = futures::future::select_all(roles.values_mut());
        tokio::select! {
            biased;
            () = shutdown.requested() => {}
            (ended, ..) = early => {
                ended.context("a role's task was lost")?.context("a role ended early")?;
                anyhow::bail!("a role ended by itself");
            }
        }
        for role in DRAIN_ORDER {
            if let (Some(shutdown), Some(task)) = (self.shutdowns.get(role), roles.remove(role)) {
                shutdown.request();
                task.await
                    .context("a role's task was lost")?
                    .with_context(|| format!("draining {role}"))?;
            }
        }
        Ok(())
    }
}
