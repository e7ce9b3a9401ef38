//! The kinds that are mirrored to nodes: one row each, nothing else in the mirror knows a kind by name.

use kube::core::{ApiResource, GroupVersionKind};

/// Which nodes an object goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The one in `spec.nodeName`.
    NodeName,
    /// Those that have a device of this model.
    Model,
    /// Those that its label and annotation name; see [`NODE_LABEL`].
    Marked,
}

/// Which namespaces are watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    Objects,
    Secrets,
}

/// A kind of object.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The word in topics and digests.
    pub kind: &'static str,
    pub group: &'static str,
    pub version: &'static str,
    pub plural: &'static str,
    pub api_kind: &'static str,
    pub place: Place,
    pub scope: Scope,
    /// Travels as ciphertext only.
    pub sealed: bool,
}

/// A ConfigMap, Secret or ServiceAccount with this label goes to the node that is its value, and to those in
/// the annotation [`NODES_ANNOTATION`]. Only labelled objects are watched at all.
pub const NODE_LABEL: &str = "edgebus.io/node";
/// Further nodes, separated by commas; `*` is every node.
pub const NODES_ANNOTATION: &str = "edgebus.io/nodes";

pub const DEVICE: &str = "device";
pub const MODEL: &str = "devicemodel";

pub const ROWS: &[Row] = &[
    Row {
        kind: MODEL,
        group: edgebus_api::GROUP,
        version: edgebus_api::VERSION,
        plural: "devicemodels",
        api_kind: "DeviceModel",
        place: Place::Model,
        scope: Scope::Objects,
        sealed: false,
    },
    Row {
        kind: DEVICE,
        group: edgebus_api::GROUP,
        version: edgebus_api::VERSION,
        plural: "devices",
        api_kind: "Device",
        place: Place::NodeName,
        scope: Scope::Objects,
        sealed: false,
    },
    Row {
        kind: "configmap",
        group: "",
        version: "v1",
        plural: "configmaps",
        api_kind: "ConfigMap",
        place: Place::Marked,
        scope: Scope::Objects,
        sealed: false,
    },
    Row {
        kind: "secret",
        group: "",
        version: "v1",
        plural: "secrets",
        api_kind: "Secret",
        place: Place::Marked,
        scope: Scope::Secrets,
        sealed: true,
    },
    Row {
        kind: "serviceaccount",
        group: "",
        version: "v1",
        plural: "serviceaccounts",
        api_kind: "ServiceAccount",
        place: Place::Marked,
        scope: Scope::Objects,
        sealed: false,
    },
];

impl Row {
    pub fn resource(&self) -> ApiResource {
        resource(self.group, self.version, self.api_kind, self.plural)
    }

    /// Label selector that leaves everything else in the cluster.
    pub fn selector(&self) -> Option<&'static str> {
        (self.place == Place::Marked).then_some(NODE_LABEL)
    }
}

fn resource(group: &str, version: &str, kind: &str, plural: &str) -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural)
}

pub fn crd_resource() -> ApiResource {
    resource(
        "apiextensions.k8s.io",
        "v1",
        "CustomResourceDefinition",
        "customresourcedefinitions",
    )
}

pub fn node_resource() -> ApiResource {
    resource("", "v1", "Node", "nodes")
}

pub fn lease_resource() -> ApiResource {
    resource("coordination.k8s.io", "v1", "Lease", "leases")
}

pub fn event_resource() -> ApiResource {
    resource("", "v1", "Event", "events")
}

pub fn device_resource() -> ApiResource {
    resource(
        edgebus_api::GROUP,
        edgebus_api::VERSION,
        "Device",
        "devices",
    )
}

pub fn device_status_resource() -> ApiResource {
    resource(
        edgebus_api::GROUP,
        edgebus_api::VERSION,
        "DeviceStatus",
        "devicestatuses",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_kind_has_one_row_and_a_word_that_fits_a_topic() {
        let mut seen = BTreeSet::new();
        for row in ROWS {
            assert!(seen.insert(row.kind), "{}", row.kind);
            edgebus_linkproto::Kind::new(row.kind).unwrap();
            row.kind.parse::<edgebus_bus::Name>().unwrap();
        }
    }
}
