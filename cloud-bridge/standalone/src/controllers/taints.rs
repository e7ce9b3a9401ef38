//! What a node's Ready condition means for its taints, and what silence means for its
//! conditions. Pure.

use crate::meta::{array, condition, map_at, text};
use serde_json::{Value, json};

const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const NOT_READY: &str = "node.kubernetes.io/not-ready";

/// The conditions that become Unknown when a node falls silent.
const CONDITIONS: &[&str] = &["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

/// Marks the conditions of a silent node as unknown.
pub fn mark_silent(node: &mut Value, now: &str) {
    let created = text(node, "/metadata/creationTimestamp").to_owned();
    let conditions = map_at(node, "status")
        .entry("conditions")
        .or_insert(json!([]));
    let Some(conditions) = conditions.as_array_mut() else {
        return;
    };
    for kind in CONDITIONS {
        match conditions.iter_mut().find(|c| c["type"] == *kind) {
            None => conditions.push(json!({
                "type": kind, "status": "Unknown", "reason": "NodeStatusNeverUpdated",
                "message": "Kubelet never posted node status.",
                "lastHeartbeatTime": created, "lastTransitionTime": now,
            })),
            Some(condition) if condition["status"] != "Unknown" => {
                condition["status"] = json!("Unknown");
                condition["reason"] = json!("NodeStatusUnknown");
                condition["message"] = json!("Kubelet stopped posting node status.");
                condition["lastTransitionTime"] = json!(now);
            }
            Some(_) => {}
        }
    }
}

/// Makes the taints those of the Ready condition; others stay.
pub fn set(node: &mut Value, now: &str) {
    let ready = condition(node, "Ready").map(|c| text(c, "/status").to_owned());
    let wanted = match ready.as_deref() {
        Some("True") => None,
        Some("Unknown") => Some(UNREACHABLE),
        _ => Some(NOT_READY),
    };
    let present = array(node, "/spec/taints").to_vec();
    let mut taints: Vec<Value> = present
        .iter()
        .filter(|t| {
            let key = text(t, "/key");
            !matches!(key, UNREACHABLE | NOT_READY) || Some(key) == wanted
        })
        .cloned()
        .collect();
    if let Some(key) = wanted {
        for effect in ["NoSchedule", "NoExecute"] {
            if !taints
                .iter()
                .any(|t| text(t, "/key") == key && text(t, "/effect") == effect)
            {
                taints.push(json!({"key": key, "effect": effect, "timeAdded": now}));
            }
        }
    }
    if taints == present {
        return;
    }
    let spec = map_at(node, "spec");
    match taints.is_empty() {
        true => spec.remove("taints"),
        false => spec.insert("taints".into(), Value::Array(taints)),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn effects(node: &Value) -> Vec<String> {
        array(node, "/spec/taints")
            .iter()
            .map(|t| format!("{}:{}", text(t, "/key"), text(t, "/effect")))
            .collect()
    }

    #[test]
    fn a_silent_node_is_tainted_until_it_is_ready_again() {
        let mut node = json!({"metadata": {"name": "n"}, "spec": {"taints": [
            {"key": "mine", "effect": "NoSchedule"}]},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        let before = node.clone();
        set(&mut node, "t0");
        assert_eq!(node, before);
        mark_silent(&mut node, "t1");
        set(&mut node, "t1");
        let ready = condition(&node, "Ready").unwrap();
        assert_eq!(ready["status"], "Unknown");
        assert_eq!(ready["reason"], "NodeStatusUnknown");
        assert_eq!(
            condition(&node, "DiskPressure").unwrap()["reason"],
            "NodeStatusNeverUpdated"
        );
        assert_eq!(
            effects(&node),
            [
                "mine:NoSchedule",
                "node.kubernetes.io/unreachable:NoSchedule",
                "node.kubernetes.io/unreachable:NoExecute"
            ]
        );
        let again = node.clone();
        mark_silent(&mut node, "t2");
        set(&mut node, "t2");
        assert_eq!(node, again, "a second pass changes nothing");
        node["status"]["conditions"][0]["status"] = json!("False");
        set(&mut node, "t3");
        assert!(effects(&node)[1].starts_with(NOT_READY));
        node["status"]["conditions"][0]["status"] = json!("True");
        set(&mut node, "t4");
        assert_eq!(effects(&node), ["mine:NoSchedule"]);
    }
}
