//! Namespaces, ConfigMaps, Secrets, Services, Events and role bindings.

use super::fill;
use crate::meta::{map_at, metadata, name, text};
use crate::schema::Cause;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

pub fn create_namespace(object: &mut Value) {
    map_at(object, "spec").insert("finalizers".into(), json!(["kubernetes"]));
    object["status"] = json!({"phase": "Active"});
}

pub fn default_namespace(object: &mut Value) {
    let own = name(object).to_owned();
    let metadata = metadata(object);
    let labels = metadata.entry("labels").or_insert(json!({}));
    if labels.is_null() {
        *labels = json!({});
    }
    if let Some(labels) = labels.as_object_mut() {
        labels.insert("kubernetes.io/metadata.name".into(), json!(own));
    }
}

/// `spec.finalizers` is written through `/finalize` only.
pub fn update_namespace(new: &mut Value, old: &Value) {
    new["spec"] = old["spec"].clone();
}

const MOST_DATA_BYTES: usize = 1024 * 1024;

fn key_ok(key: &str) -> bool {
    !key.is_empty()
        && key.len() <= 253
        && key != "."
        && !key.starts_with("..")
        && key
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

/// Keys, size and immutability of `data` and `binaryData`.
pub fn validate_data(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    let mut size = 0;
    for field in ["data", "binaryData"] {
        for (key, value) in object[field].as_object().into_iter().flatten() {
            size += value.as_str().map_or(0, str::len);
            if !key_ok(key) {
                causes.push(Cause::invalid(
                    format!("{field}[{key}]"),
                    &format!("{key:?}"),
                    "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')",
                ));
            }
            if field == "binaryData" && object["data"].get(key).is_some() {
                causes.push(Cause::invalid(
                    format!("data[{key}]"),
                    &format!("{key:?}"),
                    "duplicate of key present in binaryData",
                ));
            }
        }
    }
    if size > MOST_DATA_BYTES {
        causes.push(Cause::plain(
            crate::schema::Reason::TooLong,
            "data",
            &format!("may not be more than {MOST_DATA_BYTES} bytes"),
        ));
    }
    if let Some(old) = old.filter(|old| old["immutable"] == json!(true)) {
        if object["immutable"] != json!(true) {
            causes.push(Cause::forbidden(
                "immutable",
                "field is immutable when `immutable` is set",
            ));
        }
        for field in ["data", "binaryData"] {
            if object[field] != old[field] {
                causes.push(Cause::forbidden(
                    field,
                    "field is immutable when `immutable` is set",
                ));
            }
        }
    }
    causes
}

/// `stringData` is written into `data`, and is never stored itself.
pub fn default_secret(object: &mut Value) {
    fill(object, "type", "Opaque");
    let Some(plain) = object.as_object_mut().and_then(|o| o.remove("stringData")) else {
        return;
    };
    let data = map_at(object, "data");
    for (key, value) in plain.as_object().into_iter().flatten() {
        if let Some(value) = value.as_str() {
            data.insert(key.clone(), json!(STANDARD.encode(value)));
        }
    }
}

pub fn validate_secret(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = validate_data(object, old);
    for (key, value) in object["data"].as_object().into_iter().flatten() {
        if value.as_str().is_some_and(|v| STANDARD.decode(v).is_err()) {
            causes.push(Cause::invalid(
                format!("data[{key}]"),
                "\"\"",
                "must be base64-encoded",
            ));
        }
    }
    if let Some(old) = old
        && object["type"] != old["type"]
    {
        let shown = format!("{:?}", text(object, "/type"));
        causes.push(Cause::invalid("type", &shown, "field is immutable"));
    }
    causes
}

pub fn default_service(object: &mut Value) {
    let spec = map_at(object, "spec");
    for (field, value) in [("type", "ClusterIP"), ("sessionAffinity", "None")] {
        spec.entry(field).or_insert(json!(value));
    }
    for port in spec
        .get_mut("ports")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        fill(port, "protocol", "TCP");
        let number = port["port"].clone();
        fill(port, "targetPort", number);
    }
    // Nothing here routes to a virtual address, so none is promised.
    spec.entry("clusterIP").or_insert(json!("None"));
}

pub fn default_event(object: &mut Value) {
    let involved = map_at(object, "involvedObject");
    if involved.is_empty() {
        involved.insert("kind".into(), json!(""));
    }
}

pub fn validate_event(object: &Value, _old: Option<&Value>) -> Vec<Cause> {
    let involved = text(object, "/involvedObject/namespace");
    let own = text(object, "/metadata/namespace");
    if involved != own && !(involved.is_empty() && own == "default") {
        return vec![Cause::invalid(
            "involvedObject.namespace",
            &format!("{involved:?}"),
            "does not match event.namespace",
        )];
    }
    Vec::new()
}

pub fn default_binding(object: &mut Value) {
    const GROUP: &str = "rbac.authorization.k8s.io";
    if object["roleRef"].is_object() {
        fill(&mut object["roleRef"], "apiGroup", GROUP);
    }
    let subjects = object.get_mut("subjects").and_then(Value::as_array_mut);
    for subject in subjects.into_iter().flatten() {
        let group = match text(subject, "/kind") {
            "User" | "Group" => GROUP,
            _ => continue,
        };
        fill(subject, "apiGroup", group);
    }
}

pub fn validate_binding(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    if text(object, "/roleRef/name").is_empty() {
        causes.push(Cause::required("roleRef.name", ""));
    }
    if old.is_some_and(|old| old["roleRef"] != object["roleRef"]) {
        let shown = object["roleRef"].to_string();
        causes.push(Cause::invalid("roleRef", &shown, "cannot change roleRef"));
    }
    causes
}
