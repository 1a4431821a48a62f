//! What the caller needs: intent is asked, and its absence is borne.
//!
//! Intent gets a share of what is left of the deadline. When it is away, late or says a
//! topic that policy does not know, the caller goes to the line's default topic, which is a
//! person: never a dead end, never a wait for a machine.

use super::dialogues::{Alarm, State, primary_tag};
use super::{Core, Moment};
use crate::metrics::Classified;

impl Core {
    /// Asks intent, or goes on without.
    pub(super) fn classify(&mut self, now: Moment, number: u64, query: proto::intent::v1::Query) {
        let links: Vec<u64> = self
            .intent_peers
            .iter()
            .filter(|(_, peer)| !peer.draining)
            .map(|(link, _)| *link)
            .collect();
        let Some(dialogue) = self.dialogues.get_mut(&number) else {
            return;
        };
        if links.is_empty() {
            self.metrics.classified.inc(Classified::Away as usize);
            self.operator_topic(number, true);
            self.ask_routing(number);
            return;
        }
        self.intent_turn = self.intent_turn.wrapping_add(1);
        let link = links[self.intent_turn % links.len()];
        let left_ms = dialogue.deadline.since(now.wall);
        let share_ms = left_ms * self.config.intent_share_percent / 100;
        let until = now.wall.plus(share_ms.min(self.config.intent_timeout_ms));
        dialogue.state = State::Classifying(link);
        if let Some(peer) = self.intent_peers.get_mut(&link) {
            peer.batch.push(query);
        }
        self.wheel.add(until, (number, Alarm::Topic));
    }

    /// A frame of verdicts.
    pub(super) fn intent_frame(
        &mut self,
        _now: Moment,
        link: u64,
        frame: proto::intent::v1::LinkResponse,
    ) {
        if let Some(peer) = self.intent_peers.get_mut(&link) {
            peer.draining |= frame.draining;
        }
        for verdict in frame.verdicts {
            self.verdict(verdict);
        }
    }

    pub(super) fn verdict(&mut self, verdict: proto::intent::v1::Verdict) {
        let number = verdict.query_id;
        let known = self.policy.topics.contains_key(&verdict.topic_id);
        let Some(dialogue) = self.dialogues.get_mut(&number) else {
            return;
        };
        if !matches!(dialogue.state, State::Classifying(_)) {
            return;
        }
        let to_person = verdict.decision() != proto::intent::v1::Decision::Topic;
        let Some(route) = dialogue.route_mut() else {
            return;
        };
        if route.language.is_empty() {
            route.language = primary_tag(&verdict.language);
        }
        route.topic_confidence = verdict.confidence.clamp(0.0, 1.0);
        let others = verdict.top.into_iter().map(|candidate| candidate.topic_id);
        route.other_topics = others
            .filter(|topic| *topic != verdict.topic_id)
            .take(2)
            .collect();
        route.person_asked = to_person;
        if known {
            route.topic = verdict.topic_id;
            dialogue.default_topic = false;
            let kind = if to_person {
                Classified::Person
            } else {
                Classified::Topic
            };
            self.metrics.classified.inc(kind as usize);
        } else {
            self.metrics
                .classified
                .inc(Classified::UnknownTopic as usize);
            self.operator_topic(number, true);
        }
        self.ask_routing(number);
    }

    /// An intent replica is gone: its callers go on to a person.
    pub(super) fn intent_down(&mut self, _now: Moment, link: u64) {
        self.intent_peers.remove(&link);
        let stranded: Vec<u64> = self
            .dialogues
            .iter()
            .filter(|(_, dialogue)| dialogue.state == State::Classifying(link))
            .map(|(number, _)| *number)
            .collect();
        for number in stranded {
            self.metrics.classified.inc(Classified::Away as usize);
            self.operator_topic(number, true);
            self.ask_routing(number);
        }
    }

    /// The topic of the line when nothing better is known: the operator's.
    pub(super) fn operator_topic(&mut self, number: u64, person_asked: bool) {
        let Some(dialogue) = self.dialogues.get_mut(&number) else {
            return;
        };
        let Some(route) = dialogue.route_mut() else {
            return;
        };
        let line = self.policy.lines.get(&route.line);
        let topic = line.map_or(domain::policy::OPERATOR_TOPIC, |line| &line.default_topic);
        topic.clone_into(&mut route.topic);
        route.person_asked = person_asked;
    }

    pub(super) fn topic_is_late(&mut self, number: u64) {
        let waits = self
            .dialogues
            .get(&number)
            .is_some_and(|dialogue| matches!(dialogue.state, State::Classifying(_)));
        if waits {
            self.metrics.classified.inc(Classified::Late as usize);
            self.operator_topic(number, true);
            self.ask_routing(number);
        }
    }
}
