//! What the whole-mesh tests share: the real binary as a child, a small switch that
//! speaks the contract by hand (the load harness's switch is tested elsewhere), and an
//! HTTP GET for admin ports.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file uses its own part"
)]

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use proto::cti::v1::call_control_service_client::CallControlServiceClient;
use proto::cti::v1::monitoring_service_client::MonitoringServiceClient;
use proto::cti::v1::routing_dialogue_service_client::RoutingDialogueServiceClient;
use proto::cti::v1::{
    AgentEvent, AgentSkill, AgentState, CallRef, Command, CommandResult, CommandsRequest, Device,
    DialoguesRequest, EventsRequest, Hello, MeshDialogueMessage, RouteRequest, SwitchCapabilities,
    SwitchDialogueMessage, SwitchEvent, mesh_dialogue_message, switch_dialogue_message,
    switch_event,
};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, Command as Process};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// Longest that any one step of a test may take on a busy machine.
pub const STEP: Duration = Duration::from_secs(30);

/// A child process of the real binary.
pub struct Trunkline {
    pub child: Child,
    /// The line printed when ready (`dev` only).
    pub ready: Value,
}

/// Starts the binary with `arguments`.
pub fn spawn(arguments: &[&str]) -> anyhow::Result<Child> {
    Process::new(env!("CARGO_BIN_EXE_trunkline"))
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .spawn()
        .context("starting the trunkline binary")
}

impl Trunkline {
    /// Starts `trunkline dev` and waits until it says that it is ready.
    pub async fn dev(arguments: &[&str]) -> anyhow::Result<Self> {
        Self::dev_with(&[], arguments).await
    }

    /// As [`Trunkline::dev`], with options of the whole process before the command.
    pub async fn dev_with(process: &[&str], arguments: &[&str]) -> anyhow::Result<Self> {
        let mut all = vec!["--log", "warn"];
        all.extend_from_slice(process);
        all.push("dev");
        all.extend_from_slice(arguments);
        let mut child = spawn(&all)?;
        let stdout = child.stdout.take().context("stdout is piped")?;
        let mut lines = BufReader::new(stdout).lines();
        let ready = tokio::time::timeout(Duration::from_secs(90), async {
            while let Some(line) = lines.next_line().await? {
                if let Ok(value) = serde_json::from_str::<Value>(&line)
                    && value["event"] == "ready"
                {
                    return Ok(value);
                }
            }
            bail!("trunkline dev ended before it was ready")
        })
        .await
        .context("trunkline dev was not ready in time")??;
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Ok(Self { child, ready })
    }

    pub fn address(&self, role: &str) -> String {
        self.ready[role]
            .as_str()
            .expect("the ready line names every role")
            .to_owned()
    }

    pub fn admin(&self, role: &str) -> String {
        self.ready["admin"][role]
            .as_str()
            .expect("the ready line names every admin port")
            .to_owned()
    }

    /// SIGTERM, and the exit status.
    pub async fn terminate(mut self) -> anyhow::Result<std::process::ExitStatus> {
        terminate(&mut self.child).await
    }
}

/// SIGTERM, and the exit status.
pub async fn terminate(child: &mut Child) -> anyhow::Result<std::process::ExitStatus> {
    let pid = child.id().context("still running")?;
    Process::new("kill")
        .args(["-TERM", &pid.to_string()])
        .status()
        .await?;
    Ok(tokio::time::timeout(STEP, child.wait())
        .await
        .context("did not end after SIGTERM")??)
}

/// The body of `GET path` and its status code.
pub async fn get(address: &str, path: &str) -> anyhow::Result<(u16, String)> {
    let mut stream = tokio::net::TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    let status = text
        .split_whitespace()
        .nth(1)
        .context("a status line")?
        .parse()?;
    Ok((
        status,
        text.split_once("\r\n\r\n")
            .map_or(String::new(), |(_, body)| body.to_owned()),
    ))
}

/// A switch with its three streams.
pub struct Switch {
    pub switch_id: String,
    pub boot_id: u64,
    link_seq: u64,
    event_seq: u64,
    dialogues: mpsc::Sender<DialoguesRequest>,
    events: mpsc::Sender<EventsRequest>,
    results: mpsc::Sender<CommandsRequest>,
    pub answers: mpsc::Receiver<MeshDialogueMessage>,
    pub acknowledged: mpsc::Receiver<proto::cti::v1::EventsResponse>,
    pub commands: mpsc::Receiver<Command>,
}

impl Switch {
    /// Attaches to a gateway.
    pub async fn attach(gateway: &str, switch_id: &str, boot_id: u64) -> anyhow::Result<Self> {
        let hello = Hello {
            switch_id: switch_id.to_owned(),
            boot_id,
            adapter_id: "test".to_owned(),
            capabilities: Some(SwitchCapabilities {
                snapshot: true,
                make_call: true,
                deflect_call: true,
                tick_ms: 1,
                ..Default::default()
            }),
            ..Default::default()
        };
        let channel = tonic::transport::Endpoint::from_shared(format!("http://{gateway}"))?
            .connect()
            .await?;

        let (dialogues, outgoing) = mpsc::channel(64);
        dialogues
            .send(DialoguesRequest {
                link_seq: 1,
                hello: Some(hello.clone()),
                messages: Vec::new(),
            })
            .await?;
        let mut incoming = RoutingDialogueServiceClient::new(channel.clone())
            .dialogues(ReceiverStream::new(outgoing))
            .await?
            .into_inner();
        let (answer, answers) = mpsc::channel(1_024);
        tokio::spawn(async move {
            while let Ok(Some(frame)) = incoming.message().await {
                for message in frame.messages {
                    if matches!(message.body, Some(mesh_dialogue_message::Body::Status(_))) {
                        continue;
                    }
                    if answer.send(message).await.is_err() {
                        return;
                    }
                }
            }
        });

        let (events, outgoing) = mpsc::channel(64);
        events
            .send(EventsRequest {
                hello: Some(hello.clone()),
                events: Vec::new(),
            })
            .await?;
        let mut incoming = MonitoringServiceClient::new(channel.clone())
            .events(ReceiverStream::new(outgoing))
            .await?
            .into_inner();
        let (acknowledge, acknowledged) = mpsc::channel(1_024);
        tokio::spawn(async move {
            while let Ok(Some(frame)) = incoming.message().await {
                if acknowledge.send(frame).await.is_err() {
                    return;
                }
            }
        });

        let (results, outgoing) = mpsc::channel(64);
        results
            .send(CommandsRequest {
                hello: Some(hello),
                results: Vec::new(),
            })
            .await?;
        let mut incoming = CallControlServiceClient::new(channel)
            .commands(ReceiverStream::new(outgoing))
            .await?
            .into_inner();
        let (command, commands) = mpsc::channel(1_024);
        tokio::spawn(async move {
            while let Ok(Some(frame)) = incoming.message().await {
                for one in frame.commands {
                    if command.send(one).await.is_err() {
                        return;
                    }
                }
            }
        });
        Ok(Self {
            switch_id: switch_id.to_owned(),
            boot_id,
            link_seq: 1,
            event_seq: 0,
            dialogues,
            events,
            results,
            answers,
            acknowledged,
            commands,
        })
    }

    /// Sends one dialogue message.
    pub async fn say(&mut self, body: switch_dialogue_message::Body) -> anyhow::Result<()> {
        self.link_seq += 1;
        let messages = vec![SwitchDialogueMessage { body: Some(body) }];
        self.dialogues
            .send(DialoguesRequest {
                link_seq: self.link_seq,
                hello: None,
                messages,
            })
            .await
            .context("the dialogue stream is gone")
    }

    /// Asks who takes a call on `number`; the call id is the cross reference.
    pub async fn ask(
        &mut self,
        cross_ref: &str,
        number: &str,
        utterance: &str,
    ) -> anyhow::Result<()> {
        self.say(switch_dialogue_message::Body::Request(request(
            cross_ref, number, utterance,
        )))
        .await
    }

    /// The next answer.
    pub async fn answer(&mut self) -> anyhow::Result<mesh_dialogue_message::Body> {
        let message = tokio::time::timeout(STEP, self.answers.recv())
            .await
            .context("no answer in time")?
            .context("the dialogue stream ended")?;
        message.body.context("an empty message")
    }

    /// The next command.
    pub async fn command(&mut self) -> anyhow::Result<Command> {
        tokio::time::timeout(STEP, self.commands.recv())
            .await
            .context("no command in time")?
            .context("the command stream ended")
    }

    /// Says that a command was carried out.
    pub async fn done(&mut self, command: &Command) -> anyhow::Result<()> {
        let result = CommandResult {
            invoke_id: command.invoke_id,
            correlator_data: command.correlator_data.clone(),
            ..Default::default()
        };
        self.results
            .send(CommandsRequest {
                hello: None,
                results: vec![result],
            })
            .await
            .context("the command stream is gone")
    }

    /// Reports an event and gives its sequence.
    pub async fn report(
        &mut self,
        call: Option<&str>,
        correlator: &Bytes,
        body: switch_event::Body,
    ) -> anyhow::Result<u64> {
        self.event_seq += 1;
        let event = SwitchEvent {
            event_seq: self.event_seq,
            age_ms: 0,
            call: call.map(call_ref),
            correlator_data: correlator.clone(),
            body: Some(body),
        };
        self.events
            .send(EventsRequest {
                hello: None,
                events: vec![event],
            })
            .await
            .context("the event stream is gone")?;
        Ok(self.event_seq)
    }

    /// Waits until the mesh holds every event up to `event_seq`; gives the refusals on the way.
    pub async fn held(&mut self, event_seq: u64) -> anyhow::Result<Vec<proto::cti::v1::Refusal>> {
        let mut refusals = Vec::new();
        loop {
            let frame = tokio::time::timeout(STEP, self.acknowledged.recv())
                .await
                .context("no acknowledgement in time")?
                .context("the event stream ended")?;
            refusals.extend(frame.refusals);
            if frame.acknowledged_event_seq >= event_seq {
                return Ok(refusals);
            }
        }
    }

    /// Logs an agent on and sets it ready.
    pub async fn log_on(&mut self, agent: &str, skills: &[&str]) -> anyhow::Result<()> {
        for state in [AgentState::NotReady, AgentState::Ready] {
            let event = agent_event(agent, state, skills);
            let sequence = self
                .report(None, &Bytes::new(), switch_event::Body::Agent(event))
                .await?;
            let refusals = self.held(sequence).await?;
            anyhow::ensure!(refusals.is_empty(), "log-on refused: {refusals:?}");
        }
        Ok(())
    }
}

/// An agent event.
pub fn agent_event(agent: &str, state: AgentState, skills: &[&str]) -> AgentEvent {
    AgentEvent {
        agent_id: agent.to_owned(),
        device: Some(Device {
            id: format!("sip:{agent}"),
        }),
        state: state.into(),
        skills: skills
            .iter()
            .map(|skill| AgentSkill {
                skill: (*skill).to_owned(),
                proficiency: 9,
            })
            .collect(),
        languages: vec!["en".to_owned(), "es".to_owned(), "fr".to_owned()],
        capacity: 1,
        ..Default::default()
    }
}

/// A call by its id.
pub fn call_ref(call: &str) -> CallRef {
    CallRef {
        call_id: call.to_owned(),
        ..Default::default()
    }
}

/// A route request; the call id is the cross reference.
pub fn request(cross_ref: &str, number: &str, utterance: &str) -> RouteRequest {
    RouteRequest {
        cross_ref_id: cross_ref.to_owned(),
        call: Some(call_ref(cross_ref)),
        current_route: Some(Device {
            id: number.to_owned(),
        }),
        calling_device: Some(Device {
            id: "+12025550147".to_owned(),
        }),
        reply_timeout_ms: 5_000,
        language: "en".to_owned(),
        utterance: utterance.to_owned(),
        ..Default::default()
    }
}
