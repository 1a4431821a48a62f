//! Every sequence of late, doubled and lost messages.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn any_input() -> impl Strategy<Value = Input> {
    let end = prop::sample::select(vec![
        DialEnd::Answered,
        DialEnd::NoAnswer,
        DialEnd::Busy,
        DialEnd::Voicemail,
        DialEnd::Failed,
        DialEnd::NotPlaced,
    ]);
    let kind = prop::sample::select(vec![NoticeKind::Connected, NoticeKind::LegLost]);
    prop_oneof![
        6 => (0u32..6).prop_map(turn),
        8 => Just(Input::Dial),
        6 => (0u32..6, end).prop_map(|(attempt, end)| ended(attempt, end)),
        1 => (kind, 0u32..6).prop_map(|(kind, turn)| Input::Notice { kind, turn }),
        1 => Just(Input::Cancel),
        1 => Just(Input::Confirm),
        1 => Just(Input::Withdraw),
        4 => (0u32..20).prop_map(|sequence| Input::ReportAcknowledged { sequence }),
        1 => (0u32..20).prop_map(|sequence| Input::ReportRefused { sequence }),
        2 => Just(Input::PoolRecovered),
        4 => Just(Input::Tick),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, ..ProptestConfig::default() })]

    /// Nonsense in any order: at most one end, nothing after it, no dial over another, never
    /// more attempts than policy allows, never outside callable hours.
    #[test]
    fn whatever_it_is_told_it_ends_at_most_once_and_never_dials_over_a_dial(
        steps in prop::collection::vec((0u64..400_000, any_input()), 1..120),
    ) {
        let mut booking = booking();
        let zone = Zone::parse(&booking.time_zone).expect("exists");
        let mut now = NOON;
        let mut ends = 0;
        let mut in_flight: Option<(u32, TimeMs)> = None;
        let mut dialled = BTreeSet::new();
        for (elapsed_ms, input) in steps {
            now = now.plus(elapsed_ms);
            let told = input.clone();
            let on_the_line = matches!(booking.state(), State::Answered { .. });
            for output in tell(&mut booking, now, input) {
                match output {
                    Output::Ended(_) => {
                        ends += 1;
                        in_flight = None;
                    }
                    Output::Dial { attempt } => {
                        prop_assert_eq!(ends, 0, "dialled after the end");
                        prop_assert_eq!(in_flight, None, "dialled over a dial");
                        prop_assert!(!on_the_line, "dialled over a live leg");
                        prop_assert!(RULES.hours.are_callable(&zone, now));
                        in_flight = Some((attempt, now));
                        dialled.insert(attempt);
                    }
                    Output::AttemptOver(_) => in_flight = None,
                    Output::CarriedOver | Output::Violation(_) => {}
                }
            }
            if let Some((attempt, since)) = in_flight {
                if told == ended(attempt, DialEnd::Answered) {
                    in_flight = None;
                } else {
                    let in_flight = matches!(booking.state(), State::Dialling { .. });
                    prop_assert!(in_flight, "the dial was forgotten");
                    let silence_ms = RULES.ring_ms + RULES.lease_ms;
                    prop_assert!(told != Input::Tick || now.since(since) < silence_ms);
                }
            }
            prop_assert!(booking.attempts() <= RULES.attempts_max);
            prop_assert!(ends <= 1);
            prop_assert_eq!(booking.is_ended(), ends == 1);
        }
        prop_assert!(dialled.len() <= RULES.attempts_max as usize);
        // Whatever was lost, silence alone brings it to its one end.
        for _ in 0..2_000 {
            let Some(deadline) = booking.next_deadline(&RULES) else { break };
            now = now.max(deadline);
            for output in tell(&mut booking, now, Input::Tick) {
                ends += u32::from(matches!(output, Output::Ended(_)));
            }
        }
        prop_assert_eq!(ends, 1, "in the end exactly one end: {:?}", booking.state());
    }

    /// Records written by this build can be read by it, whatever they have been through.
    #[test]
    fn reports_are_numbered_without_gap(steps in prop::collection::vec(any_input(), 1..60)) {
        let mut booking = booking();
        let mut now = NOON;
        let mut last = 1;
        for input in steps {
            now = now.plus(60_000);
            // Only what was sent can be acknowledged.
            if matches!(input, Input::ReportAcknowledged { .. } | Input::ReportRefused { .. }) {
                settle(&mut booking, now);
                continue;
            }
            let sent = booking.first_report().map_or(last + 1, |report| report.sequence);
            tell(&mut booking, now, input);
            let mut copy = booking.clone();
            while let Some(report) = copy.first_report() {
                let sequence = report.sequence;
                if sequence > last {
                    prop_assert_eq!(sequence, last + 1);
                    last = sequence;
                }
                prop_assert!(sequence >= sent);
                tell(&mut copy, now, Input::ReportAcknowledged { sequence });
            }
        }
    }
}
