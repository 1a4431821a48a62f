//! Scenarios: who calls, when, with what, how long they hold on, who answers, and what
//! breaks meanwhile.
//!
//! A scenario is a YAML file. The arrivals are an open loop: the whole schedule is drawn
//! from the seed before the first call ([`schedule`]), so a mesh that slows down meets the
//! same calls at the same moments, and latency is counted from the intended start.
//! Redials and repeat calls are added while it runs, as people do.
//!
//! `shrink` divides handle times, patience and the times between calls: the scenario is
//! compressed, the mesh is not. Rates (`calls_per_s`) are as they are.

mod file;
mod overrides;
pub(crate) mod schedule;
pub(crate) mod words;

#[cfg(test)]
pub(crate) use file::Arrivals;
pub(crate) use file::{Expect, Fault, FaultTarget, Scenario};

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use domain::policy::Policy;

/// Scenarios that come with the harness, by name.
const BUILT_IN: [(&str, &str); 5] = [
    ("smoke", include_str!("../../scenarios/smoke.yaml")),
    (
        "filing-season-monday",
        include_str!("../../scenarios/filing-season-monday.yaml"),
    ),
    (
        "peak-second",
        include_str!("../../scenarios/peak-second.yaml"),
    ),
    ("burst-10x", include_str!("../../scenarios/burst-10x.yaml")),
    (
        "kill-each-role",
        include_str!("../../scenarios/kill-each-role.yaml"),
    ),
];

/// A scenario with the policy it plays under.
#[derive(Clone, Debug)]
pub(crate) struct Loaded {
    /// The scenario.
    pub(crate) scenario: Scenario,
    /// The policy, as the roles will read it.
    pub(crate) policy: Policy,
    /// Where the policy's documents are, for `--policy-dir`; `None`: the roles' default.
    pub(crate) policy_dir: Option<PathBuf>,
}

/// Loads a scenario by name (built in) or by file.
///
/// # Errors
/// An unknown name, an unreadable file, or a field outside its limits, by name.
pub(crate) fn load(name: &str, scratch: &Path) -> anyhow::Result<Loaded> {
    let built_in = BUILT_IN.iter().find(|(known, _)| *known == name);
    let text = match built_in {
        Some((_, text)) => (*text).to_owned(),
        None => std::fs::read_to_string(name).with_context(|| {
            let known: Vec<&str> = BUILT_IN.iter().map(|(known, _)| *known).collect();
            format!(
                "{name:?} is neither a readable file nor one of {}",
                known.join(", ")
            )
        })?,
    };
    let scenario: Scenario =
        serde_yaml_ng::from_str(&text).with_context(|| format!("scenario {name}"))?;
    let (policy, policy_dir) = match &scenario.policy {
        None => (Policy::worked_example(), None),
        Some(changes) => {
            let directory = scratch.join("policy");
            let policy = overrides::write(changes, &directory)?;
            (policy, Some(directory))
        }
    };
    scenario
        .check(&policy)
        .with_context(|| format!("scenario {name}"))?;
    Ok(Loaded {
        scenario,
        policy,
        policy_dir,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_scenario_fits_its_policy() {
        let scratch = tempfile::tempdir().unwrap();
        for (name, _) in BUILT_IN {
            let loaded = load(name, scratch.path()).unwrap();
            assert_eq!(loaded.scenario.name, name);
        }
    }

    #[test]
    fn an_unknown_name_says_what_there_is() {
        let error = load("no-such-day", Path::new("/nowhere"))
            .unwrap_err()
            .to_string();
        assert!(error.contains("filing-season-monday"), "{error}");
    }
}
