//! Documents to policy.
//!
//! A text is cut at its `---` lines and each document is read by itself, so that a fault
//! in one hides none in another; then the whole set is checked for what documents say
//! about each other ([`super::check`]). Lines are those of the file. Rejected: reading the
//! stream with the YAML library's own iterator, which ends at the first broken document.

use std::fmt;

use serde::de::DeserializeOwned;
use serde_yaml_ng as yaml;

use super::Policy;
use super::check::{self, Set};
use super::document::{
    API_VERSION, CallbackSpec, Document, Head, LineSpec, PoolSpec, QueueSpec, TopicSpec,
};

/// One fault in a document.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{document}:{line}: {reason}")]
pub struct Fault {
    /// The document's name (a file name).
    pub document: String,
    /// The line, from 1.
    pub line: usize,
    /// What is wrong, with field, limit and value.
    pub reason: String,
}

/// All faults of a set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} faults in the policy, first: {}", .0.len(), .0.first().map(ToString::to_string).unwrap_or_default())]
pub struct Faults(pub Vec<Fault>);

/// Most bytes of all documents together: a policy is data, not a store.
const BYTES_MAX: usize = 16 << 20;

/// One document's text and where it stands.
pub(super) struct Source<'a> {
    pub(super) file: &'a str,
    /// Lines of the file before this document.
    offset: usize,
    text: &'a str,
}

impl<'a> Source<'a> {
    /// A fault at the first line of this document that sets `key`, else at its name.
    pub(super) fn fault(&self, key: &str, reason: impl fmt::Display) -> Fault {
        let line = self
            .line_of(key)
            .or_else(|| self.line_of("name"))
            .unwrap_or(1);
        Fault {
            document: self.file.to_owned(),
            line: self.offset + line,
            reason: reason.to_string(),
        }
    }

    fn fault_at(&self, error: &yaml::Error) -> Fault {
        let line = error.location().map_or(1, |location| location.line());
        // The library's own " at line 8 column 15" counts from the document's beginning.
        let mut reason = error.to_string();
        if let Some(end) = reason.rfind(" at line ") {
            reason.truncate(end);
        }
        Fault {
            document: self.file.to_owned(),
            line: self.offset + line,
            reason,
        }
    }

    fn line_of(&self, key: &str) -> Option<usize> {
        let sets = |line: &str| {
            line.trim_start()
                .trim_start_matches('"')
                .strip_prefix(key)
                .is_some_and(|rest| rest.trim_start_matches('"').trim_start().starts_with(':'))
        };
        self.text
            .lines()
            .position(sets)
            .map(|position| position + 1)
    }
}

/// A named document of one kind.
pub(super) struct Named<'a, Spec> {
    pub(super) source: Source<'a>,
    pub(super) name: String,
    pub(super) spec: Spec,
}

fn cut<'a>(file: &'a str, text: &'a str) -> Vec<Source<'a>> {
    let mut sources = Vec::new();
    let (mut from, mut offset) = (0, 0);
    let (mut at, mut line) = (0, 0);
    for row in text.split_inclusive('\n') {
        if row.trim_end() == "---" {
            sources.push(Source {
                file,
                offset,
                text: &text[from..at],
            });
            (from, offset) = (at + row.len(), line + 1);
        }
        at += row.len();
        line += 1;
    }
    sources.push(Source {
        file,
        offset,
        text: &text[from..],
    });
    let says_something = |source: &Source<'_>| {
        source
            .text
            .lines()
            .any(|row| !row.trim().is_empty() && !row.trim_start().starts_with('#'))
    };
    sources.retain(says_something);
    sources
}

fn read<'a, Spec: DeserializeOwned>(
    source: Source<'a>,
    name: String,
    into: &mut Vec<Named<'a, Spec>>,
    faults: &mut Vec<Fault>,
) {
    match yaml::from_str::<Document<Spec>>(source.text) {
        Ok(document) => into.push(Named {
            source,
            name,
            spec: document.spec,
        }),
        Err(error) => faults.push(source.fault_at(&error)),
    }
}

fn take<'a>(source: Source<'a>, set: &mut Set<'a>, faults: &mut Vec<Fault>) {
    let head: Head = match yaml::from_str(source.text) {
        Ok(head) => head,
        Err(error) => return faults.push(source.fault_at(&error)),
    };
    if head.api_version.as_deref() != Some(API_VERSION) {
        let value = head.api_version.unwrap_or_default();
        return faults.push(source.fault(
            "apiVersion",
            format!("apiVersion: must be {API_VERSION:?}, is {value:?}"),
        ));
    }
    let Some(name) = head.metadata.and_then(|metadata| metadata.name) else {
        return faults.push(source.fault("metadata", "metadata.name: is required"));
    };
    if !is_name(&name) {
        let reason = format!(
            "metadata.name: 1 to 63 of [a-z0-9.-], a letter or digit first and last, is {name:?}"
        );
        return faults.push(source.fault("name", reason));
    }
    let kind = head.kind.unwrap_or_default();
    if !set.declare(&kind, &name) {
        return faults.push(source.fault(
            "name",
            format!("metadata.name: {kind} {name:?} is there already"),
        ));
    }
    match kind.as_str() {
        "Pool" => read::<PoolSpec>(source, name, &mut set.pools, faults),
        "Line" => read::<LineSpec>(source, name, &mut set.lines, faults),
        "Topic" => read::<TopicSpec>(source, name, &mut set.topics, faults),
        "Queue" => read::<QueueSpec>(source, name, &mut set.queues, faults),
        "CallbackPolicy" => read::<CallbackSpec>(source, name, &mut set.callbacks, faults),
        _ => {
            let kinds = "Pool, Line, Topic, Queue or CallbackPolicy";
            faults.push(source.fault("kind", format!("kind: must be {kinds}, is {kind:?}")));
        }
    }
}

/// Kubernetes' rule for object names, so that a document can become a resource as it is.
fn is_name(name: &str) -> bool {
    let edge = |byte: Option<u8>| {
        byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    };
    let inner = |byte: u8| edge(Some(byte)) || byte == b'-' || byte == b'.';
    name.len() <= 63
        && edge(name.bytes().next())
        && edge(name.bytes().last())
        && name.bytes().all(inner)
}

/// FNV-1a over names and texts: names the version; nothing secret depends on it.
fn version_of(documents: &[(&str, &str)]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for (name, text) in documents {
        for byte in name.bytes().chain([0]).chain(text.bytes()).chain([0]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    hash
}

impl Policy {
    /// Parses and validates a set of documents: (name, text) pairs. A text may hold several
    /// documents.
    ///
    /// # Errors
    /// Every fault found; the set is taken whole or not at all.
    pub fn parse(documents: &[(&str, &str)]) -> Result<Policy, Faults> {
        let mut faults = Vec::new();
        let bytes: usize = documents.iter().map(|(_, text)| text.len()).sum();
        if bytes > BYTES_MAX {
            let document = documents
                .first()
                .map(|(name, _)| (*name).to_owned())
                .unwrap_or_default();
            let reason = format!("documents: at most {BYTES_MAX} bytes together, are {bytes}");
            return Err(Faults(vec![Fault {
                document,
                line: 1,
                reason,
            }]));
        }
        let mut set = Set::default();
        for (file, text) in documents {
            for source in cut(file, text) {
                take(source, &mut set, &mut faults);
            }
        }
        let policy = check::compile(set, version_of(documents), &mut faults);
        match policy {
            Some(policy) if faults.is_empty() => Ok(policy),
            _ => {
                faults.sort_by(|a, b| (&a.document, a.line).cmp(&(&b.document, b.line)));
                Err(Faults(faults))
            }
        }
    }

    /// The worked tax-line example of `deploy/policy/`, embedded.
    #[must_use]
    pub fn worked_example() -> Policy {
        Policy::parse(&Policy::worked_example_documents())
            .expect("the embedded example is valid: a test holds it so")
    }

    /// The documents of the worked example: (file name, text).
    #[must_use]
    pub fn worked_example_documents() -> [(&'static str, &'static str); 5] {
        [
            (
                "callback.yaml",
                include_str!("../../../../deploy/policy/callback.yaml"),
            ),
            (
                "lines.yaml",
                include_str!("../../../../deploy/policy/lines.yaml"),
            ),
            (
                "pool.yaml",
                include_str!("../../../../deploy/policy/pool.yaml"),
            ),
            (
                "queues.yaml",
                include_str!("../../../../deploy/policy/queues.yaml"),
            ),
            (
                "topics.yaml",
                include_str!("../../../../deploy/policy/topics.yaml"),
            ),
        ]
    }
}
