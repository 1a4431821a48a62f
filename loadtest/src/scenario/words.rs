//! What callers say, and the marks by which the checker knows it again.
//!
//! The words come from `scenarios/words.tsv`. A share of callers adds a name and a
//! taxpayer number made of words and digits that occur nowhere else: if one of them turns
//! up in an event, a log, a metric or a key, something personal got out.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};

/// Prefix of every caller's number. No country has +883 810 assigned, so a real number can
/// never look like one of ours. Eight digits follow.
pub(crate) const NUMBER_PREFIX: &str = "883810";
/// Digits after the prefix.
pub(crate) const NUMBER_DIGITS: usize = 8;

/// Names and numbers planted in what callers say. Whatever else the mesh keeps of an
/// utterance, none of these may be seen anywhere.
pub(crate) const MARKERS: [&str; 4] = [
    "Zorblax",
    "Quimbleton",
    "900-55-",
    "Wexfordshire-upon-Nowhere",
];

const TABLE: &str = include_str!("../../scenarios/words.tsv");

/// What a caller can say about each topic in each language.
#[derive(Clone, Debug)]
pub(crate) struct Words {
    by_need: BTreeMap<(String, String), Vec<&'static str>>,
}

impl Words {
    /// The harness's own table.
    ///
    /// # Errors
    /// A line that is not topic, language, words.
    pub(crate) fn own() -> anyhow::Result<Self> {
        let mut by_need: BTreeMap<(String, String), Vec<&'static str>> = BTreeMap::new();
        for (number, line) in TABLE.lines().enumerate() {
            if line.starts_with('#') || line.is_empty() {
                continue;
            }
            let mut fields = line.split('\t');
            let (Some(topic), Some(language), Some(words)) =
                (fields.next(), fields.next(), fields.next())
            else {
                bail!(
                    "words.tsv:{}: topic, language and words, by tabs",
                    number + 1
                );
            };
            by_need
                .entry((topic.to_owned(), language.to_owned()))
                .or_default()
                .push(words);
        }
        by_need.values().next().context("words.tsv is empty")?;
        Ok(Self { by_need })
    }

    /// One of the sentences for a need; English where the language has none, and none where
    /// the table does not know the topic.
    pub(crate) fn pick(&self, topic: &str, language: &str, choice: u64) -> Option<&'static str> {
        let own = self.by_need.get(&(topic.to_owned(), language.to_owned()));
        let sentences = own.or_else(|| self.by_need.get(&(topic.to_owned(), "en".to_owned())))?;
        Some(
            sentences
                [usize::try_from(choice % sentences.len() as u64).expect("smaller than a length")],
        )
    }
}

/// "A person, please", in the caller's language.
pub(crate) fn person(language: &str, choice: u64) -> &'static str {
    let sentences: [&'static str; 3] = match language {
        "es" => [
            "agente",
            "quiero hablar con una persona",
            "representante por favor",
        ],
        "fr" => [
            "un conseiller",
            "je veux parler à quelqu'un",
            "un agent s'il vous plaît",
        ],
        _ => [
            "representative",
            "let me talk to a person",
            "operator please",
        ],
    };
    sentences[usize::try_from(choice % 3).expect("below three")]
}

/// The planted personal words, with a number of the caller's own.
pub(crate) fn personal(caller: u32) -> String {
    format!(
        " my name is Zorblax Quimbleton my number is 900-55-{:04} I live in Wexfordshire-upon-Nowhere",
        caller % 10_000
    )
}

/// A caller's number, as the switch gives it.
pub(crate) fn number_of(caller: u32) -> String {
    format!("+{NUMBER_PREFIX}{caller:0width$}", width = NUMBER_DIGITS)
}

/// The caller of a number, if it is one of ours.
pub(crate) fn caller_of(number: &str) -> Option<u32> {
    let digits = number.trim_start_matches('+').strip_prefix(NUMBER_PREFIX)?;
    if digits.len() == NUMBER_DIGITS {
        digits.parse().ok()
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_leads_back_to_its_caller() {
        for caller in [0, 7, 99_999_999] {
            assert_eq!(caller_of(&number_of(caller)), Some(caller));
        }
        assert_eq!(caller_of("+15550100"), None);
    }

    #[test]
    fn every_language_has_words_and_falls_back_to_english() {
        let words = Words::own().unwrap();
        assert!(
            words
                .pick("REF_STATUS", "es", 0)
                .unwrap()
                .contains("impuestos")
        );
        assert!(words.pick("COL_LIEN", "fr", 3).is_some());
        assert!(words.pick("NO_SUCH_TOPIC", "en", 0).is_none());
    }

    #[test]
    fn what_is_planted_is_what_is_looked_for() {
        let planted = personal(12);
        for marker in MARKERS {
            assert!(planted.contains(marker));
        }
    }
}
