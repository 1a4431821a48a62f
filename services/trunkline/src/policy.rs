//! `trunkline policy check DIR`: faults with file, line and reason, or a summary in words.

use std::path::PathBuf;

/// Tools for policy documents.
#[derive(clap::Subcommand, Debug)]
pub(crate) enum Command {
    /// Checks every .yaml of a folder as one set
    Check {
        /// The folder
        directory: PathBuf,
    },
}

impl Command {
    /// Runs the tool.
    #[expect(
        clippy::print_stdout,
        reason = "the summary is what the command is for"
    )]
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let Command::Check { directory } = self;
        let policy = runtime::policy::load(Some(&directory))?;
        println!("{}: a valid policy", directory.display());
        for pool in policy.pools.values() {
            let queues = policy.queues.iter().filter(|queue| queue.pool == pool.name);
            println!(
                "pool {}: {} queues, up to {} agents and {} people in line; an agent rings for {} s",
                pool.name,
                queues.clone().count(),
                pool.agents_max,
                pool.waiting_max,
                pool.no_answer_ms / 1_000
            );
            for queue in queues {
                let points = u64::from(pool.priority_cap.saturating_sub(queue.priority_start));
                let bound = match u64::from(queue.priority_acceleration) {
                    0 => "for ever".to_owned(),
                    acceleration => format!("for at most {} s", points.div_ceil(acceleration)),
                };
                println!(
                    "  queue {}: skill {} from {}; a caller can be overtaken {bound}",
                    queue.name, queue.skill, queue.proficiency_min
                );
            }
        }
        println!(
            "{} lines, {} topics, {} of them with callback",
            policy.lines.len(),
            policy.topics.len(),
            policy
                .topics
                .values()
                .filter(|topic| topic.callback)
                .count()
        );
        Ok(())
    }
}
