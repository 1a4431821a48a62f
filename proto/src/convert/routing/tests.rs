//! What a peer may get wrong, field by field.

use bytes::Bytes;

use domain::CallerId;
use domain::pool::{CallbackEnd, Cause};

use super::*;

fn route() -> v1::Route {
    v1::Route {
        call_id: "call-1".into(),
        cross_ref_id: "x1".into(),
        line: "accounts".into(),
        topic: "ACC_BALANCE".into(),
        topic_confidence: 0.9,
        other_topics: vec!["ACC_REFUND".into()],
        language: "es-MX".into(),
        channel: 1,
        caller: Bytes::from_static(&[7; 16]),
        authenticated: false,
        person_asked: true,
        arrived_at_ms: 1_764_000_000_000,
        deadline_at_ms: 1_764_000_000_400,
    }
}

fn wire(body: Body) -> v1::Input {
    v1::Input {
        request_id: 5,
        pool: "accounts".into(),
        contact_id: Bytes::from_static(&[9; 16]),
        switch_id: "switch-1".into(),
        boot_id: 77,
        occurred_at_ms: 1_764_000_000_001,
        traceparent: String::new(),
        body: Some(body),
    }
}

fn fault(change: impl FnOnce(&mut v1::Input, &mut v1::Route)) -> FieldError {
    let mut route = route();
    let mut frame = wire(Body::OfferDeclined(v1::OfferDeclined {}));
    change(&mut frame, &mut route);
    if frame.body.is_some() {
        frame.body = Some(Body::Route(route));
    }
    input(frame, 1).expect_err("must be refused")
}

#[test]
fn a_good_route_comes_out_whole() {
    let good = input(wire(Body::Route(route())), 42).expect("good");
    assert_eq!(good.token, 42);
    assert_eq!(good.contact, Some(ContactId(u128::from_be_bytes([9; 16]))));
    let InputBody::Route(route) = good.body else {
        panic!("not a route")
    };
    assert_eq!(route.language, "es", "only the primary subtag routes");
    assert_eq!(route.caller, Some(CallerId(u128::from_be_bytes([7; 16]))));
    assert_eq!(route.deadline, TimeMs(1_764_000_000_400));
}

#[test]
fn every_field_outside_its_limits_is_named() {
    let named = [
        (fault(|_, route| route.line = "x".repeat(65)), "route.line"),
        (fault(|_, route| route.topic = "a b".into()), "route.topic"),
        (
            fault(|_, route| route.topic_confidence = f32::NAN),
            "route.topic_confidence",
        ),
        (
            fault(|_, route| route.topic_confidence = 1.5),
            "route.topic_confidence",
        ),
        (
            fault(|_, route| route.other_topics = vec!["T".into(); 9]),
            "route.other_topics",
        ),
        (
            fault(|_, route| route.call_id = String::new()),
            "route.call_id",
        ),
        (
            fault(|_, route| route.cross_ref_id = "x".repeat(65)),
            "route.cross_ref_id",
        ),
        (
            fault(|_, route| route.language = "en_US".into()),
            "route.language",
        ),
        (
            fault(|_, route| route.caller = Bytes::from_static(b"short")),
            "route.caller",
        ),
        (
            fault(|_, route| route.arrived_at_ms = u64::MAX),
            "route.arrived_at_ms",
        ),
        (
            fault(|frame, _| frame.contact_id = Bytes::from_static(&[1; 15])),
            "contact_id",
        ),
        (
            fault(|frame, _| frame.contact_id = Bytes::new()),
            "contact_id",
        ),
        (
            fault(|frame, _| frame.switch_id = "a/b".into()),
            "switch_id",
        ),
        (
            fault(|frame, _| frame.switch_id = String::new()),
            "switch_id",
        ),
        (fault(|frame, _| frame.boot_id = 0), "boot_id"),
        (
            fault(|frame, _| frame.traceparent = "x".repeat(129)),
            "traceparent",
        ),
        (fault(|frame, _| frame.body = None), "body"),
    ];
    for (fault, field) in named {
        assert_eq!(fault.field, field, "{fault}");
        assert!(!fault.limit.is_empty());
        assert!(fault.value.len() <= 64);
    }
}

#[test]
fn an_unknown_agent_state_is_refused_and_an_unknown_cause_is_unspecified() {
    let update = v1::AgentChanged {
        agent_id: "a1".into(),
        state: 9,
        ..Default::default()
    };
    let fault = input(wire(Body::Agent(update)), 1).expect_err("refused");
    assert_eq!((fault.field, fault.value.as_str()), ("agent.state", "9"));
    let failed = v1::Failed {
        agent_id: "a1".into(),
        cause: 4_000_000,
    };
    let good = input(wire(Body::Failed(failed)), 1).expect("good");
    assert!(matches!(
        good.body,
        InputBody::Failed {
            cause: Cause::Unspecified,
            ..
        }
    ));
}

#[test]
fn an_agents_device_is_never_shown() {
    let update = v1::AgentChanged {
        agent_id: "a1".into(),
        state: 3,
        device: "5".repeat(129),
        ..Default::default()
    };
    let fault = input(wire(Body::Agent(update)), 1).expect_err("refused");
    assert_eq!(fault.value, "129 bytes");
}

#[test]
fn a_callback_input_needs_no_switch_but_a_report_number() {
    let mut frame = wire(Body::CancelVirtual(v1::CancelVirtual {
        end: 3,
        report_sequence: 0,
    }));
    frame.switch_id = String::new();
    frame.boot_id = 0;
    assert_eq!(
        input(frame.clone(), 1).expect_err("no report").field,
        "cancel_virtual.report_sequence"
    );
    frame.body = Some(Body::CancelVirtual(v1::CancelVirtual {
        end: 3,
        report_sequence: 4,
    }));
    let good = input(frame, 1).expect("good");
    assert_eq!(good.source, None);
    assert_eq!(
        good.body,
        InputBody::CancelVirtual {
            end: CallbackEnd::Cancelled,
            report: 4
        }
    );
}
