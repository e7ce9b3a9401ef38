//! The CRDs, made from the types: schemars writes JSON Schema, and [`structural`] turns it into the
//! subset that Kubernetes calls a structural schema.

use crate::{Device, DeviceModel, DeviceStatus, GROUP, VERSION};
use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::{Map, Value, json};

/// The three CRDs (`apiextensions.k8s.io/v1`), models first: whoever installs them in this order
/// can apply a model and a device right after.
pub fn crds() -> Vec<Value> {
    vec![
        crd::<DeviceModel>(Words {
            plural: "devicemodels",
            singular: "devicemodel",
            kind: "DeviceModel",
            short: &["devmodel", "dmodel"],
            status: false,
            selectable: &[],
            columns: json!([
                column("PROTOCOL", "string", ".spec.protocol", 0),
                column("AGE", "date", ".metadata.creationTimestamp", 0),
            ]),
        }),
        crd::<Device>(Words {
            plural: "devices",
            singular: "device",
            kind: "Device",
            short: &["dev"],
            status: true,
            selectable: &[".spec.nodeName"],
            columns: json!([
                column("NODE", "string", ".spec.nodeName", 0),
                column("MODEL", "string", ".spec.deviceModelRef.name", 0),
                column("PROTOCOL", "string", ".spec.protocol.protocolName", 0),
                column("STATE", "string", ".status.state", 0),
                column(
                    "SYNCED",
                    "string",
                    ".status.conditions[?(@.type==\"Synced\")].status",
                    0
                ),
                column(
                    "REASON",
                    "string",
                    ".status.conditions[?(@.type==\"Configured\")].reason",
                    1
                ),
                column("AGE", "date", ".metadata.creationTimestamp", 0),
            ]),
        }),
        crd::<DeviceStatus>(Words {
            plural: "devicestatuses",
            singular: "devicestatus",
            kind: "DeviceStatus",
            short: &["devstatus"],
            status: true,
            selectable: &[],
            columns: json!([
                column("STATE", "string", ".status.state", 0),
                column(
                    "SYNCED",
                    "string",
                    ".status.conditions[?(@.type==\"Synced\")].status",
                    0
                ),
                column("LAST-ONLINE", "string", ".status.lastOnlineTime", 0),
                column("AGE", "date", ".metadata.creationTimestamp", 0),
            ]),
        }),
    ]
}

struct Words {
    plural: &'static str,
    singular: &'static str,
    kind: &'static str,
    short: &'static [&'static str],
    status: bool,
    /// What a field selector may name; Kubernetes before 1.31 drops it and refuses the selector.
    selectable: &'static [&'static str],
    columns: Value,
}

fn column(name: &str, kind: &str, path: &str, priority: u8) -> Value {
    json!({ "name": name, "type": kind, "jsonPath": path, "priority": priority })
}

fn crd<T: JsonSchema>(words: Words) -> Value {
    let mut version = json!({
        "name": VERSION,
        "served": true,
        "storage": true,
        "schema": { "openAPIV3Schema": schema::<T>() },
        "additionalPrinterColumns": words.columns,
    });
    if words.status {
        version["subresources"] = json!({ "status": {} });
    }
    if !words.selectable.is_empty() {
        let paths = words.selectable.iter().map(|p| json!({ "jsonPath": p }));
        version["selectableFields"] = paths.collect();
    }
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": format!("{}.{GROUP}", words.plural),
            "labels": { "app.kubernetes.io/part-of": "edgebus" },
        },
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "plural": words.plural,
                "singular": words.singular,
                "kind": words.kind,
                "listKind": format!("{}List", words.kind),
                "shortNames": words.short,
                "categories": ["edgebus"],
            },
            "versions": [version],
        },
    })
}

fn schema<T: JsonSchema>() -> Value {
    let made = SchemaSettings::openapi3()
        .with(|s| {
            s.inline_subschemas = true;
            s.meta_schema = None;
        })
        .into_generator()
        .into_root_schema_for::<T>();
    let mut root = structural(made.to_value());
    // The API server has its own schema for these.
    root["properties"]["metadata"] = json!({ "type": "object" });
    root["properties"]["apiVersion"] = json!({ "type": "string" });
    root["properties"]["kind"] = json!({ "type": "string" });
    root
}

/// Keeps what a structural schema may contain: no titles, defaults or nulls; an enum as a list; an
/// open object as `x-kubernetes-preserve-unknown-fields`.
fn structural(schema: Value) -> Value {
    let Value::Object(mut s) = schema else {
        return json!({ "x-kubernetes-preserve-unknown-fields": true });
    };
    for gone in ["title", "$schema", "default", "nullable", "minimum"] {
        s.remove(gone);
    }
    for word in ["anyOf", "oneOf", "allOf"] {
        if let Some(Value::Array(options)) = s.remove(word) {
            fold(&mut s, options);
        }
    }
    if let Some(Value::Array(kinds)) = s.get("type")
        && let Some(kind) = kinds.iter().find(|k| *k != "null").cloned()
    {
        s.insert("type".into(), kind);
    }
    if s.get("format")
        .is_some_and(|f| f != "int64" && f != "double")
    {
        s.remove("format");
    }
    let open = s.get("x-kubernetes-preserve-unknown-fields").is_some();
    match s.remove("additionalProperties") {
        Some(Value::Bool(_)) | None => {}
        Some(_) if open => {}
        Some(inner) => {
            s.insert("additionalProperties".into(), structural(inner));
        }
    }
    if let Some(Value::Object(properties)) = s.remove("properties") {
        let inner: Map<_, _> = properties
            .into_iter()
            .map(|(name, inner)| (name, structural(inner)))
            .collect();
        s.insert("properties".into(), Value::Object(inner));
    }
    if let Some(items) = s.remove("items") {
        s.insert("items".into(), structural(items));
    }
    Value::Object(s)
}

/// Folds `anyOf`/`oneOf` of an optional value, or of the words of an enum, into `s`.
fn fold(s: &mut Map<String, Value>, options: Vec<Value>) {
    let mut words = Vec::new();
    for option in options {
        let Value::Object(option) = option else {
            continue;
        };
        if let Some(word) = option.get("const") {
            words.push(word.clone());
            continue;
        }
        if let Some(Value::Array(more)) = option.get("enum")
            && more.iter().all(Value::is_string)
        {
            words.extend(more.iter().cloned());
            continue;
        }
        if option.get("type").is_some_and(|t| t == "null") || option.get("enum").is_some() {
            continue;
        }
        let Value::Object(inner) = structural(Value::Object(option)) else {
            continue;
        };
        for (key, value) in inner {
            s.entry(key).or_insert(value);
        }
    }
    if !words.is_empty() {
        s.insert("type".into(), json!("string"));
        s.insert("enum".into(), Value::Array(words));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rules of "Specifying a structural schema" in the Kubernetes documentation.
    fn check(path: &str, schema: &Value) {
        let s = schema.as_object().unwrap_or_else(|| panic!("{path}"));
        let open = s.get("x-kubernetes-preserve-unknown-fields") == Some(&json!(true));
        assert!(
            s.contains_key("type") || open,
            "{path} has no type: {schema}"
        );
        for key in s.keys() {
            assert!(
                [
                    "type",
                    "format",
                    "description",
                    "properties",
                    "items",
                    "enum",
                    "required",
                    "additionalProperties",
                    "x-kubernetes-preserve-unknown-fields",
                    "x-kubernetes-list-type",
                    "x-kubernetes-list-map-keys",
                ]
                .contains(&key.as_str()),
                "{path} has {key}"
            );
        }
        if let Some(Value::Object(properties)) = s.get("properties") {
            for (name, inner) in properties {
                check(&format!("{path}.{name}"), inner);
            }
            for name in s
                .get("required")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
            {
                let name = name.as_str().unwrap();
                assert!(properties.contains_key(name), "{path} requires {name}");
            }
        }
        if let Some(keys) = s
            .get("x-kubernetes-list-map-keys")
            .and_then(Value::as_array)
        {
            for key in keys {
                let required = &s["items"]["required"];
                assert!(required.as_array().unwrap().contains(key), "{path}");
            }
        }
        for inner in ["items", "additionalProperties"] {
            if let Some(inner) = s.get(inner) {
                check(&format!("{path}[]"), inner);
            }
        }
    }

    fn schema_of(kind: &str) -> Value {
        let all = crds();
        let crd = all
            .iter()
            .find(|c| c["spec"]["names"]["kind"] == kind)
            .unwrap();
        crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
    }

    #[test]
    fn every_schema_is_structural() {
        for kind in ["Device", "DeviceModel", "DeviceStatus"] {
            check(kind, &schema_of(kind));
        }
    }

    #[test]
    fn free_data_is_kept_and_enums_are_listed() {
        let device = schema_of("Device");
        let spec = &device["properties"]["spec"]["properties"];
        assert_eq!(
            spec["protocol"]["properties"]["configData"]["x-kubernetes-preserve-unknown-fields"],
            json!(true)
        );
        assert_eq!(spec["onReconnect"]["enum"], json!(["hold", "reapply"]));
        assert_eq!(
            spec["properties"]["items"]["properties"]["collectCycle"]["type"],
            "integer"
        );
        let model = schema_of("DeviceModel");
        let property = &model["properties"]["spec"]["properties"]["properties"]["items"];
        assert_eq!(
            property["properties"]["type"]["enum"],
            json!([
                "INT", "FLOAT", "DOUBLE", "STRING", "BOOLEAN", "BYTES", "STREAM"
            ])
        );
        assert_eq!(property["required"], json!(["name", "type"]));
    }
}
