//! Server-side apply: a manager's configuration merged over the live object, and the
//! record of who set what in `metadata.managedFields`. A manager that changes what another
//! owns is told of the conflict unless it forces; fields that a manager stops applying and
//! nobody else owns are removed.

use serde_json::{Map, Value};

use super::fields::{Fields, Step};
use super::managed::{self, BEFORE_FIRST_APPLY, Entry, Operation};
use super::structure::{compare, fields_of, merge, remove, without_nulls};
use crate::schema::Schema;

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
    pub operation: Operation,
    pub subresource: String,
    pub api_version: String,
    /// `.spec.replicas`
    pub field: String,
}

impl Conflict {
    /// The other manager, as messages name it: `"kubectl-edit" using apps/v1`.
    pub fn owner(&self) -> String {
        let mut text = format!("{:?}", self.manager);
        if !self.subresource.is_empty() {
            text.push_str(&format!(" with subresource {:?}", self.subresource));
        }
        if self.operation == Operation::Update {
            text.push_str(&format!(" using {}", self.api_version));
        }
        text
    }
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ApplyError {
    /// 409 with one `FieldManagerConflict` cause each.
    #[error("{}", conflict_message(.0))]
    Conflict(Vec<Conflict>),
    /// 400
    #[error("metadata.managedFields must be nil")]
    ManagedFieldsSet,
    /// 400
    #[error("the configuration to apply must be an object")]
    NotAnObject,
}

/// What kubectl's client-side apply calls itself, and what its server-side apply does.
const CLIENT_SIDE: &str = "kubectl-client-side-apply";
const KUBECTL: &str = "kubectl";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The object after `config` was applied over `live` (`None` = it does not exist yet),
/// with its `managedFields`. If the configuration changes nothing, the result equals
/// `live`.
pub fn apply(
    live: Option<&Value>,
    config: &Value,
    schema: &Schema,
    who: &Who<'_>,
    force: bool,
) -> Result<Value, ApplyError> {
    if !config.is_object() {
        return Err(ApplyError::NotAnObject);
    }
    if matches!(config.pointer("/metadata/managedFields"), Some(v) if !v.is_null()) {
        return Err(ApplyError::ManagedFieldsSet);
    }
    let whole_config = config;
    let config = part_of(&without_nulls(config), who.part);
    let empty = empty_object(&config);
    let mut entries = live.map(entries_of).unwrap_or_default();
    if let Some(live) = live
        && entries.is_empty()
    {
        entries.push(before_first_apply(live, schema, who));
    }
    let before = entries.clone();
    let old = live.unwrap_or(&empty);
    let view = Some(schema.view());

    let mut merged = merge(view, old, &config);
    let mut mine = Entry::of(who, Operation::Apply);
    mine.fields = fields_of(view, &config);
    managed::strip(&mut mine.fields, who.part);
    let last = take(&mut entries, &mine);
    if let Some(last) = &last {
        let mut kept = mine.fields.clone();
        // Nobody owns an object's identity, and it never goes.
        kept.union(&path(&["metadata", "name"]));
        for entry in &entries {
            kept.union(&entry.fields);
        }
        remove(view, &mut merged, &last.fields, &kept);
    }

    let difference = compare(view, old, &merged);
    let mut changed = difference.changed;
    managed::strip(&mut changed, Part::Whole);
    let conflicts = conflicts(&entries, &changed, live, schema, who);
    if !force && !conflicts.is_empty() {
        return Err(ApplyError::Conflict(conflicts));
    }
    for entry in &mut entries {
        entry.fields.subtract(&changed);
        entry.fields.subtract(&difference.removed);
    }
    if who.manager == KUBECTL && who.part != Part::Status {
        sync_last_applied(&mut merged, whole_config);
    }
    // An apply that changes neither the object nor what it owns leaves no trace.
    let unchanged = same_but_record(old, &merged);
    if let Some(last) = last
        && last.fields == mine.fields
        && unchanged
    {
        mine.time = last.time;
        mine.api_version = last.api_version;
    }
    entries.push(mine);
    if live.is_some() && unchanged && same_record(&before, &entries) {
        return Ok(old.clone());
    }
    managed::write(&mut merged, entries);
    Ok(merged)
}

/// Records in `new.metadata.managedFields` what a create, update or patch changed.
/// `old` is `None` for a create. A write that changes nothing leaves the record as it was.
/// Not for the result of an [`apply`], which has its record.
pub fn track_update(old: Option<&Value>, new: &mut Value, schema: &Schema, who: &Who<'_>) {
    if managed::is_reset(new) {
        managed::write(new, Vec::new());
        return;
    }
    let empty = empty_object(new);
    // A writer may send a record of its own (kubectl moves ownership that way).
    let mut entries = managed::read(new)
        .or_else(|| old.and_then(managed::read))
        .unwrap_or_default();
    let difference = compare(Some(schema.view()), old.unwrap_or(&empty), new);
    let mut changed = difference.changed;
    managed::strip(&mut changed, who.part);
    if who.manager == KUBECTL {
        // See `sync_last_applied`: written by the server, owned by whoever made it.
        changed.subtract_with_parents(&path(&["metadata", "annotations", LAST_APPLIED]));
    }
    let mut mine = Entry::of(who, Operation::Update);
    let last = take(&mut entries, &mine);
    for entry in &mut entries {
        entry.fields.subtract(&changed);
        entry.fields.subtract(&difference.removed);
    }
    if let Some(last) = &last {
        mine.fields = last.fields.clone();
        mine.fields.subtract(&difference.removed);
    }
    mine.fields.union(&changed);
    if let Some(last) = last
        && last.fields == mine.fields
    {
        mine.time = last.time;
    }
    entries.push(mine);
    managed::write(new, entries);
}

fn entries_of(object: &Value) -> Vec<Entry> {
    managed::read(object).unwrap_or_default()
}

fn take(entries: &mut Vec<Entry>, like: &Entry) -> Option<Entry> {
    let at = entries.iter().position(|e| e.same(like))?;
    Some(entries.remove(at))
}

fn same_record(a: &[Entry], b: &[Entry]) -> bool {
    let b: Vec<&Entry> = b.iter().filter(|e| !e.fields.is_empty()).collect();
    a.len() == b.len() && a.iter().all(|entry| b.contains(&entry))
}

/// What an object has before anything is written into it: its identity.
fn empty_object(object: &Value) -> Value {
    let mut empty = Map::new();
    for name in ["apiVersion", "kind"] {
        if let Some(value) = object.get(name) {
            empty.insert(name.to_owned(), value.clone());
        }
    }
    Value::Object(empty)
}

/// The configuration without what this endpoint cannot change.
fn part_of(config: &Value, part: Part) -> Value {
    let Value::Object(config) = config else {
        return config.clone();
    };
    let mut config = config.clone();
    match part {
        Part::Whole => {}
        Part::WithoutStatus => {
            config.remove("status");
        }
        Part::Status => {
            config.retain(|name, _| {
                matches!(name.as_str(), "apiVersion" | "kind" | "metadata" | "status")
            });
            if let Some(Value::Object(metadata)) = config.get_mut("metadata") {
                metadata.retain(|name, _| matches!(name.as_str(), "name" | "namespace"));
            }
        }
    }
    Value::Object(config)
}

fn before_first_apply(live: &Value, schema: &Schema, who: &Who<'_>) -> Entry {
    let mut entry = Entry::of(
        &Who {
            manager: BEFORE_FIRST_APPLY,
            subresource: "",
            ..*who
        },
        Operation::Update,
    );
    entry.fields = fields_of(Some(schema.view()), live);
    managed::strip(&mut entry.fields, Part::Whole);
    entry
}

/// Whether two versions of an object differ in nothing but the record.
fn same_but_record(a: &Value, b: &Value) -> bool {
    let same = |a: &Map<String, Value>, b: &Map<String, Value>, except: &str| {
        let rest = |map: &Map<String, Value>| map.keys().filter(|k| *k != except).count();
        rest(a) == rest(b)
            && a.iter()
                .all(|(key, value)| key == except || b.get(key) == Some(value))
    };
    let (Value::Object(a), Value::Object(b)) = (a, b) else {
        return a == b;
    };
    same(a, b, "metadata")
        && match (a.get("metadata"), b.get("metadata")) {
            (Some(Value::Object(a)), Some(Value::Object(b))) => same(a, b, "managedFields"),
            (a, b) => a == b,
        }
}

fn conflicts(
    entries: &[Entry],
    changed: &Fields,
    live: Option<&Value>,
    schema: &Schema,
    who: &Who<'_>,
) -> Vec<Conflict> {
    let mut found = Vec::new();
    for entry in entries {
        let mut clash = entry.fields.intersection(changed);
        // `kubectl apply --server-side` takes over what `kubectl apply` applied before.
        if who.manager == KUBECTL
            && entry.manager == CLIENT_SIDE
            && entry.operation == Operation::Update
            && let Some(last_applied) = live.and_then(|l| last_applied(l, schema))
        {
            clash.subtract(&last_applied);
        }
        found.extend(clash.paths().into_iter().map(|field| Conflict {
            manager: entry.manager.clone(),
            operation: entry.operation,
            subresource: entry.subresource.clone(),
            api_version: entry.api_version.clone(),
            field,
        }));
    }
    found
}

/// Keeps the annotation of `kubectl apply` true where it exists, so that a client-side apply
/// after this one still knows what to remove.
fn sync_last_applied(object: &mut Value, config: &Value) {
    let annotation = object
        .pointer_mut("/metadata/annotations")
        .and_then(|annotations| annotations.get_mut(LAST_APPLIED));
    if let Some(annotation) = annotation {
        *annotation = format!("{config}\n").into();
    }
}

/// The fields of the configuration that kubectl keeps in its annotation, the annotation
/// included.
fn last_applied(live: &Value, schema: &Schema) -> Option<Fields> {
    let text = live
        .pointer("/metadata/annotations")?
        .get(LAST_APPLIED)?
        .as_str()?;
    let mut config: Value = serde_json::from_str(text).ok()?;
    if let Value::Object(config) = &mut config {
        let metadata = config
            .entry("metadata")
            .or_insert_with(|| Value::Object(Map::new()));
        if let Value::Object(metadata) = metadata {
            let annotations = metadata
                .entry("annotations")
                .or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(annotations) = annotations {
                annotations.insert(LAST_APPLIED.into(), "".into());
            }
        }
    }
    Some(fields_of(Some(schema.view()), &config))
}

/// The set of one path of fields.
fn path(names: &[&str]) -> Fields {
    names.iter().rev().fold(Fields::leaf(), |inner, name| {
        let mut outer = Fields::default();
        outer.put(Step::Field((*name).to_owned()), inner);
        outer
    })
}

fn conflict_message(conflicts: &[Conflict]) -> String {
    if let [only] = conflicts {
        return format!(
            "Apply failed with 1 conflict: conflict with {}: {}",
            only.owner(),
            only.field
        );
    }
    let mut owners: Vec<String> = conflicts.iter().map(Conflict::owner).collect();
    owners.sort();
    owners.dedup();
    let parts: Vec<String> = owners
        .iter()
        .map(|owner| {
            let fields: Vec<String> = conflicts
                .iter()
                .filter(|c| c.owner() == *owner)
                .map(|c| format!("- {}", c.field))
                .collect();
            format!("conflicts with {owner}:\n{}", fields.join("\n"))
        })
        .collect();
    format!(
        "Apply failed with {} conflicts: {}",
        conflicts.len(),
        parts.join("\n")
    )
}
