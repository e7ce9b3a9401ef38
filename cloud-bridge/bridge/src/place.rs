//! A Device whose `spec.nodeName` names no edge node says so itself: there is no node that would.
//!
//! It gets the condition `Assigned=False` and an Event. Both are gone or outdated once the node is there: the
//! condition is taken away, or is overwritten by the node's own word on the device.

use std::sync::Arc;
use std::time::Duration;

use edgebus_linkproto::Hash;
use jiff::Timestamp;
use kube::Api;
use kube::api::{DynamicObject, Patch, PatchParams};
use serde_json::{Value, json};

use crate::cluster::{FIELD_MANAGER, api_code, call};
use crate::mirror::{Key, Placement};
use crate::shared::Shared;
use crate::{device, event, rows};

/// Its type.
pub const CONDITION: &str = "Assigned";
const REASON: &str = "NodeNotFound";
/// A Node that was deleted is made again by its link, and one that is joining comes in a moment.
const SETTLE: Duration = Duration::from_secs(1);
const RETRY: Duration = Duration::from_secs(10);

/// Judges devices as they and the Nodes come and go.
pub async fn run(shared: Arc<Shared>) {
    let changed = shared.mirror().unsure_changed();
    loop {
        changed.notified().await;
        tokio::time::sleep(SETTLE).await;
        let mut keys = shared.mirror().take_unsure().into_iter();
        while let Some(key) = keys.next() {
            let Err(error) = settle(&shared, &key).await else {
                continue;
            };
            if api_code(&error).is_some_and(|code| (400..500).contains(&code) && code != 429) {
                tracing::warn!("the node of device {}/{}: {error:#}", key.ns, key.name);
                continue;
            }
            tracing::debug!("the node of device {}/{}: {error:#}", key.ns, key.name);
            tokio::time::sleep(RETRY).await;
            shared
                .mirror()
                .unsure_again(std::iter::once(key).chain(keys));
            break;
        }
    }
}

/// What its condition should say; None if it should have none.
fn message(placement: &Placement) -> Option<String> {
    if placement.known {
        return None;
    }
    Some(match placement.node.as_str() {
        "" => "spec.nodeName is empty: no edge node serves this device".to_owned(),
        node => format!(
            "no edge node is named {node:?}: spec.nodeName must be the name that a node joined by, see `kubectl get nodes`"
        ),
    })
}

async fn settle(shared: &Shared, key: &Key) -> anyhow::Result<()> {
    let Some(placement) = shared.mirror().placement(key) else {
        return Ok(());
    };
    let _permit = shared.writes.acquire().await?;
    match message(&placement) {
        Some(message) if placement.told != message => tell(shared, key, &placement, &message).await,
        None if !placement.told.is_empty() => untell(shared, key).await,
        _ => Ok(()),
    }
}

async fn tell(
    shared: &Shared,
    key: &Key,
    placement: &Placement,
    message: &str,
) -> anyhow::Result<()> {
    let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let condition = json!({
        "type": CONDITION,
        "status": "False",
        "reason": REASON,
        "message": message,
        "lastTransitionTime": now,
    });
    // What another node once said of it is over.
    let status = json!({ "state": "unknown", "mapper": null, "conditions": [condition] });
    device::forsake(shared, key, &placement.uid, &status).await?;
    // Named by what it says: told twice it is the same one.
    let about = Hash::of_bytes(format!("{}/{message}", placement.uid).as_bytes()).to_hex();
    let name = format!("{}.{}", key.name, &about[..16]);
    let event = json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": { "name": name, "namespace": key.ns },
        "involvedObject": {
            "apiVersion": edgebus_api::API_VERSION,
            "kind": "Device",
            "namespace": key.ns,
            "name": key.name,
            "uid": placement.uid,
        },
        "type": "Warning",
        "reason": REASON,
        "message": message,
        "count": 1,
        "firstTimestamp": now,
        "lastTimestamp": now,
        "source": { "component": FIELD_MANAGER },
        "reportingComponent": FIELD_MANAGER,
        "reportingInstance": shared.config.namespace,
    });
    event::put(
        shared,
        &key.ns,
        &name,
        event,
        json!({ "lastTimestamp": now }),
    )
    .await
}

/// Takes the condition away, unless the status says something else by now.
async fn untell(shared: &Shared, key: &Key) -> anyhow::Result<()> {
    let api: Api<DynamicObject> =
        Api::namespaced_with(shared.client.clone(), &key.ns, &rows::device_resource());
    let patch: Vec<Value> = vec![
        json!({ "op": "test", "path": "/status/conditions/0/type", "value": CONDITION }),
        json!({ "op": "replace", "path": "/status/conditions", "value": [] }),
    ];
    let patch = serde_json::from_value(Value::Array(patch))?;
    let params = PatchParams {
        field_manager: Some(FIELD_MANAGER.into()),
        ..PatchParams::default()
    };
    let what = format!("write status of device {}/{}", key.ns, key.name);
    let done = call(
        &what,
        api.patch_status(&key.name, &params, &Patch::Json::<()>(patch)),
    )
    .await;
    match done {
        Err(error) if !matches!(api_code(&error), Some(404 | 409 | 422)) => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_of_no_node_is_told_which_name_is_wrong() {
        let mut placement = Placement {
            uid: "u".into(),
            node: "gw-x".into(),
            known: false,
            told: String::new(),
        };
        assert!(message(&placement).unwrap().contains("\"gw-x\""));
        placement.known = true;
        assert_eq!(message(&placement), None);
        placement.known = false;
        placement.node.clear();
        assert!(message(&placement).unwrap().contains("is empty"));
    }
}
