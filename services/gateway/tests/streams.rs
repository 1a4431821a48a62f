//! The gateway's real streams, with doubles for its peers.

mod common;

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use common::{
    Dialogues, Events, LINE, Manner, Mesh, NUMBER, PATIENCE, connect, get, hello, is_ready, request,
};
use proto::cti::v1::{
    CallCleared, CallRef, CapabilitiesRequest, CommandsRequest, Delivered, Device,
    DialoguesResponse, Hello, OfferAnswered, RouteEndError, SwitchEvent, SystemCondition,
    call_control_service_client::CallControlServiceClient, command, mesh_dialogue_message as mesh,
    switch_dialogue_message::Body, switch_event, system_service_client::SystemServiceClient,
};
use proto::routing::v1::input;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

fn cleared(seq: u64) -> SwitchEvent {
    SwitchEvent {
        event_seq: seq,
        call: Some(CallRef {
            call_id: format!("c{seq}"),
            ..CallRef::default()
        }),
        body: Some(switch_event::Body::Cleared(CallCleared {
            current_route: Some(Device {
                id: LINE.to_owned(),
            }),
            calling_device: Some(Device {
                id: NUMBER.to_owned(),
            }),
            cross_ref_id: format!("x{seq}"),
            ..CallCleared::default()
        })),
        ..SwitchEvent::default()
    }
}

fn select(body: &mesh::Body) -> &proto::cti::v1::RouteSelect {
    match body {
        mesh::Body::Select(select) => select,
        other => panic!("not a select: {other:?}"),
    }
}

#[tokio::test]
async fn a_stream_that_does_not_say_who_it_is_ends_with_the_field_at_fault() {
    let mesh = Mesh::start(Manner::Prompt, |_| ()).await;
    let refused = |hello: Option<Hello>| {
        let running = &mesh.running;
        async move {
            let (up, receiver) = tokio::sync::mpsc::channel(4);
            let first = proto::cti::v1::DialoguesRequest {
                link_seq: 1,
                hello,
                messages: Vec::new(),
            };
            up.send(first).await.expect("room");
            let mut client =
                proto::cti::v1::routing_dialogue_service_client::RoutingDialogueServiceClient::new(
                    connect(running).await,
                );
            let mut down = client
                .dialogues(ReceiverStream::new(receiver))
                .await
                .expect("opens")
                .into_inner();
            down.message().await.expect_err("refused")
        }
    };
    for (hello, field) in [
        (None, "hello:"),
        (
            Some(Hello {
                switch_id: "sw 1".to_owned(),
                boot_id: 1,
                ..Hello::default()
            }),
            "hello.switch_id:",
        ),
        (
            Some(Hello {
                switch_id: "sw1".to_owned(),
                ..Hello::default()
            }),
            "hello.boot_id:",
        ),
    ] {
        let status = refused(hello).await;
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().starts_with(field), "{}", status.message());
    }
}

#[tokio::test]
async fn the_node_tells_its_limits() {
    let mesh = Mesh::start(Manner::Prompt, |_| ()).await;
    let mut client = SystemServiceClient::new(mesh.switch().await);
    let told = client
        .capabilities(CapabilitiesRequest {})
        .await
        .expect("told")
        .into_inner();
    assert_eq!(
        (
            told.version.as_str(),
            told.frame_messages_max,
            told.utterance_bytes_max
        ),
        ("1.0", 256, 2_048)
    );
}

#[tokio::test]
async fn a_request_is_answered_over_the_real_streams() {
    let mesh = Mesh::start(Manner::Prompt, |_| ()).await;
    let mut switch = Dialogues::open(mesh.switch().await, hello(), 1)
        .await
        .expect("opens");
    switch.say(vec![Body::Request(request("x1"))]).await;
    let heard = switch.hear(1).await;
    assert_eq!(
        select(&heard[0])
            .route_selected
            .as_ref()
            .expect("device")
            .id,
        "dev-a1"
    );
    let metrics = get(mesh.running.admin, "/metrics").await;
    assert!(
        metrics.contains("trunkline_gateway_answers_total{kind=\"agent\"} 1"),
        "{metrics}"
    );
    assert!(
        metrics.contains("trunkline_invariant_violations_total{invariant=\"NeverSilent\"} 0"),
        "{metrics}"
    );
}

/// A frame of dialogues whose messages are any bytes.
#[derive(Clone, PartialEq, prost::Message)]
struct RawFrame {
    #[prost(uint64, tag = "1")]
    link_seq: u64,
    #[prost(message, optional, tag = "2")]
    hello: Option<Hello>,
    #[prost(bytes = "bytes", repeated, tag = "3")]
    messages: Vec<Bytes>,
}

#[tokio::test]
async fn bytes_that_are_no_message_cost_their_own_dialogue_and_not_the_stream() {
    use prost::Message as _;
    let mesh = Mesh::start(Manner::Prompt, |_| ()).await;
    let encode = |request| -> Bytes {
        proto::cti::v1::SwitchDialogueMessage {
            body: Some(Body::Request(request)),
        }
        .encode_to_vec()
        .into()
    };
    let mut marked = request("bad");
    marked.utterance = "MARK".to_owned();
    let mut bad = encode(marked).to_vec();
    let at = bad
        .windows(4)
        .position(|window| window == b"MARK")
        .expect("there");
    bad[at] = 0xff;
    let mut long = request("long");
    long.utterance = "é".repeat(32_768);
    let (up, receiver) = tokio::sync::mpsc::channel(8);
    let frame = |link_seq, hello, messages| RawFrame {
        link_seq,
        hello,
        messages,
    };
    up.send(frame(1, Some(hello()), Vec::new()))
        .await
        .expect("room");
    up.send(frame(
        2,
        None,
        vec![
            encode(request("one")),
            bad.into(),
            encode(long),
            Bytes::from_static(&[0xff, 0xff]),
        ],
    ))
    .await
    .expect("room");
    up.send(frame(3, None, vec![encode(request("two"))]))
        .await
        .expect("room");
    let mut grpc = tonic::client::Grpc::new(mesh.switch().await);
    grpc.ready().await.expect("ready");
    let path =
        http::uri::PathAndQuery::from_static("/trunkline.cti.v1.RoutingDialogueService/Dialogues");
    let codec = tonic_prost::ProstCodec::<RawFrame, DialoguesResponse>::default();
    let request = tonic::Request::new(ReceiverStream::new(receiver));
    let mut down = grpc
        .streaming(request, path, codec)
        .await
        .expect("opens")
        .into_inner();
    let (mut selected, mut ended, mut refused) = (Vec::new(), Vec::new(), Vec::new());
    while selected.len() < 2 || ended.len() < 2 || refused.len() < 3 {
        let frame = tokio::time::timeout(PATIENCE, down.message())
            .await
            .expect("in time")
            .expect("open")
            .expect("frame");
        for message in frame.messages {
            match message.body.expect("body") {
                mesh::Body::Select(select) => selected.push(select.cross_ref_id),
                mesh::Body::End(end) => ended.push((end.cross_ref_id.clone(), end.error())),
                mesh::Body::Refusal(refusal) => {
                    refused.push((refusal.about, refusal.field, refusal.value))
                }
                _ => {}
            }
        }
    }
    selected.sort();
    assert_eq!(selected, ["one", "two"]);
    ended.sort_by(|one, other| one.0.cmp(&other.0));
    let invalid = |cross_ref: &str| (cross_ref.to_owned(), RouteEndError::InvalidRequest);
    assert_eq!(ended, [invalid("bad"), invalid("long")]);
    assert!(refused.iter().any(|(about, field, value)| about == "long"
        && field == "request.utterance"
        && value == "65536 bytes"));
}

#[tokio::test]
async fn events_are_acknowledged_when_held_and_sent_again_to_a_gateway_that_comes_back() {
    let mesh = Mesh::start(Manner::Silent, |_| ()).await;
    let mut events = Events::open(mesh.switch().await).await;
    events.frame().await;
    events.tell((1..=10).map(cleared).collect()).await;
    runtime::local::wait_until("routing has them", PATIENCE, || async {
        mesh.routing
            .inputs()
            .iter()
            .filter(|input| matches!(input.body, Some(input::Body::Cleared(_))))
            .count()
            == 10
    })
    .await
    .expect("sent");
    assert_eq!(events.acknowledged, 0);
    // The gateway is lost with ten events in flight; another one takes them again.
    let (_shutdown, second) = Mesh::gateway(mesh.peers, |_| ()).await;
    let mut again = Events::open(connect(&second).await).await;
    assert_eq!(
        again
            .frame()
            .await
            .welcome
            .expect("welcome")
            .acknowledged_event_seq,
        0
    );
    again.tell((1..=10).map(cleared).collect()).await;
    runtime::local::wait_until("routing has them twice", PATIENCE, || async {
        mesh.routing
            .inputs()
            .iter()
            .filter(|input| matches!(input.body, Some(input::Body::Cleared(_))))
            .count()
            == 20
    })
    .await
    .expect("sent");
    mesh.routing.wake().await;
    again.acknowledged_up_to(10).await;
    let mut contacts: Vec<_> = mesh
        .routing
        .inputs()
        .into_iter()
        .filter(|input| matches!(input.body, Some(input::Body::Cleared(_))))
        .map(|input| input.contact_id)
        .collect();
    contacts.sort();
    contacts.dedup();
    assert_eq!(contacts.len(), 10, "the same contacts at any gateway");
}

#[tokio::test]
async fn a_mesh_that_cannot_write_stops_the_events_and_not_the_dialogues() {
    let mesh = Mesh::start(Manner::Silent, |config| {
        config.events_unacknowledged_max = 512
    })
    .await;
    let mut events = Events::open(mesh.switch().await).await;
    let mut switch = Dialogues::open(mesh.switch().await, hello(), 1)
        .await
        .expect("opens");
    for frame in 0..8u64 {
        events
            .tell((frame * 512 + 1..=(frame + 1) * 512).map(cleared).collect())
            .await;
    }
    let held = || {
        mesh.routing
            .inputs()
            .iter()
            .filter(|input| matches!(input.body, Some(input::Body::Cleared(_))))
            .count()
    };
    runtime::local::wait_until("the window is full", PATIENCE, || async { held() == 512 })
        .await
        .expect("full");
    let mut quick = request("x-quick");
    quick.reply_timeout_ms = 300;
    switch.say(vec![Body::Request(quick)]).await;
    let heard = switch.hear(1).await;
    assert!(
        matches!(&heard[0], mesh::Body::End(end) if end.error() == RouteEndError::ResourceUnavailable)
    );
    assert_eq!(held(), 512, "not one more was read");
    mesh.routing.wake().await;
    events.acknowledged_up_to(8 * 512).await;
    switch.say(vec![Body::Request(request("x-after"))]).await;
    select(&switch.hear(1).await[0]);
}

#[tokio::test]
async fn a_switch_that_reconnects_resumes_and_gets_its_answer() {
    let mesh = Mesh::start(Manner::Silent, |_| ()).await;
    let mut switch = Dialogues::open(mesh.switch().await, hello(), 1)
        .await
        .expect("opens");
    switch.say(vec![Body::Request(request("x1"))]).await;
    runtime::local::wait_until("routing is asked", PATIENCE, || async {
        mesh.routing
            .inputs()
            .iter()
            .any(|input| matches!(input.body, Some(input::Body::Route(_))))
    })
    .await
    .expect("asked");
    let resume = Hello {
        session_id: switch.session.clone(),
        last_received_link_seq: switch.last_received,
        ..hello()
    };
    let next = switch.link_seq + 1;
    drop(switch);
    mesh.routing.wake().await;
    let session = resume.session_id.clone();
    let mut resumed = Dialogues::open(mesh.switch().await, resume, next)
        .await
        .expect("resumes");
    assert_eq!(resumed.session, session);
    // The answer came with the welcome's frame, or is asked for again.
    resumed.say(vec![Body::Request(request("x1"))]).await;
    let heard = resumed.hear(1).await;
    assert_eq!(select(&heard[0]).cross_ref_id, "x1");
    let routes = mesh
        .routing
        .inputs()
        .into_iter()
        .filter(|input| matches!(input.body, Some(input::Body::Route(_))));
    assert_eq!(routes.count(), 1, "reserved once");
}

#[tokio::test]
async fn on_drain_the_running_dialogue_is_finished_and_the_process_ends_well() {
    let mesh = Mesh::start(Manner::Silent, |_| ()).await;
    let mut switch = Dialogues::open(mesh.switch().await, hello(), 1)
        .await
        .expect("opens");
    switch.say(vec![Body::Request(request("x1"))]).await;
    runtime::local::wait_until("routing is asked", PATIENCE, || async {
        mesh.routing
            .inputs()
            .iter()
            .any(|input| matches!(input.body, Some(input::Body::Route(_))))
    })
    .await
    .expect("asked");
    mesh.shutdown.request();
    let mut told = false;
    while !told {
        let frame = switch.frame().await.expect("open");
        told = frame.messages.iter().any(|message| {
            matches!(&message.body, Some(mesh::Body::Status(status)) if status.condition() == SystemCondition::Disabled)
        });
    }
    mesh.routing.wake().await;
    select(&switch.hear(1).await[0]);
    let ended = loop {
        if let Err(status) = switch.frame().await {
            break status;
        }
    };
    assert_eq!(ended.code(), Code::Unavailable);
    let finished = tokio::time::timeout(PATIENCE, mesh.running.wait())
        .await
        .expect("in time");
    finished.expect("without an error");
}

#[tokio::test]
async fn without_an_owner_the_gateway_is_not_ready_and_calls_get_their_default_route() {
    let mesh = Mesh::start(Manner::Prompt, |_| ()).await;
    let port = runtime::local::free_port().expect("a port");
    let (_shutdown, lonely) = Mesh::gateway(([127, 0, 0, 1], port).into(), |config| {
        config.intent_endpoints.clear()
    })
    .await;
    assert!(!is_ready(lonely.admin).await);
    let mut switch = Dialogues::open(connect(&lonely).await, hello(), 1)
        .await
        .expect("opens");
    let mut quick = request("x1");
    quick.reply_timeout_ms = 300;
    switch.say(vec![Body::Request(quick)]).await;
    assert!(
        matches!(&switch.hear(1).await[0], mesh::Body::End(end) if end.error() == RouteEndError::ResourceUnavailable)
    );
    drop(mesh);
}

/// Keeps what is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("lock").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn no_number_leaves_but_as_a_pseudonym_or_ciphertext_and_none_is_logged() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let mesh = Mesh::start(Manner::Prompt, |config| config.trace_ratio = 1.0).await;
    let mut switch = Dialogues::open(mesh.switch().await, hello(), 1)
        .await
        .expect("opens");
    let mut events = Events::open(mesh.switch().await).await;
    let (results, receiver) = tokio::sync::mpsc::channel(4);
    results
        .send(CommandsRequest {
            hello: Some(hello()),
            results: Vec::new(),
        })
        .await
        .expect("room");
    let mut commands = CallControlServiceClient::new(mesh.switch().await)
        .commands(ReceiverStream::new(receiver))
        .await
        .expect("opens")
        .into_inner();
    let mut odd = request("x-odd");
    odd.current_route = Some(Device {
        id: NUMBER.to_owned(),
    });
    let mut wrong = request("x-wrong");
    wrong.digits = format!("{NUMBER}x");
    switch
        .say(vec![
            Body::Request(request("x1")),
            Body::Request(odd),
            Body::Request(wrong),
        ])
        .await;
    let heard = switch.hear(5).await;
    let answer = heard
        .iter()
        .find(|body| matches!(body, mesh::Body::Select(_)))
        .expect("answered");
    let event = |seq, body| SwitchEvent {
        event_seq: seq,
        call: Some(CallRef {
            call_id: "call-x1".to_owned(),
            ..CallRef::default()
        }),
        correlator_data: select(answer).correlator_data.clone(),
        body: Some(body),
        ..SwitchEvent::default()
    };
    let offer = OfferAnswered {
        offer_id: 1,
        callback_device: Some(Device {
            id: NUMBER.to_owned(),
        }),
        ..OfferAnswered::default()
    };
    let wrong_agent = Delivered {
        agent_id: NUMBER.to_owned(),
    };
    events
        .tell(vec![
            cleared(1),
            event(2, switch_event::Body::OfferAnswered(offer)),
            event(3, switch_event::Body::Delivered(wrong_agent)),
        ])
        .await;
    events.acknowledged_up_to(3).await;
    let announced = loop {
        let frame = tokio::time::timeout(PATIENCE, commands.message())
            .await
            .expect("in time")
            .expect("open")
            .expect("frame");
        if let Some(command) = frame.commands.into_iter().next() {
            break command;
        }
    };
    assert!(
        matches!(announced.body, Some(command::Body::AnnounceBooking(said)) if said.code == "123456")
    );
    let metrics = get(mesh.running.admin, "/metrics").await;
    let logged = log.0.lock().expect("lock").clone();
    assert!(!logged.is_empty());
    let routing = mesh.routing.0.lock().expect("lock").wire.clone();
    let intent = mesh.intent.0.lock().expect("lock").clone();
    let callback = mesh.callback.0.lock().expect("lock").1.clone();
    assert!(!routing.is_empty() && !intent.is_empty() && !callback.is_empty());
    let digits = &NUMBER.as_bytes()[2..];
    for (place, bytes) in [
        ("routing", &routing),
        ("intent", &intent),
        ("callback", &callback),
        ("the log", &logged),
        ("metrics", &metrics.into_bytes()),
        ("refusals", &format!("{heard:?}").into_bytes()),
    ] {
        assert!(
            !bytes.windows(digits.len()).any(|window| window == digits),
            "the number is in {place}"
        );
    }
    let words = b"refund";
    for (place, bytes) in [
        ("routing", &routing),
        ("callback", &callback),
        ("the log", &logged),
    ] {
        assert!(
            !bytes.windows(words.len()).any(|window| window == words),
            "what the caller said is in {place}"
        );
    }
}
