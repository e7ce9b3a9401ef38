//! Persistent sessions in the store: who they are, what they subscribe to, what waits for them.

use std::collections::HashMap;
use std::sync::Arc;

use rusqlite::{Connection, params};

use super::retained::qos;
use super::standing::Wish;
use crate::message::now_ms;

/// A session that exists from first boot, before its reader ever connects.
#[derive(Debug, Clone)]
pub struct Inbox {
    /// `{name}/{client id}`.
    pub key: Arc<str>,
    pub filters: Vec<Arc<str>>,
}

/// What a connection learns when it opens its session.
#[derive(Debug, Default)]
pub struct Opened {
    /// 0 = nothing is stored, the session ends with the connection.
    pub session: u64,
    /// The session was there before.
    pub present: bool,
    pub inbox: bool,
    /// Its subscriptions; true = their retained messages were not taken whole.
    pub wishes: Vec<(Wish, bool)>,
}

/// What the writer keeps in memory of each session.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) key: Arc<str>,
    pub(super) inbox: bool,
    pub(super) messages: usize,
    pub(super) bytes: usize,
    pub(super) next_q: u64,
    /// Messages below may have been sent by a broker before this one.
    pub(super) old_q: u64,
    pub(super) expires_ms: Option<u64>,
    /// Its quota is full: said once.
    pub(super) dropping: bool,
}

impl Kept {
    pub(super) fn name(&self) -> &str {
        name_of(&self.key)
    }
}

/// The name in a session's key.
pub fn name_of(key: &str) -> &str {
    key.split_once('/').map_or(key, |(name, _)| name)
}

pub(super) fn create(db: &Connection, key: &str) -> rusqlite::Result<u64> {
    db.execute(
        "INSERT INTO session(key, expiry_s, left_ms) VALUES(?1, ?2, NULL)",
        params![key, u32::MAX],
    )?;
    Ok(u64::try_from(db.last_insert_rowid()).unwrap_or(0))
}

pub(super) fn delete(db: &Connection, session: u64) -> rusqlite::Result<()> {
    for sql in [
        "DELETE FROM session WHERE id=?1",
        "DELETE FROM sub WHERE session=?1",
        "DELETE FROM queue WHERE session=?1",
    ] {
        db.prepare_cached(sql)?.execute([session as i64])?;
    }
    Ok(())
}

/// Marks a session as left, to be kept for some time, or as in use again.
pub(super) fn mark(
    db: &Connection,
    session: u64,
    left: Option<(u64, u32)>,
) -> rusqlite::Result<()> {
    let (left_ms, expiry_s) = left.unzip();
    db.prepare_cached("UPDATE session SET left_ms=?2, expiry_s=?3 WHERE id=?1")?
        .execute(params![
            session as i64,
            left_ms.map(|ms| ms as i64),
            expiry_s.unwrap_or(u32::MAX)
        ])?;
    Ok(())
}

pub(super) fn subscribe(
    db: &Connection,
    session: u64,
    wish: &Wish,
    replay: bool,
) -> rusqlite::Result<()> {
    db.prepare_cached(
        "INSERT INTO sub(session, filter, qos, no_local, rap, sub_id, replay)
         VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7)
         ON CONFLICT(session, filter) DO UPDATE SET qos=excluded.qos, no_local=excluded.no_local,
             rap=excluded.rap, sub_id=excluded.sub_id, replay=excluded.replay",
    )?
    .execute(params![
        session as i64,
        &*wish.filter,
        wish.qos as u8,
        wish.no_local,
        wish.retain_as_published,
        wish.id,
        replay
    ])?;
    Ok(())
}

pub(super) fn unsubscribe(db: &Connection, session: u64, filter: &str) -> rusqlite::Result<bool> {
    let removed = db
        .prepare_cached("DELETE FROM sub WHERE session=?1 AND filter=?2")?
        .execute(params![session as i64, filter])?;
    Ok(removed != 0)
}

pub(super) fn replayed(db: &Connection, session: u64, filter: &str) -> rusqlite::Result<()> {
    db.prepare_cached("UPDATE sub SET replay=0 WHERE session=?1 AND filter=?2")?
        .execute(params![session as i64, filter])?;
    Ok(())
}

pub(super) fn wishes(db: &Connection, session: u64) -> rusqlite::Result<Vec<(Wish, bool)>> {
    let mut statement = db.prepare_cached(
        "SELECT filter, qos, no_local, rap, sub_id, replay FROM sub WHERE session=?1",
    )?;
    let rows = statement.query_map([session as i64], |r| {
        let wish = Wish {
            filter: r.get_ref(0)?.as_str()?.into(),
            qos: qos(r.get(1)?),
            no_local: r.get(2)?,
            retain_as_published: r.get(3)?,
            id: r.get(4)?,
        };
        Ok((wish, r.get(5)?))
    })?;
    rows.collect()
}

/// Marks all sessions as left: nobody is connected to a broker that starts, and those not marked
/// were connected when the one before it died.
pub(super) fn all_left(db: &Connection) -> rusqlite::Result<()> {
    let now = i64::try_from(now_ms()).unwrap_or(i64::MAX);
    db.execute("UPDATE session SET left_ms=?1 WHERE left_ms IS NULL", [now])?;
    Ok(())
}

/// All sessions, with what waits in their queues.
pub(super) fn load(db: &Connection) -> rusqlite::Result<HashMap<u64, Kept>> {
    let mut statement = db.prepare(
        "SELECT s.id, s.key, s.expiry_s, s.left_ms, count(q.q), total(q.size), max(q.q)
         FROM session s LEFT JOIN queue q ON q.session=s.id GROUP BY s.id",
    )?;
    let rows = statement.query_map([], |r| {
        let expiry_s: u32 = r.get(2)?;
        let left_ms = r
            .get::<_, Option<i64>>(3)?
            .and_then(|ms| u64::try_from(ms).ok());
        let last = r
            .get::<_, Option<i64>>(6)?
            .and_then(|q| u64::try_from(q).ok());
        let next_q = last.unwrap_or(0) + 1;
        let kept = Kept {
            key: r.get_ref(1)?.as_str()?.into(),
            inbox: false,
            messages: usize::try_from(r.get::<_, i64>(4)?).unwrap_or(0),
            bytes: r.get::<_, f64>(5)? as usize,
            next_q,
            old_q: next_q,
            expires_ms: left_ms.map(|ms| ms + u64::from(expiry_s) * 1000),
            dropping: false,
        };
        Ok((u64::try_from(r.get::<_, i64>(0)?).unwrap_or(0), kept))
    })?;
    rows.collect()
}
