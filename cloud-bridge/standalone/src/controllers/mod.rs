//! What keeps objects in order when nobody asks: namespaces, definitions, owners, nodes,
//! old events. Each is level-triggered: it looks at what is, and a wake-up more or less
//! changes nothing.

mod bootstrap;
mod definitions;
mod events;
mod garbage;
mod namespaces;
mod news;
mod nodes;
mod taints;

pub use bootstrap::bootstrap;

use crate::config::Config;
use crate::error::{ApiError, Result};
use crate::meta::{name, namespace, uid};
use crate::ops::{Api, DeleteOptions, Target};
use crate::registry::Resource;
use crate::store::{Event, Obj};
use serde_json::Value;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::task::TaskTracker;

/// Starts all of them; they end with the API's `stop`.
pub fn start(api: &Arc<Api>, config: &Config, tasks: &TaskTracker) {
    let (grace, ttl) = (config.node_grace, config.event_ttl);
    keep(api, tasks, "namespaces", |api| {
        on_change(api, namespaces::concerns, namespaces::pass)
    });
    keep(api, tasks, "definitions", |api| {
        on_change(api, definitions::concerns, definitions::pass)
    });
    keep(api, tasks, "garbage", |api| {
        on_change(api, garbage::concerns, garbage::pass)
    });
    keep(api, tasks, "nodes", move |api| nodes::run(api, grace));
    keep(api, tasks, "events", move |api| events::run(api, ttl));
}

/// Runs a controller until the server stops; one that panics begins again.
fn keep<C, F>(api: &Arc<Api>, tasks: &TaskTracker, what: &'static str, controller: C)
where
    C: Fn(Arc<Api>) -> F + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let api = api.clone();
    tasks.spawn(async move {
        while let Err(error) = tokio::spawn(controller(api.clone())).await {
            tracing::error!("the controller of {what} failed and begins again: {error}");
            tokio::time::sleep(RETRY).await;
        }
    });
}

/// Changes that come together are looked at together.
const SETTLE: Duration = Duration::from_millis(20);
/// After an error, and now and then in any case.
const RETRY: Duration = Duration::from_secs(1);
const RESYNC: Duration = Duration::from_secs(300);

/// Runs `pass` at the start, after changes that concern it, and every few minutes.
async fn on_change<F>(api: Arc<Api>, concerns: fn(&Event) -> bool, pass: fn(Arc<Api>) -> F)
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    let mut committed = api.store.committed();
    let mut seen = *committed.borrow_and_update();
    let mut wait = match pass(api.clone()).await {
        Ok(()) => RESYNC,
        Err(_) => RETRY,
    };
    loop {
        let due = tokio::time::sleep(wait);
        tokio::pin!(due);
        loop {
            tokio::select! {
                () = api.stop.cancelled() => return,
                () = &mut due => break,
                changed = committed.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    if catch_up(&api, &mut seen, concerns) {
                        tokio::time::sleep(SETTLE).await;
                        break;
                    }
                }
            }
        }
        // What came while settling is covered by the pass that follows.
        committed.mark_unchanged();
        catch_up(&api, &mut seen, concerns);
        wait = match pass(api.clone()).await {
            Ok(()) => RESYNC,
            Err(error) => {
                tracing::debug!("a controller's pass failed and is repeated: {error}");
                RETRY
            }
        };
    }
}

/// Whether anything since `seen` concerns the controller; a gap always does.
fn catch_up(api: &Api, seen: &mut u64, concerns: fn(&Event) -> bool) -> bool {
    let mut concerned = false;
    loop {
        match api.store.all_events(*seen) {
            Ok((events, reached)) => {
                *seen = reached;
                concerned |= events.iter().any(concerns);
                if events.is_empty() {
                    return concerned;
                }
            }
            Err(_) => {
                *seen = *api.store.committed().borrow();
                return true;
            }
        }
    }
}

/// Deletes one object, if it still is that one.
async fn delete(api: &Api, resource: &Arc<Resource>, object: &Obj) -> Result<()> {
    let options = DeleteOptions {
        uid: Some(uid(&object.value).to_owned()),
        ..DeleteOptions::default()
    };
    let target = Target::main(resource, namespace(&object.value), name(&object.value));
    match api.delete(target, &options).await {
        Ok(_) => Ok(()),
        Err(error) if matches!(error.reason, "NotFound" | "Conflict") => Ok(()),
        Err(error) => Err(error),
    }
}

/// Changes one object as a controller does; one that is gone needs no change.
async fn update<F>(api: &Api, resource: &Arc<Resource>, object: &Obj, change: F) -> Result<()>
where
    F: Fn(&mut Value),
{
    use crate::ops::may_go;
    use crate::store::Change;
    let target = Target::main(resource, namespace(&object.value), name(&object.value));
    let wanted = uid(&object.value);
    let done = api
        .change(&target.key(), false, |old| {
            let Some(old) = old.filter(|o| uid(&o.value) == wanted) else {
                return Err(ApiError::not_found(target.subject()));
            };
            let mut new = old.value.clone();
            change(&mut new);
            if may_go(resource, &new) {
                return Ok(Change::Delete(new));
            }
            Ok(match new == old.value {
                true => Change::Keep,
                false => Change::Put(new),
            })
        })
        .await;
    match done {
        Ok(_) => Ok(()),
        Err(error) if error.reason == "NotFound" => Ok(()),
        Err(error) => Err(error),
    }
}

/// Removes what a create left behind that had been admitted just before its namespace or its
/// kind went. Nobody can reach such objects any more, so finalizers do not count.
async fn sweep(api: &Api, kind: &Arc<str>, ns: &str) -> Result<()> {
    use crate::store::{Change, Key};
    for object in &api.store.list(kind, Some(ns), None).await?.0 {
        let key = Key::new(kind, ns, name(&object.unpack().value));
        api.change(&key, false, |old| {
            Ok(match old {
                Some(old) => Change::Delete(old.value.clone()),
                None => Change::Keep,
            })
        })
        .await?;
    }
    Ok(())
}
