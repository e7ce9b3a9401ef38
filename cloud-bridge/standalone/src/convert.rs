//! Between the form an object is stored in and the form of the version it is asked in.
//! Versions of a custom resource differ in `apiVersion` only (conversion strategy None);
//! `events.k8s.io/v1` is another shape of the core group's events.

use crate::store::Packed;
use serde_json::{Map, Value, json};
use std::borrow::Cow;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Convert {
    None,
    /// A custom resource that is stored in another version.
    Version,
    /// Events as the core group has them: the stored form.
    CoreEvent,
    /// Events as `events.k8s.io/v1` has them.
    NewEvent,
}

/// (stored name, name in `events.k8s.io/v1`)
const EVENT_FIELDS: &[(&str, &str)] = &[
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

fn rename(object: &mut Map<String, Value>, from: &str, to: &str) {
    if let Some(value) = object.remove(from) {
        object.insert(to.to_owned(), value);
    }
}

impl Convert {
    /// From what a client sent to what is stored.
    pub fn to_stored(self, mut object: Value) -> Value {
        if self == Convert::NewEvent
            && let Some(fields) = object.as_object_mut()
        {
            for (stored, new) in EVENT_FIELDS {
                rename(fields, new, stored);
            }
            fields.insert("apiVersion".into(), json!("v1"));
        }
        object
    }

    /// As [`Convert::to_served`], as text; what needs no conversion is not even read.
    pub fn to_served_text<'a>(self, stored: &'a Packed, api_version: &str) -> Cow<'a, str> {
        let same = match self {
            Convert::None | Convert::CoreEvent => true,
            Convert::Version => stored
                .find(["apiVersion"])
                .is_some_and(|v| v == api_version),
            Convert::NewEvent => false,
        };
        match same {
            true => Cow::Borrowed(stored.json()),
            false => Cow::Owned(
                self.to_served(&stored.unpack().value, api_version)
                    .to_string(),
            ),
        }
    }

    /// From what is stored to what a client of `api_version` shall see.
    pub fn to_served<'a>(self, stored: &'a Value, api_version: &str) -> Cow<'a, Value> {
        match self {
            Convert::None | Convert::CoreEvent => Cow::Borrowed(stored),
            Convert::Version if stored["apiVersion"] == api_version => Cow::Borrowed(stored),
            Convert::Version => {
                let mut object = stored.clone();
                object["apiVersion"] = json!(api_version);
                Cow::Owned(object)
            }
            Convert::NewEvent => {
                let mut object = stored.clone();
                if let Some(fields) = object.as_object_mut() {
                    for (stored, new) in EVENT_FIELDS {
                        rename(fields, stored, new);
                    }
                    fields.insert("apiVersion".into(), json!(api_version));
                }
                Cow::Owned(object)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_comes_back_as_it_was_sent() {
        let sent = json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "note": "hot",
            "regarding": {"kind": "Device"}, "reportingController": "link"});
        let stored = Convert::NewEvent.to_stored(sent.clone());
        assert_eq!(stored["message"], "hot");
        assert_eq!(stored["involvedObject"]["kind"], "Device");
        assert_eq!(*Convert::CoreEvent.to_served(&stored, "v1"), stored);
        assert_eq!(
            *Convert::NewEvent.to_served(&stored, "events.k8s.io/v1"),
            sent
        );
    }
}
