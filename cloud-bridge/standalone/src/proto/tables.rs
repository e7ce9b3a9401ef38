//! Field numbers of the messages that clients send, from Kubernetes' published
//! `generated.proto` files, with their JSON names.

/// The fields of one message.
#[derive(Debug)]
pub(super) struct Message(pub &'static [Field]);

#[derive(Clone, Copy, Debug)]
pub(super) struct Field {
    pub tag: u32,
    /// The JSON name; empty for [`Shape::Inline`].
    pub name: &'static str,
    pub ty: Ty,
    pub shape: Shape,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Shape {
    /// A Go value: its zero is left out.
    Plain,
    /// A Go pointer: its zero is kept.
    Pointer,
    List,
    Map,
    /// An embedded struct.
    Inline,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Ty {
    Text,
    /// base64 in JSON
    Bytes,
    Bool,
    Int,
    Double,
    Time,
    MicroTime,
    Duration,
    Quantity,
    IntOrString,
    /// JSON text inside a message
    Raw,
    /// A message with one repeated string: a list of strings in JSON
    Texts,
    Message(&'static Message),
}

use Ty::{Bytes, Text};

const fn plain(tag: u32, name: &'static str, ty: Ty) -> Field {
    let shape = Shape::Plain;
    Field {
        tag,
        name,
        ty,
        shape,
    }
}

const fn text(tag: u32, name: &'static str) -> Field {
    plain(tag, name, Text)
}

const fn pointer(tag: u32, name: &'static str, ty: Ty) -> Field {
    let shape = Shape::Pointer;
    Field {
        tag,
        name,
        ty,
        shape,
    }
}

const fn list(tag: u32, name: &'static str, ty: Ty) -> Field {
    let shape = Shape::List;
    Field {
        tag,
        name,
        ty,
        shape,
    }
}

const fn map(tag: u32, name: &'static str, ty: Ty) -> Field {
    let shape = Shape::Map;
    Field {
        tag,
        name,
        ty,
        shape,
    }
}

static OBJECT_META: Message = Message(&[
    text(1, "name"),
    text(2, "generateName"),
    text(3, "namespace"),
    text(5, "uid"),
    text(6, "resourceVersion"),
    plain(7, "generation", Ty::Int),
    plain(8, "creationTimestamp", Ty::Time),
    pointer(9, "deletionTimestamp", Ty::Time),
    pointer(10, "deletionGracePeriodSeconds", Ty::Int),
    map(11, "labels", Text),
    map(12, "annotations", Text),
    list(14, "finalizers", Text),
]);

static CONFIG_MAP: Message = Message(&[
    plain(1, "metadata", Ty::Message(&OBJECT_META)),
    map(2, "data", Text),
    map(3, "binaryData", Bytes),
    pointer(4, "immutable", Ty::Bool),
]);

/// The message of a kind.
pub(super) fn find(api_version: &str, kind: &str) -> Option<&'static Message> {
    match (api_version, kind) {
        ("v1", "ConfigMap") => Some(&CONFIG_MAP),
        _ => None,
    }
}
