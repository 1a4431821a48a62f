//! Logs and traces, installed once a process, by the binary.
//!
//! Logs are JSON on standard error: standard output is for what a command was asked to
//! print. Spans are exported over OTLP only when an endpoint is given, and only those of
//! contacts that are traced (see [`crate::trace`]).

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::WithExportConfig as _;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, Registry, reload};

/// Target of the spans that are exported.
pub(crate) const TRACE_TARGET: &str = "trunkline_trace";

static RELOAD: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();
static EXPORTING: AtomicBool = AtomicBool::new(false);

/// Logs and traces of a process.
#[derive(clap::Args, Clone, Debug)]
pub struct TelemetryArgs {
    /// What is logged: a level, or target=level pairs
    #[arg(long, env = "TRUNKLINE_LOG", default_value = "info", global = true)]
    pub log: String,
    /// OTLP/gRPC endpoint for traces, as http://host:port; empty: none
    #[arg(
        long,
        env = "TRUNKLINE_OTLP_ENDPOINT",
        default_value = "",
        global = true
    )]
    pub otlp_endpoint: String,
}

/// Flushes traces when the process ends.
#[derive(Debug)]
#[must_use = "traces are flushed by `shutdown`"]
pub struct Telemetry(Option<SdkTracerProvider>);

/// Installs logs and traces for a process named `service_name`. Inside a runtime.
///
/// # Errors
/// The filter cannot be parsed, or a subscriber is installed already.
pub fn install(args: &TelemetryArgs, service_name: &str) -> anyhow::Result<Telemetry> {
    let filter = EnvFilter::try_new(&args.log).with_context(|| {
        format!(
            "log: {:?} is not a filter such as \"info\" or \"gateway=debug,info\"",
            args.log
        )
    })?;
    let (filter, handle) = reload::Layer::new(filter);
    let provider = exporter(&args.otlp_endpoint, service_name)?;
    let spans = provider.as_ref().map(|provider| {
        tracing_opentelemetry::layer()
            .with_tracer(provider.tracer("trunkline"))
            .with_location(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
            .with_filter(Targets::new().with_target(TRACE_TARGET, tracing::Level::INFO))
    });
    let logs = tracing_subscriber::fmt::layer()
        .json()
        .flatten_event(true)
        .with_current_span(false)
        .with_span_list(false)
        .with_writer(std::io::stderr);
    tracing_subscriber::registry()
        .with(logs.with_filter(filter))
        .with(spans)
        .try_init()
        .context("installing the log subscriber")?;
    // A second installation failed above, so the cell is empty here.
    let _ = RELOAD.set(handle);
    EXPORTING.store(provider.is_some(), Ordering::Relaxed);
    Ok(Telemetry(provider))
}

fn exporter(endpoint: &str, service_name: &str) -> anyhow::Result<Option<SdkTracerProvider>> {
    if endpoint.is_empty() {
        return Ok(None);
    }
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint)
        .with_timeout(Duration::from_secs(5))
        .build()
        .with_context(|| format!("otlp_endpoint: {endpoint:?} is not http://host:port"))?;
    let resource = Resource::builder()
        .with_service_name(service_name.to_owned())
        .build();
    Ok(Some(
        SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            // The traceparent's flag has decided already.
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::AlwaysOff)))
            .with_resource(resource)
            .build(),
    ))
}

/// Whether spans are exported by this process.
pub(crate) fn exporting() -> bool {
    EXPORTING.load(Ordering::Relaxed)
}

impl Telemetry {
    /// Flushes what is left. Last thing of a process; blocks for at most 5 s.
    pub fn shutdown(self) {
        if let Some(provider) = self.0
            && let Err(error) = provider.shutdown()
        {
            tracing::warn!(%error, "traces were not flushed");
        }
    }
}

/// The log filter in force; empty if this process has none.
#[must_use]
pub fn filter() -> String {
    RELOAD
        .get()
        .and_then(|handle| handle.with_current(ToString::to_string).ok())
        .unwrap_or_default()
}

/// Changes the log filter.
///
/// # Errors
/// In words, if it cannot be parsed or logs are not ours to set.
pub fn set_filter(text: &str) -> Result<(), String> {
    let filter = EnvFilter::try_new(text)
        .map_err(|error| format!("log level: {text:?} is not a filter: {error}"))?;
    let handle = RELOAD
        .get()
        .ok_or("log level: this process has no log of its own")?;
    handle.reload(filter).map_err(|error| error.to_string())
}
