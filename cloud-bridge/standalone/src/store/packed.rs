//! An object as the store holds it: JSON text, and beside it only what is asked of every
//! object again and again. As a tree of values the same object takes ten times the memory.

use serde_json::Value;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::meta::{array, is_deleting, text, uid};

/// One version of one object, to be worked with. `value.metadata.resourceVersion` is `rev`.
#[derive(Clone, Debug, PartialEq)]
pub struct Obj {
    pub rev: u64,
    pub value: Value,
}

/// One version of one object, to be kept.
#[derive(Debug, PartialEq)]
pub struct Packed {
    pub rev: u64,
    pub uid: Box<str>,
    /// The uids of its owners.
    pub owners: Box<[Box<str>]>,
    pub deleting: bool,
    json: Box<str>,
}

impl Packed {
    pub fn new(rev: u64, value: &Value) -> Packed {
        Packed {
            rev,
            uid: uid(value).into(),
            owners: array(value, "/metadata/ownerReferences")
                .iter()
                .map(|owner| text(owner, "/uid").into())
                .collect(),
            deleting: is_deleting(value),
            json: value.to_string().into(),
        }
    }

    pub fn json(&self) -> &str {
        &self.json
    }

    pub fn unpack(&self) -> Obj {
        // It was written from a value, so it reads as one.
        let value = serde_json::from_str(&self.json).unwrap_or_default();
        Obj {
            rev: self.rev,
            value,
        }
    }

    /// What is at the end of a path of field names, without reading the rest.
    pub fn find<'a>(&self, path: impl IntoIterator<Item = &'a str>) -> Option<Value> {
        let mut at: &str = &self.json;
        for step in path {
            let fields: BTreeMap<Cow<'_, str>, &RawValue> = serde_json::from_str(at).ok()?;
            at = fields.get(step)?.get();
        }
        serde_json::from_str(at).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_object_comes_out_as_it_went_in() {
        let value = json!({"metadata": {"name": "a", "uid": "u1", "deletionTimestamp": "t",
            "ownerReferences": [{"uid": "u0"}]},
            "numbers": [0.1, 1e300, 4.35, 0.1234567890123456, u64::MAX, -1], "é\n\"": null});
        let packed = Packed::new(7, &value);
        assert_eq!(packed.unpack(), Obj { rev: 7, value });
        assert_eq!((&*packed.uid, packed.deleting), ("u1", true));
        assert_eq!(packed.owners, ["u0".into()].into());
    }

    #[test]
    fn a_path_is_followed_as_far_as_there_are_fields() {
        let packed = Packed::new(1, &json!({"a": {"b\"c": {"d": [1]}, "n": null}, "s": "x"}));
        for (path, expected) in [
            (&["a", "b\"c", "d"][..], Some(json!([1]))),
            (&["a", "n"], Some(Value::Null)),
            (&["s"], Some(json!("x"))),
            (&["s", "t"], None),
            (&["a", "x", "y"], None),
            (&["a", "b\"c", "d", "0"], None),
        ] {
            assert_eq!(packed.find(path.iter().copied()), expected, "{path:?}");
        }
    }
}
