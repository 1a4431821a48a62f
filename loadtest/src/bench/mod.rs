//! Decisions a second, side by side in one run on one machine:
//!
//! 1. the same messages echoed over one tonic bidirectional stream, in frames of 32: what
//!    the wire and the encoding cost, and nothing else;
//! 2. this harness against a gateway that answers at once: what the harness can drive;
//! 3. this harness against the mesh (`trunkline dev`: gateway, intent, routing, Redis with
//!    its append-only file, outcomes and the event log behind it), every decision durable
//!    before it is answered, every call cleared and counted afterwards.
//!
//! A closed loop with a fixed number of calls in flight, since the question is what can be
//! done at most; the scenarios of `load` are open loops and answer how it feels.

mod echo;

pub(crate) use echo::Echo;

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use proto::cti::v1 as cti;
use proto::cti::v1::routing_dialogue_service_client::RoutingDialogueServiceClient;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::net::{Links, endpoint};
use crate::progress::{Progress, new_latency};
use crate::record::{Entry, Leg, Writer};
use crate::run::dev::Dev;
use crate::run::driver::Driver;
use crate::scenario::words::{Words, number_of};
use crate::switch::{Config, Core, Happening, NewCall};
use crate::time::{Clock, MILLISECOND};

/// Calls in flight: half a gateway's credit, so that credit is never what limits.
const IN_FLIGHT: usize = 512;
/// Requests a frame on the raw stream.
const FRAME: usize = 32;
/// Frames in flight on the raw stream.
const FRAMES_IN_FLIGHT: usize = 16;
/// Before measuring: connections, caches, the branch predictor.
const WARM_UP: Duration = Duration::from_secs(1);

/// What a measurement gave.
#[derive(Clone, Copy, Debug)]
struct Rate {
    each_second: f64,
    p50_us: u64,
    p99_us: u64,
    turned_away: u64,
}

/// Measures all three and prints them.
pub(crate) async fn run(binary: &Path, seconds: u64, logs: &Path) -> anyhow::Result<()> {
    let span = Duration::from_secs(seconds.max(1));
    say("raw: the same messages echoed over one bidirectional stream");
    let (address, server) = Echo::start().await?;
    let raw = raw(&address.to_string(), span).await?;
    say("harness: the synthetic switch against a gateway that answers at once");
    let harness = through(&address.to_string(), span, logs).await?;
    server.abort();
    say("mesh: the same against trunkline dev");
    let dev = Dev::start_with(binary, None, "embedded", logs, &UNLIMITED).await?;
    let mesh = through(&dev.gateway, span, logs).await?;
    dev.stop().await?;
    say(&format!(
        "\n{:<52}{:>14}{:>12}{:>12}\n{:<52}{:>14.0}{:>12}{:>12}\n{:<52}{:>14.0}{:>9} us{:>9} us\n{:<52}{:>14.0}{:>9} us{:>9} us",
        "",
        "decisions/s",
        "half in",
        "99 % in",
        "raw echo on one stream, frames of 32",
        raw,
        "-",
        "-",
        "harness against an immediate answer",
        harness.each_second,
        harness.p50_us,
        harness.p99_us,
        "mesh end to end, durable, calls cleared and counted",
        mesh.each_second,
        mesh.p50_us,
        mesh.p99_us,
    ));
    say(&format!(
        "ratio mesh : raw {:.4} (1 : {:.1}), mesh : harness {:.3}; {} calls in flight, {} of the mesh's calls turned away",
        mesh.each_second / raw,
        raw / mesh.each_second,
        mesh.each_second / harness.each_second,
        IN_FLIGHT,
        mesh.turned_away,
    ));
    Ok(())
}

/// Admission would be what is measured.
const UNLIMITED: [(&str, &str); 3] = [
    ("TRUNKLINE_ADMISSION_PER_SECOND", "1000000"),
    ("TRUNKLINE_ADMISSION_BURST", "1000000"),
    ("TRUNKLINE_LOG", "warn"),
];

/// Messages a second on the bare stream.
async fn raw(address: &str, span: Duration) -> anyhow::Result<f64> {
    let (sender, frames) = mpsc::channel(FRAMES_IN_FLIGHT);
    let mut client = RoutingDialogueServiceClient::new(endpoint(address)?.connect().await?);
    sender
        .send(cti::DialoguesRequest {
            link_seq: 1,
            hello: Some(cti::Hello::default()),
            messages: Vec::new(),
        })
        .await?;
    let mut answers = client
        .dialogues(ReceiverStream::new(frames))
        .await?
        .into_inner();
    let words = Words::own()?;
    let frame = |link_seq: u64| {
        let request = |index: u64| {
            let new = new_call(&words, link_seq * FRAME as u64 + index, 0);
            let body = cti::switch_dialogue_message::Body::Request(cti::RouteRequest {
                cross_ref_id: format!("x{}.1", new.caller),
                call: Some(cti::CallRef {
                    call_id: format!("c{}", new.caller),
                    ..Default::default()
                }),
                current_route: Some(cti::Device { id: new.line }),
                calling_device: new.number.map(|id| cti::Device { id }),
                reply_timeout_ms: 500,
                language: new.language,
                utterance: new.utterance,
                channel: cti::Channel::Voice.into(),
                ..Default::default()
            });
            cti::SwitchDialogueMessage { body: Some(body) }
        };
        cti::DialoguesRequest {
            link_seq,
            hello: None,
            messages: (0..FRAME as u64).map(request).collect(),
        }
    };
    let mut link_seq = 1;
    for _ in 0..FRAMES_IN_FLIGHT - 1 {
        link_seq += 1;
        sender.send(frame(link_seq)).await?;
    }
    let (mut began, mut counted, mut warm) = (Instant::now(), 0u64, false);
    while let Some(answer) = answers.message().await? {
        counted += answer.messages.len() as u64;
        if !warm && began.elapsed() > WARM_UP {
            (began, counted, warm) = (Instant::now(), 0, true);
        }
        if warm && began.elapsed() > span {
            break;
        }
        if !answer.messages.is_empty() {
            link_seq += 1;
            sender.send(frame(link_seq)).await?;
        }
    }
    Ok(counted as f64 / began.elapsed().as_secs_f64())
}

/// Decisions a second of a gateway, through the synthetic switch: each call is answered
/// with a place in line, gives up at once, and the next one comes.
async fn through(gateway: &str, span: Duration, logs: &Path) -> anyhow::Result<Rate> {
    let clock = Clock::start();
    let config = Config {
        switch_id: "bench-switch".into(),
        boot_id: crate::dice::mix(clock.now()) | 1,
        reply_timeout: 5_000 * MILLISECOND,
        ring_max: 5_000 * MILLISECOND,
        announcement: 0,
        callback_lines: HashMap::new(),
    };
    let nodes = [gateway.to_owned()];
    let (links, inbound) = Links::open(&nodes)?;
    let (_notes, noted) = mpsc::channel(crate::run::driver::NOTES_MAX);
    let writer = Writer::create(&logs.join("bench.jsonl"))?;
    let mut driver = Driver::new(
        clock,
        Core::new(config, &nodes),
        inbound,
        noted,
        writer,
        Progress::new(clock.now())?,
    );
    driver.connect(1, Duration::from_secs(30)).await?;
    let words = Words::own()?;
    let mut latency = new_latency()?;
    let (mut happenings, mut lines) = (Vec::new(), Vec::new());
    let (mut began, mut answers, mut warm, mut calls) = (Instant::now(), 0u64, false, 0u64);
    let mut turned_away = 0;
    loop {
        let now = driver.turn().await?;
        driver.core.take_happenings(&mut happenings);
        for happening in happenings.drain(..) {
            match happening {
                Happening::Queued { call, .. } => {
                    answers += 1;
                    driver.core.caller_hangs_up(now, call);
                }
                Happening::Message { .. } | Happening::Defaulted { .. } => turned_away += 1,
                _ => {}
            }
        }
        while driver.core.live_calls() < IN_FLIGHT {
            calls += 1;
            driver.core.call_arrives(now, new_call(&words, calls, now));
        }
        driver.flush(now);
        driver.core.take_record(&mut lines);
        for line in lines.drain(..) {
            if let Entry::Answer { us, .. } = line.entry {
                latency.saturating_record(us.max(1));
            }
        }
        if !warm && began.elapsed() > WARM_UP {
            (began, answers, warm) = (Instant::now(), 0, true);
            latency.reset();
        }
        if warm && began.elapsed() > span {
            break;
        }
        driver.wait(Some(now + 10 * MILLISECOND)).await;
    }
    let each_second = answers as f64 / began.elapsed().as_secs_f64();
    drop(links);
    Ok(Rate {
        each_second,
        p50_us: latency.value_at_quantile(0.5),
        p99_us: latency.value_at_quantile(0.99),
        turned_away,
    })
}

/// A caller of their own each time: nobody is refused for calling too often.
fn new_call(words: &Words, number: u64, now: u64) -> NewCall {
    let caller = (number % 90_000_000) as u32;
    NewCall {
        caller,
        intended: now,
        leg: Leg::New,
        line: "8005550101".into(),
        number: Some(number_of(caller)),
        language: "en".into(),
        utterance: words
            .pick("REF_DELAY", "en", number)
            .unwrap_or_default()
            .to_owned(),
        digits: String::new(),
        authenticated: false,
        correlator: bytes::Bytes::new(),
        topic: "REF_DELAY".into(),
    }
}

#[expect(clippy::print_stdout, reason = "what the command is for")]
fn say(text: &str) {
    println!("{text}");
}
