//! From a CustomResourceDefinition to the rows it adds, and to the status that says so.

use super::{Column, Custom, Resource, ScalePaths, Snapshot, Subresource};
use crate::convert::Convert;
use crate::kinds::Hooks;
use crate::meta::{array, condition, strings, text};
use crate::schema::Schema;
use crate::schema::openapi::RawSchema;
use crate::time;
use serde_json::{Value, json};
use std::sync::{Arc, OnceLock};

const ALL: &[&str] = &[
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "create",
    "update",
    "watch",
];

/// The finalizer that keeps a definition until its objects are gone.
pub const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";

/// One row for each served version of an established definition. A version whose schema
/// cannot be read is left out: such a definition is refused when it is written.
pub fn rows_of(definition: &Value) -> Vec<Resource> {
    if condition(definition, "Established").is_none_or(|c| c["status"] != "True") {
        return Vec::new();
    }
    array(definition, "/spec/versions")
        .iter()
        .filter(|version| version["served"] == json!(true))
        .filter_map(|version| row(definition, version))
        .collect()
}

fn row(definition: &Value, version: &Value) -> Option<Resource> {
    let open_api = version.pointer("/schema/openAPIV3Schema");
    let schema = match Schema::custom(open_api) {
        Ok(schema) => schema,
        Err(error) => {
            let name = text(definition, "/metadata/name");
            tracing::error!(
                "version {} of {name} is not served: {error}",
                version["name"]
            );
            return None;
        }
    };
    let spec = |field: &str| text(definition, &format!("/spec/{field}")).to_owned();
    let names =
        |field: &str| text(definition, &format!("/status/acceptedNames/{field}")).to_owned();
    let list = |field: &str| {
        strings(definition.pointer(&format!("/status/acceptedNames/{field}")))
            .into_iter()
            .map(ToOwned::to_owned)
            .collect::<Vec<_>>()
    };
    let (group, plural) = (spec("group"), names("plural"));
    let scale = version.pointer("/subresources/scale").map(|s| ScalePaths {
        spec_replicas: text(s, "/specReplicasPath").to_owned(),
        status_replicas: text(s, "/statusReplicasPath").to_owned(),
        selector: Some(text(s, "/labelSelectorPath").to_owned()).filter(|p| !p.is_empty()),
    });
    let subresources = scale
        .iter()
        .map(|_| Subresource {
            name: "scale",
            gvk: ("autoscaling", "v1", "Scale"),
            verbs: &["get", "patch", "update"],
        })
        .collect();
    let fields = array(version, "/selectableFields")
        .iter()
        .map(|f| text(f, "/jsonPath").trim_start_matches('.').to_owned())
        .collect();
    Some(Resource {
        version: text(version, "/name").to_owned(),
        singular: names("singular"),
        kind: names("kind"),
        list_kind: names("listKind"),
        short_names: list("shortNames"),
        categories: list("categories"),
        namespaced: spec("scope") == "Namespaced",
        verbs: ALL,
        status: version.pointer("/subresources/status").is_some(),
        subresources,
        fields,
        scale,
        hooks: Hooks::NONE,
        convert: Convert::Version,
        storage: format!("{group}/{plural}").into(),
        custom: Some(Custom {
            definition: text(definition, "/metadata/name").to_owned(),
            schema: Some(schema),
            raw_schema: Arc::new(RawSchema::of(open_api)),
            columns: array(version, "/additionalPrinterColumns")
                .iter()
                .map(column)
                .collect(),
        }),
        schema: OnceLock::new(),
        group,
        plural,
    })
}

fn column(column: &Value) -> Column {
    let field = |name: &str| text(column, &format!("/{name}")).to_owned();
    Column {
        name: field("name"),
        kind: field("type"),
        format: field("format"),
        description: field("description"),
        priority: column["priority"].as_i64().unwrap_or(0),
        json_path: field("jsonPath"),
    }
}

/// Fills in the status of a definition as it is written: which names it gets, and that it is
/// served. Its rows appear before the writer is answered, so nothing is promised too early.
pub fn establish(definition: &mut Value, now: &Snapshot) {
    let clash = names_conflict(definition, now);
    let names = definition["spec"]["names"].clone();
    let at = time::now();
    let mut conditions = array(definition, "/status/conditions").to_vec();
    let mut set = |kind: &str, status: bool, reason: &str, message: &str| {
        let status = if status { "True" } else { "False" };
        let since = conditions
            .iter()
            .find(|c| c["type"] == kind && c["status"] == status)
            .map_or(json!(at), |c| c["lastTransitionTime"].clone());
        let new = json!({"type": kind, "status": status, "lastTransitionTime": since,
            "reason": reason, "message": message});
        match conditions.iter_mut().find(|c| c["type"] == kind) {
            Some(old) => *old = new,
            None => conditions.push(new),
        }
    };
    match &clash {
        None => {
            set("NamesAccepted", true, "NoConflicts", "no conflicts found");
            set(
                "Established",
                true,
                "InitialNamesAccepted",
                "the initial names have been accepted",
            );
        }
        Some((reason, message)) => {
            set("NamesAccepted", false, reason, message);
            set(
                "Established",
                false,
                "NotAccepted",
                "not all names are accepted",
            );
        }
    }
    let accepted = match clash {
        None => names,
        Some(_) => json!({"plural": "", "kind": ""}),
    };
    let storage = array(definition, "/spec/versions")
        .iter()
        .find(|v| v["storage"] == json!(true))
        .map(|v| v["name"].clone());
    let mut stored = array(definition, "/status/storedVersions").to_vec();
    if let Some(storage) = storage
        && !stored.contains(&storage)
    {
        stored.push(storage);
    }
    definition["status"] = json!({"conditions": conditions, "acceptedNames": accepted,
        "storedVersions": stored});
}

/// Whether another definition (or a built-in kind) of the group has one of these names.
fn names_conflict(definition: &Value, now: &Snapshot) -> Option<(&'static str, String)> {
    let group = text(definition, "/spec/group");
    let own = text(definition, "/metadata/name");
    let names = &definition["spec"]["names"];
    let others = || {
        now.rows()
            .filter(|r| r.group == group)
            .filter(|r| r.custom.as_ref().is_none_or(|c| c.definition != own))
    };
    let taken = |word: &str| {
        !word.is_empty()
            && others().any(|r| {
                r.plural == word || r.singular == word || r.short_names.iter().any(|s| s == word)
            })
    };
    let clash = |reason, word: &str| Some((reason, format!("{word:?} is already in use")));
    let (plural, singular) = (text(names, "/plural"), text(names, "/singular"));
    let (kind, list_kind) = (text(names, "/kind"), text(names, "/listKind"));
    if taken(plural) {
        return clash("PluralConflict", plural);
    }
    if taken(singular) {
        return clash("SingularConflict", singular);
    }
    for short in strings(names.get("shortNames")) {
        if taken(short) {
            return clash("ShortNamesConflict", short);
        }
    }
    if others().any(|r| r.kind == kind || r.list_kind == kind) {
        return clash("KindConflict", kind);
    }
    if others().any(|r| r.kind == list_kind || r.list_kind == list_kind) {
        return clash("ListKindConflict", list_kind);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Registry;

    fn definition(plural: &str, kind: &str) -> Value {
        json!({
            "metadata": {"name": format!("{plural}.e.io")},
            "spec": {
                "group": "e.io", "scope": "Namespaced",
                "names": {"plural": plural, "singular": kind.to_lowercase(), "kind": kind,
                    "listKind": format!("{kind}List"), "shortNames": ["th"]},
                "versions": [{"name": "v1", "served": true, "storage": true,
                    "schema": {"openAPIV3Schema": {"type": "object"}},
                    "subresources": {"status": {}}}],
            },
        })
    }

    #[test]
    fn an_established_definition_gives_rows() {
        let registry = Registry::new();
        let mut crd = definition("things", "Thing");
        assert!(rows_of(&crd).is_empty());
        establish(&mut crd, &registry.now());
        assert_eq!(crd["status"]["storedVersions"], json!(["v1"]));
        registry.replace_custom(&[crd]);
        let now = registry.now();
        let row = now.find("e.io", "v1", "things").unwrap();
        assert!(row.namespaced && row.status && row.short_names == ["th"]);
    }

    #[test]
    fn a_name_in_use_is_not_accepted() {
        let registry = Registry::new();
        let mut first = definition("things", "Thing");
        establish(&mut first, &registry.now());
        registry.replace_custom(&[first]);
        let mut second = definition("thongs", "Thong");
        establish(&mut second, &registry.now());
        let condition = condition(&second, "NamesAccepted").unwrap();
        assert_eq!(condition["reason"], "ShortNamesConflict");
        assert!(rows_of(&second).is_empty());
    }
}
