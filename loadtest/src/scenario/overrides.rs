//! The policy that a scenario plays under: the worked example with changes.
//!
//! Handle times and patience are shrunk by the scenario, so what policy measures against
//! them (wrap-up, spacing of attempts, priority a second) is shrunk with them. The changes
//! stand in the scenario file, by kind of document and field; a value written as "/60" or
//! "*60" divides or multiplies what the example says. A whole second policy would drift
//! from the example.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use domain::policy::Policy;
use serde::Deserialize as _;
use serde_yaml_ng::Value;

/// Kind of document to field of its spec to value.
pub(crate) type Changes = BTreeMap<String, BTreeMap<String, Value>>;

const WORKED_EXAMPLE: [(&str, &str); 5] = [
    (
        "callback.yaml",
        include_str!("../../../deploy/policy/callback.yaml"),
    ),
    (
        "lines.yaml",
        include_str!("../../../deploy/policy/lines.yaml"),
    ),
    (
        "pool.yaml",
        include_str!("../../../deploy/policy/pool.yaml"),
    ),
    (
        "queues.yaml",
        include_str!("../../../deploy/policy/queues.yaml"),
    ),
    (
        "topics.yaml",
        include_str!("../../../deploy/policy/topics.yaml"),
    ),
];

/// Writes the changed documents into `directory`, where the roles read them, and parses them.
pub(super) fn write(changes: &Changes, directory: &Path) -> anyhow::Result<Policy> {
    std::fs::create_dir_all(directory).context("writing the policy out")?;
    let documents = changed(changes)?;
    for (file, text) in &documents {
        std::fs::write(directory.join(file), text).context("writing the policy out")?;
    }
    let borrowed: Vec<(&str, &str)> = documents
        .iter()
        .map(|(file, text)| (*file, text.as_str()))
        .collect();
    Policy::parse(&borrowed).context("the policy with the scenario's changes")
}

fn changed(changes: &Changes) -> anyhow::Result<Vec<(&'static str, String)>> {
    let mut applied: BTreeMap<&str, usize> =
        changes.keys().map(|kind| (kind.as_str(), 0)).collect();
    let mut files = Vec::new();
    for (file, text) in WORKED_EXAMPLE {
        let mut parts = Vec::new();
        for document in serde_yaml_ng::Deserializer::from_str(text) {
            let mut document =
                Value::deserialize(document).with_context(|| format!("policy document {file}"))?;
            let kind = document
                .get("kind")
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned();
            if let Some(fields) = changes.get(&kind) {
                let spec = document
                    .get_mut("spec")
                    .with_context(|| format!("{file}: no spec"))?;
                for (field, value) in fields {
                    let before = spec
                        .get(field)
                        .with_context(|| format!("policy.{kind}.{field}: no such field"))?;
                    let after = changed_value(before, value)
                        .with_context(|| format!("policy.{kind}.{field}"))?;
                    spec[field.as_str()] = after;
                }
                *applied.entry(kind_key(&kind, changes)).or_default() += 1;
            }
            parts.push(serde_yaml_ng::to_string(&document)?);
        }
        files.push((file, parts.join("---\n")));
    }
    for (kind, count) in applied {
        ensure!(count > 0, "policy.{kind}: no document of that kind");
    }
    Ok(files)
}

fn kind_key<'a>(kind: &str, changes: &'a Changes) -> &'a str {
    changes
        .keys()
        .find(|known| *known == kind)
        .map_or("", String::as_str)
}

fn changed_value(before: &Value, change: &Value) -> anyhow::Result<Value> {
    let Some(text) = change.as_str() else {
        return Ok(change.clone());
    };
    let Some(operator) = text
        .chars()
        .next()
        .filter(|first| matches!(first, '/' | '*'))
    else {
        return Ok(change.clone());
    };
    let factor: u64 = text[1..]
        .parse()
        .with_context(|| format!("{text:?}: a whole number after {operator}"))?;
    let Some(number) = before.as_u64() else {
        bail!("{before:?} is not a whole number")
    };
    ensure!(factor > 0, "a factor of 0");
    let after = if operator == '/' {
        (number / factor).max(u64::from(number > 0))
    } else {
        number * factor
    };
    Ok(Value::from(after))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes(text: &str) -> Changes {
        serde_yaml_ng::from_str(text).unwrap()
    }

    #[test]
    fn a_change_reaches_every_document_of_its_kind_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let before = Policy::worked_example();
        let after = write(
            &changes("Queue: {handleTimePriorMs: /60}\nPool: {noAnswerMs: 1500}"),
            directory.path(),
        )
        .unwrap();
        assert_eq!(after.pools.values().next().unwrap().no_answer_ms, 1500);
        for (old, new) in before.queues.iter().zip(&after.queues) {
            assert_eq!(new.handle_time_prior_ms, old.handle_time_prior_ms / 60);
            assert_eq!(new.patience_prior_ms, old.patience_prior_ms);
        }
    }

    #[test]
    fn a_field_or_kind_that_does_not_exist_is_named() {
        let directory = tempfile::tempdir().unwrap();
        for (text, named) in [
            ("Queue: {colour: 1}", "policy.Queue.colour"),
            ("Kettle: {litres: 1}", "policy.Kettle"),
        ] {
            let error = format!("{:#}", write(&changes(text), directory.path()).unwrap_err());
            assert!(error.contains(named), "{error}");
        }
    }
}
