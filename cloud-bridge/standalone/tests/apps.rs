//! Deployments, ReplicaSets and DaemonSets as the API keeps them; nothing here makes pods.

#![allow(clippy::unwrap_used)]

mod common;

use common::*;
use serde_json::{Value, json};

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";

fn workload(kind: &str, spec: Value) -> Value {
    let mut object = json!({"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": "web"},
        "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "c", "image": "i:1"}]}}}});
    for (field, value) in spec.as_object().unwrap() {
        object["spec"][field] = value.clone();
    }
    object
}

#[tokio::test]
async fn a_deployment_is_scaled_and_its_status_is_its_controllers() {
    let (_dir, server) = server().await;
    let c = &server.client;
    let made = workload("Deployment", json!({"replicas": 2}));
    let made = c
        .post(&format!("{DEPLOYMENTS}?fieldValidation=Strict"), &made)
        .await
        .ok();
    assert_eq!(made["metadata"]["generation"], 1);
    assert_eq!(made["spec"]["strategy"]["type"], "RollingUpdate");
    assert!(
        made["spec"]["template"]["spec"]
            .get("enableServiceLinks")
            .is_none()
    );

    let web = format!("{DEPLOYMENTS}/web");
    let scale = c.get(&format!("{web}/scale")).await.ok();
    assert_eq!(
        (&scale["kind"], &scale["spec"]["replicas"]),
        (&json!("Scale"), &json!(2))
    );
    assert_eq!(scale["status"]["selector"], "app=web");
    let five = json!({"spec": {"replicas": 5}});
    c.patch(&format!("{web}/scale"), "merge", &five).await.ok();
    // The Scale that was read before is of a version that is gone.
    c.put(&format!("{web}/scale"), &scale)
        .await
        .refused(409, "Conflict");
    c.patch(
        &format!("{web}/scale"),
        "merge",
        &json!({"spec": {"replicas": -1}}),
    )
    .await
    .refused(422, "Invalid");
    let scaled = c.get(&web).await.ok();
    assert_eq!(
        (
            &scaled["spec"]["replicas"],
            &scaled["metadata"]["generation"]
        ),
        (&json!(5), &json!(2))
    );

    let status = json!({"spec": {"replicas": 9}, "status": {"replicas": 5, "readyReplicas": 4,
        "updatedReplicas": 5, "availableReplicas": 3, "observedGeneration": 2}});
    let done = c
        .patch(&format!("{web}/status"), "merge", &status)
        .await
        .ok();
    assert_eq!(
        (&done["spec"]["replicas"], &done["metadata"]["generation"]),
        (&json!(5), &json!(2))
    );
    let table = c.get_as(&web, TABLE).await.ok();
    let cells = table["rows"][0]["cells"].as_array().unwrap();
    assert_eq!(cells[..4], [json!("web"), json!("4/5"), json!(5), json!(3)]);
    assert_eq!(cells[5..], [json!("c"), json!("i:1"), json!("app=web")]);

    let other = json!({"spec": {"selector": {"matchLabels": {"app": "x"}}}});
    let why = c.patch(&web, "merge", &other).await.refused(422, "Invalid");
    assert!(why.contains("field is immutable"), "{why}");
    server.stop().await;
}

#[tokio::test]
async fn each_kind_of_apps_is_served_with_its_columns() {
    let (_dir, server) = server().await;
    let c = &server.client;
    for (plural, kind, spec, scales) in [
        ("deployments", "Deployment", json!({}), true),
        ("replicasets", "ReplicaSet", json!({"replicas": 3}), true),
        ("daemonsets", "DaemonSet", json!({}), false),
    ] {
        let at = format!("/apis/apps/v1/namespaces/default/{plural}");
        c.post(&at, &workload(kind, spec)).await.ok();
        let table = c.get_as(&at, TABLE).await.ok();
        let columns = table["columnDefinitions"].as_array().unwrap().len();
        assert_eq!(table["rows"][0]["cells"].as_array().unwrap().len(), columns);
        let scale = c.get(&format!("{at}/web/scale")).await;
        assert_eq!(scale.status.is_success(), scales, "{plural}");
        let bad = workload(kind, json!({"selector": {"matchLabels": {"app": "api"}}}));
        let why = c.post(&at, &bad).await.refused(422, "Invalid");
        assert!(
            why.contains("`selector` does not match template `labels`"),
            "{why}"
        );
    }
    let known = c.get("/apis/apps/v1").await.ok();
    let names: Vec<&str> = known["resources"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| r["name"].as_str().unwrap())
        .collect();
    for name in [
        "deployments",
        "deployments/scale",
        "deployments/status",
        "replicasets/scale",
        "daemonsets/status",
    ] {
        assert!(names.contains(&name), "{name} in {names:?}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_pod_is_bound_once_and_evicted_with_its_grace_period() {
    let (_dir, server) = server().await;
    let c = &server.client;
    let pod =
        json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}});
    c.post(PODS, &pod).await.ok();
    let mut watch = c
        .watch(
            &format!("{PODS}?watch=true&fieldSelector=spec.nodeName%3Dedge-0"),
            "",
        )
        .await;
    let binding = |node: &str| {
        json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p"},
        "target": {"kind": "Node", "name": node}})
    };
    let at = format!("{PODS}/p/binding");
    assert_eq!(c.post(&at, &binding("edge-0")).await.status, 201);
    assert_eq!(watch.named().await, ("ADDED".into(), "p".into()));
    c.post(&at, &binding("edge-1"))
        .await
        .refused(409, "Conflict");
    let eviction =
        json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}});
    assert_eq!(
        c.post(&format!("{PODS}/p/eviction"), &eviction)
            .await
            .status,
        201
    );
    let going = c.get(&format!("{PODS}/p")).await.ok();
    assert_eq!(going["metadata"]["deletionGracePeriodSeconds"], 30);
    server.stop().await;
}
