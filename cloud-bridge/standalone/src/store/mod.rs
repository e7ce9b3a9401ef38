//! The objects: in memory to be read, in SQLite to be kept.
//!
//! One global revision numbers every change. A change is put in memory at once, so that the
//! next writer builds on it, and handed to the writer thread, which commits everything that is
//! waiting in one transaction. Only then is the writer answered, are readers shown it, and does
//! it enter the event history that watches read. If a commit fails, every change that is not
//! committed is undone and its writer told.
//!
//! Invariants: the revision never goes back, across restarts too; the history holds committed
//! changes only; a reader never returns what could still be lost.

mod db;
mod history;
mod packed;

pub use db::OpenError;
pub use history::{Event, EventKind};
pub use packed::{Obj, Packed};

use crate::error::ApiError;
use history::History;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::future::Future;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{oneshot, watch};

/// Where an object lives: `kind` is `group/plural`, whatever the version.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub kind: Arc<str>,
    pub ns: String,
    pub name: String,
}

impl Key {
    pub fn new(kind: &Arc<str>, ns: &str, name: &str) -> Key {
        Key {
            kind: kind.clone(),
            ns: ns.to_owned(),
            name: name.to_owned(),
        }
    }
}

/// What an update wants done with the object it was shown.
#[derive(Debug)]
pub enum Change {
    /// Nothing: answer with the object as it is.
    Keep,
    Put(Value),
    /// Remove it; the value is its last state, as watchers shall see it.
    Delete(Value),
}

/// What an update did, committed.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The object as stored, or its last state if it was removed.
    pub object: Option<Obj>,
    pub created: bool,
    pub deleted: bool,
}

type Objects = BTreeMap<(String, String), Arc<Packed>>;

struct Pending {
    event: Event,
    done: oneshot::Sender<Result<(), String>>,
}

#[derive(Default)]
struct State {
    kinds: HashMap<Arc<str>, Objects>,
    revision: u64,
    /// Counts undone commits: a reader that waited across one reads again.
    undone: u64,
    pending: Vec<Pending>,
    closing: bool,
}

impl State {
    fn put(&mut self, key: &Key, object: Option<Arc<Packed>>) {
        let id = (key.ns.clone(), key.name.clone());
        let objects = self.kinds.entry(key.kind.clone()).or_default();
        match object {
            Some(object) => objects.insert(id, object),
            None => objects.remove(&id),
        };
    }

    fn get(&self, key: &Key) -> Option<Arc<Packed>> {
        let id = (key.ns.clone(), key.name.clone());
        self.kinds.get(&key.kind)?.get(&id).cloned()
    }
}

struct Shared {
    state: Mutex<State>,
    wake_writer: Condvar,
    history: Mutex<History>,
    committed: watch::Sender<u64>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every critical section leaves the data consistent before anything that could panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Handle on the objects; clones share them.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
    writer: Arc<Mutex<Option<std::thread::JoinHandle<()>>>>,
}

/// How often an update is tried again because another writer was faster.
const UPDATE_ATTEMPTS: usize = 200;

/// A disk that takes longer for a commit is as good as hung.
const COMMIT_DEADLINE: Duration = Duration::from_secs(30);

/// What has been waited for too long may still happen: its outcome is unknown, as the error's
/// class says.
async fn in_time<F: Future>(waiting: F) -> Result<F::Output, ApiError> {
    tokio::time::timeout(COMMIT_DEADLINE, waiting)
        .await
        .map_err(|_| ApiError::timeout("the database does not answer"))
}

impl Store {
    /// Opens or creates the database in `dir`. A database that cannot be read is moved aside.
    pub fn open(dir: &Path) -> Result<Store, OpenError> {
        let (db, loaded) = db::open(dir)?;
        Store::start(db, loaded)
    }

    fn start(db: db::Db, loaded: db::Loaded) -> Result<Store, OpenError> {
        let mut state = State {
            revision: loaded.revision,
            ..State::default()
        };
        for (key, object) in loaded.objects {
            state.put(&key, Some(Arc::new(object)));
        }
        let shared = Arc::new(Shared {
            history: Mutex::new(History::starting_at(loaded.revision)),
            committed: watch::Sender::new(loaded.revision),
            state: Mutex::new(state),
            wake_writer: Condvar::new(),
        });
        let for_thread = shared.clone();
        let writer = std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || write_loop(&for_thread, db))
            .map_err(OpenError::Thread)?;
        Ok(Store {
            shared,
            writer: Arc::new(Mutex::new(Some(writer))),
        })
    }

    /// Commits what is waiting and ends the writer thread. Later updates are refused.
    pub fn close(&self) {
        lock(&self.shared.state).closing = true;
        self.shared.wake_writer.notify_all();
        if let Some(writer) = lock(&self.writer).take()
            && writer.join().is_err()
        {
            tracing::error!("the store's writer thread panicked");
        }
    }

    /// The committed revision, and a way to wait for the next.
    pub fn committed(&self) -> watch::Receiver<u64> {
        self.shared.committed.subscribe()
    }

    /// One object, as committed.
    pub async fn get(&self, key: &Key) -> Result<Option<Obj>, ApiError> {
        Ok(self.get_packed(key).await?.map(|o| o.unpack()))
    }

    pub async fn get_packed(&self, key: &Key) -> Result<Option<Arc<Packed>>, ApiError> {
        loop {
            let (object, rev, undone) = {
                let state = lock(&self.shared.state);
                let object = state.get(key);
                // An absence may be an uncommitted delete: then everything must be committed.
                let rev = object.as_ref().map_or(state.revision, |o| o.rev);
                (object, rev, state.undone)
            };
            if self.settled(rev, undone).await? {
                return Ok(object);
            }
        }
    }

    /// The objects of one kind in (namespace, name) order with the revision they stand for.
    /// `after` continues a list behind (namespace, name).
    pub async fn list(
        &self,
        kind: &str,
        ns: Option<&str>,
        after: Option<(String, String)>,
    ) -> Result<(Vec<Arc<Packed>>, u64), ApiError> {
        use std::ops::Bound::{Excluded, Included, Unbounded};
        loop {
            let (objects, rev, undone) = {
                let state = lock(&self.shared.state);
                let from = match (&after, ns) {
                    (Some(after), _) => Excluded(after.clone()),
                    (None, Some(ns)) => Included((ns.to_owned(), String::new())),
                    (None, None) => Unbounded,
                };
                let objects = state.kinds.get(kind).map_or_else(Vec::new, |all| {
                    all.range((from, Unbounded))
                        .take_while(|((at, _), _)| ns.is_none_or(|ns| ns == at))
                        .map(|(_, object)| object.clone())
                        .collect()
                });
                (objects, state.revision, state.undone)
            };
            if self.settled(rev, undone).await? {
                return Ok((objects, rev));
            }
        }
    }

    /// Every object of every kind, for the controllers' full passes.
    pub async fn everything(&self) -> Result<Vec<(Key, Arc<Packed>)>, ApiError> {
        loop {
            let (all, rev, undone) = {
                let state = lock(&self.shared.state);
                let all: Vec<_> = state
                    .kinds
                    .iter()
                    .flat_map(|(kind, objects)| {
                        objects
                            .iter()
                            .map(|((ns, name), o)| (Key::new(kind, ns, name), o.clone()))
                    })
                    .collect();
                (all, state.revision, state.undone)
            };
            if self.settled(rev, undone).await? {
                return Ok(all);
            }
        }
    }

    /// Which kinds have objects in which namespaces ("" for the cluster's own).
    pub fn places(&self) -> BTreeSet<(Arc<str>, String)> {
        let state = lock(&self.shared.state);
        let mut places = BTreeSet::new();
        for (kind, objects) in &state.kinds {
            let mut last = None;
            for (ns, _) in objects.keys() {
                if last != Some(ns) {
                    places.insert((kind.clone(), ns.clone()));
                    last = Some(ns);
                }
            }
        }
        places
    }

    /// Whether what was read at `rev` holds; false if it was undone and must be read again.
    async fn settled(&self, rev: u64, undone: u64) -> Result<bool, ApiError> {
        let mut committed = self.shared.committed.subscribe();
        in_time(committed.wait_for(|committed| *committed >= rev))
            .await?
            .map_err(|_| ApiError::internal("the store is closed"))?;
        Ok(lock(&self.shared.state).undone == undone)
    }

    /// Shows `decide` the object and does what it says; again if somebody else changed the
    /// object meanwhile. Returns when the change is on disk.
    pub async fn update<F>(&self, key: &Key, mut decide: F) -> Result<Outcome, ApiError>
    where
        F: FnMut(Option<&Obj>) -> Result<Change, ApiError>,
    {
        for _ in 0..UPDATE_ATTEMPTS {
            let (before, undone) = {
                let state = lock(&self.shared.state);
                (state.get(key), state.undone)
            };
            let shown = before.as_ref().map(|o| o.unpack());
            let (value, kind) = match decide(shown.as_ref())? {
                Change::Keep => {
                    let rev = before.as_ref().map_or(0, |o| o.rev);
                    if self.settled(rev, undone).await? {
                        return Ok(Outcome {
                            created: shown.is_none(),
                            object: shown,
                            deleted: false,
                        });
                    }
                    continue;
                }
                Change::Put(value) if before.is_some() => (value, EventKind::Modified),
                Change::Put(value) => (value, EventKind::Added),
                Change::Delete(value) => (value, EventKind::Deleted),
            };
            let Some((object, done)) = self.submit(key, before.as_ref(), value, kind)? else {
                continue;
            };
            return match in_time(done).await? {
                Ok(Ok(())) => Ok(Outcome {
                    object: Some(object),
                    created: before.is_none(),
                    deleted: kind == EventKind::Deleted,
                }),
                Ok(Err(why)) => Err(ApiError::internal(format!("could not store: {why}"))),
                Err(_) => Err(ApiError::internal("the store is closed")),
            };
        }
        Err(ApiError::timeout(format!(
            "{} {} changes too often to be updated",
            key.kind, key.name
        )))
    }

    /// Puts the change in memory and in the queue, if the object is still the one `before`.
    #[allow(clippy::type_complexity)]
    fn submit(
        &self,
        key: &Key,
        before: Option<&Arc<Packed>>,
        mut value: Value,
        kind: EventKind,
    ) -> Result<Option<(Obj, oneshot::Receiver<Result<(), String>>)>, ApiError> {
        let mut state = lock(&self.shared.state);
        if state.closing {
            return Err(ApiError::internal("the server is shutting down"));
        }
        if state.get(key).map(|o| o.rev) != before.map(|o| o.rev) {
            return Ok(None);
        }
        state.revision += 1;
        let rev = state.revision;
        value["metadata"]["resourceVersion"] = Value::String(rev.to_string());
        let object = Arc::new(Packed::new(rev, &value));
        let stored = (kind != EventKind::Deleted).then(|| object.clone());
        state.put(key, stored);
        let (done, wait) = oneshot::channel();
        state.pending.push(Pending {
            event: Event {
                kind,
                key: key.clone(),
                object,
                before: before.cloned(),
            },
            done,
        });
        drop(state);
        self.shared.wake_writer.notify_one();
        Ok(Some((Obj { rev, value }, wait)))
    }

    /// The committed changes to objects of `kind` after revision `after`, and the revision
    /// reached. An error if the history no longer reaches back that far.
    pub fn events(&self, kind: &str, after: u64) -> Result<(Vec<Event>, u64), ApiError> {
        lock(&self.shared.history).after(Some(kind), after)
    }

    /// As [`Store::events`], of every kind.
    pub fn all_events(&self, after: u64) -> Result<(Vec<Event>, u64), ApiError> {
        lock(&self.shared.history).after(None, after)
    }
}

/// The writer thread: commits what is pending, in order, until the store closes.
fn write_loop(shared: &Shared, mut db: db::Db) {
    loop {
        let batch = {
            let mut state = lock(&shared.state);
            while state.pending.is_empty() && !state.closing {
                state = shared
                    .wake_writer
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            if state.pending.is_empty() {
                return;
            }
            std::mem::take(&mut state.pending)
        };
        match db.commit(batch.iter().map(|p| &p.event)) {
            Ok(()) => publish(shared, batch),
            Err(error) => undo(shared, batch, &error.to_string()),
        }
    }
}

fn publish(shared: &Shared, batch: Vec<Pending>) {
    let Some(last) = batch.last().map(|p| p.event.object.rev) else {
        return;
    };
    let mut answers = Vec::with_capacity(batch.len());
    {
        let mut history = lock(&shared.history);
        for pending in batch {
            history.push(pending.event);
            answers.push(pending.done);
        }
    }
    shared.committed.send_replace(last);
    for done in answers {
        // A writer that went away does not need its answer.
        done.send(Ok(())).ok();
    }
}

/// Takes back the failed batch and everything that was built on it, newest first.
fn undo(shared: &Shared, batch: Vec<Pending>, why: &str) {
    tracing::error!("storing {} changes failed: {why}", batch.len());
    let mut undone = batch;
    let revision = {
        let mut state = lock(&shared.state);
        undone.append(&mut state.pending);
        for pending in undone.iter().rev() {
            state.put(&pending.event.key, pending.event.before.clone());
        }
        state.undone += 1;
        state.revision
    };
    lock(&shared.history).reached(revision);
    shared.committed.send_replace(revision);
    for pending in undone {
        pending.done.send(Err(why.to_owned())).ok();
    }
}

#[cfg(test)]
mod tests;
