//! The bridge between a real control plane and an edge that speaks the link: what is wanted goes down, what is
//! comes up, each only to whom it belongs.

#![allow(clippy::unwrap_used)]

mod support;

use edgebus_linkproto::Code;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use support::{Cloud, Edge, ask, eventually, key};

fn model() -> Value {
    json!({
        "apiVersion": "devices.kubeedge.io/v1beta1", "kind": "DeviceModel",
        "metadata": { "name": "pump" },
        "spec": { "protocol": "modbus", "properties": [{ "name": "speed", "type": "INT", "accessMode": "ReadWrite" }] },
    })
}

fn device(name: &str, node: &str) -> Value {
    json!({
        "apiVersion": "devices.kubeedge.io/v1beta1", "kind": "Device",
        "metadata": { "name": name },
        "spec": {
            "nodeName": node, "deviceModelRef": { "name": "pump" },
            "protocol": { "protocolName": "modbus", "configData": { "ip": "127.0.0.1" } },
            "properties": [{ "name": "speed", "desired": { "value": "5" } }],
        },
    })
}

fn twin_topic(name: &str) -> String {
    edgebus_bus::Topic::Twin {
        ns: "default".parse().unwrap(),
        name: name.parse().unwrap(),
    }
    .to_string()
}

fn twin(uid: &str, speed: i64) -> Value {
    json!({
        "uid": uid, "gen": { "store": "s", "n": 1 }, "model": "pump", "mapper": "modbus", "state": "online",
        "props": { "speed": { "desired": 5, "reported": speed, "at": "2026-11-23T10:00:00.000Z", "synced": speed == 5 } },
        "conditions": [{ "type": "Synced", "status": "True", "reason": "AsWanted", "message": "", "lastTransitionTime": "2026-11-23T10:00:00Z" }],
    })
}

#[tokio::test]
async fn objects_go_down_and_deletions_follow() {
    let cloud = Cloud::start().await;
    let mut edge = Edge::join(&cloud, "gw").await;
    edge.connect().await;
    cloud.create(&cloud.models(), model()).await;
    cloud.create(&cloud.devices(), device("p1", "gw")).await;
    cloud
        .create(&cloud.devices(), device("other", "elsewhere"))
        .await;
    let maps = cloud.core("ConfigMap", "configmaps", Some("default"));
    let secrets = cloud.core("Secret", "secrets", Some("default"));
    cloud.create(&maps, json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "app", "labels": { "edgebus.io/node": "gw" } }, "data": { "k": "v" } })).await;
    cloud.create(&maps, json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "mine" }, "data": {} })).await;
    cloud.create(&secrets, json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "plc", "labels": { "edgebus.io/node": "x" }, "annotations": { "edgebus.io/nodes": "y, gw" } }, "stringData": { "p": "geheim" } })).await;
    edge.until("everything of the node came", |edge| {
        [
            "obj/device/default/p1",
            "obj/devicemodel/default/pump",
            "obj/configmap/default/app",
            "sealed/secret/default/plc",
            "node/spec",
        ]
        .iter()
        .all(|end| edge.get(end).is_some())
    })
    .await;
    assert!(
        edge.get("device/default/other").is_none() && edge.get("configmap/default/mine").is_none()
    );
    let p1 = edge.get("obj/device/default/p1").unwrap();
    assert_eq!(p1.body["kind"], "Device");
    assert!(
        p1.body["metadata"].get("resourceVersion").is_none(),
        "{}",
        p1.body
    );
    let (topic, sealed) = edge
        .held
        .iter()
        .find(|(t, _)| t.ends_with("secret/default/plc"))
        .unwrap();
    assert!(!sealed.body.to_string().contains("geheim"));
    let plain = edge
        .sealing
        .open(topic, sealed.body["box"].as_str().unwrap())
        .unwrap();
    let secret: Value = serde_json::from_slice(&plain).unwrap();
    assert_eq!(secret["data"]["p"], "Z2VoZWlt");
    edge.until("all kinds are complete", |edge| {
        [
            "device",
            "devicemodel",
            "configmap",
            "secret",
            "serviceaccount",
        ]
        .iter()
        .all(|k| edge.synced.contains(*k))
    })
    .await;

    let patch =
        json!({ "spec": { "properties": [{ "name": "speed", "desired": { "value": "7" } }] } });
    cloud
        .devices()
        .patch("p1", &PatchParams::default(), &Patch::Merge(patch))
        .await
        .unwrap();
    edge.until("the change came", |edge| {
        edge.get("device/default/p1")
            .is_some_and(|p| p.body["spec"]["properties"][0]["desired"]["value"] == "7")
    })
    .await;

    // Cut; change, delete and recreate meanwhile; what is equal does not travel again.
    edge.disconnect();
    cloud
        .devices()
        .delete("p1", &Default::default())
        .await
        .unwrap();
    maps.delete("app", &Default::default()).await.unwrap();
    let again = cloud.create(&maps, json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "app", "labels": { "edgebus.io/node": "gw" } }, "data": { "k": "v" } })).await;
    edge.connect().await;
    edge.until("the difference came", |edge| {
        edge.get("device/default/p1").is_none()
            && edge.get("devicemodel/default/pump").is_none()
            && edge
                .get("configmap/default/app")
                .is_some_and(|map| Some(&map.uid) == again.metadata.uid.as_ref())
            && edge.synced.contains("device")
            && edge.synced.contains("secret")
    })
    .await;
    assert_eq!(edge.applied, 3, "two deletions and one object");
    cloud.stop().await;
}

#[tokio::test]
async fn status_comes_up_for_what_is_on_the_node_and_for_nothing_else() {
    let mut cloud = Cloud::start().await;
    let mut edge = Edge::join(&cloud, "gw").await;
    edge.connect().await;
    cloud.create(&cloud.models(), model()).await;
    let p1 = cloud
        .create(&cloud.devices(), device("p1", "gw"))
        .await
        .metadata
        .uid
        .unwrap();
    let other = cloud
        .create(&cloud.devices(), device("other", "elsewhere"))
        .await
        .metadata
        .uid
        .unwrap();
    edge.until("the device came", |edge| {
        edge.get("device/default/p1").is_some()
    })
    .await;

    edge.say("node-status", &edgebus_bus::Topic::NodeStatus {}.to_string(), "", json!({
        "node": "gw",
        "status": {
            "capacity": { "cpu": "2" },
            "nodeInfo": { "operatingSystem": "linux", "architecture": "arm64", "bootID": "", "containerRuntimeVersion": "", "kernelVersion": "", "kubeProxyVersion": "", "kubeletVersion": "edgebus", "machineID": "", "osImage": "", "systemUUID": "" },
            "conditions": [{ "type": "Ready", "status": "True", "reason": "EdgedReady", "message": "" }],
        },
    }));
    edge.beat(1);
    edge.say("twin", &twin_topic("p1"), &p1, twin(&p1, 5));
    edge.say("twin", &twin_topic("other"), &other, twin(&other, 5));
    edge.say("twin", &twin_topic("nobody"), "x", twin("x", 5));
    edge.event(1, json!({
        "name": "p1.abc", "type": "Warning", "reason": "OutOfRange", "note": "speed", "at": "2026-11-23T10:00:00.000Z",
        "regarding": { "apiVersion": "devices.kubeedge.io/v1beta1", "kind": "Device", "namespace": "default", "name": "p1" },
    }));
    edge.event(2, json!({ "nonsense": true }));
    edge.until("everything is settled", |edge| {
        edge.session.is_open() && edge.refused.len() == 2 && edge.events_done.len() == 2
    })
    .await;
    let status = edge
        .during(eventually("the status is there", || async {
            cloud.statuses().get("p1").await.map_err(|e| e.to_string())
        }))
        .await;
    assert_eq!(status.data["status"]["twins"][0]["reported"]["value"], "5");
    assert_eq!(
        status.data["status"]["twins"][0]["reported"]["metadata"]["timestamp"],
        "1795428000000"
    );
    assert_eq!(status.metadata.owner_references.unwrap()[0].uid, p1);
    assert_eq!(
        cloud.devices().get("p1").await.unwrap().data["status"]["state"],
        "online"
    );
    assert!(
        edge.refused
            .iter()
            .any(|(topic, code, _)| topic.ends_with("/other") && *code == Code::FORBIDDEN),
        "{:?}",
        edge.refused
    );
    assert!(
        edge.refused
            .iter()
            .any(|(topic, code, _)| topic.ends_with("/nobody") && *code == Code::NOT_FOUND),
        "{:?}",
        edge.refused
    );
    assert!(edge.events_done[0].1.is_none() && edge.events_done[1].1.is_some());
    let event = cloud
        .core("Event", "events", Some("default"))
        .get("p1.abc")
        .await
        .unwrap();
    assert_eq!(event.data["involvedObject"]["uid"], p1);

    let node = edge
        .during(eventually("the node is Ready", || async {
            let node = cloud
                .core("Node", "nodes", None)
                .get("gw")
                .await
                .map_err(|e| e.to_string())?;
            let ready = node.data["status"]["conditions"]
                .as_array()
                .into_iter()
                .flatten()
                .any(|c| c["type"] == "Ready" && c["status"] == "True");
            if ready {
                Ok(node)
            } else {
                Err(node.data.to_string())
            }
        }))
        .await;
    assert_eq!(node.metadata.labels.unwrap()["kubernetes.io/arch"], "arm64");
    let leases = cloud.api_of(
        "coordination.k8s.io",
        "v1",
        "Lease",
        "leases",
        Some("kube-node-lease"),
    );
    let lease = edge
        .during(eventually("the lease is there", || async {
            leases.get("gw").await.map_err(|e| e.to_string())
        }))
        .await;
    assert_eq!(lease.data["spec"]["holderIdentity"], "gw");

    // A bridge that starts anew knows from the DeviceStatus what it has.
    edge.disconnect();
    cloud.restart_bridge().await;
    edge.during(eventually("the bridge is ready", || async {
        match support::post(&cloud, "/readyz", b"").await {
            Ok((404, _)) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    }))
    .await;
    edge.refused.clear();
    edge.connect().await;
    edge.until("the device list is whole again", |edge| {
        edge.synced.contains("device")
    })
    .await;
    edge.say("twin", &twin_topic("p1"), &p1, twin(&p1, 6));
    edge.during(eventually("a new value is shown", || async {
        let status = cloud
            .statuses()
            .get("p1")
            .await
            .map_err(|e| e.to_string())?;
        let value = status.data["status"]["twins"][0]["reported"]["value"].clone();
        if value == "6" {
            Ok(())
        } else {
            Err(value.to_string())
        }
    }))
    .await;

    cloud
        .devices()
        .delete("p1", &Default::default())
        .await
        .unwrap();
    edge.until("the deletion came", |edge| {
        edge.get("device/default/p1").is_none()
    })
    .await;
    edge.during(eventually("the status is gone", || async {
        match cloud.statuses().get_opt("p1").await {
            Ok(None) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    }))
    .await;
    cloud.stop().await;
}

#[tokio::test]
async fn nobody_enters_with_a_wrong_token_a_taken_name_or_a_revoked_certificate() {
    let cloud = Cloud::start().await;
    let mut edge = Edge::join(&cloud, "gw").await;
    edge.connect().await;
    let sealing = edgebus_api::seal::SealingKey::generate();
    let word = |answer: &Value| answer["error"].as_str().unwrap_or_default().to_owned();

    let mut wrong = cloud.token(None).await;
    wrong.secret = "0".repeat(32);
    let (status, answer) = ask(&cloud, &wrong, "gx", &key(), &sealing).await;
    assert_eq!(
        (status, word(&answer).as_str()),
        (401, "bad-token"),
        "{answer}"
    );
    let (status, answer) = ask(&cloud, &cloud.token(None).await, "gw", &key(), &sealing).await;
    assert_eq!(
        (status, word(&answer).as_str()),
        (409, "name-taken"),
        "{answer}"
    );
    let (status, answer) = ask(
        &cloud,
        &cloud.token(Some("gy")).await,
        "gx",
        &key(),
        &sealing,
    )
    .await;
    assert_eq!(
        (status, word(&answer).as_str()),
        (403, "token-for-other-node"),
        "{answer}"
    );
    let once = cloud.token(None).await;
    assert_eq!(ask(&cloud, &once, "g1", &key(), &sealing).await.0, 200);
    let (status, answer) = ask(&cloud, &once, "g2", &key(), &sealing).await;
    assert_eq!(
        (status, word(&answer).as_str()),
        (403, "token-used-up"),
        "{answer}"
    );
    let (status, answer) = support::post(&cloud, "/v1/enrol", b"{").await.unwrap();
    assert_eq!(
        (status, word(&answer).as_str()),
        (400, "bad-request"),
        "{answer}"
    );
    let (status, _) = support::post(&cloud, "/v1/enrol", &vec![b' '; 1 << 20])
        .await
        .unwrap_or((413, Value::Null));
    assert_eq!(status, 413);

    // Renewal: another key, which takes over once it was used.
    let next = key();
    assert!(edge.renew(&next));
    edge.until("the new certificate came", |edge| edge.renewed.is_some())
        .await;
    let old = (
        std::mem::replace(&mut edge.cert_pem, edge.renewed.clone().unwrap()),
        std::mem::replace(&mut edge.key, next),
    );
    edge.disconnect();
    edge.connect().await;
    let new = (
        std::mem::replace(&mut edge.cert_pem, old.0),
        std::mem::replace(&mut edge.key, old.1),
    );
    let (status, why) = edge.dial().await.unwrap_err();
    assert_eq!(status, 403, "{why}");
    assert!(why.contains("key-replaced"), "{why}");
    (edge.cert_pem, edge.key) = new;
    edge.connect().await;

    let (status, answer) = ask(
        &cloud,
        &cloud.token(Some("gw")).await,
        "gw",
        &edge.key,
        &sealing,
    )
    .await;
    assert_eq!(
        status, 200,
        "a token that names the node lets it join again: {answer}"
    );

    edgebus_bridge::node_revoke(Some(cloud.kubeconfig()), edgebus_bridge::NAMESPACE, "gw")
        .await
        .unwrap();
    edge.until("the link is cut", |edge| edge.closed.is_some())
        .await;
    assert_eq!(edge.closed.as_ref().unwrap().0, Code::REVOKED);
    let (status, why) = edge.dial().await.unwrap_err();
    assert_eq!(status, 403, "{why}");
    let (status, answer) = ask(
        &cloud,
        &cloud.token(Some("gw")).await,
        "gw",
        &key(),
        &sealing,
    )
    .await;
    assert_eq!(
        (status, word(&answer).as_str()),
        (403, "revoked"),
        "{answer}"
    );
    assert!(
        edgebus_bridge::node_forget(Some(cloud.kubeconfig()), edgebus_bridge::NAMESPACE, "gw")
            .await
            .unwrap()
    );
    let (status, answer) = ask(&cloud, &cloud.token(None).await, "gw", &key(), &sealing).await;
    assert_eq!(status, 200, "{answer}");
    let (status, why) = edge.dial().await.unwrap_err();
    assert_eq!(status, 403, "{why}");
    cloud.stop().await;
}

#[tokio::test]
async fn an_emptied_cluster_deletes_nothing_at_the_edge() {
    let mut cloud = Cloud::start().await;
    let mut edge = Edge::join(&cloud, "gw").await;
    edge.connect().await;
    cloud.create(&cloud.models(), model()).await;
    cloud.create(&cloud.devices(), device("p1", "gw")).await;
    edge.until("the device came", |edge| {
        edge.get("device/default/p1").is_some() && edge.synced.contains("device")
    })
    .await;
    // The node's own object may still change on its way to Ready.
    let objects = |edge: &Edge| {
        let all = edge
            .held
            .iter()
            .filter(|(topic, _)| !topic.ends_with("node/spec"));
        all.map(|(topic, held)| (topic.clone(), held.clone()))
            .collect::<Vec<_>>()
    };
    let before = objects(&edge);
    assert_eq!(before.len(), 2);
    edge.during(cloud.empty_api()).await;
    edge.until("the bridge says why and closes", |edge| {
        edge.closed.is_some()
    })
    .await;
    assert_eq!(
        edge.closed.as_ref().unwrap().0,
        Code::CLUSTER_CHANGED,
        "{:?}",
        edge.closed
    );
    assert_eq!(objects(&edge), before);
    // The new cluster has another CA: this edge does not get in, and keeps what it has.
    let cluster = edge.session.ident().cluster_id.clone();
    eventually("the new life begins", || async {
        let found = cloud
            .core("Secret", "secrets", Some("edgebus-system"))
            .get_opt("edgebus-ca")
            .await;
        found
            .map_err(|e| e.to_string())?
            .map(drop)
            .ok_or_else(|| "no CA".to_owned())
    })
    .await;
    assert!(edge.dial().await.is_err());
    assert_eq!(objects(&edge), before);
    let mut newcomer = Edge::join(&cloud, "gw").await;
    assert_ne!(newcomer.session.ident().cluster_id, cluster);
    newcomer.connect().await;
    cloud.stop().await;
}

#[tokio::test]
async fn nothing_is_lost_while_the_control_plane_is_away() {
    let mut cloud = Cloud::start().await;
    let mut edge = Edge::join(&cloud, "gw").await;
    edge.connect().await;
    cloud.create(&cloud.models(), model()).await;
    let p1 = cloud.create(&cloud.devices(), device("p1", "gw")).await;
    let p1 = p1.metadata.uid.unwrap();
    edge.until("the device came", |edge| {
        edge.get("device/default/p1").is_some()
    })
    .await;
    edge.during(cloud.stop_api()).await;
    for speed in 1..=20 {
        edge.say("twin", &twin_topic("p1"), &p1, twin(&p1, speed));
    }
    for n in 1..=3 {
        edge.event(n, json!({
            "name": format!("p1.{n}"), "type": "Normal", "reason": "Seen", "note": "x", "at": "2026-11-23T10:00:00.000Z",
            "regarding": { "apiVersion": "devices.kubeedge.io/v1beta1", "kind": "Device", "namespace": "default", "name": "p1" },
        }));
    }
    let wait = tokio::time::sleep(std::time::Duration::from_millis(500));
    edge.during(wait).await;
    assert!(edge.closed.is_none(), "{:?}", edge.closed);
    assert!(edge.events_done.is_empty() && edge.refused.is_empty());
    edge.during(cloud.resume_api()).await;
    edge.until("everything is acknowledged", |edge| {
        edge.events_done.len() == 3
    })
    .await;
    edge.during(eventually("the last value is shown", || async {
        let status = cloud
            .statuses()
            .get("p1")
            .await
            .map_err(|e| e.to_string())?;
        let value = status.data["status"]["twins"][0]["reported"]["value"].clone();
        if value == "20" {
            Ok(())
        } else {
            Err(value.to_string())
        }
    }))
    .await;
    let events = cloud.core("Event", "events", Some("default"));
    let list = events.list(&Default::default()).await.unwrap();
    assert_eq!(
        list.items
            .iter()
            .filter(|e| e.data["reason"] == "Seen")
            .count(),
        3
    );
    let patch =
        json!({ "spec": { "properties": [{ "name": "speed", "desired": { "value": "9" } }] } });
    cloud
        .devices()
        .patch("p1", &PatchParams::default(), &Patch::Merge(patch))
        .await
        .unwrap();
    edge.until("changes come again", |edge| {
        edge.get("device/default/p1")
            .is_some_and(|p| p.body["spec"]["properties"][0]["desired"]["value"] == "9")
    })
    .await;
    cloud.stop().await;
}

#[tokio::test]
async fn a_second_connection_of_a_node_takes_over() {
    let cloud = Cloud::start().await;
    let mut first = Edge::join(&cloud, "gw").await;
    first.connect().await;
    let token = cloud.token(Some("gw")).await;
    let (status, answer) = ask(&cloud, &token, "gw", &first.key, &first.sealing).await;
    assert_eq!(status, 200, "{answer}");
    let mut second = Edge::join_with(&cloud, "gw", &cloud.token(Some("gw")).await).await;
    first
        .until("the replaced key is cut off", |edge| edge.closed.is_some())
        .await;
    second.connect().await;
    let mut third = second.twin_of();
    third.connect().await;
    second
        .until("the older connection goes", |edge| edge.closed.is_some())
        .await;
    assert_eq!(second.closed.as_ref().unwrap().0, Code::SUPERSEDED);
    assert!(third.session.is_open());
    cloud.stop().await;
}

#[tokio::test]
async fn a_silent_node_is_not_ready_until_it_beats_again() {
    let cloud = Cloud::start_full(std::time::Duration::from_secs(2), |_| {}).await;
    let mut edge = Edge::join(&cloud, "gw").await;
    edge.connect().await;
    edge.say("node-status", &edgebus_bus::Topic::NodeStatus {}.to_string(), "", json!({
        "node": "gw",
        "status": { "conditions": [{ "type": "Ready", "status": "True", "reason": "EdgedReady", "message": "" }] },
    }));
    let nodes = cloud.core("Node", "nodes", None);
    let ready = || async {
        let node = nodes.get("gw").await.map_err(|e| e.to_string())?;
        let all = node.data["status"]["conditions"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let ready = all
            .iter()
            .find(|c| c["type"] == "Ready")
            .map(|c| c["status"].clone());
        Ok::<_, String>(
            ready
                .and_then(|r| r.as_str().map(str::to_owned))
                .unwrap_or_default(),
        )
    };
    edge.beat(1);
    let is =
        |wanted: &'static str| move |now: String| if now == wanted { Ok(()) } else { Err(now) };
    edge.during(eventually("Ready", || async {
        ready().await.and_then(is("True"))
    }))
    .await;
    edge.during(eventually("not Ready any more", || async {
        ready().await.and_then(is("Unknown"))
    }))
    .await;
    edge.beat(2);
    edge.during(eventually("Ready again", || async {
        ready().await.and_then(is("True"))
    }))
    .await;
    nodes.delete("gw", &Default::default()).await.unwrap();
    // A Node that somebody deletes is made again by the next beat: enrolment is what counts.
    let mut n = 3;
    let mut made = false;
    while !made {
        edge.beat(n);
        n += 1;
        edge.during(tokio::time::sleep(std::time::Duration::from_millis(50)))
            .await;
        made = ready().await.is_ok_and(|now| now == "True");
        assert!(n < 500, "the node is not made again");
    }
    cloud.stop().await;
}

#[tokio::test]
async fn a_certificate_that_has_ended_is_good_for_its_renewal_within_the_grace_window() {
    let cloud = Cloud::start_with(|config| {
        config.cert_life = std::time::Duration::from_secs(1);
        config.grace = std::time::Duration::from_secs(60);
    })
    .await;
    let mut edge = Edge::join(&cloud, "gw").await;
    tokio::time::sleep(std::time::Duration::from_millis(2100)).await;
    edge.connect().await;
    let next = key();
    assert!(edge.renew(&next));
    edge.until("the new certificate came", |edge| edge.renewed.is_some())
        .await;
    edge.disconnect();
    edge.cert_pem = edge.renewed.take().unwrap();
    edge.key = next;
    edge.connect().await;
    cloud.stop().await;
}

/// Figures, not a test of time: `cargo test -p edgebus-bridge --test link figures -- --ignored --nocapture`.
#[tokio::test]
#[ignore = "prints figures"]
async fn figures() {
    let cloud = Cloud::start().await;
    let mut edge = Edge::join(&cloud, "gw").await;
    edge.connect().await;
    cloud.create(&cloud.models(), model()).await;
    let uid = cloud
        .create(&cloud.devices(), device("p1", "gw"))
        .await
        .metadata
        .uid
        .unwrap();
    edge.until("the device came", |edge| {
        edge.get("device/default/p1").is_some()
    })
    .await;
    let percentiles = |mut all: Vec<std::time::Duration>| {
        all.sort();
        [10, 50, 90, 95, 99].map(|p| all[all.len() * p / 100].as_millis())
    };
    let (mut down, mut up) = (Vec::new(), Vec::new());
    for n in 100..200 {
        let wanted = n.to_string();
        let patch = json!({ "spec": { "properties": [{ "name": "speed", "desired": { "value": wanted } }] } });
        let begin = std::time::Instant::now();
        let devices = cloud.devices();
        edge.during(devices.patch("p1", &PatchParams::default(), &Patch::Merge(patch)))
            .await
            .unwrap();
        edge.until("down", |edge| {
            edge.get("device/default/p1").is_some_and(|p| {
                p.body["spec"]["properties"][0]["desired"]["value"] == wanted.as_str()
            })
        })
        .await;
        down.push(begin.elapsed());
        edge.during(tokio::time::sleep(std::time::Duration::from_millis(60)))
            .await;
        let begin = std::time::Instant::now();
        edge.say("twin", &twin_topic("p1"), &uid, twin(&uid, n));
        edge.until("up", |edge| edge.session.is_settled()).await;
        up.push(begin.elapsed());
    }
    let (down, up) = (percentiles(down), percentiles(up));
    println!("p10 p50 p90 p95 p99 in ms: patch to edge {down:?}; twin to acknowledged {up:?}");
    cloud.stop().await;
}
