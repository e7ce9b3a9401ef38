//! PUT, and the part that every change of an existing object shares: what the client may
//! change through this endpoint, defaults, validation, generation, the end of objects whose
//! last finalizer goes.

use super::{Api, Body, Part, Target, WriteOptions, Written, names};
use crate::error::{ApiError, Result};
use crate::meta::{finalizers, is_deleting, metadata, name, text, uid};
use crate::patch::{self, Who};
use crate::registry::{CRDS, PODS, Resource, establish};
use crate::schema::Cause;
use crate::schema::strict::{self, FieldValidation, Parsed};
use crate::store::{Change, Obj};
use crate::time;
use serde_json::{Value, json};

impl Api {
    /// Replaces an object (or its status) with the body.
    pub async fn replace(
        &self,
        target: Target<'_>,
        body: &Body,
        options: &WriteOptions,
    ) -> Result<Written> {
        let mut parsed = body.parse()?;
        let warnings = check_fields(target.resource, &mut parsed, options.validation)?;
        let sent = name(&parsed.value);
        if sent != target.name {
            return Err(ApiError::bad_request(format!(
                "the name of the object ({sent}) does not match the name on the URL ({})",
                target.name
            )));
        }
        let outcome = self
            .change(&target.key(), options.dry_run, |old| {
                let old = old.ok_or_else(|| ApiError::not_found(target.subject()))?;
                self.next(target, old, parsed.value.clone(), options)
            })
            .await?;
        self.written(target, outcome, warnings)
    }

    pub(super) fn written(
        &self,
        target: Target<'_>,
        outcome: crate::store::Outcome,
        warnings: Vec<String>,
    ) -> Result<Written> {
        let stored = outcome
            .object
            .ok_or_else(|| ApiError::not_found(target.subject()))?;
        let api_version = target.resource.api_version();
        Ok(Written {
            object: target
                .resource
                .convert
                .to_served(&stored.value, &api_version)
                .into_owned(),
            created: outcome.created,
            warnings,
        })
    }

    /// What becomes of `old` when a client wants it to be `new` (in the served version).
    pub(super) fn next(
        &self,
        target: Target<'_>,
        old: &Obj,
        new: Value,
        options: &WriteOptions,
    ) -> Result<Change> {
        let resource = target.resource;
        let api_version = resource.api_version();
        check_identity(target, &old.value, &new, old.rev)?;
        let mut new = resource.convert.to_stored(new);
        let served_old = match resource.convert {
            crate::convert::Convert::Version => {
                resource.convert.to_served(&old.value, &api_version)
            }
            _ => std::borrow::Cow::Borrowed(&old.value),
        };
        let old = &*served_old;
        keep_server_metadata(&mut new, old);
        let mut new = limit_to(target, new, old);
        if target.part == Part::Main {
            (resource.hooks.update)(&mut new, old);
        }
        if let Some(schema) = resource.custom.as_ref().and_then(|c| c.schema.as_ref()) {
            schema.default(&mut new);
        }
        (resource.hooks.default)(&mut new);
        if &*resource.storage == CRDS {
            establish(&mut new, &self.now());
        }
        if new == *old {
            return Ok(Change::Keep);
        }
        validate(resource, &new, Some(old))?;
        if (resource.hooks.generation || resource.is_custom())
            && wanted_changed(resource, &new, old)
        {
            let generation = old["metadata"]["generation"].as_i64().unwrap_or(0) + 1;
            metadata(&mut new).insert("generation".into(), json!(generation));
        }
        let new = finish(resource, Some(old), new, target.part, options);
        if may_go(resource, &new) {
            return Ok(Change::Delete(new));
        }
        Ok(Change::Put(new))
    }
}

/// Whether an object that is being deleted has nothing left that keeps it.
pub(crate) fn may_go(resource: &Resource, object: &Value) -> bool {
    is_deleting(object)
        && finalizers(object).is_empty()
        && object
            .pointer("/spec/finalizers")
            .and_then(Value::as_array)
            .is_none_or(|f| f.is_empty() || &*resource.storage != crate::registry::NAMESPACES)
        // A pod with a grace period is removed by its kubelet.
        && (&*resource.storage != PODS
            || object["metadata"]["deletionGracePeriodSeconds"] == json!(0))
}

/// Checks `apiVersion`, `kind`, unknown and duplicate fields of a body, and drops what the
/// schema does not know. Returns the warnings.
pub(super) fn check_fields(
    resource: &Resource,
    parsed: &mut Parsed,
    mode: FieldValidation,
) -> Result<Vec<String>> {
    let api_version = resource.api_version();
    let Some(fields) = parsed.value.as_object_mut() else {
        return Err(ApiError::bad_request(format!(
            "the body must be a {} object",
            resource.kind
        )));
    };
    for (field, expected) in [("apiVersion", &api_version), ("kind", &resource.kind)] {
        match fields.get(field).and_then(Value::as_str) {
            None | Some("") => {
                fields.insert(field.into(), json!(expected));
            }
            Some(sent) if sent == expected => {}
            Some(sent) => {
                let what = if field == "kind" {
                    "kind"
                } else {
                    "API version"
                };
                return Err(ApiError::bad_request(format!(
                    "the {what} in the data ({sent}) does not match the expected {what} ({expected})"
                )));
            }
        }
    }
    for field in ["metadata", "spec", "status"] {
        let wrong = |v: &Value| !v.is_object() && !v.is_null();
        if fields.get(field).is_some_and(wrong) && (field == "metadata" || !resource.is_custom()) {
            return Err(ApiError::bad_request(format!(
                "{} in version {:?} cannot be handled as a {}: {field} must be an object",
                resource.kind, resource.version, resource.kind
            )));
        }
    }
    let Some(schema) = resource.schema() else {
        return Ok(Vec::new());
    };
    let warnings = strict::check(
        &resource.kind,
        &resource.version,
        parsed,
        schema,
        mode,
        !resource.is_custom(),
    )
    .map_err(|error| ApiError::bad_request(error.to_string()))?;
    schema.prune(&mut parsed.value);
    if !resource.is_custom() {
        drop_nulls(&mut parsed.value);
    }
    Ok(warnings)
}

/// A null in a built-in kind is a field that is not set.
fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, v| !v.is_null());
            fields.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

fn check_identity(target: Target<'_>, old: &Value, new: &Value, rev: u64) -> Result<()> {
    let ns = text(new, "/metadata/namespace");
    if !ns.is_empty() && ns != target.ns {
        return Err(ApiError::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    let sent = name(new);
    if sent != target.name {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({sent}) does not match the name on the URL ({})",
            target.name
        )));
    }
    let version = text(new, "/metadata/resourceVersion");
    if !version.is_empty() && version != rev.to_string() {
        return Err(ApiError::stale(target.subject()));
    }
    let sent = uid(new);
    if !sent.is_empty() && sent != uid(old) {
        let why = format!(
            "Precondition failed: UID in precondition: {sent}, UID in object meta: {}",
            uid(old)
        );
        return Err(ApiError::conflict(target.subject(), &why));
    }
    Ok(())
}

fn keep_server_metadata(new: &mut Value, old: &Value) {
    let kept = &old["metadata"];
    let fields = metadata(new);
    for field in [
        "name",
        "namespace",
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
        "selfLink",
        "generateName",
        "resourceVersion",
    ] {
        match kept.get(field) {
            Some(value) => fields.insert(field.into(), value.clone()),
            None => fields.remove(field),
        };
    }
    // Leaving the record out keeps it; an empty list clears it.
    if !fields.contains_key("managedFields")
        && let Some(managed) = kept.get("managedFields")
    {
        fields.insert("managedFields".into(), managed.clone());
    }
}

/// Takes from `new` only what this endpoint writes.
fn limit_to(target: Target<'_>, mut new: Value, old: &Value) -> Value {
    let copy = |into: &mut Value, from: &Value, field: &str| {
        if let Some(fields) = into.as_object_mut() {
            match from.get(field) {
                Some(value) => fields.insert(field.into(), value.clone()),
                None => fields.remove(field),
            };
        }
    };
    match target.part {
        Part::Main if target.resource.status => {
            copy(&mut new, old, "status");
            new
        }
        Part::Main => new,
        Part::Status => {
            let mut limited = old.clone();
            copy(&mut limited, &new, "status");
            if target.resource.is_custom() {
                copy(&mut limited["metadata"], &new["metadata"], "managedFields");
            } else {
                copy(&mut limited, &new, "metadata");
            }
            limited
        }
        Part::Finalize => {
            let mut limited = old.clone();
            copy(&mut limited["spec"], &new["spec"], "finalizers");
            limited
        }
    }
}

/// Whether anything changed that a controller has to act on.
fn wanted_changed(resource: &Resource, new: &Value, old: &Value) -> bool {
    let differs = |a: &Value, b: &Value| {
        a.as_object().into_iter().flatten().any(|(field, value)| {
            field != "metadata"
                && !(resource.status && field == "status")
                && b.get(field) != Some(value)
        })
    };
    differs(new, old) || differs(old, new)
}

/// Everything that is wrong with an object about to be stored.
pub(super) fn validate(resource: &Resource, object: &Value, old: Option<&Value>) -> Result<()> {
    let mut causes = names::check(resource, object);
    if let Some(old) = old.filter(|old| is_deleting(old)) {
        let before = finalizers(old);
        let added: Vec<&str> = finalizers(object)
            .into_iter()
            .filter(|f| !before.contains(f))
            .collect();
        if !added.is_empty() {
            causes.push(Cause::forbidden(
                "metadata.finalizers",
                &format!(
                    "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                    added.iter().map(|f| format!("{f:?}")).collect::<Vec<_>>().join(", ")
                ),
            ));
        }
    }
    match (&resource.custom, resource.schema()) {
        (Some(_), Some(schema)) => causes.extend(schema.validate(object)),
        (None, Some(schema)) if resource.convert != crate::convert::Convert::NewEvent => {
            schema
                .check_types(object)
                .map_err(|error| ApiError::bad_request(error.to_string()))?;
        }
        _ => {}
    }
    causes.extend((resource.hooks.validate)(object, old));
    match causes.is_empty() {
        true => Ok(()),
        false => Err(ApiError::invalid(
            &resource.group,
            &resource.kind,
            name(object),
            &causes,
        )),
    }
}

/// Records who wrote what.
pub(super) fn finish(
    resource: &Resource,
    old: Option<&Value>,
    mut new: Value,
    part: Part,
    options: &WriteOptions,
) -> Value {
    if options.applied {
        return new;
    }
    let api_version = resource.api_version();
    let now = time::now();
    if let Some(schema) = resource.schema() {
        let who = who(resource, part, options, &api_version, &now);
        patch::track_update(old, &mut new, schema, &who);
    }
    new
}

pub(super) fn who<'a>(
    resource: &Resource,
    part: Part,
    options: &'a WriteOptions,
    api_version: &'a str,
    now: &'a str,
) -> Who<'a> {
    Who {
        manager: &options.manager,
        api_version,
        subresource: match part {
            Part::Main => "",
            Part::Status => "status",
            Part::Finalize => "finalize",
        },
        now,
        part: match part {
            Part::Main if resource.status => patch::Part::WithoutStatus,
            Part::Status => patch::Part::Status,
            _ => patch::Part::Whole,
        },
    }
}
