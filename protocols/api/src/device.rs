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
    /// The node that the device is connected to, as `kubectl get nodes` shows it. Without it nobody
    /// serves the device.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub node_name: String,
    /// How this device's properties are reached (visitors), how often they are read
    /// (collectPeriod) and what they should be (desired). Each name must be in the model.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "flex::or_default"
    )]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub properties: Vec<DeviceProperty>,
    /// How the device is reached: protocolName chooses the mapper, configData says where it is.
    #[serde(default, deserialize_with = "flex::or_default")]
    pub protocol: ProtocolConfig,
    /// Sets of writable properties, by name, so that a client can write them in one call.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "flex::or_default"
    )]
    pub methods: Vec<DeviceMethod>,
    /// KubeEdge's; has no effect: the state goes to the cloud whenever it changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_report: Option<StateReport>,
    /// What to do when the device was away and comes back: hold (the default: a desired value is
    /// written once, when it changes) or reapply (the desired values are written again, for devices
    /// that forget them). Not in KubeEdge; there it can stand in protocol.configData.
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
    /// Name of the DeviceModel.
    #[serde(default)]
    pub name: String,
}

/// A protocol and what it needs to know.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProtocolConfig {
    /// Which mapper serves it: modbus, virtual, …, or mqtt for a device whose client reports on the
    /// node's own bus. Compared without case. `edgebus get mappers` lists those of a node.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub protocol_name: String,
    /// The protocol's own settings, for the device or for one property. Of a Modbus device: ip, port
    /// and slaveID, or serialPort, baudRate, dataBits, parity, stopBits and slaveID. Of a Modbus
    /// property: register (CoilRegister, DiscreteInputRegister, InputRegister, HoldingRegister),
    /// offset, limit (number of registers), dataType, scale. `edgebus get mappers -o yaml` prints
    /// what each mapper takes.
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
    /// Name of the property, as in the model.
    #[serde(default)]
    pub name: String,
    /// What it should be: the mapper writes it to the device once whenever it changes, reads it back,
    /// and the condition Synced says how it went. Ignored for properties that are ReadOnly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desired: Option<TwinProperty>,
    /// Where in the device it is found: a register, a node id, a topic. Keys here win over the
    /// model's.
    #[serde(default, deserialize_with = "flex::or_default")]
    pub visitors: ProtocolConfig,
    /// At least how often it is reported even if it has not changed; reportPeriod is clearer. A
    /// number below 10000000 is milliseconds, from there on nanoseconds; negative = on change only.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "flex::int::deserialize"
    )]
    pub report_cycle: Option<i64>,
    /// How often it is read; collectPeriod is clearer. A number below 10000000 is milliseconds, from
    /// there on nanoseconds; 0 = 1 s; negative = never.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "flex::int::deserialize"
    )]
    pub collect_cycle: Option<i64>,
    /// KubeEdge's; has no effect: every property's value goes into the DeviceStatus.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "flex::boolean::deserialize"
    )]
    pub report_to_cloud: Option<bool>,
    /// KubeEdge: where its values are pushed besides (HTTP, MQTT, databases).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub push_method: Option<PushMethod>,
    /// How often it is read, with a unit: 500ms, 10s, 1m30s; 1ms to 87600h, 1 s unless said. Wins
    /// over collectCycle. Not in KubeEdge; there it can stand in visitors.configData.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collect_period: Option<String>,
    /// At least how often it is reported even if it has not changed, with a unit: 10s, 5m. Wins over
    /// reportCycle. Without either it is reported when it changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report_period: Option<String>,
    /// Smallest change worth a report, in the property's unit: with 0.5, a temperature of 21.0 is
    /// reported again at 21.5. Without it every change is.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "flex::float::deserialize"
    )]
    pub deadband: Option<f64>,
    /// Factor from what the device holds to the value: value = raw * scale + scaleOffset. A register
    /// that counts tenths of a degree has 0.1. 1 unless said.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "flex::float::deserialize"
    )]
    pub scale: Option<f64>,
    /// What is added after scaling: value = raw * scale + scaleOffset. 0 unless said.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "flex::float::deserialize"
    )]
    pub scale_offset: Option<f64>,
    /// Order of the bytes of values longer than one register: ABCD (high register first, the
    /// default), CDAB (low register first), BADC (as ABCD, bytes of each register swapped), DCBA.
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
    /// The value, of the model's type. KubeEdge writes every value as a text ("21"); plain numbers
    /// and booleans are accepted.
    #[serde(default)]
    pub value: Text,
    /// What is known of the value: `timestamp` (milliseconds since 1970), `type`, `quality` (good,
    /// uncertain, bad) and `cause`.
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
    /// Name of the method, as clients call it.
    #[serde(default)]
    pub name: String,
    /// What it does, for people.
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
