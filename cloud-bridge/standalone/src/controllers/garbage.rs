//! Owners and what they own: dependents go with their last owner, foreground deletion waits
//! for them, orphaning lets them go on alone.

use super::{delete, update};
use crate::error::Result;
use crate::meta::{array, finalizers, is_deleting, metadata, remove_finalizer, text, uid};
use crate::ops::Api;
use crate::registry::{EVENTS, Snapshot};
use crate::store::{Event, EventKind, Key, Packed};
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";

/// What goes may have owned something; what comes may be owned by something gone.
pub fn concerns(event: &Event) -> bool {
    let object = &event.object;
    event.kind == EventKind::Deleted && &*event.key.kind != EVENTS
        || event.kind == EventKind::Added && !object.owners.is_empty()
        || object.deleting
            && finalizers(&object.unpack().value)
                .iter()
                .any(|f| matches!(*f, FOREGROUND | ORPHAN))
}

type Entry = (Key, Arc<Packed>);

pub async fn pass(api: Arc<Api>) -> Result<()> {
    let all: Vec<Entry> = api.store.everything().await?;
    let now = api.now();
    let uids: HashSet<&str> = all.iter().map(|(_, o)| &*o.uid).collect();
    let mut dependents: HashMap<&str, Vec<&Entry>> = HashMap::new();
    for entry in &all {
        for owner in &entry.1.owners {
            dependents.entry(owner).or_default().push(entry);
        }
    }
    for entry in &all {
        let object = &entry.1;
        if !object.owners.iter().all(|owner| uids.contains(&**owner)) {
            dependent(&api, &now, &uids, entry).await?;
        }
        if object.deleting {
            let owned = dependents.get(&*object.uid).map_or(&[][..], Vec::as_slice);
            owner(&api, &now, entry, owned).await?;
        }
    }
    Ok(())
}

/// Whether an owner reference points to something that is there. What this server does not
/// know the kind of cannot be missing.
fn stands(now: &Snapshot, uids: &HashSet<&str>, owner: &Value) -> bool {
    let api_version = text(owner, "/apiVersion");
    let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
    uids.contains(text(owner, "/uid"))
        || now.by_kind(group, version, text(owner, "/kind")).is_none()
}

async fn dependent(
    api: &Api,
    now: &Snapshot,
    uids: &HashSet<&str>,
    (key, object): &Entry,
) -> Result<()> {
    let Some(resource) = now.by_storage(&key.kind) else {
        return Ok(());
    };
    let object = &object.unpack();
    let owners = array(&object.value, "/metadata/ownerReferences");
    let gone: Vec<&str> = owners
        .iter()
        .filter(|o| !stands(now, uids, o))
        .map(|o| text(o, "/uid"))
        .collect();
    if gone.is_empty() {
        return Ok(());
    }
    if gone.len() == owners.len() {
        if !is_deleting(&object.value) {
            delete(api, resource, object).await?;
        }
        return Ok(());
    }
    update(api, resource, object, |object| disown(object, &gone)).await
}

fn disown(object: &mut Value, gone: &[&str]) {
    let metadata = metadata(object);
    if let Some(owners) = metadata
        .get_mut("ownerReferences")
        .and_then(Value::as_array_mut)
    {
        owners.retain(|o| !gone.contains(&text(o, "/uid")));
        if owners.is_empty() {
            metadata.remove("ownerReferences");
        }
    }
}

async fn owner(api: &Api, now: &Snapshot, (key, object): &Entry, owned: &[&Entry]) -> Result<()> {
    let Some(resource) = now.by_storage(&key.kind) else {
        return Ok(());
    };
    let object = &object.unpack();
    let own = uid(&object.value);
    let waits_for = finalizers(&object.value);
    if waits_for.contains(&ORPHAN) {
        for (key, dependent) in owned {
            if let Some(resource) = now.by_storage(&key.kind) {
                let dependent = dependent.unpack();
                update(api, resource, &dependent, |object| disown(object, &[own])).await?;
            }
        }
        return update(api, resource, object, |object| {
            remove_finalizer(object, ORPHAN);
        })
        .await;
    }
    if waits_for.contains(&FOREGROUND) {
        let mut blocked = false;
        for (key, dependent) in owned {
            let dependent = dependent.unpack();
            blocked |= array(&dependent.value, "/metadata/ownerReferences")
                .iter()
                .any(|o| text(o, "/uid") == own && o["blockOwnerDeletion"] == json!(true));
            let Some(resource) = now.by_storage(&key.kind) else {
                continue;
            };
            if !is_deleting(&dependent.value) {
                delete(api, resource, &dependent).await?;
            }
        }
        // With dependents gone or going, the next pass finds none that block.
        if !blocked {
            return update(api, resource, object, |object| {
                remove_finalizer(object, FOREGROUND);
            })
            .await;
        }
    }
    Ok(())
}
