//! Commands, turns and notices reach those they are for, whoever is linked when.

mod common;

use bytes::Bytes;
use common::{Gateway, LIMIT, POOL, Replica, SWITCH, agent_ready, hello, input, now_ms, route};
use proto::routing::v1::input::Body;
use proto::routing::v1::{self, LinkRequest};
use runtime::local::{Durability, RedisServer, wait_until};

fn from_callback(contact: u128, body: Body) -> v1::Input {
    v1::Input {
        switch_id: String::new(),
        boot_id: 0,
        ..input(contact, body)
    }
}

fn acknowledged(reply: &v1::reply::Body) {
    assert!(
        matches!(reply, v1::reply::Body::Acknowledged(_)),
        "{reply:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_waits_until_a_gateway_attaches_its_switch() {
    let redis = RedisServer::start(Durability::EverySecond)
        .await
        .expect("redis-server");
    let replica = Replica::start(routing::Config::for_test(&redis.url(), "messages-command")).await;
    let gateway = Gateway::link_as(
        &replica.address,
        hello("gateway-1", v1::PeerRole::Gateway, &[]),
    )
    .await;
    gateway.owned().await;
    gateway.ask(route(1, now_ms())).await;
    acknowledged(&gateway.ask(input(1, Body::AtQueue(v1::AtQueue {}))).await);
    acknowledged(&gateway.ask(agent_ready("agent-1")).await);
    assert!(
        gateway.commands().is_empty(),
        "its switch is attached nowhere"
    );
    let other = Gateway::link_as(
        &replica.address,
        hello("gateway-2", v1::PeerRole::Gateway, &["other"]),
    )
    .await;
    other.owned().await;
    // Said later: the switch's command stream came to this gateway.
    gateway
        .send(hello("gateway-1", v1::PeerRole::Gateway, &[SWITCH]))
        .await;
    wait_until("the command comes", LIMIT, async || {
        !gateway.commands().is_empty()
    })
    .await
    .expect("comes");
    let command = gateway.commands().remove(0);
    assert!(
        matches!(
            command.body,
            Some(v1::switch_command::Body::DeflectToAgent(_))
        ),
        "{command:?}"
    );
    assert_eq!(
        (command.switch_id.as_str(), command.call_id.as_str()),
        (SWITCH, "call-1")
    );
    assert!(other.commands().is_empty());
    // It fails: the pool finds another way, which is a new command.
    let outcome = v1::CommandOutcome {
        command_id: command.command_id,
        pool: POOL.to_owned(),
        contact_id: command.contact_id.clone(),
        error: 2,
        agent_id: "agent-1".to_owned(),
    };
    gateway
        .send(LinkRequest {
            command_outcomes: vec![outcome],
            ..LinkRequest::default()
        })
        .await;
    wait_until("the pool acts on the failure", LIMIT, async || {
        gateway.commands().len() > 1
    })
    .await
    .expect("acts");
    assert_ne!(gateway.commands()[1].command_id, command.command_id);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_and_a_notice_are_told_until_a_callback_replica_has_them() {
    let redis = RedisServer::start(Durability::EverySecond)
        .await
        .expect("redis-server");
    let replica = Replica::start(routing::Config::for_test(&redis.url(), "messages-due")).await;
    let gateway = Gateway::link(&replica.address, "gateway-1").await;
    gateway.owned().await;
    let callback_hello = || hello("callback-1", v1::PeerRole::Callback, &[]);
    let callback = Gateway::link_as(&replica.address, callback_hello()).await;
    callback.owned().await;
    gateway.ask(route(7, now_ms())).await;
    let register = v1::RegisterVirtual {
        ring_ms: 20_000,
        code: "123456".to_owned(),
        report_sequence: 1,
        ..v1::RegisterVirtual::default()
    };
    acknowledged(
        &callback
            .ask(from_callback(7, Body::RegisterVirtual(register)))
            .await,
    );
    acknowledged(&gateway.ask(common::cleared(7)).await);
    drop(callback);
    // Nobody is there to be told when the turn comes.
    acknowledged(&gateway.ask(agent_ready("agent-1")).await);
    let callback = Gateway::link_as(&replica.address, callback_hello()).await;
    wait_until("the turn is told again", LIMIT, async || {
        !callback.virtual_due().is_empty()
    })
    .await
    .expect("told");
    let due = callback.virtual_due().remove(0);
    assert_eq!(due.contact_id, 7u128.to_be_bytes().as_slice());
    assert!(gateway.virtual_due().is_empty(), "a gateway is not told");

    let progress = |step: v1::CallbackStep, report_sequence| {
        Body::CallbackProgress(v1::CallbackProgress {
            attempt: 1,
            step: step.into(),
            next_at_ms: 0,
            report_sequence,
        })
    };
    acknowledged(
        &callback
            .ask(from_callback(7, progress(v1::CallbackStep::Dialled, 2)))
            .await,
    );
    acknowledged(
        &callback
            .ask(from_callback(7, progress(v1::CallbackStep::Answered, 3)))
            .await,
    );
    // The callback's leg is a call and a dialogue of its own.
    let mut leg = route(7, now_ms());
    if let Some(Body::Route(leg)) = &mut leg.body {
        leg.call_id = "call-back-7".to_owned();
        leg.cross_ref_id = "back-7".to_owned();
    }
    let answer = gateway.ask(leg).await;
    let v1::reply::Body::Answer(v1::Answer {
        body: Some(v1::answer::Body::Agent(agent)),
        ..
    }) = answer
    else {
        panic!("{answer:?}")
    };
    assert_eq!(agent.context.expect("a context").callback_code, "123456");
    let talking = Body::Established(v1::Established {
        agent_id: "agent-1".to_owned(),
    });
    acknowledged(&gateway.ask(input(7, talking)).await);
    wait_until("the notice comes", LIMIT, async || {
        !callback.notices().is_empty()
    })
    .await
    .expect("comes");
    let notice = callback.notices().remove(0);
    assert_eq!(notice.kind(), v1::CallbackNoticeKind::Connected);

    // Not acknowledged: it comes again, to whoever is linked then.
    drop(callback);
    let callback = Gateway::link_as(&replica.address, callback_hello()).await;
    wait_until("the notice comes again", LIMIT, async || {
        !callback.notices().is_empty()
    })
    .await
    .expect("again");
    assert_eq!(callback.notices()[0], notice);
    let acknowledgement = v1::NoticeAcknowledgement {
        pool: notice.pool.clone(),
        contact_id: notice.contact_id.clone(),
        kind: notice.kind,
        turn: notice.turn,
    };
    let nonsense = v1::NoticeAcknowledgement {
        contact_id: Bytes::from_static(b"x"),
        ..acknowledgement.clone()
    };
    let notice_acknowledgements = vec![nonsense, acknowledgement];
    callback
        .send(LinkRequest {
            notice_acknowledgements,
            ..LinkRequest::default()
        })
        .await;
    let end = v1::CancelVirtual {
        end: v1::CallbackEnd::Connected.into(),
        report_sequence: 4,
    };
    acknowledged(
        &callback
            .ask(from_callback(7, Body::CancelVirtual(end)))
            .await,
    );
}
