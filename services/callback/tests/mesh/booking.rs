//! Booking, cancelling and being called, with nothing going wrong but people.

use std::time::Duration;

use bytes::Bytes;
use proto::callback::v1;
use proto::cti::v1::DialOutcome;
use proto::routing::v1::{CallbackEnd, CallbackNoticeKind};
use runtime::local::wait_until;

use crate::mesh::{SWITCH, mesh};
use crate::switch::{Gateway, Plan};
use crate::world::{LIMIT, NUMBER, RULES, book, bytes_of, unique};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_is_called_back_connected_and_the_code_is_spoken() {
    let mesh = mesh(|_| Plan::connected()).await;
    let request = book();
    let accepted = mesh.gateway.accepted(request.clone()).await;
    assert!(accepted.code.len() == 6 && accepted.code.bytes().all(|byte| byte.is_ascii_digit()));
    assert!(!accepted.existing);
    assert_eq!(accepted.contact_id, request.contact_id);
    assert_eq!(
        mesh.wait_end(&request.contact_id).await,
        i32::from(CallbackEnd::Connected)
    );
    mesh.replica
        .wait_state(&request.contact_id, "connected")
        .await;
    {
        let state = mesh.phones.state();
        assert_eq!(state.dials.len(), 1);
        let dial = &state.dials[0];
        assert_eq!(
            (dial.attempt, dial.code.as_str(), dial.switch_id.as_str()),
            (1, accepted.code.as_str(), SWITCH)
        );
        assert_eq!(dial.number, Bytes::from_static(NUMBER));
        assert_eq!(u64::from(dial.ring_ms), RULES.ring_ms);
    }
    mesh.assert_kept();
    let metrics = mesh.replica.metrics().await;
    for line in [
        "trunkline_callback_bookings_total{result=\"Accepted\"} 1",
        "trunkline_callback_attempts_total{outcome=\"Answered\"} 1",
        "trunkline_callback_ends_total{end=\"Connected\"} 1",
        "trunkline_invariant_violations_total{invariant=\"CallbackKept\"} 0",
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missed_rings_keep_the_place_until_the_attempts_are_used() {
    let outcomes = [
        DialOutcome::NoAnswer,
        DialOutcome::Voicemail,
        DialOutcome::Busy,
    ];
    let mesh = mesh(move |dial| Plan::missed(outcomes[dial.attempt as usize - 1])).await;
    let request = book();
    mesh.gateway.accepted(request.clone()).await;
    assert_eq!(
        mesh.wait_end(&request.contact_id).await,
        i32::from(CallbackEnd::Exhausted)
    );
    // 1 dialled, 3 no answer, 5 voicemail, 4 busy, as in routing.v1.
    assert_eq!(
        mesh.steps(&request.contact_id),
        vec![(1, 1), (1, 3), (2, 1), (2, 5), (3, 1), (3, 4)]
    );
    assert_eq!(mesh.phones.dials(), 3);
    mesh.assert_kept();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_who_hangs_up_before_a_person_comes_is_called_again() {
    let mesh = mesh(|dial| {
        let then = if dial.attempt == 1 {
            CallbackNoticeKind::LegLost
        } else {
            CallbackNoticeKind::Connected
        };
        Plan {
            then: Some(then),
            ..Plan::connected()
        }
    })
    .await;
    let request = book();
    mesh.gateway.accepted(request.clone()).await;
    assert_eq!(
        mesh.wait_end(&request.contact_id).await,
        i32::from(CallbackEnd::Connected)
    );
    assert_eq!(mesh.phones.dials(), 2);
    mesh.assert_kept();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_booking_is_the_same_and_a_second_one_of_the_caller_finds_the_first() {
    let mesh = mesh(|_| Plan::connected()).await;
    mesh.routing.give_turns(false);
    let request = book();
    let first = mesh.gateway.accepted(request.clone()).await;
    let repeat = mesh.gateway.accepted(request.clone()).await;
    assert_eq!((&repeat.code, repeat.existing), (&first.code, false));

    let again = v1::Book {
        contact_id: bytes_of(unique()),
        ..request.clone()
    };
    let existing = mesh.gateway.accepted(again).await;
    assert_eq!((&existing.code, existing.existing), (&first.code, true));
    assert_eq!(existing.contact_id, request.contact_id);

    let other_topic = v1::Book {
        contact_id: bytes_of(unique()),
        topic: "OTHER".to_owned(),
        ..request.clone()
    };
    let other = mesh.gateway.accepted(other_topic).await;
    assert!(!other.existing);
    assert_ne!(other.code, first.code);

    // Nothing was cancelled: the first is called, once.
    mesh.routing.give_turns(true);
    assert_eq!(
        mesh.wait_end(&request.contact_id).await,
        i32::from(CallbackEnd::Connected)
    );
    mesh.assert_kept();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_bookings_of_one_caller_at_once_make_one() {
    let mesh = mesh(|_| Plan::connected()).await;
    mesh.routing.give_turns(false);
    let request = book();
    let requests = (0..32).map(|_| v1::Book {
        contact_id: bytes_of(unique()),
        ..request.clone()
    });
    let accepted =
        futures::future::join_all(requests.map(|request| mesh.gateway.accepted(request))).await;
    assert_eq!(
        accepted
            .iter()
            .filter(|accepted| !accepted.existing)
            .count(),
        1
    );
    assert!(accepted.iter().all(|one| one.code == accepted[0].code));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancelling_by_contact_or_by_code_ends_it_without_a_call() {
    let mesh = mesh(|_| Plan::connected()).await;
    mesh.routing.give_turns(false);
    let (by_contact, by_code) = (book(), book());
    mesh.gateway.accepted(by_contact.clone()).await;
    let code = mesh.gateway.accepted(by_code.clone()).await.code;
    let cancel = |contact_id: Bytes, caller: Bytes, code: &str| {
        v1::request::Body::Cancel(v1::Cancel {
            contact_id,
            caller,
            code: code.to_owned(),
        })
    };
    let expect = |existed| Some(v1::response::Body::Cancelled(v1::Cancelled { existed }));
    let stranger = cancel(Bytes::new(), bytes_of(unique()), &code);
    assert_eq!(
        mesh.gateway.ask(stranger).await,
        expect(false),
        "a code alone does not cancel"
    );
    let owner = cancel(Bytes::new(), by_code.caller.clone(), &code);
    assert_eq!(mesh.gateway.ask(owner.clone()).await, expect(true));
    assert_eq!(mesh.gateway.ask(owner).await, expect(false), "it is gone");
    let contact = cancel(by_contact.contact_id.clone(), Bytes::new(), "");
    assert_eq!(mesh.gateway.ask(contact).await, expect(true));
    for request in [&by_contact, &by_code] {
        assert_eq!(
            mesh.wait_end(&request.contact_id).await,
            i32::from(CallbackEnd::Cancelled)
        );
    }
    // The caller may book anew, and is called for that one.
    let anew = v1::Book {
        contact_id: bytes_of(unique()),
        ..by_code
    };
    assert!(!mesh.gateway.accepted(anew.clone()).await.existing);
    mesh.routing.give_turns(true);
    assert_eq!(
        mesh.wait_end(&anew.contact_id).await,
        i32::from(CallbackEnd::Connected)
    );
    assert_eq!(mesh.phones.dials(), 1);
    mesh.assert_kept();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancelling_while_the_telephone_rings_waits_for_it() {
    for (outcome, end) in [
        (DialOutcome::NoAnswer, CallbackEnd::Cancelled),
        (DialOutcome::Answered, CallbackEnd::Connected),
    ] {
        let mesh = mesh(move |_| Plan {
            ring_ms: 150,
            outcome,
            ..Plan::connected()
        })
        .await;
        let request = book();
        mesh.gateway.accepted(request.clone()).await;
        mesh.replica
            .wait_state(&request.contact_id, "dialling")
            .await;
        let cancel = v1::Cancel {
            contact_id: request.contact_id.clone(),
            ..v1::Cancel::default()
        };
        let answer = mesh.gateway.ask(v1::request::Body::Cancel(cancel)).await;
        assert_eq!(
            answer,
            Some(v1::response::Body::Cancelled(v1::Cancelled {
                existed: true
            }))
        );
        assert_eq!(
            mesh.wait_end(&request.contact_id).await,
            i32::from(end),
            "{outcome:?}"
        );
        assert_eq!(mesh.phones.dials(), 1);
        mesh.assert_kept();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nonsense_is_refused_by_name_and_leaves_no_trace_of_the_number() {
    let mesh = mesh(|_| Plan::connected()).await;
    let number = Bytes::from_static(b"+12025550143");
    let refused = mesh.gateway.refused(v1::Book { number, ..book() }).await;
    assert_eq!(
        (refused.reason(), refused.field.as_str()),
        (v1::RefusalReason::Invalid, "number")
    );
    assert!(!refused.limit.is_empty() && refused.value == "12 bytes");
    let zone = v1::Book {
        time_zone: "Moon/Tranquility".to_owned(),
        ..book()
    };
    let refused = mesh.gateway.refused(zone).await;
    assert_eq!(
        (refused.field.as_str(), refused.value.as_str()),
        ("time_zone", "Moon/Tranquility")
    );
    let past = v1::Book {
        window: Some(v1::Window {
            from_ms: 1_000,
            until_ms: 2_000,
        }),
        ..book()
    };
    assert_eq!(mesh.gateway.refused(past).await.field, "window");
    // A frame that is too large loses only its surplus.
    let requests = (1_000_001..=1_000_300).map(|request_id| v1::Request {
        request_id,
        ..v1::Request::default()
    });
    let frame = v1::LinkRequest {
        requests: requests.collect(),
        ..v1::LinkRequest::default()
    };
    mesh.gateway.sender().send(frame).await.expect("linked");
    let junk = v1::DialResult {
        attempt: 7,
        outcome: 99,
        ..v1::DialResult::default()
    };
    let frame = v1::LinkRequest {
        dial_results: vec![junk],
        ..v1::LinkRequest::default()
    };
    mesh.gateway.sender().send(frame).await.expect("linked");
    // The stream goes on.
    let request = book();
    mesh.gateway.accepted(request.clone()).await;
    assert_eq!(
        mesh.wait_end(&request.contact_id).await,
        i32::from(CallbackEnd::Connected)
    );
    let metrics = mesh.replica.metrics().await;
    assert!(
        metrics.contains("trunkline_callback_bookings_total{result=\"Invalid\"} 3"),
        "{metrics}"
    );
    assert!(!metrics.contains("5550143") && !metrics.contains("Tranquility"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_gateway_the_place_is_kept_and_no_attempt_is_counted() {
    let mesh = mesh(|_| Plan::connected()).await;
    let request = book();
    mesh.gateway.accepted(request.clone()).await;
    mesh.wait_end(&request.contact_id).await;

    mesh.routing.give_turns(false);
    let waiting = book();
    mesh.gateway.accepted(waiting.clone()).await;
    mesh.gateway.unlink();
    wait_until("the gateway is gone", LIMIT, || async {
        mesh.replica
            .metrics()
            .await
            .contains("trunkline_callback_gateways 0")
    })
    .await
    .expect("gone");
    mesh.routing.give_turns(true);
    mesh.replica.wait_state(&waiting.contact_id, "due").await;
    // Longer than ring time and lease: whatever could lapse would have.
    tokio::time::sleep(Duration::from_millis(RULES.ring_ms + RULES.lease_ms + 200)).await;
    let booking = mesh.replica.state(&waiting.contact_id).await;
    assert_eq!((booking.state.as_str(), booking.attempts), ("due", 0));

    // Another gateway, on which only another switch is attached, does as well.
    let other = Gateway::new("gateway-2", &["switch-2"], &mesh.phones);
    other.link(mesh.replica.address).await;
    assert_eq!(
        mesh.wait_end(&waiting.contact_id).await,
        i32::from(CallbackEnd::Connected)
    );
    assert_eq!(
        mesh.phones.state().dials.last().expect("dialled").switch_id,
        "switch-2"
    );
    mesh.assert_kept();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dial_that_cannot_be_placed_is_tried_again_without_an_attempt() {
    let times = std::sync::atomic::AtomicU32::new(0);
    let mesh = mesh(move |_| {
        let not_placed = times.fetch_add(1, std::sync::atomic::Ordering::SeqCst) < 4;
        Plan {
            not_placed,
            ..Plan::connected()
        }
    })
    .await;
    let request = book();
    mesh.gateway.accepted(request.clone()).await;
    assert_eq!(
        mesh.wait_end(&request.contact_id).await,
        i32::from(CallbackEnd::Connected)
    );
    let attempts: Vec<u32> = mesh
        .phones
        .state()
        .dials
        .iter()
        .map(|dial| dial.attempt)
        .collect();
    assert_eq!(attempts, vec![1; 5]);
    assert_eq!(mesh.replica.state(&request.contact_id).await.attempts, 1);
    mesh.assert_kept();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_dial_result_counts_as_failed_after_ring_time_and_lease() {
    let mesh = mesh(|dial| match dial.attempt {
        1 => Plan {
            loses_result: true,
            ..Plan::missed(DialOutcome::NoAnswer)
        },
        // Answered, but only routing says so.
        _ => Plan {
            loses_result: true,
            ..Plan::connected()
        },
    })
    .await;
    let request = book();
    mesh.gateway.accepted(request.clone()).await;
    assert_eq!(
        mesh.wait_end(&request.contact_id).await,
        i32::from(CallbackEnd::Connected)
    );
    assert_eq!(
        mesh.steps(&request.contact_id),
        vec![(1, 1), (1, 6), (2, 1)]
    );
    mesh.assert_kept();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_routing_is_away_bookings_are_accepted_and_registered_afterwards() {
    let mesh = mesh(|_| Plan::connected()).await;
    mesh.routing.answer(false);
    let request = book();
    mesh.gateway.accepted(request.clone()).await;
    assert!(!mesh.routing.has(&request.contact_id));
    mesh.routing.answer(true);
    assert_eq!(
        mesh.wait_end(&request.contact_id).await,
        i32::from(CallbackEnd::Connected)
    );
    mesh.assert_kept();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_routing_that_lost_its_last_second_is_told_of_every_place_again() {
    let mesh = mesh(|_| Plan::connected()).await;
    mesh.routing.give_turns(false);
    let requests: Vec<v1::Book> = (0..50).map(|_| book()).collect();
    for request in &requests {
        mesh.gateway.accepted(request.clone()).await;
    }
    wait_until("all are registered", LIMIT, || async {
        mesh.routing.model().entries.len() == 50
    })
    .await
    .expect("registered");
    mesh.routing.forget().await;
    wait_until("all are registered again", LIMIT, || async {
        mesh.routing.model().entries.len() == 50
    })
    .await
    .expect("registered");
    mesh.routing.give_turns(true);
    for request in &requests {
        assert_eq!(
            mesh.wait_end(&request.contact_id).await,
            i32::from(CallbackEnd::Connected)
        );
    }
    mesh.assert_kept();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_place_that_routing_refuses_is_called_when_it_was_announced() {
    let mesh = mesh(|_| Plan {
        then: None,
        ..Plan::connected()
    })
    .await;
    mesh.routing.refuse_registrations();
    let request = v1::Book {
        expected_callback_ms: 300,
        ..book()
    };
    mesh.gateway.accepted(request.clone()).await;
    mesh.replica
        .wait_state(&request.contact_id, "connected")
        .await;
    assert_eq!(mesh.phones.dials(), 1);
    mesh.assert_kept();
}
