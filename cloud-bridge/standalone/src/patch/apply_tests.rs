//! Server-side apply, case by case, on Deployments, Services and a custom resource.

use serde_json::{Value, json};

use super::{ApplyError, Operation, Part, Who, apply, track_update};
use crate::schema::{Schema, builtin};

const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

fn deployments() -> Schema {
    builtin::schema("apps", "v1", "Deployment").unwrap()
}

fn who(manager: &str) -> Who<'_> {
    Who {
        manager,
        api_version: "apps/v1",
        subresource: "",
        now: "2026-11-23T21:00:00Z",
        part: Part::WithoutStatus,
    }
}

fn deployment(spec: Value) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": spec,
    })
}

fn containers(list: Value) -> Value {
    deployment(json!({"template": {"spec": {"containers": list}}}))
}

fn applied(live: Option<&Value>, config: &Value, manager: &str) -> Value {
    apply(live, config, &deployments(), &who(manager), false).unwrap()
}

fn conflicts(live: &Value, config: &Value, manager: &str) -> Vec<String> {
    match apply(Some(live), config, &deployments(), &who(manager), false) {
        Err(ApplyError::Conflict(list)) => list.into_iter().map(|c| c.field).collect(),
        other => panic!("expected a conflict, got {other:?}"),
    }
}

fn owned(object: &Value, manager: &str, operation: Operation) -> Value {
    let entries = object["metadata"]["managedFields"].as_array().unwrap();
    entries
        .iter()
        .find(|e| e["manager"] == manager && e["operation"] == operation.as_str())
        .unwrap_or_else(|| panic!("no {manager} in {entries:?}"))["fieldsV1"]
        .clone()
}

#[test]
fn the_first_apply_creates_the_object_and_records_its_fields() {
    let config = deployment(json!({
        "replicas": 2,
        "template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{
                "name": "c", "image": "nginx",
                "ports": [{"containerPort": 80}],
                "args": ["a", "b"],
            }]},
        },
    }));
    let object = applied(None, &config, "me");
    assert_eq!(object["spec"], config["spec"]);
    assert_eq!(
        owned(&object, "me", Operation::Apply),
        json!({"f:spec": {
            "f:replicas": {},
            "f:template": {
                "f:metadata": {"f:labels": {"f:app": {}}},
                "f:spec": {"f:containers": {"k:{\"name\":\"c\"}": {
                    ".": {}, "f:name": {}, "f:image": {}, "f:args": {},
                    "f:ports": {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {
                        ".": {}, "f:containerPort": {}
                    }},
                }}},
            },
        }})
    );
}

#[test]
fn the_same_apply_again_changes_nothing_not_even_the_time() {
    let config = containers(json!([{"name": "c", "image": "nginx"}]));
    let first = applied(None, &config, "me");
    let later = Who {
        now: "2027-01-01T00:00:00Z",
        ..who("me")
    };
    let second = apply(Some(&first), &config, &deployments(), &later, false).unwrap();
    assert_eq!(first, second);
}

#[test]
fn two_managers_own_different_containers_of_one_list() {
    let one = applied(
        None,
        &containers(json!([{"name": "a", "image": "x"}])),
        "one",
    );
    let both = applied(
        Some(&one),
        &containers(json!([{"name": "b", "image": "y"}])),
        "two",
    );
    assert_eq!(
        both["spec"]["template"]["spec"]["containers"],
        json!([{"name": "a", "image": "x"}, {"name": "b", "image": "y"}])
    );
    // Who stops applying a container removes it; the other's stays.
    let left = applied(Some(&both), &deployment(json!({"replicas": 1})), "one");
    assert_eq!(
        left["spec"]["template"]["spec"]["containers"],
        json!([{"name": "b", "image": "y"}])
    );
}

#[test]
fn a_field_that_is_no_longer_applied_goes_unless_another_owns_it() {
    let with = |labels: Value| {
        let mut config = deployment(json!({"replicas": 1}));
        config["metadata"]["labels"] = labels;
        config
    };
    let one = applied(None, &with(json!({"a": "1", "b": "2"})), "one");
    let two = applied(Some(&one), &with(json!({"b": "2"})), "two");
    let dropped = applied(Some(&two), &with(json!({})), "one");
    assert_eq!(dropped["metadata"]["labels"], json!({"b": "2"}));
}

#[test]
fn the_identity_stays_when_all_other_metadata_is_dropped() {
    let mut config = deployment(json!({"replicas": 1}));
    config["metadata"]["labels"] = json!({"a": "b"});
    let mut live = applied(None, &config, "one");
    live["metadata"]["uid"] = json!("u");
    let live = applied(Some(&live), &deployment(json!({"replicas": 1})), "one");
    assert_eq!(live["metadata"]["name"], "web");
    assert_eq!(live["metadata"]["uid"], "u");
    assert!(live["metadata"].get("labels").is_none());
}

#[test]
fn a_dropped_struct_takes_its_unowned_defaults_along() {
    let probe = json!([{"name": "c", "livenessProbe": {"httpGet": {"path": "/", "port": 80}}}]);
    let mut live = applied(None, &containers(probe), "me");
    live["spec"]["template"]["spec"]["containers"][0]["livenessProbe"]["periodSeconds"] = json!(10);
    let live = applied(Some(&live), &containers(json!([{"name": "c"}])), "me");
    assert_eq!(
        live["spec"]["template"]["spec"]["containers"],
        json!([{"name": "c"}])
    );
}

#[test]
fn another_managers_value_is_a_conflict_and_the_same_value_is_shared() {
    let live = applied(None, &deployment(json!({"replicas": 1})), "one");
    assert_eq!(
        conflicts(&live, &deployment(json!({"replicas": 2})), "two"),
        [".spec.replicas"]
    );
    let shared = applied(Some(&live), &deployment(json!({"replicas": 1})), "two");
    let expected = json!({"f:spec": {"f:replicas": {}}});
    assert_eq!(owned(&shared, "one", Operation::Apply), expected);
    assert_eq!(owned(&shared, "two", Operation::Apply), expected);
}

#[test]
fn force_takes_the_field_over() {
    let live = applied(
        None,
        &deployment(json!({"replicas": 1, "paused": true})),
        "one",
    );
    let config = deployment(json!({"replicas": 2}));
    let forced = apply(Some(&live), &config, &deployments(), &who("two"), true).unwrap();
    assert_eq!(forced["spec"]["replicas"], 2);
    assert_eq!(
        owned(&forced, "one", Operation::Apply),
        json!({"f:spec": {"f:paused": {}}})
    );
}

#[test]
fn conflicts_are_told_in_the_words_of_the_api_server() {
    let live = {
        let mut live = containers(json!([{"name": "c", "image": "x"}]));
        live["spec"]["replicas"] = json!(1);
        track_update(None, &mut live, &deployments(), &who("kubectl-edit"));
        live
    };
    let mut config = containers(json!([{"name": "c", "image": "y"}]));
    let error = |config: &Value| {
        apply(Some(&live), config, &deployments(), &who("two"), false)
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        error(&config),
        "Apply failed with 1 conflict: conflict with \"kubectl-edit\" using apps/v1: \
         .spec.template.spec.containers[name=\"c\"].image"
    );
    config["spec"]["replicas"] = json!(3);
    assert_eq!(
        error(&config),
        "Apply failed with 2 conflicts: conflicts with \"kubectl-edit\" using apps/v1:\n\
         - .spec.replicas\n- .spec.template.spec.containers[name=\"c\"].image"
    );
}

#[test]
fn server_side_kubectl_takes_over_what_client_side_kubectl_applied() {
    let config = deployment(json!({"replicas": 1}));
    let mut live = config.clone();
    live["metadata"]["annotations"] = json!({LAST_APPLIED: config.to_string()});
    track_update(
        None,
        &mut live,
        &deployments(),
        &who("kubectl-client-side-apply"),
    );
    let new = deployment(json!({"replicas": 5}));
    let object = applied(Some(&live), &new, "kubectl");
    assert_eq!(object["spec"]["replicas"], 5);
    // A client-side apply that follows finds what was applied last.
    let annotation = &object["metadata"]["annotations"][LAST_APPLIED];
    assert_eq!(*annotation, format!("{new}\n"));
    assert_eq!(conflicts(&live, &new, "flux"), [".spec.replicas"]);
}

#[test]
fn an_object_without_a_record_belongs_to_before_first_apply() {
    let live = deployment(json!({"replicas": 1}));
    assert_eq!(
        conflicts(&live, &deployment(json!({"replicas": 2})), "me"),
        [".spec.replicas"]
    );
}

#[test]
fn an_update_owns_what_it_changed_and_others_lose_it() {
    let live = applied(
        None,
        &deployment(json!({"replicas": 1, "paused": true})),
        "one",
    );
    let mut new = live.clone();
    new["spec"]["replicas"] = json!(4);
    new["spec"]["paused"].take();
    if let Some(spec) = new["spec"].as_object_mut() {
        spec.remove("paused");
    }
    track_update(Some(&live), &mut new, &deployments(), &who("two"));
    assert_eq!(
        owned(&new, "two", Operation::Update),
        json!({"f:spec": {"f:replicas": {}}})
    );
    let entries = new["metadata"]["managedFields"].as_array().unwrap();
    assert_eq!(entries.len(), 1, "{entries:?}");
}

#[test]
fn an_update_that_changes_nothing_leaves_the_record_alone() {
    let live = applied(None, &deployment(json!({"replicas": 1})), "one");
    let mut new = live.clone();
    if let Some(metadata) = new["metadata"].as_object_mut() {
        metadata.remove("managedFields");
    }
    track_update(Some(&live), &mut new, &deployments(), &who("two"));
    assert_eq!(new, live);
}

#[test]
fn an_update_is_not_the_apply_of_the_same_name() {
    let old = applied(
        None,
        &deployment(json!({"replicas": 1, "paused": true})),
        "one",
    );
    let mut new = old.clone();
    new["spec"]["replicas"] = json!(2);
    track_update(Some(&old), &mut new, &deployments(), &who("one"));
    assert_eq!(
        owned(&new, "one", Operation::Update),
        json!({"f:spec": {"f:replicas": {}}})
    );
    assert_eq!(
        owned(&new, "one", Operation::Apply),
        json!({"f:spec": {"f:paused": {}}})
    );
    let config = deployment(json!({"replicas": 3, "paused": true}));
    assert_eq!(conflicts(&new, &config, "one"), [".spec.replicas"]);
}

#[test]
fn a_record_can_be_reset_but_not_applied() {
    let live = applied(None, &deployment(json!({"replicas": 1})), "one");
    let mut reset = live.clone();
    reset["metadata"]["managedFields"] = json!([{}]);
    track_update(Some(&live), &mut reset, &deployments(), &who("two"));
    assert!(reset["metadata"].get("managedFields").is_none());
    let error = apply(Some(&live), &live, &deployments(), &who("two"), false).unwrap_err();
    assert_eq!(error, ApplyError::ManagedFieldsSet);
}

#[test]
fn status_and_spec_are_owned_through_their_own_endpoints() {
    let status = |who: Who<'static>| Who {
        part: Part::Status,
        subresource: "status",
        ..who
    };
    let live = applied(None, &deployment(json!({"replicas": 1})), "one");
    let mut config = deployment(json!({"replicas": 9}));
    config["status"] = json!({"replicas": 1});
    let object = apply(
        Some(&live),
        &config,
        &deployments(),
        &status(who("ctl")),
        false,
    )
    .unwrap();
    assert_eq!(object["spec"]["replicas"], 1);
    assert_eq!(object["status"]["replicas"], 1);
    assert_eq!(
        owned(&object, "ctl", Operation::Apply),
        json!({"f:status": {"f:replicas": {}}})
    );
    // And the main endpoint leaves the status alone.
    config["status"]["replicas"] = json!(7);
    config["spec"]["replicas"] = json!(1);
    let object = applied(Some(&object), &config, "one");
    assert_eq!(object["status"]["replicas"], 1);
}

#[test]
fn managers_of_updates_are_bounded() {
    let mut live = deployment(json!({"replicas": 0}));
    let names: Vec<String> = (0..20).map(|i| format!("m{i}")).collect();
    for (i, name) in names.iter().enumerate() {
        let mut new = live.clone();
        new["metadata"]["annotations"][format!("a{i}")] = json!("x");
        let now = format!("2026-11-23T21:00:{i:02}Z");
        let who = Who {
            now: &now,
            ..who(name)
        };
        track_update(Some(&live), &mut new, &deployments(), &who);
        live = new;
    }
    let entries = live["metadata"]["managedFields"].as_array().unwrap();
    assert!(entries.len() <= 11, "{}", entries.len());
    assert!(entries.iter().any(|e| e["manager"] == "ancient-changes"));
}

#[test]
fn lists_of_custom_resources_merge_by_their_declared_keys() {
    let schema = Schema::custom(Some(&json!({
        "type": "object",
        "properties": {"spec": {"type": "object", "properties": {
            "twins": {
                "type": "array",
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["name"],
                "items": {"type": "object", "properties": {
                    "name": {"type": "string"}, "value": {"type": "string"}
                }},
            },
            "tags": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
            "plain": {"type": "array", "items": {"type": "string"}},
        }}},
    })))
    .unwrap();
    let device = |spec: Value| json!({"apiVersion": "d/v1", "kind": "D", "metadata": {"name": "x"}, "spec": spec});
    let one =
        device(json!({"twins": [{"name": "a", "value": "1"}], "tags": ["x"], "plain": ["p"]}));
    let two = device(json!({"twins": [{"name": "b", "value": "2"}], "tags": ["y"]}));
    let live = apply(None, &one, &schema, &who("one"), false).unwrap();
    let live = apply(Some(&live), &two, &schema, &who("two"), false).unwrap();
    assert_eq!(
        live["spec"],
        json!({
            "twins": [{"name": "a", "value": "1"}, {"name": "b", "value": "2"}],
            "tags": ["x", "y"],
            "plain": ["p"],
        })
    );
    let live = apply(Some(&live), &device(json!({})), &schema, &who("one"), false).unwrap();
    assert_eq!(
        live["spec"],
        json!({"twins": [{"name": "b", "value": "2"}], "tags": ["y"]})
    );
}

mod properties {
    use super::*;
    use proptest::prelude::*;

    fn spec() -> impl Strategy<Value = Value> {
        let labels = proptest::collection::btree_map("[a-c]", "[x-z]", 0..3);
        let container = ("[a-c]", "[x-z]", proptest::collection::vec("[p-r]", 0..2))
            .prop_map(|(name, image, args)| json!({"name": name, "image": image, "args": args}));
        let list = proptest::collection::vec(container, 0..3).prop_map(|mut list| {
            let mut seen = std::collections::BTreeSet::new();
            list.retain(|c| seen.insert(c["name"].to_string()));
            list
        });
        (0..3_i32, labels, list).prop_map(|(replicas, labels, list)| {
            json!({"replicas": replicas, "template": {
                "metadata": {"labels": labels}, "spec": {"containers": list},
            }})
        })
    }

    proptest! {
        #[test]
        fn a_forced_apply_always_holds_and_a_second_one_changes_nothing(
            specs in proptest::collection::vec((spec(), 0..3_usize), 1..5),
        ) {
            let managers = ["one", "two", "three"];
            let mut live: Option<Value> = None;
            for (spec, manager) in specs {
                let mut config = deployment(spec);
                let labels = config["spec"]["template"]["metadata"]["labels"].clone();
                config["metadata"]["labels"] = labels;
                let who = who(managers[manager]);
                let new = apply(live.as_ref(), &config, &deployments(), &who, true).unwrap();
                prop_assert_eq!(&new["metadata"]["name"], "web");
                prop_assert_eq!(&new["spec"]["replicas"], &config["spec"]["replicas"]);
                for wanted in config["spec"]["template"]["spec"]["containers"].as_array().unwrap() {
                    let list = new["spec"]["template"]["spec"]["containers"].as_array().unwrap();
                    prop_assert!(list.contains(wanted), "{wanted} in {list:?}");
                }
                let again = apply(Some(&new), &config, &deployments(), &who, false).unwrap();
                prop_assert_eq!(&again, &new);
                live = Some(new);
            }
        }
    }
}
