//! Field numbers of the messages that clients send, from Kubernetes' published
//! `generated.proto` files, with their JSON names. One line reads `tag name shape type`:
//!
//! | shape | meaning | in JSON |
//! |---|---|---|
//! | `=` | a Go value | its zero is left out |
//! | `?` | a Go pointer, or a number or flag that is always shown | its zero is kept |
//! | `*` | repeated | a list |
//! | `%` | a map with string keys | an object |
//! | `+` | a Go struct embedded in this one | its fields are this message's fields |
//!
//! A type in lower case is a scalar of [`Ty`], any other the name of a message.

mod apps;
mod containers;
mod core;
mod groups;
mod meta;
mod pods;
mod volumes;

/// The fields of one message.
#[derive(Debug)]
pub(super) struct Message(pub &'static [Field]);

#[derive(Clone, Copy, Debug)]
pub(super) struct Field {
    pub tag: u32,
    pub name: &'static str,
    pub shape: Shape,
    pub ty: Ty,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Shape {
    Plain,
    Pointer,
    List,
    Map,
    Inline,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Ty {
    Text,
    /// base64 in JSON
    Bytes,
    Bool,
    Int,
    Time,
    MicroTime,
    Quantity,
    IntOrText,
    /// JSON text inside a message
    Raw,
    /// A message with one repeated string: a list of strings in JSON
    Texts,
    Message(&'static Message),
}

macro_rules! messages {
    ($($message:ident { $($tag:literal $name:ident $shape:tt $ty:ident),* })*) => {
        $(
            #[allow(non_upper_case_globals, reason = "named as in the published files")]
            pub(in crate::proto) static $message: Message = Message(&[
                $(Field {
                    tag: $tag,
                    name: stringify!($name),
                    shape: $crate::proto::tables::shape!($shape),
                    ty: $crate::proto::tables::ty!($ty),
                }),*
            ]);
        )*
    };
}

macro_rules! shape {
    (=) => {
        Shape::Plain
    };
    (?) => {
        Shape::Pointer
    };
    (*) => {
        Shape::List
    };
    (%) => {
        Shape::Map
    };
    (+) => {
        Shape::Inline
    };
}

macro_rules! ty {
    (text) => {
        Ty::Text
    };
    (bytes) => {
        Ty::Bytes
    };
    (bool) => {
        Ty::Bool
    };
    (int) => {
        Ty::Int
    };
    (time) => {
        Ty::Time
    };
    (micro) => {
        Ty::MicroTime
    };
    (quantity) => {
        Ty::Quantity
    };
    (int_or_text) => {
        Ty::IntOrText
    };
    (raw) => {
        Ty::Raw
    };
    (texts) => {
        Ty::Texts
    };
    ($message:ident) => {
        Ty::Message(&$message)
    };
}

use {messages, shape, ty};

/// (apiVersion, kind) → message. Kinds that nobody can post here are not listed.
static KINDS: &[(&str, &str, &Message)] = &[
    ("v1", "Binding", &core::Binding),
    ("v1", "ConfigMap", &core::ConfigMap),
    ("v1", "Endpoints", &core::Endpoints),
    ("v1", "Event", &core::Event),
    ("v1", "Namespace", &core::Namespace),
    ("v1", "Node", &core::Node),
    ("v1", "Pod", &pods::Pod),
    ("v1", "Secret", &core::Secret),
    ("v1", "Service", &core::Service),
    ("v1", "ServiceAccount", &core::ServiceAccount),
    ("apps/v1", "DaemonSet", &apps::DaemonSet),
    ("apps/v1", "Deployment", &apps::Deployment),
    ("apps/v1", "ReplicaSet", &apps::ReplicaSet),
    ("apps/v1", "StatefulSet", &apps::StatefulSet),
    (
        "authentication.k8s.io/v1",
        "SelfSubjectReview",
        &groups::SelfSubjectReview,
    ),
    (
        "authentication.k8s.io/v1",
        "TokenRequest",
        &groups::TokenRequest,
    ),
    (
        "authentication.k8s.io/v1",
        "TokenReview",
        &groups::TokenReview,
    ),
    (
        "authorization.k8s.io/v1",
        "SelfSubjectAccessReview",
        &groups::SelfSubjectAccessReview,
    ),
    (
        "authorization.k8s.io/v1",
        "SelfSubjectRulesReview",
        &groups::SelfSubjectRulesReview,
    ),
    (
        "authorization.k8s.io/v1",
        "SubjectAccessReview",
        &groups::SubjectAccessReview,
    ),
    ("autoscaling/v1", "Scale", &groups::Scale),
    ("coordination.k8s.io/v1", "Lease", &groups::Lease),
    (
        "discovery.k8s.io/v1",
        "EndpointSlice",
        &groups::EndpointSlice,
    ),
    ("events.k8s.io/v1", "Event", &groups::Event),
    ("policy/v1", "Eviction", &groups::Eviction),
    (
        "policy/v1",
        "PodDisruptionBudget",
        &groups::PodDisruptionBudget,
    ),
    (
        "rbac.authorization.k8s.io/v1",
        "ClusterRole",
        &groups::ClusterRole,
    ),
    (
        "rbac.authorization.k8s.io/v1",
        "ClusterRoleBinding",
        &groups::ClusterRoleBinding,
    ),
    ("rbac.authorization.k8s.io/v1", "Role", &groups::Role),
    (
        "rbac.authorization.k8s.io/v1",
        "RoleBinding",
        &groups::RoleBinding,
    ),
];

/// The message of a kind.
pub(super) fn find(api_version: &str, kind: &str) -> Option<&'static Message> {
    // Every group has a DeleteOptions of its own name and the one form.
    if kind == "DeleteOptions" {
        return Some(&meta::DeleteOptions);
    }
    KINDS
        .iter()
        .find(|(v, k, _)| *v == api_version && *k == kind)
        .map(|(_, _, message)| *message)
}

#[cfg(test)]
pub(super) fn kinds() -> impl Iterator<Item = (&'static str, &'static str)> {
    KINDS.iter().map(|(version, kind, _)| (*version, *kind))
}
