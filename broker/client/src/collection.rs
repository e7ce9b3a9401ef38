//! State on the bus as a live collection: snapshot, then watch, in kube-rs's words.
//!
//! ```text
//!  us                                   broker
//!   │ SUBSCRIBE filters ────────────────► │
//!   │ ◄──────────── SUBACK, retained … … │   Init, InitApply, InitApply, …
//!   │ PUBLISH echo/{name}/{boot} ───────► │
//!   │ ◄─────────────── the echo, behind … │   InitDone: what was not seen is gone
//!   │ ◄───────────────────── live changes │   Apply, Delete
//! ```
//! A reconnect starts at `Init` again. Changes wait in a queue that keeps only the newest value of
//! each topic, so a slow reader loses nothing that still holds and the queue is never larger than
//! the state itself.

use crate::error::Result;
use crate::queue::Coalesced;
use crate::session::Detach;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What happened to a collection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A new listing begins.
    Init,
    /// One member of the listing.
    InitApply {
        /// Its topic.
        topic: String,
        /// Its payload.
        payload: Bytes,
    },
    /// The listing is complete: what was not in it is gone.
    InitDone,
    /// A member is new or has changed.
    Apply {
        /// Its topic.
        topic: String,
        /// Its payload.
        payload: Bytes,
    },
    /// A member was cleared.
    Delete {
        /// Its topic.
        topic: String,
    },
}

/// A live collection. Dropping it unsubscribes.
pub struct Collection {
    pub(crate) queue: Arc<Coalesced>,
    pub(crate) _detach: Detach,
}

impl Collection {
    /// The next event; `None` once the bus is closed. An error is a refusal of one of the filters
    /// and comes once; nothing will follow it. Cancel-safe.
    pub async fn next(&mut self) -> Option<Result<Event>> {
        self.queue.next().await
    }

    /// The same as changes against what was there before, listings included.
    pub fn mirror(self) -> Mirror {
        Mirror {
            collection: self,
            state: MirrorState::default(),
            ready: Vec::new(),
        }
    }
}

/// A change of a mirrored collection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A member is new or has another payload.
    Set {
        /// Its topic.
        topic: String,
        /// Its payload.
        payload: Bytes,
    },
    /// A member is gone.
    Gone {
        /// Its topic.
        topic: String,
    },
    /// The first complete listing (and each one after a reconnect) has been handed out.
    Synced,
}

/// A collection that remembers its members and tells only what changed, over reconnects too.
pub struct Mirror {
    collection: Collection,
    state: MirrorState,
    ready: Vec<Change>,
}

impl Mirror {
    /// The next change; `None` once the bus is closed. Cancel-safe.
    pub async fn next(&mut self) -> Option<Result<Change>> {
        loop {
            if let Some(change) = self.ready.pop() {
                return Some(Ok(change));
            }
            match self.collection.next().await? {
                Ok(event) => {
                    self.ready = self.state.step(event);
                    self.ready.reverse();
                }
                Err(e) => return Some(Err(e)),
            }
        }
    }

    /// The members as far as they are known: complete after [`Change::Synced`].
    pub fn members(&self) -> &BTreeMap<String, Bytes> {
        &self.state.members
    }

    /// The members, and no more changes.
    pub fn into_members(self) -> BTreeMap<String, Bytes> {
        self.state.members
    }
}

/// The pure part of [`Mirror`].
#[derive(Debug, Default)]
pub struct MirrorState {
    members: BTreeMap<String, Bytes>,
    /// Members not seen yet in the listing that is under way.
    unseen: Option<BTreeMap<String, ()>>,
}

impl MirrorState {
    /// Takes one event, gives the changes it means.
    pub fn step(&mut self, event: Event) -> Vec<Change> {
        match event {
            Event::Init => {
                self.unseen = Some(self.members.keys().map(|k| (k.clone(), ())).collect());
                vec![]
            }
            Event::InitApply { topic, payload } | Event::Apply { topic, payload } => {
                if let Some(unseen) = &mut self.unseen {
                    unseen.remove(&topic);
                }
                if self.members.get(&topic) == Some(&payload) {
                    return vec![];
                }
                self.members.insert(topic.clone(), payload.clone());
                vec![Change::Set { topic, payload }]
            }
            Event::Delete { topic } => {
                if let Some(unseen) = &mut self.unseen {
                    unseen.remove(&topic);
                }
                match self.members.remove(&topic) {
                    Some(_) => vec![Change::Gone { topic }],
                    None => vec![],
                }
            }
            Event::InitDone => {
                let unseen = self.unseen.take().unwrap_or_default();
                let mut out: Vec<_> = unseen
                    .into_keys()
                    .map(|topic| {
                        self.members.remove(&topic);
                        Change::Gone { topic }
                    })
                    .collect();
                out.push(Change::Synced);
                out
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn b(text: &str) -> Bytes {
        Bytes::copy_from_slice(text.as_bytes())
    }
    fn set(topic: &str, payload: &str) -> Change {
        Change::Set {
            topic: topic.into(),
            payload: b(payload),
        }
    }
    fn listed(topic: &str, payload: &str) -> Event {
        Event::InitApply {
            topic: topic.into(),
            payload: b(payload),
        }
    }

    #[test]
    fn a_second_listing_tells_only_the_difference() {
        let mut m = MirrorState::default();
        assert!(m.step(Event::Init).is_empty());
        assert_eq!(m.step(listed("a", "1")), [set("a", "1")]);
        assert_eq!(m.step(listed("b", "1")), [set("b", "1")]);
        assert_eq!(m.step(Event::InitDone), [Change::Synced]);

        assert!(m.step(Event::Init).is_empty());
        assert!(m.step(listed("b", "1")).is_empty());
        assert_eq!(m.step(listed("c", "1")), [set("c", "1")]);
        assert_eq!(
            m.step(Event::InitDone),
            [Change::Gone { topic: "a".into() }, Change::Synced]
        );
    }

    #[test]
    fn a_listing_that_breaks_off_removes_nothing() {
        let mut m = MirrorState::default();
        m.step(Event::Init);
        m.step(listed("a", "1"));
        m.step(Event::InitDone);
        m.step(Event::Init);
        assert!(m.step(Event::Init).is_empty());
        assert!(m.step(listed("a", "1")).is_empty());
        assert_eq!(m.step(Event::InitDone), [Change::Synced]);
    }

    #[test]
    fn a_member_cleared_during_the_listing_is_gone_once() {
        let mut m = MirrorState::default();
        m.step(Event::Init);
        m.step(listed("a", "1"));
        let gone = Change::Gone { topic: "a".into() };
        assert_eq!(m.step(Event::Delete { topic: "a".into() }), [gone]);
        assert_eq!(m.step(Event::InitDone), [Change::Synced]);
        assert!(m.step(Event::Delete { topic: "a".into() }).is_empty());
    }
}
