//! How lists and maps of built-in kinds merge: the patch strategies, merge keys and list
//! types that `k8s-openapi`'s schemas leave out. A list that is not named here is atomic,
//! a map is merged key by key, as Kubernetes has it.

use serde_json::{Value, json};

/// One property's rule.
#[derive(Clone, Copy)]
enum Rule {
    /// Objects merged by one key, the same for patches and for apply.
    Key(&'static str),
    /// Merged by the first key in a patch and identified by all of them in an apply.
    Keys(&'static str, &'static [&'static str]),
    /// As `Key`, and a patch names the members to keep.
    KeyRetain(&'static str),
    /// Merged by a key in a patch, atomic for apply.
    PatchKey(&'static str),
    /// Identified by keys in an apply, replaced by a patch.
    ApplyKeys(&'static [&'static str]),
    /// Scalars merged as a set.
    Set,
    /// A struct whose patch names the members to keep.
    Retain,
    /// A map that is owned as one.
    AtomicMap,
}

use Rule::{ApplyKeys, AtomicMap, Key, KeyRetain, Keys, PatchKey, Retain, Set};

const PORT: &[&str] = &["containerPort", "protocol"];

/// (component without its package for `io.k8s.api`, property, rule)
static RULES: &[(&str, &str, Rule)] = &[
    ("meta.v1.ObjectMeta", "finalizers", Set),
    ("meta.v1.ObjectMeta", "ownerReferences", Key("uid")),
    ("core.v1.PodSpec", "containers", Key("name")),
    ("core.v1.PodSpec", "ephemeralContainers", Key("name")),
    ("core.v1.PodSpec", "hostAliases", Key("ip")),
    ("core.v1.PodSpec", "imagePullSecrets", Key("name")),
    ("core.v1.PodSpec", "initContainers", Key("name")),
    ("core.v1.PodSpec", "nodeSelector", AtomicMap),
    ("core.v1.PodSpec", "resourceClaims", KeyRetain("name")),
    ("core.v1.PodSpec", "schedulingGates", Key("name")),
    (
        "core.v1.PodSpec",
        "topologySpreadConstraints",
        Keys("topologyKey", &["topologyKey", "whenUnsatisfiable"]),
    ),
    ("core.v1.PodSpec", "volumes", KeyRetain("name")),
    ("core.v1.Container", "env", Key("name")),
    ("core.v1.Container", "ports", Keys("containerPort", PORT)),
    ("core.v1.Container", "volumeDevices", Key("devicePath")),
    ("core.v1.Container", "volumeMounts", Key("mountPath")),
    ("core.v1.EphemeralContainer", "env", Key("name")),
    (
        "core.v1.EphemeralContainer",
        "ports",
        Keys("containerPort", PORT),
    ),
    (
        "core.v1.EphemeralContainer",
        "volumeDevices",
        Key("devicePath"),
    ),
    (
        "core.v1.EphemeralContainer",
        "volumeMounts",
        Key("mountPath"),
    ),
    (
        "core.v1.ResourceRequirements",
        "claims",
        ApplyKeys(&["name"]),
    ),
    ("core.v1.PodStatus", "conditions", Key("type")),
    ("core.v1.PodStatus", "hostIPs", PatchKey("ip")),
    ("core.v1.PodStatus", "podIPs", Key("ip")),
    (
        "core.v1.PodStatus",
        "resourceClaimStatuses",
        KeyRetain("name"),
    ),
    (
        "core.v1.ServiceSpec",
        "ports",
        Keys("port", &["port", "protocol"]),
    ),
    ("core.v1.ServiceSpec", "selector", AtomicMap),
    ("core.v1.ServiceStatus", "conditions", Key("type")),
    ("core.v1.ServiceAccount", "secrets", Key("name")),
    ("core.v1.NodeSpec", "podCIDRs", Set),
    ("core.v1.NodeStatus", "addresses", Key("type")),
    ("core.v1.NodeStatus", "conditions", Key("type")),
    ("core.v1.NamespaceStatus", "conditions", Key("type")),
    (
        "core.v1.PersistentVolumeClaimStatus",
        "conditions",
        Key("type"),
    ),
    ("apps.v1.DeploymentSpec", "strategy", Retain),
    ("apps.v1.DeploymentStatus", "conditions", Key("type")),
    ("apps.v1.DaemonSetStatus", "conditions", Key("type")),
    ("apps.v1.ReplicaSetStatus", "conditions", Key("type")),
    ("apps.v1.StatefulSetStatus", "conditions", Key("type")),
    (
        "policy.v1.PodDisruptionBudgetStatus",
        "conditions",
        Key("type"),
    ),
    (
        "apiextensions.v1.CustomResourceDefinitionStatus",
        "conditions",
        ApplyKeys(&["type"]),
    ),
    (
        "apiextensions.v1.JSONSchemaProps",
        "x-kubernetes-validations",
        Key("rule"),
    ),
];

/// Structs that apply owns as one.
static ATOMIC_STRUCTS: &[&str] = &[
    "meta.v1.LabelSelector",
    "core.v1.ConfigMapKeySelector",
    "core.v1.EndpointAddress",
    "core.v1.EndpointPort",
    "core.v1.LocalObjectReference",
    "core.v1.NodeSelector",
    "core.v1.NodeSelectorTerm",
    "core.v1.ObjectFieldSelector",
    "core.v1.ObjectReference",
    "core.v1.ResourceFieldSelector",
    "core.v1.SecretKeySelector",
    "core.v1.SecretReference",
    "core.v1.TypedLocalObjectReference",
    "discovery.v1.EndpointPort",
    "rbac.v1.RoleRef",
    "rbac.v1.Subject",
];

/// Defaults of members that identify list elements: they may be left out in an apply.
static KEY_DEFAULTS: &[(&str, &str, &str)] = &[
    ("core.v1.ContainerPort", "protocol", "TCP"),
    ("core.v1.ServicePort", "protocol", "TCP"),
];

/// Adds the rules of one component to its schema.
pub(crate) fn add(component: &str, schema: &mut Value) {
    let parts: Vec<&str> = component.rsplitn(4, '.').take(3).collect();
    let [name, version, group] = parts.as_slice() else {
        return;
    };
    let short = format!("{group}.{version}.{name}");
    let Value::Object(schema) = schema else {
        return;
    };
    if ATOMIC_STRUCTS.contains(&short.as_str()) {
        schema.insert("x-kubernetes-map-type".into(), "atomic".into());
    }
    let Some(Value::Object(properties)) = schema.get_mut("properties") else {
        return;
    };
    for (name, property) in properties {
        let Value::Object(property) = property else {
            continue;
        };
        for (component, field, default) in KEY_DEFAULTS {
            if *component == short && field == name {
                property.insert("default".into(), (*default).into());
            }
        }
        let rule = RULES
            .iter()
            .find(|(component, field, _)| *component == short && field == name)
            .map(|(_, _, rule)| *rule);
        let mut put = |key: &str, value: Value| property.insert(key.to_owned(), value);
        let mut strategy = |words: &str| put("x-kubernetes-patch-strategy", words.into());
        match rule {
            None => {
                if property.get("type").and_then(Value::as_str) == Some("array") {
                    property.insert("x-kubernetes-list-type".into(), "atomic".into());
                }
                continue;
            }
            Some(Key(_) | Keys(..) | PatchKey(_) | Set) => strategy("merge"),
            Some(KeyRetain(_)) => strategy("merge,retainKeys"),
            Some(Retain) => strategy("retainKeys"),
            Some(ApplyKeys(_)) => None,
            Some(AtomicMap) => put("x-kubernetes-map-type", "atomic".into()),
        };
        match rule {
            Some(Key(key) | KeyRetain(key) | PatchKey(key) | Keys(key, _)) => {
                put("x-kubernetes-patch-merge-key", key.into())
            }
            _ => None,
        };
        let keys = match rule {
            Some(Key(key) | KeyRetain(key)) => json!([key]),
            Some(Keys(_, keys) | ApplyKeys(keys)) => json!(keys),
            Some(Set) => {
                put("x-kubernetes-list-type", "set".into());
                continue;
            }
            Some(PatchKey(_)) => {
                put("x-kubernetes-list-type", "atomic".into());
                continue;
            }
            _ => continue,
        };
        put("x-kubernetes-list-type", "map".into());
        put("x-kubernetes-list-map-keys", keys);
    }
}
