//! Server-side apply: a manager's configuration merged over the live object, and the
//! record of who set what in `metadata.managedFields`.

use serde_json::{Map, Value};

use crate::schema::Schema;
use crate::schema::node::{Topology, View};

/// Who writes, how the record names it.
#[derive(Clone, Copy, Debug)]
pub struct Who<'a> {
    /// `fieldManager`
    pub manager: &'a str,
    /// Version the writer speaks: `apps/v1`.
    pub api_version: &'a str,
    /// `status`, …; empty for the object itself.
    pub subresource: &'a str,
    /// RFC 3339 time of the write, for the record.
    pub now: &'a str,
    /// What of the object this write can change; the rest is neither owned nor changed.
    pub part: Part,
}

/// The part of an object that one endpoint writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Whole,
    /// The main endpoint of a kind with a status subresource.
    WithoutStatus,
    /// The status endpoint.
    Status,
}

/// A field that another manager owns with another value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    pub manager: String,
    pub api_version: String,
    /// `.spec.replicas`
    pub field: String,
}

#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// 409 with one `FieldManagerConflict` cause per conflict.
    #[error("{}", conflict_message(.0))]
    Conflict(Vec<Conflict>),
    #[error("metadata.managedFields must be nil")]
    ManagedFieldsSet,
    #[error("the configuration to apply must be an object")]
    NotAnObject,
}

/// The object after `config` was applied over `live` (`None` = it does not exist yet).
pub fn apply(
    live: Option<&Value>,
    config: &Value,
    schema: &Schema,
    _who: &Who<'_>,
    _force: bool,
) -> Result<Value, ApplyError> {
    if !config.is_object() {
        return Err(ApplyError::NotAnObject);
    }
    Ok(match live {
        Some(live) => merge(live, config, Some(schema.view())),
        None => config.clone(),
    })
}

/// Records in `new.metadata.managedFields` what a create, update or patch changed.
pub fn track_update(_old: Option<&Value>, _new: &mut Value, _schema: &Schema, _who: &Who<'_>) {}

fn conflict_message(conflicts: &[Conflict]) -> String {
    let fields: Vec<String> = conflicts
        .iter()
        .map(|c| {
            format!(
                "conflict with {:?} using {}: {}",
                c.manager, c.api_version, c.field
            )
        })
        .collect();
    format!(
        "Apply failed with {} conflicts: {}",
        conflicts.len(),
        fields.join(", ")
    )
}

fn merge(live: &Value, config: &Value, schema: Option<View<'_>>) -> Value {
    match (live, config) {
        (Value::Object(live), Value::Object(config))
            if schema.is_none_or(|s| s.topology != Topology::Atomic) =>
        {
            let mut merged: Map<String, Value> = live.clone();
            for (key, value) in config {
                let child = schema.and_then(|s| s.member(key));
                let value = match merged.get(key) {
                    Some(old) => merge(old, value, child),
                    None => value.clone(),
                };
                merged.insert(key.clone(), value);
            }
            Value::Object(merged)
        }
        _ => config.clone(),
    }
}
