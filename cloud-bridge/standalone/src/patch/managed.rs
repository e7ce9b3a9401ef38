//! `metadata.managedFields` ↔ who owns which fields.

use serde_json::{Map, Value, json};

use super::apply::{Part, Who};
use super::fields::Fields;

/// An update manager beyond this number is merged into [`ANCIENT`], oldest first.
const MAX_UPDATE_MANAGERS: usize = 10;
const ANCIENT: &str = "ancient-changes";
/// Fields that were there before anybody kept a record.
pub(super) const BEFORE_FIRST_APPLY: &str = "before-first-apply";

/// How a manager writes: an apply owns what it names, an update what it changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    Apply,
    Update,
}

impl Operation {
    pub fn as_str(self) -> &'static str {
        match self {
            Operation::Apply => "Apply",
            Operation::Update => "Update",
        }
    }
}

/// One entry of the record.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    pub operation: Operation,
    pub time: Option<String>,
    pub manager: String,
    pub api_version: String,
    pub subresource: String,
    pub fields: Fields,
}

impl Entry {
    pub fn of(who: &Who<'_>, operation: Operation) -> Entry {
        Entry {
            operation,
            time: Some(who.now.to_owned()),
            manager: who.manager.to_owned(),
            api_version: who.api_version.to_owned(),
            subresource: who.subresource.to_owned(),
            fields: Fields::default(),
        }
    }

    fn read(value: &Value) -> Option<Entry> {
        let text = |key: &str| value.get(key).and_then(Value::as_str);
        let operation = match text("operation")? {
            "Apply" => Operation::Apply,
            "Update" => Operation::Update,
            _ => return None,
        };
        Some(Entry {
            operation,
            time: text("time").map(str::to_owned),
            manager: text("manager").unwrap_or_default().to_owned(),
            api_version: text("apiVersion").unwrap_or_default().to_owned(),
            subresource: text("subresource").unwrap_or_default().to_owned(),
            fields: Fields::from_json(value.get("fieldsV1")?),
        })
    }

    fn write(&self) -> Value {
        let mut entry = json!({
            "manager": self.manager,
            "operation": self.operation.as_str(),
            "apiVersion": self.api_version,
            "fieldsType": "FieldsV1",
            "fieldsV1": self.fields.to_json(),
        });
        if let Some(time) = &self.time {
            entry["time"] = time.as_str().into();
        }
        if !self.subresource.is_empty() {
            entry["subresource"] = self.subresource.as_str().into();
        }
        entry
    }

    /// Whether the two entries are of one manager. An apply is one whatever version of the
    /// kind it speaks; all versions here have the same fields.
    pub fn same(&self, other: &Entry) -> bool {
        self.operation == other.operation
            && self.manager == other.manager
            && self.subresource == other.subresource
            && (self.operation == Operation::Apply || self.api_version == other.api_version)
    }
}

/// The record of an object; `None` if it has none.
pub(super) fn read(object: &Value) -> Option<Vec<Entry>> {
    let list = object.pointer("/metadata/managedFields")?.as_array()?;
    let entries: Vec<Entry> = list.iter().filter_map(Entry::read).collect();
    (!entries.is_empty()).then_some(entries)
}

/// Whether the writer asks to forget the record: `managedFields: [{}]`.
pub(super) fn is_reset(object: &Value) -> bool {
    match object.pointer("/metadata/managedFields") {
        Some(Value::Array(list)) => matches!(list.as_slice(), [Value::Object(o)] if o.is_empty()),
        _ => false,
    }
}

/// Puts the record into the object.
pub(super) fn write(object: &mut Value, mut entries: Vec<Entry>) {
    entries.retain(|e| !e.fields.is_empty());
    fold_ancient(&mut entries);
    entries.sort_by(|a, b| {
        (a.operation, &a.time, &a.manager, &a.subresource).cmp(&(
            b.operation,
            &b.time,
            &b.manager,
            &b.subresource,
        ))
    });
    let Value::Object(object) = object else {
        return;
    };
    let metadata = object
        .entry("metadata")
        .or_insert_with(|| Value::Object(Map::new()));
    if let Value::Object(metadata) = metadata {
        if entries.is_empty() {
            metadata.remove("managedFields");
        } else {
            let list = entries.iter().map(Entry::write).collect();
            metadata.insert("managedFields".into(), Value::Array(list));
        }
    }
}

fn fold_ancient(entries: &mut Vec<Entry>) {
    let is_update = |e: &Entry| e.operation == Operation::Update;
    let count = entries.iter().filter(|e| is_update(e)).count();
    if count <= MAX_UPDATE_MANAGERS {
        return;
    }
    let (mut updates, mut rest): (Vec<Entry>, Vec<Entry>) =
        std::mem::take(entries).into_iter().partition(is_update);
    updates.sort_by(|a, b| a.time.cmp(&b.time));
    let recent = updates.split_off(count - MAX_UPDATE_MANAGERS + 1);
    let mut updates = updates.into_iter();
    if let Some(mut ancient) = updates.next() {
        ancient.manager = ANCIENT.to_owned();
        for entry in updates {
            ancient.fields.union(&entry.fields);
            ancient.time = entry.time;
        }
        rest.push(ancient);
    }
    rest.extend(recent);
    *entries = rest;
}

/// Removes the fields that nobody owns: the identity and what the server keeps.
pub(super) fn strip(fields: &mut Fields, part: Part) {
    for name in ["apiVersion", "kind"] {
        fields.take_field(name);
    }
    if let Some(mut metadata) = fields.take_field("metadata") {
        metadata.own = false;
        for name in [
            "name",
            "namespace",
            "creationTimestamp",
            "selfLink",
            "uid",
            "generation",
            "managedFields",
            "resourceVersion",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
        ] {
            metadata.take_field(name);
        }
        if part != Part::Status {
            fields.put(super::fields::Step::Field("metadata".into()), metadata);
        }
    }
    match part {
        Part::Whole => {}
        Part::WithoutStatus => {
            fields.take_field("status");
        }
        Part::Status => {
            let status = fields.take_field("status").unwrap_or_default();
            *fields = Fields::default();
            fields.put(super::fields::Step::Field("status".into()), status);
        }
    }
}
