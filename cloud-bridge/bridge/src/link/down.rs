//! The way down: what the mirror wants of the node, into the session.

use bytes::Bytes;
use edgebus_linkproto::{Hash, Item, Kind};
use serde_json::json;

use super::{Link, kind, twin_topic};
use crate::mirror::{Dirty, Key, Wanted};
use crate::rows::ROWS;

impl Link {
    /// Twins that the API's DeviceStatuses were made from: they need not come again.
    pub(super) fn load_held(&mut self) {
        let mirror = self.shared.mirror();
        if !mirror.statuses_known() || !mirror.devices_complete() {
            return;
        }
        let kind = kind(Kind::TWIN);
        for key in mirror.devices_of(self.node.as_str()) {
            let (Some(device), Some(status)) = (mirror.device(&key), mirror.status(&key)) else {
                continue;
            };
            let (Some((uid, hash)), Some(topic)) = (&status.seen, twin_topic(&key)) else {
                continue;
            };
            if status.owner == device.uid {
                self.session.receiver().load(&kind, &topic, uid, *hash);
            }
        }
    }

    pub(super) fn load_row(&mut self, row: usize) {
        let Some(about) = ROWS.get(row) else {
            return;
        };
        let (wanted, complete) = {
            let mirror = self.shared.mirror();
            if !mirror.settled(row) {
                return;
            }
            (
                mirror.all_wanted(self.node.as_str(), row),
                mirror.complete(row),
            )
        };
        let kind = kind(about.kind);
        let items: Vec<(String, Item)> = wanted
            .into_iter()
            .filter_map(|wanted| self.item(about.sealed, &kind, wanted))
            .collect();
        let refused = if complete {
            self.session.sender().replace(&kind, items)
        } else {
            let sender = self.session.sender();
            items
                .into_iter()
                .filter_map(|(topic, item)| sender.set(&kind, &topic, item).err())
                .collect()
        };
        for error in refused {
            tracing::error!(node = self.node.as_str(), "cannot go to the node: {error}");
        }
    }

    pub(super) fn load_node(&mut self) {
        let (wanted, known) = {
            let mirror = self.shared.mirror();
            (mirror.node_spec(self.node.as_str()), mirror.nodes_known())
        };
        let kind = kind(Kind::NODE);
        // A Node that is gone is made again in a moment: its spec stays.
        if let Some((topic, item)) = wanted.and_then(|wanted| self.item(false, &kind, wanted)) {
            if let Err(error) = self.session.sender().set(&kind, &topic, item) {
                tracing::error!(node = self.node.as_str(), "cannot go to the node: {error}");
            }
            self.session.sender().set_complete(&kind, known);
        }
    }

    /// What travels: the object as it is, or sealed to the node.
    fn item(&mut self, sealed: bool, kind: &Kind, wanted: Wanted) -> Option<(String, Item)> {
        let Wanted {
            topic,
            uid,
            mut hash,
            mut body,
        } = wanted;
        if sealed {
            let record = &self.admission.record;
            let parts: [&[u8]; 4] = [
                topic.as_bytes(),
                uid.as_bytes(),
                record.key_id.as_bytes(),
                &body,
            ];
            hash = self.shared.door.ca.mac(&parts);
            // Sealing the same twice gives two boxes; what is there already is as good.
            let there = self.session.sender().get(kind, &topic);
            if let Some(there) = there.filter(|there| there.uid == uid && there.hash == hash) {
                return Some((topic, there.clone()));
            }
            let sealed = edgebus_api::seal::public_from_base64(&record.sealing_pub)
                .and_then(|public| edgebus_api::seal::seal(&public, &topic, &body));
            match sealed {
                Ok(text) => {
                    let text = json!({ "key_id": record.key_id, "box": text }).to_string();
                    body = Bytes::from(text);
                }
                Err(error) => {
                    tracing::error!(node = self.node.as_str(), topic, "not sealed: {error}");
                    return None;
                }
            }
        }
        Some((topic, Item { uid, hash, body }))
    }

    /// Brings what changed in the mirror into the session.
    pub(super) fn refresh(&mut self) {
        let Dirty {
            objects,
            lists,
            node,
            statuses,
        } = self.feed.take();
        for (row, key) in objects {
            let Some(about) = ROWS.get(row) else {
                continue;
            };
            let (settled, wanted) = {
                let mirror = self.shared.mirror();
                (
                    mirror.settled(row),
                    mirror.wanted(self.node.as_str(), row, &key),
                )
            };
            if !settled {
                continue; // the whole list follows
            }
            let kind = kind(about.kind);
            match wanted.and_then(|wanted| self.item(about.sealed, &kind, wanted)) {
                Some((topic, item)) => {
                    if let Err(error) = self.session.sender().set(&kind, &topic, item) {
                        tracing::error!(
                            node = self.node.as_str(),
                            "cannot go to the node: {error}"
                        );
                    }
                }
                None => {
                    if let Some(topic) = crate::mirror::topic(about, &key) {
                        self.session.sender().remove(&kind, &topic);
                    }
                }
            }
        }
        for row in lists {
            self.load_row(row);
        }
        if node {
            self.load_node();
            self.mend();
        }
        let twin = kind(Kind::TWIN);
        let doubts = statuses.iter().filter(|key| self.doubt(&twin, key));
        if doubts.count() > 0 {
            self.session.recheck(&twin);
        }
    }

    /// A DeviceStatus changed that is not what this node's twin made of it: it has to come again. False: it is.
    fn doubt(&mut self, twin: &Kind, key: &Key) -> bool {
        let Some(topic) = twin_topic(key) else {
            return false;
        };
        let seen = self
            .shared
            .mirror()
            .status(key)
            .and_then(|status| status.seen.clone());
        let mut held = self.session.receiver().held(twin);
        let Some((uid, hash)) =
            held.find_map(|(t, uid, hash)| (t == topic).then(|| (uid.to_owned(), *hash)))
        else {
            return false;
        };
        drop(held);
        let doubtful = seen.is_none() && hash != Hash::UNKNOWN;
        if doubtful {
            self.session
                .receiver()
                .load(twin, &topic, &uid, Hash::UNKNOWN);
        }
        doubtful
    }
}
