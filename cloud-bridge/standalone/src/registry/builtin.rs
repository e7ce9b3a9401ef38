//! The table of built-in kinds.

use super::{Resource, ScalePaths, Subresource};
use crate::convert::Convert;
use crate::kinds::{self, Hooks};
use std::sync::OnceLock;

const ALL: &[&str] = &[
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
];
const CREATE: &[&str] = &["create"];
const READ_WRITE: &[&str] = &["get", "patch", "update"];

struct Row {
    gv: (&'static str, &'static str),
    plural: &'static str,
    kind: &'static str,
    short: &'static [&'static str],
    categories: &'static [&'static str],
    namespaced: bool,
    verbs: &'static [&'static str],
    status: bool,
    subresources: &'static [Subresource],
    fields: &'static [&'static str],
    hooks: Hooks,
    convert: Convert,
}

const fn sub(
    name: &'static str,
    gvk: (&'static str, &'static str, &'static str),
    verbs: &'static [&'static str],
) -> Subresource {
    Subresource { name, gvk, verbs }
}

const SCALE: Subresource = sub("scale", ("autoscaling", "v1", "Scale"), READ_WRITE);

const NOTHING: Row = Row {
    gv: ("", "v1"),
    plural: "",
    kind: "",
    short: &[],
    categories: &[],
    namespaced: true,
    verbs: ALL,
    status: false,
    subresources: &[],
    fields: &[],
    hooks: Hooks::NONE,
    convert: Convert::None,
};

const AUTHN: (&str, &str) = ("authentication.k8s.io", "v1");
const AUTHZ: (&str, &str) = ("authorization.k8s.io", "v1");
const RBAC: (&str, &str) = ("rbac.authorization.k8s.io", "v1");

const ROWS: &[Row] = &[
    Row {
        plural: "namespaces",
        kind: "Namespace",
        short: &["ns"],
        namespaced: false,
        // As in Kubernetes, namespaces are never deleted by the collection.
        verbs: &[
            "create", "delete", "get", "list", "patch", "update", "watch",
        ],
        status: true,
        subresources: &[sub("finalize", ("", "", ""), &["update"])],
        fields: &["status.phase"],
        hooks: kinds::NAMESPACE,
        ..NOTHING
    },
    Row {
        plural: "nodes",
        kind: "Node",
        short: &["no"],
        namespaced: false,
        status: true,
        fields: &["spec.unschedulable"],
        hooks: kinds::NODE,
        ..NOTHING
    },
    Row {
        plural: "pods",
        kind: "Pod",
        short: &["po"],
        categories: &["all"],
        status: true,
        subresources: &[
            sub("binding", ("", "v1", "Binding"), CREATE),
            sub("ephemeralcontainers", ("", "", ""), READ_WRITE),
            sub("eviction", ("policy", "v1", "Eviction"), CREATE),
        ],
        fields: &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.nominatedNodeName",
        ],
        hooks: kinds::POD,
        ..NOTHING
    },
    Row {
        plural: "configmaps",
        kind: "ConfigMap",
        short: &["cm"],
        hooks: kinds::CONFIG_MAP,
        ..NOTHING
    },
    Row {
        plural: "secrets",
        kind: "Secret",
        fields: &["type"],
        hooks: kinds::SECRET,
        ..NOTHING
    },
    Row {
        plural: "serviceaccounts",
        kind: "ServiceAccount",
        short: &["sa"],
        subresources: &[sub(
            "token",
            ("authentication.k8s.io", "v1", "TokenRequest"),
            CREATE,
        )],
        ..NOTHING
    },
    Row {
        plural: "services",
        kind: "Service",
        short: &["svc"],
        categories: &["all"],
        status: true,
        fields: &["spec.clusterIP", "spec.type"],
        hooks: kinds::SERVICE,
        ..NOTHING
    },
    Row {
        plural: "endpoints",
        kind: "Endpoints",
        short: &["ep"],
        ..NOTHING
    },
    Row {
        plural: "events",
        kind: "Event",
        short: &["ev"],
        fields: EVENT_FIELDS,
        convert: Convert::CoreEvent,
        hooks: kinds::EVENT,
        ..NOTHING
    },
    Row {
        gv: ("events.k8s.io", "v1"),
        plural: "events",
        kind: "Event",
        short: &["ev"],
        fields: EVENT_FIELDS,
        convert: Convert::NewEvent,
        hooks: kinds::EVENT,
        ..NOTHING
    },
    Row {
        gv: ("apps", "v1"),
        plural: "deployments",
        kind: "Deployment",
        short: &["deploy"],
        categories: &["all"],
        status: true,
        subresources: &[SCALE],
        hooks: kinds::DEPLOYMENT,
        ..NOTHING
    },
    Row {
        gv: ("apps", "v1"),
        plural: "replicasets",
        kind: "ReplicaSet",
        short: &["rs"],
        categories: &["all"],
        status: true,
        subresources: &[SCALE],
        fields: &["status.replicas"],
        hooks: kinds::REPLICA_SET,
        ..NOTHING
    },
    Row {
        gv: ("apps", "v1"),
        plural: "daemonsets",
        kind: "DaemonSet",
        short: &["ds"],
        categories: &["all"],
        status: true,
        hooks: kinds::DAEMON_SET,
        ..NOTHING
    },
    Row {
        gv: ("coordination.k8s.io", "v1"),
        plural: "leases",
        kind: "Lease",
        ..NOTHING
    },
    Row {
        gv: ("discovery.k8s.io", "v1"),
        plural: "endpointslices",
        kind: "EndpointSlice",
        ..NOTHING
    },
    Row {
        gv: ("apiextensions.k8s.io", "v1"),
        plural: "customresourcedefinitions",
        kind: "CustomResourceDefinition",
        short: &["crd", "crds"],
        categories: &["api-extensions"],
        namespaced: false,
        status: true,
        hooks: kinds::CRD,
        ..NOTHING
    },
    Row {
        gv: RBAC,
        plural: "roles",
        kind: "Role",
        ..NOTHING
    },
    Row {
        gv: RBAC,
        plural: "rolebindings",
        kind: "RoleBinding",
        hooks: kinds::ROLE_BINDING,
        ..NOTHING
    },
    Row {
        gv: RBAC,
        plural: "clusterroles",
        kind: "ClusterRole",
        namespaced: false,
        ..NOTHING
    },
    Row {
        gv: RBAC,
        plural: "clusterrolebindings",
        kind: "ClusterRoleBinding",
        namespaced: false,
        hooks: kinds::ROLE_BINDING,
        ..NOTHING
    },
    review(AUTHN, "tokenreviews", "TokenReview"),
    review(AUTHN, "selfsubjectreviews", "SelfSubjectReview"),
    review(AUTHZ, "subjectaccessreviews", "SubjectAccessReview"),
    review(AUTHZ, "selfsubjectaccessreviews", "SelfSubjectAccessReview"),
    review(AUTHZ, "selfsubjectrulesreviews", "SelfSubjectRulesReview"),
];

const EVENT_FIELDS: &[&str] = &[
    "involvedObject.kind",
    "involvedObject.namespace",
    "involvedObject.name",
    "involvedObject.uid",
    "involvedObject.apiVersion",
    "involvedObject.resourceVersion",
    "involvedObject.fieldPath",
    "reason",
    "reportingComponent",
    "source",
    "type",
    "regarding.kind",
    "regarding.namespace",
    "regarding.name",
    "regarding.uid",
    "reportingController",
];

/// A question that is answered and never stored.
const fn review(gv: (&'static str, &'static str), plural: &'static str, kind: &'static str) -> Row {
    Row {
        gv,
        plural,
        kind,
        namespaced: false,
        verbs: CREATE,
        ..NOTHING
    }
}

pub(super) fn rows() -> impl Iterator<Item = Resource> {
    let owned = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect();
    ROWS.iter().map(move |row| {
        let group = match row.convert {
            // Both groups' events are one set of objects.
            Convert::NewEvent => "",
            _ => row.gv.0,
        };
        Resource {
            group: row.gv.0.into(),
            version: row.gv.1.into(),
            plural: row.plural.into(),
            singular: row.kind.to_lowercase(),
            kind: row.kind.into(),
            list_kind: format!("{}List", row.kind),
            short_names: owned(row.short),
            categories: owned(row.categories),
            namespaced: row.namespaced,
            verbs: row.verbs,
            status: row.status,
            subresources: row.subresources.to_vec(),
            fields: owned(row.fields),
            scale: row.subresources.contains(&SCALE).then(|| ScalePaths {
                spec_replicas: ".spec.replicas".into(),
                status_replicas: ".status.replicas".into(),
                selector: Some(".spec.selector".into()),
            }),
            hooks: row.hooks,
            convert: row.convert,
            storage: format!("{group}/{}", row.plural).into(),
            custom: None,
            schema: OnceLock::new(),
        }
    })
}
