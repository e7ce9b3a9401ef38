//! Nodes.

use crate::meta::{array, map_at, text};
use crate::schema::Cause;
use serde_json::Value;

/// What is allocatable is the whole capacity unless the node says otherwise.
pub fn default(node: &mut Value) {
    map_at(node, "spec");
    let status = map_at(node, "status");
    if let Some(capacity) = status.get("capacity").cloned()
        && !status.contains_key("allocatable")
    {
        status.insert("allocatable".into(), capacity);
    }
}

pub fn validate(node: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    let taints = array(node, "/spec/taints");
    for (i, taint) in taints.iter().enumerate() {
        let (key, effect) = (text(taint, "/key"), text(taint, "/effect"));
        if key.is_empty() {
            causes.push(Cause::required(format!("spec.taints[{i}].key"), ""));
        }
        if !matches!(effect, "NoSchedule" | "PreferNoSchedule" | "NoExecute") {
            let allowed = ["NoExecute", "NoSchedule", "PreferNoSchedule"];
            causes.push(Cause::not_supported(
                format!("spec.taints[{i}].effect"),
                &format!("{effect:?}"),
                &allowed.map(|a| format!("{a:?}")),
            ));
        }
        if taints[..i]
            .iter()
            .any(|t| text(t, "/key") == key && text(t, "/effect") == effect)
        {
            causes.push(Cause::duplicate(
                format!("spec.taints[{i}]"),
                &format!("{key}:{effect}"),
            ));
        }
    }
    if let Some(old) = old {
        let was = text(old, "/spec/providerID");
        if !was.is_empty() && was != text(node, "/spec/providerID") {
            causes.push(Cause::forbidden(
                "spec.providerID",
                "node updates may not change providerID except from \"\" to valid",
            ));
        }
    }
    causes
}
