//! The measures, asked for: over gRPC, and as gauges on `/metrics`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use domain::TimeMs;
use domain::outcome::{
    Counts, DAY_MS, DEFINITIONS_VERSION, Grouping, HALF_HOUR_MS, Measured, WINDOWS_DAYS,
    definitions,
};
use proto::outcomes::v1;
use proto::outcomes::v1::outcomes_service_server::OutcomesService;
use runtime::{Clock, LogLimit, Shutdown};
use tonic::{Request, Response, Status};

use crate::metrics::Metrics;
use crate::store::{Period, Store};

/// Days that can have open windows: the longest, and the one not yet over.
const OPEN_DAYS: u64 = WINDOWS_DAYS[2] + 1;

/// A question that cannot be answered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The store is away.
    #[error("redis does not answer: {0}")]
    Store(#[from] redis::RedisError),
    /// A bad time span.
    #[error("{field}: {value} is outside the limit: {limit}")]
    Span {
        field: &'static str,
        value: u64,
        limit: String,
    },
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        match error {
            Error::Store(_) => Status::unavailable(error.to_string()),
            Error::Span { .. } => Status::invalid_argument(error.to_string()),
        }
    }
}

/// A half-open span of half hours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    from: u64,
    until: u64,
}

/// Answers from the stored counters.
#[derive(Clone)]
pub(crate) struct Measures {
    store: Store,
    clock: Clock,
}

impl Measures {
    pub(crate) const fn new(store: Store, clock: Clock) -> Self {
        Self { store, clock }
    }

    /// The groups of a grouping over all time.
    pub(crate) async fn totals(
        &self,
        grouping: Grouping,
    ) -> Result<BTreeMap<String, Measured>, Error> {
        let now = self.clock.now();
        let mut periods = vec![Period::Total];
        let today = now.0 / DAY_MS;
        // A day ahead too: an event's clock may be a little before ours.
        periods.extend((today.saturating_sub(OPEN_DAYS)..=today + 1).map(Period::Day));
        let mut stored = self.store.counts(&periods, grouping).await?;
        let mut groups: BTreeMap<String, Measured> = stored
            .remove(&Period::Total)
            .unwrap_or_default()
            .into_iter()
            .map(|(group, counts)| {
                (
                    group,
                    Measured {
                        counts,
                        ..Measured::default()
                    },
                )
            })
            .collect();
        for (period, counts) in stored {
            let Period::Day(day) = period else { continue };
            open_windows(&mut groups, TimeMs((day + 1) * DAY_MS), now, &counts);
        }
        Ok(groups)
    }

    /// The groups of a grouping over some half hours.
    async fn over(
        &self,
        grouping: Grouping,
        span: Span,
    ) -> Result<BTreeMap<String, Measured>, Error> {
        let now = self.clock.now();
        let periods: Vec<Period> = (span.from..span.until).map(Period::HalfHour).collect();
        let mut groups: BTreeMap<String, Measured> = BTreeMap::new();
        for (period, stored) in self.store.counts(&periods, grouping).await? {
            let Period::HalfHour(number) = period else {
                continue;
            };
            for (group, counts) in &stored {
                groups
                    .entry(group.clone())
                    .or_default()
                    .counts
                    .merge(counts);
            }
            open_windows(
                &mut groups,
                TimeMs((number + 1) * HALF_HOUR_MS),
                now,
                &stored,
            );
        }
        Ok(groups)
    }

    /// One group a half hour.
    async fn by_half_hour(&self, span: Span) -> Result<BTreeMap<String, Measured>, Error> {
        let now = self.clock.now();
        let periods: Vec<Period> = (span.from..span.until).map(Period::HalfHour).collect();
        let mut groups = BTreeMap::new();
        for (period, stored) in self.store.counts(&periods, Grouping::All).await? {
            let Period::HalfHour(number) = period else {
                continue;
            };
            let Some(counts) = stored.get("") else {
                continue;
            };
            let mut measured = BTreeMap::from([(
                String::new(),
                Measured {
                    counts: counts.clone(),
                    ..Measured::default()
                },
            )]);
            open_windows(
                &mut measured,
                TimeMs((number + 1) * HALF_HOUR_MS),
                now,
                &stored,
            );
            let measured = measured.remove("").unwrap_or_default();
            groups.insert(moment(TimeMs(number * HALF_HOUR_MS)), measured);
        }
        Ok(groups)
    }

    /// The span asked for. Half hours that the limits cut are taken whole.
    fn span(&self, from_ms: u64, until_ms: u64) -> Result<Span, Error> {
        let now = self.clock.now();
        let kept_ms = self.store.retention().half_hours_ms;
        let oldest = now.minus(kept_ms);
        let until_ms = if until_ms == 0 { now.0 + 1 } else { until_ms };
        if from_ms != 0 && from_ms < oldest.0 {
            let limit = format!(
                "0, or not before {oldest}: half hours are kept {} days",
                kept_ms / DAY_MS
            );
            return Err(Error::Span {
                field: "from_ms",
                value: from_ms,
                limit,
            });
        }
        let from_ms = if from_ms == 0 { oldest.0 } else { from_ms };
        if until_ms <= from_ms {
            let limit = format!("after {from_ms}");
            return Err(Error::Span {
                field: "until_ms",
                value: until_ms,
                limit,
            });
        }
        // Nothing has happened after now; and so the number of half hours is bounded.
        let until_ms = until_ms.min(now.0 + 2 * HALF_HOUR_MS);
        Ok(Span {
            from: from_ms / HALF_HOUR_MS,
            until: until_ms.div_ceil(HALF_HOUR_MS),
        })
    }

    async fn answer(
        &self,
        request: &v1::GetMeasuresRequest,
    ) -> Result<BTreeMap<String, Measured>, Error> {
        let grouping = match request.grouping() {
            v1::Grouping::Unspecified => Grouping::All,
            v1::Grouping::Line => Grouping::Line,
            v1::Grouping::Topic => Grouping::Topic,
            v1::Grouping::Queue => Grouping::Queue,
            v1::Grouping::Language => Grouping::Language,
            v1::Grouping::Channel => Grouping::Channel,
            v1::Grouping::Interval => {
                let span = self.span(request.from_ms, request.until_ms)?;
                return self.by_half_hour(span).await;
            }
        };
        let mut groups = if request.from_ms == 0 && request.until_ms == 0 {
            self.totals(grouping).await?
        } else {
            self.over(grouping, self.span(request.from_ms, request.until_ms)?)
                .await?
        };
        if grouping == Grouping::All {
            groups.entry(String::new()).or_default();
        }
        Ok(groups)
    }

    /// Shows the measures on `/metrics`, until the drain.
    pub(crate) async fn show(self, metrics: Metrics, every: Duration, shutdown: Shutdown) {
        let limit = LogLimit::new(Duration::from_secs(30));
        loop {
            // Topics are left out: too many for gauges; the query API has them.
            let groupings = [
                Grouping::All,
                Grouping::Line,
                Grouping::Queue,
                Grouping::Language,
                Grouping::Channel,
            ];
            for grouping in groupings {
                match self.totals(grouping).await {
                    Ok(groups) => show_groups(&metrics, grouping, &groups),
                    Err(error) => {
                        if let Some(suppressed) = limit.check() {
                            tracing::warn!(%error, suppressed, "measures not read anew");
                        }
                    }
                }
            }
            tokio::select! {
                biased;
                () = shutdown.requested() => return,
                () = tokio::time::sleep(every) => {}
            }
        }
    }
}

fn show_groups(metrics: &Metrics, grouping: Grouping, groups: &BTreeMap<String, Measured>) {
    for (group, measured) in groups {
        for definition in definitions() {
            let value = definition.value(measured);
            if value.known {
                metrics.measure(definition.name, grouping.name(), group, value.value);
            }
        }
    }
}

/// Notes the counters of a period, over at `end`, under the windows that are still open.
fn open_windows(
    groups: &mut BTreeMap<String, Measured>,
    end: TimeMs,
    now: TimeMs,
    stored: &BTreeMap<String, Counts>,
) {
    for (window, days) in WINDOWS_DAYS.into_iter().enumerate() {
        if end.plus(days * DAY_MS) > now {
            for (group, counts) in stored {
                groups.entry(group.clone()).or_default().open[window].merge(counts);
            }
        }
    }
}

/// A moment as ISO 8601 to the minute, so that groups in order of name are in order of time.
fn moment(at: TimeMs) -> String {
    // Days to a civil date by the era method (400 years have 146,097 days).
    let days = at.0 / DAY_MS + 719_468;
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let minutes = at.0 % DAY_MS / 60_000;
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}Z",
        minutes / 60,
        minutes % 60
    )
}

/// The gRPC service.
pub(crate) struct Query {
    measures: Measures,
    texts: Arc<Vec<String>>,
    topic: String,
}

impl Query {
    pub(crate) fn new(measures: Measures, topic: &str) -> Self {
        let texts = definitions()
            .iter()
            .map(domain::outcome::Definition::text)
            .collect();
        Self {
            measures,
            texts: Arc::new(texts),
            topic: topic.to_owned(),
        }
    }
}

#[tonic::async_trait]
impl OutcomesService for Query {
    async fn get_measures(
        &self,
        request: Request<v1::GetMeasuresRequest>,
    ) -> Result<Response<v1::GetMeasuresResponse>, Status> {
        let groups = self.measures.answer(request.get_ref()).await?;
        let rows = groups
            .into_iter()
            .map(|(group, measured)| v1::MeasureRow {
                group,
                measures: definitions()
                    .iter()
                    .zip(self.texts.iter())
                    .map(|(definition, text)| {
                        let value = definition.value(&measured);
                        v1::Measure {
                            name: definition.name.to_owned(),
                            value: value.value,
                            denominator: value.denominator,
                            definition: text.clone(),
                            unknown: !value.known,
                        }
                    })
                    .collect(),
            })
            .collect();
        Ok(Response::new(v1::GetMeasuresResponse {
            rows,
            definitions: DEFINITIONS_VERSION,
        }))
    }

    async fn get_progress(
        &self,
        _request: Request<v1::GetProgressRequest>,
    ) -> Result<Response<v1::GetProgressResponse>, Status> {
        let progress = self.measures.store.progress().await.map_err(Error::from)?;
        let partitions = progress
            .into_iter()
            .map(|(partition, progress)| v1::PartitionProgress {
                topic: self.topic.clone(),
                partition,
                next_offset: progress.next.unwrap_or(0),
                applied: progress.applied,
                repeated: progress.repeated,
            })
            .collect();
        Ok(Response::new(v1::GetProgressResponse { partitions }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_half_hour_is_named_by_its_start() {
        assert_eq!(moment(TimeMs(0)), "1970-01-01T00:00Z");
        assert_eq!(moment(TimeMs(951_782_400_000)), "2000-02-29T00:00Z");
        assert_eq!(
            moment(TimeMs(1_709_164_800_000 + 23 * 3_600_000 + 1_800_000)),
            "2024-02-29T23:30Z"
        );
        assert_eq!(moment(TimeMs(1_767_225_599_000)), "2025-12-31T23:59Z");
    }
}
