//! The role over its real stream.

use std::path::Path;
use std::time::Duration;

use intent::Config;
use intent::corpus::Corpus;
use intent::train::{Options, train};
use proto::intent::v1::intent_service_client::IntentServiceClient;
use proto::intent::v1::{
    Decision, GetModelRequest, LinkRequest, LinkResponse, Query, Reason, Verdict,
};
use runtime::local::wait_until;
use runtime::{Running, Shutdown};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

const LIMIT: Duration = Duration::from_secs(60);

struct Link {
    up: mpsc::Sender<LinkRequest>,
    down: Streaming<LinkResponse>,
}

impl Link {
    async fn open(client: &mut IntentServiceClient<Channel>) -> Result<Self, tonic::Status> {
        let (up, requests) = mpsc::channel(64);
        let mut down = client
            .link(ReceiverStream::new(requests))
            .await?
            .into_inner();
        let hello = down.message().await?.expect("a first frame");
        assert!(hello.replica_id.starts_with("intent"), "{hello:?}");
        Ok(Self { up, down })
    }

    async fn ask(&mut self, queries: Vec<Query>) -> Vec<Verdict> {
        self.up.send(LinkRequest { queries }).await.unwrap();
        tokio::time::timeout(LIMIT, self.down.message())
            .await
            .unwrap()
            .unwrap()
            .unwrap()
            .verdicts
    }
}

fn said(query_id: u64, utterance: &str) -> Query {
    Query {
        query_id,
        utterance: utterance.to_owned(),
        ..Query::default()
    }
}

async fn started(config: Config) -> (Running, Shutdown, IntentServiceClient<Channel>) {
    let shutdown = Shutdown::new();
    let running = intent::start(config, shutdown.clone()).await.unwrap();
    let endpoint = format!("http://{}", running.grpc.unwrap());
    let channel = runtime::grpc::connect_lazy(&endpoint, &runtime::TlsArgs::default()).unwrap();
    (running, shutdown, IntentServiceClient::new(channel))
}

/// A model of two labels, quickly made.
fn two_labels(path: &Path, label: &str, seed: u64) -> String {
    let text = format!(
        "intent\tlang\ttext\n{label}\ten\twhere is my refund\n{label}\ten\trefund status\n\
         {label}\ten\tmy refund money\nother\ten\tpayment plan\nother\ten\tpay monthly\nother\ten\tinstallments\n"
    );
    let corpus = Corpus::parse([("two", text.as_str())]).unwrap();
    let options = Options {
        seed,
        bits: 6,
        ..Options::default()
    };
    let model = train(&corpus, None, &options, &|_| {}).unwrap();
    model.save(path).unwrap();
    model.id().to_owned()
}

#[tokio::test]
async fn utterances_of_64_kib_among_good_ones_get_their_error_and_the_others_their_answer() {
    let (running, shutdown, mut client) = started(Config::for_test()).await;
    let mut link = Link::open(&mut client).await.unwrap();
    let huge = "refund ".repeat(64 * 1_024 / 7 + 1);
    for round in 0..8_u64 {
        let mut queries: Vec<Query> = Vec::new();
        for index in 0..60 {
            let id = round * 100 + index;
            queries.push(match index % 6 {
                0 => said(id, "where's my refund"),
                1 => said(id, &huge),
                2 => said(id, "un conseiller"),
                3 => said(id, ""),
                4 => Query {
                    language: "not a language".to_owned(),
                    ..said(id, "where's my refund")
                },
                _ => Query {
                    digits: "0".to_owned(),
                    ..said(id, "cómo pago en línea")
                },
            });
        }
        let asked: Vec<u64> = queries.iter().map(|query| query.query_id).collect();
        let verdicts = link.ask(queries).await;
        assert_eq!(
            verdicts
                .iter()
                .map(|verdict| verdict.query_id)
                .collect::<Vec<_>>(),
            asked
        );
        for verdict in verdicts {
            match verdict.query_id % 100 % 6 {
                0 => {
                    assert_eq!(verdict.decision(), Decision::Topic, "{verdict:?}");
                    assert_eq!(verdict.topic_id, "REF_STATUS");
                    assert_eq!(verdict.top[0].topic_id, "REF_STATUS");
                    assert_eq!(verdict.top.len(), 3);
                    assert!(verdict.error.is_none());
                }
                1 => {
                    let error = verdict.error.clone().unwrap();
                    assert_eq!(error.field, "utterance");
                    assert_eq!(error.limit, "at most 2048 bytes");
                    assert_eq!(error.value, format!("{} bytes", huge.len()));
                    assert_eq!(verdict.decision(), Decision::PersonUnsure);
                }
                2 => assert_eq!(verdict.reason(), Reason::PersonPhrase),
                3 => assert_eq!(verdict.reason(), Reason::NoUtterance),
                4 => assert_eq!(verdict.error.unwrap().field, "language"),
                _ => assert_eq!(verdict.reason(), Reason::KeyZero),
            }
        }
    }
    shutdown.request();
    running.wait().await.unwrap();
}

#[tokio::test]
async fn queries_past_the_limit_of_a_frame_get_an_error_each_and_the_rest_an_answer() {
    let (running, shutdown, mut client) = started(Config::for_test()).await;
    let mut link = Link::open(&mut client).await.unwrap();
    let verdicts = link
        .ask((0..300).map(|id| said(id, "where's my refund")).collect())
        .await;
    assert_eq!(verdicts.len(), 300);
    for verdict in &verdicts {
        assert_eq!(
            verdict.error.is_some(),
            verdict.query_id >= 256,
            "{verdict:?}"
        );
    }
    assert_eq!(verdicts[299].error.clone().unwrap().value, "300");
    // And the stream goes on.
    assert_eq!(
        link.ask(vec![said(1, "agente")]).await[0].decision(),
        Decision::PersonAsked
    );
    assert!(link.ask(Vec::new()).await.is_empty());
    shutdown.request();
    running.wait().await.unwrap();
}

#[tokio::test]
async fn many_links_are_served_side_by_side_and_one_too_many_is_told_the_limit() {
    let config = Config {
        links_max: 8,
        ..Config::for_test()
    };
    let (running, shutdown, client) = started(config).await;
    let mut links = Vec::new();
    for _ in 0..8 {
        links.push(Link::open(&mut client.clone()).await.unwrap());
    }
    let refused = Link::open(&mut client.clone()).await.err().unwrap();
    assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
    assert!(refused.message().contains("at most 8"));
    let mut tasks = Vec::new();
    for (number, mut link) in links.into_iter().enumerate() {
        tasks.push(tokio::spawn(async move {
            for round in 0..50 {
                let verdicts = link
                    .ask(vec![said(round, "où en est mon remboursement"); 32])
                    .await;
                assert!(
                    verdicts.iter().all(|verdict| verdict.query_id == round),
                    "link {number}"
                );
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    // Their places are free again.
    wait_until("a free place", LIMIT, || async {
        Link::open(&mut client.clone()).await.is_ok()
    })
    .await
    .unwrap();
    shutdown.request();
    running.wait().await.unwrap();
}

#[tokio::test]
async fn a_new_model_file_takes_over_and_a_broken_one_does_not() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("intent.model");
    let first = two_labels(&path, "REF_STATUS", 1);
    let (running, shutdown, client) = started(Config {
        model: Some(path.clone()),
        ..Config::for_test()
    })
    .await;
    let model_id = || async {
        client
            .clone()
            .get_model(GetModelRequest {})
            .await
            .unwrap()
            .into_inner()
            .model_id
    };
    assert_eq!(model_id().await, first);
    let mut link = Link::open(&mut client.clone()).await.unwrap();
    assert_eq!(
        link.ask(vec![said(1, "where is my refund")]).await[0].top[0].topic_id,
        "REF_STATUS"
    );

    let second = two_labels(&path, "REF_DELAY", 2);
    wait_until("the second model", LIMIT, || async {
        model_id().await == second
    })
    .await
    .unwrap();
    assert_eq!(
        link.ask(vec![said(2, "where is my refund")]).await[0].top[0].topic_id,
        "REF_DELAY"
    );

    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let admin = running.admin;
    wait_until("the refusal in the metrics", LIMIT, || async move {
        metrics(admin)
            .await
            .contains("trunkline_intent_model_loads_total{result=\"refused\"} 1")
    })
    .await
    .unwrap();
    assert_eq!(model_id().await, second, "the old one stays");
    assert_eq!(
        link.ask(vec![said(3, "where is my refund")]).await[0].top[0].topic_id,
        "REF_DELAY"
    );
    let told = client
        .clone()
        .get_model(GetModelRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!(told.origin, "intent.model");
    assert_eq!(told.topics.len(), 2);
    shutdown.request();
    running.wait().await.unwrap();
}

#[tokio::test]
async fn a_draining_replica_says_so_answers_what_comes_and_ends() {
    let mut config = Config::for_test();
    config.runtime.drain_delay_ms = 1_000;
    let (running, shutdown, mut client) = started(config).await;
    let mut link = Link::open(&mut client).await.unwrap();
    shutdown.request();
    let told = tokio::time::timeout(LIMIT, link.down.message())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert!(told.draining);
    assert_eq!(
        link.ask(vec![said(1, "agente")]).await[0].decision(),
        Decision::PersonAsked
    );
    assert_eq!(
        Link::open(&mut client).await.err().unwrap().code(),
        tonic::Code::Unavailable
    );
    running.wait().await.unwrap();
    assert!(!matches!(link.down.message().await, Ok(Some(_))));
}

#[tokio::test]
async fn every_limit_and_decision_is_counted_and_no_text_is() {
    let (running, shutdown, mut client) = started(Config::for_test()).await;
    let mut link = Link::open(&mut client).await.unwrap();
    link.ask(vec![
        said(1, "where's my refund xylophonist"),
        said(2, &"x".repeat(3_000)),
        said(3, "agente"),
        Query {
            digits: "0".to_owned(),
            ..said(4, "")
        },
    ])
    .await;
    let text = metrics(running.admin).await;
    for line in [
        "trunkline_intent_queries_total 4",
        "trunkline_intent_limit_hits_total{limit=\"utterance\"} 1",
        "trunkline_intent_decisions_total{decision=\"person_asked\",reason=\"key_zero\"} 1",
        "trunkline_intent_decisions_total{decision=\"person_asked\",reason=\"person_phrase\"} 1",
        "trunkline_intent_decisions_total{decision=\"person_unsure\",reason=\"invalid_query\"} 1",
        "trunkline_intent_links 1",
        "trunkline_intent_batch_queries_count 1",
        "trunkline_intent_confidence_count 2",
    ] {
        assert!(text.contains(line), "{line} is missing from\n{text}");
    }
    assert!(!text.contains("xylophonist"));
    shutdown.request();
    running.wait().await.unwrap();
}

/// The admin port's metrics.
async fn metrics(admin: std::net::SocketAddr) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut socket = tokio::net::TcpStream::connect(admin).await.unwrap();
    socket
        .write_all(b"GET /metrics HTTP/1.0\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    let mut text = String::new();
    socket.read_to_string(&mut text).await.unwrap();
    text
}
