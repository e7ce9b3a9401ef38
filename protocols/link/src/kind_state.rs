//! What the sender knows about one kind: what is wanted, what the other end holds, and what lies between.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::{Digest, Entry, Hash, Item, Kind};

pub(crate) type Version = (String, Hash);

/// What is known of a topic at the other end.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    /// The version that needs no sending: delivered, or refused for good.
    pub settled: Version,
    /// The version that the other end holds, where that is known.
    pub held: Option<Version>,
}

#[derive(Debug)]
pub(crate) enum Phase {
    /// Nothing was said about this kind on this connection yet.
    Idle,
    /// The manifest is on its way, or its answer is awaited.
    Listing {
        entries: Vec<Entry>,
        /// Whether `entries` were all there was when they were taken.
        complete: bool,
        next: usize,
        part: u32,
        wanted: BTreeSet<Arc<str>>,
    },
    Live,
}

#[derive(Debug)]
pub(crate) struct KindState {
    pub desired: BTreeMap<Arc<str>, Item>,
    pub digest: Digest,
    pub complete: bool,
    pub phase: Phase,
    pub peer: BTreeMap<Arc<str>, Known>,
    pub held: Digest,
    /// Topics in the lane's queue.
    pub queued: BTreeSet<Arc<str>>,
    pub in_flight: BTreeSet<Arc<str>>,
    /// When a refused topic may go again, and the delay after that.
    pub retry: BTreeMap<Arc<str>, (u64, u64)>,
    pub same_sent: bool,
    pub relist_at: Option<u64>,
    /// That time has come: nothing new is sent until all is acknowledged and the list goes out.
    pub relist_due: bool,
    pub relist_delay: u64,
}

impl KindState {
    pub fn new() -> KindState {
        KindState {
            desired: BTreeMap::new(),
            digest: Digest::EMPTY,
            complete: false,
            phase: Phase::Idle,
            peer: BTreeMap::new(),
            held: Digest::EMPTY,
            queued: BTreeSet::new(),
            in_flight: BTreeSet::new(),
            retry: BTreeMap::new(),
            same_sent: false,
            relist_at: None,
            relist_due: false,
            relist_delay: 0,
        }
    }

    pub fn forget_peer(&mut self) {
        self.phase = Phase::Idle;
        self.peer.clear();
        self.held = Digest::EMPTY;
        self.queued.clear();
        self.in_flight.clear();
        self.retry.clear();
        self.same_sent = false;
        self.relist_at = None;
        self.relist_due = false;
        self.relist_delay = 0;
    }

    pub fn learn(&mut self, topic: &Arc<str>, known: Option<Known>) {
        if let Some((uid, hash)) = known.as_ref().and_then(|k| k.held.as_ref()) {
            self.held.add(topic, uid, hash);
        }
        let old = match known {
            Some(known) => self.peer.insert(topic.clone(), known),
            None => self.peer.remove(topic),
        };
        if let Some((uid, hash)) = old.and_then(|k| k.held) {
            self.held.remove(topic, &uid, &hash);
        }
    }

    pub fn differs(&self, topic: &str) -> bool {
        match (self.desired.get(topic), self.peer.get(topic)) {
            (Some(item), Some(known)) => {
                known.settled.0 != item.uid || known.settled.1 != item.hash
            }
            (None, None) => false,
            _ => true,
        }
    }

    pub fn drained(&self) -> bool {
        self.queued.is_empty() && self.in_flight.is_empty() && self.retry.is_empty()
    }
}

pub(crate) fn listing(desired: &BTreeMap<Arc<str>, Item>, complete: bool) -> Phase {
    let entries = desired
        .iter()
        .map(|(topic, item)| Entry {
            topic: topic.to_string(),
            uid: item.uid.clone(),
            hash: item.hash,
        })
        .collect();
    Phase::Listing {
        entries,
        complete,
        next: 0,
        part: 0,
        wanted: BTreeSet::new(),
    }
}

/// One frame that waits for its acknowledgement.
#[derive(Debug)]
pub(crate) struct Flight {
    pub kind: Kind,
    pub topic: Arc<str>,
    /// None for a deletion.
    pub version: Option<Version>,
    pub bytes: usize,
}
