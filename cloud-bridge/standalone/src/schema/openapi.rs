//! OpenAPI v3 documents, one per group-version, from the rows of the registry: what
//! `kubectl explain` shows and what tells kubectl that the server validates fields.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::builtin;

/// One served resource of a group-version.
#[derive(Clone, Debug)]
pub struct Row {
    /// Empty for the core group.
    pub group: String,
    pub version: String,
    pub kind: String,
    pub plural: String,
    pub namespaced: bool,
    /// `status`, `scale`, …
    pub subresources: Vec<String>,
    /// `openAPIV3Schema` of a custom resource; `None` for a built-in kind.
    pub custom: Option<Arc<RawSchema>>,
}

/// The `openAPIV3Schema` of a custom resource, kept as text, with a digest of it.
#[derive(Debug)]
pub struct RawSchema {
    text: Box<str>,
    digest: [u8; 32],
}

impl RawSchema {
    pub fn of(schema: Option<&Value>) -> RawSchema {
        let text = schema.unwrap_or(&Value::Null).to_string();
        RawSchema {
            digest: Sha256::digest(&text).into(),
            text: text.into(),
        }
    }

    fn parse(&self) -> Value {
        // It was written from a value, so it reads as one.
        serde_json::from_str(&self.text).unwrap_or_default()
    }
}

/// Built documents, kept until the rows of their group-version change.
#[derive(Debug, Default)]
pub struct Documents {
    built: Mutex<BTreeMap<String, Built>>,
}

#[derive(Debug)]
struct Built {
    fingerprint: String,
    bytes: Bytes,
}

impl Documents {
    /// The document as JSON, from the cache if the rows are still the same. `rows` are the
    /// rows of this group-version only.
    pub fn get(&self, rows: &[Row]) -> Bytes {
        let fingerprint = fingerprint(rows);
        let key = rows.first().map(path_of).unwrap_or_default();
        let mut built = self.built.lock().unwrap_or_else(PoisonError::into_inner);
        match built.get(&key) {
            Some(known) if known.fingerprint == fingerprint => known.bytes.clone(),
            _ => {
                let bytes = Bytes::from(document(rows).to_string());
                let new = Built {
                    fingerprint,
                    bytes: bytes.clone(),
                };
                built.insert(key, new);
                bytes
            }
        }
    }
}

/// A short text that changes when the document of these rows would: for `?hash=` in the
/// index at `/openapi/v3`. Cheap: nothing is generated.
pub fn fingerprint(rows: &[Row]) -> String {
    let mut sha = Sha256::new();
    sha.update(env!("CARGO_PKG_VERSION"));
    for row in rows {
        let head = format!(
            "\0{}/{}/{}/{}/{}/{}\0",
            row.group,
            row.version,
            row.kind,
            row.plural,
            row.namespaced,
            row.subresources.join(",")
        );
        sha.update(head);
        if let Some(schema) = &row.custom {
            sha.update(schema.digest);
        }
    }
    let digest = sha.finalize();
    digest[..16].iter().map(|b| format!("{b:02X}")).collect()
}

/// `api/v1` or `apis/apps/v1`: the key of the index at `/openapi/v3`.
pub fn path_of(row: &Row) -> String {
    match row.group.as_str() {
        "" => format!("api/{}", row.version),
        group => format!("apis/{group}/{}", row.version),
    }
}

/// The OpenAPI v3 document of one group-version.
pub fn document(rows: &[Row]) -> Value {
    let builtin_kinds = rows
        .iter()
        .filter(|row| row.custom.is_none())
        .map(|row| (row.group.as_str(), row.version.as_str(), row.kind.as_str()))
        // The body of every delete.
        .chain([("", "v1", "DeleteOptions")]);
    let mut components = builtin::components(builtin_kinds);
    if rows.iter().any(|row| row.custom.is_some()) {
        components.append(&mut builtin::object_meta());
    }
    let mut paths = Map::new();
    for row in rows {
        let name = match &row.custom {
            Some(schema) => {
                let name = custom_name(row);
                components.insert(name.clone(), custom_component(row, &schema.parse()));
                Some(name)
            }
            None => builtin::component_name(&row.group, &row.version, &row.kind),
        };
        let Some(name) = name else { continue };
        let base = match row.namespaced {
            true => format!("/{}/namespaces/{{namespace}}/{}", path_of(row), row.plural),
            false => format!("/{}/{}", path_of(row), row.plural),
        };
        paths.insert(base.clone(), collection(row, &name));
        paths.insert(format!("{base}/{{name}}"), item(row, &name));
        for subresource in row.subresources.iter().filter(|s| *s == "status") {
            paths.insert(format!("{base}/{{name}}/{subresource}"), item(row, &name));
        }
    }
    let schemas: Map<String, Value> = components.into_iter().collect();
    json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": "v1.33.0"},
        "paths": paths,
        "components": {"schemas": schemas},
    })
}

/// Reversed group, version, kind, as the API server names custom resources:
/// `io.kubeedge.devices.v1beta1.Device`.
fn custom_name(row: &Row) -> String {
    let mut labels: Vec<&str> = row.group.split('.').rev().collect();
    labels.extend([row.version.as_str(), row.kind.as_str()]);
    labels.join(".")
}

fn custom_component(row: &Row, schema: &Value) -> Value {
    let mut schema = match schema {
        Value::Object(schema) => schema.clone(),
        _ => Map::new(),
    };
    schema.insert("type".into(), "object".into());
    builtin::add_gvk(&mut schema, &row.group, &row.version, &row.kind);
    let properties = schema
        .entry("properties")
        .or_insert_with(|| Value::Object(Map::new()));
    if let Value::Object(properties) = properties {
        for (name, text) in [
            (
                "apiVersion",
                "APIVersion defines the versioned schema of this representation of an object.",
            ),
            (
                "kind",
                "Kind is a string value representing the REST resource this object represents.",
            ),
        ] {
            let property = properties
                .entry(name)
                .or_insert_with(|| json!({"type": "string"}));
            if property.get("description").is_none() && property.is_object() {
                property["description"] = text.into();
            }
        }
        properties.insert(
            "metadata".into(),
            json!({
                "description": "Standard object's metadata.",
                "allOf": [reference(builtin::OBJECT_META)],
            }),
        );
    }
    Value::Object(schema)
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

fn query(names: &[&str]) -> Value {
    let list = names.iter().map(|name| {
        let ty = if *name == "force" {
            "boolean"
        } else {
            "string"
        };
        json!({"in": "query", "name": name, "schema": {"type": ty, "uniqueItems": true}})
    });
    Value::Array(list.collect())
}

fn operation(
    row: &Row,
    action: &str,
    parameters: &[&str],
    body: Option<(&[&str], Value)>,
) -> Value {
    let mut operation = json!({
        "parameters": query(parameters),
        "responses": {"200": {"description": "OK"}},
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind":
            {"group": row.group, "kind": row.kind, "version": row.version},
    });
    if let Some((types, schema)) = body {
        let content: Map<String, Value> = types
            .iter()
            .map(|ty| ((*ty).to_owned(), json!({"schema": schema})))
            .collect();
        operation["requestBody"] = json!({"content": content});
    }
    operation
}

const WRITE: &[&str] = &["pretty", "dryRun", "fieldManager", "fieldValidation"];
const PATCH: &[&str] = &[
    "pretty",
    "dryRun",
    "fieldManager",
    "fieldValidation",
    "force",
];
const JSON: &[&str] = &["application/json"];

fn collection(row: &Row, name: &str) -> Value {
    json!({
        "get": operation(row, "list", &["labelSelector", "fieldSelector", "limit", "continue"], None),
        "post": operation(row, "post", WRITE, Some((JSON, reference(name)))),
        "parameters": path_parameters(row, false),
    })
}

fn item(row: &Row, name: &str) -> Value {
    let mut patches = vec![
        "application/json-patch+json",
        "application/merge-patch+json",
        "application/apply-patch+yaml",
    ];
    if row.custom.is_none() {
        patches.push("application/strategic-merge-patch+json");
    }
    let any = json!({"type": "object"});
    let options = reference("io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions");
    json!({
        "get": operation(row, "get", &["pretty"], None),
        "put": operation(row, "put", WRITE, Some((JSON, reference(name)))),
        "patch": operation(row, "patch", PATCH, Some((&patches, any))),
        "delete": operation(
            row,
            "delete",
            &["dryRun", "gracePeriodSeconds", "propagationPolicy"],
            Some((JSON, options)),
        ),
        "parameters": path_parameters(row, true),
    })
}

fn path_parameters(row: &Row, named: bool) -> Value {
    let names = [("name", named), ("namespace", row.namespaced)];
    let list = names
        .iter()
        .filter(|(_, present)| *present)
        .map(|(name, _)| {
            json!({
                "in": "path",
                "name": name,
                "required": true,
                "schema": {"type": "string", "uniqueItems": true},
            })
        });
    Value::Array(list.collect())
}
