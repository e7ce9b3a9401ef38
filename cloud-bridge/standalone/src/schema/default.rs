//! Fills in the defaults of a structural schema.

use serde_json::Value;

use super::Schema;
use super::node::View;

impl Schema {
    /// Sets the missing fields that have a `default`, in place. A `null` in a field that is
    /// not nullable counts as missing, as it does for the API server.
    pub fn default(&self, value: &mut Value) {
        default(self.view(), value);
    }
}

fn default(schema: View<'_>, value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|key, child| {
                !child.is_null() || schema.member(key).is_none_or(|s| s.nullable)
            });
            for (key, prop) in schema.props() {
                if let Some(preset) = &prop.default
                    && !map.contains_key(key)
                {
                    map.insert(key.to_owned(), (**preset).clone());
                }
            }
            for (key, child) in map {
                if let Some(schema) = schema.member(key) {
                    default(schema, child);
                }
            }
        }
        Value::Array(list) => {
            if let Some(items) = schema.items() {
                list.iter_mut().for_each(|item| default(items, item));
            }
        }
        _ => {}
    }
}
