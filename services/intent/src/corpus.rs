//! Labelled utterances: the project's own, embedded, and any file of the same form.
//!
//! A file is tab-separated with a header that names its columns: `intent` (or `topic`),
//! `lang` (or `language`), `text`, and optionally `family`. Lines of one family are
//! paraphrases of one thing, in any language; held-out folds are cut between families,
//! never through one, so that calibration is measured on wordings not yet seen.

use sha2::{Digest, Sha256};

use crate::limit::UTTERANCE_BYTES_MAX;

/// Label of what is out of scope.
pub const OUT_OF_SCOPE: &str = "oos";

/// Most lines of one file.
pub const LINES_MAX: usize = 1_000_000;

/// The embedded training part: topics, out of scope, and "a person, please".
const TRAINING: [(&str, &str); 3] = [
    ("train.tsv", include_str!("../corpus/train.tsv")),
    (
        "out_of_scope.tsv",
        include_str!("../corpus/out_of_scope.tsv"),
    ),
    ("person.tsv", include_str!("../corpus/person.tsv")),
];

/// The embedded test part, phrased apart from the training part.
const TEST: &str = include_str!("../corpus/test.tsv");

/// The taxonomy's topics, one a line: id and whether it is core.
const TOPICS: &str = include_str!("../corpus/topics.csv");

/// One labelled utterance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    /// Topic id, or [`OUT_OF_SCOPE`].
    pub label: String,
    /// Primary language subtag: "en".
    pub language: String,
    /// Paraphrase family; empty: a family of its own.
    pub family: String,
    /// What was said.
    pub text: String,
}

/// Labelled utterances, and the hash of what they were read from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Corpus {
    /// In file order.
    pub examples: Vec<Example>,
    /// SHA-256 of the files' bytes, in lower-case hexadecimal.
    pub hash: String,
}

/// Why a corpus was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CorpusError {
    /// The header lacks a column.
    #[error(
        "{file}: header: needs the columns intent (or topic), lang (or language) and text, tab-separated; {missing} is missing"
    )]
    Header {
        /// The file.
        file: String,
        /// The column.
        missing: &'static str,
    },
    /// A line does not fit.
    #[error("{file}:{line}: {field}: {limit}, not {value}")]
    Line {
        /// The file.
        file: String,
        /// Line, from 1.
        line: usize,
        /// The column.
        field: &'static str,
        /// What is allowed.
        limit: String,
        /// What came: a size, never a text.
        value: String,
    },
    /// Nothing in it.
    #[error("{file}: no utterances")]
    Empty {
        /// The file.
        file: String,
    },
}

impl Corpus {
    /// Reads files given as (name, text) pairs.
    ///
    /// # Errors
    /// The first file and line that do not fit.
    pub fn parse<'a>(
        files: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, CorpusError> {
        let mut digest = Sha256::new();
        let mut examples = Vec::new();
        for (file, text) in files {
            digest.update(text.as_bytes());
            let before = examples.len();
            parse_file(file, text, &mut examples)?;
            if examples.len() == before {
                return Err(CorpusError::Empty {
                    file: file.to_owned(),
                });
            }
        }
        Ok(Self {
            examples,
            hash: hex(&digest.finalize()),
        })
    }

    /// The project's own training part.
    ///
    /// # Errors
    /// None as long as the embedded files are well formed, which a test holds.
    pub fn embedded() -> Result<Self, CorpusError> {
        Self::parse(TRAINING)
    }

    /// The project's own test part.
    ///
    /// # Errors
    /// None as long as the embedded file is well formed, which a test holds.
    pub fn embedded_test() -> Result<Self, CorpusError> {
        Self::parse([("test.tsv", TEST)])
    }

    /// Distinct labels, sorted, [`OUT_OF_SCOPE`] last.
    #[must_use]
    pub fn labels(&self) -> Vec<String> {
        let mut labels: Vec<String> = self
            .examples
            .iter()
            .map(|example| example.label.clone())
            .collect();
        labels.sort_by(|left, right| {
            (left == OUT_OF_SCOPE, left).cmp(&(right == OUT_OF_SCOPE, right))
        });
        labels.dedup();
        labels
    }

    /// Distinct languages, sorted.
    #[must_use]
    pub fn languages(&self) -> Vec<String> {
        let mut languages: Vec<String> = self
            .examples
            .iter()
            .map(|example| example.language.clone())
            .collect();
        languages.sort();
        languages.dedup();
        languages
    }
}

/// Ids of the taxonomy's topics, each with whether it is a core topic.
#[must_use]
pub fn taxonomy() -> Vec<(&'static str, bool)> {
    TOPICS
        .lines()
        .skip(1)
        .filter_map(|line| line.split_once(','))
        .map(|(id, core)| (id, core == "Y"))
        .collect()
}

/// Lower-case hexadecimal.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ = write!(out, "{byte:02x}");
    }
    out
}

fn parse_file(file: &str, text: &str, examples: &mut Vec<Example>) -> Result<(), CorpusError> {
    let mut lines = text
        .lines()
        .map(|line| line.trim_end_matches('\r'))
        .enumerate();
    let header: Vec<&str> = lines
        .next()
        .map(|(_, line)| line.split('\t').collect())
        .unwrap_or_default();
    let column = |names: [&str; 2], missing| {
        header
            .iter()
            .position(|name| names.contains(&name.trim().to_ascii_lowercase().as_str()))
            .ok_or(CorpusError::Header {
                file: file.to_owned(),
                missing,
            })
    };
    let label_at = column(["intent", "topic"], "intent")?;
    let language_at = column(["lang", "language"], "lang")?;
    let text_at = column(["text", "text"], "text")?;
    let family_at = column(["family", "family"], "family").ok();
    for (index, line) in lines {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let fault = |field, limit: &str, value: String| CorpusError::Line {
            file: file.to_owned(),
            line: index + 1,
            field,
            limit: limit.to_owned(),
            value,
        };
        let cells: Vec<&str> = line.split('\t').collect();
        if cells.len() != header.len() {
            return Err(fault(
                "line",
                &format!("{} columns", header.len()),
                format!("{} columns", cells.len()),
            ));
        }
        let (label, language, said) = (
            cells[label_at].trim(),
            cells[language_at].trim(),
            cells[text_at],
        );
        if label.is_empty() || label.len() > 64 {
            return Err(fault(
                "intent",
                "1 to 64 bytes",
                format!("{} bytes", label.len()),
            ));
        }
        if language.len() < 2
            || language.len() > 8
            || !language.bytes().all(|byte| byte.is_ascii_lowercase())
        {
            return Err(fault(
                "lang",
                "a language subtag in lower case, \"en\"",
                format!("{} bytes", language.len()),
            ));
        }
        if said.trim().is_empty() || said.len() > UTTERANCE_BYTES_MAX {
            return Err(fault(
                "text",
                &format!("1 to {UTTERANCE_BYTES_MAX} bytes"),
                format!("{} bytes", said.len()),
            ));
        }
        if examples.len() >= LINES_MAX {
            return Err(fault(
                "line",
                &format!("at most {LINES_MAX} lines"),
                "more".to_owned(),
            ));
        }
        examples.push(Example {
            label: label.to_owned(),
            language: language.to_owned(),
            family: family_at.map_or("", |at| cells[at].trim()).to_owned(),
            text: said.to_owned(),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_file_are_read() {
        let public = Corpus::parse([(
            "a.tsv",
            "intent\tlang\ttext\nx\ten\thello there\noos\ten\tbye\n",
        )])
        .unwrap();
        assert_eq!(public.labels(), ["x", "oos"]);
        let own = Corpus::parse([(
            "b.tsv",
            "topic\tlanguage\tfamily\ttext\n# note\nA\tfr\tf1\tallô\n",
        )])
        .unwrap();
        assert_eq!(own.examples[0].family, "f1");
        assert_ne!(own.hash, public.hash);
    }

    #[test]
    fn faults_name_file_line_field_and_limit_but_not_the_text() {
        let wrong = |text: &str| Corpus::parse([("f.tsv", text)]).unwrap_err().to_string();
        assert!(wrong("intent\ttext\nx\ty").contains("lang is missing"));
        assert_eq!(
            wrong("intent\tlang\ttext\nx\tEN\tsecret"),
            "f.tsv:2: lang: a language subtag in lower case, \"en\", not 2 bytes"
        );
        assert_eq!(
            wrong("intent\tlang\ttext\nx\ten"),
            "f.tsv:2: line: 3 columns, not 2 columns"
        );
        let long = format!("intent\tlang\ttext\nx\ten\t{}", "secret".repeat(1_000));
        assert_eq!(
            wrong(&long),
            "f.tsv:2: text: 1 to 2048 bytes, not 6000 bytes"
        );
        assert_eq!(wrong("intent\tlang\ttext\n"), "f.tsv: no utterances");
    }
}
