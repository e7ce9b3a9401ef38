//! The store's one thread: takes all jobs that wait, commits them in one transaction, hands the
//! messages to the spine in commit order, answers, and begins again.
//!
//! A transaction that carries anything `sync` ends with an fsync; one that carries only `lazy`
//! changes ends with write(2), and a flush follows within the configured time. A transaction that
//! fails is rolled back and its jobs are tried one by one, so that each publisher gets the answer
//! to its own message and small changes still fit on a disk that is nearly full.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use edgebus_bus::Durability;
use rusqlite::Connection;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::session::{self, Inbox, Kept, Opened};
use super::standing::{Hit, Standing, Wish};
use super::{Job, Place, Refused, open, queue, retained};
use crate::codec::QoS;
use crate::config::Config;
use crate::counters::Counters;
use crate::spine::Routed;

/// Jobs in one transaction.
const BATCH: usize = 256;

pub(super) struct Limits {
    pub(super) app_bytes: usize,
    pub(super) inbox: (usize, usize),
    pub(super) session: (usize, usize),
    pub(super) sessions_per_name: usize,
}

impl From<&Config> for Limits {
    fn from(c: &Config) -> Self {
        Self {
            app_bytes: c.app_retained_bytes,
            inbox: (c.inbox_messages, c.inbox_bytes),
            session: (c.session_messages, c.session_bytes),
            sessions_per_name: c.sessions_per_name,
        }
    }
}

pub(super) struct Writer {
    pub(super) db: Connection,
    pub(super) sessions: HashMap<u64, Kept>,
    pub(super) standing: Arc<RwLock<Standing>>,
    /// The last commit number given out, and the last that is committed.
    pub(super) commit: u64,
    pub(super) committed: Arc<AtomicU64>,
    pub(super) app_bytes: usize,
    pub(super) spine: mpsc::Sender<Routed>,
    pub(super) counters: Arc<Counters>,
    pub(super) limits: Limits,
    pub(super) lazy: Arc<Notify>,
    /// There are commits without fsync.
    pub(super) dirty: bool,
    /// Why the last transaction failed: said once, not for each.
    pub(super) failing: watch::Sender<Option<String>>,
    pub(super) swept_ms: u64,
    /// The value of `synchronous` now.
    pub(super) full_sync: Option<bool>,
    pub(super) fatal: CancellationToken,
}

/// Why a job did not happen.
pub(super) enum Fail {
    /// It alone is refused; the transaction goes on.
    Refused(Refused),
    /// The transaction is lost.
    Sqlite(rusqlite::Error),
}

impl From<rusqlite::Error> for Fail {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

/// What a job came to, before the commit.
#[derive(Default)]
pub(super) enum Done {
    #[default]
    Nothing,
    Stamped(u64, Vec<(Hit, u64)>),
    Flag(bool),
    Opened(Opened),
    Refused(Refused),
}

impl Writer {
    /// Reads the sessions and makes the inboxes that are missing.
    pub(super) fn load(&mut self, inboxes: &[Inbox]) -> rusqlite::Result<()> {
        let tx = self.db.unchecked_transaction()?;
        session::all_left(&tx)?;
        for inbox in inboxes {
            let held = session::load(&tx)?;
            let found = held.iter().find(|(_, k)| k.key == inbox.key);
            let id = match found {
                Some((id, _)) => *id,
                None => session::create(&tx, &inbox.key)?,
            };
            for (old, _) in session::wishes(&tx, id)? {
                if !inbox.filters.contains(&old.filter) {
                    session::unsubscribe(&tx, id, &old.filter)?;
                }
            }
            for filter in &inbox.filters {
                session::subscribe(&tx, id, &inbox_wish(filter.clone()), false)?;
            }
        }
        tx.commit()?;
        self.reload()?;
        for kept in self.sessions.values_mut() {
            kept.inbox = inboxes.iter().any(|i| i.key == kept.key);
        }
        let mut standing = self
            .standing
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        for (id, kept) in &self.sessions {
            for (wish, _) in session::wishes(&self.db, *id)? {
                standing.add(*id, &kept.key, kept.inbox, wish);
            }
        }
        Ok(())
    }

    /// Counts again what is derived from the tables.
    fn reload(&mut self) -> rusqlite::Result<()> {
        let mut fresh = session::load(&self.db)?;
        for (id, kept) in &mut fresh {
            if let Some(old) = self.sessions.get(id) {
                kept.inbox = old.inbox;
                kept.next_q = kept.next_q.max(old.next_q);
                kept.old_q = old.old_q;
            }
        }
        self.sessions = fresh;
        self.app_bytes = retained::app_bytes(&self.db)?;
        Ok(())
    }

    pub(super) fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        let mut batch = Vec::new();
        while let Some(first) = jobs.blocking_recv() {
            batch.push(first);
            while batch.len() < BATCH
                && let Ok(next) = jobs.try_recv()
            {
                batch.push(next);
            }
            if let Some(reply) = self.handle(&mut batch) {
                self.close();
                // Closes the file, so that who waits may open it.
                drop(self.db);
                return send(reply, ());
            }
        }
        self.close();
    }

    /// Returns whom to tell after a request to stop.
    fn handle(&mut self, batch: &mut Vec<Job>) -> Option<oneshot::Sender<()>> {
        let mut writes = Vec::new();
        for job in batch.drain(..) {
            match job {
                Job::Retained {
                    filter,
                    after,
                    reply,
                } => {
                    self.transact(&mut writes);
                    let page = retained::page(&self.db, &filter, after.as_deref());
                    send(reply, self.read(page));
                }
                Job::Queued {
                    session,
                    after,
                    reply,
                } => {
                    self.transact(&mut writes);
                    let old = self.sessions.get(&session).map_or(0, |k| k.old_q);
                    let page = queue::page(&self.db, session, after, old);
                    send(reply, self.read(page));
                }
                Job::Stop { reply } => {
                    self.transact(&mut writes);
                    return Some(reply);
                }
                // Alone, because what is published next must be matched against it.
                subscribe @ Job::Subscribe { .. } => {
                    writes.push(subscribe);
                    self.transact(&mut writes);
                }
                write => writes.push(write),
            }
        }
        self.transact(&mut writes);
        None
    }

    fn read<T>(&mut self, result: rusqlite::Result<T>) -> Result<T, Refused> {
        result.map_err(|error| self.broken(&error))
    }

    /// Commits the jobs together, or failing that each alone.
    fn transact(&mut self, jobs: &mut Vec<Job>) {
        if jobs.is_empty() {
            return;
        }
        match self.attempt(jobs) {
            Ok(done) => {
                if self.failing.borrow().is_some() {
                    self.failing.send_replace(None);
                    tracing::info!("the store can be written again");
                }
                for (job, done) in jobs.drain(..).zip(done) {
                    self.finish(job, done);
                }
            }
            Err(error) if jobs.len() == 1 => {
                let refused = self.broken(&error);
                for job in jobs.drain(..) {
                    self.finish(job, Done::Refused(refused.clone()));
                }
            }
            Err(_) => {
                for job in std::mem::take(jobs) {
                    self.transact(&mut vec![job]);
                }
            }
        }
    }

    fn attempt(&mut self, jobs: &[Job]) -> rusqlite::Result<Vec<Done>> {
        let sync = jobs.iter().any(|job| self.needs_sync(job));
        self.set_sync(sync)?;
        self.db.execute_batch("BEGIN IMMEDIATE")?;
        let result = self.apply_all(jobs).and_then(|done| {
            self.db.execute_batch("COMMIT")?;
            Ok(done)
        });
        if result.is_err() {
            if !self.db.is_autocommit() {
                self.db.execute_batch("ROLLBACK")?;
            }
            self.reload()?;
            return result;
        }
        self.counters.transactions.up();
        // Ordered before the messages reach the spine: who subscribes now and reads this mark
        // finds in the tables all that the mark covers.
        self.committed.store(self.commit, Ordering::Release);
        if sync {
            self.dirty = false;
        } else if !self.dirty {
            self.dirty = true;
            self.lazy.notify_one();
        }
        result
    }

    fn needs_sync(&self, job: &Job) -> bool {
        match job {
            Job::Publish { message, place, .. } => {
                *place == Place::Disk(Durability::Sync) || self.wants(&message.topic)
            }
            // A repeated delivery after power loss is allowed.
            Job::Ack { .. } | Job::Replayed { .. } | Job::Leave { .. } => false,
            _ => true,
        }
    }

    fn wants(&self, topic: &str) -> bool {
        let standing = self.standing.read().unwrap_or_else(PoisonError::into_inner);
        standing.wants(topic)
    }

    fn set_sync(&mut self, full: bool) -> rusqlite::Result<()> {
        if self.full_sync != Some(full) {
            self.full_sync = None;
            let value = if full { "FULL" } else { "NORMAL" };
            self.db.pragma_update(None, "synchronous", value)?;
            self.full_sync = Some(full);
        }
        Ok(())
    }

    fn apply_all(&mut self, jobs: &[Job]) -> rusqlite::Result<Vec<Done>> {
        let mut done = Vec::with_capacity(jobs.len());
        for job in jobs {
            done.push(match self.apply(job) {
                Ok(done) => done,
                Err(Fail::Refused(refused)) => Done::Refused(refused),
                Err(Fail::Sqlite(error)) => return Err(error),
            });
        }
        Ok(done)
    }

    /// After the commit: changes what is matched, routes and answers.
    fn finish(&mut self, job: Job, done: Done) {
        match (job, done) {
            (
                Job::Publish {
                    message,
                    place,
                    reply,
                },
                done,
            ) => match done {
                Done::Stamped(n, mails) => {
                    self.counters.committed.up();
                    let mut message = message;
                    message.commit = n;
                    let routed = Routed::Committed {
                        message,
                        memory: place == Place::Memory,
                        mails,
                        reply,
                    };
                    if let Err(error) = self.spine.blocking_send(routed) {
                        tracing::debug!(%error, "the spine has stopped");
                    }
                }
                Done::Refused(refused) => {
                    if let Some(reply) = reply {
                        send(reply, Err(refused));
                    }
                }
                _ => {}
            },
            (
                Job::Subscribe {
                    session,
                    wish,
                    reply,
                    ..
                },
                done,
            ) => {
                let answer = match done {
                    Done::Refused(refused) => Err(refused),
                    _ => Ok(self.stand(session, wish)),
                };
                send(reply, answer);
            }
            (
                Job::Unsubscribe {
                    session,
                    filter,
                    reply,
                },
                done,
            ) => {
                let answer = match done {
                    Done::Refused(refused) => Err(refused),
                    Done::Flag(was_there) => {
                        let standing = self.standing.write();
                        let mut standing = standing.unwrap_or_else(PoisonError::into_inner);
                        standing.remove(session, &filter);
                        Ok(was_there)
                    }
                    _ => Ok(false),
                };
                send(reply, answer);
            }
            (Job::Open { reply, .. }, Done::Opened(opened)) => send(reply, Ok(opened)),
            (Job::Open { reply, .. }, Done::Refused(refused)) => send(reply, Err(refused)),
            _ => {}
        }
    }

    fn stand(&mut self, session: u64, wish: Wish) -> bool {
        let Some(kept) = self.sessions.get(&session) else {
            return false;
        };
        let mut standing = self
            .standing
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        standing.add(session, &kept.key, kept.inbox, wish)
    }

    /// Reports an error of SQLite once, and ends the broker if the file is bad.
    fn broken(&mut self, error: &rusqlite::Error) -> Refused {
        if open::is_corrupt(error) {
            tracing::error!(%error, "the bus store is corrupt: the broker ends and starts anew");
            self.fatal.cancel();
        } else if self.failing.borrow().is_none() {
            self.failing.send_replace(Some(error.to_string()));
            tracing::error!(%error, "the bus store cannot be written: publishers are refused until it can");
        }
        Refused::Disk(error.to_string())
    }

    fn close(&mut self) {
        let closed = self
            .set_sync(true)
            .and_then(|()| open::set_meta(&self.db, "clean", "1"));
        if let Err(error) = closed {
            tracing::warn!(%error, "the store was not closed cleanly: it is checked at the next start");
        }
    }
}

fn inbox_wish(filter: Arc<str>) -> Wish {
    Wish {
        filter,
        qos: QoS::AtLeastOnce,
        no_local: false,
        retain_as_published: false,
        id: 0,
    }
}

/// Who asked may have gone away; that is no error.
fn send<T>(reply: oneshot::Sender<T>, value: T) {
    drop(reply.send(value));
}
