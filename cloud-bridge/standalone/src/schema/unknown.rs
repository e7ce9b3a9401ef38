//! Finds fields that a schema does not name, in Kubernetes' wording.

use serde_json::Value;

use super::Schema;
use super::node::View;

impl Schema {
    /// Paths of the fields that the schema does not name: `spec.containers[0].foo`.
    pub fn unknown_fields(&self, value: &Value) -> Vec<String> {
        let mut found = Vec::new();
        walk(self.view(), value, &mut String::new(), &mut found);
        found
    }
}

/// No client can make an answer grow without bound.
const MAX_REPORTED: usize = 100;

fn walk(schema: View<'_>, value: &Value, path: &mut String, found: &mut Vec<String>) {
    let len = path.len();
    match value {
        Value::Object(map) => {
            for (key, child) in map {
                super::types::push_key(path, key);
                match schema.member(key) {
                    Some(schema) => walk(schema, child, path, found),
                    None if schema.open() || found.len() >= MAX_REPORTED => {}
                    None if schema.embedded
                        && matches!(key.as_str(), "apiVersion" | "kind" | "metadata") => {}
                    None => found.push(path.clone()),
                }
                path.truncate(len);
            }
        }
        Value::Array(list) => {
            let Some(items) = schema.items() else { return };
            for (i, child) in list.iter().enumerate() {
                super::types::push_index(path, i);
                walk(items, child, path, found);
                path.truncate(len);
            }
        }
        _ => {}
    }
}
