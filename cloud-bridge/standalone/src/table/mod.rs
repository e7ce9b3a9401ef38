//! Objects as rows of a `meta.k8s.io` Table: what `kubectl get` prints.

mod apps;
mod builtin;
pub mod jsonpath;

use crate::meta::{array, text};
use crate::registry::{Column, Resource};
use crate::time;
use jsonpath::Path;
use serde_json::{Value, json};

/// How much of each object a row carries (`includeObject`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Include {
    None,
    Metadata,
    Object,
}

impl Include {
    pub fn parse(word: Option<&str>) -> Include {
        match word {
            Some("None") => Include::None,
            Some("Object") => Include::Object,
            _ => Include::Metadata,
        }
    }
}

/// The columns of one kind, ready to fill rows.
pub struct Columns {
    definitions: Vec<Value>,
    cells: Cells,
}

enum Cells {
    Builtin(fn(&Value) -> Vec<Value>),
    Custom(Vec<(Option<Path>, String)>),
}

const NAME: &str = "Name must be unique within a namespace. Is required when creating resources, although some resources may allow a client to request the generation of an appropriate name automatically. Name is primarily intended for creation idempotence and configuration definition. Cannot be updated. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names";

fn definition(name: &str, kind: &str, format: &str, description: &str, priority: i64) -> Value {
    json!({"name": name, "type": kind, "format": format, "description": description,
        "priority": priority})
}

impl Columns {
    pub fn of(resource: &Resource) -> Columns {
        match &resource.custom {
            Some(custom) => custom_columns(&custom.columns),
            None => {
                let (columns, cells) = builtin::columns(&resource.storage);
                let definitions = columns
                    .iter()
                    .enumerate()
                    .map(|(i, (name, kind, priority))| match i {
                        0 => definition(name, kind, "name", NAME, 0),
                        _ => definition(name, kind, "", "", *priority),
                    })
                    .collect();
                Columns {
                    definitions,
                    cells: Cells::Builtin(cells),
                }
            }
        }
    }

    fn cells(&self, object: &Value) -> Vec<Value> {
        match &self.cells {
            Cells::Builtin(cells) => cells(object),
            Cells::Custom(columns) => {
                let mut cells = vec![json!(text(object, "/metadata/name"))];
                cells.extend(
                    columns
                        .iter()
                        .map(|(path, kind)| custom_cell(path.as_ref(), kind, object)),
                );
                cells
            }
        }
    }

    pub fn definitions(&self) -> Value {
        Value::Array(self.definitions.clone())
    }

    pub fn row(&self, object: &Value, include: Include, version: &str) -> Value {
        let mut row = json!({"cells": self.cells(object)});
        match include {
            Include::None => {}
            Include::Metadata => row["object"] = partial(object, version),
            Include::Object => row["object"] = object.clone(),
        }
        row
    }
}

/// Only the metadata of an object.
pub fn partial(object: &Value, version: &str) -> Value {
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": format!("meta.k8s.io/{version}"),
        "metadata": object["metadata"],
    })
}

fn custom_columns(columns: &[Column]) -> Columns {
    let age = Column {
        name: "Age".into(),
        kind: "date".into(),
        format: String::new(),
        description: "CreationTimestamp is a timestamp representing the server time when this object was created.".into(),
        priority: 0,
        json_path: ".metadata.creationTimestamp".into(),
    };
    let default = [age];
    let columns = match columns {
        [] => &default[..],
        columns => columns,
    };
    let mut definitions = vec![definition("Name", "string", "name", NAME, 0)];
    definitions.extend(
        columns
            .iter()
            .map(|c| definition(&c.name, &c.kind, &c.format, &c.description, c.priority)),
    );
    let paths = columns
        .iter()
        .map(|c| (Path::parse(&c.json_path), c.kind.clone()))
        .collect();
    Columns {
        definitions,
        cells: Cells::Custom(paths),
    }
}

fn custom_cell(path: Option<&Path>, kind: &str, object: &Value) -> Value {
    let found = path.map(|p| p.find(object)).unwrap_or_default();
    let Some(first) = found.first() else {
        return Value::Null;
    };
    match (kind, first) {
        (_, Value::Null) => Value::Null,
        ("date", value) => match value.as_str() {
            Some(at) => json!(time::age_of(Some(at))),
            None => json!("<unknown>"),
        },
        ("integer" | "number", value) if value.is_number() => (*value).clone(),
        ("boolean", Value::Bool(value)) => json!(value),
        ("integer" | "number" | "boolean", _) => Value::Null,
        _ => {
            let texts: Vec<String> = found.iter().map(|v| plain(v)).collect();
            json!(texts.join(","))
        }
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// How many things a list or a map holds.
fn count(object: &Value, pointer: &str) -> usize {
    match object.pointer(pointer) {
        Some(Value::Object(fields)) => fields.len(),
        _ => array(object, pointer).len(),
    }
}
