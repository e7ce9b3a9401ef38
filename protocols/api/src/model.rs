//! DeviceModel: what devices of one make have in common.

use crate::{Meta, Object, ProtocolConfig, Text, flex};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What devices of one make have in common.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeviceModel {
    /// `devices.kubeedge.io/v1beta1`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub api_version: String,
    /// `DeviceModel`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// Name, namespace, uid.
    #[serde(default)]
    #[schemars(with = "Object")]
    pub metadata: Meta,
    /// The properties.
    #[serde(default)]
    pub spec: DeviceModelSpec,
}

/// The properties of a make of devices.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeviceModelSpec {
    /// What devices of this model can report or be told: each has a name, a type and limits. Devices
    /// say where theirs are found and what they should be.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "flex::or_default"
    )]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub properties: Vec<ModelProperty>,
    /// The protocol that devices of this model speak, where the Device names none: modbus, mqtt, …
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub protocol: String,
    /// Settings of the protocol that are the same for all devices of this model (baudRate, timeout);
    /// a Device's own protocol.configData is laid over them, key by key.
    #[serde(
        default,
        skip_serializing_if = "Object::is_empty",
        deserialize_with = "flex::or_default"
    )]
    #[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
    pub protocol_config_data: Object,
    /// Fields nobody here knows.
    #[serde(flatten)]
    #[schemars(skip)]
    pub extra: Object,
}

/// One property of a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("required" = ["name", "type"]))]
pub struct ModelProperty {
    /// Name of the property: 1 to 128 characters, each name once.
    #[serde(default)]
    pub name: String,
    /// What it is, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Type of its value: INT (64 bits), FLOAT (32 bits), DOUBLE (64 bits), STRING, BOOLEAN, BYTES
    /// (base64 text) or STREAM (not readable as a value).
    #[serde(rename = "type")]
    pub kind: PropertyType,
    /// ReadWrite (a Device may say what it should be; the default) or ReadOnly.
    #[serde(default)]
    pub access_mode: AccessMode,
    /// Smallest valid value. A desired value below it is not written; the condition Synced says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minimum: Option<Text>,
    /// Largest valid value. A desired value above it is not written; the condition Synced says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maximum: Option<Text>,
    /// Unit of its value, for people: °C, rpm, kWh.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub unit: String,
    /// Where in the device it is found, for devices that do not say it themselves.
    #[serde(default, deserialize_with = "flex::or_default")]
    pub visitors: ProtocolConfig,
    /// Fields nobody here knows.
    #[serde(flatten)]
    #[schemars(skip)]
    pub extra: Object,
}

/// Type of a property's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum PropertyType {
    /// 64-bit signed integer.
    #[serde(alias = "int", alias = "integer", alias = "INTEGER")]
    Int,
    /// 32-bit float.
    #[serde(alias = "float")]
    Float,
    /// 64-bit float.
    #[serde(alias = "double")]
    Double,
    /// Text.
    #[serde(alias = "string")]
    String,
    /// true or false.
    #[serde(alias = "boolean", alias = "bool")]
    Boolean,
    /// Base64 text.
    #[serde(alias = "bytes")]
    Bytes,
    /// A stream; not readable as a value.
    #[serde(alias = "stream")]
    Stream,
}

/// Whether a property can be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum AccessMode {
    /// Both.
    #[default]
    ReadWrite,
    /// Reports only.
    ReadOnly,
}
