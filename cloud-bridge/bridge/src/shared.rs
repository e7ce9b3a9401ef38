//! What the tasks of one life with one cluster share.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use kube::Client;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::away::Away;
use crate::config::Config;
use crate::enrol::Door;
use crate::hub::Hub;
use crate::metrics::Metrics;
use crate::mirror::{Key, Mirror};

/// Status writes under way at once, for all nodes.
const WRITES: usize = 32;
const ENROLLING: usize = 8;

pub struct Shared {
    pub config: Config,
    pub client: Client,
    pub door: Door,
    pub hub: Hub,
    pub metrics: Metrics,
    /// Whether the API answers.
    pub api: Away,
    pub writes: Semaphore,
    /// Enrolments under way at once: whoever knocks costs the API a call.
    pub enrolling: Semaphore,
    /// Cancelled when the API turns out to be another cluster's: everything starts over.
    pub changed: CancellationToken,
    pub tasks: TaskTracker,
    /// A search for orphans is about to begin.
    pub collecting: AtomicBool,
    mirror: Mutex<Mirror>,
    /// When each device's status was written last.
    paced: Mutex<BTreeMap<Key, Instant>>,
}

impl Shared {
    pub fn new(config: Config, client: Client, door: Door, mirror: Mirror) -> Shared {
        Shared {
            config,
            client,
            door,
            hub: Hub::default(),
            metrics: Metrics::default(),
            api: Away::default(),
            writes: Semaphore::new(WRITES),
            enrolling: Semaphore::new(ENROLLING),
            changed: CancellationToken::new(),
            tasks: TaskTracker::new(),
            collecting: AtomicBool::new(false),
            mirror: Mutex::new(mirror),
            paced: Mutex::default(),
        }
    }

    fn paced(&self) -> MutexGuard<'_, BTreeMap<Key, Instant>> {
        self.paced.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn written(&self, key: &Key) -> Option<Instant> {
        self.paced().get(key).copied()
    }

    pub fn note_write(&self, key: &Key, at: Instant) {
        self.paced().insert(key.clone(), at);
    }

    pub fn forget_write(&self, key: &Key) {
        self.paced().remove(key);
    }

    /// Held for short steps only, never over an await.
    pub fn mirror(&self) -> MutexGuard<'_, Mirror> {
        self.mirror.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
