//! For every contact that a violation names: all that the switch recorded and all that the
//! mesh logged, in one file, for whoever has to find out why.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::record::{CallNumber, Entry};
use crate::run::play::Judged;
use crate::time::MILLISECOND;

/// Writes `violations.txt`; none if there are no violations.
pub(crate) fn write(judged: &Judged, folder: &Path) -> anyhow::Result<Option<PathBuf>> {
    let path = folder.join("violations.txt");
    if judged.violations() == 0 {
        // One of an earlier run would mislead.
        let _ = std::fs::remove_file(&path);
        return Ok(None);
    }
    let mut text = String::new();
    let mut contacts = BTreeSet::new();
    for verdict in &judged.verdicts {
        for finding in &verdict.first {
            let _ = writeln!(
                text,
                "{}: {}: expected {}; seen {}",
                verdict.promise, finding.contact, finding.expected, finding.seen
            );
            contacts.insert(finding.contact.as_str());
            // Findings name a second contact in words.
            contacts.extend(
                finding
                    .seen
                    .split(|letter: char| !(letter.is_ascii_hexdigit() || letter == '-'))
                    .filter(|word| word.len() == 36),
            );
        }
    }
    for contact in contacts {
        let calls: Vec<CallNumber> = match contact.strip_prefix("call ") {
            Some(number) => number.parse().into_iter().collect(),
            None => judged
                .facts
                .contacts
                .get(contact)
                .cloned()
                .unwrap_or_default(),
        };
        let _ = writeln!(text, "\n== {contact}, calls {calls:?}");
        for line in judged
            .lines
            .iter()
            .filter(|line| concerns(&line.entry, contact, &calls))
        {
            let _ = writeln!(
                text,
                "  {}.{:03} switch  {:?}",
                line.at / MILLISECOND,
                line.at % MILLISECOND,
                line.entry
            );
        }
        for event in judged
            .log
            .contacts
            .get(contact)
            .map(|contact| contact.events.as_slice())
            .unwrap_or_default()
        {
            let _ = writeln!(
                text,
                "  {}     log {:>3} {} {} {} {:?}",
                event.at_ms, event.sequence, event.topic, event.queue, event.language, event.body
            );
        }
    }
    std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    Ok(Some(path))
}

fn concerns(entry: &Entry, of: &str, calls: &[CallNumber]) -> bool {
    match entry {
        Entry::Call { call, .. }
        | Entry::Request { call, .. }
        | Entry::Answer { call, .. }
        | Entry::Late { call, .. }
        | Entry::SecondAnswer { call, .. }
        | Entry::Default { call, .. }
        | Entry::GaveUpAsking { call, .. }
        | Entry::Queued { call, .. }
        | Entry::Rings { call, .. }
        | Entry::Established { call, .. }
        | Entry::Released { call, .. }
        | Entry::AgentBusy { call, .. }
        | Entry::Cleared { call, .. }
        | Entry::Booked { call, .. }
        | Entry::BookingFailed { call, .. }
        | Entry::CancelAsked { call, .. }
        | Entry::CommandFailed { call, .. } => calls.contains(call),
        Entry::Dial { contact, .. }
        | Entry::DialEnded { contact, .. }
        | Entry::Pending { contact, .. } => contact == of,
        _ => false,
    }
}
