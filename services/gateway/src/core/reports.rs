//! Reports: what the switch told us, in order, until routing says that it is durable.

use domain::ContactId;
use proto::routing::v1::{Input, RouteFailed, SwitchBoot, input};

use super::routing::{Asked, Origin, Report};
use super::{Core, Moment, Source};
use crate::metrics::Limit;

/// Reports of one pool that no event stream bounds (failed routes, boots).
const UNBOUNDED_REPORTS_MAX: usize = 65_536;

impl Core {
    pub(super) fn report_done(
        &mut self,
        origin: Origin,
        refused: Option<proto::routing::v1::Refused>,
    ) {
        let Origin::Event { source, event_seq } = origin else {
            return;
        };
        let refusal = refused.map(|refused| proto::cti::v1::Refusal {
            about: event_seq.to_string(),
            field: refused.field,
            limit: refused.limit,
            value: proto::convert::cti::stripped(&refused.value),
        });
        self.event_part_done(source, event_seq, refusal);
    }

    /// Puts a report into its pool's line.
    pub(super) fn report(&mut self, pool: usize, input: Input, origin: Origin) {
        let line = &mut self.pools[pool];
        if origin == Origin::Gateway && line.reports.len() >= UNBOUNDED_REPORTS_MAX {
            // The reservation's own time limit in routing frees what this would have freed.
            self.metrics.limit_hits.inc(Limit::Reports as usize);
            return;
        }
        line.next_report += 1;
        let number = line.next_report;
        line.reports.insert(
            number,
            Report {
                input,
                origin,
                request: 0,
            },
        );
        self.send_reports(pool);
    }

    /// Sends what the owner has not been sent.
    pub(super) fn send_reports(&mut self, pool: usize) {
        let Some((link, _)) = self.pools[pool].owner else {
            return;
        };
        let Some(peer) = self.routing_peers.get_mut(&link) else {
            return;
        };
        let line = &mut self.pools[pool];
        for (number, report) in line.reports.range_mut(line.cursor..) {
            self.next_number += 1;
            let request = self.next_number;
            report.request = request;
            let mut sent = report.input.clone();
            sent.request_id = request;
            peer.inputs.push(sent);
            self.requests.insert(
                request,
                Asked::Report {
                    pool,
                    report: *number,
                    link,
                },
            );
        }
        line.cursor = line.next_report + 1;
    }

    /// The answer was not used: routing frees what it held.
    pub(super) fn report_route_failed(
        &mut self,
        now: Moment,
        source: &Source,
        contact: ContactId,
        pool: usize,
        error: i32,
        traceparent: &str,
    ) {
        let body = input::Body::RouteFailed(RouteFailed {
            error: u32::try_from(error).unwrap_or(0),
        });
        let input = self.input(source, Some(contact), pool, now.wall, traceparent, body);
        self.report(pool, input, Origin::Gateway);
    }

    /// A switch has restarted: every pool is told.
    pub(super) fn report_boot(&mut self, now: Moment, source: &Source) {
        for pool in 0..self.pools.len() {
            let body = input::Body::SwitchBoot(SwitchBoot {});
            let input = self.input(source, None, pool, now.wall, "", body);
            self.report(pool, input, Origin::Gateway);
        }
    }
}
