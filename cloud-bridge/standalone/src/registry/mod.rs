//! Which kinds are served: one row per kind and version. Built-in rows are a table; custom
//! resources become rows when their definition is established and go with it.

mod builtin;
mod custom;

pub use custom::{CLEANUP, establish, rows_of};

use crate::convert::Convert;
use crate::kinds::Hooks;
use crate::schema::openapi::RawSchema;
use crate::schema::{Schema, builtin as schemas};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

/// The `group/plural` under which definitions of custom resources are stored.
pub const CRDS: &str = "apiextensions.k8s.io/customresourcedefinitions";
pub const NAMESPACES: &str = "/namespaces";
pub const NODES: &str = "/nodes";
pub const PODS: &str = "/pods";
pub const EVENTS: &str = "/events";
pub const SERVICE_ACCOUNTS: &str = "/serviceaccounts";
pub const LEASES: &str = "coordination.k8s.io/leases";

/// A subresource other than the object itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subresource {
    pub name: &'static str,
    /// Group, version and kind of what is sent and answered; empty = as the parent's.
    pub gvk: (&'static str, &'static str, &'static str),
    pub verbs: &'static [&'static str],
}

/// Where an object keeps what `/scale` shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScalePaths {
    pub spec_replicas: String,
    pub status_replicas: String,
    pub selector: Option<String>,
}

/// One column of a custom resource's table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    pub kind: String,
    pub format: String,
    pub description: String,
    pub priority: i64,
    pub json_path: String,
}

/// What only custom resources have.
#[derive(Debug)]
pub struct Custom {
    pub definition: String,
    pub schema: Option<Schema>,
    /// The version's `openAPIV3Schema` as written, for the published document.
    pub raw_schema: Arc<RawSchema>,
    pub columns: Vec<Column>,
}

/// One served kind in one version.
#[derive(Debug)]
pub struct Resource {
    pub group: String,
    pub version: String,
    pub plural: String,
    pub singular: String,
    pub kind: String,
    pub list_kind: String,
    pub short_names: Vec<String>,
    pub categories: Vec<String>,
    pub namespaced: bool,
    pub verbs: &'static [&'static str],
    /// Whether `status` is written through its own subresource only.
    pub status: bool,
    pub subresources: Vec<Subresource>,
    /// What a field selector may name beside `metadata.name` and `.namespace`.
    pub fields: Vec<String>,
    pub scale: Option<ScalePaths>,
    pub hooks: Hooks,
    pub convert: Convert,
    /// `group/plural`
    pub storage: Arc<str>,
    pub custom: Option<Custom>,
    pub(crate) schema: OnceLock<Option<Schema>>,
}

impl Resource {
    /// `v1`, `devices.kubeedge.io/v1beta1`
    pub fn api_version(&self) -> String {
        match self.group.as_str() {
            "" => self.version.clone(),
            group => format!("{group}/{}", self.version),
        }
    }

    pub fn is_custom(&self) -> bool {
        self.custom.is_some()
    }

    pub fn schema(&self) -> Option<&Schema> {
        match &self.custom {
            Some(custom) => custom.schema.as_ref(),
            None => self
                .schema
                .get_or_init(|| schemas::schema(&self.group, &self.version, &self.kind))
                .as_ref(),
        }
    }

    pub fn allows(&self, verb: &str) -> bool {
        self.verbs.contains(&verb)
    }
}

type Rows = BTreeMap<(String, String, String), Arc<Resource>>;

/// One state of the registry; requests work on the one they began with.
#[derive(Debug, Default)]
pub struct Snapshot {
    rows: Rows,
}

impl Snapshot {
    pub fn find(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Resource>> {
        self.rows
            .get(&(group.to_owned(), version.to_owned(), plural.to_owned()))
    }

    /// The row of a kind, whatever the plural.
    pub fn by_kind(&self, group: &str, version: &str, kind: &str) -> Option<&Arc<Resource>> {
        self.rows
            .values()
            .find(|r| r.group == group && r.version == version && r.kind == kind)
    }

    /// Any version of the kind stored under `group/plural`.
    pub fn by_storage(&self, storage: &str) -> Option<&Arc<Resource>> {
        self.rows.values().find(|r| &*r.storage == storage)
    }

    pub fn has_version(&self, group: &str, version: &str) -> bool {
        self.in_version(group, version).next().is_some()
    }

    pub fn in_version<'a>(
        &'a self,
        group: &'a str,
        version: &'a str,
    ) -> impl Iterator<Item = &'a Arc<Resource>> {
        self.rows
            .values()
            .filter(move |r| r.group == group && r.version == version)
    }

    pub fn rows(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.rows.values()
    }

    /// Groups with their versions, the preferred one first.
    pub fn groups(&self) -> Vec<(String, Vec<String>)> {
        let mut groups: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for row in self.rows.values() {
            let versions = groups.entry(&row.group).or_default();
            if !versions.contains(&row.version.as_str()) {
                versions.push(&row.version);
            }
        }
        groups
            .into_iter()
            .map(|(group, mut versions)| {
                versions.sort_by_key(|v| std::cmp::Reverse(version_rank(v)));
                (
                    group.to_owned(),
                    versions.into_iter().map(ToOwned::to_owned).collect(),
                )
            })
            .collect()
    }
}

/// Kubernetes' order of versions: `v2` > `v1` > `v1beta2` > `v1beta1` > `v1alpha1` > others.
fn version_rank(version: &str) -> (u8, u32, u32) {
    let Some(rest) = version.strip_prefix('v') else {
        return (0, 0, 0);
    };
    let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let Ok(major) = rest[..digits].parse() else {
        return (0, 0, 0);
    };
    let tail = &rest[digits..];
    let numbered = |rank, minor: &str| minor.parse().map_or((0, 0, 0), |n| (rank, major, n));
    if tail.is_empty() {
        (3, major, 0)
    } else if let Some(minor) = tail.strip_prefix("beta") {
        numbered(2, minor)
    } else if let Some(minor) = tail.strip_prefix("alpha") {
        numbered(1, minor)
    } else {
        (0, 0, 0)
    }
}

/// The rows now served.
pub struct Registry {
    builtin: Rows,
    now: RwLock<Arc<Snapshot>>,
}

fn insert(rows: &mut Rows, resource: Arc<Resource>) {
    let key = (
        resource.group.clone(),
        resource.version.clone(),
        resource.plural.clone(),
    );
    rows.insert(key, resource);
}

impl Registry {
    pub fn new() -> Registry {
        let mut builtin = Rows::new();
        for resource in builtin::rows() {
            insert(&mut builtin, Arc::new(resource));
        }
        let now = RwLock::new(Arc::new(Snapshot {
            rows: builtin.clone(),
        }));
        Registry { builtin, now }
    }

    pub fn now(&self) -> Arc<Snapshot> {
        self.now
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Makes the custom rows those of these definitions.
    pub fn replace_custom(&self, definitions: &[Value]) {
        let mut rows = self.builtin.clone();
        for definition in definitions {
            for resource in rows_of(definition) {
                insert(&mut rows, Arc::new(resource));
            }
        }
        self.set(|_| rows);
    }

    /// Makes the rows of one definition what it says, or takes them away.
    pub fn serve(&self, name: &str, definition: Option<&Value>) {
        let new = definition.map(rows_of).unwrap_or_default();
        self.set(|now| {
            let mut rows = now.clone();
            rows.retain(|_, r| r.custom.as_ref().is_none_or(|c| c.definition != name));
            for resource in new {
                insert(&mut rows, Arc::new(resource));
            }
            rows
        });
    }

    fn set(&self, rows: impl FnOnce(&Rows) -> Rows) {
        let mut now = self.now.write().unwrap_or_else(PoisonError::into_inner);
        let next = Snapshot {
            rows: rows(&now.rows),
        };
        *now = Arc::new(next);
    }
}

impl Default for Registry {
    fn default() -> Registry {
        Registry::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ranked_as_kubernetes_does() {
        let mut versions = ["foo", "v1alpha1", "v1beta1", "v10", "v1beta2", "v1", "v2"];
        versions.sort_by_key(|v| std::cmp::Reverse(version_rank(v)));
        assert_eq!(
            versions,
            ["v10", "v2", "v1", "v1beta2", "v1beta1", "v1alpha1", "foo"]
        );
    }

    #[test]
    fn every_built_in_row_that_is_stored_has_a_schema() {
        for row in Registry::new().now().rows() {
            assert!(row.schema().is_some(), "{} {}", row.group, row.kind);
        }
    }
}
