//! Custom resource definitions: defaults of names, and what makes one servable.

use super::fill;
use crate::meta::{add_finalizer, array, map_at, name, text};
use crate::registry::CLEANUP;
use crate::schema::{Cause, crd};
use serde_json::{Value, json};

pub fn create(definition: &mut Value) {
    add_finalizer(definition, CLEANUP);
}

pub fn default(definition: &mut Value) {
    let spec = map_at(definition, "spec");
    spec.entry("conversion")
        .or_insert(json!({"strategy": "None"}));
    let mut spec = Value::Object(std::mem::take(spec));
    let names = &mut spec["names"];
    if names.is_object() {
        let kind = text(names, "/kind").to_owned();
        fill(names, "singular", kind.to_lowercase());
        fill(names, "listKind", format!("{kind}List"));
    }
    definition["spec"] = spec;
}

pub fn validate(definition: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = crd::check(definition);
    let (group, plural) = (
        text(definition, "/spec/group"),
        text(definition, "/spec/names/plural"),
    );
    if group.is_empty() {
        causes.push(Cause::required("spec.group", ""));
    } else if !group.contains('.') {
        causes.push(Cause::invalid(
            "spec.group",
            &format!("{group:?}"),
            "should be a domain with at least one dot",
        ));
    }
    for field in ["plural", "kind"] {
        if text(definition, &format!("/spec/names/{field}")).is_empty() {
            causes.push(Cause::required(format!("spec.names.{field}"), ""));
        }
    }
    let scope = text(definition, "/spec/scope");
    if !matches!(scope, "Namespaced" | "Cluster") {
        causes.push(Cause::not_supported(
            "spec.scope",
            &format!("{scope:?}"),
            &["\"Cluster\"".into(), "\"Namespaced\"".into()],
        ));
    }
    if !group.is_empty() && name(definition) != format!("{plural}.{group}") {
        causes.push(Cause::invalid(
            "metadata.name",
            &format!("{:?}", name(definition)),
            "must be spec.names.plural+\".\"+spec.group",
        ));
    }
    let storage = array(definition, "/spec/versions")
        .iter()
        .filter(|v| v["storage"] == json!(true))
        .count();
    if storage != 1 {
        causes.push(Cause::invalid(
            "spec.versions",
            &format!(
                "{:?}",
                array(definition, "/spec/versions").len().to_string()
            ),
            "must have exactly one version marked as storage version",
        ));
    }
    let strategy = text(definition, "/spec/conversion/strategy");
    if strategy != "None" {
        causes.push(Cause::not_supported(
            "spec.conversion.strategy",
            &format!("{strategy:?}"),
            &["\"None\"".into()],
        ));
    }
    if let Some(old) = old {
        for field in ["group", "scope"] {
            let path = format!("/spec/{field}");
            if text(old, &path) != text(definition, &path) {
                causes.push(Cause::invalid(
                    format!("spec.{field}"),
                    &format!("{:?}", text(definition, &path)),
                    "field is immutable",
                ));
            }
        }
    }
    causes
}
