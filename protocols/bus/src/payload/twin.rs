//! Payloads of the twins: what apps, the link and people read.

use super::{DeviceUp, Gen, Props, Quality};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Who set a desired value last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// `Device.spec` in the API.
    Spec,
    /// A client on this node.
    Local,
}

/// A property's desired value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Desired {
    /// The value, typed as the property.
    pub value: Value,
    /// Who said so.
    pub source: Source,
    /// The API's value when this was decided: a local value stands until the API's differs from it.
    #[serde(default)]
    pub spec_seen: Option<String>,
    /// When this property last changed.
    pub r#gen: Gen,
}

/// `twin/{ns}/{name}/desired`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct TwinDesired {
    /// uid of the Device this was said of: another uid starts anew.
    #[serde(default)]
    pub uid: String,
    /// The newest of all.
    pub r#gen: Gen,
    /// By property.
    pub props: Props<Desired>,
}

/// One property of a twin.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct TwinProp {
    /// What it should be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desired: Option<Value>,
    /// What it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reported: Option<Value>,
    /// When that was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    /// How far to trust it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quality: Option<Quality>,
    /// Why it is not good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// Whether the device has what is desired (true where nothing is; false where the API's value
    /// was refused).
    pub synced: bool,
    /// Set when a client on this node decides the desired value.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub local: bool,
}

/// A Kubernetes-style condition of a twin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// `Configured`, `Synced`, `LocalOverride`, …
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// CamelCase word.
    pub reason: String,
    /// Sentence: what is wrong, where, the value, what is allowed.
    pub message: String,
    /// When `status` last changed.
    pub last_transition_time: String,
}

/// `twin/{ns}/{name}`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Twin {
    /// uid of the Device.
    #[serde(default)]
    pub uid: String,
    /// The generation of desired values it was computed for.
    pub r#gen: Gen,
    /// Name of the DeviceModel.
    #[serde(default)]
    pub model: String,
    /// The mapper that serves it; none if none does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mapper: Option<String>,
    /// Whether the device answers.
    #[serde(default)]
    pub state: DeviceUp,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// When it was last online.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_online: Option<String>,
    /// Its properties.
    pub props: Props<TwinProp>,
    /// What is wrong or noteworthy.
    #[serde(default)]
    pub conditions: Vec<Condition>,
}

/// `twin/{ns}/{name}/set`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TwinSet {
    /// Chosen by the asker; the same id twice is the same wish.
    pub id: String,
    /// Desired values; null lets the API's value stand again.
    pub props: Props<Value>,
    /// Only if the twin is still at this generation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_gen: Option<Gen>,
}

/// `twin/{ns}/{name}/set/done`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TwinSetDone {
    /// The wish's id.
    pub id: String,
    /// Whether it was taken.
    pub ok: bool,
    /// By property, why it was not.
    #[serde(default, skip_serializing_if = "Props::is_empty")]
    pub refused: Props<String>,
    /// Why the whole was not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// The generation now.
    #[serde(default)]
    pub r#gen: Gen,
}
