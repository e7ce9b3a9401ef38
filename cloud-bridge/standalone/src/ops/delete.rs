//! DELETE of one object or of a collection: preconditions, grace periods, finalizers.

use super::update::may_go;
use super::{Api, ListOptions, Target};
use crate::error::{ApiError, Result};
use crate::meta::{add_finalizer, is_deleting, map_at, metadata, name, namespace, text, uid};
use crate::registry::{NAMESPACES, PODS, Resource};
use crate::store::{Change, Obj, Packed};
use crate::time;
use jiff::{Timestamp, ToSpan};
use serde_json::{Value, json};
use std::sync::Arc;

pub const FOREGROUND: &str = "foregroundDeletion";
pub const ORPHAN: &str = "orphan";

/// What a client says about a deletion, in the body or in the query.
#[derive(Clone, Debug, Default)]
pub struct DeleteOptions {
    pub dry_run: bool,
    pub grace_seconds: Option<i64>,
    pub propagation: Option<Propagation>,
    pub uid: Option<String>,
    pub resource_version: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    Background,
    Foreground,
    Orphan,
}

impl DeleteOptions {
    /// From a `DeleteOptions` object; `null` says nothing.
    pub fn parse(body: &Value) -> Result<DeleteOptions> {
        let words = |pointer: &str| {
            body.pointer(pointer)
                .and_then(Value::as_str)
                .map(ToOwned::to_owned)
        };
        let orphan = body["orphanDependents"].as_bool();
        let propagation = match (words("/propagationPolicy"), orphan) {
            (Some(word), _) => Some(Propagation::parse(&word)?),
            (None, Some(true)) => Some(Propagation::Orphan),
            (None, Some(false)) => Some(Propagation::Background),
            (None, None) => None,
        };
        let grace_seconds = body["gracePeriodSeconds"].as_i64();
        if grace_seconds.is_some_and(|s| !(-1..=i64::from(i32::MAX)).contains(&s)) {
            return Err(ApiError::bad_request(format!(
                "gracePeriodSeconds {} is out of range",
                body["gracePeriodSeconds"]
            )));
        }
        Ok(DeleteOptions {
            dry_run: body["dryRun"].as_array().is_some_and(|d| !d.is_empty()),
            grace_seconds,
            propagation,
            uid: words("/preconditions/uid"),
            resource_version: words("/preconditions/resourceVersion"),
        })
    }
}

impl Propagation {
    pub fn parse(word: &str) -> Result<Propagation> {
        match word {
            "Background" => Ok(Propagation::Background),
            "Foreground" => Ok(Propagation::Foreground),
            "Orphan" => Ok(Propagation::Orphan),
            _ => Err(ApiError::bad_request(format!(
                "invalid propagationPolicy {word:?}: allowed are Background, Foreground, Orphan"
            ))),
        }
    }
}

/// What a DELETE did.
#[derive(Debug)]
pub enum Deleted {
    /// Gone: this was its last state.
    Gone(Obj),
    /// Still there, waiting for a kubelet or finalizers.
    Waiting(Obj),
}

impl Api {
    pub async fn delete(&self, target: Target<'_>, options: &DeleteOptions) -> Result<Deleted> {
        let protected = ["default", "kube-system", "kube-public", "kube-node-lease"];
        if &*target.resource.storage == NAMESPACES && protected.contains(&target.name) {
            return Err(ApiError::forbidden(
                target.subject(),
                "this namespace may not be deleted",
            ));
        }
        let outcome = self
            .change(&target.key(), options.dry_run, |old| {
                let old = old.ok_or_else(|| ApiError::not_found(target.subject()))?;
                check_preconditions(target, &old.value, options)?;
                Ok(begin_delete(target.resource, &old.value, options))
            })
            .await?;
        let object = outcome
            .object
            .ok_or_else(|| ApiError::not_found(target.subject()))?;
        Ok(match outcome.deleted {
            true => Deleted::Gone(object),
            false => Deleted::Waiting(object),
        })
    }

    /// Deletes what a list would show; one that goes meanwhile is no error.
    pub async fn delete_collection(
        &self,
        resource: &Arc<Resource>,
        ns: Option<&str>,
        list: &ListOptions,
        options: &DeleteOptions,
    ) -> Result<Vec<Arc<Packed>>> {
        let listed = self.list(resource, ns, list).await?;
        for object in &listed.objects {
            let object = object.unpack().value;
            let (ns, name) = (namespace(&object), name(&object));
            match self.delete(Target::main(resource, ns, name), options).await {
                Err(error) if error.reason == "NotFound" => {}
                Err(error) => return Err(error),
                Ok(_) => {}
            }
        }
        Ok(listed.objects)
    }
}

fn check_preconditions(target: Target<'_>, old: &Value, options: &DeleteOptions) -> Result<()> {
    for (what, wanted, has) in [
        ("UID", &options.uid, uid(old)),
        (
            "ResourceVersion",
            &options.resource_version,
            text(old, "/metadata/resourceVersion"),
        ),
    ] {
        if let Some(wanted) = wanted.as_deref().filter(|wanted| *wanted != has) {
            let why = format!(
                "Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {has}"
            );
            return Err(ApiError::conflict(target.subject(), &why));
        }
    }
    Ok(())
}

/// How long a pod may take to end. Who runs nowhere, or has ended, needs no time.
fn grace(resource: &Resource, object: &Value, options: &DeleteOptions) -> i64 {
    if &*resource.storage != PODS {
        return 0;
    }
    let bound = !text(object, "/spec/nodeName").is_empty();
    let ended = matches!(text(object, "/status/phase"), "Succeeded" | "Failed");
    if !bound || ended {
        return 0;
    }
    let wanted = options
        .grace_seconds
        .filter(|s| *s >= 0)
        .or_else(|| object["spec"]["terminationGracePeriodSeconds"].as_i64())
        .unwrap_or(30);
    wanted.max(0)
}

/// The first step of a deletion: at once, or a mark and then waiting.
fn begin_delete(resource: &Resource, old: &Value, options: &DeleteOptions) -> Change {
    let mut new = old.clone();
    match options.propagation {
        Some(Propagation::Foreground) => add_finalizer(&mut new, FOREGROUND),
        Some(Propagation::Orphan) => add_finalizer(&mut new, ORPHAN),
        _ => {}
    }
    let grace = grace(resource, old, options);
    let left = old["metadata"]["deletionGracePeriodSeconds"].as_i64();
    let marked = is_deleting(old);
    if !marked || left.is_some_and(|left| grace < left) {
        let counted = old["metadata"]["generation"].as_i64();
        let at = Timestamp::now()
            .checked_add(grace.seconds())
            .unwrap_or_else(|_| Timestamp::now());
        let fields = metadata(&mut new);
        fields.insert("deletionTimestamp".into(), json!(time::seconds(at)));
        fields.insert("deletionGracePeriodSeconds".into(), json!(grace));
        if let (Some(generation), false) = (counted, marked) {
            fields.insert("generation".into(), json!(generation + 1));
        }
        if &*resource.storage == NAMESPACES {
            map_at(&mut new, "status").insert("phase".into(), json!("Terminating"));
        }
    }
    if may_go(resource, &new) {
        return Change::Delete(new);
    }
    match new == *old {
        true => Change::Keep,
        false => Change::Put(new),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Registry;

    fn change(plural: &str, object: &Value, options: &DeleteOptions) -> Change {
        let now = Registry::new().now();
        begin_delete(now.find("", "v1", plural).unwrap(), object, options)
    }

    #[test]
    fn a_bound_pod_waits_for_its_kubelet_and_an_unbound_one_goes() {
        let unbound = json!({"metadata": {"name": "p"}, "spec": {}});
        assert!(matches!(
            change("pods", &unbound, &DeleteOptions::default()),
            Change::Delete(_)
        ));
        let bound = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "e"}});
        let Change::Put(marked) = change("pods", &bound, &DeleteOptions::default()) else {
            panic!("not marked");
        };
        assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 30);
        assert!(matches!(
            change("pods", &marked, &DeleteOptions::default()),
            Change::Keep
        ));
        let now = DeleteOptions {
            grace_seconds: Some(0),
            ..DeleteOptions::default()
        };
        assert!(matches!(change("pods", &marked, &now), Change::Delete(_)));
    }

    #[test]
    fn finalizers_and_foreground_deletion_keep_an_object() {
        let kept = json!({"metadata": {"name": "c", "finalizers": ["e.io/f"]}});
        assert!(matches!(
            change("configmaps", &kept, &DeleteOptions::default()),
            Change::Put(_)
        ));
        let foreground = DeleteOptions {
            propagation: Some(Propagation::Foreground),
            ..DeleteOptions::default()
        };
        let plain = json!({"metadata": {"name": "c"}});
        let Change::Put(marked) = change("configmaps", &plain, &foreground) else {
            panic!("not marked");
        };
        assert_eq!(marked["metadata"]["finalizers"], json!([FOREGROUND]));
    }

    #[test]
    fn dry_run_in_the_body_is_heard() {
        let options = DeleteOptions::parse(&json!({"dryRun": ["All"]})).unwrap();
        assert!(options.dry_run);
        assert!(DeleteOptions::parse(&json!({"propagationPolicy": "Now"})).is_err());
        assert!(!DeleteOptions::parse(&Value::Null).unwrap().dry_run);
    }
}
