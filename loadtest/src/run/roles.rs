//! Every role a process of its own, two real Redis, a real Kafka, and what breaks them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use proto::routing::v1 as routing;
use proto::routing::v1::routing_service_client::RoutingServiceClient;
use runtime::local::{Durability, KafkaServer, RedisServer};
use tokio::sync::{mpsc, watch};

use super::processes::Role;
use crate::check::live::Places;
use crate::dice::mix;
use crate::net::endpoint;
use crate::record::Entry;
use crate::scenario::{Fault, FaultTarget, Loaded};

/// The mesh in processes.
#[derive(Debug)]
pub(crate) struct Roles {
    redis: RedisServer,
    callback_redis: RedisServer,
    kafka: KafkaServer,
    roles: Vec<Role>,
    pools: Vec<String>,
    logs: PathBuf,
}

impl Roles {
    /// Starts everything and waits until every role is ready.
    pub(crate) async fn start(binary: &Path, loaded: &Loaded, logs: &Path) -> anyhow::Result<Self> {
        let redis = RedisServer::start(Durability::EverySecond).await?;
        let callback_redis = RedisServer::start(Durability::Always).await?;
        let kafka = KafkaServer::start().await?;
        let mut roles = Self {
            redis,
            callback_redis,
            kafka,
            roles: Vec::new(),
            pools: loaded.policy.pools.keys().cloned().collect(),
            logs: logs.to_owned(),
        };
        roles.start_roles(binary, loaded)?;
        for role in &mut roles.roles {
            role.ready().await?;
        }
        Ok(roles)
    }

    fn start_roles(&mut self, binary: &Path, loaded: &Loaded) -> anyhow::Result<()> {
        let mesh = &loaded.scenario.mesh;
        let policy: Vec<String> = loaded
            .policy_dir
            .iter()
            .map(|path| format!("--policy-dir={}", path.display()))
            .collect();
        let redis_url = format!("--redis-url={}", self.redis.url());
        for number in 1..=mesh.intents {
            self.add(binary, "intent", number, Vec::new(), Vec::new())?;
        }
        for number in 1..=mesh.routings {
            let mut arguments = vec![redis_url.clone()];
            arguments.extend(policy.clone());
            self.add(binary, "routing", number, arguments, Vec::new())?;
        }
        let routing_endpoints = format!(
            "--routing-endpoints={}",
            self.addresses("routing").join(",")
        );
        for number in 1..=mesh.callbacks {
            let mut arguments = vec![
                format!("--redis-url={}", self.callback_redis.url()),
                routing_endpoints.clone(),
            ];
            arguments.extend(policy.clone());
            self.add(binary, "callback", number, arguments, Vec::new())?;
        }
        for number in 1..=mesh.outcomes {
            let mut arguments = vec![
                redis_url.clone(),
                format!("--kafka-brokers={}", self.kafka.bootstrap()),
            ];
            arguments.extend(policy.clone());
            self.add(binary, "outcomes", number, arguments, Vec::new())?;
        }
        for number in 1..=mesh.gateways {
            let mut arguments = vec![
                routing_endpoints.clone(),
                format!("--intent-endpoints={}", self.addresses("intent").join(",")),
                format!(
                    "--callback-endpoints={}",
                    self.addresses("callback").join(",")
                ),
            ];
            arguments.extend(policy.clone());
            // Keys of this run; the same at every gateway. In the environment, as in
            // production: arguments can be read by everybody on a machine.
            let keys = ["PSEUDONYM", "NUMBER", "CONTACT"].iter().enumerate();
            let environment = keys
                .map(|(index, name)| {
                    (
                        format!("TRUNKLINE_{name}_KEY"),
                        key(loaded.scenario.seed, index as u64),
                    )
                })
                .collect();
            self.add(binary, "gateway", number, arguments, environment)?;
        }
        Ok(())
    }

    fn add(
        &mut self,
        binary: &Path,
        role: &str,
        number: u32,
        arguments: Vec<String>,
        environment: Vec<(String, String)>,
    ) -> anyhow::Result<()> {
        let mut role = Role::new(binary, role, number, arguments, environment, &self.logs)?;
        role.start()?;
        self.roles.push(role);
        Ok(())
    }

    /// gRPC addresses of a role.
    pub(crate) fn addresses(&self, role: &str) -> Vec<String> {
        let of_role = |name: &str| {
            name.rsplit_once('-')
                .is_some_and(|(known, _)| known == role)
        };
        self.roles
            .iter()
            .filter(|known| of_role(&known.name))
            .map(|known| known.grpc.clone())
            .collect()
    }

    /// Where to ask afterwards.
    pub(crate) fn places(&self) -> Places {
        Places {
            kafka: self.kafka.bootstrap(),
            outcomes: self.addresses("outcomes"),
            callbacks: self.addresses("callback"),
            admin: self
                .roles
                .iter()
                .map(|role| (role.name.clone(), role.admin.clone()))
                .collect(),
            redis: vec![self.redis.url(), self.callback_redis.url()],
            logs: Some(self.logs.clone()),
        }
    }

    /// Drains every role, those who take calls first; then the servers go.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        let mut failed = None;
        for role in self.roles.iter_mut().rev() {
            if let Err(error) = role.drain().await {
                failed.get_or_insert(error);
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// Breaks what the scenario says, when it says so; gives everything back mended.
    pub(crate) async fn suffer(
        mut self,
        faults: Vec<Fault>,
        began: tokio::time::Instant,
        events_node: watch::Receiver<Option<usize>>,
        notes: mpsc::Sender<Entry>,
    ) -> (Self, anyhow::Result<()>) {
        for fault in faults {
            tokio::time::sleep_until(began + Duration::from_secs_f64(fault.at_s)).await;
            let node = *events_node.borrow();
            if let Err(error) = self.one(&fault, node, &notes).await {
                return (
                    self,
                    Err(error.context(format!("breaking {}", fault.kill.name()))),
                );
            }
        }
        (self, Ok(()))
    }

    async fn one(
        &mut self,
        fault: &Fault,
        events_node: Option<usize>,
        notes: &mpsc::Sender<Entry>,
    ) -> anyhow::Result<()> {
        let down = Duration::from_millis(fault.down_ms);
        let name = match fault.kill {
            FaultTarget::Gateway => format!("gateway-{}", events_node.unwrap_or(0) + 1),
            FaultTarget::Intent => "intent-1".to_owned(),
            FaultTarget::Callback => "callback-1".to_owned(),
            FaultTarget::Outcomes => "outcomes-1".to_owned(),
            FaultTarget::RoutingOwner => self.owner().await?,
            FaultTarget::Redis | FaultTarget::CallbackRedis | FaultTarget::Kafka => String::new(),
        };
        let target = if name.is_empty() {
            fault.kill.name().to_owned()
        } else {
            name.clone()
        };
        let tell = |up| {
            // The driver may have ended: then nobody has to know.
            let _ = notes.try_send(Entry::Fault {
                target: target.clone(),
                up,
            });
        };
        match fault.kill {
            FaultTarget::Redis => {
                self.redis.kill9().await?;
                tell(false);
                tokio::time::sleep(down).await;
                self.redis.restart().await?;
            }
            FaultTarget::CallbackRedis => {
                self.callback_redis.kill9().await?;
                tell(false);
                tokio::time::sleep(down).await;
                self.callback_redis.restart().await?;
            }
            FaultTarget::Kafka => {
                self.kafka.kill9().await?;
                tell(false);
                tokio::time::sleep(down).await;
                self.kafka.restart().await?;
            }
            _ => {
                let role = self
                    .roles
                    .iter_mut()
                    .find(|role| role.name == name)
                    .with_context(|| format!("no {name}"))?;
                role.kill9().await?;
                tell(false);
                tokio::time::sleep(down).await;
                role.start()?;
                role.ready().await?;
            }
        }
        tell(true);
        Ok(())
    }

    /// The routing replica that owns the first pool: the one with the highest epoch of
    /// those that answer for it.
    async fn owner(&self) -> anyhow::Result<String> {
        let pool = self.pools.first().context("policy has no pool")?;
        let mut best: Option<(u64, String)> = None;
        for role in self
            .roles
            .iter()
            .filter(|role| role.name.starts_with("routing-"))
        {
            let mut client = RoutingServiceClient::new(
                endpoint(&role.grpc)?
                    .timeout(Duration::from_secs(2))
                    .connect_lazy(),
            );
            if let Ok(response) = client
                .get_pool(routing::GetPoolRequest { pool: pool.clone() })
                .await
            {
                let epoch = response.into_inner().epoch;
                if best.as_ref().is_none_or(|(known, _)| epoch > *known) {
                    best = Some((epoch, role.name.clone()));
                }
            }
        }
        best.map(|(_, name)| name)
            .with_context(|| format!("no routing replica owns {pool}"))
    }
}

/// 64 hexadecimal digits from a seed: a key for one run of one scenario.
fn key(seed: u64, index: u64) -> String {
    (0..4)
        .map(|part| format!("{:016x}", mix(seed ^ mix(index * 4 + part + 1))))
        .collect()
}
