//! The built-in kinds: their schemas from `k8s-openapi` under Kubernetes' own component
//! names, completed with merge rules (`merge_rules.rs`). Everything is generated on first
//! use, one group-version at a time, and only the compact form is kept.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::api::{
    apps::v1 as apps, authentication::v1 as authentication, authorization::v1 as authorization,
    coordination::v1 as coordination, core::v1 as core, discovery::v1 as discovery,
    events::v1 as events, policy::v1 as policy, rbac::v1 as rbac,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1 as apiextensions;
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use k8s_openapi::schemars::{JsonSchema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use super::merge_rules;
use super::node::Schema;
use super::parse::{Builder, Components, reference};

pub(crate) const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// Types that hold any JSON value; k8s-openapi calls them objects.
const ANY_JSON: &[&str] = &[
    "apiextensions.v1.JSON",
    "apiextensions.v1.JSONSchemaPropsOrArray",
    "apiextensions.v1.JSONSchemaPropsOrBool",
    "apiextensions.v1.JSONSchemaPropsOrStringArray",
];

/// One built-in kind.
struct Builtin {
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    name: fn() -> String,
    generate: fn(&mut SchemaGenerator),
}

const fn kind<T: JsonSchema>(
    group: &'static str,
    version: &'static str,
    kind: &'static str,
) -> Builtin {
    Builtin {
        group,
        version,
        kind,
        name: || T::schema_name().into_owned(),
        generate: |generator| {
            generator.subschema_for::<T>();
        },
    }
}

const RBAC: &str = "rbac.authorization.k8s.io";
const AUTHN: &str = "authentication.k8s.io";
const AUTHZ: &str = "authorization.k8s.io";

static KINDS: &[Builtin] = &[
    kind::<core::Namespace>("", "v1", "Namespace"),
    kind::<core::Node>("", "v1", "Node"),
    kind::<core::Pod>("", "v1", "Pod"),
    kind::<core::Binding>("", "v1", "Binding"),
    kind::<core::ConfigMap>("", "v1", "ConfigMap"),
    kind::<core::Secret>("", "v1", "Secret"),
    kind::<core::ServiceAccount>("", "v1", "ServiceAccount"),
    kind::<core::Service>("", "v1", "Service"),
    kind::<core::Endpoints>("", "v1", "Endpoints"),
    kind::<core::Event>("", "v1", "Event"),
    kind::<meta::DeleteOptions>("", "v1", "DeleteOptions"),
    kind::<apps::Deployment>("apps", "v1", "Deployment"),
    kind::<apps::DaemonSet>("apps", "v1", "DaemonSet"),
    kind::<apps::ReplicaSet>("apps", "v1", "ReplicaSet"),
    kind::<apps::StatefulSet>("apps", "v1", "StatefulSet"),
    kind::<k8s_openapi::api::autoscaling::v1::Scale>("autoscaling", "v1", "Scale"),
    kind::<authentication::TokenRequest>(AUTHN, "v1", "TokenRequest"),
    kind::<authentication::TokenReview>(AUTHN, "v1", "TokenReview"),
    kind::<authentication::SelfSubjectReview>(AUTHN, "v1", "SelfSubjectReview"),
    kind::<authorization::SubjectAccessReview>(AUTHZ, "v1", "SubjectAccessReview"),
    kind::<authorization::SelfSubjectAccessReview>(AUTHZ, "v1", "SelfSubjectAccessReview"),
    kind::<authorization::SelfSubjectRulesReview>(AUTHZ, "v1", "SelfSubjectRulesReview"),
    kind::<coordination::Lease>("coordination.k8s.io", "v1", "Lease"),
    kind::<discovery::EndpointSlice>("discovery.k8s.io", "v1", "EndpointSlice"),
    kind::<events::Event>("events.k8s.io", "v1", "Event"),
    kind::<policy::Eviction>("policy", "v1", "Eviction"),
    kind::<policy::PodDisruptionBudget>("policy", "v1", "PodDisruptionBudget"),
    kind::<rbac::Role>(RBAC, "v1", "Role"),
    kind::<rbac::ClusterRole>(RBAC, "v1", "ClusterRole"),
    kind::<rbac::RoleBinding>(RBAC, "v1", "RoleBinding"),
    kind::<rbac::ClusterRoleBinding>(RBAC, "v1", "ClusterRoleBinding"),
    kind::<apiextensions::CustomResourceDefinition>(
        "apiextensions.k8s.io",
        "v1",
        "CustomResourceDefinition",
    ),
];

/// The schemas of one group-version, by kind.
type Family = BTreeMap<&'static str, Schema>;

static FAMILIES: Mutex<BTreeMap<(&'static str, &'static str), Arc<Family>>> =
    Mutex::new(BTreeMap::new());

/// The schema of a built-in kind; `None` if edgebus has none. The first call for a
/// group-version generates it (milliseconds), later ones are a look-up.
pub fn schema(group: &str, version: &str, kind: &str) -> Option<Schema> {
    let found = find(group, version, kind)?;
    let key = (found.group, found.version);
    let mut families = FAMILIES.lock().unwrap_or_else(PoisonError::into_inner);
    let family = families
        .entry(key)
        .or_insert_with(|| Arc::new(family(key.0, key.1)));
    family.get(found.kind).cloned()
}

/// (group, version, kind) of every built-in kind.
#[cfg(test)]
pub(super) fn kinds() -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    KINDS.iter().map(|k| (k.group, k.version, k.kind))
}

fn find(group: &str, version: &str, kind: &str) -> Option<&'static Builtin> {
    KINDS
        .iter()
        .find(|k| k.kind == kind && k.group == group && k.version == version)
}

fn family(group: &str, version: &str) -> Family {
    let members: Vec<&Builtin> = KINDS
        .iter()
        .filter(|k| k.group == group && k.version == version)
        .collect();
    let components = generate(members.iter().map(|k| k.generate));
    let mut builder = Builder::new(&components, true);
    // A component that cannot be parsed is a kind without a schema; the test below parses all.
    let roots: Vec<(&'static str, u32)> = members
        .iter()
        .filter_map(|k| {
            let id = builder.component(&(k.name)(), k.kind).ok()?;
            Some((k.kind, id))
        })
        .collect();
    let arena = Arc::new(builder.finish());
    roots
        .into_iter()
        .map(|(kind, root)| {
            let arena = arena.clone();
            (kind, Schema { arena, root })
        })
        .collect()
}

/// The component name (`io.k8s.api.core.v1.Pod`) of a built-in kind.
pub(crate) fn component_name(group: &str, version: &str, kind: &str) -> Option<String> {
    find(group, version, kind).map(|k| (k.name)())
}

/// The components of these kinds and everything they refer to, as OpenAPI v3 has them.
pub(crate) fn components<'a>(
    kinds: impl IntoIterator<Item = (&'a str, &'a str, &'a str)>,
) -> Components {
    generate(
        kinds
            .into_iter()
            .filter_map(|(g, v, k)| find(g, v, k))
            .map(|k| k.generate),
    )
}

/// `ObjectMeta` and what it refers to, for the metadata of custom resources.
pub(crate) fn object_meta() -> Components {
    let generate_meta: fn(&mut SchemaGenerator) = |generator| {
        generator.subschema_for::<meta::ObjectMeta>();
    };
    generate([generate_meta])
}

fn generate(roots: impl IntoIterator<Item = fn(&mut SchemaGenerator)>) -> Components {
    let mut settings = SchemaSettings::default();
    settings.definitions_path = "/components/schemas".into();
    settings.meta_schema = None;
    settings.transforms = Vec::new();
    let mut generator = SchemaGenerator::new(settings);
    for root in roots {
        root(&mut generator);
    }
    let mut components: Components = generator.take_definitions(false).into_iter().collect();
    for (name, schema) in &mut components {
        if ANY_JSON.iter().any(|any| name.ends_with(any))
            && let Some(fields) = schema.as_object_mut()
        {
            fields.remove("type");
        }
        // A tree of field names, which no schema of a custom resource may prune.
        if name.ends_with("meta.v1.FieldsV1")
            && let Some(fields) = schema.as_object_mut()
        {
            fields.insert("x-kubernetes-preserve-unknown-fields".into(), true.into());
        }
        polish(schema);
        merge_rules::add(name, schema);
    }
    for kind in KINDS {
        if let Some(Value::Object(schema)) = components.get_mut(&(kind.name)()) {
            add_gvk(schema, kind.group, kind.version, kind.kind);
        }
    }
    components
}

pub(crate) fn add_gvk(schema: &mut Map<String, Value>, group: &str, version: &str, kind: &str) {
    let gvk = json!({"group": group, "kind": kind, "version": version});
    schema.insert(
        "x-kubernetes-group-version-kind".into(),
        Value::Array(vec![gvk]),
    );
}

/// Brings one generated schema into Kubernetes' form: references only inside `allOf`, and
/// `metadata` not required (k8s-openapi says it is). Walks schemas, never mere JSON:
/// JSONSchemaProps has a property that is itself called `$ref`.
fn polish(value: &mut Value) {
    let Value::Object(schema) = value else {
        return;
    };
    if let Some(target) = schema.remove("$ref") {
        schema.insert("allOf".into(), json!([{"$ref": target}]));
    }
    if let Some(Value::Array(required)) = schema.get_mut("required") {
        required.retain(|name| name != "metadata");
        if required.is_empty() {
            schema.remove("required");
        }
    }
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        properties.values_mut().for_each(polish);
    }
    for key in ["items", "additionalProperties", "not"] {
        if let Some(child) = schema.get_mut(key) {
            polish(child);
        }
    }
    for key in ["anyOf", "oneOf"] {
        if let Some(Value::Array(list)) = schema.get_mut(key) {
            list.iter_mut().for_each(polish);
        }
    }
    debug_assert!(schema.get("allOf").is_none() || reference(schema).is_some());
}
