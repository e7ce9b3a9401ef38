//! Subresources of pods that are more than a view: binding and eviction.

use super::{Api, DeleteOptions, Target};
use crate::error::{ApiError, Result};
use crate::meta::{is_deleting, map_at, text};
use crate::store::Change;
use crate::time;
use serde_json::{Value, json};

impl Api {
    /// Binds a pod to the node that `binding.target` names.
    pub async fn bind(&self, target: Target<'_>, binding: &Value, dry_run: bool) -> Result<()> {
        let node = text(binding, "/target/name");
        let kind = text(binding, "/target/kind");
        if node.is_empty() || !matches!(kind, "" | "Node") {
            return Err(ApiError::bad_request(format!(
                "target of a Binding must be a Node with a name, not {kind:?} {node:?}"
            )));
        }
        self.change(&target.key(), dry_run, |old| {
            let old = old.ok_or_else(|| ApiError::not_found(target.subject()))?;
            let has = text(&old.value, "/spec/nodeName");
            if !has.is_empty() {
                let why = format!("pod {} is already assigned to node {has:?}", target.name);
                return Err(ApiError::conflict(target.subject(), &why));
            }
            if is_deleting(&old.value) {
                let why = format!(
                    "pod {} is being deleted, cannot be assigned to a host",
                    target.name
                );
                return Err(ApiError::conflict(target.subject(), &why));
            }
            let mut pod = old.value.clone();
            map_at(&mut pod, "spec").insert("nodeName".into(), json!(node));
            let scheduled = json!({"type": "PodScheduled", "status": "True",
                "lastProbeTime": null, "lastTransitionTime": time::now()});
            let conditions = map_at(&mut pod, "status")
                .entry("conditions")
                .or_insert(json!([]));
            if let Some(list) = conditions.as_array_mut() {
                list.retain(|c| c["type"] != "PodScheduled");
                list.push(scheduled);
            }
            Ok(Change::Put(pod))
        })
        .await
        .map(|_| ())
    }

    /// Evicts a pod: a deletion with the options inside the Eviction.
    pub async fn evict(&self, target: Target<'_>, eviction: &Value, dry_run: bool) -> Result<()> {
        let mut options = DeleteOptions::parse(&eviction["deleteOptions"])?;
        options.dry_run |= dry_run;
        self.delete(target, &options).await.map(|_| ())
    }
}
