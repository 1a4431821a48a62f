//! What is asked of the mesh itself at the end of a run, while it is up: the measures and
//! how far the log has been read, bookings that have not ended, and everything that is
//! searched for personal data.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use proto::callback::v1 as callback;
use proto::callback::v1::callback_service_client::CallbackServiceClient;
use proto::outcomes::v1 as outcomes;
use proto::outcomes::v1::outcomes_service_client::OutcomesServiceClient;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::pii::{Scanner, Sightings};
use crate::net::endpoint;

/// Where to ask.
#[derive(Clone, Debug, Default)]
pub(crate) struct Places {
    /// Kafka.
    pub(crate) kafka: String,
    /// gRPC of the outcomes replicas.
    pub(crate) outcomes: Vec<String>,
    /// gRPC of the callback replicas.
    pub(crate) callbacks: Vec<String>,
    /// Admin ports: (role, address).
    pub(crate) admin: Vec<(String, String)>,
    /// Redis servers.
    pub(crate) redis: Vec<String>,
    /// Folder with the roles' logs.
    pub(crate) logs: Option<PathBuf>,
}

/// What the mesh said.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Live {
    /// Measures over everything.
    pub(crate) measures: Vec<Measure>,
    /// Measures by language: (language, measures).
    pub(crate) by_language: Vec<(String, Vec<Measure>)>,
    /// Version of the definitions.
    pub(crate) definitions: u32,
    /// The outcomes role has read the log to its end.
    pub(crate) caught_up: bool,
    /// How far it was, in words.
    pub(crate) lag: String,
    /// Personal data.
    pub(crate) personal: Sightings,
}

/// One measure.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Measure {
    pub(crate) name: String,
    pub(crate) value: f64,
    pub(crate) denominator: u64,
    pub(crate) definition: String,
    pub(crate) unknown: bool,
}

impl Measure {
    fn of(measure: outcomes::Measure) -> Self {
        Self {
            name: measure.name,
            value: measure.value,
            denominator: measure.denominator,
            definition: measure.definition,
            unknown: measure.unknown,
        }
    }
}

/// Waits until the topic has not grown for `quiet` and the outcomes role has read it all.
/// Returns whether that was so within `limit`, and how far it was, in words.
pub(crate) async fn wait_until_quiet(
    places: &Places,
    quiet: Duration,
    limit: Duration,
) -> anyhow::Result<(bool, String)> {
    let began = Instant::now();
    let mut last = Vec::new();
    let mut since = Instant::now();
    let mut lag = String::new();
    loop {
        let brokers = places.kafka.clone();
        let ends = tokio::task::spawn_blocking(move || super::log::topic_ends(&brokers)).await?;
        if let Ok(ends) = ends {
            if ends != last {
                since = Instant::now();
                last = ends;
            }
            let behind = behind(places, &last).await;
            lag = match &behind {
                Ok(behind) => format!("{behind} records behind"),
                Err(error) => format!("{error:#}"),
            };
            if since.elapsed() >= quiet && matches!(behind, Ok(0)) {
                return Ok((true, lag));
            }
        }
        if began.elapsed() > limit {
            return Ok((false, lag));
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

/// Records that the outcomes role has not applied. Any replica knows: offsets are in Redis.
async fn behind(places: &Places, ends: &[(i32, i64)]) -> anyhow::Result<i64> {
    let mut failed = anyhow::anyhow!("no outcomes replica to ask");
    for address in &places.outcomes {
        match progress(address).await {
            Ok(progress) => {
                let next = |partition| {
                    let known = progress.partitions.iter().find(|known| {
                        known.partition == partition && known.topic == super::log::TOPIC
                    });
                    known.map_or(0, |known| known.next_offset)
                };
                return Ok(ends
                    .iter()
                    .map(|(partition, end)| (end - next(*partition)).max(0))
                    .sum());
            }
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

async fn progress(address: &str) -> anyhow::Result<outcomes::GetProgressResponse> {
    let mut client = OutcomesServiceClient::new(
        endpoint(address)?
            .timeout(Duration::from_secs(5))
            .connect_lazy(),
    );
    Ok(client
        .get_progress(outcomes::GetProgressRequest {})
        .await?
        .into_inner())
}

/// Asks for the measures, and searches logs, Redis and metrics.
pub(crate) async fn collect(places: &Places, scanner: &Scanner) -> anyhow::Result<Live> {
    let mut live = Live::default();
    for address in &places.outcomes {
        let mut client = OutcomesServiceClient::new(
            endpoint(address)?
                .timeout(Duration::from_secs(30))
                .connect_lazy(),
        );
        let everything = outcomes::GetMeasuresRequest {
            grouping: outcomes::Grouping::Unspecified.into(),
            from_ms: 0,
            until_ms: 0,
        };
        let Ok(response) = client.get_measures(everything).await else {
            continue;
        };
        let response = response.into_inner();
        live.definitions = response.definitions;
        live.measures = response
            .rows
            .into_iter()
            .flat_map(|row| row.measures)
            .map(Measure::of)
            .collect();
        let by_language = outcomes::GetMeasuresRequest {
            grouping: outcomes::Grouping::Language.into(),
            from_ms: 0,
            until_ms: 0,
        };
        if let Ok(response) = client.get_measures(by_language).await {
            let rows = response.into_inner().rows;
            live.by_language = rows
                .into_iter()
                .map(|row| {
                    (
                        row.group,
                        row.measures.into_iter().map(Measure::of).collect(),
                    )
                })
                .collect();
        }
        break;
    }
    for (role, address) in &places.admin {
        // A role that is down has no page to search.
        if let Ok(page) = http_get(address, "/metrics").await {
            scanner.scan("metrics", page.as_bytes(), &mut live.personal);
            tracing::debug!(role, bytes = page.len(), "metrics searched");
        }
    }
    for url in &places.redis {
        search_redis(url, scanner, &mut live.personal)
            .await
            .with_context(|| format!("searching {url}"))?;
    }
    if let Some(logs) = &places.logs {
        search_files(logs, scanner, &mut live.personal)?;
    }
    Ok(live)
}

/// One page by HTTP/1.1.
pub(crate) async fn http_get(address: &str, path: &str) -> anyhow::Result<String> {
    let ask = async {
        let mut stream = tokio::net::TcpStream::connect(address).await?;
        stream
            .write_all(
                format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n")
                    .as_bytes(),
            )
            .await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        anyhow::Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    tokio::time::timeout(Duration::from_secs(5), ask)
        .await
        .context("no answer within 5 s")?
}

fn search_files(folder: &Path, scanner: &Scanner, sightings: &mut Sightings) -> anyhow::Result<()> {
    for entry in
        std::fs::read_dir(folder).with_context(|| format!("searching {}", folder.display()))?
    {
        let path = entry?.path();
        if path.is_file() {
            let bytes = std::fs::read(&path)?;
            scanner.scan("log file", &bytes, sightings);
        }
    }
    Ok(())
}

/// Every key and value, by type: `DUMP` would do for all types at once, but it compresses.
async fn search_redis(
    url: &str,
    scanner: &Scanner,
    sightings: &mut Sightings,
) -> anyhow::Result<()> {
    let client = redis::Client::open(url)?;
    let mut connection = client.get_multiplexed_async_connection().await?;
    let mut cursor = 0u64;
    loop {
        let (next, keys): (u64, Vec<Vec<u8>>) = redis::cmd("SCAN")
            .arg(cursor)
            .arg("COUNT")
            .arg(1000)
            .query_async(&mut connection)
            .await?;
        for key in keys {
            scanner.scan("Redis key", &key, sightings);
            let kind: String = redis::cmd("TYPE")
                .arg(&key)
                .query_async(&mut connection)
                .await?;
            let (command, arguments): (&str, &[&str]) = match kind.as_str() {
                "string" => ("GET", &[]),
                "hash" => ("HGETALL", &[]),
                "list" => ("LRANGE", &["0", "-1"]),
                "set" => ("SMEMBERS", &[]),
                "zset" => ("ZRANGE", &["0", "-1"]),
                "stream" => ("XRANGE", &["-", "+"]),
                _ => continue,
            };
            let mut ask = redis::cmd(command);
            ask.arg(&key);
            for argument in arguments {
                ask.arg(*argument);
            }
            let value: redis::Value = ask.query_async(&mut connection).await?;
            search_value(&value, scanner, sightings);
        }
        if next == 0 {
            return Ok(());
        }
        cursor = next;
    }
}

fn search_value(value: &redis::Value, scanner: &Scanner, sightings: &mut Sightings) {
    match value {
        redis::Value::BulkString(bytes) => scanner.scan("Redis value", bytes, sightings),
        redis::Value::SimpleString(text) => scanner.scan("Redis value", text.as_bytes(), sightings),
        redis::Value::Array(values) | redis::Value::Set(values) => {
            for value in values {
                search_value(value, scanner, sightings);
            }
        }
        redis::Value::Map(pairs) => {
            for (key, value) in pairs {
                search_value(key, scanner, sightings);
                search_value(value, scanner, sightings);
            }
        }
        _ => {}
    }
}

/// What the callback role says of a contact's booking: found, and its state. `None`: no
/// replica answered.
pub(crate) async fn booking(places: &Places, contact: &str) -> Option<(bool, String)> {
    let contact_id = bytes_of(contact)?;
    for address in &places.callbacks {
        let Ok(endpoint) = endpoint(address) else {
            continue;
        };
        let mut client =
            CallbackServiceClient::new(endpoint.timeout(Duration::from_secs(5)).connect_lazy());
        let request = callback::GetBookingRequest {
            contact_id: contact_id.to_vec().into(),
        };
        if let Ok(response) = client.get_booking(request).await {
            let booking = response.into_inner();
            return Some((booking.found, booking.state));
        }
    }
    None
}

/// The 16 bytes of a UUID in text.
fn bytes_of(contact: &str) -> Option<[u8; 16]> {
    let digits: String = contact.chars().filter(|digit| *digit != '-').collect();
    (digits.len() == 32).then(|| {
        u128::from_str_radix(&digits, 16)
            .ok()
            .map(u128::to_be_bytes)
    })?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_contact_in_text_is_the_contact_in_bytes() {
        let contact = domain::ContactId(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);
        assert_eq!(bytes_of(&contact.to_string()), Some(contact.to_bytes()));
        assert_eq!(bytes_of("call 7"), None);
    }
}
