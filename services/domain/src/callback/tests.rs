//! Rules one by one, then every sequence of late, doubled and lost messages.

mod sequences;

use super::*;
use crate::pool::{CallbackEnd, CallbackStep, NoticeKind, Window};
use crate::{CallerId, ContactId, SwitchId, TimeMs};

/// 13 April 2026, 15:00 UTC: 11:00 in New York.
const NOON: TimeMs = TimeMs(1_776_092_400_000);
const RULES: Rules = Rules {
    attempts_max: 3,
    attempt_spacing_ms: 300_000,
    ring_ms: 25_000,
    lease_ms: 15_000,
    hours: Hours {
        from_hour: 8,
        until_hour: 21,
    },
    not_placed_retry_ms: 1_000,
    look_after_ms: 300_000,
    answered_max_ms: 3_600_000,
    life_max_ms: 86_400_000,
};

fn request() -> NewBooking {
    NewBooking {
        contact: ContactId(7),
        pool: "tax".to_owned(),
        switch: SwitchId::parse("switch-1").expect("valid"),
        caller: CallerId(9),
        number: vec![1, 2, 3],
        window: None,
        time_zone: "America/New_York".to_owned(),
        line: "main".to_owned(),
        topic: "REFUND_STATUS".to_owned(),
        family: "refund".to_owned(),
        language: "en".to_owned(),
        arrived_at: NOON.minus(600_000),
        expected_callback_ms: 900_000,
        traceparent: String::new(),
    }
}

fn booking() -> Booking {
    Booking::new(request(), None, NOON, &RULES)
}

/// Handles an input and gives what came out.
fn tell(booking: &mut Booking, now: TimeMs, input: Input) -> Vec<Output> {
    let mut outputs = Vec::new();
    booking.handle(now, &RULES, input, &mut outputs);
    outputs
}

fn turn(number: u32) -> Input {
    Input::Turn {
        turn: number,
        traceparent: String::new(),
    }
}

fn ended(attempt: u32, end: DialEnd) -> Input {
    Input::DialEnded { attempt, end }
}

fn settle(booking: &mut Booking, now: TimeMs) {
    while let Some(report) = booking.first_report() {
        let sequence = report.sequence;
        tell(booking, now, Input::ReportAcknowledged { sequence });
    }
}

/// Brings a fresh booking to its first dial.
fn dialled() -> Booking {
    let mut booking = booking();
    tell(&mut booking, NOON, turn(1));
    assert_eq!(
        tell(&mut booking, NOON, Input::Dial),
        vec![Output::Dial { attempt: 1 }]
    );
    booking
}

#[test]
fn a_booking_registers_its_place_and_waits_for_its_turn() {
    let mut booking = booking();
    assert_eq!(booking.state(), State::Booked);
    let report = booking.first_report().expect("a registration").clone();
    assert_eq!(
        report,
        Report {
            sequence: 1,
            body: ReportBody::Register { window: None }
        }
    );
    assert_eq!(
        tell(&mut booking, NOON, Input::Dial),
        vec![],
        "not its turn"
    );
    assert!(matches!(booking.place(&RULES), Place::Held(_)));
}

#[test]
fn a_caller_who_answers_and_is_connected_ends_connected_once() {
    let mut booking = dialled();
    tell(&mut booking, NOON.plus(5_000), ended(1, DialEnd::Answered));
    assert!(matches!(booking.state(), State::Answered { .. }));
    let notice = Input::Notice {
        kind: NoticeKind::Connected,
        turn: 1,
    };
    assert_eq!(
        tell(&mut booking, NOON.plus(9_000), notice.clone()),
        vec![Output::Ended(CallbackEnd::Connected)]
    );
    assert_eq!(tell(&mut booking, NOON.plus(9_100), notice), vec![]);
    assert!(booking.number.is_empty(), "the number is wiped at the end");
}

#[test]
fn connected_may_be_heard_before_the_dial_result() {
    let mut booking = dialled();
    let notice = Input::Notice {
        kind: NoticeKind::Connected,
        turn: 1,
    };
    assert_eq!(
        tell(&mut booking, NOON.plus(9_000), notice),
        vec![Output::Ended(CallbackEnd::Connected)]
    );
    assert_eq!(
        tell(&mut booking, NOON.plus(9_500), ended(1, DialEnd::Answered)),
        vec![]
    );
    assert_eq!(booking.attempts(), 1);
}

#[test]
fn a_missed_ring_keeps_the_place_and_says_when_the_next_attempt_is() {
    for end in [
        DialEnd::NoAnswer,
        DialEnd::Busy,
        DialEnd::Voicemail,
        DialEnd::Failed,
    ] {
        let mut booking = dialled();
        tell(&mut booking, NOON.plus(20_000), ended(1, end));
        assert_eq!(booking.state(), State::Booked, "{end:?}");
        assert_eq!(booking.next_at(), NOON.plus(320_000));
        assert_eq!(booking.attempts(), 1);
        assert_eq!(booking.arrived_at, NOON.minus(600_000));
    }
}

#[test]
fn the_last_attempt_missed_exhausts_the_booking() {
    let mut booking = booking();
    let mut now = NOON;
    for attempt in 1..=RULES.attempts_max {
        tell(&mut booking, now, turn(attempt));
        now = now.max(booking.next_at());
        assert_eq!(
            tell(&mut booking, now, Input::Dial),
            vec![Output::Dial { attempt }]
        );
        now = now.plus(20_000);
        let outputs = tell(&mut booking, now, ended(attempt, DialEnd::Voicemail));
        let exhausted = outputs.contains(&Output::Ended(CallbackEnd::Exhausted));
        assert_eq!(
            exhausted,
            attempt == RULES.attempts_max,
            "attempt {attempt}"
        );
    }
    assert_eq!(booking.state_name(), "exhausted");
}

#[test]
fn a_dial_that_never_reached_the_switch_is_no_attempt() {
    let mut booking = dialled();
    let mut now = NOON;
    for wait_ms in [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 32_000] {
        tell(&mut booking, now, ended(1, DialEnd::NotPlaced));
        assert_eq!(booking.place(&RULES), Place::Due(now.plus(wait_ms)));
        now = now.plus(wait_ms);
        assert_eq!(
            tell(&mut booking, now, Input::Dial),
            vec![Output::Dial { attempt: 1 }]
        );
    }
    assert_eq!(booking.attempts(), 0);
}

#[test]
fn silence_counts_as_a_failed_attempt_only_after_ring_time_and_lease() {
    let mut booking = dialled();
    assert_eq!(booking.next_deadline(&RULES), Some(NOON.plus(40_000)));
    assert_eq!(tell(&mut booking, NOON.plus(39_999), Input::Tick), vec![]);
    tell(&mut booking, NOON.plus(40_000), Input::Tick);
    assert_eq!((booking.state(), booking.attempts()), (State::Booked, 1));
}

#[test]
fn an_answer_that_comes_after_the_silence_stops_the_next_attempt() {
    let mut booking = dialled();
    tell(&mut booking, NOON.plus(40_000), Input::Tick);
    tell(&mut booking, NOON.plus(40_000), turn(2));
    tell(&mut booking, NOON.plus(41_000), ended(1, DialEnd::Answered));
    assert!(matches!(booking.state(), State::Answered { .. }));
    assert_eq!(tell(&mut booking, NOON.plus(900_000), Input::Dial), vec![]);
    assert_eq!(booking.attempts(), 1);
}

#[test]
fn a_lost_leg_is_an_attempt_used_and_the_place_is_kept() {
    let mut booking = dialled();
    tell(&mut booking, NOON.plus(5_000), ended(1, DialEnd::Answered));
    let notice = Input::Notice {
        kind: NoticeKind::LegLost,
        turn: 1,
    };
    tell(&mut booking, NOON.plus(9_000), notice.clone());
    assert_eq!((booking.state(), booking.attempts()), (State::Booked, 1));
    let before = booking.clone();
    tell(&mut booking, NOON.plus(9_001), notice);
    assert_eq!(booking, before, "a repeated notice changes nothing");
}

#[test]
fn a_turn_outside_callable_hours_is_carried_over_with_notice() {
    let mut booking = booking();
    settle(&mut booking, NOON);
    let night = NOON.plus(11 * 3_600_000);
    assert_eq!(
        tell(&mut booking, night, turn(1)),
        vec![Output::CarriedOver]
    );
    let morning = NOON.plus(21 * 3_600_000);
    assert_eq!(booking.next_at(), morning, "08:00 in New York");
    let report = booking.first_report().expect("a notice");
    assert_eq!(
        report.body,
        ReportBody::CarriedOver {
            attempt: 1,
            next_at: morning
        }
    );
    assert_eq!(booking.attempts(), 0);
}

#[test]
fn waiting_for_a_gateway_into_the_night_dials_nobody_out_of_bed() {
    let mut booking = booking();
    tell(&mut booking, NOON, turn(1));
    let night = NOON.plus(11 * 3_600_000);
    assert_eq!(
        tell(&mut booking, night, Input::Dial),
        vec![Output::CarriedOver]
    );
}

#[test]
fn a_window_is_not_dialled_before_it_opens() {
    let window = Window {
        from: NOON.plus(3_600_000),
        until: NOON.plus(5_400_000),
    };
    let mut booking = Booking::new(
        NewBooking {
            window: Some(window),
            ..request()
        },
        None,
        NOON,
        &RULES,
    );
    tell(&mut booking, NOON.plus(60_000), turn(1));
    assert_eq!(booking.place(&RULES), Place::Due(window.from));
    assert_eq!(
        tell(&mut booking, window.from.minus(1), Input::Dial),
        vec![]
    );
    assert_eq!(
        tell(&mut booking, window.from, Input::Dial),
        vec![Output::Dial { attempt: 1 }]
    );
}

#[test]
fn cancelling_before_the_dial_ends_it_at_once() {
    let mut booking = booking();
    assert_eq!(
        tell(&mut booking, NOON, Input::Cancel),
        vec![Output::Ended(CallbackEnd::Cancelled)]
    );
    assert_eq!(tell(&mut booking, NOON, Input::Cancel), vec![]);
    assert_eq!(tell(&mut booking, NOON, turn(1)), vec![]);
    assert_eq!(tell(&mut booking, NOON, Input::Dial), vec![]);
}

#[test]
fn cancelling_while_it_rings_waits_for_the_telephone() {
    let mut missed = dialled();
    assert_eq!(tell(&mut missed, NOON, Input::Cancel), vec![]);
    let outputs = tell(&mut missed, NOON.plus(20_000), ended(1, DialEnd::NoAnswer));
    assert!(outputs.contains(&Output::Ended(CallbackEnd::Cancelled)));

    let mut answered = dialled();
    tell(&mut answered, NOON, Input::Cancel);
    tell(&mut answered, NOON.plus(5_000), ended(1, DialEnd::Answered));
    let notice = Input::Notice {
        kind: NoticeKind::Connected,
        turn: 1,
    };
    assert_eq!(
        tell(&mut answered, NOON.plus(6_000), notice),
        vec![Output::Ended(CallbackEnd::Connected)],
        "who answers is served"
    );
}

#[test]
fn a_repeated_turn_is_the_same_turn_until_routing_has_settled() {
    let mut booking = dialled();
    tell(&mut booking, NOON.plus(20_000), ended(1, DialEnd::NoAnswer));
    tell(&mut booking, NOON.plus(600_000), turn(1));
    assert_eq!(
        booking.state(),
        State::Booked,
        "routing has not heard of the missed ring"
    );
    settle(&mut booking, NOON.plus(600_000));
    tell(&mut booking, NOON.plus(605_000), turn(1));
    assert_eq!(
        booking.state(),
        State::Booked,
        "may still have been under way"
    );
    tell(&mut booking, NOON.plus(610_000), turn(1));
    assert_eq!(booking.state(), State::Due, "routing counts anew");
}

#[test]
fn a_place_that_routing_refuses_to_hold_is_called_when_it_was_announced() {
    let mut booking = booking();
    tell(&mut booking, NOON, Input::ReportRefused { sequence: 1 });
    assert_eq!(booking.place(&RULES), Place::Due(NOON.plus(900_000)));
    assert_eq!(
        tell(&mut booking, NOON.plus(900_000), Input::Dial),
        vec![Output::Dial { attempt: 1 }]
    );
    tell(&mut booking, NOON.plus(910_000), ended(1, DialEnd::Busy));
    assert_eq!(booking.place(&RULES), Place::Due(NOON.plus(1_210_000)));
    tell(&mut booking, NOON.plus(1_210_000), Input::Dial);
    let outputs = tell(
        &mut booking,
        NOON.plus(1_215_000),
        ended(2, DialEnd::Answered),
    );
    assert!(
        outputs.contains(&Output::Ended(CallbackEnd::Connected)),
        "nobody else will say"
    );
}

#[test]
fn a_lost_leg_may_be_heard_before_the_dial_result() {
    let mut booking = dialled();
    let notice = Input::Notice {
        kind: NoticeKind::LegLost,
        turn: 1,
    };
    tell(&mut booking, NOON.plus(9_000), notice);
    assert_eq!((booking.state(), booking.attempts()), (State::Booked, 1));
    tell(&mut booking, NOON.plus(9_500), ended(1, DialEnd::Answered));
    assert_eq!(
        (booking.state(), booking.attempts()),
        (State::Booked, 1),
        "that leg is gone"
    );
}

#[test]
fn a_recovered_pool_is_told_of_the_place_again_but_not_under_a_live_leg() {
    let mut waiting = booking();
    settle(&mut waiting, NOON);
    tell(&mut waiting, NOON.plus(1), Input::PoolRecovered);
    tell(&mut waiting, NOON.plus(2), Input::PoolRecovered);
    let report = waiting.first_report().expect("a registration");
    assert_eq!(
        report,
        &Report {
            sequence: 2,
            body: ReportBody::Register { window: None }
        }
    );
    settle(&mut waiting, NOON.plus(3));
    assert_eq!(waiting.first_report(), None, "one registration, not two");

    let mut ringing = dialled();
    settle(&mut ringing, NOON);
    tell(&mut ringing, NOON.plus(1), Input::PoolRecovered);
    assert_eq!(ringing.first_report(), None);
}

#[test]
fn a_second_booking_of_a_contact_goes_on_numbering() {
    let mut first = dialled();
    tell(
        &mut first,
        NOON.plus(5_000),
        Input::Notice {
            kind: NoticeKind::Connected,
            turn: 1,
        },
    );
    settle(&mut first, NOON.plus(5_000));
    let second = Booking::new(request(), Some(&first), NOON.plus(600_000), &RULES);
    let sequence = second.first_report().expect("a registration").sequence;
    assert_eq!(sequence, 4, "after register, dialled, ended");
    let mut second = second;
    let repeat = Input::Notice {
        kind: NoticeKind::Connected,
        turn: 1,
    };
    assert_eq!(
        tell(&mut second, NOON.plus(600_000), repeat),
        vec![],
        "about the first"
    );
    tell(&mut second, NOON.plus(600_000), turn(2));
    assert_eq!(
        tell(&mut second, NOON.plus(600_000), Input::Dial),
        vec![Output::Dial { attempt: 2 }]
    );
}

#[test]
fn no_booking_is_immortal() {
    let mut booking = booking();
    let end = NOON.plus(RULES.life_max_ms);
    assert_eq!(
        tell(&mut booking, end, Input::Tick),
        vec![Output::Ended(CallbackEnd::Exhausted)]
    );
}

#[test]
fn a_booking_that_another_was_told_of_is_not_withdrawn() {
    let mut alone = booking();
    assert_eq!(
        tell(&mut alone, NOON, Input::Withdraw),
        vec![Output::Ended(CallbackEnd::Cancelled)]
    );
    let mut confirmed = booking();
    tell(&mut confirmed, NOON, Input::Confirm);
    assert_eq!(tell(&mut confirmed, NOON, Input::Withdraw), vec![]);
    assert_eq!(confirmed.state(), State::Booked);
}

#[test]
fn steps_are_told_in_order() {
    let mut booking = dialled();
    tell(&mut booking, NOON.plus(5_000), ended(1, DialEnd::Busy));
    let mut steps = Vec::new();
    while let Some(report) = booking.first_report() {
        if let ReportBody::Progress { step, next_at, .. } = report.body {
            steps.push((step, next_at));
        }
        let sequence = report.sequence;
        tell(&mut booking, NOON, Input::ReportAcknowledged { sequence });
    }
    assert_eq!(
        steps,
        vec![
            (CallbackStep::Dialled, None),
            (CallbackStep::Busy, Some(NOON.plus(305_000)))
        ]
    );
}
