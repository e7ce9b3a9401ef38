//! Namespaces: furnished while they live, emptied before they go.

use super::bootstrap::furnish;
use super::{delete, sweep, update};
use crate::error::Result;
use crate::meta::{is_deleting, name};
use crate::ops::Api;
use crate::registry::NAMESPACES;
use crate::store::{Event, EventKind, Key};
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Changes of namespaces, what every namespace must have, and whatever goes (it may have been
/// the last thing in a namespace on its way out).
pub fn concerns(event: &Event) -> bool {
    &*event.key.kind == NAMESPACES || event.kind == EventKind::Deleted
}

pub async fn pass(api: Arc<Api>) -> Result<()> {
    let now = api.now();
    let Some(namespaces) = now.find("", "v1", "namespaces") else {
        return Ok(());
    };
    let (all, _) = api.store.list(NAMESPACES, None, None).await?;
    for namespace in &all {
        let namespace = &namespace.unpack();
        let ns = name(&namespace.value);
        if !is_deleting(&namespace.value) {
            furnish(&api, ns).await?;
            continue;
        }
        let kinds: BTreeSet<Arc<str>> = now
            .rows()
            .filter(|r| r.namespaced && r.allows("delete"))
            .map(|r| r.storage.clone())
            .collect();
        let mut left = 0;
        for kind in kinds {
            let Some(resource) = now.by_storage(&kind) else {
                continue;
            };
            let (objects, _) = api.store.list(&kind, Some(ns), None).await?;
            for object in &objects {
                delete(&api, resource, &object.unpack()).await?;
            }
            // Pods wait for their kubelet, others for their finalizers.
            left += api.store.list(&kind, Some(ns), None).await?.0.len();
        }
        if left == 0 {
            update(&api, namespaces, namespace, |object| {
                if let Some(list) = object["spec"]["finalizers"].as_array_mut() {
                    list.retain(|f| *f != json!("kubernetes"));
                }
            })
            .await?;
        }
    }
    let used = api.store.places();
    let cluster = Key::new(&NAMESPACES.into(), "", "");
    for (kind, ns) in &used {
        let namespace = Key {
            name: ns.clone(),
            ..cluster.clone()
        };
        if !ns.is_empty() && api.store.get_packed(&namespace).await?.is_none() {
            sweep(&api, kind, ns).await?;
        }
    }
    Ok(())
}
