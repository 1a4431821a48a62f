//! Windows and callable hours.

use domain::callback::{Hours, Rules};
use proto::callback::v1;
use proto::routing::v1::input::Body;
use runtime::local::wait_until;

use crate::mesh::{mesh, mesh_with};
use crate::switch::Plan;
use crate::world::{LIMIT, RULES, book, bytes_of, unique};

/// A window of half an hour, far enough ahead, aligned as routing offers them.
fn window(hours_ahead: u64) -> v1::Window {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("after 1970");
    let slot = u64::try_from(now.as_millis()).expect("small") / 1_800_000 + 1 + 2 * hours_ahead;
    v1::Window {
        from_ms: slot * 1_800_000,
        until_ms: (slot + 1) * 1_800_000,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_window_takes_what_the_forecast_agents_can_serve_and_a_cancellation_frees_a_seat() {
    let mesh = mesh(|_| Plan::connected()).await;
    mesh.wait_forecast().await;
    let window = window(1);
    let windowed = || v1::Book {
        window: Some(window),
        ..book()
    };
    let mut booked: Vec<v1::Book> = Vec::new();
    // 10 agents x 30 min / 10 min x 30 % (the worked example's share).
    for _ in 0..9 {
        let request = windowed();
        assert_eq!(
            mesh.gateway.accepted(request.clone()).await.window,
            Some(window)
        );
        booked.push(request);
    }
    let refused = mesh.gateway.refused(windowed()).await;
    assert_eq!(refused.reason(), v1::RefusalReason::WindowFull);
    // Who has a seat is told so again; who has another callback is told of that.
    assert!(!mesh.gateway.accepted(booked[0].clone()).await.existing);
    let second = v1::Book {
        contact_id: bytes_of(unique()),
        ..booked[1].clone()
    };
    assert!(mesh.gateway.accepted(second).await.existing);
    let cancel = v1::Cancel {
        contact_id: booked[0].contact_id.clone(),
        ..v1::Cancel::default()
    };
    mesh.gateway.ask(v1::request::Body::Cancel(cancel)).await;
    mesh.gateway.accepted(windowed()).await;
    let refused = mesh.gateway.refused(windowed()).await;
    assert_eq!(refused.reason(), v1::RefusalReason::WindowFull);
    // Routing holds the entries until the window opens.
    let model = mesh.routing.model();
    let entry = model
        .entries
        .get(&booked[1].contact_id)
        .expect("registered");
    let Some((1, Body::RegisterVirtual(report))) = entry.reports.first() else {
        panic!("{entry:?}")
    };
    assert!(
        report.window && report.from_ms == window.from_ms && report.until_ms == window.until_ms
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_window_outside_callable_hours_is_refused() {
    let rules = Rules {
        hours: Hours {
            from_hour: 3,
            until_hour: 4,
        },
        ..RULES
    };
    let mesh = mesh_with(rules, |_| Plan::connected()).await;
    mesh.routing.give_turns(false);
    mesh.wait_forecast().await;
    let mut refused = 0;
    for hour in 0..24 {
        let request = v1::Book {
            window: Some(window(hour)),
            time_zone: "Asia/Kolkata".to_owned(),
            ..book()
        };
        match mesh.gateway.book(request).await.expect("an answer") {
            v1::response::Body::Accepted(_) => {}
            v1::response::Body::Refused(answer) => {
                assert_eq!(answer.reason(), v1::RefusalReason::OutsideHours);
                refused += 1;
            }
            v1::response::Body::Cancelled(_) => panic!("nothing was cancelled"),
        }
    }
    assert!(
        (22..24).contains(&refused),
        "one hour a day is callable: {refused} refused"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_turn_outside_callable_hours_is_carried_over_with_notice_and_without_a_call() {
    // An hour that is not now, in UTC.
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("after 1970");
    let hour = u32::try_from(now.as_secs() / 3_600 % 24).expect("small");
    let from_hour = (hour + 12) % 24;
    let rules = Rules {
        hours: Hours {
            from_hour,
            until_hour: from_hour + 1,
        },
        ..RULES
    };
    let mesh = mesh_with(rules, |_| Plan::connected()).await;
    let request = v1::Book {
        time_zone: "UTC".to_owned(),
        ..book()
    };
    mesh.gateway.accepted(request.clone()).await;
    wait_until("routing is told when", LIMIT, || async {
        !mesh.steps(&request.contact_id).is_empty()
    })
    .await
    .expect("told");
    let booking = mesh.replica.state(&request.contact_id).await;
    assert_eq!((booking.state.as_str(), booking.attempts), ("booked", 0));
    assert_eq!(booking.next_at_ms / 3_600_000 % 24, u64::from(from_hour));
    let next_at_ms = mesh.routing.model().entries[&request.contact_id].next_at_ms;
    assert_eq!(next_at_ms, booking.next_at_ms);
    assert_eq!(mesh.phones.dials(), 0);
}
