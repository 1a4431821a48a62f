//! Policy documents from a folder. The domain parses texts; reading files is done here.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use domain::policy::Policy;

/// A document larger than this is not policy.
const DOCUMENT_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Loads and validates every `*.yaml` of `directory`, or the embedded worked example when
/// there is none.
///
/// # Errors
/// A file cannot be read, or the set has faults: all of them, with file, line and reason.
pub fn load(directory: Option<&Path>) -> anyhow::Result<Arc<Policy>> {
    let Some(directory) = directory else {
        return Ok(Arc::new(Policy::worked_example()));
    };
    let documents = read(directory)?;
    let texts: Vec<(&str, &str)> = documents
        .iter()
        .map(|(name, text)| (name.as_str(), text.as_str()))
        .collect();
    let policy = Policy::parse(&texts).map_err(|faults| {
        let lines: Vec<String> = faults.0.iter().map(ToString::to_string).collect();
        anyhow::anyhow!(
            "{} faults in the policy:\n{}",
            lines.len(),
            lines.join("\n")
        )
    })?;
    Ok(Arc::new(policy))
}

fn read(directory: &Path) -> anyhow::Result<Vec<(String, String)>> {
    let entries = std::fs::read_dir(directory)
        .with_context(|| format!("policy_dir: reading the folder {}", directory.display()))?;
    let mut documents = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path
            .extension()
            .is_none_or(|extension| extension != "yaml" && extension != "yml")
        {
            continue;
        }
        let bytes = std::fs::metadata(&path)?.len();
        anyhow::ensure!(
            bytes <= DOCUMENT_BYTES_MAX,
            "{}: {bytes} bytes is outside the limit: at most {DOCUMENT_BYTES_MAX}",
            path.display()
        );
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("reading the policy document {}", path.display()))?;
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        documents.push((name, text));
    }
    anyhow::ensure!(
        !documents.is_empty(),
        "policy_dir: {} holds no .yaml document",
        directory.display()
    );
    documents.sort();
    Ok(documents)
}
