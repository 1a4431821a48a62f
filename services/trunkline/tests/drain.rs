//! Real processes, a role each: bad options, readiness, SIGTERM.

mod support;

use std::time::Duration;

use runtime::local::{Durability, RedisServer, free_port, wait_until};
use support::{STEP, get, spawn, terminate};
use tokio::process::Child;

struct Role {
    child: Child,
    grpc: String,
    admin: String,
}

fn start(role: &str, options: &[&str]) -> anyhow::Result<Role> {
    let (grpc, admin) = (
        format!("127.0.0.1:{}", free_port()?),
        format!("127.0.0.1:{}", free_port()?),
    );
    let mut arguments = vec![
        "--log",
        "info",
        role,
        "--listen",
        &grpc,
        "--admin-listen",
        &admin,
    ];
    arguments.extend_from_slice(&["--drain-delay-ms", "100"]);
    arguments.extend_from_slice(options);
    let child = spawn(&arguments)?;
    Ok(Role { child, grpc, admin })
}

async fn ready(role: &Role) -> anyhow::Result<()> {
    wait_until("the role is ready", Duration::from_secs(60), || async {
        get(&role.admin, "/ready")
            .await
            .is_ok_and(|(status, _)| status == 200)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_options_end_the_process_before_a_port_is_bound() -> anyhow::Result<()> {
    for (role, option, value, field) in [
        ("routing", "--lease-ms", "1", "lease_ms"),
        ("gateway", "--credit", "0", "credit"),
        ("callback", "--drain-delay-ms", "999999", "drain_delay_ms"),
        ("outcomes", "--drain-timeout-ms", "1", "drain_timeout_ms"),
        ("intent", "--drain-timeout-ms", "1", "drain_timeout_ms"),
    ] {
        let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_trunkline"))
            .args([role, &format!("{option}={value}")])
            .output()
            .await?;
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{role} took {option}={value}");
        assert!(
            errors.contains(field) && errors.contains(value),
            "{role}: {errors}"
        );
        assert!(!errors.contains("\"serving\""), "{role} served: {errors}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_role_drains_on_sigterm_and_exits_0() -> anyhow::Result<()> {
    let state = RedisServer::start(Durability::EverySecond).await?;
    let callbacks = RedisServer::start(Durability::Always).await?;
    let kafka = rdkafka::mocking::MockCluster::new(1)?;
    let brokers = kafka.bootstrap_servers();
    let mut intent = start("intent", &[])?;
    let mut routing = start("routing", &["--redis-url", &state.url()])?;
    let routing_at = routing.grpc.clone();
    let mut callback = start(
        "callback",
        &[
            "--redis-url",
            &callbacks.url(),
            "--routing-endpoints",
            &routing_at,
        ],
    )?;
    let mut outcomes = start(
        "outcomes",
        &["--redis-url", &state.url(), "--kafka-brokers", &brokers],
    )?;
    let key = "0123456789abcdef".repeat(4);
    let peers = [
        ["--intent-endpoints", &intent.grpc],
        ["--routing-endpoints", &routing.grpc],
        ["--callback-endpoints", &callback.grpc],
        ["--pseudonym-key", &key],
        ["--number-key", &key],
        ["--contact-key", &key],
    ]
    .concat();
    let mut gateway = start("gateway", &peers)?;
    for role in [&intent, &routing, &callback, &outcomes, &gateway] {
        ready(role).await?;
        assert_eq!(get(&role.admin, "/live").await?.0, 200);
        let (status, metrics) = get(&role.admin, "/metrics").await?;
        assert!(status == 200 && metrics.contains("trunkline_"), "{metrics}");
    }
    for (name, role) in [
        ("gateway", &mut gateway),
        ("callback", &mut callback),
        ("routing", &mut routing),
        ("intent", &mut intent),
        ("outcomes", &mut outcomes),
    ] {
        let status = terminate(&mut role.child).await?;
        assert!(status.success(), "{name} ended with {status}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draining_routing_owner_hands_its_pools_over() -> anyhow::Result<()> {
    let state = RedisServer::start(Durability::EverySecond).await?;
    let mut first = start(
        "routing",
        &["--redis-url", &state.url(), "--lease-ms", "30000"],
    )?;
    ready(&first).await?;
    let second = start(
        "routing",
        &["--redis-url", &state.url(), "--lease-ms", "30000"],
    )?;
    wait_until("the second replica is live", STEP, || async {
        get(&second.admin, "/live").await.is_ok()
    })
    .await?;
    assert!(terminate(&mut first.child).await?.success());
    // Far sooner than the lease: it was handed over, not waited out.
    wait_until(
        "the second replica owns the pools",
        Duration::from_secs(10),
        || async { owned_pools(&second.grpc).await.is_ok_and(|pools| pools > 0) },
    )
    .await
}

async fn owned_pools(address: &str) -> anyhow::Result<usize> {
    use proto::routing::v1::GetPoolRequest;
    use proto::routing::v1::routing_service_client::RoutingServiceClient;
    let mut client = RoutingServiceClient::connect(format!("http://{address}")).await?;
    let mut owned = 0;
    for pool in domain::policy::Policy::worked_example().pools.keys() {
        let request = GetPoolRequest { pool: pool.clone() };
        owned += usize::from(client.get_pool(request).await.is_ok());
    }
    Ok(owned)
}
