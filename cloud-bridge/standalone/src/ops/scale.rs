//! The `scale` subresource: the number of replicas, wherever an object keeps it.

use super::selector::Labels;
use super::{Api, PatchKind, Target, WriteOptions, body};
use crate::error::{ApiError, Result};
use crate::ops::Body;
use crate::patch;
use crate::registry::ScalePaths;
use serde_json::{Value, json};

/// `.spec.replicas` as a JSON pointer.
fn pointer(path: &str) -> String {
    path.replace('.', "/")
}

fn paths<'a>(target: &Target<'a>) -> Result<&'a ScalePaths> {
    target
        .resource
        .scale
        .as_ref()
        .ok_or_else(ApiError::no_such_resource)
}

/// The Scale of an object.
pub fn scale_of(target: Target<'_>, object: &Value) -> Result<Value> {
    let paths = paths(&target)?;
    let number = |path: &str| object.pointer(&pointer(path)).and_then(Value::as_i64);
    let mut metadata = json!({});
    for field in [
        "name",
        "namespace",
        "uid",
        "resourceVersion",
        "creationTimestamp",
    ] {
        if let Some(value) = object["metadata"].get(field) {
            metadata[field] = value.clone();
        }
    }
    let mut status = json!({"replicas": number(&paths.status_replicas).unwrap_or(0)});
    if let Some(selector) = paths
        .selector
        .as_deref()
        .and_then(|p| object.pointer(&pointer(p)))
    {
        status["selector"] = match selector {
            Value::Object(_) => json!(Labels::of_selector(selector)?.to_string()),
            text => text.clone(),
        };
    }
    Ok(json!({
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": metadata,
        "spec": {"replicas": number(&paths.spec_replicas).unwrap_or(0)},
        "status": status,
    }))
}

impl Api {
    /// PUT or PATCH of a Scale: writes the replicas where the object keeps them.
    pub async fn write_scale(
        &self,
        target: Target<'_>,
        sent: &Body,
        is_patch: bool,
        options: &WriteOptions,
    ) -> Result<Value> {
        let paths = paths(&target)?;
        let outcome = self
            .change(&target.key(), options.dry_run, |old| {
                let old = old.ok_or_else(|| ApiError::not_found(target.subject()))?;
                let now = scale_of(target, &old.value)?;
                let scale = if is_patch {
                    let change = body::json(&sent.bytes)?.value;
                    match PatchKind::of(&sent.media, true)? {
                        PatchKind::Json => patch::json_patch(&now, &change)
                            .map_err(|error| ApiError::bad_request(error.to_string()))?,
                        _ => patch::merge_patch(&now, &change),
                    }
                } else {
                    sent.parse()?.value
                };
                let replicas = scale["spec"]["replicas"].as_i64().unwrap_or(0);
                let mut new = old.value.clone();
                let mut at = &mut new;
                for step in paths.spec_replicas.split('.').filter(|s| !s.is_empty()) {
                    if !at.is_object() {
                        *at = json!({});
                    }
                    at = &mut at[step];
                }
                *at = json!(replicas);
                // A Scale that says which version it is of is written to no other.
                if let Some(version) = scale["metadata"].get("resourceVersion") {
                    new["metadata"]["resourceVersion"] = version.clone();
                }
                self.next(target, old, new, options)
            })
            .await?;
        let object = outcome
            .object
            .ok_or_else(|| ApiError::not_found(target.subject()))?;
        scale_of(target, &object.value)
    }
}
