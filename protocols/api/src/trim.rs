//! What of a Kubernetes object goes to the edge. Both ends of the link hash the trimmed object, so
//! both call this one function.

use crate::Object;
use serde_json::Value;

/// Annotation in which `kubectl apply` keeps a copy of the object.
pub const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Drops what changes without meaning anything to a node: `status`, bookkeeping of the API server
/// (`managedFields`, `resourceVersion`, `selfLink`, `finalizers`) and kubectl's copy of the object.
/// Metadata maps that are then empty go too. Idempotent.
pub fn trim(object: &mut Object) {
    object.remove("status");
    let Some(Value::Object(meta)) = object.get_mut("metadata") else {
        return;
    };
    for field in ["managedFields", "resourceVersion", "selfLink", "finalizers"] {
        meta.remove(field);
    }
    if let Some(Value::Object(annotations)) = meta.get_mut("annotations") {
        annotations.remove(LAST_APPLIED);
    }
    meta.retain(|_, v| !matches!(v, Value::Object(m) if m.is_empty()) && !v.is_null());
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn trimmed(value: Value) -> Value {
        let Value::Object(mut object) = value else {
            panic!("an object");
        };
        trim(&mut object);
        Value::Object(object)
    }

    #[test]
    fn bookkeeping_goes_and_content_stays() {
        let before = json!({
            "kind": "Device",
            "metadata": {
                "name": "pump", "namespace": "plant", "uid": "u", "generation": 3,
                "resourceVersion": "77", "managedFields": [{}], "finalizers": ["x/y"],
                "deletionTimestamp": "2026-01-01T00:00:00Z",
                "annotations": { LAST_APPLIED: "{}" },
                "labels": {"a": "b"},
            },
            "spec": {"nodeName": "n"},
            "status": {"state": "online"},
        });
        let after = trimmed(before);
        assert_eq!(
            after,
            json!({
                "kind": "Device",
                "metadata": {
                    "name": "pump", "namespace": "plant", "uid": "u", "generation": 3,
                    "deletionTimestamp": "2026-01-01T00:00:00Z", "labels": {"a": "b"},
                },
                "spec": {"nodeName": "n"},
            })
        );
        assert_eq!(trimmed(after.clone()), after);
    }

    #[test]
    fn an_object_without_metadata_is_left_alone() {
        assert_eq!(trimmed(json!({"data": {}})), json!({"data": {}}));
    }
}
