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
use crate::message::{Message, now_ms, weight};
use crate::spine::Routed;

/// Jobs in one transaction.
const BATCH: usize = 256;
/// Expired sessions and messages are looked for this often, when there is traffic.
const SWEEP_MS: u64 = 30_000;

pub(super) struct Limits {
    app_bytes: usize,
    inbox: (usize, usize),
    session: (usize, usize),
    sessions_per_name: usize,
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
enum Fail {
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
enum Done {
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

    fn apply(&mut self, job: &Job) -> Result<Done, Fail> {
        match job {
            Job::Publish { message, place, .. } => self.publish(message, *place),
            Job::Ack { session, q } => {
                if let Some(size) = queue::remove(&self.db, *session, *q)?
                    && let Some(kept) = self.sessions.get_mut(session)
                {
                    kept.messages = kept.messages.saturating_sub(1);
                    kept.bytes = kept.bytes.saturating_sub(size);
                }
                Ok(Done::Nothing)
            }
            Job::Subscribe {
                session,
                wish,
                replay,
                ..
            } => {
                session::subscribe(&self.db, *session, wish, *replay)?;
                Ok(Done::Nothing)
            }
            Job::Unsubscribe {
                session, filter, ..
            } => Ok(Done::Flag(session::unsubscribe(
                &self.db, *session, filter,
            )?)),
            Job::Replayed { session, filter } => {
                session::replayed(&self.db, *session, filter)?;
                Ok(Done::Nothing)
            }
            Job::Open {
                key, clean, keep, ..
            } => self.open(key, *clean, *keep),
            Job::Leave { session, expiry_s } => {
                self.leave(*session, *expiry_s)?;
                Ok(Done::Nothing)
            }
            Job::Forget { name } => {
                let of_name =
                    |(id, k): (&u64, &Kept)| (k.name() == &**name && !k.inbox).then_some(*id);
                let ids: Vec<u64> = self.sessions.iter().filter_map(of_name).collect();
                for id in ids {
                    self.drop_session(id)?;
                }
                Ok(Done::Nothing)
            }
            Job::Flush => {
                if self.dirty {
                    // Any change will do: committing it with fsync covers all that is before it.
                    open::set_meta(&self.db, "flushed", "")?;
                }
                self.sweep()?;
                Ok(Done::Nothing)
            }
            Job::Retained { .. } | Job::Queued { .. } | Job::Stop { .. } => Ok(Done::Nothing),
        }
    }

    fn publish(&mut self, message: &Message, place: Place) -> Result<Done, Fail> {
        let hits = {
            let standing = self.standing.read().unwrap_or_else(PoisonError::into_inner);
            standing.hits(
                &message.topic,
                message.qos,
                message.retain,
                &message.publisher,
            )
        };
        let size = weight(message);
        let app = (place != Place::Nowhere && message.topic.starts_with("app/"))
            .then(|| retained::size(&self.db, &message.topic))
            .transpose()?;
        let app_after = app.map(|old| {
            let new = match message.payload.len() {
                0 => 0,
                payload => message.topic.len() + payload,
            };
            (self.app_bytes + new).saturating_sub(old)
        });
        if let Some(after) = app_after
            && after > self.limits.app_bytes
            && after > self.app_bytes
        {
            return Err(Fail::Refused(Refused::AppQuota(self.limits.app_bytes)));
        }
        for hit in &hits {
            if let Some(kept) = self.sessions.get(&hit.session)
                && kept.inbox
                && over(kept, self.limits.inbox, size)
            {
                let name = kept.name().into();
                return Err(Fail::Refused(Refused::InboxFull(name)));
            }
        }
        let mut n = 0;
        if let Place::Disk(_) = place {
            self.commit += 1;
            n = self.commit;
        }
        let mut mails = Vec::with_capacity(hits.len());
        for hit in hits {
            let Some(kept) = self.sessions.get_mut(&hit.session) else {
                continue;
            };
            if hit.qos == QoS::AtMostOnce {
                mails.push((hit, 0));
                continue;
            }
            if !kept.inbox && over(kept, self.limits.session, size) {
                self.counters.session_dropped.up();
                if !kept.dropping {
                    kept.dropping = true;
                    tracing::warn!(session = %kept.key, "a session's quota is full: messages for it are dropped");
                }
                continue;
            }
            kept.dropping = false;
            let q = kept.next_q;
            queue::push(&self.db, message, &hit, q, n)?;
            kept.next_q += 1;
            kept.messages += 1;
            kept.bytes += size;
            mails.push((hit, q));
        }
        if let Place::Disk(_) = place {
            if message.payload.is_empty() {
                retained::clear(&self.db, &message.topic)?;
            } else {
                retained::put(&self.db, message, n)?;
            }
            if let Some(after) = app_after {
                self.app_bytes = after;
            }
        }
        Ok(Done::Stamped(n, mails))
    }

    fn open(&mut self, key: &Arc<str>, clean: bool, keep: bool) -> Result<Done, Fail> {
        let found = self.sessions.iter().find(|(_, k)| k.key == *key);
        let now = now_ms();
        let expired = |k: &Kept| !k.inbox && k.expires_ms.is_some_and(|at| at <= now);
        let found = found.map(|(id, k)| (*id, k.inbox, clean || expired(k)));
        if let Some((id, false, true)) = found {
            self.drop_session(id)?;
        }
        match found {
            Some((id, inbox, clean)) if !clean || inbox => {
                session::mark(&self.db, id, None)?;
                if let Some(kept) = self.sessions.get_mut(&id) {
                    kept.expires_ms = None;
                }
                return Ok(Done::Opened(Opened {
                    session: id,
                    present: true,
                    inbox,
                    wishes: session::wishes(&self.db, id)?,
                }));
            }
            _ if !keep => return Ok(Done::Opened(Opened::default())),
            _ => {}
        }
        let name = session::name_of(key);
        let held = self.sessions.values().filter(|k| k.name() == name).count();
        if held >= self.limits.sessions_per_name {
            return Err(Fail::Refused(Refused::Disk(format!(
                "{name} has {held} persistent sessions already"
            ))));
        }
        let id = session::create(&self.db, key)?;
        let kept = Kept {
            key: key.clone(),
            inbox: false,
            messages: 0,
            bytes: 0,
            next_q: 1,
            old_q: 1,
            expires_ms: None,
            dropping: false,
        };
        self.sessions.insert(id, kept);
        Ok(Done::Opened(Opened {
            session: id,
            ..Opened::default()
        }))
    }

    fn leave(&mut self, id: u64, expiry_s: u32) -> rusqlite::Result<()> {
        let Some(kept) = self.sessions.get_mut(&id) else {
            return Ok(());
        };
        if expiry_s == 0 && !kept.inbox {
            return self.drop_session(id);
        }
        let now = now_ms();
        kept.expires_ms = Some(now + u64::from(expiry_s) * 1000);
        session::mark(&self.db, id, Some((now, expiry_s)))
    }

    fn drop_session(&mut self, id: u64) -> rusqlite::Result<()> {
        session::delete(&self.db, id)?;
        self.sessions.remove(&id);
        let mut standing = self
            .standing
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        standing.remove_session(id);
        Ok(())
    }

    fn sweep(&mut self) -> rusqlite::Result<()> {
        let now = now_ms();
        if now < self.swept_ms + SWEEP_MS {
            return Ok(());
        }
        self.swept_ms = now;
        let late = |(id, k): (&u64, &Kept)| {
            (!k.inbox && k.expires_ms.is_some_and(|at| at <= now)).then_some(*id)
        };
        let expired: Vec<u64> = self.sessions.iter().filter_map(late).collect();
        for id in expired {
            self.drop_session(id)?;
        }
        retained::sweep(&self.db)?;
        self.app_bytes = retained::app_bytes(&self.db)?;
        Ok(())
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

fn over(kept: &Kept, (messages, bytes): (usize, usize), size: usize) -> bool {
    kept.messages >= messages || kept.bytes + size > bytes
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
