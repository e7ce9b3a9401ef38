//! What people are told who made a mistake, and what heals by itself.

#![allow(clippy::unwrap_used, dead_code)]

mod support;

use std::time::Duration;

use edgebus_bridge::{BadKubeconfig, Config, NAMESPACE, TokenSpec};
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use support::{Cloud, Edge, eventually};
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

fn device(node: &str) -> Value {
    json!({
        "apiVersion": "devices.kubeedge.io/v1beta1", "kind": "Device",
        "metadata": { "name": "p1" },
        "spec": {
            "nodeName": node, "deviceModelRef": { "name": "pump" },
            "protocol": { "protocolName": "modbus", "configData": {} },
        },
    })
}

fn say_twin(edge: &mut Edge, uid: &str) {
    let topic = edgebus_bus::Topic::Twin {
        ns: "default".parse().unwrap(),
        name: "p1".parse().unwrap(),
    };
    let twin = json!({
        "uid": uid, "gen": { "store": "s", "n": 1 }, "model": "pump", "mapper": "modbus", "state": "online",
        "props": { "speed": { "reported": 5, "synced": true } },
        "conditions": [{ "type": "Synced", "status": "True", "reason": "AsWanted", "message": "", "lastTransitionTime": "2026-11-23T10:00:00Z" }],
    });
    edge.say("twin", &topic.to_string(), uid, twin);
}

/// The state and the first condition of an object: what it is about and why.
fn told(status: &Value) -> (Value, Value, Value) {
    let first = &status["conditions"][0];
    (
        status["state"].clone(),
        first["type"].clone(),
        first["reason"].clone(),
    )
}

#[tokio::test]
async fn a_device_of_no_node_says_so_until_the_node_is_there() {
    let cloud = Cloud::start().await;
    let devices = cloud.devices();
    let uid = cloud.create(&devices, device("gw")).await.metadata.uid;
    let uid = uid.unwrap();
    let now = || async {
        let device = devices.get("p1").await.map_err(|e| e.to_string())?;
        Ok::<_, String>(told(&device.data["status"]))
    };
    let is = |wanted: (Value, Value, Value)| async move {
        let now = now().await?;
        if now == wanted {
            Ok(())
        } else {
            Err(format!("{now:?}"))
        }
    };
    let homeless = (json!("unknown"), json!("Assigned"), json!("NodeNotFound"));
    eventually(
        "it says that its node is not there",
        || is(homeless.clone()),
    )
    .await;
    let events = cloud.core("Event", "events", Some("default"));
    let found = eventually("an Event says it", || async {
        let list = events.list(&ListParams::default()).await;
        let list = list.map_err(|e| e.to_string())?.items;
        let ours = |e: &kube::api::DynamicObject| e.data["reason"] == "NodeNotFound";
        list.into_iter().find(ours).ok_or_else(|| "none".to_owned())
    })
    .await;
    assert_eq!(found.data["involvedObject"]["uid"], json!(uid));
    let message = found.data["message"].as_str().unwrap();
    assert!(
        message.contains("no edge node is named \"gw\""),
        "{message}"
    );

    let mut edge = Edge::join(&cloud, "gw").await;
    edge.connect().await;
    let silent = (json!("unknown"), Value::Null, Value::Null);
    edge.during(eventually("it says so no more", || is(silent.clone())))
        .await;
    edge.until("the device came", |edge| {
        edge.get("device/default/p1").is_some()
    })
    .await;
    say_twin(&mut edge, &uid);
    let online = (json!("online"), json!("Synced"), json!("AsWanted"));
    edge.during(eventually("the node speaks of it", || is(online.clone())))
        .await;

    let patch = Patch::Merge(json!({ "spec": { "nodeName": "nowhere" } }));
    let moved = devices.patch("p1", &PatchParams::default(), &patch).await;
    moved.unwrap();
    edge.during(eventually("it moved to no node", || is(homeless.clone())))
        .await;
    let status = cloud.statuses().get("p1").await.unwrap();
    assert_eq!(told(&status.data["status"]), homeless);
    cloud.stop().await;
}

#[tokio::test]
async fn a_devicestatus_that_somebody_deleted_comes_again() {
    let cloud = Cloud::start().await;
    let mut edge = Edge::join(&cloud, "gw").await;
    edge.connect().await;
    let uid = cloud.create(&cloud.devices(), device("gw")).await;
    let uid = uid.metadata.uid.unwrap();
    edge.until("the device came", |edge| {
        edge.get("device/default/p1").is_some()
    })
    .await;
    say_twin(&mut edge, &uid);
    let statuses = cloud.statuses();
    let shown = || async {
        let status = statuses.get("p1").await.map_err(|e| e.to_string())?;
        match status.data["status"]["state"].as_str() {
            Some("online") => Ok(status.metadata.uid),
            other => Err(format!("{other:?}")),
        }
    };
    let first = edge.during(eventually("the status is there", shown)).await;
    statuses.delete("p1", &Default::default()).await.unwrap();
    let second = edge.during(eventually("it is there again", shown)).await;
    assert_ne!(first, second);
    cloud.stop().await;
}

#[tokio::test]
async fn a_kubeconfig_that_is_missing_or_wrong_ends_the_bridge_and_an_api_that_is_away_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("kubeconfig");
    let run = || async {
        let config = Config {
            kubeconfig: Some(file.clone()),
            ..Config::default()
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let run = edgebus_bridge::run(config, listener, CancellationToken::new());
        timeout(Duration::from_millis(500), run).await
    };
    let kubeconfig = |server: &str, context: &str| {
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": context,
            "clusters": [{ "name": "c", "cluster": { "server": server } }],
            "users": [{ "name": "u", "user": {} }],
            "contexts": [{ "name": "c", "context": { "cluster": "c", "user": "u" } }],
        })
        .to_string()
    };
    for (what, text) in [
        ("missing", None),
        ("no YAML", Some("{".to_owned())),
        (
            "no such context",
            Some(kubeconfig("https://127.0.0.1:1", "x")),
        ),
        ("no address", Some(kubeconfig("https://[", "c"))),
    ] {
        if let Some(text) = text {
            std::fs::write(&file, text).unwrap();
        }
        let error = run().await.expect(what).unwrap_err();
        let bad = error.downcast::<BadKubeconfig>().expect(what);
        let said = bad.to_string();
        assert!(said.contains(file.to_str().unwrap()), "{what}: {said}");
    }
    std::fs::write(&file, kubeconfig("https://127.0.0.1:1", "c")).unwrap();
    assert!(run().await.is_err(), "it goes on trying");
}

#[tokio::test]
async fn what_cannot_be_meant_is_refused() {
    let cloud = Cloud::start().await;
    let config = Some(cloud.kubeconfig());
    let revoked = edgebus_bridge::node_revoke(config.clone(), NAMESPACE, "nosuch").await;
    assert!(!revoked.unwrap());
    let spec = TokenSpec {
        life: Duration::ZERO,
        ..TokenSpec::default()
    };
    let refused = edgebus_bridge::token_create(config, spec)
        .await
        .unwrap_err();
    assert!(refused.to_string().contains("0 s"), "{refused}");
    cloud.stop().await;
}
