//! The life of a role in a process: bind, serve, drain, end.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tonic::transport::server::TcpIncoming;

use crate::{Args, Clock, Condition, Readiness, Shutdown, admin, grpc};

/// A role that is being built.
#[derive(Debug)]
pub struct Service {
    role: &'static str,
    args: Args,
    instance: String,
    registry: Registry,
    readiness: Readiness,
    clock: Clock,
}

/// A role that runs.
#[derive(Debug)]
pub struct Running {
    /// The bound gRPC port; `None`: the role serves none.
    pub grpc: Option<SocketAddr>,
    /// The bound admin port.
    pub admin: SocketAddr,
    /// What `/ready` says.
    pub readiness: Readiness,
    /// Ends when the role has drained, or with the error that ended it early.
    pub finished: JoinHandle<anyhow::Result<()>>,
}

impl Running {
    /// Waits until the role has ended.
    ///
    /// # Errors
    /// What ended it early.
    pub async fn wait(self) -> anyhow::Result<()> {
        self.finished.await.context("the role's task was lost")?
    }
}

impl Service {
    /// Checks the arguments; binds nothing yet.
    ///
    /// # Errors
    /// An argument is outside its limits.
    pub fn new(role: &'static str, args: &Args) -> anyhow::Result<Self> {
        args.check()?;
        let instance = if args.instance.is_empty() {
            format!(
                "{role}-{}-{:08x}",
                std::process::id(),
                rand::random::<u32>()
            )
        } else {
            args.instance.clone()
        };
        Ok(Self {
            role,
            args: args.clone(),
            instance,
            registry: Registry::with_prefix("trunkline"),
            readiness: Readiness::default(),
            clock: Clock::new(),
        })
    }

    /// Where the role's metrics go; names come out as `trunkline_<name>`.
    pub fn registry(&mut self) -> &mut Registry {
        &mut self.registry
    }

    /// The clock.
    #[must_use]
    pub fn clock(&self) -> Clock {
        self.clock.clone()
    }

    /// Names this replica.
    #[must_use]
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// A new condition of readiness.
    #[must_use]
    pub fn condition(&self, name: &'static str) -> Condition {
        self.readiness.condition(name)
    }

    /// Binds the gRPC port early, for a role that must publish its address before it serves.
    ///
    /// # Errors
    /// The port is taken.
    pub async fn bind(&self) -> anyhow::Result<TcpListener> {
        TcpListener::bind(self.args.listen).await.with_context(|| {
            format!(
                "binding the gRPC port {} of {}",
                self.args.listen, self.role
            )
        })
    }

    /// What peers should dial for a port bound at `bound`.
    #[must_use]
    pub fn advertised(&self, bound: SocketAddr) -> String {
        if self.args.advertise.is_empty() {
            bound.to_string()
        } else {
            self.args.advertise.clone()
        }
    }

    /// Binds both ports, serves, and drains on `shutdown`: `/ready` is withdrawn, the drain
    /// delay passes, `drain` runs (hand over, finish, flush), streams close, the ports close.
    ///
    /// # Errors
    /// A port is taken, or TLS files cannot be read.
    pub async fn serve(
        self,
        routes: tonic::service::Routes,
        shutdown: Shutdown,
        drain: impl Future<Output = ()> + Send + 'static,
    ) -> anyhow::Result<Running> {
        let listener = self.bind().await?;
        self.serve_on(listener, routes, shutdown, drain).await
    }

    /// As [`Service::serve`], on a port bound before.
    ///
    /// # Errors
    /// The admin port is taken, or TLS files cannot be read.
    pub async fn serve_on(
        self,
        listener: TcpListener,
        routes: tonic::service::Routes,
        shutdown: Shutdown,
        drain: impl Future<Output = ()> + Send + 'static,
    ) -> anyhow::Result<Running> {
        let Self {
            role,
            args,
            instance,
            registry,
            readiness,
            ..
        } = self;
        let address = listener.local_addr()?;
        let admin_listener = TcpListener::bind(args.admin_listen)
            .await
            .with_context(|| format!("binding the admin port {} of {role}", args.admin_listen))?;
        let (admin_address, admin_task) =
            admin::serve(admin_listener, Arc::new(registry), readiness.clone()).await?;
        let closing = shutdown.clone();
        let shown = readiness.clone();
        let server = grpc::server(&args.tls)?
            .add_routes(routes)
            .serve_with_incoming_shutdown(
                TcpIncoming::from(listener).with_nodelay(Some(true)),
                async move { closing.closing().await },
            );
        tracing::info!(role, instance, listen = %address, admin = %admin_address, "serving");
        let mut server = tokio::spawn(server);
        let finished = tokio::spawn(async move {
            let timeout = Duration::from_millis(args.drain_timeout_ms);
            tokio::select! {
                biased;
                () = shutdown.requested() => {}
                ended = &mut server => {
                    ended.context("the gRPC server's task was lost")?.context("the gRPC server ended")?;
                    anyhow::bail!("the gRPC server of {role} ended by itself");
                }
            }
            tracing::info!(role, "draining");
            readiness.drain();
            tokio::time::sleep(Duration::from_millis(args.drain_delay_ms)).await;
            if tokio::time::timeout(timeout, drain).await.is_err() {
                tracing::warn!(
                    role,
                    timeout_ms = args.drain_timeout_ms,
                    "the hand-over did not finish in time"
                );
            }
            shutdown.close();
            if tokio::time::timeout(timeout, &mut server).await.is_err() {
                tracing::warn!(
                    role,
                    timeout_ms = args.drain_timeout_ms,
                    "open streams were cut"
                );
                server.abort();
            }
            admin_task.abort();
            tracing::info!(role, "ended");
            Ok(())
        });
        Ok(Running {
            grpc: Some(address),
            admin: admin_address,
            readiness: shown,
            finished,
        })
    }
}
