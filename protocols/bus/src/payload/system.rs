//! Payloads of components, the node, the link, mirrored objects and events.

use super::Object;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// How a component is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Up {
    /// Works.
    Up,
    /// Works in part; `why` says what does not.
    Degraded,
    /// Is gone.
    Down,
}

/// `sys/{c}/health`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// How it is.
    pub state: Up,
    /// Random id of this start of the process.
    #[serde(default)]
    pub boot: String,
    /// Process id.
    #[serde(default)]
    pub pid: u32,
    /// Version of the program.
    #[serde(default)]
    pub version: String,
    /// Why it is not simply up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// `sys/{c}/ask`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ask {
    /// Chosen by the asker, repeated in the answer.
    pub id: String,
    /// `ping`, `log-level` or `dump`.
    pub op: String,
    /// What the operation needs.
    #[serde(default)]
    pub args: Object,
}

/// `sys/{c}/tell`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tell {
    /// The question's id.
    pub id: String,
    /// Whether it worked.
    pub ok: bool,
    /// The answer.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub data: Value,
    /// Why it did not work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// State of the cloud link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LinkUp {
    /// Connected and admitted.
    Up,
    /// Not connected.
    Down,
    /// This node has not been enrolled yet.
    Joining,
    /// Connected, but the cloud is not the one this node was joined to: nothing is applied.
    Refused,
}

/// What waits to go up.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Spool {
    /// Messages waiting.
    pub rows: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Time of the oldest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest: Option<String>,
    /// Messages given up since the store was made, because the spool was full or they too old.
    pub dropped: u64,
}

/// `link`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LinkState {
    /// How it is.
    pub state: LinkUp,
    /// Since when.
    pub since: String,
    /// Round trip to the cloud.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt_ms: Option<f64>,
    /// What waits.
    #[serde(default)]
    pub spool: Spool,
    /// When the certificate ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cert_until: Option<String>,
    /// Kinds whose mirror was equal to the cloud's at the last comparison.
    #[serde(default)]
    pub synced: Vec<String>,
    /// Why it is not up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// `node/spec`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct NodeSpec {
    /// The node's name.
    pub node: String,
    /// uid of the Node object.
    #[serde(default)]
    pub uid: String,
    /// Labels of the Node object.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Kubernetes taints.
    #[serde(default)]
    pub taints: Vec<Value>,
    /// Whether it is cordoned.
    #[serde(default)]
    pub unschedulable: bool,
    /// Free configuration.
    #[serde(default)]
    pub config: Object,
}

/// `node/status`: Kubernetes' NodeStatus (`capacity`, `allocatable`, `conditions`, `addresses`,
/// `nodeInfo`, `images`) as it goes into `Node.status`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct NodeStatus {
    /// The node's name.
    pub node: String,
    /// Kubernetes' NodeStatus.
    pub status: Object,
}

/// `node/beat`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beat {
    /// Counts beats since edged started.
    pub seq: u64,
    /// How long the last pass over the runtime took.
    pub loop_ok_ms: u64,
}

/// `obj/{kind}/{ns}/{name}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Obj {
    /// link's own counter within one store.
    pub rev: u64,
    /// Kubernetes uid: another uid is another object.
    pub uid: String,
    /// The object, trimmed.
    pub obj: Object,
}

/// `sealed/{kind}/{ns}/{name}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    /// link's own counter within one store.
    pub rev: u64,
    /// Kubernetes uid.
    pub uid: String,
    /// Which sealing key opens it.
    pub key_id: String,
    /// Base64 of the HPKE encapsulated key followed by the ciphertext.
    #[serde(rename = "box")]
    pub sealed: String,
}

/// `sync/{kind}`: until this exists nobody deletes what it cannot find.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncMark {
    /// The bus store that holds the mirror.
    pub store_id: String,
    /// uid of the cluster's kube-system namespace.
    pub cluster_id: String,
    /// Whether the whole list has been here.
    pub complete: bool,
    /// When.
    pub at: String,
}

/// `pod/{ns}/{name}/status`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PodStatus {
    /// uid of the pod.
    pub uid: String,
    /// `rev` of the object that was acted on.
    pub rev_seen: u64,
    /// Kubernetes' PodStatus.
    pub status: Object,
}

/// `event/{c}`: becomes a Kubernetes Event. A repeat has the same `name` and is the same event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Name of the Event object: derived from what it says, never random.
    pub name: String,
    /// The object it is about.
    pub regarding: Regarding,
    /// `Normal` or `Warning`.
    #[serde(rename = "type")]
    pub kind: String,
    /// CamelCase word for machines.
    pub reason: String,
    /// Sentence for people.
    pub note: String,
    /// When it was last seen.
    pub at: String,
    /// How often.
    #[serde(default = "one")]
    pub count: u32,
}

fn one() -> u32 {
    1
}

/// The object that an event is about.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Regarding {
    /// `devices.kubeedge.io/v1beta1`, `v1`, …
    pub api_version: String,
    /// `Device`, `Node`, …
    pub kind: String,
    /// Empty for cluster-scoped objects.
    #[serde(default)]
    pub namespace: String,
    /// Name.
    pub name: String,
    /// uid, if known.
    #[serde(default)]
    pub uid: String,
}
