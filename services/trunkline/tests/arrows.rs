//! Which crate may depend on which: the layering of `ARCHITECTURE.md`, held by the
//! workspace's own metadata. Dev-dependencies are free: a test may know two roles.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

/// Crates of ours, and what each may depend on.
const ARROWS: &[(&str, &[&str])] = &[
    ("domain", &[]),
    ("proto", &["domain"]),
    ("runtime", &["domain"]),
    ("gateway", &["domain", "proto", "runtime"]),
    ("intent", &["domain", "proto", "runtime"]),
    ("routing", &["domain", "proto", "runtime"]),
    ("callback", &["domain", "proto", "runtime"]),
    ("outcomes", &["domain", "proto", "runtime"]),
    (
        "trunkline",
        &[
            "callback", "domain", "gateway", "intent", "outcomes", "routing", "runtime",
        ],
    ),
    ("loadtest", &["domain", "proto", "runtime"]),
];

/// Heavy or sharp dependencies, and the only crates that may have them.
const CONFINED: &[(&str, &[&str])] = &[
    ("rdkafka", &["loadtest", "outcomes", "trunkline"]),
    ("kube", &[]),
    ("chacha20poly1305", &["gateway"]),
    (
        "redis",
        &["callback", "loadtest", "outcomes", "routing", "runtime"],
    ),
];

/// What the pure core may know of the outside world: data formats and calendars.
const DOMAIN_MAY_USE: &[&str] = &[
    "chrono",
    "chrono-tz",
    "foldhash",
    "jiff",
    "serde",
    "serde_yaml_ng",
    "slab",
    "slotmap",
    "thiserror",
];

fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output = Command::new(cargo)
        .args([
            "metadata",
            "--format-version",
            "1",
            "--no-deps",
            "--offline",
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    packages
        .iter()
        .map(|package| {
            let names = package["dependencies"]
                .as_array()
                .expect("dependencies")
                .iter()
                .filter(|dependency| dependency["kind"].is_null())
                .map(|dependency| dependency["name"].as_str().expect("name").to_owned())
                .collect();
            (package["name"].as_str().expect("name").to_owned(), names)
        })
        .collect()
}

#[test]
fn every_crate_depends_only_on_what_its_layer_may_know() {
    let dependencies = dependencies();
    let ours: BTreeSet<&str> = ARROWS.iter().map(|(name, _)| *name).collect();
    let known: BTreeSet<&str> = dependencies.keys().map(String::as_str).collect();
    assert_eq!(
        ours, known,
        "a crate came or went: say here what it may depend on"
    );
    for (name, allowed) in ARROWS {
        for dependency in dependencies[*name]
            .iter()
            .filter(|name| ours.contains(name.as_str()))
        {
            assert!(
                allowed.contains(&dependency.as_str()),
                "{name} must not depend on {dependency}"
            );
        }
    }
}

#[test]
fn heavy_dependencies_stay_where_they_are_needed() {
    for (name, dependencies) in dependencies() {
        for (confined, allowed) in CONFINED {
            assert!(
                !dependencies.contains(*confined) || allowed.contains(&name.as_str()),
                "{name} must not depend on {confined}"
            );
        }
    }
}

#[test]
fn the_pure_core_knows_nothing_that_does_io() {
    for dependency in &dependencies()["domain"] {
        assert!(
            DOMAIN_MAY_USE.contains(&dependency.as_str()),
            "domain must not depend on {dependency}"
        );
    }
}
