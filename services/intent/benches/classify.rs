//! Nanoseconds an utterance, by stage, on one core: `cargo bench -p intent`.
//!
//! Best of several passes over the project's own test part and over ten-word utterances;
//! beside each row stands what the thrown-away prototype reached, for the same stage.
#![expect(clippy::print_stdout, reason = "the bench's result")]

use std::hint::black_box;
use std::time::Instant;

use intent::corpus::Corpus;
use intent::features::Features;
use intent::model::{Model, Scratch};
use intent::{Workspace, decide};
use proto::intent::v1::Query;

const PASSES: usize = 9;

/// Best ns an item over the passes.
fn best<T>(items: &[T], mut work: impl FnMut(&T)) -> f64 {
    let mut best = f64::INFINITY;
    for _ in 0..PASSES {
        let repeats = (200_000 / items.len()).max(1);
        let started = Instant::now();
        for _ in 0..repeats {
            items.iter().for_each(&mut work);
        }
        best = best.min(started.elapsed().as_nanos() as f64 / (repeats * items.len()) as f64);
    }
    best
}

fn main() -> anyhow::Result<()> {
    let started = Instant::now();
    let model = Model::embedded(&|_| {})?;
    let trained_ms = started.elapsed().as_millis();
    let bytes = model.to_bytes();
    let started = Instant::now();
    let model = Model::from_bytes(&bytes)?;
    let loaded_us = started.elapsed().as_micros();
    println!("training from the embedded corpus      {trained_ms:>9} ms");
    println!(
        "loading an artefact of {:>7} bytes    {loaded_us:>9} us",
        bytes.len()
    );
    let test: Vec<String> = Corpus::embedded_test()?
        .examples
        .into_iter()
        .map(|example| example.text)
        .collect();
    let ten_words: Vec<String> = test
        .iter()
        .filter(|text| text.split_whitespace().count() == 10)
        .cloned()
        .collect();
    println!(
        "{:<38} {:>9} {:>14} {:>12}",
        "stage", "ns", "per second", "prototype ns"
    );
    for (name, texts) in [("ten words", &ten_words), ("own test part", &test)] {
        rows(&model, name, texts);
    }
    Ok(())
}

fn rows(model: &Model, name: &str, texts: &[String]) {
    let mut features = Features::default();
    let mut scratch = Scratch::default();
    let read = best(texts, |text| {
        features.read(text);
        black_box(features.hashes().len());
    });
    let all = best(texts, |text| {
        features.read(text);
        black_box(model.predict(&features, &mut scratch));
    });
    let queries: Vec<Query> = texts
        .iter()
        .map(|text| Query {
            utterance: text.clone(),
            ..Query::default()
        })
        .collect();
    let mut workspace = Workspace::default();
    let decided = best(&queries, |query| {
        black_box(decide(model, query, &mut workspace));
    });
    let row = |stage: &str, ns: f64, prototype: &str| {
        println!(
            "{:<38} {ns:>9.0} {:>14.0} {prototype:>12}",
            format!("{name}: {stage}"),
            1e9 / ns
        );
    };
    row("words, numbers and hashes", read, "323");
    row("and scores, calibrated", all, "1120");
    row("and rules, language, verdict", decided, "-");
}
