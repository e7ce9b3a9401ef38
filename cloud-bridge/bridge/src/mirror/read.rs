//! Reading Kubernetes objects as the mirror keeps them: where they go, what of them travels.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use edgebus_bus::{Name, Scope, Topic, payload};
use edgebus_linkproto::{Hash, canonical_json};
use serde_json::Value;

use super::{Key, NodeRef, Nodes, Object};
use crate::place::CONDITION;
use crate::rows::{DEVICE, NODE_LABEL, NODES_ANNOTATION, Place, Row};
use crate::vault::ROLE_LABEL;

pub fn topic(row: &Row, key: &Key) -> Option<String> {
    let kind = Name::new(row.kind).ok()?;
    let ns = if key.ns.is_empty() {
        Scope::cluster()
    } else {
        key.ns.parse().ok()?
    };
    let name = Name::new(key.name.as_str()).ok()?;
    let topic = if row.sealed {
        Topic::Sealed { kind, ns, name }
    } else {
        Topic::Obj { kind, ns, name }
    };
    Some(topic.to_string())
}

pub(super) fn text<'a>(value: &'a Value, path: &str) -> &'a str {
    value
        .pointer(path)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

pub(super) fn read(row: &Row, key: &Key, mut object: Value) -> Object {
    let uid = text(&object, "/metadata/uid").to_owned();
    let nodes = match row.place {
        Place::Model => Nodes::None,
        Place::NodeName => match text(&object, "/spec/nodeName") {
            "" => Nodes::None,
            node => Nodes::Some(BTreeSet::from([node.to_owned()])),
        },
        Place::Marked => marked(&object),
    };
    let device = row.kind == DEVICE;
    let model = text(&object, "/spec/deviceModelRef/name");
    let model = (device && !model.is_empty()).then(|| Key::new(&key.ns, model));
    let summary = if device {
        summary(object.get("status").unwrap_or(&Value::Null))
    } else {
        Hash::UNKNOWN
    };
    let told = if device {
        told(&object["status"])
    } else {
        String::new()
    };
    if let Value::Object(map) = &mut object {
        edgebus_api::trim(map);
        // Items of a list come without them.
        let version = if row.group.is_empty() {
            row.version.to_owned()
        } else {
            format!("{}/{}", row.group, row.version)
        };
        map.insert("apiVersion".to_owned(), version.into());
        map.insert("kind".to_owned(), row.api_kind.into());
    }
    // What no node needs is not kept.
    let body = match nodes {
        Nodes::None if row.place != Place::Model => Bytes::new(),
        _ => Bytes::from(canonical_json(&object)),
    };
    let hash = Hash::of_bytes(&body);
    Object {
        uid,
        nodes,
        model,
        summary,
        told,
        body,
        hash,
    }
}

pub(super) fn marked(object: &Value) -> Nodes {
    let labels = &object["metadata"]["labels"];
    let annotations = &object["metadata"]["annotations"];
    let mut nodes = BTreeSet::new();
    if labels.get(ROLE_LABEL).is_some() {
        return Nodes::None; // the enrolment CA and its like go nowhere, whoever labels them
    }
    let Some(label) = labels.get(NODE_LABEL).and_then(Value::as_str) else {
        return Nodes::None;
    };
    let list = annotations
        .get(NODES_ANNOTATION)
        .and_then(Value::as_str)
        .unwrap_or_default();
    for node in list.split(',').map(str::trim).chain([label]) {
        match node {
            "" => {}
            "*" => return Nodes::All,
            node => {
                nodes.insert(node.to_owned());
            }
        }
    }
    if nodes.is_empty() {
        Nodes::None
    } else {
        Nodes::Some(nodes)
    }
}

/// What a device is told about its node, if anything.
fn told(status: &Value) -> String {
    let mut conditions = status["conditions"].as_array().into_iter().flatten();
    let condition = conditions.find(|c| c["type"] == CONDITION && c["status"] == "False");
    condition.map_or(String::new(), |c| text(c, "/message").to_owned())
}

/// What of a device's status `kubectl get devices` shows; times left out, or every sample would change it.
pub fn summary(status: &Value) -> Hash {
    let conditions = status["conditions"].as_array();
    let conditions: Vec<Value> = conditions
        .into_iter()
        .flatten()
        .map(|c| {
            Value::from(vec![
                c["type"].clone(),
                c["status"].clone(),
                c["reason"].clone(),
                c["message"].clone(),
            ])
        })
        .collect();
    let mapper = status["mapper"].as_str().unwrap_or_default();
    let state = status["state"].as_str().unwrap_or_default();
    Hash::of_json(&serde_json::json!([state, mapper, conditions]))
}

pub(super) fn read_node(name: &str, node: &Value) -> (NodeRef, payload::NodeSpec) {
    let uid = text(node, "/metadata/uid").to_owned();
    let labels: BTreeMap<String, String> =
        serde_json::from_value(node["metadata"]["labels"].clone()).unwrap_or_default();
    let conditions = node["status"]["conditions"].as_array();
    let ready = conditions
        .into_iter()
        .flatten()
        .find(|c| c["type"] == "Ready");
    let about = NodeRef {
        uid: uid.clone(),
        labels: labels.clone(),
        ready: ready
            .map(|c| text(c, "/status").to_owned())
            .unwrap_or_default(),
    };
    let spec = payload::NodeSpec {
        node: name.to_owned(),
        uid,
        labels,
        taints: node["spec"]["taints"]
            .as_array()
            .cloned()
            .unwrap_or_default(),
        unschedulable: node["spec"]["unschedulable"].as_bool().unwrap_or(false),
        ..payload::NodeSpec::default()
    };
    (about, spec)
}
