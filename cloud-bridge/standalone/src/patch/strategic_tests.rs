//! Strategic merge patches, with bodies as kubectl sends them.

use serde_json::{Value, json};

use super::{PatchError, strategic_patch};
use crate::schema::{Schema, builtin};

fn pods() -> Schema {
    builtin::schema("", "v1", "Pod").unwrap()
}

fn patched(kind: &Schema, target: Value, patch: Value) -> Value {
    strategic_patch(&target, &patch, kind).unwrap()
}

#[test]
fn containers_and_their_lists_merge_by_key() {
    let target = json!({"spec": {"containers": [
        {"name": "a", "image": "x", "env": [{"name": "E", "value": "1"}]},
        {"name": "b", "image": "y"},
    ]}});
    let patch = json!({"spec": {
        "$setElementOrder/containers": [{"name": "c"}, {"name": "a"}, {"name": "b"}],
        "containers": [
            {"name": "a", "image": "x2", "env": [{"name": "F", "value": "2"}]},
            {"name": "c", "image": "z"},
        ],
    }});
    assert_eq!(
        patched(&pods(), target, patch),
        json!({"spec": {"containers": [
            {"name": "c", "image": "z"},
            {"name": "a", "image": "x2",
             "env": [{"name": "E", "value": "1"}, {"name": "F", "value": "2"}]},
            {"name": "b", "image": "y"},
        ]}})
    );
}

#[test]
fn directives_delete_and_replace_elements() {
    let target = json!({"spec": {"containers": [{"name": "a"}, {"name": "b"}]}});
    let patch = json!({"spec": {"containers": [{"$patch": "delete", "name": "a"}]}});
    assert_eq!(
        patched(&pods(), target.clone(), patch),
        json!({"spec": {"containers": [{"name": "b"}]}})
    );
    let patch = json!({"spec": {"containers": [{"name": "c"}, {"$patch": "replace"}]}});
    assert_eq!(
        patched(&pods(), target, patch),
        json!({"spec": {"containers": [{"name": "c"}]}})
    );
}

#[test]
fn directives_delete_and_replace_maps() {
    let target = json!({"metadata": {"labels": {"a": "1", "b": "2"}}, "spec": {"x": {"y": 1}}});
    let patch = json!({
        "metadata": {"labels": {"$patch": "replace", "c": "3"}},
        "spec": {"x": {"$patch": "delete"}},
    });
    assert_eq!(
        patched(&pods(), target, patch),
        json!({"metadata": {"labels": {"c": "3"}}, "spec": {}})
    );
}

#[test]
fn a_null_removes_and_leaves_no_null_behind() {
    let target = json!({"metadata": {"labels": {"a": "1"}}});
    let patch = json!({"metadata": {"labels": {"a": null, "b": null}, "annotations": {"x": null}}});
    assert_eq!(
        patched(&pods(), target, patch),
        json!({"metadata": {"labels": {}, "annotations": {}}})
    );
}

#[test]
fn retained_keys_drop_the_other_members() {
    let deployments = builtin::schema("apps", "v1", "Deployment").unwrap();
    let target = json!({"spec": {"strategy": {
        "type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1},
    }}});
    let patch = json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}});
    assert_eq!(
        patched(&deployments, target, patch),
        json!({"spec": {"strategy": {"type": "Recreate"}}})
    );
    let target = json!({"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}});
    let patch = json!({"spec": {"volumes": [
        {"$retainKeys": ["name", "configMap"], "name": "v", "configMap": {"name": "c"}},
    ]}});
    assert_eq!(
        patched(&pods(), target, patch),
        json!({"spec": {"volumes": [{"name": "v", "configMap": {"name": "c"}}]}})
    );
}

#[test]
fn primitive_lists_merge_as_sets_and_can_lose_elements() {
    let target = json!({"metadata": {"finalizers": ["a", "b"]}});
    let patch = json!({"metadata": {
        "$deleteFromPrimitiveList/finalizers": ["a"],
        "$setElementOrder/finalizers": ["c", "b"],
        "finalizers": ["c"],
    }});
    assert_eq!(
        patched(&pods(), target, patch),
        json!({"metadata": {"finalizers": ["c", "b"]}})
    );
}

#[test]
fn conditions_and_addresses_of_a_node_merge_by_type_and_taints_are_replaced() {
    let nodes = builtin::schema("", "v1", "Node").unwrap();
    let target = json!({
        "spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]},
        "status": {
            "conditions": [{"type": "Ready", "status": "True"}, {"type": "Disk", "status": "False"}],
            "addresses": [{"type": "Hostname", "address": "n"}],
        },
    });
    let patch = json!({
        "spec": {"taints": [{"key": "b", "effect": "NoExecute"}]},
        "status": {
            "conditions": [{"type": "Ready", "status": "Unknown"}],
            "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}],
        },
    });
    assert_eq!(
        patched(&nodes, target, patch),
        json!({
            "spec": {"taints": [{"key": "b", "effect": "NoExecute"}]},
            "status": {
                "conditions": [{"type": "Ready", "status": "Unknown"}, {"type": "Disk", "status": "False"}],
                "addresses": [{"type": "Hostname", "address": "n"}, {"type": "InternalIP", "address": "10.0.0.1"}],
            },
        })
    );
}

#[test]
fn lists_without_a_key_are_replaced() {
    let target = json!({"spec": {"tolerations": [{"key": "a"}], "containers": [
        {"name": "c", "args": ["1", "2"]},
    ]}});
    let patch = json!({"spec": {"tolerations": [{"key": "b"}], "containers": [
        {"name": "c", "args": ["3"]},
    ]}});
    assert_eq!(patched(&pods(), target, patch.clone()), patch,);
}

#[test]
fn wrong_patches_say_what_is_wrong_and_where() {
    let target = json!({"spec": {"containers": [{"name": "a"}]}});
    let patch = json!({"spec": {"containers": [{"image": "x"}]}});
    let error = strategic_patch(&target, &patch, &pods()).unwrap_err();
    assert_eq!(
        error.to_string(),
        r#"spec.containers[0]: element {"image":"x"} does not contain the merge key "name""#
    );
    let patch = json!({"spec": {"$patch": "frobnicate"}});
    let error = strategic_patch(&target, &patch, &pods()).unwrap_err();
    assert!(
        matches!(error, PatchError::UnknownDirective { .. }),
        "{error}"
    );
    assert!(strategic_patch(&target, &json!([1]), &pods()).is_err());
}

mod properties {
    use super::*;
    use proptest::prelude::*;

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (0..5_i64).prop_map(Value::from),
            "[a-c]{0,2}".prop_map(Value::from),
            Just(json!("delete")),
            Just(json!("replace")),
        ];
        let key = prop_oneof![
            Just("spec".to_owned()),
            Just("metadata".to_owned()),
            Just("containers".to_owned()),
            Just("name".to_owned()),
            Just("finalizers".to_owned()),
            Just("$patch".to_owned()),
            Just("$retainKeys".to_owned()),
            Just("$setElementOrder/containers".to_owned()),
            Just("$deleteFromPrimitiveList/finalizers".to_owned()),
        ];
        leaf.prop_recursive(5, 40, 4, move |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map(key.clone(), inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    fn has_directive(value: &Value) -> bool {
        match value {
            Value::Object(map) => map
                .iter()
                .any(|(k, v)| k.starts_with('$') || has_directive(v)),
            Value::Array(list) => list.iter().any(has_directive),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn no_patch_panics_or_leaves_directives_in_the_object(patch in value()) {
            let target = json!({
                "metadata": {"name": "p", "finalizers": ["a", "b"]},
                "spec": {"containers": [{"name": "a"}, {"name": "b"}]},
            });
            if let Ok(result) = strategic_patch(&target, &patch, &pods()) {
                prop_assert!(!has_directive(&result), "{result}");
            }
        }

        #[test]
        fn an_empty_patch_changes_nothing(target in value()) {
            if target.is_object() {
                let result = strategic_patch(&target, &json!({}), &pods()).unwrap();
                prop_assert_eq!(result, target);
            }
        }
    }
}
