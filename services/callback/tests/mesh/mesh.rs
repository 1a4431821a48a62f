//! One replica with everything around it.

use bytes::Bytes;
use domain::callback::Rules;
use proto::callback::v1;
use proto::routing::v1::input::Body;
use runtime::local::wait_until;

use crate::routing::Routing;
use crate::switch::{Gateway, Phones, Plan};
use crate::world::{LIMIT, RULES, Replica, config, redis};

pub(crate) const SWITCH: &str = "switch-1";

pub(crate) struct Mesh {
    _redis: runtime::local::RedisServer,
    pub(crate) routing: Routing,
    pub(crate) phones: Phones,
    pub(crate) replica: Replica,
    pub(crate) gateway: Gateway,
}

pub(crate) async fn mesh(script: impl Fn(&v1::Dial) -> Plan + Send + Sync + 'static) -> Mesh {
    mesh_with(RULES, script).await
}

pub(crate) async fn mesh_with(
    rules: Rules,
    script: impl Fn(&v1::Dial) -> Plan + Send + Sync + 'static,
) -> Mesh {
    let redis = redis().await;
    let routing = Routing::start().await;
    let phones = Phones::new(&routing, script);
    let mut config = config(&redis, &routing);
    config.rules = Some(rules);
    let replica = Replica::ready(config).await;
    let gateway = Gateway::new("gateway-1", &[SWITCH], &phones);
    gateway.link(replica.address).await;
    Mesh {
        _redis: redis,
        routing,
        phones,
        replica,
        gateway,
    }
}

impl Mesh {
    pub(crate) async fn wait_end(&self, contact: &Bytes) -> i32 {
        wait_until("the booking ends", LIMIT, || async {
            !self.routing.ends(contact).is_empty()
        })
        .await
        .unwrap_or_else(|error| panic!("{error}"));
        let ends = self.routing.ends(contact);
        assert_eq!(ends.len(), 1, "exactly one end: {ends:?}");
        ends[0]
    }

    /// Until agents were counted no window has room.
    pub(crate) async fn wait_forecast(&self) {
        wait_until("agents were counted", LIMIT, || async {
            let metrics = self.replica.metrics().await;
            metrics.contains("trunkline_callback_forecast_agents{pool=\"tax\"} 10")
        })
        .await
        .unwrap_or_else(|error| panic!("{error}"));
    }

    pub(crate) fn assert_kept(&self) {
        assert_eq!(self.phones.state().faults, Vec::<String>::new());
        assert_eq!(self.routing.model().faults, Vec::<String>::new());
    }

    /// The steps of a contact's attempts, as routing heard them.
    pub(crate) fn steps(&self, contact: &Bytes) -> Vec<(u32, i32)> {
        let model = self.routing.model();
        let reports = model
            .entries
            .get(contact)
            .map(|entry| entry.reports.as_slice())
            .unwrap_or_default();
        let step = |(_, body): &(u32, Body)| match body {
            Body::CallbackProgress(progress) => Some((progress.attempt, progress.step)),
            _ => None,
        };
        reports.iter().filter_map(step).collect()
    }
}
