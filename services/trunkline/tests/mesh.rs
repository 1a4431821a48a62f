//! The mesh as a switch meets it: the real binary (`trunkline dev`), real Redis, the
//! contract spoken by hand. Each test has a mesh of its own.

mod support;

use bytes::Bytes;
use proto::cti::v1::{
    AgentState, CallCleared, Cause, Delivered, Device, Disposition, Established, OfferAnswered,
    RouteEndError, RoutedBy, WrapUp, command, deflect_call, mesh_dialogue_message, route_select,
    switch_event,
};
use support::{Switch, Trunkline, agent_event, get, request};

/// The main line of the worked policy, and a skill its operator queue needs.
fn line_and_operator_skill() -> (String, String) {
    let policy = domain::policy::Policy::worked_example();
    let topic = &policy.topics[domain::policy::OPERATOR_TOPIC];
    let queue = policy.queue(topic.queue);
    let line = policy
        .lines
        .values()
        .find(|line| line.pool == queue.pool)
        .expect("a line of the operator's pool");
    (line.numbers[0].clone(), queue.skill.clone())
}

fn cleared(number: &str, cross_ref: &str, agent: &str, by: RoutedBy) -> switch_event::Body {
    switch_event::Body::Cleared(CallCleared {
        cause: Cause::NormalClearing.into(),
        agent_id: agent.to_owned(),
        current_route: Some(Device {
            id: number.to_owned(),
        }),
        cross_ref_id: cross_ref.to_owned(),
        arrived_ago_ms: 10,
        routed_by: by.into(),
        ..Default::default()
    })
}

async fn measure(mesh: &Trunkline, name: &str) -> anyhow::Result<f64> {
    use proto::outcomes::v1::GetMeasuresRequest;
    use proto::outcomes::v1::outcomes_service_client::OutcomesServiceClient;
    let address = format!("http://{}", mesh.address("outcomes"));
    let mut client = OutcomesServiceClient::connect(address).await?;
    let response = client
        .get_measures(GetMeasuresRequest::default())
        .await?
        .into_inner();
    Ok(response
        .rows
        .iter()
        .flat_map(|row| &row.measures)
        .find(|measure| measure.name == name)
        .map_or(0.0, |measure| measure.value))
}

async fn wait_for_measure(mesh: &Trunkline, name: &str, expected: f64) -> anyhow::Result<()> {
    runtime::local::wait_until(&format!("{name} is {expected}"), support::STEP, || async {
        measure(mesh, name)
            .await
            .is_ok_and(|value| (value - expected).abs() < 1e-9)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_goes_to_the_ready_agent_and_its_outcome_is_counted() -> anyhow::Result<()> {
    let mesh = Trunkline::dev(&[]).await?;
    let mut switch = Switch::attach(&mesh.address("gateway"), "test-switch", 1).await?;
    let (number, skill) = line_and_operator_skill();
    switch.log_on("agent-1", &[&skill]).await?;

    switch.ask("call-1", &number, "representative").await?;
    let mesh_dialogue_message::Body::Select(select) = switch.answer().await? else {
        panic!("not a selection")
    };
    assert_eq!(select.cross_ref_id, "call-1");
    let Some(route_select::Treatment::Agent(agent)) = &select.treatment else {
        panic!("not an agent: {:?}", select.treatment)
    };
    assert_eq!(agent.agent_id, "agent-1");
    let correlator = select.correlator_data.clone();
    assert!(!correlator.is_empty());

    let call = Some("call-1");
    let agent_id = "agent-1".to_owned();
    let rings = switch_event::Body::Delivered(Delivered {
        agent_id: agent_id.clone(),
    });
    switch.report(call, &correlator, rings).await?;
    let talks = switch_event::Body::Established(Established {
        agent_id: agent_id.clone(),
    });
    switch.report(call, &correlator, talks).await?;
    switch
        .report(
            call,
            &correlator,
            cleared(&number, "call-1", "agent-1", RoutedBy::Mesh),
        )
        .await?;
    let wrap_up = switch_event::Body::WrapUp(WrapUp {
        agent_id,
        disposition: Disposition::Resolved.into(),
        topic: String::new(),
    });
    let last = switch.report(call, &correlator, wrap_up).await?;
    assert_eq!(switch.held(last).await?, []);

    wait_for_measure(&mesh, "offered", 1.0).await?;
    wait_for_measure(&mesh, "answered", 1.0).await?;
    let (status, metrics) = get(&mesh.admin("outcomes"), "/metrics").await?;
    assert_eq!(status, 200);
    assert!(metrics.contains("trunkline_"), "{metrics}");
    assert!(mesh.terminate().await?.success());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_call_is_deflected_to_the_agent_who_frees() -> anyhow::Result<()> {
    let mesh = Trunkline::dev(&[]).await?;
    let mut switch = Switch::attach(&mesh.address("gateway"), "test-switch", 1).await?;
    let (number, skill) = line_and_operator_skill();
    switch.ask("call-1", &number, "").await?;
    let mesh_dialogue_message::Body::Select(select) = switch.answer().await? else {
        panic!("not a selection")
    };
    let Some(route_select::Treatment::Queue(queue)) = &select.treatment else {
        panic!("not a queue: {:?}", select.treatment)
    };
    assert_eq!(queue.position, 1);

    switch.log_on("agent-1", &[&skill]).await?;
    let deflect = switch.command().await?;
    assert_eq!(
        deflect.call.as_ref().map(|call| call.call_id.as_str()),
        Some("call-1")
    );
    let Some(command::Body::Deflect(body)) = &deflect.body else {
        panic!("not a deflect")
    };
    let Some(deflect_call::Treatment::Agent(agent)) = &body.treatment else {
        panic!("not to an agent")
    };
    assert_eq!(agent.agent_id, "agent-1");
    switch.done(&deflect).await?;

    // The agent's phone rings out: not ready for them, back in line for the caller.
    let failed = switch_event::Body::Failed(proto::cti::v1::Failed {
        agent_id: "agent-1".to_owned(),
        cause: Cause::CallNotAnswered.into(),
    });
    switch
        .report(Some("call-1"), &select.correlator_data, failed)
        .await?;
    let (mut set_not_ready, mut back_in_line) = (false, false);
    while !(set_not_ready && back_in_line) {
        match switch.command().await?.body {
            Some(command::Body::SetAgentState(set)) => {
                assert_eq!(set.agent_id, "agent-1");
                assert_eq!(set.state, i32::from(AgentState::NotReady));
                set_not_ready = true;
            }
            Some(command::Body::Deflect(body)) => {
                assert!(matches!(
                    body.treatment,
                    Some(deflect_call::Treatment::Queue(_))
                ));
                back_in_line = true;
            }
            other => panic!("unexpected command {other:?}"),
        }
    }
    switch.log_on("agent-2", &[&skill]).await?;
    let again = loop {
        let command = switch.command().await?;
        if let Some(command::Body::Deflect(body)) = command.body {
            break body;
        }
    };
    let Some(deflect_call::Treatment::Agent(agent)) = again.treatment else {
        panic!("not to an agent")
    };
    assert_eq!(agent.agent_id, "agent-2");
    assert!(mesh.terminate().await?.success());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_is_refused_on_its_own_dialogue_and_the_stream_goes_on() -> anyhow::Result<()> {
    let mesh = Trunkline::dev(&[]).await?;
    let mut switch = Switch::attach(&mesh.address("gateway"), "test-switch", 1).await?;
    let (number, skill) = line_and_operator_skill();
    switch.log_on("agent-1", &[&skill]).await?;

    let mut bad = request("call-bad", &number, "");
    bad.reply_timeout_ms = 7;
    switch
        .say(proto::cti::v1::switch_dialogue_message::Body::Request(bad))
        .await?;
    let mut oversized = request("call-big", &number, "");
    oversized.utterance = "x".repeat(64 * 1024);
    switch
        .say(proto::cti::v1::switch_dialogue_message::Body::Request(
            oversized,
        ))
        .await?;
    switch.ask("call-good", &number, "operator please").await?;

    let (mut refused, mut ended, mut selected) = (Vec::new(), Vec::new(), Vec::new());
    while selected.is_empty() || ended.len() + selected.len() < 3 {
        match switch.answer().await? {
            mesh_dialogue_message::Body::Refusal(refusal) => refused.push(refusal),
            mesh_dialogue_message::Body::End(end) => {
                assert_eq!(end.error, i32::from(RouteEndError::InvalidRequest));
                ended.push(end.cross_ref_id);
            }
            mesh_dialogue_message::Body::Select(select) => selected.push(select.cross_ref_id),
            other => panic!("unexpected {other:?}"),
        }
    }
    let timeout = refused
        .iter()
        .find(|refusal| refusal.about == "call-bad")
        .expect("refused");
    assert!(timeout.field.contains("reply_timeout_ms"), "{timeout:?}");
    assert!(timeout.limit.contains("5000"), "{timeout:?}");
    assert_eq!(timeout.value, "7");
    assert!(selected.contains(&"call-good".to_owned()), "{selected:?}");
    assert!(ended.contains(&"call-bad".to_owned()), "{ended:?}");

    let ghost = agent_event("agent-ghost", AgentState::Ready, &[]);
    let mut ghost_wrap = WrapUp {
        agent_id: ghost.agent_id,
        ..Default::default()
    };
    ghost_wrap.disposition = Disposition::Resolved.into();
    let sequence = switch
        .report(
            Some("call-unknown"),
            &Bytes::new(),
            switch_event::Body::WrapUp(ghost_wrap),
        )
        .await?;
    let refusals = switch.held(sequence).await?;
    assert_eq!(refusals.len(), 1, "{refusals:?}");
    assert!(mesh.terminate().await?.success());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_the_mesh_never_saw_is_counted_from_its_end() -> anyhow::Result<()> {
    let mesh = Trunkline::dev(&[]).await?;
    let mut switch = Switch::attach(&mesh.address("gateway"), "test-switch", 1).await?;
    let (number, _) = line_and_operator_skill();
    let body = cleared(&number, "call-lost", "", RoutedBy::DefaultNoLink);
    let sequence = switch
        .report(Some("call-lost"), &Bytes::new(), body)
        .await?;
    assert_eq!(switch.held(sequence).await?, []);
    wait_for_measure(&mesh, "offered", 1.0).await?;
    wait_for_measure(&mesh, "default_routed", 1.0).await?;
    assert!(mesh.terminate().await?.success());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_accepted_virtual_hold_is_announced_and_dialled_when_its_turn_comes()
-> anyhow::Result<()> {
    let mesh = Trunkline::dev(&[]).await?;
    let mut switch = Switch::attach(&mesh.address("gateway"), "test-switch", 1).await?;
    let policy = domain::policy::Policy::worked_example();
    let (number, _) = line_and_operator_skill();
    // A topic with callback, asked for in the words of the taxonomy.
    let topic = policy
        .topics
        .get("COL_PAYPLAN")
        .filter(|topic| topic.callback);
    let topic = topic.expect("payment plans take callbacks in the worked policy");
    let skill = policy.queue(topic.queue).skill.clone();

    let mut offered = None;
    // Enough people in line that a callback is worth offering.
    for index in 0..60 {
        let cross_ref = format!("call-{index}");
        switch
            .ask(
                &cross_ref,
                &number,
                "I want to set up a payment plan for what I owe",
            )
            .await?;
        let mesh_dialogue_message::Body::Select(select) = switch.answer().await? else {
            panic!("not a selection")
        };
        if let Some(route_select::Treatment::Queue(queue)) = &select.treatment
            && let Some(offer) = queue.offers.first()
        {
            offered = Some((cross_ref, offer.offer_id, select.correlator_data.clone()));
            break;
        }
    }
    let (cross_ref, offer_id, correlator) = offered.expect("a callback is offered to a long line");
    let accepted = switch_event::Body::OfferAnswered(OfferAnswered {
        offer_id,
        callback_device: Some(Device {
            id: "+12025550147".to_owned(),
        }),
        ..Default::default()
    });
    switch
        .report(Some(&cross_ref), &correlator, accepted)
        .await?;
    let booked = loop {
        let command = switch.command().await?;
        if let Some(command::Body::AnnounceBooking(booked)) = command.body {
            break booked;
        }
    };
    assert!(!booked.failed);
    assert_eq!(booked.code.len(), 6);
    let gone = cleared(&number, &cross_ref, "", RoutedBy::Mesh);
    switch.report(Some(&cross_ref), &correlator, gone).await?;

    // Agents come: the live callers ahead are served, then the callback's turn is there.
    let call_number = {
        let mut agents = 0;
        loop {
            agents += 1;
            switch.log_on(&format!("agent-{agents}"), &[&skill]).await?;
            let mut dialled = None;
            while let Ok(command) = switch.commands.try_recv() {
                if let Some(command::Body::MakeCall(call)) = command.body {
                    dialled = Some(call);
                }
            }
            if let Some(call) = dialled {
                break call;
            }
            if agents == 80 {
                let command = switch.command().await?;
                if let Some(command::Body::MakeCall(call)) = command.body {
                    break call;
                }
                agents -= 1;
            }
        }
    };
    assert_eq!(call_number.callback_code, booked.code);
    assert_eq!(
        call_number
            .called_device
            .map(|device| device.id.trim_start_matches('+').to_owned()),
        Some("12025550147".to_owned())
    );
    assert!(mesh.terminate().await?.success());
    Ok(())
}
