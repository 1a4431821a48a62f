//! One switch event to inputs of routing.
//!
//! The contact: what the correlator data names; without them, what this gateway remembers
//! of the call; for calls that end or are in a snapshot, what the first cross reference
//! names. The pool: the correlator's; else the line's; for a call of an unknown line the
//! first pool of policy, because a call must be counted somewhere.
//!
//! An agent's pool: the one the log-on names; else the one remembered from it; else the one
//! of policy that lists the agent; else the first of policy.

use std::sync::Arc;

use bytes::Bytes;
use domain::id::FieldError;
use domain::{ContactId, TimeMs};
use proto::convert::cti as check;
use proto::cti::v1::{
    self as cti, AgentEvent, CallCleared, Device, SnapshotCall, SwitchEvent, snapshot,
    switch_event::Body,
};
use proto::routing::v1::{self as wire, input};

use super::bookings::Booking;
use super::dialogues::primary_tag;
use super::{Core, Moment, Source};

/// What an event turns into.
#[derive(Debug)]
pub(super) enum Mapped {
    /// Inputs, each for a pool.
    Reports(Vec<(usize, wire::Input)>),
    /// A booking or a cancellation, for callback.
    Booking(Box<Booking>),
    /// Nothing that the mesh keeps.
    Nothing,
}

/// The contact an event is about.
#[derive(Clone, Copy, Debug)]
struct Place {
    contact: ContactId,
    pool: usize,
    blocked: u32,
}

impl Core {
    /// Maps a checked event.
    ///
    /// # Errors
    /// The event names a call, line or pool that cannot be placed.
    pub(super) fn map_event(
        &mut self,
        now: Moment,
        source: u64,
        event: SwitchEvent,
    ) -> Result<Mapped, FieldError> {
        let Some(source) = self
            .sources
            .get(&source)
            .map(|state| Arc::clone(&state.source))
        else {
            return Ok(Mapped::Nothing);
        };
        let at = now.wall.minus(event.age_ms.into());
        match event.body.clone() {
            None => Ok(Mapped::Nothing),
            Some(Body::Agent(agent)) => {
                let pool = self.agent_pool(&agent)?;
                let body = input::Body::Agent(agent_changed(agent));
                Ok(one(pool, self.input(&source, None, pool, at, "", body)))
            }
            Some(Body::Snapshot(part)) => self.map_snapshot(&source, at, &event, part.body),
            Some(Body::Cleared(cleared)) => self.map_cleared(&source, at, &event, &cleared),
            Some(Body::OfferAnswered(offer)) => self.map_offer(now, &source, at, &event, offer),
            Some(Body::CallbackCancelled(cancelled)) => {
                let place = self.place_of(&source, &event, "", None)?;
                self.cancellation(now, &source, event.event_seq, place.contact, &cancelled)
            }
            Some(body) => {
                let place = self.place_of(&source, &event, "", None)?;
                let body = plain_body(body);
                Ok(one(
                    place.pool,
                    self.input(&source, Some(place.contact), place.pool, at, "", body),
                ))
            }
        }
    }

    fn place_of(
        &self,
        source: &Source,
        event: &SwitchEvent,
        cross_ref: &str,
        line: Option<&Device>,
    ) -> Result<Place, FieldError> {
        if let Some(found) = check::correlator("correlator_data", &event.correlator_data)? {
            let pool = self.pool_named("correlator_data", &found.pool)?;
            return Ok(Place {
                contact: found.contact,
                pool,
                blocked: found.blocked,
            });
        }
        let call_id = event.call.as_ref().map_or("", |call| &call.call_id);
        let line_pool = line
            .and_then(|device| self.line(&device.id))
            .map(|(_, pool)| pool);
        if !cross_ref.is_empty() {
            let contact = self.keys.contact(&source.switch, source.boot, cross_ref);
            return Ok(Place {
                contact,
                pool: line_pool.unwrap_or(0),
                blocked: 0,
            });
        }
        if let Some((contact, pool)) = self.calls.get(&(source.number, call_id.to_owned())) {
            return Ok(Place {
                contact: *contact,
                pool: *pool,
                blocked: 0,
            });
        }
        if line.is_some() {
            // Neither answered nor ever asked for, but it must be counted: named by the call.
            let contact =
                self.keys
                    .contact(&source.switch, source.boot, &format!("call:{call_id}"));
            return Ok(Place {
                contact,
                pool: line_pool.unwrap_or(0),
                blocked: 0,
            });
        }
        Err(FieldError::new(
            "correlator_data",
            "required for a call that this node did not route",
            "absent",
        ))
    }

    fn agent_pool(&mut self, agent: &AgentEvent) -> Result<usize, FieldError> {
        if !agent.pool.is_empty() {
            let pool = self.pool_named("agent.pool", &agent.pool)?;
            self.agent_pools.insert(agent.agent_id.clone(), pool);
            return Ok(pool);
        }
        let known = self
            .agent_pools
            .get(&agent.agent_id)
            .or_else(|| self.policy_agents.get(&agent.agent_id));
        Ok(known.copied().unwrap_or(0))
    }

    fn map_cleared(
        &self,
        source: &Source,
        at: TimeMs,
        event: &SwitchEvent,
        cleared: &CallCleared,
    ) -> Result<Mapped, FieldError> {
        let absent = Device::default();
        let line = cleared.current_route.as_ref().unwrap_or(&absent);
        let place = self.place_of(source, event, &cleared.cross_ref_id, Some(line))?;
        let body = input::Body::Cleared(wire::Cleared {
            cause: number(cleared.cause),
            agent_id: cleared.agent_id.clone(),
            call_id: event
                .call
                .as_ref()
                .map(|call| call.call_id.clone())
                .unwrap_or_default(),
            routed_by: number(cleared.routed_by),
            blocked: place.blocked,
            line: self
                .line(&line.id)
                .map(|(name, _)| name)
                .unwrap_or_default(),
            arrived_at_ms: at.minus(cleared.arrived_ago_ms).0,
            caller: self.keys.caller_bytes(cleared.calling_device.as_ref()),
            language: primary_tag(&cleared.language),
            channel: number(cleared.channel),
        });
        Ok(one(
            place.pool,
            self.input(source, Some(place.contact), place.pool, at, "", body),
        ))
    }

    fn map_offer(
        &mut self,
        now: Moment,
        source: &Arc<Source>,
        at: TimeMs,
        event: &SwitchEvent,
        offer: cti::OfferAnswered,
    ) -> Result<Mapped, FieldError> {
        let place = self.place_of(source, event, "", None)?;
        if offer.offer_id == 0 {
            let body = input::Body::OfferDeclined(wire::OfferDeclined {});
            return Ok(one(
                place.pool,
                self.input(source, Some(place.contact), place.pool, at, "", body),
            ));
        }
        self.booking(now, source, event, place.contact, place.pool, offer)
    }

    fn map_snapshot(
        &mut self,
        source: &Source,
        at: TimeMs,
        event: &SwitchEvent,
        part: Option<snapshot::Body>,
    ) -> Result<Mapped, FieldError> {
        let wrap = |body| input::Body::Snapshot(wire::SnapshotPart { body: Some(body) });
        let everywhere = |core: &Self, body: wire::snapshot_part::Body| {
            let each = |pool| {
                (
                    pool,
                    core.input(source, None, pool, at, "", wrap(body.clone())),
                )
            };
            Mapped::Reports((0..core.pools.len()).map(each).collect())
        };
        match part {
            None => Ok(Mapped::Nothing),
            Some(snapshot::Body::Begin(_)) => Ok(everywhere(
                self,
                wire::snapshot_part::Body::Begin(wire::SnapshotBegin {}),
            )),
            Some(snapshot::Body::End(_)) => Ok(everywhere(
                self,
                wire::snapshot_part::Body::End(wire::SnapshotEnd {}),
            )),
            Some(snapshot::Body::Agent(agent)) => {
                let pool = self.agent_pool(&agent)?;
                let body = wrap(wire::snapshot_part::Body::Agent(agent_changed(agent)));
                Ok(one(pool, self.input(source, None, pool, at, "", body)))
            }
            Some(snapshot::Body::Call(call)) => self.map_snapshot_call(source, at, event, &call),
        }
    }

    fn map_snapshot_call(
        &self,
        source: &Source,
        at: TimeMs,
        event: &SwitchEvent,
        call: &SnapshotCall,
    ) -> Result<Mapped, FieldError> {
        let call_id = check::call(event.call.as_ref())?.call_id.clone();
        let absent = Device::default();
        let line = call.current_route.as_ref().unwrap_or(&absent);
        let place = self.place_of(source, event, &call.cross_ref_id, Some(line))?;
        let body = wire::snapshot_part::Body::Call(wire::SnapshotCall {
            place: number(call.place),
            agent_id: call.agent_id.clone(),
            call_id,
            arrived_at_ms: at.minus(call.arrived_ago_ms).0,
            line: self
                .line(&line.id)
                .map(|(name, _)| name)
                .unwrap_or_default(),
            caller: self.keys.caller_bytes(call.calling_device.as_ref()),
            language: primary_tag(&call.language),
        });
        let body = input::Body::Snapshot(wire::SnapshotPart { body: Some(body) });
        Ok(one(
            place.pool,
            self.input(source, Some(place.contact), place.pool, at, "", body),
        ))
    }
}

fn one(pool: usize, input: wire::Input) -> Mapped {
    Mapped::Reports(vec![(pool, input)])
}

/// An enumeration as the number it came with; negative ones, which no version defines, as 0.
fn number(value: i32) -> u32 {
    u32::try_from(value).unwrap_or(0)
}

fn agent_changed(agent: AgentEvent) -> wire::AgentChanged {
    let skills = agent.skills.into_iter().map(|skill| wire::AgentSkill {
        skill: skill.skill,
        proficiency: skill.proficiency,
    });
    wire::AgentChanged {
        agent_id: agent.agent_id,
        device: agent.device.map(|device| device.id).unwrap_or_default(),
        state: number(agent.state),
        skills: skills.collect(),
        languages: agent
            .languages
            .iter()
            .map(|language| primary_tag(language))
            .collect(),
        capacity: agent.capacity,
        reason: agent.reason,
    }
}

/// Events that map one to one.
fn plain_body(body: Body) -> input::Body {
    match body {
        Body::Delivered(body) => input::Body::Delivered(wire::Delivered {
            agent_id: body.agent_id,
        }),
        Body::Established(body) => input::Body::Established(wire::Established {
            agent_id: body.agent_id,
        }),
        Body::Failed(body) => input::Body::Failed(wire::Failed {
            agent_id: body.agent_id,
            cause: number(body.cause),
        }),
        Body::Transferred(body) => input::Body::Moved(wire::Moved {
            from_agent_id: body.from_agent_id,
            to_agent_id: body.to_agent_id,
        }),
        Body::WrapUp(body) => input::Body::WrappedUp(wire::WrappedUp {
            agent_id: body.agent_id,
            disposition: number(body.disposition),
            topic: body.topic,
        }),
        Body::Survey(body) => input::Body::Survey(wire::Survey {
            calls_about_this: body.calls_about_this,
            all_answered: number(body.all_answered),
            no_more_calls: number(body.no_more_calls),
        }),
        Body::TransferRequested(body) => input::Body::Transfer(wire::Transfer {
            from_agent_id: body.from_agent_id,
            topic: body.topic,
            warm: body.warm,
            authenticated: body.authenticated,
        }),
        // The others are mapped where they are told apart; a queue is all that is left.
        _ => input::Body::AtQueue(wire::AtQueue {}),
    }
}

/// 16 bytes of a contact.
pub(super) fn contact_bytes(contact: ContactId) -> Bytes {
    Bytes::copy_from_slice(&contact.to_bytes())
}
