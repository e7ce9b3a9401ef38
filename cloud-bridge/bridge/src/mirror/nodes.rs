//! Nodes in the mirror, and whether the node that a device names is one of them.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use edgebus_bus::{Topic, payload};
use edgebus_linkproto::{Hash, canonical_json};
use serde_json::Value;
use tokio::sync::Notify;

use super::read::read_node;
use super::{Key, Mirror, NodeRef, Nodes, Placement, Wanted, row_of};
use crate::rows::DEVICE;

impl Mirror {
    /// Devices whose [`Mirror::placement`] has to be looked at; none until the Nodes are known.
    pub fn take_unsure(&mut self) -> BTreeSet<Key> {
        if !self.nodes_listed {
            return BTreeSet::new();
        }
        std::mem::take(&mut self.unsure)
    }

    pub fn unsure_again(&mut self, keys: impl IntoIterator<Item = Key>) {
        self.unsure.extend(keys);
        self.unsure_changed.notify_one();
    }

    pub fn unsure_changed(&self) -> Arc<Notify> {
        self.unsure_changed.clone()
    }

    pub fn placement(&self, key: &Key) -> Option<Placement> {
        let object = self.kinds.get(row_of(DEVICE))?.objects.get(key)?;
        let node = match &object.nodes {
            Nodes::Some(nodes) => nodes.first().cloned().unwrap_or_default(),
            Nodes::None | Nodes::All => String::new(),
        };
        Some(Placement {
            uid: object.uid.clone(),
            known: self.nodes.contains_key(&node),
            node,
            told: object.told.clone(),
        })
    }

    pub fn apply_node(&mut self, name: &str, node: &Value) {
        let (about, spec) = read_node(name, node);
        let body = payload::write(&spec);
        let body = match serde_json::from_slice::<Value>(&body) {
            Ok(value) => Bytes::from(canonical_json(&value)),
            Err(_) => Bytes::from(body),
        };
        let hash = Hash::of_bytes(&body);
        let ready = about.ready.clone();
        let old = self.nodes.insert(name.to_owned(), (about, body, hash));
        if old.is_none() {
            self.unsure_again(self.devices_of(name));
        }
        let same = old.is_some_and(|(about, _, old)| old == hash && about.ready == ready);
        if let Some(feed) = self.feeds.get(name).filter(|_| !same) {
            feed.mark(|dirty| dirty.node = true);
        }
    }

    pub fn delete_node(&mut self, name: &str) {
        if self.nodes.remove(name).is_none() {
            return;
        }
        self.unsure_again(self.devices_of(name));
        if let Some(feed) = self.feeds.get(name) {
            feed.mark(|dirty| dirty.node = true);
        }
    }

    pub fn nodes_listed(&mut self, seen: &BTreeSet<Key>) {
        self.nodes_listed = true;
        let gone: Vec<String> = self
            .nodes
            .keys()
            .filter(|name| !seen.contains(&Key::new("", name)))
            .cloned()
            .collect();
        for name in gone {
            self.delete_node(&name);
        }
        self.unsure_changed.notify_one();
    }

    /// Whether the Nodes have been listed.
    pub fn nodes_known(&self) -> bool {
        self.nodes_listed
    }

    pub fn node(&self, name: &str) -> Option<&NodeRef> {
        self.nodes.get(name).map(|(about, _, _)| about)
    }

    /// `node/spec` for the link.
    pub fn node_spec(&self, name: &str) -> Option<Wanted> {
        let (about, body, hash) = self.nodes.get(name)?;
        Some(Wanted {
            topic: Topic::NodeSpec {}.to_string(),
            uid: about.uid.clone(),
            hash: *hash,
            body: body.clone(),
        })
    }
}
