//! Node lifecycle: a node whose lease is not renewed in time is unknown and tainted, and
//! Events say when it came, went silent and was ready again.
//!
//! Time is measured on this server's monotonic clock from when a renewal was *seen*, so a
//! node's wall clock, or a jump of ours, makes nobody unready. A restart gives every node
//! the whole grace period again.

use super::news::{self, News};
use super::{taints, update};
use crate::error::Result;
use crate::meta::{condition, name, text};
use crate::ops::Api;
use crate::registry::{LEASES, NODES, Resource};
use crate::store::{Key, Obj};
use crate::time;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

const LEASE_NAMESPACE: &str = "kube-node-lease";

/// The last sign of life of one node: what it said, and when that was seen.
struct Sign {
    uid: String,
    said: String,
    seen: Instant,
    ready: bool,
}

pub async fn run(api: Arc<Api>, grace: Duration) {
    let period = (grace / 8).clamp(Duration::from_millis(50), Duration::from_secs(5));
    let mut signs = HashMap::new();
    let mut committed = api.store.committed();
    loop {
        if let Err(error) = pass(&api, grace, &mut signs).await {
            tracing::debug!("node lifecycle: {error}");
        }
        // A change may be a node that came back: its taints go at once.
        tokio::select! {
            () = api.stop.cancelled() => return,
            () = tokio::time::sleep(period) => {}
            () = node_changed(&api, &mut committed) => {}
        }
    }
}

async fn node_changed(api: &Api, committed: &mut tokio::sync::watch::Receiver<u64>) {
    let mut seen = *committed.borrow_and_update();
    loop {
        if committed.changed().await.is_err() {
            return std::future::pending().await;
        }
        match api.store.events(NODES, seen) {
            Ok((events, reached)) if events.is_empty() => seen = reached,
            _ => return,
        }
    }
}

async fn pass(api: &Api, grace: Duration, signs: &mut HashMap<String, Sign>) -> Result<()> {
    let now = api.now();
    let Some(resource) = now.find("", "v1", "nodes") else {
        return Ok(());
    };
    let (nodes, _) = api.store.list(NODES, None, None).await?;
    let nodes: Vec<Obj> = nodes.iter().map(|n| n.unpack()).collect();
    let leases: Arc<str> = LEASES.into();
    signs.retain(|known, _| nodes.iter().any(|n| name(&n.value) == known));
    for node in &nodes {
        let own = name(&node.value).to_owned();
        let lease = api
            .store
            .get(&Key::new(&leases, LEASE_NAMESPACE, &own))
            .await?;
        let heartbeat =
            condition(&node.value, "Ready").map_or("", |c| text(c, "/lastHeartbeatTime"));
        let renewed = lease
            .as_ref()
            .map_or("", |l| text(&l.value, "/spec/renewTime"));
        let said = format!("{renewed} {heartbeat}");
        let uid = text(&node.value, "/metadata/uid").to_owned();
        let sign = signs.get(&own).filter(|sign| sign.uid == uid);
        // A node that is new to this server has the whole grace period.
        let seen = match sign {
            Some(sign) if sign.said == said => sign.seen,
            _ => Instant::now(),
        };
        let silent = seen.elapsed() > grace;
        let ready = mind(api, resource, node, silent).await?;
        let news = match sign {
            None => Some("RegisteredNode"),
            Some(sign) if sign.ready && !ready => Some("NodeNotReady"),
            Some(sign) if !sign.ready && ready => Some("NodeReady"),
            Some(_) => None,
        };
        let sign = Sign {
            uid,
            said,
            seen,
            ready,
        };
        signs.insert(own, sign);
        // News that cannot be told must not keep a node from being minded.
        if let Some(reason) = news
            && let Err(error) = tell(api, node, reason).await
        {
            tracing::debug!("no event {reason}: {error}");
        }
    }
    Ok(())
}

/// Makes conditions and taints those of a node that is silent or not. Says whether it is ready.
async fn mind(api: &Api, resource: &Arc<Resource>, node: &Obj, silent: bool) -> Result<bool> {
    let ready = condition(&node.value, "Ready").is_some_and(|c| c["status"] == "True");
    if silent && ready {
        tracing::warn!("node {} is silent: not ready", name(&node.value));
    }
    update(api, resource, node, |node| {
        let now = time::now();
        if silent {
            taints::mark_silent(node, &now);
        }
        taints::set(node, &now);
    })
    .await?;
    Ok(ready && !silent)
}

/// The Events that people know from other clusters, word for word.
async fn tell(api: &Api, node: &Obj, reason: &str) -> Result<()> {
    let own = name(&node.value);
    let message = match reason {
        "RegisteredNode" => format!("Node {own} event: Registered Node {own} in Controller"),
        _ => format!("Node {own} status is now: {reason}"),
    };
    news::tell(
        api,
        &News {
            from: "node-controller",
            of: ("v1", "Node"),
            object: &node.value,
            reason,
            message: &message,
        },
    )
    .await
}
