//! On the way to the owner of a pool.
//!
//! Two kinds of input travel: requests of dialogues, which have a deadline and are given
//! up when it passes, and reports (what the switch told us), which are kept in order and
//! sent again until routing says that they are durable. Reports of a pool form one line;
//! when the owner changes or its link is lost the line starts again from its head, so a
//! retry never overtakes a later event of the same contact. A resent report may be known
//! already: routing is idempotent.
//!
//! An owner is whoever announced the pool with the highest epoch and has not answered
//! "not the owner" since.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use domain::ContactId;
use domain::id::FieldError;
use proto::routing::v1::{
    CommandOutcome, Input, LinkRequest, LinkResponse, PeerHello, PeerRole, reply,
};

use super::dialogues::State;
use super::{Core, LinkId, Moment, Outgoing, Role, Source};

/// Inputs in a frame.
const INPUTS_MAX: usize = 512;

/// A pool as this gateway sees it.
#[derive(Debug)]
pub(super) struct Pool {
    pub(super) name: String,
    pub(super) owner: Option<(LinkId, u64)>,
    pub(super) reports: BTreeMap<u64, Report>,
    pub(super) next_report: u64,
    /// Reports from here on have not been sent to the present owner.
    pub(super) cursor: u64,
    /// Dialogues that wait for an owner.
    pub(super) parked: VecDeque<u64>,
}

impl Pool {
    /// A pool without an owner.
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            owner: None,
            reports: BTreeMap::new(),
            next_report: 0,
            cursor: 0,
            parked: VecDeque::new(),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn is_owned(&self) -> bool {
        self.owner.is_some()
    }

    /// Reports that are not acknowledged.
    pub(super) fn waiting(&self) -> usize {
        self.reports.len()
    }
}

/// Where a report comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// A switch's event.
    Event { source: u64, event_seq: u64 },
    /// The gateway itself.
    Gateway,
}

#[derive(Debug)]
pub(super) struct Report {
    pub(super) input: Input,
    pub(super) origin: Origin,
    /// The request under which it was last sent; 0: not sent.
    pub(super) request: u64,
}

/// What a request id stands for.
#[derive(Debug)]
pub(super) enum Asked {
    Dialogue {
        dialogue: u64,
        pool: usize,
        link: LinkId,
    },
    /// A dialogue that was given up: an answer would hold an agent for nobody.
    GivenUp {
        source: Arc<Source>,
        contact: ContactId,
        pool: usize,
        link: LinkId,
        error: i32,
        traceparent: String,
    },
    Report {
        pool: usize,
        report: u64,
        link: LinkId,
    },
}

impl Asked {
    fn link(&self) -> LinkId {
        match self {
            Asked::Dialogue { link, .. }
            | Asked::GivenUp { link, .. }
            | Asked::Report { link, .. } => *link,
        }
    }
}

/// A routing replica.
#[derive(Debug, Default)]
pub(super) struct Peer {
    pub(super) hello: bool,
    pub(super) inputs: Vec<Input>,
    pub(super) outcomes: Vec<CommandOutcome>,
    pub(super) owned: HashMap<usize, u64>,
    /// Pools it has said it does not own, whatever it announced before.
    pub(super) disowned: BTreeSet<usize>,
}

impl Core {
    pub(super) fn routing_up(&mut self, link: LinkId) {
        self.open_link(link, Role::Routing);
        self.routing_peers.insert(
            link,
            Peer {
                hello: true,
                ..Peer::default()
            },
        );
    }

    /// The link is gone: what it was asked is asked elsewhere.
    pub(super) fn routing_down(&mut self, now: Moment, link: LinkId) {
        self.routing_peers.remove(&link);
        let given_up: Vec<u64> = self
            .requests
            .iter()
            .filter(|(_, asked)| asked.link() == link && matches!(asked, Asked::GivenUp { .. }))
            .map(|(request, _)| *request)
            .collect();
        for request in given_up {
            // The answer may have been made and lost with the link.
            if let Some(asked) = self.requests.remove(&request) {
                self.take_back(now, asked);
            }
        }
        for pool in 0..self.pools.len() {
            if self.pools[pool]
                .owner
                .is_some_and(|(owner, _)| owner == link)
            {
                self.choose_owner(pool);
            }
        }
    }

    /// A frame of a replica.
    pub(super) fn routing_frame(&mut self, now: Moment, link: LinkId, frame: LinkResponse) {
        if let Some(ownership) = frame.ownership
            && let Some(peer) = self.routing_peers.get_mut(&link)
        {
            let pools = ownership.pools.iter();
            peer.owned = pools
                .filter_map(|owned| Some((*self.pool_by_name.get(&owned.pool)?, owned.epoch)))
                .collect();
            peer.disowned.clear();
            for pool in 0..self.pools.len() {
                self.choose_owner(pool);
            }
        }
        for reply in frame.replies {
            self.routing_reply(now, link, reply.request_id, reply.body);
        }
        for command in frame.commands {
            self.switch_command(now, command);
        }
    }

    /// Finds the owner again; on a change everything for the pool starts anew.
    fn choose_owner(&mut self, pool: usize) {
        let best = self
            .routing_peers
            .iter()
            .filter(|(_, peer)| !peer.disowned.contains(&pool))
            .filter_map(|(link, peer)| Some((*link, *peer.owned.get(&pool)?)))
            .max_by_key(|(_, epoch)| *epoch);
        if best == self.pools[pool].owner {
            return;
        }
        self.pools[pool].owner = best;
        self.pools[pool].cursor = 0;
        let stale: Vec<u64> = self
            .requests
            .iter()
            .filter_map(|(request, asked)| match asked {
                Asked::Dialogue {
                    pool: asked_pool, ..
                }
                | Asked::Report {
                    pool: asked_pool, ..
                } if *asked_pool == pool => Some(*request),
                _ => None,
            })
            .collect();
        let mut dialogues: Vec<u64> = self.pools[pool].parked.drain(..).collect();
        for request in stale {
            match self.requests.remove(&request) {
                Some(Asked::Dialogue { dialogue, .. }) => dialogues.push(dialogue),
                Some(Asked::Report { report, .. }) => {
                    if let Some(waiting) = self.pools[pool].reports.get_mut(&report) {
                        waiting.request = 0;
                    }
                }
                _ => {}
            }
        }
        // Reports first: they happened before whatever is asked now.
        self.send_reports(pool);
        dialogues.sort_unstable();
        for dialogue in dialogues {
            self.ask_routing(dialogue);
        }
    }

    /// Asks the owner for a dialogue's answer, or waits for an owner.
    pub(super) fn ask_routing(&mut self, number: u64) {
        let Some(dialogue) = self.dialogues.get(&number) else {
            return;
        };
        if !dialogue.state.is_active() {
            return;
        }
        let pool = dialogue.pool;
        let owner = self.pools[pool].owner;
        let request = self.number();
        let Some((link, _)) = owner else {
            if let Some(dialogue) = self.dialogues.get_mut(&number) {
                dialogue.state = State::Waiting;
            }
            let parked = &mut self.pools[pool].parked;
            if parked.len() >= 2 * self.config.in_flight_max {
                // Most have been answered by their deadline meanwhile.
                let dialogues = &self.dialogues;
                parked.retain(|waiting| {
                    dialogues
                        .get(waiting)
                        .is_some_and(|found| found.state.is_active())
                });
            }
            parked.push_back(number);
            return;
        };
        let Some(dialogue) = self.dialogues.get_mut(&number) else {
            return;
        };
        dialogue.state = State::Asked(request);
        if let Some(peer) = self.routing_peers.get_mut(&link)
            && let Some(ask) = &dialogue.ask
        {
            let mut sent = Input::clone(ask);
            sent.request_id = request;
            peer.inputs.push(sent);
        }
        self.requests.insert(
            request,
            Asked::Dialogue {
                dialogue: number,
                pool,
                link,
            },
        );
    }

    /// The dialogue no longer waits for this request; an answer to it must be taken back.
    pub(super) fn give_up_request(&mut self, request: u64, error: i32, number: u64) {
        let Some(dialogue) = self.dialogues.get(&number) else {
            return;
        };
        if let Some(asked) = self.requests.get_mut(&request) {
            *asked = Asked::GivenUp {
                source: Arc::clone(&dialogue.source),
                contact: dialogue.contact,
                pool: dialogue.pool,
                link: asked.link(),
                error,
                traceparent: dialogue.traceparent.clone(),
            };
        }
    }

    fn take_back(&mut self, now: Moment, asked: Asked) {
        if let Asked::GivenUp {
            source,
            contact,
            pool,
            error,
            traceparent,
            ..
        } = asked
        {
            self.report_route_failed(now, &source, contact, pool, error, &traceparent);
        }
    }

    fn routing_reply(
        &mut self,
        now: Moment,
        link: LinkId,
        request: u64,
        body: Option<reply::Body>,
    ) {
        let Some(asked) = self.requests.remove(&request) else {
            return;
        };
        if matches!(body, Some(reply::Body::NotOwner(_))) {
            return self.not_owner(now, link, request, asked);
        }
        match asked {
            Asked::Dialogue { dialogue, .. } => self.routing_answered(now, dialogue, body),
            Asked::GivenUp { .. } => {
                let holds = matches!(&body, Some(reply::Body::Answer(answer)) if super::answers::holds(answer));
                if holds {
                    self.metrics.late_assignments.inc();
                    self.take_back(now, asked);
                }
            }
            Asked::Report { pool, report, .. } => {
                let Some(report) = self.pools[pool].reports.remove(&report) else {
                    return;
                };
                let refused = match body {
                    Some(reply::Body::Refused(refused)) => Some(refused),
                    _ => None,
                };
                self.report_done(report.origin, refused);
            }
        }
    }

    fn not_owner(&mut self, now: Moment, link: LinkId, request: u64, asked: Asked) {
        let pool = match &asked {
            Asked::Dialogue { pool, .. }
            | Asked::GivenUp { pool, .. }
            | Asked::Report { pool, .. } => *pool,
        };
        let given_up = matches!(asked, Asked::GivenUp { .. });
        if given_up {
            // Nothing was assigned here, but an earlier owner may have.
            self.take_back(now, asked);
        } else {
            self.requests.insert(request, asked);
        }
        if let Some(peer) = self.routing_peers.get_mut(&link) {
            peer.disowned.insert(pool);
        }
        self.choose_owner(pool);
    }

    /// The outcome of a command goes to the pool's present owner.
    pub(super) fn command_outcome(&mut self, outcome: CommandOutcome) {
        let owner = self
            .pool_by_name
            .get(&outcome.pool)
            .and_then(|pool| self.pools[*pool].owner);
        if let Some((link, _)) = owner
            && let Some(peer) = self.routing_peers.get_mut(&link)
        {
            peer.outcomes.push(outcome);
        }
    }

    /// Every peer hears which switches are attached.
    pub(super) fn attached_changed(&mut self) {
        for peer in self.routing_peers.values_mut() {
            peer.hello = true;
        }
        for peer in self.callback_peers.values_mut() {
            peer.hello = true;
        }
    }

    /// Frames for every replica that has something to hear.
    pub(super) fn flush_routing(&mut self, out: &mut Vec<Outgoing>) {
        let mut attached: Vec<String> = self
            .sources
            .values()
            .filter(|state| state.commands_link.is_some())
            .map(|state| state.source.switch.clone())
            .collect();
        attached.sort_unstable();
        attached.dedup();
        for (link, peer) in &mut self.routing_peers {
            if !peer.hello && peer.inputs.is_empty() && peer.outcomes.is_empty() {
                continue;
            }
            let mut inputs = std::mem::take(&mut peer.inputs);
            loop {
                let rest = inputs.split_off(inputs.len().min(INPUTS_MAX));
                let hello = std::mem::take(&mut peer.hello).then(|| PeerHello {
                    peer_id: self.instance.clone(),
                    role: PeerRole::Gateway.into(),
                    attached_switches: attached.clone(),
                });
                let command_outcomes = std::mem::take(&mut peer.outcomes);
                out.push(Outgoing::Routing(
                    *link,
                    LinkRequest {
                        hello,
                        inputs,
                        command_outcomes,
                        notice_acknowledgements: Vec::new(),
                    },
                ));
                inputs = rest;
                if inputs.is_empty() {
                    break;
                }
            }
        }
    }

    /// A pool that the switch's words name, or an error.
    pub(super) fn pool_named(&self, field: &'static str, name: &str) -> Result<usize, FieldError> {
        self.pool_by_name.get(name).copied().ok_or_else(|| {
            FieldError::new(
                field,
                "a pool of policy",
                proto::convert::cti::stripped(name),
            )
        })
    }
}
