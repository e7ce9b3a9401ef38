//! Device: one device on one node.

use crate::{DeviceStatusStatus, Meta, Object, PushMethod, Text, flex};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A device on a node, an instance of a DeviceModel.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Device {
    /// `devices.kubeedge.io/v1beta1`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub api_version: String,
    /// `Device`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// Name, namespace, uid.
    #[serde(default)]
    #[schemars(with = "Object")]
    pub metadata: Meta,
    /// What is wanted.
    #[serde(default)]
    pub spec: DeviceSpec,
    /// How it is, for `kubectl get devices`; the whole is in the DeviceStatus of the same name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<DeviceStatusStatus>,
}

/// What is wanted of a device.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("required" = ["deviceModelRef"]))]
pub struct DeviceSpec {
    /// The DeviceModel, in the same namespace, whose properties this device has.
    #[serde(default)]
    pub device_model_ref: Option<ModelRef>,
    /// The node that the device is connected to.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub node_name: String,
    /// How this device's properties are reached and what they should be. Each name must be in the
    /// model.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "flex::or_default"
    )]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub properties: Vec<DeviceProperty>,
    /// How the device is reached. `mqtt` stands for clients on the node's own bus.
    #[serde(default, deserialize_with = "flex::or_default")]
    pub protocol: ProtocolConfig,
    /// Sets of writable properties, by name.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "flex::or_default"
    )]
    pub methods: Vec<DeviceMethod>,
    /// Whether and how often the device's state goes to the cloud.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_report: Option<StateReport>,
    /// After the device was away: hold (write desired values once, the default) or reapply (write
    /// them again). Not in KubeEdge; there it can stand in protocol.configData.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_reconnect: Option<OnReconnect>,
    /// Fields nobody here knows.
    #[serde(flatten)]
    #[schemars(skip)]
    pub extra: Object,
}

/// Reference to a DeviceModel.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("required" = ["name"]))]
pub struct ModelRef {
    /// Its name.
    #[serde(default)]
    pub name: String,
}

/// A protocol and what it needs to know.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProtocolConfig {
    /// Which mapper serves it: modbus, … Compared without case.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub protocol_name: String,
    /// The protocol's own settings; the mapper's documentation says which.
    #[serde(
        default,
        skip_serializing_if = "Object::is_empty",
        deserialize_with = "flex::or_default"
    )]
    #[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
    pub config_data: Object,
    /// Fields nobody here knows.
    #[serde(flatten)]
    #[schemars(skip)]
    pub extra: Object,
}

/// One property of a device.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("required" = ["name"]))]
pub struct DeviceProperty {
    /// Its name, as in the model.
    #[serde(default)]
    pub name: String,
    /// What it should be. Ignored for properties that are ReadOnly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desired: Option<TwinProperty>,
    /// Where in the device it is found; keys here win over the model's.
    #[serde(default, deserialize_with = "flex::or_default")]
    pub visitors: ProtocolConfig,
    /// At least how often it is reported: milliseconds, or nanoseconds from 10000000 on; negative = never.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "flex::int::deserialize"
    )]
    pub report_cycle: Option<i64>,
    /// How often it is read: milliseconds, or nanoseconds from 10000000 on; 0 = 1 s; negative = never.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "flex::int::deserialize"
    )]
    pub collect_cycle: Option<i64>,
    /// Whether it goes to the cloud.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "flex::boolean::deserialize"
    )]
    pub report_to_cloud: Option<bool>,
    /// Where its values are pushed besides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub push_method: Option<PushMethod>,
    /// How often it is read, with a unit (500ms, 10s, 1m30s); wins over collectCycle. Not in
    /// KubeEdge; there it can stand in visitors.configData.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collect_period: Option<String>,
    /// At least how often it is reported, with a unit; wins over reportCycle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report_period: Option<String>,
    /// Smallest change worth a report, in the property's unit.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "flex::float::deserialize"
    )]
    pub deadband: Option<f64>,
    /// value = raw * scale + scaleOffset.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "flex::float::deserialize"
    )]
    pub scale: Option<f64>,
    /// value = raw * scale + scaleOffset.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "flex::float::deserialize"
    )]
    pub scale_offset: Option<f64>,
    /// Order of bytes of values longer than one register: ABCD, CDAB, BADC, DCBA.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub byte_order: Option<String>,
    /// Fields nobody here knows.
    #[serde(flatten)]
    #[schemars(skip)]
    pub extra: Object,
}

/// A value and what is known of it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct TwinProperty {
    /// The value. KubeEdge writes every value as a text; plain numbers and booleans are accepted.
    #[serde(default)]
    pub value: Text,
    /// `timestamp` (milliseconds since 1970), `type`, `quality`, `cause`.
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "flex::or_default"
    )]
    pub metadata: BTreeMap<String, Text>,
}

/// A named set of properties.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeviceMethod {
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// For people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// The properties that it writes.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "flex::or_default"
    )]
    pub property_names: Vec<String>,
}

/// Whether and how often the state goes to the cloud.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StateReport {
    /// Whether it does.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "flex::boolean::deserialize"
    )]
    pub report_to_cloud: Option<bool>,
    /// How often: milliseconds, or nanoseconds from 10000000 on.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "flex::int::deserialize"
    )]
    pub report_cycle: Option<i64>,
}

/// What to do with desired values when a device comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnReconnect {
    /// One write for each change.
    #[default]
    Hold,
    /// Write them again.
    Reapply,
}
