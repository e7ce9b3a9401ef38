//! Whether the schema of a custom resource is structural: every value has a type, logic
//! (`allOf`, `anyOf`, `oneOf`, `not`) only narrows what is already described, and defaults
//! fit. Without that there is no telling what to prune and what to default.

use serde_json::{Map, Value};

use super::cause::Cause;
use super::node::Schema;
use super::parse::MAX_DEPTH;

const TYPES: &[&str] = &["array", "boolean", "integer", "number", "object", "string"];

/// Where in the schema a node stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Root,
    Field,
    Item,
    /// Below `allOf` and its like.
    Logic,
}

/// Everything that keeps the schema at `path` from being structural.
pub(super) fn check(schema: &Value, path: &str) -> Vec<Cause> {
    let mut causes = Vec::new();
    walk(schema, path, Place::Root, 0, &mut causes);
    causes
}

fn walk(value: &Value, path: &str, place: Place, depth: usize, causes: &mut Vec<Cause>) {
    if depth > MAX_DEPTH || causes.len() >= 50 {
        // `Schema::custom` says that a schema is too deep.
        return;
    }
    let Value::Object(schema) = value else {
        let found = super::types::describe(value);
        causes.push(Cause::invalid(path, &found, "must be an object"));
        return;
    };
    let at = |part: &str| format!("{path}.{part}");
    if schema.contains_key("$ref") {
        causes.push(Cause::forbidden(at("$ref"), "$ref is not supported"));
    }
    check_type(schema, path, place, causes);
    if schema.get("uniqueItems") == Some(&Value::Bool(true)) {
        causes.push(Cause::forbidden(
            at("uniqueItems"),
            "uniqueItems cannot be set to true since the runtime complexity becomes quadratic",
        ));
    }
    if schema.get("additionalProperties") == Some(&Value::Bool(false)) {
        causes.push(Cause::forbidden(
            at("additionalProperties"),
            "additionalProperties cannot be set to false",
        ));
    }
    let has = |key: &str| schema.get(key).is_some_and(|v| !v.is_null());
    if has("additionalProperties") && schema.get("properties").is_some_and(is_filled) {
        causes.push(Cause::forbidden(
            at("additionalProperties"),
            "additionalProperties and properties are mutual exclusive",
        ));
    }
    if place == Place::Logic {
        for key in [
            "default",
            "additionalProperties",
            "nullable",
            "description",
            "title",
        ] {
            if has(key) && schema.get(key) != Some(&Value::Bool(false)) {
                causes.push(Cause::forbidden(at(key), "must be empty to be structural"));
            }
        }
    } else if has("default") {
        check_default(schema, path, causes);
    }
    if place == Place::Root {
        check_metadata(schema, path, causes);
    }
    check_lists(schema, path, causes);
    descend(schema, path, place, depth, causes);
}

fn is_filled(value: &Value) -> bool {
    value.as_object().is_some_and(|map| !map.is_empty())
}

fn flag(schema: &Map<String, Value>, key: &str) -> bool {
    schema.get(key) == Some(&Value::Bool(true))
}

fn check_type(schema: &Map<String, Value>, path: &str, place: Place, causes: &mut Vec<Cause>) {
    let at = &format!("{path}.type");
    let ty = schema.get("type").and_then(Value::as_str).unwrap_or("");
    if !ty.is_empty() && !TYPES.contains(&ty) {
        let allowed: Vec<String> = TYPES.iter().map(|t| format!("{t:?}")).collect();
        causes.push(Cause::not_supported(at, &format!("{ty:?}"), &allowed));
        return;
    }
    let free = flag(schema, "x-kubernetes-int-or-string")
        || flag(schema, "x-kubernetes-preserve-unknown-fields");
    match place {
        Place::Root if ty.is_empty() => {
            causes.push(Cause::required(at, "must not be empty at the root"));
        }
        Place::Root if ty != "object" => {
            causes.push(Cause::invalid(
                at,
                &format!("{ty:?}"),
                "must be object at the root",
            ));
        }
        Place::Field if ty.is_empty() && !free => {
            let detail = "must not be empty for specified object fields";
            causes.push(Cause::required(at, detail));
        }
        Place::Item if ty.is_empty() && !free => {
            let detail = "must not be empty for specified array items";
            causes.push(Cause::required(at, detail));
        }
        _ => {}
    }
    if ty == "array" && place != Place::Logic && !schema.contains_key("items") {
        causes.push(Cause::required(
            format!("{path}.items"),
            "must be specified",
        ));
    }
    if flag(schema, "x-kubernetes-int-or-string") && !ty.is_empty() {
        let detail = "must be empty if x-kubernetes-int-or-string is true";
        causes.push(Cause::forbidden(at, detail));
    }
}

fn check_default(schema: &Map<String, Value>, path: &str, causes: &mut Vec<Cause>) {
    let at = format!("{path}.default");
    let mut bare = schema.clone();
    let Some(preset) = bare.remove("default") else {
        return;
    };
    // Not `custom`: a default is a part of an object and has no metadata of its own.
    let Ok(compact) = Schema::part(&Value::Object(bare)) else {
        return;
    };
    for cause in compact.validate(&preset) {
        let message = match cause.field.as_str() {
            "<nil>" => cause.message.clone(),
            _ => cause.to_string(),
        };
        causes.push(Cause::invalid(at.clone(), &preset.to_string(), &message));
    }
    let mut pruned = preset.clone();
    compact.prune(&mut pruned);
    if pruned != preset {
        let detail = "must be a valid default value for the schema: it has unknown fields";
        causes.push(Cause::invalid(at, &preset.to_string(), detail));
    }
}

/// At the root, `metadata` may be limited but not described.
fn check_metadata(schema: &Map<String, Value>, path: &str, causes: &mut Vec<Cause>) {
    let Some(Value::Object(metadata)) = schema
        .get("properties")
        .and_then(|properties| properties.get("metadata"))
    else {
        return;
    };
    let only_names = metadata
        .get("properties")
        .and_then(Value::as_object)
        .is_none_or(|fields| fields.keys().all(|k| k == "name" || k == "generateName"));
    if !only_names {
        causes.push(Cause::forbidden(
            format!("{path}.properties[metadata]"),
            "must not specify anything other than name and generateName, \
             but metadata is implicitly specified",
        ));
    }
}

/// `x-kubernetes-list-type: map` needs keys that every element has.
fn check_lists(schema: &Map<String, Value>, path: &str, causes: &mut Vec<Cause>) {
    let kind = schema.get("x-kubernetes-list-type").and_then(Value::as_str);
    let keys = schema
        .get("x-kubernetes-list-map-keys")
        .and_then(Value::as_array);
    let at = format!("{path}.x-kubernetes-list-map-keys");
    match (kind, keys) {
        (None | Some("atomic" | "set"), Some(_)) => {
            causes.push(Cause::forbidden(
                at,
                "must be empty if x-kubernetes-list-type is not map",
            ));
        }
        (Some("map"), None) => {
            let detail = "must not be empty if x-kubernetes-list-type is map";
            causes.push(Cause::required(at, detail));
        }
        (Some("map"), Some(keys)) => {
            let fields = schema
                .get("items")
                .and_then(|items| items.get("properties"));
            for (i, key) in keys.iter().enumerate() {
                let known = key
                    .as_str()
                    .is_some_and(|key| fields.is_some_and(|fields| fields.get(key).is_some()));
                if !known {
                    let detail = "entries must all be names of item properties";
                    causes.push(Cause::invalid(
                        format!("{at}[{i}]"),
                        &key.to_string(),
                        detail,
                    ));
                }
            }
        }
        (Some(other), _) if !matches!(other, "atomic" | "set" | "map") => {
            causes.push(Cause::not_supported(
                format!("{path}.x-kubernetes-list-type"),
                &format!("{other:?}"),
                &["\"atomic\"".into(), "\"set\"".into(), "\"map\"".into()],
            ));
        }
        _ => {}
    }
}

fn descend(
    schema: &Map<String, Value>,
    path: &str,
    place: Place,
    depth: usize,
    causes: &mut Vec<Cause>,
) {
    let logic = place == Place::Logic;
    let below = |other: Place| if logic { Place::Logic } else { other };
    if let Some(Value::Object(properties)) = schema.get("properties") {
        for (name, child) in properties {
            let implied =
                place == Place::Root && matches!(name.as_str(), "metadata" | "apiVersion" | "kind");
            // What every object has needs no type.
            let place = if implied {
                Place::Logic
            } else {
                below(Place::Field)
            };
            if !implied {
                let path = format!("{path}.properties[{name}]");
                walk(child, &path, place, depth + 1, causes);
            }
        }
    }
    if let Some(items) = schema.get("items") {
        let path = format!("{path}.items");
        if items.is_array() {
            causes.push(Cause::forbidden(
                path,
                "items must be a schema object and not an array",
            ));
        } else {
            walk(items, &path, below(Place::Item), depth + 1, causes);
        }
    }
    if let Some(child @ Value::Object(_)) = schema.get("additionalProperties") {
        let path = format!("{path}.additionalProperties");
        walk(child, &path, below(Place::Field), depth + 1, causes);
    }
    for key in ["allOf", "anyOf", "oneOf"] {
        for (i, child) in schema
            .get(key)
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .enumerate()
        {
            let path = format!("{path}.{key}[{i}]");
            walk(child, &path, Place::Logic, depth + 1, causes);
            described_outside(schema, child, &path, causes);
        }
    }
    if let Some(child) = schema.get("not") {
        let path = format!("{path}.not");
        walk(child, &path, Place::Logic, depth + 1, causes);
        described_outside(schema, child, &path, causes);
    }
}

/// A property that logic speaks of must be described outside of it.
fn described_outside(
    schema: &Map<String, Value>,
    logic: &Value,
    path: &str,
    causes: &mut Vec<Cause>,
) {
    let Some(Value::Object(named)) = logic.get("properties") else {
        return;
    };
    let outside = schema.get("properties").and_then(Value::as_object);
    let any = schema.contains_key("additionalProperties")
        || flag(schema, "x-kubernetes-embedded-resource");
    for name in named.keys() {
        if !any && outside.is_none_or(|outside| !outside.contains_key(name)) {
            causes.push(Cause::required(
                format!("{path}.properties[{name}]"),
                "must also be described in properties outside of the logic",
            ));
        }
    }
}
