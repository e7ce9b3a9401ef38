//! The columns of Deployments, ReplicaSets and DaemonSets.

use super::builtin::{Column, age, name, or_none};
use crate::meta::{array, text};
use crate::ops::selector::Labels;
use serde_json::{Value, json};

/// A count in the status; one that was never reported is 0.
fn number(object: &Value, pointer: &str) -> Value {
    json!(object.pointer(pointer).and_then(Value::as_i64).unwrap_or(0))
}

/// Containers, Images, Selector: the columns of `-o wide`.
fn wide(object: &Value) -> [Value; 3] {
    let containers = array(object, "/spec/template/spec/containers");
    let all = |field: &str| {
        let texts: Vec<&str> = containers.iter().map(|c| text(c, field)).collect();
        json!(texts.join(","))
    };
    let selector = Labels::of_selector(&object["spec"]["selector"])
        .map(|selector| selector.to_string())
        .unwrap_or_default();
    [all("/name"), all("/image"), or_none(&selector)]
}

pub const DEPLOYMENT: &[Column] = &[
    ("Name", "string", 0),
    ("Ready", "string", 0),
    ("Up-to-date", "string", 0),
    ("Available", "string", 0),
    ("Age", "string", 0),
    ("Containers", "string", 1),
    ("Images", "string", 1),
    ("Selector", "string", 1),
];

pub fn deployment(object: &Value) -> Vec<Value> {
    let ready = number(object, "/status/readyReplicas");
    let wanted = number(object, "/spec/replicas");
    let mut cells = vec![
        name(object),
        json!(format!("{ready}/{wanted}")),
        number(object, "/status/updatedReplicas"),
        number(object, "/status/availableReplicas"),
        age(object),
    ];
    cells.extend(wide(object));
    cells
}

pub const REPLICA_SET: &[Column] = &[
    ("Name", "string", 0),
    ("Desired", "integer", 0),
    ("Current", "integer", 0),
    ("Ready", "integer", 0),
    ("Age", "string", 0),
    ("Containers", "string", 1),
    ("Images", "string", 1),
    ("Selector", "string", 1),
];

pub fn replica_set(object: &Value) -> Vec<Value> {
    let mut cells = vec![
        name(object),
        number(object, "/spec/replicas"),
        number(object, "/status/replicas"),
        number(object, "/status/readyReplicas"),
        age(object),
    ];
    cells.extend(wide(object));
    cells
}

pub const DAEMON_SET: &[Column] = &[
    ("Name", "string", 0),
    ("Desired", "integer", 0),
    ("Current", "integer", 0),
    ("Ready", "integer", 0),
    ("Up-to-date", "integer", 0),
    ("Available", "integer", 0),
    ("Node Selector", "string", 0),
    ("Age", "string", 0),
    ("Containers", "string", 1),
    ("Images", "string", 1),
    ("Selector", "string", 1),
];

pub fn daemon_set(object: &Value) -> Vec<Value> {
    let nodes: Vec<String> = object
        .pointer("/spec/template/spec/nodeSelector")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or("")))
        .collect();
    let mut cells = vec![
        name(object),
        number(object, "/status/desiredNumberScheduled"),
        number(object, "/status/currentNumberScheduled"),
        number(object, "/status/numberReady"),
        number(object, "/status/updatedNumberScheduled"),
        number(object, "/status/numberAvailable"),
        or_none(&nodes.join(",")),
        age(object),
    ];
    cells.extend(wide(object));
    cells
}
