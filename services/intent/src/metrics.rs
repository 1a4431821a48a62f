//! What the role counts. Nothing of what was said, and labels from closed sets only.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use proto::intent::v1::{Decision, Reason, Verdict};

/// Why a verdict fell.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct Decided {
    decision: DecisionLabel,
    reason: ReasonLabel,
}

#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelValue)]
enum DecisionLabel {
    #[expect(non_camel_case_types, reason = "written as the metric's label")]
    topic,
    #[expect(non_camel_case_types, reason = "written as the metric's label")]
    person_asked,
    #[expect(non_camel_case_types, reason = "written as the metric's label")]
    person_unsure,
}

/// A reason as a label: the contract's own name, which is a closed set.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
struct ReasonLabel(Reason);

impl EncodeLabelValue for ReasonLabel {
    fn encode(
        &self,
        encoder: &mut prometheus_client::encoding::LabelValueEncoder<'_>,
    ) -> Result<(), std::fmt::Error> {
        let name = self.0.as_str_name();
        let short = name
            .strip_prefix("REASON_")
            .unwrap_or(name)
            .to_ascii_lowercase();
        EncodeLabelValue::encode(&short.as_str(), encoder)
    }
}

/// A named thing out of a closed set.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct Language {
    language: &'static str,
}

/// A limit that was hit.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct Limit {
    limit: &'static str,
}

/// What became of a new model file.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct Loaded {
    result: &'static str,
}

/// All metrics of the role.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    queries: Counter,
    decisions: Family<Decided, Counter>,
    languages: Family<Language, Counter>,
    confidence: Histogram,
    batch_queries: Histogram,
    batch_seconds: Histogram,
    limit_hits: Family<Limit, Counter>,
    model_loads: Family<Loaded, Counter>,
    /// Gateways linked now.
    pub(crate) links: Gauge,
}

impl Metrics {
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            queries: Counter::default(),
            decisions: Family::default(),
            languages: Family::default(),
            confidence: Histogram::new((1..20).map(|step| f64::from(step) / 20.0)),
            batch_queries: Histogram::new((0..=8).map(|power| f64::from(1_u32 << power))),
            batch_seconds: Histogram::new((0..14).map(|power| 2e-6 * f64::from(1_u32 << power))),
            limit_hits: Family::default(),
            model_loads: Family::default(),
            links: Gauge::default(),
        };
        registry.register(
            "intent_queries",
            "Queries answered",
            metrics.queries.clone(),
        );
        registry.register(
            "intent_decisions",
            "Verdicts by decision and reason",
            metrics.decisions.clone(),
        );
        registry.register(
            "intent_languages",
            "Queries with words by language given or identified",
            metrics.languages.clone(),
        );
        registry.register(
            "intent_confidence",
            "Calibrated confidence in the first candidate",
            metrics.confidence.clone(),
        );
        registry.register(
            "intent_batch_queries",
            "Queries in a frame",
            metrics.batch_queries.clone(),
        );
        registry.register(
            "intent_batch_seconds",
            "Time to answer a frame",
            metrics.batch_seconds.clone(),
        );
        registry.register(
            "intent_limit_hits",
            "Queries and links past a limit",
            metrics.limit_hits.clone(),
        );
        registry.register(
            "intent_model_loads",
            "Model files looked at, by result",
            metrics.model_loads.clone(),
        );
        registry.register("intent_links", "Gateways linked now", metrics.links.clone());
        metrics
    }

    /// Counts a verdict.
    pub(crate) fn verdict(&self, verdict: &Verdict) {
        self.queries.inc();
        let decision = match verdict.decision() {
            Decision::Topic => DecisionLabel::topic,
            Decision::PersonAsked => DecisionLabel::person_asked,
            Decision::PersonUnsure | Decision::Unspecified => DecisionLabel::person_unsure,
        };
        self.decisions
            .get_or_create(&Decided {
                decision,
                reason: ReasonLabel(verdict.reason()),
            })
            .inc();
        if !verdict.top.is_empty() {
            self.confidence.observe(f64::from(verdict.confidence));
            self.languages
                .get_or_create(&Language {
                    language: language_label(&verdict.language),
                })
                .inc();
        }
        if let Some(error) = &verdict.error {
            self.limit_hit(limit_label(&error.field));
        }
    }

    /// Counts a frame.
    pub(crate) fn batch(&self, queries: usize, seconds: f64) {
        self.batch_queries.observe(queries as f64);
        self.batch_seconds.observe(seconds);
    }

    /// Counts a hit of a limit.
    pub(crate) fn limit_hit(&self, limit: &'static str) {
        self.limit_hits.get_or_create(&Limit { limit }).inc();
    }

    /// Counts a look at a changed model file.
    pub(crate) fn model_load(&self, result: &'static str) {
        self.model_loads.get_or_create(&Loaded { result }).inc();
    }
}

fn language_label(tag: &str) -> &'static str {
    match tag.split('-').next().unwrap_or_default() {
        "" => "none",
        "en" => "en",
        "es" => "es",
        "fr" => "fr",
        _ => "other",
    }
}

fn limit_label(field: &str) -> &'static str {
    match field {
        "utterance" => "utterance",
        "digits" => "digits",
        "language" => "language",
        "line" => "line",
        "queries" => "queries",
        _ => "other",
    }
}
