//! Reading and writing `metadata` of objects that are plain JSON.

use serde_json::{Map, Value, json};

/// The text at `pointer` (`/metadata/name`), or "".
pub fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or("")
}

pub fn name(object: &Value) -> &str {
    text(object, "/metadata/name")
}

pub fn namespace(object: &Value) -> &str {
    text(object, "/metadata/namespace")
}

pub fn uid(object: &Value) -> &str {
    text(object, "/metadata/uid")
}

pub fn is_deleting(object: &Value) -> bool {
    !text(object, "/metadata/deletionTimestamp").is_empty()
}

/// `metadata` as a map, made if it is not there or something else.
pub fn metadata(object: &mut Value) -> &mut Map<String, Value> {
    map_at(object, "metadata")
}

/// The map under `field` of an object, made if it is not there or something else.
pub fn map_at<'a>(object: &'a mut Value, field: &str) -> &'a mut Map<String, Value> {
    if !object.is_object() {
        *object = json!({});
    }
    let slot = &mut object[field];
    if !slot.is_object() {
        *slot = json!({});
    }
    slot.as_object_mut().expect("made an object just above")
}

pub fn finalizers(object: &Value) -> Vec<&str> {
    strings(object.pointer("/metadata/finalizers"))
}

pub fn strings(list: Option<&Value>) -> Vec<&str> {
    list.and_then(Value::as_array)
        .map(|list| list.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default()
}

pub fn add_finalizer(object: &mut Value, finalizer: &str) {
    if finalizers(object).contains(&finalizer) {
        return;
    }
    let slot = metadata(object).entry("finalizers").or_insert(json!([]));
    if let Some(list) = slot.as_array_mut() {
        list.push(json!(finalizer));
    }
}

/// Removes a finalizer; the field goes with the last one. Says whether it was there.
pub fn remove_finalizer(object: &mut Value, finalizer: &str) -> bool {
    let metadata = metadata(object);
    let Some(list) = metadata.get_mut("finalizers").and_then(Value::as_array_mut) else {
        return false;
    };
    let before = list.len();
    list.retain(|f| f != finalizer);
    let removed = list.len() < before;
    if list.is_empty() {
        metadata.remove("finalizers");
    }
    removed
}

pub fn array<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    object
        .pointer(pointer)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

/// The condition of that type in `status.conditions`.
pub fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    array(object, "/status/conditions")
        .iter()
        .find(|c| text(c, "/type") == kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_finalizer_takes_the_field_with_it() {
        let mut object = json!({"metadata": {"finalizers": ["a", "b"]}});
        assert!(remove_finalizer(&mut object, "a"));
        assert!(!remove_finalizer(&mut object, "a"));
        assert!(remove_finalizer(&mut object, "b"));
        assert_eq!(object, json!({"metadata": {}}));
        add_finalizer(&mut object, "c");
        add_finalizer(&mut object, "c");
        assert_eq!(finalizers(&object), ["c"]);
    }
}
