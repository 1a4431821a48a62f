//! Whatever peers and links do, every request gets exactly one terminal message in time,
//! and every event is acknowledged in the end.

use std::collections::BTreeMap;

use proto::cti::v1::{Delivered, mesh_dialogue_message as mesh, switch_event::Body};
use proto::intent::v1::{Decision, LinkResponse, Verdict};
use proto::routing::v1::{Acknowledged, NotOwner, input, reply};

use super::{Rig, agent_answer, queue_answer};
use crate::core::Input;

/// xorshift: a test needs repeatable dice, not good ones.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// A routing replica that answers some, late some, refuses some, and says "not the owner".
fn replicas_answer(rig: &mut Rig, dice: &mut Dice, backlog: &mut Vec<(u64, u64, bool)>) {
    for link in 100..103u64 {
        for input in rig.take_inputs(link) {
            let asks = matches!(input.body, Some(input::Body::Route(_)));
            backlog.push((link, input.request_id, asks));
        }
    }
    for _ in 0..backlog.len() {
        let index = usize::try_from(dice.roll(backlog.len() as u64)).expect("small");
        let fate = dice.roll(100);
        if fate < 60 {
            continue;
        }
        let (link, request, asks) = backlog.swap_remove(index);
        let body = match fate {
            60..62 => reply::Body::NotOwner(NotOwner {}),
            _ if !asks => reply::Body::Acknowledged(Acknowledged {}),
            62..80 => queue_answer(1),
            _ => agent_answer("a1"),
        };
        if rig.core.links.contains_key(&link) {
            rig.reply(link, request, body);
        }
    }
}

fn intent_answers(rig: &mut Rig, dice: &mut Dice) {
    for query in rig.queries.remove(&200).unwrap_or_default() {
        if dice.roll(10) > 0 {
            let verdict = Verdict {
                query_id: query.query_id,
                topic_id: "REF_STATUS".to_owned(),
                decision: Decision::Topic.into(),
                ..Verdict::default()
            };
            rig.give(Input::Intent {
                link: 200,
                frame: LinkResponse {
                    verdicts: vec![verdict],
                    ..LinkResponse::default()
                },
            });
        }
    }
}

fn run(seed: u64) {
    let mut dice = Dice(seed | 1);
    let mut rig = Rig::ready(|config| config.admission_burst = 100_000);
    rig.open_events(20);
    let mut backlog = Vec::new();
    let mut epoch = 1;
    let mut asked_at: BTreeMap<String, u64> = BTreeMap::new();
    let mut ended_at: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    let (mut frames_seen, mut event_seq) = (0, 0);
    for step in 0..1_500u64 {
        if step < 1_200 {
            for index in 0..dice.roll(4) {
                let cross_ref = format!("s{step}-{index}");
                asked_at.insert(cross_ref.clone(), rig.now.wall.0);
                rig.ask(1, &cross_ref);
            }
            event_seq += 1;
            let contact = u128::from(dice.roll(20));
            rig.tell(
                20,
                vec![Rig::event(
                    event_seq,
                    contact,
                    Body::Delivered(Delivered {
                        agent_id: "a1".to_owned(),
                    }),
                )],
            );
        }
        match dice.roll(60) {
            0 => rig.give(Input::Closed {
                link: 100 + dice.roll(3),
            }),
            1..4 => {
                epoch += 1;
                rig.own(100 + dice.roll(3), epoch);
            }
            4 => rig.give(Input::Closed { link: 200 }),
            5 if !rig.core.links.contains_key(&200) => rig.give(Input::IntentUp { link: 200 }),
            _ => {}
        }
        backlog.retain(|(link, _, _)| rig.core.links.contains_key(link));
        replicas_answer(&mut rig, &mut dice, &mut backlog);
        intent_answers(&mut rig, &mut dice);
        rig.pass(4 + dice.roll(3) * 4);
        for frame in &rig.dialogues[&1][frames_seen..] {
            for message in &frame.messages {
                let cross_ref = match &message.body {
                    Some(mesh::Body::Select(select)) => select.cross_ref_id.clone(),
                    Some(mesh::Body::End(end)) => end.cross_ref_id.clone(),
                    Some(mesh::Body::Refusal(refusal)) => panic!("seed {seed}: {refusal:?}"),
                    _ => continue,
                };
                ended_at.entry(cross_ref).or_default().push(rig.now.wall.0);
            }
        }
        frames_seen = rig.dialogues[&1].len();
        rig.give(Input::Dialogues {
            link: 1,
            received: rig.now.instant,
            frame: proto::cti::v1::DialoguesRequest {
                link_seq: rig.link_seq[&1] + 1,
                hello: None,
                messages: Vec::new(),
            },
            malformed: Vec::new(),
        });
        *rig.link_seq.get_mut(&1).expect("open") += 1;
    }
    rig.own(100, epoch + 1);
    for _ in 0..3 {
        for link in 100..103u64 {
            for input in rig.take_inputs(link) {
                rig.acknowledge(link, input.request_id);
            }
        }
    }
    for (cross_ref, asked) in &asked_at {
        let ended = ended_at
            .get(cross_ref)
            .unwrap_or_else(|| panic!("seed {seed}: {cross_ref} was never answered"));
        assert_eq!(
            ended.len(),
            1,
            "seed {seed}: {cross_ref} was answered {} times",
            ended.len()
        );
        assert!(
            ended[0] - asked < 500,
            "seed {seed}: {cross_ref} was answered after {} ms",
            ended[0] - asked
        );
    }
    assert_eq!(rig.core.in_flight, 0, "seed {seed}");
    assert_eq!(
        rig.credits(1) as usize,
        asked_at.len(),
        "seed {seed}: every credit comes back"
    );
    assert_eq!(
        rig.acknowledged(20),
        event_seq,
        "seed {seed}: every event is held in the end"
    );
    assert_eq!(rig.core.health().unfinished, 0, "seed {seed}");
    assert_eq!(rig.metrics.violations.get(0), 0, "seed {seed}");
}

#[test]
fn every_request_is_answered_once_in_time_whatever_the_peers_do() {
    let seed = runtime::local::seed();
    for run_index in 0..20 {
        run(seed.wrapping_add(run_index * 7_919));
    }
}
