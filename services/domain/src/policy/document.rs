//! The documents as written: shapes only. Unknown fields are faults, so a misspelt limit
//! can never be silently absent.

use std::collections::BTreeMap;

use serde::Deserialize;

/// The only version of the documents so far.
pub(super) const API_VERSION: &str = "trunkline.dev/v1";

/// What every document starts with.
#[derive(Debug, Deserialize)]
pub(super) struct Head {
    #[serde(rename = "apiVersion", default)]
    pub(super) api_version: Option<String>,
    #[serde(default)]
    pub(super) kind: Option<String>,
    #[serde(default)]
    pub(super) metadata: Option<Metadata>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Metadata {
    #[serde(default)]
    pub(super) name: Option<String>,
}

/// A whole document of one kind.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Document<Spec> {
    #[serde(rename = "apiVersion")]
    #[expect(
        dead_code,
        reason = "checked in the head; named here because unknown fields are refused"
    )]
    api_version: String,
    #[expect(dead_code, reason = "as above")]
    kind: String,
    #[expect(dead_code, reason = "as above")]
    metadata: StrictMetadata,
    pub(super) spec: Spec,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct StrictMetadata {
    #[expect(
        dead_code,
        reason = "checked in the head; named here because unknown fields are refused"
    )]
    name: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct PoolSpec {
    pub(super) no_answer_ms: u64,
    pub(super) wrap_up_max_ms: u64,
    pub(super) reservation_max_ms: u64,
    pub(super) waiting_max: u32,
    pub(super) agents_max: u32,
    pub(super) priority_cap: u32,
    pub(super) remember_ended_ms: u64,
    pub(super) survey_wait_ms: u64,
    #[serde(default)]
    pub(super) agents: BTreeMap<String, AgentSpec>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct AgentSpec {
    #[serde(default)]
    pub(super) skills: BTreeMap<String, u8>,
    #[serde(default)]
    pub(super) languages: Vec<String>,
    #[serde(default = "one")]
    pub(super) capacity: u8,
}

fn one() -> u8 {
    1
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct LineSpec {
    pub(super) pool: String,
    pub(super) numbers: Vec<String>,
    pub(super) default_topic: String,
    pub(super) callback_number: String,
    pub(super) time_zone: String,
    pub(super) caller_places_max: u32,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct TopicSpec {
    pub(super) id: String,
    pub(super) title: String,
    pub(super) queue: String,
    pub(super) callback: bool,
    #[serde(default)]
    pub(super) priority_start: u32,
    pub(super) family: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct QueueSpec {
    pub(super) pool: String,
    pub(super) skill: String,
    pub(super) proficiency_min: u8,
    pub(super) device: String,
    #[serde(default)]
    pub(super) priority_start: u32,
    pub(super) priority_acceleration: u32,
    pub(super) waiting_max: u32,
    pub(super) service_level_ms: u64,
    pub(super) handle_time_prior_ms: u64,
    pub(super) patience_prior_ms: u64,
    pub(super) announcement: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct CallbackSpec {
    pub(super) offer_from_expected_wait_ms: u64,
    pub(super) attempts_max: u32,
    pub(super) attempt_spacing_ms: u64,
    pub(super) ring_ms: u64,
    pub(super) lease_ms: u64,
    pub(super) window_ms: u64,
    pub(super) windows_offered: u32,
    pub(super) window_capacity_percent: u32,
    pub(super) callable_from_hour: u32,
    pub(super) callable_until_hour: u32,
}
