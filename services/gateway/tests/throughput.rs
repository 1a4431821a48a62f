//! How many requests a second one switch's stream carries, with peers that answer at once.
//! Measures and prints, judges nothing: `cargo test --release -p gateway --test throughput
//! -- --ignored --nocapture`.

mod common;

use std::time::{Duration, Instant};

use common::{Dialogues, Manner, Mesh, hello, request};
use proto::cti::v1::{mesh_dialogue_message as mesh, switch_dialogue_message::Body};

const REQUESTS: usize = 200_000;
/// Requests kept outstanding.
const WINDOW: usize = 512;
/// Requests in a frame of the switch.
const FRAME: usize = 32;

async fn measure(with_intent: bool) {
    let mesh = Mesh::start(Manner::Prompt, |config| {
        config.admission_per_second = 1_000_000;
        config.admission_burst = 1_000_000;
        if !with_intent {
            config.intent_endpoints.clear();
        }
    })
    .await;
    mesh.routing.0.lock().expect("lock").keep_inputs = false;
    let mut switch = Dialogues::open(mesh.switch().await, hello(), 1)
        .await
        .expect("opens");
    let start = Instant::now();
    let (mut sent, mut answered, mut selected) = (0, 0, 0);
    let mut latencies: Vec<Duration> = Vec::with_capacity(REQUESTS);
    let mut sent_at = vec![start; REQUESTS];
    while answered < REQUESTS {
        while sent < REQUESTS && sent - answered + FRAME <= WINDOW {
            let now = Instant::now();
            let frame = (sent..sent + FRAME).map(|index| {
                sent_at[index] = now;
                Body::Request(request(&index.to_string()))
            });
            switch.say(frame.collect()).await;
            sent += FRAME;
        }
        for message in switch.frame().await.expect("open").messages {
            match message.body {
                Some(mesh::Body::Select(select)) => {
                    selected += 1;
                    answered += 1;
                    let index: usize = select.cross_ref_id.parse().expect("ours");
                    latencies.push(sent_at[index].elapsed());
                }
                Some(mesh::Body::End(_)) => answered += 1,
                _ => {}
            }
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    latencies.sort_unstable();
    let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize];
    println!(
        "intent {with_intent}: {REQUESTS} requests in {seconds:.2} s, {:.0}/s, {selected} with an agent, window {WINDOW}: p50 {:?} p99 {:?}",
        REQUESTS as f64 / seconds,
        at(0.5),
        at(0.99)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures; run by hand or from the bench target"]
async fn requests_a_second_on_one_stream() {
    measure(false).await;
    measure(true).await;
}
