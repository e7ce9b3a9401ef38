//! RFC 6902 and RFC 7386, with bounds: a few `copy` operations can double a document
//! again and again.

use serde_json::Value;

use super::PatchError;

const MAX_OPERATIONS: usize = 10_000;
/// What all `copy` operations of a patch may add up to, as in the API server.
const MAX_COPIED: usize = 3 * 1024 * 1024;
/// As deep as a request body may be.
const MAX_DEPTH: usize = 100;

/// Applies a JSON patch (RFC 6902), given as parsed JSON.
pub fn json_patch(target: &Value, patch: &Value) -> Result<Value, PatchError> {
    let patch: json_patch::Patch =
        serde_json::from_value(patch.clone()).map_err(PatchError::Malformed)?;
    if patch.0.len() > MAX_OPERATIONS {
        return Err(PatchError::TooManyOperations {
            count: patch.0.len(),
            limit: MAX_OPERATIONS,
        });
    }
    let mut value = target.clone();
    let mut copied = 0;
    for (at, operation) in patch.0.into_iter().enumerate() {
        if let json_patch::PatchOperation::Copy(copy) = &operation {
            copied += value
                .pointer(copy.from.as_str())
                .map_or(0, |source| source.to_string().len());
            if copied > MAX_COPIED {
                return Err(PatchError::TooLarge { limit: MAX_COPIED });
            }
        }
        json_patch::patch(&mut value, std::slice::from_ref(&operation)).map_err(|error| {
            PatchError::NotApplicable {
                operation: at,
                path: operation_path(&operation),
                source: error.kind,
            }
        })?;
        // `add` and `copy` can put a document into itself, level by level.
        if deeper_than(&value, MAX_DEPTH) {
            return Err(PatchError::TooDeep {
                path: operation_path(&operation),
                limit: MAX_DEPTH,
            });
        }
    }
    Ok(value)
}

fn operation_path(operation: &json_patch::PatchOperation) -> String {
    operation.path().to_string()
}

/// Applies a merge patch (RFC 7386).
pub fn merge_patch(target: &Value, patch: &Value) -> Value {
    let mut value = target.clone();
    json_patch::merge(&mut value, patch);
    value
}

fn deeper_than(value: &Value, levels: usize) -> bool {
    match value {
        Value::Array(list) => levels == 0 || list.iter().any(|v| deeper_than(v, levels - 1)),
        Value::Object(map) => levels == 0 || map.values().any(|v| deeper_than(v, levels - 1)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_json_patch_changes_only_what_it_names() {
        let target = json!({"a": {"b": 1}, "l": [1, 2]});
        let patch = json!([
            {"op": "test", "path": "/a/b", "value": 1},
            {"op": "replace", "path": "/a/b", "value": 2},
            {"op": "add", "path": "/l/-", "value": 3},
        ]);
        assert_eq!(
            json_patch(&target, &patch).unwrap(),
            json!({"a": {"b": 2}, "l": [1, 2, 3]})
        );
    }

    #[test]
    fn a_failed_test_operation_is_not_applicable_and_a_wrong_one_is_malformed() {
        let error = json_patch(&json!({}), &json!([{"op": "remove", "path": "/x"}])).unwrap_err();
        assert_eq!(error.status(), 422, "{error}");
        let tests = json!([{"op": "test", "path": "/a", "value": 1},
            {"op": "test", "path": "/b", "value": 1}]);
        let error = json_patch(&json!({"a": 1, "b": 2}), &tests).unwrap_err();
        assert!(
            error
                .to_string()
                .ends_with("operation 1 at \"/b\": value did not match"),
            "{error}"
        );
        let error = json_patch(&json!({}), &json!([{"op": "frob"}])).unwrap_err();
        assert_eq!(error.status(), 400, "{error}");
    }

    #[test]
    fn copies_cannot_grow_a_document_without_bound() {
        let double: Vec<Value> = (0..60)
            .map(|i| json!({"op": "copy", "from": "", "path": format!("/k{i}")}))
            .collect();
        let target = json!({"seed": "x".repeat(1000)});
        assert!(json_patch(&target, &Value::Array(double)).is_err());
    }
}
