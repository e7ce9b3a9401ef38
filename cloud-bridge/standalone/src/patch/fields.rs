//! Sets of field paths, the content of `managedFields[].fieldsV1`: `f:name` is a member,
//! `k:{…}` an element of a list of objects, `v:…` one of a list of scalars, `.` the thing
//! itself.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Map, Value};

/// One step of a path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    Field(String),
    /// The key members of a list element, as JSON text with sorted names.
    Key(String),
    /// A scalar of a set, as JSON text.
    Value(String),
}

impl Step {
    fn parse(text: &str) -> Option<Step> {
        let (kind, rest) = text.split_once(':')?;
        Some(match kind {
            "f" => Step::Field(rest.to_owned()),
            "k" => Step::Key(rest.to_owned()),
            "v" => Step::Value(rest.to_owned()),
            // `i:` (an index) is never written by an API server.
            _ => return None,
        })
    }

    fn encode(&self) -> String {
        match self {
            Step::Field(name) => format!("f:{name}"),
            Step::Key(key) => format!("k:{key}"),
            Step::Value(value) => format!("v:{value}"),
        }
    }

    /// As conflict messages show it: `.spec`, `[name="c"]`, `[="x"]`.
    fn show(&self, path: &mut String) {
        match self {
            Step::Field(name) => {
                path.push('.');
                path.push_str(name);
            }
            Step::Value(value) => {
                // Writing to a String cannot fail.
                write!(path, "[={value}]").unwrap_or_default();
            }
            Step::Key(key) => {
                let members: Map<String, Value> = serde_json::from_str(key).unwrap_or_default();
                let parts: Vec<String> = members.iter().map(|(k, v)| format!("{k}={v}")).collect();
                write!(path, "[{}]", parts.join(",")).unwrap_or_default();
            }
        }
    }
}

/// A set of paths, as a tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fields {
    /// Whether the path that leads here is itself a member.
    pub own: bool,
    pub below: BTreeMap<Step, Fields>,
}

impl Fields {
    /// The set of just the path that leads here.
    pub fn leaf() -> Fields {
        Fields {
            own: true,
            below: BTreeMap::new(),
        }
    }

    pub fn is_empty(&self) -> bool {
        !self.own && self.below.values().all(Fields::is_empty)
    }

    /// Adds `child` under `step` unless it is empty.
    pub fn put(&mut self, step: Step, child: Fields) {
        if !child.is_empty() {
            self.below.insert(step, child);
        }
    }

    pub fn take_field(&mut self, name: &str) -> Option<Fields> {
        self.below.remove(&Step::Field(name.to_owned()))
    }

    pub fn union(&mut self, other: &Fields) {
        self.own |= other.own;
        for (step, child) in &other.below {
            self.below.entry(step.clone()).or_default().union(child);
        }
    }

    /// Removes the members that `other` has too.
    pub fn subtract(&mut self, other: &Fields) {
        self.own &= !other.own;
        self.below.retain(|step, child| {
            if let Some(other) = other.below.get(step) {
                child.subtract(other);
            }
            !child.is_empty()
        });
    }

    /// As [`Fields::subtract`], and what leads to a member of `other` goes too.
    pub fn subtract_with_parents(&mut self, other: &Fields) {
        self.own &= other.is_empty();
        self.below.retain(|step, child| {
            if let Some(other) = other.below.get(step) {
                child.subtract_with_parents(other);
            }
            !child.is_empty()
        });
    }

    pub fn intersection(&self, other: &Fields) -> Fields {
        let mut common = Fields {
            own: self.own && other.own,
            below: BTreeMap::new(),
        };
        for (step, child) in &self.below {
            if let Some(other) = other.below.get(step) {
                common.put(step.clone(), child.intersection(other));
            }
        }
        common
    }

    /// Every member as a conflict message shows it.
    pub fn paths(&self) -> Vec<String> {
        let mut found = Vec::new();
        self.collect(&mut String::new(), &mut found);
        found
    }

    fn collect(&self, path: &mut String, found: &mut Vec<String>) {
        if self.own {
            found.push(path.clone());
        }
        let len = path.len();
        for (step, child) in &self.below {
            step.show(path);
            child.collect(path, found);
            path.truncate(len);
        }
    }

    /// Reads `fieldsV1`. Unknown steps are left out.
    pub fn from_json(value: &Value) -> Fields {
        let mut fields = match value.as_object() {
            Some(map) => Fields::read(map),
            None => Fields::default(),
        };
        // The root is no member of anything; an empty document is an empty set.
        fields.own = false;
        fields
    }

    fn read(map: &Map<String, Value>) -> Fields {
        let mut fields = Fields {
            own: map.is_empty() || map.contains_key("."),
            below: BTreeMap::new(),
        };
        for (key, value) in map {
            if let (Some(step), Some(map)) = (Step::parse(key), value.as_object()) {
                fields.below.insert(step, Fields::read(map));
            }
        }
        fields
    }

    pub fn to_json(&self) -> Value {
        let mut map = Map::new();
        if self.own && !self.below.is_empty() {
            map.insert(".".into(), Value::Object(Map::new()));
        }
        for (step, child) in &self.below {
            if !child.is_empty() {
                map.insert(step.encode(), child.to_json());
            }
        }
        Value::Object(map)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn sample() -> Value {
        json!({
            "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
            "f:spec": {"f:containers": {
                "k:{\"name\":\"c\"}": {".": {}, "f:image": {}, "f:args": {"v:\"x\"": {}}}
            }},
        })
    }

    #[test]
    fn fields_survive_a_round_trip_through_json() {
        assert_eq!(Fields::from_json(&sample()).to_json(), sample());
        assert!(Fields::from_json(&json!({})).is_empty());
        assert!(Fields::from_json(&json!("nonsense")).is_empty());
    }

    #[test]
    fn paths_are_shown_as_the_api_server_shows_them() {
        let paths = Fields::from_json(&sample()).paths();
        assert!(paths.contains(&r#".spec.containers[name="c"].image"#.to_owned()));
        assert!(paths.contains(&r#".spec.containers[name="c"].args[="x"]"#.to_owned()));
        assert!(paths.contains(&".metadata.labels".to_owned()));
    }

    #[test]
    fn subtracting_and_intersecting_agree() {
        let all = Fields::from_json(&sample());
        let some = Fields::from_json(&json!({"f:metadata": {"f:labels": {"f:app": {}}}}));
        let mut rest = all.clone();
        rest.subtract(&some);
        assert!(rest.intersection(&some).is_empty());
        rest.union(&some);
        assert_eq!(rest, all);
    }
}
