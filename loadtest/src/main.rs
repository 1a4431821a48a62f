//! The load harness: a synthetic switch with callers and agents that speaks the mesh's own
//! contract, breaks things while it plays, and afterwards holds the mesh to every promise
//! by name.
//!
//! | module | is |
//! |---|---|
//! | [`scenario`] | what is played: a file, and the arrivals drawn from its seed |
//! | [`switch`] | the switch, a pure state machine; [`net`] carries its frames |
//! | [`people`] | callers and agents at its phones |
//! | [`run`] | the driver, and the mesh as one process or as many |
//! | [`record`] | the switch's own record of a run |
//! | [`check`] | the record and the event log against the promises |
//! | [`report`] | what came of it, for machines and for people |

mod bench;
mod check;
mod cli;
mod dice;
mod net;
mod people;
mod progress;
mod record;
mod report;
mod run;
mod scenario;
mod switch;
mod time;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> anyhow::Result<ExitCode> {
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("LOADTEST_LOG")
                .unwrap_or_else(|_| "warn".into()),
        )
        .with_writer(std::io::stderr)
        .init();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let kept = runtime.block_on(cli::Cli::parse().run())?;
    Ok(if kept {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
