//! Custom resource definitions: the schema of each version, and the check of the
//! definition itself. `x-kubernetes-validations` (CEL) is accepted and not evaluated.

use serde_json::Value;

use super::builtin;
use super::cause::Cause;
use super::node::{Additional, Node, Schema, Ty};
use super::parse::{Builder, Components, SchemaError};

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
}

/// Everything that is wrong with a CustomResourceDefinition: names, versions, and whether
/// each schema is structural. Empty = it can be served.
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
        let path = format!("spec.versions[{i}].schema.openAPIV3Schema");
        match version.pointer("/schema/openAPIV3Schema") {
            None => causes.push(Cause::required(path, "schemas are required")),
            Some(schema) => {
                if let Err(error) = Schema::custom(Some(schema)) {
                    causes.push(Cause::invalid(path, "\"schema\"", &error.to_string()));
                }
            }
        }
    }
    causes
}
