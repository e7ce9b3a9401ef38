//! PATCH in its four formats, and server-side apply's creation of what is not there yet.

use super::body::{json, yaml};
use super::create::prepare_metadata;
use super::update::{check_fields, who};
use super::{Api, Body, Part, Target, WriteOptions, Written};
use crate::error::{ApiError, Result};
use crate::meta::{metadata, name};
use crate::patch::{self, ApplyError, PatchError};
use crate::schema::Cause;
use crate::schema::strict::Parsed;
use crate::store::Change;
use crate::time;
use http::StatusCode;
use serde_json::{Value, json};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchKind {
    Json,
    Merge,
    Strategic,
    Apply,
}

impl PatchKind {
    /// By media type; custom resources have no strategic merge.
    pub fn of(media: &str, custom: bool) -> Result<PatchKind> {
        const ALL: [&str; 4] = [
            "application/json-patch+json",
            "application/merge-patch+json",
            "application/strategic-merge-patch+json",
            "application/apply-patch+yaml",
        ];
        Ok(match media {
            "application/json-patch+json" => PatchKind::Json,
            "application/merge-patch+json" => PatchKind::Merge,
            "application/strategic-merge-patch+json" if !custom => PatchKind::Strategic,
            "application/apply-patch+yaml" => PatchKind::Apply,
            other => {
                let accepted: Vec<&str> = ALL
                    .into_iter()
                    .filter(|m| !custom || !m.contains("strategic"))
                    .collect();
                return Err(ApiError::unsupported_media_type(other, &accepted));
            }
        })
    }
}

impl Api {
    pub async fn patch(
        &self,
        target: Target<'_>,
        body: &Body,
        options: &WriteOptions,
    ) -> Result<Written> {
        let kind = PatchKind::of(&body.media, target.resource.is_custom())?;
        let parsed = match kind {
            PatchKind::Apply => yaml(&body.bytes)?,
            _ => json(&body.bytes)?,
        };
        if kind == PatchKind::Apply {
            return self.apply(target, parsed, options).await;
        }
        let mut warnings = Vec::new();
        let outcome = self
            .change(&target.key(), options.dry_run, |old| {
                let old = old.ok_or_else(|| ApiError::not_found(target.subject()))?;
                let api_version = target.resource.api_version();
                let served = target.resource.convert.to_served(&old.value, &api_version);
                let patched = match (kind, target.resource.schema()) {
                    (PatchKind::Json, _) => patch::json_patch(&served, &parsed.value),
                    (PatchKind::Strategic, Some(schema)) => {
                        patch::strategic_patch(&served, &parsed.value, schema)
                    }
                    _ => Ok(patch::merge_patch(&served, &parsed.value)),
                }
                .map_err(|error| patch_error(target, &error))?;
                let mut patched = Parsed {
                    value: patched,
                    duplicates: parsed.duplicates.clone(),
                };
                warnings = check_fields(target.resource, &mut patched, options.validation)?;
                self.next(target, old, patched.value, options)
            })
            .await?;
        self.written(target, outcome, warnings)
    }

    async fn apply(
        &self,
        target: Target<'_>,
        mut parsed: Parsed,
        options: &WriteOptions,
    ) -> Result<Written> {
        let resource = target.resource;
        let options = &WriteOptions {
            applied: true,
            ..options.clone()
        };
        if !options.manager_given {
            let cause = Cause::required("fieldManager", "is required for apply patch");
            return Err(ApiError::invalid(
                "meta.k8s.io",
                "PatchOptions",
                "",
                &[cause],
            ));
        }
        for (field, expected) in [
            ("apiVersion", &resource.api_version()),
            ("kind", &resource.kind),
        ] {
            // check_fields would fill them in, which is right for every body but this one.
            if parsed.value.get(field).is_none_or(|v| v == "") {
                return Err(ApiError::bad_request(format!(
                    "invalid object type: the configuration to apply has no {field}; here it is {expected:?}"
                )));
            }
        }
        let warnings = check_fields(resource, &mut parsed, options.validation)?;
        let mut config = parsed.value;
        match name(&config) {
            "" => {
                metadata(&mut config).insert("name".into(), json!(target.name));
            }
            sent if sent != target.name => {
                return Err(ApiError::bad_request(format!(
                    "metadata.name: Invalid value: {sent:?}: must be {:?}",
                    target.name
                )));
            }
            _ => {}
        }
        let api_version = resource.api_version();
        let now = time::now();
        let schema = resource
            .schema()
            .ok_or_else(|| ApiError::internal(format!("{} has no schema", resource.kind)))?;
        // Asked before the update because looking is asynchronous; the namespace's
        // controller sweeps up what slips in between.
        if self.store.get(&target.key()).await?.is_none() {
            self.admit(resource, target.ns, target.name).await?;
        }
        let outcome = self
            .change(&target.key(), options.dry_run, |old| {
                let who = who(resource, target.part, options, &api_version, &now);
                let served = old.map(|o| resource.convert.to_served(&o.value, &api_version));
                let mut applied =
                    patch::apply(served.as_deref(), &config, schema, &who, options.force)
                        .map_err(|error| apply_error(&error))?;
                match old {
                    Some(old) => self.next(target, old, applied, options),
                    None if target.part != Part::Main => Err(ApiError::not_found(target.subject())),
                    None => {
                        let managed = applied["metadata"]["managedFields"].take();
                        prepare_metadata(&mut applied, resource, target.ns)?;
                        if !managed.is_null() {
                            metadata(&mut applied).insert("managedFields".into(), managed);
                        }
                        Ok(Change::Put(self.new_object(resource, applied, options)?))
                    }
                }
            })
            .await?;
        self.written(target, outcome, warnings)
    }
}

fn patch_error(target: Target<'_>, error: &PatchError) -> ApiError {
    let message = error.to_string();
    match error.status() {
        413 => ApiError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "RequestEntityTooLarge",
            message,
        ),
        422 => {
            let mut refused = ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", message);
            refused.details = Some(json!({"name": target.name, "kind": target.resource.plural}));
            refused
        }
        _ => ApiError::bad_request(message),
    }
}

fn apply_error(error: &ApplyError) -> ApiError {
    let message = error.to_string();
    let ApplyError::Conflict(conflicts) = error else {
        return ApiError::bad_request(message);
    };
    let causes: Vec<Value> = conflicts
        .iter()
        .map(|c| {
            json!({
                "reason": "FieldManagerConflict",
                "message": format!("conflict with {}", c.owner()),
                "field": c.field,
            })
        })
        .collect();
    let mut refused = ApiError::new(StatusCode::CONFLICT, "Conflict", message);
    refused.details = Some(json!({"causes": causes}));
    refused
}
