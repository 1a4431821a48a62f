//! One call's trace, from the switch's own trace context through every role and onto its
//! Kafka event. The collector is a double because it must be asked what it received; the
//! spans reach it over real OTLP.

mod support;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use proto::cti::v1::switch_dialogue_message::Body;
use rdkafka::Message as _;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{Consumer as _, StreamConsumer};
use rdkafka::message::Headers as _;
use support::{STEP, Switch, Trunkline, request};
use tonic::{Request, Response, Status};

const TRACE_ID: &str = "0af7651916cd43dd8448eb211c80319c";

#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<(String, String)>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut seen = self.0.lock().expect("not poisoned");
        for resource in request.into_inner().resource_spans {
            for span in resource
                .scope_spans
                .into_iter()
                .flat_map(|scope| scope.spans)
            {
                let trace_id = span
                    .trace_id
                    .iter()
                    .map(|byte| format!("{byte:02x}"))
                    .collect();
                for attribute in span.attributes {
                    if attribute.key == "trunkline.role"
                        && let Some(Value::StringValue(role)) =
                            attribute.value.and_then(|value| value.value)
                    {
                        seen.push((String::clone(&trace_id), role));
                    }
                }
            }
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_follows_one_call_through_every_role_and_onto_its_event() -> anyhow::Result<()> {
    let collector = Collector::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let endpoint = format!("http://{}", listener.local_addr()?);
    let service = TraceServiceServer::new(collector.clone());
    tokio::spawn(
        tonic::transport::Server::builder()
            .add_service(service)
            .serve_with_incoming(tokio_stream::wrappers::TcpListenerStream::new(listener)),
    );
    let mesh = Trunkline::dev_with(&["--otlp-endpoint", &endpoint], &[]).await?;
    let mut switch = Switch::attach(&mesh.address("gateway"), "test-switch", 1).await?;
    let policy = domain::policy::Policy::worked_example();
    let number = policy.lines.values().next().expect("a line").numbers[0].clone();
    let mut traced = request("call-1", &number, "where is my refund");
    traced.traceparent = format!("00-{TRACE_ID}-b7ad6b7169203331-01");
    switch.say(Body::Request(traced)).await?;
    switch.answer().await?;

    let kafka = mesh.ready["kafka"].as_str().expect("brokers").to_owned();
    let header = tokio::time::timeout(STEP, first_traceparent(&kafka)).await??;
    assert!(
        header.contains(TRACE_ID),
        "the event carries another trace: {header}"
    );

    let expected: BTreeSet<&str> = ["gateway", "intent", "routing", "outcomes"].into();
    runtime::local::wait_until("every role's span was exported", STEP, || async {
        let seen = collector.0.lock().expect("not poisoned");
        let roles: BTreeSet<&str> = seen
            .iter()
            .filter(|(trace, _)| trace == TRACE_ID)
            .map(|(_, role)| role.as_str())
            .collect();
        expected.is_subset(&roles)
    })
    .await?;
    assert!(mesh.terminate().await?.success());
    Ok(())
}

async fn first_traceparent(brokers: &str) -> anyhow::Result<String> {
    let consumer: StreamConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "trace-test")
        .set("auto.offset.reset", "earliest")
        .create()?;
    consumer.subscribe(&["trunkline.contact.v1"])?;
    loop {
        let message = consumer.recv().await?;
        let Some(headers) = message.headers() else {
            continue;
        };
        for header in headers.iter() {
            if header.key == "traceparent"
                && let Some(value) = header.value
            {
                return Ok(String::from_utf8_lossy(value).into_owned());
            }
        }
    }
}
