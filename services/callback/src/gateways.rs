//! The gateways that are linked, and which of them can dial.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use domain::SwitchId;
use proto::callback::v1;
use tokio::sync::mpsc;
use tokio::sync::mpsc::OwnedPermit;

use crate::metrics::{Limit, Metrics};

/// A message to a gateway.
#[derive(Debug)]
pub(crate) enum Message {
    Response(v1::Response),
    Dial(v1::Dial),
}

/// One linked gateway.
#[derive(Debug)]
struct Gateway {
    gateway_id: String,
    switches: Vec<SwitchId>,
    sender: mpsc::Sender<Message>,
}

/// All linked gateways. Locked for a few comparisons, never across an await.
pub(crate) struct Gateways {
    linked: Mutex<BTreeMap<u64, Gateway>>,
    next: AtomicUsize,
    linked_max: usize,
    queue_messages: usize,
    metrics: Metrics,
}

/// A dial's place in the queue of a gateway, and the switch that gateway should use.
#[derive(Debug)]
pub(crate) struct DialPermit {
    permit: OwnedPermit<Message>,
    pub(crate) switch: SwitchId,
}

impl DialPermit {
    /// Sends the dial.
    pub(crate) fn send(self, dial: v1::Dial) {
        let _: mpsc::Sender<Message> = self.permit.send(Message::Dial(dial));
    }
}

impl Gateways {
    pub(crate) fn new(linked_max: usize, queue_messages: usize, metrics: Metrics) -> Self {
        Self {
            linked: Mutex::new(BTreeMap::new()),
            next: AtomicUsize::new(0),
            linked_max,
            queue_messages,
            metrics,
        }
    }

    fn linked(&self) -> MutexGuard<'_, BTreeMap<u64, Gateway>> {
        self.linked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A link comes up. `None`: there are too many. A link that the same gateway had before
    /// is dead, or about to be: dials must not go there.
    pub(crate) fn link(
        &self,
        gateway_id: &str,
        switches: Vec<SwitchId>,
    ) -> Option<(u64, mpsc::Sender<Message>, mpsc::Receiver<Message>)> {
        let link = u64::try_from(self.next.fetch_add(1, Ordering::Relaxed)).unwrap_or(u64::MAX);
        let mut linked = self.linked();
        linked.retain(|_, gateway| gateway.gateway_id != gateway_id);
        if linked.len() >= self.linked_max {
            self.metrics.hit(Limit::Gateways);
            return None;
        }
        let (sender, receiver) = mpsc::channel(self.queue_messages);
        let gateway = Gateway {
            gateway_id: gateway_id.to_owned(),
            switches,
            sender: sender.clone(),
        };
        linked.insert(link, gateway);
        self.count(&linked);
        Some((link, sender, receiver))
    }

    /// Its switches have changed.
    pub(crate) fn attach(&self, link: u64, switches: Vec<SwitchId>) {
        if let Some(gateway) = self.linked().get_mut(&link) {
            gateway.switches = switches;
        }
    }

    /// A link is down.
    pub(crate) fn unlink(&self, link: u64) {
        let mut linked = self.linked();
        linked.remove(&link);
        self.count(&linked);
    }

    fn count(&self, linked: &BTreeMap<u64, Gateway>) {
        let count = i64::try_from(linked.len()).unwrap_or(i64::MAX);
        self.metrics.gateways.set(count);
        self.metrics.limit_use(Limit::Gateways).set(count);
    }

    /// Dials that can be handed out now. Half of each queue is kept for responses.
    pub(crate) fn dial_room(&self) -> usize {
        let linked = self.linked();
        linked.values().map(|gateway| self.room(gateway)).sum()
    }

    /// Whether any switch can be reached.
    pub(crate) fn can_dial(&self) -> bool {
        self.linked()
            .values()
            .any(|gateway| !gateway.switches.is_empty())
    }

    fn room(&self, gateway: &Gateway) -> usize {
        if gateway.switches.is_empty() || gateway.sender.is_closed() {
            return 0;
        }
        gateway
            .sender
            .capacity()
            .saturating_sub(self.queue_messages / 2)
    }

    /// A place for one dial: with a gateway on which `preferred` is attached, else with any
    /// that has a switch. In turn, so that no gateway gets all.
    pub(crate) fn reserve(&self, preferred: &SwitchId) -> Option<DialPermit> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        let linked = self.linked();
        let with_room = |gateway: &&Gateway| self.room(gateway) > 0;
        let attached: Vec<&Gateway> = linked
            .values()
            .filter(|gateway| gateway.switches.contains(preferred))
            .filter(with_room)
            .collect();
        if let Some(permit) = pick(&attached, turn) {
            return Some(DialPermit {
                permit,
                switch: preferred.clone(),
            });
        }
        let others: Vec<&Gateway> = linked.values().filter(with_room).collect();
        if others.is_empty() {
            if !linked.is_empty() {
                self.metrics.hit(Limit::GatewayQueue);
            }
            return None;
        }
        let gateway = others[turn % others.len()];
        let switch = gateway.switches[turn % gateway.switches.len()].clone();
        let permit = gateway.sender.clone().try_reserve_owned().ok()?;
        Some(DialPermit { permit, switch })
    }
}

fn pick(gateways: &[&Gateway], turn: usize) -> Option<OwnedPermit<Message>> {
    let gateway = gateways.get(turn.checked_rem(gateways.len())?)?;
    gateway.sender.clone().try_reserve_owned().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::registry::Registry;

    fn switch(name: &str) -> SwitchId {
        SwitchId::parse(name).expect("valid")
    }

    fn gateways() -> Gateways {
        Gateways::new(2, 4, Metrics::new(&mut Registry::default()))
    }

    #[test]
    fn the_callers_own_switch_is_preferred_and_any_other_is_taken_otherwise() {
        let gateways = gateways();
        let _one = gateways.link("one", vec![switch("a")]).expect("room");
        let _two = gateways.link("two", vec![switch("b")]).expect("room");
        for _ in 0..2 {
            let permit = gateways.reserve(&switch("b")).expect("attached");
            assert_eq!(permit.switch, switch("b"));
            std::mem::forget(permit);
        }
        let permit = gateways.reserve(&switch("b")).expect("another");
        assert_eq!(
            permit.switch,
            switch("a"),
            "the queue of the gateway with b is half full"
        );
    }

    #[test]
    fn without_a_switch_nothing_can_be_dialled() {
        let gateways = gateways();
        let (link, ..) = gateways.link("one", Vec::new()).expect("room");
        assert!(!gateways.can_dial());
        assert!(gateways.reserve(&switch("a")).is_none());
        gateways.attach(link, vec![switch("c")]);
        assert!(gateways.can_dial());
    }

    #[test]
    fn a_gateway_that_links_again_replaces_itself_and_a_surplus_one_is_refused() {
        let gateways = gateways();
        let _old = gateways.link("one", vec![switch("a")]).expect("room");
        let _new = gateways.link("one", vec![switch("a")]).expect("replaced");
        let _two = gateways.link("two", Vec::new()).expect("room");
        assert!(gateways.link("three", Vec::new()).is_none());
    }
}
