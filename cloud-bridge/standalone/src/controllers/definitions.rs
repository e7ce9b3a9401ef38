//! Definitions of custom resources on their way out: their objects go first.

use super::{delete, sweep, update};
use crate::error::Result;
use crate::meta::{finalizers, is_deleting, remove_finalizer, text};
use crate::ops::Api;
use crate::registry::{CLEANUP, CRDS};
use crate::store::{Event, EventKind, Key};
use std::sync::Arc;

pub fn concerns(event: &Event) -> bool {
    let kind = &*event.key.kind;
    kind == CRDS || (event.kind == EventKind::Deleted && kind.contains('.'))
}

pub async fn pass(api: Arc<Api>) -> Result<()> {
    let now = api.now();
    let Some(crds) = now.find("apiextensions.k8s.io", "v1", "customresourcedefinitions") else {
        return Ok(());
    };
    let (all, _) = api.store.list(CRDS, None, None).await?;
    for definition in &all {
        let definition = &definition.unpack();
        let object = &definition.value;
        if !is_deleting(object) || !finalizers(object).contains(&CLEANUP) {
            continue;
        }
        let (group, plural) = (
            text(object, "/spec/group"),
            text(object, "/spec/names/plural"),
        );
        let kind = format!("{group}/{plural}");
        let mut left = 0;
        if let Some(resource) = now.by_storage(&kind) {
            for custom in &api.store.list(&kind, None, None).await?.0 {
                delete(&api, resource, &custom.unpack()).await?;
            }
            left = api.store.list(&kind, None, None).await?.0.len();
        }
        if left == 0 {
            update(&api, crds, definition, |object| {
                remove_finalizer(object, CLEANUP);
            })
            .await?;
        }
    }
    let used = api.store.places();
    let definitions: Arc<str> = CRDS.into();
    for (kind, ns) in &used {
        // A definition is called `plural.group`.
        let (group, plural) = kind.split_once('/').unwrap_or_default();
        let definition = Key::new(&definitions, "", &format!("{plural}.{group}"));
        let defined = api.store.get_packed(&definition).await?.is_some();
        if !defined && now.by_storage(kind).is_none_or(|r| r.is_custom()) {
            sweep(&api, kind, ns).await?;
        }
    }
    Ok(())
}
