//! The Node object and its Lease: made when a node first comes, kept true while it beats.

use std::time::{Duration, Instant};

use edgebus_bus::{NodeName, payload};
use edgebus_linkproto::Code;
use jiff::Timestamp;
use kube::Api;
use kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::cluster::{FIELD_MANAGER, api_code, call, unanswered};
use crate::metrics::count;
use crate::rows;
use crate::shared::Shared;
use crate::up::Refusal;

/// Label of every Node that this bridge made.
pub const EDGE_LABEL: &str = "node-role.kubernetes.io/edge";
/// Namespace of all nodes' Leases.
const LEASES: &str = "kube-node-lease";
/// A beat that is older says nothing any more.
pub const BEAT_MAX: Duration = Duration::from_secs(40);

fn nodes(shared: &Shared) -> Api<DynamicObject> {
    Api::all_with(shared.client.clone(), &rows::node_resource())
}

fn params() -> PatchParams {
    PatchParams {
        field_manager: Some(FIELD_MANAGER.into()),
        ..PatchParams::default()
    }
}

/// Labels that a kubelet would set.
fn labels(node: &str, status: Option<&Value>) -> Value {
    let mut labels = json!({ EDGE_LABEL: "" });
    // A label's value is shorter than a name may be.
    if node.len() <= 63 {
        labels["kubernetes.io/hostname"] = node.into();
    }
    let info = status.map(|status| &status["nodeInfo"]);
    for (label, field) in [
        ("kubernetes.io/os", "operatingSystem"),
        ("kubernetes.io/arch", "architecture"),
    ] {
        if let Some(value) = info
            .and_then(|info| info[field].as_str())
            .filter(|v| v.len() <= 63)
        {
            labels[label] = value.into();
        }
    }
    labels
}

/// Makes the Node if it is not there.
pub async fn register(
    shared: &Shared,
    node: &NodeName,
    status: Option<&Value>,
) -> Result<(), Refusal> {
    let name = node.as_str();
    let wanted = labels(name, status);
    let there = shared.mirror().node(name).cloned();
    match there {
        Some(there) => {
            let missing = wanted.as_object().into_iter().flatten();
            let same = |(key, value): (&String, &Value)| {
                there.labels.get(key).map(String::as_str) == value.as_str()
            };
            if missing.into_iter().all(same) {
                return Ok(());
            }
        }
        None => {
            let object: DynamicObject = serde_json::from_value(json!({
                "apiVersion": "v1",
                "kind": "Node",
                "metadata": { "name": name, "labels": wanted },
            }))
            .map_err(|e| Refusal::never(Code::UNPROCESSABLE, e.to_string()))?;
            count(&shared.metrics.api_writes);
            let made = call(
                &format!("create node {name}"),
                nodes(shared).create(&PostParams::default(), &object),
            )
            .await;
            match made {
                Ok(made) => {
                    tracing::info!(node = name, "registered");
                    let value = serde_json::to_value(made).unwrap_or(Value::Null);
                    shared.mirror().apply_node(name, &value);
                    return Ok(());
                }
                Err(error) if api_code(&error) == Some(409) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    count(&shared.metrics.api_writes);
    let patch = json!({ "metadata": { "labels": wanted } });
    call(
        &format!("label node {name}"),
        nodes(shared).patch(name, &params(), &Patch::Merge(patch)),
    )
    .await?;
    Ok(())
}

/// Checks what edged said and answers Kubernetes' NodeStatus.
pub fn read_status(node: &NodeName, said: payload::NodeStatus) -> Result<Value, Refusal> {
    if !said.node.is_empty() && said.node != node.as_str() {
        let why = format!(
            "status of node {:?} came over the link of node {node}",
            said.node
        );
        return Err(Refusal::never(Code::FORBIDDEN, why));
    }
    Ok(Value::Object(said.status))
}

/// Status of the condition Ready.
pub fn ready(status: &Value) -> &str {
    let conditions = status["conditions"].as_array();
    let ready = conditions
        .into_iter()
        .flatten()
        .find(|c| c["type"] == "Ready");
    ready.and_then(|c| c["status"].as_str()).unwrap_or_default()
}

/// Node.status as edged has it. Conditions that others keep (by their type) stay.
pub async fn write_status(shared: &Shared, node: &NodeName, status: &Value) -> Result<(), Refusal> {
    let name = node.as_str();
    register(shared, node, Some(status)).await?;
    let mut status = status.clone();
    let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    for condition in status["conditions"].as_array_mut().into_iter().flatten() {
        condition["lastHeartbeatTime"] = now.as_str().into();
    }
    let patch = json!({ "status": status });
    for again in [true, false] {
        count(&shared.metrics.api_writes);
        let what = format!("write status of node {name}");
        let done = call(
            &what,
            nodes(shared).patch_status(name, &params(), &Patch::Strategic(&patch)),
        )
        .await;
        match done {
            Ok(object) => {
                let value = serde_json::to_value(object).unwrap_or(Value::Null);
                shared.mirror().apply_node(name, &value);
                return Ok(());
            }
            // Deleted behind our back; the node is enrolled all the same.
            Err(error) if again && api_code(&error) == Some(404) => {
                shared.mirror().delete_node(name);
                register(shared, node, Some(&status)).await?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Renews the Lease for a beat that came at `beat`, as long as that is fresh enough.
pub async fn renew_lease(shared: &Shared, node: &NodeName, beat: Instant) {
    let mut delay = Duration::from_millis(200);
    let mut told = false;
    while beat.elapsed() < BEAT_MAX {
        let Err(error) = write_lease(shared, node).await else {
            return;
        };
        if unanswered(&error) {
            shared.api.missed(&format!("{error:#}"));
        } else if !told {
            tracing::warn!(node = node.as_str(), "renewing the lease: {error:#}");
            told = true;
        }
        tokio::time::sleep(delay).await;
        delay = (delay * 2).min(Duration::from_secs(5));
    }
}

async fn write_lease(shared: &Shared, node: &NodeName) -> anyhow::Result<()> {
    let name = node.as_str();
    let api: Api<DynamicObject> =
        Api::namespaced_with(shared.client.clone(), LEASES, &rows::lease_resource());
    let now = Timestamp::now()
        .strftime("%Y-%m-%dT%H:%M:%S%.6fZ")
        .to_string();
    let spec = json!({ "holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": now });
    count(&shared.metrics.api_writes);
    let patch = json!({ "spec": spec });
    match call(
        &format!("renew lease {name}"),
        api.patch(name, &params(), &Patch::Merge(patch)),
    )
    .await
    {
        Ok(_) => return Ok(()),
        Err(error) if api_code(&error) == Some(404) => {}
        Err(error) => return Err(error),
    }
    let uid = shared
        .mirror()
        .node(name)
        .map(|node| node.uid.clone())
        .unwrap_or_default();
    let owners = if uid.is_empty() {
        json!([])
    } else {
        json!([{ "apiVersion": "v1", "kind": "Node", "name": name, "uid": uid }])
    };
    let lease: DynamicObject = serde_json::from_value(json!({
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": { "name": name, "namespace": LEASES, "ownerReferences": owners },
        "spec": spec,
    }))?;
    count(&shared.metrics.api_writes);
    match call(
        &format!("create lease {name}"),
        api.create(&PostParams::default(), &lease),
    )
    .await
    {
        Err(error) if api_code(&error) != Some(409) => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_cannot_speak_for_another() {
        let node = NodeName::new("gw").unwrap();
        let said = payload::NodeStatus {
            node: "other".into(),
            ..Default::default()
        };
        let refusal = read_status(&node, said).unwrap_err();
        assert_eq!((refusal.code, refusal.permanent), (Code::FORBIDDEN, true));
        assert!(read_status(&node, payload::NodeStatus::default()).is_ok());
    }

    #[test]
    fn labels_follow_what_the_node_says_it_is() {
        let status = json!({ "nodeInfo": { "operatingSystem": "linux", "architecture": "arm64" } });
        let labels = labels("gw", Some(&status));
        assert_eq!(labels["kubernetes.io/arch"], "arm64");
        assert_eq!(labels["kubernetes.io/hostname"], "gw");
        assert!(
            super::labels(&"x".repeat(64), None)
                .get("kubernetes.io/hostname")
                .is_none()
        );
    }
}
