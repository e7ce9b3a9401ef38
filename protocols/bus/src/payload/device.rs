//! Payloads between devicetwin and the mappers.

use super::{Gen, Object, Props};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// How far a value can be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Quality {
    /// Fresh from the device.
    #[default]
    Good,
    /// Read, but doubtful: out of range, stuck, …
    Uncertain,
    /// Not read; `cause` says why.
    Bad,
}

/// `mapper/{m}/hello`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// `spec.protocol.protocolName` of the devices it serves, compared without case.
    pub protocol: String,
    /// Version of the program.
    #[serde(default)]
    pub version: String,
    /// Version of this contract: 1.
    #[serde(default = "one")]
    pub api: u32,
    /// JSON Schemas of the two configData kinds: `{"protocol": …, "visitor": …}`.
    #[serde(default, skip_serializing_if = "Object::is_empty")]
    pub schema: Object,
    /// How many devices it can serve; none = as many as there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<u32>,
    /// `write`, `call`, `discover`, …
    #[serde(default)]
    pub features: Vec<String>,
}

fn one() -> u32 {
    1
}

/// `mapper/{m}/found`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Found {
    /// Each with a `name` and the protocol's own description.
    pub devices: Vec<Object>,
}

/// Type of a property's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum ValueType {
    /// 64-bit signed integer.
    Int,
    /// 32-bit float.
    Float,
    /// 64-bit float.
    Double,
    /// Text.
    String,
    /// true or false.
    Boolean,
    /// Base64 text.
    Bytes,
    /// A stream; not readable as a value.
    Stream,
}

/// Whether a property can be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Access {
    /// Both.
    #[default]
    ReadWrite,
    /// Reports only.
    ReadOnly,
}

/// `dev/{m}/{ns}/{name}/config`: model and instance merged, cycles resolved to milliseconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeviceConfig {
    /// uid of the Device.
    pub uid: String,
    /// `spec.protocol.configData`, the model's `protocolConfigData` beneath it.
    #[serde(default)]
    pub protocol: Object,
    /// Its properties.
    pub properties: Vec<PropertyConfig>,
    /// After a reconnect or a crash: write the desired values again?
    #[serde(default)]
    pub on_reconnect: OnReconnect,
}

/// What to do with desired values when a device comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnReconnect {
    /// Nothing: one write for each new `gen`.
    #[default]
    Hold,
    /// Write them again.
    Reapply,
}

/// One property of a device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PropertyConfig {
    /// Its name.
    pub name: String,
    /// Type of its value.
    #[serde(rename = "type")]
    pub kind: ValueType,
    /// Whether it can be written.
    #[serde(default)]
    pub access: Access,
    /// Smallest valid value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minimum: Option<f64>,
    /// Largest valid value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maximum: Option<f64>,
    /// Unit, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// The protocol's own address of it: merged `visitors.configData`.
    #[serde(default)]
    pub visitor: Object,
    /// How often to read it; none = never by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collect_ms: Option<u64>,
    /// At least how often to report it even when it has not changed; none = on change only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report_ms: Option<u64>,
    /// Smallest change worth a report, in the property's unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadband: Option<f64>,
}

/// `dev/{m}/{ns}/{name}/want`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Want {
    /// A mapper writes when this differs from the last it acted on, property by property.
    pub r#gen: Gen,
    /// Wanted values.
    pub props: Props<Wanted>,
}

/// One wanted value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Wanted {
    /// The value, typed as the property.
    pub value: Value,
    /// When this property last changed: written once for each.
    pub r#gen: Gen,
}

/// `dev/{m}/{ns}/{name}/mark`: the mapper's only memory, so that a restart repeats no write.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Mark {
    /// uid of the Device it was said of: another uid starts anew.
    #[serde(default)]
    pub uid: String,
    /// By property.
    pub props: Props<Marked>,
}

/// How far the mapper is with a property's generation.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Marked {
    /// The generation.
    pub r#gen: Gen,
    /// False: a write that cannot be read back has begun. True: acted on and reported.
    pub done: bool,
}

/// What came of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// Written, and read back where that is possible.
    Applied,
    /// It already had that value: nothing was written.
    Unchanged,
    /// The device or the mapper refused it.
    Refused,
    /// Written, but the device shows another value.
    NotEffective,
    /// The process ended between write and report, and the point cannot be read back.
    Unknown,
}

/// One reported value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    /// The value; null when it could not be read.
    #[serde(default)]
    pub value: Value,
    /// When it was read.
    pub at: String,
    /// How far to trust it.
    #[serde(default)]
    pub quality: Quality,
    /// Why it is not good: `commFailure`, `outOfRange`, `typeMismatch`, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// What came of the write of `gen_seen`, where this report follows one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// The generation of this property that was acted on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gen_seen: Option<Gen>,
    /// For people: the device's own error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// `dev/{m}/{ns}/{name}/report`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Report {
    /// Counts this device's reports since the mapper's `boot`; a repeat has the same number.
    pub seq: u64,
    /// The mapper's start that counts.
    #[serde(default)]
    pub boot: String,
    /// The `want` that has been acted on whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gen_seen: Option<Gen>,
    /// When it was sent.
    pub at: String,
    /// The values.
    pub props: Props<Reading>,
}

/// Whether a device answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeviceUp {
    /// It answers.
    Online,
    /// It does not.
    Offline,
    /// It answers with errors.
    Unhealthy,
    /// Nobody has said yet.
    #[default]
    Unknown,
}

/// `dev/{m}/{ns}/{name}/state`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceState {
    /// How it is.
    pub state: DeviceUp,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Since when.
    pub at: String,
}

/// One of a list on `dev/…/data/{stream}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Property.
    pub p: String,
    /// Value.
    pub v: Value,
    /// Quality.
    #[serde(default)]
    pub q: Quality,
    /// When.
    pub at: String,
}

/// `dev/…/event/{t}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeviceEvent {
    /// When.
    pub at: String,
    /// For people.
    pub text: String,
    /// For machines.
    #[serde(default)]
    pub data: Value,
}

/// `dev/…/alert/{t}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alert {
    /// `warning` or `critical`.
    pub severity: String,
    /// For people.
    pub text: String,
    /// Since when.
    pub since: String,
}

/// `dev/…/call`, `twin/…/call`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Call {
    /// Chosen by the caller.
    pub id: String,
    /// `spec.methods[].name`.
    pub method: String,
    /// Its arguments.
    #[serde(default)]
    pub args: Object,
    /// After this it is not begun any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<String>,
}

/// `…/call/done`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CallDone {
    /// The call's id.
    pub id: String,
    /// `ok`, `refused`, `failed` or `unknown`.
    pub status: String,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What it returned.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub data: Value,
}
