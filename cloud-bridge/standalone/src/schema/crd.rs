//! Custom resource definitions: the schema of each version, and the check of the
//! definition itself. `x-kubernetes-validations` (CEL) is accepted and not evaluated.

use serde_json::Value;

use super::builtin;
use super::cause::{Cause, Reason};
use super::node::{Additional, Node, Schema, Ty};
use super::parse::{Builder, Components, SchemaError};
use super::structural;

impl Schema {
    /// The schema of a custom resource from `spec.versions[].schema.openAPIV3Schema`;
    /// `apiVersion`, `kind` and `metadata` are always known. `None` = no schema given:
    /// everything is kept.
    pub fn custom(open_api: Option<&Value>) -> Result<Schema, SchemaError> {
        let components: Components = builtin::object_meta();
        let mut builder = Builder::new(&components, false);
        let root = match open_api {
            Some(schema) => builder.schema(schema, "openAPIV3Schema", 0)?,
            None => builder.push(Node {
                ty: Some(Ty::Object),
                preserve: true,
                ..Node::default()
            }),
        };
        let metadata = builder.component(builtin::OBJECT_META, "metadata")?;
        let text = builder.push(Node {
            ty: Some(Ty::String),
            ..Node::default()
        });
        // A root may be a shared leaf: what is added here must not show elsewhere.
        let mut node = builder.node_mut(root).clone();
        node.embedded = true;
        if node.additional == Additional::Any {
            node.additional = Additional::Unset;
            node.preserve = true;
        }
        for (name, id) in [("apiVersion", text), ("kind", text), ("metadata", metadata)] {
            node.props.retain(|(key, _)| **key != *name);
            node.props.push((name.into(), id));
        }
        node.props.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        let root = builder.push(node);
        Ok(Schema {
            arena: std::sync::Arc::new(builder.finish()),
            root,
        })
    }

    /// The schema of a part of a custom resource, taken as it stands.
    pub(super) fn part(open_api: &Value) -> Result<Schema, SchemaError> {
        let components = Components::new();
        let mut builder = Builder::new(&components, false);
        let root = builder.schema(open_api, "openAPIV3Schema", 0)?;
        Ok(Schema {
            arena: std::sync::Arc::new(builder.finish()),
            root,
        })
    }
}

/// Everything that is wrong with the versions of a CustomResourceDefinition: their names,
/// schemas (which must be structural), printer columns, selectable fields and scale paths.
/// Empty = each version can be served.
pub fn check(crd: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let versions = crd
        .pointer("/spec/versions")
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default();
    if versions.is_empty() {
        causes.push(Cause::required(
            "spec.versions",
            "must have at least one version",
        ));
    }
    for (i, version) in versions.iter().enumerate() {
        let path = format!("spec.versions[{i}]");
        let name = version.get("name").and_then(Value::as_str).unwrap_or("");
        if !is_label(name) {
            let detail = "must consist of lower case letters, digits or '-', start with a \
                          letter and end with a letter or digit";
            causes.push(Cause::invalid(
                format!("{path}.name"),
                &format!("{name:?}"),
                detail,
            ));
        }
        let earlier = &versions[..i];
        if earlier.iter().any(|v| v.get("name") == version.get("name")) {
            let name = format!("{name:?}");
            causes.push(Cause::duplicate(format!("{path}.name"), &name));
        }
        check_version(version, &path, &mut causes);
    }
    causes
}

fn check_version(version: &Value, path: &str, causes: &mut Vec<Cause>) {
    let at = format!("{path}.schema.openAPIV3Schema");
    match version.pointer("/schema/openAPIV3Schema") {
        None => causes.push(Cause::required(at, "schemas are required")),
        Some(schema) => {
            let found = structural::check(schema, &at);
            if found.is_empty()
                && let Err(error) = Schema::custom(Some(schema))
            {
                causes.push(Cause::invalid(at, "\"schema\"", &error.to_string()));
            }
            causes.extend(found);
        }
    }
    let columns = version
        .get("additionalPrinterColumns")
        .and_then(Value::as_array);
    for (i, column) in columns.into_iter().flatten().enumerate() {
        let at = |field: &str| format!("{path}.additionalPrinterColumns[{i}].{field}");
        for field in ["name", "jsonPath"] {
            if text(column, field).is_empty() {
                causes.push(Cause::required(at(field), ""));
            }
        }
        let kind = text(column, "type");
        if !COLUMN_TYPES.contains(&kind) {
            let allowed: Vec<String> = COLUMN_TYPES.iter().map(|t| format!("{t:?}")).collect();
            causes.push(Cause::not_supported(
                at("type"),
                &format!("{kind:?}"),
                &allowed,
            ));
        }
    }
    check_selectable(version, path, causes);
    if let Some(scale) = version.pointer("/subresources/scale") {
        for (field, prefix) in [
            ("specReplicasPath", ".spec."),
            ("statusReplicasPath", ".status."),
        ] {
            let given = text(scale, field);
            if !given.starts_with(prefix) {
                let detail = format!(
                    "should be a json path under {}",
                    prefix.trim_end_matches('.')
                );
                causes.push(Cause::invalid(
                    format!("{path}.subresources.scale.{field}"),
                    &format!("{given:?}"),
                    &detail,
                ));
            }
        }
    }
}

const MOST_SELECTABLE: usize = 8;

/// A field selector compares texts: what it may name is one value of a known type.
fn check_selectable(version: &Value, path: &str, causes: &mut Vec<Cause>) {
    let fields = version.get("selectableFields").and_then(Value::as_array);
    let fields = fields.map(Vec::as_slice).unwrap_or_default();
    if fields.len() > MOST_SELECTABLE {
        causes.push(Cause::plain(
            Reason::TooMany,
            format!("{path}.selectableFields"),
            &format!(
                "{}: must have at most {MOST_SELECTABLE} items",
                fields.len()
            ),
        ));
    }
    for (i, field) in fields.iter().enumerate() {
        let given = text(field, "jsonPath");
        let root = version.pointer("/schema/openAPIV3Schema");
        let found = given.strip_prefix('.').and_then(|steps| {
            steps
                .split('.')
                .try_fold(root?, |at, step| at["properties"].get(step))
        });
        let kind = found.map_or("", |schema| text(schema, "type"));
        if !matches!(kind, "string" | "integer" | "boolean") || given.starts_with(".metadata") {
            causes.push(Cause::invalid(
                format!("{path}.selectableFields[{i}].jsonPath"),
                &format!("{given:?}"),
                "must point to a field of type string, boolean or integer in the schema, outside of metadata",
            ));
        }
    }
}

const COLUMN_TYPES: &[&str] = &["boolean", "date", "integer", "number", "string"];

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or("")
}

/// A DNS-1035 label.
fn is_label(name: &str) -> bool {
    name.len() <= 63
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && !name.ends_with('-')
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}
