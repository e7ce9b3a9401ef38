//! A twin from the edge as a DeviceStatus in the API, and the little of it that `kubectl get devices` shows.
//!
//! A DeviceStatus says in its extensions which twin it was made from, so that a bridge that starts anew knows
//! what it need not be sent again.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Instant;

use edgebus_bus::{NodeName, payload};
use edgebus_linkproto::{Code, Hash, Put};
use kube::Api;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams, Preconditions};
use serde_json::{Map, Value, json};

use crate::cluster::{FIELD_MANAGER, api_code, call};
use crate::metrics::count;
use crate::mirror::{DeviceRef, Key, StatusRef, summary};
use crate::rows;
use crate::seen::{self, Seen};
use crate::shared::Shared;
use crate::up::{Refusal, unreadable};

fn statuses(shared: &Shared, ns: &str) -> Api<Seen> {
    Api::namespaced_with(shared.client.clone(), ns, &rows::device_status_resource())
}

fn devices(shared: &Shared, ns: &str) -> Api<DynamicObject> {
    Api::namespaced_with(shared.client.clone(), ns, &rows::device_resource())
}

fn params() -> PatchParams {
    PatchParams {
        field_manager: Some(FIELD_MANAGER.into()),
        ..PatchParams::default()
    }
}

/// The device that a node speaks of, if it is the node's.
fn owned(shared: &Shared, node: &NodeName, key: &Key, uid: &str) -> Result<DeviceRef, Refusal> {
    let mirror = shared.mirror();
    let named = format!("device {}/{}", key.ns, key.name);
    let Some(device) = mirror.device(key) else {
        return Err(if mirror.devices_complete() {
            Refusal::never(Code::NOT_FOUND, format!("{named} does not exist any more"))
        } else {
            Refusal::later("devices have not been listed yet")
        });
    };
    if !device.nodes.contains(node.as_str()) {
        let why = format!("{named} is not on node {node}");
        return Err(Refusal::never(Code::FORBIDDEN, why));
    }
    if !uid.is_empty() && uid != device.uid {
        let why = format!("{named} is another one now: uid {}, not {uid}", device.uid);
        return Err(Refusal::never(Code::GONE, why));
    }
    Ok(device)
}

/// Writes the DeviceStatus, at most once per interval for one device.
pub async fn write(shared: &Shared, node: &NodeName, key: &Key, put: &Put) -> Result<(), Refusal> {
    let twin: payload::Twin = payload::read(&put.body).map_err(|e| unreadable(put, &e))?;
    let device = owned(shared, node, key, &twin.uid)?;
    // A bridge or a link that starts anew is told what is written already.
    let same = shared.mirror().status(key).is_some_and(|status| {
        let seen = status
            .seen
            .as_ref()
            .is_some_and(|(uid, hash)| *uid == put.uid && *hash == put.hash);
        status.owner == device.uid && seen && put.hash != Hash::UNKNOWN
    });
    if same {
        return Ok(());
    }
    if let Some(last) = shared.written(key) {
        tokio::time::sleep_until((last + shared.config.status_interval).into()).await;
    }
    let _permit = shared
        .writes
        .acquire()
        .await
        .map_err(|_| Refusal::later("the bridge is stopping"))?;
    let mut status = status(&twin);
    let shown = shown(&status);
    status["extensions"] = seen::extensions(&put.uid, &put.hash);
    shared.note_write(key, Instant::now());
    write_status(shared, key, &device, &status).await?;
    if summary(&shown) != device.summary {
        count(&shared.metrics.api_writes);
        let what = format!("write status of device {}/{}", key.ns, key.name);
        let patch = json!({ "status": shown });
        let done = call(
            &what,
            devices(shared, &key.ns).patch_status(&key.name, &params(), &Patch::Merge(patch)),
        )
        .await;
        match done {
            Ok(object) => {
                let value = serde_json::to_value(object).unwrap_or(Value::Null);
                shared.mirror().note_summary(key, &value);
            }
            // The DeviceStatus is what counts; a Device without a status column is no reason to send it again.
            Err(error) => tracing::debug!("{error:#}"),
        }
    }
    Ok(())
}

/// Writes what holds for a device that no node serves: into its own status, and into its DeviceStatus if it
/// has one, which then belongs to no twin any more.
pub async fn forsake(shared: &Shared, key: &Key, uid: &str, shown: &Value) -> anyhow::Result<()> {
    let there = shared.mirror().status(key).cloned();
    if there.is_some_and(|there| there.owner == uid) {
        let mut status = shown.clone();
        status["extensions"] = Value::Null;
        count(&shared.metrics.api_writes);
        let what = format!("write devicestatus {}/{}", key.ns, key.name);
        let patch = Patch::Merge(json!({ "status": status }));
        let api = statuses(shared, &key.ns);
        let done = call(&what, api.patch_status(&key.name, &params(), &patch)).await;
        match done {
            Err(error) if api_code(&error) != Some(404) => return Err(error),
            _ => {}
        }
    }
    count(&shared.metrics.api_writes);
    let what = format!("write status of device {}/{}", key.ns, key.name);
    // Nothing is said about a successor of the same name.
    let patch = json!({ "metadata": { "uid": uid }, "status": shown });
    let done = call(
        &what,
        devices(shared, &key.ns).patch_status(&key.name, &params(), &Patch::Merge(patch)),
    )
    .await;
    match done {
        // 409: it is another one already.
        Err(error) if !matches!(api_code(&error), Some(404 | 409)) => Err(error),
        _ => Ok(()),
    }
}

async fn write_status(
    shared: &Shared,
    key: &Key,
    device: &DeviceRef,
    status: &Value,
) -> Result<(), Refusal> {
    let api = statuses(shared, &key.ns);
    let named = format!("devicestatus {}/{}", key.ns, key.name);
    for _ in 0..5 {
        let there = shared.mirror().status(key).cloned();
        match there {
            Some(there) if there.owner == device.uid => {
                count(&shared.metrics.api_writes);
                let patch = json!({ "status": status });
                let done = call(
                    &format!("write {named}"),
                    api.patch_status(&key.name, &params(), &Patch::Merge(patch)),
                )
                .await;
                match done {
                    Ok(object) => {
                        let now = object.about();
                        let ours = now.owner == device.uid;
                        shared.mirror().apply_status(key.clone(), now);
                        if ours {
                            return Ok(());
                        }
                        // Exchanged behind our back: once more, with what is there now.
                    }
                    Err(error) if api_code(&error) == Some(404) => {
                        shared.mirror().delete_status(key)
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            Some(other) => {
                // Left over from a Device of the same name.
                delete(shared, key, &other).await?;
                shared.mirror().delete_status(key);
            }
            None => create(shared, &api, key, device).await?,
        }
    }
    Err(Refusal::later(format!(
        "{named} comes and goes; somebody else writes it"
    )))
}

async fn create(
    shared: &Shared,
    api: &Api<Seen>,
    key: &Key,
    device: &DeviceRef,
) -> Result<(), Refusal> {
    let object: DynamicObject = serde_json::from_value(json!({
        "apiVersion": edgebus_api::API_VERSION,
        "kind": "DeviceStatus",
        "metadata": {
            "name": key.name,
            "namespace": key.ns,
            "ownerReferences": [{
                "apiVersion": edgebus_api::API_VERSION,
                "kind": "Device",
                "name": key.name,
                "uid": device.uid,
                "controller": true,
            }],
        },
        // The API drops a status here; it is written to its subresource right after.
        "spec": {},
    }))
    .map_err(|e| Refusal::never(Code::UNPROCESSABLE, e.to_string()))?;
    let what = format!("create devicestatus {}/{}", key.ns, key.name);
    let all: Api<DynamicObject> = Api::namespaced_with(
        shared.client.clone(),
        &key.ns,
        &rows::device_status_resource(),
    );
    count(&shared.metrics.api_writes);
    match call(&what, all.create(&PostParams::default(), &object)).await {
        Ok(made) => {
            let made = StatusRef {
                uid: made.metadata.uid.unwrap_or_default(),
                owner: device.uid.clone(),
                seen: None,
            };
            shared.mirror().apply_status(key.clone(), made);
        }
        Err(error) if api_code(&error) == Some(409) => {
            let there = call(&what, api.get_opt(&key.name)).await?;
            if let Some(there) = there {
                shared.mirror().apply_status(key.clone(), there.about());
            }
        }
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

/// The DeviceStatus with exactly that uid.
async fn delete(shared: &Shared, key: &Key, status: &StatusRef) -> anyhow::Result<()> {
    let params = DeleteParams {
        preconditions: Some(Preconditions {
            uid: Some(status.uid.clone()),
            resource_version: None,
        }),
        ..DeleteParams::default()
    };
    count(&shared.metrics.api_writes);
    let what = format!("delete devicestatus {}/{}", key.ns, key.name);
    let done = call(&what, statuses(shared, &key.ns).delete(&key.name, &params)).await;
    match done {
        // 409: it is another one already.
        Err(error) if !matches!(api_code(&error), Some(404 | 409)) => Err(error),
        _ => Ok(()),
    }
}

/// The twin's topic was emptied at the edge.
pub async fn remove(shared: &Shared, node: &NodeName, key: &Key) -> Result<(), Refusal> {
    let (device, complete, status) = {
        let mirror = shared.mirror();
        (
            mirror.device(key),
            mirror.devices_complete(),
            mirror.status(key).cloned(),
        )
    };
    shared.forget_write(key);
    match (device, status) {
        // It lives on, here or on another node: its status is brought by whoever has it.
        (Some(_), _) => Ok(()),
        (None, _) if !complete => Err(Refusal::later("devices have not been listed yet")),
        (None, None) => Ok(()),
        (None, Some(status)) => {
            tracing::debug!(
                node = node.as_str(),
                "device {}/{} is gone",
                key.ns,
                key.name
            );
            delete(shared, key, &status).await?;
            Ok(())
        }
    }
}

/// Deletes DeviceStatuses whose Device is gone. A cluster with a garbage collector does the same.
pub fn collect_orphans(shared: &Arc<Shared>) {
    if shared.collecting.swap(true, SeqCst) {
        return;
    }
    let mine = shared.clone();
    shared.tasks.spawn(async move {
        mine.collecting.store(false, SeqCst);
        let orphans = mine.mirror().orphans();
        for (key, status) in orphans {
            let what = format!("read device {}/{}", key.ns, key.name);
            let done = match call(&what, devices(&mine, &key.ns).get_opt(&key.name)).await {
                Ok(Some(there)) if there.metadata.uid.as_deref() == Some(status.owner.as_str()) => {
                    Ok(())
                }
                Ok(_) => delete(&mine, &key, &status).await,
                Err(error) => Err(error),
            };
            if let Err(error) = done {
                tracing::warn!("{error:#}");
            }
        }
    });
}

fn word(up: payload::DeviceUp) -> &'static str {
    match up {
        payload::DeviceUp::Online => "online",
        payload::DeviceUp::Offline => "offline",
        payload::DeviceUp::Unhealthy => "unhealthy",
        payload::DeviceUp::Unknown => "unknown",
    }
}

/// KubeEdge keeps every value as text.
fn as_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// DeviceStatus.status, with nulls where a merge patch has to take something away.
fn status(twin: &payload::Twin) -> Value {
    let twins: Vec<Value> = twin
        .props
        .iter()
        .map(|(name, prop)| property(name, prop))
        .collect();
    let mut conditions = serde_json::to_value(&twin.conditions).unwrap_or_else(|_| json!([]));
    let local: Vec<&str> = twin
        .props
        .iter()
        .filter(|(_, p)| p.local)
        .map(|(name, _)| name.as_str())
        .collect();
    let told = twin.conditions.iter().any(|c| c.kind == "LocalOverride");
    if let (Some(list), false, false) = (conditions.as_array_mut(), local.is_empty(), told) {
        let newest = twin
            .props
            .values()
            .filter(|p| p.local)
            .filter_map(|p| p.at.clone())
            .max();
        list.push(json!({
            "type": "LocalOverride",
            "status": "True",
            "reason": "SetOnNode",
            "message": format!("a client on the node set {}", local.join(", ")),
            "lastTransitionTime": newest.unwrap_or_default(),
        }));
    }
    json!({
        "twins": twins,
        "state": word(twin.state),
        "lastOnlineTime": twin.last_online,
        "conditions": conditions,
        "mapper": twin.mapper,
    })
}

fn property(name: &str, prop: &payload::TwinProp) -> Value {
    let mut twin = json!({ "propertyName": name });
    let mut metadata = Map::new();
    let at = prop
        .at
        .as_deref()
        .and_then(|at| at.parse::<jiff::Timestamp>().ok());
    if let Some(at) = at {
        metadata.insert(
            "timestamp".to_owned(),
            at.as_millisecond().to_string().into(),
        );
    }
    match prop.quality {
        None | Some(payload::Quality::Good) => {}
        Some(payload::Quality::Uncertain) => {
            drop(metadata.insert("quality".to_owned(), "uncertain".into()))
        }
        Some(payload::Quality::Bad) => drop(metadata.insert("quality".to_owned(), "bad".into())),
    }
    if let Some(cause) = &prop.cause {
        metadata.insert("cause".to_owned(), cause.as_str().into());
    }
    if let Some(value) = &prop.reported {
        twin["reported"] = json!({ "value": as_text(value), "metadata": metadata });
    } else if !metadata.is_empty() {
        twin["reported"] = json!({ "value": "", "metadata": metadata });
    }
    if let Some(value) = &prop.desired {
        twin["observedDesired"] = json!({ "value": as_text(value) });
        if prop.local {
            twin["observedDesired"]["metadata"] = json!({ "source": "local" });
        }
    }
    twin
}

/// What of it goes into Device.status.
fn shown(status: &Value) -> Value {
    let mut shown = Map::new();
    for field in ["state", "lastOnlineTime", "conditions", "mapper"] {
        shown.insert(field.to_owned(), status[field].clone());
    }
    Value::Object(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn twin() -> payload::Twin {
        serde_json::from_value(json!({
            "uid": "u", "gen": { "store": "s", "n": 1 }, "state": "online", "mapper": "modbus",
            "props": {
                "on": { "desired": true, "reported": false, "at": "2026-11-23T10:00:00.250Z", "synced": false, "local": true },
                "temp": { "reported": 21.5, "quality": "bad", "cause": "timeout", "synced": true },
                "name": { "desired": "x", "synced": false },
            },
            "conditions": [{ "type": "Synced", "status": "False", "reason": "Waiting", "message": "", "lastTransitionTime": "" }],
        }))
        .unwrap()
    }

    #[test]
    fn a_twin_becomes_a_status_in_kubeedges_shape() {
        let status = status(&twin());
        assert_eq!(
            status["twins"][1],
            json!({
                "propertyName": "on",
                "reported": { "value": "false", "metadata": { "timestamp": "1795428000250" } },
                "observedDesired": { "value": "true", "metadata": { "source": "local" } },
            })
        );
        assert_eq!(
            status["twins"][0],
            json!({ "propertyName": "name", "observedDesired": { "value": "x" } })
        );
        assert_eq!(
            status["twins"][2]["reported"]["metadata"]["cause"],
            "timeout"
        );
        assert_eq!(status["state"], "online");
        assert_eq!(status["lastOnlineTime"], Value::Null);
        // The types of the API read it.
        serde_json::from_value::<edgebus_api::Twin>(status["twins"][1].clone()).unwrap();
    }

    #[test]
    fn a_local_override_is_a_condition() {
        let status = status(&twin());
        let conditions = status["conditions"].as_array().unwrap();
        let local = conditions
            .iter()
            .find(|c| c["type"] == "LocalOverride")
            .unwrap();
        assert_eq!(local["status"], "True");
        assert!(
            local["message"].as_str().unwrap().contains("set on"),
            "{local}"
        );
    }

    #[test]
    fn a_new_sample_changes_nothing_in_the_device() {
        let before = summary(&shown(&status(&twin())));
        let mut later = twin();
        later.last_online = Some("2026-11-23T11:00:00Z".into());
        later.props.get_mut("temp").unwrap().reported = Some(json!(22));
        assert_eq!(summary(&shown(&status(&later))), before);
        later.state = payload::DeviceUp::Offline;
        assert_ne!(summary(&shown(&status(&later))), before);
    }
}
