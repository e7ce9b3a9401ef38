//! Type check of built-in kinds: what Go's JSON decoder would refuse.

use std::fmt;

use serde_json::Value;

use super::Schema;
use super::node::{Ty, View};

/// A value of the wrong JSON type. `Display` follows the words of Go's decoder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypeMismatch {
    /// `spec.containers[0].image`
    pub path: String,
    pub found: String,
    pub expected: &'static str,
}

impl fmt::Display for TypeMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let TypeMismatch {
            path,
            found,
            expected,
        } = self;
        write!(
            f,
            "json: cannot unmarshal {found} into field {path} of type {expected}"
        )
    }
}

impl std::error::Error for TypeMismatch {}

impl Schema {
    /// The first value whose JSON type is not the schema's. `null` stands for "not set",
    /// as in Go.
    pub fn check_types(&self, value: &Value) -> Result<(), TypeMismatch> {
        walk(self.view(), value, &mut String::new())
    }
}

pub(crate) fn push_key(path: &mut String, key: &str) {
    if !path.is_empty() {
        path.push('.');
    }
    path.push_str(key);
}

pub(crate) fn push_index(path: &mut String, index: usize) {
    path.push('[');
    path.push_str(&index.to_string());
    path.push(']');
}

fn walk(schema: View<'_>, value: &Value, path: &mut String) -> Result<(), TypeMismatch> {
    if let Some(expected) = mismatch(schema, value) {
        return Err(TypeMismatch {
            path: path.clone(),
            found: describe(value),
            expected,
        });
    }
    let len = path.len();
    match value {
        Value::Object(map) => {
            for (key, child) in map {
                let Some(schema) = schema.member(key) else {
                    continue;
                };
                push_key(path, key);
                walk(schema, child, path)?;
                path.truncate(len);
            }
        }
        Value::Array(list) => {
            let Some(items) = schema.items() else {
                return Ok(());
            };
            for (i, child) in list.iter().enumerate() {
                push_index(path, i);
                walk(items, child, path)?;
                path.truncate(len);
            }
        }
        _ => {}
    }
    Ok(())
}

/// The expected type, if `value` is of another one.
fn mismatch(schema: View<'_>, value: &Value) -> Option<&'static str> {
    if value.is_null() {
        return None;
    }
    if schema.int_or_string {
        let fits = value.is_string() || value.is_i64() || value.is_u64();
        return (!fits).then_some("integer or string");
    }
    let ty = schema.ty?;
    let format = schema.format.as_deref();
    match (ty, value) {
        (Ty::Object, Value::Object(_))
        | (Ty::Array, Value::Array(_))
        | (Ty::String, Value::String(_))
        | (Ty::Boolean, Value::Bool(_))
        | (Ty::Number, Value::Number(_)) => None,
        (Ty::Integer, Value::Number(n)) => {
            let fits = match n.as_i64() {
                Some(n) => format != Some("int32") || i32::try_from(n).is_ok(),
                None => false,
            };
            let name = if format == Some("int32") {
                "int32"
            } else {
                "int64"
            };
            (!fits).then_some(name)
        }
        // A quantity may be written as a number.
        (Ty::String, Value::Number(_)) if format == Some("quantity") => None,
        _ => Some(ty.as_str()),
    }
}

pub(crate) fn describe(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) => "bool".to_owned(),
        Value::Number(n) => format!("number {n}"),
        Value::String(_) => "string".to_owned(),
        Value::Array(_) => "array".to_owned(),
        Value::Object(_) => "object".to_owned(),
    }
}
