//! Many at once. Nothing here is timed as a test; the figures are printed.

use std::time::Instant;

use proto::callback::v1;
use runtime::local::wait_until;

use crate::routing::Routing;
use crate::switch::{Gateway, Phones, Plan};
use crate::world::{RULES, Replica, book, config, redis};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_due_at_once_are_called_in_batches_each_once() {
    const COUNT: usize = 10_000;
    let redis = redis().await;
    let routing = Routing::start().await;
    routing.give_turns(false);
    let phones = Phones::new(&routing, |_| Plan::connected());
    let mut config = config(&redis, &routing);
    // Seconds may pass between a dial and its result on a busy machine: that is no fault.
    config.rules = Some(domain::callback::Rules {
        ring_ms: 20_000,
        lease_ms: 60_000,
        ..RULES
    });
    let replica = Replica::ready(config).await;
    let gateway = Gateway::new("gateway-1", &["switch-1"], &phones);
    gateway.link(replica.address).await;

    let start = Instant::now();
    let requests: Vec<v1::Book> = (0..COUNT).map(|_| book()).collect();
    for batch in requests.chunks(1_000) {
        futures::future::join_all(
            batch
                .iter()
                .map(|request| gateway.accepted(request.clone())),
        )
        .await;
    }
    let booked = start.elapsed();
    eprintln!(
        "{COUNT} durable bookings in {:.2} s: {:.0}/s (appendfsync always, registered with routing)",
        booked.as_secs_f64(),
        COUNT as f64 / booked.as_secs_f64()
    );
    // All of them due while no gateway is there, then one comes.
    gateway.unlink();
    routing.give_turns(true);
    let limit = std::time::Duration::from_secs(300);
    wait_until("all are due", limit, || async {
        replica.metrics().await.contains(&format!(
            "trunkline_callback_entries{{set=\"Due\"}} {COUNT}"
        ))
    })
    .await
    .expect("due");
    let start = Instant::now();
    gateway.link(replica.address).await;
    wait_until("all are dialled", limit, || async {
        phones.dials() >= COUNT
    })
    .await
    .expect("dialled");
    let dialled = start.elapsed();
    eprintln!(
        "{COUNT} dials in {:.2} s: {:.0}/s",
        dialled.as_secs_f64(),
        COUNT as f64 / dialled.as_secs_f64()
    );
    wait_until("all are connected", limit, || async {
        replica.metrics().await.contains(&format!(
            "trunkline_callback_ends_total{{end=\"Connected\"}} {COUNT}"
        ))
    })
    .await
    .expect("connected");
    assert_eq!(phones.dials(), COUNT);
    assert_eq!(phones.state().faults, Vec::<String>::new());
    assert_eq!(routing.model().faults, Vec::<String>::new());
}
