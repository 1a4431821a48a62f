//! From a query to a verdict. Pure: no clock, no IO, no log, and nothing of what was said
//! in what comes out.
//!
//! A query is checked, then: key 0 is a person; no words are a person; words that ask for
//! a person are a person; a language the model does not know is a person; and what the
//! model is not sure enough of is a person. Only then a topic. An error always means
//! "a person, unsure", so that a receiver which ignores errors still does no harm.

use domain::policy::OPERATOR_TOPIC;
use proto::intent::v1::{Candidate, Decision, Error, Query, Reason, Verdict};

use crate::features::Features;
use crate::limit::{
    DIGITS_MAX, LANGUAGE_BYTES_MAX, LINE_BYTES_MAX, QUERIES_MAX, UTTERANCE_BYTES_MAX,
};
use crate::model::{Model, Prediction, Scratch};
use crate::person::{self, Asked};

/// Words, but no need in them.
const UNCLEAR_TOPIC: &str = "META_UNCLEAR";

/// Below this share of known features a text is in no language of the model's.
const KNOWN_SHARE_MIN: f32 = 0.35;

/// Scratch space of a classifier, one a stream; reused from query to query.
#[derive(Clone, Debug, Default)]
pub struct Workspace {
    features: Features,
    scratch: Scratch,
}

/// Gives a query its verdict. Never fails: what is wrong is in the verdict's error.
#[must_use]
pub fn decide(model: &Model, query: &Query, workspace: &mut Workspace) -> Verdict {
    let mut verdict = Verdict {
        query_id: query.query_id,
        topic_id: OPERATOR_TOPIC.to_owned(),
        decision: Decision::PersonUnsure.into(),
        reason: Reason::InvalidQuery.into(),
        ..Verdict::default()
    };
    let given = match check(query) {
        Ok(given) => given,
        Err(error) => {
            verdict.error = Some(error);
            return verdict;
        }
    };
    verdict.language.clone_from(&query.language);
    let features = &mut workspace.features;
    features.read(&query.utterance);
    let asked = person::asked(&features.tokens);
    let prediction =
        (features.words_len() > 0).then(|| model.predict(features, &mut workspace.scratch));
    if let Some(prediction) = &prediction {
        verdict.confidence = prediction.confidence;
        verdict.top = candidates(model, prediction);
        if given.is_none() && prediction.seen_share >= KNOWN_SHARE_MIN {
            let identified = model.identify(features, &mut workspace.scratch);
            verdict.language = identified
                .map(|(language, _)| language.to_owned())
                .unwrap_or_default();
        }
    }
    let known_language = given.as_ref().is_none_or(|given| {
        model
            .manifest()
            .languages
            .iter()
            .any(|language| language == given)
    });
    let (decision, reason) = match (asked, &prediction) {
        _ if asks_by_key(&query.digits) => (Decision::PersonAsked, Reason::KeyZero),
        (Some(Asked::Zero), _) => (Decision::PersonAsked, Reason::KeyZero),
        (Some(Asked::Phrase), _) => (Decision::PersonAsked, Reason::PersonPhrase),
        (None, None) => (Decision::PersonUnsure, Reason::NoUtterance),
        _ if !known_language => (Decision::PersonUnsure, Reason::LanguageNotSupported),
        (None, Some(prediction)) => judge(model, prediction),
    };
    verdict.decision = decision.into();
    verdict.reason = reason.into();
    if decision == Decision::Topic
        && let Some(prediction) = &prediction
    {
        model
            .label(prediction.top[0].0)
            .clone_into(&mut verdict.topic_id);
    }
    verdict
}

/// The verdict of a query past the limit of its frame.
#[must_use]
pub fn beyond_frame(query: &Query, queries: usize) -> Verdict {
    Verdict {
        query_id: query.query_id,
        topic_id: OPERATOR_TOPIC.to_owned(),
        decision: Decision::PersonUnsure.into(),
        reason: Reason::InvalidQuery.into(),
        error: Some(fault(
            "queries",
            &format!("at most {QUERIES_MAX} in a frame"),
            queries.to_string(),
        )),
        ..Verdict::default()
    }
}

fn judge(model: &Model, prediction: &Prediction) -> (Decision, Reason) {
    let first = prediction.top[0].0;
    let threshold = model
        .manifest()
        .calibration
        .thresholds
        .get(first)
        .copied()
        .unwrap_or(f32::INFINITY);
    if prediction.rejected {
        return (Decision::PersonUnsure, Reason::OutOfScope);
    }
    if prediction.confidence.is_nan() || prediction.confidence < threshold {
        return (Decision::PersonUnsure, Reason::BelowThreshold);
    }
    match model.label(first) {
        OPERATOR_TOPIC => (Decision::PersonAsked, Reason::PersonRecognised),
        UNCLEAR_TOPIC => (Decision::PersonUnsure, Reason::Unclear),
        _ => (Decision::Topic, Reason::Confident),
    }
}

fn candidates(model: &Model, prediction: &Prediction) -> Vec<Candidate> {
    prediction
        .top
        .iter()
        .filter(|(_, probability)| *probability > 0.0)
        .map(|(label, probability)| Candidate {
            topic_id: model.label(*label).to_owned(),
            probability: *probability,
        })
        .collect()
}

/// "0" and what people make of it: "00", "0#", "*0".
fn asks_by_key(digits: &str) -> bool {
    digits.contains('0') && digits.bytes().all(|key| matches!(key, b'0' | b'#' | b'*'))
}

/// Checks every field; gives the language's primary subtag, in lower case.
fn check(query: &Query) -> Result<Option<String>, Error> {
    if query.utterance.len() > UTTERANCE_BYTES_MAX {
        let limit = format!("at most {UTTERANCE_BYTES_MAX} bytes");
        return Err(fault(
            "utterance",
            &limit,
            format!("{} bytes", query.utterance.len()),
        ));
    }
    let key = |byte: u8| matches!(byte, b'0'..=b'9' | b'*' | b'#' | b'A'..=b'D' | b'a'..=b'd');
    if query.digits.len() > DIGITS_MAX || !query.digits.bytes().all(key) {
        let other = query.digits.bytes().filter(|byte| !key(*byte)).count();
        let limit = format!("at most {DIGITS_MAX} of 0-9 * # A-D");
        return Err(fault(
            "digits",
            &limit,
            format!("{} bytes, {other} of them other", query.digits.len()),
        ));
    }
    if query.line.len() > LINE_BYTES_MAX {
        return Err(fault(
            "line",
            &format!("at most {LINE_BYTES_MAX} bytes"),
            format!("{} bytes", query.line.len()),
        ));
    }
    if query.language.is_empty() {
        return Ok(None);
    }
    language_subtag(&query.language).map(Some).ok_or_else(|| {
        let limit = format!("a BCP 47 tag of at most {LANGUAGE_BYTES_MAX} bytes, or empty");
        fault(
            "language",
            &limit,
            format!("{} bytes that are none", query.language.len()),
        )
    })
}

/// The primary subtag of a well-formed tag, in lower case.
fn language_subtag(tag: &str) -> Option<String> {
    let well_formed = tag.len() <= LANGUAGE_BYTES_MAX
        && tag.split('-').all(|part| {
            (1..=8).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_alphanumeric())
        });
    let primary = tag.split('-').next().unwrap_or_default();
    let named =
        (2..=3).contains(&primary.len()) && primary.bytes().all(|byte| byte.is_ascii_alphabetic());
    (well_formed && named).then(|| primary.to_ascii_lowercase())
}

fn fault(field: &str, limit: &str, value: String) -> Error {
    Error {
        field: field.to_owned(),
        limit: limit.to_owned(),
        value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn language_tags_are_checked_and_reduced() {
        for (tag, wanted) in [
            ("en", Some("en")),
            ("ES-mx", Some("es")),
            ("fr-CA", Some("fr")),
            ("zh-Hant-TW", Some("zh")),
            ("english", None),
            ("e", None),
            ("en_US", None),
            ("e1", None),
            ("-", None),
            ("en-", None),
        ] {
            assert_eq!(language_subtag(tag).as_deref(), wanted, "{tag}");
        }
    }

    #[test]
    fn keys_that_hold_a_zero_among_others_are_no_request() {
        assert!(asks_by_key("0") && asks_by_key("000") && asks_by_key("0#") && asks_by_key("*0"));
        assert!(
            !asks_by_key("1040") && !asks_by_key("#") && !asks_by_key("") && !asks_by_key("10")
        );
    }
}
