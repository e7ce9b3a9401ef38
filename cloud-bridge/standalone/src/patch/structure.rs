//! Walks values by their merge structure: which field paths a value has, what differs
//! between two values, merging one over another, removing paths.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::fields::{Fields, Step};
use super::order::{New, interleave, places};
use crate::schema::node::{Topology, View};

type Node<'a> = Option<View<'a>>;

/// How the elements of a list are told apart.
#[derive(Clone, Copy)]
enum Identity<'a> {
    Keys(&'a [Box<str>]),
    Value,
}

fn atomic_map(schema: Node<'_>) -> bool {
    schema.is_some_and(|s| s.node().topology == Topology::Atomic)
}

/// `None` = the list is owned as one.
fn identity<'a>(schema: Node<'a>) -> Option<Identity<'a>> {
    match &schema?.node().topology {
        Topology::Set => Some(Identity::Value),
        Topology::Map(keys) => Some(Identity::Keys(keys)),
        _ => None,
    }
}

fn member<'a>(schema: Node<'a>, name: &str) -> Node<'a> {
    schema?.member(name)
}

fn items(schema: Node<'_>) -> Node<'_> {
    schema?.items()
}

/// The step to a list element.
fn step_of(identity: Identity<'_>, items: Node<'_>, item: &Value) -> Step {
    let Identity::Keys(keys) = identity else {
        return Step::Value(item.to_string());
    };
    let mut key = Map::new();
    for name in keys {
        let value = item.get(&**name).cloned().or_else(|| {
            // A key may be left out where it has a default (`protocol: TCP`).
            let preset = member(items, name)?.node().default.as_deref()?;
            Some(preset.clone())
        });
        if let Some(value) = value {
            key.insert(name.to_string(), value);
        }
    }
    Step::Key(Value::Object(key).to_string())
}

/// The elements of a list with their steps. An element that occurs twice counts once.
fn steps<'v>(identity: Identity<'_>, items: Node<'_>, list: &'v [Value]) -> Vec<(Step, &'v Value)> {
    let mut found: Vec<(Step, &Value)> = Vec::with_capacity(list.len());
    let mut seen = BTreeSet::new();
    for item in list {
        let step = step_of(identity, items, item);
        if seen.insert(step.clone()) {
            found.push((step, item));
        }
    }
    found
}

/// The paths that an applied configuration has.
pub(crate) fn fields_of(schema: Node<'_>, value: &Value) -> Fields {
    match value {
        Value::Object(map) if !map.is_empty() && !atomic_map(schema) => {
            let mut fields = Fields::default();
            for (name, child) in map {
                let mut below = fields_of(member(schema, name), child);
                // A map's key is a member of its own; a struct's field is not.
                below.own |= schema.is_none_or(|s| s.prop(name).is_none());
                fields.put(Step::Field(name.clone()), below);
            }
            fields
        }
        Value::Array(list) if !list.is_empty() => match identity(schema) {
            None => Fields::leaf(),
            Some(identity) => {
                let items = items(schema);
                let mut fields = Fields::default();
                for (step, item) in steps(identity, items, list) {
                    let mut below = match identity {
                        Identity::Keys(_) => fields_of(items, item),
                        Identity::Value => Fields::default(),
                    };
                    below.own = true;
                    fields.put(step, below);
                }
                fields
            }
        },
        _ => Fields::leaf(),
    }
}

/// Every path of a value, containers included: what an update adds or removes.
fn everything(schema: Node<'_>, value: &Value) -> Fields {
    let mut fields = fields_of(schema, value);
    own_containers(&mut fields);
    fields
}

/// Struct fields that Go writes even when they are empty: an update never "adds" them.
const ALWAYS_THERE: &[&str] = &["spec", "status", "metadata", "template", "containers"];

fn own_containers(fields: &mut Fields) {
    fields.own = true;
    for (step, child) in &mut fields.below {
        own_containers(child);
        if let Step::Field(name) = step
            && ALWAYS_THERE.contains(&name.as_str())
            && !child.below.is_empty()
        {
            child.own = false;
        }
    }
}

/// What differs between two values.
#[derive(Debug, Default)]
pub(crate) struct Difference {
    /// Added or changed.
    pub changed: Fields,
    pub removed: Fields,
}

pub(crate) fn compare(schema: Node<'_>, old: &Value, new: &Value) -> Difference {
    let mut difference = Difference::default();
    // Most of an object is the same before and after: comparing is cheaper than naming paths.
    if old == new {
        return difference;
    }
    let changed = &mut difference.changed;
    let removed = &mut difference.removed;
    match (old, new) {
        (Value::Object(a), Value::Object(b))
            if !(atomic_map(schema) || (a.is_empty() && b.is_empty())) =>
        {
            for (name, value) in b {
                let child = member(schema, name);
                let step = Step::Field(name.clone());
                match a.get(name) {
                    None => {
                        let mut all = everything(child, value);
                        if ALWAYS_THERE.contains(&name.as_str()) && !all.below.is_empty() {
                            all.own = false;
                        }
                        changed.put(step, all);
                    }
                    Some(before) => {
                        let inner = compare(child, before, value);
                        changed.put(step.clone(), inner.changed);
                        removed.put(step, inner.removed);
                    }
                }
            }
            for (name, value) in a.iter().filter(|(name, _)| !b.contains_key(*name)) {
                let all = everything(member(schema, name), value);
                removed.put(Step::Field(name.clone()), all);
            }
        }
        (Value::Array(a), Value::Array(b)) => match identity(schema) {
            None => changed.own = true,
            Some(identity) => {
                let items = items(schema);
                let before: BTreeMap<Step, &Value> =
                    steps(identity, items, a).into_iter().collect();
                let after: BTreeMap<Step, &Value> = steps(identity, items, b).into_iter().collect();
                for (step, value) in &after {
                    match before.get(step) {
                        None => changed.put(step.clone(), everything(items, value)),
                        Some(before) => {
                            let inner = compare(items, before, value);
                            changed.put(step.clone(), inner.changed);
                            removed.put(step.clone(), inner.removed);
                        }
                    }
                }
                for (step, value) in before.iter().filter(|(s, _)| !after.contains_key(*s)) {
                    removed.put(step.clone(), everything(items, value));
                }
            }
        },
        _ => {
            // A value of another type: whatever was below is gone.
            if matches!(old, Value::Object(_) | Value::Array(_)) {
                *removed = everything(schema, old);
                removed.own = false;
            }
            *changed = everything(schema, new);
        }
    }
    difference
}

/// `config` merged over `live`. A `null` in the configuration says nothing.
pub(crate) fn merge(schema: Node<'_>, live: &Value, config: &Value) -> Value {
    match (live, config) {
        (live, Value::Null) => live.clone(),
        (Value::Object(live), Value::Object(config)) if !atomic_map(schema) => {
            let mut merged = live.clone();
            for (name, value) in config {
                let child = member(schema, name);
                match merged.get_mut(name) {
                    Some(old) => *old = merge(child, old, value),
                    None => {
                        merged.insert(name.clone(), without_nulls(value));
                    }
                }
            }
            Value::Object(merged)
        }
        (Value::Array(live), Value::Array(config)) => match identity(schema) {
            None => Value::Array(config.clone()),
            Some(identity) => {
                let items = items(schema);
                let old = steps(identity, items, live);
                let places = places(old.iter().map(|(step, _)| step.clone()));
                let new = steps(identity, items, config);
                let names: BTreeSet<&Step> = new.iter().map(|(step, _)| step).collect();
                let others = old
                    .iter()
                    .filter(|(step, _)| !names.contains(step))
                    .map(|(step, item)| (step.clone(), (*item).clone()))
                    .collect();
                let named = new
                    .iter()
                    .map(|(step, item)| {
                        let merged = match places.get(step).and_then(|place| old.get(*place)) {
                            Some((_, old)) => merge(items, old, item),
                            None => without_nulls(item),
                        };
                        (step.clone(), merged)
                    })
                    .collect();
                Value::Array(interleave(named, others, &places, New::Last))
            }
        },
        (_, config) => without_nulls(config),
    }
}

pub(crate) fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(
            map.iter()
                .filter(|(_, v)| !v.is_null())
                .map(|(k, v)| (k.clone(), without_nulls(v)))
                .collect(),
        ),
        other => other.clone(),
    }
}

/// Removes what `gone` names and nothing in `kept` still needs, unowned content included.
pub(crate) fn remove(schema: Node<'_>, value: &mut Value, gone: &Fields, kept: &Fields) {
    let nothing = Fields::default();
    match value {
        Value::Object(map) => map.retain(|name, child| {
            let step = Step::Field(name.clone());
            let Some(gone) = gone.below.get(&step) else {
                return true;
            };
            match kept.below.get(&step).filter(|kept| !kept.is_empty()) {
                None => false,
                Some(kept) => {
                    remove(member(schema, name), child, gone, kept);
                    true
                }
            }
        }),
        Value::Array(list) => {
            let Some(identity) = identity(schema) else {
                return;
            };
            let items = items(schema);
            list.retain_mut(|item| {
                let step = step_of(identity, items, item);
                let Some(gone) = gone.below.get(&step) else {
                    return true;
                };
                let kept = kept.below.get(&step).unwrap_or(&nothing);
                if kept.is_empty() {
                    return false;
                }
                remove(items, item, gone, kept);
                true
            });
        }
        _ => {}
    }
}
