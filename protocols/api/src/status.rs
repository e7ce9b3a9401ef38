//! DeviceStatus: how a device is, under the name of its Device.

use crate::{Meta, Object, TwinProperty, flex};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a device is; it has the name of its Device and belongs to it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeviceStatus {
    /// `devices.kubeedge.io/v1beta1`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub api_version: String,
    /// `DeviceStatus`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// Name, namespace, uid.
    #[serde(default)]
    #[schemars(with = "Object")]
    pub metadata: Meta,
    /// Empty: it belongs to its Device by name and owner reference.
    #[serde(default)]
    #[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
    pub spec: Object,
    /// The twins and the state.
    #[serde(default)]
    pub status: DeviceStatusStatus,
}

/// The twins and the state of a device.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeviceStatusStatus {
    /// Each property's desired and reported value.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "flex::or_default"
    )]
    pub twins: Vec<Twin>,
    /// online (answers), offline (does not), unhealthy (answers, but not as it should) or unknown.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub state: String,
    /// When it was last online (RFC 3339).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub last_online_time: String,
    /// Anything else a mapper says of it.
    #[serde(
        default,
        skip_serializing_if = "Object::is_empty",
        deserialize_with = "flex::or_default"
    )]
    #[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
    pub extensions: Object,
    /// What is wrong or noteworthy: Configured (the Device can be served; if not, message says why),
    /// Synced (what is desired is what is reported), LocalOverride (somebody on the node's bus wants
    /// another value than the Device).
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "flex::or_default"
    )]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// The mapper that serves the device; empty while there is none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub mapper: String,
    /// KubeEdge before v1.23, in Device.status: whether it reports to the cloud.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "flex::boolean::deserialize"
    )]
    pub report_to_cloud: Option<bool>,
    /// KubeEdge before v1.23, in Device.status: how often.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "flex::int::deserialize"
    )]
    pub report_cycle: Option<i64>,
    /// Fields nobody here knows.
    #[serde(flatten)]
    #[schemars(skip)]
    pub extra: Object,
}

/// One property's desired and reported value.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Twin {
    /// Its name.
    #[serde(default)]
    pub property_name: String,
    /// What the device reported last.
    #[serde(default, deserialize_with = "flex::or_default")]
    pub reported: TwinProperty,
    /// What the node wants it to be.
    #[serde(default, deserialize_with = "flex::or_default")]
    pub observed_desired: TwinProperty,
}

/// A Kubernetes condition.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("required" = ["type", "status"]))]
pub struct Condition {
    /// Configured, Synced, LocalOverride, …
    #[serde(rename = "type", default)]
    pub kind: String,
    /// True, False or Unknown.
    #[serde(default)]
    pub status: String,
    /// Word for machines.
    #[serde(default)]
    pub reason: String,
    /// Sentence for people.
    #[serde(default)]
    pub message: String,
    /// When the status last changed (RFC 3339).
    #[serde(default)]
    pub last_transition_time: String,
}
