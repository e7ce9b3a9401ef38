//! From the Kubernetes API into the mirror: one task per list.
//!
//! After any error, and before a new list counts, the task makes sure that this is still the same cluster:
//! an emptied or exchanged one must not look like a lot of deletions.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::DynamicObject;
use kube::runtime::watcher::{self, Event};
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use edgebus_linkproto::Code;

use crate::away::no_answer;
use crate::cluster::{self, chain};
use crate::metrics::count;
use crate::mirror::Key;
use crate::record::Record;
use crate::rows::{self, DEVICE, ROWS, Scope};
use crate::seen::Seen;
use crate::shared::Shared;
use crate::vault::{ROLE_LABEL, ROLE_NODE, from_secret};
use crate::{device, node, place, record};

const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(2);
const FORBIDDEN_RETRY: Duration = Duration::from_secs(30);

/// Namespaces of a scope; None is all of them.
pub fn namespaces(config: &crate::Config, scope: Scope) -> Vec<Option<String>> {
    let list = match scope {
        Scope::Objects => &config.object_namespaces,
        Scope::Secrets => &config.secret_namespaces,
    };
    if list.is_empty() {
        vec![None]
    } else {
        list.iter().cloned().map(Some).collect()
    }
}

/// Starts every watch.
pub fn spawn(shared: &Arc<Shared>, tasks: &TaskTracker, stop: &CancellationToken) {
    for (index, row) in ROWS.iter().enumerate() {
        for (list, ns) in namespaces(&shared.config, row.scope)
            .into_iter()
            .enumerate()
        {
            let sink = Rows {
                shared: shared.clone(),
                row: index,
                list,
                ns: ns.clone(),
                seen: BTreeSet::new(),
            };
            let api = scoped(shared, ns.as_deref(), &row.resource());
            let mut config = watcher::Config::default();
            if let Some(selector) = row.selector() {
                config = config.labels(selector);
            }
            start(shared, tasks, stop, row.plural, api, config, sink);
        }
    }
    for ns in namespaces(&shared.config, Scope::Objects) {
        let resource = rows::device_status_resource();
        let api: Api<Seen> = match &ns {
            Some(ns) => Api::namespaced_with(shared.client.clone(), ns, &resource),
            None => Api::all_with(shared.client.clone(), &resource),
        };
        let sink = Statuses {
            shared: shared.clone(),
            ns,
            seen: BTreeSet::new(),
        };
        start(
            shared,
            tasks,
            stop,
            "devicestatuses",
            api,
            watcher::Config::default(),
            sink,
        );
    }
    let api: Api<DynamicObject> = Api::all_with(shared.client.clone(), &rows::node_resource());
    let sink = Nodes {
        shared: shared.clone(),
        seen: BTreeSet::new(),
    };
    let config = watcher::Config::default().labels(node::EDGE_LABEL);
    start(shared, tasks, stop, "nodes", api, config, sink);
    let api: Api<Secret> = Api::namespaced(shared.client.clone(), &shared.config.namespace);
    let config =
        watcher::Config::default().fields(&format!("metadata.name={}", record::REVOKED_SECRET));
    let sink = Revoked(shared.clone());
    start(
        shared,
        tasks,
        stop,
        "the list of revoked nodes",
        api.clone(),
        config,
        sink,
    );
    let config = watcher::Config::default().labels(&format!("{ROLE_LABEL}={ROLE_NODE}"));
    let sink = Records(shared.clone());
    start(shared, tasks, stop, "records of nodes", api, config, sink);
    let (judge, stop) = (place::run(shared.clone()), stop.clone());
    tasks.spawn(async move { stop.run_until_cancelled(judge).await });
}

fn scoped(
    shared: &Shared,
    ns: Option<&str>,
    resource: &kube::core::ApiResource,
) -> Api<DynamicObject> {
    match ns {
        Some(ns) => Api::namespaced_with(shared.client.clone(), ns, resource),
        None => Api::all_with(shared.client.clone(), resource),
    }
}

/// Where a watch's events go.
trait Sink<K>: Send + 'static {
    fn begin(&mut self);
    fn apply(&mut self, object: K, listing: bool);
    fn delete(&mut self, object: K);
    /// A whole list was read.
    fn listed(&mut self);
    fn failed(&mut self);
}

fn start<K, S>(
    shared: &Arc<Shared>,
    tasks: &TaskTracker,
    stop: &CancellationToken,
    what: &'static str,
    api: Api<K>,
    config: watcher::Config,
    sink: S,
) where
    K: kube::Resource + Clone + std::fmt::Debug + Send + serde::de::DeserializeOwned + 'static,
    S: Sink<K>,
{
    let (shared, stop) = (shared.clone(), stop.clone());
    tasks.spawn(async move {
        let work = follow(&shared, what, api, config, sink);
        tokio::select! {
            () = work => {}
            () = stop.cancelled() => {}
        }
    });
}

async fn follow<K, S>(
    shared: &Shared,
    what: &str,
    api: Api<K>,
    config: watcher::Config,
    mut sink: S,
) where
    K: kube::Resource + Clone + std::fmt::Debug + Send + serde::de::DeserializeOwned + 'static,
    S: Sink<K>,
{
    // Small pages: a page is in memory whole, what is kept of it is little.
    let config = config.page_size(100);
    let mut events = std::pin::pin!(watcher::watcher(api, config));
    let mut doubt = false;
    let mut delay = FIRST_RETRY;
    let mut told = String::new();
    while let Some(event) = events.next().await {
        let event = match event {
            Ok(event) => event,
            Err(error) => {
                count(&shared.metrics.watch_errors);
                sink.failed();
                doubt = true;
                let (code, away, why) = explain(&error);
                if away {
                    shared.api.missed(&why);
                } else if code == Some(410) {
                    // An API that was away a while remembers less: the list is read anew, nothing is wrong.
                    tracing::debug!("watching {what}: {why}");
                    delay = FIRST_RETRY;
                } else if why != told {
                    tracing::warn!("watching {what}: {why}; nothing is deleted because of it");
                    told = why;
                }
                let forbidden = code == Some(403);
                tokio::time::sleep(if forbidden { FORBIDDEN_RETRY } else { delay }).await;
                delay = (delay * 2).min(LAST_RETRY);
                continue;
            }
        };
        if (doubt || matches!(event, Event::InitDone)) && !same_cluster(shared).await {
            return;
        }
        if doubt {
            shared.api.answered();
        }
        doubt = false;
        delay = FIRST_RETRY;
        match event {
            Event::Init => sink.begin(),
            Event::InitApply(object) => sink.apply(object, true),
            Event::InitDone => {
                if !told.is_empty() {
                    tracing::info!("watching {what} again");
                    told.clear();
                }
                sink.listed();
            }
            Event::Apply(object) => sink.apply(object, false),
            Event::Delete(object) => sink.delete(object),
        }
    }
}

/// The API's code, if it answered, whether it did not, and what to tell people.
fn explain(error: &watcher::Error) -> (Option<u16>, bool, String) {
    let said = |status: &kube::core::Status| {
        let text = format!("{} {}", status.code, status.message);
        (Some(status.code), false, text)
    };
    let source = match error {
        watcher::Error::InitialListFailed(e)
        | watcher::Error::WatchStartFailed(e)
        | watcher::Error::WatchFailed(e) => e,
        watcher::Error::WatchError(status) => return said(status),
        watcher::Error::NoResourceVersion => return (None, false, error.to_string()),
    };
    match source {
        kube::Error::Api(status) if !no_answer(source) => said(status),
        other => (None, no_answer(other), chain(other)),
    }
}

/// Waits until the cluster says who it is. False: it is another one, and this life ends.
async fn same_cluster(shared: &Shared) -> bool {
    let mut delay = FIRST_RETRY;
    loop {
        match cluster::cluster_id(&shared.client).await {
            Ok(id) if id == shared.door.cluster_id => return true,
            Ok(id) => {
                if !shared.changed.is_cancelled() {
                    let was = &shared.door.cluster_id;
                    tracing::error!(
                        "cluster changed: the API belonged to {was} and now to {id}; starting over, nothing was deleted"
                    );
                    shared.changed.cancel();
                }
                return false;
            }
            Err(_) => tokio::time::sleep(delay).await,
        }
        delay = (delay * 2).min(LAST_RETRY);
    }
}

fn key_of(meta: &kube::core::ObjectMeta) -> Key {
    Key {
        ns: meta.namespace.clone().unwrap_or_default(),
        name: meta.name.clone().unwrap_or_default(),
    }
}

struct Rows {
    shared: Arc<Shared>,
    row: usize,
    list: usize,
    ns: Option<String>,
    seen: BTreeSet<Key>,
}

impl Rows {
    fn gone(&self, gone: Vec<(Key, String)>) {
        if ROWS.get(self.row).is_some_and(|row| row.kind == DEVICE) && !gone.is_empty() {
            device::collect_orphans(&self.shared);
        }
    }
}

impl Sink<DynamicObject> for Rows {
    fn begin(&mut self) {
        self.seen.clear();
    }

    fn apply(&mut self, object: DynamicObject, listing: bool) {
        let key = key_of(&object.metadata);
        let value = match serde_json::to_value(object) {
            Ok(value) => value,
            Err(error) => {
                tracing::warn!("{key:?} cannot be read: {error}");
                return;
            }
        };
        if listing {
            self.seen.insert(key.clone());
        }
        self.shared.mirror().apply(self.row, key, value);
    }

    fn delete(&mut self, object: DynamicObject) {
        let key = key_of(&object.metadata);
        let gone = self.shared.mirror().delete(self.row, &key);
        self.gone(gone.map(|uid| (key, uid)).into_iter().collect());
    }

    fn listed(&mut self) {
        let seen = std::mem::take(&mut self.seen);
        let gone = self
            .shared
            .mirror()
            .listed(self.row, self.list, self.ns.as_deref(), &seen);
        self.gone(gone);
        device::collect_orphans(&self.shared);
    }

    fn failed(&mut self) {
        self.shared.mirror().failed(self.row, self.list);
    }
}

struct Nodes {
    shared: Arc<Shared>,
    seen: BTreeSet<Key>,
}

impl Sink<DynamicObject> for Nodes {
    fn begin(&mut self) {
        self.seen.clear();
    }

    fn apply(&mut self, object: DynamicObject, listing: bool) {
        let key = key_of(&object.metadata);
        let value = serde_json::to_value(object).unwrap_or(Value::Null);
        self.shared.mirror().apply_node(&key.name, &value);
        if listing {
            self.seen.insert(key);
        }
    }

    fn delete(&mut self, object: DynamicObject) {
        let key = key_of(&object.metadata);
        self.shared.mirror().delete_node(&key.name);
    }

    fn listed(&mut self) {
        let seen = std::mem::take(&mut self.seen);
        self.shared.mirror().nodes_listed(&seen);
    }

    fn failed(&mut self) {}
}

struct Statuses {
    shared: Arc<Shared>,
    ns: Option<String>,
    seen: BTreeSet<Key>,
}

impl Sink<Seen> for Statuses {
    fn begin(&mut self) {
        self.seen.clear();
    }

    fn apply(&mut self, object: Seen, listing: bool) {
        let key = key_of(&object.metadata);
        self.shared
            .mirror()
            .apply_status(key.clone(), object.about());
        if listing {
            self.seen.insert(key);
        }
    }

    fn delete(&mut self, object: Seen) {
        self.shared
            .mirror()
            .delete_status(&key_of(&object.metadata));
    }

    fn listed(&mut self) {
        let seen = std::mem::take(&mut self.seen);
        self.shared
            .mirror()
            .statuses_listed(self.ns.as_deref(), &seen);
        device::collect_orphans(&self.shared);
    }

    fn failed(&mut self) {}
}

/// Cuts off nodes as soon as they are revoked.
struct Revoked(Arc<Shared>);

impl Sink<Secret> for Revoked {
    fn begin(&mut self) {}

    fn apply(&mut self, secret: Secret, _listing: bool) {
        let data = secret.data.unwrap_or_default();
        let Some(text) = data
            .get("nodes")
            .and_then(|bytes| std::str::from_utf8(&bytes.0).ok())
        else {
            return;
        };
        for node in record::names(text) {
            self.0
                .hub
                .kick(&node, Code::REVOKED, "this node was revoked");
        }
    }

    fn delete(&mut self, _secret: Secret) {}

    fn listed(&mut self) {}

    fn failed(&mut self) {}
}

/// Cuts off a link whose key was replaced, or whose node was forgotten.
struct Records(Arc<Shared>);

impl Sink<Secret> for Records {
    fn begin(&mut self) {}

    fn apply(&mut self, secret: Secret, _listing: bool) {
        if let Some(record) = Record::read(&from_secret(secret)) {
            self.0.hub.check(&record.node, |key| record.knows(key));
        }
    }

    fn delete(&mut self, secret: Secret) {
        if let Some(record) = Record::read(&from_secret(secret)) {
            self.0.hub.check(&record.node, |_| false);
        }
    }

    fn listed(&mut self) {}

    fn failed(&mut self) {}
}
