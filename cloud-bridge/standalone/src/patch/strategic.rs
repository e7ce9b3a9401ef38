//! Strategic merge patch: lists of built-in kinds are merged by key, directives
//! (`$patch`, `$retainKeys`, `$setElementOrder/…`, `$deleteFromPrimitiveList/…`) say what
//! a plain merge cannot.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::PatchError;
use super::order::{New, interleave, places};
use crate::schema::Schema;
use crate::schema::node::{PatchRule, View};
use crate::schema::types::{push_index, push_key};

const DIRECTIVE: &str = "$patch";
const RETAIN: &str = "$retainKeys";
const ORDER: &str = "$setElementOrder/";
const DELETE: &str = "$deleteFromPrimitiveList/";

/// Applies a strategic merge patch to an object of the kind that `schema` describes.
pub fn strategic_patch(
    target: &Value,
    patch: &Value,
    schema: &Schema,
) -> Result<Value, PatchError> {
    let (Value::Object(target), Value::Object(patch)) = (target, patch) else {
        return Err(PatchError::WrongShape {
            path: "<root>".into(),
            expected: "an object",
        });
    };
    let merged = merge_map(
        target.clone(),
        patch,
        Some(schema.view()),
        &mut String::new(),
    )?;
    Ok(Value::Object(merged))
}

fn rule<'a>(schema: Option<View<'a>>) -> Option<&'a PatchRule> {
    schema?.node().patch.as_deref()
}

fn directive(map: &Map<String, Value>, path: &str) -> Result<Option<Directive>, PatchError> {
    match map.get(DIRECTIVE) {
        None => Ok(None),
        Some(Value::String(word)) => match word.as_str() {
            "replace" => Ok(Some(Directive::Replace)),
            "delete" => Ok(Some(Directive::Delete)),
            "merge" => Ok(Some(Directive::Merge)),
            other => Err(unknown_directive(path, other)),
        },
        Some(other) => Err(unknown_directive(path, &other.to_string())),
    }
}

fn unknown_directive(path: &str, directive: &str) -> PatchError {
    PatchError::UnknownDirective {
        path: path.to_owned(),
        directive: directive.to_owned(),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Directive {
    Replace,
    Delete,
    Merge,
}

fn merge_map(
    mut target: Map<String, Value>,
    patch: &Map<String, Value>,
    schema: Option<View<'_>>,
    path: &mut String,
) -> Result<Map<String, Value>, PatchError> {
    match directive(patch, path)? {
        Some(Directive::Replace) => return Ok(plain_map(patch)),
        Some(Directive::Delete) => return Ok(Map::new()),
        Some(Directive::Merge) | None => {}
    }
    if let Some(keep) = patch.get(RETAIN) {
        let keep = list_of(keep, path, RETAIN)?;
        target.retain(|key, _| keep.iter().any(|k| k.as_str() == Some(key)));
    }
    let len = path.len();
    for (key, gone) in patch {
        let Some(field) = key.strip_prefix(DELETE) else {
            continue;
        };
        let gone = list_of(gone, path, key)?;
        if let Some(Value::Array(list)) = target.get_mut(field) {
            list.retain(|item| !gone.contains(item));
        }
    }
    for (key, value) in patch {
        if is_directive(key) {
            continue;
        }
        push_key(path, key);
        let child = schema.and_then(|s| s.member(key));
        let order = order_of(patch, key, path)?;
        merge_member(&mut target, key, value, child, order, path)?;
        path.truncate(len);
    }
    // An order may come for a list that has no other change.
    for (key, order) in patch {
        let Some(field) = key.strip_prefix(ORDER) else {
            continue;
        };
        if patch.contains_key(field) {
            continue;
        }
        let order = list_of(order, path, key)?;
        let child = schema.and_then(|s| s.member(field));
        if let Some(Value::Array(list)) = target.get_mut(field) {
            let merge_key = rule(child).and_then(|r| r.key.as_deref());
            let before = list.clone();
            reorder(list, &before, order, merge_key);
        }
    }
    Ok(target)
}

fn merge_member(
    target: &mut Map<String, Value>,
    key: &str,
    value: &Value,
    schema: Option<View<'_>>,
    order: Option<&[Value]>,
    path: &mut String,
) -> Result<(), PatchError> {
    let rule = rule(schema);
    let replace = rule.is_some_and(|r| r.replace);
    match (target.get_mut(key), value) {
        (_, Value::Null) => {
            target.remove(key);
        }
        (Some(Value::Object(old)), Value::Object(new)) if !replace => {
            // A struct that is deleted as a whole leaves nothing behind.
            let gone = directive(new, path)? == Some(Directive::Delete);
            let merged = merge_map(std::mem::take(old), new, schema, path)?;
            if gone {
                target.remove(key);
            } else {
                *old = merged;
            }
        }
        (Some(Value::Array(old)), Value::Array(new)) if rule.is_some_and(|r| r.merge) => {
            let before = old.clone();
            let merge_key = rule.and_then(|r| r.key.as_deref());
            let items = schema.and_then(View::items);
            merge_list(old, new, items, merge_key, path)?;
            if let Some(order) = order {
                reorder(old, &before, order, merge_key);
            }
        }
        _ => {
            target.insert(key.to_owned(), plain(value));
        }
    }
    Ok(())
}

fn merge_list(
    target: &mut Vec<Value>,
    patch: &[Value],
    items: Option<View<'_>>,
    merge_key: Option<&str>,
    path: &mut String,
) -> Result<(), PatchError> {
    let Some(merge_key) = merge_key else {
        let mut known: BTreeSet<String> = target.iter().map(Value::to_string).collect();
        for value in patch {
            if known.insert(value.to_string()) {
                target.push(value.clone());
            }
        }
        return Ok(());
    };
    let len = path.len();
    let mut replaces = false;
    for value in patch {
        if let Value::Object(map) = value {
            replaces |= directive(map, path)? == Some(Directive::Replace);
        }
    }
    if replaces {
        *target = patch
            .iter()
            .filter(|item| item.get(DIRECTIVE).is_none())
            .map(plain)
            .collect();
        return Ok(());
    }
    // Deleted elements leave a hole until the end, so that places stay valid.
    let mut slots: Vec<Option<Value>> = std::mem::take(target).into_iter().map(Some).collect();
    let mut places: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (place, item) in slots.iter().flatten().enumerate() {
        places
            .entry(id_of(item, Some(merge_key)))
            .or_default()
            .push(place);
    }
    for (i, value) in patch.iter().enumerate() {
        push_index(path, i);
        let Value::Object(map) = value else {
            return Err(PatchError::WrongShape {
                path: path.clone(),
                expected: "an object",
            });
        };
        if map.get(merge_key).is_none() {
            return Err(PatchError::NoMergeKey {
                path: path.clone(),
                element: value.to_string().chars().take(200).collect(),
                key: merge_key.to_owned(),
            });
        }
        let id = id_of(value, Some(merge_key));
        let delete = directive(map, path)? == Some(Directive::Delete);
        let known = places.get(&id).map(Vec::as_slice).unwrap_or_default();
        if delete {
            for place in known {
                slots[*place] = None;
            }
            places.remove(&id);
        } else if let Some(Some(Value::Object(old))) = known.first().map(|p| &mut slots[*p]) {
            *old = merge_map(std::mem::take(old), map, items, path)?;
        } else {
            places.insert(id, vec![slots.len()]);
            slots.push(Some(plain(value)));
        }
        path.truncate(len);
    }
    target.extend(slots.into_iter().flatten());
    Ok(())
}

/// What tells an element of a merged list from the others.
fn id_of(item: &Value, merge_key: Option<&str>) -> String {
    match merge_key {
        Some(key) => item.get(key).map(Value::to_string).unwrap_or_default(),
        None => item.to_string(),
    }
}

/// Puts the elements that `order` names into that order; the others keep their place
/// relative to the elements that were there before.
fn reorder(list: &mut Vec<Value>, before: &[Value], order: &[Value], merge_key: Option<&str>) {
    let wanted = places(order.iter().map(|item| id_of(item, merge_key)));
    let before = places(before.iter().map(|item| id_of(item, merge_key)));
    let (mut named, others): (Vec<_>, Vec<_>) = std::mem::take(list)
        .into_iter()
        .map(|item| (id_of(&item, merge_key), item))
        .partition(|(id, _)| wanted.contains_key(id));
    named.sort_by_key(|(id, _)| wanted.get(id));
    *list = interleave(named, others, &before, New::First);
}

fn order_of<'a>(
    patch: &'a Map<String, Value>,
    key: &str,
    path: &str,
) -> Result<Option<&'a [Value]>, PatchError> {
    match patch.get(&format!("{ORDER}{key}")) {
        None => Ok(None),
        Some(order) => list_of(order, path, ORDER).map(Some),
    }
}

fn list_of<'a>(value: &'a Value, path: &str, key: &str) -> Result<&'a [Value], PatchError> {
    match value {
        Value::Array(list) => Ok(list),
        _ => Err(PatchError::WrongShape {
            path: format!("{path}/{key}"),
            expected: "a list",
        }),
    }
}

fn is_directive(key: &str) -> bool {
    key == DIRECTIVE || key == RETAIN || key.starts_with(ORDER) || key.starts_with(DELETE)
}

/// The value without directives and nulls: what a patch adds where nothing was.
fn plain(value: &Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(plain_map(map)),
        Value::Array(list) => Value::Array(
            list.iter()
                .filter(|item| item.get(DIRECTIVE).and_then(Value::as_str) != Some("delete"))
                .map(plain)
                .collect(),
        ),
        other => other.clone(),
    }
}

fn plain_map(map: &Map<String, Value>) -> Map<String, Value> {
    map.iter()
        .filter(|(key, value)| !is_directive(key) && !value.is_null())
        .map(|(key, value)| (key.clone(), plain(value)))
        .collect()
}
