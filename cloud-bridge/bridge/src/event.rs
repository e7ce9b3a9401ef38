//! Events from the edge, as Kubernetes Events. The edge names them from what they say, so the same event
//! again is the same object, counted up.

use edgebus_bus::{Name, NodeName, payload};
use edgebus_linkproto::Code;
use kube::Api;
use kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::cluster::{FIELD_MANAGER, api_code, call};
use crate::metrics::count;
use crate::mirror::Key;
use crate::rows;
use crate::shared::Shared;
use crate::up::Refusal;

/// Longest message that Kubernetes takes in both of its event APIs.
const NOTE_MAX: usize = 1024;

/// What an event is about, checked: its uid and the namespace of the Event.
fn regarding(
    shared: &Shared,
    node: &NodeName,
    about: &payload::Regarding,
) -> Result<(String, String), Refusal> {
    let named = format!("{} {}/{}", about.kind, about.namespace, about.name);
    let foreign = || Refusal::never(Code::FORBIDDEN, format!("{named} is not on node {node}"));
    let key = Key::new(&about.namespace, &about.name);
    let mirror = shared.mirror();
    match about.kind.as_str() {
        "Node" if about.name == node.as_str() => {
            // kubelets and the node controller use the name as uid: `kubectl describe node` finds both.
            Ok((about.name.clone(), "default".to_owned()))
        }
        "Node" => Err(foreign()),
        "Device" => match mirror.device(&key) {
            Some(device) if device.nodes.contains(node.as_str()) => {
                Ok((device.uid, about.namespace.clone()))
            }
            Some(_) => Err(foreign()),
            None if mirror.devices_complete() => Err(Refusal::never(
                Code::NOT_FOUND,
                format!("{named} does not exist any more"),
            )),
            None => Err(Refusal::later("devices have not been listed yet")),
        },
        kind if mirror.concerns(node.as_str(), kind, &key) => {
            Ok((about.uid.clone(), about.namespace.clone()))
        }
        _ => Err(foreign()),
    }
}

pub async fn write(
    shared: &Shared,
    node: &NodeName,
    component: &str,
    event: payload::Event,
) -> Result<(), Refusal> {
    if let Err(error) = Name::new(event.name.as_str()) {
        return Err(Refusal::never(
            Code::UNPROCESSABLE,
            format!("event {error}"),
        ));
    }
    let (uid, ns) = regarding(shared, node, &event.regarding)?;
    let body = body(node, component, &event, &ns, &uid);
    let again = json!({
        "count": event.count.max(1),
        "lastTimestamp": time(&event.at),
        "message": note(&event.note),
    });
    Ok(put(shared, &ns, &event.name, body, again).await?)
}

/// Creates an Event, or changes `again` in the one that is there.
pub async fn put(
    shared: &Shared,
    ns: &str,
    name: &str,
    body: Value,
    again: Value,
) -> anyhow::Result<()> {
    let api: Api<DynamicObject> =
        Api::namespaced_with(shared.client.clone(), ns, &rows::event_resource());
    let object: DynamicObject = serde_json::from_value(body)?;
    count(&shared.metrics.api_writes);
    let what = format!("create event {ns}/{name}");
    match call(&what, api.create(&PostParams::default(), &object)).await {
        Ok(_) => return Ok(()),
        Err(error) if api_code(&error) == Some(409) => {}
        Err(error) => return Err(error),
    }
    let params = PatchParams {
        field_manager: Some(FIELD_MANAGER.into()),
        ..PatchParams::default()
    };
    count(&shared.metrics.api_writes);
    let what = format!("count event {ns}/{name}");
    call(&what, api.patch(name, &params, &Patch::Merge(again))).await?;
    Ok(())
}

fn body(node: &NodeName, component: &str, event: &payload::Event, ns: &str, uid: &str) -> Value {
    let about = &event.regarding;
    let mut involved = json!({
        "apiVersion": about.api_version,
        "kind": about.kind,
        "name": about.name,
        "uid": uid,
    });
    if !about.namespace.is_empty() {
        involved["namespace"] = about.namespace.as_str().into();
    }
    let kind = if event.kind == "Warning" {
        "Warning"
    } else {
        "Normal"
    };
    json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": { "name": event.name, "namespace": ns },
        "involvedObject": involved,
        "type": kind,
        "reason": event.reason,
        "message": note(&event.note),
        "count": event.count.max(1),
        "firstTimestamp": time(&event.at),
        "lastTimestamp": time(&event.at),
        "source": { "component": format!("edgebus-{component}"), "host": node.as_str() },
        "reportingComponent": format!("edgebus-{component}"),
        "reportingInstance": node.as_str(),
    })
}

fn note(text: &str) -> &str {
    let mut end = text.len().min(NOTE_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Kubernetes wants whole seconds here. A time that is none becomes now.
fn time(text: &str) -> String {
    let at = text.parse().unwrap_or_else(|_| jiff::Timestamp::now());
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_written_as_kubernetes_has_them() {
        let node = NodeName::new("gw").unwrap();
        let event = payload::Event {
            name: "pump.1a2b".into(),
            regarding: payload::Regarding {
                api_version: "devices.kubeedge.io/v1beta1".into(),
                kind: "Device".into(),
                namespace: "plant".into(),
                name: "pump".into(),
                uid: String::new(),
            },
            kind: "Warning".into(),
            reason: "OutOfRange".into(),
            note: "é".repeat(1000),
            at: "2026-11-23T10:00:00.123Z".into(),
            count: 0,
        };
        let body = body(&node, "devicetwin", &event, "plant", "u1");
        assert_eq!(body["involvedObject"]["uid"], "u1");
        assert_eq!(body["lastTimestamp"], "2026-11-23T10:00:00Z");
        assert_eq!(body["count"], 1);
        assert_eq!(body["message"].as_str().unwrap().len(), 1024);
        assert_eq!(body["source"]["host"], "gw");
    }
}
