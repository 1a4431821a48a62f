//! What every role does alike: arguments, logs and traces, the admin port, the gRPC
//! server, TLS, drain, clocks, and (in [`local`]) private Redis and Kafka servers for
//! development and tests.
//!
//! A role is `start(config, shutdown) -> Running`: it makes a [`Service`], registers its
//! metrics, conditions and routes, and hands them to [`Service::serve`]. Nothing but the
//! binary installs a subscriber or a signal handler, so that `trunkline dev` and tests can
//! run several roles in one process.

mod admin;
mod args;
mod backoff;
mod clock;
mod condition;
pub mod grpc;
pub mod local;
mod log_limit;
pub mod policy;
pub mod redis_store;
mod secret;
mod service;
mod shutdown;
pub mod telemetry;
pub mod trace;

pub use args::{Args, TlsArgs};
pub use backoff::Backoff;
pub use clock::Clock;
pub use condition::{Condition, Readiness};
pub use log_limit::LogLimit;
pub use secret::Secret;
pub use service::{Running, Service};
pub use shutdown::Shutdown;

/// jemalloc, once for every binary: long-lived processes with many small allocations
/// keep their size with it.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;
