//! The one binary: a role per process, `dev` for all of them in one, and tools.
//!
//! `main` is the only place that installs logs, traces and signal handlers, and the only
//! one that knows every role.

mod dev;
mod policy;

use clap::{Parser, Subcommand};
use runtime::Shutdown;
use runtime::telemetry::{self, TelemetryArgs};

/// Call routing for a tax authority's telephone lines.
#[derive(Parser, Debug)]
#[command(name = "trunkline", version, about, disable_help_subcommand = true)]
struct Cli {
    #[command(flatten)]
    telemetry: TelemetryArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// The switches' streams, admission and the route deadline
    Gateway(gateway::Config),
    /// What the caller needs: utterance to topic, or a person
    Intent(Intent),
    /// Who waits, who is ready, who gets whom
    Routing(routing::Config),
    /// Virtual hold and booked callbacks
    Callback(callback::Config),
    /// The event log's way to Kafka, and the measures
    Outcomes(outcomes::Config),
    /// The whole mesh in one process on private servers, for development
    Dev(dev::Config),
    /// Policy documents: check a folder
    #[command(subcommand)]
    Policy(policy::Command),
}

#[derive(clap::Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
struct Intent {
    #[command(subcommand)]
    tool: Option<intent::cli::Command>,
    #[command(flatten)]
    config: intent::Config,
}

impl Command {
    fn service_name(&self) -> &'static str {
        match self {
            Command::Gateway(_) => "trunkline-gateway",
            Command::Intent(_) => "trunkline-intent",
            Command::Routing(_) => "trunkline-routing",
            Command::Callback(_) => "trunkline-callback",
            Command::Outcomes(_) => "trunkline-outcomes",
            Command::Dev(_) | Command::Policy(_) => "trunkline",
        }
    }
}

fn main() -> anyhow::Result<()> {
    let Cli { telemetry, command } = Cli::parse();
    match command {
        Command::Policy(command) => return command.run(),
        Command::Intent(Intent {
            tool: Some(tool), ..
        }) => return tool.run(),
        _ => {}
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let result = runtime.block_on(serve(&telemetry, command));
    // Whatever still runs has had its drain timeout.
    runtime.shutdown_timeout(std::time::Duration::from_millis(500));
    result
}

async fn serve(telemetry_args: &TelemetryArgs, command: Command) -> anyhow::Result<()> {
    let telemetry = telemetry::install(telemetry_args, command.service_name())?;
    let shutdown = Shutdown::new();
    let signals = tokio::spawn(request_on_signal(shutdown.clone()));
    let result = match command {
        Command::Gateway(config) => gateway::run(config, shutdown).await,
        Command::Intent(Intent { config, .. }) => intent::run(config, shutdown).await,
        Command::Routing(config) => routing::run(config, shutdown).await,
        Command::Callback(config) => callback::run(config, shutdown).await,
        Command::Outcomes(config) => outcomes::run(config, shutdown).await,
        Command::Dev(config) => dev::run(config, shutdown).await,
        Command::Policy(command) => command.run(),
    };
    signals.abort();
    if let Err(error) = &result {
        tracing::error!(error = format!("{error:#}"), "ended early");
    }
    // Last, so that the drain's own spans get out; it blocks.
    tokio::task::spawn_blocking(move || telemetry.shutdown()).await?;
    result
}

/// The first SIGTERM or SIGINT drains, the second ends the process at once.
async fn request_on_signal(shutdown: Shutdown) -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    loop {
        tokio::select! {
            biased;
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        if shutdown.is_requested() {
            tracing::warn!("second signal, ending at once");
            std::process::exit(130);
        }
        shutdown.request();
    }
}
