//! `trunkline intent train` and `trunkline intent eval`: the model by hand, on the
//! project's corpus or on any file of the same form.

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Context as _;

use crate::corpus::Corpus;
use crate::evaluate::{Evaluation, evaluate};
use crate::model::Model;
use crate::train::{Options, Step, train};

/// Subcommands of `trunkline intent`.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Command {
    /// Train a model from a file of labelled utterances.
    Train(Train),
    /// Measure a model on a file of labelled utterances.
    Eval(Eval),
}

/// Options of `train`.
#[derive(Clone, Debug, clap::Args)]
pub struct Train {
    /// Labelled utterances, `intent<TAB>lang<TAB>text` with a header; may be given more
    /// than once. Absent: the corpus in this binary.
    #[arg(long, value_name = "FILE.tsv")]
    corpus: Vec<PathBuf>,
    /// Labelled utterances to calibrate on. Absent: folds of the corpus.
    #[arg(long, value_name = "FILE.tsv")]
    val: Option<PathBuf>,
    /// The model file to write.
    #[arg(long, value_name = "MODEL")]
    out: PathBuf,
    /// Seed: the same seed and corpus give the same bytes.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Train on fillers and recognition noise as well. Absent: only for the corpus in
    /// this binary.
    #[arg(long)]
    speech: Option<bool>,
    /// Passes over the corpus, 1 to 200. Absent: 15, or 12 for the corpus in this binary.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=200))]
    epochs: Option<u16>,
}

/// Options of `eval`.
#[derive(Clone, Debug, clap::Args)]
pub struct Eval {
    /// The model file. Absent: the shipped model, trained from the corpus in this binary.
    #[arg(long, value_name = "MODEL")]
    model: Option<PathBuf>,
    /// Labelled utterances, `intent<TAB>lang<TAB>text` with a header. Absent: the test
    /// part of the corpus in this binary.
    #[arg(long, value_name = "FILE.tsv")]
    data: Option<PathBuf>,
    /// Print JSON instead of tables.
    #[arg(long)]
    json: bool,
}

impl Command {
    /// Runs the subcommand; tables or JSON on standard output, progress on standard error.
    ///
    /// # Errors
    /// When a file cannot be read, does not fit, or nothing can be trained from it.
    pub fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Train(options) => options.run(),
            Self::Eval(options) => options.run(),
        }
    }
}

impl Train {
    fn run(self) -> anyhow::Result<()> {
        let corpus = if self.corpus.is_empty() {
            Corpus::embedded()?
        } else {
            read(&self.corpus)?
        };
        let validation = self.val.map(|path| read(&[path])).transpose()?;
        let base = if self.corpus.is_empty() {
            Options::embedded(self.seed)
        } else {
            Options::default()
        };
        let options = Options {
            seed: self.seed,
            epochs: self.epochs.map_or(base.epochs, usize::from),
            speech: self.speech.unwrap_or(base.speech),
            ..base
        };
        let bar = Bar::new("training");
        let model = train(&corpus, validation.as_ref(), &options, &|step| {
            bar.show(step)
        })?;
        bar.end();
        model.save(&self.out)?;
        let manifest = model.manifest();
        let scores = &manifest.calibration.scores;
        let mut out = std::io::stdout().lock();
        writeln!(out, "model        {}", model.id())?;
        writeln!(
            out,
            "corpus       {} ({} lines)",
            manifest.corpus_sha256, manifest.corpus_lines
        )?;
        writeln!(
            out,
            "labels       {}, languages {}",
            manifest.labels.len(),
            manifest.languages.join(" ")
        )?;
        writeln!(
            out,
            "held out     {} ({} in scope, {} out of scope)",
            manifest.held_out, scores.in_scope, scores.out_of_scope
        )?;
        writeln!(
            out,
            "accuracy     {:.4}   macro F1 {:.4}   ECE {:.4}",
            scores.accuracy, scores.macro_f1, scores.ece
        )?;
        writeln!(
            out,
            "out of scope recall {:.4} keeping 95 %   AUROC {:.4}",
            scores.oos_recall, scores.oos_auroc
        )?;
        writeln!(
            out,
            "acted on     {:.4}, of which right {:.4}",
            scores.acted_on, scores.precision_acted_on
        )?;
        Ok(())
    }
}

impl Eval {
    fn run(self) -> anyhow::Result<()> {
        let data = match self.data {
            Some(path) => read(&[path])?,
            None => Corpus::embedded_test()?,
        };
        let model = match &self.model {
            Some(path) => Model::load(path)?,
            None => {
                let bar = Bar::new("training the shipped model");
                let model = Model::embedded(&|step| bar.show(step))?;
                bar.end();
                model
            }
        };
        let bar = Bar::new("evaluating");
        let all = data.examples.len();
        let result = evaluate(&model, &data, &|done| bar.show(Step { done, all }));
        bar.end();
        let mut out = std::io::stdout().lock();
        if self.json {
            serde_json::to_writer_pretty(&mut out, &result)?;
            writeln!(out)?;
        } else {
            print(&result, &mut out)?;
        }
        Ok(())
    }
}

/// Reads labelled files.
fn read(paths: &[PathBuf]) -> anyhow::Result<Corpus> {
    let mut texts = Vec::new();
    for path in paths {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        texts.push((path.display().to_string(), text));
    }
    Ok(Corpus::parse(
        texts
            .iter()
            .map(|(name, text)| (name.as_str(), text.as_str())),
    )?)
}

fn print(result: &Evaluation, out: &mut impl std::io::Write) -> std::io::Result<()> {
    let percent = |value: f64| format!("{:6.2} %", value * 100.0);
    let maybe = |value: Option<f64>| value.map_or_else(|| "       -".to_owned(), percent);
    writeln!(
        out,
        "rows           {} in scope, {} out of scope",
        result.rows, result.oos_rows
    )?;
    if result.unknown_label_rows > 0 {
        writeln!(
            out,
            "left out       {} rows whose label the model does not have",
            result.unknown_label_rows
        )?;
    }
    writeln!(
        out,
        "accuracy       {}   top 3 {}   macro F1 {}",
        percent(result.accuracy),
        percent(result.top3),
        percent(result.macro_f1)
    )?;
    writeln!(
        out,
        "out of scope   recall {} at {} in scope kept   AUROC {}",
        maybe(result.oos_recall),
        percent(result.in_scope_kept),
        maybe(result.oos_auroc)
    )?;
    writeln!(out, "ECE            {}", percent(result.ece))?;
    writeln!(
        out,
        "acted on       {} of in scope; right {} of all acted on",
        percent(result.acted_on),
        percent(result.precision_acted_on)
    )?;
    writeln!(
        out,
        "language       {} named right",
        percent(result.language_accuracy)
    )?;
    writeln!(
        out,
        "\n{:<10} {:>6} {:>9} {:>9} {:>9} {:>9}",
        "language", "rows", "accuracy", "top 3", "ECE", "acted on"
    )?;
    for (language, slice) in &result.by_lang {
        writeln!(
            out,
            "{language:<10} {:>6} {:>9} {:>9} {:>9} {:>9}",
            slice.rows,
            percent(slice.accuracy),
            percent(slice.top3),
            percent(slice.ece),
            percent(slice.acted_on)
        )?;
    }
    writeln!(
        out,
        "\n{:<40} {:>6} {:>9} {:>9} {:>9} {:>9}",
        "intent", "rows", "recall", "precision", "F1", "threshold"
    )?;
    for (intent, row) in &result.by_intent {
        writeln!(
            out,
            "{intent:<40} {:>6} {:>9} {:>9} {:>9} {:>9.2}",
            row.rows,
            percent(row.recall),
            percent(row.precision),
            percent(row.f1),
            row.threshold
        )?;
    }
    if !result.confusions.is_empty() {
        writeln!(out, "\n{:<40} {:<40} {:>6}", "intent", "taken for", "rows")?;
        for pair in &result.confusions {
            writeln!(
                out,
                "{:<40} {:<40} {:>6}",
                pair.label, pair.predicted, pair.rows
            )?;
        }
    }
    Ok(())
}

/// A progress line on standard error: redrawn on a terminal, each tenth otherwise.
struct Bar {
    what: &'static str,
    terminal: bool,
    shown: AtomicUsize,
}

impl Bar {
    fn new(what: &'static str) -> Self {
        Self {
            what,
            terminal: std::io::stderr().is_terminal(),
            shown: AtomicUsize::new(0),
        }
    }

    fn show(&self, step: Step) {
        let percent = step.done * 100 / step.all.max(1);
        let grain = if self.terminal { 1 } else { 10 };
        let mark = percent / grain;
        if self.shown.fetch_max(mark, Ordering::Relaxed) >= mark {
            return;
        }
        let mut err = std::io::stderr().lock();
        // Progress that cannot be shown is no reason to stop.
        let _ = if self.terminal {
            write!(err, "\r{} {:>3} %", self.what, percent)
        } else {
            writeln!(err, "{} {:>3} %", self.what, percent)
        };
    }

    fn end(&self) {
        if self.terminal {
            let _ = writeln!(std::io::stderr());
        }
    }
}
