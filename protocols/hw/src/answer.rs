//! Answers and announcements: what third parties receive, field for field as KubeEdge writes it.

use crate::ask::Head;
use crate::value::{to_text, type_name};
use edgebus_bus::payload::ValueType;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// Twins by property.
pub type Twins = BTreeMap<String, Twin>;

/// A property's twin.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Twin {
    /// What it should be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<TwinValue>,
    /// What it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actual: Option<TwinValue>,
    /// Whether it may be taken away.
    #[serde(default)]
    pub optional: bool,
    /// Its type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<TypeMeta>,
}

/// A value and when it was so.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TwinValue {
    /// As text.
    pub value: String,
    /// When.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<ValueMeta>,
}

/// When a value was so.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ValueMeta {
    /// Milliseconds since 1970.
    pub timestamp: i64,
}

/// Type of a property.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TypeMeta {
    /// `int`, `float`, `double`, `string`, `boolean`, `bytes`.
    #[serde(rename = "type")]
    pub kind: String,
}

impl Twin {
    /// From typed values, each with its milliseconds since 1970.
    pub fn new(
        kind: ValueType,
        expected: Option<(&Value, Option<i64>)>,
        actual: Option<(&Value, Option<i64>)>,
    ) -> Self {
        let value = |(value, at): (&Value, Option<i64>)| TwinValue {
            value: to_text(value),
            metadata: at.map(|timestamp| ValueMeta { timestamp }),
        };
        Self {
            expected: expected.map(value),
            actual: actual.map(value),
            optional: true,
            metadata: Some(TypeMeta {
                kind: type_name(kind).to_owned(),
            }),
        }
    }
}

/// `twin/get/result`, `twin/update/result`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TwinResult {
    /// Id of the request, time of the answer.
    #[serde(flatten)]
    pub head: Head,
    /// The twins asked for, or accepted.
    pub twin: Twins,
}

/// Any request's refusal, on its `/result` topic.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Refusal {
    /// Id of the request, time of the answer.
    #[serde(flatten)]
    pub head: Head,
    /// 400 wrong request, 404 no such device, 500 not now.
    pub code: u16,
    /// What was wrong, where, the value, what is allowed.
    pub reason: String,
}

/// `twin/update/document`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Document {
    /// Id of the request, time of the change.
    #[serde(flatten)]
    pub head: Head,
    /// By property.
    pub twin: BTreeMap<String, Change>,
}

/// A twin before and after.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Change {
    /// Before; null if there was none.
    pub last: Option<Twin>,
    /// After; null if there is none.
    pub current: Option<Twin>,
}

/// `twin/update/delta`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Delta {
    /// Id of the request, time of the change.
    #[serde(flatten)]
    pub head: Head,
    /// The whole twin.
    pub twin: Twins,
    /// Expected values that differ from the actual ones.
    pub delta: BTreeMap<String, String>,
}

impl Delta {
    /// None if nothing expected differs. `differs` decides where equal values have several texts.
    pub fn new(head: Head, twin: Twins, differs: impl Fn(&str) -> bool) -> Option<Self> {
        let delta: BTreeMap<_, _> = twin
            .iter()
            .filter_map(|(name, t)| Some((name.clone(), t.expected.as_ref()?.value.clone())))
            .filter(|(name, value)| !value.is_empty() && differs(name))
            .collect();
        (!delta.is_empty()).then_some(Self { head, twin, delta })
    }
}

/// `state/update/result`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct StateResult {
    /// Id of the request, time of the answer.
    #[serde(flatten)]
    pub head: Head,
    /// The device now.
    pub device: DeviceState,
}

/// State of a device.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DeviceState {
    /// Its name.
    pub name: String,
    /// online, offline, unhealthy, unknown.
    pub state: String,
    /// RFC 3339; empty if it never was.
    #[serde(rename = "lastOnlineTime", default)]
    pub last_online_time: String,
}

/// `membership/get/result`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Membership {
    /// Id of the request, time of the answer.
    #[serde(flatten)]
    pub head: Head,
    /// This node's devices.
    pub devices: Vec<Member>,
}

/// One of a node's devices.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Member {
    /// `ns/name`.
    pub id: String,
    /// Its name.
    pub name: String,
    /// For people.
    #[serde(default)]
    pub description: String,
    /// online, offline, unhealthy, unknown.
    #[serde(default)]
    pub state: String,
    /// RFC 3339; empty if it never was.
    #[serde(default)]
    pub last_online: String,
    /// Always empty: v1beta1 devices have none.
    #[serde(default)]
    pub attributes: BTreeMap<String, Value>,
}

/// `membership/updated`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct MembershipUpdated {
    /// Empty id, time of the change.
    #[serde(flatten)]
    pub head: Head,
    /// Devices that came; null if none did.
    pub added_devices: Option<Vec<NewMember>>,
    /// Devices that went; null if none did.
    pub removed_devices: Option<Vec<NewMember>>,
}

/// A device that came or went.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NewMember {
    /// `ns/name`.
    pub id: String,
    /// Its name.
    pub name: String,
    /// For people.
    #[serde(default)]
    pub description: String,
    /// Always null: v1beta1 devices have none.
    pub attributes: Option<BTreeMap<String, Value>>,
    /// Always null here.
    pub twin: Option<Twins>,
}
