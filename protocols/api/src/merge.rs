//! Model beneath instance: KubeEdge's configData, key by key and without regard to case.

use crate::Object;
use serde_json::Value;

/// The value of `key` in free configData, whatever its case.
pub fn get<'a>(data: &'a Object, key: &str) -> Option<&'a Value> {
    data.get(key).or_else(|| {
        data.iter()
            .find(|(k, _)| k.eq_ignore_ascii_case(key))
            .map(|(_, v)| v)
    })
}

/// `over` laid on `under`: a key of `over` hides the same key of `under` in any case; objects are
/// merged level by level, everything else is replaced whole. `null` in `over` takes a key away.
pub fn merged(under: &Object, over: &Object) -> Object {
    let mut out = Object::new();
    for (key, below) in under {
        match (get(over, key), below) {
            (None, _) => {
                out.insert(key.clone(), below.clone());
            }
            (Some(Value::Object(above)), Value::Object(below)) => {
                let (spelt, _) = over
                    .iter()
                    .find(|(k, _)| k.eq_ignore_ascii_case(key))
                    .unwrap_or((key, &Value::Null));
                out.insert(spelt.clone(), Value::Object(merged(below, above)));
            }
            (Some(_), _) => {}
        }
    }
    for (key, above) in over {
        if !above.is_null() && !out.contains_key(key) {
            out.insert(key.clone(), above.clone());
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn merge(under: Value, over: Value) -> Value {
        let (Value::Object(under), Value::Object(over)) = (under, over) else {
            panic!("objects");
        };
        Value::Object(merged(&under, &over))
    }

    #[test]
    fn the_instance_wins_key_by_key_and_case_does_not_matter() {
        for (under, over, out) in [
            (
                json!({"a": 1, "b": 2}),
                json!({"b": 3}),
                json!({"a": 1, "b": 3}),
            ),
            (
                json!({"offset": 1}),
                json!({"Offset": "2"}),
                json!({"Offset": "2"}),
            ),
            (
                json!({"tcp": {"ip": "a", "port": 1}}),
                json!({"TCP": {"Port": 2}}),
                json!({"TCP": {"ip": "a", "Port": 2}}),
            ),
            (
                json!({"list": [1, 2]}),
                json!({"list": [3]}),
                json!({"list": [3]}),
            ),
            (json!({"a": 1}), json!({"A": null}), json!({})),
            (json!({"a": {"x": 1}}), json!({"a": 5}), json!({"a": 5})),
        ] {
            assert_eq!(merge(under.clone(), over.clone()), out, "{under} + {over}");
        }
    }
}
