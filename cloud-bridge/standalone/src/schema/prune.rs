//! Drops the fields that a structural schema does not name, as the API server does with
//! custom resources before it stores them.

use serde_json::Value;

use super::Schema;
use super::node::View;

impl Schema {
    /// Removes what the schema does not name, in place. `x-kubernetes-preserve-unknown-fields`
    /// keeps everything at its level, `x-kubernetes-embedded-resource` keeps `apiVersion`,
    /// `kind` and `metadata`.
    pub fn prune(&self, value: &mut Value) {
        prune(self.view(), value);
    }
}

fn prune(schema: View<'_>, value: &mut Value) {
    match value {
        Value::Object(map) => {
            if !schema.open() {
                map.retain(|key, _| {
                    schema.member(key).is_some()
                        || (schema.embedded
                            && matches!(key.as_str(), "apiVersion" | "kind" | "metadata"))
                });
            }
            for (key, child) in map {
                if let Some(schema) = schema.member(key) {
                    prune(schema, child);
                }
            }
        }
        Value::Array(list) => {
            if let Some(items) = schema.items() {
                list.iter_mut().for_each(|item| prune(items, item));
            }
        }
        _ => {}
    }
}
