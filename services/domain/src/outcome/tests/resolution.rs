//! Resolution across contacts.

use super::*;

const DAY: u64 = DAY_MS;

/// Talked from one minute after arrival to five.
fn conversation(number: u128, at: u64, disposition: Disposition) -> Script {
    contact(number)
        .of_caller(Some(77))
        .arriving(at)
        .offered()
        .talked(MINUTE, 5 * MINUTE, "a1", disposition)
        .closed(6 * MINUTE)
}

#[test]
fn resolution_holds_until_the_caller_comes_again_about_the_same() {
    let resolved = || conversation(1, T0, Disposition::Resolved);
    assert_eq!(Book::of([resolved()]).count(Counter::Resolved30), 1);

    // Ten days later, another topic of the family, and the caller gives up.
    let again = |at: u64, topic: &'static str| {
        contact(2)
            .of_caller(Some(77))
            .arriving(at)
            .about(topic)
            .offered()
            .then(
                MINUTE,
                EventBody::Abandoned {
                    waited_ms: MINUTE,
                    ringing: false,
                },
            )
            .closed(MINUTE)
    };
    let book = Book::of([resolved(), again(T0 + 10 * DAY, "REF_DELAY")]);
    assert_eq!(book.count(Counter::Resolved7), 1, "after the 7 day window");
    assert_eq!(
        book.count(Counter::Resolved14),
        0,
        "within the 14 day window"
    );
    assert_eq!(book.count(Counter::Resolved30), 0);
    assert_eq!(book.count(Counter::Issues30), 1, "giving up opens no issue");
    assert_eq!(book.value("first_contact_resolution_7d"), 1.0);
    assert_eq!(book.value("first_contact_resolution_14d"), 0.0);

    let elsewhere = Book::of([resolved(), again(T0 + DAY, "COL_BALANCE")]);
    assert_eq!(elsewhere.count(Counter::Resolved30), 1, "another issue");
    let overlapping = Book::of([resolved(), again(T0 + 2 * MINUTE, "REF_DELAY")]);
    assert_eq!(
        overlapping.count(Counter::Resolved30),
        1,
        "came before the conversation ended"
    );
    let late = Book::of([resolved(), again(T0 + 31 * DAY, "REF_DELAY")]);
    assert_eq!(late.count(Counter::Resolved30), 1);
}

#[test]
fn a_second_conversation_about_the_same_is_no_new_issue() {
    let book = Book::of([
        conversation(1, T0, Disposition::Unresolved),
        conversation(2, T0 + 10 * DAY, Disposition::Resolved),
    ]);
    assert_eq!(
        (book.count(Counter::Issues7), book.count(Counter::Resolved7)),
        (2, 1)
    );
    assert_eq!(
        (
            book.count(Counter::Issues14),
            book.count(Counter::Resolved14)
        ),
        (1, 0)
    );
}

#[test]
fn the_survey_can_deny_what_the_agent_says_and_coverage_says_what_is_seen() {
    let surveyed = |number, all_answered| {
        contact(number)
            .offered()
            .talked(1_000, MINUTE, "a1", Disposition::Resolved)
            .then(
                2 * MINUTE,
                EventBody::SurveyAnswered(SurveyAnswers {
                    calls_about_this: 2,
                    all_answered,
                    no_more_calls: None,
                }),
            )
            .closed(2 * MINUTE)
    };
    let withheld = contact(4)
        .of_caller(None)
        .offered()
        .talked(1_000, MINUTE, "a1", Disposition::Resolved)
        .closed(2 * MINUTE);
    let book = Book::of([
        surveyed(1, Some(true)),
        surveyed(2, Some(false)),
        surveyed(3, None),
        withheld,
    ]);
    assert_eq!(book.count(Counter::Issues14), 3);
    assert_eq!(book.count(Counter::Resolved14), 2);
    assert_eq!(book.value("first_contact_resolution_coverage"), 0.75);
    assert_eq!(book.value("survey_all_answered"), 0.5);
    assert_eq!(book.value("survey_first_call"), 0.0);
    assert_eq!(book.count(Counter::AgentResolved), 4);
}

#[test]
fn issues_count_the_same_in_whatever_order_their_contacts_are_read() {
    // Eight contacts of one caller over 50 days, answered and not, in 200 orders.
    let scripts = || {
        let mut scripts: Vec<Script> = (0..6u64)
            .map(|index| {
                let disposition = if index % 2 == 0 {
                    Disposition::Resolved
                } else {
                    Disposition::Unresolved
                };
                conversation(
                    u128::from(index) + 1,
                    T0 + index * index * 2 * DAY,
                    disposition,
                )
            })
            .collect();
        for (number, at) in [(10, T0 + 3 * DAY), (11, T0 + 3 * MINUTE)] {
            scripts.push(
                contact(number)
                    .of_caller(Some(77))
                    .arriving(at)
                    .offered()
                    .then(
                        9,
                        EventBody::Abandoned {
                            waited_ms: 9,
                            ringing: false,
                        },
                    )
                    .closed(9),
            );
        }
        scripts
    };
    let expected = Book::of(scripts()).tally;
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    for round in 0..200 {
        let mut shuffled = scripts();
        for index in (1..shuffled.len()).rev() {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let other = usize::try_from((state >> 33) % (index as u64 + 1)).expect("small");
            shuffled.swap(index, other);
        }
        let tally = Book::of(shuffled).tally;
        assert_eq!(tally.totals(), expected.totals(), "round {round}");
        assert!(tally == expected, "round {round}");
    }
}

#[test]
fn an_issue_stays_small_however_often_somebody_calls() {
    let mut issue = Issue::default();
    let mut tally = Tally::default();
    let mut dropped = 0;
    for number in 0..100u64 {
        let visit = Visit {
            contact: ContactId(u128::from(number)),
            arrived_at: TimeMs(T0 + number * MINUTE),
            answered: None,
        };
        dropped += issue.add(visit.clone(), &mut tally);
        assert_eq!(issue.add(visit, &mut tally), 0, "the same visit again");
    }
    assert_eq!(dropped, 100 - VISITS_MAX);
    assert!(tally.is_empty());
}

#[test]
fn settled_resolution_leaves_open_windows_out() {
    let book = Book::of([
        conversation(1, T0, Disposition::Resolved).of_caller(Some(1)),
        conversation(2, T0 + 20 * DAY, Disposition::Unresolved).of_caller(Some(2)),
    ]);
    let all = book.counts(Grouping::All, "");
    let mut open = Counts::default();
    for (cell, counts) in book.tally.iter() {
        if cell.grouping == Grouping::All && cell.half_hour * HALF_HOUR_MS > T0 + 10 * DAY {
            open.merge(counts);
        }
    }
    let measured = Measured {
        counts: all,
        open: [open.clone(), open.clone(), open],
    };
    let value = |name: &str| {
        definitions()
            .iter()
            .find(|definition| definition.name == name)
            .expect("a measure")
            .value(&measured)
    };
    assert_eq!(value("first_contact_resolution_7d").denominator, 2);
    assert_eq!(value("first_contact_resolution_7d").value, 0.5);
    assert_eq!(value("first_contact_resolution_7d_settled").denominator, 1);
    assert_eq!(value("first_contact_resolution_7d_settled").value, 1.0);
    assert_eq!(value("first_contact_resolution_7d_provisional").value, 0.5);
}
