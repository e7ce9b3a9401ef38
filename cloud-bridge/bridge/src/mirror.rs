//! What the cluster wants of each node, as far as it is known: pure state, fed by watches, read by links.
//!
//! A change marks topics of the nodes it concerns as dirty; each node's link then looks up what is true *now*.
//! So nothing queues here, bursts collapse, and a slow link costs the memory of a set of names.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use edgebus_linkproto::Hash;
use serde_json::Value;
use tokio::sync::Notify;

use crate::rows::{DEVICE, MODEL, Place, ROWS};

mod nodes;
mod read;

use read::{read, text};
pub use read::{summary, topic};

/// Namespace (empty for cluster-scoped objects) and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    pub ns: String,
    pub name: String,
}

impl Key {
    pub fn new(ns: &str, name: &str) -> Key {
        Key {
            ns: ns.to_owned(),
            name: name.to_owned(),
        }
    }
}

/// The nodes that an object goes to by itself; models go where their devices are.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
enum Nodes {
    #[default]
    None,
    Some(BTreeSet<String>),
    All,
}

impl Nodes {
    fn has(&self, node: &str) -> bool {
        match self {
            Nodes::None => false,
            Nodes::Some(nodes) => nodes.contains(node),
            Nodes::All => true,
        }
    }
}

#[derive(Debug)]
struct Object {
    uid: String,
    nodes: Nodes,
    /// Of a device.
    model: Option<Key>,
    /// Of a device: what its status in the API says, in short.
    summary: Hash,
    /// Of a device: what its status says is wrong with its node.
    told: String,
    body: Bytes,
    hash: Hash,
}

/// How far a list has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
enum Listed {
    #[default]
    Pending,
    /// Forbidden or failed: unknown, never empty.
    Failed,
    Done,
}

#[derive(Debug, Default)]
struct Kind {
    objects: BTreeMap<Key, Object>,
    /// One per watch.
    lists: Vec<Listed>,
}

/// One object for one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub topic: String,
    pub uid: String,
    pub hash: Hash,
    pub body: Bytes,
}

/// A device as the API has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceRef {
    pub uid: String,
    pub nodes: BTreeSet<String>,
    pub summary: Hash,
}

/// Whether a device's node is there, and what the device says about that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    pub uid: String,
    /// `spec.nodeName`.
    pub node: String,
    /// There is an edge node of that name.
    pub known: bool,
    /// What the device's status says is wrong with it; empty for nothing.
    pub told: String,
}

/// A Node as the API has it.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct NodeRef {
    pub uid: String,
    pub labels: BTreeMap<String, String>,
    /// Status of its condition Ready.
    pub ready: String,
}

/// A DeviceStatus as the API has it.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct StatusRef {
    pub uid: String,
    /// uid of the Device it belongs to.
    pub owner: String,
    /// uid and hash of the twin it was made from.
    pub seen: Option<(String, Hash)>,
}

/// What a link has to look at again.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Dirty {
    /// Objects, by row.
    pub objects: BTreeSet<(usize, Key)>,
    /// Kinds of which the whole list has become known.
    pub lists: BTreeSet<usize>,
    /// The node's own object.
    pub node: bool,
    /// DeviceStatuses that are gone or were made from another twin.
    pub statuses: BTreeSet<Key>,
}

/// From the mirror to one link.
#[derive(Debug, Default)]
pub struct Feed {
    dirty: Mutex<Dirty>,
    pub changed: Notify,
}

impl Feed {
    pub fn take(&self) -> Dirty {
        std::mem::take(&mut *self.dirty.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn mark(&self, change: impl FnOnce(&mut Dirty)) {
        change(&mut self.dirty.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_one();
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Mirror {
    kinds: Vec<Kind>,
    /// Devices of each model, by node.
    users: BTreeMap<Key, BTreeMap<String, usize>>,
    nodes: BTreeMap<String, (NodeRef, Bytes, Hash)>,
    nodes_listed: bool,
    statuses: BTreeMap<Key, StatusRef>,
    /// Namespaces (None: all) whose DeviceStatuses have been listed, and how many lists there are.
    status_lists: BTreeSet<Option<String>>,
    status_lists_wanted: usize,
    feeds: BTreeMap<String, Arc<Feed>>,
    /// Devices that changed, or whose node came or went.
    unsure: BTreeSet<Key>,
    unsure_changed: Arc<Notify>,
}

fn row_of(kind: &str) -> usize {
    ROWS.iter()
        .position(|row| row.kind == kind)
        .unwrap_or(ROWS.len())
}

impl Mirror {
    /// `lists`: how many watches each row has; `status_lists`: how many the DeviceStatuses.
    pub fn new(lists: &[usize], status_lists: usize) -> Mirror {
        let kinds = lists.iter().map(|n| Kind {
            lists: vec![Listed::Pending; *n],
            ..Kind::default()
        });
        Mirror {
            kinds: kinds.collect(),
            status_lists_wanted: status_lists,
            ..Mirror::default()
        }
    }

    /// From now on changes for this node go to that feed.
    pub fn subscribe(&mut self, node: &str, feed: Arc<Feed>) {
        self.feeds.insert(node.to_owned(), feed);
    }

    pub fn unsubscribe(&mut self, node: &str, feed: &Arc<Feed>) {
        if self
            .feeds
            .get(node)
            .is_some_and(|there| Arc::ptr_eq(there, feed))
        {
            self.feeds.remove(node);
        }
    }

    /// An object is there, or changed.
    pub fn apply(&mut self, row: usize, key: Key, object: Value) {
        let Some((kind, about)) = self.kinds.get_mut(row).zip(ROWS.get(row)) else {
            return;
        };
        let new = read(about, &key, object);
        if kind.objects.get(&key).is_some_and(|old| {
            old.uid == new.uid
                && old.hash == new.hash
                && old.nodes == new.nodes
                && old.summary == new.summary
        }) {
            return;
        }
        let old = kind.objects.remove(&key);
        let mut touched = self.place(row, &key, old.as_ref(), false);
        touched.extend(self.place(row, &key, Some(&new), true));
        if row == row_of(DEVICE) {
            self.unsure_again([key.clone()]);
        }
        if let Some(kind) = self.kinds.get_mut(row) {
            kind.objects.insert(key, new);
        }
        self.tell(&touched);
    }

    /// An object is gone. Answers its uid.
    pub fn delete(&mut self, row: usize, key: &Key) -> Option<String> {
        let old = self.kinds.get_mut(row)?.objects.remove(key)?;
        let touched = self.place(row, key, Some(&old), false);
        self.tell(&touched);
        Some(old.uid)
    }

    /// A whole list was read: what is not in it is gone. `ns` is where the list was from. Answers keys and
    /// uids of what went.
    pub fn listed(
        &mut self,
        row: usize,
        list: usize,
        ns: Option<&str>,
        seen: &BTreeSet<Key>,
    ) -> Vec<(Key, String)> {
        let Some(kind) = self.kinds.get_mut(row) else {
            return Vec::new();
        };
        if let Some(state) = kind.lists.get_mut(list) {
            *state = Listed::Done;
        }
        let gone: Vec<Key> = kind
            .objects
            .keys()
            .filter(|key| ns.is_none_or(|ns| key.ns == ns) && !seen.contains(*key))
            .cloned()
            .collect();
        let gone = gone
            .into_iter()
            .filter_map(|key| self.delete(row, &key).map(|uid| (key, uid)))
            .collect();
        self.tell_lists(row);
        gone
    }

    /// A list could not be read.
    pub fn failed(&mut self, row: usize, list: usize) {
        let state = self
            .kinds
            .get_mut(row)
            .and_then(|kind| kind.lists.get_mut(list));
        if let Some(state) = state.filter(|state| **state == Listed::Pending) {
            *state = Listed::Failed;
            self.tell_lists(row);
        }
    }

    fn tell_lists(&self, row: usize) {
        for feed in self.feeds.values() {
            feed.mark(|dirty| {
                dirty.lists.insert(row);
                if row == row_of(DEVICE) {
                    dirty.lists.insert(row_of(MODEL));
                }
            });
        }
    }

    fn all(&self, row: usize, test: impl Fn(Listed) -> bool + Copy) -> bool {
        let one = |row: usize| {
            self.kinds
                .get(row)
                .is_some_and(|kind| kind.lists.iter().all(|list| test(*list)))
        };
        // Which models a node needs is known only once its devices are.
        one(row) && (row != row_of(MODEL) || one(row_of(DEVICE)))
    }

    /// Every list of that kind was read in this process.
    pub fn complete(&self, row: usize) -> bool {
        self.all(row, |list| list == Listed::Done)
    }

    /// No list of that kind is still on its first way.
    pub fn settled(&self, row: usize) -> bool {
        self.all(row, |list| list != Listed::Pending)
    }

    /// Whether nothing is being read for the first time any more.
    pub fn ready(&self) -> bool {
        self.nodes_listed && self.statuses_known() && (0..ROWS.len()).all(|row| self.settled(row))
    }

    /// What a node should have of one object.
    pub fn wanted(&self, node: &str, row: usize, key: &Key) -> Option<Wanted> {
        let object = self.kinds.get(row)?.objects.get(key)?;
        let about = ROWS.get(row)?;
        let wanted = match about.place {
            Place::Model => self
                .users
                .get(key)
                .is_some_and(|users| users.contains_key(node)),
            Place::NodeName | Place::Marked => object.nodes.has(node),
        };
        let topic = wanted.then(|| topic(about, key)).flatten()?;
        Some(Wanted {
            topic,
            uid: object.uid.clone(),
            hash: object.hash,
            body: object.body.clone(),
        })
    }

    /// Everything of a kind that a node should have.
    pub fn all_wanted(&self, node: &str, row: usize) -> Vec<Wanted> {
        let keys = self
            .kinds
            .get(row)
            .into_iter()
            .flat_map(|kind| kind.objects.keys());
        keys.filter_map(|key| self.wanted(node, row, key)).collect()
    }

    pub fn device(&self, key: &Key) -> Option<DeviceRef> {
        let object = self.kinds.get(row_of(DEVICE))?.objects.get(key)?;
        let nodes = match &object.nodes {
            Nodes::Some(nodes) => nodes.clone(),
            Nodes::None | Nodes::All => BTreeSet::new(),
        };
        Some(DeviceRef {
            uid: object.uid.clone(),
            nodes,
            summary: object.summary,
        })
    }

    /// The device's status was written: its watch will say the same a moment later.
    pub fn note_summary(&mut self, key: &Key, object: &Value) {
        let kind = self.kinds.get_mut(row_of(DEVICE));
        if let Some(device) = kind.and_then(|kind| kind.objects.get_mut(key))
            && device.uid == text(object, "/metadata/uid")
        {
            device.summary = summary(&object["status"]);
        }
    }

    /// Whether all devices are known, so that one that is not here is nowhere.
    pub fn devices_complete(&self) -> bool {
        self.complete(row_of(DEVICE))
    }

    /// Devices of a node.
    pub fn devices_of(&self, node: &str) -> Vec<Key> {
        let kind = self.kinds.get(row_of(DEVICE));
        let objects = kind.into_iter().flat_map(|kind| &kind.objects);
        objects
            .filter(|(_, o)| o.nodes.has(node))
            .map(|(key, _)| key.clone())
            .collect()
    }

    /// Whether an object of that API kind goes to the node.
    pub fn concerns(&self, node: &str, api_kind: &str, key: &Key) -> bool {
        let row = ROWS.iter().position(|row| row.api_kind == api_kind);
        row.is_some_and(|row| self.wanted(node, row, key).is_some())
    }

    // ---- DeviceStatuses

    pub fn apply_status(&mut self, key: Key, status: StatusRef) {
        if self.statuses.get(&key) == Some(&status) {
            return;
        }
        self.statuses.insert(key.clone(), status);
        self.tell_status(&key);
    }

    pub fn delete_status(&mut self, key: &Key) {
        if self.statuses.remove(key).is_some() {
            self.tell_status(key);
        }
    }

    fn tell_status(&self, key: &Key) {
        let device = self.device(key);
        for node in device.iter().flat_map(|device| &device.nodes) {
            if let Some(feed) = self.feeds.get(node) {
                feed.mark(|dirty| {
                    dirty.statuses.insert(key.clone());
                });
            }
        }
    }

    pub fn statuses_listed(&mut self, ns: Option<&str>, seen: &BTreeSet<Key>) {
        self.status_lists.insert(ns.map(str::to_owned));
        let gone: Vec<Key> = self
            .statuses
            .keys()
            .filter(|key| ns.is_none_or(|ns| key.ns == ns) && !seen.contains(*key))
            .cloned()
            .collect();
        for key in gone {
            self.delete_status(&key);
        }
    }

    /// Whether every DeviceStatus is known.
    pub fn statuses_known(&self) -> bool {
        self.status_lists.len() >= self.status_lists_wanted
    }

    pub fn status(&self, key: &Key) -> Option<&StatusRef> {
        self.statuses.get(key)
    }

    /// DeviceStatuses whose Device is not there any more, once that can be known.
    pub fn orphans(&self) -> Vec<(Key, StatusRef)> {
        if !self.devices_complete() || !self.statuses_known() {
            return Vec::new();
        }
        let orphan = |key: &Key, status: &StatusRef| {
            !status.owner.is_empty()
                && self
                    .device(key)
                    .is_none_or(|device| device.uid != status.owner)
        };
        let all = self.statuses.iter();
        all.filter(|(key, status)| orphan(key, status))
            .map(|(key, status)| (key.clone(), status.clone()))
            .collect()
    }

    // ---- who is concerned

    /// Enters or takes out an object's place; answers what changes for whom.
    fn place(
        &mut self,
        row: usize,
        key: &Key,
        object: Option<&Object>,
        add: bool,
    ) -> Vec<(Nodes, usize, Key)> {
        let Some(object) = object else {
            return Vec::new();
        };
        let mut touched = Vec::new();
        if ROWS
            .get(row)
            .is_some_and(|about| about.place == Place::Model)
        {
            let users = self
                .users
                .get(key)
                .map(|users| users.keys().cloned().collect());
            touched.push((Nodes::Some(users.unwrap_or_default()), row, key.clone()));
            return touched;
        }
        touched.push((object.nodes.clone(), row, key.clone()));
        if let (Some(model), Nodes::Some(nodes)) = (&object.model, &object.nodes) {
            let users = self.users.entry(model.clone()).or_default();
            for node in nodes {
                let count = users.entry(node.clone()).or_default();
                *count = if add {
                    *count + 1
                } else {
                    count.saturating_sub(1)
                };
                if *count == 0 {
                    users.remove(node);
                }
            }
            if users.is_empty() {
                self.users.remove(model);
            }
            touched.push((object.nodes.clone(), row_of(MODEL), model.clone()));
        }
        touched
    }

    fn tell(&self, touched: &[(Nodes, usize, Key)]) {
        for (nodes, row, key) in touched {
            let mark = |feed: &Arc<Feed>| {
                feed.mark(|dirty| {
                    dirty.objects.insert((*row, key.clone()));
                });
            };
            match nodes {
                Nodes::None => {}
                Nodes::All => self.feeds.values().for_each(mark),
                Nodes::Some(nodes) => {
                    nodes
                        .iter()
                        .filter_map(|node| self.feeds.get(node))
                        .for_each(mark);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
