//! Who gets what, and what a full queue costs.

use super::*;

fn metrics() -> Arc<Metrics> {
    Arc::new(Metrics::new(
        &mut prometheus_client::registry::Registry::default(),
    ))
}

fn queue(metrics: &Arc<Metrics>, messages_max: usize) -> Arc<FrameQueue> {
    Arc::new(FrameQueue::new(messages_max, Arc::clone(metrics)))
}

fn command(switch: &str, id: u64) -> SwitchCommand {
    SwitchCommand {
        switch_id: switch.to_owned(),
        command_id: id,
        ..SwitchCommand::default()
    }
}

fn commands(queue: &FrameQueue) -> Vec<u64> {
    let mut ids = Vec::new();
    while let Some(frame) = queue.pop() {
        ids.extend(frame.commands.iter().map(|command| command.command_id));
    }
    ids
}

fn dispatch(peers: &Peers, list: Vec<SwitchCommand>, keep: Duration) {
    peers.dispatch(
        "p",
        Messages {
            commands: list,
            ..Messages::default()
        },
        keep,
    );
}

#[test]
fn a_command_waits_for_its_switch_and_goes_to_the_gateway_that_announced_it_last() {
    let metrics = metrics();
    let peers = Peers::new(16, Arc::clone(&metrics));
    let (first, second) = (queue(&metrics, 100), queue(&metrics, 100));
    let one = peers.join("g1".into(), Role::Gateway, Arc::clone(&first));
    let two = peers.join("g2".into(), Role::Gateway, Arc::clone(&second));
    dispatch(&peers, vec![command("s1", 1)], Duration::from_secs(60));
    assert!(commands(&first).is_empty());
    peers.attach(&one, vec!["s1".into()]);
    assert_eq!(commands(&first), [1]);
    peers.attach(&two, vec!["s1".into(), "s2".into()]);
    dispatch(
        &peers,
        vec![command("s1", 2), command("s2", 3)],
        Duration::from_secs(60),
    );
    assert!(commands(&first).is_empty());
    assert_eq!(commands(&second), [2, 3]);
    peers.leave(&two);
    dispatch(
        &peers,
        vec![command("s1", 4), command("s2", 5)],
        Duration::from_secs(60),
    );
    assert_eq!(commands(&first), [4], "s2 has nobody now");
    assert_eq!(metrics.commands_pending.get(), 1);
    peers.forget("p");
    assert_eq!(metrics.commands_pending.get(), 0);
}

#[test]
fn pending_commands_are_bounded_and_die_of_age() {
    let metrics = metrics();
    let peers = Peers::new(2, Arc::clone(&metrics));
    let first = queue(&metrics, 100);
    let one = peers.join("g1".into(), Role::Gateway, Arc::clone(&first));
    dispatch(&peers, vec![command("s1", 1)], Duration::ZERO);
    dispatch(
        &peers,
        (2..6).map(|id| command("s1", id)).collect(),
        Duration::from_secs(60),
    );
    peers.attach(&one, vec!["s1".into()]);
    assert_eq!(commands(&first), [4, 5]);
    let dropped = |reason| {
        metrics
            .commands_dropped
            .get_or_create(&ReasonLabels { reason })
            .get()
    };
    assert_eq!((dropped("too_old"), dropped("too_many")), (1, 2));
}

#[test]
fn a_full_queue_cuts_the_peer_and_frees_its_memory() {
    let metrics = metrics();
    let queue = queue(&metrics, 3);
    let frame = |number: usize| LinkResponse {
        commands: (0..number as u64).map(|id| command("s", id)).collect(),
        ..LinkResponse::default()
    };
    assert!(queue.push(frame(2)));
    assert!(!queue.push(frame(2)), "over the bound");
    assert!(queue.gone.is_cancelled() && queue.was_cut());
    assert!(
        queue.pop().is_none(),
        "nothing is kept for a peer that is cut"
    );
    assert_eq!(metrics.peers_cut.get(), 1);
}

#[test]
fn one_contact_always_meets_the_same_callback_replica() {
    let metrics = metrics();
    let peers = Peers::new(16, Arc::clone(&metrics));
    let queues: Vec<_> = (0..3).map(|_| queue(&metrics, 1_000)).collect();
    for (index, queue) in queues.iter().enumerate() {
        peers.join(format!("c{index}"), Role::Callback, Arc::clone(queue));
    }
    let mut told = [0; 3];
    for contact in 0..90u128 {
        let due = || v1::VirtualDue {
            contact_id: bytes::Bytes::copy_from_slice(&contact.to_be_bytes()),
            ..v1::VirtualDue::default()
        };
        for _ in 0..2 {
            let messages = Messages {
                virtual_due: vec![due()],
                ..Messages::default()
            };
            peers.dispatch("p", messages, Duration::ZERO);
        }
        let got: Vec<usize> = queues
            .iter()
            .map(|queue| {
                std::iter::from_fn(|| queue.pop())
                    .map(|frame| frame.virtual_due.len())
                    .sum()
            })
            .collect();
        let winner = got
            .iter()
            .position(|number| *number > 0)
            .expect("somebody is told");
        assert_eq!(got[winner], 2, "both tellings go to one replica: {got:?}");
        told[winner] += 1;
    }
    assert!(
        told.iter().all(|number| *number > 5),
        "spread over the replicas: {told:?}"
    );
}
