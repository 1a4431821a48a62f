//! What a peer may get wrong, and what it costs the others: nothing.

mod common;

use bytes::Bytes;
use common::{
    BOOT, Gateway, LIMIT, POOL, Replica, SWITCH, agent_ready, hello, input, now_ms, route,
};
use proto::routing::v1::input::Body;
use proto::routing::v1::routing_service_client::RoutingServiceClient;
use proto::routing::v1::{self, LinkRequest};
use runtime::local::{Durability, RedisServer, wait_until};
use tokio_stream::wrappers::ReceiverStream;

async fn replica(redis: &RedisServer, prefix: &str) -> Replica {
    Replica::start(routing::Config::for_test(&redis.url(), prefix)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_inputs_in_the_midst_of_good_ones_are_refused_alone() {
    let redis = RedisServer::start(Durability::EverySecond)
        .await
        .expect("redis-server");
    let replica = replica(&redis, "link-bad").await;
    let gateway = Gateway::link(&replica.address, "gateway-1").await;
    gateway.owned().await;
    let broken = |change: fn(&mut v1::Input)| {
        let mut input = route(0x99, now_ms());
        change(&mut input);
        input
    };
    let ids = gateway
        .inputs(vec![
            route(1, now_ms()),
            broken(|input| input.contact_id = Bytes::from_static(b"short")),
            broken(|input| input.body = None),
            broken(|input| input.boot_id = 0),
            broken(|input| input.occurred_at_ms = u64::MAX),
            broken(|input| {
                if let Some(Body::Route(route)) = &mut input.body {
                    route.line = "no-such-line".into();
                }
            }),
            input(
                0x98,
                Body::Established(v1::Established {
                    agent_id: "never-logged-on".into(),
                }),
            ),
            input(
                0x98,
                Body::CancelVirtual(v1::CancelVirtual {
                    end: 3,
                    report_sequence: 1,
                }),
            ),
            broken(|input| input.pool = "no-such-pool".into()),
            route(2, now_ms()),
        ])
        .await;
    let mut fields = Vec::new();
    for (index, id) in ids.iter().enumerate() {
        match gateway.reply(*id).await {
            v1::reply::Body::Answer(_) => {
                assert!(index == 0 || index == 9, "input {index} was answered")
            }
            v1::reply::Body::NotOwner(_) => assert_eq!(index, 8),
            v1::reply::Body::Refused(refused) => {
                assert!(!refused.limit.is_empty(), "{refused:?}");
                fields.push(refused.field);
            }
            v1::reply::Body::Acknowledged(_) => panic!("input {index} was acknowledged"),
        }
    }
    assert_eq!(
        fields[..4],
        ["contact_id", "body", "boot_id", "occurred_at_ms"]
    );
    assert_eq!(fields.len(), 7, "{fields:?}");
    assert!(gateway.ended().is_none(), "the stream goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_above_the_limit_is_refused_whole_and_the_link_goes_on() {
    let redis = RedisServer::start(Durability::EverySecond)
        .await
        .expect("redis-server");
    let replica = replica(&redis, "link-frame").await;
    let gateway = Gateway::link(&replica.address, "gateway-1").await;
    gateway.owned().await;
    let ids = gateway
        .inputs((1..=513).map(|contact| route(contact, now_ms())).collect())
        .await;
    for id in ids {
        let reply = gateway.reply(id).await;
        let v1::reply::Body::Refused(refused) = reply else {
            panic!("{reply:?}")
        };
        assert_eq!(
            (refused.field.as_str(), refused.value.as_str()),
            ("inputs", "513")
        );
    }
    let ids = gateway
        .inputs((1..=512).map(|contact| route(contact, now_ms())).collect())
        .await;
    for id in ids {
        assert!(matches!(
            gateway.reply(id).await,
            v1::reply::Body::Answer(_)
        ));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_without_a_good_hello_ends_with_the_reason() {
    let redis = RedisServer::start(Durability::EverySecond)
        .await
        .expect("redis-server");
    let replica = replica(&redis, "link-hello").await;
    for (first, reason) in [
        (
            LinkRequest {
                inputs: vec![agent_ready("a")],
                ..LinkRequest::default()
            },
            "hello: required",
        ),
        (hello("", v1::PeerRole::Gateway, &[]), "hello.peer_id"),
        (hello("peer", v1::PeerRole::Unspecified, &[]), "hello.role"),
        (
            hello("peer", v1::PeerRole::Callback, &[SWITCH]),
            "hello.attached_switches",
        ),
    ] {
        let peer = Gateway::link_as(&replica.address, first).await;
        wait_until("the link ends", LIMIT, async || peer.ended().is_some())
            .await
            .expect("ends");
        let status = peer.ended().expect("ended");
        assert_eq!(status.code(), tonic::Code::InvalidArgument);
        assert!(status.message().starts_with(reason), "{status:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callback_replica_may_say_only_what_is_its_to_say() {
    let redis = RedisServer::start(Durability::EverySecond)
        .await
        .expect("redis-server");
    let replica = replica(&redis, "link-role").await;
    let callback = Gateway::link_as(
        &replica.address,
        hello("callback-1", v1::PeerRole::Callback, &[]),
    )
    .await;
    callback.owned().await;
    let reply = callback.ask(route(1, now_ms())).await;
    let v1::reply::Body::Refused(refused) = reply else {
        panic!("{reply:?}")
    };
    assert_eq!(refused.limit, "only from a gateway");
    let mut progress = input(
        1,
        Body::CallbackProgress(v1::CallbackProgress {
            attempt: 1,
            step: 99,
            next_at_ms: 0,
            report_sequence: 1,
        }),
    );
    (progress.switch_id, progress.boot_id) = (String::new(), 0);
    let reply = callback.ask(progress).await;
    let v1::reply::Body::Refused(refused) = reply else {
        panic!("{reply:?}")
    };
    assert_eq!(refused.field, "callback_progress.step");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_never_reads_is_cut_and_the_others_are_served() {
    let redis = RedisServer::start(Durability::EverySecond)
        .await
        .expect("redis-server");
    let mut config = routing::Config::for_test(&redis.url(), "link-deaf");
    config.peer_queue_messages = 2_048;
    let replica = Replica::start(config).await;
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", replica.address))
        .expect("a good address")
        .initial_stream_window_size(65_535)
        .connect()
        .await
        .expect("connects");
    let (frames, outgoing) = tokio::sync::mpsc::channel(4);
    frames
        .send(hello("deaf", v1::PeerRole::Gateway, &[SWITCH]))
        .await
        .expect("open");
    // Kept, and never read until the end.
    let mut incoming = RoutingServiceClient::new(endpoint)
        .link(ReceiverStream::new(outgoing))
        .await
        .expect("links")
        .into_inner();
    let good = Gateway::link(&replica.address, "gateway-1").await;
    good.owned().await;
    let mut contact = 0u128;
    let sender = tokio::spawn(async move {
        let mut sent = 0u64;
        loop {
            let inputs = (0..256)
                .map(|index| v1::Input {
                    request_id: sent + index,
                    pool: POOL.into(),
                    boot_id: BOOT,
                    ..v1::Input::default()
                })
                .collect();
            // 4,000 frames are 100 MB of replies: far more than any buffer on the way. After
            // the cut nobody reads our frames any more either: sending them stalls or fails.
            let sending = frames.send(LinkRequest {
                inputs,
                ..LinkRequest::default()
            });
            let sent_one = tokio::time::timeout(std::time::Duration::from_secs(3), sending).await;
            if sent > 1_024_000 || !matches!(sent_one, Ok(Ok(()))) {
                return sent;
            }
            sent += 256;
        }
    });
    while !sender.is_finished() {
        contact += 1;
        assert!(matches!(
            good.ask(route(contact, now_ms())).await,
            v1::reply::Body::Answer(_)
        ));
    }
    let sent = sender.await.expect("no panic");
    println!("cut after {sent} unread replies");
    assert!(sent <= 1_024_000, "never cut");
    let status = loop {
        match incoming.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("ended without a reason"),
            Err(status) => break status,
        }
    };
    assert_eq!(status.code(), tonic::Code::ResourceExhausted, "{status:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_can_be_looked_at() {
    let redis = RedisServer::start(Durability::EverySecond)
        .await
        .expect("redis-server");
    let replica = replica(&redis, "link-look").await;
    let gateway = Gateway::link(&replica.address, "gateway-1").await;
    let epoch = gateway.owned().await;
    gateway.ask(route(1, now_ms())).await;
    let channel =
        runtime::grpc::connect_lazy(&replica.address, &runtime::TlsArgs::default()).expect("good");
    let mut client = RoutingServiceClient::new(channel);
    let pool = client
        .get_pool(v1::GetPoolRequest { pool: POOL.into() })
        .await
        .expect("known")
        .into_inner();
    assert_eq!((pool.epoch, pool.agents), (epoch, 0));
    let waiting: Vec<_> = pool
        .queues
        .iter()
        .map(|queue| (queue.queue.as_str(), queue.waiting))
        .collect();
    assert_eq!(waiting, [("operator", 1)]);
    let status = client
        .get_pool(v1::GetPoolRequest {
            pool: "none".into(),
        })
        .await
        .expect_err("unknown");
    assert_eq!(status.code(), tonic::Code::NotFound);
}
